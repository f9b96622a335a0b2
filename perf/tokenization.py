"""Conversations to token ids and loss masks, against TRL's preparation and the prefix method of 2023.

All three start from the same Parquet file of real conversations and end with tokenized rows on disk, on one core of
this process, with the same tokenizer: 32,000 pieces shaped like LLaMA's (bytes as a last resort; digits, newlines and
scripts apart), trained here on the Alpaca file. Memo and caches begin empty in each run. Strata: `joined`, rows of
different datasets joined to one to eight rounds, none used twice, so that the memo gains nothing that it would not gain
in life; `alpaca`, single rounds; `sharegpt`, real chats.

The prefix method is written anew here. It counts as a peer because its labels are ours on every conversation that holds
no control token as text (those the original takes for the control token), which is asserted. TRL is given a template
that marks the same answers; how many of its ids are ours is told. The last line is one JSON object; `ratio_…` compares
conversations per CPU second.

Needs the mirror (TULU_MIRROR).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import numpy as np
import pyarrow as pa

from perf.normalize import SEED, all_datasets, held
from tulu_pipeline.chat.conversations import ConversationFile, ConversationWriter
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.tokens.encode_file import EncodeJob, GroupEncoder
from tulu_pipeline.tokens.shards import TokenWriter, open_tokens
from tulu_pipeline.tokens.tokenizer import load_tokenizer

VOCABULARY = 32_000
TRAINED_ON = "train/alpaca/alpaca_data.json"
LONGEST_TOKENS = 2048
MOST_ROUNDS = 8
CONTROL = ("<unk>", "<s>", "</s>")
IGNORED = -100
TEMPLATE = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|' + message.role + '|>\\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{ message.content | trim + eos_token }}{{ '' if loop.last else '\\n' }}{% endgeneration %}
    {%- else %}
        {{- message.content | trim + '\\n' }}
    {%- endif %}
{%- endfor %}"""
TRL_SETTINGS = {
    "assistant_only_loss": True,
    "dataset_num_proc": None,  # in this process: what TRL documents for speed is more processes
    "max_length": LONGEST_TOKENS,
    "packing": False,
}


