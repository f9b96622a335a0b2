"""The client against a server that misbehaves on demand: every request is answered once, or is an error."""

import asyncio
import base64
import errno
import fcntl
import json
import logging
import math
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest
from fakes.openai_server import KEY, Fault, OpenAIServer, openai_server

from tulu_pipeline.api.answers import Malformed, parse_reply
from tulu_pipeline.api.asking import ask_all
from tulu_pipeline.api.client import Client, Spending, connected
from tulu_pipeline.api.concurrency import Flow
from tulu_pipeline.api.prices import read_prices
from tulu_pipeline.api.replies import ReplyLog, read_replies, reply_log
from tulu_pipeline.api.requests import ApiError, ApiRequest, Message, Reply, Sample, Usage
from tulu_pipeline.api.retry import Patience, retry_after_seconds
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.budget import Budget
from tulu_pipeline.errors import BadInput, MissingOnMachine, StageFailed, StoreError, TuluError
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import provider_access, read_settings

QUICK = Patience(base_seconds=0.005, longest_seconds=0.02, attempt_seconds=5)
SECRET_PROMPT = "what nobody may read in a log"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with openai_server() as known:
        yield known


@pytest.fixture
def client(server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with connected("openai", context(tmp_path), QUICK) as found:
        yield found


def context(store: Path, api_slots: int = 16) -> RunContext:
    return RunContext(profile=Profile(api_slots=api_slots), settings=read_settings(str(store)))


def question(text: str, **changes: object) -> ApiRequest:
    request = ApiRequest(
        provider="openai", model="gpt-4-0314", messages=(Message(role="user", content=text),), max_tokens=20
    )
    return replace(request, **changes)  # type: ignore[arg-type]  # fields of the request


def ask(client: Client, *requests: ApiRequest, budget: Budget | None = None) -> list[Reply | ApiError]:
    named = ((str(index), request) for index, request in enumerate(requests))
    found = dict(client.ask(named, budget or Budget()))
    return [found[str(index)] for index in range(len(requests))]


def test_a_reply_that_is_recorded_is_not_asked_for_again(client: Client, server: OpenAIServer) -> None:
    first = ask(client, question("one"), question("two"), question("one"))
    again = ask(client, question("two"), question("one"))
    assert first[0] == first[2] == again[1]
    assert again[0] == first[1]
    assert len(server.asked) == 2
    assert isinstance(first[0], Reply)
    assert first[0].kind == "ok"
    assert Decimal(first[0].cost_usd) * 2 == server.charged


def test_every_field_of_a_request_decides_its_reply() -> None:
    base = question("one")
    others = [
        question("two"),
        *(
            replace(base, **{name: value})  # type: ignore[arg-type]  # fields of the request
            for name, value in {
                "provider": "local",
                "model": "gpt-4",
                "max_tokens": 21,
                "temperature": 0.5,
                "top_p": 0.9,
                "n": 2,
                "stop": ("x",),
                "seed": 1,
                "sample": 1,
                "logit_bias": {"362": 100},
                "top_logprobs": 5,
                "cap_name": "max_completion_tokens",
            }.items()
        ),
    ]
    assert len({each.digest() for each in (base, *others)}) == len(others) + 1


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [
        (Fault(status=429, code="rate_limit_exceeded", times=3), 4),
        (Fault(status=429, headers={"retry-after": "0.05"}), 2),
        (Fault(status=429, headers={"retry-after-ms": "40"}), 2),
        (Fault(status=500, times=2), 3),
        (Fault(status=503, body="<html>upstream</html>"), 2),
        (Fault(reset=True, charged=True), 2),
        (Fault(truncated=True), 2),
        (Fault(wrong=True, charged=True), 2),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_may_pass_is_tried_again(client: Client, server: OpenAIServer, fault: Fault, attempts: int) -> None:
    server.faults = [fault]
    (answer,) = ask(client, question("one"))
    assert isinstance(answer, Reply)
    assert answer.samples[0].text == "an answer"
    assert len(server.asked) == attempts


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault(status=401, code="invalid_api_key"), "auth"),
        (Fault(status=429, code="insufficient_quota"), "quota"),
        (Fault(status=400, code="context_length_exceeded"), "context_length"),
        (Fault(status=400, code="invalid_request_error"), "bad_request"),
        (Fault(status=413, code="too_large"), "bad_request"),
        (Fault(status=422, code="invalid"), "bad_request"),
        (Fault(status=404, code="model_not_found"), "not_found"),
        (Fault(status=402, message="Insufficient credits"), "quota"),
        (Fault(status=302, headers={"location": "/elsewhere"}), "unexpected"),
        (Fault(status=405), "unexpected"),
        (Fault(status=451, body="<html>"), "unexpected"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_pass_is_an_error_at_once(client: Client, server: OpenAIServer, fault: Fault, kind: str) -> None:
    server.faults = [fault]
    (answer,) = ask(client, question("one"))
    assert isinstance(answer, ApiError)
    assert (answer.kind, answer.attempts, len(server.asked)) == (kind, 1, 1)
    assert server.charged == 0


def test_an_error_that_never_passes_ends_as_an_error_and_is_tried_again_by_the_next_run(
    client: Client, server: OpenAIServer
) -> None:
    server.faults = [Fault(status=500, times=QUICK.attempts)]
    (answer,) = ask(client, question("one"))
    assert isinstance(answer, ApiError)
    assert (answer.kind, answer.attempts) == ("server", QUICK.attempts)
    (answer,) = ask(client, question("one"))
    assert isinstance(answer, Reply)


def test_an_empty_answer_is_an_answer_and_a_refusal_is_told_apart(client: Client, server: OpenAIServer) -> None:
    kinds = {
        "empty": {"text": ""},
        "no": {"text": None, "refusal": "I will not"},
        "cut": {"text": "as", "finish_reason": "length"},
    }
    server.answer = lambda body: kinds[body["messages"][0]["content"]]
    empty, refused, cut = ask(client, *map(question, kinds))
    assert isinstance(empty, Reply)
    assert (empty.kind, empty.samples) == ("ok", (Sample(text=""),))
    assert isinstance(refused, Reply)
    assert (refused.kind, refused.samples[0].refusal) == ("refused", "I will not")
    assert isinstance(cut, Reply)
    assert (cut.kind, cut.samples[0].finish_reason) == ("ok", "length")


def test_a_server_without_a_text_is_malformed_and_never_an_empty_answer(client: Client, server: OpenAIServer) -> None:
    server.answer = lambda body: {"text": None}
    (answer,) = ask(client, question("one"))
    assert isinstance(answer, ApiError)
    assert answer.kind == "malformed"


def test_after_the_money_is_gone_nothing_more_is_sent(client: Client, server: OpenAIServer) -> None:
    server.faults = [Fault(status=429, code="insufficient_quota", times=1000)]
    answers = ask(client, *(question(f"q{n}") for n in range(200)))
    kinds = {each.kind for each in answers if isinstance(each, ApiError)}
    assert len(answers) == 200
    assert kinds == {"quota", "stopped"}
    assert len(server.asked) < 60


@pytest.mark.parametrize("status", [302, 402, 405, 451])
def test_what_no_request_is_at_fault_for_fails_the_work_and_is_asked_for_the_next_time(
    client: Client, server: OpenAIServer, tmp_path: Path, status: int
) -> None:
    requests = {text: question(text) for text in ("one", "two", "three", "four")}
    server.faults = [Fault(status=status, message="Insufficient credits", match="three")]
    with pytest.raises(StageFailed, match="Insufficient credits"):
        ask_all(client, requests, context(tmp_path), name="judge/x")
    answers, _ = ask_all(client, requests, context(tmp_path), name="judge/x")
    assert all(isinstance(each, Reply) for each in answers.values())
    assert sum(server.charges.values()) == len(requests)


def test_a_storm_of_rate_limits_slows_the_client_down_and_loses_nothing(client: Client, server: OpenAIServer) -> None:
    server.capacity, server.seconds = 3, 0.01
    answers = ask(client, *(question(f"q{n}") for n in range(80)))
    assert all(isinstance(each, Reply) for each in answers)
    assert sum(server.charges.values()) == 80
    assert 0 < server.refused < 80  # it does not knock without end
    assert server.most_in_flight <= 16


def test_the_limit_grows_by_one_after_a_clean_window_and_is_halved_once_for_a_rate_limit() -> None:
    async def play() -> list[int]:
        flow, limits = Flow(cap=10), []
        turn = partial(flow.enter, 0.0, lambda: False)
        for _ in range(8 + 9 + 10):
            await flow.leave(await turn(), answered=True, limited=False)
        limits.append(flow.limit)  # 8, 9, 10: as many as may be
        together = [await turn() for _ in range(10)]
        for entered in together[:9]:
            await flow.leave(entered, answered=False, limited=True)
        limits.append(flow.limit)
        await flow.leave(together[9], answered=True, limited=False)  # sent before the halving: says nothing
        for _ in range(5):
            await flow.leave(await turn(), answered=True, limited=False)
        limits.append(flow.limit)
        for _ in range(5):
            await flow.leave(await turn(), answered=False, limited=True)
        return [*limits, flow.limit, flow.in_flight]

    assert asyncio.run(play()) == [10, 5, 6, 1, 0]


def test_a_long_retry_after_silences_all_requests(client: Client, server: OpenAIServer) -> None:
    server.faults = [Fault(status=429, headers={"retry-after": "1"})]
    started = time.monotonic()
    answers = ask(client, *(question(f"q{n}") for n in range(40)))
    assert all(isinstance(each, Reply) for each in answers)
    assert time.monotonic() - started >= 1


def test_waiting_for_ones_turn_does_not_count_against_the_deadline(
    client: Client, server: OpenAIServer, tmp_path: Path
) -> None:
    hasty, budget = replace(QUICK, deadline_seconds=0.3), Budget(Decimal(5))
    server.faults = [Fault(status=429, headers={"retry-after": "0.6"})]
    with connected("openai", context(tmp_path), hasty) as many:
        silenced = ask(many, *(question(f"q{n}") for n in range(30)), budget=budget)
    server.seconds = 0.15
    with connected("openai", context(tmp_path, api_slots=1), hasty) as one:
        queued = ask(one, *(question(f"r{n}") for n in range(5)), budget=budget)
    assert all(isinstance(each, Reply) for each in (*silenced, *queued))
    assert budget.spent == server.charged


def test_rate_limits_are_no_failed_attempts(client: Client, server: OpenAIServer, tmp_path: Path) -> None:
    refusals = 2 * QUICK.attempts
    server.faults = [Fault(status=429, headers={"retry-after": "0"}, times=refusals)]
    started = time.monotonic()
    with connected("openai", context(tmp_path), replace(QUICK, base_seconds=0.05, longest_seconds=0.05)) as patient:
        (answer,) = ask(patient, question("one"))
    assert isinstance(answer, Reply)
    assert len(server.asked) == refusals + 1
    assert time.monotonic() - started > refusals * 0.05 / 4  # half of the longest on average


def test_rate_limits_without_end_end_on_the_deadline(client: Client, server: OpenAIServer, tmp_path: Path) -> None:
    server.faults = [Fault(status=429, headers={"retry-after-ms": "1"}, times=1_000_000)]
    with connected("openai", context(tmp_path), replace(QUICK, attempts=2, deadline_seconds=0.5)) as hasty:
        (answer,) = ask(hasty, question("one"))
    assert isinstance(answer, ApiError)
    assert answer.kind == "rate_limit"
    assert 2 < answer.attempts == len(server.asked)


def test_the_wait_between_attempts_has_an_end_however_many_there_were() -> None:
    dice = random.Random(0)
    assert all(0 <= Patience().wait_seconds(attempt, dice) <= 60 for attempt in (1, 10, 5000))


def test_retry_after_is_read_in_all_its_forms() -> None:
    now = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
    assert retry_after_seconds({"retry-after": "7200"}, now) == 7200
    assert retry_after_seconds({"retry-after": "1.5"}, now) == 1.5
    assert retry_after_seconds({"retry-after-ms": "250", "retry-after": "9"}, now) == 0.25
    assert retry_after_seconds({"retry-after": "Sun, 22 Nov 2026 12:10:00 GMT"}, now) == 600
    assert retry_after_seconds({"retry-after": "Sun, 22 Nov 2026 11:00:00 GMT"}, now) == 0
    for odd in ("soon", "nan", "inf", "-5", ""):
        assert retry_after_seconds({"retry-after": odd}, now) in (None, 0)


def test_a_server_that_is_too_slow_is_an_error_after_the_deadline(
    server: OpenAIServer, tmp_path: Path, client: Client
) -> None:
    server.faults = [Fault(after_seconds=8, times=100)]
    hasty = replace(QUICK, attempt_seconds=0.1, deadline_seconds=1.5)
    started = time.monotonic()
    with connected("openai", context(tmp_path), hasty) as impatient:
        (answer,) = ask(impatient, question("one"))
        assert isinstance(answer, ApiError)
        assert answer.kind == "timeout"
        assert answer.attempts >= 2
        assert time.monotonic() - started < 8


def test_nothing_but_the_request_decides_what_is_sent(client: Client, server: OpenAIServer) -> None:
    request = ApiRequest(
        provider="openai", model="gpt-4-0314", prompt="Q: a\nA: b\nTrue:", max_tokens=1, top_logprobs=2, stop=("\n",)
    )
    server.answer = lambda body: {"text": " yes", "top_logprobs": [{" yes": -0.1, " no": -2.5}]}
    (answer,) = ask(client, request)
    assert isinstance(answer, Reply)
    assert answer.samples[0].logprobs == ({" yes": -0.1, " no": -2.5},)
    assert server.asked[0].path == "/completions"
    assert server.asked[0].body == {
        "model": "gpt-4-0314",
        "prompt": "Q: a\nA: b\nTrue:",
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": 2,
        "stop": ["\n"],
    }


def test_of_tokens_that_are_alike_as_text_the_likelier_counts() -> None:
    places = [{"token": " A", "top_logprobs": [{"token": "�", "logprob": -1}, {"token": "�", "logprob": -3}]}]
    choice = {"message": {"content": " A"}, "logprobs": {"content": places}}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    assert parse_reply(body, question("one"), "0" * 64).samples[0].logprobs == ({"�": -1.0},)


def test_a_token_that_cannot_come_is_not_among_the_likeliest(client: Client, server: OpenAIServer) -> None:
    server.answer = lambda body: {"text": " yes", "top_logprobs": [{" yes": -0.1, " no": -math.inf}]}
    chat, completion = question("one", top_logprobs=2), question("", messages=(), prompt="two", top_logprobs=2)
    for _ in range(2):  # the second time from the record
        for answer in ask(client, chat, completion):
            assert isinstance(answer, Reply)
            assert answer.samples[0].logprobs == ({" yes": -0.1},)
    assert len(server.asked) == 2


@pytest.mark.parametrize("odd", [math.nan, math.inf, 10**400], ids=["nan", "infinite", "huge"])
def test_a_log_probability_that_is_no_number_is_malformed(odd: float) -> None:
    choice = {"text": " A", "logprobs": {"top_logprobs": [{" A": odd}]}}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})
    with pytest.raises(Malformed):
        parse_reply(body, question("", messages=(), prompt="x", top_logprobs=2), "0" * 64)


