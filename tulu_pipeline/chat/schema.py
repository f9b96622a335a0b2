"""The one interchange schema: a conversation is a list of messages with a role and a content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training example.

    Attributes:
        dataset: the dataset's name.
        id: unique in the dataset, derived from the raw row, such as `alpaca_17`.
        messages: at least one of them from the assistant.
        license: of this row where it is not the dataset's own (an SPDX id where there is one), else "".
        language: ISO 639-1 code where the raw row tells it, else "".
    """

    dataset: str
    id: str
    messages: tuple[Message, ...]
    license: str = ""
    language: str = ""