def train_tokenizer(mirror: Path, folder: Path, vocabulary: int = VOCABULARY) -> Path:
    """A folder with the tokenizer; trained once."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    if (folder / "tokenizer_config.json").exists():
        return folder
    rows = json.loads((mirror / TRAINED_ON).read_text(encoding="utf-8"))
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "removed"),
            pre_tokenizers.UnicodeScripts(),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=True),
        ]
    )
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    size = vocabulary - len(CONTROL) - len(byte_pieces)
    texts = ("\n".join(row.values()) for row in rows)
    trained.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    learned = json.loads(trained.to_str())["model"]
    pieces = [*CONTROL, *byte_pieces, *sorted(learned["vocab"], key=learned["vocab"].__getitem__)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    normalizers = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    bos = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    text, start = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}
    processor = {"type": "TemplateProcessing", "single": [start, text], "pair": [start, text], "special_tokens": bos}
    description = {
        "version": "1.0",
        "added_tokens": [{"id": index, "content": token} | flags for index, token in enumerate(CONTROL)],
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": None,
        "post_processor": processor,
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": learned["merges"],
        },
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False), encoding="utf-8")
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def real_conversations(mirror: Path, tokenizer: Path) -> dict[str, list[Conversation]]:
    """By dataset, of all that the mirror holds."""
    files, count_tokens = held(mirror), load_tokenizer(tokenizer, tokenizer_mode="legacy_fast").count_tokens
    return {
        dataset.name: [
            row
            for row in convert_rows(dataset, files[dataset.name], SEED, count_tokens)
            if isinstance(row, Conversation)
        ]
        for dataset in all_datasets()
        if dataset.name in files
    }


def joined(by_dataset: dict[str, list[Conversation]], count: int) -> list[Conversation]:
    """Consecutive rows of different datasets in turn, as conversations of one to eight rounds."""
    single = {name: rows for name, rows in by_dataset.items() if all(len(row.messages) == 2 for row in rows)}
    # In turn by their share, so that large and small datasets last equally long.
    placed = [((index + 0.5) / len(rows), name, row) for name, rows in single.items() for index, row in enumerate(rows)]
    rows = iter(row for _, _, row in sorted(placed, key=lambda each: each[:2]))
    made = []
    for index in range(count):
        rounds = list(islice(rows, 1 + index % MOST_ROUNDS))
        if len(rounds) < 1 + index % MOST_ROUNDS:
            break
        messages = tuple(message for each in rounds for message in each.messages)
        made.append(Conversation("joined", f"joined_{index}", messages))
    return made


def write_conversations(folder: Path, rows: Sequence[Conversation]) -> Path:
    folder.mkdir(parents=True)
    with ConversationWriter(folder) as writer:
        for row in rows:
            writer.write(row)
    return folder


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the processor, and of the clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def run_ours(conversations: Path, tokenizer: Path, out: Path) -> tuple[float, float]:
    """From Parquet to shards, as the stage does it in one process; the tokenizer is loaded before."""
    encoder = GroupEncoder(
        EncodeJob(
            conversations=conversations,
            tokenizer=tokenizer,
            max_length_tokens=LONGEST_TOKENS,
            loss_span="tulu1",
            tokenizer_mode="legacy_fast",
            special_in_text="literal",
            template="tulu",
        )
    )
    assert encoder.way == "fast"
    out.mkdir(parents=True)

    def work() -> None:
        with TokenWriter(out, encoder.id_type, {}) as writer:
            for group in range(encoder.file.groups):
                rows = encoder.encode(group).rows
                learned = rows.supervised() > 0
                ids = encoder.file.group(group, ["id"]).column("id")
                writer.write_batch(ids.filter(pa.array(learned)), rows.kept(learned))

    return timed(work)


def peer_tokenizer(folder: Path) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def text_before(messages: Sequence[dict[str, str]], end_mark: str) -> str:
    return "".join(
        f"<|{message['role']}|>\n{message['content'].strip()}{end_mark if message['role'] == 'assistant' else ''}\n"
        for message in messages
    )


def by_prefixes(row: dict[str, Any], tokenizer: Any) -> dict[str, list[int]]:
    """Labels from the lengths of ever longer prefixes."""

    def ids_of(text: str) -> list[int]:
        return list(tokenizer(text, truncation=True, max_length=LONGEST_TOKENS).input_ids)

    messages, end_mark = row["messages"], tokenizer.eos_token
    ids = ids_of(text_before(messages, end_mark).strip())
    labels = ids.copy()
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            continue
        start = len(ids_of(text_before(messages[:index], end_mark))) if index else 0
        until = text_before(messages[: index + 1], end_mark)
        if index + 1 < len(messages) and messages[index + 1]["role"] == "assistant":
            until += "<|assistant|>\n"
        end = len(ids_of(until))
        labels[start:end] = [IGNORED] * len(labels[start:end])
        if end >= LONGEST_TOKENS:
            break
    return {"input_ids": ids, "labels": labels}


def run_prefixes(source: Any, tokenizer: Any) -> tuple[tuple[float, float], Any]:
    """The rows with labels, kept where there is something to learn, through `datasets.map` in this process."""
    made: list[Any] = []

    def work() -> None:
        rows = source.map(by_prefixes, fn_kwargs={"tokenizer": tokenizer}, remove_columns=["messages"])
        made.append(rows.filter(lambda row: any(label != IGNORED for label in row["labels"])))

    return timed(work), made


def run_trl(source: Any, tokenizer: Any, folder: Path) -> tuple[tuple[float, float], Any]:
    """What `SFTTrainer` does to a dataset before it trains."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    tiny = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    settings = SFTConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], **TRL_SETTINGS)
    trainer = SFTTrainer(
        LlamaForCausalLM(tiny), settings, train_dataset=source.select(range(1)), processing_class=tokenizer
    )
    made: list[Any] = []
    columns = source.select_columns(["id", "messages"])
    return timed(
        lambda: made.append(trainer._prepare_dataset(columns, tokenizer, settings, False, None, "train"))
    ), made


def differing(ours: Path, prefixes: Any, typed: set[str]) -> tuple[int, int]:
    """Conversations compared, and those whose ids or labels are not ours; without those that hold control tokens."""
    tokens = open_tokens(ours)
    places = {tokens.row_id(row): row for row in range(len(tokens))}
    compared = different = 0
    for row in prefixes:
        if row["id"] in typed:
            continue
        ids, mask = tokens[places[row["id"]]]
        # Nothing predicts the first token: the original's label there is never used.
        labels = [IGNORED, *row["labels"][1:]]
        compared += 1
        different += (
            ids.tolist() != row["input_ids"] or np.where(mask, ids.astype(np.int64), IGNORED).tolist() != labels
        )
    return compared, different


