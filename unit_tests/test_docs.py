"""What the docs show is true: snippets run, commands exist, figures are those of the files that ship, links lead somewhere."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from langchain_rlfocal.cli import app
from langchain_rlfocal.embedders import load_embedder
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.local import POLICY_PATH
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts, _shapes
from langchain_rlfocal.testing import ScriptedChatModel, make_outcomes

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def page_id(page):
    return str(page.relative_to(ROOT))


def make_policy(*, embedder=None, dimensions=0):
    """A policy of random weights, with a curve."""
    rng = np.random.default_rng(0)
    shapes = _shapes(2, 0, {"features": FEATURES_DIM + dimensions, "decider": 4, "fusion": 4})
    weights = {name: rng.uniform(0.1, 1, size=shape) for name, shape in shapes.items()}
    curve = [{"cost_weight": 0.0, "mean_calls": 2.0}, {"cost_weight": 1.0, "mean_calls": 1.0}]
    return RLFocalPolicy(Parts(members=("small", "other"), weights=weights, card={"curve": curve}), embedder=embedder)


@pytest.mark.parametrize("page", sorted((ROOT / "docs/how-to").glob("*.md")), ids=page_id)
def test_the_snippets_of_a_how_to_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    members = {name: ScriptedChatModel(script=lambda _: "Oslo") for name in ("small", "large", "other")}
    make_policy().save(tmp_path / "policy")
    accuracies = {"support/refunds": {"small": 0.5, "other": 0.6, "newcomer": 0.9}}
    make_outcomes(accuracies, num_queries=50).write(tmp_path / "probe.parquet")
    if "wordllama" in page.read_text():
        pytest.importorskip("wordllama", reason="the extra `wordllama` is not installed")
        make_policy(embedder=load_embedder("wordllama"), dimensions=256).save(tmp_path / "policy-with-embeddings")
    monkeypatch.chdir(tmp_path)
    names = dict(members)
    for block in blocks(page, "python"):
        exec(block, names)
    assert isinstance(names["model"].invoke("What is the capital of Norway?").text, str)


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
            shown = CliRunner().invoke(app, [words[1], "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
            assert shown.exit_code == 0, words
            for option in (word for word in words if word.startswith("--")):
                assert option in shown.output, f"{command}: {option}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_within_the_project_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_the_figures_of_the_readme_are_those_of_the_files_that_ship():
    outcomes = POLICY_PATH.parent / "outcomes.parquet"
    result = CliRunner().invoke(app, ["evaluate", str(POLICY_PATH), str(outcomes), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    readme = (ROOT / "README.md").read_text()
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
        assert f"| {label} | {100 * figures['score']:.1f} | {figures['mean_calls']:.2f} |" in readme
    assert f"{report['policy']['n']} held-out questions" in readme
