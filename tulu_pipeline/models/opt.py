"""OPT: one of the two other base models that the paper tunes on its mixture (Table 4).

License: OPT license (non-commercial research).
Citation: Zhang et al., "OPT: Open Pre-trained Transformer Language Models", arXiv:2205.01068.
Source: hub `facebook/opt-6.7b` at the commit below; tokens of pretraining from section 2.2 of that paper. Weights are
`.bin` files there: transformers and vLLM read such files as tensors only (`weights_only`), this project never does.

The tokenizer is GPT-2's with OPT's own order, published as `vocab.json` and `merges.txt`. What begins a
text is also what ends an answer. `<pad>` is there already, so nothing is added or grown.
"""

from __future__ import annotations

from typing import Final

from tulu_pipeline.artifacts.source import HubModel
from tulu_pipeline.specs.model import Family, PretrainedModel, PretrainedTokenizer, SpecialTokens

_REPO, _REVISION = "facebook/opt-6.7b", "a45aa65bbeb77c1558bc99bedc6779195462dab0"

TOKENIZER: Final = PretrainedTokenizer(
    name="opt",
    sources={"tokenizer": HubModel(repo=_REPO, revision=_REVISION, part="tokenizer")},
    special_tokens=SpecialTokens(bos="</s>", eos="</s>", pad="<pad>"),
)

FAMILY = Family(
    name="opt",
    title="OPT",
    citation="Zhang et al., OPT: Open Pre-trained Transformer Language Models, arXiv:2205.01068, 2022",
    models=(
        PretrainedModel(
            name="opt-6.7b",
            architecture="OPTForCausalLM",
            sources={"model": HubModel(repo=_REPO, revision=_REVISION)},
            parameters=6_658_473_984,
            pretraining_tokens=180_000_000_000,
            context_tokens=2048,
            license="OPT (non-commercial)",
            tokenizer=TOKENIZER,
            config={
                "model_type": "opt",
                "vocab_size": 50_272,
                "hidden_size": 4096,
                "word_embed_proj_dim": 4096,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "ffn_dim": 16_384,
                "max_position_embeddings": 2048,
            },
            tuned_embedding_rows=50_272,
        ),
    ),
)
