"""The client: many requests at a time, each tried until it is answered, recorded or hopeless; none paid for twice.

All requests to a provider go through one event loop in a thread of its own, whatever threads ask: what the provider
says about its limits concerns them all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import random
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from tulu_pipeline.api.access import check_access
from tulu_pipeline.api.batch import ask_in_batches, in_batches
from tulu_pipeline.api.concurrency import Flow
from tulu_pipeline.api.prices import Price, PriceTable, read_prices
from tulu_pipeline.api.replies import ReplyLog, reply_log
from tulu_pipeline.api.requests import HOPELESS, ApiError, ApiRequest, Reply
from tulu_pipeline.api.retry import Fault, Patience
from tulu_pipeline.api.transport import attempt, open_sdk, telling_faults
from tulu_pipeline.artifacts.interrupts import raise_if_asked
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.budget import Budget
from tulu_pipeline.errors import BadInput
from tulu_pipeline.settings import ProviderAccess, provider_access

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.05  # for room in the budget, and for a reply that another process has asked for
_LISTEN_EVERY_SECONDS = 0.5  # for an interrupt
_ZERO = Decimal(0)

Answer = Reply | ApiError


@dataclass(slots=True)
class Spending:
    """What one `ask` did.

    Attributes:
        cost_usd: paid now. known: replies that had been recorded before. asked: replies that came now.
        models: what answered, in the server's words.
    """

    cost_usd: Decimal = _ZERO
    known: int = 0
    asked: int = 0
    models: set[str] = field(default_factory=set)


class Client:
    """Asks one provider; use `connected`."""

    def __init__(
        self, provider: str, access: ProviderAccess, replies: ReplyLog, *, cap: int, patience: Patience | None = None
    ) -> None:
        self.provider = provider
        self.patience = patience or Patience()
        self._prices: PriceTable = read_prices(access.prices)
        self._replies = replies
        self._cap = max(1, cap)
        self._dice = random.Random()  # only for waits
        self._under_way: dict[str, asyncio.Future[None]] = {}
        self._flow = Flow(self._cap)
        self._sdk = open_sdk(access, self._cap)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=f"api {provider}", daemon=True)
        self._thread.start()

    def price(self, model: str) -> Price | None:
        """What a model costs."""
        return self._prices.find(self.provider, model)

    def estimate(self, requests: Iterable[ApiRequest]) -> tuple[int, Decimal | None]:
        """How many of the requests would have to be asked, and what they would cost about; None without a price."""
        wanted: dict[str, ApiRequest] = {}
        for request in requests:
            digest = request.digest()
            if self._replies.find(digest) is None:
                wanted[digest] = request
        costs = _ZERO
        for request in wanted.values():
            price = self.price(request.model)
            if price is None:
                return len(wanted), None
            costs += price.likely(request)
        return len(wanted), costs

    def ask(
        self, requests: Iterable[tuple[str, ApiRequest]], budget: Budget, spending: Spending | None = None
    ) -> Iterator[tuple[str, Answer]]:
        """Answer every request, in any order, each as soon as it is there.

        A reply that is recorded is taken from there. After an error that concerns all (no money, no key, no such
        model) what was not sent yet is not sent, and comes back as "stopped".

        Args:
            requests: with names of the caller's own; read as room appears.
            budget: what may be spent.
            spending: is told what was.

        Raises:
            BadInput: a budget that is bounded, and a model that has no price.
            StoreError: a reply cannot be recorded.
        """
        spent = Spending() if spending is None else spending
        answers: queue.Queue[tuple[str, Answer | BaseException]] = queue.Queue()
        stop = threading.Event()
        waiting, open_now = iter(requests), 0
        try:
            while True:
                while open_now < 2 * self._cap and (following := next(waiting, None)) is not None:
                    name, request = following
                    self._refuse_without_price(request, budget)
                    task = self._one(name, request, budget, spent, stop, answers)
                    asyncio.run_coroutine_threadsafe(task, self._loop)
                    open_now += 1
                if not open_now:
                    return
                name, answer = _next(answers)
                open_now -= 1
                if isinstance(answer, BaseException):
                    raise answer
                if isinstance(answer, ApiError) and answer.kind in HOPELESS:
                    stop.set()
                yield name, answer
        finally:
            stop.set()

    def in_batches(self, requests: Iterable[ApiRequest]) -> int:
        """How many of the requests are in batches under way; to ask for them one by one would be to pay twice."""
        return in_batches(self._replies, (request.digest() for request in requests))

    def ask_in_batches(
        self, requests: Iterable[tuple[str, ApiRequest]], budget: Budget, spending: Spending, poll_seconds: float = 60.0
    ) -> Iterator[tuple[str, Answer]]:
        """The same answers by the provider's batches: cheaper, within a day; all requests are of one model.

        A batch under way is found again after a kill.

        Raises:
            BadInput: a budget that is bounded, and a model that has no price.
            Unreachable, StageFailed: the provider does not take, or does not give back, a batch.
        """
        named = dict(requests)
        digests = {name: request.digest() for name, request in named.items()}
        if not named:
            return
        first = next(iter(named.values()))
        self._refuse_without_price(first, budget)
        known = {digest for digest in set(digests.values()) if self._replies.find(digest) is not None}
        work = ask_in_batches(
            self._sdk, list(named.values()), self._replies, budget, self.price(first.model), poll_seconds=poll_seconds
        )
        pending = asyncio.run_coroutine_threadsafe(telling_faults(work, self.provider), self._loop)
        try:
            while not pending.done():
                raise_if_asked()
                with contextlib.suppress(TimeoutError):
                    pending.result(timeout=_LISTEN_EVERY_SECONDS)
        finally:
            pending.cancel()  # a batch goes on at the provider's; who comes next finds it
        answers = pending.result()
        for digest, answer in answers.items():
            if isinstance(answer, Reply):
                spending.known += digest in known
                spending.asked += digest not in known
                spending.cost_usd += _ZERO if digest in known else Decimal(answer.cost_usd or 0)
                spending.models.add(answer.model)
        yield from ((name, answers[digest]) for name, digest in digests.items())

    def close(self) -> None:
        """Wait for what is under way, and end."""
        asyncio.run_coroutine_threadsafe(self._drain(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # What follows runs in the event loop.

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _drain(self) -> None:
        others = [task for task in asyncio.all_tasks(self._loop) if task is not asyncio.current_task()]
        await asyncio.gather(*others, return_exceptions=True)
        await self._sdk.close()
        await self._loop.shutdown_default_executor()

    async def _one(
        self,
        name: str,
        request: ApiRequest,
        budget: Budget,
        spent: Spending,
        stop: threading.Event,
        answers: queue.Queue[tuple[str, Answer | BaseException]],
    ) -> None:
        """Put the answer to one request, or what prevents it, into the queue."""
        try:
            answers.put((name, await self._answer(request, budget, spent, stop)))
        except BaseException as error:  # noqa: BLE001 - it is raised where the request came from
            answers.put((name, error))

    async def _answer(self, request: ApiRequest, budget: Budget, spent: Spending, stop: threading.Event) -> Answer:
        try:
            digest = request.digest()
        except BadInput as error:
            return ApiError(kind="bad_request", reason=error.what)
        while True:
            known = await asyncio.to_thread(self._replies.find, digest)
            if known is not None:
                spent.known += 1
                spent.models.add(known.model)
                return known
            if (same := self._under_way.get(digest)) is not None:
                await asyncio.shield(same)
                continue  # it is recorded now, or must be asked by this one
            mine = self._under_way[digest] = self._loop.create_future()
            try:
                answer = await self._claim_and_ask(request, digest, budget, spent, stop)
            finally:
                del self._under_way[digest]
                mine.set_result(None)
            if answer is not None:
                return answer

    async def _claim_and_ask(
        self, request: ApiRequest, digest: str, budget: Budget, spent: Spending, stop: threading.Event
    ) -> Answer | None:
        """The answer; None where another process has asked, or is asking, for the same."""
        with self._replies.claimed(digest) as mine:
            if not mine:
                await asyncio.sleep(_POLL_SECONDS)
                return _stopped(0) if stop.is_set() else None
            if await asyncio.to_thread(self._replies.find, digest) is not None:
                return None
            answer = await self._try(request, digest, budget, stop)
            if isinstance(answer, Reply):
                await asyncio.to_thread(self._replies.add, request, answer)
                spent.asked += 1
                spent.cost_usd += Decimal(answer.cost_usd or 0)
                spent.models.add(answer.model)
            return answer

    async def _try(self, request: ApiRequest, digest: str, budget: Budget, stop: threading.Event) -> Answer:
        """Attempt after attempt, as long as there is patience."""
        patience, tries, failures = self.patience, 0, 0
        used_seconds, not_before = 0.0, 0.0
        while True:
            entered = await self._flow.enter(not_before, stop.is_set)
            fault: Fault | None = None
            answered = False
            started = time.monotonic()
            try:
                if stop.is_set():
                    return _stopped(tries)
                async with self._paid(request, budget) as bill:
                    if bill is None:
                        return ApiError(kind="budget", reason=_no_room(request, budget, self.price(request.model)))
                    tries, started, seconds = tries + 1, time.monotonic(), patience.attempt_seconds
                    found = await asyncio.wait_for(attempt(self._sdk, request, digest, seconds), seconds + 1)
                    if isinstance(found, Reply):
                        answered = True
                        return replace(found, cost_usd=bill.settle(found))
                    fault = found
                    bill.may_have_cost = fault.may_have_cost
            except TimeoutError:
                fault = Fault(kind="timeout", reason="no answer in time", may_have_cost=True)
            finally:
                limited = fault is not None and fault.kind == "rate_limit"
                await self._flow.leave(entered, answered=answered, limited=limited)
            failures += not limited
            if fault.retried and fault.retry_after_seconds is not None:
                self._flow.hush(fault.retry_after_seconds)
            if not fault.retried or failures >= patience.attempts:
                return ApiError(kind=fault.kind, reason=fault.reason, attempts=tries)
            wait_seconds = patience.wait_seconds(tries, self._dice)
            used_seconds += time.monotonic() - started + wait_seconds
            if used_seconds >= patience.deadline_seconds:
                reason = f"{fault.reason}; {patience.deadline_seconds:.0f} s are over"
                return ApiError(kind=fault.kind, reason=reason, attempts=tries)
            not_before = time.monotonic() + wait_seconds
            log.info("%s: trying again after %s (%s)", self.provider, fault.kind, fault.reason)

    @contextlib.asynccontextmanager
    async def _paid(self, request: ApiRequest, budget: Budget) -> AsyncIterator[_Bill | None]:
        """Set aside what the attempt can cost at most, and settle afterwards; None where it is not left."""
        price = self.price(request.model)
        most = _ZERO if price is None else price.highest(request)
        while not budget.reserve(most):
            if not budget.reserved:
                yield None
                return
            await asyncio.sleep(_POLL_SECONDS)  # what is under way may cost less than was set aside for it
        bill = _Bill(price, most)
        try:
            yield bill
        except BaseException:
            bill.may_have_cost = True
            raise
        finally:
            budget.settle(most, bill.due())

    # What follows is called by any thread.

    def _refuse_without_price(self, request: ApiRequest, budget: Budget) -> None:
        if budget.max_usd is not None and self.price(request.model) is None:
            raise BadInput(
                f"nobody knows what `{request.model}` costs, so a budget of ${budget.max_usd} cannot be kept",
                f"provider `{self.provider}`, prices read {self._prices.read}",
                "give its price in a table of your own (`TULU_API_PRICES`), or run without `--max-usd`",
            )


@dataclass(slots=True)
class _Bill:
    """What an attempt costs: what the reply says; else all that was set aside, if it may have cost anything."""

    price: Price | None
    most: Decimal
    paid: Decimal | None = None
    may_have_cost: bool = False

    def settle(self, reply: Reply) -> str:
        if self.price is None:
            return ""
        self.paid = self.price.cost(reply.usage)
        if self.paid > self.most:
            log.warning("a reply cost $%s, though $%s was thought the most", self.paid, self.most)
        return format(self.paid.normalize(), "f")

    def due(self) -> Decimal:
        if self.paid is not None:
            return self.paid
        return self.most if self.may_have_cost else _ZERO


_clients: dict[tuple[Any, ...], tuple[Client, int]] = {}
_clients_lock = threading.Lock()


@contextlib.contextmanager
def connected(provider: str, ctx: RunContext, patience: Patience | None = None) -> Iterator[Client]:
    """This process's client of a provider; whoever needs it at the same time shares it.

    Raises:
        MissingOnMachine: the SDK or the provider's address or key, or what the environment's proxy needs.
        BadInput: an address, a proxy or certificates that cannot be used.
    """
    access = provider_access(provider)
    check_access(provider, access)
    folder = Store(ctx.settings.store).scratch / "api"
    cap = max(1, ctx.profile.api_slots)
    key = (provider, access.base_url, access.key, access.prices, folder.absolute(), cap, patience)
    with _clients_lock:
        client, users = _clients.get(key) or (
            Client(provider, access, reply_log(folder), cap=cap, patience=patience),
            0,
        )
        _clients[key] = (client, users + 1)
    try:
        yield client
    finally:
        with _clients_lock:
            client, users = _clients.pop(key)
            if users > 1:
                _clients[key] = (client, users - 1)
        if users == 1:
            client.close()


def _next(answers: queue.Queue[tuple[str, Answer | BaseException]]) -> tuple[str, Answer | BaseException]:
    while True:
        raise_if_asked()
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=_LISTEN_EVERY_SECONDS)


def _stopped(attempts: int) -> ApiError:
    return ApiError(kind="stopped", reason="an earlier error concerns all", attempts=attempts)


def _no_room(request: ApiRequest, budget: Budget, price: Price | None) -> str:
    most = _ZERO if price is None else price.highest(request)
    return f"a request may cost ${most:.4f}, of ${budget.max_usd} are ${budget.left:.4f} left"
