"""What a unit of work is to Prefect, on a real server: names, states, retries, limits, logs, artifacts."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.context import FlowRunContext
from prefect.transactions import get_transaction
from prefect_view import FlowRunView, ask, message
from toy_graph import ToyParams, Workshop

from flows.private_server import private_server
from tasks import prefect_task, prefect_ui
from tasks.prefect_task import ensure_limits, prefect_submit
from tasks.prefect_ui import ProgressArtifacts, forward_logs, send_what_waits
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.run import RunResult, run
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.errors import BadInput, HashMismatch, StageFailed, TuluError, Unreachable
from tulu_pipeline.profile import Profile

log = logging.getLogger("tulu_pipeline.toy")
Toy = Job[ToyParams]


def carry_out(
    server: str,
    workshop: Workshop,
    *targets: Artifact,
    wrap: Callable[[RunContext], RunContext] = lambda ctx: ctx,
    progress_every_seconds: float = 5.0,
) -> tuple[RunResult, FlowRunView]:
    """Run `targets` in a flow on `server`."""
    seen: list[tuple[RunResult, str]] = []

    @flow(name="toy", persist_result=False)
    def toy() -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        forward_logs()
        artifacts = ProgressArtifacts(progress_every_seconds)
        with artifacts.sending():
            result = run(
                workshop.plan(*targets),
                workshop.store,
                dataclasses.replace(workshop.ctx, progress=artifacts),
                experiment=workshop.experiment,
                submit=prefect_submit(workshop.store, workshop.experiment, artifacts, retry_delays_seconds=(0.05,)),
            )
        seen.append((result, str(context.flow_run.id)))

    toy()
    send_what_waits()
    result, flow_run_id = seen[0]
    return result, FlowRunView(server, flow_run_id)


def raises(error: BaseException) -> Callable[[Toy], None]:
    def act(job: Toy) -> None:
        raise error

    return act


def test_each_unit_is_one_completed_task_run_named_by_its_cell(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    raw = workshop.node("download", "a", "abc")
    score = workshop.node(workshop.stage("score", slot="api"), "tiny+a/gsm", "!", [raw])
    result, seen = carry_out(prefect_server, workshop, score)
    assert result.executed == ["download[a]", "score[tiny+a/gsm]"]
    runs = seen.task_runs(2)
    assert {name: each["state_type"] for name, each in runs.items()} == {
        "download[a]": "COMPLETED",
        "score[tiny+a/gsm]": "COMPLETED",
    }
    assert set(runs["score[tiny+a/gsm]"]["tags"]) == {"tulu", "stage:score", "tulu-api"}
    assert workshop.text(score) == "abc!"
    (edge,) = runs["score[tiny+a/gsm]"]["task_inputs"]["wait_for"]
    assert edge["id"] == runs["download[a]"]["id"]


def test_what_is_there_makes_no_task_run(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    target = workshop.node("mix", "a", "abc", [workshop.node("download", "a", "x")])
    workshop.run(target)
    result, seen = carry_out(prefect_server, workshop, target)
    assert (result.executed, result.hit) == ([], 2)
    assert seen.task_runs(0) == {}


def test_a_failed_unit_is_a_failed_task_run_and_its_branch_fails_alone(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    error = BadInput("row 7 holds no text", "a.jsonl:7", "mend the row")
    workshop.acts["normalize[a]"] = raises(error)
    bad, good = workshop.node("normalize", "a", "1"), workshop.node("normalize", "b", "2")
    result, seen = carry_out(
        prefect_server, workshop, workshop.node("mix", "a", inputs=[bad]), workshop.node("mix", "b", inputs=[good])
    )
    assert result.executed == ["normalize[b]", "mix[b]"]
    assert [failure.error for failure in result.failed] == [error]
    assert result.blocked == ["mix[a]"]
    runs = seen.task_runs(3)
    assert runs["normalize[a]"]["state_type"] == "FAILED"
    for part in ("row 7 holds no text", "where: a.jsonl:7", "fix: mend the row"):
        assert part in message(runs["normalize[a]"])
    assert "mix[a]" not in runs


def test_what_a_batch_published_before_it_failed_counts_as_made(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    batch = workshop.stage("generate", batch=True)
    cells = [workshop.node(batch, f"tiny/{name}", name, group="tiny") for name in "abc"]
    order: list[str] = []

    def fail_second(job: Toy) -> None:
        order.append(job.name)
        if len(order) == 2:
            raise StageFailed("the engine died", "engine.log", "run again")

    workshop.acts |= {cell.name: fail_second for cell in cells}
    scores = [workshop.node("score", cell.cell, "!", [cell]) for cell in cells]
    result, seen = carry_out(prefect_server, workshop, *scores)
    assert result.executed == [order[0], order[0].replace("generate", "score")]  # what needs the first goes on
    assert {failure.name for failure in result.failed} == {cell.name for cell in cells} - set(order[:1])
    run = seen.task_runs(2)["generate[tiny]"]
    assert run["state_type"] == "FAILED"
    assert "2 of 3 failed" in message(run)
    assert "the engine died" in message(run)
    assert prefect_ui.artifact_key(order[0]) in seen.artifacts()


def test_only_what_time_may_mend_is_tried_again(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    tries: list[str] = []

    def at_first(error: TuluError) -> Callable[[Toy], None]:
        def act(job: Toy) -> None:
            tries.append(job.name)
            if tries.count(job.name) == 1:
                raise error

        return act

    workshop.acts |= {
        "download[flaky]": at_first(Unreachable("no answer")),
        "download[wrong]": at_first(HashMismatch("wrong hash")),
        "download[broken]": at_first(StageFailed("a bug")),
        "download[dead]": raises(Unreachable("no answer")),
    }
    cells = [workshop.node("download", name, name) for name in ("flaky", "wrong", "broken", "dead")]
    result, seen = carry_out(prefect_server, workshop, *cells)
    runs = seen.task_runs(4)
    assert result.executed == ["download[flaky]"]
    assert sorted(tries) == ["download[broken]", "download[flaky]", "download[flaky]", "download[wrong]"]
    assert workshop.ran().count("download[dead]") == 2
    assert {name: (each["state_type"], each["run_count"]) for name, each in runs.items()} == {
        "download[flaky]": ("COMPLETED", 2),
        "download[wrong]": ("FAILED", 1),
        "download[broken]": ("FAILED", 1),
        "download[dead]": ("FAILED", 2),
    }


def test_a_retried_batch_keeps_what_its_first_try_made(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    batch = workshop.stage("judge", batch=True)
    cells = [workshop.node(batch, f"tiny/{name}", name, group="tiny") for name in "ab"]
    started: list[str] = []

    def fail_second_once(job: Toy) -> None:
        started.append(job.name)
        if len(started) == 2:
            raise Unreachable("no answer")

    workshop.acts |= {cell.name: fail_second_once for cell in cells}
    result, seen = carry_out(prefect_server, workshop, *cells)
    assert sorted(result.executed) == ["judge[tiny/a]", "judge[tiny/b]"]
    assert result.failed == []
    assert len(started) == 3
    assert seen.task_runs(1)["judge[tiny]"]["state_type"] == "COMPLETED"


def test_a_crash_in_a_stage_ends_its_branch_and_not_the_run(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    workshop.acts["tokenize[a]"] = raises(SystemExit(3))
    result, seen = carry_out(
        prefect_server, workshop, workshop.node("tokenize", "a", "1"), workshop.node("tokenize", "b", "2")
    )
    assert result.executed == ["tokenize[b]"]
    assert [failure.name for failure in result.failed] == ["tokenize[a]"]
    assert "SystemExit" in result.failed[0].error.what
    assert seen.task_runs(2)["tokenize[a]"]["state_type"] == "FAILED"


def test_log_lines_of_a_stage_are_in_the_log_of_its_task_run(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    for name in "ab":
        workshop.acts[f"tokenize[{name}]"] = lambda job: log.info("packed 17 of %s", job.name)
    _, seen = carry_out(
        prefect_server, workshop, workshop.node("tokenize", "a", "1"), workshop.node("tokenize", "b", "2")
    )
    run = seen.task_runs(2)["tokenize[a]"]
    lines = seen.log(task_run_id=run["id"])
    assert [line for line in lines if line.startswith("packed")] == ["packed 17 of tokenize[a]"]
    assert "start tokenize[a]" in lines


def test_a_log_line_outside_of_a_run_passes_by_without_a_word(
    prefect_server: str, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    forward_logs()
    thread = threading.Thread(target=log.warning, args=("nobody's line",))
    thread.start()
    thread.join()
    assert [str(each.message) for each in recwarn if "flow run" in str(each.message)] == []
    assert "Traceback" not in capsys.readouterr().err


def test_logs_are_forwarded_once_however_often_it_is_asked(prefect_server: str) -> None:
    forward_logs()
    count = len(logging.getLogger("tulu_pipeline").handlers)
    forward_logs()
    assert len(logging.getLogger("tulu_pipeline").handlers) == count


def test_the_ui_shows_what_was_made_and_how_far_a_stage_is(prefect_server: str, tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)

    def slowly(job: Toy) -> None:
        report = reports[0]
        for done in range(1, 8):
            report(job.name, done, 7, "steps", "loss 2.5")
            time.sleep(0.1)

    reports: list[Any] = []
    stage = workshop.stage("finetune", slot="gpu")
    plain = stage.run

    def keep_report(job: Toy, ctx: RunContext) -> Any:
        reports.append(ctx.progress)
        return plain(job, ctx)  # type: ignore[arg-type]  # not a batch stage

    workshop.acts["finetune[tiny+a]"] = slowly
    node = workshop.node(dataclasses.replace(stage, run=keep_report), "tiny+a", "weights")
    _, seen = carry_out(prefect_server, workshop, node, progress_every_seconds=0.2)
    run = seen.task_runs(1)["finetune[tiny+a]"]
    shown = seen.artifacts()
    made, progress = shown["finetune-tiny-a"], shown["finetune-tiny-a-progress"]
    manifest = workshop.plan(node).nodes[node.name].manifest
    assert manifest is not None
    for part in (
        manifest.key,
        manifest.digest,
        f"{workshop.store.url}/refs/toy/finetune[tiny+a]",
        "| characters | 7 |",
    ):
        assert part in made["data"]
    assert (made["type"], made["task_run_id"]) == ("markdown", run["id"])
    assert (progress["type"], progress["data"], progress["task_run_id"]) == ("progress", 100.0, run["id"])
    assert progress["description"] == "finetune[tiny+a]: 7 of 7 steps loss 2.5"


def test_a_server_that_takes_no_artifacts_costs_the_view_and_not_the_work(
    prefect_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_ui, "_ui", prefect_ui._Ui())
    asked: list[str] = []

    def refuse(name: str) -> None:
        asked.append(name)
        raise httpx.ConnectError("connection refused")

    prefect_ui._ui.show(lambda: refuse("first"))
    assert "not shown in Prefect: ConnectError: connection refused" in caplog.text
    prefect_ui._ui.show(lambda: refuse("second"))
    assert asked == ["first"]  # it is left alone for a while


def test_limits_are_created_where_absent_and_a_persons_are_left_alone(prefect_server: str) -> None:
    url = f"{prefect_server}/v2/concurrency_limits"
    for slot in prefect_task.SHARED_SLOTS:
        httpx.delete(f"{url}/tag:tulu-{slot}", timeout=30)
    ensure_limits(Profile(gpu_slots=4, api_slots=6))
    assert [ask("GET", f"{url}/tag:tulu-{slot}")["limit"] for slot in ("gpu", "api")] == [4, 6]
    ask("PATCH", f"{url}/tag:tulu-gpu", {"limit": 1})
    ensure_limits(Profile(gpu_slots=4, api_slots=6))
    assert ask("GET", f"{url}/tag:tulu-gpu")["limit"] == 1


def test_runs_that_share_a_server_share_its_gpu_slots(prefect_server: str, tmp_path: Path) -> None:
    ensure_limits(Profile(gpu_slots=1))
    ask("PATCH", f"{prefect_server}/v2/concurrency_limits/tag:tulu-gpu", {"limit": 1})
    workshop = Workshop(tmp_path)
    workshop.profile = Profile(gpu_slots=2)
    busy, most = [], []

    def occupy(job: Toy) -> None:
        busy.append(job.name)
        most.append(len(busy))
        time.sleep(0.2)
        busy.remove(job.name)

    gpu = workshop.stage("train", slot="gpu")  # for some seconds Prefect remembers which tags had no limit
    nodes = [workshop.node(gpu, name, name) for name in "ab"]
    workshop.acts |= {node.name: occupy for node in nodes}
    result, _ = carry_out(prefect_server, workshop, *nodes)
    assert sorted(result.executed) == ["train[a]", "train[b]"]
    assert most == [1, 1]


# What the design leans on in this version of Prefect.


def test_our_task_uses_nothing_of_prefects_cache_results_hooks_or_transactions(
    prefect_server: str, tmp_path: Path
) -> None:
    carrier = prefect_task._carry_out
    assert carrier.cache_policy == NO_CACHE
    assert carrier.persist_result is False
    assert not carrier.on_commit_hooks
    assert not carrier.on_rollback_hooks
    workshop = Workshop(tmp_path)
    around: list[tuple[object, object]] = []

    def look(job: Toy) -> None:
        transaction = get_transaction()
        assert transaction is not None  # the engine's own, one per task run
        around.append((transaction.key, transaction.get_parent()))

    workshop.acts["mix[a]"] = look
    carry_out(prefect_server, workshop, workshop.node("mix", "a", "1"))
    assert around == [(None, None)]


def test_prefects_own_cache_does_not_hit_across_runs(prefect_server: str) -> None:
    """Why hits are decided by the plan: the default cache key holds the flow run's id."""
    ran: list[int] = []

    @task(persist_result=True)
    def cached(value: int) -> int:
        ran.append(value)
        return value

    @flow
    def twice() -> None:
        cached(1)
        cached(1)

    twice()
    assert ran == [1]
    twice()
    assert ran == [1, 1]


