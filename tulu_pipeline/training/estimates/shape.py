"""A model's shape from its `config.json`: what its parameters, FLOPs and activations are counted from.

Exact for the architectures named below: the tests build such models with transformers and compare every count. An
architecture that is not among them has no shape here, rather than a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tulu_pipeline.errors import unknown_name

Norm = Literal["rms", "layer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer, by the name it has in the model.

    Attributes:
        name: of the module, without the block's.
        inputs, outputs: its matrix.
        reads: what it reads; layers that read the same share it.
        read_is_kept: whether that is kept for the backward pass of what made it, so that the layer keeps nothing.
        bias: whether it has one.
    """

    name: str
    inputs: int
    outputs: int
    reads: str = ""
    read_is_kept: bool = False
    bias: bool = False

    @property
    def parameters(self) -> int:
        """Of the matrix and the bias."""
        return self.inputs * self.outputs + (self.outputs if self.bias else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """A decoder-only transformer in numbers.

    Attributes:
        model_type: of transformers, such as `llama`.
        layers: transformer blocks.
        hidden: width of the stream between blocks.
        heads, key_value_heads: query heads, and those for keys and values.
        head_size: width of a head.
        feed_forward: inner width of the feed-forward part.
        gated: whether that part has a gate beside its way up, as Llama's.
        norm: what normalizes the stream.
        vocabulary: rows of the embeddings.
        context: longest sequence that the config claims.
        linears: the linear layers of one block.
        layer_vectors: parameters of one block that are no linear layer: its norms.
        embedding_parameters: of the input embeddings, learned positions included.
        positions: rows of learned position embeddings, 0 where positions are rotary.
        outside: linear layers outside the blocks and beside the head (OPT's projections in and out).
        final_vectors: parameters of the last norm.
        tied: whether the output head is the input embeddings.
        head: the output head, `vocabulary` wide.
        window: keys that a query sees at most in `windowed_layers` of the layers.
        windowed_layers: how many those are.
    """

    model_type: str
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    head_size: int
    feed_forward: int
    gated: bool
    norm: Norm
    vocabulary: int
    context: int
    linears: tuple[Linear, ...]
    layer_vectors: int
    embedding_parameters: int
    positions: int
    outside: tuple[Linear, ...]
    final_vectors: int
    tied: bool
    head: Linear
    window: int = 0
    windowed_layers: int = 0

    @property
    def layer_parameters(self) -> int:
        """Of one block."""
        return sum(linear.parameters for linear in self.linears) + self.layer_vectors

    @property
    def parameters(self) -> int:
        """All of them, a tied head counted once: what `model.parameters()` sums up to."""
        around = self.embedding_parameters + self.final_vectors + sum(each.parameters for each in self.outside)
        return self.layers * self.layer_parameters + around + (0 if self.tied else self.head.parameters)

    @property
    def multiplied_parameters(self) -> int:
        """Weights that each token is multiplied with, head included, embeddings not: the N of 6N FLOPs."""
        blocks = self.layers * sum(each.inputs * each.outputs for each in self.linears)
        around = sum(each.inputs * each.outputs for each in (*self.outside, self.head))
        return blocks + around

    def adapter_parameters(self, rank: int, target_modules: tuple[str, ...] = ()) -> int:
        """Parameters of low-rank adapters of `rank` on the blocks' linear layers with these names; () for all.

        An adapter of a layer from I to O is a matrix from I to `rank` and one from `rank` to O (Hu et al., LoRA,
        arXiv:2106.09685, section 4.1).

        Raises:
            NotFound: no linear layer has such a name.
        """
        linears = {each.name: each for each in (*self.linears, *self.outside)}
        for name in target_modules:
            if name not in linears:
                raise unknown_name("linear layer", name, linears, f"recipe.lora, a `{self.model_type}`")
        return sum(
            rank * (each.inputs + each.outputs) * (self.layers if each in self.linears else 1)
            for each in linears.values()
            if not target_modules or each.name in target_modules
        )


def model_shape(config: Mapping[str, Any]) -> ModelShape:
    """The shape that a `config.json` describes; what it leaves out is what transformers takes.

    Raises:
        NotFound: of an architecture that is not known here.
    """
    kind = str(config.get("model_type", ""))
    if kind not in _FAMILIES:
        raise unknown_name("architecture", kind, _FAMILIES, "config.json")
    return _FAMILIES[kind](config)


def likely_shape(parameters: int, context_tokens: int) -> ModelShape:
    """A Llama with about so many parameters, for estimates where nothing says how a model is built.

    In LLaMA's proportions: heads of 128, a block for each 128 of width, a feed-forward part of 8/3 of it.
    """

    def of_width(blocks: int) -> ModelShape:
        hidden = 128 * blocks
        return model_shape(
            {
                "model_type": "llama",
                "vocab_size": 32_000,
                "hidden_size": hidden,
                "num_hidden_layers": blocks,
                "num_attention_heads": blocks,
                "intermediate_size": round(hidden * 8 / 3),
                "max_position_embeddings": context_tokens,
            }
        )

    return min(map(of_width, range(1, 256)), key=lambda shape: abs(shape.parameters - parameters))


def known_architectures() -> tuple[str, ...]:
    """The `model_type`s that have a shape."""
    return tuple(_FAMILIES)


def _llama(config: Mapping[str, Any]) -> ModelShape:
    """Llama and what differs from it in biases, norms and windows alone."""
    kind = config["model_type"]
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    key_value_heads = config.get("num_key_value_heads") or (8 if kind == "mistral" else heads)
    # Qwen3 has heads of 128 whatever the width; the others share the width out.
    head_size = config.get("head_dim") or (128 if kind == "qwen3" else hidden // heads)
    inner, vocabulary = config["intermediate_size"], config["vocab_size"]
    query, key = heads * head_size, key_value_heads * head_size
    bias = kind == "qwen2" or (kind in {"llama", "qwen3", "olmo2"} and bool(config.get("attention_bias")))
    out_bias = bias and kind != "qwen2"
    mlp_bias = kind == "llama" and bool(config.get("mlp_bias"))
    vectors = 2 * hidden
    if kind == "qwen3":
        vectors += 2 * head_size
    if kind == "olmo2":
        vectors += query + key
    window, windowed = _window(config, layers)
    return ModelShape(
        model_type=kind,
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=key_value_heads,
        head_size=head_size,
        feed_forward=inner,
        gated=True,
        norm="rms",
        vocabulary=vocabulary,
        context=config.get("max_position_embeddings", 2048),
        linears=(
            Linear(name="q_proj", reads="attention norm", inputs=hidden, outputs=query, bias=bias),
            Linear(name="k_proj", reads="attention norm", inputs=hidden, outputs=key, bias=bias),
            Linear(name="v_proj", reads="attention norm", inputs=hidden, outputs=key, bias=bias),
            Linear(name="o_proj", reads="attention", read_is_kept=True, inputs=query, outputs=hidden, bias=out_bias),
            Linear(name="gate_proj", reads="feed-forward norm", inputs=hidden, outputs=inner, bias=mlp_bias),
            Linear(name="up_proj", reads="feed-forward norm", inputs=hidden, outputs=inner, bias=mlp_bias),
            Linear(name="down_proj", reads="feed-forward", inputs=inner, outputs=hidden, bias=mlp_bias),
        ),
        layer_vectors=vectors,
        embedding_parameters=vocabulary * hidden,
        positions=0,
        outside=(),
        final_vectors=hidden,
        tied=bool(config.get("tie_word_embeddings", False)),
        head=Linear(name="lm_head", inputs=hidden, outputs=vocabulary),
        window=window,
        windowed_layers=windowed,
    )


def _opt(config: Mapping[str, Any]) -> ModelShape:
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    vocabulary, inner, context = config["vocab_size"], config["ffn_dim"], config.get("max_position_embeddings", 2048)
    width = config.get("word_embed_proj_dim") or hidden
    bias = config.get("enable_bias", True)
    norm = 2 * hidden if config.get("layer_norm_elementwise_affine", True) else 0
    last = config.get("do_layer_norm_before", True) and not config.get("_remove_final_layer_norm", False)
    positions = context + 2  # the first two are never used
    return ModelShape(
        model_type="opt",
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=heads,
        head_size=hidden // heads,
        feed_forward=inner,
        gated=False,
        norm="layer",
        vocabulary=vocabulary,
        context=context,
        linears=(
            *(
                Linear(name=name, reads="attention norm", inputs=hidden, outputs=hidden, bias=bias)
                for name in ("q_proj", "k_proj", "v_proj")
            ),
            Linear(name="out_proj", reads="attention", read_is_kept=True, inputs=hidden, outputs=hidden, bias=bias),
            Linear(name="fc1", reads="feed-forward norm", inputs=hidden, outputs=inner, bias=bias),
            Linear(name="fc2", reads="feed-forward", read_is_kept=True, inputs=inner, outputs=hidden, bias=bias),
        ),
        layer_vectors=2 * norm,
        embedding_parameters=vocabulary * width + positions * hidden,
        positions=positions,
        outside=()
        if width == hidden
        else (
            Linear(name="project_in", inputs=width, outputs=hidden),
            Linear(name="project_out", inputs=hidden, outputs=width),
        ),
        final_vectors=norm if last else 0,
        tied=bool(config.get("tie_word_embeddings", True)),
        head=Linear(name="lm_head", inputs=width, outputs=vocabulary),
    )


def _gpt_neox(config: Mapping[str, Any]) -> ModelShape:
    hidden, layers, heads = config["hidden_size"], config["num_hidden_layers"], config["num_attention_heads"]
    vocabulary, inner = config["vocab_size"], config["intermediate_size"]
    bias = config.get("attention_bias", True)
    return ModelShape(
        model_type="gpt_neox",
        layers=layers,
        hidden=hidden,
        heads=heads,
        key_value_heads=heads,
        head_size=hidden // heads,
        feed_forward=inner,
        gated=False,
        norm="layer",
        vocabulary=vocabulary,
        context=config.get("max_position_embeddings", 2048),
        linears=(
            Linear(name="query_key_value", reads="attention norm", inputs=hidden, outputs=3 * hidden, bias=bias),
            Linear(name="dense", reads="attention", read_is_kept=True, inputs=hidden, outputs=hidden, bias=bias),
            Linear(name="dense_h_to_4h", reads="feed-forward norm", inputs=hidden, outputs=inner, bias=True),
            Linear(name="dense_4h_to_h", reads="feed-forward", inputs=inner, outputs=hidden, bias=True),
        ),
        layer_vectors=4 * hidden,
        embedding_parameters=vocabulary * hidden,
        positions=0,
        outside=(),
        final_vectors=2 * hidden,
        tied=bool(config.get("tie_word_embeddings", False)),
        head=Linear(name="lm_head", inputs=hidden, outputs=vocabulary),
    )


def _window(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """Keys a query sees at most, and in how many layers."""
    window = config.get("sliding_window") or 0
    if config["model_type"] == "mistral":
        return window, layers if window else 0
    sliding = sum(kind == "sliding_attention" for kind in config.get("layer_types") or ())
    return (window, sliding) if window and sliding else (0, 0)


_FAMILIES: dict[str, Callable[[Mapping[str, Any]], ModelShape]] = {
    "llama": _llama,
    "mistral": _llama,
    "olmo2": _llama,
    "qwen2": _llama,
    "qwen3": _llama,
    "opt": _opt,
    "gpt_neox": _gpt_neox,
}
