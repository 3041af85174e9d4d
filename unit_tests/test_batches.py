"""Batches: a thousand queries at once, in order, within the caps, without holding up the loop or keeping anything."""

import asyncio
import gc
import itertools
import threading
import tracemalloc

import pytest
from blockbuster import BlockingError, blockbuster_ctx
from langchain_core.rate_limiters import BaseRateLimiter

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy

SIZE = 1_000
GUARD_S = 60
"""Nobody waits so long unless the test fails."""


async def settle():
    """Let what LangChain leaves to the event loop come to its end; nothing may be left then."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.wait_for(asyncio.gather(*rest, return_exceptions=True), GUARD_S)
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Gauge:
    """Counts who is answering at once, and how many there have been at most."""

    def __init__(self):
        self.inside, self.most, self.total, self.guard = 0, 0, 0, threading.Lock()

    def enter(self):
        with self.guard:
            self.inside += 1
            self.total += 1
            self.most = max(self.most, self.inside)

    def leave(self):
        with self.guard:
            self.inside -= 1


class Forgetful(ScriptedChatModel):
    """A double that does not remember what it was asked, which would be its own growth."""

    def _reply(self, *args, **kwargs):
        try:
            return super()._reply(*args, **kwargs)
        finally:
            self.asked.clear()


def repeat(messages):
    return f"It is {messages[-1].text}"


def member(name, *gauges, cap=None, meet=None, **fields):
    """A member that is counted while it answers; where `meet` is given, that many answer at once or nobody ends."""

    async def ahold():
        for gauge in gauges:
            gauge.enter()
        if meet is None:
            await asyncio.sleep(0)
        else:
            await meet.wait()
        for gauge in gauges:
            gauge.leave()

    def hold():
        for gauge in gauges:
            gauge.enter()
        if meet is not None:
            meet.wait(GUARD_S)
        for gauge in gauges:
            gauge.leave()

    fields = {"script": repeat, **fields}
    return PoolMember(name, Forgetful(on_call=hold, on_acall=ahold, **fields), max_concurrent_calls=cap)


def model_of(*members, **fields):
    names = tuple(member.name for member in members)
    return RLFocalChatModel(
        members=members, policy=ScriptedPolicy([names], names), max_team=len(names), max_rounds=1, **fields
    )


def inputs_of(size):
    return [f"number {i}" for i in range(size)]


# ---- a thousand


async def test_a_thousand_inputs_are_answered_in_their_order_within_both_caps():
    """Of eight places `a` may have three: it is seen three times at once, and both no more than eight times."""
    both, a, b = Gauge(), Gauge(), Gauge()
    model = model_of(member("a", both, a, cap=3), member("b", both, b), max_concurrent_calls=8)
    answers = await asyncio.wait_for(model.abatch(inputs_of(SIZE)), GUARD_S)
    assert [answer.text for answer in answers] == [f"It is number {i}" for i in range(SIZE)]
    assert (a.total, b.total) == (SIZE, SIZE)
    assert (a.most, both.inside) == (3, 0)
    assert 3 < both.most <= 8
    assert b.most <= 8
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_as_many_calls_as_allowed_really_run_at_once():
    """Four meet each time, of 200 in all: with fewer at once nobody would come, and the gauge shows no fifth."""
    gauge = Gauge()
    model = model_of(member("a", gauge, cap=4, meet=asyncio.Barrier(4)))
    await asyncio.wait_for(model.abatch(inputs_of(200)), GUARD_S)
    assert gauge.most == 4


async def test_without_caps_a_whole_batch_runs_at_once():
    model = model_of(member("a", meet=asyncio.Barrier(100)))
    assert len(await asyncio.wait_for(model.abatch(inputs_of(100)), GUARD_S)) == 100


async def test_max_concurrency_limits_queries_and_the_caps_limit_calls():
    """Three queries at once ask two members each: six calls; with a cap of four, four."""
    for cap, most in ((None, 6), (4, 4)):
        gauge = Gauge()
        model = model_of(member("a", gauge), member("b", gauge), max_concurrent_calls=cap)
        answers = await model.abatch(inputs_of(60), {"max_concurrency": 3})
        assert [answer.text for answer in answers] == [f"It is number {i}" for i in range(60)]
        assert gauge.most == most


async def test_two_batches_at_once_share_the_models_caps():
    gauge = Gauge()
    model = model_of(member("a", gauge), max_concurrent_calls=3)
    await asyncio.gather(model.abatch(inputs_of(30)), model.abatch(inputs_of(30)))
    assert (gauge.total, gauge.most) == (60, 3)


async def test_streams_hold_to_the_caps_too():
    gauge = Gauge()
    model = model_of(member("a", gauge, cap=2))

    async def read(number):
        return "".join([chunk.text async for chunk in model.astream(f"number {number}")])

    texts = await asyncio.wait_for(asyncio.gather(*(read(i) for i in range(20))), GUARD_S)
    assert texts == [f"It is number {i}" for i in range(20)]
    assert gauge.most == 2


# ---- failures


def fail_on_sevens(messages):
    if messages[-1].text.endswith("7"):
        raise KeyError(messages[-1].text)
    return repeat(messages)


async def test_exceptions_stand_in_the_place_of_their_inputs_and_hold_no_places_of_the_caps():
    model = model_of(member("a", cap=2, script=fail_on_sevens), max_concurrent_calls=2)
    answers = await asyncio.wait_for(model.abatch(inputs_of(100), return_exceptions=True), GUARD_S)
    failed = [i for i, answer in enumerate(answers) if isinstance(answer, EnsembleError)]
    assert failed == list(range(7, 100, 10))
    assert "number 17" in str(answers[17])
    assert all(answers[i].text == f"It is number {i}" for i in range(100) if i not in failed)


async def test_without_return_exceptions_the_first_error_is_raised_and_no_place_is_lost():
    model = model_of(member("a", cap=2, script=fail_on_sevens))
    with pytest.raises(EnsembleError, match="number 7"):
        await asyncio.wait_for(model.abatch(inputs_of(20), {"max_concurrency": 1}), GUARD_S)
    await settle()  # LangChain lets the others go on
    assert len(await asyncio.wait_for(model.abatch(inputs_of(6)), GUARD_S)) == 6


async def test_cancelling_a_batch_ends_every_member_and_frees_every_place():
    begun, never = asyncio.Event(), asyncio.Event()
    hold = [True]

    async def wait():
        begun.set()
        if hold[0]:
            await never.wait()

    leaf = PoolMember("a", Forgetful(script=repeat, on_acall=wait), max_concurrent_calls=3)
    model = model_of(leaf, max_concurrent_calls=3)
    batch = asyncio.create_task(model.abatch(inputs_of(50)))
    await begun.wait()
    batch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await batch
    await settle()
    hold[0] = False
    assert len(await asyncio.wait_for(model.abatch(inputs_of(10)), GUARD_S)) == 10


# ---- other batches


def test_a_batch_in_threads_holds_to_the_caps_and_leaves_no_thread():
    """Two meet each time, of 100 calls; the gauge never shows a third."""
    before = threading.active_count()
    gauge, other = Gauge(), Gauge()
    model = model_of(member("a", gauge, cap=2, meet=threading.Barrier(2)), member("b", other), max_concurrent_calls=5)
    answers = model.batch(inputs_of(100), {"max_concurrency": 10})
    assert [answer.text for answer in answers] == [f"It is number {i}" for i in range(100)]
    assert gauge.most == 2
    assert gauge.total == other.total == 100
    assert threading.active_count() == before


async def test_batches_as_completed_name_the_place_of_each_answer():
    gauge = Gauge()
    model = model_of(member("a", gauge, cap=4))
    answers = [pair async for pair in model.abatch_as_completed(inputs_of(100))]
    assert sorted((i, answer.text) for i, answer in answers) == [(i, f"It is number {i}") for i in range(100)]
    assert gauge.most == 4
    answers = list(model.batch_as_completed(inputs_of(30), {"max_concurrency": 3}))
    assert sorted((i, answer.text) for i, answer in answers) == [(i, f"It is number {i}") for i in range(30)]


# ---- the loop and memory


class Permits(BaseRateLimiter):
    """Counts permits; through the async door it gives way once."""

    def __init__(self):
        self.given = 0

    def acquire(self, *, blocking=True):
        self.given += 1
        return True

    async def aacquire(self, *, blocking=True):
        await asyncio.sleep(0)
        self.given += 1
        return True


async def test_a_batch_never_holds_up_the_event_loop(quiz_policy):
    """With a trained policy, caps, a rate limiter and several rounds; what blocks a loop raises here."""
    members = [member("ann", cap=3), member("bob")]
    model = RLFocalChatModel(
        members=members, policy=quiz_policy, max_concurrent_calls=4, rate_limiter=Permits(), task="quiz/a"
    )
    await model.ainvoke("once, so that what is imported late is there")
    with blockbuster_ctx():
        answers = await model.abatch(inputs_of(100))
        chunks = [chunk async for chunk in model.astream("number 1")]
    assert len(answers) == 100
    assert "".join(chunk.text for chunk in chunks) == "It is number 1"


async def test_what_holds_up_the_event_loop_would_be_seen():
    import time  # noqa: PLC0415

    with blockbuster_ctx(), pytest.raises(BlockingError):
        time.sleep(0)  # noqa: ASYNC251


async def test_the_loop_goes_on_while_a_batch_runs():
    """Another task has its turns between the queries: the batch does not keep the loop for itself."""
    turns = 0

    async def count():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    await model_of(member("a", cap=2)).abatch(inputs_of(100))
    counting.cancel()
    assert turns > 50


async def growth_of(work):
    """Bytes that are held more after each time that the work is done: the least of four, since a leak grows every time.

    What Python and its libraries remember once comes and goes beside it.
    """
    held = []
    for _ in range(5):
        await work()
        gc.collect()
        held.append(tracemalloc.get_traced_memory()[0])
    return min(after - before for before, after in itertools.pairwise(held))


async def test_a_batch_keeps_nothing_once_its_answers_are_dropped():
    """An answer takes some kilobytes while it is held; 100 bytes are the most that may stay of it afterwards."""
    size = 40
    model = model_of(member("a", cap=5), member("b"), max_concurrent_calls=8)
    held = []

    async def drop():
        await model.abatch(inputs_of(size))

    async def keep():
        held.append(await model.abatch(inputs_of(size)))

    await drop()
    tracemalloc.start()
    try:
        dropped = await growth_of(drop)
        kept = await growth_of(keep)
    finally:
        tracemalloc.stop()
    assert dropped < 100 * size
    assert 1_000 * size < kept < 20_000 * size


async def test_streams_left_early_keep_nothing():
    size = 40
    model = model_of(member("a", cap=5))

    async def leave_early():
        for text in inputs_of(size):
            stream = model.astream(text)
            await anext(stream)
            await stream.aclose()
        await settle()

    await leave_early()
    tracemalloc.start()
    try:
        assert await growth_of(leave_early) < 500 * size  # a stream that is kept takes kilobytes
    finally:
        tracemalloc.stop()
