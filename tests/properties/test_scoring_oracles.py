"""Our scorers beside those of others, and the laws that estimates obey."""

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tulu_pipeline.benchmarks import gsm
from tulu_pipeline.errors import BadInput
from tulu_pipeline.judging.false_evaluator import WIN_SHARE, compare
from tulu_pipeline.scoring.multiple_choice import most_likely
from tulu_pipeline.scoring.numbers import last_number
from tulu_pipeline.scoring.statistics import clustered_mean, estimate, macro_mean, mean, proportion
from tulu_pipeline.specs.benchmark import Completion, Item

SHARES = st.lists(st.floats(0, 1), min_size=2, max_size=60)


@given(st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, places=2), st.sampled_from(["", "$"]))
def test_a_written_number_is_read_back(value: Decimal, currency: str) -> None:
    sign, digits = ("-" if value < 0 else ""), f"{abs(value):,}"
    assert last_number(f"First 7, then it is {sign}{currency}{digits}.") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10-3", "3"),
        ("x = -3", "-3"),
        ("the answer is 18.00", "18.00"),
        ("it costs $1,234.50.", "1234.50"),
        ("1,2,3", "3"),
        ("(-5)", "-5"),
        ("a 3-4 split", "4"),
        ("−7 degrees", "-7"),
        ("7 - 12 = -5", "-5"),
        (".5", ".5"),
    ],
)
def test_a_sign_belongs_to_a_number_unless_it_subtracts(text: str, value: str) -> None:
    assert last_number(text) == Decimal(value)


@pytest.mark.parametrize(
    ("text", "gold", "paper", "strict", "harness"),
    [
        ("So the answer is 18.", "18", 1, 1, 1),
        ("So the answer is 18.00.", "18", 0, 1, 0),  # the point is stripped: 1800
        ("So the answer is 3.5.", "35", 1, 0, 0),  # likewise: 35
        ("So the answer is 5.", "-5", 1, 0, 0),  # punctuation hides the sign
        ("So the answer is -5.", "-5", 1, 1, 1),
        ("So the answer is 18...", "18", 1, 1, 0),  # one of the points is ignored
        ("So the answer is 18. And...", "18", 1, 1, 0),  # the points are the last number
        ("That is 12-5", "-5", 1, 0, 1),  # no sign
        ("It is $1,8", "18", 1, 0, 1),
        ("no idea", "18", 0, 0, 0),
        ("", "18", 0, 0, 0),
    ],
)
def test_gsm_keeps_quirks_apart_from_the_strict_score(
    text: str, gold: str, paper: int, strict: int, harness: int
) -> None:
    item = Item(item_id="gsm_0", prompts=("?",), gold=gold)
    completion = Completion(item_id="gsm_0", texts=(text,), finish_reasons=("stop",), completion_tokens=(1,))
    assert gsm.score(item, completion).scores == {
        "paper": paper,
        "strict": strict,
        "ext:lm_eval": harness,
    }


@given(st.dictionaries(st.sampled_from("ABCD"), st.floats(-30, 0), min_size=4, max_size=4))
def test_the_likeliest_letter_is_numpys_argmax(logprobs: dict[str, float]) -> None:
    letters = ("A", "B", "C", "D")
    assert most_likely(logprobs, letters) == letters[int(np.argmax([logprobs[letter] for letter in letters]))]


def test_a_letter_without_probability_is_an_error() -> None:
    with pytest.raises(BadInput, match="no log probability of `D`"):
        most_likely({"A": -1, "B": -2, "C": -3}, ("A", "B", "C", "D"))


@settings(deadline=None)  # the first example imports scipy
@given(n=st.integers(1, 400), data=st.data())
def test_wilson_limits_are_where_the_score_test_just_rejects(n: int, data: st.DataObject) -> None:
    right = data.draw(st.integers(0, n))
    found = proportion([1.0] * right + [0.0] * (n - right))
    assert found.low is not None
    assert found.high is not None
    for limit in (found.low, found.high):
        if 1e-9 < limit < 1 - 1e-9:
            z = abs(right / n - limit) / math.sqrt(limit * (1 - limit) / n)
            assert z == pytest.approx(1.959964, abs=1e-5)
    assert found.low <= found.value <= found.high or found.value in (0, 1)


