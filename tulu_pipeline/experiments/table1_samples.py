"""Table 1 as far as samples go: Alpaca in full, of the others what a mirror of published files holds.

Run it with such a mirror: `TULU_MIRROR=… tulu run table1_samples`. Tokens are those of a tokenizer of this project,
because LLaMA's is not in a mirror of data; so they stand beside the paper's but are not compared with them.
"""

from __future__ import annotations

from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.specs.experiment import Experiment

EXPERIMENT = Experiment(
    name="table1_samples",
    title="Table 1, from samples of the instruction datasets",
    hypothesis="the converters take the original formats; what is complete has the paper's instances and rounds",
    models=(),
    mixtures=(),
    benchmarks={},
    data_tokenizer=FAMILY.model("tiny-10m").tokenizer,
    data_table=(
        "super_ni:sample",
        "cot:sample",
        "dolly:sample",
        "oasst1:sample",
        "self_instruct:seed_tasks",
        "alpaca",
        "code_alpaca:sample",
        "gpt4_alpaca:sample",
        "baize:sample",
        "sharegpt:sample",
    ),
    notes=(
        "FLAN V2 and Unnatural Instructions are in no sample that is freely at hand, so they have no row.",
        "A sample is not a random draw: its rounds and lengths may differ from those of the whole.",
    ),
)
