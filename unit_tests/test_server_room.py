"""How many answers a process takes: measured by how late its event loop is, or given."""

import asyncio

import pytest

from langchain_rlfocal.execution.limits import BUSY_S
from langchain_rlfocal.server.admission import FIRST_ROOM, LEAST_ROOM, REST_S, Admission, Room
from langchain_rlfocal.server.errors import ApiError


def wake(room, *, times, late_s, in_flight=None, now_s=0.0):
    """Wake up so often, at one time."""
    for _ in range(times):
        room.woke(now_s, late_s=late_s, in_flight=room.most if in_flight is None else in_flight)


def test_room_that_is_used_grows_while_the_loop_is_in_time():
    """By a fiftieth each time, so to 64 · 1.02²⁰ = 95.1 after twenty."""
    room = Room()
    wake(room, times=20, late_s=0.0)
    assert room.most == 95


def test_room_that_nobody_uses_does_not_grow():
    room = Room()
    wake(room, times=100, late_s=0.0, in_flight=FIRST_ROOM // 2)
    assert room.most == FIRST_ROOM


def test_a_loop_that_is_late_takes_a_tenth_less_once_a_second():
    """64 · 0.9 = 57.6, and no less before the second is over; then 0.9 of the 57 that are in flight: 51.3."""
    room = Room()
    wake(room, times=30, late_s=2 * BUSY_S, in_flight=64)
    assert room.most == 57
    wake(room, times=5, late_s=2 * BUSY_S, in_flight=57, now_s=REST_S)
    assert room.most == 51


def test_one_late_wake_up_is_not_yet_a_busy_loop():
    """It counts with three tenths: 0.3 · 3 · BUSY_S is less than BUSY_S."""
    room = Room()
    wake(room, times=1, late_s=3 * BUSY_S)
    assert room.most >= FIRST_ROOM


def test_there_is_always_some_room():
    room = Room()
    for second in range(60):
        wake(room, times=10, late_s=1.0, now_s=float(second))
    assert room.most == LEAST_ROOM


def test_it_recovers():
    room = Room()
    for second in range(60):
        wake(room, times=10, late_s=1.0, now_s=float(second))
    wake(room, times=100, late_s=0.0, now_s=60.0)
    assert room.most > FIRST_ROOM


async def test_room_that_is_given_is_not_measured():
    admission = Admission(2)
    async with admission.watching():
        assert len(asyncio.all_tasks()) == 1
        assert admission.most == 2


async def test_watching_ends():
    admission = Admission(None)
    async with admission.watching():
        assert len(asyncio.all_tasks()) == 2
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_who_is_refused_before_anything_is_read_is_counted_and_told_when_to_come_again():
    admission = Admission(1)
    admission.check_room()
    async with admission.answer(timeout_s=None):
        with pytest.raises(ApiError) as refused:
            admission.check_room()
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    assert (admission.refused, admission.in_flight) == (1, 0)
