"""Deadlines: an answer is there in time, made of what has arrived, and what is still under way is ended."""

import asyncio
import logging
import subprocess
import sys
import threading
from contextlib import aclosing, closing

import pytest
from langchain_core.exceptions import ModelTimeoutError
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import DeadlineError, EnsembleError
from langchain_rlfocal.execution import drivers
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy
from support_time import QUESTION, Play, ensemble, in_virtual_time, is_clear, play, thread_time, timed

# ---- what has arrived


def test_at_the_deadline_what_has_arrived_is_the_answer(way):
    """1, 2 and 9 s with a deadline of 5 s: two answers, at exactly 5 s; the third is cancelled and its run closed."""
    collector = RunCollectorCallbackHandler()
    slow = timed((9, "no"))
    members = {"a": timed((1, "yes")), "b": timed((2, "yes")), "c": slow}
    answer = play(way, ensemble(members, deadline_s=5, early_commit=False), config={"callbacks": [collector]})
    assert answer.message.text == "yes"
    assert answer.took_s == 5
    assert answer.answered == ["a", "b"]
    assert answer.kinds == {"c": "deadline"}
    assert answer.how["failures"][0]["latency_s"] == 5
    assert slow.hows[-1] == ("cancelled" if way == "ainvoke" else "answered")  # by now its thread has ended too
    [run] = collector.traced_runs
    if way == "ainvoke":
        assert len(run.child_runs) == 3
        assert all(child.end_time is not None for child in run.child_runs)


def test_a_call_may_have_a_deadline_of_its_own(way):
    answer = play(way, ensemble({"a": timed((1, "yes")), "b": timed((9, "no"))}, deadline_s=100), deadline_s=2.5)
    assert (answer.message.text, answer.took_s) == ("yes", 2.5)


@pytest.mark.parametrize(("arriving", "needed"), [(0, 1), (1, 2), (2, 3)])
def test_too_few_at_the_deadline_are_an_error_that_names_all(way, arriving, needed):
    members = {name: timed((1 if number < arriving else 9, "yes")) for number, name in enumerate("abc")}
    answer = play(way, ensemble(members, deadline_s=3, min_candidates=needed, early_commit=False))
    error = answer.error
    assert isinstance(error, DeadlineError)
    assert isinstance(error, EnsembleError)
    assert isinstance(error, TimeoutError)
    assert isinstance(error, ModelTimeoutError)
    assert sorted(error.failures) == list("abc")[arriving:]
    assert all(reason.startswith("deadline") for reason in error.failures.values())
    assert "deadline_s" in str(error)
    assert error.is_retryable
    assert answer.took_s == 3


def test_as_many_as_are_needed_are_enough(way):
    members = {"a": timed((1, "yes")), "b": timed((2, "yes")), "c": timed((9, "yes"))}
    answer = play(way, ensemble(members, deadline_s=3, min_candidates=2, early_commit=False))
    assert answer.answered == ["a", "b"]


def test_without_a_deadline_min_candidates_asks_for_nothing(way):
    members = {"a": timed((1, "yes")), "b": timed((1, ValueError("bug")))}
    assert play(way, ensemble(members, min_candidates=2)).message.text == "yes"


def test_after_the_deadline_nobody_else_is_asked(way):
    """Round 1 ends by the deadline: neither round 2 nor the synthesizer begins, though two answers differ."""
    later, writer = timed((0, "yes")), timed((0, "yes"))
    members = {"a": timed((1, "yes")), "b": timed((2, "no")), "c": timed((9, "no")), "d": later}
    policy = ScriptedPolicy([["a", "b", "c"], ["d"]], tuple(members))
    answer = play(
        way,
        ensemble(members, policy=policy, max_rounds=2, deadline_s=4, synthesizer=writer, synthesize_below=1.0),
    )
    assert answer.message.text == "yes"
    assert answer.took_s == 4
    assert (later.log, writer.log) == ([], [])
    assert len(answer.how["rounds"]) == 1


