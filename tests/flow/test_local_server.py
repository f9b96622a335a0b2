"""A server of one's own: vLLM answers, and judges, through the same client as a paid provider."""

import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from training_runs import write_tiny_model

from flows.graph import graph_of
from flows.session import Request, prepare_graph, run_in_threads
from tulu_pipeline.api.client import connected
from tulu_pipeline.api.requests import ApiError, ApiRequest, Reply
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.budget import Budget
from tulu_pipeline.inference.engine import EngineSettings, engine_environment
from tulu_pipeline.inference.served import completion_of, request_of
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import child_environment, read_settings
from tulu_pipeline.specs.api_model import ApiModel
from tulu_pipeline.specs.benchmark import Item, Sampling
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.recorded_model import RecordedModel

# Half a minute until it listens, on an idle machine.
pytestmark = [pytest.mark.soak, pytest.mark.needs_libnuma]
MODEL = ApiModel(
    name="mine", label="Mine", model="mine", provider="local", capped=True, letters="logprobs", prefixes={}
)
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("served")
    write_tiny_model(folder / "model")
    (folder / "template.jinja").write_text(TEMPLATE)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model")),
        *("--served-model-name", "mine", "--port", str(port), "--host", "127.0.0.1", "--dtype", "float32"),
        *("--chat-template", str(folder / "template.jinja"), "--enforce-eager"),
    ]
    settings = EngineSettings(engine="vllm", model="", dtype="float32")
    with (folder / "log").open("w") as log:
        environment = child_environment(**engine_environment(settings))
        server = subprocess.Popen(words, stdout=log, stderr=log, env=environment, cwd=folder)
        try:
            url = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 300
            while True:
                assert server.poll() is None, (folder / "log").read_text()[-3000:]
                assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
                try:
                    if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                        break
                except httpx.HTTPError:
                    time.sleep(0.5)
            yield f"{url}/v1"
        finally:
            server.terminate()
            server.wait(60)


@pytest.mark.timeout(400)
def test_our_own_vllm_answers_texts_letters_and_completions(
    base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_BASE_URL", base_url)
    context = RunContext(profile=Profile(), settings=read_settings(str(tmp_path)))
    text = Item(item_id="text", prompts=("How many pears ?",))
    letters = Item(item_id="letters", prompts=("one or two ?",), cue="Answer:", choices=("A", "B", "C", "D"))
    sampling = Sampling(max_new_tokens=6, temperature=0.8, samples=3)
    requests = {
        "text": request_of(text, "gsm", MODEL, sampling),
        "letters": request_of(letters, "mmlu", MODEL, Sampling(max_new_tokens=1)),
        "completion": ApiRequest(
            provider="local", model="mine", prompt="Q: a A: b True:", max_tokens=1, top_logprobs=5
        ),
        "too long": ApiRequest(provider="local", model="mine", prompt="pear " * 9_000, max_tokens=1),
        "nobody": ApiRequest(provider="local", model="another", prompt="x", max_tokens=1),
    }
    with connected("local", context) as client:
        answers = {
            name: answer
            for each in requests
            for name, answer in client.ask([(each, requests[each])], Budget(Decimal(0)))
        }
    told, completed = answers["text"], answers["completion"]
    assert isinstance(told, Reply)
    assert len(completion_of(text, "gsm", MODEL, requests["text"], told).texts) == 3
    assert told.model == "mine"
    assert told.cost_usd == "0"
    assert isinstance(completed, Reply)
    assert len(completed.samples[0].logprobs[0]) >= 5
    assert all(math.isfinite(value) for value in completed.samples[0].logprobs[0].values())
    # A random model need not put the letters among its likeliest tokens, and some of those are alike as text.
    assert isinstance(answers["letters"], Reply)
    assert 10 <= len(answers["letters"].samples[0].logprobs[0]) <= 20
    kinds = {name: answer.kind for name, answer in answers.items() if isinstance(answer, ApiError)}
    assert kinds == {"too long": "context_length", "nobody": "not_found"}


@pytest.mark.timeout(400)
def test_our_own_vllm_judges_alpaca_eval(base_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an untrained model says is no ranking: it is kept as it was said, counted, and never taken for a loss."""
    monkeypatch.setenv("LOCAL_BASE_URL", base_url)
    (tmp_path / "prompt.txt").write_text(
        "<|im_start|>user\nWhich answers {instruction} better, {output_1} or {output_2}?\n<|im_end|>"
    )
    outputs = {"reference": ["a pear", "a tree", "a well"], "mine": ["two pears", "some trees", "a well"]}
    for name, texts in outputs.items():
        rows = [{"instruction": f"Draw {n}", "output": text, "dataset": "koala"} for n, text in enumerate(texts)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    judge = alpaca_eval.annotator("mine", "our_vllm", provider="local", both_orders=True)
    recorded = RecordedModel(name="row", label="row", outputs={"alpaca_eval": _file(tmp_path / "mine.json")})
    experiment = Experiment(
        name="judged_here",
        title="judged here",
        hypothesis="",
        models=(),
        mixtures=(),
        recorded_models=(recorded,),
        own_benchmarks=(alpaca_eval.with_reference(_file(tmp_path / "reference.json")),),
        benchmarks={"alpaca_eval": ("alpaca_eval",)},
        average="none",
        judges={"alpaca_eval": replace(judge, prompt=_file(tmp_path / "prompt.txt"))},
    )
    request = Request(experiment=experiment.name, store=str(tmp_path / "store"), max_usd="0")
    session = prepare_graph(request, experiment, graph_of(experiment))
    assert not run_in_threads(session).failed

    lines = (session.folder("judge[row/alpaca_eval]") / "replies.jsonl").read_text().splitlines()
    first, second, equal = (json.loads(line)["reply"] for line in lines)
    assert equal == {"preference": 1.5, "annotator": "our_vllm"}
    for reply in (first, second):
        assert reply["preference"] is None
        assert {each["model_first"] for each in reply["said"]} == {False, True}
        assert all(each["text"] and each["model"] == "mine" for each in reply["said"])
    judged = session.plan.nodes["judge[row/alpaca_eval]"].manifest
    assert judged is not None
    assert {name: judged.metrics[name] for name in ("unreadable", "tie", "missing", "answered_by")} == {
        "unreadable": 2, "tie": 1, "missing": 0, "answered_by": ["mine"],
    }  # fmt: skip
    assert judged.cost_usd == "0"
    scored = json.loads((session.folder("score[row/alpaca_eval]") / "metrics.json").read_text())
    assert scored["flags"] == {"tie": 1, "unreadable": 2}
    assert scored["scorers"]["paper"]["n"] == 1
    table = (session.folder("tabulate[judged_here]") / "table.md").read_text()
    assert "INCOMPLETE: row, AlpacaEval, by our_vllm: 2 of 3 items without a score" in table


def _file(path: Path) -> LocalFile:
    return LocalFile(path=str(path))
