"""`tulu publish` against a hub on this machine: what arrives, what does not, and what becomes of faults on the way."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import doc_pages
import pytest
from fakes.hub_server import TOKEN, Fault, HubServer, Repository
from fakes.processes import environment, tulu, tulu_json
from huggingface_hub import ModelCard

from flows.publish import Done, Publishing, publish
from flows.session import Request, prepare
from tulu_pipeline.artifacts import http_download
from tulu_pipeline.artifacts.fetch import fetch
from tulu_pipeline.artifacts.manifest import Manifest
from tulu_pipeline.artifacts.source import HubModel
from tulu_pipeline.errors import BadInput, StageFailed, Tampered, TuluError, Unreachable
from tulu_pipeline.export import hub_answers
from tulu_pipeline.settings import read_settings

pytestmark = pytest.mark.timeout(300)

REPO = "camels/tiny-humps"
ARTIFACT = "finetune[tiny+humps]"
_FILE = """
from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.raw.own import own_dataset
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import Component, Mixture
from tulu_pipeline.specs.recipe import Recipe

ROWS = own_dataset("rows", "rows.jsonl", module=__file__, license="CC0-1.0", names={"license": "license"})
EXPERIMENT = Experiment(
    name="humps",
    title="Whether humps can be learned",
    hypothesis="they can",
    models=(FAMILY.model("tiny"),),
    mixtures=(Mixture(name="humps", components=(Component(dataset="rows", repeat=2),)),),
    benchmarks={"gsm": ("gsm_cot",)},
    recipe=Recipe(max_steps=2, conversations_per_step=4, max_length_tokens=64, dtype="fp32"),
    datasets=(ROWS,),
)
"""
_RELICENSED = """
from dataclasses import replace

import humps

