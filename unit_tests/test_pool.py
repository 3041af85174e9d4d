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

MODEL = ScriptedChatModel(script=["yes"])


@pytest.fixture
def langchain(monkeypatch):
    """Stand in for `langchain.chat_models`: `init_chat_model` returns or raises what it is told to."""
    real, names = importlib.import_module, []

    def install(result):
        def init_chat_model(name):
            names.append(name)
            if isinstance(result, Exception):
                raise result
            return result

        fake = types.SimpleNamespace(init_chat_model=init_chat_model)
        monkeypatch.setattr(importlib, "import_module", lambda name: fake if "langchain." in name else real(name))
        return names

    return install


def test_a_pool_keeps_its_members_in_the_order_given():
    member = PoolMember("a", MODEL, competence=0.9, input_usd_per_mtok=1.0, output_usd_per_mtok=2.0)
    pool = ModelPool.from_models({"b": MODEL, "a": member})
    assert pool.names == ("b", "a")
    assert [each.name for each in pool] == ["b", "a"]
    assert len(pool) == 2
    assert pool["a"] is pool.members[1] is member
    assert "a" in pool
    assert "c" not in pool
    with pytest.raises(PoolError, match="no member `c`; it has b, a"):
        pool["c"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelPool([]), "at least one member, got none"),
        (lambda: PoolMember("a", MODEL, competence="high"), "`competence` of member `a` must be in .0, 1., got 'high'"),
        (lambda: PoolMember("a", MODEL, input_usd_per_mtok="1"), "must be finite and not negative, got '1'"),
        (lambda: ModelPool.from_models({}), "at least one member, got none"),
        (lambda: ModelPool([PoolMember("a", MODEL)] * 2), "got `a` twice"),
        (lambda: ModelPool([MODEL]), "must hold `PoolMember`s, got ScriptedChatModel"),
        (lambda: ModelPool.from_models({"b": PoolMember("a", MODEL)}), "got `a` under `b`"),
        *(
            (lambda name=name: PoolMember(name, MODEL), "`name` must be a text that is not blank")
            for name in ("", "  ", 3)
        ),
        (
            lambda: PoolMember("a", RunnableLambda(str)),
            r"must be a LangChain chat model.*got RunnableLambda.*not a chain",
        ),
        *(
            (
                lambda number=number: PoolMember("a", MODEL, competence=number),
                r"`competence` of member `a` must be in \[0",
            )
            for number in (-0.1, 1.1, math.nan)
        ),
        *(
            (
                lambda number=number, which=which: PoolMember("a", MODEL, **{which: number}),
                f"`{which}` of member `a` must",
            )
            for which in (
                "input_usd_per_mtok",
                "output_usd_per_mtok",
                "cached_input_usd_per_mtok",
                "cache_write_usd_per_mtok",
                "reasoning_usd_per_mtok",
            )
            for number in (-1.0, math.inf, math.nan)
        ),
    ],
)
def test_what_is_no_pool_or_member_is_refused_by_name(make, message):
    with pytest.raises(PoolError, match=message):
        make()


@pytest.mark.parametrize(
    ("prices", "tokens", "cost"),
    [
        ((2.0, 8.0), (1000, 500), 0.006),  # $0.002 + $0.004
        ((0.0, 0.0), (9, 9), 0.0),
        ((1.0, None), (1, 1), None),
        ((None, 1.0), (1, 1), None),
        ((1.0, 1.0), (None, 1), None),
        ((1.0, 1.0), (1, None), None),
    ],
)
def test_a_call_costs_its_tokens_times_their_prices_and_unknown_is_not_zero(prices, tokens, cost):
    member = PoolMember("a", MODEL, input_usd_per_mtok=prices[0], output_usd_per_mtok=prices[1])
    priced = member.cost_usd(prompt_tokens=tokens[0], completion_tokens=tokens[1])
    assert priced == (cost if cost is None else pytest.approx(cost))


