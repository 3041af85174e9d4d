"""Budgets: what fits, what is refused, and that no order of calls, and no number of threads, overruns one."""

import copy
import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage

from langchain_rlfocal import InputError
from langchain_rlfocal.execution.budgets import (
    ASSUMED_OUTPUT_TOKENS,
    TOKENS_PER_MEDIUM,
    TOLERANCE,
    Budget,
    BudgetRefusal,
    Ledger,
    Usage,
    lock,
    message_tokens,
    output_bound,
    prompt_tokens,
    reserve,
)
from langchain_rlfocal.testing import ScriptedChatModel

ONE_CALL = Usage(calls=1)


# ---- what may be said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, 1.0) for name in ("max_calls", "max_tokens")),
        *((name, value) for name in ("max_calls", "max_usd") for value in (True, -1, "1")),
        *(("max_usd", value) for value in (math.nan, math.inf)),
    ],
)
def test_a_limit_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"`{name}` must be .* of at least 0, got "):
        Budget(**{name: value})


def test_a_budget_of_nothing_lets_nothing_through_that_costs():
    """0 is legal, and says what it says; a call that costs no dollars fits 0 dollars."""
    for name, bound in {"max_calls": ONE_CALL, "max_tokens": Usage(tokens=1), "max_usd": Usage(usd=1e-12)}.items():
        ledger = Ledger()
        with pytest.raises(BudgetRefusal) as refusal:
            reserve(bound, [(ledger, Budget(**{name: 0}))])
        assert refusal.value.limit == name
    free = reserve(Usage(calls=1, tokens=9), [(Ledger(), Budget(max_usd=0))])
    assert free.bound == Usage(calls=1, tokens=9)


# ---- one account


