"""The page of a report: whole, closed to the world, the same for the same facts; and how `rlfocal report` refuses."""

import hashlib
import json
import re
import sys
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from langchain_rlfocal.cli.reporting import _date
from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.reporting import page as page_module
from langchain_rlfocal.testing import make_outcomes

pytest.importorskip("altair", reason="the extra `report` is not installed")
pytest.importorskip("vl_convert", reason="the extra `report` is not installed")

VOID = {"meta", "link", "input", "br", "hr", "img"}
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u202e{{ 7*7 }}</article>"
)


@pytest.fixture(scope="module", autouse=True)
def _small_library():
    """Vega's scripts take seconds to bundle; what runs in a browser is tested in one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "_library", lambda *_: 'const text = "<!-- </script>";')
        yield


@pytest.fixture(scope="module")
def drawn(cli, tmp_path_factory, quiz_policy):
    """Outcomes to the page that the command writes of them; each is drawn once, however many tests look at it."""
    folder = tmp_path_factory.mktemp("pages")
    quiz_policy.save(folder / "policy")
    pages = {}

    def draw(rows, *options):
        key = (id(rows), options)
        if key not in pages:
            table, out = folder / f"{id(rows)}.parquet", folder / "report.html"
            OutcomeTable.from_outcomes(rows).write(table)
            args = ("report", folder / "policy", table, "--out", out, "--date", "2026-11-30", *options)
            result = cli.run(*args)
            assert result.exit_code == 0, result.output
            pages[key] = out.read_text(encoding="utf-8"), result.stdout, rows  # kept: an id is one of what lives
        return pages[key][:2]

    return draw


@pytest.fixture(scope="module")
def page(drawn, quiz):
    """The page of the quiz."""
    return drawn(quiz)[0]


@pytest.fixture(scope="module")
def hostile():
    """Outcomes whose texts and names would do harm, and are long, in the quiz's members."""
    rows = make_outcomes({f"quiz/{HOSTILE}": {"ann": 0.6, "bob": 0.5}}, num_queries=40)
    return [
        replace(row, query=row.query + HOSTILE + "x" * 50_000, response=f"{row.answer} {HOSTILE}\x00" + "y" * 50_000)
        for row in rows
    ]


