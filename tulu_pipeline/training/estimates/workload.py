"""How much a finetuning trains on: steps, conversations, tokens, and the padding of its layout, before it is started.

From the lengths of all conversations where they are known: steps and conversations are then exact; tokens too, but
where a `global` plan ends within an epoch. Padding is that of the plans themselves, of all steps or of a sample spread
evenly over them. Without lengths, from counts and a mean length: an estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.batching.order import epoch_order, epoch_steps, total_steps
from tulu_pipeline.training.batching.packing import Indices, Lengths
from tulu_pipeline.training.batching.plans import plan_statistics
from tulu_pipeline.training.batching.steps import Steps, row_budget_tokens

_SAMPLED_STEPS = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What a whole training takes.

    Attributes:
        exact: whether it follows from the lengths of the conversations.
        steps: optimizer steps; so many in an epoch `steps_per_epoch`.
        conversations, tokens: trained on in all, without padding.
        supervised_tokens: those that the loss is taken over; None where that is not known.
        epoch_conversations: that one epoch sees.
        mean_length: of a conversation. longest: of them; what it may be where their lengths are not known.
        padding_share: computed tokens that are padding; None without lengths.
        busy_share: useful tokens of those that could be computed while the slowest rank of each pass computes its
            own; None without lengths.
        passes_per_step: forward passes of each rank; None without lengths.
        sampled_steps: that were planned for the shares; all of them where it is `steps`.
        idle_ranks: without anything to do in the largest step.
    """

    exact: bool
    steps: int
    steps_per_epoch: int
    conversations: int
    tokens: int
    supervised_tokens: int | None
    epoch_conversations: int
    mean_length: float
    longest: int
    padding_share: float | None
    busy_share: float | None
    passes_per_step: float | None
    sampled_steps: int
    idle_ranks: int


def workload(lengths: Lengths, recipe: Recipe, profile: Profile, *, supervised_share: float | None = None) -> Workload:
    """The workload of conversations with these lengths.

    Args:
        lengths: tokens of each conversation seen in an epoch, by position; those held out are not among them.
        recipe: what a step trains on, how many there are.
        profile: who computes what.
        supervised_share: of the tokens.

    Raises:
        BadInput: there is nothing to train on, or a conversation does not fit into a row.
    """
    own: Indices = np.asarray(lengths, dtype=np.int64)
    steps = Steps(lengths, recipe, profile)
    sample = np.unique(np.linspace(0, steps.total - 1, min(steps.total, _SAMPLED_STEPS)).round().astype(np.int64))
    plans = [steps.plan(step) for step in sample.tolist()]
    statistics = plan_statistics(plans, lengths)
    conversations, tokens = _trained_on(own, recipe, steps)
    largest = max(plans, key=lambda plan: len(plan.positions))
    busy = (largest.tokens(lengths) > 0).any(axis=0).sum()
    return Workload(
        exact=True,
        steps=steps.total,
        steps_per_epoch=steps.per_epoch,
        conversations=conversations,
        tokens=tokens,
        supervised_tokens=None if supervised_share is None else round(tokens * supervised_share),
        epoch_conversations=len(own),
        mean_length=float(own.mean()),
        longest=int(own.max()),
        padding_share=1.0 - statistics.useful_share,
        busy_share=statistics.busy_share,
        passes_per_step=statistics.passes_mean,
        sampled_steps=len(plans),
        idle_ranks=int(largest.ranks - busy),
    )


def estimated_workload(
    conversations: int,
    mean_length: float,
    recipe: Recipe,
    profile: Profile,
    *,
    supervised_share: float | None = None,
) -> Workload:
    """The workload of so many conversations an epoch, of which the mean length is all that is known.

    Raises:
        BadInput: there is nothing to train on.
    """
    mean_length = min(mean_length, float(recipe.max_length_tokens))
    per_epoch = epoch_steps(conversations, recipe.conversations_per_step)
    steps = total_steps(per_epoch, recipe)
    whole, rest = divmod(steps, per_epoch)
    seen = whole * conversations + min(conversations, rest * recipe.conversations_per_step)
    tokens = round(seen * mean_length)
    ranks = profile.ranks * profile.nodes
    return Workload(
        exact=False,
        steps=steps,
        steps_per_epoch=per_epoch,
        conversations=seen,
        tokens=tokens,
        supervised_tokens=None if supervised_share is None else round(tokens * supervised_share),
        epoch_conversations=conversations,
        mean_length=mean_length,
        longest=recipe.max_length_tokens,
        padding_share=None,
        busy_share=None,
        passes_per_step=None,
        sampled_steps=0,
        idle_ranks=max(0, ranks - _cells(recipe, profile)) if profile.layout == "padded" else 0,
    )


def largest_pass(recipe: Recipe, profile: Profile, longest: int, conversations: int) -> int:
    """Tokens of the largest forward pass that a rank can be given, padding included."""
    if profile.layout == "padded":
        return longest * min(profile.micro_batch_conversations, recipe.conversations_per_step, conversations)
    if recipe.batch_plan == "global":
        return recipe.max_length_tokens
    return min(row_budget_tokens(recipe, profile), longest * min(recipe.conversations_per_step, conversations))


def _trained_on(lengths: Indices, recipe: Recipe, steps: Steps) -> tuple[int, int]:
    """Conversations and tokens over all steps."""
    epochs, rest = divmod(steps.total, steps.per_epoch)
    conversations, tokens = epochs * len(lengths), epochs * int(lengths.sum())
    if not rest:
        return conversations, tokens
    if recipe.batch_plan == "global":
        share = rest / steps.per_epoch
        return conversations + round(share * len(lengths)), tokens + round(share * int(lengths.sum()))
    last = epoch_order(len(lengths), recipe.seed, epochs)[: rest * recipe.conversations_per_step]
    return conversations + len(last), tokens + int(lengths[last].sum())


def _cells(recipe: Recipe, profile: Profile) -> int:
    """Micro-batches of a padded step."""
    return math.ceil(recipe.conversations_per_step / profile.micro_batch_conversations)
