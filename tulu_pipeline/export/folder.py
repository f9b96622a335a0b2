"""The exported folder: Parquet shards, a dataset card, and `mixture.json`, which says that we wrote it.

The folder is written beside its place and renamed at the end, so it is there whole or not at all. Its bytes follow from
the conversations and the mixture alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tulu_pipeline.artifacts.manifest import list_files
from tulu_pipeline.artifacts.stage import ReportProgress, no_progress
from tulu_pipeline.artifacts.storage import fsync_folder
from tulu_pipeline.chat.conversations import FILE
from tulu_pipeline.errors import BadInput
from tulu_pipeline.export.card import render_card
from tulu_pipeline.mixing.licenses import meaning, of_rows, union

SCHEMA_VERSION = 1
MARK = "mixture.json"
CARD = "README.md"
_WRITTEN_BY = "tulu export"
_ROWS_PER_SHARD = 100_000
_ROWS_PER_GROUP = 4096
_COLUMNS = ("dataset", "id", "messages", "license", "language")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One component, as it is exported.

    Attributes:
        dataset, title, citation, url: of the dataset. license: of its rows that have none of their own.
        sample: "2,017 of 20,022" when the dataset is less than the original.
        conversations: folder of the component's artifact.
        artifact, key, digest: which artifact that is.
        params: what filtered and drew it, as far as it was.
        repeat: how often each conversation is written.
    """

    dataset: str
    title: str
    citation: str
    url: str
    license: str
    sample: str
    conversations: Path
    artifact: str
    key: str
    digest: str
    params: dict[str, Any]
    repeat: int

    def rows(self) -> int:
        """Conversations of the component, each counted once."""
        return int(pq.ParquetFile(self.conversations / FILE).metadata.num_rows)

    def licenses(self) -> tuple[str, ...]:
        """The licenses its conversations are under."""
        return licenses_in(self.conversations, self.license)


