"""The table: what it compares, averages, marks, and refuses to fill in."""

import math
from dataclasses import replace

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.reporting.build import Measurement, build_table
from tulu_pipeline.reporting.table import AVERAGE, Score, Table, TableColumn, TableRow, read_table, write_table
from tulu_pipeline.reporting.text import legend

UNTUNED = TableRow(name="base", label="untuned", base_model="base", untuned=True)
TUNED = TableRow(name="base+mix", label="mix", base_model="base", mixture="mix")
OTHER = TableRow(name="base+other", label="other", base_model="base", mixture="other")
GSM = TableColumn(metric="gsm_cot", title="GSM")
MMLU = TableColumn(metric="mmlu_0shot", title="MMLU")
ALPACA = TableColumn(metric="alpaca_eval", title="AlpacaEval", tuned_only=True)


def measured(value: float | None = None, items: list[float] | None = None, **strict: float) -> Measurement:
    """A measurement by `paper` (and `strict`) whose interval is ±0.1."""
    values = {"paper": math.fsum(items) / len(items) if items else value, **strict}
    scores = {
        scorer: Score(
            scorer=scorer, value=each, low=each - 0.1, high=each + 0.1, n=len(items or "x" * 50),
            standard_error=0.05, method="normal",
        )
        for scorer, each in values.items() if each is not None
    }  # fmt: skip
    ids = [str(index) for index in range(len(items or ()))]
    return Measurement(headline="paper", scores=scores, item_ids=ids, item_scores={"paper": items or []})


def table_of(rows: list[TableRow], columns: list[TableColumn], cells: dict, **options) -> Table:
    return build_table(title="t", rows=rows, columns=columns, measured=cells, **options)


def cell(table: Table, row: str, metric: str):
    found = next(each for each in table.rows if each.spec.name == row)
    return next(each for each in found.all_cells() if each.metric == metric)


def test_tuning_raises_or_lowers_against_the_untuned_model_of_the_same_base():
    far = TableRow(name="far", label="untuned", base_model="far", untuned=True)
    table = table_of(
        [UNTUNED, TUNED, OTHER, far],
        [GSM],
        {
            ("base", "gsm_cot"): measured(0.4), ("base+mix", "gsm_cot"): measured(0.5),
            ("base+other", "gsm_cot"): measured(0.3), ("far", "gsm_cot"): measured(0.9),
        },
    )  # fmt: skip
    assert cell(table, "base+mix", "gsm_cot").views["paper"].change.direction == "raised"
    assert cell(table, "base+other", "gsm_cot").views["paper"].change.direction == "lowered"
    assert cell(table, "base", "gsm_cot").views["paper"].change is None
    assert cell(table, "far", "gsm_cot").views["paper"].change is None


def test_a_model_without_an_untuned_one_is_compared_with_nothing():
    table = table_of([TUNED], [GSM], {("base+mix", "gsm_cot"): measured(0.5)})
    assert cell(table, "base+mix", "gsm_cot").views["paper"].change is None


def test_a_change_is_clear_only_when_the_paired_interval_leaves_out_zero():
    base, better = [0.0] * 30 + [1.0] * 10, [0.0] * 10 + [1.0] * 30
    barely = [1.0, *base[1:]]
    table = table_of(
        [UNTUNED, TUNED, OTHER],
        [GSM],
        {
            ("base", "gsm_cot"): measured(items=base), ("base+mix", "gsm_cot"): measured(items=better),
            ("base+other", "gsm_cot"): measured(items=barely),
        },
    )  # fmt: skip
    clear = cell(table, "base+mix", "gsm_cot").views["paper"].change
    assert clear.clear
    assert clear.value == pytest.approx(0.5)
    assert clear.low < clear.value < clear.high
    unclear = cell(table, "base+other", "gsm_cot").views["paper"].change
    assert unclear.direction == "raised"
    assert not unclear.clear


def test_models_asked_different_items_are_not_paired():
    table = table_of(
        [UNTUNED, TUNED],
        [GSM],
        {("base", "gsm_cot"): measured(items=[0.0] * 40), ("base+mix", "gsm_cot"): measured(items=[1.0] * 39)},
    )
    change = cell(table, "base+mix", "gsm_cot").views["paper"].change
    assert (change.low, change.high, change.clear) == (None, None, False)
    assert change.value == pytest.approx(1.0)


