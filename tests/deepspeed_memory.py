"""One rank that trains a small model under DeepSpeed and counts what its tensors take; for tests of the estimates.

`python deepspeed_memory.py RANK RANKS RENDEZVOUS CASES`: cases are JSON, results too, one line each.
"""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict, dataclass
from types import SimpleNamespace
from typing import Any

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 307,
    "hidden_size": 96,
    "num_hidden_layers": 5,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 200,
}
# In elements: so small that there are several buckets, and parameters on both sides of the threshold.
ZERO = {
    "reduce_bucket_size": 40_000,
    "allgather_bucket_size": 40_000,
    "stage3_prefetch_bucket_size": 40_000,
    "stage3_param_persistence_threshold": 9_300,
}
TOKENS = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes of one rank: lasting tensors between two passes of a step, and peaks above what lasts."""

    weights: int
    optimizer: int
    lasting: int
    backward: int
    step: int


def small_buckets(config: dict[str, Any], stage: int) -> dict[str, Any]:
    """DeepSpeed's configuration with buckets and thresholds for so small a model."""
    own = {name: value for name, value in ZERO.items() if name.startswith("stage3") <= (stage == 3)}
    return config | {"zero_optimization": config["zero_optimization"] | own}


def main() -> None:
    """Measure each case, one engine after the other."""
    import deepspeed
    import torch

    rank, ranks, rendezvous = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__ = {}  # nothing is compiled
    deepspeed.init_distributed(
        dist_backend="gloo",
        auto_mpi_discovery=False,
        init_method=f"file://{rendezvous}",
        rank=rank,
        world_size=ranks,
        verbose=False,
    )
    for case in json.loads(sys.argv[4]):
        measured = measure(case, ranks)
        if rank == 0:
            print("measured", json.dumps(asdict(measured)), flush=True)


def measure(case: dict[str, Any], ranks: int) -> Measured:
    """What a case takes: `{"dtype", "zero_stage", "kernels"}`."""
    import numpy as np
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from tulu_pipeline.profile import Profile
    from tulu_pipeline.specs.recipe import Recipe
    from tulu_pipeline.training.batching.batches import MicroBatch
    from tulu_pipeline.training.engine import start_engine
    from tulu_pipeline.training.model.loss import micro_batch_loss
    from tulu_pipeline.training.model.output_head import chunking_head
    from tulu_pipeline.training.zero import deepspeed_config

    recipe = Recipe(dtype=case["dtype"])
    profile = Profile(ranks=ranks, zero_stage=case["zero_stage"], kernels=case["kernels"])
    config = small_buckets(deepspeed_config(recipe, profile), profile.zero_stage)
    before = _storages()  # held: no address of theirs is used again
    rest = {name: value for name, value in CONFIG.items() if name != "model_type"}
    shape = AutoConfig.for_model(CONFIG["model_type"], **rest)
    model = AutoModelForCausalLM.from_config(
        shape, dtype={"bf16": torch.bfloat16, "fp32": torch.float32}[case["dtype"]]
    )
    engine = start_engine(SimpleNamespace(recipe=recipe, profile=profile, deepspeed=config), model)
    weights_BT = np.ones((1, TOKENS), dtype=np.float32)
    weights_BT[0, 0] = 0.0
    batch = MicroBatch(
        input_ids=np.random.default_rng(0).integers(0, CONFIG["vocab_size"], (1, TOKENS)),
        weights=weights_BT / TOKENS,
        attention_mask=np.ones((1, TOKENS), dtype=np.int64),
        boundaries=None,
    )

    head = chunking_head(model, engine, "cpu") if profile.kernels == "auto" else None

    def one_pass(*, last: bool) -> None:
        engine.set_gradient_accumulation_boundary(last)
        loss = micro_batch_loss(engine, batch, "cpu", head)
        engine.backward(loss, scale_wrt_gas=False)

    for _ in range(2):  # ZeRO-3 learns the order of the layers; the optimizer makes its moments
        one_pass(last=True)
        engine.step()
    one_pass(last=False)
    engine.step()
    lasting = {place: size for place, (size, _) in _storages().items() if place not in before}
    parameters = [getattr(each, "ds_tensor", each) for each in model.parameters()]
    weights = _bytes_of(parameters)
    inner = getattr(engine.optimizer, "optimizer", None)
    states = [each for state in (inner or engine.optimizer).state.values() for each in state.values()]
    masters = getattr(engine.optimizer, "fp32_partitioned_groups_flat", None)
    if masters is None and inner is not None:
        masters = [each for group in inner.param_groups for each in group["params"]]
    optimizer = _bytes_of(states) + _bytes_of(masters or [])
    with _Peak() as backward:
        one_pass(last=True)
    with _Peak() as step:
        engine.step()
    engine.destroy()
    for each in model.parameters():
        each.grad = None
    return Measured(
        weights=weights, optimizer=optimizer, lasting=sum(lasting.values()), backward=backward.bytes, step=step.bytes
    )


class _Peak:
    """The most that the allocator gave out at once, beyond what it had given out before."""

    def __enter__(self) -> _Peak:
        from torch.profiler import ProfilerActivity, profile

        self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
        self._profile.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._profile.__exit__(*error)
        events = [each for each in self._profile.profiler.kineto_results.events() if each.name() == "[memory]"]
        now = most = 0
        for event in sorted(events, key=lambda each: each.start_ns()):
            now += event.nbytes()
            most = max(most, now)
        self.bytes = most


def _storages() -> dict[int, tuple[int, Any]]:
    import torch

    gc.collect()
    found: dict[int, tuple[int, Any]] = {}
    every = gc.get_objects()
    every += [each.grad for each in every if type(each) is torch.nn.Parameter and each.grad is not None]
    for each in every:
        if isinstance(each, torch.Tensor) and each.device.type == "cpu" and each.layout == torch.strided:
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes(), storage
    return found


def _bytes_of(tensors: list[Any]) -> int:
    import torch

    storages = {
        each.untyped_storage().data_ptr(): each.untyped_storage().nbytes()
        for each in tensors
        if isinstance(each, torch.Tensor)
    }
    return sum(storages.values())


if __name__ == "__main__":
    main()
