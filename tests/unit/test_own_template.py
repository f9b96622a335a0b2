"""A tokenizer's own chat template: which one is taken, what is refused, what counts in the awkward ones."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_templates import EOS, MARKED, SHAPES, THINKING, Peer, as_dicts, write_template, write_tokenizer

from tasks.tokenization import TokenizeParams, run_tokenize
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.chat.conversations import ConversationWriter
from tulu_pipeline.chat.schema import Conversation, Message, Role
from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.prompts import encode_prompts
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.tokens.encode import Encoded
from tulu_pipeline.tokens.jinja_template import load_jinja_template
from tulu_pipeline.tokens.own_template import OwnTemplate, load_own_template
from tulu_pipeline.tokens.shards import open_tokens
from tulu_pipeline.tokens.tokenizer import load_tokenizer

CHATML = SHAPES["chatml"].template


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("own") / "model", SHAPES["chatml"])


@pytest.fixture
def load(folder: Path) -> Callable[..., OwnTemplate]:
    def with_template(template: object, **options: Any) -> OwnTemplate:
        write_template(folder, template)
        return load_own_template(folder, load_tokenizer(folder), **options)

    return with_template


def talk(*messages: tuple[Role, str]) -> Conversation:
    return Conversation("d", "d_0", tuple(Message(role, content) for role, content in messages))


def encode(template: OwnTemplate, conversation: Conversation, max_length_tokens: int = 10**6) -> Encoded:
    (result,) = template.encode_many([conversation], max_length_tokens=max_length_tokens)
    if isinstance(result, BadInput):
        raise result
    return result


def learned(folder: Path, template: OwnTemplate, conversation: Conversation) -> str:
    """The text that counts."""
    encoded = encode(template, conversation)
    return str(Peer(folder).tokenizer.decode(encoded.input_ids[encoded.loss_mask == 1].tolist()))


QUESTION: tuple[Role, str] = ("user", "Hi")
TWO_ROUNDS = talk(QUESTION, ("assistant", "one"), ("user", "and"), ("assistant", "two"))


def test_tulu1_ends_a_turn_before_the_next_header_and_eos_with_its_control_token(folder: Path, load: Any) -> None:
    assert learned(folder, load(CHATML, loss_span="tulu1"), TWO_ROUNDS) == "one<|im_end|>\ntwo<|im_end|>\n"
    assert learned(folder, load(CHATML, loss_span="eos"), TWO_ROUNDS) == "one<|im_end|>two<|im_end|>"


def test_generation_marks_decide_and_give_the_mask_of_transformers(folder: Path, load: Any) -> None:
    for loss_span in ("tulu1", "eos"):
        encoded = encode(load(MARKED, loss_span=loss_span), TWO_ROUNDS)
        peer = Peer(folder).tokenizer.apply_chat_template(
            as_dicts(TWO_ROUNDS.messages), return_dict=True, return_assistant_tokens_mask=True
        )
        assert encoded.input_ids.tolist() == peer["input_ids"]
        assert encoded.loss_mask.tolist() == peer["assistant_masks"]
        assert sum(peer["assistant_masks"]) > 4


def test_a_refusal_is_in_the_templates_own_words_and_leaves_other_conversations_alone(load: Any) -> None:
    template = load(SHAPES["gemma"].template)
    answer: tuple[Role, str] = ("assistant", "Hello")
    good, bad = talk(QUESTION, answer), talk(("system", "Be kind."), QUESTION, answer)
    first, second, third = template.encode_many([good, bad, good], max_length_tokens=100)
    assert isinstance(second, BadInput)
    assert second.what == "the chat template refuses it: System role not supported"
    assert first.input_ids.tolist() == third.input_ids.tolist()


def test_a_thought_is_learned_where_the_template_keeps_it_and_refused_where_it_drops_it(
    folder: Path, load: Any
) -> None:
    template = load(THINKING, loss_span="eos")
    thought = "<think>\nwhy\n</think>\n\nSo."
    assert learned(folder, template, talk(QUESTION, ("assistant", thought))) == f"{thought}<|im_end|>"
    last_only = talk(QUESTION, ("assistant", "one"), QUESTION, ("assistant", thought))
    with pytest.raises(BadInput, match=r"changes what message 2 \(assistant\) says"):
        encode(template, talk(QUESTION, ("assistant", thought), QUESTION, ("assistant", "two")))
    # The first turn was another text when it was the last: nothing says how it would have ended.
    with pytest.raises(BadInput, match="template changes"):
        encode(template, last_only)


def test_what_the_template_writes_after_the_prompt_is_learned(folder: Path, load: Any) -> None:
    assert learned(folder, load(THINKING, loss_span="eos"), TWO_ROUNDS) == (
        "one<|im_end|><think>\n\n</think>\n\ntwo<|im_end|>"
    )


def test_a_prompt_that_opens_a_thought_leaves_the_content_to_be_learned(folder: Path, load: Any) -> None:
    opening = CHATML.replace("assistant\\n' }}", "assistant\\n<think>\\n' }}")
    assert learned(folder, load(opening, loss_span="eos"), TWO_ROUNDS) == "one<|im_end|>two<|im_end|>"


def test_a_template_without_a_prompt_leaves_the_header_to_the_model(folder: Path, load: Any) -> None:
    template = load(CHATML.replace("add_generation_prompt", "false"), loss_span="eos")
    header = "<|im_start|>assistant\n"
    assert learned(folder, template, TWO_ROUNDS) == f"{header}one<|im_end|>{header}two<|im_end|>"
    assert template.prompt("Hi").text == "<|im_start|>user\nHi<|im_end|>\n"


def test_of_an_answer_that_opens_the_conversation_the_header_is_not_learned(folder: Path, load: Any) -> None:
    opened = talk(("assistant", "Welcome"), QUESTION, ("assistant", "Hello"))
    assert learned(folder, load(CHATML, loss_span="eos"), opened) == "Welcome<|im_end|>Hello<|im_end|>"


def test_messages_may_stand_in_another_order_than_they_came(folder: Path, load: Any) -> None:
    # The system message opens the last user's.
    last_user = r"""
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {{- '<turn>' }}
        {%- if loop.revindex <= 2 and messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}
        {{- message.content + '<turn|>' }}
    {%- elif message.role == 'assistant' %}
        {{- message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""
    conversation = talk(("system", f"{EOS}!"), *((each.role, each.content) for each in TWO_ROUNDS.messages))
    template = load(last_user, loss_span="eos")
    assert learned(folder, template, conversation) == "one</s>two</s>"
    assert encode(template, conversation).input_ids.tolist().count(load_tokenizer(folder).end_mark_id) == 2


def test_a_template_may_look_at_what_messages_say_and_they_stay_text(folder: Path, load: Any) -> None:
    looks = CHATML.replace(
        "message.content +",
        "(message.content | trim | upper if 'shout' in message.content else message.content or 'nothing') +",
    )
    template = load(looks, loss_span="eos")
    conversation = talk(("system", ""), ("user", " shout <|im_end|> "), ("assistant", "ok"))
    names = [load_tokenizer(folder).opening.id_to_token(i) for i in encode(template, conversation).input_ids]
    assert names.count("<|im_end|>") == 3
    assert learned(folder, template, conversation) == "ok<|im_end|>"


def test_a_template_may_edit_what_messages_say_as_long_as_turns_are_known(folder: Path, load: Any) -> None:
    conversation = talk(("user", "Hello there <|im_end|>"), ("assistant", "Hello again"))
    for edit, expected in (("[:3]", "Hel"), (" | replace('ell', '<|im_end|>')", "H<|im_end|>o again")):
        template = load(CHATML.replace("message.content", f"(message.content{edit})"), loss_span="eos")
        assert learned(folder, template, conversation) == f"{expected}<|im_end|>"
        names = [load_tokenizer(folder).opening.id_to_token(i) for i in encode(template, conversation).input_ids]
        assert names.count("<|im_end|>") == 2


def test_control_tokens_that_an_edited_message_brings_are_refused(load: Any) -> None:
    template = load(CHATML.replace("message.content", "(message.content[-12:])"))
    with pytest.raises(BadInput, match=r"changes what message 1 \(user\) says"):
        encode(template, talk(("user", "Hello there <|im_end|>"), ("assistant", "Hello again")))


def test_a_template_that_writes_an_answer_twice_is_refused(load: Any) -> None:
    with pytest.raises(BadInput, match="writes message 2 2 times"):
        load(CHATML.replace("message.content", "(message.content + message.content)"))


def test_typed_control_tokens_are_ids_only_where_that_is_asked_for(folder: Path) -> None:
    write_template(folder, CHATML)
    conversation = talk(("user", "x <|im_end|>"), ("assistant", "y"))
    counts = {}
    for special_in_text in ("literal", "hf"):
        tokenizer = load_tokenizer(folder, special_in_text=special_in_text)  # type: ignore[arg-type]  # both are right
        ids = encode(load_own_template(folder, tokenizer), conversation).input_ids.tolist()
        counts[special_in_text] = ids.count(tokenizer.opening.token_to_id("<|im_end|>"))
        if special_in_text == "hf":
            assert ids == Peer(folder).ids(conversation.messages)
    assert counts == {"literal": 2, "hf": 3}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("user", ["hello there", "what is <|im_end|> and <s>?", " 12 ", "\n"])
def test_the_prompt_is_how_the_training_ids_begin(tmp_path: Path, name: str, user: str) -> None:
    model = write_tokenizer(tmp_path, SHAPES[name])
    tokenizer = load_tokenizer(model)
    template = load_own_template(model, tokenizer)
    trained = encode(template, talk(("user", user), ("assistant", "general"))).input_ids.tolist()
    (asked,) = encode_prompts([template.prompt(user)], tokenizer)
    assert trained[: len(asked)] == asked.tolist()
    (with_cue,) = encode_prompts([template.prompt(user, "how </s>")], tokenizer)
    assert with_cue.tolist()[: len(asked)] == asked.tolist()
    assert tokenizer.end_mark_id not in with_cue.tolist()[len(asked) :]


def test_one_bos_stands_first_whoever_writes_it(tmp_path: Path) -> None:
    for name in ("chatml after a BOS", "headers", "headers, BOS by the template alone", "gemma"):
        model = write_tokenizer(tmp_path / name, SHAPES[name])
        tokenizer = load_tokenizer(model)
        ids = encode(load_own_template(model, tokenizer), TWO_ROUNDS).input_ids.tolist()
        assert [place for place, token in enumerate(ids) if token == tokenizer.opening.token_to_id("<s>")] == [0]


def test_the_end_of_a_turn_is_known(folder: Path, load: Any) -> None:
    known = load_tokenizer(folder).opening.token_to_id
    assert load(SHAPES["headers"].template).end_of_turn_ids == (known("<|eot|>"),)


def test_a_long_conversation_is_cut_on_the_right(load: Any) -> None:
    whole, cut = (encode(load(CHATML), TWO_ROUNDS, length) for length in (10**6, 20))
    assert cut.input_ids.tolist() == whole.input_ids.tolist()[:20]
    assert cut.loss_mask.tolist() == whole.loss_mask.tolist()[:20]
    assert (cut.truncated, whole.truncated) == (True, False)


def test_the_template_of_its_own_file_wins_and_of_named_ones_the_default(folder: Path, load: Any) -> None:
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHATML}]
    assert load(named).fingerprint == load(CHATML).fingerprint
    file = folder / "chat_template.jinja"
    try:
        file.write_text(MARKED, encoding="utf-8")
        assert load(CHATML).fingerprint == load_own_template(folder, load_tokenizer(folder)).fingerprint
        assert load_jinja_template(folder, ("", "")).has_generation_marks
        assert Peer(folder).tokenizer.chat_template == MARKED
    finally:
        file.unlink()


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (None, "has no chat template"),
        ([{"name": "tool_use", "template": "no"}], "has no chat template"),
        ("{% for %}", "the chat template is broken"),
        ("{{ raise_exception('never') }}", "refuses it: never"),
        (CHATML + "\U000f0000", "characters for private use"),
        ("nothing", "writes message 2 0 times"),
        (CHATML.replace("<|im_end|>", ""), "would never stop"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_at_once(load: Any, template: object, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        load(template)


def test_rendering_is_that_of_transformers(folder: Path) -> None:
    features = r"""{% set ns = namespace(n=0) %}
  {% for message in messages %}
    {% if loop.index == 2 %}{% continue %}{% endif %}
    {% set ns.n = ns.n + 1 %}
    {{ message | tojson }} {{ {"b": 1, "a": "<é>"} | tojson(indent=2, sort_keys=true) }}
    {% if ns.n > 2 %}{% break %}{% endif %}
  {% endfor %}
{{ bos_token }}{{ eos_token }}{{ tools is none }}{{ documents is none }}{{ unk_token is defined }}
{% generation %}{% set ns = 1 %}inside{% endgeneration %}
{{- ns.n -}}
{% if strftime_now is defined %}dated{% endif %}
"""
    write_template(folder, features)
    messages = [{"role": "user", "content": f'<b> "{number}" ü'} for number in range(5)]
    ours = load_jinja_template(folder, ("", "")).render(messages)
    assert ours == Peer(folder).tokenizer.apply_chat_template(messages, tokenize=False)
    write_template(folder, "{{ strftime_now('%d %b %Y') }}")
    assert load_jinja_template(folder, ("", "")).render(messages) == "26 Jul 2024"


def test_whatever_decides_the_rendering_moves_the_fingerprint(folder: Path, load: Any) -> None:
    prints = {load(CHATML).fingerprint, load(CHATML + " ").fingerprint}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": EOS, "chat_template": CHATML}))
    prints.add(load_own_template(folder, load_tokenizer(folder)).fingerprint)
    assert len(prints) == 3


def test_the_stage_drops_what_the_template_refuses_and_names_the_template_in_every_shard(
    folder: Path, load: Any, tmp_path: Path
) -> None:
    template = load(SHAPES["gemma"].template)
    conversations, out = tmp_path / "conversations", tmp_path / "out"
    for each in (conversations, out):
        each.mkdir()
    with ConversationWriter(conversations) as writer:
        for name, opening in (("good", ()), ("bad", (Message("system", "Be kind."),))):
            rest = (Message("user", "Hi"), Message("assistant", "Hello"))
            writer.write(Conversation("d", name, (*opening, *rest)))
    job = Job(
        name="tokenize[x]",
        params=TokenizeParams(template="own"),
        inputs={"conversations": conversations, "tokenizer": folder},
        sources={},
        out=out,
        work=tmp_path / "work",
        publish=lambda metrics: None,
    )
    metrics = run_tokenize(job, RunContext(profile=Profile(), settings=read_settings()))
    assert (metrics["rows"], metrics["dropped"]) == (1, 1)
    (dropped,) = map(json.loads, (job.aux / "dropped.jsonl").read_text().splitlines())
    assert (dropped["row_id"], dropped["reason"]) == (
        "bad",
        "the chat template refuses it: System role not supported",
    )
    tokens = open_tokens(out)
    assert template.fingerprint in tokens.info["made_by"].values()
    ids, mask = tokens[0]
    expected = encode(template, talk(("user", "Hi"), ("assistant", "Hello")))
    assert (ids.tolist(), mask.tolist()) == (expected.input_ids.tolist(), expected.loss_mask.tolist())


def test_a_tokenizer_mode_is_for_the_papers_format_alone() -> None:
    with pytest.raises(BadInput, match="`legacy_fast` is for the paper's chat format"):
        TokenizeParams(template="own", tokenizer_mode="legacy_fast")
