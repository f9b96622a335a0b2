"""Bytes from outside are the pinned ones or an error, and what was once downloaded is not downloaded again."""

import dataclasses
import hashlib
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.file_server import FileServer, Reply
from toy_graph import Workshop, settings

from tasks.download import DOWNLOAD, DownloadParams
from tulu_pipeline.artifacts import http_download
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.fetch import fetch, resolve_tracked
from tulu_pipeline.artifacts.plan import Status
from tulu_pipeline.artifacts.resolve import SourcesLock
from tulu_pipeline.artifacts.source import Builtin, HubFile, LocalFile, PinnedFile, Source, TrackedFile
from tulu_pipeline.errors import BadInput, HashMismatch, StageFailed, Unreachable
from tulu_pipeline.settings import Settings

DATA = bytes(range(256)) * 2_000
SHA = hashlib.sha256(DATA).hexdigest()
OTHER = b"other" + DATA[5:]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(http_download, "_PAUSE_SECONDS", 0.01)
    with FileServer() as server:
        server.put("/data", DATA)
        yield server


@pytest.fixture
def here(tmp_path: Path) -> Settings:
    return settings(tmp_path)


def get(source: Source, here: Settings, **more: Any) -> bytes:
    """The bytes of `source`, fetched into a folder of their own; nothing else may be left there."""
    out = here.sources_lock.parent / "out"
    fetch(source, "raw/file.jsonl", out, here, lambda done, total: None, **more)
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files == [out / "raw" / "file.jsonl"]
    data = files[0].read_bytes()
    files[0].unlink()
    return data


def locked(here: Settings) -> dict[str, str]:
    return json.loads(here.sources_lock.read_text()) if here.sources_lock.exists() else {}


def pinned(server: FileServer, path: str = "/data", sha256: str | None = SHA) -> PinnedFile:
    return PinnedFile(url=server.url + path, sha256=sha256)


# pins


def test_pinned_bytes_come_and_the_lock_is_left_alone(server: FileServer, here: Settings) -> None:
    assert get(pinned(server), here) == DATA
    assert locked(here) == {}


def test_bytes_that_are_not_the_pinned_ones_are_an_error_and_are_not_kept(server: FileServer, here: Settings) -> None:
    server.put("/data", OTHER)
    with pytest.raises(HashMismatch) as wrong:
        get(pinned(server), here)
    assert SHA in wrong.value.what
    assert hashlib.sha256(OTHER).hexdigest() in wrong.value.what
    assert wrong.value.where == f"{server.url}/data"
    assert wrong.value.fix
    assert [path for path in (here.sources_lock.parent / "out").rglob("*") if path.is_file()] == []


def test_first_download_of_an_unknown_hash_is_trusted_and_remembered(server: FileServer, here: Settings) -> None:
    source = pinned(server, sha256=None)
    assert get(source, here) == DATA
    assert locked(here) == {source.url: SHA}
    assert get(source, here) == DATA


def test_bytes_that_differ_from_the_first_trusted_ones_are_an_error_that_loses_nothing(
    server: FileServer, here: Settings
) -> None:
    source = pinned(server, sha256=None)
    SourcesLock(here.sources_lock).set("another", "0" * 64)
    get(source, here)
    server.put("/data", OTHER)
    before = here.sources_lock.read_bytes()
    with pytest.raises(HashMismatch) as wrong:
        get(source, here)
    assert SHA in wrong.value.what
    assert source.address() in wrong.value.fix
    assert str(here.sources_lock) in wrong.value.fix
    assert here.sources_lock.read_bytes() == before


def test_first_download_of_a_file_known_by_its_git_object_must_have_it(server: FileServer, here: Settings) -> None:
    (here.sources_lock.parent / "data").write_bytes(DATA)
    git_blob = subprocess.run(
        ["git", "hash-object", "--no-filters", str(here.sources_lock.parent / "data")], capture_output=True, check=True
    ).stdout.decode()
    source = PinnedFile(url=server.url + "/data", git_blob=git_blob.strip())
    server.put("/data", OTHER)
    with pytest.raises(HashMismatch, match=f"wanted {source.git_blob}") as wrong:
        get(source, here)
    assert "pin" in wrong.value.fix
    assert locked(here) == {}, "what is not the commit's is never trusted"
    server.put("/data", DATA)
    assert get(source, here) == DATA
    assert locked(here) == {source.url: SHA}


