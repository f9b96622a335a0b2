"""Stored annotations in the form of AlpacaEval's files, found by what they are about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.json_lines import whole_characters
from tulu_pipeline.errors import BadInput

_PREFERENCES = {None, 0, 1, 1.5, 2}


class StoredAnnotations:
    """Preferences by instruction and output.

    Args:
        files: lists of `{"instruction": …, "output_2": …, "preference": …}`; `output_2` is the judged model's, the
            preference 1 for the reference, 2 for the model, 1.5 (once 0) for neither, null where the judge's reply
            could not be read.

    Raises:
        BadInput: a file that is not such a list, or two files that disagree.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._found: dict[tuple[str, str], Mapping[str, Any]] = {}
        for path in files:
            for index, row in enumerate(json.loads(path.read_text(encoding="utf-8"))):
                where = f"{path}, row {index}"
                try:
                    pair, preference = (row["instruction"], whole_characters(row["output_2"])), row["preference"]
                except (KeyError, TypeError, AttributeError) as error:
                    raise BadInput(f"an annotation without {error}", where, "give the row what it lacks") from error
                if preference not in _PREFERENCES:
                    raise BadInput(f"the preference {preference!r}", where, "write 1, 1.5, 2 or null")
                reply = {"preference": 1.5 if preference == 0 else preference, "annotator": row.get("annotator", "")}
                if self._found.setdefault(pair, reply) != reply:
                    raise BadInput("two preferences for one pair", where, "leave one of the files out")

    def reply(self, instruction: str, output: str, where: str) -> Mapping[str, Any]:
        """The reply about an output.

        Raises:
            BadInput: nobody annotated it.
        """
        try:
            return self._found[instruction, output]
        except KeyError:
            raise BadInput(
                "no stored annotation of this output", where, "add the file that has it, or ask a judge that replies"
            ) from None
