"""The code of docs/judges.md runs."""

import functools
import re

from doc_pages import blocks, page

from tulu_pipeline.benchmarks import alpaca_eval
from tulu_pipeline.specs.api_model import ApiModel
from tulu_pipeline.specs.experiment import Experiment
from tulu_pipeline.specs.judge import Annotator

_PAGE = page("judges")


def test_the_pages_code_makes_the_values_it_speaks_of() -> None:
    bare = functools.partial(
        Experiment, name="x", title="x", hypothesis="", models=(), mixtures=(), benchmarks={"alpaca_eval": ()}
    )
    names: dict[str, object] = {"alpaca_eval": alpaca_eval}
    found = []
    for block in blocks(_PAGE):
        names["Experiment"] = bare
        code = re.sub(r"Experiment\(\s*\.\.\.,\s", "Experiment(", block).replace(
            "from tulu_pipeline.specs.experiment import Experiment", ""
        )
        exec(compile(code, "docs/judges.md", "exec"), names)
        found.append(names.get("EXPERIMENT"))
    first, judge, last = found[0], names["judge"], found[-1]
    assert isinstance(first, Experiment)
    assert first.judges == {"alpaca_eval": alpaca_eval.GPT4_0613}
    assert isinstance(judge, Annotator)
    assert judge.provider == "local"
    assert isinstance(last, Experiment)
    assert [type(each) for each in last.api_models] == [ApiModel] * 3
