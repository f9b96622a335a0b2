"""A model whose files lack tensors is not trained: transformers would draw them at random."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from base_models import write_llama, write_opt, write_pythia, write_qwen3

torch = pytest.importorskip("torch")
from spawned_ranks import make_job  # noqa: E402

from tulu_pipeline.errors import BadInput  # noqa: E402
from tulu_pipeline.specs.recipe import Lora  # noqa: E402
from tulu_pipeline.training.model.loading import load_model  # noqa: E402

NF4 = Lora(rank=4, dropout=0.0, quantization="nf4")
# Of each architecture, in the order of their names: what nothing else takes the place of.
NEEDED = {
    "llama": ("lm_head.weight", "model.layers.1.mlp.up_proj.weight"),
    "opt": ("model.decoder.layers.0.fc1.bias", "model.decoder.layers.1.self_attn.q_proj.weight"),
    "pythia": ("gpt_neox.layers.0.attention.dense.bias", "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"),
    "qwen3": ("model.layers.0.self_attn.q_norm.weight", "model.norm.weight"),
}


@pytest.fixture(scope="module")
def bases(llama_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bases")
    write_llama(root / "llama", llama_like)
    write_opt(root / "opt")
    write_pythia(root / "pythia")
    write_qwen3(root / "qwen3")
    return root


def without(folder: Path, base: Path, *names: str) -> Path:
    """A copy of `base` whose files lack these tensors."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(base, folder)
    if (file := folder / "pytorch_model.bin").exists():
        read: Callable[[Path], dict[str, Any]] = torch.load
        write: Callable[[dict[str, Any], Path], None] = torch.save
    else:
        file = folder / "model.safetensors"
        read, write = load_file, lambda state, path: save_file(state, path, metadata={"format": "pt"})
    state = read(file)
    for name in names:
        del state[name]
    write(state, file)
    return folder


def load(folder: Path, model: Path, **changes: Any) -> Any:
    return load_model(make_job(folder, model, folder / "unused", **changes)).model


@pytest.mark.parametrize("lora", [None, NF4], ids=["full", "nf4"])
@pytest.mark.parametrize("base", NEEDED)
def test_a_base_model_that_lacks_tensors_is_refused_and_they_are_named(
    bases: Path, tmp_path: Path, base: str, lora: Lora | None
) -> None:
    lacking = without(tmp_path / "lacking", bases / base, *NEEDED[base])
    with pytest.raises(BadInput) as error:
        load(tmp_path, lacking, lora=lora)
    assert error.value.what == f"no file has `{NEEDED[base][0]}` and 1 more"
    assert error.value.where == str(lacking)
    assert "the whole model" in error.value.fix


@pytest.mark.parametrize("base", NEEDED)
def test_a_base_model_that_has_them_all_is_loaded_with_or_without_a_pad_token_of_its_own(
    bases: Path, tmp_path: Path, base: str
) -> None:
    load(tmp_path, bases / base)


def test_a_tied_head_needs_no_file(bases: Path, tmp_path: Path) -> None:
    tied = without(tmp_path / "tied", bases / "opt", "lm_head.weight")
    model = load(tmp_path, tied)
    assert torch.equal(model.get_output_embeddings().weight, model.get_input_embeddings().weight)


def test_a_head_that_is_not_tied_needs_one(bases: Path, tmp_path: Path) -> None:
    untied = without(tmp_path / "untied", bases / "opt", "lm_head.weight")
    described = json.loads((untied / "config.json").read_text())
    (untied / "config.json").write_text(json.dumps(described | {"tie_word_embeddings": False}))
    with pytest.raises(BadInput, match=r"no file has `lm_head\.weight`\n"):
        load(tmp_path, untied)
