"""The page of the data in a real browser, from disk: the counts, the lengths, and the tokens as they are."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.chromium import Chromium, Page
from fakes.sample_data import DATA, HOSTILE, write_described
from fakes.sample_results import COLUMNS, ROWS, write_results

from tasks.tabulate import TabulateParams, data_input, run_tabulate
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.profile import Profile
from tulu_pipeline.settings import read_settings

pytestmark = pytest.mark.needs_chromium
PARAMS = TabulateParams(title="The <b>data</b>", rows=(), columns=(), data=DATA, data_tokenizer="tiny")


def tabulate(folder: Path, params: TabulateParams, inputs: dict[str, Path | None]) -> Path:
    job = Job(
        name="tabulate[sample]", params=params, inputs=inputs, sources={}, out=folder / "out", work=folder / "work",
        publish=lambda metrics: None,
    )  # fmt: skip
    job.out.mkdir(parents=True)
    run_tabulate(job, RunContext(profile=Profile(), settings=read_settings()))
    return job.out / "report"


@pytest.fixture(scope="module")
def described(tmp_path_factory, llama_like) -> dict[str, Path | None]:
    folder = tmp_path_factory.mktemp("described")
    return {data_input(name): path for name, path in write_described(folder, llama_like).items()}


@pytest.fixture(scope="module")
def report(tmp_path_factory, described) -> Path:
    return tabulate(tmp_path_factory.mktemp("data"), PARAMS, described)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, report):
    browser.events.clear()
    page = browser.open((report / "index.html").as_uri())
    page.wait("document.querySelector('.tokens') !== null")
    yield page
    page.call("Page.close")


def records(described: dict[str, Path | None], name: str) -> list[dict]:
    folder = described[data_input(name)]
    assert folder is not None
    return json.loads((folder / "shown.json").read_text())


def open_conversation(page: Page, name: str, record: dict) -> None:
    page.run(f"location.hash = [{json.dumps(name)}, {json.dumps(record['id'])}].map(encodeURIComponent).join('/')")
    page.wait(f"document.querySelector('.which code')?.textContent === {json.dumps(record['id'])}")


def test_table_1_has_ours_the_papers_and_what_is_missing(page):
    rows = page.run(
        "[...document.querySelector('.counts').querySelectorAll('tbody tr')]"
        ".map((tr) => [...tr.children].map((cell) => cell.innerText))"
    )
    assert [row[0] for row in rows] == [
        "Alpaca",
        "Code Alpaca:sample\nsample: 2,017 of 20,022",
        "Our | own <b>",
        "Gone",
    ]
    assert rows[0][1].split("\n")[0] == "40"
    assert "paper 52,002" in rows[0][1]
    assert "−99.9 %" in rows[0][1]
    assert "%" not in rows[1][1]  # a sample is not compared
    assert rows[3][1] == "missing"
    assert page.run("document.querySelector('h1').textContent") == "The <b>data</b>"
    assert page.errors() == []


def test_the_histogram_has_every_conversation_in_a_bin(page, described):
    folder = described[data_input("alpaca")]
    assert folder is not None
    lengths = json.loads((folder / "statistics.json").read_text())["lengths"]
    heights = page.run(
        "[...document.querySelector('figure').querySelectorAll('.bar')].map((bar) => +bar.getAttribute('height'))"
    )
    assert len(heights) == len(lengths)
    assert [height / max(heights) for height in heights] == pytest.approx([count / max(lengths) for count in lengths])
    most = lengths.index(max(lengths))
    page.point(f"figure svg .target:nth-of-type({2 * most + 1})")
    page.wait("!document.getElementById('tip').hidden")
    assert f"{max(lengths)} conversations" in page.run("document.getElementById('tip').innerText")


@pytest.mark.parametrize("name", ["alpaca", "own"])
def test_a_conversation_has_every_token_and_marks_what_is_learned(page, described, name):
    record = records(described, name)[1]
    open_conversation(page, name, record)
    tokens = page.run(
        "[...document.querySelectorAll('.tokens i')].map((i) => [i.textContent, i.parentElement.tagName === 'INS',"
        " i.className])"
    )
    shown = [record["shown"].get(str(place), text) for place, text in enumerate(record["texts"])]
    assert [text.replace("↵", "\n").replace("⇥", "\t").replace("·", " ") for text, _, _ in tokens] == shown
    assert "".join("01"[learned] for _, learned, _ in tokens) == record["supervised"]
    assert [place for place, (_, _, kind) in enumerate(tokens) if kind == "control"] == record["control"]
    facts = page.run("document.querySelector('.facts').innerText")
    assert f"{len(tokens)} tokens · {record['supervised'].count('1')} learned" in facts


def test_the_keyboard_walks_the_conversations(page, described):
    ids = [record["id"] for record in records(described, "alpaca")]
    shown = "document.querySelector('.which code').textContent"
    page.press("j")
    page.wait(f"{shown} === {json.dumps(ids[1])}")
    page.press("k")
    page.wait(f"{shown} === {json.dumps(ids[0])}")
    page.press("k")
    page.wait(f"{shown} === {json.dumps(ids[2])}")


def test_an_address_opens_its_conversation(browser, report, described):
    record = records(described, "own")[2]
    page = browser.open((report / "index.html").as_uri() + f"#own/{record['id']}")
    page.wait(f"document.querySelector('.which code')?.textContent === {json.dumps(record['id'])}")
    page.call("Page.close")


def test_what_a_dataset_holds_never_runs(page, described):
    open_conversation(page, "own", records(described, "own")[0])
    assert page.run("document.title") == "The <b>data</b>: the data"
    assert page.run("document.querySelectorAll('img, script:not([src])').length") == 0
    assert HOSTILE in page.run("document.querySelector('.reasons').innerText")
    assert page.errors() == []


def test_nothing_is_asked_of_the_network(page, report):
    outside = [url for url in page.requests() if not url.startswith((report.as_uri(), "data:"))]
    assert page.requests()
    assert outside == []


def test_results_and_data_lead_to_each_other(browser, described, tmp_path):
    params = replace(PARAMS, rows=ROWS, columns=COLUMNS)
    report = tabulate(tmp_path, params, described | write_results(tmp_path / "results", items=10))
    browser.events.clear()
    page = browser.open((report / "index.html").as_uri())
    page.wait("document.querySelector('.results') !== null")
    page.point("a[href='data.html']", click=True)
    page.wait("location.pathname.endsWith('data.html') && document.querySelector('.tokens') !== null")
    page.point("a[href='index.html']", click=True)
    page.wait("location.pathname.endsWith('index.html') && document.querySelector('.results') !== null")
    assert page.errors() == []
    page.call("Page.close")


def test_a_dataset_whose_file_is_gone_says_so(browser, report):
    file = report / "data" / "shown" / "own.js"
    hidden = file.with_suffix(".hidden")
    file.rename(hidden)
    try:
        page = browser.open((report / "index.html").as_uri() + "#own")
        page.wait("document.querySelector('.message')?.textContent.includes('is not there')")
    finally:
        hidden.rename(file)