# A file that was published as a constant of a Python file.
TEXT = "Q: eins\nA: öäü 'x' \\\\\n"
ROWS = [{"question": "a\nb", "answer": "é"}, {"question": "", "answer": "\u2028"}]
MODULE = f"import os\n\n# a note\nTEXT = {TEXT!r}\nROWS = {ROWS!r}\nCOMPUTED = os.getcwd()\nNUMBER = 3\n"


def constant(server: FileServer, name: str, value: bytes) -> PinnedFile:
    return PinnedFile(
        url=server.put("/presets.py", MODULE.encode()), constant=name, sha256=hashlib.sha256(value).hexdigest()
    )


def test_the_value_of_a_constant_is_a_file_with_a_hash_of_its_own(
    server: FileServer, here: Settings, tmp_path: Path
) -> None:
    assert get(constant(server, "TEXT", TEXT.encode()), here) == TEXT.encode()
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()
    rows = constant(server, "ROWS", lines)
    assert get(rows, here) == lines
    # A broken download leaves nothing behind that could be taken for the value.
    server.script["/presets.py"] = [Reply(cut=20), Reply(cut=30)]
    assert get(rows, here, keep=tmp_path / "kept") == lines
    assert locked(here) == {}
    with pytest.raises(HashMismatch):
        get(dataclasses.replace(rows, constant="TEXT"), here)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("OTHER", "no constant `OTHER`"), ("COMPUTED", "`COMPUTED` is computed"), ("NUMBER", "`NUMBER` is a int")],
)
def test_a_constant_that_cannot_be_read_is_named(server: FileServer, here: Settings, name: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem) as wrong:
        get(constant(server, name, b""), here)
    assert wrong.value.where.startswith(f"{server.url}/presets.py")


def test_a_page_in_place_of_the_python_file_is_told(server: FileServer, here: Settings) -> None:
    source = constant(server, "TEXT", b"")
    server.put("/presets.py", b"<html>not found</html>")
    with pytest.raises(BadInput, match="not a Python file"):
        get(source, here)


def test_a_value_that_is_not_pinned_by_its_own_hash_is_refused() -> None:
    for more in ({}, {"git_blob": "0" * 40}):
        with pytest.raises(BadInput, match="own sha256"):
            PinnedFile(url="u", constant="TEXT", **more)
    with pytest.raises(BadInput, match="not a git object id"):
        PinnedFile(url="u", git_blob="main")


def test_of_two_first_downloads_at_a_time_one_is_trusted(server: FileServer, here: Settings, tmp_path: Path) -> None:
    server.script["/data"] = [Reply(body=DATA), Reply(body=OTHER)]
    source, errors = pinned(server, sha256=None), list[Exception]()
    meeting = threading.Barrier(2)

    def work(name: str) -> None:
        def report(done: int, total: int | None) -> None:
            if done == total:
                meeting.wait(10)

        try:
            fetch(source, name, tmp_path / name, here, report)
        except HashMismatch as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 1
    assert list(locked(here)) == [source.url]


def test_moving_source_is_fetched_as_it_was_resolved(server: FileServer, here: Settings) -> None:
    source = TrackedFile(url=f"{server.url}/data")
    assert resolve_tracked(source, here) == SHA
    assert locked(here) == {source.address(): SHA}
    assert get(source, here) == DATA
    server.put("/data", OTHER)
    with pytest.raises(HashMismatch) as wrong:
        get(source, here)
    assert "--update-sources" in wrong.value.fix
    assert resolve_tracked(source, here) == hashlib.sha256(OTHER).hexdigest()
    assert get(source, here) == OTHER


def test_hub_file_comes_from_the_hub_of_the_settings(server: FileServer, here: Settings) -> None:
    here = dataclasses.replace(here, hub_endpoint=server.url, hub_token="secret")
    revision = "0123456789" * 4
    model = HubFile(repo="org/model", path="sub/config #1.json", revision=revision, kind="model")
    dataset = HubFile(repo="org/rows", path="a.jsonl", revision=revision)
    server.put(f"/org/model/resolve/{revision}/sub/config%20%231.json", b"config")
    server.put(f"/datasets/org/rows/resolve/{revision}/a.jsonl", b"rows")
    assert get(model, here) == b"config"
    assert get(dataset, here) == b"rows"
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer secret"}
    assert locked(here) == {
        model.address(): hashlib.sha256(b"config").hexdigest(),
        dataset.address(): hashlib.sha256(b"rows").hexdigest(),
    }


