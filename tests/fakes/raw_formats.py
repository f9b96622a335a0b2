"""Small raw files in the original formats of the paper's twelve datasets: invented rows, the same bytes every time.

Beside plain rows each format has what makes it awkward: empty inputs, trees with deleted messages, a dialogue without
its last answer, conversations that are too long or begin with an answer.
"""

from __future__ import annotations

import gzip
import json
import random
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.specs.dataset import Dataset

_THINGS = ("kettle", "lantern", "map of the harbor", "rope", "wooden spoon", "pear tree", "bell", "garden gate")
_PEOPLE = ("Ida", "Orso", "the ferryman", "a baker", "my aunt", "the twins")
_DEEDS = ("mends", "paints", "looks for", "sells", "draws", "forgets", "lends")
_PLACES = ("in the morning", "by the river", "behind the mill", "on market day", "without a word", "at low tide")


class _Words:
    """Sentences of one random stream."""

    def __init__(self, name: str, seed: int) -> None:
        self.random = random.Random(f"{name} {seed}")

    def sentence(self) -> str:
        choose = self.random.choice
        return f"{choose(_PEOPLE).capitalize()} {choose(_DEEDS)} the {choose(_THINGS)} {choose(_PLACES)}."

    def text(self, most: int = 4) -> str:
        return " ".join(self.sentence() for _ in range(self.random.randint(1, most)))

    def question(self) -> str:
        return f"Who {self.random.choice(_DEEDS)} the {self.random.choice(_THINGS)} {self.random.choice(_PLACES)}?"

    def sometimes(self, text: str) -> str:
        return text if self.random.random() < 0.4 else ""


def _alpaca_row(words: _Words) -> dict[str, str]:
    return {"instruction": words.question(), "input": words.sometimes(words.text()), "output": words.text()}


def _json(rows: Any) -> bytes:
    return json.dumps(rows, indent=1, ensure_ascii=False).encode()


