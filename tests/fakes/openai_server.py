"""A server on this machine that speaks OpenAI's protocol, with a till, and with faults by script.

Chat and text completions, models, files and batches. It keeps what it was asked, and what a provider would have
charged: for every answer that it generated, whether it arrived or not.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-of-the-tests"
PRICES = {"input": Decimal(30), "output": Decimal(60)}  # US dollars per million tokens, of whatever model
Answer = str | dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One answer that differs from the good one.

    Attributes:
        status: sent with `message` and `code` in the API's form; 0 sends something else, as follows.
        headers: sent with it. body: sent instead of the API's form.
        reset: the connection is reset. truncated: half of a good answer. wrong: JSON of another form.
        after_seconds: it says nothing so long first, then goes on as the rest says.
        charged: whether it generated before.
        match: only requests whose body this regular expression finds.
        times: how often.
    """

    status: int = 0
    code: str = ""
    message: str = "scripted"
    headers: dict[str, str] = field(default_factory=dict)
    body: str = ""
    reset: bool = False
    truncated: bool = False
    wrong: bool = False
    after_seconds: float = 0.0
    charged: bool = False
    match: str = ""
    times: int = 1


@dataclass(frozen=True)
class Asked:
    path: str
    body: dict[str, Any]
    headers: dict[str, str]


class OpenAIServer:
    """What the server knows; use `openai_server`."""

    def __init__(self) -> None:
        self.base_url = ""
        self.authorizations = {f"Bearer {KEY}"}
        self.models = ["gpt-4-0314", "gpt-3.5-turbo-0301"]
        self.context_tokens = 8192
        self.answer: Callable[[dict[str, Any]], Answer] = lambda body: "an answer"
        self.faults: list[Fault] = []
        self.capacity: int | None = None  # more than so many at a time are a rate limit
        self.seconds = 0.0  # that a good answer takes, and an upload
        self.asked: list[Asked] = []
        self.in_flight = self.most_in_flight = self.refused = 0
        self.charged = Decimal(0)
        self.charges: Counter[str] = Counter()  # by the body that was charged for
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.polls_of_batch = 1
        self.no_batches = False
        self.stumbles = 0  # so many looks at a batch are answered with 503
        self.batch_errors: list[dict[str, Any]] = []  # of a batch that is not taken
        self.batch_cuts: list[tuple[str, int]] = []  # for batch after batch: its end, and how many it answers before
        self.batch_faults: dict[str, tuple[int, str]] = {}  # regular expression of a body to status and code, once
        self.lock = threading.Lock()
        self._numbers = itertools.count()

    def number(self) -> int:
        return next(self._numbers)

    def fault(self, text: str) -> Fault | None:
        with self.lock:
            for index, fault in enumerate(self.faults):
                if re.search(fault.match, text):
                    if fault.times <= 1:
                        self.faults.pop(index)
                    else:
                        self.faults[index] = Fault(**{**fault.__dict__, "times": fault.times - 1})
                    return fault
        return None

    def generate(self, path: str, body: dict[str, Any], share: Decimal = Decimal(1)) -> dict[str, Any]:
        """A good answer, charged."""
        answers = [self.answer(body) for _ in range(body.get("n", 1))]
        given = [each if isinstance(each, dict) else {"text": each} for each in answers]
        usage = {
            "prompt_tokens": prompt_tokens(body),
            "completion_tokens": sum(each.get("tokens", tokens(each.get("text") or "")) for each in given),
        }
        usage["total_tokens"] = sum(usage.values())
        cost = usage["prompt_tokens"] * PRICES["input"] + usage["completion_tokens"] * PRICES["output"]
        with self.lock:
            self.charged += cost * share / 1_000_000
            self.charges[json.dumps(body, sort_keys=True)] += 1
        chat = path.endswith("chat/completions")
        return {
            "id": f"cmpl-{self.number()}",
            "object": "chat.completion" if chat else "text_completion",
            "created": int(time.time()),
            "model": body["model"],
            "system_fingerprint": "fp_test",
            "choices": [_choice(index, each, chat=chat) for index, each in enumerate(given)],
            "usage": usage,
        }


def tokens(text: str) -> int:
    return (len(text.encode()) + 3) // 4


def prompt_tokens(body: dict[str, Any]) -> int:
    return tokens(body.get("prompt", "")) + sum(tokens(each["content"]) + 4 for each in body.get("messages", ()))


@contextmanager
def openai_server() -> Iterator[OpenAIServer]:
    known = OpenAIServer()

    class Handler(_Handler):
        server_state = known

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that hang up are part of the play."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    known.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield known
    finally:
        server.shutdown()
        server.server_close()


