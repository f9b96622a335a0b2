"""Which columns the paper's tables have, in its order (values for `Experiment.benchmarks`), and over how many items."""

from __future__ import annotations

from collections.abc import Mapping

# Tables 3 to 5, averaged by `columns`.
TABLE_3: Mapping[str, tuple[str, ...]] = {
    "mmlu": ("mmlu_0shot",),
    "gsm": ("gsm_cot",),
    "bbh": ("bbh_cot",),
    "tydiqa": ("tydiqa_gp",),
    "codex_eval": ("codex_eval_p10",),
    "alpaca_eval": ("alpaca_eval",),
}
# Table 6, without an average.
TABLE_6: Mapping[str, tuple[str, ...]] = {"toxigen": ("toxigen",), "truthfulqa": ("truthfulqa",)}
# Table 8, averaged by `benchmarks`.
TABLE_8: Mapping[str, tuple[str, ...]] = {
    "mmlu": ("mmlu_0shot", "mmlu_5shot"),
    "gsm": ("gsm_direct", "gsm_cot"),
    "bbh": ("bbh_direct", "bbh_cot"),
    "tydiqa": ("tydiqa_gp", "tydiqa_cb"),
    "codex_eval": ("codex_eval_p1", "codex_eval_p10"),
    "alpaca_eval": ("alpaca_eval",),
}
# All thirteen metrics; the safety columns stand before AlpacaEval and are no part of the average.
ALL: Mapping[str, tuple[str, ...]] = {
    **{name: metrics for name, metrics in TABLE_8.items() if name != "alpaca_eval"},
    **TABLE_6,
    "alpaca_eval": TABLE_8["alpaca_eval"],
}
# Of GSM 200 questions; of BBH 40 for each of 27 tasks, of TyDiQA 100 for each of 9 languages, of ToxiGen 500 for each
# of 14 groups; of the others all.
PAPER_ITEMS: Mapping[str, int] = {
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
    "toxigen": 7_000,
    "truthfulqa": 817,
    "alpaca_eval": 805,
}
