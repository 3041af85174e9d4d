"""Rounds: who is asked again, when, and for how long anybody is waited for; every number is worked by hand, in virtual time."""

import asyncio
import logging
import subprocess
import sys
import threading
import time
from contextlib import aclosing, closing

import httpx2
import pytest
from langchain_core.exceptions import ModelInvalidRequestError, ModelRateLimitError, ModelTimeoutError
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
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


def asking_wait(seconds):
    error = ModelRateLimitError("slow down")
    error.retry_after = seconds
    return error


# ---- how often and when


def test_a_member_is_asked_again_after_half_a_second_and_after_one(way):
    """Attempts of 2, 2 and 1 s, begun at 0, 2 + ½ and 4½ + 1 s; the answer is there at 6½ s."""
    member = timed((2, BUSY), (2, BUSY), (1, "yes"))
    answer = play(way, ensemble({"a": member}))
    assert answer.message.text == "yes"
    assert member.begun_s == [0, 2.5, 5.5]
    assert answer.took_s == 6.5
    assert answer.model.spent.calls == 3
    [candidate] = answer.how["candidates"]
    assert candidate["latency_s"] == 1
    assert [retry["kind"] for retry in candidate["retries"]] == ["ConnectionError"] * 2


def test_after_max_retries_the_last_failure_counts(way):
    """Begun at 0, ½ and 1½ s, each failing at once; then two members' answers decide."""
    member = timed((0, BUSY))
    answer = play(way, ensemble({"a": member, "b": timed((0, "no")), "c": timed((4, "no"))}, early_commit=False))
    assert member.begun_s == [0, 0.5, 1.5]
    assert answer.kinds == {"a": "ConnectionError"}
    assert len(answer.how["failures"][0]["retries"]) == 2
    assert answer.took_s == 4
    assert answer.model.spent.calls == 5


@pytest.mark.parametrize("error", [ModelInvalidRequestError("bad"), ValueError("bug"), ""], ids=repr)
def test_what_asking_again_does_not_help_is_asked_once(way, error):
    member = timed((1, error))
    answer = play(way, ensemble({"a": member}))
    assert isinstance(answer.error, EnsembleError)
    assert not answer.error.is_retryable
    assert answer.took_s == 1
    assert member.begun_s == [0]


def test_a_call_may_have_other_retries_than_its_model(way):
    member = timed((0, BUSY))
    answer = play(way, ensemble({"a": member}), max_retries=0)
    assert member.begun_s == [0]
    assert answer.error.is_retryable


def test_a_provider_that_asks_for_three_seconds_gets_them(way):
    """Instead of ½ s; of the second retry it asks for less than its 1 s."""
    member = timed((0, asking_wait(3)), (0, asking_wait(0.25)), (0, "yes"))
    answer = play(way, ensemble({"a": member}))
    assert member.begun_s == [0, 3, 4]
    assert answer.took_s == 4


@pytest.mark.parametrize(("wait_s", "begun_s"), [(2.5, [0, 2.5]), (3, [0]), (30, [0])])
def test_nobody_waits_for_a_retry_that_would_come_too_late(way, wait_s, begun_s):
    """With a deadline of 3 s: a failure at 0 s whose retry is due at 3 s or later ends at once."""
    member = timed((0, asking_wait(wait_s)), (0.25, "yes"))
    answer = play(way, ensemble({"a": member}, deadline_s=3))
    assert member.begun_s == begun_s
    assert answer.took_s == begun_s[-1] + (0.25 if len(begun_s) > 1 else 0)


# ---- time of an attempt and of a member


def test_an_attempt_that_takes_too_long_is_cut_off_and_made_again(way):
    """1 s each: cut off at 1 s, again at 1½ s, cut off at 2½ s, again at 3½ s, answered at 4 s."""
    member = timed((10, "no"), (10, "no"), (0.5, "yes"))
    answer = play(way, ensemble({"a": member}, timeout=1))
    assert member.begun_s == [0, 1.5, 3.5]
    assert answer.took_s == 4
    assert answer.message.text == "yes"
    [candidate] = answer.how["candidates"]
    assert [retry["kind"] for retry in candidate["retries"]] == ["timeout"] * 2
    if way == "ainvoke":
        assert member.hows == ["cancelled", "cancelled", "answered"]
        assert [spell.ended_s for spell in member.log] == [1, 2.5, 4]


