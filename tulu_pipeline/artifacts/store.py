"""The store: published artifacts by key, resumable scratch, readable names.

actions/<stage>/<k0k1>/<key>.json    manifests, the only commit point
data/<stage>/<key12>-<attempt8>/     payloads; location is not identity
work/<stage>/<key>/                  scratch that survives a kill, removed at publish
attempts/<key>/<n>                   results asked for anew by --refresh
leases/<key>/<n>.json                who is making it
refs/<experiment>/<cell>             names for people
api/replies.jsonl                    replies of paid servers, in the local folder (see `api.replies`)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tulu_pipeline.artifacts.canonical import sha256_text, text_of_plain
from tulu_pipeline.artifacts.manifest import FileEntry, Manifest, digest_of, list_files
from tulu_pipeline.artifacts.stage import AUX
from tulu_pipeline.artifacts.storage import RemoteStorage, Storage, fsync_folder, open_storage, telling
from tulu_pipeline.errors import StageFailed, StoreError, Tampered

_LONGEST_NAME_BYTES = 240


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where one try at an artifact writes: `out` the payload-to-be, `work` scratch that a later try finds again."""

    stage: str
    key: str
    payload: str
    out: Path
    work: Path


class Store:
    """An artifact store at a path or fsspec URL.

    Args:
        url: root; created when first written to.
        cache: where payloads of a store that is not local are copied to be read.

    Raises:
        StoreError: the backend cannot create a file only if absent.
    """

    def __init__(self, url: str, cache: Path | None = None) -> None:
        opened = open_storage(url)
        self.storage: Storage = opened
        self._remote = opened if isinstance(opened, RemoteStorage) else None
        self.url = opened.url
        cache = cache or Path.home() / ".cache" / "tulu_pipeline"
        self._scratch = opened.local or cache / sha256_text(opened.url)[:12]

    @property
    def scratch(self) -> Path:
        """A local folder that belongs to this store alone: the store itself where it is local."""
        return self._scratch

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """The manifest under `key`, or None where nothing is published."""
        path = _action(stage, key)
        data = self.storage.read(path)
        return None if data is None else Manifest.from_json(data, f"{self.url}/{path}")

    def has_payload(self, manifest: Manifest) -> bool:
        """Whether the payload folder is there (its bytes are `verify`'s business)."""
        return self.storage.exists(manifest.payload)

    def begin(self, stage: str, key: str) -> Attempt:
        """Folders for a new try. What other tries left stays until one is published: they may be alive."""
        payload = f"data/{stage}/{key[:12]}-{uuid.uuid4().hex[:8]}"
        out, work = self._scratch / payload, self._scratch / "work" / stage / key
        with telling(out):
            out.mkdir(parents=True)
            work.mkdir(parents=True, exist_ok=True)
        return Attempt(stage, key, payload, out, work)

    def seal(self, attempt: Attempt) -> tuple[tuple[FileEntry, ...], tuple[FileEntry, ...]]:
        """Hash what a try has written, make it durable and, for a store elsewhere, copy it there.

        Raises:
            StageFailed: it wrote no output, or something that is no plain file.
        """
        with telling(attempt.out):
            outputs, aux = list_files(attempt.out, fsync=True)
            fsync_folder(attempt.out.parent)
        if not outputs:
            raise StageFailed(
                "the stage ended without writing any output", attempt.payload, "this is a bug of the stage"
            )
        if self._remote is not None:
            for entry in (*outputs, *aux):
                self._remote.upload(attempt.out / entry.path, f"{attempt.payload}/{entry.path}")
        return outputs, aux

    def publish(self, attempt: Attempt, manifest: Manifest) -> Manifest:
        """Commit. Where another process was first, its manifest is returned and this payload is dropped.

        Raises:
            StoreError: another process was first, removed this try, and is not there any more.
        """
        while True:
            winner = self.manifest(manifest.stage, manifest.key)
            if winner is not None and self.has_payload(winner):
                break
            if not self.has_payload(manifest):
                raise StoreError("this try was removed by another process", manifest.payload, "run the same command")
            if winner is not None:
                self.retract(winner)
            if self.storage.put_if_absent(_action(manifest.stage, manifest.key), manifest.to_json()):
                winner = manifest
                break
        if winner.payload != attempt.payload:
            shutil.rmtree(attempt.out, ignore_errors=True)
        self._sweep(attempt.stage, attempt.key, winner.payload)
        return winner

    def tidy(self, published: Iterable[Manifest]) -> None:
        """Finish the cleaning up of processes that were killed right after they published."""
        scratch = {key.name for key in (self._scratch / "work").glob("*/*")}
        for manifest in published:
            if manifest.key in scratch:
                self._sweep(manifest.stage, manifest.key, manifest.payload)

    def retract(self, manifest: Manifest) -> None:
        """Take back a manifest whose payload is gone, so that it can be made again."""
        self.storage.remove(_action(manifest.stage, manifest.key))

    def discard_payload(self, attempt: Attempt) -> None:
        """Remove what a failed try has written, unless it was published after all; its scratch stays."""
        manifest = self.manifest(attempt.stage, attempt.key)
        if manifest is None or manifest.payload != attempt.payload:
            shutil.rmtree(attempt.out, ignore_errors=True)
            if self._remote is not None:
                self._remote.remove(attempt.payload)

    def path(self, manifest: Manifest) -> Path:
        """The payload as a local folder; copied and checked first when the store is elsewhere.

        Raises:
            Tampered: what was copied is not what was published.
        """
        folder = self._scratch / manifest.payload
        if self._remote is not None:
            for entry in (*manifest.outputs, *manifest.aux):
                target = folder / entry.path
                if not target.exists():
                    _fetch(self._remote, f"{manifest.payload}/{entry.path}", target, entry)
        return folder

    def verify(self, manifest: Manifest) -> None:
        """Hash the payload again, where it is stored.

        Raises:
            Tampered: naming the files that changed, are gone or are new.
        """
        where = f"{manifest.name} at {self.url}/{manifest.payload}"
        fix = "remove that folder, then `tulu run` makes it again"
        if not self.has_payload(manifest):
            raise Tampered("the payload is gone", where, "`tulu run` makes it again")
        try:
            found = {entry.path: entry for entry in self._list(manifest)}
        except StageFailed as error:
            raise Tampered(f"tampered: {error.what}", where, fix) from error
        wanted = {entry.path: entry for entry in manifest.outputs}
        changed = [
            *(f"{path} is gone" for path in wanted.keys() - found.keys()),
            *(f"{path} is new" for path in found.keys() - wanted.keys()),
            *(f"{path} has changed" for path in wanted.keys() & found.keys() if wanted[path] != found[path]),
        ]
        if changed:
            more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise Tampered(f"tampered: {'; '.join(sorted(changed)[:5])}{more}", where, fix)
        action = f"remove {self.url}/{_action(manifest.stage, manifest.key)}, then `tulu run` makes it again"
        if digest_of(manifest.outputs) != manifest.digest:
            raise Tampered("the manifest's digest is not that of its files", where, action)
        if sha256_text(text_of_plain(manifest.identity)) != manifest.key:
            raise Tampered("the manifest's key is not that of its identity", where, action)

    def manifests(
        self, on_error: Callable[[StoreError], None] | None = None, only: str | None = None
    ) -> Iterator[Manifest]:
        """Every published manifest, or those of the stage `only`; one that cannot be read goes to `on_error`."""
        for stage in self.storage.names("actions") if only is None else [only]:
            for prefix in self.storage.names(f"actions/{stage}"):
                for name in self.storage.names(f"actions/{stage}/{prefix}"):
                    try:
                        manifest = self.manifest(stage, name.removesuffix(".json"))
                    except StoreError as error:
                        if on_error is None:
                            raise
                        on_error(error)
                        continue
                    if manifest is not None:
                        yield manifest

    def attempts(self) -> dict[str, int]:
        """Key to the number of its newest refresh."""
        newest = {}
        for key in self.storage.names("attempts"):
            if numbers := self.storage.names(f"attempts/{key}"):
                newest[key] = max(map(int, numbers))
        return newest

    def add_attempt(self, key: str, number: int) -> None:
        """Record that `key` is to be made anew as attempt `number`."""
        self.storage.put_if_absent(f"attempts/{key}/{number}", b"")

    def set_ref(self, experiment: str, name: str, manifest: Manifest) -> None:
        """Point the readable name at an artifact: a symbolic link to its payload on a local store, else its path."""
        path = _ref(experiment, name)
        if self.storage.local is None:
            if self.storage.read(path) != manifest.payload.encode():
                self.storage.write(path, manifest.payload.encode())
            return
        target = f"../../{manifest.payload}"
        if _link_target(self.ref_place(experiment, name)) == target:
            return
        link = self.storage.local / path
        with telling(link):
            link.parent.mkdir(parents=True, exist_ok=True)
            temporary = link.with_name(f".tmp-{uuid.uuid4().hex}")
            try:
                temporary.symlink_to(target)
                temporary.replace(link)
            finally:
                temporary.unlink(missing_ok=True)

    def ref_place(self, experiment: str, name: str) -> str:
        """Where the readable name is: a path or URL for people."""
        return f"{self.url}/{_ref(experiment, name)}"

    def ref(self, experiment: str, name: str) -> Manifest | None:
        """The artifact a readable name last pointed at; None where it is not published any more."""
        payload = self.ref_payload(experiment, name)
        if not payload:
            return None
        _, stage, folder = payload.split("/")
        short = folder.partition("-")[0]
        for file in self.storage.names(f"actions/{stage}/{short[:2]}"):
            if file.startswith(short):
                manifest = self.manifest(stage, file.removesuffix(".json"))
                if manifest is not None and manifest.payload == payload:
                    return manifest
        return None

    def ref_payload(self, experiment: str, name: str) -> str:
        """The payload that a readable name was last set to, whether it is still there or not; "" for none."""
        path = _ref(experiment, name)
        if self.storage.local is None:
            return (self.storage.read(path) or b"").decode()
        return _link_target(f"{self.url}/{path}").removeprefix("../../")

    def _list(self, manifest: Manifest) -> Iterable[FileEntry]:
        """Its output files as they are now, where they are stored."""
        if self._remote is None:
            outputs, _ = list_files(self._scratch / manifest.payload)
            return outputs
        with tempfile.TemporaryDirectory() as folder:
            for path in self._remote.files(manifest.payload):
                if not path.startswith(f"{AUX}/"):
                    self._remote.download(f"{manifest.payload}/{path}", Path(folder, path))
            outputs, _ = list_files(Path(folder))
            return outputs

    def _sweep(self, stage: str, key: str, kept: str) -> None:
        """Remove whatever other tries left: none of them can be published any more. The scratch goes last."""
        folder = f"data/{stage}"
        for name in self.storage.names(folder):
            if name.startswith(f"{key[:12]}-") and f"{folder}/{name}" != kept:
                with contextlib.suppress(StoreError):  # what is left is only garbage
                    self.storage.remove(f"{folder}/{name}")
        work = self._scratch / "work" / stage
        shutil.rmtree(work / key, ignore_errors=True)
        with contextlib.suppress(OSError):
            work.rmdir()


def _fetch(remote: RemoteStorage, path: str, target: Path, entry: FileEntry) -> None:
    temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        remote.download(path, temporary)
        with open(temporary, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                raise Tampered(f"{entry.path} has changed", f"{remote.url}/{path}", "remove the artifact and run again")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def _action(stage: str, key: str) -> str:
    return f"actions/{stage}/{key[:2]}/{key}.json"


def _ref(experiment: str, name: str) -> str:
    return f"refs/{_file_name(experiment)}/{_file_name(name)}"


def _file_name(name: str) -> str:
    """A name as one file name: `/` becomes `∕`, which looks the same; what is too long ends with its hash."""
    safe = name.replace("/", "∕")
    data = safe.encode()
    if len(data) <= _LONGEST_NAME_BYTES:
        return safe
    return f"{data[: _LONGEST_NAME_BYTES - 9].decode(errors='ignore')}-{sha256_text(name)[:8]}"


def _link_target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - a plan with nothing to do asks for thousands
    except OSError:
        return ""
