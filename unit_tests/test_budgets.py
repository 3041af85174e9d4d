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

from langchain_rlfocal import InputError
from langchain_rlfocal.execution.budgets import TOLERANCE, Budget, BudgetRefusal, Ledger, Usage, _lock, reserve

ONE_CALL = Usage(calls=1)


# ---- what may be said


@pytest.mark.parametrize("name", ["max_calls", "max_tokens", "max_usd", "max_seconds"])
@pytest.mark.parametrize("value", [True, -1, math.nan, math.inf, "1"])
def test_a_limit_that_is_none_is_refused_by_name(name, value):
    with pytest.raises(InputError, match=rf"`{name}` must be .* of at least 0, got .*Leave it out"):
        Budget(**{name: value})


@pytest.mark.parametrize("name", ["max_calls", "max_tokens"])
def test_calls_and_tokens_are_whole_numbers(name):
    with pytest.raises(InputError, match="a whole number"):
        Budget(**{name: 1.0})


def test_a_budget_of_nothing_lets_nothing_through_that_costs():
    """0 is legal, and says what it says; a call that costs no dollars fits 0 dollars."""
    for name, bound in {
        "max_calls": ONE_CALL,
        "max_tokens": Usage(tokens=1),
        "max_usd": Usage(usd=1e-12),
        "max_seconds": Usage(seconds=1e-12),
    }.items():
        ledger = Ledger()
        with pytest.raises(BudgetRefusal) as refusal:
            reserve(bound, [(ledger, Budget(**{name: 0}))])
        assert refusal.value.limit == name
    free = reserve(Usage(calls=1, tokens=9, seconds=math.inf), [(Ledger(), Budget(max_usd=0))])
    assert free.bound == Usage(calls=1, tokens=9, seconds=math.inf)


def test_costs_add_and_subtract_field_by_field():
    cost, other = Usage(3, 20, 0.5, 2.0), Usage(1, 5, 0.25, 0.5)
    assert cost + other == Usage(4, 25, 0.75, 2.5)
    assert cost - other == Usage(2, 15, 0.25, 1.5)


# ---- one account


def test_what_is_reserved_counts_until_it_is_settled_and_what_is_spent_for_good():
    """10 tokens: 6 reserved leave 4; they cost 3, so 7 are left."""
    ledger, budget = Ledger(), Budget(max_tokens=10)
    first = reserve(Usage(1, 6), [(ledger, budget)])
    assert (ledger.spent, ledger.reserved) == (Usage(), Usage(1, 6))
    with pytest.raises(BudgetRefusal):
        reserve(Usage(1, 5), [(ledger, budget)])
    assert (ledger.spent, ledger.reserved) == (Usage(), Usage(1, 6))
    first.settle(Usage(1, 3))
    assert (ledger.spent, ledger.reserved) == (Usage(1, 3), Usage())
    with pytest.raises(BudgetRefusal):
        reserve(Usage(1, 8), [(ledger, budget)])
    reserve(Usage(1, 7), [(ledger, budget)])


@pytest.mark.parametrize(
    ("budget", "bound", "words"),
    [
        (
            Budget(max_calls=2),
            ONE_CALL,
            "`max_calls` of `budget` is 2, of which 1 is spent and 1 reserved .* asked for 1",
        ),
        (
            Budget(max_tokens=2500),
            Usage(tokens=501),
            "`max_tokens` of `budget` is 2,500, of which 1,000 is spent and 1,000 reserved",
        ),
        (
            Budget(max_usd=0.5),
            Usage(usd=0.3),
            r"`max_usd` of `budget` is 0\.5, of which 0\.125 is spent and 0\.125 .* asked for 0\.3",
        ),
        (
            Budget(max_seconds=4.0),
            Usage(seconds=math.inf),
            "`max_seconds` of `budget` is 4, of which 2 is spent and 2 .* asked for inf",
        ),
    ],
)
def test_a_refusal_names_the_limit_and_what_is_spent_reserved_and_asked_for(budget, bound, words):
    each = Usage(calls=1, tokens=1000, usd=0.125, seconds=2.0)
    ledger = Ledger()
    reserve(each, [(ledger, Budget())]).settle(each)
    reserve(each, [(ledger, Budget(max_seconds=9.0))])
    with pytest.raises(BudgetRefusal, match=words) as refusal:
        reserve(bound, [(ledger, budget)])
    assert f"`{refusal.value.limit}`" in str(refusal.value)
    again = pickle.loads(pickle.dumps(refusal.value))
    assert (str(again), again.limit) == (str(refusal.value), refusal.value.limit)


