"""Does the code still do what its version says? An advisory fingerprint per stage and registered object.

Versions are bumped by hand, because only a person knows whether a change changes bytes. Beside them a lock file
keeps, for each (stage, objects), the fingerprint of the first-party code they reach. Where the fingerprint moved and
the version did not, `plan` says drift, and a test fails until the version is bumped or the lock is written anew,
which says "same bytes".
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.errors import BadInput

_PACKAGES = ("tulu_pipeline", "tasks")
# Code that decides where and when, not what: its changes move no bytes.
_FRAMEWORK = (
    "tulu_pipeline.artifacts",
    "tulu_pipeline.errors",
    "tulu_pipeline.logs",
    "tulu_pipeline.profile",
    "tulu_pipeline.registry",
    "tulu_pipeline.settings",
    "tulu_pipeline.specs",
)
_ROOT = Path(__file__).resolve().parents[2]


class VersionsLock:
    """The committed file of fingerprints.

    Args:
        path: JSON: unit to {"versions", "fingerprint", "files": {path: sha256 of the raw bytes}}.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.units: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
        except json.JSONDecodeError as error:
            raise BadInput(
                f"broken JSON: {error.msg}", f"{path}:{error.lineno}", "run `tulu versions --accept`"
            ) from error

    def drift(self, artifact: Artifact) -> str:
        """Why the code behind `artifact` is not what the lock knows; "" when it is."""
        unit = unit_of(artifact)
        known = self.units.get(unit)
        if known is None:
            return f"{unit} is not in {self.path.name}"
        if known["versions"] != versions_of(artifact):
            return f"{unit}: versions {versions_of(artifact)}, the lock has {known['versions']}"
        if all(_raw_hash(path) == sha256 for path, sha256 in known["files"].items()):
            return ""
        if known["fingerprint"] == fingerprint(_modules(artifact)):
            return ""
        return f"{unit}: its code changed, its version did not"

    def accept(self, artifacts: Iterable[Artifact]) -> None:
        """Write the lock for exactly these artifacts."""
        self.units = {unit_of(artifact): _entry(artifact) for artifact in artifacts}
        self.path.write_text(json.dumps(self.units, indent=1, sort_keys=True) + "\n")


def unit_of(artifact: Artifact) -> str:
    """What the lock calls the code behind an artifact: `normalize + dataset alpaca`."""
    return " + ".join([artifact.stage.name, *(ref.name for ref in artifact.objects)])


def versions_of(artifact: Artifact) -> dict[str, int]:
    """Hand-kept versions that enter the artifact's key."""
    return {"stage": artifact.stage.version} | {ref.name: ref.version for ref in artifact.objects}


def is_users(module: str) -> bool:
    """Whether `module` is a user's file: it has no lock, its fingerprint is its version."""
    return module.endswith(".py")


def fingerprint(modules: Iterable[str]) -> str:
    """sha256 over the code the modules reach: syntax trees without comments and docstrings."""
    digest = hashlib.sha256()
    for path in sorted(_closure(modules)):
        digest.update(f"{_relative(path)}\0{_code(path)}\0".encode())
    return digest.hexdigest()


def _entry(artifact: Artifact) -> dict[str, Any]:
    modules = _modules(artifact)
    files = {_relative(path): _raw_hash(_relative(path)) for path in sorted(_closure(modules))}
    return {"versions": versions_of(artifact), "fingerprint": fingerprint(modules), "files": files}


def _modules(artifact: Artifact) -> tuple[str, ...]:
    return (artifact.stage.run.__module__, *(ref.module for ref in artifact.objects if not is_users(ref.module)))


def _closure(modules: Iterable[str]) -> set[Path]:
    """Files of the modules and of the first-party modules they import, the framework left out."""
    found: set[Path] = set()
    queue = list(modules)
    while queue:
        path = _file(queue.pop())
        if path is not None and path not in found:
            found.add(path)
            queue.extend(_imports(path))
    return found


@cache
def _file(module: str) -> Path | None:
    if is_users(module):
        return Path(module).resolve()
    if module.startswith(_FRAMEWORK) or module.partition(".")[0] not in _PACKAGES or "." not in module:
        return None
    path = _ROOT.joinpath(*module.split("."))
    if path.with_suffix(".py").exists():
        return path.with_suffix(".py")
    package = path / "__init__.py"
    return package if package.exists() else None


@cache
def _imports(path: Path) -> tuple[str, ...]:
    found: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            found.extend(f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(found)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def _code(path: Path) -> str:
    """The syntax tree as text, without docstrings."""
    tree = ast.parse(path.read_text(), str(path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return ast.dump(tree)


@cache
def _raw_hash(relative: str) -> str:
    try:
        return hashlib.sha256((_ROOT / relative).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def _relative(path: Path) -> str:
    return path.relative_to(_ROOT).as_posix() if path.is_relative_to(_ROOT) else path.name
