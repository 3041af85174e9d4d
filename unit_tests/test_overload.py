"""Overload: who begins, who waits and who is refused, by sequences worked by hand, without a clock."""

import asyncio
import threading

import pytest

from langchain_rlfocal import OverloadError, RLFocalChatModel
from langchain_rlfocal.execution.limits import (
    BUSY_S,
    FIRST_IN_THREADS,
    MAX_STARTING,
    MIN_IN_THREADS,
    Admission,
    Overloaded,
    RetryBudget,
)
from langchain_rlfocal.testing import ScriptedChatModel
from support_time import QUESTION, in_virtual_time, timed


class Door:
    """Has answers begin, and writes down who was called in from the queue."""

    def __init__(self):
        self.admission, self.called, self.entries = Admission(), [], {}

    def enter(self, name, now_s=0.0, **given):
        self.entries[name] = self.admission.enter(now_s, lambda: self.called.append(name), **given)
        return self.entries[name].is_admitted

    def next_moment(self):
        """Say that what comes now does not come at once with what came before."""
        self.admission._num_arrived = 0

    def begun(self, name, now_s=0.0):
        self.admission.begun(self.entries[name], now_s)

    def ended(self, name, now_s=0.0, delay_s=0.0):
        self.admission.ended(self.entries[name], now_s, delay_s=delay_s)


@pytest.fixture
def door():
    return Door()


def steady_queue(door, num_waiting, pace_s):
    """Fill the queue in one moment, and let 20 of it begin, one each `pace_s`; return the time."""
    for number in range(MAX_STARTING + num_waiting + 20):
        door.enter(number)
    for number in range(MAX_STARTING):
        door.begun(number, 2 * BUSY_S)  # a long turn, so that from now on one begins at a time
    now_s = 2 * BUSY_S
    for number in range(MAX_STARTING, MAX_STARTING + 20):
        now_s += pace_s
        door.begun(number, now_s)
    return now_s


# ---- who begins


DOORS = {
    "four begin at once, and the fifth when one has begun": "+abcd ?e b=e",
    "who has begun holds no place": "+abcd abcd= +efgh efgh= +ijkl",
    "first come, first served, and who leaves the queue is not called": "+abcd ?efg e= a=f b=g",
    "to say twice that one has begun frees one place": "+abcd ?efg a=e a= ~a=",
    "after a long turn one begins at a time, and after a short one four": "+abcd ?efghijkl 2 abcd=e 3.9 e=f 4 f=ghij",
}


@pytest.mark.parametrize("name", DOORS)
def test_who_begins(door, name):
    """`+a` begins at once and `?b` waits; after `a=b` a has begun (`~a`: has ended), which calls b in; numbers are turns."""
    now_s = 0.0
    for step in DOORS[name].split():
        if step[0].isdigit():
            now_s = float(step) * BUSY_S
        elif step[0] in "+?":
            assert [door.enter(each, now_s) for each in step[1:]] == [step[0] == "+"] * len(step[1:])
        else:
            who, _, called = step.partition("=")
            door.called.clear()
            for each in who.removeprefix("~"):
                (door.ended if step[0] == "~" else door.begun)(each, now_s)
            assert "".join(door.called) == called


def test_the_place_of_a_closed_event_loop_goes_to_the_next(door):
    for name in "abcd":
        door.enter(name)
    loop = asyncio.new_event_loop()
    loop.close()
    door.admission.enter(0.0, lambda: loop.call_soon_threadsafe(print))
    door.enter("f")
    door.begun("a")
    assert door.called == ["f"]


# ---- who is refused


def test_a_batch_waits_whatever_its_size(door):
    """Ten thousand at once: nobody is refused, before the pace is known, nor after."""
    now_s = steady_queue(door, 10_000, 1.0)
    assert door.admission.wait_s == pytest.approx(10_000, abs=2)
    for number in range(MAX_STARTING + 20, MAX_STARTING + 10_020):
        door.begun(number, now_s)
    assert len(door.called) == 10_020
    assert door.admission.waiting == 0


