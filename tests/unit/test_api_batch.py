"""The Batch API: the same replies for half the price, found again after a kill, failures sent again."""

import asyncio
import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from fakes.openai_server import KEY, OpenAIServer, openai_server

from tasks.judge_models import ask_truth
from tulu_pipeline.api.asking import ask_all
from tulu_pipeline.api.client import Client, Spending, connected
from tulu_pipeline.api.replies import read_replies
from tulu_pipeline.api.requests import ApiError, ApiRequest, Message, Reply
from tulu_pipeline.api.transport import open_sdk
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.budget import Budget
from tulu_pipeline.errors import StageFailed, StoreError
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import provider_access, read_settings
from tulu_pipeline.specs.benchmark import Completion, Item
from tulu_pipeline.specs.model_judge import ServedTruthJudges


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


def killed(folder: Path, wanted: dict[str, ApiRequest], state: str = "after it was created") -> None:
    """What a process leaves behind that sends a batch and is killed."""

    async def send() -> None:
        from tulu_pipeline.api.batch import _create, _upload

        sdk = open_sdk(provider_access("openai"), 2)
        sent, path = await _upload(sdk, {each.digest(): each for each in wanted.values()}, folder)
        if state != "before":
            await _create(sdk, sent, path)
        if state == "while it was written down":
            path.write_bytes(path.read_bytes()[:-3])
        await sdk.close()

    folder.mkdir(exist_ok=True)
    asyncio.run(send())


def test_a_line_of_a_batch_ends_at_its_newline_alone(client: Client, server: OpenAIServer) -> None:
    server.answer = lambda body: "one\u2028two\u2029three\x85four"
    answers = ask(client, requests(3))
    assert [each.samples[0].text for each in answers.values() if isinstance(each, Reply)] == [server.answer({})] * 3


@pytest.mark.parametrize("state", ["after it was created", "while it was written down", "before"])
def test_a_batch_that_was_under_way_at_a_kill_is_waited_for_and_not_sent_again(
    client: Client, server: OpenAIServer, tmp_path: Path, state: str
) -> None:
    killed(tmp_path / "api" / "batches", requests(4), state)
    with pytest.raises(StageFailed, match="4 of 5 requests are in a batch"):
        ask_all(client, requests(5), context(tmp_path, api_transport="requests"), name="judge[x]")
    answers = ask(client, requests(5), Budget(Decimal(1)))
    assert all(isinstance(each, Reply) for each in answers.values())
    assert len(server.batches) == 2  # the one of the four, and one for the fifth
    assert sum(server.charges.values()) == 5
    assert not list((tmp_path / "api" / "batches").glob("*.jsonl"))


@pytest.mark.timeout(60)
def test_an_interrupted_wait_ends_at_once_and_the_batch_is_found_again(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def interrupted() -> None:
        if server.batches:
            raise KeyboardInterrupt

    server.polls_of_batch = 10**9
    with monkeypatch.context() as patch:
        patch.setattr("tulu_pipeline.api.client.raise_if_asked", interrupted)
        with pytest.raises(KeyboardInterrupt), connected("openai", context(tmp_path)) as client:
            ask(client, requests(3))
    server.polls_of_batch = 0
    with connected("openai", context(tmp_path)) as client:
        assert all(isinstance(each, Reply) for each in ask(client, requests(3)).values())
    assert len(server.batches) == 1


def test_whoever_collects_the_batch_of_a_killed_run_records_all_of_its_replies(
    client: Client, server: OpenAIServer, tmp_path: Path
) -> None:
    killed(tmp_path / "api" / "batches", requests(4))
    wanted = requests(5)
    ask(client, {name: wanted[name] for name in ("r3", "r4")})  # shares one of the four
    assert all(isinstance(each, Reply) for each in ask(client, requests(4)).values())
    assert sum(server.charges.values()) == len(server.charges) == 5


def test_one_who_shares_requests_with_a_batch_under_way_waits_until_its_sender_has_them(
    client: Client, server: OpenAIServer
) -> None:
    server.polls_of_batch = 1_000_000
    wanted = requests(5)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(ask, client, requests(4), Budget(Decimal(1)))
        while not server.batches:
            time.sleep(0.01)
        second = threads.submit(ask, client, {name: wanted[name] for name in ("r3", "r4")})
        time.sleep(0.1)
        server.polls_of_batch = 1
        answers = [*first.result(timeout=30).values(), *second.result(timeout=30).values()]
    assert all(isinstance(each, Reply) for each in answers)
    assert sum(server.charges.values()) == len(server.charges) == 5
    assert len(server.batches) == 2


def test_two_who_ask_for_the_same_at_the_same_time_pay_once(client: Client, server: OpenAIServer) -> None:
    server.seconds = 0.2
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: ask(client, requests(4)), range(2))
    assert first == second
    assert all(isinstance(each, Reply) for each in first.values())
    assert sum(server.charges.values()) == 4


def test_a_store_that_takes_no_locks_is_an_error_before_a_batch_is_sent(
    client: Client, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)  # as NFS without lockd
    with pytest.raises(StoreError, match=os.strerror(errno.ENOLCK)):
        ask(client, requests(2))
    assert not server.files


