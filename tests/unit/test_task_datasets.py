"""SuperNI and Unnatural Instructions: tasks with instances, where they lie, and what becomes of malformed ones."""

import json
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.datasets import super_ni, unnatural_instructions
from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw.convert import convert_row, convert_rows
from tulu_pipeline.specs.dataset import BrokenRow, RawRow


def task(**other: Any) -> dict[str, Any]:
    return {
        "Definition": ["Name the sound of the animal. ", "Which sound?"],
        "Positive Examples": [{"input": "cow", "output": "moo"}, {"input": "cat ", "output": " meow"}],
        "Instances": [{"id": f"task9-{each}", "input": f"dog {each}", "output": ["woof", "no"]} for each in range(90)],
        "Instance License": ["Unknown"],
        "Input_language": ["English"],
        "Output_language": ["Persian"],
    } | other  # fmt: skip


@pytest.fixture
def repository(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Packs tasks as GitHub packs a repository; MMLU's tasks are on the list alone."""

    def pack(**tasks: Any) -> dict[str, Path]:
        path = tmp_path / "natural-instructions.zip"
        with zipfile.ZipFile(path, "w") as archive:
            names = [*tasks, "task7_mmmlu_answer_generation_law"]
            archive.writestr("natural-instructions-55a3656/splits/xlingual/train_tasks.txt", "\n".join(names) + "\n")
            archive.writestr("natural-instructions-55a3656/splits/default/train_tasks.txt", "another list")
            for name, content in tasks.items():
                archive.writestr(f"natural-instructions-55a3656/tasks/{name}.json", json.dumps(content))
        return {path.name: path}

    return pack


def test_super_ni_reads_its_train_tasks_in_the_archive_without_mmlu(repository: Any) -> None:
    small = task(Instances=task()["Instances"][:7])
    for number, instance in enumerate(small["Instances"]):
        small["Instances"][number] = instance | {"id": f"task8-{number}"}
    files = repository(task9_sounds=task(), task8_few=small)
    leaked = [row for row in super_ni.DATASET.read(files) if isinstance(row, BrokenRow)]
    assert [(row.where, row.reason, row.text) for row in leaked] == [
        ("train_tasks.txt:3", "made of MMLU's questions", "task7_mmmlu_answer_generation_law")
    ]
    assert len(list(super_ni.DATASET.read(files))) == 97 + 1
    left_out: list[int] = []
    rows = list(convert_rows(super_ni.DATASET, files, 42, on_left_out=left_out.append))
    assert left_out == [10]
    few_shot = [row.messages[0].content.count("Input:\n") == 3 for row in rows if isinstance(row, Conversation)]
    assert (len(few_shot), sum(few_shot)) == (87, 20)
    assert not any(few_shot[80:])
    assert {(row.license, row.language) for row in rows if isinstance(row, Conversation)} == {("NOASSERTION", "")}


def instance_row(changed: dict[str, Any], part: str = "few_shot") -> RawRow:
    fields = task() | changed
    instances = fields.pop("Instances")
    return RawRow("task9-0", "task9.json: instance 0", {"task": "task9", "instance": instances[0]} | fields, part)


@pytest.mark.parametrize(
    ("examples", "shown"),
    [
        ([], ""),
        ([{"input": "cow", "output": "moo"}], "Input:\ncow\nOutput:\nmoo\n\n"),
        (task()["Positive Examples"], "Input:\ncow\nOutput:\nmoo\n\nInput:\ncat\nOutput:\nmeow\n\n"),
    ],
    ids=["none", "one", "two"],
)
def test_super_ni_shows_the_positive_examples_there_are(examples: list[Any], shown: str) -> None:
    row = convert_row(super_ni.DATASET, instance_row({"Positive Examples": examples}), 42)
    assert isinstance(row, Conversation)
    assert row.messages[0].content == f"Name the sound of the animal.\n\n{shown}Input:\ndog 0\nOutput:\n"
    assert row.messages[1].content == "woof"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"Instances": [{"id": "a", "input": "dog", "output": []}]}, "empty `output`"),
        ({"Instances": [{"id": "a", "input": "dog", "output": [3]}]}, "`output` is no text"),
        ({"Instances": [{"id": "a", "input": "dog", "output": "woof"}]}, "`output` is no list"),
        ({"Instances": [{"id": "a", "input": "dog"}]}, "no `output`"),
        ({"Instances": [{"id": "a", "output": ["woof"]}]}, "no `input`"),
        ({"Instances": ["dog"]}, "no JSON object"),
        ({"Definition": []}, "empty `Definition`"),
        ({"Definition": None}, "no `Definition`"),
        ({"Positive Examples": None}, "no `Positive Examples`"),
        ({"Positive Examples": [{"input": "cow"}]}, "no `output`"),
    ],
    ids=str,
)
def test_an_instance_of_super_ni_that_lacks_something_is_dropped(changed: dict[str, Any], reason: str) -> None:
    row = convert_row(super_ni.DATASET, instance_row(changed), 42)
    assert isinstance(row, BrokenRow)
    assert row.reason == reason


