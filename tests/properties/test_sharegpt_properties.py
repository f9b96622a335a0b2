"""ShareGPT's two splitters: the paper's against another writing of it, the fixed one by its laws."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.datasets.sharegpt import DATASET
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.specs.dataset import BrokenRow, ChangedRow, Dataset, RawRow
from tulu_pipeline.tokens.tokenizer import load_tokenizer

FIXED = DATASET.variant("fixed")
LIMIT = 2048
Turn = dict[str, str]


def tokens_said(texts: Sequence[str]) -> list[int]:
    """A turn of these tests says how many tokens it has."""
    return [int(text.split()[0]) for text in texts]


def split(dataset: Dataset, turns: list[Turn]) -> list[RawRow | BrokenRow | ChangedRow]:
    assert dataset.split is not None
    return list(dataset.split(RawRow("x", "part1.json:9", {"id": "x", "conversations": turns}), tokens_said))


def pieces(dataset: Dataset, turns: list[Turn]) -> dict[str, list[Turn]]:
    return {row.row_id: row.value["conversations"] for row in split(dataset, turns) if isinstance(row, RawRow)}  # type: ignore[index]


def chat(*tokens: int, senders: Sequence[str] = ("human", "gpt")) -> list[Turn]:
    return [
        {"from": sender, "value": f"{count} turn {place}"}
        for place, (count, sender) in enumerate(zip(tokens, itertools.cycle(senders), strict=False))
    ]


def told_again(turns: list[Turn], lengths: Sequence[int]) -> dict[str, list[Turn]]:
    """The paper's splitter, written from its description: rounds are put on a pile until one is too much."""
    rounds = [(place, lengths[place] + lengths[place + 1] + 12) for place in range(0, len(turns) - 1, 2)]
    piles: list[list[int]] = []
    pile: list[int] = []
    height = 0
    for number, (place, size) in enumerate(rounds):
        if height + size <= LIMIT:
            pile = [*pile, place]
            height += size
            if number == len(rounds) - 1:
                piles.append(pile)
        else:
            piles.append(pile)
            pile = [place] if size <= LIMIT else []
            height = size
    made = {f"x_{pile[0]}": [turn for place in pile for turn in turns[place : place + 2]] for pile in piles if pile}
    wanted = ("human", "gpt")
    return {
        name: piece
        for name, piece in made.items()
        if [turn["from"] for turn in piece] == [wanted[place % 2] for place in range(len(piece))]
    }


counts = st.one_of(st.integers(1, 300), st.integers(900, 1150), st.integers(1900, 2300))
alternating = st.lists(counts, max_size=14).map(lambda tokens: chat(*tokens))
senders = st.sampled_from(["human", "gpt"] * 6 + ["user", "chatgpt"])
anyone = st.one_of(senders, st.sampled_from(["system", "bing", "narrator"]))


def chats(who: st.SearchStrategy[str]) -> st.SearchStrategy[list[Turn]]:
    return st.lists(st.tuples(counts, who), max_size=14).map(
        lambda turns: chat(*(count for count, _ in turns), senders=[sender for _, sender in turns] or ["human"])
    )


@given(st.one_of(alternating, chats(anyone)))
def test_the_papers_splitter_cuts_as_its_description_says(turns: list[Turn]) -> None:
    assert pieces(DATASET, turns) == told_again(turns, tokens_said([turn["value"] for turn in turns]))


@given(st.one_of(alternating, chats(anyone)), st.sampled_from([DATASET, FIXED]))
def test_each_turn_is_in_one_piece_or_told_with_a_reason(turns: list[Turn], dataset: Dataset) -> None:
    rows = split(dataset, turns)
    if len(rows) == 1 and isinstance(rows[0], BrokenRow) and rows[0].row_id == "x":
        assert rows[0].reason  # the whole conversation
        return
    told = [row.value["conversations"] if isinstance(row, RawRow) else json.loads(row.text) for row in rows]  # type: ignore[index]
    assert sorted((turn for part in told for turn in part), key=turns.index) == turns
    assert all(row.reason for row in rows if not isinstance(row, RawRow))


def rounds_of(turns: list[Turn]) -> list[tuple[Turn, Turn]]:
    roles = ["user" if turn["from"] in {"human", "user"} else "assistant" for turn in turns]
    pairs = zip(itertools.pairwise(turns), itertools.pairwise(roles), strict=True)
    return [pair for pair, both in pairs if both == ("user", "assistant")]


def size(*rounds: tuple[Turn, Turn]) -> int:
    return sum(tokens_said([turn["value"]])[0] + 6 for pair in rounds for turn in pair)


