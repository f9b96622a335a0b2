"""What tests may ask of the machine, and the reason given where it is not there."""

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent


def _mirror() -> Path | None:
    """The folder of published data sets: TULU_MIRROR, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("TULU_MIRROR") or _ROOT.parent / "shared" / "data")
    return folder.resolve() if folder.is_dir() else None


def _has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


# marker -> is it there, and why the test is skipped where it is not
NEEDS: dict[str, tuple[Callable[[], bool], str]] = {
    "realdata": (
        lambda: _mirror() is not None,
        "no mirror of the published data sets: set TULU_MIRROR to a folder that holds them",
    ),
    "needs_libnuma": (lambda: _has_library("libnuma.so.1"), "no system library libnuma: `apt install libnuma1`"),
    "needs_compiler": (lambda: shutil.which("g++") is not None, "no C++ compiler: `apt install g++`"),
    "needs_chromium": (lambda: shutil.which("chromium") is not None, "no browser: `apt install chromium`"),
    "gpu": (lambda: Path("/dev/nvidia0").exists(), "no NVIDIA GPU"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, each test marked with something this machine lacks."""
    missing = {name: pytest.mark.skip(reason=reason) for name, (is_there, reason) in NEEDS.items() if not is_there()}
    for item in items:
        for name, skip in missing.items():
            if item.get_closest_marker(name):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder of published data sets; for tests marked `realdata`."""
    folder = _mirror()
    if folder is None:
        pytest.skip(NEEDS["realdata"][1])
    return folder
