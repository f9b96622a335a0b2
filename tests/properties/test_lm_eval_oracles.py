"""GSM's and BBH's scorers beside lm-evaluation-harness: its filters and its metric, set up as its tasks' files say."""

import random
import re
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml
from hypothesis import example
from hypothesis import strategies as st
from oracle_examples import compared

from tulu_pipeline.benchmarks import bbh, gsm
from tulu_pipeline.scoring.exact_match import exact_match
from tulu_pipeline.specs.benchmark import Completion, Item

# Texts in which numbers, signs and separators are frequent.
NUMBERS = st.lists(
    st.sampled_from(
        ["1", "20", ",", ".", "-", "+", " ", "$", "So the answer is ", "18.00", "\n", "٣", "x", "1,000", "%", "#### "]
    ),
    max_size=12,
).map("".join)
ANNOUNCEMENTS = st.lists(
    st.sampled_from(
        ["So ", "the answer is ", "The answer is ", "(B)", ".", " ", "\n", "-3", "] )", "x", "the answer is"]
    ),
    max_size=10,
).map("".join)
# The paper's scorers as settings of the harness: a pattern, what stands for no match, and what the metric ignores.
PAPERS_METRIC = {"ignore_case": True, "ignore_punctuation": True}
Scorer = Callable[[str, str], tuple[str, float]]


@cache
def harness_task(path: str, name: str | None) -> Scorer:
    """What the harness extracts from a text, and how it scores that against a gold answer, in one of its tasks.

    Args:
        path: of the task's file, or of the file that the tasks of its kind include.
        name: of the filters; None where the task has none, and the text is taken as it stands.
    """
    config = yaml.safe_load((Path(lm_eval.__file__).parent / "tasks" / path).read_text(encoding="utf-8"))
    steps = next(each["filter"] for each in config["filter_list"] if each["name"] == name) if name else []
    (metric,) = config["metric_list"]
    assert metric["metric"] == "exact_match"
    ignored = {key: value for key, value in metric.items() if key not in {"metric", "aggregation", "higher_is_better"}}
    return harness(steps or [{"function": "take_first"}], ignored)


def harness(steps: list[dict[str, Any]], ignored: dict[str, Any]) -> Scorer:
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_metric
    from lm_eval.filters import build_filter_ensemble

    parts = [(step["function"], {key: step[key] for key in step if key != "function"} or None) for step in steps]
    ensemble, metric = build_filter_ensemble("it", parts), get_metric("exact_match")

    def scored(text: str, gold: str) -> tuple[str, float]:
        request = Instance(request_type="generate_until", doc={}, arguments=("", {}), idx=0, resps=[text])
        ensemble.apply([request])
        taken = request.filtered_resps["it"]
        return taken, float(metric(predictions=[taken], references=[gold], **ignored)["exact_match"])

    return scored


def papers(pattern: str, otherwise: str, which: int = 0) -> Scorer:
    steps = [{"function": "regex", "regex_pattern": pattern, "group_select": which, "fallback": otherwise}]
    return harness([*steps, {"function": "take_first"}], PAPERS_METRIC)


def gsm_scores(text: str, gold: str) -> dict[str, tuple[str, float]]:
    """The paper's and the harness's, by the harness's code."""
    without_commas = re.sub(r"(\d),(\d)", r"\1\2", text)
    return {
        "paper": papers(r"[-+]?\d*\.\d+|\d+", text, -1)(without_commas, gold),
        "ext:lm_eval": harness_task("gsm8k/gsm8k-cot.yaml", "flexible-extract")(text, gold),
    }


def bbh_scores(text: str, gold: str, *, cot: bool) -> dict[str, tuple[str, float]]:
    """Likewise. White space around a text is dropped: what the harness gets of it depends on its engine."""
    kind = ("bbh/cot_fewshot/_cot_fewshot_template_yaml", "get-answer")
    task = harness_task(*kind) if cot else harness_task("bbh/fewshot/_fewshot_template_yaml", None)
    return {
        "paper": papers(r"[t|T]he answer is (.*?)\.", text.strip())(text, gold),
        "ext:lm_eval": task(text if cot else text.strip(), gold),
    }


def ours(module: Any, gold: Any, text: str) -> dict[str, tuple[str, float]]:
    return scored_by(module, Item(item_id="x", prompts=("?",), gold=gold), text)


def scored_by(module: Any, item: Item, text: str) -> dict[str, tuple[str, float]]:
    completion = Completion(item_id=item.item_id, texts=(text,), finish_reasons=("stop",), completion_tokens=(1,))
    found = module.score(item, completion)
    return {scorer: (found.extracted[scorer], found.scores[scorer]) for scorer in ("paper", "ext:lm_eval")}


@compared(
    prediction=st.text(max_size=12) | NUMBERS,
    reference=st.text(max_size=12) | NUMBERS,
    ignore_case=st.booleans(),
    ignore_punctuation=st.booleans(),
)
@example(prediction="-5", reference="5.", ignore_case=True, ignore_punctuation=True)
@example(prediction="a\0", reference="a", ignore_case=False, ignore_punctuation=False)
@example(prediction="a\0!", reference="a", ignore_case=False, ignore_punctuation=True)
@example(prediction="ẞ", reference="ß", ignore_case=True, ignore_punctuation=False)
def test_exact_match_is_that_of_hugging_face_evaluate(
    prediction: str, reference: str, ignore_case: bool, ignore_punctuation: bool
) -> None:
    from lm_eval.api.metrics import exact_match_hf_evaluate

    theirs = exact_match_hf_evaluate(
        [prediction], [reference], ignore_case=ignore_case, ignore_punctuation=ignore_punctuation
    )
    found = exact_match(prediction, reference, ignore_case=ignore_case, ignore_punctuation=ignore_punctuation)
    assert found == bool(theirs["exact_match"])


