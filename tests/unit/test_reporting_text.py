"""Markdown, CSV and terminal: what they print, and that they print the same numbers."""

import csv
import io
import json
import re

import pytest
import rich.console
from fakes.sample_results import COLUMNS, ROWS, write_results
from markdown_it import MarkdownIt
from rich.cells import cell_len

from tulu_pipeline.reporting.build import Measurement, build_table
from tulu_pipeline.reporting.records import read_measurement
from tulu_pipeline.reporting.table import Score, Table, TableRow
from tulu_pipeline.reporting.terminal import render_table
from tulu_pipeline.reporting.text import CSV_FIELDS, GROUP_FIELDS, groups_to_csv, points, to_csv, to_markdown
from tulu_pipeline.scoring.flags import COUNTED_FLAGS


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Table:
    inputs = write_results(tmp_path_factory.mktemp("results"))
    measured = {
        tuple(name.removeprefix("score:").split("/")): folder and read_measurement(folder)
        for name, folder in inputs.items()
        if name.startswith("score:")
    }
    return build_table(
        title="A | <b>title</b>", rows=ROWS, columns=COLUMNS, measured=measured, notes=["capped at *128* <i>tokens</i>"]
    )


def markdown_grids(text: str) -> list[list[list[str]]]:
    """Rows of cell texts of each table, as a Markdown renderer reads them."""
    grids: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            grids.append([])
        elif token.type == "tr_open":
            grids[-1].append([])
        elif token.type == "inline" and token.level >= 4:  # inside th or td
            grids[-1][-1].append("".join(child.content for child in token.children))
    return grids


def records(table: Table) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_markdown_is_a_table_per_scorer_with_one_row_per_model(table):
    *grids, _ = markdown_grids(to_markdown(table))
    assert len(grids) == len(table.scorers) == 2
    for grid in grids:
        assert {len(row) for row in grid} == {1 + len(COLUMNS) + 1}
        assert [row[0] for row in grid] == ["Model", "items", "tiny", *(row.label for row in ROWS)]


def test_markdown_prints_every_value_with_its_interval_and_what_tuning_did(table):
    for scorer, grid in zip(table.scorers, markdown_grids(to_markdown(table))[:-1], strict=True):
        for row, printed in zip(table.rows, grid[3:], strict=True):
            for cell, text in zip(row.all_cells(), printed[1:], strict=True):
                view = cell.views.get(scorer)
                if view is None:
                    assert text == {"missing": "missing", "not_applicable": "–"}[cell.status]
                    continue
                value, half_width, mark = re.fullmatch(r"([\d.]+)†? ±([\d.]+) ?([▲▼△▽]?)", text).groups()
                assert value == points(view.score.value)
                # The printed range holds the interval, but for the rounding to one decimal.
                assert float(value) - float(half_width) <= 100 * view.score.low + 0.1
                assert float(value) + float(half_width) >= 100 * view.score.high - 0.1
                raised = view.change is not None and view.change.value > 0
                lowered = view.change is not None and view.change.value < 0
                assert (mark in ("▲", "△") and bool(mark)) == raised
                assert (mark in ("▼", "▽") and bool(mark)) == lowered


def test_what_was_odd_is_counted_for_every_cell_in_markdown_csv_and_terminal(table):
    printed = {(row[0], row[1]): row[2] for row in markdown_grids(to_markdown(table))[-1][1:]}
    assert printed["tiny / facts", "GSM CoT"] == "no answer found 5, empty 1, truncated 3"
    assert printed["tiny / facts", "AlpacaEval"] == "judge flipped 3, tie 16"
    by_place = {(row["row"], row["metric"]): row for row in records(table) if row["view"] == "paper"}
    counted = by_place["tiny+facts", "gsm_cot"]
    assert [counted[name] for name in (*COUNTED_FLAGS, "undefined", "other_flags")] == ["5", "1", "3", "0", "0", ""]
    assert by_place["tiny+facts", "alpaca_eval"]["other_flags"] == "judge flipped 3, tie 16"
    assert {by_place["tiny+both", "tydiqa_gp"][name] for name in COUNTED_FLAGS} == {""}  # missing: nothing to count
    console = rich.console.Console(file=io.StringIO(), width=200, no_color=True)
    console.print(render_table(table))


