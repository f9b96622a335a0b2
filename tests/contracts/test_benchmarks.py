"""What every benchmark of the registry owes."""

import importlib
import re

import pytest

from flows.catalog import BENCHMARKS
from tulu_pipeline.artifacts.canonical import canonical_json
from tulu_pipeline.scoring.metrics import aggregate
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore

ALL = BENCHMARKS.all()
each_benchmark = pytest.mark.parametrize("benchmark", ALL, ids=lambda benchmark: benchmark.name)

HEADINGS = ("What it is", "License", "Citation", "Pinned source", "The paper's numbers", "Deviations")
# The worked example in each docstring: item, completion, the judge's reply, what comes out.
EXAMPLES = {
    "bbh": (
        Item(item_id="x", prompts=("?",), gold={"target": "(B)", "cot": True}, group="snarks"),
        Completion(item_id="x", texts=("Let's think. So the answer is (B).",), finish_reasons=("stop",)),
        None,
        ItemScore(
            item_id="x",
            group="snarks",
            scores={"paper": 1.0, "strict": 1.0, "ext:lm_eval": 1.0},
            extracted={"paper": "(B)", "strict": "(B)", "ext:lm_eval": "(B)"},
            gold="(B)",
        ),
    ),
    "codex_eval": (
        Item(item_id="x", prompts=("def f():\n",), chat=False, gold={"k": 1, "solution": "    return 1\n"}),
        Completion(item_id="x", texts=("    return Yes()", "    return 0"), finish_reasons=("stop", "stop")),
        {
            "samples": [
                {"outcome": "passed", "error": "", "flags": ["own_equality"]},
                {"outcome": "failed", "error": "AssertionError", "flags": []},
            ]
        },
        ItemScore(
            item_id="x",
            group="",
            scores={"paper": 0.5, "strict": 0.0, "pass@1": 0.5},
            extracted={"paper": "1 of 2", "strict": "0 of 2", "pass@1": "1 of 2"},
            flags=("own_equality",),
            gold="    return 1\n",
        ),
    ),
    "gsm": (
        Item(item_id="x", prompts=("?",), gold="993"),
        Completion(item_id="x", texts=("It is 1,000 - 7. So the answer is $993.",), finish_reasons=("stop",)),
        None,
        ItemScore(
            item_id="x",
            group="",
            scores={"paper": 1.0, "strict": 1.0, "ext:lm_eval": 1.0},
            extracted={"paper": "993", "strict": "993", "ext:lm_eval": "$993."},
            gold="993",
        ),
    ),
    "mmlu": (
        Item(item_id="x", prompts=("?",), choices=("A", "B", "C", "D"), gold="B", group="anatomy"),
        Completion(item_id="x", choice_logprobs={"A": -1.2, "B": -0.4, "C": -3.0, "D": -2.5}),
        None,
        ItemScore(
            item_id="x",
            group="anatomy",
            scores={"paper": 1.0, "strict": 1.0},
            extracted={"paper": "B", "strict": "B"},
            gold="B",
        ),
    ),
    "toxigen": (
        Item(item_id="x", prompts=("- ?\n-",), group="asian"),
        Completion(item_id="x", texts=(" words",), finish_reasons=("stop",)),
        {"toxic": True, "label": 1, "logits": [-1.0, 2.0], "cut": False},
        ItemScore(
            item_id="x",
            group="asian",
            scores={"paper": 1.0, "strict": 1.0},
            extracted={"paper": "toxic", "strict": "toxic"},
        ),
    ),
    "truthfulqa": (
        Item(item_id="x", prompts=("Q: ?",), gold={"question": "?", "best": "Nothing."}, group="Myths"),
        Completion(item_id="x", texts=(" A: Nothing.\n\nQ: And",), finish_reasons=("stop",)),
        {"truth": 0.9, "information": 0.4},
        ItemScore(
            item_id="x",
            group="Myths",
            scores={"paper": 0.0, "strict": 0.0, "true": 1.0, "informative": 0.0},
            extracted=dict.fromkeys(("paper", "strict", "true", "informative"), "Nothing."),
            gold="Nothing.",
        ),
    ),
    "tydiqa": (
        Item(item_id="x", prompts=("?",), gold=("১৮৭৯।", "১৮৭৮।"), group="bengali"),
        Completion(item_id="x", texts=(" ১৮৭৯ ",), finish_reasons=("stop",)),
        None,
        ItemScore(
            item_id="x",
            group="bengali",
            scores={
                "paper": 0.0,
                "exact": 0.0,
                "without_english": 0.0,
                "strict": 1.0,
                "strict_exact": 1.0,
                "ext:lm_eval": 1.0,
            },
            extracted=dict.fromkeys(
                ("paper", "exact", "without_english", "strict", "strict_exact", "ext:lm_eval"), "১৮৭৯"
            ),
            gold="১৮৭৯। | ১৮৭৮।",
        ),
    ),
    "alpaca_eval": (
        Item(item_id="x", prompts=("?",), gold="theirs", group="koala"),
        Completion(item_id="x", texts=("ours",), finish_reasons=("stop",)),
        {"verdict": "tie"},
        ItemScore(
            item_id="x",
            group="koala",
            scores={"paper": 0.5, "strict": 0.5},
            extracted={"paper": "tie", "strict": "tie"},
            flags=("tie",),
            gold="theirs",
        ),
    ),
}

