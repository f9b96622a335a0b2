"""The conversations of a file as tokens, a row group at a time; each group follows from the file alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from tulu_pipeline.chat.conversations import ConversationFile, conversations_of
from tulu_pipeline.chat.options import EncodeOptions, LossSpan, SpecialInText, Template, TokenizerMode
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.encode import encode_lists
from tulu_pipeline.tokens.encoded import Encoded, EncodedBatch, concatenated, id_type, joined
from tulu_pipeline.tokens.own_template import OwnTemplate, load_own_template
from tulu_pipeline.tokens.tokenizer import load_tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeJob:
    """What to encode, and how; the options are those of the tokenize stage.

    Attributes:
        conversations: folder of the conversations.
        tokenizer: folder of the tokenizer.
    """

    conversations: Path
    tokenizer: Path
    max_length_tokens: int
    loss_span: LossSpan
    tokenizer_mode: TokenizerMode | None
    special_in_text: SpecialInText
    template: Template


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EncodedGroup:
    """A row group as tokens.

    Attributes:
        rows: one for each conversation.
        refused: why the template does not take a conversation, by its place in the group; such have no tokens.
    """

    rows: EncodedBatch
    refused: Mapping[int, str] = field(default_factory=dict)


class GroupEncoder:
    """Encodes row groups; one thread at a time.

    Raises:
        BadInput: the tokenizer or its chat template cannot be used.
        Tampered: the conversations cannot be read.
    """

    def __init__(self, job: EncodeJob) -> None:
        self._job = job
        self.tokenizer = load_tokenizer(
            job.tokenizer, tokenizer_mode=job.tokenizer_mode, special_in_text=job.special_in_text
        )
        self.id_type = id_type(self.tokenizer.vocabulary_size)
        self.file = ConversationFile(job.conversations)
        self.own: OwnTemplate | None = None
        if job.template == "own":
            self.own = load_own_template(job.tokenizer, self.tokenizer, loss_span=job.loss_span)

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of what decides the ids beside the job: the tokenizer, and its template where that is used."""
        of_template = {} if self.own is None else {"template_fingerprint": self.own.fingerprint}
        return {"tokenizer_fingerprint": self.tokenizer.fingerprint} | of_template

    @property
    def way(self) -> str:
        """How texts become tokens: `fast`, or `plain: ` and why."""
        return self.tokenizer.encoder.way

    @property
    def end_ids(self) -> list[int]:
        """What ends an answer."""
        return [self.tokenizer.end_mark_id, *(self.own.end_of_turn_ids if self.own else ())]

    def encode(self, group: int) -> EncodedGroup:
        """The tokens of a row group."""
        if self.own is not None:
            return self._by_own_template(self.own, self.file.group(group))
        messages = self.file.group(group, ["messages"]).column("messages")
        batches = list(encode_lists(messages, self.tokenizer, self._options))
        return EncodedGroup(rows=concatenated(batches, self.id_type))

    @cached_property
    def _options(self) -> EncodeOptions:
        return EncodeOptions(max_length_tokens=self._job.max_length_tokens, loss_span=self._job.loss_span)

    def _by_own_template(self, own: OwnTemplate, batch: pa.RecordBatch) -> EncodedGroup:
        conversations = list(conversations_of(batch))
        rows, refused = list[Encoded](), dict[int, str]()
        nothing = Encoded(np.zeros(0, self.id_type), np.zeros(0, np.uint8), truncated=False)
        for place, row in enumerate(own.encode_many(conversations, max_length_tokens=self._job.max_length_tokens)):
            if isinstance(row, BadInput):
                refused[place] = row.what
            rows.append(nothing if isinstance(row, BadInput) else row)
        return EncodedGroup(rows=joined(rows, self.id_type), refused=refused)
