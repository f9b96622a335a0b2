"""A model hub on this machine: its API as `huggingface_hub` and our downloads call it, with faults by script.

Repositories with commits, visibility and gating; Git LFS in one piece or in parts, checked by hash on arrival. What it
holds is only what came through the API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from fakes.loopback import LoopbackServer

TOKEN = "hf_writes"
_LARGE = (".safetensors", ".model")
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One answer that differs from the good one.

    Attributes:
        method, path: of the requests that it befalls; `path` is searched as a regular expression.
        status: sent instead of an answer; 0 closes the connection.
        headers: sent with it.
        message: the server's words.
        after_bytes: of the body, read before it closes the connection.
        after_seconds: it says nothing so long first.
        done: what was asked is done all the same; only the answer is lost.
        times: how often.
    """

    method: str
    path: str
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "scripted"
    after_bytes: int = 0
    after_seconds: float = 0.0
    done: bool = False
    times: int = 1


@dataclass(frozen=True)
class Blob:
    """A file: kept by Git, or apart by its sha256."""

    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_sha1(self) -> str:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        data = pointer.encode() if self.large else self.data
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass(frozen=True)
class Commit:
    sha: str
    summary: str
    description: str
    files: dict[str, Blob]


@dataclass
class Repository:
    private: bool
    gated: str | bool = False
    commits: list[Commit] = field(default_factory=list)
    large: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def commit(self, summary: str, description: str, files: dict[str, Blob]) -> Commit:
        seed = json.dumps([summary, len(self.commits), sorted((path, blob.git_sha1) for path, blob in files.items())])
        made = Commit(hashlib.sha1(seed.encode()).hexdigest(), summary, description, files)
        self.commits.append(made)
        return made

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.head
        return next((commit for commit in self.commits if commit.sha == revision), None)


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    body: bytes


class Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class HubServer(LoopbackServer):
    """A hub where `owners` may be written to with `TOKEN`. `part_bytes` sends larger files in such parts."""

    def __init__(self, owners: tuple[str, ...] = ("camels",), part_bytes: int = 0) -> None:
        self.owners, self.part_bytes = owners, part_bytes
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                _serve(owner, self)

            def do_HEAD(self) -> None:
                _serve(owner, self)

            def do_POST(self) -> None:
                _serve(owner, self)

            def do_PUT(self) -> None:
                _serve(owner, self)

            def log_message(self, *_: object) -> None: ...

        super().__init__(Handler)

    def create(self, name: str, *, private: bool = True) -> Repository:
        """A repository as the hub makes it: with `.gitattributes`, and a commit."""
        made = self.repositories[name] = Repository(private=private)
        rules = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in _LARGE)
        made.commit("initial commit", "", {".gitattributes": Blob(rules.encode(), large=False)})
        return made

    @contextmanager
    def broken_by(self, *faults: Fault) -> Iterator[None]:
        """While the body runs, requests meet `faults`; those that none met are an error."""
        self.faults.extend(faults)
        yield
        left, self.faults = self.faults, []
        assert not left, f"never met: {left}"

    def uploads(self) -> list[str]:
        """Paths of the storage that files were sent to since the last call."""
        sent = [each.path for each in self.seen if each.method == "PUT" and each.path.startswith("/storage/")]
        self.seen.clear()
        return sent

    def fault(self, method: str, path: str) -> Fault | None:
        """The fault that this request meets; taken off the script as often as it is to happen."""
        with self.lock:
            for index, each in enumerate(self.faults):
                if each.method == method and re.search(each.path, path):
                    left = Fault(**{**each.__dict__, "times": each.times - 1})
                    self.faults[index : index + 1] = [left] if left.times else []
                    return each
        return None


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def _json(value: object, status: int = 200) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _serve(hub: HubServer, handler: BaseHTTPRequestHandler) -> None:
    fault = hub.fault(handler.command, handler.path)
    length = int(handler.headers.get("Content-Length") or 0)
    if fault is not None and not fault.status and not fault.done:
        handler.rfile.read(min(fault.after_bytes, length))
        time.sleep(fault.after_seconds)
        handler.close_connection = True
        handler.connection.close()
        return
    body = handler.rfile.read(length) if length else _chunks(handler)
    with hub.lock:
        hub.seen.append(Seen(handler.command, handler.path, body))
    if fault is not None and not fault.done:
        answer = _json({"error": fault.message}, fault.status)
        answer.headers |= fault.headers
    else:
        try:
            with hub.lock:
                answer = _route(hub, handler, body)
        except Refused as refused:
            answer = _json({"error": refused.message}, refused.status)
            if refused.code:
                answer.headers["X-Error-Code"] = refused.code
    if fault is not None and fault.done:
        handler.close_connection = True
        handler.connection.close()
        return
    handler.send_response(answer.status)
    for name, text in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
        handler.send_header(name, text)
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(answer.body)


def _chunks(handler: BaseHTTPRequestHandler) -> bytes:
    if "chunked" not in handler.headers.get("Transfer-Encoding", ""):
        return b""
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body


