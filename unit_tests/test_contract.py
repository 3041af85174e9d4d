"""Contract: what LangChain promises of every chat model holds for an ensemble: configuration, retries, caches, copies."""

import asyncio
import copy
import json
import logging
import pickle
import warnings

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import ConfigurableField

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import budgets
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.testing import SchemaChatModel, ScriptedPolicy
from support_contract import DOORS, answer_of, model_of, three
from support_ensembles import asked, how, saying
from support_gauges import let_others_run
from support_tools import QUESTION, lookup


def without_chance(message):
    """A message without what differs from call to call: ids, and the seconds it took."""
    chance = dict.fromkeys(("latency_s", "seconds"))
    return json.loads(message.model_copy(update={"id": None}).model_dump_json(), object_hook=lambda d: {**d, **chance})


# ---- configurable


class Seeing:
    """A policy that remembers what it was asked under; it cannot be copied, so that reloading would show."""

    members, trained, policy_id = ("a", "b"), True, "seeing"

    def __init__(self):
        self.seen = []

    def __deepcopy__(self, memo):
        raise AssertionError

    def cost_weight_for(self, target):
        return target / 100

    def select(self, query, candidates, failures, **terms):
        self.seen.append({**terms, "task": query.task})
        return ScriptedPolicy([["a"], ["b"]], self.members).select(query, candidates, failures, **terms)

    def fuse(self, query, candidates, failures, **terms):
        return ScriptedPolicy([], self.members).fuse(query, candidates, failures, **terms)


def configurable(model, *names):
    return model.configurable_fields(**{name: ConfigurableField(id=name) for name in names})


@pytest.mark.parametrize("door", DOORS)
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


async def test_all_knobs_can_be_set_at_once_and_each_query_of_a_batch_has_its_own():
    model = configurable(three(), "max_team", "max_rounds", "cost_weight", "task")
    configs = [{"configurable": {"max_team": n, "cost_weight": n / 10}} for n in (1, 2, 3)]
    for answers in (model.batch([QUESTION] * 3, configs), await model.abatch([QUESTION] * 3, configs)):
        assert [sum(map(len, asked(answer))) for answer in answers] == [1, 2, 3]
        assert [how(answer)["cost_weight"] for answer in answers] == [0.1, 0.2, 0.3]


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


def test_a_configured_policy_that_came_from_a_path_is_not_read_again(bare_policy, tmp_path, monkeypatch):
    path = bare_policy.save(tmp_path / "policy") or tmp_path / "policy"
    model = RLFocalChatModel(members={"ann": saying("yes"), "bob": saying("yes")}, policy=path)
    monkeypatch.setattr(RLFocalPolicy, "load", None)
    message = configurable(model, "max_team").invoke(QUESTION, {"configurable": {"max_team": 1}})
    assert how(message)["policy"] == model.policy.policy_id


@pytest.mark.parametrize("door", DOORS)
async def test_a_knob_outside_its_range_is_refused_through_config_too(door):
    with pytest.raises(InputError, match="`max_team` must be"):
        await answer_of(configurable(three(), "max_team"), door, QUESTION, {"configurable": {"max_team": 0}})


@pytest.mark.parametrize("door", DOORS)
async def test_alternatives_can_be_chosen_by_config(door):
    model = three().configurable_alternatives(
        ConfigurableField(id="which"), default_key="ensemble", single=saying("no"), other=three(max_team=1)
    )
    assert asked(await answer_of(model, door)) == [["a"], ["b", "c"]]
    assert asked(await answer_of(model, door, QUESTION, {"configurable": {"which": "other"}})) == [["a"]]
    assert (await answer_of(model, door, QUESTION, {"configurable": {"which": "single"}})).text == "no"


def test_an_ensemble_can_be_an_alternative_with_configurable_fields_in_a_chain():
    model = configurable(three(), "max_team")
    chain = model | StrOutputParser()
    assert chain.invoke(QUESTION, {"configurable": {"max_team": 1}}) == "yes"
    assert chain.with_config(configurable={"max_team": 1}).invoke(QUESTION) == "yes"