def test_who_replaces_one_of_a_batch_is_not_refused_and_who_comes_beyond_is(door):
    """Of 120 that waited 21 have begun: there is room for 21 again, one after the other, though the last waits for 120 s."""
    now_s = steady_queue(door, 100, 1.0)
    assert door.admission.waiting == 99
    for number in range(21):
        door.next_moment()
        assert not door.enter(f"more {number}", now_s)
    door.next_moment()
    with pytest.raises(Overloaded) as refused:
        door.enter("too many", now_s)
    assert refused.value.wait_s == pytest.approx(121, abs=2)


@pytest.mark.parametrize(("left_s", "is_refused"), [(25.0, True), (35.0, False)])
def test_who_would_miss_its_deadline_in_the_queue_is_refused_at_once(door, left_s, is_refused):
    """Twenty-eight before it, one each second."""
    now_s = steady_queue(door, 29, 1.0)
    if is_refused:
        with pytest.raises(Overloaded):
            door.enter("late", now_s, left_s=left_s)
    else:
        assert not door.enter("in time", now_s, left_s=left_s)


def test_once_the_queue_is_empty_the_next_begins_at_once(door):
    now_s = steady_queue(door, 0, 1.0)
    for number in list(door.entries):
        door.begun(number, now_s)
    assert door.enter("next", now_s)
    assert door.admission.wait_s is None


# ---- threads


def test_threads_work_on_so_many_answers_and_one_more_once_as_many_met_no_delay(door):
    """Each that met none adds 1/64: the first makes room for one, the second for no other."""
    for number in range(FIRST_IN_THREADS):
        assert door.enter(number, in_thread=True)
        door.begun(number)
    assert door.enter("task")
    assert not door.enter("next", in_thread=True)
    door.ended(0, 1.0)
    assert door.called == ["next"]
    door.begun("next", 1.0)
    assert door.enter("one more", 1.0, in_thread=True)
    door.begun("one more", 1.0)
    door.ended(1, 1.0)
    assert door.enter("in its place", 1.0, in_thread=True)
    door.begun("in its place", 1.0)
    assert not door.enter("too many", 1.0, in_thread=True)


def test_those_in_flight_together_reduce_the_limit_once_and_never_below_its_floor(door):
    """100 · 0.8 = 80; the next that is late began before that, and counts no more."""
    door.admission._max_in_threads = 100.0
    for number in range(FIRST_IN_THREADS):
        door.enter(number, in_thread=True)
        door.begun(number)
    for number in range(FIRST_IN_THREADS):
        door.ended(number, 1.0, delay_s=1.0)
    assert door.admission._max_in_threads == pytest.approx(80)
    for number in range(20):
        now_s = 2.0 + number
        door.enter(f"late {number}", now_s, in_thread=True)
        door.ended(f"late {number}", now_s + 0.5, delay_s=1.0)
    assert door.admission._max_in_threads == MIN_IN_THREADS


# ---- retries


def test_retries_have_a_floor_and_a_share_of_the_calls():
    """A hundred are saved; then five calls pay for one retry, and a second for ten."""
    budget = RetryBudget()
    assert [budget.withdraw(0.0) for _ in range(101)] == [True] * 100 + [False]
    for _ in range(5):
        budget.deposit()
    assert [budget.withdraw(0.0) for _ in range(2)] == [True, False]
    assert [budget.withdraw(1.0) for _ in range(11)] == [True] * 10 + [False]
    assert [budget.withdraw(1e6) for _ in range(101)] == [True] * 100 + [False]


# ---- as users see it


def crowded(model):
    """Have the model's queue full: one begins each second, and twenty thousand wait."""
    door = Door()
    door.admission = model.shared_state.admission
    now_s = steady_queue(door, 200, 1.0)
    door.admission._largest_burst = 1
    door.admission._num_arrived = 0
    return door, now_s


