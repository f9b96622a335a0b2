"""A run makes what is stale and nothing else; branches fail alone; a refresh stands."""

import contextlib
import dataclasses
import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from fakes.waiting import wait_for
from toy_graph import ToyParams, Workshop

from tulu_pipeline.artifacts import interrupts
from tulu_pipeline.artifacts import run as run_module
from tulu_pipeline.artifacts.artifact import Artifact, Graph
from tulu_pipeline.artifacts.execute import Outcome
from tulu_pipeline.artifacts.plan import Status
from tulu_pipeline.artifacts.run import local_threads, run
from tulu_pipeline.artifacts.source import TrackedFile
from tulu_pipeline.artifacts.stage import Job
from tulu_pipeline.errors import BadInput, StageFailed, StoreError

HIT, MISS, WAITS = Status.HIT, Status.MISS, Status.WAITS


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def fail(job: Job[ToyParams]) -> None:
    raise StageFailed("broken on purpose", job.name, "none")


def chain(shop: Workshop, version: int = 1, cut: int | None = 1) -> Artifact:
    """write[a], write[b] → join[a] → table, with join[b] beside."""
    write = shop.stage("write", version)
    a, b = shop.node(write, "a", "a", cut=cut), shop.node("write2", "b", "b")
    join_a, join_b = shop.node("join", "a", "+", (a,)), shop.node("join", "b", "+", (b,))
    return shop.node("table", "t", "!", (join_a, join_b))


# plan


def test_nothing_is_known_above_what_is_missing(shop: Workshop) -> None:
    assert shop.statuses(chain(shop)) == {
        "write[a]": MISS,
        "join[a]": WAITS,
        "write2[b]": MISS,
        "join[b]": WAITS,
        "table[t]": WAITS,
    }
    assert shop.plan(chain(shop)).count() == {HIT: 0, MISS: 2, WAITS: 3}


def test_planning_writes_nothing(shop: Workshop) -> None:
    shop.plan(chain(shop))
    assert not (shop.folder / "store").exists()


def test_all_is_made_inputs_first_and_then_all_is_there(shop: Workshop) -> None:
    result = shop.run(chain(shop))
    ran = shop.ran()
    assert sorted(ran) == sorted(result.executed) == sorted(shop.statuses(chain(shop)))
    assert ran.index("write[a]") < ran.index("join[a]") < ran.index("table[t]")
    assert (result.hit, result.failed, result.blocked, result.found) == (0, [], [], [])
    assert set(shop.statuses(chain(shop)).values()) == {HIT}
    assert shop.text(chain(shop)) == "a+b+!"


def test_second_run_makes_nothing_and_writes_nothing(shop: Workshop) -> None:
    shop.run(chain(shop))
    shop.ran()
    before = state_of(shop.folder / "store")
    result = shop.run(chain(shop))
    assert (shop.ran(), result.executed, result.hit) == ([], [], 5)
    assert state_of(shop.folder / "store") == before


