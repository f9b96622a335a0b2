"""OpenAI's Batch API as another way to the same replies: half the price, within a day.

Requests go up as one file. What is sent is written down beside the replies, so that whoever asks for the same later,
after a kill too, waits for the batch that is there instead of sending another. Whoever collects a batch records all of
its replies, whether they are among the wanted ones or not; one does at a time, and the others wait. Requests that
failed within a batch go into the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tulu_pipeline.api.answers import Malformed, parse_reply
from tulu_pipeline.api.prices import Price
from tulu_pipeline.api.replies import HELD, ReplyLog
from tulu_pipeline.api.requests import ApiError, ApiRequest, Reply
from tulu_pipeline.api.retry import fault_of_status
from tulu_pipeline.artifacts.json_lines import from_line, to_line
from tulu_pipeline.artifacts.storage import fsync_folder, telling
from tulu_pipeline.budget import Budget
from tulu_pipeline.errors import StageFailed

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types import Batch

log = logging.getLogger(__name__)

MOST_REQUESTS = 50_000  # of one batch
_SCHEMA_VERSION = 1
_FOLDER = "batches"
_TURN = "turn"  # locked by whoever looks what is under way, and sends
_ROUNDS = 3  # batches that a request may fail in
_RETRIES = 5  # of looks at a batch, which cost nothing; what is paid for is sent once
_TURN_SECONDS = 0.05  # between two looks whether another one has done sending
_ENDED = frozenset({"completed", "expired", "cancelled", "failed"})
_SHOWN = 10  # errors of a batch
_ZERO = Decimal(0)

Answer = Reply | ApiError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sent:
    """Requests that went up: the first line of the file of a batch that is under way.

    The file goes when the replies are recorded. Whoever collects them holds a lock on it.

    Attributes:
        input_file_id: of the requests; written down before the batch is created from it.
        requests: by their digests; to record a reply takes the request, and whoever collects may not know it.
    """

    schema_version: int
    input_file_id: str
    endpoint: str
    requests: Mapping[str, ApiRequest]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Created:
    """The second line; missing or torn as long as nobody knows whether the batch was created."""

    batch_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Collected:
    """What came of a batch beside its replies.

    Attributes:
        refused: why another batch with the rest would come to the same end; None where it may not.
    """

    spent: Decimal
    errors: Mapping[str, ApiError]
    refused: StageFailed | None


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

    What a batch can cost at most is set aside while it is under way; one that another run sent is that run's expense.
    A batch that did not answer everything is followed by another with the rest; after three, a request that was never
    answered is an error.

    Args:
        sdk: a client of the provider.
        requests: whose replies are wanted; what is recorded is not sent.
        replies: where replies are recorded; batches under way are written down in `batches` beside it.
        budget: what may be spent.
        price: of the model; None where it has none.
        poll_seconds: between two looks at a batch.

    Raises:
        StageFailed: the provider did not take a batch, or someone cancelled it; what it brought is recorded.
        ValueError: requests of several models or endpoints.
    """
    if len({(request.model, request.endpoint) for request in requests}) > 1:
        raise ValueError("a batch is of one model and one endpoint")
    wanted = {request.digest(): request for request in requests}
    errors: dict[str, ApiError] = {}
    folder = replies.path.parent / _FOLDER
    with telling(folder):
        folder.mkdir(exist_ok=True)
        (folder / _TURN).touch()
    rounds = 0
    while rounds < _ROUNDS:
        async with contextlib.AsyncExitStack() as turn:
            # Nobody else looks at what is under way until this one has sent: no two send the same.
            await turn.enter_async_context(_alone(folder / _TURN, _TURN_SECONDS))
            under_way = await asyncio.to_thread(_under_way, folder)  # first: a file goes after its replies have come
            waiting = _waiting(wanted, replies, errors)
            if not waiting:
                break
            others = [path for path, sent in under_way if not waiting.keys().isdisjoint(sent.requests)]
            if others:
                await turn.aclose()
                for path in others:
                    errors |= await _collect_of_others(sdk, path, replies, price, poll_seconds)
                continue
            rounds += 1
            together = dict(islice(waiting.items(), MOST_REQUESTS))
            most, spent = _most(together, price), _ZERO
            if not budget.reserve(most):
                left = f"of ${budget.max_usd} are ${budget.left:.2f} left"
                reason = f"a batch of {len(together)} may cost ${most:.2f}, {left}"
                errors |= {digest: ApiError(kind="budget", reason=reason) for digest in waiting}
                break
            try:
                sent, path = await _upload(sdk, together, folder)
                spent = most  # as long as nobody knows better
                async with _alone(path, _TURN_SECONDS):
                    await turn.aclose()
                    await _create(sdk, sent, path)
                    collected = await _collect(sdk, path, replies, price, poll_seconds)
                spent = collected.spent
            finally:
                budget.settle(most, spent)
            errors |= _errors(collected)
    lost = ApiError(kind="server", reason="no batch brought an answer")
    found = {digest: replies.find(digest) for digest in wanted}
    return {digest: errors.get(digest, lost) if reply is None else reply for digest, reply in found.items()}


