"""A model's own tokenizer, read from its files, with what follows an end mark settled and typed control ids tamed.

The end mark is placed as an id, never as text; the text before and after it is tokenized apart. That is exact, because
a control token is a hard border for every tokenizer, and it leaves no way for text to become a control id.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from tulu_pipeline.artifacts.canonical import canonical_json, sha256_text
from tulu_pipeline.chat.options import SpecialInText, TokenizerMode
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.encoded import id_type
from tulu_pipeline.tokens.gpt2_files import from_gpt2_files, has_gpt2_files
from tulu_pipeline.tokens.llama_shape import LEGACY, NONLEGACY, is_llama
from tulu_pipeline.tokens.special_pieces import made_of_text, special_ids, without_pieces
from tulu_pipeline.tokens.text_encoder import TextEncoder, text_encoder

_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")
# Text that tells tokenizers apart: spaces, newlines, digits, case, other scripts, bytes outside most vocabularies, and
# what looks like a control token.
_PROBE = ("<|user|>\nTwo  spaces, 1234.5\n\tTab\n<|assistant|>\nÜber 猫 🐪", "\n<|user|>\n </s> end")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTokenizer:
    """Tokenizes the text between control tokens.

    Attributes:
        opening: for the text that opens a conversation. following: for text after an end mark.
        names: for what ids and control tokens are called; it is not for text.
        bos_ids: what the tokenizer puts before everything: one id, or none for families without BOS.
        end_mark_id: the id that ends an assistant's message.
        strips_at_end_mark: white space around an end mark is swallowed (`v2023_slow`).
        vocabulary_size: ids are below it.
        fingerprint: hash of the tokenizer's file and mode and of the ids of a fixed text.
        encoder: for many texts at once.
    """

    opening: Tokenizer = field(repr=False)
    following: Tokenizer = field(repr=False)
    names: Tokenizer = field(repr=False)
    bos_ids: tuple[int, ...]
    end_mark_id: int
    strips_at_end_mark: bool
    vocabulary_size: int
    fingerprint: str
    encoder: TextEncoder = field(repr=False)

    def encode_texts(self, texts: Sequence[str], *, after_end_mark: bool) -> list[Encoding]:
        """Ids and character offsets of texts that stand between control tokens."""
        backend = self.following if after_end_mark else self.opening
        return backend.encode_batch(texts, add_special_tokens=False)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text has by itself, BOS included."""
        return [len(self.bos_ids) + count for count in self.encoder.count(texts)]


def load_tokenizer(
    folder: Path, *, tokenizer_mode: TokenizerMode | None = None, special_in_text: SpecialInText = "literal"
) -> ChatTokenizer:
    """The tokenizer of a model folder (`tokenizer.json`, or `vocab.json` and `merges.txt`; `tokenizer_config.json`).

    Args:
        folder: the model's folder.
        tokenizer_mode: how a LLaMA tokenizer treats what follows an end mark: `▁ <0x0A>` (`legacy_fast`), `<0x0A>`
            (`nonlegacy`), or nothing, white space around control tokens being swallowed (`v2023_slow`, the slow
            tokenizer of transformers 4.28 to 4.33). None takes the tokenizer as its file has it.
        special_in_text: whether `</s>` typed in a message stays text (`literal`) or becomes the control id (`hf`).

    Raises:
        BadInput: a file is missing or broken, there is no end-of-sequence token, or the mode does not fit.
    """
    file, config_file = folder / "tokenizer.json", folder / "tokenizer_config.json"
    if has_gpt2_files(folder):
        text = from_gpt2_files(folder, read_json(config_file), special_tokens(folder))
    else:
        text = _read(file)
    description = _parse(text, file)
    config = read_json(config_file)
    try:
        original = Tokenizer.from_str(text)
    except Exception as error:  # the Rust library raises bare exceptions
        raise BadInput(f"the tokenizer cannot be built: {error}", str(file), "fetch the model's files again") from error

    end_mark = token_text(config.get("eos_token"))
    end_mark_id = original.token_to_id(end_mark) if end_mark else None
    if not end_mark or end_mark_id is None:
        raise BadInput(
            f"eos_token is {config.get('eos_token')!r}, no token of the vocabulary",
            str(config_file),
            "name the end-of-sequence token there",
        )
    shapes = [_for_mode(description, tokenizer_mode, file, follows) for follows in (False, True)]
    opening, following = _backends(shapes, special_in_text)
    names = opening
    specials = special_ids(names, description["model"]) if special_in_text == "literal" else {}
    if made_of_text(specials, (opening, following)):
        shapes = [without_pieces(shape, specials) for shape in shapes]
        opening, following = _backends(shapes, special_in_text)
        if still := made_of_text(specials, (opening, following)):
            raise BadInput(
                f"`{still[0]}` typed in a message becomes the control token, {len(still)} such in all",
                str(file),
                "write special_in_text=hf in the recipe, which is what then happens",
            )
    vocabulary_size = max(original.get_vocab(with_added_tokens=True).values()) + 1
    bos_ids = _bos_ids(original)
    probe = [opening.encode(_PROBE[0]).ids, following.encode(_PROBE[1]).ids]
    identity = [hashlib.sha256(text.encode()).hexdigest(), tokenizer_mode, special_in_text, bos_ids, end_mark_id, probe]
    return ChatTokenizer(
        opening=opening,
        following=following,
        names=names,
        bos_ids=bos_ids,
        end_mark_id=end_mark_id,
        strips_at_end_mark=tokenizer_mode == "v2023_slow",
        vocabulary_size=vocabulary_size,
        fingerprint=sha256_text(canonical_json(identity)),
        encoder=text_encoder(
            (shapes[0], opening),
            (shapes[1], following),
            special_is_text=special_in_text == "literal",
            never_text=frozenset(specials.values()),
            id_type=id_type(vocabulary_size),
        ),
    )


