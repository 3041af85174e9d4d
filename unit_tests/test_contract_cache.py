"""What is cached under one key and what is not, and who waits for which rate."""

import copy
from dataclasses import dataclass
from functools import partial

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.rate_limiters import BaseRateLimiter

from langchain_rlfocal import PoolMember
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy
from support_contract import DOORS, City, answer_of, model_of, three
from support_ensembles import how, saying
from support_schema_model import SchemaChatModel
from support_tools import QUESTION, lookup


def roam(city: str) -> str:
    """Roam a city."""
    return city


# ---- the cache


class Keys(BaseCache):
    """Remembers nothing but the keys."""

    def __init__(self):
        self.keys = []

    def lookup(self, prompt, llm_string):
        self.keys.append((prompt, llm_string))

    def update(self, prompt, llm_string, return_val):
        pass

    def clear(self, **kwargs):
        pass


def initials(a, b):
    return a[:1] == b[:1]


def first(number):
    return lambda a, b: a[:number] == b[:number]


@dataclass(frozen=True)
class Initials:
    """Compares so many first letters."""

    number: int
    name: str = "initials"

    def read(self, text, query):
        return text[: self.number]

    def same(self, a, b):
        return a == b

    def write(self, value):
        return value


class Alike:
    def __init__(self, model="small"):
        self.model = model

    def embed_documents(self, texts):
        return [[1.0] for _ in texts]


def key_of(*, bound=None, call=None, **fields):
    """The key under which an answer is cached, of a model that is made anew for it."""
    cache = Keys()
    members = fields.pop("members", None) or {"a": SchemaChatModel(), "b": SchemaChatModel(model_name="other")}
    model = model_of(members, cache=cache, **fields)
    (bound(model) if bound else model).invoke(QUESTION, **(call or {}))
    return cache.keys[0]


def bound(*tools, **kwargs):
    return lambda model: model.bind_tools(list(tools), **kwargs)


def declared(**facts):
    return {
        name: PoolMember(name, SchemaChatModel(model_name=model_name), **facts)
        for name, model_name in (("a", "schema"), ("b", "other"))
    }


DIFFERENCES = {
    "nothing": {},
    "another member": {"members": {"a": SchemaChatModel(), "b": SchemaChatModel(model_name="third")}},
    "one member less": {"members": {"a": SchemaChatModel()}},
    "another name of a member": {"members": {"a": SchemaChatModel(), "c": SchemaChatModel(model_name="other")}},
    "what a member says that it takes": {
        "members": {"a": SchemaChatModel(profile={"tool_calling": True}), "b": SchemaChatModel(model_name="other")}
    },
    "another policy": {"policy": ScriptedPolicy([["a"], ["b"]], ("a", "b"), policy_id="else")},
    "no policy": {"policy": None},
    "a competence, where there is no policy": {"policy": None, "members": declared(competence=0.9)},
    "max_team": {"max_team": 1},
    "max_rounds": {"max_rounds": 1},
    "cost_weight": {"cost_weight": 0.2},
    "task": {"task": "t"},
    "answer_kind": {"answer_kind": "number"},
    "a function for a kind": {"answer_kind": initials},
    "another function for a kind": {"answer_kind": lambda a, b: a in {b, "x", "y", "z"}},
    "a third that stands in the same place": {"answer_kind": lambda a, b: a != b},
    "a function that holds a number": {"answer_kind": first(2)},
    "a function that holds another number": {"answer_kind": first(3)},
    "a function that is given a number": {"answer_kind": partial(initials, 2)},
    "a function that is given another number": {"answer_kind": partial(initials, 3)},
    "an object for a kind": {"answer_kind": Initials(2)},
    "another object for a kind": {"answer_kind": Initials(3)},
    "a method for a kind": {"answer_kind": Initials(2).same},
    "a call's own answer_kind": {"call": {"answer_kind": "option"}},
    "a call's own function for a kind": {"call": {"answer_kind": first(4)}},
    "equivalence": {"equivalence": saying("so")},
    "another judge": {"equivalence": saying("so", model_name="other")},
    "embeddings": {"equivalence": Alike()},
    "other embeddings": {"equivalence": Alike("large")},
    "equivalence_threshold": {"equivalence": Alike(), "equivalence_threshold": 0.8},
    "on_disagreement": {"on_disagreement": "text"},
    "synthesizer": {"synthesizer": saying("so")},
    "synthesize_below": {"synthesize_below": 0.1},
    "temperature": {"temperature": 0.5},
    "max_tokens": {"max_tokens": 5},
    "stop": {"stop": ["."]},
    "a call's own stop": {"call": {"stop": ["."]}},
    "a call's own max_team": {"call": {"max_team": 5}},
    "a call's own cost_weight": {"call": {"cost_weight": 0.3}},
    "a call's own task": {"call": {"task": "u"}},
    "a call's member": {"call": {"model": "a"}},
    "a tool": {"bound": bound(lookup)},
    "another tool": {"bound": bound(roam)},
    "two tools": {"bound": bound(lookup, roam)},
    "tool_choice": {"bound": bound(lookup, tool_choice="lookup")},
    "no calls": {"bound": bound(lookup, tool_choice="none")},
    "strict": {"bound": bound(lookup, strict=True)},
    "parallel_tool_calls": {"bound": bound(lookup, parallel_tool_calls=False)},
    "response_format": {"bound": bound(lookup, response_format=City)},
    "consensus": {"bound": bound(lookup, consensus="fields")},
}


