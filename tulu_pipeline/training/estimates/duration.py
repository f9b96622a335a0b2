"""How long a finetuning takes: from an earlier one like it, else from its operations and an assumed utilization."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.estimates.flops import peak_flops, training_flops
from tulu_pipeline.training.estimates.shape import ModelShape

# What trainers of 7B models report for 2,048 tokens lies between 0.4 and 0.65 of the peak; 4-bit weights are also
# unpacked in each pass. Printed as assumptions wherever a time follows from them.
ASSUMED_MFU = 0.40
ASSUMED_MFU_4BIT = 0.25

# Of a profile: what an earlier training must share for its speed to say something of the next; ranks scale it.
_SAME_PROFILE = (
    "zero_stage",
    "offload",
    "gradient_checkpointing",
    "kernels",
    "layout",
    "micro_batch_conversations",
    "row_tokens",
    "threads_per_rank",
)
_SAME_RECIPE = ("max_length_tokens", "dtype", "lora", "batch_plan")


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Of a training.

    Attributes:
        seconds: of its steps; None where nothing says.
        source: what the number follows from, in words.
    """

    seconds: float | None
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierTraining:
    """A finished finetuning, as its manifest has it.

    Attributes:
        name: the artifact's.
        same_model: whether it began from the model in question.
        recipe: of its identity.
        profile: of its provenance.
        metrics: of its manifest.
    """

    name: str
    same_model: bool
    recipe: Mapping[str, Any]
    profile: Mapping[str, Any]
    metrics: Mapping[str, Any]


def from_earlier(
    earlier: Iterable[EarlierTraining], tokens: int, recipe: Mapping[str, Any], profile: Profile, device: str
) -> Duration | None:
    """The time by the speed of the last training like it; None where there is none.

    Like it: the same model, device, length and layout. With another number of ranks the speed is scaled by that.

    Args:
        earlier: oldest first.
        tokens: to train on.
        recipe: as identities have it.
        profile: of the training.
        device: name of what computes.
    """
    ranks = profile.ranks * profile.nodes
    like = [each for each in earlier if _is_like(each, recipe, profile, device)]
    if not like:
        return None
    best = max(enumerate(like), key=lambda found: (_ranks(found[1]) == ranks, found[0]))[1]
    speed = float(best.metrics["tokens_per_second"])
    if _ranks(best) == ranks:
        return Duration(seconds=tokens / speed, source=f"measured: {best.name}, {speed:,.0f} tokens/s here")
    scaled = speed * ranks / _ranks(best)
    source = f"measured: {best.name}, {speed:,.0f} tokens/s with {_ranks(best)} ranks, scaled to {ranks}"
    return Duration(seconds=tokens / scaled, source=source)


def from_flops(
    shape: ModelShape,
    recipe: Recipe,
    profile: Profile,
    *,
    tokens: int,
    mean_length: float,
    busy_share: float | None,
    device: str,
) -> Duration:
    """The time by operations over peak, utilization and ranks; of ranks that wait for each other, by their busy share.

    Args:
        shape: of the model.
        recipe: adapters.
        profile: ranks and gradient checkpointing, which computes the forward pass again.
        tokens: to train on.
        mean_length: of a conversation; attention is counted as if all had it.
        busy_share: see `workload.Workload`; None counts as 1.
        device: name of the GPU, "" where there is none.
    """
    peak = peak_flops(device) if device else None
    if peak is None or recipe.dtype != "bf16":
        why = f"no peak in bf16 is known for `{device}`" if device and recipe.dtype == "bf16" else "no GPU in bf16"
        return Duration(seconds=None, source=f"unknown: {why}; the first training like it is measured")
    lora = recipe.lora
    mfu = ASSUMED_MFU if lora is None or lora.quantization == "none" else ASSUMED_MFU_4BIT
    adapters = 0 if lora is None else shape.adapter_parameters(lora.rank, lora.target_modules)
    conversations = tokens / mean_length
    flops = conversations * training_flops(
        shape, [mean_length], adapter_parameters=adapters, recompute=profile.gradient_checkpointing
    )
    ranks = profile.ranks * profile.nodes
    seconds = flops / (peak * ranks * mfu * (busy_share or 1.0))
    source = f"assumed: {mfu:.0%} of {peak / 1e12:,.0f} TFLOP/s (bf16, dense) on each of {ranks} × {device}"
    return Duration(seconds=seconds, source=source)


def _is_like(earlier: EarlierTraining, recipe: Mapping[str, Any], profile: Profile, device: str) -> bool:
    return (
        earlier.same_model
        and bool(device)
        and earlier.metrics.get("device") == device
        and bool(earlier.metrics.get("tokens_per_second"))
        and all(earlier.profile.get(name) == getattr(profile, name) for name in _SAME_PROFILE)
        and all(earlier.recipe.get(name) == recipe.get(name) for name in _SAME_RECIPE)
    )


def _ranks(earlier: EarlierTraining) -> int:
    return int(earlier.profile.get("ranks", 1)) * int(earlier.profile.get("nodes", 1))
