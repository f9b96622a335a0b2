"""Small real stages over text files: what the build system promises, seen in milliseconds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.artifact import Artifact, Graph, ObjectRef
from tulu_pipeline.artifacts.explain import Explainer, Reason
from tulu_pipeline.artifacts.plan import Plan, Status
from tulu_pipeline.artifacts.resolve import Resolver, SourcesLock
from tulu_pipeline.artifacts.run import RunResult, local_threads, run
from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import Settings

Act = Callable[[Job["ToyParams"]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyParams:
    """`text` is appended to the inputs' texts; `cut` keeps only so many characters of that."""

    text: str = ""
    cut: int | None = None


def settings(folder: Path, **changes: Any) -> Settings:
    """Settings that touch nothing outside `folder`."""
    values = {
        "store": str(folder / "store"),
        "mirror": None,
        "sources_lock": folder / "sources.lock",
        "hub_endpoint": "http://127.0.0.1:9",
        "hub_token": None,
        "color": False,
    }
    return Settings(**values | changes)


@dataclass
class Workshop:
    """A store, a log of what ran, and stages that write `out/text`: their inputs' texts joined, and their own.

    `acts` may do something first, by job name: write more, raise, wait. Every start is one line of `log`, appended
    with one write so that processes can share it.
    """

    folder: Path
    url: str = ""
    experiment: str = "toy"
    slots: int = 4
    acts: dict[str, Act] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "ran.log"
        self.settings = settings(self.folder)
        self.store = Store(self.url or self.settings.store, self.folder / "cache")
        self.profile = Profile(cpu_slots=self.slots, lease_stale_seconds=2.0)

    @property
    def ctx(self) -> RunContext:
        return RunContext(profile=self.profile, settings=self.settings)

    def stage(self, name: str, version: int = 1, **options: Any) -> Stage[ToyParams]:
        run = self._run_batch if options.get("batch") else self._run
        return Stage(name=name, version=version, params=ToyParams, run=run, **options)

    def node(
        self,
        stage: str | Stage[ToyParams],
        cell: str,
        text: str = "",
        inputs: Sequence[Artifact] | Mapping[str, Artifact] = (),
        *,
        cut: int | None = None,
        sources: Mapping[str, Source] | None = None,
        objects: tuple[ObjectRef, ...] = (),
        group: str = "",
    ) -> Artifact:
        named = inputs if isinstance(inputs, Mapping) else {f"input_{i}": made for i, made in enumerate(inputs)}
        return Artifact(
            stage=self.stage(stage) if isinstance(stage, str) else stage,
            cell=cell,
            params=ToyParams(text=text, cut=cut),
            inputs=named,
            sources=sources or {},
            objects=objects,
            group=group,
        )

    def plan(self, *targets: Artifact, forced: Sequence[str] = ()) -> Plan:
        return Plan(Graph(targets), self.store, Resolver(SourcesLock(self.settings.sources_lock)), forced)

    def run(self, *targets: Artifact, forced: Sequence[str] = ()) -> RunResult:
        return self.carry_out(self.plan(*targets, forced=forced))

    def carry_out(self, plan: Plan) -> RunResult:
        with local_threads() as submit:
            return run(plan, self.store, self.ctx, experiment=self.experiment, submit=submit)

    def statuses(self, *targets: Artifact, forced: Sequence[str] = ()) -> dict[str, Status]:
        return {name: node.status for name, node in self.plan(*targets, forced=forced).nodes.items()}

    def why(self, target: Artifact, *others: Artifact, forced: Sequence[str] = ()) -> tuple[Reason, ...]:
        plan = self.plan(target, *others, forced=forced)
        return Explainer(plan, self.store, self.experiment).reasons(target.name)

    def ran(self) -> list[str]:
        """What ran since the last time this was asked, in order."""
        if not self.log.exists():
            return []
        lines = self.log.read_text().splitlines()
        self.log.unlink()
        return lines

    def text(self, artifact: Artifact) -> str:
        """The published text of an artifact that is there."""
        manifest = self.plan(artifact).nodes[artifact.name].manifest
        assert manifest is not None, f"{artifact.name} is not there"
        return (self.store.path(manifest) / "text").read_text()

    def copy_to(self, folder: Path) -> Workshop:
        """A workshop over a copy of this store."""
        shutil.copytree(self.folder / "store", folder / "store", symlinks=True)
        return Workshop(folder, experiment=self.experiment)

    def _run(self, job: Job[ToyParams], ctx: RunContext) -> Metrics:
        append_line(self.log, job.name)
        if job.name in self.acts:
            self.acts[job.name](job)
        texts = ["-" if folder is None else (folder / "text").read_text() for folder in job.inputs.values()]
        whole = "".join([*texts, job.params.text])
        (job.out / "text").write_text(whole if job.params.cut is None else whole[: job.params.cut])
        return {"characters": len(whole)}

    def _run_batch(self, jobs: Sequence[Job[ToyParams]], ctx: RunContext) -> None:
        for job in jobs:
            job.publish(self._run(job, ctx))


def append_line(path: Path, line: str) -> None:
    """One line, in one write."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
    finally:
        os.close(descriptor)
