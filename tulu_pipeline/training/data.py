"""The conversations of a mixture, read from the memory-mapped tokens of its components, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.tokens.shards import open_tokens
from tulu_pipeline.training.batches import Tokens
from tulu_pipeline.training.order import epoch_conversations, locate, step_order


class MixtureTokens:
    """The tokens of a mixture's components, in order; nothing is copied or shuffled on disk.

    Args:
        components: folder of each component's tokens and how often each conversation is seen in an epoch.

    Attributes:
        conversations: seen in one epoch.
    """

    def __init__(self, components: Sequence[tuple[Path, int]]) -> None:
        self._components = [open_tokens(folder) for folder, _ in components]
        self._rows = [len(component) for component in self._components]
        self._repeats = [repeat for _, repeat in components]
        self.conversations = epoch_conversations(self._rows, self._repeats)

    def of_step(self, step: int, recipe: Recipe) -> list[Tokens]:
        """What a step (counted from 0) trains on, in the order in which the loss groups it."""
        positions = step_order(self.conversations, recipe.conversations_per_step, recipe.seed, step)
        places = (locate(int(position), self._rows, self._repeats) for position in positions)
        return [self._components[component][row] for component, row in places]
