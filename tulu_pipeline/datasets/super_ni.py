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

As in the original, tasks made of MMLU's questions (`_mmmlu_`) are left out, since MMLU is a benchmark here; 60
instances of a task are phrased by the instruction templates, 20 follow two of its positive examples (all where there
are no more, none where there are none); the first definition and the first output count.

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


def _read_tasks(names: Sequence[str], text_of_task: Callable[[str], str]) -> Iterator[RawRow]:
    """A row for each instance of the tasks named, in the order of the names; one task at a time is in memory."""
    for task in (name.strip() for name in names):
        if task and _LEAKED not in task:
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
    if not definition:
        raise RowDropped("empty definition")
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


# The sample's files and their sha256, as `sha256sum` writes them.
_SAMPLE = """\
6fab1e94c6d3624cbefd681ef134bf2c9197b2ead21d16f0afbc9492c4a6558c  chunk_21/task082_babi_t1_single_supporting_fact_question_generation.json
561fe625198f5c67b83787c0065979de2b8da1ac57aafb75c280f8e8a0c808f6  chunk_1/task388_torque_token_classification.json
4086788c7884b2078b3574e79ed8854af64e2a19c9afee0a150e68544aeb6b85  chunk_3/task489_mwsc_question_generation.json
30527d7eb081a6d6c0a316067aff049c85e21d2068e6b05963a52147e75df2a4  chunk_17/task565_circa_answer_generation.json
3c0447ed247c5590d1b0ab1c15c971931185be58313f1d97d83f93f819452d73  chunk_3/task610_conllpp_ner.json
e6f53057bcd405e076fa3e7f5d0a0f5efdc898af316f75eb4377bb020bf89618  chunk_12/task627_xlwic_word_with_same_meaning_sentence_generation.json
c87bcdd1a2b13e9b170c54dc6f2626d235a4026afe497e432fd491e834f4292a  chunk_1/task639_multi_woz_user_utterance_generation.json
b7e6d24c41c32bdfb603db510a9cd93c9ebfe753fe312c0d1574de3f3267b977  chunk_9/task674_google_wellformed_query_sentence_generation.json
c28bdec682e3dd78d416ffc0dd69ba34e19683b9e5162288d00d1c1fda2078a1  chunk_14/task739_lhoestq_question_generation.json
0b9a86e7419e155505a3600e7e60143d534e297b562b18d3046a3a789d0d979c  chunk_20/task745_ai2_arithmetic_questions_arithmetic.json
8897070c1d406204fe713e347a7d5137989adc0883f8596ad1aa46373084772d  chunk_12/task770_pawsx_english_text_modification.json
a993443b4e955a1b82d4395797703125e8c7caeaad340afef05b0eeba208e45a  chunk_16/task835_mathdataset_answer_generation.json
9a54a13e7a44adf98719c1f412e8ff2193b652fb1d8764441067b9e928bcbcb9  chunk_21/task853_hippocorpus_long_text_generation.json
2804066efdba3a2cc58ab1fd367c43b0b5df1e7d116d75935701d08d58fabe98  chunk_7/task857_inquisitive_question_generation.json
f10fdb744a886d72a41590cb599c298b0f66613a6b51f1bc750674e588b62f2c  chunk_3/task859_prost_question_generation.json
b295736485a9e43afc451acaebe54256c0f97a327219b8bff5ea3a0eef3cd527  chunk_7/task861_prost_mcq_answers_generation.json
5b1f1004da54d2f71b65f6364794095e4682b1b69d9676b05b659c5e4fac018a  chunk_4/task862_asdiv_multidiv_question_answering.json
34be71d0f7576b351116403713181a0d37a477fd6f9db9f236726b7ea8f5898a  chunk_11/task863_asdiv_multiop_question_answering.json
83819d00037401b143174afdc9eb139eccb5551016934b116192fc0a05d419ef  chunk_14/task867_mawps_multiop_question_answering.json
85f84bf473679d41f308e98481c0cdea9c2ff4dbd67deb47613b994918095ff8  task906_dialogre_identify_names.json
fce919e72ace39885da1f859579b1e1da694f3334238aa3463d782fcda6a84c8  chunk_15/task917_coqa_question_generation.json
2e016538882bd3dc8d56c4671c6ef5f9df6cbac3001136018da8180cfb5d3980  chunk_20/task918_coqa_answer_generation.json
5f48a64d434244f4509e6da742df3d08ecd75ab4242bacddf2ffb35756501b92  chunk_12/task919_coqa_incorrect_answer_generation.json
5982ce75d3154f46df4f6629c2921572bfba1c92e83af6e6a95f38d875bd961f  chunk_16/task922_event2mind_word_generation.json
5920829c58bb83e58778222720806d9bce13c06caced85dfd408450a3433b695  chunk_19/task927_yelp_negative_to_positive_style_transfer.json
23552a41cccaaf9e5655741b112074a4a6a4d0915c60df2a121e0efc126324fe  task955_wiki_auto_style_transfer.json
02a740de5648e966dbc573878524765c627c18bfa3d4814e78bdf1463462397f  chunk_1/task964_librispeech_asr_text_auto_completion.json
6e21bb9210bbe785e04b39cc3360e870ac03c73ace0bfc0b115eff31cab6e399  chunk_20/task1146_country_capital.json
4062249bbc3002034403be33e05c35a4376fe57c017eb282ab84e176616e7b0f  chunk_3/task1147_country_currency.json
0cd7b12189e77daca61701158014e97c78ce6dfde31233f4d1098a87748f2652  chunk_2/task1289_trec_classification.json
2324ed64ca57f8d4dc36558b6a7f899f8ce17c11b0e809e9f63a9f81b040aafd  chunk_6/task1314_country_abbreviation.json
aaa1c469b5160575b059ea2e4e38ab9643f243fa2c9df6313e5ab597b621ec90  chunk_23/task1318_country_national_dish.json
695773cedaa75f958a097e5c1ff153c2568fcd53abaa2e6741b11dcd297de686  chunk_8/task1319_country_by_barcode_prefix.json
d881d812b00b724ead4f4f71bbeeb2b08499a5645231866e1751e174d4bce671  chunk_12/task1339_peixian_equity_evaluation_corpus_text_completion.json
8759154a179bf0c3d0b9542feda7b14cdf5d469f9d5a3f35b4d2f3bd698f72ee  chunk_4/task1355_sent_comp_summarization.json
131332e238aba4f5cf530563bb9c7437805a5b8343e877874963f9fc09033e8a  chunk_9/task1364_hans_answer_generation.json
ebcdd55eee4be12269f60934ff4220e7fa1da8f989247527f6c8f637e8b73ac4  chunk_6/task1398_obqa_question_generation.json
82db047f79094a8e919be14c6ce7ce6375c0bf1e36be547ded358d6b78055ec8  chunk_2/task1426_country_independence_year.json
3f35a82eeaffedb704045947a5f08ef953bf9c5af1afb74afe86fe871da9c46a  chunk_14/task1447_drug_extraction_ade.json
807ab46d64091ccb8c07de790309fcd702f603b7bbc74540e7e6cec9d6395027  chunk_9/task1448_disease_entity_extraction_ncbi_dataset.json
12f835ee73329bef9ddf56f0bcc5e66d6d74aa4d5996f6f09d2a8e672ae98bd3  chunk_11/task1451_drug_dose_extraction.json
6656b6bdb003ed61ed2e21a4dc960a0d5d37f9bb75f137c3120a2dbb1139c0ae  chunk_17/task1453_person_entity_extraction_btc_corpus.json
52cc5e6367efaf3b336815ef379b26e4c611c01ab25459081b58b6d9143c4fbc  chunk_8/task1485_organ_extraction_anem_dataset.json
9b5b75e1a6f323dc44397a12d98a1235c1aa54057760a78e32cff26da5034375  chunk_8/task1509_evalution_antonyms.json
270302afb45c8978255efa7b1d22be2e7c9c1d3c2e8a8feb707138b85965a823  chunk_10/task1519_qa_srl_question_generation.json
b28220183b824de31c0df15d38f88be4b6350ed67577f71904c5a3ab43de4a01  chunk_4/task1572_samsum_summary.json
a9c838c5893f3bf1634c461f3472fc56c0946ad93f9d841365fa8979c99b37c4  chunk_0/task1580_eqasc-perturbed_question_generation.json
94c918ba3f57578e754438ebd712cdc9e54b125be340a818e60bbbee5ed3e0cf  chunk_5/task1582_bless_hypernym_generation.json
3b267f27294f845307129700948da9d82f3da12a5cf49530861293f2cfc206d6  chunk_6/task1600_smcalflow_sentence_generation.json
f8f838520496cc9525c1afd07e4a034358cdd98c76a7905569461fe7d8bd20c8  chunk_10/task1609_xquad_en_question_generation.json
a7120460c365cd26ba183588cdb51deb40efd57ac61061f6fa020fa0fb5b88f4  chunk_15/task1657_gooaq_question_generation.json
5d7e17d5ac2991fdb2c23a7f46899e2a07a105a47408577a532b2566e86b8159  chunk_21/task1665_trainglecopa_question_generation.json
c124fe0ecc4f0008136eb97bfd43cd9775cc428c7949756f61dcf6ae6e117cab  chunk_6/task1713_convai3_sentence_generation.json
"""  # noqa: E501
_SAMPLE_FOLDER = (
    "https://raw.githubusercontent.com/luukkonenr/natural-instructions-fi/26939267e1a0491880d64f3da59023f3e00cb7d0/"
    "tasks-with-low-qa-in-input/free-form/good_to_go/already_translated"
)


def _sample_sources() -> dict[str, Source]:
    sources: dict[str, Source] = {
        _SPLIT: PinnedFile(url=None, sha256="6e15f9ca5ac2d87ed6a2e39063cb15383870c57d935255c1c2947d4497babd9a")
    }
    for line in _SAMPLE.splitlines():
        sha256, path = line.split()
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
    converter_version=1,
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