@pytest.mark.parametrize(
    ("prices", "counts", "cost"),
    [
        # 1000 of prompt at $2 and 500 of response at $8 a million: $0.002 + $0.004.
        ({}, {}, 0.006),
        ({"cached_input": 0.5}, {"cached": 400}, 0.0054),  # 600 · 2 + 400 · 0.5 = 1400, + 4000
        ({"cached_input": 0.5}, {"cached": None}, 0.006),  # unknown counts as none: never too little
        ({}, {"cached": 400}, 0.006),  # without a price of their own they cost as the others
        ({"cached_input": 0.0}, {"cached": 1000}, 0.004),
        ({"cached_input": 0.5}, {"cached": 9999}, 0.0045),  # more than the prompt has: all of it
        ({"cache_write": 2.5}, {"cache_write": 400}, 0.0062),  # 600 · 2 + 400 · 2.5 = 2200, + 4000
        ({"cached_input": 0.5, "cache_write": 2.5}, {"cached": 400, "cache_write": 500}, 0.00565),  # 200 + 1250 + 200
        ({"cached_input": 0.5, "cache_write": 2.5}, {"cached": 400, "cache_write": 9999}, 0.0057),  # all of the rest
        ({}, {"cache_write": 400}, 0.006),
        ({"reasoning": 10.0}, {"reasoning": 100}, 0.0062),  # 2000 + 400 · 8 + 100 · 10
        ({"reasoning": 0.0, "cached_input": 0.0}, {"reasoning": 500, "cached": 1000}, 0.0),
    ],
)
def test_cached_and_reasoning_tokens_have_their_own_prices(prices, counts, cost):
    member = PoolMember(
        "a",
        MODEL,
        input_usd_per_mtok=2.0,
        output_usd_per_mtok=8.0,
        **{f"{of}_usd_per_mtok": price for of, price in prices.items()},
    )
    tokens = {f"{of}_tokens": count for of, count in counts.items()}
    assert member.cost_usd(prompt_tokens=1000, completion_tokens=500, **tokens) == pytest.approx(cost, abs=1e-15)
    assert member.max_cost_usd(prompt_tokens=1000, completion_tokens=500) >= cost


def test_a_bound_takes_the_dearer_price_of_each_kind_of_tokens():
    """1000 · 3 + 500 · 10 millionths: all could be read from a dear cache, all could be reasoning."""
    prices = {"input": 2.0, "cached_input": 3.0, "output": 8.0, "reasoning": 10.0}
    member = PoolMember("a", MODEL, **{f"{of}_usd_per_mtok": price for of, price in prices.items()})
    assert member.max_cost_usd(prompt_tokens=1000, completion_tokens=500) == pytest.approx(0.008)
    writing = PoolMember("a", MODEL, input_usd_per_mtok=2.0, output_usd_per_mtok=8.0, cache_write_usd_per_mtok=2.5)
    assert writing.max_cost_usd(prompt_tokens=1000, completion_tokens=500) == pytest.approx(0.0065)
    assert PoolMember("a", MODEL).max_cost_usd(prompt_tokens=1, completion_tokens=1) is None


@pytest.mark.parametrize("timeout_s", [0, -1.0, math.inf, math.nan, "5", True])
def test_a_time_out_that_is_none_is_refused(timeout_s):
    with pytest.raises(PoolError, match="`timeout_s` of member `a` must be finite and above 0"):
        PoolMember("a", MODEL, timeout_s=timeout_s)


def test_a_pool_closes_once_what_it_holds_open_and_its_copies_do_not():
    closed = []
    with ModelPool([PoolMember("a", MODEL)], on_close=lambda: closed.append("a")) as pool:
        with pickle.loads(pickle.dumps(pool)), copy.copy(pool), copy.deepcopy(pool):
            pass
        assert closed == []
    pool.close()
    assert closed == ["a"]


def test_a_string_goes_through_init_chat_model(langchain):
    names = langchain(MODEL)
    assert ModelPool.from_models({"a": "anthropic:claude"})["a"].model is MODEL
    assert names == ["anthropic:claude"]


def test_a_string_without_langchain_names_the_command_that_installs_it(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=r"Member `a`.*pip install langchain"):
        ModelPool.from_models({"a": "anthropic:claude"})


def test_a_model_of_openai_needs_no_langchain(monkeypatch):
    """Its package comes with this one."""
    real = importlib.import_module

    def absent(name, package=None):
        if name.startswith("langchain."):
            raise ImportError(name)
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    model = ModelPool.from_models({"a": "openai:gpt-5-nano"})["a"].model
    assert (type(model).__name__, model.model_name) == ("ChatOpenAI", "gpt-5-nano")


def test_a_string_whose_provider_is_not_installed_says_whose_it_is(langchain):
    langchain(ImportError("pip install langchain-anthropic"))
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
def test_an_error_of_a_provider_is_a_pool_error_that_names_the_member_and_no_secret(langchain, error, said):
    langchain(error)
    with pytest.raises(
        PoolError, match=f"Member `a`: 'anthropic:claude' .*{said}.* give the chat model itself"
    ) as caught:
        ModelPool.from_models({"a": "anthropic:claude"})
    assert "abc123secret" not in str(caught.value)


def test_a_pool_shows_names_and_no_models_and_can_be_copied_and_pickled():
    """A model's own representation may be long, and say more than a log should."""
    pool = ModelPool.from_models({"a": MODEL, "b": MODEL})
    assert "Scripted" not in repr(pool["a"])
    for twin in (pool, copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert repr(twin) == "ModelPool(a, b)"
        assert twin["a"].model.invoke("?").text == "yes"
