"""First light: every real component on real files, with a model too small to learn anything.

Scores near chance are expected; what it shows is that each step from the original raw files to the table is the real
one. Run it with a mirror that holds the files: `TULU_MIRROR=… tulu run first_light`.
"""

from __future__ import annotations

from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import FalseEvaluator
from tulu_pipeline.specs.mixture import Component, Mixture, single
from tulu_pipeline.specs.recipe import Recipe

_MMLU_ITEMS = 570
_STEPS = 12

EXPERIMENT = Experiment(
    name="first_light",
    title="First light: real files, a 10M-parameter model",
    hypothesis="every stage works on the original files; no score differs from chance",
    models=(FAMILY.model("tiny-10m"),),
    mixtures=(
        single("alpaca"),
        Mixture(
            name="four_samples",
            label="Alpaca, Code-Alpaca, GPT4-Alpaca, CoT",
            components=(
                Component(dataset="alpaca", cap=2_000),
                Component(dataset="code_alpaca:sample"),
                Component(dataset="gpt4_alpaca:sample", cap=2_000),
                Component(dataset="cot:sample", cap=2_000),
            ),
        ),
    ),
    recipe=Recipe(learning_rate=1e-3, max_steps=_STEPS, max_length_tokens=512, dtype="fp32"),
    benchmarks={"mmlu": ("mmlu_0shot",), "gsm": ("gsm_cot",), "alpaca_eval": ("alpaca_eval",)},
    judges={"alpaca_eval": FalseEvaluator()},
    engine_dtype="float32",
    item_limit={"mmlu_0shot": _MMLU_ITEMS},
    max_new_tokens=256,
    notes=(
        f"The base model has random weights and 10M parameters; tuned for {_STEPS} steps of 128 conversations.",
        "Samples: Code-Alpaca 2,017 of 20,022, GPT4-Alpaca 9,954 of 52,002, CoT 7 of 9 files (33,443 rows).",
        f"MMLU: {_MMLU_ITEMS} of 14,042 questions, 10 of each of the 57 subjects; GSM: the paper's 200.",
        "Completions are capped at 256 tokens (the paper: 512 for GSM, 8,192 for AlpacaEval).",
        "AlpacaEval: 805 instructions against text-davinci-003 by the false evaluator (more unique tokens win).",
    ),
)