def test_token_goes_to_the_hub_and_not_to_where_it_redirects(server: FileServer, here: Settings) -> None:
    with FileServer() as elsewhere:
        revision = "0" * 40
        path = f"/datasets/org/rows/resolve/{revision}/a.jsonl"
        server.always[path] = Reply(location=elsewhere.put("/cdn", DATA).replace("127.0.0.1", "localhost"))
        here = dataclasses.replace(here, hub_endpoint=server.url, hub_token="secret")
        assert get(HubFile(repo="org/rows", path="a.jsonl", revision=revision, sha256=SHA), here) == DATA
        assert "authorization" not in elsewhere.requests[0].headers
        get(pinned(server), here)
        assert "authorization" not in server.requests[-1].headers


# broken connections


@pytest.mark.parametrize("sha256", [SHA, None], ids=["pinned", "first"])
def test_broken_download_goes_on_where_it_broke(server: FileServer, here: Settings, sha256: str | None) -> None:
    server.script["/data"] = [Reply(cut=200_000), Reply(cut=100_000), Reply(cut=0)]
    assert get(pinned(server, sha256=sha256), here) == DATA
    assert server.ranges_asked("/data") == ["", "bytes=200000-", "bytes=300000-", "bytes=300000-"]


@pytest.mark.parametrize("sha256", [SHA, None], ids=["pinned", "first"])
def test_server_without_ranges_is_asked_for_the_whole_again(
    server: FileServer, here: Settings, sha256: str | None
) -> None:
    server.always["/data"] = Reply(ranges=False)
    server.script["/data"] = [Reply(cut=200_000)]
    assert get(pinned(server, sha256=sha256), here) == DATA


@pytest.mark.parametrize("validator", [True, False])
@pytest.mark.parametrize("sha256", [hashlib.sha256(OTHER).hexdigest(), None], ids=["pinned", "first"])
def test_file_that_changes_during_a_broken_download_is_never_mixed(
    server: FileServer, here: Settings, sha256: str | None, validator: bool
) -> None:
    server.script["/data"] = [Reply(cut=200_000, body=DATA, validator=validator)]
    server.always["/data"] = Reply(validator=validator)
    server.put("/data", OTHER)
    assert get(pinned(server, sha256=sha256), here) == OTHER


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_server_that_recovers_is_waited_for(server: FileServer, here: Settings, status: int) -> None:
    server.script["/data"] = [Reply(status=status, headers={"Retry-After": "0"}), Reply(status=status)]
    assert get(pinned(server), here) == DATA


def test_server_that_does_not_recover_is_told_as_passing(server: FileServer, here: Settings) -> None:
    server.always["/data"] = Reply(status=500)
    with pytest.raises(Unreachable) as failed:
        get(pinned(server), here)
    assert "500" in failed.value.what
    assert failed.value.where == f"{server.url}/data"
    assert failed.value.fix
    assert len(server.requests) == 4


def test_download_that_always_breaks_at_once_is_given_up(server: FileServer, here: Settings) -> None:
    server.always["/data"] = Reply(cut=0)
    with pytest.raises(Unreachable):
        get(pinned(server), here)
    assert len(server.requests) == 4


def test_download_that_gains_with_each_try_is_not_given_up(server: FileServer, here: Settings) -> None:
    server.always["/data"] = Reply(cut=50_000)
    assert get(pinned(server), here) == DATA
    assert len(server.requests) == 11


@pytest.mark.parametrize(
    ("status", "fix"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "moved"), (410, "moved"), (400, "")]
)
def test_answer_that_will_not_change_is_told_at_once(server: FileServer, here: Settings, status: int, fix: str) -> None:
    server.always["/data"] = Reply(status=status)
    with pytest.raises(StageFailed) as failed:
        get(pinned(server), here)
    assert not isinstance(failed.value, Unreachable)
    assert str(status) in failed.value.what
    assert fix in failed.value.fix
    assert len(server.requests) == 1


