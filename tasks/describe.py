"""Describe: what a dataset holds: counts, rounds and lengths in tokens, and a few conversations token by token."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tulu_pipeline.artifacts.canonical import added_field
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.chat.options import EncodeOptions, LossSpan, SpecialInText, Template, TokenizerMode

if TYPE_CHECKING:
    from tulu_pipeline.chat.schema import Conversation
    from tulu_pipeline.tokens.statistics import Encode


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribeParams:
    """How conversations are counted and shown; beside the conversations and the tokenizer.

    Attributes:
        dataset: its name.
        tokenizer_mode, loss_span, special_in_text, max_length_tokens, template: as a model would see the conversations.
        shown: how many conversations are shown token by token.
        seed: draws them.
        normalize_version, normalize_seed, normalize_tokenizer_mode: what decides, beside the raw files and the dataset,
            which rows normalize dropped or changed: it tells of them outside of what its conversations are known by.
    """

    dataset: str
    tokenizer_mode: TokenizerMode | None = None
    loss_span: LossSpan = "tulu1"
    special_in_text: SpecialInText = "literal"
    max_length_tokens: int = 2048
    template: Template = added_field(default="tulu")
    shown: int = 8
    seed: int = 42
    normalize_version: int = added_field(default=0)
    normalize_seed: int = added_field(default=0)
    normalize_tokenizer_mode: TokenizerMode | None = added_field(default=None)


def run_describe(job: Job[DescribeParams], ctx: RunContext) -> Metrics:
    """Writes `statistics.json` (see `tokens.statistics`) and `shown.json`: a few conversations, token by token.

    The input "raw" is not read here: what was dropped on the way from it counts too, and must not be that of other
    raw files which happen to give the same conversations.
    """
    from tulu_pipeline.artifacts.stage import AUX
    from tulu_pipeline.chat.conversations import ConversationFile
    from tulu_pipeline.chat.draw import draw
    from tulu_pipeline.chat.row_log import read_reasons
    from tulu_pipeline.tokens.encode import encode_many
    from tulu_pipeline.tokens.own_template import load_own_template
    from tulu_pipeline.tokens.statistics import count, write_statistics
    from tulu_pipeline.tokens.token_view import load_viewer, shown_record
    from tulu_pipeline.tokens.tokenizer import load_tokenizer

    params, folder = job.params, job.input("conversations")
    tokenizer = load_tokenizer(
        job.input("tokenizer"), tokenizer_mode=params.tokenizer_mode, special_in_text=params.special_in_text
    )
    options = EncodeOptions(max_length_tokens=params.max_length_tokens, loss_span=params.loss_span)
    encode: Encode = partial(encode_many, tokenizer=tokenizer, options=options)
    if params.template == "own":
        own = load_own_template(job.input("tokenizer"), tokenizer, loss_span=params.loss_span)
        encode = partial(own.encode_many, max_length_tokens=params.max_length_tokens)
    conversations = ConversationFile(folder)
    total = len(conversations)
    chosen = draw(conversations.ids(), params.shown, seed=params.seed, dataset=params.dataset)
    kept: list[Conversation] = []
    statistics = count(
        _keeping(conversations, set(chosen), kept),
        tokenizer,
        encode,
        dataset=params.dataset,
        max_length_tokens=params.max_length_tokens,
        dropped=read_reasons(folder / AUX, "dropped"),
        changed=read_reasons(folder / AUX, "changed"),
        on_progress=lambda done: ctx.progress(job.name, done, total, "conversations"),
    )
    write_statistics(statistics, job.out)
    view = load_viewer(job.input("tokenizer"), tokenizer, options, params.template)
    shown = [shown_record(conversation, view(conversation)) for conversation in kept]
    lines = ",\n".join(json.dumps(record, ensure_ascii=False, sort_keys=True) for record in shown)
    (job.out / "shown.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return {
        "instances": statistics.instances,
        "mean_rounds": statistics.mean_rounds,
        "mean_prompt_tokens": statistics.mean_prompt_tokens,
        "mean_completion_tokens": statistics.mean_completion_tokens,
        "tokens": statistics.tokens,
        "supervised_tokens": statistics.supervised_tokens,
        "truncated": statistics.truncated,
    }


def _keeping(
    conversations: Iterable[Conversation], places: Collection[int], kept: list[Conversation]
) -> Iterator[Conversation]:
    """The conversations as they come; those at `places` are also put into `kept`."""
    for place, conversation in enumerate(conversations):
        if place in places:
            kept.append(conversation)
        yield conversation


DESCRIBE = Stage(
    name="describe", version=2, params=DescribeParams, run=run_describe, env=("pyarrow", "tokenizers", "jinja2")
)
