"""Conversations on disk: one Parquet file with the columns of the published Tülu mixture, and two of our own.

The bytes follow from the conversations alone: row groups of a fixed size, fixed compression, no times.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import Tampered

FILE = "conversations.parquet"
_ROWS_PER_GROUP = 4096
_MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("id", pa.string()),
        ("messages", pa.list_(_MESSAGE)),
        ("license", pa.string()),
        ("language", pa.string()),
    ],
    metadata={"schema_version": "2"},
)


class ConversationWriter:
    """Writes `conversations.parquet` into a folder, a row group at a time; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._writer = pq.ParquetWriter(folder / FILE, _SCHEMA, compression="zstd", compression_level=3)
        self._begin()

    def write(self, conversation: Conversation) -> None:
        """Appends one conversation."""
        # Taken apart at once: columns of text are far cheaper to keep, and to hand to Arrow, than objects.
        self._datasets.append(conversation.dataset)
        self._ids.append(conversation.id)
        self._licenses.append(conversation.license)
        self._languages.append(conversation.language)
        for message in conversation.messages:
            self._roles.append(message.role)
            self._contents.append(message.content)
        self._ends.append(len(self._roles))
        if len(self._ids) == _ROWS_PER_GROUP:
            self._flush()

    def __enter__(self) -> ConversationWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None and self._ids:
            self._flush()
        self._writer.close()

    def _begin(self) -> None:
        self._datasets: list[str] = []
        self._ids: list[str] = []
        self._licenses: list[str] = []
        self._languages: list[str] = []
        self._roles: list[str] = []
        self._contents: list[str] = []
        self._ends = [0]

    def _flush(self) -> None:
        roles, contents = pa.array(self._roles, pa.string()), pa.array(self._contents, pa.string())
        messages = pa.StructArray.from_arrays([roles, contents], fields=list(_MESSAGE))
        columns = [
            pa.array(self._datasets, pa.string()),
            pa.array(self._ids, pa.string()),
            pa.ListArray.from_arrays(pa.array(self._ends, pa.int32()), messages, type=_SCHEMA.field("messages").type),
            pa.array(self._licenses, pa.string()),
            pa.array(self._languages, pa.string()),
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=_SCHEMA), row_group_size=_ROWS_PER_GROUP)
        self._begin()


class ConversationFile:
    """The conversations of a folder, in file order, as often as one likes; `len` reads the footer alone.

    Raises:
        Tampered: the file is missing, cut off or no Parquet.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            self._file = pq.ParquetFile(self.path, memory_map=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise Tampered(
                f"conversations cannot be read: {error}", str(self.path), "`tulu verify` names what is damaged"
            ) from error

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    @property
    def groups(self) -> int:
        """Row groups: parts of the file that can be read by themselves."""
        return int(self._file.num_row_groups)

    @property
    def size_bytes(self) -> int:
        """About as many as all texts have."""
        metadata = self._file.metadata
        return sum(metadata.row_group(group).total_byte_size for group in range(self.groups))

    def group(self, index: int, columns: Sequence[str] | None = None) -> pa.RecordBatch:
        """A row group, or some columns of it: `dataset`, `id`, `messages`, `license`, `language`."""
        table = self._file.read_row_group(index, None if columns is None else list(columns))
        (batch,) = table.combine_chunks().to_batches()
        return batch

    def ids(self) -> Iterator[str]:
        """The ids alone."""
        for batch in self._file.iter_batches(_ROWS_PER_GROUP, columns=["id"]):
            yield from batch.column("id").to_pylist()

    def __iter__(self) -> Iterator[Conversation]:
        for batch in self._file.iter_batches(_ROWS_PER_GROUP // 4):
            yield from conversations_of(batch)


def conversations_of(batch: pa.RecordBatch) -> Iterator[Conversation]:
    """The conversations of Arrow columns, in order."""
    lists = batch.column("messages")
    fields = lists.flatten()  # of the batch alone, where it is a part of a row group
    messages = list(map(Message, *(fields.field(name).to_pylist() for name in ("role", "content"))))
    ends = pc.subtract(lists.offsets, lists.offsets[0]).to_pylist()
    names = ("dataset", "id", "license", "language")
    rows = zip(*(batch.column(name).to_pylist() for name in names), pairwise(ends), strict=True)
    for dataset, row_id, terms, language, (start, end) in rows:
        yield Conversation(dataset, row_id, tuple(messages[start:end]), terms, language)
