"""Untrained Llamas small enough for a CPU, and their tokenizers: made here, from a text that no one trains on.

Weights are drawn from the model's name alone and the tokenizer is trained on sentences of random words, so the
files are the same bytes on every machine, and nothing has to be downloaded.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_pipeline.artifacts.source import Builtin
from tulu_pipeline.specs.model import Family, PretrainedModel, PretrainedTokenizer, SpecialTokens

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_CONTEXT_TOKENS = 2048
_WORDS = Path(__file__).with_name("tiny_words.txt")
_SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
_UNK, _BOS, _EOS, _PAD = range(len(_SPECIAL))
_SENTENCES = 40_000


def write_model(
    out: Path,
    *,
    name: str,
    vocabulary: int,
    hidden: int,
    layers: int,
    heads: int,
    feed_forward: int,
    initializer_range: float,
    all_words: int,
    context_tokens: int = _CONTEXT_TOKENS,
) -> None:
    """Write a folder that `transformers` and vLLM open: an untrained Llama with tied embeddings, and its tokenizer.

    Args:
        out: folder.
        name: seeds the weights.
        vocabulary: rows of the embedding; the tokenizer has at most as many entries.
        hidden: size of the residual stream.
        layers: number of blocks.
        heads: attention heads of a block.
        feed_forward: inner size of a block's feed-forward part.
        initializer_range: standard deviation of the weights.
        all_words: 1 trains the tokenizer on all of `tiny_words.txt` and their inflections, 0 on the core words.
        context_tokens: the longest sequence.
    """
    from safetensors.numpy import save_file

    out.mkdir(parents=True, exist_ok=True)
    shapes = _shapes(vocabulary, hidden, layers, feed_forward)
    save_file(dict(draw_weights(name, shapes, initializer_range)), out / "model.safetensors", metadata={"format": "pt"})
    config = _config(
        vocabulary=vocabulary,
        hidden=hidden,
        layers=layers,
        heads=heads,
        feed_forward=feed_forward,
        initializer_range=initializer_range,
        context_tokens=context_tokens,
    )
    _write_json(out / "config.json", config)
    generation = {"bos_token_id": _BOS, "eos_token_id": _EOS, "pad_token_id": _PAD}
    _write_json(out / "generation_config.json", generation)
    write_tokenizer(out, vocabulary=vocabulary, all_words=all_words, context_tokens=context_tokens)


def _config(
    *,
    vocabulary: int,
    hidden: int,
    layers: int,
    heads: int,
    feed_forward: int,
    initializer_range: float,
    context_tokens: int = _CONTEXT_TOKENS,
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": _BOS,
        "dtype": "float32",
        "eos_token_id": _EOS,
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "initializer_range": initializer_range,
        "intermediate_size": feed_forward,
        "max_position_embeddings": context_tokens,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": heads,
        "pad_token_id": _PAD,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": vocabulary,
    }


def _shapes(vocabulary: int, hidden: int, layers: int, feed_forward: int) -> dict[str, tuple[int, ...]]:
    """Tensor names of `LlamaForCausalLM` with their shapes; the output layer is the embedding."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        shapes[f"{prefix}.input_layernorm.weight"] = (hidden,)
        for projection in "qkvo":
            shapes[f"{prefix}.self_attn.{projection}_proj.weight"] = (hidden, hidden)
        shapes[f"{prefix}.post_attention_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}.mlp.gate_proj.weight"] = (feed_forward, hidden)
        shapes[f"{prefix}.mlp.up_proj.weight"] = (feed_forward, hidden)
        shapes[f"{prefix}.mlp.down_proj.weight"] = (hidden, feed_forward)
    return shapes | {"model.norm.weight": (hidden,)}


def draw_weights(
    name: str, shapes: Mapping[str, tuple[int, ...]], deviation: float
) -> Iterator[tuple[str, npt.NDArray[np.float32]]]:
    """Tensors from a name alone: norms are 1, biases 0; the rest is normal with the standard deviation `deviation`.

    A sum of twelve uniform integers stands for the normal draw: its arithmetic is exact, so the bytes do not depend
    on a mathematical library.
    """
    import numpy as np

    generator = np.random.Generator(np.random.PCG64(list(name.encode())))
    for tensor, shape in shapes.items():
        if len(shape) == 1:
            yield tensor, np.full(shape, 0 if tensor.endswith(".bias") else 1, dtype=np.float32)
            continue
        total = np.zeros(math.prod(shape), dtype=np.int64)
        for _ in range(12):
            total += generator.integers(0, 1 << 32, size=total.size, dtype=np.uint32)
        normal = (total - 6 * (1 << 32)).astype(np.float64) / (1 << 32)
        yield tensor, (normal * deviation).astype(np.float32).reshape(shape)


