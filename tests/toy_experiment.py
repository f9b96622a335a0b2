"""A user's own experiment file over two small local datasets, for tests of whole flows."""

from __future__ import annotations

import json
from pathlib import Path

_FILE = """
import random
from pathlib import Path

from tulu_pipeline.artifacts.children import run_child
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.profile import Profile
from tulu_pipeline.raw.readers import read_json_arrays
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.dataset import Dataset, RawRow
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Component, Mixture

HERE = Path(__file__).parent


def read(files):
    if (HERE / "broken").exists():
        raise BadInput("no rows today", "birds.json:1", "remove the file `broken`")
    if (HERE / "endless").exists():
        (HERE / "started").touch()
        ctx = RunContext(profile=Profile(), settings=read_settings())
        run_child(["sleep", "600"], ctx=ctx, log=HERE / "sleep.log")
    return read_json_arrays(files)


def convert(row: RawRow, rng: random.Random) -> Conversation:
    asked, answered = Message("user", row.value["asks"]), Message("assistant", row.value["answers"])
    return Conversation(row.value["about"], row.row_id, (asked, answered))


def dataset(name, read):
    return Dataset(
        name=name, module=__file__, title=name, citation="", license="CC0-1.0", url="",
        sources={f"{name}.json": LocalFile(path=str(HERE / f"{name}.json"))},
        read=read, convert=convert, converter_version=1,
    )


EXPERIMENT = Experiment(
    name="toy",
    title="Birds and worms",
    hypothesis="the early bird",
    models=(FAMILY.models[0],),
    mixtures=(Mixture(name="both", components=(Component(dataset="worms"), Component(dataset="birds"))),),
    benchmarks={"gsm": ("gsm_cot",)},
    datasets=(dataset("worms", read_json_arrays), dataset("birds", read)),
)
"""


def write_experiment(folder: Path) -> str:
    """Write `toy.py` and its raw files; returns what to call it in a command.

    A file `broken` beside it makes `normalize[birds]` fail, a file `endless` makes it wait for a child.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy.py").write_text(_FILE)
    for name in ("worms", "birds"):
        rows = [{"about": name, "asks": f"How many {name}?", "answers": f"{count} {name}."} for count in range(5)]
        (folder / f"{name}.json").write_text(json.dumps(rows))
    return str(folder / "toy.py")