def _route(hub: HubServer, handler: BaseHTTPRequestHandler, body: bytes) -> Answer:
    address = urlsplit(handler.path)
    path, query = unquote(address.path), parse_qs(address.query)
    if path.startswith("/storage/"):  # a signed address: no token is sent there
        return _store(hub, path, body)
    said = handler.headers.get("Authorization", "")
    if said and said != f"Bearer {TOKEN}":
        raise Refused(401, "Invalid credentials in Authorization header")
    known = bool(said)
    if handler.command == "POST" and path == "/api/repos/create":
        return _create(hub, json.loads(body), known)
    if handler.command == "POST" and path == "/api/validate-yaml":
        return _validate(json.loads(body)["content"])
    if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/(batch|verify)", path):
        repository = _writable(hub, found[1], known)
        if found[2] == "batch":
            return _batch(hub, found[1], repository, json.loads(body))
        return _verify(repository, json.loads(body))
    if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
        return _resolve(_readable(hub, found[1], known), found[2], found[3], handler)
    if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(.*))?", path):
        return _model(hub, handler.command, found[1], found[2] or "", query, body, known)
    raise Refused(404, f"no such page: {path}")


def _readable(hub: HubServer, name: str, known: bool) -> Repository:
    repository = hub.repositories.get(name)
    if repository is None or (repository.private and not known):
        raise Refused(401 if not known else 404, "Repository not found", "RepoNotFound")
    return repository


def _writable(hub: HubServer, name: str, known: bool) -> Repository:
    repository = _readable(hub, name, known)
    if not known:
        raise Refused(401, "Invalid username or password.")
    if name.split("/")[0] not in hub.owners:
        raise Refused(403, "you may not write here")
    return repository


def _create(hub: HubServer, asked: dict[str, Any], known: bool) -> Answer:
    if not known:
        raise Refused(401, "Invalid username or password.")
    name = f"{asked['organization']}/{asked['name']}"
    if asked["organization"] not in hub.owners:
        raise Refused(
            403, f'You don\'t have the rights to create a model under the namespace "{asked["organization"]}"'
        )
    if name in hub.repositories:
        return _json({"error": "You already created this model repo", "url": f"{hub.url}/{name}"}, 409)
    hub.create(name, private=asked.get("visibility") == "private")
    return _json({"url": f"{hub.url}/{name}", "name": name})


def _validate(content: str) -> Answer:
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    try:
        values = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        return _json({"errors": [{"message": f"bad YAML: {error}"}]}, 400)
    if not isinstance(values, dict) or not isinstance(values.get("license", ""), str):
        return _json({"errors": [{"message": "no metadata, or a license that is no text"}]}, 400)
    return _json({"errors": [], "warnings": []})


def _model(
    hub: HubServer, method: str, name: str, rest: str, query: dict[str, list[str]], body: bytes, known: bool
) -> Answer:
    verb, _, revision = rest.partition("/")
    if method == "GET" and verb in {"", "revision"}:
        return _info(name, _readable(hub, name, known), revision or "main", "blobs" in query)
    if method == "GET" and verb == "tree":
        return _tree(_readable(hub, name, known), revision.split("/")[0])
    repository = _writable(hub, name, known)
    if method == "POST" and verb == "preupload":
        return _preupload(repository, json.loads(body)["files"])
    if method == "POST" and verb == "commit":
        return _commit(hub, name, repository, [json.loads(line) for line in body.splitlines()])
    if method == "PUT" and verb == "settings":
        asked = json.loads(body)
        if "gated" in asked:
            repository.gated = asked["gated"]
        if "visibility" in asked:
            repository.private = asked["visibility"] == "private"
        return _json({"gated": repository.gated, "private": repository.private})
    raise Refused(404, f"no such page: {rest}")


def _commit_at(repository: Repository, revision: str) -> Commit:
    commit = repository.at(revision)
    if commit is None:
        raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


def _info(name: str, repository: Repository, revision: str, blobs: bool) -> Answer:
    commit = _commit_at(repository, revision)
    siblings: list[dict[str, Any]] = []
    for path, blob in sorted(commit.files.items()):
        facts: dict[str, Any] = {"rfilename": path}
        if blobs:
            facts |= {"size": len(blob.data), "blobId": blob.git_sha1}
            if blob.large:
                facts["lfs"] = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": 130}
        siblings.append(facts)
    facts = {"id": name, "modelId": name, "sha": commit.sha, "private": repository.private, "gated": repository.gated}
    return _json({**facts, "siblings": siblings, "tags": [], "downloads": 0})


