"""Which language a conversation is in: as its raw row tells, else as detected from its text."""

from __future__ import annotations

from functools import cache
from typing import Any

from tulu_pipeline.chat.schema import Conversation

# Below it the detector is guessing: sums, lists of names, a line of code. At 0.5 it is uncertain of 0.5 % of Alpaca; of
# 5,077 questions with their passages in nine languages (TyDiQA) it names 20 wrongly, 18 of them Indonesian as Malay.
LEAST_PROBABILITY = 0.5
_MESSAGE_CHARACTERS, _CONVERSATION_CHARACTERS = 500, 2000
_OTHER_CODES = {"nb": "no", "iw": "he", "in": "id"}  # Norwegian Bokmål as Norwegian; two codes that ISO 639-1 replaced


def language_of(conversation: Conversation) -> str:
    """The ISO 639-1 code of a conversation, "" where it is uncertain.

    The raw row's own code counts, without its region (`pt-BR` is `pt`). Where there is none the beginnings of all
    messages are taken together and, where they are uncertain (an answer of names or code), those of the user's alone.
    """
    if conversation.language:
        return plain_code(conversation.language)
    everything = [message.content for message in conversation.messages]
    asked = [message.content for message in conversation.messages if message.role == "user"]
    return _detect(everything) or _detect(asked)


def _detect(contents: list[str]) -> str:
    room, parts = _CONVERSATION_CHARACTERS, []
    for content in contents:
        parts.append(content[: min(room, _MESSAGE_CHARACTERS)])
        room -= len(parts[-1])
        if not room:
            break
    code, probability = _detector().classify("\n".join(parts))
    return str(code) if probability >= LEAST_PROBABILITY else ""


def plain_code(code: str) -> str:
    """A language code without its region, in the form that is compared."""
    plain = code.replace("_", "-").partition("-")[0].lower()
    return _OTHER_CODES.get(plain, plain)


def detectable() -> frozenset[str]:
    """The codes that detection can give."""
    return frozenset(_detector().labels)


@cache
def _detector() -> Any:
    """The model that comes with py3langid, for languages with a two-letter code; loads in a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    detector.set_languages([code for code in detector.labels if len(code) == 2])
    return detector
