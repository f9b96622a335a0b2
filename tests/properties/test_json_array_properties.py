"""An array is read alike whatever the window, and damage to one element leaves the others."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw import readers
from tulu_pipeline.specs.dataset import BrokenRow, RawRow

TEXTS = st.text(alphabet='ab",]}[{\\\n🙂: ', max_size=6)
ROWS = st.lists(
    st.builds(lambda a, turns: {"id": a, "turns": [{"value": turn} for turn in turns]}, TEXTS, st.lists(TEXTS)),
    min_size=1,
    max_size=6,
)
SPACE = st.sampled_from(["", " ", "\n", " \r\n" + 20 * " "])


@st.composite
def layouts(draw: st.DrawFn, rows: list[dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The elements as texts, and what stands before each, between them and behind the last."""
    indent = draw(st.sampled_from([None, 1]))
    elements = [json.dumps(row, indent=indent, ensure_ascii=draw(st.booleans())) for row in rows]
    before = ["[", *[","] * (len(rows) - 1), "]"]
    return elements, [f"{draw(SPACE)}{mark}{draw(SPACE)}" for mark in before]


def read(text: str, window: int) -> list[RawRow | BrokenRow] | tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "_CHUNK_CHARACTERS", window)
        path = Path(folder) / "rows.json"
        path.write_text(text, encoding="utf-8", newline="")
        try:
            return list(readers.read_json_arrays({"rows.json": path}))
        except BadInput as error:
            return error.what.partition(", it starts with")[0], error.where


def joined(elements: list[str], before: list[str]) -> str:
    return "".join(mark + element for mark, element in zip(before, [*elements, ""], strict=True))


@given(ROWS, st.data(), st.integers(1, 40))
def test_what_json_reads_at_once_is_read_in_a_window(rows: list[Any], data: st.DataObject, window: int) -> None:
    text = joined(*data.draw(layouts(rows)))
    found = read(text, window)
    assert isinstance(found, list)
    assert [row.value for row in found if isinstance(row, RawRow)] == json.loads(text) == rows


@given(ROWS, st.data(), st.integers(1, 40))
def test_any_damage_looks_the_same_through_every_window(rows: list[Any], data: st.DataObject, window: int) -> None:
    text = joined(*data.draw(layouts(rows)))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    damaged = text[:start] + data.draw(TEXTS) + text[end:]
    assert read(damaged, window) == read(damaged, 1 << 20)


@given(ROWS, st.data(), st.integers(1, 40))
def test_an_element_that_is_no_json_falls_out_alone(rows: list[Any], data: st.DataObject, window: int) -> None:
    elements, before = data.draw(layouts(rows))
    broken = data.draw(st.integers(1, len(rows) - 1)) if len(rows) > 1 else 0
    elements[broken] = elements[broken][:-1] + " oops}"
    found = read(joined(elements, before), window)
    assert isinstance(found, list)
    assert [row.value if isinstance(row, RawRow) else None for row in found] == [
        None if index == broken else row for index, row in enumerate(rows)
    ]