def test_a_cell_with_items_that_have_no_score_says_incomplete_and_how_many(tmp_path):
    inputs = write_results(tmp_path)
    folder = inputs["score:tiny+facts/alpaca_eval"]
    lines = (folder / "items.jsonl").read_text().splitlines()
    for index in (3, 8):
        item = json.loads(lines[index])
        lines[index] = json.dumps(item | {"scores": {"paper": None, "strict": None}, "flags": ["unreadable"]})
    (folder / "items.jsonl").write_text("\n".join(lines) + "\n")
    metrics = json.loads((folder / "metrics.json").read_text())
    for scorer in metrics["scorers"].values():
        scorer["n"] = 48
    (folder / "metrics.json").write_text(json.dumps(metrics))
    measured = {
        (row.name, "alpaca_eval"): read_measurement(inputs[f"score:{row.name}/alpaca_eval"]) for row in ROWS[1:]
    }
    table = build_table(title="t", rows=ROWS[1:], columns=COLUMNS[3:], measured=measured)
    note = "INCOMPLETE: tiny / facts, AlpacaEval: 2 of 50 items without a score."
    markdown = to_markdown(table)
    assert note in markdown
    assert markdown.count("INCOMPLETE") == 1
    marked = [line.split("|")[1].strip() for line in markdown.splitlines() if line.startswith("|") and "‡" in line]
    assert marked == ["facts", "facts"]  # once by each scorer
    console = rich.console.Console(file=io.StringIO(), width=200, no_color=True)
    console.print(render_table(table))
    assert note in " ".join(console.file.getvalue().split())
    undefined = [row["undefined"] for row in records(table) if row["metric"] == "alpaca_eval"]
    assert undefined == ["0", "0", "2", "2", "0", "0"]


def test_the_best_of_each_column_is_bold_in_markdown(table):
    line = next(line for line in to_markdown(table).splitlines() if line.startswith("| facts |"))
    assert line.split("|")[2].strip().startswith("**86.0**")


def test_text_from_outside_is_shown_literally_in_markdown(table):
    html = MarkdownIt("commonmark").enable("table").render(to_markdown(table))
    assert "<b>title</b>" not in html
    assert "A | &lt;b&gt;title&lt;/b&gt;" in html
    assert "capped at *128* &lt;i&gt;tokens&lt;/i&gt;" in html


def test_csv_holds_each_cell_once_per_view_with_its_exact_interval(table):
    rows = records(table)
    assert tuple(rows[0]) == CSV_FIELDS
    assert len(rows) == len(ROWS) * (len(COLUMNS) + 1) * len(table.scorers)
    by_place = {(row["row"], row["metric"], row["view"]): row for row in rows}
    for row in table.rows:
        for cell in row.all_cells():
            for scorer, view in cell.views.items():
                printed = by_place[row.spec.name, cell.metric, scorer]
                assert float(printed["percent"]) == pytest.approx(100 * view.score.value, abs=1e-6)
                assert float(printed["low_percent"]) == pytest.approx(100 * view.score.low, abs=1e-6)
                assert float(printed["high_percent"]) == pytest.approx(100 * view.score.high, abs=1e-6)
                assert printed["n"] == ("" if view.score.n is None else str(view.score.n))


def test_rows_without_a_base_model_stand_under_no_heading():
    score = Score(scorer="paper", value=0.5, low=0.4, high=0.6, n=9, standard_error=0.1, method="wilson")
    measured = {("gpt4", "gsm_cot"): Measurement(headline="paper", scores={"paper": score})}
    row = TableRow(name="gpt4", label="GPT-4", base_model="")
    table = build_table(title="t", rows=[row], columns=COLUMNS[1:2], measured=measured)
    (grid,) = markdown_grids(to_markdown(table))
    assert [line[0] for line in grid] == ["Model", "items", "GPT-4"]


