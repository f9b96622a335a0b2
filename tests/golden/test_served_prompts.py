"""What served models (ChatGPT, GPT-4, any OpenAI-compatible server) are asked, to the byte, of every benchmark.

TyDiQA's are those of the languages whose training files the mirror has, their passages not cut: by which tokenizer they
are is the model's to say.
"""

import hashlib
import json
from pathlib import Path

import pytest
from benchmark_items import BY_METRIC, asked, items

from tulu_pipeline.inference.served import limited, request_of
from tulu_pipeline.specs.api_model import GPT4

pytestmark = pytest.mark.realdata


@pytest.mark.parametrize(
    ("metric", "count", "golden"),
    [
        ("alpaca_eval", 805, "5410a95d2fc569cd43f99e45da2b9a1594223dfc30f3931fec9b1162f036fc79"),
        ("bbh_cot", 1_080, "694474efd9502aa85ebea9c67e81096391c036673aa268ffec662525c90c7623"),
        ("bbh_direct", 1_080, "d532dccea719489c00cb7b59c51122d723eecc0151dd78bfe5668f62e0d11c69"),
        ("codex_eval_p1", 164, "5cb78479337a2fff4add2be1358db606e6be658745c5d7881ad923c921818ebf"),
        ("codex_eval_p10", 164, "a5e67a3a6f452aa845632c42c38f52506b31c6b274532443afe0d20d65cca666"),
        ("gsm_cot", 200, "04fab7b48d85e233c8be382b2fe4c3b5aa75394506c011305960e901aa9750bc"),
        ("gsm_direct", 200, "9fb59f630b018712387b6335654ac8d66fe84762ea3c192f3a749f906038df87"),
        ("mmlu_0shot", 5_700, "90e78a454c5d48fd86faf410be88bd50f2e06ab9a8645a13164cfc1671c5c5fb"),
        ("mmlu_5shot", 5_700, "8cf998ca45a585253a230cb9e922dc9351c163eaabc0d73fac176b4c5dc688c7"),
        ("toxigen", 1_400, "8a0f27b2e79ba9d6cf92b4969cbca32a2eae134408317a5d24a49af54903ca24"),
        ("truthfulqa", 817, "ca06dce4f1a7a253c3f57307c4a05e0b5ae2ecd166293d63fd093dd8e18f0b88"),
        ("tydiqa_cb", 300, "23b934731c21cc925d78106fbeff419be3a531d830cdded2b693c70da7e5c260"),
        ("tydiqa_gp", 300, "efc32f1beabd03e7f7f2c447b82a55fb0a6ac5044b76ea64ce8517ed9619466d"),
    ],
)
def test_all_requests_are_these(metric: str, count: int, golden: str, mirror: Path) -> None:
    benchmark, digest, asks = BY_METRIC[metric], hashlib.sha256(), 0
    for item in limited(lambda: items(metric, mirror), GPT4.group_limits.get(metric)):
        request = request_of(item, benchmark.name, GPT4, benchmark.setting(metric).sampling)
        (message,) = request.messages
        # As the original: the text of a model that was not tuned, the longest, behind the benchmark's own lead.
        lead = {"codex_eval": "Complete the following python function. Please", "toxigen": "Complete the following: "}
        assert message.content.startswith(lead.get(benchmark.name, ""))
        assert message.content.endswith(asked(item, tuned=False)[0])
        assert (message.role, message.name, request.stop) == ("user", "", ())
        line = [item.item_id, request.body()]
        digest.update(json.dumps(line, ensure_ascii=False, sort_keys=True).encode() + b"\n")
        asks += 1
    assert asks == count
    assert digest.hexdigest() == golden
