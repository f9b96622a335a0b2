"""Weights in 8 bits: chosen for a metric, part of the key, refused where they cannot be."""

import ast
import dataclasses
import re
import sys
from typing import Any

import doc_pages
import pytest

from flows.catalog import find_experiment
from flows.graph import graph_of
from tasks.generate import GenerateParams, generate_params
from tulu_pipeline.artifacts.artifact import Artifact
from tulu_pipeline.artifacts.canonical import canonical_json
from tulu_pipeline.benchmarks import gsm, mmlu, truthfulqa
from tulu_pipeline.errors import BadInput
from tulu_pipeline.inference.engine import what_lacks
from tulu_pipeline.specs.experiment import Experiment

DEMO = find_experiment("demo")


def generated(experiment: Experiment) -> dict[str, Artifact]:
    return {each.name: each for each in graph_of(experiment) if isinstance(each.params, GenerateParams)}


def params_of(artifact: Artifact) -> GenerateParams:
    assert isinstance(artifact.params, GenerateParams)
    return artifact.params


def test_only_the_named_metrics_are_answered_in_8_bits_and_by_a_process_of_their_own() -> None:
    before, after = generated(DEMO), generated(dataclasses.replace(DEMO, eight_bit_metrics=("gsm_cot",)))
    assert before.keys() == after.keys()
    for name, artifact in after.items():
        params = params_of(artifact)
        if params.metric != "gsm_cot":
            assert canonical_json(params) == canonical_json(before[name].params)
            assert artifact.unit == before[name].unit
            continue
        assert (params.engine, params.engine_dtype, params.quantization) == ("transformers", "float16", "int8")
        assert artifact.unit not in {each.unit for each in before.values()}
    assert sum(params_of(artifact).quantization == "int8" for artifact in after.values()) == 3


def test_8_bits_for_a_metric_that_is_not_asked_are_an_error() -> None:
    with pytest.raises(BadInput, match="it has no metric `gsm_cott`"):
        graph_of(dataclasses.replace(DEMO, eight_bit_metrics=("gsm_cott",)))


def test_the_documented_metrics_of_the_paper_are_metrics() -> None:
    page = doc_pages.page("engines")
    (told,) = re.findall(r"eight_bit_metrics=(\(.*?\))", page)
    metrics: tuple[str, ...] = ast.literal_eval(told)
    known = {setting.metric for each in (mmlu.BENCHMARK, truthfulqa.BENCHMARK) for setting in each.settings}
    assert set(metrics) == {name for name in known if not name.endswith("_as_written")}


def test_the_key_knows_of_8_bits_and_not_of_their_absence() -> None:
    asked: dict[str, Any] = {"tuned": True, "engine": "transformers", "engine_dtype": "float16"}
    plain = generate_params(mmlu.BENCHMARK, "mmlu_0shot", **asked)
    assert "quantization" not in canonical_json(plain)
    assert '"quantization":"int8"' in canonical_json(dataclasses.replace(plain, quantization="int8"))


def test_vllm_refuses_8_bits() -> None:
    with pytest.raises(BadInput, match="vLLM does not load weights as `int8`") as refused:
        generate_params(
            gsm.BENCHMARK, "gsm_cot", tuned=True, engine="vllm", engine_dtype="float16", quantization="int8"
        )
    assert (refused.value.where, refused.value.fix) == ("gsm/gsm_cot", "engine `transformers`")


@pytest.mark.parametrize("package", ["bitsandbytes", "accelerate"])
def test_without_its_packages_8_bits_are_said_to_lack_them(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert what_lacks("transformers", gpu=False, quantization="int8") is None
    monkeypatch.setitem(sys.modules, package, None)  # as Python marks what cannot be imported
    lack = what_lacks("transformers", gpu=False, quantization="int8")
    assert lack is not None
    assert f"`{package}` is not installed" in lack.what
    assert "tulu-pipeline[train]" in lack.fix
    assert what_lacks("transformers", gpu=False) is None
