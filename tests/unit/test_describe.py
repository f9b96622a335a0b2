"""The describe stage: its counts against a slow count of our own, and what it writes twice alike."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from own_templates import SHAPES, write_template, write_tokenizer
from tokenizers import Tokenizer

from tasks.describe import DESCRIBE, DescribeParams
from tasks.normalize import NORMALIZE, NormalizeParams
from tasks.tokenization import TOKENIZE, TokenizeParams
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.chat.conversations import ConversationFile, ConversationWriter
from tulu_pipeline.chat.row_log import RowLog
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.chat.template import render_training
from tulu_pipeline.datasets import alpaca
from tulu_pipeline.errors import Tampered
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.tokens.statistics import LENGTH_BINS, LONG_TOKENS, read_statistics

CONTEXT = RunContext(profile=Profile(), settings=read_settings())
Run = Callable[..., tuple[Path, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run_stage(stage: Any, params: object, **inputs: Path) -> tuple[Path, Any]:
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        out.mkdir()
        job = Job(
            name=f"{stage.name}[x]", params=params, inputs=inputs, sources={}, out=out, work=tmp_path / "work",
            publish=lambda metrics: None,
        )  # fmt: skip
        return out, stage.run(job, CONTEXT)

    return run_stage


def write(folder: Path, conversations: list[Conversation], dropped: tuple[str, ...] = ()) -> Path:
    folder.mkdir()
    with ConversationWriter(folder) as writer:
        for conversation in conversations:
            writer.write(conversation)
    (folder / "aux").mkdir()
    with RowLog(folder / "aux", "dropped") as rows, RowLog(folder / "aux", "changed"):
        for reason in dropped:
            rows.add(row_id="x", where="y", reason=reason)
    return folder


def some() -> list[Conversation]:
    found = []
    for number in range(600):
        user, assistant = Message("user", "so " * (number * 7 % 600)), Message("assistant", f"{number}\n\nyes 🐪 " * 3)
        turn = (user, assistant) * (1 + number % 4)
        system = (Message("system", "be brief " * 50),) if number % 3 == 0 else ()
        language, license_ = ("de", "MIT") if number % 5 == 0 else ("", "")
        found.append(Conversation("toy", f"toy_{number}", system + turn, license_, language))
    return found


def slow_count(conversations: list[Conversation], tokenizer_folder: Path) -> dict[str, Any]:
    """The same numbers by another way: the tokenizer as its file has it, one message at a time."""
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    special = {0, 1, 2}  # typed control tokens would count as one; there are none here

    def tokens(text: str) -> int:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert not special & set(ids)
        return len(ids)

    prompts, completions, lengths = [], [], []
    for conversation in conversations:
        of_users = [tokens(message.content) for message in conversation.messages if message.role == "user"]
        of_assistants = [tokens(message.content) for message in conversation.messages if message.role == "assistant"]
        prompts += of_users
        completions += of_assistants
        lengths.append(sum(of_users) + sum(of_assistants))
    longest = sorted(range(len(lengths)), key=lambda place: (-lengths[place], place))[:10]
    return {
        "instances": len(conversations),
        "mean_rounds": sum(len(each.messages) / 2 for each in conversations) / len(conversations),
        "mean_prompt_tokens": sum(prompts) / len(prompts),
        "mean_completion_tokens": sum(completions) / len(completions),
        "longer_than": {str(long): sum(length > long for length in lengths) for long in LONG_TOKENS},
        "longest": [(conversations[place].id, lengths[place]) for place in longest],
        "lengths": lengths,
        "rounds": sorted(Counter(len(each.messages) / 2 for each in conversations).items()),
    }


def assert_same(folder: Path, conversations: list[Conversation], tokenizer_folder: Path) -> None:
    found, slow = read_statistics(folder), slow_count(conversations, tokenizer_folder)
    assert found.instances == slow["instances"]
    assert found.mean_rounds == pytest.approx(slow["mean_rounds"], rel=1e-12)
    assert found.mean_prompt_tokens == pytest.approx(slow["mean_prompt_tokens"], rel=1e-12)
    assert found.mean_completion_tokens == pytest.approx(slow["mean_completion_tokens"], rel=1e-12)
    assert found.longer_than == slow["longer_than"]
    assert [(long.id, long.tokens) for long in found.longest] == slow["longest"]
    assert list(found.rounds) == slow["rounds"]
    ends = (*LENGTH_BINS, float("inf"))
    starts = (-1, *LENGTH_BINS)
    assert list(found.lengths) == [
        sum(start < length <= end for length in slow["lengths"]) for start, end in zip(starts, ends, strict=True)
    ]


def test_the_counts_are_those_of_a_slow_count(run: Run, tmp_path: Path, llama_like: Path) -> None:
    conversations = some()
    folder = write(tmp_path / "conversations", conversations, dropped=("no answer", "no question", "no answer"))
    params = DescribeParams(dataset="toy", tokenizer_mode="legacy_fast", max_length_tokens=300)
    out, metrics = run(DESCRIBE, params, conversations=folder, tokenizer=llama_like)
    assert_same(out, conversations, llama_like)
    found = read_statistics(out)
    assert found.licenses == {"MIT": 120}
    assert found.languages == {"de": 120}
    assert found.dropped == {"no answer": 2, "no question": 1}
    assert found.changed == {}
    assert found.messages["system"] == 200
    assert metrics["instances"] == 600
    # What training would see is what the tokenize stage writes.
    _, tokenized = run(
        TOKENIZE,
        TokenizeParams(tokenizer_mode="legacy_fast", max_length_tokens=300),
        conversations=folder,
        tokenizer=llama_like,
    )
    assert 0 < found.nothing_to_learn == tokenized["dropped"]
    assert 0 < found.truncated == tokenized["truncated"]
    assert (found.tokens, found.supervised_tokens) == (tokenized["tokens"], tokenized["supervised_tokens"])


def test_a_dataset_in_which_nobody_asks_has_no_prompt_length(run: Run, tmp_path: Path, llama_like: Path) -> None:
    folder = write(tmp_path / "conversations", [Conversation("toy", "toy_0", (Message("assistant", "so"),))])
    out, _ = run(DESCRIBE, DescribeParams(dataset="toy"), conversations=folder, tokenizer=llama_like)
    assert read_statistics(out).mean_prompt_tokens is None
    assert read_statistics(out).mean_rounds == 0.5


def test_the_same_conversations_give_the_same_bytes(run: Run, tmp_path: Path, llama_like: Path) -> None:
    folder = write(tmp_path / "conversations", some())
    params = DescribeParams(dataset="toy", tokenizer_mode="legacy_fast")
    first, second = (
        {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in run(DESCRIBE, params, conversations=folder, tokenizer=llama_like)[0].iterdir()
        }
        for _ in range(2)
    )
    assert first == second
    assert set(first) == {"statistics.json", "shown.json"}


def test_the_conversations_shown_are_drawn_by_id_and_give_back_their_text(
    run: Run, tmp_path: Path, llama_like: Path
) -> None:
    conversations = some()
    params = DescribeParams(dataset="toy", tokenizer_mode="legacy_fast", shown=5, max_length_tokens=10**6)
    whole = write(tmp_path / "whole", conversations)
    fewer = write(tmp_path / "fewer", [each for place, each in enumerate(conversations) if place % 100 != 7])
    shown = [
        json.loads((run(DESCRIBE, params, conversations=folder, tokenizer=llama_like)[0] / "shown.json").read_text())
        for folder in (whole, fewer)
    ]
    by_id = {conversation.id: conversation for conversation in conversations}
    for record in shown[0]:
        assert "".join(record["texts"]) == render_training(by_id[record["id"]])
        assert len(record["ids"]) == len(record["texts"]) == len(record["supervised"])
        assert record["cut"] == 0
    ids = [[record["id"] for record in records] for records in shown]
    assert ids[0] == sorted(ids[0], key=lambda name: int(name.removeprefix("toy_")))
    assert len(ids[0]) == 5
    assert set(ids[0]) - {each.id for each in conversations[7::100]} <= set(ids[1])


def test_what_a_tokenizers_own_template_refuses_is_counted_and_said(run: Run, tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "model", SHAPES["gemma"])
    write_template(tokenizer, SHAPES["gemma"].template)
    conversations = some()[:12]  # every third opens with a system message, which this template refuses
    folder = write(tmp_path / "conversations", conversations)
    params = DescribeParams(dataset="toy", template="own", shown=12)
    out, _ = run(DESCRIBE, params, conversations=folder, tokenizer=tokenizer)
    _, tokenized = run(TOKENIZE, TokenizeParams(template="own"), conversations=folder, tokenizer=tokenizer)
    found = read_statistics(out)
    assert found.nothing_to_learn == tokenized["dropped"] == 4
    assert (found.tokens, found.supervised_tokens) == (tokenized["tokens"], tokenized["supervised_tokens"])
    records = json.loads((out / "shown.json").read_text())
    assert [bool(record["refused"]) for record in records] == [number % 3 == 0 for number in range(12)]


def test_counts_of_dropped_rows_that_are_gone_are_an_error_not_a_zero(
    run: Run, tmp_path: Path, llama_like: Path
) -> None:
    folder = write(tmp_path / "conversations", some()[:3])
    (folder / "aux" / "dropped.jsonl").unlink()
    with pytest.raises(Tampered, match="dropped rows cannot be read"):
        run(DESCRIBE, DescribeParams(dataset="toy"), conversations=folder, tokenizer=llama_like)


@pytest.mark.realdata
def test_alpaca_has_the_instances_and_rounds_of_table_1(
    run: Run, tmp_path: Path, mirror: Path, llama_like: Path
) -> None:
    params = NormalizeParams(dataset="alpaca", definition=alpaca.DATASET)
    conversations, _ = run(NORMALIZE, params, raw=mirror / "train" / "alpaca")
    out, _ = run(
        DESCRIBE,
        DescribeParams(dataset="alpaca", tokenizer_mode="legacy_fast"),
        conversations=conversations,
        tokenizer=llama_like,
    )
    found = read_statistics(out)
    assert found.instances == 52_002
    assert found.mean_rounds == 1.0
    assert found.dropped == {}
    sample = list(ConversationFile(conversations))[::40]
    folder = write(tmp_path / "sample", sample)
    out, _ = run(
        DESCRIBE, DescribeParams(dataset="alpaca", tokenizer_mode="legacy_fast"), conversations=folder,
        tokenizer=llama_like,
    )  # fmt: skip
    assert_same(out, sample, llama_like)
