"""A model repository is downloaded by its own listing: one copy of the weights, all shards, each file by its hash."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from fakes.file_server import FileServer, Reply
from toy_graph import settings

from tulu_pipeline.artifacts import http_download
from tulu_pipeline.artifacts.fetch import fetch
from tulu_pipeline.artifacts.hub_model import choose
from tulu_pipeline.artifacts.source import HubModel
from tulu_pipeline.errors import BadInput, HashMismatch, StageFailed, Unreachable
from tulu_pipeline.settings import Settings

MODEL = HubModel(repo="org/model", revision="0123456789" * 4)
LISTING = f"/api/models/org/model/revision/{MODEL.revision}?blobs=true"
SHARDS = [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
INDEX = "model.safetensors.index.json"
TOKENIZER = ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]
OTHERS = [
    ".gitattributes",
    "README.md",
    "flax_model.msgpack",
    "modeling_custom.py",
    "original/consolidated.00.pth",
    "pytorch_model-00001-of-00002.bin",
    "pytorch_model-00002-of-00002.bin",
    "pytorch_model.bin.index.json",
    "runs/tokenizer.json",
]
NAMES = sorted(["config.json", "generation_config.json", INDEX, *SHARDS, *TOKENIZER])


class Hub:
    """A hub with one repository."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.contents = {name: f"{name} ".encode() * 3_000 for name in [*NAMES, *OTHERS]}
        for name, content in self.contents.items():
            server.put(self.path(name), content)
        self.show(self.contents)

    def path(self, name: str) -> str:
        return f"/org/model/resolve/{MODEL.revision}/{name}"

    def show(self, names: Iterable[str]) -> None:
        siblings = [{"rfilename": name, "size": len(self.contents.get(name, b""))} for name in names]
        self.server.put(LISTING, json.dumps({"sha": MODEL.revision, "siblings": siblings}).encode())

    def asked(self) -> list[str]:
        paths = [request.path for request in self.server.requests]
        self.server.requests.clear()
        return [path.rpartition("/")[2] if path != LISTING else "listing" for path in paths]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(http_download, "_PAUSE_SECONDS", 0.01)
    with FileServer() as server:
        yield Hub(server)


@pytest.fixture
def here(tmp_path: Path, hub: Hub) -> Settings:
    return dataclasses.replace(settings(tmp_path), hub_endpoint=hub.server.url, hub_token="secret")


def get(here: Settings, source: HubModel = MODEL, keep: Path | None = None) -> dict[str, bytes]:
    out = here.sources_lock.parent / "out"
    out.mkdir(exist_ok=True)
    fetch(source, "model", out, here, lambda done, total: None, keep=keep)
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*")}
    for name in found:
        (out / name).unlink()
    return found


def locked(here: Settings) -> dict[str, str]:
    return json.loads(here.sources_lock.read_text())


def test_a_model_comes_with_all_its_shards_and_nothing_else(hub: Hub, here: Settings) -> None:
    assert get(here) == {name: hub.contents[name] for name in NAMES}
    assert {request.headers["authorization"] for request in hub.server.requests} == {"Bearer secret"}
    for name in NAMES:
        assert locked(here)[MODEL.file(name).address()] == hashlib.sha256(hub.contents[name]).hexdigest()


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("weights", sorted(["config.json", "generation_config.json", INDEX, *SHARDS])),
        ("tokenizer", sorted(TOKENIZER)),
    ],
)
def test_a_part_of_a_model_comes_alone(hub: Hub, here: Settings, part: str, names: list[str]) -> None:
    assert sorted(get(here, dataclasses.replace(MODEL, part=part))) == names  # type: ignore[arg-type]


def test_weights_are_safetensors_before_bin_and_one_file_before_shards() -> None:
    weights = dataclasses.replace(MODEL, part="weights")
    assert choose([*NAMES, *OTHERS, "model.safetensors"], weights) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert choose(["config.json", *OTHERS], weights) == sorted(
        ["config.json", *(name for name in OTHERS if name.startswith("pytorch_model"))]
    )
    assert choose(["config.json", "pytorch_model.bin"], weights) == ["config.json", "pytorch_model.bin"]


