"""A tokenizer's own chat template: the Jinja of its files, rendered as transformers renders it.

Two things differ, both for determinism: `strftime_now` gives one pinned date, and tools and documents are never there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, cast

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tulu_pipeline.errors import BadInput
from tulu_pipeline.tokens.tokenizer import read_json, token_text

# What templates of the Llama 3 family write where they cannot ask for the date.
TODAY = date(2024, 7, 26)
_TEMPLATE_FILE, _CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
_SPECIAL_TOKENS = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


@dataclass(frozen=True, slots=True)
class JinjaTemplate:
    """A chat template, compiled.

    Attributes:
        source: the template's text. where: its file.
        variables: what it may name beside the messages: the tokenizer's special tokens, as transformers gives them.
        has_generation_marks: whether it says itself, with `{% generation %}`, what the assistant writes.
    """

    source: str
    variables: Mapping[str, str]
    where: str
    has_generation_marks: bool
    _plain: jinja2.Template = field(repr=False)
    _marking: jinja2.Template = field(repr=False)

    def render(self, messages: Sequence[Mapping[str, str]], *, ask: bool = False, mark_generation: bool = False) -> str:
        """The text of some messages (`role`, `content`).

        Args:
            messages: the conversation so far.
            ask: end with what the assistant's answer follows (`add_generation_prompt`).
            mark_generation: put the marks given to `load_jinja_template` around what the assistant writes.

        Raises:
            BadInput: the template refuses these messages; in its own words where it has some.
        """
        template = self._marking if mark_generation else self._plain
        try:
            return template.render(
                messages=list(messages), tools=None, documents=None, add_generation_prompt=ask, **self.variables
            )
        except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadInput(f"the chat template refuses it: {error}", self.where, "leave such rows out") from error


def load_jinja_template(folder: Path, generation_marks: tuple[str, str]) -> JinjaTemplate:
    """The chat template of a tokenizer's folder; of several named ones the one called `default`.

    `chat_template.jinja` wins over `chat_template` in `tokenizer_config.json`, as in transformers.

    Raises:
        BadInput: there is none, or it is no Jinja.
    """
    config_file, template_file = folder / _CONFIG_FILE, folder / _TEMPLATE_FILE
    config = read_json(config_file)
    if template_file.is_file():
        where, source = template_file, template_file.read_text(encoding="utf-8")
    else:
        where, found = config_file, config.get("chat_template")
        if isinstance(found, list):
            found = {named["name"]: named["template"] for named in found}.get("default")
        if not isinstance(found, str):
            raise BadInput(
                "the tokenizer has no chat template",
                str(config_file),
                f"write template `tulu` in the recipe, or put a `{_TEMPLATE_FILE}` among the model's sources",
            )
        source = found
    try:
        return JinjaTemplate(
            source=source,
            variables={name: text for name in _SPECIAL_TOKENS if (text := token_text(config.get(name)))},
            where=str(where),
            has_generation_marks=bool(re.search(r"\{%[-+]?\s*generation\b", source)),
            _plain=_environment("", "").from_string(source),
            _marking=_environment(*generation_marks).from_string(source),
        )
    except jinja2.TemplateSyntaxError as error:
        raise BadInput(
            f"the chat template is broken: {error.message}", f"{where}, template line {error.lineno}", "mend it there"
        ) from error


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}`, with which a template says what the assistant writes.

    Its body is rendered between the environment's two marks.
    """

    tags = {"generation"}  # noqa: RUF012  # Jinja's own way to declare it

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        # A call, as in transformers, so that what is set inside stays inside.
        return nodes.CallBlock(self.call_method("_marked"), [], [], body).set_lineno(line)

    def _marked(self, caller: Callable[[], str]) -> str:
        opens, closes = cast(tuple[str, str], self.environment.globals["_generation_marks"])
        return f"{opens}{caller()}{closes}"


def _environment(opens: str, closes: str) -> jinja2.Environment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": TODAY.strftime,
        "_generation_marks": (opens, closes),
    }
    return environment


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without Jinja's escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(reason: str) -> None:
    raise jinja2.TemplateError(reason)