def test_a_synthesizer_has_what_is_left_of_the_time(way):
    """Answers at 2 s, deadline 4 s: the synthesizer is cut off at 4 s, and Fusion's own answer stays."""
    writer = timed((9, "maybe"))
    members = {"a": timed((1, "yes")), "b": timed((2, "no"))}
    answer = play(way, ensemble(members, deadline_s=4, synthesizer=writer, synthesize_below=1.0))
    assert (answer.message.text, answer.took_s, writer.begun_s) == ("yes", 4, [2])


def test_waiting_for_a_place_counts_towards_the_deadline(way):
    """2 s each, one at a time: by 3 s one has answered, one is at work, and one has never begun."""
    never = timed((2, "yes"))
    members = {"a": timed((2, "yes")), "b": timed((2, "yes")), "c": never}
    answer = play(way, ensemble(members, deadline_s=3, max_concurrent_calls=1, early_commit=False))
    assert answer.took_s == 3
    assert answer.kinds == {"b": "deadline", "c": "deadline"}
    if way == "ainvoke":
        assert never.log == []
        assert answer.model.spent.calls == 2


# ---- streams


def streamed(member, *, pause_s=0.0, **fields):
    """Read a lone member's stream, pausing after each piece."""

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": member}, **fields)(loop.time)
        texts, error = [], None
        try:
            async for chunk in model.astream(QUESTION):
                texts.append(chunk.text)
                if chunk.text:
                    await asyncio.sleep(pause_s)
        except EnsembleError as raised:
            error = raised
        assert is_clear(model)
        return Play(model, "".join(texts), error, loop.time())

    return in_virtual_time(main())


def test_a_stream_without_a_word_ends_at_the_deadline():
    answer = streamed(timed((9, [(1, "yes")])), deadline_s=3)
    assert isinstance(answer.error, DeadlineError)
    assert (answer.message, answer.took_s) == ("", 3)


def test_a_stream_that_breaks_off_at_the_deadline_says_so():
    answer = streamed(timed((1, [(0, "yes "), (9, "and no")])), deadline_s=3)
    assert isinstance(answer.error, DeadlineError)
    assert "broke off" in str(answer.error)
    assert (answer.message, answer.took_s) == ("yes ", 3)


@pytest.mark.parametrize("limit", ["deadline_s", "timeout", "member_timeout_s"])
def test_a_readers_pauses_do_not_count(limit):
    """Pieces at 1, 2 and 3 s of the member's time, each read for 10 s, with a limit of 4 s.

    The second piece is made while the first is read, and so on: after 1 + 10 + 10 + 10 s all is read.
    """
    answer = streamed(timed((1, [(0, "a "), (1, "b "), (1, "c")])), pause_s=10, **{limit: 4})
    assert answer.error is None
    assert answer.message == "a b c"
    assert 31 <= answer.took_s <= 33


@pytest.mark.parametrize("limit", ["deadline_s", "timeout", "member_timeout_s"])
def test_a_limit_is_put_off_by_just_the_readers_pauses(limit):
    """Pieces at 1, 3¾ and 4¾ s, two pauses of ½ s before the last: 3¾ s count of the 4 s; then it is read for ½ s."""
    answer = streamed(timed((1, [(0, "a "), (2.75, "b "), (1, "c")])), pause_s=0.5, **{limit: 4})
    assert (answer.error, answer.message, answer.took_s) == (None, "a b c", 5.25)


def test_threads_streams_end_at_the_deadline_and_pauses_do_not_count():
    with thread_time() as time:
        model = ensemble({"a": timed((1, [(0, "a "), (1, "b "), (9, "c")]))}, deadline_s=4)(time)
        texts = []

        def read():
            with closing(model.stream(QUESTION)) as stream:
                for chunk in stream:
                    texts.append(chunk.text)
                    time.now += 10  # reading takes its time

        with pytest.raises(DeadlineError, match="broke off"):
            read()
        assert texts == ["a ", "b "]
        assert time() == 4 + 2 * 10


# ---- members that do not end


