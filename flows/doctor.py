"""What this machine can do: checks that change nothing, and attempts to escape from the sandbox."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tulu_pipeline.errors import MissingOnMachine, StageFailed, StoreError, TuluError
from tulu_pipeline.profile import count_gpus, device_name, has_gpu
from tulu_pipeline.settings import Settings, provider_access

if TYPE_CHECKING:
    from tulu_pipeline.sandbox.probes import Finding

# ok; lacks: something that every user needs is not there; absent: something that some uses need is not; escaped: a
# program got out of the sandbox.
Status = Literal["ok", "lacks", "absent", "escaped"]
_PACKAGE = "tulu-pipeline"
_GIB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of the thing.
        status: how it is.
        detail: what was found.
        fix: what mends it, or what is not to be had without it.
    """

    name: str
    status: Status
    detail: str
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """All that was looked at.

    Attributes:
        checks: of the machine.
        tier: the sandbox that programs would run in, "" for none.
        findings: the attempts to escape from it.
    """

    checks: tuple[Check, ...]
    tier: str
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 where a program got out, 4 where something is lacking, 0 otherwise."""
        statuses = {check.status for check in self.checks}
        if "escaped" in statuses:
            return TuluError.exit_code
        return MissingOnMachine.exit_code if "lacks" in statuses else 0


def diagnose(settings: Settings, progress: Callable[[int, int], None] = lambda done, total: None) -> Diagnosis:
    """Look at everything; some seconds.

    Args:
        settings: which store, which hub.
        progress: told how many attempts to escape were made, and of how many.
    """
    checks = [_python(), _machine(), *_packages(), _gpu(), *_engines(), _store(settings), _mirror(settings)]
    checks += [*_programs(), *_keys(settings)]
    sandbox, tier, findings = _sandbox(progress)
    return Diagnosis(checks=(*checks, sandbox), tier=tier, findings=findings)


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Check(name="Python", status="ok", detail=version)
    return Check(name="Python", status="lacks", detail=version, fix="install Python 3.11, 3.12 or 3.13")


def _machine() -> Check:
    cores, memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Check(name="machine", status="ok", detail=f"{cores} cores, {memory / _GIB:.0f} GiB of memory")


def _packages() -> Iterator[Check]:
    """The base install, then each extra; which of the two serving extras is meant follows from the GPU."""
    from packaging.requirements import Requirement

    wanted: dict[str, list[Requirement]] = {"": []}
    for extra in metadata.metadata(_PACKAGE).get_all("Provides-Extra") or ():
        wanted[extra] = []
    for line in metadata.requires(_PACKAGE) or ():
        requirement = Requirement(line)
        for extra in wanted:
            if requirement.marker is None:
                if not extra:
                    wanted[extra].append(requirement)
            elif extra and requirement.marker.evaluate({"extra": extra}):
                wanted[extra].append(requirement)
    wanted.pop("serve-cpu" if has_gpu() else "serve-cuda", None)
    for extra, requirements in wanted.items():
        wrong = [problem for requirement in requirements if (problem := _what_is_wrong(requirement))]
        name = f"packages [{extra}]" if extra else "packages"
        needed: Status = "absent" if extra else "lacks"
        if wrong:
            fix = f"`pip install '{_PACKAGE}[{extra}]'`" if extra else "`make setup`"
            yield Check(name=name, status=needed, detail=", ".join(wrong), fix=fix)
        else:
            yield Check(name=name, status="ok", detail=f"{len(requirements)} there")


def _what_is_wrong(requirement: object) -> str:
    from packaging.requirements import Requirement

    assert isinstance(requirement, Requirement)
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"no {requirement.name}"
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name} {version}, not {requirement.specifier}"


def _gpu() -> Check:
    if has_gpu():
        return Check(name="GPU", status="ok", detail=f"{count_gpus()}: {device_name()}")
    return Check(name="GPU", status="absent", detail="none that is visible", fix="small models run on the processor")


def _engines() -> Iterator[Check]:
    from tulu_pipeline.inference.engine import what_lacks

    lacks = {engine: what_lacks(engine, gpu=has_gpu()) for engine in ("vllm", "transformers")}
    for engine, lack in lacks.items():
        if lack is None:
            yield Check(name=f"engine {engine}", status="ok", detail="nothing speaks against it")
        else:
            status: Status = "lacks" if all(lacks.values()) else "absent"
            yield Check(name=f"engine {engine}", status=status, detail=lack.what, fix=lack.fix)


def _store(settings: Settings) -> Check:
    from tulu_pipeline.artifacts.storage import open_storage

    probe = f".doctor-{os.getpid()}"
    try:
        storage = open_storage(settings.store)
        made = storage.local is not None and not storage.local.exists()
        storage.write(probe, b"x")
        storage.remove(probe)
        if made and storage.local is not None:
            storage.local.rmdir()
    except StoreError as error:
        return Check(name="store", status="lacks", detail=f"{settings.store}: {error.what}", fix=error.fix)
    except TuluError as error:
        return Check(name="store", status="lacks", detail=error.what, fix=error.fix)
    except OSError as error:
        fix = "make it writable, or use another one: `--store PATH`"
        return Check(name="store", status="lacks", detail=f"{settings.store}: {error}", fix=fix)
    return Check(name="store", status="ok", detail=f"{settings.store} is writable{_room(storage.local)}")


def _room(folder: Path | None) -> str:
    if folder is None:
        return ""
    there = next(path for path in (folder, *folder.resolve().parents) if path.exists())
    return f", {shutil.disk_usage(there).free / _GIB:.0f} GiB free"


def _mirror(settings: Settings) -> Check:
    if settings.mirror is None:
        return Check(name="mirror", status="absent", detail="TULU_MIRROR is not set", fix="files come from their hosts")
    manifest = Path(settings.mirror, "MANIFEST.json")
    if "://" in settings.mirror or manifest.is_file():
        return Check(name="mirror", status="ok", detail=settings.mirror)
    detail = f"no `MANIFEST.json` in {settings.mirror}"
    return Check(name="mirror", status="lacks", detail=detail, fix="mend TULU_MIRROR, or take it away")


def _programs() -> Iterator[Check]:
    for name, programs, use in (
        ("C++ compiler", ("g++", "clang++"), "DeepSpeed's optimizers for processors: `apt install g++`"),
        ("CUDA compiler", ("nvcc",), "DeepSpeed's kernels for GPUs, where no built ones are at hand"),
        ("ninja", ("ninja",), "building DeepSpeed's parts: extra `train`"),
        ("git", ("git",), "the commit in an artifact's provenance: `apt install git`"),
        ("Chromium", ("chromium", "chromium-browser", "google-chrome"), "tests of the report: `apt install chromium`"),
        ("ssh", ("ssh",), "finetuning on several machines with the launcher `hostfile`: `apt install openssh-client`"),
        ("Slurm", ("srun", "sbatch"), "finetuning with the launcher `slurm`"),
    ):
        found = next((path for program in programs if (path := shutil.which(program))), None)
        if found:
            yield Check(name=name, status="ok", detail=found)
        else:
            yield Check(name=name, status="absent", detail=f"no `{programs[0]}`", fix=f"needed for {use}")


def _keys(settings: Settings) -> Iterator[Check]:
    """Whether keys are set; never what they are."""
    for name, there, use in (
        ("hub token", bool(settings.hub_token), "gated models and `tulu publish`: HF_TOKEN"),
        ("OpenAI key", bool(provider_access("openai").key), "judges and models of OpenAI: OPENAI_API_KEY"),
    ):
        if there:
            yield Check(name=name, status="ok", detail="is set")
        else:
            yield Check(name=name, status="absent", detail="is not set", fix=f"needed for {use}")


def _sandbox(progress: Callable[[int, int], None]) -> tuple[Check, str, tuple[Finding, ...]]:
    from tulu_pipeline.sandbox.probes import probe
    from tulu_pipeline.sandbox.tiers import best_tier

    try:
        tier = best_tier()
        findings = tuple(probe(tier, progress=progress))
    except (MissingOnMachine, StageFailed) as error:
        return Check(name="sandbox", status="lacks", detail=error.what.replace("\n", "; "), fix=error.fix), "", ()
    out = [each.name for each in findings if not each.blocked]
    if out:
        fix = "execute no programs on this machine, and report this"
        return Check(name="sandbox", status="escaped", detail=f"{tier}: {', '.join(out)}", fix=fix), tier, findings
    return Check(name="sandbox", status="ok", detail=f"{tier}: {len(findings)} attempts blocked"), tier, findings
