"""The toxicity classifier as a judge: a small RoBERTa made on the spot, in its own process, killed and asked again."""

import dataclasses
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.small_classifier import write_classifier
from odd_texts import ODD

from tasks.judge import JudgeParams, run_judge
from tasks.score import ScoreParams, run_score
from tulu_pipeline.artifacts.json_lines import read_lines, write_lines
from tulu_pipeline.artifacts.model_files import model_folder
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.benchmarks import toxigen
from tulu_pipeline.errors import BadInput, StageFailed
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.judging.toxicity import Classified, Text
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Completion, ItemScore
from tulu_pipeline.specs.model_judge import ToxicityClassifier

pytestmark = pytest.mark.timeout(240)
GROUPS = ("asian", "women")
PROMPTS = 48  # of each group
BENCHMARK = dataclasses.replace(
    toxigen.BENCHMARK, sources={f"hate_{group}_1k.txt": LocalFile(path="x") for group in GROUPS}
)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts, and completions of every length and kind: none, one word, odd ones, more than the classifier reads."""
    folder, draw = tmp_path_factory.mktemp("asked"), random.Random(0)
    for group in GROUPS:
        (folder / f"hate_{group}_1k.txt").write_text("".join(f"- {group} {n}\\n-\n" for n in range(PROMPTS)))
    items = list(BENCHMARK.items(BENCHMARK.files(folder), BENCHMARK.setting("toxigen")))
    texts = ["", " \n", "a", "a", "é 猫 \x00", "</s><s>", "word " * 900, *ODD.values()]
    texts += ["".join(draw.choices("abc def\n.,ghi ", k=draw.choice([3, 30, 120, 300]))) for _ in items[len(texts) :]]
    write_lines(
        folder / "completions.jsonl",
        [
            Completion(item_id=item.item_id, texts=(text,), finish_reasons=("stop",))
            for item, text in zip(items, texts, strict=True)
        ],
    )
    return folder


def run(
    run_stage: Any, params: Any, folder: Path, on_child: Callable[[int], None] = lambda pid: None, **inputs: Path
) -> Any:
    for name in ("out", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    job = Job(
        name="stage[cell]",
        params=params,
        inputs=inputs,
        sources={},
        out=folder / "out",
        work=folder / "work",
        publish=lambda _: None,
    )
    return run_stage(job, RunContext(profile=Profile(), settings=read_settings(), on_child=on_child))


def judge_params(classifier: Path) -> JudgeParams:
    judge = ToxicityClassifier(name="small", model=model_folder(classifier, module=str(classifier / "x")))
    return JudgeParams(benchmark="toxigen", metric="toxigen", judge=judge, definition=BENCHMARK)


@dataclasses.dataclass
class Judged:
    folder: Path
    counts: dict[str, Any]
    records_at_kill: bytes

    def replies(self) -> dict[str, Any]:
        return {reply.item_id: reply.reply for reply in read_lines(self.folder / "out" / "replies.jsonl", Reply)}


@pytest.fixture(scope="module")
def judged(classifier: Path, asked: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Judged by a process that is killed in the midst, then by another one."""
    folder = tmp_path_factory.mktemp("judged")
    records, inputs = folder / "work" / "classified.jsonl", {"benchmark": asked, "completions": asked}

    def kill_in_the_midst(supervisor: int) -> None:
        while not records.exists() or records.read_bytes().count(b"\n") < 20:
            time.sleep(0.001)
        (child,) = map(int, Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split())
        os.kill(child, signal.SIGKILL)

    def watch(supervisor: int) -> None:
        threading.Thread(target=kill_in_the_midst, args=(supervisor,), daemon=True).start()

    with pytest.raises(StageFailed, match="code 137"):
        run(run_judge, judge_params(classifier), folder, watch, small=classifier, **inputs)
    at_kill = records.read_bytes()
    assert not (folder / "out" / "replies.jsonl").exists()
    counts = run(run_judge, judge_params(classifier), folder, small=classifier, **inputs)
    return Judged(folder, dict(counts), at_kill)


