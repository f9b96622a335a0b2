"""The store: published artifacts by key, resumable scratch, readable names.

actions/<stage>/<k0k1>/<key>.json    manifests, the only commit point
data/<stage>/<key12>-<attempt8>/     payloads; location is not identity
work/<stage>/<key>/                  scratch that survives a kill, removed at publish
attempts/<key>/<n>                   results asked for anew by --refresh
leases/<key>/<n>.json                who is making it
refs/<experiment>/<cell>             names for people
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tulu_pipeline.artifacts.manifest import FileEntry, Manifest, digest_of, list_files
from tulu_pipeline.artifacts.storage import Storage, open_storage
from tulu_pipeline.errors import StageFailed, Tampered


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
        self.storage: Storage = open_storage(url)
        self.url = self.storage.url
        self._scratch = self.storage.local or cache or Path.home() / ".cache" / "tulu_pipeline"

    def manifest(self, stage: str, key: str) -> Manifest | None:
        """The manifest under `key`, or None where nothing is published."""
        path = _action(stage, key)
        data = self.storage.read(path)
        return None if data is None else Manifest.from_json(data, f"{self.url}/{path}")

    def has_payload(self, manifest: Manifest) -> bool:
        """Whether the payload folder is there (its bytes are `verify`'s business)."""
        return self.storage.exists(manifest.payload)

    def begin(self, stage: str, key: str) -> Attempt:
        """Folders for a new try. Call it under the lease: payloads of dead tries are removed."""
        prefix = f"{key[:12]}-"
        for name in self.storage.names(f"data/{stage}"):
            if name.startswith(prefix):
                self.storage.remove(f"data/{stage}/{name}")
        payload = f"data/{stage}/{prefix}{uuid.uuid4().hex[:8]}"
        out, work = self._scratch / payload, self._scratch / "work" / stage / key
        out.mkdir(parents=True)
        work.mkdir(parents=True, exist_ok=True)
        return Attempt(stage, key, payload, out, work)

    def seal(self, attempt: Attempt) -> tuple[tuple[FileEntry, ...], tuple[FileEntry, ...]]:
        """Hash what a try has written, make it durable and, for a store elsewhere, copy it there.

        Raises:
            StageFailed: it wrote no output.
        """
        outputs, aux = list_files(attempt.out, fsync=True)
        if not outputs:
            raise StageFailed(
                "the stage ended without writing any output", attempt.payload, "this is a bug of the stage"
            )
        if self.storage.local is None:
            for entry in (*outputs, *aux):
                self.storage.upload(attempt.out / entry.path, f"{attempt.payload}/{entry.path}")
        return outputs, aux

    def publish(self, attempt: Attempt, manifest: Manifest) -> Manifest:
        """Commit. Where another process was first, its manifest is returned and this payload is dropped."""
        won = self.storage.put_if_absent(_action(manifest.stage, manifest.key), manifest.to_json())
        self.discard_work(attempt)
        if won:
            return manifest
        self.discard_payload(attempt)
        winner = self.manifest(manifest.stage, manifest.key)
        assert winner is not None
        return winner

    def retract(self, manifest: Manifest) -> None:
        """Take back a manifest whose payload is gone, so that it can be made again."""
        self.storage.remove(_action(manifest.stage, manifest.key))

    def discard_payload(self, attempt: Attempt) -> None:
        """Remove what a failed try has written; its scratch stays."""
        shutil.rmtree(attempt.out, ignore_errors=True)
        if self.storage.local is None:
            self.storage.remove(attempt.payload)

    def discard_work(self, attempt: Attempt) -> None:
        """Remove the scratch of a published artifact."""
        shutil.rmtree(attempt.work, ignore_errors=True)
        with contextlib.suppress(OSError):
            attempt.work.parent.rmdir()

    def path(self, manifest: Manifest) -> Path:
        """The payload as a local folder; copied and checked first when the store is elsewhere."""
        folder = self._scratch / manifest.payload
        if self.storage.local is None:
            for entry in manifest.outputs:
                target = folder / entry.path
                if not target.exists():
                    self._fetch(f"{manifest.payload}/{entry.path}", target, entry)
        return folder

    def verify(self, manifest: Manifest) -> None:
        """Hash the payload again.

        Raises:
            Tampered: naming the files that changed, are gone or are new.
        """
        folder = self.path(manifest)
        where = f"{manifest.name} at {folder}"
        fix = "remove its folder, then `tulu run` makes it again"
        if not folder.is_dir():
            raise Tampered("the payload is gone", where, "`tulu run` makes it again")
        outputs, _ = list_files(folder)
        found = {entry.path: entry for entry in outputs}
        wanted = {entry.path: entry for entry in manifest.outputs}
        changed = [
            *(f"{path} is gone" for path in wanted.keys() - found.keys()),
            *(f"{path} is new" for path in found.keys() - wanted.keys()),
            *(f"{path} has changed" for path in wanted.keys() & found.keys() if wanted[path] != found[path]),
        ]
        if changed:
            raise Tampered(f"tampered: {'; '.join(sorted(changed)[:5])}", where, fix)
        if digest_of(outputs) != manifest.digest:
            raise Tampered("the manifest's digest is not that of its files", where, fix)

    def manifests(self) -> Iterator[Manifest]:
        """Every published manifest."""
        for stage in self.storage.names("actions"):
            for prefix in self.storage.names(f"actions/{stage}"):
                for name in self.storage.names(f"actions/{stage}/{prefix}"):
                    manifest = self.manifest(stage, name.removesuffix(".json"))
                    if manifest is not None:
                        yield manifest

    def attempts(self) -> dict[str, int]:
        """Key to the number of its newest refresh."""
        newest = {}
        for key in self.storage.names("attempts"):
            newest[key] = max(int(number) for number in self.storage.names(f"attempts/{key}"))
        return newest

    def add_attempt(self, key: str, number: int) -> None:
        """Record that `key` is to be made anew as attempt `number`."""
        self.storage.put_if_absent(f"attempts/{key}/{number}", b"")

    def set_ref(self, experiment: str, name: str, manifest: Manifest) -> None:
        """Point the readable name at an artifact: a symbolic link to its payload on a local store, else its path."""
        path = f"refs/{experiment}/{_file_name(name)}"
        if self.storage.local is None:
            self.storage.write(path, manifest.payload.encode())
            return
        link = self.storage.local / path
        target = os.path.relpath(self.storage.local / manifest.payload, link.parent)
        if link.is_symlink() and str(link.readlink()) == target:
            return
        link.parent.mkdir(parents=True, exist_ok=True)
        temporary = link.with_name(f".tmp-{uuid.uuid4().hex}")
        temporary.symlink_to(target)
        temporary.replace(link)

    def ref(self, experiment: str, name: str) -> Manifest | None:
        """The artifact a readable name last pointed at."""
        path = f"refs/{experiment}/{_file_name(name)}"
        if self.storage.local is None:
            data = self.storage.read(path)
            payload = data.decode() if data else ""
        else:
            link = self.storage.local / path
            payload = str(link.readlink()) if link.is_symlink() else ""
        if not payload:
            return None
        stage, folder = payload.split("/")[-2:]
        short = folder.partition("-")[0]
        for name in self.storage.names(f"actions/{stage}/{short[:2]}"):
            if name.startswith(short):
                manifest = self.manifest(stage, name.removesuffix(".json"))
                if manifest is not None and manifest.payload.endswith(folder):
                    return manifest
        return None

    def _fetch(self, path: str, target: Path, entry: FileEntry) -> None:
        import hashlib

        temporary = target.with_name(f".tmp-{uuid.uuid4().hex}")
        self.storage.download(path, temporary)
        with open(temporary, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry.sha256:
                temporary.unlink()
                raise Tampered(f"{entry.path} has changed", f"{self.url}/{path}", "remove the artifact and run again")
        temporary.replace(target)


def _action(stage: str, key: str) -> str:
    return f"actions/{stage}/{key[:2]}/{key}.json"


def _file_name(name: str) -> str:
    """A cell name as one file name: `/` becomes `∕`, which looks the same and separates nothing."""
    return name.replace("/", "∕")
