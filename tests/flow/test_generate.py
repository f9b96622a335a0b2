"""Generation with real engines on a real, tiny model: what is answered is kept, and engines agree."""

import dataclasses
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from training_runs import write_tiny_model

from tasks.generate import GenerateParams, generate_params, run_generate
from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.benchmarks import gsm, mmlu
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.inference.engine import EngineName
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Benchmark, Completion

SUBJECTS = ("animals", "flowers", "rivers", "towns")
QUESTIONS = 160
SAMPLES = 4
AT_A_TIME = 64  # that vLLM has memory for, when it is asked for the second time
STOPS = ("onesm", "xtm")  # that the tiny model writes now and then, in pieces of two tokens
PLUGIN = f"""
def register():
    import torch
    from vllm.v1.worker.gpu_worker import Worker

    whole = Worker.execute_model

    def execute_model(self, scheduler_output):
        if len(scheduler_output.num_scheduled_tokens) > {AT_A_TIME}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(self, scheduler_output)

    Worker.execute_model = execute_model
"""
pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of both benchmarks, in the formats of the originals: enough work to be interrupted."""
    folder = tmp_path_factory.mktemp("files")
    for subject in SUBJECTS:
        for split, rows in (("dev", 5), ("test", QUESTIONS // len(SUBJECTS))):
            path = folder / split / f"{subject}_{split}.csv"
            path.parent.mkdir(exist_ok=True)
            path.write_text(
                "".join(
                    f'"{number} days after the {split} {"".join(f"and {n * number} " for n in range(40))}?",'
                    f"one {number},two {number},three,None,{'ABCD'[number % 4]}\n"
                    for number in range(rows)
                )
            )
    exemplars = [
        {"question": f"What is {n} and {n}?", "cot_answer": f"So the answer is {2 * n}.", "short_answer": f"{2 * n}"}
        for n in range(8)
    ]
    questions = [
        {"question": f"What is {n} and 3, {'again ' * (n % 5)}?", "answer": f"#### {n + 3}"} for n in range(24)
    ]
    for name, lines in (("exemplars.jsonl", exemplars), ("test.jsonl", questions)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def small(benchmark: Benchmark) -> Benchmark:
    names = [f"{split}/{subject}_{split}.csv" for subject in SUBJECTS for split in ("dev", "test")]
    names = names if benchmark.name == "mmlu" else ["exemplars.jsonl", "test.jsonl"]
    return dataclasses.replace(benchmark, sources={name: LocalFile(path=name) for name in names})


@dataclasses.dataclass
class Run:
    """Jobs of one checkpoint, and what became of them."""

    root: Path
    published: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    failure: StageFailed | None = None
    records_at_kill: bytes = b""

    def job(
        self,
        engine: EngineName,
        benchmark: Benchmark,
        metric: str,
        model: Path,
        files: Path,
        *,
        called: str = "",
        sampling: Mapping[str, Any] = MappingProxyType({}),
        **options: Any,
    ) -> Job[GenerateParams]:
        options = {"tuned": True, "engine_dtype": "float32", **options}
        params = generate_params(small(benchmark), metric, engine=engine, **options)
        params = dataclasses.replace(params, sampling=dataclasses.replace(params.sampling, **sampling))
        called = called or metric
        for name in ("out", "work"):
            (self.root / called / name).mkdir(parents=True, exist_ok=True)
        return Job(
            name=f"generate[{called}]",
            params=params,
            inputs={"model": model, "benchmark": files},
            sources={},
            out=self.root / called / "out",
            work=self.root / called / "work",
            publish=lambda metrics: self.published.update({called: dict(metrics)}),
        )

    def go(self, *jobs: Job[GenerateParams], on_child: Callable[[int], None] = lambda pid: None) -> None:
        ctx = RunContext(profile=Profile(), settings=read_settings(), on_child=on_child)
        try:
            run_generate(jobs, ctx)
        except StageFailed as error:
            self.failure = error
        else:
            self.failure = None

    def completions(self, metric: str) -> list[Completion]:
        return list(read_lines(self.root / metric / "out" / "completions.jsonl", Completion))

    def records(self, metric: str) -> Path:
        return self.root / metric / "work" / "records.jsonl"


def test_a_model_is_asked_in_its_own_template_and_in_8_bits(model: Path, files: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    taught, run = tmp_path / "taught", Run(tmp_path / "run")
    shutil.copytree(model, taught)
    (taught / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for each in messages %}{{ each.role + ':\n' + each.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:\n' }}{% endif %}"
    )
    options = {"max_new_tokens": 4, "item_limit": 2, "template": "own", "quantization": "int8"}
    run.go(run.job("transformers", gsm.BENCHMARK, "gsm_cot", taught, files, **options))
    assert run.failure is None
    log = (run.root / "gsm_cot" / "out" / "aux" / "engine.log").read_text()
    assert "MatMul8bitLt" in log, "it says that it rounds what is in float32"
    tokenizer = AutoTokenizer.from_pretrained(taught)
    for completion in run.completions("gsm_cot"):
        user, _, cue = completion.prompt.removeprefix("<s>user:\n").partition("</s>assistant:\n")
        chat = [{"role": "user", "content": user}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        assert completion.prompt == asked + cue
        assert completion.prompt_tokens == len(tokenizer(completion.prompt, add_special_tokens=False).input_ids)


def both_benchmarks(run: Run, engine: EngineName, model: Path, files: Path) -> list[Job[GenerateParams]]:
    return [
        run.job(engine, gsm.BENCHMARK, "gsm_cot", model, files, max_new_tokens=24),
        run.job(engine, mmlu.BENCHMARK, "mmlu_5shot", model, files),
        run.job(
            engine, gsm.BENCHMARK, "gsm_direct", model, files,
            called="base form", max_new_tokens=20, tuned=False, sampling={"stop": STOPS},
        ),
    ]  # fmt: skip


def drawn(run: Run, model: Path, files: Path) -> list[Job[GenerateParams]]:
    """Samples of all questions, and of three of them."""
    sampling = {"temperature": 0.8, "samples": SAMPLES}
    options = {"max_new_tokens": 32, "sampling": sampling}
    return [
        run.job("vllm", gsm.BENCHMARK, "gsm_cot", model, files, called="many", **options),
        run.job("vllm", gsm.BENCHMARK, "gsm_cot", model, files, called="few", item_limit=3, **options),
    ]


@pytest.fixture(scope="module")
def with_vllm(tmp_path_factory: pytest.TempPathFactory, model: Path, files: Path) -> Run:
    """Benchmarks on vLLM: killed with SIGKILL in the midst of the first, then asked for again, with little memory."""
    run = Run(tmp_path_factory.mktemp("vllm"))
    records = run.records("mmlu_5shot")

    def kill_in_the_midst(supervisor: int) -> None:
        while not records.exists() or records.read_bytes().count(b"\n") < 20:
            time.sleep(0.001)
        os.kill(_only_child(supervisor), signal.SIGKILL)

    def watch(supervisor: int) -> None:
        threading.Thread(target=kill_in_the_midst, args=(supervisor,), daemon=True).start()

    jobs = [*both_benchmarks(run, "vllm", model, files), *drawn(run, model, files)]
    run.go(*jobs, on_child=watch)
    assert run.failure is not None
    assert "code 137" in run.failure.what
    assert not run.published
    run.records_at_kill = records.read_bytes()
    plugin = tmp_path_factory.mktemp("plugin")
    (plugin / "small_memory.py").write_text(PLUGIN)
    (plugin / "small_memory-0.dist-info").mkdir()
    (plugin / "small_memory-0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: small-memory\nVersion: 0\n"
    )
    words = "[vllm.general_plugins]\nsmall_memory = small_memory:register\n"
    (plugin / "small_memory-0.dist-info" / "entry_points.txt").write_text(words)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(plugin))
        run.go(*jobs)
    assert run.failure is None
    return run


@pytest.fixture(scope="module")
def with_transformers(tmp_path_factory: pytest.TempPathFactory, model: Path, files: Path) -> Run:
    """The same two on transformers, and a third one whose only question is too long for the model."""
    long = tmp_path_factory.mktemp("long")
    (long / "exemplars.jsonl").write_bytes((files / "exemplars.jsonl").read_bytes())
    (long / "test.jsonl").write_text(json.dumps({"question": "why " * 4000, "answer": "#### 1"}) + "\n")
    run = Run(tmp_path_factory.mktemp("transformers"))
    too_long = run.job("transformers", gsm.BENCHMARK, "gsm_direct", model, long, max_new_tokens=4)
    run.go(too_long, *both_benchmarks(run, "transformers", model, files))
    return run


@pytest.mark.needs_libnuma
def test_after_a_kill_only_what_is_missing_is_asked(with_vllm: Run) -> None:
    kept = with_vllm.records_at_kill[: with_vllm.records_at_kill.rfind(b"\n") + 1]
    assert 20 <= kept.count(b"\n") < QUESTIONS
    now = with_vllm.records("mmlu_5shot").read_bytes()
    assert now.startswith(kept)
    assert now.count(b"\n") == QUESTIONS


@pytest.mark.needs_libnuma
def test_completions_come_in_the_order_of_the_items(with_vllm: Run) -> None:
    ids = [completion.item_id for completion in with_vllm.completions("mmlu_5shot")]
    assert ids == [f"{subject}/{number}" for subject in SUBJECTS for number in range(QUESTIONS // len(SUBJECTS))]
    first, *others = with_vllm.published
    assert first == "mmlu_5shot", "fewest expected tokens first"
    assert set(others) == {"few", "base form", "gsm_cot", "many"}
    assert with_vllm.published["mmlu_5shot"]["items"] == QUESTIONS
    assert (with_vllm.root / "gsm_cot" / "out" / "aux" / "engine.log").exists()


@pytest.mark.needs_libnuma
def test_greedy_texts_of_vllm_are_those_of_transformers(with_vllm: Run, with_transformers: Run) -> None:
    ours = with_vllm.completions("gsm_cot")
    assert len(ours) == 24
    assert ours == with_transformers.completions("gsm_cot")
    assert all(completion.prompt.endswith("\n<|assistant|>\nAnswer:") for completion in ours)
    assert len({completion.texts for completion in ours}) > 1


@pytest.mark.needs_libnuma
def test_greedy_texts_that_a_stop_string_cuts_are_cut_alike(with_vllm: Run, with_transformers: Run) -> None:
    ours = with_vllm.completions("base form")
    assert ours == with_transformers.completions("base form")
    assert all(completion.prompt.endswith("\nAnswer:") and "<|" not in completion.prompt for completion in ours)
    assert {reason for completion in ours for reason in completion.finish_reasons} == {"stop", "length"}
    assert not [text for completion in ours for text in completion.texts if any(stop in text for stop in STOPS)]


@pytest.mark.needs_libnuma
def test_a_sample_does_not_hang_on_what_is_drawn_beside_it(with_vllm: Run) -> None:
    many = {completion.item_id: completion.texts for completion in with_vllm.completions("many")}
    few = {completion.item_id: completion.texts for completion in with_vllm.completions("few")}
    assert len(few) == 3
    assert few == {item_id: many[item_id] for item_id in few}
    assert all(len(set(texts)) == SAMPLES for texts in few.values())


@pytest.mark.needs_libnuma
def test_vllm_that_ran_out_of_memory_goes_on_with_half_as_many_sequences(with_vllm: Run) -> None:
    log = (with_vllm.root / "many" / "out" / "aux" / "engine.log").read_text()
    assert log.count("OutOfMemoryError: CUDA out of memory") >= 1
    told = f"out of memory with more than {AT_A_TIME} at a time"
    assert with_vllm.published["many"]["engine_note"] == told
    assert with_vllm.published["mmlu_5shot"].keys().isdisjoint({"engine_note"}), "it was done before"
    assert with_vllm.records("many").read_bytes().count(b"\n") == 24 * SAMPLES, "none is asked twice"


@pytest.mark.needs_libnuma
def test_letters_have_the_same_log_probabilities_in_vllm_and_transformers(
    with_vllm: Run, with_transformers: Run
) -> None:
    pairs = zip(with_vllm.completions("mmlu_5shot"), with_transformers.completions("mmlu_5shot"), strict=True)
    for ours, theirs in pairs:
        assert list(ours.choice_logprobs) == ["A", "B", "C", "D"]
        # float32 arithmetic in another order
        assert ours.choice_logprobs == pytest.approx(theirs.choice_logprobs, abs=1e-4)
        assert dataclasses.replace(ours, choice_logprobs={}) == dataclasses.replace(theirs, choice_logprobs={})


def test_a_benchmark_that_does_not_fit_fails_alone(with_transformers: Run) -> None:
    assert with_transformers.failure is not None
    assert with_transformers.failure.what.startswith("generate[gsm_direct]: 1 prompts do not fit: `gsm_0` (")
    assert with_transformers.published.keys() == {"mmlu_5shot", "base form", "gsm_cot"}


def test_what_is_recorded_is_published_without_an_engine(with_transformers: Run, files: Path, tmp_path: Path) -> None:
    before = with_transformers.completions("gsm_cot")
    job = with_transformers.job("transformers", gsm.BENCHMARK, "gsm_cot", tmp_path / "gone", files, max_new_tokens=24)
    (job.out / "completions.jsonl").unlink()
    run_generate([job], RunContext(profile=Profile(), settings=read_settings()))
    assert with_transformers.completions("gsm_cot") == before


def test_an_engine_that_cannot_load_says_why(model: Path, files: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes()[: 1000 if file.name == "tokenizer.json" else None])
    run = Run(tmp_path)
    run.go(run.job("transformers", gsm.BENCHMARK, "gsm_cot", broken, files, max_new_tokens=4))
    assert run.failure is not None
    assert "ended with code 1" in run.failure.what
    assert "broken JSON" in run.failure.what, "the tail of the engine's log"
    assert Path(run.failure.where).name == "engine.log"
    assert not run.published


def _only_child(pid: int) -> int:
    (child,) = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return child
