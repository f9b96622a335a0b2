"""The real benchmarks' items from the mirror, and the texts that a model is asked."""

from collections.abc import Callable, Iterator
from pathlib import Path

from tulu_pipeline.benchmarks import alpaca_eval, bbh, codex_eval, gsm, mmlu, toxigen, truthfulqa, tydiqa
from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.specs.benchmark import Benchmark, Item

FOLDERS = {
    "alpaca_eval": "eval/alpaca_eval/results/text_davinci_003",
    "bbh": "eval/bbh",
    "codex_eval": "eval/codex_humaneval",
    "gsm": "eval/gsm8k",
    "mmlu": "eval/mmlu/data",
    "toxigen": "eval/toxigen/prompts",
    "truthfulqa": "eval/truthfulqa",
    "tydiqa": "eval/tydiqa/language_data",
}
# What the mirror has of TyDiQA: all of the development set, training questions of three languages.
WITH_TRAIN = ("english", "korean", "swahili")
BENCHMARKS: tuple[Benchmark, ...] = (
    *(module.BENCHMARK for module in (alpaca_eval, bbh, codex_eval, gsm, mmlu, toxigen, truthfulqa)),
    tydiqa.reduced(WITH_TRAIN),
)
BY_METRIC = {setting.metric: benchmark for benchmark in BENCHMARKS for setting in benchmark.settings}


def whole(text: str, tokens: int) -> str:
    """A passage that is short enough for every tokenizer."""
    return text


def items(metric: str, mirror: Path, cut: Callable[[str, int], str] = whole) -> Iterator[Item]:
    """The items of a setting, with their prompts."""
    benchmark = BY_METRIC[metric]
    for item in benchmark.items(benchmark.files(mirror / FOLDERS[benchmark.name]), benchmark.setting(metric)):
        yield benchmark.render(item, cut) if benchmark.render is not None else item


def asked(item: Item, *, tuned: bool) -> list[str]:
    """The texts that a model is asked, best first."""
    if not item.chat:
        tuned = False
    cue = item.cue_tuned if tuned and item.cue_tuned is not None else item.cue
    lead = item.lead_tuned if tuned else ""
    return [render_prompt(lead + prompt, cue, tuned=tuned) for prompt in item.prompts]
