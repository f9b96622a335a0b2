"""Row groups encoded by several processes and handed out in order: the same groups, however many processes there are.

Each process takes every n-th group and leaves it in a file; this one reads the files as their turn comes.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.json_lines import to_line
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.tokens.encode_file import EncodedGroup, EncodeJob, GroupEncoder
from tulu_pipeline.tokens.encoded import EncodedBatch

# A process takes two seconds to start and reads a core's worth of so much text in some five seconds.
_BYTES_PER_PROCESS = {"fast": 2**27, "plain": 2**24}
# A group that is there, why a process failed, or None for the end of a process.
_Events = queue.SimpleQueue[int | Exception | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeJob:
    """What one process does: groups `first`, `first` + `step`, … of the file, each into a file of `out`."""

    job: EncodeJob
    first: int
    step: int
    out: Path


def sensible_processes(encoder: GroupEncoder, cores: int) -> int:
    """How many processes pay, at most one per core; 1 is this one.

    Stages beside this one are not counted: where several tokenize at once, their processes share the cores. The last
    one, usually the largest, then has them to itself.
    """
    fast = encoder.way == "fast" and encoder.own is None
    wanted = encoder.file.size_bytes // _BYTES_PER_PROCESS["fast" if fast else "plain"]
    return max(1, min(wanted, cores, encoder.file.groups))


def encoded_groups(
    job: EncodeJob, encoder: GroupEncoder, *, processes: int, ctx: RunContext, work: Path
) -> Iterator[EncodedGroup]:
    """All row groups, in order.

    Args:
        job: what to encode, and how.
        encoder: of that job, for this process.
        processes: 1 does it here.
        ctx: of the run; the processes end with it.
        work: folder for what waits, and for the processes' logs.

    Raises:
        StageFailed: a process ended with an error, or was killed.
    """
    if processes == 1:
        yield from map(encoder.encode, range(encoder.file.groups))
        return
    out = work / "groups"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    events: _Events = queue.SimpleQueue()
    running: dict[int, int] = {}  # supervisors' process ids, by number

    def run(number: int) -> None:
        def on_child(pid: int) -> None:
            running[number] = pid
            ctx.on_child(pid)

        try:
            job_file = out / f"process-{number}.json"
            job_file.write_bytes(to_line(RangeJob(job=job, first=number, step=processes, out=out)))
            run_child(
                [sys.executable, "-m", "tulu_pipeline.tokens.encode_worker", str(job_file)],
                ctx=replace(ctx, on_child=on_child),
                log=work / f"encode-{number}.log",
                env={"TOKENIZERS_PARALLELISM": "false"},
                on_event=lambda event: events.put(event["group"]),
            )
        except Exception as error:  # noqa: BLE001 - raised where the groups are taken
            events.put(error)
        finally:
            running.pop(number, None)  # it may never have started
            events.put(None)

    with ThreadPoolExecutor(processes) as pool:
        for number in range(processes):
            pool.submit(run, number)
        try:
            yield from _in_order(encoder.file.groups, processes, out, events)
        finally:
            for pid in list(running.values()):  # where this ends early
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
    shutil.rmtree(out)


def write_group(out: Path, group: int, encoded: EncodedGroup) -> None:
    """Leaves a group where `encoded_groups` looks for it."""
    rows = encoded.rows
    offsets = pa.array(rows.offsets.astype(np.int32))
    columns = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(rows.input_ids)),
        "loss_mask": pa.ListArray.from_arrays(offsets, pa.array(rows.loss_mask)),
        "truncated": pa.array(rows.truncated),
        "refused": pa.array([encoded.refused.get(place) for place in range(len(rows))], pa.string()),
    }
    batch = pa.record_batch(columns)
    with pa.ipc.new_stream(str(_file(out, group)), batch.schema) as stream:
        stream.write_batch(batch)


def _in_order(groups: int, processes: int, out: Path, events: _Events) -> Iterator[EncodedGroup]:
    there: set[int] = set()
    for group in range(groups):
        while group not in there:
            event = events.get()
            if isinstance(event, Exception):
                raise event
            if event is not None:
                there.add(event)
                continue
            processes -= 1
            if not processes:
                raise StageFailed(f"no process encoded row group {group}", str(out.parent), "see the logs there")
        there.remove(group)
        yield _read_group(_file(out, group))


def _read_group(file: Path) -> EncodedGroup:
    with pa.ipc.open_stream(pa.memory_map(str(file))) as stream:
        batch = stream.read_next_batch()
    file.unlink()
    lists = batch.column("input_ids")
    rows = EncodedBatch(
        input_ids=lists.values.to_numpy(),
        loss_mask=batch.column("loss_mask").values.to_numpy(),
        offsets=lists.offsets.to_numpy().astype(np.int64),
        truncated=batch.column("truncated").to_numpy(zero_copy_only=False),
    )
    reasons = enumerate(batch.column("refused").to_pylist())
    return EncodedGroup(rows=rows, refused={place: reason for place, reason in reasons if reason is not None})


def _file(out: Path, group: int) -> Path:
    return out / f"group-{group:06d}.arrow"
