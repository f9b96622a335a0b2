"""A served model as a row: asked as the original asked it, never paid twice, scored as any other."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fakes.openai_server import KEY, Fault, OpenAIServer, openai_server
from fakes.processes import kill_once, start, tulu
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.session import Request, Session, prepare, run_in_threads
from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.artifacts.run import RunResult
from tulu_pipeline.inference.sampling import request_seed
from tulu_pipeline.inference.served import limited, request_of
from tulu_pipeline.specs.api_model import CHATGPT, GPT4, GroupLimit
from tulu_pipeline.specs.benchmark import Completion, Item, Sampling

EXPERIMENT = """
import dataclasses
from pathlib import Path
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.benchmarks import gsm, mmlu
from tulu_pipeline.specs.api_model import GPT4, GroupLimit
from tulu_pipeline.specs.experiment import Experiment

HERE = Path(__file__).parent
MMLU = dataclasses.replace(
    mmlu.BENCHMARK,
    sources={name: LocalFile(path=str(HERE / name.replace("/", "_"))) for name in (
        "dev/anatomy_dev.csv", "test/anatomy_test.csv", "dev/virology_dev.csv", "test/virology_test.csv")},
)


def experiment(**changes):
    limits = {"mmlu_0shot": GroupLimit(items=6, rule="drawn")}
    model = dataclasses.replace(GPT4, **{"group_limits": limits, **changes})
    return Experiment(
        name="served", title="served", hypothesis="", models=(), mixtures=(), api_models=(model,),
        own_benchmarks=(MMLU,), benchmarks={"mmlu": ("mmlu_0shot",)},
    )


