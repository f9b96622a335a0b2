"""What the card of a finetuned model says: what it was made of and how, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tulu_pipeline.export.model_facts import ModelFacts
from tulu_pipeline.export.terms import named_licenses
from tulu_pipeline.mixing.licenses import UNKNOWN, parts_of
from tulu_pipeline.specs.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of one component, after tokenizing: each conversation counted once."""

    conversations: int
    tokens: int
    supervised_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of the loss curve."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a benchmark of this project gave: value and half-width of its 95 % interval, both in [0, 1]."""

    benchmark: str
    setting: str
    value: float
    half_width: float
    items: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """Everything the card says.

    Attributes:
        artifact, key, stage_version: which artifact it is. digest: of its files; "" while that is not known.
        facts: what it is made of; None where the training was not told.
        recipe: how.
        components: name and repeat of each.
        counts: of each component.
        licenses: of the rows of each component; None where only the datasets' own are known.
        languages: ISO 639-1 codes that the data tells of itself.
        metrics: what the training reported.
        steps: the loss curve.
        packages: name to version, of what trained it.
        results: scores that are there.
        license: that the model is published under; "" for none stated.
        address: repository it is published in; "" before that.
    """

    artifact: str
    key: str
    stage_version: int
    facts: ModelFacts | None
    recipe: Recipe
    components: tuple[tuple[str, int], ...]
    counts: tuple[Counts, ...]
    metrics: Mapping[str, Any]
    steps: Sequence[Step]
    packages: Mapping[str, str]
    digest: str = ""
    licenses: tuple[tuple[str, ...], ...] | None = None
    languages: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    license: str = ""
    address: str = ""

    @property
    def name(self) -> str:
        """`model+mixture`."""
        return self.artifact.partition("[")[2].removesuffix("]") or self.artifact

    def licenses_by_part(self) -> dict[str, tuple[str, ...]]:
        """The licenses of base model and components, one id each."""
        if self.facts is None:
            return {}
        base = {f"base model {self.facts.base.name}": named_licenses(self.facts.base.license)}
        stated = (parts_of(part.license) for part in self.facts.data)
        found = self.licenses if self.licenses is not None else tuple(stated)
        return base | {part.dataset: licenses for part, licenses in zip(self.facts.data, found, strict=True)}

    def licenses_of_all(self) -> tuple[str, ...]:
        """Each license once, sorted, the unknown last."""
        found = {license_ for licenses in self.licenses_by_part().values() for license_ in licenses}
        return tuple(sorted(found, key=lambda license_: (license_ == UNKNOWN, license_.casefold())))

    def told_languages(self) -> tuple[str, ...]:
        """The languages that the data tells of itself, else those that the mixture asked for; sorted."""
        asked = {code for part in self.facts.data for code in part.languages} if self.facts else set()
        return self.languages or tuple(sorted(asked))