def test_an_untuned_model_has_no_alpaca_eval_and_so_no_average():
    table = table_of(
        [UNTUNED, TUNED],
        [GSM, ALPACA],
        {
            ("base", "gsm_cot"): measured(0.2), ("base+mix", "gsm_cot"): measured(0.4),
            ("base+mix", "alpaca_eval"): measured(0.6),
        },
    )  # fmt: skip
    assert cell(table, "base", "alpaca_eval").status == "not_applicable"
    assert cell(table, "base", AVERAGE).status == "not_applicable"
    average = cell(table, "base+mix", AVERAGE).views["paper"]
    assert average.score.value == pytest.approx(0.5)
    assert average.change is None


def test_a_missing_cell_stays_missing_and_takes_its_average_with_it():
    table = table_of(
        [UNTUNED, TUNED],
        [GSM, MMLU],
        {
            ("base", "gsm_cot"): measured(0.2), ("base", "mmlu_0shot"): measured(0.3),
            ("base+mix", "gsm_cot"): None, ("base+mix", "mmlu_0shot"): measured(0.5),
        },
    )  # fmt: skip
    assert cell(table, "base+mix", "gsm_cot").status == "missing"
    assert cell(table, "base+mix", "gsm_cot").views == {}
    assert cell(table, "base+mix", AVERAGE).status == "missing"
    assert cell(table, "base", AVERAGE).status == "scored"
    assert table.missing() == ("base+mix/gsm_cot",)


def test_a_missing_untuned_model_leaves_the_tuned_one_without_a_comparison():
    table = table_of(
        [UNTUNED, TUNED], [GSM], {("base", "gsm_cot"): None, ("base+mix", "gsm_cot"): measured(0.5)}
    )  # fmt: skip
    assert cell(table, "base+mix", "gsm_cot").views["paper"].change is None


def test_a_cell_no_item_of_which_has_a_score_is_undefined_not_zero():
    table = table_of([UNTUNED], [GSM, MMLU], {("base", "gsm_cot"): measured(), ("base", "mmlu_0shot"): measured(0.3)})
    assert cell(table, "base", "gsm_cot").status == "undefined"
    assert cell(table, "base", AVERAGE).status == "missing"


def test_the_best_of_a_column_is_the_highest_printed_value_and_ties_share_it():
    third = TableRow(name="base+third", label="third", base_model="base", mixture="third")
    table = table_of(
        [UNTUNED, TUNED, OTHER, third],
        [GSM],
        {
            ("base", "gsm_cot"): measured(0.1), ("base+mix", "gsm_cot"): measured(0.50001),
            ("base+other", "gsm_cot"): measured(0.5), ("base+third", "gsm_cot"): measured(0.499),
        },
    )  # fmt: skip
    best = [row.spec.name for row in table.rows if row.cells[0].views["paper"].best]
    assert best == ["base+mix", "base+other"]


def test_the_best_of_toxigen_is_the_least():
    toxigen = TableColumn(metric="toxigen", title="ToxiGen", lower_is_better=True)
    table = table_of(
        [UNTUNED, TUNED], [toxigen], {("base", "toxigen"): measured(0.8), ("base+mix", "toxigen"): measured(0.1)}
    )
    assert [row.cells[0].views["paper"].best for row in table.rows] == [False, True]
    change = table.rows[1].cells[0].views["paper"].change
    assert (change.direction, change.better) == ("lowered", True)
    assert any(line.startswith("↓ less is better") for line in legend(table))


def test_safety_columns_are_no_part_of_an_average():
    """Table 8 of the paper averages six benchmarks: ToxiGen's and TruthfulQA's columns stand beside them."""
    toxigen = TableColumn(metric="toxigen", title="ToxiGen", lower_is_better=True, averaged=False)
    cells = {("base", "gsm_cot"): measured(0.2), ("base", "mmlu_0shot"): measured(0.4), ("base", "toxigen"): None}
    table = table_of([UNTUNED], [GSM, MMLU, toxigen], cells)
    assert cell(table, "base", AVERAGE).views["paper"].score.value == pytest.approx(0.3)
    assert "Not part of it: ToxiGen." in legend(table)
    alone = table_of([UNTUNED], [toxigen], {("base", "toxigen"): measured(0.8)})
    assert alone.rows[0].average is None
    assert alone.headings() == ("ToxiGen ↓",)


