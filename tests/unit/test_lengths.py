"""The length analysis: correlations, agreement, and what is said of few models."""

import csv
import dataclasses
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tulu_pipeline.errors import BadInput
from tulu_pipeline.reporting.length_figure import write_length_figure
from tulu_pipeline.reporting.length_page import write_length_page
from tulu_pipeline.reporting.length_text import CSV_FIELDS, lengths_to_csv, lengths_to_markdown
from tulu_pipeline.reporting.lengths import (
    JudgedAnswer,
    LengthAnalysis,
    agreement,
    analyze_lengths,
    correlate,
    correlate_given,
)
from tulu_pipeline.reporting.table import TableRow
from tulu_pipeline.scoring.statistics import clustered_mean, mean, proportion

WINS = (0.0, 0.5, 1.0)


def answer(index: int, win: float | None, false_win: float, tokens: int = 50, characters: int = 200) -> JudgedAnswer:
    return JudgedAnswer(
        item_id=f"i{index}",
        win=win,
        false_win=false_win,
        unique_tokens=tokens,
        reference_unique_tokens=60,
        characters=characters,
    )


def row(name: str) -> TableRow:
    return TableRow(name=name, label=name.upper(), base_model="")


def models(count: int, items: int = 20) -> list[tuple[TableRow, list[JudgedAnswer]]]:
    """Models whose better ones write more, with noise."""
    rng = np.random.default_rng(count)
    made = []
    for number in range(count):
        chance = (number + 1) / (count + 1)
        answers = [
            answer(
                index,
                float(rng.random() < chance),
                float(rng.random() < chance),
                tokens=int(40 + 60 * chance + rng.integers(0, 20)),
                characters=int(200 + 900 * chance + rng.integers(0, 300)),
            )
            for index in range(items)
        ]
        made.append((row(f"m{number}"), answers))
    return made


numbers = st.lists(st.integers(-50, 50), min_size=4, max_size=12)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_correlations_are_scipys(data: st.DataObject) -> None:
    x = data.draw(numbers)
    y = data.draw(st.lists(st.integers(-50, 50), min_size=len(x), max_size=len(x)))
    for kind, theirs in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr)):
        value, low, high, p = correlate(x, y, kind)
        if len(set(x)) == 1 or len(set(y)) == 1:
            assert (value, low, high, p) == (None, None, None, None)
            continue
        assert value == pytest.approx(theirs(x, y).statistic, abs=1e-12)
        assert p is not None
        assert 0 < p <= 1
        if kind == "pearson" and abs(value) < 1 - 1e-9:
            interval = theirs(x, y).confidence_interval(0.95)
            assert (low, high) == pytest.approx(tuple(interval), abs=1e-9)


def test_the_p_of_few_models_counts_their_permutations() -> None:
    """Of the 24 orders of four numbers one has the greatest correlation: 1/24 on each side."""
    assert correlate([1, 2, 3, 4], [1, 2, 4, 9], "pearson")[3] == pytest.approx(2 / 24)
    assert correlate([1, 2, 3, 4], [1, 2, 4, 9], "spearman")[3] == pytest.approx(2 / 24)


def test_the_p_by_permutation_is_near_that_of_students_t_over_many_models() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=60)
    y = 0.25 * x + rng.normal(size=60)
    p = correlate(x.tolist(), y.tolist(), "pearson")[3]
    # 9,999 draws tell p = 0.05 to within 0.01 (four standard errors).
    assert p == pytest.approx(stats.pearsonr(x, y).pvalue, abs=0.01)


def test_spearmans_interval_is_bonett_and_wrights() -> None:
    x, y = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [2, 1, 4, 3, 7, 5, 6, 10, 9, 8]
    value, low, high, _ = correlate(x, y, "spearman")
    assert value is not None
    width = 1.959964 * math.sqrt((1 + value**2 / 2) / 7)
    assert (low, high) == pytest.approx((math.tanh(math.atanh(value) - width), math.tanh(math.atanh(value) + width)))


def test_three_models_have_a_correlation_but_no_interval_and_two_have_neither() -> None:
    value, low, high, p = correlate([1, 2, 3], [1, 2, 4], "pearson")
    assert value == pytest.approx(stats.pearsonr([1, 2, 3], [1, 2, 4]).statistic)
    assert (low, high) == (None, None)
    assert p == pytest.approx(1 / 3)
    assert correlate([1, 2], [1, 2], "pearson") == (None, None, None, None)


