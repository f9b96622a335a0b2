"""A model in a process of its own that answers one request after the other, telling its text as it comes."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tulu_pipeline.artifacts.child_side import EVENT_PREFIX
from tulu_pipeline.artifacts.children import supervised, tail
from tulu_pipeline.artifacts.interrupts import Terminated, forget
from tulu_pipeline.artifacts.json_lines import to_line
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.inference.engine import EngineSettings, Finished, Request, engine_environment
from tulu_pipeline.inference.talk_worker import Order

_PREFIX = EVENT_PREFIX.encode()
_GRACE_SECONDS = 5.0


class Talker:
    """A loaded model. Use it in a `with` block: its process ends there, with all that it started.

    Attributes:
        context_tokens: the model's longest sequence.
    """

    def __init__(self, settings: EngineSettings, log: Path) -> None:
        """Start the process and wait until the model is loaded.

        Raises:
            StageFailed: it cannot be loaded; `what` has the last lines of `log`.
        """
        self._log = log
        self._held = contextlib.ExitStack()
        with log.open("ab") as log_file:
            # In a session of its own: Ctrl-C in the terminal ends an answer, not the process.
            self._process = self._held.enter_context(
                supervised(
                    [sys.executable, "-m", "tulu_pipeline.inference.talk_worker", to_line(settings).decode()],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log_file,
                    env=engine_environment(settings),
                )
            )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True, name="talker").start()
        try:
            self.context_tokens = int(self._next()["context_tokens"])
        except BaseException:
            self._held.close()
            raise

    def __enter__(self) -> Talker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        self._held.close()

    def answer(self, request: Request, on_text: Callable[[str], None]) -> Finished:
        """Answer a request; Ctrl-C ends the answer where it is, a second one raises.

        Raises:
            StageFailed: the engine could not, or died.
            KeyboardInterrupt: pressed twice, or the process was asked to end.
        """
        self._send(Order(request=request))
        interrupted = False
        while True:
            try:
                event = self._next()
                match event.pop("event"):
                    case "text":
                        on_text(event["text"])
                    case "finished":
                        return Finished(request_id=request.request_id, **event)
                    case _:
                        raise StageFailed(event["reason"], "the engine", "ask again, or something else")
            except KeyboardInterrupt as error:
                if interrupted or isinstance(error, Terminated):
                    raise
                interrupted = True
                forget()
                self._send(Order(stop=request.request_id))

    @property
    def _stdin(self) -> Any:
        assert self._process.stdin is not None
        return self._process.stdin

    def _send(self, order: Order) -> None:
        try:
            self._stdin.write(to_line(order))
            self._stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _next(self) -> dict[str, Any]:
        event = self._events.get()
        if event["event"] == "died":
            raise self._died()
        return event

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(_PREFIX):
                self._events.put(json.loads(line.removeprefix(_PREFIX)))
        self._events.put({"event": "died"})

    def _died(self) -> StageFailed:
        what = f"the engine's process ended with code {self._process.wait()}\n{tail(self._log)}"
        return StageFailed(what, "the engine; these are the last lines of its log", "mend what they say, and try again")
