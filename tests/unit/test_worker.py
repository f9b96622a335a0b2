"""All benchmarks of a checkpoint are one stream of requests; each is recorded, told of and fails by itself."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tulu_pipeline.artifacts.append_file import read_appended
from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.artifacts.json_lines import write_lines
from tulu_pipeline.inference.engine import Failed, Finished, Request
from tulu_pipeline.inference.job import BenchmarkJob
from tulu_pipeline.inference.records import Question, Record
from tulu_pipeline.inference.worker import answer
from tulu_pipeline.models.tiny import write_tokenizer
from tulu_pipeline.specs.benchmark import Sampling
from tulu_pipeline.tokens.tokenizer import ChatTokenizer, load_tokenizer


class SlotEngine:
    """Writes one token a step for each of `slots` requests; a request wants as many steps as its seed or cap says."""

    context_tokens = 512
    note = ""

    def __init__(self, slots: int, failing: frozenset[str] = frozenset()) -> None:
        self.slots, self.failing = slots, failing
        self.beside: set[frozenset[str]] = set()  # which benchmarks ran side by side

    def submit(self, requests: Iterable[Request]) -> Iterator[Finished | Failed]:
        waiting = iter(requests)
        left: dict[str, int] = {}
        while True:
            for request in itertools.islice(waiting, self.slots - len(left)):
                left[request.request_id] = request.max_new_tokens if request.seed is None else request.seed % 7 + 1
            if not left:
                return
            self.beside.add(frozenset(request_id.split("/")[0] for request_id in left))
            left = {request_id: steps - 1 for request_id, steps in left.items()}
            for request_id in [request_id for request_id, steps in left.items() if steps <= 0]:
                del left[request_id]
                if any(request_id.endswith(f"/{item}#0") for item in self.failing):
                    yield Failed(request_id, "no room")
                else:
                    yield Finished(request_id=request_id, text=f"<{request_id}>", completion_tokens=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, vocabulary=2_000, all_words=0)
    return load_tokenizer(folder)


def job(folder: Path, name: str, items: int, *, samples: int = 1, max_new_tokens: int = 4) -> BenchmarkJob:
    write_lines(folder / f"{name}.questions", [Question(item_id=f"{name}/{n}", prompts=("Hi",)) for n in range(items)])
    temperature = 0.0 if samples == 1 else 0.8
    return BenchmarkJob(
        name=name,
        questions=folder / f"{name}.questions",
        records=folder / f"{name}.records",
        sampling=Sampling(max_new_tokens=max_new_tokens, samples=samples, temperature=temperature),
    )


def told(capfd: pytest.CaptureFixture[str], *kinds: str) -> list[dict[str, object]]:
    lines = capfd.readouterr().out.splitlines()
    events = [json.loads(line.removeprefix(EVENT_PREFIX)) for line in lines if line]
    return [event for event in events if event["event"] in kinds]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 3)), min_size=1, max_size=5), slots=st.integers(1, 6))
def test_every_sample_is_recorded_once_where_it_belongs(
    sizes: list[tuple[int, int]],
    slots: int,
    tokenizer: ChatTokenizer,
    tmp_path_factory: pytest.TempPathFactory,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("jobs")
    jobs = [job(folder, f"b{place}", items, samples=samples) for place, (items, samples) in enumerate(sizes)]
    answer(jobs, SlotEngine(slots), tokenizer)
    for place, (each, (items, samples)) in enumerate(zip(jobs, sizes, strict=True)):
        records = {(record.item_id, record.sample): record.text for record in read_appended(each.records, Record)}
        wanted = [(f"b{place}/{n}", sample) for n in range(items) for sample in range(samples)]
        assert records == {(item, sample): f"<{place}/{item}#{sample}>" for item, sample in wanted}
    assert sorted(str(event["name"]) for event in told(capfd, "done")) == [each.name for each in jobs]
    again = SlotEngine(slots)
    answer(jobs, again, tokenizer)
    assert not again.beside  # nothing was left to ask
    assert len(told(capfd, "done")) == len(jobs)


def test_while_the_last_of_one_benchmark_are_written_the_next_ones_fill_the_room(
    tmp_path: Path, tokenizer: ChatTokenizer, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = SlotEngine(4)
    answer([job(tmp_path, "long", 2, max_new_tokens=9), job(tmp_path, "short", 2)], engine, tokenizer)
    assert frozenset({"0", "1"}) in engine.beside
    assert [event["name"] for event in told(capfd, "done")] == ["short", "long"]


def test_a_benchmark_that_fails_or_does_not_fit_is_told_of_and_the_others_are_kept(
    tmp_path: Path, tokenizer: ChatTokenizer, capfd: pytest.CaptureFixture[str]
) -> None:
    large = job(tmp_path, "large", 1)
    write_lines(large.questions, [Question(item_id="large/0", prompts=("much " * 600,), choices=("A", "B"))])
    jobs = [job(tmp_path, "broken", 3), large, job(tmp_path, "sound", 3)]
    answer(jobs, SlotEngine(8, failing=frozenset({"broken/1"})), tokenizer)
    large_event, broken = told(capfd, "failed")
    assert large_event["name"] == "large"
    assert broken["what"] == "the engine failed on 1 of 3 requests\n`broken/1`: no room"
    assert [record.item_id for record in read_appended(jobs[0].records, Record)] == ["broken/0", "broken/2"]
    assert len(list(read_appended(jobs[2].records, Record))) == 3
    answer(jobs[:1], SlotEngine(8), tokenizer)
    assert [event["name"] for event in told(capfd, "done")] == ["broken"]
    assert len(list(read_appended(jobs[0].records, Record))) == 3
