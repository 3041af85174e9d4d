"""What the docs show is true: snippets run, commands exist, figures are those of the files that ship, links lead somewhere."""

import ast
import asyncio
import inspect
import json
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, ToolMessage
from typer.testing import CliRunner

import langchain_rlfocal
from langchain_rlfocal.cli import app
from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.features import FEATURES_DIM, load_embedder
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts, _shapes
from langchain_rlfocal.testing import JudgingChatModel, make_outcomes
from support_schema_model import SchemaChatModel

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
HOW_TOS = sorted(page for page in (ROOT / "docs/how-to").glob("*.md") if page.name != "README.md")
INTEGRATION_PAGE = ROOT / "docs/how-to/use-in-langchain.md"
GROUPS = {group.name for group in app.registered_groups}
TASK_PAGES = [
    ROOT / f"docs/how-to/{name}.md"
    for name in (
        "agent",
        "agreement",
        "batch",
        "chain",
        "learn-from-feedback",
        "open-telemetry",
        "streaming",
        "structured-output",
        "tools",
        "tracing",
    )
]


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def page_id(page):
    return str(page.relative_to(ROOT))


def make_policy(*, embedder=None, dimensions=0):
    """A policy of random weights but for the Decider's bias, which asks one member at a time; with a curve."""
    rng = np.random.default_rng(0)
    shapes = _shapes(2, 0, {"features": FEATURES_DIM + dimensions, "decider": 4, "fusion": 4})
    weights = {name: rng.uniform(0.1, 1, size=shape) for name, shape in shapes.items()}
    weights["decider.out.bias"][:] = -100
    weights["competence.weights"][:] = 0.0
    weights["competence.bias"][:] = 0.4, 0.6
    curve = [{"cost_weight": 0.0, "mean_calls": 2.0}, {"cost_weight": 1.0, "mean_calls": 1.0}]
    return RLFocalPolicy(Parts(members=("small", "other"), weights=weights, card={"curve": curve}), embedder=embedder)


def refund(order, amount_usd):
    return [{"name": "refund", "args": {"order": order, "amount_usd": amount_usd}}]


CAPITALS = {"Australia": "Canberra", "Chile": "Santiago", "Norway": "Oslo", "Peru": "Lima"}
ACME = {"vendor": "Acme", "total": 120.0, "currency": "EUR"}
SAID = {  # by small, large and other: a text, an object, or tool calls; what is not here a SchemaChatModel makes up
    "What is the capital of Australia?": ("Sydney", "Canberra", "Canberra"),
    "Order 17 arrived broken. Refund its $20.": (refund("17", 20), refund("17", 20.0), refund("17", 20)),
    "Order 18 came late. Do what is fair.": (refund("18", 20), "Would a voucher help?", refund("18", 5)),
    "Order 19 was never sent. Refund its $30.": (refund("19", "all"), refund("19", 30), refund("19", 30)),
    "Acme wants 120 euros.": (ACME, ACME, ACME),
    "ACME: 120.00 / 102.50 net, intl.": (
        {**ACME, "total": 102.5},
        {**ACME, "currency": "USD"},
        {**ACME, "vendor": "Acme Ltd"},
    ),
    "What do mitochondria do?": (
        "They make the energy of a cell.",
        "Every cell gets its power from mitochondria.",
        "Nobody is sure about that.",
    ),
    "Describe fog in five words.": ("Grey water forgetting the ground.", "Clouds that came down early.", "It is fog."),
}


def answers_of(place):
    """What a member answers: from the table, as a good model would, or (None) as SchemaChatModel makes it up."""

    def answers(messages, tools):
        if isinstance(messages[-1], ToolMessage):
            return None
        question = str(messages[-1].text).partition("\n\n")[0]  # a synthesizer is shown drafts below it
        said = SAID[question][place] if question in SAID else None
        if isinstance(said, list):
            return AIMessage("", tool_calls=[{**call, "id": f"call_{place}_{at}"} for at, call in enumerate(said)])
        if isinstance(said, dict) and tools:
            return AIMessage("", tool_calls=[{"name": tools[0]["name"], "args": said, "id": f"call_{place}"}])
        if isinstance(said, dict):
            return json.dumps(said)
        country = re.fullmatch(r"What is the capital of (\w+)\?", question)
        return CAPITALS.get(country[1]) if said is None and country else said

    return answers


