"""The paper's chat format as a Jinja template, for checkpoints: others then ask them as they were taught.

`chat.template` says what the format is; a test holds the two equal, in training (contents stripped, the last newline
dropped) and in prompts (a user's text as it is). `{% generation %}` marks content and end mark.
"""

from __future__ import annotations

import json
from pathlib import Path

from tulu_pipeline.chat.options import Template
from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.tokenizer import load_tokenizer, read_json

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


def carried_template(folder: Path) -> Template:
    """The chat format that a checkpoint carries: the paper's, or one of its tokenizer's own.

    Raises:
        BadInput: it carries none, as a model that was never tuned.
    """
    config_file, template_file = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    if template_file.is_file():
        carried: object = template_file.read_text(encoding="utf-8")
    else:
        carried = read_json(config_file).get("chat_template")
    if not carried:
        raise BadInput(
            "the checkpoint carries no chat template, so nothing says how it was taught to be asked",
            str(config_file),
            "name a tuned checkpoint, or say `--template tulu` for one taught in the paper's format",
        )
    tulu = _TEMPLATE.read_text(encoding="utf-8").removesuffix("\n")
    return "tulu" if isinstance(carried, str) and carried.removesuffix("\n").endswith(tulu) else "own"
