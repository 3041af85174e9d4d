"""Shared state on a real server, between real processes: killed, forked, cut off. No budget, cap or rate is overrun by any of it."""

import asyncio
import itertools
import logging
import math
import pickle
import threading
import time

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from langchain_rlfocal import Account, Budget, BudgetError, PoolMember, RLFocalChatModel
from langchain_rlfocal.execution import SharedState, Usage, budgets
from langchain_rlfocal.execution import store as store_module
from langchain_rlfocal.execution.limits import BreakerConfig
from langchain_rlfocal.execution.store import StorePlace
from langchain_rlfocal.policies.targets import Target, TargetController
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_store import GUARD_S, QUESTION, Server, Worker, opened, spells_of, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path)
    yield server
    server.go_on()
    server.kill()


@pytest.fixture
def notes(tmp_path):
    return tmp_path / "notes.txt"


@pytest.fixture
def workers(server, notes):
    """Make four processes."""
    made = []

    def make(number=4, options=None, **fields):
        made.extend(Worker(server.url(**(options or {})), notes, **fields) for _ in range(number))
        return made

    yield make
    for worker in made:
        worker.kill()


def num_begun(notes):
    return len(next(iter(spells_of(notes))))


def all_do(workers, *words):
    for worker in workers:
        worker.tell(*words)
    return [worker.hear() for worker in workers]


def saying(shared, text="yes", **fields):
    """A model as one of several processes would have it."""
    return RLFocalChatModel(members={"a": ScriptedChatModel(script=lambda _: text)}, shared_state=shared, **fields)


# ---- budgets


def test_four_processes_make_exactly_the_calls_of_a_budget(workers, notes):
    """300 calls, of which each would make 200, eight at a time: exactly 300 are made, and who asks on is refused."""
    asked = all_do(workers(budget=Budget(max_calls=300)), "ask", 200, 8)
    begun, _ = spells_of(notes)
    assert (sum(made for made, _ in asked), len(begun)) == (300, 300)
    refused = [error for _, error in asked if error is not None]
    assert refused
    assert all("`max_calls` of `budget` is 300, of which 300 is spent or reserved" in error for error in refused)


def test_threads_of_several_processes_keep_a_budget_too(workers):
    assert sum(all_do(workers(2, budget=Budget(max_calls=20)), "ask_in_threads", 15)) == 20


def test_an_account_is_one_in_all_processes_and_models(server):
    account = Account("ann", Budget(max_calls=3))
    with opened(server.shared(), server.shared()) as (one, other):
        models = [saying(one), saying(other)]
        for model in (*models, models[0]):
            model.invoke(QUESTION, account=account)
        with pytest.raises(BudgetError, match="`max_calls` of `account ann` is 3, of which 3 is spent"):
            models[1].invoke(QUESTION, account=account)
        models[1].invoke(QUESTION, account=Account("bob", Budget(max_calls=1)))
        until(
            lambda: [shared.ledger_for("ann").spent.calls for shared in (one, other)] == [3, 3], "What the other spent"
        )
        assert models[1].spent.calls == 4


def test_what_is_spent_is_set_to_zero_in_all_processes(server):
    with opened(server.shared(), server.shared()) as (one, other):
        models = [saying(shared, budget=Budget(max_calls=1)) for shared in (one, other)]
        models[0].invoke(QUESTION)
        with pytest.raises(BudgetError):
            models[1].invoke(QUESTION)
        models[1].reset_spending()
        other.get("x")  # by now the server has heard of it
        models[0].invoke(QUESTION)
        with pytest.raises(BudgetError):
            models[1].invoke(QUESTION)
        assert models[0].spent.calls == 1


