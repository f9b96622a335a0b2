"""Every prompt of the real benchmarks, to the byte."""

import csv
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.file_server import FileServer
from toy_graph import settings

from tasks.generate import generate_params
from tulu_pipeline.artifacts.fetch import fetch
from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.benchmarks import alpaca_eval, bbh, gsm, mmlu, truthfulqa
from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.specs.benchmark import Benchmark, Item

pytestmark = pytest.mark.realdata

FOLDERS = {
    "bbh": "eval/bbh",
    "gsm": "eval/gsm8k",
    "mmlu": "eval/mmlu/data",
    "alpaca_eval": "eval/alpaca_eval/results/text_davinci_003",
}
BY_METRIC = {
    setting.metric: benchmark
    for benchmark in (bbh.BENCHMARK, gsm.BENCHMARK, mmlu.BENCHMARK, alpaca_eval.BENCHMARK)
    for setting in benchmark.settings
}


def items(metric: str, mirror: Path) -> Iterator[Item]:
    benchmark = BY_METRIC[metric]
    return benchmark.items(benchmark.files(mirror / FOLDERS[benchmark.name]), benchmark.setting(metric))


@pytest.mark.parametrize(
    "benchmark", [bbh.BENCHMARK, gsm.BENCHMARK, mmlu.BENCHMARK, alpaca_eval.BENCHMARK], ids=lambda each: each.name
)
def test_pins_are_the_hashes_of_the_published_files(benchmark: Benchmark, mirror: Path) -> None:
    files = benchmark.files(mirror / FOLDERS[benchmark.name])
    for name, source in benchmark.sources.items():
        assert isinstance(source, PinnedFile)
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == source.sha256, name


@pytest.mark.parametrize(
    ("benchmark", "name", "path"),
    [
        (gsm.BENCHMARK, "exemplars.jsonl", "eval/gsm8k/exemplars.jsonl"),
        (truthfulqa.BENCHMARK, "qa_primer.txt", "eval/truthfulqa/qa_primer.txt"),
    ],
    ids=["gsm", "truthfulqa"],
)
def test_few_shot_texts_come_out_of_a_python_file_without_a_mirror(
    benchmark: Benchmark, name: str, path: str, mirror: Path, tmp_path: Path
) -> None:
    """As they were published: the value of a constant, among others."""
    source, text = benchmark.sources[name], (mirror / path).read_text()
    assert isinstance(source, PinnedFile)
    assert source.url is not None
    assert source.url.endswith(".py")
    value = [json.loads(line) for line in text.splitlines()] if name.endswith(".jsonl") else text
    module = f'"""Presets."""\nANOTHER = "text"\n{source.constant} = {value!r}\npresets = {{"a": {source.constant}}}\n'
    with FileServer() as server:
        here = dataclasses.replace(source, url=server.put("/presets.py", module.encode()))
        fetch(here, name, tmp_path / "out", settings(tmp_path), lambda done, total: None)
    assert (tmp_path / "out" / name).read_text() == text


