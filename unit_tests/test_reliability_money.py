"""Budgets of an ensemble: no call is made that could overrun one, and what is spent can be told."""

import asyncio
import json

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_rlfocal import PoolMember
from langchain_rlfocal.errors import BudgetError, EnsembleError, InputError
from langchain_rlfocal.execution import Budget, Usage
from langchain_rlfocal.testing import ScriptedPolicy
from support_time import QUESTION, TimedChatModel, ensemble, in_virtual_time, is_clear, play, timed

BUSY = ConnectionError("busy")


pytestmark = pytest.mark.usefixtures("steady_retries")


def at_once(members, num_answers, **fields):
    """Ask so many answers of one ensemble at once."""

    async def main():
        model = ensemble(members, **fields)(asyncio.get_running_loop().time)
        answers = await asyncio.gather(*[model.ainvoke(QUESTION) for _ in range(num_answers)], return_exceptions=True)
        assert is_clear(model)
        return model, answers

    return in_virtual_time(main())


def calls_of(members):
    return sum(len(getattr(member, "model", member).log) for member in members.values())


# ---- calls


def test_fifty_answers_at_once_make_no_call_too_many():
    """50 answers want 100 calls and more, since one member fails at first; 37 are allowed, and made."""
    members = {"a": timed((1, BUSY), (1, "yes")), "b": timed((1, "yes"))}
    model, answers = at_once(members, 50, budget={"max_calls": 37}, early_commit=False)
    assert calls_of(members) == model.spent.calls == 37
    assert {type(answer).__mro__[1].__name__ for answer in answers if isinstance(answer, Exception)} == {"BudgetError"}


def test_one_answers_budget_counts_its_retries_its_synthesizer_and_who_stands_in(way):
    """a thrice, then b, then the synthesizer would be the sixth call: for five there are only its candidates."""
    a, b, c, writer = timed((0, BUSY)), timed((0, "yes")), timed((0, "no")), timed((0, "maybe"))
    members = {"a": a, "b": b, "c": c}
    policy = ScriptedPolicy([["a"], ["b", "c"]], tuple(members))
    fields = {"policy": policy, "max_rounds": 2, "synthesizer": writer, "synthesize_below": 1.0}
    five = play(way, ensemble(members, budget_per_answer={"max_calls": 5}, **fields))
    assert (five.message.text, len(a.log), writer.log) == ("yes", 3, [])
    assert five.model.spent.calls == 5
    six = play(way, ensemble(members, budget_per_answer={"max_calls": 8}, **fields))
    assert (six.message.text, six.model.spent.calls, len(writer.log)) == ("maybe", 6, 1)


def test_a_hedge_needs_a_call_of_its_own(way):
    spare = timed((0, "yes"))
    members = {"a": timed((3, "no")), "b": spare}

    def make(clock):
        policy = ScriptedPolicy([["a"]], tuple(members))
        model = ensemble(members, policy=policy, hedge=True, budget={"max_calls": 1})(clock)
        for _ in range(20):
            model.shared_state.latencies.add("a", 1.0)
        return model

    answer = play(way, make)
    assert (answer.message.text, answer.took_s, spare.log) == ("no", 3, [])
    assert answer.kinds == {"b": "budget"}


def test_where_the_budget_ends_after_the_first_its_answer_counts(way):
    answer = play(way, ensemble({"a": timed((1, "yes")), "b": timed((1, "no"))}, budget_per_answer={"max_calls": 1}))
    assert (answer.message.text, answer.kinds) == ("yes", {"b": "budget"})


def test_where_nothing_is_left_the_error_names_the_way_out(way):
    answer = play(way, ensemble({"a": timed((1, "yes"))}, budget=Budget(max_calls=0)))
    assert isinstance(answer.error, BudgetError)
    assert isinstance(answer.error, EnsembleError)
    assert "max_calls" in str(answer.error)
    assert "reset_spending()" in str(answer.error)
    assert answer.model.spent == Usage()


def test_a_models_budget_begins_anew_when_its_spending_is_reset():
    async def main():
        model = ensemble({"a": timed((1, "yes"))}, budget={"max_calls": 1})(asyncio.get_running_loop().time)
        await model.ainvoke(QUESTION)
        with pytest.raises(BudgetError):
            await model.ainvoke(QUESTION)
        model.reset_spending()
        assert model.spent == Usage()
        await model.ainvoke(QUESTION)

    in_virtual_time(main())


def test_a_call_may_bring_a_budget_of_its_own(way):
    answer = play(way, ensemble({"a": timed((1, "yes"))}), budget_per_answer={"max_calls": 0})
    assert isinstance(answer.error, BudgetError)


# ---- tokens, dollars, seconds


