"""The paper's length analysis (Figures 2 and 6): how far more unique tokens alone explain an evaluator's preference.

Per model: mean unique tokens of its answers, its win rate by the judge and by the false evaluator, which counts unique
tokens. Over the models: correlations. Over the items: how often the two evaluators say the same of the same pair.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from tulu_pipeline.errors import BadInput
from tulu_pipeline.judging.false_evaluator import WIN_SHARE
from tulu_pipeline.reporting.table import TableRow
from tulu_pipeline.scoring.statistics import CONFIDENCE, Estimate, clustered_mean, mean, proportion

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SCHEMA_VERSION = 1
# Fewer models show no trend: the interval of a correlation of 0.6 over ten of them reaches from 0 to 0.9.
FEWEST_MODELS = 10
# A partial correlation over four models has no degree of freedom left for an interval.
_FEWEST_FOR_PARTIAL = 5
_RESAMPLES = 2_000
_PERMUTATIONS = 9_999

Quantity = Literal["win_rate", "unique_tokens", "false_win_rate", "characters"]
Kind = Literal["pearson", "spearman", "partial"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedAnswer:
    """One answer, and what two evaluators said of it.

    Attributes:
        item_id: the item's.
        win: the judge's verdict as 1, 0.5 or 0; None where it gave none.
        false_win: the false evaluator's.
        unique_tokens, reference_unique_tokens: of the answer and of what it was compared with.
        characters: of the answer.
    """

    item_id: str
    win: float | None
    false_win: float
    unique_tokens: int
    reference_unique_tokens: int
    characters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How often two evaluators say the same (win, tie or loss) of the same pair.

    Attributes:
        n: pairs that both judged.
        share: of pairs with one verdict; its interval is clustered by item where several models answered each.
        kappa: Cohen's, unweighted; None where both always say the same one thing.
        kappa_low, kappa_high: 95 % percentile bootstrap over the items.
    """

    n: int
    share: Estimate
    kappa: float | None
    kappa_low: float | None
    kappa_high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLength:
    """One model: a point of each figure.

    Attributes:
        name, label: the row's.
        n: its answers.
        unique_tokens, reference_unique_tokens, characters: means over them.
        win_rate: over those that the judge judged.
        false_win_rate: by the false evaluator, over all.
        agreement: of the two.
    """

    name: str
    label: str
    n: int
    unique_tokens: float
    reference_unique_tokens: float
    characters: float
    win_rate: Estimate
    false_win_rate: Estimate
    agreement: Agreement

    @property
    def undefined(self) -> int:
        """Answers without a verdict of the judge: while there are any, its win rate is no result yet."""
        return self.n - self.win_rate.n


