"""Seeds of samples: each draws from a stream of its own."""

from tulu_pipeline.benchmarks import codex_eval
from tulu_pipeline.inference.sampling import request_seed
from tulu_pipeline.specs.benchmark import Sampling

DRAWN = Sampling(max_new_tokens=1, temperature=0.8, samples=20)


def test_no_two_samples_of_a_benchmark_share_a_seed() -> None:
    items, samples = [f"HumanEval/{n}" for n in range(164)], range(DRAWN.samples)
    seeds = {request_seed(item, sample, DRAWN) for item in items for sample in samples}
    assert len(seeds) == len(items) * len(samples)
    assert all(isinstance(seed, int) and 0 <= seed < 2**32 for seed in seeds)


def test_a_seed_follows_from_item_and_sample_alone_and_what_is_greedy_has_none() -> None:
    others = [setting.sampling for setting in codex_eval.BENCHMARK.settings]
    assert {request_seed("HumanEval/3", 4, each) for each in (DRAWN, *others)} == {
        request_seed("HumanEval/3", 4, DRAWN)
    }
    assert request_seed("HumanEval/3", 4, Sampling(max_new_tokens=1)) is None
