"""One attempt at one request, through the SDK: an answer or a fault. It never tries again by itself."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from tulu_pipeline.api.answers import Malformed, parse_reply
from tulu_pipeline.api.requests import ApiRequest, Reply
from tulu_pipeline.api.retry import Fault, fault_of_status
from tulu_pipeline.errors import BadInput, MissingOnMachine, StageFailed, Unreachable
from tulu_pipeline.settings import ProviderAccess

if TYPE_CHECKING:
    from openai import AsyncOpenAI

T = TypeVar("T")
_PROXIES = "`ALL_PROXY`, `HTTPS_PROXY` and `HTTP_PROXY`"


def open_sdk(access: ProviderAccess, in_flight: int) -> AsyncOpenAI:
    """The SDK's client, built in any thread; to be closed in the event loop that uses it.

    Raises:
        MissingOnMachine: a library that the environment's proxy needs.
        BadInput: the provider's address, or a proxy or certificates of the environment, that cannot be used.
    """
    try:
        import httpx2
        from openai import AsyncOpenAI, DefaultAsyncHttpxClient

        limits = httpx2.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
        http_client = DefaultAsyncHttpxClient(limits=limits, follow_redirects=False)
        key = access.key or "none"  # one must be there; a server of one's own looks at none
        return AsyncOpenAI(api_key=key, base_url=access.base_url, max_retries=0, http_client=http_client)
    except ImportError as error:
        raise MissingOnMachine(str(error), _way(access), f"install it, or unset {_PROXIES}") from error
    except (ValueError, OSError, httpx2.InvalidURL) as error:
        fix = f"look at that address, at {_PROXIES}, and at `SSL_CERT_FILE`"
        raise BadInput(f"no client can be built: {error}", _way(access), fix) from error


async def attempt(sdk: AsyncOpenAI, request: ApiRequest, digest: str, timeout_seconds: float) -> Reply | Fault:
    """Send a request once."""
    import httpx2
    import openai

    try:
        response = await sdk.post(
            request.endpoint,
            body=request.body(),
            cast_to=httpx2.Response,
            options={"timeout": timeout_seconds},
        )
        return parse_reply(response.content.decode(), request, digest)
    except openai.APIStatusError as error:
        return fault_of_status(error.status_code, _headers(error.response), error.response.text)
    except openai.APITimeoutError:
        return Fault(kind="timeout", reason=f"no answer in {timeout_seconds:.0f} s", may_have_cost=True)
    except openai.APIConnectionError as error:
        cause = error.__cause__ or error
        return Fault(kind="connection", reason=type(cause).__name__, may_have_cost=not _never_sent(cause))
    except (Malformed, UnicodeDecodeError) as error:
        return Fault(kind="malformed", reason=str(error), may_have_cost=True)


async def telling_faults(work: Awaitable[T], provider: str) -> T:
    """Do it; what the SDK raises is told in our words.

    Raises:
        Unreachable: nobody answered. StageFailed: the server does not take it.
    """
    import openai

    try:
        return await work
    except openai.APIStatusError as error:
        fault = fault_of_status(error.status_code, _headers(error.response), error.response.text)
        raise StageFailed(fault.reason, f"provider `{provider}`", "mend what it says, then the same command") from error
    except openai.APIConnectionError as error:
        what = f"no answer: {type(error.__cause__ or error).__name__}"
        raise Unreachable(what, f"provider `{provider}`", "run the same command again: a batch is kept") from error


def _way(access: ProviderAccess) -> str:
    return f"the way to {access.base_url.rpartition('@')[2]}"  # without credentials


def _never_sent(error: BaseException) -> bool:
    """Whether no connection came about, so that nobody can have generated anything."""
    import httpx2

    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


def _headers(response: Any) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}
