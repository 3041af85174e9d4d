"""Reliability as users of the model see it: who is asked, when and how often, what is waited for, and what it costs.

Most of it is one table, worked by hand in virtual time, of what members do and what comes of it; then breakers, budgets and
nesting over several answers, and laws in any schedule.
"""

import asyncio
import copy
import json
import math
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ModelInvalidRequestError, ModelRateLimitError, ModelTimeoutError
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call
from langchain_core.outputs import ChatResult
from langchain_core.runnables import ConfigurableField
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.chat_models.arguments import cycle_in
from langchain_rlfocal.errors import BudgetError, DeadlineError, EnsembleError, InputError, PoolError
from langchain_rlfocal.execution import Budget, RetryPolicy, Usage
from langchain_rlfocal.policies import Commitment
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_asking import aask, limits_of
from support_time import QUESTION, WAYS, TimedChatModel, ensemble, in_virtual_time, is_clear, play, timed

pytestmark = pytest.mark.usefixtures("steady_retries")

BUSY = ConnectionError("busy")
DOWN = ConnectionError("down")
BUG = ValueError("bug")
LONG = "It depends on what is meant, and on much else that would have to be said at length before one could say. " * 9
OPTIONS = "Which is it?\nA) red\nB) blue\nC) green\nAnswer with one letter."
LOOK = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
RUNAWAY = (1000, "no")


class Tooled(TimedChatModel):
    def bind_tools(self, tools, **kwargs):
        return self.bind()


class Promising(ScriptedPolicy):
    """Promises the answer with more than half of the weight, once two have answered."""

    CONFIDENCE = 0.51

    def commitment(self, query, candidates, failures, *, running):
        return Commitment(self.CONFIDENCE if len(candidates) == 2 else 0.0, author_is_final=True)


class Hesitant(Promising):
    CONFIDENCE = 0.5


class Preferring(ScriptedPolicy):
    """Would ask c next, then b."""

    def select(self, *args, **kwargs):
        selection = super().select(*args, **kwargs)
        return type(selection)(selection.round, selection.members, {"a": 1.0, "b": 0.1, "c": 0.4})


def asking_wait(seconds):
    error = ModelRateLimitError("slow down")
    error.retry_after = seconds
    return error


def trio(first="yes", second="yes", third="no"):
    """Members that answer after 1, 2 and 9 s."""
    return {"a": [(1, first)], "b": [(2, second)], "c": [(9, third)]}


def calling(seconds, at):
    return [(seconds, AIMessage("", tool_calls=[tool_call(name="look", args={"at": at}, id="1")]))]


def case(members, then, *, call=None, question=QUESTION, usual_s=None, **fields):
    """A row: what each member does, what comes of it, and how the ensemble and the call are set.

    A member is a script (see `TimedChatModel`), or a script and fields of `PoolMember`. `usual_s` says how long members'
    last 20 answers took.
    """
    return members, then, call or {}, question, usual_s or {}, fields


def hedged(members, then, team=("a",), usual_s=None, **fields):
    """A row of hedging: a team is asked of which `a` mostly takes 1 s."""
    fields = {"policy": ScriptedPolicy([[*team]], tuple(members)), "max_team": len(team) + 1, "hedge": True, **fields}
    return case(members, then, usual_s=usual_s or {"a": 1.0}, **fields)


