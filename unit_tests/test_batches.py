"""Batches: hundreds of queries at once, in order, within the caps, without holding up the loop or keeping anything."""

import asyncio
import gc
import itertools
import threading
import time

import pytest
from blockbuster import BlockingError, blockbuster_ctx

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy
from support_calls import consume

SIZE = 300
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


# ---- within the caps


async def test_hundreds_of_inputs_are_answered_in_their_order_within_both_caps():
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
    await asyncio.gather(model.abatch(inputs_of(30)), *(consume(model.astream(text)) for text in inputs_of(20)))
    assert (a.most, a.total) == (3, SIZE + 50)


async def test_as_many_calls_as_allowed_really_run_at_once():
    """Four meet each time, of 200 in all: with fewer at once nobody would come, and the gauge shows no fifth."""
    gauge = Gauge()
    model = model_of(member("a", gauge, cap=4, meet=asyncio.Barrier(4)))
    await asyncio.wait_for(model.abatch(inputs_of(200)), GUARD_S)
    assert gauge.most == 4


async def test_max_concurrency_limits_queries_and_the_caps_limit_calls():
    """Three queries at once ask two members each: six calls; with a cap of four, four."""
    for cap, most in ((None, 6), (4, 4)):
        gauge = Gauge()
        model = model_of(member("a", gauge), member("b", gauge), max_concurrent_calls=cap)
        answers = await model.abatch(inputs_of(60), {"max_concurrency": 3})
        assert [answer.text for answer in answers] == [f"It is number {i}" for i in range(60)]
        assert gauge.most == most


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


# ---- the loop and memory


async def test_a_batch_never_holds_up_the_event_loop(random_policy):
    """With a trained policy, caps and several rounds; what blocks a loop raises here."""
    members = [member("ann", cap=3), member("bob")]
    model = RLFocalChatModel(members=members, policy=random_policy(("ann", "bob")), max_concurrent_calls=4)
    await model.ainvoke("once, so that what is imported late is there")
    with blockbuster_ctx(), pytest.raises(BlockingError):
        time.sleep(0)  # noqa: ASYNC251  # what would block is seen
    with blockbuster_ctx():
        answers = await model.abatch(inputs_of(100))
        chunks = [chunk async for chunk in model.astream("number 1")]
    assert len(answers) == 100
    assert "".join(chunk.text for chunk in chunks) == "It is number 1"


async def growth_of(work):
    """Objects that are held more after each time that the work is done: the least of three, since a leak grows every time."""
    held = []
    for _ in range(4):
        await work()
        gc.collect()
        held.append(len(gc.get_objects()))
    return min(after - before for before, after in itertools.pairwise(held))


async def test_nothing_is_kept_once_answers_are_dropped_or_streams_are_left():
    """Less than an object for each answer; an answer that is held takes dozens."""
    size = 25
    model = model_of(member("a", cap=5), member("b"), max_concurrent_calls=8)
    held = []

    async def drop():
        await model.abatch(inputs_of(size))

    async def keep():
        held.append(await model.abatch(inputs_of(size)))

    async def leave_early():
        for text in inputs_of(size):
            stream = model.astream(text)
            await anext(stream)
            await stream.aclose()
        await settle()

    for work in (drop, leave_early):
        await work()
        assert await growth_of(work) < size
    assert await growth_of(keep) > 10 * size
