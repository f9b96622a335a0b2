"""Real DeepSpeed, two gloo ranks, through its launcher, with no compiler in reach."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.processes import left_behind
from spawned_ranks import make_job
from tokenizers import Tokenizer
from training_runs import (
    PROFILE,
    RECIPE,
    STEPS,
    losses_in_torch,
    states_of,
    steps_of,
    train,
    without_compiler,
    write_arithmetic,
    write_tiny_model,
)

from tulu_pipeline.chat.template import render_prompt
from tulu_pipeline.errors import StageFailed
from tulu_pipeline.models import tiny
from tulu_pipeline.tokens.encode import Encoded
from tulu_pipeline.tokens.shards import TokenWriter, open_tokens

pytestmark = pytest.mark.timeout(300)

CONVERSATIONS = 37  # the last step of an epoch is left one of them, so that a rank has nothing to do


@pytest.fixture(scope="module", autouse=True)
def machine_without_compiler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with without_compiler(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arithmetic(tmp_path_factory.mktemp("tokens"), model, CONVERSATIONS)


@pytest.fixture(scope="module", params=[2, 3], ids=["zero2", "zero3"])
def trained(
    request: pytest.FixtureRequest, model: Path, tokens: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """(folder, metrics)."""
    folder = tmp_path_factory.mktemp("training")
    return folder, train(folder, model, tokens, replace(PROFILE, zero_stage=request.param))


Trained = tuple[Path, dict[str, Any]]


def test_the_losses_are_those_of_plain_torch(trained: Trained, model: Path, tokens: Path) -> None:
    losses, _ = plain_training(model, tokens)
    assert [step.loss for step in steps_of(trained[0])] == pytest.approx(losses, rel=2e-3)
    assert losses[-1] < losses[0] / 2, "nothing was learned, so nothing was compared"


def test_a_step_with_fewer_conversations_than_ranks_trains_what_plain_torch_does(
    trained: Trained, model: Path, tokens: Path
) -> None:
    losses, _ = plain_training(model, tokens)
    steps = steps_of(trained[0])
    alone = [step.step for step in steps if step.conversations == 1]
    assert alone == list(range(7, STEPS + 1, 7)), "one step of each epoch"
    assert trained[1]["ranks"] == 2
    for step in alone:
        assert steps[step - 1].loss == pytest.approx(losses[step - 1], rel=2e-3)
        assert steps[step - 1].idle_share == 0.5


def test_the_padded_layout_trains_the_same(model: Path, tokens: Path, tmp_path: Path) -> None:
    losses, _ = plain_training(model, tokens)
    metrics = train(tmp_path, model, tokens, replace(PROFILE, layout="padded"))
    assert [step.loss for step in steps_of(tmp_path)] == pytest.approx(losses, rel=2e-3)
    assert metrics["padding_share"] > 0


def test_the_checkpoint_is_what_plain_torch_trains(trained: Trained, model: Path, tokens: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out = trained[0] / "out"
    _, wanted = plain_training(model, tokens)
    found = AutoModelForCausalLM.from_pretrained(out).state_dict()
    assert found.keys() == wanted.keys()
    start = AutoModelForCausalLM.from_pretrained(model).state_dict()
    for name in wanted:
        moved = float((wanted[name] - start[name]).norm())
        assert float((found[name] - wanted[name]).norm()) < 0.02 * moved, name
    assert (
        AutoTokenizer.from_pretrained(out)("12 apples").input_ids[0] == AutoTokenizer.from_pretrained(out).bos_token_id
    )
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == 2
    chat = [{"role": "user", "content": "12 apples"}]
    asked = AutoTokenizer.from_pretrained(out).apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert asked == "<s>" + render_prompt("12 apples", tuned=True)


def test_a_model_taught_in_its_own_template_keeps_it_and_stops_where_its_turns_end(
    model: Path, tokens: Path, tmp_path: Path
) -> None:
    base = tmp_path / "model"
    shutil.copytree(model, base)
    template = "{% for message in messages %}{{ message.role + ': ' + message.content + '<unk>' }}{% endfor %}"
    (base / "chat_template.jinja").write_text(template)
    train(tmp_path, base, tokens, replace(PROFILE, ranks=1), max_steps=1, template="own")
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == template
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["eos_token_id"] == [0, 2]


@pytest.mark.parametrize("damage", ["another value", "a tensor less", "another tokenizer"])
def test_an_export_that_is_not_the_trained_model_is_refused(
    trained: Trained, model: Path, tokens: Path, tmp_path: Path, damage: str
) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    from tulu_pipeline.training.saving.export import _check

    shutil.copytree(trained[0] / "out", tmp_path / "out")
    job = make_job(tmp_path, model, tokens)
    state, tokenizer = load_file(job.out / "model.safetensors"), AutoTokenizer.from_pretrained(model)
    _check(job, state, tokenizer, None)
    name = "model.layers.0.mlp.down_proj.weight"
    written = {key: tensor.clone() for key, tensor in state.items()}
    if damage == "another value":
        written[name][0, 0] += 1e-6
    elif damage == "a tensor less":
        del written[name]
    else:
        described = json.loads((job.out / "tokenizer.json").read_text())
        described["normalizer"] = {"type": "Lowercase"}
        (job.out / "tokenizer.json").write_text(json.dumps(described))
    save_file(written, job.out / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageFailed, match="the exported checkpoint is not the trained model") as caught:
        _check(job, state, tokenizer, None)
    assert ("tokenizer" if damage == "another tokenizer" else name) in caught.value.what


def test_without_a_compiler_it_says_what_it_does_instead(trained: Trained) -> None:
    _, metrics = trained
    assert any("nothing is compiled" in note for note in metrics["notes"])
    assert not list(Path(os.environ["TORCH_EXTENSIONS_DIR"]).iterdir())


def test_the_record_lies_beside_the_checkpoint(trained: Trained) -> None:
    folder, metrics = trained
    aux = folder / "out" / "aux"
    assert len((aux / "steps.jsonl").read_text().splitlines()) == STEPS == metrics["steps"]
    assert list((aux / "tensorboard").glob("events.out.tfevents.*"))
    assert "launch.py" in (aux / "train.log").read_text()
    assert metrics["loss_last"] < metrics["loss_first"]
    assert metrics["padding_share"] == 0
    assert 0 < metrics["seconds_loading_model"] < metrics["seconds_starting"]
    assert metrics["seconds_resuming"] == 0


def test_a_rank_that_fails_ends_the_training_with_its_own_words(model: Path, tokens: Path, tmp_path: Path) -> None:
    broken = tmp_path / "tokens"
    source = open_tokens(tokens)
    broken.mkdir()
    with TokenWriter(broken, np.uint16, {}) as writer:
        for row in range(len(source)):
            ids, mask = (array.copy() for array in source[row])
            if row == 7:
                ids[-1] = 60_000
            writer.write("", Encoded(ids, mask, truncated=False))
    with pytest.raises(StageFailed, match=r"rank [01] failed: IndexError: index out of range") as caught:
        train(tmp_path, model, broken, PROFILE)
    assert "train.log" in caught.value.where
    assert caught.value.fix == "see the whole log there"
    assert left_behind(tmp_path) == []


def test_a_gradient_that_is_no_number_ends_the_training_before_it_is_saved(
    model: Path, tokens: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = tmp_path / "model"
    shutil.copytree(model, base)
    weights = load_file(base / "model.safetensors")
    # The logits are what they were; the gradient of the output head has squares that no float holds.
    weights["model.norm.weight"] *= 1e30
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * 1e-30
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    profile = replace(PROFILE, checkpoint_every_steps=1)
    with pytest.raises(
        StageFailed, match=r"the gradient is no finite number at step 1, where the loss is \d"
    ) as caught:
        train(tmp_path, base, tokens, profile, dtype="bf16")
    assert caught.value.where == str(base)
    assert str(caught.value).count("fix: ") == 1
    assert caught.value.fix.startswith("lower the learning rate")
    assert states_of(tmp_path) == []
    assert steps_of(tmp_path) == []


def test_a_model_without_a_pad_token_gets_one_more_row(model: Path, tokens: Path, tmp_path: Path) -> None:
    """As LLaMA's do; under ZeRO-3, where the embedding that grows is split over the ranks."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = tmp_path / "model"
    entries = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab_size()
    tiny.write_model(base, **dict(tiny.FAMILY.models[0].sources["model"].args) | {"vocabulary": entries})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        described = json.loads((base / name).read_text())
        described.pop("pad_token", None)
        if name == "tokenizer.json":
            described["added_tokens"] = [token for token in described["added_tokens"] if token["content"] != "<pad>"]
            described["model"]["vocab"] = {
                "<unused>" if token == "<pad>" else token: number
                for token, number in described["model"]["vocab"].items()
            }
        (base / name).write_text(json.dumps(described))
    train(tmp_path, base, tokens, replace(PROFILE, zero_stage=3), max_steps=3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    start = AutoModelForCausalLM.from_pretrained(base).get_input_embeddings().weight.detach()
    rows = tuned.get_input_embeddings().weight.detach()
    assert tokenizer.pad_token_id == len(start) == len(rows) - 1 == len(tokenizer) - 1
    assert tuned.config.pad_token_id == tuned.generation_config.pad_token_id == len(start)
    assert 0 < float((rows[:-1] - start).norm()) < 0.05 * float(start.norm())
    assert 0 < float(rows[-1].norm()) < 3 * float(start.norm(dim=1).mean())


_plain: dict[str, Any] = {}


def plain_training(model_folder: Path, tokens_folder: Path) -> tuple[list[float], dict[str, Any]]:
    """The same recipe in a dozen lines of torch, one conversation at a time: losses and weights."""
    from transformers import AutoModelForCausalLM

    if _plain:
        return _plain["losses"], _plain["weights"]
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    losses = losses_in_torch(model, tokens_folder, RECIPE, STEPS)
    _plain.update(losses=losses, weights=model.state_dict())
    return losses, model.state_dict()
