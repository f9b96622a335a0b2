"""What moves a key, and what never does."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_graph import Workshop, settings

from tulu_pipeline.artifacts.artifact import Artifact, ObjectRef
from tulu_pipeline.artifacts.canonical import canonical_json, to_plain
from tulu_pipeline.artifacts.plan import identity, key_of
from tulu_pipeline.artifacts.source import Builtin, HubFile, PinnedFile
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.budget import Budget
from tulu_pipeline.profile import Profile

TEXT = st.text(st.characters(codec="utf-8"))  # no lone surrogates: those are refused
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner), max_leaves=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    count: int = 1
    rate: float = 0.1
    name: str = "a"
    on: bool = False
    price: Decimal = Decimal("0.1")
    tags: tuple[str, ...] = ("x",)
    chosen: frozenset[str] = frozenset({"x"})
    by_name: Mapping[str, int] = dataclasses.field(default_factory=lambda: {"x": 1})
    limit: int | None = None


OTHER: dict[str, st.SearchStrategy[Any]] = {
    "count": st.integers(),
    "rate": st.floats(allow_nan=False, allow_infinity=False),
    "name": TEXT,
    "on": st.booleans(),
    "price": st.decimals(allow_nan=False, allow_infinity=False),
    "tags": st.lists(TEXT, max_size=3).map(tuple),
    "chosen": st.frozensets(TEXT, max_size=3),
    "by_name": st.dictionaries(TEXT, st.integers(), max_size=3),
    "limit": st.none() | st.integers(),
}


def no_run(job: Job[Any], ctx: RunContext) -> Metrics:
    raise NotImplementedError


def key(
    params: object = Params(),
    inputs: Mapping[str, str | None] | None = None,
    sources: Mapping[str, Any] | None = None,
    objects: tuple[ObjectRef, ...] = (),
    **changes: Any,
) -> str:
    stage: Stage[Any] = Stage(**{"name": "toy", "version": 1, "params": Params, "run": no_run} | changes)
    artifact = Artifact(stage=stage, cell="cell", params=params, objects=objects)
    return key_of(identity(artifact, dict(inputs or {}), dict(sources or {})))


@given(VALUES)
def test_canonical_text_reads_back_as_the_value(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(VALUES, VALUES)
def test_values_with_one_text_are_equal(a: Any, b: Any) -> None:
    if canonical_json(a) == canonical_json(b):
        assert a == b


@given(st.dictionaries(TEXT, SCALARS), st.randoms())
def test_no_order_of_a_dict_moves_a_text(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical_json(dict(items)) == canonical_json(value)


def test_the_cases_below_cover_every_field() -> None:
    assert OTHER.keys() == {field.name for field in dataclasses.fields(Params)}


@pytest.mark.parametrize("name", OTHER)
@given(data=st.data())
def test_every_params_field_moves_the_key(name: str, data: st.DataObject) -> None:
    a, b = data.draw(OTHER[name]), data.draw(OTHER[name])
    same = to_plain(a) == to_plain(b)
    moved = key(dataclasses.replace(Params(), **{name: a})) != key(dataclasses.replace(Params(), **{name: b}))
    assert moved != same


def test_everything_of_an_identity_moves_the_key() -> None:
    source = PinnedFile(url="https://example.org/a", sha256="a" * 64)
    keys = {
        "base": key(),
        "stage name": key(name="other"),
        "stage version": key(version=2),
        "input digest": key(inputs={"raw": "1" * 64}),
        "other digest": key(inputs={"raw": "2" * 64}),
        "input name": key(inputs={"cooked": "1" * 64}),
        "missing input": key(inputs={"raw": None}),
        "object": key(objects=(ObjectRef(name="dataset a", version=1, module="tulu_pipeline.datasets.a"),)),
        "object version": key(objects=(ObjectRef(name="dataset a", version=2, module="tulu_pipeline.datasets.a"),)),
        "source": key(sources={"raw": source.descriptor()}),
        "source name": key(sources={"data/raw": source.descriptor()}),
        "env": key(env=("pytest",)),
        "other env": key(env=("hypothesis",)),
        "absent package": key(env=("no-such-package",)),
    }
    assert len(set(keys.values())) == len(keys)


def test_an_installed_version_moves_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity(Artifact(stage=_with_env(), cell="c", params=Params()), {}, {})
    assert before["env"]["hypothesis"] not in {"absent", ""}
    assert key_of(before) != key_of(before | {"env": {"hypothesis": "0.0.1"}})


def _with_env() -> Stage[Any]:
    return Stage(name="toy", version=1, params=Params, run=no_run, env=("hypothesis",))


@pytest.mark.parametrize(
    "changed",
    [
        {"slot": "gpu"},
        {"deterministic": False},
        {"tolerates_missing": True},
        {"batch": True},
    ],
    ids=str,
)
def test_how_a_stage_is_carried_out_moves_no_key(changed: dict[str, Any]) -> None:
    assert key(**changed) == key()


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Profile)])
def test_no_field_of_the_profile_moves_a_key(field: str, tmp_path: Path) -> None:
    default = getattr(Profile(), field)
    changed = {bool: True, int: 7, float: 0.25, str: "other"}[type(default)]
    assert changed != default
    assert made_key(tmp_path, profile=dataclasses.replace(Profile(), **{field: changed})) == made_key(tmp_path)


CONTEXTS = {
    "profile": Profile(cpu_slots=1, ranks=3),
    "settings": settings(Path("/elsewhere"), mirror="/mirror", hub_token="secret"),
    "progress": lambda *_: None,
    "strict_rows": True,
    "unsafe_code": True,
    "budget": Budget(Decimal(3)),
    "on_child": lambda pid: None,
}


def test_the_contexts_above_cover_every_field() -> None:
    assert CONTEXTS.keys() == {field.name for field in dataclasses.fields(RunContext)}


@pytest.mark.parametrize("field", CONTEXTS)
def test_no_field_of_the_run_context_moves_a_key(field: str, tmp_path: Path) -> None:
    assert made_key(tmp_path, **{field: CONTEXTS[field]}) == made_key(tmp_path)


def made_key(folder: Path, **context: Any) -> str:
    """The key under which a run in this context publishes."""

    class Shop(Workshop):
        @property
        def ctx(self) -> RunContext:
            return dataclasses.replace(super().ctx, **context)

    shop = Shop(folder / f"shop-{len(list(folder.iterdir()))}")
    node = shop.node("write", "a", "text")
    assert not shop.run(node).failed
    (manifest,) = shop.store.manifests()
    assert manifest.key == shop.plan(node).nodes[node.name].key
    return manifest.key


def test_addresses_of_a_pinned_file_move_no_key_once_its_hash_is_known() -> None:
    here = PinnedFile(url="https://example.org/a", sha256="a" * 64)
    there = HubFile(repo="x/y", path="z", revision="0" * 40, sha256="a" * 64)
    assert key(sources={"raw": here.descriptor()}) == key(sources={"raw": there.descriptor()})
    unknown = dataclasses.replace(here, sha256=None)
    assert unknown.descriptor() != dataclasses.replace(unknown, url="https://example.org/b").descriptor()


@pytest.mark.parametrize(
    "other",
    [
        HubFile(repo="x/other", path="z", revision="0" * 40),
        HubFile(repo="x/y", path="other", revision="0" * 40),
        HubFile(repo="x/y", path="z", revision="1" * 40),
        HubFile(repo="x/y", path="z", revision="0" * 40, kind="model"),
        Builtin(function="m:f", version=1),
        Builtin(function="m:f", version=2),
        Builtin(function="m:g", version=1),
        Builtin(function="m:f", version=1, args=(("size", 1),)),
    ],
    ids=str,
)
def test_every_field_of_a_source_without_a_hash_moves_the_key(other: HubFile | Builtin) -> None:
    others = [HubFile(repo="x/y", path="z", revision="0" * 40)]
    if isinstance(other, Builtin):
        others = [Builtin(function="m:f", version=3)]  # type: ignore[list-item]
    assert key(sources={"raw": other.descriptor()}) != key(sources={"raw": others[0].descriptor()})
