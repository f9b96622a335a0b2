"""Tasks that hold several instances: each becomes a row of its own, with the task's instruction in it."""

from __future__ import annotations

from collections.abc import Iterator

from tulu_pipeline.raw.fields import list_of, object_of
from tulu_pipeline.specs.dataset import BrokenRow, CountTokens, RawRow, RowDropped


def split_instances(row: RawRow, count_tokens: CountTokens | None) -> Iterator[RawRow | BrokenRow]:
    """A row `<id>_<n>` for each of `instances`, of its fields and the task's `instruction`."""
    try:
        task = object_of(row.value)
        instances = list_of(task, "instances")
        if not instances:
            raise RowDropped("no instance")
    except RowDropped as reason:
        yield BrokenRow(row.row_id, row.where, str(reason), str(row.value))
        return
    instruction = {"instruction": task["instruction"]} if "instruction" in task else {}
    for number, instance in enumerate(instances):
        value = instance | instruction if isinstance(instance, dict) else instance
        yield RawRow(f"{row.row_id}_{number}", row.where, value)
