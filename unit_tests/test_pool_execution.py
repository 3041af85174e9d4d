"""What a member's prices and time-out mean where it is asked: the shapes in which providers report tokens, and who is cut off."""

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.execution import AnswerLimits, Budget, ExecutionConfig, RoundRequest, ask_members
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.testing import ScriptedChatModel
from support_time import WAYS, play, timed

PRICES = {
    "input_usd_per_mtok": 2.0,
    "cached_input_usd_per_mtok": 0.5,
    "output_usd_per_mtok": 8.0,
    "reasoning_usd_per_mtok": 10.0,
}


def ask(model, *, limits=None, **prices):
    request = RoundRequest(messages=[HumanMessage("?")], round_number=1)
    return ask_members([PoolMember("a", model, **prices)], request, limits)[0]


def openai_model(usage, **said):
    """A `ChatOpenAI` whose server answers with this usage, in OpenAI's own form."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={**body, **said}))
    return ChatOpenAI(
        model="m", api_key="none", base_url="http://server/v1", http_client=httpx.Client(transport=transport)
    )


def test_a_response_of_openai_is_priced_with_its_cached_and_reasoning_tokens():
    """Of 1000 tokens of prompt 400 were cached: 600 · 2 + 400 · 0.5 = 1400. Of 500 of the response 100 were reasoning:
    400 · 8 + 100 · 10 = 4200. 5600 millionths.
    """
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 400, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 100, "accepted_prediction_tokens": 0},
    }
    limits = AnswerLimits(ExecutionConfig(budget=Budget(max_usd=9.0)))
    candidate = ask(openai_model(usage), limits=limits, **PRICES)
    assert (candidate.prompt_tokens, candidate.completion_tokens) == (1000, 500)
    assert candidate.cost_usd == pytest.approx(0.0056)
    assert limits.ledger.spent.usd == pytest.approx(0.0056)


def test_tokens_of_a_service_tier_count_as_cached_too():
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 0,
        "total_tokens": 1000,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    candidate = ask(openai_model(usage, service_tier="flex"), **PRICES)
    assert "flex_cache_read" in candidate.message.usage_metadata["input_token_details"]
    assert candidate.cost_usd == pytest.approx(0.0014)


def test_without_details_every_token_has_the_full_price():
    usage = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
    assert ask(openai_model(usage), **PRICES).cost_usd == pytest.approx(0.006)


def test_a_response_of_anthropic_is_priced_likewise():
    """It counts cached tokens apart, and LangChain adds them: 100 + 900 read + 500 written are 1500 of prompt, of which 900
    cost 0.5: 600 · 2 + 450 = 1650, and 20 · 8 = 160.
    """
    anthropic = pytest.importorskip("langchain_anthropic", reason="langchain-anthropic is optional")
    client_class = pytest.importorskip("anthropic").Anthropic
    usage = {
        "input_tokens": 100,
        "cache_read_input_tokens": 900,
        "cache_creation_input_tokens": 500,
        "output_tokens": 20,
    }
    body = {
        "id": "1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "yes"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    http = pytest.importorskip("httpx2")  # which its client is built on
    transport = http.MockTransport(lambda _: http.Response(200, json=body))
    model = anthropic.ChatAnthropic(model="m", api_key="none", max_tokens=9)
    vars(model)["_client"] = client_class(api_key="none", http_client=http.Client(transport=transport))
    candidate = ask(model, **PRICES)
    assert candidate.prompt_tokens == 1500
    assert candidate.cost_usd == pytest.approx(1810e-6)


@pytest.mark.parametrize(
    "details", [None, 5, {}, {"cache_read": None}, {"cache_read": "many"}, {"cache_read": -4}, "x"]
)
def test_details_that_are_none_change_no_price(details):
    """Whatever a server puts there, the call is priced in full, and is no failure."""
    usage = {"input_tokens": 1000, "output_tokens": 500, "total_tokens": 1500}
    message = AIMessage("yes", usage_metadata=usage)
    message.usage_metadata["input_token_details"] = details
    assert ask(ScriptedChatModel(script=[message]), **PRICES).cost_usd == pytest.approx(0.006)


def test_a_budget_reserves_the_price_of_reasoning_where_that_is_dearer():
    """At most 10 tokens of response: 80 millionths of a dollar at the price of output, 100 at that of reasoning."""
    limits = AnswerLimits(ExecutionConfig(budget=Budget(max_usd=90e-6)))
    model = ChatOpenAI(model="m", api_key="none", base_url="http://server/v1", max_tokens=10)
    prices = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 8.0}
    failure = ask(model, limits=limits, **prices, reasoning_usd_per_mtok=10.0)
    assert failure.kind == "budget"
    cheap = ask(openai_model({"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}), **prices)
    assert cheap.cost_usd == pytest.approx(8e-6)


# ---- time-outs

BUSY = ConnectionError("lost")


def ensemble(*members, **fields):
    return lambda clock: RLFocalChatModel(members=members, clock=clock, max_team=len(members), **fields)


@pytest.mark.parametrize("way", WAYS)
def test_a_members_own_time_out_cuts_its_attempts_and_nobody_elses(way, steady_retries):
    """`a` has 2 s for each attempt: cut at 2, asked again at 2½, done at 4. `b` may take its 9 s."""
    members = {"a": timed((10, "no"), (1.5, "yes")), "b": timed((9, "yes"))}
    pool = [PoolMember("a", members["a"], timeout_s=2), PoolMember("b", members["b"])]
    answer = play(way, ensemble(*pool, early_commit=False))
    assert (members["a"].begun_s, members["b"].begun_s) == ([0, 2.5], [0])
    assert (answer.took_s, sorted(answer.answered)) == (9, ["a", "b"])
    [retry] = next(row["retries"] for row in answer.how["candidates"] if row["member"] == "a")
    assert (retry["kind"], retry["reason"]) == ("timeout", "No answer within 2 s.")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("own_s", "fields", "took_s"),
    [
        (5, {"timeout": 2}, 2),  # the ensemble's is shorter
        (2, {"timeout": 5}, 2),
        (5, {"member_timeout_s": 3}, 3),
        (5, {"deadline_s": 1}, 1),
        (None, {"timeout": 4}, 4),
    ],
)
def test_the_shortest_of_all_times_holds(way, own_s, fields, took_s):
    pool = [PoolMember("a", timed((10, "no")), timeout_s=own_s), PoolMember("b", timed((0, "yes")))]
    answer = play(way, ensemble(*pool, early_commit=False, max_retries=0, **fields))
    assert (answer.took_s, answer.answered) == (took_s, ["b"])
    assert set(answer.kinds) == {"a"}


def test_the_client_of_a_member_in_a_thread_is_told_to_give_up_in_time():
    """Nothing can end a thread from outside: the client's own time-out has to."""
    told = []

    def handler(request):
        told.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json={})

    client = httpx.Client(transport=httpx.MockTransport(handler))
    model = ChatOpenAI(model="m", api_key="none", base_url="http://server/v1", http_client=client, max_retries=0)
    for timeout_s, expected in ((7.0, 7.0), (None, model.root_client.timeout)):
        ask(model, timeout_s=timeout_s)
        assert told.pop() == (expected if isinstance(expected, float) else getattr(expected, "read", expected))


def test_a_response_cache_keeps_time_outs_apart():
    """An answer without a member that was cut off is not that of an ensemble that waits for it."""
    model = ScriptedChatModel(script=["yes"])
    keys = [
        RLFocalChatModel(members=[PoolMember("a", model, timeout_s=timeout_s)])._get_llm_string()
        for timeout_s in (None, 1.0, 2.0, 1.0)
    ]
    assert len(set(keys)) == 3
