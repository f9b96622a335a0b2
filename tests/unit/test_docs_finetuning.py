"""What docs/finetuning.md says first holds: its commands run, its code too, and its table is the recipe's defaults."""

import re
from pathlib import Path

import pytest
from doc_pages import blocks, page
from fakes.processes import tulu

from tulu_pipeline.models.llama import FAMILY
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Recipe

_PAGE = page("finetuning")
_DEFAULTS = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", _PAGE.partition("## A step")[0], re.MULTILINE)


def test_the_table_of_the_recipe_is_what_a_recipe_is_by_default() -> None:
    recipe = Recipe()
    assert {"learning_rate", "epochs", "conversations_per_step", "loss_norm", "seed"} <= {name for name, _ in _DEFAULTS}
    for name, told in _DEFAULTS:
        value = getattr(recipe, name)
        assert told == str(value) or float(told.replace(",", "")) == value, name
    assert (recipe.adam_beta2, recipe.adam_epsilon) == (0.999, 1e-8)
    assert recipe.final_learning_rate_share == 0.0
    for size, rate, tokens in (("7b", None, None), ("30b", 1e-5, 1024), ("65b", 1e-5, 1024)):
        model = FAMILY.model(f"llama-{size}")
        assert (model.tune_learning_rate, model.tune_max_length_tokens) == (rate, tokens)


def test_the_recipes_on_the_page_are_what_is_said_of_them() -> None:
    names: dict[str, Recipe] = {}
    for block in blocks(_PAGE.partition("## Adapters")[0]):
        exec(block, names)
    assert names["SHORT"].loss_norm == Recipe().loss_norm
    assert names["INDEPENDENT"].batch_plan == Recipe().batch_plan == "conversation"
    assert names["FILLED"].rows_per_step is None
    assert Profile().layout == "step"


@pytest.mark.timeout(120)
def test_the_first_commands_show_exactly_what_a_training_takes(tmp_path: Path) -> None:
    commands = re.findall(r"^tulu (.*)$", _PAGE.partition("## The recipe")[0], re.MULTILINE)
    made, estimate, train = (command.replace("'", "").split() for command in commands)
    done = tulu(*made, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (facts,) = (
        line for line in tulu(*estimate, cwd=tmp_path).stdout.splitlines() if line.startswith("finetune[tiny+f")
    )
    steps, conversations = facts.split()[1:3]
    assert int(steps.replace(",", "")) > 0
    assert int(conversations.replace(",", "")) > 0, "no `~` and no `?`: they were counted"
    (alone,) = (
        line for line in tulu(*train, "--dry-run", cwd=tmp_path).stdout.splitlines() if line.startswith("finetune[")
    )
    assert alone.split()[:3] == facts.split()[:3]
