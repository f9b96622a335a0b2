"""What cannot work is refused before a model is loaded; what is probably not meant is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tulu_pipeline.chat.options import EncodeOptions
from tulu_pipeline.chat.schema import Conversation, Message
from tulu_pipeline.errors import BadInput
from tulu_pipeline.models import tiny
from tulu_pipeline.profile import Profile
from tulu_pipeline.specs.recipe import Lora, Recipe
from tulu_pipeline.tokens.encode import encode_many, id_type
from tulu_pipeline.tokens.shards import TokenWriter, open_tokens
from tulu_pipeline.tokens.special_tokens import SpecialTokens
from tulu_pipeline.tokens.tokenizer import load_tokenizer
from tulu_pipeline.training.checks import check_folders, check_training
from tulu_pipeline.training.estimates.known import KnownModel, KnownTokens, broken_files

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 32_000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": 11_008,
    "max_position_embeddings": 2048,
}
OPT: dict[str, Any] = {
    "model_type": "opt",
    "vocab_size": 50_272,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "ffn_dim": 16_384,
    "max_position_embeddings": 2048,
}
TOKENS = KnownTokens(conversations=1000, longest=4096, steps=16)
NO_PAD = SpecialTokens(bos="<s>", eos="</s>", pad_is_new=True)
FOUR_BIT = Lora(quantization="nf4")


def model(config: dict[str, Any] = LLAMA, **more: Any) -> KnownModel:
    return KnownModel(name="model", config=config, parameters=7_000_000_000, **more)


@pytest.mark.parametrize(
    ("recipe", "profile", "more", "what", "fix"),
    [
        (
            Recipe(lora=FOUR_BIT, learning_rate=1e-4),
            Profile(zero_stage=3),
            {},
            "nf4 weights cannot be split",
            "zero_stage = 2",
        ),
        (Recipe(), Profile(zero_stage=0, offload=True), {}, "offload without ZeRO does nothing", "zero_stage = 2"),
        (Recipe(), Profile(), {"device": "Tesla V100-SXM2-32GB"}, "does not compute in bf16", 'dtype = "fp32"'),
        (Recipe(), Profile(), {"device": "NVIDIA GeForce RTX 2080 Ti"}, "does not compute in bf16", 'dtype = "fp32"'),
        (
            Recipe(max_length_tokens=4096),
            Profile(),
            {"model": model()},
            "takes 2,048: it was trained on no more",
            "max_length_tokens=2048",
        ),
        (
            Recipe(max_length_tokens=4096),
            Profile(),
            {"model": model(OPT)},
            "takes 2,048: it has learned no more positions",
            "max_length_tokens=2048",
        ),
        (
            Recipe(),
            Profile(),
            {"model": KnownModel(name="model", context_tokens=1024)},
            "takes 1,024",
            "max_length_tokens=1024",
        ),
        (
            Recipe(),
            Profile(),
            {"model": model(tokenizer_entries=32_001)},
            "32,001 entries, the embeddings have 32,000 rows",
            "belongs to the model",
        ),
        (Recipe(), Profile(), {"model": model(broken=("a shard is gone",))}, "a shard is gone", "--refresh download"),
        (
            Recipe(lora=Lora(target_modules=("q_projection",)), learning_rate=1e-4),
            Profile(),
            {"model": model()},
            "no linear layer named `q_projection`",
            "did you mean `q_proj`",
        ),
        (
            Recipe(held_out_conversations=1000),
            Profile(),
            {"tokens": TOKENS},
            "1,000 of 1,000 conversations are held out",
            "hold out fewer",
        ),
        (Recipe(warmup_steps=16), Profile(), {"tokens": TOKENS}, "never reaches its peak", "warmup_steps below 16"),
        (
            Recipe(),
            Profile(),
            {"tokens": KnownTokens(conversations=9, longest=9, steps=2, others=("alpaca",))},
            "`alpaca` were made by another tokenizer",
            "its own files",
        ),
    ],
)
def test_what_cannot_work_is_refused_and_says_what_to_write(
    recipe: Recipe, profile: Profile, more: dict[str, Any], what: str, fix: str
) -> None:
    found = check_training(recipe, profile, **more)
    with pytest.raises(BadInput) as caught:
        found.refuse()
    assert what in caught.value.what
    assert fix in caught.value.fix
    assert caught.value.where
    assert len(found.errors) == 1


@pytest.mark.parametrize(
    ("recipe", "profile", "more", "note"),
    [
        (
            Recipe(conversations_per_step=16),
            Profile(layout="padded", ranks=8, launcher="torchrun", nodes=2, micro_batch_conversations=4),
            {},
            "12 of 16 ranks have nothing to do",
        ),
        (Recipe(conversations_per_step=6), Profile(ranks=8), {}, "2 of 8 ranks have nothing to do"),
        (Recipe(), Profile(row_tokens=512), {}, "row_tokens 512 is below max_length_tokens 2,048"),
        (Recipe(batch_plan="global"), Profile(), {}, "they are not the original's"),
        (
            Recipe(batch_plan="global", rows_per_step=9, loss_norm="token_mean"),
            Profile(ranks=4),
            {},
            "3 of 4 ranks wait in the last pass",
        ),
        (Recipe(lora=Lora()), Profile(), {}, "unusual for adapters"),
        (Recipe(learning_rate=1e-3), Profile(), {"model": model()}, "high for all of 7.0B weights"),
        (
            Recipe(),
            Profile(),
            {"model": model(tokenizer_entries=32_000, special_tokens=NO_PAD)},
            "`<pad>` becomes number 32,000, and the embeddings grow from 32,000 to 32,001 rows",
        ),
        (
            Recipe(),
            Profile(),
            {"model": model(tokenizer_entries=31_000, special_tokens=NO_PAD)},
            "`<pad>` becomes number 31,000, which has a row",
        ),
        (Recipe(warmup_steps=16, max_steps=3), Profile(), {"tokens": TOKENS}, "never reaches its peak"),
        (
            Recipe(),
            Profile(),
            {"model": model(tokenizer_entries=32_000, special_tokens=NO_PAD, said_tuned_rows=32_001)},
            "the embeddings grow from 32,000 to 32,001 rows",
        ),
    ],
)
def test_what_is_probably_not_meant_is_told_and_not_refused(
    recipe: Recipe, profile: Profile, more: dict[str, Any], note: str
) -> None:
    found = check_training(recipe, profile, **more)
    found.refuse()
    assert len([each for each in found.notes if note in each]) == len(found.notes) == 1


def test_the_papers_recipe_has_nothing_to_say() -> None:
    ready = model(tokenizer_entries=32_000)
    tokens = KnownTokens(conversations=490_000, longest=2048, steps=7600)
    found = check_training(Recipe(), Profile(ranks=8, zero_stage=3), model=ready, tokens=tokens, device="NVIDIA H100")
    assert (found.errors, found.notes) == ([], [])


def test_short_conversations_fit_a_model_whatever_the_recipe_allows() -> None:
    short = KnownTokens(conversations=9, longest=700, steps=2)
    assert not check_training(Recipe(max_length_tokens=4096), Profile(), model=model(), tokens=short).errors


def test_all_that_cannot_work_is_told_at_once() -> None:
    recipe = Recipe(lora=FOUR_BIT, learning_rate=1e-4, max_length_tokens=4096)
    with pytest.raises(BadInput, match="2 settings cannot work") as caught:
        check_training(recipe, Profile(zero_stage=3), model=model()).refuse()
    assert "1. ZeRO-3" in caught.value.what
    assert "2. conversations of up to 4,096" in caught.value.what
    assert "1. write zero_stage" in caught.value.fix
    assert "2. write max_length_tokens" in caught.value.fix


def test_what_a_models_value_says_of_its_tokens_and_rows_is_compared_with_its_files() -> None:
    said = SpecialTokens(bos="", eos="<|im_end|>", pad="<|endoftext|>")
    named = SpecialTokens(bos="<s>", eos="</s>", pad="<|endoftext|>")
    asked = model(tokenizer_entries=32_000, special_tokens=named, said_special_tokens=said, said_tuned_rows=32_001)
    found = check_training(Recipe(), Profile(), model=asked)
    assert [error.what for error in found.errors] == [
        "bos is `<s>` by the tokenizer's files, and nothing by the model's value",
        "eos is `</s>` by the tokenizer's files, and `<|im_end|>` by the model's value",
        "the embeddings have 32,000 rows after finetuning by the model's files, and 32,001 by its value",
    ]
    assert {error.where for error in found.errors} == {"model `model`"}
    assert eval(found.errors[0].fix.partition("special_tokens=")[2].removesuffix(" in the model's tokenizer")) == named
    assert found.errors[2].fix.endswith("write tuned_embedding_rows=32000")
    unsaid = model(tokenizer_entries=32_000, special_tokens=named)
    assert not check_training(Recipe(), Profile(), model=unsaid).errors


def test_what_is_said_of_special_tokens_is_compared_with_the_folder_that_is_trained(
    folder: Path, tmp_path: Path
) -> None:
    right = SpecialTokens(bos="<s>", eos="</s>", pad="<pad>")
    tokens = write_tokens(tmp_path / "tokens", folder)

    def check(special_tokens: SpecialTokens, tuned_rows: int) -> None:
        check_folders(
            Recipe(conversations_per_step=2),
            Profile(),
            name="tiny",
            model=folder,
            components=[(tokens, 2)],
            device="",
            special_tokens=special_tokens,
            tuned_rows=tuned_rows,
        )

    check(right, 1344)
    with pytest.raises(BadInput, match="pad_is_new is false by the tokenizer's files, and true by the model's value"):
        check(SpecialTokens(bos="<s>", eos="</s>", pad_is_new=True), 1344)
    with pytest.raises(BadInput, match="1,344 rows after finetuning by the model's files, and 1,345 by its value"):
        check(right, 1345)


def test_a_model_takes_no_more_than_its_value_says_whatever_its_files_allow(folder: Path, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", folder)
    asked = {"name": "tiny", "model": folder, "components": [(tokens, 2)], "device": ""}
    longest = open_tokens(tokens).info["longest"]
    check_folders(Recipe(conversations_per_step=2), Profile(), **asked, context_tokens=longest)
    with pytest.raises(BadInput, match=f"`tiny` takes {longest - 1}: it was trained on no more"):
        check_folders(Recipe(conversations_per_step=2), Profile(), **asked, context_tokens=longest - 1)


def test_only_the_pad_token_that_is_added_can_be_new() -> None:
    with pytest.raises(BadInput, match="pad is `<\\|pad\\|>` and new"):
        SpecialTokens(bos="", eos="</s>", pad="<|pad|>", pad_is_new=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that is whole."""
    made = tmp_path_factory.mktemp("model")
    tiny.write_model(made, **dict(tiny.FAMILY.models[0].sources["model"].args))
    return made


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_a_whole_model_has_nothing_broken(folder: Path) -> None:
    assert list(broken_files(folder)) == []


