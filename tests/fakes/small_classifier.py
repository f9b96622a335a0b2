"""A classifier of sequences as the paper's is: RoBERTa with two labels, `vocab.json` and `merges.txt`; untrained."""

import json
from pathlib import Path


def write_classifier(folder: Path) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import RobertaConfig, RobertaForSequenceClassification

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    trained.train_from_iterator([Path(__file__).read_text()], trainer)
    trained.model.save(str(folder))
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    tokenizer_config = {**marks, "sep_token": "</s>", "cls_token": "<s>", "mask_token": "<mask>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**tokenizer_config, "tokenizer_class": "RobertaTokenizer"})
    )
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=400,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
        initializer_range=0.5,
        num_labels=2,
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    return folder
