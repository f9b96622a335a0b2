"""DeepSpeed around a model, with what its stage 0 lacks of the others."""

from __future__ import annotations

from typing import Any

import deepspeed
import torch

from tulu_pipeline.training.job import TrainingJob


def start_engine(job: TrainingJob, model: Any) -> Any:
    """The engine that trains those parameters of `model` that want gradients; all ranks call this together."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=job.deepspeed)
    if job.profile.zero_stage == 0:
        if job.recipe.dtype == "bf16":
            _forget_trial_step(engine.optimizer)
            for parameter in trained:
                parameter.grad_dtype = torch.float32  # in which passes are summed, as `zero.py` has it elsewhere
        else:
            _tell_grad_norm(engine, trained)
    return engine


def _forget_trial_step(optimizer: Any) -> None:
    """Undo the step without gradients that DeepSpeed takes at stage 0 in bf16 to allot the optimizer's state.

    It counts: Adam's first real step would be corrected as a second one, and weights would decay once too often.
    """
    optimizer.optimizer.state.clear()
    for copies, weights in zip(optimizer.fp32_groups, optimizer.fp16_groups, strict=True):
        for copy, weight in zip(copies, weights, strict=True):
            copy.data.copy_(weight.data)


def _tell_grad_norm(engine: Any, trained: list[torch.nn.Parameter]) -> None:
    """Let stage 0 in fp32 say the norm of the gradients; it clips them and forgets it."""

    def clip() -> None:
        norms = [torch.linalg.vector_norm(each.grad, dtype=torch.float64) for each in trained if each.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        torch.nn.utils.clip_grads_with_norm_(trained, engine.gradient_clipping(), norm)
        engine._global_grad_norm = float(norm)

    engine.clip_fp32_gradients = clip
