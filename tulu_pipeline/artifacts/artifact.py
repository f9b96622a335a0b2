"""The lazy graph: an artifact is a stage, its params and its inputs. Building one runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.artifacts.stage import Stage
from tulu_pipeline.errors import BadInput
from tulu_pipeline.profile import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """A registered object whose version enters the keys of the artifacts that use it.

    Attributes:
        name: for people, such as `dataset alpaca` or `gsm prompts`.
        version: bumped by hand when the object's output changes.
        module: where its code is: a module of this project, or the path of a user's file. A user's file has no
            version lock, so there the code's fingerprint is part of the key.
    """

    name: str
    version: int
    module: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Artifact:
    """A node of the graph; identity is the object itself, its key is computed by the plan.

    Attributes:
        stage: what makes it.
        cell: names it for people, unique per stage in an experiment: `llama-7b+human_mix/gsm_cot`.
        params: the stage's parameters.
        inputs: artifacts it reads, by the stage's own names.
        sources: outside bytes it reads (download only).
        objects: registered objects whose versions count.
        group: artifacts of a batch stage with the same group are made in one go; "" stands for `cell`.
        occupies: what making it occupies where that is not the stage's own slot.
    """

    stage: Stage[Any]
    cell: str
    params: object
    inputs: Mapping[str, Artifact] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    objects: tuple[ObjectRef, ...] = ()
    group: str = ""
    occupies: Slot | None = None

    @property
    def name(self) -> str:
        """`stage[cell]`."""
        return f"{self.stage.name}[{self.cell}]"

    @property
    def slot(self) -> Slot:
        """What it occupies while it is made."""
        return self.occupies or self.stage.slot

    @property
    def unit(self) -> str:
        """The name of the work that makes it: `stage[group]` for a batch stage, else its own."""
        return f"{self.stage.name}[{self.group or self.cell}]"


class Graph:
    """Artifacts in an order in which inputs come first; names are unique."""

    def __init__(self, targets: Iterable[Artifact]) -> None:
        self.by_name: dict[str, Artifact] = {}
        for artifact in _in_order(targets):
            known = self.by_name.setdefault(artifact.name, artifact)
            if known is not artifact:
                raise BadInput(
                    f"two artifacts are called `{artifact.name}`", "graph", "give one of them another cell name"
                )

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self.by_name.values())

    def __len__(self) -> int:
        return len(self.by_name)


def _in_order(targets: Iterable[Artifact]) -> Iterator[Artifact]:
    seen: set[int] = set()
    stack: list[tuple[Artifact, bool]] = [(target, False) for target in reversed(list(targets))]
    while stack:
        artifact, inputs_done = stack.pop()
        if inputs_done:
            yield artifact
        elif id(artifact) not in seen:
            seen.add(id(artifact))
            stack.append((artifact, True))
            stack.extend((source, False) for source in reversed(list(artifact.inputs.values())))
