"""Bytes of a source into a file: from the mirror by hash, from its URL, from the hub; always checked.

A hash nobody has seen is trusted on the first download and written to `sources.lock`; bytes that differ from it
later are an error, never a silent change.
"""

from __future__ import annotations

import importlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from tulu_pipeline.artifacts.http_download import CHUNK_BYTES, Part, download
from tulu_pipeline.artifacts.hub_model import fetch_model
from tulu_pipeline.artifacts.python_constant import constant_bytes
from tulu_pipeline.artifacts.resolve import SourcesLock, make_local
from tulu_pipeline.artifacts.source import Builtin, HubFile, HubModel, LocalFile, PinnedFile, Source, TrackedFile
from tulu_pipeline.errors import BadInput, HashMismatch, StageFailed
from tulu_pipeline.settings import Settings

log = logging.getLogger(__name__)

Report = Callable[[int, int | None], None]


def fetch(
    source: Source,
    name: str,
    out: Path,
    settings: Settings,
    report: Report,
    *,
    wanted: str | None = None,
    keep: Path | None = None,
) -> None:
    """Write the file of `source` to `out / name`; a `Builtin` or a `HubModel` writes its own files into `out`.

    Args:
        source: where from.
        name: relative path under `out`.
        out: folder.
        settings: mirror, hub endpoint and token, lock file.
        report: called with bytes done and in all (None when unknown).
        wanted: the sha256 by which the artifact's key was made; None takes the pin or the lock.
        keep: folder where a broken download waits for the next try; None starts anew.

    Raises:
        HashMismatch: the bytes are not the pinned, or the first trusted, ones; nothing is written.
        StageFailed: it cannot be had; `Unreachable` where a later try may succeed.
        BadInput: a local file is not there; the mirror is none.
    """
    if isinstance(source, Builtin):
        module, _, function = source.function.partition(":")
        getattr(importlib.import_module(module), function)(out, **dict(source.args))
        return
    if isinstance(source, HubModel):

        def fetch_file(file: HubFile, name: str, folder: Path, report: Report) -> None:
            fetch(file, name, folder, settings, report, keep=keep)

        fetch_model(source, out, settings, report, fetch_file, keep=keep)
        return
    target = out / name
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = SourcesLock(settings.sources_lock)
    local = isinstance(source, LocalFile)
    if not local:
        wanted = wanted or getattr(source, "sha256", None) or lock.get(source.address())
    part = Part(target.with_name(".part")) if local or keep is None else Part.kept_in(keep, source.address())
    with part:
        where = _fill(part, source, wanted, settings, report)
        git_blob = source.git_blob if isinstance(source, PinnedFile) else None
        if git_blob is not None and (had := part.git_blob()) != git_blob:
            part.clear()
            what = f"not the file of the commit: got git object {had}, wanted {git_blob}"
            raise HashMismatch(what, where, _how_to_accept(source, settings))
        found = part.sha256()
        trusted = wanted or (found if local else lock.trust(source.address(), found))
        if found != trusted:
            size_bytes = part.size_bytes
            part.clear()
            raise HashMismatch(
                f"wrong hash: got sha256 {found}, wanted {trusted} ({size_bytes:,} bytes)",
                where,
                _how_to_accept(source, settings),
            )
        part.move_to(target)
    if wanted is None and not local:
        log.info("trusted on first download: %s is %s", source.address(), found)


def resolve_tracked(source: TrackedFile, settings: Settings) -> str:
    """Download a moving source and remember its present hash in the lock; returns the hash.

    Raises:
        StageFailed: it cannot be had; `Unreachable` where a later try may succeed.
    """
    with tempfile.TemporaryDirectory() as folder, Part(Path(folder, "part")) as part:
        download(source.url, part, {}, lambda done, total: None, checked=False)
        SourcesLock(settings.sources_lock).set(source.address(), part.sha256())
        return part.sha256()


