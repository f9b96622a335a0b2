"""The store: what is published is whole, what is not published is not there."""

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_graph import Workshop

from tulu_pipeline.artifacts.canonical import sha256_text, text_of_plain
from tulu_pipeline.artifacts.manifest import SCHEMA_VERSION, Manifest, digest_of, list_files
from tulu_pipeline.artifacts.plan import Status
from tulu_pipeline.artifacts.storage import LocalStorage, RemoteStorage, Storage, open_storage
from tulu_pipeline.artifacts.store import Attempt, Store
from tulu_pipeline.errors import StageFailed, StoreError, Tampered

IDENTITY = {"stage": "toy"}
KEY = sha256_text(text_of_plain(IDENTITY))


@pytest.fixture(params=["local", "memory"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path}")


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    url = str(tmp_path / "store") if request.param == "local" else f"memory://{tmp_path}"
    return Store(url, tmp_path / "cache")


def make(store: Store, text: str = "text", key: str = KEY) -> tuple[Attempt, Manifest]:
    """A sealed try and the manifest that would publish it."""
    attempt = store.begin("toy", key)
    (attempt.out / "text").write_text(text)
    (attempt.out / "more").mkdir()
    (attempt.out / "more" / "rows").write_text("rows")
    (attempt.out / "aux").mkdir()
    (attempt.out / "aux" / "log").write_text("log")
    outputs, aux = store.seal(attempt)
    digest = digest_of(outputs)
    return attempt, Manifest(
        key=key,
        name="toy[a]",
        stage="toy",
        identity=IDENTITY,
        payload=attempt.payload,
        digest=digest,
        outputs=outputs,
        aux=aux,
    )


# storage


def test_put_if_absent_keeps_the_first(storage: Storage) -> None:
    assert storage.put_if_absent("a/b/c.json", b"first")
    assert not storage.put_if_absent("a/b/c.json", b"second")
    assert storage.read("a/b/c.json") == b"first"
    assert storage.names("a/b") == ["c.json"]


def test_of_many_writers_exactly_one_wins(storage: Storage) -> None:
    for round_ in range(20):
        won: list[int] = []
        start = threading.Barrier(8)

        def write(number: int, path: str = f"race/{round_}", won: list[int] = won, start: Any = start) -> None:
            start.wait()
            if storage.put_if_absent(path, str(number).encode()):
                won.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [str(number).encode() for number in won] == [storage.read(f"race/{round_}")]


def test_write_replaces(storage: Storage) -> None:
    storage.write("a/b", b"1")
    storage.write("a/b", b"22")
    assert storage.read("a/b") == b"22"


def test_what_is_not_there_is_none_and_empty(storage: Storage) -> None:
    assert storage.read("no/such") is None
    assert storage.names("no") == []
    assert not storage.exists("no/such")
    storage.remove("no/such")


def test_remove_takes_a_file_or_a_whole_folder(storage: Storage) -> None:
    for path in ("a/x", "a/b/y", "a/b/c/z"):
        storage.write(path, b"")
    storage.remove("a/x")
    assert storage.names("a") == ["b"]
    storage.remove("a/b")
    assert not storage.exists("a/b")


@pytest.mark.parametrize("url", ["s3://bucket/store", "gs://bucket", "http://host/store", "nonsense://x"])
def test_backend_without_a_proven_create_if_absent_is_refused(url: str) -> None:
    with pytest.raises(StoreError) as refused:
        Store(url)
    assert url in refused.value.where
    assert "--store" in refused.value.fix


def test_file_url_is_a_local_folder(tmp_path: Path) -> None:
    assert Store(f"file://{tmp_path}/s").storage.local == tmp_path / "s"


def test_store_that_cannot_be_written_is_told_with_its_fix(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file, not a folder")
    store = Store(str(tmp_path / "store"))
    with pytest.raises(StoreError) as refused:
        store.begin("toy", KEY)
    assert str(tmp_path / "store") in refused.value.where
    assert refused.value.fix
    with pytest.raises(StoreError):
        store.storage.write("a", b"")
    with pytest.raises(StoreError):
        store.storage.put_if_absent("a", b"")


# publishing


def test_nothing_is_there_before_publish_and_all_of_it_after(store: Store) -> None:
    attempt, manifest = make(store)
    assert store.manifest("toy", KEY) is None
    assert list(store.manifests()) == []
    assert store.publish(attempt, manifest) == manifest
    assert store.manifest("toy", KEY) == manifest == next(store.manifests())
    assert store.has_payload(manifest)
    assert (store.path(manifest) / "text").read_text() == "text"
    assert (store.path(manifest) / "aux" / "log").read_text() == "log"
    store.verify(manifest)
    assert not attempt.work.exists()


def test_outputs_count_and_aux_does_not(tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / text / "aux").mkdir(parents=True)
        (tmp_path / text / "text").write_text("same")
        (tmp_path / text / "aux" / "log").write_text(text)
    (one, one_aux), (two, two_aux) = list_files(tmp_path / "one"), list_files(tmp_path / "two")
    assert digest_of(one) == digest_of(two)
    assert one_aux != two_aux
    assert [entry.path for entry in one] == ["text"]


def test_digest_is_of_content_size_and_path(tmp_path: Path) -> None:
    digests = set()
    for name, text in (("a", "x"), ("b", "x"), ("a", "y"), ("sub/a", "x")):
        folder = tmp_path / str(len(digests))
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
        digests.add(digest_of(list_files(folder)[0]))
    assert len(digests) == 4
    assert digest_of(reversed(list_files(folder)[0])) == digest_of(list_files(folder)[0])


def test_try_without_output_cannot_be_sealed(store: Store) -> None:
    attempt = store.begin("toy", KEY)
    (attempt.out / "aux").mkdir()
    (attempt.out / "aux" / "log").write_text("log")
    with pytest.raises(StageFailed, match="without writing any output"):
        store.seal(attempt)


@pytest.mark.parametrize("kind", ["link to a file", "link to a folder", "dangling link", "pipe"])
def test_what_is_no_plain_file_cannot_be_sealed(store: Store, tmp_path: Path, kind: str) -> None:
    attempt, _ = make(store)
    target = {"link to a file": tmp_path / "x", "link to a folder": tmp_path}.get(kind, tmp_path / "none")
    (tmp_path / "x").write_text("outside")
    if kind == "pipe":
        os.mkfifo(attempt.out / "odd")
    else:
        (attempt.out / "odd").symlink_to(target)
    with pytest.raises(StageFailed) as failed:
        store.seal(attempt)
    assert "odd" in failed.value.what


def test_second_to_publish_takes_the_winners_artifact(store: Store) -> None:
    first, manifest = make(store, "first")
    second, late = make(store, "second")
    assert store.publish(first, manifest) == manifest
    assert store.publish(second, late) == manifest
    assert (store.path(manifest) / "text").read_text() == "first"
    assert not second.out.exists()
    assert store.storage.names("data/toy") == [manifest.payload.rpartition("/")[2]]


def test_payload_that_is_gone_is_replaced_by_a_new_one(store: Store) -> None:
    first, manifest = make(store, "first")
    store.publish(first, manifest)
    store.storage.remove(manifest.payload)
    second, late = make(store, "second")
    assert store.publish(second, late) == late
    store.verify(late)


def test_try_that_was_swept_cannot_be_published(store: Store) -> None:
    first, manifest = make(store, "first")
    second, late = make(store, "second")
    store.publish(first, manifest)
    store.storage.remove(manifest.payload)
    with pytest.raises(StoreError, match="removed by another process"):
        store.publish(second, late)
    assert not store.has_payload(store.manifest("toy", KEY) or late)


def test_publishing_twice_keeps_the_payload(store: Store) -> None:
    attempt, manifest = make(store)
    assert store.publish(attempt, manifest) == store.publish(attempt, manifest) == manifest
    store.verify(manifest)


def test_beginning_anew_leaves_a_living_try_alone(store: Store) -> None:
    living, manifest = make(store, "living")
    late = store.begin("toy", KEY)
    assert late.out != living.out
    assert store.publish(living, manifest) == manifest
    store.verify(manifest)


def test_publishing_removes_what_dead_tries_left(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    for _ in range(3):
        make(store, "dead")
    other, published = make(store, "another key", "cd" * 32)
    store.publish(other, published)
    attempt, manifest = make(store)
    store.publish(attempt, manifest)
    kept = {manifest.payload.rpartition("/")[2], published.payload.rpartition("/")[2]}
    assert set(store.storage.names("data/toy")) == kept


def test_discarding_never_removes_what_is_published(store: Store) -> None:
    attempt, manifest = make(store)
    store.publish(attempt, manifest)
    store.discard_payload(attempt)
    store.verify(manifest)
    failed, _ = make(store, "failed", "cd" * 32)
    store.discard_payload(failed)
    assert not failed.out.exists()


def test_scratch_stays_for_the_next_try_and_goes_at_publish(store: Store) -> None:
    first = store.begin("toy", KEY)
    (first.work / "step").write_text("1")
    store.discard_payload(first)
    attempt, manifest = make(store)
    assert (attempt.work / "step").read_text() == "1"
    store.publish(attempt, manifest)
    assert not attempt.work.exists()


def test_what_a_process_killed_right_after_publishing_left_is_tidied(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    node = shop.node("write", "a")
    shop.run(node)
    (manifest,) = shop.store.manifests()
    left = shop.store.begin("write", manifest.key)
    other = shop.store.begin("write", "0" * 64)
    (left.work / "step").write_text("1")
    assert not shop.run(node).executed
    assert not left.work.exists()
    assert not left.out.exists()
    assert other.work.exists()
    shop.store.verify(manifest)


def test_two_remote_stores_share_no_scratch(tmp_path: Path) -> None:
    one, two = (Store(f"memory://{tmp_path}/{name}", tmp_path / "cache") for name in ("one", "two"))
    assert one.begin("toy", KEY).work != two.begin("toy", KEY).work


# verify


def published(store: Store) -> tuple[Manifest, Path]:
    attempt, manifest = make(store)
    store.publish(attempt, manifest)
    return manifest, store.path(manifest)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (lambda folder: (folder / "text").write_text("texT"), "text has changed"),
        (lambda folder: (folder / "text").write_text("longer"), "text has changed"),
        (lambda folder: (folder / "more" / "rows").unlink(), "more/rows is gone"),
        (lambda folder: (folder / "new").write_text(""), "new is new"),
        (lambda folder: (folder / "text").rename(folder / "moved"), "moved is new; text is gone"),
        (
            lambda folder: ((folder / "text").unlink(), (folder / "text").symlink_to("more/rows")),
            "`text` is a symbolic link",
        ),
        (lambda folder: shutil.rmtree(folder), "the payload is gone"),
    ],
)
def test_verify_names_the_files_that_are_not_as_published(
    tmp_path: Path, tamper: Callable[[Path], object], told: str
) -> None:
    store = Store(str(tmp_path))
    manifest, folder = published(store)
    tamper(folder)
    with pytest.raises(Tampered) as found:
        store.verify(manifest)
    assert told in found.value.what
    assert manifest.name in found.value.where
    assert found.value.fix


def test_verify_reads_a_remote_payload_and_not_its_copy(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path}/store", tmp_path / "cache")
    manifest, folder = published(store)
    store.verify(manifest)
    store.storage.write(f"{manifest.payload}/text", b"texT")
    assert (folder / "text").read_text() == "text"
    with pytest.raises(Tampered, match="text has changed"):
        store.verify(manifest)
    store.storage.remove(f"{manifest.payload}/text")
    with pytest.raises(Tampered, match="text is gone"):
        store.verify(manifest)
    store.storage.write(f"{manifest.payload}/new", b"")
    with pytest.raises(Tampered, match="new is new"):
        store.verify(manifest)


def test_changed_log_is_no_tampering(store: Store) -> None:
    manifest, _ = published(store)
    store.storage.write(f"{manifest.payload}/aux/log", b"other")
    store.verify(manifest)


def test_manifest_whose_digest_was_edited_is_tampered(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest, _ = published(store)
    with pytest.raises(Tampered, match="digest"):
        store.verify(dataclasses.replace(manifest, digest="0" * 64))


def test_manifest_whose_identity_was_edited_is_tampered(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    shop.run(shop.node("write", "a", "x"))
    (manifest,) = shop.store.manifests()
    shop.store.verify(manifest)
    edited = dataclasses.replace(manifest, identity=manifest.identity | {"stage_version": 2})
    with pytest.raises(Tampered, match="key"):
        shop.store.verify(edited)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"schema_version": 1}',
        '{"schema_version": 1, "outputs": 3, "aux": []}',
        "\xff",
    ],
)
def test_broken_manifest_is_told_with_its_path(tmp_path: Path, text: str) -> None:
    store = Store(str(tmp_path))
    store.storage.write(f"actions/toy/{KEY[:2]}/{KEY}.json", text.encode("latin-1"))
    with pytest.raises(StoreError) as broken:
        store.manifest("toy", KEY)
    assert KEY in broken.value.where
    assert broken.value.fix


def test_manifest_of_a_later_schema_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest, _ = published(store)
    values = json.loads(manifest.to_json()) | {"schema_version": SCHEMA_VERSION + 1}
    store.storage.write(f"actions/toy/{KEY[:2]}/{KEY}.json", json.dumps(values).encode())
    with pytest.raises(StoreError, match="schema"):
        store.manifest("toy", KEY)


# readable names


def test_readable_name_is_a_link_that_leads_to_the_payload(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    manifest, _ = published(store)
    store.set_ref("demo", "score[a+b/gsm]", manifest)
    assert (tmp_path / "refs" / "demo" / "score[a+b∕gsm]" / "text").read_text() == "text"
    shutil.move(tmp_path, tmp_path.with_name("elsewhere"))
    assert (tmp_path.with_name("elsewhere") / "refs" / "demo" / "score[a+b∕gsm]" / "text").read_text() == "text"


def test_readable_name_leads_to_what_it_was_last_set_to(store: Store) -> None:
    first, manifest = make(store)
    store.publish(first, manifest)
    second, other = make(store, "other", "cd" * 32)
    store.publish(second, other)
    assert store.ref("demo", "toy[a]") is None
    store.set_ref("demo", "toy[a]", manifest)
    assert store.ref("demo", "toy[a]") == manifest
    store.set_ref("demo", "toy[a]", other)
    assert store.ref("demo", "toy[a]") == other
    assert store.ref("elsewhere", "toy[a]") is None


@pytest.mark.parametrize("name", ["toy[" + "very_long_name" * 30 + "]", "toy[" + "é∕ñ" * 100 + "]", "toy[../../x]"])
def test_any_name_can_be_set(store: Store, name: str) -> None:
    manifest, _ = published(store)
    store.set_ref("a/b", name, manifest)
    assert store.ref("a/b", name) == manifest
    assert store.ref("a/b", name[:-2] + "]") is None


# elsewhere


def test_copy_of_a_store_elsewhere_is_all_hit(tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "here")
    table = chain(shop)
    shop.run(table)
    there = shop.copy_to(tmp_path / "there")
    shutil.rmtree(tmp_path / "here")
    assert set(there.statuses(chain(there)).values()) == {Status.HIT}
    assert there.text(chain(there)) == "ab+"
    for manifest in there.store.manifests():
        there.store.verify(manifest)


def chain(shop: Workshop) -> Any:
    a, b = shop.node("write", "a", "a"), shop.node("write", "b", "b")
    return shop.node("join", "a+b", "+", (a, b))


def test_memory_store_works_end_to_end(tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "one", url=f"memory://{tmp_path}/shared")
    table = chain(shop)
    result = shop.run(table)
    assert not result.failed
    assert len(result.executed) == 3
    other = Workshop(tmp_path / "two", url=f"memory://{tmp_path}/shared")
    assert set(other.statuses(chain(other)).values()) == {Status.HIT}
    assert other.text(chain(other)) == "ab+"
    more = other.node("join", "more", "!", (chain(other),))
    assert not other.run(more).failed
    assert other.ran() == ["join[more]"]
    assert shop.text(shop.node("join", "more", "!", (chain(shop),))) == "ab+!"


def test_input_changed_in_a_remote_store_is_no_input(tmp_path: Path) -> None:
    shop = Workshop(tmp_path / "one", url=f"memory://{tmp_path}/shared")
    shop.run(chain(shop))
    for manifest in shop.store.manifests():
        shop.store.storage.write(f"{manifest.payload}/text", b"changed")
    other = Workshop(tmp_path / "two", url=f"memory://{tmp_path}/shared")
    result = other.run(other.node("join", "more", "!", (chain(other),)))
    assert [failure.name for failure in result.failed] == ["join[more]"]
    assert isinstance(result.failed[0].error, Tampered)


def test_the_two_kinds_of_storage_are_what_is_tested_here(tmp_path: Path) -> None:
    assert isinstance(open_storage(str(tmp_path)), LocalStorage)
    assert isinstance(open_storage(f"memory://{tmp_path}"), RemoteStorage)