def steps(page):
    """The Python of a page, block by block, each with the text that stands directly below it: what it prints."""
    pattern = r"^```python\n(.*?)^```$(?:\n+^```text\n(.*?)^```$)?"
    for match in re.finditer(pattern, page.read_text(), re.MULTILINE | re.DOTALL):
        yield match.start(), match[1], match[2]


@pytest.mark.parametrize("page", HOW_TOS, ids=page_id)
def test_the_snippets_of_a_how_to_run_one_after_the_other_and_print_what_it_shows(page, tmp_path, monkeypatch, capsys):
    names = {
        name: SchemaChatModel(model_name=name, answers=answers_of(place))
        for place, name in enumerate(("small", "large", "other"))
    }
    names["judge"] = JudgingChatModel(same=lambda a, b: "cell" in a and "cell" in b)
    names["embeddings"] = DeterministicFakeEmbedding(size=8)
    make_policy().save(tmp_path / "policy")
    accuracies = {"support/refunds": {"small": 0.5, "other": 0.6, "newcomer": 0.9}}
    make_outcomes(accuracies, num_queries=50).write(tmp_path / "probe.parquet")
    text = page.read_text()
    if "outcomes.parquet" in text:
        accuracies = {"support/refunds": {"small": 0.5, "other": 0.6}}
        make_outcomes(accuracies, num_queries=4000).write(tmp_path / "outcomes.parquet")
    if "wordllama" in text:
        pytest.importorskip("wordllama", reason="the extra `wordllama` is not installed")
        make_policy(embedder=load_embedder("wordllama"), dimensions=256).save(tmp_path / "policy-with-embeddings")
    if "from langchain." in text:
        pytest.importorskip("langchain.agents", reason="langchain is optional")
    for name, file in re.findall(r'^```\w+ title="([\w.-]+)"\n(.*?)^```', text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(file)
    for name in re.findall(r"^ +api_key_env: (\w+)$", text, re.MULTILINE):
        monkeypatch.setenv(name, "none")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # as the folder of a script is
    assert len(blocks(page, "text")) == sum(shown is not None for *_, shown in steps(page))
    with asyncio.Runner() as runner:
        for start, code, shown in steps(page):
            place = f"{page_id(page)}:{text.count(chr(10), 0, start) + 1}"
            done = eval(compile(code, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
            if inspect.iscoroutine(done):
                runner.run(done)
            printed = capsys.readouterr().out
            assert shown is None or printed == shown, place
    if "model" in names:
        assert isinstance(names["model"].invoke("What is the capital of Norway?").text, str)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_snippets_that_are_only_shown_can_be_read_by_python(page):
    for code in blocks(page, "py"):
        compile(code, page_id(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@pytest.mark.parametrize("page", TASK_PAGES, ids=page_id)
def test_a_task_page_has_the_parts_that_every_one_has(page):
    title, goal, *_ = page.read_text().split("\n\n")
    assert title.startswith("# ")
    assert not goal.startswith("#")
    headings = re.findall(r"^## (.*)$", page.read_text(), re.MULTILINE)
    assert headings[0] == "Setup"
    assert headings[-2:] == ["What can go wrong", "See also"]


def test_the_integration_page_has_the_parts_of_langchains_template():
    headings = re.findall(r"^## (.*)$", INTEGRATION_PAGE.read_text(), re.MULTILINE)
    assert headings[:4] == ["Overview", "Setup", "Instantiation", "Invocation"]
    assert headings[-1] == "API reference"


def test_the_names_of_the_api_reference_exist():
    reference = INTEGRATION_PAGE.read_text().partition("## API reference")[2]
    listed = re.findall(r"^\| `(langchain_rlfocal[\w.]*)`", reference, re.MULTILINE)
    assert {f"langchain_rlfocal.{name}" for name in langchain_rlfocal.__all__ if name != "__version__"} <= set(listed)
    for name in listed:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("folder", ["adr", "how-to"])
def test_the_readme_of_a_folder_lists_every_page(folder):
    pages = {page.name for page in (ROOT / "docs" / folder).glob("*.md")} - {"README.md"}
    assert set(re.findall(r"\]\(([^/)]+\.md)\)", (ROOT / "docs" / folder / "README.md").read_text())) == pages


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_no_page_has_a_blank_to_fill(page):
    assert "@@" not in page.read_text()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_shown_exists_with_its_options(page):
    for block in blocks(page, "console"):
        for command in re.findall(r"^\$ (.+?)(?<!\\)$", block, re.MULTILINE | re.DOTALL):
            words = command.replace("\\\n", " ").split()
            if words[0] == "make":
                assert all(
                    re.search(rf"^{t}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
                    for t in words[1:]
                    if "=" not in t
                )
            if words[0] != "rlfocal":
                continue
            name = words[1:3] if words[1] in GROUPS else words[1:2]
            shown = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
            assert shown.exit_code == 0, words
            for option in (word for word in words if word.startswith("--")):
                assert option in shown.output, f"{command}: {option}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_within_the_project_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([\w-]+))?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target
            assert not anchor or anchor in anchors_of(page.parent / target if target else page), f"{target}#{anchor}"


def anchors_of(page):
    """The anchors of a page's headings, as GitHub and the site name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_figures_of_the_shipped_policy_are_those_of_the_files_that_ship():
    outcomes = POLICY_PATH.parent / "outcomes.parquet"
    result = CliRunner().invoke(app, ["evaluate", str(POLICY_PATH), str(outcomes), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    scores = (ROOT / "docs/explanation/scores.md").read_text()
    rows = {"RL-Focal": report["policy"]} | {
        label: report["baselines"][name]
        for label, name in (
            ("single best", "single_best"),
            ("random team", "random_team"),
            ("plurality of all", "plurality"),
            ("weighted vote of all", "weighted_vote"),
            ("Oracle", "oracle"),
        )
    }
    for label, figures in rows.items():
        assert f"| {label} | {100 * figures['score']:.1f} | {figures['mean_calls']:.2f} |" in scores
    assert f"{report['policy']['n']} held-out questions" in scores
    policy, best, vote = rows["RL-Focal"], rows["single best"], rows["plurality of all"]
    assert (
        f"| {100 * policy['score']:.1f} at {policy['mean_calls']:.2f} calls | {100 * best['score']:.1f} | "
        f"{100 * vote['score']:.1f} at {vote['mean_calls']:.0f} |"
    ) in (ROOT / "README.md").read_text()


def test_the_readme_s_figures_of_large_pools_are_those_of_the_page_of_scores():
    """Name, score, calls, single best, vote of all and its calls: a row of each, of the best that training had."""
    cell = r"[^|\n]+"
    rows = re.findall(
        rf"^\| ({cell}) \| ({cell}) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \((\d+) calls\) \|",
        (ROOT / "docs/explanation/scores.md").read_text(),
        re.MULTILINE,
    )
    assert len(rows) == 3
    readme = (ROOT / "README.md").read_text()
    for name, training, score, calls, best, vote, vote_calls in rows:
        labels = "" if training == "all labels" else f", {training}"
        assert f"| {name}{labels} | {score} at {calls} calls | {best} | {vote} at {vote_calls} |" in readme


def test_the_readme_is_a_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 80


@pytest.mark.parametrize("picture", sorted((ROOT / "docs/images").glob("*.svg")), ids=page_id)
def test_a_picture_fetches_nothing(picture):
    assert not re.search(r"url\((?!#)|(?:href|src)=", picture.read_text())
