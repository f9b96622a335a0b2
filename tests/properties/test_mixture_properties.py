"""Weights divide a total; the shares follow from the weights, not from where a component stands."""

import dataclasses
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.mixture import Component, Mixture, single

WEIGHTS = st.one_of(st.integers(1, 1000).map(float), st.floats(0.01, 100.0), st.sampled_from([0.1, 0.2, 0.3, 0.7]))
PARTS = st.lists(st.tuples(WEIGHTS, st.integers(1, 4)), min_size=1, max_size=6)


def weighted(parts: list[tuple[float, int]], total: int) -> Mixture:
    components = tuple(
        Component(dataset=f"d{number}", weight=weight, repeat=repeat) for number, (weight, repeat) in enumerate(parts)
    )
    try:
        return Mixture(name="m", components=components, total=total)
    except BadInput as error:
        assume("none is left" not in error.what)
        raise


@given(parts=PARTS, total=st.integers(1, 100_000))
def test_an_epoch_has_the_total_less_what_repeats_cannot_divide(parts: list[tuple[float, int]], total: int) -> None:
    mixture = weighted(parts, total)
    seen = [cap * part.repeat for cap, part in zip(mixture.caps(), mixture.components, strict=True) if cap is not None]
    assert len(seen) == len(parts)
    assert 0 <= total - sum(seen) <= sum(repeat - 1 for _, repeat in parts)
    for part, times in zip(mixture.components, seen, strict=True):
        share = total * (part.weight or 0) / sum(weight for weight, _ in parts)
        assert share - part.repeat - 1e-6 < times < share + 1 + 1e-6


@given(parts=PARTS, total=st.integers(1, 100_000), data=st.data())
def test_shares_do_not_depend_on_the_order_of_the_components(
    parts: list[tuple[float, int]], total: int, data: st.DataObject
) -> None:
    mixture = weighted(parts, total)
    shuffled = dataclasses.replace(mixture, components=tuple(data.draw(st.permutations(mixture.components))))
    of = {part.dataset: cap for part, cap in zip(mixture.components, mixture.caps(), strict=True)}
    assert {part.dataset: cap for part, cap in zip(shuffled.components, shuffled.caps(), strict=True)} == of


@given(parts=PARTS, total=st.integers(1, 10_000), factor=st.sampled_from([2, 5, 10]))
def test_only_the_proportions_of_weights_count(parts: list[tuple[float, int]], total: int, factor: int) -> None:
    whole = [(float(int(weight) + 1), repeat) for weight, repeat in parts]
    scaled = [(weight * factor, repeat) for weight, repeat in whole]
    assert weighted(whole, total).caps() == weighted(scaled, total).caps()


@given(weight=st.integers(1, 9), total=st.integers(2, 10_000))
def test_equal_weights_differ_by_at_most_one(weight: int, total: int) -> None:
    caps = weighted([(float(weight), 1)] * 3, max(3, total)).caps()
    assert max(cap or 0 for cap in caps) - min(cap or 0 for cap in caps) <= 1


def test_weights_written_as_decimals_are_those_decimals() -> None:
    assert weighted([(0.1, 1), (0.3, 1)], 4000).caps() == (1000, 3000)
    assert weighted([(0.1, 1), (0.2, 1), (0.7, 1)], 10).caps() == (1, 2, 7)


def test_a_cap_stays_what_it_is() -> None:
    parts = (Component(dataset="a", cap=5, repeat=3), Component(dataset="b"))
    assert Mixture(name="m", components=parts).caps() == (5, None)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"weight": 0.0}, "the weight is 0.0"),
        ({"weight": float("nan")}, "the weight is nan"),
        ({"weight": float("inf")}, "the weight is inf"),
        ({"weight": 1.0, "cap": 5}, "both a weight and a cap"),
        ({"repeat": 0}, "repeat is 0"),
        ({"languages": "en"}, "languages is a str"),
        ({"languages": ("eng",)}, "`eng` is no language code"),
        ({"languages": ("EN",)}, "`EN` is no language code"),
        ({"licenses": "MIT"}, "licenses is a str"),
        ({"licenses": ("MIT", "")}, "a license is empty"),
    ],
)
def test_a_component_that_cannot_be_meant_is_refused(values: dict[str, object], what: str) -> None:
    with pytest.raises(BadInput, match=what) as caught:
        Component(dataset="alpaca", **values)  # type: ignore[arg-type]
    assert caught.value.where == "component `alpaca`"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("weights", "total", "what"),
    [
        ((1.0, None), 10, "some components have a weight and some have none"),
        ((1.0, 1.0), None, "weights and `total` go together"),
        ((None, None), 10, "weights and `total` go together"),
        ((1.0, 1.0), 0, "the total is 0"),
        ((1.0, 1.0), -5, "the total is -5"),
        ((1000.0, 1.0), 10, "of 10 conversations none is left for `d1`"),
    ],
)
def test_weights_that_do_not_fit_together_are_refused(
    weights: tuple[float | None, ...], total: int | None, what: str
) -> None:
    parts = tuple(Component(dataset=f"d{number}", weight=weight) for number, weight in enumerate(weights))
    with pytest.raises(BadInput, match=what):
        Mixture(name="m", components=parts, total=total)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"cap": 2.5}, "the cap is 2.5"),
        ({"cap": True}, "the cap is True"),
        ({"repeat": 1.5}, "repeat is 1.5"),
        ({"weight": "1"}, "the weight is '1'"),
        ({"weight": True}, "the weight is True"),
        ({"deduplicate": "nearly"}, "deduplicate is 'nearly'"),
        ({"licenses": (None,)}, "licenses holds what is no text"),
        ({"dataset": None}, "the dataset is None"),
    ],
)
def test_a_component_takes_no_value_of_another_type(values: dict[str, object], what: str) -> None:
    with pytest.raises(BadInput, match=re.escape(what)):
        Component(**{"dataset": "a"} | values)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["a/../b", "../a", ".hidden", "", "a b", "a\n", "a+b", "a[b]", "-a"])
def test_a_mixture_has_a_name_that_a_folder_and_a_command_can_have(name: str) -> None:
    with pytest.raises(BadInput, match="the name is"):
        Mixture(name=name, components=(Component(dataset="a"),))
    assert single("sharegpt:fixed-2.1").name == "sharegpt:fixed-2.1"


@pytest.mark.parametrize(("field", "value"), [("seed", 1.5), ("total", 10.0)])
def test_a_mixture_counts_in_whole_numbers(field: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"the {field} is {value}"):
        Mixture(name="m", components=(Component(dataset="a", weight=1.0),), **{field: value})  # type: ignore[arg-type]