def test_a_call_is_settled_once():
    ledger = Ledger()
    reservation = reserve(ONE_CALL, [(ledger, Budget())])
    reservation.settle(Usage(1, 5))
    reservation.settle(Usage(1, 7))
    assert ledger.spent == Usage(1, 5)


def test_what_a_provider_took_beyond_the_bound_is_said_and_binds():
    ledger, budget = Ledger(), Budget(max_tokens=10)
    reserve(Usage(1, 6), [(ledger, budget)]).settle(Usage(1, 60))
    assert ledger.spent.tokens == 60
    with pytest.raises(BudgetRefusal, match="60 is spent"):
        reserve(Usage(1, 0), [(ledger, budget)])


def test_no_report_refills_a_budget():
    """A provider that reports fewer than no tokens, and a number that is none, count as zero."""
    ledger = Ledger(Usage(1, 6, 0.5, 1.0))
    reservation = reserve(Usage(1, -5), [(ledger, Budget(max_tokens=6))])
    assert reservation.bound == ledger.reserved == ONE_CALL
    reservation.settle(Usage(1, -5, -0.25, math.nan))
    assert ledger.spent == Usage(2, 6, 0.5, 1.0)


def test_a_reset_forgets_what_was_spent_and_not_what_runs():
    ledger, budget = Ledger(Usage(calls=1)), Budget(max_calls=2)
    running = reserve(ONE_CALL, [(ledger, budget)])
    ledger.reset()
    assert (ledger.spent, ledger.reserved) == (Usage(), ONE_CALL)
    reserve(ONE_CALL, [(ledger, budget)])
    with pytest.raises(BudgetRefusal):
        reserve(ONE_CALL, [(ledger, budget)])
    running.settle(ONE_CALL)
    assert ledger.spent == ONE_CALL


# ---- seconds


def test_a_call_is_granted_the_seconds_that_are_left_and_at_most_what_it_asks_for():
    """Of 10 seconds the first asks 4 and takes 3; the second wants any, and has 7; then none are left."""
    ledger, budget = Ledger(), Budget(max_seconds=10.0)
    first = reserve(Usage(seconds=4.0), [(ledger, budget)])
    assert first.bound.seconds == 4.0
    first.settle(Usage(seconds=3.0))
    second = reserve(Usage(seconds=math.inf), [(ledger, budget)])
    assert second.bound.seconds == 7.0
    assert ledger.reserved.seconds == 7.0
    with pytest.raises(BudgetRefusal) as refusal:
        reserve(Usage(seconds=1.0), [(ledger, budget)])
    assert refusal.value.limit == "max_seconds"
    second.settle(Usage(seconds=6.5))
    assert reserve(Usage(seconds=1.0), [(ledger, budget)]).bound.seconds == 0.5


def test_the_tightest_account_grants_the_seconds_and_each_holds_what_was_granted():
    mine, ours, free = Ledger(), Ledger(Usage(seconds=4.0)), Ledger()
    accounts = [(mine, Budget(max_seconds=9.0)), (ours, Budget(max_seconds=6.0)), (free, Budget())]
    reservation = reserve(Usage(calls=1, seconds=5.0), accounts)
    assert reservation.bound == Usage(calls=1, seconds=2.0)
    assert [ledger.reserved.seconds for ledger, _ in accounts] == [2.0, 2.0, 2.0]
    reservation.settle(Usage(calls=1, seconds=1.0))
    assert [ledger.spent.seconds for ledger, _ in accounts] == [1.0, 5.0, 1.0]


def test_where_no_budget_limits_seconds_they_stay_as_asked_for_and_none_are_reserved():
    ledger = Ledger()
    reservation = reserve(Usage(calls=1, seconds=math.inf), [(ledger, Budget(max_calls=2))])
    assert reservation.bound.seconds == math.inf
    assert ledger.reserved == ONE_CALL
    reservation.settle(Usage(calls=1, seconds=2.5))
    assert ledger.spent.seconds == 2.5


def test_rounding_leaves_no_seconds_to_grant():
    """0.1 + 0.2 is not 0.3: what is left of 0.3 then is no time to ask anybody."""
    left = 0.3 - 0.1 - 0.2 + 2**-50
    ledger = Ledger(Usage(seconds=0.3 - left))
    with pytest.raises(BudgetRefusal):
        reserve(Usage(seconds=1.0), [(ledger, Budget(max_seconds=0.3))])


