"""The report in a real browser, from disk: what a reader sees, does, and cannot be hurt by."""

import json
from pathlib import Path

import pytest
from fakes.chromium import Chromium, Page
from fakes.sample_results import COLUMNS, HOSTILE, LONG, ROWS, write_results

from tasks.tabulate import TabulateParams, run_tabulate
from tulu_pipeline.artifacts.stage import Job, RunContext
from tulu_pipeline.profile import Profile
from tulu_pipeline.reporting.build import Measurement, build_table
from tulu_pipeline.reporting.report import CellItems, write_report
from tulu_pipeline.reporting.table import Score
from tulu_pipeline.settings import read_settings
from tulu_pipeline.specs.benchmark import Completion, ItemScore

pytestmark = pytest.mark.needs_chromium


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tabulate")
    params = TabulateParams(
        title="A </script><script>document.title='pwned'</script> title",
        rows=ROWS,
        columns=COLUMNS,
        notes=("a <img src=x onerror=\"document.title='pwned'\"> note",),
    )
    job = Job(
        name="tabulate[sample]", params=params, inputs=write_results(folder / "inputs"), sources={},
        out=folder / "out", work=folder / "work", publish=lambda metrics: None,
    )  # fmt: skip
    job.out.mkdir()
    run_tabulate(job, RunContext(profile=Profile(), settings=read_settings()))
    return job.out / "report" / "index.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Chromium(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser, report):
    browser.events.clear()
    page = browser.open(report.as_uri())
    page.wait("document.querySelector('.results') !== null")
    yield page
    page.call("Page.close")


def open_cell(page: Page, address: str) -> None:
    page.run(f"location.hash = {json.dumps(address)}")
    page.wait("document.querySelector('#item h2') !== null")


def chosen(page: Page) -> str:
    return page.run("document.querySelector('#item h2').textContent")


def listed(page: Page) -> list[str]:
    return page.run("[...document.querySelectorAll('#list a')].map((a) => a.dataset.item)")


def test_the_table_shows_every_cell_and_says_which_are_missing(page):
    texts = page.run(
        "[...document.querySelectorAll('.results tbody tr:not(.base)')]"
        ".map((tr) => [...tr.querySelectorAll('td')].map((td) => td.className + '|' + td.innerText))"
    )
    assert len(texts) == len(ROWS)
    assert {len(row) for row in texts} == {len(COLUMNS) + 1}
    assert texts[0][3].endswith("|–")
    assert texts[3][2].endswith("|missing")
    assert texts[1][1].startswith("raised|")
    assert "66.0" in texts[1][1]
    assert texts[1][2].startswith("lowered|")
    assert texts[1][0].startswith("raised pale|")

    assert page.errors() == []


def test_nothing_is_asked_of_the_network(page, report):
    open_cell(page, "tiny%2Barithmetic/gsm_cot")
    folder = report.parent.as_uri()
    outside = [url for url in page.requests() if not url.startswith((folder, "data:"))]
    assert page.requests()
    assert outside == []


def test_pointing_at_a_cell_tells_n_interval_and_scorers(page):
    page.point('a[href="#tiny%2Barithmetic/gsm_cot"]')
    page.wait("!document.getElementById('tip').hidden")
    tip = page.run("document.getElementById('tip').innerText")
    for wanted in ("items\n50", "52.2 to 77.6", "paper", "strict", "against untuned"):
        assert wanted in tip


def test_the_switch_shows_the_other_scorer_and_marks_what_stands_in(page):
    before = page.run("document.querySelector('a[href=\"#tiny/gsm_cot\"]').innerText")
    page.press("s")
    after = page.run("document.querySelector('a[href=\"#tiny/gsm_cot\"]').innerText")
    assert before.startswith("12.0")
    assert after.startswith("36.0")
    assert "†" in page.run("document.querySelector('a[href=\"#tiny/tydiqa_gp\"]').innerText")
    assert "TyDiQA GP" in page.run("document.querySelector('.notes').innerText")


def test_clicking_a_cell_opens_its_items_and_the_keyboard_walks_them(page):
    page.point('a[href="#tiny%2Barithmetic/gsm_cot"]', click=True)
    page.wait("document.querySelectorAll('#list a').length === 50")
    assert chosen(page) == "gsm/0"
    page.press("j")
    page.press("j")
    page.press("k")
    assert chosen(page) == "gsm/1"
    assert page.run("location.hash") == "#tiny%2Barithmetic/gsm_cot/gsm%2F1"
    page.press("Escape")
    page.wait("document.getElementById('items').hidden && !document.getElementById('overview').hidden")
    assert page.errors() == []


