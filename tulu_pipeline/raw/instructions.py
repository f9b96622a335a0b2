"""Rows with an instruction, an input and an output, phrased by one of the templates the original drew from.

The templates vary how a task is put, so that a model does not hang on one layout. They and their weights are those of
open-instruct (`open_instruct/instruction_encode_templates.py`), its slips of the pen included, since they are in the
data that the paper's models saw. What differs: each row draws from a random stream of its own.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, NamedTuple

from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.fields import object_of, text_of
from tulu_pipeline.specs.dataset import RawRow


class _Template(NamedTuple):
    weight: float
    prompt: str
    completion: str = "{output}"


_ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
)

_WITH_INPUT = (
    _Template(0.2, "{instruction}\n\n{input}\n\n"),
    _Template(0.1, "{instruction}\n{input}\n\n"),
    _Template(0.1, "{instruction}\n{input}\n"),
    _Template(0.05, "{instruction}\n\nInput: {input}\n\nOutput:"),
    _Template(0.05, "{instruction}\nInput: {input}\nOutput:"),
    _Template(0.05, "{instruction}\n{input}\n\nResponse:"),
    _Template(0.05, "{instruction}\n\nAdditional Context:\n{input}\n\nAnswer:"),
    _Template(0.05, "Task: {instruction}\nInput: {input}\nOutput:"),
    _Template(0.05, "Task: {instruction}\n\n{input}\n\n"),
    _Template(0.05, "Task: {instruction}\n\n{input}\n\nAnswer:"),
    _Template(0.05, "You need to complete the following task:\n\n{instruction}\n\n{input}\n\nAnswer:"),
    _Template(0.05, "{instruction}\n\nNow complete the following instance -\nInput: {input}\nOutput:"),
    _Template(0.05, "Instruction:{instruction}\n\nInput: {input}\n\n"),
    _Template(0.1, _ALPACA_WITH_INPUT),
)

_WITHOUT_INPUT = (
    _Template(0.2, "{instruction}\n\n"),
    _Template(0.1, "{instruction}\n"),
    _Template(0.1, "{instruction}", "\n{output}"),
    _Template(0.05, "{instruction} Output:"),
    _Template(0.05, "{instruction}\nResponse:"),
    _Template(0.05, "{instruction}\n\nAnswer:"),
    _Template(0.05, "Task: {instruction}\n\n"),
    _Template(0.05, "Instruction: {instruction}\n"),
    _Template(0.05, "Instruction: {instruction}\nOutput:"),
    _Template(0.05, "You need to complete the following task:\n\n{instruction}\n\n"),
    _Template(0.05, "Can you help with this?\n\n{instruction}\n"),
    _Template(0.05, "Plase answer the following request: {instruction}\nAnswer:"),
    _Template(0.05, "Tell me how would you respond to the following request.\n{instruction}\n"),
    _Template(
        0.1,
        "Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n{instruction}\n\n### Response:",
    ),
)  # fmt: skip

# With the sums of their weights, which `choices` would otherwise make for each row.
_WITH_INPUT_DRAW, _WITHOUT_INPUT_DRAW = (
    (templates, list(accumulate(template.weight for template in templates)))
    for templates in (_WITH_INPUT, _WITHOUT_INPUT)
)


def instruction_messages(
    instruction: str, context: str | None, output: str, rng: random.Random
) -> tuple[Message, Message]:
    """The two messages of a row, all fields stripped; `context` is the task's input, None or blank for none."""
    fields = {"instruction": instruction.strip(), "input": (context or "").strip(), "output": output.strip()}
    templates, summed = _WITH_INPUT_DRAW if fields["input"] else _WITHOUT_INPUT_DRAW
    template = rng.choices(templates, cum_weights=summed)[0]
    return Message("user", template.prompt.format_map(fields)), Message(
        "assistant", template.completion.format_map(fields)
    )


def alpaca_conversation(
    dataset: str, row: RawRow, rng: random.Random, *, input_key: str = "input", output_key: str = "output"
) -> Conversation:
    """A row of Alpaca's format: an object with `instruction`, `input` (may be empty or absent) and `output`.

    Dolly calls the last two otherwise. An empty instruction stays, as in the original.
    """
    messages = alpaca_messages(object_of(row.value), rng, input_key=input_key, output_key=output_key)
    return Conversation(dataset, f"{dataset}_{row.row_id}", messages)


def alpaca_messages(
    fields: Mapping[str, Any],
    rng: random.Random,
    *,
    instruction_key: str = "instruction",
    input_key: str = "input",
    output_key: str = "output",
) -> tuple[Message, Message]:
    """The two messages of an object in Alpaca's format.

    Raises:
        RowDropped: a field is missing, or none that holds text.
    """
    instruction, output = (text_of(fields, key) for key in (instruction_key, output_key))
    context = text_of(fields, input_key) if fields.get(input_key) is not None else None
    return instruction_messages(instruction, context, output, rng)
