"""Loading a tokenizer: BOS, end mark, modes, identity."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.tokenizer import load_tokenizer


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
