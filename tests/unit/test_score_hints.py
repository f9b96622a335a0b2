"""What `tulu score` says of a judge that lacks something."""

from pathlib import Path

import pytest

from flows.score import score_session, with_ways_out
from tulu_pipeline.artifacts.run import Failure
from tulu_pipeline.errors import BadInput, TuluError


@pytest.mark.parametrize(
    ("metric", "failed", "way"),
    [
        ("alpaca_eval_unique_tokens", "download[llama-tokenizer]", "`--tokenizer`"),
        ("alpaca_eval", "judge[mine/alpaca_eval]", "`--benchmark alpaca_eval_unique_tokens`"),
        ("alpaca_eval", "import[mine/alpaca_eval]", ""),
        ("gsm_cot", "score[mine/gsm_cot]", ""),
    ],
)
def test_a_failure_of_what_a_judge_needs_tells_what_else_there_is(
    tmp_path: Path, metric: str, failed: str, way: str
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"item_id": "a", "completion": "b"}\n')
    session = score_session(file, metric, store=str(tmp_path / "store"))
    assert failed in session.plan.nodes
    failure = Failure(failed, TuluError("what", "where", "mend it"))
    (told,) = with_ways_out(session, [failure])
    assert (told.name, told.error.what, told.error.where) == (failed, "what", "where")
    assert told.error.fix.startswith("mend it; or ") if way else told == failure
    assert way in told.error.fix


def test_a_paid_judge_of_own_completions_has_a_bound(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"item_id": "a", "completion": "b"}\n')
    session = score_session(file, "alpaca_eval", store=str(tmp_path / "store"), max_usd="0.5")
    assert session.request.max_usd == "0.5"


def test_another_model_judges_where_one_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"item_id": "a", "completion": "b"}\n')
    session = score_session(file, "alpaca_eval", judge="gpt-new", store=str(tmp_path / "store"))
    judge = session.plan.nodes["judge[mine/alpaca_eval]"].artifact.params.judge
    assert (judge.model, judge.provider) == ("gpt-new", "openai")
    assert "gpt-new" in session.experiment.judges["alpaca_eval"].called
    with pytest.raises(BadInput, match="not ranked by a model"):
        score_session(file, "gsm_cot", judge="gpt-new", store=str(tmp_path / "store"))
