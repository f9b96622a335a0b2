"""ShareGPT: conversations with ChatGPT that its users had shared, cut to what 2,048 tokens hold.

License: NOASSERTION (the hub repository's card says Apache-2.0; those who wrote the conversations have said nothing).
Citation: Chiang et al., "Vicuna: An Open-Source Chatbot Impressing GPT-4 with 90%* ChatGPT Quality", 2023.
Source: the hub's anon8231489123/ShareGPT_Vicuna_unfiltered, `HTML_cleaned_raw_dataset/sg_90k_part1_html_cleaned.json`
and `…part2…` at revision 192ab21.
Size: two files of about 45,000 conversations each; Table 1 has 168,864 pieces with 3.2 rounds, 71.0 tokens per prompt
and 357.8 per completion.
Format: JSON arrays of objects with `id` and `conversations`, a list of turns with `from` (human, gpt, system, bing, …)
and `value`.

A piece holds whole rounds, of at most 2,048 tokens by the tokenizer that it is split with, 6 and BOS counted for each
turn. Two splitters:

default: the original's, which is FastChat's with one repair, slips included. A last round that does not fit behind
    those before it is lost, not put into a piece of its own. Turns are paired by their place, so that a conversation
    that begins with an answer has no good piece. Pieces that do not alternate between human and gpt are dropped after
    the cut, each for itself; the same turn of another sender (user, chatgpt, …) makes a piece a bad one.
`fixed`: a question and the answer behind it are a round wherever they stand, and no round is lost that fits. Turns
    that belong to none (a leading answer, the first of two questions) are left out, and since what follows them has
    lost its context, a new piece begins there, as it does behind a round that is too long. Conversations with a turn
    of system, bing or an unknown sender are dropped whole. A round whose question is blank is left out as one that is
    too long is; the default keeps it, as the original did.
`sample`: 998 pieces of another edition of the same conversations, ShareGPT_V3_unfiltered_cleaned_split, which was
    cleaned and split by others (a third of them begin with an answer), run through the default splitter once more.
    It has no address of its own and comes from a mirror, by its hash.
`sample_fixed`: the same by the fixed splitter.
`dummy`: FastChat's 500 made-up conversations on what a model is called: its format, not its content.

Deviations from the paper: it split by LLaMA's slow tokenizer, here by that of the experiment's data tables (LLaMA's
for the paper's models). An id that a file repeats gets `~2`, `~3` and so on. Each round lost is told.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tulu_pipeline.artifacts.source import HubFile, PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message, Role
from tulu_pipeline.raw.fields import list_of, object_of
from tulu_pipeline.raw.readers import read_json_arrays
from tulu_pipeline.specs.dataset import (
    BrokenRow,
    ChangedRow,
    CountTokens,
    Dataset,
    Example,
    PaperCounts,
    RawRow,
    RowDropped,
)

_MAX_TOKENS = 2048
_TURN_TOKENS = 6  # what the original allows for a turn's tag and end
_ROLES: Mapping[object, Role] = {"human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant"}
_REFUSED = ("system", "bing")
_TOO_LONG = f"round of more than {_MAX_TOKENS:,} tokens"
_LAST_LOST = "last round, which the splitter loses"
_STRAY = "turn that belongs to no round"
_NO_QUESTION = "round with a blank question"

_Turn = Mapping[str, Any]


class _Part(NamedTuple):
    """Turns `start` to `end` of a conversation.

    A piece with a reason is a bad one; what is no piece is in none, for that reason.
    """

    start: int
    end: int
    is_piece: bool
    reason: str = ""


# The parts of a conversation, from its turns and the tokens of each.
_Cut = Callable[[Sequence[_Turn], Sequence[int]], Iterator[_Part]]


def _read(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """Rows under their own ids, repeated ones told apart in file order."""
    seen: set[str] = set()
    for row in read_json_arrays(files):
        if isinstance(row, BrokenRow):
            yield replace(row, row_id=_unused(f"row{row.row_id}", seen))
            continue
        own = row.value.get("id") if isinstance(row.value, dict) else None
        yield replace(row, row_id=_unused(own if isinstance(own, str) and own else f"row{row.row_id}", seen))


def _unused(wanted: str, seen: set[str]) -> str:
    row_id, number = wanted, 1
    while row_id in seen:
        number += 1
        row_id = f"{wanted}~{number}"
    seen.add(row_id)
    return row_id


def _split(cut: _Cut, row: RawRow, count_tokens: CountTokens | None) -> Iterator[RawRow | BrokenRow | ChangedRow]:
    """The pieces of one conversation, ids `<id>_<first turn>`, and what is in none of them."""
    assert count_tokens is not None
    try:
        turns = _turns(row.value)
    except RowDropped as why:
        yield BrokenRow(row.row_id, row.where, str(why), _text(row.value))
        return
    counts = count_tokens([turn["value"] for turn in turns]) if turns else ()
    parts = list(cut(turns, [count + _TURN_TOKENS for count in counts]))
    if not any(part.is_piece for part in parts):
        reason = parts[0].reason if parts else "fewer than two turns"
        yield BrokenRow(row.row_id, row.where, reason, _text(turns))
        return
    for start, end, is_piece, reason in parts:
        inside = turns[start:end]
        if not is_piece:
            yield ChangedRow(row.row_id, row.where, reason, _text(inside))
        elif reason:
            yield BrokenRow(f"{row.row_id}_{start}", row.where, reason, _text(inside))
        else:
            yield RawRow(f"{row.row_id}_{start}", row.where, {"conversations": inside})


def _cut_paper(turns: Sequence[_Turn], tokens: Sequence[int]) -> Iterator[_Part]:
    """As the original cuts; `split_one_sample` of open-instruct's `split_sharegpt_conversations.py` at b555637."""
    whole = len(turns) // 2 * 2
    start = total = 0
    for here in range(0, whole, 2):
        of_round, is_last = tokens[here] + tokens[here + 1], here == whole - 2
        if total + of_round > _MAX_TOKENS:
            if here > start:
                yield _Part(start, here, True, _bad_turn(turns[start:here]))
            start, total = here, 0
            if of_round > _MAX_TOKENS:
                yield _Part(here, here + 2, False, _TOO_LONG)
                start = here + 2
            elif is_last:
                yield _Part(here, whole, False, _LAST_LOST)
        elif is_last:
            yield _Part(start, whole, True, _bad_turn(turns[start:whole]))
        total += of_round  # of a skipped round too: the next one finds no room and begins a piece
    if 0 < whole < len(turns):
        yield _Part(whole, len(turns), False, _STRAY)


