"""The chat model's arguments: what it takes and refuses, what it hands on, and what LangChain expects of it."""

import copy
import functools
import json
import operator
import pickle
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from pydantic import SecretStr, ValidationError

from langchain_rlfocal import ModelPool, PoolMember, RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.errors import CheckpointError, InputError, MissingDependencyError, PoolError
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy
from support_ensembles import how, model_of, saying

QUESTION = "What is 2 + 3?"


# ---- bad input


@pytest.mark.parametrize("messages", [[], "", "  ", [HumanMessage("")], [SystemMessage(" "), HumanMessage([])]])
@pytest.mark.parametrize("call", ["invoke", "stream"])
def test_nothing_asked_is_refused(messages, call):
    model = model_of({"a": saying("5")})
    with pytest.raises(InputError, match="At least one message must have content"):
        list(getattr(model, call)(messages))


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"members": {}}, PoolError, "at least one member"),
        ({"members": []}, PoolError, "at least one member"),
        ({"members": [PoolMember("a", saying("x")), PoolMember("a", saying("x"))]}, PoolError, "`a` twice"),
        ({"members": {"a": 3}}, PoolError, "`a` must be a LangChain chat model"),
        ({"members": saying("x")}, PoolError, "must be a mapping of names"),
        ({"members": "openai:gpt"}, PoolError, "must be a mapping of names"),
        ({"max_team": 0}, InputError, "`max_team` must be greater than or equal to 1, got 0"),
        ({"max_rounds": 0}, InputError, "`max_rounds` must be greater than or equal to 1, got 0"),
        ({"cost_weight": -0.1}, InputError, "`cost_weight` must be greater than or equal to 0, got -0.1"),
        ({"cost_weight": float("inf")}, InputError, "`cost_weight` must be a finite number"),
        ({"cost_weight": float("nan")}, InputError, "`cost_weight` must be a finite number"),
        ({"synthesize_below": 1.5}, InputError, "`synthesize_below` must be less than or equal to 1, got 1.5"),
        ({"max_team": "many"}, InputError, "`max_team` must be a valid integer, got 'many'"),
        ({"max_retries": -1}, InputError, "`max_retries` must be greater than or equal to 0, got -1"),
        ({"timeout": 0}, InputError, "`timeout` must be greater than 0, got 0"),
        ({"retry_on": "503"}, InputError, "`retry_on` must be an exception class"),
        ({"policy": 3}, InputError, "`policy` must be the path of a checkpoint"),
        ({"policy": "no/such/checkpoint"}, CheckpointError, "no/such/checkpoint"),
    ],
)
def test_bad_arguments_are_refused_with_the_packages_own_error(arguments, error, text):
    with pytest.raises(error, match=text) as caught:
        RLFocalChatModel(**{"members": {"a": saying("x")}, **arguments})
    assert not isinstance(caught.value, ValidationError)


