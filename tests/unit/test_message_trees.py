"""OASST1's trees: which paths become conversations by each rule, and what is told of the rest."""

import json
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.datasets.oasst1 import DATASET
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.specs.dataset import BrokenRow, ChangedRow, Dataset, RawRow

RULES = {"": DATASET} | {name: DATASET.variant(name) for name in ("undeleted", "every_reply", "best_reply")}


def node(name: str, *replies: dict[str, Any], deleted: bool = False, quality: float | None = None) -> dict[str, Any]:
    """A message called `q…` (a question) or `a…` (an answer)."""
    labels = {} if quality is None else {"quality": {"value": quality, "count": 3}}
    role = "prompter" if name.startswith("q") else "assistant"
    return {
        "message_id": name, "role": role, "text": f"text of {name}", "lang": "pt-BR", "deleted": deleted,
        "labels": labels, "replies": list(replies),
    }  # fmt: skip


def split(dataset: Dataset, root: object) -> list[RawRow | BrokenRow | ChangedRow]:
    assert dataset.split is not None
    return list(dataset.split(RawRow("7", "trees.jsonl:8", {"message_tree_id": "t", "prompt": root}), None))


def ends(dataset: Dataset, root: object) -> list[str]:
    """The messages that end a path."""
    return [row.row_id for row in split(dataset, root) if isinstance(row, RawRow)]


def reasons(dataset: Dataset, root: object) -> list[str]:
    return [row.reason for row in split(dataset, root) if not isinstance(row, RawRow)]


TREE = node("q1",
    node("a1", node("q2", node("a2", quality=0.2), node("a3", quality=0.9)), node("q3"), quality=0.5),
    node("a4", quality=0.4),
)  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("", ["a2", "a3", "a4"]),
        ("undeleted", ["a2", "a3", "a4"]),
        ("every_reply", ["a1", "a2", "a3", "a4"]),
        ("best_reply", ["a3"]),
    ],
)
def test_each_rule_takes_its_paths(rule: str, expected: list[str]) -> None:
    assert ends(RULES[rule], TREE) == expected


def test_a_path_holds_its_messages_from_the_root_on() -> None:
    row = next(row for row in split(DATASET, TREE) if isinstance(row, RawRow) and row.row_id == "a3")
    conversation = DATASET.convert(row, None)  # type: ignore[arg-type]  # nothing is drawn
    assert [(message.role, message.content) for message in conversation.messages] == [
        ("user", "text of q1"), ("assistant", "text of a1"), ("user", "text of q2"), ("assistant", "text of a3"),
    ]  # fmt: skip
    assert (conversation.id, conversation.language, row.where) == ("oasst1_a3", "pt", "trees.jsonl:8")


def test_a_deleted_message_takes_what_hangs_on_it_along_only_where_deleted_ones_are_left_out() -> None:
    tree = node("q1", node("a1", node("q2", node("a2")), deleted=True), node("a3"), node("a4", deleted=True))
    assert ends(DATASET, tree) == ["a2", "a3", "a4"]
    assert ends(RULES["every_reply"], tree) == ["a1", "a2", "a3", "a4"]
    assert ends(RULES["undeleted"], tree) == ["a3"]
    assert reasons(RULES["undeleted"], tree) == ["deleted message, with what hangs on it"] * 2


def test_an_answer_whose_replies_are_deleted_ends_no_path_and_this_is_told() -> None:
    tree = node("q1", node("a1", node("q2", deleted=True)), node("a2"))
    assert ends(RULES["undeleted"], tree) == ["a2"]
    lost = [row for row in split(RULES["undeleted"], tree) if isinstance(row, ChangedRow)]
    assert [(row.row_id, row.text) for row in lost] == [("7", "text of q2"), ("7", "text of a1")]
    assert lost[1].reason == "answer that ends no path, and none goes on from it"


def test_a_path_that_ends_in_a_question_is_left_out_and_told() -> None:
    tree = node("q1", node("a1", node("q2")), node("a2"))
    assert ends(DATASET, tree) == ["a2"]
    assert reasons(DATASET, tree) == [
        "question that nobody answered", "answer that ends no path, and none goes on from it",
    ]  # fmt: skip
    assert ends(RULES["every_reply"], tree) == ["a1", "a2"]
    assert reasons(RULES["every_reply"], tree) == ["question that nobody answered"]


@pytest.mark.parametrize("rule", RULES)
def test_a_tree_may_be_deeper_than_the_stack(rule: str) -> None:
    tree = node("a1199")
    for number in reversed(range(1199)):
        tree = node(f"{'qa'[number % 2]}{number}", tree)
    assert ends(RULES[rule], tree)[-1] == "a1199"
    assert len(ends(RULES[rule], tree)) == (600 if rule == "every_reply" else 1)
    assert reasons(RULES[rule], tree) == []
    below = tree
    while below["replies"]:
        (below,) = below["replies"]
    below["text"] = None
    assert reasons(RULES[rule], tree) == ["a message without `message_id` or `text`"]


@pytest.mark.parametrize("rule", RULES)
def test_a_tree_without_an_answer_or_with_a_deleted_root_is_dropped_once(rule: str) -> None:
    (row,) = split(RULES[rule], node("q1"))
    assert isinstance(row, BrokenRow)
    assert (row.row_id, row.reason, row.text) == ("7", "no path ends in an answer", "text of q1")
    made = split(RULES[rule], node("q1", node("a1"), deleted=True))
    assert isinstance(made[0], RawRow if rule in {"", "every_reply"} else BrokenRow)
    assert len(made) == 1


