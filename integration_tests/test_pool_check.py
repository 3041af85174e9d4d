"""`rlfocal pool check` and a pool file against real servers: what answers, what does not, and how it is told apart."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.cli import app
from langchain_rlfocal.pool_files import read_pool
from support_fault_server import Fault, FaultServer

KEY = "sk-" + "b2" * 12
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_temperature", "arguments": '{"city": "Oslo"}'}}


def says(model, question):
    """What each model says: `able` does what it is asked, `texter` calls no tool, `garbler` writes objects that are none."""
    if question.startswith("What is 2 + 2"):
        return "4"
    if "Call the tool" in question:
        return {"content": None, "tool_calls": [CALL]} if model in {"able", "garbler"} else "It is 21 degrees there."
    return json.dumps({"city": "Oslo", "celsius": 21}) if model in {"able", "texter"} else '{"city": "Oslo", "cel'


SCRIPT = {
    "stranger": [Fault("status", status=401)],
    "slow": [Fault("never_ends")],
    "proxy": [Fault("web_page")],
}


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """A pool file of a server's models, and of a port where nobody listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = free.getsockname()[1]
    with FaultServer(says, script=SCRIPT) as server:
        monkeypatch.setenv("GATEWAY", server.base_url)
        entries = {
            name: {
                "model": f"openai:{name}",
                "base_url": "${GATEWAY}",
                "api_key_env": "GATEWAY_KEY",
                "headers": {"Connection": "close"},
            }
            for name in ("able", "texter", "garbler", "stranger", "slow", "proxy")
        }
        entries["able"]["usd_per_million"] = {"input": 1, "output": 2}
        entries["slow"]["timeout_s"] = 0.5
        entries["nowhere"] = {"model": "openai:any", "base_url": f"http://127.0.0.1:{nobody}/v1"}
        Path("pool.json").write_text(json.dumps({"members": entries}))
        yield server


def test_each_member_is_told_apart_by_what_it_does(pool):
    result = CliRunner().invoke(app, ["pool", "check", "pool.json", "--timeout", "20", "--json"])
    assert result.exit_code == 1
    assert KEY not in result.output
    found = {one["member"]: one for one in json.loads(result.stdout)["members"]}
    seen = {name: (one["reachable"], one["tools"], one["structured"]) for name, one in found.items()}
    assert seen == {
        "able": (True, True, True),
        "texter": (True, False, True),
        "garbler": (True, True, False),
        "stranger": (False, None, None),
        "slow": (False, None, None),
        "proxy": (False, None, None),
        "nowhere": (False, None, None),
    }
    reasons = {name: next(iter(one["reasons"].values()), None) for name, one in found.items()}
    assert reasons["able"] is None
    assert "called no tool: 'It is 21 degrees there.'" in reasons["texter"]
    assert "not JSON" in reasons["garbler"]
    assert "Incorrect API key provided" in reasons["stranger"]
    assert "No answer within 0.5" in reasons["slow"]
    assert "Connection" in reasons["nowhere"]
    assert "refused" in reasons["nowhere"]
    assert [name for name, one in found.items() if one["priced"]] == ["able"]
    asked = [request.model for request in pool.received]
    assert (asked.count("able"), asked.count("stranger"), asked.count("slow")) == (3, 1, 1)  # nobody is asked again


def test_where_all_are_reachable_it_ends_well(pool):
    result = CliRunner().invoke(app, ["pool", "check", "pool.json", "--member", "able", "--member", "texter"])
    assert result.exit_code == 0, result.output
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_model_of_a_file_answers_with_its_own_key_and_time_out(pool):
    """Of the three one is too slow, and one is a stranger to the server."""
    with read_pool("pool.json") as members:
        chosen = [members[name] for name in ("able", "slow", "stranger")]
        model = RLFocalChatModel(members=chosen, max_team=3, early_commit=False, max_retries=0)
        message = model.invoke("What is 2 + 2?")
    facts = message.response_metadata["rlfocal"]
    assert message.text == "4"
    assert [row["member"] for row in facts["candidates"]] == ["able"]
    assert facts["candidates"][0]["cost_usd"] > 0
    assert all(row["latency_s"] < 20 for row in facts["failures"])
    assert KEY not in json.dumps(facts)


def test_a_file_may_name_the_embedded_models(embedded, tmp_path):
    """`embedded` skips this where they are not installed; the file starts servers of its own, and stops them."""
    path = tmp_path / "pool.yaml"
    path.write_text("members:\n  steps: {model: 'embedded:smollm2-steps', parameters: {max_tokens: 8}}\n")
    with read_pool(path) as pool:
        asked = RLFocalChatModel(members=pool)
        assert asked.invoke("What is 1 + 1? Answer with a number.").text
        server = pool["steps"].model.openai_api_base
    assert server not in embedded.base_urls.values()
    with pytest.raises(Exception, match=r"closed"):
        pool["steps"].model.invoke("?")