def _tree(repository: Repository, revision: str) -> Answer:
    listed = []
    for path, blob in sorted(_commit_at(repository, revision).files.items()):
        facts: dict[str, Any] = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.git_sha1}
        if blob.large:
            facts["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 130}
        listed.append(facts)
    return _json(listed)


def _preupload(repository: Repository, files: list[dict[str, Any]]) -> Answer:
    answers = []
    for file in files:
        large = file["path"].endswith(_LARGE)
        known = repository.head.files.get(file["path"])
        oid = None if known is None else known.sha256 if known.large else known.git_sha1
        mode = "lfs" if large else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return _json({"files": answers})


def _batch(hub: HubServer, name: str, repository: Repository, asked: dict[str, Any]) -> Answer:
    objects = []
    for each in asked["objects"]:
        oid, size = each["oid"], each["size"]
        entry: dict[str, Any] = {"oid": oid, "size": size}
        if oid not in repository.large:
            verify = {"href": f"{hub.url}/{name}.git/info/lfs/objects/verify"}
            upload: dict[str, Any] = {"href": f"{hub.url}/storage/{name}/{oid}"}
            if hub.part_bytes and size > hub.part_bytes:
                count = -(-size // hub.part_bytes)
                parts = {str(part + 1): f"{hub.url}/storage/{name}/{oid}/{part + 1}" for part in range(count)}
                href = f"{hub.url}/storage/{name}/{oid}/complete"
                upload = {"href": href, "header": {"chunk_size": str(hub.part_bytes), **parts}}
            entry["actions"] = {"upload": upload, "verify": verify}
        objects.append(entry)
    return _json({"transfer": "multipart" if hub.part_bytes else "basic", "objects": objects})


def _store(hub: HubServer, path: str, body: bytes) -> Answer:
    found = re.fullmatch(r"/storage/([^/]+/[^/]+)/([0-9a-f]{64})(?:/(\d+|complete))?", path)
    if found is None:
        raise Refused(404, "no such object")
    repository = hub.repositories[found[1]]
    if found[3] == "complete":
        return _complete(repository, json.loads(body))
    if found[3]:
        repository.parts.setdefault(found[2], {})[int(found[3])] = body
        return Answer(headers={"ETag": f'"{hashlib.sha256(body).hexdigest()}"'})
    return _keep(repository, found[2], body)


def _keep(repository: Repository, oid: str, body: bytes) -> Answer:
    if hashlib.sha256(body).hexdigest() != oid:
        raise Refused(400, "the content is not that of its hash")
    repository.large[oid] = body
    return Answer()


def _complete(repository: Repository, asked: dict[str, Any]) -> Answer:
    """Every part must be there, under the tag that it was given on arrival."""
    parts = repository.parts.pop(asked["oid"], {})
    for part in asked["parts"]:
        tag = f'"{hashlib.sha256(parts.get(part["partNumber"], b"")).hexdigest()}"'
        if part["etag"] != tag:
            raise Refused(400, f"part {part['partNumber']} is not what came")
    return _keep(repository, asked["oid"], b"".join(parts[number] for number in sorted(parts)))


def _verify(repository: Repository, asked: dict[str, Any]) -> Answer:
    if len(repository.large.get(asked["oid"], b"")) != asked["size"]:
        raise Refused(404, "no such object")
    return Answer()


def _commit(hub: HubServer, name: str, repository: Repository, lines: list[dict[str, Any]]) -> Answer:
    header = lines[0]["value"]
    if header.get("parentCommit", repository.head.sha) != repository.head.sha:
        raise Refused(412, "A commit has happened since. Please refresh and try again.")
    files = dict(repository.head.files)
    for line in lines[1:]:
        value = line["value"]
        if line["key"] == "file":
            if value["path"].endswith(_LARGE):
                raise Refused(400, f"{value['path']} belongs to the large files")
            files[value["path"]] = Blob(base64.b64decode(value["content"]), large=False)
        elif line["key"] == "lfsFile":
            if value["oid"] not in repository.large:
                raise Refused(400, f"{value['path']} was never uploaded")
            files[value["path"]] = Blob(repository.large[value["oid"]], large=True)
        elif line["key"] == "deletedFile":
            del files[value["path"]]
        else:
            raise Refused(400, f"an operation `{line['key']}`")
    made = repository.commit(header["summary"], header["description"], files)
    return _json({"commitUrl": f"{hub.url}/{name}/commit/{made.sha}", "commitOid": made.sha, "success": True})


def _resolve(repository: Repository, revision: str, path: str, handler: BaseHTTPRequestHandler) -> Answer:
    commit = _commit_at(repository, revision)
    if repository.gated and not handler.headers.get("Authorization"):
        raise Refused(401, "Access to this model is restricted.", "GatedRepo")
    blob = commit.files.get(path)
    if blob is None:
        raise Refused(404, "Entry not found", "EntryNotFound")
    tag = blob.sha256 if blob.large else blob.git_sha1
    headers = {"ETag": f'"{tag}"', "X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if asked and handler.headers.get("If-Range", f'"{tag}"') == f'"{tag}"':
        first = int(asked[1])
        headers["Content-Range"] = f"bytes {first}-{len(blob.data) - 1}/{len(blob.data)}"
        return Answer(206, blob.data[first:], headers)
    return Answer(200, blob.data, headers)
