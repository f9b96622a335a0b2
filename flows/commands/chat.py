"""`tulu chat`: talk with a tuned checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from flows.commands import options

if TYPE_CHECKING:
    from flows.chat import Answer, Chat

Checkpoint = Annotated[str, Parameter(help="a folder, or an artifact such as finetune[tiny+arithmetic].")]
Engine = Annotated[
    Literal["transformers", "vllm"], Parameter(show_choices=False, help="what generates: transformers, vllm.")
]
Temperature = Annotated[float, Parameter(help="0 takes the likeliest token each time.")]
Seed = Annotated[int, Parameter(help="of what is drawn, where the temperature is above 0.")]
MaxNewTokens = Annotated[int, Parameter(help="cap of an answer.")]
System = Annotated[str, Parameter(help="a system message to begin with.")]
ChatFormat = Annotated[
    Literal["tulu", "own"] | None,
    Parameter(show_choices=False, help="the chat format: tulu, own; else the one the checkpoint carries."),
]

_HELP = (
    "/reset forgets the rounds, /system TEXT begins anew with a system message, /quit or Ctrl-D ends; "
    "Ctrl-C stops an answer; a line that ends in \\ goes on in the next"
)
_TOLD = {
    "length": "cut at {completion_tokens} tokens; --max-new-tokens raises it",
    "context": "cut: the context is full ({prompt_tokens} + {completion_tokens} tokens); /reset begins anew",
    "interrupted": "stopped; what was said so far belongs to the conversation",
}


def chat(
    checkpoint: Checkpoint,
    *,
    engine: Engine = "transformers",
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 512,
    system: System = "",
    template: ChatFormat = None,
    experiment: options.GraphOf = "demo",
    store: options.Store = None,
    as_json: options.AsJson = False,
) -> None:
    from flows.chat import find_checkpoint, open_chat

    folder = find_checkpoint(checkpoint, experiment=experiment, store=store)
    with open_chat(
        folder, engine=engine, template=template, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    ) as talk:
        talk.instruct(system)
        if as_json or not sys.stdin.isatty():
            _answer_lines(talk, as_json=as_json)
        else:
            _converse(talk)


def _answer_lines(talk: Chat, *, as_json: bool) -> None:
    """One line for each question; the first that cannot be answered ends it with its error."""
    import json
    from dataclasses import asdict

    for question in _questions(line.rstrip("\n") for line in sys.stdin):
        if _command(talk, question) is not None:
            continue
        answer = talk.ask(question)
        if as_json:
            print(json.dumps(asdict(answer), ensure_ascii=False), flush=True)
        else:
            print(_on_one_line(answer.text), flush=True)


def _converse(talk: Chat) -> None:
    import readline  # noqa: F401  (lines can be edited and called back)

    from flows.terminal import print_error
    from tulu_pipeline.artifacts.interrupts import Terminated, forget
    from tulu_pipeline.errors import BadInput, StageFailed

    _tell(_HELP)
    questions = _questions(_typed())
    while True:
        try:
            question = next(questions)
        except StopIteration:
            return
        except KeyboardInterrupt as error:
            if isinstance(error, Terminated):
                raise
            forget()
            print()
            _tell("/quit or Ctrl-D ends")
            questions = _questions(_typed())
            continue
        if (told := _command(talk, question)) is not None:
            _tell(told)
        elif question.strip():
            try:
                answer = talk.ask(question, _show)
            except (BadInput, StageFailed) as error:
                print_error(error)
            else:
                print()
                _tell_end(answer)


def _command(talk: Chat, line: str) -> str | None:
    """What a command did; None where the line is none. `/quit` raises SystemExit."""
    word, _, rest = line.strip().partition(" ")
    match word, rest.strip():
        case "/quit", "":
            sys.exit(0)
        case "/reset", "":
            talk.reset()
            return "the rounds are forgotten"
        case "/system", text:
            talk.instruct(text)
            return "begun anew with this system message" if text else "begun anew without a system message"
        case "/help", "":
            return _HELP
    return None


def _questions(lines: Iterator[str]) -> Iterator[str]:
    """Lines, those that end in a backslash with what follows them."""
    held: list[str] = []
    for line in lines:
        if line.endswith("\\"):
            held.append(line[:-1])
        else:
            yield "\n".join([*held, line])
            held.clear()
    if held:
        yield "\n".join(held)


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return


def _show(text: str) -> None:
    """A piece of an answer; control characters, which could take the terminal over, are shown as signs."""
    print("".join(_shown(character) for character in text), end="", flush=True)


def _shown(character: str) -> str:
    code = ord(character)
    if character in "\n\t" or not (code < 0x20 or 0x7F <= code < 0xA0):
        return character
    return chr(0x2400 + code) if code < 0x20 else "\ufffd"


def _on_one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")


def _tell_end(answer: Answer) -> None:
    if answer.finish_reason in _TOLD:
        from dataclasses import asdict

        _tell(_TOLD[answer.finish_reason].format(**asdict(answer)))


def _tell(text: str) -> None:
    """A word of the command itself, apart from what the model says."""
    print(f"({text})", file=sys.stderr)
