"""From the scores of items to the numbers of a table: one document per metric."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.length_control import LC_MINIMAL, length_controlled
from tulu_pipeline.scoring.statistics import bootstrap_mean, estimate
from tulu_pipeline.specs.benchmark import Benchmark, ItemScore

SCHEMA_VERSION = 1


def aggregate(
    scores: Iterable[ItemScore], benchmark: Benchmark, metric: str, longer: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """The contents of `metrics.json`; values in [0, 1].

    Each scorer's value is the mean over the items it is defined for, or over the groups' means where the benchmark
    says so. Intervals are clustered, stratified or bootstrapped where the benchmark says so, Wilson's where items are
    right or wrong, normal where a judge ranks them. `adjusted` holds what all items together come to, and no item by
    itself: a win rate at equal length, where the setting says so.

    Args:
        scores: of the items.
        benchmark: what was asked.
        metric: how.
        longer: item to the characters of its answer less the reference's; for settings that are length-controlled.

    Raises:
        BadInput: no item, items with different scorers, or a headline that no item has.
    """
    items = list(scores)
    where = f"{benchmark.name}/{metric}"
    if not items:
        raise BadInput("no item was scored", where, "look at the benchmark's files and at `item_limit`")
    scorers = list(items[0].scores)
    odd = next((item.item_id for item in items if set(item.scores) != set(scorers)), None)
    if odd is not None:
        raise BadInput(f"item `{odd}` has other scorers than the first", where, "give every item the same scorers")
    if benchmark.headline not in scorers:
        raise BadInput(f"no scorer `{benchmark.headline}`", where, f"headline must be one of: {', '.join(scorers)}")
    judge = benchmark.setting(metric).judge
    proportions = judge is None or not judge.compares
    adjusted = _adjusted(items, benchmark, longer or {}) if benchmark.setting(metric).length_controlled else {}
    return {
        "schema_version": SCHEMA_VERSION,
        "metric": metric,
        "headline": benchmark.headline,
        "n": len(items),
        "scorers": {scorer: _estimate(items, scorer, benchmark, proportions) for scorer in scorers},
        "flags": dict(sorted(Counter(flag for item in items for flag in item.flags).items())),
        "groups": _groups(items, benchmark.headline, proportions),
        **({"adjusted": adjusted} if adjusted else {}),
    }


def _estimate(items: list[ItemScore], scorer: str, benchmark: Benchmark, proportions: bool) -> dict[str, Any]:
    defined = [(item.scores[scorer], item.group) for item in items]
    values = [value for value, _ in defined if value is not None]
    if not values:
        return {"value": None, "n": 0, "standard_error": None, "low": None, "high": None, "method": "undefined"}
    if benchmark.bootstrap:
        return asdict(bootstrap_mean(values))
    groups = [group for value, group in defined if value is not None] if benchmark.cluster else None
    return asdict(estimate(values, groups, proportions=proportions, macro=benchmark.macro))


def _adjusted(items: list[ItemScore], benchmark: Benchmark, longer: Mapping[str, int]) -> dict[str, Any]:
    """The headline's win rate at equal length; nothing where no item has a verdict, or one's length is not known."""
    judged = [(item.item_id, value) for item in items if (value := item.scores[benchmark.headline]) is not None]
    if not judged or any(item_id not in longer for item_id, _ in judged):
        return {}
    wins, differences = [value for _, value in judged], [longer[item_id] for item_id, _ in judged]
    return {LC_MINIMAL: asdict(length_controlled(wins, differences))}


def _groups(items: list[ItemScore], scorer: str, proportions: bool) -> dict[str, dict[str, Any]]:
    """The headline of each group's items by themselves: Wilson's intervals, normal ones where a judge ranks."""
    values: dict[str, list[float]] = {}
    for item in items:
        value = item.scores[scorer]
        if item.group and value is not None:
            values.setdefault(item.group, []).append(value)
    return {group: asdict(estimate(each, None, proportions=proportions)) for group, each in sorted(values.items())}