# ---- tokens


@pytest.fixture
def nothing_said_yet():
    budgets._say_once.cache_clear()
    yield
    budgets._say_once.cache_clear()


@pytest.mark.disable_socket
def test_tokens_are_estimated_without_a_network_and_that_is_said_once(caplog, nothing_said_yet):
    """Four characters a token: 9 characters are 3 tokens."""
    with caplog.at_level(logging.WARNING):
        model = three()
        assert model.get_num_tokens("123456789") == 3
        assert model.get_num_tokens("") == 0
        one = model.get_num_tokens_from_messages([HumanMessage("x" * 400)])
        two = model.get_num_tokens_from_messages([SystemMessage("y" * 400), HumanMessage("x" * 400)])
        with_tools = model.get_num_tokens_from_messages([HumanMessage("x" * 400)], tools=[lookup])
        three().get_num_tokens("again")
    assert 100 <= one < two < 2 * one + 10
    assert with_tools > one
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "estimates" in caplog.text


@pytest.mark.disable_socket
def test_a_tokenizer_of_the_callers_counts_exactly_and_nothing_is_said(caplog, nothing_said_yet):
    model = three(custom_get_token_ids=lambda text: [len(word) for word in text.split()])
    with caplog.at_level(logging.WARNING):
        assert model.get_num_tokens("three words here") == 3
        assert (
            model.get_num_tokens_from_messages([HumanMessage("three words here")]) == 4
        )  # LangChain's "Human:" before
        assert model.get_num_tokens_from_messages([HumanMessage("three words here")], tools=[lookup]) > 4
        assert model.get_token_ids("a bb") == [1, 2]
    assert caplog.records == []


# ---- copies, files, and what it says of itself


def pickled(model):
    return pickle.loads(pickle.dumps(model))


COPIES = [
    copy.copy,
    copy.deepcopy,
    pickled,
    lambda model: model.model_copy(),
    lambda model: model.model_copy(deep=True),
]


@pytest.mark.parametrize("copied", COPIES, ids=["copy", "deepcopy", "pickle", "model_copy", "deep model_copy"])
@pytest.mark.parametrize("door", DOORS)
async def test_a_copy_with_limits_and_a_trained_policy_answers_as_the_model_does(copied, door, bare_policy):
    members = [PoolMember(name, saying(name), max_concurrent_calls=2) for name in ("ann", "bob")]
    model = RLFocalChatModel(members=members, policy=bare_policy, max_concurrent_calls=3, task="quiz/a", max_team=2)
    answer = await answer_of(model, door)
    other = copied(model)
    assert without_chance(await answer_of(other, door)) == without_chance(answer)
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


@pytest.mark.parametrize("door", DOORS)
async def test_a_policy_that_is_saved_and_loaded_gives_the_same_answers(door, bare_policy, tmp_path):
    members = {"ann": saying("2"), "bob": saying("3")}
    bare_policy.save(tmp_path / "policy")
    made, loaded = (
        RLFocalChatModel(members=members, policy=policy, task="quiz/b")
        for policy in (bare_policy, str(tmp_path / "policy"))
    )
    for question in (QUESTION, "What is 2 + 3?"):
        assert without_chance(await answer_of(made, door, question)) == without_chance(
            await answer_of(loaded, door, question)
        )


def test_asdict_says_what_identifies_the_model_in_json():
    facts = three(max_team=2, cost_weight=0.3).asdict()
    json.dumps(facts)
    assert (facts["_type"], facts["max_team"], facts["cost_weight"]) == ("rlfocal", 2, 0.3)
    assert list(facts["members"]) == ["a", "b", "c"]
    assert facts["policy"] == "scripted"


def test_unknown_arguments_warn_and_known_ones_do_not():
    with pytest.warns(UserWarning, match="`max_teams` is no argument of RLFocalChatModel .* `max_team`"):
        three(max_teams=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        three(cache=False, rate_limiter=None, disable_streaming=True, output_version="v1", profile={}, verbose=False)


@pytest.mark.parametrize("door", DOORS)
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