ACCOUNTS = {
    "what is reserved counts until it is settled, and what is spent for good": "6 !5 6=3 !8 7",
    "a call is settled once": "6 6=3 6=5 7",
    "what a provider took beyond the bound binds": "6 6=60 !0",
    "a reset forgets what was spent and not what runs": "3 3=3 6 reset 4 !1 6=2 4=8 !1",
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_a_budget_of_ten_tokens(name):
    """`6` reserves six tokens, `!5` is refused five, `6=3` settles the reservation of six with three."""
    ledger, budget, running = Ledger(), Budget(max_tokens=10), {}
    for step in ACCOUNTS[name].split():
        bound, _, actual = step.lstrip("!").partition("=")
        if step == "reset":
            ledger.reset()
        elif actual:
            running[bound].settle(Usage(1, int(actual)))
        elif step.startswith("!"):
            with pytest.raises(BudgetRefusal):
                reserve(Usage(1, int(bound)), [(ledger, budget)])
        else:
            running[bound] = reserve(Usage(1, int(bound)), [(ledger, budget)])


@pytest.mark.parametrize(
    ("budget", "bound", "words"),
    [
        (Budget(max_calls=2), ONE_CALL, "`max_calls` of `budget` is 2, of which 1 is spent and 1 reserved .* for 1"),
        (Budget(max_tokens=2500), Usage(tokens=501), "2,500, of which 1,000 is spent and 1,000 reserved"),
        (Budget(max_usd=0.5), Usage(usd=0.3), r"0\.5, of which 0\.125 is spent and 0\.125 .* asked for 0\.3"),
    ],
)
def test_a_refusal_names_the_limit_and_what_is_spent_reserved_and_asked_for(budget, bound, words):
    each = Usage(calls=1, tokens=1000, usd=0.125)
    ledger = Ledger()
    reserve(each, [(ledger, Budget())]).settle(each)
    reserve(each, [(ledger, Budget(max_calls=9))])
    with pytest.raises(BudgetRefusal, match=words) as refusal:
        reserve(bound, [(ledger, budget)])
    assert f"`{refusal.value.limit}`" in str(refusal.value)


# ---- laws


@given(num=st.integers(1, 300), usd=st.floats(1e-9, 1e9, allow_nan=False))
def test_n_equal_parts_of_a_budget_fit_into_it_and_nothing_more(num, usd):
    ledger, budget = Ledger(), Budget(max_usd=usd)
    part = Usage(usd=usd / num)
    reservations = [reserve(part, [(ledger, budget)]) for _ in range(num)]
    assert sum(each.bound.usd for each in reservations) == pytest.approx(usd, rel=TOLERANCE)
    with pytest.raises(BudgetRefusal):
        reserve(part, [(ledger, budget)])
    for reservation in reservations:
        reservation.settle(reservation.bound)
    assert ledger.reserved == Usage()
    with pytest.raises(BudgetRefusal):
        reserve(part, [(ledger, budget)])


amounts = st.floats(0, 40, allow_nan=False)
costs = st.builds(Usage, calls=st.integers(0, 3), tokens=st.integers(0, 40), usd=amounts)
limits = st.none() | st.integers(0, 100)
budgets = st.builds(Budget, max_calls=limits, max_tokens=limits, max_usd=limits)
steps = st.lists(st.tuples(costs, st.floats(0, 1), st.booleans()), max_size=40)


@given(own=budgets, shared=budgets, answers=st.lists(steps, min_size=1, max_size=3), draw=st.randoms())
def test_no_order_of_calls_overruns_a_budget_and_accounts_add_up(own, shared, answers, draw):
    """Answers with ledgers of their own, and one ledger for all: calls begin and end in any order, for no more than granted.

    A reference adds exactly, in fractions.
    """
    ours = Ledger()
    running, settled = [], {}
    ledgers = [Ledger() for _ in answers]
    todo = [(i, step) for i, steps_of in enumerate(answers) for step in steps_of]
    draw.shuffle(todo)
    for i, (bound, share, ends_one) in todo:
        before = [(ledger.spent, ledger.reserved) for ledger in (*ledgers, ours)]
        try:
            reservation = reserve(bound, [(ledgers[i], own), (ours, shared)])
        except BudgetRefusal:
            assert [(ledger.spent, ledger.reserved) for ledger in (*ledgers, ours)] == before
        else:
            granted = reservation.bound
            assert granted == bound
            running.append((i, reservation, Usage(granted.calls, int(granted.tokens * share), granted.usd * share)))
        if ends_one and running:
            who, reservation, actual = running.pop(draw.randrange(len(running)))
            reservation.settle(actual)
            settled.setdefault(who, []).append(actual)
        for ledger, budget in [*((ledger, own) for ledger in ledgers), (ours, shared)]:
            assert_within(ledger.spent, budget)
            assert_within(ledger.spent + ledger.reserved, budget)
    for who, reservation, actual in running:
        reservation.settle(actual)
        settled.setdefault(who, []).append(actual)
    assert all(ledger.reserved == Usage() for ledger in (*ledgers, ours))
    for i, ledger in enumerate(ledgers):
        assert_sums(ledger.spent, settled.get(i, []))
    assert_sums(ours.spent, [actual for each in settled.values() for actual in each])


def assert_within(cost, budget):
    for name in ("calls", "tokens", "usd"):
        limit = getattr(budget, f"max_{name}")
        assert limit is None or getattr(cost, name) <= limit * (1 + 2 * TOLERANCE)


def assert_sums(spent, actuals):
    assert spent.calls == sum(actual.calls for actual in actuals)
    assert spent.tokens == sum(actual.tokens for actual in actuals)
    exact = float(sum((Fraction(actual.usd) for actual in actuals), Fraction()))
    assert spent.usd == pytest.approx(exact, rel=TOLERANCE, abs=0)


# ---- threads


def test_threads_that_meet_never_overrun_a_budget_together_nor_wait_for_each_other_forever():
    """Eight threads ask for the same 20 calls at once, half naming the accounts the other way round.

    However they meet, 20 get through, and none is in one account only.
    """
    num_threads, each = 8, 5
    first, second = (Ledger(), Budget(max_calls=20)), (Ledger(), Budget(max_calls=30))
    barrier = threading.Barrier(num_threads, timeout=30)

    def ask(number):
        accounts = [first, second] if number % 2 else [second, first]
        got = []
        for _ in range(each):
            barrier.wait()
            try:
                got.append(reserve(ONE_CALL, accounts))
            except BudgetRefusal:
                continue
        barrier.wait()
        for reservation in got:
            reservation.settle(ONE_CALL)
        return len(got)

    with ThreadPoolExecutor(num_threads) as pool:
        assert sum(pool.map(ask, range(num_threads))) == 20
    assert first[0].spent == second[0].spent == Usage(calls=20)
    assert first[0].reserved == second[0].reserved == Usage()


def test_the_check_and_the_reservation_are_one_step():
    """While one call is being checked, no other thread can enter."""
    entered = []

    def enter():
        if is_free := lock.acquire(blocking=False):
            lock.release()
        return is_free

    class Watched(Ledger):
        @property
        def reserved(self):
            with ThreadPoolExecutor(1) as other:
                entered.append(other.submit(enter).result(timeout=30))
            return super().reserved

    reserve(ONE_CALL, [(Watched(), Budget(max_calls=1))])
    assert entered == [False]


# ---- copies


def test_copies_are_the_same_ledger_and_a_pickle_carries_what_was_spent_alone():
    ledger = Ledger()
    reserve(Usage(1, 2, 0.5), [(ledger, Budget())]).settle(Usage(1, 2, 0.5))
    running = reserve(ONE_CALL, [(ledger, Budget())])
    assert copy.copy(ledger) is copy.deepcopy(ledger) is copy.deepcopy({"model": [ledger]})["model"][0] is ledger
    there = pickle.loads(pickle.dumps(ledger))
    assert (there.spent, there.reserved) == (Usage(1, 2, 0.5), Usage())
    running.settle(ONE_CALL)
    assert there.spent.calls == 1
    assert reserve(ONE_CALL, [(there, Budget(max_calls=2))]).bound == ONE_CALL


# ---- tokens

QUESTION = HumanMessage("What is the capital of Chile?")


def test_a_token_is_four_characters_and_each_message_has_some_of_its_own():
    """29 characters and the role of 4 are ⌈33 / 4⌉ = 9, and 3 for the message."""
    assert prompt_tokens([QUESTION], {}) == 9 + 3
    assert prompt_tokens([QUESTION, QUESTION], {}) == 2 * 12


def test_each_character_that_is_not_ascii_is_a_token():
    """Ten: ⌈(10 + 4) / 4⌉ = 4, 3 for the message, and ¾ more for each: 7½."""
    assert prompt_tokens([HumanMessage("东西南北" * 2 + "左右")], {}) == 14


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}},
        {"type": "image", "base64": "A" * 100_000, "mime_type": "image/png"},
        {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}},
        {"type": "file", "file": {"file_data": "A" * 100_000}},
        {"image": {"format": "png", "source": {"bytes": b"A" * 100_000}}},
    ],
    ids=lambda block: str(block.get("type")),
)
def test_a_medium_counts_as_a_thousand_tokens_whatever_its_size(block):
    asked = [HumanMessage([{"type": "text", "text": QUESTION.content}, block])]
    assert TOKENS_PER_MEDIUM <= prompt_tokens(asked, {}) <= TOKENS_PER_MEDIUM + 20