RETRIES = {
    "again after ½ and 1 s: at 0, 2 + ½ and 4½ + 1 s": case(
        {"a": [(2, BUSY), (2, BUSY), (1, "yes")]},
        {
            "text": "yes",
            "took_s": 6.5,
            "begun_s": {"a": [0, 2.5, 5.5]},
            "calls": 3,
            "latencies_s": {"a": 1},
            "retries": {"a": ["ConnectionError"] * 2},
        },
    ),
    "after max_retries the last failure counts": case(
        {"a": [(0, BUSY)], "b": [(0, "no")], "c": [(4, "no")]},
        {
            "took_s": 4,
            "begun_s": {"a": [0, 0.5, 1.5]},
            "kinds": {"a": "ConnectionError"},
            "retries": {"a": ["ConnectionError"] * 2},
            "calls": 5,
        },
        early_commit=False,
    ),
    **{
        f"what asking again does not help, {error!r}": case(
            {"a": [(1, error)]}, {"error": EnsembleError, "is_retryable": False, "took_s": 1, "begun_s": {"a": [0]}}
        )
        for error in (ModelInvalidRequestError("bad"), BUG, "")
    },
    "a call's own number of retries": case(
        {"a": [(0, BUSY)]}, {"begun_s": {"a": [0]}, "is_retryable": True}, call={"max_retries": 0}
    ),
    "a provider gets the 3 s that it asks for, but no less than the usual 1 s": case(
        {"a": [(0, asking_wait(3)), (0, asking_wait(0.25)), (0, "yes")]}, {"begun_s": {"a": [0, 3, 4]}, "took_s": 4}
    ),
    "a retry that is in time": case(
        {"a": [(0, asking_wait(2.5)), (0.25, "yes")]}, {"begun_s": {"a": [0, 2.5]}, "took_s": 2.75}, deadline_s=3
    ),
    **{
        f"a retry after {wait_s} s would be too late, so that the failure ends at once": case(
            {"a": [(0, asking_wait(wait_s)), (0.25, "yes")]}, {"begun_s": {"a": [0]}, "took_s": 0}, deadline_s=3
        )
        for wait_s in (3, 30)
    },
    "a function says what is retried": case(
        {"a": [(0, BUG), (0, "yes")], "b": [(0, KeyError("other"))]},
        {"begun_s": {"a": [0, 0.5], "b": [0]}, "retries": {"a": ["ValueError"]}, "kinds": {"b": "KeyError"}},
        retry_on=lambda error: True if "bug" in str(error) else None,
    ),
    "a call's own rule of what is retried": case(
        {"a": [(0, BUG), (0, "yes")]}, {"begun_s": {"a": [0, 0.5]}}, call={"retry_on": (KeyError, ValueError)}
    ),
    "the attempt that decided is the cause: a bad request after a lost connection": case(
        {"a": [(1, BUSY), (1, ModelInvalidRequestError("refused"))]},
        {"failures": {"a": "ModelInvalidRequestError: refused"}, "cause": ModelInvalidRequestError},
    ),
}
TIME = {
    "an attempt of 1 s is cut off and made again: at 0, 1½ and 3½ s": case(
        {"a": [(10, "no"), (10, "no"), (0.5, "yes")]},
        {
            "text": "yes",
            "took_s": 4,
            "begun_s": {"a": [0, 1.5, 3.5]},
            "retries": {"a": ["timeout"] * 2},
            "in_tasks": {"hows": {"a": ["cancelled", "cancelled", "answered"]}},
        },
        timeout=1,
    ),
    "each attempt has the whole of its 1 s": case(
        {"a": [(0.75, BUSY), (0.75, "yes")]}, {"begun_s": {"a": [0, 1.25]}, "took_s": 2, "calls": 2}, timeout=1
    ),
    "a member's 2 s bound all its attempts and waits": case(
        {"a": [(1, BUSY), (10, "no")], "b": [(5, "yes")]},
        {"error": EnsembleError, "says": "2 s of a member", "took_s": 2, "begun_s": {"a": [0, 1.5]}},
        member_timeout_s=2,
        deadline_s=20,
    ),
    "a wait till the member's 2 s are over is not begun": case(
        {"a": [(1.5, BUSY), (0, "yes")]}, {"took_s": 1.5, "begun_s": {"a": [0]}}, member_timeout_s=2
    ),
    "at the deadline what has arrived is the answer": case(
        {"a": [(1, "yes")], "b": [(2, "yes")], "c": [(9, "no")]},
        {"text": "yes", "took_s": 5, "answered": ["a", "b"], "kinds": {"c": "deadline"}, "latencies_s": {"c": 5}},
        deadline_s=5,
        early_commit=False,
    ),
    "a call's own deadline": case(
        {"a": [(1, "yes")], "b": [(9, "no")]}, {"text": "yes", "took_s": 2.5}, deadline_s=100, call={"deadline_s": 2.5}
    ),
    "as many as min_candidates are enough": case(
        {"a": [(1, "yes")], "b": [(2, "yes")], "c": [(9, "yes")]},
        {"answered": ["a", "b"]},
        deadline_s=3,
        min_candidates=2,
        early_commit=False,
    ),
    "without a deadline min_candidates asks for nothing": case(
        {"a": [(1, "yes")], "b": [(1, BUG)]}, {"text": "yes"}, min_candidates=2
    ),
    "after the deadline neither a second round nor the synthesizer begins": case(
        {"a": [(1, "yes")], "b": [(2, "no")], "c": [(9, "no")], "d": [(0, "yes")]},
        {"text": "yes", "took_s": 4, "begun_s": {"d": [], "synthesizer": []}, "rounds": 1},
        policy=ScriptedPolicy([["a", "b", "c"], ["d"]], tuple("abcd")),
        max_rounds=2,
        deadline_s=4,
        synthesizer=[(0, "yes")],
        synthesize_below=1.0,
    ),
    "a synthesizer has what is left of the time, and else Fusion's answer stays": case(
        {"a": [(1, "yes")], "b": [(2, "no")]},
        {"text": "yes", "took_s": 4, "begun_s": {"synthesizer": [2]}},
        deadline_s=4,
        synthesizer=[(9, "maybe")],
        synthesize_below=1.0,
    ),
}
CAPS = {
    "who waits to be asked again holds no slot: a fails at 1 s, b has the slot to 3 s": case(
        {"a": [(1, BUSY), (1, "yes")], "b": [(2, "yes")]},
        {"begun_s": {"a": [0, 3], "b": [1]}, "took_s": 4},
        max_concurrent_calls=1,
        early_commit=False,
    ),
    "waiting for a slot is no latency, and not of the member's 3 s": case(
        {"a": [(2, "yes")], "b": [(2, "yes")]},
        {"answered": ["a", "b"], "latencies_s": {"a": 2, "b": 2}, "took_s": 4},
        max_concurrent_calls=1,
        member_timeout_s=3,
        early_commit=False,
    ),
    "waiting for a slot counts towards the deadline": case(
        {"a": [(2, "yes")], "b": [(2, "yes")], "c": [(2, "yes")]},
        {"took_s": 3, "kinds": {"b": "deadline", "c": "deadline"}, "in_tasks": {"begun_s": {"c": []}, "calls": 2}},
        deadline_s=3,
        max_concurrent_calls=1,
        early_commit=False,
    ),
    "a retry does not wait behind the attempt that was cut off, under the member's cap": case(
        {"a": ([RUNAWAY, (1, "yes")], {"max_concurrent_calls": 1})}, {"begun_s": {"a": [0, 2.5]}}, timeout=2
    ),
    "nor under that of all": case(
        {"a": [RUNAWAY, (1, "yes")]}, {"begun_s": {"a": [0, 2.5]}}, timeout=2, max_concurrent_calls=1
    ),
    "a healthy member does not wait behind a stuck one": case(
        {"a": [RUNAWAY], "b": [(1, "yes")]}, {"took_s": 3}, timeout=2, max_retries=0, max_concurrent_calls=1
    ),
}
EARLY = {
    "two of three that agree do not wait for the third, which is no fault of its own": case(
        trio(),
        {
            "text": "yes",
            "took_s": 2,
            "kinds": {"c": "cancelled"},
            "breakers": {},
            "calls": 3,
            "in_tasks": {"hows": {"c": ["cancelled"]}},
        },
    ),
    "switched off": case(trio(), {"took_s": 9, "kinds": {}}, early_commit=False),
    "switched off by a call": case(trio(), {"took_s": 9, "kinds": {}}, call={"early_commit": False}),
    "a tie": case(trio(second="no"), {"took_s": 9, "kinds": {}}),
    "a tie of two": case({"a": [(1, "yes")], "c": [(9, "no")]}, {"took_s": 9, "kinds": {}}),
    "a policy without a promise": case(
        trio(), {"took_s": 9, "kinds": {}}, policy=ScriptedPolicy([["a", "b", "c"]], tuple("abc"))
    ),
    "a promise of half the weight": case(trio(), {"took_s": 9}, policy=Hesitant([[*"abc"]], tuple("abc"))),
    "a promise of more": case(trio(), {"took_s": 2}, policy=Promising([[*"abc"]], tuple("abc"))),
    "fewer than min_candidates": case(trio(), {"took_s": 9, "kinds": {}}, min_candidates=3),
    "too little confidence for a synthesizer to be left out": case(
        trio(), {"took_s": 9, "kinds": {}}, synthesizer=[(0, "no")], synthesize_below=0.7
    ),
    "enough: at least 2/3": case(trio(), {"text": "yes", "took_s": 2}, synthesizer=[(0, "no")], synthesize_below=0.66),
    "long texts": case(trio(LONG, f"{LONG} Rarely.", LONG), {"took_s": 9}, question="Tell me all about it."),
    "long texts that are the same": case(trio(LONG, LONG, LONG), {"took_s": 2}, question="Tell me all about it."),
    "no other round can follow": case(
        {"a": ([(1, "yes")], {"competence": 0.9}), "b": ([(9, "yes")], {"competence": 0.1})},
        {"took_s": 1},
        max_rounds=2,
    ),
    "another round can follow": case(
        {"a": ([(1, "yes")], {"competence": 0.9}), **{n: ([(9, "yes")], {"competence": 0.1}) for n in "bcd"}},
        {"took_s": 9},
        max_rounds=2,
    ),
    "tool calls that agree": case(
        {"a": calling(1, "x"), "b": calling(2, "x"), "c": calling(9, "y")},
        {"tool_calls": [{"at": "x"}], "took_s": 2},
        call={"tools": [LOOK]},
    ),
    "a text beside tool calls": case(
        {"a": calling(1, "x"), "b": calling(2, "x"), "c": [(9, "no")], "d": [(1, "no")], "e": calling(1, "x")},
        {"took_s": 9},
    ),
    "options that agree": case(trio("A", "A", "B"), {"text": "A", "took_s": 2}, question=OPTIONS),
    "never fewer than a short budget needs": case(
        {"a": [(1, "yes")], "b": [(1, "yes")], "c": [(2, "yes")], "d": [(1, "yes")]},
        {"kinds": {"d": "budget"}, "took_s": 2},
        budget_per_answer={"max_calls": 3},
        min_candidates=3,
    ),
    "who would speak for the winner is waited for": case(
        {"a": [(5, "Yes.")], "b": [(1, "yes")], "c": [(1, "yes")]}, {"text": "Yes.", "took_s": 5}
    ),
    "a member cancelled before its first step gives its slot back": case(
        {"a": [(1, "yes")], "b": [(1, "yes")], "c": [(1, "yes")]}, {"text": "yes"}, max_concurrent_calls=2
    ),
}
HEDGES = {
    "a slow member gets company after its usual time": hedged(
        {"a": [(9, "no")], "b": [(0.5, "yes")]},
        {"text": "yes", "took_s": 1.5, "begun_s": {"b": [1]}, "kinds": {"a": "cancelled"}, "breakers": {}},
    ),
    "the Decider's next choice is the one that is asked": hedged(
        {"a": [(9, "no")], "b": [(0, "b")], "c": [(0, "c")]},
        {"answered": ["c"]},
        policy=Preferring([["a"]], tuple("abc")),
    ),
    "off unless it is asked for": case(
        {"a": [(9, "no")], "b": [(0, "yes")]},
        {"text": "no", "took_s": 9, "begun_s": {"b": []}},
        policy=ScriptedPolicy([["a"]], tuple("ab")),
        usual_s={"a": 1.0},
    ),
    "a full team": hedged({"a": [(9, "no")], "b": [(0, "yes")]}, {"took_s": 9, "begun_s": {"b": []}}, max_team=1),
    "of unknown latency": hedged(
        {"a": [(9, "no")], "b": [(0, "yes")]}, {"took_s": 9, "begun_s": {"b": []}}, usual_s={"b": 1.0}
    ),
    "quick enough": hedged({"a": [(0.75, "no")], "b": [(0, "yes")]}, {"took_s": 0.75, "begun_s": {"b": []}}),
    "where the company fails the slow one still counts": hedged(
        {"a": [(3, "no")], "b": [(1, BUG)]}, {"text": "no", "took_s": 3, "kinds": {"b": "ValueError"}}
    ),
    "where the slow one fails its company counts": hedged(
        {"a": [(2, BUG)], "b": [(2, "yes")]}, {"text": "yes", "took_s": 3, "kinds": {"a": "ValueError"}}
    ),
    "the slow one's answer cancels its company": hedged(
        {"a": [(2, "no")], "b": [(9, "yes")]}, {"text": "no", "took_s": 2, "kinds": {"b": "cancelled"}}
    ),
    "company gets no company of its own": hedged(
        {"a": [(9, "no")], "b": [(9, "yes")], "c": [(0, "yes")]},
        {"text": "no", "took_s": 9, "begun_s": {"c": []}},
        max_team=3,
        usual_s={"a": 1.0, "b": 1.0},
    ),
    "who waits to be asked again, from ¾ to 1¼ s, gets company too": hedged(
        {"a": [(0.75, BUSY), (9, "no")], "b": [(0, "yes")]},
        {"took_s": 1, "begun_s": {"a": [0]}, "kinds": {"a": "cancelled"}, "retries": {"a": ["ConnectionError"]}},
    ),
    "a hedge needs a call of its own": hedged(
        {"a": [(3, "no")], "b": [(0, "yes")]},
        {"text": "no", "took_s": 3, "begun_s": {"b": []}, "kinds": {"b": "budget"}},
        budget={"max_calls": 1},
    ),
}
BREAKERS = {
    **{
        f"what is not the member's fault, {error!r}": case(
            {"a": [(0, error)], "b": [(0, "yes")]}, {"breakers": {}}, breaker_failures=1, early_commit=False
        )
        for error in (ModelInvalidRequestError("bad"), "")
    },
    "every attempt counts, and an open breaker ends the retries": case(
        {"a": [(0, DOWN)]},
        {"error": EnsembleError, "took_s": 0.5, "begun_s": {"a": [0, 0.5]}, "breakers": {"a": ("open", 2)}},
        breaker_failures=2,
    ),
    "a deadline longer than usual": case(
        {"a": [(9, "no")], "b": [(0, "yes")]},
        {"breakers": {"a": ("closed", 1)}},
        deadline_s=2,
        early_commit=False,
        usual_s={"a": 1.0},
    ),
    "a deadline shorter than usual is not the member's fault": case(
        {"a": [(9, "no")], "b": [(0, "yes")]}, {"breakers": {}}, deadline_s=2, early_commit=False, usual_s={"a": 5.0}
    ),
    "breakers switched off": case({"a": [(0, DOWN)]}, {"calls": 3, "breakers": {}}, breaker_failures=None),
}
BUDGETS = {
    "a's three attempts, b and c are five calls, and none is left for the synthesizer": case(
        {"a": [(0, BUSY)], "b": [(0, "yes")], "c": [(0, "no")]},
        {"text": "yes", "calls": 5, "begun_s": {"a": [0, 0.5, 1.5], "synthesizer": []}},
        policy=ScriptedPolicy([["a"], ["b", "c"]], tuple("abc")),
        max_rounds=2,
        synthesizer=[(0, "maybe")],
        synthesize_below=1.0,
        budget_per_answer={"max_calls": 5},
    ),
    "the sixth is the synthesizer's": case(
        {"a": [(0, BUSY)], "b": [(0, "yes")], "c": [(0, "no")]},
        {"text": "maybe", "calls": 6},
        policy=ScriptedPolicy([["a"], ["b", "c"]], tuple("abc")),
        max_rounds=2,
        synthesizer=[(0, "maybe")],
        synthesize_below=1.0,
        budget_per_answer={"max_calls": 8},
    ),
    "where the budget ends after the first its answer counts": case(
        {"a": [(1, "yes")], "b": [(1, "no")]},
        {"text": "yes", "kinds": {"b": "budget"}},
        budget_per_answer={"max_calls": 1},
    ),
    "nothing is left": case(
        {"a": [(1, "yes")]}, {"error": BudgetError, "says": "reset_spending()", "calls": 0}, budget=Budget(max_calls=0)
    ),
    "a call's own budget": case(
        {"a": [(1, "yes")]}, {"error": BudgetError, "says": "max_calls"}, call={"budget_per_answer": {"max_calls": 0}}
    ),
    "the error says what came before the budget was over": case(
        {"a": [(1, BUSY)]},
        {
            "error": BudgetError,
            "is_retryable": False,
            "says": "`max_calls` of `budget_per_answer` is 1",
            "cause": ConnectionError,
        },
        budget_per_answer={"max_calls": 1},
    ),
    "a call that is cut off is charged the most that it can have cost, ten tokens for the other's one": case(
        {n: ([(s, "yes")], {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e6}) for n, s in (("a", 9), ("b", 1))},
        {"kinds": {"a": "deadline"}, "usd": 11},
        budget={"max_usd": 100},
        max_tokens=10,
        deadline_s=2,
        early_commit=False,
    ),
}
TABLE = RETRIES | TIME | CAPS | EARLY | HEDGES | BREAKERS | BUDGETS


