"""DeepSpeed's launcher of the ranks of one machine, with its own arguments; it starts sooner this way."""

from __future__ import annotations

import tulu_pipeline.training.unused_packages  # noqa: F401  # before the others

# isort: split
from deepspeed.launcher.launch import main

if __name__ == "__main__":
    main()
