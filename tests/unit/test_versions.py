"""Code that changes is noticed, comments are not, and a user's file is its own version."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_graph import ToyParams, Workshop

from tulu_pipeline.artifacts import versions
from tulu_pipeline.artifacts.artifact import Artifact, ObjectRef
from tulu_pipeline.artifacts.plan import Status
from tulu_pipeline.artifacts.source import Builtin
from tulu_pipeline.artifacts.stage import Job, Metrics, RunContext, Stage
from tulu_pipeline.artifacts.versions import VersionsLock, fingerprint
from tulu_pipeline.errors import BadInput

ROOT = Path(__file__).parent.parent.parent
FILES = {
    "tasks/__init__.py": "",
    "tasks/toy.py": """
        '''A stage.'''
        from tulu_pipeline.datasets.registry_of_toys import TOYS
        from tulu_pipeline import deep

        def run(job, ctx):
            '''Runs.'''
            import tulu_pipeline.lazy
            return [sys.executable, "-m", "tulu_pipeline.worker"]
    """,
    "tulu_pipeline/__init__.py": "",
    "tulu_pipeline/errors.py": "FRAMEWORK = 1",
    "tulu_pipeline/datasets/__init__.py": "",
    "tulu_pipeline/datasets/registry_of_toys.py": "from tulu_pipeline.errors import FRAMEWORK\nTOYS = 1",
    "tulu_pipeline/datasets/alpaca.py": "from tulu_pipeline.datasets.parts import half\nDATASET = half(2)",
    "tulu_pipeline/datasets/parts.py": "def half(x):\n    return x / 2",
    "tulu_pipeline/datasets/dolly.py": "DATASET = 2",
    "tulu_pipeline/deep/__init__.py": "",
    "tulu_pipeline/lazy.py": "LAZY = 1",
    "tulu_pipeline/worker.py": "WORKER = 1",
    "tulu_pipeline/makers.py": "def make(out): ...",
    "tulu_pipeline/unrelated.py": "UNRELATED = 1",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a few small modules in place of this one."""
    for name, text in FILES.items():
        write(tmp_path, name, text)
    monkeypatch.setattr(versions, "_ROOT", tmp_path)
    return tmp_path


def write(tree: Path, name: str, text: str) -> None:
    import textwrap

    (tree / name).parent.mkdir(parents=True, exist_ok=True)
    (tree / name).write_text(textwrap.dedent(text))


def run(job: Job[ToyParams], ctx: RunContext) -> Metrics:
    raise NotImplementedError


def artifact(dataset: str = "alpaca", version: int = 1, stage_version: int = 1, **more: Any) -> Artifact:
    run.__module__ = "tasks.toy"
    stage: Stage[ToyParams] = Stage(name="toy", version=stage_version, params=ToyParams, run=run)
    ref = ObjectRef(name=f"dataset {dataset}", version=version, module=f"tulu_pipeline.datasets.{dataset}")
    return Artifact(stage=stage, cell=dataset, params=ToyParams(), objects=(ref,), **more)


def drift(tree: Path, made: Artifact | None = None) -> str:
    return VersionsLock(tree / "versions.lock").drift(made or artifact())


def accept(tree: Path, *artifacts: Artifact) -> None:
    VersionsLock(tree / "versions.lock").accept(artifacts or [artifact()])


def test_accepted_code_has_no_drift(tree: Path) -> None:
    assert "toy + dataset alpaca is not in versions.lock" in drift(tree)
    accept(tree)
    assert drift(tree) == ""


def test_a_users_file_is_in_no_lock_and_is_no_drift(tree: Path) -> None:
    accept(tree)
    mine = replace(artifact("mine"), objects=(ObjectRef(name="dataset mine", version=1, module="/home/me/mine.py"),))
    assert drift(tree, mine) == ""


def test_a_users_object_called_as_one_of_the_lock_is_no_drift(tree: Path) -> None:
    accept(tree)
    ref = ObjectRef(name="dataset alpaca", version=77, module="/home/me/mine.py")
    assert drift(tree, replace(artifact(), objects=(ref,))) == ""


REACHED = {
    "the stage": ("tasks/toy.py", "return [", "return [0, "),
    "the object": ("tulu_pipeline/datasets/alpaca.py", "half(2)", "half(3)"),
    "what the object imports": ("tulu_pipeline/datasets/parts.py", "x / 2", "x / 3"),
    "what the stage imports": ("tulu_pipeline/datasets/registry_of_toys.py", "TOYS = 1", "TOYS = 2"),
    "a package": ("tulu_pipeline/deep/__init__.py", "", "NEW = 1"),
    "an import inside a function": ("tulu_pipeline/lazy.py", "LAZY = 1", "LAZY = 2"),
    "a module started as a child": ("tulu_pipeline/worker.py", "WORKER = 1", "WORKER = 2"),
}


