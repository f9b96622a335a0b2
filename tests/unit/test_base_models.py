"""What the project says of the paper's base models, against their published configurations and the paper."""

from pathlib import Path
from typing import Any

import pytest
from base_models import write_opt_tokenizer

from flows.catalog import FAMILIES, find_model, find_tokenizer
from flows.catalog_view import list_kind, show_json
from flows.graph import graph_of
from tulu_pipeline.artifacts.source import HubModel
from tulu_pipeline.artifacts.store import Store
from tulu_pipeline.errors import BadInput
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.mixture import single
from tulu_pipeline.tokens.special_tokens import SpecialTokens
from tulu_pipeline.tokens.tokenizer import load_tokenizer, special_tokens

PAPER = ("llama-7b", "llama-13b", "llama-30b", "llama-65b", "llama2-7b", "llama2-13b", "opt-6.7b", "pythia-6.9b")


def llama(hidden: int, layers: int, heads: int, feed_forward: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": feed_forward,
        "vocab_size": 32_000,
    }


# The `config.json` of each repository, as far as it decides the shapes.
CONFIGS: dict[str, dict[str, Any]] = {
    "llama-7b": llama(4096, 32, 32, 11_008),
    "llama-13b": llama(5120, 40, 40, 13_824),
    "llama-30b": llama(6656, 60, 52, 17_920),
    "llama-65b": llama(8192, 80, 64, 22_016),
    "llama2-7b": llama(4096, 32, 32, 11_008),
    "llama2-13b": llama(5120, 40, 40, 13_824),
    "opt-6.7b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "ffn_dim": 16_384,
        "word_embed_proj_dim": 4096,
        "max_position_embeddings": 2048,
        "vocab_size": 50_272,
    },
    "pythia-6.9b": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 16_384,
        "vocab_size": 50_432,
        "tie_word_embeddings": False,
    },
}


def test_every_base_model_of_the_paper_is_there() -> None:
    known = {model.name for family in FAMILIES.all() for model in family.models}
    assert set(PAPER) <= known
    assert set(PAPER) == set(CONFIGS)


@pytest.mark.parametrize("name", PAPER)
def test_the_stated_number_of_weights_is_that_of_the_published_configuration(name: str) -> None:
    import torch
    import transformers

    model = find_model(name)
    class_ = getattr(transformers, model.architecture)
    with torch.device("meta"):
        built = class_(class_.config_class(**CONFIGS[name]))
    assert built.num_parameters() == model.parameters


@pytest.mark.parametrize("name", PAPER)
def test_the_sources_are_one_whole_model_and_hold_its_tokenizer(name: str) -> None:
    model = find_model(name)
    parts = {source.part for source in model.sources.values() if isinstance(source, HubModel)}
    assert "whole" in parts or "weights" in parts
    if "whole" not in parts:
        assert model.tokenizer.sources.items() <= model.sources.items(), "one tokenizer for all sizes of a family"
    else:
        (source,) = model.sources.values()
        (tokenizer,) = model.tokenizer.sources.values()
        assert isinstance(source, HubModel)
        assert isinstance(tokenizer, HubModel)
        assert (source.repo, source.revision) == (tokenizer.repo, tokenizer.revision)


@pytest.mark.parametrize("name", PAPER)
def test_what_frames_a_text_and_whether_the_embeddings_grow_are_values(name: str) -> None:
    model, rows = find_model(name), CONFIGS[name]["vocab_size"]
    framed = model.tokenizer.special_tokens
    by_family = {
        "llama": (SpecialTokens(bos="<s>", eos="</s>", pad="<pad>", pad_is_new=True), rows + 1),
        "llama2": (SpecialTokens(bos="<s>", eos="</s>", pad="<pad>", pad_is_new=True), rows + 1),
        "opt": (SpecialTokens(bos="</s>", eos="</s>", pad="<pad>", pad_is_new=False), rows),
        "pythia": (SpecialTokens(bos="", eos="<|endoftext|>", pad="<pad>", pad_is_new=True), rows),
    }
    assert (framed, model.tuned_embedding_rows) == by_family[model.tokenizer.name]


