"""The template that a checkpoint carries gives the paper's format, in transformers and here."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_templates import Peer, as_dicts

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.chat.template import render_prompt, render_training
from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.prompts import encode_prompts
from tulu_pipeline.tokens.encode import encode
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.tokens.tulu_template import write_tulu_template

TEXT = st.text(st.sampled_from("ab <|>/s\n\t\u2003é"), max_size=10) | st.sampled_from(
    ["</s>", "<|assistant|>\n", "<s>"]
)
CONVERSATIONS = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT), min_size=1, max_size=5
).map(lambda messages: Conversation("d", "d_0", tuple(messages)))
each_family = pytest.mark.parametrize("family", ["llama_like", "byte_level"])
many = settings(max_examples=100, deadline=None)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, llama_like: Path, byte_level: Path) -> dict[str, Path]:
    folders = {}
    for family, source in (("llama_like", llama_like), ("byte_level", byte_level)):
        folders[family] = tmp_path_factory.mktemp("checkpoint") / family
        shutil.copytree(source, folders[family])
        config = json.loads((source / "tokenizer_config.json").read_text())
        (folders[family] / "tokenizer_config.json").write_text(
            json.dumps(config | {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": "another"})
        )
        (folders[family] / "chat_template.jinja").write_text("yet another")
        write_tulu_template(folders[family])
    return folders


@pytest.fixture(scope="module")
def peers(checkpoints: dict[str, Path]) -> dict[str, Any]:
    return {family: Peer(folder) for family, folder in checkpoints.items()}


@each_family
@many
@given(conversation=CONVERSATIONS)
def test_transformers_renders_the_training_text(peers: dict[str, Any], family: str, conversation: Conversation) -> None:
    tokenizer = peers[family].tokenizer
    expected = (tokenizer.bos_token or "") + render_training(conversation, tokenizer.eos_token)
    assert peers[family].text(conversation.messages) == expected


@each_family
@many
@given(user=TEXT)
def test_transformers_renders_the_prompt_and_gives_its_ids(
    checkpoints: dict[str, Path], peers: dict[str, Any], family: str, user: str
) -> None:
    messages = (Message("user", user),)
    prompt = render_prompt(user, tuned=True)
    assert peers[family].text(messages, ask=True) == (peers[family].tokenizer.bos_token or "") + prompt
    if not any(token in user for token in ("</s>", "<s>")):  # to transformers they are control tokens
        (ids,) = encode_prompts([prompt], load_tokenizer(checkpoints[family]))
        assert peers[family].ids(messages, ask=True) == ids.tolist()


@each_family
@many
@given(conversation=CONVERSATIONS)
def test_as_a_tokenizers_own_template_it_gives_the_ids_and_the_eos_mask_of_the_papers_format(
    checkpoints: dict[str, Path], family: str, conversation: Conversation
) -> None:
    tokenizer = load_tokenizer(checkpoints[family])
    expected = encode(conversation, tokenizer, EncodeOptions(max_length_tokens=10**6, loss_span="eos"))
    (result,) = load_own_template(checkpoints[family], tokenizer).encode_many([conversation], max_length_tokens=10**6)
    assert not isinstance(result, BadInput)
    assert result.input_ids.tolist() == expected.input_ids.tolist()
    assert result.loss_mask.tolist() == expected.loss_mask.tolist()


@each_family
def test_its_marks_give_transformers_the_same_mask(
    checkpoints: dict[str, Path], peers: dict[str, Any], family: str
) -> None:
    roles = ("system", "user", "assistant", "user", "assistant")
    conversation = Conversation("d", "d_0", tuple(Message(role, f" to {role}\n") for role in roles))  # type: ignore[arg-type]  # roles are right
    peer = peers[family].tokenizer.apply_chat_template(
        as_dicts(conversation.messages), return_dict=True, return_assistant_tokens_mask=True
    )
    ours = encode(conversation, load_tokenizer(checkpoints[family]), EncodeOptions(loss_span="eos"))
    assert ours.input_ids.tolist() == peer["input_ids"]
    assert ours.loss_mask.tolist() == peer["assistant_masks"]
