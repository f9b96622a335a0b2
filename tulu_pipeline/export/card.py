"""The dataset card of an exported mixture: what is in it, under which licenses, from which artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tulu_pipeline.export.markdown import hub_license, table

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
_PLAIN_PARAMS = {"dataset", "dataset_license", "whole_cap"}


def render_card(description: Mapping[str, Any], label: str) -> str:
    """Markdown with the front matter that `datasets` and the hub read; a function of its arguments.

    Args:
        description: what `mixture.json` holds.
        label: the mixture's name in tables, "" for none.
    """
    name, components = description["mixture"], description["components"]
    title = f"{name} ({label})" if label else name
    return f"""\
---
{_front_matter(description)}
---

# {title}

{description["rows"]:,} conversations from {len(components)} dataset{"s" if len(components) > 1 else ""}, written by
`tulu export`: what a model called `…+{name}` is tuned on.

```python
from datasets import load_dataset

mixture = load_dataset("path/to/this/folder", split="train")
```

Columns: `dataset`, `id` (unique within its dataset), `messages` (a list of `role` and `content`), `license` (of the
conversation), `language` (ISO 639-1 where the original tells it, else empty). The rows stand in the order of the
components below, unshuffled. {_repeats(components)}

## Components

{table(["dataset", "conversations", "rows here", "how made", "licenses"], [_row(part) for part in components])}

{_sources(components)}

## Licenses

The whole is under the licenses of its parts. What they ask for is noted for orientation; read the licenses.

{table(["license", "asks for"], [[license_, said] for license_, said in description["licenses"].items()])}

## How it was made

Each component is an artifact whose key covers all that decides its bytes: the original files by hash, the converter's
version, filters, seeds.

{table(["artifact", "key", "digest of its files"], [_made(part) for part in components])}
"""


def _front_matter(description: Mapping[str, Any]) -> str:
    size = next((size for limit, size in _SIZES if description["rows"] < limit), "10M<n<100M")
    lines = ["configs:", "- config_name: default", "  data_files:", "  - split: train", "    path: data/train-*"]
    lines += ["license:", *(f"- {id_}" for id_ in sorted({hub_license(each) for each in description["licenses"]}))]
    lines += ["size_categories:", f"- {size}", "task_categories:", "- text-generation"]
    return "\n".join(lines)


def _repeats(components: list[dict[str, Any]]) -> str:
    repeated = [f"`{part['dataset']}` {part['repeat']} times" for part in components if part["repeat"] > 1]
    return f"Written more than once, with the same ids: {', '.join(repeated)}." if repeated else "Each stands once."


def _row(part: Mapping[str, Any]) -> list[str]:
    params = {name: value for name, value in part["params"].items() if name not in _PLAIN_PARAMS and value}
    if params.get("cap") is None:  # nothing was drawn, so the seed decided nothing
        params = {name: value for name, value in params.items() if name not in {"cap", "seed"}}
    drawn = "; ".join(f"{name} {_plain(value)}" for name, value in params.items()) or "all"
    rows = part["rows"]
    return [part["dataset"], f"{rows:,}", f"{rows * part['repeat']:,}", drawn, ", ".join(part["licenses"])]


def _sources(components: list[dict[str, Any]]) -> str:
    lines = []
    for part in components:
        sample = f" A sample: {part['sample']}." if part["sample"] else ""
        facts = [each for each in (part["title"], part["citation"], part["url"]) if each]
        lines.append(f"- `{part['dataset']}`: {'. '.join(facts)}.{sample}")
    return "\n".join(lines)


def _made(part: Mapping[str, Any]) -> list[str]:
    return [f"`{part['artifact']}`", f"`{part['key']}`", f"`{part['digest']}`"]


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