@given(st.one_of(alternating, chats(senders)))
def test_the_fixed_splitter_keeps_each_round_that_fits_and_cuts_no_more_than_it_must(turns: list[Turn]) -> None:
    made = [rounds_of(piece) for piece in pieces(FIXED, turns).values()]
    assert [pair for piece in made for pair in piece] == [pair for pair in rounds_of(turns) if size(pair) <= LIMIT]
    assert all(size(*piece) <= LIMIT for piece in made)
    for left, right in itertools.pairwise(made):
        adjoin = turns.index(right[0][0]) == turns.index(left[-1][1]) + 1
        assert not adjoin or size(*left, right[0]) > LIMIT


@given(st.one_of(alternating, chats(anyone)), st.sampled_from([DATASET, FIXED]))
def test_pieces_alternate_and_are_named_after_their_first_turn(turns: list[Turn], dataset: Dataset) -> None:
    for name, piece in pieces(dataset, turns).items():
        assert name == f"x_{turns.index(piece[0])}"
        conversation = dataset.convert(RawRow(name, "", {"conversations": piece}), None)  # type: ignore[arg-type]
        assert [message.role for message in conversation.messages] == ["user", "assistant"] * (len(piece) // 2)


def reasons(dataset: Dataset, turns: list[Turn]) -> list[tuple[str, str]]:
    return [(row.row_id, row.reason) for row in split(dataset, turns) if not isinstance(row, RawRow)]


def test_the_papers_splitter_loses_a_last_round_that_does_not_fit() -> None:
    turns = chat(*[600] * 8)
    assert list(pieces(DATASET, turns)) == ["x_0", "x_2", "x_4"]
    assert reasons(DATASET, turns) == [("x", "last round, which the splitter loses")]
    assert list(pieces(FIXED, turns)) == ["x_0", "x_2", "x_4", "x_6"]
    assert reasons(FIXED, turns) == []


def test_the_papers_splitter_gives_the_round_behind_one_too_long_a_cut_of_its_own() -> None:
    turns = chat(10, 10, 2000, 2000, 20, 20)
    assert list(pieces(DATASET, turns)) == ["x_0"]  # the last round is lost, though there is room
    assert [reason for _, reason in reasons(DATASET, turns)] == [
        "round of more than 2,048 tokens", "last round, which the splitter loses",
    ]  # fmt: skip
    assert list(pieces(FIXED, turns)) == ["x_0", "x_4"]
    assert reasons(FIXED, turns) == [("x", "round of more than 2,048 tokens")]


def test_the_fixed_splitter_loses_a_round_with_a_blank_question() -> None:
    turns = chat(10, 10, 10, 10, 10, 10)
    turns[2]["value"] = " "

    def no_tokens(texts: Sequence[str]) -> list[int]:
        return [10] * len(texts)

    assert DATASET.split is not None
    assert FIXED.split is not None
    raw = RawRow("x", "part1.json:9", {"conversations": turns})
    assert list(DATASET.split(raw, no_tokens)) == [replace(raw, row_id="x_0")]
    assert list(FIXED.split(raw, no_tokens)) == [
        RawRow("x_0", raw.where, {"conversations": turns[:2]}),
        ChangedRow("x", raw.where, "round with a blank question", json.dumps(turns[2:4])),
        RawRow("x_4", raw.where, {"conversations": turns[4:]}),
    ]


@pytest.mark.parametrize("dataset", [DATASET, FIXED], ids=lambda dataset: dataset.name)
def test_a_piece_holds_2048_tokens_and_not_one_more(dataset: Dataset) -> None:
    full = chat(506, 506, 506, 506)
    assert list(pieces(dataset, full)) == ["x_0"]
    assert list(pieces(dataset, [*full, *chat(1, 1)])) == (["x_0"] if dataset is DATASET else ["x_0", "x_4"])
    assert list(pieces(dataset, chat(5, 5, 1018, 1018, 5, 5)))[:2] == ["x_0", "x_2"]
    assert reasons(dataset, chat(1018, 1019)) == [("x", "round of more than 2,048 tokens")]


def test_a_conversation_that_begins_with_an_answer_is_dropped_or_begins_later() -> None:
    turns = chat(10, 10, 10, 10, senders=["gpt", "human"])
    assert split(DATASET, turns) == [
        BrokenRow("x_0", "part1.json:9", "begins with an answer", json.dumps(turns)),
    ]  # fmt: skip
    assert pieces(FIXED, turns) == {"x_1": turns[1:3]}
    assert reasons(FIXED, turns) == [("x", "turn that belongs to no round")] * 2


@pytest.mark.parametrize(
    ("sender", "reason"),
    [("system", "turn of system"), ("bing", "turn of bing"), ("narrator", "unknown sender 'narrator'")],
)
def test_a_turn_of_nobody_spoils_its_piece_or_in_the_fixed_splitter_all(sender: str, reason: str) -> None:
    turns = chat(900, 900, 900, 900, 10, 10)
    turns[3]["from"] = sender
    assert list(pieces(DATASET, turns)) == ["x_0"]
    assert reasons(DATASET, turns) == [("x_2", reason)]
    assert pieces(FIXED, turns) == {}
    assert reasons(FIXED, turns) == [("x_0", reason)]


@pytest.mark.parametrize(
    "value",
    [None, [], {}, {"conversations": None}, {"conversations": ["hello"]}, {"conversations": [{"from": "human"}]},
     {"conversations": [{"from": 1, "value": "x"}]}, {"conversations": []}, {"conversations": chat(5)}],
    ids=lambda value: str(value)[:50],
)  # fmt: skip
@pytest.mark.parametrize("dataset", [DATASET, FIXED], ids=lambda dataset: dataset.name)
def test_what_is_no_conversation_is_dropped_once(dataset: Dataset, value: Any) -> None:
    assert dataset.split is not None
    (row,) = dataset.split(RawRow("x", "part1.json:9", value), tokens_said)
    assert isinstance(row, BrokenRow)
    assert (row.row_id, row.where) == ("x", "part1.json:9")
    assert row.reason


def test_a_dropped_conversation_may_be_called_as_a_piece_of_another(tmp_path: Path) -> None:
    rows: list[Any] = [{"id": "abc_0", "conversations": chat(5)}, {"id": "abc", "conversations": chat(5, 5)}]
    (tmp_path / "one.json").write_text(json.dumps(rows))
    made = list(convert_rows(DATASET, {"one.json": tmp_path / "one.json"}, 42, tokens_said))
    assert [row.row_id if isinstance(row, BrokenRow) else getattr(row, "id", "") for row in made] == [
        "abc_0", "sharegpt_abc_0",
    ]  # fmt: skip


def test_an_id_that_comes_again_or_is_missing_gives_rows_of_their_own(tmp_path: Path) -> None:
    ids: list[Any] = ["a", "b", "a", "a~2", None, "a", "", 7]
    rows = [{"conversations": chat(5, 5)} | ({} if name is None else {"id": name}) for name in ids]
    (tmp_path / "one.json").write_text(json.dumps(rows))
    made = list(convert_rows(DATASET, {"one.json": tmp_path / "one.json"}, 42, tokens_said))
    assert [row.id for row in made if isinstance(row, Conversation)] == [
        f"sharegpt_{name}_0" for name in ("a", "b", "a~2", "a~2~2", "row4", "a~3", "row6", "row7")
    ]


@pytest.mark.realdata
def test_real_rows_are_cut_as_the_description_says(mirror: Path, llama_like: Path) -> None:
    tokenizer = load_tokenizer(llama_like, tokenizer_mode="legacy_fast")
    dataset = DATASET.variant("sample")
    (name,) = dataset.sources
    rows = list(dataset.read({name: mirror / "train" / "sharegpt" / name}))
    assert len(rows) == 998
    several = lost = 0
    for row in rows[::3]:
        assert isinstance(row, RawRow)
        assert isinstance(row.value, dict)
        assert dataset.split is not None
        turns = row.value["conversations"]
        lengths = tokenizer.count_tokens([turn["value"] for turn in turns])
        made = list(dataset.split(row, lambda texts, lengths=lengths: lengths))  # type: ignore[misc]
        cut = {made_row.row_id: made_row.value["conversations"] for made_row in made if isinstance(made_row, RawRow)}  # type: ignore[index]
        assert cut == {name.replace("x", row.row_id, 1): piece for name, piece in told_again(turns, lengths).items()}
        several += len(cut) > 1
        lost += any(isinstance(part, ChangedRow) for part in made)
    assert several > 20
    assert lost > 20


@pytest.mark.realdata
def test_each_published_dummy_conversation_is_kept_whole(mirror: Path) -> None:
    dataset = DATASET.variant("dummy")
    files = {name: mirror / "train" / "sharegpt" / name for name in dataset.sources}
    rows = list(convert_rows(dataset, files, 42, lambda texts: [len(text.split()) for text in texts]))
    assert len(rows) == 500
    assert sum(len(row.messages) for row in rows if isinstance(row, Conversation)) == 2000
