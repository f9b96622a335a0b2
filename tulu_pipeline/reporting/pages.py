"""Pages that open from disk: the viewer's files, and data as scripts.

Pages opened from disk cannot fetch, but they can load scripts: each data file is one call whose argument is JSON in a
string, so what a model or a dataset wrote is parsed as data and never run as code. It is ASCII, and holds no `<`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

DATA = "data"
INDEX = "index.html"
RESULTS_PAGE = "results.html"
DATA_PAGE = "data.html"
TRAINING_PAGE = "training.html"
LENGTH_PAGE = "length.html"
_STATIC = Path(__file__).with_name("static")
_PAGES = (RESULTS_PAGE, DATA_PAGE, TRAINING_PAGE)


def copy_viewer(folder: Path, *, results: bool, data: bool, training: bool = False) -> None:
    """Copies the viewer's files; the index is the page of the results, or the page of the data where it stands alone.

    Args:
        folder: the report's; made if it is not there.
        results: there is a table of results.
        data: there is a table of the data.
        training: there are trainings.
    """
    (folder / DATA).mkdir(parents=True, exist_ok=True)
    for file in sorted(_STATIC.iterdir()):
        if file.name not in _PAGES:
            (folder / file.name).write_bytes(file.read_bytes())
    (folder / INDEX).write_bytes((_STATIC / (RESULTS_PAGE if results else DATA_PAGE)).read_bytes())
    if results and data:
        (folder / DATA_PAGE).write_bytes((_STATIC / DATA_PAGE).read_bytes())
    if training:
        (folder / TRAINING_PAGE).write_bytes((_STATIC / TRAINING_PAGE).read_bytes())


def script(function: str, *arguments: object) -> str:
    """A data file: the call of `report.<function>` with these arguments."""
    texts = []
    for argument in arguments:
        data = json.dumps(argument, allow_nan=False, separators=(",", ":"))
        texts.append(f"JSON.parse({json.dumps(data)})".replace("<", "\\u003c"))
    return f"report.{function}({', '.join(texts)});\n"


def slug(name: str, taken: Collection[str]) -> str:
    """A file name that is safe on every file system, unique without regard to case."""
    base = re.sub(r"[^a-z0-9_.]+", "-", name.lower()).strip("-.")[:100] or "cell"
    found, number = base, 2
    while found in taken:
        found, number = f"{base}-{number}", number + 1
    return found
