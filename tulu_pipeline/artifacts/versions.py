"""Does the code still do what its version says? An advisory fingerprint per stage and registered object.

Versions are bumped by hand, because only a person knows whether a change changes bytes. Beside them a lock file
keeps, for each (stage, objects), the fingerprint of the first-party code they reach. Where the fingerprint moved and
the version did not, `plan` says drift, and a test fails until the version is bumped or the lock is written anew,
which says "same bytes".

Code is reached by an import, wherever it stands, or by a string that is a module's name: so are children started.
"""

from __future__ import annotations

import ast
import hashlib
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.source import Builtin
from tulu_pipeline.errors import BadInput

_PACKAGES = ("tulu_pipeline", "tasks")
# Code that decides where and when, not what: its changes move no bytes. Values of the specs are in the params.
_FRAMEWORK = (
    "tulu_pipeline.artifacts",
    "tulu_pipeline.errors",
    "tulu_pipeline.logs",
    "tulu_pipeline.profile",
    "tulu_pipeline.registry",
    "tulu_pipeline.settings",
    "tulu_pipeline.specs.checks",
    "tulu_pipeline.specs.experiment",
    "tulu_pipeline.specs.mixture",
    "tulu_pipeline.specs.model",
    "tulu_pipeline.specs.recipe",
)
_NOT_FRAMEWORK = frozenset({"tulu_pipeline.artifacts.json_lines"})  # the bytes of every record
# Up to Python 3.11.4 two threads that build syntax trees trip over one another: a SystemError (cpython gh-106905).
_parsing = threading.Lock()
_ROOT = Path(__file__).resolve().parents[2]
_ENTRY_FIELDS = frozenset({"versions", "fingerprint", "files"})


class VersionsLock:
    """The committed file of fingerprints, and the code as it is when first asked about.

    Args:
        path: JSON: unit to {"versions", "fingerprint", "files": {path: sha256 of the raw bytes}}.

    Raises:
        BadInput: the file is broken.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.units: dict[str, dict[str, Any]] = _load(path)
        self._drifts: dict[tuple[str, str], str] = {}
        self._raw: dict[str, str] = {}

    def drift(self, artifact: Artifact) -> str:
        """Why the code behind `artifact` is not what the lock knows; "" when it is."""
        asked = (unit_of(artifact), json.dumps(versions_of(artifact)))
        if asked not in self._drifts:
            self._drifts[asked] = self._drift(artifact)
        return self._drifts[asked]

    def accept(self, artifacts: Iterable[Artifact]) -> None:
        """Write the lock for exactly these artifacts."""
        self.units = {unit_of(artifact): _entry(artifact) for artifact in artifacts}
        self._drifts.clear()
        self._raw.clear()
        self.path.write_text(json.dumps(self.units, indent=1, sort_keys=True) + "\n")

    def _drift(self, artifact: Artifact) -> str:
        if any(is_users(ref.module) for ref in artifact.objects):
            return ""  # its code's fingerprint is part of the key; what it is called may stand in the lock for another
        unit = unit_of(artifact)
        known = self.units.get(unit)
        if known is None:
            return f"{unit} is not in {self.path.name}"
        if known["versions"] != versions_of(artifact):
            return f"{unit}: versions {versions_of(artifact)}, the lock has {known['versions']}"
        if all(self._raw_hash(path) == sha256 for path, sha256 in known["files"].items()):
            return ""
        if known["fingerprint"] == fingerprint(_modules(artifact)):
            return ""
        return f"{unit}: its code changed, its version did not"

    def _raw_hash(self, relative: str) -> str:
        if relative not in self._raw:
            self._raw[relative] = _raw_hash(_ROOT / relative)
        return self._raw[relative]


def unit_of(artifact: Artifact) -> str:
    """What the lock calls the code behind an artifact: `normalize + dataset alpaca`."""
    names = [ref.name for ref in artifact.objects] + [source.function for source in _builtins(artifact)]
    return " + ".join([artifact.stage.name, *names])


def versions_of(artifact: Artifact) -> dict[str, int]:
    """Hand-kept versions that enter the artifact's key."""
    objects = {ref.name: ref.version for ref in artifact.objects}
    return {"stage": artifact.stage.version} | objects | {made.function: made.version for made in _builtins(artifact)}


def is_users(module: str) -> bool:
    """Whether `module` is a user's file: it has no lock, its fingerprint is its version."""
    return module.endswith(".py")


def fingerprint(modules: Iterable[str]) -> str:
    """sha256 over the code the modules reach: syntax trees without comments and docstrings.

    The same in every version of Python, and wherever a user's files lie.

    Raises:
        BadInput: a file is not there or does not parse.
    """
    digest = hashlib.sha256()
    for name, code in sorted((_name(path), _text(path)) for path in _closure(modules)):
        digest.update(f"{name}\0{code}\0".encode())
    return digest.hexdigest()


