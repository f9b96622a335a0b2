"""What a run would ask of servers that are paid, and what that would cost, before anything is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from flows.providers import Asking, asking
from flows.session import Session
from tulu_pipeline.artifacts.plan import Node
from tulu_pipeline.specs.benchmark import Item

if TYPE_CHECKING:
    from tulu_pipeline.api.requests import ApiRequest

_ANSWER = "word " * 30  # about what 50 tokens of TruthfulQA hold


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedCost:
    """What one artifact would ask of a provider.

    Attributes:
        name: the artifact's.
        provider: who is asked. model: of it.
        requests: that are not answered yet; None where the questions are not known.
        usd: about what they cost; None where that, or the price of the model, is not known.
        exact: whether these are the very requests; else answers that are not there yet were taken to be as long as the
            reference's.
    """

    name: str
    provider: str
    model: str
    requests: int | None
    usd: Decimal | None
    exact: bool


def planned_costs(session: Session) -> list[PlannedCost]:
    """Of each artifact that would be made and asks a provider, in graph order."""
    from tasks.ask import AskParams

    known = _Known(session)
    found = []
    for each in asking(session.plan):
        if isinstance(each.node.artifact.params, AskParams):
            requests, exact = _asked(session, each.node), True
        else:
            requests, exact = _judged(session, each.node), _folder(session, each.node, "completions") is not None
        found.append(known.cost(each, requests, exact=exact))
    return found


def cost_lines(session: Session) -> list[str]:
    """The same for people: a line for each model, and one for what is not known yet."""
    planned = planned_costs(session)
    lines = []
    for provider, model in dict.fromkeys((each.provider, each.model) for each in planned):
        parts = [each for each in planned if (each.provider, each.model) == (provider, model)]
        counted = [each for each in parts if each.requests is not None]
        if counted:
            costs = [each.usd for each in counted]
            usd = None if None in costs else sum((cost for cost in costs if cost is not None), Decimal(0))
            told = "of unknown cost: no price is known" if usd is None else f"about ${usd:.2f}"
            guess = "" if all(each.exact for each in counted) else ", if answers are as long as the reference's"
            requests = sum(each.requests for each in counted if each.requests is not None)
            lines.append(f"asks {provider} ({model}): {requests:,} requests, {told}{guess}")
        if unknown := [each.name for each in parts if each.requests is None]:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            lines.append(f"asks {provider} ({model}): cost unknown before its questions are made: {unknown[0]}{more}")
    if lines:
        lines.append("`--max-usd` bounds what a run spends; it says each cost again before it asks")
    return lines


def costs_json(session: Session) -> list[dict[str, Any]]:
    """The form that scripts rely on."""
    return [{name: getattr(each, name) for name in PlannedCost.__slots__} for each in planned_costs(session)]


class _Known:
    """Prices, and the requests that were answered before."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._answered: set[str] | None = None

    def cost(self, asked: Asking, requests: Iterable[ApiRequest] | None, *, exact: bool) -> PlannedCost:
        from tulu_pipeline.api.prices import read_prices
        from tulu_pipeline.settings import provider_access

        count, usd = None, None
        if requests is not None:
            prices = read_prices(provider_access(asked.provider).prices)
            wanted = {digest: each for each in requests if (digest := each.digest()) not in self.answered()}
            found = [(prices.find(asked.provider, each.model), each) for each in wanted.values()]
            count, costs = len(wanted), [price.likely(each) for price, each in found if price is not None]
            usd = sum(costs, Decimal(0)) if len(costs) == count else None
        return PlannedCost(
            name=asked.node.artifact.name,
            provider=asked.provider,
            model=asked.model,
            requests=count,
            usd=usd,
            exact=exact,
        )

    def answered(self) -> set[str]:
        """Digests of the requests whose replies are recorded."""
        from tulu_pipeline.api.replies import read_replies

        if self._answered is None:
            path = self._session.store.scratch / "api" / "replies.jsonl"
            self._answered = {request.digest() for request, _ in read_replies(path)} if path.exists() else set()
        return self._answered


def _asked(session: Session, node: Node) -> Iterator[ApiRequest] | None:
    """What a served model would be asked; None where that is not known before it is asked."""
    from tulu_pipeline.inference.selection import select
    from tulu_pipeline.inference.served import limited, request_of

    params: Any = node.artifact.params
    benchmark, folder = params.definition, _folder(session, node, "benchmark")
    if folder is None or benchmark.render is not None:
        return None
    files, setting = benchmark.files(folder), benchmark.setting(params.metric)
    items = limited(
        lambda: select(lambda: benchmark.items(files, setting), params.item_limit),
        params.model.group_limits.get(params.metric),
    )
    return (request_of(item, benchmark.name, params.model, params.sampling) for item in items)


def _judged(session: Session, node: Node) -> Iterator[ApiRequest] | None:
    """What a judge would be asked of the answers, or of answers like the reference's."""
    from tulu_pipeline.judging.annotation import ask_for
    from tulu_pipeline.judging.annotator import Template
    from tulu_pipeline.judging.truth import requests_of
    from tulu_pipeline.specs.judge import Annotator

    params: Any = node.artifact.params
    judge = params.judge
    prompts = [_folder(session, node, name) for name in judge.downloads()]
    answers = _answers(session, node)
    if answers is None or None in prompts:
        return None
    if isinstance(judge, Annotator):
        (prompt,) = (folder / "prompt.txt" for folder in prompts if folder is not None)
        template = Template(prompt.read_text(encoding="utf-8"), str(prompt))
        return (
            request
            for item, answer in answers
            for request in ask_for(item, f"{item.gold} " if answer is None else answer, judge, template).values()
        )
    return (
        request
        for item, answer in answers
        for request in requests_of(judge, str(item.gold["question"]), _ANSWER if answer is None else answer).values()
    )


def _answers(session: Session, node: Node) -> Iterator[tuple[Item, str | None]] | None:
    """The items that are judged, with the answers where those are there."""
    from tulu_pipeline.inference.selection import select
    from tulu_pipeline.specs.answers import answered_items

    params: Any = node.artifact.params
    benchmark, folder = params.definition, _folder(session, node, "benchmark")
    if folder is None:
        return None
    completions = _folder(session, node, "completions")
    if completions is not None:
        return ((item, each.texts[0]) for item, each in answered_items(benchmark, params.metric, folder, completions))
    files, setting = benchmark.files(folder), benchmark.setting(params.metric)
    limit = getattr(node.artifact.inputs["completions"].params, "item_limit", None)
    return ((item, None) for item in select(lambda: benchmark.items(files, setting), limit))


def _folder(session: Session, node: Node, role: str) -> Any:
    return session.find_folder(node.artifact.inputs[role].name)
