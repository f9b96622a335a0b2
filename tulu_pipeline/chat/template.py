r"""The paper's chat format: training text, inference prompt, and which stretches of the text are supervised.

A training text is, for each message with its content stripped, `<|role|>\n{content}\n`, with the end mark right
after an assistant's content; the last newline is dropped (paper §3.2, Figure 1; open-instruct of October 2023). The
role tags are ordinary text, not special tokens. Only BOS, which the tokenizer adds, and the end mark are control ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tulu_pipeline.chat.options import LossSpan
from tulu_pipeline.chat.schema import Conversation, Role

Part = Literal["tag", "content", "end_mark", "newline"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of the training text; an end mark has no text of its own, the tokenizer decides what it is."""

    part: Part
    role: Role
    text: str = ""


def tag(role: Role) -> str:
    """The line that opens a message, without its newline."""
    return f"<|{role}|>"


def pieces(conversation: Conversation) -> list[Piece]:
    """The training text of a conversation, piece by piece."""
    result: list[Piece] = []
    for message in conversation.messages:
        result.append(Piece("tag", message.role, f"{tag(message.role)}\n"))
        result.append(Piece("content", message.role, message.content.strip()))
        if message.role == "assistant":
            result.append(Piece("end_mark", message.role))
        result.append(Piece("newline", message.role, "\n"))
    return _without_trailing_space(result)


def supervised(stretches: Sequence[Piece], loss_span: LossSpan) -> list[bool]:
    """Which pieces count for the loss.

    `eos`: content and end mark of each assistant message. `tulu1`: as the original's code has it, all but system and
    user messages and the assistant tag that follows one; so the newline after an end mark counts, and so does the tag
    of an assistant message that follows another one or opens the conversation.
    """
    if loss_span == "eos":
        return [piece.role == "assistant" and piece.part in ("content", "end_mark") for piece in stretches]
    flags = []
    before: Role | None = None
    for piece in stretches:
        answers = piece.part == "tag" and before in ("user", "system")
        flags.append(piece.role == "assistant" and not answers)
        before = piece.role
    return flags


def render_training(conversation: Conversation, end_mark: str = "</s>") -> str:
    """The training text; `end_mark` is the tokenizer's end-of-sequence token as text."""
    return "".join(end_mark if piece.part == "end_mark" else piece.text for piece in pieces(conversation))


def render_prompt(user_text: str, cue: str = "", *, tuned: bool) -> str:
    """What a model is asked: in the chat format when `tuned`, else as plain text.

    `cue` is what the answer starts with ("Answer:"): it follows the assistant tag directly, and stands on a line of
    its own after plain text. `user_text` is not stripped (open-instruct's evaluation templates of October 2023).
    """
    if tuned:
        return f"<|user|>\n{user_text}\n<|assistant|>\n{cue}"
    if not cue or user_text.endswith("\n"):
        return user_text + cue
    return f"{user_text}\n{cue}"


def _without_trailing_space(stretches: list[Piece]) -> list[Piece]:
    while stretches and stretches[-1].part != "end_mark":
        last = stretches.pop()
        if text := last.text.rstrip():
            stretches.append(Piece(last.part, last.role, text))
            break
    return stretches
