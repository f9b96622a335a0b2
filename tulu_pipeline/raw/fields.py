"""Fields of a parsed raw row, or the reason why the row has to be dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tulu_pipeline.specs.dataset import RowDropped


def object_of(value: object) -> dict[str, Any]:
    """The value as a JSON object.

    Raises:
        RowDropped: it is none.
    """
    if not isinstance(value, dict):
        raise RowDropped("no JSON object")
    return value


def text_of(fields: Mapping[str, Any], key: str) -> str:
    """The text under `key`.

    Raises:
        RowDropped: the key is not there, null, or something else than text.
    """
    text = fields.get(key)
    if not isinstance(text, str):
        raise RowDropped(f"no `{key}`" if text is None else f"`{key}` is no text")
    return text


def list_of(fields: Mapping[str, Any], key: str) -> list[Any]:
    """The list under `key`.

    Raises:
        RowDropped: the key is not there, null, or something else than a list.
    """
    items = fields.get(key)
    if not isinstance(items, list):
        raise RowDropped(f"no `{key}`" if items is None else f"`{key}` is no list")
    return items