def test_an_account_is_forgotten_by_the_server_and_by_each_process_some_time_after_its_last_call(server):
    """A month that is over, and an account for ever."""
    now_s = [0.0]
    with opened(SharedState(place=StorePlace.of(server.url()), clock=lambda: now_s[0])) as (shared,):
        model = saying(shared)
        for account in (Account("may", keep_s=1000.5), Account("ever")):
            model.invoke(QUESTION, account=account)
        shared.get("x")
        times = [server.client().ttl(f"rlfocal:{{default}}:spent:account:{name}") for name in ("may", "ever")]
        assert 990 < times[0] <= 1001
        assert times[1] == -1
        now_s[0] = 1001
        until(lambda: [*shared.store._ledgers] == ["model", "account:ever"], "The end of the month's account")
        assert server.client().delete("rlfocal:{default}:spent:account:may") == 1
        looked = shared.ledger_for("may")
        beaten = threading.Event()
        looked.hear = lambda _: beaten.set()
        assert beaten.wait(GUARD_S)
        assert not server.client().exists("rlfocal:{default}:spent:account:may")  # who only looks makes none


def test_a_killed_process_leaves_counted_what_it_may_have_spent_and_its_slots_come_free(workers, notes):
    """A call that nobody ends: killed, it stays among what is spent, and its slot is free once its lease of 1 s has ended."""
    limits = {"budget": Budget(max_calls=3), "max_concurrent_calls": 1, "takes_s": GUARD_S}
    first, _ = workers(2, {"lease_s": 1}, **limits)
    first.tell("ask", 1)
    until(lambda: num_begun(notes) == 1, "The first call")
    first.kill()
    _, other = workers(1, {"lease_s": 1}, **(limits | {"takes_s": 0}))[1:]
    assert other.do("ask", 3)[0] == 2
    begun, _ = spells_of(notes)
    assert len(begun) == 3
    assert begun[1] - begun[0] >= 0.9


# ---- the server is lost


def test_a_lost_server_leaves_each_process_its_share_and_hears_of_all_of_it_when_it_is_back(workers, server, notes):
    """Of 300 calls 100 are made, 25 by each; of 200 that are left, each of four makes 50. The server forgot everything, and knows 300."""
    four = workers(budget=Budget(max_calls=300))
    assert [made for made, _ in all_do(four, "ask", 25)] == [25] * 4
    until(lambda: all_do(four, "spent") == [100] * 4, "What the others spent")
    until(lambda: [status.workers for status in all_do(four, "status")] == [4] * 4, "The number of workers")
    server.kill()
    until(lambda: all(status.is_lost for status in all_do(four, "status")), "The loss")
    asked = all_do(four, "ask", 100)
    assert [made for made, _ in asked] == [50] * 4
    assert all("its share" in error or "process's share" in error for _, error in asked)
    server.start()
    until(lambda: not any(status.is_lost for status in all_do(four, "status")), "The server")
    until(lambda: all_do(four, "spent") == [300] * 4, "What all have spent")
    assert [made for made, _ in all_do(four, "ask", 5)] == [0] * 4
    begun, _ = spells_of(notes)
    assert len(begun) == 300


def test_a_server_that_is_killed_in_the_middle_is_told_of_every_call(workers, server, notes):
    """Calls go on while it is gone and come back: each is booked, once."""
    four = workers(budget=Budget(max_calls=10_000), takes_s=0.01)
    for worker in four:
        worker.tell("ask", 150, 4)
    until(lambda: num_begun(notes) > 100, "A hundred calls")
    server.kill()
    until(lambda: num_begun(notes) > 250, "More calls")
    server.start()
    assert [worker.hear()[0] for worker in four] == [150] * 4
    until(lambda: all_do(four, "spent") == [600] * 4, "What all have spent")
    assert server.client().hget("rlfocal:{default}:spent:model", "calls") == "600"


def test_the_loss_is_said_once_in_the_log_the_status_and_the_answer(server, caplog):
    with opened(server.shared()) as (shared,):
        model = saying(shared, budget=Budget(max_calls=9))
        said = model.invoke(QUESTION).response_metadata["rlfocal"]["shared_state"]
        assert said == {"kind": "redis", "is_lost": False}
        server.kill()
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                message = model.invoke(QUESTION)
        assert message.response_metadata["rlfocal"]["shared_state"] == {"kind": "redis", "is_lost": True}
        assert "the store that processes share was lost" in model.explain(message)
        assert (shared.status.kind, shared.status.is_lost) == ("redis", True)
        assert shared.status.lost_for_s > 0
        [line] = [record.getMessage() for record in caplog.records]
        assert line.startswith(f"The store at unix://{server.socket} is lost (ConnectionError: ")
        assert model.spent.calls == 4


