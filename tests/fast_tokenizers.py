"""Small tokenizers: of every shape for which words are cut, with merges wherever their shape lets them be; and of kinds
of models that have special tokens among the pieces they make of text."""

import json
import random
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

CONTROL = ("<unk>", "<s>", "</s>")
# What patterns and merges treat in different ways: letters with and without case, digits, marks, white space of all
# kinds, control characters, punctuation, other scripts, combining marks, characters that NFC changes.
ODD = "aZsStTrevlmd019½Ⅷé \u00a0\u2003\u3000\u200b\t\n\r\v\f\x00\x1c\x85\u2028" + (
    ".,!?\"'_$%#()<>|/\\=-▁漢字かな한🐪\u0301\u0338\u212b\u1fef٣ا"
)
LLAMA3, QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in ("{1,3}", "")
)
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_GPT2 = _BYTES | {"use_regex": True}


def _behind(pattern: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _BYTES | {"use_regex": False}]}


_DIGITS = {"type": "Digits", "individual_digits": True}
# Name: normalizer, pre-tokenizer, added tokens, whether merges are ignored where a word is in the vocabulary.
BYTE_LEVEL: dict[str, tuple[Any, Any, tuple[str, ...], bool]] = {
    "gpt2": (None, _GPT2, (), False),
    "neox": ({"type": "NFC"}, _GPT2, ("  ", "    ", "\n1"), False),
    "digits apart": (None, {"type": "Sequence", "pretokenizers": [_DIGITS, _GPT2]}, (), False),
    "llama3": (None, _behind(LLAMA3), (), True),
    "qwen2": ({"type": "NFC"}, _behind(QWEN2), ("<think>", "a_", "\na"), False),
}


def odd_text(seed: int, size: int = 3000) -> str:
    """Odd characters in runs and pairs that come again, so that a trainer finds merges among them."""
    draw = random.Random(seed)
    bits = ["".join(draw.choices(ODD, k=draw.randint(1, 4))) for _ in range(60)]
    bits += [character * draw.randint(2, 4) for character in ODD] + ["the", " the", " and", "'s", "\n\n", "ing "]
    return "".join(draw.choices(bits, k=size))


def write_llama(folder: Path, seed: int, *, vocabulary: int = 700) -> Path:
    """As LLaMA's is built, but with merges among anything: over spaces, newlines, digits and scripts."""
    trained = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, show_progress=False, max_token_length=6)
    text = odd_text(seed).replace(" ", "▁")
    trained.train_from_iterator([text[start : start + 97] for start in range(0, len(text), 97)], trainer)
    learned = json.loads(trained.to_str())["model"]
    # Half of the characters fall back to bytes. No piece is a merge of one of them.
    draw = random.Random(seed)
    unknown = {character for character in ODD if character != "▁" and draw.random() < 0.3}
    words = [piece for piece in learned["vocab"] if not unknown & set(piece)]
    merges = [pair for pair in learned["merges"] if not unknown & set("".join(pair))]
    pieces = [*CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": {piece: index for index, piece in enumerate(pieces)},
        "merges": merges,
    }
    normalizers = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    return _write(folder, model, {"type": "Sequence", "normalizers": normalizers}, None, (), CONTROL)


def write_byte_level(folder: Path, name: str, seed: int, *, vocabulary: int = 700) -> Path:
    """One of `BYTE_LEVEL`."""
    normalizer, splitter, added, ignore_merges = BYTE_LEVEL[name]
    trained = Tokenizer(models.BPE())
    bare = json.loads(trained.to_str()) | {"normalizer": normalizer, "pre_tokenizer": splitter}
    trained = Tokenizer.from_str(json.dumps(bare))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, show_progress=False, initial_alphabet=alphabet, special_tokens=list(CONTROL)
    )
    trained.train_from_iterator([odd_text(seed)], trainer)
    model = json.loads(trained.to_str())["model"] | {"ignore_merges": ignore_merges}
    if ignore_merges:  # words that no merge makes
        for word in ("Ġthe", "ing", "Ġ'", "99"):
            model["vocab"].setdefault(word, len(model["vocab"]))
    return _write(folder, model, normalizer, splitter, added, CONTROL)


def write_whole_pieces(folder: Path, kind: Literal["unigram", "word_level"]) -> Path:
    """A tokenizer whose model takes `</s>` for a piece like any other, as its trainer leaves it."""
    corpus = ["some words </ s > < / and letters a b c, 1 2 3 "] * 20
    if kind == "unigram":
        trained = Tokenizer(models.Unigram())
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        trained.train_from_iterator(
            corpus,
            trainers.UnigramTrainer(
                vocab_size=60, special_tokens=list(CONTROL), unk_token=CONTROL[0], show_progress=False
            ),
        )
    else:
        trained = Tokenizer(models.WordLevel(unk_token=CONTROL[0]))
        trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        trained.train_from_iterator(
            corpus, trainers.WordLevelTrainer(special_tokens=list(CONTROL), show_progress=False)
        )
    description = json.loads(trained.to_str())
    return _write(folder, description["model"], None, description["pre_tokenizer"], (), CONTROL)


def _write(
    folder: Path, model: Any, normalizer: Any, splitter: Any, added: tuple[str, ...], special: tuple[str, ...]
) -> Path:
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    vocabulary = model["vocab"]
    if model["type"] == "Unigram":
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    tokens = [
        {"id": vocabulary[token], "content": token, "normalized": False, "special": True} | flags for token in special
    ]
    for token in added:
        place = model["vocab"].setdefault(token, len(model["vocab"]))
        tokens.append({"id": place, "content": token, "normalized": True, "special": False} | flags)
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": tokens,
        "normalizer": normalizer,
        "pre_tokenizer": splitter,
        "post_processor": None,
        "decoder": None,
        "model": model,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
