"""Marked text to token ids by the tokenizer's own encoding of whole texts, which tells where each token begins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

from tulu_pipeline.chat.spans import Span
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.encoded import Encoded
from tulu_pipeline.tokens.marked_text import MarkedText


class PlainText:
    """Encodes marked text for every tokenizer there is.

    Args:
        opening: for texts that open a conversation.
        following: for texts after a control token.
        id_type: of the ids.
        never_text: ids that no text may become.
    """

    def __init__(
        self,
        opening: Tokenizer,
        following: Tokenizer,
        id_type: type[np.unsignedinteger],
        never_text: frozenset[int] = frozenset(),
    ) -> None:
        self._opening, self._following, self._id_type = opening, following, id_type
        self._never_text = never_text

    def encode(
        self, texts: MarkedText, rows: npt.NDArray[np.bool_], *, bos_ids: tuple[int, ...], max_length_tokens: int
    ) -> list[Encoded]:
        """Ids and masks of the conversations at which `rows` is true, on as many threads as the tokenizer likes.

        Raises:
            BadInput: a text becomes a control id, which nothing but a tokenizer of an unknown kind lets happen.
        """
        conversations = list(texts.conversations(rows))
        opening = [span.text for spans in conversations for span in spans[:1]]
        following = [span.text for spans in conversations for span in spans[1:]]
        opened, followed = (
            iter(backend.encode_batch(some, add_special_tokens=False))
            for backend, some in ((self._opening, opening), (self._following, following))
        )
        return [
            self._assemble(
                spans,
                [next(followed if index else opened) for index in range(len(spans))],
                bos_ids,
                max_length_tokens,
            )
            for spans in conversations
        ]

    def _assemble(
        self, spans: Sequence[Span], encodings: Sequence[Encoding], bos_ids: tuple[int, ...], max_length_tokens: int
    ) -> Encoded:
        ids: list[int] = list(bos_ids)
        mask: list[npt.NDArray[np.bool_]] = [np.zeros(len(ids), dtype=bool)]
        for span, encoding in zip(spans, encodings, strict=True):
            if not self._never_text.isdisjoint(encoding.ids):
                raise BadInput(
                    f"text becomes a control token of this tokenizer: {span.text[:80]!r}",
                    "tokenizer",
                    "leave the row out, or write special_in_text=hf in the recipe",
                )
            count = len(encoding.ids)
            ids += encoding.ids
            token_starts = np.fromiter((start for start, _ in encoding.offsets), dtype=np.int64, count=count)
            piece_of_token = np.searchsorted(span.starts, token_starts, side="right") - 1
            mask.append(np.array(span.flags, dtype=bool)[piece_of_token])
            if span.control is not None:
                ids.append(span.control)
                mask.append(np.array([span.control_counts]))
        kept = min(len(ids), max_length_tokens)
        loss_mask = np.concatenate(mask)[:kept].astype(np.uint8)
        loss_mask[:1] = 0
        return Encoded(np.array(ids[:kept], dtype=self._id_type), loss_mask, truncated=len(ids) > kept)