def test_labels_are_those_of_one_text_at_a_time(judged: Judged, classifier: Path, asked: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    model = AutoModelForSequenceClassification.from_pretrained(classifier, dtype=torch.float32).eval()
    replies, labels = judged.replies(), set()
    for completion in read_lines(asked / "completions.jsonl", Completion):
        inputs = tokenizer(completion.texts, truncation=True, max_length=512, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        reply = replies.pop(completion.item_id)
        assert reply["label"] == int(logits.argmax())
        assert reply["toxic"] == (reply["label"] == 1)
        assert reply["logits"] == pytest.approx(logits.tolist(), abs=1e-4)  # padding, in another order of sums
        assert reply["cut"] == (len(tokenizer(completion.texts[0]).input_ids) > 512)
        labels.add(reply["label"])
    assert not replies
    assert labels == {0, 1}


def test_after_a_kill_only_what_is_missing_is_classified(judged: Judged) -> None:
    kept = judged.records_at_kill[: judged.records_at_kill.rfind(b"\n") + 1]
    now = (judged.folder / "work" / "classified.jsonl").read_bytes()
    assert 20 <= kept.count(b"\n") < judged.counts["distinct"]
    assert now.startswith(kept)
    assert now.count(b"\n") == judged.counts["distinct"] < 2 * PROMPTS, "the same text is classified once"


def test_what_is_recorded_needs_no_classifier(judged: Judged, classifier: Path, asked: Path, tmp_path: Path) -> None:
    before = (judged.folder / "out" / "replies.jsonl").read_bytes()
    inputs = {"benchmark": asked, "completions": asked, "small": tmp_path / "gone"}
    run(run_judge, judge_params(classifier), judged.folder, **inputs)
    assert (judged.folder / "out" / "replies.jsonl").read_bytes() == before


def test_rates_come_per_group_and_empty_answers_are_counted(judged: Judged, asked: Path, tmp_path: Path) -> None:
    params = ScoreParams(benchmark="toxigen", metric="toxigen", definition=BENCHMARK)
    inputs = {"benchmark": asked, "completions": asked, "replies": judged.folder / "out"}
    metrics = run(run_score, params, tmp_path, **inputs)
    scores = list(read_lines(tmp_path / "out" / "items.jsonl", ItemScore))
    toxic = {group: [score.scores["paper"] for score in scores if score.group == group] for group in GROUPS}
    assert {group: metrics["groups"][group]["value"] for group in GROUPS} == {
        group: sum(filter(None, values)) / PROMPTS for group, values in toxic.items()
    }
    assert metrics["scorers"]["paper"]["value"] == judged.counts["toxic"] / (2 * PROMPTS)
    assert metrics["flags"]["empty"] == judged.counts["empty"] >= 2
    assert metrics["flags"]["judge_read_part"] == judged.counts["read_in_part"] >= 1
    assert metrics["scorers"]["strict"]["n"] == 2 * PROMPTS - metrics["flags"]["empty"]


def test_where_memory_runs_out_batches_are_halved_and_texts_too_long_for_it_are_told(
    judged: Judged, classifier: Path
) -> None:
    import torch

    from tulu_pipeline.judging.toxicity_worker import Classifier

    def refuse(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if kwargs["input_ids"].numel() > 400:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    texts = list(read_lines(judged.folder / "work" / "texts.jsonl", Text))
    recorded = {each.sha256: each for each in read_lines(judged.folder / "work" / "classified.jsonl", Classified)}
    small = Classifier(str(classifier), max_length_tokens=512, gpu=False)
    small._model.register_forward_pre_hook(refuse, with_kwargs=True)
    verdicts: list[Classified] = []

    def classify() -> None:
        for verdict in small.classify(texts, 32):
            verdicts.append(verdict)

    with pytest.raises(StageFailed, match="OutOfMemoryError: CUDA out of memory") as told:
        classify()
    lacking = {name for name, each in recorded.items() if min(each.tokens, 512) > 400}
    assert recorded.keys() - {each.sha256 for each in verdicts} == lacking
    assert told.value.what.startswith(f"{len(lacking)} texts were not classified\n")
    assert lacking
    assert all(name in told.value.what for name in lacking)
    assert "at a time" in small.note
    for verdict in verdicts:
        theirs = recorded[verdict.sha256]
        assert (verdict.label, verdict.tokens) == (theirs.label, theirs.tokens)
        assert verdict.logits == pytest.approx(theirs.logits, abs=1e-4)  # padded otherwise


def test_a_classifier_that_lacks_weights_is_refused(classifier: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from tulu_pipeline.judging.toxicity_worker import Classifier

    broken = tmp_path / "broken"
    shutil.copytree(classifier, broken)
    weights = load_file(broken / "model.safetensors")
    del weights["classifier.out_proj.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"no file has `classifier\.out_proj\.weight`"):
        Classifier(str(broken), max_length_tokens=512, gpu=False)
