"""What an annotator is asked about an answer, and what its answers come to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tulu_pipeline.api.client import Answer
from tulu_pipeline.api.requests import ApiError, ApiRequest
from tulu_pipeline.judging.annotator import Template, combined, preference_of, switched
from tulu_pipeline.specs.benchmark import Item
from tulu_pipeline.specs.judge import Annotator


def ask_for(item: Item, output: str, judge: Annotator, template: Template) -> dict[str, ApiRequest]:
    """The requests about one output, by names; none where it is the reference's."""
    instruction, reference = item.prompts[0], str(item.gold)
    if output == reference:
        return {}
    requests = {}
    for model_first in _orders(instruction, judge):
        first, second = (output, reference) if model_first else (reference, output)
        requests[_name(item, model_first)] = ApiRequest(
            provider=judge.provider,
            model=judge.model,
            messages=template.messages(instruction, first, second),
            max_tokens=judge.max_tokens,
            temperature=judge.temperature,
            cap_name=judge.cap_name,
        )
    return requests


def reply_to(item: Item, output: str, judge: Annotator, answers: Mapping[str, Answer]) -> dict[str, Any]:
    """The reply about one output: the preference, and what was said; or which error there is instead."""
    if output == item.gold:
        return {"preference": 1.5, "annotator": judge.name}
    preferences, said = {}, []
    for model_first in _orders(item.prompts[0], judge):
        answer = answers[_name(item, model_first)]
        if isinstance(answer, ApiError):
            return {"api_error": answer.kind, "reason": answer.reason, "annotator": judge.name}
        text = answer.samples[0].text
        preferences[model_first] = preference_of(text, model_first=model_first)
        said.append({"model_first": model_first, "kind": answer.kind, "text": text, "model": answer.model})
    return {**combined(preferences), "annotator": judge.name, "said": said}


def _orders(instruction: str, judge: Annotator) -> tuple[bool, ...]:
    first = switched(instruction, judge.seed)
    return (first, not first) if judge.both_orders else (first,)


def _name(item: Item, model_first: bool) -> str:
    return f"{item.item_id}#{'model' if model_first else 'reference'}_first"
