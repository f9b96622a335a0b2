"""Normalize: raw rows become conversations; what cannot is set aside with its reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, replace
from pathlib import Path

from tulu_pipeline.artifacts.canonical import added_field, execution_field
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.options import TokenizerMode
from tulu_pipeline.chat.row_log import RowLog
from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.specs.dataset import BrokenRow, ChangedRow, CountTokens, Dataset, RawRow

_REPORT_EVERY_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizeParams:
    """What decides the conversations; the converter's version enters the key as a registered object.

    Attributes:
        dataset: the dataset's name, with its variant.
        seed: from which each row's random stream follows.
        tokenizer_mode: of the tokenizer that long chats are split by; for datasets that do so.
        definition: the dataset itself.
    """

    dataset: str
    seed: int = 42
    tokenizer_mode: TokenizerMode | None = added_field(default=None)
    definition: Dataset = execution_field(default=MISSING)


def run_normalize(job: Job[NormalizeParams], ctx: RunContext) -> Metrics:
    """Writes `conversations.parquet`, `aux/dropped.jsonl` and `aux/changed.jsonl`.

    Raises:
        BadInput: a file cannot be read, no row could be kept, or (with `ctx.strict_rows`) a row had to be dropped.
    """
    from tulu_pipeline.chat.conversations import ConversationWriter

    dataset, raw = job.params.definition, job.input("raw")
    files = {name: raw / name for name in dataset.sources}
    rows = kept = messages = 0
    left_out: list[int] = []
    converted = convert_rows(_reporting(dataset, job, ctx), files, job.params.seed, _counter(job), left_out.append)
    with (
        ConversationWriter(job.out) as writer,
        RowLog(job.aux, "dropped") as dropped,
        RowLog(job.aux, "changed") as changed,
    ):
        for row in converted:
            if isinstance(row, ChangedRow):
                changed.add(row_id=row.row_id, where=row.where, reason=row.reason, text=row.text)
                continue
            rows += 1
            if isinstance(row, BrokenRow):
                dropped.add(row_id=row.row_id, where=row.where, reason=row.reason, text=row.text)
            else:
                writer.write(row)
                kept += 1
                messages += len(row.messages)
    if ctx.strict_rows and dropped.count:
        raise _refused(dataset, rows, dropped)
    if not kept:
        if not rows:
            raise BadInput(f"`{dataset.name}` has no conversation: its files hold no rows", job.name, "fill them")
        where, why = dropped.first[0]
        what = f"`{dataset.name}` has no conversation: all {rows:,} rows were dropped, the first because {why}"
        raise BadInput(what, where, "mend the rows: UTF-8, with the fields and roles that the layout names")
    return {
        "rows": rows,
        "not_drawn": sum(left_out),
        "kept": kept,
        "dropped": dropped.count,
        "dropped_by_reason": dict(dropped.by_reason),
        "changed": changed.count,
        "changed_by_reason": dict(changed.by_reason),
        "rounds_mean": messages / 2 / kept,
    }


def _counter(job: Job[NormalizeParams]) -> CountTokens | None:
    if not job.params.definition.splits_by_tokens:
        return None
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    return load_tokenizer(job.input("tokenizer"), tokenizer_mode=job.params.tokenizer_mode).count_tokens


def _reporting(dataset: Dataset, job: Job[NormalizeParams], ctx: RunContext) -> Dataset:
    """The dataset, which now tells of each raw row read: one that draws gives no row before it has read the last."""

    def read(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
        done = 0
        for row in dataset.read(files):
            yield row
            done += 1
            if done % _REPORT_EVERY_ROWS == 0:
                ctx.progress(job.name, done, None, "rows")
        ctx.progress(job.name, done, done, "rows")

    return replace(dataset, read=read)


def _refused(dataset: Dataset, rows: int, dropped: RowLog) -> BadInput:
    first = "; ".join(f"{where}: {reason}" for where, reason in dropped.first)
    more = f" and {dropped.count - len(dropped.first):,} more" if dropped.count > len(dropped.first) else ""
    return BadInput(
        f"{dropped.count:,} of {rows:,} rows of `{dataset.name}` cannot be used ({first}{more})",
        dropped.first[0][0],
        "mend the rows, or run without --strict-rows to leave them out",
    )


NORMALIZE = Stage(name="normalize", version=3, params=NormalizeParams, run=run_normalize, env=("pyarrow", "tokenizers"))