def _json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _zip(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _super_ni(folder: Path, words: _Words, rows: int) -> None:
    """Three train tasks, one of them with more instances than are drawn, one made of a benchmark's questions."""
    names = ["task9001_who", "task9002_where", "task9003_mmmlu_trivia"]
    root = "natural-instructions-55a3656"
    members = {f"{root}/splits/xlingual/train_tasks.txt": "".join(f"{name}\n" for name in names).encode()}
    for name in names:
        instances = [
            {"id": f"{name}-{number}", "input": words.text(), "output": [words.sentence()]}
            for number in range(rows * 3)
        ]
        task = {
            "Definition": ["Say in one sentence who did what."],
            "Positive Examples": [{"input": words.text(), "output": words.sentence()} for _ in range(3)],
            "Negative Examples": [],
            "Instances": instances[: rows if name == "task9002_where" else None],
            "Instance License": ["Apache 2.0"],
            "Input_language": ["English"],
            "Output_language": ["English"],
        }
        members[f"{root}/tasks/{name}.json"] = _json(task)
    _zip(folder / "natural-instructions.zip", members)


def _flan_rows(words: _Words, rows: int) -> bytes:
    return _json_lines(
        [
            {"inputs": words.text() + words.random.choice(("", "\n\nAnswer:", "\n")), "targets": words.sentence()}
            for _ in range(rows)
        ]
    )


def _flan_v2(folder: Path, words: _Words, rows: int) -> None:
    (folder / "flan_v2_resampled_100k.jsonl").write_bytes(_flan_rows(words, rows))


def _cot(folder: Path, words: _Words, rows: int) -> None:
    for submix in ("zsopt", "fsopt"):
        (folder / f"{submix}.jsonl").write_bytes(_flan_rows(words, rows))


def _dolly(folder: Path, words: _Words, rows: int) -> None:
    made = [
        {
            "instruction": words.question(),
            "context": words.sometimes(words.text()),
            "response": words.text(),
            "category": "open_qa",
        }
        for _ in range(rows)
    ]
    (folder / "databricks-dolly-15k.jsonl").write_bytes(_json_lines(made))


def _message(words: _Words, tree: str, depth: int, count: list[int]) -> dict[str, Any]:
    count[0] += 1
    replies = 0 if depth == 4 else words.random.choice((0, 1, 2)) if depth else 2
    return {
        "message_id": f"{tree}-{count[0]:02}",
        "role": "assistant" if depth % 2 else "prompter",
        "text": words.text() if depth % 2 else words.question(),
        "lang": "en",
        "deleted": depth > 0 and words.random.random() < 0.1,
        "labels": {"quality": {"value": round(words.random.random(), 2), "count": 3}},
        "replies": [_message(words, tree, depth + 1, count) for _ in range(replies)],
    }


def _oasst1(folder: Path, words: _Words, rows: int) -> None:
    trees = [
        {"message_tree_id": f"{number:04}", "tree_state": "ready_for_export", "prompt": prompt}
        for number in range(rows)
        for prompt in [_message(words, f"{number:04}", 0, [0])]
    ]
    packed = gzip.compress(_json_lines(trees), mtime=0)
    (folder / "2023-04-12_oasst_ready.trees.jsonl.gz").write_bytes(packed)


def _self_instruct(folder: Path, words: _Words, rows: int) -> None:
    made = [_alpaca_row(words) for _ in range(rows)]
    (folder / "all_instances_82K.jsonl").write_bytes(_json_lines(made))


def _unnatural_instructions(folder: Path, words: _Words, rows: int) -> None:
    constraints = ("None.", "The answer should be one sentence.", None)
    made = [
        {
            "instruction": words.question(),
            "instances": [
                {
                    "instruction_with_input": "",
                    "input": words.text(),
                    "constraints": words.random.choice(constraints),
                    "output": words.sentence(),
                }
            ],
        }
        for _ in range(rows)
    ]
    _zip(folder / "core_data.zip", {"core_data.jsonl": _json_lines(made)})


def _alpaca_file(name: str) -> Callable[[Path, _Words, int], None]:
    def write(folder: Path, words: _Words, rows: int) -> None:
        (folder / name).write_bytes(_json([_alpaca_row(words) for _ in range(rows)]))

    return write


def _baize(folder: Path, words: _Words, rows: int) -> None:
    for part in ("alpaca", "medical", "quora", "stackoverflow"):
        made = []
        for number in range(rows):
            rounds = [
                f"[|Human|] {words.question()}\n[|AI|] {words.text()}\n" for _ in range(words.random.randint(1, 4))
            ]
            last = words.question() if number % 7 == 3 else ""
            made.append({"topic": words.question(), "input": f"A chat.\n{''.join(rounds)}[|Human|] {last}"})
        (folder / f"{part}_chat_data.json").write_bytes(_json(made))


def _sharegpt(folder: Path, words: _Words, rows: int) -> None:
    """Every fifth conversation is longer than one piece holds, every seventh begins with an answer."""
    for part in (1, 2):
        made = []
        for number in range(rows):
            length = 120 if number % 5 == 1 else 4
            turns = [
                {"from": sender, "value": words.question() if sender == "human" else words.text(length)}
                for _ in range(words.random.randint(2, 8))
                for sender in ("human", "gpt")
            ]
            made.append({"id": f"c{part}{number:03}", "conversations": turns[1:] if number % 7 == 6 else turns})
        (folder / f"sg_90k_part{part}_html_cleaned.json").write_bytes(_json(made))


WRITERS: Mapping[str, Callable[[Path, _Words, int], None]] = {
    "super_ni": _super_ni,
    "flan_v2": _flan_v2,
    "cot": _cot,
    "dolly": _dolly,
    "oasst1": _oasst1,
    "self_instruct": _self_instruct,
    "unnatural_instructions": _unnatural_instructions,
    "alpaca": _alpaca_file("alpaca_data.json"),
    "code_alpaca": _alpaca_file("code_alpaca_20k.json"),
    "gpt4_alpaca": _alpaca_file("alpaca_gpt4_data.json"),
    "baize": _baize,
    "sharegpt": _sharegpt,
}


def write_raw(folder: Path, name: str, *, rows: int = 30, seed: int = 1) -> Path:
    """Write the files of one dataset into `folder / name`, so many rows each; returns that folder."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    WRITERS[name](place, _Words(name, seed), rows)
    return place


def locally(dataset: Dataset, folder: Path) -> Dataset:
    """The dataset with its files taken from `folder / <its name>`."""
    sources = {name: LocalFile(path=str(folder / dataset.name / name)) for name in dataset.sources}
    return replace(dataset, sources=sources)
