"""The suite at a quarter of the paper's items: all thirteen metrics, one small model, one load of the engine.

One command to see the whole evaluation run, on two CPU cores in minutes: `TULU_MIRROR=… tulu run quarter`, with a
mirror that holds the files. `full` is the same over all of the paper's items.
"""

from __future__ import annotations

from tulu_pipeline.experiments.full import suite

EXPERIMENT = suite(
    "quarter",
    "The suite at a quarter of its items: a 0.7M-parameter model, two judges stood in for",
    one_in=4,
    max_new_tokens=512,  # below AlpacaEval's own alone: a model that never ends would write to the end of its context
    notes=(
        "A quarter of the paper's items, spread evenly over subjects, tasks, languages and groups; Codex-Eval has all "
        "its 20 samples.",
        "AlpacaEval's answers are capped at 512 tokens (the paper: 8,192).",
    ),
)
