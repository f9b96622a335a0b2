"""The page about checkpoints that were tuned elsewhere does what it says: three ways, one checkpoint, the same answers.

The tests of the page share one folder: a base model, a tuned one, its diff, and a hub on this machine.
"""

import importlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import doc_pages
import pytest
import torch
from fakes.file_server import FileServer
from fakes.processes import environment, left_behind, tulu, tulu_json
from safetensors.torch import load_file, save_file

from tulu_pipeline.artifacts.model_files import model_folder
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.engine import EngineSettings
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.reporting.table import Table, read_table
from tulu_pipeline.specs.model import TunedModel

PAGE = doc_pages.page("tuned_checkpoints")
ROWS = ("from-hub", "from-folder", "from-diff")
ITEMS = 12

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Page:
    """What came of the page's commands."""

    folder: Path
    planned: str
    ran: dict[str, Any]
    found: str
    env: dict[str, str]

    def path(self, artifact: str) -> Path:
        done = tulu("path", artifact, "--experiment", "mine.py", cwd=self.folder)
        return Path(done.stdout.strip())

    def table(self) -> Table:
        return read_table(self.path("tabulate[mine]") / "table.json")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    write_models(folder)
    (folder / "mine.py").write_text(doc_pages.blocks(PAGE, "python")[0])
    plan, run, path = doc_pages.commands(PAGE)
    with FileServer() as server:
        serve(server, folder / "tiny-tuned")
        env = {"HF_ENDPOINT": server.url}
        planned = tulu(*plan, cwd=folder, **env)
        assert planned.returncode == 0, planned.stderr
        ran = tulu_json(*run, cwd=folder, **env)
        found = tulu(*path, cwd=folder, **env).stdout.strip()
        yield Page(folder, planned.stdout, ran, found, env)


def write_models(folder: Path) -> None:
    """A tuned model in bfloat16 and its diff, as those scripts that publish diffs make them; and the base's files."""
    before, tuned, diff = (folder / f"tiny-{what}" for what in ("base", "tuned", "diff"))
    source: Any = FAMILY.model("tiny").sources["model"]
    module, _, function = source.function.partition(":")
    getattr(importlib.import_module(module), function)(before, **dict(source.args))
    base = load_file(before / "model.safetensors")
    shutil.copytree(before, tuned)
    draw = torch.Generator().manual_seed(5)
    weights = {
        name: (each * (1 + 0.6 * (torch.rand(each.shape, generator=draw) - 0.5))).bfloat16()
        for name, each in sorted(base.items())
    }
    save_file(weights, tuned / "model.safetensors")
    diff.mkdir()
    shutil.copyfile(tuned / "config.json", diff / "config.json")
    save_file({name: each.float() - base[name] for name, each in weights.items()}, diff / "model.safetensors")


def serve(server: FileServer, folder: Path) -> None:
    """The repository of the page's `HubModel`."""
    (repo, revision) = re.findall(r'HubModel\(repo="(.*?)", revision="(.*?)"', doc_pages.blocks(PAGE, "python")[0])[0]
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
    server.put(f"/api/models/{repo}/revision/{revision}?blobs=true", json.dumps({"siblings": siblings}).encode())
    for name, content in files.items():
        server.put(f"/{repo}/resolve/{revision}/{name}", content)


def test_the_plan_of_the_page_knows_each_row(page: Page) -> None:
    for name in ("download[from-hub]", "download[from-folder]", "recover[from-diff]", "generate[from-diff/gsm_direct]"):
        assert name in page.planned


def test_however_a_checkpoint_comes_it_gives_the_same_answers(page: Page) -> None:
    assert page.ran["failed"] == []
    answers = {row: page.path(f"generate[{row}/gsm_direct]") / "completions.jsonl" for row in (*ROWS, "tiny")}
    texts = {row: [json.loads(line)["texts"] for line in path.open()] for row, path in answers.items()}
    first = answers[ROWS[0]].read_bytes()
    assert first.count(b"\n") == ITEMS
    assert [row for row in ROWS if answers[row].read_bytes() != first] == []
    assert texts["tiny"] != texts[ROWS[0]]
    assert len({str(each) for each in texts[ROWS[0]]}) > 1, "the same answer to everything compares nothing"


def test_what_has_the_same_bytes_is_asked_once(page: Page) -> None:
    asked = [name for name in page.ran["executed"] if name.startswith("generate[")]
    assert len(asked) == 3, "the base, the diff, and either hub or folder"
    assert tulu_json("run", "mine.py", "--runner", "local", cwd=page.folder, **page.env)["executed"] == []


def test_the_rows_stand_beside_their_base_and_have_their_scores(page: Page) -> None:
    table = page.table()
    assert [(row.spec.base_model, row.spec.label) for row in table.rows] == [
        ("tiny", "untuned"),
        ("tiny", "from-hub"),
        ("tiny", "from-folder"),
        ("tiny", "from a diff"),
    ]
    views = [row.cells[0].views[table.headline] for row in table.rows]
    assert {view.score.n for view in views} == {ITEMS}
    assert len({view.score for view in views[1:]}) == 1
    assert all(view.change is not None for view in views[1:]), "compared with the untuned model"


