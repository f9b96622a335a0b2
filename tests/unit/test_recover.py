"""A tuned model recovered from its weight diff: to the last bit, whatever the files, and only with its own base."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from base_models import write_llama
from safetensors.torch import load_file, save_file

from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.model import WeightDiff
from tulu_pipeline.weights.recover import recover
from tulu_pipeline.weights.tensors import TensorFiles

Tensors = dict[str, torch.Tensor]
_OF_SPEC = ("dtype", "tuned_dtype", "weights_sum")
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture(scope="module")
def base(llama_like: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaMA in float16, as its weights were published; one file of safetensors."""
    folder = tmp_path_factory.mktemp("models") / "base"
    write_llama(folder, llama_like)
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    return folder


def tuned_of(base: Mapping[str, torch.Tensor], dtype: torch.dtype = torch.bfloat16) -> Tensors:
    """What tuning may make of a model: every weight moved a little, kept in `dtype`."""
    draw = torch.Generator().manual_seed(7)
    return {
        name: (weights.float() * (1 + 0.2 * (torch.rand(weights.shape, generator=draw) - 0.5))).to(dtype)
        for name, weights in sorted(base.items())
    }


def weights_of(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def minus(tuned: Tensors, base: Tensors) -> Tensors:
    """In float32, as the original's script subtracts."""
    return {name: weights.float() - base[name].float() for name, weights in tuned.items()}


def write_diff(folder: Path, base: Path, diff: Tensors, *, tokenizer: bool = True, **config: Any) -> Path:
    folder.mkdir(parents=True)
    described = json.loads((base / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(described))
    save_file(diff, folder / "model.safetensors")
    for name in ("tokenizer.json", "tokenizer_config.json") if tokenizer else ():
        shutil.copyfile(base / name, folder / name)
    return folder


def recovered(base: Path, diff: Path, out: Path, **options: Any) -> dict[str, Any]:
    told: list[tuple[int, int]] = []
    spec = WeightDiff(**{name: options.pop(name) for name in _OF_SPEC if name in options})
    wanted: dict[str, Any] = {"tokenizer": None, "template": "tulu"} | options
    metrics = recover(
        base=base, diff=diff, out=out, spec=spec, report=lambda done, total: told.append((done, total)), **wanted
    )
    assert told == sorted(told)
    assert told[-1] == (sum(each.numel() * each.itemsize for each in read(out).values()),) * 2
    return metrics


def read(folder: Path) -> Tensors:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def same(ours: Tensors, theirs: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name].float()) for name in ours)


def as_bin(folder: Path) -> None:
    (path,) = folder.glob("*.safetensors")
    torch.save(load_file(path), folder / "pytorch_model.bin")
    path.unlink()


def as_old_bin(folder: Path) -> None:
    """As torch wrote before 1.6."""
    (path,) = folder.glob("*.safetensors")
    torch.save(load_file(path), folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    path.unlink()


def in_shards(folder: Path, *, files: int, ending: str = "safetensors") -> None:
    """Tensors by turns in so many files, so that neighbours in one model are none in the other."""
    weights = weights_of(folder)
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = [f"{stem}-{number:05}-of-{files:05}.{ending}" for number in range(1, files + 1)]
    shards = dict(zip(sorted(weights), names * len(weights), strict=False))
    for file in names:
        part = {name: weights[name] for name in weights if shards[name] == file}
        (save_file if ending == "safetensors" else torch.save)(part, folder / file)
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    (folder / "model.safetensors").unlink()


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "safetensors": lambda folder: None,
    "bin": as_bin,
    "old bin": as_old_bin,
    "3 safetensors": lambda folder: in_shards(folder, files=3),
    "5 bins": lambda folder: in_shards(folder, files=5, ending="bin"),
}