def test_a_shown_model_tells_what_frames_its_texts(tmp_path: Path) -> None:
    shown = show_json("llama-7b", Store(str(tmp_path / "store"), tmp_path))
    assert shown["tuned_embedding_rows"] == 32_001
    assert (shown["begins_a_text"], shown["ends_an_answer"]) == ("<s>", "</s>")
    assert shown["pads"] == "<pad>, added by finetuning"
    shown = show_json("pythia-6.9b", Store(str(tmp_path / "store"), tmp_path))
    assert shown["begins_a_text"] == "nothing"


def matrix() -> Experiment:
    models = tuple(map(find_model, PAPER))
    return Experiment(
        name="x",
        title="",
        hypothesis="",
        models=models,
        mixtures=(single("alpaca"),),
        benchmarks={"gsm": ("gsm_cot",)},
        untuned=False,
    )


def test_only_the_large_models_are_tuned_slower_and_on_shorter_sequences() -> None:
    experiment = matrix()
    for model in experiment.models:
        recipe, large = experiment.recipe_for(model, experiment.mixtures[0]), model.name in {"llama-30b", "llama-65b"}
        assert recipe.learning_rate == (1e-5 if large else 2e-5)
        assert recipe.max_length_tokens == (1024 if large else 2048)
        assert recipe.epochs == 2.0


def test_sizes_of_a_family_share_their_tokens() -> None:
    graph = graph_of(matrix())
    tokens = {each.cell: each.inputs["tokens_0"].cell for each in graph if each.stage.name == "finetune"}
    assert tokens == {
        "llama-7b+alpaca": "llama+alpaca",
        "llama-13b+alpaca": "llama+alpaca",
        "llama-30b+alpaca": "llama+alpaca@1024",
        "llama-65b+alpaca": "llama+alpaca@1024",
        "llama2-7b+alpaca": "llama2+alpaca",
        "llama2-13b+alpaca": "llama2+alpaca",
        "opt-6.7b+alpaca": "opt+alpaca",
        "pythia-6.9b+alpaca": "pythia+alpaca",
    }
    assert find_tokenizer("llama") == find_tokenizer("llama-65b")


def test_the_list_tells_size_pretraining_and_license() -> None:
    rows = {row[0]: row[1:] for row in list_kind("models")}
    assert rows["llama-30b"] == ("32,528,943,616 parameters, pretrained on 1.4T tokens", "LLaMA (non-commercial)")
    assert rows["opt-6.7b"] == ("6,658,473,984 parameters, pretrained on 180B tokens", "OPT (non-commercial)")
    assert rows["tiny"][0].endswith("untrained")


TEXTS = ("the cat sat", " on  12 mats\n\n\tÜber 猫 🐪", "'n' </s> typed <s>", "")


def test_a_tokenizer_of_two_files_is_the_one_that_transformers_makes_of_them(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_opt_tokenizer(tmp_path)
    ours, theirs = load_tokenizer(tmp_path, special_in_text="hf"), AutoTokenizer.from_pretrained(tmp_path)
    assert ours.bos_ids == (2,) == (theirs.bos_token_id,)
    assert ours.names.id_to_token(ours.end_mark_id) == "</s>" == theirs.eos_token
    assert ours.vocabulary_size == len(theirs)
    for text, encoding in zip(TEXTS, ours.encode_texts(TEXTS, after_end_mark=False), strict=True):
        assert [*ours.bos_ids, *encoding.ids] == theirs(text).input_ids, text
    assert special_tokens(tmp_path)["pad_token"] == "<pad>"
    assert sorted(find_tokenizer(str(tmp_path)).sources) == sorted(path.name for path in tmp_path.iterdir())
    assert load_tokenizer(tmp_path).fingerprint == load_tokenizer(tmp_path).fingerprint != ours.fingerprint


def test_two_files_of_another_class_are_an_error_that_names_it(tmp_path: Path) -> None:
    write_opt_tokenizer(tmp_path, tokenizer_class="RobertaTokenizer")
    with pytest.raises(BadInput, match="'RobertaTokenizer' have a meaning that is not known here"):
        load_tokenizer(tmp_path)
