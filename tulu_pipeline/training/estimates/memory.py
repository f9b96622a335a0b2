"""What a finetuning takes of each GPU's memory, before it is started.

States follow Rajbhandari et al. (ZeRO, arXiv:1910.02054, section 3.1): with bf16 weights, 2 bytes of weights and 12 of
optimizer (fp32 copy, two moments) for each trained parameter, and of gradients 4 in place of their 2, since they are
summed in fp32 here; ZeRO-1 splits the optimizer over the ranks, ZeRO-2 the gradients too, ZeRO-3 the weights too.
Activations are counted as Korthikanti et al. do (arXiv:2205.05198, section 4): tensor by tensor, what the backward
pass of a block needs; not with their constants, which are GPT's, but with those of the blocks as transformers computes
them, and without scores of T x T, which no attention used here keeps. The tests compare all of it with real tensors:
states and peaks under DeepSpeed, activations with what autograd keeps.

Letters: N parameters, T tokens of a forward pass, V vocabulary, R ranks; e bytes of a number (2 in bf16, 4 in fp32).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Lora, Recipe
from tulu_pipeline.training.estimates.shape import Linear, ModelShape

GIB = 2**30
# What a process takes on a GPU before its first tensor, with NCCL; and what the allocator cannot use of what it holds.
# Nobody's formula: round numbers of experience, printed as assumptions.
CONTEXT_BYTES = GIB
FRAGMENTATION_SHARE = 0.05

CHUNK_ELEMENTS = 2**25  # of `output_head`, which only a process with torch can import

_FP32 = 4
_MOMENTS = 8  # two of AdamW, fp32
_IDS = 32  # of a token: itself, its place, its target, its weight
_NF4_BLOCK, _SCALES_BLOCK = 64, 256  # weights that share a scale; scales that share one (Dettmers et al., 2305.14314)
_DDP_BUCKET_ELEMENTS = 500_000_000  # DeepSpeed's own for gradients without ZeRO
_PERSISTENT_ELEMENTS = 100_000  # DeepSpeed's own; so small a parameter is not split


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEstimate:
    """Bytes on one GPU (or of one rank, where there is none) at the peak.

    Attributes:
        weights: that stay; under ZeRO-3 a rank's share.
        gradients: between backward passes.
        optimizer: fp32 weights and moments.
        communication: buckets, and under ZeRO-3 the weights that are whole: small ones, and those gathered for the
            layers at work and the next ones.
        activations: what the backward pass needs of the forward pass, of the largest pass.
        logits: of that pass, with their gradients.
        step: what the optimizer step needs for a moment, when activations are gone.
        cpu: offloaded states of this rank, in the memory of the machine.
    """

    weights: int
    gradients: int
    optimizer: int
    communication: int
    activations: int
    logits: int
    step: int
    cpu: int

    @property
    def tensors(self) -> int:
        """At the peak: what stays, and the larger of a backward pass and the optimizer step."""
        lasting = self.weights + self.gradients + self.optimizer
        return lasting + max(self.communication + self.activations + self.logits, self.step)

    @property
    def peak(self) -> int:
        """With the process's own and what the allocator cannot use: what the device needs."""
        return round(self.tensors * (1 + FRAGMENTATION_SHARE)) + CONTEXT_BYTES


def memory_estimate(
    shape: ModelShape,
    recipe: Recipe,
    profile: Profile,
    deepspeed: Mapping[str, Any],
    *,
    pass_tokens: int,
    cuda: bool = True,
) -> MemoryEstimate:
    """What one rank needs at the peak.

    Args:
        shape: of the model.
        recipe: adapters, quantization, type of the weights.
        profile: ranks, ZeRO stage, offload, gradient checkpointing, layout.
        deepspeed: its configuration, of `training.zero`.
        pass_tokens: of the largest forward pass of a rank, padding included; all of them taken as supervised.
        cuda: whether it is a GPU of a generation with flash attention; a CPU keeps the parts of a row's attention,
            and masks of dropout in full width.
    """
    activations = activation_bytes(shape, recipe, profile, pass_tokens, cuda=cuda)
    logits = logits_bytes(shape, recipe, profile, pass_tokens)
    states = _states(shape, recipe, profile, deepspeed, cuda=cuda)
    return MemoryEstimate(**states, activations=activations, logits=logits)


def trained_parameters(shape: ModelShape, lora: Lora | None) -> int:
    """Those that have a gradient: all, or the adapters'."""
    return shape.parameters if lora is None else shape.adapter_parameters(lora.rank, lora.target_modules)


