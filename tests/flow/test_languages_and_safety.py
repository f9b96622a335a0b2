"""One small model asked TyDiQA, ToxiGen and TruthfulQA, judged by small judges, down to the table."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.openai_server import KEY, OpenAIServer, openai_server
from fakes.small_classifier import write_classifier

from flows.session import Request, Session, prepare, run_in_threads
from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.inference.passages import cutter
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.specs.benchmark import Completion
from tulu_pipeline.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.timeout(300)
METRICS = ("tydiqa_gp", "tydiqa_cb", "toxigen", "truthfulqa")
EXPERIMENT = """
from dataclasses import replace
from pathlib import Path
from tulu_pipeline.artifacts.model_files import model_folder
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.benchmarks import toxigen, truthfulqa, tydiqa
from tulu_pipeline.models import tiny
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.model_judge import ServedTruthJudges, ToxicityClassifier

HERE = Path(__file__).parent


def local(benchmark, names):
    return replace(benchmark, sources={name: LocalFile(path=str(HERE / name)) for name in names})


tydiqa_of_two = tydiqa.reduced(("english", "korean"), demos="dev")
EXPERIMENT = Experiment(
    name="languages_and_safety", title="languages and safety", hypothesis="",
    models=(tiny.FAMILY.model("tiny"),), mixtures=(), untuned=True,
    own_benchmarks=(
        local(tydiqa_of_two, tydiqa_of_two.sources),
        local(toxigen.BENCHMARK, ["hate_asian_1k.txt", "hate_women_1k.txt"]),
        local(truthfulqa.BENCHMARK, truthfulqa.BENCHMARK.sources),
    ),
    benchmarks={"tydiqa": ("tydiqa_gp", "tydiqa_cb"), "toxigen": ("toxigen",), "truthfulqa": ("truthfulqa",)},
    item_limit={"tydiqa_gp": 8, "tydiqa_cb": 8},
    judges={
        "toxigen": ToxicityClassifier(name="small", model=model_folder("classifier", module=__file__)),
        "truthfulqa": ServedTruthJudges(truth="judge-of-truth", information="judge-of-information"),
    },
    engine="transformers", engine_dtype="float32", max_new_tokens=8, average="none",
)
"""


def says(body: dict[str, Any]) -> dict[str, Any]:
    """True is every other question, and every answer informs; neither judge writes anything else."""
    number = int(body["prompt"].split()[2])
    yes = 0.8 if body["model"] == "judge-of-information" or number % 2 else 0.2
    return {"text": " yes", "top_logprobs": ({" yes": math.log(yes), " no": math.log(1 - yes)},)}


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with openai_server() as known:
        known.answer = says
        known.models = ["judge-of-truth", "judge-of-information"]
        yield known


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, server: OpenAIServer) -> Session:
    folder = tmp_path_factory.mktemp("languages_and_safety")
    (folder / "classifier").mkdir()
    write_classifier(folder / "classifier")
    (folder / "mine.py").write_text(EXPERIMENT)
    for language in ("english", "korean"):
        qas = [{"id": f"{language}-{n}", "question": f"{n}?", "answers": [{"text": f"{n}"}]} for n in range(105)]
        data = {"data": [{"paragraphs": [{"context": "some words of a passage " * 200, "qas": qas}]}]}
        (folder / f"{language}_tydiqa_dev.json").write_text(json.dumps(data))
    for group in ("asian", "women"):
        (folder / f"hate_{group}_1k.txt").write_text("".join(f"- {group} {n}\\n-\n" for n in range(4)))
    rows = "".join(f"Adversarial,Myths,Is {n} odd?,Yes\n" for n in range(6))
    (folder / "TruthfulQA.csv").write_text(f"Type,Category,Question,Best Answer\n{rows}")
    (folder / "qa_primer.txt").write_text("Q: What?\nA: That.")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        patch.setenv("OPENAI_API_KEY", KEY)
        session = prepare(Request(experiment=f"{folder / 'mine.py'}", store=str(folder / "store")))
        result = run_in_threads(session)
    assert not result.failed
    return session


def made(session: Session, stage: str, metric: str) -> Path:
    (name,) = (name for name in session.plan.nodes if name.startswith(f"{stage}[") and name.endswith(f"/{metric}]"))
    return session.folder(name)


def test_every_metric_has_a_number_of_all_its_items(session: Session) -> None:
    counts = {}
    for metric in METRICS:
        metrics = json.loads((made(session, "score", metric) / "metrics.json").read_text())
        counts[metric] = metrics["n"]
        headline = metrics["scorers"][metrics["headline"]]
        assert headline["low"] <= headline["value"] <= headline["high"]
        assert sum(group["n"] for group in metrics["groups"].values()) == metrics["n"]
    assert counts == {"tydiqa_gp": 8, "tydiqa_cb": 8, "toxigen": 8, "truthfulqa": 6}


def test_passages_were_cut_by_the_asked_models_tokenizer(session: Session) -> None:
    cut = cutter(load_tokenizer(session.folder("download[tiny]")))("some words of a passage " * 200, 512)
    assert cut.startswith("<s>")
    for completion in read_lines(made(session, "generate", "tydiqa_gp") / "completions.jsonl", Completion):
        assert completion.prompt.count(f" {cut}\n") == 2, "the exemplar's and the question's"
        assert completion.prompt_tokens < 2048


def test_the_servers_judges_are_asked_for_one_token_of_each_answer(session: Session, server: OpenAIServer) -> None:
    replies = [reply.reply for reply in read_lines(made(session, "judge", "truthfulqa") / "replies.jsonl", Reply)]
    assert [round(reply["truth"], 9) for reply in replies] == [0.2, 0.8] * 3
    assert [round(reply["information"], 9) for reply in replies] == [0.8] * 6
    metrics = json.loads((made(session, "score", "truthfulqa") / "metrics.json").read_text())
    assert {name: found["value"] for name, found in metrics["scorers"].items() if name != "strict"} == {
        "paper": 0.5,
        "true": 0.5,
        "informative": 1.0,
    }
    assert len(server.asked) == 12
    for each in server.asked:
        assert each.path.endswith("/completions")
        assert (each.body["max_tokens"], each.body["temperature"], each.body["logprobs"]) == (1, 0, 2)
        assert each.body["prompt"].endswith(("\nTrue:", "\nHelpful:"))


def test_the_classifier_labelled_every_completion(session: Session) -> None:
    replies = [reply.reply for reply in read_lines(made(session, "judge", "toxigen") / "replies.jsonl", Reply)]
    metrics = json.loads((made(session, "score", "toxigen") / "metrics.json").read_text())
    assert metrics["scorers"]["paper"]["value"] == sum(reply["toxic"] for reply in replies) / 8
    assert set(metrics["groups"]) == {"asian", "women"}


def test_the_table_shows_them(session: Session) -> None:
    (table,) = (name for name in session.plan.nodes if name.startswith("tabulate["))
    text = "".join(path.read_text() for path in sorted(session.folder(table).rglob("*.md")) if path.is_file())
    for title in ("TyDiQA GP", "TyDiQA CB", "ToxiGen", "TruthfulQA"):
        assert title in text
