"""Super-NaturalInstructions: 1,616 tasks with a definition, examples and instances, written or gathered by experts.

License: Apache-2.0 (the repository's). Each row has its task's `Instance License`, which for many is NOASSERTION: the
    task says "Unknown".
Citation: Wang et al., "Super-NaturalInstructions", arXiv:2204.07705.
Source: github.com/allenai/natural-instructions at commit 55a3656, as the zip that GitHub makes of it; read in place.
Size: some 1,200 train tasks with up to 6,500 instances; Table 1 has 96,913 rows, at most 80 of each task, with 1.0
    rounds, 291.1 tokens per prompt and 38.7 per completion.
Format: one JSON object per task: `Definition`, `Positive Examples`, `Instances` with `id`, `input` and the accepted
    outputs, `Instance License`, languages. `splits/xlingual/train_tasks.txt` names the train tasks of all languages.
Variants: `sample`, the 53 tasks of the English train split that a mirror holds: 43,591 instances, 4,240 of them drawn.

As in the original, tasks made of MMLU's questions (`_mmmlu_`) are left out, since MMLU is a benchmark here, and each
is told; 60 instances of a task are phrased by the instruction templates, 20 follow two of its positive examples (all
where there are no more, none where there are none); the first definition and the first output count.

Deviations from the paper: instances, templates and examples are drawn by hash and per row, not from one stream for the
whole process, so these are other rows of the same tasks. Of a task with 80 instances or fewer, the original took the
first 60 for the templates. The original read whatever the repository held on the day.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from tulu_pipeline.artifacts.source import PinnedFile, Source
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.raw.fields import list_of, object_of, text_of
from tulu_pipeline.raw.instructions import instruction_messages
from tulu_pipeline.raw.zipped import ZipFolder
from tulu_pipeline.specs.dataset import BrokenRow, Dataset, Draw, Example, PaperCounts, RawRow, RowDropped

_ARCHIVE = "natural-instructions.zip"
_SPLIT = "train_tasks.txt"
_LEAKED = "_mmmlu_"
_PARTS = {"zero_shot": 60, "few_shot": 20}
_EXEMPLARS = 2
_OF_THE_TASK = ("Definition", "Positive Examples", "Instance License", "Input_language", "Output_language")

# ISO 639-1 codes of the languages that the tasks name.
_LANGUAGES: dict[str, str] = dict(
    re.findall(
        r"(\w+):(\w\w)",
        "Arabic:ar Basque:eu Bengali:bn Bulgarian:bg Burmese:my Catalan:ca Chinese:zh Croatian:hr Czech:cs Danish:da "
        "Dutch:nl English:en Finnish:fi French:fr Galician:gl German:de Greek:el Gujarati:gu Hebrew:he Hindi:hi "
        "Hungarian:hu Igbo:ig Indonesian:id Italian:it Japanese:ja Kannada:kn Khmer:km Korean:ko Kurdish:ku Lao:lo "
        "Lithuanian:lt Malay:ms Malayalam:ml Marathi:mr Norwegian:no Oriya:or Panjabi:pa Persian:fa Polish:pl "
        "Portuguese:pt Punjabi:pa Romanian:ro Russian:ru Sinhala:si Slovak:sk Somali:so Spanish:es Swahili:sw "
        "Swedish:sv Tagalog:tl Tamil:ta Telugu:te Thai:th Tsonga:ts Turkish:tr Ukrainian:uk Urdu:ur Vietnamese:vi "
        "Xhosa:xh Yoruba:yo Zulu:zu ",
    )
)


def _read(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    with ZipFolder(_ARCHIVE, files[_ARCHIVE]) as folder:
        split = folder.find(f"splits/xlingual/{_SPLIT}")
        root = PurePosixPath(split).parents[2]
        names = [text for _, text in folder.lines(split)]
        yield from _read_tasks(names, lambda task: folder.text(str(root / "tasks" / f"{task}.json")))


def _read_files(files: Mapping[str, Path]) -> Iterator[RawRow | BrokenRow]:
    names = files[_SPLIT].read_text(encoding="utf-8").splitlines()
    yield from _read_tasks(
        names, lambda task: files[f"{task}.json"].read_text(encoding="utf-8", errors="surrogateescape")
    )


def _read_tasks(names: Sequence[str], text_of_task: Callable[[str], str]) -> Iterator[RawRow | BrokenRow]:
    """A row for each instance of the tasks named, in the order of the names; one task at a time is in memory."""
    for line, task in enumerate((name.strip() for name in names), 1):
        if _LEAKED in task:
            yield BrokenRow(task, f"{_SPLIT}:{line}", "made of MMLU's questions", task)
        elif task:
            yield from _instances(task, text_of_task(task))


def _instances(task: str, text: str) -> Iterator[RawRow]:
    try:
        whole = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise _no_task(task, f"broken JSON: {error}") from error
    if not isinstance(whole, dict) or not isinstance(whole.get("Instances"), list):
        raise _no_task(task, "no JSON object with a list of `Instances`")
    of_the_task = {key: whole[key] for key in _OF_THE_TASK if key in whole}
    seen: set[str] = set()
    for number, instance in enumerate(whole["Instances"]):
        row_id = instance.get("id") if isinstance(instance, dict) else None
        if not isinstance(row_id, str) or row_id in seen:
            row_id = f"{task}-{number}"
        seen.add(row_id)
        yield RawRow(row_id, f"{task}.json: instance {number}", {"task": task, "instance": instance} | of_the_task)


def _no_task(task: str, why: str) -> BadInput:
    return BadInput(f"no task file: {why}", f"{task}.json", "fetch the file again")


def _task_of(row: RawRow) -> str:
    assert isinstance(row.value, dict)
    return str(row.value["task"])


def _convert(row: RawRow, rng: random.Random) -> Conversation:
    fields = object_of(row.value)
    instance = object_of(fields.get("instance"))
    definition = _first_text(fields, "Definition").strip()
    given, output = text_of(instance, "input"), _first_text(instance, "output")
    if row.part == "few_shot":
        prompt = _few_shot_prompt(definition, _exemplars(fields, rng), given)
        messages = (Message("user", prompt), Message("assistant", output.strip()))
    else:
        messages = instruction_messages(definition, given, output, rng)
    return Conversation("super_ni", f"super_ni_{row.row_id}", messages, _license(fields), _language(fields))


def _few_shot_prompt(definition: str, exemplars: Sequence[tuple[str, str]], given: str) -> str:
    shown = [f"Input:\n{asked.strip()}\nOutput:\n{answer.strip()}\n\n" for asked, answer in exemplars]
    return f"{definition}\n\n{''.join(shown)}Input:\n{given.strip()}\nOutput:\n"


def _exemplars(fields: Mapping[str, Any], rng: random.Random) -> list[tuple[str, str]]:
    examples = list_of(fields, "Positive Examples")
    if len(examples) > _EXEMPLARS:
        examples = rng.sample(examples, _EXEMPLARS)
    return [(text_of(object_of(each), "input"), text_of(object_of(each), "output")) for each in examples]


def _first_text(fields: Mapping[str, Any], key: str) -> str:
    texts = list_of(fields, key)
    if not texts:
        raise RowDropped(f"empty `{key}`")
    if not isinstance(texts[0], str):
        raise RowDropped(f"`{key}` is no text")
    return texts[0]


def _license(fields: Mapping[str, Any]) -> str:
    """What the task states, in SPDX's terms where its words are a name and a version; "" where it states nothing."""
    return " AND ".join(_spdx(text) for text in _texts(fields, "Instance License"))


