"""Prompts against texts built anew from the raw files, with none of the product's code, in the original's steps.

TyDiQA's are rebuilt in `test_tydiqa_prompts`.
"""

import csv
import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pytest
from benchmark_items import BY_METRIC, FOLDERS, asked, items
from tokenizers import Tokenizer

from tulu_pipeline.inference.prompts import encode_prompts
from tulu_pipeline.tokens.tokenizer import load_tokenizer

pytestmark = pytest.mark.realdata

# An item's id and the texts that a base model and a tuned one are asked, best first.
Rebuilt = tuple[str, list[str], list[str]]


def chat(user: str, begun: str = "") -> str:
    return "<|user|>\n" + user + "\n<|assistant|>\n" + begun


def same(metric: str, mirror: Path, rebuilt: Iterable[Rebuilt]) -> int:
    """How many items there are, after each was found to be asked what was rebuilt."""
    number = 0
    for item, expected in zip(items(metric, mirror), rebuilt, strict=True):
        assert (item.item_id, asked(item, tuned=False), asked(item, tuned=True)) == expected
        number += 1
    return number


def json_lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("metric", ["gsm_direct", "gsm_cot", "gsm_direct_full", "gsm_cot_full"])
def test_gsm(metric: str, mirror: Path) -> None:
    folder = mirror / "eval" / "gsm8k"
    shots = ""
    for shot in json_lines(folder / "exemplars.jsonl"):
        if "cot" in metric:
            shots += "Question: " + shot["question"] + "\nAnswer: " + shot["cot_answer"] + "\n\n"
        else:
            shots += "Quesion: " + shot["question"] + "\nAnswer: " + shot["short_answer"] + "\n\n"
    rows = list(enumerate(json_lines(folder / "test.jsonl")))
    random.seed(42)
    drawn = rows if metric.endswith("_full") else random.sample(rows, 200)
    rebuilt: list[Rebuilt] = []
    for number, row in drawn:
        user = "Answer the following questions.\n\n" + shots + "Question: " + row["question"].strip()
        rebuilt.append((f"gsm_{number}", [user + "\nAnswer:"], [chat(user, "Answer:")]))
    assert same(metric, mirror, rebuilt) == (1_319 if metric.endswith("_full") else 200)
    golds = [re.sub(r"(\d),(\d)", r"\1\2", row["answer"].split("####")[1].strip()) for _, row in drawn]
    assert [item.gold for item in items(metric, mirror)] == golds


@pytest.mark.parametrize("metric", ["bbh_direct", "bbh_cot", "bbh_direct_full", "bbh_cot_full"])
def test_bbh(metric: str, mirror: Path) -> None:
    random.seed(42)
    asked_rows, heads = [], {}
    for path in sorted((mirror / "eval/bbh/bbh").glob("*.json")):
        rows = list(enumerate(json.loads(path.read_text(encoding="utf-8"))["examples"]))
        asked_rows += [(path.stem, *row) for row in (rows if metric.endswith("_full") else random.sample(rows, 40))]
        lines = (mirror / f"eval/bbh/cot-prompts/{path.stem}.txt").read_text(encoding="utf-8").split("\n")
        blocks = "\n".join(lines[2:]).strip().split("\n\n")
        if "direct" in metric:  # the question up to its answer, and what the answer comes to
            shots = [block.split("So the answer is") for block in blocks]
            blocks = [
                f"{shot[0].split(chr(10) + 'A:')[0].strip()}\nA: {shot[-1].strip()}" if len(shot) > 1 else shot[0]
                for shot in shots
            ]
        heads[path.stem] = "\n\n".join(blocks).strip()
        assert heads[path.stem].count("\nA: ") == 3
    rebuilt: list[Rebuilt] = []
    for task, number, row in asked_rows:
        user = heads[task] + "\n\nQ: " + row["input"]
        rebuilt.append((f"{task}/{number}", [user + "\nA:"], [chat(user, "A:")]))
    assert same(metric, mirror, rebuilt) == (6_511 if metric.endswith("_full") else 1_080)
    assert [item.gold["target"] for item in items(metric, mirror)] == [row["target"] for _, _, row in asked_rows]


@pytest.mark.parametrize("metric", ["mmlu_0shot", "mmlu_5shot", "mmlu_0shot_as_written", "mmlu_5shot_as_written"])
def test_mmlu_as_pandas_reads_it(metric: str, mirror: Path) -> None:
    """The published files read by pandas: with its guess at missing values, as the original, and without."""
    pandas = pytest.importorskip("pandas", minversion="2.0")
    folder, shots = mirror / "eval/mmlu/data", 5 if "5shot" in metric else 0

    def table(path: Path) -> list[list[str]]:
        frame = pandas.read_csv(path, header=None, keep_default_na=not metric.endswith("_as_written"))
        return [[format(value) for value in row] for row in frame.values.tolist()]

    def ask(row: list[str]) -> str:
        return f"{row[0]}\nA. {row[1]}\nB. {row[2]}\nC. {row[3]}\nD. {row[4]}\nAnswer:"

    def rebuilt() -> Iterator[Rebuilt]:
        for path in sorted((folder / "test").glob("*_test.csv")):
            subject = path.name.removesuffix("_test.csv")
            about = "".join(" " + word for word in subject.split("_"))
            head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
            answered = [f"{ask(row)} {row[5]}\n\n" for row in table(folder / "dev" / f"{subject}_dev.csv")[:shots]]
            assert len(answered) == shots
            for number, row in enumerate(table(path)):
                users = [head + "".join(answered[:kept]) + ask(row) for kept in range(shots, -1, -1)]
                yield f"{subject}/{number}", users, [chat(user, "The answer is:") for user in users]

    assert same(metric, mirror, rebuilt()) == 14_042


