"""How much of an answer's words is right: F1 and exact match as SQuAD 1.1 has them, and with every script's marks.

SQuAD's rules are made for English: they drop ASCII punctuation and the words "a", "an" and "the", and compare what
stands between spaces. For a gold answer with a word in it they give what SQuAD 2.0's rules give; TyDiQA has no other.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# Source: task `tydiqa_goldp`, version 1, of lm-evaluation-harness.
_ARABIC_ARTICLE = re.compile(r"(?:^|\s)ال")

Words = Callable[[str], list[str]]


def words(text: str) -> list[str]:
    """SQuAD's words of a text: lower case, without ASCII punctuation and English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split()


def words_of_any_script(text: str, *, articles: bool) -> list[str]:
    """Words without any script's punctuation, in one Unicode form, letter case folded.

    A mark between letters or digits parts words (`1914-1918`), but for an apostrophe, a comma and a point, which only
    go. `articles` says whether English ones are dropped: "an" and "a" are words of other languages.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"(?<=\w)['’.,](?=\w)", "", text)
    text = "".join(" " if unicodedata.category(character)[0] == "P" else character for character in text)
    return (_ARTICLES.sub(" ", text) if articles else text).split()


def words_of_lm_eval(text: str, language: str) -> list[str]:
    """Words as lm-eval's TyDiQA compares them: lower case, without any script's marks; what they part is joined.

    English articles go in English, and in Arabic the article that a word begins with.
    """
    text = "".join(each for each in text.lower().translate(_ASCII_PUNCTUATION) if unicodedata.category(each)[0] != "P")
    if language == "english":
        text = _ARTICLES.sub(" ", text)
    elif language == "arabic":
        text = _ARABIC_ARTICLE.sub(" ", text)
    return text.split()


def f1(prediction: list[str], gold: list[str]) -> float:
    """Harmonic mean of precision and recall of words, each counted as often as it stands; 1 where neither has any."""
    if not prediction or not gold:
        return float(prediction == gold)
    common = (Counter(prediction) & Counter(gold)).total()
    if not common:
        return 0.0
    precision, recall = common / len(prediction), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def best(prediction: str, golds: Iterable[str], words_of: Words = words) -> tuple[float, float]:
    """F1 and exact match with the gold answer that fits best, each for itself."""
    ours = words_of(prediction)
    theirs = [words_of(gold) for gold in golds]
    return max(f1(ours, gold) for gold in theirs), max(float(ours == gold) for gold in theirs)


def best_of_lm_eval(prediction: str, golds: Iterable[str], language: str) -> float:
    """lm-eval's F1 with the gold answer that fits best; an answer without a word has none, whatever the gold one."""
    ours = words_of_lm_eval(prediction, language)
    return max(f1(ours, words_of_lm_eval(gold, language)) for gold in golds) if ours else 0.0