def test_a_perfect_correlation_has_no_interval() -> None:
    assert correlate([1, 2, 3, 4, 5], [2, 4, 6, 8, 10], "pearson")[1:3] == (None, None)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*[st.integers(-50, 50)] * 3), min_size=6, max_size=15, unique=True))
def test_partial_correlations_follow_from_the_three_plain_ones(rows: list[tuple[int, int, int]]) -> None:
    x, y, z = (list(each) for each in zip(*rows, strict=True))
    plain = [correlate(*pair, "pearson")[0] for pair in ((x, y), (x, z), (y, z))]
    if None in plain or max(abs(each) for each in plain[1:]) > 0.999:
        return
    xy, xz, yz = plain
    expected = (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))
    value, low, high, p = correlate_given(x, y, z)
    assert value == pytest.approx(expected, abs=1e-6)
    if abs(value) < 1 - 1e-9:
        assert p is not None
        assert 0 <= p <= 1
        assert low is not None
        assert high is not None
        assert low < value < high


def test_a_partial_correlation_of_four_models_is_not_told() -> None:
    assert correlate_given([1, 2, 3, 5], [1, 3, 2, 4], [4, 1, 3, 2]) == (None, None, None, None)


def test_what_a_line_explains_wholly_leaves_nothing_to_correlate() -> None:
    assert correlate_given([1, 2, 3, 4, 5, 6], [3, 1, 4, 1, 5, 9], [2, 4, 6, 8, 10, 12])[0] is None


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(WINS), st.sampled_from(WINS)), min_size=2, max_size=40))
def test_kappa_is_scikit_learns(pairs: list[tuple[float, float]]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    found = agreement(answer(index, win, false_win) for index, (win, false_win) in enumerate(pairs))
    assert found.n == len(pairs)
    assert found.share == proportion([float(win == false_win) for win, false_win in pairs])
    if len({each for pair in pairs for each in pair}) == 1:
        assert found.kappa is None
        return
    ours, theirs = ([WINS.index(pair[side]) for pair in pairs] for side in (0, 1))
    assert found.kappa == pytest.approx(metrics.cohen_kappa_score(ours, theirs), abs=1e-12)
    if found.kappa_low is not None and found.kappa_high is not None:
        assert -1 <= found.kappa_low <= found.kappa_high <= 1


def test_kappa_of_a_known_table() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: 0.4 (Cohen's kappa, the usual textbook table)."""
    cells = [(1.0, 1.0)] * 20 + [(1.0, 0.0)] * 5 + [(0.0, 1.0)] * 10 + [(0.0, 0.0)] * 15
    found = agreement(answer(index, *cell) for index, cell in enumerate(cells))
    assert found.kappa == pytest.approx(0.4)
    assert found.share.value == pytest.approx(0.7)
    assert found.kappa_low is not None
    assert found.kappa_high is not None
    # The large-sample standard error is 0.127 (Fleiss, Cohen and Everitt 1969); a bootstrap of 50 is near it.
    assert (found.kappa_low, found.kappa_high) == pytest.approx((0.4 - 1.96 * 0.127, 0.4 + 1.96 * 0.127), abs=0.05)


def test_answers_to_one_item_are_not_independent() -> None:
    answers = [each for _, model in models(4, items=30) for each in model]
    found = agreement(answers)
    assert found.share == clustered_mean(
        [float(each.win == each.false_win) for each in answers], [each.item_id for each in answers]
    )


def test_an_answer_without_a_verdict_counts_for_the_false_evaluator_alone() -> None:
    answers = [answer(0, 1.0, 1.0), answer(1, 0.0, 1.0), answer(2, None, 0.0)]
    (model,) = analyze_lengths("AlpacaEval", [(row("a"), answers)]).models
    assert (model.n, model.win_rate.n, model.false_win_rate.n, model.agreement.n) == (3, 2, 3, 2)
    assert model.win_rate == mean([1.0, 0.0])
    assert model.false_win_rate.value == pytest.approx(2 / 3)


def test_agreement_of_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="no answer"):
        agreement([answer(0, None, 1.0)])


def test_the_order_of_models_moves_no_correlation() -> None:
    rows = models(7)
    there, back = analyze_lengths("x", rows), analyze_lengths("x", rows[::-1])
    assert [each.name for each in back.models] == [each.name for each in there.models][::-1]
    for ours, theirs in zip(there.correlations, back.correlations, strict=True):
        # p over 5,040 orders is exact.
        for field in ("value", "low", "high", "p_value"):
            assert getattr(ours, field) == pytest.approx(getattr(theirs, field), abs=1e-9)
    assert there.agreement is not None
    assert back.agreement is not None
    assert there.agreement.kappa == pytest.approx(back.agreement.kappa)


def test_scaling_lengths_moves_no_correlation() -> None:
    rows = models(6)
    longer = [
        (
            name,
            [
                answer(int(each.item_id[1:]), each.win, each.false_win, 3 * each.unique_tokens, 5 * each.characters)
                for each in answers
            ],
        )
        for name, answers in rows
    ]
    for ours, theirs in zip(
        analyze_lengths("x", rows).correlations, analyze_lengths("x", longer).correlations, strict=True
    ):
        assert ours.value == pytest.approx(theirs.value, abs=1e-9)
        assert ours.p_value == pytest.approx(theirs.p_value, abs=1e-9)


def test_few_models_are_counted_and_nothing_is_concluded() -> None:
    few, many = (analyze_lengths("AlpacaEval", models(count)) for count in (3, 12))
    assert not few.enough()
    assert many.enough()
    assert "3 models: fewer than 10 show no trend" in lengths_to_markdown(few)
    assert "show no trend" not in lengths_to_markdown(many)


def test_rows_without_a_judge_are_named_not_filled_in() -> None:
    silent = (row("quiet"), [answer(0, None, 1.0)])
    analysis = analyze_lengths("AlpacaEval", [*models(3), silent], left_out=("GONE",))
    assert [model.name for model in analysis.models] == ["m0", "m1", "m2"]
    assert "Left out, for want of one of the two evaluators: GONE, QUIET." in lengths_to_markdown(analysis)


def test_a_model_without_all_verdicts_is_marked_on_the_page_and_in_the_text(tmp_path: Path) -> None:
    (first, answers), *others = models(3)
    answers = [dataclasses.replace(answers[0], win=None), *answers[1:]]
    analysis = analyze_lengths("AlpacaEval", [(first, answers), *others])
    write_length_page("t", analysis, tmp_path)
    said = f"‡ INCOMPLETE: {first.label}: 1 of {len(answers)} answers without a verdict"
    for text in ((tmp_path / "length.html").read_text(), lengths_to_markdown(analysis)):
        assert said in text
        assert text.count("‡") == 2, "the model's win rate, and the note"
    assert "‡" not in lengths_to_markdown(analyze_lengths("AlpacaEval", models(3)))


@pytest.fixture(params=[0, 1, 12], ids=lambda count: f"{count} models")
def analysis(request: pytest.FixtureRequest) -> LengthAnalysis:
    return analyze_lengths("AlpacaEval", models(request.param))


def test_any_number_of_models_can_be_drawn_and_written(analysis: LengthAnalysis, tmp_path: Path) -> None:
    write_length_figure(analysis, tmp_path / "length.png")
    assert (tmp_path / "length.png").read_bytes().startswith(b"\x89PNG")
    lines = list(csv.reader(io.StringIO(lengths_to_csv(analysis))))
    assert lines[0] == list(CSV_FIELDS)
    assert {len(line) for line in lines} == {len(CSV_FIELDS)}
    assert len(lines) == 1 + len(analysis.models)
    json.dumps(analysis.to_json(), allow_nan=False)


def test_a_models_name_is_text_on_the_page(tmp_path: Path) -> None:
    name = "<script>alert(1)</script> $x$ {0}"
    rows = [(TableRow(name="a", label=name, base_model=""), models(1)[0][1])]
    write_length_page("a <b> & {title}", analyze_lengths("AlpacaEval", rows), tmp_path)
    page = (tmp_path / "length.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x$ {0}" in page
    assert "<title>a &lt;b&gt; &amp; {title}</title>" in page


def test_one_analysis_gives_one_picture(tmp_path: Path) -> None:
    analysis = analyze_lengths("AlpacaEval", models(3))
    for name in ("a.png", "b.png"):
        write_length_figure(analysis, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
