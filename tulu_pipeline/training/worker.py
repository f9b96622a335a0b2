"""One rank of a finetuning, started by DeepSpeed's launcher: `python -m tulu_pipeline.training.worker job.json`."""

from __future__ import annotations

import argparse
import math
import shutil
import time
import traceback
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.integrations import deepspeed as transformers_deepspeed

from tulu_pipeline.artifacts.child_side import emit, end_with_parent
from tulu_pipeline.artifacts.hub_model import TOKENIZER_FILES
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.tokenizer import load_tokenizer, special_tokens
from tulu_pipeline.tokens.tulu_template import write_tulu_template
from tulu_pipeline.training.attention import use_packed_attention
from tulu_pipeline.training.batches import MicroBatch, step_batches
from tulu_pipeline.training.data import MixtureTokens
from tulu_pipeline.training.job import TrainingJob
from tulu_pipeline.training.loss import micro_batch_loss
from tulu_pipeline.training.order import step_order, total_steps
from tulu_pipeline.training.plans import StepPlan, padded_plan, step_plan
from tulu_pipeline.training.record import Recorder, StepRecord
from tulu_pipeline.training.schedule import learning_rate
from tulu_pipeline.training.state import TAG, commit_state, state_folder, state_identity, unfinished_folder

_TIMEOUT = timedelta(hours=2)  # ranks wait while one exports
_SECONDS_BETWEEN_EVENTS = 0.5
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def main() -> None:
    """Train, export, check the export. The first rank to fail says why before it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path)
    parser.add_argument("--local_rank", type=int, required=True)  # the launcher's
    arguments = parser.parse_args()
    end_with_parent()
    job = TrainingJob.model_validate_json(arguments.job.read_text())
    rank: int = arguments.local_rank  # one machine, so the global rank too
    try:
        _join(job, rank)
        _run(job, rank)
    except Exception as error:
        emit({"event": "failed", "rank": rank, "error": f"{type(error).__name__}: {error}"})
        traceback.print_exc()
        raise SystemExit(1) from error
    dist.destroy_process_group()


def _join(job: TrainingJob, rank: int) -> None:
    torch.set_num_threads(job.threads)
    if not torch.cuda.is_available():
        # DeepSpeed would compile a shared-memory operation when the group is made: minutes, and no training at all
        # where there is no C++ compiler. Without it collectives go through gloo. An empty table also spares it
        # from probing the compiler for all its other operations.
        deepspeed.ops.__compatible_ops__ = {}
    # A file instead of a port: nothing can take it between now and when all ranks are up.
    deepspeed.init_distributed(
        init_method=f"file://{job.rendezvous}", rank=rank, world_size=job.ranks, timeout=_TIMEOUT, verbose=False
    )


def _run(job: TrainingJob, rank: int) -> None:
    recipe = job.recipe
    torch.manual_seed(recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model, pad_is_new = _load_model(job, tokenizer)
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=job.deepspeed)
    if job.resume_step:
        folder = state_folder(job.work, job.resume_step)
        loaded, _ = engine.load_checkpoint(str(folder), tag=TAG)
        if loaded is None:  # it only warns, and would go on from the base model
            raise StageFailed("the saved state cannot be read", str(folder), "remove that folder, then run again")
    mixture = MixtureTokens(job.tokens)
    total = total_steps(mixture.conversations, recipe)
    if job.layout == "step":
        use_packed_attention(engine.module, engine, engine.device)
    recorder = Recorder(job.work, job.resume_step) if rank == 0 else None
    if rank == 0:
        emit({"event": "ready", "step": job.resume_step, "total": total})

    engine.train()
    last_event = 0.0
    for step in range(job.resume_step, total):
        started = time.perf_counter()
        rate = learning_rate(recipe, step, total)
        plan = _plan(job, mixture, step)
        batches, counts = step_batches(
            mixture.at(plan.positions),
            plan,
            mixture.lengths,
            rank=rank,
            norm=recipe.loss_norm,
            virtual_conversations=recipe.loss_micro_batch_conversations,
            pad_id=tokenizer.pad_token_id,
        )
        # Dropout is a function of the step, so there is no state of it to save.
        torch.manual_seed(recipe.seed + 1_000_003 * (1 + step * job.ranks + rank))
        loss = _optimizer_step(engine, batches, rate, job.ranks)
        if not math.isfinite(loss):
            raise StageFailed(f"the loss is {loss} at step {step + 1}", str(job.model), "lower the learning rate")
        if recorder is not None:
            grad_norm = engine.get_global_grad_norm()
            record = StepRecord(
                step=step + 1,
                loss=loss,
                learning_rate=rate,
                grad_norm=None if grad_norm is None else float(grad_norm),
                conversations=counts.conversations,
                tokens=counts.tokens,
                supervised_tokens=counts.supervised_tokens,
                computed_tokens=counts.computed_tokens,
                seconds=time.perf_counter() - started,
            )
            recorder.add(record)
            if time.monotonic() - last_event > _SECONDS_BETWEEN_EVENTS or step + 1 == total:
                last_event = time.monotonic()
                emit({"event": "step", "total": total, **asdict(record)})
        if job.checkpoint_every_steps and (step + 1) % job.checkpoint_every_steps == 0 and step + 1 < total:
            _save_state(engine, job, rank, step + 1, recorder)
    if recorder is not None:
        recorder.close()
        emit({"event": "exporting"})
    _export(engine, job, rank, tokenizer, pad_is_new)


def _plan(job: TrainingJob, mixture: MixtureTokens, step: int) -> StepPlan:
    """Every rank makes the same one."""
    recipe = job.recipe
    positions = step_order(mixture.conversations, recipe.conversations_per_step, recipe.seed, step)
    if job.layout == "padded":
        return padded_plan(positions, ranks=job.ranks, conversations_per_row=job.micro_batch_conversations)
    return step_plan(positions, mixture.lengths, ranks=job.ranks, budget_tokens=job.row_tokens)


def _load_model(job: TrainingJob, tokenizer: Any) -> tuple[Any, bool]:
    """The base model; where its files name no pad token, `<pad>` is added, and the embeddings grow if they must.

    As in the original: LLaMA's grow, Pythia's have room. For GPT-NeoX transformers would take `<|padding|>`.
    """
    zero3 = _Zero3Config(job.deepspeed) if job.zero_stage == 3 else None
    if zero3 is not None:
        # Parameters are then split over the ranks as they are loaded; no rank ever holds the whole model.
        transformers_deepspeed.set_hf_deepspeed_config(zero3)
    model = AutoModelForCausalLM.from_pretrained(job.model, dtype=_DTYPES[job.recipe.dtype], local_files_only=True)
    pad_is_new = not special_tokens(job.model)["pad_token"]
    if pad_is_new:
        tokenizer.add_special_tokens({"pad_token": "<pad>"})
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.pad_token_id = tokenizer.pad_token_id
    transformers_deepspeed.unset_hf_deepspeed_config()
    return model, pad_is_new


class _Zero3Config:
    """What transformers asks to know that it loads under ZeRO-3; its own class for it would need `accelerate`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def is_zero3(self) -> bool:
        return True


