"""Limits: no more calls run than allowed, places go round in order, and every one is given back."""

import asyncio
import copy
import pickle
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution.limits import ConcurrencyLimiter
from support_limits import Desk

GUARD_S = 30


@pytest.fixture
def desk():
    return Desk()


# ---- caps


def test_without_caps_nobody_waits(desk):
    for number in range(7):
        desk.ask(f"a{number}")
    assert desk.limits.running == {"a": 7}
    assert desk.limits.waiting == 0


def test_the_total_binds_over_all_members(desk):
    for name in ("a", "b", "c"):
        desk.ask(name, total=2)
    assert (desk.granted, desk.limits.running, desk.limits.waiting) == (["a", "b"], {"a": 1, "b": 1}, 1)
    desk.leave("a")
    assert (desk.granted, desk.limits.running, desk.limits.waiting) == (["a", "b", "c"], {"b": 1, "c": 1}, 0)


def test_a_members_own_cap_holds_up_nobody_else(desk):
    """The second and third call of `a` stand aside, and `b` gets the second of two places."""
    for name in ("a1", "a2", "a3", "b1"):
        desk.ask(name, total=2, of_member=1)
    assert desk.granted == ["a1", "b1"]
    desk.leave("b1")
    assert desk.granted == ["a1", "b1"]
    desk.leave("a1")
    assert desk.granted == ["a1", "b1", "a2"]


def test_one_count_binds_requests_with_other_caps(desk):
    """A cap of one waits for both that run under a cap of two; one of three does not."""
    desk.ask("a1", total=2)
    desk.ask("a2", total=2)
    desk.ask("b1", total=3)
    desk.ask("b2", total=1)
    desk.leave("a1", "a2")
    assert desk.granted == ["a1", "a2", "b1"]
    desk.leave("b1")
    assert desk.granted == ["a1", "a2", "b1", "b2"]


@pytest.mark.parametrize("caps", [{"total": 0}, {"of_member": 0}, {"total": -1}])
def test_a_cap_under_which_no_call_could_ever_run_is_refused(desk, caps):
    (name,) = caps
    with pytest.raises(InputError, match=f"`{name}` must be at least 1, got .* None for any number"):
        desk.ask("a", **caps)
    assert desk.limits.waiting == 0


# ---- order


def test_one_that_waits_for_the_total_is_not_overtaken_by_a_higher_total(desk):
    """`b` wants to be the only one; were each `c` let in when it comes, `b` would wait for ever.

    Once `b` runs, its cap binds nobody else: `c` comes in under its own.
    """
    desk.ask("a", total=2)
    desk.ask("b", total=1)
    desk.ask("c", total=2)
    desk.ask("d", total=2)
    assert desk.granted == ["a"]
    desk.leave("a")
    assert desk.granted == ["a", "b", "c"]
    desk.leave("b")
    assert desk.granted == ["a", "b", "c", "d"]


def test_one_that_waits_for_the_total_is_not_overtaken_by_one_without_caps(desk):
    desk.ask("a", total=1)
    desk.ask("b", total=1)
    desk.ask("c")
    assert desk.granted == ["a"]


def test_a_higher_cap_of_the_member_does_not_overtake_a_lower(desk):
    desk.ask("a1", of_member=1)
    desk.ask("a2", of_member=1)
    desk.ask("a3", of_member=9)
    assert desk.granted == ["a1"]
    desk.leave("a1")
    assert desk.granted == ["a1", "a2", "a3"]


def test_a_request_withdrawn_lets_those_behind_it_pass_and_never_runs(desk):
    desk.ask("a", total=2)
    desk.ask("b", total=1)
    desk.ask("c", total=2)
    desk.leave("b")
    assert desk.granted == ["a", "c"]
    desk.leave("b", "a", "c")
    assert (desk.granted, desk.limits.running, desk.limits.waiting) == (["a", "c"], {}, 0)


def test_leaving_twice_gives_one_place_back(desk):
    for name in ("a1", "a2", "a3", "a4"):
        desk.ask(name, total=2)
    desk.leave("a1", "a1")
    assert desk.limits.running == {"a": 2}
    assert desk.granted == ["a1", "a2", "a3"]


