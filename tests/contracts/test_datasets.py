"""What every dataset file owes."""

import importlib
import pkgutil
import re
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import tulu_pipeline.datasets
from tulu_pipeline.artifacts.source import HubFile, LocalFile
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.mixtures import MIXTURES
from tulu_pipeline.raw.convert import convert_row, convert_rows
from tulu_pipeline.specs.dataset import BrokenRow, Dataset, RawRow

MODULES = [
    importlib.import_module(f"tulu_pipeline.datasets.{found.name}")
    for found in pkgutil.iter_modules(tulu_pipeline.datasets.__path__)
]
DATASETS: list[Dataset] = [module.DATASET for module in MODULES]
WITH_VARIANTS = [
    each for dataset in DATASETS for each in (dataset, *(dataset.variant(name) for name in dataset.variants))
]
named = pytest.mark.parametrize("dataset", WITH_VARIANTS, ids=lambda dataset: dataset.name)


@named
def test_worked_examples_come_out_as_written(dataset: Dataset) -> None:
    assert dataset.examples or ":" in dataset.name
    for example in dataset.examples:
        assert convert_row(dataset, example.raw, 42) == replace(example.conversation, dataset=dataset.name)


@named
def test_a_worked_example_is_a_conversation_as_all_are(dataset: Dataset) -> None:
    for example in dataset.examples:
        check(example.conversation)
        assert all(message.content.strip() for message in example.conversation.messages)


def check(conversation: Conversation) -> None:
    """What every conversation owes: turns that alternate, an id of its dataset, and a language's code or none.

    A question may be blank where the raw row has it so, as in the original.
    """
    roles = [message.role for message in conversation.messages if message.role != "system"]
    assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert roles
    assert conversation.id.startswith(f"{conversation.dataset.partition(':')[0]}_")
    assert re.fullmatch("|[a-z]{2,3}", conversation.language)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_a_file_says_what_its_dataset_is(module: Any) -> None:
    dataset: Dataset = module.DATASET
    assert dataset.name == module.__name__.rpartition(".")[2]
    assert dataset.module == module.__name__
    doc = module.__doc__
    for word in ("License:", "Citation:", "Source:", "Size:", "Format:", "Deviations from the paper:"):
        assert word in doc, word
    assert dataset.license in doc
    assert dataset.paper is not None
    assert f"{dataset.paper.instances:,}" in doc
    for name in dataset.variants:
        assert f"`{name}`" in doc


def test_rows_of_another_make_are_not_held_against_the_papers() -> None:
    others = {"baize:sample", "cot:sample", "cot:tsv", "self_instruct:seed_tasks", "sharegpt:dummy"}
    assert {each.name for each in WITH_VARIANTS if each.paper is None} == others


@named
def test_sources_are_pinned(dataset: Dataset) -> None:
    assert dataset.sources
    for name, source in dataset.sources.items():
        assert "/" not in name
        url = getattr(source, "url", None)
        assert (
            isinstance(source, HubFile | LocalFile)  # a hub file checks its commit itself; a local one is hashed
            or getattr(source, "sha256", None)
            or re.search("/[0-9a-f]{40}[/.]", url or "")
        ), name


@named
def test_a_sample_says_so_and_has_sources_of_its_own(dataset: Dataset) -> None:
    if not dataset.sample:
        return
    original = importlib.import_module(dataset.module).DATASET
    assert dataset.name != original.name
    assert re.fullmatch(r"[\d,]+ of [\d,]+( \w+)?", dataset.sample)
    assert dataset.sources != original.sources
    assert all(getattr(source, "sha256", None) for source in dataset.sources.values())


@named
@pytest.mark.parametrize(
    "value",
    [None, 7, "text", [], [1, 2, 3], ["a"], {}, {"instruction": None}, {"instruction": "x", "input": 3, "output": "y"},
     {"instruction": "x", "input": "", "output": "\ud800"}, ["a", "", "c"], ["a", "b", "c", "d"]],
    ids=repr,
)  # fmt: skip
def test_a_row_that_is_no_conversation_is_dropped_with_a_reason(dataset: Dataset, value: object) -> None:
    dropped = convert_row(dataset, RawRow("3", "file:4", value), 42)
    assert isinstance(dropped, BrokenRow)
    assert (dropped.row_id, dropped.where) == ("3", "file:4")
    assert dropped.reason


