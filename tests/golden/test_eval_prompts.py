"""Every prompt of the real benchmarks, to the byte.

ToxiGen's and TruthfulQA's are in `test_safety_prompts`, TyDiQA's in `test_tydiqa_prompts`, HumanEval's in
`test_human_eval`, what served models are asked in `test_served_prompts`.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from benchmark_items import BY_METRIC, FOLDERS, asked, items
from fakes.file_server import FileServer
from toy_graph import settings

from tasks.generate import generate_params
from tulu_pipeline.artifacts.fetch import fetch
from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.benchmarks import alpaca_eval, bbh, gsm, mmlu, truthfulqa
from tulu_pipeline.specs.benchmark import Benchmark

pytestmark = pytest.mark.realdata


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
            "bbh_direct_full",
            6_511,
            "1f92ee5e1961d03f4df655ad2d021c127c12f31d86c363db1b2ee57214dd853a",
            "1a2b387e616acee74d94938c4984aa16731d1520eb824bea8e1667183004cb1c",
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
            "52cf6e5abdf2d40c30c8297ecee6508f446c8e8a7ac741f735d32dded948fb41",
            "13cd0586e8e5adf6812e1a3fbbc5b327e5fbe4f4ef9f991c7a1af899cba5441f",
        ),
        (
            "mmlu_5shot",
            14_042,
            "b884f3e37882c5034dddd3ae548b53a4f0382a11669b3e6dcf439ca6be465419",
            "ba6e5731f026e00de874a497131096f7666a48ae1c0b8d9376d881472c1e6b7c",
        ),
        (
            "mmlu_0shot_as_written",
            14_042,
            "23f0870a5e61762c8f435d0f1ceaa69c400dcca1fdc6e54f2689a463a0f5fe8b",
            "f9276d31a0eb917c5e597b98dc010350723b2e03d44e0323c8fcab4a5a537e84",
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
            line = [item.item_id, asked(item, tuned=tuned), list(item.choices), item.gold, item.group]
            digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    assert len(ids) == count
    assert (hashes[False].hexdigest(), hashes[True].hexdigest()) == (plain, chat)


def test_the_200_questions_are_the_papers() -> None:
    drawn = gsm.asked(1_319, 200)
    assert drawn[:11] == [1309, 228, 51, 563, 501, 457, 285, 209, 1116, 178, 1209]
    assert sum(drawn) == 130_924
    assert len(set(drawn)) == 200


def test_all_1319_answers_are_numbers(mirror: Path) -> None:
    setting = dataclasses.replace(gsm.BENCHMARK.setting("gsm_cot"), options={"cot": True, "subset": 0})
    everything = list(gsm.read_items(gsm.BENCHMARK.files(mirror / FOLDERS["gsm"]), setting))
    assert [item.item_id for item in everything] == [f"gsm_{index}" for index in range(1_319)]
    assert sorted(item.gold for item in everything if item.gold.startswith("-")) == ["-10", "-3"]


def test_only_untuned_models_stop_at_a_newline() -> None:
    def stop(metric: str, tuned: bool) -> tuple[str, ...]:
        benchmark = BY_METRIC[metric]
        return generate_params(benchmark, metric, tuned=tuned, engine="vllm", engine_dtype="bfloat16").sampling.stop

    assert stop("gsm_cot", tuned=False) == ("\n",)
    assert stop("gsm_cot", tuned=True) == stop("alpaca_eval", tuned=True) == ()


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