def _choice(index: int, given: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    text, finish_reason = given.get("text"), given.get("finish_reason", "stop")
    top = given.get("top_logprobs", ())
    if not chat:
        logprobs = {"top_logprobs": list(top)} if top else None
        return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": logprobs}
    places = [
        {"token": "", "top_logprobs": [{"token": each, "logprob": value} for each, value in place.items()]}
        for place in top
    ]
    message = {"role": "assistant", "content": text, "refusal": given.get("refusal")}
    logprobs = {"content": places} if places else None
    return {"index": index, "message": message, "finish_reason": finish_reason, "logprobs": logprobs}


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"  # U+2028 and the like are not escaped


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: OpenAIServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        pass

    def do_GET(self) -> None:
        known, path = self.server_state, self.path.removeprefix("/v1")
        if path == "/models":
            self._json(200, {"object": "list", "data": [{"id": name, "object": "model"} for name in known.models]})
        elif path.split("?")[0] == "/batches":
            self._json(200, {"object": "list", "data": list(known.batches.values()), "has_more": False})
        elif found := re.fullmatch("/batches/([^/]+)", path):
            self._batch(found.group(1))
        elif (found := re.fullmatch("/files/([^/]+)/content", path)) and found.group(1) in known.files:
            self._send(200, known.files[found.group(1)], {})
        else:
            self._error(404, "not_found", "no such thing")

    def do_POST(self) -> None:
        known, path = self.server_state, self.path.removeprefix("/v1")
        content = self.rfile.read(int(self.headers["content-length"]))
        if path == "/files" and known.no_batches:
            return self._error(404, "not_found", "no such thing")
        if path == "/files":
            return self._upload(content)
        body = json.loads(content)
        if path == "/batches":
            return self._new_batch(body)
        with known.lock:
            known.asked.append(Asked(path, body, {name.lower(): value for name, value in self.headers.items()}))
            known.in_flight += 1
            known.most_in_flight = max(known.most_in_flight, known.in_flight)
            crowded = known.capacity is not None and known.in_flight > known.capacity
        try:
            if crowded:
                known.refused += 1
                time.sleep(0.002)
                return self._error(429, "rate_limit_exceeded", "too many")
            return self._complete(path, body, content.decode())
        finally:
            with known.lock:
                known.in_flight -= 1

    def _complete(self, path: str, body: dict[str, Any], text: str) -> None:
        known = self.server_state
        fault = known.fault(text)
        if fault is not None:
            time.sleep(fault.after_seconds)
            return self._fault(fault, path, body)
        if self.headers.get("authorization") not in known.authorizations:
            return self._error(401, "invalid_api_key", "no such key")
        if body["model"] not in known.models:
            return self._error(404, "model_not_found", f"no model {body['model']}")
        if prompt_tokens(body) > known.context_tokens:
            return self._error(400, "context_length_exceeded", "the maximum context length is shorter")
        time.sleep(known.seconds)
        return self._json(200, known.generate(path, body))

    def _fault(self, fault: Fault, path: str, body: dict[str, Any]) -> None:
        known = self.server_state
        good = known.generate(path, body) if fault.charged else None
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
        elif fault.truncated:
            content = json.dumps(good or known.generate(path, body)).encode()
            self._send(200, content[: len(content) // 2], fault.headers)
        elif fault.wrong:
            self._json(200, {"result": "of another form"})
        elif fault.body:
            self._send(fault.status, fault.body.encode(), fault.headers)
        elif fault.status:
            self._error(fault.status, fault.code, fault.message, fault.headers)
        else:
            self._json(200, good or known.generate(path, body))

    def _upload(self, content: bytes) -> None:
        known = self.server_state
        time.sleep(known.seconds)
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        parts = message_from_bytes(head + content).get_payload()
        assert isinstance(parts, list)
        (data,) = (part.get_payload(decode=True) for part in parts if part.get_filename())
        name = f"file-{known.number()}"
        known.files[name] = data
        self._json(200, {"id": name, "object": "file", "bytes": len(data), "purpose": "batch"})

    def _new_batch(self, body: dict[str, Any]) -> None:
        known = self.server_state
        batch = {"id": f"batch-{known.number()}", "object": "batch", "status": "in_progress", "polls": 0, **body}
        known.batches[batch["id"]] = batch
        self._json(200, batch)

    def _batch(self, name: str) -> None:
        known = self.server_state
        batch = known.batches.get(name)
        if batch is None:
            return self._error(404, "not_found", "no such batch")
        if known.stumbles:
            known.stumbles -= 1
            return self._error(503, "server_error", "overloaded", {"retry-after-ms": "10"})
        batch["polls"] += 1
        if batch["status"] == "in_progress" and batch["polls"] >= known.polls_of_batch:
            self._carry_out(batch)
        return self._json(200, batch)

    def _carry_out(self, batch: dict[str, Any]) -> None:
        known = self.server_state
        lines = known.files[batch["input_file_id"]].decode().splitlines()
        errors = known.batch_errors
        if len({json.loads(line)["body"]["model"] for line in lines}) > 1:
            errors = [*errors, {"code": "mismatched_model", "message": "a batch is of one model"}]
        if errors:
            batch |= {"status": "failed", "errors": {"object": "list", "data": errors}}
            return
        end, most = known.batch_cuts.pop(0) if known.batch_cuts else ("completed", 1_000_000)
        good, bad = [], []
        for index, line in enumerate(lines):
            request = json.loads(line)
            if index >= most:
                error = {"code": f"batch_{end}", "message": f"the batch {end} before"}
                bad.append({"custom_id": request["custom_id"], "response": None, "error": error})
                continue
            body = request["body"]
            known.asked.append(Asked(batch["endpoint"], body, {}))
            fault = next((each for each in known.batch_faults if re.search(each, line)), None)
            if fault is not None:
                status, code = known.batch_faults.pop(fault)
                error = {"status_code": status, "body": {"error": {"code": code, "message": "scripted"}}}
                bad.append({"custom_id": request["custom_id"], "response": error, "error": None})
            else:
                answer = {"status_code": 200, "body": known.generate(batch["endpoint"], body, Decimal("0.5"))}
                good.append({"custom_id": request["custom_id"], "response": answer, "error": None})
        for field_name, rows in (("output_file_id", good), ("error_file_id", bad)):
            if rows:
                batch[field_name] = f"file-{known.number()}"
                known.files[batch[field_name]] = b"".join(_line(row) for row in reversed(rows))
        batch["status"] = end

    def _error(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._json(status, {"error": {"message": message, "type": code, "code": code}}, headers)

    def _json(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), headers or {})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