@settings(deadline=None)  # likewise
@given(SHARES)
def test_items_that_are_their_own_clusters_give_the_plain_standard_error(values: list[float]) -> None:
    alone = clustered_mean(values, [str(index) for index in range(len(values))])
    assert alone.value == mean(values).value
    assert alone.standard_error == pytest.approx(mean(values).standard_error, abs=1e-12)
    assert mean(values).standard_error == pytest.approx(np.std(values, ddof=1) / math.sqrt(len(values)), abs=1e-12)


@settings(deadline=None)  # likewise
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abc")), min_size=4, max_size=30))
def test_clusters_add_every_covariance_inside_them(pairs: list[tuple[float, str]]) -> None:
    values, clusters = [value for value, _ in pairs], [cluster for _, cluster in pairs]
    count = len(set(clusters))
    if count < 2:
        with pytest.raises(BadInput):
            clustered_mean(values, clusters)
        return
    residuals = np.array(values) - np.mean(values)
    same = np.array(clusters)[:, None] == np.array(clusters)[None, :]
    variance = (np.outer(residuals, residuals) * same).sum() * count / (count - 1) / len(values) ** 2
    assert clustered_mean(values, clusters).standard_error == pytest.approx(math.sqrt(max(variance, 0)), abs=1e-7)


def test_copies_inside_a_cluster_narrow_no_interval() -> None:
    values = [float(index % 2) for index in range(40)]
    once = estimate(values, [str(index) for index in range(40)], proportions=True)
    copied = estimate([each for each in values for _ in range(9)], [str(i) for i in range(40) for _ in range(9)],
                      proportions=True)  # fmt: skip
    assert copied.method == "clustered"
    assert copied.standard_error == pytest.approx(once.standard_error)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("clusters", [None, [str(number) for number in range(40)]], ids=["alone", "in clusters"])
def test_values_that_show_no_spread_have_an_interval_all_the_same(value: float, clusters: list[str] | None) -> None:
    found = estimate([value] * 40, clusters, proportions=False)
    assert found == proportion([value] * 40)
    assert (found.low, found.high) == pytest.approx(sorted((value, abs(value - 0.08762))), abs=1e-4)


@given(st.text(max_size=30), st.text(max_size=30))
def test_the_win_rate_of_two_is_one_minus_that_of_the_other_way_round(ours: str, theirs: str) -> None:
    def encode(text: str) -> list[int]:
        return [-1, *text.encode()]

    there, back = compare(ours, theirs, encode), compare(theirs, ours, encode)
    assert WIN_SHARE[there.verdict] == 1 - WIN_SHARE[back.verdict]
    assert (there.unique_tokens > there.reference_unique_tokens) == (there.verdict == "win")
    assert there.unique_tokens == 1 + len(set(ours.encode())), "BOS counts"


@given(st.lists(st.lists(st.integers(0, 1).map(float), min_size=1, max_size=6), min_size=1, max_size=5))
def test_a_macro_mean_is_the_mean_of_the_groups_means(groups: list[list[float]]) -> None:
    values = [value for group in groups for value in group]
    names = [str(index) for index, group in enumerate(groups) for _ in group]
    found = macro_mean(values, names)
    assert found.value == pytest.approx(math.fsum(math.fsum(group) / len(group) for group in groups) / len(groups))
    if found.low is not None and found.high is not None:
        assert 0 <= found.low <= found.high <= 1


def test_a_macro_means_interval_covers_what_it_estimates() -> None:
    draw = np.random.default_rng(0)
    shares = [0.2, 0.5, 0.9]
    covered = 0
    for _ in range(60):
        values = [float(value) for share in shares for value in draw.random(30) < share]
        found = macro_mean(values, [str(group) for group in range(3) for _ in range(30)])
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= math.fsum(shares) / 3 <= found.high
        wanted = math.sqrt(sum(np.var(values[30 * group : 30 * group + 30]) / 30 for group in range(3))) / 3
        assert found.standard_error == pytest.approx(wanted, rel=0.1)
    assert covered >= 52