@compared(text=NUMBERS | st.text(max_size=20), gold=st.integers(-2_000, 2_000) | st.sampled_from(["18.00", "0.5"]))
@example(text="18.$", gold=18)
@example(text="#### 18", gold=18)
@example(text="-$5,", gold=-5)
def test_gsms_scores_are_those_of_lm_evals_filters_and_metric(text: str, gold: int | str) -> None:
    assert ours(gsm, str(gold), text) == gsm_scores(text, str(gold))


@compared(
    text=ANNOUNCEMENTS | st.text(max_size=20),
    gold=st.sampled_from(["(B)", "-3", "x", "True", "] )"]),
    cot=st.booleans(),
)
def test_bbhs_scores_are_those_of_lm_evals_filters_and_metric(text: str, gold: str, cot: bool) -> None:
    assert ours(bbh, {"target": gold, "cot": cot}, text) == bbh_scores(text, gold, cot=cot)


# What models write around a number: words, money, units, several numbers, signs, separators, marks, other scripts.
AROUND_A_NUMBER = (
    "So the answer is {}.", "The answer is {}", "{}", " {} ", "#### {}", "So 3 + 4 = 7, and the answer is ${}.",
    "€{}", "$ {}", "{}%", "{} apples", "{} km/h.", "{}.00", "{}.0 dollars", "{}...", "{}. And so on...", "**{}**",
    "\\boxed{{{}}}", "{} (and not 5)", "5, no: {}", "1/2 of it is {}", "+{}", "-{}", "−{}", "(-{})", "10-{}", "{},",
    "{}, {}", "The answer is {}.\nThe answer is 7.", "{}e3", "x{}", "no. {}!", "{}\u00a0€", "٣ {} ٤",
)  # fmt: skip
WITHOUT_A_NUMBER = ("", " ", "None", "eighteen", "...", "$", "So the answer is unknown.", "٣", "-", "\0")
AROUND_AN_ANSWER = (
    "So the answer is {}.", "the answer is {}", "The answer is {}.", "{}", " {} ", "{}.", "So the answer is: {}.",
    "I think so. Thus the answer is {}. The answer is (A).", "So the answer is {}.\nQ: what", "The answer is **{}**.",
    "so the answer is {}, of course", "THE ANSWER IS {}.", "the answer is {}. So the answer is {}.", "{} is it.",
    "the answer is\n{}.", "the answer is ({}).", "So the answer is {} .", "So the answer is {}\u3002",
)  # fmt: skip
WITHOUT_AN_ANSWER = ("", " ", "None", "the answer is ", "So the answer is .", "yes", "(", "\0")


def written(number: Decimal, draw: random.Random) -> str:
    """The number, another one or the number in another form, as people write it."""
    other = draw.choice([number] * 4 + [number + 1, -number, number * 10, number + Decimal("0.5"), number / 10])
    text = draw.choice(["{:f}", "{:f}", "{:,f}", "{:.2f}", "{:,.2f}", "{:.0f}"]).format(other)
    return text[::-1] if draw.random() < 0.05 else text


@pytest.mark.realdata
def test_on_predictions_made_of_gsms_answers_nothing_differs(mirror: Path) -> None:
    draw = random.Random(0)
    setting = gsm.BENCHMARK.setting("gsm_cot_full")
    seen: Counter[tuple[str, float]] = Counter()
    for item in gsm.read_items(gsm.BENCHMARK.files(mirror / "eval/gsm8k"), setting):
        for _ in range(2):
            number = written(Decimal(item.gold), draw)
            text = draw.choice([*AROUND_A_NUMBER, *WITHOUT_A_NUMBER]).format(number, number)
            found = scored_by(gsm, item, text)
            assert found == gsm_scores(text, item.gold), text
            seen.update((scorer, value) for scorer, (_, value) in found.items())
    assert sum(seen.values()) == 2 * 2 * 1_319
    assert min(seen.values()) > 400, "predictions that are all right, or all wrong, compare nothing"


@pytest.mark.realdata
@pytest.mark.parametrize("metric", ["bbh_direct_full", "bbh_cot_full"])
def test_on_predictions_made_of_bbhs_answers_nothing_differs(metric: str, mirror: Path) -> None:
    draw = random.Random(1)
    setting = bbh.BENCHMARK.setting(metric)
    items = list(bbh.read_items(bbh.BENCHMARK.files(mirror / "eval/bbh"), setting))
    asked = draw.sample(items, 2_000)
    assert len({item.group for item in asked}) == 27
    seen: Counter[tuple[str, float]] = Counter()
    for item in asked:
        target = item.gold["target"]
        other = draw.choice(
            [target] * 4 + [target.lower(), target.strip("()"), f"{target}.", draw.choice(items).gold["target"]]
        )
        text = draw.choice([*AROUND_AN_ANSWER, *WITHOUT_AN_ANSWER]).format(other, other)
        found = scored_by(bbh, item, text)
        assert found == bbh_scores(text, target, cot=bool(setting.options["cot"])), text
        seen.update((scorer, value) for scorer, (_, value) in found.items())
    assert sum(seen.values()) == 2 * 2_000
    assert min(seen.values()) > 50, "predictions that are all right, or all wrong, compare nothing"
