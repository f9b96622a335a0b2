"""The paper's chat format, to the character."""

import pytest

from tulu_pipeline.chat.options import LossSpan
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.chat.template import pieces, render_prompt, render_training, supervised


def conversation(*messages: tuple[str, str]) -> Conversation:
    return Conversation("d", "d_0", tuple(Message(role, content) for role, content in messages))  # type: ignore[arg-type]  # roles are right


def test_training_text_is_the_papers() -> None:
    talk = conversation(
        ("system", "Be kind.\n"), ("user", " Hi\n\n"), ("assistant", "\nHello"), ("user", "Bye"), ("assistant", "Bye ")
    )
    assert render_training(talk) == (
        "<|system|>\nBe kind.\n<|user|>\nHi\n<|assistant|>\nHello</s>\n<|user|>\nBye\n<|assistant|>\nBye</s>"
    )


def test_training_text_ends_with_the_families_own_end_mark() -> None:
    talk = conversation(("user", "Hi"), ("assistant", "Hello"))
    assert render_training(talk, "<|endoftext|>") == "<|user|>\nHi\n<|assistant|>\nHello<|endoftext|>"


def test_training_text_of_an_unanswered_message_has_no_newline_at_its_end() -> None:
    assert render_training(conversation(("user", "Hi\n"))) == "<|user|>\nHi"
    assert render_training(conversation(("user", ""))) == "<|user|>"


@pytest.mark.parametrize(
    ("user_text", "cue", "tuned", "prompt"),
    [
        ("Q: 1+1", "A:", False, "Q: 1+1\nA:"),
        ("Q: 1+1", "A:", True, "<|user|>\nQ: 1+1\n<|assistant|>\nA:"),
        ("Question\n", "Answer:", False, "Question\nAnswer:"),
        ("Question\n", "Answer:", True, "<|user|>\nQuestion\n\n<|assistant|>\nAnswer:"),
        ("def f():\n", "", False, "def f():\n"),
        ("Write.", "", True, "<|user|>\nWrite.\n<|assistant|>\n"),
    ],
)
def test_a_cue_follows_the_assistant_tag_or_stands_on_its_own_line(
    user_text: str, cue: str, tuned: bool, prompt: str
) -> None:
    assert render_prompt(user_text, cue, tuned=tuned) == prompt


def test_a_prompt_is_how_the_training_text_begins() -> None:
    talk = conversation(("user", "Hi"), ("assistant", "Hello"))
    assert render_training(talk) == render_prompt("Hi", tuned=True) + "Hello</s>"


def learned(talk: Conversation, loss_span: LossSpan) -> str:
    stretches = pieces(talk)
    flags = supervised(stretches, loss_span)
    return "".join("$" if p.part == "end_mark" else p.text for p, flag in zip(stretches, flags, strict=True) if flag)


def test_eos_learns_content_and_end_mark() -> None:
    talk = conversation(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert learned(talk, "eos") == "b$d$"


def test_tulu1_also_learns_what_stands_before_the_next_user_tag() -> None:
    talk = conversation(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert learned(talk, "tulu1") == "b$\nd$"
    two_answers = conversation(("user", "a"), ("assistant", "b"), ("assistant", "c"), ("system", "s"))
    assert learned(two_answers, "tulu1") == "b$\n<|assistant|>\nc$\n"
    assert learned(two_answers, "eos") == "b$c$"
    assert learned(conversation(("system", "s"), ("assistant", "a")), "tulu1") == "a$"
