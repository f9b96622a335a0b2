"""Conversations on disk: one Parquet file with the columns of the published Tülu mixture, and two of our own.

The bytes follow from the conversations alone: row groups of a fixed size, fixed compression, no times.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import Tampered

FILE = "conversations.parquet"
_ROWS_PER_GROUP = 4096
_SCHEMA = pa.schema(
    [
        ("dataset", pa.string()),
        ("id", pa.string()),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
        ("license", pa.string()),
        ("language", pa.string()),
    ],
    metadata={"schema_version": "2"},
)


class ConversationWriter:
    """Writes `conversations.parquet` into a folder, a row group at a time; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._writer = pq.ParquetWriter(folder / FILE, _SCHEMA, compression="zstd", compression_level=3)
        self._waiting: list[Conversation] = []

    def write(self, conversation: Conversation) -> None:
        """Appends one conversation."""
        self._waiting.append(conversation)
        if len(self._waiting) == _ROWS_PER_GROUP:
            self._flush()

    def __enter__(self) -> ConversationWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is None and self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = [
            [conversation.dataset for conversation in self._waiting],
            [conversation.id for conversation in self._waiting],
            [
                [{"role": message.role, "content": message.content} for message in conversation.messages]
                for conversation in self._waiting
            ],
            [conversation.license for conversation in self._waiting],
            [conversation.language for conversation in self._waiting],
        ]
        arrays = [pa.array(column, type=field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), row_group_size=_ROWS_PER_GROUP)
        self._waiting.clear()


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

    def ids(self) -> Iterator[str]:
        """The ids alone."""
        for batch in self._file.iter_batches(_ROWS_PER_GROUP, columns=["id"]):
            yield from batch.column(0).to_pylist()

    def __iter__(self) -> Iterator[Conversation]:
        for batch in self._file.iter_batches(_ROWS_PER_GROUP // 4):
            for row in batch.to_pylist():
                messages = tuple(Message(message["role"], message["content"]) for message in row["messages"])
                yield Conversation(row["dataset"], row["id"], messages, row["license"], row["language"])
