"""FLAN V2 and CoT: rows of FLAN's dumps, and what is drawn of its submixes."""

import json
import random
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.normalize import NORMALIZE, NormalizeParams
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.datasets import cot, flan_v2
from tulu_pipeline.profile import Profile
from tulu_pipeline.raw.convert import convert_row, convert_rows
from tulu_pipeline.raw.strata import drawn
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.dataset import BrokenRow, Dataset, Draw, RawRow


def write_lines(path: Path, values: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values), encoding="utf-8")
    return path


def reasons(dataset: Dataset, values: list[Any]) -> list[str]:
    rows = [convert_row(dataset, RawRow(str(number), "x:1", value), 42) for number, value in enumerate(values)]
    return [row.reason if isinstance(row, BrokenRow) else "" for row in rows]


def flan_row(text: str) -> dict[str, str]:
    return {"inputs": f"Say {text}:", "targets": text}


@pytest.mark.parametrize("dataset", [flan_v2.DATASET, cot.DATASET], ids=lambda dataset: dataset.name)
def test_a_flan_row_without_a_text_is_dropped_and_one_with_an_empty_text_stays(dataset: Dataset) -> None:
    values: list[Any] = [
        {"inputs": "Why?"},
        {"inputs": "Why?", "targets": None},
        {"targets": "So."},
        {"inputs": " ", "targets": "So."},
        {"inputs": "Why?", "targets": ["So."]},
        "Why?",
        {"inputs": "Why?", "targets": ""},
    ]
    assert reasons(dataset, values) == [
        "no `targets`",
        "no `targets`",
        "no `inputs`",
        "",
        "`targets` is no text",
        "no JSON object",
        "",
    ]


@pytest.mark.parametrize(
    ("prompt", "becomes"),
    [
        ("Go on", "Go on\n"),
        ("Go on\n", "Go on\n"),
        ("Answer:", "Answer:"),
        ("Answer: \n ", "Answer: \n "),
        ("a: b ", "a: b \n"),
    ],
)
def test_a_flan_prompt_ends_its_line_unless_a_colon_asks_to_go_on(prompt: str, becomes: str) -> None:
    row = convert_row(flan_v2.DATASET, RawRow("7", "x:8", {"inputs": prompt, "targets": "so"}), 42)
    assert isinstance(row, Conversation)
    assert row.messages[0].content == becomes


def smaller(dataset: Dataset, count: int) -> Dataset:
    """The dataset with `count` rows of each stratum instead of its tens of thousands."""
    assert dataset.draw is not None
    return replace(dataset, draw=replace(dataset.draw, parts=lambda stratum: {"": count}))


@pytest.fixture
def submixes(tmp_path: Path) -> dict[str, Path]:
    return {
        name: write_lines(tmp_path / name, [flan_row(f"{name} {number}") for number in range(count)])
        for name, count in (("zsopt.jsonl", 40), ("fsopt.jsonl", 25))
    }


def test_cot_draws_as_many_of_each_submix_in_file_order(submixes: dict[str, Path]) -> None:
    left_out: list[int] = []
    rows = [*convert_rows(smaller(cot.DATASET, 30), submixes, 42, on_left_out=left_out.append)]
    kept = [row for row in rows if isinstance(row, Conversation)]
    names = [row.id.rpartition("_")[0] for row in kept]
    numbers = [row.messages[1].content.rpartition(" ")[2] for row in kept]
    assert Counter(names) == {"cot_zsopt": 30, "cot_fsopt": 25}
    assert left_out == [10]
    assert names == ["cot_zsopt"] * 30 + ["cot_fsopt"] * 25
    zero_shot = [int(number) for number in numbers[:30]]
    assert zero_shot == sorted(zero_shot)
    assert zero_shot != list(range(30))


def test_a_row_more_in_one_submix_changes_one_pick_there_and_none_elsewhere(submixes: dict[str, Path]) -> None:
    def picks() -> set[str]:
        return {row.id for row in convert_rows(smaller(cot.DATASET, 10), submixes, 42) if isinstance(row, Conversation)}

    before = picks()
    with submixes["zsopt.jsonl"].open("a") as stream:
        stream.write(f"{json.dumps(flan_row('more'))}\n")
    assert len(before - picks()) <= 1
    assert {pick for pick in picks() if "fsopt" in pick} == {pick for pick in before if "fsopt" in pick}