def test_the_recovered_checkpoint_is_the_tuned_one_with_the_template_of_its_row(page: Page) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = Path(page.found)
    assert place == page.path("recover[from-diff]")
    ours, theirs = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
        for folder in (place, page.folder / "tiny-tuned")
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    asked = AutoTokenizer.from_pretrained(place).apply_chat_template(
        [{"role": "user", "content": "1 and 2"}], tokenize=False, add_generation_prompt=True
    )
    assert asked == "<s><|user|>\n1 and 2\n<|assistant|>\n"


def test_what_was_seen_of_the_sums_is_told_beside_the_checkpoint(page: Page) -> None:
    told = json.loads((Path(page.found) / "aux" / "recovered.json").read_text())
    assert told["parameters"] == FAMILY.model("tiny").parameters
    assert told["share_in_bfloat16"] == 1.0
    assert told["tokenizer"] == "base"


def test_a_checkpoint_that_lacks_a_tensor_is_not_asked(page: Page, tmp_path: Path) -> None:
    from tulu_pipeline.inference.transformers_engine import TransformersEngine

    lacking = shutil.copytree(page.folder / "tiny-tuned", tmp_path / "lacking")
    weights = load_file(lacking / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"], weights["model.norm.weight"]
    save_file(weights, lacking / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"no file has `model\.layers\.1\.mlp\.up_proj\.weight` and 1 more"):
        TransformersEngine(EngineSettings(engine="transformers", model=str(lacking), dtype="float32"))


def test_a_diff_on_another_base_fails_its_own_row_alone(page: Page) -> None:
    (page.folder / "wrong.py").write_text(
        "import dataclasses\n"
        "from mine import DIFF, EXPERIMENT as MINE, FOLDER, TINY\n"
        "OTHER = dataclasses.replace(TINY, name='another', sources=FOLDER.sources)\n"
        "WRONG = dataclasses.replace(DIFF, base=OTHER)\n"
        "EXPERIMENT = dataclasses.replace(MINE, models=(), tuned_models=(FOLDER, WRONG))\n"
    )
    done = tulu("run", "wrong.py", "--runner", "local", "--json", cwd=page.folder, **page.env)
    told = json.loads(done.stdout)
    assert [failure["name"] for failure in told["failed"]] == ["recover[from-diff]"]
    assert "made with other weights" in told["failed"][0]["what"]
    assert "name the base model" in told["failed"][0]["fix"]
    assert "generate[from-folder/gsm_direct]" not in told["executed"], "it was there"


def test_the_other_code_on_the_page_is_right(tmp_path: Path) -> None:
    (tmp_path / "my-llama").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "my-llama" / name).write_text("{}")
    scope: dict[str, Any] = {"model_folder": model_folder, "__file__": str(tmp_path / "mine.py")}
    for code in doc_pages.blocks(PAGE, "python")[1:]:
        exec(code, scope)
    assert set(scope["sources"]) > {"config.json", "model.safetensors", "tokenizer.json"}
    assert scope["RELEASED"].base.name == "llama-7b"
    fields = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    assert fields == set(TunedModel.__dataclass_fields__)


# A kill while weights are recovered.

RUN = """
import dataclasses, sys, time
from pathlib import Path
from toy_graph import Workshop
from tasks.download import DOWNLOAD, DownloadParams
from tasks.recover import RECOVER, RecoverParams
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.model_files import model_folder
from tulu_pipeline.specs.model import WeightDiff

folder, store, seconds = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])

def tell(name, done, total, unit, note=""):
    if name.startswith("recover"):
        print(name, done, flush=True)
        time.sleep(seconds)

class Shop(Workshop):
    @property
    def ctx(self):
        return dataclasses.replace(super().ctx, progress=tell)

def download(name, part):
    sources = model_folder(name, module=str(folder / "mine.py"), part=part)
    return Artifact(stage=DOWNLOAD, cell=name, params=DownloadParams(), sources=sources)

inputs = {"base": download("tiny-base", "whole"), "diff": download("tiny-diff", "weights")}
params = RecoverParams(diff=WeightDiff(), template="tulu")
target = Artifact(stage=RECOVER, cell="tuned", params=params, inputs=inputs)
result = Shop(Path(store)).run(target)
assert not result.failed, result.failed
print(*result.executed, Shop(Path(store)).plan(target).nodes[target.name].digest)
"""


def test_a_kill_while_weights_are_recovered_leaves_nothing_and_the_same_bytes_come_after_it(
    page: Page, tmp_path: Path
) -> None:
    (tmp_path / "run.py").write_text(RUN)

    def start(store: str, seconds_per_tensor: float) -> subprocess.Popen[str]:
        command = [sys.executable, str(tmp_path / "run.py"), str(page.folder), store, str(seconds_per_tensor)]
        env = environment(PYTHONPATH=str(Path(__file__).parents[1]))
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)

    killed = start(str(tmp_path / "killed"), 10.0)
    assert killed.stdout is not None
    assert killed.stdout.readline().startswith("recover[tuned]"), "the first tensor is done"
    killed.kill()
    killed.wait()
    store = Store(str(tmp_path / "killed" / "store"), tmp_path)
    assert {manifest.stage for manifest in store.manifests()} == {"download"}
    ended = [start(str(tmp_path / name), 0.0).communicate()[0].splitlines()[-1].split() for name in ("killed", "other")]
    assert ended[0][:-1] == ["recover[tuned]"]
    assert len(ended[1][:-1]) == 3
    assert ended[0][-1] == ended[1][-1]
    assert left_behind(tmp_path) == []
