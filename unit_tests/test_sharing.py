"""What a round does with what a store says, in virtual time; where a store is; and what a process does without one."""

import asyncio
import builtins
import pickle

import pytest

from langchain_rlfocal import Account, Budget, BudgetError, PoolMember, RLFocalChatModel, SharedState
from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.execution import StoreStatus
from langchain_rlfocal.execution.budgets import BudgetRefusal
from langchain_rlfocal.execution.limits import BreakerConfig, Breakers
from langchain_rlfocal.execution.rounds import part_of
from langchain_rlfocal.execution.store import Leave, StorePlace
from langchain_rlfocal.policies.targets import Controllers, TargetController
from support_ensembles import saying
from support_time import QUESTION, WAYS, ensemble, in_virtual_time, play, timed

YES = ((1, "yes"),)


class FakeTicket:
    """Is answered from a script, at once, and notes what it is told."""

    def __init__(self, script):
        self.script, self.log, self.answer = script, [], None

    def ask(self, on_answer):
        self.log.append("asked")
        self.answer = self.script.pop(0)
        if self.answer is not None:
            on_answer()

    def take_answer(self):
        answer, self.answer = self.answer, None
        return answer

    def settle(self, actual, says):
        self.log.append((actual.calls, says))

    def release(self):
        if self.log[-1] != "released":
            self.log.append("released")


class FakeStore:
    """A store that says to each call, by its member's name, what its script says; `Leave("lost")` is what it is from then on."""

    num_workers, lost_for_s = 4, 0.0

    def __init__(self, **scripts):
        self.scripts, self.tickets, self.is_lost = scripts, [], False

    def ticket(self, key, bound, accounts, **caps):
        script = self.scripts[key]
        self.caps, self.is_lost = caps, any(leave is not None and leave.kind == "lost" for leave in script)
        self.tickets.append(FakeTicket(script))
        return self.tickets[-1]

    @property
    def logs(self):
        return [ticket.log for ticket in self.tickets]


def asking(store, members, **fields):
    """A maker of ensembles that ask a store."""

    def make(clock):
        model = ensemble(members, **fields)(clock)
        model.shared_state.store = store
        return model

    return make


