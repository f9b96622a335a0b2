"""OpenAssistant Conversations: trees of questions and answers in 35 languages, written and rated by volunteers.

License: Apache-2.0.
Citation: Köpf et al., "OpenAssistant Conversations - Democratizing Large Language Model Alignment", arXiv:2304.07327.
Source: the hub's OpenAssistant/oasst1, `2023-04-12_oasst_ready.trees.jsonl.gz` at revision fdf72ae.
Size: 10,364 trees with 88,838 messages; Table 1 has 34,795 conversations with 1.6 rounds, 34.8 tokens per prompt and
212.5 per completion.
Format: JSON lines, one tree each: `message_tree_id` and `prompt`, a message with `message_id`, `role` (prompter or
assistant), `text`, `lang`, `deleted`, `labels` and `replies`, which are messages again.

A conversation is a path from a tree's root to an answer, so that what several paths share is trained on several times.
Which answers end a path has changed in the original, hence the variants:

default: answers that nobody replied to, deleted ones included; the rule that fits the paper's count.
`undeleted`: the same without deleted messages and what hangs on them; the rule of October 2023. An answer whose every
    reply was deleted still counts as replied to, so it ends no path: about 900 conversations fewer.
`every_reply`: each answer ends a path of its own; the rule of the first public code.
`best_reply`: as `undeleted`, following only the reply of the best quality at each step (no rating counts as 0.0, the
    first of equals wins); the rule of Tülu 2.
`sample`: 100 English trees of an example file of the project's authors, none of them rated or deleted.
`sample_flat`: 188 English trees of the validation split, from a file that lists messages one by one.
`sample_flat_undeleted`, `sample_flat_every_reply`, `sample_flat_best_reply`: the same, by the other rules.

Deviations from the paper: ids are those of the message that ends the path, not running numbers. A path that ends in a
question is left out as in the original, but told. Malformed trees are dropped with a reason instead of an exception.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import HubFile, PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message, Role
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import (
    BrokenRow,
    ChangedRow,
    CountTokens,
    Dataset,
    Example,
    PaperCounts,
    RawRow,
    RowDropped,
)

_ROLES: Mapping[object, Role] = {"prompter": "user", "assistant": "assistant"}
_QUESTION = "question that nobody answered"
_DELETED = "deleted message, with what hangs on it"
_NO_LEAF = "answer that ends no path, and none goes on from it"

_Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Rule:
    """Which paths are taken.

    Attributes:
        deleted: whether deleted messages are taken too.
        every_reply: whether each answer ends a path, not only those without replies.
        best_reply: whether only the best of several replies is followed, of those not deleted.
    """

    deleted: bool = True
    every_reply: bool = False
    best_reply: bool = False


def _split(rule: _Rule, row: RawRow, count_tokens: CountTokens | None) -> Iterator[RawRow | BrokenRow | ChangedRow]:
    """The paths of one tree, depth first; `value` is the list of a path's messages."""
    try:
        root = _checked(row.value["prompt"] if isinstance(row.value, dict) and "prompt" in row.value else None)
    except RowDropped as why:
        yield BrokenRow(row.row_id, row.where, str(why), _shown(row.value))
        return
    found = list(_paths(rule, root))
    paths = [path for path, reason in found if not reason]
    if not paths:
        yield BrokenRow(row.row_id, row.where, "no path ends in an answer", root["text"])
        return
    for path, reason in found:
        if reason:
            yield ChangedRow(row.row_id, row.where, reason, path[-1]["text"])
        else:
            messages = [{key: message.get(key) for key in ("role", "text", "lang")} for message in path]
            yield RawRow(path[-1]["message_id"], row.where, messages)


def _checked(node: object) -> _Node:
    """The root of a tree, each of its messages being one.

    Raises:
        RowDropped: it is none.
    """
    if not isinstance(node, dict):
        raise RowDropped("no message tree")
    waiting: list[object] = [node]
    while waiting:
        message = waiting.pop()
        if not isinstance(message, dict) or not isinstance(message.get("replies"), list):
            raise RowDropped("a message without `replies`")
        if not all(isinstance(message.get(key), str) for key in ("message_id", "text")):
            raise RowDropped("a message without `message_id` or `text`")
        if message.get("role") not in _ROLES:
            raise RowDropped("a message that is neither prompter's nor assistant's")
        waiting.extend(message["replies"])
    return node


