"""A dry run for people: what each finetuning takes, where its memory goes, and what the numbers follow from."""

from __future__ import annotations

from typing import Any

from flows.dry_run import DryRun, PlannedTraining, totals

_GIB = 2**30
_GB = 10**9
_PARTS = ("weights", "gradients", "optimizer", "communication", "activations", "logits", "step")


def print_dry_run(result: DryRun, console: Any) -> None:
    """Steps and time of each, the parts of its memory, assumptions, what would be refused, the sum."""
    if not result.trainings:
        console.print(_nothing(result), highlight=False)
        return
    console.print(_steps_table(result))
    console.print()
    console.print(_memory_table(result))
    console.print()
    for line in _explained(result):
        console.print(line, markup=False, highlight=False)
    for name, error in result.errors:
        refused = f"refused: {name}: {error.what}\n  where: {error.where}\n  fix: {error.fix}"
        console.print(refused, style="red", markup=False, highlight=False)
    console.print(_sum(result), style="bold", highlight=False)


def _nothing(result: DryRun) -> str:
    there = f": {result.there} are there" if result.there else ""
    return f"no finetuning would run{there}; `tulu plan` says what would"


def _steps_table(result: DryRun) -> Any:
    from rich.table import Table
    from rich.text import Text

    hours = "GPU-hours" if result.device.is_gpu else "rank-hours"
    memory = "GPU memory" if result.device.is_gpu else "rank's memory"
    table = Table(box=None, pad_edge=False)
    table.add_column("", overflow="fold")
    for title in ("steps", "conversations", "tokens", "supervised", "padding", memory, "time", hours):
        table.add_column(title, justify="right", no_wrap=True)
    for training in result.trainings:
        table.add_row(Text(training.name), *_work(training), _peak(result, training), *_time(result, training))
    return table


def _work(training: PlannedTraining) -> list[str]:
    work = training.workload
    if work is None:
        most = training.recipe.max_steps
        return ["?" if most is None else f"≤{most:,}", *["?"] * 4]
    about = "" if work.exact else "~"
    supervised = "?" if work.supervised_tokens is None else f"{about}{_count(work.supervised_tokens)}"
    padding = "?" if work.padding_share is None else f"{work.padding_share:.1%}"
    return [
        f"{about}{work.steps:,}",
        f"{about}{_count(work.conversations)}",
        f"{about}{_count(work.tokens)}",
        supervised,
        padding,
    ]


def _peak(result: DryRun, training: PlannedTraining) -> str:
    fits = result.fits(training)
    style = {None: "default", True: "green", False: "red"}[fits]
    bound = result.device.memory_bytes
    return f"[{style}]{training.memory.peak / _GIB:.1f}" + (f" of {bound / _GIB:.0f}" if bound else "") + " GiB[/]"


def _time(result: DryRun, training: PlannedTraining) -> list[str]:
    hours = training.gpu_hours(result.ranks)
    if training.duration.seconds is None or hours is None:
        return ["?", "?"]
    about = "~" if training.duration.source.startswith("assumed") else ""
    return [about + _clock(training.duration.seconds), f"{about}{hours:,.1f}"]


def _memory_table(result: DryRun) -> Any:
    """One row for all trainings that take the same."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("GiB of each GPU at the peak" if result.device.is_gpu else "GiB of each rank at the peak")
    for title in (*_PARTS, "at once", "in all", *(["on the CPU"] if result.profile.offload else [])):
        table.add_column(title, justify="right")
    seen: dict[Any, str] = {}
    for training in result.trainings:
        seen.setdefault((training.model, training.memory), _how(training))
    for (_, memory), title in seen.items():
        parts = [getattr(memory, part) for part in _PARTS] + [memory.tensors, memory.peak]
        parts += [memory.cpu] if result.profile.offload else []
        table.add_row(title, *(f"{part / _GIB:.2f}" for part in parts))
    return table


def _how(training: PlannedTraining) -> str:
    lora = training.recipe.lora
    kind = str(training.recipe.dtype)
    if lora is not None:
        quantized = f" on {lora.quantization}" if lora.quantization != "none" else ""
        kind += f", adapters of rank {lora.rank}{quantized}"
    return f"{training.model} ({training.parameters / 1e9:.2f}B, {kind})"


def _explained(result: DryRun) -> list[str]:
    from tulu_pipeline.training.estimates.memory import CONTEXT_BYTES, FRAGMENTATION_SHARE

    profile, device = result.profile, result.device
    where = "" if device.here else ", as the profile says"
    options = [f"ZeRO-{profile.zero_stage}", f"layout {profile.layout}"]
    options += ["offload"] * profile.offload + ["gradient checkpointing"] * profile.gradient_checkpointing
    lines = [
        f"profile {profile.name}: {result.ranks} ranks, {', '.join(options)}; {device.name or 'a GPU without a name'}"
        + where,
        "at once: what stays, and the larger of a backward pass (communication, activations, logits) and of the "
        f"optimizer step; assumed on top: {CONTEXT_BYTES / _GIB:.0f} GiB for the process itself, "
        f"{FRAGMENTATION_SHARE:.0%} lost by the allocator",
    ]
    shapes = {(each.model, each.shape_source) for each in result.trainings if each.shape_source != "its config"}
    lines += [f"{model}: counted as {source}" for model, source in sorted(shapes)]
    lines += _grouped(result, "data", [(each.name, each.data_source) for each in result.trainings])
    lines += _grouped(result, "time", [(each.name, each.duration.source) for each in result.trainings])
    lines += _grouped(result, "note", [(each.name, note) for each in result.trainings for note in each.notes])
    works = [each.workload for each in result.trainings if each.workload is not None]
    sampled = [work.sampled_steps for work in works if 0 < work.sampled_steps < work.steps]
    if sampled:
        lines.append(f"padding: of {max(sampled)} steps, planned as training plans them, spread over all")
    return lines


def _grouped(result: DryRun, title: str, told: list[tuple[str, str]]) -> list[str]:
    """One line for each text, with the artifacts it is about unless it is about all."""
    by_text: dict[str, list[str]] = {}
    for name, text in told:
        by_text.setdefault(text, []).append(name)
    every = {training.name for training in result.trainings}
    return [
        f"{title}: {text}" + ("" if set(names) == every else f" [{', '.join(names)}]")
        for text, names in by_text.items()
    ]


def _sum(result: DryRun) -> str:
    found = totals(result)
    unit = "GPU-hours" if result.device.is_gpu else "rank-hours"
    hours = f"{unit} unknown" if found["gpu_hours"] is None else f"{found['gpu_hours']:,.1f} {unit}"
    if found["seconds"] is not None:
        hours += f" ({_clock(found['seconds'])})"
    there = f", {result.there} there already" if result.there else ""
    plural = "" if found["trainings"] == 1 else "s"
    return (
        f"{found['trainings']} finetuning{plural}{there}: {hours}; disk: {found['checkpoint_bytes'] / _GB:,.1f} GB of "
        f"checkpoints, up to {found['resumable_bytes'] / _GB:,.1f} GB of resumable state meanwhile"
    )


def _count(number: int) -> str:
    if number < 1_000_000:
        return f"{number:,}"
    return f"{number / 1e6:,.1f}M" if number < 10**9 else f"{number / 1e9:,.2f}B"


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
