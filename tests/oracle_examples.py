"""How many drawn predictions each comparison with another's code takes: some in `make test`, many in `make soak`."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings

FEW, MANY = 500, 10_000
both_sizes = pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])


def compared(*, at_once: int = 1, **drawn: Any) -> Callable[[Callable[..., None]], Callable[[int], None]]:
    """Makes a law over drawn arguments a test of both sizes.

    Args:
        at_once: predictions in one example, where the other's code takes many.
        drawn: the law's arguments, by strategy.
    """

    def test_of(law: Callable[..., None]) -> Callable[[int], None]:
        # Without deadline: the first example imports the other's code.
        def test(examples: int) -> None:
            settings(max_examples=examples // at_once, deadline=None)(given(**drawn)(law))()

        test.__name__, test.__doc__, test.__module__ = law.__name__, law.__doc__, law.__module__
        return both_sizes(test)

    return test_of