def _paths(rule: _Rule, root: _Node) -> Iterator[tuple[tuple[_Node, ...], str]]:
    """Paths of a tree as (messages, ""), and where one is lost as (messages, reason).

    Without recursion: a tree may be deeper than Python's stack.
    """
    found = 0
    waiting: list[tuple[tuple[_Node, ...], int | None]] = [((root,), None)]
    while waiting:
        path, found_before = waiting.pop()
        node = path[-1]
        is_answer, replies = node["role"] == "assistant", node["replies"]
        ends = is_answer and (rule.every_reply or not replies)
        if found_before is not None:  # all that hangs on the message has been walked
            if not is_answer and not replies:
                yield path, _QUESTION
            elif is_answer and not ends and found == found_before:
                yield path, _NO_LEAF
        elif node.get("deleted") and not rule.deleted:
            yield path, _DELETED
        else:
            waiting.append((path, found))
            waiting.extend(((*path, reply), None) for reply in reversed(_followed(rule, replies)))
            if ends:
                found += 1
                yield path, ""


def _followed(rule: _Rule, replies: Sequence[_Node]) -> Sequence[_Node]:
    if not rule.best_reply:
        return replies
    alive = (reply for reply in replies if not reply.get("deleted"))
    return sorted(alive, key=_quality, reverse=True)[:1]