@pytest.mark.parametrize(
    ("lacks", "what"),
    [
        ({"config.json"}, "has no `config.json`"),
        ({SHARDS[0]}, r"only the shards \[2, 3\]"),
        ({SHARDS[2]}, r"only the shards \[1, 2\]"),
        (set(SHARDS), r"only the shards \[\]"),
        ({INDEX, "pytorch_model.bin.index.json"}, "has no weights"),
        ({"tokenizer.json"}, "neither `tokenizer.json` nor `vocab.json`"),
    ],
    ids=["config", "first shard", "last shard", "shards", "index", "tokenizer"],
)
def test_a_repository_that_is_no_whole_model_is_an_error_before_anything_is_downloaded(
    hub: Hub, here: Settings, lacks: set[str], what: str
) -> None:
    hub.show(set(hub.contents) - lacks)
    with pytest.raises(StageFailed, match=what):
        get(here)
    assert hub.asked() == ["listing"]
    assert not here.sources_lock.exists()


def test_an_adapter_says_what_to_do_with_it(hub: Hub, here: Settings) -> None:
    hub.show({"adapter_config.json", "adapter_model.safetensors", "README.md", *TOKENIZER})
    with pytest.raises(StageFailed, match="the repository holds an adapter") as wrong:
        get(here)
    assert "merge_and_unload" in wrong.value.fix


def test_a_listing_that_changes_is_an_error(hub: Hub, here: Settings) -> None:
    get(here)
    lock = locked(here)
    del lock[MODEL.file(SHARDS[0]).address()]
    here.sources_lock.write_text(json.dumps(lock))
    hub.show([*hub.contents, "vocab.json"])
    with pytest.raises(HashMismatch, match=r"now lists other files: .*vocab\.json"):
        get(here)


def test_a_file_that_changes_is_an_error(hub: Hub, here: Settings) -> None:
    get(here)
    hub.server.put(hub.path(SHARDS[1]), b"other")
    with pytest.raises(HashMismatch):
        get(here)


def test_a_known_model_comes_from_a_mirror_without_the_hub(hub: Hub, here: Settings, tmp_path: Path) -> None:
    whole = get(here)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    entries = []
    for number, content in enumerate(whole.values()):
        (mirror / str(number)).write_bytes(content)
        entries.append({"path": str(number), "sha256": hashlib.sha256(content).hexdigest()})
    (mirror / "MANIFEST.json").write_text(json.dumps(entries))
    hub.asked()
    assert get(dataclasses.replace(here, mirror=str(mirror), hub_endpoint="http://127.0.0.1:9")) == whole
    assert hub.asked() == []


def test_a_broken_download_goes_on_with_what_is_missing(hub: Hub, here: Settings, tmp_path: Path) -> None:
    keep = tmp_path / "work"
    hub.server.always[hub.path(SHARDS[1])] = Reply(cut=0)
    with pytest.raises(Unreachable):
        get(here, keep=keep)
    assert not list((here.sources_lock.parent / "out").iterdir())
    hub.asked()
    hub.server.always.clear()
    assert get(here, keep=keep) == {name: hub.contents[name] for name in NAMES}
    assert hub.asked() == ["listing", *NAMES[NAMES.index(SHARDS[1]) :]]


def test_progress_is_over_all_files(hub: Hub, here: Settings, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    (tmp_path / "out").mkdir()
    fetch(MODEL, "model", tmp_path / "out", here, lambda done, total: seen.append((done, total)))
    total = sum(len(hub.contents[name]) for name in NAMES)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_an_answer_that_is_no_listing_names_the_hub(hub: Hub, here: Settings) -> None:
    hub.server.put(LISTING, b"<html>")
    with pytest.raises(StageFailed, match="lists no files") as wrong:
        get(here)
    assert wrong.value.where == hub.server.url + LISTING


def test_a_gated_repository_asks_for_a_token(hub: Hub, here: Settings) -> None:
    hub.server.always[LISTING] = Reply(status=401)
    with pytest.raises(StageFailed, match="answered 401") as wrong:
        get(here)
    assert "HF_TOKEN" in wrong.value.fix


def test_a_branch_is_no_revision() -> None:
    with pytest.raises(BadInput, match="`main` is not a commit"):
        HubModel(repo="org/model", revision="main")


def test_every_field_moves_the_key() -> None:
    others = [
        dataclasses.replace(MODEL, repo="org/other"),
        dataclasses.replace(MODEL, revision="1" * 40),
        dataclasses.replace(MODEL, part="weights"),
    ]
    assert len({json.dumps(each.descriptor(), sort_keys=True) for each in [MODEL, *others]}) == 4
