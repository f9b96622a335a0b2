"""Raw rows to conversations: every row comes out, as a conversation or with the reason why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tulu_pipeline.chat.draw import row_random
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.errors import BadInput, StageFailed, TuluError
from tulu_pipeline.raw.strata import drawn
from tulu_pipeline.specs.dataset import (
    BrokenRow,
    ChangedRow,
    CountTokens,
    Dataset,
    RawRow,
    RowDropped,
    check_conversation,
)


def convert_rows(
    dataset: Dataset,
    files: Mapping[str, Path],
    seed: int,
    count_tokens: CountTokens | None = None,
    on_left_out: Callable[[int], None] = lambda count: None,
) -> Iterator[Conversation | BrokenRow | ChangedRow]:
    """A conversation or a `BrokenRow` for each row drawn, in file order; a `ChangedRow` tells what a row lost.

    Args:
        dataset: reads and converts the rows; its name goes into each conversation, a variant's included.
        files: the raw files by source name.
        seed: each row's random stream follows from it, the dataset's name and the row's id; so does the draw.
        count_tokens: for a dataset that splits by tokens.
        on_left_out: told, for a dataset that draws, how many rows were not drawn.

    Raises:
        BadInput: a file cannot be read as a whole, or two rows have one id.
        StageFailed: the converter stopped on a row with an error of its own.
    """
    seen: set[str] = set()
    if dataset.draw is None:
        rows = dataset.read(files)
    else:
        rows = drawn(
            lambda: dataset.read(files), dataset.draw, seed=seed, dataset=dataset.name, on_left_out=on_left_out
        )
    for row in _split(dataset, rows, count_tokens):
        if isinstance(row, ChangedRow):
            yield row
            continue
        if row.row_id in seen:
            raise BadInput(
                f"two rows have the id `{row.row_id}`", f"{dataset.name}, {row.where}", "make `read` give each its own"
            )
        seen.add(row.row_id)
        yield row if isinstance(row, BrokenRow) else convert_row(dataset, row, seed)


def _split(
    dataset: Dataset, rows: Iterator[RawRow | BrokenRow], count_tokens: CountTokens | None
) -> Iterator[RawRow | BrokenRow | ChangedRow]:
    for row in rows:
        if dataset.split is None or isinstance(row, BrokenRow):
            yield row
        else:
            yield from dataset.split(row, count_tokens)


def convert_row(dataset: Dataset, row: RawRow, seed: int) -> Conversation | BrokenRow:
    """One raw row as a conversation, or why it is none."""
    try:
        conversation = dataset.convert(row, row_random(seed, dataset.name, row.row_id))
        check_conversation(conversation)
        _check_unicode(conversation)
    except RowDropped as reason:
        return BrokenRow(row.row_id, row.where, str(reason), json.dumps(row.value, ensure_ascii=False, default=str))
    except TuluError:
        raise
    except Exception as error:
        raise StageFailed(
            f"the converter of `{dataset.name}` stopped: {type(error).__name__}: {error}",
            f"{row.where}, row {row.row_id}",
            f"mend `convert` in {dataset.module}; for a row that is no conversation it should raise RowDropped",
        ) from error
    return replace(conversation, dataset=dataset.name)


def _check_unicode(conversation: Conversation) -> None:
    for message in conversation.messages:
        try:
            message.content.encode()
        except UnicodeEncodeError:
            raise RowDropped("not valid Unicode") from None
