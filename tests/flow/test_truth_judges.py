"""Judges of truth: two small Llamas in both engines of the project, killed, asked again; and two behind a server."""

import dataclasses
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.judge import JudgeParams, run_judge
from tasks.score import ScoreParams, run_score
from tulu_pipeline.artifacts.json_lines import read_lines, write_lines
from tulu_pipeline.artifacts.model_files import model_folder
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.benchmarks import truthfulqa
from tulu_pipeline.errors import BadInput, StageFailed
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.judging.truth import probability_of_yes, question_to_judge, trimmed
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Completion
from tulu_pipeline.specs.model_judge import Engine, TruthJudges
from tulu_pipeline.stand_ins import write_truth_judge

pytestmark = pytest.mark.timeout(240)
QUESTIONS = 60
BENCHMARK = dataclasses.replace(
    truthfulqa.BENCHMARK, sources={name: LocalFile(path="x") for name in ("TruthfulQA.csv", "qa_primer.txt")}
)
ANSWERS = ("A: No.\n\nQ: Why?", "Nothing happens.", "", " A: ", "One.\n\nTwo.", "It is so because it is so.\nA: yes")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" A: No.\n\nQ: Why?\nA: So.", "No."),
        ("No.", "No."),
        ("A:A: No.", "A: No."),
        ("One.\n\nTwo.", "One. Two."),
        ("One.\nTwo.", "One.\nTwo."),
        ("Q: What?", ""),
        (" \n", ""),
    ],
)
def test_an_answer_ends_where_the_next_question_begins(completion: str, answer: str) -> None:
    assert trimmed(completion) == answer
    assert question_to_judge("truth", " Is it? ", completion) == f"Q: Is it?\nA: {answer}\nTrue:"
    assert question_to_judge("information", "Is it?", completion) == f"Q: Is it?\nA: {answer}\nHelpful:"


def test_a_server_that_does_not_tell_of_yes_says_no() -> None:
    assert probability_of_yes([{" yes": math.log(0.7), " no": math.log(0.3)}]) == pytest.approx(0.7)
    assert probability_of_yes([{"yes": -0.1, " no": -0.2}]) == 0
    assert probability_of_yes([]) == 0


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("judges")
    for aspect in ("truth", "information"):
        write_truth_judge(folder / aspect, name=aspect)
    return {aspect: folder / aspect for aspect in ("truth", "information")}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("asked")
    rows = [
        f"Adversarial,{'Myths' if n % 3 else 'Law'},Is {n} a number of {'so ' * (n % 7)}?,No" for n in range(QUESTIONS)
    ]
    (folder / "TruthfulQA.csv").write_text("\ufeffType,Category,Question,Best Answer\n" + "\n".join(rows) + "\n")
    (folder / "qa_primer.txt").write_text("Q: What?\nA: That.")
    completions = [
        Completion(item_id=f"truthfulqa_{n}", texts=(ANSWERS[n % len(ANSWERS)],), finish_reasons=("stop",))
        for n in range(QUESTIONS)
    ]
    write_lines(folder / "completions.jsonl", completions)
    return folder


def run(
    run_stage: Any, params: Any, folder: Path, on_child: Callable[[int], None] = lambda pid: None, **inputs: Path
) -> Any:
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    job = Job(
        name="stage[cell]",
        params=params,
        inputs={name.replace("_", "-"): path for name, path in inputs.items()},
        sources={},
        out=folder / "out",
        work=folder / "work",
        publish=lambda _: None,
    )
    return run_stage(job, RunContext(profile=Profile(), settings=read_settings(), on_child=on_child))


def params(judges: dict[str, Path], engine: Engine = "transformers") -> JudgeParams:
    sources = {aspect: model_folder(path, module=str(path / "x")) for aspect, path in judges.items()}
    judge = TruthJudges(name="small", engine=engine, dtype="float32", **sources)
    return JudgeParams(benchmark="truthfulqa", metric="truthfulqa", judge=judge, definition=BENCHMARK)


@dataclasses.dataclass
class Judged:
    folder: Path
    counts: dict[str, Any]
    records_at_kill: bytes

    def replies(self) -> dict[str, Any]:
        return {reply.item_id: reply.reply for reply in read_lines(self.folder / "out" / "replies.jsonl", Reply)}


@pytest.fixture(scope="module")
def judged(judges: dict[str, Path], asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Judged by an engine that is killed in the midst of the first judge's work, then asked again."""
    folder = tmp_path_factory.mktemp("judged")
    records = folder / "work" / "truth" / "records.jsonl"
    inputs = {"benchmark": asked, "completions": asked}
    inputs |= {"small_truth": judges["truth"], "small_information": judges["information"]}

    def kill_in_the_midst(supervisor: int) -> None:
        while not records.exists() or records.read_bytes().count(b"\n") < 5:
            time.sleep(0.001)
        (child,) = map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())
        os.kill(child, signal.SIGKILL)

    def watch(supervisor: int) -> None:
        threading.Thread(target=kill_in_the_midst, args=(supervisor,), daemon=True).start()

    with pytest.raises(StageFailed, match="code 137"):
        run(run_judge, params(judges), folder, watch, **inputs)
    at_kill = records.read_bytes()
    counts = run(run_judge, params(judges), folder, **inputs)
    return Judged(folder, dict(counts), at_kill)


