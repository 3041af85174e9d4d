"""Deploying: what the unit, the container file and the page say fits the program, and each other."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from langchain_rlfocal.cli import app
from langchain_rlfocal.cli.serving import _CLOSING_S
from langchain_rlfocal.server.config import ServerConfig

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs/deploy"
PAGE = (ROOT / "docs/how-to/deploy.md").read_text()
UNIT = (FOLDER / "rlfocal.service").read_text()
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
TELEMETRY_S = 5.0
"""How long the end of a process waits for what is left of its traces."""


@pytest.fixture(scope="module")
def known():
    """The options of `rlfocal serve`."""
    shown = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    return set(re.findall(r"--[\w-]+", shown.output))


def setting(name):
    return re.findall(rf"^{name}=(.*)$", UNIT, re.MULTILINE)


def entry_point():
    """The words of ENTRYPOINT and CMD in the container file."""
    text = (FOLDER / "Containerfile").read_text()
    return [
        word for line in ("ENTRYPOINT", "CMD") for word in yaml.safe_load(re.search(rf"^{line} (.*)$", text, re.MULTILINE)[1])
    ]


def options_of(words):
    return {word.partition("=")[0] for word in words if word.startswith("--")}


def test_options_are_those_of_the_program(known):
    [command] = setting("ExecStart")
    assert shlex.split(command)[1] == "serve"
    assert entry_point()[:2] == ["rlfocal", "serve"]
    for words in (shlex.split(command), entry_point(), COMPOSE["services"]["rlfocal"]["command"]):
        assert options_of(words)
        assert options_of(words) <= known


def test_whoever_stops_a_process_waits_longer_than_it_drains():
    [command], [stop_s] = setting("ExecStart"), setting("TimeoutStopSec")
    words = shlex.split(command)
    drain_s = float(words[words.index("--drain-s") + 1])
    assert drain_s == ServerConfig().drain_s  # which the container's has
    grace_s = COMPOSE["services"]["rlfocal"]["stop_grace_period"]
    assert float(stop_s) == float(grace_s.removesuffix("s")) >= drain_s + _CLOSING_S + TELEMETRY_S
    assert f"`TimeoutStopSec` ({stop_s} s)" in PAGE
    assert f"`--drain-s` seconds ({drain_s:g})" in PAGE


def test_proxies_wait_longer_for_an_answer_than_the_server():
    assert float(re.search(r"proxy_read_timeout (\d+)s", PAGE)[1]) > ServerConfig().timeout_s
    assert f"{ServerConfig().timeout_s:g} s" in PAGE
    assert int(re.search(r"client_max_body_size (\d+)m", PAGE)[1]) * 1e6 == ServerConfig().max_body_bytes


def test_the_extras_that_are_installed_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(
        r"(?:langchain-rlfocal|\$\{PACKAGE\})\[([\w,]+)\]", PAGE + (FOLDER / "Containerfile").read_text()
    )
    assert len(named) == 3
    assert {extra for one in named for extra in one.split(",")} <= set(extras)


def test_nobody_serves_as_root_and_no_secret_is_in_a_file():
    assert setting("DynamicUser") == ["yes"]
    assert re.search(r"^USER (?!0|root)", (FOLDER / "Containerfile").read_text(), re.MULTILINE)
    assert not re.search(r"API_KEY=(?!\.\.\.)", UNIT + PAGE + (FOLDER / "Containerfile").read_text())


def test_systemd_takes_the_unit(tmp_path):
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    unit = tmp_path / "rlfocal.service"
    unit.write_text(UNIT.replace("/opt/rlfocal/bin/rlfocal", sys.executable))  # it looks for the program
    done = subprocess.run([analyze, "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