def read_json(file: Path) -> dict[str, Any]:
    """The object in one of a tokenizer's files.

    Raises:
        BadInput: there is no such file, or no JSON object in it.
    """
    return _parse(_read(file), file)


def token_text(token: Any) -> str:
    """The text of a token in `tokenizer_config.json`: a string, or an object with `content`; "" for none."""
    return str(token.get("content", "")) if isinstance(token, dict) else token or ""


def special_tokens(folder: Path) -> dict[str, str]:
    """Text of each special token that the files of a model folder name, by its role; "" for one they leave out.

    What transformers makes up for a tokenizer's class is not asked: GPT-NeoX's would have a pad token.

    Raises:
        BadInput: there is no `tokenizer_config.json`, or it or `special_tokens_map.json` is broken.
    """
    config = read_json(folder / "tokenizer_config.json")
    map_file = folder / "special_tokens_map.json"
    named = read_json(map_file) if map_file.is_file() else {}
    return {role: token_text(config.get(role)) or token_text(named.get(role)) for role in _ROLES}


def _backends(shapes: Sequence[dict[str, Any]], special_in_text: SpecialInText) -> tuple[Tokenizer, Tokenizer]:
    opening = _build(shapes[0], special_in_text)
    return opening, _build(shapes[1], special_in_text) if shapes[1] != shapes[0] else opening


def _build(description: dict[str, Any], special_in_text: SpecialInText) -> Tokenizer:
    # BOS is added as an id, and a post-processor may move offsets (ByteLevel's trim_offsets).
    bare = {"post_processor": None, "truncation": None, "padding": None}
    backend = Tokenizer.from_str(json.dumps(description | bare))
    backend.encode_special_tokens = special_in_text == "literal"
    return backend


def _for_mode(description: dict[str, Any], mode: TokenizerMode | None, file: Path, follows: bool) -> dict[str, Any]:
    result = copy.deepcopy(description)
    if mode is not None:
        if not is_llama(description):
            raise BadInput(
                f"tokenizer_mode `{mode}` is for LLaMA tokenizers, this one is built otherwise",
                str(file),
                "use tokenizer_mode None",
            )
        result["normalizer"], result["pre_tokenizer"] = LEGACY if mode != "nonlegacy" else NONLEGACY
        for token in result["added_tokens"]:
            if token["special"]:
                # As transformers adds them when it loads a tokenizer; the slow one of 2023 stripped around them.
                strips = mode == "v2023_slow"
                token.update(normalized=False, lstrip=strips, rstrip=strips)
    if follows:
        # `first` means the start of the whole text, which is not where this one stands.
        result["pre_tokenizer"] = _never_first(result["pre_tokenizer"])
    return result


def _never_first(pre_tokenizer: Any) -> Any:
    if isinstance(pre_tokenizer, dict):
        if pre_tokenizer.get("prepend_scheme") == "first":
            return pre_tokenizer | {"prepend_scheme": "never"}
        return {name: _never_first(part) for name, part in pre_tokenizer.items()}
    return [_never_first(part) for part in pre_tokenizer] if isinstance(pre_tokenizer, list) else pre_tokenizer


def _bos_ids(original: Tokenizer) -> tuple[int, ...]:
    """What the tokenizer's own template puts before a text; what it may put after it is not taken over.

    `add_bos_token` of `tokenizer_config.json` is not asked: the engines load the same files with transformers, which
    (5.19) goes by the template alone.
    """
    plain, full = (original.encode("x", add_special_tokens=add).ids for add in (False, True))
    start = next(start for start in range(len(full)) if full[start : start + len(plain)] == plain)
    return tuple(full[:start])


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"no `{file.name}`", str(file), "the model's sources must hold its tokenizer files") from None


def _parse(text: str, file: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"broken JSON: {error}", str(file), "fetch the model's files again") from error
    if not isinstance(value, dict):
        raise BadInput("not a JSON object", str(file), "fetch the model's files again")
    return value