def test_a_server_that_hangs_is_lost_after_its_time_out_and_no_call_waits_for_longer(server):
    with opened(server.shared(timeout_s=0.1)) as (shared,):
        model = saying(shared)
        model.invoke(QUESTION)
        server.pause()
        began_s = time.monotonic()
        model.invoke(QUESTION)
        assert time.monotonic() - began_s < 2
        assert shared.status.is_lost
        server.go_on()
        until(lambda: not shared.status.is_lost, "The server")
        until(lambda: server.client().hget("rlfocal:{default}:spent:model", "calls") == "2", "What was spent")
        assert model.spent.calls == 2


def test_without_a_server_a_process_begins_with_its_part_and_never_without_a_limit(tmp_path, server):
    """Eight calls for what are said to be four workers: two are this one's."""
    server.kill()
    with opened(server.shared(workers=4)) as (shared,):
        model = saying(shared, budget=Budget(max_calls=8))
        assert [model.invoke(QUESTION).text for _ in range(2)] == ["yes", "yes"]
        with pytest.raises(BudgetError, match="process's share of what was left, 2, 2 is spent"):
            model.invoke(QUESTION)
        assert [bool(shared.take("x", per_minute=60, burst=8)) for _ in range(3)] == [False, False, True]
        shared.put("k", b"v", 10)
        assert (shared.get("k"), shared.get("l")) == (b"v", None)


def test_scripts_that_somebody_flushes_are_loaded_again(server):
    with opened(server.shared()) as (shared,):
        model = saying(shared)
        model.invoke(QUESTION)
        server.client().script_flush()
        model.invoke(QUESTION)
        assert (model.spent.calls, shared.status.is_lost) == (2, False)


def test_a_server_that_somebody_flushes_is_told_what_was_spent(server):
    """Of 5 calls 3 are made, by two processes; the server forgets them all, and allows 2."""
    with opened(server.shared(), server.shared()) as (one, other):
        models = [saying(shared, budget=Budget(max_calls=5)) for shared in (one, other)]
        for model in (models[0], models[1], models[0]):
            model.invoke(QUESTION)
        one.get("x")
        server.client().flushall()
        models[1].invoke(QUESTION)  # it knows of 2 calls, the other of 3
        models[0].invoke(QUESTION)
        until(lambda: server.client().hget("rlfocal:{default}:spent:model", "calls") == "5", "What was spent")
        for model in models:
            with pytest.raises(BudgetError):
                model.invoke(QUESTION)
        assert not one.status.is_lost


def test_a_call_that_ends_after_the_server_was_flushed_counts_as_what_it_cost(server):
    with opened(server.shared()) as (shared,):
        ticket = admitted(shared, Usage(1, 100))
        server.client().flushall()
        ticket.settle(Usage(1, 40), "answered")
        ticket.release()
        until(lambda: not shared.ledger._unheard, "The answer")
        assert server.client().hmget("rlfocal:{default}:spent:model", "calls", "tokens") == ["1", "40"]


def test_an_account_that_somebody_deletes_is_never_below_zero(server):
    with opened(server.shared()) as (shared,):
        ticket = admitted(shared, Usage(1, 100))
        server.client().delete("rlfocal:{default}:spent:model")
        ticket.settle(Usage(1, 40), "answered")
        ticket.release()
        until(lambda: not shared.ledger._unheard, "The answer")
        assert server.client().hget("rlfocal:{default}:spent:model", "tokens") == "0"