def _bad_turn(turns: Sequence[_Turn]) -> str:
    """Why turns are not human, gpt, human, gpt and so on; "" where they are."""
    for place, turn in enumerate(turns):
        sender, wanted = turn["from"], ("human", "gpt")[place % 2]
        if sender == wanted:
            continue
        if sender not in _ROLES:
            return _unfit(sender)
        if _ROLES[sender] == _ROLES[wanted]:
            return f"turn of `{sender}`, not `{wanted}`"
        return "turns do not alternate" if place else "begins with an answer"
    return ""


def _cut_fixed(turns: Sequence[_Turn], tokens: Sequence[int]) -> Iterator[_Part]:
    """Without the original's slips."""
    unfit = next((turn["from"] for turn in turns if turn["from"] not in _ROLES), None)
    if unfit is not None:
        yield _Part(0, len(turns), True, _unfit(unfit))
        return
    roles = [_ROLES[turn["from"]] for turn in turns]
    start = end = total = 0  # of the open piece
    while end < len(turns):
        is_round = roles[end : end + 2] == ["user", "assistant"]
        width = 2 if is_round else 1
        of_round = sum(tokens[end : end + width])
        lost = "" if is_round and turns[end]["value"].strip() else _NO_QUESTION if is_round else _STRAY
        if not lost and of_round > _MAX_TOKENS:
            lost = _TOO_LONG
        if end > start and (lost or total + of_round > _MAX_TOKENS):
            yield _Part(start, end, True)
            start, total = end, 0
        end += width
        total += of_round
        if lost:
            yield _Part(start, end, False, lost)
            start, total = end, 0
    if end > start:
        yield _Part(start, end, True)


