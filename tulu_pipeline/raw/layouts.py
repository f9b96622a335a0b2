"""Four well-known layouts of rows, under their own column names or others.

messages            `messages`: a list of {`role`, `content`}
sharegpt            `conversations`: a list of {`from`, `value`}
prompt_completion   `prompt` and `completion`: one round, as two texts
alpaca              `instruction`, `output` and maybe `input`: one round, phrased as Alpaca's own rows are
"""

from __future__ import annotations

import difflib
import random
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tulu_pipeline.chat.schema import Message, Role
from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw.fields import list_of, object_of, text_of
from tulu_pipeline.raw.instructions import alpaca_messages
from tulu_pipeline.specs.dataset import RowDropped

# What a file calls a column or a key, where that is not its usual name.
Names = Mapping[str, str]

_ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What rows of one layout hold.

    Attributes:
        wanted, optional: its columns.
        keys: those within each message, where a column holds messages.
        messages: the messages of a row.
    """

    wanted: tuple[str, ...]
    messages: Callable[[Mapping[str, Any], Names, random.Random], tuple[Message, ...]]
    optional: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()

    def missing(self, names: Names, columns: Container[str]) -> list[str]:
        """The wanted columns, by the file's own names, that are not among `columns`."""
        return [own for column in self.wanted if (own := names.get(column, column)) not in columns]


def _message_list(
    column: str, role_key: str, text_key: str, value: Mapping[str, Any], names: Names, rng: random.Random
) -> tuple[Message, ...]:
    role_key, text_key = names.get(role_key, role_key), names.get(text_key, text_key)
    messages = []
    for message in list_of(value, names.get(column, column)):
        role = text_of(object_of(message), role_key)
        if role not in _ROLES:
            raise RowDropped(f"unknown role {role[:20]!r}")
        messages.append(Message(_ROLES[role], text_of(message, text_key)))
    return tuple(messages)


def _prompt_completion(value: Mapping[str, Any], names: Names, rng: random.Random) -> tuple[Message, ...]:
    prompt, completion = (text_of(value, names.get(column, column)) for column in ("prompt", "completion"))
    return Message("user", prompt), Message("assistant", completion)


def _alpaca(value: Mapping[str, Any], names: Names, rng: random.Random) -> tuple[Message, ...]:
    instruction_key, input_key, output_key = (names.get(key, key) for key in ("instruction", "input", "output"))
    if not text_of(value, instruction_key).strip():
        raise RowDropped(f"empty `{instruction_key}`")
    return alpaca_messages(value, rng, instruction_key=instruction_key, input_key=input_key, output_key=output_key)


LAYOUTS: Mapping[str, Layout] = {
    "messages": Layout(
        wanted=("messages",), messages=partial(_message_list, "messages", "role", "content"), keys=("role", "content")
    ),
    "sharegpt": Layout(
        wanted=("conversations",),
        messages=partial(_message_list, "conversations", "from", "value"),
        keys=("from", "value"),
    ),
    "prompt_completion": Layout(wanted=("prompt", "completion"), messages=_prompt_completion),
    "alpaca": Layout(wanted=("instruction", "output"), messages=_alpaca, optional=("input",)),
}


def messages_of(
    value: Mapping[str, Any], layouts: Sequence[Layout], names: Names, rng: random.Random
) -> tuple[Message, ...]:
    """The messages of a row, in the first of `layouts` whose columns it has.

    Raises:
        RowDropped: it has those of none, or they do not hold what they should.
    """
    for layout in layouts:
        if not layout.missing(names, value):
            return layout.messages(value, names, rng)
    missing = layouts[0].missing(names, value)
    raise RowDropped(f"no `{missing[0]}`" if len(layouts) == 1 else "columns of no known layout")


def check_columns(rows: Iterable[Iterable[str]], layouts: Sequence[Layout], names: Names, where: str) -> None:
    """Look whether some of `rows`, the columns of each, fit one of `layouts`.

    Raises:
        BadInput: none does; it says which columns are there, which are wanted, and which may be meant.
    """
    seen = [tuple(row) for row in rows]
    if not seen or any(not layout.missing(names, row) for layout in layouts for row in seen):
        return
    there = list(dict.fromkeys(column for row in seen for column in row))
    # Of several layouts, the one that lacks least is the one that was meant.
    layout = min(layouts, key=lambda layout: len(layout.missing(names, there)) / len(layout.wanted))
    missing = layout.missing(names, there)
    shown = ", ".join(f"`{column}`" for column in there[:20]) or "none"
    if not missing:
        what = f"no row has all of {_quoted(layout, names)}; columns: {shown}"
    elif len(layouts) == 1:
        what = f"no column {' and '.join(f'`{column}`' for column in missing)}; there are {shown}"
    else:
        what = f"the columns are those of no known layout: {shown}"
    close = {column: _closest(names.get(column, column), there) for column in layout.wanted}
    hint = ", ".join(f'"{column}": "{found}"' for column, found in close.items() if found not in ("", column))
    wanted = "; or ".join(_quoted(each, names) for each in layouts)
    named = f"did you mean `names={{{hint}}}`?" if hint else 'if they have other names, say so: `names={"prompt": …}`'
    raise BadInput(what, where, f"wanted: {wanted}; {named}")


def _quoted(layout: Layout, names: Names) -> str:
    return " and ".join(f"`{names.get(column, column)}`" for column in layout.wanted)


def _closest(column: str, there: Sequence[str]) -> str:
    return next(iter(difflib.get_close_matches(column, there, n=1)), "")
