"""A judge that goes on with ` yes` or does not: an untrained Llama in whose vocabulary ` yes` is one token."""

import json
from pathlib import Path

from tulu_pipeline.models.tiny import write_model


def write_judge(folder: Path, name: str) -> Path:
    """The row of ` yes` is long, so that its probability is near one for some prompts and near nothing for others."""
    from safetensors.numpy import load_file, save_file

    write_model(
        folder,
        name=name,
        vocabulary=1344,
        hidden=64,
        layers=2,
        heads=2,  # vLLM on CPUs takes heads of 32 and more
        feed_forward=96,
        initializer_range=0.08,
        all_words=0,
    )
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    yes = len(tokenizer["model"]["vocab"])  # the embedding has rows to spare
    tokenizer["model"]["vocab"]["\u0120yes"] = yes
    tokenizer["model"]["merges"].append(["\u0120y", "es"])
    file.write_text(json.dumps(tokenizer))
    weights = load_file(folder / "model.safetensors")
    weights["model.embed_tokens.weight"][yes] *= 30
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
