"""Adding an object is adding its file; a wrong file is told with what to mend."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tulu_pipeline.errors import BadInput, NotFound, TuluError
from tulu_pipeline.registry import Registry, load_file


@dataclass(frozen=True, kw_only=True)
class Toy:
    name: str


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An importable package `toys_for_a_test` with one good module, `ball`."""
    folder = tmp_path / "toys_for_a_test"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    write(folder, "ball", "TOY = Toy(name='ball')")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "toys_for_a_test"]:
        del sys.modules[name]


def write(folder: Path, name: str, body: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(f"from {__name__} import Toy\n{body}\n")
    sys.modules.setdefault(__name__, sys.modules[Toy.__module__])
    return path


def toys() -> Registry[Toy]:
    return Registry("toy", "toys_for_a_test", "TOY", Toy)


def test_module_copied_into_the_package_is_listed_and_found(package: Path) -> None:
    assert toys().names() == ["ball"]
    write(package, "train", (package / "ball.py").read_text().replace("'ball'", "'train'"))
    assert toys().names() == ["ball", "train"]
    assert toys().get("train") == Toy(name="train")
    assert toys().all() == [Toy(name="ball"), Toy(name="train")]


def test_private_modules_and_folders_are_not_listed(package: Path) -> None:
    write(package, "_shared", "")
    (package / "parts").mkdir()
    (package / "parts" / "__init__.py").write_text("")
    assert toys().names() == ["ball"]


def test_listing_imports_no_module(package: Path) -> None:
    write(package, "broken", "raise RuntimeError")
    assert toys().names() == ["ball", "broken"]
    assert toys().get("ball") == Toy(name="ball")
    assert "toys_for_a_test.broken" not in sys.modules


def test_unknown_name_lists_close_matches_first(package: Path) -> None:
    write(package, "kite", "TOY = Toy(name='kite')")
    with pytest.raises(NotFound) as mistake:
        toys().get("bal")
    assert mistake.value.what == "no toy named `bal`"
    assert mistake.value.fix == "did you mean `ball`? known: ball, kite"
    assert mistake.value.exit_code == 2


@pytest.mark.parametrize("name", ["", ".", "..ball", "ball.TOY", "__init__"])
def test_what_is_no_name_is_not_found(package: Path, name: str) -> None:
    with pytest.raises(NotFound):
        toys().get(name)


@pytest.mark.parametrize(
    ("body", "told", "fix"),
    [
        ("", "no constant `TOY`", "define `TOY = Toy(…)`"),
        ("TOY = 3", "`TOY` is a int", "make it a `Toy`"),
        ("TOY = Toy", "`TOY` is a type", "make it a `Toy`"),
        ("TOY = Toy(name='bal')", "`TOY` is named `bal`", "name it `bat`, as its file"),
    ],
)
def test_wrong_file_is_told(package: Path, body: str, told: str, fix: str) -> None:
    write(package, "bat", body)
    with pytest.raises(BadInput) as mistake:
        toys().get("bat")
    assert (mistake.value.what, mistake.value.fix) == (told, fix)
    assert mistake.value.where.endswith("bat.py")


def test_users_file_is_imported_by_path(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", "TOY = Toy(name='anything')")
    assert toys().from_module(load_file(path), None) == Toy(name="anything")


def test_users_file_can_import_what_lies_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "rows_of_mine_beside.py").write_text("ROWS = 3\n")
    (tmp_path / "mine.py").write_text("from rows_of_mine_beside import ROWS\n")
    assert load_file(tmp_path / "mine.py").ROWS == 3
    assert sys.path[-1] == str(tmp_path)


def test_users_files_of_one_name_in_two_folders_are_two_modules(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one = load_file(write(tmp_path, "mine", "TOY = Toy(name='one')"))
    two = load_file(write(tmp_path / "other", "mine", "TOY = Toy(name='two')"))
    assert sys.modules[one.__name__] is one
    assert sys.modules[two.__name__] is two


@pytest.mark.parametrize(
    ("body", "told", "line"),
    [
        ("x = (", "syntax error", 2),
        ("\nimport no_such_module", "cannot import: No module named 'no_such_module'", 3),
        ("TOY = Toy(nam='x')", "TypeError: Toy.__init__() got an unexpected keyword argument 'nam'", 2),
        ("def f():\n    return undefined\n\nf()", "NameError: name 'undefined' is not defined", 3),
        ("import sys; sys.exit(0)", "SystemExit: 0", 2),
    ],
)
def test_mistake_in_a_users_file_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, told: str, line: int
) -> None:
    path = write(tmp_path, "mine", body)
    monkeypatch.chdir(tmp_path)
    for named in (path, Path(path.name)):
        with pytest.raises(BadInput) as mistake:
            load_file(named)
        assert told in mistake.value.what
        assert mistake.value.where == f"{named}:{line}"
    assert not [name for name in sys.modules if getattr(sys.modules[name], "__file__", None) == str(path)]


def test_error_of_the_project_in_a_users_file_passes_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "mine", "from tulu_pipeline.errors import BadInput\nraise BadInput('wrong', 'here', 'mend')")
    with pytest.raises(BadInput) as mistake:
        load_file(path)
    assert (mistake.value.what, mistake.value.where) == ("wrong", "here")


def test_users_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(TuluError) as mistake:
        load_file(tmp_path / "none.py")
    assert str(tmp_path / "none.py") in mistake.value.what
