"""Every prompt of TyDiQA, to the byte, and what cutting passages does to them.

The six other languages' prompts with exemplars of the training set have no hashes here: nobody could read these files
for this project. All questions of a language at once leave none to be an exemplar, so that with exemplars of the
development set there are no `_full` settings.
"""

import dataclasses
import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tasks.generate import generate_params
from tulu_pipeline.artifacts.source import PinnedFile
from tulu_pipeline.benchmarks import tydiqa
from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.errors import BadInput, NotFound
from tulu_pipeline.inference.passages import cutter
from tulu_pipeline.inference.prompts import encode_prompts
from tulu_pipeline.specs.benchmark import Benchmark, Item
from tulu_pipeline.tokens.tokenizer import load_tokenizer

FOLDER = "eval/tydiqa/language_data"
# What the mirror has: all of the development set, training questions of three languages.
WITH_TRAIN = ("english", "korean", "swahili")
SAMPLES: dict[str, Benchmark] = {
    "three": tydiqa.reduced(WITH_TRAIN),
    "dev_demos": tydiqa.reduced(demos="dev"),
}


def whole(text: str, tokens: int) -> str:
    return text


def items(sample: str, metric: str, mirror: Path, cut: Callable[[str, int], str] = whole) -> Iterator[Item]:
    benchmark = SAMPLES[sample]
    for item in benchmark.items(benchmark.files(mirror / FOLDER), benchmark.setting(metric)):
        yield tydiqa.render(item, cut)


