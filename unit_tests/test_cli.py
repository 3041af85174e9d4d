"""Manners of every command: help with an example, errors in one line, traces where they are asked for, no colours in a pipe."""

import errno
import os
import subprocess
import sys

import pytest
import typer.main

from langchain_rlfocal.cli import app
from langchain_rlfocal.cli.views import counted, interval, usd
from langchain_rlfocal.errors import InputError


def leaves(group, path=()):
    """Yield every command with the words that lead to it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(leaves(typer.main.get_command(app)))


@pytest.fixture(params=COMMANDS, ids=" ".join)
def command(request):
    return request.param


def test_help_tells_what_a_command_is_for_and_shows_it_at_work(cli, command):
    shown = cli.run(*command, "--help", env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    assert f"rlfocal {' '.join(command)}" in " ".join(shown.stdout.split())  # the usage line has another name in tests
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_every_command_can_answer_in_json(command):
    if command == ("pool", "schema"):
        pytest.skip("is JSON itself")
    assert "--json" in {flag for option in COMMANDS[command].params for flag in option.opts}


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_trace_is_shown_where_it_is_asked_for_anywhere_on_the_line(cli, place):
    line = ["train", "nowhere.jsonl", "--out", "policy"]
    refused = cli.run(*line)
    cli.assert_refused(refused, "nowhere.jsonl", "must exist")
    assert refused.exception is None or isinstance(refused.exception, SystemExit)
    traced = cli.run(*(["--debug", *line] if place == "first" else [*line, "--debug"]))
    assert isinstance(traced.exception, ValueError)
    assert not isinstance(traced.exception, InputError)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["trian"], ["'trian'", "`rlfocal --help`"]),
        (["train", "o.jsonl"], ["'--out'", "train --help`"]),
        (["ask", "why", "--max-team", "0"], ["--max-team", "ask --help`"]),
        (["log", "prune", "--befor", "x"], ["--befor", "log prune --help`"]),
    ],
)
def test_what_the_line_itself_gets_wrong_is_one_line_too(line, words):
    refused = run(*line)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) == 1
    assert all(word in refused.stderr for word in words)


def test_a_full_disk_is_named_with_the_way_out(cli, tmp_path, monkeypatch):
    def write(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device", "made.jsonl")

    monkeypatch.setattr("langchain_rlfocal.demo.questions.write_questions", write)
    cli.assert_refused(cli.run("questions", "--out", "made.jsonl"), "made.jsonl", "No space left", "Free some space")


def run(*args, **variables):
    """Run the program in a process of its own, its output in a pipe."""
    env = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "FORCE_COLOR"}} | variables
    return subprocess.run(
        [sys.executable, "-m", "langchain_rlfocal.cli", *args], check=False, env=env, capture_output=True, text=True
    )


def test_a_pipe_gets_no_colours_and_a_terminal_none_where_nobody_wants_them():
    piped = run("diversity", "nowhere.jsonl")
    assert piped.returncode == 2
    assert "\x1b" not in piped.stdout + piped.stderr
    assert "\x1b[31m" in run("diversity", "nowhere.jsonl", FORCE_COLOR="1").stderr
    assert "\x1b[31m" not in run("diversity", "nowhere.jsonl", FORCE_COLOR="1", NO_COLOR="1").stderr


def test_a_shell_can_complete_commands():
    completed = run(_RLFOCAL_COMPLETE="complete_bash", COMP_WORDS="rlfocal div", COMP_CWORD="1")
    assert completed.stdout.split() == ["diversity"]


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (None, "unknown"),
        (0.0, "$0.00"),
        (1234.5, "$1,234.50"),
        (1.0, "$1.00"),
        (0.5, "$0.5000"),
        (0.00012, "$0.000120"),
    ],
)
def test_every_command_writes_dollars_alike(amount, written):
    assert usd(amount) == written


def test_numbers_of_things_and_intervals_are_written_alike():
    assert [counted(num, "answer") for num in (0, 1, 1000)] == ["0 answers", "1 answer", "1,000 answers"]
    assert interval(-0.1, 0.25) == "-0.100 to 0.250"
    assert interval(-0.1, 0.25, sign="+") == "-0.100 to +0.250"