@pytest.mark.parametrize(("of_base", "of_diff"), [*zip(LAYOUTS, LAYOUTS, strict=True), ("3 safetensors", "5 bins")])
def test_base_and_difference_give_the_tuned_weights_to_the_last_bit(
    base: Path, tmp_path: Path, of_base: str, of_diff: str
) -> None:
    tuned = tuned_of(weights_of(base))
    diff = write_diff(tmp_path / "diff", base, minus(tuned, weights_of(base)))
    here = shutil.copytree(base, tmp_path / "base")
    LAYOUTS[of_base](here)
    LAYOUTS[of_diff](diff)
    metrics = recovered(here, diff, tmp_path / "out")
    assert same(read(tmp_path / "out"), tuned)
    assert metrics["parameters"] == sum(weights.numel() for weights in tuned.values())
    assert metrics["share_in_bfloat16"] == 1.0 > metrics["share_in_float16"]
    assert metrics["grown_rows"] == 0
    assert metrics["weights_sum"] == pytest.approx(sum(float(each.double().sum()) for each in tuned.values()), abs=1e-4)


def test_weights_of_full_precision_are_the_sums_in_float32(base: Path, tmp_path: Path) -> None:
    ours = weights_of(base)
    draw = torch.Generator().manual_seed(3)
    diff = {name: torch.randn(weights.shape, generator=draw) for name, weights in sorted(ours.items())}
    recovered(base, write_diff(tmp_path / "diff", base, diff), tmp_path / "out")
    for name, weights in read(tmp_path / "out").items():
        wanted = ours[name].numpy().astype(np.float32) + diff[name].numpy()
        assert np.array_equal(weights.numpy(), wanted)


def grown(base: Path, folder: Path) -> tuple[Path, Tensors]:
    """The diff of a model with a pad token more, made with the mean row; and the tuned weights."""
    ours = {name: weights.float() for name, weights in weights_of(base).items()}
    for name in (EMBEDDING, OUTPUT):
        mean = ours[name].numpy().astype(np.float64).sum(axis=0) / len(ours[name])
        ours[name] = torch.cat([ours[name], torch.from_numpy(mean.astype(np.float32))[None]])
    tuned = tuned_of(ours, torch.float32)
    return write_diff(folder, base, minus(tuned, ours), vocab_size=len(ours[OUTPUT])), tuned


def test_a_row_that_the_diff_has_more_is_added_to_the_mean_row(base: Path, tmp_path: Path) -> None:
    diff, tuned = grown(base, tmp_path / "diff")
    metrics = recovered(base, diff, tmp_path / "out")
    assert metrics["grown_rows"] == 1
    found = read(tmp_path / "out")
    for name in (EMBEDDING, OUTPUT):
        # The mean is a rounding away from numpy's, whose order of additions is its own.
        torch.testing.assert_close(found[name][-1], tuned[name][-1], rtol=0, atol=1e-8)
        assert torch.equal(found[name][:-1], tuned[name][:-1])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == len(tuned[OUTPUT])


