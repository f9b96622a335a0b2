"""A file server on this machine that answers by script: breaks off, refuses, redirects, changes its files.

Without a script it serves its files as a good server does: ranges, validators, `If-Range`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from fakes.loopback import LoopbackServer


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One answer that differs from the good one.

    Attributes:
        status: of an answer without the file, 200 for the file.
        cut: close the connection after so many bytes of the body.
        ranges: honor `Range`.
        validator: send an ETag.
        length: "exact", "chunked" or "none" (the end of the connection ends the body).
        location: redirect there.
        headers: sent on top.
        body: in place of the file.
    """

    status: int = 200
    cut: int | None = None
    ranges: bool = True
    validator: bool = True
    length: str = "exact"
    location: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]


class FileServer(LoopbackServer):
    """Serves `files` by path. `script` holds, by path, the answers to come; the good one when it is used up."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.script: dict[str, list[Reply]] = {}
        self.always: dict[str, Reply] = {}
        self.requests: list[Request] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                owner.requests.append(Request(self.path, {name.lower(): text for name, text in self.headers.items()}))
                script = owner.script.get(self.path, [])
                reply = script.pop(0) if script else owner.always.get(self.path, Reply())
                _answer(self, owner.files.get(self.path), reply)

            def log_message(self, *_: object) -> None: ...

        super().__init__(Handler)

    def put(self, path: str, data: bytes) -> str:
        """Serve `data` at `path`; returns its address."""
        self.files[path] = data
        return self.url + path

    def ranges_asked(self, path: str) -> list[str]:
        """The `Range` of each request for `path`, "" for none."""
        return [request.headers.get("range", "") for request in self.requests if request.path == path]


def _answer(handler: BaseHTTPRequestHandler, data: bytes | None, reply: Reply) -> None:
    if reply.location:
        return _headers(handler, 302, {"Location": reply.location, "Content-Length": "0"})
    if reply.status != 200 or data is None:
        body = reply.body or b"no"
        _headers(
            handler, reply.status if reply.status != 200 else 404, {"Content-Length": str(len(body)), **reply.headers}
        )
        handler.wfile.write(body)
        return None
    whole = data if reply.body is None else reply.body
    etag = f'"{hashlib.sha256(whole).hexdigest()[:16]}"'
    headers = {"ETag": etag} if reply.validator else {}
    first, status = 0, 200
    asked = handler.headers.get("Range", "")
    if asked and reply.ranges and handler.headers.get("If-Range", etag) == etag:
        first, status = int(asked.removeprefix("bytes=").partition("-")[0]), 206
        if first >= len(whole):
            return _headers(handler, 416, {"Content-Range": f"bytes */{len(whole)}", "Content-Length": "0"})
        headers["Content-Range"] = f"bytes {first}-{len(whole) - 1}/{len(whole)}"
    body = whole[first:]
    sent = body if reply.cut is None else body[: reply.cut]
    if reply.length == "exact":
        headers["Content-Length"] = str(len(body))
    elif reply.length == "chunked":
        headers["Transfer-Encoding"] = "chunked"
    else:
        headers["Connection"] = "close"
    _headers(handler, status, {**headers, **reply.headers})
    if reply.length == "chunked":
        for start in range(0, len(sent), 1000):
            piece = sent[start : start + 1000]
            handler.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if reply.cut is None:
            handler.wfile.write(b"0\r\n\r\n")
    else:
        handler.wfile.write(sent)
    if reply.cut is not None or reply.length == "none":
        handler.close_connection = True
    return None


def _headers(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, text in headers.items():
        handler.send_header(name, text)
    handler.end_headers()
