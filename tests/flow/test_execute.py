"""HumanEval's way through the stages: raw prompts, programs in the sandbox, verdicts, pass@k; killed and gone on."""

import dataclasses
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from training_runs import write_tiny_model

from flows.graph import graph_of
from flows.select import select
from perf.matrix import EXPERIMENT as MATRIX
from tasks.execute import ExecuteParams, run_execute
from tasks.generate import generate_params, run_generate
from tasks.score import ScoreParams, run_score
from tulu_pipeline.artifacts.json_lines import read_lines, write_lines
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.benchmarks import codex_eval
from tulu_pipeline.errors import BadInput, MissingOnMachine
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.profile import Profile
from tulu_pipeline.sandbox import tiers
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Benchmark, Completion, ItemScore
from tulu_pipeline.specs.judge import Execution

pytestmark = pytest.mark.timeout(240)
needs_sandbox = pytest.mark.skipif(
    bool(tiers.what_refuses("namespaces") and tiers.what_refuses("bubblewrap")),
    reason="no sandbox on this machine: see `tulu doctor`",
)
NAMES = ("double", "negate")
PROBLEMS = [
    {
        "task_id": f"HumanEval/{number}",
        "prompt": f'def {name}(x: int) -> int:\n    """{name} x, \u00e9ven below zero."""\n',
        "entry_point": name,
        "canonical_solution": f"    return x * {factor}\n",
        "test": f"\n\ndef check(candidate):\n"
        f"    assert candidate(3) == {3 * factor}\n    assert candidate(-1) == {-factor}\n",
    }
    for number, (name, factor) in enumerate(zip(NAMES, (2, -1), strict=True))
]
BENCHMARK: Benchmark = dataclasses.replace(codex_eval.BENCHMARK, sources={"HumanEval.jsonl.gz": LocalFile(path="x")})
CHEAT = "    class Y(int):\n        def __eq__(self, other): return True\n    return Y()"
TEXTS = (
    ("    return x * 2\n", "    return x + x", "    return x", CHEAT),
    ("    return -x", "    return 0 - x", "    raise SystemExit", ""),
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    lines = "".join(json.dumps(problem) + "\n" for problem in PROBLEMS)
    (tmp_path / "HumanEval.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    write_completions(tmp_path, TEXTS)
    return tmp_path


def write_completions(folder: Path, texts: tuple[tuple[str, ...], ...]) -> None:
    completions = [
        Completion(
            item_id=f"human_eval_{number}",
            texts=each,
            finish_reasons=("stop",) * len(each),
            completion_tokens=(1,) * len(each),
        )
        for number, each in enumerate(texts)
    ]
    write_lines(folder / "completions.jsonl", completions)


def context(**named: Any) -> RunContext:
    return RunContext(profile=Profile(), settings=read_settings(), **named)


def job(params: Any, folder: Path, **inputs: Path) -> Job[Any]:
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Job(
        name="stage[cell]", params=params, inputs=inputs, sources={}, out=folder / "out", work=folder / "work",
        publish=lambda metrics: None,
    )  # fmt: skip


def params(timeout_seconds: float = 5.0) -> ExecuteParams:
    execution = Execution(timeout_seconds=timeout_seconds)
    return ExecuteParams(benchmark="codex_eval", metric="codex_eval_p1", execution=execution, definition=BENCHMARK)


def replies(folder: Path) -> list[list[dict[str, Any]]]:
    return [reply.reply["samples"] for reply in read_lines(folder / "out" / "replies.jsonl", Reply)]


@needs_sandbox
def test_verdicts_become_pass_at_k_and_a_cheat_counts_for_the_paper_alone(files: Path, tmp_path: Path) -> None:
    counts = run_execute(job(params(), tmp_path / "execute", benchmark=files, completions=files), context())
    assert counts["programs"] == 8
    assert counts["tier"] in tiers.SAFE
    found = replies(tmp_path / "execute")
    assert [[verdict["outcome"] for verdict in item] for item in found] == [
        ["passed", "passed", "failed", "passed"],
        ["passed", "passed", "failed", "failed"],
    ]
    assert [verdict["flags"] for verdict in found[0]] == [[], [], [], ["own_equality"]]
    score = ScoreParams(benchmark="codex_eval", metric="codex_eval_p1", definition=BENCHMARK)
    metrics = run_score(
        job(score, tmp_path / "score", benchmark=files, completions=files, replies=tmp_path / "execute" / "out"),
        context(),
    )
    assert metrics["scorers"]["paper"]["value"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert metrics["scorers"]["strict"]["value"] == pytest.approx(1 / 2)
    assert metrics["scorers"]["paper"]["method"] == "bootstrap"
    assert set(metrics["scorers"]) == {"paper", "strict", "pass@1"}, "of four samples nothing is known of pass@5"
    assert metrics["flags"] == {"early_exit": 1, "empty": 1, "own_equality": 1}
    (first, _) = read_lines(tmp_path / "score" / "out" / "items.jsonl", ItemScore)
    assert first.extracted["paper"] == "3 of 4"


@needs_sandbox
def test_samples_that_say_the_same_are_executed_once(files: Path, tmp_path: Path) -> None:
    write_completions(files, (("    return x * 2\n",) * 20, ("    return -x",) * 20))
    counts = run_execute(job(params(), tmp_path / "execute", benchmark=files, completions=files), context())
    assert (counts["programs"], counts["passed"]) == (2, 2)
    assert [len(item) for item in replies(tmp_path / "execute")] == [20, 20]


@needs_sandbox
def test_an_execution_that_is_killed_goes_on_and_executes_nothing_twice(files: Path, tmp_path: Path) -> None:
    texts = tuple(tuple(f"    return x * {factor}  # {n}\n" for n in range(150)) for factor in (2, -1))
    write_completions(files, texts)
    folder = tmp_path / "execute"
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[level]) for level in range(3)]}
from pathlib import Path
import test_execute as test
folder, files = Path({str(folder)!r}), Path({str(files)!r})
test.run_execute(test.job(test.params(), folder, benchmark=files, completions=files), test.context())
"""
    kept = folder / "work" / "verdicts.jsonl"
    before = b""
    for least in (1, 100):
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            until = time.monotonic() + 60
            while not kept.exists() or kept.read_bytes().count(b"\n") < least:
                assert process.poll() is None, "it ended before it could be killed"
                assert time.monotonic() < until
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        assert kept.read_bytes().startswith(before), "what was written stays byte for byte"
        before = kept.read_bytes()
        before = before[: before.rfind(b"\n") + 1]
    with kept.open("ab") as file:
        file.write(b'{"tier": "namespaces", "verd')  # what a kill in the middle of a line leaves
    done: list[float] = []
    ctx = context(progress=lambda name, done_now, total, unit, note="": done.append(done_now))
    counts = run_execute(job(params(), folder, benchmark=files, completions=files), ctx)
    assert (counts["programs"], counts["passed"]) == (300, 300)
    assert kept.read_bytes().startswith(before)
    lines = [json.loads(line)["verdict"]["program_id"] for line in kept.read_bytes().splitlines()]
    assert len(lines) == len(set(lines)) == 300
    assert done[0] == before.count(b"\n") + 1
    assert [len(item) for item in replies(folder)] == [150, 150]


@needs_sandbox
def test_another_timeout_is_another_verdict(files: Path, tmp_path: Path) -> None:
    write_completions(files, (("    import time\n    time.sleep(0.6)\n    return x * 2",), ("    return -x",)))
    folder = tmp_path / "execute"
    for seconds, outcome in ((0.3, "timed_out"), (20.0, "passed")):
        run_execute(job(params(seconds), folder, benchmark=files, completions=files), context())
        assert [item[0]["outcome"] for item in replies(folder)] == [outcome, "passed"]


def test_without_a_sandbox_nothing_is_executed_unless_told_so(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses = {"namespaces": "no", "bubblewrap": "no"}
    monkeypatch.setattr(tiers, "what_refuses", lambda tier: refuses.get(tier, ""))
    work = job(params(), tmp_path / "execute", benchmark=files, completions=files)
    with pytest.raises(MissingOnMachine, match="cannot be isolated") as refused:
        run_execute(work, context())
    assert "--unsafe-code" in refused.value.fix
    assert not (tmp_path / "execute" / "work" / "verdicts.jsonl").exists()
    assert run_execute(work, context(unsafe_code=True))["tier"] == "none"


def test_the_graph_executes_where_it_would_judge() -> None:
    experiment = dataclasses.replace(
        MATRIX, benchmarks={"codex_eval": ("codex_eval_p10",)}, own_benchmarks=(), samples=12
    )
    graph = graph_of(experiment)
    executed = select(graph, "execute")
    assert len(executed) == sum(each.stage.name == "score" for each in graph)
    assert not any(each.stage.name == "judge" for each in graph)
    first: Any = executed[0]
    assert first.params.execution == Execution(timeout_seconds=3.0)
    assert set(first.inputs) == {"completions", "benchmark"}
    assert first.inputs["completions"].params.sampling.samples == 12
    assert first.inputs["completions"].params.sampling.stop == ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "HumanEval.jsonl.gz"
    for content in (b"{}", gzip.compress(b"{}\n"), gzip.compress(b"[]\n"), gzip.compress(b"{\n")):
        path.write_bytes(content)
        with pytest.raises(BadInput) as error:
            list(codex_eval.read_items({path.name: path}, BENCHMARK.settings[0]))
        assert str(path) in error.value.where


def test_a_tuned_model_is_asked_the_raw_prompt_and_stopped_where_a_function_ends(files: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    asked = {
        metric: generate_params(
            BENCHMARK, metric, tuned=True, engine="transformers", engine_dtype="float32", max_new_tokens=8, samples=2
        )
        for metric in ("codex_eval_p1", "codex_eval_chat_p1")
    }
    published: list[str] = []
    jobs = [
        dataclasses.replace(
            job(each, tmp_path / metric, benchmark=files, model=model),
            name=metric,
            publish=lambda metrics, metric=metric: published.append(metric),
        )
        for metric, each in asked.items()
    ]
    run_generate(jobs, context())
    assert set(published) == set(asked)
    raw, chat = (list(read_lines(tmp_path / metric / "out" / "completions.jsonl", Completion)) for metric in asked)
    assert [each.prompt for each in raw] == [problem["prompt"] for problem in PROBLEMS]
    head = PROBLEMS[0]["prompt"]
    assert chat[0].prompt == (
        f"<|user|>\nComplete the following python function.\n\n\n{head}\n<|assistant|>\n"
        f"Here is the completed function:\n\n\n{head}"
    )
    assert {len(each.texts) for each in (*raw, *chat)} == {2}
    assert asked["codex_eval_p1"].sampling.stop[0] == "\nclass"


def test_no_process_of_this_file_is_left() -> None:
    own = [path for path in Path("/proc").glob("[0-9]*/stat") if is_childs(path)]
    assert own == []


def is_childs(path: Path) -> bool:
    try:
        words = path.read_text().rpartition(")")[2].split()
        line = path.with_name("cmdline").read_bytes()
    except OSError:
        return False
    return int(words[1]) == os.getpid() and b"sandbox" in line and words[0] != "Z"
