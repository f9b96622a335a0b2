"""`tulu compare`: what it finds, what it prints, what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.processes import tulu
from fakes.sample_results import write_results, write_score

from tulu_pipeline.benchmarks import bbh
from tulu_pipeline.errors import BadInput
from tulu_pipeline.reporting.comparison import Pair, compare_models
from tulu_pipeline.reporting.records import read_measurement
from tulu_pipeline.scoring.metrics import aggregate
from tulu_pipeline.specs.benchmark import ItemScore


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    made = write_results(tmp_path_factory.mktemp("results"))
    return {name.removeprefix("score:"): folder for name, folder in made.items() if name.startswith("score:")}


def pair(folders: dict[str, Path], metric: str, **options) -> Pair:
    first, second = (read_measurement(folders[f"tiny+{row}/{metric}"]) for row in ("arithmetic", "facts"))
    return Pair(metric=metric, title=metric, first=first, second=second, **options)


def right(folder: Path) -> set[str]:
    items = map(json.loads, (folder / "items.jsonl").read_text().splitlines())
    return {item["item_id"] for item in items if item["scores"]["paper"] == 1}


def test_each_metric_is_compared_and_p_values_know_of_the_others(folders):
    pairs = [pair(folders, metric) for metric in ("mmlu_0shot", "gsm_cot", "alpaca_eval")]
    made = compare_models("arithmetic", "facts", pairs)
    by_metric = {each.metric: each for each in made.metrics}
    assert [each.result.test for each in made.metrics] == ["mcnemar", "mcnemar", "permutation"]
    assert sorted(each.p_holm / each.result.p for each in made.metrics)[-1] == pytest.approx(3)
    gsm = by_metric["gsm_cot"].result
    ours, theirs = right(folders["tiny+arithmetic/gsm_cot"]), right(folders["tiny+facts/gsm_cot"])
    assert (set(gsm.only_first), set(gsm.only_second)) == (ours - theirs, theirs - ours)
    assert gsm.first - gsm.second == pytest.approx((len(ours) - len(theirs)) / 50)
    assert gsm.difference.low < gsm.first - gsm.second < gsm.difference.high


def test_the_difference_is_the_change_that_the_table_shows(folders):
    from tulu_pipeline.reporting.build import build_table
    from tulu_pipeline.reporting.table import TableColumn, TableRow

    rows = (
        TableRow(name="facts", label="f", base_model="tiny", untuned=True),
        TableRow(name="arithmetic", label="a", base_model="tiny"),
    )
    for metric in ("mmlu_0shot", "alpaca_eval"):
        both = pair(folders, metric)
        measured = {("arithmetic", metric): both.first, ("facts", metric): both.second}
        table = build_table(title="t", rows=rows, columns=[TableColumn(metric=metric, title="m")], measured=measured)
        change = table.rows[1].cells[0].views["paper"].change
        found = compare_models("a", "f", [both]).metrics[0].result.difference
        assert (change.low, change.high) == pytest.approx((found.low, found.high))


def test_a_mean_of_tasks_is_compared_task_by_task(tmp_path):
    def folder(name: str, odd: float) -> Path:
        items = [
            ItemScore(item_id=f"{task}/{at}", group=task, scores={"paper": odd if at % 3 else 1.0}, extracted={})
            for task, count in (("small", 6), ("large", 60))
            for at in range(count)
        ]
        write_score(items, "bbh_cot", tmp_path / name)
        (tmp_path / name / "metrics.json").write_text(json.dumps(aggregate(items, bbh.BENCHMARK, "bbh_cot")))
        return tmp_path / name

    first, second = (read_measurement(folder(name, odd)) for name, odd in (("one", 1.0), ("other", 0.0)))
    result = compare_models("one", "other", [Pair(metric="m", title="m", first=first, second=second)]).metrics[0].result
    assert (result.first, result.second) == (pytest.approx(1), pytest.approx(1 / 3))
    assert result.test == "permutation"
    assert result.difference.method == "stratified"


def test_less_is_better_turns_who_did_an_item_better_but_not_the_difference(folders):
    plain = compare_models("a", "f", [pair(folders, "gsm_cot")]).metrics[0].result
    turned = compare_models("a", "f", [pair(folders, "gsm_cot", lower_is_better=True)]).metrics[0].result
    assert (turned.only_first, turned.only_second) == (plain.only_second, plain.only_first)
    assert turned.difference == plain.difference


def test_the_order_of_the_items_is_of_no_importance(folders, tmp_path):
    lines = (folders["tiny+facts/gsm_cot"] / "items.jsonl").read_text().splitlines()
    (tmp_path / "items.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    (tmp_path / "metrics.json").write_bytes((folders["tiny+facts/gsm_cot"] / "metrics.json").read_bytes())
    straight = pair(folders, "gsm_cot")
    turned = Pair(metric="gsm_cot", title="", first=straight.first, second=read_measurement(tmp_path))
    assert (
        compare_models("a", "f", [turned]).metrics[0].result == compare_models("a", "f", [straight]).metrics[0].result
    )


def test_different_items_are_refused_by_name(folders, tmp_path):
    write_results(tmp_path, items=52)
    more = read_measurement(tmp_path / "tiny+facts" / "gsm_cot" / "score")
    both = Pair(metric="gsm_cot", title="", first=pair(folders, "gsm_cot").first, second=more)
    with pytest.raises(BadInput, match=r"different items: 2 only of facts \(gsm/50, gsm/51\)"):
        compare_models("arithmetic", "facts", [both])


def test_another_scorer_compares_and_one_that_is_not_there_is_an_error(folders):
    pairs = [pair(folders, "gsm_cot"), pair(folders, "tydiqa_gp")]
    made = compare_models("a", "f", pairs, scorer="strict")
    assert [each.scorer for each in made.metrics] == ["strict", "paper"]
    assert made.metrics[0].result != compare_models("a", "f", pairs).metrics[0].result
    with pytest.raises(BadInput, match="no metric has a scorer `lax`"):
        compare_models("a", "f", pairs, scorer="lax")


def test_a_number_of_all_items_together_compares_nobody_and_the_error_says_so(folders):
    both = pair(folders, "gsm_cot")
    adjusted = replace(both.first.scores["paper"], scorer="lc_minimal")
    first, second = (
        replace(each, scores={**each.scores, "lc_minimal": adjusted}) for each in (both.first, both.second)
    )
    with pytest.raises(BadInput, match="`lc_minimal` is a number of all items together") as error:
        compare_models("a", "f", [replace(both, first=first, second=second)], scorer="lc_minimal")
    assert error.value.fix.endswith("compare by one of: paper, strict")


def test_the_command_compares_two_folders_of_scores(folders, tmp_path):
    words = ("compare", str(folders["tiny+arithmetic/gsm_cot"]), str(folders["tiny+facts/gsm_cot"]))
    done = tulu(*words, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (metric,) = json.loads(done.stdout)["metrics"]
    assert metric["result"]["n"] == 50
    assert metric["p_holm"] == metric["result"]["p"] < 0.001
    printed = tulu(*words, cwd=tmp_path).stdout
    for wanted in ("GSM CoT", "66.0", "+62.0", "+46.9 to +77.1", "< 0.001", "McNemar, exact", "only A: gsm/0"):
        assert wanted in " ".join(printed.split()), printed


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("tiny", "tiny+facts"), "`tiny` is no folder with a `metrics.json`"),
        (("tiny", "tiny+fact", "--experiment", "demo"), "no row named `tiny+fact`"),
        (("tiny", "score[tiny+*/gsm_cot]", "--experiment", "demo"), "is of 2 rows"),
        (("tiny", "tiny+facts", "--experiment", "demo", "--metric", "gsm_cott"), "no metric named `gsm_cott`"),
        (("tiny", "tiny+facts", "--experiment", "demo"), "tiny has not been scored and tiny+facts has not been scored"),
    ],
)
def test_the_command_says_what_it_cannot_compare(tmp_path, words, what):
    done = tulu("compare", *words, cwd=tmp_path)
    assert done.returncode != 0
    assert what in done.stderr
    assert "Traceback" not in done.stderr
