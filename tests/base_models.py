"""Base models as small as tests want them: each architecture of the paper with a tokenizer built as its own is.

Random weights from a fixed seed; the files are those that the architecture's repository has.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

_HIDDEN, _LAYERS, _HEADS, _CONTEXT = 64, 2, 2, 1024
_TAGS = ("<|user|>\n", "<|assistant|>\n", "Answer:", "Question:", "What is ", " and ", "?\n")


def write_opt_tokenizer(folder: Path, **config: Any) -> None:
    """As OPT's repository has it: GPT-2's two files, control tokens in fairseq's order, no `tokenizer.json`."""
    _byte_level(("<s>", "<pad>", "</s>", "<unk>")).model.save(str(folder))
    tokens = {role: {"content": "</s>", "lstrip": False} for role in ("bos_token", "eos_token", "unk_token")}
    described = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False, "add_bos_token": True, **tokens}
    _write_json(folder / "tokenizer_config.json", described | config)
    _write_json(folder / "special_tokens_map.json", {**tokens, "pad_token": "<pad>"})


def write_neox_tokenizer(folder: Path) -> None:
    """As Pythia's repository has it: runs of spaces as added tokens, `<|padding|>` in the vocabulary and in no role."""
    tokenizer = _byte_level(("<|endoftext|>", "<|padding|>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(" " * run, normalized=True) for run in (4, 3, 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    described = {"tokenizer_class": "GPTNeoXTokenizer", "add_prefix_space": False, **tokens}
    _write_json(folder / "tokenizer_config.json", described)
    _write_json(folder / "special_tokens_map.json", tokens)


def write_llama(folder: Path, tokenizer: Path) -> None:
    """Embeddings have a row for each entry of the tokenizer and none to spare, as LLaMA's have; safetensors."""
    shutil.copytree(tokenizer, folder)
    entries = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    _write_model(folder, "Llama", vocab_size=entries, intermediate_size=128, bos_token_id=1, eos_token_id=2)


def write_opt(folder: Path) -> None:
    """Weights as `.bin` only, a few rows more than entries, dropout, tied embeddings, as OPT has them."""
    import torch

    folder.mkdir()
    write_opt_tokenizer(folder)
    entries = len(json.loads((folder / "vocab.json").read_text()))
    model = _write_model(
        folder,
        "OPT",
        vocab_size=entries + 7,
        ffn_dim=256,
        word_embed_proj_dim=_HIDDEN,
        dropout=0.1,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def write_pythia(folder: Path) -> None:
    """Embeddings padded to a multiple of 128 rows, rotary on a quarter of a head; safetensors."""
    folder.mkdir()
    write_neox_tokenizer(folder)
    entries = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    _write_model(
        folder,
        "GPTNeoX",
        vocab_size=128 * (entries // 128 + 1),
        intermediate_size=256,
        rotary_pct=0.25,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
    )


def write_qwen3(folder: Path) -> None:
    """As Qwen3's base models have it: one mark that ends a text and pads, none that begins one; few key-value heads of
    a width of their own, normalized; tied embeddings with rows to spare; safetensors."""
    folder.mkdir()
    tokenizer = _byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": None, "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": None}
    _write_json(folder / "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer", **roles})
    entries = tokenizer.get_vocab_size()
    _write_model(
        folder,
        "Qwen3",
        vocab_size=128 * (entries // 128 + 1),
        intermediate_size=128,
        head_dim=_HIDDEN,
        num_key_value_heads=1,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )


def _write_model(folder: Path, name: str, **architecture: Any) -> Any:
    import torch
    import transformers

    torch.manual_seed(1)
    config = getattr(transformers, f"{name}Config")(
        hidden_size=_HIDDEN,
        num_hidden_layers=_LAYERS,
        num_attention_heads=_HEADS,
        max_position_embeddings=_CONTEXT,
        **{"init_std" if name == "OPT" else "initializer_range": 0.08},
        **architecture,
    )
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    model.save_pretrained(folder)
    return model


def _byte_level(special: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{tag}{number} the cat sat" for tag in _TAGS for number in range(100)], trainer)
    return tokenizer


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
