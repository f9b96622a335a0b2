"""What the engine's process is told to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tulu_pipeline.inference.engine import EngineSettings
from tulu_pipeline.specs.benchmark import Sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkJob:
    """One benchmark to answer.

    Attributes:
        name: the artifact's, for events.
        questions: file of questions. records: file of answers, may hold some already.
        sampling: `stop` is what holds for this model.
        max_prompt_tokens: the benchmark's own limit.
    """

    name: str
    questions: Path
    records: Path
    sampling: Sampling
    max_prompt_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerJob:
    """All that one engine answers, in this order."""

    engine: EngineSettings
    jobs: tuple[BenchmarkJob, ...]
