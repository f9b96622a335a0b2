"""What there is by name, for people and for scripts: `tulu list` and `tulu show`."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from typing import Any

from flows import catalog
from tasks import STAGES
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import TuluError, unknown_name
from tulu_pipeline.mixing.licenses import meaning, parts_of
from tulu_pipeline.specs.benchmark import Benchmark
from tulu_pipeline.specs.dataset import Dataset
from tulu_pipeline.specs.mixture import Mixture
from tulu_pipeline.specs.model import Family, PretrainedModel, Release

_SHOWN_REASONS = 10
_SHOWN_ITEMS = 12
_SHORT = 40
_SHOWN_SOURCES = 4
_LEAST_SLASHES = 4  # of an address that says more than a host


def list_kind(kind: str) -> list[tuple[str, ...]]:
    """Name, title and one fact more of everything of a kind.

    Raises:
        NotFound: no such kind.
    """
    kinds: dict[str, Callable[[], list[tuple[str, ...]]]] = {
        "datasets": lambda: [(each.name, each.title, each.license) for each in catalog.DATASETS.all()],
        "mixtures": lambda: [
            (each.name, ", ".join(part.dataset for part in each.components), "") for each in catalog.mixtures()
        ],
        "models": lambda: [row for family in catalog.FAMILIES.all() for row in _models(family)],
        "benchmarks": lambda: [
            (each.name, each.title, ", ".join(setting.metric for setting in each.settings))
            for each in catalog.BENCHMARKS.all()
        ],
        "experiments": lambda: [(each.name, each.title, each.reproduces) for each in catalog.EXPERIMENTS.all()],
        "stages": lambda: [(stage.name, f"version {stage.version}", stage.slot) for stage in STAGES],
    }
    if kind not in kinds:
        raise unknown_name("kind", kind, kinds)
    return kinds[kind]()


def _models(family: Family) -> list[tuple[str, ...]]:
    bases = [
        (each.name, f"{each.parameters:,} parameters, {_pretrained(each)}", each.license) for each in family.models
    ]
    tuned = [
        (each.name, f"{each.base.name} tuned on {each.mixture}{_form(each)}", each.license) for each in family.releases
    ]
    return [*bases, *tuned]


def _form(release: Release) -> str:
    return ", a weight diff" if release.diff else ""


def _pretrained(model: PretrainedModel) -> str:
    tokens = model.pretraining_tokens
    if not tokens:
        return "untrained"
    return f"pretrained on {f'{tokens / 1e12:g}T' if tokens >= 1e12 else f'{tokens / 1e9:g}B'} tokens"


def show_json(name: str, store: Store) -> dict[str, Any]:
    """The facts of what `name` stands for; of a dataset and a mixture also what the store has of it.

    The name of a metric stands for its benchmark, asked in that way alone.

    Raises:
        NotFound: nothing is called so.
    """
    value, datasets = catalog.find_any(name)
    facts: dict[str, Any] = catalog.describe(value)
    if isinstance(value, Release):
        facts["as_a_row"] = f'tulu_pipeline.models.tulu.FAMILY.release("{value.name}").at("<commit, 40 hex digits>")'
    elif isinstance(value, PretrainedModel):
        facts |= _special_tokens(value)
    elif isinstance(value, Benchmark):
        facts |= {"about": inspect.cleandoc(sys.modules[value.module].__doc__ or "")} | _items(value, store)
        if name != value.name and any(setting.metric == name for setting in value.settings):
            facts = _of_one_metric(facts, name)
    elif isinstance(value, Dataset):
        from flows.stored_counts import stored_dataset

        facts["licenses"] = {license_: meaning(license_) for license_ in parts_of(value.license)}
        facts["stored"] = stored_dataset(value, store)
    elif isinstance(value, Mixture):
        from flows.stored_counts import stored_mixture

        found = stored_mixture(value, datasets, store)
        facts["components"] = [
            {**asked, "license_filter": asked["licenses"], **known}
            for asked, known in zip(facts["components"], found["components"], strict=True)
        ]
        facts["licenses"] = found["licenses"]
    return facts


def _special_tokens(model: PretrainedModel) -> dict[str, Any]:
    said = model.tokenizer.special_tokens
    if said is None:
        return {}
    return {
        "begins_a_text": said.bos or "nothing",
        "ends_an_answer": said.eos,
        "pads": f"{said.pad}, added by finetuning" if said.pad_is_new else said.pad,
    }


def _items(benchmark: Benchmark, store: Store) -> dict[str, Any]:
    """The ids of what each metric asks, in order; or why they are not known."""
    from flows.score import items_of

    try:
        return {
            "items": {
                metric: [item.item_id for item in items] for metric, items in items_of(benchmark, store.url).items()
            }
        }
    except TuluError as error:
        return {"items": None, "items_missing": f"{error.what} ({error.where}): {error.fix}"}


def _of_one_metric(facts: dict[str, Any], metric: str) -> dict[str, Any]:
    """The facts of a benchmark less its other settings."""
    settings = [setting for setting in facts["settings"] if setting["metric"] == metric]
    items = facts["items"] and {name: ids for name, ids in facts["items"].items() if name == metric}
    return {"metric": metric} | facts | {"settings": settings, "items": items}


def show_names() -> dict[str, list[str]]:
    """Whatever can be shown, by kind."""
    kinds = ("datasets", "mixtures", "models", "benchmarks", "experiments")
    return {kind: [row[0] for row in list_kind(kind)] for kind in kinds}


def print_names(names: Mapping[str, list[str]], console: Any) -> None:
    """Names by kind, and what to do with them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for kind, found in names.items():
        table.add_row(kind, Text(", ".join(found)))
    console.print(table)
    console.print("`tulu show NAME` tells what one of them is, or a metric of a benchmark", markup=False)


