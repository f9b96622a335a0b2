"""The suite over the paper's items, killed three times on its way: hours on two cores."""

import json
import time
from pathlib import Path

import pytest
from fakes.processes import kill_once, left_behind, start, tulu_json

from tulu_pipeline.artifacts.append_file import read_appended
from tulu_pipeline.inference.records import Record
from tulu_pipeline.specs.columns import PAPER_ITEMS

SECONDS = 8 * 3600
ENOUGH = 5  # answers of a metric that is cut off
WORDS = ("run", "full", "--runner", "local")


def recorded(folder: Path) -> dict[str, list[Record]]:
    """What is recorded of the metrics that are still being asked, by the artifact's key."""
    files = {path.parent.name: path for path in folder.glob("store/work/generate/*/records.jsonl")}
    published = {path.stem for path in folder.glob("store/actions/generate/*/*.json")}
    found = {key: list(read_appended(files[key], Record)) for key in files.keys() - published}
    return {key: records for key, records in found.items() if records}


def is_asked(folder: Path, metrics: int) -> bool:
    """Whether so many metrics are answered, and some items of another one."""
    done = len(list(folder.glob("store/actions/generate/*/*.json")))
    return done >= metrics and any(len(records) > ENOUGH for records in recorded(folder).values())


@pytest.mark.soak
@pytest.mark.realdata
@pytest.mark.timeout(SECONDS)
def test_the_whole_suite_goes_on_after_kills_and_no_answer_is_asked_for_twice(mirror: Path, tmp_path: Path) -> None:
    environment = {"TULU_MIRROR": str(mirror), "TULU_STORE": str(tmp_path / "store")}
    started = time.monotonic()
    for metrics in (0, 2, 9):
        process = start(*WORDS, cwd=tmp_path, **environment)
        kill_once(process, lambda least=metrics: is_asked(tmp_path, least), SECONDS)
        assert not left_behind(tmp_path)
    kept = recorded(tmp_path)
    assert kept
    result = tulu_json(*WORDS, cwd=tmp_path, **environment)
    assert not result["failed"]
    for key, records in kept.items():
        (cut_off,) = tmp_path.glob(f"store/actions/generate/*/{key}.json")
        counts = json.loads(cut_off.read_text())["metrics"]
        asked_once = sum(each.completion_tokens for each in records) + counts.get("generated_tokens", 0)
        assert counts["completion_tokens"] == asked_once
    scored = [json.loads(path.read_text()) for path in tmp_path.glob("store/actions/score/*/*.json")]
    assert {each["name"].rpartition("/")[2].rstrip("]"): each["metrics"]["n"] for each in scored} == PAPER_ITEMS
    assert not tulu_json(*WORDS, cwd=tmp_path, **environment)["executed"]
    print(f"the whole suite took {time.monotonic() - started:,.0f} s, three kills included")