def in_batches(replies: ReplyLog, digests: Iterable[str]) -> int:
    """How many of the requests of these digests are in batches under way, and not answered yet."""
    sent = {digest for _, sent in _under_way(replies.path.parent / _FOLDER) for digest in sent.requests}
    return sum(replies.find(digest) is None for digest in sent.intersection(digests))


def _waiting(
    wanted: Mapping[str, ApiRequest], replies: ReplyLog, errors: Mapping[str, ApiError]
) -> dict[str, ApiRequest]:
    """What is neither answered nor hopeless."""
    final = {digest for digest, error in errors.items() if error.kind not in ("server", "rate_limit", "timeout")}
    return {
        digest: request for digest, request in wanted.items() if digest not in final and replies.find(digest) is None
    }


def _under_way(folder: Path) -> list[tuple[Path, _Sent]]:
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        with contextlib.suppress(FileNotFoundError):  # collected since
            found.append((path, _read(path)[0]))
    return found


def _read(path: Path) -> tuple[_Sent, str]:
    """What was sent, and the batch's id; "" where it is not known."""
    first, _, second = path.read_bytes().partition(b"\n")
    batch_id = from_line(second, _Created, f"{path}:2").batch_id if second.endswith(b"\n") else ""
    return from_line(first, _Sent, f"{path}:1"), batch_id


@contextlib.asynccontextmanager
async def _alone(path: Path, seconds: float) -> AsyncIterator[None]:
    """Hold a file as soon as no other coroutine, thread or process does; look every so many seconds.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it cannot be locked.
    """
    with path.open("r+b") as file:  # NFS lets nobody alone hold what is open for reading
        while not _lock(file):
            await asyncio.sleep(seconds)
        yield


def _lock(file: IO[bytes]) -> bool:
    with telling(file.name):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD:
                raise
            return False
    return True


async def _upload(sdk: AsyncOpenAI, requests: Mapping[str, ApiRequest], folder: Path) -> tuple[_Sent, Path]:
    """Send the requests up, and write down that they are there."""
    endpoint = "/v1" + next(iter(requests.values())).endpoint
    lines = (
        json.dumps({"custom_id": digest, "method": "POST", "url": endpoint, "body": request.body()})
        for digest, request in requests.items()
    )
    content = "".join(f"{line}\n" for line in lines).encode()
    uploaded = await sdk.files.create(file=("requests.jsonl", content), purpose="batch")
    path = folder / f"{uploaded.id}.jsonl"
    sent = _Sent(schema_version=_SCHEMA_VERSION, input_file_id=uploaded.id, endpoint=endpoint, requests=requests)
    with telling(path):
        fresh = path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(to_line(sent))
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
        fsync_folder(folder)
    return sent, path


async def _create(sdk: AsyncOpenAI, sent: _Sent, path: Path) -> str:
    endpoint: Any = sent.endpoint
    batch = await sdk.batches.create(input_file_id=sent.input_file_id, endpoint=endpoint, completion_window="24h")
    created = _Created(batch_id=batch.id)
    log.info("batch %s: %d requests sent", created.batch_id, len(sent.requests))
    with telling(path), path.open("r+b") as file:
        file.truncate(len(file.readline()))  # a torn second line goes
        file.seek(0, os.SEEK_END)
        file.write(to_line(created))
        file.flush()
        os.fsync(file.fileno())
    return created.batch_id


async def _created(sdk: AsyncOpenAI, sent: _Sent, path: Path) -> str:
    """The batch of a file that was uploaded: created before a kill, or now."""
    async for batch in sdk.batches.list(limit=100):
        if batch.input_file_id == sent.input_file_id:
            return str(batch.id)
    return await _create(sdk, sent, path)


