"""Table 1: what each dataset holds, beside what the paper says it holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.dataset import PaperCounts
from tulu_pipeline.tokens.statistics import Statistics

SCHEMA_VERSION = 1
_SHOWN_REASONS = 3


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

    @property
    def label(self) -> str:
        """The title, and which variant: `ShareGPT:fixed`."""
        _, separator, variant = self.name.partition(":")
        return f"{self.title}{separator}{variant}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLine:
    """A dataset with its statistics; None where they could not be made."""

    spec: DataRow
    statistics: Statistics | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTable:
    """Every dataset of an experiment.

    Attributes:
        title: for people.
        tokenizer: name of the tokenizer that counted.
        papers_tokenizer: it is the one that the paper counts with; tokens of others are not compared.
        lines: in the order asked for.
        notes: the experiment's own lines under the table.
    """

    title: str
    tokenizer: str
    lines: tuple[DataLine, ...]
    papers_tokenizer: bool = False
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def missing(self) -> tuple[str, ...]:
        """Names of the datasets that could not be described."""
        return tuple(line.spec.name for line in self.lines if line.statistics is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A quantity of Table 1: its name in `Statistics` and `PaperCounts`, its heading, and the decimals it is given."""

    name: str
    heading: str
    decimals: int


COLUMNS = (
    Column(name="instances", heading="Instances", decimals=0),
    Column(name="mean_rounds", heading="Rounds", decimals=1),
    Column(name="mean_prompt_tokens", heading="Prompt", decimals=1),
    Column(name="mean_completion_tokens", heading="Completion", decimals=1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One quantity as counted here and as the paper has it.

    Attributes:
        ours, paper: None where there is none.
        difference: relative to the paper's; None where the two are not comparable: a sample, and tokens of another
            tokenizer.
        same: both print alike.
    """

    ours: float | None
    paper: float | None
    difference: float | None = None
    same: bool = False


def build_data_table(
    *,
    title: str,
    tokenizer: str,
    rows: Iterable[DataRow],
    statistics: Mapping[str, Statistics | None],
    papers_tokenizer: bool = False,
    notes: tuple[str, ...] = (),
) -> DataTable:
    """The table of `rows`; each must be in `statistics`, with None where it could not be made.

    Raises:
        BadInput: a row is neither there nor said to be missing.
    """
    lines = []
    for row in rows:
        if row.name not in statistics:
            raise BadInput(
                f"the table asks for `{row.name}`, which is neither described nor said to be missing",
                "table of the data",
                f"give the input `data:{row.name}`, or leave the row out",
            )
        lines.append(DataLine(spec=row, statistics=statistics[row.name]))
    return DataTable(
        title=title, tokenizer=tokenizer, lines=tuple(lines), papers_tokenizer=papers_tokenizer, notes=notes
    )


def compare(table: DataTable, line: DataLine, column: Column) -> Compared:
    """A quantity of a dataset beside the paper's."""
    ours = None if line.statistics is None else getattr(line.statistics, column.name)
    paper = None if line.spec.paper is None else getattr(line.spec.paper, column.name)
    is_in_tokens = column.name not in ("instances", "mean_rounds")
    if ours is None or not paper or line.spec.sample or (is_in_tokens and not table.papers_tokenizer):
        return Compared(ours=ours, paper=paper)
    same = number(ours, column.decimals) == number(paper, column.decimals)
    return Compared(ours=ours, paper=paper, difference=(ours - paper) / paper, same=same)


def number(value: float, decimals: int) -> str:
    """`52,002`, `27.8`; a tie goes away from zero, as in the other tables."""
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP):,}"


def data_legend(table: DataTable) -> tuple[str, ...]:
    """What a reader must know of the numbers, in whole sentences, and the experiment's own notes."""
    lines = [
        "Rounds are half the messages; prompt and completion are the mean tokens of a user's and of an assistant's "
        "message, without template and control tokens."
    ]
    if any(line.spec.paper for line in table.lines):
        if table.papers_tokenizer:
            lines.append("Differences are relative to the paper's numbers; = where both print alike.")
        else:
            lines.append(
                f"Tokens are those of `{table.tokenizer}`; the paper counts LLaMA's, so tokens are not compared."
            )
    samples = [f"{line.spec.label} {line.spec.sample}" for line in table.lines if line.spec.sample]
    if samples:
        lines.append(f"Samples, which are not compared: {', '.join(samples)}.")
    lines.extend(
        f"{line.spec.label}: {_reasons(line.statistics.dropped)}."
        for line in table.lines
        if line.statistics is not None and line.statistics.dropped
    )
    if missing := table.missing():
        lines.append(f"Missing, and never filled in: {', '.join(missing)}.")
    return (*lines, *table.notes)


def by_count(reasons: Mapping[str, int]) -> list[tuple[str, int]]:
    """Most frequent first, then by name."""
    return sorted(reasons.items(), key=lambda item: (-item[1], item[0]))


def write_data_table(table: DataTable, path: Path) -> None:
    """Writes `data_table.json`; the same table gives the same bytes."""
    text = json.dumps(dataclasses.asdict(table), ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_data_table(path: Path) -> DataTable:
    """The table of a `data_table.json`.

    Raises:
        BadInput: it is not there, or is not a table of this schema.
    """
    from pydantic import TypeAdapter, ValidationError

    fix = "make it again: `tulu run EXPERIMENT --refresh tabulate`"
    try:
        table = TypeAdapter(DataTable).validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"`{path.name}` is no table of data: {error}", str(path), fix) from error
    if table.schema_version != SCHEMA_VERSION:
        what = f"a table of schema {table.schema_version}, but this version reads {SCHEMA_VERSION}"
        raise BadInput(what, str(path), fix)
    return table


def _reasons(dropped: Mapping[str, int]) -> str:
    ordered = by_count(dropped)
    total = sum(dropped.values())
    named = ", ".join(f"{reason} {count:,}" for reason, count in ordered[:_SHOWN_REASONS])
    more = f", and {len(ordered) - _SHOWN_REASONS} reasons more" if len(ordered) > _SHOWN_REASONS else ""
    return f"{total:,} {'row' if total == 1 else 'rows'} dropped ({named}{more})"
