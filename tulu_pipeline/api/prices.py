"""What a request costs, at most and in fact, by a table with its date."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from tulu_pipeline.api.requests import ApiRequest, Usage
from tulu_pipeline.errors import BadInput

TABLE = Path(__file__).with_name("prices.toml")

_MILLION = Decimal(1_000_000)
# What a chat's form adds to its texts: at most so many tokens for each message and for the whole.
_FORM_TOKENS = 16
_BYTES_PER_TOKEN = 3.5  # of English, for estimates; the highest possible number of tokens is that of the bytes
_FIELDS = frozenset({"provider", "model", "prefix", "input", "cached", "output", "batch", "context_tokens"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs, in US dollars per million tokens.

    Attributes:
        provider, model, prefix: whose it is: of the model of this name, or of all whose names begin so.
        cached: of prompt tokens that the server had seen lately. batch: share of it that a batch costs.
        context_tokens: the longest sequence, which bounds what a request without a cap can generate.
    """

    provider: str
    model: str
    prefix: str
    input: Decimal
    cached: Decimal
    output: Decimal
    batch: Decimal
    context_tokens: int

    def holds_for(self, provider: str, model: str) -> bool:
        """Whether it is this model's."""
        named = self.model == model if self.model else model.startswith(self.prefix)
        return self.provider == provider and named

    def cost(self, usage: Usage) -> Decimal:
        """What a reply cost."""
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        total = fresh * self.input + usage.cached_tokens * self.cached + usage.completion_tokens * self.output
        return total / _MILLION

    def highest(self, request: ApiRequest) -> Decimal:
        """What a request can cost at most: every byte a token, every sample as long as it may be."""
        prompt_tokens = request.text_bytes() + _FORM_TOKENS * (len(request.messages) + 1)
        longest = self.context_tokens if request.max_tokens is None else request.max_tokens
        return (prompt_tokens * self.input + request.n * longest * self.output) / _MILLION

    def likely(self, request: ApiRequest) -> Decimal:
        """What a request will cost about: English text, samples as long as they may be, without a cap a tenth of it."""
        prompt_tokens = math.ceil(request.text_bytes() / _BYTES_PER_TOKEN) + _FORM_TOKENS
        longest = self.context_tokens // 10 if request.max_tokens is None else request.max_tokens
        return (prompt_tokens * self.input + request.n * longest * self.output) / _MILLION


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """Prices, the first that holds counts; and when they were read."""

    read: date
    prices: tuple[Price, ...]

    def find(self, provider: str, model: str) -> Price | None:
        """The price of a model; None where the table has none."""
        return next((each for each in self.prices if each.holds_for(provider, model)), None)


def read_prices(own: Path | None = None) -> PriceTable:
    """The project's table, with `own` (a file of the same form) before it.

    Raises:
        BadInput: a file that is no such table.
    """
    tables = [_read(path) for path in (own, TABLE) if path is not None]
    return PriceTable(read=tables[0].read, prices=tuple(price for table in tables for price in table.prices))


def _read(path: Path) -> PriceTable:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
        read, rows = table["read"], table["price"]
        if not isinstance(read, date) or not isinstance(rows, list):
            raise TypeError("`read` is no date, or `price` no list of tables")
        return PriceTable(read=read, prices=tuple(_prices(rows)))
    except (OSError, ValueError, KeyError, TypeError, ArithmeticError) as error:
        what = f"no table of prices: {type(error).__name__}: {error}"
        raise BadInput(what, str(path), f"write it as `{TABLE.name}` is written") from error


def _prices(rows: Iterable[dict[str, Any]]) -> Iterable[Price]:
    for row in rows:
        if unknown := set(row) - _FIELDS:
            raise ValueError(f"unknown key `{min(unknown)}`")
        if ("model" in row) == ("prefix" in row):
            raise ValueError("a price has either `model` or `prefix`")
        yield Price(
            provider=row.get("provider", "openai"),
            model=row.get("model", ""),
            prefix=row.get("prefix", ""),
            input=Decimal(row["input"]),
            cached=Decimal(row.get("cached", row["input"])),
            output=Decimal(row["output"]),
            batch=Decimal(row.get("batch", 1)),
            context_tokens=int(row["context_tokens"]),
        )
