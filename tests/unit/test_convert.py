"""Raw rows to conversations: ids are unique, order is kept, and memory does not grow with the rows."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.datasets import alpaca
from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw.convert import convert_row, convert_rows
from tulu_pipeline.specs.dataset import BrokenRow, ChangedRow, Dataset, Draw, RawRow


class SameHash(str):
    """A text whose hash is that of every other."""

    __slots__ = ()

    def __hash__(self) -> int:
        return 7


def dataset(ids: list[str], **changes: object) -> Dataset:
    """Alpaca's converter over a row per id."""

    def read(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
        for line, row_id in enumerate(ids, 1):
            value = {"instruction": f"Say {row_id}.", "output": row_id}
            yield BrokenRow(row_id, f"f:{line}", "broken") if "broken" in row_id else RawRow(row_id, f"f:{line}", value)

    return replace(alpaca.DATASET, read=read, **changes)


def test_rows_come_out_in_file_order_each_as_alone() -> None:
    made = dataset(["c", "a", "broken", "b"])
    rows = list(convert_rows(made, {}, 42))
    assert rows == [
        *(convert_row(made, raw, 42) if isinstance(raw, RawRow) else raw for raw in made.read({})),
    ]
    assert [row.id if isinstance(row, Conversation) else row.row_id for row in rows] == [
        "alpaca_c", "alpaca_a", "broken", "alpaca_b",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [str, SameHash])
@pytest.mark.parametrize(
    ("ids", "what", "where"),
    [
        (["a", "b", "a"], "two rows have the id `a`, the first at f:1", "alpaca, f:3"),
        (["a", "b", "b", "a", "b"], "two rows have the id `b`, the first at f:2", "alpaca, f:3"),
        (["", ""], "two rows have the id ``, the first at f:1", "alpaca, f:2"),
    ],
)
def test_the_first_id_that_comes_twice_is_named_with_both_places(
    kind: type[str], ids: list[str], what: str, where: str
) -> None:
    with pytest.raises(BadInput) as caught:
        list(convert_rows(dataset([kind(row_id) for row_id in ids]), {}, 42))
    assert (caught.value.what, caught.value.where) == (what, where)


def test_a_row_that_is_no_conversation_takes_no_id() -> None:
    def read(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
        yield BrokenRow("a", "f:1", "broken")
        yield RawRow("a", "f:2", {"instruction": "no output"})
        yield RawRow("a", "f:3", {"instruction": "Say a.", "output": "a"})
        yield BrokenRow("a", "f:4", "broken")

    made = replace(alpaca.DATASET, read=read)
    assert [isinstance(row, Conversation) for row in convert_rows(made, {}, 42)] == [False, False, True, False]
    rows = [*made.read({}), *made.read({})]
    with pytest.raises(BadInput, match="the first at f:3"):
        list(convert_rows(replace(made, read=lambda files: iter(rows)), {}, 42))


@pytest.mark.parametrize("stage", ["read", "draw", "split"])
def test_an_id_that_is_no_unicode_breaks_its_row_alone(stage: str) -> None:
    def halves(row: RawRow, count_tokens: object) -> Iterator[RawRow | ChangedRow]:
        yield ChangedRow(f"{row.row_id}\udc80", row.where, "split")
        yield replace(row, row_id=f"{row.row_id}\udc80" if row.row_id == "b" else row.row_id)

    draw = Draw(stratum=lambda row: "", parts=lambda stratum: {"": 9})
    made = {
        "read": dataset(["a", "b\udc80", "é"]),
        "draw": dataset(["a", "b\udc80", "é"], draw=draw),
        "split": dataset(["a", "b", "é"], split=halves),
    }[stage]
    rows = [row for row in convert_rows(made, {}, 42) if not isinstance(row, ChangedRow)]
    (broken,) = (row for row in rows if isinstance(row, BrokenRow))
    assert (broken.row_id, broken.where, broken.reason) == ("b\\udc80", "f:2", "its id is not valid Unicode")
    assert [row.id for row in rows if isinstance(row, Conversation)] == ["alpaca_a", "alpaca_é"]


@pytest.mark.parametrize("name", ["id", "license", "language"])
def test_what_stands_beside_the_messages_is_unicode_too(name: str) -> None:
    made = alpaca.DATASET
    spoiled = replace(made, convert=lambda row, rng: replace(made.convert(row, rng), **{name: "a\ud800"}))
    row = convert_row(spoiled, RawRow("1", "f:1", {"instruction": "Say a.", "output": "a"}), 42)
    assert isinstance(row, BrokenRow)
    assert row.reason == f"its {name} is not valid Unicode"


def test_two_ids_of_one_hash_are_two_ids() -> None:
    rows = list(convert_rows(dataset([SameHash(text) for text in "abcdef"]), {}, 42))
    assert [row.id for row in rows if isinstance(row, Conversation)] == [f"alpaca_{text}" for text in "abcdef"]


def test_ids_are_checked_after_the_draw_and_the_split() -> None:
    """Of two rows with one id one may not be drawn; one row may be split into two with one id."""

    def halves(row: RawRow, count_tokens: object) -> Iterator[RawRow | ChangedRow]:
        yield ChangedRow(row.row_id, row.where, "split")
        yield replace(row, row_id=row.row_id.replace("same", ""))
        yield replace(row, row_id=row.row_id.replace("same", "") + "+")

    left_out: list[int] = []
    draw = Draw(stratum=lambda row: row.row_id, parts=lambda stratum: {"all": 1})
    drawn = list(convert_rows(dataset(["a", "b", "a"], draw=draw), {}, 42, on_left_out=left_out.append))
    assert [row.id for row in drawn if isinstance(row, Conversation)] == ["alpaca_a", "alpaca_b"]
    assert left_out == [1]
    assert len(list(convert_rows(dataset(["a", "b"], split=halves), {}, 42))) == 6
    with pytest.raises(BadInput, match=r"two rows have the id `a`, the first at f:1"):
        list(convert_rows(dataset(["a", "asame"], split=halves), {}, 42))
    with pytest.raises(BadInput, match=r"two rows have the id `a`, the first at f:1"):
        list(convert_rows(dataset(["a", "b", "samea"], split=halves, draw=draw), {}, 42, on_left_out=left_out.append))
    assert left_out == [1, 0]


_NORMALIZE = """
import json, sys
from pathlib import Path
from tasks.normalize import NORMALIZE, NormalizeParams
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.datasets import alpaca
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings

folder, rows = Path(sys.argv[1]), int(sys.argv[2])
(folder / "raw").mkdir(parents=True)
(folder / "out").mkdir()
with (folder / "raw" / "alpaca_data.json").open("w") as raw:
    for number in range(rows):
        row = {"instruction": f"Say {number} and {number * number}.", "input": "", "output": f"{number}"}
        raw.write(("," if number else "[") + json.dumps(row))
    raw.write("]")
job = Job(name="normalize[x]", params=NormalizeParams(dataset="alpaca", definition=alpaca.DATASET),
          inputs={"raw": folder / "raw"}, sources={}, out=folder / "out", work=folder, publish=lambda metrics: None)
metrics = NORMALIZE.run(job, RunContext(profile=Profile(), settings=read_settings()))
assert metrics["kept"] == rows
# Not getrusage: its peak of a new process includes what the parent had when it made it.
print(int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024)
"""


def test_memory_grows_by_the_check_of_ids_alone(tmp_path: Path) -> None:
    """A row costs 8 bytes for it, 16 while the check runs; both cases fill many row groups."""
    few, many = 60_000, 200_000
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", _NORMALIZE, str(tmp_path / str(rows)), str(rows)]))
        for rows in (few, many)
    ]
    # The rest is the allocator's. A set of the ids alone would take 70 bytes a row, 10 MB in all.
    assert peaks[1] - peaks[0] < 16 * (many - few) + 4 * 2**20
