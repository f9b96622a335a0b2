"""What the classifier's process is told, and what it says of a text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierJob:
    """Texts to classify.

    Attributes:
        name: the artifact's, for events.
        model: folder of a Hugging Face checkpoint.
        texts: file of `Text`. records: file of `Classified`, may hold some already.
        max_length_tokens: what is read of a text.
        gpu: whether to use the GPU.
        batch: texts at a time, at most.
    """

    name: str
    model: str
    texts: Path
    records: Path
    max_length_tokens: int
    gpu: bool
    batch: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """A text by its digest; the same text is classified once."""

    sha256: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """What the classifier says of a text.

    Attributes:
        logits: of each label.
        label: the likelier one, the first of equals.
        tokens: the text's length, marks included. cut: whether it was longer than what is read.
    """

    sha256: str
    logits: tuple[float, ...]
    label: int
    tokens: int
    cut: bool
