"""What a dataset holds: counts, rounds and lengths in tokens, and a few conversations token by token."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.options import LossSpan, SpecialInText, TokenizerMode


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeParams:
    """How conversations are counted and shown; beside the conversations and the tokenizer.

    Attributes:
        dataset: its name.
        tokenizer_mode, loss_span, special_in_text, max_length_tokens: as a model would see the conversations.
        shown: how many conversations are shown token by token.
        seed: draws them.
    """

    dataset: str
    tokenizer_mode: TokenizerMode | None = None
    loss_span: LossSpan = "tulu1"
    special_in_text: SpecialInText = "literal"
    max_length_tokens: int = 2048
    shown: int = 8
    seed: int = 42


def run_describe(job: Job[DescribeParams], ctx: RunContext) -> Metrics:
    """Write `statistics.json`: instances, rounds, and tokens by role."""
    from tulu_pipeline.chat.conversations import ConversationFile
    from tulu_pipeline.chat.tokenizer import load_tokenizer

    params = job.params
    tokenizer = load_tokenizer(job.input("tokenizer"), tokenizer_mode=params.tokenizer_mode)
    messages: Counter[str] = Counter()
    tokens: Counter[str] = Counter()
    instances = 0
    for conversation in ConversationFile(job.input("conversations")):
        instances += 1
        counts = tokenizer.count_tokens([message.content for message in conversation.messages])
        for message, count in zip(conversation.messages, counts, strict=True):
            messages[message.role] += 1
            tokens[message.role] += count - len(tokenizer.bos_ids)
    statistics = {"instances": instances, "messages": dict(messages), "tokens": dict(tokens)}
    (job.out / "statistics.json").write_text(json.dumps(statistics, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return statistics


DESCRIBE = Stage(name="describe", version=1, params=DescribeParams, run=run_describe, env=("pyarrow", "tokenizers"))
