"""`tulu tokens`: one conversation token by token, with and without color, and what it says of rows not there."""

import io
import json
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import tulu, tulu_json
from rich.console import Console
from toy_experiment import write_experiment

from flows.tokens import Shown, show_tokens
from flows.tokens_view import print_tokens, tokens_json
from tulu_pipeline.chat.template import render_training
from tulu_pipeline.errors import BadInput, NotFound

_FILE = """
from pathlib import Path

from tulu_pipeline.artifacts.source import LocalFile
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.raw.readers import read_json_lines
from tulu_pipeline.specs.dataset import Dataset, RowDropped


def convert(row, rng):
    if row.value["answers"] == "":
        raise RowDropped("nobody answers")
    turn = (Message("user", row.value["asks"]), Message("assistant", row.value["answers"]))
    return Conversation("camels", f"camels_{row.row_id}", turn * 2, row.value["license"])


DATASET = Dataset(
    name="camels", module=__file__, title="Camels", citation="", license="CC0-1.0", url="",
    sources={"camels.jsonl": LocalFile(path=str(Path(__file__).with_name("camels.jsonl")))},
    read=read_json_lines, convert=convert, converter_version=1,
)
"""
ROWS = (
    {"asks": "How many humps?", "answers": "Two.\n\nOr one 🐪", "license": ""},
    {"asks": "Why?", "answers": "", "license": ""},
    {"asks": "Why? " * 60, "answers": "So.", "license": "MIT"},
)


@pytest.fixture(scope="module")
def camels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("camels")
    (folder / "camels.py").write_text(_FILE)
    (folder / "camels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


@pytest.fixture(scope="module")
def show(camels: Path, llama_like: Path) -> Callable[..., Shown]:
    def show_one(**options: Any) -> Shown:
        chosen: dict[str, Any] = {"tokenizer": str(llama_like), "store": str(camels / "store")} | options
        return show_tokens(str(camels / "camels.py"), **chosen)

    return show_one


def test_a_conversation_of_a_users_dataset_is_shown_whole(show: Callable[..., Shown]) -> None:
    shown = show()
    assert "".join(token.text for token in shown.view.tokens) == render_training(shown.conversation)
    assert (shown.conversation.id, shown.row, shown.rows) == ("camels_0", 0, 2)
    assert (shown.license, shown.dropped) == ("CC0-1.0", "")
    learned = "".join(token.text for token in shown.view.tokens if token.supervised)
    assert learned == "Two.\n\nOr one 🐪</s>\nTwo.\n\nOr one 🐪</s>"


def test_a_row_is_found_by_its_place_and_by_its_id(show: Callable[..., Shown]) -> None:
    assert show(row="1") == show(row="camels_2")
    assert show(row="1").license == "MIT"


def test_a_row_that_is_not_there_says_how_many_there_are_or_what_is_like_it(show: Callable[..., Shown]) -> None:
    with pytest.raises(BadInput, match="no row 2: `camels` has 2 conversations") as caught:
        show(row="2")
    assert caught.value.fix == "write 0 to 1, or an id"
    with pytest.raises(NotFound, match="no row named `camels_3`") as unknown:
        show(row="camels_3")
    assert "camels_2" in unknown.value.fix


def test_a_row_that_was_dropped_says_why_and_where(show: Callable[..., Shown]) -> None:
    with pytest.raises(BadInput, match="row `camels_1` of `camels` became no conversation: nobody answers") as caught:
        show(row="camels_1")
    assert caught.value.where == "camels.jsonl:2"


def test_a_cut_that_leaves_nothing_to_learn_is_said(show: Callable[..., Shown]) -> None:
    shown = show(row="1", max_length_tokens=20)
    assert shown.dropped == "nothing to learn in the first 20 tokens"
    assert len(shown.view.tokens) == 20
    assert shown.view.cut > 0
    whole = "".join(token.text for token in show(row="1").view.tokens)
    assert whole.startswith("".join(token.text for token in shown.view.tokens))


def test_without_a_tokenizer_it_is_one_that_is_made_here_and_it_says_so(show: Callable[..., Shown]) -> None:
    assert show(tokenizer=None).tokenizer == "tiny-10m"


def test_an_experiments_own_dataset_is_seen_as_the_experiment_sees_it(tmp_path: Path) -> None:
    toy = write_experiment(tmp_path / "toy")
    shown = show_tokens("worms", experiment=toy, row="3", store=str(tmp_path / "store"))
    assert (shown.tokenizer, shown.conversation.id) == ("tiny", "3")
    with pytest.raises(NotFound, match="no dataset named `wormz`") as caught:
        show_tokens("wormz", experiment=toy, store=str(tmp_path / "store"))
    assert "worms" in caught.value.fix


def test_the_command_marks_what_is_learned_also_where_there_is_no_color(camels: Path, llama_like: Path) -> None:
    words = ("tokens", "camels.py", "--tokenizer", str(llama_like), "--store", "store")
    plain = tulu(*words, cwd=camels)
    assert plain.returncode == 0, plain.stderr
    head, *lines = plain.stdout.splitlines()
    assert head.startswith("camels_0 · row 0 of 2 · ")
    assert "\x1b" not in plain.stdout
    body = "\n".join(lines)
    assert body.startswith("‹<s>›│<")
    learned = [part.split("⟧")[0].replace("│", "") for part in body.split("⟦")[1:]]
    assert learned[0] == "Two.↵\n↵\nOr one·🐪‹</s>›▁↵"  # · is a token of its own, ▁ what LLaMA adds
    colored = tulu(*words, cwd=camels, FORCE_COLOR="1", COLUMNS="200")
    assert "\x1b[1;32m⟦" in colored.stdout
    as_json = tulu_json(*words, cwd=camels)
    shown = show_tokens(str(camels / "camels.py"), tokenizer=str(llama_like), store=str(camels / "store"))
    assert as_json == json.loads(json.dumps(tokens_json(shown)))


def test_no_character_of_a_conversation_is_obeyed_by_the_terminal(show: Callable[..., Shown]) -> None:
    shown = show()
    hostile = "a\x00b\x08c\x9b31md\x1b[31me\u202efg\u200b"
    tokens = (replace(shown.view.tokens[0], text=hostile, shown=hostile),)
    console = Console(file=io.StringIO(), width=200)
    print_tokens(replace(shown, view=replace(shown.view, tokens=tokens)), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert r"a\x00b\x08c\x9b31md␛[31me\u202efg\u200b" in text
    assert {each for each in text if unicodedata.category(each) in {"Cc", "Cf"}} == {"\n"}


def test_the_command_names_what_it_cannot_find(camels: Path) -> None:
    for words, what in (
        (("tokens", "alpacca"), "no dataset named `alpacca`"),
        (("tokens", "camels.py", "--tokenizer", "llamma"), "named `llamma`"),
        (("tokens", "camels.py", "--row", "9", "--store", "store"), "no row 9"),
    ):
        done = tulu(*words, cwd=camels)
        assert done.returncode == 2
        assert what in done.stderr
        assert "fix:" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.realdata
def test_tokens_of_alpaca_need_nothing_but_a_mirror(tmp_path: Path, mirror: Path) -> None:
    done = tulu_json("tokens", "alpaca", "--row", "3", cwd=tmp_path, TULU_MIRROR=str(mirror))
    assert (done["id"], done["rows"], done["tokenizer"]) == ("alpaca_3", 52_002, "tiny-10m")
    assert done["supervised"] > 100
