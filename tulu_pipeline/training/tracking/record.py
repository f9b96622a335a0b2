"""The record of a training: a line of JSON for each step, and for each look at the held-out conversations.

steps.jsonl       a `StepRecord` each
held_out.jsonl    a `HeldOutRecord` each; absent where nothing is held out

Every line is an object with the fields of its class and a `schema_version`. Fields are only ever added, with a default
for the lines written before; a reader leaves out a last line that was cut off.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from tulu_pipeline.errors import BadInput

STEPS_FILE = "steps.jsonl"
HELD_OUT_FILE = "held_out.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
SCHEMA_VERSION = 2  # 1: without a version, up to `seconds`


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One optimizer step, over all ranks.

    Attributes:
        step: counted from 1.
        loss: as `loss_norm` defines it.
        learning_rate: of this step.
        grad_norm: before clipping; None in records of before every ZeRO stage told it.
        conversations, tokens, supervised_tokens: that the step trained on.
        computed_tokens: tokens with padding.
        seconds: wall time of the step, waiting for data included.
        data_seconds: of these, what the rank that waited longest waited for its batches.
        idle_share: share of the ranks' work that is waiting for the fullest of each pass, counted in tokens.
        memory_bytes: of the fullest rank: tensors on its GPU at most in this step; where there is no GPU, the most
            that its process ever had in memory.
        memory_reserved_bytes: what torch held of that GPU at most; None where there is none.
        mfu: model FLOPs utilization on tokens without padding; None where the peak of the hardware is not known.
        epoch: passes over the mixture that lie behind, a fraction.
        tokens_so_far: without padding, from the first step on.
        seconds_left: for the steps that are left, by the last ones.
        at: when the step ended, ISO 8601 in UTC.
    """

    step: int
    loss: float
    learning_rate: float
    grad_norm: float | None
    conversations: int
    tokens: int
    supervised_tokens: int
    computed_tokens: int
    seconds: float
    data_seconds: float | None = None
    idle_share: float | None = None
    memory_bytes: int | None = None
    memory_reserved_bytes: int | None = None
    mfu: float | None = None
    epoch: float | None = None
    tokens_so_far: int | None = None
    seconds_left: float | None = None
    at: str = ""

    @property
    def padding_share(self) -> float:
        """Share of the computed tokens that are padding."""
        return 1.0 - self.tokens / self.computed_tokens

    def scalars(self) -> dict[str, float]:
        """What curves are drawn of, by the names that trackers know."""
        gib = None if self.memory_bytes is None else self.memory_bytes / 2**30
        values = {
            "train/loss": self.loss,
            "train/learning_rate": self.learning_rate,
            "train/grad_norm": self.grad_norm,
            "train/epoch": self.epoch,
            "train/tokens": self.tokens_so_far,
            "speed/tokens_per_second": self.tokens / self.seconds,
            "speed/supervised_tokens_per_second": self.supervised_tokens / self.seconds,
            "speed/seconds_per_step": self.seconds,
            "speed/data_wait_share": None if self.data_seconds is None else self.data_seconds / self.seconds,
            "speed/padding_share": self.padding_share,
            "speed/idle_share": self.idle_share,
            "speed/mfu": self.mfu,
            "speed/memory_gib": gib,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutRecord:
    """One look at the conversations that are not trained on.

    Attributes:
        step: steps that lay behind; 0 is the base model.
        loss: mean negative log likelihood of their supervised tokens, in nats.
        conversations, supervised_tokens: that it is the mean over.
        seconds: that it took.
        at: when, ISO 8601 in UTC.
    """

    step: int
    loss: float
    conversations: int
    supervised_tokens: int
    seconds: float
    at: str = ""

    @property
    def perplexity(self) -> float:
        """Of a supervised token."""
        return math.exp(min(self.loss, 700.0))

    def scalars(self) -> dict[str, float]:
        """What curves are drawn of, by the names that trackers know."""
        return {"held_out/loss": self.loss, "held_out/perplexity": self.perplexity}


Record = StepRecord | HeldOutRecord
R = TypeVar("R", StepRecord, HeldOutRecord)


class Listener(Protocol):
    """Who hears of each record beside the files."""

    def add(self, record: Record) -> None:
        """Hear of one."""

    def flush(self) -> None:
        """Bring what was heard to disk."""

    def close(self) -> None:
        """There is no more."""


def _ignore(text: str) -> None:
    """The default for `note`."""


class Recorder:
    """Appends to the record; of a resumed training's, what lies behind its start is kept and the rest is dropped.

    Lines that a full disk does not take wait in memory until there is room: a training does not end for them.

    Args:
        folder: holds the two files.
        done_steps: steps that the resumed training has behind it; 0 for a new one.
        listeners: hear of each record too.
        looks: there will be records of held-out conversations.
        note: told when a disk takes no more, once.

    Attributes:
        tokens: trained on so far.
    """

    def __init__(
        self,
        folder: Path,
        done_steps: int,
        listeners: Sequence[Listener] = (),
        *,
        looks: bool = False,
        note: Callable[[str], None] = _ignore,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._listeners, self._note = list(listeners), note
        self._in_trouble = False
        steps, held_out = folder / STEPS_FILE, folder / HELD_OUT_FILE
        kept = [record for record in read_steps(steps) if record.step <= done_steps]
        self.tokens = sum(record.tokens for record in kept)
        _rewrite(steps, kept)
        if looks:
            _rewrite(held_out, [each for each in read_held_out(held_out) if 0 < done_steps >= each.step])
        self._steps = _Lines(steps)
        self._held_out = _Lines(held_out) if looks else None

    def add(self, record: Record) -> None:
        """Append one."""
        file = self._held_out
        if isinstance(record, StepRecord):
            self.tokens += record.tokens
            file = self._steps
        if file is not None:
            try:
                file.add(_line(record))
            except OSError as error:
                if not self._in_trouble:
                    self._note(f"the record waits for room: {error.strerror or error} ({file.path})")
                self._in_trouble = True
        self._tell(lambda listener: listener.add(record))

    def flush(self) -> None:
        """Bring everything to disk; before state is saved, so that the record is never behind it.

        Raises:
            OSError: that is not possible; what waits goes on waiting.
        """
        for file in self._files():
            file.flush()
        self._in_trouble = False
        self._tell(lambda listener: listener.flush())

    def close(self) -> None:
        """Flush and close. What is trained counts more than its record: what cannot be written is told and lost."""
        try:
            self.flush()
        except OSError as error:
            self._note(f"the end of the record is lost: {error.strerror or error}")
        for file in self._files():
            with suppress(OSError):
                file.close()
        self._tell(lambda listener: listener.close())

    def _tell(self, what: Callable[[Listener], None]) -> None:
        """Listeners hear it; one that cannot write hears no more, since it may lack what is between."""
        for listener in list(self._listeners):
            try:
                what(listener)
            except OSError as error:
                self._listeners.remove(listener)
                self._note(f"`{type(listener).__name__}` gets no more of the record: {error.strerror or error}")

    def _files(self) -> list[_Lines]:
        return [file for file in (self._steps, self._held_out) if file is not None]


class _Lines:
    """A file that is appended to a line at a time: what is recorded is there after a kill.

    Args:
        path: of the file.

    Attributes:
        path: likewise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._waiting = b""

    def add(self, line: str) -> None:
        """Append one, after those that wait; where that raises OSError it waits too."""
        self._waiting += line.encode()
        self._write()

    def flush(self) -> None:
        """Bring what waits to disk."""
        self._write()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _write(self) -> None:
        while self._waiting:  # a disk with little room takes a part
            self._waiting = self._waiting[self._file.write(self._waiting) :]


def read_steps(path: Path) -> Iterator[StepRecord]:
    """The recorded steps; none where there is no such file.

    Raises:
        BadInput: they are of a newer release.
    """
    return _read(path, StepRecord)


def read_held_out(path: Path) -> Iterator[HeldOutRecord]:
    """The recorded looks at the held-out conversations; none where there is no such file.

    Raises:
        BadInput: they are of a newer release.
    """
    return _read(path, HeldOutRecord)


class Tail(Generic[R]):
    """What is appended to a file of the record, from its start; a file that was written anew is read anew.

    Args:
        path: of the file; it need not be there yet.
        kind: of its records.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self._path = path
        self._kind: type[R] = kind
        self._file, self._offset = 0, 0

    def read(self) -> list[R]:
        """What came since the last time.

        Raises:
            BadInput: it is of a newer release.
        """
        try:
            with self._path.open("rb") as lines:
                file = os.fstat(lines.fileno()).st_ino
                if file != self._file:
                    self._file, self._offset = file, 0
                lines.seek(self._offset)
                whole, _, _ = lines.read().rpartition(b"\n")
        except FileNotFoundError:
            return []
        self._offset += len(whole) + bool(whole)
        return [_parsed(line, self._kind, self._path) for line in whole.split(b"\n") if line]


def _parsed(line: str | bytes, kind: type[R], where: Path) -> R:
    values = json.loads(line)
    version = values.pop("schema_version", 1)
    if version > SCHEMA_VERSION:
        raise BadInput(f"a record of schema {version}, this version reads {SCHEMA_VERSION}", str(where), "upgrade")
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})


def now() -> str:
    """The time for `at`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _read(path: Path, kind: type[R]) -> Iterator[R]:
    if not path.exists():
        return
    with path.open() as lines:
        for line in lines:
            if line.endswith("\n"):
                yield _parsed(line, kind, path)


def _rewrite(path: Path, records: Iterable[Record]) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(map(_line, records)))
    temporary.replace(path)


def _line(record: Record) -> str:
    return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(record)}, allow_nan=False) + "\n"
