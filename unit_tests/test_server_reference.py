"""The page of the server's interface says what the code does."""

import dataclasses
import re
from pathlib import Path

from langchain_rlfocal.server import chat_completions
from langchain_rlfocal.server.admission import LEAST_ROOM
from langchain_rlfocal.server.app import ROUTES
from langchain_rlfocal.server.config import ServerConfig
from langchain_rlfocal.server.options import OPTIONS

PAGE = (Path(__file__).parents[1] / "docs/reference/server.md").read_text(encoding="utf-8")


def section(title):
    return re.search(rf"^## {title}.*?\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)[1]


def rows(text):
    """The first cells of a table's rows, as the names that stand in them."""
    return [re.findall(r"`([^`]+)`", row) for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)]


def test_every_field_of_a_body_is_told_where_it_belongs():
    told = {frozenset(names) for names in rows(section("Fields of a chat completion"))}
    assert frozenset(chat_completions._PASSED_TO_OPENAI) in told
    assert frozenset(chat_completions._IGNORED) in told
    assert frozenset(chat_completions._REFUSED) in told
    assert frozenset({*chat_completions._PASSED, "max_completion_tokens", "stop"}) in told
    known = {*chat_completions._READ, "modalities", "stop"}.union(
        chat_completions._PASSED,
        chat_completions._PASSED_TO_OPENAI,
        chat_completions._IGNORED,
        chat_completions._REFUSED,
    )
    assert set().union(*told) == known


def test_every_option_is_told():
    assert {name for names in rows(section("Options")) for name in names} == {*OPTIONS}


def test_every_path_is_told():
    paths = {path for names in rows(PAGE.partition("## Models")[0]) for name in names for path in name.split()[1:]}
    served = {re.sub(r":path}", "}", route.path) for route in ROUTES}
    assert served - {"/v1/responses/{response_id}"} == paths


def test_every_code_of_an_error_is_told():
    """Those of feedback are told with it."""
    source = Path(chat_completions.__file__).parent
    code = "\n".join(
        path.read_text() for path in source.glob("*.py") if path.stem not in {"feedback", "systemone", "responses"}
    )
    raised = set(re.findall(r'code="(\w+)"', code)) | set(chat_completions.__dict__.get("_CODES", ()))
    told = {
        name
        for row in re.findall(r"^\| \d.*$", section("Errors"), re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    assert raised - {"client_disconnected", "response_failed"} <= told, raised - told


def test_the_limits_are_the_defaults():
    told = section("Limits").replace(",", "")
    assert f"at least {LEAST_ROOM}" in told
    config = ServerConfig()
    for name in ("max_body_bytes", "max_depth", "max_values", "max_messages", "max_tools"):
        assert re.search(rf"\b{getattr(config, name)}\b", told), name
    for name in ("timeout_s", "read_timeout_s", "drain_s"):
        assert re.search(rf"\b{getattr(config, name):g}\b", told), name
    assert {field.name for field in dataclasses.fields(config)} >= {"heartbeat_s", "keys_file"}
