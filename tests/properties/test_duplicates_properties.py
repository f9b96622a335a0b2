"""What is left out resembles something that stays, by sets of words counted here; and nothing alike is overlooked."""

import os
import re
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.mixing.duplicates import Alike, NearDuplicates, find_duplicates

VOCABULARY = ["the", "early", "bird", "catches", "a", "worm", ",", "and", "what", "then", "?"]
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=12)
TEXTS = st.one_of(WORDS.map(" ".join), st.text(max_size=12), st.sampled_from(["猫は鳥を見た。", "猫は鳥を見る。", ""]))
ROUNDS = st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3)


def conversation(number: int, rounds: list[tuple[str, str]]) -> Conversation:
    messages = [Message(role, text) for pair in rounds for role, text in zip(("user", "assistant"), pair, strict=True)]  # type: ignore[arg-type]
    return Conversation("d", f"d_{number}", tuple(messages))


def found(kind: str, rows: list[Conversation]) -> Alike:
    with TemporaryDirectory() as scratch:
        duplicates = find_duplicates(kind, Path(scratch))  # type: ignore[arg-type]
        for row in rows:
            duplicates.add(row)
        alike = duplicates.found()
        assert os.listdir(scratch) == []
    return alike


def triples(row: Conversation) -> set[tuple[str, ...]]:
    """Written apart from the code under test: words; each sign and each character of Chinese and Japanese alone."""
    words: list[str] = []
    for message in row.messages:
        words.append(f"<{message.role}>")
        run = ""
        for character in message.content.lower() + " ":
            alone = bool(
                re.match("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]", character)
            )
            alone = alone or ord(character) >= 0x20000
            if (character.isalnum() or character == "_") and not alone:
                run += character
                continue
            words += [run] if run else []
            words += [] if character.isspace() else [character]
            run = ""
    words += ["<end>"] * (3 - len(words))
    return {tuple(words[start : start + 3]) for start in range(len(words) - 2)}


def jaccard(one: Conversation, other: Conversation) -> float:
    first, second = triples(one), triples(other)
    return len(first & second) / len(first | second)


@given(st.lists(ROUNDS, max_size=12))
def test_exact_duplicates_are_the_rows_whose_stripped_messages_stood_before(
    all_rounds: list[list[tuple[str, str]]],
) -> None:
    rows = [conversation(number, rounds) for number, rounds in enumerate(all_rounds)]
    first: dict[tuple[tuple[str, str], ...], int] = {}
    expected = []
    for number, row in enumerate(rows):
        stood = first.setdefault(tuple((each.role, each.content.strip()) for each in row.messages), number)
        expected.append(-1 if stood == number else stood)
    assert found("exact", rows).earlier.tolist() == expected


@given(st.lists(ROUNDS, max_size=12))
def test_whatever_is_left_out_as_nearly_the_same_is_so_and_resembles_what_stays(
    all_rounds: list[list[tuple[str, str]]],
) -> None:
    rows = [conversation(number, rounds) for number, rounds in enumerate(all_rounds)]
    alike = found("near", rows)
    stays = [number for number in range(len(rows)) if alike.earlier[number] < 0]
    for number, row in enumerate(rows):
        before = [each for each in stays if each < number]
        if number in stays:
            # At 0.97 a pair is overlooked with probability 10^-14.
            assert all(jaccard(row, rows[each]) < 0.97 for each in before)
        else:
            earlier = int(alike.earlier[number])
            assert earlier in before
            similarity = jaccard(row, rows[earlier])
            assert similarity >= 0.8
            assert alike.similarity[number] == pytest.approx(similarity)


@given(st.lists(ROUNDS, min_size=1, max_size=8), ROUNDS)
def test_what_comes_later_changes_nothing(all_rounds: list[list[tuple[str, str]]], more: list[tuple[str, str]]) -> None:
    rows = [conversation(number, rounds) for number, rounds in enumerate([*all_rounds, more])]
    for kind in ("exact", "near"):
        assert found(kind, rows[:-1]).earlier.tolist() == found(kind, rows).earlier.tolist()[:-1]


