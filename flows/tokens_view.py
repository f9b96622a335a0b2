"""How `tulu tokens` shows a conversation: as text for people, as JSON for scripts."""

from __future__ import annotations

import dataclasses
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flows.tokens import Shown

_SIGNS = {"\n": "↵", "\t": "⇥", "\r": "␍", "\x1b": "␛"}


def tokens_json(shown: Shown) -> dict[str, Any]:
    """The form that scripts rely on."""
    return {
        "dataset": shown.conversation.dataset,
        "id": shown.conversation.id,
        "row": shown.row,
        "rows": shown.rows,
        "license": shown.license,
        "language": shown.conversation.language,
        "tokenizer": shown.tokenizer,
        "max_length_tokens": shown.max_length_tokens,
        "cut": shown.view.cut,
        "supervised": shown.view.supervised,
        "dropped": shown.dropped,
        "tokens": [dataclasses.asdict(token) for token in shown.view.tokens],
    }


def print_tokens(shown: Shown, console: Any) -> None:
    """A line of facts, then the tokens: borders between them, supervised stretches in ⟦ ⟧ and in color."""
    from rich.text import Text

    console.print(_facts(shown), style="bold", markup=False, highlight=False)
    if shown.dropped:
        console.print(f"left out of training: {shown.dropped}", style="yellow", markup=False, highlight=False)
    text = Text()
    tokens = shown.view.tokens
    for index, token in enumerate(tokens):
        learned_before = index > 0 and tokens[index - 1].supervised
        learned_after = index + 1 < len(tokens) and tokens[index + 1].supervised
        style = "green" if token.supervised else ""
        if token.supervised and not learned_before:
            text.append("⟦", style="bold green")
        visible = _visible(token.shown, token.text)
        if token.control:
            text.append(f"‹{visible}›", style=f"{style} bold reverse".strip())
        else:
            text.append(visible, style=style if token.text else f"{style} italic".strip())
        if token.supervised and not learned_after:
            text.append("⟧", style="bold green")
        text.append("\n" if token.text.endswith("\n") else "│", style="dim")
    console.print(text, soft_wrap=True)
    if shown.view.cut:
        console.print(f"… {shown.view.cut:,} tokens more are cut off", style="yellow", markup=False, highlight=False)
    console.print("⟦learned⟧  ‹placed as an id›  │ border of a token  ↵ newline", style="dim", highlight=False)


def _facts(shown: Shown) -> str:
    tokens = len(shown.view.tokens)
    facts = [
        shown.conversation.id,
        f"row {shown.row:,} of {shown.rows:,}",
        f"{tokens:,} {'token' if tokens == 1 else 'tokens'} of {shown.tokenizer}, {shown.view.supervised:,} learned",
        f"cut at {shown.max_length_tokens:,}" if shown.view.cut else "",
        shown.license,
        shown.conversation.language,
    ]
    return " · ".join("".join(map(_plain, fact)) for fact in facts if fact)


def _visible(shown: str, text: str) -> str:
    """What would not be seen, or would be obeyed by a terminal, gets a sign; borders and brackets stay as they are."""
    seen = "".join(_SIGNS.get(character) or _plain(character) for character in shown)
    return seen if text.strip() else seen.replace(" ", "·")


def _plain(character: str) -> str:
    if unicodedata.category(character) not in {"Cc", "Cf"}:
        return character
    return character.encode("unicode_escape").decode("ascii")
