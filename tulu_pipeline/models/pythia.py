"""Pythia: one of the two other base models that the paper tunes on its mixture (Table 4).

License: Apache-2.0.
Citation: Biderman et al., "Pythia: A Suite for Analyzing Large Language Models Across Training and Scaling",
arXiv:2304.01373.
Source: hub `EleutherAI/pythia-6.9b` at the commit below; parameters and tokens of pretraining from that paper.

The tokenizer is GPT-NeoX's. Its files name no pad token; for the one that finetuning adds, the embeddings have room:
they are padded to a multiple of 128 rows.
"""

from __future__ import annotations

from typing import Final

from tulu_pipeline.artifacts.source import HubModel
from tulu_pipeline.specs.model import Family, PretrainedModel, PretrainedTokenizer, SpecialTokens

_REPO, _REVISION = "EleutherAI/pythia-6.9b", "f271943e880e60c0c715fd10e4dc74ec4e31eb44"

TOKENIZER: Final = PretrainedTokenizer(
    name="pythia",
    sources={"tokenizer": HubModel(repo=_REPO, revision=_REVISION, part="tokenizer")},
    special_tokens=SpecialTokens(bos="", eos="<|endoftext|>", pad_is_new=True),
)

FAMILY = Family(
    name="pythia",
    title="Pythia",
    citation="Biderman et al., Pythia: A Suite for Analyzing Large Language Models, arXiv:2304.01373, 2023",
    models=(
        PretrainedModel(
            name="pythia-6.9b",
            architecture="GPTNeoXForCausalLM",
            sources={"model": HubModel(repo=_REPO, revision=_REVISION)},
            parameters=6_857_302_016,
            pretraining_tokens=300_000_000_000,
            context_tokens=2048,
            license="Apache-2.0",
            tokenizer=TOKENIZER,
            config={
                "model_type": "gpt_neox",
                "vocab_size": 50_432,
                "hidden_size": 4096,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "intermediate_size": 16_384,
                "max_position_embeddings": 2048,
                "tie_word_embeddings": False,
            },
            tuned_embedding_rows=50_432,
        ),
    ),
)