def test_an_error_after_the_body_does_not_fail_a_task_run_and_one_in_the_body_does(prefect_server: str) -> None:
    """Why publishing is in the body: what Prefect does after it may fail and the run still ends COMPLETED."""

    def failing_hook(transaction: object) -> None:
        raise OSError("the disk is full")

    @task(persist_result=True)
    def hooked() -> int:
        return 1

    hooked.on_commit(failing_hook)

    @task(persist_result=True)
    def unwritable() -> object:
        return threading.Lock()

    @task(cache_policy=NO_CACHE, persist_result=False)
    def raising() -> None:
        raise OSError("the disk is full")

    @flow
    def toy() -> list[str]:
        return [each(return_state=True).type.value for each in (hooked, unwritable, raising, raising)]

    assert toy() == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]


def test_a_prefect_timeout_does_not_interrupt_a_thread_that_blocks(prefect_server: str) -> None:
    """Why our task has none."""

    @task(timeout_seconds=0.1)
    def blocked() -> None:
        time.sleep(0.6)

    @flow
    def toy() -> float:
        started = time.monotonic()
        with suppress(TimeoutError):
            blocked.submit().result()
        return time.monotonic() - started

    assert toy() >= 0.6


def test_the_done_callback_of_a_future_comes_after_failures_and_crashes_too(prefect_server: str) -> None:
    """The frontier loop waits on nothing else."""

    @task
    def ends(error: BaseException | None) -> None:
        if error is not None:
            raise error

    @flow
    def toy() -> list[bool]:
        called = []
        for error in (None, ValueError("no"), SystemExit(1)):
            done = threading.Event()
            ends.submit(error).add_done_callback(lambda _, done=done: done.set())
            called.append(done.wait(10))
        return called

    assert toy() == [True, True, True]


def test_a_slot_that_is_held_is_known_after_the_server_was_replaced(prefect_server: str) -> None:
    """Else nobody could ever free it: Prefect's default keeps holders in memory."""
    ask("POST", f"{prefect_server}/v2/concurrency_limits/", {"name": "tag:outlives", "limit": 1})
    take = {"names": ["tag:outlives"], "slots": 1, "mode": "concurrency", "lease_duration": 60}
    taken = ask("POST", f"{prefect_server}/v2/concurrency_limits/increment-with-lease", take)
    with private_server() as other:
        renew = f"{other}/v2/concurrency_limits/leases/{taken['lease_id']}/renew"
        ask("POST", renew, {"lease_duration": 60})  # an error where the holder is not known
