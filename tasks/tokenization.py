"""Stage 4: conversations become token ids and loss masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.options import EncodeOptions, LossSpan, SpecialInText, Template, TokenizerMode
from tulu_pipeline.chat.row_log import RowLog
from tulu_pipeline.errors import BadInput

_CONVERSATIONS_PER_BATCH = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeParams:
    """What decides the ids and masks, beside the tokenizer's files.

    Attributes:
        max_length_tokens: longer conversations are cut on the right.
        loss_span: what is supervised, see `chat.options.EncodeOptions`.
        tokenizer_mode: what follows an end mark, see `chat.tokenizer.load_tokenizer`.
        special_in_text: whether a control token typed in a message is text.
        template: the paper's chat format, or the tokenizer's own.
    """

    max_length_tokens: int = 2048
    loss_span: LossSpan = "tulu1"
    tokenizer_mode: TokenizerMode | None = None
    special_in_text: SpecialInText = "literal"
    template: Template = "tulu"

    def __post_init__(self) -> None:
        if self.template == "own" and self.tokenizer_mode is not None:
            raise BadInput(
                f"tokenizer_mode `{self.tokenizer_mode}` is for the paper's chat format",
                "tokenize parameters",
                "use tokenizer_mode None with a tokenizer's own template",
            )


def run_tokenize(job: Job[TokenizeParams], ctx: RunContext) -> Metrics:
    """Writes a folder that `datasets.load_from_disk` and `chat.shards.open_tokens` open, and `aux/dropped.jsonl`.

    Raises:
        BadInput: the tokenizer or its chat template cannot be used, or no conversation has anything to learn.
    """
    from tulu_pipeline.chat.conversations import ConversationFile
    from tulu_pipeline.chat.encode import Encoded, encode_many, id_type
    from tulu_pipeline.chat.own_template import load_own_template
    from tulu_pipeline.chat.schema import Conversation
    from tulu_pipeline.chat.shards import TokenWriter
    from tulu_pipeline.chat.tokenizer import load_tokenizer

    params = job.params
    tokenizer = load_tokenizer(
        job.input("tokenizer"), tokenizer_mode=params.tokenizer_mode, special_in_text=params.special_in_text
    )
    options = EncodeOptions(max_length_tokens=params.max_length_tokens, loss_span=params.loss_span)
    made_by = asdict(params) | {"tokenizer_fingerprint": tokenizer.fingerprint}
    own = None
    if params.template == "own":
        own = load_own_template(job.input("tokenizer"), tokenizer, loss_span=params.loss_span)
        made_by["template_fingerprint"] = own.fingerprint

    def encoded_or_why_not(batch: Sequence[Conversation]) -> Sequence[Encoded | BadInput]:
        if own is None:
            return encode_many(batch, tokenizer, options)
        return own.encode_many(batch, max_length_tokens=params.max_length_tokens)

    conversations = ConversationFile(job.input("conversations"))
    total, done, truncated, reason = len(conversations), 0, 0, "there are none"
    rest = iter(conversations)
    with (
        TokenWriter(job.out, id_type(tokenizer.vocabulary_size), made_by) as writer,
        RowLog(job.aux, "dropped") as dropped,
    ):
        while batch := list(islice(rest, _CONVERSATIONS_PER_BATCH)):
            for conversation, encoded in zip(batch, encoded_or_why_not(batch), strict=True):
                if isinstance(encoded, BadInput):
                    reason = encoded.what
                else:
                    truncated += encoded.truncated
                    if encoded.loss_mask.any():
                        writer.write(conversation.id, encoded)
                        continue
                    reason = f"nothing to learn in the first {params.max_length_tokens:,} tokens"
                dropped.add(
                    row_id=conversation.id,
                    where=conversation.dataset,
                    reason=reason,
                    text=conversation.messages[0].content,
                )
            done += len(batch)
            ctx.progress(job.name, done, total, "conversations")
    if not writer.rows:
        raise BadInput(
            f"none of {total:,} conversations can be learned from; the last one: {reason}",
            job.name,
            "raise max_length_tokens"
            if params.template == "tulu"
            else "raise max_length_tokens, or use template `tulu`",
        )
    return {
        "rows": writer.rows,
        "tokens": writer.tokens,
        "supervised_tokens": writer.supervised_tokens,
        "longest": writer.longest,
        "truncated": truncated,
        "dropped": dropped.count,
    }


TOKENIZE = Stage(name="tokenize", version=1, params=TokenizeParams, run=run_tokenize, env=("pyarrow", "tokenizers"))
