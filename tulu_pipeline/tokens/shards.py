"""Token ids and loss masks on disk: Arrow stream shards that a trainer maps into memory and reads without copying.

The folder also opens with `datasets.load_from_disk` (hence the stream format, `state.json` and `dataset_info.json`).
`tokens.json` says what is in it and how it was made; each shard carries the same in its schema's metadata. The bytes
follow from the rows alone.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tulu_pipeline.artifacts.canonical import canonical_json, sha256_text
from tulu_pipeline.errors import Tampered
from tulu_pipeline.tokens.encoded import Encoded, EncodedBatch, concatenated, joined

SCHEMA_VERSION = 1
_ROWS_PER_BATCH = 1024
_TOKENS_PER_SHARD = 2**26  # about 200 MB; also keeps 32-bit offsets far from their end
_INFO = "tokens.json"


class TokenWriter:
    """Writes shards into a folder; use as a context manager.

    Args:
        folder: where to write.
        id_type: type of the ids.
        made_by: how the rows were made (tokenizer, template, loss span, length); kept with them.
        tokens_per_shard: a new shard is begun after this many tokens.
    """

    def __init__(
        self,
        folder: Path,
        id_type: type[np.unsignedinteger],
        made_by: Mapping[str, Any],
        tokens_per_shard: int = _TOKENS_PER_SHARD,
    ) -> None:
        self._folder, self._made_by, self._tokens_per_shard = folder, dict(made_by), tokens_per_shard
        kind = pa.from_numpy_dtype(np.dtype(id_type))
        fields = [("input_ids", pa.list_(kind)), ("loss_mask", pa.list_(pa.uint8())), ("id", pa.string())]
        metadata = {"schema_version": str(SCHEMA_VERSION), "made_by": canonical_json(self._made_by)}
        self._schema = pa.schema(fields, metadata=metadata)
        self._id_type = id_type
        self._waiting: list[tuple[pa.Array, EncodedBatch]] = []
        self._rows_waiting = 0
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._shards: list[dict[str, Any]] = []
        self.rows = self.tokens = self.supervised_tokens = self.longest = 0

    def write(self, row_id: str, encoded: Encoded) -> None:
        """Appends one conversation."""
        self.write_batch(pa.array([row_id], pa.string()), joined([encoded], self._id_type))

    def write_batch(self, row_ids: pa.Array, batch: EncodedBatch) -> None:
        """Appends conversations; `row_ids` is an array of strings. The bytes do not depend on how rows are batched."""
        self._waiting.append((row_ids, batch))
        self._rows_waiting += len(batch)
        self.rows += len(batch)
        self.tokens += len(batch.input_ids)
        self.supervised_tokens += int(batch.loss_mask.sum(dtype=np.int64))
        self.longest = max(self.longest, int(batch.lengths().max(initial=0)))
        if self._rows_waiting >= _ROWS_PER_BATCH:
            self._flush()

    def __enter__(self) -> TokenWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None:
            self._flush(at_end=True)
        self._end_shard()
        if kind is None:
            self._write_descriptions()

    def _flush(self, *, at_end: bool = False) -> None:
        row_ids = pa.concat_arrays([pa.array([], pa.string()), *(row_ids for row_ids, _ in self._waiting)])
        batch = concatenated([batch for _, batch in self._waiting], self._id_type)
        whole = len(batch) - len(batch) % _ROWS_PER_BATCH
        for first in range(0, whole, _ROWS_PER_BATCH):
            self._write(row_ids[first : first + _ROWS_PER_BATCH], batch.rows(first, first + _ROWS_PER_BATCH))
        self._waiting = [(row_ids[whole:], batch.rows(whole, len(batch)))]
        self._rows_waiting = len(batch) - whole
        if at_end and (self._rows_waiting or not self._shards):
            self._write(*self._waiting[0])

    def _write(self, row_ids: pa.Array, batch: EncodedBatch) -> None:
        if self._writer is None:
            name = f"tokens-{len(self._shards):05d}.arrow"
            self._shards.append({"file": name, "rows": 0, "tokens": 0})
            self._writer = pa.ipc.new_stream(str(self._folder / name), self._schema)
        offsets = pa.array(batch.offsets.astype(np.int32))
        lists = [pa.ListArray.from_arrays(offsets, pa.array(each)) for each in (batch.input_ids, batch.loss_mask)]
        names = pa.array(row_ids.to_pylist(), pa.string())  # how a part of an array is written depends on the rest
        self._writer.write_batch(pa.record_batch([*lists, names], schema=self._schema))
        shard = self._shards[-1]
        shard["rows"] += len(batch)
        shard["tokens"] += len(batch.input_ids)
        if shard["tokens"] >= self._tokens_per_shard:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            shard = self._shards[-1]
            shard["size_bytes"] = (self._folder / shard["file"]).stat().st_size

    def _write_descriptions(self) -> None:
        info = {
            "schema_version": SCHEMA_VERSION,
            "rows": self.rows,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "longest": self.longest,
            "id_type": str(pa.from_numpy_dtype(np.dtype(self._id_type))),
            "shards": self._shards,
            "made_by": self._made_by,
        }
        state: dict[str, Any] = {
            "_data_files": [{"filename": shard["file"]} for shard in self._shards],
            "_fingerprint": sha256_text(canonical_json(info))[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": "train",
        }
        for name, value in ((_INFO, info), ("state.json", state), ("dataset_info.json", {})):
            text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False)
            (self._folder / name).write_text(text + "\n", encoding="utf-8")


class Tokens:
    """Tokenized conversations, mapped into memory; read-only. Open with `open_tokens`.

    Attributes:
        folder: where they are.
        info: `tokens.json`: rows, tokens, supervised_tokens, longest, id_type, shards, made_by.
    """

    def __init__(self, folder: Path, info: dict[str, Any], batches: Sequence[pa.RecordBatch]) -> None:
        self.folder, self.info = folder, info
        self._first_rows = np.cumsum([0, *(batch.num_rows for batch in batches)]).tolist()
        self._offsets = [batch.column(0).offsets.to_numpy(zero_copy_only=True) for batch in batches]
        self._ids = [batch.column(0).values.to_numpy(zero_copy_only=True) for batch in batches]
        self._masks = [batch.column(1).values.to_numpy(zero_copy_only=True) for batch in batches]
        self._row_ids = [batch.column(2) for batch in batches]

    def __len__(self) -> int:
        return int(self._first_rows[-1])

    def lengths(self) -> npt.NDArray[np.int64]:
        """Tokens of each row, in row order."""
        lengths = [np.diff(offsets).astype(np.int64) for offsets in self._offsets]
        joined: npt.NDArray[np.int64] = np.concatenate([np.zeros(0, np.int64), *lengths])
        return joined

    def __getitem__(self, row: int) -> tuple[npt.NDArray[np.unsignedinteger], npt.NDArray[np.uint8]]:
        """Ids and loss mask of a row: views into the file, not copies."""
        batch, index = self._place(row)
        start, end = self._offsets[batch][index : index + 2]
        return self._ids[batch][start:end], self._masks[batch][start:end]

    def row_id(self, row: int) -> str:
        """The conversation's id."""
        batch, index = self._place(row)
        return str(self._row_ids[batch][index].as_py())

    def _place(self, row: int) -> tuple[int, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        batch = bisect.bisect_right(self._first_rows, row) - 1
        return batch, row - self._first_rows[batch]


def open_tokens(folder: Path) -> Tokens:
    """The tokenized conversations of a folder, checked against their description.

    Raises:
        Tampered: a file is missing, cut off or holds other rows than it should; `where` is the file.
    """
    info_file = folder / _INFO
    try:
        info = json.loads(info_file.read_text(encoding="utf-8"))
        shards = info["shards"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(f"no description of tokens: {error}", info_file) from error
    if info["schema_version"] != SCHEMA_VERSION:
        raise _damaged(f"schema version {info['schema_version']}, this program reads {SCHEMA_VERSION}", info_file)
    batches = [batch for shard in shards for batch in _batches(folder / shard["file"], shard)]
    return Tokens(folder, info, batches)


def _batches(file: Path, shard: Mapping[str, Any]) -> list[pa.RecordBatch]:
    try:
        size_bytes = file.stat().st_size
        if size_bytes != shard["size_bytes"]:
            raise _damaged(f"the shard has {size_bytes:,} bytes instead of {shard['size_bytes']:,}", file)
        with pa.ipc.open_stream(pa.memory_map(str(file))) as stream:
            batches = list(stream)
        for batch in batches:
            batch.validate(full=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(f"the shard cannot be read: {error}", file) from error
    rows = sum(batch.num_rows for batch in batches)
    if rows != shard["rows"]:
        raise _damaged(f"the shard has {rows:,} rows instead of {shard['rows']:,}", file)
    return batches


def _damaged(what: str, where: Path) -> Tampered:
    return Tampered(what, str(where), "`tulu verify` names all that is damaged; `--refresh tokenize` makes it again")
