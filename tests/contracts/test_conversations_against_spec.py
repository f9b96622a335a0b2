"""Conversations of real rows against the paper's recipe written down a second time, slowly and by itself.

What is taken over is each row's random stream and the hash of the draw, whose laws have tests of their own.
"""

import csv
import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.chat.draw import row_random
from tulu_pipeline.datasets import alpaca, code_alpaca, cot, gpt4_alpaca, self_instruct, super_ni
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.specs.dataset import Dataset

pytestmark = pytest.mark.realdata

BELOW = "Below is an instruction that describes a task, paired with an input that provides further context. "
WRITE = "Write a response that appropriately completes the request.\n\n"
# Twentieths of the draws, and what stands before, between and behind instruction and input.
WITH_INPUT = [
    (4, "", "\n\n", "\n\n"),
    (2, "", "\n", "\n\n"),
    (2, "", "\n", "\n"),
    (1, "", "\n\nInput: ", "\n\nOutput:"),
    (1, "", "\nInput: ", "\nOutput:"),
    (1, "", "\n", "\n\nResponse:"),
    (1, "", "\n\nAdditional Context:\n", "\n\nAnswer:"),
    (1, "Task: ", "\nInput: ", "\nOutput:"),
    (1, "Task: ", "\n\n", "\n\n"),
    (1, "Task: ", "\n\n", "\n\nAnswer:"),
    (1, "You need to complete the following task:\n\n", "\n\n", "\n\nAnswer:"),
    (1, "", "\n\nNow complete the following instance -\nInput: ", "\nOutput:"),
    (1, "Instruction:", "\n\nInput: ", "\n\n"),
    (2, f"{BELOW}{WRITE}### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:"),
]
WITHOUT_INPUT = [
    (4, "", "\n\n"),
    (2, "", "\n"),
    (2, "", ""),  # here the answer begins with the newline
    (1, "", " Output:"),
    (1, "", "\nResponse:"),
    (1, "", "\n\nAnswer:"),
    (1, "Task: ", "\n\n"),
    (1, "Instruction: ", "\n"),
    (1, "Instruction: ", "\nOutput:"),
    (1, "You need to complete the following task:\n\n", "\n\n"),
    (1, "Can you help with this?\n\n", "\n"),
    (1, "Plase answer the following request: ", "\nAnswer:"),
    (1, "Tell me how would you respond to the following request.\n", "\n"),
    (2, f"{WRITE}### Instruction:\n", "\n\n### Response:"),
]


def pick(weights: list[int], rng: random.Random) -> int:
    """The template whose share of the unit interval a single uniform number falls into."""
    at = rng.random() * 20
    return next(index for index, total in enumerate(itertools.accumulate(weights)) if at < total)


def phrased(instruction: str, given: str | None, output: str, rng: random.Random) -> tuple[str, str]:
    instruction, given, output = instruction.strip(), (given or "").strip(), output.strip()
    if given:
        _, before, between, behind = WITH_INPUT[pick([row[0] for row in WITH_INPUT], rng)]
        return before + instruction + between + given + behind, output
    number = pick([row[0] for row in WITHOUT_INPUT], rng)
    _, before, behind = WITHOUT_INPUT[number]
    return before + instruction + behind, "\n" + output if number == 2 else output


def turns(dataset: Dataset, files: dict[str, Path], count: int) -> dict[str, tuple[str, str]]:
    out = {}
    for conversation in itertools.islice(convert_rows(dataset, files, 42), count):
        assert not hasattr(conversation, "reason"), conversation
        question, answer = conversation.messages
        out[conversation.id] = (question.content, answer.content)
    return out


