"""Reliability: what members' own errors do to retries, to quorums and to what is told of them."""

import asyncio

import pytest

from langchain_rlfocal import BudgetError, EnsembleError, InputError, PoolMember, RLFocalChatModel
from langchain_rlfocal.execution import RetryPolicy, SharedState, Usage
from langchain_rlfocal.execution.budgets import reserve
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_asking import aask, ask, limits_of
from support_time import ensemble, no_jitter, play, timed

QUESTION = "Is the sun a star? Answer yes or no."


class LostError(ConnectionError):
    """Holds what no stand-in of its class can be made without."""

    def __init__(self, url, reason):
        self.url, self.reason = url, reason
        super().__init__(f"{url}: {reason}")


class HostileError(ValueError):
    @property
    def response(self):
        raise RuntimeError("nobody may look")


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_whether_to_ask_again_is_decided_on_the_error_and_not_on_what_may_be_shown_of_it(way):
    """A lost connection is worth a retry, also where its address tells a key, which is then hidden."""
    lost = LostError("https://host/?key=planted77secret", "reset")
    member = timed((1, lost), (1, "yes"))
    with no_jitter():
        answer = play(way, ensemble({"a": member}), QUESTION)
    [failure] = answer.message.response_metadata["rlfocal"]["candidates"][0]["retries"]
    assert len(member.begun_s) == 2
    assert "planted" not in str(failure)


@pytest.mark.parametrize("door", [ask, aask])
async def test_an_error_that_refuses_to_be_looked_at_is_its_members_failure(door):
    members = [PoolMember("a", FailingChatModel(error=HostileError("key=planted77secret"))), PoolMember("b", saying())]
    results = door(members, [])
    a, b = await results if door is aask else results
    assert b.text == "yes"
    assert not isinstance(a.error, HostileError)  # LangChain has looked, and stumbled
    assert "planted" not in f"{a.reason} {a.error}"


def saying():
    return ScriptedChatModel(script=lambda _: "yes")


def test_a_quorum_that_fewer_members_than_it_can_be_asked_for_holds_nobody_up():
    """`min_candidates` matters where something cuts the answer short, not where one of two members is named or rests."""
    model = RLFocalChatModel(members={"a": saying(), "b": saying()}, min_candidates=2)
    assert model.invoke(QUESTION, model="a").text == "yes"
    for _ in range(5):
        model.shared_state.breakers.admit("b", model.clock()).fail(model.clock(), model._setup.config.breaker)
    assert model.invoke(QUESTION).text == "yes"
    with pytest.raises(InputError, match="`min_candidates` must be at most `max_team`"):
        model.invoke(QUESTION, max_team=1)


def test_a_stream_that_a_budget_breaks_off_says_so():
    member = timed((0, [(1, "one "), (9, "two")]))
    answer = play("astream", ensemble({"a": member}, budget={"max_seconds": 3}, timeout=60, max_team=1), QUESTION)
    assert isinstance(answer.error, BudgetError)
    assert isinstance(answer.error, EnsembleError)


@pytest.mark.parametrize("given", [{"hedge": None}, {"early_commit": "no"}])
def test_a_switch_is_on_or_off(given):
    with pytest.raises(InputError, match="must be a valid boolean"):
        RLFocalChatModel(members={"a": saying()}).invoke(QUESTION, **given)


def test_retries_that_a_config_leaves_open_are_the_models_own():
    model = RLFocalChatModel(members={"a": FailingChatModel(error=ConnectionError("x"))}, max_retries=0)
    with pytest.raises(EnsembleError):
        model.invoke(QUESTION, max_retries=None)
    assert model.spent.calls == 1


def test_another_deadline_is_another_cache_key():
    keys = {
        RLFocalChatModel(members={"a": saying()}, **fields)._get_llm_string()
        for fields in ({}, {"deadline_s": 1}, {"deadline_s": 2}, {"deadline_s": 2, "timeout": 1})
    }
    assert len(keys) == 4


def test_an_account_without_limits_adds_nothing_up_however_many_calls_run():
    """Were each reservation to sum up all others, ten thousand would be fifty million additions."""
    limits = limits_of(shared=SharedState())
    held = [reserve(Usage(calls=1, seconds=1.0), limits.accounts) for _ in range(10_000)]
    assert limits.ledger.reserved.calls == 10_000
    for reservation in held:
        reservation.settle(Usage(calls=1))
    assert (limits.ledger.spent.calls, limits.ledger.reserved.calls) == (10_000, 0)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_who_would_speak_for_the_winner_is_waited_for(way):
    """b and c settle the answer at 1 s, but a, the first of the pool, would give it in its own words at 5 s."""
    members = {"a": timed((5, "Yes.")), "b": timed((1, "yes")), "c": timed((1, "yes"))}
    answer = play(way, ensemble(members), QUESTION)
    assert (answer.message.text, answer.took_s) == ("Yes.", 5)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_what_an_ensemble_raises_leads_to_no_error_that_tells_a_key(way):
    answer = play(way, ensemble({"a": timed((1, ValueError("key=planted77secret is wrong")))}), QUESTION)
    assert isinstance(answer.error, EnsembleError)
    assert answer.error.__cause__ is not None
    assert "planted" not in f"{answer.error} {answer.error.__cause__}"


async def test_a_member_that_closes_what_it_had_opened_is_cancelled_once():
    """The first attempt is cut off and still closes when the second has answered: nothing disturbs it a second time."""
    calls, again, closed = [], asyncio.Event(), []

    async def hold():
        calls.append(True)
        if len(calls) > 1:
            again.set()
            return
        try:
            await asyncio.Event().wait()
        finally:
            await again.wait()
            for _ in range(50):  # turns of the loop, in which the round ends
                await asyncio.sleep(0)
            closed.append(True)

    at_once = RetryPolicy(max_retries=1, initial_s=0.0, max_s=0.0, jitter_s=0.0)
    member = ScriptedChatModel(script=["yes", "yes"], on_acall=hold)
    [candidate] = await aask([PoolMember("a", member)], [], limits=limits_of(timeout_s=1.0, retry=at_once))
    assert ([failure.kind for failure in candidate.retries], closed) == (["timeout"], [True])
