"""LLaMA: the base models of most of the paper's experiments.

License: Meta's LLaMA license (non-commercial).
Citation: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", arXiv:2302.13971.
Source: the original weights in the format of transformers, hub `huggyllama`, at the commits below. Sizes, tokens of
pretraining and context: Table 2 and section 2 of that paper (its 33B is the 30B of everyone else).
Paper: 30B and 65B are tuned with 1e-5 and 1,024 tokens, the others with the recipe's 2e-5 and 2,048.

The vocabulary has 32,000 entries and no pad token, so finetuning adds one as number 32,000 and the embeddings grow. All
sizes get the tokenizer files of the 7B, so that tokens made once fit them all.
"""

from __future__ import annotations

from typing import Any, Final

from tulu_pipeline.artifacts.source import HubFile, HubModel
from tulu_pipeline.specs.model import Family, PretrainedModel, PretrainedTokenizer, SpecialTokens

_REVISION = "8416d3fefb0cb3ff5775a7b13c1692d10ff1aa16"

TOKENIZER: Final = PretrainedTokenizer(
    name="llama",
    sources={
        name: HubFile(repo="huggyllama/llama-7b", path=name, revision=_REVISION, kind="model")
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model")
    },
    mode="legacy_fast",
    special_tokens=SpecialTokens(bos="<s>", eos="</s>", pad_is_new=True),
)


def llama_config(hidden: int, layers: int, feed_forward: int, *, context_tokens: int = 2048) -> dict[str, Any]:
    """What a `config.json` of this architecture says of its shape; all sizes have heads of 128."""
    return {
        "model_type": "llama",
        "vocab_size": 32_000,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 128,
        "intermediate_size": feed_forward,
        "max_position_embeddings": context_tokens,
        "tie_word_embeddings": False,
    }


def _llama(
    size: str, revision: str, *, parameters: int, trillion_tokens: float, config: dict[str, Any], **tune: Any
) -> PretrainedModel:
    weights = HubModel(repo=f"huggyllama/llama-{size}", revision=revision, part="weights")
    return PretrainedModel(
        name=f"llama-{size}",
        architecture="LlamaForCausalLM",
        sources={"weights": weights, **TOKENIZER.sources},
        parameters=parameters,
        pretraining_tokens=round(trillion_tokens * 1e12),
        context_tokens=2048,
        license="LLaMA (non-commercial)",
        tokenizer=TOKENIZER,
        config=config,
        tuned_embedding_rows=32_001,
        **tune,
    )


_LARGE: dict[str, Any] = {"tune_learning_rate": 1e-5, "tune_max_length_tokens": 1024}

FAMILY = Family(
    name="llama",
    title="LLaMA",
    citation="Touvron et al., LLaMA: Open and Efficient Foundation Language Models, arXiv:2302.13971, 2023",
    models=(
        _llama(
            "7b",
            _REVISION,
            parameters=6_738_415_616,
            trillion_tokens=1.0,
            config=llama_config(4096, 32, 11_008),
        ),
        _llama(
            "13b",
            "bf57045473f207bb1de1ed035ace226f4d9f9bba",
            parameters=13_015_864_320,
            trillion_tokens=1.0,
            config=llama_config(5120, 40, 13_824),
        ),
        _llama(
            "30b",
            "2b1edcdb3c7ced7bce6c1aa75c94545777c3118b",
            parameters=32_528_943_616,
            trillion_tokens=1.4,
            config=llama_config(6656, 60, 17_920),
            **_LARGE,
        ),
        _llama(
            "65b",
            "49707c5313d34d1c5a846e29cf2a2a650c22c8ee",
            parameters=65_285_660_672,
            trillion_tokens=1.4,
            config=llama_config(8192, 80, 22_016),
            **_LARGE,
        ),
    ),
)
