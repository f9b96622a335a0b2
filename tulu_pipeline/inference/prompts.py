"""From questions to token ids: the first prompt that fits, with exactly one BOS."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.records import Question
from tulu_pipeline.tokens.control_tokens import ControlTokens, Prompt, opens_with_bos
from tulu_pipeline.tokens.encode import encode_spans
from tulu_pipeline.tokens.tokenizer import ChatTokenizer

_TOGETHER = 256
_UNCUT = 2**31
_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A question ready for an engine.

    Attributes:
        question_sha256: the question's digest.
        prompt_index: which of its prompts fits.
        prompt_ids: that prompt's token ids, BOS included.
        max_new_tokens: what was asked for, or what the context leaves.
    """

    question: Question
    question_sha256: str
    prompt_index: int
    prompt_ids: array[int]
    max_new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How long a prompt may be.

    Attributes:
        context_tokens: the model's longest sequence.
        max_new_tokens: wanted per completion.
        max_prompt_tokens: the benchmark's own limit; None for none.
    """

    context_tokens: int
    max_new_tokens: int
    max_prompt_tokens: int | None = None

    def holds(self, prompt_tokens: int, new_tokens: int) -> bool:
        """Whether a prompt and so many new tokens fit."""
        limit = self.context_tokens if self.max_prompt_tokens is None else self.max_prompt_tokens
        return prompt_tokens <= limit and prompt_tokens + new_tokens <= self.context_tokens


def encode_prompts(prompts: Sequence[Prompt | str], tokenizer: ChatTokenizer) -> list[array[int]]:
    """Token ids with what the tokenizer puts before a text (BOS, for families that have it), once.

    What looks like a control token in a text stays text.

    Raises:
        BadInput: BOS is not exactly where it belongs.
    """
    control_tokens = ControlTokens.of(tokenizer)
    known = [Prompt(text=prompt) if isinstance(prompt, str) else prompt for prompt in prompts]
    spans = [control_tokens.spans(prompt.parts()) for prompt in known]
    texts = encode_spans(spans, tokenizer, max_length_tokens=_UNCUT, add_bos=False)
    encoded = []
    for prompt, pieces, text in zip(known, spans, texts, strict=True):
        opening = () if opens_with_bos(pieces, tokenizer) else tokenizer.bos_ids
        ids = array("I", (*opening, *text.input_ids.tolist()))
        if any(ids.count(bos) != 1 for bos in tokenizer.bos_ids):
            raise BadInput(
                f"token {tokenizer.bos_ids[0]} (BOS) stands {ids.count(tokenizer.bos_ids[0])} times in a prompt",
                f"the prompt that begins `{prompt.text[:60]}`",
                "look at the model's tokenizer files",
            )
        encoded.append(ids)
    return encoded


def choice_ids(choices: Sequence[str], tokenizer: ChatTokenizer) -> dict[str, int]:
    """Token of each letter as it follows a cue: the last token of " A".

    Raises:
        BadInput: two letters share a token.
    """
    ids = {
        choice: encoding.ids[-1]
        for choice, encoding in zip(
            choices, tokenizer.encode_texts([f" {choice}" for choice in choices], after_end_mark=False), strict=True
        )
    }
    if len(set(ids.values())) < len(ids):
        raise BadInput(
            f"letters share a token: {ids}", "the model's tokenizer", "give the tokenizer a token for each letter"
        )
    return ids


def prepare(questions: Iterable[Question], tokenizer: ChatTokenizer, room: Room) -> Iterator[Prepared]:
    """Each question with the first of its prompts that leaves room for all new tokens.

    Where none does, its last (shortest) prompt is taken and new tokens are capped by what the context leaves, as the
    original's engine does. A letter to choose needs one token.

    Raises:
        BadInput: not even one token is left for some questions; the first ten are named. Raised at the end, so what
            was yielded before stands.
    """
    too_long: list[str] = []
    waiting = iter(questions)
    while together := list(itertools.islice(waiting, _TOGETHER)):
        best = encode_prompts([question.prompt(0) for question in together], tokenizer)
        for question, first in zip(together, best, strict=True):
            prepared = _prepare(question, first, tokenizer, room)
            if isinstance(prepared, Prepared):
                yield prepared
            else:
                too_long.append(f"`{question.item_id}` ({prepared} tokens)")
    if too_long:
        shown = ", ".join(too_long[:_SHOWN]) + (", …" if len(too_long) > _SHOWN else "")
        raise BadInput(
            f"{len(too_long)} prompts do not fit: {shown}",
            f"context of {room.context_tokens} tokens, prompts of at most {room.max_prompt_tokens or 'that'}",
            "ask a model with a longer context, or leave the benchmark out for this one",
        )


def _prepare(question: Question, first: array[int], tokenizer: ChatTokenizer, room: Room) -> Prepared | int:
    """The prepared question, or the length of its shortest prompt where that does not fit."""
    wanted = 1 if question.choices else room.max_new_tokens
    common: dict[str, Any] = {"question": question, "question_sha256": question.digest()}
    ids = first
    for index in range(len(question.prompts)):
        if index:
            (ids,) = encode_prompts([question.prompt(index)], tokenizer)
        if room.holds(len(ids), wanted):
            return Prepared(prompt_index=index, prompt_ids=ids, max_new_tokens=wanted, **common)
    if room.holds(len(ids), 1):
        left = room.context_tokens - len(ids)
        return Prepared(prompt_index=len(question.prompts) - 1, prompt_ids=ids, max_new_tokens=left, **common)
    return len(ids)
