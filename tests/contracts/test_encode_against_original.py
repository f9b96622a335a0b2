"""Ids and masks against an independent, slow computation: transformers' tokenizer over ever longer prefixes, as the
original labels its data (open-instruct of 2023)."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from tulu_pipeline.chat.options import EncodeOptions, TokenizerMode
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.registry import Registry
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.tokens.encode import encode_many
from tulu_pipeline.tokens.tokenizer import load_tokenizer

MOST_CHARACTERS = 6_000_000  # of a dataset
CONTROL = ("<s>", "</s>", "<unk>", "<|endoftext|>")


def text_before(messages: tuple[Message, ...], end_mark: str) -> str:
    """The training text of some messages, their last newline included."""
    return "".join(
        f"<|{message.role}|>\n{message.content.strip()}{end_mark if message.role == 'assistant' else ''}\n"
        for message in messages
    )


def label_by_prefixes(
    conversation: Conversation, tokenizer: Any, max_length_tokens: int
) -> tuple[list[int], list[int]]:
    """Ids, and 1 where the original has a label."""

    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, truncation=True, max_length=max_length_tokens).input_ids)

    end_mark, messages = tokenizer.eos_token, conversation.messages
    ids = ids_of(text_before(messages, end_mark).strip())
    mask = [1] * len(ids)
    for index, message in enumerate(messages):
        if message.role == "assistant":
            continue
        start = len(ids_of(text_before(messages[:index], end_mark))) if index else 0
        until = text_before(messages[: index + 1], end_mark)
        if index + 1 < len(messages) and messages[index + 1].role == "assistant":
            until += "<|assistant|>\n"
        end = len(ids_of(until))
        mask[start:end] = [0] * len(mask[start:end])
        if end >= max_length_tokens:
            break
    return ids, mask


def alpaca(mirror: Path, count: int) -> Iterator[Conversation]:
    rows = json.loads((mirror / "train/alpaca/alpaca_data.json").read_text(encoding="utf-8"))
    for index, row in enumerate(rows[:: len(rows) // count]):
        prompt = f"{row['instruction']}\n\n{row['input']}"
        yield Conversation("alpaca", str(index), (Message("user", prompt), Message("assistant", row["output"])))


def sharegpt(mirror: Path) -> Iterator[Conversation]:
    rows = json.loads(
        (mirror / "train/sharegpt/ShareGPT_V3_unfiltered_cleaned_split.sample1000.json").read_text(encoding="utf-8")
    )
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    for index, row in enumerate(rows):
        # Cut, so that the slow way is not too slow; turns stay as they come, those that open with an answer too.
        messages = tuple(Message(roles[turn["from"]], turn["value"][:500]) for turn in row["conversations"][:7])
        yield Conversation("sharegpt", str(index), messages)


def has_control_text(conversation: Conversation) -> bool:
    return any(token in message.content for message in conversation.messages for token in CONTROL)


def assert_equal(ours: list[Any], conversations: list[Conversation], peer: Any, max_length_tokens: int) -> None:
    for encoded, conversation in zip(ours, conversations, strict=True):
        ids, mask = label_by_prefixes(conversation, peer, max_length_tokens)
        assert encoded.input_ids.tolist() == ids, conversation.id
        # A label at the first position is one that no model output is ever compared with.
        assert encoded.loss_mask.tolist() == [0, *mask[1:]], conversation.id


@pytest.mark.realdata
@pytest.mark.parametrize("mode", ["legacy_fast", "nonlegacy"])
def test_llama_ids_and_masks_are_those_of_the_original(mirror: Path, llama_like: Path, mode: Any) -> None:
    from transformers import LlamaTokenizer

    peer = LlamaTokenizer.from_pretrained(llama_like, legacy=mode == "legacy_fast", add_bos_token=True)
    conversations = [*alpaca(mirror, 600), *sharegpt(mirror)]
    plain = [conversation for conversation in conversations if not has_control_text(conversation)]
    assert len(plain) > 1500
    options = EncodeOptions(max_length_tokens=512)
    assert_equal(encode_many(plain, load_tokenizer(llama_like, tokenizer_mode=mode), options), plain, peer, 512)


def rows_of_each(mirror: Path, count: int) -> Iterator[tuple[str, list[Conversation]]]:
    """Some conversations, from all over its files, of each dataset and variant that the mirror holds whole."""
    held = {entry["sha256"]: mirror / entry["path"] for entry in json.loads((mirror / "MANIFEST.json").read_text())}
    for whole in Registry("dataset", "tulu_pipeline.datasets", "DATASET", Dataset).all():
        for dataset in (whole, *map(whole.variant, whole.variants)):
            hashes = {name: getattr(source, "sha256", None) for name, source in dataset.sources.items()}
            files = {name: held[sha256] for name, sha256 in hashes.items() if sha256 in held}
            if len(files) == len(hashes):
                converted = convert_rows(dataset, files, 42, lambda texts: [len(text) // 4 for text in texts])
                rows = [row for row in converted if isinstance(row, Conversation)]
                yield whole.name, affordable(rows[:: max(1, len(rows) // count)][:count])


def affordable(rows: list[Conversation]) -> list[Conversation]:
    """All rows, or fewer from all over: the slow way reads a conversation again for each of its messages."""
    characters = sum(len(row.messages) * sum(len(message.content) for message in row.messages) for row in rows)
    return rows[:: -(-characters // MOST_CHARACTERS)]


@pytest.mark.realdata
def test_up_to_a_thousand_rows_of_each_dataset_are_encoded_as_the_original_does(mirror: Path, llama_like: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    peer = PreTrainedTokenizerFast.from_pretrained(llama_like)
    tokenizer = load_tokenizer(llama_like, tokenizer_mode="legacy_fast")
    assert tokenizer.encoder.way == "fast"
    compared: Counter[str] = Counter()
    for name, rows in rows_of_each(mirror, 1000):
        plain = [row for row in rows if not has_control_text(row)]
        assert len(plain) > len(rows) * 0.98
        assert_equal(encode_many(plain, tokenizer, EncodeOptions()), plain, peer, 2048)
        compared[name] += len(plain)
    assert compared.keys() >= {"alpaca", "code_alpaca", "cot", "dolly", "gpt4_alpaca", "oasst1", "sharegpt", "super_ni"}
    assert compared["alpaca"] >= 990


@pytest.mark.realdata
def test_byte_level_ids_and_masks_are_those_of_the_original(mirror: Path, byte_level: Path) -> None:
    from transformers import PreTrainedTokenizerFast

    peer = PreTrainedTokenizerFast.from_pretrained(byte_level)
    conversations = [*alpaca(mirror, 300), *sharegpt(mirror)]
    plain = [conversation for conversation in conversations if not has_control_text(conversation)]
    options = EncodeOptions(max_length_tokens=512)
    assert_equal(encode_many(plain, load_tokenizer(byte_level), options), plain, peer, 512)


TYPED = [
    Conversation("typed", name, tuple(Message(*message) for message in messages))
    for name, messages in {
        "end mark": [("user", "What does </s> mean?"), ("assistant", "`</s>` ends a text.\n</s>")],
        "in a row": [("user", "<s><s> </s></s>\n<unk>"), ("assistant", "<unk> x"), ("user", "y"), ("assistant", "<s>")],
        "role tag": [("user", "<|assistant|>\nyes</s>\n<|user|>\nno"), ("assistant", "<|user|>\n hi")],
        "two answers": [
            ("user", "a"),
            ("assistant", "b"),
            ("assistant", "c </s> d"),
            ("user", "e"),
            ("assistant", "f"),
        ],
        "answer first": [("assistant", "a"), ("user", "b"), ("assistant", "c")],
        "system": [
            ("system", "be  brief "),
            ("user", " 1234 "),
            ("assistant", "ä🐪\n\n"),
            ("system", "s"),
            ("user", "u"),
        ],
        "system alone": [("system", "s"), ("assistant", "a"), ("system", "t"), ("system", "u"), ("assistant", "b")],
        "no answer": [("user", "a\n\n")],
        "empty": [("user", "a"), ("assistant", ""), ("user", ""), ("assistant", " "), ("user", "")],
    }.items()
]


@pytest.mark.parametrize("max_length_tokens", [2048, 20])
@pytest.mark.parametrize("mode", ["legacy_fast", "nonlegacy"])
def test_typed_control_tokens_become_ids_as_in_the_original_when_asked(
    llama_like: Path, mode: Any, max_length_tokens: int
) -> None:
    from transformers import LlamaTokenizer, PreTrainedTokenizerFast

    # Not LlamaTokenizer with legacy=True: it adds no space before text that begins with one, which the tokenizer file
    # does, and SentencePiece too. Text after an end mark of the template begins with a newline, so there they agree.
    peer = (
        PreTrainedTokenizerFast.from_pretrained(llama_like)
        if mode == "legacy_fast"
        else LlamaTokenizer.from_pretrained(llama_like, legacy=False, add_bos_token=True)
    )
    tokenizer = load_tokenizer(llama_like, tokenizer_mode=mode, special_in_text="hf")
    options = EncodeOptions(max_length_tokens=max_length_tokens)
    assert_equal(encode_many(TYPED, tokenizer, options), TYPED, peer, max_length_tokens)


def test_the_modes_differ_in_what_follows_an_end_mark(llama_like: Path) -> None:
    conversation = Conversation(
        "x", "x", (Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "d"))
    )
    vocabulary = json.loads((llama_like / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    pieces = {index: piece for piece, index in vocabulary.items()}
    after = {}
    for mode in get_args(TokenizerMode):
        tokenizer = load_tokenizer(llama_like, tokenizer_mode=mode)
        ids = encode_many([conversation], tokenizer, EncodeOptions())[0].input_ids.tolist()
        end = ids.index(tokenizer.end_mark_id)
        after[mode] = [pieces[index] for index in ids[end + 1 : end + 4]]
    assert after["legacy_fast"][:3] == ["▁", "<0x0A>", "<"]
    assert after["nonlegacy"][:2] == ["<0x0A>", "<"]
    assert after["v2023_slow"][0] in ("▁<", "▁")
    assert "<0x0A>" not in after["v2023_slow"]
