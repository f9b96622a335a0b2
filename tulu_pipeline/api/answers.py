"""From a server's JSON to a reply, or to the reason why it is none."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tulu_pipeline.api.requests import ApiRequest, Reply, Sample, Usage
from tulu_pipeline.artifacts.json_lines import whole_characters

_SHOWN = 120


class Malformed(Exception):
    """An answer that is none; the text says why."""


def parse_reply(text: str, request: ApiRequest, digest: str) -> Reply:
    """The reply in a body. Half a character, which a server can spell in JSON, becomes U+FFFD.

    Raises:
        Malformed: no JSON, not the fields of the endpoint, or not as many samples as were asked for.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise Malformed(f"no JSON: {error}"[:_SHOWN]) from error
    try:
        samples = tuple(_sample(each, chat=bool(request.messages)) for each in _in_order(body["choices"]))
        usage = _usage(body["usage"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise Malformed(f"not what {request.endpoint} answers: {type(error).__name__}: {error}"[:_SHOWN]) from error
    if len(samples) != request.n:
        raise Malformed(f"{len(samples)} samples where {request.n} were asked for")
    return Reply(
        request_sha256=digest,
        model=whole_characters(str(body.get("model") or "")),
        samples=samples,
        usage=usage,
        response_id=whole_characters(str(body.get("id") or "")),
        system_fingerprint=whole_characters(str(body.get("system_fingerprint") or "")),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _in_order(choices: Any) -> list[Any]:
    if not isinstance(choices, list):
        raise TypeError("`choices` is no list")
    return sorted(choices, key=lambda choice: int(choice.get("index", 0)))


def _sample(choice: Mapping[str, Any], *, chat: bool) -> Sample:
    finish_reason = whole_characters(str(choice.get("finish_reason") or "stop"))
    if not chat:
        return Sample(
            text=_text(choice["text"]),
            finish_reason=finish_reason,
            logprobs=_of_completion(choice.get("logprobs")),
        )
    message = choice["message"]
    refusal, content = message.get("refusal") or "", message.get("content")
    if content is None and (refusal or finish_reason == "content_filter"):
        content = ""
    return Sample(
        text=_text(content),
        finish_reason=finish_reason,
        refusal=_text(refusal),
        logprobs=_of_chat(choice.get("logprobs")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a {type(value).__name__} where a text belongs")
    return whole_characters(value)


def _of_chat(logprobs: Any) -> tuple[Mapping[str, float], ...]:
    places = (logprobs or {}).get("content") or ()
    return tuple(_likeliest((top["token"], float(top["logprob"])) for top in place["top_logprobs"]) for place in places)


def _of_completion(logprobs: Any) -> tuple[Mapping[str, float], ...]:
    places = (logprobs or {}).get("top_logprobs") or ()
    return tuple(_likeliest((token, float(value)) for token, value in (place or {}).items()) for place in places)


def _likeliest(told: Iterable[tuple[str, float]]) -> dict[str, float]:
    """By text: several tokens may have one, such as the halves of a character; without those that cannot come."""
    found: dict[str, float] = {}
    for token, value in ((_text(token), value) for token, value in told):
        if value == -math.inf:
            continue
        if not math.isfinite(value):
            raise ValueError(f"a log probability of {value}")
        found[token] = max(value, found.get(token, value))
    return found


def _usage(usage: Mapping[str, Any]) -> Usage:
    counted = Usage(
        prompt_tokens=int(usage["prompt_tokens"]),
        completion_tokens=int(usage.get("completion_tokens") or 0),
        cached_tokens=int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0),
    )
    if min(counted.prompt_tokens, counted.completion_tokens) < 0:
        raise ValueError("a negative number of tokens")
    return counted