@pytest.mark.parametrize("what", REACHED)
def test_changed_code_that_is_reached_drifts_until_accepted(tree: Path, what: str) -> None:
    accept(tree)
    name, before, after = REACHED[what]
    text = (tree / name).read_text()
    (tree / name).write_text(text.replace(before, after) if before else after)
    assert drift(tree) == "toy + dataset alpaca: its code changed, its version did not"
    accept(tree)
    assert drift(tree) == ""


def test_same_change_is_seen_by_a_process_that_looked_before(tree: Path) -> None:
    accept(tree)
    before = fingerprint(["tasks.toy"])
    (tree / "tasks/toy.py").write_text("X = 1")
    assert fingerprint(["tasks.toy"]) != before
    assert drift(tree)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tasks/toy.py", FILES["tasks/toy.py"].replace("'''A stage.'''", "'''Another.'''  # a comment")),
        ("tasks/toy.py", FILES["tasks/toy.py"].replace("'''Runs.'''", "")),
        ("tulu_pipeline/datasets/parts.py", "def half(x):\n\n    return (x /\n        2)  # half"),
        ("tulu_pipeline/errors.py", "FRAMEWORK = 2"),
        ("tulu_pipeline/unrelated.py", "UNRELATED = 2"),
        ("tulu_pipeline/datasets/dolly.py", "DATASET = 3"),
    ],
)
def test_comments_docstrings_layout_and_what_is_not_reached_do_not_drift(tree: Path, name: str, text: str) -> None:
    accept(tree)
    write(tree, name, text)
    assert drift(tree) == ""


def test_module_whose_name_begins_like_one_of_the_framework_is_reached(tree: Path) -> None:
    write(tree, "tulu_pipeline/errors_of_rows.py", "X = 1")
    write(tree, "tulu_pipeline/datasets/alpaca.py", "from tulu_pipeline.errors_of_rows import X\nDATASET = X")
    accept(tree)
    write(tree, "tulu_pipeline/errors_of_rows.py", "X = 2")
    assert drift(tree)


def test_maker_of_a_builtin_source_is_reached_and_its_version_counts(tree: Path) -> None:
    def made(version: int) -> Artifact:
        return artifact(sources={"a": Builtin(function="tulu_pipeline.makers:make", version=version)})

    accept(tree, made(1))
    assert drift(tree, made(1)) == ""
    assert "versions" in drift(tree, made(2))
    write(tree, "tulu_pipeline/makers.py", "def make(out): return 2")
    assert "its code changed" in drift(tree, made(1))


@pytest.mark.parametrize("bumped", [artifact(version=2), artifact(stage_version=2)])
def test_bumped_version_is_to_be_accepted(tree: Path, bumped: Artifact) -> None:
    accept(tree)
    assert "versions {" in drift(tree, bumped)
    accept(tree, bumped)
    assert drift(tree, bumped) == ""
    assert drift(tree)


def test_lock_holds_exactly_what_was_accepted_in_order(tree: Path) -> None:
    accept(tree, artifact("dolly"), artifact("alpaca"))
    assert list(json.loads((tree / "versions.lock").read_text())) == ["toy + dataset alpaca", "toy + dataset dolly"]
    accept(tree, artifact("dolly"))
    assert list(json.loads((tree / "versions.lock").read_text())) == ["toy + dataset dolly"]


def test_removed_file_drifts(tree: Path) -> None:
    accept(tree)
    (tree / "tulu_pipeline/lazy.py").unlink()
    assert drift(tree)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"toy + dataset alpaca": 3}', '{"toy + dataset alpaca": {"versions": {}}}']
)
def test_broken_lock_is_told_with_its_place(tree: Path, text: str) -> None:
    (tree / "versions.lock").write_text(text)
    with pytest.raises(BadInput) as broken:
        drift(tree)
    assert broken.value.where.startswith(str(tree / "versions.lock"))
    assert "tulu versions --accept" in broken.value.fix