def test_the_examples_of_a_task_are_drawn_by_the_row() -> None:
    examples = [{"input": name, "output": "x"} for name in "abcd"]
    shown = Counter[str]()
    for number in range(300):
        raw = replace(instance_row({"Positive Examples": examples}), row_id=f"task9-{number}")
        row = convert_row(super_ni.DATASET, raw, 42)
        assert isinstance(row, Conversation)
        shown["".join(row.messages[0].content.split("Input:\n")[each][0] for each in (1, 2))] += 1
    # Twelve ordered pairs, 25 each, standard deviation 4.8; four of them to either side.
    assert len(shown) == 12
    assert all(6 <= times <= 44 for times in shown.values())


def test_instances_without_an_id_of_their_own_get_one(repository: Any) -> None:
    instances = [
        {"id": "task9-a", "input": "1", "output": ["x"]},
        {"id": "task9-a", "input": "2", "output": ["x"]},
        {"input": "3", "output": ["x"]},
        "4",
    ]
    rows = list(super_ni.DATASET.read(repository(task9_sounds=task(Instances=instances))))[:-1]
    assert [row.row_id for row in rows] == ["task9-a", "task9_sounds-1", "task9_sounds-2", "task9_sounds-3"]
    assert rows[2].where == "task9_sounds.json: instance 2"


@pytest.mark.parametrize("content", [["no task"], {"Definition": ["x"]}, {"Instances": 3}], ids=str)
def test_a_file_that_is_no_task_is_refused(repository: Any, content: Any) -> None:
    with pytest.raises(BadInput, match="no task file") as caught:
        list(super_ni.DATASET.read(repository(task9_sounds=content)))
    assert caught.value.where == "task9_sounds.json"


@pytest.mark.parametrize(
    ("stated", "license_"),
    [
        (["Apache 2.0"], "Apache-2.0"),
        (["CC BY-NC-SA 4.0"], "CC-BY-NC-SA-4.0"),
        (["MIT", "CC0 1.0"], "MIT AND CC0-1.0"),
        (["Unknown"], "NOASSERTION"),
        (["Dedicated License (see there)"], "Dedicated License (see there)"),
        ([], ""),
        ("MIT", ""),
        (None, ""),
    ],
    ids=str,
)
def test_a_tasks_license_is_told_as_spdx_where_it_can_be(stated: object, license_: str) -> None:
    row = convert_row(super_ni.DATASET, instance_row({"Instance License": stated}), 42)
    assert isinstance(row, Conversation)
    assert row.license == license_


# Unnatural Instructions


def unnatural(**other: Any) -> dict[str, Any]:
    return {"instruction": "Add the numbers.", "input": "1 2", "constraints": "Digits only.", "output": "3"} | other


@pytest.mark.parametrize("constraints", ["None.", "none", "NONE", "None", "", None])
def test_constraints_that_say_none_are_left_out(constraints: str | None) -> None:
    row = convert_row(unnatural_instructions.DATASET, RawRow("0_0", "x:1", unnatural(constraints=constraints)), 42)
    bare = convert_row(unnatural_instructions.DATASET, RawRow("0_0", "x:1", unnatural(constraints="none")), 42)
    assert row == bare
    assert isinstance(row, Conversation)
    assert "none" not in row.messages[0].content.lower()
    assert "Add the numbers.\nDigits only." not in row.messages[0].content


def test_other_constraints_are_the_instructions_second_line() -> None:
    for constraints in ("Digits only.", "None of the words may repeat.", "None. "):
        row = convert_row(unnatural_instructions.DATASET, RawRow("0_0", "x:1", unnatural(constraints=constraints)), 42)
        assert isinstance(row, Conversation)
        assert f"Add the numbers.\n{constraints}".strip() in row.messages[0].content


def test_each_instance_of_unnatural_instructions_is_a_conversation_of_its_own(tmp_path: Path) -> None:
    instance = unnatural()
    instance.pop("instruction")
    lines = [
        {"instruction": "Add the numbers.", "instances": [instance, instance | {"input": "2 2", "output": "4"}]},
        {"instruction": "Add the numbers.", "instances": []},
        {"instruction": "Add the numbers."},
        {"instances": [instance, "no object"]},
        ["no object"],
    ]
    path = tmp_path / "core_data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("core_data.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines) + "{\n")
    rows = list(convert_rows(unnatural_instructions.DATASET, {path.name: path}, 42))
    assert [(row.id, row.messages[1].content) for row in rows if isinstance(row, Conversation)] == [
        ("unnatural_instructions_0_0", "3"),
        ("unnatural_instructions_0_1", "4"),
    ]
    assert [(row.row_id, row.reason) for row in rows if isinstance(row, BrokenRow)] == [
        ("1", "no instance"),
        ("2", "no `instances`"),
        ("3_0", "no `instruction`"),
        ("3_1", "no JSON object"),
        ("4", "no JSON object"),
        ("5", "broken JSON: expecting property name enclosed in double quotes"),
    ]


def test_a_row_of_unnatural_instructions_that_lacks_something_is_dropped() -> None:
    values = [unnatural(output=None), unnatural(input=3), unnatural(instruction=None), unnatural(constraints=["x"])]
    rows = [convert_row(unnatural_instructions.DATASET, RawRow("0_0", "x:1", value), 42) for value in values]
    assert [getattr(row, "reason", "") for row in rows] == [
        "no `output`",
        "`input` is no text",
        "no `instruction`",
        "`constraints` is no text",
    ]
