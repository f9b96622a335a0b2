"""Equal values have one text, and what has no stable form never gets into a key."""

import decimal
import os
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path

import pytest

from tulu_pipeline.artifacts.canonical import added_field, canonical_json, execution_field
from tulu_pipeline.errors import BadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    rate: float = 0.5
    tags: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = Inner()
    extra: dict[str, object] | None = None


class Color(StrEnum):
    RED = "red"


class Size(IntEnum):
    BIG = 3


class Point(Enum):
    ORIGIN = (0, 0)


def test_text_is_independent_of_dict_order() -> None:
    assert canonical_json({"b": 1, "a": {"d": 2, "c": 3}}) == '{"a":{"c":3,"d":2},"b":1}'
    assert canonical_json({"a": {"c": 3, "d": 2}, "b": 1}) == canonical_json({"b": 1, "a": {"d": 2, "c": 3}})


def test_text_of_a_set_is_the_same_in_every_process() -> None:
    code = "from tulu_pipeline.artifacts.canonical import canonical_json; print(canonical_json({'x', 'y', 'zz', 'é'}))"
    texts = set()
    for seed in ("0", "1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        texts.add(subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True).stdout)
    assert texts == {b'["x","y","zz","\xc3\xa9"]\n'}


def test_values_of_all_kinds_have_their_text() -> None:
    assert canonical_json([None, True, 1, 1.5, "é", (2,), frozenset({3, 1})]) == '[null,true,1,1.5,"é",[2],[1,3]]'
    assert canonical_json([Color.RED, Size.BIG, Point.ORIGIN]) == '["red",3,[0,0]]'
    assert canonical_json(Outer()) == '{"extra":null,"inner":{"rate":0.5,"tags":[]}}'


def test_numbers_of_another_type_are_other_values() -> None:
    assert len({canonical_json(value) for value in (1, 1.0, True, "1", Decimal(1))}) == 5


def test_equal_numbers_of_one_type_have_one_text() -> None:
    assert canonical_json(-0.0) == canonical_json(0.0)
    assert canonical_json(Decimal("-0")) == canonical_json(Decimal("0.00"))
    assert canonical_json(Decimal("100")) == canonical_json(Decimal("1E+2")) == canonical_json(Decimal("100.0"))


def test_text_of_a_decimal_is_independent_of_the_precision_in_force() -> None:
    long = Decimal("1.23456789012345678901234567890123456789")
    with decimal.localcontext(prec=5):
        assert canonical_json(long) == '{"decimal":"1.23456789012345678901234567890123456789"}'


REFUSED = {
    "nan": (float("nan"), "nan"),
    "infinity": (float("inf"), "inf"),
    "decimal nan": (Decimal("NaN"), "NaN"),
    "signalling nan": (Decimal("sNaN"), "sNaN"),
    "decimal infinity": (Decimal("-Infinity"), "Infinity"),
    "path": (Path("/x"), "PosixPath"),
    "callable": (len, "builtin_function_or_method"),
    "class": (Inner, "type"),
    "bytes": (b"x", "bytes"),
    "mixed set": ({1, "1"}, "int, str"),
    "set of floats": ({0.1}, "float"),
    "generator": ((each for each in ()), "generator"),
    "dict key": ({1: 2}, "int"),
    "lone surrogate": ("\udc80", "surrogate"),
}


@pytest.mark.parametrize(("value", "told"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_stable_form_is_refused_with_the_fields_path(value: object, told: str) -> None:
    with pytest.raises(BadInput) as refused:
        canonical_json({"params": Outer(inner=Inner(tags=(1, value)))})
    assert told in refused.value.what
    assert refused.value.where == "$.params.inner.tags[1]"
    assert refused.value.fix


def test_where_of_a_refused_dict_value_names_its_key() -> None:
    with pytest.raises(BadInput) as refused:
        canonical_json(Outer(extra={"a": [0, len]}))
    assert refused.value.where == "$.extra.a[1]"


def test_added_field_is_left_out_while_it_has_its_default() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Before:
        a: int

    @dataclass(frozen=True, kw_only=True)
    class After:
        a: int
        b: int = added_field(default=1)
        c: tuple[str, ...] = added_field(default=())

    assert canonical_json(Before(a=1)) == canonical_json(After(a=1)) == canonical_json(After(a=1, b=1, c=()))
    assert canonical_json(After(a=1, b=2)) == '{"a":1,"b":2}'
    assert canonical_json(After(a=1, c=("x",))) == '{"a":1,"c":["x"]}'


@pytest.mark.parametrize("value", [True, 1.0])
def test_added_field_with_a_value_that_only_compares_equal_is_not_left_out(value: object) -> None:
    @dataclass(frozen=True, kw_only=True)
    class After:
        b: object = added_field(default=1)

    assert canonical_json(After(b=value)) != canonical_json(After())


def test_execution_field_is_never_in_the_text() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Spec:
        a: int
        call: object = execution_field(default=None)

    assert canonical_json(Spec(a=1, call=len)) == canonical_json(Spec(a=1)) == '{"a":1}'
    assert Spec(a=1, call=len) == Spec(a=1)
