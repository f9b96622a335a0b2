"""TyDiQA: questions in nine languages by people who want to know, with the passage that answers or without it, 1 shot.

What it is
    5,077 questions of the gold-passage task's development set, each with one passage and one or two short answers.
    The paper asks 100 of each language and shows one question of the training set in the same language, with the
    passage (`tydiqa_gp`) or closed book (`tydiqa_cb`). Instructions and labels are in the language of the question.
License
    Apache-2.0.
Citation
    Clark et al. 2020, "TyDi QA: A Benchmark for Information-Seeking Question Answering in Typologically Diverse
    Languages", arXiv:2003.05002.
Pinned source
    Gold-passage set 1.1 in SQuAD's format, a file for each language and split, as github.com/sagorbrur/
    tydiqa-language-specific has it at 55c66494; the publisher's own files are no longer served. Hashes in
    `pins/tydiqa.json`. Six large training files could not be read for this project: their sha256 is that of the first
    download, which must be the git object that the commit names.
The paper's numbers
    F1 of SQuAD 1.1, first over the questions of a language, then over the nine languages (the paper writes eleven).
Deviations
    Which questions and which exemplars the paper took is not known: its script drew language by language in an order
    that differed in every run. Ours draws from the same stream in alphabetical order, as its later versions do. Where
    the training files are missing, `reduced(demos="dev")` draws the exemplars from development questions that are not
    asked, and `reduced(("english", "korean"))` asks some of the languages; both are other benchmarks than the paper's.
    Kept on purpose: passages are cut to 512 tokens of the asked model's tokenizer, BOS included, and what is cut begins
    with BOS written out (`<s> `), which here stays text and is not read as BOS again; in the chat format an empty line
    stands before the answer. `paper` drops ASCII punctuation and English articles only; `strict` knows the marks of
    every script, one Unicode form, and articles in English alone. `exact` and `strict_exact` are the exact matches;
    `without_english` is F1 over eight languages, as the benchmark's authors average. `ext:lm_eval` is F1 as the task
    `tydiqa_goldp` of lm-evaluation-harness computes it: without the marks of every script, without articles in English
    and Arabic; it has no closed book.

A worked example, as the contract test runs it: the completion `1879년` to an item whose answer is `1879년.` has F1 1
by `paper` and by `strict`; to `১৮৭৯।` the completion `১৮৭৯` has 0 by `paper`, 1 by `strict`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tulu_pipeline.artifacts.source import pinned_files
from tulu_pipeline.errors import BadInput, unknown_name
from tulu_pipeline.scoring.flags import text_flags
from tulu_pipeline.scoring.squad import best, best_of_lm_eval, words_of_any_script
from tulu_pipeline.specs.benchmark import Benchmark, Completion, Item, ItemScore, Sampling, Setting

_ROOT = (
    "https://raw.githubusercontent.com/sagorbrur/tydiqa-language-specific/55c6649475e0765f717a6d32a173c6664096a8ce"
    "/language_data"
)
_PINS = Path(__file__).with_name("pins") / "tydiqa.json"
_SAMPLING = Sampling(max_new_tokens=50, stop=("\n",))
_PAPER_SUBSET = 100
_SEED = 42
_PASSAGE_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What is said around a question, in its language (open-instruct's `eval/tydiqa/run_eval.py`)."""

    open_book: str
    closed_book: str
    passage: str
    question: str
    answer: str


