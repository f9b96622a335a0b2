"""The code of docs/mixtures.md runs."""

from typing import Any

from doc_pages import blocks, page

from tulu_pipeline.specs.mixture import Mixture

_PAGE = page("mixtures")


def test_the_code_of_the_page_runs() -> None:
    names: dict[str, Any] = {}
    for block in blocks(_PAGE):
        exec(block, names)
    careful: Mixture = names["CAREFUL"]
    assert careful.caps() == (10_000, None, None, None)
    assert names["HALVES"].caps() == (10_000, 10_000)
    assert names["OWN"].template == "own"
    assert set(names["TOKENIZER"].sources) == {"tokenizer.json", "tokenizer_config.json"}