def test_any_text_is_a_name(server):
    """Also one that is no UTF-8, such as half an emoji that a client has cut off."""
    with opened(server.shared()) as (shared,):
        model = saying(shared)
        for name in ("\ud83d", "é\x00\n", "名"):
            assert shared.take(name, per_minute=1) == 0
            assert shared.take(name, per_minute=1) > 0
            shared.put(name, b"v", 9)
            assert shared.get(name) == b"v"
            account = Account(f"a{name}", Budget(max_calls=1))
            model.invoke(QUESTION, account=account)
            with pytest.raises(BudgetError, match="is 1, of which 1 is spent"):
                model.invoke(QUESTION, account=account)
        assert not shared.status.is_lost


def test_what_is_spent_while_the_server_is_lost_is_one_booking_however_often_it_is_tried(server):
    with opened(server.shared()) as (shared,):
        store, model, tries = shared.store, saying(shared), []
        model.invoke(QUESTION)
        shared.get("x")
        server.kill()
        connect = store._connect
        store._connect = lambda: (tries.append(1), connect())
        for _ in range(4):
            model.invoke(QUESTION)
            done = len(tries)
            until(lambda: len(tries) > done, "The next try")  # noqa: B023  # called at once
        assert shared.ledger._booked == {}
        assert len(store._kept) <= 1  # the first of these calls may have asked
        assert model.spent.calls == 5
        server.start()
        until(lambda: server.client().hget("rlfocal:{default}:spent:model", "calls") == "5", "What was spent")


def test_a_server_that_has_just_come_back_does_not_make_others_seem_gone(server):
    """Two processes; the server begins again, and the first of them to be back keeps to one of two parts."""
    with opened(server.shared(lease_s=1), server.shared(lease_s=1)) as (one, other):
        for shared in (one, other):
            shared.get("x")
        until(lambda: one.status.workers == 2, "The other")
        server.kill()
        until(lambda: one.status.is_lost, "The loss")
        other.close()
        server.start()
        until(lambda: not one.status.is_lost, "The server")
        assert one.status.workers == 2
        until(lambda: one.status.workers == 1, "The other's end")


def leave_of(ticket):
    """What the server says of a call."""
    heard = threading.Event()
    ticket.ask(heard.set)
    assert heard.wait(GUARD_S)
    return ticket.take_answer().kind


def ticket_of(shared, bound, **caps):
    """A ticket of a call that has not been asked for."""
    caps = {"total": None, "of_member": None, "per_minute": None, "breaker": BreakerConfig(), **caps}
    return shared.store.ticket("a", bound, [(shared.ledger, BUDGET)], **caps)


def admitted(shared, bound, **caps):
    """A ticket of a call that may be made."""
    ticket = ticket_of(shared, bound, **caps)
    assert leave_of(ticket) == "ok"
    return ticket


def end(ticket, says):
    """Have a call end."""
    ticket.settle(ticket.bound, says)
    ticket.release()


def test_a_call_that_is_asked_for_again_since_the_answer_was_lost_counts_once(server):
    with opened(server.shared()) as (shared,):
        ticket = admitted(shared, Usage(1, 60), total=1)
        assert leave_of(ticket) == "ok"
        assert server.client().hmget("rlfocal:{default}:spent:model", "calls", "tokens") == ["1", "60"]


def test_what_is_settled_twice_since_the_first_answer_was_lost_counts_once(server):
    """100 tokens become 40. The server hangs, is told, answers too late, is told again, and has 40."""
    with opened(server.shared(timeout_s=0.1)) as (shared,):
        ticket = admitted(shared, Usage(1, 100))
        server.pause()
        ticket.settle(Usage(1, 40), "answered")
        ticket.release()
        until(lambda: shared.status.is_lost, "The loss")
        server.go_on()
        until(lambda: not shared.status.is_lost, "The server")
        until(lambda: not shared.ledger._unheard, "The answer")
        assert server.client().hget("rlfocal:{default}:spent:model", "tokens") == "40"
        assert shared.ledger.spent.tokens == 40


