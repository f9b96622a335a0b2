"""What to change where a finetuning does not fit: the fewest settings of the profile with which it does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flows.dry_run_device import Device
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Lora, Recipe

if TYPE_CHECKING:
    from tulu_pipeline.training.estimates.memory import MemoryEstimate
    from tulu_pipeline.training.estimates.shape import ModelShape
    from tulu_pipeline.training.estimates.workload import Workload

_GIB = 2**30
_NODES = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A finetuning on a device.

    Attributes:
        shape: of the model.
        recipe: how it is tuned.
        profile: how wide.
        device: what a rank computes on.
        workload: what it trains on; None where that is not known.
    """

    shape: ModelShape
    recipe: Recipe
    profile: Profile
    device: Device
    workload: Workload | None

    def pass_tokens(self) -> int:
        """Of the largest forward pass of a rank."""
        from tulu_pipeline.training.estimates.workload import largest_pass

        recipe, work = self.recipe, self.workload
        if work is None:
            return largest_pass(recipe, self.profile, recipe.max_length_tokens, recipe.conversations_per_step)
        return largest_pass(recipe, self.profile, work.longest, work.epoch_conversations)

    def memory(self) -> MemoryEstimate:
        """What a rank takes."""
        from tulu_pipeline.training.estimates.memory import memory_estimate
        from tulu_pipeline.training.zero import deepspeed_config

        return memory_estimate(
            self.shape,
            self.recipe,
            self.profile,
            deepspeed_config(self.recipe, self.profile),
            pass_tokens=self.pass_tokens(),
            cuda=self.device.is_gpu,
        )

    def excess(self) -> float:
        """Bytes that a rank takes above what it has; without bound where the settings contradict each other."""
        bound = self.device.memory_bytes
        if self.profile.offload and not self.profile.zero_stage:
            return float("inf")
        return self.memory().peak - bound if bound is not None else -float("inf")

    def changed(self, changes: Mapping[str, Any]) -> Case:
        """With other settings of the profile. Ranks on a processor share its memory."""
        profile = replace(self.profile, **changes)
        bound = self.device.memory_bytes
        if bound is None or self.device.is_gpu:
            return replace(self, profile=profile)
        device = replace(self.device, memory_bytes=bound * self.profile.ranks // profile.ranks)
        return replace(self, profile=profile, device=device)


def what_fits(case: Case) -> str:
    """What to write so that it fits: in the profile, else in the recipe too."""
    if (changes := _fitting(case)) is not None:
        return f"it does not fit; {_told(case, changes)}"
    for lora, words in (
        (Lora(), "adapters (recipe.lora)"),
        (Lora(quantization="nf4"), "adapters on 4-bit weights (recipe.lora, quantization nf4)"),
    ):
        if case.recipe.lora is not None and lora.quantization in ("none", case.recipe.lora.quantization):
            continue
        stage = case.profile.zero_stage if lora.quantization == "none" else min(case.profile.zero_stage, 2)
        profile = replace(case.profile, zero_stage=stage)
        lighter = replace(case, recipe=replace(case.recipe, lora=lora), profile=profile)
        if (changes := _fitting(lighter)) is not None:
            if profile != case.profile:
                changes = {"zero_stage": stage, **changes}
            return f"it does not fit, whatever the profile; {_told(lighter, changes, words)}"
    larger = "larger GPUs" if case.device.is_gpu else "a machine with more memory, or with GPUs"
    return f"it does not fit, whatever the profile: take {larger}, a smaller model or a lower max_length_tokens"


def _fitting(case: Case) -> dict[str, Any] | None:
    """Changes of the profile, none of which could be left out; None where nothing helps."""
    changes: dict[str, Any] = {}
    if case.excess() <= 0:
        return changes
    for candidate in _candidates(case):
        tried = changes | candidate
        if "offload" in candidate:
            tried.pop("nodes", None)
        if case.changed(tried).excess() >= case.changed(changes).excess():
            continue  # it saves nothing
        changes = tried
        if case.changed(changes).excess() > 0:
            continue
        for needed in list(changes):
            fewer = {each: was for each, was in changes.items() if each != needed}
            if case.changed(fewer).excess() <= 0:
                changes = fewer
        return changes
    return None


def _candidates(case: Case) -> Iterator[dict[str, Any]]:
    """Settings, from those that cost the least time on."""
    recipe, profile = case.recipe, case.profile
    if profile.layout == "padded":
        yield {"micro_batch_conversations": 1}
    else:
        yield {"row_tokens": recipe.max_length_tokens}  # a row holds the longest conversation, whatever it says
    yield {"gradient_checkpointing": True}
    stage = 3 if recipe.lora is None or recipe.lora.quantization == "none" else 2
    yield {"zero_stage": stage}
    if not case.device.is_gpu:  # offload moves nothing there, and its ranks share what there is
        yield {"ranks": 1}
        return
    for factor in _NODES:
        yield {"nodes": profile.nodes * factor}
    yield {"zero_stage": stage, "offload": True}


def _told(case: Case, changes: Mapping[str, Any], recipe: str = "") -> str:
    memory = case.changed(changes).memory()
    profile = ", ".join(f"{name} = {str(value).lower()}" for name, value in changes.items())
    how = " and ".join(filter(None, (recipe, f"{profile} in the profile" if profile else "")))
    on_cpu = f" and {memory.cpu / _GIB:.0f} GiB of the CPU's for each" if memory.cpu else ""
    return f"with {how} it takes {memory.peak / _GIB:.1f} GiB{on_cpu}"
