"""Loading a tokenizer: BOS, end mark, modes, identity."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fast_tokenizers import write_whole_pieces
from tokenizers import Tokenizer

from tulu_pipeline.chat.options import SpecialInText
from tulu_pipeline.chat.spans import Span
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.control_tokens import ControlTokens
from tulu_pipeline.tokens.encoded import id_type
from tulu_pipeline.tokens.marked_text import marked
from tulu_pipeline.tokens.plain_text import PlainText
from tulu_pipeline.tokens.tokenizer import load_tokenizer

SPECIAL_IN_TEXT: tuple[SpecialInText, ...] = ("literal", "hf")


@pytest.fixture
def changed(llama_like: Path, tmp_path: Path) -> Any:
    """A copy of the LLaMA-like tokenizer with other files."""

    def change(config: dict[str, Any] | None = None, **parts: Any) -> Path:
        folder = tmp_path / "changed"
        shutil.copytree(llama_like, folder, dirs_exist_ok=True)
        if config is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if parts:
            description = json.loads((llama_like / "tokenizer.json").read_text(encoding="utf-8"))
            (folder / "tokenizer.json").write_text(json.dumps(description | parts))
        return folder

    return change


def test_bos_is_what_the_tokenizer_itself_adds(llama_like: Path, byte_level: Path, changed: Any) -> None:
    assert load_tokenizer(llama_like).bos_ids == (1,)
    assert load_tokenizer(byte_level).bos_ids == ()
    assert load_tokenizer(changed(post_processor=None)).bos_ids == ()


@pytest.mark.parametrize("add_bos_token", [True, False, None])
@pytest.mark.parametrize("has_template", [True, False])
def test_bos_is_what_transformers_adds(changed: Any, add_bos_token: bool | None, has_template: bool) -> None:
    from transformers import PreTrainedTokenizerFast

    config = {"bos_token": "<s>", "eos_token": "</s>"} | (
        {} if add_bos_token is None else {"add_bos_token": add_bos_token}
    )
    folder = changed(config=config, **({} if has_template else {"post_processor": None}))
    peer, ours = PreTrainedTokenizerFast.from_pretrained(folder), load_tokenizer(folder)
    plain = ours.encode_texts(["some text"], after_end_mark=False)[0].ids
    assert peer("some text").input_ids == [*ours.bos_ids, *plain]


def test_the_fingerprint_tells_modes_and_vocabularies_apart(llama_like: Path, byte_level: Path) -> None:
    prints = {
        load_tokenizer(llama_like).fingerprint,
        load_tokenizer(llama_like, tokenizer_mode="legacy_fast").fingerprint,
        load_tokenizer(llama_like, tokenizer_mode="nonlegacy").fingerprint,
        load_tokenizer(llama_like, special_in_text="hf").fingerprint,
        load_tokenizer(byte_level).fingerprint,
    }
    assert len(prints) == 5
    assert load_tokenizer(llama_like).fingerprint in prints


def test_both_published_shapes_of_a_llama_tokenizer_give_the_same_ids(llama_like: Path, changed: Any) -> None:
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    other = changed(normalizer=None, pre_tokenizer=metaspace)
    for mode in ("legacy_fast", "nonlegacy", "v2023_slow"):
        for after_end_mark in (False, True):
            ids = [
                load_tokenizer(folder, tokenizer_mode=mode)
                .encode_texts(["\n a  b 12\n"], after_end_mark=after_end_mark)[0]
                .ids
                for folder in (llama_like, other)
            ]
            assert ids[0] == ids[1]


def test_a_mode_is_refused_for_other_families(byte_level: Path) -> None:
    with pytest.raises(BadInput, match="`legacy_fast` is for LLaMA tokenizers"):
        load_tokenizer(byte_level, tokenizer_mode="legacy_fast")


@pytest.mark.parametrize(
    ("config", "what"),
    [({}, "eos_token is None"), ({"eos_token": "<end>"}, "no token of the vocabulary")],
)
def test_a_tokenizer_without_its_end_mark_is_refused(changed: Any, config: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput, match=what) as caught:
        load_tokenizer(changed(config=config))
    assert caught.value.where.endswith("tokenizer_config.json")


def test_missing_and_broken_files_are_named(changed: Any, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no `tokenizer\.json`"):
        load_tokenizer(tmp_path)
    folder = changed()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BadInput, match="broken JSON"):
        load_tokenizer(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="cannot be built"):
        load_tokenizer(folder)


@pytest.mark.parametrize("kind", ["unigram", "word_level"])
def test_a_special_piece_of_the_model_is_kept_from_text_alone(tmp_path: Path, kind: Any) -> None:
    folder = write_whole_pieces(tmp_path, kind)
    literal, taken = (load_tokenizer(folder, special_in_text=how) for how in SPECIAL_IN_TEXT)
    original = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("some words and letters", "a 1 b 2, unknown: ä", ""):
        plain = original.encode(text, add_special_tokens=False).ids
        for tokenizer in (literal, taken):
            assert tokenizer.encode_texts([text], after_end_mark=False)[0].ids == plain
    typed = ["a </s> b</s>"]
    assert 2 not in literal.encode_texts(typed, after_end_mark=True)[0].ids
    assert taken.encode_texts(typed, after_end_mark=True)[0].ids.count(2) == 2
    assert literal.names.id_to_token(literal.end_mark_id) == "</s>"
    assert ControlTokens.of(literal) == ControlTokens.of(taken)
    assert literal.fingerprint != taken.fingerprint


def test_a_tokenizer_whose_text_cannot_be_kept_apart_is_refused(changed: Any, llama_like: Path) -> None:
    model = json.loads((llama_like / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    # Merges that make `</s>` of its characters.
    pieces = [piece for piece in ("<", "/", "s", ">", "</", "</s") if piece not in model["vocab"]]
    model["vocab"] |= {piece: len(model["vocab"]) + place for place, piece in enumerate(pieces)}
    model["merges"] = ["< /", "</ s", "</s >"]
    folder = changed(model=model)
    with pytest.raises(BadInput, match="`</s>` typed in a message becomes the control token") as caught:
        load_tokenizer(folder)
    assert "special_in_text=hf" in caught.value.fix
    load_tokenizer(folder, special_in_text="hf")


def test_text_that_still_becomes_a_control_token_is_an_error(llama_like: Path) -> None:
    tokenizer = load_tokenizer(llama_like)
    newline = tokenizer.encode_texts(["\n"], after_end_mark=False)[0].ids[-1]
    plain = PlainText(tokenizer.opening, tokenizer.following, id_type(tokenizer.vocabulary_size), frozenset([newline]))
    texts = marked([[Span("b", [0], [True])], [Span("b\n", [0], [True])]], strips=False)
    assert len(plain.encode(texts, np.array([True, False]), bos_ids=(newline,), max_length_tokens=9)) == 1
    with pytest.raises(BadInput, match="becomes a control token of this tokenizer: 'b\\\\n'"):
        plain.encode(texts, np.array([True, True]), bos_ids=(), max_length_tokens=9)
