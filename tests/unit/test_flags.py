"""What tables count about answers."""

import pytest

from tulu_pipeline.scoring.flags import COUNTED_FLAGS, flag_order, text_flags
from tulu_pipeline.specs.benchmark import Completion


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I cannot provide that.",
        "I’m sorry, but I can’t help with this request.",
        "Sorry, I can't assist with that.",
        "As an AI language model, I cannot browse the internet.",
        "  I am unable to answer this question.",
        "I'm sorry, but as an AI language model, I cannot predict the future.",
        "I am not able to write that story.",
        "Unfortunately, I cannot help you.",
        "\nI won't provide instructions for that.",
    ],
)
def test_an_answer_that_declines_is_counted_as_refused(text):
    assert text_flags(Completion(item_id="1", texts=("fine", text))) == ("refused",)


@pytest.mark.parametrize(
    "text",
    [
        "I cannot believe how many apples there are: 12.",
        "She can't help it. So the answer is 4.",
        "As an AI researcher, I wrote this poem.",
        "Sorry to hear that! Here is a plan.",
        "The letter says: I cannot help you.",
        "I can help with that.",
        "Unfortunately, the answer is 7.",
        "Sorry",
    ],
)
def test_an_answer_that_answers_is_not(text):
    assert text_flags(Completion(item_id="1", texts=(text,))) == ()


def test_what_every_table_counts_comes_first_and_the_rest_by_name():
    assert flag_order(["tie", "truncated", "judge_flipped", "empty"]) == ["empty", "truncated", "judge_flipped", "tie"]
    assert COUNTED_FLAGS == ("no_answer_found", "empty", "truncated", "refused")
