"""What the record of a training says in a line while it runs, and in numbers at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tulu_pipeline.training.tracking.record import HeldOutRecord, StepRecord

TRAINING_FILE = "training.json"
_WAITING_IS_SHOWN_FROM = 0.01


def step_note(record: StepRecord, held_out: HeldOutRecord | None = None) -> str:
    """The last step in a line, with the last look at the held-out conversations."""
    scalars = record.scalars()
    waiting = scalars.get("speed/data_wait_share", 0.0)
    minutes, seconds = divmod(round(record.seconds_left or 0.0), 60)
    hours, minutes = divmod(minutes, 60)
    left = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
    parts = [
        f"loss {record.loss:.3f}",
        "" if held_out is None else f"held out {held_out.loss:.3f}",
        f"lr {record.learning_rate:.2e}",
        "" if record.grad_norm is None else f"norm {record.grad_norm:.2f}",
        f"{record.tokens / record.seconds:,.0f} tok/s, {record.supervised_tokens / record.seconds:,.0f} supervised",
        "" if record.mfu is None else f"MFU {record.mfu:.1%}",
        f"padding {record.padding_share:.0%}",
        "" if record.memory_bytes is None else f"{record.memory_bytes / 2**30:.1f} GiB",
        f"waiting for data {waiting:.0%}" if waiting >= _WAITING_IS_SHOWN_FROM else "",
        f"{left} left",
    ]
    return " · ".join(filter(None, parts))


def course_markdown(steps: Sequence[StepRecord], looks: Sequence[HeldOutRecord], rows: int = 12) -> str:
    """How a training went, as a Markdown table of a few of its steps; "" of none.

    Args:
        steps: all of them, in order.
        looks: at the held-out conversations, in order.
        rows: lines of the table at most; the first and the last step are among them.
    """
    if not steps:
        return ""
    last = len(steps) - 1
    shown = sorted({round(index * last / max(1, rows - 1)) for index in range(rows)})
    headings = ["step", "loss", *(["held-out loss"] if looks else []), "learning rate", "gradient norm", "tokens/s"]
    lines = [f"| {' | '.join(headings)} |", "|" + "--:|" * len(headings)]
    for record in (steps[index] for index in shown):
        before = [look.loss for look in looks if look.step <= record.step]
        cells = [
            f"{record.step:,}",
            f"{record.loss:.4f}",
            *([f"{before[-1]:.4f}" if before else ""] if looks else []),
            f"{record.learning_rate:.2e}",
            "" if record.grad_norm is None else f"{record.grad_norm:.3f}",
            f"{record.tokens / record.seconds:,.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def record_metrics(steps: Sequence[StepRecord], looks: Sequence[HeldOutRecord]) -> dict[str, Any]:
    """A whole training in numbers; what was not measured is not there.

    Args:
        steps: all of them, in order.
        looks: at the held-out conversations, in order.
    """
    seconds = sum(step.seconds for step in steps)
    tokens = sum(step.tokens for step in steps)
    last = steps[-max(1, len(steps) // 20) :]
    waited = [step.data_seconds for step in steps if step.data_seconds is not None]
    # Over the whole time, so that short steps do not count more than long ones.
    busy = [(step.mfu * step.seconds, step.seconds) for step in steps if step.mfu is not None]
    metrics: dict[str, Any] = {
        "steps": len(steps),
        "epochs": steps[-1].epoch,
        "loss_first": steps[0].loss,
        "loss_last": sum(step.loss for step in last) / len(last),
        "conversations": sum(step.conversations for step in steps),
        "tokens": tokens,
        "supervised_tokens": sum(step.supervised_tokens for step in steps),
        "padding_share": 1.0 - tokens / sum(step.computed_tokens for step in steps),
        "tokens_per_second": tokens / seconds,
        "seconds_training": seconds,
        "data_wait_share": sum(waited) / seconds if len(waited) == len(steps) else None,
        "mfu": sum(part for part, _ in busy) / sum(part for _, part in busy) if busy else None,
        "memory_bytes": max((step.memory_bytes for step in steps if step.memory_bytes is not None), default=None),
    }
    if looks:
        metrics |= {
            "held_out_conversations": looks[-1].conversations,
            "held_out_loss_first": looks[0].loss,
            "held_out_loss_last": looks[-1].loss,
            "held_out_loss_best": min(look.loss for look in looks),
            "held_out_perplexity": looks[-1].perplexity,
            "seconds_held_out": sum(look.seconds for look in looks),
        }
    return {name: value for name, value in metrics.items() if value is not None}
