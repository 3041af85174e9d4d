"""Contract: what LangChain promises of every chat model holds for an ensemble: configuration, caches, retries, copies."""

import asyncio
import copy
import json
import pickle
from dataclasses import dataclass
from functools import partial

import pytest
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.exceptions import ContextOverflowError
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import ConfigurableField

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError, InputError
from langchain_rlfocal.execution import budgets
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.targets import Curve
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_contract import DOORS, City, answer_of, model_of, three
from support_ensembles import asked, how, saying
from support_gauges import let_others_run
from support_schema_model import SchemaChatModel
from support_tools import QUESTION, lookup


def without_chance(message):
    """A message without what differs from call to call: ids, and the seconds it took."""
    chance = dict.fromkeys(("answer_id", "latency_s", "seconds"))
    return json.loads(message.model_copy(update={"id": None}).model_dump_json(), object_hook=lambda d: {**d, **chance})


# ---- configurable


class Seeing:
    """A policy that remembers what it was asked under; it cannot be copied, so that reloading would show."""

    members, trained, policy_id = ("a", "b"), True, "seeing"

    def __init__(self):
        self.seen = []

    def __deepcopy__(self, memo):
        raise AssertionError

    curve = Curve([{"cost_weight": 0.02, "mean_calls": 2.0}])

    def select(self, query, candidates, failures, **terms):
        self.seen.append({**terms, "task": query.task})
        return ScriptedPolicy([["a"], ["b"]], self.members).select(query, candidates, failures, **terms)

    def fuse(self, query, candidates, failures, **terms):
        return ScriptedPolicy([], self.members).fuse(query, candidates, failures, **terms)


def configurable(model, *names):
    return model.configurable_fields(**{name: ConfigurableField(id=name) for name in names})


@pytest.mark.parametrize("door", ["invoke", "astream"])
@pytest.mark.parametrize(
    ("name", "value", "seen"),
    [
        ("cost_weight", 0.7, {"cost_weight": 0.7}),
        ("max_team", 1, {"max_team": 1}),
        ("max_rounds", 5, {"max_rounds": 5}),
        ("task", "quiz/b", {"task": "quiz/b"}),
        ("target_calls", 2.0, {"cost_weight": 0.02}),
    ],
)
async def test_a_knob_can_be_set_by_config_for_one_call(name, value, seen, door):
    policy = Seeing()
    plain = {"cost_weight": 0.1, "max_team": 2, "max_rounds": 2, "task": None}
    model = configurable(
        RLFocalChatModel(members={"a": saying("yes"), "b": saying("yes")}, policy=policy, max_team=2), name
    )
    await answer_of(model, door, QUESTION, {"configurable": {name: value}})
    assert {key: policy.seen[0][key] for key in plain} == {**plain, **seen}
    policy.seen.clear()
    await answer_of(model, door)
    assert {key: policy.seen[0][key] for key in plain} == plain


async def test_a_configured_call_shares_the_policy_the_pool_and_the_count_of_calls():
    """Ten calls of ten configurations, two places: the gauge never shows a third."""
    inside, most = 0, 0

    async def hold():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        for _ in range(5):
            await asyncio.sleep(0)
        inside -= 1

    model = three(max_concurrent_calls=2)
    for member in model.pool:
        member.model.on_acall = hold
    configured = configurable(model, "cost_weight")
    await configured.abatch([QUESTION] * 10, [{"configurable": {"cost_weight": n}} for n in range(10)])
    assert (inside, most) == (0, 2)
    prepared, _ = configured.prepare({"configurable": {"cost_weight": 0.5}})
    assert prepared is not model
    assert prepared.policy is model.policy
    assert prepared.pool is model.pool
    assert prepared.shared_state is model.shared_state


async def test_knobs_of_config_differ_by_query_of_a_batch_and_leave_the_policy_unread(
    random_policy, tmp_path, monkeypatch
):
    random_policy(("ann", "bob")).save(tmp_path / "policy")
    members = {"ann": saying("yes"), "bob": saying("no")}
    model = RLFocalChatModel(members=members, policy=tmp_path / "policy")
    monkeypatch.setattr(RLFocalPolicy, "load", None)
    configs = [{"configurable": {"max_team": n, "cost_weight": n / 10}} for n in (1, 2)]
    configured = configurable(model, "max_team", "max_rounds", "cost_weight", "task")
    for answers in (configured.batch([QUESTION] * 2, configs), await configured.abatch([QUESTION] * 2, configs)):
        assert [how(answer)["cost_weight"] for answer in answers] == [0.1, 0.2]
        assert len(asked(answers[0])[0]) == 1
        assert {how(answer)["policy"] for answer in answers} == {model.policy.policy_id}


def test_alternatives_can_be_chosen_by_config():
    model = three().configurable_alternatives(
        ConfigurableField(id="which"), default_key="ensemble", single=saying("no"), other=three(max_team=1)
    )
    assert asked(model.invoke(QUESTION)) == [["a"], ["b", "c"]]
    assert asked(model.invoke(QUESTION, {"configurable": {"which": "other"}})) == [["a"]]
    assert model.invoke(QUESTION, {"configurable": {"which": "single"}}).text == "no"