def test_a_count_of_tokens_without_end_is_malformed() -> None:
    body = json.dumps({"choices": [{"message": {"content": "A"}}], "usage": {"prompt_tokens": math.inf}})
    with pytest.raises(Malformed):
        parse_reply(body, question("one"), "0" * 64)


def test_two_clients_that_want_the_same_pay_once(
    server: OpenAIServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.seconds = 0.05
    requests = [question(f"q{n}") for n in range(20)]
    answers: list[list[Reply | ApiError]] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(client, *requests))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers[0] == answers[1] == answers[2]
    assert sum(server.charges.values()) == 20


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS])
def test_a_store_that_takes_no_locks_is_an_error_before_anything_is_paid(
    client: Client, server: OpenAIServer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "lockf", refuse)  # as NFS without lockd, and Lustre without flock
    with pytest.raises(StoreError, match=os.strerror(number)) as told:
        ask(client, question("one"))
    assert "locks" in told.value.fix
    assert not server.asked


@contextmanager
def claimed_by_another(folder: Path, digest: str) -> Iterator[None]:
    claim = "import sys; from pathlib import Path; from tulu_pipeline.api.replies import ReplyLog\n"
    claim += "with ReplyLog(Path(sys.argv[1])).claimed(sys.argv[2]) as mine: print(mine, flush=True); input()"
    command = [sys.executable, "-c", claim, str(folder), digest]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        yield
        other.communicate("\n")