@pytest.mark.parametrize("is_async", [False, True])
def test_an_answer_that_would_wait_too_long_is_refused_before_anybody_is_asked(is_async):
    member = ScriptedChatModel(script=["yes"])
    model = RLFocalChatModel(members={"a": member, "b": member}, clock=lambda: 30.0)
    crowded(model)
    with pytest.raises(OverloadError, match="More answers are in flight than can be served") as refused:
        asyncio.run(model.ainvoke(QUESTION)) if is_async else model.invoke(QUESTION)
    assert (refused.value.is_retryable, refused.value.retry_after_s) == (True, pytest.approx(201, abs=2))
    assert member.asked == []
    assert model.spent.calls == 0


@pytest.mark.parametrize("door", ["tasks", "threads"])
def test_many_at_once_are_all_answered(door):
    model = RLFocalChatModel(members={"a": ScriptedChatModel(script=["yes"])}, max_rounds=1)
    num = 200 if door == "tasks" else 50
    questions = [f"{QUESTION} {number}" for number in range(num)]
    answers = asyncio.run(model.abatch(questions)) if door == "tasks" else model.batch(questions)
    assert [answer.text for answer in answers] == ["yes"] * num
    admission = model.shared_state.admission
    assert (admission.waiting, admission._num_starting, admission._num_in_threads) == (0, 0, 0)


def test_who_is_cancelled_in_the_queue_leaves_it():
    member = timed((1, "yes"))

    async def main():
        model = RLFocalChatModel(members={"a": member}, clock=asyncio.get_running_loop().time)
        admission = model.shared_state.admission
        holding = [admission.enter(0.0, lambda: None) for _ in range(MAX_STARTING)]
        waiting = [asyncio.create_task(model.ainvoke(QUESTION)) for _ in range(2)]
        await asyncio.sleep(1)
        assert admission.waiting == 2
        waiting[0].cancel()
        await asyncio.wait({waiting[0]})
        assert admission.waiting == 1
        for entry in holding:
            admission.begun(entry, 1.0)
        assert (await waiting[1]).text == "yes"
        assert (admission.waiting, admission._num_starting) == (0, 0)

    in_virtual_time(main())


def test_at_its_deadline_an_answer_waits_no_more():
    async def main():
        loop = asyncio.get_running_loop()
        model = RLFocalChatModel(members={"a": timed((1, "yes"))}, clock=loop.time, deadline_s=3)
        for _ in range(MAX_STARTING):
            model.shared_state.admission.enter(0.0, lambda: None)
        with pytest.raises(TimeoutError):
            await model.ainvoke(QUESTION)
        assert (loop.time(), model.shared_state.admission.waiting) == (3, 0)

    in_virtual_time(main())


def test_who_is_interrupted_in_a_thread_leaves_the_queue(monkeypatch):
    """Ctrl-C while it waits: else it would be admitted later, never end, and hold up all others."""

    def interrupted(*_):
        raise KeyboardInterrupt

    model = RLFocalChatModel(members={"a": ScriptedChatModel(script=["yes"])})
    admission = model.shared_state.admission
    holding = [admission.enter(model.clock(), lambda: None) for _ in range(MAX_STARTING)]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Event, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.invoke(QUESTION)
    assert admission.waiting == 0
    for entry in holding:
        admission.begun(entry, model.clock())
    assert model.invoke(QUESTION).text == "yes"
    assert (admission._num_starting, admission._num_in_threads) == (0, 0)


def test_a_thread_waits_for_its_beginning():
    model = RLFocalChatModel(members={"a": ScriptedChatModel(script=["yes"])})
    admission = model.shared_state.admission
    holding = [admission.enter(model.clock(), lambda: None) for _ in range(MAX_STARTING)]
    answers = []
    thread = threading.Thread(target=lambda: answers.append(model.invoke(QUESTION).text))
    thread.start()
    while not admission.waiting:
        thread.join(0.001)
    assert answers == []
    for entry in holding:
        admission.begun(entry, model.clock())
    thread.join(30)
    assert answers == ["yes"]
