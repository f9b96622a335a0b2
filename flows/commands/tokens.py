"""`tulu tokens`: one conversation token by token."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows.commands import options
from flows.terminal import above, open_console, print_json

Dataset = Annotated[str, Parameter(help="its name, with its variant, or path/to/file.py:CONSTANT.")]
Row = Annotated[str, Parameter(help="place among the kept conversations, from 0, or an id.")]
Tokenizer = Annotated[
    str | None,
    Parameter(
        name=("--tokenizer", "--model"),
        help="a tokenizer's name, a model's, or a folder; else the experiment's, else tiny-10m's.",
    ),
]
RecipeOf = Annotated[
    str | None, Parameter(help="whose recipe, tokenizer and own datasets count; else the paper's recipe.")
]
MaxLength = Annotated[int | None, Parameter(help="cut to so many tokens instead of where the recipe says.")]


def tokens(
    dataset: Dataset,
    *,
    row: Row = "0",
    tokenizer: Tokenizer = None,
    experiment: RecipeOf = None,
    max_length: MaxLength = None,
    store: options.Store = None,
    profile: options.Profile = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.progress import Bars
    from flows.tokens import show_tokens
    from flows.tokens_view import print_tokens, tokens_json

    with Bars(open_console(stderr=True)) as bars, above(bars.console):
        shown = show_tokens(
            dataset,
            row=row,
            tokenizer=tokenizer,
            experiment=experiment,
            max_length_tokens=max_length,
            store=store,
            profile=profile,
            progress=bars,
        )
    if as_json:
        print_json(tokens_json(shown))
    else:
        print_tokens(shown, open_console())
