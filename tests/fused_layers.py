"""Liger's layers in Triton's interpreter: a process of its own, which prints what it finds as JSON.

Kernels are read when they are imported, so a process runs them interpreted or not at all.
"""

import fakes.triton_interpreter  # noqa: F401, I001  # before anything imports a kernel

import json
import sys
import unittest.mock
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from spawned_ranks import make_job, run_jobs, steps_of
from training_runs import PROFILE, write_arithmetic, write_tiny_model

from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.training.batching.plans import row_boundaries
from tulu_pipeline.training.model import fused_layers
from tulu_pipeline.training.model.attention import row_inputs, use_packed_attention
from tulu_pipeline.training.model.fused_layers import use_fused_layers

KERNELS = ("auto", "head")
ENTRIES = 97
LENGTHS = np.array([9, 4, 14])
SMALL = {"vocab_size": ENTRIES, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def untrained(config: Any) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config)


def llama() -> Any:
    return untrained(transformers.LlamaConfig(**SMALL, intermediate_size=48, initializer_range=0.3))


def logits_and_gradients(model: Any, **row: Any) -> list[torch.Tensor]:
    ids = torch.randint(0, ENTRIES, (1, int(LENGTHS.sum())), generator=torch.Generator().manual_seed(3))
    model.zero_grad()
    logits = model(input_ids=ids, use_cache=False, **row).logits
    logits.logsumexp(dim=-1).sum().backward()
    return [logits.detach(), *(each.grad.clone() for each in model.parameters() if each.grad is not None)]


def difference(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    """The largest, as a share of the largest number of its tensor."""
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, wanted, strict=True))


def compare(model: Any) -> dict[str, Any]:
    """A model with and without the layers: alone, and with the attention of packed rows."""
    own, names = logits_and_gradients(model), [type(each).forward for each in model.modules()]
    layers = use_fused_layers(model, model, "cpu")
    assert layers is not None
    exchanged = sum("forward" in vars(each) for each in model.modules())
    fused = logits_and_gradients(model)
    use_packed_attention(model, model, "cpu")
    row = row_inputs(row_boundaries(LENGTHS), "cpu")
    packed = logits_and_gradients(model, **row)
    layers.remove()
    assert [type(each).forward for each in model.modules()] == names
    return {
        "exchanged": exchanged,
        "left": sum("forward" in vars(each) for each in model.modules()),
        "alone": difference(fused, own),
        "packed": difference(packed, logits_and_gradients(model, **row)),
    }


def with_adapters() -> Any:
    import peft

    wanted = peft.LoraConfig(r=4, target_modules=["q_proj", "gate_proj", "down_proj"], init_lora_weights=False)
    return peft.get_peft_model(llama(), wanted)


def refused() -> dict[str, bool]:
    """By what speaks against them: whether there are layers all the same, or anything of them is left."""
    opt = untrained(transformers.OPTConfig(**SMALL, ffn_dim=64, word_embed_proj_dim=32))
    found = {"unknown architecture": use_fused_layers(opt, opt, "cpu") is not None}
    model = llama()
    with unittest.mock.patch.object(fused_layers, "_TOLERANCES", {}):
        found["other logits"] = use_fused_layers(model, model, "cpu") is not None
    with unittest.mock.patch("liger_kernel.ops.rms_norm._rms_norm_forward_kernel", None):
        found["a kernel that does not run"] = use_fused_layers(model, model, "cpu") is not None
    with unittest.mock.patch("liger_kernel.transformers.monkey_patch._patch_swiglu_module", side_effect=TypeError):
        found["half put in"] = use_fused_layers(model, model, "cpu") is not None
    return found | {"left": any("forward" in vars(each) for each in model.modules())}


def layers() -> dict[str, Any]:
    """Of single models."""
    return {"plain": compare(llama()), "adapters": compare(with_adapters()), "refused": refused()}


def trainings(folder: Path) -> dict[str, Any]:
    """Of a training under ZeRO-3 with these layers, and of one without: losses, and which layers its ranks named."""
    model = write_tiny_model(folder / "model")
    tokens = write_arithmetic(folder / "tokens", model)
    jobs = [
        make_job(
            folder / kernels,
            model,
            tokens,
            replace(PROFILE, zero_stage=3, kernels=kernels, checkpoint_every_steps=0),
            max_steps=2,
            conversations_per_step=2,
        )
        for kernels in KERNELS
    ]
    run_jobs(jobs)
    lines = (jobs[0].work / "output-0").read_text().splitlines()
    events = [json.loads(line.removeprefix(EVENT_PREFIX)) for line in lines if line.startswith(EVENT_PREFIX)]
    return {
        "named": [event["kernels"]["layers"] for event in events if event["event"] == "ready"],
        "losses": [[step.loss for step in steps_of(folder / kernels)] for kernels in KERNELS],
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if sys.argv[1:] else None
    print(json.dumps(trainings(folder) if folder else layers()))
