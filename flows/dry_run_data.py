"""What is known of a mixture before it is trained on: its tokens, else an estimate from what else there is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flows.catalog import find_dataset
from flows.session import Session
from tulu_pipeline.artifacts.plan import Node
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.dataset import Dataset, PaperCounts
from tulu_pipeline.specs.mixture import Mixture
from tulu_pipeline.specs.recipe import Recipe

if TYPE_CHECKING:
    from tulu_pipeline.training.estimates.known import KnownTokens
    from tulu_pipeline.training.estimates.workload import Workload

_SAMPLE = re.compile(r"([\d,]+) rows|^([\d,]+) of ([\d,]+)( \w+)?$")
_TEMPLATE_TOKENS = 16  # that the paper's format puts around a round, by LLaMA's tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class DataGuess:
    """What is known of a mixture whose tokens are not all there.

    Attributes:
        conversations: seen in an epoch.
        mean_length: tokens of one.
        source: where that is from.
        unknown: components of which nothing is known.
    """

    conversations: int
    mean_length: float
    source: str
    unknown: tuple[str, ...] = ()


def mixture_data(
    session: Session, node: Node, mixture: Mixture, recipe: Recipe
) -> tuple[KnownTokens | None, Workload | None, str]:
    """(tokens where they are all there, what is trained on, where that is from)."""
    from tulu_pipeline.training.batching.data import MixtureTokens
    from tulu_pipeline.training.estimates.known import KnownTokens, known_tokens
    from tulu_pipeline.training.estimates.workload import estimated_workload, workload

    profile = session.ctx.profile
    parts = [
        session.plan.nodes[node.artifact.inputs[f"tokens_{index}"].name] for index in range(len(mixture.components))
    ]
    folders = [session.find_folder(part.artifact.name) for part in parts]
    there = [folder for folder in folders if folder is not None]
    if len(there) < len(folders):
        guess = _guess(session, mixture, parts)
        command = f"`tulu run {session.request.experiment} --until tokenize` makes it"
        if guess.unknown:
            unknown = f"`?`: nothing is known of {', '.join(guess.unknown)} before it is tokenized"
            return None, None, f"{unknown}; {command} known"
        conversations = guess.conversations - recipe.held_out_conversations
        if conversations < 1:
            facts = KnownTokens(conversations=guess.conversations, longest=recipe.max_length_tokens, steps=1)
            return facts, None, f"an estimate from {guess.source}"
        estimated = estimated_workload(conversations, guess.mean_length, recipe, profile)
        return None, estimated, f"an estimate from {guess.source}; {command} exact"
    components = [(folder, part.repeat) for folder, part in zip(there, mixture.components, strict=True)]
    model = session.find_folder(node.artifact.inputs["model"].name)
    facts = known_tokens(components, recipe, profile, model=model)
    if recipe.held_out_conversations >= facts.conversations:
        return facts, None, "nothing is left to train on"
    mixed = MixtureTokens(components, held_out=recipe.held_out_conversations, seed=recipe.seed)
    metrics = [
        (part.manifest.metrics, component.repeat)
        for part, component in zip(parts, mixture.components, strict=True)
        if part.manifest is not None
    ]
    all_tokens = sum(each["tokens"] * repeat for each, repeat in metrics)
    share = sum(each["supervised_tokens"] * repeat for each, repeat in metrics) / all_tokens
    try:
        return facts, workload(mixed.lengths, recipe, profile, supervised_share=share), "the tokens in the store"
    except BadInput as error:  # a conversation that does not fit into a row
        return facts, None, error.what


def _guess(session: Session, mixture: Mixture, parts: list[Node]) -> DataGuess:
    """Of each component the best that is known: its tokens, its conversations, its dataset's own counts."""
    conversations, tokens = 0, 0.0
    sources: dict[str, None] = {}
    unknown: list[str] = []
    for component, cap, node in zip(mixture.components, mixture.caps(), parts, strict=True):
        dataset = find_dataset(component.dataset, session.experiment)
        rows, mean = _counts(session, node, dataset)
        if rows is None or mean is None:
            unknown.append(dataset.name)
            continue
        count = rows.number if cap is None else min(cap, rows.number)
        conversations += count * component.repeat
        tokens += count * component.repeat * mean.number
        sources[rows.source] = sources[mean.source] = None
    mean_length = tokens / conversations if conversations else 0.0
    return DataGuess(
        conversations=conversations, mean_length=mean_length, source=", ".join(sources), unknown=tuple(unknown)
    )


def _counts(session: Session, node: Node, dataset: Dataset) -> tuple[_Count | None, _Count | None]:
    """(conversations, tokens of one), each with where it is from."""
    metrics = node.manifest.metrics if node.digest is not None and node.manifest is not None else {}
    if metrics:
        source = "tokens in the store"
        return _Count(metrics["rows"], source), _Count(metrics["tokens"] / metrics["rows"], source)
    text = session.plan.nodes[node.artifact.inputs["conversations"].name]
    rows = mean = None
    if text.digest is not None and text.manifest is not None:
        rows = _Count(text.manifest.metrics["kept"], "conversations in the store")
    described = session.plan.nodes.get(f"describe[{dataset.name}]")
    if described is not None and described.digest is not None and described.manifest is not None:
        counts = described.manifest.metrics
        mean = _Count(counts["tokens"] / counts["instances"], "their description in the store")
    paper = dataset.paper or find_dataset(dataset.name.split(":")[0], session.experiment).paper
    if paper is not None:
        per_round = paper.mean_prompt_tokens + paper.mean_completion_tokens + _TEMPLATE_TOKENS
        mean = mean or _Count(paper.mean_rounds * per_round, "the paper's Table 1")
        if not dataset.sample:
            rows = rows or _Count(paper.instances, "the paper's Table 1")
    if rows is None and (size := _size_of_sample(dataset.sample, paper)):
        rows = _Count(size, "the sizes of samples")
    return rows, mean


def _size_of_sample(sample: str, paper: PaperCounts | None) -> int | None:
    """Conversations of a sample: the rows that it says, or its share of what the paper counts in other units."""
    found = _SAMPLE.search(sample)
    if found is None:
        return None
    rows, part, whole = (int(each.replace(",", "")) if each else 0 for each in found.groups()[:3])
    if not found[4]:
        return rows or part
    return None if paper is None else round(paper.instances * part / whole)


@dataclass(frozen=True, slots=True)
class _Count:
    number: Any
    source: str
