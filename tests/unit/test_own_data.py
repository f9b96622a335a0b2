"""A user's own data: four layouts, three formats, names of their own, and errors that say what to write."""

import gzip
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from doc_pages import blocks, commands, page
from fakes.processes import tulu

from flows.catalog import find_mixture_of_file
from tulu_pipeline.artifacts.source import Builtin, HubFile, LocalFile, PinnedFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput, NotFound
from tulu_pipeline.raw.convert import convert_rows
from tulu_pipeline.raw.own import own_dataset
from tulu_pipeline.specs.dataset import BrokenRow, ChangedRow, Dataset

PAGE = page("own_data")
HELLO = (Message("user", "Hello?"), Message("assistant", "Hello."))

LAYOUTS: dict[str, dict[str, Any]] = {
    "messages": {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."}]},
    "prompt_completion": {"prompt": "Hello?", "completion": "Hello."},
    "alpaca": {"instruction": "Greet.", "input": "Hello?", "output": "Hello."},
}


def as_json_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def as_compressed_lines(path: Path, rows: list[Any]) -> None:
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def as_array(path: Path, rows: list[Any]) -> None:
    path.write_text(" \n" + json.dumps(rows, indent=1))


def as_compressed_array(path: Path, rows: list[Any]) -> None:
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))