def test_an_attempts_time_out_does_not_count_against_the_next(way):
    """It fails at ¾ s, within its 1 s; the retry of 1¼ s to 2 s has a second of its own."""
    member = timed((0.75, BUSY), (0.75, "yes"))
    answer = play(way, ensemble({"a": member}, timeout=1))
    assert member.begun_s == [0, 1.25]
    assert (answer.message.text, answer.took_s, answer.model.spent.calls) == ("yes", 2, 2)


def test_a_members_time_bounds_all_its_attempts_and_waits(way):
    """2 s: fails at 1 s, again at 1½ s, cut off at 2 s, whatever is left of the attempt."""
    member = timed((1, BUSY), (10, "no"))
    answer = play(way, ensemble({"a": member, "b": timed((5, "yes"))}, member_timeout_s=2, deadline_s=20))
    assert isinstance(answer.error, EnsembleError)
    assert answer.took_s == 2
    assert member.begun_s == [0, 1.5]
    assert "2 s of a member" in str(answer.error)


def test_a_wait_beyond_the_members_time_is_not_begun(way):
    """Fails at 1½ s; the retry would be due at 2 s, when the member's time is over."""
    member = timed((1.5, BUSY), (0, "yes"))
    answer = play(way, ensemble({"a": member}, member_timeout_s=2))
    assert (answer.took_s, member.begun_s) == (1.5, [0])


# ---- what is seen of it


def test_each_attempt_is_a_run_of_its_own(way):
    collector = RunCollectorCallbackHandler()
    member = timed((0, BUSY), (0, "yes"))
    play(way, ensemble({"a": member}), config={"callbacks": [collector]})
    [ensemble_run] = collector.traced_runs
    runs = ensemble_run.child_runs
    assert [(run.extra["metadata"]["rlfocal_attempt"], run.error is None) for run in runs] == [(1, False), (2, True)]
    assert all(run.end_time is not None for run in runs)


# ---- what does not multiply


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


class _Hurried:
    """A clock on which a second passes whenever it is read: no wait is waited for."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


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


# ---- places


def test_who_waits_to_be_asked_again_holds_no_place(way):
    """One at a time: a fails at 1 s and waits till 1½ s; meanwhile b has the place, from 1 to 3 s, and a after it."""
    a, b = timed((1, BUSY), (1, "yes")), timed((2, "yes"))
    answer = play(way, ensemble({"a": a, "b": b}, max_concurrent_calls=1, early_commit=False))
    assert a.begun_s == [0, 3]
    assert b.begun_s == [1]
    assert answer.took_s == 4


def test_waiting_for_a_place_is_no_latency_and_not_the_members_time(way):
    """2 s each under a cap of one, 3 s for each member: the second begins at 2 s and has till 5 s."""
    members = {name: PoolMember(name, timed((2, "yes"))) for name in "ab"}
    answer = play(way, ensemble(list(members.values()), max_concurrent_calls=1, member_timeout_s=3, early_commit=False))
    assert answer.answered == ["a", "b"]
    assert [candidate["latency_s"] for candidate in answer.how["candidates"]] == [2, 2]
    assert answer.took_s == 4


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


# ---- slots


@pytest.mark.parametrize("cap", ["of the member", "of all"])
def test_an_attempt_does_not_wait_behind_the_one_that_was_cut_off(way, cap):
    """Cut off at 2 s, it is not counted any more; the retry of 2½ s has the slot."""
    member = timed((1000, "no"), (1, "yes"))
    one = {"max_concurrent_calls": 1}
    members = [PoolMember("a", member, **(one if cap == "of the member" else {}))]
    answer = play(way, ensemble(members, timeout=2, **(one if cap == "of all" else {})))
    assert answer.message.text == "yes"
    assert member.begun_s == [0, 2.5]


def test_a_healthy_member_does_not_wait_behind_a_stuck_one(way):
    """One call at a time, of which the first is cut off at 2 s."""
    members = {"a": timed((1000, "no")), "b": timed((1, "yes"))}
    answer = play(way, ensemble(members, timeout=2, max_retries=0, max_concurrent_calls=1))
    assert (answer.message.text, answer.took_s) == ("yes", 3)


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
