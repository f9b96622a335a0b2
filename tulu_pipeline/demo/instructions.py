"""Open instructions with reference answers of many lengths, as AlpacaEval has them."""

from __future__ import annotations

import random

from tulu_pipeline.demo.arithmetic import NAMES, THINGS

_ASKS = (
    "Describe the {things} that {name} found near the river.",
    "Tell me a short story about {name} and the {things}.",
    "Write a letter to {name} about the {things}.",
    "Give {name} one good reason to share the {things}.",
    "Explain how {name} can count the {things}.",
)
_SENTENCES = (
    "{name} likes the {things}.",
    "The {things} are in a small basket by the door.",
    "In the morning {name} goes to the market with an empty bucket.",
    "A friend comes over the hill and brings three more.",
    "It is cold, so they work in the kitchen and read an old book.",
    "The teacher asks many questions, but no one knows every answer.",
    "After noon they open the window and look at the white road.",
    "Now each child has a cup of warm soup and some bread.",
)


_SHORT = ("No.", "Yes, {name} can.", "Count them: one, two, three.", "{name} likes the {things} very much.")


def rows(seed: int, count: int) -> list[dict[str, str]]:
    """Instructions, none twice; every other answer is a few words, the rest run from one sentence up to all of them."""
    draw = random.Random(seed)
    made: dict[str, dict[str, str]] = {}
    while len(made) < count:
        words = {"name": draw.choice(NAMES), "things": draw.choice(THINGS)}
        instruction = draw.choice(_ASKS).format(**words)
        longer, index = divmod(len(made), 2)
        sentences = draw.sample(_SENTENCES, 1 + longer % len(_SENTENCES)) if index else [draw.choice(_SHORT)]
        row = {
            "dataset": "demo",
            "instruction": instruction,
            "output": " ".join(sentences).format(**words),
            "generator": "demo_reference",
        }
        made.setdefault(instruction, row)
    return list(made.values())
