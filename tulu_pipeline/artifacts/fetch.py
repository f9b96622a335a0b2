"""Bytes of a source into a file: from the mirror by hash, from its URL, from the hub; always checked.

A hash nobody has seen is trusted on the first download and written to `sources.lock`; bytes that differ from it
later are an error, never a silent change.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.resolve import SourcesLock, make_local
from tulu_pipeline.artifacts.source import Builtin, HubFile, LocalFile, PinnedFile, Source, TrackedFile
from tulu_pipeline.errors import BadInput, HashMismatch, StageFailed, Unreachable
from tulu_pipeline.settings import Settings

log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_TRIES = 4
_TIMEOUT_SECONDS = 60.0
Report = Callable[[int, int | None], None]


def fetch(source: Source, name: str, out: Path, settings: Settings, report: Report) -> None:
    """Write the file of `source` to `out / name`; a `Builtin` writes its own files into `out`.

    Args:
        source: where from.
        name: relative path under `out`.
        out: folder.
        settings: mirror, hub endpoint and token, lock file.
        report: called with bytes done and in all (None when unknown).

    Raises:
        HashMismatch: the bytes are not the pinned, or the first trusted, ones; nothing is written.
        StageFailed: it cannot be had; `Unreachable` where a later try may succeed.
        BadInput: a local file is not there.
    """
    if isinstance(source, Builtin):
        module, _, function = source.function.partition(":")
        getattr(importlib.import_module(module), function)(out, **dict(source.args))
        return
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = SourcesLock(settings.sources_lock)
    if isinstance(source, LocalFile):
        _copy_local(source, target)
        return
    wanted = getattr(source, "sha256", None) or lock.get(source.address())
    found = _download(source, wanted, target, settings, report)
    if wanted is None:
        lock.set(source.address(), found)
        log.info("trusted on first download: %s is %s", source.address(), found)


def resolve_tracked(source: TrackedFile, settings: Settings) -> str:
    """Download a moving source and remember its present hash in the lock; returns the hash."""
    digest = hashlib.sha256()
    for chunk, _ in _http_chunks(source.url, {}):
        digest.update(chunk)
    SourcesLock(settings.sources_lock).set(source.address(), digest.hexdigest())
    return digest.hexdigest()


def _copy_local(source: LocalFile, target: Path) -> None:
    import shutil

    path = Path(source.path)
    if not path.exists() and source.maker:
        make_local(source)
    if not path.is_file():
        raise BadInput(f"local source `{path}` is not there", str(path.absolute()), "put the file there")
    shutil.copyfile(path, target)


def _download(source: Source, wanted: str | None, target: Path, settings: Settings, report: Report) -> str:
    """Write the checked bytes to `target`; returns their sha256."""
    mirrored = _mirrored(settings.mirror, wanted) if wanted else None
    where = mirrored or _url(source, settings)
    if where is None:
        raise StageFailed(
            f"no address is known for the file with sha256 {wanted}",
            source.address(),
            "set TULU_MIRROR to a mirror that holds it",
        )
    chunks = _mirror_chunks(where) if mirrored else _http_chunks(where, _headers(source, settings))
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    digest, done = hashlib.sha256(), 0
    try:
        with open(temporary, "wb") as file:
            for chunk, total in chunks:
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                report(done, total)
        found = digest.hexdigest()
        if wanted and found != wanted:
            raise HashMismatch(
                f"wrong hash: got sha256 {found}, wanted {wanted} ({done:,} bytes)",
                where,
                f"see what changed there; to accept it, remove `{source.address()}` from {settings.sources_lock}"
                if not getattr(source, "sha256", None)
                else "the file there is not the pinned one: use a mirror that holds it, or pin the new hash",
            )
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return found


def _url(source: Source, settings: Settings) -> str | None:
    if isinstance(source, HubFile):
        kind = "" if source.kind == "model" else f"{source.kind}s/"
        return f"{settings.hub_endpoint}/{kind}{source.repo}/resolve/{source.revision}/{source.path}"
    return source.url if isinstance(source, PinnedFile | TrackedFile) else None


def _headers(source: Source, settings: Settings) -> dict[str, str]:
    if isinstance(source, HubFile) and settings.hub_token:
        return {"Authorization": f"Bearer {settings.hub_token}"}
    return {}


def _mirrored(mirror: str | None, sha256: str) -> str | None:
    """Where the mirror has the file with this hash, or None."""
    if mirror is None:
        return None
    path = _mirror_index(mirror).get(sha256)
    return None if path is None else f"{mirror.rstrip('/')}/{path}"


@lru_cache(maxsize=4)
def _mirror_index(mirror: str) -> dict[str, str]:
    import fsspec

    where = f"{mirror.rstrip('/')}/MANIFEST.json"
    try:
        with fsspec.open(where, "rb") as file:
            entries: list[dict[str, Any]] = json.load(file)
    except (OSError, json.JSONDecodeError) as error:
        raise BadInput(
            f"the mirror has no readable MANIFEST.json: {error}",
            where,
            "set TULU_MIRROR to a mirror's root, or unset it",
        ) from error
    return {entry["sha256"]: entry["path"] for entry in entries}


def _mirror_chunks(where: str) -> Iterator[tuple[bytes, int | None]]:
    import fsspec

    with fsspec.open(where, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk, getattr(file, "size", None)


def _http_chunks(url: str, headers: dict[str, str]) -> Iterator[tuple[bytes, int | None]]:
    """The body of `url`. A broken connection goes on where it broke if the server can, else the whole is an error.

    Raises:
        Unreachable: after several tries.
        StageFailed: at once, for an answer that more tries will not change.
    """
    import httpx

    done, total = 0, None
    problem = ""
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(min(2.0**attempt, 10.0) / 4)
        try:
            resume = {"Range": f"bytes={done}-"} if done else {}
            with httpx.stream(
                "GET", url, headers=headers | resume, timeout=_TIMEOUT_SECONDS, follow_redirects=True
            ) as answer:
                if answer.status_code in {401, 403, 404, 410}:
                    raise StageFailed(f"the server answered {answer.status_code}", url, _advice(answer.status_code))
                answer.raise_for_status()
                if done and answer.status_code != 206:
                    raise Unreachable(
                        "the download broke and the server cannot resume it", url, "run the same command again"
                    )
                if not done and "content-length" in answer.headers and "content-encoding" not in answer.headers:
                    total = int(answer.headers["content-length"])
                for chunk in answer.iter_bytes(_CHUNK_BYTES):
                    done += len(chunk)
                    yield chunk, total
            if total is None or done == total:
                return
            problem = f"the body ended after {done:,} of {total:,} bytes"
        except httpx.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
    raise Unreachable(
        f"cannot download after {_TRIES} tries: {problem}",
        url,
        "check the network, or set TULU_MIRROR to a mirror with the file",
    )


def _advice(status: int) -> str:
    if status in {401, 403}:
        return "set HF_TOKEN to a token that may read it, or use a mirror (TULU_MIRROR)"
    return "the file has moved: use a mirror (TULU_MIRROR) that holds it"
