"""Checkpoints that were tuned elsewhere: what they may be, where they stand, and what a folder must hold."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows.catalog import FAMILIES, find_any
from flows.catalog_view import list_kind, show_json
from flows.graph import graph_of
from flows.session import with_available_engine
from perf.matrix import EXPERIMENT as MATRIX
from tulu_pipeline.artifacts.artifact import Artifact, Graph
from tulu_pipeline.artifacts.model_files import model_folder
from tulu_pipeline.artifacts.plan import identity, key_of
from tulu_pipeline.artifacts.resolve import Resolver, SourcesLock
from tulu_pipeline.artifacts.source import HubModel, LocalFile
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import BadInput, NotFound
from tulu_pipeline.mixtures import MIXTURES
from tulu_pipeline.models.llama import FAMILY as LLAMA
from tulu_pipeline.models.tulu import FAMILY as TULU
from tulu_pipeline.reporting.paper import published_columns
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.model import TunedModel, WeightDiff

BASE = MATRIX.models[0]
COMMIT = "0123456789" * 4
WHOLE = TunedModel(
    name="vicuna-7b", base=BASE, sources={"model": HubModel(repo="a/b", revision=COMMIT)}, license="MIT", template="own"
)
DIFF = TunedModel(
    name="koala-7b",
    base=BASE,
    sources={"weights": HubModel(repo="a/diff", revision=COMMIT, part="weights")},
    license="MIT",
    diff=WeightDiff(),
    tokenizer=BASE.tokenizer,
    label="Koala",
    mixture="sharegpt",
)


def with_tuned(*tuned: TunedModel) -> Experiment:
    return dataclasses.replace(MATRIX, tuned_models=tuned)


def asked(graph: Graph, row: str) -> list[Artifact]:
    return [artifact for artifact in graph if artifact.unit == f"generate[{row}]"]


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(with_tuned(WHOLE, DIFF))


def keys(graph: Graph) -> dict[str, str]:
    return {
        each.name: key_of(identity(each, dict.fromkeys(each.inputs, "0" * 64), {}))
        for each in graph
        if each.stage.name != "tabulate"
    }


def test_tuned_models_move_no_key_of_what_was_there(graph: Graph) -> None:
    before, after = keys(graph_of(MATRIX)), keys(graph)
    assert before.items() <= after.items()
    assert dataclasses.replace(MATRIX, tuned_models=()) == MATRIX


def test_a_tuned_model_is_asked_every_metric_and_trained_on_nothing(graph: Graph) -> None:
    assert {each.stage.name for each in Graph(asked(graph, "vicuna-7b"))} == {"download", "generate"}
    trained = asked(graph, f"{BASE.name}+{MATRIX.mixtures[0].name}")
    for name in ("vicuna-7b", "koala-7b"):
        answers = asked(graph, name)
        assert [each.params.metric for each in answers] == [each.params.metric for each in trained]  # type: ignore[attr-defined]
        assert all(each.params.tuned for each in answers)  # type: ignore[attr-defined]
    assert len([each for each in graph if each.stage.name == "finetune"]) == len(MATRIX.models) * len(MATRIX.mixtures)


def test_a_checkpoint_is_asked_as_it_came_and_in_the_format_that_its_row_says(graph: Graph) -> None:
    for artifact in asked(graph, "vicuna-7b"):
        assert artifact.inputs["model"].name == "download[vicuna-7b]"
        assert artifact.params.template == "own"  # type: ignore[attr-defined]


def test_a_diff_is_recovered_from_the_base_that_is_trained_too(graph: Graph) -> None:
    for artifact in asked(graph, "koala-7b"):
        assert artifact.params.template == "tulu"  # type: ignore[attr-defined]
        recovered = artifact.inputs["model"]
        assert recovered.name == "recover[koala-7b]"
        assert {name: made.name for name, made in recovered.inputs.items()} == {
            "base": f"download[{BASE.name}]",
            "diff": "download[koala-7b-diff]",
            "tokenizer": f"download[{BASE.tokenizer.name}-tokenizer]",
        }
        assert recovered.inputs["base"] is graph.by_name[f"download[{BASE.name}]"]


def test_answers_are_judged_with_the_tokenizer_of_the_base(graph: Graph) -> None:
    judged = [each for each in graph if each.stage.name == "judge" and each.cell.startswith("vicuna-7b/")]
    assert judged
    assert {each.inputs["tokenizer"].name for each in judged} == {f"download[{BASE.tokenizer.name}-tokenizer]"}


def test_a_row_says_its_base_its_label_and_what_it_claims_to_be_tuned_on(graph: Graph) -> None:
    rows = {row.name: row for row in graph.by_name[f"tabulate[{MATRIX.name}]"].params.rows}  # type: ignore[attr-defined]
    assert (rows["koala-7b"].label, rows["vicuna-7b"].label) == ("Koala", "vicuna-7b")
    assert (rows["koala-7b"].mixture, rows["vicuna-7b"].mixture) == ("sharegpt", "")
    assert rows["koala-7b"].base_model == rows["vicuna-7b"].base_model == BASE.name
    assert not rows["koala-7b"].untuned


def test_an_experiment_may_hold_tuned_models_alone() -> None:
    alone = dataclasses.replace(with_tuned(WHOLE, DIFF), models=(), mixtures=())
    stages = {each.stage.name for each in graph_of(alone)}
    assert stages == {"download", "recover", "generate", "judge", "score", "tabulate"}


def test_where_only_tuned_models_generate_the_engine_is_still_one_that_loads_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tulu_pipeline.errors import MissingOnMachine
    from tulu_pipeline.inference import engine

    monkeypatch.setattr(engine, "what_lacks", lambda engine, gpu: MissingOnMachine("no vLLM", "here", "install it"))
    alone = dataclasses.replace(with_tuned(WHOLE), models=(), mixtures=(), engine="vllm")
    assert with_available_engine(alone).engine == "transformers"


@pytest.mark.parametrize(
    "changed",
    [
        {"diff": WeightDiff(dtype="bfloat16")},
        {"diff": WeightDiff(tuned_dtype="bfloat16")},
        {"diff": WeightDiff(weights_sum=1.0)},
        {"template": "own"},
        {"tokenizer": None},
    ],
    ids=str,
)
def test_what_is_known_of_a_diff_moves_the_key_of_what_is_recovered(graph: Graph, changed: dict[str, Any]) -> None:
    def key(graph: Graph) -> str:
        return keys(graph)["recover[koala-7b]"]

    assert key(graph_of(with_tuned(dataclasses.replace(DIFF, **changed)))) != key(graph)


@pytest.mark.parametrize("names_only", [{"label": "x"}, {"mixture": "y"}, {"license": "z"}, {"citation": "c"}], ids=str)
def test_what_people_are_told_moves_no_key_but_the_tables(graph: Graph, names_only: dict[str, Any]) -> None:
    assert keys(graph_of(with_tuned(WHOLE, dataclasses.replace(DIFF, **names_only)))) == keys(graph)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"name": "a+b"}, "the name is 'a+b'"),
        ({"name": ""}, "the name is ''"),
        ({"sources": {}}, "it has no sources"),
        ({"template": "chatml"}, "template is 'chatml'"),
        ({"diff": None}, "only a diff takes a tokenizer"),
    ],
    ids=str,
)
def test_a_tuned_model_that_makes_no_sense_says_what_to_write(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput) as caught:
        dataclasses.replace(DIFF, **changed)
    assert told in caught.value.what
    assert caught.value.fix


def test_a_diff_that_makes_no_sense_says_what_to_write() -> None:
    for wrong in ({"dtype": "int8"}, {"tuned_dtype": "float32"}):
        with pytest.raises(BadInput, match=next(iter(wrong))):
            WeightDiff(**wrong)  # type: ignore[arg-type]


def test_two_rows_of_one_name_are_an_error() -> None:
    other = dataclasses.replace(WHOLE, sources={"model": HubModel(repo="a/c", revision=COMMIT)})
    with pytest.raises(BadInput, match="two sources are both called `vicuna-7b`"):
        graph_of(with_tuned(WHOLE, other))
    with pytest.raises(BadInput, match="two sources are both called"):
        graph_of(with_tuned(dataclasses.replace(WHOLE, name=BASE.name)))


# The paper's released checkpoints.


def test_the_release_has_every_checkpoint_that_the_authors_list() -> None:
    of_llama = [release for release in TULU.releases if release.base in LLAMA.models]
    assert len(of_llama) == 34
    assert all(release.diff == WeightDiff() for release in of_llama)
    assert sorted(each.name for each in TULU.releases if each not in of_llama) == [
        "open-instruct-opt-6.7b-tulu",
        "open-instruct-pythia-6.9b-tulu",
    ]
    assert len({release.repo for release in TULU.releases}) == 36


def test_what_a_release_was_tuned_on_is_a_row_of_the_papers_tables() -> None:
    printed = {mixture for column in published_columns() if column.base_model for mixture in column.percent}
    names = {path.stem for path in Path("tulu_pipeline/datasets").glob("*.py")} | MIXTURES.keys()
    for release in TULU.releases:
        assert release.mixture in printed & names
        assert release.name.endswith("tulu") or release.base.name.removeprefix("llama") in release.name


def test_a_release_is_a_row_once_its_commit_is_named() -> None:
    tulu = TULU.release("tulu-7b").at(COMMIT)
    graph = graph_of(dataclasses.replace(MATRIX, models=(), mixtures=(), tuned_models=(tulu,)))
    recovered = graph.by_name["recover[tulu-7b]"]
    assert recovered.inputs["diff"].sources == {
        "weights": HubModel(repo="allenai/tulu-7b", revision=COMMIT, part="weights")
    }
    assert recovered.inputs["base"].sources == LLAMA.model("llama-7b").sources
    pythia = TULU.release("open-instruct-pythia-6.9b-tulu").at(COMMIT)
    assert pythia.diff is None
    assert set(pythia.sources) == {"weights", "tokenizer"}
    with pytest.raises(BadInput, match="`main` is not a commit"):
        TULU.release("tulu-7b").at("main")
    with pytest.raises(NotFound, match="tulu-7"):
        TULU.release("tulu-7")


def test_releases_are_listed_and_shown(tmp_path: Path) -> None:
    rows = {row[0]: row[1:] for row in list_kind("models")}
    assert rows["tulu-65b"][0] == "llama-65b tuned on human_gpt_mix, a weight diff"
    assert rows["open-instruct-opt-6.7b-tulu"][0] == "opt-6.7b tuned on human_gpt_mix"
    facts = show_json("tulu-65b", Store(str(tmp_path / "store"), tmp_path))
    assert (facts["base"], facts["repo"], facts["template"]) == ("llama-65b", "allenai/tulu-65b", "tulu")
    names = [each.name for family in FAMILIES.all() for each in (*family.models, *family.releases)]  # type: ignore[attr-defined]
    assert len(names) == len(set(names))


def test_a_tuned_model_of_a_users_file_is_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        f'from tulu_pipeline.models.tulu import FAMILY\nTULU = FAMILY.release("tulu-7b").at("{COMMIT}")\n'
    )
    value, _ = find_any(f"{tmp_path / 'mine.py'}:TULU")
    assert isinstance(value, TunedModel)
    facts = show_json(f"{tmp_path / 'mine.py'}:TULU", Store(str(tmp_path / "store"), tmp_path))
    assert facts["sources"] == {"weights": f"hub:model:allenai/tulu-7b@{COMMIT}#weights"}


# A folder as a source.

NAMES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    for name in NAMES:
        (made / name).write_text("{}")
    return made


def named(folder: Path, **options: Any) -> dict[str, LocalFile]:
    return model_folder(folder.name, module=str(folder.parent / "mine.py"), **options)


def shards(folder: Path, *there: int, named: int = 3) -> None:
    """So many of three shards, and an index that names the first and as many as `named`."""
    (folder / "model.safetensors").unlink()
    tensors = {f"tensor {number}": f"model-{number:05}-of-00003.safetensors" for number in range(1, named + 1)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": tensors}))
    for number in there:
        (folder / f"model-{number:05}-of-00003.safetensors").write_text("")


def test_a_folder_is_its_models_files_and_nothing_else(folder: Path) -> None:
    for name in ("README.md", "optimizer.pt", "pytorch_model.bin"):
        (folder / name).write_text("")
    (folder / "runs").mkdir()
    assert named(folder) == {name: LocalFile(path=str(folder / name)) for name in NAMES}
    assert set(named(folder, part="weights")) == {"config.json", "model.safetensors"}
    assert set(named(folder, part="tokenizer")) == {"tokenizer.json", "tokenizer_config.json"}
    assert set(model_folder(folder, module="/elsewhere/mine.py")) == set(NAMES)
    shards(folder, 1, 2, 3)
    assert len(named(folder, part="weights")) == 5


@pytest.mark.parametrize(
    ("change", "told", "fix"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no `config.json`", "copy the whole model"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "neither `tokenizer.json` nor", 'part="weights"'),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights", "copy the whole model"),
        (lambda folder: shards(folder, 1, 3), "only the shards [1, 3]", "copy the whole model"),
        (lambda folder: shards(folder, 1, 2), "only the shards [1, 2]", "copy the whole model"),
        (lambda folder: shards(folder, 1, 2, 3, named=4), "the index names `model-00004-of", "copy the model again"),
        (lambda folder: adapter(folder), "holds an adapter", "merge_and_unload"),
        (lambda folder: (shards(folder, 1, 2, 3), broken(folder)), "the index is broken", "copy the model again"),
    ],
    ids=["config", "tokenizer", "weights", "middle shard", "last shard", "named shard", "adapter", "index"],
)
def test_a_folder_that_is_no_whole_model_is_told_before_anything_runs(
    folder: Path, change: Callable[[Path], object], told: str, fix: str
) -> None:
    change(folder)
    with pytest.raises(BadInput) as caught:
        named(folder)
    assert told in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where.startswith(str(folder))


def adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def broken(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("[]")


def test_a_folder_that_is_not_there_is_told(folder: Path) -> None:
    with pytest.raises(BadInput, match="there is no folder `other`"):
        model_folder("other", module=str(folder.parent / "mine.py"))


def test_a_folders_files_are_hashed_once_until_they_change(folder: Path, tmp_path: Path) -> None:
    weights, memory = named(folder)["model.safetensors"], tmp_path / "memory.json"
    time.sleep(2.1)  # what was written this very moment is not remembered

    def descriptor() -> Any:
        resolver = Resolver(SourcesLock(tmp_path / "sources.lock"), memory)
        found = resolver.descriptor(weights)
        resolver.remember()
        return found

    sha256 = hashlib.sha256(b"{}").hexdigest()
    assert descriptor() == {"sha256": sha256}
    memory.write_text(memory.read_text().replace(sha256, "f" * 64))
    assert descriptor() == {"sha256": "f" * 64}, "it was read again"
    (folder / "model.safetensors").write_text("{ }")
    assert descriptor() == {"sha256": hashlib.sha256(b"{ }").hexdigest()}