def test_a_choice_that_reads_none_is_nan_for_the_paper_and_itself_as_written(mirror: Path) -> None:
    texts = {}
    for path in (mirror / "eval/mmlu/data/test").glob("*.csv"):
        with path.open(newline="", encoding="utf-8") as lines:
            for number, row in enumerate(csv.reader(lines)):
                texts[f"{path.name.removesuffix('_test.csv')}/{number}"] = row
    assert len(texts) == 14_042
    missing = {"None", "NA", "N/A", "null", "nan", ""}
    odd = {name: row for name, row in texts.items() if not missing.isdisjoint(row)}
    assert sorted(odd) == [
        *("college_computer_science/10", "college_computer_science/94", "college_mathematics/21"),
        *("college_mathematics/60", "college_mathematics/8", "college_physics/60", "electrical_engineering/107"),
        *("electrical_engineering/117", "electrical_engineering/41", "electrical_engineering/68"),
    ]
    for metric, told in (("mmlu_0shot", "nan"), ("mmlu_0shot_as_written", "None")):
        found = {item.item_id: item.prompts[0].split("\n") for item in items(metric, mirror) if item.item_id in odd}
        for name, row in odd.items():
            (place,) = ["ABCD"[place] for place, text in enumerate(row[1:5]) if text == "None"]
            assert f"{place}. {told}" in found[name]


def test_alpaca_eval(mirror: Path) -> None:
    rows = json.loads((mirror / FOLDERS["alpaca_eval"] / "model_outputs.json").read_text(encoding="utf-8"))
    texts = [row["instruction"] for row in rows]
    rebuilt: list[Rebuilt] = [(f"alpaca_eval_{number}", [text], [chat(text)]) for number, text in enumerate(texts)]
    for metric in ("alpaca_eval", "alpaca_eval_unique_tokens"):
        assert same(metric, mirror, rebuilt) == 805


def test_human_eval(mirror: Path) -> None:
    with gzip.open(mirror / FOLDERS["codex_eval"] / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        heads = [json.loads(line)["prompt"] for line in lines]
    plain: list[Rebuilt] = [(f"human_eval_{number}", [head], [head]) for number, head in enumerate(heads)]
    for metric in ("codex_eval_p1", "codex_eval_p10"):
        assert same(metric, mirror, plain) == 164
    user, begun = "Complete the following python function.\n\n\n", "Here is the completed function:\n\n\n"
    for metric in ("codex_eval_chat_p1", "codex_eval_chat_p10"):  # of tuned models alone
        tuned = [asked(item, tuned=True) for item in items(metric, mirror)]
        assert tuned == [[chat(user + head, begun + head)] for head in heads]


def test_truthfulqa(mirror: Path) -> None:
    primer = (mirror / "eval/truthfulqa/qa_primer.txt").read_bytes().decode()
    with (mirror / "eval/truthfulqa/TruthfulQA.csv").open(encoding="utf-8-sig", newline="") as lines:
        _, *rows = csv.reader(lines)
    users = [primer + "\n\nQ: " + row[2] for row in rows]
    rebuilt: list[Rebuilt] = [(f"truthfulqa_{number}", [user], [chat(user)]) for number, user in enumerate(users)]
    assert same("truthfulqa", mirror, rebuilt) == 817


def test_toxigen(mirror: Path) -> None:
    random.seed(42)
    rebuilt: list[Rebuilt] = []
    for path in sorted((mirror / "eval/toxigen/prompts").glob("hate_*_1k.txt")):
        group = path.name.removeprefix("hate_").removesuffix("_1k.txt")
        if group in {"bisexual", "immigrant"}:
            continue
        with path.open(encoding="utf-8") as file:
            lines = list(enumerate(file))
        random.shuffle(lines)
        for number, line in lines[:500]:
            text = line.strip().encode().replace(b"\\\\", b"\\").replace(b"\\n", b"\n").decode()
            rebuilt.append((f"{group}/{number}", [text], [chat("Complete the following: " + text)]))
    assert same("toxigen", mirror, rebuilt) == 7_000


@pytest.mark.parametrize("metric", sorted(BY_METRIC))
def test_token_ids_of_a_prompt_begin_with_the_only_bos(metric: str, mirror: Path, llama_like: Path) -> None:
    """And are what the tokenizer itself makes of the text."""
    tokenizer, theirs = load_tokenizer(llama_like), Tokenizer.from_file(str(llama_like / "tokenizer.json"))
    for item in islice(items(metric, mirror), 0, 15_000, 997):
        texts = [asked(item, tuned=tuned)[0] for tuned in (False, True)]
        for text, ids in zip(texts, encode_prompts(texts, tokenizer), strict=True):
            assert [place for place, token in enumerate(ids) if token == 1] == [0]
            assert list(ids) == theirs.encode(text).ids
