"""The page of the trainings in a real browser, from disk."""

from pathlib import Path

import pytest
from fakes.chromium import Chromium
from fakes.sample_results import COLUMNS, HOSTILE, ROWS, write_results
from fakes.sample_trainings import STEPS, write_trainings

from tasks.tabulate import TabulateParams, run_tabulate
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings

pytestmark = pytest.mark.needs_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tabulate")
    inputs = write_results(folder / "inputs", items=3) | write_trainings(folder / "trainings")
    params = TabulateParams(title="Sample", rows=ROWS, columns=COLUMNS)
    job = Job(
        name="tabulate[sample]", params=params, inputs=inputs, sources={}, out=folder / "out", work=folder / "work",
        publish=lambda metrics: None,
    )  # fmt: skip
    job.out.mkdir()
    run_tabulate(job, RunContext(profile=Profile(), settings=read_settings()))
    return job.out / "report" / "index.html"


@pytest.fixture(scope="module")
def page(report: Path, tmp_path_factory: pytest.TempPathFactory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        page = browser.open(report.as_uri())
        page.wait("document.querySelector('.results') !== null")
        page.run("[...document.querySelectorAll('.tools a')].find((a) => a.href.endsWith('training.html')).click()")
        page.wait("document.querySelector('figure svg') !== null")
        yield page


def test_the_results_lead_to_costs_and_a_curve_for_each_training(page) -> None:
    rows = page.run("[...document.querySelectorAll('.counts tbody tr')].map((row) => row.innerText)")
    assert len(rows) == 3
    assert f"{STEPS}" in rows[0]
    assert "missing" in rows[2]
    assert page.run("document.querySelectorAll('figure').length") == 3
    assert page.run("document.querySelectorAll('figure svg .line').length") == 2, "one could not be made"
    assert page.errors() == []


def test_another_curve_is_a_click_away(page) -> None:
    before = page.run("document.querySelector('figure svg .line').getAttribute('d')")
    page.run("[...document.querySelectorAll('.switch button')].find((b) => b.innerText === 'held-out loss').click()")
    assert page.run("document.querySelector('figure svg .line').getAttribute('d')") != before
    assert page.run("document.querySelectorAll('figure circle').length") == STEPS // 100 + 1
    assert page.run("[...document.querySelectorAll('figure .none')].map((p) => p.innerText)") == [
        "not measured",
        "missing",
    ]


def test_nothing_of_it_runs_or_asks_the_network(page, report: Path) -> None:
    assert HOSTILE.split("<")[1] in page.run("document.querySelector('.notes').textContent")
    assert page.run("document.querySelectorAll('img, main svg[onload], script:not([src])').length") == 0
    links = page.run("[...document.querySelectorAll('.counts a')].map((a) => a.href)")
    assert links == ["https://tracker.example/runs/1"]
    outside = [url for url in page.requests() if not url.startswith((report.parent.as_uri(), "data:"))]
    assert outside == []
