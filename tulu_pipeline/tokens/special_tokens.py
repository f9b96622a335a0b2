"""Which tokens begin, end and pad the texts of a base model: what its value says against what its files say."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from tulu_pipeline.errors import BadInput

if TYPE_CHECKING:
    from tulu_pipeline.tokens.tokenizer import ChatTokenizer  # imports the tokenizers library

ADDED_PAD = "<pad>"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialTokens:
    """The tokens that frame a text.

    Attributes:
        bos: what the tokenizer puts before every text; "" for nothing.
        eos: what ends an answer.
        pad: what fills a row up where conversations lie under each other; nothing is learned of it.
        pad_is_new: the tokenizer's files name no pad token, so that finetuning adds `<pad>`.
    """

    bos: str
    eos: str
    pad: str = ADDED_PAD
    pad_is_new: bool = False

    def __post_init__(self) -> None:
        if self.pad_is_new and self.pad != ADDED_PAD:
            raise BadInput(
                f"pad is `{self.pad}` and new",
                "special tokens",
                f"leave pad out: what finetuning adds is `{ADDED_PAD}`",
            )


def special_tokens_of(folder: Path, tokenizer: ChatTokenizer) -> SpecialTokens:
    """What the files of a tokenizer say, and what finetuning makes of it.

    Args:
        folder: with `tokenizer_config.json`.
        tokenizer: loaded from there.

    Raises:
        BadInput: a file is missing or broken.
    """
    from tulu_pipeline.tokens.tokenizer import special_tokens

    pad = special_tokens(folder)["pad_token"]
    return SpecialTokens(
        bos="".join(str(tokenizer.names.id_to_token(token_id)) for token_id in tokenizer.bos_ids),
        eos=str(tokenizer.names.id_to_token(tokenizer.end_mark_id)),
        pad=pad or ADDED_PAD,
        pad_is_new=not pad,
    )


def differences(said: SpecialTokens, found: SpecialTokens) -> list[str]:
    """Where the files of a tokenizer are not as its value says, in words."""
    return [
        f"{field.name} is {_word(getattr(found, field.name))} by the tokenizer's files, "
        f"and {_word(getattr(said, field.name))} by the model's value"
        for field in fields(SpecialTokens)
        if getattr(found, field.name) != getattr(said, field.name)
    ]


def as_written(found: SpecialTokens) -> str:
    """The value that says what was found."""
    pad = "pad_is_new=True" if found.pad_is_new else f"pad={found.pad!r}"
    return f"SpecialTokens(bos={found.bos!r}, eos={found.eos!r}, {pad})"


def check_special_tokens(said: SpecialTokens, folder: Path, tokenizer: ChatTokenizer) -> None:
    """Raises BadInput where the files of a tokenizer are not as its value says; it tells all that differs."""
    found = special_tokens_of(folder, tokenizer)
    if told := differences(said, found):
        raise BadInput("; ".join(told), str(folder), how_to_mend(found))


def how_to_mend(found: SpecialTokens) -> str:
    """What to write where the files are right."""
    return f"name the files that were meant, or write special_tokens={as_written(found)} in the model's tokenizer"


def _word(value: str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"`{value}`" if value else "nothing"
