"""What the environment says, and where it says it."""

import os

import pytest

from tulu_pipeline.settings import child_environment, read_settings, visible_gpus

VARIABLES = ("TULU_STORE", "TULU_MIRROR", "TULU_SOURCES_LOCK", "HF_ENDPOINT", "HF_TOKEN", "NO_COLOR")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_defaults_need_nothing() -> None:
    settings = read_settings()
    assert (settings.store, settings.mirror, settings.hub_token) == ("store", None, None)
    assert settings.hub_endpoint == "https://huggingface.co"
    assert str(settings.sources_lock) == "sources.lock"
    assert settings.color


def test_option_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TULU_STORE", "there")
    assert read_settings().store == "there"
    assert read_settings("here").store == "here"


def test_empty_variables_count_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_settings()
    for name in VARIABLES[:-1]:
        monkeypatch.setenv(name, "")
    assert read_settings() == before


def test_hub_endpoint_may_end_with_a_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.test/")
    assert read_settings().hub_endpoint == "http://hub.test"


def test_no_color_is_honored_whatever_its_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "")
    assert not read_settings().color


def test_child_gets_this_environment_with_changes_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TULU_STORE", "there")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    child = child_environment(HF_HUB_OFFLINE="1", TULU_STORE="here")
    wanted = {**os.environ, "HF_HUB_OFFLINE": "1", "TULU_STORE": "here"}
    del wanted["PYTHONDONTWRITEBYTECODE"]
    assert child == wanted


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(None, None), ("", 0), ("-1", 0), ("0", 1), ("0,1", 2), ("2,-1,3", 1), ("GPU-8932f937,GPU-11", 2), (" 0 , 1", 2)],
)
def test_visible_gpus_are_counted_up_to_the_first_invalid_one(
    value: str | None, wanted: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if value is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert visible_gpus() == wanted
