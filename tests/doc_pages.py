"""The project's pages, and the code on them, which tests run as their readers would."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def page(name: str) -> str:
    """The text of `docs/NAME.md`."""
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def blocks(text: str, language: str = "python") -> list[str]:
    """Code of a language on a page; "" for what stands in a terminal."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [code for written, code in found if written == language]


def commands(text: str) -> list[list[str]]:
    """The words of each command in a page's first terminal, behind `tulu`."""
    return [shlex.split(line)[1:] for line in blocks(text, "")[0].splitlines()]
