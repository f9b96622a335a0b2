"""Table 1: what each dataset holds, beside what the paper says it holds."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_pipeline.specs.dataset import PaperCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRow:
    """A dataset's row.

    Attributes:
        name: the dataset's, with its variant.
        title, license: for people.
        sample: "2,017 of 20,022" when it is less than the original.
        paper: the paper's row; None for a dataset that it does not have.
    """

    name: str
    title: str
    license: str
    sample: str = ""
    paper: PaperCounts | None = None
