"""The choices that change token ids and loss masks, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tulu_pipeline.errors import BadInput

LossSpan = Literal["tulu1", "eos"]
TokenizerMode = Literal["legacy_fast", "nonlegacy", "v2023_slow"]
SpecialInText = Literal["literal", "hf"]
Template = Literal["tulu", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """What is cut and what is supervised.

    Attributes:
        max_length_tokens: longer conversations are cut on the right, BOS counted.
        loss_span: what is supervised: content, end mark and what stands before the next user or system tag
            (`tulu1`, the original's); or content and end mark (`eos`).
    """

    max_length_tokens: int = 2048
    loss_span: LossSpan = "tulu1"

    def __post_init__(self) -> None:
        if self.max_length_tokens < 1:
            raise BadInput(f"max_length_tokens is {self.max_length_tokens}", "encode options", "write at least 1")

    @property
    def nothing_learned(self) -> str:
        """Why a conversation without a supervised token is left out of training."""
        return f"nothing to learn in the first {self.max_length_tokens:,} tokens"
