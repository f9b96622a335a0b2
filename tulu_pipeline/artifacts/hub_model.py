"""Which files of a hub repository make a model, by the repository's own listing.

Names and numbers of the weights' shards are nowhere written down in this project: a commit has one listing, so it can
be asked. It is remembered like a file (by the hash of the names in `sources.lock`), so that a mirror serves a model
without the hub, and a listing that changes is an error.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from tulu_pipeline.artifacts.http_download import Part, download
from tulu_pipeline.artifacts.model_files import TOKENIZER_FILES as TOKENIZER_FILES
from tulu_pipeline.artifacts.model_files import NoModel, model_files
from tulu_pipeline.artifacts.resolve import SourcesLock
from tulu_pipeline.artifacts.source import HubFile, HubModel
from tulu_pipeline.errors import HashMismatch, StageFailed
from tulu_pipeline.settings import Settings

Report = Callable[[int, int | None], None]
FetchFile = Callable[[HubFile, str, Path, Report], None]


def choose(names: Iterable[str], source: HubModel) -> list[str]:
    """The names that are part of the model, sorted; see `model_files`.

    Raises:
        StageFailed: there is no configuration, no weights, a shard is missing, or no tokenizer.
    """
    try:
        return model_files(names, source.part)
    except NoModel as error:
        fix = error.fix or "name another repository or commit, or the files one by one"
        raise StageFailed(f"the repository {error.what}", source.address(), fix) from error


def fetch_model(
    source: HubModel, out: Path, settings: Settings, report: Report, fetch_file: FetchFile, *, keep: Path | None
) -> None:
    """Write the files of `source` into `out`, all or none.

    Args:
        source: the model.
        out: folder.
        settings: hub endpoint and token, lock file.
        report: called with bytes done and in all (None when unknown), over all files.
        fetch_file: fetches one file, as `fetch` does.
        keep: folder where whole files, too, wait for the next try; None starts anew.

    Raises:
        HashMismatch: a file, or the listing, is not what was trusted first.
        StageFailed: it cannot be had, or is no model.
    """
    lock = SourcesLock(settings.sources_lock)
    sizes = _listed(source, settings, lock)
    total = None if None in sizes.values() else sum(size or 0 for size in sizes.values())
    with tempfile.TemporaryDirectory(dir=out) as scratch:
        whole = Path(scratch) if keep is None else keep / "whole"
        done = 0
        for name in sizes:
            if not _is_there(whole / name, lock.get(source.file(name).address())):
                fetch_file(source.file(name), name, whole, partial(_report_more, report, done, total))
            done += (whole / name).stat().st_size
        for name in sizes:
            shutil.move(whole / name, out / name)


def _is_there(path: Path, trusted: str | None) -> bool:
    """Whether an earlier try left the whole file."""
    if trusted is None or not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == trusted


def _report_more(report: Report, before: int, total: int | None, done: int, _: int | None) -> None:
    report(before + done, total)


def _listed(source: HubModel, settings: Settings, lock: SourcesLock) -> Mapping[str, int | None]:
    """Names and sizes; from the lock, without sizes, where it knows every file."""
    trusted = lock.get(source.address())
    remembered = _remembered(source, lock)
    if remembered and _digest(remembered) == trusted:
        return dict.fromkeys(remembered)
    url = f"{settings.hub_endpoint}/api/models/{source.repo}/revision/{source.revision}?blobs=true"
    found = _ask(url, settings)
    names = choose(found, source)
    digest = _digest(names)
    if digest != lock.trust(source.address(), digest):
        raise HashMismatch(
            f"the repository now lists other files: {', '.join(names)}",
            url,
            f"see what changed there; to accept it, remove `{source.address()}` from {settings.sources_lock}",
        )
    return {name: found[name] for name in names}


def _remembered(source: HubModel, lock: SourcesLock) -> list[str]:
    prefix = source.file("").address()
    known = [address.removeprefix(prefix) for address in lock.addresses() if address.startswith(prefix)]
    try:
        return choose(known, source)
    except StageFailed:  # not all of it came so far
        return []


def _ask(url: str, settings: Settings) -> dict[str, int | None]:
    headers = {"Authorization": f"Bearer {settings.hub_token}"} if settings.hub_token else {}
    with tempfile.TemporaryDirectory() as folder, Part(Path(folder, "part")) as part:
        download(url, part, headers, lambda done, total: None, checked=False)
        answer = part.read()
    try:
        return {str(each["rfilename"]): each.get("size") for each in json.loads(answer)["siblings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise StageFailed(
            f"the hub's answer lists no files: {type(error).__name__}: {error}", url, "check HF_ENDPOINT"
        ) from error


def _digest(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
