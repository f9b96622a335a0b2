"""Describe folders as their stage leaves them: a full dataset, a sample, one of a user's own with hostile text."""

from pathlib import Path

from tasks.describe import DescribeParams, run_describe
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.chat.conversations import ConversationWriter
from tulu_pipeline.chat.row_log import RowLog
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.profile import Profile
from tulu_pipeline.reporting.data_table import DataRow
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.dataset import PaperCounts

HOSTILE = "</script><script>document.title='pwned'</script><img src=x onerror=\"document.title='pwned'\">"
DATA = (
    DataRow(
        name="alpaca", title="Alpaca", license="CC-BY-NC-4.0",
        paper=PaperCounts(instances=52_002, mean_rounds=1.0, mean_prompt_tokens=27.8, mean_completion_tokens=64.6),
    ),
    DataRow(
        name="code_alpaca:sample", title="Code Alpaca", license="CC-BY-NC-4.0", sample="2,017 of 20,022",
        paper=PaperCounts(instances=20_022, mean_rounds=1.0, mean_prompt_tokens=35.6, mean_completion_tokens=67.8),
    ),
    DataRow(name="own", title="Our | own <b>", license="CC0-1.0"),
    DataRow(name="gone", title="Gone", license="MIT"),
)  # fmt: skip


def write_described(folder: Path, tokenizer: Path) -> dict[str, Path | None]:
    """The folders of `DATA` by name; `gone` is None."""
    found: dict[str, Path | None] = {"gone": None}
    for row in DATA:
        if row.name == "gone":
            continue
        conversations = folder / row.name / "conversations"
        (conversations / "aux").mkdir(parents=True)
        with ConversationWriter(conversations) as writer:
            for number in range(40):
                asked = HOSTILE if row.name == "own" else f"What is {number} and {number}?" + " Why?" * (number % 9)
                turn = (Message("user", asked), Message("assistant", f"{2 * number}.\n\nSo\tsay we, 𓃒 and all."))
                language, license_ = ("de", "MIT") if number % 4 == 0 else ("", "")
                conversation = Conversation(row.name, f"{row.name}_{number}", turn * (1 + number % 3))
                writer.write(
                    Conversation(conversation.dataset, conversation.id, conversation.messages, license_, language)
                )
        with RowLog(conversations / "aux", "dropped") as dropped, RowLog(conversations / "aux", "changed"):
            if row.name == "own":
                dropped.add(row_id="7", where="own.jsonl:8", reason=f"no {HOSTILE}")
        out = folder / row.name / "described"
        out.mkdir()
        job = Job(
            name=f"describe[{row.name}]",
            params=DescribeParams(dataset=row.name, tokenizer_mode="legacy_fast", max_length_tokens=90, shown=3),
            inputs={"conversations": conversations, "tokenizer": tokenizer}, sources={}, out=out,
            work=folder / "work", publish=lambda metrics: None,
        )  # fmt: skip
        run_describe(job, RunContext(profile=Profile(), settings=read_settings()))
        found[row.name] = out
    return found