# ---- what a round does with what a store says


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_is_let_through_is_made_and_settled(way):
    store, member = FakeStore(a=[Leave("ok")]), timed(*YES)
    played = play(way, asking(store, {"a": PoolMember("a", member, max_concurrent_calls=3)}, max_concurrent_calls=2))
    assert (played.message.text, member.begun_s) == ("yes", [0])
    assert sorted(map(str, store.logs[0])) == sorted(["asked", "(1, 'answered')", "released"])
    assert store.caps == {"total": 2, "of_member": 3, "per_minute": None, "breaker": BreakerConfig()}


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_is_told_to_wait_asks_again_then(way):
    store, member = FakeStore(a=[Leave("wait", wait_s=2), Leave("wait", wait_s=3), Leave("ok")]), timed(*YES)
    assert play(way, asking(store, {"a": member})).took_s == 6
    assert (member.begun_s, store.logs[0].count("asked"), len(store.tickets)) == ([5], 3, 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_that_is_let_through_early_waits_for_its_turn_itself(way):
    store, member = FakeStore(a=[Leave("ok", wait_s=0.2)]), timed(*YES)
    assert play(way, asking(store, {"a": member})).took_s == 1.2
    assert (member.begun_s, store.logs[0].count("asked")) == ([0.2], 1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("leave", "kind", "words"),
    [
        (Leave("budget", refusal=BudgetRefusal("max_calls", "No room.")), "budget", "No room."),
        (
            Leave("open", wait_s=7, failures=5),
            "breaker_open",
            "Circuit breaker open after 5 consecutive failures; next probe in 7 s.",
        ),
        (
            Leave("open", failures=5),
            "breaker_open",
            "Circuit breaker open after 5 consecutive failures; a probe is running.",
        ),
        (
            Leave("wait", wait_s=1, turn_in_s=40),
            "rate_limit",
            "It may be called 1 times a minute, and its next turn, in 40 s, is after the deadline.",
        ),
    ],
)
def test_what_a_store_refuses_is_the_same_failure_as_of_this_process_and_is_not_retried(way, leave, kind, words):
    store, member = FakeStore(a=[leave], b=[Leave("ok")]), timed(*YES)
    members = {"a": PoolMember("a", member, max_calls_per_minute=1), "b": timed((1, "no"))}
    played = play(way, asking(store, members, deadline_s=9))
    [failure] = played.how["failures"]
    assert (member.begun_s, failure["kind"], failure["reason"], failure["retries"]) == ([], kind, words, [])
    assert store.logs[0] == ["asked", "released", (0, None)]


@pytest.mark.parametrize("way", WAYS)
def test_a_breaker_that_is_open_elsewhere_is_open_here_until_it_lets_a_probe_through(way):
    store = FakeStore(a=[Leave("open", wait_s=7, failures=5)], b=[Leave("ok")])
    played = play(way, asking(store, {"a": timed(*YES), "b": timed(*YES)}))
    state = played.model.shared_state.breakers.state("a", 1.0)
    assert (state.state, state.failures, state.retry_in_s) == ("open", 5, 6)


@pytest.mark.parametrize("way", WAYS)
def test_a_call_whose_store_is_lost_is_made_within_this_processes_part_and_what_it_held_is_given_back(way):
    store, member = FakeStore(a=[Leave("lost")]), timed(*YES)
    played = play(way, asking(store, {"a": PoolMember("a", member, max_calls_per_minute=240)}))
    assert (played.message.text, member.begun_s, played.model.spent.calls) == ("yes", [0], 1)
    assert store.logs == [["asked", "released", (0, None)]]
    assert played.model.shared_state.limiter._turn_s == {"a": 1.0}  # a fourth of 240 a minute is one a second


def test_a_failure_is_said_of_a_member_and_a_retry_has_a_ticket_of_its_own():
    store = FakeStore(a=[Leave("ok"), Leave("ok")])
    play("ainvoke", asking(store, {"a": timed((1, ConnectionError("gone")), *YES)}))
    assert [one for log in store.logs for one in log if isinstance(one, tuple)] == [(1, "failed"), (1, "answered")]


@pytest.mark.parametrize("leave", [None, Leave("wait", wait_s=50), Leave("ok", wait_s=50)])
def test_who_waits_for_a_store_until_the_deadline_gives_back_what_it_may_hold(leave):
    store, member = FakeStore(a=[leave], b=[Leave("ok")]), timed(*YES)
    played = play("ainvoke", asking(store, {"a": member, "b": timed(*YES)}, deadline_s=5, early_commit=False))
    assert (played.kinds, played.took_s, member.begun_s) == ({"a": "deadline"}, 5, [])
    assert store.logs[0] == ["asked", "released", (0, None)]


def test_who_stops_waiting_for_an_answer_gives_back_what_its_calls_may_hold():
    store = FakeStore(a=[None])

    async def main():
        model = asking(store, {"a": timed(*YES)})(asyncio.get_running_loop().time)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await model.ainvoke(QUESTION)

    in_virtual_time(main())
    assert store.logs == [["asked", "released", (0, None)]]


@pytest.mark.parametrize(("cap", "parts", "part"), [(None, 4, None), (9, 4, 2), (3, 4, 1), (9, float("inf"), None)])
def test_a_part_of_a_cap_is_whole_and_at_least_one(cap, parts, part):
    assert part_of(cap, parts) == part


# ---- accounts


@pytest.mark.parametrize("way", WAYS)
async def test_an_account_refuses_what_it_has_no_room_for_and_others_go_on(way):
    model = RLFocalChatModel(members={"a": saying("yes")}, account=Account("ann", Budget(max_calls=1)))

    async def ask(*args, **kwargs):
        return model.invoke(*args, **kwargs) if way == "invoke" else await model.ainvoke(*args, **kwargs)

    await ask(QUESTION)
    with pytest.raises(BudgetError, match="`max_calls` of `account ann` is 1"):
        await ask(QUESTION)
    await ask(QUESTION, account=Account("bob"))
    await ask(QUESTION, account=None)
    shared = model.shared_state
    assert [shared.ledger_for(name).spent.calls for name in ("ann", "bob", "cid")] == [1, 1, 0]
    assert model.spent.calls == 3
    assert pickle.loads(pickle.dumps(shared)).ledger_for("ann").spent == shared.ledger_for("ann").spent


def test_an_account_pays_for_all_calls_of_an_answer():
    """Two members that differ, the judge twice and the synthesizer: whatever an answer spends, its account does."""
    model = RLFocalChatModel(
        members={"a": saying("yes"), "b": saying("no")},
        synthesizer=saying("maybe"),
        synthesize_below=1.0,
        account=Account("ann"),
    )
    message = model.invoke(QUESTION)
    assert model.shared_state.ledger_for("ann").spent == model.spent
    assert model.spent.calls == message.response_metadata["rlfocal"]["spent"]["calls"] == 3


def test_dollars_of_an_account_need_prices():
    with pytest.raises(InputError, match="every member must have prices, without: a"):
        RLFocalChatModel(members={"a": saying("yes")}, account=Account("ann", Budget(max_usd=1.0)))


@pytest.mark.parametrize("bad", [{"name": ""}, {"name": 3}, {"name": "ann", "budget": 3}, {"name": "ann", "keep_s": 0}])
def test_an_account_has_a_name_a_budget_and_a_time(bad):
    with pytest.raises(InputError, match=r"An account's|`keep_s` must be a finite number above 0"):
        Account(**bad)


def test_what_is_no_account_is_refused():
    model = RLFocalChatModel(members={"a": saying("yes")})
    with pytest.raises(InputError, match="`account` must be an `Account`, or None, got 'ann'"):
        model.invoke(QUESTION, account="ann")


# ---- where a store is


def test_a_url_says_where_and_how_and_its_password_is_not_shown():
    place = StorePlace.of("valkeys://me:secret@host:7000/2?namespace=prod&timeout_s=0.5&lease_s=3&workers=4&health=1")
    assert place.url == "rediss://me:secret@host:7000/2?health=1"
    assert place.shown == "valkeys://host:7000/2"
    assert (place.namespace, place.timeout_s, place.lease_s, place.workers) == ("prod", 0.5, 3.0, 4)
    assert "secret" not in repr(place)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("localhost:6379", "must be a URL that begins with redis://"),
        ("http://host", "must be a URL that begins with redis://"),
        ("redis://host:port", "must be one: Port could not be cast"),
        ("redis://host?timeout_s=soon", "must be one: could not convert"),
        ("redis://host?timeout_s=0", "must be above 0"),
        ("redis://host?workers=0", "`workers` at least 1"),
    ],
)
def test_a_url_of_something_else_is_refused(url, words):
    with pytest.raises(InputError, match=words):
        RLFocalChatModel(members={"a": saying("yes")}, shared_state=url)