def _optimizer_step(engine: Any, batches: list[MicroBatch], rate: float, ranks: int) -> float:
    """One step over this rank's micro-batches; the loss over all ranks."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rate
    total = torch.zeros((), device=engine.device)
    for index, batch in enumerate(batches):
        engine.set_gradient_accumulation_boundary(index + 1 == len(batches))
        loss = micro_batch_loss(engine, batch, engine.device)
        # The weights already hold every mean; DeepSpeed divides by the ranks, so that is undone.
        engine.backward(loss * ranks, scale_wrt_gas=False)
        engine.step()
        total += loss.detach()
    dist.all_reduce(total)
    return float(total)


def _save_state(engine: Any, job: TrainingJob, rank: int, step: int, recorder: Recorder | None) -> None:
    folder = unfinished_folder(job.work, step)
    if rank == 0 and folder.exists():
        shutil.rmtree(folder)
    dist.barrier()
    engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)
    if recorder is not None:
        recorder.flush()
        commit_state(job.work, step, state_identity(job.ranks, job.zero_stage))
    dist.barrier()


def _export(engine: Any, job: TrainingJob, rank: int, tokenizer: Any, pad_is_new: bool) -> None:
    """Rank 0 writes the whole model and opens it once more before it says that it is done."""
    # Private, but what accelerate and the Trainer call too; despite its name it keeps the weights' own type.
    state = engine._zero3_consolidated_16bit_state_dict() if job.zero_stage == 3 else engine.module.state_dict()
    if rank == 0:
        model = engine.module
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=_end_ids(job, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )
        model.save_pretrained(job.out, state_dict=state)
        for path in job.out.glob("*.safetensors"):
            path.chmod(0o644)  # they are written for the owner alone
        if pad_is_new:
            tokenizer.save_pretrained(job.out)
        else:
            for path in sorted(job.model.iterdir()):
                if path.name in TOKENIZER_FILES:
                    shutil.copyfile(path, job.out / path.name)
        if job.recipe.template == "tulu":
            write_tulu_template(job.out)
        _check_export(job, state, tokenizer)
        emit({"event": "done"})
    dist.barrier()


def _end_ids(job: TrainingJob, tokenizer: Any) -> int | list[int]:
    """What ends an answer: the tokenizer's end mark, and what ends a turn in its own template."""
    if job.recipe.template == "tulu":
        return int(tokenizer.eos_token_id)
    own = load_own_template(job.model, load_tokenizer(job.model))
    return sorted({tokenizer.eos_token_id, *own.end_of_turn_ids})


def _check_export(job: TrainingJob, state: dict[str, torch.Tensor], tokenizer: Any) -> None:
    reloaded, info = AutoModelForCausalLM.from_pretrained(
        job.out, dtype=_DTYPES[job.recipe.dtype], local_files_only=True, output_loading_info=True
    )
    wrong = {problem: sorted(map(str, names)) for problem, names in info.items() if names}
    found = reloaded.state_dict()
    wrong_tensors = [
        name for name, tensor in state.items() if name not in found or not torch.equal(found[name], tensor.cpu())
    ]
    probe = "<|user|>\nTwo words\n<|assistant|>\n"
    same_ids = AutoTokenizer.from_pretrained(job.out)(probe).input_ids == tokenizer(probe).input_ids
    if wrong or wrong_tensors or not same_ids:
        raise StageFailed(
            f"the exported checkpoint is not the trained model: {wrong or wrong_tensors or 'its tokenizer differs'}",
            str(job.out),
            "this is a fault of the trainer; please report it",
        )


if __name__ == "__main__":
    main()
