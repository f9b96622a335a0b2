"""Row groups over processes: the same bytes, no process left behind, and a death is an error."""

import errno
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.tokenization import TOKENIZE, TokenizeParams
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.chat.conversations import ConversationFile, ConversationWriter
from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.tokens import encode_ranges
from tulu_pipeline.tokens.encode import encode_many
from tulu_pipeline.tokens.encode_file import EncodeJob, GroupEncoder
from tulu_pipeline.tokens.encode_ranges import encoded_groups
from tulu_pipeline.tokens.tokenizer import load_tokenizer

CONTEXT = RunContext(profile=Profile(cpu_slots=3), settings=read_settings())


@pytest.fixture(scope="module")
def conversations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three row groups; every tenth conversation has nothing to learn in its first tokens."""
    folder = tmp_path_factory.mktemp("conversations")
    with ConversationWriter(folder) as writer:
        for number in range(9000):
            question = f"What is {number} and {number}? " * (20 if number % 10 == 0 else 1)
            turns = (Message("user", question), Message("assistant", f"{number} ▁ {number * 2}."))
            writer.write(Conversation("demo", f"demo_{number}", turns * (1 + number % 2)))
    return folder


@pytest.fixture
def work(conversations: Path, llama_like: Path) -> EncodeJob:
    return EncodeJob(
        conversations=conversations,
        tokenizer=llama_like,
        max_length_tokens=80,
        loss_span="tulu1",
        tokenizer_mode="legacy_fast",
        special_in_text="literal",
        template="tulu",
    )


def tokenize(out: Path, conversations: Path, tokenizer: Path) -> tuple[dict[str, str], Any]:
    job = Job(
        name="tokenize[x]",
        params=TokenizeParams(tokenizer_mode="legacy_fast", max_length_tokens=80),
        inputs={"conversations": conversations, "tokenizer": tokenizer},
        sources={},
        out=out,
        work=out.with_suffix(".work"),
        publish=lambda metrics: None,
    )
    out.mkdir()
    metrics = TOKENIZE.run(job, CONTEXT)  # type: ignore[arg-type]
    files = (file for file in sorted(out.rglob("*")) if file.is_file())
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}, metrics


def test_several_processes_write_the_same_bytes_as_one(
    conversations: Path, llama_like: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = encode_ranges.sensible_processes
    monkeypatch.setattr(encode_ranges, "sensible_processes", lambda *args: asked.append(real(*args)) or asked[-1])
    one, metrics = tokenize(tmp_path / "one", conversations, llama_like)
    monkeypatch.setattr(encode_ranges, "_BYTES_PER_PROCESS", {"fast": 1, "plain": 1})
    several, same_metrics = tokenize(tmp_path / "several", conversations, llama_like)
    assert asked == [1, 3]
    assert one == several
    assert metrics == same_metrics
    assert (metrics["rows"], metrics["dropped"]) == (8100, 900)
    assert not (tmp_path / "several.work" / "groups").exists()


def test_groups_are_the_rows_in_order(work: EncodeJob, tmp_path: Path) -> None:
    groups = list(encoded_groups(work, GroupEncoder(work), processes=1, ctx=CONTEXT, work=tmp_path))
    assert [len(group.rows) for group in groups] == [4096, 4096, 808]
    tokenizer = load_tokenizer(work.tokenizer, tokenizer_mode="legacy_fast")
    rows = encode_many(list(ConversationFile(work.conversations)), tokenizer, EncodeOptions(max_length_tokens=80))
    ours = [row for group in groups for row in group.rows]
    assert [row.input_ids.tolist() for row in ours] == [row.input_ids.tolist() for row in rows]
    assert [row.truncated for row in ours] == [row.truncated for row in rows]


def test_a_process_that_is_killed_is_an_error_with_its_log(work: EncodeJob, tmp_path: Path) -> None:
    def kill_child(supervisor: int) -> None:
        os.kill(_child_of(supervisor), signal.SIGKILL)

    ctx = replace(CONTEXT, on_child=kill_child)
    with pytest.raises(StageFailed, match="ended with code 137") as caught:
        list(encoded_groups(work, GroupEncoder(work), processes=2, ctx=ctx, work=tmp_path))
    assert caught.value.where.startswith(str(tmp_path / "encode-"))


def test_an_error_in_a_process_says_what_it_was(work: EncodeJob, tmp_path: Path) -> None:
    broken = replace(work, tokenizer=tmp_path)
    with pytest.raises(StageFailed, match=r"no `tokenizer\.json`"):
        list(encoded_groups(broken, GroupEncoder(work), processes=2, ctx=CONTEXT, work=tmp_path))


@pytest.mark.parametrize("step", ["to_line", "run_child"])
def test_a_process_that_cannot_be_started_is_an_error(
    work: EncodeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(encode_ranges, step, full)
    with pytest.raises(OSError, match="no space left"):
        list(encoded_groups(work, GroupEncoder(work), processes=2, ctx=CONTEXT, work=tmp_path))


def test_processes_end_with_whoever_takes_their_groups(work: EncodeJob, tmp_path: Path) -> None:
    pids: list[int] = []
    ctx = replace(CONTEXT, on_child=pids.append)
    groups: Iterator[Any] = encoded_groups(work, GroupEncoder(work), processes=3, ctx=ctx, work=tmp_path)
    next(groups)
    groups.close()  # type: ignore[attr-defined]
    assert len(pids) == 3
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def _child_of(pid: int) -> int:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.01)
    raise AssertionError(f"{pid} started nothing")