def test_address_where_nobody_answers_is_told(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_download, "_PAUSE_SECONDS", 0.0)
    with pytest.raises(Unreachable, match="ConnectError"):
        get(PinnedFile(url="http://127.0.0.1:9/x", sha256=SHA), here)


def test_server_without_an_address_is_not_waited_for(here: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_download, "_PAUSE_SECONDS", 0.0)
    with pytest.raises(StageFailed, match=r"no way to `nowhere\.invalid`") as failed:
        get(PinnedFile(url="http://nowhere.invalid/x", sha256=SHA), here)
    assert not isinstance(failed.value, Unreachable)  # nor is it tried again later


@pytest.mark.parametrize("url", ["ftp://host/x", "no address", "http://[::bad/x"])
def test_address_that_is_none_is_told_at_once(here: Settings, url: str) -> None:
    with pytest.raises(StageFailed) as failed:
        get(PinnedFile(url=url, sha256=SHA), here)
    assert failed.value.where == url
    assert not isinstance(failed.value, Unreachable)


def test_whole_chunked_body_is_trusted_and_a_broken_one_is_not(server: FileServer, here: Settings) -> None:
    server.script["/data"] = [Reply(cut=100_000, length="chunked", ranges=False)]
    server.always["/data"] = Reply(length="chunked", ranges=False)
    assert get(pinned(server, sha256=None), here) == DATA


def test_body_whose_end_cannot_be_seen_counts_only_against_a_hash(server: FileServer, here: Settings) -> None:
    server.always["/data"] = Reply(length="none")
    assert get(pinned(server), here) == DATA
    with pytest.raises(StageFailed, match="how long"):
        get(pinned(server, sha256=None), here)
    assert locked(here) == {}


def test_bytes_are_those_of_the_file_and_not_of_a_compressed_answer(server: FileServer, here: Settings) -> None:
    import gzip

    packed = gzip.compress(DATA)
    server.put("/data.gz", packed)
    server.always["/data.gz"] = Reply(headers={"Content-Encoding": "gzip"})
    server.script["/data.gz"] = [Reply(cut=500, headers={"Content-Encoding": "gzip"})]
    assert get(pinned(server, "/data.gz", hashlib.sha256(packed).hexdigest()), here) == packed
    assert server.requests[0].headers["accept-encoding"] == "identity"