def test_an_address_opens_its_item_and_the_address_follows_the_reader(browser, report):
    page = browser.open(report.as_uri() + "#tiny%2Bfacts/mmlu_0shot/astronomy%2F6")
    page.wait("document.querySelector('#item h2') !== null")
    assert chosen(page) == "astronomy/6"
    assert page.run("document.querySelector('#list a[aria-current]').dataset.item") == "astronomy/6"


def test_an_item_shows_the_exact_prompt_completion_answers_and_scores(page, report):
    inputs = report.parents[2] / "inputs" / "tiny+arithmetic" / "gsm_cot"
    completion = json.loads((inputs / "generate" / "completions.jsonl").read_text().splitlines()[5])
    score = json.loads((inputs / "score" / "items.jsonl").read_text().splitlines()[5])
    open_cell(page, "tiny%2Barithmetic/gsm_cot/gsm%2F5")
    page.press("p")
    shown = page.run("[...document.getElementById('prompt').childNodes].slice(1).map((n) => n.textContent).join('')")
    assert shown == completion["prompt"]
    assert page.run("document.querySelector('.completion').textContent") == completion["texts"][0]
    assert page.run("document.querySelector('.completion mark').textContent") == score["extracted"]["paper"]
    assert page.run("document.querySelector('.gold code').textContent") == score["gold"]
    verdict = page.run("document.querySelector('.verdict').innerText")
    assert "paper" in verdict
    assert "strict" in verdict


def test_prompts_of_every_script_survive_the_front_coding(page, report):
    for metric in ("tydiqa_gp", "alpaca_eval", "mmlu_0shot"):
        folder = report.parents[2] / "inputs" / "tiny+facts" / metric / "generate"
        wanted = [json.loads(line)["prompt"] for line in (folder / "completions.jsonl").read_text().splitlines()]
        loaded = page.run(f"report.load('tiny+facts/{metric}').then((items) => items.map((item) => item.prompt))")
        assert loaded == wanted


def test_choices_are_bars_of_their_probabilities(page):
    open_cell(page, "tiny%2Bfacts/mmlu_0shot/astronomy%2F6")
    widths = page.run("[...document.querySelectorAll('.bars .track i')].map((i) => parseFloat(i.style.width))")
    printed = page.run(
        "[...document.querySelectorAll('.bars .share:nth-child(3)')].map((td) => parseFloat(td.innerText))"
    )
    assert len(widths) == 4
    assert widths == pytest.approx(printed, abs=0.1)
    assert "right answer" in page.run("document.querySelector('.bars .gold').innerText")


def test_filters_and_search_narrow_the_list(page):
    open_cell(page, "tiny%2Barithmetic/gsm_cot")
    flagged = "[...document.querySelectorAll('#filters button')].find((b) => b.innerText.startsWith('flagged'))"
    page.run(f"{flagged}.click()")
    assert listed(page) == ["gsm/3", "gsm/7", "gsm/12", "gsm/25", "gsm/38"]
    page.run("[...document.querySelectorAll('#filters button')].find((b) => b.innerText.startsWith('all')).click()")
    page.press("/")
    page.type("BASKET HOLDS 42")
    page.wait("document.querySelectorAll('#list a').length === 1")
    assert listed(page) == ["gsm/31"]
    assert chosen(page) == "gsm/31"
    page.run("document.getElementById('search').value = ''")


def test_two_models_stand_side_by_side_on_one_item(page):
    open_cell(page, "tiny%2Barithmetic/gsm_cot/gsm%2F5")
    page.run("(() => { const s = document.getElementById('pick-beside'); s.value = 'tiny';"
             " s.dispatchEvent(new Event('change')); })()")  # fmt: skip
    page.wait("document.querySelectorAll('.answers .completion, .answers .none').length === 2")
    buttons = page.run("[...document.querySelectorAll('#filters button')].map((b) => b.innerText.split(' ')[0])")
    assert "gained" in buttons
    page.run("[...document.querySelectorAll('#filters button')].find((b) => b.innerText.startsWith('gained')).click()")
    gained = page.run(
        "(async () => { const [a, b] = await Promise.all(['tiny+arithmetic/gsm_cot', 'tiny/gsm_cot'].map(report.load));"
        " return a.filter((item, i) => item.scores.paper > b[i].scores.paper).map((item) => item.id); })()"
    )
    assert gained
    assert listed(page) == gained