def print_show(facts: Mapping[str, Any], asked: str, console: Any) -> None:
    """The facts as text: what it is, then counts, then licenses; `asked` is the name that it was asked by."""
    from rich.table import Table
    from rich.text import Text

    apart = {"stored", "components", "licenses"} | ({"license"} if "licenses" in facts else set())
    plain = {name: item for name, item in facts.items() if name not in apart}
    if "settings" in plain and "prompt_version" in plain:  # a benchmark's
        del plain["settings"]
        plain.pop("items")
        plain.pop("about")
    if "sources" in plain:
        plain["sources"] = _sources(plain["sources"])
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, item in plain.items():
        if lines := _lines(item):
            table.add_row(Text(name.replace("_", " ")), Text("\n".join(lines)))
    if "licenses" in facts:
        table.add_row(
            "licenses", Text("\n".join(f"{license_}: {asks}" for license_, asks in facts["licenses"].items()))
        )
    console.print(table)
    if "settings" in facts and "settings" not in plain:
        console.print()
        console.print(_settings(facts["settings"], facts["items"] or {}))
        console.print(f"\n{facts['about']}", markup=False, highlight=False)
    if "components" in facts:
        console.print()
        console.print(_components(facts["components"]))
        _print_components_notes(facts["components"], console)
    if "stored" in facts:
        console.print()
        _print_stored(facts["name"], facts["stored"], f"tulu export {shlex.quote(asked)}", console)


