"""A misspelled name of a choice, or a value of another type, is an error that says what was meant."""

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


MODEL = EXPERIMENT.models[0]


@pytest.mark.parametrize(
    ("field", "value", "what", "fix"),
    [
        ("models", MODEL, "models is of type PretrainedModel", "a comma ends one of a single value"),
        ("models", (MODEL.name,), "models[0] is 'tiny' (str)", "write a PretrainedModel"),
        ("models", [MODEL], "models is of type list", "write a tuple of PretrainedModel values"),
        ("benchmarks", ("gsm",), "benchmarks is ('gsm',) (tuple)", "write a mapping of texts to tuples of texts"),
        ("benchmarks", {"gsm": "gsm_cot"}, "benchmarks['gsm'] is 'gsm_cot' (str)", "write a tuple of texts"),
        ("recipe", {"epochs": 1}, "recipe is {'epochs': 1} (dict)", "write a Recipe"),
        ("item_limit", 20, "item_limit is 20 (int)", "write a mapping of texts to whole numbers"),
        ("item_limit", {"gsm_cot": 0}, "item_limit['gsm_cot'] is 0", "at least 1"),
        ("max_new_tokens", "32", "max_new_tokens is '32' (str)", "write a whole number or None"),
        ("samples", True, "samples is True (bool)", "write a whole number or None"),
    ],
)
def test_a_value_of_another_type_is_refused_before_anything_is_planned(
    field: str, value: object, what: str, fix: str
) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(BadInput) as refused:
        dataclasses.replace(EXPERIMENT, **changed)
    assert refused.value.what == what
    assert fix in refused.value.fix