# ---- tokens


@pytest.mark.disable_socket
def test_tokens_are_estimated_without_a_network_or_counted_by_the_callers_tokenizer(caplog):
    """Four characters a token: 9 characters are 3 tokens. That it estimates is said once."""
    budgets._say_once.cache_clear()
    messages = [HumanMessage("x" * 400)]
    own = three(custom_get_token_ids=lambda text: [len(word) for word in text.split()])
    assert own.get_num_tokens("three words here") == 3
    assert own.get_num_tokens_from_messages([HumanMessage("three words here")]) == 4  # LangChain's "Human:" before
    assert caplog.records == []
    model = three()
    assert [model.get_num_tokens(text) for text in ("123456789", "")] == [3, 0]
    one = model.get_num_tokens_from_messages(messages)
    assert 100 <= one < model.get_num_tokens_from_messages([SystemMessage("y" * 400), *messages]) < 2 * one + 10
    assert model.get_num_tokens_from_messages(messages, tools=[lookup]) > one
    three().get_num_tokens("again")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    budgets._say_once.cache_clear()


# ---- copies, files, and what it says of itself


def pickled(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled, RLFocalChatModel.model_copy])
def test_a_copy_with_limits_and_a_trained_policy_answers_as_the_model_does(copied, random_policy):
    members = [PoolMember(name, saying(name), max_concurrent_calls=2) for name in ("ann", "bob")]
    model = RLFocalChatModel(
        members=members, policy=random_policy(("ann", "bob")), max_concurrent_calls=3, task="quiz/a", max_team=2
    )
    answer = model.invoke(QUESTION)
    other = copied(model)
    assert without_chance(other.invoke(QUESTION)) == without_chance(answer)
    assert other.max_concurrent_calls == 3
    assert [member.max_concurrent_calls for member in other.pool] == [2, 2]
    assert other._identifying_params == model._identifying_params


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_binding_can_be_copied_and_pickled(copied):
    """Functions are pickled by their name, so the tool stands at the top of a module."""
    model = model_of({"a": SchemaChatModel(), "b": SchemaChatModel()}, max_concurrent_calls=2)
    for binding in (model.bind_tools([lookup]), model.bind(max_team=1), model.with_config(tags=["x"])):
        answer, other = binding.invoke(QUESTION), copied(binding).invoke(QUESTION)
        assert (other.text, asked(other)) == (answer.text, asked(answer))
        assert [call["args"] for call in other.tool_calls] == [call["args"] for call in answer.tool_calls]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
async def test_a_copy_that_is_made_while_calls_run_waits_for_their_place(copied):
    model = three(max_concurrent_calls=1)
    place = model.shared_state.limiter.acquire("a", on_granted=lambda: None)
    other = copied(model)
    assert other.shared_state is model.shared_state
    asking = asyncio.create_task(other.ainvoke(QUESTION))
    await let_others_run()
    assert (model.shared_state.limiter.running, model.shared_state.limiter.waiting) == ({"a": 1}, 1)
    place.release()
    assert (await asking).text == "yes"


def test_a_pickle_that_is_made_while_calls_run_begins_at_zero_but_for_what_was_spent():
    model = three(max_concurrent_calls=1)
    model.invoke(QUESTION)
    model.shared_state.limiter.acquire("a", on_granted=lambda: None)
    other = pickled(model)
    assert other.spent == model.spent
    assert other.spent.calls == 3
    assert other.invoke(QUESTION).text == "yes"
    assert (other.spent.calls, model.spent.calls) == (6, 3)


@pytest.mark.parametrize("door", ["invoke", "astream"])
async def test_a_call_can_have_one_member_answer_under_its_name(door):
    model = model_of({"a": saying("one"), "b": saying("two")})
    message = await answer_of(model, door, model="b")
    assert (message.text, message.response_metadata["model_name"]) == ("two", "b")
    assert asked(message) == [["b"]]
    assert list(how(message)["excluded"]) == ["a"]
    message = await answer_of(model, door, model="rlfocal")
    assert message.response_metadata["model_name"] == "rlfocal"
    with pytest.raises(InputError, match="must be the name of a member"):
        await answer_of(model, door, model="c")


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


def test_another_trained_policy_has_another_key(random_policy):
    members = {"a": saying("yes"), "b": saying("yes")}
    keys = [key_of(members=members, policy=random_policy(("a", "b"), seed)) for seed in (1, 2)]
    assert keys[0] != keys[1]


def failing_once():
    """A member that fails at its first call alone."""
    errors = iter([TimeoutError("late")])

    def script(_messages):
        if error := next(errors, None):
            raise error
        return "yes"

    return ScriptedChatModel(script=script)


