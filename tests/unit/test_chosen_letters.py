"""Letters by log probabilities: all of them, each a number, or the item's error."""

import math

import pytest

from tulu_pipeline.inference.engine import Failed, Finished, Request, chosen

REQUEST = Request(
    request_id="anatomy/3#0", prompt_ids=[1, 5], max_new_tokens=1, choice_ids={"A": 7, "B": 8, "C": 9, "D": 10}
)
TOLD = {7: -0.5, 8: -1.5, 9: -2.5, 10: -3.5, 300: -0.1}


def test_each_letter_has_its_tokens_log_probability() -> None:
    letters = {"A": -0.5, "B": -1.5, "C": -2.5, "D": -3.5}
    assert chosen(REQUEST, TOLD) == Finished(request_id="anatomy/3#0", choice_logprobs=letters)


def test_letters_that_the_engine_does_not_tell_are_the_items_error() -> None:
    told = {token: value for token, value in TOLD.items() if token not in (8, 10)}
    assert chosen(REQUEST, told) == Failed("anatomy/3#0", "no log probability of B, D")


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_a_letter_whose_log_probability_is_no_number_is_the_items_error(value: float) -> None:
    answer = chosen(REQUEST, TOLD | {9: value})
    assert isinstance(answer, Failed)
    assert "no numbers" in answer.reason
