"""Licenses: what applies together, what a whole is under, what is known of each."""

import pytest

from tulu_pipeline.mixing.licenses import in_words, is_allowed, meaning, of_rows, parts_of, terms_of, union


def test_the_licenses_of_a_whole_are_those_of_its_parts_sorted_with_the_unknown_last() -> None:
    parts = ["CC-BY-NC-4.0", "apache-2.0", "NOASSERTION", "MIT AND CC-BY-SA-4.0", "Apache-2.0", ""]
    assert union(parts) == ("Apache-2.0", "CC-BY-NC-4.0", "CC-BY-SA-4.0", "MIT", "unknown")
    assert union(reversed(parts)) == union(parts)
    assert union([]) == ()


def test_rows_without_a_license_have_the_datasets() -> None:
    assert of_rows(["", "MIT", ""], "Apache-2.0") == {"Apache-2.0", "MIT"}


@pytest.mark.parametrize(
    ("license_", "allowed", "passes"),
    [
        ("Apache-2.0", ("apache-2.0",), True),
        ("cc-by-4.0", ("CC-BY-4.0", "MIT"), True),
        ("MIT AND CC-BY-4.0", ("CC-BY-4.0", "MIT"), True),
        ("MIT AND CC-BY-NC-4.0", ("CC-BY-4.0", "MIT"), False),
        ("MIT AND NOASSERTION", ("MIT", "NOASSERTION"), False),
        ("", ("MIT", ""), False),
        ("MIT OR Apache-2.0", ("mit",), True),
        ("GPL-3.0-only OR Apache-2.0", ("MIT",), False),
        ("NOASSERTION OR MIT", ("MIT",), True),
        ("(MIT AND CC-BY-4.0)", ("CC-BY-4.0", "MIT"), True),
        ("(MIT OR Apache-2.0) AND CC-BY-4.0", ("CC-BY-4.0", "Apache-2.0"), True),
        ("(MIT OR Apache-2.0) AND CC-BY-4.0", ("MIT", "Apache-2.0"), False),
        ("MIT OR Apache-2.0 AND CC-BY-4.0", ("MIT",), True),
        ("(MIT OR", ("MIT",), False),
        ("(MIT", ("MIT",), False),
        ("RACE license (ours)", ("RACE license (ours)",), True),
        ("LicenseRef-ours", ("LicenseRef-ours",), True),
        ("CC-BY-NC-4.0", ("CC-BY-4.0",), False),
    ],
)
def test_a_conversation_passes_where_all_its_licenses_are_wanted(
    license_: str, allowed: tuple[str, ...], passes: bool
) -> None:
    assert is_allowed(license_, allowed) is passes


@pytest.mark.parametrize(
    ("license_", "said"),
    [
        ("CC-BY-4.0", "attribution"),
        ("cc-by-sa-3.0", "attribution, share alike"),
        ("CC-BY-NC-4.0", "attribution, non-commercial"),
        ("CC-BY-NC-ND-4.0", "attribution, non-commercial, no derivatives"),
        ("CC-BY-NC-SA-4.0", "attribution, non-commercial, share alike"),
        ("CC0-1.0", "asks for nothing"),
        ("mit", "keep the notices"),
        ("RACE license", "terms unknown here"),
        ("unknown", "no license is stated"),
    ],
)
def test_what_a_license_asks_for_is_said_where_it_is_known(license_: str, said: str) -> None:
    assert meaning(license_) == said


def test_an_expression_names_its_licenses_without_its_signs() -> None:
    assert union(["(mit OR Apache-2.0) AND CC-BY-4.0"]) == ("Apache-2.0", "CC-BY-4.0", "MIT")
    assert in_words("(mit OR apache-2.0) AND noassertion") == "(MIT OR Apache-2.0) AND unknown"


def test_of_an_unknown_license_nothing_is_claimed() -> None:
    assert terms_of("LicenseRef-research-only") is None
    assert parts_of("none") == ("unknown",)