def test_a_member_that_ignores_its_cancellation_holds_nobody_up(caplog):
    """Cancelled at 2 s, and once more at 3 s: then it is left, kept and logged; its place is taken until it ends."""
    stubborn = timed((100, "no"), stubborn_s=50)

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": timed((1, "yes")), "b": stubborn}, deadline_s=2, early_commit=False)(loop.time)
        with caplog.at_level(logging.WARNING, drivers.__name__):
            message = await model.ainvoke(QUESTION)
        assert message.text == "yes"
        assert loop.time() == 2 + drivers.CANCEL_GRACE_S + drivers.LAST_GRACE_S
        assert "rlfocal:b" in caplog.text
        [left] = drivers._stragglers
        assert model.shared_state.limiter.running == {"b": 1}
        await asyncio.wait([left])
        assert loop.time() == 2 + 50
        await asyncio.sleep(0)
        assert (drivers._stragglers, model.shared_state.limiter.running) == (set(), {})

    in_virtual_time(main())


def test_a_cancellation_that_gets_lost_is_said_again(caplog):
    """At 2 s the wait for the second piece ends as if it had come; the wait for the third is cancelled at 3 s."""
    member = timed((0, [(1, "n"), (50, "o"), (50, "!")]), num_lost=1)
    answer = play("ainvoke", ensemble({"a": timed((1, "yes")), "b": member}, deadline_s=2, early_commit=False))
    assert (answer.message.text, answer.took_s) == ("yes", 2 + drivers.CANCEL_GRACE_S)
    assert [(spell.how, spell.ended_s) for spell in member.log] == [("cancelled", 2 + drivers.CANCEL_GRACE_S)]
    assert not caplog.records


def test_a_cancellation_that_gets_lost_within_a_stream_is_seen_at_its_next_piece():
    """The reader leaves at 1 s, within the wait for the second piece, which ends as if that had come."""
    member = timed((0, [(1, "a "), (50, "b "), (50, "c")]), num_lost=1)

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": member})(loop.time)
        async with aclosing(model.astream(QUESTION)) as stream:
            assert (await anext(stream)).text == "a "
        assert loop.time() == 1
        assert is_clear(model)

    in_virtual_time(main())
    assert member.hows == ["cancelled"]


def test_a_member_that_cancels_itself_and_goes_on_is_streamed():
    """As time-outs are written that do not call `uncancel`: a task's count of cancellations says nothing of who made them."""

    async def cancel_and_catch():
        asyncio.current_task().cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(1)

    async def main():
        member = ScriptedChatModel(script=["one two"], on_acall=cancel_and_catch)
        model = RLFocalChatModel(members={"a": member}, max_team=1)
        return "".join([chunk.text async for chunk in model.astream(QUESTION)])

    assert asyncio.run(main()) == "one two"


def test_a_thread_that_does_not_return_keeps_its_place_until_it_does():
    with thread_time() as time:
        model = ensemble({"a": timed((1, "yes")), "b": timed((100, "no"))}, deadline_s=2, early_commit=False)(time)
        assert model.invoke(QUESTION).text == "yes"
        assert time() == 2
        assert model.shared_state.limiter.running == {"b": 1}
        [thread] = time.threads
        assert thread.daemon
        time.release()
        assert model.shared_state.limiter.running == {}