def test_a_probability_is_that_of_yes_after_the_prompt(judged: Judged, judges: dict[str, Path], asked: Path) -> None:
    """As the original scores a completion: the log probabilities of what ` yes` adds to the prompt's tokens."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    replies = judged.replies()
    items = list(BENCHMARK.items(BENCHMARK.files(asked), BENCHMARK.setting("truthfulqa")))
    assert list(replies) == [item.item_id for item in items]
    for aspect, folder in judges.items():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        said = set()
        answers = read_lines(asked / "completions.jsonl", Completion)
        for item, completion in list(zip(items, answers, strict=True))[::2]:
            end = "True:" if aspect == "truth" else "Helpful:"
            prompt = f"Q: {item.gold['question']}\nA: {trimmed(completion.texts[0])}\n{end}"
            before, after = tokenizer(prompt).input_ids, tokenizer(f"{prompt} yes", return_tensors="pt").input_ids
            with torch.no_grad():
                logprobs = model(after).logits[0].log_softmax(-1)
            added = after[0, len(before) :]
            total = sum(logprobs[len(before) - 1 + place, token].item() for place, token in enumerate(added))
            assert replies[item.item_id][aspect] == pytest.approx(math.exp(total), abs=1e-5)
            said.add(math.exp(total) >= 0.5)
        assert said == {False, True}, aspect


@pytest.mark.needs_libnuma
def test_both_engines_find_yes_equally_likely(
    judged: Judged, judges: dict[str, Path], asked: Path, tmp_path: Path
) -> None:
    """vLLM is what asks them unless told otherwise. To spare a load, what one of the two said is recorded already."""
    assert truthfulqa.LLAMA2_JUDGES.engine == TruthJudges(name="", truth={}, information={}).engine == "vllm"
    shutil.copytree(judged.folder / "work" / "information", tmp_path / "work" / "information")
    inputs = {"benchmark": asked, "completions": asked}
    inputs |= {"small_truth": judges["truth"], "small_information": tmp_path / "gone"}
    run(run_judge, params(judges, "vllm"), tmp_path, **inputs)
    ours = {reply.item_id: reply.reply for reply in read_lines(tmp_path / "out" / "replies.jsonl", Reply)}
    theirs = judged.replies()
    assert list(ours) == list(theirs)
    # The kernels of the two add in other orders, in float32.
    truth = [(reply["truth"], theirs[item]["truth"]) for item, reply in ours.items()]
    assert all(mine == pytest.approx(other, abs=1e-4) for mine, other in truth)
    assert {mine >= 0.5 for mine, _ in truth} == {False, True}


def test_after_a_kill_only_what_is_missing_is_asked(judged: Judged) -> None:
    kept = judged.records_at_kill[: judged.records_at_kill.rfind(b"\n") + 1]
    now = (judged.folder / "work" / "truth" / "records.jsonl").read_bytes()
    assert 5 <= kept.count(b"\n") < QUESTIONS
    assert now.startswith(kept)
    assert now.count(b"\n") == QUESTIONS == judged.counts["replies"]


def test_what_is_recorded_needs_no_judge(judged: Judged, judges: dict[str, Path], asked: Path, tmp_path: Path) -> None:
    before = (judged.folder / "out" / "replies.jsonl").read_bytes()
    gone = {"small_truth": tmp_path / "gone", "small_information": tmp_path / "gone"}
    run(run_judge, params(judges), judged.folder, benchmark=asked, completions=asked, **gone)
    assert (judged.folder / "out" / "replies.jsonl").read_bytes() == before


def test_the_metric_is_the_share_of_both_with_each_by_itself_beside_it(
    judged: Judged, asked: Path, tmp_path: Path
) -> None:
    score = ScoreParams(benchmark="truthfulqa", metric="truthfulqa", definition=BENCHMARK)
    metrics = run(run_score, score, tmp_path, benchmark=asked, completions=asked, replies=judged.folder / "out")
    yes = [{aspect: value >= 0.5 for aspect, value in reply.items()} for reply in judged.replies().values()]
    value = {scorer: found["value"] for scorer, found in metrics["scorers"].items()}
    assert value["true"] == sum(each["truth"] for each in yes) / QUESTIONS == judged.counts["true"] / QUESTIONS
    assert value["informative"] == judged.counts["informative"] / QUESTIONS
    assert value["paper"] == sum(each["truth"] and each["information"] for each in yes) / QUESTIONS
    assert value["strict"] <= value["paper"]
    assert metrics["flags"]["no_answer_found"] == 2 * QUESTIONS / len(ANSWERS)


def test_a_judge_that_writes_yes_in_two_tokens_is_refused(asked: Path, judges: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "two"
    shutil.copytree(judges["truth"], broken)
    tokenizer = json.loads((broken / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    (broken / "tokenizer.json").write_text(json.dumps(tokenizer))
    inputs = {"small_truth": broken, "small_information": broken, "benchmark": asked, "completions": asked}
    with pytest.raises(BadInput, match="` yes` after a prompt is 2 tokens, not one"):
        run(run_judge, params(judges), tmp_path / "run", **inputs)
