"""A plan says which servers it would ask in vain, before anything is trained or generated."""

from dataclasses import replace
from pathlib import Path

import pytest

from flows.graph import graph_of
from flows.providers import lacking_providers
from flows.session import Request, prepare_graph
from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.experiments import demo, proprietary
from tulu_pipeline.specs.experiment import Experiment


def lacking(experiment: Experiment, store: Path) -> list[str]:
    request = Request(experiment=experiment.name, store=str(store))
    return lacking_providers(prepare_graph(request, experiment, graph_of(experiment)).plan)


@pytest.fixture(autouse=True)
def _no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "LOCAL_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def test_who_asks_nobody_lacks_nobody(tmp_path: Path) -> None:
    assert lacking(demo.EXPERIMENT, tmp_path) == []


def test_a_provider_without_key_or_address_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = lacking(proprietary.EXPERIMENT, tmp_path)
    assert "artifacts ask provider `openai`: no key; set OPENAI_API_KEY" in line
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    assert lacking(proprietary.EXPERIMENT, tmp_path) == []
    judge = alpaca_eval.annotator("m", "mine", provider="local")
    (line,) = lacking(replace(demo.EXPERIMENT, judges={"alpaca_eval": judge}), tmp_path)
    assert line.startswith("2 artifacts ask provider `local`: no address; set LOCAL_BASE_URL")
