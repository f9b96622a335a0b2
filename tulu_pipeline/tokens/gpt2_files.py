"""A tokenizer published as GPT-2's `vocab.json` and `merges.txt`, as OPT's is, in the form of a `tokenizer.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

from tulu_pipeline.errors import BadInput

FILES = ("vocab.json", "merges.txt")
_CLASSES = frozenset({"GPT2Tokenizer", "GPT2TokenizerFast"})


def has_gpt2_files(folder: Path) -> bool:
    """Whether the tokenizer of a folder is in these files alone."""
    return not (folder / "tokenizer.json").is_file() and all((folder / name).is_file() for name in FILES)


def from_gpt2_files(folder: Path, config: Mapping[str, Any], special: Mapping[str, str]) -> str:
    """The text of the `tokenizer.json` that transformers makes of these files.

    Args:
        folder: the model's.
        config: its `tokenizer_config.json`.
        special: text of each special token by its role: `bos_token`, `eos_token`, `unk_token`, `pad_token`.

    Raises:
        BadInput: a file is broken, or they are not those of a GPT-2 tokenizer.
    """
    where, class_ = str(folder / "tokenizer_config.json"), config.get("tokenizer_class")
    if class_ not in _CLASSES:
        raise BadInput(
            f"`vocab.json` and `merges.txt` of a {class_!r} have a meaning that is not known here",
            where,
            "save the tokenizer with transformers, which writes a `tokenizer.json`",
        )
    try:
        tokenizer = Tokenizer(models.BPE.from_file(*(str(folder / name) for name in FILES)))
    except Exception as error:  # the Rust library raises bare exceptions
        raise BadInput(f"the tokenizer cannot be built: {error}", where, "fetch the model's files again") from error
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in dict.fromkeys(special.values()) if token]
    )
    bos = special.get("bos_token", "")
    if config.get("add_bos_token") and bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return str(tokenizer.to_str())