def write_folder(
    out: Path, name: str, label: str, parts: Sequence[Part], progress: ReportProgress = no_progress
) -> int:
    """Write the mixture to `out`; returns the number of rows.

    Args:
        out: the folder; replaced where an export wrote it and nobody added to it or edited its card.
        name: the mixture's.
        label: how tables call it, "" for none.
        parts: in order; a part's rows are written `repeat` times, one pass after the other.
        progress: how far it is.

    Raises:
        BadInput: `out` holds something else, or another export writes it now.
    """
    refuse_foreign(out)
    out = out.resolve()
    total = sum(part.rows() * part.repeat for part in parts)
    with _beside(out) as folder:
        _write_shards(folder / "data", parts, total, progress)
        outputs, _ = list_files(folder)
        description = {
            "schema_version": SCHEMA_VERSION,
            "written_by": _WRITTEN_BY,
            "mixture": name,
            "rows": total,
            "columns": list(_COLUMNS),
            "components": [_component(part) for part in parts],
            "licenses": {license_: meaning(license_) for license_ in union_of(parts)},
            "files": [dataclasses.asdict(entry) for entry in outputs],
        }
        card = render_card(description, label).encode()
        (folder / CARD).write_bytes(card)
        description["card_sha256"] = hashlib.sha256(card).hexdigest()
        (folder / MARK).write_text(json.dumps(description, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        list_files(folder, fsync=True)
        _put_in_place(folder, out)
    return total


def licenses_in(conversations: Path, dataset_license: str) -> tuple[str, ...]:
    """The licenses that the conversations of an artifact are under."""
    column = pq.read_table(conversations / FILE, columns=["license"]).column("license")
    return union(of_rows(column.unique().to_pylist(), dataset_license))


def union_of(parts: Iterable[Part]) -> tuple[str, ...]:
    """The licenses of the whole."""
    return union(license_ for part in parts for license_ in part.licenses())


def refuse_foreign(out: Path) -> None:
    """Whether `out` may be written.

    Raises:
        BadInput: it is no folder, or holds what no export wrote.
    """
    fix = "name another folder with --out, or remove what is there"
    if Path.cwd().is_relative_to(out.resolve()):
        raise BadInput(f"`{out}` is the current folder or holds it", str(out.absolute()), "name another one with --out")
    if not out.exists():
        return
    if not out.is_dir():
        raise BadInput(f"`{out}` is a file", str(out.absolute()), fix)
    there = {path.relative_to(out).as_posix() for path in out.rglob("*") if not path.is_dir()}
    if not there:
        return
    try:
        description = json.loads((out / MARK).read_text(encoding="utf-8"))
        ours = description["written_by"] == _WRITTEN_BY
        written = {MARK, CARD, *(entry["path"] for entry in description["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        ours, written = False, set()
    if not ours:
        raise BadInput(f"the folder `{out}` holds files that no export wrote", str(out.absolute()), fix)
    if added := sorted(there - written):
        raise BadInput(f"`{added[0]}` was added to the exported folder `{out}`", str(out.absolute()), fix)
    known = description.get("card_sha256")  # exports did not always tell
    if known and CARD in there and hashlib.sha256((out / CARD).read_bytes()).hexdigest() != known:
        raise BadInput(f"`{CARD}` of the exported folder `{out}` was edited", str(out / CARD), fix)


def _component(part: Part) -> dict[str, Any]:
    facts = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    del facts["conversations"]
    return facts | {"rows": part.rows(), "licenses": list(part.licenses())}


def _write_shards(folder: Path, parts: Sequence[Part], total: int, progress: ReportProgress) -> None:
    """Shards of equal numbers of rows, named as the hub names them."""
    folder.mkdir()
    shards = max(1, -(-total // _ROWS_PER_SHARD))
    writer, shard, written = None, 0, 0
    try:
        for batch in _batches(parts):
            start = 0
            while start < len(batch):
                if writer is None:
                    path = folder / f"train-{shard:05d}-of-{shards:05d}.parquet"
                    writer = pq.ParquetWriter(path, batch.schema, compression="zstd", compression_level=3)
                piece = batch.slice(start, min(len(batch) - start, _ROWS_PER_SHARD * (shard + 1) - written))
                writer.write_batch(piece, row_group_size=_ROWS_PER_GROUP)
                start, written = start + len(piece), written + len(piece)
                if written == _ROWS_PER_SHARD * (shard + 1):
                    writer.close()
                    writer, shard = None, shard + 1
                progress("export", written, total, "conversations")
    finally:
        if writer is not None:
            writer.close()


def _batches(parts: Iterable[Part]) -> Iterator[pa.RecordBatch]:
    """The rows of the parts, each with its license told."""
    for part in parts:
        for _ in range(part.repeat):
            file = pq.ParquetFile(part.conversations / FILE, memory_map=True)
            for batch in file.iter_batches(_ROWS_PER_GROUP, columns=list(_COLUMNS)):
                own = batch.column("license")
                told = pc.if_else(pc.equal(own, ""), part.license, own)
                columns = [told if name == "license" else batch.column(name) for name in _COLUMNS]
                yield pa.RecordBatch.from_arrays(columns, names=list(_COLUMNS))


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """An empty folder beside `out` that no other export uses meanwhile; what a killed one left in it is removed."""
    folder = out.with_name(f".{out.name}.writing")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(descriptor), folder.stat())
        except (BlockingIOError, FileNotFoundError):
            mine = False
        if not mine:
            raise BadInput(f"another export writes `{out}` now", str(folder.absolute()), "wait for it to end")
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _put_back(out)
        yield folder
    finally:
        os.close(descriptor)


def _put_back(out: Path) -> None:
    """What an export that was killed at its very end had moved away."""
    for old in sorted(out.parent.glob(f"{glob.escape(f'.{out.name}.old-')}*")):
        if out.exists():
            shutil.rmtree(old)
        else:
            old.rename(out)


def _put_in_place(folder: Path, out: Path) -> None:
    """Rename `folder` to `out`; the export that was there goes."""
    old = out.with_name(f".{out.name}.old-{uuid.uuid4().hex[:8]}")
    if out.exists():
        out.rename(old)
    folder.rename(out)
    fsync_folder(out.parent)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(old)