def test_transformers_opens_what_was_recovered_as_the_tuned_model(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    diff, _ = grown(base, tmp_path / "diff")
    recovered(base, diff, tmp_path / "out", shard_bytes=60_000)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert model.dtype == torch.float32
    assert same(dict(model.state_dict()), read(tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = [{"role": "user", "content": "1 and 2"}]
    asked = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert asked == "<s><|user|>\n1 and 2\n<|assistant|>\n"


def test_the_same_folders_give_the_same_bytes(base: Path, tmp_path: Path) -> None:
    diff, _ = grown(base, tmp_path / "diff")
    digests = []
    for number, threads in enumerate((1, 2)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        recovered(base, diff, tmp_path / str(number), shard_bytes=100_000)
        torch.set_num_threads(before)
        files = sorted((tmp_path / str(number)).iterdir())
        digests.append([(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files])
    assert digests[0] == digests[1]
    assert len(digests[0]) > 8, "more than one shard"


@pytest.mark.parametrize("shard_bytes", [1, 60_000, 1 << 30])
def test_files_are_no_larger_than_asked_unless_a_tensor_is(base: Path, tmp_path: Path, shard_bytes: int) -> None:
    diff = write_diff(tmp_path / "diff", base, minus(tuned_of(weights_of(base)), weights_of(base)))
    recovered(base, diff, tmp_path / "out", shard_bytes=shard_bytes)
    files = {path.name: load_file(path) for path in (tmp_path / "out").glob("*.safetensors")}
    for weights in files.values():
        assert len(weights) == 1 or sum(each.numel() * 4 for each in weights.values()) <= shard_bytes
    index = tmp_path / "out" / "model.safetensors.index.json"
    assert index.exists() == (len(files) > 1)
    if index.exists():
        assert json.loads(index.read_text())["weight_map"] == {
            name: file for file, weights in files.items() for name in weights
        }
    assert TensorFiles(tmp_path / "out").shapes == TensorFiles(diff).shapes


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_rounded_once_where_another_type_is_asked_for(base: Path, tmp_path: Path, dtype: Any) -> None:
    tuned = tuned_of(weights_of(base))
    diff = write_diff(tmp_path / "diff", base, minus(tuned, weights_of(base)))
    recovered(base, diff, tmp_path / "out", dtype=dtype)
    for name, weights in read(tmp_path / "out").items():
        assert torch.equal(weights, tuned[name].float().to(getattr(torch, dtype)))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype


def test_buffers_that_old_files_hold_are_left_out(base: Path, tmp_path: Path) -> None:
    tuned = tuned_of(weights_of(base))
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(16)}
    diff = write_diff(tmp_path / "diff", base, minus(tuned, weights_of(base)) | buffer)
    recovered(base, diff, tmp_path / "out")
    assert same(read(tmp_path / "out"), tuned)


def test_a_tied_output_layer_is_not_written_twice(base: Path, tmp_path: Path) -> None:
    tuned = tuned_of(weights_of(base))
    tied = {name: weights for name, weights in weights_of(base).items() if name != OUTPUT}
    here = shutil.copytree(base, tmp_path / "base")
    save_file(tied, here / "model.safetensors")
    (here / "config.json").write_text(
        json.dumps(json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": True})
    )
    diff = write_diff(tmp_path / "diff", here, minus(tuned, weights_of(base)))  # old files held it all the same
    recovered(here, diff, tmp_path / "out")
    assert read(tmp_path / "out").keys() == tied.keys()


def test_no_model_lies_whole_in_memory(base: Path, tmp_path: Path) -> None:
    layers, one = 24, torch.full((1024, 2048), 0.5)  # 8 MiB each
    here = shutil.copytree(base, tmp_path / "base")
    save_file({f"layer.{number}": one.clone() for number in range(layers)}, here / "model.safetensors")
    diff = write_diff(tmp_path / "diff", base, {f"layer.{number}": one * number for number in range(layers)})
    as_bin(here)
    before, held = own_memory_bytes(), list[int]()
    recover(
        base=here,
        diff=diff,
        tokenizer=None,
        out=tmp_path / "out",
        spec=WeightDiff(),
        template="tulu",
        report=lambda done, total: held.append(own_memory_bytes() - before),
        shard_bytes=2 * one.nbytes,
    )
    assert max(held) < layers // 2 * one.nbytes
    assert torch.equal(read(tmp_path / "out")["layer.7"], one * 8)


def own_memory_bytes() -> int:
    """What this process holds, without files that are mapped."""
    (line,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line) * 1024


# What is no diff on this base, or no whole one.


def refused(base: Path, diff: Path, out: Path, **options: Any) -> BadInput:
    with pytest.raises(BadInput) as caught:
        recovered(base, diff, out, **options)
    assert caught.value.fix
    return caught.value


@pytest.fixture
def diff(base: Path, tmp_path: Path) -> Path:
    return write_diff(tmp_path / "diff", base, minus(tuned_of(weights_of(base)), weights_of(base)))


@pytest.fixture
def other(base: Path, tmp_path: Path) -> Path:
    """A base of the same shapes with other weights, as LLaMA-2 is to LLaMA."""
    folder = shutil.copytree(base, tmp_path / "other")
    draw = torch.Generator().manual_seed(11)
    weights = {
        name: (each.float() + 0.05 * torch.randn(each.shape, generator=draw)).half()
        for name, each in sorted(weights_of(base).items())
    }
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_diff_made_with_other_weights_is_told_by_the_type_of_the_tuned_ones(
    base: Path, other: Path, diff: Path, tmp_path: Path
) -> None:
    recovered(base, diff, tmp_path / "right", tuned_dtype="bfloat16")
    assert recovered(other, diff, tmp_path / "wrong")["share_in_bfloat16"] < 0.5
    error = refused(other, diff, tmp_path / "out", tuned_dtype="bfloat16")
    assert (
        "are bfloat16, which `tuned_dtype` says they were kept in: the diff was made with other weights" in error.what
    )
    assert error.fix.startswith("name the base model")
    assert "leave `tuned_dtype` out" in error.fix


def test_where_the_tuned_weights_were_kept_in_another_type_the_error_says_which_to_write(
    base: Path, tmp_path: Path
) -> None:
    tuned = tuned_of(weights_of(base), torch.float16)
    diff = write_diff(tmp_path / "diff", base, minus(tuned, weights_of(base)))
    recovered(base, diff, tmp_path / "right", tuned_dtype="float16")
    error = refused(base, diff, tmp_path / "out", tuned_dtype="bfloat16")
    assert "are bfloat16, which `tuned_dtype` says they were kept in: 100.0% are float16" in error.what
    assert error.fix == 'write tuned_dtype="float16"'


def test_a_diff_made_with_other_weights_is_told_by_their_sum(
    base: Path, other: Path, diff: Path, tmp_path: Path
) -> None:
    total = recovered(base, diff, tmp_path / "right")["weights_sum"]
    recovered(base, diff, tmp_path / "again", weights_sum=total + 0.005)
    assert "by their publisher to" in refused(other, diff, tmp_path / "out", weights_sum=total).what


def test_another_architecture_is_told_by_its_configuration(base: Path, diff: Path, tmp_path: Path) -> None:
    config = json.loads((diff / "config.json").read_text())
    (diff / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 32}))
    error = refused(base, diff, tmp_path / "out")
    assert error.what == "num_hidden_layers is 32 in the diff and 2 in the base"


def changed(diff: Path, change: Callable[[Tensors], object]) -> None:
    weights = weights_of(diff)
    change(weights)
    save_file(weights, diff / "model.safetensors")


NORM = "model.norm.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda weights: weights.update({NORM: torch.ones(32)}), "`model.norm.weight` is 32, and 64 in the base"),
        (lambda weights: weights.pop(NORM), "the diff has no tensor `model.norm.weight`"),
        (lambda weights: weights.update(new=torch.ones(1)), "the base has no tensor `new`"),
        (lambda weights: weights.update({NORM: torch.full((64,), torch.nan)}), "`model.norm.weight` adds up to nan"),
        (lambda weights: weights.update({NORM: torch.ones(64, dtype=torch.int8)}), "holds int8, as quantized models"),
    ],
    ids=["shape", "missing", "more", "nan", "int8"],
)
def test_tensors_that_are_not_those_of_the_base_are_named(
    base: Path, diff: Path, tmp_path: Path, change: Callable[[Tensors], object], told: str
) -> None:
    changed(diff, change)
    assert told in refused(base, diff, tmp_path / "out").what


def test_more_than_one_new_row_is_refused(base: Path, tmp_path: Path) -> None:
    ours = weights_of(base)
    diff = {name: torch.zeros(weights.shape) for name, weights in ours.items()}
    for name in (EMBEDDING, OUTPUT):
        diff[name] = torch.zeros(len(ours[name]) + 64, 64)
    folder = write_diff(tmp_path / "diff", base, diff, vocab_size=len(diff[OUTPUT]))
    error = refused(base, folder, tmp_path / "out")
    assert "known of a single one, the pad token's" in error.what


def test_files_that_are_not_there_or_broken_are_named(base: Path, diff: Path, tmp_path: Path) -> None:
    whole = (diff / "model.safetensors").read_bytes()
    (diff / "model.safetensors").write_bytes(whole[:-100])
    error = refused(base, diff, tmp_path / "out")
    assert "the weights cannot be read" in error.what
    assert error.where == str(diff / "model.safetensors")
    (diff / "model.safetensors").write_bytes(whole)
    in_shards(diff, files=3)
    (diff / "model-00002-of-00003.safetensors").unlink()
    assert "only the shards [1, 3]" in refused(base, diff, tmp_path / "out").what
    (diff / "model.safetensors.index.json").unlink()
    assert "has no weights" in refused(base, diff, tmp_path / "out").what


def test_an_index_that_says_another_file_is_refused(base: Path, diff: Path, tmp_path: Path) -> None:
    in_shards(diff, files=2)
    index = diff / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("00002-of", "00003-of"))
    assert "the index names `model-00003-of-00002.safetensors`" in refused(base, diff, tmp_path / "out").what
    index.write_text(index.read_text().replace("00003-of", "00001-of"))
    assert "is in `model-00001-of-00002.safetensors`, and it is not" in refused(base, diff, tmp_path / "out").what