def test_a_claim_is_one_process_s_until_it_ends(tmp_path: Path) -> None:
    digest = question("one").digest()
    replies = ReplyLog(tmp_path)
    with (
        claimed_by_another(tmp_path, digest),
        replies.claimed(digest) as mine,
        replies.claimed(question("two").digest()) as another,
    ):
        assert (mine, another) == (False, True)
    with replies.claimed(digest) as mine:
        assert mine
    replies.close()


def test_an_end_does_not_wait_for_what_is_not_sent(client: Client, server: OpenAIServer, tmp_path: Path) -> None:
    server.faults = [
        Fault(status=429, headers={"retry-after": "45"}, match="limited"),
        Fault(status=402, after_seconds=0.5, match="poor"),
    ]
    started = time.monotonic()
    with claimed_by_another(tmp_path / "api", question("held").digest()):
        answers = ask(client, question("limited"), question("held"), question("poor"))
        assert time.monotonic() - started < 30
    assert [each.kind for each in answers] == ["stopped", "stopped", "quota"]


def test_a_torn_line_is_cut_off_and_everything_before_it_stays(
    client: Client, server: OpenAIServer, tmp_path: Path
) -> None:
    first, _ = ask(client, question("one"), question("two"))
    path = tmp_path / "api" / "replies.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"request_sha256":"' + b"0" * 64 + b'","sche')
    fresh = ReplyLog(tmp_path / "api")
    assert isinstance(first, Reply)
    assert fresh.find(first.request_sha256) == first
    assert len(fresh) == 2
    (third,) = ask(client, question("three"))
    assert isinstance(third, Reply)
    assert path.read_bytes().startswith(whole)
    assert [reply for _, reply in read_replies(path)][-1] == third
    assert fresh.find(third.request_sha256) == third
    assert len(server.asked) == 3
    fresh.close()