def seen_of(answer, models):
    """What came of a call, by the names that rows use."""
    error, model = answer.error, answer.model
    seen = {
        "took_s": answer.took_s,
        "calls": model.spent.calls,
        "usd": pytest.approx(model.spent.usd),
        "begun_s": {name: member.begun_s for name, member in models.items()},
        "hows": {name: member.hows for name, member in models.items()},
        "breakers": {name: (breaker.state, breaker.failures) for name, breaker in model.breakers.items()},
    }
    if error is not None:
        cause, failures = type(error.__cause__), error.failures
        return {**seen, "is_retryable": error.is_retryable, "cause": cause, "failures": failures}
    results = [*answer.how["candidates"], *answer.how["failures"]]
    return {
        **seen,
        "text": answer.message.text,
        "tool_calls": [call["args"] for call in answer.message.tool_calls],
        "kinds": answer.kinds,
        "answered": answer.answered,
        "rounds": len(answer.how["rounds"]),
        "latencies_s": {result["member"]: result["latency_s"] for result in results},
        "retries": {result["member"]: [retry["kind"] for retry in result["retries"]] for result in results},
    }


@pytest.mark.parametrize("name", TABLE)
def test_what_members_do_gives_what_was_worked_out_by_hand(way, name):
    """Of the maps by member a row names those that matter. In tasks, each member's run is closed at the end."""
    members, then, call, question, usual_s, fields = TABLE[name]
    parts = {who: what if isinstance(what, tuple) else (what, {}) for who, what in members.items()}
    models = {who: Tooled(script=script) for who, (script, _) in parts.items()}
    pool = [PoolMember(who, models[who], **more) for who, (_, more) in parts.items()]
    if "synthesizer" in fields:
        models["synthesizer"] = timed(*fields["synthesizer"])
        fields = {**fields, "synthesizer": models["synthesizer"]}

    def make(clock):
        model = ensemble(pool, **fields)(clock)
        for who, seconds in usual_s.items():
            for _ in range(20):
                model.shared_state.latencies.add(who, seconds)
        return model

    collector = RunCollectorCallbackHandler()
    answer = play(way, make, question, config={"callbacks": [collector]}, **call)
    then = {**then, **(then["in_tasks"] if "in_tasks" in then and way == "ainvoke" else {})}
    then.pop("in_tasks", None)
    if "error" in then or "failures" in then:
        assert isinstance(answer.error, then.pop("error", EnsembleError))
        assert then.pop("says", "") in str(answer.error)
    seen = seen_of(answer, models)
    for key, value in then.items():
        is_map_in_part = key in {"begun_s", "hows", "latencies_s", "retries"}
        assert (seen[key] | value if is_map_in_part else value) == seen[key], key
    if way == "ainvoke":
        assert all(child.end_time is not None for run in collector.traced_runs for child in run.child_runs)


