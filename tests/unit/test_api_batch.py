"""The Batch API: the same replies for half the price, found again after a kill, failures sent again."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from fakes.openai_server import KEY, OpenAIServer, openai_server

from tulu_pipeline.api.asking import ask_all
from tulu_pipeline.api.client import Client, Spending, connected
from tulu_pipeline.api.requests import ApiError, ApiRequest, Message, Reply
from tulu_pipeline.api.transport import open_sdk
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.budget import Budget
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import provider_access, read_settings


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as known:
        yield known


@pytest.fixture
def client(server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with connected("openai", context(tmp_path)) as found:
        yield found


def context(store: Path, **changes: object) -> RunContext:
    profile = replace(Profile(api_transport="batches"), **changes)  # type: ignore[arg-type]  # fields of the profile
    return RunContext(profile=profile, settings=read_settings(str(store)))


def requests(count: int) -> dict[str, ApiRequest]:
    return {
        f"r{n}": ApiRequest(
            provider="openai",
            model="gpt-4-0613",
            messages=(Message(role="user", content=f"question {n}"),),
            max_tokens=20,
        )
        for n in range(count)
    }


def ask(client: Client, wanted: dict[str, ApiRequest], budget: Budget | None = None) -> dict[str, Reply | ApiError]:
    return dict(client.ask_in_batches(wanted.items(), budget or Budget(), Spending(), poll_seconds=0.01))


def test_a_batch_brings_every_reply_for_half_the_price_into_the_same_log(client: Client, server: OpenAIServer) -> None:
    server.polls_of_batch = 3
    budget = Budget(Decimal(1))
    answers = ask(client, requests(8), budget)
    assert all(isinstance(each, Reply) for each in answers.values())
    assert len(server.batches) == 1
    assert budget.spent == server.charged
    assert budget.reserved == 0
    one_by_one = dict(client.ask(requests(8).items(), Budget()))
    assert one_by_one == answers
    assert len(server.asked) == 8


def test_requests_that_failed_within_a_batch_go_into_the_next_one(client: Client, server: OpenAIServer) -> None:
    server.batch_faults = {"question 2": (500, "server_error"), "question 5": (400, "context_length_exceeded")}
    answers = ask(client, requests(7))
    errors = {name: each.kind for name, each in answers.items() if isinstance(each, ApiError)}
    assert errors == {"r5": "context_length"}
    assert len(server.batches) == 2
    assert sum(server.charges.values()) == 6


@pytest.mark.parametrize("created", [True, False], ids=["after it was created", "before"])
def test_a_batch_that_was_under_way_at_a_kill_is_waited_for_and_not_sent_again(
    client: Client, server: OpenAIServer, tmp_path: Path, created: bool
) -> None:
    server.polls_of_batch = 10_000

    async def killed() -> None:
        from tulu_pipeline.api.batch import _send

        sdk = open_sdk(provider_access("openai"), 2)
        wanted = {each.digest(): each for each in requests(4).values()}
        sent, path = await _send(sdk, wanted, tmp_path / "api" / "batches")
        if not created:
            path.write_text(path.read_text().replace(sent.batch_id, ""))
        await sdk.close()

    asyncio.run(killed())
    server.polls_of_batch = 1
    with pytest.raises(StageFailed, match="4 of 5 requests are in a batch"):
        ask_all(client, requests(5), context(tmp_path, api_transport="requests"), name="judge[x]")
    answers = ask(client, requests(5), Budget(Decimal(1)))
    assert all(isinstance(each, Reply) for each in answers.values())
    assert len(server.batches) == 2  # the one of the four, and one for the fifth
    assert sum(server.charges.values()) == 5
    assert not list((tmp_path / "api" / "batches").iterdir())


def test_a_batch_that_could_cost_more_than_is_left_is_not_sent(client: Client, server: OpenAIServer) -> None:
    answers = ask(client, requests(5), Budget(Decimal("0.001")))
    assert {each.kind for each in answers.values() if isinstance(each, ApiError)} == {"budget"}
    assert not server.files


def test_the_profile_chooses_batches(client: Client, server: OpenAIServer, tmp_path: Path) -> None:
    answers, spending = ask_all(client, requests(3), context(tmp_path), name="judge[x]")
    assert len(answers) == spending.asked == 3
    assert len(server.batches) == 1
    assert spending.cost_usd == server.charged


def test_a_provider_without_batches_says_so(client: Client, server: OpenAIServer, tmp_path: Path) -> None:
    server.no_batches = True
    with pytest.raises(StageFailed, match="status 404"):
        ask(client, requests(1))
