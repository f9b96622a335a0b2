"""Recorded the fixtures beside it: ids and labels as the original's code and libraries of 2023 gave them.

Not run by the tests. In an environment of its own, from the repository's root:

    pip install "transformers==4.30.2" "tokenizers==0.13.3" sentencepiece "protobuf<4"
    python tests/golden/v2023_slow/record.py

A SentencePiece BPE model with byte fallback is trained on this repository's text, loaded with the slow LlamaTokenizer,
given its special tokens as plain strings, and run over growing prefixes (open_instruct/finetune.py of 2023).
`tokenizer.json` is the same vocabulary for today's library: the pieces, and as merges every split of a piece into two.
"""

import json
import random
import tempfile
from pathlib import Path

import sentencepiece
from transformers import LlamaTokenizer

HERE = Path(__file__).parent
MAX_LENGTH_TOKENS = 160
TALKS = [
    [["user", "What does </s> mean?"], ["assistant", "`</s>` ends a text.\n</s>\n x"]],
    [["user", "<s><s> </s></s>\n<unk>"], ["assistant", "<unk> x"], ["user", "y"], ["assistant", "<s>"]],
    [["user", "a"], ["assistant", "b"], ["assistant", "c </s> d"], ["user", "e"], ["assistant", "f"]],
    [["assistant", "a"], ["user", "b"], ["assistant", "c"]],
    [["user", "a"], ["assistant", " "], ["user", "b"], ["assistant", ""]],
    [["user", "a"], ["assistant", "b"], ["assistant", "c"], ["user", "d"]],
    [["system", "Be  brief. "], ["user", " 12345 "], ["assistant", "ä🐪\n\n"], ["system", "s"], ["user", "▁u<0x0A>"]],
]


def conversations(lines: list[str]) -> list[list[list[str]]]:
    rng = random.Random(1)
    made = []
    for _ in range(40):
        talk = []
        for turn in range(rng.randint(2, 6)):
            start = rng.randrange(len(lines) - 4)
            talk.append([("user", "assistant")[turn % 2], "\n".join(lines[start : start + rng.randint(1, 4)])])
        made.append(talk)
    return made


def render(messages: list[list[str]]) -> str:
    return "".join(
        f"<|{role}|>\n{content.strip()}{'</s>' if role == 'assistant' else ''}\n" for role, content in messages
    )


def label(tokenizer: LlamaTokenizer, messages: list[list[str]]) -> tuple[list[int], list[int]]:
    def ids_of(text: str) -> list[int]:
        return tokenizer(text, truncation=True, max_length=MAX_LENGTH_TOKENS).input_ids

    ids = ids_of(render(messages).strip())
    mask = [1] * len(ids)
    for index, (role, _) in enumerate(messages):
        if role == "assistant":
            continue
        start = len(ids_of(render(messages[:index]))) if index else 0
        until = render(messages[: index + 1])
        if index + 1 < len(messages) and messages[index + 1][0] == "assistant":
            until += "<|assistant|>\n"
        end = len(ids_of(until))
        mask[start:end] = [0] * len(mask[start:end])
        if end >= MAX_LENGTH_TOKENS:
            break
    return ids, mask


def describe(pieces: list[str]) -> dict:
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = [
        [piece[:cut], piece[cut:]]
        for piece in pieces[259:]
        for cut in range(1, len(piece))
        if piece[:cut] in vocabulary and piece[cut:] in vocabulary
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": True}
    prepend = {"type": "Prepend", "prepend": "▁"}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    bos, text = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": [*pieces, "<pad>"][index], **flags} for index in (0, 1, 2, len(pieces))
        ],
        "normalizer": {"type": "Sequence", "normalizers": [prepend, replace]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def main() -> None:
    files = [*sorted(Path("tulu_pipeline").rglob("*.py")), *sorted(Path("docs").rglob("*.md"))]
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        corpus.write_text("\n".join(lines), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=f"{folder}/sp", model_type="bpe", vocab_size=800, byte_fallback=True,
            split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
            character_coverage=0.999, unk_id=0, bos_id=1, eos_id=2, pad_id=-1, minloglevel=2,
        )  # fmt: skip
        slow = LlamaTokenizer(f"{folder}/sp.model")
    slow.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"})
    pieces = [slow.sp_model.id_to_piece(index) for index in range(slow.sp_model.get_piece_size())]
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    rows = []
    for messages in [*TALKS, *conversations(lines)]:
        ids, mask = label(slow, messages)
        typed = any(token in content for _, content in messages for token in ("<s>", "</s>", "<unk>", "<pad>"))
        rows.append({"typed": typed, "messages": messages, "input_ids": ids, "labelled": "".join(map(str, mask))})
    texts = {
        "tokenizer.json": json.dumps(describe(pieces), ensure_ascii=False),
        "tokenizer_config.json": json.dumps(config),
        "expected.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
    }
    for name, text in texts.items():
        (HERE / name).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
