"""Ids and masks that must not change: recorded with transformers 5.19 by ever longer prefixes, as the original labels.

The tokenizer is that of `v2023_slow/`.
"""

import json
from pathlib import Path

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.tokens.encode import encode_many
from tulu_pipeline.tokens.tokenizer import load_tokenizer

FOLDER = Path(__file__).parent
ROWS = [json.loads(line) for line in (FOLDER / "token_ids.jsonl").read_text(encoding="utf-8").splitlines()]


def test_ids_and_masks_are_the_recorded_ones() -> None:
    assert {row["mode"] for row in ROWS} == {"legacy_fast", "nonlegacy"}
    for row in ROWS:
        tokenizer = load_tokenizer(FOLDER / "v2023_slow", tokenizer_mode=row["mode"])
        assert tokenizer.encoder.way == "fast"
        talk = Conversation("recorded", "x", tuple(Message(role, content) for role, content in row["messages"]))
        (encoded,) = encode_many([talk], tokenizer, EncodeOptions(max_length_tokens=160))
        assert encoded.input_ids.tolist() == row["input_ids"]
        assert "".join(map(str, encoded.loss_mask.tolist())) == row["loss_mask"]
