"""Which tokenizers are taken apart into words, where, and why others are not."""

import copy
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fast_tokenizers import BYTE_LEVEL, write_byte_level, write_llama

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.models.tiny import write_tokenizer
from tulu_pipeline.tokens.cuts import Cuts, find_cuts
from tulu_pipeline.tokens.encode import encode_many
from tulu_pipeline.tokens.text_encoder import TextEncoder
from tulu_pipeline.tokens.tokenizer import load_tokenizer

Change = Callable[[dict[str, Any]], object]
TALK = Conversation("d", "d_0", (Message("user", "Two  words, 12 \n\n and"), Message("assistant", "more.\n\tTab's")))


def description(folder: Path) -> Any:
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))


def cut(cuts: Cuts | str, text: str) -> list[str]:
    assert isinstance(cuts, Cuts), cuts
    data = text.encode()
    places = cuts.words(data).tolist()
    return [data[start:end].decode() for start, end in pairwise(places)]


def test_llama_is_cut_where_no_merge_joins(llama_like: Path) -> None:
    shape = description(llama_like)
    joins = {(left[-1], right[0]) for left, right in shape["model"]["merges"]}
    text = "def f():\n  return 12 + 3,  ÜÄ\n\n漢字 ▁x"
    words = cut(find_cuts(shape, shape, special_is_text=True), text.replace("▁", " "))
    assert "".join(words) == text.replace("▁", " ")
    places = {len("".join(words[:count])) for count in range(1, len(words))}
    as_pieces = text.replace(" ", "▁")
    # By bytes, so that two characters that end or begin alike are taken for one; then there is no cut.
    sure = {place for place in range(1, len(text)) if (as_pieces[place - 1], as_pieces[place]) not in joins}
    assert places <= sure
    assert len(places) > len(sure) * 0.9


def test_patterns_are_cut_at_their_sure_borders(tmp_path: Path) -> None:
    text = "It's “so” (easy) to_do\n« x1y2, \n\n\u3000z  end \nof\n it \né a.\nb"
    words = {}
    for name in ("gpt2", "llama3"):
        shape = description(write_byte_level(tmp_path / name, name, 1))
        words[name] = cut(find_cuts(shape, shape, special_is_text=True), text)
    so, end = ["It", "'s", " “so”"], [" \n\n\u3000z", "  end"]
    first = [*so, " (", "easy", ")", " to", "_", "do", "\n", "«", " x", "1", "y", "2", ",", *end]
    assert words["gpt2"] == [*first, " \nof", "\n it", " \né a", ".", "\n", "b"]
    first = [*so, " (easy", ")", " to", "_do", "\n", "«", " x", "1", "y", "2", ",", *end]
    assert words["llama3"] == [*first, " \n", "of", "\n it", " \n", "é a", ".\n", "b"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda shape: shape["model"].update(type="WordPiece"), "the model is WordPiece"),
        (lambda shape: shape["model"].update(dropout=0.1), "the model is BPE with dropout"),
        (lambda shape: shape["model"].update(end_of_word_suffix="</w>"), "the model is BPE with end_of_word_suffix"),
        (lambda shape: shape["model"].update(ignore_merges=True), "the model ignores merges"),
        (lambda shape: shape["model"]["vocab"].pop("<0x41>"), "not every byte is in the vocabulary"),
        (lambda shape: shape["model"]["merges"].append(["<0xE2>", "<0x96>"]), "of which one is a byte"),
        (
            lambda shape: shape["added_tokens"].append({"content": "a", "special": False, "normalized": True}),
            "added tokens are looked for in normalized text",
        ),
    ],
)
def test_llamas_that_cannot_be_cut_say_why(llama_like: Path, change: Change, why: str) -> None:
    shape = description(llama_like)
    change(shape)
    found = find_cuts(shape, shape, special_is_text=True)
    assert isinstance(found, str)
    assert why in found


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda shape: shape.update(normalizer={"type": "NFKC"}), "unknown normalizer"),
        (lambda shape: shape.update(pre_tokenizer={"type": "Whitespace"}), "unknown pre-tokenizer"),
        (lambda shape: shape["pre_tokenizer"].update(add_prefix_space=True), "unknown pre-tokenizer"),
        (lambda shape: shape.update(pre_tokenizer=None), "unknown pre-tokenizer"),
        (lambda shape: shape["model"]["vocab"].pop("Ā"), "not every byte is in the vocabulary"),
        (
            lambda shape: shape["added_tokens"].append(
                {"content": "x", "special": False, "lstrip": True, "rstrip": False, "single_word": False}
            ),
            "added tokens take white space with them",
        ),
    ],
)
def test_byte_levels_that_cannot_be_cut_say_why(byte_level: Path, change: Change, why: str) -> None:
    shape = description(byte_level)
    change(shape)
    found = find_cuts(shape, shape, special_is_text=True)
    assert isinstance(found, str)
    assert why in found


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_no_cut_goes_through_an_added_token(tmp_path: Path, name: str) -> None:
    shape = description(write_byte_level(tmp_path, name, 1))
    for special_is_text in (True, False):
        cuts = find_cuts(shape, shape, special_is_text=special_is_text)
        for token in shape["added_tokens"]:
            if not (token["special"] and special_is_text):
                assert cut(cuts, token["content"]) == [token["content"]]


