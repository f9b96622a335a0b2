"""Whatever is changed, broken or deleted between runs: a run gives what a build from nothing would give."""

import dataclasses
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_graph import ToyParams, Workshop

from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.plan import Status
from tulu_pipeline.artifacts.stage import Job, RunContext

BROKEN = "!"  # a text with it makes its stage fail
STAGES = ("plain", "tolerant", "batch")


@dataclass
class Cell:
    """One node of a graph that changes over time; `inputs` are indices of earlier ones."""

    stage: str
    text: str
    inputs: tuple[int, ...]
    cut: int | None = None
    version: int = 1


@dataclass
class World:
    """The graph as it is now, what a build from nothing would make of it, and a workshop that builds it."""

    cells: list[Cell]
    shop: Workshop
    nodes: list[Artifact] = field(default_factory=list)

    def build(self) -> list[Artifact]:
        nodes: list[Artifact] = []
        for index, cell in enumerate(self.cells):
            options = {"batch": {"batch": True}, "tolerant": {"tolerates_missing": True}}.get(cell.stage, {})
            stage = self.shop.stage(cell.stage, cell.version, **options)
            if cell.stage == "batch":
                stage = dataclasses.replace(stage, run=self.make_all_it_can)
            inputs = [nodes[below] for below in cell.inputs]
            group = "group" if cell.stage == "batch" else ""
            nodes.append(self.shop.node(stage, str(index), cell.text, inputs, cut=cell.cut, group=group))
        self.shop.acts = {node.name: fail_if_broken for node in nodes}
        self.nodes = nodes
        return nodes

    def make_all_it_can(self, jobs: Sequence[Job[ToyParams]], ctx: RunContext) -> None:
        """A batch whose jobs fail alone."""
        broken: list[ValueError] = []
        for job in jobs:
            try:
                job.publish(self.shop._run(job, ctx))
            except ValueError as error:
                broken.append(error)
        if broken:
            raise broken[0]

    def expected(self) -> list[str | None]:
        """The text of each cell; None where it cannot be made."""
        texts: list[str | None] = []
        for cell in self.cells:
            below = [texts[index] for index in cell.inputs]
            lost = BROKEN in cell.text or (cell.stage != "tolerant" and None in below)
            whole = "".join("-" if text is None else text for text in below) + cell.text
            texts.append(None if lost else whole if cell.cut is None else whole[: cell.cut])
        return texts

    def text_of(self, node: Artifact, plan_nodes: dict[str, object]) -> str | None:
        found = plan_nodes[node.name]
        if found.status is not Status.HIT or found.manifest is None:  # type: ignore[attr-defined]
            return None
        return (self.shop.store.path(found.manifest) / "text").read_text()  # type: ignore[attr-defined]


def fail_if_broken(job: Job[ToyParams]) -> None:
    if BROKEN in job.params.text:
        raise ValueError("broken")


TEXTS = st.text("ab", max_size=2)


@st.composite
def graphs(draw: st.DrawFn) -> list[Cell]:
    cells = []
    for index in range(draw(st.integers(1, 7))):
        below = st.integers(0, index - 1) if index else st.nothing()
        inputs = tuple(draw(st.lists(below, max_size=3, unique=True))) if index else ()
        cut = draw(st.none() | st.integers(0, 2))
        cells.append(Cell(draw(st.sampled_from(STAGES)), draw(TEXTS), inputs, cut))
    return cells


CHANGES = st.tuples(
    st.sampled_from(["text", "cut", "version", "break", "mend", "delete payload", "delete manifest", "refresh"]),
    st.integers(0, 6),
    TEXTS,
)


def change(world: World, what: str, index: int, text: str) -> list[str]:
    """Make one change; returns the names to be refreshed."""
    cell = world.cells[index % len(world.cells)]
    name = world.nodes[index % len(world.cells)].name
    manifest = world.shop.plan(*world.nodes).nodes[name].manifest
    if what == "text":
        cell.text = text
    elif what == "cut":
        cell.cut = len(text)
    elif what == "version":
        cell.version += 1
    elif what == "break":
        cell.text += BROKEN
    elif what == "mend":
        cell.text = cell.text.replace(BROKEN, "")
    elif what == "delete payload" and manifest is not None:
        shutil.rmtree(world.shop.store.path(manifest), ignore_errors=True)
    elif what == "delete manifest" and manifest is not None:
        world.shop.store.retract(manifest)
    return [name] if what == "refresh" else []


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(cells=graphs(), changes=st.lists(CHANGES, max_size=4))
def test_incremental_run_gives_what_a_build_from_nothing_gives(
    cells: list[Cell], changes: list[tuple[str, int, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(cells, Workshop(Path(folder)))
        check(world, [])
        for what, index, text in changes:
            forced = change(world, what, index, text)
            check(world, forced)


def check(world: World, forced: list[str]) -> None:
    nodes = world.build()
    stale = {name for name, status in world.shop.statuses(*nodes, forced=forced).items() if status is not Status.HIT}
    plan = world.shop.plan(*nodes, forced=forced)
    world.shop.ran()
    result = world.shop.carry_out(plan)
    expected = world.expected()
    assert [world.text_of(node, dict(plan.nodes)) for node in nodes] == expected
    lost = {node.name for node, text in zip(nodes, expected, strict=True) if text is None}
    assert {failure.name for failure in result.failed} | set(result.blocked) == lost
    assert all(BROKEN in world.shop.plan(*nodes).nodes[failure.name].artifact.params.text for failure in result.failed)  # type: ignore[attr-defined]
    ran = world.shop.ran()
    assert len(ran) == len(set(ran)), "made twice in one run"
    assert set(ran) <= stale, "made although it was there"
    again = world.shop.run(*nodes)
    assert again.executed == [], "made again although nothing changed"
    for manifest in world.shop.store.manifests():
        if world.shop.store.has_payload(manifest):
            world.shop.store.verify(manifest)
