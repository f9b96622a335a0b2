"""DeepSpeed around a model, with what its stage 0 lacks of the others."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.training.build_lock import building_alone
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.launching.failures import cut


def start_engine(job: TrainingJob, model: Any) -> Any:
    """The engine that trains those parameters of `model` that want gradients; all ranks call this together."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    config = copy.deepcopy(job.deepspeed)
    config["optimizer"]["params"]["torch_adam"] = not _compiles_cpu_adam(job)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=config)
    if job.profile.zero_stage == 0:
        if job.recipe.dtype == "bf16":
            _forget_trial_step(engine.optimizer)
            for parameter in trained:
                parameter.grad_dtype = torch.float32  # in which passes are summed, as `zero.py` has it elsewhere
        else:
            _tell_grad_norm(engine, trained)
    return engine


def optimizer_name(engine: Any) -> str:
    """What updates the weights: torch's `AdamW`, or DeepSpeed's `DeepSpeedCPUAdam`."""
    return type(engine.basic_optimizer).__name__


def compile_cpu_adam() -> None:
    """Compile DeepSpeed's CPU Adam where this machine has not yet, and load it; DeepSpeed takes it from there.

    Raises:
        Exception: of any kind, where it cannot be compiled.
    """
    from deepspeed.ops.op_builder import CPUAdamBuilder
    from torch.utils.cpp_extension import _get_build_directory

    builder = CPUAdamBuilder()
    with building_alone(Path(_get_build_directory(builder.name, verbose=False))):
        builder.load(verbose=False)


def _compiles_cpu_adam(job: TrainingJob) -> bool:
    """Whether the step of offloaded states is DeepSpeed's, compiled for this CPU; the same on all ranks.

    Beside a GPU it is the CPU's arithmetic that a step waits for, and the minute of compiling, once per machine, is
    soon won back. Where there is no GPU it is not, and nothing is compiled.
    """
    if not (job.profile.offload and job.profile.kernels in ("auto", "head") and torch.cuda.is_available()):
        return False
    try:
        compile_cpu_adam()
        there = 1.0
    except Exception as error:  # noqa: BLE001 - no compiler, no ninja, headers of another CUDA: each has its own
        if dist.get_rank() == 0:
            why = f"DeepSpeed's CPU Adam cannot be compiled ({type(error).__name__}: {cut(str(error))})"
            emit({"event": "note", "text": f"{why}: torch's AdamW takes the step of offloaded states"})
        there = 0.0
    everywhere = torch.tensor(there, device=torch.device("cuda", torch.cuda.current_device()))
    dist.all_reduce(everywhere, op=dist.ReduceOp.MIN)
    return bool(everywhere)


def _forget_trial_step(optimizer: Any) -> None:
    """Undo the step without gradients that DeepSpeed takes at stage 0 in bf16 to allot the optimizer's state.

    It counts: Adam's first real step would be corrected as a second one, and weights would decay once too often.
    """
    optimizer.optimizer.state.clear()
    for masters, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
        for master, weight in zip(masters, weights, strict=True):
            master.data.copy_(weight.data)


def _tell_grad_norm(engine: Any, trained: list[torch.nn.Parameter]) -> None:
    """Let stage 0 in fp32 say the norm of the gradients; it clips them, where it is to, and forgets it."""

    def clip(*_: object) -> None:
        norms = [torch.linalg.vector_norm(each.grad, dtype=torch.float64) for each in trained if each.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        if engine.gradient_clipping() > 0:
            torch.nn.utils.clip_grads_with_norm_(trained, engine.gradient_clipping(), norm)
        engine._global_grad_norm = float(norm)

    engine.clip_fp32_gradients = lambda: None  # which it calls only where it is to clip
    engine.optimizer.register_step_pre_hook(clip)
