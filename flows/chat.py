"""A chat with a tuned checkpoint: which checkpoint is meant, and its rounds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flows.session import Request, prepare, selected_names
from tulu_pipeline.chat.options import Template
from tulu_pipeline.chat.schema import Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.profile import has_gpu

if TYPE_CHECKING:
    from tulu_pipeline.inference.dialogue import Dialogue
    from tulu_pipeline.inference.engine import Dtype, EngineName
    from tulu_pipeline.inference.talker import Talker

_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
_SEEDS = 2**32


class ContextFull(BadInput):
    """The conversation leaves no room for an answer; it stays as it was before the question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back.

    Attributes:
        text: as the model wrote it.
        finish_reason: "stop"; "length" at the cap; "context" at the end of the context; "interrupted".
        prompt_tokens, completion_tokens: of this round, the conversation before it included in the first.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class Chat:
    """The rounds of a conversation. Nothing of it is ever dropped: where the context is full, it says so."""

    def __init__(
        self, talker: Talker, dialogue: Dialogue, *, max_new_tokens: int, temperature: float, seed: int
    ) -> None:
        self._talker, self._dialogue = talker, dialogue
        self._max_new_tokens, self._temperature, self._seed = max_new_tokens, temperature, seed
        self._messages: list[Message] = []
        self._asked = 0

    @property
    def context_tokens(self) -> int:
        """The model's longest sequence."""
        return self._talker.context_tokens

    def reset(self) -> None:
        """Forget the rounds; a system message stays."""
        self._messages = [message for message in self._messages if message.role == "system"]

    def instruct(self, text: str) -> None:
        """Begin anew with a system message, without one where the text is empty."""
        self._messages = [Message("system", text)] if text else []

    def ask(self, question: str, on_text: Callable[[str], None] = lambda text: None) -> Answer:
        """One round; an answer that was cut belongs to the conversation as far as it came.

        Args:
            question: the user's; what looks like a control token in it stays text.
            on_text: called with each piece of the answer.

        Raises:
            ContextFull: there is no room for an answer. BadInput: the chat template refuses the conversation.
            StageFailed: the engine failed. The conversation stays as it was.
        """
        from tulu_pipeline.inference.engine import Request as Wanted

        messages = [*self._messages, Message("user", question)]
        ids = self._dialogue.prompt_ids(messages)
        room = self.context_tokens - len(ids)
        if room < 1:
            raise ContextFull(
                f"the conversation has {len(ids)} tokens with this question, the model takes {self.context_tokens}",
                "this conversation, which stays as it was before the question",
                "ask something shorter, or begin anew (`/reset`)",
            )
        self._asked += 1
        cap = min(self._max_new_tokens, room)
        finished = self._talker.answer(
            Wanted(
                request_id=str(self._asked),
                prompt_ids=ids.tolist(),
                max_new_tokens=cap,
                temperature=self._temperature,
                seed=(self._seed + self._asked - 1) % _SEEDS if self._temperature else None,
            ),
            on_text,
        )
        if finished.text or finished.finish_reason != "interrupted":
            self._messages = [*messages, Message("assistant", finished.text)]
        by_context = finished.finish_reason == "length" and cap < self._max_new_tokens
        return Answer(
            text=finished.text,
            finish_reason="context" if by_context else finished.finish_reason,
            prompt_tokens=len(ids),
            completion_tokens=finished.completion_tokens,
        )


@contextmanager
def open_chat(
    folder: Path,
    *,
    engine: EngineName,
    template: Template | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> Iterator[Chat]:
    """Load a checkpoint; its process ends with the block.

    Args:
        folder: the checkpoint.
        engine: what generates.
        template: the chat format; None takes the one that the checkpoint carries.
        max_new_tokens: cap of an answer.
        temperature: 0 is greedy.
        seed: of what is drawn; the second answer takes the next one, and so on.

    Raises:
        BadInput: no checkpoint, or a setting that cannot be. MissingOnMachine: the engine cannot be loaded here.
        StageFailed: the model cannot be loaded.
    """
    import tempfile

    from tulu_pipeline.inference.dialogue import Dialogue
    from tulu_pipeline.inference.engine import EngineSettings, what_lacks
    from tulu_pipeline.inference.talker import Talker

    if temperature < 0 or max_new_tokens < 1 or not 0 <= seed < _SEEDS:
        raise BadInput(
            f"temperature {temperature}, at most {max_new_tokens} new tokens, seed {seed}",
            "the options",
            f"temperature from 0, new tokens from 1, seed from 0 below {_SEEDS}",
        )
    gpu = has_gpu()
    if lack := what_lacks(engine, gpu=gpu):
        raise lack
    dialogue = Dialogue(folder, template)
    settings = EngineSettings(engine=engine, model=str(folder), dtype=dtype_of(folder, gpu=gpu), gpu=gpu)
    with tempfile.TemporaryDirectory(prefix="tulu-chat-") as place, Talker(settings, Path(place) / "log") as talker:
        yield Chat(talker, dialogue, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)


def find_checkpoint(name: str, *, experiment: str, store: str | None) -> Path:
    """The folder of a checkpoint.

    Args:
        name: a folder, or an artifact such as `finetune[tiny+arithmetic]`.
        experiment: whose artifact.
        store: root of the store.

    Raises:
        NotFound, BadInput: there is none, or several; TuluError: it is not made yet.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not set(name) & set("[*?"):
            raise BadInput(f"no folder `{name}`", "the checkpoint", "name a folder, or an artifact: finetune[…]")
        session = prepare(Request(experiment=experiment, store=store))
        names = selected_names(session, name)
        if len(names) > 1:
            raise BadInput(f"`{name}` names {len(names)} artifacts", ", ".join(names), "name one of them")
        folder = session.folder(names[0])
    if not (folder / "config.json").is_file():
        raise BadInput("no `config.json`", str(folder), "name the folder of a checkpoint: finetune[…], recover[…]")
    return folder


def dtype_of(folder: Path, *, gpu: bool) -> Dtype:
    """The compute type: that of the weights as the checkpoint says it; half precision is for GPUs."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    said = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    found: Dtype = next((dtype for dtype in _DTYPES if dtype == said), "float32")
    return "float32" if found == "float16" and not gpu else found
