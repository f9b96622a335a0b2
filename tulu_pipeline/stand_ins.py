"""Judges to run the pipeline with where the real ones are not: untrained models of their interface, made here.

What they say means nothing; that they are asked, and what follows from what they say, is as with the judges of
ToxiGen and TruthfulQA, which are models of billions of parameters. The files are the same bytes on every machine.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import Builtin
from tulu_pipeline.models.tiny import draw_weights, write_model, write_tokenizer
from tulu_pipeline.specs.model_judge import ToxicityClassifier, TruthJudges

_VOCABULARY, _HIDDEN, _LAYERS, _HEADS, _FEED_FORWARD = 1344, 64, 2, 2, 96  # vLLM wants heads of 32 or more on a CPU
_PAD = 3  # of the tiny models' tokenizer; RoBERTa numbers positions from behind it
_READ_TOKENS = 512
_YES = "\u0120yes"  # ` yes`, as a byte-level BPE writes it
# So long a row of the output layer makes ` yes` near certain after some prompts and impossible after others.
_YES_FACTOR = 30


def write_truth_judge(out: Path, *, name: str) -> None:
    """Write a small Llama in whose vocabulary ` yes` is one token, and often the likeliest.

    Args:
        out: folder.
        name: seeds the weights.
    """
    from safetensors.numpy import load_file, save_file

    write_model(
        out,
        name=name,
        vocabulary=_VOCABULARY,
        hidden=_HIDDEN,
        layers=_LAYERS,
        heads=_HEADS,
        feed_forward=_FEED_FORWARD,
        initializer_range=0.08,
        all_words=0,
    )
    file = out / "tokenizer.json"
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    yes = len(tokenizer["model"]["vocab"])  # the embedding has rows to spare
    tokenizer["model"]["vocab"][_YES] = yes
    tokenizer["model"]["merges"].append([_YES[:2], _YES[2:]])
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    weights = load_file(out / "model.safetensors")
    weights["model.embed_tokens.weight"][yes] *= _YES_FACTOR
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})


def write_classifier(out: Path, *, name: str) -> None:
    """Write a small RoBERTa with two labels.

    Args:
        out: folder.
        name: seeds the weights.
    """
    from safetensors.numpy import save_file

    write_tokenizer(out, vocabulary=_VOCABULARY, all_words=0)
    weights = dict(draw_weights(name, _roberta_shapes(), 0.5))
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    config: dict[str, Any] = {
        "architectures": ["RobertaForSequenceClassification"],
        "bos_token_id": 1,
        "dtype": "float32",
        "eos_token_id": 2,
        "hidden_size": _HIDDEN,
        "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
        "intermediate_size": _FEED_FORWARD,
        "max_position_embeddings": _READ_TOKENS + _PAD + 1,
        "model_type": "roberta",
        "num_attention_heads": _HEADS,
        "num_hidden_layers": _LAYERS,
        "pad_token_id": _PAD,
        "type_vocab_size": 1,
        "vocab_size": _VOCABULARY,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _roberta_shapes() -> dict[str, tuple[int, ...]]:
    """Tensor names of `RobertaForSequenceClassification` with their shapes."""
    inside = "roberta.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{inside}.word_embeddings.weight": (_VOCABULARY, _HIDDEN),
        f"{inside}.position_embeddings.weight": (_READ_TOKENS + _PAD + 1, _HIDDEN),
        f"{inside}.token_type_embeddings.weight": (1, _HIDDEN),
        **_norm(f"{inside}.LayerNorm"),
    }
    for layer in range(_LAYERS):
        block = f"roberta.encoder.layer.{layer}"
        for part in ("query", "key", "value"):
            shapes |= _linear(f"{block}.attention.self.{part}", _HIDDEN, _HIDDEN)
        shapes |= _linear(f"{block}.attention.output.dense", _HIDDEN, _HIDDEN)
        shapes |= _norm(f"{block}.attention.output.LayerNorm")
        shapes |= _linear(f"{block}.intermediate.dense", _FEED_FORWARD, _HIDDEN)
        shapes |= _linear(f"{block}.output.dense", _HIDDEN, _FEED_FORWARD)
        shapes |= _norm(f"{block}.output.LayerNorm")
    return shapes | _linear("classifier.dense", _HIDDEN, _HIDDEN) | _linear("classifier.out_proj", 2, _HIDDEN)


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (_HIDDEN,), f"{name}.bias": (_HIDDEN,)}


def _source(function: str, name: str) -> Builtin:
    return Builtin(function=f"{__name__}:{function}", version=2, args=(("name", name),))


CLASSIFIER = ToxicityClassifier(
    name="stand-in",
    model={"model": _source("write_classifier", "stand-in-toxicity")},
    max_length_tokens=_READ_TOKENS,
)
# In transformers: the one engine that vLLM loads in a run is that of the answers.
TRUTH_JUDGES = TruthJudges(
    name="stand-in",
    truth={"model": _source("write_truth_judge", "stand-in-truth")},
    information={"model": _source("write_truth_judge", "stand-in-information")},
    engine="transformers",
    dtype="float32",
)