def test_fingerprint_is_the_same_in_every_python(tree: Path) -> None:
    """The trees of two Python versions differ in empty fields and in what marks a `u''`."""
    write(tree, "tasks/toy.py", "def f(a, *, b=None):\n    return u'x', f'{a!r:>{b}}', lambda: ...\nclass A: ...")
    code = "import sys; from pathlib import Path; from tulu_pipeline.artifacts import versions\n"
    code += "versions._ROOT = Path(sys.argv[1]); print(versions.fingerprint(['tasks.toy']))"
    prints = set()
    for python in pythons():
        command = [python, "-c", code, str(tree)]
        prints.add(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip())
    assert prints == {fingerprint(["tasks.toy"])}


def pythons() -> list[str]:
    """This one and whatever later ones are here."""
    import shutil

    found = [shutil.which(f"python3.{minor}") for minor in (12, 13)]
    works = [path for path in found if path and not subprocess.run([path, "-V"], capture_output=True).returncode]
    return [sys.executable, *works]


def test_manifest_keeps_the_code_that_ran_though_it_was_edited_meanwhile(tree: Path) -> None:
    shop = Workshop(tree / "shop")

    def run(job: Job[ToyParams], ctx: RunContext) -> Metrics:
        (job.out / "text").write_text("made")
        (tree / "tasks/toy.py").write_text("half an edit (")
        return {}

    run.__module__ = "tasks.toy"
    node = Artifact(stage=Stage(name="toy", version=1, params=ToyParams, run=run), cell="a", params=ToyParams())
    before = fingerprint(["tasks.toy"])
    assert shop.run(node).failed == []
    (manifest,) = shop.store.manifests()
    assert manifest.fingerprint == before


# a user's own file


def users(shop: Workshop, path: Path) -> Artifact:
    return shop.node("normalize", "mine", "x", objects=(ObjectRef(name="dataset mine", version=1, module=str(path)),))


def test_code_of_a_users_file_is_part_of_the_key(tmp_path: Path) -> None:
    shop, mine = Workshop(tmp_path), tmp_path / "mine.py"
    mine.write_text("DATASET = 1")
    shop.run(users(shop, mine))
    mine.write_text("DATASET = 1  # a comment")
    assert shop.statuses(users(shop, mine)) == {"normalize[mine]": Status.HIT}
    mine.write_text("DATASET = 2")
    assert shop.statuses(users(shop, mine)) == {"normalize[mine]": Status.MISS}
    (reason,) = shop.why(users(shop, mine))
    assert reason.code == "CODE"
    assert "dataset mine" in reason.text


def test_file_beside_a_users_file_that_it_imports_is_part_of_the_key(tmp_path: Path) -> None:
    shop, mine = Workshop(tmp_path), tmp_path / "mine.py"
    mine.write_text("from beside import X\nimport json\nDATASET = X")
    (tmp_path / "beside.py").write_text("X = 1")
    shop.run(users(shop, mine))
    assert shop.statuses(users(shop, mine)) == {"normalize[mine]": Status.HIT}
    (tmp_path / "beside.py").write_text("X = 2")
    assert shop.statuses(users(shop, mine)) == {"normalize[mine]": Status.MISS}


def test_code_of_this_project_that_a_users_file_imports_moves_no_key_of_its(tree: Path) -> None:
    for folder in (tree / "home", tree):
        mine = folder / "mine.py"
        write(folder, "mine.py", "from tulu_pipeline.datasets.parts import half\nfrom beside import X\n")
        write(folder, "beside.py", "from tulu_pipeline import deep\nX = 1\n")
        before = fingerprint([str(mine)])
        write(tree, "tulu_pipeline/datasets/parts.py", f"def half(x):\n    return x / {len(str(mine))}")
        write(tree, "tulu_pipeline/deep/__init__.py", f"DEEP = {len(str(mine))}")
        assert fingerprint([str(mine)]) == before
        write(folder, "beside.py", "X = 2\n")
        assert fingerprint([str(mine)]) != before


def test_place_of_a_users_file_moves_no_key(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder in "ab":
        (tmp_path / folder / "mine.py").write_text("DATASET = 1")
    shop.run(users(shop, tmp_path / "a" / "mine.py"))
    assert shop.statuses(users(shop, tmp_path / "b" / "mine.py")) == {"normalize[mine]": Status.HIT}


def test_users_file_that_is_broken_is_told(tmp_path: Path) -> None:
    shop, mine = Workshop(tmp_path), tmp_path / "mine.py"
    mine.write_text("DATASET = (")
    with pytest.raises(BadInput) as broken:
        shop.plan(users(shop, mine))
    assert broken.value.where == f"{mine}:1"