def _fill(part: Part, source: Source, wanted: str | None, settings: Settings, report: Report) -> str:
    """Put the bytes of `source` into `part`; returns where they came from."""
    if isinstance(source, LocalFile):
        where = source.path
        _copy(_local_chunks(source), part, report)
    elif mirrored := _mirrored(settings.mirror, wanted):
        where = mirrored
        _copy(_mirror_chunks(where), part, report)
    elif isinstance(source, PinnedFile) and source.constant:
        where = _url(source, settings, wanted)
        # The file around the value has a part of its own: its bytes are never taken for the value's.
        with tempfile.TemporaryDirectory() as folder, Part(Path(folder, "part")) as whole:
            download(where, whole, {}, report, checked=False)
            part.clear()
            part.append(constant_bytes(whole.read(), source.constant, where))
    else:
        where = _url(source, settings, wanted)
        download(where, part, _headers(source, settings), report, checked=wanted is not None)
        if part.pieced and wanted and part.sha256() != wanted:  # perhaps its pieces do not belong together
            part.clear()
            download(where, part, _headers(source, settings), report, checked=True)
    return where


def _copy(chunks: Iterator[tuple[bytes, int | None]], part: Part, report: Report) -> None:
    part.clear()
    for chunk, total in chunks:
        part.append(chunk)
        report(part.size_bytes, total)


def _how_to_accept(source: Source, settings: Settings) -> str:
    if isinstance(source, LocalFile):
        return "the file changed after it was planned: run the same command again"
    if isinstance(source, TrackedFile):
        return "it has moved on since it was resolved: run with --update-sources to take what is there now"
    if getattr(source, "sha256", None) or getattr(source, "git_blob", None):
        return "the file there is not the pinned one: use a mirror that holds it, or pin the new hash"
    return f"see what changed there; to accept it, remove `{source.address()}` from {settings.sources_lock}"


def _local_chunks(source: LocalFile) -> Iterator[tuple[bytes, int | None]]:
    path = Path(source.path)
    if not path.exists() and source.maker:
        make_local(source)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk, None
    except OSError as error:
        what = "is not there" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise BadInput(f"local source `{path}` {what}", str(path.absolute()), "put the file there") from error


def _url(source: Source, settings: Settings, wanted: str | None) -> str:
    if isinstance(source, HubFile):
        kind = "" if source.kind == "model" else f"{source.kind}s/"
        return f"{settings.hub_endpoint}/{kind}{source.repo}/resolve/{source.revision}/{quote(source.path)}"
    if isinstance(source, PinnedFile | TrackedFile) and source.url is not None:
        return source.url
    raise StageFailed(
        f"no address is known for the file with sha256 {wanted}",
        source.address(),
        "set TULU_MIRROR to a mirror that holds it",
    )


def _headers(source: Source, settings: Settings) -> dict[str, str]:
    if isinstance(source, HubFile) and settings.hub_token:
        return {"Authorization": f"Bearer {settings.hub_token}"}
    return {}


def _mirrored(mirror: str | None, sha256: str | None) -> str | None:
    """Where the mirror has the file with this hash, or None."""
    if mirror is None or sha256 is None:
        return None
    path = _mirror_index(mirror).get(sha256)
    return None if path is None else f"{mirror.rstrip('/')}/{path}"


@lru_cache(maxsize=4)
def _mirror_index(mirror: str) -> dict[str, str]:
    import fsspec

    where = f"{mirror.rstrip('/')}/MANIFEST.json"
    try:
        with fsspec.open(where, "rb") as file:
            entries = json.load(file)
        return {str(entry["sha256"]): str(entry["path"]) for entry in entries}
    except Exception as error:  # each backend of fsspec has errors of its own
        raise BadInput(
            f"the mirror has no readable MANIFEST.json: {type(error).__name__}: {error}",
            where,
            "set TULU_MIRROR to a mirror's root, or unset it",
        ) from error


def _mirror_chunks(where: str) -> Iterator[tuple[bytes, int | None]]:
    import fsspec

    try:
        with fsspec.open(where, "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk, getattr(file, "size", None)
    except Exception as error:  # as above
        raise BadInput(
            f"the mirror lists a file that cannot be read: {type(error).__name__}: {error}", where, "mend the mirror"
        ) from error
