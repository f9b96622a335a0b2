"""What ranks start with: their variables, and no more than they use."""

import os
import subprocess
import sys

import pytest

from tulu_pipeline.profile import Profile, has_gpu
from tulu_pipeline.training.launching.launchers import rank_environment

_PAGE_FAULTS = """
import resource
import numpy as np

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

np.ones(1 << 23)
before = page_faults()
for _ in range(10):
    np.ones(1 << 23)
print(page_faults() - before)
"""


def page_faults(environment: dict[str, str]) -> int:
    """Of filling 64 MiB, ten times over, once the process has had as much."""
    script = [sys.executable, "-c", _PAGE_FAULTS]
    return int(subprocess.check_output(script, env=os.environ | environment, text=True))


@pytest.mark.skipif(sys.platform != "linux" or has_gpu(), reason="glibc's allocator, for ranks on a CPU")
def test_a_rank_on_a_cpu_computes_its_next_pass_in_the_memory_of_the_last() -> None:
    pages = (64 << 20) // os.sysconf("SC_PAGE_SIZE")
    assert page_faults({}) > pages // 100
    assert page_faults(rank_environment(Profile(), "lo")) < pages // 100


def test_a_rank_starts_without_what_no_rank_uses() -> None:
    script = "import sys, tulu_pipeline.training.worker; print(*(name for name in sys.modules if sys.modules[name]))"
    environment = os.environ | rank_environment(Profile(), "lo")
    imported = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).splitlines()[-1]
    assert set(imported.split()) & {"mlflow", "pandas", "peft", "prefect", "scipy", "sklearn"} == set()
