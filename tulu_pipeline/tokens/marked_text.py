"""Conversations in any chat format as one text with marks: what the tokenizer works on, many at a time.

A mark is a byte that no UTF-8 has. One opens each conversation, and one stands in the place of each control token; the
text between two marks is ordinary text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tulu_pipeline.chat.spans import Span, stripped
from tulu_pipeline.tokens.cuts import MARK

_MARK = bytes([MARK])
OPENS = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MarkedText:
    """Some conversations.

    Attributes:
        text: UTF-8 and marks.
        starts: byte offsets, ascending, the first is 0: from each to the next, text counts for the loss or does not.
        flags: which of the two.
        controls: for each mark the control token's id, or `OPENS`.
        control_flags: whether that token counts for the loss.
    """

    text: bytes
    starts: npt.NDArray[np.int64]
    flags: npt.NDArray[np.bool_]
    controls: npt.NDArray[np.int64]
    control_flags: npt.NDArray[np.bool_]

    @property
    def count(self) -> int:
        """How many conversations."""
        return int((self.controls == OPENS).sum())

    def conversations(self, rows: npt.NDArray[np.bool_]) -> Iterator[list[Span]]:
        """The spans of those conversations at which `rows` is true."""
        marks = np.flatnonzero(np.frombuffer(self.text, np.uint8) == MARK)
        first_marks = np.append(np.flatnonzero(self.controls == OPENS), len(marks))
        ends = np.append(marks, len(self.text)).tolist()
        for row in np.flatnonzero(rows).tolist():
            first, after = first_marks[row : row + 2].tolist()
            yield [
                self._span(ends[mark] + 1, ends[mark + 1], mark + 1, mark + 1 < after) for mark in range(first, after)
            ]

    def _span(self, start: int, end: int, mark: int, has_control: bool) -> Span:
        text = self.text[start:end]
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        after = max(first + 1, int(np.searchsorted(self.starts, end, side="left")))
        places = [max(0, place - start) for place in self.starts[first:after].tolist()]
        return Span(
            text.decode(),
            [len(text[:place].decode()) for place in places],
            self.flags[first:after].tolist(),
            int(self.controls[mark]) if has_control else None,
            has_control and bool(self.control_flags[mark]),
        )


def marked(conversations: Sequence[Sequence[Span]], *, strips: bool) -> MarkedText:
    """The spans of conversations as one text; with `strips`, white space at control tokens is left out."""
    parts, controls, control_flags = list[bytes](), list[int](), list[bool]()
    starts, flags, size = [0], [False], 0
    for spans in conversations:
        controls.append(OPENS)
        control_flags.append(False)
        parts.append(_MARK)
        size += 1
        for index, whole in enumerate(spans):
            span = stripped(whole, follows=index > 0) if strips else whole
            text = span.text.encode()
            starts += [size + len(span.text[:start].encode()) for start in span.starts]
            flags += span.flags
            parts.append(text)
            size += len(text)
            if span.control is not None:
                controls.append(span.control)
                control_flags.append(span.control_counts)
                parts.append(_MARK)
                size += 1
    return MarkedText(
        text=b"".join(parts),
        starts=np.array(starts, np.int64),
        flags=np.array(flags, bool),
        controls=np.array(controls, np.int64),
        control_flags=np.array(control_flags, bool),
    )
