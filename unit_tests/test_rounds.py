"""Rounds and their drivers: streams, members that do not end, and events that are heard of late; in virtual time, by hand.

Who is asked, when and how often is in `test_reliability`.
"""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from contextlib import aclosing, closing

import httpx2
import pytest
from langchain_openai import ChatOpenAI

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import DeadlineError, EnsembleError
from langchain_rlfocal.execution import AnswerLimits, BreakerConfig, ExecutionConfig, RoundRequest, Usage, drivers
from langchain_rlfocal.execution.rounds import Event, Round
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy
from support_calls import collect
from support_time import QUESTION, Play, ensemble, in_virtual_time, is_clear, play, thread_time, timed

BUSY = ConnectionError("busy")

pytestmark = pytest.mark.usefixtures("steady_retries")


# ---- what does not multiply


class _Hurried:
    """A clock on which a second passes whenever it is read: no wait is waited for."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.mark.parametrize("max_retries", [0, 2])
async def test_a_members_client_does_not_retry_by_itself(max_retries):
    """OpenAI's client makes 2 retries of its own: 1 + `max_retries` requests, not thrice as many."""
    requests = []

    def fail(request):
        requests.append(request)
        return httpx2.Response(500, json={"error": {"message": "down"}}, headers={"retry-after-ms": "1"})

    client = httpx2.AsyncClient(transport=httpx2.MockTransport(fail))
    member = ChatOpenAI(model="m", api_key="k", base_url="http://x/v1", http_async_client=client)
    model = RLFocalChatModel(members={"a": member}, max_retries=max_retries)
    clocked = model.model_copy()
    clocked.clock = _Hurried()
    with pytest.raises(EnsembleError):
        await clocked.ainvoke(QUESTION)
    await client.aclose()
    assert len(requests) == 1 + max_retries


def test_ensembles_within_ensembles_do_not_multiply_retries():
    """The inner one asks thrice; to the outer one that is one failure, which is not asked again."""
    member = timed((0, BUSY))

    def make(clock):
        inner = RLFocalChatModel(members={"a": member}, clock=clock)
        return RLFocalChatModel(members={"inner": inner}, clock=clock)

    answer = play("ainvoke", make)  # threads within threads share no virtual time
    assert isinstance(answer.error, EnsembleError)
    assert member.begun_s == [0, 0.5, 1.5]
    assert answer.model.spent.calls == 1


# ---- streams


def test_after_a_word_was_passed_on_nobody_is_asked_again():
    member = timed((1, [(0, "ye"), (1, BUSY)]), (0, "no"))
    texts = []

    async def main():
        model = ensemble({"a": member})(asyncio.get_running_loop().time)
        with pytest.raises(EnsembleError, match="broke off"):
            await collect(model.astream(QUESTION), texts)
        assert is_clear(model)

    in_virtual_time(main())
    assert texts == ["ye"]
    assert len(member.log) == 1


def test_before_the_first_word_a_stream_is_begun_again():
    """White space is no word: cut off after it, the stream begins again and is passed on whole."""
    member = timed((1, [(0, " "), (1, BUSY)]), (0, [(0, "ye"), (0, "s")]))

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": member})(loop.time)
        texts = [chunk.text async for chunk in model.astream(QUESTION)]
        return "".join(texts), loop.time()

    assert in_virtual_time(main()) == ("yes", 2.5)


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


@pytest.mark.parametrize(
    ("member", "said"),
    [(timed((9, [(1, "yes")])), ""), (timed((1, [(0, "yes "), (9, "and no")])), "yes ")],
    ids=["without a word", "after some"],
)
def test_a_stream_ends_at_the_deadline_and_says_if_it_breaks_off(member, said):
    answer = streamed(member, deadline_s=3)
    assert isinstance(answer.error, DeadlineError)
    assert ("broke off" in str(answer.error)) == bool(said)
    assert (answer.message, answer.took_s) == (said, 3)


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


# ---- members that do not end


def test_a_member_that_ignores_its_cancellation_holds_nobody_up(caplog):
    """Cancelled at 2 s, and once more at 3 s: then it is left, kept and logged, and no longer counted."""
    stubborn = timed((100, "no"), stubborn_s=50)

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": timed((1, "yes")), "b": stubborn}, deadline_s=2, early_commit=False)(loop.time)
        with caplog.at_level(logging.DEBUG, drivers.__name__):
            message = await model.ainvoke(QUESTION)
        assert message.text == "yes"
        assert loop.time() == 2 + drivers.CANCEL_GRACE_S + drivers.LAST_GRACE_S
        assert "rlfocal:b" in caplog.text
        [left] = drivers._stragglers
        assert is_clear(model)
        await asyncio.wait([left])
        assert loop.time() == 2 + 50
        await asyncio.sleep(0)
        assert (drivers._stragglers, model.shared_state.limiter.running) == (set(), {})

    in_virtual_time(main())


def test_a_cancellation_that_gets_lost_is_said_again(caplog):
    """At 2 s the wait for the second piece ends as if it had come; the wait for the third is cancelled at 3 s."""
    caplog.set_level(logging.DEBUG, drivers.__name__)
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