@pytest.mark.realdata
def test_pins_are_the_hashes_of_the_published_files(mirror: Path) -> None:
    pinned = {name: source for name, source in tydiqa.BENCHMARK.sources.items() if isinstance(source, PinnedFile)}
    assert len(pinned) == 18
    assert all((source.sha256 is None) == (source.git_blob is not None) for source in pinned.values())
    known = {name: source.sha256 for name, source in pinned.items() if source.sha256}
    assert known == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (mirror / FOLDER).glob("*.json")
    }


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("sample", "metric", "count", "plain", "chat"),
    [
        (
            "three",
            "tydiqa_gp",
            300,
            "f6c9ea048d1cf59e9eb08ff4f5ae320a44bca475844ca47b7aae6b8f4afba582",
            "883e96557f3ff9e743d8d2591e8ca2fca08f79e67f64a58380423a7cf760275b",
        ),
        (
            "three",
            "tydiqa_cb",
            300,
            "9119d59cdce6e92e3197cfa1c87e42606e8242823f4ecfbf8fdff38a4a32e9ea",
            "9ba929d3521a15cbcfaae484791349641381b17f2e660927c00be4ed683f19ef",
        ),
        (
            "three",
            "tydiqa_gp_full",
            1_215,
            "42ee032211d04b2e46438cac8e84b67b82817420b2bb36237d1ddb1d677bb97f",
            "0eecdd7d9d08e25ad89fe873fd5a4b48a7faa7c05555ba25ff20cfe85c6eb730",
        ),
        (
            "three",
            "tydiqa_cb_full",
            1_215,
            "d0744ac759543b05e3ddf8c84f6e9fe2e0b1bf0e7ac093224b88daa3764d2d0d",
            "f53de24e4966edef2f04ad6d93cb914b2ceea0164972d0ef78f34e27d051357c",
        ),
        (
            "dev_demos",
            "tydiqa_gp",
            900,
            "b2235a34fa7ee78856838df09845fef6641a141f518cf9957da5522c24df33de",
            "04e40c7d471063609f86e19f1311d1da2b473baeff20291dda222e122417b993",
        ),
        (
            "dev_demos",
            "tydiqa_cb",
            900,
            "6fe8c9b034ee277ab3dff9c9b59d12adff029551122198275eef2dfd07d03e0d",
            "d40696e4ef26d59fdcd5a3282de3702ae1e813ea1858f312403b235e2a87a618",
        ),
    ],
)
def test_all_prompts_are_these(sample: str, metric: str, count: int, plain: str, chat: str, mirror: Path) -> None:
    hashes = {False: hashlib.sha256(), True: hashlib.sha256()}
    ids = set()
    for item in items(sample, metric, mirror):
        ids.add(item.item_id)
        for tuned, digest in hashes.items():
            rendered = [render_prompt(prompt, item.cue, tuned=tuned) for prompt in item.prompts]
            line = [item.item_id, rendered, list(item.gold), item.group]
            digest.update(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    assert len(ids) == count
    assert (hashes[False].hexdigest(), hashes[True].hexdigest()) == (plain, chat)


@pytest.mark.realdata
@pytest.mark.parametrize("metric", ["tydiqa_gp", "tydiqa_cb"])
def test_a_prompt_is_the_instruction_one_exemplar_of_the_language_and_a_question(metric: str, mirror: Path) -> None:
    """Built again from the files, by the item's id alone."""
    asked = list(items("three", metric, mirror))
    assert [item.group for item in asked] == [language for language in WITH_TRAIN for _ in range(100)]
    for language in WITH_TRAIN:
        mine = [item for item in asked if item.group == language]
        by_id = {
            split: {
                question["id"]: (paragraph["context"], question)
                for article in json.loads((mirror / FOLDER / f"{language}_tydiqa_{split}.json").read_text())["data"]
                for paragraph in article["paragraphs"]
                for question in paragraph["qas"]
            }
            for split in ("dev", "train")
        }
        shown = set()
        for item in mine:
            assert item.material is None or metric == "tydiqa_gp"
            text = render_prompt(item.prompts[0], item.cue, tuned=True)
            context, question = by_id["dev"][item.item_id]
            assert item.gold == tuple(answer["text"] for answer in question["answers"])
            says = tydiqa.LANGUAGES[language]
            instruction = says.open_book if metric == "tydiqa_gp" else says.closed_book
            passage = f"{says.passage} {context}\n" if metric == "tydiqa_gp" else ""
            end = f"\n\n{passage}{says.question} {question['question']}\n\n<|assistant|>\n{says.answer}"
            assert text.startswith(f"<|user|>\n{instruction}\n\n")
            assert text.endswith(end)
            shown.add(text.removeprefix(f"<|user|>\n{instruction}\n\n").removesuffix(end))
        (exemplar,) = shown
        candidates = {
            (f"{says.passage} {context}\n" if metric == "tydiqa_gp" else "")
            + f"{says.question} {question['question']}\n{says.answer} {question['answers'][0]['text']}"
            for context, question in by_id["train"].values()
        }
        assert exemplar in candidates


@pytest.mark.realdata
def test_both_settings_ask_the_same_questions_and_show_no_asked_one(mirror: Path) -> None:
    with_passage, closed = (list(items("dev_demos", metric, mirror)) for metric in ("tydiqa_gp", "tydiqa_cb"))
    assert [item.item_id for item in with_passage] == [item.item_id for item in closed]
    assert {item.material.exemplar.item_id for item in with_passage}.isdisjoint(item.item_id for item in closed)
    assert len({item.material.exemplar.item_id for item in with_passage}) == 9


def with_decoder(folder: Path, out: Path, decoder: dict[str, Any]) -> Path:
    shutil.copytree(folder, out)
    file = out / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"decoder": decoder}))
    return out


