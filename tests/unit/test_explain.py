"""`why` names what differs from the last build, down to the root cause."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
from toy_graph import Workshop

from tulu_pipeline.artifacts import plan as plan_module
from tulu_pipeline.artifacts.artifact import Artifact, ObjectRef
from tulu_pipeline.artifacts.explain import Reason
from tulu_pipeline.artifacts.source import LocalFile, PinnedFile, TrackedFile


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def graph(shop: Workshop, *, version: int = 1, text: str = "a", raw: str = "one", cut: int | None = None) -> Artifact:
    (shop.folder / "raw").write_text(raw)
    sources = {"raw": LocalFile(path=str(shop.folder / "raw"))}
    objects = (ObjectRef(name="dataset a", version=version, module="tulu_pipeline.datasets.a"),)
    download = shop.node("download", "a", raw, sources=sources)
    normalize = shop.node("normalize", "a", text, (download,), objects=objects, cut=cut)
    return shop.node("table", "t", "!", (normalize, shop.node("write", "b", "b")))


def lines(reasons: tuple[Reason, ...]) -> list[str]:
    return [line for reason in reasons for line in reason.lines()]


def normalize(table: Artifact) -> Artifact:
    return table.inputs["input_0"]


def test_what_was_never_made_is_new(shop: Workshop) -> None:
    table = graph(shop)
    assert lines(shop.why(normalize(table))) == ["NEW never made in this store under this name"]
    assert lines(shop.why(table)) == ["NEW never made in this store under this name"]


def test_what_is_there_is_a_hit(shop: Workshop) -> None:
    table = graph(shop)
    shop.run(table)
    assert lines(shop.why(table)) == ["HIT published under its key"]


def test_version_of_an_object(shop: Workshop) -> None:
    shop.run(graph(shop))
    assert lines(shop.why(normalize(graph(shop, version=2)))) == ["VERSION dataset a 1 → 2"]


def test_version_of_a_stage(shop: Workshop) -> None:
    shop.run(shop.node("write", "a"))
    assert lines(shop.why(shop.node(shop.stage("write", 3), "a"))) == ["VERSION stage write 1 → 3"]


def test_params_field_by_field(shop: Workshop) -> None:
    shop.run(graph(shop))
    changed = normalize(graph(shop, text="other", cut=7))
    assert lines(shop.why(changed)) == ["PARAM cut null → 7", "PARAM text a → other"]


def test_nested_params_by_path(shop: Workshop) -> None:
    def node(**changes: Any) -> Artifact:
        return dataclasses.replace(shop.node("write", "a"), params=Nested(**changes))

    stage_run = shop.node("write", "a")
    assert not shop.run(dataclasses.replace(stage_run, params=Nested())).failed
    assert lines(shop.why(node(inner=Inner(rate=1e-5)))) == ["PARAM inner.rate 2e-05 → 1e-05"]
    assert lines(shop.why(node(parts=(Inner(), Inner(rate=3.0))))) == ["PARAM parts[1].rate absent → 3.0"]
    assert lines(shop.why(node(tags=("x", "y")))) == ['PARAM tags ["x"] → ["x", "y"]']
    assert lines(shop.why(node(tags=()))) == ['PARAM tags ["x"] → []']


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 2e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nested:
    inner: Inner = Inner()
    parts: tuple[Inner, ...] = (Inner(),)
    tags: tuple[str, ...] = ("x",)
    text: str = ""
    cut: int | None = None


def test_root_cause_below_is_told_under_each_input(shop: Workshop) -> None:
    shop.run(graph(shop))
    assert lines(shop.why(graph(shop, version=2))) == [
        "INPUT normalize[a] is stale",
        "  VERSION dataset a 1 → 2",
    ]
    found = lines(shop.why(graph(shop, raw="two")))
    assert found[:2] == ["INPUT normalize[a] is stale", "  INPUT download[a] is stale"]
    assert found[2].startswith("    PARAM text one → two")
    assert found[3].startswith("    SOURCE raw.sha256 ")
    assert len(found) == 4


def test_own_changes_are_told_beside_those_below(shop: Workshop) -> None:
    shop.run(graph(shop))
    assert lines(shop.why(normalize(graph(shop, raw="two", text="other", version=2))))[:2] == [
        "VERSION dataset a 1 → 2",
        "PARAM text a → other",
    ]


def test_root_cause_is_told_still_after_the_input_was_made_anew(shop: Workshop) -> None:
    shop.run(graph(shop))
    changed = graph(shop, version=2, text="other")
    shop.run(normalize(changed))
    found = lines(shop.why(changed))
    assert found[0].startswith("INPUT normalize[a] ")
    assert found[1:] == ["  VERSION dataset a 1 → 2", "  PARAM text a → other"]


def test_source_that_changed(shop: Workshop) -> None:
    def node(sha256: str) -> Artifact:
        return shop.node("download", "a", sources={"raw": PinnedFile(url="u", sha256=sha256)})

    shop.run(node("a" * 64))
    assert lines(shop.why(node("b" * 64))) == ["SOURCE raw.sha256 aaaaaaaaaaaa → bbbbbbbbbbbb"]


def test_source_that_was_never_resolved(shop: Workshop) -> None:
    tracked = shop.node("download", "a", sources={"raw": TrackedFile(url="https://example.org/latest")})
    (line,) = lines(shop.why(tracked))
    assert line.startswith("SOURCE raw was never resolved")
    assert "--update-sources" in line


def test_source_that_was_never_resolved_is_told_above(shop: Workshop) -> None:
    plain = shop.node("download", "a")
    shop.run(shop.node("join", "a", "", (plain,)))
    tracked = shop.node("download", "a", sources={"raw": TrackedFile(url="https://example.org/latest")})
    assert lines(shop.why(shop.node("join", "a", "", (tracked,)))) == [
        "INPUT download[a] is stale",
        "  SOURCE raw was never resolved: run with --update-sources",
    ]


def test_version_of_a_package(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    node = shop.node(shop.stage("write", env=("hypothesis", "pytest")), "a")
    shop.run(node)
    real = plan_module.installed_version

    def other(package: str) -> str:
        return "0.0.1" if package == "pytest" else real(package)

    monkeypatch.setattr(plan_module, "installed_version", other)
    assert lines(shop.why(node)) == [f"ENV pytest {real('pytest')} → 0.0.1"]


def test_payload_that_is_gone(shop: Workshop) -> None:
    table = graph(shop)
    shop.run(table)
    manifest = shop.plan(table).nodes["normalize[a]"].manifest
    assert manifest is not None
    shutil.rmtree(shop.store.path(manifest))
    assert lines(shop.why(normalize(table))) == [f"MISSING its payload {manifest.payload} is gone"]
    assert lines(shop.why(table)) == [
        "INPUT normalize[a] is stale",
        f"  MISSING its payload {manifest.payload} is gone",
    ]


def test_what_was_asked_for_anew(shop: Workshop) -> None:
    table = graph(shop)
    shop.run(table)
    assert lines(shop.why(normalize(table), forced=["normalize[a]"])) == ["FORCED asked for anew, attempt 1"]
    assert lines(shop.why(table, forced=["normalize[a]"])) == [
        "INPUT normalize[a] is stale",
        "  FORCED asked for anew, attempt 1",
    ]


def test_new_input(shop: Workshop) -> None:
    a, b = shop.node("write", "a", "a"), shop.node("write", "b", "b")
    shop.run(b, shop.node("join", "t", "", {"a": a}))
    (line,) = lines(shop.why(shop.node("join", "t", "", {"a": a, "b": b})))
    assert line.startswith("INPUT write[b] absent → ")


def test_input_that_could_not_be_made(shop: Workshop) -> None:
    def act(job: object) -> None:
        raise ValueError

    a, b = shop.node("write", "a", "a"), shop.node("write", "b", "b")
    table = shop.node(shop.stage("table", tolerates_missing=True), "t", "", {"a": a, "b": b})
    shop.acts["write[a]"] = act
    shop.run(table)
    shop.acts.clear()
    shop.run(a)
    (line,) = lines(shop.why(table))
    assert line.startswith("INPUT write[a] missing → ")


def test_artifact_first_made_under_another_name_is_explained_by_its_own_last_build(shop: Workshop) -> None:
    shop.run(shop.node("write", "a", "same"))
    shop.run(shop.node("write", "b", "same"))
    assert shop.ran() == ["write[a]"]
    assert lines(shop.why(shop.node("write", "b", "other"))) == ["PARAM text same → other"]


def test_artifact_that_was_found_once_its_input_was_made_is_explained_by_that_build(shop: Workshop) -> None:
    """Another experiment made the same bytes: neither name of this one was made by a run of its own."""

    def table(version: int, cell: str, text: str = "same") -> Artifact:
        write = shop.node(shop.stage("write", version), cell, text, cut=4)
        return shop.node("table", cell, "!", (shop.node("join", cell, "+", (write,)),))

    shop.experiment = "theirs"
    shop.run(table(1, "a"))
    shop.experiment = "ours"
    assert shop.run(table(2, "b")).executed == ["write[b]"]
    assert lines(shop.why(table(2, "b", "other"))) == [
        "INPUT join[b] is stale",
        "  INPUT write[b] is stale",
        "    PARAM text same → other",
    ]


def test_what_is_new_over_what_has_changed_tells_both(shop: Workshop) -> None:
    shop.run(graph(shop))
    changed = normalize(graph(shop, version=2))
    assert lines(shop.why(shop.node("join", "other", "", (changed,)))) == [
        "NEW never made in this store under this name",
        "INPUT normalize[a] is stale",
        "  VERSION dataset a 1 → 2",
    ]


def test_earlier_build_that_is_gone_is_said(shop: Workshop) -> None:
    node = shop.node("write", "a", "a")
    shop.run(node)
    shutil.rmtree(shop.folder / "store" / "actions")
    assert lines(shop.why(node)) == ["NEW its earlier build is not in this store any more"]


def test_every_rerun_has_a_reason_that_is_not_new(shop: Workshop) -> None:
    shop.run(graph(shop))
    for change in ({"version": 2}, {"text": "x"}, {"raw": "two"}, {"cut": 1}):
        changed = graph(shop, **change)  # type: ignore[arg-type]
        stale = {name for name, status in shop.statuses(changed).items() if status.value != "HIT"}
        assert stale
        for name in stale:
            node = shop.plan(changed).nodes[name].artifact
            codes = {line.split()[0] for line in lines(shop.why(node, changed))}
            assert codes & {"VERSION", "PARAM", "SOURCE"}, (name, change)
            assert "NEW" not in codes
