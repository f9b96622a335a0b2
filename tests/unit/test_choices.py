"""A misspelled name of a choice is an error that says what was meant."""

import dataclasses
from typing import Any

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.experiments.demo import EXPERIMENT
from tulu_pipeline.specs.recipe import Recipe


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        ("template", "owm", "own"),
        ("loss_span", "tulu", "tulu1"),
        ("loss_norm", "mean", "token_mean"),
        ("dtype", "bf15", "bf16"),
    ],
)
def test_a_misspelled_choice_of_a_recipe_is_refused(field: str, value: str, meant: str) -> None:
    choice: dict[str, Any] = {field: value}
    with pytest.raises(BadInput) as refused:
        Recipe(**choice)
    assert refused.value.what == f"{field} is '{value}'"
    assert meant in refused.value.fix


def test_a_misspelled_engine_is_refused() -> None:
    with pytest.raises(BadInput, match="engine is 'vlm'"):
        dataclasses.replace(EXPERIMENT, engine="vlm")  # type: ignore[arg-type]
