"""`rlfocal keys`: a key is shown once, its file holds a digest, and what is taken back stays taken back."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_rlfocal.cli import app
from langchain_rlfocal.cli import keys as commands
from langchain_rlfocal.server.keys import SCOPES, USUAL_SCOPES, digest_of, find_key, read_keys


@pytest.fixture(params=["keys.toml", "keys.json"])
def file(folder, request):
    return request.param


def test_a_key_is_printed_alone_on_stdout_so_that_a_script_can_take_it(cli, file):
    result = cli.run("keys", "add", file, "--name", "website")
    assert result.exit_code == 0
    [secret] = result.stdout.splitlines()
    [key] = read_keys(file)
    assert key.sha256 == digest_of(secret)
    assert (key.name, key.scopes, key.budget, key.per_minute, key.expires) == (
        "website",
        USUAL_SCOPES,
        None,
        None,
        None,
    )
    assert key.id in result.stderr
    assert "only time" in result.stderr
    assert secret not in result.stderr
    assert secret not in Path(file).read_text()


def test_what_is_asked_for_is_what_the_file_holds_and_the_list_shows(cli, file):
    limits = ["--max-calls", 100, "--max-tokens", 5000, "--max-usd", 2.5, "--per", "day", "--per-minute", 60]
    scopes = ["--scope", "answers", "--scope", "members"]
    made = cli.said("keys", "add", file, "--name", "batch", *scopes, "--days", 90, *limits)
    [key] = read_keys(file)
    assert key.scopes == ("answers", "members")
    assert key.budget.model_dump() == {"calls": 100, "tokens": 5000, "usd": 2.5, "per": "day"}
    assert (key.expires - datetime.now(UTC)).days in (89, 90)
    assert find_key([key], made["key"]) == key
    [listed] = cli.said("keys", "list", file)["keys"]
    assert listed == {name: value for name, value in made.items() if name not in ("file", "key")}
    assert "sha256" not in listed
    shown = cli.run("keys", "list", file, env={"COLUMNS": "200"}).stdout
    assert all(
        word in shown
        for word in (
            key.id,
            "batch",
            key.last,
            "answers members",
            "60",
            "100 calls, 5,000 tokens, $2.5 a day",
            "good until",
        )
    )
    assert made["key"] not in shown


def test_a_key_that_was_taken_back_is_refused_and_the_others_are_not(cli, file):
    first, second = (cli.said("keys", "add", file, "--name", name) for name in ("a", "b"))
    told = cli.said("keys", "revoke", file, first["id"])
    assert told["state"].startswith("was revoked on")
    again = cli.said("keys", "revoke", file, first["id"])
    assert again == told  # since when is not changed by doing it twice
    assert [key.revoked is None for key in read_keys(file)] == [False, True]
    cli.assert_refused(cli.run("keys", "revoke", file, "nobody"), "must hold the key nobody")
    checked = cli.said("keys", "check", file)
    assert (checked["good"], [one["id"] for one in checked["refused"]]) == (1, [first["id"]])
    for secret, code in ((first["key"], 1), (second["key"], 0), ("rlf-nobody", 1)):
        result = CliRunner().invoke(app, ["keys", "check", file, "--key"], input=f"{secret}\n")
        assert result.exit_code == code
        assert secret not in result.output
    assert second["id"] in CliRunner().invoke(app, ["keys", "check", file, "--key"], input=second["key"]).stdout


def test_a_key_that_expires_soon_is_told_of(cli, file):
    soon = cli.said("keys", "add", file, "--name", "soon", "--days", 13)
    cli.said("keys", "add", file, "--name", "later", "--days", 30)
    assert [one["id"] for one in cli.said("keys", "check", file)["expire_soon"]] == [soon["id"]]
    assert f"Key {soon['id']} of soon: good until" in cli.shown("keys", "check", file)


def test_what_breaks_a_rule_is_one_line_and_makes_no_file(cli, folder):
    cli.assert_refused(cli.run("keys", "add", "keys.yaml", "--name", "a"), ".toml or .json")
    cli.assert_refused(cli.run("keys", "add", "keys.toml", "--name", ""), "`name`")
    cli.assert_refused(cli.run("keys", "add", "keys.toml", "--name", "a\x1b[2J"), "`name`", "printable")
    cli.assert_refused(cli.run("keys", "add", "keys.toml", "--name", "a", "--max-usd", "inf"), "`budget.usd`", "finite")
    cli.assert_refused(cli.run("keys", "add", "keys.toml", "--name", "a", "--scope", "all"), "`scopes[0]`", *SCOPES)
    cli.assert_refused(cli.run("keys", "revoke", "keys.toml", "a"), "cannot be read")
    assert [*Path().iterdir()] == []
    Path("keys.json").write_text(json.dumps({"keys": [{"id": 1}]}))
    Path("keys.json").chmod(0o600)
    for command in (["list"], ["check"], ["revoke"], ["add"]):
        rest = {"revoke": ["a"], "add": ["--name", "a"]}.get(command[0], [])
        cli.assert_refused(cli.run("keys", *command, "keys.json", *rest), "keys.json breaks a rule", "`keys[0]")


def test_an_empty_file_holds_no_keys(cli, folder):
    Path("keys.toml").write_text("")
    Path("keys.toml").chmod(0o600)
    assert cli.said("keys", "list", "keys.toml")["keys"] == []
    assert "holds no keys" in cli.shown("keys", "list", "keys.toml")


def test_a_key_is_for_the_same_where_nobody_says_otherwise_as_in_the_server():
    assert tuple(commands._USUAL) == USUAL_SCOPES