@pytest.mark.parametrize(("arriving", "needed"), [(0, 1), (1, 2), (2, 3)])
def test_too_few_at_the_deadline_are_an_error_that_names_all(way, arriving, needed):
    members = {name: timed((1 if number < arriving else 9, "yes")) for number, name in enumerate("abc")}
    answer = play(way, ensemble(members, deadline_s=3, min_candidates=needed, early_commit=False))
    error = answer.error
    for kind in (DeadlineError, EnsembleError, TimeoutError, ModelTimeoutError):
        assert isinstance(error, kind)
    assert sorted(error.failures) == list("abc")[arriving:]
    assert all(reason.startswith("deadline") for reason in error.failures.values())
    assert ("deadline_s" in str(error), error.is_retryable, answer.took_s) == (True, True, 3)


def test_each_attempt_is_a_run_of_its_own(way):
    collector = RunCollectorCallbackHandler()
    play(way, ensemble({"a": timed((0, BUSY), (0, "yes"))}), config={"callbacks": [collector]})
    runs = collector.traced_runs[0].child_runs
    assert [(run.extra["metadata"]["rlfocal_attempt"], run.error is None) for run in runs] == [(1, False), (2, True)]
    assert all(run.end_time is not None for run in runs)


def test_of_a_latency_that_19_answers_tell_nothing_is_known(way):
    def make(clock):
        model = ensemble(members, policy=ScriptedPolicy([["a"]], tuple(members)), hedge=True)(clock)
        for _ in range(19):
            model.shared_state.latencies.add("a", 1.0)
        return model

    members = {"a": timed((9, "no")), "b": timed((0, "yes"))}
    assert (play(way, make).took_s, members["b"].log) == (9, [])


