"""Discovery: a package holds one object per file, under one constant whose name equals the file's.

No list to edit and no decorator: adding a dataset, a benchmark, an experiment is adding its file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Generic, Protocol, TypeVar

from tulu_pipeline.errors import BadInput, TuluError, unknown_name


class Named(Protocol):
    """Whatever has a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Generic[T]):
    """The objects of one package.

    Args:
        kind: for people: "dataset".
        package: importable name of the package.
        constant: the constant each of its modules holds: `DATASET`.
        type_: the constant's type.
    """

    def __init__(self, kind: str, package: str, constant: str, type_: type[T]) -> None:
        self.kind, self.package, self.constant, self.type = kind, package, constant, type_

    def names(self) -> list[str]:
        """Sorted names; nothing is imported but the package."""
        paths = importlib.import_module(self.package).__path__
        return sorted(found.name for found in pkgutil.iter_modules(paths) if not found.ispkg and found.name[0] != "_")

    def get(self, name: str) -> T:
        """The object called `name`; imports only its file.

        Raises:
            NotFound: no such file. BadInput: the file does not hold exactly what it must.
        """
        names = self.names()
        if name not in names:
            raise unknown_name(self.kind, name, names)
        return self.from_module(importlib.import_module(f"{self.package}.{name}"), name)

    def all(self) -> list[T]:
        """Every object, by name."""
        return [self.get(name) for name in self.names()]

    def from_module(self, module: ModuleType, name: str | None) -> T:
        """The constant of a module, checked; `name` is what it must be called, None for anything."""
        where = str(module.__file__)
        value = getattr(module, self.constant, None)
        if value is None:
            raise BadInput(
                f"no constant `{self.constant}`", where, f"define `{self.constant} = {self.type.__name__}(…)`"
            )
        if not isinstance(value, self.type):
            raise BadInput(f"`{self.constant}` is a {type(value).__name__}", where, f"make it a `{self.type.__name__}`")
        if name is not None and value.name != name:
            raise BadInput(f"`{self.constant}` is named `{value.name}`", where, f"name it `{name}`, as its file")
        return value


def load_file(path: Path) -> ModuleType:
    """Import a user's file by path, under a name of its own; it can import files that lie beside it.

    Raises:
        BadInput: no such file, or it does not import; `where` is its line.
    """
    if not path.is_file():
        raise BadInput(f"no file `{path}`", str(path.absolute()), "check the path")
    place = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]
    name = f"tulu_user_{path.stem}_{place}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if (folder := str(path.absolute().parent)) not in sys.path:
        sys.path.append(folder)  # last, so that nothing of ours is shadowed
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, TuluError | KeyboardInterrupt):
            raise
        raise _import_error(error, path) from error
    return module


def _import_error(error: BaseException, path: Path) -> BadInput:
    file = str(path.absolute())  # as Python calls it
    if isinstance(error, SyntaxError) and error.filename == file:
        return BadInput(f"syntax error: {error.msg}", f"{path}:{error.lineno}", "mend the file")
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    where = f"{path}:{lines[-1]}" if lines else str(path)
    if isinstance(error, ImportError):
        return BadInput(f"cannot import: {error}", where, "install what it imports, or mend the import")
    return BadInput(f"{type(error).__name__}: {error}", where, "mend the file")