def test_a_long_text_is_no_medium():
    assert prompt_tokens([HumanMessage([{"type": "text", "text": "word " * 2000}])], {}) > 2000


def test_tools_and_formats_are_sent_too():
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    alone = prompt_tokens([QUESTION], {})
    assert prompt_tokens([QUESTION], {"tools": [add], "temperature": 1}) > alone + 20
    assert prompt_tokens([QUESTION], {"response_format": {"type": "object", "title": "x" * 400}}) > alone + 100


def test_calls_and_their_results_are_counted():
    call = AIMessage("", tool_calls=[{"name": "search", "args": {"query": "x" * 400}, "id": "1"}])
    assert message_tokens(call) > 100
    assert prompt_tokens([QUESTION, call, ToolMessage("y" * 400, tool_call_id="1")], {}) > 212


@pytest.mark.parametrize(
    ("fields", "kwargs", "expected"),
    [
        ({}, {}, ASSUMED_OUTPUT_TOKENS),
        ({}, {"max_tokens": 7}, 7),
        ({}, {"max_completion_tokens": 8}, 8),
        ({}, {"num_predict": -1}, ASSUMED_OUTPUT_TOKENS),
        ({}, {"max_tokens": 7, "n": 3}, 21),
        ({"profile": {"max_output_tokens": 9}}, {}, 9),
        ({"profile": {"max_output_tokens": 9}}, {"max_output_tokens": 5}, 5),
    ],
    ids=str,
)
def test_a_response_is_bounded_by_the_call_else_by_the_model_else_by_a_guess(fields, kwargs, expected):
    assert output_bound(ScriptedChatModel(script=["yes"], **fields), kwargs) == expected