def press_filter(page: Page, name: str) -> None:
    page.run(f"[...document.querySelectorAll('#filters button')].find((b) => b.innerText.startsWith('{name}')).click()")


def test_each_way_an_answer_can_go_wrong_is_a_filter(page):
    open_cell(page, "tiny%2Barithmetic/gsm_cot")
    for name, wanted in (
        ("no answer found", ["gsm/3", "gsm/7", "gsm/12", "gsm/25", "gsm/38"]),
        ("empty", ["gsm/7"]),
        ("truncated", ["gsm/12", "gsm/25", "gsm/38"]),
    ):
        press_filter(page, name)
        assert listed(page) == wanted
    open_cell(page, "tiny%2Barithmetic/alpaca_eval")
    filters = page.run("document.getElementById('filters').innerText")
    assert "not preferred" in filters
    assert "wrong" not in filters
    press_filter(page, "judge flipped")
    assert listed(page) == ["alpaca_eval/6", "alpaca_eval/26", "alpaca_eval/46"]
    assert page.errors() == []


def test_counts_of_odd_answers_open_the_items_they_count(page):
    odd = page.run("document.querySelector('.odd').innerText")
    assert "5 no answer found" in odd
    assert "3 judge flipped" in odd
    page.point('.odd a[href="#tiny%2Bfacts/gsm_cot?filter=truncated"]', click=True)
    page.wait("document.querySelectorAll('#list a').length === 3")
    assert listed(page) == ["gsm/12", "gsm/25", "gsm/38"]


def test_a_judges_reply_stands_beside_what_it_judged(page):
    open_cell(page, "tiny%2Bfacts/alpaca_eval/alpaca_eval%2F8")
    assert "sample_judge" in page.run("document.querySelector('.reply').innerText")
    said = page.run("[...document.querySelectorAll('#item h4 + pre')].map((pre) => pre.textContent)")
    assert said == ["[{'model': 'model_1', 'rank': 1}, {'model': 'model_2', 'rank': 2}]"] * 2
    first_shown = page.run("[...document.querySelectorAll('#item h4 small')].map((small) => small.textContent)")
    assert ["shown first: the model's answer" in each for each in first_shown] == [True, False]
    told = page.run("document.getElementById('item').innerText")
    assert "Reference's answer" in told
    assert "Right answer" not in told
    assert "ended by the model itself" in told
    score = page.run("document.querySelector('.verdict .now').innerText").split("\t")
    preferred = {"1": "the model's answer", "0": "the reference's answer", "0.500": "neither: a tie"}
    assert score[2] == preferred[score[1].split()[1]]
    assert f"preferred\n{score[2]}" in page.run("document.querySelector('.reply').innerText")
    open_cell(page, "tiny%2Bfacts/alpaca_eval/alpaca_eval%2F3")
    page.wait("document.querySelector('#item h2').textContent === 'alpaca_eval/3'")
    assert page.run("document.querySelector('#item h4 + pre').textContent") == HOSTILE
    assert page.run("document.title").startswith("A </script>")


def test_an_address_names_the_model_beside_and_the_filter(browser, report):
    page = browser.open(report.as_uri() + "#tiny%2Barithmetic/gsm_cot/gsm%2F6?beside=tiny&filter=gained")
    page.wait("document.querySelectorAll('.answers.two').length === 1")
    assert chosen(page) == "gsm/6"
    assert "gsm/5" not in listed(page)
    assert page.run("document.getElementById('pick-beside').value") == "tiny"
    press_filter(page, "the two differ")
    page.press("j")
    assert page.run("location.hash.split('?')[1]") == "beside=tiny&filter=apart"
    again = browser.open(page.run("location.href"))
    again.wait("document.querySelectorAll('.answers.two').length === 1")
    assert (chosen(again), listed(again)) == (chosen(page), listed(page))


def test_a_hundred_kilobytes_of_odd_text_are_shown_as_they_are(page):
    open_cell(page, "tiny%2Bfacts/alpaca_eval/alpaca_eval%2F5")
    page.wait("document.querySelector('#item h2').textContent === 'alpaca_eval/5'")
    shown = page.run(
        "JSON.stringify([...document.querySelectorAll('.completion')].map((pre) => pre.textContent)[0])"
        ".replace(/[^ -~]/g, (c) => '\\\\u' + c.charCodeAt(0).toString(16).padStart(4, '0'))"
    )
    assert json.loads(shown) == LONG
    assert page.run("document.querySelectorAll('#item b').length") == 0
    # What turns the direction of text ends with the box that it stands in.
    assert page.run("getComputedStyle(document.querySelector('.completion')).unicodeBidi") == "plaintext"
    assert page.run("getComputedStyle(document.querySelector('#list .snippet')).unicodeBidi") == "isolate"
    assert page.errors() == []


