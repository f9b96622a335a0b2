"""A model that a provider serves: ChatGPT, GPT-4, or any server with OpenAI's protocol. A row like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tulu_pipeline.artifacts.canonical import added_field
from tulu_pipeline.specs.model import PretrainedTokenizer

# " A", " B", " C" and " D" in cl100k_base, the encoding of gpt-3.5-turbo and gpt-4.
CL100K_LETTERS = {"A": 362, "B": 426, "C": 356, "D": 423}

# What the original put before an item's text for these models (open-instruct at b5556378, eval/*/run_eval.py).
_PREFIXES = {
    "codex_eval": (
        "Complete the following python function. Please only output the code for the completed function.\n\n\n"
    ),
    "toxigen": "Complete the following: ",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimit:
    """How many items of each group are asked.

    Attributes:
        items: at most, of each group.
        rule: `first`, or `drawn` as pandas draws rows with the seed 42.
    """

    items: int
    rule: Literal["first", "drawn"] = "first"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiModel:
    """A served model as a row of the table. By default it is asked as the original asked ChatGPT and GPT-4.

    Each item is one message of the user: the prompt that an untuned model gets. Samples of an item come in one request.

    Attributes:
        name: id such as `gpt-4-0314`.
        label: what the table prints.
        model: as the provider calls it; a dated snapshot where there is one.
        provider: `openai`, or a name of one's own; address and key are the environment's (see `provider_access`).
            Another provider is another model; another address of the same provider is the same model.
        capped: whether the benchmarks' caps on new tokens are sent; the original sent none.
        letters: how one of several letters is chosen: `bias` adds 100 to the logits of `letter_ids` (OpenAI's),
            `logprobs` compares the likeliest tokens that the server tells (vLLM's).
        letter_ids: tokens of the letters as they follow a cue.
        prefixes: benchmark to what stands before its items' text.
        first_line: benchmarks whose answer is the first line of what comes.
        group_limits: metric to how many items of each group are asked; absent asks all.
        tokenizer: cuts the passages of benchmarks that cut them by the model's tokens (TyDiQA); None has none.
        cap_name: what the model calls `max_tokens`.
        takes_seed: whether requests that draw carry a seed; some servers refuse one.
    """

    name: str
    label: str
    model: str
    provider: str = "openai"
    capped: bool = False
    letters: Literal["bias", "logprobs"] = "bias"
    letter_ids: Mapping[str, int] = field(default_factory=lambda: dict(CL100K_LETTERS))
    prefixes: Mapping[str, str] = field(default_factory=lambda: dict(_PREFIXES))
    first_line: tuple[str, ...] = ("tydiqa",)
    group_limits: Mapping[str, GroupLimit] = field(default_factory=dict)
    tokenizer: PretrainedTokenizer | None = None
    cap_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    takes_seed: bool = added_field(default=True)


_TOXIGEN = {"toxigen": GroupLimit(items=100)}
_SUBJECTS = {metric: GroupLimit(items=100, rule="drawn") for metric in ("mmlu_0shot", "mmlu_5shot")}

# The paper's two rows. OpenAI has retired both snapshots.
CHATGPT = ApiModel(name="gpt-3.5-turbo-0301", label="ChatGPT", model="gpt-3.5-turbo-0301", group_limits=_TOXIGEN)
GPT4 = ApiModel(name="gpt-4-0314", label="GPT-4", model="gpt-4-0314", group_limits=_TOXIGEN | _SUBJECTS)
