"""The table of the data as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io

from tulu_pipeline.reporting.data_table import (
    COLUMNS,
    Column,
    Compared,
    DataLine,
    DataTable,
    compare,
    data_legend,
    number,
)
from tulu_pipeline.reporting.text import inline, markdown_line, signed_percent

NONE = "–"

CSV_FIELDS = (
    "dataset", "title", "license", "sample", "status", "tokenizer",
    "instances", "mean_rounds", "mean_prompt_tokens", "mean_completion_tokens",
    "paper_instances", "paper_mean_rounds", "paper_mean_prompt_tokens", "paper_mean_completion_tokens",
    "max_length_tokens", "tokens", "supervised_tokens", "truncated", "nothing_to_learn", "dropped", "changed",
    "longer_than_512", "longer_than_768", "longer_than_1024", "longer_than_1536", "longer_than_2048",
    "longer_than_4096",
)  # fmt: skip


def data_to_markdown(table: DataTable) -> str:
    """Table 1 in Markdown, ours beside the paper's; then what training would see of the data; then notes."""
    blocks = [f"# {inline(table.title)}", _counts(table), "## As training would see it", _training(table)]
    blocks.append("\n".join(f"- {inline(note)}" for note in data_legend(table)))
    return "\n\n".join(blocks) + "\n"


def data_to_csv(table: DataTable) -> str:
    """One line per dataset, unrounded; absent values are empty, never zero."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for line in table.lines:
        writer.writerow(_record(table, line))
    return stream.getvalue()


def compared_text(found: Compared, column: Column) -> tuple[str, str, str]:
    """Ours, the paper's and the difference as a table prints them; "" for what there is not."""
    ours = "" if found.ours is None else number(found.ours, column.decimals)
    paper = "" if found.paper is None else number(found.paper, column.decimals)
    if found.same:
        return ours, paper, "="
    return ours, paper, "" if found.difference is None else signed_percent(found.difference)


def share(part: int, whole: int) -> str:
    """`12.3 %`; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else NONE


def _counts(table: DataTable) -> str:
    headings = [text for column in COLUMNS for text in (column.heading, "*paper*")]
    lines = [
        markdown_line("Dataset", *headings, "License"),
        markdown_line(":--", *("--:" for _ in headings), ":--"),
    ]
    for line in table.lines:
        cells = []
        for column in COLUMNS:
            ours, paper, difference = compared_text(compare(table, line, column), column)
            if line.statistics is None:
                ours = "missing" if column is COLUMNS[0] else ""
            cells += [f"{ours or NONE} ({difference})" if difference else ours or NONE, f"*{paper}*" if paper else NONE]
        sample = f" (sample: {line.spec.sample})" if line.spec.sample else ""
        lines.append(markdown_line(inline(line.spec.label + sample), *cells, inline(line.spec.license)))
    return "\n".join(lines)


def _training(table: DataTable) -> str:
    headings = ("Tokens", "Supervised", "Truncated", "Nothing to learn", "Dropped rows", "Changed rows")
    lines = [markdown_line("Dataset", *headings), markdown_line(":--", *("--:" for _ in headings))]
    for line in table.lines:
        found = line.statistics
        if found is None:
            lines.append(markdown_line(inline(line.spec.label), "missing", *(NONE for _ in headings[1:])))
            continue
        cells = (
            f"{found.tokens:,}",
            share(found.supervised_tokens, found.tokens),
            f"{share(found.truncated, found.instances)} at {found.max_length_tokens:,}",
            f"{found.nothing_to_learn:,}",
            f"{sum(found.dropped.values()):,}",
            f"{sum(found.changed.values()):,}",
        )
        lines.append(markdown_line(inline(line.spec.label), *cells))
    return "\n".join(lines)


def _record(table: DataTable, line: DataLine) -> dict[str, object]:
    spec, found = line.spec, line.statistics
    record: dict[str, object] = {
        "dataset": spec.name,
        "title": spec.title,
        "license": spec.license,
        "sample": spec.sample,
        "status": "missing" if found is None else "described",
        "tokenizer": table.tokenizer,
    }
    if spec.paper is not None:
        record |= {f"paper_{column.name}": getattr(spec.paper, column.name) for column in COLUMNS}
    if found is not None:
        record |= {column.name: getattr(found, column.name) for column in COLUMNS}
        record |= {
            "max_length_tokens": found.max_length_tokens,
            "tokens": found.tokens,
            "supervised_tokens": found.supervised_tokens,
            "truncated": found.truncated,
            "nothing_to_learn": found.nothing_to_learn,
            "dropped": sum(found.dropped.values()),
            "changed": sum(found.changed.values()),
        }
        record |= {f"longer_than_{length}": count for length, count in found.longer_than.items()}
    return record
