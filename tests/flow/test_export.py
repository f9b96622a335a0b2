"""`tulu export` and `tulu show` as users meet them: a file of their own, a store, a folder that `datasets` opens."""

import json
from pathlib import Path

import pytest
from fakes.processes import tulu, tulu_json
from toy_experiment import write_experiment

_MIXTURES = """
import dataclasses

PAIR = Mixture(
    name="pair",
    label="Pair",
    components=(Component(dataset="birds", deduplicate="exact"), Component(dataset="worms", cap=3, repeat=2)),
)
GREEDY = Mixture(
    name="greedy",
    components=(Component(dataset="birds", weight=1.0), Component(dataset="worms", weight=1.0)),
    total=100,
)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's file with two datasets of five rows each, two of the birds alike, and two mixtures."""
    path = Path(write_experiment(tmp_path))
    path.write_text(path.read_text() + _MIXTURES)
    birds = json.loads((tmp_path / "birds.json").read_text())
    (tmp_path / "birds.json").write_text(json.dumps([*birds, birds[2]]))
    return path


def test_a_mixture_becomes_a_folder_that_datasets_opens(mine: Path, tmp_path: Path) -> None:
    import datasets

    done = tulu("export", f"{mine}:PAIR", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("11 conversations in exports/pair\n")
    assert "CC0-1.0: asks for nothing" in done.stderr
    folder = tmp_path / "exports" / "pair"
    cache = str(tmp_path / "cache")
    opened = datasets.load_dataset(str(folder), split="train", cache_dir=cache)
    assert opened.column_names == ["dataset", "id", "messages", "license", "language"]
    assert opened["dataset"] == ["birds"] * 5 + ["worms"] * 6
    assert opened[0]["messages"] == [
        {"role": "user", "content": "How many birds?"},
        {"role": "assistant", "content": "0 birds."},
    ]
    assert len(set(opened["id"][5:])) == 3
    assert opened["id"][5:8] == opened["id"][8:]
    files = {"train": str(folder / "data" / "*.parquet")}
    assert datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)[:] == opened[:]
    card = (folder / "README.md").read_text()
    assert "| birds | 5 | 5 | deduplicate exact | CC0-1.0 |" in card
    assert "| worms | 3 | 6 | cap 3; seed 42 | CC0-1.0 |" in card

    again = tulu_json("export", f"{mine}:PAIR", "--out", "elsewhere", cwd=tmp_path)
    assert (again["rows"], again["made"]) == (11, [])
    key = json.loads((tmp_path / "elsewhere" / "mixture.json").read_text())["components"][0]["key"]
    assert key in card

    pair = tulu_json("show", f"{mine}:PAIR", cwd=tmp_path)
    kept = [(each["dataset"], each["stored"]["kept"], each["stored"]["dropped"]) for each in pair["components"]]
    assert kept == [("birds", 5, 1), ("worms", 3, 0)]
    assert pair["components"][1]["stored"]["not_drawn"] == 2
    assert pair["licenses"] == {"CC0-1.0": "asks for nothing"}
    text = tulu("show", f"{mine}:PAIR", cwd=tmp_path).stdout
    assert "1  duplicate\n" in text
    dropped = Path(tmp_path, pair["components"][0]["stored"]["dropped_file"])
    assert json.loads(dropped.read_text())["reason"].startswith("duplicate of ")


def test_an_export_makes_only_what_changed(mine: Path, tmp_path: Path) -> None:
    first = tulu_json("export", f"{mine}:PAIR", cwd=tmp_path)
    assert sorted(first["made"]) == [
        "download[birds]",
        "download[worms]",
        "mix[pair/birds]",
        "mix[pair/worms]",
        "normalize[birds]",
        "normalize[worms]",
    ]
    rows = json.loads((tmp_path / "worms.json").read_text())
    (tmp_path / "worms.json").write_text(json.dumps([*rows, {"about": "worms", "asks": "More?", "answers": "No."}]))
    again = tulu_json("export", f"{mine}:PAIR", cwd=tmp_path)
    assert sorted(again["made"]) == ["download[worms]", "mix[pair/worms]", "normalize[worms]"]