@pytest.mark.parametrize(
    ("metric", "count", "plain", "chat"),
    [
        (
            "gsm_direct",
            200,
            "08392605e4cf31e6dbb46921e55eac4500b39a5bb7377478bbc488ad6877ea7b",
            "3d1b6c6abcbcc52318677ab004a7e38ef68848f78bbf1bff6f3b1a05042840b1",
        ),
        (
            "gsm_cot",
            200,
            "baf95e7032edc86897b22040e88dd16e1eafe0c5fa7a233d04139c462a1c5451",
            "e57140a7443dad1c85ee3d9ad1dc9f4549869a7545a66702735d4307dfc75a14",
        ),
        (
            "gsm_direct_full",
            1_319,
            "45e90ae445c6f28789820b9b12932dc1e9f47ae3dc139e59a0805d7768684706",
            "c15fc9b745ed2341047340ffea3481c419d7de1c93a1e83010be6284e993c2cc",
        ),
        (
            "gsm_cot_full",
            1_319,
            "74ae23c6c689bf26f27b7888b5a87e806b853a0385e8f30d9a8841f4355f2f14",
            "ae0ecea318bbe47fb97476ea7377c90e6609fad543f079bb9ffd191f8112a8da",
        ),
        (
            "bbh_direct",
            1_080,
            "b5fc135daab4cce98d67a8d945eae5558f02ac05cc6a9cc2b98e5bf844401113",
            "feae013950b4fa743d6c75071afde4915c226dfe4d00f910f2a5b4597596d104",
        ),
        (
            "bbh_cot",
            1_080,
            "b4d12b90beb9fbdf204b5d7dd3ed803ba5038205aba5f751b53558d429d0eb71",
            "4c87d09309620156db7a5d883fcd4a41229664a3f8a0e888bfc1d15ae8888b44",
        ),
        (
            "bbh_cot_full",
            6_511,
            "01ffe307b908e5c98d383076220c40b65beaf5742d60cd903df0b498f83d0747",
            "3a2f65b8a81b9ac05b8c54d6e26541f17e69a3c9c936b1cd3f57dd9a03a4fa25",
        ),
        (
            "mmlu_0shot",
            14_042,
            "23f0870a5e61762c8f435d0f1ceaa69c400dcca1fdc6e54f2689a463a0f5fe8b",
            "f9276d31a0eb917c5e597b98dc010350723b2e03d44e0323c8fcab4a5a537e84",
        ),
        (
            "mmlu_5shot",
            14_042,
            "f82e2a57f287f9e187bd12768aa7c7d0a3e928342ddc82bd7d2dfaef6dc74c53",
            "2d9a5020b398445d02709d973800aeb27ec84100cc9a3ce9a69ac43aea04d96e",
        ),
        (
            "alpaca_eval",
            805,
            "02ddbbf2c7d2bdc777633c2eb728b95778760ad78b655fbe8e435a7202c7ad24",
            "8ba89237fe48ef5b22d4c6c0454d3ddca908907c6cd1d067522d1346dec19b76",
        ),
    ],
)
def test_all_prompts_are_these(metric: str, count: int, plain: str, chat: str, mirror: Path) -> None:
    hashes = {False: hashlib.sha256(), True: hashlib.sha256()}
    ids = set()
    for item in items(metric, mirror):
        ids.add(item.item_id)
        for tuned, digest in hashes.items():
            cue = item.cue_tuned if tuned and item.cue_tuned is not None else item.cue
            rendered = [render_prompt(prompt, cue, tuned=tuned) for prompt in item.prompts]
            line = [item.item_id, rendered, list(item.choices), item.gold, item.group]
            digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    assert len(ids) == count
    assert (hashes[False].hexdigest(), hashes[True].hexdigest()) == (plain, chat)


def test_the_200_questions_are_the_papers() -> None:
    drawn = gsm.asked(1_319, 200)
    assert drawn[:11] == [1309, 228, 51, 563, 501, 457, 285, 209, 1116, 178, 1209]
    assert sum(drawn) == 130_924
    assert len(set(drawn)) == 200


def test_a_gsm_prompt_is_eight_exemplars_and_a_question(mirror: Path) -> None:
    direct, cot = (next(items(metric, mirror)) for metric in ("gsm_direct", "gsm_cot"))
    assert direct.item_id == cot.item_id == "gsm_1309"
    start = "Answer the following questions.\n\n"
    assert direct.prompts[0].startswith(f"{start}Quesion: There are 15 trees in the grove.")
    assert cot.prompts[0].startswith(f"{start}Question: There are 15 trees in the grove.")
    assert direct.prompts[0].count("\n\nQuesion: ") == 8
    assert direct.prompts[0].count("\n\nQuestion: ") == 1
    assert cot.prompts[0].count("\n\nQuestion: ") == 9
    assert cot.prompts[0].count(". So the answer is ") == 8
    assert render_prompt(cot.prompts[0], cot.cue, tuned=False).endswith("?\nAnswer:")
    assert render_prompt(cot.prompts[0], cot.cue, tuned=True).endswith("?\n<|assistant|>\nAnswer:")


def test_all_1319_answers_are_numbers(mirror: Path) -> None:
    setting = dataclasses.replace(gsm.BENCHMARK.setting("gsm_cot"), options={"cot": True, "subset": 0})
    everything = list(gsm.read_items(gsm.BENCHMARK.files(mirror / FOLDERS["gsm"]), setting))
    assert [item.item_id for item in everything] == [f"gsm_{index}" for index in range(1_319)]
    assert sorted(item.gold for item in everything if item.gold.startswith("-")) == ["-10", "-3"]


