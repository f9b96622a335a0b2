"""The page about base models of one's own does what it says: an architecture that this project never names is tuned.

A hub on this machine serves a small Qwen3 under the page's address; the page's file and commands are run as they stand,
by two ranks under ZeRO-3.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import doc_pages
import pytest
from base_models import write_qwen3
from fakes.file_server import FileServer
from fakes.processes import tulu, tulu_json

from tulu_pipeline.specs.model import PretrainedModel
from tulu_pipeline.tokens.shards import open_tokens

PAGE = doc_pages.page("own_models")
PROFILE = "ranks = 2\nzero_stage = 3\nrow_tokens = 512\n"
END = 0
# More conversations than a step holds, so that the second step sees what the first one taught.
WHO = [f"{name} {number}" for number in range(65) for name in ("Ida", "Max", "Ann")]

pytestmark = pytest.mark.timeout(240)


@dataclass(frozen=True)
class Page:
    """What came of the page's commands."""

    folder: Path
    shown: str
    estimated: str
    ran: dict[str, Any]
    checkpoint: Path


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    write_qwen3(folder / "my-qwen3")
    (folder / "mine.py").write_text(doc_pages.blocks(PAGE, "python")[0])
    (folder / "zero3.toml").write_text(PROFILE)
    letters = [
        {"prompt": f"Thank {who} for the plums.", "completion": f"{who}, they were gone by noon."} for who in WHO
    ]
    (folder / "letters.jsonl").write_text("".join(json.dumps(letter) + "\n" for letter in letters))
    show, estimate, run, path = doc_pages.commands(PAGE)
    with FileServer() as server:
        serve(server, folder / "my-qwen3")
        env = {"HF_ENDPOINT": server.url}
        shown, estimated = tulu(*show, cwd=folder, **env), tulu(*estimate, cwd=folder, **env)
        assert (shown.returncode, estimated.returncode) == (0, 0), shown.stderr + estimated.stderr
        ran = tulu_json(*run, "--profile", "zero3.toml", cwd=folder, **env)
        found = tulu(*path, cwd=folder, **env).stdout.strip()
        yield Page(folder, shown.stdout, estimated.stdout, ran, Path(found))


def serve(server: FileServer, folder: Path) -> None:
    """The repository of the page's `HubModel`."""
    ((repo, revision),) = re.findall(r'REPO, COMMIT = "(.*?)", "([0-9a-f]{40})"', doc_pages.blocks(PAGE, "python")[0])
    files = {path.name: path.read_bytes() for path in folder.iterdir()} | {"modeling_mine.py": b"raise SystemExit"}
    siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
    server.put(f"/api/models/{repo}/revision/{revision}?blobs=true", json.dumps({"siblings": siblings}).encode())
    for name, content in files.items():
        server.put(f"/{repo}/resolve/{revision}/{name}", content)


def test_a_model_of_a_users_file_is_shown_and_estimated_before_it_is_there(page: Page) -> None:
    assert "596,049,920" in page.shown
    assert "Qwen3ForCausalLM" in page.shown
    assert "finetune[qwen3-0.6b+letters]" in page.estimated
    assert "qwen3-0.6b: counted as a Llama of that size, since there is no config yet" in page.estimated


def test_it_is_tuned_by_its_value_alone(page: Page) -> None:
    assert page.ran["failed"] == []
    assert {name.partition("[")[0] for name in page.ran["executed"]} == {
        "download", "normalize", "tokenize", "finetune"
    }  # fmt: skip
    record = json.loads((page.checkpoint / "aux" / "training.json").read_text())
    assert (record["ranks"], record["zero_stage"], record["layout"]) == (2, 3, "step")


def test_its_conversations_begin_and_end_as_its_tokenizer_says(page: Page) -> None:
    done = tulu("path", "tokenize[qwen3+letters]", "--experiment", "mine.py", cwd=page.folder)
    rows = open_tokens(Path(done.stdout.strip()))
    assert len(rows) == len(WHO)
    ids, mask = (part.tolist() for part in rows[0])
    assert ids.index(END) == len(ids) - 1, "nothing stands before the text, and the end mark ends it"
    assert mask[-1] == 1


def test_the_checkpoint_opens_as_its_architecture_with_its_own_pad_and_rows_and_has_learned(page: Page) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    before, after = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for folder in (page.folder / "my-qwen3", page.checkpoint)
    )
    assert type(after).__name__ == "Qwen3ForCausalLM"
    assert after.get_input_embeddings().weight.shape == before.get_input_embeddings().weight.shape
    tokenizer = AutoTokenizer.from_pretrained(page.checkpoint)
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (END, END)
    chat = [{"role": "user", "content": WHO[0]}, {"role": "assistant", "content": "x"}]
    ids = tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.no_grad():
        losses = [float(model(ids, labels=ids).loss) for model in (before, after)]
    assert losses[1] < losses[0]
    assert not list(page.checkpoint.glob("*.py")), "code of its makers stays where it is"


def test_the_folder_on_the_page_is_the_model_and_every_field_is_told(page: Page) -> None:
    scope: dict[str, Any] = {"__file__": str(page.folder / "mine.py")}
    for code in doc_pages.blocks(PAGE, "python"):
        exec(code, scope)
    assert set(scope["SOURCES"]) > set(scope["TOKENIZER"].sources) == {"tokenizer.json", "tokenizer_config.json"}
    fields = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    assert fields == set(PretrainedModel.__dataclass_fields__)
