"""More questions than the members can answer: what is answered is right, what is not says so, and nothing lingers."""

import asyncio
import importlib
import threading
from pathlib import Path

import pytest

from langchain_rlfocal import RLFocalError

pytestmark = pytest.mark.timeout(120)

SCRIPTS = Path(__file__).parents[1] / "docs" / "benchmarks"
MODES = ("tasks", "threads")


@pytest.fixture(scope="module")
def overload():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield importlib.import_module("overload")


def voted(overload, number):
    """What the vote of all three says."""
    texts = [overload.said_by(member, number) for member in overload.MEMBERS]
    return max(texts, key=lambda text: (texts.count(text), -texts.index(text)))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_refused_where_there_is_room(overload, mode):
    with overload.Server(num_places=50, latency_s=0.01, share_of_faults=0.0) as server:
        done = overload.run(server, "ensemble", mode, overload.Load(24, 4), early_commit=False)
    assert [one.answer for one in done.ended] == [voted(overload, one.number) for one in done.ended]
    assert done.num_requests == 24 * 3
    assert done.refused == []
    assert len(overload.row_of("room", "ensemble", done)) == len(overload.COLUMNS)


@pytest.mark.parametrize("mode", MODES)
def test_a_burst_is_answered_in_part_and_the_rest_is_told_to_come_again(overload, mode):
    """20 requests a second are possible, 300 are wanted at once, a fifth of them with a fault."""
    with overload.Server(num_places=2, latency_s=0.1) as server:
        done = overload.run(server, "ensemble", mode, overload.Load(100, 100))
    assert len(done.ended) == 100
    assert done.num_requests > 0
    assert done.num_right > 0
    for one in done.served:
        assert one.answer in {overload.said_by(member, one.number) for member in overload.MEMBERS}
    errors = [one.error for one in done.ended if one.error is not None]
    assert len(errors) == 100 - len(done.served) > 0
    assert {isinstance(error, RLFocalError) and error.is_retryable for error in errors} == {True}
    # Whoever sends nothing says why, and does not claim that members failed.
    assert {overload.describe(one.error) for one in done.refused} <= {"OverloadError (retryable)"}


@pytest.fixture
def quiet(overload):
    """A question that the vote answers rightly."""
    return next(n for n in range(10**5, 10**6) if voted(overload, n) == overload.right_answer(n))


async def test_after_a_burst_of_tasks_the_next_question_is_answered(overload, quiet):
    with overload.Server(num_places=2, latency_s=0.1, share_of_faults=0.0) as server:
        async with server.async_members() as members:
            ask = overload.in_tasks("ensemble", members, breaker_failures=None)
            await overload.run_tasks(ask, overload.Load(60, 60), first=0)
            assert await ask(overload.question_of(quiet)) == overload.right_answer(quiet)
            assert len(asyncio.all_tasks()) == 1


def test_after_a_burst_of_threads_the_next_question_is_answered(overload, quiet):
    with overload.Server(num_places=2, latency_s=0.1, share_of_faults=0.0) as server, server.members() as members:
        ask = overload.in_threads("ensemble", members, pool=None, breaker_failures=None)
        overload.run_threads(ask, overload.Load(60, 60), first=0)
        for thread in threading.enumerate():
            if thread.name.startswith("rlfocal"):  # left behind by an answer that waited for it no longer
                thread.join(overload.TIMEOUT_S + 5)
                assert not thread.is_alive()
        assert ask(overload.question_of(quiet)) == overload.right_answer(quiet)
