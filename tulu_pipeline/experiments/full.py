"""The suite in full: all thirteen metrics over the paper's items, asked of one small model from one load of the engine.

It shows that the whole evaluation runs, and how long it takes; the model is too small for its scores to mean anything.
Run it with a mirror that holds the files: `TULU_MIRROR=… tulu run full`. It takes hours on a CPU; killed at any moment,
the same command goes on. `quarter` is the same with every fourth item.
"""

from __future__ import annotations

from tulu_pipeline import stand_ins
from tulu_pipeline.benchmarks import tydiqa
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.specs.columns import ALL, PAPER_ITEMS
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import FalseEvaluator
from tulu_pipeline.specs.mixture import single
from tulu_pipeline.specs.recipe import Recipe

_STEPS = 120


def suite(
    name: str, title: str, *, one_in: int, max_new_tokens: int | None = None, notes: tuple[str, ...] = ()
) -> Experiment:
    """All thirteen metrics, asked of one checkpoint.

    Args:
        name: the experiment's.
        title: likewise.
        one_in: one of so many of the paper's items is asked.
        max_new_tokens: cap on an answer below the benchmarks' own; None leaves those.
        notes: before those that hold for every share.
    """
    return Experiment(
        name=name,
        title=title,
        hypothesis="every metric is asked, executed or judged in one command; no score differs from chance",
        models=(FAMILY.model("tiny-6k"),),
        mixtures=(single("alpaca"),),
        untuned=False,
        # So small a model wants a rate far above the paper's.
        recipe=Recipe(
            learning_rate=4e-3,
            max_steps=_STEPS,
            conversations_per_step=32,
            max_length_tokens=512,
            loss_norm="token_mean",
            dtype="fp32",
        ),
        benchmarks=ALL,
        own_benchmarks=(tydiqa.reduced(demos="dev"),),
        judges={
            "toxigen": stand_ins.CLASSIFIER,
            "truthfulqa": stand_ins.TRUTH_JUDGES,
            "alpaca_eval": FalseEvaluator(),
        },
        average="none",
        engine_dtype="float32",
        max_new_tokens=max_new_tokens,
        item_limit={metric: -(-items // one_in) for metric, items in PAPER_ITEMS.items()},
        notes=(
            f"The model has 0.7M parameters and was tuned for {_STEPS} steps of 32 conversations: it knows nothing.",
            *notes,
            "ToxiGen and TruthfulQA are judged by stand-ins: untrained models made on the spot, in place of "
            "RoBERTa-large and of two LLaMA-2 7B. What they say means nothing.",
            "AlpacaEval: against text-davinci-003 by the false evaluator (more unique tokens win).",
            "TyDiQA's exemplars are development questions that are not asked (the paper: training questions).",
        ),
    )


EXPERIMENT = suite(
    "full", "The suite over the paper's items: a 0.7M-parameter model, two judges stood in for", one_in=1
)