def test_table_8_counts_a_benchmark_once_however_often_it_is_asked():
    direct = TableColumn(metric="gsm_direct", title="GSM direct", benchmark="gsm")
    chain = TableColumn(metric="gsm_cot", title="GSM CoT", benchmark="gsm")
    mmlu = TableColumn(metric="mmlu_0shot", title="MMLU", benchmark="mmlu")
    cells = {
        ("base", "gsm_direct"): measured(0.1), ("base", "gsm_cot"): measured(0.3), ("base", "mmlu_0shot"): measured(0.6)
    }  # fmt: skip
    for rule, expected in (("benchmarks", 0.4), ("columns", 1 / 3)):
        table = table_of([UNTUNED], [direct, chain, mmlu], cells, average_rule=rule)
        assert cell(table, "base", AVERAGE).views["paper"].score.value == pytest.approx(expected)


def test_a_change_of_a_mean_of_groups_means_is_that_of_the_groups_means():
    """Ten items of one task became right, and one of the ninety of another: half of the macro mean."""
    groups = ["small"] * 10 + ["large"] * 90
    base = replace(measured(items=[0.0] * 100), clusters=groups, macro=True)
    made = replace(measured(value=0.5), item_ids=base.item_ids, clusters=groups, macro=True)
    tuned = replace(made, item_scores={"paper": [1.0] * 10 + [0.0] * 89 + [1.0]})
    table = table_of([UNTUNED, TUNED], [GSM], {("base", "gsm_cot"): base, ("base+mix", "gsm_cot"): tuned})
    change = cell(table, "base+mix", "gsm_cot").views["paper"].change
    assert change.value == pytest.approx(0.5)
    assert 0.49 < change.low <= 0.5 <= change.high < 0.53


def test_a_column_with_one_value_has_no_best():
    table = table_of([TUNED], [GSM], {("base+mix", "gsm_cot"): measured(0.5)})
    assert not cell(table, "base+mix", "gsm_cot").views["paper"].best


def test_where_a_metric_lacks_a_scorer_its_headline_stands_in_and_says_so():
    table = table_of(
        [UNTUNED],
        [GSM, MMLU],
        {("base", "gsm_cot"): measured(0.2, strict=0.3), ("base", "mmlu_0shot"): measured(0.4)},
    )
    assert table.scorers == ("paper", "strict")
    assert cell(table, "base", "gsm_cot").views["strict"].score.value == 0.3
    assert cell(table, "base", "mmlu_0shot").views["strict"].score.scorer == "paper"
    assert table.stand_ins("strict") == ("MMLU",)
    assert table.stand_ins("paper") == ()


def test_a_tuned_model_is_not_compared_across_scorers():
    table = table_of(
        [UNTUNED, TUNED],
        [GSM],
        {("base", "gsm_cot"): measured(0.2), ("base+mix", "gsm_cot"): measured(0.4, strict=0.5)},
    )
    assert cell(table, "base+mix", "gsm_cot").views["strict"].change is None


def test_rows_of_one_base_stand_together_in_the_order_asked_for():
    far = TableRow(name="far", label="untuned", base_model="far", untuned=True)
    rows = [OTHER, far, TUNED, UNTUNED]
    table = table_of(rows, [GSM], {(row.name, "gsm_cot"): measured(0.2) for row in rows})
    assert [row.spec.name for row in table.rows] == ["base+other", "base+mix", "base", "far"]


def test_a_cell_that_nobody_spoke_of_is_an_error():
    with pytest.raises(BadInput, match="base/gsm_cot") as caught:
        table_of([UNTUNED], [GSM], {})
    assert "score:base/gsm_cot" in caught.value.fix


@pytest.mark.parametrize(("rows", "columns"), [([TUNED, TUNED], [GSM]), ([TUNED], [GSM, GSM])])
def test_names_are_unique(rows, columns):
    with pytest.raises(BadInput, match="called"):
        table_of(rows, columns, {("base+mix", "gsm_cot"): measured(0.1)})


def test_a_table_comes_back_from_disk_as_it_was(tmp_path):
    table = table_of(
        [UNTUNED, TUNED],
        [GSM, ALPACA],
        {
            ("base", "gsm_cot"): measured(items=[0.0, 1.0, 1.0]), ("base+mix", "gsm_cot"): measured(items=[1.0] * 3),
            ("base+mix", "alpaca_eval"): None,
        },
        notes=["Tülu | <b>"],
    )  # fmt: skip
    write_table(table, tmp_path / "table.json")
    assert read_table(tmp_path / "table.json") == table


@pytest.mark.parametrize("text", ["", "{}", '{"title": 3}'])
def test_a_file_that_is_no_table_is_named_with_its_fix(tmp_path, text):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(BadInput) as caught:
        read_table(path)
    assert str(path) in caught.value.where
    assert "tulu run" in caught.value.fix
