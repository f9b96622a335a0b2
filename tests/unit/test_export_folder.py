"""The folder of an exported mixture: whole or not at all, never over someone else's files, the same bytes each time."""

import fcntl
import hashlib
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tulu_pipeline.chat.conversations import ConversationWriter
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.export import folder as export_folder
from tulu_pipeline.export.folder import Part, write_folder


def part(folder: Path, name: str, count: int, *, repeat: int = 1, license_: str = "MIT") -> Part:
    folder.mkdir(parents=True)
    with ConversationWriter(folder) as writer:
        for number in range(count):
            messages = (Message("user", f"{name} {number}?"), Message("assistant", "Yes."))
            own = "CC-BY-NC-4.0" if number == 3 else ""
            writer.write(Conversation(name, f"{name}_{number}", messages, own, "en" if number % 2 else ""))
    return Part(
        dataset=name,
        title=name.title(),
        citation="",
        url="",
        license=license_,
        sample="",
        conversations=folder,
        artifact=f"normalize[{name}]",
        key="k" * 64,
        digest="d" * 64,
        params={"dataset": name, "seed": 42},
        repeat=repeat,
    )


@pytest.fixture
def parts(tmp_path: Path) -> list[Part]:
    return [part(tmp_path / "a", "birds", 10, repeat=2), part(tmp_path / "b", "worms", 5, license_="NOASSERTION")]


def rows(out: Path) -> list[dict[str, object]]:
    return [row for file in sorted((out / "data").iterdir()) for row in pq.read_table(file).to_pylist()]


def digests(out: Path) -> dict[str, str]:
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_components_stand_in_order_as_often_as_they_repeat_each_row_with_its_license(
    tmp_path: Path, parts: list[Part]
) -> None:
    assert write_folder(tmp_path / "out", "garden", "", parts) == 25
    found = rows(tmp_path / "out")
    birds = [f"birds_{number}" for number in range(10)]
    assert [row["id"] for row in found] == [*birds, *birds, *(f"worms_{number}" for number in range(5))]
    assert [row["license"] for row in found[:5]] == ["MIT", "MIT", "MIT", "CC-BY-NC-4.0", "MIT"]
    assert found[-1]["license"] == "NOASSERTION"
    assert [row["language"] for row in found[:3]] == ["", "en", ""]
    assert found[0]["messages"] == [{"role": "user", "content": "birds 0?"}, {"role": "assistant", "content": "Yes."}]


def test_the_card_and_the_description_tell_counts_licenses_and_artifacts(tmp_path: Path, parts: list[Part]) -> None:
    write_folder(tmp_path / "out", "garden", "Garden mix", parts)
    description = json.loads((tmp_path / "out" / "mixture.json").read_text())
    assert (description["mixture"], description["rows"]) == ("garden", 25)
    assert description["licenses"] == {
        "CC-BY-NC-4.0": "attribution, non-commercial",
        "MIT": "keep the notices",
        "unknown": "no license is stated",
    }
    assert [(each["dataset"], each["rows"], each["repeat"]) for each in description["components"]] == [
        ("birds", 10, 2),
        ("worms", 5, 1),
    ]
    for entry in description["files"]:
        data = (tmp_path / "out" / entry["path"]).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size_bytes"], entry["sha256"])
    card = (tmp_path / "out" / "README.md").read_text()
    assert "license:\n- cc-by-nc-4.0\n- mit\n- unknown\n" in card
    assert "| birds | 10 | 20 | all | CC-BY-NC-4.0, MIT |" in card
    assert "`birds` 2 times" in card
    assert "k" * 64 in card


def test_long_mixtures_are_cut_into_shards_without_losing_a_row(
    tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "whole", "garden", "", parts)
    for per_shard, shards in ((7, 4), (25, 1), (5, 5), (24, 2)):
        monkeypatch.setattr(export_folder, "_ROWS_PER_SHARD", per_shard)
        out = tmp_path / f"cut{per_shard}"
        write_folder(out, "garden", "", parts)
        files = sorted(path.name for path in (out / "data").iterdir())
        assert files == [f"train-{number:05d}-of-{shards:05d}.parquet" for number in range(shards)]
        assert [pq.ParquetFile(out / "data" / name).metadata.num_rows for name in files[:-1]] == [per_shard] * (
            shards - 1
        )
        assert rows(out) == rows(tmp_path / "whole")


