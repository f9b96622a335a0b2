"""The code of docs/mixtures.md runs."""

import re
from pathlib import Path
from typing import Any

from tulu_pipeline.specs.mixture import Mixture

_PAGE = Path(__file__).parents[2] / "docs" / "mixtures.md"


def test_the_code_of_the_page_runs() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL):
        exec(block, names)
    careful: Mixture = names["CAREFUL"]
    assert careful.caps() == (10_000, None, None, None)
    assert names["HALVES"].caps() == (10_000, 10_000)
    assert names["OWN"].template == "own"
    assert set(names["TOKENIZER"].sources) == {"tokenizer.json", "tokenizer_config.json"}