def test_the_best_reply_is_the_first_of_the_best_and_no_rating_counts_as_zero() -> None:
    best = RULES["best_reply"]
    assert ends(best, node("q1", node("a1"), node("a2", quality=0.0), node("a3", quality=-1.0))) == ["a1"]
    assert ends(best, node("q1", node("a1", quality=0.5), node("a2", quality=0.5))) == ["a1"]
    assert ends(best, node("q1", node("a1", quality=0.9, deleted=True), node("a2"))) == ["a2"]
    unlabeled = node("q1", node("a1", quality=0.1), node("a2"))
    unlabeled["replies"][1]["labels"] = None
    assert ends(best, unlabeled) == ["a1"]


@pytest.mark.parametrize(
    "root",
    [None, [], "text", {}, {"message_id": "q1"}, node("q1", {"role": "assistant"}),
     node("q1", node("a1") | {"text": None}), node("q1", node("a1") | {"role": "narrator"}),
     node("q1", node("a1") | {"replies": None}), node("q1", node("a1") | {"message_id": 3}), node("q1", 5)],  # type: ignore[arg-type]
    ids=lambda root: str(root)[:60],
)  # fmt: skip
def test_a_malformed_tree_is_dropped_whole_with_a_reason(root: object) -> None:
    for dataset in RULES.values():
        (row,) = split(dataset, root)
        assert isinstance(row, BrokenRow)
        assert (row.row_id, row.where) == ("7", "trees.jsonl:8")
        assert row.reason


def test_trees_grow_from_a_flat_list_and_what_hangs_on_nothing_is_told(tmp_path: Path) -> None:

    def flat(name: str, parent: str | None, tree: str = "t1", quality: float = 0.0) -> dict[str, Any]:
        labels = {"name": ["spam", "quality"], "value": [0.0, quality], "count": [1, 1]}
        message = {key: value for key, value in node(name).items() if key != "replies"}
        return message | {"parent_id": parent, "message_tree_id": tree, "labels": labels}

    messages = [
        flat("a3", "q2", quality=0.9), flat("q1", None), flat("a1", "q1"), flat("q2", "a1"), flat("a2", "q2"),
        flat("a9", "gone"), flat("q9", "a9"),  # a branch without its root
        flat("q5", None, "t2"), flat("a5", "q5", "t2"),
        {"text": "no tree"}, 12,
    ]  # fmt: skip
    path = tmp_path / "flat.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in messages) + "{broken\n")
    made: dict[str, list[Any]] = {}
    for rule in ("sample_flat", "sample_flat_best_reply"):
        made[rule] = list(convert_rows(DATASET.variant(rule), {"flat.jsonl": path}, 42))
    kept = [[row.id for row in rows if hasattr(row, "messages")] for rows in made.values()]
    assert kept == [["oasst1_a3", "oasst1_a2", "oasst1_a5"], ["oasst1_a3", "oasst1_a5"]]
    broken = [(row.where, row.reason) for row in made["sample_flat"] if isinstance(row, BrokenRow)]
    assert broken[:4] == [
        ("flat.jsonl:6", "hangs on a message that is not in the file"),
        ("flat.jsonl:7", "hangs on a message that is not in the file"),
        ("flat.jsonl:10", "no `message_tree_id` or `message_id`"),
        ("flat.jsonl:11", "no `message_tree_id` or `message_id`"),
    ]
    assert broken[4][1].startswith("broken JSON")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("variant", "kept", "dropped"),
    [
        ("sample", 400, 4),
        ("sample_flat", 704, 9),  # 3 messages and 6 trees
        ("sample_flat_undeleted", 683, 9),
        ("sample_flat_every_reply", 1241, 3),
        ("sample_flat_best_reply", 123, 68),
    ],
)
def test_published_trees_give_as_many_conversations_as_the_original_makes_of_them(
    mirror: Path, variant: str, kept: int, dropped: int
) -> None:
    dataset = DATASET.variant(variant)
    files = {name: mirror / "train" / "oasst1" / name for name in dataset.sources}
    rows = [row for row in convert_rows(dataset, files, 42) if not isinstance(row, ChangedRow)]
    broken = [row for row in rows if isinstance(row, BrokenRow)]
    assert (len(rows) - len(broken), len(broken)) == (kept, dropped)
    assert {row.language for row in rows if not isinstance(row, BrokenRow)} == {"en"}


@pytest.mark.realdata
def test_every_answer_without_a_reply_is_the_end_of_one_path(mirror: Path) -> None:
    dataset = DATASET.variant("sample")
    (name,) = dataset.sources
    rows = [row for row in dataset.read({name: mirror / "train" / "oasst1" / name}) if isinstance(row, RawRow)]
    for row in rows:
        assert isinstance(row.value, dict)
        waiting, leaves = [row.value["prompt"]], set()
        while waiting:
            message = waiting.pop()
            waiting += message["replies"]
            if message["role"] == "assistant" and not message["replies"]:
                leaves.add(message["message_id"])
        assert set(ends(dataset, row.value["prompt"])) == leaves
    assert len(rows) == 100
