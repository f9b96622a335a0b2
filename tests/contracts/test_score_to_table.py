"""What the score stage writes is what the table reads, for every benchmark."""

import json
import math

import pytest

from tulu_pipeline.artifacts.json_lines import write_lines
from tulu_pipeline.benchmarks import alpaca_eval, gsm, mmlu
from tulu_pipeline.reporting.build import build_table
from tulu_pipeline.reporting.records import read_measurement
from tulu_pipeline.reporting.table import TableColumn, TableRow
from tulu_pipeline.scoring.metrics import aggregate
from tulu_pipeline.specs.benchmark import ItemScore

SETTINGS = [
    (module.BENCHMARK, setting.metric) for module in (alpaca_eval, gsm, mmlu) for setting in module.BENCHMARK.settings
]


def write(folder, benchmark, metric, values):
    folder.mkdir()
    scores = [
        ItemScore(
            item_id=str(at), group=f"subject {at % 12}", scores={"paper": value, "strict": None if at % 5 else value},
            extracted={"paper": "x"}, flags=("empty",) if at % 7 == 0 else (), gold="x",
        )
        for at, value in enumerate(values)
    ]  # fmt: skip
    write_lines(folder / "items.jsonl", scores)
    (folder / "metrics.json").write_text(json.dumps(aggregate(scores, benchmark, metric)))
    return read_measurement(folder)


@pytest.mark.parametrize(("benchmark", "metric"), SETTINGS, ids=[metric for _, metric in SETTINGS])
def test_the_table_shows_what_the_score_stage_measured(tmp_path, benchmark, metric):
    untuned = write(tmp_path / "untuned", benchmark, metric, [float(at % 4 == 0) for at in range(120)])
    tuned = write(tmp_path / "tuned", benchmark, metric, [float(at % 3 == 0) for at in range(120)])
    table = build_table(
        title="t",
        rows=[
            TableRow(name="base", label="untuned", base_model="base", untuned=True),
            TableRow(name="base+mix", label="mix", base_model="base", mixture="mix"),
        ],
        columns=[TableColumn(metric=metric, title=metric)],
        measured={("base", metric): untuned, ("base+mix", metric): tuned},
    )
    documents = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("untuned", "tuned")]
    for row, document in zip(table.rows, documents, strict=True):
        for scorer, wanted in document["scorers"].items():
            score = row.cells[0].views[scorer].score
            shown = (score.value, score.low, score.high, score.n, score.standard_error, score.method)
            assert shown == tuple(wanted[name] for name in ("value", "low", "high", "n", "standard_error", "method"))
        assert row.cells[0].flags == {"empty": 18}
    change = table.rows[1].cells[0].views["paper"].change
    assert change.value == pytest.approx(1 / 3 - 1 / 4)
    assert change.low < change.value < change.high


def test_only_benchmarks_that_cluster_their_intervals_cluster_the_change(tmp_path):
    clustered = write(tmp_path / "mmlu", mmlu.BENCHMARK, "mmlu_0shot", [float(at % 4 == 0) for at in range(120)])
    independent = write(tmp_path / "gsm", gsm.BENCHMARK, "gsm_cot", [float(at % 4 == 0) for at in range(120)])
    assert len(set(clustered.clusters)) == 12
    assert independent.clusters == ()


def test_each_group_of_items_has_a_value_with_its_interval(tmp_path):
    measurement = write(tmp_path / "mmlu", mmlu.BENCHMARK, "mmlu_0shot", [float(at % 4 == 0) for at in range(120)])
    assert set(measurement.groups) == {f"subject {at}" for at in range(12)}
    for group in measurement.groups.values():
        assert group.n == 10
        assert 0 <= group.low <= group.value <= group.high <= 1
        assert group.low < group.high


def test_a_scorer_that_no_item_is_defined_for_leaves_the_others_standing(tmp_path):
    folder = tmp_path / "score"
    folder.mkdir()
    items = [ItemScore(item_id=str(at), group="", scores={"paper": 1.0, "strict": None}, extracted={}) for at in (0, 1)]
    write_lines(folder / "items.jsonl", items)
    (folder / "metrics.json").write_text(json.dumps(aggregate(items, gsm.BENCHMARK, "gsm_cot")))
    measurement = read_measurement(folder)
    assert set(measurement.scores) == {"paper"}
    assert all(math.isnan(value) for value in measurement.item_scores["strict"])


def test_one_item_has_a_value_without_an_interval(tmp_path):
    measurement = write(tmp_path / "one", alpaca_eval.BENCHMARK, "alpaca_eval", [0.5])
    assert measurement.scores["paper"].low is None
    table = build_table(
        title="t",
        rows=[TableRow(name="r", label="r", base_model="r")],
        columns=[TableColumn(metric="alpaca_eval", title="AlpacaEval")],
        measured={("r", "alpaca_eval"): measurement},
    )
    assert table.rows[0].average.views["paper"].score.low is None
