"""What a mixture is: an ordered list of components. A mixture copies nothing."""

from __future__ import annotations

from dataclasses import dataclass

from tulu_pipeline.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """One dataset of a mixture.

    Attributes:
        dataset: its name.
        cap: at most this many conversations, drawn without replacement by the mixture's seed; None takes all.
        repeat: how often each conversation is seen in an epoch.
    """

    dataset: str
    cap: int | None = None
    repeat: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """What a model is tuned on.

    Attributes:
        name: id; a model tuned on it is `model+mixture`.
        components: in order; the training order is drawn over all of them together.
        label: how tables call a model tuned on it; "" uses the name.
        seed: draws the capped components.
    """

    name: str
    components: tuple[Component, ...]
    label: str = ""
    seed: int = 42

    def __post_init__(self) -> None:
        names = [component.dataset for component in self.components]
        if not names:
            raise BadInput(f"mixture `{self.name}` has no component", "mixture", "name at least one dataset")
        for name in names:
            if names.count(name) > 1:
                raise BadInput(
                    f"`{name}` stands {names.count(name)} times in mixture `{self.name}`", "mixture", "use `repeat`"
                )


def single(dataset: str) -> Mixture:
    """A mixture of one dataset, under the dataset's name."""
    return Mixture(name=dataset, components=(Component(dataset=dataset),))
