"""What a text announces as its answer, and whether it is the target."""

import pytest

from tulu_pipeline.scoring.answers import (
    announced,
    announced_of_lm_eval,
    announced_of_paper,
    first_line,
    same_answer,
)


@pytest.mark.parametrize(
    ("text", "paper", "strict", "harness"),
    [
        ("So the answer is (B).", "(B)", "(B)", "(B)"),
        ("So the answer is (B)", None, "(B)", "(B"),
        ("The answer is (B).", "(B)", "(B)", "[invalid]"),
        ("the answer is 3. Wait: so the answer is 4.", "3", "4", "3. Wait: so the answer is 4"),
        ("So the answer is 3.5.", "3", "3.5", "3.5"),
        ("So the answer is **Yes**.\n\nQ: next", "**Yes**", "Yes", "**Yes**"),
        ("So the answer is -12.\nDone.", "-12", "-12", "-12"),
        ("So the answer is ] ) >.", "] ) >", "] ) >", "] ) >"),
        ("I cannot say.", None, None, "[invalid]"),
        ("", None, None, "[invalid]"),
    ],
)
def test_announced_answers(text: str, paper: str | None, strict: str | None, harness: str) -> None:
    assert (announced_of_paper(text), announced(text), announced_of_lm_eval(text)) == (paper, strict, harness)


@pytest.mark.parametrize(
    ("text", "line"), [(" (A).\n\nQ: more", "(A)"), ("`True`", "True"), ("", None), (" \n\n", None), ("...", None)]
)
def test_a_direct_answer_is_the_first_line(text: str, line: str | None) -> None:
    assert first_line(text) == line


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("(B)", "(B)"),
        ("B", "(B)"),
        ("b", "(B)"),
        ("(B) 05/01/2021", "(B)"),
        ("-12", "-12"),
        ("−12", "-12"),
        ("1,200", "1200"),
        ("3.0", "3"),
        ("]) >", "] ) >"),
        ("YES", "yes"),
        ("apple  pear", "apple pear"),
    ],
)
def test_the_same_answer_in_other_words(answer: str, target: str) -> None:
    assert same_answer(answer, target)


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("(A)", "(B)"),
        ("12", "-12"),
        ("35", "3.5"),
        ("a a", "] )"),
        ("] >", "] )"),
        ("not valid", "valid"),
        ("", "(B)"),
        ("nan", "3"),
        ("Because of (B)", "(B)"),
    ],
)
def test_another_answer(answer: str, target: str) -> None:
    assert not same_answer(answer, target)
