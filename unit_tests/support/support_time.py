"""Time that passes only when nothing else can happen: an event loop, a clock for threads, and members that take their time.

Whoever waits is woken at exactly the second that was asked for, without a second of waiting. A test that would wait for ever
fails.
"""

import asyncio
import math
import queue
import selectors
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.chat_models import ensemble as ensemble_module
from langchain_rlfocal.execution import RetryPolicy, drivers
from langchain_rlfocal.testing.doubles import DoubleChatModel

GUARD_S = 20
"""Nobody waits so long unless the test fails."""

WAYS = ["ainvoke", "invoke"]
QUESTION = "Is it so? Answer yes or no."


# ---- on an event loop


class _Jumping(selectors.DefaultSelector):
    """Lets the clock jump to the next timer instead of waiting for it."""

    loop: "VirtualLoop"

    def select(self, timeout=None):
        if timeout == 0:
            return super().select(0)
        if timeout is None or self.loop.num_in_threads:  # only another thread can bring anything
            events = super().select(GUARD_S)
            assert events, "Everybody waits, and nothing is left to wait for."
            return events
        events = super().select(0)
        if not events:
            self.loop.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual, from 0 s."""

    def __init__(self):
        self.now, self.num_in_threads = 0.0, 0
        selector = _Jumping()
        selector.loop = self
        super().__init__(selector)
        self._clock_resolution = 1e-9  # what is due now is run only where this is above 0

    def time(self):
        return self.now

    def run_in_executor(self, executor, func, *args):
        future = super().run_in_executor(executor, func, *args)
        self.num_in_threads += 1
        future.add_done_callback(self._is_back)
        return future

    def _is_back(self, _):
        self.num_in_threads -= 1


def in_virtual_time(main, *, left=0):
    """Run a coroutine, and see that no more tasks than these are left by it."""

    async def guarded():
        result = await main
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert len(others) == left, others
        return result

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(guarded())


# ---- in threads


class ThreadTime:
    """Seconds that pass once every member's thread sleeps and its ensemble waits; then to whatever is due first."""

    current: ClassVar["ThreadTime | None"] = None

    def __init__(self):
        self.now = 0.0
        self._changed = threading.Condition()
        self._due = {}
        self._others = set(threading.enumerate())

    def __call__(self):
        return self.now

    @property
    def threads(self):
        """The members' threads that still run."""
        return [t for t in threading.enumerate() if t.name.startswith("rlfocal:") and t not in self._others]

    def sleep(self, seconds):
        thread = threading.current_thread()
        with self._changed:
            self._due[thread] = self.now + seconds
            assert self._changed.wait_for(lambda: thread not in self._due, GUARD_S), "Nobody woke a member."

    def next_of(self, events, wait_s):
        """Stand for `drivers._next_of`."""
        own_s = math.inf if wait_s is None else self.now + wait_s
        while True:
            active = [thread for thread in self.threads if thread not in self._due]
            try:
                return events.get_nowait()
            except queue.Empty:
                pass
            if active:
                active[0].join(0.001)
                continue
            if not events.empty():
                continue
            next_s = min([own_s, *self._due.values()])
            assert math.isfinite(next_s), "Everybody waits, and nothing is left to wait for."
            self.now = next_s
            if own_s == next_s:
                return None
            self._wake(next_s)

    def _wake(self, until_s):
        with self._changed:
            self._due = {thread: due_s for thread, due_s in self._due.items() if due_s > until_s}
            self._changed.notify_all()

    def release(self):
        """Let every member come to its end."""
        while still := self.threads:
            self._wake(math.inf)
            still[0].join(0.001)


# ---- members


@dataclass
class Spell:
    """One call of a timed member.

    Attributes:
        begun_s: When it began.
        ended_s: When it ended, None while it runs.
        how: "answered", "failed" or "cancelled".
    """

    begun_s: float
    ended_s: float | None = None
    how: str | None = None


