"""What a sample's size is, as its dataset writes it."""

import pytest

from flows.catalog import DATASETS
from flows.dry_run_data import _size_of_sample
from tulu_pipeline.specs.dataset import PaperCounts

PAPER = PaperCounts(instances=30_000, mean_rounds=1.0, mean_prompt_tokens=1.0, mean_completion_tokens=1.0)


@pytest.mark.parametrize(
    ("sample", "rows"),
    [
        ("2,017 of 20,022", 2_017),
        ("7 of 9 files, 33,443 rows", 33_443),
        ("100 of 10,000 trees", 300),
        ("some", None),
        ("", None),
    ],
)
def test_a_sample_has_the_rows_it_says_or_its_share_of_the_papers(sample: str, rows: int | None) -> None:
    assert _size_of_sample(sample, PAPER) == rows


def test_without_the_papers_count_other_units_tell_nothing() -> None:
    assert _size_of_sample("100 of 10,000 trees", None) is None


def test_every_sample_of_the_project_can_be_estimated() -> None:
    variants = [(dataset, each) for dataset in DATASETS.all() for each in dataset.variants.values() if each.sample]
    assert variants
    for dataset, variant in variants:
        assert _size_of_sample(variant.sample, dataset.paper), f"{dataset.name}: {variant.sample}"
