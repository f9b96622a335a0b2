"""Texts cut to a number of tokens of the model that is asked."""

from __future__ import annotations

from collections.abc import Callable

from tulu_pipeline.tokens.tokenizer import ChatTokenizer


def cutter(tokenizer: ChatTokenizer) -> Callable[[str, int], str]:
    """A function that cuts a text to so many tokens, BOS included; a text of no more stays as it is.

    What is cut comes out as the tokenizer writes its tokens, and that is meant: BOS is one of them, so that a cut text
    begins with `<s> ` for LLaMA's, and a character cut in two ends in replacement characters (open-instruct,
    `eval/tydiqa/run_eval.py`, cuts so).
    """

    def cut(text: str, tokens: int) -> str:
        (encoding,) = tokenizer.encode_texts([text], after_end_mark=False)
        ids = [*tokenizer.bos_ids, *encoding.ids]
        if len(ids) <= tokens:
            return text
        return str(tokenizer.names.decode(ids[:tokens], skip_special_tokens=False))

    return cut
