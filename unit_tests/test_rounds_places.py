"""Places of calls that nobody waits for any more: nobody waits for ever behind them. And what never begins costs nothing."""

import asyncio
import threading
import time
from contextlib import closing
from contextvars import copy_context

import pytest

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import DeadlineError, EnsembleError
from langchain_rlfocal.execution import drivers, rounds
from langchain_rlfocal.testing import ScriptedChatModel
from support_time import (
    QUESTION,
    TimedChatModel,
    ensemble,
    in_virtual_time,
    is_clear,
    play,
    thread_time,
    timed,
)

pytestmark = pytest.mark.usefixtures("steady_retries")


# ---- places


@pytest.mark.parametrize("cap", ["of the member", "of all"])
def test_an_attempt_does_not_wait_for_ever_behind_the_one_before_it(way, cap):
    """Cut off at 2 s, its place is held until 3 · 2 = 6 s, when the retry of 2½ s gets it; cancelled, it is free at once."""
    member = timed((1000, "no"), (1, "yes"))
    one = {"max_concurrent_calls": 1}
    members = [PoolMember("a", member, **(one if cap == "of the member" else {}))]
    answer = play(way, ensemble(members, timeout=2, **(one if cap == "of all" else {})))
    assert answer.message.text == "yes"
    assert member.begun_s == ([0, 6] if way == "invoke" else [0, 2.5])


def test_a_healthy_member_does_not_wait_for_ever_behind_a_stuck_one():
    """One call at a time: the other gets the place at 6 s."""
    members = {"a": timed((1000, "no")), "b": timed((1, "yes"))}
    answer = play("invoke", ensemble(members, timeout=2, max_retries=0, max_concurrent_calls=1))
    assert (answer.message.text, answer.took_s) == ("yes", 7)


def test_a_call_that_ends_gives_its_place_back_at_once():
    """Cut off at 2 s, it ends at 4 s."""
    member = timed((4, "no"), (1, "yes"))
    answer = play("invoke", ensemble({"a": member}, timeout=2, max_concurrent_calls=1))
    assert (answer.message.text, member.begun_s) == ("yes", [0, 4])


