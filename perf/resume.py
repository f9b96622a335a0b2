"""Seconds from nothing to the first step: a training that goes on from a saved state, against a fresh start of it.

Each case is trained anew to its end; then its last state is taken away, and it is started again, through the product's
own launcher both times, in turn. `seconds_beyond_fresh` is the later start minus the fresh one of the same repetition,
the median over repetitions; what else the machine does shows in it too. `seconds_resuming` is what the first rank
counted for all that resuming needs beyond loading the model: the state converted (`other_ranks`: from twice the ranks)
and loaded, the record taken up. Half of the steps lie behind each state; none of them is gone through again.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ |= {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

from perf.train import MODEL, VOCABULARY, write_synthetic_tokens
from tulu_pipeline.artifacts.stage import RunContext
from tulu_pipeline.models import tiny
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.recipe import Recipe
from tulu_pipeline.training.launching.launch import finetune
from tulu_pipeline.training.saving.state import state_folder

LONGEST_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """One start, in seconds.

    Attributes:
        seconds: from the call to the first step.
        loading_model: of these.
        resuming: of these, what a fresh start has not.
    """

    seconds: float
    loading_model: float
    resuming: float


def start(folder: Path, model: Path, tokens: Path, recipe: Recipe, profile: Profile, *, resumed_from: int = 0) -> Start:
    """Train to the end; how it started."""
    metrics = finetune(
        name=f"finetune[{folder.name}]",
        recipe=recipe,
        tokens=[(tokens, 1)],
        model=model,
        out=folder / "out",
        aux=folder / "aux",
        work=folder / "work",
        ctx=RunContext(profile=profile, settings=read_settings()),
    )
    assert metrics["resumed_from_step"] == resumed_from
    return Start(
        seconds=metrics["seconds_starting"],
        loading_model=metrics["seconds_loading_model"],
        resuming=metrics["seconds_resuming"],
    )


def both(
    folder: Path, model: Path, tokens: Path, recipe: Recipe, wrote: Profile, profile: Profile
) -> tuple[Start, Start]:
    """A fresh start with `profile`, and one from a state that `wrote` saved."""
    assert recipe.max_steps is not None
    fresh = start(folder / "fresh", model, tokens, recipe, profile)
    of_state = folder / "fresh"
    if wrote != profile:
        of_state = folder / "wrote"
        start(of_state, model, tokens, recipe, wrote)
    shutil.rmtree(state_folder(of_state / "work", recipe.max_steps))
    half = wrote.checkpoint_every_steps
    return fresh, start(of_state, model, tokens, recipe, profile, resumed_from=half)


def figures(starts: list[Start]) -> dict[str, list[float]]:
    """Of each repetition."""
    return {
        "seconds_starting": [round(each.seconds, 2) for each in starts],
        "seconds_loading_model": [round(each.loading_model, 3) for each in starts],
        "seconds_resuming": [round(each.resuming, 3) for each in starts],
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each training; half of them lie behind the state")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--ranks", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--cases", nargs="+", choices=("zero2", "zero3", "other_ranks"))
    options = parser.parse_args()
    if options.steps % 2:
        parser.error("an even number of steps")
    recipe = Recipe(
        max_steps=options.steps,
        epochs=9.0,
        conversations_per_step=8,
        max_length_tokens=LONGEST_TOKENS,
        warmup_steps=1,
        dtype="fp32",
    )
    two = Profile(ranks=options.ranks, zero_stage=2, checkpoint_every_steps=options.steps // 2, checkpoints_kept=2)
    profiles = {
        "zero2": (two, two),
        "zero3": (replace(two, zero_stage=3), replace(two, zero_stage=3)),
        "other_ranks": (replace(two, ranks=2 * options.ranks), two),
    }
    cases = options.cases or list(profiles)
    found: dict[str, list[tuple[Start, Start]]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        model, tokens = home / "model", home / "tokens"
        tiny.write_model(model, name="perf", vocabulary=VOCABULARY, initializer_range=0.02, all_words=0, **MODEL)
        tokens.mkdir()
        write_synthetic_tokens(tokens, LONGEST_TOKENS)
        for repetition in range(options.repeat):
            for case in cases:
                pair = both(home / f"{case}-{repetition}", model, tokens, recipe, *profiles[case])
                found[case].append(pair)
                print(f"{case}: fresh {pair[0].seconds:.2f} s, resumed {pair[1].seconds:.2f} s", flush=True)
    result: dict[str, Any] = {
        "seconds_beyond_fresh": {
            case: round(statistics.median(resumed.seconds - fresh.seconds for fresh, resumed in pairs), 2)
            for case, pairs in found.items()
        },
        "seconds_resuming": {
            case: round(statistics.median(resumed.resuming for _, resumed in pairs), 3) for case, pairs in found.items()
        },
        "runs": {
            case: {
                "fresh": figures([fresh for fresh, _ in pairs]),
                "resumed": figures([resumed for _, resumed in pairs]),
            }
            for case, pairs in found.items()
        },
        "settings": {
            "model": MODEL | {"vocabulary": VOCABULARY, "dtype": recipe.dtype},
            "steps": options.steps,
            "ranks": options.ranks,
            "repetitions": options.repeat,
        },
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
