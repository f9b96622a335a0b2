"""Special tokens that are pieces of the model's own vocabulary too, and how typed text is kept from becoming them.

Where typed special tokens stay text, the tokenizers library does not look for them before it asks the model; but a
Unigram or WordLevel model that holds `</s>` among its pieces makes that piece of the text by itself. SentencePiece
knows such pieces as control symbols and never takes them from text. So it is here: the piece is hidden from the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tokenizers import Tokenizer

# By their vocabularies; merges would have to go with a piece of BPE's.
_HIDING = ("Unigram", "WordLevel", "WordPiece")
_NEVER_TEXT = "\uffff"  # no character


def special_ids(backend: Tokenizer, model: Mapping[str, Any]) -> dict[str, int]:
    """Special tokens by their text, but the one for what is unknown: that comes of all sorts of text."""
    added = backend.get_added_tokens_decoder().items()
    unknown = _unknown(model)
    return {token.content: token_id for token_id, token in added if token.special and token.content != unknown}


def made_of_text(specials: Mapping[str, int], backends: Iterable[Tokenizer]) -> list[str]:
    """The special tokens whose ids come of their own text: by itself, after a space, between spaces, inside a word."""
    found = []
    for text, token_id in specials.items():
        typed = [text, f" {text}", f"a {text} a", f"a{text}a"]
        encodings = (each for backend in backends for each in backend.encode_batch(typed, add_special_tokens=False))
        if any(token_id in encoding.ids for encoding in encodings):
            found.append(text)
    return found


def without_pieces(description: Mapping[str, Any], specials: Iterable[str]) -> dict[str, Any]:
    """`tokenizer.json` as parsed, for text alone: the same ids, and no piece that is one of these special tokens.

    The pieces keep their places under names that no text has. A kind of model that cannot do without one stays as it
    is.
    """
    model, hidden = description["model"], set(specials)
    if model.get("type") not in _HIDING:
        return dict(description)
    if model["type"] == "Unigram":
        vocabulary: Any = [[_name(piece, hidden), score] for piece, score in model["vocab"]]
        pieces = {piece for piece, _ in model["vocab"]}
    else:
        vocabulary = {_name(piece, hidden): token_id for piece, token_id in model["vocab"].items()}
        pieces = set(model["vocab"])
    # An added token whose text is no piece would get a new id; those that are none stay, and keep theirs.
    added = [token for token in description["added_tokens"] if token["content"] not in hidden & pieces]
    return {**description, "added_tokens": added, "model": {**model, "vocab": vocabulary}}


def _unknown(model: Mapping[str, Any]) -> str | None:
    if model.get("type") == "Unigram":
        return None if model.get("unk_id") is None else str(model["vocab"][model["unk_id"]][0])
    return model.get("unk_token")


def _name(piece: str, hidden: set[str]) -> str:
    return _NEVER_TEXT + piece if piece in hidden else piece
