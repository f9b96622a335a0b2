"""Who replies to completions before they are scored: values an experiment chooses among."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.profile import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """What all judges have; each kind is a subclass, and `tasks/judge.py` knows how each is asked.

    The class of a value is not part of a key, so each kind has a field that says its name.

    Attributes:
        slot: what asking it occupies.
        compares: whether it says which of two answers is better; intervals of its verdicts are then normal.
        counts_tokens: whether it needs the tokenizer of the model that answered.
    """

    slot: ClassVar[Slot] = "cpu"
    compares: ClassVar[bool] = False
    counts_tokens: ClassVar[bool] = False

    def downloads(self) -> Mapping[str, Mapping[str, Source]]:
        """What it reads from outside (weights, recorded replies), by the name of the artifact it becomes."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseEvaluator(Judge):
    """The paper's false evaluator: the answer with more unique tokens wins."""

    kind: Literal["false_evaluator"] = "false_evaluator"
    compares: ClassVar[bool] = True
    counts_tokens: ClassVar[bool] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay(Judge):
    """Annotations that a judge wrote down earlier, in AlpacaEval's form; they answer in its place.

    An annotation is found by its instruction and the very output it is about; one that is not there is an error.

    Attributes:
        annotations: files of annotations by a name of their own; their contents are an input.
        annotator: whose they are, for tables.
    """

    annotations: Mapping[str, Source] = execution_field()
    annotator: str
    kind: Literal["replay"] = "replay"
    compares: ClassVar[bool] = True

    def downloads(self) -> Mapping[str, Mapping[str, Source]]:
        return {"annotations": self.annotations}
