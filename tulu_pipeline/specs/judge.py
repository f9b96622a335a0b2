"""Who replies to completions before they are scored: values an experiment chooses among."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.profile import Slot

# Flag of an item that its judge could not be asked about; a table with such items is not complete.
MISSING = "judge_missing"


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

    @property
    def called(self) -> str:
        """How a column says that this one judged it: "AlpacaEval, by …"; "" for what replies alike whoever asks."""
        return ""

    def downloads(self) -> Mapping[str, Mapping[str, Source]]:
        """What it reads from outside (weights, recorded replies), by the name of the artifact it becomes."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseEvaluator(Judge):
    """The paper's false evaluator: the answer with more unique tokens wins."""

    kind: Literal["false_evaluator"] = "false_evaluator"
    compares: ClassVar[bool] = True
    counts_tokens: ClassVar[bool] = True

    @property
    def called(self) -> str:
        return "unique tokens"


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

    @property
    def called(self) -> str:
        return self.annotator

    def downloads(self) -> Mapping[str, Mapping[str, Source]]:
        return {"annotations": self.annotations}


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotator(Judge):
    """One of AlpacaEval's annotators: a chat model ranks the answer and the reference's.

    Which of the two comes first follows from the instruction and `seed`. Pairs of equal answers are ties, and nobody
    is asked.

    Attributes:
        name: for tables, such as `alpaca_eval_gpt4_0314`.
        prompt: a ChatML template with places for `{instruction}`, `{output_1}` and `{output_2}`.
        model: as the provider calls it. provider: whose address and key the environment has (see `provider_access`);
            another provider is another judge, another address of the same one is not.
        max_tokens, temperature: of its replies.
        seed: of the order.
        both_orders: ask in both orders, and take the mean; says how often the order decides.
        cap_name: what the model calls `max_tokens`.
    """

    name: str
    prompt: Source = execution_field()
    model: str
    provider: str = "openai"
    max_tokens: int = 100
    temperature: float | None = 0.0
    seed: int = 0
    both_orders: bool = False
    cap_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    kind: Literal["annotator"] = "annotator"
    slot: ClassVar[Slot] = "api"
    compares: ClassVar[bool] = True

    @property
    def called(self) -> str:
        return self.name

    def downloads(self) -> Mapping[str, Mapping[str, Source]]:
        return {f"{self.name}-prompt": {"prompt.txt": self.prompt}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution(Judge):
    """Nobody judges: each completion becomes a program that is executed, by the stage `execute`, in a sandbox.

    An item's `gold` holds what stands `before` a completion and `after` it, and the `entry_point` that is checked.

    Attributes:
        timeout_seconds: by the clock, for each program.
    """

    timeout_seconds: float = 3.0
    kind: Literal["execution"] = "execution"
