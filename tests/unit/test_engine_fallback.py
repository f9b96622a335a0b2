"""A machine on which vLLM cannot load: its system library is hidden in a mount namespace of the test's own."""

import ctypes
import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from fakes.processes import TULU, environment

pytestmark = [
    pytest.mark.needs_libnuma,
    pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="hiding a library needs root"),
]


def library() -> Path:
    """The file behind libnuma.so.1."""
    ctypes.CDLL("libnuma.so.1")
    lines = Path("/proc/self/maps").read_text().splitlines()
    return Path(next(line for line in lines if "libnuma" in line).split()[-1])


def test_without_libnuma_generation_goes_to_transformers_and_says_so(tmp_path: Path) -> None:
    hide = f"mount --bind /dev/null {shlex.quote(str(library()))}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{hide} && exec {shlex.quote(TULU)} plan demo --json"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr and "ermitted" in done.stderr:
        pytest.skip("this machine forbids mount namespaces")
    assert done.returncode == 0, done.stderr
    assert "vLLM cannot load here (the system library libnuma is missing)" in done.stderr
    assert "generating with transformers instead" in done.stderr
    assert json.loads(done.stdout)["counts"]["MISS"] > 0