@pytest.fixture(scope="module")
def llama(llama_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fixture with the decoder of LLaMA's file."""
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    out = tmp_path_factory.mktemp("llama") / "tokenizer"
    return with_decoder(llama_like, out, {"type": "Sequence", "decoders": decoders})


@pytest.mark.realdata
def test_passages_are_cut_to_512_tokens_of_the_model_and_prompts_have_one_bos(mirror: Path, llama: Path) -> None:
    # What the fast tokenizer of the original's time was; transformers 5 builds LLaMA's anew by other rules.
    tokenizer, theirs = load_tokenizer(llama), Tokenizer.from_file(str(llama / "tokenizer.json"))
    cut = cutter(tokenizer)
    exemplars, texts, changed = set(), [], 0
    for item in itertools.islice(items("three", "tydiqa_gp", mirror), 0, None, 10):
        passages = []
        for passage in (item.material.exemplar.passage, item.material.asked.passage):
            ids = theirs.encode(passage).ids
            passages.append(theirs.decode(ids[:512], skip_special_tokens=False) if len(ids) > 512 else passage)
            assert len(ids) <= 512 or passages[-1].startswith("<s> ")
            changed += len(ids) > 512
        says, (prompt,) = tydiqa.LANGUAGES[item.group], tydiqa.render(item, cut).prompts
        assert f"\n\n{says.passage} {passages[1]}\n{says.question}" in prompt
        assert f"\n\n{says.passage} {passages[0]}\n{says.question}" in prompt
        exemplars.add(passages[0])
        texts.append(render_prompt(prompt, item.cue, tuned=True))
    assert changed > 10
    assert len(exemplars) == 3
    for ids in encode_prompts(texts, tokenizer):
        assert ids.count(tokenizer.bos_ids[0]) == 1, "`<s>` of a passage stays text"
        assert ids[0] == tokenizer.bos_ids[0]


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_text_of_just_enough_tokens_is_not_cut(llama: Path, extra: int) -> None:
    tokenizer = load_tokenizer(llama)
    text = "A text with some words, and 12345 of them. " * 5
    length = tokenizer.count_tokens([text])[0]
    found = cutter(tokenizer)(text, length + extra)
    assert (found == text) == (extra >= 0)


def test_a_cut_passage_of_a_model_without_bos_is_the_beginning_of_the_passage(byte_level: Path, tmp_path: Path) -> None:
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    tokenizer = load_tokenizer(with_decoder(byte_level, tmp_path / "pythia", decoder))
    assert tokenizer.bos_ids == ()
    text = "def main return if else " * 40
    cut = cutter(tokenizer)(text, 30)
    assert text.startswith(cut)
    assert tokenizer.count_tokens([cut]) == [30]


def write(folder: Path, language: str, split: str, questions: int) -> None:
    qas = [
        {"id": f"{language}-{split}-{n}", "question": f"{n}?", "answers": [{"text": str(n)}]} for n in range(questions)
    ]
    data = {"data": [{"paragraphs": [{"context": "text", "qas": qas}]}]}
    (folder / f"{language}_tydiqa_{split}.json").write_text(json.dumps(data))


def test_a_language_without_training_questions_is_named(tmp_path: Path) -> None:
    write(tmp_path, "finnish", "dev", 3)
    benchmark = tydiqa.reduced(("finnish",))
    files = {name: tmp_path / name for name in benchmark.sources if (tmp_path / name).exists()}
    with pytest.raises(BadInput, match="no training question in finnish") as error:
        list(tydiqa.read_items(files, benchmark.setting("tydiqa_gp")))
    assert "finnish_tydiqa_train.json" in error.value.fix
    all_asked = dataclasses.replace(
        benchmark.setting("tydiqa_cb"), options={"passage": False, "subset": 100, "demos": "dev"}
    )
    with pytest.raises(BadInput, match="no question that is not asked in finnish"):
        list(tydiqa.read_items(files, all_asked))
    with pytest.raises(NotFound, match="klingon"):
        tydiqa.reduced(("klingon",))


def test_the_draw_is_that_of_one_stream_over_sorted_languages(tmp_path: Path) -> None:
    sizes = {"bengali": (4, 3), "english": (9, 7), "korean": (8, 5)}
    for language, (dev, train) in sizes.items():
        write(tmp_path, language, "dev", dev)
        write(tmp_path, language, "train", train)
    benchmark = tydiqa.reduced(tuple(sizes))
    setting = dataclasses.replace(
        benchmark.setting("tydiqa_gp"), options={"passage": True, "subset": 5, "demos": "train"}
    )
    found = list(benchmark.items(benchmark.files(tmp_path), setting))
    random.seed(42)
    ids = []
    for language, (dev, _) in sizes.items():
        numbers = random.sample(range(dev), 5) if dev > 5 else list(range(dev))
        ids += [f"{language}-dev-{number}" for number in numbers]
    demos = {
        language: f"{language}-train-{random.sample(range(train), 1)[0]}" for language, (_, train) in sizes.items()
    }
    assert [item.item_id for item in found] == ids
    assert {item.group: item.material.exemplar.item_id for item in found} == demos


def test_only_untuned_models_stop_at_a_newline() -> None:
    for tuned, stop in ((False, ("\n",)), (True, ())):
        params = generate_params(tydiqa.BENCHMARK, "tydiqa_gp", tuned=tuned, engine="vllm", engine_dtype="bfloat16")
        assert (params.sampling.stop, params.sampling.max_new_tokens) == (stop, 50)
