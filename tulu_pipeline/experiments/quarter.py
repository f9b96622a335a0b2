"""The suite at a quarter of the paper's items: eleven of its thirteen metrics on a small model, untuned and tuned.

Every answer of a checkpoint comes from one load of the engine. ToxiGen's and TruthfulQA's judges are models of billions
of parameters that have to be downloaded; an experiment of one's own adds the two where they are at hand. Run it with a
mirror that holds the files: `TULU_MIRROR=… tulu run quarter`.
"""

from __future__ import annotations

from tulu_pipeline.benchmarks import tydiqa
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import single
from tulu_pipeline.specs.recipe import Recipe

_STEPS = 12
# The paper's numbers of items. MMLU: all; BBH: 40 of each of 27 tasks; TyDiQA: 100 of each of 9 languages.
_PAPER_ITEMS = {
    "mmlu_0shot": 14_042,
    "mmlu_5shot": 14_042,
    "gsm_direct": 200,
    "gsm_cot": 200,
    "bbh_direct": 1_080,
    "bbh_cot": 1_080,
    "tydiqa_gp": 900,
    "tydiqa_cb": 900,
    "codex_eval_p1": 164,
    "codex_eval_p10": 164,
    "alpaca_eval": 805,
}

EXPERIMENT = Experiment(
    name="quarter",
    title="The suite at a quarter of its items: a 10M-parameter model",
    hypothesis="every metric is asked, executed or judged in one command; no score differs from chance",
    models=(FAMILY.model("tiny-10m"),),
    mixtures=(single("alpaca"),),
    recipe=Recipe(learning_rate=1e-3, max_steps=_STEPS, max_length_tokens=512, dtype="fp32"),
    benchmarks={
        "mmlu": ("mmlu_0shot", "mmlu_5shot"),
        "gsm": ("gsm_direct", "gsm_cot"),
        "bbh": ("bbh_direct", "bbh_cot"),
        "tydiqa": ("tydiqa_gp", "tydiqa_cb"),
        "codex_eval": ("codex_eval_p1", "codex_eval_p10"),
        "alpaca_eval": ("alpaca_eval",),
    },
    own_benchmarks=(tydiqa.reduced(demos="dev"),),
    average="none",
    engine_dtype="float32",
    item_limit={metric: -(-items // 4) for metric, items in _PAPER_ITEMS.items()},
    max_new_tokens=256,
    notes=(
        f"The base model has random weights and 10M parameters; tuned for {_STEPS} steps of 128 conversations.",
        "A quarter of the paper's items, spread evenly over subjects, tasks and languages; Codex-Eval has all its 20 "
        "samples.",
        "Completions are capped at 256 tokens (the paper: 512, AlpacaEval 8,192).",
        "TyDiQA's exemplars are development questions that are not asked (the paper: training questions).",
        "ToxiGen and TruthfulQA are left out: their judges are models to be downloaded.",
        "AlpacaEval: against text-davinci-003 by the false evaluator (more unique tokens win).",
    ),
)