CAPS = st.none() | st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.sampled_from("abc"), CAPS, CAPS),  # a request: member, total, of_member
    st.integers(0, 40),  # a call leaves, or a request is withdrawn, or one that has left leaves again
)


@given(steps=st.lists(STEPS, max_size=60))
def test_any_order_of_requests_and_leaves_is_fair_and_within_the_caps(steps):
    """After each step, and in the moment of each grant, the rules of the module's docstring hold, one by one."""
    limits, asked, places, waiting, running = ConcurrencyLimiter(), [], [], [], []

    def counted():
        return Counter(asked[number][0] for number in running)

    def stands_aside(number):
        """Waits for its member: by its own cap, or behind an earlier request of the same member."""
        member, _, of_member = asked[number]
        is_first = not any(other < number and asked[other][0] == member for other in waiting)
        return not is_first or (of_member is not None and counted()[member] >= of_member)

    def grant(number):
        assert waiting.count(number) == 1, "granted once, and not after it was withdrawn"
        member, total, of_member = asked[number]
        assert all(stands_aside(other) for other in waiting if other < number), "overtook one that did not stand aside"
        assert not any(other < number and asked[other][0] == member for other in waiting), "overtook its own member's"
        waiting.remove(number)
        running.append(number)
        assert total is None or len(running) <= total
        assert of_member is None or counted()[member] <= of_member
        assert limits.running == counted()

    def leave(number):
        if number in running:
            running.remove(number)
        elif number in waiting:
            waiting.remove(number)
        places[number].leave()

    def check():
        assert limits.running == counted()
        assert limits.waiting == len(waiting)
        able = [number for number in sorted(waiting) if not stands_aside(number)]
        if able:  # the first of them holds up the others, and must itself be held up by the total
            total = asked[able[0]][1]
            assert total is not None, "could run, but waits"
            assert len(running) >= total, "could run, but waits"

    for step in steps:
        if isinstance(step, tuple):
            number = len(asked)
            asked.append(step)
            waiting.append(number)
            member, total, of_member = step
            places.append(
                limits.request(member, on_granted=lambda n=number: grant(n), total=total, of_member=of_member)
            )
        elif places:
            leave(step % len(places))
        check()
    while running:  # whoever waits comes to run, if only each that runs leaves one day
        leave(running[0])
        check()
    assert (waiting, limits.running, limits.waiting) == ([], {}, 0)


# ---- calling back


def test_who_is_called_back_finds_the_lock_free(desk):
    """It may ask and leave itself: here each that gets the place asks for another and gives its own back."""
    limits, seen = desk.limits, []

    def on_granted():
        seen.append((limits._lock._is_owned(), limits.running))
        desk.ask("b", total=1)
        desk.leave("a2")

    desk.ask("a1", total=1)
    desk.places["a2"] = limits.request("a", on_granted=on_granted, total=1)
    desk.leave("a1")
    assert seen == [(False, {"a": 1})]
    assert desk.granted == ["a1", "b"]
    desk.leave("b")
    assert (limits.running, limits.waiting) == ({}, 0)


def raising(error, called):
    def on_granted():
        called.append(error)
        raise error

    return on_granted


def test_the_place_of_a_closed_event_loop_goes_to_the_next_in_line(desk):
    """What a loop raises that nobody runs any more does not reach whoever leaves; more in line than a stack is deep."""
    loop, count = asyncio.new_event_loop(), 2 * sys.getrecursionlimit()
    loop.close()
    desk.ask("a1", total=1)
    gone = [
        desk.limits.request("a", on_granted=lambda: loop.call_soon_threadsafe(print), total=1) for _ in range(count)
    ]
    desk.ask("a2", total=1)
    desk.leave("a1")
    assert desk.granted == ["a1", "a2"]
    for place in gone:
        place.release()
    assert desk.limits.running == {"a": 1}


def test_another_error_passes_through_once_the_next_in_line_has_the_place(desk):
    called = []
    desk.ask("a1", total=1)
    for error in (KeyError("first"), RuntimeError("closed"), KeyError("second")):
        desk.limits.request("a", on_granted=raising(error, called), total=1)
    desk.ask("a2", total=1)
    with pytest.raises(KeyError, match="first"):
        desk.leave("a1")
    assert len(called) == 3
    assert (desk.granted, desk.limits.running) == (["a1", "a2"], {"a": 1})


