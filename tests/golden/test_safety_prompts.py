"""Every prompt of ToxiGen and TruthfulQA, to the byte."""

import csv
import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.generate import generate_params
from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.benchmarks import toxigen, truthfulqa
from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.specs.benchmark import Benchmark, Item

FOLDERS = {"toxigen": "eval/toxigen/prompts", "truthfulqa": "eval/truthfulqa"}
BENCHMARKS = [toxigen.BENCHMARK, truthfulqa.BENCHMARK]
BY_METRIC = {setting.metric: benchmark for benchmark in BENCHMARKS for setting in benchmark.settings}


def items(metric: str, mirror: Path) -> Iterator[Item]:
    benchmark = BY_METRIC[metric]
    return benchmark.items(benchmark.files(mirror / FOLDERS[benchmark.name]), benchmark.setting(metric))


def chat(item: Item) -> str:
    return render_prompt(item.lead_tuned + item.prompts[0], item.cue, tuned=True)


@pytest.mark.realdata
@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_pins_are_the_hashes_of_the_published_files(benchmark: Benchmark, mirror: Path) -> None:
    files = benchmark.files(mirror / FOLDERS[benchmark.name])
    for name, source in benchmark.sources.items():
        assert isinstance(source, PinnedFile)
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == source.sha256, name


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("metric", "count", "plain", "tuned"),
    [
        (
            "toxigen",
            7_000,
            "9966c624be775c12726e8990201fe4a8e23b8ff195b1fedfd7c1f95c7a57311c",
            "7dd02c8f4e60c038f22d5f114ce2c6f353a3d07ea90b6e7cce37b698d5de8386",
        ),
        (
            "toxigen_full",
            14_000,
            "f4b9de0ab23cb25c0fe63ce3038c5e9ea8da424617c34e37a2aa82e06774ef59",
            "a5d31b78045d25d7ea7ff823a90c413d998b7de95d3eb12e417acf038400e646",
        ),
        (
            "truthfulqa",
            817,
            "cb3aba064cce60e9cdeea348c76eff9195f4303db6ac72655e0e7b5c098bc91e",
            "cf4b9e175c848697453c972304621e083ed7d96b44672932118de1b54b7052be",
        ),
    ],
)
def test_all_prompts_are_these(metric: str, count: int, plain: str, tuned: str, mirror: Path) -> None:
    hashes = hashlib.sha256(), hashlib.sha256()
    ids = set()
    for item in items(metric, mirror):
        ids.add(item.item_id)
        for prompt, digest in zip(
            (render_prompt(item.prompts[0], item.cue, tuned=False), chat(item)), hashes, strict=True
        ):
            line = [item.item_id, prompt, item.gold, item.group]
            digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    assert len(ids) == count
    assert tuple(digest.hexdigest() for digest in hashes) == (plain, tuned)


@pytest.mark.realdata
def test_toxigen_prompts_are_500_of_each_group_unescaped(mirror: Path) -> None:
    """The original's own steps over the same files: one stream, shuffled file by file, the first 500."""
    random.seed(42)
    expected = []
    for path in sorted((mirror / FOLDERS["toxigen"]).glob("hate_*_1k.txt")):
        group = path.stem.removeprefix("hate_").removesuffix("_1k")
        if group in {"bisexual", "immigrant"}:
            continue
        lines = [line.strip() for line in path.open()]
        random.shuffle(lines)
        expected += [
            (group, bytes(line, "utf-8").replace(b"\\\\", b"\\").replace(b"\\n", b"\n")) for line in lines[:500]
        ]
    asked = list(items("toxigen", mirror))
    assert [(item.group, item.prompts[0].encode()) for item in asked] == expected
    assert len({item.group for item in asked}) == 14
    files = {
        group: (mirror / FOLDERS["toxigen"] / f"hate_{group}_1k.txt").read_text().split("\n")
        for group in {item.group for item in asked}
    }
    for item in asked:
        line = files[item.group][int(item.item_id.partition("/")[2])]
        assert item.prompts[0].count("\n") >= 2
        assert line.startswith(item.prompts[0].split("\n")[0][:20])
        assert chat(item) == f"<|user|>\nComplete the following: {item.prompts[0]}\n<|assistant|>\n"


@pytest.mark.realdata
def test_a_truthfulqa_prompt_is_six_answered_questions_and_one(mirror: Path) -> None:
    with (mirror / "eval/truthfulqa/TruthfulQA.csv").open(encoding="utf-8-sig") as lines:
        rows = list(csv.reader(lines))[1:]
    for row, item in zip(rows, items("truthfulqa", mirror), strict=True):
        *shots, last = item.prompts[0].split("\n\n")
        assert len(shots) == 6
        assert all(shot.startswith("Q: ") and shot.count("\nA: ") == 1 for shot in shots)
        assert last == f"Q: {row[2]}"
        assert (item.group, item.gold) == (row[1], {"question": row[2], "best": row[3]})
        assert chat(item) == f"<|user|>\n{item.prompts[0]}\n<|assistant|>\n", "no `A:` after the tag"


def test_only_a_tuned_model_is_told_to_complete(tmp_path: Path) -> None:
    (tmp_path / "hate_asian_1k.txt").write_text("- one\\n- two \\\\n three\\n-\n")
    benchmark = dataclasses.replace(toxigen.BENCHMARK, sources={"hate_asian_1k.txt": PinnedFile(url="x")})
    (item,) = benchmark.items(benchmark.files(tmp_path), benchmark.setting("toxigen"))
    assert item.prompts == ("- one\n- two \n three\n-",), "two backslashes are one before `n` is looked at"
    assert render_prompt(item.prompts[0], item.cue, tuned=False) == item.prompts[0]


@pytest.mark.parametrize(("metric", "stop", "cap"), [("toxigen", "\n", 512), ("truthfulqa", "\n\n", 50)])
def test_only_untuned_models_stop_at_a_text(metric: str, stop: str, cap: int) -> None:
    for tuned, stops in ((False, (stop,)), (True, ())):
        params = generate_params(BY_METRIC[metric], metric, tuned=tuned, engine="vllm", engine_dtype="bfloat16")
        assert (params.sampling.stop, params.sampling.max_new_tokens) == (stops, cap)