def test_a_member_that_ignores_its_cancellation_holds_its_place_as_long_as_a_thread():
    """Cut off at 2 s, it holds its place until 6 s, and ends at 52 s. Another answer is told, and gets the place at 6 s.

    Its deadline of 8 s is beyond that, and its next look of its own, at 5 s or 10 s, is not when it is told.
    """
    stuck, other = timed((1000, "no"), stubborn_s=50), timed((1, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        first = ensemble({"a": stuck}, timeout=2, max_retries=0, max_concurrent_calls=1)(loop.time)
        second = ensemble({"b": other}, max_concurrent_calls=1, shared_state=first.shared_state, deadline_s=8)(
            loop.time
        )
        failing = asyncio.create_task(first.ainvoke(QUESTION))
        await asyncio.sleep(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(rounds, "LOOK_S", 1000)
            assert (await second.ainvoke(QUESTION)).text == "yes"
        assert loop.time() == 6 + 1
        with pytest.raises(EnsembleError):
            await failing
        await asyncio.sleep(100)
        assert is_clear(first)

    in_virtual_time(main())


def test_who_was_not_next_in_line_looks_by_itself():
    """As above; the one that was told leaves at 3 s. Who stood behind it looks at 5 s, and gets the place at 6 s."""
    stuck, other = timed((1000, "no"), stubborn_s=50), timed((1, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        first = ensemble({"a": stuck}, timeout=2, max_retries=0, max_concurrent_calls=1)(loop.time)
        second = ensemble({"b": other}, max_concurrent_calls=1, shared_state=first.shared_state)(loop.time)
        failing = asyncio.create_task(first.ainvoke(QUESTION))
        await asyncio.sleep(0)
        leaving, staying = (asyncio.create_task(second.ainvoke(QUESTION)) for _ in range(2))
        await asyncio.sleep(3)
        leaving.cancel()
        assert (await staying).text == "yes"
        assert loop.time() == 6 + 1 > LOOK_S
        await asyncio.wait({failing, leaving})
        await asyncio.sleep(100)
        assert is_clear(first)

    in_virtual_time(main())


def test_a_short_bound_counts_as_the_second_that_a_client_is_given_at_least():
    """Cut off at ¼ s, its client gives up within a second: the place is over at 3 s."""
    member = timed((1000, "no"), (0.125, "yes"))
    answer = play("invoke", ensemble({"a": member}, timeout=0.25, max_concurrent_calls=1))
    assert (answer.message.text, member.begun_s) == ("yes", [0, 3])


def test_without_a_bound_of_time_a_call_that_is_left_keeps_its_place():
    """Two of three agree at 2 s; the third is left to its end, and nothing says when that must have come."""
    members = {"a": timed((1, "yes")), "b": timed((2, "yes")), "c": timed((9, "no"))}
    with thread_time() as time:
        model = ensemble(members)(time)
        assert model.invoke(QUESTION).text == "yes"
        assert (model.shared_state.limiter.running, model.shared_state.limiter.expires_s) == ({"c": 1}, float("inf"))


# ---- what never begins


def test_a_request_that_takes_too_long_to_make_up_is_not_sent(way):
    """Binding the first member's tools takes 3 s of the 2 s that the answer has."""
    now = [0.0]

    class Slow(ScriptedChatModel):
        def bind_tools(self, tools, **kwargs):
            now[0] += 3
            return self.bind(tools=tools)

    def look(at: str) -> str:
        """Look."""
        return at

    members = {name: Slow(script=["yes"]) for name in "abc"}
    model = RLFocalChatModel(members=members, deadline_s=2, max_rounds=1, max_team=3, clock=lambda: now[0])
    bound = model.bind_tools([look])
    with pytest.raises(DeadlineError):
        asyncio.run(bound.ainvoke(QUESTION)) if way == "ainvoke" else bound.invoke(QUESTION)
    assert [member.asked for member in members.values()] == [[], [], []]
    assert (now[0], model.spent.calls, model.breakers) == (3, 0, {})
    assert is_clear(model)


def test_a_place_that_is_heard_of_after_the_deadline_is_not_used():
    """It comes at 1 s, and the loop is busy until 3 s: with a deadline of 2 s nobody is asked, blamed or charged."""
    members = {name: timed((1, "yes")) for name in "ab"}

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble(members, deadline_s=2, max_concurrent_calls=2)(loop.time)
        held = [model.shared_state.limiter.acquire("x", on_granted=lambda: None) for _ in members]
        asking = asyncio.create_task(model.ainvoke(QUESTION))
        await asyncio.sleep(1)
        for place in held:
            place.release()
        loop.now = 3
        with pytest.raises(DeadlineError) as caught:
            await asking
        assert list(caught.value.failures) == ["a", "b"]
        assert ([member.log for member in members.values()], model.spent.calls, model.breakers) == ([[], []], 0, {})
        assert is_clear(model)

    in_virtual_time(main())


def test_a_task_that_gets_its_turn_after_its_time_sends_nothing():
    """Started in time; whoever came before it on the loop took until its time-out of 2 s. The retry is in time."""
    called_s = []

    class Noting(TimedChatModel):
        async def ainvoke(self, *args, **kwargs):
            called_s.append(asyncio.get_running_loop().time())
            return await super().ainvoke(*args, **kwargs)

    member = Noting(script=[(1, "yes")])

    async def main():
        loop = asyncio.get_running_loop()
        create_task = asyncio.create_task

        def busy(*args, **kwargs):
            if kwargs.get("name") == "rlfocal:a":
                patch.undo()
                loop.now += 2
            return create_task(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            model = ensemble({"a": member}, timeout=2)(loop.time)
            patch.setattr(asyncio, "create_task", busy)
            message = await model.ainvoke(QUESTION)
        assert message.text == "yes"
        [turnless] = message.response_metadata["rlfocal"]["candidates"][0]["retries"]
        assert turnless["reason"] == "It had no turn before its time was over."
        assert (called_s, model.spent.calls, model.breakers) == ([2.5], 1, {})
        assert is_clear(model)

    in_virtual_time(main())


def test_a_thread_that_would_start_after_its_time_is_not_started():
    """As above; here the time passes while the thread is made."""
    member = timed((1, "yes"))
    with thread_time() as time, pytest.MonkeyPatch.context() as patch:

        def slow_copy():
            if not member.log and not time.now:
                time.now = 2.0
            return copy_context()

        patch.setattr(drivers, "copy_context", slow_copy)
        model = ensemble({"a": member}, timeout=2)(time)
        assert model.invoke(QUESTION).text == "yes"
        assert (member.begun_s, model.spent.calls, model.breakers) == ([2.5], 1, {})
    assert is_clear(model)


# ---- streams in threads


def test_a_stream_waits_for_no_attempt_that_was_cut_off(monkeypatch):
    """Each attempt is stuck; its thread is waited for by a reader who leaves, and by nobody else."""
    monkeypatch.setattr(drivers, "JOIN_S", 30)
    stuck = threading.Event()
    member = ScriptedChatModel(script=["no"], on_call=stuck.wait)
    model = RLFocalChatModel(members={"a": member}, max_team=1, timeout=0.05, max_retries=1, deadline_s=20)
    began_s = time.perf_counter()
    try:
        with pytest.raises(EnsembleError), closing(model.stream(QUESTION)) as stream:
            list(stream)
        assert time.perf_counter() - began_s < 20
        assert model.spent.calls == 2
    finally:
        stuck.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rlfocal:"):
            thread.join(30)