def test_a_call_that_ends_after_spending_was_set_to_zero_counts_as_what_it_cost(server):
    """Its 100 tokens are forgotten with the rest; what is booked is 40, not 40 - 100."""
    with opened(server.shared()) as (shared,):
        ticket = admitted(shared, Usage(1, 100))
        shared.ledger.reset()
        ticket.settle(Usage(1, 40), "answered")
        ticket.release()
        until(lambda: server.client().hget("rlfocal:{default}:spent:model", "tokens") == "40", "What it cost")


def test_who_has_left_before_the_server_answers_holds_nothing(server):
    with opened(server.shared()) as (shared,):
        shared.get("x")
        server.pause()
        ticket = shared.store.ticket(
            "a", Usage(1, 60), [(shared.ledger, BUDGET)], total=1, of_member=None, per_minute=None, breaker=None
        )
        ticket.ask(lambda: None)
        ticket.settle(Usage(), None)
        ticket.release()
        server.go_on()
        until(lambda: server.client().hget("rlfocal:{default}:spent:model", "tokens") == "0", "What it gave back")
        shared.get("x")
        assert (shared.ledger.reserved, shared.store._running) == (Usage(), {})
        admitted(shared, Usage(1, 100), total=1)


# ---- caps and rates


def test_four_processes_keep_a_cap_together(workers, notes):
    """Three at once of all, in whichever process: never four, and three where more would."""
    all_do(workers(max_concurrent_calls=3, takes_s=0.05), "ask", 6, 3)
    begun, ended = spells_of(notes)
    changes = sorted([(at, 1) for at in begun] + [(at, -1) for at in ended])
    running = list(itertools.accumulate(step for _, step in changes))
    assert (len(begun), max(running), running[-1]) == (24, 3, 0)


def test_four_processes_keep_a_members_rate_together(workers, notes):
    """1200 a minute are one each 50 ms: 32 calls take 31 turns, of which what the first took to begin is not seen."""
    asked = all_do(workers(member={"max_calls_per_minute": 1200}), "ask", 8, 4)
    begun, _ = spells_of(notes)
    assert [made for made, _ in asked] == [8] * 4
    assert 31 * 0.05 - 0.25 < begun[-1] - begun[0] < 31 * 0.05 + 5
    for i, j in itertools.combinations(range(32), 2):
        assert j - i <= (begun[j] - begun[i] + 0.25) / 0.05


def test_four_processes_take_turns_together(workers):
    """In the time from before the first turn was asked for until after the last there is one each 50 ms, and one."""
    taken = sorted(itertools.chain(*all_do(workers(), "take", 1.0, 1200)))
    span_s = max(end_s for _, end_s in taken) - taken[0][0]
    assert 10 <= len(taken) <= span_s / 0.05 + 1


def test_a_turn_after_the_deadline_is_refused_at_once(server):
    with opened(server.shared(), server.shared()) as (one, other):

        def model(shared):
            member = PoolMember("a", ScriptedChatModel(script=lambda _: "yes"), max_calls_per_minute=1)
            return RLFocalChatModel(members=[member], shared_state=shared, deadline_s=5)

        model(one).invoke(QUESTION)
        began_s = time.monotonic()
        with pytest.raises(Exception, match="is after the deadline"):
            model(other).invoke(QUESTION)
        assert time.monotonic() - began_s < 4


@pytest.mark.parametrize("caps", [{"total": 1, "of_member": None}, {"total": None, "of_member": 1}])
def test_slots_go_to_who_asked_first_in_whichever_process(server, caps):
    """One slot: while the first process has it, the second asks, and then the first again; the second is next."""
    with opened(server.shared(), server.shared()) as (one, other):
        order = []

        def ticket(shared, name):
            asked = shared.store.ticket("a", Usage(1), [], **caps, per_minute=None, breaker=None)

            def ask():
                heard = threading.Event()
                asked.ask(heard.set)
                assert heard.wait(GUARD_S)
                leave = asked.take_answer()
                if leave.kind == "ok":
                    order.append(name)
                return leave.kind

            return asked, ask

        held, ask_held = ticket(one, "held")
        _, ask_second = ticket(other, "second")
        third, ask_third = ticket(one, "third")
        assert [ask() for ask in (ask_held, ask_second, ask_third)] == ["ok", "wait", "wait"]
        held.settle(Usage(1), None)
        held.release()
        until(lambda: ask_third() == "wait" and ask_second() == "ok", "The second's slot")
        assert order == ["held", "second"]
        third.settle(Usage(), None)
        third.release()


