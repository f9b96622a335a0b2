"""What a hub answers, in our words; and patience with answers that pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

from tulu_pipeline.errors import BadInput, StageFailed, TuluError, Unreachable

log = logging.getLogger(__name__)

AGAIN = "run the same command again; what the hub has by then is not sent again"
_TRIES = 4
_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 120.0
_TIMEOUT_SECONDS = 60.0  # in which a byte must come or go; the library itself would wait forever
_WILL_PASS = frozenset({408, 412, 425, 429, 500, 502, 503, 504})  # 412: somebody else's commit came in between
_LONGEST_ANSWER = 300
T = TypeVar("T")


def patiently(ask: Callable[[], T], repo: str, where: str) -> T:
    """What `ask` gives; errors that pass are waited for, as long as the hub says.

    Args:
        ask: calls `huggingface_hub`; may be called several times.
        repo: `owner/name`, for messages.
        where: address, for messages.

    Raises:
        BadInput: the hub refuses the token or the repository.
        Unreachable: no answer, or one that passes, in several tries.
        StageFailed: any other refusal.
    """
    import httpx2
    from huggingface_hub import get_session
    from huggingface_hub.errors import HfHubHTTPError

    failures = 0
    while True:
        try:
            get_session().timeout = httpx2.Timeout(_TIMEOUT_SECONDS)
            return ask()
        except TuluError:
            raise
        except (OSError, ValueError, RuntimeError, httpx2.HTTPError) as error:
            cause = _root(error, (HfHubHTTPError, httpx2.TransportError))
            failures += 1
            told = in_our_words(cause, repo, where)
            if failures == _TRIES or not isinstance(told, Unreachable):
                raise told from error
            pause_seconds = _pause_seconds(cause, failures)
            log.warning("%s: %s; again in %.0f s", repo, told.what, pause_seconds)
            time.sleep(pause_seconds)


def in_our_words(error: BaseException, repo: str, where: str) -> TuluError:
    """The error of a call as one of ours; Unreachable where trying again may help."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return BadInput("HF_HUB_OFFLINE forbids to reach the hub", where, "unset HF_HUB_OFFLINE")
    if isinstance(error, httpx2.TransportError):
        return Unreachable(f"the hub does not answer: {str(error) or type(error).__name__}", where, AGAIN)
    if not isinstance(error, HfHubHTTPError):
        return StageFailed(f"{type(error).__name__}: {error}", where, AGAIN)
    status, said = error.response.status_code, _said(error)
    if status == 401:
        return BadInput(f"the hub refuses the token{said}", where, "set HF_TOKEN to one that may write there")
    if status == 403:
        fix = "use a token with write access to that owner, or another --to"
        return BadInput(f"the token may not write to `{repo}`{said}", where, fix)
    if status == 404:
        return BadInput(f"the hub knows no `{repo}`{said}", where, "check the owner in --to, and HF_ENDPOINT")
    kind = Unreachable if status in _WILL_PASS else StageFailed
    return kind(f"the hub answered {status}{said}", where, AGAIN)


def _root(error: BaseException, kinds: tuple[type[BaseException], ...]) -> BaseException:
    """The first of `kinds` among an error and its causes; else the error."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, kinds):
            return found
        found = found.__cause__
    return error


def _pause_seconds(error: BaseException, failures: int) -> float:
    response = getattr(error, "response", None)
    after = "" if response is None else str(response.headers.get("retry-after", ""))
    wanted = float(after) if after.isdigit() else _PAUSE_SECONDS * 2 ** (failures - 1)
    return min(wanted, _LONGEST_PAUSE_SECONDS)


def _said(error: Any) -> str:
    """The server's own words, where it has some."""
    words = " ".join(str(error.server_message or "").split())
    return f": {words[:_LONGEST_ANSWER]}" if words else ""
