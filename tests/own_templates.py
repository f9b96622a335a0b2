"""Chat templates in the shapes of today's models, tokenizers that carry them, and what transformers makes of both.

Each template was written for these tests; the shapes (control tokens, order, what is trimmed) are those of the model
families they are named after.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tulu_pipeline.chat.schema import Message

BOS, EOS = "<s>", "</s>"
SPECIAL = (
    BOS,
    EOS,
    "<|im_start|>",
    "<|im_end|>",
    "<|start|>",
    "<|header|>",
    "<|eot|>",
    "<turn>",
    "<turn|>",
    "<|loose|>",
)


@dataclass(frozen=True)
class Shape:
    """A template and what is known of it.

    Attributes:
        template: the Jinja.
        end: what `eos` ends a turn with.
        system: whether it takes a system message.
        adds_bos: the tokenizer puts BOS before a text by itself.
        alternates: user and assistant in turn, or it refuses.
    """

    template: str
    end: str
    system: bool = True
    adds_bos: bool = False
    alternates: bool = False


_CHATML = r"""
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
_DEFAULT_SYSTEM = r"""
{%- if messages and messages[0].role != 'system' %}
    {{- '<|im_start|>system\nAnswer well.<|im_end|>\n' }}
{%- endif %}
"""
_HEADERS = r"""
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '<|header|>\n\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant<|header|>\n\n' }}{% endif %}
"""
# Tags are ordinary text; nothing is trimmed.
_ZEPHYR = r"""{% for message in messages %}
{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
# No prompt of its own, the system message in the first user's, white space around answers.
_INST = r"""
{%- set ns = namespace(system='', turn=0) %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- if not loop.first %}{{ raise_exception('a system message stands first') }}{% endif %}
        {%- set ns.system = message.content + '\n\n' %}
        {%- continue %}
    {%- endif %}
    {%- if (message.role == 'user') != (ns.turn % 2 == 0) %}
        {{- raise_exception('users and assistants alternate') }}
    {%- endif %}
    {%- set ns.turn = ns.turn + 1 %}
    {%- if message.role == 'user' %}
        {{- '[INST] ' + ns.system + message.content + ' [/INST]' }}
        {%- set ns.system = '' %}
    {%- else %}
        {{- ' ' + message.content + eos_token }}
    {%- endif %}
{%- endfor %}
"""
_GEMMA = r"""
{{- bos_token }}
{%- if messages and messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages %}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
    {{- '<turn>' + role + '\n' + (message['content'] | trim) + '<turn|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}
"""
# White space behind some control tokens belongs to them.
_LOOSE = r"""
{%- for message in messages %}
    {{- '<|loose|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|loose|>assistant\n' }}{% else %}{{ eos_token }}{% endif %}
"""

SHAPES = {
    "chatml": Shape(_CHATML, "<|im_end|>"),
    "chatml with a system message of its own": Shape(_DEFAULT_SYSTEM + _CHATML, "<|im_end|>"),
    "chatml after a BOS": Shape(_CHATML, "<|im_end|>", adds_bos=True),
    "headers": Shape(_HEADERS, "<|eot|>", adds_bos=True),
    "headers, BOS by the template alone": Shape(_HEADERS, "<|eot|>"),
    "zephyr": Shape(_ZEPHYR, EOS),
    "inst": Shape(_INST, EOS, adds_bos=True, alternates=True),
    "gemma": Shape(_GEMMA, "<turn|>", system=False, adds_bos=True),
    "loose": Shape(_LOOSE, "<|im_end|>"),
}
MARKED = _CHATML.replace(
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}",
    "{{- '<|im_start|>' + message.role + '\\n' }}{% if message.role == 'assistant' %}{% generation %}"
    "{{ message.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}",
)
# Drops the thoughts of former turns, and opens one in the last.
THINKING = r"""
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}{% if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for message in messages %}
    {%- set thought = '' %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.role == 'assistant' and loop.index0 > ns.last %}
        {{- '<think>\n' + thought + '\n</think>\n\n' }}
    {%- endif %}
    {{- content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}
"""


def write_tokenizer(folder: Path, shape: Shape) -> Path:
    """A folder with a byte-level tokenizer, as GPT-2's, that knows all control tokens, and the template."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    # Newlines stay together, as in the tokenizers of today's models.
    split = Regex(r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    text = ["user\nassistant\n\nsystem\n model hello there general\n\n\nhow are you  today 12 34"] * 30
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(token, normalized=False, rstrip=token == "<|loose|>") for token in SPECIAL],
    )
    tokenizer.train_from_iterator(text, trainer)
    if shape.adds_bos:
        bos = (BOS, tokenizer.token_to_id(BOS))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[bos])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_template(folder, shape.template)
    return folder


def write_template(folder: Path, template: object) -> None:
    """The template in the tokenizer's configuration."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


class Peer:
    """transformers with the same files."""

    def __init__(self, folder: Path) -> None:
        from transformers import PreTrainedTokenizerFast

        self.tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)

    def text(self, messages: Sequence[Message], *, ask: bool = False) -> str:
        return str(self.tokenizer.apply_chat_template(as_dicts(messages), tokenize=False, add_generation_prompt=ask))

    def ids(self, messages: Sequence[Message], *, ask: bool = False) -> list[int]:
        return list(self.tokenizer.apply_chat_template(as_dicts(messages), add_generation_prompt=ask)["input_ids"])

    def flags(self, messages: Sequence[Message], shape: Shape, loss_span: str) -> list[bool]:
        """For each character of the text whether it is supervised, by rendering ever longer conversations."""
        flags = [False] * len(self.text(messages))
        for index, message in enumerate(messages):
            if message.role != "assistant":
                continue
            asked, answered = self.text(messages[:index], ask=True), self.text(messages[: index + 1])
            assert self.text(messages).startswith(asked)
            if loss_span == "eos":
                answered = answered[: answered.rindex(shape.end) + len(shape.end)]
            if not self.text(messages).startswith(answered):  # written only where nothing follows
                answered = answered.removesuffix(EOS)
            end = len(answered)
            flags[len(asked) : end] = [True] * (end - len(asked))
        return flags
