"""The token view: the ids and the mask that training sees, and texts that give back the text when joined."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_templates import SHAPES, write_template, write_tokenizer

from tulu_pipeline.chat.options import EncodeOptions, LossSpan
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.chat.template import render_training
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.encode import encode
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.token_view import load_viewer, view_tokens
from tulu_pipeline.tokens.tokenizer import ChatTokenizer, load_tokenizer

TEXT = st.lists(
    st.one_of(
        st.sampled_from(["</s>", "<s>", "<|assistant|>\n", "\n", " ", "  ", "▁", "<0x0A>", "<|endoftext|>", "🐪", "é"]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    ),
    max_size=5,
).map("".join)
CONVERSATIONS = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1, max_size=5
).map(lambda messages: Conversation("d", "d_0", tuple(messages)))
each_mode = pytest.mark.parametrize("mode", ["legacy_fast", "nonlegacy", "v2023_slow", "byte_level"])
many = settings(max_examples=100, deadline=None)
WHOLE = EncodeOptions(max_length_tokens=10**6)


@pytest.fixture(scope="module")
def tokenizers(llama_like: Path, byte_level: Path) -> dict[str, ChatTokenizer]:
    modes: Any = ("legacy_fast", "nonlegacy", "v2023_slow")
    llama = {mode: load_tokenizer(llama_like, tokenizer_mode=mode) for mode in modes}
    return llama | {"byte_level": load_tokenizer(byte_level)}


@each_mode
@many
@given(
    conversation=CONVERSATIONS,
    loss_span=st.sampled_from(["tulu1", "eos"]),
    length=st.one_of(st.integers(1, 60), st.just(10**6)),
)
def test_the_view_has_the_ids_and_the_mask_that_training_sees(
    tokenizers: dict[str, ChatTokenizer], mode: str, conversation: Conversation, loss_span: LossSpan, length: int
) -> None:
    options = EncodeOptions(max_length_tokens=length, loss_span=loss_span)
    encoded, view = (make(conversation, tokenizers[mode], options) for make in (encode, view_tokens))
    assert [token.id for token in view.tokens] == encoded.input_ids.tolist()
    assert [token.supervised for token in view.tokens] == encoded.loss_mask.astype(bool).tolist()
    assert (view.cut > 0) == encoded.truncated
    assert view.supervised == int(encoded.loss_mask.sum())


@each_mode
@many
@given(conversation=CONVERSATIONS)
def test_joined_tokens_are_the_text(
    tokenizers: dict[str, ChatTokenizer], mode: str, conversation: Conversation
) -> None:
    tokenizer = tokenizers[mode]
    joined = "".join(token.text for token in view_tokens(conversation, tokenizer, WHOLE).tokens)
    text = render_training(conversation, tokenizer.names.id_to_token(tokenizer.end_mark_id))
    if mode == "v2023_slow":  # swallows white space around end marks
        joined, text = ("".join(each.split()) for each in (joined, text))
    assert joined == text


@each_mode
@many
@given(conversation=CONVERSATIONS)
def test_every_token_shows_something_and_control_tokens_their_name(
    tokenizers: dict[str, ChatTokenizer], mode: str, conversation: Conversation
) -> None:
    tokenizer = tokenizers[mode]
    tokens = view_tokens(conversation, tokenizer, WHOLE).tokens
    assert all(token.shown for token in tokens)
    control = {*tokenizer.bos_ids, tokenizer.end_mark_id}
    assert [token.control for token in tokens] == [token.id in control for token in tokens]


@pytest.mark.parametrize("mode", ["legacy_fast", "byte_level"])
def test_bytes_of_one_character_are_shown_as_bytes_and_the_last_has_the_character(
    tokenizers: dict[str, ChatTokenizer], mode: str
) -> None:
    conversation = Conversation("d", "d_0", (Message("user", "𓃒"), Message("assistant", "é𓃒\nx")))
    tokens = view_tokens(conversation, tokenizers[mode], WHOLE).tokens
    places = [index for index, token in enumerate(tokens) if token.text == "𓃒"]
    assert len(places) == 2
    for last in places:
        assert [token.shown for token in tokens[last - 3 : last + 1]] == ["<0xF0>", "<0x93>", "<0x83>", "<0x92>"]
        assert [token.text for token in tokens[last - 3 : last]] == ["", "", ""]
    assert "".join(token.shown for token in tokens).count("\n") == 4  # three of the template, one typed


def test_the_space_that_llama_adds_is_shown_though_it_is_not_in_the_text(tokenizers: dict[str, ChatTokenizer]) -> None:
    conversation = Conversation("d", "d_0", (Message("user", "why"), Message("assistant", "so")) * 2)
    tokens = view_tokens(conversation, tokenizers["legacy_fast"], WHOLE).tokens
    assert [(token.text, token.shown, token.control) for token in tokens[:1]] == [("", "<s>", True)]
    end = next(index for index, token in enumerate(tokens) if token.text == "</s>")
    assert [(token.text, token.shown) for token in tokens[end : end + 3]] == [
        ("</s>", "</s>"),
        ("", "▁"),
        ("\n", "\n"),
    ]


@pytest.mark.parametrize("name", ["chatml", "headers", "zephyr", "gemma"])
def test_in_a_tokenizers_own_template_the_view_is_what_training_sees_too(tmp_path: Path, name: str) -> None:
    folder = write_tokenizer(tmp_path / "model", SHAPES[name])
    write_template(folder, SHAPES[name].template)
    tokenizer, options = load_tokenizer(folder), EncodeOptions(max_length_tokens=500)
    own = load_own_template(folder, tokenizer, loss_span="tulu1")
    conversation = Conversation("d", "d_0", (Message("user", "why 🐪?"), Message("assistant", "so </s>")) * 2)
    (encoded,) = own.encode_many([conversation], max_length_tokens=500)
    assert not isinstance(encoded, BadInput)
    tokens = load_viewer(folder, tokenizer, options, "own")(conversation).tokens
    assert [token.id for token in tokens] == encoded.input_ids.tolist()
    assert [token.supervised for token in tokens] == encoded.loss_mask.astype(bool).tolist()
    assert "why 🐪?" in "".join(token.text for token in tokens)
    refused = load_viewer(folder, tokenizer, options, "own")(
        Conversation("d", "d_1", (Message("system", "be brief"), *conversation.messages))
    )
    assert bool(refused.refused) == (not SHAPES[name].system)
    assert bool(refused.tokens) == SHAPES[name].system
