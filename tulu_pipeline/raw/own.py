"""A user's own data: a dataset in a few lines, from JSON lines, a JSON array or Parquet, here or on the hub."""

from __future__ import annotations

import gzip
import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from tulu_pipeline.artifacts.canonical import canonical_json, sha256_text
from tulu_pipeline.artifacts.source import Builtin, HubFile, HubModel, LocalFile, Source
from tulu_pipeline.chat.schema import Conversation
from tulu_pipeline.errors import BadInput, unknown_name
from tulu_pipeline.mixing.language import plain_code
from tulu_pipeline.raw.fields import object_of
from tulu_pipeline.raw.layouts import LAYOUTS, Layout, Names, check_columns, messages_of
from tulu_pipeline.raw.parquet import ParquetRows
from tulu_pipeline.raw.readers import read_json_arrays, read_json_lines
from tulu_pipeline.specs.dataset import BrokenRow, ChangedRow, CountTokens, Dataset, RawRow, RowDropped

Columns = Literal["auto", "messages", "sharegpt", "prompt_completion", "alpaca"]

_VERSION = 2  # bumped when rows give other conversations
_ABOUT_A_ROW = ("id", "license", "language")
_ROWS_LOOKED_AT = 20
_ENDING = re.compile(r"\.(jsonl|ndjson|json)(\.gz)?$|\.parquet$")


def own_dataset(
    name: str,
    files: str | Path | Source | Sequence[str | Path | Source],
    *,
    module: str,
    columns: Columns = "auto",
    names: Names | None = None,
    license: str = "NOASSERTION",  # noqa: A002  # the name it has in Dataset
    title: str = "",
    citation: str = "",
    url: str = "",
) -> Dataset:
    """A dataset of a user's own rows.

    A prompt and a completion become a question and an answer as they stand. The original trained such rows as plain
    text and put a space between the two where neither had one; in a chat the tags stand there.

    Args:
        name: what mixtures and tables call it.
        files: one or several, in order: paths, from the folder of the calling file on, or sources such as `HubFile`.
            Their ending tells their format: .jsonl, .ndjson, .json (an array or lines), each also with .gz; .parquet.
        module: the calling file, `__file__`; its code becomes part of the identity of what is made.
        columns: the rows' layout, as `raw/layouts.py` lists them; "auto" takes for each row the first whose columns
            it has.
        names: what the files call the layout's columns, or the keys within messages, where they have other names:
            `names={"prompt": "question", "completion": "answer"}`. Three more are looked up only if named here:
            `id` (unique; else ids are the file's name and the row's number), `license` (SPDX; of a list all apply)
            and `language` (ISO 639-1, a region may follow; anything else counts as none, and is told).
        license: of the rows that have none of their own; an SPDX id where there is one.
        title: for people; "" takes the name.
        citation: for people.
        url: for people.

    Raises:
        BadInput: a file's format cannot be told, or an argument cannot be used. From reading: a file without the
            columns, or one that cannot be read.
        NotFound: there is no such layout, or `names` names a column that no layout has.
    """
    where = f"own_dataset {name!r}"
    if not re.fullmatch(r"[\w.-]+", name):
        raise BadInput(f"the name is {name!r}", where, "use letters, digits, `_`, `-` and `.`")
    if not module.endswith(".py"):
        raise BadInput(f"module is {module!r}, not a file", where, "write `module=__file__`")
    if columns not in get_args(Columns):
        raise unknown_name("layout of columns", columns, get_args(Columns), where)
    layouts = tuple(LAYOUTS.values()) if columns == "auto" else (LAYOUTS[columns],)
    renamed = dict(names or {})
    known = {*_columns(layouts), *(key for layout in layouts for key in layout.keys)}
    for column in renamed:
        if column not in known:
            raise unknown_name("column", column, known, where)
    listed = [files] if isinstance(files, str | Path) or not isinstance(files, Sequence) else list(files)
    sources = _sources(listed, Path(module).resolve().parent, where)
    # The arguments may come from outside the module; a key sorts the sources, the rows keep their order.
    identity = canonical_json([_VERSION, columns, renamed, list(sources)])
    return Dataset(
        name=name,
        module=module,
        title=title or name,
        citation=citation,
        license=license,
        url=url,
        sources=sources,
        read=partial(_read, layouts, renamed),
        split=partial(_told, renamed) if "language" in renamed else None,
        convert=partial(_convert, name, layouts, renamed),
        converter_version=int(sha256_text(identity)[:8], 16),
        id_column=renamed.get("id", ""),
    )


