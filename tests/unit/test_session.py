"""A session says where an artifact lies, and of one that is stale where the last of its name does."""

import json
import shutil
from pathlib import Path

import pytest
from toy_experiment import write_experiment

from flows.chat import find_checkpoint
from flows.session import Request, Session, prepare, run_in_threads
from tulu_pipeline.errors import TuluError

BIRDS = "normalize[birds]"


def session(folder: Path) -> Session:
    return prepare(Request(experiment=f"{folder}/toy.py", store=str(folder / "store"), only=BIRDS))


def refusal(folder: Path) -> TuluError:
    with pytest.raises(TuluError) as caught:
        session(folder).folder(BIRDS)
    return caught.value


def test_what_was_made_before_an_edit_is_found_by_its_name_and_told_to_be_stale(tmp_path: Path) -> None:
    write_experiment(tmp_path)
    first = refusal(tmp_path)
    assert first.what == f"{BIRDS} is not there"
    assert first.fix == f"`tulu run {tmp_path}/toy.py --only '{BIRDS}'` makes it"
    assert not run_in_threads(session(tmp_path)).failed
    made = session(tmp_path).folder(BIRDS)
    rows = json.loads((tmp_path / "birds.json").read_text())
    (tmp_path / "birds.json").write_text(json.dumps(rows[1:]))
    stale = TuluError(
        f"{BIRDS} is stale; the last one made under this name lies at {made}",
        str(tmp_path / "store"),
        f"`tulu why '{BIRDS}' --experiment {tmp_path}/toy.py` says what has changed, "
        f"`tulu run {tmp_path}/toy.py --only '{BIRDS}'` makes it anew",
    )
    with pytest.raises(TuluError) as chat:
        find_checkpoint(BIRDS, experiment=f"{tmp_path}/toy.py", store=str(tmp_path / "store"))
    for error in (refusal(tmp_path), chat.value):
        assert (error.what, error.where, error.fix) == (stale.what, stale.where, stale.fix)
    shutil.rmtree(made)
    assert refusal(tmp_path).what == first.what
