"""Conversations on disk: the bytes are those of the plain table, and reading by columns gives the same as by rows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tulu_pipeline.chat.conversations import FILE, ConversationFile, ConversationWriter
from tulu_pipeline.chat.schema import Conversation, Message, Role

SCHEMA = pa.schema(
    {
        "dataset": pa.string(),
        "id": pa.string(),
        "messages": pa.list_(pa.struct({"role": pa.string(), "content": pa.string()})),
        "license": pa.string(),
        "language": pa.string(),
    },
    metadata={"schema_version": "2"},
)
ROLES: tuple[Role, ...] = ("system", "user", "assistant")


def conversation(number: int) -> Conversation:
    messages = tuple(
        Message(ROLES[turn % 3], "" if turn == 4 else f"turn {turn} of {number}, läßt 🙂 " * (number % 7))
        for turn in range(number % 6)
    )
    terms, language = ("cc-by-4.0", "de") if number % 3 == 0 else ("", "")
    return Conversation(f"demo{number % 2}", f"demo_{number}", messages, terms, language)


@pytest.mark.parametrize("rows", [0, 1, 4096, 9000])
def test_the_bytes_are_those_of_the_plain_table(tmp_path: Path, rows: int) -> None:
    conversations = [conversation(number) for number in range(rows)]
    with ConversationWriter(tmp_path) as writer:
        for each in conversations:
            writer.write(each)
    records = [
        {
            "dataset": each.dataset,
            "id": each.id,
            "messages": [{"role": message.role, "content": message.content} for message in each.messages],
            "license": each.license,
            "language": each.language,
        }
        for each in conversations
    ]
    with pq.ParquetWriter(tmp_path / "plain.parquet", SCHEMA, compression="zstd", compression_level=3) as plain:
        for start in range(0, rows, 4096):
            plain.write_table(pa.Table.from_pylist(records[start : start + 4096], schema=SCHEMA))
    assert (tmp_path / FILE).read_bytes() == (tmp_path / "plain.parquet").read_bytes()
    assert list(ConversationFile(tmp_path)) == conversations
    assert len(ConversationFile(tmp_path)) == rows


@pytest.mark.parametrize("per_batch", [1, 7, 1024, 5000])
def test_columns_hold_what_the_conversations_hold(tmp_path: Path, per_batch: int) -> None:
    rows = 1100 if per_batch < 100 else 9000
    with ConversationWriter(tmp_path) as writer:
        for number in range(rows):
            writer.write(conversation(number))
    file = ConversationFile(tmp_path)
    seen = []
    for columns in file.columns(per_batch):
        assert 1 <= len(columns) <= per_batch
        assert len(columns.offsets) == len(columns) + 1
        assert columns.offsets[0] == 0
        assert len(columns.roles) == len(columns.contents) == columns.offsets[-1]
        for row, row_id in enumerate(columns.ids):
            part = slice(columns.offsets[row], columns.offsets[row + 1])
            seen.append((row_id, tuple(map(Message, columns.roles[part], columns.contents[part]))))
    assert seen == [(each.id, each.messages) for each in file]
    assert [row_id for row_id, _ in seen] == list(file.ids())
