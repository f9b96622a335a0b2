"""Conversations on disk: the bytes are those of the plain table, and each part of the file can be read by itself."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tulu_pipeline.chat.conversations import FILE, ConversationFile, ConversationWriter, conversations_of
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


def test_a_part_of_a_row_group_holds_its_own_conversations(tmp_path: Path) -> None:
    conversations = [conversation(number) for number in range(5000)]
    with ConversationWriter(tmp_path) as writer:
        for each in conversations:
            writer.write(each)
    file = ConversationFile(tmp_path)
    assert list(file.ids()) == [each.id for each in conversations]
    assert list(conversations_of(file.group(1))) == conversations[4096:]
    assert list(conversations_of(file.group(0).slice(100, 50))) == conversations[100:150]
    assert list(conversations_of(file.group(0).slice(0, 0))) == []
    assert (
        list(conversations_of(file.group(0).filter(pa.array([row % 7 == 3 for row in range(4096)]))))
        == (conversations[3:4096:7])
    )