@pytest.mark.parametrize("variant", ["", "paper2023"])
def test_rows_that_are_alike_are_told_apart_among_those_kept(tmp_path: Path, variant: str) -> None:
    dataset = smaller(cot.DATASET.variant(variant) if variant else cot.DATASET, 6)
    values = [flan_row("one"), flan_row("two") | {"task": 1}, flan_row("one"), "no row", flan_row("one"), "no row"]
    rows = list(convert_rows(dataset, {"zsopt.jsonl": write_lines(tmp_path / "zsopt.jsonl", values)}, 42))
    one, two, *others = (row.id for row in rows if isinstance(row, Conversation))
    assert re.fullmatch("cot_zsopt_[0-9a-f]{16}", one)
    assert one != two
    assert others == [f"{one}~2", f"{one}~3"]
    assert [row.row_id[-2:] == "~2" for row in rows if isinstance(row, BrokenRow)] == [False, True]


def test_cots_paper2023_keeps_the_rows_that_the_originals_script_kept(submixes: dict[str, Path]) -> None:
    random.seed(42)  # the script: seed the process, then per file read all lines and sample where there are too many
    expected = []
    for path in submixes.values():
        examples = [json.loads(line) for line in path.read_text().splitlines()]
        expected += random.sample(examples, k=12) if len(examples) > 12 else examples
    rows = convert_rows(smaller(cot.DATASET.variant("paper2023"), 12), submixes, 42)
    kept = [row.messages[1].content for row in rows if isinstance(row, Conversation)]
    assert sorted(kept) == sorted(example["targets"] for example in expected)
    assert len(kept) == 24


def test_flan_submixes_have_the_papers_proportions() -> None:
    for name in ("submix", "submix_paper2023"):
        dataset = flan_v2.DATASET.variant(name)
        assert dataset.draw is not None
        rows = {source: dataset.draw.parts(source.removesuffix(".jsonl"))[""] for source in dataset.sources}
        assert sum(rows.values()) == 100_000
        by_family = Counter[str]()
        for source, count in rows.items():
            by_family[source.partition("_")[0]] += count
        assert by_family == {"flan": 40_000, "t0": 32_000, "niv2": 20_000, "cot": 5_000, "dialog": 3_000}


def test_flans_submix_paper2023_writes_what_resample_flan_v2_wrote(tmp_path: Path) -> None:
    dataset = smaller(flan_v2.DATASET.variant("submix_paper2023"), 5)
    files = {
        name: write_lines(tmp_path / name, [flan_row(f"{name} {number}") for number in range(20 + len(name))])
        for name in dataset.sources
    }
    random.seed(42)  # the script: per submix, in the order of its table, sample line numbers, then copy these lines
    expected = []
    for path in files.values():
        lines = path.read_text().splitlines()
        sampled = set(random.sample(range(len(lines)), 5))
        expected += [json.loads(line)["targets"] for number, line in enumerate(lines) if number in sampled]
    rows = convert_rows(dataset, files, 42)
    assert [row.messages[1].content for row in rows if isinstance(row, Conversation)] == expected


def test_a_draw_holds_no_more_than_what_it_keeps() -> None:
    def read() -> Iterator[RawRow | BrokenRow]:
        for number in range(30_000):
            yield RawRow(str(number), "x", f"{number} " * 300)

    draws = Draw(stratum=lambda row: row.row_id[-1], parts=lambda stratum: {"": 5})
    tracemalloc.start()
    try:
        assert sum(1 for _ in drawn(read, draws, seed=1, dataset="d")) == 50
        assert sum(1 for _ in drawn(read, replace(draws, sampling="paper2023"), seed=1, dataset="d")) == 50
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20  # the rows together are 50 MB, those kept 0.1 MB


def test_normalize_tells_how_many_rows_it_read_and_how_many_were_not_drawn(
    submixes: dict[str, Path], tmp_path: Path
) -> None:
    with submixes["fsopt.jsonl"].open("a") as stream:
        stream.write('{"inputs": \n')
    out = tmp_path / "out"
    out.mkdir()
    job = Job(
        name="normalize[cot]",
        params=NormalizeParams(dataset="cot", definition=smaller(cot.DATASET, 10)),
        inputs={"raw": tmp_path},
        sources={},
        out=out,
        work=tmp_path / "work",
        publish=lambda metrics: None,
    )
    seen: list[tuple[float, float | None, str]] = []
    ctx = RunContext(
        profile=Profile(),
        settings=read_settings(),
        progress=lambda name, done, total, unit, note="": seen.append((done, total, unit)),
    )
    metrics = NORMALIZE.run(job, ctx)  # type: ignore[arg-type]
    assert metrics is not None
    assert {name: metrics[name] for name in ("rows", "not_drawn", "kept", "dropped")} == {
        "rows": 21,
        "not_drawn": 45,
        "kept": 20,
        "dropped": 1,
    }
    assert seen == [(66, 66, "rows")]
