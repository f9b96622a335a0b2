"""Weights & Biases and MLflow, each fed by a process of its own, so that neither can end or slow a training.

The processes read the record's files as they grow. What an outage or a kill kept back is sent by the next try, and what
the service has is not sent again. A run has the identity of the artifact: the same training goes on in the same run.

work/tracking-<service>.json        what it has, and what went wrong
work/tracking-<service>-job.json    what the process is told
work/tracking-end                   how the training ended, once it has
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from tulu_pipeline.artifacts.canonical import to_plain
from tulu_pipeline.artifacts.children import supervised
from tulu_pipeline.errors import MissingOnMachine
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import Settings, tracking_environment
from tulu_pipeline.specs.recipe import Recipe

log = logging.getLogger(__name__)

Service = Literal["wandb", "mlflow"]
Ending = Literal["finished", "failed", "interrupted"]

TRACKING_LOG = "tracking.log"
TITLES: dict[Service, str] = {"wandb": "Weights & Biases", "mlflow": "MLflow"}
_VARIABLES: dict[Service, str] = {"wandb": "WANDB_PROJECT", "mlflow": "MLFLOW_TRACKING_URI"}
_END_FILE = "tracking-end"
_LAST_SECONDS = 30.0
_LAST_SECONDS_IN_TROUBLE = 3.0


class TrackerJob(BaseModel):
    """One training, as the process that tells a service of it sees it. No credentials: it reads those itself.

    Attributes:
        service: which one.
        name: of the run, for people.
        key: of the artifact; the identity of the run.
        group: runs that belong together: those of one base model.
        config: recipe and profile, flat.
        work: folder of the record.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = 1
    service: Service
    name: str
    key: str
    group: str
    config: dict[str, Any]
    work: Path


class Sent(BaseModel):
    """What a service has.

    Attributes:
        steps: the last step that it has.
        held_out: the last step whose held-out loss it has.
        address: where people see the run, "" where that is nowhere.
        problem: what went wrong at the last try, "" where nothing did.
        complete: whether it has everything, the end included.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = 0
    held_out: int = -1
    address: str = ""
    problem: str = ""
    complete: bool = False


def services(settings: Settings) -> list[Service]:
    """What the environment asks for.

    Raises:
        MissingOnMachine: the client of one of them is not installed.
    """
    wanted: dict[Service, str | None] = {"wandb": settings.wandb_project, "mlflow": settings.mlflow_tracking_uri}
    found: list[Service] = [service for service, setting in wanted.items() if setting]
    for service in found:
        if importlib.util.find_spec(service) is None:
            raise MissingOnMachine(
                f"`{_VARIABLES[service]}` is set, and the client of {TITLES[service]} is not installed",
                f"package `{service}`",
                f"`pip install 'tulu-pipeline[track]'`, or unset `{_VARIABLES[service]}`",
            )
    return found


class Trackers:
    """The processes that tell services of one training.

    Args:
        name: of the artifact, `finetune[model+mixture]`.
        key: of the artifact.
        recipe: what is done.
        profile: where.
        work: folder of the record.
        settings: which services are asked for.

    Raises:
        MissingOnMachine: the client of one of them is not installed.
    """

    def __init__(
        self, *, name: str, key: str, recipe: Recipe, profile: Profile, work: Path, settings: Settings
    ) -> None:
        self._work = work
        self._processes = {}
        cell = name.partition("[")[2].removesuffix("]") or name
        config = flat({"key": key, "artifact": name, "recipe": to_plain(recipe), "profile": asdict(profile)})
        wanted = services(settings)
        (work / _END_FILE).unlink(missing_ok=True)
        with ExitStack() as started:  # one that cannot be started leaves none behind
            for service in wanted:
                job = TrackerJob(
                    service=service,
                    name=cell,
                    key=key or cell,
                    group=cell.partition("+")[0],
                    config=config,
                    work=work.absolute(),
                )
                file = work / f"tracking-{service}-job.json"
                file.write_text(job.model_dump_json(indent=1))
                output = started.enter_context((work / TRACKING_LOG).open("ab"))
                command = [sys.executable, "-m", "tulu_pipeline.training.tracking.tracker_worker", str(file)]
                child = supervised(command, stdout=output, stderr=output, env=tracking_environment())
                self._processes[service] = started.enter_context(child)
            self._stack = started.pop_all()

    def end(self, ending: Ending) -> Iterator[str]:
        """Tell them that the training has ended, wait a little for what is under way, and end them; what to note."""
        with suppress(OSError):  # a full disk, of which the training has something to say
            _write_whole(self._work / _END_FILE, ending)
        started = time.monotonic()
        for service, process in self._processes.items():
            while process.poll() is None:
                in_trouble = bool(read_sent(self._work, service).problem) or ending == "interrupted"
                if time.monotonic() - started > (_LAST_SECONDS_IN_TROUBLE if in_trouble else _LAST_SECONDS):
                    break
                time.sleep(0.05)
        self._stack.close()
        for service in self._processes:
            sent = read_sent(self._work, service)
            if sent.problem:
                yield f"{TITLES[service]} did not take the whole record ({sent.problem}): the files have it"
            elif not sent.complete:
                yield f"{TITLES[service]} was too slow to take the whole record: the files have it"

    def addresses(self) -> list[str]:
        """Where people see the runs."""
        found = [read_sent(self._work, service).address for service in self._processes]
        return [address for address in found if address]


def ending_of(work: Path) -> Ending | None:
    """How the training ended; None while it has not."""
    try:
        return (work / _END_FILE).read_text()  # type: ignore[return-value]  # written above
    except FileNotFoundError:
        return None


def read_sent(work: Path, service: Service) -> Sent:
    """What a service is known to have."""
    try:
        return Sent.model_validate_json((work / f"tracking-{service}.json").read_bytes())
    except (OSError, ValueError):
        return Sent()


def write_sent(work: Path, service: Service, sent: Sent) -> None:
    """Remember what a service has."""
    _write_whole(work / f"tracking-{service}.json", sent.model_dump_json())


def without_credentials(text: str) -> str:
    """`text` without the user and password of an address in it."""
    return re.sub(r"(?<=://)[^/@\s]+@", "", text)


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Nested names with dots between: `recipe.learning_rate`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": each for inner, each in flat(value).items()}
        else:
            found[name] = value
    return found


def keep_offline_runs(work: Path, aux: Path) -> None:
    """Copy what W&B wrote without a network; `wandb sync` sends it later. Links do not survive in a store."""
    for run in sorted((work / "wandb").glob("offline-run-*")):
        shutil.copytree(run, aux / "wandb" / run.name, dirs_exist_ok=True, ignore=_links)


def _write_whole(file: Path, text: str) -> None:
    """In one step: the processes read each other's files at any moment."""
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(text)
    temporary.replace(file)


def _links(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_symlink()]
