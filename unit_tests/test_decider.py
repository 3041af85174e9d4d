"""The Decider as LangChain's decision model: what it chooses, how sure it says it is, and what it refuses."""

import math
import re
import sys
import threading
from importlib.util import find_spec, module_from_spec, spec_from_file_location

import pytest
from langchain.agents import create_agent
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import ValidationError

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.chat_models import decider as decider_module
from langchain_rlfocal.chat_models.decider import RLFocalDecider
from langchain_rlfocal.errors import CheckpointError, InputError, MissingDependencyError, PoolError
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.records import Query
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy

QUESTION = "What is the capital of Peru?"
MEMBER = ScriptedChatModel(script=["Lima"])


needs_decisions = pytest.mark.skipif(
    find_spec("langchain_core.decisions") is None, reason="langchain-core before 1.8 has no decision models"
)
needs_router = pytest.mark.skipif(
    find_spec("langchain.agents.middleware.model_router") is None,
    reason="langchain before 1.5 has no ModelRouterMiddleware",
)
pytestmark = pytest.mark.filterwarnings("ignore:The middleware `ModelRouterMiddleware` is in beta")


class Noting(ScriptedPolicy):
    """A scripted policy that keeps what it was asked, and in which thread."""

    def select(self, query, candidates, failures, **told):
        object.__setattr__(self, "told", told | {"query": query, "heard": [*candidates, *failures]})
        object.__setattr__(self, "thread", threading.get_ident())
        return super().select(query, candidates, failures, **told)


def scripted(*choices):
    return Noting([choices], ("a", "b", "c"))


def request(state=QUESTION, **options):
    """One question by name, each with these options."""
    from langchain_core.decisions import Choice  # noqa: PLC0415  # older cores have none

    questions = {name: Choice(instructions="Who?", criteria=dict.fromkeys(given)) for name, given in options.items()}
    return {"state": state, "questions": questions}


def ask(decider, *options, state=QUESTION):
    """The decider's answer to one question with these options."""
    return decider.invoke(request(state, route=options)).choices["route"]


@pytest.fixture
def chat_models():
    return {name: ScriptedChatModel(script=[f"{name} says Lima"]) for name in "abc"}


# ---- where langchain-core has no decision models


def test_an_older_langchain_core_imports_the_module_and_is_told_to_upgrade(monkeypatch, chat_models):
    monkeypatch.setitem(sys.modules, "langchain_core.decisions", None)
    spec = spec_from_file_location("decider_of_an_older_core", decider_module.__file__)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)

    with pytest.raises(MissingDependencyError, match=re.escape('`pip install -U "langchain-core>=1.8"`')):
        module.RLFocalDecider(members=chat_models)


# ---- the query of a state

CONVERSATION = [
    SystemMessage("Be brief."),
    HumanMessage("Hello"),
    AIMessage("Hello."),
    HumanMessage([{"type": "text", "text": QUESTION}, {"type": "image", "url": "https://example.com/map.png"}]),
    AIMessage("", tool_calls=[{"name": "look_up", "args": {}, "id": "1"}]),
    ToolMessage("Lima", tool_call_id="1"),
]


@needs_decisions
@pytest.mark.parametrize(
    ("state", "text"),
    [
        (QUESTION, QUESTION),
        (CONVERSATION, QUESTION),
        ({"turns": [{"said": CONVERSATION[1]}, {"said": CONVERSATION[3]}]}, QUESTION),
        ({"country": "Perú", "ask": ["capital"]}, '{"country": "Perú", "ask": ["capital"]}'),
        (["capital", "Peru"], '["capital", "Peru"]'),
        ("  ", None),
        ([HumanMessage(" ")], None),
    ],
)
def test_the_query_is_the_last_human_message_of_a_state_else_what_it_says(state, text):
    policy = scripted("a")
    decider = RLFocalDecider(members=["a", "b", "c"], policy=policy, task="facts")
    if text is None:
        with pytest.raises(InputError, match="At least one message must have content"):
            ask(decider, "a", state=state)
    else:
        ask(decider, "a", state=state)
        assert policy.told["query"] == Query(text, task="facts")


