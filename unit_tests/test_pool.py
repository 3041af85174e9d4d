"""The pool: what it accepts, what it refuses, and what it says."""

import copy
import importlib
import math
import pickle
import types

import pytest
from langchain_core.runnables import RunnableLambda

from langchain_rlfocal.errors import MissingDependencyError, PoolError
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.testing import ScriptedChatModel


def scripted(answer: str = "yes") -> ScriptedChatModel:
    return ScriptedChatModel(script=[answer])


@pytest.fixture
def langchain(monkeypatch):
    """Stand in for `langchain.chat_models`, so that tests decide what `init_chat_model` does."""
    real = importlib.import_module

    def install(init_chat_model):
        fake = types.SimpleNamespace(init_chat_model=init_chat_model)
        monkeypatch.setattr(importlib, "import_module", lambda name: fake if "langchain." in name else real(name))

    return install


def test_a_pool_keeps_its_members_in_the_order_given():
    pool = ModelPool.from_models({"b": scripted(), "a": scripted()})
    assert pool.names == ("b", "a")
    assert [member.name for member in pool] == ["b", "a"]
    assert len(pool) == 2
    assert pool["a"] is pool.members[1]
    assert "a" in pool
    assert "c" not in pool


def test_a_pool_member_keeps_its_prices_and_competence_under_its_own_name():
    member = PoolMember("a", scripted(), competence=0.9, input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    assert ModelPool.from_models({"a": member})["a"] is member


@pytest.mark.parametrize("empty", [[], ()])
def test_an_empty_pool_is_refused(empty):
    with pytest.raises(PoolError, match="at least one member, got none"):
        ModelPool(empty)
    with pytest.raises(PoolError, match="at least one member, got none"):
        ModelPool.from_models({})


def test_a_name_twice_is_refused_by_name():
    with pytest.raises(PoolError, match="got `a` twice"):
        ModelPool([PoolMember("a", scripted()), PoolMember("a", scripted())])


def test_a_sequence_of_bare_models_is_refused_since_they_have_no_names():
    with pytest.raises(PoolError, match="must hold `PoolMember`s, got ScriptedChatModel"):
        ModelPool([scripted()])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["", "  ", 3])
def test_a_member_without_a_name_is_refused(name):
    with pytest.raises(PoolError, match="`name` must be a text that is not blank"):
        PoolMember(name, scripted())


def test_a_member_that_is_no_chat_model_is_refused_with_the_way_out():
    with pytest.raises(PoolError, match=r"`a` must be a LangChain chat model.*got RunnableLambda.*not a chain"):
        PoolMember("a", RunnableLambda(str))  # type: ignore[arg-type]


@pytest.mark.parametrize("competence", [-0.1, 1.1, math.nan])
def test_a_competence_outside_its_range_is_refused(competence):
    with pytest.raises(PoolError, match=r"`competence` of member `a` must be in \[0, 1\]"):
        PoolMember("a", scripted(), competence=competence)


@pytest.mark.parametrize("price", [-1.0, math.inf, math.nan])
@pytest.mark.parametrize("which", ["input_usd_per_mtok", "output_usd_per_mtok"])
def test_a_price_that_is_no_price_is_refused(which, price):
    with pytest.raises(PoolError, match=f"`{which}` of member `a` must be finite"):
        PoolMember("a", scripted(), **{which: price})


def test_a_pool_member_under_another_name_than_its_own_is_refused():
    with pytest.raises(PoolError, match="got `a` under `b`"):
        ModelPool.from_models({"b": PoolMember("a", scripted())})


def test_asking_a_pool_for_a_stranger_names_those_it_has():
    with pytest.raises(PoolError, match="no member `c`; it has a, b"):
        ModelPool.from_models({"a": scripted(), "b": scripted()})["c"]


def test_a_call_costs_its_tokens_times_their_prices():
    """1,000 tokens at $2 a million and 500 at $8 a million: $0.002 + $0.004."""
    member = PoolMember("a", scripted(), input_usd_per_mtok=2.0, output_usd_per_mtok=8.0)
    assert member.cost_usd(prompt_tokens=1000, completion_tokens=500) == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("prices", "tokens"),
    [
        ({"input_usd_per_mtok": 1.0}, (1, 1)),
        ({"output_usd_per_mtok": 1.0}, (1, 1)),
        ({"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}, (None, 1)),
        ({"input_usd_per_mtok": 1.0, "output_usd_per_mtok": 1.0}, (1, None)),
    ],
)
def test_a_cost_with_an_unknown_part_is_unknown_and_not_zero(prices, tokens):
    member = PoolMember("a", scripted(), **prices)
    assert member.cost_usd(prompt_tokens=tokens[0], completion_tokens=tokens[1]) is None


def test_a_free_member_costs_nothing_which_is_known():
    member = PoolMember("a", scripted(), input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)
    assert member.cost_usd(prompt_tokens=9, completion_tokens=9) == 0.0


def test_a_string_goes_through_init_chat_model(langchain):
    made = scripted()
    names = []

    def init_chat_model(name):
        names.append(name)
        return made

    langchain(init_chat_model)
    assert ModelPool.from_models({"a": "anthropic:claude"})["a"].model is made
    assert names == ["anthropic:claude"]


def test_a_string_without_langchain_names_the_command_that_installs_it(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"Member `a`.*pip install langchain"):
        ModelPool.from_models({"a": "openai:gpt"})


def test_a_string_whose_provider_is_not_installed_says_whose_it_is(langchain):
    def init_chat_model(_name):
        raise ImportError("pip install langchain-anthropic")

    langchain(init_chat_model)
    with pytest.raises(MissingDependencyError, match=r"Member `a`.*pip install langchain-anthropic"):
        ModelPool.from_models({"a": "anthropic:claude"})


def test_a_string_that_names_no_model_is_a_pool_error():
    """Through the real `init_chat_model`, which cannot infer a provider from this name."""
    with pytest.raises(PoolError, match="Member `a`: 'no-such-model' names no usable model"):
        ModelPool.from_models({"a": "no-such-model"})


class ProviderError(Exception):
    """Stands for `openai.OpenAIError`, which is no ValueError."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ProviderError("The api_key option must be set. Bad header: Bearer abc123secret."), "option must be set"),
        (ProviderError(), "ProviderError"),
    ],
)
def test_whatever_a_provider_raises_is_a_pool_error_that_names_the_member_and_no_secret(langchain, error, said):
    def init_chat_model(_name):
        raise error

    langchain(init_chat_model)
    with pytest.raises(PoolError, match=f"Member `a`: 'openai:gpt' .*{said}.* give the chat model itself") as caught:
        ModelPool.from_models({"a": "openai:gpt"})
    assert "abc123secret" not in str(caught.value)


def test_a_pool_shows_names_and_no_models():
    """A model's own representation may be long, and say more than a log should."""
    assert repr(ModelPool.from_models({"a": scripted(), "b": scripted()})) == "ModelPool(a, b)"
    assert "Scripted" not in repr(PoolMember("a", scripted()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pool: pickle.loads(pickle.dumps(pool))])
def test_a_pool_can_be_copied_and_pickled(copied):
    pool = copied(ModelPool.from_models({"a": scripted("one")}))
    assert pool.names == ("a",)
    assert pool["a"].model.invoke("?").text == "one"