def test_code_in_a_bin_file_does_not_run(base: Path, diff: Path, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    torch.save({"model.norm.weight": Touch()}, diff / "pytorch_model.bin")
    (diff / "model.safetensors").unlink()
    assert "the weights cannot be read" in refused(base, diff, tmp_path / "out").what
    assert not (tmp_path / "ran").exists()


def test_the_tokenizer_is_the_one_that_was_given_or_the_diffs_or_the_bases(
    base: Path, diff: Path, tmp_path: Path
) -> None:
    assert recovered(base, diff, tmp_path / "1")["tokenizer"] == "diff"
    assert recovered(base, diff, tmp_path / "2", tokenizer=base)["tokenizer"] == "given"
    (diff / "tokenizer.json").unlink()
    assert recovered(base, diff, tmp_path / "3")["tokenizer"] == "base"
    assert (tmp_path / "3" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_tokenizer_of_another_vocabulary_is_refused(base: Path, diff: Path, tmp_path: Path) -> None:
    file = diff / "tokenizer.json"
    file.write_text(file.read_text().replace('"<0x0A>"', '"<0x0B>x"'))
    vocabulary = json.loads((base / "tokenizer.json").read_text())["model"]["vocab"]
    described = json.loads(file.read_text())
    described["model"]["vocab"] = vocabulary | {"<0x41>": vocabulary["<0x42>"], "<0x42>": vocabulary["<0x41>"]}
    file.write_text(json.dumps(described))
    assert "in the tokenizer of diff, and" in refused(base, diff, tmp_path / "out").what


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(base: Path, diff: Path, tmp_path: Path) -> None:
    file = diff / "tokenizer.json"
    described = json.loads(file.read_text())
    described["model"]["vocab"]["more"] = len(described["model"]["vocab"])
    file.write_text(json.dumps(described))
    assert "tokens, and the model" in refused(base, diff, tmp_path / "out").what


def test_a_model_taught_in_its_own_template_must_have_one(base: Path, diff: Path, tmp_path: Path) -> None:
    assert "chat template" in refused(base, diff, tmp_path / "out", template="own").what
    own = "{{ bos_token }}{% for each in messages %}{{ each.role + ':' + each.content + eos_token }}{% endfor %}"
    (diff / "chat_template.jinja").write_text(own + "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}")
    recovered(base, diff, tmp_path / "out", template="own")
    assert (tmp_path / "out" / "chat_template.jinja").read_text().startswith(own)
