"""What a model card says that a training does not know: where base model and data come from, and under which terms."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_pipeline.tokens.special_tokens import SpecialTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """The base model.

    Attributes:
        name, license, architecture, parameters, pretraining_tokens, context_tokens, special_tokens,
            tuned_embedding_rows: as its definition has them.
        repo, revision: hub repository of its weights and the commit; "" where they are from elsewhere.
    """

    name: str
    license: str
    architecture: str
    parameters: int
    pretraining_tokens: int
    context_tokens: int
    special_tokens: SpecialTokens | None = None
    tuned_embedding_rows: int | None = None
    repo: str = ""
    revision: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """A component of the mixture.

    Attributes:
        dataset, title, citation, url, license, sample: of the dataset.
        repeat: how often each conversation is seen in an epoch.
        choice: filters and cap in words, "all" for none.
        languages: that the mixture asks for; empty where it does not say.
        repo: hub repository of the original files; "" where they are from elsewhere.
    """

    dataset: str
    title: str
    citation: str
    url: str
    license: str
    sample: str
    repeat: int
    choice: str
    languages: tuple[str, ...] = ()
    repo: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """What one finetuned model is made of.

    Attributes:
        experiment: its name; `title`: what it asks.
        mixture: the mixture's name.
        base: what was tuned.
        data: on what, in order.
        asked: titles of the benchmarks that the experiment asks of it.
        notes: what the experiment says under its tables.
    """

    experiment: str
    title: str
    mixture: str
    base: BaseFacts
    data: tuple[DataFacts, ...]
    asked: tuple[str, ...]
    notes: tuple[str, ...] = ()
