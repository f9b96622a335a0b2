"""What a run and its nodes say to each other: messages as lines of JSON over TCP.

First each proves to the other that it knows the job's secret; until then neither believes anything else:

    node  Hello   a nonce
    run   Task    the job file, a nonce, and the proof for the node's nonce
    node  Seen    the proof for the run's nonce
    node  Offer   what it has; or Refused
    run   Start   once all nodes are there
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

BEAT_SECONDS = 5.0
SILENCE_SECONDS = 60.0  # a machine that lost its power sends no end
_LINE_BYTES = 1 << 20


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Hello(_Message):
    """A node offers itself.

    Attributes:
        node: its name.
        index: its place among the nodes, where its launcher gave it one.
        nonce: for the run's proof.
    """

    kind: Literal["hello"] = "hello"
    node: str
    index: int | None
    nonce: str


class Task(_Message):
    """The run names its job file, with the proof for the node's nonce; `nonce` is for the node's."""

    kind: Literal["task"] = "task"
    job_file: Path
    nonce: str
    proof: str


class Seen(_Message):
    """The node has read that very file, as its proof for the run's nonce says."""

    kind: Literal["seen"] = "seen"
    proof: str


class Offer(_Message):
    """The node can take part.

    Attributes:
        versions: of the packages whose collectives and files must agree.
        gpus: that its ranks may see.
        port: free there, for the ranks to meet at.
    """

    kind: Literal["offer"] = "offer"
    versions: dict[str, str]
    gpus: int
    port: int


class Refused(_Message):
    """The node cannot take part."""

    kind: Literal["refused"] = "refused"
    what: str
    fix: str


class Start(_Message):
    """All are there.

    Attributes:
        index: the node's place among the nodes.
        nodes: how many they are.
        address, port: where the ranks meet.
        devices: the node's devices by the hostfile; empty for the first that are visible.
        environment: variables for the ranks.
    """

    kind: Literal["start"] = "start"
    index: int
    nodes: int
    address: str
    port: int
    devices: tuple[str, ...]
    environment: dict[str, str]


class Report(_Message):
    """An event of one of the node's ranks."""

    kind: Literal["report"] = "report"
    event: dict[str, Any]


class Ended(_Message):
    """The node's ranks have ended.

    Attributes:
        failure: empty where they did what they should.
        code: of what started them, where that ended with one, or of that rank.
        rank: which one ended first, where what started them says so.
    """

    kind: Literal["ended"] = "ended"
    failure: str
    code: int | None
    rank: int | None = None


class Stop(_Message):
    """End the ranks that still run."""

    kind: Literal["stop"] = "stop"


class Beat(_Message):
    """The sender is alive."""

    kind: Literal["beat"] = "beat"


Message = Hello | Task | Seen | Offer | Refused | Start | Report | Ended | Stop
_ANY: TypeAdapter[Message | Beat] = TypeAdapter(Annotated[Message | Beat, Field(discriminator="kind")])


def proof(secret: str, side: Literal["run", "node"], nonce: str) -> str:
    """What only a `side` that knows the secret can answer to the other side's nonce."""
    return hmac.new(secret.encode(), f"{side}:{nonce}".encode(), hashlib.sha256).hexdigest()


def is_proof(answer: str, secret: str, side: Literal["run", "node"], nonce: str) -> bool:
    """Whether that side has answered so."""
    return hmac.compare_digest(answer.encode(), proof(secret, side, nonce).encode())


class Channel:
    """One end of a connection; beats while it is open.

    Args:
        connection: connected; the channel closes it.

    Attributes:
        own_address: the address of this machine that the other side is connected to.
        peer_address: the other side's.

    Raises:
        OSError: the connection is gone already.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.own_address = str(connection.getsockname()[0])
        self.peer_address = str(connection.getpeername()[0])
        connection.settimeout(SILENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=self._beat, daemon=True, name="beat").start()

    def send(self, message: Message | Beat) -> None:
        """Send; nothing happens where the connection is gone, which `messages` tells."""
        data = message.model_dump_json().encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(data)

    def messages(self) -> Iterator[Message]:
        """What the other side sends until it ends, falls silent, or speaks something else."""
        with contextlib.suppress(OSError, ValidationError), self._connection.makefile("rb") as lines:
            while (line := lines.readline(_LINE_BYTES)).endswith(b"\n"):
                message = _ANY.validate_json(line)
                if not isinstance(message, Beat):
                    yield message

    def close(self) -> None:
        """End the connection; the other side's `messages` ends."""
        self._closed.set()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            self.send(Beat())
