"""Raw rows to conversations: every row comes out, as a conversation or with the reason why not."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import TypeVar

from tulu_pipeline.chat.draw import RowStreams, row_random
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

_Row = TypeVar("_Row", RawRow | BrokenRow, RawRow | BrokenRow | ChangedRow)
_AFTER_DATASET = attrgetter(*(field.name for field in fields(Conversation)[1:]))


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
        BadInput: a file cannot be read as a whole, or two conversations would have one id.
        StageFailed: the converter stopped on a row with an error of its own.
    """
    streams = RowStreams(seed, dataset.name)
    hashes = array("q")  # of the ids: 8 bytes a row, where a set of texts would take more than a hundred
    for row in _rows(dataset, files, seed, count_tokens, on_left_out):
        if isinstance(row, ChangedRow):
            yield row
            continue
        made = row if isinstance(row, BrokenRow) else _converted(dataset, row, streams.of(row.row_id))
        if isinstance(made, Conversation):
            hashes.append(hash(row.row_id))
        yield made
    if suspects := _repeated(hashes):
        rows = _rows(dataset, files, seed, count_tokens, lambda count: None)
        again = (row for row in rows if isinstance(row, RawRow) and hash(row.row_id) in suspects)
        _check_ids(
            dataset,
            (row for row in again if isinstance(_converted(dataset, row, streams.of(row.row_id)), Conversation)),
        )


def convert_row(dataset: Dataset, row: RawRow, seed: int) -> Conversation | BrokenRow:
    """One raw row as a conversation, or why it is none."""
    return _converted(dataset, row, row_random(seed, dataset.name, row.row_id))


def _rows(
    dataset: Dataset,
    files: Mapping[str, Path],
    seed: int,
    count_tokens: CountTokens | None,
    on_left_out: Callable[[int], None],
) -> Iterator[RawRow | BrokenRow | ChangedRow]:
    """What there is to convert: the rows read, drawn and split."""

    def read() -> Iterator[RawRow | BrokenRow]:
        return map(_with_plain_id, dataset.read(files))

    if dataset.draw is None:
        rows = read()
    else:
        rows = drawn(read, dataset.draw, seed=seed, dataset=dataset.name, on_left_out=on_left_out)
    return _split(dataset, rows, count_tokens)


def _split(
    dataset: Dataset, rows: Iterator[RawRow | BrokenRow], count_tokens: CountTokens | None
) -> Iterator[RawRow | BrokenRow | ChangedRow]:
    for row in rows:
        if dataset.split is None or isinstance(row, BrokenRow):
            yield row
        else:
            yield from map(_with_plain_id, dataset.split(row, count_tokens))


def _with_plain_id(row: _Row) -> _Row | BrokenRow:
    """The row; a broken one, under an id that can be written, where its own is not valid Unicode."""
    if _is_unicode(row.row_id):
        return row
    plain = row.row_id.encode(errors="backslashreplace").decode()
    if isinstance(row, RawRow):
        return BrokenRow(plain, row.where, "its id is not valid Unicode", _shown(row.value))
    return replace(row, row_id=plain)


def _repeated(hashes: array[int]) -> set[int]:
    """The hashes that occur more than once."""
    import numpy as np

    in_order = np.sort(np.frombuffer(hashes, dtype=np.int64))
    return set(in_order[1:][in_order[1:] == in_order[:-1]].tolist())


def _check_ids(dataset: Dataset, suspects: Iterator[RawRow]) -> None:
    """Raises BadInput for the first row with an id that was there before; two ids may also have one hash by chance."""
    first: dict[str, str] = {}
    for row in suspects:
        if row.row_id in first:
            column = dataset.id_column
            raise BadInput(
                f"two rows have the id `{row.row_id}`, the first at {first[row.row_id]}"
                + (f": the column `{column}` repeats" if column else ""),
                f"{dataset.name}, {row.where}",
                'leave `"id"` out of `names`, and rows are numbered' if column else "make `read` give each its own",
            )
        first[row.row_id] = row.where


def _converted(dataset: Dataset, row: RawRow, rng: random.Random) -> Conversation | BrokenRow:
    try:
        conversation = dataset.convert(row, rng)
        check_conversation(conversation)
        _check_unicode(conversation)
    except RowDropped as reason:
        return BrokenRow(row.row_id, row.where, str(reason), _shown(row.value))
    except TuluError:
        raise
    except Exception as error:
        raise StageFailed(
            f"the converter of `{dataset.name}` stopped: {type(error).__name__}: {error}",
            f"{row.where}, row {row.row_id}",
            f"mend `convert` in {dataset.module}; for a row that is no conversation it should raise RowDropped",
        ) from error
    if conversation.dataset == dataset.name:
        return conversation
    return Conversation(dataset.name, *_AFTER_DATASET(conversation))


def _check_unicode(conversation: Conversation) -> None:
    if not all(_is_unicode(message.content) for message in conversation.messages):
        raise RowDropped("not valid Unicode")
    for name in ("id", "license", "language"):
        if not _is_unicode(getattr(conversation, name)):
            raise RowDropped(f"its {name} is not valid Unicode")


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
