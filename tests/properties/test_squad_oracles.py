"""F1 and exact match of answers beside transformers' own, and what `strict` sees that they do not."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from oracle_examples import compared

from tulu_pipeline.scoring.squad import best, best_of_lm_eval, f1, words, words_of_any_script

# Texts in which articles, marks and spaces of several scripts are frequent.
ANSWERS = st.lists(
    st.sampled_from(
        [
            "the",
            "a",
            "an",
            "The",
            "1879",
            "1879년",
            "년에",
            "।",
            "؟",
            ".",
            ",",
            "'",
            "-",
            " ",
            "  ",
            "\n",
            "\u00a0",
            "İ",
            "ß",
            "x",
            "theatre",
            "১৮৭৯",
            "«да»",
            "البرج",
            "ال",
            "(",
            ")",
            "_",
            "\u3000",
        ]
    ),
    max_size=10,
).map("".join)


@compared(prediction=ANSWERS | st.text(max_size=20), gold=ANSWERS | st.text(max_size=20))
@example(prediction="", gold="")
@example(prediction="the", gold="")
@example(prediction="a.m.", gold="am")
def test_f1_and_exact_match_are_those_of_transformers(prediction: str, gold: str) -> None:
    from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

    assert best(prediction, [gold]) == (compute_f1(gold, prediction), compute_exact(gold, prediction))


LANGUAGES = {"arabic": "ar", "bengali": "bn", "english": "en", "finnish": "fi", "korean": "ko", "telugu": "te"}


@compared(
    prediction=ANSWERS | st.text(max_size=20),
    gold=ANSWERS | st.text(max_size=20),
    language=st.sampled_from(sorted(LANGUAGES)),
)
@example(prediction=".", gold="!", language="english")
@example(prediction="البرج the", gold="برج", language="arabic")
def test_f1_is_that_of_lm_evals_tydiqa(prediction: str, gold: str, language: str) -> None:
    from lm_eval.tasks.tydiqa.utils import f1_score

    assert best_of_lm_eval(prediction, [gold], language) == f1_score(prediction, gold, LANGUAGES[language])


@pytest.mark.realdata
def test_they_are_so_for_the_real_answers_of_nine_languages(mirror: Path) -> None:
    from lm_eval.tasks.tydiqa.utils import process_results_lang
    from transformers.data.metrics.squad_metrics import compute_exact, compute_f1

    draw = random.Random(0)
    asked = 0
    for path in sorted((mirror / "eval/tydiqa/language_data").glob("*_dev.json")):
        questions = [
            (question, paragraph["context"].split())
            for article in json.loads(path.read_text())["data"]
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
        for question, passage in draw.sample(questions, 113):
            golds = [answer["text"] for answer in question["answers"]]
            assert all(words(gold) for gold in golds), "SQuAD 1.1 and 2.0 differ where nothing is left of an answer"
            start = draw.randrange(len(passage))
            for prediction in (golds[0], " ".join(passage[start : start + 8]), f"The answer is {golds[-1]}!", ""):
                theirs = max(compute_f1(gold, prediction) for gold in golds)
                assert best(prediction, golds) == (theirs, max(compute_exact(gold, prediction) for gold in golds))
                language = path.name.partition("_")[0]
                harness = process_results_lang({"answers": golds}, [prediction], LANGUAGES.get(language, language))
                assert best_of_lm_eval(prediction, golds, language) == harness["f1"]
                asked += 1
    assert asked == 9 * 113 * 4


@pytest.mark.parametrize(
    ("prediction", "gold", "english", "paper", "strict"),
    [
        ("১৮৭৯", "১৮৭৯।", False, 0, 1),
        ("نعم؟", "نعم", False, 0, 1),
        ("«Да»", "да", False, 0, 1),
        ("1914–1918", "1914-1918", True, 0, 1),
        ("The tower", "tower", True, 1, 1),
        ("an tower", "tower", False, 1, 0),  # not an article there
        ("U.S.", "us", True, 1, 1),
        ("1879년에", "1879년", False, 0, 0),  # a particle is part of a word for both
        ("ﬁnland", "finland", False, 0, 1),
    ],
)
def test_strict_knows_the_marks_of_every_script(
    prediction: str, gold: str, english: bool, paper: int, strict: int
) -> None:
    assert best(prediction, [gold])[1] == paper
    assert best(prediction, [gold], lambda text: words_of_any_script(text, articles=english))[1] == strict


@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_f1_is_symmetric_and_one_for_the_same_words_in_any_order(ours: list[str], theirs: list[str]) -> None:
    assert f1(ours, theirs) == pytest.approx(f1(theirs, ours))
    assert (f1(ours, theirs) == 1) == (sorted(ours) == sorted(theirs))
