"""Tokenize: conversations become token ids and loss masks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields

from tulu_pipeline.artifacts.canonical import execution_field
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.options import EncodeOptions, LossSpan, SpecialInText, Template, TokenizerMode
from tulu_pipeline.chat.row_log import RowLog
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.special_tokens import SpecialTokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizeParams:
    """What decides the ids and masks, beside the tokenizer's files.

    Attributes:
        max_length_tokens: longer conversations are cut on the right.
        loss_span: what is supervised, see `chat.options.EncodeOptions`.
        tokenizer_mode: what follows an end mark, see `tokens.tokenizer.load_tokenizer`.
        special_in_text: whether a control token typed in a message is text.
        template: the paper's chat format, or the tokenizer's own.
        special_tokens: what the tokenizer's value says of its files; None for nothing. It is compared, and decides
            nothing.
    """

    max_length_tokens: int = 2048
    loss_span: LossSpan = "tulu1"
    tokenizer_mode: TokenizerMode | None = None
    special_in_text: SpecialInText = "literal"
    template: Template = "tulu"
    special_tokens: SpecialTokens | None = execution_field(default=None)

    def __post_init__(self) -> None:
        if self.template == "own" and self.tokenizer_mode is not None:
            raise BadInput(
                f"tokenizer_mode `{self.tokenizer_mode}` is for the paper's chat format",
                "tokenize parameters",
                "use tokenizer_mode None with a tokenizer's own template",
            )


def run_tokenize(job: Job[TokenizeParams], ctx: RunContext) -> Metrics:
    """Writes a folder that `datasets.load_from_disk` and `tokens.shards.open_tokens` open, and `aux/dropped.jsonl`.

    Row groups may be encoded by several processes; the bytes do not depend on how many.

    Raises:
        BadInput: the tokenizer or its chat template cannot be used, its special tokens are not those that its value
            says, or no conversation has anything to learn.
        StageFailed: a process that encodes died.
    """
    import pyarrow as pa

    from tulu_pipeline.chat.conversations import conversations_of
    from tulu_pipeline.tokens.encode_file import EncodeJob, GroupEncoder
    from tulu_pipeline.tokens.encode_ranges import encoded_groups, sensible_processes
    from tulu_pipeline.tokens.shards import TokenWriter
    from tulu_pipeline.tokens.special_tokens import check_special_tokens

    options = {item.name: getattr(job.params, item.name) for item in fields(job.params)}
    said = options.pop("special_tokens")
    work = EncodeJob(conversations=job.input("conversations"), tokenizer=job.input("tokenizer"), **options)
    encoder = GroupEncoder(work)
    if said is not None:
        check_special_tokens(said, work.tokenizer, encoder.tokenizer)
    processes = sensible_processes(encoder, ctx.profile.cpu_slots)
    log.info("%s: %s, %d process%s", job.name, encoder.way, processes, "es" * (processes > 1))
    total, done, truncated, cut_answers = len(encoder.file), 0, 0, 0
    nothing_learned = EncodeOptions(max_length_tokens=job.params.max_length_tokens).nothing_learned
    with (
        TokenWriter(job.out, encoder.id_type, options | encoder.fingerprints) as writer,
        RowLog(job.aux, "dropped") as dropped,
    ):
        groups = encoded_groups(work, encoder, processes=processes, ctx=ctx, work=job.work)
        for index, group in enumerate(groups):
            learned = group.rows.supervised() > 0
            kept = group.rows.kept(learned)
            writer.write_batch(encoder.file.group(index, ["id"]).column("id").filter(pa.array(learned)), kept)
            truncated += int(group.rows.truncated.sum())
            cut_answers += int(kept.cut_answers(encoder.end_ids).sum())
            if not learned.all():
                left_out = encoder.file.group(index).filter(pa.array(~learned))
                reasons = [group.refused.get(row, nothing_learned) for row in (~learned).nonzero()[0].tolist()]
                for conversation, reason in zip(conversations_of(left_out), reasons, strict=True):
                    text = conversation.messages[0].content
                    dropped.add(row_id=conversation.id, where=conversation.dataset, reason=reason, text=text)
            done += len(learned)
            ctx.progress(job.name, done, total, "conversations")
    if not writer.rows:
        reason = dropped.first[0][1] if dropped.first else "there are none"
        raise BadInput(
            f"none of {total:,} conversations can be learned from; the first one: {reason}",
            job.name,
            "raise max_length_tokens"
            if job.params.template == "tulu"
            else "raise max_length_tokens, or use template `tulu`",
        )
    return {
        "rows": writer.rows,
        "tokens": writer.tokens,
        "supervised_tokens": writer.supervised_tokens,
        "longest": writer.longest,
        "truncated": truncated,
        "cut_answers": cut_answers,
        "dropped": dropped.count,
        "encoder": encoder.way,
    }


TOKENIZE = Stage(
    name="tokenize", version=1, params=TokenizeParams, run=run_tokenize, env=("pyarrow", "tokenizers", "jinja2")
)
