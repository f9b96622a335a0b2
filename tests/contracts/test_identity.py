"""What every stage of the project owes to its key: each field of its Params counts, and its code is watched."""

import dataclasses
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from flows.graph import every_artifact
from tasks import STAGES
from tulu_pipeline.artifacts import versions
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.canonical import canonical_json, to_plain
from tulu_pipeline.artifacts.plan import identity, key_of
from tulu_pipeline.errors import BadInput

ARTIFACTS: dict[str, Artifact] = {artifact.stage.name: artifact for artifact in every_artifact()}


def fields_of(params: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(params) if not field.metadata.get("execution")]


def test_every_stage_is_watched() -> None:
    assert {stage.name for stage in STAGES} == ARTIFACTS.keys()


CASES = [(stage, name) for stage, artifact in ARTIFACTS.items() for name in fields_of(artifact.params)]


def other(value: Any) -> Any:
    """A value of the same kind that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, Enum):
        return next(member for member in type(value) if member is not value)
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, int | float | Decimal):
        return value + 1
    if isinstance(value, tuple):
        return (*value, other(value[0])) if value else ("x",)
    if isinstance(value, frozenset):
        return value | {"x"}
    if isinstance(value, Mapping):
        return {**value, "x": "x"}
    if dataclasses.is_dataclass(value):
        for name in fields_of(value):
            with suppress(BadInput):  # a field of few choices
                return dataclasses.replace(value, **{name: other(getattr(value, name))})  # type: ignore[type-var]
    assert value is None, f"no other {type(value).__name__} is known here"
    return 1


def key(artifact: Artifact) -> str:
    return key_of(identity(artifact, dict.fromkeys(artifact.inputs, "0" * 64), {}))


@pytest.mark.parametrize(("stage", "name"), CASES)
def test_every_field_of_the_params_moves_the_key(stage: str, name: str) -> None:
    artifact = ARTIFACTS[stage]
    changed = dataclasses.replace(artifact.params, **{name: other(getattr(artifact.params, name))})  # type: ignore[type-var]
    assert key(dataclasses.replace(artifact, params=changed)) != key(artifact)


@pytest.mark.parametrize("stage", ARTIFACTS)
def test_params_are_frozen_and_have_one_text(stage: str) -> None:
    params: Any = ARTIFACTS[stage].params
    assert type(params) is ARTIFACTS[stage].stage.params
    assert params.__dataclass_params__.frozen
    assert canonical_json(params) == canonical_json(dataclasses.replace(params))
    assert isinstance(to_plain(params), dict)


@pytest.mark.parametrize("stage", ARTIFACTS)
def test_code_of_every_stage_and_object_is_watched(stage: str) -> None:
    for artifact in every_artifact():
        if artifact.stage.name == stage:
            for module in versions._modules(artifact):
                assert versions._file(module, None) is not None, f"{module}, behind {artifact.name}, is not found"
