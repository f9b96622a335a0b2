"""Items as requests to a served model, and its replies as completions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from tulu_pipeline.api.requests import ApiRequest, Message, Reply, Sample
from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.inference.sampling import request_seed
from tulu_pipeline.specs.api_model import ApiModel, GroupLimit
from tulu_pipeline.specs.benchmark import Completion, Item, Sampling

_BIAS = 100  # the most that the API takes
_TOP_LOGPROBS = 20  # likewise


def request_of(item: Item, benchmark: str, model: ApiModel, sampling: Sampling) -> ApiRequest:
    """What a model is asked: one message, the item's best prompt as an untuned model gets it.

    What is drawn has the seed of the item's first sample: samples of an item come in one request, which takes one seed.
    """
    text = model.prefixes.get(benchmark, "") + render_prompt(item.prompts[0], item.cue, tuned=False)
    messages = (Message(role="user", content=text),)
    if not item.choices:
        return ApiRequest(
            provider=model.provider,
            model=model.model,
            messages=messages,
            max_tokens=sampling.max_new_tokens if model.capped else None,
            temperature=sampling.temperature,
            top_p=None if sampling.top_p == 1 else sampling.top_p,
            n=sampling.samples,
            seed=request_seed(item.item_id, 0, sampling) if model.takes_seed else None,
            cap_name=model.cap_name,
        )
    biased = model.letters == "bias"
    return ApiRequest(
        provider=model.provider,
        model=model.model,
        messages=messages,
        max_tokens=1,
        logit_bias={str(model.letter_ids[letter]): _BIAS for letter in item.choices} if biased else {},
        top_logprobs=None if biased else _TOP_LOGPROBS,
        cap_name=model.cap_name,
    )


def completion_of(item: Item, benchmark: str, model: ApiModel, request: ApiRequest, reply: Reply) -> Completion:
    """The reply as an engine would have answered.

    A letter that was chosen by bias is a text: the server tells no probabilities then.

    Raises:
        StageFailed: a letter has no log probability.
    """
    by_logprobs = bool(item.choices) and model.letters == "logprobs"
    texts = tuple(_text(sample, first_line=benchmark in model.first_line) for sample in reply.samples)
    return Completion(
        item_id=item.item_id,
        texts=() if by_logprobs else texts,
        choice_logprobs=_letters(reply.samples[0], item) if by_logprobs else {},
        finish_reasons=() if item.choices else tuple(_reason(sample) for sample in reply.samples),
        completion_tokens=_shares(reply.usage.completion_tokens, len(reply.samples)) if texts else (),
        prompt=request.messages[0].content,
        prompt_tokens=reply.usage.prompt_tokens,
    )


def limited(items: Callable[[], Iterable[Item]], limit: GroupLimit | None) -> Iterator[Item]:
    """At most so many items of each group, in their own order; `items` is called twice where there is a limit."""
    if limit is None:
        yield from items()
        return
    sizes = Counter(item.group for item in items())
    kept = {group: _kept(size, limit) for group, size in sizes.items()}
    seen: Counter[str] = Counter()
    for item in items():
        if seen[item.group] in kept[item.group]:
            yield item
        seen[item.group] += 1


def _kept(size: int, limit: GroupLimit) -> frozenset[int]:
    if limit.rule == "first" or size <= limit.items:
        return frozenset(range(min(size, limit.items)))
    import numpy as np

    # `DataFrame.sample(n, random_state=42)` draws so.
    return frozenset(np.random.RandomState(42).permutation(size)[: limit.items].tolist())


def _text(sample: Sample, *, first_line: bool) -> str:
    return sample.text.strip().split("\n")[0].strip() if first_line else sample.text


def _reason(sample: Sample) -> str:
    return "length" if sample.finish_reason == "length" else "stop"


def _letters(sample: Sample, item: Item) -> dict[str, float]:
    """Each letter's log probability: the likelier of the letter alone and behind a space."""
    told = sample.logprobs[0] if sample.logprobs else {}
    found = {
        letter: max(value for token, value in told.items() if token.strip() == letter)
        for letter in item.choices
        if any(token.strip() == letter for token in told)
    }
    if missing := [letter for letter in item.choices if letter not in found]:
        raise StageFailed(
            f"no log probability of {', '.join(missing)} among the {len(told)} that the server told",
            f"item `{item.item_id}`",
            'ask with `letters="bias"`, or a server that tells more of them',
        )
    return found


def _shares(tokens: int, samples: int) -> tuple[int, ...]:
    """The tokens of all samples, which is all that is told, shared evenly."""
    each, more = divmod(tokens, samples)
    return tuple(each + (index < more) for index in range(samples))