def _convert(name: str, layouts: tuple[Layout, ...], names: Names, row: RawRow, rng: random.Random) -> Conversation:
    value = object_of(row.value)
    messages = messages_of(value, layouts, names, rng)
    if not all(message.content.strip() for message in messages if message.role == "user"):
        raise RowDropped("empty user message")
    license_, (language, _) = _license(value, names), _language(value, names)
    return Conversation(name, f"{name}_{row.row_id}", messages, license=license_, language=language)


def _license(value: Mapping[str, Any], names: Names) -> str:
    stated = value.get(names["license"]) if "license" in names else None
    several = [str(each) for each in (stated if isinstance(stated, list) else [stated]) if each]
    return " AND ".join(f"({each})" if " OR " in each and len(several) > 1 else each for each in several)


def _language(value: Mapping[str, Any], names: Names) -> tuple[str, str]:
    """The row's ISO 639-1 code, and what is stated instead of one."""
    stated = value.get(names["language"]) if "language" in names else None
    code = plain_code(stated) if isinstance(stated, str) else ""
    return (code, "") if re.fullmatch("[a-z]{2}", code) else ("", str(stated or ""))


def _told(names: Names, row: RawRow, count_tokens: CountTokens | None) -> Iterator[RawRow | BrokenRow | ChangedRow]:
    """The row as it is, behind what is wrong with its language."""
    stated = _language(row.value, names)[1] if isinstance(row.value, dict) else ""
    if stated:
        yield ChangedRow(row.row_id, row.where, f"`{names['language']}` is no code of ISO 639-1", stated)
    yield row


def _columns(layouts: Sequence[Layout]) -> list[str]:
    of_layouts = (column for layout in layouts for column in (*layout.wanted, *layout.optional))
    return [*of_layouts, *_ABOUT_A_ROW]


def _sources(files: Sequence[str | Path | Source], folder: Path, where: str) -> dict[str, Source]:
    """Sources under their files' names; all are numbered where two differ in nothing or in their endings alone."""
    if not files:
        raise BadInput("there are no files", where, "name at least one")
    named: list[tuple[str, Source]] = []
    for file in files:
        if isinstance(file, str) and "://" in file:
            raise BadInput(f"`{file}` is no path", where, "write it as `HubFile(…)` or `PinnedFile(url=…)`")
        source: Source = LocalFile(path=str(folder / file)) if isinstance(file, str | Path) else file
        if isinstance(source, Builtin | HubModel):
            kind = "builtin" if isinstance(source, Builtin) else "hub model"
            raise BadInput(f"a {kind} source has no file name", where, "give files, or write a `Dataset` yourself")
        place = source.path if isinstance(source, LocalFile | HubFile) else source.url or ""
        name = PurePosixPath(place.partition("?")[0]).name
        if not _ENDING.search(name):
            raise BadInput(
                f"cannot tell the format of `{name or place}`", where, "name it .jsonl, .json, .parquet, or .jsonl.gz"
            )
        named.append((name, source))
    if len({_stem(name) for name, _ in named}) == len(named):
        return dict(named)
    return {f"{number}-{name}": source for number, (name, source) in enumerate(named, 1)}


def _stem(name: str) -> str:
    return _ENDING.sub("", name)


def _read(layouts: tuple[Layout, ...], names: Names, files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    """Rows of all files; a file of which no row has the wanted columns is refused."""
    for name, path in files.items():
        stem = _stem(name)
        for row in _rows(layouts, names, name, path):
            own = replace(row, row_id=f"{stem}_{row.row_id}")
            yield _under_its_id(own, names["id"]) if "id" in names and isinstance(own, RawRow) else own


def _under_its_id(row: RawRow, column: str) -> RawRow | BrokenRow:
    own = row.value.get(column) if isinstance(row.value, dict) else None
    if isinstance(own, str | int) and str(own):
        return replace(row, row_id=str(own))
    return BrokenRow(row.row_id, row.where, f"no `{column}` to name it by")


def _rows(layouts: tuple[Layout, ...], names: Names, name: str, path: Path) -> Iterator[RawRow | BrokenRow]:
    if name.endswith(".parquet"):
        table = ParquetRows(name, path)
        check_columns([table.columns], layouts, names, name)
        return table.read([names.get(column, column) for column in _columns(layouts)])
    rows = _json_reader(name, path)({name: path})
    first = list(islice(rows, _ROWS_LOOKED_AT))
    objects = [row.value for row in first if isinstance(row, RawRow) and isinstance(row.value, dict)]
    check_columns(objects, layouts, names, name)
    return chain(first, rows)


def _json_reader(name: str, path: Path) -> Callable[[Mapping[str, Path]], Iterator[RawRow | BrokenRow]]:
    """Of an array or of lines: what is called .json may be either."""
    if not re.search(r"\.json(\.gz)?$", name):
        return read_json_lines
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as stream:
            start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return read_json_lines  # which tells
    return read_json_lines if start.startswith(b"{") else read_json_arrays
