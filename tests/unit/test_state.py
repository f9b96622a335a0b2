"""Saved states: a kill or an error at any moment leaves each of them whole, or not there at all."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from fakes.kill_points import killed_at

from tulu_pipeline.errors import StageFailed
from tulu_pipeline.training.saving.state import (
    TAG,
    SavedState,
    commit_state,
    discard_unfinished,
    new_unfinished_folder,
    newest_state,
    other_releases,
    prune_states,
    saved_steps,
    state_folder,
    state_identity,
)

TWO_RANKS = state_identity(2, 2)


def write(work: Path, step: int, kept: int = 1, *, universal: bool = False, text: str = "") -> None:
    """Save a state as the ranks do."""
    final = state_folder(work, step, universal=universal)
    folder = new_unfinished_folder(final)
    for rank in range(2):
        (folder / TAG / f"rank-{rank}").write_text(text or f"{step}/{rank}" * 20)
    commit_state(final, TWO_RANKS)
    prune_states(work, {saved for saved in saved_steps(work) if saved <= step}, kept)


def check_whole(state: SavedState | None, step: int) -> None:
    assert state is not None
    assert state.step == step
    assert [(state.folder / TAG / f"rank-{rank}").read_text() for rank in range(2)] == [
        f"{step}/{rank}" * 20 for rank in range(2)
    ]


def names(work: Path) -> list[str]:
    return sorted(path.name for path in (work / "state").iterdir())


def first(work: Path) -> None:
    """Nothing is there yet."""
    write(work, 20)


def after_another(work: Path) -> None:
    """One that was kept, and leftovers of one that was not."""
    write(work, 20)


def keeping_two(work: Path) -> None:
    """The oldest of three goes."""
    write(work, 20, kept=2)


def over_a_damaged_one(work: Path) -> None:
    """The same step is there, with a file cut off."""
    write(work, 20)


def converted(work: Path) -> None:
    """The universal form, beside what it was made from."""
    write(work, 10, kept=2, universal=True)


SAVES: list[tuple[Callable[[Path], None], tuple[int, ...]]] = [
    (first, ()),
    (after_another, (10,)),
    (keeping_two, (5, 10)),
    (over_a_damaged_one, (10, 20)),
    (converted, (10,)),
]


@pytest.mark.parametrize(("save", "before"), SAVES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_kill_at_any_moment_of_a_saving_leaves_a_whole_state(
    save: Callable[[Path], None], before: tuple[int, ...], tmp_path: Path
) -> None:
    point, seen = 0, set()
    while True:
        work = tmp_path / str(point)
        for step in before:
            write(work, step, kept=9)
        if save is over_a_damaged_one:
            (state_folder(work, 20) / TAG / "rank-1").write_text("cut")
        if save is after_another:
            new_unfinished_folder(state_folder(work, 15))
        last = 10 if before else 0
        killed = killed_at(point, partial(save, work))
        state, _ = newest_state(work, TWO_RANKS)
        step = state.step if state else 0
        assert step in {last, 20}
        seen.add(step)
        if step:
            check_whole(state, step)
        save(work)  # the next time it is due
        check_whole(newest_state(work, TWO_RANKS)[0], 10 if save is converted else 20)
        assert not [name for name in names(work) if name.startswith(".")]
        if not killed:
            break
        point += 1
    assert point > 5
    assert seen == ({10} if save is converted else {last, 20})


def test_the_newest_are_kept_and_what_was_not_gone_on_from_stays(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        write(tmp_path, step, kept=3)
    write(tmp_path, 40, kept=3, universal=True)
    assert names(tmp_path) == ["step-20", "step-30", "step-40", "step-40-universal"]
    write(tmp_path, 25, kept=1)
    assert names(tmp_path) == ["step-25", "step-30", "step-40", "step-40-universal"]


def test_a_damaged_state_is_told_and_the_one_before_is_gone_on_from(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        write(tmp_path, step, kept=3)
    (state_folder(tmp_path, 30) / TAG / "rank-0").unlink()
    (state_folder(tmp_path, 20) / TAG / "rank-1").write_text("cut")
    state, left_out = newest_state(tmp_path, TWO_RANKS)
    check_whole(state, 10)
    assert "`step-30` is damaged" in left_out[0]
    assert "`step-20` is damaged: `deepspeed/rank-1` has 3 bytes instead of 80" in left_out[1]
    (state_folder(tmp_path, 10) / "identity.json").write_text("{}")
    state, left_out = newest_state(tmp_path, TWO_RANKS)
    assert (state, len(left_out)) == (None, 3)


def test_a_disk_that_does_not_answer_is_no_damaged_state(tmp_path: Path) -> None:
    write(tmp_path, 10, kept=2)
    write(tmp_path, 20, kept=2)
    identity = state_folder(tmp_path, 20) / "identity.json"
    identity.unlink()
    identity.symlink_to(identity)  # which nothing can open, although it is there
    with pytest.raises(StageFailed, match="the saved states cannot be read: Too many levels") as told:
        newest_state(tmp_path, TWO_RANKS)
    assert told.value.where == str(identity)
    assert names(tmp_path) == ["step-10", "step-20"]


def test_other_releases_go_on_and_are_told_by_name(tmp_path: Path) -> None:
    write(tmp_path, 10)
    other = replace(TWO_RANKS, torch="1.0", deepspeed="0.1")
    state, left_out = newest_state(tmp_path, other)
    assert left_out == []
    assert state is not None
    assert other_releases(state.identity, other) == (
        f"torch {TWO_RANKS.torch} instead of 1.0, deepspeed {TWO_RANKS.deepspeed} instead of 0.1"
    )
    build = TWO_RANKS.torch.partition("+")[0] + "+cu126"
    assert other_releases(state.identity, replace(TWO_RANKS, torch=build)) == ""


@pytest.mark.parametrize(
    ("wrote", "wanted", "how"),
    [
        ((2, 2), (2, 2), "as it is"),
        ((2, 3), (2, 3), "as it is"),
        ((2, 0), (1, 0), "as it is"),
        ((2, 2), (1, 2), "converted"),
        ((1, 3), (2, 3), "converted"),
        ((2, 2), (2, 3), "converted"),
        ((2, 3), (4, 1), "converted"),
        ((2, 0), (2, 2), "refused"),
        ((2, 3), (1, 0), "refused"),
    ],
)
def test_another_number_of_ranks_or_stage_is_converted_where_that_is_possible(
    wrote: tuple[int, int], wanted: tuple[int, int], how: str, tmp_path: Path
) -> None:
    final = state_folder(tmp_path, 10)
    new_unfinished_folder(final)
    commit_state(final, state_identity(*wrote))
    state, left_out = newest_state(tmp_path, state_identity(*wanted))
    found = "refused" if state is None else "converted" if state.convert else "as it is"
    assert found == how
    assert bool(left_out) == (how == "refused")
    if state is not None:
        assert state.loaded_from.name == ("step-10-universal" if how == "converted" else "step-10")
    if how != "converted":
        return
    new_unfinished_folder(state_folder(tmp_path, 10, universal=True))
    commit_state(state_folder(tmp_path, 10, universal=True), state_identity(*wrote))
    for identity, folder in ((wanted, "step-10-universal"), (wrote, "step-10")):
        state, _ = newest_state(tmp_path, state_identity(*identity))
        assert state is not None
        assert (state.loaded_from.name, state.convert) == (folder, False)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, 10)
    folder = new_unfinished_folder(state_folder(tmp_path, 20))
    (folder / TAG / "rank-0").write_text("half")
    discard_unfinished(state_folder(tmp_path, 20))
    discard_unfinished(state_folder(tmp_path, 30))
    assert names(tmp_path) == ["step-10"]