def test_progress_tells_bytes_done_and_in_all(server: FileServer, here: Settings, tmp_path: Path) -> None:
    server.script["/data"] = [Reply(cut=200_000)]
    told: list[tuple[int, int | None]] = []
    fetch(pinned(server), "x", tmp_path / "out", here, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


# what a kill leaves


def test_next_try_goes_on_where_a_stopped_one_was(server: FileServer, here: Settings, tmp_path: Path) -> None:
    server.always["/data"] = Reply(cut=100_000)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fetch(pinned(server), "x", tmp_path / "out", here, interrupt, keep=tmp_path / "work")
    server.always.clear()
    server.requests.clear()
    assert get(pinned(server), here, keep=tmp_path / "work") == DATA
    (first,) = server.ranges_asked("/data")
    assert int(first.removeprefix("bytes=").removesuffix("-")) >= 100_000
    assert list((tmp_path / "work").iterdir()) == []


def interrupt(done: int, total: int | None) -> None:
    if done % 100_000 == 0:
        raise KeyboardInterrupt


def test_stopped_try_whose_rest_is_there_needs_no_more_bytes(
    server: FileServer, here: Settings, tmp_path: Path
) -> None:
    def stop_at_the_end(done: int, total: int | None) -> None:
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(pinned(server), "x", tmp_path / "out", here, stop_at_the_end, keep=tmp_path / "work")
    assert get(pinned(server), here, keep=tmp_path / "work") == DATA
    assert server.ranges_asked("/data") == ["", f"bytes={len(DATA)}-"]


@pytest.mark.parametrize("ranges", [True, False])
def test_damaged_rest_of_a_stopped_try_is_thrown_away(
    server: FileServer, here: Settings, tmp_path: Path, ranges: bool
) -> None:
    server.script["/data"] = [Reply(cut=100_000)]
    with pytest.raises(KeyboardInterrupt):
        fetch(pinned(server), "x", tmp_path / "out", here, interrupt, keep=tmp_path / "work")
    server.always["/data"] = Reply(ranges=ranges)
    (part,) = (tmp_path / "work").glob("*.part")
    part.write_bytes(b"damaged" + part.read_bytes()[7:])
    assert get(pinned(server), here, keep=tmp_path / "work") == DATA


# other kinds


def test_local_file_is_copied(here: Settings, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(DATA)
    assert get(LocalFile(path=str(tmp_path / "rows")), here) == DATA
    assert (tmp_path / "rows").read_bytes() == DATA
    assert locked(here) == {}


def test_local_file_that_changed_since_it_was_planned_is_an_error(here: Settings, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(OTHER)
    with pytest.raises(HashMismatch) as wrong:
        get(LocalFile(path=str(tmp_path / "rows")), here, wanted=SHA)
    assert wrong.value.where == str(tmp_path / "rows")
    assert "run the same command" in wrong.value.fix


def test_local_file_that_is_not_there_is_told(here: Settings, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as missing:
        get(LocalFile(path=str(tmp_path / "none")), here)
    assert str(tmp_path / "none") in missing.value.what


def test_builtin_writes_its_own_files(here: Settings, tmp_path: Path) -> None:
    made = Builtin(function=f"{__name__}:write_builtin", version=1, args=(("text", "x"), ("count", 3)))
    import sys

    sys.modules.setdefault(__name__, sys.modules[get.__module__])
    fetch(made, "ignored", tmp_path, here, lambda done, total: None)
    assert (tmp_path / "made").read_text() == "xxx"


def write_builtin(out: Path, text: str, count: int) -> None:
    (out / "made").write_text(text * count)


# mirror


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "rows").write_bytes(DATA)
    (folder / "MANIFEST.json").write_text(json.dumps([{"path": "train/rows", "sha256": SHA, "bytes": len(DATA)}]))
    return folder


@pytest.mark.parametrize("form", ["path", "url", "slash"])
def test_mirror_serves_a_pinned_file_by_its_hash(server: FileServer, here: Settings, mirror: Path, form: str) -> None:
    address = {"path": str(mirror), "url": f"file://{mirror}", "slash": f"{mirror}/"}[form]
    here = dataclasses.replace(here, mirror=address)
    assert get(PinnedFile(url="http://127.0.0.1:9/gone", sha256=SHA), here) == DATA
    assert get(PinnedFile(url=None, sha256=SHA), here) == DATA
    assert server.requests == []


def test_mirror_serves_what_was_trusted_before(server: FileServer, here: Settings, mirror: Path) -> None:
    source = pinned(server, sha256=None)
    get(source, here)
    server.files.clear()
    assert get(source, dataclasses.replace(here, mirror=str(mirror))) == DATA


def test_what_the_mirror_lacks_comes_from_its_address(server: FileServer, here: Settings, mirror: Path) -> None:
    server.put("/other", OTHER)
    source = pinned(server, "/other", hashlib.sha256(OTHER).hexdigest())
    assert get(source, dataclasses.replace(here, mirror=str(mirror))) == OTHER


def test_mirror_with_wrong_bytes_is_told(here: Settings, mirror: Path) -> None:
    (mirror / "train" / "rows").write_bytes(OTHER)
    with pytest.raises(HashMismatch) as wrong:
        get(PinnedFile(url=None, sha256=SHA), dataclasses.replace(here, mirror=str(mirror)))
    assert wrong.value.where == f"{mirror}/train/rows"


def test_mirror_that_lists_a_file_it_lacks_is_told(here: Settings, mirror: Path) -> None:
    (mirror / "train" / "rows").unlink()
    with pytest.raises(BadInput) as wrong:
        get(PinnedFile(url=None, sha256=SHA), dataclasses.replace(here, mirror=str(mirror)))
    assert wrong.value.where == f"{mirror}/train/rows"


@pytest.mark.parametrize("text", [None, "{", "3", "[3]", '[{"path": "x"}]', '{"sha256": "x"}'])
def test_folder_that_is_no_mirror_is_told(here: Settings, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "MANIFEST.json").write_text(text)
    with pytest.raises(BadInput) as wrong:
        get(PinnedFile(url=None, sha256=SHA), dataclasses.replace(here, mirror=str(tmp_path)))
    assert wrong.value.where == f"{tmp_path}/MANIFEST.json"
    assert "TULU_MIRROR" in wrong.value.fix


@pytest.mark.parametrize("mirror", ["nonsense://x", "http://127.0.0.1:9/mirror"])
def test_mirror_that_cannot_be_reached_is_told(here: Settings, mirror: str) -> None:
    with pytest.raises(BadInput):
        get(PinnedFile(url=None, sha256=SHA), dataclasses.replace(here, mirror=mirror))


def test_file_that_only_a_mirror_has_is_told_without_one(here: Settings) -> None:
    with pytest.raises(StageFailed) as failed:
        get(PinnedFile(url=None, sha256=SHA), here)
    assert "TULU_MIRROR" in failed.value.fix


def test_mirror_can_be_served_by_http(server: FileServer, here: Settings, mirror: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec's http needs it")
    for path in ("MANIFEST.json", "train/rows"):
        server.put(f"/mirror/{path}", (mirror / path).read_bytes())
    assert get(PinnedFile(url=None, sha256=SHA), dataclasses.replace(here, mirror=f"{server.url}/mirror")) == DATA


# the stage


def download(cell: str = "a", **sources: Source) -> Artifact:
    return Artifact(stage=DOWNLOAD, cell=cell, params=DownloadParams(), sources=sources)


def test_download_publishes_each_source_under_its_name(server: FileServer, tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    (tmp_path / "local").write_bytes(b"local")
    target = download(**{"raw/a.bin": pinned(server), "b": LocalFile(path=str(tmp_path / "local"))})
    assert not shop.run(target).failed
    (manifest,) = shop.store.manifests()
    assert [entry.path for entry in manifest.outputs] == ["b", "raw/a.bin"]
    assert manifest.metrics == {"files": 2, "bytes": len(DATA) + 5}
    assert shop.statuses(target) == {"download[a]": Status.HIT}


def test_download_killed_midway_goes_on_in_the_next_run(server: FileServer, tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    server.always["/data"] = Reply(cut=0)
    server.script["/data"] = [Reply(cut=300_000)]
    assert shop.run(download(raw=pinned(server))).failed
    server.always.clear()
    server.requests.clear()
    assert not shop.run(download(raw=pinned(server))).failed
    assert server.ranges_asked("/data") == ["bytes=300000-"]


def test_edited_local_file_moves_the_key(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    (tmp_path / "rows").write_text("one")
    target = download(raw=LocalFile(path=str(tmp_path / "rows")))
    shop.run(target)
    (tmp_path / "rows").write_text("two")
    assert shop.statuses(target) == {"download[a]": Status.MISS}
    shop.run(target)
    (tmp_path / "rows").write_text("one")
    assert shop.statuses(target) == {"download[a]": Status.HIT}


def test_local_file_edited_after_the_plan_is_not_published_under_the_planned_key(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    (tmp_path / "rows").write_text("one")
    target = download(raw=LocalFile(path=str(tmp_path / "rows")))
    plan = shop.plan(target)
    (tmp_path / "rows").write_text("two")
    (failure,) = shop.carry_out(plan).failed
    assert isinstance(failure.error, HashMismatch)
    assert list(shop.store.manifests()) == []
    assert not shop.run(target).failed


def test_moving_source_reruns_only_once_it_is_resolved_anew(server: FileServer, tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    source = TrackedFile(url=f"{server.url}/data")
    assert shop.statuses(download(raw=source)) == {"download[a]": Status.WAITS}
    resolve_tracked(source, shop.settings)
    assert not shop.run(download(raw=source)).failed
    server.put("/data", OTHER)
    assert shop.statuses(download(raw=source)) == {"download[a]": Status.HIT}
    resolve_tracked(source, shop.settings)
    assert shop.statuses(download(raw=source)) == {"download[a]": Status.MISS}
    assert not shop.run(download(raw=source)).failed


def test_wrong_hash_fails_its_branch_and_leaves_everything_as_it_was(server: FileServer, tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    good = download("good", raw=pinned(server))
    shop.run(good)
    bad = download("bad", raw=pinned(server, sha256="0" * 64))
    result = shop.run(good, shop.node("join", "x", "", (bad,)))
    assert [(failure.name, type(failure.error)) for failure in result.failed] == [("download[bad]", HashMismatch)]
    assert result.blocked == ["join[x]"]
    assert shop.statuses(good) == {"download[good]": Status.HIT}
