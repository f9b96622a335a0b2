"""The head of a model card: what a hub reads of it."""

from __future__ import annotations

import json
from typing import Any

from tulu_pipeline.export.markdown import hub_license
from tulu_pipeline.export.model_card import ModelCard, Result
from tulu_pipeline.mixing.licenses import UNKNOWN, meaning
from tulu_pipeline.specs.recipe import Recipe


def front_matter(card: ModelCard) -> str:
    """YAML; texts are written as JSON strings, which YAML reads."""
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    values |= _stated_license(card)
    if card.facts is not None and card.facts.base.repo:
        values |= {"base_model": card.facts.base.repo, "base_model_relation": "finetune"}
    if datasets := sorted({part.repo for part in card.facts.data if part.repo} if card.facts else ()):
        values["datasets"] = datasets
    if languages := card.told_languages():
        values["language"] = list(languages)
    values["tags"] = ["instruction-tuning", "tulu-pipeline", *_adapter_tags(card.recipe)]
    if asked := _asks_for(card):
        values["extra_gated_prompt"] = f"Its parts have licenses, which ask for: {asked}. Read them before you use it."
    if card.results:
        values["model-index"] = [{"name": card.name, "results": [_index_entry(result) for result in card.results]}]
    return "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in values.items())


def _stated_license(card: ModelCard) -> dict[str, str]:
    """The license that was stated, else the one that all parts share, else that there are several."""
    found = card.licenses_of_all()
    if card.license or len(found) == 1:
        license_ = card.license or found[0]
        id_ = hub_license(license_)
        return {"license": id_} if id_ != "other" else {"license": id_, "license_name": _slug(license_)}
    if not found:
        return {"license": UNKNOWN}
    return {"license": "other", "license_name": "those-of-its-parts", "license_link": "README.md#licenses"}


def _slug(license_: str) -> str:
    return "-".join("".join(sign if sign.isalnum() or sign == "." else " " for sign in license_).split()).lower()


def _adapter_tags(recipe: Recipe) -> list[str]:
    if recipe.lora is None:
        return []
    return ["qlora" if recipe.lora.quantization != "none" else "lora"]


def _asks_for(card: ModelCard) -> str:
    said = [f"{license_} ({meaning(license_)})" for license_ in card.licenses_of_all()]
    return "; ".join(said)


def _index_entry(result: Result) -> dict[str, Any]:
    return {
        "task": {"type": "text-generation"},
        "dataset": {"type": _slug(result.benchmark), "name": result.benchmark, "config": result.setting},
        "metrics": [{"type": "score", "value": round(100 * result.value, 2), "name": result.setting}],
    }
