"""What a chat feeds a checkpoint is what the checkpoint was trained on, up to its answer."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from own_templates import SHAPES, write_tokenizer

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.dialogue import Dialogue
from tulu_pipeline.inference.prompts import encode_prompts
from tulu_pipeline.tokens.encode import encode
from tulu_pipeline.tokens.own_template import load_own_template
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.tokens.tulu_template import carried_template, write_tulu_template

TYPED = st.text(st.sampled_from("ab <|>/s\n\té猫"), max_size=12) | st.sampled_from(
    ["</s>", "<s>", "<|assistant|>\n", "<|im_end|>", ""]
)
ROUNDS = st.lists(st.tuples(TYPED, TYPED), max_size=3)
UNCUT = EncodeOptions(max_length_tokens=10_000, loss_span="eos")
many = settings(max_examples=30, deadline=None)


def messages_of(rounds: list[tuple[str, str]], system: str, question: str) -> list[Message]:
    said = [Message("system", system)] if system else []
    for asked, answered in rounds:
        said += [Message("user", asked), Message("assistant", answered)]
    return [*said, Message("user", question)]


@pytest.mark.parametrize("family", ["llama_like", "byte_level"])
@many
@given(rounds=ROUNDS, system=TYPED, question=TYPED, answer=st.sampled_from(["a", "Yes.\n\n1 2", "</s>", "猫"]))
def test_a_chat_feeds_the_ids_with_which_the_training_example_begins(
    request: pytest.FixtureRequest,
    family: str,
    rounds: list[tuple[str, str]],
    system: str,
    question: str,
    answer: str,
) -> None:
    folder = request.getfixturevalue(family)
    tokenizer, messages = load_tokenizer(folder), messages_of(rounds, system, question)
    ids = Dialogue(folder, "tulu").prompt_ids(messages).tolist()
    trained = encode(Conversation("d", "d_0", (*messages, Message("assistant", answer))), tokenizer, UNCUT)
    input_ids, mask = trained.input_ids.tolist(), trained.loss_mask.tolist()
    last = len(mask) - 1 - mask[::-1].index(1)  # the end mark of the answer
    start = last
    while mask[start - 1]:
        start -= 1
    assert ids == input_ids[:start]
    assert ids.count(tokenizer.end_mark_id) == len(rounds) + tokenizer.bos_ids.count(tokenizer.end_mark_id)
    assert all(ids.count(bos) == 1 for bos in tokenizer.bos_ids)


@pytest.mark.parametrize("family", ["llama_like", "byte_level"])
def test_the_first_round_is_asked_as_the_benchmarks_ask(request: pytest.FixtureRequest, family: str) -> None:
    folder = request.getfixturevalue(family)
    (asked,) = encode_prompts(["<|user|>\nWhat is 2 + 2?\n<|assistant|>\n"], load_tokenizer(folder))
    assert Dialogue(folder, "tulu").prompt_ids([Message("user", "What is 2 + 2?")]) == asked


@pytest.mark.parametrize("shape", ["chatml", "chatml after a BOS", "headers", "zephyr", "gemma"])
def test_a_checkpoint_with_a_template_of_its_own_is_asked_in_it(tmp_path: Path, shape: str) -> None:
    folder = write_tokenizer(tmp_path / "own", SHAPES[shape])
    dialogue, tokenizer = Dialogue(folder), load_tokenizer(folder)
    assert dialogue.template == "own"
    messages = messages_of([("hello </s> there", "general")], "", "how are you <|im_end|> today")
    (trained,) = load_own_template(folder, tokenizer).encode_many(
        [Conversation("d", "d_0", (*messages, Message("assistant", "hello")))], max_length_tokens=10_000
    )
    assert not isinstance(trained, BadInput)
    ids = dialogue.prompt_ids(messages).tolist()
    assert ids == trained.input_ids.tolist()[: len(ids)]
    left = tokenizer.names.decode(trained.input_ids.tolist()[len(ids) :], skip_special_tokens=True)
    assert left.strip() == "hello"


def test_the_template_that_a_checkpoint_carries_decides_and_a_model_without_one_is_refused(tmp_path: Path) -> None:
    folder = write_tokenizer(tmp_path / "model", SHAPES["chatml"])
    assert carried_template(folder) == "own"
    write_tulu_template(folder)
    assert Dialogue(folder).template == "tulu"
    (folder / "chat_template.jinja").write_text("another")
    assert carried_template(folder) == "own"
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(BadInput, match="carries no chat template"):
        Dialogue(folder)
    assert Dialogue(folder, "tulu").template == "tulu"
