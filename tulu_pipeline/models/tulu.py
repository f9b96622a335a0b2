"""Tülu: the checkpoints that the paper's authors released, tuned with the paper's recipe and format.

License: AI2's model license (non-commercial research), with the license of the base model.
Citation: Wang et al., "How Far Can Camels Go? Exploring the State of Instruction Tuning on Open Resources",
arXiv:2306.04751.
Source: the table of released checkpoints in open-instruct's README (commit b55563782), hub `allenai`. Which commits of
those repositories hold the files is written down nowhere that could be read for this project, so a release is taken
at a commit that you name: `FAMILY.release("tulu-7b").at("…")`.

Those of LLaMA are weight diffs: tuned minus base in float32, by Alpaca's script without its check of the sum (no sum
is published). LLaMA has no pad token: the script that made the diffs subtracted a row drawn at random for it, the one
that recovers adds the mean row, so that this row alone is not what was tuned. No prompt holds the token; only its
logit, one of 32,001, is a little off. OPT and Pythia came whole.
"""

from __future__ import annotations

from typing import Final

from tulu_pipeline.models import llama, opt, pythia
from tulu_pipeline.specs.model import Family, PretrainedModel, Release, WeightDiff

_CITATION: Final = (
    "Wang et al., How Far Can Camels Go? Exploring the State of Instruction Tuning on Open Resources, "
    "arXiv:2306.04751, 2023"
)
_SMALL, _ALL = ("7b", "13b"), ("7b", "13b", "30b", "65b")

# What it was tuned on: the repository's name, the mixture, the label, and the sizes of LLaMA.
_OF_LLAMA: Final = (
    ("open-instruct-sni", "super_ni", "SuperNI", _SMALL),
    ("open-instruct-cot", "cot", "CoT", _SMALL),
    ("open-instruct-flan-v2", "flan_v2", "Flan V2", _SMALL),
    ("open-instruct-dolly", "dolly", "Dolly", _SMALL),
    ("open-instruct-oasst1", "oasst1", "Open Assistant 1", _SMALL),
    ("open-instruct-sharegpt", "sharegpt", "ShareGPT", _ALL),
    ("open-instruct-self-instruct", "self_instruct", "Self-instruct", _SMALL),
    ("open-instruct-unnatural-instructions", "unnatural_instructions", "Unnatural Instructions", _SMALL),
    ("open-instruct-stanford-alpaca", "alpaca", "Alpaca", _SMALL),
    ("open-instruct-code-alpaca", "code_alpaca", "Code-Alpaca", _SMALL),
    ("open-instruct-gpt4-alpaca", "gpt4_alpaca", "GPT4-Alpaca", _SMALL),
    ("open-instruct-baize", "baize", "Baize", _SMALL),
    ("open-instruct-human-mix", "human_mix", "Human data mix", _ALL),
    ("tulu", "human_gpt_mix", "Tülu", _ALL),
)


def _release(name: str, base: PretrainedModel, mixture: str, label: str, diff: WeightDiff | None) -> Release:
    return Release(
        name=name,
        repo=f"allenai/{name}",
        base=base,
        diff=diff,
        label=f"{label} (released)",
        mixture=mixture,
        license=f"AI2 model license (non-commercial), {base.license}",
        citation=_CITATION,
    )


FAMILY = Family(
    name="tulu",
    title="Tülu: the paper's released checkpoints",
    citation=_CITATION,
    releases=(
        *(
            _release(f"{name}-{size}", llama.FAMILY.model(f"llama-{size}"), mixture, label, WeightDiff())
            for name, mixture, label, sizes in _OF_LLAMA
            for size in sizes
        ),
        _release("open-instruct-opt-6.7b-tulu", opt.FAMILY.model("opt-6.7b"), "human_gpt_mix", "Tülu", None),
        _release("open-instruct-pythia-6.9b-tulu", pythia.FAMILY.model("pythia-6.9b"), "human_gpt_mix", "Tülu", None),
    ),
)
