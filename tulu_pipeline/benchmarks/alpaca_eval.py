"""AlpacaEval: open instructions, answered at length, compared with a reference model's answers.

What it is
    805 instructions of five origins with the answers of text-davinci-003 (at most 300 tokens each), the reference.
    An evaluator says which of two answers is better; the metric is the share of wins, a tie counting half.
License
    Apache-2.0 (code and outputs); the instructions CC-BY-NC-4.0.
Citation
    Li et al. 2023, "AlpacaEval: An Automatic Evaluator of Instruction-following Models"; the evaluator by unique
    tokens: Wang et al. 2023, "How Far Can Camels Go?", Appendix H.
Pinned source
    github.com/tatsu-lab/alpaca_eval at cd543a14, `results/text_davinci_003/model_outputs.json`.
The paper's numbers
    Greedy, at most 8,192 new tokens (in fact what the model's context leaves), chat format always; models that were
    not tuned have no number.
Deviations
    The annotator is GPT-4's snapshot of March 2023, as in the paper; it is retired, so an experiment names another one
    (see `docs/judges.md`), and its column says whom. The false evaluator (more unique tokens win) is a metric of its
    own, and asks nobody. For it the paper compared with davinci-003 answers of up to 2,048 tokens; these are the
    shorter ones, and `AGAINST_2048_TOKENS` is the benchmark with the others, which were never downloaded here. Beside
    the win rate stands one at equal length (`lc_minimal`, see `scoring/length_control.py`), which is ours.

A worked example, as the contract test runs it: a judge's reply `{"verdict": "tie"}` scores 0.5.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import HubFile, PinnedFile, Source
from tulu_pipeline.errors import BadInput
from tulu_pipeline.judging.false_evaluator import WIN_SHARE
from tulu_pipeline.judging.replies import verdict_of
from tulu_pipeline.scoring.flags import text_flags
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore, Sampling, Setting
from tulu_pipeline.specs.judge import MISSING, Annotator, FalseEvaluator

_COMMIT = "cd543a149df89434d8a54582c0151c0b945c3d20"
_REFERENCES = "reference_outputs.json"
_RAW = f"https://raw.githubusercontent.com/tatsu-lab/alpaca_eval/{_COMMIT}"

# Flags of verdicts that every table counts.
_FLAGS = {"tie": ("tie",), "unreadable": ("unreadable",), "missing": (MISSING,)}


def read_items(files: Mapping[str, Path], setting: Setting) -> Iterator[Item]:
    """The instructions in the order of the file; `gold` is the reference model's answer.

    The file is one of outputs (`output`) or of annotations, which hold the reference too (`output_1`). Where there is
    a `reference_outputs.json`, the answers are those, found by their instructions.

    Raises:
        BadInput: broken JSON, a row without a text, or an instruction without a reference.
    """
    path = files["model_outputs.json"]
    others = _references(files[_REFERENCES]) if _REFERENCES in files else None
    for index, row in enumerate(_rows(path)):
        reference = "output_1" if "output_1" in row else "output"
        _check_texts(row, ("instruction", reference, "dataset"), f"{path}, row {index}")
        gold, instruction = row[reference], row["instruction"]
        if others is not None:
            if instruction not in others:
                raise BadInput(f"no answer to the instruction of row {index}", str(files[_REFERENCES]), "add one")
            gold = others[instruction]
        yield Item(item_id=f"alpaca_eval_{index}", prompts=(instruction,), gold=gold, group=row["dataset"])


def _references(path: Path) -> dict[str, str]:
    """Answers by instruction; what a row calls its `input` follows the instruction, as in the benchmark."""
    answers = {}
    for index, row in enumerate(_rows(path)):
        _check_texts(row, ("instruction", "output"), f"{path}, row {index}")
        given = row.get("input")
        answers[f"{row['instruction']}\n\n{given}" if given else row["instruction"]] = row["output"]
    return answers


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise BadInput(
            f"broken JSON: {error.msg}", f"{path}:{error.lineno}", "mend the file, or download it again"
        ) from error
    return rows


def _check_texts(row: Mapping[str, Any], fields: tuple[str, ...], where: str) -> None:
    missing = [field for field in fields if not isinstance(row.get(field), str)]
    if missing:
        raise BadInput(f"no text in `{missing[0]}`", where, f"give the row a `{missing[0]}`")


def with_reference(source: Source) -> Benchmark:
    """The benchmark with another reference model's answers: a file of outputs, or of annotations against them."""
    return replace(BENCHMARK, sources={"model_outputs.json": source})