# ---- what it chooses

CERTAINLY_B = {"type": "choice", "choice": "b", "probabilities": {"a": 0.0, "b": 1.0, "c": 0.0}, "confidence": 1.0}


@needs_decisions
def test_an_untrained_decider_chooses_the_most_competent_of_the_options(chat_models):
    competence = {"a": 0.6, "b": 0.9, "c": 0.7}
    decider = RLFocalDecider(members=[PoolMember(n, m, competence=competence[n]) for n, m in chat_models.items()])

    assert ask(decider, "a", "b", "c").model_dump() == CERTAINLY_B
    assert ask(decider, "a", "c").choice == "c"


@needs_decisions
@pytest.mark.parametrize("seed", range(3))
def test_a_trained_deciders_answer_is_its_selection_of_one_member_in_one_round(seed, random_policy):
    policy = random_policy("abc", seed)
    decider = RLFocalDecider(members=("c", "b", "a"), policy=policy, cost_weight=0.3)
    once = {"round_number": 1, "max_rounds": 1, "max_team": 1}
    selection = policy.select(Query(QUESTION), [], [], available="abc", cost_weight=0.3, **once)

    answer = ask(decider, "b", "c", "a")

    assert (answer.choice,) == selection.members
    assert [*answer.probabilities] == ["b", "c", "a"]
    assert answer.probabilities == pytest.approx(dict(selection.probabilities))
    assert math.isclose(sum(answer.probabilities.values()), 1)
    assert answer.confidence == answer.probabilities[answer.choice] == max(answer.probabilities.values())
    several = decider.invoke(request(narrow="b", wide="bca"))
    assert several.choices["narrow"].probabilities == {"b": 1.0}
    assert several.choices["wide"] == answer
    assert (several.model, several.usage) == (policy.policy_id, None)
    model = RLFocalChatModel(members=dict.fromkeys("cba", MEMBER), policy=policy, max_team=1, cost_weight=0.3)
    asked = model.invoke(QUESTION, max_rounds=1).response_metadata["rlfocal"]["rounds"][0]["asked"]
    assert asked == [answer.choice]


@needs_decisions
def test_the_policy_is_told_the_query_the_options_and_the_knobs():
    policy = scripted("c")
    decider = RLFocalDecider(members=["a", "b", "c"], policy=policy, task="facts", cost_weight=0.7)

    assert ask(decider, "c", "a", state={"messages": CONVERSATION}).choice == "c"
    assert policy.told == {
        "query": Query(QUESTION, task="facts"),
        "heard": [],
        "available": ["a", "c"],  # in the pool's order, which breaks ties
        "cost_weight": 0.7,
        **dict.fromkeys(("round_number", "max_rounds", "max_team"), 1),
    }


@needs_decisions
@pytest.mark.parametrize("selected", [(), ("c",)])
def test_a_policy_that_selects_none_of_the_options_is_refused(selected):
    decider = RLFocalDecider(members=["a", "b", "c"], policy=scripted(*selected))

    with pytest.raises(InputError, match=r"must select one of the options of `route` \(a, b\), `scripted` selected"):
        ask(decider, "a", "b")


# ---- what it is made with


@needs_decisions
def test_a_policy_is_loaded_from_its_path_with_the_embedder(tmp_path, random_policy):
    policy = random_policy("abc", 2)
    policy.save(tmp_path / "policy")
    loaded = RLFocalDecider(members=["a", "b", "c"], policy=tmp_path / "policy")

    assert ask(loaded, *"abc") == ask(RLFocalDecider(members=["a", "b", "c"], policy=policy), *"abc")
    with pytest.raises(InputError, match="was trained without an embedder"):
        RLFocalDecider(members=["a"], policy=tmp_path / "policy", embeddings=DeterministicFakeEmbedding(size=2))


@needs_decisions
async def test_async_decides_alike_and_away_from_the_event_loop():
    """An embedder may wait on a network, and is synchronous."""
    policy = scripted("b")
    decider = RLFocalDecider(members=["a", "b", "c"], policy=policy)

    answer = await decider.ainvoke(request(route="abc"))
    assert policy.thread != threading.get_ident()
    assert answer == decider.invoke(request(route="abc"))