def test_what_is_no_state_is_refused():
    with pytest.raises(
        InputError, match="`shared_state` must be a `SharedState`, or the URL of a Redis or Valkey server, got int"
    ):
        RLFocalChatModel(members={"a": saying("yes")}, shared_state=3)


def test_without_the_client_the_command_that_installs_it_is_named(monkeypatch):
    real = builtins.__import__

    def absent(name, *args):
        if name == "redis":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingDependencyError, match=r"pip install 'langchain-rlfocal\[redis\]'"):
        SharedState.at("redis://host")


def test_state_of_one_process_says_so():
    model = RLFocalChatModel(members={"a": saying("yes")})
    assert model.shared_state.status == StoreStatus("memory", is_lost=False, lost_for_s=0.0, workers=1)
    told = model.invoke(QUESTION).response_metadata["rlfocal"]["shared_state"]
    assert told == {"kind": "memory", "is_lost": False}


# ---- what follows other processes


def test_breakers_follow_those_of_others_and_close_with_them():
    breakers = Breakers()
    breakers.follow({"a": (5, 30.0)}, 100.0)
    assert breakers.admit("a", 129.0) is None
    probe = breakers.admit("a", 130.0)
    assert probe is not None
    breakers.follow({"a": (5, 0.0)}, 130.1)  # half open there too: the probe goes on
    assert breakers.is_open("a", 130.1)
    breakers.follow({"a": (6, 30.0)}, 131.0)  # somebody's probe has failed
    probe.succeed()
    assert breakers.state("a", 131.0).retry_in_s == 30
    breakers.follow({}, 132.0)
    assert breakers.admit("a", 132.0) is not None


def test_a_breaker_that_opened_here_alone_stays_open_unless_somebody_closes_all_by_hand():
    breakers = Breakers()
    breakers.admit("a", 0.0).fail(0.0, BreakerConfig(failures=1))
    breakers.follow({}, 1.0)
    assert breakers.is_open("a", 1.0)
    breakers.follow({}, 2.0, is_reset=True)
    assert not breakers.is_open("a", 2.0)


def test_what_controllers_count_apart_adds_up_to_what_one_would_have_counted():
    """Ten queries in one controller, or five in each of two that tell each other: the same balance, count and factor."""
    takes = [1.0, 3.0, 2.0, 5.0, 1.0, 1.0, 4.0, 2.0, 2.0, 3.0]
    alone = TargetController(2.0)
    halves = [TargetController(2.0) for _ in range(2)]
    state = [0.0, 0, alone._taken, alone._expected]
    for at, taken in enumerate(takes):
        counted = alone.begin(2.0)
        alone.end(taken, expected=2.0, counted=counted)
        half = halves[at % 2]
        half.end(taken, expected=2.0, counted=half.begin(2.0))
        news = half.take_news()
        state = [
            state[0] + news.balance,
            state[1] + news.queries,
            20 + (state[2] - 20) * 0.999**news.ends + news.taken,
            20 + (state[3] - 20) * 0.999**news.ends + news.expected,
        ]
        for each in halves:
            each.follow(*state)
    for half in halves:
        assert half._count == alone._count == 10
        assert half._taken == pytest.approx(alone._taken)
        assert half._expected == pytest.approx(alone._expected)
        assert half._balance == pytest.approx(alone._balance)


def test_what_was_counted_while_others_are_told_is_told_the_next_time():
    controller = TargetController(2.0)
    controller.end(5.0, expected=2.0, counted=controller.begin(2.0))
    told = controller.take_news()
    controller.begin(2.0)
    controller.follow(told.balance, told.queries, 20 * 0.999 + 5 + 0.02, 20 * 0.999 + 2 + 0.02)
    assert (controller._count, told.queries, told.ends) == (2, 1, 1)
    again = controller.take_news()
    assert (again.queries, again.ends) == (1, 0)
    assert again.balance == pytest.approx(2 - 2 * 25 / 22)  # the factor is (20 + 5) / (20 + 2) by then
    assert Controllers().take_news() == []
