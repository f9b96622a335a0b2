"""Every error says what, where and how to mend it, in this process and in the next."""

import pickle

import pytest

from tulu_pipeline import errors
from tulu_pipeline.errors import NotFound, TuluError, unknown_name

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TuluError)]


@pytest.mark.parametrize("kind", KINDS)
def test_error_passes_between_processes_whole(kind: type[TuluError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what", "where", "fix")))  # noqa: S301 - our own bytes
    assert type(error) is kind
    assert (error.what, error.where, error.fix) == ("what", "where", "fix")
    assert str(error) == "what\nwhere: where\nfix: fix"


def test_error_without_place_or_fix_is_one_line() -> None:
    assert str(TuluError("what")) == "what"


def test_tree_in_the_docstring_names_every_error() -> None:
    assert all(kind.__name__ in str(errors.__doc__) for kind in KINDS)


def test_unknown_name_shows_no_more_than_twenty() -> None:
    error = unknown_name("thing", "x7", (f"x{number}" for number in range(30)))
    assert isinstance(error, NotFound)
    assert error.fix.count("`") == 6
    assert error.fix.endswith(", …")


def test_unknown_name_among_none_says_so() -> None:
    assert unknown_name("thing", "x", []).fix == "known: none"
