"""Stage 3: one component of a mixture, where it is filtered or capped."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_pipeline.artifacts.canonical import added_field
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.draw import draw
from tulu_pipeline.specs.mixture import Deduplicate


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
    """Writes `conversations.parquet` with the drawn conversations, in their order."""
    from tulu_pipeline.chat.conversations import ConversationFile, ConversationWriter

    params = job.params
    conversations = ConversationFile(job.input("conversations"))
    rows = len(conversations)
    assert params.cap is not None
    chosen = set(draw(conversations.ids(), params.cap, seed=params.seed, dataset=params.dataset))
    with ConversationWriter(job.out) as writer:
        for index, conversation in enumerate(conversations):
            if index in chosen:
                writer.write(conversation)
    note = (
        f"the cap of {params.cap:,} is above the {rows:,} conversations there are: all kept"
        if rows < params.cap
        else ""
    )
    ctx.progress(job.name, rows, rows, "conversations", note)
    return {"rows": rows, "kept": len(chosen), "cap": params.cap, "note": note}


MIX = Stage(name="mix", version=1, params=MixParams, run=run_mix, env=("pyarrow",))
