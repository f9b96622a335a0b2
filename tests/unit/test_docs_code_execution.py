"""The program in docs/code_execution.md runs, and its numbers are the code's."""

import pytest
from doc_pages import blocks, page

from tulu_pipeline.sandbox import confine, probes, tiers, watching, world

TEXT = page("code_execution")


@pytest.mark.skipif(
    bool(tiers.what_refuses("namespaces") and tiers.what_refuses("bubblewrap")),
    reason="no sandbox on this machine: see `tulu doctor`",
)
def test_the_program_does_what_the_guide_says(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks(TEXT)
    exec(compile(code, "docs/code_execution.md", "exec"), {})
    lines = sorted(capsys.readouterr().out.splitlines())
    assert lines[0].split() == ["1", "passed"]
    assert lines[1].startswith("2 failed FileNotFoundError")


def test_the_limits_are_those_of_the_code() -> None:
    assert f"{confine.ADDRESS_SPACE_BYTES // 2**30} GiB of\n  address space" in TEXT
    assert f"files of {confine.FILE_BYTES // 2**20} MiB, {confine.DESCRIPTORS} descriptors" in TEXT
    assert f"{confine.THREADS} threads, {watching.OUTPUT_BYTES // 2**10} KiB of output" in TEXT
    assert f"an empty folder of {world.SCRATCH_BYTES // 2**20} MiB" in TEXT
    assert f"{len(probes.PROBES)} programs try to get out" in TEXT