@pytest.mark.parametrize("all_words", [0, 1])
def test_the_demos_tokenizers_are_encoded_the_fast_way(tmp_path: Path, all_words: int) -> None:
    write_tokenizer(tmp_path, vocabulary=1344, all_words=all_words)
    assert load_tokenizer(tmp_path).encoder.way == "fast"


def test_other_tokenizers_are_encoded_the_plain_way_and_say_why(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path, "gpt2", 1)
    fast = encode_many([TALK], load_tokenizer(folder), EncodeOptions())
    shape = description(folder)
    # Splitting at nothing changes no id, but is not among the known shapes.
    nothing = {"type": "Split", "pattern": {"String": "\U0010ffff"}, "behavior": "Isolated", "invert": False}
    shape["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [nothing, shape["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(shape), encoding="utf-8")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encoder.way.startswith("plain: unknown pre-tokenizer")
    plain = encode_many([TALK], tokenizer, EncodeOptions())
    assert plain[0].input_ids.tolist() == fast[0].input_ids.tolist()
    assert plain[0].loss_mask.tolist() == fast[0].loss_mask.tolist()


def test_a_tokenizer_that_the_reasoning_gets_wrong_is_found_out(
    llama_like: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tulu_pipeline.tokens import text_encoder

    def cuts_anywhere(*shapes: Any, special_is_text: bool) -> Cuts | str:
        found = find_cuts(*shapes, special_is_text=special_is_text)
        assert isinstance(found, Cuts)
        found.allowed.reshape(256, 256)[:0x80] = True  # in front of every ASCII character
        return found

    monkeypatch.setattr(text_encoder, "find_cuts", cuts_anywhere)
    way = load_tokenizer(llama_like, tokenizer_mode="legacy_fast").encoder.way
    assert way == "plain: the fast way gives other tokens for a text that tells tokenizers apart"


def test_tokens_are_counted_as_the_tokenizer_counts(tmp_path: Path, llama_like: Path) -> None:
    texts = ["", "one", " two  words\n", "a\tb </s> ▁ 漢字", "x" * 300] * 3
    for folder in (llama_like, write_llama(tmp_path / "odd", 5), write_byte_level(tmp_path / "neox", "neox", 5)):
        tokenizer = load_tokenizer(folder)
        expected = [len(tokenizer.opening.encode(text, add_special_tokens=False).ids) for text in texts]
        assert tokenizer.count_tokens(texts) == [len(tokenizer.bos_ids) + count for count in expected]


def test_the_memo_starts_anew_when_it_is_full(llama_like: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tulu_pipeline.tokens import word_memo

    expected = load_tokenizer(llama_like).count_tokens([f"word{number} and" for number in range(200)])
    monkeypatch.setattr(word_memo, "_MOST_WORDS", 20)
    encoder: TextEncoder = load_tokenizer(llama_like).encoder
    counts = [encoder.count([f"word{number} and"])[0] + 1 for number in range(200)]
    assert counts == expected


def test_a_change_of_the_shape_leaves_the_description_alone(llama_like: Path) -> None:
    shape = description(llama_like)
    before = copy.deepcopy(shape)
    find_cuts(shape, shape, special_is_text=False)
    assert shape == before
