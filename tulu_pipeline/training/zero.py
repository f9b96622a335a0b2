"""DeepSpeed's configuration from a recipe (what) and a profile (how wide)."""

from __future__ import annotations

from typing import Any

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe

# Elements per communication bucket. DeepSpeed's own 5e8 allots two gigabytes per rank, however small the model.
_BUCKET_ELEMENTS = 50_000_000


def deepspeed_config(recipe: Recipe, profile: Profile, *, universal: bool = False) -> dict[str, Any]:
    """The JSON that `deepspeed.initialize` takes.

    The optimizer is torch's AdamW: DeepSpeed's fused one would be compiled on the machine at start. Its learning rate
    is set step by step (`schedule.py`), so there is no scheduler here and none to restore. Steps need more or fewer
    forward passes; the worker says which is a step's last, so the numbers of samples here say nothing.

    In bf16 DeepSpeed keeps an fp32 copy of what is trained, which the optimizer updates. The gradients of a step's
    passes are summed in fp32; left to itself, as the original's configuration did, DeepSpeed sums them in the type of
    the weights, which loses what is below 1/256 of the sum. Ranks send each other what one pass gave in bf16. Stage 0
    knows no such setting; there `engine.py` sees to it.

    Args:
        recipe: what is trained.
        profile: how wide.
        universal: whether the state that is gone on from was converted, for another number of ranks.
    """
    zero: dict[str, Any] = {
        "stage": profile.zero_stage,
        "contiguous_gradients": True,
        "overlap_comm": True,
        "reduce_bucket_size": _BUCKET_ELEMENTS,
        "allgather_bucket_size": _BUCKET_ELEMENTS,
    }
    if profile.zero_stage == 3:
        del zero["allgather_bucket_size"]
        zero |= {
            "stage3_prefetch_bucket_size": _BUCKET_ELEMENTS,
            "stage3_max_live_parameters": 1_000_000_000,
            "stage3_max_reuse_distance": 1_000_000_000,
            "sub_group_size": 1_000_000_000,
            "stage3_gather_16bit_weights_on_model_save": True,
        }
    if profile.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if profile.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    summed = {} if recipe.dtype == "fp32" or profile.zero_stage == 0 else {"grad_accum_dtype": "fp32"}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": recipe.clip_norm,
        # A gradient that is no finite number ends the training (`train.py`): DeepSpeed need not look for one itself.
        "bf16": {"enabled": recipe.dtype == "bf16", "check_grad_overflow": False},
        "data_types": summed,
        "checkpoint": {"load_universal": universal},
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": recipe.learning_rate,
                "betas": [recipe.adam_beta1, recipe.adam_beta2],
                "eps": recipe.adam_epsilon,
                "weight_decay": recipe.weight_decay,
                "torch_adam": True,
            },
        },
        "zero_optimization": zero,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
