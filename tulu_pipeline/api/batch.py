"""OpenAI's Batch API as another way to the same replies: half the price, within a day.

Requests go up as one file. What is sent is written down beside the replies, so that whoever asks for the same later,
after a kill too, waits for the batch that is there instead of sending another. Replies enter the same log; requests
that failed within a batch go into the next one.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tulu_pipeline.api.answers import Malformed, parse_reply
from tulu_pipeline.api.prices import Price
from tulu_pipeline.api.replies import ReplyLog
from tulu_pipeline.api.requests import ApiError, ApiRequest, Reply
from tulu_pipeline.api.retry import fault_of_status
from tulu_pipeline.artifacts.json_lines import from_line, to_line
from tulu_pipeline.artifacts.storage import fsync_folder, telling
from tulu_pipeline.budget import Budget

if TYPE_CHECKING:
    from openai import AsyncOpenAI

log = logging.getLogger(__name__)

MOST_REQUESTS = 50_000  # of one batch
_FOLDER = "batches"
_ROUNDS = 3  # batches that a request may fail in
_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_ZERO = Decimal(0)

Answer = Reply | ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """A batch that is under way. Its file goes when its replies are recorded.

    Attributes:
        input_file_id: of the requests; written down before the batch is created from it.
        batch_id: "" as long as nobody knows whether it was created.
    """

    input_file_id: str
    endpoint: str
    digests: tuple[str, ...]
    batch_id: str = ""


async def ask_in_batches(
    sdk: AsyncOpenAI,
    requests: Sequence[ApiRequest],
    replies: ReplyLog,
    budget: Budget,
    price: Price | None,
    *,
    poll_seconds: float = 60.0,
) -> dict[str, Answer]:
    """Answers by the requests' digests; all requests are of one model and one endpoint.

    What a batch can cost at most is set aside while it is under way; one that an earlier run sent is that run's
    expense. A batch that did not answer everything is followed by another with the rest; after three, a request that
    was never answered is an error.

    Args:
        sdk: a client of the provider.
        requests: whose replies are wanted; what is recorded is not sent.
        replies: where replies are recorded; batches under way are written down in `batches` beside it.
        budget: what may be spent.
        price: of the model; None where it has none.
        poll_seconds: between two looks at a batch.
    """
    wanted = {request.digest(): request for request in requests}
    errors: dict[str, ApiError] = {}
    folder = replies.path.parent / _FOLDER
    for path, sent in _under_way(folder):
        if not wanted.keys().isdisjoint(sent.digests):
            await _collect(sdk, await _created(sdk, sent, path), path, wanted, replies, errors, price, poll_seconds)
    for _ in range(_ROUNDS):
        final = {digest for digest, error in errors.items() if error.kind not in ("server", "rate_limit", "timeout")}
        waiting = {
            digest: request
            for digest, request in wanted.items()
            if digest not in final and replies.find(digest) is None
        }
        if not waiting:
            break
        together = dict(islice(waiting.items(), MOST_REQUESTS))
        most = _most(together, price)
        if not budget.reserve(most):
            left = f"of ${budget.max_usd} are ${budget.left:.2f} left"
            reason = f"a batch of {len(together)} may cost ${most:.2f}, {left}"
            errors |= {digest: ApiError(kind="budget", reason=reason) for digest in waiting}
            break
        spent = most  # as long as nobody knows better
        try:
            sent, path = await _send(sdk, together, folder)
            spent = await _collect(sdk, sent, path, wanted, replies, errors, price, poll_seconds)
        finally:
            budget.settle(most, spent)
    lost = ApiError(kind="server", reason="no batch brought an answer")
    found = {digest: replies.find(digest) for digest in wanted}
    return {digest: errors.get(digest, lost) if reply is None else reply for digest, reply in found.items()}


def in_batches(replies: ReplyLog, digests: Iterable[str]) -> int:
    """How many of the requests of these digests are in batches under way."""
    sent = {digest for _, sent in _under_way(replies.path.parent / _FOLDER) for digest in sent.digests}
    return sum(digest in sent for digest in set(digests))


def _under_way(folder: Path) -> list[tuple[Path, _Sent]]:
    return [(path, from_line(path.read_bytes(), _Sent, str(path))) for path in sorted(folder.glob("*.json"))]


async def _send(sdk: AsyncOpenAI, requests: Mapping[str, ApiRequest], folder: Path) -> tuple[_Sent, Path]:
    endpoint = "/v1" + next(iter(requests.values())).endpoint
    lines = (
        json.dumps({"custom_id": digest, "method": "POST", "url": endpoint, "body": request.body()})
        for digest, request in requests.items()
    )
    content = "".join(f"{line}\n" for line in lines).encode()
    uploaded = await sdk.files.create(file=("requests.jsonl", content), purpose="batch")
    sent = _Sent(input_file_id=uploaded.id, endpoint=endpoint, digests=tuple(requests))
    path = folder / f"{uploaded.id}.json"
    _write(path, sent)
    return await _create(sdk, sent, path), path


async def _create(sdk: AsyncOpenAI, sent: _Sent, path: Path) -> _Sent:
    endpoint: Any = sent.endpoint
    batch = await sdk.batches.create(input_file_id=sent.input_file_id, endpoint=endpoint, completion_window="24h")
    log.info("batch %s: %d requests sent", batch.id, len(sent.digests))
    created = replace(sent, batch_id=batch.id)
    _write(path, created)
    return created


async def _created(sdk: AsyncOpenAI, sent: _Sent, path: Path) -> _Sent:
    """The batch of a file that was uploaded: created before the kill, or now."""
    if sent.batch_id:
        return sent
    async for batch in sdk.batches.list(limit=100):
        if batch.input_file_id == sent.input_file_id:
            return replace(sent, batch_id=batch.id)
    return await _create(sdk, sent, path)


async def _collect(
    sdk: AsyncOpenAI,
    sent: _Sent,
    path: Path,
    wanted: Mapping[str, ApiRequest],
    replies: ReplyLog,
    errors: dict[str, ApiError],
    price: Price | None,
    poll_seconds: float,
) -> Decimal:
    """Wait for a batch, record its replies, tell its errors; what it cost."""
    batch = await sdk.batches.retrieve(sent.batch_id)
    while batch.status not in _ENDED:
        await asyncio.sleep(poll_seconds)
        batch = await sdk.batches.retrieve(sent.batch_id)
    spent = _ZERO
    share = Decimal(1) if price is None else price.batch
    for name in filter(None, (batch.output_file_id, batch.error_file_id)):
        content = await sdk.files.content(name)
        for line in content.text.splitlines():
            digest, answer = _answer(line, wanted)
            if isinstance(answer, ApiError):
                errors[digest] = answer
            elif replies.find(digest) is None:
                cost = None if price is None else price.cost(answer.usage) * share
                spent += cost or _ZERO
                told = replace(answer, cost_usd="" if cost is None else format(cost.normalize(), "f"))
                await asyncio.to_thread(replies.add, wanted[digest], told)
                errors.pop(digest, None)
    log.info("batch %s: %s, $%.4f", sent.batch_id, batch.status, spent)
    path.unlink()
    return spent


def _answer(line: str, wanted: Mapping[str, ApiRequest]) -> tuple[str, Answer]:
    row = json.loads(line)
    digest, response = str(row["custom_id"]), row.get("response") or {}
    body, status = json.dumps(response.get("body")), int(response.get("status_code") or 500)
    if digest not in wanted:
        return digest, ApiError(kind="stopped", reason="nobody wants it now")
    if status != 200:
        fault = fault_of_status(status, {}, body)
        return digest, ApiError(kind=fault.kind, reason=fault.reason, attempts=1)
    try:
        return digest, parse_reply(body, wanted[digest], digest)
    except Malformed as error:
        return digest, ApiError(kind="malformed", reason=str(error), attempts=1)


def _most(requests: Mapping[str, ApiRequest], price: Price | None) -> Decimal:
    if price is None:
        return _ZERO
    return sum((price.highest(each) for each in requests.values()), _ZERO) * price.batch


def _write(path: Path, sent: _Sent) -> None:
    with telling(path):
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(to_line(sent))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        fsync_folder(path.parent)
