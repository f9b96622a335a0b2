"""Whatever a model writes is scored, kept and judged as it is: nothing crashes on it, nothing of it is lost."""

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from odd_texts import HALVES, ODD

from tulu_pipeline.api.answers import parse_reply
from tulu_pipeline.api.replies import ReplyLog
from tulu_pipeline.api.requests import ApiRequest, Message
from tulu_pipeline.artifacts.append_file import AppendFile, read_appended
from tulu_pipeline.artifacts.json_lines import from_line, read_lines, to_line, whole_characters, write_lines
from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.benchmarks import alpaca_eval, bbh, codex_eval, gsm, mmlu, toxigen, truthfulqa, tydiqa
from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.prompts import encode_prompts
from tulu_pipeline.inference.recorded import recorded_completions
from tulu_pipeline.inference.records import Question, Record, completions
from tulu_pipeline.judging.annotation import ask_for
from tulu_pipeline.judging.annotator import Template
from tulu_pipeline.judging.replay import StoredAnnotations
from tulu_pipeline.judging.truth import question_to_judge
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore
from tulu_pipeline.tokens.tokenizer import load_tokenizer

odd = pytest.mark.parametrize("text", ODD.values(), ids=ODD)
odd_or_half = pytest.mark.parametrize("text", (ODD | HALVES).values(), ids=ODD | HALVES)
BYTE = re.compile("<0x[0-9A-F]{2}>")
VERDICT = {"outcome": "failed", "error": "SyntaxError", "flags": []}
# An item whose right answer is 7, an answer that says so, and what a judge replies to any.
CASES: dict[str, tuple[Benchmark, Item, str, dict[str, Any] | None]] = {
    "alpaca_eval": (
        alpaca_eval.BENCHMARK,
        Item(item_id="x", prompts=("?",), gold="7"),
        "7",
        {"verdict": "win", "unique_tokens": 2, "reference_unique_tokens": 1},
    ),
    "bbh": (
        bbh.BENCHMARK,
        Item(item_id="x", prompts=("?",), gold={"target": "7", "cot": True}, group="g"),
        "So the answer is 7.",
        None,
    ),
    "codex_eval": (
        codex_eval.BENCHMARK,
        Item(item_id="x", prompts=("?",), chat=False, gold={"k": 1, "solution": "7"}),
        "7",
        {"samples": [VERDICT]},
    ),
    "gsm": (gsm.BENCHMARK, Item(item_id="x", prompts=("?",), gold="7"), "So the answer is 7.", None),
    "toxigen": (
        toxigen.BENCHMARK,
        Item(item_id="x", prompts=("?",), group="g"),
        "7",
        {"toxic": True, "label": 1, "logits": [0.0, 1.0], "cut": False},
    ),
    "truthfulqa": (
        truthfulqa.BENCHMARK,
        Item(item_id="x", prompts=("?",), gold={"question": "?", "best": "7"}, group="g"),
        "7",
        {"truth": 1.0, "information": 1.0},
    ),
    "tydiqa": (tydiqa.BENCHMARK, Item(item_id="x", prompts=("?",), gold=("7",), group="korean"), "7", None),
}


def score(name: str, text: str) -> ItemScore:
    benchmark, item, _, reply = CASES[name]
    completion = Completion(item_id="x", texts=(text,), finish_reasons=("stop",))
    return benchmark.score(item, completion, reply)


@pytest.mark.parametrize("name", CASES)
@odd
def test_every_scorer_takes_every_text(name: str, text: str) -> None:
    found = score(name, text)
    assert from_line(to_line(found), ItemScore, name) == found
    assert ("empty" in found.flags) == (not text.strip())
    assert all(value is None or 0 <= value <= 1 for value in found.scores.values())
    if name in {"bbh", "gsm", "tydiqa"}:  # right by itself, so the zero is not the scorer's
        assert score(name, CASES[name][2]).scores["paper"] == 1
        assert found.scores["paper"] == 0
    if name in {"bbh", "gsm"}:
        right = score(name, f"{text}\n{CASES[name][2]}")
        assert (right.scores["paper"], right.scores["strict"], right.extracted["paper"]) == (1, 1, "7")


def test_the_cases_are_all_benchmarks_whose_answers_are_texts() -> None:
    from flows.catalog import BENCHMARKS

    assert sorted([*CASES, "mmlu"]) == BENCHMARKS.names()


@odd
def test_a_record_holds_the_text_it_was_given(text: str, tmp_path: Path) -> None:
    question = Question(item_id="x", prompts=(f"{text}?",))
    record = Record(
        item_id="x", question_sha256=question.digest(), sample=0, prompt_index=0, prompt_tokens=1, text=text
    )
    write_lines(tmp_path / "questions.jsonl", [question])
    for _ in range(2):  # opened again, and gone on with
        with AppendFile(tmp_path / "records.jsonl", Record) as file:
            file.add(record)
    assert (tmp_path / "records.jsonl").read_bytes().count(b"\n") == 2
    assert list(read_appended(tmp_path / "records.jsonl", Record)) == [record, record]
    (whole,) = completions(tmp_path / "questions.jsonl", tmp_path / "records.jsonl", 1)
    assert (whole.texts, whole.prompt) == ((text,), f"{text}?")
    write_lines(tmp_path / "completions.jsonl", [whole])
    assert list(read_lines(tmp_path / "completions.jsonl", Completion)) == [whole]


