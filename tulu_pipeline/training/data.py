"""The conversations of a mixture, read from the memory-mapped tokens of its components, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tulu_pipeline.tokens.shards import open_tokens
from tulu_pipeline.training.batches import Tokens
from tulu_pipeline.training.order import Indices, epoch_conversations, locate


class MixtureTokens:
    """The tokens of a mixture's components, in order; nothing is copied or shuffled on disk.

    Args:
        components: folder of each component's tokens and how often each conversation is seen in an epoch.

    Attributes:
        conversations: seen in one epoch.
        lengths: tokens of each, by position.
    """

    def __init__(self, components: Sequence[tuple[Path, int]]) -> None:
        self._components = [open_tokens(folder) for folder, _ in components]
        self._rows = [len(component) for component in self._components]
        self._repeats = [repeat for _, repeat in components]
        self.conversations = epoch_conversations(self._rows, self._repeats)
        lengths = [
            np.tile(each.lengths(), repeat) for each, (_, repeat) in zip(self._components, components, strict=True)
        ]
        self.lengths: Indices = np.concatenate(lengths)

    def at(self, positions: Indices) -> list[Tokens]:
        """The conversations at these positions, in this order."""
        places = (locate(int(position), self._rows, self._repeats) for position in positions)
        return [self._components[component][row] for component, row in places]