EXPERIMENT = experiment()
ALL = experiment(group_limits={})
BY_LOGPROBS = experiment(letters="logprobs", provider="local", model="mine")
"""


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as known:
        yield known


@pytest.fixture
def folder(tmp_path: Path, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    for provider in ("OPENAI", "LOCAL"):
        monkeypatch.setenv(f"{provider}_BASE_URL", server.base_url)
        monkeypatch.setenv(f"{provider}_API_KEY", KEY)
    server.models.append("mine")
    (tmp_path / "mine.py").write_text(EXPERIMENT)
    for subject, rows in (("anatomy", 10), ("virology", 4)):
        lines = [f"{subject} {n}?,one,two,three,four,{'ABCD'[n % 4]}\n" for n in range(rows)]
        (tmp_path / f"test_{subject}_test.csv").write_text("".join(lines))
        (tmp_path / f"dev_{subject}_dev.csv").write_text("".join(lines[:1]))
    return tmp_path


def run(folder: Path, constant: str = "EXPERIMENT", **changes: Any) -> tuple[Session, RunResult]:
    session = prepare(Request(experiment=f"{folder / 'mine.py'}:{constant}", store=str(folder / "store"), **changes))
    return session, run_in_threads(session)


def test_letters_by_bias_are_asked_and_scored_as_in_the_original(folder: Path, server: OpenAIServer) -> None:
    server.answer = lambda body: {"text": " B", "finish_reason": "length"}
    session, result = run(folder, max_usd="1")
    assert not result.failed
    completions = list(read_lines(session.folder("ask[gpt-4-0314/mmlu_0shot]") / "completions.jsonl", Completion))
    drawn = sorted(pd.DataFrame(range(10)).sample(6, random_state=42).index)
    assert [each.item_id for each in completions] == [f"anatomy/{n}" for n in drawn] + [
        f"virology/{n}" for n in range(4)
    ]
    body = server.asked[0].body
    assert body["logit_bias"] == {"362": 100, "426": 100, "356": 100, "423": 100}
    assert (body["max_tokens"], body["temperature"], "logprobs" in body) == (1, 0.0, False)
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert message["content"].endswith("\nA. one\nB. two\nC. three\nD. four\nAnswer:")
    assert "<|" not in message["content"]
    scored = json.loads((session.folder("score[gpt-4-0314/mmlu_0shot]") / "metrics.json").read_text())
    right = sum(n % 4 == 1 for n in [*drawn, 0, 1, 2, 3])
    assert scored["scorers"]["paper"]["value"] == pytest.approx(right / 10)
    table = (session.folder("tabulate[served]") / "table.md").read_text()
    assert "GPT-4" in table
    again, result = run(folder, refresh=("ask",))
    assert not result.failed
    assert len(server.asked) == 10
    assert again.folder("ask[gpt-4-0314/mmlu_0shot]") != session.folder("ask[gpt-4-0314/mmlu_0shot]")


def test_letters_by_logprobs_are_compared_and_a_missing_letter_is_an_error(folder: Path, server: OpenAIServer) -> None:
    told = {" A": -3.0, "A": -1.5, " B": -0.2, "C": -4.0, " D": -5.0, " the": -2.0}
    server.answer = lambda body: {"text": " B", "top_logprobs": [told]}
    session, result = run(folder, "BY_LOGPROBS")
    assert not result.failed
    (first, *_) = read_lines(session.folder("ask[gpt-4-0314/mmlu_0shot]") / "completions.jsonl", Completion)
    assert first.choice_logprobs == {"A": -1.5, "B": -0.2, "C": -4.0, "D": -5.0}
    assert first.texts == ()
    assert server.asked[0].body["top_logprobs"] == 20
    assert "logit_bias" not in server.asked[0].body
    del told[" D"]
    _, result = run(folder, "BY_LOGPROBS", refresh=("ask",))
    assert not result.failed  # what is recorded is recorded
    (folder / "store" / "api" / "replies.jsonl").write_bytes(b"")
    _, result = run(folder, "BY_LOGPROBS", refresh=("ask",))
    assert "no log probability of D" in result.failed[0].error.what


def test_a_letter_that_is_none_is_wrong_and_told(folder: Path, server: OpenAIServer) -> None:
    server.answer = lambda body: {"text": None, "refusal": "I will not"}
    session, result = run(folder)
    assert not result.failed
    scored = json.loads((session.folder("score[gpt-4-0314/mmlu_0shot]") / "metrics.json").read_text())
    assert scored["scorers"]["paper"]["value"] == 0
    assert scored["flags"]["no_answer_found"] == 10
    manifest = session.plan.nodes["ask[gpt-4-0314/mmlu_0shot]"].manifest
    assert manifest is not None
    assert manifest.metrics["refused"] == 10


def test_an_item_that_is_not_answered_fails_the_stage_and_is_never_an_empty_text(
    folder: Path, server: OpenAIServer
) -> None:
    server.answer = lambda body: "A"
    server.faults = [Fault(status=400, code="context_length_exceeded", match="virology 2", times=10)]
    session, result = run(folder)
    assert [failure.name for failure in result.failed] == ["ask[gpt-4-0314/mmlu_0shot]"]
    assert "virology/2" in result.failed[0].error.what
    assert session.plan.nodes["ask[gpt-4-0314/mmlu_0shot]"].manifest is None
    server.faults = []
    _, result = run(folder)
    assert not result.failed
    assert sum(server.charges.values()) == 10


def test_killed_while_it_asks_the_same_command_goes_on_and_pays_for_no_reply_twice(
    folder: Path, server: OpenAIServer
) -> None:
    server.answer, server.seconds = lambda body: " B", 0.1
    lines = [f"anatomy {n}?,one,two,three,four,{'ABCD'[n % 4]}\n" for n in range(60)]
    (folder / "test_anatomy_test.csv").write_text("".join(lines))
    replies = folder / "store" / "api" / "replies.jsonl"
    words = ("run", "mine.py:ALL", "--runner", "local", "--store", "store", "--max-usd", "3")
    env = {"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": KEY}

    def some_are_recorded() -> bool:
        return replies.exists() and replies.read_bytes().count(b"\n") >= 10

    kill_once(start(*words, cwd=folder, **env), some_are_recorded)
    recorded = replies.read_bytes()
    whole = recorded[: recorded.rfind(b"\n") + 1]
    kept = [json.loads(line)["request"]["messages"][0]["content"] for line in whole.splitlines()]
    assert 10 <= len(kept) < 64
    done = tulu(*words, cwd=folder, **env)
    assert done.returncode == 0, done.stderr
    assert replies.read_bytes().startswith(whole)
    charges = {json.loads(body)["messages"][0]["content"]: count for body, count in server.charges.items()}
    assert len(charges) == 64
    assert all(charges[each] == 1 for each in kept)
    session = prepare(Request(experiment=f"{folder / 'mine.py'}:ALL", store=str(folder / "store")))
    completions = list(read_lines(session.folder("ask[gpt-4-0314/mmlu_0shot]") / "completions.jsonl", Completion))
    assert [each.item_id for each in completions] == [f"anatomy/{n}" for n in range(60)] + [
        f"virology/{n}" for n in range(4)
    ]


def test_samples_come_in_one_request_with_the_originals_words_before_the_code() -> None:
    item = Item(item_id="h", prompts=("def f():\n",), gold=None)
    sampling = Sampling(max_new_tokens=512, temperature=0.8, top_p=0.95, samples=20, stop=("\ndef",))
    body = request_of(item, "codex_eval", CHATGPT, sampling).body()
    text = "Complete the following python function. Please only output the code for the completed function.\n\n\n"
    assert body == {
        "model": "gpt-3.5-turbo-0301",
        "messages": [{"role": "user", "content": f"{text}def f():\n"}],
        "temperature": 0.8,
        "top_p": 0.95,
        "n": 20,
        "seed": request_seed("h", 0, sampling),
    }
    another = request_of(replace(item, item_id="another"), "codex_eval", CHATGPT, sampling).body()
    assert another["seed"] not in (None, body["seed"])
    unseeded = request_of(item, "codex_eval", replace(CHATGPT, takes_seed=False), sampling).body()
    assert unseeded == {name: value for name, value in body.items() if name != "seed"}
    capped = request_of(item, "gsm", replace(GPT4, capped=True), replace(sampling, samples=1, temperature=0, top_p=1))
    assert capped.body() == {
        "model": "gpt-4-0314",
        "messages": [{"role": "user", "content": "def f():\n"}],
        "temperature": 0,
        "max_tokens": 512,
    }


@settings(deadline=None)
@given(st.integers(1, 300), st.integers(1, 120))
def test_rows_are_drawn_as_pandas_draws_them(size: int, most: int) -> None:
    items = [Item(item_id=str(n), prompts=("x",), group="a") for n in range(size)]
    found = [int(each.item_id) for each in limited(lambda: items, GroupLimit(items=most, rule="drawn"))]
    frame = pd.DataFrame(range(size))
    wanted = frame if most >= size else frame.sample(most, random_state=42)
    assert found == sorted(wanted.index)
    first = [int(each.item_id) for each in limited(lambda: items, GroupLimit(items=most))]
    assert first == list(range(min(size, most)))
