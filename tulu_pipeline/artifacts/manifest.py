"""What is known of a published artifact. The manifest is the commit point: no manifest, no artifact."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.stage import AUX
from tulu_pipeline.artifacts.storage import fsync_folder
from tulu_pipeline.errors import StageFailed, StoreError

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """One file of a payload; `path` is relative, with `/`."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One published artifact.

    Attributes:
        key: sha256 of the identity document.
        name: `stage[cell]` under which it was first made, for people.
        stage: the stage's name.
        identity: the document that was hashed: versions, params, input digests, sources, packages.
        payload: folder of the files, relative to the store's root.
        digest: of the outputs; what follows is keyed by it.
        outputs: digested files. aux: files that are only kept (logs, timings).
        metrics: what the stage reported.
        provenance: where and how it was made.
        inputs: name of each input to the key of its artifact.
        fingerprint: of the code that made it; advisory, the versions in `identity` are what counts.
        seconds: how long the stage ran. cost_usd: what it paid, as a decimal string.
        created: aware UTC time, ISO 8601.
    """

    key: str
    name: str
    stage: str
    identity: dict[str, Any]
    payload: str
    digest: str
    outputs: tuple[FileEntry, ...]
    aux: tuple[FileEntry, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    seconds: float = 0.0
    cost_usd: str = "0"
    created: str = ""

    def to_json(self) -> bytes:
        """Readable JSON, one document."""
        return (
            json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"
        ).encode()

    @classmethod
    def from_json(cls, data: bytes, where: str) -> Manifest:
        """The manifest in `data`.

        Raises:
            StoreError: it is no manifest of a schema that this version reads.
        """
        try:
            values = json.loads(data)
            version = values.pop("schema_version")
            if version != SCHEMA_VERSION:
                raise StoreError(f"manifest of schema {version}, this version reads {SCHEMA_VERSION}", where, "upgrade")
            for name in ("outputs", "aux"):
                values[name] = tuple(FileEntry(**entry) for entry in values[name])
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"unreadable manifest: {error}", where, "remove that file; its artifact is then made again"
            ) from error


def list_files(folder: Path, *, fsync: bool = False) -> tuple[tuple[FileEntry, ...], tuple[FileEntry, ...]]:
    """Hash a payload folder.

    Args:
        folder: the payload.
        fsync: also make every file and folder durable.

    Returns:
        Entries of the outputs and of `aux/`, each sorted by path.

    Raises:
        StageFailed: something in it is neither a file nor a folder, and would not survive a copy.
    """
    outputs: list[FileEntry] = []
    aux: list[FileEntry] = []
    for parent, folders, names in os.walk(folder, onerror=_raise):
        for name in (*folders, *names):
            _refuse_odd(Path(parent, name), folder)
        for name in names:
            path = Path(parent, name)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
                if fsync:
                    os.fsync(file.fileno())
            relative = path.relative_to(folder).as_posix()
            entries = aux if relative.startswith(f"{AUX}/") else outputs
            entries.append(FileEntry(path=relative, size_bytes=size, sha256=digest))
        if fsync:
            fsync_folder(Path(parent))
    return tuple(sorted(outputs, key=_path)), tuple(sorted(aux, key=_path))


def digest_of(outputs: Iterable[FileEntry]) -> str:
    """sha256 over sorted lines `sha256 size path`."""
    lines = sorted(f"{entry.sha256} {entry.size_bytes} {entry.path}\n" for entry in outputs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _path(entry: FileEntry) -> str:
    return entry.path


def _refuse_odd(path: Path, folder: Path) -> None:
    mode = path.lstat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = "symbolic link" if stat.S_ISLNK(mode) else "special file"
        raise StageFailed(
            f"`{path.relative_to(folder)}` is a {kind}, which does not survive a copy of the store",
            str(folder),
            "write plain files and folders",
        )


def _raise(error: OSError) -> None:
    raise error
