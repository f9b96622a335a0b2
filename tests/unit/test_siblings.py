"""The ranks of one machine watch each other, and part without taking each other's end for a failure."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_RANK = """
import os, sys, time
from datetime import timedelta
import torch.distributed as dist
from tulu_pipeline.training.launching.siblings import Siblings

rank, folder, seconds = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2,
                        timeout=timedelta(seconds=60))
siblings = Siblings(rank, 2)
dist.barrier()
open(f"{folder}/ready-{rank}", "w").close()
time.sleep(seconds)
siblings.is_over()
print("over", flush=True)
os._exit(0)
"""


def start_ranks(folder: Path, *seconds: float) -> list["subprocess.Popen[str]"]:
    """Two ranks whose work takes these seconds each."""
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            [sys.executable, "-c", _RANK, str(rank), str(folder), str(each)],
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank, each in enumerate(seconds)
    ]


@pytest.mark.timeout(120)
def test_a_rank_that_is_slow_to_end_takes_no_other_that_has_ended_for_lost(tmp_path: Path) -> None:
    ranks = start_ranks(tmp_path, 0.0, 2.5)  # more than the second after which one that is gone is told
    try:
        said = [rank.communicate(timeout=90)[0].split() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert said == [["over"], ["over"]]
    assert [rank.returncode for rank in ranks] == [0, 0]
