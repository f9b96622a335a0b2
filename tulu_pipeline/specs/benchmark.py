"""What a benchmark is: items, prompts, sampling, extraction, scoring. Extraction and scoring are apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tulu_pipeline.artifacts.source import Source
from tulu_pipeline.errors import BadInput, unknown_name
from tulu_pipeline.specs.judge import Judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn; all of it identity.

    Attributes:
        max_new_tokens: cap per completion.
        temperature: 0 is greedy. top_p: nucleus.
        samples: completions per item; each has a seed of its own from (item, sample).
        stop: strings that end a completion of an untuned model (cut off, not kept).
        stop_tuned: the same for a tuned (chat-formatted) model.
    """

    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    samples: int = 1
    stop: tuple[str, ...] = ()
    stop_tuned: tuple[str, ...] = ()

    def capped(self, max_new_tokens: int | None, samples: int | None) -> Sampling:
        """The same with at most so many new tokens and samples; None is no cap."""
        return replace(
            self,
            max_new_tokens=min(self.max_new_tokens, max_new_tokens or self.max_new_tokens),
            samples=min(self.samples, samples or self.samples),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question.

    Attributes:
        item_id: stable and unique in the setting.
        prompts: the user's text, best first: the engine takes the first that fits (MMLU drops shots one by one).
        cue: what the answer starts with ("Answer:"), appended to the prompt. After a chat template it follows
            the assistant tag directly; after plain text it stands on a new line.
        cue_tuned: the cue of a chat-formatted prompt where it differs; None uses `cue`.
        lead_tuned: what stands before the prompts in a chat format, and only there.
        choices: for a choice among single tokens: the letters, tokenized as they follow the cue (" A").
            No text is generated then; the completion holds each letter's log probability.
        chat: False where the text is asked as it stands even of a tuned model (HumanEval).
        material: what `Benchmark.render` makes the prompts of; None where the prompts are there.
        gold: what the scorer needs to know.
        group: subject, language or category.
    """

    item_id: str
    prompts: tuple[str, ...]
    cue: str = ""
    cue_tuned: str | None = None
    lead_tuned: str = ""
    choices: tuple[str, ...] = ()
    chat: bool = True
    material: Any = None
    gold: Any = None
    group: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model answered to one item; one line of `completions.jsonl`.

    Attributes:
        item_id: the item's.
        texts: one per sample; empty for a choice item.
        choice_logprobs: letter to log probability (natural logarithm); empty for a text item.
        finish_reasons: "stop" or "length", one per sample.
        completion_tokens: generated tokens, one per sample.
        prompt: the exact text the model saw.
        prompt_tokens: its length in tokens, BOS included.
        prompt_index: which of the item's prompts fitted.
    """

    item_id: str
    texts: tuple[str, ...] = ()
    choice_logprobs: Mapping[str, float] = field(default_factory=dict)
    finish_reasons: tuple[str, ...] = ()
    completion_tokens: tuple[int, ...] = ()
    prompt: str = ""
    prompt_tokens: int = 0
    prompt_index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemScore:
    """One item's result; one line of `items.jsonl`.

    Attributes:
        scores: scorer name (`paper`, `strict`, `ext:lm_eval`) to a value in [0, 1], or None where undefined.
        extracted: what each scorer took for the answer.
        flags: what went wrong or was odd: "empty", "no_answer_found", "truncated", "refused".
        gold: the right answer (or the reference's), for people.
    """

    item_id: str
    group: str
    scores: Mapping[str, float | None]
    extracted: Mapping[str, str]
    flags: tuple[str, ...] = ()
    gold: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One way to ask a benchmark, and one column of a table: `gsm_cot`, `mmlu_5shot`.

    Attributes:
        metric: id of the column.
        title: for tables; see `title_by`.
        sampling: how completions are drawn.
        options: what `items` and `score` need to tell settings apart (shots, subset).
        tuned_only: untuned models have no number (AlpacaEval); the table prints `–`.
        judge: who replies to the completions before they are scored, unless the experiment names another; None for
            nobody.
        lower_is_better: of two values (toxicity).
        averaged: whether it is part of a row's average; the paper's safety columns are not.
        length_controlled: whether the win rate over the reference (`gold`) is told for equal length, too.
        same_completions_as: another metric that asks the very same; its completions are taken. "" asks anew.
    """

    metric: str
    title: str
    sampling: Sampling
    options: Mapping[str, str | int | bool] = field(default_factory=dict)
    tuned_only: bool = False
    judge: Judge | None = None
    lower_is_better: bool = False
    averaged: bool = True
    length_controlled: bool = False
    same_completions_as: str = ""

    def judged_by(self, judge: Judge | None) -> str:
        """Who replies, where it is another than the setting's own judge; else ""."""
        own = self.judge.called if self.judge else ""
        return judge.called if judge is not None and judge.called != own else ""

    def title_by(self, judge: Judge | None) -> str:
        """What the column is called where `judge` replies: numbers of different judges do not compare."""
        other = self.judged_by(judge)
        return f"{self.title}, by {other}" if other else self.title


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: id; the file's name.
        module: `__name__` of the file.
        title, citation, license, url: for people.
        sources: raw files by the name `items` looks them up under.
        settings: ways to ask it; each is a column.
        items: items of a setting from the downloaded files, in a fixed order.
        score: one item's scores from its completion (and, with a judge, the judge's reply to it).
        headline: the scorer tables show: `paper`.
        cluster: what `Item.group` means when intervals are clustered by it; "" for independent items.
        macro: whether a value is the mean of the groups' means.
        bootstrap: whether intervals come from drawing the items again (pass@k, a share of each item).
        render: an item with its prompts, from its `material` and a function that cuts a text to so many tokens of the
            model that is asked; None where prompts do not depend on the model.
        prompt_version: bumped when items, prompts or sampling change.
        scorer_version: bumped when extraction or scoring changes.
    """

    name: str
    module: str
    title: str
    citation: str
    license: str
    url: str
    sources: Mapping[str, Source]
    settings: tuple[Setting, ...]
    items: Callable[[Mapping[str, Path], Setting], Iterator[Item]]
    score: Callable[[Item, Completion, Mapping[str, Any] | None], ItemScore]
    prompt_version: int
    scorer_version: int
    headline: str = "paper"
    cluster: str = ""
    macro: bool = False
    bootstrap: bool = False
    render: Callable[[Item, Callable[[str, int], str]], Item] | None = None

    def setting(self, metric: str) -> Setting:
        """The setting whose column is `metric`.

        Raises:
            NotFound: no such setting.
        """
        for setting in self.settings:
            if setting.metric == metric:
                return setting
        raise unknown_name(f"setting of {self.name}", metric, (setting.metric for setting in self.settings))

    def files(self, folder: Path) -> dict[str, Path]:
        """Where each source lies in `folder`, the output of its download stage.

        Raises:
            BadInput: a file is not there.
        """
        files = {name: folder / name for name in self.sources}
        for name, path in files.items():
            if not path.exists():
                raise BadInput(f"no file `{name}`", str(folder), "download it again: `--refresh download`")
        return files
