"""The paper's false evaluator (Appendix H): whichever output has more unique tokens wins.

It needs no model and no key, and its verdicts correlate with GPT-4's; that is the paper's point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["win", "tie", "loss"]
WIN_SHARE = {"win": 1.0, "tie": 0.5, "loss": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One output against the reference; `verdict` is the output's."""

    verdict: Verdict
    unique_tokens: int
    reference_unique_tokens: int


def compare(output: str, reference: str, encode: Callable[[str], Sequence[int]]) -> Comparison:
    """More unique tokens win; as many tie.

    Args:
        output: what the model wrote; an empty text is an output too, and loses.
        reference: what the reference model wrote.
        encode: text to token ids, with the marks the tokenizer itself adds (BOS), as the original counted them.
    """
    ours, theirs = len(set(encode(output))), len(set(encode(reference)))
    verdict: Verdict = "win" if ours > theirs else "tie" if ours == theirs else "loss"
    return Comparison(verdict=verdict, unique_tokens=ours, reference_unique_tokens=theirs)
