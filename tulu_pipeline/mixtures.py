"""The paper's mixtures (§3.1): sets joined whole, without weights; the training order shuffles all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tulu_pipeline.specs.mixture import Component, Mixture

_HUMAN = ("flan_v2", "cot", "dolly", "oasst1")
_GPT = ("gpt4_alpaca", "code_alpaca", "sharegpt")

MIXTURES: Final[Mapping[str, Mixture]] = {
    mixture.name: mixture
    for mixture in (
        Mixture(
            name="human_mix",
            label="Human data mix",
            components=tuple(Component(dataset=name) for name in _HUMAN),
        ),
        Mixture(
            name="human_gpt_mix",
            label="Tülu",
            components=tuple(Component(dataset=name) for name in (*_HUMAN, *_GPT)),
        ),
    )
}
