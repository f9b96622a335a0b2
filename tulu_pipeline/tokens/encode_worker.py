"""A process that encodes its share of a file: `python -m tulu_pipeline.tokens.encode_worker job.json`.

Emits `{"group": 12}` when a row group is in its file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tulu_pipeline.artifacts.child_side import emit, end_with_parent
from tulu_pipeline.artifacts.json_lines import from_line
from tulu_pipeline.tokens.encode_file import GroupEncoder
from tulu_pipeline.tokens.encode_ranges import RangeJob, write_group


def main() -> None:
    """Read the job and do it."""
    end_with_parent()
    path = Path(sys.argv[1])
    work = from_line(path.read_bytes(), RangeJob, str(path))
    encoder = GroupEncoder(work.job)
    for group in range(work.first, encoder.file.groups, work.step):
        write_group(work.out, group, encoder.encode(group))
        emit({"group": group})


if __name__ == "__main__":
    main()