def test_a_program_can_end_while_a_member_never_returns():
    program = """
import threading
from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedChatModel
never = ScriptedChatModel(script=["no"], on_call=threading.Event().wait)
model = RLFocalChatModel(members={"a": ScriptedChatModel(script=["yes"]), "b": never}, deadline_s=2)
print(model.invoke("Is it so?").text)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.returncode) == ("yes\n", 0), ended.stderr


async def test_who_cancels_an_answer_leaves_nothing_behind():
    member = timed((100, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": member})(loop.time)
        asking = asyncio.create_task(model.ainvoke(QUESTION))
        await asyncio.sleep(1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert is_clear(model)

    await asyncio.to_thread(in_virtual_time, main())
    assert member.hows == ["cancelled"]


def noting(answered):
    """A member that answers after 1 s, and notes that it does."""

    async def note():
        await asyncio.sleep(1)
        answered.append(1)

    return ScriptedChatModel(script=["yes"], on_acall=note)


def test_what_has_arrived_counts_even_if_it_is_heard_of_after_the_deadline():
    """Both answer at 1 s; whoever hears of it does so at 11 s, beyond the deadline of 5 s, one after the other."""
    answered = []

    async def main():
        loop = asyncio.get_running_loop()
        members = {name: noting(answered) for name in "ab"}
        model = ensemble(members, deadline_s=5, early_commit=False)(lambda: loop.time() + 10 * (len(answered) == 2))
        message = await model.ainvoke(QUESTION)
        return [candidate["member"] for candidate in message.response_metadata["rlfocal"]["candidates"]]

    assert in_virtual_time(main()) == ["a", "b"]


def test_an_answer_heard_of_late_is_too_few_where_two_are_wanted():
    """It comes at 1 s and is heard of at 11 s, beyond the deadline of 5 s: nobody failed, and there is no second round."""
    answered = []

    async def main():
        loop = asyncio.get_running_loop()
        members = {"a": noting(answered), "b": ScriptedChatModel(script=["yes"])}
        policy = ScriptedPolicy([["a"], ["b"]], tuple(members))
        make = ensemble(members, policy=policy, max_rounds=2, deadline_s=5, min_candidates=2)
        with pytest.raises(DeadlineError, match="At least 2 members"):
            await make(lambda: loop.time() + 10 * len(answered)).ainvoke(QUESTION)

    in_virtual_time(main())


def test_in_threads_too_what_has_arrived_counts_even_if_it_is_heard_of_late():
    """Both answer at once; the clock passes the deadline while the first is taken in, and the second lies there already."""
    now = [0.0]
    both = threading.Barrier(2)

    def slow_to_hear(_):
        both.wait(30)
        return "yes"

    def next_of(events, wait_s):
        event = events.get(timeout=30)
        if event.what is not None:
            while running := [t for t in threading.enumerate() if t.name.startswith("rlfocal:")]:
                running[0].join(30)
            now[0] = 9.0
        return event

    members = {name: ScriptedChatModel(script=slow_to_hear) for name in "ab"}
    model = ensemble(members, deadline_s=5, early_commit=False)(lambda: now[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drivers, "_next_of", next_of)
        message = model.invoke(QUESTION)
    assert [candidate["member"] for candidate in message.response_metadata["rlfocal"]["candidates"]] == ["a", "b"]


def test_a_member_cancelled_before_its_first_step_gives_its_place_back():
    """Both answers and the third's place come in the same moment, so that it is cancelled as soon as it is started."""
    members = {"a": timed((1, "yes")), "b": timed((1, "yes")), "c": timed((1, "yes"))}
    answer = play("ainvoke", ensemble(members, max_concurrent_calls=2))
    assert answer.message.text == "yes"


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_where_the_system_has_no_thread_left_that_is_the_members_failure(door, monkeypatch):
    """A thread that cannot start gives its place back and says why."""
    member = timed((0, "yes"))

    def start(_):
        raise RuntimeError("can't start new thread")

    with thread_time() as time:
        model = ensemble({"a": member})(time)
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(EnsembleError, match="can't start new thread"):
            model.invoke(QUESTION) if door == "invoke" else list(model.stream(QUESTION))
    assert is_clear(model)
    assert member.log == []


def test_threads_of_an_abandoned_answer_are_told_to_end():
    """The reader of a stream who leaves: the member's thread ends at its next piece."""
    begun = threading.Event()
    member = ScriptedChatModel(script=["yes it is so"], on_call=begun.set)
    model = RLFocalChatModel(members={"a": member}, max_team=1)
    with closing(model.stream(QUESTION)) as stream:
        assert next(stream).text
    assert begun.is_set()
    assert is_clear(model)
