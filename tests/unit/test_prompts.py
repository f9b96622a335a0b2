"""Token ids of prompts: one BOS, the first prompt that fits, letters as they follow a cue."""

from pathlib import Path

import pytest

from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.prompts import Room, choice_ids, encode_prompts, prepare
from tulu_pipeline.inference.records import Question
from tulu_pipeline.tokens.tokenizer import load_tokenizer


def test_a_prompt_has_exactly_one_bos_even_where_the_text_says_bos(llama_like: Path) -> None:
    tokenizer = load_tokenizer(llama_like)
    (ids,) = encode_prompts(["<s><|user|>\nwrite <s> and </s>\n<|assistant|>\n"], tokenizer)
    assert ids[0] == 1
    assert ids.count(1) == 1
    assert ids.count(2) == 0


def test_a_family_without_bos_gets_none(byte_level: Path) -> None:
    tokenizer = load_tokenizer(byte_level)
    (ids,) = encode_prompts(["def main"], tokenizer)
    assert "".join(tokenizer.opening.id_to_token(token) for token in ids) == "defĠmain"


@pytest.mark.parametrize("family", ["llama_like", "byte_level"])
def test_a_letter_is_the_token_that_follows_a_cue(family: str, request: pytest.FixtureRequest) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(family))
    (with_letter,) = encode_prompts(["The answer is: C"], tokenizer)
    assert choice_ids(("A", "B", "C", "D"), tokenizer)["C"] == with_letter[-1]


def test_letters_that_share_a_token_are_refused(llama_like: Path) -> None:
    with pytest.raises(BadInput, match="share a token"):
        choice_ids(("11", "21"), load_tokenizer(llama_like))  # one token for each digit


def test_the_first_prompt_that_fits_is_taken(byte_level: Path) -> None:
    tokenizer = load_tokenizer(byte_level)
    texts = ("one two three four five", "one two three", "one")
    lengths = [len(ids) for ids in encode_prompts(texts, tokenizer)]
    question = Question(item_id="q", prompts=texts, choices=("A", "B"))

    def taken(room: Room) -> int:
        (prepared,) = prepare([question], tokenizer, room)
        return prepared.prompt_index

    # A letter needs one token behind the prompt.
    assert taken(Room(context_tokens=lengths[0] + 1, max_new_tokens=1)) == 0
    assert taken(Room(context_tokens=lengths[0], max_new_tokens=1)) == 1
    assert taken(Room(context_tokens=100, max_new_tokens=1, max_prompt_tokens=lengths[1])) == 1
    assert taken(Room(context_tokens=100, max_new_tokens=1, max_prompt_tokens=lengths[1] - 1)) == 2


def test_new_tokens_are_capped_by_what_the_context_leaves(byte_level: Path) -> None:
    tokenizer = load_tokenizer(byte_level)
    (ids,) = encode_prompts(["one two three"], tokenizer)
    question = Question(item_id="q", prompts=("one two three",))
    (prepared,) = prepare([question], tokenizer, Room(context_tokens=len(ids) + 5, max_new_tokens=8192))
    assert prepared.max_new_tokens == 5


def test_a_prompt_that_cannot_fit_is_named(byte_level: Path) -> None:
    tokenizer = load_tokenizer(byte_level)
    questions = [Question(item_id=f"q{number}", prompts=("word " * (number + 1),)) for number in range(20)]
    with pytest.raises(BadInput) as error:
        list(prepare(questions, tokenizer, Room(context_tokens=8, max_new_tokens=4)))
    assert "`q19`" not in error.value.what, "ten are named"
    assert error.value.what.endswith(", …")
