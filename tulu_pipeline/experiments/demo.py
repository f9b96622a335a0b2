"""The whole pipeline in miniature: two untrained-to-tuned pairs on a CPU in minutes, with a table that says something.

Two data sets of this project's own teach two different things, each in the layout of one evaluation; each of the two
tuned models should win that one and lose the other. Everything else is real: formats, training, generation, scoring.
What small models can do is narrow. They are asked new questions of phrasings that they know, about pairs of numbers
and facts that they know: no training row holds a question of the evaluations, but nothing else is new in them.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.benchmarks import alpaca_eval, gsm, mmlu
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.demo.raw_files import FOLDER, SUBJECTS
from tulu_pipeline.models import tiny
from tulu_pipeline.raw.readers import read_json_arrays, read_json_lines
from tulu_pipeline.specs.dataset import Dataset, Example, RawRow, RowDropped
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import FalseEvaluator
from tulu_pipeline.specs.mixture import Component, Mixture
from tulu_pipeline.specs.recipe import Recipe


def _local(name: str) -> LocalFile:
    return LocalFile(path=f"{FOLDER}/{name}", maker="tulu_pipeline.demo.raw_files:write")


def _convert(dataset: str, row: RawRow, rng: random.Random) -> Conversation:
    """Alpaca's fields as they stand, without its templates: a small model must see the evaluation's own layout."""
    if not isinstance(row.value, dict) or not isinstance(row.value.get("instruction"), str):
        raise RowDropped("no `instruction`")
    if not isinstance(row.value.get("output"), str):
        raise RowDropped("no `output`")
    messages = (Message("user", row.value["instruction"]), Message("assistant", row.value["output"]))
    return Conversation(dataset, f"{dataset}_{row.row_id}", messages)


ARITHMETIC = Dataset(
    name="arithmetic",
    module=__name__,
    title="Worked arithmetic",
    citation="made by this project",
    license="Apache-2.0",
    url="",
    sources={"arithmetic.json": _local("arithmetic.json")},
    read=read_json_arrays,
    convert=partial(_convert, "arithmetic"),
    converter_version=1,
    examples=(
        Example(
            RawRow("0", "arithmetic.json:2", {"instruction": "Question: …", "input": "", "output": "Answer: …"}),
            Conversation(
                "arithmetic", "arithmetic_0", (Message("user", "Question: …"), Message("assistant", "Answer: …"))
            ),
        ),
    ),
)
FACTS = replace(
    ARITHMETIC,
    name="facts",
    title="Facts about an invented village",
    sources={"facts.jsonl": _local("facts.jsonl")},
    read=read_json_lines,
    convert=partial(_convert, "facts"),
    examples=(),
)

GSM = replace(gsm.BENCHMARK, sources={name: _local(f"gsm/{name}") for name in ("test.jsonl", "exemplars.jsonl")})
MMLU = replace(
    mmlu.BENCHMARK,
    sources={
        name: _local(f"mmlu/{name}")
        for subject in SUBJECTS
        for name in (f"dev/{subject}_dev.csv", f"test/{subject}_test.csv")
    },
)
ALPACA_EVAL = replace(alpaca_eval.BENCHMARK, sources={"model_outputs.json": _local("alpaca_eval/model_outputs.json")})

EXPERIMENT = Experiment(
    name="demo",
    title="Demo: two small models, two kinds of data",
    hypothesis="Each kind of instruction data raises the benchmark that it resembles, and only that one.",
    models=(tiny.FAMILY.models[0],),
    mixtures=(
        Mixture(name="arithmetic", components=(Component(dataset="arithmetic"),), label="Arithmetic"),
        Mixture(name="facts", components=(Component(dataset="facts"),), label="Facts"),
    ),
    benchmarks={"mmlu": ("mmlu_0shot",), "gsm": ("gsm_direct", "gsm_cot"), "alpaca_eval": ("alpaca_eval",)},
    # The paper's recipe is for pretrained billions of parameters; so few, from nothing, want a rate 200 times as high.
    recipe=Recipe(
        learning_rate=4e-3,
        final_learning_rate_share=0.05,
        epochs=4.0,
        max_steps=800,
        conversations_per_step=16,
        warmup_steps=30,
        adam_beta2=0.98,
        max_length_tokens=1024,
        loss_norm="token_mean",
        dtype="fp32",
    ),
    judges={"alpaca_eval": FalseEvaluator()},
    engine_dtype="float32",
    datasets=(ARITHMETIC, FACTS),
    own_benchmarks=(GSM, MMLU, ALPACA_EVAL),
    max_new_tokens=32,
    notes=(
        "All questions, exemplars and reference answers are made up; the columns have the benchmarks' formats and "
        "protocols, not their content.",
        "At most 32 new tokens per answer.",
    ),
)