class LostError(ConnectionError):
    """Holds what no stand-in of its class can be made without."""

    def __init__(self, url, reason):
        self.url, self.reason = url, reason
        super().__init__(f"{url}: {reason}")


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_whether_to_ask_again_is_decided_on_the_error_and_not_on_what_may_be_shown_of_it(way):
    """A lost connection is worth a retry, also where its address tells a key, which is then hidden."""
    lost = LostError("https://host/?key=planted77secret", "reset")
    member = timed((1, lost), (1, "yes"))
    answer = play(way, ensemble({"a": member}), QUESTION)
    [failure] = answer.message.response_metadata["rlfocal"]["candidates"][0]["retries"]
    assert len(member.begun_s) == 2
    assert "planted" not in str(failure)


def saying(answer="yes"):
    return ScriptedChatModel(script=lambda _: answer)


def test_a_quorum_that_fewer_members_than_it_can_be_asked_for_holds_nobody_up():
    """`min_candidates` matters where something cuts the answer short, not where one of two members is named or rests."""
    model = RLFocalChatModel(members={"a": saying(), "b": saying()}, min_candidates=2)
    assert model.invoke(QUESTION, model="a").text == "yes"
    for _ in range(5):
        model.shared_state.breakers.admit("b", model.clock()).fail(model.clock(), model._setup.config.breaker)
    assert model.invoke(QUESTION).text == "yes"
    with pytest.raises(InputError, match="`min_candidates` must be at most `max_team`"):
        model.invoke(QUESTION, max_team=1)


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
    default, none = (
        RLFocalChatModel(members={"a": saying()}, **fields) for fields in ({}, {"budget_per_answer": None})
    )
    assert default._get_llm_string() == none._get_llm_string()


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


# ---- breakers over several answers


