"""The two shapes in which LLaMA's tokenizer is published: SentencePiece BPE with byte fallback, no pre-tokenizer.

A space is the character `▁` (U+2581) to it, so typed `▁` and space are one and the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

SPACE = "▁"

# Normalizer and pre-tokenizer.
LEGACY: tuple[Any, Any] = (
    {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ],
    },
    None,
)
NONLEGACY: tuple[Any, Any] = (
    None,
    {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first", "split": False},
)

# The space that the tokenizer puts before a text that is not empty; `unless_there`: where it does not begin with one.
Lead = Literal["always", "unless_there", "never"]


def is_llama(description: Mapping[str, Any]) -> bool:
    """Whether a `tokenizer.json` has one of the two shapes."""
    model = description.get("model") or {}
    return model.get("type") == "BPE" and bool(model.get("byte_fallback")) and lead_of(description) is not None


def lead_of(description: Mapping[str, Any]) -> Lead | None:
    """What stands before each text by normalizer and pre-tokenizer; None where they are no LLaMA's."""
    normalizer, splitter = (description.get(part) or {} for part in ("normalizer", "pre_tokenizer"))
    if normalizer == LEGACY[0] and not splitter:
        return "always"
    if not normalizer and {"type": "Metaspace", "replacement": SPACE, "split": False}.items() <= splitter.items():
        return "never" if splitter.get("prepend_scheme") == "never" else "unless_there"
    return None
