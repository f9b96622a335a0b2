"""A file over HTTP that survives broken connections and killed processes."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from tulu_pipeline.errors import StageFailed, Unreachable

if TYPE_CHECKING:
    import httpx

CHUNK_BYTES = 1 << 20
_TRIES = 4
_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_TIMEOUT_SECONDS = 60.0
_WILL_PASS = frozenset({408, 425, 429})
_OFFLINE = "check the network, or set TULU_MIRROR to a mirror that holds the file"


class Part:
    """A file as far as it has come, hashed as it grows; use it as a context manager.

    Beside it a note says which version of the file it is part of (the server's validator), so that the rest of
    another version is never put behind it.
    """

    def __init__(self, path: Path, *, stays: bool = False) -> None:
        self._path, self._stays = path, stays
        self._note = path.with_suffix(".json")
        self._hash = hashlib.sha256()
        self.size_bytes = 0
        self.pieced = False  # from more than one answer
        self.validator = ""

    @classmethod
    def kept_in(cls, folder: Path, address: str) -> Self:
        """The part of `address` in `folder`; it stays there when the block fails."""
        return cls(folder / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}.part", stays=True)

    def __enter__(self) -> Self:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = open(self._path, "a+b")
        self._file.seek(0)
        while chunk := self._file.read(CHUNK_BYTES):
            self._hash.update(chunk)
            self.size_bytes += len(chunk)
        self.pieced = self.size_bytes > 0
        try:
            self.validator = str(json.loads(self._note.read_text())["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            self.validator = ""
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._file.close()
        if error is None or not self._stays or not self.size_bytes:
            self._path.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    def append(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def clear(self, validator: str = "") -> None:
        """Begin anew, with the version of the file that `validator` names."""
        self._file.truncate(0)
        self._hash, self.size_bytes, self.pieced, self.validator = hashlib.sha256(), 0, False, validator
        if self._stays:
            self._note.write_text(json.dumps({"validator": validator}))

    def sha256(self) -> str:
        """Of what is there."""
        return self._hash.hexdigest()

    def git_blob(self) -> str:
        """Git's object id of what is there."""
        self._file.flush()
        found = hashlib.sha1(b"blob %d\0" % self.size_bytes, usedforsecurity=False)
        with open(self._path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                found.update(chunk)
        return found.hexdigest()

    def read(self) -> bytes:
        """All of what is there."""
        self._file.flush()
        return self._path.read_bytes()

    def move_to(self, target: Path) -> None:
        """Make it the file at `target`."""
        self._file.flush()
        shutil.move(self._path, target)


def download(
    url: str, part: Part, headers: Mapping[str, str], report: Callable[[int, int | None], None], *, checked: bool
) -> None:
    """Fill `part` with the body of `url`, going on where it is.

    Args:
        url: the address.
        part: what is there already.
        headers: sent with each request.
        report: called with bytes done and in all (None when unknown).
        checked: the caller knows the hash. Without one, a body counts only if its end can be seen, and a rest only
            if the server says that it belongs to the same version of the file.

    Raises:
        Unreachable: no progress in several tries.
        StageFailed: at once, for an answer that more tries will not change; at the second try, for a server whose
            name cannot be found.
    """
    import httpx

    failures, problem = 0, ""
    while failures < _TRIES:
        before = part.size_bytes
        pause_seconds = min(_PAUSE_SECONDS * 2**failures, _LONGEST_PAUSE_SECONDS)
        try:
            if part.size_bytes and not part.validator and not checked:
                part.clear()
            with httpx.stream(
                "GET",
                url,
                headers={**headers, **_resume(part)},
                timeout=_TIMEOUT_SECONDS,
                follow_redirects=True,
            ) as answer:
                problem = _take(answer, part, report, url, checked=checked)
                pause_seconds = _asked_to_wait(answer) or pause_seconds
            if not problem:
                return
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise StageFailed(f"no address to download from: {error}", url, "mend the address") from error
        except httpx.HTTPError as error:
            if failures and _no_such_host(error):  # a machine without a network should not wait for one
                host = httpx.URL(url).host
                raise StageFailed(f"there is no way to `{host}`: its name cannot be found", url, _OFFLINE) from error
            problem = f"{type(error).__name__}: {error}"
        failures = failures + 1 if part.size_bytes <= before else 0
        if failures < _TRIES:
            time.sleep(pause_seconds)
    raise Unreachable(
        f"cannot download after {_TRIES} tries: {problem}",
        url,
        _OFFLINE,
    )


def _no_such_host(error: BaseException) -> bool:
    """Whether the name of the server could not be resolved, which is what a machine without a network sees."""
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, socket.gaierror):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _resume(part: Part) -> dict[str, str]:
    # As the file is stored there: a compressed answer would have other bytes and other ranges.
    headers = {"Accept-Encoding": "identity"}
    if part.size_bytes:
        headers["Range"] = f"bytes={part.size_bytes}-"
        if part.validator:
            headers["If-Range"] = part.validator
    return headers


def _take(
    answer: httpx.Response, part: Part, report: Callable[[int, int | None], None], url: str, *, checked: bool
) -> str:
    """Read an answer into `part`; returns what is missing still, "" for nothing."""
    status = answer.status_code
    if status == 416 and answer.headers.get("content-range") == f"bytes */{part.size_bytes}":
        return ""
    if status in {206, 416} and not _goes_on(answer, part):
        part.clear()
        return "the server answered with another part of the file"
    if 400 <= status < 500 and status not in _WILL_PASS:
        raise StageFailed(f"the server answered {status}", url, _advice(status))
    if status not in {200, 206}:
        return f"the server answered {status}"
    if status == 200:
        part.clear(_validator(answer))
    part.pieced = status == 206
    length = answer.headers.get("content-length")
    total = part.size_bytes + int(length) if length is not None else None
    if total is None and "chunked" not in answer.headers.get("transfer-encoding", "") and not checked:
        raise StageFailed(
            "the server does not say how long the file is, so it may have broken off", url, "pin the file's sha256"
        )
    for chunk in answer.iter_raw():  # as it comes: nothing waits in a buffer when the connection breaks
        part.append(chunk)
        report(part.size_bytes, total)
    if total is not None and part.size_bytes != total:
        return f"the body ended after {part.size_bytes:,} of {total:,} bytes"
    return ""


def _goes_on(answer: httpx.Response, part: Part) -> bool:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", ""))
    return found is not None and int(found[1]) == part.size_bytes


def _validator(answer: httpx.Response) -> str:
    """What tells this version of the file from others: a strong ETag; a date is too coarse."""
    etag: Any = answer.headers.get("etag", "")
    return "" if etag.startswith("W/") else str(etag)


def _asked_to_wait(answer: httpx.Response) -> float | None:
    text = answer.headers.get("retry-after", "")
    return min(float(text), _LONGEST_PAUSE_SECONDS) if text.isdigit() else None


def _advice(status: int) -> str:
    if status in {401, 403}:
        return "set HF_TOKEN to a token that may read it, or use a mirror (TULU_MIRROR)"
    if status in {404, 410}:
        return "the file has moved: use a mirror (TULU_MIRROR) that holds it"
    return "see what the server says there, or use a mirror (TULU_MIRROR)"