def test_a_member_that_ignores_its_cancellation_holds_its_slot_for_a_second():
    """Cut off at 2 s, it would go on until 52 s. Another answer, which waits behind it, has the slot at 3 s."""
    stuck, other = timed((1000, "no"), stubborn_s=50), timed((1, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        first = ensemble({"a": stuck}, timeout=2, max_retries=0, max_concurrent_calls=1)(loop.time)
        second = ensemble({"b": other}, max_concurrent_calls=1, shared_state=first.shared_state)(loop.time)
        failing = asyncio.create_task(first.ainvoke(QUESTION))
        await asyncio.sleep(0)
        assert (await second.ainvoke(QUESTION)).text == "yes"
        assert loop.time() == 2 + drivers.CANCEL_GRACE_S + 1
        with pytest.raises(EnsembleError):
            await failing
        await asyncio.sleep(100)
        assert is_clear(first)

    in_virtual_time(main())


def test_a_thread_that_does_not_return_is_left_and_not_counted():
    with thread_time() as time:
        model = ensemble({"a": timed((1, "yes")), "b": timed((100, "no"))}, deadline_s=2, early_commit=False)(time)
        assert model.invoke(QUESTION).text == "yes"
        assert time() == 2
        assert is_clear(model)
        [thread] = time.threads
        assert thread.daemon


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


def test_threads_of_an_abandoned_answer_are_told_to_end():
    """The reader of a stream who leaves: the member's thread ends at its next piece."""
    begun = threading.Event()
    member = ScriptedChatModel(script=["yes it is so"], on_call=begun.set)
    model = RLFocalChatModel(members={"a": member}, max_team=1)
    with closing(model.stream(QUESTION)) as stream:
        assert next(stream).text
    assert begun.is_set()
    assert is_clear(model)


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


# ---- what is heard of late


def test_a_place_that_comes_with_the_deadline_is_given_back_unused():
    """The place is free at 3 s, which is heard together with the deadline: nothing begins, and nothing is booked.

    It would have been the probe of a member that had rested, which another may make now.
    """
    now, granted = [0.0], []
    limits = AnswerLimits(ExecutionConfig(deadline_s=3, max_concurrent_calls=1), clock=lambda: now[0])
    limits.shared.breakers.admit("a", -1.0).fail(-1.0, BreakerConfig(failures=1, recovery_s=1.0))
    other = limits.shared.limiter.acquire("b", on_granted=lambda: None)
    request = RoundRequest(messages=[], round_number=1)
    asking = Round([PoolMember("a", timed((1, "yes")))], request, limits, on_granted=granted.append)
    asking.begin()
    assert granted == []
    other.release()
    now[0] = 3.0
    asking.take(Event(granted[0]))
    asking.catch_up()
    assert (asking.take_starts(), asking.take_stops(), asking.is_over) == ([], [], True)
    assert limits.shared.limiter.running == {}
    assert limits.ledger.spent == limits.ledger.reserved == Usage()
    assert limits.shared.breakers.admit("a", 3.0) is not None


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


def test_the_time_of_an_attempt_begins_when_its_task_does():
    """The loop is busy for 2 s before the task's first step; then the attempt has its 1½ s, and no fault."""
    member = timed((1, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        create_task = asyncio.create_task

        def busy(*args, **kwargs):
            if kwargs.get("name") == "rlfocal:a":
                loop.now += 2
            return create_task(*args, **kwargs)

        with pytest.MonkeyPatch.context() as patch:
            model = ensemble({"a": member}, timeout=1.5)(loop.time)
            patch.setattr(asyncio, "create_task", busy)
            message = await model.ainvoke(QUESTION)
        [candidate] = message.response_metadata["rlfocal"]["candidates"]
        assert (message.text, candidate["latency_s"], candidate["retries"]) == ("yes", 1, [])
        assert (member.begun_s, model.spent.calls, model.breakers) == ([2], 1, {})
        assert is_clear(model)

    in_virtual_time(main())


def test_a_time_out_that_is_noticed_late_is_put_off_once_so_that_what_has_arrived_is_read():
    """The loop is busy from 1 s to 5 s; the answer comes at 1½ s, the time-out is at 2 s, and noticed at 5 s with the answer."""
    member = timed((1.5, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": member}, timeout=2, max_retries=0)(loop.time)
        asking = asyncio.create_task(model.ainvoke(QUESTION))
        await asyncio.sleep(1)
        loop.now = 5.0
        assert (await asking).text == "yes"
        assert model.breakers == {}

    in_virtual_time(main())


def test_a_time_out_is_put_off_once_and_not_without_end():
    """Due at 2 s and noticed at 3 s, it is put off to 4 s; the answer of 100 s is not waited for."""
    member = timed((100, "yes"))

    async def main():
        loop = asyncio.get_running_loop()
        model = ensemble({"a": member}, timeout=2, max_retries=0)(loop.time)
        asking = asyncio.create_task(model.ainvoke(QUESTION))
        await asyncio.sleep(1)
        loop.now = 3.0
        with pytest.raises(EnsembleError, match="No answer within 4 s"):
            await asking
        assert loop.time() == 4

    in_virtual_time(main())
