"""Two models over several metrics: each metric's paired statistics, and p-values that know how many were asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tulu_pipeline.errors import BadInput
from tulu_pipeline.reporting.build import Measurement
from tulu_pipeline.scoring.paired import Comparison, compare, holm

_SHOWN_IDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedMetric:
    """One metric of two models.

    Attributes:
        metric, title: of the column.
        scorer: which compares; the metric's headline where it lacks the one asked for.
        lower_is_better: of two values.
        result: the statistics.
        p_holm: the p-value among those of all metrics compared.
    """

    metric: str
    title: str
    scorer: str
    lower_is_better: bool
    result: Comparison
    p_holm: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelComparison:
    """Two models.

    Attributes:
        first, second: their names.
        metrics: in the order asked for.
        left_out: metric to why it is not compared.
    """

    first: str
    second: str
    metrics: tuple[ComparedMetric, ...]
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What two models measured by one metric.

    Attributes:
        metric, title: of the column.
        first, second: the measurements.
        lower_is_better: of two values.
    """

    metric: str
    title: str
    first: Measurement
    second: Measurement
    lower_is_better: bool = False


def compare_models(
    first: str, second: str, pairs: Sequence[Pair], *, scorer: str = "", left_out: Mapping[str, str] | None = None
) -> ModelComparison:
    """Compares two models by every metric both have.

    Args:
        first: name of the one.
        second: name of the other.
        pairs: what both measured, one per metric.
        scorer: which compares; "" takes each metric's headline.
        left_out: metric to why it is not among `pairs`.

    Raises:
        BadInput: the two were asked different items, or by no metric is there a scorer of that name.
    """
    if scorer and not any(_scores_items(pair, scorer) for pair in pairs):
        known = sorted({name for pair in pairs for name in pair.first.scores if _scores_items(pair, name)})
        if any(scorer in pair.first.scores or scorer in pair.second.scores for pair in pairs):
            raise BadInput(
                f"`{scorer}` is a number of all items together, and models are compared item by item",
                "--scorer",
                f"each model's value and interval are in its table; compare by one of: {', '.join(known)}",
            )
        raise BadInput(f"no metric has a scorer `{scorer}`", "--scorer", f"take one of: {', '.join(known)}")
    results = {pair.metric: _compare(first, second, pair, _scorer(pair, scorer)) for pair in pairs}
    adjusted = holm({metric: result.p for metric, result in results.items()})
    return ModelComparison(
        first=first,
        second=second,
        metrics=tuple(
            ComparedMetric(
                metric=pair.metric,
                title=pair.title,
                scorer=_scorer(pair, scorer),
                lower_is_better=pair.lower_is_better,
                result=results[pair.metric],
                p_holm=adjusted[pair.metric],
            )
            for pair in pairs
        ),
        left_out=dict(left_out or {}),
    )


def to_json(comparison: ModelComparison) -> dict[str, Any]:
    """For scripts: values in [0, 1], ids of items in full."""
    return asdict(comparison)


def _scorer(pair: Pair, scorer: str) -> str:
    return scorer if _scores_items(pair, scorer) else pair.first.headline


def _scores_items(pair: Pair, scorer: str) -> bool:
    """Whether both have a value by it, and so has each item: a win rate at equal length is of all items together."""
    return all(scorer in each.scores and scorer in each.item_scores for each in (pair.first, pair.second))


def _compare(first: str, second: str, pair: Pair, scorer: str) -> Comparison:
    ours, theirs = pair.first, pair.second
    place = {item: index for index, item in enumerate(theirs.item_ids)}
    _refuse_other_items(first, second, pair, place)
    reordered = [theirs.item_scores[scorer][place[item]] for item in ours.item_ids]
    macro = ours.macro or theirs.macro
    return compare(
        ours.item_ids,
        ours.item_scores[scorer],
        reordered,
        _groups(ours, theirs),
        macro=macro,
        lower_is_better=pair.lower_is_better,
    )


def _groups(first: Measurement, second: Measurement) -> Sequence[str] | None:
    """Each item's group in the order of the first; one of the two may lack them where all its items are alike."""
    if first.clusters or not second.clusters:
        return first.clusters or None
    of_item = dict(zip(second.item_ids, second.clusters, strict=True))
    return [of_item[item] for item in first.item_ids]


def _refuse_other_items(first: str, second: str, pair: Pair, place: Mapping[str, int]) -> None:
    ours, theirs = set(pair.first.item_ids), set(place)
    if ours == theirs:
        return
    parts = []
    for name, only in ((first, sorted(ours - theirs)), (second, sorted(theirs - ours))):
        if only:
            more = ", …" if len(only) > _SHOWN_IDS else ""
            parts.append(f"{len(only):,} only of {name} ({', '.join(only[:_SHOWN_IDS])}{more})")
    raise BadInput(
        f"the two were asked different items: {'; '.join(parts)}",
        pair.metric,
        "ask both the same items: `item_limit` and the version of the benchmark decide them; --metric leaves it out",
    )
