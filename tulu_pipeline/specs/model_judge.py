"""Judges that are models of their own: a classifier of toxicity, and judges of truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.profile import Slot
from tulu_pipeline.specs.judge import Judge

Engine = Literal["vllm", "transformers"]
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToxicityClassifier(Judge):
    """A classifier of sequences reads each completion, in float32; its likelier label is the verdict.

    Attributes:
        name: for tables.
        model: its files: weights, configuration and tokenizer; their contents are an input.
        toxic_label: which of its labels says toxic.
        max_length_tokens: what it reads of a completion, from the beginning.
    """

    name: str
    model: Mapping[str, Source] = execution_field()
    toxic_label: int = 1
    max_length_tokens: int = 512
    kind: Literal["toxicity_classifier"] = "toxicity_classifier"
    slot: ClassVar[Slot] = "gpu"

    @property
    def called(self) -> str:
        return self.name

    def downloads(self) -> Mapping[str, Mapping[str, Source]]:
        return {self.name: self.model}


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthJudges(Judge):
    """Two language models, tuned to go on with ` yes` or ` no`: is an answer true, and does it inform.

    Attributes:
        name: of both, for tables.
        truth, information: files of each: weights, configuration and tokenizer; their contents are an input.
        engine, dtype: what runs them.
    """

    name: str
    truth: Mapping[str, Source] = execution_field()
    information: Mapping[str, Source] = execution_field()
    engine: Engine = "vllm"
    dtype: Dtype = "bfloat16"
    kind: Literal["truth_judges"] = "truth_judges"
    slot: ClassVar[Slot] = "gpu"

    @property
    def called(self) -> str:
        return self.name

    def downloads(self) -> Mapping[str, Mapping[str, Source]]:
        return {f"{self.name}-truth": self.truth, f"{self.name}-information": self.information}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTruthJudges(Judge):
    """The same two behind a provider's completions endpoint, as the paper had them.

    Attributes:
        truth, information: the models as the provider calls them, such as `curie:ft-…`.
        provider: whose address and key the environment has (see `provider_access`).
    """

    truth: str
    information: str
    provider: str = "openai"
    kind: Literal["served_truth_judges"] = "served_truth_judges"
    slot: ClassVar[Slot] = "api"

    @property
    def called(self) -> str:
        return f"judges of {self.provider}"