class TimedChatModel(DoubleChatModel):
    """A member that takes the seconds that it is told to, once for each attempt; the last entry holds for all later ones."""

    script: list[tuple[float, Any]]
    """After how many seconds it says what, or raises it; a list of (seconds, piece) is streamed."""

    stubborn_s: float = 0.0
    """For how long it goes on when it is cancelled, however often."""

    num_lost: int = 0
    """How many cancellations get lost, as if what it waited for had come at the same moment."""

    log: list[Spell] = Field(default_factory=list, exclude=True, repr=False)

    @property
    def _llm_type(self):
        return "timed"

    @property
    def begun_s(self):
        return [spell.begun_s for spell in self.log]

    @property
    def hows(self):
        return [spell.how for spell in self.log]

    def _answer(self, messages, stop, kwargs):
        return kwargs["reply"]

    def _result(self, steps, messages, stop, kwargs):
        said = [what for _, what in steps]
        reply = said[0] if len(said) == 1 else "".join(said)
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, stop, {**kwargs, "reply": reply}))])

    def _steps(self):
        """List when what comes of this call."""
        seconds, reply = self.script[min(len(self.log), len(self.script) - 1)]
        return [(seconds, ""), *reply] if isinstance(reply, list) else [(seconds, reply)]

    @contextmanager
    def _noted(self, clock):
        spell = Spell(clock())
        self.log.append(spell)
        try:
            yield
            spell.how = "answered"
        except Exception:
            spell.how = "failed"
            raise
        except BaseException:
            spell.how = "cancelled"
            raise
        finally:
            spell.ended_s = clock()

    def _said(self, what):
        if isinstance(what, BaseException):
            raise what
        return what

    async def _pass(self, seconds):
        """Let time pass; a cancellation ends it at once, is heeded late, or gets lost."""
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if self.num_lost:
                self.num_lost -= 1
                return
            until_s = loop.time() + self.stubborn_s
            while loop.time() < until_s:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(until_s - loop.time())
            raise

    async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
        steps = self._steps()
        with self._noted(asyncio.get_running_loop().time):
            for seconds, what in steps:
                await self._pass(seconds)
                self._said(what)
            return self._result(steps, messages, stop, kwargs)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        time, steps = ThreadTime.current, self._steps()
        with self._noted(time):
            for seconds, what in steps:
                time.sleep(seconds)
                self._said(what)
            return self._result(steps, messages, stop, kwargs)

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        steps = self._steps()
        with self._noted(asyncio.get_running_loop().time):
            for seconds, what in steps:
                await self._pass(seconds)
                yield ChatGenerationChunk(message=AIMessageChunk(content=self._said(what)))

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        time, steps = ThreadTime.current, self._steps()
        with self._noted(time):
            for seconds, what in steps:
                time.sleep(seconds)
                yield ChatGenerationChunk(message=AIMessageChunk(content=self._said(what)))


def timed(*script, **fields):
    """A member by its script, or one that says something at once."""
    return TimedChatModel(script=list(script), **fields)


# ---- answers


@dataclass
class Play:
    """What came of a call of an ensemble.

    Attributes:
        model: The ensemble.
        message: Its answer; None where it raised.
        error: What it raised; None where it answered.
        took_s: How long it took.
    """

    model: RLFocalChatModel
    message: Any
    error: Any
    took_s: float

    @property
    def how(self):
        return self.message.response_metadata["rlfocal"]

    @property
    def kinds(self):
        """Why who failed."""
        return {failure["member"]: failure["kind"] for failure in self.how["failures"]}

    @property
    def answered(self):
        return [candidate["member"] for candidate in self.how["candidates"]]


def is_clear(model):
    """True if an ensemble holds nothing any more: no place, nobody in line, no money."""
    shared = model.shared_state
    return (shared.limiter.running, shared.limiter.waiting, shared.ledger.reserved.calls) == ({}, 0, 0)


def play(way, make, question=QUESTION, /, *, config=None, left=0, **kwargs):
    """Ask an ensemble that `make` makes with a clock, and see that it leaves nothing behind."""
    if way == "ainvoke":
        return in_virtual_time(_aplay(make, question, config, kwargs, is_left=bool(left)), left=left)
    with thread_time() as time:
        model = make(time)
        began_s = time()
        message = error = None
        try:
            message = model.invoke(question, config, **kwargs)
        except Exception as raised:  # noqa: BLE001  # the test looks at it
            error = raised
        took_s = time() - began_s
    assert is_clear(model)
    return Play(model, message, error, took_s)


async def _aplay(make, question, config, kwargs, *, is_left):
    loop = asyncio.get_running_loop()
    model = make(loop.time)
    began_s = loop.time()
    message = error = None
    try:
        message = await model.ainvoke(question, config, **kwargs)
    except Exception as raised:  # noqa: BLE001  # as above
        error = raised
    assert is_left or is_clear(model)
    return Play(model, message, error, loop.time() - began_s)


@contextmanager
def thread_time():
    """Have threads live in virtual time; at the end all come to theirs."""
    with pytest.MonkeyPatch.context() as patch:
        time = ThreadTime()
        patch.setattr(drivers, "_next_of", time.next_of)
        patch.setattr(drivers, "JOIN_S", 0)
        patch.setattr(ThreadTime, "current", time)
        try:
            yield time
        finally:
            time.release()


@contextmanager
def no_jitter():
    """Retries after exactly 0.5 s, 1 s and so on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensemble_module, "RetryPolicy", partial(RetryPolicy, jitter_s=0.0))
        yield


def ensemble(members, **fields):
    """A maker of ensembles, for `play`: everybody is asked at once, by the prior policy."""
    fields = {"max_team": len(members), "max_rounds": 1, **fields}
    return lambda clock: RLFocalChatModel(members=members, clock=clock, **fields)
