"""The trained model as a checkpoint that `transformers` and vLLM open, compared with the live one before it is done."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from tulu_pipeline.artifacts.child_side import emit
from tulu_pipeline.artifacts.hub_model import TOKENIZER_FILES
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.tokens.tulu_template import write_tulu_template
from tulu_pipeline.training.batching.plans import row_boundaries
from tulu_pipeline.training.job import ADAPTER_FOLDER, TrainingJob
from tulu_pipeline.training.model.adapters import merged_state, save_adapter
from tulu_pipeline.training.model.attention import PACKED, PACKED_UNFUSED, row_inputs
from tulu_pipeline.training.model.loading import DTYPES, LoadedModel

_PROBE_TOKENS = 48
# Of the largest logit: merged weights are rounded once, where base and adapter were each rounded layer by layer.
_TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
_MEASURABLE = 0.2  # of the tolerance: adapters that move the logits less, in the root of the mean square, do nothing


@dataclass(frozen=True, slots=True)
class _Answers:
    """Logits (T x V) of the trained model, and of it without its adapters."""

    adapted: torch.Tensor
    base: torch.Tensor


def export_checkpoint(engine: Any, job: TrainingJob, rank: int, loaded: LoadedModel) -> None:
    """Rank 0 writes the whole model and opens it once more before it says that it is done; all ranks call this.

    Adapters are merged into the weights, and lie beside, in the work folder, as they are.

    Raises:
        StageFailed: what was written is not the trained model.
    """
    adapted = job.recipe.lora is not None
    answers: _Answers | None = None
    if adapted:
        adapted_TV = _probe_logits(engine, engine.module, engine.device)
        with engine.module.disable_adapter():
            answers = _Answers(adapted_TV, _probe_logits(engine, engine.module, engine.device))
    # Private, but what accelerate and the Trainer call too; despite its name it keeps the weights' own type.
    three = job.profile.zero_stage == 3
    state = engine._zero3_consolidated_16bit_state_dict() if three else engine.module.state_dict()
    if rank == 0:
        model, tokenizer = engine.module, loaded.tokenizer
        if adapted:
            save_adapter(model, state, job.work / ADAPTER_FOLDER)
            state, model = merged_state(model, state), _without_weights(model)
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=_end_ids(job, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )
        model.save_pretrained(job.out, state_dict=state)
        for path in job.out.glob("*.safetensors"):
            path.chmod(0o644)  # they are written for the owner alone
        if loaded.pad_is_new:
            tokenizer.save_pretrained(job.out)
        else:
            for path in sorted(job.model.iterdir()):
                if path.name in TOKENIZER_FILES:
                    shutil.copyfile(path, job.out / path.name)
        if job.recipe.template == "tulu":
            write_tulu_template(job.out)
        _check(job, state, tokenizer, answers)
        emit({"event": "done"})
    dist.barrier()


def _without_weights(adapted: Any) -> Any:
    """A model as the adapted one is without adapters and quantization: what knows how to write its weights."""
    config = copy.deepcopy(adapted.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _probe_logits(forward: Callable[..., Any], model: Any, device: torch.device | str) -> torch.Tensor:
    """Logits for some ids, on the CPU."""
    entries = model.config.get_text_config().vocab_size
    generator = np.random.default_rng(1)
    ids = torch.from_numpy(generator.integers(0, entries, (1, _PROBE_TOKENS))).to(device)
    packed = model.config._attn_implementation in (PACKED, PACKED_UNFUSED)
    row = row_inputs(row_boundaries(np.array([_PROBE_TOKENS])), device) if packed else {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits_TV = forward(input_ids=ids, use_cache=False, **row).logits[0]
    model.train(was_training)
    return logits_TV.float().cpu()


def _end_ids(job: TrainingJob, tokenizer: Any) -> int | list[int]:
    """What ends an answer: the tokenizer's end mark, and what ends a turn in its own template."""
    if job.recipe.template == "tulu":
        return int(tokenizer.eos_token_id)
    from tulu_pipeline.tokens.own_template import load_own_template  # here: all of tokenizing comes with it
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    own = load_own_template(job.model, load_tokenizer(job.model))
    return sorted({tokenizer.eos_token_id, *own.end_of_turn_ids})


def _unlike(merged_TV: torch.Tensor, answers: _Answers, tolerance: float) -> str:
    """How the merged model's answers differ from those of base and adapter; "" where they do not.

    Small adapters move the logits less than the tolerance, so that the base as it was would pass too. However the
    merged model rounds, it is nearer to the adapted one than to the base.
    """
    largest = answers.adapted.abs().max()
    share = float((merged_TV - answers.adapted).abs().max() / largest)
    if not share <= tolerance:
        return f"logits differ by {share:.1e} of the largest from those of base and adapter"
    moved = float((answers.adapted - answers.base).norm())
    if moved > tolerance * _MEASURABLE * float(largest) * merged_TV.numel() ** 0.5:
        from_adapted, from_base = (float((merged_TV - each).norm()) for each in (answers.adapted, answers.base))
        if not from_adapted < from_base:
            return (
                f"it is {from_adapted / moved:.1f} of the adapter's way off, and {from_base / moved:.1f} off the base"
            )
    return ""


def _check(job: TrainingJob, state: dict[str, torch.Tensor], tokenizer: Any, answers: _Answers | None) -> None:
    reloaded, info = AutoModelForCausalLM.from_pretrained(
        job.out, dtype=DTYPES[job.recipe.dtype], local_files_only=True, output_loading_info=True
    )
    wrong: dict[str, Any] = {problem: sorted(map(str, names)) for problem, names in info.items() if names}
    found = reloaded.state_dict()
    wrong_tensors = [
        name for name, tensor in state.items() if name not in found or not torch.equal(found[name], tensor.cpu())
    ]
    probe = "<|user|>\nTwo words\n<|assistant|>\n"
    same_ids = AutoTokenizer.from_pretrained(job.out)(probe).input_ids == tokenizer(probe).input_ids
    if answers is not None:
        problem = _unlike(_probe_logits(reloaded, reloaded, "cpu"), answers, _TOLERANCES[DTYPES[job.recipe.dtype]])
        if problem:
            wrong["merged"] = problem
    if wrong or wrong_tensors or not same_ids:
        raise StageFailed(
            f"the exported checkpoint is not the trained model: {wrong or wrong_tensors or 'its tokenizer differs'}",
            str(job.out),
            "this is a fault of the trainer; please report it",
        )