def weight_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """The whole model once, adapters included; quantized where the recipe says so."""
    width, lora = _width(recipe), recipe.lora
    if lora is None:
        return width * shape.parameters
    adapters = width * shape.adapter_parameters(lora.rank, lora.target_modules)
    if lora.quantization == "none":
        return width * shape.parameters + adapters
    quantized = shape.layers * sum(each.inputs * each.outputs for each in shape.linears)
    quantized += sum(each.inputs * each.outputs for each in shape.outside)
    scales = quantized / _NF4_BLOCK
    per_scale = 1 + _FP32 / _SCALES_BLOCK if lora.double_quantization else _FP32
    return round(quantized / 2 + scales * per_scale) + width * (shape.parameters - quantized) + adapters


def checkpoint_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """The exported checkpoint: merged, in the type of the recipe."""
    return _width(recipe) * shape.parameters


def resumable_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """One saved state, over all ranks: the weights that are trained, their fp32 copies and moments."""
    trained = trained_parameters(shape, recipe.lora)
    return trained * (_width(recipe) + _FP32 + _MOMENTS)


def logits_bytes(shape: ModelShape, recipe: Recipe, profile: Profile, positions: int) -> int:
    """Of the loss at its peak, in fp32.

    Taken at the output layer (`kernels = "auto"`): logits of a chunk and as much again, and the gradient of the layer's
    weight. From all logits: log probabilities, their gradient and that of the logits.
    """
    if profile.kernels not in ("auto", "head"):
        return 3 * _FP32 * positions * shape.vocabulary
    weight = shape.head.inputs * shape.vocabulary if recipe.lora is None else 0
    return 2 * _FP32 * min(positions * shape.vocabulary, CHUNK_ELEMENTS) + _FP32 * weight


def activation_bytes(
    shape: ModelShape, recipe: Recipe, profile: Profile, tokens: int, *, cuda: bool, between_passes: bool = False
) -> int:
    """What the backward pass of `tokens` tokens needs of the forward pass.

    Args:
        shape: of the model.
        recipe: adapters and type of the weights.
        profile: layout and gradient checkpointing.
        tokens: of the pass.
        cuda: see `memory_estimate`.
        between_passes: what is kept after the forward pass alone: with gradient checkpointing the input of each
            block, without the one block that is computed again.
    """
    width = _width(recipe)
    block = _block_bytes(shape, recipe, profile, tokens, cuda=cuda)
    around = _IDS + (width * shape.hidden if recipe.lora is None else 0)  # what the output layer reads
    around += _norm_bytes(shape, width, trained=recipe.lora is None)
    if not profile.gradient_checkpointing:
        return tokens * (shape.layers * block + around)
    kept = shape.layers * width * shape.hidden
    return tokens * (kept + around + (0 if between_passes else block))