class Clock:
    """Time that a test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def model_of(members, **fields):
    """An ensemble that makes no retries, with a clock that the test sets."""
    clock = Clock()
    return ensemble(members, **{"max_retries": 0, "breaker_failures": 2, **fields})(clock), clock


def status_of(model, member="a"):
    state = model.breakers.get(member)
    return None if state is None else (state.state, state.failures)


def test_a_member_that_keeps_failing_is_left_alone_then_probed():
    """Two failures open it for 30 s; then one call probes, and its success closes it."""
    health = ["down"]

    def answer(_):
        if health == ["down"]:
            raise DOWN
        return "yes"

    sick = ScriptedChatModel(script=answer)
    model, clock = model_of({"a": sick, "b": saying("yes")}, early_commit=False)
    for failures, status in ((1, "closed"), (2, "open"), (2, "open")):
        model.invoke(QUESTION)
        assert status_of(model) == (status, failures)
    assert len(sick.asked) == 2
    assert model.breakers["a"].retry_in_s == 30
    clock.now = 30.0
    assert status_of(model) == ("half_open", 2)
    model.invoke(QUESTION)
    assert (len(sick.asked), status_of(model)) == (3, ("open", 3))
    clock.now, health[:] = 60.0, []
    model.invoke(QUESTION)
    assert (len(sick.asked), status_of(model)) == (4, None)


def test_to_the_decider_a_resting_member_is_absent():
    """The prior policy asks the two best of three; while the best rests, it asks the others."""
    members = {"a": FailingChatModel(error=DOWN), "b": saying("yes"), "c": saying("yes")}
    model, _ = model_of(members, max_team=2, breaker_failures=1)
    assert [*model.invoke(QUESTION).response_metadata["rlfocal"]["rounds"][0]["asked"]] == ["a", "b"]
    [round_] = model.invoke(QUESTION).response_metadata["rlfocal"]["rounds"]
    assert round_["asked"] == ["b", "c"]
    assert sorted(round_["probabilities"]) == ["b", "c"]


def test_where_everybody_rests_the_error_says_so():
    model, _ = model_of({"a": FailingChatModel(error=DOWN)}, breaker_failures=1)
    with pytest.raises(EnsembleError, match="down"):
        model.invoke(QUESTION)
    with pytest.raises(EnsembleError, match="circuit breaker open") as raised:
        model.invoke(QUESTION)
    assert raised.value.is_retryable
    assert "reset_breakers()" in str(raised.value)
    with pytest.raises(InputError, match="must be one of a, or None for all, got 'b'"):
        model.reset_breakers("b")
    model.reset_breakers()
    assert model.breakers == {}
    model.reset_breakers("a")
    with pytest.raises(EnsembleError, match="down"):
        model.invoke(QUESTION)


def test_a_probe_that_cannot_be_made_up_leaves_another_to_be_made():
    """Its tools cannot be bound: nothing was sent, so that the breaker stays half open, and the next call is the probe."""

    class Binding(ScriptedChatModel):
        def bind_tools(self, tools, **kwargs):
            raise NotImplementedError

    def answer(_):
        if clock.now < 30:
            raise DOWN
        return "yes"

    model, clock = model_of({"a": Binding(script=answer)}, breaker_failures=1)
    for clock.now, arguments, status in ((0.0, {}, "open"), (30.0, {"tools": [LOOK]}, "half_open")):
        with pytest.raises(EnsembleError):
            model.invoke(QUESTION, **arguments)
        assert status_of(model) == (status, 1)
    assert model.invoke(QUESTION).text == "yes"
    assert model.breakers == {}


def test_who_waits_in_line_while_its_breaker_opens_ends_with_it():
    """One call of a at a time: the first fails and opens the breaker, the second was to come next."""
    sick = timed((1, DOWN))

    async def main():
        loop = asyncio.get_running_loop()
        members = [PoolMember("a", sick, max_concurrent_calls=1), PoolMember("b", timed((1, "yes")))]
        model = ensemble(members, breaker_failures=1, max_retries=0, early_commit=False)(loop.time)
        first, second = await asyncio.gather(model.ainvoke(QUESTION), model.ainvoke(QUESTION))
        [failed], [resting] = (message.response_metadata["rlfocal"]["failures"] for message in (first, second))
        assert failed["kind"] == "ConnectionError"
        assert (resting["kind"], resting["latency_s"]) == ("breaker_open", 0)
        assert sick.begun_s == [0]
        assert model.spent.calls == 3

    in_virtual_time(main())


def test_half_open_one_answer_probes_and_the_others_go_without():
    """At 30 s two answers begin at once; the first one's call is the probe, and closes the breaker at 31 s."""
    sick = timed((0, DOWN), (1, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        members = {"a": sick, "b": timed((0, "yes"))}
        model = ensemble(members, max_retries=0, breaker_failures=1, early_commit=False)(loop.time)
        await model.ainvoke(QUESTION)
        await asyncio.sleep(30)
        first, second = await asyncio.gather(model.ainvoke(QUESTION), model.ainvoke(QUESTION))
        assert loop.time() == 31
        assert (len(sick.log), model.breakers) == (2, {})
        return [[c["member"] for c in m.response_metadata["rlfocal"]["candidates"]] for m in (first, second)]

    assert in_virtual_time(main()) == [["a", "b"], ["b"]]


@pytest.mark.parametrize("copied", ["model_copy", "copy", "deepcopy", "bind", "configurable"])
def test_copies_share_breakers_and_spending(copied):
    model, _ = model_of({"a": FailingChatModel(error=DOWN), "b": saying("yes")}, breaker_failures=1)
    other = {
        "model_copy": model.model_copy,
        "copy": lambda: copy.copy(model),
        "deepcopy": lambda: copy.deepcopy(model),
        "bind": lambda: model.bind(task="t"),
        "configurable": lambda: model.configurable_fields(max_team=ConfigurableField(id="team")).with_config(
            configurable={"team": 2}
        ),
    }[copied]()
    other.invoke(QUESTION)
    assert status_of(model) == ("open", 1)
    assert model.spent.calls == 2
    other.invoke(QUESTION)
    assert model.spent.calls == 3


def test_a_pickle_begins_with_closed_breakers_and_the_same_spending():
    model = ensemble({"a": FailingChatModel(error=DOWN), "b": saying("yes")}, max_retries=0, breaker_failures=1)(
        Clock()
    )
    model.invoke(QUESTION)
    shared = pickle.loads(pickle.dumps(model.shared_state))
    assert shared.breakers.states(0.0) == {}
    assert shared.ledger.spent == model.spent != Usage()
    assert shared.limiter.running == {}


# ---- ensembles in ensembles


async def test_an_ensemble_can_be_a_member():
    inner = RLFocalChatModel(members={"x": saying("yes"), "y": saying("yes")})
    outer = RLFocalChatModel(members={"inner": inner, "b": saying("yes")})
    assert outer.invoke(QUESTION).text == (await outer.ainvoke(QUESTION)).text == "yes"
    assert outer.spent.calls == inner.spent.calls == 4


class Wrapping(BaseChatModel):
    """A model of somebody else's that asks another one."""

    hidden: list

    @property
    def _llm_type(self):
        return "wrapping"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        message = self.hidden[0].invoke(messages)
        return ChatResult(generations=[{"message": message}])

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        message = await self.hidden[0].ainvoke(messages)
        return ChatResult(generations=[{"message": message}])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["members", "synthesizer"])
async def test_a_circle_of_ensembles_is_refused(way, place):
    inner = RLFocalChatModel(members={"x": saying("yes")})
    outer = RLFocalChatModel(members={"inner": inner})
    if place == "members":
        inner.members = RLFocalChatModel(members={"outer": outer}).members
    else:
        inner.synthesizer = outer
    for model in (inner, outer):
        with pytest.raises(PoolError, match="its own member"):
            await (model.ainvoke(QUESTION) if way == "ainvoke" else asyncio.to_thread(model.invoke, QUESTION))


def test_ensembles_that_share_members_are_looked_through_once():
    """Two ways down at each of forty levels: to walk them all would take for ever."""
    model = RLFocalChatModel(members={"x": saying("yes")})
    for _ in range(40):
        model = RLFocalChatModel(members={"a": model, "b": model})
    assert cycle_in(model) is None


@pytest.mark.parametrize("way", WAYS)
async def test_a_circle_of_copies_ends(way):
    """Each call asks another copy, so that nobody meets itself; below the eighth nobody is asked."""
    asked = []
    wrapping = Wrapping(hidden=[])
    model = RLFocalChatModel(members={"a": wrapping}, max_retries=0)

    class Copies:
        def invoke(self, messages):
            asked.append(1)
            return model.model_copy().invoke(messages)

        async def ainvoke(self, messages):
            asked.append(1)
            return await model.model_copy().ainvoke(messages)

    wrapping.hidden.append(Copies())
    with pytest.raises(EnsembleError) as caught:
        await (model.ainvoke(QUESTION) if way == "ainvoke" else asyncio.to_thread(model.invoke, QUESTION))
    assert len(asked) == 8
    error = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert isinstance(error, PoolError)
    assert "nested deeper than 8" in str(error)


@pytest.mark.parametrize("way", WAYS)
async def test_a_hidden_circle_is_that_members_failure(way):
    asked = []
    wrapping = Wrapping(hidden=[])
    other = ScriptedChatModel(script=lambda _: asked.append(1) or "yes")
    model = RLFocalChatModel(members={"a": wrapping, "b": other}, early_commit=False)
    wrapping.hidden.append(model)
    message = await (model.ainvoke(QUESTION) if way == "ainvoke" else asyncio.to_thread(model.invoke, QUESTION))
    assert message.text == "yes"
    [failure] = message.response_metadata["rlfocal"]["failures"]
    assert (failure["member"], failure["kind"]) == ("a", "PoolError")
    assert len(asked) == 1


# ---- budgets over several answers


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


def test_fifty_answers_at_once_make_no_call_too_many():
    """50 answers want 100 calls and more, since one member fails at first; 37 are allowed, and made."""
    members = {"a": timed((1, BUSY), (1, "yes")), "b": timed((1, "yes"))}
    model, answers = at_once(members, 50, budget={"max_calls": 37}, early_commit=False)
    assert calls_of(members) == model.spent.calls == 37
    assert {type(answer).__mro__[1].__name__ for answer in answers if isinstance(answer, Exception)} == {"BudgetError"}


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


# ---- laws in any schedule

MAX_ATTEMPTS = 3
SAYINGS = ("yes", "no")


@dataclass(frozen=True)
class Schedule:
    """What members do, and what they may take."""

    scripts: tuple[tuple[tuple[float, str], ...], ...]
    timeout: float | None
    member_timeout_s: float | None
    deadline_s: float | None
    min_candidates: int
    max_retries: int
    max_concurrent_calls: int | None = None

    @property
    def names(self):
        return [f"m{number}" for number, _ in enumerate(self.scripts)]


def seconds(most):
    """Quarters of a second: sums of them are exact."""
    return st.integers(1, 4 * most).map(lambda quarters: quarters / 4)


@st.composite
def schedules(draw, *, ties=False):
    """Without ties every attempt's length has a binary digit of its own, so that no two members end at once."""
    num_members = draw(st.integers(1, 5))
    does = st.sampled_from((*SAYINGS, *SAYINGS, "busy", "wrong"))
    scripts = tuple(
        tuple(
            (draw(seconds(3)) + (0 if ties else 2.0 ** -(4 + member * MAX_ATTEMPTS + attempt)), draw(does))
            for attempt in range(MAX_ATTEMPTS)
        )
        for member in range(num_members)
    )
    return Schedule(
        scripts,
        timeout=draw(st.none() | seconds(3)),
        member_timeout_s=draw(st.none() | seconds(6)),
        deadline_s=draw(st.none() | seconds(6)),
        min_candidates=draw(st.integers(1, num_members)),
        max_retries=draw(st.integers(0, MAX_ATTEMPTS - 1)),
        max_concurrent_calls=draw(st.none() | st.integers(1, 3)) if ties else None,
    )


def alone(script, schedule):
    """Say when one member ends, what it says (None for nothing), how often it is asked, and whether time ended it."""
    deadline_s = math.inf if schedule.deadline_s is None else schedule.deadline_s
    end_s = min(deadline_s, schedule.member_timeout_s or math.inf)
    now_s, wait_s = 0.0, 0.5
    for number in range(schedule.max_retries + 1):
        length_s, does = script[number]
        cut_s = now_s + (schedule.timeout or math.inf)
        if now_s + length_s >= end_s and cut_s >= end_s:
            return end_s, None, number + 1, end_s == deadline_s
        if now_s + length_s < cut_s:
            now_s += length_s
            if does in SAYINGS:
                return now_s, does, number + 1, False
            if does == "wrong":
                return now_s, None, number + 1, False
        else:
            now_s = cut_s
        if number == schedule.max_retries or now_s + wait_s >= end_s:
            return now_s, None, number + 1, False
        now_s, wait_s = now_s + wait_s, 2 * wait_s
    raise AssertionError


def expected(schedule):
    """Return what the ensemble says or raises, when, who answered, and the number of calls."""
    ends = [alone(script, schedule) for script in schedule.scripts]
    took_s = max(end_s for end_s, *_ in ends)
    said = [what for _, what, _, _ in ends if what is not None]
    is_cut = any(by_deadline for *_, by_deadline in ends)
    arrived = [name for name, (_, what, _, _) in zip(schedule.names, ends, strict=True) if what is not None]
    if not said or (is_cut and len(said) < schedule.min_candidates):
        answer = DeadlineError if is_cut else EnsembleError
    else:
        answer = max(SAYINGS, key=lambda word: (said.count(word), -said.index(word) if word in said else -math.inf))
    return answer, took_s, arrived, sum(number for _, _, number, _ in ends)


def played(way, schedule, *, competences=None, **fields):
    errors = {"busy": ConnectionError("busy"), "wrong": ModelInvalidRequestError("wrong")}
    members = {
        name: timed(*[(length_s, errors.get(does, does)) for length_s, does in script])
        for name, script in zip(schedule.names, schedule.scripts, strict=True)
    }
    if competences is not None:
        trusted = zip(members.items(), competences, strict=False)
        asked = [PoolMember(name, model, competence=competence) for (name, model), competence in trusted]
    else:
        asked = members
    names = ("timeout", "member_timeout_s", "deadline_s", "min_candidates", "max_retries", "max_concurrent_calls")
    limits = {name: getattr(schedule, name) for name in names}
    answer = play(way, ensemble(asked, breaker_failures=None, **limits, **fields))
    return answer, members


def label_of(answer):
    """What was answered, or the kind of error."""
    if answer.error is not None:
        return DeadlineError if isinstance(answer.error, DeadlineError) else type(answer.error).__mro__[1]
    return answer.how["fusion"]["answer"]


def accounted(answer):
    """Who answered or failed, with repetitions."""
    if answer.error is not None:
        return sorted(answer.error.failures)
    return sorted([*answer.answered, *[failure["member"] for failure in answer.how["failures"]]])


@pytest.mark.parametrize("way", WAYS)
@given(schedule=schedules())
def test_an_answer_is_what_the_members_say_one_by_one(way, schedule):
    answer, members = played(way, schedule, early_commit=False)
    label, took_s, arrived, num_calls = expected(schedule)
    assert answer.took_s == took_s
    assert answer.model.spent.calls == num_calls == sum(len(member.log) for member in members.values())
    if answer.error is None:
        assert answer.how["fusion"]["answer"] == label
        assert answer.answered == arrived
        assert accounted(answer) == schedule.names
    else:
        assert isinstance(answer.error, label)
        assert isinstance(answer.error, DeadlineError) == (label is DeadlineError)
        assert accounted(answer) == [name for name in schedule.names if name not in arrived]


@pytest.mark.parametrize("way", WAYS)
@given(
    schedule=schedules(),
    competences=st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.9]), min_size=5, max_size=5),
    max_rounds=st.integers(1, 2),
)
def test_early_commit_answers_the_same_and_never_later(way, schedule, competences, max_rounds):
    early, full = (
        played(way, schedule, competences=competences, max_rounds=max_rounds, early_commit=early_commit)[0]
        for early_commit in (True, False)
    )
    assert label_of(early) == label_of(full)
    assert early.took_s <= full.took_s
    if early.error is None:
        assert set(accounted(early)) <= set(schedule.names)
        assert len(set(accounted(early))) == len(accounted(early))


@pytest.mark.parametrize("way", WAYS)
@given(schedule=schedules(ties=True))
def test_nothing_is_lost_where_everything_happens_at_once(way, schedule):
    """Members end, wait, and are cut off in the same moments, and wait for places.

    `play` sees that no task, place or reservation is left. A call that is cut off before its first line may be booked.
    """
    answer, members = played(way, schedule)
    assert answer.took_s <= (schedule.deadline_s or math.inf)
    assert sum(len(member.log) for member in members.values()) <= answer.model.spent.calls
    if answer.error is None:
        assert accounted(answer) == schedule.names
        assert len(answer.answered) >= 1
