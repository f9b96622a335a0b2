"""Raw files that are not what they should be: rows fall out with a reason, files are refused with a place."""

import gzip
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw import readers
from tulu_pipeline.specs.dataset import BrokenRow, RawRow


def read_json(tmp_path: Path, text: str | bytes) -> list[RawRow | BrokenRow]:
    path = tmp_path / "rows.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return list(readers.read_json_arrays({"rows.json": path}))


def values(rows: list[RawRow | BrokenRow]) -> list[object]:
    return [row.value if isinstance(row, RawRow) else row.reason for row in rows]


def test_elements_come_in_order_with_the_line_they_start_on(tmp_path: Path) -> None:
    rows = read_json(tmp_path, '[\n {"a": "x\\ny"},\n\n {\n"a": 2}\n]\n')
    assert values(rows) == [{"a": "x\ny"}, {"a": 2}]
    assert [(row.row_id, row.where) for row in rows] == [("0", "rows.json:2"), ("1", "rows.json:4")]


def test_numbers_run_on_over_files(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("[1, 2]")
    rows = list(readers.read_json_arrays({name: tmp_path / name for name in ("b.json", "a.json")}))
    assert [(row.row_id, row.where) for row in rows] == [
        ("0", "b.json:1"), ("1", "b.json:1"), ("2", "a.json:1"), ("3", "a.json:1"),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["[]", " [ ] \n", "\ufeff[]"])
def test_an_empty_array_has_no_rows(tmp_path: Path, text: str) -> None:
    assert read_json(tmp_path, text) == []


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        ('[\n{"a": 1},\n{"a": 2 "b"},\n{"a": 3}\n]', "rows.json:3"),
        ('[{"a": 1},{"a": ,},{"a": 3}]', "rows.json:1"),
        ('[\n{"a": 1},\n{"a": "un"quoted", "b": [1, {"c": 2}},\n{"a": 3}]', "rows.json:3"),
        ('[{"a": 1}, nonsense, {"a": 3}]', "rows.json:1"),
        ('[{"a": 1} {"a": 2}, {"a": 3}]', "rows.json:1"),
    ],
)
def test_a_broken_element_falls_out_and_reading_goes_on(tmp_path: Path, broken: str, place: str) -> None:
    rows = read_json(tmp_path, broken)
    bad = [row for row in rows if isinstance(row, BrokenRow)]
    assert len(bad) == 1
    assert bad[0].where == place
    assert bad[0].reason.startswith("broken JSON")
    assert [row.value for row in rows if isinstance(row, RawRow)][-1] == {"a": 3}


def test_objects_inside_a_broken_element_are_not_taken_for_elements(tmp_path: Path) -> None:
    chat = '{"id": "%s", "turns": [{"from": "a", "value": "x"}, {"from": "b", "value": %s}, {"from": "a"}]}'
    text = "[" + ",\n".join(chat % row for row in [("1", '"y"'), ("2", '"un"quoted"'), ("3", '"z"')]) + "]"
    rows = read_json(tmp_path, text)
    assert [row.value["id"] if isinstance(row, RawRow) else row.where for row in rows] == ["1", "rows.json:2", "3"]  # type: ignore[index]
    assert isinstance(rows[1], BrokenRow)
    assert rows[1].text == chat % ("2", '"un"quoted"')


def test_a_broken_element_does_not_pull_the_rest_of_the_file_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    row = '{"a": "' + "x" * 1000 + '"}'
    with path.open("w") as file:
        file.write('[{"a": ,}')
        for number in range(40_000):
            file.write("," + ('{"a": "un"quoted"}' if number % 10_000 == 9_999 else row))
        file.write("]")
    tracemalloc.start()
    rows = Counter(type(row) for row in readers.read_json_arrays({"rows.json": path}))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == {RawRow: 39_996, BrokenRow: 5}
    assert path.stat().st_size > 4e7
    assert peak < 1e7


def test_a_broken_last_element_falls_out(tmp_path: Path) -> None:
    assert values(read_json(tmp_path, '[\n{"a": 1},\n{"a": }\n]'))[0] == {"a": 1}
    assert isinstance(read_json(tmp_path, '[\n{"a": 1},\n{"a": }\n]')[1], BrokenRow)


@pytest.mark.parametrize(
    ("text", "what", "where"),
    [
        ("<html>gone</html>", "not a JSON array", "rows.json:1"),
        ('\n{"a": 1}', "not a JSON array", "rows.json:2"),
        ("", "not a JSON array", "rows.json:1"),
        ('[\n{"a": 1},\n{"a": 2', "ends in the middle", "rows.json:3"),
        ('[\n{"a": 1}\n', "ends in the middle", "rows.json:2"),
        ('[\n{"a": 1},\n', "ends in the middle", "rows.json:3"),
        ('[{"a": 1}]\n[{"a": 2}]', "more after", "rows.json:2"),
    ],
)
def test_a_file_with_an_unknown_rest_is_refused(tmp_path: Path, text: str, what: str, where: str) -> None:
    with pytest.raises(BadInput, match=what) as caught:
        read_json(tmp_path, text)
    assert caught.value.where == where
    assert caught.value.fix


def test_the_window_does_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[\n{"a": "first"},\n{"a": broken},\n 12345,  "läßt",\n{"a": [1, {"b": "]"}]}\n]\n'
    whole = read_json(tmp_path, text)
    for size in range(1, 12):
        monkeypatch.setattr(readers, "_CHUNK_CHARACTERS", size)
        assert read_json(tmp_path, text) == whole


def test_bytes_that_are_no_utf8_stay_in_their_own_row(tmp_path: Path) -> None:
    assert values(read_json(tmp_path, b'["a", "\xff", "b"]')) == ["a", "\udcff", "b"]


def test_json_lines_skip_blank_ones_and_name_broken_ones(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\n{"a": \n{"a": "\xe2\x80\xa8"}\n')
    rows = list(readers.read_json_lines({"rows.jsonl": path}))
    assert [row.where for row in rows] == ["rows.jsonl:1", "rows.jsonl:3", "rows.jsonl:4"]
    assert [row.row_id for row in rows] == ["0", "1", "2"]
    assert isinstance(rows[1], BrokenRow)
    assert rows[2] == RawRow("2", "rows.jsonl:4", {"a": "\u2028"})


def test_tab_separated_fields_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "gsm8k_train.tsv"
    path.write_text('a "quoted\tb\n\tc\nlonely\n')
    rows = list(readers.read_tab_separated({"gsm8k_train.tsv": path}))
    assert [row.value for row in rows if isinstance(row, RawRow)] == [['a "quoted', "b"], ["", "c"], ["lonely"]]
    assert rows[1].row_id == "gsm8k_train_1"
    assert rows[1].where == "gsm8k_train.tsv:2"


def test_a_compressed_file_reads_as_the_plain_one(tmp_path: Path) -> None:
    text = '{"a": 1}\n\n{"a": \n{"a": "é"}\n'
    (tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    plain, packed = (
        list(readers.read_json_lines({"rows.jsonl": tmp_path / name})) for name in ("rows.jsonl", "rows.jsonl.gz")
    )
    assert packed == plain
    assert len(plain) == 3


def test_a_compressed_file_that_is_cut_off_or_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    for broken in (gzip.compress(b'{"a": 1}\n' * 500)[:-20], b'{"a": 1}\n', gzip.compress(b"1\n" * 99)[:12] + b"junk"):
        path.write_bytes(broken)
        with pytest.raises(BadInput, match="broken gzip file") as caught:
            list(readers.read_json_lines({"rows.jsonl.gz": path}))
        assert caught.value.where == str(path)
