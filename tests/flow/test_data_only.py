"""An experiment of data alone, as a user runs it: Table 1 in the terminal, its page, and what an edit makes anew."""

import json
from pathlib import Path

import pytest
from fakes.processes import tulu, tulu_json

_FILE = """
from pathlib import Path

from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import Dataset, PaperCounts, RowDropped
from tulu_pipeline.specs.experiment import Experiment

HERE = Path(__file__).parent


def convert(row, rng):
    if "answers" not in row.value:
        raise RowDropped("nobody answers")
    turn = (Message("user", row.value["asks"]), Message("assistant", row.value["answers"]))
    return Conversation("x", f"x_{row.row_id}", turn)


def dataset(name, paper=None):
    return Dataset(
        name=name, module=__file__, title=name.title(), citation="", license="CC0-1.0", url="", paper=paper,
        sources={f"{name}.jsonl": LocalFile(path=str(HERE / f"{name}.jsonl"))},
        read=read_json_lines, convert=convert, converter_version=1,
    )


PAPER = PaperCounts(instances=30, mean_rounds=1.0, mean_prompt_tokens=5.0, mean_completion_tokens=5.0)
EXPERIMENT = Experiment(
    name="animals", title="Animals alone", hypothesis="", models=(), mixtures=(), benchmarks={},
    data_tokenizer=FAMILY.models[0].tokenizer, data_table=("camels", "worms"),
    datasets=(dataset("camels", PAPER), dataset("worms")), notes=("from our garden",),
)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("animals")
    (folder / "animals.py").write_text(_FILE)
    for name in ("camels", "worms"):
        rows = [{"asks": f"How many {name}?", "answers": f"{count} {name}."} for count in range(30)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def described(folder: Path, name: str) -> dict:
    place = tulu("path", f"describe[{name}]", "--experiment", "animals.py", cwd=folder).stdout.strip()
    return json.loads((Path(place) / "statistics.json").read_text())


def test_the_run_prints_table_1_and_where_its_page_lies(folder: Path) -> None:
    done = tulu("run", "animals.py", "--runner", "local", cwd=folder)
    assert done.returncode == 0, done.stderr
    camels, worms = (line.split() for line in done.stdout.splitlines() if line.split()[:1] in (["Camels"], ["Worms"]))
    assert camels[:6] == ["Camels", "30", "30", "=", "1.0", "1.0"]
    assert worms[:4] == ["Worms", "30", "–", "1.0"]
    assert "from our garden" in done.stdout
    (place,) = (line.removeprefix("report: ") for line in done.stdout.splitlines() if line.startswith("report: "))
    assert "datasets.js" in Path(place).read_text()


def test_a_row_that_is_dropped_is_counted_though_the_conversations_stay_the_same(folder: Path) -> None:
    with (folder / "worms.jsonl").open("a") as rows:
        rows.write('{"asks": "Who?"}\n')
    result = tulu_json("run", "animals.py", "--runner", "local", cwd=folder)
    made = set(result["executed"])
    assert made == {"download[worms]", "normalize[worms]", "describe[worms]", "tabulate[animals]"}
    assert described(folder, "worms")["dropped"] == {"nobody answers": 1}
    assert described(folder, "camels")["dropped"] == {}
    said = tulu("run", "animals.py", "--runner", "local", cwd=folder).stdout
    assert "\nworms: 1 of 31 rows left out (1: nobody answers); " in said
    assert "camels:" not in said


def test_a_dataset_that_fails_is_missing_in_the_table_and_the_others_are_not(folder: Path) -> None:
    (folder / "camels.jsonl").write_text("")
    done = tulu("run", "animals.py", "--runner", "local", cwd=folder)
    assert done.returncode == 1
    assert "its files hold no rows" in done.stderr
    camels, worms = (line.split() for line in done.stdout.splitlines() if line.split()[:1] in (["Camels"], ["Worms"]))
    assert camels[1] == "missing"
    assert worms[1] == "30"
