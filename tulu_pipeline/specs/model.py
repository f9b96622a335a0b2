"""What a base model is, before finetuning; and a checkpoint that somebody tuned already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tulu_pipeline.artifacts.source import HubModel, Source
from tulu_pipeline.chat.options import Template
from tulu_pipeline.chat.options import TokenizerMode as TokenizerMode
from tulu_pipeline.errors import BadInput, unknown_name
from tulu_pipeline.specs.checks import check_choices
from tulu_pipeline.tokens.special_tokens import SpecialTokens as SpecialTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedTokenizer:
    """A tokenizer by itself: base models that share it share the tokens made with it.

    Attributes:
        name: id such as `llama`.
        sources: `tokenizer.json`, `tokenizer_config.json` and what belongs to them, or one `Builtin` that writes them.
        mode: how a LLaMA tokenizer treats what follows `</s>`; None for other families.
        special_tokens: what begins, ends and pads a text. Compared with the files when they are there; None where
            nobody wrote it down.
    """

    name: str
    sources: Mapping[str, Source]
    mode: TokenizerMode | None = None
    special_tokens: SpecialTokens | None = None


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
        config: its shape, as its `config.json` has it, for estimates before that is there; empty where nobody wrote it
            down.
        tuned_embedding_rows: rows of the embeddings after finetuning, which may have added a pad token. Compared with
            the files when they are there; None where nobody wrote it down.
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
    config: Mapping[str, Any] = field(default_factory=dict)
    tuned_embedding_rows: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightDiff:
    """That a checkpoint's files hold, in place of its weights, those weights minus the base model's.

    A diff against other weights of the same shapes adds up to a model as well. Two facts tell that it is not the
    right one, where they are known:

    Attributes:
        dtype: of the recovered weights; the original's script adds and writes float32.
        tuned_dtype: what the tuned weights were kept in before the base's were subtracted. Then nearly all recovered
            weights are numbers of that type, which a sum with other weights is not. None: not known, not checked.
        weights_sum: the sum of all recovered weights, where the publisher states it (Alpaca's does).
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    tuned_dtype: Literal["bfloat16", "float16"] | None = None
    weights_sum: float | None = None

    def __post_init__(self) -> None:
        check_choices(self, "weight diff")
        if self.tuned_dtype not in {None, "bfloat16", "float16"}:
            raise BadInput(
                f"tuned_dtype is {self.tuned_dtype!r}", "weight diff", "write `bfloat16` or `float16`, or leave it out"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedModel:
    """A checkpoint that was tuned elsewhere: a row of the table without training.

    Attributes:
        name: id of letters, digits, `_`, `-`, `.` and `:`.
        base: what was tuned. Its rows stand together; its tokenizer counts where answers are judged by their length.
        sources: the checkpoint's files (weights, configuration, tokenizer), or those of a diff.
        diff: says that `sources` hold a diff on `base`; None where they are the checkpoint itself.
        tokenizer: of a diff: the files to be put into the recovered checkpoint, in place of the diff's own.
        template: the chat format it was taught, in which it is asked: the paper's (`tulu`), or the chat template in
            its tokenizer's files (`own`).
        label: what the table prints; "" uses the name.
        mixture: what its makers say it was tuned on, by this project's name; the paper's score for it then stands
            beside ours, where it is asked alike. "" for none.
        license, citation, url: for people; `license` is an SPDX id, or a name.
    """

    name: str
    base: PretrainedModel
    sources: Mapping[str, Source]
    license: str
    diff: WeightDiff | None = None
    tokenizer: PretrainedTokenizer | None = None
    template: Template = "tulu"
    label: str = ""
    mixture: str = ""
    citation: str = ""
    url: str = ""

    def __post_init__(self) -> None:
        where = f"tuned model {self.name!r}"
        check_choices(self, where)
        if not re.fullmatch(r"[\w.:][\w.:-]*", self.name):
            raise BadInput(f"the name is {self.name!r}", where, "write letters, digits, `_`, `-`, `.` and `:`")
        if not self.sources:
            raise BadInput("it has no sources", where, "name its files: `HubModel(…)`, or `model_folder(…)`")
        if self.tokenizer is not None and self.diff is None:
            raise BadInput(
                "only a diff takes a tokenizer beside its sources",
                where,
                "put its files among the sources: `{**weights, **TOKENIZER.sources}`",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A tuned checkpoint that its makers published, as far as it is known without its commit.

    Attributes:
        repo: the hub's `owner/name`.
        name, base, diff, template, label, mixture, license, citation: as those of `TunedModel`.
    """

    name: str
    repo: str
    base: PretrainedModel
    license: str
    diff: WeightDiff | None = None
    template: Template = "tulu"
    label: str = ""
    mixture: str = ""
    citation: str = ""

    def at(self, revision: str) -> TunedModel:
        """The release as it was published in a commit of its repository (40 hex digits).

        Its tokenizer is the base model's: the ids of a text are the same, and the base's files are known to be there.

        Raises:
            BadInput: a branch, or part of a hash.
        """
        weights = {"weights": HubModel(repo=self.repo, revision=revision, part="weights")}
        tokenizer = self.base.tokenizer
        return TunedModel(
            name=self.name,
            base=self.base,
            sources=weights if self.diff else {**weights, **tokenizer.sources},
            diff=self.diff,
            tokenizer=tokenizer if self.diff else None,
            template=self.template,
            label=self.label,
            mixture=self.mixture,
            license=self.license,
            citation=self.citation,
            url=f"https://huggingface.co/{self.repo}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Models of one architecture and license, by size; and what was tuned from models and published."""

    name: str
    title: str
    citation: str
    models: tuple[PretrainedModel, ...] = ()
    releases: tuple[Release, ...] = ()

    def model(self, name: str) -> PretrainedModel:
        """The model called `name`.

        Raises:
            NotFound: the family has no such model.
        """
        for model in self.models:
            if model.name == name:
                return model
        raise unknown_name(f"{self.name} model", name, (model.name for model in self.models))

    def release(self, name: str) -> Release:
        """The release called `name`.

        Raises:
            NotFound: nothing was released under this name.
        """
        for release in self.releases:
            if release.name == name:
                return release
        raise unknown_name(f"{self.name} release", name, (release.name for release in self.releases))
