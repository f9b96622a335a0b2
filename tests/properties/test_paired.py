"""Paired statistics: against scipy's own tests, against enumeration, and laws they owe."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.paired import (
    compare,
    holm,
    mcnemar,
    newcombe,
    paired_difference,
    permutation,
    smallest_difference,
)
from tulu_pipeline.scoring.statistics import clustered_mean

values = st.floats(0, 1, width=32)
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=60)
outcomes = st.lists(st.tuples(st.sampled_from((0.0, 1.0)), st.sampled_from((0.0, 1.0))), min_size=2, max_size=40)


def shows_no_spread(differences) -> bool:
    return np.std(differences) / math.sqrt(max(len(differences) - 1, 1)) < 1e-12


def ids_of(items) -> list[str]:
    return [f"item {index}" for index in range(len(items))]


@given(pairs)
def test_the_paired_interval_is_that_of_the_paired_t_test(both):
    ours, theirs = np.array(both, dtype=float).T
    made = paired_difference(ours, theirs)
    differences = ours - theirs
    if made is None or made.method == "newcombe":
        assert shows_no_spread(differences)
        return
    assert made.value == pytest.approx(differences.mean(), abs=1e-12)
    if differences.std() > 1e-9:  # scipy warns of, and we do not need, an interval of identical differences
        expected = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
        assert (made.low, made.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(st.lists(st.tuples(values, values, st.sampled_from("abcdef")), min_size=2, max_size=60))
def test_the_clustered_interval_is_that_of_the_score_stage(triples):
    ours, theirs, clusters = zip(*triples, strict=True)
    made = paired_difference(ours, theirs, clusters)
    if len(set(clusters)) < 2:
        assert made is None
        return
    expected = clustered_mean([a - b for a, b in zip(ours, theirs, strict=True)], clusters)
    if made is None or made.method == "newcombe":
        assert expected.standard_error < 1e-12
        return
    half_width = stats.t.ppf(0.975, len(set(clusters)) - 1) * expected.standard_error
    assert (made.high - made.low) / 2 == pytest.approx(half_width, abs=1e-9)


@given(pairs)
def test_a_paired_difference_changes_sign_with_the_order(both):
    ours, theirs = zip(*both, strict=True)
    there, back = paired_difference(ours, theirs), paired_difference(theirs, ours)
    if there is None:
        assert back is None
        return
    assert (there.low, there.value, there.high) == pytest.approx((-back.high, -back.value, -back.low), abs=1e-12)


@given(pairs, values)
def test_items_without_a_score_are_left_out(both, value):
    ours, theirs = map(list, zip(*both, strict=True))
    with_undefined = paired_difference([*ours, math.nan, value], [*theirs, value, math.nan])
    assert with_undefined == paired_difference(ours, theirs)


def test_one_item_tells_no_interval():
    assert paired_difference([1.0], [0.0]) is None
    assert paired_difference([1.0, math.nan], [0.0, 0.0]) is None


@given(st.lists(st.tuples(values, values, st.sampled_from("abc")), min_size=2, max_size=40))
@settings(max_examples=20, deadline=None)
def test_a_macro_difference_is_that_of_the_means_of_the_groups_means(triples):
    ours, theirs, groups = zip(*triples, strict=True)
    made = paired_difference(ours, theirs, groups, macro=True)
    if made is None:
        assert shows_no_spread(np.subtract(ours, theirs))
        return

    def macro(scores):
        by_group = {
            wanted: [s for s, group in zip(scores, groups, strict=True) if group == wanted] for wanted in groups
        }
        return np.mean([np.mean(each) for each in by_group.values()])

    assert made.value == pytest.approx(macro(ours) - macro(theirs), abs=1e-9)
    assert made.low - 1e-9 <= made.value <= made.high + 1e-9
    back = paired_difference(theirs, ours, groups, macro=True)
    assert (back.low, back.high) == pytest.approx((-made.high, -made.low), abs=1e-9)


def test_the_interval_of_a_macro_difference_covers_at_its_rate():
    """Three tasks of unlike sizes whose true macro difference is 0.1: about 95 of 100 intervals hold it."""
    draw = np.random.default_rng(7)
    groups = ["a"] * 30 + ["b"] * 60 + ["c"] * 90
    better = np.array([{"a": 0.7, "b": 0.4, "c": 0.4}[group] for group in groups])
    held = 0
    for _ in range(200):
        ours, theirs = (draw.random(180) < better).astype(float), (draw.random(180) < 0.4).astype(float)
        made = paired_difference(ours, theirs, groups, macro=True)
        held += made.low <= 0.1 <= made.high
    assert 0.9 <= held / 200 <= 0.99


def test_groups_without_any_spread_do_not_make_a_difference_certain():
    made = paired_difference([1.0, 1.0, 0.0], [0.0, 0.0, 0.0], ["a", "b", "c"], macro=True)
    assert made.low < 0 < made.high


@pytest.mark.parametrize(("n", "reach"), [(4, 0.490), (20, 0.161), (1000, 0.0038)])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_models_that_are_alike_on_few_items_are_not_known_to_be_alike(n, reach, value):
    made = compare(ids_of(range(n)), [value] * n, [value] * n)
    assert (made.difference.low, made.difference.value, made.difference.high) == pytest.approx(
        (-reach, 0, reach), abs=5e-4
    )
    assert (made.difference.method, made.difference.standard_error, made.difference.clusters) == ("newcombe", None, n)
    assert made.detectable is made.bootstrap is None
    assert made.p == 1


def test_the_same_answers_half_of_them_right_are_not_known_to_be_the_same():
    scores = [0.0, 1.0] * 10
    made = paired_difference(scores, scores)
    assert made.low == pytest.approx(-made.high)
    assert 0.02 < made.high < 0.161


def test_a_model_that_is_right_wherever_the_other_is_wrong_may_be_less_than_all_the_better():
    made = paired_difference([1.0] * 20, [0.0] * 20)
    assert (made.value, made.high) == pytest.approx((1, 1))
    assert 0.7 < made.low < 0.8


@pytest.mark.parametrize("macro", [False, True])
def test_groups_that_show_no_spread_have_the_interval_of_their_items(macro):
    scores, groups = [0.0] * 12, list("aaabbbcccddd")
    made = compare(ids_of(scores), scores, scores, groups, macro=macro)
    plain = paired_difference(scores, scores)
    assert (made.difference.low, made.difference.high) == pytest.approx((plain.low, plain.high))
    assert made.bootstrap is None


@pytest.mark.parametrize("macro", [False, True])
@pytest.mark.parametrize("groups", [None, list("aabb")])
def test_differences_of_shares_that_are_all_alike_tell_no_interval(macro, groups):
    ours, theirs = [0.3, 0.4, 0.5, 0.6], [0.2, 0.3, 0.4, 0.5]  # all 0.1, but for the rounding
    assert paired_difference(ours, theirs, groups, macro=macro) is None
    made = compare(ids_of(ours), ours, theirs, groups, macro=macro)
    assert made.difference is made.bootstrap is made.detectable is None


def test_newcombes_interval_is_the_one_that_was_printed():
    """Complete response before and after consolidation (Cavo et al. 2012), in Fagerland et al. 2017, chapter 8."""
    both, first, second, neither = 59, 6, 16, 80
    ours = np.repeat([1.0, 1.0, 0.0, 0.0], [both, first, second, neither])
    theirs = np.repeat([1.0, 0.0, 1.0, 0.0], [both, first, second, neither])
    assert newcombe(ours, theirs) == pytest.approx((-0.1186, -0.0046), abs=5e-5)


@given(outcomes)
def test_newcombes_interval_holds_the_difference_and_stays_among_what_can_be(both):
    ours, theirs = np.array(both).T
    low, high = newcombe(ours, theirs)
    assert -1 - 1e-9 <= low < ours.mean() - theirs.mean() + 1e-9
    assert ours.mean() - theirs.mean() - 1e-9 < high <= 1 + 1e-9
    assert high - low > 0.01
    assert newcombe(theirs, ours) == pytest.approx((-high, -low), abs=1e-12)


@given(outcomes)
def test_right_and_wrong_are_compared_by_mcnemar_exactly(both):
    ours, theirs = zip(*both, strict=True)
    made = compare(ids_of(both), ours, theirs)
    wins = sum(a > b for a, b in both)
    losses = sum(a < b for a, b in both)
    count = wins + losses
    tail = sum(math.comb(count, k) for k in range(min(wins, losses) + 1))
    assert made.test == "mcnemar"
    assert made.p == pytest.approx(float(min(Fraction(1), Fraction(2 * tail, 2**count))), abs=1e-12)
    assert made.bootstrap is None


@given(st.lists(st.sampled_from((-0.5, -0.25, 0.0, 0.25, 0.75)), min_size=1, max_size=9))
@settings(deadline=None)
def test_the_permutation_test_counts_every_sign(parts):
    sums = [math.fsum(s * abs(p) for s, p in zip(signs, parts, strict=True))
            for signs in itertools.product((-1, 1), repeat=len(parts))]  # fmt: skip
    seen = math.fsum(parts)
    expected = min(1.0, 2 * min(sum(each >= seen for each in sums), sum(each <= seen for each in sums)) / len(sums))
    assert permutation(np.array(parts)) == pytest.approx(expected, abs=1e-12)


def test_mcnemar_and_the_permutation_of_signs_agree_on_right_and_wrong():
    ours, theirs = np.array([1.0] * 9 + [0.0] * 3 + [1.0] * 30), np.array([0.0] * 9 + [1.0] * 3 + [1.0] * 30)
    assert mcnemar(ours, theirs) == pytest.approx(permutation(ours - theirs), abs=1e-12)


@given(outcomes, st.booleans())
@settings(max_examples=30, deadline=None)
def test_two_models_change_places(both, lower_is_better):
    ours, theirs = zip(*both, strict=True)
    there = compare(ids_of(both), ours, theirs, lower_is_better=lower_is_better)
    back = compare(ids_of(both), theirs, ours, lower_is_better=lower_is_better)
    assert (there.only_first, there.only_second) == (back.only_second, back.only_first)
    assert (there.p, there.detectable) == (pytest.approx(back.p), back.detectable and pytest.approx(back.detectable))
    assert there.difference.value == pytest.approx(-back.difference.value)


def test_a_model_is_no_different_from_itself():
    scores = [0.0, 0.5, 1.0] * 5
    made = compare(ids_of(scores), scores, scores)
    assert (made.first - made.second, made.difference, made.p, made.detectable) == (0.0, None, 1.0, None)
    assert made.only_first == made.only_second == ()


def test_whole_clusters_change_signs_together():
    """Twelve subjects; in one alone the models differ, in all of its forty items: one observation, not forty."""
    groups = [f"subject {index // 40}" for index in range(480)]
    theirs = [0.0] * 480
    ours = [1.0] * 40 + [0.0] * 440
    alone = compare(ids_of(ours), ours, theirs)
    together = compare(ids_of(ours), ours, theirs, groups)
    assert alone.p < 1e-9
    assert together.p == 1.0
    assert together.test == "clustered permutation"
    assert together.difference.low < 0 < together.difference.high
    assert together.bootstrap[0] <= 0 < together.bootstrap[1]
    assert together.detectable > 5 * alone.detectable / 2


def test_few_clusters_count_as_none():
    made = compare(ids_of("abcdef"), [1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 0, 0], ["x", "y"] * 3)
    assert made.test == "mcnemar"


def test_judged_items_get_a_paired_bootstrap_near_the_students_interval():
    draw = np.random.default_rng(3)
    ours, theirs = draw.choice([0.0, 0.5, 1.0], 800, p=[0.3, 0.1, 0.6]), draw.choice([0.0, 0.5, 1.0], 800)
    made = compare(ids_of(ours), ours, theirs)
    assert made.test == "permutation"
    assert made.bootstrap == pytest.approx((made.difference.low, made.difference.high), abs=0.005)


def test_items_without_a_score_are_counted_and_left_out():
    made = compare(["a", "b", "c"], [1.0, math.nan, 0.0], [0.0, 1.0, 0.0])
    assert (made.n, made.undefined, made.only_first) == (2, 1, ("a",))
    with pytest.raises(BadInput, match="no item has a score of both"):
        compare(["a"], [math.nan], [1.0])


def test_the_smallest_difference_is_found_four_times_of_five():
    """Sets whose true difference is what `smallest_difference` says: 80 % of their intervals leave out zero."""
    draw = np.random.default_rng(11)
    spread, n = 0.5, 200
    true = smallest_difference(paired_difference(draw.normal(0, spread, 100_000)[:n], np.zeros(n)))
    samples = draw.normal(true, spread, (3_000, n))
    found = np.mean([stats.ttest_1samp(sample, 0).pvalue < 0.05 for sample in samples])
    assert 0.72 < found < 0.88  # the standard error is itself estimated, from 200 items


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_is_the_closed_test_of_bonferroni(p_values):
    """A hypothesis falls when Bonferroni rejects every set of hypotheses that holds it: by enumeration."""
    names = [f"metric {index}" for index in range(len(p_values))]
    by_name = dict(zip(names, p_values, strict=True))
    sets = [each for size in range(1, len(names) + 1) for each in itertools.combinations(names, size)]
    for name, adjusted in holm(by_name).items():
        holding = [each for each in sets if name in each]
        assert adjusted == pytest.approx(max(min(1.0, len(each) * min(by_name[o] for o in each)) for each in holding))
    assert list(holm(by_name)) == names
