"""LLaMA-2: the base models of Tülu 1.1, which the paper compares in Tables 4, 5 and 8.

License: Llama 2 Community License; the hub asks to accept it, and then for a token (`HF_TOKEN`).
Citation: Touvron et al., "Llama 2: Open Foundation and Fine-Tuned Chat Models", arXiv:2307.09288.
Source: hub `meta-llama` at the commits below. Sizes, tokens of pretraining and context: Table 1 of that paper.

The vocabulary is LLaMA's, and `<pad>` is added in the same way. The files of the tokenizer are the 7B's own, and both
sizes get them.
"""

from __future__ import annotations

from typing import Any, Final

from tulu_pipeline.artifacts.source import HubModel
from tulu_pipeline.models.llama import llama_config
from tulu_pipeline.specs.model import Family, PretrainedModel, PretrainedTokenizer, SpecialTokens

_REVISION = "01c7f73d771dfac7d292323805ebc428287df4f9"

TOKENIZER: Final = PretrainedTokenizer(
    name="llama2",
    sources={"tokenizer": HubModel(repo="meta-llama/Llama-2-7b-hf", revision=_REVISION, part="tokenizer")},
    mode="legacy_fast",
    special_tokens=SpecialTokens(bos="<s>", eos="</s>", pad_is_new=True),
)


def _llama2(size: str, revision: str, parameters: int, config: dict[str, Any]) -> PretrainedModel:
    weights = HubModel(repo=f"meta-llama/Llama-2-{size}-hf", revision=revision, part="weights")
    return PretrainedModel(
        name=f"llama2-{size}",
        architecture="LlamaForCausalLM",
        sources={"weights": weights, **TOKENIZER.sources},
        parameters=parameters,
        pretraining_tokens=2_000_000_000_000,
        context_tokens=4096,
        license="Llama 2 Community License",
        tokenizer=TOKENIZER,
        config=config,
        tuned_embedding_rows=32_001,
    )


FAMILY = Family(
    name="llama2",
    title="LLaMA-2",
    citation="Touvron et al., Llama 2: Open Foundation and Fine-Tuned Chat Models, arXiv:2307.09288, 2023",
    models=(
        _llama2("7b", _REVISION, 6_738_415_616, llama_config(4096, 32, 11_008, context_tokens=4096)),
        _llama2(
            "13b",
            "5c31dfb671ce7cfe2d7bb7c04375e44c55e815b1",
            13_015_864_320,
            llama_config(5120, 40, 13_824, context_tokens=4096),
        ),
    ),
)