# ---- several accounts


def test_all_accounts_take_a_call_or_none_does():
    """The second refuses, so the first shows nothing of it, whichever comes first."""
    wide, narrow = (Ledger(), Budget(max_calls=9)), (Ledger(), Budget(max_calls=0))
    for accounts in ([wide, narrow], [narrow, wide]):
        with pytest.raises(BudgetRefusal):
            reserve(ONE_CALL, accounts)
        assert wide[0].reserved == wide[0].spent == narrow[0].reserved == Usage()


def test_a_ledger_that_comes_twice_is_charged_once():
    ledger = Ledger()
    reservation = reserve(ONE_CALL, [(ledger, Budget(max_calls=5)), (ledger, Budget(max_calls=1))])
    assert ledger.reserved == ONE_CALL
    reservation.settle(ONE_CALL)
    assert (ledger.spent, ledger.reserved) == (ONE_CALL, Usage())


def test_a_call_without_an_account_is_granted_what_it_asks_for():
    reservation = reserve(Usage(1, 2, 3.0, math.inf), [])
    reservation.settle(Usage(1))
    assert reservation.bound == Usage(1, 2, 3.0, math.inf)


# ---- laws


@given(
    num=st.integers(1, 300),
    usd=st.floats(1e-9, 1e9, allow_nan=False),
    parts=st.sampled_from(["usd", "seconds"]),
)
def test_n_equal_parts_of_a_budget_fit_into_it_and_nothing_more(num, usd, parts):
    ledger, budget = Ledger(), Budget(**{f"max_{parts}": usd})
    part = Usage(**{parts: usd / num})
    reservations = [reserve(part, [(ledger, budget)]) for _ in range(num)]
    assert sum(getattr(each.bound, parts) for each in reservations) == pytest.approx(usd, rel=TOLERANCE)
    with pytest.raises(BudgetRefusal):
        reserve(part, [(ledger, budget)])
    for reservation in reservations:
        reservation.settle(reservation.bound)
    assert ledger.reserved == Usage()
    with pytest.raises(BudgetRefusal):
        reserve(part, [(ledger, budget)])


amounts = st.floats(0, 40, allow_nan=False)
costs = st.builds(
    Usage, calls=st.integers(0, 3), tokens=st.integers(0, 40), usd=amounts, seconds=amounts | st.just(math.inf)
)
limits = st.none() | st.integers(0, 100)
budgets = st.builds(Budget, max_calls=limits, max_tokens=limits, max_usd=limits, max_seconds=limits)
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
            assert (granted.calls, granted.tokens, granted.usd) == (bound.calls, bound.tokens, bound.usd)
            assert granted.seconds <= bound.seconds
            seconds = min(granted.seconds, 50.0) * share
            running.append(
                (i, reservation, Usage(granted.calls, int(granted.tokens * share), granted.usd * share, seconds))
            )
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
    for name in ("calls", "tokens", "usd", "seconds"):
        limit = getattr(budget, f"max_{name}")
        assert limit is None or getattr(cost, name) <= limit * (1 + 2 * TOLERANCE)


def assert_sums(spent, actuals):
    assert spent.calls == sum(actual.calls for actual in actuals)
    assert spent.tokens == sum(actual.tokens for actual in actuals)
    for name in ("usd", "seconds"):
        exact = float(sum((Fraction(getattr(actual, name)) for actual in actuals), Fraction()))
        assert getattr(spent, name) == pytest.approx(exact, rel=TOLERANCE, abs=0)


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
        if is_free := _lock.acquire(blocking=False):
            _lock.release()
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
    reserve(Usage(1, 2, 0.5, 1.0), [(ledger, Budget())]).settle(Usage(1, 2, 0.5, 1.0))
    running = reserve(ONE_CALL, [(ledger, Budget())])
    assert copy.copy(ledger) is copy.deepcopy(ledger) is copy.deepcopy({"model": [ledger]})["model"][0] is ledger
    there = pickle.loads(pickle.dumps(ledger))
    assert (there.spent, there.reserved) == (Usage(1, 2, 0.5, 1.0), Usage())
    running.settle(ONE_CALL)
    assert there.spent.calls == 1
    assert reserve(ONE_CALL, [(there, Budget(max_calls=2))]).bound == ONE_CALL