def same_ids(ours: Path, rows: Any) -> int:
    tokens = open_tokens(ours)
    places = {tokens.row_id(row): row for row in range(len(tokens))}
    return sum(row["id"] in places and tokens[places[row["id"]]][0].tolist() == row["input_ids"] for row in rows)


def measure(rows: list[Conversation], tokenizer: Path, folder: Path, repeat: int) -> dict[str, Any]:
    """Ours, TRL and prefixes on the same rows."""
    import datasets

    datasets.disable_progress_bars()
    conversations = write_conversations(folder / "conversations", rows)
    times = [run_ours(conversations, tokenizer, folder / f"ours-{number}") for number in range(repeat)]
    ours = [statistics.median(each) for each in zip(*times, strict=True)]
    shards = folder / "ours-0"
    info = open_tokens(shards).info

    parquet = str(ConversationFile(conversations).path)
    source = datasets.Dataset.from_parquet(parquet, cache_dir=str(folder / "cache"), columns=["id", "messages"])
    trl, (trl_rows,) = run_trl(source, peer_tokenizer(tokenizer), folder / "trl")
    prefix, (prefix_rows,) = run_prefixes(source, peer_tokenizer(tokenizer))
    typed = {row.id for row in rows if any(token in message.content for message in row.messages for token in CONTROL)}
    compared, different = differing(shards, prefix_rows, typed)
    assert not different, f"{different} of {compared} conversations differ from the prefix method"
    assert compared >= min(1000, len(rows) - len(typed)), "too few conversations to compare"

    def speed(cpu: float, wall: float) -> dict[str, float]:
        return {
            "cpu_seconds": round(cpu, 2),
            "wall_seconds": round(wall, 2),
            "rows_per_cpu_second": round(len(rows) / cpu),
            "tokens_per_cpu_second": round(info["tokens"] / cpu),
        }

    return {
        "rows": len(rows),
        "messages": sum(len(row.messages) for row in rows),
        "tokens": info["tokens"],
        "with_typed_control_tokens": len(typed),
        "labels_equal_to_prefix_on": compared,
        "trl_ids_equal_on": same_ids(shards, trl_rows),
        "ours": speed(*ours),
        "trl": speed(*trl),
        "prefix": speed(*prefix),
        "ratio_vs_trl": round(trl[0] / ours[0], 1),
        "ratio_vs_prefix": round(prefix[0] / ours[0], 1),
    }


def strata(mirror: Path, tokenizer: Path, count: int) -> Iterator[tuple[str, list[Conversation]]]:
    by_dataset = real_conversations(mirror, tokenizer)
    yield "joined", joined(by_dataset, count)
    yield "alpaca", by_dataset["alpaca"][:count]
    yield "sharegpt", by_dataset["sharegpt:sample"][:count]


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="conversations of a stratum, at most")
    parser.add_argument("--repeat", type=int, default=3, help="runs of ours; the median counts")
    parser.add_argument("--only", default="", help="one stratum")
    parser.add_argument("--tokenizer", type=Path, default=Path(tempfile.gettempdir()) / "tulu-perf-tokenizer")
    options = parser.parse_args()
    if not os.environ.get("TULU_MIRROR"):
        sys.exit("set TULU_MIRROR to the folder with the published data sets")
    mirror = Path(os.environ["TULU_MIRROR"]).resolve()
    pa.set_cpu_count(1)
    tokenizer = train_tokenizer(mirror, options.tokenizer)
    found: dict[str, Any] = {}
    for name, rows in strata(mirror, tokenizer, options.rows):
        if options.only in ("", name):
            with tempfile.TemporaryDirectory() as folder:
                found[name] = measure(rows, tokenizer, Path(folder), options.repeat)
            print(f"{name}: {json.dumps(found[name])}")
    first = next(iter(found.values()))
    print(
        json.dumps(
            {
                "ratio_vs_trl": first["ratio_vs_trl"],
                "ratio_vs_prefix": first["ratio_vs_prefix"],
                "strata": found,
                "settings": {
                    "tokenizer": f"{VOCABULARY} pieces, byte fallback, trained on {TRAINED_ON}",
                    "max_length_tokens": LONGEST_TOKENS,
                    "cores": 1,
                    "trl": TRL_SETTINGS,
                    "prefix": {"num_proc": None},
                },
            }
        )
    )


if __name__ == "__main__":
    main()
