"""The shape of the paper's matrix for timing plans: 12 datasets x 3 models x 13 metrics and all below. Never run."""

from __future__ import annotations

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.specs.benchmark import Benchmark, Sampling, Setting
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import FalseEvaluator
from tulu_pipeline.specs.mixture import single
from tulu_pipeline.specs.model import PretrainedModel, PretrainedTokenizer

DATASETS = 12
METRICS = {
    "mmlu": ("mmlu_0shot", "mmlu_5shot"),
    "gsm": ("gsm_direct", "gsm_cot"),
    "bbh": ("bbh_direct", "bbh_cot"),
    "tydiqa": ("tydiqa_gp", "tydiqa_cb"),
    "codex_eval": ("codex_eval_p1", "codex_eval_p10"),
    "toxigen": ("toxigen",),
    "truthfulqa": ("truthfulqa",),
    "alpaca_eval": ("alpaca_eval",),
}


def _source(number: int) -> PinnedFile:
    return PinnedFile(url=f"https://example.org/{number}", sha256=f"{number:064x}")


def _nothing(*_: object) -> None:
    raise NotImplementedError("this experiment is planned, never run")


def _dataset(number: int) -> Dataset:
    return Dataset(
        name=f"dataset_{number}",
        module="perf.matrix",
        title="",
        citation="",
        license="",
        url="",
        sources={"rows.jsonl": _source(number)},
        read=_nothing,  # type: ignore[arg-type]
        convert=_nothing,  # type: ignore[arg-type]
        converter_version=1,
    )


def _benchmark(name: str, number: int) -> Benchmark:
    judge = FalseEvaluator() if name == "alpaca_eval" else None
    settings = tuple(
        Setting(metric=metric, title=metric, sampling=Sampling(), tuned_only=bool(judge), judge=judge)
        for metric in METRICS[name]
    )
    return Benchmark(
        name=name,
        module="perf.matrix",
        title=name,
        citation="",
        license="",
        url="",
        sources={"test.jsonl": _source(100 + number)},
        settings=settings,
        items=_nothing,  # type: ignore[arg-type]
        score=_nothing,  # type: ignore[arg-type]
        prompt_version=1,
        scorer_version=1,
    )


def _model(name: str, number: int) -> PretrainedModel:
    return PretrainedModel(
        name=name,
        sources={"model.safetensors": _source(200 + number)},
        parameters=0,
        pretraining_tokens=0,
        context_tokens=2048,
        license="",
        tokenizer=PretrainedTokenizer(name="llama", sources={"tokenizer.json": _source(300)}),
    )


EXPERIMENT = Experiment(
    name="matrix",
    title="12 datasets x 3 models x 13 metrics",
    hypothesis="a plan that has nothing to do costs less than a second",
    models=tuple(_model(name, number) for number, name in enumerate(("llama-7b", "llama-13b", "llama2-7b"))),
    mixtures=tuple(single(f"dataset_{number}") for number in range(DATASETS)),
    datasets=tuple(_dataset(number) for number in range(DATASETS)),
    own_benchmarks=tuple(_benchmark(name, number) for number, name in enumerate(METRICS)),
    benchmarks=METRICS,
)