def write_tokenizer(out: Path, *, vocabulary: int, all_words: int, context_tokens: int = _CONTEXT_TOKENS) -> None:
    """Write the tokenizer's files alone; the arguments are those of `write_model`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in _SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_text(all_words=bool(all_words)), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", _BOS)]
    )
    tokenizer.save(str(out / "tokenizer.json"))
    config: dict[str, Any] = {
        "add_prefix_space": False,
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "model_max_length": context_tokens,
        "pad_token": "<pad>",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
    }
    _write_json(out / "tokenizer_config.json", config)


def _text(*, all_words: bool) -> Iterator[str]:
    """Sentences of random words and numbers; the same ones every time."""
    starts, core, rest = (_words(section) for section in _WORDS.read_text(encoding="utf-8").split("\n\n"))
    rare = [word + ending for word in core + rest for ending in ("", "s", "ed", "ing", "er", "ly")] if all_words else []
    draw = random.Random(1)
    for number in range(_SENTENCES):
        # In turn, so that each is frequent enough to become one token.
        start = starts[number % len(starts)]
        words = [core[(number * 7 + place) % len(core)] for place in range(7)]
        words += draw.choices(rare, k=5) if rare else []
        yield f"{start}: {start} {' '.join(words)} {number % 100}?"
        yield f"{start} {number % 10} {'+-=*'[number % 4]} {words[0]}."
    for tag in ("<|user|>\n", "<|assistant|>\n", "<|system|>\n"):
        yield from [tag] * (_SENTENCES // 20)


def _words(text: str) -> list[str]:
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return list(dict.fromkeys(word for line in lines for word in line.split()))


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _model(name: str, parameters: int, *, vocabulary: int, all_words: int, **architecture: Any) -> PretrainedModel:
    arguments: tuple[tuple[str, str | int | float], ...] = (
        ("name", name),
        ("vocabulary", vocabulary),
        ("all_words", all_words),
        *architecture.items(),
    )
    of_tokenizer = tuple(each for each in arguments if each[0] in {"vocabulary", "all_words", "context_tokens"})
    source = Builtin(function=f"{__name__}:write_model", version=1, args=arguments)
    tokenizer = Builtin(function=f"{__name__}:write_tokenizer", version=1, args=of_tokenizer)
    return PretrainedModel(
        name=name,
        sources={"model": source},
        parameters=parameters,
        pretraining_tokens=0,
        context_tokens=architecture.get("context_tokens", _CONTEXT_TOKENS),
        license="Apache-2.0",
        architecture="LlamaForCausalLM",
        tokenizer=PretrainedTokenizer(
            name=name,
            sources={"tokenizer": tokenizer},
            special_tokens=SpecialTokens(bos=_SPECIAL[_BOS], eos=_SPECIAL[_EOS], pad=_SPECIAL[_PAD]),
        ),
        config=_config(vocabulary=vocabulary, **architecture),
        tuned_embedding_rows=vocabulary,
    )


FAMILY = Family(
    name="tiny",
    title="Untrained Llamas for CPUs",
    citation="the architecture of Touvron et al., LLaMA, arXiv:2302.13971; the weights are random",
    models=(
        # With initializer_range 0.02, the usual one, so small a model learns far slower.
        _model(
            "tiny",
            parameters=350_688,
            vocabulary=1344,
            hidden=96,
            layers=2,
            heads=3,
            feed_forward=256,
            initializer_range=0.08,
            all_words=0,
        ),
        _model(
            "tiny-10m",
            parameters=10_490_112,
            vocabulary=8192,
            hidden=256,
            layers=8,
            heads=4,
            feed_forward=1024,
            initializer_range=0.02,
            all_words=1,
        ),
        # For every benchmark: its vocabulary is large enough that MMLU's longest question takes no more than the 2,048
        # tokens that are asked, and small because drawing a token from a large one takes a CPU longer than the model.
        _model(
            "tiny-6k",
            parameters=664_192,
            vocabulary=2048,
            hidden=128,
            layers=2,
            heads=4,
            feed_forward=352,
            initializer_range=0.08,
            all_words=1,
            context_tokens=6144,
        ),
    ),
)