LANGUAGES: Mapping[str, Words] = {
    "arabic": Words(
        open_book="أجب على السؤال التالي بناءً على المعلومات في المقطع المعطى.",
        closed_book="أجب على السؤال التالي.",
        passage="المقطع:",
        question="السؤال:",
        answer="الإجابة:",
    ),
    "bengali": Words(
        open_book="প্রদত্ত অধ্যায়ের তথ্যের উপর ভিত্তি করে নিম্নলিখিত প্রশ্নের উত্তর দিন।",
        closed_book="নিম্নলিখিত প্রশ্নের উত্তর দিন।",
        passage="অধ্যায়:",
        question="প্রশ্ন:",
        answer="উত্তর:",
    ),
    "english": Words(
        open_book="Answer the following question based on the information in the given passage.",
        closed_book="Answer the following question.",
        passage="Passage:",
        question="Question:",
        answer="Answer:",
    ),
    "finnish": Words(
        open_book="Vastaa seuraavaan kysymykseen annetun kappaleen tiedon perusteella.",
        closed_book="Vastaa seuraavaan kysymykseen.",
        passage="Kappale:",
        question="Kysymys:",
        answer="Vastaus:",
    ),
    "indonesian": Words(
        open_book="Jawab pertanyaan berikut berdasarkan informasi di bagian yang diberikan.",
        closed_book="Jawab pertanyaan berikut.",
        passage="Bagian:",
        question="Pertanyaan:",
        answer="Jawaban:",
    ),
    "korean": Words(
        open_book="주어진 문단의 정보에 기반하여 다음 질문에 답하십시오.",
        closed_book="다음 질문에 답하십시오.",
        passage="문단:",
        question="질문:",
        answer="답변:",
    ),
    "russian": Words(
        open_book="Ответьте на следующий вопрос на основе информации в данном отрывке.",
        closed_book="Ответьте на следующий вопрос.",
        passage="Отрывок:",
        question="Вопрос:",
        answer="Ответ:",
    ),
    "swahili": Words(
        open_book="Jibu swali lifuatalo kulingana na habari kwenye kifungu kilichotolewa.",
        closed_book="Jibu swali lifuatalo.",
        passage="Kifungu:",
        question="Swali:",
        answer="Jibu:",
    ),
    "telugu": Words(
        open_book="ఇచ్చిన పేరాలోని సమాచారం ఆధారంగా కింది ప్రశ్నకు సమాధానం ఇవ్వండి.",
        closed_book="క్రింది ప్రశ్నకు సమాధానం ఇవ్వండి.",
        passage="పేరా:",
        question="ప్రశ్న:",
        answer="సమాధానం:",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question of a file."""

    item_id: str
    passage: str
    question: str
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What a prompt with passages is made of."""

    exemplar: Asked
    asked: Asked


def reduced(languages: Sequence[str] = tuple(LANGUAGES), *, demos: Literal["train", "dev"] = "train") -> Benchmark:
    """The benchmark over some of the languages, or with exemplars of the development set; not the paper's.

    Args:
        languages: which are asked; the means are over them.
        demos: where the exemplars are drawn from: `train` needs each language's training file, `dev` takes a
            development question that is not asked.

    Raises:
        NotFound: an unknown language.
    """
    for language in languages:
        if language not in LANGUAGES:
            raise unknown_name("language of TyDiQA", language, LANGUAGES)
    names = [_file(language, split) for language in sorted(languages) for split in sorted({"dev", demos})]
    settings = [replace(each, options={**each.options, "demos": demos}) for each in BENCHMARK.settings]
    return replace(
        BENCHMARK,
        sources={name: BENCHMARK.sources[name] for name in names},
        settings=tuple(each for each in settings if demos == "train" or each.options["subset"]),
    )


def read_items(files: Mapping[str, Path], setting: Setting) -> Iterator[Item]:
    """The questions, language by language in alphabetical order, in the order they are drawn.

    Options of the setting: `passage` (with the passage), `subset` (questions drawn of each language; 0, or a number
    not below the language's, asks all in the file's order), `demos` (where exemplars come from: `train`, `dev`).
    """
    subset = int(setting.options["subset"])
    draw = random.Random(_SEED)  # one stream for all languages, questions first, as in the original
    pools = {language: _read(files[_file(language, "dev")]) for language in _languages(files)}
    asked = {
        language: draw.sample(pool, subset) if 0 < subset < len(pool) else pool for language, pool in pools.items()
    }
    for language in pools:
        left = _exemplars(files, language, str(setting.options["demos"]), pools[language], asked[language])
        (exemplar,) = draw.sample(left, 1)
        for each in asked[language]:
            material = Material(exemplar=exemplar, asked=each)
            item = Item(
                item_id=each.item_id,
                prompts=(_closed_book(material, LANGUAGES[language]),),
                cue=LANGUAGES[language].answer,
                gold=each.answers,
                group=language,
            )
            yield replace(item, material=material) if setting.options["passage"] else item


def render(item: Item, cut: Callable[[str, int], str]) -> Item:
    """An item with its passages, each cut to 512 tokens."""
    if item.material is None:
        return item
    material: Material = item.material
    exemplar, asked = (
        replace(each, passage=cut(each.passage, _PASSAGE_TOKENS)) for each in (material.exemplar, material.asked)
    )
    return replace(item, prompts=(_open_book(exemplar, asked, LANGUAGES[item.group]),))


def score(item: Item, completion: Completion, reply: Mapping[str, Any] | None = None) -> ItemScore:
    """F1 and exact match with the best of the gold answers; see the module's text for the scorers."""
    text, golds = completion.texts[0].strip(), [str(gold) for gold in item.gold]
    english = item.group == "english"
    paper, exact = best(text, golds)
    strict, strict_exact = best(text, golds, partial(words_of_any_script, articles=english))
    return ItemScore(
        item_id=item.item_id,
        group=item.group,
        scores={
            "paper": paper,
            "exact": exact,
            "without_english": None if english else paper,
            "strict": strict,
            "strict_exact": strict_exact,
            "ext:lm_eval": best_of_lm_eval(text, golds, item.group),
        },
        extracted=dict.fromkeys(("paper", "exact", "without_english", "strict", "strict_exact", "ext:lm_eval"), text),
        flags=text_flags(completion),
        gold=" | ".join(dict.fromkeys(golds)),
    )


def _open_book(exemplar: Asked, asked: Asked, words: Words) -> str:
    shown = f"{words.passage} {exemplar.passage}\n{words.question} {exemplar.question}\n{words.answer} "
    return (
        f"{words.open_book}\n\n{shown}{exemplar.answers[0]}\n\n"
        f"{words.passage} {asked.passage}\n{words.question} {asked.question}\n"
    )


def _closed_book(material: Material, words: Words) -> str:
    exemplar, asked = material.exemplar, material.asked
    return (
        f"{words.closed_book}\n\n{words.question} {exemplar.question}\n{words.answer} {exemplar.answers[0]}\n\n"
        f"{words.question} {asked.question}\n"
    )


def _exemplars(
    files: Mapping[str, Path], language: str, demos: str, pool: Sequence[Asked], asked: Sequence[Asked]
) -> list[Asked]:
    """The questions that a language's exemplar is drawn from."""
    name = _file(language, "train")
    if demos == "train":
        found = _read(files[name]) if name in files else []
    else:
        taken = {each.item_id for each in asked}
        found = [each for each in pool if each.item_id not in taken]
    if not found:
        what = "no training question" if demos == "train" else "no question that is not asked"
        raise BadInput(
            f"{what} in {language} to show as the exemplar",
            str(files.get(name, name)) if demos == "train" else _file(language, "dev"),
            f'give the benchmark `{name}`, draw exemplars from the development set (`tydiqa.reduced(demos="dev")`), '
            "or leave the language out (`tydiqa.reduced(languages)`)",
        )
    return found


def _languages(files: Mapping[str, Path]) -> list[str]:
    return [language for language in sorted(LANGUAGES) if _file(language, "dev") in files]


def _file(language: str, split: str) -> str:
    return f"{language}_tydiqa_{split}.json"


def _read(path: Path) -> list[Asked]:
    """The questions of a file in SQuAD's format, in its order."""
    try:
        articles = json.loads(path.read_text(encoding="utf-8"))["data"]
        found = [
            Asked(
                item_id=question["id"],
                passage=paragraph["context"],
                question=question["question"],
                answers=tuple(answer["text"] for answer in question["answers"]),
            )
            for article in articles
            for paragraph in article["paragraphs"]
            for question in paragraph["qas"]
        ]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise BadInput(
            f"not a file of questions: {type(error).__name__} {error}",
            str(path),
            'write {"data": [{"paragraphs": [{"context": …, "qas": […]}]}]}, or download the file again',
        ) from error
    unanswered = next((each.item_id for each in found if not each.answers), None)
    if unanswered is not None:
        raise BadInput(f"no answer to question `{unanswered}`", str(path), "give it one, or leave it out")
    return found


def _setting(metric: str, title: str, *, passage: bool, subset: int) -> Setting:
    options: dict[str, str | int | bool] = {"passage": passage, "subset": subset, "demos": "train"}
    return Setting(metric=metric, title=title, sampling=_SAMPLING, options=options, averaged=subset > 0)


BENCHMARK = Benchmark(
    name="tydiqa",
    module=__name__,
    title="TyDiQA",
    citation="Clark et al. 2020, TyDi QA: A Benchmark for Information-Seeking Question Answering in Typologically "
    "Diverse Languages, arXiv:2003.05002",
    license="Apache-2.0",
    url="https://github.com/google-research-datasets/tydiqa",
    sources=pinned_files(_PINS, lambda name: f"{_ROOT}/{name.partition('_')[0]}/{name}"),
    settings=(
        _setting("tydiqa_gp", "TyDiQA GP (1-shot)", passage=True, subset=_PAPER_SUBSET),
        _setting("tydiqa_cb", "TyDiQA CB (1-shot)", passage=False, subset=_PAPER_SUBSET),
        _setting("tydiqa_gp_full", "TyDiQA GP, all items", passage=True, subset=0),
        _setting("tydiqa_cb_full", "TyDiQA CB, all items", passage=False, subset=0),
    ),
    items=read_items,
    score=score,
    prompt_version=1,
    scorer_version=2,
    cluster="language",
    macro=True,
    render=render,
)
