"""The few file operations that the store needs, on a local disk or behind fsspec.

The one that everything rests on is put-if-absent: of two writers exactly one wins. A backend that cannot do it is
refused, never downgraded.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path
from typing import Any, Protocol

from tulu_pipeline.errors import StoreError

# fsspec protocols whose `pipe_file(mode="create")` is an atomic create.
_CREATE_ONLY_PROTOCOLS = frozenset({"memory"})


class Storage(Protocol):
    """Files by path relative to the root; directories come and go by themselves.

    `local` is the root as a local folder, or None where files must be copied to be read.
    """

    url: str
    local: Path | None

    def read(self, path: str) -> bytes | None:
        """The bytes at `path`, or None."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Durably create `path`; False where it is already there."""

    def write(self, path: str, data: bytes) -> None:
        """Create or replace `path` atomically."""

    def names(self, folder: str) -> list[str]:
        """Names in `folder`, sorted; empty where there is none."""

    def exists(self, path: str) -> bool: ...

    def remove(self, path: str) -> None:
        """Remove a file or a whole folder; nothing happens where there is none."""

    def upload(self, source: Path, path: str) -> None:
        """Copy a local file to `path`."""

    def download(self, path: str, target: Path) -> None:
        """Copy `path` to a local file."""


def open_storage(url: str) -> Storage:
    """Storage for a path or an fsspec URL.

    Raises:
        StoreError: the backend has no atomic create, or cannot be reached.
    """
    if "://" not in url or url.startswith("file://"):
        return LocalStorage(Path(url.removeprefix("file://")))
    return FsspecStorage(url)


class LocalStorage:
    """A folder on a local disk. Durable: files and their folders are fsynced before they count."""

    def __init__(self, root: Path) -> None:
        self.local: Path | None = root.absolute()
        self._root = root.absolute()
        self.url = str(self._root)

    def read(self, path: str) -> bytes | None:
        try:
            with open(f"{self._root}/{path}", "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def put_if_absent(self, path: str, data: bytes) -> bool:
        target = self._root / path
        temporary = self._temporary(target, data)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        fsync_folder(target.parent)
        return True

    def write(self, path: str, data: bytes) -> None:
        target = self._root / path
        self._temporary(target, data).replace(target)
        fsync_folder(target.parent)

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self._root / folder) if not name.startswith(".tmp-"))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, path: str) -> bool:
        return os.path.lexists(f"{self._root}/{path}")

    def remove(self, path: str) -> None:
        import shutil

        target = self._root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target, ignore_errors=True)
        else:
            target.unlink(missing_ok=True)

    def upload(self, source: Path, path: str) -> None:
        import shutil

        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)

    def download(self, path: str, target: Path) -> None:
        import shutil

        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._root / path, target)

    def _temporary(self, target: Path, data: bytes) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        return temporary


class FsspecStorage:
    """Anything fsspec reaches that can create a file only where there is none."""

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.local: Path | None = None
        self.url = url
        protocol = url.partition("://")[0]
        if protocol not in _CREATE_ONLY_PROTOCOLS:
            raise StoreError(
                f"a store on `{protocol}://` is not supported: its create-if-absent was not shown to be atomic",
                url,
                "use a local folder: `--store PATH`",
            )
        self._fs: Any
        self._fs, self._root = url_to_fs(url)

    def _at(self, path: str) -> str:
        return f"{self._root.rstrip('/')}/{path}"

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._at(path)))
        except FileNotFoundError:
            return None

    def put_if_absent(self, path: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(self._at(path), data, mode="create")
        except FileExistsError:
            return False
        return True

    def write(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._at(path), data)

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.rstrip("/").rpartition("/")[2] for entry in self._fs.ls(self._at(folder), detail=False))
        except FileNotFoundError:
            return []

    def exists(self, path: str) -> bool:
        return bool(self._fs.exists(self._at(path)))

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm(self._at(path), recursive=True)

    def upload(self, source: Path, path: str) -> None:
        self._fs.put_file(str(source), self._at(path))

    def download(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(self._at(path), str(target))


def fsync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