def as_parquet(path: Path, rows: list[Any]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


FORMATS: dict[str, Callable[[Path, list[Any]], None]] = {
    "rows.jsonl": as_json_lines,
    "rows.ndjson": as_json_lines,
    "rows.jsonl.gz": as_compressed_lines,
    "lines.json": as_json_lines,
    "array.json": as_array,
    "array.json.gz": as_compressed_array,
    "lines.json.gz": as_compressed_lines,
    "rows.parquet": as_parquet,
}


def made_of(dataset: Dataset, folder: Path) -> list[Any]:
    return list(convert_rows(dataset, {name: folder / name for name in dataset.sources}, 42))


def own(folder: Path, rows: list[Any], file: str = "rows.jsonl", **options: Any) -> list[Any]:
    FORMATS[file](folder / file, rows)
    return made_of(own_dataset("mine", file, module=str(folder / "mine.py"), **options), folder)


@pytest.mark.parametrize("columns", ["auto", "named"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("file", FORMATS)
def test_each_layout_is_read_from_each_format(tmp_path: Path, file: str, layout: str, columns: str) -> None:
    rows = [LAYOUTS[layout]] * 3
    made = own(tmp_path, rows, file, columns=layout if columns == "named" else "auto")
    assert [row.id for row in made] == [f"mine_{file.partition('.')[0]}_{number}" for number in range(3)]
    for row in made:
        assert isinstance(row, Conversation)
        assert row.messages[1].content.strip() == "Hello."
        if layout == "alpaca":
            assert "Greet." in row.messages[0].content
            assert "Hello?" in row.messages[0].content
        else:
            assert row.messages == HELLO


def test_rows_of_several_layouts_stand_in_one_file(tmp_path: Path) -> None:
    made = own(tmp_path, [*LAYOUTS.values(), {"text": "no layout"}, 5])
    assert [row.messages == HELLO for row in made[:3]] == [True] * 3
    assert [row.reason for row in made[4:]] == ["columns of no known layout", "no JSON object"]


def test_a_row_with_columns_of_two_layouts_is_read_in_the_first(tmp_path: Path) -> None:
    (row,) = own(tmp_path, [LAYOUTS["prompt_completion"] | {"prompt": "Not this one."} | LAYOUTS["messages"]])
    assert row.messages == HELLO


def test_prompt_and_completion_stay_as_they_are(tmp_path: Path) -> None:
    (row,) = own(tmp_path, [{"prompt": "One, two,", "completion": " three\n"}])
    assert row.messages == (Message("user", "One, two,"), Message("assistant", " three\n"))


def test_a_system_message_and_other_words_for_roles_are_known(tmp_path: Path) -> None:
    roles = ["system", "human", "gpt", "user", "chatgpt", "human", "assistant"]
    (row,) = own(tmp_path, [{"conversations": [{"from": role, "value": role} for role in roles]}])
    assert [message.role for message in row.messages] == [
        "system", "user", "assistant", "user", "assistant", "user", "assistant",
    ]  # fmt: skip


@pytest.mark.parametrize("file", ["rows.jsonl", "rows.parquet"])
def test_columns_and_keys_may_have_other_names(tmp_path: Path, file: str) -> None:
    asked = [{"question": "Hello?", "answer": "Hello."}]
    (row,) = own(tmp_path, asked, file, names={"prompt": "question", "completion": "answer"})
    assert row.messages == HELLO
    turns = [{"turns": [{"who": "human", "text": "Hello?"}, {"who": "gpt", "text": "Hello."}]}]
    (row,) = own(tmp_path, turns, file, names={"conversations": "turns", "from": "who", "value": "text"})
    assert row.messages == HELLO


@pytest.mark.parametrize("file", ["rows.jsonl", "rows.parquet"])
def test_ids_licenses_and_languages_are_taken_where_they_are_named(tmp_path: Path, file: str) -> None:
    row = LAYOUTS["prompt_completion"] | {"id": 7, "post": "p7", "terms": "MIT", "lang": "pt-BR", "license": "no"}
    names = {"id": "post", "license": "terms", "language": "lang"}
    (plain,) = own(tmp_path, [row], file)
    assert (plain.id, plain.license, plain.language) == ("mine_rows_0", "", "")
    (named,) = own(tmp_path, [row], file, names=names)
    assert (named.id, named.license, named.language) == ("mine_p7", "MIT", "pt")
    assert named.messages == HELLO


def test_a_row_without_its_id_is_dropped_and_an_id_that_comes_twice_is_refused(tmp_path: Path) -> None:
    row = LAYOUTS["prompt_completion"]
    made = own(tmp_path, [row | {"id": "a"}, row, row | {"id": ""}], names={"id": "id"})
    assert [row.reason for row in made[1:]] == ["no `id` to name it by"] * 2
    error = refused(tmp_path, [row | {"key": "a"}] * 2, names={"id": "key"})
    assert error.what == "two rows have the id `a`, the first at rows.jsonl:1: the column `key` repeats"
    assert error.fix == 'leave `"id"` out of `names`, and rows are numbered'


def test_files_that_differ_in_their_endings_alone_are_numbered(tmp_path: Path) -> None:
    for file in ("rows.jsonl", "rows.parquet", "1-rows.jsonl"):
        FORMATS[file.removeprefix("1-")](tmp_path / file, [LAYOUTS["messages"]])
    dataset = own_dataset("mine", ["rows.jsonl", "rows.parquet", "1-rows.jsonl"], module=str(tmp_path / "mine.py"))
    assert list(dataset.sources) == ["1-rows.jsonl", "2-rows.parquet", "3-1-rows.jsonl"]
    files = {name: tmp_path / name[2:] for name in dataset.sources}
    ids = [row.id for row in convert_rows(dataset, files, 42) if isinstance(row, Conversation)]
    assert ids == ["mine_1-rows_0", "mine_2-rows_0", "mine_3-1-rows_0"]


@pytest.mark.parametrize("file", ["rows.jsonl", "rows.parquet"])
def test_of_several_licenses_all_apply(tmp_path: Path, file: str) -> None:
    stated = [["MIT", "Apache-2.0"], ["MIT"], ["MIT OR 0BSD"], ["MIT OR 0BSD", "CC-BY-4.0"], [], None]
    made = own(tmp_path, [LAYOUTS["messages"] | {"terms": each} for each in stated], file, names={"license": "terms"})
    told = [row.license for row in made]
    assert told == ["MIT AND Apache-2.0", "MIT", "MIT OR 0BSD", "(MIT OR 0BSD) AND CC-BY-4.0", "", ""]


def test_a_language_is_a_code_of_iso_639_1_or_none_and_this_is_told(tmp_path: Path) -> None:
    stated = ["pt_BR", "EN", "nb", "eng", "English", 7, None, ""]
    made = own(tmp_path, [LAYOUTS["messages"] | {"lang": each} for each in stated], names={"language": "lang"})
    assert [row.language for row in made if isinstance(row, Conversation)] == ["pt", "en", "no", "", "", "", "", ""]
    told = [row for row in made if isinstance(row, ChangedRow)]
    assert [(row.row_id, row.text) for row in told] == [("rows_3", "eng"), ("rows_4", "English"), ("rows_5", "7")]
    assert {row.reason for row in told} == {"`lang` is no code of ISO 639-1"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": "Hello"}, "`messages` is no list"),
        ({"messages": ["Hello"]}, "no JSON object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "unknown role 'tool'"),
        ({"messages": [{"role": "user", "content": None}]}, "no `content`"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "`content` is no text"),
        ({"messages": [{"role": "user", "content": "x"}]}, "no assistant message"),
        ({"messages": []}, "no assistant message"),
        ({"prompt": "", "completion": "x"}, "empty user message"),
        ({"prompt": 3, "completion": "x"}, "`prompt` is no text"),
        ({"instruction": "", "output": "x"}, "empty `instruction`"),
        ({"instruction": "x", "input": 3, "output": "x"}, "`input` is no text"),
    ],
)
def test_a_row_that_does_not_hold_what_its_columns_promise_is_dropped(
    tmp_path: Path, row: Mapping[str, Any], reason: str
) -> None:
    made = own(tmp_path, [row, LAYOUTS["prompt_completion"]])
    assert isinstance(made[0], BrokenRow)
    assert (made[0].row_id, made[0].where, made[0].reason) == ("rows_0", "rows.jsonl:1", reason)
    assert made[1].messages == HELLO


def refused(folder: Path, rows: list[Any], file: str = "rows.jsonl", **options: Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        own(folder, rows, file, **options)
    return caught.value


@pytest.mark.parametrize("file", ["rows.jsonl", "array.json", "rows.parquet"])
def test_a_file_without_the_columns_is_refused_with_what_is_there_and_what_may_be_meant(
    tmp_path: Path, file: str
) -> None:
    error = refused(tmp_path, [{"prompt": "x", "completions": "y"}], file, columns="prompt_completion")
    assert error.what == "no column `completion`; there are `prompt`, `completions`"
    assert error.where == file
    assert error.fix == ('wanted: `prompt` and `completion`; did you mean `names={"completion": "completions"}`?')
    error = refused(tmp_path, [{"question": "x", "answer": "y"}], file)
    assert error.what == "the columns are those of no known layout: `question`, `answer`"
    assert "`messages`; or `conversations`; or `prompt` and `completion`; or `instruction` and `output`" in error.fix
    error = refused(tmp_path, [{"q": "x"}], file, names={"prompt": "qq"}, columns="prompt_completion")
    assert error.what == "no column `qq` and `completion`; there are `q`"


def test_columns_that_no_row_has_together_are_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, [{"prompt": "x"}, {"completion": "y"}], columns="prompt_completion")
    assert error.what == "no row has all of `prompt` and `completion`; columns: `prompt`, `completion`"


def test_one_bad_first_row_refuses_no_file(tmp_path: Path) -> None:
    made = own(tmp_path, [{"note": "exported today"}, 5, LAYOUTS["messages"]], columns="messages")
    assert [type(row) for row in made] == [BrokenRow, BrokenRow, Conversation]
    assert made[0].reason == "no `messages`"


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    assert own(tmp_path, []) == []


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    as_parquet(tmp_path / "rows.parquet", [LAYOUTS["messages"]] * 2000)
    dataset = own_dataset("mine", "rows.parquet", module=str(tmp_path / "mine.py"))
    whole = (tmp_path / "rows.parquet").read_bytes()
    for broken in (whole[:-100], b"PAR1", b'{"prompt": "x"}', whole[:40] + b"\xff" * 4000 + whole[4040:]):
        (tmp_path / "rows.parquet").write_bytes(broken)
        with pytest.raises(BadInput, match="Parquet cannot be read") as caught:
            made_of(dataset, tmp_path)
        assert caught.value.where == "rows.parquet"


def test_text_in_parquet_that_is_no_unicode_drops_its_row_alone(tmp_path: Path) -> None:
    bytes_ = pa.array([b"Hello?", b"\xff\xfe", b"Hello?"])
    text = pa.StringArray.from_buffers(3, bytes_.buffers()[1], bytes_.buffers()[2])
    pq.write_table(pa.table({"prompt": text, "completion": ["Hello."] * 3}), tmp_path / "rows.parquet")
    made = made_of(own_dataset("mine", "rows.parquet", module=str(tmp_path / "mine.py")), tmp_path)
    assert [type(row) for row in made] == [Conversation, BrokenRow, Conversation]
    assert (made[1].row_id, made[1].where, made[1].reason) == ("rows_1", "rows.parquet, row 1", "not valid Unicode")


def test_paths_count_from_the_calling_file_and_several_files_keep_their_order(tmp_path: Path) -> None:
    module = str(tmp_path / "sub" / "mine.py")
    hub = HubFile(repo="me/chats", path="data/train.parquet", revision="0" * 40)
    files = ["rows.jsonl", Path("../rows.jsonl"), hub, PinnedFile(url="https://example.org/x.json?download=true")]
    dataset = own_dataset("mine", files, module=module)
    assert list(dataset.sources) == ["1-rows.jsonl", "2-rows.jsonl", "3-train.parquet", "4-x.json"]
    first, second = (dataset.sources[name] for name in ("1-rows.jsonl", "2-rows.jsonl"))
    assert isinstance(first, LocalFile)
    assert isinstance(second, LocalFile)
    assert Path(first.path) == tmp_path / "sub" / "rows.jsonl"
    assert Path(second.path).resolve() == tmp_path / "rows.jsonl"


def test_what_is_asked_for_is_part_of_the_version() -> None:
    def version(files: Any = "x.jsonl", **options: Any) -> int:
        return own_dataset("mine", files, module="/mine.py", **options).converter_version

    versions = [
        version(),
        version(columns="messages"),
        version(names={"prompt": "q"}),
        version(names={"prompt": "q", "completion": "a"}),
        version(files=["x.jsonl", "y.jsonl"]),
        version(files=["y.jsonl", "x.jsonl"]),
    ]
    assert len(set(versions)) == len(versions)
    assert version(names={"completion": "a", "prompt": "q"}) == versions[3]
    assert version(license="MIT", title="Mine") == versions[0]


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        ({"columns": "message"}, NotFound, "did you mean `messages`"),
        ({"names": {"promt": "q"}}, NotFound, "did you mean `prompt`"),
        ({"columns": "messages", "names": {"prompt": "q"}}, NotFound, "known: content, id, language"),
        ({"files": "rows.csv"}, BadInput, "cannot tell the format of `rows.csv`"),
        ({"files": "rows.parquet.gz"}, BadInput, "cannot tell the format"),
        ({"files": "https://example.org/rows.json"}, BadInput, "PinnedFile(url=…)"),
        ({"files": []}, BadInput, "there are no files"),
        ({"files": Builtin(function="a:b", version=1)}, BadInput, "a builtin source has no file name"),
        ({"files": PinnedFile(url=None, sha256="0" * 64)}, BadInput, "cannot tell the format"),
        ({"name": "my data"}, BadInput, "the name is 'my data'"),
        ({"module": "mine"}, BadInput, "write `module=__file__`"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_call_that_makes_no_sense_says_what_to_write(call: dict[str, Any], error: type[Exception], told: str) -> None:
    arguments: dict[str, Any] = {"name": "mine", "files": "x.jsonl", "module": "/mine.py"} | call
    with pytest.raises(error) as caught:
        own_dataset(arguments.pop("name"), arguments.pop("files"), **arguments)
    assert told in str(caught.value)


def test_the_page_about_own_data_does_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "letters.jsonl").write_text(blocks(PAGE, "json")[0])
    (tmp_path / "mine.py").write_text(blocks(PAGE, "python")[0])
    advised = re.search("`tulu (export mine.py:LETTERS)`", tulu("show", "mine.py:LETTERS", cwd=tmp_path).stdout)
    assert advised, "a dataset that no conversations are there of is told how to make them"
    exported = tulu(*advised[1].split(), cwd=tmp_path, TULU_STORE="elsewhere")
    assert exported.stdout == "mine.py:LETTERS: 2 conversations in exports/letters\n", exported.stderr
    planned, ran, found = (tulu(*words, cwd=tmp_path) for words in commands(PAGE))
    assert planned.returncode == 0, planned.stderr
    assert "normalize[letters]" in planned.stdout
    assert ran.returncode == 0, ran.stderr
    assert "2 made" in ran.stdout  # download and normalize; nothing of Alpaca
    folder = Path(found.stdout.strip())
    rows = pq.read_table(folder / "conversations.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["letters_letters_0", "letters_letters_1"]
    assert rows[0]["messages"][1]["content"] == "Dear Mr. Hale, the roof leaks again."
    assert (folder / "aux" / "dropped.jsonl").read_text() == ""


def test_a_file_that_holds_a_dataset_stands_for_it(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(
        "from tulu_pipeline.raw.own import own_dataset\n"
        'DATASET = own_dataset("faq", "faq.jsonl", module=__file__)\n'
        'OTHER = own_dataset("faq", "other.jsonl", module=__file__)\n'
    )
    for name, file in (("one.py", "faq.jsonl"), ("one.py:DATASET", "faq.jsonl"), ("one.py:OTHER", "other.jsonl")):
        mixture, (dataset,) = find_mixture_of_file(f"{tmp_path}/{name}")
        assert ([part.dataset for part in mixture.components], list(dataset.sources)) == (["faq"], [file])


def test_the_calls_on_the_page_about_own_data_are_right() -> None:
    scope = {"own_dataset": own_dataset, "HubFile": HubFile, "PinnedFile": PinnedFile, "__file__": "/mine.py"}
    calls = blocks(PAGE, "python")[1:]
    assert len(calls) == 3
    for code in calls:
        exec(code, scope)
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == {"columns", *LAYOUTS}