def test_the_same_mixture_is_the_same_bytes_and_replaces_its_own_export(tmp_path: Path, parts: list[Part]) -> None:
    out = tmp_path / "exports" / "garden"
    write_folder(out, "garden", "", parts)
    first = digests(out)
    write_folder(out, "garden", "", parts)
    assert digests(out) == first
    write_folder(out, "garden", "", parts[:1])
    assert len(rows(out)) == 20
    assert [path.name for path in out.parent.iterdir()] == ["garden"]


def test_what_no_export_wrote_is_not_touched(tmp_path: Path, parts: list[Part]) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write_folder(out, "garden", "", parts)  # an empty folder is nobody's
    (out / "notes.txt").write_text("mine")
    before = digests(out)
    with pytest.raises(BadInput, match=r"`notes\.txt` was added to the exported folder") as caught:
        write_folder(out, "garden", "", parts)
    assert "--out" in caught.value.fix
    assert digests(out) == before
    (tmp_path / "other").mkdir()
    for content in (None, "{", '{"written_by": "someone", "files": []}', "[]"):
        (tmp_path / "other" / "data.csv").write_text("1,2")
        if content is not None:
            (tmp_path / "other" / "mixture.json").write_text(content)
        with pytest.raises(BadInput, match="files that no export wrote"):
            write_folder(tmp_path / "other", "garden", "", parts)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="is a file"):
        write_folder(tmp_path / "file", "garden", "", parts)


def test_the_current_folder_is_not_replaced(tmp_path: Path, parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    for out in (Path(), Path(".."), tmp_path):
        with pytest.raises(BadInput, match="is the current folder or holds it"):
            write_folder(out, "garden", "", parts)
    assert write_folder(Path("garden"), "garden", "", parts) == 25
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    write_folder(tmp_path / "link", "garden", "", parts)
    assert len(rows(tmp_path / "elsewhere")) == 25
    assert (tmp_path / "link").is_symlink()


def test_an_export_that_stops_leaves_what_was_there_and_the_next_one_goes_through(
    tmp_path: Path, parts: list[Part]
) -> None:
    out = tmp_path / "out"
    write_folder(out, "garden", "", parts[:1])
    before = digests(out)

    def stop(name: str, done: float, total: float | None, unit: str, note: str = "") -> None:
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(out, "garden", "", parts, stop)
    assert digests(out) == before
    assert write_folder(out, "garden", "", parts) == 25
    assert not list(tmp_path.glob(".out*"))


def test_an_edited_card_is_not_overwritten(tmp_path: Path, parts: list[Part]) -> None:
    out = tmp_path / "out"
    write_folder(out, "garden", "", parts)
    card = out / "README.md"
    card.write_text(card.read_text() + "Ask Ada before you use it.\n")
    with pytest.raises(BadInput, match=r"`README\.md` of the exported folder .* was edited"):
        write_folder(out, "garden", "", parts)
    assert card.read_text().endswith("Ada before you use it.\n")
    card.unlink()
    assert write_folder(out, "garden", "", parts) == 25


def test_an_export_killed_between_its_renames_is_put_back_and_swept(tmp_path: Path, parts: list[Part]) -> None:
    out = tmp_path / "out"
    write_folder(out, "garden", "", parts[:1])
    before = digests(out)
    out.rename(tmp_path / ".out.old-0123abcd")

    def stop(name: str, done: float, total: float | None, unit: str, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(out, "garden", "", parts, stop)
    assert digests(out) == before
    (tmp_path / ".out.old-4567cdef").mkdir()
    assert write_folder(out, "garden", "", parts) == 25
    assert not list(tmp_path.glob(".out*"))


def test_two_exports_do_not_write_one_folder_at_once(tmp_path: Path, parts: list[Part]) -> None:
    beside = tmp_path / ".out.writing"
    beside.mkdir()
    descriptor = os.open(beside, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        with pytest.raises(BadInput, match="another export writes"):
            write_folder(tmp_path / "out", "garden", "", parts)
    finally:
        os.close(descriptor)
    assert write_folder(tmp_path / "out", "garden", "", parts) == 25
