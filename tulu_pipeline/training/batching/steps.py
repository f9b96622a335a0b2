"""The steps of a whole training: how many, and which conversations each computes where."""

from __future__ import annotations

from functools import lru_cache

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.batching.order import epoch_steps, step_order, total_steps
from tulu_pipeline.training.batching.packing import Bins, Lengths
from tulu_pipeline.training.batching.plans import (
    StepPlan,
    global_plan,
    global_rows,
    padded_plan,
    rows_per_step,
    step_plan,
)


class Steps:
    """The plan of every step, from the recipe (what a step trains on) and the profile (who computes what).

    Args:
        lengths: tokens of each conversation seen in an epoch, by position.
        recipe: `batch_plan` says what a step is made of.
        profile: its ranks, nodes and layout.

    Attributes:
        total: optimizer steps of the whole training.
        per_epoch: of one epoch.

    Raises:
        BadInput: there is nothing to train on, or a conversation does not fit into a row.
    """

    def __init__(self, lengths: Lengths, recipe: Recipe, profile: Profile) -> None:
        self._lengths, self._recipe, self._profile = lengths, recipe, profile
        self._ranks = profile.ranks * profile.nodes
        conversations = len(lengths)
        if recipe.batch_plan == "global" and conversations:
            rows = len(self._rows(0))
            self._rows_per_step = recipe.rows_per_step or rows_per_step(
                recipe.conversations_per_step, conversations, rows
            )
            self.per_epoch = epoch_steps(rows, self._rows_per_step)
        else:
            self.per_epoch = epoch_steps(conversations, recipe.conversations_per_step)
        self.total = total_steps(self.per_epoch, recipe)

    def plan(self, step: int) -> StepPlan:
        """The plan of a step, counted from 0; the same on every rank."""
        recipe, profile = self._recipe, self._profile
        if recipe.batch_plan == "global":
            epoch, within = divmod(step, self.per_epoch)
            packed = global_plan(
                self._rows(epoch), self._lengths, step=within, rows_per_step=self._rows_per_step, ranks=self._ranks
            )
            if profile.layout == "step":
                return packed
            positions = packed.positions
        else:
            positions = step_order(len(self._lengths), recipe.conversations_per_step, recipe.seed, step)
        if profile.layout == "padded":
            return padded_plan(positions, ranks=self._ranks, conversations_per_row=profile.micro_batch_conversations)
        return step_plan(positions, self._lengths, ranks=self._ranks, budget_tokens=row_budget_tokens(recipe, profile))

    @lru_cache(maxsize=1)  # noqa: B019 - lives as long as the training
    def _rows(self, epoch: int) -> Bins:
        recipe = self._recipe
        return global_rows(self._lengths, budget_tokens=recipe.max_length_tokens, seed=recipe.seed, epoch=epoch)


def row_budget_tokens(recipe: Recipe, profile: Profile) -> int:
    """Tokens that a forward pass of the layout `step` may hold: never fewer than the longest conversation."""
    tokens = profile.row_tokens or profile.micro_batch_conversations * recipe.max_length_tokens
    return max(tokens, recipe.max_length_tokens)