def test_three_scorers_stand_side_by_side_and_a_column_without_one_falls_back_visibly():
    def by(*scorers: str) -> Measurement:
        scores = {
            name: Score(scorer=name, value=0.1 * at, low=0.0, high=1.0, n=9, standard_error=0.1, method="wilson")
            for at, name in enumerate(scorers, 1)
        }
        return Measurement(headline="paper", scores=scores)

    measured = {("r", "mmlu_0shot"): by("paper", "strict", "ext:lm_eval"), ("r", "gsm_cot"): by("paper", "strict")}
    row = TableRow(name="r", label="r", base_model="")
    table = build_table(title="t", rows=[row], columns=COLUMNS[:2], measured=measured)
    text = to_markdown(table)
    assert table.scorers == ("paper", "strict", "ext:lm_eval")
    cells = [[cell.split(" ")[0] for cell in grid[-1][1:3]] for grid in markdown_grids(text)]
    assert cells == [["10.0", "10.0"], ["20.0", "20.0"], ["30.0", "10.0†"]]
    assert "† has no `ext:lm_eval` scorer; its own headline scorer stands in: GSM CoT." in text
    console = rich.console.Console(file=io.StringIO(), width=200, no_color=True)
    console.print(render_table(table, "ext:lm_eval"))
    assert "10.0†" in console.file.getvalue()


def test_values_by_group_are_a_csv_of_their_own(table):
    rows = list(csv.DictReader(io.StringIO(groups_to_csv(table))))
    assert tuple(rows[0]) == GROUP_FIELDS
    assert {row["metric"] for row in rows} == {"mmlu_0shot", "tydiqa_gp"}
    facts = {row["group"]: row for row in rows if (row["row"], row["metric"]) == ("tiny+facts", "mmlu_0shot")}
    assert len(facts) == 5
    whole = sum(float(row["percent"]) * int(row["n"]) for row in facts.values()) / 50
    assert whole == pytest.approx(86.0)
    assert all(float(row["low_percent"]) <= float(row["percent"]) <= float(row["high_percent"]) for row in rows)


def test_an_empty_cell_has_a_status_and_no_number_in_csv(table):
    empty = [row for row in records(table) if row["status"] != "scored"]
    assert {(row["row"], row["metric"], row["status"]) for row in empty} == {
        ("tiny", "alpaca_eval", "not_applicable"),
        ("tiny", "average", "not_applicable"),
        ("tiny+both", "tydiqa_gp", "missing"),
        ("tiny+both", "average", "missing"),
    }
    for row in empty:
        assert {row[field] for field in CSV_FIELDS[9:]} == {""}


def test_the_terminal_prints_the_numbers_of_the_csv_without_color_too(table):
    console = rich.console.Console(file=io.StringIO(), width=200, no_color=True)
    console.print(render_table(table))
    text = console.file.getvalue()
    for row in records(table):
        if row["view"] == "paper" and row["status"] == "scored":
            assert points(float(row["percent"]) / 100) in text
    assert "missing" in text
    assert "▲" in text
    assert "\x1b[38" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_in_a_narrow_terminal_the_columns_go_on_below_and_no_number_is_cut(table, width):
    console = rich.console.Console(file=io.StringIO(), width=width, no_color=True)
    console.print(render_table(table))
    text = console.file.getvalue()
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= width
    for row in records(table):
        if row["view"] == "paper" and row["status"] == "scored":
            assert points(float(row["percent"]) / 100) in text
    words = set(text.split())
    assert all(set(heading.split()) <= words for heading in table.headings())
    assert " ".join(text.split()).count("A | <b>title</b>") == 1


def test_the_terminal_colors_raised_blue_and_lowered_orange(table):
    console = rich.console.Console(file=io.StringIO(), width=200, force_terminal=True, color_system="truecolor")
    console.print(render_table(table))
    text = console.file.getvalue()
    assert re.search(r"\x1b\[1;38;2;59;155;220m66\.0", text)
    assert re.search(r"\x1b\[38;2;232;132;44m12\.0", text)
    assert "\x1b[38;2;59;155;220m39.0" not in text  # nothing to compare with


def test_the_terminal_can_show_another_scorer(table):
    console = rich.console.Console(file=io.StringIO(), width=200, no_color=True)
    console.print(render_table(table, "strict"))
    assert "scored as strict" in console.file.getvalue()
    assert "† has no strict scorer" in console.file.getvalue()