def code_of(artifact: Artifact) -> str:
    """Fingerprint of the code behind an artifact as it is now; kept in its manifest."""
    return fingerprint(_modules(artifact))


@dataclass(frozen=True, slots=True)
class _Module:
    """A file as the fingerprint sees it: its tree as text, and what it may import."""

    code: str
    names: tuple[str, ...]


def _load(path: Path) -> dict[str, dict[str, Any]]:
    fix = "run `tulu versions --accept`"
    try:
        units = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInput(f"broken JSON: {error}", f"{path}:{getattr(error, 'lineno', 1)}", fix) from error
    entries = units.values() if isinstance(units, dict) else [None]
    if not all(isinstance(entry, dict) and entry.keys() >= _ENTRY_FIELDS for entry in entries):
        raise BadInput("not a lock of versions", str(path), fix)
    return dict(units)


def _entry(artifact: Artifact) -> dict[str, Any]:
    modules = _modules(artifact)
    files = {_name(path): _raw_hash(path) for path in sorted(_closure(modules))}
    return {"versions": versions_of(artifact), "fingerprint": fingerprint(modules), "files": files}


def _modules(artifact: Artifact) -> list[str]:
    objects = [ref.module for ref in artifact.objects if not is_users(ref.module)]
    builtins = [source.function.partition(":")[0] for source in _builtins(artifact)]
    return [artifact.stage.run.__module__, *objects, *builtins]


def _builtins(artifact: Artifact) -> list[Builtin]:
    found = {source.function: source for source in artifact.sources.values() if isinstance(source, Builtin)}
    return [found[function] for function in sorted(found)]


def _closure(modules: Iterable[str]) -> set[Path]:
    """Files of the modules and of the modules they reach, the framework and other projects left out.

    A user's file reaches its neighbors alone: what it takes from this project has versions of its own.
    """
    found: set[Path] = set()
    queue = [path for module in modules if (path := _file(module, None)) is not None]
    while queue:
        path = queue.pop()
        if path not in found:
            found.add(path)
            found.update(_data(path))
            beside = None if _is_ours(path) else path.parent
            reached = (_file(name, beside) for name in _read(path).names)
            queue.extend(file for file in reached if file is not None and (beside is None or not _is_ours(file)))
    return found


def _file(module: str, beside: Path | None) -> Path | None:
    """The file of a module; `beside` is the folder where a user's file finds its neighbors."""
    if is_users(module):
        return Path(module).resolve()
    place = module.replace(".", "/")
    if module.partition(".")[0] not in _PACKAGES:
        neighbor = None if beside is None else beside / f"{place}.py"
        return neighbor if neighbor is not None and neighbor.is_file() else None
    if "." not in module or (
        module not in _NOT_FRAMEWORK and any(module == name or module.startswith(f"{name}.") for name in _FRAMEWORK)
    ):
        return None
    candidates = (_ROOT / f"{place}.py", _ROOT / place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _text(path: Path) -> str:
    return _read(path).code if path.suffix == ".py" else _raw_hash(path)


def _read(path: Path) -> _Module:
    try:
        return _parse(path.read_bytes(), str(path))
    except OSError as error:
        raise BadInput(f"cannot read code: {error.strerror}", str(path), "check the path") from error
    except SyntaxError as error:
        raise BadInput(f"syntax error: {error.msg}", f"{path}:{error.lineno}", "mend the file") from error
    except ValueError as error:
        raise BadInput(f"no Python: {error}", str(path), "mend the file") from error


@lru_cache(maxsize=1024)
def _parse(source: bytes, where: str) -> _Module:
    with _parsing:
        tree = ast.parse(source, where)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[isinstance(first.value.value, str) :]
    return _Module(repr(_shape(tree)), tuple(_names(tree)))


def _shape(node: object) -> object:
    """A tree without empty fields: later versions of Python add some."""
    if isinstance(node, ast.AST):
        fields = [(name, _shape(value)) for name, value in ast.iter_fields(node) if name != "kind"]
        return type(node).__name__, [(name, value) for name, value in fields if value not in (None, [])]
    return [_shape(item) for item in node] if isinstance(node, list) else ascii(node) if node is not None else None


def _names(tree: ast.Module) -> Iterator[str]:
    """Names of modules that the code imports, or says."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name.partition(".")[0] in _PACKAGES and name.replace(".", "").isidentifier():
                yield name


def _data(path: Path) -> Iterator[Path]:
    """Files of a package that are not code but that its code reads: word lists, pins, pages."""
    package = path.parent
    if package.parent == _ROOT / "tulu_pipeline":
        found = (file for file in package.rglob("*") if file.is_file() and file.suffix not in {".py", ".pyc"})
        yield from found


def _is_ours(path: Path) -> bool:
    return any(path.is_relative_to(_ROOT / package) for package in _PACKAGES)


def _raw_hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _name(path: Path) -> str:
    return path.relative_to(_ROOT).as_posix() if _is_ours(path) else path.name
