"""Which files make a model, told by their names alone: in a repository's listing, or in a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.errors import BadInput

ModelPart = Literal["whole", "weights", "tokenizer"]

TOKENIZER_FILES = frozenset(
    {
        "added_tokens.json",
        "chat_template.jinja",
        "merges.txt",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
    }
)
_CONFIGURATION = frozenset({"config.json", "generation_config.json"})
_ADAPTER = "adapter_config.json"
_WEIGHTS = (("model", "safetensors"), ("pytorch_model", "bin"))  # the first that is there


class NoModel(Exception):
    """Names that make no whole model: what of it is not there; `fix` where the names tell it."""

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(what, fix)
        self.what, self.fix = what, fix


def model_files(names: Iterable[str], part: ModelPart = "whole") -> list[str]:
    """The names that are part of the model, sorted.

    One copy of the weights: safetensors before `.bin`, a single file before shards, as transformers prefers them.

    Raises:
        NoModel: there is no configuration, no weights, a shard is missing, or no tokenizer.
    """
    there = set(names)
    chosen: set[str] = set()
    if part != "tokenizer":
        if "config.json" not in there and _ADAPTER in there:
            raise NoModel(
                f"holds an adapter (`{_ADAPTER}`), not a model",
                "merge it into its base with peft's `merge_and_unload`, `save_pretrained` the result, and name that",
            )
        if "config.json" not in there:
            raise NoModel("has no `config.json`")
        chosen |= there & _CONFIGURATION | weight_files(there)
    if part != "weights":
        if not has_tokenizer(there):
            raise NoModel(
                "has neither `tokenizer.json` nor `vocab.json`",
                'take part="weights" of it, and a tokenizer\'s sources beside it: `{**weights, **TOKENIZER.sources}`',
            )
        chosen |= there & TOKENIZER_FILES
    return sorted(chosen)


def weight_files(names: Iterable[str]) -> set[str]:
    """The names that hold the weights, with their index where there is one.

    Raises:
        NoModel: there are none, or a shard is missing.
    """
    there = set(names)
    for stem, ending in _WEIGHTS:
        single, index = f"{stem}.{ending}", f"{stem}.{ending}.index.json"
        if single in there:
            return {single}
        if index in there:
            shards = {name: re.fullmatch(rf"{stem}-(\d+)-of-(\d+)\.{ending}", name) for name in there}
            numbers = {int(found[1]): int(found[2]) for found in shards.values() if found}
            if not numbers or set(numbers) != set(range(1, max(numbers.values()) + 1)):
                raise NoModel(f"has `{index}` and only the shards {sorted(numbers)}")
            return {index, *(name for name, found in shards.items() if found)}
    raise NoModel("has no weights: neither safetensors nor `pytorch_model.bin`")


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether there is a tokenizer that can be read without its makers' code."""
    return not {"tokenizer.json", "vocab.json"}.isdisjoint(names)


def model_folder(folder: str | Path, *, module: str, part: ModelPart = "whole") -> dict[str, LocalFile]:
    """A model in a folder of this machine, as sources: its files, each hashed when a plan is made.

    Args:
        folder: its path, from the folder of the calling file on.
        module: the calling file, `__file__`.
        part: "weights" (with the configuration), "tokenizer", or "whole" for both.

    Raises:
        BadInput: it is no folder, or holds no whole model: a shard is missing, an index names a file that is not
            there, there is no configuration or no tokenizer, or it is an adapter.
    """
    place = Path(module).resolve().parent / folder
    if not place.is_dir():
        raise BadInput(f"there is no folder `{folder}`", str(place), "name the folder that holds the model's files")
    there = [path.name for path in place.iterdir() if path.is_file()]
    try:
        chosen = model_files(there, part)
    except NoModel as error:
        fix = error.fix or "copy the whole model there, or write it again with `save_pretrained`"
        raise BadInput(f"the folder {error.what}", str(place), fix) from error
    for name in chosen:
        if name.endswith(".index.json"):
            shard_of_tensor(place / name)
    return {name: LocalFile(path=str(place / name)) for name in chosen}


def shard_of_tensor(index: Path) -> Mapping[str, str]:
    """Tensor to the file that holds it, by the index of a sharded model.

    Raises:
        BadInput: the index is broken, or names a file that is not there.
    """
    fix = "copy the model again, all of it"
    try:
        shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        named = sorted({str(name) for name in shards.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(f"the index is broken: {type(error).__name__}: {error}", str(index), fix) from error
    lost = [name for name in named if "/" in name or not (index.parent / name).is_file()]
    if lost:
        raise BadInput(f"the index names {', '.join(f'`{name}`' for name in lost)}, not there", str(index), fix)
    return dict(shards)
