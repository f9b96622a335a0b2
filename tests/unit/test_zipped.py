"""Members of a zip archive, read in place."""

import zipfile
from pathlib import Path

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw.readers import json_lines
from tulu_pipeline.raw.zipped import ZipFolder


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("top/a.jsonl", b'{"n": 1}\r\n\n{"n": \n"caf\xe9"\n')
        out.writestr("__MACOSX/top/a.jsonl", "shadow")
        out.writestr("top/other/b.jsonl", "x" * 5000)
        out.writestr("top/b.jsonl", "")
    return path


def test_a_member_is_found_by_its_name_and_read_line_by_line(archive: Path) -> None:
    with ZipFolder("some.zip", archive) as folder:
        member = folder.find("a.jsonl")
        assert member == "top/a.jsonl"
        assert list(folder.lines(member)) == [(1, '{"n": 1}'), (2, ""), (3, '{"n": '), (4, '"caf\udce9"')]
        rows = list(json_lines(member, folder.lines(member)))
    assert [(row.row_id, row.where) for row in rows] == [
        ("0", f"{member}:1"),
        ("1", f"{member}:3"),
        ("2", f"{member}:4"),
    ]
    assert [getattr(row, "reason", "") for row in rows] == ["", "broken JSON: expecting value", ""]


def test_a_name_that_is_not_there_or_not_alone_is_refused(archive: Path) -> None:
    with ZipFolder("some.zip", archive) as folder:
        for name, what in (("c.jsonl", "0 members"), ("b.jsonl", "2 members"), (".jsonl", "0 members")):
            with pytest.raises(BadInput, match=what) as caught:
                folder.find(name)
            assert caught.value.where == "some.zip"
        with pytest.raises(BadInput, match=r"no member `top/c\.jsonl`"):
            folder.text("top/c.jsonl")


def test_a_damaged_archive_is_named(archive: Path) -> None:
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="not a zip archive"):
        ZipFolder("some.zip", archive)
    start = whole.index(b"top/other/b.jsonl") + len(b"top/other/b.jsonl")
    archive.write_bytes(whole[: start + 3] + bytes([whole[start + 3] ^ 0xFF]) + whole[start + 4 :])
    with ZipFolder("some.zip", archive) as folder, pytest.raises(BadInput, match=r"`top/other/b\.jsonl` is damaged"):
        folder.text("top/other/b.jsonl")