class Reader(HTMLParser):
    """What a page holds: elements that are open and not closed, ids, what is loaded, and its scripts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.loads, self.attributes = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.ids += [given["id"]] if "id" in given else []
        self.loads += [(tag, given[name]) for name in ("src", "href", "action", "data", "srcset") if name in given]
        self.attributes += [name for name, _ in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def test_a_page_is_whole_and_loads_nothing(page):
    read = Reader(page)
    assert read.open == []
    assert len(read.ids) == len(set(read.ids))
    assert all(where.startswith(("#", "data:")) for _, where in read.loads), read.loads
    assert "url(" not in page
    assert "@import" not in page
    assert not [name for name in read.attributes if name.startswith("on")]


def test_only_the_pages_own_scripts_may_run_and_nothing_may_be_asked_for(page):
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#39;", "'")
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = {f"'sha256-{b64encode(hashlib.sha256(one.encode()).digest()).decode()}'" for one in scripts}
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert len(scripts) == 2
    assert set(rules["script-src"].split()) == digests
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules


def test_each_chart_says_what_it_shows_and_has_a_table_beside_it(page):
    charts = re.findall(r'<div class="chart" id="chart-([^"]+)" role="img" aria-label="([^"]{30,})">', page)
    specs = json.loads(re.search(r'id="charts">(.*?)</script>', page, re.DOTALL)[1])
    assert [name for name, _ in charts] == list(specs)
    assert {"spending-calls", "asking-any", "asking-first", "asking-returned", "calibration", "teams"} <= set(specs)
    assert all(spec["width"] == "container" for spec in specs.values())
    for name, _ in charts:
        panel = page[page.index(f'id="panel-{name}"') :]
        assert "<table>" in panel[: panel.index("</figure>")]


def test_hostile_texts_and_names_are_escaped_and_cut(drawn, hostile):
    text, _ = drawn(hostile, "--split", "all")
    page = Reader(text)
    assert page.open == []
    assert HOSTILE not in text
    assert "<script>document" not in text
    assert "<img" not in text
    assert "\x00" not in text
    assert "&lt;script&gt;document.title" in text
    assert "more characters" in text
    assert not [name for name in page.attributes if name.startswith("on")]
    assert len(text) < 1_000_000


def test_the_same_facts_give_the_same_bytes_but_for_the_date(drawn, page, quiz):
    later, _ = drawn(quiz, "--date", "2026-12-01")
    assert later != page
    assert later.replace("2026-12-01", "2026-11-30") == page


def test_the_date_is_that_of_the_source_where_one_is_set(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1764460800")
    assert _date(None) == "2025-11-30"
    assert _date("2026-11-30") == "2026-11-30"


def test_without_texts_no_question_is_in_the_page(drawn, page, quiz):
    assert "which of A, B, C, D is right?" in page
    text, _ = drawn(quiz, "--no-texts")
    assert "which of A, B, C, D is right?" not in text
    assert "Questions and replies are left out" in text
    assert "helped by" in text


def test_what_training_left_is_drawn_and_without_it_the_section_says_how_to_get_it(drawn, page, quiz, tmp_path):
    assert "rlfocal train writes it" in page
    lines = [json.dumps({"step": n, "reward": n / 10, "calls": 2.0, "validation": 0.5}) for n in range(1, 6)]
    metrics = tmp_path / "policy.metrics.jsonl"
    metrics.write_text("\n".join(lines), encoding="utf-8")
    text, _ = drawn(quiz, "--metrics", str(metrics))
    assert "rlfocal train writes it" not in text
    assert 'id="chart-training-0"' in text


def test_what_the_command_prints_is_the_headline_and_where_the_page_is(drawn, quiz):
    shown = " ".join(drawn(quiz)[1].split())
    assert shown.startswith("On ")
    assert "questions that training had not seen" in shown
    assert "report.html, " in shown


def test_notes_say_what_is_missing(drawn, page, quiz):
    """Bob did not answer queries 0 to 9 of the first task."""
    gaps = [o for o in quiz if (o.model, o.task) != ("bob", "quiz/a") or int(o.query_id) >= 10]
    text, _ = drawn(gaps, "--split", "all")
    assert "Questions that not every member was asked: 10 of 300." in text
    assert "know all but the training&#39;s test rows" in text
    assert "may have learned from them" in text
    assert "questions are few" in page
    assert "questions are few" not in text, "these are all 300"


# ---- contrast, by the rules of WCAG 2


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, two):
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def mixed(over, ground, share):
    values = [
        round(int(over[at : at + 2], 16) * share + int(ground[at : at + 2], 16) * (1 - share)) for at in (1, 3, 5)
    ]
    return "#" + "".join(f"{value:02x}" for value in values)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_can_be_told_from_their_ground(theme):
    style = page_module._part("page.css")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[theme]))
    for ground in ("ground", "raised"):
        for text in ("ink", "muted", "accent"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["edge"], colours["ground"]) >= 3
    full = mixed(colours["heat"], colours["ground"], 0.72)
    assert contrast(colours["ink"], full) >= 4.5, "a number in a full cell"
    from langchain_rlfocal.reporting.charts import size_colours  # noqa: PLC0415  # needs the extra

    ends = (page_module._LIGHT_SIZES, page_module._DARK_SIZES)[theme]
    for colour in size_colours(6, low=ends[0], high=ends[1]):
        assert contrast(colour, colours["ground"]) >= 3, colour


# ---- refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), ("--out", "--json")),
        (("--out", "nowhere/report.html"), ("--out", "nowhere")),
        (("--out", "."), ("--out",)),
        (("--out", "report.html", "--date", "yesterday"), ("--date", "yesterday")),
        (("--out", "report.html", "--metrics", "absent.jsonl"), ("absent.jsonl",)),
        (("--out", "report.html", "--cost-weight", 1, "--target-calls", 1), ("--cost-weight", "--target-calls")),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_nothing_is_written(cli, checkpoint, outcomes, options, words):
    cli.assert_refused(cli.run("report", checkpoint, outcomes, *options), *words)
    assert not Path("report.html").exists()


def test_a_wrong_epoch_is_refused(cli, checkpoint, outcomes, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    cli.assert_refused(cli.run("report", checkpoint, outcomes, "--out", "r.html"), "SOURCE_DATE_EPOCH", "soon")


def test_a_checkpoint_of_another_pool_is_refused(cli, outcomes):
    cli.assert_refused(cli.run("report", POLICY_PATH, outcomes, "--out", "report.html"), "members", "gemma3")


def test_outcomes_without_a_score_or_a_test_row_are_refused(cli, checkpoint, quiz):
    rows = [replace(row, reward=None) for row in quiz]
    OutcomeTable.from_outcomes(rows).write("unscored.parquet")
    cli.assert_refused(cli.run("report", checkpoint, "unscored.parquet", "--out", "report.html"), "score")
    one = next(row for row in quiz if row.query_id == "0")
    few = [Outcome(task="t", query_id="1", query=one.query, model=m, answer="A", reward=1.0) for m in ("ann", "bob")]
    OutcomeTable.from_outcomes(few).write("few.parquet")
    parts = {
        part: cli.run("report", checkpoint, "few.parquet", "--split", part, "--json") for part in ("test", "train")
    }
    refused = [part for part, result in parts.items() if result.exit_code]
    assert refused, "one question is in one part alone"
    cli.assert_refused(parts[refused[0]], f"`--split {refused[0]}` must hold at least one query")
    assert not Path("report.html").exists()


def test_without_the_extra_the_install_command_is_named(cli, checkpoint, outcomes, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    result = cli.run("report", checkpoint, outcomes, "--out", "report.html")
    cli.assert_refused(result, "pip install 'langchain-rlfocal[report]'", "--json")
    assert cli.said("report", checkpoint, outcomes)["questions"] > 0, "the facts need no altair"