@dataclass(frozen=True, slots=True, kw_only=True)
class Correlation:
    """Of two quantities over the models.

    Attributes:
        kind: `partial` is Pearson's, with `given` held fixed.
        n: models.
        value: None where a quantity does not vary, or too few models leave nothing to tell.
        low, high: 95 % interval by Fisher's transform (Spearman: Bonett and Wright's variance); None below four models.
        p_value: two-sided; by permutation of the models, of a partial correlation by Student's t.
    """

    kind: Kind
    x: Quantity
    y: Quantity
    given: Quantity | None = None
    n: int
    value: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthAnalysis:
    """All of it.

    Attributes:
        judged: title of the column that the judge judged.
        models: in the order of the table.
        left_out: labels of rows that lack one of the two evaluators.
        correlations: of Figure 2, of Figure 6, of plain length, and partial ones.
        agreement: over all pairs; None without models.
    """

    judged: str
    models: tuple[ModelLength, ...]
    left_out: tuple[str, ...]
    correlations: tuple[Correlation, ...]
    agreement: Agreement | None

    def enough(self) -> bool:
        """Whether there are models enough to speak of a trend."""
        return len(self.models) >= FEWEST_MODELS

    def correlation(self, kind: Kind, y: Quantity) -> Correlation:
        """The correlation of the win rate with `y`."""
        return next(each for each in self.correlations if (each.kind, each.y) == (kind, y))

    def to_json(self) -> dict[str, Any]:
        """What `length.json` holds."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}


def analyze_lengths(
    judged: str, answers: Sequence[tuple[TableRow, Sequence[JudgedAnswer]]], left_out: Sequence[str] = ()
) -> LengthAnalysis:
    """The analysis of models whose answers two evaluators saw.

    Args:
        judged: title of the column that the judge judged.
        answers: each model's, in the order of the table; one that the judge said nothing of is left out.
        left_out: labels of rows that are not among them.
    """
    known = [(row, each) for row, each in answers if any(answer.win is not None for answer in each)]
    silent = [row.label for row, each in answers if all(answer.win is None for answer in each)]
    models = tuple(_model(row, each) for row, each in known)
    pairs: tuple[tuple[Quantity, Quantity], ...] = (
        ("unique_tokens", "characters"),
        ("characters", "unique_tokens"),
    )
    quantities: tuple[Quantity, ...] = ("unique_tokens", "false_win_rate", "characters")
    kinds: tuple[Literal["pearson", "spearman"], ...] = ("pearson", "spearman")
    return LengthAnalysis(
        judged=judged,
        models=models,
        left_out=(*left_out, *silent),
        correlations=(
            *(_correlation(models, quantity, kind) for quantity in quantities for kind in kinds),
            *(_partial_correlation(models, quantity, given) for quantity, given in pairs),
        ),
        agreement=agreement([answer for _, each in known for answer in each]) if known else None,
    )


def correlate(x: Sequence[float], y: Sequence[float], kind: Literal["pearson", "spearman"]) -> tuple[float | None, ...]:
    """Correlation, ends of its 95 % interval, and p by permutation; None for what cannot be told."""
    import numpy as np
    from scipy.stats import permutation_test, rankdata

    left, right = (np.array(rankdata(each) if kind == "spearman" else each, dtype=float) for each in (x, y))
    if len(left) < 3 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return None, None, None, None

    def statistic(sample: NDArray[np.float64], axis: int = -1) -> Any:
        return _pearson(np.moveaxis(sample, axis, -1), right)

    value = float(statistic(left))
    found = permutation_test(
        (left,),
        statistic,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=_PERMUTATIONS,
        batch=1_000,
        rng=np.random.default_rng(0),
    )
    variance = 1.0 if kind == "pearson" else 1 + value**2 / 2  # Bonett and Wright 2000, Psychometrika 65
    return value, *_fisher(value, len(left) - 3, variance), float(found.pvalue)


def correlate_given(
    x: Sequence[float], y: Sequence[float], given: Sequence[float]
) -> tuple[float | None, float | None, float | None, float | None]:
    """Pearson's correlation of what a straight line over `given` leaves of `x` and `y`, with interval and p."""
    import numpy as np
    from scipy.stats import t

    freedom = len(x) - 3
    line = np.column_stack([np.ones(len(given)), np.array(given, dtype=float)])
    rest = []
    for each in (x, y):
        values = np.array(each, dtype=float)
        left = values - line @ np.linalg.lstsq(line, values, rcond=None)[0]
        if len(x) < _FEWEST_FOR_PARTIAL or np.linalg.norm(left) <= 1e-9 * np.linalg.norm(values):
            return None, None, None, None
        rest.append(left)
    value = float(_pearson(*rest))
    if 1 - value**2 <= 0:
        return value, None, None, None
    distance = abs(value) * math.sqrt(freedom / (1 - value**2))
    return value, *_fisher(value, freedom - 1, 1.0), float(2 * t.sf(distance, freedom))