def test_values_by_group_are_shown_for_each_column_that_has_groups(page):
    assert page.run("document.querySelectorAll('.groups tbody tr').length") == 5  # subjects
    texts = page.run("[...document.querySelectorAll('.groups thead th')].map((th) => th.innerText)")
    assert texts == [
        "5 groups",
        "items",
        "tiny · untuned",
        "tiny · arithmetic",
        "tiny · facts",
        "tiny · arithmetic + facts",
    ]
    page.run("[...document.querySelectorAll('.which button')].find((b) => b.innerText === 'TyDiQA GP').click()")
    assert "japanese" in page.run("document.querySelector('.groups tbody').innerText")


def test_a_cell_of_all_of_mmlu_opens_at_its_last_item_and_draws_only_a_part_of_the_list(browser, tmp_path):
    items = [
        ItemScore(item_id=f"s{n // 246}/{n}", group=f"s{n // 246}", scores={"paper": float(n % 3 == 0)}, extracted={})
        for n in range(14_042)
    ]
    asked = {
        each.item_id: Completion(item_id=each.item_id, prompt=f"{each.group} " * 400 + each.item_id, prompt_tokens=1)
        for each in items
    }
    score = Score(scorer="paper", value=0.3, low=0.2, high=0.4, n=14_042, standard_error=0.1, method="clustered")
    measured = {("tiny", "mmlu_0shot"): Measurement(headline="paper", scores={"paper": score})}
    table = build_table(title="all", rows=ROWS[:1], columns=COLUMNS[:1], measured=measured)
    write_report(table, [CellItems(row="tiny", metric="mmlu_0shot", items=items, completions=asked)], tmp_path)
    page = browser.open((tmp_path / "index.html").as_uri() + "#tiny/mmlu_0shot/s57%2F14041")
    page.wait("document.querySelector('#item h2')?.textContent === 's57/14041'")
    assert page.run("document.querySelectorAll('#list a').length") <= 400
    assert page.run("document.querySelector('#list a[aria-current]').dataset.item") == "s57/14041"
    before = listed(page)[0]
    page.run("document.querySelector('#list .more button').click()")
    assert listed(page).index(before) == 200
    page.press("k")
    assert chosen(page) == "s57/14040"
    press_filter(page, "right")
    assert chosen(page) == "s57/14040"  # it is among them
    assert page.run("document.querySelector('.place').textContent") == "4,681 of 4,681"
    assert page.run("document.querySelectorAll('#list a').length") <= 400


def test_what_a_model_wrote_never_runs(page):
    for address in ("tiny%2Barithmetic/gsm_cot/gsm%2F3", "tiny/gsm_cot/gsm%2F3"):
        open_cell(page, address)
        page.wait("document.querySelector('#item h2').textContent === 'gsm/3'")
        assert page.run("document.querySelector('.completion').textContent") == HOSTILE
    page.press("Escape")
    page.wait("document.getElementById('items').hidden")
    assert "onerror" in page.run("document.querySelector('.notes').textContent")
    assert page.run("document.querySelectorAll('img, main svg[onload], script:not([src])').length") == 0
    assert page.run("document.title") == "A </script><script>document.title='pwned'</script> title"
    assert page.errors() == []


def test_the_page_itself_refuses_code_that_got_into_it(page):
    """The second wall: were markup ever parsed by mistake, the page's policy would not run it."""
    page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    page.run("new Promise((done) => setTimeout(done, 300))")
    assert page.run("document.title").startswith("A </script>")
    assert any("Content Security Policy" in error for error in page.errors())


def test_a_cell_whose_file_is_gone_says_so(browser, report):
    moved = report.parent / "data" / "tiny-tydiqa_gp.js"
    hidden = moved.with_suffix(".hidden")
    moved.rename(hidden)
    try:
        page = browser.open(report.as_uri() + "#tiny/tydiqa_gp")
        page.wait("document.querySelector('.message')?.textContent.includes('is not there')")
    finally:
        hidden.rename(moved)