def test_a_request_whose_own_call_back_raises_holds_no_place(desk):
    with pytest.raises(KeyError):
        desk.limits.request("a", on_granted=raising(KeyError("own"), []))
    assert (desk.limits.running, desk.limits.waiting) == ({}, 0)


def test_a_request_that_ends_in_anothers_error_holds_no_place(desk, monkeypatch):
    """`c` has just come in line, by a thread that has not got round to handing out: the request of `b` does it."""
    limits, called = desk.limits, []

    def on_granted():
        with monkeypatch.context() as patch:
            patch.setattr(limits, "_hand_out", lambda: None)
            limits.request("c", on_granted=raising(KeyError("another's"), called))

    with pytest.raises(KeyError, match="another's"):
        limits.request("b", on_granted=on_granted)
    assert len(called) == 1
    assert (limits.running, limits.waiting) == ({}, 0)


# ---- threads and loops


def test_threads_share_one_count_and_use_all_of_it():
    """Calls of `a` meet in pairs, so both places must be used; the gauge shows that no third comes in."""
    limits, guard, inside, most = ConcurrencyLimiter(), threading.Lock(), Counter(), Counter()
    meeting = threading.Barrier(2)

    def one(member):
        is_granted = threading.Event()
        place = limits.request(member, on_granted=is_granted.set, total=3, of_member=2)
        assert is_granted.wait(GUARD_S)
        with guard:
            inside.update([member, "all"])
            most.update({key: inside[key] - most[key] for key in inside if inside[key] > most[key]})
        if member == "a":
            meeting.wait(GUARD_S)
        with guard:
            inside.subtract([member, "all"])
        place.release()

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, ["a", "b", "c"] * 100, timeout=GUARD_S))
    assert most["a"] == 2
    assert most["all"] <= 3
    assert (limits.running, limits.waiting) == ({}, 0)


def test_a_place_left_by_another_thread_while_its_request_is_called_back_goes_on(desk):
    """`a2` is left between its grant and the end of its call-back, which then raises: one place, given back once."""

    def on_granted():
        other = threading.Thread(target=desk.leave, args=["a2"])
        other.start()
        other.join(GUARD_S)
        raise RuntimeError

    desk.ask("a1", total=1)
    desk.places["a2"] = desk.limits.request("a", on_granted=on_granted, total=1)
    desk.ask("a3", total=1)
    desk.ask("a4", total=1)
    desk.leave("a1")
    assert desk.granted == ["a1", "a3"]
    assert (desk.limits.running, desk.limits.waiting) == ({"a": 1}, 1)


def test_a_thread_and_two_event_loops_share_one_count():
    """The main thread holds the only place; a call in each of two loops waits for it, and they run in turn."""
    limits, order, meeting = ConcurrencyLimiter(), [], threading.Barrier(3)

    async def one(name):
        loop, is_granted = asyncio.get_running_loop(), asyncio.Event()
        place = limits.request(name, on_granted=lambda: loop.call_soon_threadsafe(is_granted.set), total=1)
        meeting.wait(GUARD_S)
        await asyncio.wait_for(is_granted.wait(), GUARD_S)
        order.append(limits.running)
        place.release()

    place = limits.request("main", on_granted=lambda: None, total=1)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(asyncio.run, one(name)) for name in "ab"]
        meeting.wait(GUARD_S)
        assert (order, limits.waiting) == ([], 2)
        place.release()
        for future in futures:
            future.result(GUARD_S)
    assert sorted(order, key=str) == [{"a": 1}, {"b": 1}]


# ---- copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_the_same_object(desk, copied):
    assert copied(desk.limits) is desk.limits


def test_a_pickle_begins_at_zero(desk):
    desk.ask("a")
    other = pickle.loads(pickle.dumps(desk.limits))
    assert (other.running, other.waiting) == ({}, 0)
    other.request("b", on_granted=lambda: None, total=1)
    assert (other.running, desk.limits.running) == ({"b": 1}, {"a": 1})