# ---- circuit breakers


def failing(shared, **fields):
    return RLFocalChatModel(
        members={"a": FailingChatModel(error=ConnectionError("down"))},
        shared_state=shared,
        max_retries=0,
        breaker_failures=2,
        **fields,
    )


def test_a_breaker_that_one_process_opens_is_open_in_all_and_is_closed_in_all(workers):
    first, second = workers(2, breaker_failures=2, breaker_recovery_s=GUARD_S)
    first.do("fail", "down")
    for _ in range(2):
        first.do("ask", 1)
    until(lambda: second.do("breakers") == {"a": "open"}, "The other's breaker")
    made, error = second.do("ask", 1)
    assert (made, "circuit breaker open" in error) == (0, True)


def test_who_has_not_heard_of_an_open_breaker_asks_nobody(server):
    """The second process's first call is refused by the server, before any beat."""
    with opened(server.shared(), server.shared()) as (one, other):
        model = failing(one)
        for _ in range(2):
            with pytest.raises(Exception, match="down"):
                model.invoke(QUESTION)
        one.get("x")  # by now the server has heard of both
        with pytest.raises(Exception, match=r"[Cc]ircuit breaker open"):
            saying(other).invoke(QUESTION)
        other.reset_breakers()
        until(lambda: model.breakers == {}, "The first's breaker")
        assert saying(other).invoke(QUESTION).text == "yes"


def test_of_calls_that_fail_side_by_side_in_two_processes_one_counts(server):
    """Two failures in a row open the breaker: the third call's does, which began when the first had been heard of."""
    with opened(server.shared(), server.shared()) as (one, other):
        config = {"breaker": BreakerConfig(failures=2)}
        side_by_side = [admitted(shared, Usage(1), **config) for shared in (one, other)]
        for shared, ticket in zip((one, other), side_by_side, strict=True):
            end(ticket, "failed")
            shared.get("x")
        end(admitted(one, Usage(1), **config), "failed")
        assert leave_of(ticket_of(one, Usage(1), **config)) == "open"


def test_a_probe_that_was_stopped_leaves_its_place_to_another(server):
    with opened(server.shared()) as (shared,):
        config = {"breaker": BreakerConfig(failures=1, recovery_s=0.05)}
        end(admitted(shared, Usage(1), **config), "failed")
        assert leave_of(ticket_of(shared, Usage(1), **config)) == "open"
        time.sleep(0.1)
        probe = admitted(shared, Usage(1), **config)
        assert leave_of(ticket_of(shared, Usage(1), **config)) == "open"
        end(probe, None)
        end(admitted(shared, Usage(1), **config), "answered")
        admitted(shared, Usage(1), **config)


def test_of_all_processes_one_call_probes(workers, notes):
    """The breaker opens for 0.3 s by two failures; then each of four would ask, and one does, whose answer closes it."""
    four = workers(breaker_failures=2, breaker_recovery_s=0.3, takes_s=0.3)
    four[0].do("fail", "down")
    for _ in range(2):
        four[0].do("ask", 1)
    four[0].do("fail", None)
    time.sleep(0.35)
    asked = all_do(four, "ask", 1)
    begun, _ = spells_of(notes)
    assert (len(begun), sorted(made for made, _ in asked)) == (3, [0, 0, 0, 1])
    until(lambda: all_do(four, "breakers") == [{}] * 4, "All breakers")
    assert [made for made, _ in all_do(four, "ask", 1)] == [1] * 4


# ---- processes


