"""What a run would cost is told before it starts: the requests it would send, at the prices that hold."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from flows.costs import PlannedCost, cost_lines, planned_costs
from flows.graph import graph_of
from flows.select import select
from flows.session import Request, Session, make_all, prepare_graph
from tulu_pipeline.api.prices import read_prices
from tulu_pipeline.api.replies import reply_log
from tulu_pipeline.api.requests import Reply, Sample, Usage
from tulu_pipeline.artifacts.artifact import Graph
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.experiments import demo
from tulu_pipeline.inference.served import request_of
from tulu_pipeline.specs.api_model import GPT4
from tulu_pipeline.specs.experiment import Experiment

PROMPT = "<|im_start|>user\n{instruction}\n{output_1}\n{output_2}\n<|im_end|>\n"


@pytest.fixture
def paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    """GPT-4 answers the demo's questions and judges some of the answers."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prompt.txt").write_text(PROMPT)
    judge = replace(alpaca_eval.GPT4_0314, prompt=LocalFile(path=str(tmp_path / "prompt.txt")))
    return Experiment(
        name="paid",
        title="paid",
        hypothesis="",
        models=(),
        mixtures=(),
        api_models=(GPT4,),
        own_benchmarks=(demo.GSM, demo.ALPACA_EVAL),
        benchmarks={"gsm": ("gsm_cot",), "alpaca_eval": ("alpaca_eval",)},
        judges={"alpaca_eval": judge},
    )


def planned(experiment: Experiment, only: str = "") -> Session:
    graph = graph_of(experiment)
    return prepare_graph(
        Request(experiment=experiment.name, store="store"), experiment, Graph(select(graph, only)) if only else graph
    )


def by_stage(session: Session) -> dict[str, PlannedCost]:
    return {each.name.partition("/")[2].rstrip("]") + "@" + each.name.partition("[")[0]: each
            for each in planned_costs(session)}  # fmt: skip


def test_before_the_questions_are_there_the_cost_is_unknown_and_said_to_be(paid: Experiment) -> None:
    session = planned(paid)
    assert {each.requests for each in planned_costs(session)} == {None}
    assert "cost unknown before its questions are made" in cost_lines(session)[0]


def test_questions_that_are_there_are_counted_at_their_price_less_those_that_are_answered(paid: Experiment) -> None:
    make_all(planned(paid, "download"))
    session = planned(paid)
    found = by_stage(session)
    asked = found["gsm_cot@ask"]
    folder = session.folder("download[gsm]")
    setting = demo.GSM.setting("gsm_cot")
    requests = [
        request_of(item, "gsm", GPT4, setting.sampling) for item in demo.GSM.items(demo.GSM.files(folder), setting)
    ]
    price = read_prices().find("openai", GPT4.model)
    assert price is not None
    assert (asked.requests, asked.exact) == (len(requests), True)
    assert asked.usd == sum(map(price.likely, requests))
    judged = found["alpaca_eval@judge"]
    assert (judged.requests, judged.exact) == (40, False), "of answers that are not there yet"
    assert judged.usd is not None
    assert judged.usd > 0
    (line, bound) = cost_lines(session)
    total = sum((each.usd for each in found.values() if each.usd is not None), Decimal(0))
    assert line.startswith("asks openai (gpt-4-0314): ")
    assert f"about ${total:.2f}" in line
    assert "--max-usd" in bound

    reply = Reply(
        request_sha256=requests[0].digest(),
        model="m",
        samples=(Sample(text="18"),),
        usage=Usage(prompt_tokens=1, completion_tokens=1),
    )
    reply_log(session.store.scratch / "api").add(requests[0], reply)
    again = by_stage(planned(paid))["gsm_cot@ask"]
    assert again.requests == len(requests) - 1
    assert again.usd == asked.usd - price.likely(requests[0])


def test_who_asks_nobody_is_told_no_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cost_lines(planned(demo.EXPERIMENT)) == []