def test_what_is_recorded_is_in_no_batch_even_where_a_kill_left_the_file(
    client: Client, server: OpenAIServer, tmp_path: Path
) -> None:
    ask(client, requests(4))
    killed(tmp_path / "api" / "batches", requests(4))
    assert client.in_batches(requests(4).values()) == 0
    answers, _ = ask_all(client, requests(4), context(tmp_path, api_transport="requests"), name="judge[x]")
    assert all(isinstance(each, Reply) for each in answers.values())


def test_a_server_that_stumbles_while_a_batch_is_waited_for_is_asked_again(
    client: Client, server: OpenAIServer
) -> None:
    server.stumbles = 2
    answers = ask(client, requests(2))
    assert all(isinstance(each, Reply) for each in answers.values())
    assert server.stumbles == 0
    assert len(server.batches) == 1


def test_a_batch_that_is_not_taken_says_why_and_is_not_sent_again(
    client: Client, server: OpenAIServer, tmp_path: Path
) -> None:
    server.batch_errors = [{"code": "token_limit_exceeded", "message": "too many tokens wait", "line": None}]
    budget = Budget(Decimal(1))
    with pytest.raises(StageFailed, match="batch `batch-1` has failed: `token_limit_exceeded`: too many tokens wait"):
        ask(client, requests(3), budget)
    assert len(server.batches) == 1
    assert budget.spent == budget.reserved == 0
    server.batch_errors = []
    assert all(isinstance(each, Reply) for each in ask(client, requests(3)).values())  # nothing stands in the way


def test_a_cancelled_batch_keeps_what_it_brought_and_is_not_sent_again_by_itself(
    client: Client, server: OpenAIServer
) -> None:
    server.batch_cuts = [("cancelled", 2)]
    budget = Budget(Decimal(1))
    with pytest.raises(StageFailed, match="was cancelled"):
        ask(client, requests(5), budget)
    assert len(server.batches) == 1
    assert budget.spent == server.charged > 0
    ask(client, requests(5))
    assert sum(server.charges.values()) == len(server.charges) == 5


def test_what_expired_goes_into_the_next_batch_and_says_so_where_there_is_none(
    client: Client, server: OpenAIServer
) -> None:
    server.batch_cuts = [("expired", 2), ("expired", 1), ("expired", 1)]
    answers = ask(client, requests(5))
    errors = {name: each for name, each in answers.items() if isinstance(each, ApiError)}
    assert {name: (each.kind, each.reason) for name, each in errors.items()} == {
        "r4": ("server", "the batch expired before")
    }
    assert sum(server.charges.values()) == len(server.charges) == 4


def test_a_batch_that_could_cost_more_than_is_left_is_not_sent(client: Client, server: OpenAIServer) -> None:
    answers = ask(client, requests(5), Budget(Decimal("0.001")))
    assert {each.kind for each in answers.values() if isinstance(each, ApiError)} == {"budget"}
    assert not server.files


def test_the_profile_chooses_batches(client: Client, server: OpenAIServer, tmp_path: Path) -> None:
    answers, spending = ask_all(client, requests(3), context(tmp_path), name="judge[x]")
    assert len(answers) == spending.asked == 3
    assert len(server.batches) == 1
    assert spending.cost_usd == server.charged


def test_judges_of_truth_go_by_a_batch_of_each_model_and_cost_what_each_costs(
    server: OpenAIServer, client: Client, tmp_path: Path
) -> None:
    server.answer = lambda body: {"text": " yes", "top_logprobs": ({" yes": -0.1, " no": -2.4},)}
    judge = ServedTruthJudges(truth="ft:davinci-002:a", information="ft:babbage-002:b")
    answered = [
        (
            Item(item_id=name, prompts=(), gold={"question": f"Is {name} odd?"}),
            Completion(item_id=name, texts=(f"It is {name}.",)),
        )
        for name in ("one", "two", "three", "four")
    ]
    (out := tmp_path / "out").mkdir()
    job = Job(
        name="judge[x]",
        params=judge,
        inputs={},
        sources={},
        out=out,
        work=tmp_path / "work",
        publish=lambda metrics: None,
    )
    metrics = ask_truth(job, context(tmp_path, api_slots=2), judge, lambda: iter(answered))
    sent = [server.files[batch["input_file_id"]].splitlines() for batch in server.batches.values()]
    models = [{json.loads(line)["body"]["model"] for line in lines} for lines in sent]
    assert models == [{"ft:davinci-002:a"}, {"ft:babbage-002:b"}]
    assert (metrics["true"], metrics["informative"], metrics["missing"]) == (4, 4, 0)
    assert metrics["answered_by"] == ["ft:babbage-002:b", "ft:davinci-002:a"]
    for _, reply in read_replies(tmp_path / "api" / "replies.jsonl"):
        tokens = reply.usage.prompt_tokens + reply.usage.completion_tokens
        price = {"ft:davinci-002:a": Decimal(12), "ft:babbage-002:b": Decimal("1.6")}[reply.model]
        assert Decimal(reply.cost_usd) == tokens * price / 1_000_000


def test_a_batch_of_two_models_is_not_even_sent(client: Client, server: OpenAIServer) -> None:
    other = {"other": replace(requests(1)["r0"], model="gpt-4o-2024-08-06")}
    with pytest.raises(ValueError, match="one model"):
        ask(client, requests(1) | other)
    assert not server.files


def test_a_provider_without_batches_says_so(client: Client, server: OpenAIServer, tmp_path: Path) -> None:
    server.no_batches = True
    with pytest.raises(StageFailed, match="status 404"):
        ask(client, requests(1))