_BLANK = {
    "alpaca": {"instruction": " ", "input": "", "output": "So."},
    "dolly": {"instruction": "", "context": "", "response": "So."},
    "flan_v2": {"inputs": "", "targets": "So."},
    "cot": {"inputs": " ", "targets": "So."},
    "sharegpt": {"conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "So."}]},
    "oasst1": [{"role": "prompter", "text": " "}, {"role": "assistant", "text": "So."}],
    "unnatural_instructions": {"instruction": "", "input": "", "constraints": "None.", "output": "So."},
}


@pytest.mark.parametrize("name", _BLANK)
def test_a_row_with_a_blank_question_stays_as_in_the_original(name: str) -> None:
    dataset = next(each for each in DATASETS if each.name == name)
    row = convert_row(dataset, RawRow("3", "file:4", _BLANK[name]), 42)
    assert isinstance(row, Conversation)
    assert row.messages[1].content.strip() == "So."
    check(row)


def test_mixtures_are_the_papers() -> None:
    human, both = MIXTURES["human_mix"], MIXTURES["human_gpt_mix"]
    assert [part.dataset for part in human.components] == ["flan_v2", "cot", "dolly", "oasst1"]
    assert both.components[:4] == human.components
    assert [part.dataset for part in both.components[4:]] == ["gpt4_alpaca", "code_alpaca", "sharegpt"]
    assert both.label == "Tülu"
    assert all(part.cap is None and part.repeat == 1 for mixture in MIXTURES.values() for part in mixture.components)


FOLDERS = {
    "alpaca": "alpaca",
    "code_alpaca:sample": "code_alpaca",
    "gpt4_alpaca:sample": "gpt4_alpaca",
    "cot:sample": "cot/cot_data",
    "dolly:sample": "dolly",
    "super_ni:sample": "super_ni",
    "self_instruct:seed_tasks": "self_instruct",
}


SEEDLESS = {"cot:sample"}  # nothing in them is drawn


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "kept", "dropped"),
    [
        ("alpaca", 52_002, 0),
        ("code_alpaca:sample", 2_017, 0),
        ("gpt4_alpaca:sample", 9_954, 0),
        ("cot:sample", 33_443, 0),
        ("dolly:sample", 2_996, 0),
        ("super_ni:sample", 4_240, 0),
        ("self_instruct:seed_tasks", 175, 0),
    ],
)
def test_every_published_row_is_kept_or_accounted_for(mirror: Path, name: str, kept: int, dropped: int) -> None:
    dataset = next(each for each in WITH_VARIANTS if each.name == name)
    files = {source: next((mirror / "train" / FOLDERS[name]).rglob(source)) for source in dataset.sources}
    rows = list(convert_rows(dataset, files, 42))
    conversations = [row for row in rows if isinstance(row, Conversation)]
    broken = [row for row in rows if isinstance(row, BrokenRow)]
    assert (len(conversations), len(broken)) == (kept, dropped)
    assert {conversation.dataset for conversation in conversations} == {name}
    assert len({conversation.id for conversation in conversations}) == kept
    for conversation in conversations:
        check(conversation)
        assert all(message.content.strip() for message in conversation.messages if message.role == "user")
    if dataset.sample:
        assert dataset.sample.startswith(f"{kept + dropped:,} of ")


@pytest.mark.realdata
@pytest.mark.parametrize("name", FOLDERS)
def test_a_dataset_comes_out_twice_alike_and_otherwise_with_another_seed(mirror: Path, name: str) -> None:
    dataset = next(each for each in WITH_VARIANTS if each.name == name)
    files = {source: next((mirror / "train" / FOLDERS[name]).rglob(source)) for source in dataset.sources}
    first, second, other = (list(islice(convert_rows(dataset, files, seed), 300)) for seed in (42, 42, 43))
    assert first == second
    assert (first == other) == (name in SEEDLESS)
