"""What an engine has answered so far, kept sample by sample (`artifacts.append_file`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tulu_pipeline.artifacts.append_file import read_appended
from tulu_pipeline.artifacts.canonical import added_field, canonical_json, sha256_text
from tulu_pipeline.artifacts.json_lines import read_lines
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.specs.benchmark import Completion
from tulu_pipeline.tokens.control_tokens import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """An item as the engine sees it.

    Attributes:
        item_id: the item's.
        prompts: rendered, best first.
        choices: letters to choose among.
        controls: for each prompt, start and end of the control tokens in it; empty where no prompt has any.
    """

    item_id: str
    prompts: tuple[str, ...]
    choices: tuple[str, ...] = ()
    controls: tuple[tuple[tuple[int, int], ...], ...] = added_field(default=())

    def prompt(self, index: int) -> Prompt:
        """One of the prompts."""
        return Prompt(text=self.prompts[index], controls=self.controls[index] if self.controls else ())

    def digest(self) -> str:
        """Hash of all of it; a record of another digest answers another question."""
        return sha256_text(canonical_json(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One sample's answer to one question."""

    item_id: str
    question_sha256: str
    sample: int
    prompt_index: int
    prompt_tokens: int
    text: str = ""
    finish_reason: str = "stop"
    completion_tokens: int = 0
    choice_logprobs: Mapping[str, float] = field(default_factory=dict)


def answered(path: Path, questions: Mapping[str, str]) -> dict[tuple[str, int], Record]:
    """Records by (item, sample) that answer `questions` (item id to digest); others are stale and left out."""
    return {
        (record.item_id, record.sample): record
        for record in read_appended(path, Record)
        if questions.get(record.item_id) == record.question_sha256
    }


def completions(questions: Path, records: Path, samples: int) -> Iterator[Completion]:
    """The completions of a file of questions, in its order.

    Raises:
        StageFailed: a sample is missing.
    """
    found = answered(records, {question.item_id: question.digest() for question in read_lines(questions, Question)})
    for question in read_lines(questions, Question):
        mine = [found.get((question.item_id, sample)) for sample in range(samples)]
        whole = [record for record in mine if record is not None]
        if len(whole) < samples:
            raise StageFailed(
                f"{samples - len(whole)} of {samples} samples of item `{question.item_id}` are missing",
                str(records),
                "run the same command again",
            )
        texts = () if question.choices else tuple(record.text for record in whole)
        yield Completion(
            item_id=question.item_id,
            texts=texts,
            choice_logprobs=whole[0].choice_logprobs,
            finish_reasons=tuple(record.finish_reason for record in whole) if texts else (),
            completion_tokens=tuple(record.completion_tokens for record in whole) if texts else (),
            prompt=question.prompts[whole[0].prompt_index],
            prompt_tokens=whole[0].prompt_tokens,
            prompt_index=whole[0].prompt_index,
        )