def test_an_export_that_fails_says_why_and_leaves_no_folder(mine: Path, tmp_path: Path) -> None:
    done = tulu("export", f"{mine}:GREEDY", cwd=tmp_path)
    assert done.returncode == 1
    assert "asks for 50 conversations, and there are" in done.stderr
    assert "`repeat`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("export", "human_mixx"), "did you mean `human_mix`"),
        (("export", "mine.py:PAIR"), "no file `mine.py`"),
        (("export", "toy.py"), "no constant `MIXTURE`"),
        (("export", "toy.py:EXPERIMENT"), "or name one: `toy.py:PAIR`, `toy.py:GREEDY`"),
        (("export", "toy.py:PAIR", "--tokenizer", "lama"), "did you mean `llama`"),
        (("export", "toy.py:PAIR", "--out", "toy.py"), "`toy.py` is a file"),
        (("export", "toy.py:PAIR", "--out", "."), "is the current folder"),
        (("export", "toy.py:PAIR", "--out", "mine"), "files that no export wrote"),
    ],
)
def test_bad_requests_name_their_fix(mine: Path, tmp_path: Path, words: tuple[str, ...], what: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    done = tulu(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert what in done.stderr
    assert "fix:" in done.stderr


@pytest.mark.realdata
def test_show_counts_what_the_store_has_and_says_what_the_licenses_ask_for(mirror: Path, tmp_path: Path) -> None:
    assert tulu_json("show", "code_alpaca:sample", cwd=tmp_path)["stored"] is None
    done = tulu("export", "code_alpaca:sample", cwd=tmp_path, TULU_MIRROR=str(mirror))
    assert done.returncode == 0, done.stderr
    facts = tulu_json("show", "code_alpaca:sample", cwd=tmp_path)
    stored = facts["stored"]
    assert (stored["rows"], stored["kept"], stored["dropped"]) == (2017, 2017, 0)
    assert Path(tmp_path, stored["dropped_file"]).read_text() == ""
    text = tulu("show", "code_alpaca:sample", cwd=tmp_path).stdout
    assert "CC-BY-NC-4.0: attribution, non-commercial" in text
    assert "2,017 rows, 2,017 kept, 0 dropped" in text


def test_show_does_not_take_one_dataset_for_another_of_its_name(mine: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(mine.read_text().replace('dataset("worms"', 'dataset("alpaca"') + "OWN = EXPERIMENT.datasets[0]\n")
    other.write_text(other.read_text().replace('"worms"', '"alpaca"'))
    (tmp_path / "worms.json").rename(tmp_path / "alpaca.json")
    assert tulu("export", f"{other}:PAIR", cwd=tmp_path).returncode == 0
    assert tulu_json("show", "alpaca", cwd=tmp_path)["stored"] is None
    assert tulu_json("show", f"{other}:OWN", cwd=tmp_path)["stored"]["current"]
    other.write_text(other.read_text().replace("converter_version=1", "converter_version=2"))
    assert not tulu_json("show", f"{other}:OWN", cwd=tmp_path)["stored"]["current"]
    text = tulu("show", f"{other}:OWN", cwd=tmp_path).stdout
    anew = f"`tulu export {other}:OWN` makes them anew"
    assert f"changed since then: converter version 1 → 2; the code of other.py; {anew}" in text
    pair = tulu_json("show", f"{other}:PAIR", cwd=tmp_path)
    assert [each["exact"] for each in pair["components"]] == [False, False]


def test_show_tells_the_licenses_of_a_mixture_before_anything_is_there(tmp_path: Path) -> None:
    facts = tulu_json("show", "human_gpt_mix", cwd=tmp_path)
    assert set(facts["licenses"]) == {"Apache-2.0", "CC-BY-SA-3.0", "CC-BY-NC-4.0", "unknown"}
    assert [each["exact"] for each in facts["components"]] == [False] * 7
    text = tulu("show", "human_gpt_mix", cwd=tmp_path).stdout
    assert "CC-BY-SA-3.0: attribution, share alike" in text
    assert "unknown: no license is stated" in text
    assert not (tmp_path / "store").exists()
