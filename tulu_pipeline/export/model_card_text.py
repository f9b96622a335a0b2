"""The card of a finetuned model as Markdown: a section for each thing that a reader asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from tulu_pipeline.export.markdown import table
from tulu_pipeline.export.model_card import ModelCard
from tulu_pipeline.export.model_card_header import front_matter
from tulu_pipeline.export.model_facts import DataFacts
from tulu_pipeline.export.recipe_words import recipe_in_words, recipe_rows
from tulu_pipeline.export.terms import named_licenses
from tulu_pipeline.mixing.licenses import UNKNOWN, meaning

_WINDOWS = 10
_QUESTION = "How many legs does a camel have?"
# What training reports, as the card calls it; what is not there is left out.
_COMPUTE: Mapping[str, tuple[str, str]] = {
    "steps": ("optimizer steps", ",d"),
    "conversations": ("conversations, repetitions counted", ",d"),
    "tokens": ("tokens", ",d"),
    "supervised_tokens": ("of these learned from", ",d"),
    "padding_share": ("padding", ".1%"),
    "seconds_training": ("seconds in steps", ",.0f"),
    "tokens_per_second": ("tokens per second", ",.0f"),
    "mfu": ("model FLOPs utilization", ".1%"),
    "memory_bytes": ("memory of the fullest rank, bytes", ",d"),
    "device": ("device", ""),
    "nodes": ("machines", ""),
    "ranks": ("ranks", ""),
    "zero_stage": ("ZeRO stage", ""),
    "layout": ("layout of a step", ""),
}


def render_model_card(card: ModelCard) -> str:
    """Markdown with the front matter that the hub reads; a function of its argument."""
    sections = [
        f"---\n{front_matter(card)}\n---",
        f"# {card.name}\n\n{_opening(card)}",
        f"## How to ask it\n\n{_asking(card)}",
        f"## Recipe\n\n{recipe_in_words(card.recipe)}\n\n{table(['setting', 'value'], recipe_rows(card.recipe))}",
        _base(card),
        f"## Data\n\n{_data(card)}",
        _licenses(card),
        f"## Compute\n\n{_compute(card)}",
        _curve(card),
        _results(card),
        f"## Limits\n\n{_limits(card)}",
        f"## Provenance\n\n{_provenance(card)}",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _opening(card: ModelCard) -> str:
    if card.facts is None:
        return "A language model finetuned on instructions."
    facts = card.facts
    base = f"[{facts.base.name}](https://huggingface.co/{facts.base.repo})" if facts.base.repo else facts.base.name
    return (
        f"{base} finetuned on `{facts.mixture}`: instructions of {len(facts.data)} "
        f"dataset{'s' if len(facts.data) > 1 else ''}. Made by the experiment `{facts.experiment}`: {facts.title}."
    )


def _asking(card: ModelCard) -> str:
    from tulu_pipeline.chat.template import render_prompt

    if card.recipe.template == "tulu":
        shown = render_prompt(_QUESTION, tuned=True)
        words = (
            "It was taught one format: a tag on a line of its own opens each message, an end mark closes each answer. "
            f"The line break after `<|assistant|>` belongs to it; without it answers get worse.\n\n```\n{shown}```"
        )
    else:
        words = "It was taught in the chat template that its tokenizer carries."
    return f"""{words}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = {json.dumps(card.address or "path/to/this/folder")}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
