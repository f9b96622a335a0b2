"""Weights to safetensors, one tensor after the other, cut into files of a bounded size."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

SHARD_BYTES: Final = 4 << 30


class ShardWriter:
    """Writes tensors in the order of `shapes`; holds those of one file at a time.

    The names of the files are those of transformers: `model.safetensors`, or numbered ones with an index.

    Args:
        folder: for the files.
        shapes: of each tensor that will be written.
        dtype: in which they are written.
        shard_bytes: a file is no larger, unless a single tensor is.

    Attributes:
        bytes_done, bytes_in_all: of weights.
    """

    def __init__(
        self, folder: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype, shard_bytes: int = SHARD_BYTES
    ) -> None:
        sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
        self.bytes_done, self.bytes_in_all = 0, sum(sizes.values())
        self._folder, self._dtype = folder, dtype
        self._files = _cut(sizes, shard_bytes)
        self._waiting = [name for names in self._files.values() for name in names]
        self._held: dict[str, torch.Tensor] = {}

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """The next tensor; its file is written when it is full, the index with the last one."""
        assert name == self._waiting.pop(0), f"{name} comes out of order"
        self._held[name] = tensor.to(self._dtype).contiguous()
        self.bytes_done += tensor.numel() * self._dtype.itemsize
        for file, names in self._files.items():
            if names[-1] == name:
                save_file(self._held, self._folder / file, metadata={"format": "pt"})
                (self._folder / file).chmod(0o644)  # it is written for the owner alone
                self._held = {}
        if not self._waiting and len(self._files) > 1:
            self._write_index()

    def _write_index(self) -> None:
        shards = {name: file for file, names in self._files.items() for name in names}
        index = {"metadata": {"total_size": self.bytes_in_all}, "weight_map": shards}
        text = json.dumps(index, indent=2, sort_keys=True) + "\n"
        (self._folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


def _cut(sizes: Mapping[str, int], shard_bytes: int) -> dict[str, list[str]]:
    """File names, each with its tensors in order."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(name)
        room -= size
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    count = len(shards)
    return {f"model-{number:05}-of-{count:05}.safetensors": names for number, names in enumerate(shards, 1)}
