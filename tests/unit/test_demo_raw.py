import csv
import hashlib
import json
import re
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tulu_pipeline.benchmarks import gsm, mmlu
from tulu_pipeline.demo import arithmetic, facts, raw_files
from tulu_pipeline.experiments.demo import ARITHMETIC, EXPERIMENT, FACTS, GSM, MMLU
from tulu_pipeline.models import tiny
from tulu_pipeline.raw.convert import convert_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / raw_files.FOLDER
    for name in raw_files.files():
        raw_files.write(folder / name)
    return folder


def rows_of(folder: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    arithmetic_rows = json.loads((folder / "arithmetic.json").read_text())
    return arithmetic_rows, [json.loads(line) for line in (folder / "facts.jsonl").read_text().splitlines()]


def items(folder: Path) -> list[tuple[str, tuple[str, ...], str]]:
    """(question, choices, letter) of every row of the test and dev files."""
    found = []
    for path in sorted((folder / "mmlu").rglob("*.csv")):
        with path.open(newline="") as lines:
            found += [(row[0], tuple(row[1:5]), row[5]) for row in csv.reader(lines)]
    return found


def test_every_local_source_of_the_demo_is_made_and_nothing_else(folder: Path) -> None:
    values = (*EXPERIMENT.datasets, *EXPERIMENT.own_benchmarks)
    wanted = {source.path for value in values for source in value.sources.values()}
    assert wanted == {f"{raw_files.FOLDER}/{name}" for name in raw_files.files()}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == set(raw_files.files())


def test_a_file_is_the_same_whichever_is_made_first(folder: Path, tmp_path: Path) -> None:
    raw_files._problems.cache_clear()
    raw_files._split.cache_clear()
    for name in reversed(raw_files.files()):
        raw_files.write(tmp_path / raw_files.FOLDER / name)
    for name in raw_files.files():
        digests = [
            hashlib.sha256((root / name).read_bytes()).hexdigest() for root in (folder, tmp_path / raw_files.FOLDER)
        ]
        assert digests[0] == digests[1], name


def test_a_path_that_is_no_file_of_the_demo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="none of the demo's files"):
        raw_files.write(tmp_path / raw_files.FOLDER / "other.json")


def test_no_training_row_holds_a_question_of_the_gsm_files(folder: Path) -> None:
    asked = {json.loads(line)["question"] for line in (folder / "gsm/test.jsonl").read_text().splitlines()}
    shown = {json.loads(line)["question"] for line in (folder / "gsm/exemplars.jsonl").read_text().splitlines()}
    trained = {question for row in rows_of(folder)[0] for question in re.findall(r"Question: (.*)", row["instruction"])}
    assert len(asked) == 200
    assert len(shown) == 8
    assert not asked & shown
    assert not trained & (asked | shown)


def test_no_training_row_holds_an_item_of_the_mmlu_files(folder: Path) -> None:
    held_out = items(folder)
    assert len({(question, choices) for question, choices, _ in held_out}) == len(held_out)
    trained = "\n".join(row["instruction"] for row in rows_of(folder)[1])
    for question, choices, _ in held_out:
        listed = "".join(f"\n{letter}. {choice}" for letter, choice in zip("ABCD", choices, strict=True))
        assert f"{question}{listed}" not in trained


def test_every_worked_answer_is_right(folder: Path) -> None:
    working = r"(\d+) ([+-]) (\d+) = (\d+)\. So the answer is (\d+)\."
    for row in rows_of(folder)[0]:
        a, sign, b, result, answer = re.fullmatch(f"Answer: {working}", row["output"]).groups()  # type: ignore[union-attr]
        assert int(result) == int(answer) == (int(a) + int(b) if sign == "+" else int(a) - int(b)) >= 0
        assert all(f" {number} " in row["instruction"] for number in (a, b))


def test_the_right_choice_is_the_persons_own_and_the_only_answer_of_its_kind(folder: Path) -> None:
    letters = dict.fromkeys("ABCD", 0)
    for question, choices, letter in items(folder):
        (relation,) = (each for each in facts.RELATIONS if any(_matches(text, question) for text in each.questions))
        (person,) = (person for person in facts.PEOPLE if person in question)
        assert choices["ABCD".index(letter)] == relation.answers[facts.PEOPLE.index(person)]
        assert sum(choice in relation.answers for choice in choices) == 1
        letters[letter] += 1
    assert min(letters.values()) > sum(letters.values()) / 8


def _matches(template: str, question: str) -> bool:
    return re.fullmatch(re.escape(template).replace(r"\{\}", r"\w+"), question) is not None


def test_training_rows_have_the_layout_of_the_evaluations(folder: Path) -> None:
    gsm_files = {name: folder / "gsm" / name for name in GSM.sources}
    asked = next(gsm.read_items(gsm_files, GSM.setting("gsm_cot"))).prompts[0]
    eight = [row["instruction"] for row in rows_of(folder)[0] if row["instruction"].count("Question: ") == 9]
    assert eight
    assert shape(asked) == shape(eight[0])
    mmlu_files = {name: folder / "mmlu" / name for name in MMLU.sources}
    item = next(mmlu.read_items(mmlu_files, MMLU.setting("mmlu_0shot")))
    choice = next(row for row in rows_of(folder)[1] if "multiple choice" in row["instruction"])
    assert shape(item.prompts[0]) == shape(choice["instruction"])
    assert choice["output"][:-2] == item.cue_tuned


def shape(text: str) -> list[str]:
    """Beginnings of the lines, without what is asked."""
    return [
        re.sub(r"^(Question:|Answer:|[A-D]\.|The following .* about  |)(.*)", r"\1", line) for line in text.split("\n")
    ]


def test_what_the_demo_says_is_made_of_whole_tokens(tmp_path: Path) -> None:
    tiny.write_model(tmp_path, **dict(EXPERIMENT.models[0].sources["model"].args))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    words = {*arithmetic.NAMES, *arithmetic.THINGS, *facts.PEOPLE}
    words |= {word for relation in facts.RELATIONS for word in (*relation.answers, *relation.wrong)}
    split = [word for word in sorted(words) if len(tokenizer.encode(f" {word}", add_special_tokens=False).ids) > 1]
    assert split == []


def test_the_datasets_of_the_demo_keep_every_row(folder: Path) -> None:
    for dataset, rows in zip((ARITHMETIC, FACTS), rows_of(folder), strict=True):
        made = list(convert_rows(dataset, {name: folder / name for name in dataset.sources}, 42))
        assert [conversation.messages[0].content for conversation in made] == [row["instruction"] for row in rows]
        assert made[0].dataset == dataset.name