@pytest.mark.parametrize("budget", [{"max_tokens": 500}, {"max_usd": 0.0005}])
def test_tokens_and_dollars_are_never_overrun(budget):
    """At a dollar for a million tokens both are 500 tokens, with 40 bounded answers at once."""
    members = {
        name: PoolMember(name, timed((1, "yes")), input_usd_per_mtok=1.0, output_usd_per_mtok=1.0) for name in "ab"
    }
    model, answers = at_once([*members.values()], 40, budget=budget, max_tokens=10, early_commit=False)
    assert 0 < model.spent.tokens <= 500
    assert model.spent.usd <= 0.0005 * (1 + 1e-9)
    assert model.spent.usd == pytest.approx(model.spent.tokens / 1e6)
    assert model.spent.calls == calls_of(members)
    assert any(isinstance(answer, BudgetError) for answer in answers)
    assert any(not isinstance(answer, Exception) for answer in answers)


def test_a_budget_of_seconds_cuts_the_attempt(way):
    """3 s for all: the only attempt would take 9 s and is cut off at 3 s, which is not the member's fault."""
    member = timed((9, "yes"))
    answer = play(way, ensemble({"a": member}, budget={"max_seconds": 3}, timeout=60))
    assert isinstance(answer.error, BudgetError)
    assert member.begun_s == [0]
    assert answer.model.spent.seconds == 3
    assert answer.took_s == 3
    assert answer.model.breakers == {}


def test_a_call_that_is_cut_off_is_charged_the_most_that_it_can_have_cost(way):
    """The question's tokens and the ten that it may answer with, though nothing came back."""
    member = PoolMember("a", timed((9, "yes")), input_usd_per_mtok=0.0, output_usd_per_mtok=1e6)
    fast = PoolMember("b", timed((1, "yes")), input_usd_per_mtok=0.0, output_usd_per_mtok=1e6)
    answer = play(
        way, ensemble([member, fast], budget={"max_usd": 100}, max_tokens=10, deadline_s=2, early_commit=False)
    )
    assert answer.kinds == {"a": "deadline"}
    assert answer.model.spent.usd == pytest.approx(10 + 1)


@pytest.mark.parametrize("tags", [None, ["mine"]], ids=["plain", "with a config"])
def test_without_a_report_the_prompt_its_tools_and_the_response_with_its_calls_are_counted(way, tags):
    """By the estimate of four characters a token; a binding that has a config of its own stays one, with its arguments."""
    words = " ".join(["abcdefghij"] * 100)
    call = AIMessage("", tool_calls=[tool_call(name="look", args={"at": words}, id="1")])

    class Tooled(TimedChatModel):
        def bind_tools(self, tools, **kwargs):
            bound = self.bind(tools=tools)
            return bound if tags is None else bound.with_config(tags=tags)

    def look(at: str) -> str:
        """Look."""
        return at

    spent = {}
    for name, reply, tools in (("nothing", "no", []), ("text", words, []), ("call", call, [look])):
        member = Tooled(script=[(1, reply)], reports_usage=False)
        answer = play(way, ensemble({"a": member}), **({"tools": tools} if tools else {}))
        assert answer.error is None
        spent[name] = answer.model.spent.tokens
    size = len(words) // 4
    assert size <= spent["text"] - spent["nothing"] <= size + 10
    schema = len(json.dumps(convert_to_openai_tool(look))) // 4
    assert size + schema <= spent["call"] - spent["nothing"] <= size + schema + 20


def test_the_error_says_what_came_before_the_money_was_over(way):
    """One call for an answer: what it came to, and which budget it was."""
    member = timed((1, ConnectionError("no route to host")))
    answer = play(way, ensemble({"a": member}, budget_per_answer={"max_calls": 1}))
    assert isinstance(answer.error, BudgetError)
    assert "`max_calls` of `budget_per_answer` is 1" in str(answer.error)
    assert answer.error.failures["a"].endswith("after ConnectionError: no route to host")
    assert isinstance(answer.error.__cause__, ConnectionError)
    assert not answer.error.is_retryable


def test_the_cause_of_an_error_is_the_attempt_that_decided(way):
    """A refused key after a lost connection: the key is the cause."""
    refused = ModelInvalidRequestError("refused")
    member = timed((1, ConnectionError("lost")), (1, refused))
    answer = play(way, ensemble({"a": member}))
    assert answer.error.failures == {"a": "ModelInvalidRequestError: refused"}
    assert isinstance(answer.error.__cause__, ModelInvalidRequestError)


# ---- what is refused


def test_where_dollars_are_limited_every_member_has_a_price():
    with pytest.raises(InputError, match="without: a"):
        ensemble({"a": timed((0, "yes"))}, budget={"max_usd": 1})(float)
    priced = PoolMember("a", timed((0, "yes")), input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)
    with pytest.raises(InputError, match="synthesizer"):
        ensemble([priced], budget={"max_usd": 1}, synthesizer=timed((0, "yes")))(float)


def test_a_call_s_own_budget_of_dollars_needs_prices_too(way):
    member = timed((0, "yes"))
    answer = play(way, ensemble({"a": member}), budget_per_answer={"max_usd": 1})
    assert isinstance(answer.error, InputError)
    assert member.log == []
