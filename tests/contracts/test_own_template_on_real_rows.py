"""Real conversations in a tokenizer's own template: ids and masks against transformers, row by row."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_templates import SHAPES, Peer, write_tokenizer

from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.tokenizer import load_tokenizer


def sharegpt(mirror: Path) -> Iterator[Conversation]:
    """Turns as they come, those that open with an answer left out; cut, so that the slow way is not too slow."""
    file = mirror / "train/sharegpt/ShareGPT_V3_unfiltered_cleaned_split.sample1000.json"
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    for index, row in enumerate(json.loads(file.read_text(encoding="utf-8"))):
        turns = row["conversations"][:6]
        messages = tuple(Message(roles[turn["from"]], turn["value"][:400]) for turn in turns)  # type: ignore[arg-type]  # roles are right
        if messages and messages[0].role != "assistant" and "assistant" in {message.role for message in messages}:
            yield Conversation("sharegpt", str(index), messages)


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "loss_span"), [("chatml", "tulu1"), ("headers", "eos")])
def test_ids_and_masks_are_those_of_transformers(mirror: Path, tmp_path: Path, name: str, loss_span: str) -> None:
    shape = SHAPES[name]
    folder = write_tokenizer(tmp_path, shape)
    peer = Peer(folder)
    template = load_own_template(folder, load_tokenizer(folder), loss_span=loss_span)  # type: ignore[arg-type]  # it is one
    conversations = list(sharegpt(mirror))
    assert len(conversations) > 600
    for conversation, ours in zip(
        conversations, template.encode_many(conversations, max_length_tokens=10**6), strict=True
    ):
        assert not isinstance(ours, BadInput)
        flags = [*peer.flags(conversation.messages, shape, loss_span), False]
        theirs = peer.tokenizer(peer.text(conversation.messages), add_special_tokens=False, return_offsets_mapping=True)
        assert ours.input_ids.tolist() == theirs.input_ids, conversation.id
        wanted = [0, *(int(flags[start]) for start, _ in theirs.offset_mapping[1:])]
        assert ours.loss_mask.tolist() == wanted, conversation.id
