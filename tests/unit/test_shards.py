"""Shards: many of them read as one, without copies."""

import json
from pathlib import Path

import numpy as np
import pytest

from tulu_pipeline.errors import Tampered
from tulu_pipeline.tokens.encode import Encoded
from tulu_pipeline.tokens.shards import TokenWriter, open_tokens


def encoded(length: int, start: int) -> Encoded:
    return Encoded(
        np.arange(start, start + length, dtype=np.uint32), (np.arange(length) % 2).astype(np.uint8), truncated=False
    )


def write(folder: Path, lengths: list[int], tokens_per_shard: int) -> None:
    with TokenWriter(folder, np.uint32, {"why": "test"}, tokens_per_shard) as writer:
        for row, length in enumerate(lengths):
            writer.write(str(row), encoded(length, 100_000 + row))


@pytest.mark.parametrize("tokens_per_shard", [1, 40_000, 10**9])
def test_rows_are_the_same_however_they_are_sharded(tmp_path: Path, tokens_per_shard: int) -> None:
    lengths = [1 + row * 7 % 40 for row in range(5000)]
    write(tmp_path, lengths, tokens_per_shard)
    tokens = open_tokens(tmp_path)
    assert len(list(tmp_path.glob("*.arrow"))) == {1: 5, 40_000: 3, 10**9: 1}[tokens_per_shard]
    assert tokens.lengths().tolist() == lengths
    for row in (0, 1, 1023, 1024, 2048, 4999):
        ids, mask = tokens[row]
        np.testing.assert_array_equal(ids, encoded(lengths[row], 100_000 + row).input_ids)
        np.testing.assert_array_equal(mask, encoded(lengths[row], 0).loss_mask)
        assert tokens.row_id(row) == str(row)
    assert tokens.info["rows"] == 5000
    assert tokens.info["tokens"] == sum(lengths)


def test_rows_are_read_only_views_of_the_file(tmp_path: Path) -> None:
    write(tmp_path, [5, 6], 100)
    ids, mask = open_tokens(tmp_path)[1]
    assert not ids.flags.owndata
    assert not ids.flags.writeable
    assert not mask.flags.writeable


def test_a_row_that_is_not_there_is_an_index_error(tmp_path: Path) -> None:
    write(tmp_path, [5, 6], 100)
    tokens = open_tokens(tmp_path)
    for row in (2, -1):
        with pytest.raises(IndexError):
            tokens[row]
    with pytest.raises(IndexError):
        tokens.row_id(2)


def test_a_shard_with_other_rows_than_described_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [5, 6], 100)
    info = json.loads((tmp_path / "tokens.json").read_text())
    info["shards"][0]["rows"] = 3
    (tmp_path / "tokens.json").write_text(json.dumps(info))
    with pytest.raises(Tampered, match="2 rows instead of 3"):
        open_tokens(tmp_path)


def test_tokens_of_another_schema_version_are_refused(tmp_path: Path) -> None:
    write(tmp_path, [5, 6], 100)
    info = json.loads((tmp_path / "tokens.json").read_text())
    (tmp_path / "tokens.json").write_text(json.dumps(info | {"schema_version": 99}))
    with pytest.raises(Tampered, match="schema version 99"):
        open_tokens(tmp_path)