def _spdx(text: str) -> str:
    if text == "Unknown":
        return "NOASSERTION"
    return text.replace(" ", "-") if re.fullmatch(r"[\w -]+ [\d.]+", text) else text


def _language(fields: Mapping[str, Any]) -> str:
    """The one language of the task's inputs and outputs; "" where there are two, or one without a code."""
    named = {*_texts(fields, "Input_language"), *_texts(fields, "Output_language")}
    return _LANGUAGES.get(named.pop(), "") if len(named) == 1 else ""


def _texts(fields: Mapping[str, Any], key: str) -> list[str]:
    stated = fields.get(key)
    return [text for text in stated if isinstance(text, str) and text] if isinstance(stated, list) else []


_SAMPLE_FOLDER = (
    "https://raw.githubusercontent.com/luukkonenr/natural-instructions-fi/26939267e1a0491880d64f3da59023f3e00cb7d0/"
    "tasks-with-low-qa-in-input/free-form/good_to_go/already_translated"
)


def _sample_sources() -> dict[str, Source]:
    sources: dict[str, Source] = {
        _SPLIT: PinnedFile(url=None, sha256="6e15f9ca5ac2d87ed6a2e39063cb15383870c57d935255c1c2947d4497babd9a")
    }
    pins = json.loads(Path(__file__).with_name("pins").joinpath("super_ni.json").read_text())
    for path, sha256 in pins.items():
        sources[PurePosixPath(path).name] = PinnedFile(url=f"{_SAMPLE_FOLDER}/{path}", sha256=sha256)
    return sources


