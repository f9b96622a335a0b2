"""A whole piece of work asked of a provider: its cost told beforehand, refused where that is not left."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal

from tulu_pipeline.api.client import Answer, Client, Spending
from tulu_pipeline.api.requests import ApiError, ApiRequest, ErrorKind, Reply
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.errors import StageFailed, Unreachable

log = logging.getLogger(__name__)

# The fault of one request, and for ever: to ask again would bring the same.
ITS_OWN: frozenset[ErrorKind] = frozenset({"bad_request", "context_length"})
_UNREACHABLE: frozenset[ErrorKind] = frozenset({"connection", "timeout", "server", "rate_limit", "malformed"})


def ask_all(
    client: Client,
    requests: Mapping[str, ApiRequest],
    ctx: RunContext,
    *,
    name: str,
    on_reply: Callable[[str, Reply], None] = lambda name, reply: None,
) -> tuple[dict[str, Answer], Spending]:
    """Answers by the requests' names.

    An error that is a request's own, for ever, is among the answers. Any other fails the work: what was answered is
    recorded, and the same work goes on from there.

    Args:
        client: of the requests' provider.
        requests: by names of the caller's own.
        ctx: its budget holds, its progress is told.
        name: the artifact's.
        on_reply: told of each reply as it comes.

    Raises:
        StageFailed: the estimate is more than is left; a request was not answered, though it could be another time;
            or every request is at fault.
        BadInput: a budget, and a model without a price.
    """
    _tell_cost(client, requests, ctx, name)
    answers: dict[str, Answer] = {}
    spending = Spending()
    batches = ctx.profile.api_transport == "batches"
    if not batches and (count := client.in_batches(requests.values())):
        raise StageFailed(
            f"{count} of {len(requests)} requests are in a batch under way, and would be paid for twice",
            name,
            'collect it: run with a profile that says `api_transport = "batches"`',
        )
    ask = client.ask_in_batches if batches else client.ask
    for request_name, answer in ask(requests.items(), ctx.budget, spending):
        answers[request_name] = answer
        if isinstance(answer, Reply):
            on_reply(request_name, answer)
        paid = f"${spending.cost_usd:.2f}" if spending.cost_usd else ""
        ctx.progress(name, len(answers), len(requests), "requests", paid)
    errors = [answer for answer in answers.values() if isinstance(answer, ApiError)]
    if any(error.kind not in ITS_OWN for error in errors) or (errors and len(errors) == len(requests)):
        raise _failure(errors, len(requests), name)
    models = ", ".join(sorted(spending.models))
    log.info(
        "%s: %d replies paid for ($%.4f), %d known; answered by %s",
        name,
        spending.asked,
        spending.cost_usd,
        spending.known,
        models,
    )
    return answers, spending


def _tell_cost(client: Client, requests: Mapping[str, ApiRequest], ctx: RunContext, name: str) -> None:
    count, cost = client.estimate(requests.values())
    if not count:
        return
    told = "of unknown cost" if cost is None else f"about ${cost:.2f}"
    log.info("%s: %d of %d requests to %s, %s", name, count, len(requests), client.provider, told)
    left = ctx.budget.left
    if cost is not None and left is not None and cost > left:
        raise StageFailed(
            f"{count} requests cost about ${cost:.2f}, and of ${ctx.budget.max_usd} are ${left:.2f} left",
            name,
            f"`--max-usd {_rounded_up(ctx.budget.spent + cost)}`, or fewer items; nothing was asked",
        )


def _rounded_up(usd: Decimal) -> Decimal:
    return (usd * Decimal("1.2")).quantize(Decimal(1), rounding="ROUND_CEILING")


def _failure(errors: list[ApiError], total: int, where: str) -> StageFailed:
    first = next((error for error in errors if error.kind not in {"stopped"} | ITS_OWN), errors[0])
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(error.kind for error in errors).items()))
    again = "the others are kept, and not paid for again"
    fixes: dict[ErrorKind, str] = {
        "auth": f"look at the provider's key, then run the same command: {again}",
        "budget": f"a higher `--max-usd`: {again}",
        "quota": f"see to the provider's account, then run the same command: {again}",
        "unexpected": f"look at the provider's address and what lies before it, then run the same command: {again}",
    }
    kind = Unreachable if first.kind in _UNREACHABLE else StageFailed
    return kind(
        f"{len(errors)} of {total} requests were not answered ({told}); the first: {first.reason}",
        where,
        fixes.get(first.kind, f"run the same command again: {again}"),
    )
