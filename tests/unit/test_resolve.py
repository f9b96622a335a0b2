"""What a source is at plan time: hashes of local files, and what the lock remembers."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tulu_pipeline.artifacts import resolve as resolve_module
from tulu_pipeline.artifacts.resolve import Resolver, SourcesLock
from tulu_pipeline.artifacts.source import HubFile, LocalFile, PinnedFile, TrackedFile
from tulu_pipeline.errors import BadInput


def resolver(folder: Path) -> Resolver:
    return Resolver(SourcesLock(folder / "sources.lock"), folder / "hashes.json")


def hash_of(folder: Path, path: Path) -> str:
    """In a plan of its own."""
    each = resolver(folder)
    descriptor = each.descriptor(LocalFile(path=str(path)))
    each.remember()
    assert descriptor is not None
    return str(descriptor["sha256"])


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as written a while ago after a moment."""
    monkeypatch.setattr(resolve_module, "_SETTLED_SECONDS", 0.03)


@pytest.mark.parametrize("text", ["{", "[]", "3", '{"a": 3}', "\xff", '{"a": null}'])
def test_broken_lock_is_told_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "sources.lock"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput) as broken:
        SourcesLock(path).get("a")
    assert broken.value.where.startswith(str(path))
    assert "version control" in broken.value.fix
    with pytest.raises(BadInput):
        SourcesLock(path).set("b", "0" * 64)
    assert path.read_bytes() == text.encode("latin-1")


def test_lock_is_readable_json_in_order(tmp_path: Path) -> None:
    lock = SourcesLock(tmp_path / "deep" / "sources.lock")
    lock.set("b", "2" * 64)
    lock.set("a", "1" * 64)
    assert lock.path.read_text() == json.dumps({"a": "1" * 64, "b": "2" * 64}, indent=1) + "\n"
    assert SourcesLock(lock.path).get("a") == "1" * 64
    assert SourcesLock(lock.path).get("c") is None
    assert [path.name for path in lock.path.parent.iterdir()] == ["sources.lock"]


def test_lock_keeps_what_processes_and_threads_write_at_a_time(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from tulu_pipeline.artifacts.resolve import SourcesLock
lock = SourcesLock(Path(sys.argv[1]))
for index in range(20):
    lock.set(f"{sys.argv[2]} {index}", "0" * 64)
"""
    path = tmp_path / "sources.lock"
    processes = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    lock = SourcesLock(path)
    threads = [
        threading.Thread(target=lambda name=name: [lock.set(f"{name} {index}", "0" * 64) for index in range(20)])
        for name in "cd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in processes] == [0, 0]
    assert len(json.loads(path.read_text())) == 80


def test_trust_keeps_the_first(tmp_path: Path) -> None:
    lock = SourcesLock(tmp_path / "sources.lock")
    assert lock.trust("a", "1" * 64) == "1" * 64
    assert SourcesLock(lock.path).trust("a", "2" * 64) == "1" * 64
    lock.set("a", "2" * 64)
    assert SourcesLock(lock.path).get("a") == "2" * 64


def test_descriptors_of_pinned_sources_need_no_file(tmp_path: Path) -> None:
    each = resolver(tmp_path)
    assert each.descriptor(PinnedFile(url="u", sha256="a" * 64)) == {"sha256": "a" * 64}
    assert each.descriptor(PinnedFile(url="u")) == {"url": "u"}
    hub = HubFile(repo="x/y", path="z", revision="0" * 40)
    assert each.descriptor(hub) == {"hub": "x/y", "kind": "dataset", "revision": "0" * 40, "path": "z"}
    assert each.descriptor(TrackedFile(url="u")) is None
    each.remember()
    assert list(tmp_path.iterdir()) == []


def test_same_content_has_one_hash_wherever_it_is(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").write_text("x")
    assert hash_of(tmp_path, tmp_path / "a") == hash_of(tmp_path, tmp_path / "b")


@pytest.mark.usefixtures("settled")
def test_unchanged_file_is_hashed_once_and_an_edit_is_seen(tmp_path: Path) -> None:
    path, memory = tmp_path / "rows", tmp_path / "hashes.json"
    path.write_text("one")
    time.sleep(0.05)
    first = hash_of(tmp_path, path)
    memory.write_text(memory.read_text().replace(first, "remembered"))
    assert hash_of(tmp_path, path) == "remembered"
    path.write_text("two")
    assert hash_of(tmp_path, path) not in {first, "remembered"}


def test_edit_within_the_clocks_resolution_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    seen = set()
    for text in ("one", "two", "six"):
        path.write_text(text)
        seen.add(hash_of(tmp_path, path))
    assert len(seen) == 3


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", ["edited in place", "replaced"])
def test_edit_that_keeps_size_and_time_is_seen(tmp_path: Path, how: str) -> None:
    path, other = tmp_path / "rows", tmp_path / "other"
    path.write_text("one")
    time.sleep(0.05)
    first, status = hash_of(tmp_path, path), path.stat()
    written = path if how == "edited in place" else other
    written.write_text("two")
    os.utime(written, ns=(status.st_atime_ns, status.st_mtime_ns))
    written.replace(path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert hash_of(tmp_path, path) != first


@pytest.mark.usefixtures("settled")
def test_memory_keeps_one_entry_per_file(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    for text in ("one", "three", "fifteen"):
        path.write_text(text)
        time.sleep(0.05)
        hash_of(tmp_path, path)
    assert list(json.loads((tmp_path / "hashes.json").read_text())) == [str(path)]


@pytest.mark.parametrize("text", ["{", "[]", "\xff", '{"rows": 3}'])
def test_broken_memory_costs_only_hashing(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows").write_text("one")
    (tmp_path / "hashes.json").write_bytes(text.encode("latin-1"))
    assert len(hash_of(tmp_path, tmp_path / "rows")) == 64


@pytest.mark.usefixtures("settled")
def test_memory_that_cannot_be_written_costs_only_hashing(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("one")
    time.sleep(0.05)
    (tmp_path / "in the way").write_text("")
    each = Resolver(SourcesLock(tmp_path / "sources.lock"), tmp_path / "in the way" / "hashes.json")
    assert each.descriptor(LocalFile(path=str(tmp_path / "rows")))
    each.remember()


def test_one_plan_sees_one_state_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("one")
    each = resolver(tmp_path)
    first = each.descriptor(LocalFile(path=str(path)))
    path.write_text("two")
    assert each.descriptor(LocalFile(path=str(path))) == first


def test_missing_file_is_told_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput) as missing:
        resolver(tmp_path).descriptor(LocalFile(path="none/rows"))
    assert missing.value.where == str(tmp_path / "none" / "rows")
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match="is a folder"):
        resolver(tmp_path).descriptor(LocalFile(path="folder"))


def test_missing_file_with_a_maker_is_made(tmp_path: Path) -> None:
    made = LocalFile(path=str(tmp_path / "deep" / "rows"), maker="test_resolve_maker:make")
    sys.modules["test_resolve_maker"] = sys.modules[make.__module__]
    try:
        assert resolver(tmp_path).descriptor(made)
        assert (tmp_path / "deep" / "rows").read_text() == "made"
        (tmp_path / "deep" / "rows").write_text("edited")
        resolver(tmp_path).descriptor(made)
        assert (tmp_path / "deep" / "rows").read_text() == "edited"
    finally:
        del sys.modules["test_resolve_maker"]


def make(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("made")
