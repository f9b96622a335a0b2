import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tulu_pipeline.models.tiny import FAMILY
from tulu_pipeline.specs.model import PretrainedModel
from tulu_pipeline.training.estimates.known import known_model

# Every machine must make these bytes; what changes them is a new version of the source.
SHA256 = {
    "tiny": {
        "model.safetensors": "9fd73b3324b55f476e700d113d860fa976f6e423935d517ecb228a40410702d9",
        "tokenizer.json": "dd2a734f72a598fa54c8152fbf649290522164a3d1adb4bf6edae824dee7648d",
    },
    "tiny-10m": {
        "model.safetensors": "faad7b7d886f5c1a74cad9c9888753ab3ce73ed03e1acd78a0a34bf52bcf6295",
        "tokenizer.json": "d2ff77cefc6218b635cf7ab232c3291a9ffdbcc8b487077d1a37e402b9837914",
    },
    "tiny-6k": {
        "model.safetensors": "2fedf6a8b2c132d4fdc29b558c1a6f63443c3386fe5bc50c4c8e2a9ae2040ec2",
        "tokenizer.json": "901d23d431dcf461a98aa19028155cf8d626f059c03f6f012dbb274fe1c8842a",
    },
}
WRITE = "import sys, json; from pathlib import Path; from tulu_pipeline.models.tiny import write_model;"
WRITE += "write_model(Path(sys.argv[1]), **json.loads(sys.argv[2]))"


def write(model: PretrainedModel, folder: Path, threads: str) -> Path:
    """In a process of its own, with as many threads for the tokenizer's training."""
    arguments = json.dumps(dict(model.sources["model"].args))
    environment = {**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    subprocess.run([sys.executable, "-c", WRITE, str(folder), arguments], env=environment, check=True)
    return folder


@pytest.fixture(scope="module", params=FAMILY.models, ids=lambda model: model.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[PretrainedModel, Path]:
    return request.param, write(request.param, tmp_path_factory.mktemp(request.param.name), "2")


@pytest.fixture(scope="module")
def tokenizer(made: tuple[PretrainedModel, Path]) -> Tokenizer:
    return Tokenizer.from_file(str(made[1] / "tokenizer.json"))


def test_the_bytes_are_the_same_everywhere(made: tuple[PretrainedModel, Path]) -> None:
    model, folder = made
    found = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SHA256[model.name]}
    assert found == SHA256[model.name]


def test_one_thread_makes_the_same_bytes_as_two(made: tuple[PretrainedModel, Path], tmp_path: Path) -> None:
    model, folder = made
    again = write(model, tmp_path / "again", "1")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


def test_special_tokens_and_rows_are_what_the_value_says(made: tuple[PretrainedModel, Path]) -> None:
    model, folder = made
    known = known_model(folder, model.name)
    assert known.special_tokens == model.tokenizer.special_tokens
    assert model.tuned_embedding_rows == model.config["vocab_size"] >= known.tuned_entries


def test_the_family_states_the_number_of_weights(made: tuple[PretrainedModel, Path]) -> None:
    from safetensors.numpy import load_file

    model, folder = made
    weights = load_file(folder / "model.safetensors")
    assert sum(tensor.size for tensor in weights.values()) == model.parameters
    deviation = json.loads((folder / "config.json").read_text())["initializer_range"]
    assert weights["model.embed_tokens.weight"].std() == pytest.approx(deviation, rel=0.02)
    assert abs(weights["model.embed_tokens.weight"].mean()) < deviation / 50


def test_a_text_gets_one_bos_and_comes_back(tokenizer: Tokenizer) -> None:
    text = "<|user|>\nÜber 猫: 12 + 8?\n<|assistant|>\nAnswer: 20.</s>\n"
    ids = tokenizer.encode(text).ids
    assert ids.count(tokenizer.token_to_id("<s>")) == 1 == ids.index(tokenizer.token_to_id("<s>")) + 1
    assert tokenizer.token_to_id("</s>") in ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == f"<s>{text}"


def test_letters_and_small_numbers_are_one_token_each(tokenizer: Tokenizer) -> None:
    for text in [f" {number}" for number in range(51)] + [f" {letter}" for letter in "ABCD"]:
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == 1, text
