"""What `make setup` owes to someone on a machine that is not ready for it, and what the pinned lists hold."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What setup reads, in a folder of its own, with a space in its path."""
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    (folder / "deployments").mkdir()
    shutil.copy(ROOT / "deployments" / "setup.sh", folder / "deployments")
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_setup(checkout: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run setup where every Python on PATH is this shell script."""
    programs = checkout / "programs"
    programs.mkdir()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        program = programs / name
        program.write_text(f"#!/bin/sh\n{python}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "PATH": f"{programs}:/usr/bin:/bin"}
    return subprocess.run(
        ["sh", checkout / "deployments" / "setup.sh", "cpu"], env=environment, capture_output=True, text=True
    )


def test_an_old_python_is_named_with_the_fix(checkout: Path) -> None:
    done = run_setup(checkout, 'if [ "$1" = -V ]; then echo Python 3.8.10; else exit 1; fi')
    assert done.returncode == 1
    assert "python3 is Python 3.8.10" in done.stderr
    assert "fix: install one" in done.stderr
    assert not (checkout / ".venv").exists()


def test_a_python_without_venv_is_named_with_the_package_to_install(checkout: Path) -> None:
    done = run_setup(checkout, f'case "$*" in *ensurepip*) exit 1 ;; *) exec "{sys.executable}" "$@" ;; esac')
    assert done.returncode == 1
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    assert f"setup: {version} lacks the venv module\n  fix: `apt install {version}-venv`" in done.stderr
    assert not (checkout / ".venv").exists()


def test_an_unknown_device_is_refused(checkout: Path) -> None:
    done = subprocess.run(
        ["sh", checkout / "deployments" / "setup.sh", "tpu"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "unknown device `tpu`" in done.stderr


def pins(device: str) -> dict[str, str]:
    lines = (ROOT / "requirements" / f"{device}.txt").read_text().splitlines()
    named = [line.split("==") for line in lines if not line.lstrip().startswith("#")]
    return dict(named)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_list_holds_pins_and_reasons_and_no_place_to_fetch_from(device: str) -> None:
    for line in (ROOT / "requirements" / f"{device}.txt").read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+(\[[a-z0-9,-]+\])?==[a-z0-9.]+|    # +via.*|    #   [a-z0-9-]+.*", line), line
        assert "://" not in line


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_list_is_in_step_with_pyproject(device: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    other = {"cpu": "serve-cuda", "cuda": "serve-cpu"}[device]
    wanted = [*project["dependencies"]]
    for extra, requirements in project["optional-dependencies"].items():
        if extra != other:
            wanted += requirements
    pinned = pins(device)
    stale = [
        line for line in wanted if not Requirement(line).specifier.contains(pinned.get(Requirement(line).name, ""))
    ]
    assert not stale, "run `make lock`"


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_breaks_transformers_on_a_cpu_stays_out(device: str) -> None:
    assert not {"torchvision", "torchaudio", "torchcodec"} & pins(device).keys()