def test_mmlu_prompts_are_what_pandas_and_the_published_formatter_give(mirror: Path) -> None:
    """The published script's two loops, over the same files read by pandas without its guess at missing values."""
    pandas = pytest.importorskip("pandas")
    folder = mirror / FOLDERS["mmlu"]

    def ask(row: list[str], answer: bool) -> str:
        text = row[0]
        for place in range(4):
            text += f"\n{'ABCD'[place]}. {row[place + 1]}"
        return text + "\nAnswer:" + (f" {row[5]}\n\n" if answer else "")

    def table(path: Path) -> list[list[str]]:
        frame = pandas.read_csv(path, header=None, keep_default_na=False)
        return [[str(value) for value in row] for row in frame.values.tolist()]

    prompts = {item.item_id: item.prompts for item in items("mmlu_5shot", mirror)}
    for path in sorted((folder / "test").glob("*_test.csv")):
        subject = path.name.removesuffix("_test.csv")
        about = "".join(f" {word}" for word in subject.split("_"))
        head = f"The following are multiple choice questions (with answers) about {about}.\n\n"
        shots = [ask(row, answer=True) for row in table(folder / "dev" / f"{subject}_dev.csv")]
        for index, row in enumerate(table(path)):
            theirs = tuple(head + "".join(shots[:kept]) + ask(row, answer=False) for kept in (5, 4, 3, 2, 1, 0))
            assert prompts.pop(f"{subject}/{index}") == theirs
    assert not prompts


def test_ten_mmlu_questions_have_a_choice_that_pandas_takes_for_missing(mirror: Path) -> None:
    rows = [
        row
        for path in (mirror / FOLDERS["mmlu"] / "test").glob("*.csv")
        for row in csv.reader(path.open(newline="", encoding="utf-8"))
    ]
    assert len(rows) == 14_042
    assert sum(not {"None", "NA", "N/A", "null", "nan", ""}.isdisjoint(row) for row in rows) == 10


def test_only_untuned_models_stop_at_a_newline() -> None:
    def stop(metric: str, tuned: bool) -> tuple[str, ...]:
        benchmark = BY_METRIC[metric]
        return generate_params(benchmark, metric, tuned=tuned, engine="vllm", engine_dtype="bfloat16").sampling.stop

    assert stop("gsm_cot", tuned=False) == ("\n",)
    assert stop("gsm_cot", tuned=True) == stop("alpaca_eval", tuned=True) == ()


def test_a_bbh_prompt_is_the_instruction_three_exemplars_and_a_question(mirror: Path) -> None:
    for metric in ("bbh_direct", "bbh_cot"):
        asked = list(items(metric, mirror))
        assert len({item.group for item in asked}) == 27
        for item in asked[::40]:
            text = (mirror / FOLDERS["bbh"] / f"cot-prompts/{item.group}.txt").read_text()
            instruction, *shots = text.split("\n-----\n", 1)[1].strip().split("\n\nQ: ")
            assert len(shots) == 3
            if metric == "bbh_direct":
                parts = (re.fullmatch(r"(.*?)\s*\nA:.*So the answer is\s*(.*?)\s*", shot, re.DOTALL) for shot in shots)
                shots = [f"{found[1]}\nA: {found[2]}" for found in parts if found]
            head, _, question = item.prompts[0].rpartition("\n\nQ: ")
            assert head == "\n\nQ: ".join([instruction, *shots])
            index = int(item.item_id.partition("/")[2])
            example = json.loads((mirror / FOLDERS["bbh"] / f"bbh/{item.group}.json").read_text())["examples"][index]
            assert (question, item.gold["target"]) == (example["input"], example["target"])


def test_the_40_questions_of_a_bbh_task_are_these(mirror: Path) -> None:
    ids = [item.item_id for item in items("bbh_cot", mirror)]
    assert ids[:4] == [
        "boolean_expressions/163",
        "boolean_expressions/28",
        "boolean_expressions/6",
        "boolean_expressions/189",
    ]
    assert (
        hashlib.sha256("\n".join(ids).encode()).hexdigest()
        == "5b9e9490a2ba60390dc6d8f83eb091c19a70f3c5f91386e6064e9321cc8d15e6"
    )
