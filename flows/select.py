"""Naming parts of a graph: `tokenize`, `finetune[tiny*]`, `+score`, `finetune+`, `model=tiny,dataset=flan*`."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from tasks.describe import DESCRIBE
from tasks.mix import MIX
from tasks.tokenization import TOKENIZE
from tulu_pipeline.artifacts.artifact import Artifact, Graph
from tulu_pipeline.errors import unknown_name


def select(graph: Graph, selection: str) -> list[Artifact]:
    """Artifacts that `selection` names, in graph order.

    A stage name, an artifact's name (`*` and `?` match), or `what=pattern` pairs over `stage`, `model`, `mixture`,
    `dataset` and `metric`, all of which must match. `+` in front adds what it needs, `+` behind what needs it.

    Raises:
        NotFound: nothing matches.
    """
    plain = selection.strip()
    with_inputs, with_consumers = plain.startswith("+"), plain.endswith("+")
    plain = plain.strip("+")
    chosen = {artifact.name for artifact in graph if _matches(artifact, plain)}
    if not chosen:
        known = {artifact.stage.name for artifact in graph} | {artifact.name for artifact in graph}
        raise unknown_name("stage or artifact", plain, known, f"selection `{selection}`")
    if with_consumers:
        chosen |= _consumers(graph, chosen)
    if with_inputs:
        chosen |= {artifact.name for artifact in Graph([graph.by_name[name] for name in chosen])}
    return [artifact for artifact in graph if artifact.name in chosen]


def select_until(graph: Graph, selection: str) -> list[Artifact]:
    """What a run makes that stops after `selection`: as `select`, and `mix` is whatever conversations go on from there.

    A mixture that takes a dataset whole has nothing to mix; the dataset's own conversations are then its last.

    Raises:
        NotFound: nothing matches.
    """
    if selection.strip() != MIX.name:
        return select(graph, selection)
    goes_on = {artifact.inputs["conversations"].name for artifact in graph if artifact.stage in (TOKENIZE, DESCRIBE)}
    return [artifact for artifact in graph if artifact.name in goes_on] or select(graph, selection)


def _matches(artifact: Artifact, pattern: str) -> bool:
    if "=" in pattern and "[" not in pattern:
        facts = _facts(artifact)
        pairs = (pair.partition("=") for pair in pattern.split(","))
        return all(fnmatchcase(facts.get(what.strip(), ""), wanted.strip()) for what, _, wanted in pairs)
    literal = re.sub(r"\[", "[[]", pattern)  # a bracket in a name is itself
    return artifact.stage.name == pattern or fnmatchcase(artifact.name, literal)


def _facts(artifact: Artifact) -> dict[str, str]:
    row, _, metric = artifact.cell.partition("/")
    model, _, mixture = row.partition("+")
    datasets = [ref.name.removeprefix("dataset ") for ref in artifact.objects if ref.name.startswith("dataset ")]
    dataset = datasets[0] if datasets else mixture if artifact.stage.name == "tokenize" else ""
    return {"stage": artifact.stage.name, "model": model, "mixture": mixture, "metric": metric, "dataset": dataset}


def _consumers(graph: Graph, names: set[str]) -> set[str]:
    found = set(names)
    for artifact in graph:  # inputs come first, so one pass is enough
        if any(source.name in found for source in artifact.inputs.values()):
            found.add(artifact.name)
    return found
