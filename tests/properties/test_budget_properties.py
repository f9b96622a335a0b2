"""Whatever is asked, however the server fails: it never charges more than the budget, and no reply twice."""

from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from fakes.openai_server import KEY, Fault, openai_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tulu_pipeline.api.client import connected
from tulu_pipeline.api.requests import ApiError, ApiRequest, Message, Reply
from tulu_pipeline.api.retry import Patience
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.budget import Budget
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings

QUICK = Patience(base_seconds=0.001, longest_seconds=0.002, attempt_seconds=5, attempts=4)
FAULTS = st.sampled_from(
    [
        Fault(status=429),
        Fault(status=429, headers={"retry-after-ms": "1"}),
        Fault(status=500),
        Fault(status=502, body="<html>", charged=True),
        Fault(reset=True, charged=True),
        Fault(truncated=True, charged=True),
        Fault(wrong=True, charged=True),
        Fault(status=400, code="context_length_exceeded"),
    ]
)
TEXTS = st.lists(st.text(max_size=60).filter(str.isprintable), min_size=1, max_size=25)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=TEXTS,
    longest=st.integers(1, 60),
    samples=st.integers(1, 3),
    cents=st.decimals("0.01", "12", places=2),
    faults=st.lists(FAULTS, max_size=12),
    slots=st.sampled_from([1, 3, 16]),
)
def test_the_server_never_charges_more_than_the_budget(
    texts: list[str], longest: int, samples: int, cents: Decimal, faults: list[Fault], slots: int
) -> None:
    requests = [
        ApiRequest(
            provider="openai",
            model="gpt-4-0314",
            messages=(Message(role="user", content=text),),
            max_tokens=longest,
            n=samples,
        )
        for text in texts
    ]
    budget = Budget(cents / 100)
    with openai_server() as server, TemporaryDirectory() as store, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        patch.setenv("OPENAI_API_KEY", KEY)
        server.faults = list(faults)
        server.answer = lambda body: {"text": "x" * (4 * body["max_tokens"]), "tokens": body["max_tokens"]}
        ctx = RunContext(profile=Profile(api_slots=slots), settings=read_settings(store))
        for _ in range(2):  # the second run takes what the first has paid for
            with connected("openai", ctx, QUICK) as client:
                answers = dict(client.ask(((str(n), each) for n, each in enumerate(requests)), budget))
            assert len(answers) == len(requests)
            assert server.charged <= budget.spent <= (budget.max_usd or 0)
            assert budget.reserved == 0
        recorded = {each.request_sha256 for each in answers.values() if isinstance(each, Reply)}
        lost = sum(fault.charged for fault in faults)
        assert sum(server.charges.values()) <= len(recorded) + lost
        for answer in answers.values():
            assert isinstance(answer, Reply | ApiError)
            assert not isinstance(answer, Reply) or answer.samples[0].text == "x" * (4 * longest)
        assert Path(store, "api", "replies.jsonl").exists()
