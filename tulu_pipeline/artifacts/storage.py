"""The few file operations that the store needs, on a local disk or behind fsspec.

The one that everything rests on is put-if-absent: of two writers exactly one wins. A backend that cannot do it is
refused, never downgraded.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tulu_pipeline.errors import StoreError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_TEMPORARY = ".tmp-"


class Storage(Protocol):
    """Files by path relative to the root; directories come and go by themselves.

    Every operation raises StoreError when it cannot do what it says.

    Attributes:
        url: the root, for people.
        local: the root as a local folder, or None where files must be copied to be read.
    """

    url: str

    @property
    def local(self) -> Path | None: ...

    def read(self, path: str) -> bytes | None:
        """The bytes at `path`, or None."""

    def put_if_absent(self, path: str, data: bytes) -> bool:
        """Durably create `path`; False where it is already there."""

    def write(self, path: str, data: bytes) -> None:
        """Create or replace `path` atomically."""

    def names(self, folder: str) -> list[str]:
        """Names in `folder`, sorted; empty where there is none."""

    def exists(self, path: str) -> bool:
        """Whether a file or a folder is there."""

    def remove(self, path: str) -> None:
        """Remove a file, or a whole folder in one step for whoever looks; nothing happens where there is none."""


def open_storage(url: str) -> LocalStorage | RemoteStorage:
    """Storage for a path or an fsspec URL.

    Raises:
        StoreError: the backend has no atomic create.
    """
    if "://" not in url or url.startswith("file://"):
        return LocalStorage(Path(url.removeprefix("file://")))
    return RemoteStorage(url)


class LocalStorage:
    """A folder on a local disk. Durable: files and their folders are fsynced before they count."""

    def __init__(self, root: Path) -> None:
        self.local: Path = root.absolute()
        self.url = str(self.local)

    def read(self, path: str) -> bytes | None:
        where = f"{self.url}/{path}"
        try:
            with open(where, "rb") as file:
                return file.read()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise store_error(error, where) from error

    def put_if_absent(self, path: str, data: bytes) -> bool:
        target = self.local / path
        with telling(target), _temporary(target, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            fsync_folder(target.parent)
        return True

    def write(self, path: str, data: bytes) -> None:
        target = self.local / path
        with telling(target), _temporary(target, data) as temporary:
            temporary.replace(target)
            fsync_folder(target.parent)

    def names(self, folder: str) -> list[str]:
        where = f"{self.url}/{folder}"
        try:
            return sorted(name for name in os.listdir(where) if not name.startswith(_TEMPORARY))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise store_error(error, where) from error

    def exists(self, path: str) -> bool:
        return os.path.lexists(f"{self.url}/{path}")

    def remove(self, path: str) -> None:
        target = self.local / path
        with telling(target), contextlib.suppress(FileNotFoundError):
            if target.is_dir() and not target.is_symlink():
                target = target.rename(target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}"))  # gone in one step
                shutil.rmtree(target)
            else:
                target.unlink()


class RemoteStorage:
    """What fsspec reaches and can create a file only where there is none. So far: `memory://`."""

    def __init__(self, url: str) -> None:
        protocol = url.partition("://")[0]
        if protocol != "memory":
            raise StoreError(
                f"a store on `{protocol}://` is not supported: its create-if-absent was not shown to be atomic",
                url,
                "use a local folder: `--store PATH`",
            )
        from fsspec.core import url_to_fs

        self.local: None = None
        self.url = url
        self._fs: Any
        self._fs, root = url_to_fs(url)
        self._root = root.rstrip("/")

    def read(self, path: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._at(path)))
        except FileNotFoundError:
            return None

    def put_if_absent(self, path: str, data: bytes) -> bool:
        try:
            with _memory_lock:  # the memory backend looks first and creates then
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

    def files(self, folder: str) -> list[str]:
        """Paths of all files below `folder`, relative to it."""
        root = self._at(folder)
        return sorted(found.removeprefix(f"{root}/") for found in self._fs.find(root))

    def upload(self, source: Path, path: str) -> None:
        """Copy a local file to `path`."""
        self._fs.put_file(str(source), self._at(path))

    def download(self, path: str, target: Path) -> None:
        """Copy `path` to a local file."""
        target.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(self._at(path), str(target))

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def fsync_folder(folder: Path) -> None:
    """Make the entries of a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def store_error(error: OSError, where: object) -> StoreError:
    """What the operating system said of the store, and what to do about it."""
    if error.errno in _FULL:
        return StoreError("the disk is full", str(where), "free space, then run the same command: it goes on")
    fix = "see what is wrong with that disk or folder, then run the same command: it goes on"
    if error.errno in _FORBIDDEN:
        fix = "make the store writable, or use another one: `--store PATH`"
    return StoreError(f"{type(error).__name__}: {error.strerror or error}", str(where), fix)


@contextmanager
def telling(where: object) -> Iterator[None]:
    """Errors of the operating system inside become StoreErrors about `where`."""
    try:
        yield
    except OSError as error:
        raise store_error(error, where) from error


@contextmanager
def _temporary(target: Path, data: bytes) -> Iterator[Path]:
    """A durable file with `data` beside `target`; removed at the end if it is still there."""
    temporary = target.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


_memory_lock = threading.Lock()
