"""`tulu show` as people read it and as scripts do: benchmarks, metrics, names; nothing filled up with blanks."""

import io
import sys
from pathlib import Path

import pytest

from flows.catalog import BENCHMARKS
from flows.catalog_view import print_names, print_show, show_json, show_names
from flows.terminal import open_console
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import NotFound
from tulu_pipeline.specs.benchmark import Benchmark


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("show")
    return Store(str(folder / "store"), folder)


def shown(name: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> str:
    text = io.StringIO()
    monkeypatch.setattr(sys, "stdout", text)
    print_show(show_json(name, store), name, open_console())
    return text.getvalue()


@pytest.mark.realdata
@pytest.mark.parametrize("benchmark", BENCHMARKS.all(), ids=lambda each: each.name)
def test_a_benchmark_tells_its_address_each_setting_and_what_its_file_says_of_it(
    benchmark: Benchmark, store: Store, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TULU_MIRROR", str(mirror))
    text = shown(benchmark.name, store, monkeypatch)
    assert benchmark.url in text
    for setting in benchmark.settings:
        (line,) = (line for line in text.splitlines() if line.startswith(f"{setting.metric} "))
        assert f"{setting.sampling.max_new_tokens:,}" in line
    for section in ("What it is", "Pinned source", "Deviations"):
        assert f"\n{section}\n" in text
    assert len(text.splitlines()) < 90


@pytest.mark.realdata
def test_a_metrics_name_shows_its_benchmark_asked_in_that_way_alone(
    store: Store, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TULU_MIRROR", str(mirror))
    facts = show_json("gsm_cot", store)
    assert facts["items"].keys() == {"gsm_cot"}
    assert (facts["metric"], facts["name"]) == ("gsm_cot", "gsm")
    assert [setting["metric"] for setting in facts["settings"]] == ["gsm_cot"]


@pytest.mark.realdata
def test_a_name_that_is_both_is_the_benchmark_with_all_its_settings(
    store: Store, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TULU_MIRROR", str(mirror))
    facts = show_json("alpaca_eval", store)
    assert len(facts["settings"]) > 1


def test_lines_end_where_their_text_ends_when_nobody_looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("alpaca", "human_mix", "demo", "llama-7b"):
        lines = shown(name, store, monkeypatch).splitlines()
        assert [line for line in lines if line != line.rstrip()] == []


def test_notes_are_told_to_people_without_marks_of_code(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "`" not in shown("alpaca_replay", store, monkeypatch)


def test_without_a_name_it_lists_what_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    names = show_names()
    print_names(names, open_console())
    text = capsys.readouterr().out
    for kind, found in names.items():
        assert kind in text
        assert found[0] in text
    assert {"quarter", "full"} <= set(names["experiments"])


def test_a_misspelled_metric_is_met_with_the_right_one(store: Store) -> None:
    with pytest.raises(NotFound) as error:
        show_json("gsm_cott", store)
    assert "`gsm_cot`" in error.value.fix