def _quality(node: _Node) -> float:
    labels = node.get("labels")
    quality = labels.get("quality") if isinstance(labels, dict) else None
    value = quality.get("value") if isinstance(quality, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    if not isinstance(row.value, list):
        raise RowDropped("no path of a message tree")
    messages = []
    for node in row.value:
        if not isinstance(node, dict) or node.get("role") not in _ROLES or not isinstance(node.get("text"), str):
            raise RowDropped("a message without `role` or `text`")
        messages.append(Message(_ROLES[node["role"]], node["text"]))
    language = str(row.value[-1].get("lang") or "").partition("-")[0] if row.value else ""
    return Conversation("oasst1", f"oasst1_{row.row_id}", tuple(messages), language=language)


def _read_flat(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """Trees of a file that lists the messages of a tree one behind the other, each with its `parent_id`."""
    for tree, group in groupby(read_json_lines(files), key=_tree_of):
        rows = list(group)
        if tree is None:
            for row in rows:
                yield row if isinstance(row, BrokenRow) else _unplaced(row, "no `message_tree_id` or `message_id`")
        else:
            yield from _grown(rows)


def _tree_of(row: RawRow | BrokenRow) -> str | None:
    value = row.value if isinstance(row, RawRow) and isinstance(row.value, dict) else {}
    tree = value.get("message_tree_id")
    return tree if isinstance(tree, str) and isinstance(value.get("message_id"), str) else None


def _grown(rows: list[Any]) -> Iterator[RawRow | BrokenRow]:
    """What grows from the messages of one tree; replies keep the order of the file."""
    nodes = {row.value["message_id"]: row.value | {"labels": _by_name(row.value), "replies": []} for row in rows}
    roots: list[RawRow] = []
    waiting: list[dict[str, Any]] = []
    for row in rows:
        node, parent = nodes[row.value["message_id"]], row.value.get("parent_id")
        if parent is None:
            roots.append(RawRow(row.value["message_id"], row.where, {"prompt": node}))
            waiting.append(node)
        elif parent in nodes:
            nodes[parent]["replies"].append(node)
    placed: set[str] = set()
    while waiting:
        node = waiting.pop()
        placed.add(node["message_id"])
        waiting.extend(node["replies"])
    for row in rows:
        if row.value["message_id"] not in placed:
            yield _unplaced(row, "hangs on a message that is not in the file")
    yield from roots


def _unplaced(row: RawRow, reason: str) -> BrokenRow:
    return BrokenRow(row.row_id, row.where, reason, _shown(row.value))


def _shown(value: object) -> str:
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return "nested too deeply to be shown"


def _by_name(message: Mapping[str, Any]) -> dict[str, Any]:
    """Labels of the flat form, lists of names and values, as the trees have them."""
    labels = message.get("labels")
    if not isinstance(labels, dict) or not isinstance(labels.get("name"), list):
        return {}
    return {name: {"value": value} for name, value in zip(labels["name"], labels.get("value") or (), strict=False)}


_Split = Callable[[RawRow, CountTokens | None], Iterator[RawRow | BrokenRow | ChangedRow]]
_RULES: Mapping[str, _Split] = {
    "undeleted": partial(_split, _Rule(deleted=False)),
    "every_reply": partial(_split, _Rule(every_reply=True)),
    "best_reply": partial(_split, _Rule(deleted=False, best_reply=True)),
}

_FULL = Dataset(
    name="oasst1",
    module=__name__,
    title="OpenAssistant 1",
    citation='Köpf et al., "OpenAssistant Conversations - Democratizing Large Language Model Alignment", 2023',
    license="Apache-2.0",
    url="https://huggingface.co/datasets/OpenAssistant/oasst1",
    sources={
        "2023-04-12_oasst_ready.trees.jsonl.gz": HubFile(
            repo="OpenAssistant/oasst1",
            path="2023-04-12_oasst_ready.trees.jsonl.gz",
            revision="fdf72ae0827c1cda404aff25b6603abec9e3399b",
            sha256="2a9a8fd343e9b28e04a895a669d3253f82d93e9c174d440199ae19d5fafbdff7",
        )
    },
    read=read_json_lines,
    split=partial(_split, _Rule()),
    convert=_convert,
    converter_version=1,
    paper=PaperCounts(instances=34_795, mean_rounds=1.6, mean_prompt_tokens=34.8, mean_completion_tokens=212.5),
    examples=(
        Example(
            RawRow(
                "5d1c",
                "2023-04-12_oasst_ready.trees.jsonl.gz:1",
                [
                    {"role": "prompter", "text": "¿Qué come un erizo?", "lang": "es"},
                    {"role": "assistant", "text": "Insectos, lombrices y fruta.", "lang": "es"},
                    {"role": "prompter", "text": "¿Y leche?", "lang": "es"},
                    {"role": "assistant", "text": "No, le sienta mal.", "lang": "es"},
                ],
            ),
            Conversation(
                "oasst1",
                "oasst1_5d1c",
                (
                    Message("user", "¿Qué come un erizo?"),
                    Message("assistant", "Insectos, lombrices y fruta."),
                    Message("user", "¿Y leche?"),
                    Message("assistant", "No, le sienta mal."),
                ),
                language="es",
            ),
        ),
    ),
)

_SAMPLE = replace(
    _FULL,
    sources={
        "en_100_tree.jsonl": PinnedFile(
            url="https://raw.githubusercontent.com/LAION-AI/Open-Assistant/f1e6ed9526f5817531f3ab85441a40b3671ddccb/model/model_eval/manual/data/en_100_tree.jsonl",
            sha256="a27639214a5098bf9e1cc62a855c85c630b64ab48ee94655e7f6046438b0aedb",
        )
    },
    sample="100 of 10,364 trees",
)
_SAMPLE_FLAT = replace(
    _FULL,
    sources={
        "en-validation.jsonl": PinnedFile(
            url="https://raw.githubusercontent.com/TurkuNLP/oasst-fi/45e9c4600eacf5844887e321ba3952befe9727dc/original-data/en-validation.jsonl",
            sha256="b92db3f1db324f5aa3c5d75ed65a451b54063de1de7370506233c9917043bd66",
        )
    },
    read=_read_flat,
    sample="188 of 10,364 trees",
)

DATASET = replace(
    _FULL,
    variants={
        **{name: replace(_FULL, split=split) for name, split in _RULES.items()},
        "sample": _SAMPLE,
        "sample_flat": _SAMPLE_FLAT,
        **{f"sample_flat_{name}": replace(_SAMPLE_FLAT, split=split) for name, split in _RULES.items()},
    },
)
