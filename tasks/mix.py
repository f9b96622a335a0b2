"""Stage 3: one component of a mixture, where it is capped."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.draw import draw
from tulu_pipeline.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class MixParams:
    """What is drawn.

    Attributes:
        dataset: the component's name, with its variant.
        cap: at most this many conversations.
        seed: the mixture's.
    """

    dataset: str
    cap: int
    seed: int = 42

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise BadInput(f"the cap of `{self.dataset}` is {self.cap}", "mixture", "write at least 1, or None for all")


def run_mix(job: Job[MixParams], ctx: RunContext) -> Metrics:
    """Writes `conversations.parquet` with the drawn conversations, in their order."""
    from tulu_pipeline.chat.conversations import ConversationFile, ConversationWriter

    params = job.params
    conversations = ConversationFile(job.input("conversations"))
    rows = len(conversations)
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
