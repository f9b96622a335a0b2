"""The card of a finetuned model: what a reader and the hub find in it."""

import dataclasses
from typing import Any

import pytest
from huggingface_hub import ModelCard as HubCard

from flows.catalog import find_experiment, find_model
from flows.graph import graph_of
from tasks.finetune import FinetuneParams
from tulu_pipeline.artifacts.canonical import canonical_json
from tulu_pipeline.export.model_card import Counts, ModelCard, Result, Step
from tulu_pipeline.export.model_card_text import render_model_card
from tulu_pipeline.export.terms import named_licenses, obstacles
from tulu_pipeline.specs.recipe import Lora, Recipe


def params(experiment: str, name: str) -> FinetuneParams:
    found = graph_of(find_experiment(experiment)).by_name[name].params
    assert isinstance(found, FinetuneParams)
    return found


def card(made: FinetuneParams, **changes: Any) -> ModelCard:
    values = {
        "artifact": "finetune[tiny-10m+alpaca]",
        "key": "0123456789abcdef" * 4,
        "stage_version": 3,
        "facts": made.facts,
        "recipe": made.recipe,
        "components": made.components,
        "counts": tuple(Counts(conversations=1234, tokens=56_789, supervised_tokens=12_345) for _ in made.components),
        "metrics": {"steps": 1_000, "ranks": 2, "zero_stage": 3, "device": "two camels", "seconds_training": 86_400.4},
        "steps": [Step(step=step, loss=4 / step, learning_rate=1e-3 / step) for step in range(1, 26)],
        "packages": {"torch": "2.13.0"},
    }
    return ModelCard(**values | changes)


@pytest.fixture(scope="module")
def alpaca() -> FinetuneParams:
    return params("first_light", "finetune[tiny-10m+alpaca]")


def row(text: str, *cells: str) -> bool:
    return f"| {' | '.join(cells)} |" in text


def test_the_front_matter_is_what_the_hub_reads(alpaca: FinetuneParams) -> None:
    found = HubCard(render_model_card(card(alpaca))).data
    assert found.license == "other"
    assert found.license_name == "those-of-its-parts"
    assert found.library_name == "transformers"
    assert found.pipeline_tag == "text-generation"
    assert found.tags == ["instruction-tuning", "tulu-pipeline"]
    assert "CC-BY-NC-4.0 (attribution, non-commercial)" in found.to_dict()["extra_gated_prompt"]
    stated = HubCard(render_model_card(card(alpaca, license="CC-BY-NC-4.0", languages=("de", "en")))).data
    assert (stated.license, stated.language) == ("cc-by-nc-4.0", ["de", "en"])


def test_a_model_of_the_hub_is_named_with_its_commit_and_so_is_data_of_the_hub(alpaca: FinetuneParams) -> None:
    assert alpaca.facts is not None
    base = dataclasses.replace(
        alpaca.facts.base, repo="owner/base", revision="f" * 40, license="LLaMA (non-commercial)"
    )
    data = (dataclasses.replace(alpaca.facts.data[0], repo="owner/rows"),)
    text = render_model_card(card(alpaca, facts=dataclasses.replace(alpaca.facts, base=base, data=data)))
    found = HubCard(text).data
    assert (found.base_model, found.datasets) == ("owner/base", ["owner/rows"])
    assert row(text, "weights", f"`owner/base` at `{'f' * 40}`")
    assert row(text, "license", "LLaMA (non-commercial) (terms unknown here)")
    assert "for non-commercial use only" in text


def test_everything_that_was_decided_or_spent_is_in_it(alpaca: FinetuneParams) -> None:
    text = render_model_card(card(alpaca))
    for field in dataclasses.fields(Recipe):
        assert f"| {field.name} | " in text
    assert row(text, "alpaca", "1,234", "56,789", "12,345", "1×", "all", "CC-BY-NC-4.0")
    assert row(text, "optimizer steps", "1,000")
    assert row(text, "seconds in steps", "86,400")
    assert row(text, "hours of all ranks together", "48.00")
    assert row(text, "device", "two camels")
    assert row(text, "ZeRO stage", "3")
    assert row(text, "torch", "2.13.0")
    assert row(text, "key", f"`{'0123456789abcdef' * 4}`")
    assert row(text, "stage", "finetune, version 3")
    assert "lowest in step 25: 0.1600" in text
    assert row(text, "1–2", "3.0000", "5.00e-04")
    assert "digest" not in text


