"""`tulu score`: completions of one's own become a table, by the same scorers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.realdata


def tulu(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("tulu")), *words, "--store", str(store)]
    return subprocess.run(command, capture_output=True, text=True, cwd=store, check=False)


@pytest.fixture(scope="module")
def store(mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_a_file_written_by_the_ids_that_show_lists_is_scored(store: Path) -> None:
    ids = json.loads(tulu(store, "show", "gsm", "--json").stdout)["items"]["gsm_cot"]
    assert len(ids) == 200
    mine = store / "mine.jsonl"
    mine.write_text("".join(json.dumps({"item_id": each, "completion": "It is 18."}) + "\n" for each in ids))
    done = tulu(store, "score", str(mine), "--benchmark", "gsm_cot")
    assert done.returncode == 0, done.stderr
    assert "mine.jsonl" in done.stdout
    assert "2.0 ±3.0" in done.stdout
    (folder,) = re.findall(r"^scores: (.+)$", done.stdout, re.MULTILINE)
    compared = json.loads(tulu(store, "compare", folder, folder, "--json").stdout)
    assert compared["metrics"][0]["result"]["first"] == 0.02
    assert tulu(store, "score", str(mine), "--benchmark", "gsm").stderr.count("gsm_direct, gsm_cot") == 1
    mine.write_text(mine.read_text().partition("\n")[0])
    short = tulu(store, "score", str(mine), "--benchmark", "gsm_cot")
    assert short.returncode == 1
    assert "no output for 199 of 200 items" in short.stderr
