"""Completions beside the items they answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item


def answered_items(
    benchmark: Benchmark, metric: str, benchmark_folder: Path, completions_folder: Path
) -> Iterator[tuple[Item, Completion]]:
    """Each completion of `completions.jsonl` with its item, streamed; both are in the order of the items.

    Raises:
        BadInput: a completion whose item is not among the benchmark's, or not where it should be.
    """
    path = completions_folder / "completions.jsonl"
    items = iter(benchmark.items(benchmark.files(benchmark_folder), benchmark.setting(metric)))
    for number, completion in enumerate(read_lines(path, Completion), 1):
        item = next((item for item in items if item.item_id == completion.item_id), None)
        if item is None:
            raise BadInput(
                f"no item `{completion.item_id}` in {metric}, or not in this order",
                f"{path}:{number}",
                "score completions with the benchmark that asked for them",
            )
        yield item, completion
