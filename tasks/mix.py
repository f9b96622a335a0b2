"""Mix: one component of a mixture, where it is filtered or capped."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tulu_pipeline.artifacts.canonical import added_field
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.draw import draw
from tulu_pipeline.chat.row_log import RowLog
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.mixture import Deduplicate

if TYPE_CHECKING:
    from tulu_pipeline.chat.conversations import ConversationFile
    from tulu_pipeline.chat.schema import Conversation
    from tulu_pipeline.mixing.filters import Verdicts

_REPORT_EVERY_ROWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class MixParams:
    """What is drawn.

    Attributes:
        dataset: the component's name, with its variant.
        cap: at most this many conversations; None for all that the filters leave.
        seed: the mixture's.
        whole_cap: fewer than `cap` is an error, because a weight asked for them.
        deduplicate, languages, licenses: see `specs.mixture.Component`.
        dataset_license: of rows that have none of their own; told only where `licenses` are.
    """

    dataset: str
    cap: int | None
    seed: int = 42
    whole_cap: bool = added_field(default=False)
    deduplicate: Deduplicate = added_field(default="")
    languages: tuple[str, ...] = added_field(default=())
    licenses: tuple[str, ...] = added_field(default=())
    dataset_license: str = added_field(default="")


def run_mix(job: Job[MixParams], ctx: RunContext) -> Metrics:
    """Writes `conversations.parquet` with what passes the filters and is drawn, in order, and `aux/dropped.jsonl`.

    Raises:
        BadInput: the filters leave nothing, or fewer than a weight asks for.
    """
    from tulu_pipeline.chat.conversations import ConversationFile

    params = job.params
    conversations = ConversationFile(job.input("conversations"))
    verdicts = _judge(conversations, job, ctx)
    passed = array("q", verdicts.passed()) if verdicts else array("q", range(len(conversations)))
    if params.whole_cap and params.cap is not None and 0 < len(passed) < params.cap:
        raise _too_few(job, len(passed), params.cap)
    with RowLog(job.aux, "dropped") as dropped:
        kept = _write(conversations, verdicts, _drawn(conversations, passed, params), dropped, job)
    if not passed:
        raise _nothing_left(job, len(conversations), dropped)
    note = ""
    if params.cap is not None and len(passed) < params.cap:
        note = f"the cap of {params.cap:,} is above the {len(passed):,} conversations there are: all kept"
    ctx.progress(job.name, len(conversations), len(conversations), "conversations", note)
    return {
        "rows": len(conversations),
        "kept": kept,
        "cap": params.cap,
        "note": note,
        "dropped": dropped.count,
        "dropped_by_reason": dict(dropped.by_reason),
        "not_drawn": len(passed) - kept,
    }


def _judge(conversations: ConversationFile, job: Job[MixParams], ctx: RunContext) -> Verdicts | None:
    """Which conversations pass the filters; None where there are no filters."""
    params = job.params
    if not (params.licenses or params.languages or params.deduplicate):
        return None
    from tulu_pipeline.mixing.filters import Filters, judge

    filters = Filters(
        licenses=params.licenses,
        dataset_license=params.dataset_license,
        languages=params.languages,
        deduplicate=params.deduplicate,
    )
    return judge(conversations, filters, scratch=job.work, progress=partial(_report, len(conversations), job.name, ctx))


def _report(total: int, name: str, ctx: RunContext, done: int, note: str) -> None:
    if done % _REPORT_EVERY_ROWS == 0:
        ctx.progress(name, done, total, "conversations", note)


def _drawn(conversations: ConversationFile, passed: array[int], params: MixParams) -> set[int] | None:
    """Places of the drawn conversations; None where the filters alone decide."""
    if params.cap is None:
        return None
    ids = _at(conversations.ids(), passed)
    return {passed[number] for number in draw(ids, params.cap, seed=params.seed, dataset=params.dataset)}


def _at(ids: Iterator[str], places: array[int]) -> Iterator[str]:
    wanted = iter(places)
    place = next(wanted, None)
    for number, row_id in enumerate(ids):
        if number == place:
            yield row_id
            place = next(wanted, None)


def _write(
    conversations: ConversationFile,
    verdicts: Verdicts | None,
    drawn: set[int] | None,
    dropped: RowLog,
    job: Job[MixParams],
) -> int:
    """Writes what is kept and notes what is dropped, in one pass; returns how many are kept."""
    from tulu_pipeline.chat.conversations import FILE, ConversationWriter

    repeated = verdicts.repeated() if verdicts else set()
    ids: dict[int, str] = {}
    kept = 0
    with ConversationWriter(job.out) as writer:
        for place, conversation in enumerate(conversations):
            if place in repeated:
                ids[place] = conversation.id
            refused = verdicts[place] if verdicts else None
            if refused is not None:
                dropped.add(
                    row_id=conversation.id,
                    where=f"{FILE}, row {place}",
                    reason=refused.reason("" if refused.earlier is None else ids[refused.earlier]),
                    text=_beginning(conversation),
                    counted_as=refused.kind,
                )
            elif drawn is None or place in drawn:
                writer.write(conversation)
                kept += 1
    return kept


def _beginning(conversation: Conversation) -> str:
    return next((message.content for message in conversation.messages if message.role == "user"), "")


def _nothing_left(job: Job[MixParams], rows: int, dropped: RowLog) -> BadInput:
    counts = "; ".join(f"{count:,} {reason}" for reason, count in dropped.by_reason.most_common(5))
    return BadInput(
        f"nothing is left of the {rows:,} conversations of `{job.params.dataset}`: {counts}",
        job.name,
        "loosen the filters of this component, or leave it out",
    )


def _too_few(job: Job[MixParams], left: int, cap: int) -> BadInput:
    return BadInput(
        f"the weight of `{job.params.dataset}` asks for {cap:,} conversations, and there are {left:,}",
        job.name,
        f"let each be seen {-(-cap // left)} times as often (`repeat`), lower its weight, or lower the mixture's total",
    )


MIX = Stage(name="mix", version=2, params=MixParams, run=run_mix, env=("pyarrow", "datasketch", "py3langid"))