@pytest.mark.parametrize("door", ["invoke", "abatch"])
async def test_a_cached_answer_asks_nobody_and_costs_nothing_and_an_error_is_not_cached(door):
    limiter = Counting()
    model = model_of({"a": failing_once()}, cache=InMemoryCache(), rate_limiter=limiter)
    with pytest.raises(EnsembleError):
        await answer_of(model, door)
    first, second = await answer_of(model, door), await answer_of(model, door)
    assert first.text == second.text == "yes"
    assert second.usage_metadata == {**first.usage_metadata, "total_cost": 0}
    assert how(second) == how(first)
    assert limiter.acquired == 2
    assert (await answer_of(model, door, "Another?")).text == "yes"
    assert limiter.acquired == 3


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


@pytest.mark.parametrize("door", ["invoke", "astream"])
@pytest.mark.parametrize("max_team", [1, 3], ids=["relayed", "fused"])
async def test_a_call_takes_one_permit_of_the_ensemble_and_one_of_each_member_that_is_asked(max_team, door):
    own, limiters = Counting(), {name: Counting() for name in "abc"}
    members = {name: saying("yes", rate_limiter=limiter) for name, limiter in limiters.items()}
    model = model_of(members, rate_limiter=own, max_team=max_team)
    await answer_of(model, door)
    assert own.acquired == 1
    assert [limiter.acquired for limiter in limiters.values()] == ([1, 0, 0] if max_team == 1 else [1, 1, 1])


# ---- what members can take


IMAGE = [HumanMessage([{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}])]
LONG = "word " * 800
"""4,000 characters are about 1,000 tokens."""


def able(**profile):
    return saying("yes", profile=profile)


@pytest.mark.parametrize("door", ["invoke", "astream"])
@pytest.mark.parametrize(
    ("cannot", "can", "question", "reason"),
    [
        ({"image_inputs": False}, {"image_inputs": True}, IMAGE, "does not accept images"),
        ({"max_input_tokens": 100}, {"max_input_tokens": 10_000}, LONG, "takes 100 tokens and the conversation has"),
    ],
)
async def test_a_conversation_goes_to_those_alone_that_can_take_it(cannot, can, question, reason, door):
    members = {"cannot": able(**cannot), "can": able(**can)}
    message = await answer_of(model_of(members, policy=None), door, question)
    assert (asked(message), members["cannot"].asked) == ([["can"]], [])
    assert how(message)["excluded"]["cannot"].startswith(reason)


@pytest.mark.parametrize(
    ("members", "question", "call", "is_overflow"),
    [
        ({"a": able(max_input_tokens=10), "b": able(max_input_tokens=20)}, LONG, {}, True),
        ({"a": able(max_input_tokens=10), "b": able(max_input_tokens=100_000)}, LONG, {"model": "a"}, True),
        ({"a": able(image_inputs=False)}, IMAGE, {}, False),
        ({"a": able(image_inputs=False), "b": able(image_inputs=True, max_input_tokens=1)}, IMAGE, {}, False),
    ],
)
def test_where_nobody_can_take_it_for_its_length_alone_it_is_langchains_overflow(members, question, call, is_overflow):
    with pytest.raises(EnsembleError, match=r"not asked: it (takes|does not accept)") as caught:
        model_of(members, policy=None).invoke(question, **call)
    assert isinstance(caught.value, ContextOverflowError) == is_overflow
    assert all(member.asked == [] for member in members.values())


def test_the_profile_of_an_ensemble_is_that_of_its_pool_unless_one_is_given():
    members = {"a": able(image_inputs=False, max_input_tokens=100), "b": able(image_inputs=True, max_input_tokens=200)}
    assert model_of(members).profile == {"image_inputs": True, "max_input_tokens": 200}
    assert model_of({"a": saying("x")}).profile is None
    assert model_of(members, profile={"image_inputs": False}).profile == {"image_inputs": False}


# ---- retries, fallbacks


async def test_an_ensemble_error_can_be_retried():
    """The only member fails at first and answers when it is asked again."""
    for ask in ("invoke", "ainvoke"):
        retrying = model_of({"a": failing_once()}).with_retry(
            retry_if_exception_type=(EnsembleError,), wait_exponential_jitter=False, stop_after_attempt=2
        )
        assert (await answer_of(retrying, ask)).text == "yes"


@pytest.mark.parametrize("door", DOORS)
async def test_another_model_can_be_the_fallback_of_an_ensemble_and_the_other_way_round(door):
    failing = model_of({"a": FailingChatModel(error=TimeoutError("late"))})
    assert (await answer_of(failing.with_fallbacks([saying("spare")]), door)).text == "spare"
    alone = FailingChatModel(error=TimeoutError("late"))
    assert (await answer_of(alone.with_fallbacks([three()]), door)).text == "yes"


async def test_tools_and_schemas_go_to_a_model_and_its_fallbacks_at_once():
    def fail(_messages, _tools):
        raise TimeoutError("late")

    failing, obeying = (model_of({name: SchemaChatModel(answers=said) for name in "ab"}) for said in (fail, None))
    model = failing.with_fallbacks([obeying])
    message = await model.bind_tools([lookup], tool_choice="lookup").ainvoke(QUESTION)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("lookup", {"city": "Oslo"})]
    for method in ("function_calling", "json_schema"):
        assert model.with_structured_output(City, method=method).invoke("It is 'Oslo'.") == City(name="Oslo")