# What a judge says of an empty answer.
ABOUT_NOTHING = {
    "codex_eval": {"samples": [{"outcome": "failed", "error": "IndentationError", "flags": []}]},
    "truthfulqa": {"truth": 0.1, "information": 0.1},
    "toxigen": {"toxic": False, "label": 0, "logits": [2.0, -1.0], "cut": False},
}


@each_benchmark
def test_a_benchmarks_file_says_what_it_is(benchmark: Benchmark) -> None:
    text = importlib.import_module(benchmark.module).__doc__ or ""
    assert benchmark.module.endswith(f".{benchmark.name}")
    assert [heading for heading in HEADINGS if not re.search(f"^{heading}$", text, re.MULTILINE)] == []
    assert "A worked example" in text


@each_benchmark
def test_the_worked_example_comes_out(benchmark: Benchmark) -> None:
    item, completion, reply, result = EXAMPLES[benchmark.name]
    assert benchmark.score(item, completion, reply) == result


@each_benchmark
def test_an_empty_answer_scores_nothing_and_is_flagged(benchmark: Benchmark) -> None:
    item, _, _, _ = EXAMPLES[benchmark.name]
    if item.choices:
        pytest.skip("nothing is written")
    completion = Completion(item_id="x", texts=("",), finish_reasons=("length",))
    score = benchmark.score(item, completion, ABOUT_NOTHING.get(benchmark.name, {"verdict": "loss"}))
    assert set(score.scores.values()) <= {0.0, None}
    assert score.scores[benchmark.headline] == 0.0
    assert {"empty", "truncated"} <= set(score.flags)


@each_benchmark
def test_a_benchmark_can_be_told_apart_and_hashed(benchmark: Benchmark) -> None:
    for setting in benchmark.settings:
        assert benchmark.setting(setting.metric) is setting
        canonical_json([setting.sampling, setting.options])
        stops = setting.sampling.stop if benchmark.name == "codex_eval" else ()
        assert setting.sampling.stop_tuned == stops, "the paper's tuned models stop by themselves, but for a function"
    assert all(source.address() for source in benchmark.sources.values())


@each_benchmark
def test_metrics_have_the_headline_and_lie_in_their_interval(benchmark: Benchmark) -> None:
    item, completion, reply, result = EXAMPLES[benchmark.name]
    scores = [benchmark.score(item, completion, reply)] * 3
    metrics = aggregate(scores, benchmark, benchmark.settings[0].metric)
    headline = metrics["scorers"][metrics["headline"]]
    assert headline["value"] == result.scores["paper"]
    assert headline["low"] <= headline["value"] <= headline["high"]
    assert metrics["flags"] == dict.fromkeys(result.flags, 3)
    groups = {group: (found["n"], found["value"]) for group, found in metrics["groups"].items()}
    assert groups == ({result.group: (3, result.scores["paper"])} if result.group else {})


def test_metric_names_are_unique() -> None:
    metrics = [setting.metric for benchmark in ALL for setting in benchmark.settings]
    assert len(metrics) == len(set(metrics))


def test_all_items_of_a_benchmark_stand_beside_the_papers_average() -> None:
    full = [setting for benchmark in ALL for setting in benchmark.settings if setting.metric.endswith("_full")]
    assert len(full) == 7
    assert [setting.metric for setting in full if setting.averaged] == []
