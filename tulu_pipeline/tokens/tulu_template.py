"""The paper's chat format as a Jinja template, for checkpoints: others then ask them as they were taught.

`chat.template` says what the format is; a test holds the two equal, in training (contents stripped, the last newline
dropped) and in prompts (a user's text as it is). `{% generation %}` marks content and end mark.
"""

from __future__ import annotations

import json
from pathlib import Path

from tulu_pipeline.tokens.tokenizer import load_tokenizer

_TEMPLATE = Path(__file__).with_name("tulu_template.jinja")


def write_tulu_template(folder: Path) -> None:
    """Make the paper's format the chat template of a checkpoint's tokenizer, in `tokenizer_config.json`.

    Whoever tokenizes a rendered chat adds no BOS to it, so the template writes it where the tokenizer adds one.

    Raises:
        BadInput: the folder holds no tokenizer that can be used.
    """
    tokenizer = load_tokenizer(folder)
    bos = "".join(tokenizer.names.id_to_token(token_id) or "" for token_id in tokenizer.bos_ids)
    config_file = folder / "tokenizer_config.json"
    config = json.loads(config_file.read_text(encoding="utf-8"))
    config["chat_template"] = bos + _TEMPLATE.read_text(encoding="utf-8").removesuffix("\n")
    config_file.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").unlink(missing_ok=True)  # it would win