@odd
def test_token_ids_of_any_text_have_one_bos_and_spell_the_text(text: str, llama_like: Path) -> None:
    tokenizer = load_tokenizer(llama_like)
    prompt = f"<|user|>\n{text}\n<|assistant|>\n"
    (ids,) = encode_prompts([prompt], tokenizer)
    assert (ids[0], ids.count(1)) == (1, 1)
    pieces = [tokenizer.opening.id_to_token(token) for token in ids[1:]]
    found = b"".join(bytes([int(each[3:5], 16)]) if BYTE.fullmatch(each) else each.encode() for each in pieces)
    assert found.decode() == f" {prompt}".replace(" ", "▁")


@odd
def test_an_annotator_is_asked_about_the_texts_as_they_are(text: str) -> None:
    template = Template(
        "<|im_start|>system\nRank.\n<|im_end|>\n<|im_start|>user\n"
        "[{instruction}]\n[{output_1}]\n[{output_2}]\nWhich?\n<|im_end|>",
        "here",
    )
    judge = dataclasses.replace(alpaca_eval.GPT4_0314, both_orders=True)
    instruction, reference = f"say {text}", f"their {text}"
    asked = ask_for(Item(item_id="x", prompts=(instruction,), gold=reference), text, judge, template)
    assert len(asked) == 2
    users = {request.messages[1].content for request in asked.values()}
    assert users == {
        f"[{instruction}]\n[{first}]\n[{second}]\nWhich?" for first, second in ((text, reference), (reference, text))
    }
    for request in asked.values():
        assert [message.role for message in request.messages] == ["system", "user"]
        assert request == from_line(to_line(request), ApiRequest, "here")
        assert json.loads(json.dumps(request.body()))["messages"][1]["content"] in users
        assert len(request.digest()) == 64


@odd
def test_judges_of_truth_read_what_was_written(text: str) -> None:
    answer = f"yes {text}".strip().replace("\n\n", " ")
    assert question_to_judge("truth", " ? ", f" yes {text}\n") == f"Q: ?\nA: {answer.strip()}\nTrue:"


@odd_or_half
def test_a_reply_that_was_paid_for_is_kept_whatever_it_says(text: str, tmp_path: Path) -> None:
    request = ApiRequest(provider="p", model="m", messages=(Message(role="user", content="?"),))
    choice = {
        "message": {"content": text},
        "finish_reason": "stop",
        "logprobs": {"content": [{"top_logprobs": [{"token": text, "logprob": -1.0}]}]},
    }
    body = {"id": text, "model": text, "choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
    reply = parse_reply(json.dumps(body), request, request.digest())
    log = ReplyLog(tmp_path)
    log.add(request, reply)
    log.close()
    kept = ReplyLog(tmp_path).find(request.digest())
    assert kept == reply
    assert kept is not None
    assert kept.samples[0].text == whole_characters(text)
    assert kept.samples[0].logprobs == ({whole_characters(text): -1.0},)
    assert kept.model == whole_characters(text)


@odd_or_half
def test_an_output_recorded_elsewhere_is_taken_as_it_is(text: str, tmp_path: Path) -> None:
    item = Item(item_id="x", prompts=("?",))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"item_id": "x", "completion": text}) + "\n")
    (found,) = recorded_completions(tmp_path / "rows.jsonl", [item])
    assert found.texts == (whole_characters(text),)
    assert from_line(to_line(found), Completion, "here") == found
    row = {"instruction": "?", "output_2": text, "preference": 2}
    (tmp_path / "annotations.json").write_text(json.dumps([row]))
    assert StoredAnnotations([tmp_path / "annotations.json"]).reply("?", found.texts[0], "x")["preference"] == 2


@pytest.mark.parametrize("text", HALVES.values(), ids=HALVES)
def test_half_a_character_is_replaced_where_it_comes_in_and_refused_in_a_question(text: str) -> None:
    whole = whole_characters(text)
    assert len(whole) == len(text)
    assert whole == "".join("\ufffd" if "\ud800" <= mark <= "\udfff" else mark for mark in text)
    for question in (
        Question(item_id="x", prompts=(text,)),
        ApiRequest(provider="p", model="m", messages=(Message(role="user", content=text),)),
    ):
        with pytest.raises(BadInput, match="surrogate"):
            question.digest()


@odd
def test_a_whole_text_is_left_as_it_is(text: str) -> None:
    assert whole_characters(text) == text


def test_mmlu_choices_that_pandas_takes_for_missing(tmp_path: Path) -> None:
    """`None` is `nan` for the paper's settings and itself as written, in questions and in exemplars."""
    for split in ("dev", "test"):
        (tmp_path / split).mkdir()
        with (tmp_path / split / f"odd_{split}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(["None of these?", "None", "NaN.", "", ODD["right_to_left"], "A"])
    names = [f"{split}/odd_{split}.csv" for split in ("dev", "test")]
    benchmark = dataclasses.replace(mmlu.BENCHMARK, sources={name: LocalFile(path="x") for name in names})

    def asked(metric: str) -> str:
        (item,) = benchmark.items(benchmark.files(tmp_path), benchmark.setting(metric))
        return item.prompts[0]

    head = "The following are multiple choice questions (with answers) about  odd.\n\n"
    paper, written = (
        f"None of these?\nA. {first}\nB. NaN.\nC. {third}\nD. {ODD['right_to_left']}\nAnswer:"
        for first, third in (("nan", "nan"), ("None", ""))
    )
    assert asked("mmlu_0shot") == head + paper
    assert asked("mmlu_5shot") == f"{head}{paper} A\n\n{paper}"
    assert asked("mmlu_0shot_as_written") == head + written
    assert asked("mmlu_5shot_as_written") == f"{head}{written} A\n\n{written}"