def agreement(answers: Iterable[JudgedAnswer]) -> Agreement:
    """Of the two evaluators over the answers that both judged; answers to one item are drawn together.

    Raises:
        BadInput: none was judged by both.
    """
    import numpy as np

    pairs = [(answer.item_id, answer.win, answer.false_win) for answer in answers if answer.win is not None]
    if not pairs:
        raise BadInput("no answer that both evaluators judged", "length analysis", "judge some answers")
    same = [float(win == false_win) for _, win, false_win in pairs]
    items = [item for item, _, _ in pairs]
    places = {item: place for place, item in enumerate(dict.fromkeys(items))}
    verdicts = {win: place for place, win in enumerate(sorted(WIN_SHARE.values()))}
    counts = np.zeros((len(places), len(verdicts), len(verdicts)))
    for item, win, false_win in pairs:
        counts[places[item], verdicts[win], verdicts[false_win]] += 1
    repeated = 1 < len(places) < len(pairs)
    share = clustered_mean(same, items) if repeated else proportion(same)
    value = float(_kappa(counts.sum(axis=0)))
    if math.isnan(value) or len(places) < 2:
        kappa = None if math.isnan(value) else value
        return Agreement(n=len(pairs), share=share, kappa=kappa, kappa_low=None, kappa_high=None)
    chances = np.full(len(places), 1 / len(places))
    drawings = np.random.default_rng(0).multinomial(len(places), chances, size=_RESAMPLES)
    drawn = _kappa(np.einsum("ri,ijk->rjk", drawings, counts))
    # A sample in which both say but one thing has no kappa.
    tail = (1 - CONFIDENCE) / 2
    low, high = (float(each) for each in np.nanquantile(drawn, [tail, 1 - tail]))
    return Agreement(n=len(pairs), share=share, kappa=value, kappa_low=low, kappa_high=high)


def _model(row: TableRow, answers: Sequence[JudgedAnswer]) -> ModelLength:
    def average(values: Iterable[float]) -> float:
        return math.fsum(values) / len(answers)

    return ModelLength(
        name=row.name,
        label=row.label,
        n=len(answers),
        unique_tokens=average(answer.unique_tokens for answer in answers),
        reference_unique_tokens=average(answer.reference_unique_tokens for answer in answers),
        characters=average(answer.characters for answer in answers),
        win_rate=mean([answer.win for answer in answers if answer.win is not None]),
        false_win_rate=mean([answer.false_win for answer in answers]),
        agreement=agreement(answers),
    )


def quantity_of(model: ModelLength, quantity: Quantity) -> float:
    """One of the numbers that are correlated."""
    match quantity:
        case "win_rate":
            return model.win_rate.value
        case "false_win_rate":
            return model.false_win_rate.value
        case "unique_tokens":
            return model.unique_tokens
        case "characters":
            return model.characters


def _correlation(
    models: Sequence[ModelLength], quantity: Quantity, kind: Literal["pearson", "spearman"]
) -> Correlation:
    x, y = ([quantity_of(model, each) for model in models] for each in ("win_rate", quantity))
    value, low, high, p_value = correlate(x, y, kind)
    return Correlation(
        kind=kind, x="win_rate", y=quantity, n=len(models), value=value, low=low, high=high, p_value=p_value
    )


def _partial_correlation(models: Sequence[ModelLength], quantity: Quantity, given: Quantity) -> Correlation:
    x, y, fixed = ([quantity_of(model, each) for model in models] for each in ("win_rate", quantity, given))
    value, low, high, p_value = correlate_given(x, y, fixed)
    return Correlation(
        kind="partial", x="win_rate", y=quantity, given=given, n=len(models), value=value, low=low, high=high,
        p_value=p_value,
    )  # fmt: skip


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> Any:
    """Along the last axis."""
    import numpy as np

    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    product = (x * y).sum(axis=-1) / np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    return np.clip(product, -1, 1)


def _fisher(value: float, freedom: int, variance: float) -> tuple[float | None, float | None]:
    """Interval of a correlation; none where there is no freedom, or where it is perfect."""
    from scipy.stats import norm

    if freedom < 1 or abs(value) > 1 - 1e-12:
        return None, None
    width = float(norm.ppf(0.5 + CONFIDENCE / 2)) * math.sqrt(variance / freedom)
    return math.tanh(math.atanh(value) - width), math.tanh(math.atanh(value) + width)


def _kappa(counts: NDArray[np.float64]) -> Any:
    """Cohen's kappa of tables of counts (last two axes); NaN where both raters only ever say one same thing."""
    import numpy as np

    total = counts.sum(axis=(-1, -2))
    observed = np.trace(counts, axis1=-2, axis2=-1) / total
    expected = (counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
