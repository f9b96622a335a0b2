"""Normalize, mix and tokenize on real files: what they write, count and refuse, and that they write it twice alike."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.mix import MIX, MixParams
from tasks.normalize import NORMALIZE, NormalizeParams
from tasks.tokenization import TOKENIZE, TokenizeParams
from tulu_pipeline.artifacts.canonical import canonical_json
from tulu_pipeline.artifacts.stage import Job, RunContext, Stage
from tulu_pipeline.chat.conversations import ConversationFile, ConversationWriter
from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.datasets import alpaca
from tulu_pipeline.errors import BadInput, StageFailed, Tampered
from tulu_pipeline.models import llama, pythia
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.mixture import Component
from tulu_pipeline.tokens.encode import encode
from tulu_pipeline.tokens.shards import open_tokens
from tulu_pipeline.tokens.tokenizer import load_tokenizer

CONTEXT = RunContext(profile=Profile(), settings=read_settings())


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Path, Mapping[str, Any]]]:
    """Runs a stage into a fresh folder: (folder, metrics)."""

    def run_stage(stage: Stage[Any], params: object, ctx: RunContext = CONTEXT, **inputs: Path) -> Any:
        out = tmp_path / f"out{len(list(tmp_path.glob('out*')))}"
        out.mkdir()
        job = Job(
            name=f"{stage.name}[x]",
            params=params,
            inputs=inputs,
            sources={},
            out=out,
            work=tmp_path / "work",
            publish=lambda metrics: None,
        )
        return out, stage.run(job, ctx)  # type: ignore[arg-type]  # not a batch stage

    return run_stage


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def raw_folder(folder: Path, rows: list[Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "alpaca_data.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return folder


def good_row(number: int) -> dict[str, str]:
    return {"instruction": f"Count to {number}.", "input": "", "output": " ".join(map(str, range(number)))}


def dropped_rows(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "aux" / "dropped.jsonl").read_text().splitlines()]


NORMALIZE_ALPACA = NormalizeParams(dataset="alpaca", definition=alpaca.DATASET)


def test_normalize_keeps_good_rows_and_accounts_for_the_others(run: Any, tmp_path: Path) -> None:
    rows = [
        good_row(3),
        {"instruction": "x"},
        good_row(4),
        good_row(5) | {"output": ""},
        {"output": "x"},
    ]
    out, metrics = run(NORMALIZE, NORMALIZE_ALPACA, raw=raw_folder(tmp_path / "raw", rows))
    assert metrics == {
        "rows": 5,
        "not_drawn": 0,
        "kept": 3,
        "dropped": 2,
        "dropped_by_reason": {"no `output`": 1, "no `instruction`": 1},
        "changed": 0,
        "changed_by_reason": {},
        "rounds_mean": 1.0,
    }
    conversations = list(ConversationFile(out))
    assert [conversation.id for conversation in conversations] == ["alpaca_0", "alpaca_2", "alpaca_3"]
    assert conversations[1].messages[1] == Message("assistant", "0 1 2 3")
    assert [(row["row_id"], row["where"], row["reason"]) for row in dropped_rows(out)] == [
        ("1", "alpaca_data.json:7", "no `output`"),
        ("4", "alpaca_data.json:20", "no `instruction`"),
    ]


def test_a_rows_conversation_does_not_depend_on_other_rows(run: Any, tmp_path: Path) -> None:
    rows = [good_row(number) for number in range(1, 40)]
    one, _ = run(NORMALIZE, NORMALIZE_ALPACA, raw=raw_folder(tmp_path / "raw", rows))
    rows[7] = {"broken": True}
    other, _ = run(NORMALIZE, NORMALIZE_ALPACA, raw=raw_folder(tmp_path / "raw", rows))
    expected = [conversation for conversation in ConversationFile(one) if conversation.id != "alpaca_7"]
    assert list(ConversationFile(other)) == expected


def test_strict_rows_refuse_what_would_be_dropped_and_change_no_bytes_otherwise(run: Any, tmp_path: Path) -> None:
    strict = replace(CONTEXT, strict_rows=True)
    rows: list[Any] = [good_row(number) for number in range(1, 30)]
    raw = raw_folder(tmp_path / "raw", rows)
    assert digests(run(NORMALIZE, NORMALIZE_ALPACA, raw=raw)[0]) == digests(
        run(NORMALIZE, NORMALIZE_ALPACA, strict, raw=raw)[0]
    )
    for number in range(12):
        rows[number + 5] = {"instruction": "no answer"}
    raw = raw_folder(tmp_path / "raw", rows)
    with pytest.raises(BadInput) as caught:
        run(NORMALIZE, NORMALIZE_ALPACA, strict, raw=raw)
    assert caught.value.where == "alpaca_data.json:27"
    assert "12 of 29 rows of `alpaca`" in caught.value.what
    assert caught.value.what.count("no `output`") == 10
    assert "and 2 more" in caught.value.what


def test_a_dataset_without_one_good_row_is_refused(run: Any, tmp_path: Path) -> None:
    for rows, what in (([], "no rows"), ([{}], "all 1 rows were dropped, the first because no `instruction`")):
        with pytest.raises(BadInput, match=what):
            run(NORMALIZE, NORMALIZE_ALPACA, raw=raw_folder(tmp_path / "raw", rows))


def test_two_rows_of_one_id_and_a_converter_that_breaks_are_named(run: Any, tmp_path: Path) -> None:
    raw = raw_folder(tmp_path / "raw", [good_row(1), good_row(2)])
    twice = replace(alpaca.DATASET, read=lambda files: (row for _ in "ab" for row in alpaca.DATASET.read(files)))
    with pytest.raises(BadInput, match="two rows have the id `0`"):
        run(NORMALIZE, NormalizeParams(dataset="alpaca", definition=twice), raw=raw)
    breaks = replace(alpaca.DATASET, convert=lambda row, rng: {}["output"])
    with pytest.raises(StageFailed, match="KeyError") as caught:
        run(NORMALIZE, NormalizeParams(dataset="alpaca", definition=breaks), raw=raw)
    assert caught.value.where == "alpaca_data.json:2, row 0"


def test_the_definition_of_a_dataset_is_no_part_of_the_key() -> None:
    assert canonical_json(NORMALIZE_ALPACA) == '{"dataset":"alpaca","seed":42}'


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """Sixty conversations on disk, of one to three rounds."""
    folder = tmp_path / "conversations"
    folder.mkdir()
    with ConversationWriter(folder) as writer:
        for number in range(60):
            turn = (Message("user", f"Say {number} twice, please."), Message("assistant", f"{number}, {number}"))
            writer.write(Conversation("demo", f"demo_{number}", turn * (1 + number % 3)))
    return folder


def test_mix_draws_the_cap_in_file_order(run: Any, conversations: Path) -> None:
    out, metrics = run(MIX, MixParams(dataset="demo", cap=20), conversations=conversations)
    assert (metrics["rows"], metrics["kept"], metrics["cap"], metrics["note"]) == (60, 20, 20, "")
    assert (metrics["dropped"], metrics["not_drawn"]) == (0, 40)
    everything = list(ConversationFile(conversations))
    drawn = list(ConversationFile(out))
    assert drawn == [conversation for conversation in everything if conversation in drawn]
    assert len(drawn) == 20
    other, _ = run(MIX, MixParams(dataset="demo", cap=20, seed=43), conversations=conversations)
    assert list(ConversationFile(other)) != drawn


def test_mix_keeps_all_and_says_so_where_there_are_fewer_than_the_cap(run: Any, conversations: Path) -> None:
    out, metrics = run(MIX, MixParams(dataset="demo", cap=100), conversations=conversations)
    assert metrics["kept"] == 60
    assert "100" in metrics["note"]
    assert "60" in metrics["note"]
    assert list(ConversationFile(out)) == list(ConversationFile(conversations))


def test_a_cap_below_one_is_refused() -> None:
    with pytest.raises(BadInput, match="the cap is 0"):
        Component(dataset="demo", cap=0)


def test_tokenize_writes_what_encode_gives(run: Any, conversations: Path, llama_like: Path) -> None:
    params = TokenizeParams(tokenizer_mode="legacy_fast", max_length_tokens=60)
    out, metrics = run(TOKENIZE, params, conversations=conversations, tokenizer=llama_like)
    tokens, tokenizer = open_tokens(out), load_tokenizer(llama_like, tokenizer_mode="legacy_fast")
    expected = [
        encode(each, tokenizer, EncodeOptions(max_length_tokens=60)) for each in ConversationFile(conversations)
    ]
    assert len(tokens) == 60
    for row, encoded in enumerate(expected):
        ids, mask = tokens[row]
        assert ids.dtype == np.uint16
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(ids, encoded.input_ids)
        np.testing.assert_array_equal(mask, encoded.loss_mask)
        assert tokens.row_id(row) == f"demo_{row}"
    lengths = [len(encoded.input_ids) for encoded in expected]
    assert tokens.lengths().tolist() == lengths
    assert metrics == {
        "rows": 60,
        "tokens": sum(lengths),
        "supervised_tokens": sum(int(encoded.loss_mask.sum()) for encoded in expected),
        "longest": 60,
        "truncated": sum(encoded.truncated for encoded in expected),
        "cut_answers": metrics["cut_answers"],
        "dropped": 0,
        "encoder": "fast",
    }
    assert 0 < metrics["truncated"] < 60
    assert 0 < metrics["cut_answers"] < metrics["truncated"]
    assert tokens.info["made_by"]["tokenizer_fingerprint"] == tokenizer.fingerprint
    assert tokens.info["made_by"]["loss_span"] == "tulu1"


def test_special_tokens_that_a_value_says_are_compared_and_decide_nothing(
    run: Any, conversations: Path, llama_like: Path
) -> None:
    plain = TokenizeParams(tokenizer_mode="legacy_fast")
    right = replace(plain, special_tokens=llama.TOKENIZER.special_tokens)
    assert canonical_json(right) == canonical_json(plain)
    made = [run(TOKENIZE, each, conversations=conversations, tokenizer=llama_like)[0] for each in (plain, right)]
    assert digests(made[0]) == digests(made[1])
    wrong = replace(plain, special_tokens=pythia.TOKENIZER.special_tokens)
    with pytest.raises(BadInput) as caught:
        run(TOKENIZE, wrong, conversations=conversations, tokenizer=llama_like)
    assert caught.value.what == (
        "bos is `<s>` by the tokenizer's files, and nothing by the model's value; "
        "eos is `</s>` by the tokenizer's files, and `<|endoftext|>` by the model's value"
    )
    assert caught.value.where == str(llama_like)
    assert "special_tokens=SpecialTokens(bos='<s>', eos='</s>', pad_is_new=True)" in caught.value.fix


def test_datasets_opens_what_tokenize_wrote(run: Any, conversations: Path, llama_like: Path) -> None:
    import datasets

    out, _ = run(
        TOKENIZE, TokenizeParams(tokenizer_mode="legacy_fast"), conversations=conversations, tokenizer=llama_like
    )
    opened, tokens = datasets.load_from_disk(str(out)), open_tokens(out)
    assert opened.column_names == ["input_ids", "loss_mask", "id"]
    assert len(opened) == 60
    assert opened[59]["input_ids"] == tokens[59][0].tolist()
    assert opened[59]["loss_mask"] == tokens[59][1].tolist()
    assert opened[59]["id"] == "demo_59"
    assert str(opened.features["input_ids"].feature.dtype) == "uint16"
    parquet = datasets.Dataset.from_parquet(str(conversations / "conversations.parquet"))
    assert parquet[0]["messages"][1] == {"role": "assistant", "content": "0, 0"}


def test_a_conversation_with_nothing_to_learn_is_dropped_and_counted(
    run: Any, tmp_path: Path, llama_like: Path
) -> None:
    folder = tmp_path / "conversations"
    folder.mkdir()
    with ConversationWriter(folder) as writer:
        for name, question in (("short", "Why?"), ("long", "Why? " * 200)):
            writer.write(Conversation("demo", name, (Message("user", question), Message("assistant", "So."))))
    params = TokenizeParams(tokenizer_mode="legacy_fast", max_length_tokens=100)
    out, metrics = run(TOKENIZE, params, conversations=folder, tokenizer=llama_like)
    assert (metrics["rows"], metrics["dropped"], metrics["truncated"]) == (1, 1, 1)
    assert [(row["row_id"], row["reason"]) for row in dropped_rows(out)] == [
        ("long", "nothing to learn in the first 100 tokens")
    ]
    with pytest.raises(BadInput, match="none of 2 conversations"):
        run(TOKENIZE, replace(params, max_length_tokens=3), conversations=folder, tokenizer=llama_like)


def test_each_data_stage_writes_the_same_bytes_twice(
    run: Any, tmp_path: Path, conversations: Path, llama_like: Path
) -> None:
    raw = raw_folder(tmp_path / "raw", [good_row(number) for number in range(9000)[::3]])
    cases: list[tuple[Stage[Any], object, dict[str, Path]]] = [
        (NORMALIZE, NORMALIZE_ALPACA, {"raw": raw}),
        (MIX, MixParams(dataset="demo", cap=17), {"conversations": conversations}),
        (TOKENIZE, TokenizeParams(), {"conversations": conversations, "tokenizer": llama_like}),
    ]
    for stage, params, inputs in cases:
        first, second = (digests(run(stage, params, **inputs)[0]) for _ in range(2))
        assert first == second, stage.name


def test_a_damaged_file_is_named(run: Any, conversations: Path, llama_like: Path) -> None:
    out, _ = run(TOKENIZE, TokenizeParams(), conversations=conversations, tokenizer=llama_like)
    shard = out / "tokens-00000.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Tampered, match="bytes instead of") as caught:
        open_tokens(out)
    assert caught.value.where == str(shard)
    assert "tulu verify" in caught.value.fix
    shard.write_bytes(bytes(len(whole)))
    with pytest.raises(Tampered, match=r"shard cannot be read|rows instead of"):
        open_tokens(out)
    shard.unlink()
    with pytest.raises(Tampered, match="cannot be read"):
        open_tokens(out)
    (out / "tokens.json").write_text("{")
    with pytest.raises(Tampered, match="no description"):
        open_tokens(out)
    parquet = conversations / "conversations.parquet"
    parquet.write_bytes(parquet.read_bytes()[:-20])
    with pytest.raises(Tampered, match="conversations cannot be read") as caught:
        run(MIX, MixParams(dataset="demo", cap=3), conversations=conversations)
    assert caught.value.where == str(parquet)


def test_progress_is_reported(run: Any, conversations: Path, llama_like: Path) -> None:
    seen: list[tuple[str, float, float | None, str]] = []
    ctx = replace(CONTEXT, progress=lambda name, done, total, unit, note="": seen.append((name, done, total, unit)))
    run(TOKENIZE, TokenizeParams(), ctx, conversations=conversations, tokenizer=llama_like)
    assert seen[-1] == ("tokenize[x]", 60, 60, "conversations")
