"""Which artifacts of a plan ask a paid provider, and whether it can be asked from here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from tulu_pipeline.artifacts.plan import Node, Plan, Status
from tulu_pipeline.errors import MissingOnMachine


@dataclass(frozen=True, slots=True)
class Asking:
    """An artifact that would be made by asking `model` of `provider`."""

    node: Node
    provider: str
    model: str


def asking(plan: Plan) -> Iterator[Asking]:
    """All of them, in graph order."""
    from tasks.ask import AskParams
    from tasks.judge import JudgeParams
    from tulu_pipeline.specs.judge import Annotator
    from tulu_pipeline.specs.model_judge import ServedTruthJudges

    for node in plan.nodes.values():
        if node.status is Status.HIT:
            continue
        match node.artifact.params:
            case AskParams(model=asked):
                yield Asking(node, asked.provider, asked.model)
            case JudgeParams(judge=Annotator() as judge):
                yield Asking(node, judge.provider, judge.model)
            case JudgeParams(judge=ServedTruthJudges() as judge):
                yield Asking(node, judge.provider, f"{judge.truth}, {judge.information}")


def lacking_providers(plan: Plan) -> list[str]:
    """Providers that cannot be asked from here, in sentences."""
    from tulu_pipeline.api.access import check_access
    from tulu_pipeline.settings import provider_access

    told = []
    for provider, count in Counter(each.provider for each in asking(plan)).items():
        try:
            check_access(provider, provider_access(provider))
        except MissingOnMachine as lack:
            many = "1 artifact asks" if count == 1 else f"{count} artifacts ask"
            told.append(f"{many} provider `{provider}`: {lack.what}; {lack.fix}, or name another judge or model")
    return told
