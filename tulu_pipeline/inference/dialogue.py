"""A conversation with a tuned checkpoint, as token ids: what it was shown in training, up to where it answers."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from pathlib import Path

from tulu_pipeline.chat.options import EncodeOptions, Template
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.encode import encode, encode_spans
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.tokens.tulu_template import carried_template

_UNCUT = 2**31


class Dialogue:
    """Encodes conversations as a checkpoint was taught; use from one thread.

    Attributes:
        template: the chat format.
    """

    def __init__(self, folder: Path, template: Template | None = None) -> None:
        """Read a checkpoint's tokenizer.

        Args:
            folder: the checkpoint.
            template: the chat format; None takes the one that the checkpoint carries.

        Raises:
            BadInput: it carries none, or one that cannot be used.
        """
        self._tokenizer = load_tokenizer(folder)
        self.template: Template = template or carried_template(folder)
        self._own = load_own_template(folder, self._tokenizer) if self.template == "own" else None

    def prompt_ids(self, messages: Sequence[Message]) -> array[int]:
        """Token ids of some messages and of what opens the assistant's next one; each answer has its end mark.

        They are the ids with which the training example of these messages and an answer begins. In a template of the
        tokenizer's own, a token in which the header and the answer's first characters meet may differ.

        Raises:
            BadInput: the template refuses the messages, or BOS does not stand exactly once.
        """
        ids = array("I", self._tulu_ids(messages) if self._own is None else self._own_ids(messages))
        if any(ids.count(bos) != 1 for bos in self._tokenizer.bos_ids):
            bos = self._tokenizer.bos_ids[0]
            raise BadInput(
                f"token {bos} (BOS) stands {ids.count(bos)} times in a conversation",
                "the checkpoint's tokenizer",
                "look at its files",
            )
        return ids

    def _tulu_ids(self, messages: Sequence[Message]) -> list[int]:
        """All but the end mark of the conversation with an empty answer."""
        asked = Conversation("chat", "chat", (*messages, Message("assistant", "")))
        ids: list[int] = encode(asked, self._tokenizer, EncodeOptions(max_length_tokens=_UNCUT)).input_ids.tolist()
        assert ids[-1] == self._tokenizer.end_mark_id, "an assistant's message ends with the end mark"
        return ids[:-1]

    def _own_ids(self, messages: Sequence[Message]) -> list[int]:
        assert self._own is not None
        spans, add_bos = self._own.asked(messages)
        (encoded,) = encode_spans([spans], self._tokenizer, max_length_tokens=_UNCUT, add_bos=add_bos)
        ids: list[int] = encoded.input_ids.tolist()
        return ids