def _unfit(sender: object) -> str:
    return f"turn of {sender}" if sender in _REFUSED else f"unknown sender {str(sender)[:20]!r}"


def _turns(value: object) -> list[_Turn]:
    turns = list_of(object_of(value), "conversations")
    for turn in turns:
        if not (isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str)):
            raise RowDropped("a turn without `from` or `value`")
    return turns


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    messages = []
    for turn in _turns(row.value):
        if turn["from"] not in _ROLES:
            raise RowDropped(_unfit(turn["from"]))
        messages.append(Message(_ROLES[turn["from"]], turn["value"]))
    return Conversation("sharegpt", f"sharegpt_{row.row_id}", tuple(messages))


def _hub(part: int) -> HubFile:
    return HubFile(
        repo="anon8231489123/ShareGPT_Vicuna_unfiltered",
        path=f"HTML_cleaned_raw_dataset/sg_90k_part{part}_html_cleaned.json",
        revision="192ab2185289094fc556ec8ce5ce1e8e587154ca",
    )


_FULL = Dataset(
    name="sharegpt",
    module=__name__,
    title="ShareGPT",
    citation='Chiang et al., "Vicuna: An Open-Source Chatbot Impressing GPT-4 with 90%* ChatGPT Quality", 2023',
    license="NOASSERTION",
    url="https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered",
    sources={f"sg_90k_part{part}_html_cleaned.json": _hub(part) for part in (1, 2)},
    read=_read,
    split=partial(_split, _cut_paper),
    splits_by_tokens=True,
    convert=_convert,
    converter_version=2,
    paper=PaperCounts(instances=168_864, mean_rounds=3.2, mean_prompt_tokens=71.0, mean_completion_tokens=357.8),
    examples=(
        Example(
            RawRow(
                "kq3Xw7B_4",
                "sg_90k_part1_html_cleaned.json:1",
                {
                    "conversations": [
                        {"from": "human", "value": "And in autumn?"},
                        {"from": "gpt", "value": "In autumn they fly south."},
                    ]
                },
            ),
            Conversation(
                "sharegpt",
                "sharegpt_kq3Xw7B_4",
                (Message("user", "And in autumn?"), Message("assistant", "In autumn they fly south.")),
            ),
        ),
    ),
)
_FIXED = partial(_split, _cut_fixed)
_SAMPLE = replace(
    _FULL,
    sources={
        "ShareGPT_V3_unfiltered_cleaned_split.sample1000.json": PinnedFile(
            url=None, sha256="c755638ba7622929ad8f09876240ffd52d1f608c03b28ffe1eb568719d65bb53"
        )
    },
    sample="998 of 168,864 pieces",
)

DATASET = replace(
    _FULL,
    variants={
        "fixed": replace(_FULL, split=_FIXED),
        "sample": _SAMPLE,
        "sample_fixed": replace(_SAMPLE, split=_FIXED),
        "dummy": replace(
            _FULL,
            title="FastChat's dummy conversations",
            license="Apache-2.0",
            url="https://github.com/lm-sys/FastChat",
            sources={
                "dummy_conversation.json": PinnedFile(
                    url="https://raw.githubusercontent.com/lm-sys/FastChat/0e6d3e4beaab66f4d3f93db72541a4abab8af28d/data/dummy_conversation.json",
                    sha256="534c5a1079f2eb61ff96633330ce87c4743f5b6d5b1691b44a65920473540470",
                )
            },
            paper=None,
        ),
    },
)
