"""The process behind a chat: `python -m tulu_pipeline.inference.talk_worker SETTINGS`, settings as JSON.

Loads a model and answers orders, JSON lines on stdin, one after the other; it ends when stdin does. Events on stdout:

    {"event": "loaded", "context_tokens"}
    {"event": "text", "text"}                                          a piece of the answer
    {"event": "finished", "text", "finish_reason", "completion_tokens"}
    {"event": "failed", "reason"}
"""

from __future__ import annotations

import functools
import queue
import sys
import threading
from dataclasses import dataclass

from tulu_pipeline.artifacts.child_side import emit, end_at_once
from tulu_pipeline.artifacts.json_lines import from_line
from tulu_pipeline.inference.engine import EngineSettings, Failed, Request, load_engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A request, or the wish that the one of that id ends."""

    request: Request | None = None
    stop: str = ""


class _Orders:
    """What came on stdin, read by a thread so that an answer under way can be stopped."""

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._stopped: set[str] = set()
        self._ended = False
        threading.Thread(target=self._read, daemon=True, name="orders").start()

    def next(self) -> Request | None:
        """The next request; None at the end of stdin."""
        return self._requests.get()

    def is_stopped(self, request_id: str) -> bool:
        return self._ended or request_id in self._stopped

    def _read(self) -> None:
        for line in sys.stdin.buffer:
            order = from_line(line, Order, "stdin")
            if order.request is not None:
                self._requests.put(order.request)
            else:
                self._stopped.add(order.stop)
        self._ended = True
        self._requests.put(None)


def main() -> None:
    """Load the model, then answer."""
    settings = from_line(sys.argv[1].encode(), EngineSettings, "the first argument")
    orders = _Orders()
    engine = load_engine(settings)
    emit({"event": "loaded", "context_tokens": engine.context_tokens})
    while (request := orders.next()) is not None:
        stopped = functools.partial(orders.is_stopped, request.request_id)
        result = engine.stream(request, lambda text: emit({"event": "text", "text": text}), stopped)
        if isinstance(result, Failed):
            emit({"event": "failed", "reason": result.reason})
        else:
            emit(
                {
                    "event": "finished",
                    "text": result.text,
                    "finish_reason": result.finish_reason,
                    "completion_tokens": result.completion_tokens,
                }
            )
    if not settings.gpu:
        end_at_once()  # there is nothing to save and no process to end


if __name__ == "__main__":
    main()
