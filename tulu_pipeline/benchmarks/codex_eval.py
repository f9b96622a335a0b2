"""Codex-Eval (HumanEval): Python functions completed from their head and docstring, checked by executing them.

What it is
    164 problems, each with a prompt that ends in a docstring and a `check` of about eight assertions. A completion
    passes when prompt, completion and check run to their end.
License
    MIT.
Citation
    Chen et al. 2021, "Evaluating Large Language Models Trained on Code", arXiv:2107.03374.
Pinned source
    github.com/openai/human-eval at 6d43fb98, `data/HumanEval.jsonl.gz`.
The paper's numbers
    20 samples of each problem by nucleus sampling (top_p 0.95), at most 512 tokens: pass@1 at temperature 0.1, pass@10
    at temperature 0.8, by the unbiased estimate. The prompt is asked as it stands of every model, tuned ones too.
Deviations
    None in prompts, sampling and the `paper` scorer. Programs run isolated, with Python's library and numpy, where the
    original ran them in its own world, 64 at a time; one that ran out of its 3 seconds while others kept it waiting is
    tried again alone. `strict` counts as failures those that passed but look as if they did so without solving the
    problem. The settings `codex_eval_chat_*` ask tuned models in the chat format, in the words of the original's
    option for that; the paper's numbers are not theirs.

A worked example, as the contract test runs it: of two samples one passed, so pass@1 is 0.5; it says itself what its
values equal, so that `strict` is 0.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.errors import BadInput
from tulu_pipeline.scoring.flags import text_flags
from tulu_pipeline.scoring.pass_at_k import pass_at_k
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore, Sampling, Setting
from tulu_pipeline.specs.judge import Execution

_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
_KS = (1, 5, 10, 20)
_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def read_items(files: Mapping[str, Path], setting: Setting) -> Iterator[Item]:
    """The problems in the order of the file.

    Options of the setting: `k` of its headline, `chat` (asked in the chat format).
    """
    chat = bool(setting.options["chat"])
    for where, row in _rows(files["HumanEval.jsonl.gz"]):
        prompt = row["prompt"]
        yield Item(
            item_id=row["task_id"].replace("HumanEval/", "human_eval_"),
            prompts=(f"Complete the following python function.\n\n\n{prompt}" if chat else prompt,),
            cue=f"Here is the completed function:\n\n\n{prompt}" if chat else "",
            chat=chat,
            gold={
                "before": prompt,
                "after": f"\n{row['test']}\ncheck({row['entry_point']})",
                "entry_point": row["entry_point"],
                "solution": row["canonical_solution"],
                "k": _k(setting, where),
            },
        )


def score(item: Item, completion: Completion, reply: Mapping[str, Any] | None = None) -> ItemScore:
    """`paper`: the setting's pass@k. `strict`: without samples that look like cheats. Beside them each pass@k there is.

    Raises:
        BadInput: no verdicts, or not one for each sample.
    """
    verdicts = (reply or {}).get("samples")
    if not isinstance(verdicts, list | tuple) or len(verdicts) != len(completion.texts):
        raise BadInput(f"no verdicts on its samples: {reply!r}", item.item_id, "execute them: `--until execute`")
    passed = [verdict["outcome"] == "passed" for verdict in verdicts]
    honest = [yes and not verdict["flags"] for yes, verdict in zip(passed, verdicts, strict=True)]
    n, k = len(passed), int(item.gold["k"])
    each = {f"pass@{k}": value for k in _KS if (value := pass_at_k(n, sum(passed), k)) is not None}
    scores = {"paper": pass_at_k(n, sum(passed), k), "strict": pass_at_k(n, sum(honest), k)} | each
    told = {"paper": passed, "strict": honest}
    outcomes = {verdict["outcome"] for verdict in verdicts} - {"passed", "failed"}
    signs = {flag for verdict in verdicts for flag in verdict["flags"]}
    too_few = ("too_few_samples",) if n < k else ()
    return ItemScore(
        item_id=item.item_id,
        group=item.group,
        scores=scores,
        extracted={name: f"{sum(told.get(name, passed))} of {n}" for name in scores},
        flags=(*text_flags(completion), *sorted(outcomes | signs), *too_few),
        gold=str(item.gold["solution"]),
    )


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                where = f"{path}:{number}"
                row = json.loads(line)
                missing = next((field for field in _FIELDS if not isinstance(row.get(field), str)), None)
                if missing is not None:
                    raise BadInput(f"`{missing}` is {row.get(missing)!r}, not a text", where, f"write its `{missing}`")
                yield where, row
    except (gzip.BadGzipFile, EOFError, json.JSONDecodeError, AttributeError) as error:
        raise BadInput(
            f"no file of JSON lines, zipped: {error}", str(path), "download it again: `--refresh download`"
        ) from error


def _k(setting: Setting, where: str) -> int:
    k = int(setting.options["k"])
    if k not in _KS:
        raise BadInput(f"`k` is {k}", f"setting {setting.metric}, {where}", f"write one of {_KS}")
    return k


def _setting(metric: str, title: str, *, k: int, temperature: float, chat: bool) -> Setting:
    # The original stops tuned models at the same texts: what follows a function is no part of it.
    sampling = Sampling(
        max_new_tokens=512, temperature=temperature, top_p=0.95, samples=20, stop=_STOP, stop_tuned=_STOP
    )
    return Setting(
        metric=metric,
        title=title,
        sampling=sampling,
        options={"k": k, "chat": chat},
        tuned_only=chat,
        judge=Execution(),
    )


BENCHMARK = Benchmark(
    name="codex_eval",
    module=__name__,
    title="Codex-Eval (HumanEval)",
    citation="Chen et al. 2021, Evaluating Large Language Models Trained on Code, arXiv:2107.03374",
    license="MIT",
    url="https://github.com/openai/human-eval",
    sources={
        "HumanEval.jsonl.gz": PinnedFile(
            url="https://raw.githubusercontent.com/openai/human-eval/"
            "6d43fb980f9fee3c892a914eda09951f772ad10d/data/HumanEval.jsonl.gz",
            sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
        ),
    },
    settings=(
        _setting("codex_eval_p1", "Codex-Eval P@1", k=1, temperature=0.1, chat=False),
        _setting("codex_eval_p10", "Codex-Eval P@10", k=10, temperature=0.8, chat=False),
        _setting("codex_eval_chat_p1", "Codex-Eval P@1 (chat)", k=1, temperature=0.1, chat=True),
        _setting("codex_eval_chat_p10", "Codex-Eval P@10 (chat)", k=10, temperature=0.8, chat=True),
    ),
    items=read_items,
    score=score,
    prompt_version=1,
    scorer_version=1,
    bootstrap=True,
)