# ---- what it refuses


@needs_decisions
@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"members": []}, PoolError, "at least one member"),
        ({"members": "a"}, PoolError, "must be a mapping of names"),
        ({"members": ["a", 3]}, PoolError, "must hold `PoolMember`s, got str"),
        ({"members": ["a", "b", "a"]}, PoolError, "must name each member once, got `a` twice"),
        ({"members": ["a", "d"]}, PoolError, "`members` must be members .* unknown: d; known: a, b, c"),
        ({"members": {"a": MEMBER, "d": MEMBER}}, PoolError, "must know every member of the pool; unknown: d"),
        ({"members": {"d": MEMBER}}, CheckpointError, "another pool"),
        ({"policy": 3}, InputError, "`policy` must be the path of a checkpoint"),
        ({"policy": "no/such/checkpoint"}, CheckpointError, "no/such/checkpoint"),
        ({"embeddings": DeterministicFakeEmbedding(size=2)}, InputError, "Leave `embeddings` out"),
        ({"cost_weight": -0.1}, InputError, "`cost_weight` must be greater than or equal to 0"),
    ],
)
def test_bad_arguments_are_refused_with_the_packages_own_error(arguments, error, text):
    given = {"members": ["a", "b", "c"], "policy": PriorPolicy("abc"), **arguments}
    with pytest.raises(error, match=text) as caught:
        RLFocalDecider(**given)
    assert not isinstance(caught.value, ValidationError)


@needs_decisions
def test_other_options_other_questions_and_no_question_are_refused():
    from langchain_core.decisions import Noul  # noqa: PLC0415  # as above

    decider = RLFocalDecider(members=["a", "b"])

    with pytest.raises(PoolError, match=r"options of `route` must be members .*unknown: fast, slow; known: a, b\."):
        ask(decider, "fast", "a", "slow")
    with pytest.raises(InputError, match="must be a Choice among members, got Noul as `urgent`"):
        decider.invoke({"state": QUESTION, "questions": {"urgent": Noul(instructions="Is it urgent?")}})
    with pytest.raises(InputError, match="At least one question must be asked"):
        decider.invoke(request())


@needs_decisions
def test_middleware_needs_models_and_a_langchain_that_has_it(monkeypatch, chat_models):
    with pytest.raises(InputError, match="needs members with their models, got names: a, b"):
        RLFocalDecider(members=["a", "b"]).as_middleware()
    monkeypatch.setitem(sys.modules, "langchain.agents.middleware.model_router", None)
    with pytest.raises(MissingDependencyError, match=re.escape('`pip install -U "langchain>=1.5"`')):
        RLFocalDecider(members=chat_models).as_middleware()


# ---- in agents


class WithTools(ScriptedChatModel):
    """A double that takes tools."""

    def bind_tools(self, tools, **kwargs):
        return self.bind(**kwargs)


def look_up(country: str) -> str:
    """Look up a country's capital."""
    return {"Peru": "Lima"}[country]


@needs_router
@pytest.mark.parametrize("is_async", [False, True])
async def test_the_chosen_member_alone_runs_the_whole_agent(is_async):
    call = AIMessage("", tool_calls=[{"name": "look_up", "args": {"country": "Peru"}, "id": "1"}])
    members = {name: WithTools(script=[call, f"{name} says Lima"]) for name in "abc"}
    policy = scripted("b")
    router = RLFocalDecider(members=members, policy=policy).as_middleware()
    agent = create_agent(members["a"], tools=[look_up], middleware=[router])
    question = {"messages": [HumanMessage("Hello"), AIMessage("Hello."), HumanMessage(QUESTION)]}

    state = await agent.ainvoke(question) if is_async else agent.invoke(question)

    assert state["messages"][-1].text == "b says Lima"
    assert {name: len(model.asked) for name, model in members.items()} == {"a": 0, "b": 2, "c": 0}
    assert state["model_route"].model_dump() == CERTAINLY_B
    assert policy.told["query"] == Query(QUESTION)