@pytest.mark.parametrize(
    ("dataset", "path"),
    [
        (alpaca.DATASET, "alpaca/alpaca_data.json"),
        (code_alpaca.DATASET.variant("sample"), "code_alpaca/code_alpaca_2k.json"),
        (gpt4_alpaca.DATASET.variant("sample"), "gpt4_alpaca/alpaca_gpt4_data.json"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_thousand_rows_of_alpacas_format_are_as_the_recipe_says(mirror: Path, dataset: Dataset, path: str) -> None:
    file = mirror / "train" / path
    expected = {}
    for number, row in enumerate(json.loads(file.read_text(encoding="utf-8"))[:1000]):
        rng = row_random(42, dataset.name, str(number))
        expected[f"{dataset.name.split(':')[0]}_{number}"] = phrased(
            row["instruction"], row["input"], row["output"], rng
        )
    assert turns(dataset, {file.name: file}, 1000) == expected


def test_every_seed_task_is_as_the_recipe_says(mirror: Path) -> None:
    dataset = self_instruct.DATASET.variant("seed_tasks")
    file = mirror / "train" / "self_instruct" / "seed_tasks.jsonl"
    expected = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines()):
        task = json.loads(line)
        for place, instance in enumerate(task["instances"]):
            rng = row_random(42, dataset.name, f"{number}_{place}")
            messages = phrased(task["instruction"], instance["input"], instance["output"], rng)
            expected[f"self_instruct_{number}_{place}"] = messages
    assert turns(dataset, {file.name: file}, 1000) == expected
    assert len(expected) == 175


def test_raw_questions_of_cot_are_as_they_say(mirror: Path) -> None:
    dataset = cot.DATASET.variant("sample")
    files = {name: mirror / "train" / "cot" / "cot_data" / name for name in dataset.sources}
    expected = {}
    for name, file in files.items():
        with file.open(encoding="utf-8", newline="") as stream:
            for number, fields in enumerate(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)):
                question, answer, rationale = (field.replace("\\n", "\n").strip() for field in fields)
                expected[f"cot_{name.removesuffix('.tsv')}_{number}"] = (
                    f"{question}\n\nThink it through before you answer.",
                    f"{rationale}\nThe answer is {answer}.",
                )
    assert turns(dataset, files, 10**6) == expected
    assert len(expected) == 33_443


def super_ni_files(mirror: Path) -> dict[str, Path]:
    folder = mirror / "train" / "super_ni"
    tasks = {
        name: folder / "tasks" / name for name in super_ni.DATASET.variant("sample").sources if name[-5:] == ".json"
    }
    return {"train_tasks.txt": folder / "splits" / "default" / "train_tasks.txt", **tasks}


def drawn_of(task: dict[str, Any]) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Whether few-shot, and the instance: the 80 smallest hashes, the first 60 of them zero-shot."""
    by_hash = {}
    for instance in task["Instances"]:
        text = json.dumps(["stratum", 42, "super_ni:sample", instance["id"]], separators=(",", ":"))
        by_hash[hashlib.sha256(text.encode()).hexdigest()] = instance
    for rank, key in enumerate(sorted(by_hash)[:80]):
        yield rank >= 60, by_hash[key]


def few_shot(task: dict[str, Any], instance: dict[str, Any], rng: random.Random) -> tuple[str, str]:
    examples = task["Positive Examples"]
    if len(examples) > 2:
        examples = rng.sample(examples, 2)
    prompt = task["Definition"][0].strip() + "\n\n"
    for example in examples:
        prompt += "Input:\n" + example["input"].strip() + "\nOutput:\n" + example["output"].strip() + "\n\n"
    return prompt + "Input:\n" + instance["input"].strip() + "\nOutput:\n", instance["output"][0].strip()


def test_every_drawn_instance_of_super_ni_is_as_the_recipe_says(mirror: Path) -> None:
    dataset, files = super_ni.DATASET.variant("sample"), super_ni_files(mirror)
    expected, shots, instances = {}, Counter[bool](), 0
    for name in files["train_tasks.txt"].read_text(encoding="utf-8").split():
        task = json.loads(files[f"{name}.json"].read_text(encoding="utf-8"))
        instances += len(task["Instances"])
        for is_few_shot, instance in drawn_of(task):
            rng = row_random(42, dataset.name, instance["id"])
            definition, given, output = task["Definition"][0], instance["input"], instance["output"][0]
            messages = few_shot(task, instance, rng) if is_few_shot else phrased(definition, given, output, rng)
            expected[f"super_ni_{instance['id']}"] = messages
            shots[is_few_shot] += 1
    assert turns(dataset, files, 10**6) == expected
    assert (instances, shots) == (43_591, {False: 53 * 60, True: 53 * 20})


def test_rows_of_super_ni_say_their_tasks_license_and_language(mirror: Path) -> None:
    dataset, files = super_ni.DATASET.variant("sample"), super_ni_files(mirror)
    rows = list(convert_rows(dataset, files, 42))
    assert Counter(getattr(row, "language", None) for row in rows) == {"en": 4_240}
    licenses = Counter(getattr(row, "license", None) for row in rows)
    assert {name: licenses[name] // 80 for name in ("NOASSERTION", "Apache-2.0", "CC-BY-4.0", "MIT")} == {
        "NOASSERTION": 21,
        "Apache-2.0": 8,
        "CC-BY-4.0": 5,
        "MIT": 4,
    }
    assert licenses["CC-BY-SA-4.0 AND MSR-LA AND RACE license AND Apache"] == 240
    assert licenses["CDLA-Permissive-2.0"] == licenses["CC-BY-NC-ND-4.0"] == 80