def _block_bytes(shape: ModelShape, recipe: Recipe, profile: Profile, tokens: int, *, cuda: bool) -> int:
    """Of one block, for each token."""
    width, lora = _width(recipe), recipe.lora
    full = lora is None
    query, key = shape.heads * shape.head_size, shape.key_value_heads * shape.head_size
    mask = 0
    if profile.layout == "padded":
        # With a mask for padding transformers repeats keys and values, and torch makes numbers of the mask: for each
        # token one for each of its row.
        key, mask = query, width * -(-tokens // profile.micro_batch_conversations)
    # Queries, keys, values and what comes out; log-sums of scores in fp32, one for each head.
    kept = width * (2 * query + 2 * key) + _FP32 * shape.heads + mask
    norms = 1 if shape.model_type == "gpt_neox" else 2  # both of its norms read the same
    norm = _norm_bytes(shape, width, trained=full)
    kept += norm * 2 if shape.norm == "rms" else norm * norms
    # The gate before and after its activation, and the way up; or what the activation needs, before or after it.
    kept += width * (3 if shape.gated else 1) * shape.feed_forward
    if shape.model_type == "gpt_neox":
        kept += width * 2 * query  # its values are a part of queries, keys and values together
    kept += _dropout_bytes(shape, width, cuda=cuda)
    # Without flash attention over a whole row, what comes out is put together from parts; a CPU also copies GPT-NeoX's.
    # What is read next is then another tensor.
    copied = profile.layout == "step" and not (cuda and profile.kernels != "torch")
    copied = copied or (not cuda and shape.model_type == "gpt_neox")
    return kept + _read_bytes(shape, recipe, cuda=cuda, copied=copied)


def _norm_bytes(shape: ModelShape, width: int, *, trained: bool) -> int:
    """Of one norm, for each token.

    `rms` reads fp32 (a copy, in bf16) and keeps what it normalized where its own weight is trained; `layer` keeps
    what it reads.
    """
    if shape.norm == "layer":
        return width * shape.hidden + 2 * width
    return _FP32 * shape.hidden + _FP32 + (width * shape.hidden if trained else 0)


def _dropout_bytes(shape: ModelShape, width: int, *, cuda: bool) -> int:
    """OPT drops out what comes out of attention and of the feed-forward part; the others of the paper do not."""
    return 2 * shape.hidden * (1 if cuda else width) if shape.model_type == "opt" else 0


def _read_bytes(shape: ModelShape, recipe: Recipe, *, cuda: bool, copied: bool) -> int:
    """What linear layers keep of what they read, where that is not kept already, for each token."""
    width, lora = _width(recipe), recipe.lora
    readers = shape.linears
    if lora is not None and lora.target_modules:
        readers = tuple(each for each in readers if each.name in lora.target_modules)
    if lora is not None and lora.dropout:
        # Each adapter drops out for itself: a mask, and what is left.
        mask = 1 if cuda else width
        return sum(each.inputs * (width + mask) + width * lora.rank for each in readers)
    read = {
        each.reads: each.inputs for each in readers if not each.read_is_kept or (copied and each.reads == "attention")
    }
    return width * (sum(read.values()) + (lora.rank * len(readers) if lora is not None else 0))


def _states(
    shape: ModelShape, recipe: Recipe, profile: Profile, deepspeed: Mapping[str, Any], *, cuda: bool
) -> dict[str, int]:
    """Weights, gradients, optimizer, communication, step and what lies on the CPU."""
    zero: Mapping[str, Any] = deepspeed["zero_optimization"]
    width, ranks, stage = _width(recipe), profile.ranks * profile.nodes, profile.zero_stage
    trained = trained_parameters(shape, recipe.lora)
    own = -(-trained // ranks) if stage else trained  # what a rank updates
    weights = weight_bytes(shape, recipe)
    # Summed in fp32 over a step's passes. ZeRO-1 in bf16 is another optimizer of DeepSpeed's, which keeps both.
    gradients = (_FP32 if stage != 1 or recipe.dtype == "fp32" else _FP32 + width) * (trained if stage < 2 else own)
    optimizer = _MOMENTS * own if stage == 0 and recipe.dtype == "fp32" else (_FP32 + _MOMENTS) * own
    bucket = width * min(int(zero["reduce_bucket_size"]), trained)
    communication = 0
    if stage in (1, 2):
        communication = bucket * (2 if zero.get("overlap_comm") else 1)
    elif stage == 3:
        small = _persistent_elements(shape, zero)
        gathered = width * min(int(zero["stage3_max_live_parameters"]), shape.parameters - small)
        communication = width * small + min(gathered, weights) + bucket
        weights = -(-weights // ranks)
    step = _step_bytes(recipe, own, zero, stage, cuda=cuda)
    if stage == 0 and ranks > 1:
        step = max(step, width * min(trained, _DDP_BUCKET_ELEMENTS))
    cpu = 0
    if profile.offload:
        cpu, optimizer, gradients, step = optimizer + gradients, 0, gradients if stage == 1 else 0, 0
        if stage == 3:
            cpu, weights = cpu + weights, 0
    return {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer,
        "communication": communication,
        "step": step,
        "cpu": cpu,
    }


def _step_bytes(recipe: Recipe, updated: int, zero: Mapping[str, Any], stage: int, *, cuda: bool) -> int:
    """What AdamW needs for what is updated at once: a copy of its gradients in some stages, and its denominators.

    Those are of all parameters on a GPU, where torch updates them together; a CPU takes one parameter after the other,
    which is small without ZeRO and a rank's whole part with it, and needs twice as much for it.
    """
    if stage == 3:
        updated = min(updated, int(zero["sub_group_size"]))
    copied = stage == 3 or (stage == 0 and recipe.dtype == "bf16") or (stage == 2 and recipe.dtype == "fp32")
    denominators = 1 if cuda else 2 if stage else 0
    return _FP32 * updated * (denominators + copied)


def _persistent_elements(shape: ModelShape, zero: Mapping[str, Any]) -> int:
    """Parameters so small that ZeRO-3 keeps them whole on every rank."""
    threshold = int(zero.get("stage3_param_persistence_threshold", _PERSISTENT_ELEMENTS))

    def small(linear: Linear) -> int:
        sizes = (linear.inputs * linear.outputs, linear.outputs if linear.bias else 0)
        return sum(size for size in sizes if size <= threshold)

    found = shape.layers * (sum(map(small, shape.linears)) + shape.layer_vectors) + shape.final_vectors
    found += sum(map(small, shape.outside))
    if shape.embedding_parameters <= threshold:
        found += shape.embedding_parameters
    return found + (0 if shape.tied else small(shape.head))


def _width(recipe: Recipe) -> int:
    return 2 if recipe.dtype == "bf16" else 4
