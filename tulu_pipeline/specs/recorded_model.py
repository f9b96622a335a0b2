"""A model that is not at hand: what it answered was recorded by others, and is scored as any answer is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tulu_pipeline.artifacts.source import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedModel:
    """Recorded outputs as a row of the table.

    Attributes:
        name: id such as `vicuna-13b`.
        label: what the table prints.
        outputs: benchmark name to the file of its outputs (see `inference.recorded`).
        missing_are_empty: an item without an output counts as an empty answer, instead of being an error.
        license: of the outputs, SPDX id or a name.
        citation: whose they are.
    """

    name: str
    label: str
    outputs: Mapping[str, Source]
    missing_are_empty: bool = False
    license: str = ""
    citation: str = ""
