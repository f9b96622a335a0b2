"""The length analysis as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence

from tulu_pipeline.reporting.lengths import FEWEST_MODELS, Agreement, Correlation, LengthAnalysis, Quantity
from tulu_pipeline.reporting.text import INCOMPLETE, inline, markdown_line, points
from tulu_pipeline.scoring.statistics import Estimate

NONE = "–"
# What the paper printed: section 5.2 beside Figure 2, and Appendix H beside Figure 6.
PAPERS_PEARSON = 0.96
PAPERS_R_SQUARED = 0.91

QUANTITIES: dict[Quantity, str] = {
    "win_rate": "win rate",
    "unique_tokens": "mean unique tokens",
    "false_win_rate": "win rate by unique tokens",
    "characters": "mean characters",
}
MODEL_HEADINGS = (
    "Model", "n", "Unique tokens", "the reference's", "Characters", "Win rate", "by unique tokens", "Same verdict",
    "Cohen's kappa",
)  # fmt: skip
CORRELATION_HEADINGS = ("Win rate with", "Correlation", "Models", "Value", "95 % interval", "p")
CSV_FIELDS = (
    "row", "label", "n", "unique_tokens", "reference_unique_tokens", "characters",
    "win_percent", "win_low_percent", "win_high_percent", "judged",
    "false_win_percent", "false_win_low_percent", "false_win_high_percent",
    "same_verdict_percent", "same_verdict_low_percent", "same_verdict_high_percent", "kappa", "kappa_low", "kappa_high",
)  # fmt: skip


def lengths_to_csv(analysis: LengthAnalysis) -> str:
    """One line per model; numbers in full, no value is an empty field."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(CSV_FIELDS)
    for model in analysis.models:
        same, judged, counted = model.agreement, model.win_rate, model.false_win_rate
        lines.writerow(
            "" if each is None else each
            for each in (
                model.name, model.label, model.n, model.unique_tokens, model.reference_unique_tokens, model.characters,
                *_percents(judged), judged.n, *_percents(counted), *_percents(same.share),
                same.kappa, same.kappa_low, same.kappa_high,
            )
        )  # fmt: skip
    return out.getvalue()


def lengths_to_markdown(analysis: LengthAnalysis) -> str:
    """Three tables: models, correlations over them, and what they come to."""
    blocks = [
        "# Length and preference",
        _grid(MODEL_HEADINGS, model_lines(analysis)),
        "## Over the models",
        _grid(CORRELATION_HEADINGS, correlation_lines(analysis)),
        "\n".join(f"- {inline(note)}" for note in length_notes(analysis)),
    ]
    return "\n\n".join(blocks) + "\n"


def model_lines(analysis: LengthAnalysis) -> Iterator[tuple[str, ...]]:
    """The cells of each model, and of all pairs together where there are several models."""
    for model in analysis.models:
        yield (
            model.label,
            f"{model.n:,}",
            f"{model.unique_tokens:.1f}",
            f"{model.reference_unique_tokens:.1f}",
            f"{model.characters:,.0f}",
            _percent(model.win_rate) + (INCOMPLETE if model.undefined else ""),
            _percent(model.false_win_rate),
            _percent(model.agreement.share),
            _kappa(model.agreement),
        )
    if analysis.agreement is not None and len(analysis.models) > 1:
        every = analysis.agreement
        yield ("all pairs", f"{every.n:,}", "", "", "", "", "", _percent(every.share), _kappa(every))


def correlation_lines(analysis: LengthAnalysis) -> Iterator[tuple[str, ...]]:
    """The cells of each correlation."""
    for each in analysis.correlations:
        kind = {"pearson": "Pearson", "spearman": "Spearman"}.get(each.kind, "partial")
        if each.given is not None:
            kind = f"partial, given {QUANTITIES[each.given]}"
        p_value = NONE if each.p_value is None else f"{each.p_value:.2g}"
        yield QUANTITIES[each.y], kind, f"{each.n:,}", _number(each.value, 3), interval_text(each), p_value


def interval_text(correlation: Correlation) -> str:
    """`0.531 to 0.984`, or a dash."""
    if correlation.low is None or correlation.high is None:
        return NONE
    return f"{_number(correlation.low, 3)} to {_number(correlation.high, 3)}"


def length_notes(analysis: LengthAnalysis) -> tuple[str, ...]:
    """What the numbers mean, and what they do not show."""
    count = len(analysis.models)
    lines = []
    if not analysis.enough():
        models = "1 model" if count == 1 else f"{count} models"
        lines.append(
            f"{models}: fewer than {FEWEST_MODELS} show no trend. The correlations are printed for the record, and "
            "nothing follows from them."
        )
    squared = analysis.correlation("pearson", "false_win_rate").value
    ours = "" if squared is None else f"; R² here {squared**2:.3f}"
    lines += [
        f"Win rate: the column {analysis.judged}. By unique tokens: whichever answer has more unique tokens wins.",
        f"The paper, over its own models: Pearson {PAPERS_PEARSON} of win rate and mean unique tokens (Figure 2), "
        f"R² {PAPERS_R_SQUARED} of the two win rates (Figure 6){ours}.",
        "Intervals of correlations: Fisher's transform, from four models on; p: two-sided, permutation of the models "
        "(partial: Student's t).",
        "Same verdict (win, tie or loss) on the same pair; kappa is Cohen's, its interval a bootstrap over the items.",
    ]
    lines += [
        f"{INCOMPLETE} INCOMPLETE: {model.label}: {model.undefined:,} of {model.n:,} answers without a verdict; its "
        "win rate and agreement rest on the others."
        for model in analysis.models
        if model.undefined
    ]
    if analysis.left_out:
        lines.append(f"Left out, for want of one of the two evaluators: {', '.join(analysis.left_out)}.")
    return tuple(lines)


def _grid(headings: Sequence[str], lines: Iterator[tuple[str, ...]]) -> str:
    head = [markdown_line(*headings), markdown_line("---", *["---:"] * (len(headings) - 1))]
    return "\n".join((*head, *(markdown_line(*map(inline, line)) for line in lines)))


def _percents(estimate: Estimate) -> list[float | None]:
    return [None if each is None else 100 * each for each in (estimate.value, estimate.low, estimate.high)]


def _percent(estimate: Estimate) -> str:
    if estimate.low is None or estimate.high is None:
        return points(estimate.value)
    return f"{points(estimate.value)} ±{points(max(estimate.high - estimate.value, estimate.value - estimate.low))}"


def _kappa(agreement: Agreement) -> str:
    if agreement.kappa_low is None or agreement.kappa_high is None:
        return _number(agreement.kappa)
    return f"{_number(agreement.kappa)} ({_number(agreement.kappa_low)} to {_number(agreement.kappa_high)})"


def _number(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}f}".replace("-", "−")