def test_every_difference_makes_another_cache_key():
    keys = {name: key_of(**difference) for name, difference in DIFFERENCES.items()}
    twins = [(a, b) for a in keys for b in keys if a < b and keys[a] == keys[b]]
    assert twins == []


@pytest.mark.parametrize("name", DIFFERENCES)
def test_equal_models_that_are_made_apart_have_equal_keys(name):
    """So a cache that outlives the process is of use: no address, id or secret is part of a key."""
    key = key_of(**DIFFERENCES[name])
    assert key == key_of(**copy.deepcopy(DIFFERENCES[name]))
    assert " at 0x" not in str(key)
    assert "_rlfocal" not in str(key)


def test_a_trained_policy_that_is_saved_and_loaded_has_the_same_key(bare_policy, tmp_path):
    bare_policy.save(tmp_path / "policy")
    members = {"ann": saying("yes"), "bob": saying("yes")}
    loaded = RLFocalPolicy.load(tmp_path / "policy")
    assert key_of(members=members, policy=bare_policy) == key_of(members=members, policy=loaded)


def test_another_trained_policy_has_another_key(random_policy):
    members = {"a": saying("yes"), "b": saying("yes")}
    keys = [key_of(members=members, policy=random_policy(("a", "b"), seed)) for seed in (1, 2)]
    assert keys[0] != keys[1]


@pytest.mark.parametrize("door", ["invoke", "ainvoke", "batch", "abatch"])
async def test_a_cached_answer_asks_nobody_and_costs_nothing(door):
    model = three(cache=InMemoryCache(), rate_limiter=Counting())
    first = await answer_of(model, door)
    second = await answer_of(model, door)
    assert first.text == second.text == "yes"
    assert [len(member.model.asked) for member in model.pool] == [1, 1, 1]
    assert second.usage_metadata == {**first.usage_metadata, "total_cost": 0}
    assert model.rate_limiter.acquired == 1
    assert how(second) == how(first)


def test_a_cached_answer_to_tools_keeps_its_calls():
    model = model_of({"a": SchemaChatModel(), "b": SchemaChatModel()}, cache=InMemoryCache())
    bound_model = model.bind_tools([lookup])
    first, second = bound_model.invoke(QUESTION), bound_model.invoke(QUESTION)
    assert first.tool_calls == second.tool_calls
    assert first.tool_calls
    assert [len(member.model.asked) for member in model.pool] == [1, 1]


def test_another_question_is_another_key_and_an_error_is_not_cached():
    calls = []

    def fail_once(_messages):
        calls.append(1)
        if len(calls) == 1:
            raise TimeoutError("late")
        return "yes"

    model = model_of({"a": ScriptedChatModel(script=fail_once)}, cache=InMemoryCache())
    with pytest.raises(EnsembleError):
        model.invoke(QUESTION)
    assert model.invoke(QUESTION).text == model.invoke(QUESTION).text == "yes"
    assert model.invoke("Another?").text == "yes"
    assert len(calls) == 3


def test_the_global_cache_serves_members_too_unless_they_say_otherwise():
    """The ensemble refuses the cache, its first member takes it: the second call asks the others alone."""
    members = {"a": saying("yes"), "b": saying("yes", cache=False)}
    model = model_of(members, cache=False)
    set_llm_cache(InMemoryCache())
    try:
        model.invoke(QUESTION)
        assert model.invoke(QUESTION).text == "yes"
    finally:
        set_llm_cache(None)
    assert [len(member.asked) for member in members.values()] == [1, 2]


# ---- rate limits


class Counting(BaseRateLimiter):
    """Counts what is acquired, through whichever door."""

    def __init__(self):
        self.acquired = 0

    def acquire(self, *, blocking=True):
        assert blocking
        self.acquired += 1
        return True

    async def aacquire(self, *, blocking=True):
        return self.acquire(blocking=blocking)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("max_team", [1, 3], ids=["relayed", "fused"])
async def test_a_call_takes_one_permit_of_the_ensemble_and_one_of_each_member_that_is_asked(max_team, door):
    own, limiters = Counting(), {name: Counting() for name in "abc"}
    members = {name: saying("yes", rate_limiter=limiter) for name, limiter in limiters.items()}
    model = model_of(members, rate_limiter=own, max_team=max_team)
    await answer_of(model, door)
    assert own.acquired == 1
    assert [limiter.acquired for limiter in limiters.values()] == ([1, 0, 0] if max_team == 1 else [1, 1, 1])
