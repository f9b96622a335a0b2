"""The tensors of a model folder by name, read one at a time, from safetensors or `.bin`, in one file or in shards."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from tulu_pipeline.artifacts.model_files import NoModel, shard_of_tensor, weight_files
from tulu_pipeline.errors import BadInput, TuluError

# Buffers that transformers of 2023 saved with the weights: later ones compute them and ignore what files say.
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$|attention\.(bias|masked_bias)$")
_FIX = "fetch or copy the model's files again"
_OPEN_FILES = 2  # two models may be cut at different places


class TensorFiles:
    """What the weight files of a folder hold. Files are mapped, not loaded; use from one thread.

    Args:
        folder: of a model.

    Attributes:
        shapes: of each tensor, in the order of the files; without buffers that a model computes for itself.

    Raises:
        BadInput: no weights, a missing shard, a file that cannot be read, a tensor that the index has and no file.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, Path] = {}
        self._open: dict[Path, _File] = {}
        try:
            names = sorted(weight_files(path.name for path in folder.iterdir()))
        except NoModel as error:
            raise BadInput(f"the folder {error.what}", str(folder), error.fix or _FIX) from error
        indexed = {}
        for name in names:
            if name.endswith(".index.json"):
                indexed = dict(shard_of_tensor(folder / name))
                continue
            for tensor, shape in self._opened(folder / name).shapes.items():
                self._file_of[tensor] = folder / name
                if not _COMPUTED.search(tensor):
                    self.shapes[tensor] = shape
        for tensor, shard in indexed.items():
            if self._file_of.get(tensor) != folder / shard:
                raise BadInput(f"the index says that `{tensor}` is in `{shard}`, and it is not", str(folder), _FIX)

    def read(self, name: str) -> torch.Tensor:
        """One tensor, in float32.

        Raises:
            BadInput: it cannot be read, or holds no floating-point numbers.
        """
        path = self._file_of[name]
        with _told(path):
            tensor = self._opened(path).read(name)
        if not tensor.is_floating_point():
            raise BadInput(
                f"`{name}` holds {str(tensor.dtype).removeprefix('torch.')}, as quantized models do",
                str(path),
                "name the model as it was before it was quantized",
            )
        return tensor.to(torch.float32)

    def _opened(self, path: Path) -> _File:
        if path not in self._open:
            while len(self._open) >= _OPEN_FILES:
                del self._open[next(iter(self._open))]
            with _told(path):
                self._open[path] = _File(path)
        return self._open[path]


class _File:
    """One file of weights."""

    def __init__(self, path: Path) -> None:
        self.read: Callable[[str], torch.Tensor]
        if path.suffix == ".safetensors":
            file: Any = safe_open(path, framework="pt")
            self.read = file.get_tensor
            self.shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
        else:
            # Tensors only, never code. What torch wrote before 1.6 is no zip file, and is read whole.
            tensors = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
            self.read = tensors.__getitem__
            self.shapes = {name: tuple(tensors[name].shape) for name in sorted(tensors)}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except TuluError:
        raise
    except Exception as error:  # safetensors, pickle and torch each have errors of their own
        what = str(error).partition("\n")[0]
        raise BadInput(f"the weights cannot be read: {type(error).__name__}: {what}", str(path), _FIX) from error
