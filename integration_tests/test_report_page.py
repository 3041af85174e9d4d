"""The page of a report in a real Chromium: nothing is asked for, nothing fails, charts have marks, filters work, no text is run."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_rlfocal.cli import app
from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.outcomes import OutcomeTable

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("vl_convert", reason="the extra `report` is not installed")

CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'><svg onload='window.owned = 1'>"
    "</script><script>window.owned = 1</script>\u202egnirts\u202c javascript:window.owned=1 {{ 7*7 }} "
)

pytestmark = pytest.mark.skipif(
    not CHROMIUM.exists(), reason=f"there is no Chromium at {CHROMIUM}; CHROMIUM= names another"
)


def make_page(folder: Path, outcomes: Path, *options: str) -> Path:
    out = folder / "report.html"
    arguments = ["report", str(POLICY_PATH), str(outcomes), "--out", str(out), "--date", "2026-11-30", *options]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def page_path(tmp_path_factory) -> Path:
    """The report of the shipped policy on the outcomes that ship, with some metrics of a training."""
    folder = tmp_path_factory.mktemp("report")
    metrics = folder / "metrics.jsonl"
    metrics.write_text("".join(f'{{"step": {n}, "reward": {n / 40}, "entropy": {2 / n}}}\n' for n in range(1, 41)))
    return make_page(folder, POLICY_PATH.parent / "outcomes.parquet", "--metrics", str(metrics))


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory) -> Path:
    """The same with texts that would do harm, one of them a megabyte long."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        replace(
            row,
            task=f"{row.task} {HOSTILE}",
            query=row.query,
            gold=None if row.gold is None else f"{row.gold} {HOSTILE}",
            answer=None if row.answer is None else f"{row.answer} {HOSTILE}",
            response=f"{row.response or ''} {HOSTILE}" + "y" * 2000,
        )
        for row in OutcomeTable.read(POLICY_PATH.parent / "outcomes.parquet")
    ]
    rows = [replace(row, response=HOSTILE + "z" * 1_000_000) if at == 0 else row for at, row in enumerate(rows)]
    OutcomeTable.from_outcomes(rows).write(folder / "outcomes.parquet")
    return make_page(folder, folder / "outcomes.parquet", "--split", "all")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Open a page; what it says on the console and asks for is kept in `heard`."""
    contexts = []

    def go(path: Path, *, width: int = 1100, scheme: str = "light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        heard: list[str] = []
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function(
            "[...document.querySelectorAll('.chart')].filter(one => one.clientWidth).every(one => one.dataset.drawn)"
        )
        return page, heard

    yield go
    for context in contexts:
        context.close()


MARKS = "id => document.querySelectorAll(`#chart-${id} svg .role-mark path, #chart-${id} svg .role-mark line`).length"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_an_error_or_a_request_and_every_chart_has_marks(visit, page_path, scheme):
    page, heard = visit(page_path, scheme=scheme)
    assert [line for line in heard if not line.startswith("file:")] == []
    assert [line for line in heard if line.startswith("file:")] == [page_path.as_uri()]
    assert page.evaluate(MARKS, "spending-calls") >= 12, "ten baselines, the policy, and curves"
    assert page.evaluate(MARKS, "asking-any") == 16 * 6, "tasks and members"
    assert page.evaluate(MARKS, "calibration") >= 5
    assert page.evaluate(MARKS, "teams") >= 57, "teams of several of six members"
    assert page.evaluate(MARKS, "training-0") >= 40
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 26)"}[scheme]
    accent = page.evaluate("getComputedStyle(document.querySelector('#chart-training-0 .mark-line path')).stroke")
    assert accent == {"light": "rgb(11, 98, 189)", "dark": "rgb(108, 178, 255)"}[scheme], "charts follow the theme"


def test_another_view_of_a_chart_is_chosen_by_the_keyboard(visit, page_path):
    page, heard = visit(page_path)
    assert page.locator("#panel-asking-first").is_hidden()
    page.focus("input[name=asking-shown]:checked")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#chart-asking-first[data-drawn]")
    assert page.locator("#panel-asking-any").is_hidden()
    assert page.evaluate(MARKS, "asking-first") == 16 * 6
    page.focus("input[name=spending-shown]:checked")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#chart-spending-tokens[data-drawn]")
    assert page.evaluate(MARKS, "spending-tokens") >= 12
    page.click("text=more metrics")
    page.wait_for_selector("#chart-training-1[data-drawn]")
    assert heard == [page_path.as_uri()]


def shown(page) -> list[dict[str, str]]:
    return page.evaluate(
        "[...document.querySelectorAll('.case')].filter(one => !one.hidden).map(one => ({...one.dataset}))"
    )


def test_cases_are_filtered_by_effect_cause_task_and_words(visit, page_path):
    page, _ = visit(page_path)
    assert len(shown(page)) == 6, "the first of them"
    page.click("#show-more")
    total = len(shown(page))
    assert total > 20
    page.select_option("#by-effect", "hurt")
    hurt = shown(page)
    assert 0 < len(hurt) < total
    assert {case["effect"] for case in hurt} == {"hurt"}
    page.select_option("#by-cause", "fusion")
    assert {(case["effect"], case["cause"]) for case in shown(page)} == {("hurt", "fusion")}
    page.select_option("#by-effect", "")
    page.select_option("#by-cause", "")
    page.select_option("#by-task", "1")
    assert {case["task"] for case in shown(page)} == {"1"}
    page.select_option("#by-task", "")
    page.fill("#by-text", "DANUBE river")
    assert len(shown(page)) == 1
    assert page.inner_text("#found") == f"1 of {total} questions"
    page.fill("#by-text", "no such words at all")
    assert shown(page) == []
    page.click("#show-all")
    assert len(shown(page)) == total


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_page(visit, page_path, scheme):
    page, heard = visit(page_path, width=390, scheme=scheme)
    for unfold in page.query_selector_all("summary"):
        unfold.evaluate("one => { one.parentElement.open = true }")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    wide = page.evaluate("[...document.querySelectorAll('.chart svg')].filter(one => one.clientWidth > 390).length")
    assert wide == 0
    assert heard == [page_path.as_uri()]


def test_no_text_of_a_member_or_a_user_is_run_and_the_page_stays_small(visit, hostile_path):
    page, heard = visit(hostile_path)
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None
    assert page.evaluate("document.querySelectorAll('main img, .case script, .case svg').length") == 0
    assert page.locator(".case .text").filter(has_text=re.compile("window.owned = 1")).count() > 0, (
        "it is shown, as text"
    )
    page.hover("#chart-asking-any svg .mark-rect path >> nth=0")
    page.wait_for_timeout(200)
    assert page.evaluate("window.owned") is None, "nor in a tooltip"
    assert heard == [hostile_path.as_uri()]
    assert hostile_path.stat().st_size < 3_000_000
    assert page.evaluate("document.documentElement.scrollWidth") <= 1100


def test_what_a_text_would_run_if_it_got_into_the_page_is_refused_by_its_policy(visit, page_path):
    """The second wall, tried by itself: the same page, with a script and a handler written into it unescaped."""
    text = page_path.read_text(encoding="utf-8")
    broken = page_path.with_name("broken.html")
    broken.write_text(text.replace("<main", f"{HOSTILE}<main", 1), encoding="utf-8")
    page, heard = visit(broken)
    assert page.evaluate("window.owned") is None
    assert any("Content Security Policy" in line for line in heard)


def test_printed_it_is_black_on_white_in_any_theme(visit, page_path):
    page, _ = visit(page_path, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator("#filters").is_hidden()
