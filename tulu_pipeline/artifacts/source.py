"""Leaves of the graph: bytes from outside, each with a descriptor that is part of a key.

PinnedFile    a URL and its sha256; a hash nobody has seen is None and is trusted on the first download, which must
              have its git object id where that is known
HubFile       a file of a hub repository at a 40-hex revision
HubModel      what a model repository of the hub holds at a 40-hex revision: weights, tokenizer, or both
TrackedFile   a URL whose content moves; resolved to a hash by `--update-sources`, kept in `sources.lock`
LocalFile     a file on this machine, hashed at plan time
Builtin       made by a function of this project
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tulu_pipeline.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedFile:
    """A file at a fixed address.

    Attributes:
        url: where it is published; None for a file that only a mirror has.
        sha256: its hash, computed or read, never guessed; None trusts the first download.
        constant: "" for the file at `url` itself. Else that is a Python file, and this one is the value of its
            constant of that name: a text as it stands, a list as JSON, one element a line. `sha256` is that of the
            value, so that a mirror may hold it in this form.
        git_blob: 40 hex digits by which the repository's tree names the file, read there: what is trusted on the
            first download must have it.
    """

    url: str | None
    sha256: str | None = None
    constant: str = ""
    git_blob: str | None = None

    def __post_init__(self) -> None:
        if self.url is None and self.sha256 is None:
            raise BadInput("a pinned file has neither url nor sha256", "PinnedFile", "give at least one")
        if self.sha256 is not None and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise BadInput(f"`{self.sha256}` is not a sha256", str(self.url), "write 64 hex digits, or None")
        if self.git_blob is not None and not re.fullmatch("[0-9a-f]{40}", self.git_blob):
            raise BadInput(f"`{self.git_blob}` is not a git object id", str(self.url), "write 40 hex digits, or None")
        if self.constant and (self.sha256 is None or self.git_blob is not None):
            raise BadInput(
                f"the value of `{self.constant}` is not pinned by its own sha256", str(self.url), "give its `sha256`"
            )

    def address(self) -> str:
        """What the lock file remembers it by."""
        return self.url or f"sha256:{self.sha256}"

    def descriptor(self) -> dict[str, Any]:
        """The hash alone where it is known: moving the file moves no key."""
        return {"sha256": self.sha256} if self.sha256 else {"url": self.url}


def pinned_files(pins: Path, url: Callable[[str], str]) -> dict[str, PinnedFile]:
    """The files that a JSON file of names and hashes lists; `url` gives the address of a name.

    A hash is a sha256, or `git:` and a git object id where nobody has read the file.
    """
    return {name: _pinned(url(name), pin) for name, pin in json.loads(pins.read_text()).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a hub repository (`kind` "dataset" or "model") at a full commit hash."""

    repo: str
    path: str
    revision: str
    kind: str = "dataset"
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check_commit(self.revision, f"hub file {self.repo}/{self.path}")

    def address(self) -> str:
        return f"hub:{self.kind}:{self.repo}@{self.revision}/{self.path}"

    def descriptor(self) -> dict[str, Any]:
        if self.sha256:
            return {"sha256": self.sha256}
        return {"hub": self.repo, "kind": self.kind, "revision": self.revision, "path": self.path}


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel:
    """The files of a hub repository at a full commit hash that `transformers` and vLLM open a model with.

    Their names are the repository's, read from its listing when they are downloaded: a commit has one listing, so
    repository, commit and part decide the bytes. Weights are safetensors where there are any.

    Attributes:
        repo: `owner/name`.
        revision: 40 hex digits.
        part: "weights" (with the configuration), "tokenizer", or "whole" for both.
    """

    repo: str
    revision: str
    part: Literal["whole", "weights", "tokenizer"] = "whole"

    def __post_init__(self) -> None:
        _check_commit(self.revision, f"hub model {self.repo}")

    def address(self) -> str:
        return f"hub:model:{self.repo}@{self.revision}#{self.part}"

    def descriptor(self) -> dict[str, Any]:
        return {"hub": self.repo, "kind": "model", "revision": self.revision, "part": self.part}

    def file(self, path: str) -> HubFile:
        """One of its files."""
        return HubFile(repo=self.repo, path=path, revision=self.revision, kind="model")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedFile:
    """A URL whose content moves; `sources.lock` says which bytes count until `--update-sources`."""

    url: str

    def address(self) -> str:
        return f"tracked:{self.url}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A file on this machine.

    Attributes:
        path: absolute, or relative to the working directory.
        maker: `module:function` that writes the file (and its siblings) where it is missing; "" for none.
    """

    path: str
    maker: str = ""

    def address(self) -> str:
        return f"local:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Builtin:
    """Made by a function of this project: `function(out: Path, **dict(args))` writes files into `out`.

    Attributes:
        function: `module:function`.
        version: bumped when it writes other bytes.
        args: keyword arguments, as pairs of name and scalar.
    """

    function: str
    version: int
    args: tuple[tuple[str, str | int | float], ...] = ()

    def address(self) -> str:
        return f"builtin:{self.function}"

    def descriptor(self) -> dict[str, Any]:
        return {"builtin": self.function, "version": self.version, "args": dict(self.args)}


Source = PinnedFile | HubFile | HubModel | TrackedFile | LocalFile | Builtin


def _pinned(url: str, pin: str) -> PinnedFile:
    kind, _, git_blob = pin.rpartition(":")
    return PinnedFile(url=url, git_blob=git_blob) if kind == "git" else PinnedFile(url=url, sha256=pin)


def _check_commit(revision: str, where: str) -> None:
    if not re.fullmatch("[0-9a-f]{40}", revision):
        raise BadInput(f"revision `{revision}` is not a commit", where, "write the 40-hex hash")
