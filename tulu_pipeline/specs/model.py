"""What a base model is, before finetuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.chat.options import TokenizerMode as TokenizerMode
from tulu_pipeline.errors import unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedTokenizer:
    """A tokenizer by itself: base models that share it share the tokens made with it.

    Attributes:
        name: id such as `llama`.
        sources: `tokenizer.json`, `tokenizer_config.json` and what belongs to them, or one `Builtin` that writes them.
        mode: how a LLaMA tokenizer treats what follows `</s>`; None for other families.
    """

    name: str
    sources: Mapping[str, Source]
    mode: TokenizerMode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedModel:
    """A base model.

    Attributes:
        name: id such as `llama-7b`.
        sources: weights, config and tokenizer files, or one `Builtin` that writes them all
            (the folder then opens with `transformers`).
        tokenizer: how its text becomes ids.
        parameters: number of weights, for people and estimates.
        pretraining_tokens: tokens it was trained on; 0 when it was not.
        context_tokens: longest sequence it takes.
        license: SPDX id, or a name.
        architecture: class of transformers that it is, for people and estimates; "" where nobody wrote it down.
        tune_learning_rate, tune_max_length_tokens: the paper's choice for this size where it differs from the recipe.
    """

    name: str
    sources: Mapping[str, Source]
    parameters: int
    pretraining_tokens: int
    context_tokens: int
    license: str
    tokenizer: PretrainedTokenizer
    architecture: str = ""
    tune_learning_rate: float | None = None
    tune_max_length_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models of one architecture and license, by size."""

    name: str
    title: str
    citation: str
    models: tuple[PretrainedModel, ...]

    def model(self, name: str) -> PretrainedModel:
        """The model called `name`.

        Raises:
            NotFound: the family has no such model.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise unknown_name(f"{self.name} model", name, (model.name for model in self.models))