def test_a_member_given_as_a_string_needs_langchain(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(MissingDependencyError, match="pip install langchain"):
        RLFocalChatModel(members={"a": "openai:gpt"})


@pytest.mark.parametrize(
    "knobs", [{"max_team": 0}, {"max_rounds": True}, {"cost_weight": None}, {"max_team": 1.5}, {"task": 3}]
)
def test_a_knob_outside_its_range_is_refused_at_the_call(knobs):
    with pytest.raises(InputError, match=f"`{next(iter(knobs))}` must be"):
        model_of({"a": saying("5")}).invoke(QUESTION, **knobs)


def test_an_unknown_argument_warns_and_names_the_nearest():
    with pytest.warns(UserWarning, match="`temprature` is no argument of RLFocalChatModel.*`temperature`") as caught:
        RLFocalChatModel(members={"a": saying("x")}, temprature=0.3)
    assert caught[0].filename == __file__


def test_all_documented_arguments_are_known(recwarn):
    RLFocalChatModel(members={"a": saying("x")}, model="mine", temperature=0, max_tokens=5, stop=["\n"], streaming=True)
    assert not recwarn


# ---- the policy and the pool


def test_a_member_that_the_policy_does_not_know_is_refused_by_name():
    policy = ScriptedPolicy([["a"]], ("a", "b"))
    with pytest.raises(PoolError, match=r"unknown: c; known: a, b\. Leave the unknown out"):
        RLFocalChatModel(members={"a": saying("x"), "c": saying("x")}, policy=policy)


def test_a_policy_that_knows_nobody_of_the_pool_belongs_to_another():
    with pytest.raises(CheckpointError, match="belongs to another pool: it knows none of c; it knows a, b"):
        RLFocalChatModel(members={"c": saying("x")}, policy=ScriptedPolicy([["a"]], ("a", "b")))


def test_names_of_a_strangers_policy_are_shown_in_short_and_steer_no_terminal():
    names = ("\x1b[31m" + "x" * 1000, *(f"member{number}" for number in range(1000)))
    with pytest.raises(CheckpointError, match="belongs to another pool") as caught:
        RLFocalChatModel(members={"c": saying("x")}, policy=ScriptedPolicy([["a"]], names))
    assert "\x1b" not in str(caught.value)
    assert "x" * 100 not in str(caught.value)
    assert "member1, " in str(caught.value)
    assert len(str(caught.value)) < 2500


def test_members_of_the_policy_that_the_pool_lacks_are_left_out():
    policy = PriorPolicy(("a", "b", "c"))
    assert RLFocalChatModel(members={"b": saying("5")}, policy=policy).invoke(QUESTION).text == "5"


def test_a_path_is_loaded_as_a_checkpoint(monkeypatch):
    policy = ScriptedPolicy([["a"]], ("a",), trained=True, policy_id="rlfocal-x")
    monkeypatch.setattr(RLFocalPolicy, "load", lambda path, embedder: policy if path == Path("here") else None)
    message = RLFocalChatModel(members={"a": saying("5")}, policy=Path("here")).invoke(QUESTION)
    assert how(message)["trained"] is True
    assert how(message)["policy"] == "rlfocal-x"


# ---- call arguments


def test_knobs_bind_one_call_and_reach_no_member():
    member = saying("5")
    model = model_of({"a": member, "b": saying("4")})
    message = model.bind(max_team=1, max_rounds=1, cost_weight=0.0, task="t").invoke(QUESTION)
    assert [row["asked"] for row in how(message)["rounds"]] == [["a"]]
    assert member.asked[-1].kwargs == {}
    assert (model.max_team, model.task) == (2, None)


@pytest.mark.parametrize("call", ["invoke", "stream"])
def test_other_call_arguments_and_stop_reach_the_members_but_never_the_models_name(call):
    member = saying("5")
    model = model_of({"a": member})
    list(getattr(model, call)(QUESTION, stop=["\n"], temperature=0.5, tools=[], model="rlfocal", stream=True))
    assert member.asked[-1].stop == ["\n"]
    assert member.asked[-1].kwargs == {"temperature": 0.5}


@pytest.mark.parametrize("call", ["invoke", "stream"])
def test_a_call_can_name_the_member_that_answers_alone(call):
    members = {"a": saying("5"), "b": saying("4"), "c": saying("5")}
    model = RLFocalChatModel(members=members)
    answered = getattr(model, call)(QUESTION, model="b")
    message = answered if call == "invoke" else functools.reduce(operator.add, answered)
    assert message.text == "4"
    assert message.response_metadata["model_name"] == "b"
    assert [row["asked"] for row in how(message)["rounds"]] == [["b"]]
    assert how(message)["excluded"] == dict.fromkeys("ac", "is not `b`, which the call names")
    assert not members["a"].asked


def test_a_call_that_names_nobody_is_refused():
    with pytest.raises(InputError, match=r"got 'gpt-9'; members: a, b"):
        model_of({"a": saying("5"), "b": saying("4")}).invoke(QUESTION, model="gpt-9")


def test_the_models_own_settings_reach_the_members_unless_the_call_says_otherwise():
    member = saying("5")
    model = model_of({"a": member}, temperature=0.1, max_tokens=7, stop=["."])
    model.invoke(QUESTION)
    model.invoke(QUESTION, stop=["\n"], temperature=0.9)
    assert [(asked.stop, asked.kwargs) for asked in member.asked] == [
        (["."], {"temperature": 0.1, "max_tokens": 7}),
        (["\n"], {"temperature": 0.9, "max_tokens": 7}),
    ]


# ---- a good citizen


def test_it_says_what_it_is_without_secrets():
    class Keyed(ScriptedChatModel):
        api_key: SecretStr = SecretStr("sesame")
        token: str = "open"

        @property
        def lc_secrets(self):
            return {"token": "TOKEN"}

        @property
        def _identifying_params(self):
            return {"model_name": "keyed", "api_key": self.api_key, "token": self.token}

    model = model_of({"a": Keyed(script=["x"])}, synthesizer=Keyed(script=["x"]))
    params = model._identifying_params
    assert model._llm_type == "rlfocal"
    assert params["members"] == {"a": {"model_name": "keyed", "_type": "rlfocal-scripted"}}
    assert params["policy"] == "scripted"
    assert "open" not in str(params) + repr(model)
    assert json.dumps(model.asdict())


def test_it_tells_langsmith_its_name_and_settings():
    model = model_of({"a": saying("x")}, model="mine", temperature=0.5, max_tokens=9, stop=["."])
    assert model._get_ls_params() == {
        "ls_provider": "rlfocal",
        "ls_model_type": "chat",
        "ls_model_name": "mine",
        "ls_temperature": 0.5,
        "ls_max_tokens": 9,
        "ls_stop": ["."],
    }
    assert model._get_ls_params(model="other")["ls_model_name"] == "other"
    assert model.invoke(QUESTION).response_metadata["model_name"] == "mine"


@pytest.mark.parametrize("policy", [None, ScriptedPolicy([["a"]], ("a",))])
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_an_idle_model_can_be_copied_and_pickled(copied, policy):
    model = copied(RLFocalChatModel(members={"a": saying("5")}, policy=policy, task="t"))
    assert model.invoke(QUESTION).text == "5"
    assert model.task == "t"


def test_it_can_be_rebuilt_from_its_fields_as_configurable_fields_does():
    model = model_of({"a": saying("5"), "b": saying("4")})
    rebuilt = RLFocalChatModel(**{name: getattr(model, name) for name in RLFocalChatModel.model_fields})
    assert rebuilt.pool is model.pool
    assert "".join(chunk.text for chunk in rebuilt.stream(QUESTION)) == "5"


def test_type_hints_of_public_methods_resolve_at_run_time():
    """LangChain reads them, for example where a model with fallbacks binds tools."""
    for owner in RLFocalChatModel.__mro__[:2]:
        for name, method in vars(owner).items():
            function = getattr(method, "__func__", method)
            if callable(function) and (not name.startswith("_") or name in ("_generate", "_astream")):
                assert typing.get_type_hints(function)


def test_a_pool_is_taken_as_it_is():
    pool = ModelPool.from_models({"a": saying("5")})
    assert RLFocalChatModel(members=pool).pool is pool


def test_answering_and_explaining_load_rich_only_to_explain_and_torch_never():
    program = """
import sys
from langchain_rlfocal import RLFocalChatModel
from langchain_core.language_models.fake_chat_models import FakeListChatModel
model = RLFocalChatModel(members={"a": FakeListChatModel(responses=["5"]), "b": FakeListChatModel(responses=["5"])})
message = model.invoke("2 + 3?")
assert message.text == "5"
assert "rich" not in sys.modules
model.explain(message)
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