def _settings(settings: list[dict[str, Any]], items: Mapping[str, list[str]]) -> Any:
    """The ways a benchmark is asked, a row for each."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("metric", "title", "items", "new tokens", "samples", "temperature", "stop", "judge", "more"):
        number = title in {"items", "new tokens", "samples", "temperature"}
        table.add_column(title, justify="right" if number else "left", header_style="dim", overflow="fold")
    for setting in settings:
        sampling, metric = setting["sampling"], setting["metric"]
        asked = items.get(setting["same_completions_as"] or metric)
        more = [f"{name} {_word(value)}" for name, value in (setting["options"] or {}).items()]
        more += [name.replace("_", " ") for name in ("tuned_only", "lower_is_better") if setting[name]]
        more += ["not averaged"] * (not setting["averaged"])
        if same := setting["same_completions_as"]:
            more.append(f"the answers to {same}")
        judge = setting["judge"]
        table.add_row(
            Text(metric),
            Text(setting["title"]),
            "–" if asked is None else f"{len(asked):,}",
            f"{sampling['max_new_tokens']:,}",
            str(sampling["samples"]),
            f"{sampling['temperature']:g}",
            Text(" ".join(map(repr, sampling["stop"])) or "–"),
            Text(judge if isinstance(judge, str) else (judge or {}).get("kind", "–").replace("_", " ")),
            Text(", ".join(more) or "–"),
        )
    return table


def _sources(sources: Mapping[str, str]) -> Mapping[str, str] | list[str]:
    """Addresses by name; of many in one place, the place and their number."""
    # Letter by letter is what is meant: what is behind the last slash is cut off.
    place = os.path.commonprefix(list(sources.values())).rpartition("/")[0]  # noqa: RUF071
    if len(sources) <= _SHOWN_SOURCES or place.count("/") < _LEAST_SLASHES:
        return sources
    return [f"{len(sources)} files of {place}", f"{', '.join(list(sources)[:3])}, …"]


def _lines(item: Any) -> list[str]:
    """A fact as lines; none where there is nothing to say."""
    if item is None or item == "" or item == [] or item == {}:
        return []
    if isinstance(item, Mapping):
        lines = [f"{name}: {', '.join(_lines(each))}" for name, each in item.items() if _lines(each)]
    elif isinstance(item, list):
        short = all(not isinstance(each, Mapping | list) and len(str(each)) <= _SHORT for each in item)
        lines = [", ".join(map(_word, item))] if short else ["  ".join(_lines(each)) for each in item]
    else:
        return [_word(item)]
    more = [f"… and {len(lines) - _SHOWN_ITEMS} more"] if len(lines) > _SHOWN_ITEMS else []
    return lines[:_SHOWN_ITEMS] + more


def _word(item: Any) -> str:
    if isinstance(item, bool):
        return "yes" if item else "no"
    return f"{item:,}" if isinstance(item, int) else str(item).replace("\n", "\\n").replace("`", "")


def _components(components: list[dict[str, Any]]) -> Any:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("dataset", "takes", "repeat", "filters", "licenses", "kept", "dropped", "not drawn"):
        number = title in {"takes", "repeat", "kept", "dropped", "not drawn"}
        table.add_column(title, justify="right" if number else "left", header_style="dim")
    for part in components:
        stored = part["stored"] or {}
        cap = part["takes_at_most"]
        table.add_row(
            Text(part["dataset"]),
            "all" if cap is None else f"{cap:,}",
            f"{part['repeat']}×",
            Text(_filters(part)),
            Text(", ".join(part["licenses"]) + ("" if part["exact"] else " *")),
            *(_count(stored.get(name)) for name in ("kept", "dropped", "not_drawn")),
        )
    return table


def _print_components_notes(components: list[dict[str, Any]], console: Any) -> None:
    if not all(part["exact"] for part in components):
        console.print(
            "* as the dataset states it; its present conversations are not in this store, and single rows may differ",
            style="dim",
        )
    for part in components:
        if part["stored"] and part["stored"].get("dropped"):
            _print_reasons(part["dataset"], part["stored"], "dropped", console)


def _filters(part: Mapping[str, Any]) -> str:
    wanted = []
    if part["deduplicate"]:
        wanted.append(f"no {part['deduplicate']} duplicates")
    if part["license_filter"]:
        wanted.append(" or ".join(part["license_filter"]))
    if part["languages"]:
        wanted.append(" or ".join(part["languages"]))
    return "; ".join(wanted) or "–"


def _print_stored(name: str, stored: Mapping[str, Any] | None, export: str, console: Any) -> None:
    if stored is None:
        console.print(f"no conversations in this store yet; `{export}` makes them", markup=False, soft_wrap=True)
        return
    counts = [f"{stored[each]:,} {each}" for each in ("rows", "kept", "dropped", "changed") if each in stored]
    made = stored["made"][:16].replace("T", " ")
    version = stored["converter_version"]
    console.print(f"in this store: {', '.join(counts)} (made {made}, converter version {version})", soft_wrap=True)
    if not stored["current"]:
        changed = "; ".join(stored["changed_since"])
        console.print(f"changed since then: {changed}; `{export}` makes them anew", markup=False, soft_wrap=True)
    for log in ("dropped", "changed"):
        if stored.get(log):
            _print_reasons(name, stored, log, console)
    console.print(f"folder: {stored['folder']}", soft_wrap=True, markup=False, highlight=False)


def _print_reasons(name: str, stored: Mapping[str, Any], log: str, console: Any) -> None:
    reasons = sorted(stored[f"{log}_by_reason"].items(), key=lambda each: (-each[1], each[0]))
    console.print(f"{name}, {log}:", markup=False, highlight=False)
    for reason, count in reasons[:_SHOWN_REASONS]:
        console.print(f"  {count:>9,}  {reason}", markup=False, highlight=False)
    if len(reasons) > _SHOWN_REASONS:
        console.print(f"             … and {len(reasons) - _SHOWN_REASONS} more", markup=False)
    if file := stored.get(f"{log}_file"):
        console.print(f"  {file}", soft_wrap=True, markup=False, highlight=False, style="dim")


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"
