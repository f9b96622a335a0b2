"""What is asked of a server, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tulu_pipeline.artifacts.canonical import canonical_json, sha256_text

Role = Literal["system", "user", "assistant"]
ErrorKind = Literal[
    "auth",  # no key, a wrong one, or one that may not use the model
    "bad_request",  # the server does not take it
    "budget",  # it could cost more than is left
    "connection",  # refused, reset, no such host
    "context_length",  # the prompt is longer than the model's context
    "malformed",  # an answer that is none
    "not_found",  # no such model
    "quota",  # the account has no money left
    "rate_limit",  # too many requests
    "server",  # an error of the server's own
    "stopped",  # not sent, because an earlier error concerns all
    "timeout",  # nothing came in time
    "unexpected",  # a status that is no answer to such a request: a redirection, a method not allowed
]
# After one of these nothing that is still to be sent can succeed.
HOPELESS: frozenset[ErrorKind] = frozenset({"auth", "budget", "not_found", "quota", "unexpected"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """One request; all of it is identity. Where the provider is reached, and with which key, is not.

    Attributes:
        provider: who serves the model: `openai`, or a name of one's own (see `api.access`).
        model: as the provider calls it; a dated snapshot where there is one.
        messages: of a chat. prompt: of a text completion; one of the two is there.
        max_tokens: cap on generated tokens of each sample; None leaves it to the server.
        temperature, top_p: None leaves them to the server; some models take neither.
        n: samples wanted in one request.
        stop: strings that end a sample.
        seed: None for none. sample: tells apart requests that are otherwise alike, and is not sent.
        logit_bias: token id to what is added to its logit.
        top_logprobs: how many of the likeliest tokens are told at each place; None for none.
        cap_name: what the server calls `max_tokens`.
    """

    provider: str
    model: str
    messages: tuple[Message, ...] = ()
    prompt: str = ""
    max_tokens: int | None = None
    temperature: float | None = 0.0
    top_p: float | None = None
    n: int = 1
    stop: tuple[str, ...] = ()
    seed: int | None = None
    sample: int = 0
    logit_bias: Mapping[str, int] = field(default_factory=dict)
    top_logprobs: int | None = None
    cap_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"

    def digest(self) -> str:
        """What its reply is recorded under.

        Raises:
            BadInput: a text that is no Unicode.
        """
        return sha256_text(canonical_json(self))

    @property
    def endpoint(self) -> Literal["/chat/completions", "/completions"]:
        """Where it is sent, below the base URL."""
        return "/chat/completions" if self.messages else "/completions"

    def body(self) -> dict[str, object]:
        """What is sent: only what was said."""
        fields: dict[str, object] = {"model": self.model}
        if self.messages:
            fields["messages"] = [
                {"role": each.role, "content": each.content} | ({"name": each.name} if each.name else {})
                for each in self.messages
            ]
        else:
            fields["prompt"] = self.prompt
        optional = {
            self.cap_name: self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "n": self.n if self.n != 1 else None,
            "stop": list(self.stop) or None,
            "seed": self.seed,
            "logit_bias": dict(self.logit_bias) or None,
        }
        if self.top_logprobs is not None:
            optional |= (
                {"logprobs": True, "top_logprobs": self.top_logprobs}
                if self.messages
                else {"logprobs": self.top_logprobs}
            )
        return fields | {name: value for name, value in optional.items() if value is not None}

    def text_bytes(self) -> int:
        """Bytes of all its texts; a tokenizer of bytes makes no more tokens of them."""
        texts = [self.prompt, *(text for each in self.messages for text in (each.role, each.name, each.content))]
        return sum(len(text.encode()) for text in texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One of the samples of a reply.

    Attributes:
        finish_reason: the server's word: "stop", "length", "content_filter".
        refusal: what the model said instead of an answer; "" where it answered.
        logprobs: at each place the likeliest tokens with their log probabilities, all finite; empty where none were
            asked for.
    """

    text: str
    finish_reason: str = "stop"
    refusal: str = ""
    logprobs: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the server counted them; `cached_tokens` are among the prompt's."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a server answered.

    Attributes:
        request_sha256: the request's digest.
        model: what answered, in the server's words.
        cost_usd: by the price table, as decimal digits; "" where the model has no price.
        created: when, ISO 8601 in UTC.
    """

    request_sha256: str
    model: str
    samples: tuple[Sample, ...]
    usage: Usage
    response_id: str = ""
    system_fingerprint: str = ""
    cost_usd: str = ""
    created: str = ""

    @property
    def kind(self) -> Literal["ok", "refused"]:
        """`refused` where a sample is no answer but a refusal."""
        return (
            "refused" if any(each.refusal or each.finish_reason == "content_filter" for each in self.samples) else "ok"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiError:
    """A request that was not answered. Never an empty text."""

    kind: ErrorKind
    reason: str
    attempts: int = 0
