"""A model whose files lack tensors: transformers draws those at random, with a warning that nobody reads."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tulu_pipeline.errors import BadInput


def refuse_lacking(missing: Collection[str], folder: str | Path, kind: str = "model") -> None:
    """Nothing, if every tensor came from a file or is tied to one that did.

    Args:
        missing: `missing_keys` of what `from_pretrained` tells with `output_loading_info`; ZeRO-3's way of loading
            tells them on every rank alike.
        folder: the model's.
        kind: what it is for people.

    Raises:
        BadInput: a tensor that no file has.
    """
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadInput(f"no file has `{min(missing)}`{more}", str(folder), f"fetch or copy the whole {kind} again")