_PLURALS = {
    "task": "task9001_plurals",
    "instance": {"id": "task9001-a1", "input": "owl", "output": ["owls", "the owls"]},
    "Definition": ["Write the plural of the given noun."],
    "Positive Examples": [
        {"input": "lamp", "output": "lamps", "explanation": "Most nouns take an s."},
        {"input": "box", "output": "boxes", "explanation": "After x it is es."},
        {"input": "goose", "output": "geese", "explanation": "The vowel changes."},
    ],
    "Instance License": ["CC BY-SA 4.0"],
    "Input_language": ["English"],
    "Output_language": ["English"],
}

_ALL = Dataset(
    name="super_ni",
    module=__name__,
    title="SuperNI",
    citation='Wang et al., "Super-NaturalInstructions", arXiv:2204.07705, 2022',
    license="Apache-2.0",
    url="https://github.com/allenai/natural-instructions",
    sources={
        _ARCHIVE: PinnedFile(
            url="https://github.com/allenai/natural-instructions/archive/55a365637381ce7f3748fa2eac7aef1a113bbb82.zip"
        )
    },
    read=_read,
    draw=Draw(stratum=_task_of, parts=lambda task: _PARTS),
    convert=_convert,
    converter_version=2,
    paper=PaperCounts(instances=96_913, mean_rounds=1.0, mean_prompt_tokens=291.1, mean_completion_tokens=38.7),
    examples=(
        Example(
            RawRow("task9001-a1", "task9001_plurals.json: instance 0", _PLURALS, part="zero_shot"),
            Conversation(
                "super_ni",
                "super_ni_task9001-a1",
                (
                    Message("user", "Write the plural of the given noun.\n\nowl\n\n"),
                    Message("assistant", "owls"),
                ),
                "CC-BY-SA-4.0",
                "en",
            ),
        ),
        Example(
            RawRow("task9001-a1", "task9001_plurals.json: instance 0", _PLURALS, part="few_shot"),
            Conversation(
                "super_ni",
                "super_ni_task9001-a1",
                (
                    Message(
                        "user",
                        "Write the plural of the given noun.\n\nInput:\nlamp\nOutput:\nlamps\n\n"
                        "Input:\nbox\nOutput:\nboxes\n\nInput:\nowl\nOutput:\n",
                    ),
                    Message("assistant", "owls"),
                ),
                "CC-BY-SA-4.0",
                "en",
            ),
        ),
    ),
)

DATASET = replace(
    _ALL,
    variants={
        "sample": replace(
            _ALL,
            sources=_sample_sources(),
            read=_read_files,
            sample="4,240 of 96,913",
            examples=(),  # the templates drawn follow from the name
        )
    },
)
