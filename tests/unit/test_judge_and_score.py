"""The false evaluator's replies become a win rate; completions meet their items."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from tasks.generate import tensor_parallel
from tasks.judge import JudgeParams, run_judge
from tasks.score import ScoreParams, run_score
from tulu_pipeline.artifacts.json_lines import read_lines, write_lines
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.errors import BadInput
from tulu_pipeline.judging.replies import Reply
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Completion, ItemScore
from tulu_pipeline.specs.judge import FalseEvaluator

REFERENCES = ["def main", "a b c d e f g", "def def def", "one"]
OUTPUTS = ["def main return if else", "a", "def def def", ""]  # more unique tokens, fewer, as many, none
BENCHMARK = dataclasses.replace(alpaca_eval.BENCHMARK, sources={"model_outputs.json": LocalFile(path="x")})


def run(run_stage: Any, params: Any, folder: Path, **inputs: Path) -> Any:
    job = Job(
        name="stage[cell]", params=params, inputs=inputs, sources={}, out=folder, work=folder, publish=lambda _: None
    )
    folder.mkdir(exist_ok=True)
    return run_stage(job, RunContext(profile=Profile(), settings=read_settings()))


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    rows = [
        {"instruction": f"Do {n}", "output": text, "dataset": "koala" if n % 2 else "oasst"}
        for n, text in enumerate(REFERENCES)
    ]
    (tmp_path / "model_outputs.json").write_text(json.dumps(rows))
    completions = [
        Completion(item_id=f"alpaca_eval_{n}", texts=(text,), finish_reasons=("stop",), completion_tokens=(1,))
        for n, text in enumerate(OUTPUTS)
    ]
    write_lines(tmp_path / "completions.jsonl", completions)
    return tmp_path


def test_more_unique_tokens_win_and_a_tie_counts_half(asked: Path, byte_level: Path, tmp_path: Path) -> None:
    judge = JudgeParams(benchmark="alpaca_eval", metric="alpaca_eval", judge=FalseEvaluator(), definition=BENCHMARK)
    counts = run(run_judge, judge, tmp_path / "judge", benchmark=asked, completions=asked, tokenizer=byte_level)
    assert counts == {"win": 1, "tie": 1, "loss": 2}
    replies = {reply.item_id: reply.reply for reply in read_lines(tmp_path / "judge" / "replies.jsonl", Reply)}
    assert replies["alpaca_eval_0"]["verdict"] == "win"
    assert replies["alpaca_eval_1"]["verdict"] == "loss"
    assert replies["alpaca_eval_3"] == {"verdict": "loss", "unique_tokens": 0, "reference_unique_tokens": 1}

    score = ScoreParams(benchmark="alpaca_eval", metric="alpaca_eval", definition=BENCHMARK)
    metrics = run(run_score, score, tmp_path / "score", benchmark=asked, completions=asked, replies=tmp_path / "judge")
    wins = [{"win": 1.0, "tie": 0.5, "loss": 0.0}[replies[f"alpaca_eval_{n}"]["verdict"]] for n in range(4)]
    value = sum(wins) / 4
    error = math.sqrt(sum((win - value) ** 2 for win in wins) / 3 / 4)
    paper = metrics["scorers"]["paper"]
    assert paper["value"] == value
    assert paper["standard_error"] == pytest.approx(error)
    assert paper["high"] == pytest.approx(min(1, value + 1.96 * error), abs=1e-4)
    assert paper["method"] == "normal"
    assert metrics["flags"]["empty"] == 1
    assert metrics == json.loads((tmp_path / "score" / "metrics.json").read_text())
    items = list(read_lines(tmp_path / "score" / "items.jsonl", ItemScore))
    assert [item.scores["paper"] for item in items] == wins
    assert items[1].gold == "a b c d e f g"


def test_a_completion_without_its_item_is_an_error(asked: Path, byte_level: Path, tmp_path: Path) -> None:
    write_lines(asked / "completions.jsonl", [Completion(item_id="alpaca_eval_9", texts=("x",))])
    judge = JudgeParams(benchmark="alpaca_eval", metric="alpaca_eval", judge=FalseEvaluator(), definition=BENCHMARK)
    with pytest.raises(BadInput, match="no item `alpaca_eval_9`") as error:
        run(run_judge, judge, tmp_path / "judge", benchmark=asked, completions=asked, tokenizer=byte_level)
    assert error.value.where.endswith("completions.jsonl:1")


def test_an_item_without_a_reply_is_an_error_and_not_a_loss(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "replies.jsonl").write_text('{"item_id": "alpaca_eval_0", "reply": {"verdict": "win"}}\n')
    score = ScoreParams(benchmark="alpaca_eval", metric="alpaca_eval", definition=BENCHMARK)
    with pytest.raises(BadInput, match="no reply to item `alpaca_eval_1`"):
        run(run_score, score, tmp_path / "score", benchmark=asked, completions=asked, replies=tmp_path / "judge")


def test_a_broken_line_is_named(asked: Path, byte_level: Path, tmp_path: Path) -> None:
    with (asked / "completions.jsonl").open("a") as lines:
        lines.write('{"item_id": "alp\n')
    with pytest.raises(BadInput) as error:
        list(read_lines(asked / "completions.jsonl", Completion))
    assert error.value.where.endswith("completions.jsonl:5")


@pytest.mark.parametrize(
    ("heads", "shared", "ranks", "gpus", "parts"),
    [
        (32, 32, 8, 8, 8),
        (32, 32, 8, 1, 1),
        (32, 32, 2, 8, 2),
        (32, 32, 2, 0, 1),
        (3, 3, 4, 4, 3),
        (4, 2, 8, 8, 2),
        (3, 3, 2, 2, 1),
    ],
)
def test_a_checkpoint_is_split_over_as_many_gpus_as_are_visible_and_its_heads_and_the_profile_allow(
    tmp_path: Path, heads: int, shared: int, ranks: int, gpus: int, parts: int
) -> None:
    config = {"num_attention_heads": heads, "num_key_value_heads": shared}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert tensor_parallel(tmp_path, ranks=ranks, gpus=gpus) == parts