def test_it_says_what_begins_and_ends_a_text_and_how_many_embeddings_there_are(alpaca: FinetuneParams) -> None:
    assert alpaca.facts is not None
    llama = find_model("llama-7b")
    base = dataclasses.replace(
        alpaca.facts.base,
        special_tokens=llama.tokenizer.special_tokens,
        tuned_embedding_rows=llama.tuned_embedding_rows,
    )
    text = render_model_card(card(alpaca, facts=dataclasses.replace(alpaca.facts, base=base)))
    assert row(text, "begins a text", "`<s>`")
    assert row(text, "ends an answer", "`</s>`")
    assert row(text, "pads", "`<pad>`, added by finetuning")
    assert row(text, "rows of the embeddings, finetuned", "32,001")


def test_of_adapters_it_says_which_and_that_they_were_merged(alpaca: FinetuneParams) -> None:
    plain = render_model_card(card(alpaca))
    assert "All weights were finetuned" in plain
    recipe = dataclasses.replace(alpaca.recipe, lora=Lora(rank=8, quantization="nf4", target_modules=("q_proj",)))
    text = render_model_card(card(alpaca, recipe=recipe))
    assert "adapters of rank 8 (alpha 16, dropout 0.1) were trained on the layers q_proj, over frozen weights" in text
    assert "merged into the weights" in text
    assert row(text, "lora.quantization", "nf4")
    assert HubCard(text).data.tags[-1] == "qlora"


def test_what_was_not_measured_is_said(alpaca: FinetuneParams) -> None:
    before = render_model_card(card(alpaca))
    assert "not evaluated; the experiment asks it MMLU, GSM8K, AlpacaEval, and nothing else" in before
    result = Result(benchmark="GSM8K", setting="gsm_cot", value=0.125, half_width=0.05, items=200)
    after = render_model_card(card(alpaca, results=(result,)))
    assert row(after, "GSM8K", "gsm_cot", "12.5 ± 5.0", "200")
    assert "Nothing was measured beside GSM8K." in after
    assert HubCard(after).data.eval_results[0].metric_value == 12.5


def test_licenses_of_the_rows_count_where_they_are_known(alpaca: FinetuneParams) -> None:
    stated = render_model_card(card(alpaca))
    assert "single conversations may have others" in stated
    exact = render_model_card(card(alpaca, licenses=(("MIT", "unknown"),)))
    assert row(exact, "MIT", "keep the notices", "alpaca")
    assert row(exact, "unknown", "no license is stated", "alpaca")
    assert "CC-BY-NC-4.0" not in exact
    assert "published without a license" in exact


def test_a_training_that_was_told_nothing_still_has_a_card(alpaca: FinetuneParams) -> None:
    text = render_model_card(card(alpaca, facts=None))
    assert HubCard(text).data.license == "unknown"
    assert row(text, "alpaca", "1,234", "56,789", "12,345", "1×", "not told", "not told")


def test_facts_for_the_card_move_no_key(alpaca: FinetuneParams) -> None:
    assert alpaca.facts is not None
    assert canonical_json(alpaca) == canonical_json(dataclasses.replace(alpaca, facts=None))


@pytest.mark.parametrize(
    ("license_", "stated", "why"),
    [
        ("Apache-2.0", "", ""),
        ("CC-BY-4.0", "MIT", ""),
        ("unknown", "", "no license is stated"),
        ("LicenseRef-research-only", "", "its terms are not known here"),
        ("LLaMA (non-commercial)", "", "its terms are not known here"),
        ("CC-BY-ND-4.0", "", "forbids to pass on"),
        ("CC-BY-SA-3.0", "", "state it with --license CC-BY-SA-3.0"),
        ("CC-BY-SA-3.0", "Apache-2.0", "asks for the same license"),
        ("CC-BY-SA-3.0", "cc-by-sa-3.0", ""),
        ("CC-BY-NC-4.0", "", ""),
        ("CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", ""),
        ("CC-BY-NC-4.0", "Apache-2.0", "asks for non-commercial use, which Apache-2.0 does not"),
    ],
)
def test_a_license_stands_in_the_way_until_it_is_seen_to(license_: str, stated: str, why: str) -> None:
    found = obstacles({"base": ("MIT",), "rows": (license_,)}, stated=stated)
    assert [each.license for each in found] == ([license_] if why else [])
    assert all(why in each.why and each.parts == ("rows",) for each in found)
    assert obstacles({"rows": (license_,)}, stated=stated, accepted=(license_,)) == []


def test_a_models_license_is_one_name_unless_it_is_an_expression() -> None:
    assert named_licenses("LLaMA (non-commercial)") == ("LLaMA (non-commercial)",)
    assert named_licenses("mit OR apache-2.0") == ("MIT", "Apache-2.0")
    assert named_licenses("") == ("unknown",)
