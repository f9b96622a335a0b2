"""A diagnosis of the machine for people and for scripts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flows.doctor import Diagnosis

_MARKS = {"ok": ("✓", "green"), "absent": ("–", "dim"), "lacks": ("✗", "red"), "escaped": ("✗", "bold red")}


def diagnosis_json(found: Diagnosis) -> dict[str, Any]:
    """For `--json`."""
    return {
        "ok": found.exit_code == 0,
        "checks": [asdict(check) for check in found.checks],
        "sandbox": {"tier": found.tier or None, "attempts": [asdict(each) for each in found.findings]},
    }


def print_diagnosis(found: Diagnosis, console: Any, *, all_attempts: bool) -> None:
    """A line for each check; the attempts that were not blocked, or all of them."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for check in found.checks:
        mark, style = _MARKS[check.status]
        words = f"{check.detail}\n{check.fix}" if check.fix else check.detail
        table.add_row(Text(mark, style), Text(check.name), Text(words))
    console.print(table)
    attempts = [each for each in found.findings if all_attempts or not each.blocked]
    if attempts:
        table = Table(box=None, pad_edge=False, show_header=False)
        for each in attempts:
            mark, style = _MARKS["ok" if each.blocked else "escaped"]
            table.add_row(Text(mark, style), Text(each.what), Text(each.detail))
        console.print(f"\nA program in the sandbox (`{found.tier}`) that …", markup=False, highlight=False)
        console.print(table)