def test_a_missing_shard_is_named(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "model-00001-of-00002.safetensors")
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (copied / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (broken,) = broken_files(copied)
    assert "names `model-00002-of-00002.safetensors` of 2 shards, which is not there" in broken


def test_a_shard_that_was_cut_off_is_named(copied: Path) -> None:
    file = copied / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    (broken,) = broken_files(copied)
    assert broken == f"`model.safetensors` has {len(whole) - 100:,} of {len(whole):,} bytes"
    file.write_bytes(whole[:50])
    assert "cut off within its header" in next(iter(broken_files(copied)))


def test_a_folder_without_weights_or_config_says_so(copied: Path) -> None:
    (copied / "model.safetensors").unlink()
    (copied / "config.json").unlink()
    assert [each.split(":")[0] for each in broken_files(copied)] == [
        "there is no `config.json`",
        "there are no weights",
    ]


def write_tokens(out: Path, tokenizer_folder: Path) -> Path:
    out.mkdir()
    tokenizer = load_tokenizer(tokenizer_folder)
    made_by = {"tokenizer_fingerprint": tokenizer.fingerprint, "tokenizer_mode": None, "special_in_text": "literal"}
    talks = [Conversation("a", str(row), (Message("user", "2 + 2"), Message("assistant", "4"))) for row in range(9)]
    with TokenWriter(out, id_type(tokenizer.vocabulary_size), made_by) as writer:
        for encoded in encode_many(talks, tokenizer, EncodeOptions()):
            writer.write("", encoded)
    return out


def test_folders_that_fit_each_other_pass_with_their_notes(folder: Path, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", folder)
    notes = check_folders(
        Recipe(conversations_per_step=2),
        Profile(ranks=4),
        name="tiny",
        model=folder,
        components=[(tokens, 2)],
        device="",
    )
    assert notes == ["2 of 4 ranks have nothing to do: a step of 2 conversations fills 2"]


def test_tokens_of_another_tokenizer_are_refused(folder: Path, copied: Path, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", folder)
    described = json.loads((copied / "tokenizer.json").read_text())
    described["pre_tokenizer"] = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": True,
        "use_regex": True,
    }
    (copied / "tokenizer.json").write_text(json.dumps(described))
    with pytest.raises(BadInput, match="made by another tokenizer"):
        check_folders(Recipe(), Profile(), name="tiny", model=copied, components=[(tokens, 1)], device="")


def test_a_tokenizer_larger_than_the_embeddings_is_refused(copied: Path, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", copied)
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"vocab_size": 1000}))
    with pytest.raises(BadInput, match=r"the tokenizer has 1,\d\d\d entries, the embeddings have 1,000 rows"):
        check_folders(Recipe(), Profile(), name="tiny", model=copied, components=[(tokens, 1)], device="")


def test_steps_and_lengths_are_those_of_the_tokens(folder: Path, tmp_path: Path) -> None:
    tokens = write_tokens(tmp_path / "tokens", folder)
    with pytest.raises(BadInput, match="16 steps of warm-up in a training of 9"):
        check_folders(
            Recipe(conversations_per_step=2, epochs=1.0, warmup_steps=16),
            Profile(),
            name="tiny",
            model=folder,
            components=[(tokens, 2)],
            device="",
        )