def state_of(folder: Path) -> dict[Path, tuple[int, ...]]:
    """All that a write changes; reading changes only the time of access."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (status.st_ino, status.st_mtime_ns, status.st_ctime_ns) for path, status in found.items()}


def test_changed_params_rerun_their_chain_and_nothing_else(shop: Workshop) -> None:
    shop.run(chain(shop))
    shop.ran()
    assert shop.statuses(chain(shop, cut=None)) == {
        "write[a]": MISS,
        "join[a]": WAITS,
        "write2[b]": HIT,
        "join[b]": HIT,
        "table[t]": WAITS,
    }
    changed = chain(shop, cut=0)
    assert shop.run(changed).hit == 2
    assert shop.ran() == ["write[a]", "join[a]", "table[t]"]
    assert shop.text(changed) == "+b+!"


def test_version_bump_that_writes_the_same_bytes_reruns_alone(shop: Workshop) -> None:
    shop.run(chain(shop))
    shop.ran()
    assert shop.statuses(chain(shop, version=2))["table[t]"] is WAITS
    result = shop.run(chain(shop, version=2))
    assert shop.ran() == result.executed == ["write[a]"]
    assert (result.hit, result.failed) == (4, [])
    assert set(shop.statuses(chain(shop, version=2)).values()) == {HIT}


def test_going_back_finds_what_was_made_before(shop: Workshop) -> None:
    shop.run(chain(shop))
    shop.run(chain(shop, cut=0))
    assert shop.ran()
    shop.run(chain(shop))
    assert shop.ran() == []


def test_missing_payload_is_made_again_and_cuts_off(shop: Workshop) -> None:
    shop.run(chain(shop))
    shop.ran()
    manifest = shop.plan(chain(shop)).nodes["join[a]"].manifest
    assert manifest is not None
    shutil.rmtree(shop.store.path(manifest))
    assert shop.statuses(chain(shop)) | {} == {
        "write[a]": HIT,
        "join[a]": MISS,
        "write2[b]": HIT,
        "join[b]": HIT,
        "table[t]": WAITS,
    }
    shop.run(chain(shop))
    assert shop.ran() == ["join[a]"]
    assert set(shop.statuses(chain(shop)).values()) == {HIT}


def test_two_artifacts_of_one_name_are_refused(shop: Workshop) -> None:
    with pytest.raises(BadInput, match=r"two artifacts are called `write\[a\]`"):
        Graph([shop.node("write", "a", "x"), shop.node("write", "a", "y")])


def test_chain_of_thousands_can_be_planned_and_followed(shop: Workshop) -> None:
    node = shop.node("write", "0", "x", cut=1)
    for index in range(1, 2_000):
        node = shop.node("pass", str(index), "", (node,), cut=1)
    assert shop.plan(node).count()[WAITS] == 1_999
    shop.run(shop.node("pass", "1", "", (shop.node("write", "0", "x", cut=1),), cut=1))
    result = shop.run(node)
    assert (len(result.executed), result.failed) == (0, [])
    assert shop.plan(node).count()[HIT] == 2_000


def test_names_with_one_key_are_made_once(shop: Workshop) -> None:
    same = [shop.node("write", cell, "same") for cell in "abc"]
    shop.slots = 1
    result = shop.run(shop.node("table", "t", "", same))
    assert sorted(shop.ran()) == ["table[t]", "write[a]"]
    assert result.executed == ["write[a]", "table[t]"]
    assert (result.hit, result.found, result.failed) == (2, [], [])


@pytest.mark.timeout(20)
def test_names_with_one_key_in_one_batch_are_made_once(shop: Workshop) -> None:
    batch = shop.stage("generate", batch=True)
    same = [shop.node(batch, cell, "same", group="model") for cell in "abc"]
    result = shop.run(shop.node("table", "t", "", same))
    assert not result.failed
    assert shop.ran() == ["generate[a]", "table[t]"]
    assert set(shop.statuses(*same).values()) == {HIT}


def test_names_with_one_key_fail_by_one_cause(shop: Workshop) -> None:
    shop.acts["write[a]"] = shop.acts["write[b]"] = fail
    result = shop.run(shop.node("write", "a", "same"), shop.node("write", "b", "same"))
    assert shop.ran() == ["write[a]"]
    assert [failure.name for failure in result.failed] == ["write[a]"]
    assert result.blocked == ["write[b]"]


# failures


def test_branches_fail_alone_and_are_told_by_root_cause(shop: Workshop) -> None:
    shop.acts["write[a]"] = fail
    result = shop.run(chain(shop))
    assert [(failure.name, failure.error.what) for failure in result.failed] == [("write[a]", "broken on purpose")]
    assert result.blocked == ["join[a]", "table[t]"]
    assert sorted(result.executed) == ["join[b]", "write2[b]"]
    assert result.to_json()["failed"] == [
        {"name": "write[a]", "what": "broken on purpose", "where": "write[a]", "fix": "none"}
    ]
    shop.ran()
    shop.acts.clear()
    assert not shop.run(chain(shop)).failed
    assert shop.ran() == ["write[a]", "join[a]", "table[t]"]


def test_stage_that_tolerates_missing_inputs_runs_without_them(shop: Workshop) -> None:
    def graph() -> Artifact:
        a, b = shop.node("write", "a", "a"), shop.node("write", "b", "b")
        c = shop.node("join", "c", "c", (a,))
        return shop.node(shop.stage("table", tolerates_missing=True), "t", "!", {"a": a, "b": b, "c": c})

    shop.acts["write[a]"] = fail
    result = shop.run(graph())
    assert ([failure.name for failure in result.failed], result.blocked) == (["write[a]"], ["join[c]"])
    assert sorted(result.executed) == ["table[t]", "write[b]"]
    (table,) = [manifest for manifest in shop.store.manifests() if manifest.stage == "table"]
    assert (shop.store.path(table) / "text").read_text() == "-b-!"
    assert set(table.inputs) == {"b"}
    shop.acts.clear()
    assert shop.statuses(graph())["table[t]"] is WAITS
    shop.run(graph())
    assert shop.text(graph()) == "abac!"


def test_partial_table_is_not_made_twice(shop: Workshop) -> None:
    a = shop.node("write", "a", "a")
    table = shop.node(shop.stage("table", tolerates_missing=True), "t", "!", {"a": a})
    shop.acts["write[a]"] = fail
    assert shop.run(table).executed == ["table[t]"]
    second = shop.run(table)
    assert (second.executed, [failure.name for failure in second.failed]) == ([], ["write[a]"])


def test_what_turns_out_to_be_there_is_named_whether_its_inputs_were_made_or_failed(shop: Workshop) -> None:
    def graph(version: int) -> tuple[Artifact, Artifact]:
        a, b = shop.node(shop.stage("write", version), "a", "a"), shop.node("write", "b", "b")
        table = shop.node(shop.stage("table", tolerates_missing=True), "t", "!", {"a": a, "b": b})
        return shop.node("join", "a", "+", (a,)), table

    shop.acts["write[b]"] = fail
    shop.run(*graph(1))
    shop.experiment = "other"
    result = shop.run(*graph(2))
    assert (result.executed, [failure.name for failure in result.failed]) == (["write[a]"], ["write[b]"])
    for name in ("join[a]", "table[t]"):
        assert shop.store.ref("other", name) == shop.store.ref("toy", name) is not None


def test_late_readable_name_that_cannot_be_set_is_a_failure(shop: Workshop) -> None:
    shop.run(chain(shop))
    place = Path(shop.store.ref_place("other", "join[a]"))
    place.mkdir(parents=True)
    (place / "file").write_text("in the way")
    shop.experiment = "other"
    result = shop.run(chain(shop, version=2))
    assert [(failure.name, type(failure.error)) for failure in result.failed] == [("join[a]", StoreError)]
    assert shop.store.ref("other", "table[t]") is not None


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ValueError("odd"), "ValueError: odd"),
        (SystemExit(0), "SystemExit: 0"),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "/somewhere/file"), "the disk is full"),
        (OSError(errno.EDQUOT, "quota"), "the disk is full"),
        (RecursionError("deep"), "RecursionError"),
        (GeneratorExit(), "GeneratorExit"),
    ],
    ids=repr,
)
def test_whatever_a_stage_raises_is_its_failure(shop: Workshop, error: BaseException, told: str) -> None:
    def act(job: Job[ToyParams]) -> None:
        raise error

    shop.acts["write[a]"] = act
    result = shop.run(chain(shop))
    (failure,) = result.failed
    assert told in failure.error.what
    assert failure.error.where
    assert failure.error.fix
    assert result.blocked == ["join[a]", "table[t]"]
    assert shop.statuses(chain(shop))["write[a]"] is MISS


def test_failed_try_leaves_its_scratch_and_no_payload(shop: Workshop) -> None:
    def act(job: Job[ToyParams]) -> None:
        (job.out / "half").write_text("half")
        (job.work / "step").write_text("1")
        raise StageFailed("broken", job.name)

    shop.acts["write[a]"] = act
    node = shop.node("write", "a", "a")
    shop.run(node)
    assert shop.store.storage.names("data/write") == []
    assert shop.store.storage.names("actions/write") == []
    seen = []
    shop.acts["write[a]"] = lambda job: seen.append((job.work / "step").read_text())
    assert not shop.run(node).failed
    assert seen == ["1"]
    assert not (shop.folder / "store" / "work" / "write").exists()


def test_stage_that_writes_nothing_has_failed(shop: Workshop) -> None:
    empty = dataclasses.replace(shop.stage("write"), run=lambda job, ctx: {})
    (failure,) = shop.run(shop.node(empty, "a")).failed
    assert "without writing any output" in failure.error.what


def test_metrics_that_are_no_json_fail_the_stage(shop: Workshop) -> None:
    def act(job: Job[ToyParams], ctx: object) -> dict[str, Any]:
        (job.out / "text").write_text("x")
        return {"loss": object()}

    node = shop.node(dataclasses.replace(shop.stage("write"), run=act), "a")
    assert len(shop.run(node).failed) == 1
    assert shop.statuses(node) == {"write[a]": MISS}


def test_work_that_cannot_be_submitted_has_failed(shop: Workshop) -> None:
    def submit(unit: str, artifacts: Sequence[Artifact], work: Callable[[], Outcome]) -> Future[Outcome]:
        if unit == "write[a]":
            raise RuntimeError("can't start new thread")
        future: Future[Outcome] = Future()
        future.set_result(work())
        return future

    result = run(shop.plan(chain(shop)), shop.store, shop.ctx, experiment="toy", submit=submit)
    (failure,) = result.failed
    assert (failure.name, failure.error.what) == ("write[a]", "RuntimeError: can't start new thread")
    assert sorted(result.executed) == ["join[b]", "write2[b]"]


def test_carrier_that_loses_its_work_has_failed(shop: Workshop) -> None:
    def submit(unit: str, artifacts: Sequence[Artifact], work: Callable[[], Outcome]) -> Future[Outcome]:
        future: Future[Outcome] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future

    result = run(shop.plan(chain(shop)), shop.store, shop.ctx, experiment="toy", submit=submit)
    assert [failure.name for failure in result.failed] == ["write[a]", "write2[b]"]
    assert result.blocked == ["join[a]", "join[b]", "table[t]"]


def test_source_that_was_never_resolved_is_a_failure_with_its_fix(shop: Workshop) -> None:
    tracked = shop.node("write", "a", "a", sources={"raw": TrackedFile(url="https://example.org/latest")})
    result = shop.run(shop.node("join", "a", "+", (tracked,)), shop.node("write", "b"))
    (failure,) = result.failed
    assert failure.name == "write[a]"
    assert "--update-sources" in failure.error.fix
    assert result.blocked == ["join[a]"]
    assert result.executed == ["write[b]"]


def test_readable_name_that_cannot_be_set_is_a_failure_and_loses_nothing(shop: Workshop) -> None:
    (shop.folder / "store" / "refs").mkdir(parents=True)
    (shop.folder / "store" / "refs" / "toy").write_text("in the way")
    result = shop.run(shop.node("write", "a", "a"), shop.node("write", "b", "b"))
    assert {failure.name for failure in result.failed} == {"write[a]", "write[b]"}
    assert all(isinstance(failure.error, StoreError) for failure in result.failed)
    (shop.folder / "store" / "refs" / "toy").unlink()
    shop.ran()
    assert not shop.run(shop.node("write", "a", "a"), shop.node("write", "b", "b")).failed
    assert shop.ran() == []


# slots and threads


def test_no_more_run_side_by_side_than_there_are_slots(shop: Workshop) -> None:
    running, most, lock = 0, 0, threading.Lock()

    def act(job: Job[ToyParams]) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.05)
        with lock:
            running -= 1

    nodes = [shop.node("write", str(index), str(index)) for index in range(8)]
    shop.acts = {node.name: act for node in nodes}
    shop.profile = dataclasses.replace(shop.profile, cpu_slots=3)
    assert not shop.run(*nodes).failed
    assert most == 3


def test_independent_stages_run_side_by_side(shop: Workshop) -> None:
    meeting = threading.Barrier(2, timeout=10)
    shop.acts = {"write[a]": lambda job: meeting.wait() and None, "write2[b]": lambda job: meeting.wait() and None}
    assert not shop.run(chain(shop)).failed


@pytest.mark.timeout(30)
def test_interrupt_is_not_kept_waiting_by_a_stage_that_goes_on(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "_GRACE_SECONDS", 0.5)
    started, end = threading.Event(), threading.Event()

    def act(job: Job[ToyParams]) -> None:
        started.set()
        end.wait()

    def interrupt(plan: object) -> None:
        started.wait()
        raise KeyboardInterrupt

    shop.acts["slow[a]"] = act
    plan = shop.plan(shop.node("slow", "a"), shop.node("write", "b"))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), local_threads() as submit:
        run(plan, shop.store, shop.ctx, experiment="toy", submit=submit, on_change=interrupt)
    assert time.monotonic() - began < 5
    end.set()


# batches


def batch_of(shop: Workshop, cells: str = "abc", group: str = "model") -> list[Artifact]:
    stage = shop.stage("generate", batch=True)
    return [shop.node(stage, cell, cell, group=group) for cell in cells]


def test_batch_is_one_piece_of_work(shop: Workshop) -> None:
    units: list[tuple[str, int]] = []

    def submit(unit: str, artifacts: Sequence[Artifact], work: Callable[[], Outcome]) -> Future[Outcome]:
        units.append((unit, len(artifacts)))
        future: Future[Outcome] = Future()
        future.set_result(work())
        return future

    targets = [*batch_of(shop), *batch_of(shop, "de", "other"), shop.node(shop.stage("generate", batch=True), "f")]
    run(shop.plan(*targets), shop.store, shop.ctx, experiment="toy", submit=submit)
    assert units == [("generate[model]", 3), ("generate[other]", 2), ("generate[f]", 1)]


def test_batch_that_dies_midway_keeps_what_it_published(shop: Workshop) -> None:
    shop.acts["generate[b]"] = fail
    result = shop.run(*batch_of(shop))
    assert result.executed == ["generate[a]"]
    assert [failure.name for failure in result.failed] == ["generate[b]", "generate[c]"]
    assert shop.statuses(*batch_of(shop)) == {"generate[a]": HIT, "generate[b]": MISS, "generate[c]": MISS}
    shop.acts.clear()
    shop.ran()
    assert shop.run(*batch_of(shop)).executed == ["generate[b]", "generate[c]"]
    assert shop.ran() == ["generate[b]", "generate[c]"]


def test_batch_goes_on_without_those_whose_inputs_failed(shop: Workshop) -> None:
    stage = shop.stage("generate", batch=True)
    shop.acts["write[bad]"] = fail
    bad, good = shop.node("write", "bad", "x"), shop.node("write", "good", "y")
    targets = [
        shop.node(stage, "a", "", (good,), group="model"),
        shop.node(stage, "b", "", (bad,), group="model"),
        shop.node(stage, "c", "!", (good,), group="model"),
    ]
    result = shop.run(*targets)
    assert sorted(result.executed) == ["generate[a]", "generate[c]", "write[good]"]
    assert result.blocked == ["generate[b]"]


@pytest.mark.timeout(20)
def test_batch_in_which_one_needs_another_is_made_in_turns(shop: Workshop) -> None:
    stage = shop.stage("generate", batch=True)
    first = shop.node(stage, "turn_1", "1", group="model")
    second = shop.node(stage, "turn_2", "2", (first,), group="model")
    result = shop.run(shop.node("table", "t", "", (second,)))
    assert result.executed == ["generate[turn_1]", "generate[turn_2]", "table[t]"]


def test_batch_that_forgets_to_publish_has_failed_for_those_it_forgot(shop: Workshop) -> None:
    def forget(jobs: Sequence[Job[ToyParams]], ctx: object) -> None:
        (jobs[0].out / "text").write_text("x")
        jobs[0].publish({})

    stage = dataclasses.replace(shop.stage("generate", batch=True), run=forget)
    result = shop.run(*(dataclasses.replace(node, stage=stage) for node in batch_of(shop)))
    assert result.executed == ["generate[a]"]
    assert [failure.name for failure in result.failed] == ["generate[b]", "generate[c]"]
    assert "without publishing generate[b], generate[c]" in result.failed[0].error.what


@pytest.mark.parametrize("batch", [True, False])
def test_publishing_twice_is_a_failure_that_keeps_the_artifact(shop: Workshop, batch: bool) -> None:
    def twice(jobs: Any, ctx: object) -> dict[str, Any]:
        job = jobs[0] if batch else jobs
        (job.out / "text").write_text("x")
        job.publish({})
        if batch:
            job.publish({})
        return {}

    node = shop.node(dataclasses.replace(shop.stage("write", batch=batch), run=twice), "a")
    result = shop.run(node)
    assert result.executed == ["write[a]"]
    assert ["published twice" in failure.error.what for failure in result.failed] == [True]
    assert shop.text(node) == "x"


def test_seconds_of_a_batch_are_counted_job_by_job(shop: Workshop) -> None:
    shop.acts = {"generate[a]": lambda job: time.sleep(0.4)}
    shop.run(*batch_of(shop, "ab"))
    first, second = sorted(shop.store.manifests(), key=lambda manifest: manifest.name)
    assert first.seconds >= 0.4
    assert second.seconds < 0.3


# refresh


def noted(shop: Workshop, text: list[str]) -> Callable[[Job[ToyParams]], None]:
    return lambda job: (job.out / "number").write_text(text.pop(0)) and None


def number(shop: Workshop, node: Artifact) -> str:
    manifest = shop.plan(node).nodes[node.name].manifest
    assert manifest is not None
    return (shop.store.path(manifest) / "number").read_text()


def sampled(shop: Workshop) -> Artifact:
    return shop.node(shop.stage("sample", deterministic=False), "a", "a")


def test_refresh_makes_anew_and_a_later_plain_run_keeps_its_result(shop: Workshop) -> None:
    shop.acts["sample[a]"] = noted(shop, ["0", "1", "2"])
    table = shop.node("table", "t", "", (sampled(shop),), cut=1)
    shop.run(table)
    first = shop.plan(table).nodes["sample[a]"].key
    assert shop.statuses(table, forced=["sample[a]"]) == {"sample[a]": MISS, "table[t]": WAITS}
    assert set(shop.statuses(table).values()) == {HIT}
    shop.ran()
    result = shop.run(table, forced=["sample[a]"])
    assert shop.ran() == result.executed == ["sample[a]", "table[t]"]
    assert number(shop, sampled(shop)) == "1"
    again = shop.plan(table).nodes["sample[a]"]
    assert (again.identity["attempt"], again.status) == (1, HIT)
    assert again.key != first
    shop.run(table)
    assert shop.ran() == []
    shop.run(table, forced=["sample[a]"])
    assert number(shop, sampled(shop)) == "2"
    assert len([manifest for manifest in shop.store.manifests() if manifest.stage == "sample"]) == 3


def test_refresh_of_what_was_never_made_makes_it_once(shop: Workshop) -> None:
    shop.acts["sample[a]"] = noted(shop, ["0", "1"])
    assert shop.run(sampled(shop), forced=["sample[a]"]).executed == ["sample[a]"]
    assert number(shop, sampled(shop)) == "0"


def stop_a_refresh_midway(shop: Workshop) -> None:
    """The stage then finishes from its scratch, if it finds it."""
    shop.acts["sample[a]"] = noted(shop, ["0"])
    shop.run(sampled(shop))

    def stop(job: Job[ToyParams]) -> None:
        (job.work / "step").write_text("half")
        raise StageFailed("stopped", job.name)

    shop.acts["sample[a]"] = stop
    assert shop.run(sampled(shop), forced=["sample[a]"]).failed
    shop.acts["sample[a]"] = lambda job: (job.out / "number").write_text((job.work / "step").read_text()) and None


def test_plain_run_goes_on_with_a_refresh_that_stopped(shop: Workshop) -> None:
    stop_a_refresh_midway(shop)
    assert shop.statuses(sampled(shop)) == {"sample[a]": MISS}
    assert shop.run(sampled(shop)).executed == ["sample[a]"]
    assert number(shop, sampled(shop)) == "half"


def test_same_refresh_asked_for_again_goes_on_too(shop: Workshop) -> None:
    stop_a_refresh_midway(shop)
    assert shop.run(sampled(shop), forced=["sample[a]"]).executed == ["sample[a]"]
    assert number(shop, sampled(shop)) == "half"
    assert shop.plan(sampled(shop)).nodes["sample[a]"].attempt == 1


def test_empty_folder_of_a_refresh_that_died_at_once_breaks_nothing(shop: Workshop) -> None:
    shop.run(sampled(shop))
    key = shop.plan(sampled(shop)).nodes["sample[a]"].base_key
    (shop.folder / "store" / "attempts" / key).mkdir(parents=True)
    assert shop.statuses(sampled(shop)) == {"sample[a]": HIT}


def test_run_leaves_a_record_of_what_it_stands_on(shop: Workshop) -> None:
    import json

    shop.run(chain(shop))
    (name,) = shop.store.storage.names("runs")
    record = json.loads(shop.store.storage.read(f"runs/{name}") or b"")
    assert record["experiment"] == "toy"
    assert record["keys"] == {name: node.key for name, node in shop.plan(chain(shop)).nodes.items()}
    assert sorted(record["executed"]) == sorted(record["keys"])


def test_run_leaves_no_thread_and_no_file_descriptor_behind(shop: Workshop) -> None:
    shop.run(shop.node("write", "warm", "x"))
    before = sorted(os.listdir("/proc/self/fd"))
    shop.acts["write[a]"] = fail
    assert shop.run(chain(shop)).failed
    shop.acts.clear()
    assert not shop.run(chain(shop)).failed
    assert sorted(os.listdir("/proc/self/fd")) == before
    wait_for(lambda: not any("[" in thread.name for thread in threading.enumerate()), 5, threading.enumerate)


def test_an_interrupt_that_someone_swallows_ends_the_run_all_the_same(shop: Workshop) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    release = threading.Event()
    shop.acts = {"write[a]": lambda job: (release.wait(20), None)[1]}

    def interrupted_run() -> None:
        with local_threads() as submit:

            def swallowing(*asked: Any) -> Any:
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)
                return submit(*asked)

            try:
                run(shop.plan(shop.node("write", "a")), shop.store, shop.ctx, experiment="toy", submit=swallowing)
            finally:
                release.set()

    try:
        interrupts.listen()
        with pytest.raises(KeyboardInterrupt):
            interrupted_run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        interrupts._asked.clear()
