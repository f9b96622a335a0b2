"""LLaMA: the base models of most of the paper's experiments; so far their tokenizer, which the data is measured with.

License: Meta's LLaMA license (non-commercial).
Citation: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", arXiv:2302.13971.
Source: hub `huggyllama/llama-7b` at commit 8416d3f, the original weights in the format of transformers.
"""

from __future__ import annotations

from typing import Final

from tulu_pipeline.artifacts.source import HubFile
from tulu_pipeline.specs.model import Family, PretrainedTokenizer

_REVISION = "8416d3fefb0cb3ff5775a7b13c1692d10ff1aa16"

TOKENIZER: Final = PretrainedTokenizer(
    name="llama",
    sources={
        name: HubFile(repo="huggyllama/llama-7b", path=name, revision=_REVISION, kind="model")
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")
    },
    mode="legacy_fast",
)

FAMILY = Family(
    name="llama",
    title="LLaMA",
    citation="Touvron et al., LLaMA: Open and Efficient Foundation Language Models, arXiv:2302.13971, 2023",
    models=(),
)