def test_a_pickled_model_connects_again_and_a_fork_is_a_process_of_its_own(workers, server):
    [worker] = workers(1, budget=Budget(max_calls=4))
    assert worker.do("ask", 1)[0] == 1
    assert worker.do("ask_in_fork") == 2
    until(lambda: worker.do("spent") == 3, "What the fork has spent")
    model = saying(server.url(), budget=Budget(max_calls=4))
    with opened(model.shared_state):
        shared = pickle.loads(pickle.dumps(model.shared_state))
        assert shared is model.shared_state is SharedState.at(server.url())
        assert model.invoke(QUESTION).text == "yes"
        with pytest.raises(BudgetError):
            model.invoke(QUESTION)


def test_who_leaves_is_no_worker_any_more(server):
    with opened(server.shared(), server.shared()) as (one, other):
        for shared in (one, other):
            shared.get("x")
        until(lambda: one.status.workers == 2, "The other")
        other.close()
        until(lambda: one.status.workers == 1, "The other's leave")
        assert saying(other, budget=Budget(max_calls=2)).invoke(QUESTION).text == "yes"


def test_small_values_are_found_by_other_processes_until_their_time_is_over(server):
    with opened(server.shared(), server.shared()) as (one, other):
        one.put("k", b"\x00v", 0.2)
        assert other.get("k") == b"\x00v"
        until(lambda: other.get("k") is None, "The end of its time")


def test_controllers_of_targets_go_on_from_what_all_have_counted(server):
    """Two processes each count one query of 3 calls where 2 may be taken: both are behind by 2."""
    with opened(server.shared(), server.shared()) as states:
        controllers = []
        for shared in states:
            controller = TargetController(2.0)
            shared.controllers._controllers["policy", Target("target_calls", 2.0), frozenset("ab")] = controller
            controller.end(3.0, expected=2.0, counted=controller.begin(2.0))
            controllers.append(controller)
            shared.get("x")
        until(lambda: all(math.isclose(one._balance, -2.0) for one in controllers), "Each other's queries")
        assert [one._count for one in controllers] == [2, 2]
        kept = 1 - 1 / 1000
        assert controllers[0]._taken == pytest.approx(20 + 3 * kept + 3, rel=1e-6)


def test_what_a_controller_counted_counts_once_though_the_answer_was_lost(server):
    """The server hangs, adds what it was told when it goes on, and is told again."""
    with opened(server.shared(timeout_s=0.1)) as (shared,):
        controller = TargetController(2.0)
        shared.controllers._controllers["policy", Target("target_calls", 2.0), frozenset("ab")] = controller
        until(lambda: server.client().keys("*:controller:*"), "The controller")
        [key] = server.client().keys("*:controller:*")
        server.pause()
        controller.end(3.0, expected=2.0, counted=controller.begin(2.0))
        until(lambda: shared.status.is_lost, "The loss")
        controller.end(3.0, expected=2.0, counted=controller.begin(2.0))
        server.go_on()
        until(lambda: server.client().hget(key, "queries") == "2", "Both queries")
        assert float(server.client().hget(key, "balance")) == pytest.approx(-2.0)
        until(lambda: math.isclose(controller._balance, -2.0), "The same here")
        assert controller._count == 2


# ---- threads and forks


@pytest.mark.parametrize("index", [0, 1])
def test_a_fork_does_not_wait_for_who_waits_for_it(server, index):
    """While the thread of one of two stores tells what was answered, which takes the ledgers' lock, the process forks."""
    with opened(server.shared(), server.shared()) as states:
        applying = states[index].store._applying
        is_telling, has_told = threading.Event(), threading.Event()

        def tell():
            with applying:
                is_telling.set()
                time.sleep(0.1)  # by now who forks has taken what it can
                if budgets.lock.acquire(timeout=GUARD_S / 4):
                    budgets.lock.release()
                    has_told.set()

        teller = threading.Thread(target=tell)
        teller.start()
        is_telling.wait()
        store_module._before_fork()
        store_module._after_fork(in_child=False)
        teller.join()
        assert has_told.is_set()