def score(item: Item, completion: Completion, reply: Mapping[str, Any] | None = None) -> ItemScore:
    """The evaluator's verdict as 1, 0.5 or 0; `strict` is the same. None where there is no reply that can be read.

    Raises:
        BadInput: no reply, or a verdict that is none.
    """
    verdict = None if reply is None else verdict_of(reply)
    flipped = bool(reply and reply.get("flipped"))
    if verdict is None:
        raise BadInput(f"no verdict: {reply!r}", item.item_id, "judge the completions first: `--until judge`")
    win = WIN_SHARE.get(verdict)
    flags = (*text_flags(completion), *(_FLAGS.get(verdict, ())), *(("judge_flipped",) if flipped else ()))
    return ItemScore(
        item_id=item.item_id,
        group=item.group,
        scores={"paper": win, "strict": win},
        extracted={"paper": verdict, "strict": verdict},
        flags=flags,
        gold=str(item.gold),
    )


def annotator(model: str, name: str, *, provider: str = "openai", both_orders: bool = False) -> Annotator:
    """A judge with the prompt that the library's GPT-4 annotators share.

    Args:
        model: what replies.
        name: for tables.
        provider: whose address and key the environment has.
        both_orders: ask about each pair twice.
    """
    prompt = PinnedFile(
        url=f"{_RAW}/src/alpaca_eval/evaluators_configs/alpaca_eval_gpt4/alpaca_eval.txt",
        sha256="cf4bace43fa6ac71944b9ca2506587ad7c509478a219e98a3950abf9d5b42a98",
    )
    return Annotator(name=name, prompt=prompt, model=model, provider=provider, both_orders=both_orders)


# The paper's judge. OpenAI has retired this snapshot; the later one replies to whoever has access to it.
GPT4_0314 = annotator("gpt-4-0314", "alpaca_eval_gpt4_0314")
GPT4_0613 = annotator("gpt-4-0613", "alpaca_eval_gpt4_0613")

BENCHMARK = Benchmark(
    name="alpaca_eval",
    module=__name__,
    title="AlpacaEval",
    citation="Li et al. 2023, AlpacaEval: An Automatic Evaluator of Instruction-following Models",
    license="Apache-2.0; instructions CC-BY-NC-4.0",
    url="https://github.com/tatsu-lab/alpaca_eval",
    sources={
        "model_outputs.json": PinnedFile(
            url=f"{_RAW}/results/text_davinci_003/model_outputs.json",
            sha256="af0bc112f08c88bf589bbfe6fc1036806d0a0f6fec9c4d5a4db860f5afe73b4b",
        ),
    },
    settings=(
        Setting(
            metric="alpaca_eval",
            title="AlpacaEval",
            sampling=Sampling(max_new_tokens=8192),
            tuned_only=True,
            judge=GPT4_0314,
            length_controlled=True,
        ),
        Setting(
            metric="alpaca_eval_unique_tokens",
            title="AlpacaEval, by unique tokens",
            sampling=Sampling(max_new_tokens=8192),
            tuned_only=True,
            judge=FalseEvaluator(),
            averaged=False,
            same_completions_as="alpaca_eval",
        ),
    ),
    items=read_items,
    score=score,
    prompt_version=1,
    scorer_version=2,
)

_2048 = "_against_2048_tokens"
# With the answers that the paper's false evaluator compared with: text-davinci-003's of up to 2,048 tokens.
AGAINST_2048_TOKENS = replace(
    BENCHMARK,
    sources={
        **BENCHMARK.sources,
        _REFERENCES: HubFile(
            repo="hamishivi/alpaca-farm-davinci-003-2048-token",
            path="davinci_003_outputs.json",
            revision="95d6ffdab97aaf797acfe61661cdc8f9bc8757db",
        ),
    },
    settings=tuple(
        replace(
            each,
            metric=f"{each.metric}{_2048}",
            title=f"{each.title}, against 2,048 tokens",
            same_completions_as=each.same_completions_as and f"{each.same_completions_as}{_2048}",
        )
        for each in BENCHMARK.settings
    ),
)