def test_a_line_of_nobody_in_the_middle_costs_no_other_reply(tmp_path: Path) -> None:
    replies = ReplyLog(tmp_path)
    known = []
    for text in ("one", "two"):
        request = question(text)
        usage = Usage(prompt_tokens=1, completion_tokens=1)
        reply = Reply(request_sha256=request.digest(), model="m", samples=(Sample(text=text),), usage=usage)
        replies.add(request, reply)
        known.append(reply)
        with replies.path.open("ab") as lines:
            lines.write(b"\0\0\0\n")
    replies.close()
    fresh = ReplyLog(tmp_path)
    assert [fresh.find(each.request_sha256) for each in known] == known
    assert [reply for _, reply in read_replies(fresh.path)] == known
    fresh.close()


def test_neither_prompts_nor_keys_nor_addresses_enter_the_log(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url.replace("://", "://someone:hidden@"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.authorizations.add("Basic " + base64.b64encode(b"someone:hidden").decode())
    server.faults = [Fault(status=500), Fault(reset=True)]
    with caplog.at_level(logging.DEBUG, logger="tulu_pipeline"), connected("openai", context(tmp_path), QUICK) as found:
        (answer,) = ask(found, question(SECRET_PROMPT))
    assert isinstance(answer, Reply)
    assert "trying again" in caplog.text
    recorded = (tmp_path / "api" / "replies.jsonl").read_text()
    assert SECRET_PROMPT in recorded  # it is the record, for its owner alone
    assert (tmp_path / "api" / "replies.jsonl").stat().st_mode & 0o077 == 0
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("tulu_pipeline"))
    for secret in (SECRET_PROMPT, KEY, "hidden"):
        assert secret not in ours
    for secret in (KEY, "hidden"):
        assert secret not in recorded
    assert repr(provider_access("openai")).find(KEY) < 0


def test_a_model_without_a_price_is_refused_where_there_is_a_budget(client: Client, server: OpenAIServer) -> None:
    server.models.append("gpt-unheard-of")
    request = question("one", model="gpt-unheard-of")
    with pytest.raises(BadInput, match="gpt-unheard-of"):
        ask(client, request, budget=Budget(Decimal(5)))
    assert not server.asked
    (answer,) = ask(client, request)
    assert isinstance(answer, Reply)
    assert answer.cost_usd == ""


def test_a_table_of_ones_own_goes_before_the_projects(tmp_path: Path) -> None:
    own = tmp_path / "prices.toml"
    own.write_text('read = 2027-01-01\n[[price]]\nmodel = "gpt-4-0314"\ninput = 1\noutput = 2.5\ncontext_tokens = 9\n')
    price = read_prices(own).find("openai", "gpt-4-0314")
    assert price is not None
    assert price.cost(Usage(prompt_tokens=1_000_000, completion_tokens=2_000_000)) == 6
    assert read_prices(own).find("openai", "gpt-4-0613") == read_prices().find("openai", "gpt-4-0613")
    for broken in (
        "read = 1\nprice = []",
        "x",
        "read = 2027-01-01\n[[price]]\ninput = 1\noutput = 1\ncontext_tokens = 1",
    ):
        own.write_text(broken)
        with pytest.raises(BadInput):
            read_prices(own)


def test_an_estimate_counts_only_what_is_not_recorded(client: Client) -> None:
    requests = [question(f"q{n}") for n in range(10)]
    assert client.estimate(requests)[0] == 10
    ask(client, *requests[:4])
    count, cost = client.estimate(requests)
    assert count == 6
    assert cost is not None
    assert 0 < cost < Decimal("0.1")


def test_without_a_key_or_an_address_it_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "LOCAL_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MissingOnMachine, match="no key"), connected("openai", context(tmp_path)):
        pass
    with pytest.raises(MissingOnMachine, match="no address"), connected("local", context(tmp_path)):
        pass


@pytest.mark.parametrize(
    ("proxy", "error", "what"),
    [
        ("socks5://127.0.0.1:9", MissingOnMachine, "socksio"),
        ("ftp://someone:hidden@127.0.0.1:9", BadInput, "scheme"),
        ("http://127.0.0.1:none", BadInput, "port"),
    ],
)
def test_a_client_that_cannot_be_built_is_an_error_and_no_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str, error: type[TuluError], what: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ALL_PROXY", proxy)
    if what == "socksio":
        monkeypatch.setitem(sys.modules, "socksio", None)  # as where it is not installed
    for _ in range(2):  # the next to ask is told as well
        with pytest.raises(error, match=f"(?i){what}") as told, connected("openai", context(tmp_path)):
            pass
        assert "hidden" not in str(told.value)
        assert "ALL_PROXY" in told.value.fix


def test_spending_tells_what_was_paid_now(client: Client, server: OpenAIServer) -> None:
    ask(client, question("one"))
    before, spending = server.charged, Spending()
    list(client.ask([("a", question("one")), ("b", question("two"))], Budget(), spending))
    assert (spending.known, spending.asked, spending.models) == (1, 1, {"gpt-4-0314"})
    assert spending.cost_usd == server.charged - before


def test_one_log_serves_one_folder(tmp_path: Path) -> None:
    assert reply_log(tmp_path) is reply_log(tmp_path)