# ---- event loops


async def test_nothing_blocks_an_event_loop_whether_the_server_answers_hangs_or_is_gone(server):
    with opened(server.shared(timeout_s=0.1)) as (shared,):
        model = saying(shared, budget=Budget(max_calls=100), max_concurrent_calls=2)
        await model.ainvoke(QUESTION)  # what is loaded first is not the store's

        async def ask():
            await asyncio.gather(*(model.ainvoke(QUESTION) for _ in range(5)))
            await shared.atake("x", per_minute=6000)
            await shared.aput("k", b"v", 9)
            assert await shared.aget("k") == b"v"

        with blockbuster_ctx():
            await ask()
            server.pause()
            await ask()
            assert shared.status.is_lost
            await ask()
        assert model.spent.calls == 16


# ---- in any order

BUDGET = Budget(max_calls=6, max_tokens=100, max_usd=1.0)


class Books(RuleBasedStateMachine):
    """Two processes ask, settle, give up and set to zero in any order; a model of one sum says what is taken."""

    server = None

    def __init__(self):
        super().__init__()
        name = f"books{next(_numbers)}"
        self.states = [self.server.shared(namespace=name) for _ in range(2)]
        self.key = f"rlfocal:{{{name}}}:spent:model"
        self.running, self.taken = [], Usage()

    def teardown(self):
        for shared in self.states:
            shared.close()

    @rule(who=st.integers(0, 1), tokens=st.integers(0, 60), usd=st.sampled_from([0.0, 0.1, 1 / 3, 0.7]))
    def ask(self, who, tokens, usd):
        store, bound = self.states[who].store, Usage(1, tokens, usd)
        accounts = [(self.states[who].ledger, BUDGET)]
        config = BreakerConfig()
        ticket = store.ticket("a", bound, accounts, total=None, of_member=None, per_minute=None, breaker=config)
        heard = threading.Event()
        ticket.ask(heard.set)
        assert heard.wait(GUARD_S)
        together = self.taken + bound
        fits = together.calls <= 6 and together.tokens <= 100 and together.usd <= 1 + 1e-9
        assert ticket.take_answer().kind == ("ok" if fits else "budget")
        if fits:
            self.taken = together
            self.running.append((ticket, self.taken))

    @rule(index=st.integers(0, 9), share=st.sampled_from([0.0, 0.5, 1.0]), says=st.sampled_from(["answered", None]))
    def settle(self, index, share, says):
        if self.running:
            ticket, _ = self.running.pop(index % len(self.running))
            bound = ticket.bound
            actual = Usage(1, int(bound.tokens * share), bound.usd * share)
            ticket.settle(actual, says)
            ticket.release()
            self.taken += Usage(0, actual.tokens - bound.tokens, actual.usd - bound.usd)
            self.heard(ticket)

    @rule(index=st.integers(0, 9))
    def give_up(self, index):
        if self.running:
            ticket, _ = self.running.pop(index % len(self.running))
            ticket.settle(Usage(), None)
            ticket.release()
            bound = ticket.bound
            self.taken += Usage(-bound.calls, -bound.tokens, -bound.usd)
            self.heard(ticket)

    def heard(self, ticket):
        """Wait until the server has: the same connection answers in order."""
        for shared in self.states:
            shared.get("x")

    @invariant()
    def the_server_has_the_sum_and_it_is_within_the_budget(self):
        found = self.server.client().hgetall(self.key)
        calls, tokens, usd = (float(found.get(limit, 0)) for limit in ("calls", "tokens", "usd"))
        assert (calls, tokens) == (self.taken.calls, self.taken.tokens)
        assert usd == pytest.approx(self.taken.usd, abs=1e-9)
        assert calls <= 6
        assert tokens <= 100
        assert usd <= 1 + 1e-8


_numbers = itertools.count()


def test_sums_are_never_over_the_budget_in_any_order(server):
    Books.server = server
    run_state_machine_as_test(
        Books,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