messages = [{{"role": "user", "content": "{_QUESTION}"}}]
asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**asked, max_new_tokens=256)
print(tokenizer.decode(answer[0, asked["input_ids"].shape[1] :], skip_special_tokens=True))
```"""


def _base(card: ModelCard) -> str:
    if card.facts is None:
        return ""
    base = card.facts.base
    rows = [["name", base.name], ["license", f"{base.license} ({_meanings(named_licenses(base.license))})"]]
    rows += [["architecture", base.architecture]] if base.architecture else []
    rows += [["parameters", f"{base.parameters:,}"]]
    rows += [["pretrained on", f"{base.pretraining_tokens:,} tokens" if base.pretraining_tokens else "nothing"]]
    rows += [["longest sequence", f"{base.context_tokens:,} tokens"]]
    if base.special_tokens is not None:
        special = base.special_tokens
        rows += [["begins a text", f"`{special.bos}`" if special.bos else "nothing"]]
        rows += [["ends an answer", f"`{special.eos}`"]]
        rows += [["pads", f"`{special.pad}`, added by finetuning" if special.pad_is_new else f"`{special.pad}`"]]
    if base.tuned_embedding_rows is not None:
        rows += [["rows of the embeddings, finetuned", f"{base.tuned_embedding_rows:,}"]]
    rows += [["weights", f"`{base.repo}` at `{base.revision}`"]] if base.repo else []
    return f"## Base model\n\n{table(['', ''], rows)}"


def _data(card: ModelCard) -> str:
    """The components with what was counted of them."""
    data: Sequence[DataFacts | None] = card.facts.data if card.facts else [None] * len(card.components)
    licenses = list(card.licenses_by_part().values())[1:] or [()] * len(card.components)
    rows = []
    for (name, repeat), facts, counts, found in zip(card.components, data, card.counts, licenses, strict=True):
        numbers = (counts.conversations, counts.tokens, counts.supervised_tokens)
        choice = facts.choice if facts else "not told"
        rows.append(
            [name, *(f"{number:,}" for number in numbers), f"{repeat}×", choice, ", ".join(found) or "not told"]
        )
    head = ["dataset", "conversations", "tokens", "learned from", "repeat", "taken", "licenses"]
    text = "Counted after tokenizing, each conversation once; `repeat` is how often an epoch holds it.\n\n"
    text += table(head, rows)
    if card.facts is None:
        return text
    if card.licenses is None:
        text += "\n\nLicenses are those that the datasets state; single conversations may have others."
    return text + "\n\n" + "\n".join(_source(part) for part in card.facts.data)


def _source(part: DataFacts) -> str:
    sample = f" A sample: {part.sample}." if part.sample else ""
    facts = [each for each in (part.title, part.citation, part.url) if each]
    return f"- `{part.dataset}`: {'. '.join(facts)}.{sample}"


def _licenses(card: ModelCard) -> str:
    by_part = card.licenses_by_part()
    if not by_part:
        return "## Licenses\n\nThe training was not told the licenses of base model and data."
    rows = []
    for license_ in card.licenses_of_all():
        under = [part for part, licenses in by_part.items() if license_ in licenses]
        rows.append([license_, meaning(license_), ", ".join(under)])
    stated = f"Published under {card.license}. " if card.license else ""
    text = (
        f"{stated}What the licenses of the parts ask for is noted for orientation; read them. Whether a model is "
        f"derived from its data is disputed; what they ask for may bind whoever uses or passes on this one.\n\n"
    )
    return f"## Licenses\n\n{text}{table(['license', 'asks for', 'of'], rows)}"


def _meanings(licenses: Sequence[str]) -> str:
    return "; ".join(dict.fromkeys(map(meaning, licenses)))


def _compute(card: ModelCard) -> str:
    known = {name: value for name in _COMPUTE if (value := card.metrics.get(name)) is not None}
    rows = [[_COMPUTE[name][0], format(value, _COMPUTE[name][1])] for name, value in known.items()]
    if {"seconds_training", "ranks"} <= known.keys():
        rows += [["hours of all ranks together", f"{known['seconds_training'] * known['ranks'] / 3600:,.2f}"]]
    rows += [[name, version] for name, version in card.packages.items()]
    text = table(["", ""], rows)
    if resumed := card.metrics.get("resumed_from_step"):
        text += f"\n\nThe training was interrupted and went on after step {resumed:,}."
    return text


def _curve(card: ModelCard) -> str:
    """Means over equal parts of the training."""
    if not card.steps:
        return ""
    windows = min(_WINDOWS, len(card.steps))
    edges = [len(card.steps) * index // windows for index in range(windows + 1)]
    rows = []
    for start, end in pairwise(edges):
        part = card.steps[start:end]
        mean = sum(step.loss for step in part) / len(part)
        rate = part[-1].learning_rate
        rows.append([f"{part[0].step:,}–{part[-1].step:,}", f"{mean:.4f}", f"{rate:.2e}"])
    lowest = min(card.steps, key=lambda step: step.loss)
    norm = "mean over micro-batches of means" if card.recipe.loss_norm == "micro_mean" else "mean over a step's tokens"
    return (
        f"## Loss\n\nOf the training data ({norm}); lowest in step {lowest.step:,}: {lowest.loss:.4f}.\n\n"
        + table(["steps", "mean loss", "learning rate at the end"], rows)
        + _held_out(card.metrics)
    )


def _held_out(metrics: Mapping[str, Any]) -> str:
    loss = metrics.get("held_out_loss_last")
    return "" if loss is None else f"\n\nOver conversations that were not trained on, at the end: {loss:.4f}."


def _results(card: ModelCard) -> str:
    if not card.results:
        return ""
    rows = [
        [each.benchmark, each.setting, f"{100 * each.value:.1f} ± {100 * each.half_width:.1f}", f"{each.items:,}"]
        for each in card.results
    ]
    return "## Evaluation\n\nIn percent, with 95 % intervals.\n\n" + table(
        ["benchmark", "setting", "score", "items"], rows
    )


def _limits(card: ModelCard) -> str:
    lines = [
        "Nothing was done to make it safe: no preferences were learned, nobody tried to make it do harm. It may say "
        "what is false, insulting or dangerous, and be confident about it.",
        _evaluated(card),
        "Nobody looked for overlap between its data and the benchmarks.",
    ]
    if any("non-commercial" in f"{license_} {meaning(license_)}".lower() for license_ in card.licenses_of_all()):
        lines.append("Parts of it are for non-commercial use only.")
    if UNKNOWN in card.licenses_of_all():
        lines.append("Some of its data is published without a license.")
    if not card.told_languages():
        lines.append("Which languages it saw was not counted.")
    if card.recipe.max_length_tokens:
        lines.append(f"It was taught nothing beyond {card.recipe.max_length_tokens:,} tokens.")
    if card.facts is not None and not card.facts.base.pretraining_tokens:
        lines.append("Its base model was never pretrained: it knows nothing but its finetuning data.")
    if card.facts is not None and any(part.sample for part in card.facts.data):
        lines.append("Some of its datasets are samples of the originals.")
    lines += card.facts.notes if card.facts is not None else ()
    return "\n".join(f"- {line}" for line in lines)


def _evaluated(card: ModelCard) -> str:
    if card.results:
        seen = ", ".join(dict.fromkeys(result.benchmark for result in card.results))
        return f"Nothing was measured beside {seen}."
    if card.facts is None or not card.facts.asked:
        return "It was not evaluated."
    asked = ", ".join(card.facts.asked)
    return f"When this was written it was not evaluated; the experiment asks it {asked}, and nothing else."


def _provenance(card: ModelCard) -> str:
    rows = [["artifact", f"`{card.artifact}`"], ["stage", f"finetune, version {card.stage_version}"]]
    rows += [["key", f"`{card.key}`"]] if card.key else []
    rows += [["digest of its files", f"`{card.digest}`"]] if card.digest else []
    return (
        "The key covers all that decides what was trained: recipe, tokens, base model, versions of the code.\n\n"
        + table(["", ""], rows)
    )