async def _collect_of_others(
    sdk: AsyncOpenAI, path: Path, replies: ReplyLog, price: Price | None, poll_seconds: float
) -> Mapping[str, ApiError]:
    """Wait until whoever sent a batch has collected it, or collect it where they are gone; the errors in it."""
    with contextlib.suppress(FileNotFoundError):
        async with _alone(path, poll_seconds):
            if path.exists():
                return _errors(await _collect(sdk, path, replies, price, poll_seconds))
    return {}


async def _collect(
    sdk: AsyncOpenAI, path: Path, replies: ReplyLog, price: Price | None, poll_seconds: float
) -> _Collected:
    """Wait for a batch, and record every reply in it; the caller holds its file, which then goes."""
    sent, batch_id = await asyncio.to_thread(_read, path)
    batch_id = batch_id or await _created(sdk, sent, path)
    patient = sdk.with_options(max_retries=_RETRIES)
    while (batch := await patient.batches.retrieve(batch_id)).status not in _ENDED:
        await asyncio.sleep(poll_seconds)
    unanswered = ApiError(kind="server", reason=f"batch `{batch_id}`, {batch.status}, has no answer to it")
    errors = dict.fromkeys(sent.requests, unanswered)
    spent = _ZERO
    share = Decimal(1) if price is None else price.batch
    for name in filter(None, (batch.output_file_id, batch.error_file_id)):
        content = await patient.files.content(name)
        for line in filter(None, content.content.split(b"\n")):  # `splitlines` cuts texts at U+2028 too
            digest, answer = _answer(line, sent.requests)
            if isinstance(answer, ApiError):
                errors[digest] = answer
                continue
            errors.pop(digest, None)
            if replies.find(digest) is None:
                cost = None if price is None else price.cost(answer.usage) * share
                spent += cost or _ZERO
                told = replace(answer, cost_usd="" if cost is None else format(cost.normalize(), "f"))
                await asyncio.to_thread(replies.add, sent.requests[digest], told)
    log.info("batch %s: %s, $%.4f", batch_id, batch.status, spent)
    with telling(path):
        path.unlink(missing_ok=True)  # nothing of it is left to be had: each request has its reply or its error
    return _Collected(spent=spent, errors=errors, refused=_refused(batch, next(iter(sent.requests.values())).provider))


def _errors(collected: _Collected) -> Mapping[str, ApiError]:
    if collected.refused is not None:
        raise collected.refused
    return collected.errors


def _refused(batch: Batch, provider: str) -> StageFailed | None:
    """A batch fails when its file is looked through: the provider takes none of it, and says why."""
    if batch.status not in ("cancelled", "failed"):
        return None
    faults = (batch.errors and batch.errors.data) or []
    said = [f"`{each.code}`{f' (line {each.line})' if each.line else ''}: {each.message}" for each in faults]
    more = f"; and {len(said) - _SHOWN} more" if len(said) > _SHOWN else ""
    why = f": {'; '.join(said[:_SHOWN])}{more}" if said else ""
    return StageFailed(
        f"batch `{batch.id}` {'has failed' if batch.status == 'failed' else 'was cancelled'}{why}",
        f"provider `{provider}`",
        "see to the cause, then the same command: what is recorded is not paid for again",
    )


def _answer(line: bytes, requests: Mapping[str, ApiRequest]) -> tuple[str, Answer]:
    row = json.loads(line)
    digest, response = str(row["custom_id"]), row.get("response")
    if digest not in requests:
        return digest, ApiError(kind="malformed", reason="an answer to what was not in the batch")
    if not response:  # the batch ended before its turn came
        return digest, ApiError(kind="server", reason=str((row.get("error") or {}).get("message") or "no answer"))
    body, status = json.dumps(response.get("body")), int(response.get("status_code") or 500)
    if status != 200:
        fault = fault_of_status(status, {}, body)
        return digest, ApiError(kind=fault.kind, reason=fault.reason, attempts=1)
    try:
        return digest, parse_reply(body, requests[digest], digest)
    except Malformed as error:
        return digest, ApiError(kind="malformed", reason=str(error), attempts=1)


def _most(requests: Mapping[str, ApiRequest], price: Price | None) -> Decimal:
    if price is None:
        return _ZERO
    return sum((price.highest(each) for each in requests.values()), _ZERO) * price.batch
