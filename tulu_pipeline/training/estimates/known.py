"""What the files of a model and of its tokens say before any of them is loaded: for checks and estimates."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tulu_pipeline.errors import NotFound
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.shards import open_tokens
from tulu_pipeline.tokens.special_tokens import SpecialTokens, special_tokens_of
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.training.batching.steps import Steps
from tulu_pipeline.training.estimates.shape import ModelShape, model_shape


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """What is known of a base model before it is loaded.

    Attributes:
        name: for people.
        config: its `config.json`; None where it is not there yet.
        context_tokens: longest sequence that its makers trained it for; 0 where that is not known.
        parameters: how many; 0 where that is not known.
        tokenizer_entries: ids of its tokenizer are below it; 0 where its files are not there.
        special_tokens: by its tokenizer's files; None where these are not there.
        said_special_tokens, said_tuned_rows: by its value; None where nobody wrote it down.
        broken: files that are missing or cut off.
    """

    name: str
    config: Mapping[str, Any] | None = None
    context_tokens: int = 0
    parameters: int = 0
    tokenizer_entries: int = 0
    special_tokens: SpecialTokens | None = None
    said_special_tokens: SpecialTokens | None = None
    said_tuned_rows: int | None = None
    broken: tuple[str, ...] = ()

    @property
    def tuned_entries(self) -> int:
        """Of its tokenizer, with the pad token that finetuning adds where there is none."""
        added = self.special_tokens is not None and self.special_tokens.pad_is_new
        return self.tokenizer_entries + added

    @property
    def shape(self) -> ModelShape | None:
        """From its config, where that is there and its architecture known."""
        try:
            return model_shape(self.config) if self.config else None
        except NotFound:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTokens:
    """What is known of a mixture's tokens.

    Attributes:
        conversations: of all components, each counted once.
        longest: tokens of the longest.
        others: components whose tokens another tokenizer made than the model's.
        steps: optimizer steps of the whole training.
    """

    conversations: int
    longest: int
    steps: int
    others: tuple[str, ...] = ()


def known_model(folder: Path, name: str, *, context_tokens: int = 0, parameters: int = 0) -> KnownModel:
    """What the files of a model folder say; no weights are read beyond their headers."""
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text(encoding="utf-8")) if config_file.is_file() else None
    entries, found = _tokenizer(folder)
    return KnownModel(
        name=name,
        config=config,
        context_tokens=context_tokens,
        parameters=parameters,
        tokenizer_entries=entries,
        special_tokens=found,
        broken=tuple(broken_files(folder)),
    )


def known_tokens(
    components: Sequence[tuple[Path, int]], recipe: Recipe, profile: Profile, *, model: Path | None = None
) -> KnownTokens:
    """What the tokens of a mixture say.

    Args:
        components: folder of each one's tokens and how often each conversation is seen in an epoch.
        recipe: says how many steps that makes.
        profile: of the training.
        model: folder of the model whose tokenizer should have made them; None does not compare.
    """
    opened = [open_tokens(folder) for folder, _ in components]
    lengths = np.concatenate(
        [np.tile(each.lengths(), repeat) for each, (_, repeat) in zip(opened, components, strict=True)]
    )
    # What is held out may leave a step fewer; that is looked at apart.
    steps = Steps(lengths, recipe, profile).total
    others = [] if model is None else [each.folder for each in opened if _made_otherwise(each.info["made_by"], model)]
    return KnownTokens(
        conversations=sum(map(len, opened)),
        longest=max(int(each.info["longest"]) for each in opened),
        steps=steps,
        others=tuple(map(str, others)),
    )


def broken_files(folder: Path) -> Iterable[str]:
    """What is missing or cut off among the files that make a model, in words."""
    if not (folder / "config.json").is_file():
        yield "there is no `config.json`"
    listed: set[str] = set()
    for index in sorted(folder.glob("*.index.json")):
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values()))
        listed |= set(shards)
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            yield f"`{index.name}` names `{missing[0]}`{more} of {len(shards)} shards, which is not there"
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    if not weights and not listed:
        yield "there are no weights: no `.safetensors`, no `.bin`"
    for file in sorted(folder.glob("*.safetensors")):
        if cut := _cut_off(file):
            yield cut


def _made_otherwise(made_by: Mapping[str, Any], model: Path) -> bool:
    wanted = made_by.get("tokenizer_fingerprint")
    if wanted is None or not (model / "tokenizer_config.json").is_file():
        return False
    own = load_tokenizer(
        model, tokenizer_mode=made_by.get("tokenizer_mode"), special_in_text=made_by.get("special_in_text", "literal")
    )
    return bool(own.fingerprint != wanted)


def _cut_off(file: Path) -> str:
    """The header says how many bytes of tensors follow: 8 bytes of its length, itself, then they."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if size < 8 + length:
            return f"`{file.name}` is cut off within its header"
        try:
            header = json.loads(opened.read(length))
        except ValueError:
            return f"`{file.name}` is no safetensors file"
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    wanted = 8 + length + max(ends, default=0)
    return f"`{file.name}` has {size:,} of {wanted:,} bytes" if size < wanted else ""


def _tokenizer(folder: Path) -> tuple[int, SpecialTokens | None]:
    """(ids are below, special tokens); (0, None) where there is no tokenizer."""
    if not (folder / "tokenizer_config.json").is_file():
        return 0, None
    tokenizer = load_tokenizer(folder, special_in_text="hf")
    return tokenizer.vocabulary_size, special_tokens_of(folder, tokenizer)