BASE = replace(humps.EXPERIMENT.models[0], license={license!r})
EXPERIMENT = replace(humps.EXPERIMENT, models=(BASE,))
"""
_PROFILE = 'ranks = 1\nlayout = "padded"\n'


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a user's experiment, a store, and a model in it that was trained for two steps."""
    folder = tmp_path_factory.mktemp("humps")
    (folder / "humps.py").write_text(_FILE)
    rows = [{"prompt": f"How many humps have {n} camels?", "completion": f"{2 * n}, or {n}."} for n in range(8)]
    licensed = [row | {"license": "CC-BY-4.0" if number else "ODC-By-1.0"} for number, row in enumerate(rows)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in licensed))
    (folder / "one.toml").write_text(_PROFILE)
    words = ("run", "humps.py", "--only", ARTIFACT, "--profile", "one.toml", "--runner", "local", "--store", "store")
    done = tulu(*words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, mine: Path) -> Iterator[HubServer]:
    monkeypatch.chdir(mine)
    monkeypatch.setattr(hub_answers, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(http_download, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def bring(**changes: Any) -> Done:
    asked = Publishing(artifact=ARTIFACT, to=REPO, experiment="humps.py", store="store")
    return publish(dataclasses.replace(asked, **changes))


def manifest() -> Manifest:
    found = prepare(Request(experiment="humps.py", store="store")).plan.nodes[ARTIFACT].manifest
    assert found is not None
    return found


def published_card(hub: HubServer) -> str:
    return hub.repositories[REPO].head.files["README.md"].data.decode()


def test_what_arrives_is_the_checkpoint_its_card_and_who_wrote_it(hub: HubServer) -> None:
    done, made = bring(), manifest()
    repository = hub.repositories[REPO]
    assert (repository.private, repository.gated) == (False, "auto")
    files = repository.head.files
    assert {path: files[path].sha256 for path in files.keys() - {".gitattributes", "README.md", "tulu.json"}} == {
        entry.path: entry.sha256 for entry in made.outputs
    }
    mark = json.loads(files["tulu.json"].data)
    assert (mark["artifact"], mark["key"], mark["digest"]) == (ARTIFACT, made.key, made.digest)
    assert repository.head.summary == f"{ARTIFACT} {made.key[:12]}"
    assert made.key in repository.head.description
    assert done.published is not None
    assert done.published.address == f"{hub.url}/{REPO}"
    assert done.published.commit == repository.head.sha
    assert {path: len(blob.data) for path, blob in files.items() if path != ".gitattributes"} == done.sizes


def test_nobody_sees_it_before_it_is_whole(hub: HubServer) -> None:
    bring()
    written = [each for each in hub.seen if each.method in {"POST", "PUT"}]
    [created] = [each for each in written if each.path == "/api/repos/create"]
    assert json.loads(created.body)["visibility"] == "private"
    assert [each.path.rpartition("/")[2] for each in written[-1:]] == ["settings"]
    assert json.loads(written[-1].body) == {"gated": "auto", "visibility": "public"}
    assert sum("/commit/" in each.path for each in written) == 1


def test_what_the_hub_has_is_not_sent_again(hub: HubServer) -> None:
    bring()
    hub.uploads()
    again = bring()
    assert again.published is not None
    assert again.published.sent == ()
    assert hub.uploads() == []
    assert len(hub.repositories[REPO].commits) == 2


def test_a_publication_that_broke_off_goes_on_where_it_was(hub: HubServer) -> None:
    with hub.broken_by(Fault(method="POST", path="/commit/", status=500, times=4)), pytest.raises(Unreachable) as told:
        bring()
    assert "the hub answered 500: scripted" in told.value.what
    assert "run the same command again" in told.value.fix
    assert hub.repositories[REPO].private
    assert len([path for path in hub.uploads() if path.startswith("/storage/")]) == 1
    bring()
    assert hub.uploads() == []
    assert not hub.repositories[REPO].private


@pytest.mark.parametrize(
    "fault",
    [
        Fault(method="POST", path="/api/repos/create", status=503, times=2),
        Fault(method="POST", path="/preupload/", status=500),
        Fault(method="POST", path="/objects/batch", status=429, headers={"Retry-After": "0"}),
        Fault(method="PUT", path="/storage/", after_bytes=100_000),
        Fault(method="PUT", path="/storage/", status=500),
        Fault(method="POST", path="/commit/", status=502),
        Fault(method="POST", path="/commit/", done=True),
        Fault(method="POST", path="/commit/", status=429, headers={"Retry-After": "1"}),
        Fault(method="PUT", path="/settings", status=504),
        Fault(method="PUT", path="/settings"),
    ],
    ids=lambda fault: f"{fault.method} {fault.path.strip('/')} {fault.status or ('lost' if fault.done else 'dropped')}",
)
def test_faults_that_pass_are_waited_for(hub: HubServer, fault: Fault) -> None:
    with hub.broken_by(fault):
        bring()
    repository = hub.repositories[REPO]
    assert (repository.private, repository.gated, len(repository.commits)) == (False, "auto", 2)
    outputs = {entry.path: entry.sha256 for entry in manifest().outputs}
    assert outputs.items() <= {path: blob.sha256 for path, blob in repository.head.files.items()}.items()


def test_a_hub_that_falls_silent_is_not_waited_for_forever(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_answers, "_TIMEOUT_SECONDS", 0.5)
    with hub.broken_by(Fault(method="POST", path="/api/repos/create", after_seconds=30)):
        bring()
    assert not hub.repositories[REPO].private


def test_large_files_go_in_parts_and_a_lost_part_goes_again(hub: HubServer) -> None:
    hub.part_bytes = 400_000
    with hub.broken_by(Fault(method="PUT", path="/storage/.*/2$", after_bytes=1_000)):
        bring()
    parts = [path.rpartition("/")[2] for path in hub.uploads()]
    size_bytes = next(entry.size_bytes for entry in manifest().outputs if entry.path == "model.safetensors")
    assert parts == [str(number + 1) for number in range(-(-size_bytes // hub.part_bytes))]
    assert len(parts) > 2


@pytest.mark.parametrize(
    ("fault", "what", "fix"),
    [
        (Fault(method="GET", path="/api/models", status=403), f"the token may not write to `{REPO}`", "write access"),
        (Fault(method="POST", path="/preupload", status=404), f"the hub knows no `{REPO}`", "HF_ENDPOINT"),
        (Fault(method="PUT", path="/storage", status=403), f"the token may not write to `{REPO}`: scripted", "token"),
        (Fault(method="POST", path="/commit", status=400), "the hub answered 400: scripted", "again"),
    ],
    ids=lambda value: f"{value.path}-{value.status}" if isinstance(value, Fault) else "",
)
def test_a_refusal_is_told_at_once(hub: HubServer, fault: Fault, what: str, fix: str) -> None:
    with hub.broken_by(fault), pytest.raises(TuluError) as told:
        bring()
    assert what in told.value.what
    assert told.value.where == f"{hub.url}/{REPO}"
    assert fix in told.value.fix
    assert all(repository.private for repository in hub.repositories.values())


def test_a_wrong_token_a_foreign_owner_and_no_token_are_three_errors(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"may not write to `llamas/x`: You don't have the rights"):
        bring(to="llamas/x")
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    with pytest.raises(BadInput, match="the hub refuses the token: Invalid credentials"):
        bring()
    hub.seen.clear()
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(BadInput, match="no token for the hub"):
        bring()
    assert hub.seen == []


def test_a_hub_that_is_not_there_is_told(mine: Path, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="the hub does not answer"):
        bring()


def test_a_repository_with_other_things_in_it_is_left_alone(hub: HubServer) -> None:
    repository = hub.create(REPO, private=False)
    other = {"model.safetensors": dataclasses.replace(repository.head.files[".gitattributes"], large=True)}
    before = repository.commit("mine", "", repository.head.files | other)
    with pytest.raises(BadInput, match="holds files that `tulu publish` did not write"):
        bring()
    assert repository.head is before


def test_a_card_that_was_edited_on_the_hub_is_replaced_only_by_one_that_is_given(hub: HubServer, mine: Path) -> None:
    bring()
    repository = hub.repositories[REPO]
    edited = dataclasses.replace(repository.head.files["README.md"], data=b"---\nlicense: mit\n---\nby hand\n")
    repository.commit("by hand", "", repository.head.files | {"README.md": edited})
    with pytest.raises(BadInput, match=r"`README.md` was edited on the hub") as told:
        bring()
    assert "--card FILE" in told.value.fix
    (mine / "own.md").write_text("---\nlicense: mit\n---\n\nours\n")
    bring(card=mine / "own.md")
    assert published_card(hub).endswith("ours\n")
    assert bring(card=mine / "own.md").published is not None


def test_files_that_an_earlier_model_had_and_this_one_has_not_go(hub: HubServer) -> None:
    bring()
    repository = hub.repositories[REPO]
    files = dict(repository.head.files)
    mark = json.loads(files["tulu.json"].data)
    mark["files"].append({"path": "model-00002-of-00002.safetensors", "size_bytes": 3, "sha256": "0" * 64})
    files["tulu.json"] = dataclasses.replace(files["tulu.json"], data=json.dumps(mark).encode())
    files["model-00002-of-00002.safetensors"] = dataclasses.replace(files["model.safetensors"], data=b"old")
    files["photo.png"] = dataclasses.replace(files["tulu.json"], data=b"a user's own")
    repository.commit("an earlier model", "", files)
    bring()
    assert "model-00002-of-00002.safetensors" not in repository.head.files
    assert repository.head.files["photo.png"].data == b"a user's own"


def test_open_and_private_are_the_publishers_choice(hub: HubServer) -> None:
    assert bring(gated=False, private=True).published is not None
    assert (hub.repositories[REPO].private, hub.repositories[REPO].gated) == (True, False)
    bring(gated=False)
    assert (hub.repositories[REPO].private, hub.repositories[REPO].gated) == (False, False)


def public_one_with_another_model(hub: HubServer) -> Repository:
    bring(gated=False)
    repository = hub.repositories[REPO]
    files = dict(repository.head.files)
    repository.commit("another", "", files | {"config.json": dataclasses.replace(files["config.json"], data=b"{}")})
    hub.seen.clear()
    return repository


@pytest.mark.parametrize(
    ("asked", "first"),
    [
        ({"private": True}, {"gated": "auto", "visibility": "private"}),
        ({"private": True, "gated": False}, {"visibility": "private"}),
        ({}, {"gated": "auto"}),
    ],
)
def test_a_public_repository_is_closed_before_anything_comes_into_it(
    hub: HubServer, asked: dict[str, Any], first: dict[str, Any]
) -> None:
    repository = public_one_with_another_model(hub)
    assert bring(**asked).published is not None
    written = [each for each in hub.seen if each.method in {"POST", "PUT"} and "validate-yaml" not in each.path]
    assert written[0].path.endswith("/settings")
    assert json.loads(written[0].body) == first
    assert sum("/commit/" in each.path for each in written) == 1
    assert (repository.private, bool(repository.gated)) == (asked.get("private", False), asked.get("gated", True))


def test_nothing_comes_into_a_public_repository_that_the_hub_does_not_close(hub: HubServer) -> None:
    repository = public_one_with_another_model(hub)
    commits = len(repository.commits)
    lost = Fault(method="PUT", path="/settings", status=200)
    with hub.broken_by(lost), pytest.raises(StageFailed, match="leaves the repository public and open"):
        bring(private=True)
    assert len(repository.commits) == commits


def test_a_hub_that_does_not_gate_is_an_error(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = Fault(method="PUT", path="/settings", status=200)
    with hub.broken_by(lost), pytest.raises(StageFailed, match="leaves the repository private and open"):
        bring()


def test_the_card_tells_the_licenses_of_single_rows(hub: HubServer) -> None:
    bring()
    text = published_card(hub)
    assert "| rows | 8 | " in text
    assert "| 2× | all | CC-BY-4.0, ODC-By-1.0 |" in text
    assert "single conversations may have others" not in text
    assert manifest().key in text
    assert manifest().digest in text
    assert ModelCard(text).data.license_name == "those-of-its-parts"


def test_the_training_left_a_card_too(hub: HubServer, mine: Path) -> None:
    found = prepare(Request(experiment="humps.py", store="store"))
    text = (found.store.path(manifest()) / "aux" / "README.md").read_text()
    assert manifest().key in text
    assert "| optimizer steps | 2 |" in text
    assert "| ranks | 1 |" in text
    assert "Whether humps can be learned" in text
    assert "| torch | " in text
    assert "## Loss" in text
    assert ModelCard(text).data.library_name == "transformers"
    assert "path/to/this/folder" in text


def test_a_license_that_forbids_or_asks_for_more_stops_it_until_it_is_seen_to(hub: HubServer, mine: Path) -> None:
    def base_under(license_: str, **changes: Any) -> Done:
        file = mine / f"under_{'_'.join(re.findall('[A-Za-z0-9]+', license_))}.py"
        file.write_text(_RELICENSED.format(license=license_))
        return bring(experiment=str(file), **changes)

    with pytest.raises(BadInput, match=r"1 license of its parts must be seen to: LLaMA \(non-commercial\)") as told:
        base_under("LLaMA (non-commercial)")
    assert "--accept-license 'LLaMA (non-commercial)'" in told.value.fix
    with pytest.raises(BadInput, match=r"state it with --license CC-BY-SA-4\.0"):
        base_under("CC-BY-SA-4.0")
    with pytest.raises(BadInput, match="forbids to pass on"):
        base_under("CC-BY-ND-4.0", license="CC-BY-ND-4.0")
    assert hub.seen == []
    base_under("CC-BY-SA-4.0", license="CC-BY-SA-4.0")
    assert ModelCard(published_card(hub)).data.license == "cc-by-sa-4.0"
    base_under("CC-BY-ND-4.0", accepted_licenses=("cc-by-nd-4.0",))


def test_only_one_finetuned_model_that_is_there_is_published(hub: HubServer) -> None:
    with pytest.raises(BadInput, match="is no finetuned model"):
        bring(artifact="tokenize")
    with pytest.raises(BadInput, match="`humps` names no repository of a hub"):
        bring(to="humps")
    with pytest.raises(TuluError, match=r"finetune\[tiny\+humps\] is not there") as told:
        bring(store="elsewhere")
    assert f"tulu run humps.py --only '{ARTIFACT}'" in told.value.fix
    assert hub.seen == []


def test_a_model_that_was_tampered_with_is_not_sent(hub: HubServer) -> None:
    session = prepare(Request(experiment="humps.py", store="store"))
    config = session.store.path(manifest()) / "config.json"
    before = config.read_bytes()
    config.write_bytes(before + b"\n")
    try:
        with pytest.raises(Tampered, match=r"config\.json has changed"):
            bring()
    finally:
        config.write_bytes(before)
    assert hub.seen == []


def test_a_dry_run_tells_what_would_go_and_sends_nothing(hub: HubServer, mine: Path) -> None:
    words = ("publish", ARTIFACT, "--to", REPO, "--experiment", "humps.py", "--store", "store", "--dry-run")
    done = tulu(*words, cwd=mine, HF_TOKEN="")
    assert done.returncode == 0, done.stderr
    size_bytes = next(entry.size_bytes for entry in manifest().outputs if entry.path == "model.safetensors")
    assert re.search(rf"^model\.safetensors +{size_bytes:,} bytes$", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("bytes; nothing was sent\n")
    assert "CC-BY-4.0: attribution" in done.stderr
    assert hub.seen == []


def test_the_command_prints_the_address(hub: HubServer, mine: Path) -> None:
    words = ("publish", ARTIFACT, "--to", REPO, "--experiment", "humps.py", "--store", "store")
    done = tulu(*words, cwd=mine)
    assert done.returncode == 0, done.stderr
    head = hub.repositories[REPO].head.sha
    assert done.stdout.splitlines()[-1] == f"{hub.url}/{REPO}/tree/{head}"
    assert TOKEN not in done.stdout + done.stderr
    again = tulu_json(*words, cwd=mine)
    assert (again["commit"], again["sent"], again["gated"]) == (head, [], True)


def test_the_commands_of_the_docs_do_what_the_docs_say(hub: HubServer, mine: Path) -> None:
    page = doc_pages.page("publish")
    lines = [line for block in re.findall(r"```\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) == 4
    said = []
    for line in lines:
        program, *words = shlex.split(line.replace("finetune[tiny+arithmetic]", ARTIFACT))
        assert program == "tulu"
        done = tulu(*words, "--experiment", "humps.py", "--store", "store", cwd=mine)
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    assert "nothing was sent" in said[0]
    repository = hub.repositories["camels/tiny-arithmetic"]
    assert said[1].splitlines()[-1].endswith(f"/tree/{repository.commits[1].sha}")
    assert json.loads(said[2])["sent"] == []
    assert ModelCard(repository.head.files["README.md"].data.decode()).data.license == "apache-2.0"
    assert (len(repository.commits), repository.private, repository.gated) == (3, False, "auto")


def test_a_published_model_is_a_base_model_for_whoever_has_access(hub: HubServer, mine: Path, tmp_path: Path) -> None:
    done = bring()
    assert done.published is not None
    settings = dataclasses.replace(read_settings("store"), sources_lock=tmp_path / "sources.lock")
    source = HubModel(repo=REPO, revision=done.published.commit)
    out = tmp_path / "model"
    out.mkdir()
    with pytest.raises(StageFailed, match="answered 401"):
        fetch(source, "model", out, dataclasses.replace(settings, hub_token=None), lambda done, total: None)
    fetch(source, "model", out, settings, lambda done, total: None)
    wanted = {entry.path: entry.sha256 for entry in manifest().outputs}
    assert {path.name for path in out.iterdir()} <= wanted.keys()
    example = re.search(r"```python\n(.*?)```", published_card(hub), re.DOTALL)
    assert example is not None
    code = example[1].replace(f'"{REPO}"', repr(str(out)))
    assert code != example[1]
    script = code.replace("max_new_tokens=256", "max_new_tokens=4") + "print(model.num_parameters())\n"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment())
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout.splitlines()[-1]) > 300_000