def test_a_word_more_in_a_long_text_is_near_and_in_a_short_one_is_not() -> None:
    long = " ".join(f"word{number}" for number in range(60))
    rows = [conversation(0, [(long, "Yes.")]), conversation(1, [(long.replace("word30", "another"), "Yes.")])]
    assert found("near", rows).earlier.tolist() == [-1, 0]
    capitals = [[("What is the capital of France?", "Paris.")], [("What is the capital of Italy?", "Rome.")]]
    assert found("near", [conversation(*each) for each in enumerate(capitals)]).earlier.tolist() == [-1, -1]


def test_question_and_answer_are_not_alike_the_other_way_round() -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    rows = [conversation(0, [(text, "Yes.")]), conversation(1, [("Yes.", text)])]
    assert found("near", rows).earlier.tolist() == [-1, -1]
    assert found("exact", rows).earlier.tolist() == [-1, -1]


def test_a_chain_of_likenesses_keeps_what_resembles_nothing_that_stays() -> None:
    words = [f"w{number}" for number in range(70)]

    def changed(count: int) -> Conversation:
        text = " ".join(f"x{number}" if number < count else word for number, word in enumerate(words))
        return conversation(count, [(text, "Yes.")])

    rows = [changed(0), changed(5), changed(10)]
    assert jaccard(rows[0], rows[1]) > 0.8 > jaccard(rows[0], rows[2])
    assert jaccard(rows[1], rows[2]) > 0.8
    assert found("near", rows).earlier.tolist() == [-1, 0, -1]


def test_what_shares_a_long_part_is_rarely_compared_by_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = " ".join(f"word{number}" for number in range(200))
    rows = [conversation(at, [(f"{shared} {' '.join(f'{at}x{n}' for n in range(60))}", "Yes.")]) for at in range(200)]
    compared: list[tuple[int, int]] = []
    jaccard_of = NearDuplicates._jaccard

    def count(self: NearDuplicates, shingles: Any, one: int, other: int) -> float:
        compared.append((one, other))
        return jaccard_of(self, shingles, one, other)

    monkeypatch.setattr(NearDuplicates, "_jaccard", count)
    assert found("near", [*rows, rows[7]]).earlier.tolist() == [-1] * 200 + [7]
    assert (200, 7) in compared
    assert len(compared) < 200  # of 20,100 pairs


def test_a_conversation_of_many_words_is_compared_like_any_other() -> None:
    text = " ".join(f"word{number % 7919}x{number % 104729}" for number in range(30_000))
    rows = [conversation(0, [(text, "a")]), conversation(1, [(text, "b")]), conversation(2, [(text[:150_000], "a")])]
    assert found("near", rows).earlier.tolist() == [-1, 0, -1]


@pytest.mark.realdata
def test_of_real_conversations_every_near_duplicate_is_found_that_comparing_all_pairs_finds(mirror: Path) -> None:
    lines = (mirror / "train" / "cot" / "cot_data" / "aqua_train.tsv").read_text(encoding="utf-8").splitlines()
    fields = [line.split("\t") for line in lines[:1000]]
    rows = [conversation(number, [(each[0], each[2])]) for number, each in enumerate(fields)]
    sets = [triples(row) for row in rows]
    holders: dict[tuple[str, ...], list[int]] = {}
    earlier = []
    for number, own in enumerate(sets):
        shared = Counter(each for triple in own for each in holders.get(triple, ()))
        alike = [each for each, both in shared.items() if both >= 0.8 * (len(own) + len(sets[each]) - both)]
        earlier.append(min(alike, default=-1))
        if not alike:
            for triple in own:
                holders.setdefault(triple, []).append(number)
    assert sum(each >= 0 for each in earlier) > 10
    assert found("near", rows).earlier.tolist() == earlier
