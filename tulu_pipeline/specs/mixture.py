"""What a mixture is: an ordered list of components. A mixture copies nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.checks import check_choices

Deduplicate = Literal["", "exact", "near"]
# What can be part of an artifact's name and name a folder.
_NAME = re.compile(r"\w[\w.:-]*")
_LANGUAGE = re.compile(r"[a-z]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One dataset of a mixture.

    Filters come first, then the cap; nothing of it is on by default.

    Attributes:
        dataset: its name.
        cap: at most this many conversations, drawn without replacement by the mixture's seed; None takes all.
        repeat: how often each conversation is seen in an epoch.
        weight: share of the mixture's `total`, relative to the other weights, instead of a cap.
        deduplicate: leave out conversations whose text stood before, word for word (`exact`) or nearly so (`near`).
        languages: keep only these, as ISO 639-1 codes; a row's own code counts where the raw file has one, else it is
            detected. Empty keeps all.
        licenses: keep only rows under these, by SPDX id; a row's own license counts where it has one, else the
            dataset's. Empty keeps all.
    """

    dataset: str
    cap: int | None = None
    repeat: int = 1
    weight: float | None = None
    deduplicate: Deduplicate = ""
    languages: tuple[str, ...] = ()
    licenses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        def refuse(what: str, fix: str) -> None:
            raise BadInput(what, f"component `{self.dataset}`", fix)

        if not _is_text(self.dataset):
            refuse(f"the dataset is {self.dataset!r}", "write the name of a dataset")
        if self.cap is not None and not _is_whole(self.cap):
            refuse(f"the cap is {self.cap!r}", "write a whole number, or None for all")
        if not _is_whole(self.repeat):
            refuse(f"repeat is {self.repeat!r}", "write a whole number; a weight divides more finely")
        if self.weight is not None and (isinstance(self.weight, bool) or not isinstance(self.weight, int | float)):
            refuse(f"the weight is {self.weight!r}", "write a positive number")
        check_choices(self, f"component `{self.dataset}`")
        if self.cap is not None and self.cap < 1:
            refuse(f"the cap is {self.cap}", "write at least 1, or None for all")
        if self.repeat < 1:
            refuse(f"repeat is {self.repeat}", "write at least 1, or leave the component out")
        if self.weight is not None and not 0 < self.weight < float("inf"):
            refuse(f"the weight is {self.weight}", "write a positive number, or leave the component out")
        if self.weight is not None and self.cap is not None:
            refuse("it has both a weight and a cap", "a weight decides how many are drawn: leave out the cap")
        tuples: dict[str, object] = {"languages": self.languages, "licenses": self.licenses}
        for name, values in tuples.items():
            if not isinstance(values, tuple):
                refuse(f"{name} is a {type(values).__name__}", f"write a tuple: `{name}=({str(values)!r},)`")
            elif not all(isinstance(each, str) for each in values):
                refuse(f"{name} holds what is no text: {values!r}", f'write texts: `{name}=("…",)`')
        for code in self.languages:
            if not _LANGUAGE.fullmatch(code):
                refuse(f"`{code}` is no language code", "write two small letters, as ISO 639-1 has them: `en`")
        if not all(self.licenses):
            refuse("a license is empty", "name it, as an SPDX id where there is one; rows without one never pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """What a model is tuned on.

    Attributes:
        name: id of letters, digits, `_`, `-`, `.` and `:`; a model tuned on it is `model+mixture`.
        components: in order; the training order is drawn over all of them together.
        label: how tables call a model tuned on it; "" uses the name.
        seed: draws the capped components.
        total: conversations of an epoch, divided among the components by their weights; None where there are none.
    """

    name: str
    components: tuple[Component, ...]
    label: str = ""
    seed: int = 42
    total: int | None = None

    def __post_init__(self) -> None:
        def refuse(what: str, fix: str) -> None:
            raise BadInput(what, f"mixture `{self.name}`", fix)

        if not (_is_text(self.name) and _NAME.fullmatch(self.name)):
            refuse(f"the name is {self.name!r}", "write letters, digits, `_`, `-`, `.` and `:`, no sign first")
        if not _is_whole(self.seed):
            refuse(f"the seed is {self.seed!r}", "write a whole number")
        if self.total is not None and not _is_whole(self.total):
            refuse(f"the total is {self.total!r}", "write a whole number of conversations")
        names = [component.dataset for component in self.components]
        if not names:
            refuse(f"mixture `{self.name}` has no component", "name at least one dataset")
        for name in names:
            if names.count(name) > 1:
                refuse(f"`{name}` stands {names.count(name)} times in mixture `{self.name}`", "use `repeat`")
        weighted = [component.weight is not None for component in self.components]
        if any(weighted) and not all(weighted):
            refuse("some components have a weight and some have none", "weigh all of them, or none")
        if any(weighted) != (self.total is not None):
            refuse("weights and `total` go together", "give both, or use caps")
        if self.total is not None and self.total < 1:
            refuse(f"the total is {self.total}", "write at least 1")
        for component, cap in zip(self.components, self.caps(), strict=True):
            if cap == 0:
                refuse(
                    f"of {self.total:,} conversations none is left for `{component.dataset}`",
                    "raise the total or its weight, or lower its `repeat`",
                )

    def caps(self) -> tuple[int | None, ...]:
        """How many conversations each component may give: its cap, or what its weight makes of the total.

        An epoch then has `total` conversations, less what `repeat` cannot divide. What rounding leaves over goes to
        the largest remainders, by name where they are equal, so no share depends on the order of the components.
        """
        if self.total is None:
            return tuple(component.cap for component in self.components)
        # Exact fractions: with floats, weights of 0.1 and 0.3 would not be one to three.
        weights = {part.dataset: Fraction(str(part.weight)) for part in self.components}
        exact = {name: self.total * weight / sum(weights.values()) for name, weight in weights.items()}
        shares = {name: int(share) for name, share in exact.items()}
        by_remainder = sorted(shares, key=lambda name: (shares[name] - exact[name], name))
        for name in by_remainder[: self.total - sum(shares.values())]:
            shares[name] += 1
        return tuple(shares[part.dataset] // part.repeat for part in self.components)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def single(dataset: str) -> Mixture:
    """A mixture of one dataset, under the dataset's name."""
    return Mixture(name=dataset, components=(Component(dataset=dataset),))
