"""What the finetunings of a run would take: steps, tokens, memory of each GPU, time, disk. Runs nothing.

Exact where the tokens are in the store; else estimated from what is known of the data so far, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flows.dry_run_advice import Case, what_fits
from flows.dry_run_data import mixture_data
from flows.dry_run_device import Device, find_device
from flows.session import Session
from tulu_pipeline.artifacts.canonical import to_plain
from tulu_pipeline.artifacts.plan import Node
from tulu_pipeline.errors import NotFound
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.model import PretrainedModel
from tulu_pipeline.specs.recipe import Recipe

if TYPE_CHECKING:
    from tulu_pipeline.training.checks import Problem
    from tulu_pipeline.training.estimates.duration import Duration, EarlierTraining
    from tulu_pipeline.training.estimates.known import KnownModel
    from tulu_pipeline.training.estimates.memory import MemoryEstimate
    from tulu_pipeline.training.estimates.shape import ModelShape
    from tulu_pipeline.training.estimates.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTraining:
    """One finetuning that would run.

    Attributes:
        name: the artifact's.
        model: the base model's name; `shape_source` says where its shape is from.
        recipe: how it would be tuned.
        parameters, trained_parameters: of the model, and of what has gradients.
        workload: what it trains on; None where that is not known.
        data_source: where the workload is from, or what makes it known.
        memory: of one rank at the peak; None where the architecture is not known.
        duration: of its steps.
        checkpoint_bytes: exported.
        resumable_bytes: of saved states, the most that lie on disk at once.
        errors, notes: what would be refused, and what is worth knowing.
    """

    name: str
    model: str
    shape_source: str
    recipe: Recipe
    parameters: int
    trained_parameters: int
    workload: Workload | None
    data_source: str
    memory: MemoryEstimate
    duration: Duration
    checkpoint_bytes: int
    resumable_bytes: int
    errors: tuple[Problem, ...]
    notes: tuple[str, ...]

    def gpu_hours(self, ranks: int) -> float | None:
        """Of its steps, on so many ranks."""
        return None if self.duration.seconds is None else self.duration.seconds * ranks / 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """All finetunings that a run would make.

    Attributes:
        profile: how.
        device: what on.
        trainings: in the order of the graph.
        there: finetunings that need not run.
    """

    profile: Profile
    device: Device
    trainings: tuple[PlannedTraining, ...]
    there: int

    @property
    def ranks(self) -> int:
        """Over all nodes."""
        return self.profile.ranks * self.profile.nodes

    def fits(self, training: PlannedTraining) -> bool | None:
        """Whether it fits the device; None where that is not known."""
        return None if self.device.memory_bytes is None else training.memory.peak <= self.device.memory_bytes

    @property
    def errors(self) -> tuple[tuple[str, Problem], ...]:
        """Each with the name of its finetuning."""
        return tuple((training.name, error) for training in self.trainings for error in training.errors)


def dry_run(session: Session) -> DryRun:
    """What the session's finetunings would take.

    Raises:
        Tampered: tokens of the store are damaged.
    """
    finetunes = [node for node in session.plan.nodes.values() if node.artifact.stage.name == "finetune"]
    device = find_device(session.ctx.profile)
    planner = _Planner(session, device)
    return DryRun(
        profile=session.ctx.profile,
        device=device,
        trainings=tuple(planner.planned(node) for node in finetunes if node.digest is None),
        there=sum(node.digest is not None for node in finetunes),
    )


class _Planner:
    """Knows the store and the experiment; each finetuning is planned by itself."""

    def __init__(self, session: Session, device: Device) -> None:
        self._session, self._device = session, device
        experiment = session.experiment
        self._cells = {
            f"{model.name}+{mixture.name}": (model, mixture)
            for model in experiment.models
            for mixture in experiment.mixtures
        }

    def planned(self, node: Node) -> PlannedTraining:
        from tulu_pipeline.training.checks import check_training
        from tulu_pipeline.training.estimates.memory import (
            checkpoint_bytes,
            resumable_bytes,
            trained_parameters,
        )

        params: Any = node.artifact.params
        recipe: Recipe = params.recipe
        profile = self._session.ctx.profile
        model, mixture = self._cells[node.artifact.cell]
        known = self._known_model(node, model)
        tokens, workload, source = mixture_data(self._session, node, mixture, recipe)
        found = check_training(
            recipe, profile, model=known, tokens=tokens, device=self._device.name if self._device.is_gpu else ""
        )
        shape, shape_source = _shape(known, model)
        if found.errors and recipe.lora is not None:  # of layers that are not there nothing can be counted
            recipe = _countable(recipe, shape)
        case = Case(shape=shape, recipe=recipe, profile=profile, device=self._device, workload=workload)
        memory = case.memory()
        notes = list(found.notes)
        if self._device.memory_bytes is not None and memory.peak > self._device.memory_bytes:
            notes.append(what_fits(case))
        saves = profile.checkpoint_every_steps or profile.checkpoint_every_minutes
        states = profile.checkpoints_kept + 1 if saves else 0
        return PlannedTraining(
            name=node.artifact.name,
            model=model.name,
            shape_source=shape_source,
            recipe=params.recipe,
            parameters=shape.parameters,
            trained_parameters=trained_parameters(shape, recipe.lora),
            workload=workload,
            data_source=source,
            memory=memory,
            duration=self._duration(node, shape, recipe, workload),
            checkpoint_bytes=checkpoint_bytes(shape, recipe),
            resumable_bytes=states * resumable_bytes(shape, recipe),
            errors=tuple(found.errors),
            notes=tuple(notes),
        )

    def _known_model(self, node: Node, model: PretrainedModel) -> KnownModel:
        from tulu_pipeline.training.estimates.known import KnownModel, known_model

        folder = self._session.find_folder(node.artifact.inputs["model"].name)
        if folder is None:
            config = model.config or None
            return KnownModel(
                name=model.name, config=config, context_tokens=model.context_tokens, parameters=model.parameters
            )
        return replace(
            known_model(folder, model.name),
            context_tokens=model.context_tokens,
            parameters=model.parameters,
            said_special_tokens=model.tokenizer.special_tokens,
            said_tuned_rows=model.tuned_embedding_rows,
        )

    def _duration(self, node: Node, shape: ModelShape, recipe: Recipe, workload: Workload | None) -> Duration:
        from tulu_pipeline.training.estimates.duration import Duration, from_earlier, from_flops

        profile, device = self._session.ctx.profile, self._device
        if workload is None:
            return Duration(seconds=None, source="unknown: so are its steps")
        params = to_plain(node.artifact.params)
        earlier = [replace(each, same_model=self._is_of(each, node)) for each in self._earlier]
        measured = from_earlier(earlier, workload.tokens, params["recipe"], profile, device.name)
        return measured or from_flops(
            shape,
            recipe,
            profile,
            tokens=workload.tokens,
            mean_length=workload.mean_length,
            busy_share=workload.busy_share,
            device=device.name if device.is_gpu else "",
        )

    @cached_property
    def _earlier(self) -> list[EarlierTraining]:
        """The finetunings in the store, oldest first."""
        from tulu_pipeline.training.estimates.duration import EarlierTraining

        manifests = sorted(self._session.store.manifests(only="finetune"), key=lambda each: (each.created, each.key))
        return [
            EarlierTraining(
                name=each.name,
                same_model=False,
                recipe=each.identity["params"]["recipe"],
                profile=each.provenance.get("profile", {}),
                metrics=each.metrics,
            )
            for each in manifests
        ]

    @staticmethod
    def _is_of(earlier: EarlierTraining, node: Node) -> bool:
        """By its name: base models that are called alike are the same."""
        model = node.artifact.inputs["model"].cell
        return earlier.name.startswith(f"finetune[{model}+")


def _shape(known: KnownModel, model: PretrainedModel) -> tuple[ModelShape, str]:
    from tulu_pipeline.training.estimates.shape import likely_shape

    if known.shape is not None:
        return known.shape, "its config"
    kind = (known.config or {}).get("model_type", "")
    why = f"`{kind}` is no architecture that is counted here" if kind else "there is no config yet"
    return likely_shape(model.parameters, model.context_tokens), f"a Llama of that size, since {why}"


def _countable(recipe: Recipe, shape: ModelShape) -> Recipe:
    """With adapters on layers that the model has."""
    if recipe.lora is None:
        return recipe
    try:
        shape.adapter_parameters(recipe.lora.rank, recipe.lora.target_modules)
    except NotFound:
        return replace(recipe, lora=replace(recipe.lora, target_modules=()))
    return recipe


def dry_run_json(result: DryRun) -> dict[str, Any]:
    """The form that scripts rely on; bytes, seconds and shares, None where something is not known."""
    return {
        "profile": {name: getattr(result.profile, name) for name in ("name", "ranks", "nodes", "zero_stage", "layout")},
        "device": _fields(result.device),
        "trainings": [_training_json(result, training) for training in result.trainings],
        "there_already": result.there,
        "totals": totals(result),
    }


def totals(result: DryRun) -> dict[str, Any]:
    """Over all finetunings that would run; None where one of them is not known."""
    hours = [training.gpu_hours(result.ranks) for training in result.trainings]
    return {
        "trainings": len(result.trainings),
        "gpu_hours": None if None in hours else sum(hour for hour in hours if hour is not None),
        "seconds": None
        if None in hours
        else sum(each.duration.seconds for each in result.trainings if each.duration.seconds is not None),
        "checkpoint_bytes": sum(training.checkpoint_bytes for training in result.trainings),
        # One finetuning at a time on a profile's GPUs; its states go when its checkpoint is published.
        "resumable_bytes": max((training.resumable_bytes for training in result.trainings), default=0),
    }


def _training_json(result: DryRun, training: PlannedTraining) -> dict[str, Any]:
    memory = _fields(training.memory) | {"tensors": training.memory.tensors, "peak": training.memory.peak}
    return {
        "name": training.name,
        "model": training.model,
        "parameters": training.parameters,
        "trained_parameters": training.trained_parameters,
        "shape": training.shape_source,
        "workload": None if training.workload is None else _fields(training.workload),
        "data": training.data_source,
        "memory": memory,
        "fits": result.fits(training),
        "seconds": training.duration.seconds,
        "gpu_hours": training.gpu_hours(result.ranks),
        "time": training.duration.source,
        "checkpoint_bytes": training.checkpoint_bytes,
        "resumable_bytes": training.resumable_bytes,
        "errors": [_fields(error) for error in training.errors],
        "notes": list(training.notes),
    }


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__slots__}
