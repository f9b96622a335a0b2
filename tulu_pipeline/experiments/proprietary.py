"""The paper's proprietary rows, ChatGPT and GPT-4, as Tables 5 and 8 have them; GPT-4 judges AlpacaEval.

Both snapshots are retired: another one is `dataclasses.replace(GPT4, model=…)` in an experiment of one's own. Costs
money: `tulu run proprietary --max-usd 50`.
"""

from tulu_pipeline.specs.api_model import CHATGPT, GPT4
from tulu_pipeline.specs.columns import TABLE_8
from tulu_pipeline.specs.experiment import Experiment

EXPERIMENT = Experiment(
    name="proprietary",
    title="ChatGPT and GPT-4",
    hypothesis="the proprietary rows of Tables 5 and 8",
    reproduces="Tables 5 and 8",
    models=(),
    mixtures=(),
    api_models=(CHATGPT, GPT4),
    benchmarks={name: metrics for name, metrics in TABLE_8.items() if name != "tydiqa"},
    average="benchmarks",
    notes=(
        "TyDiQA is left out: its passages are cut by tokens of cl100k_base, which has no file here; give "
        "`ApiModel.tokenizer` one, and ask it too.",
        "GPT-4 answers 100 questions of each MMLU subject, as in the paper.",
    ),
)
