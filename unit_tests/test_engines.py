"""An engine does every piece of work once, wherever it is, and replaces workers that die; the same of every engine is in support_engines."""

import asyncio
import multiprocessing
import os
import signal
import sys
from functools import partial

import pytest

import support_engines as work
from langchain_rlfocal.engines import LocalEngine, RayEngine
from langchain_rlfocal.engines import base as module
from langchain_rlfocal.errors import InputError, MissingDependencyError, RLFocalError, WorkerError


def test_one_worker_works_in_this_process_lazily_and_errors_are_values():
    """The second piece is taken only when the first one's result was."""
    taken = []

    def pieces():
        for number in (3, -1, 4):
            taken.append(number)
            yield number

    done = LocalEngine().map(work.squares, pieces())
    first = next(done)
    assert (first.result(), taken) == ((9, os.getpid()), [3])
    second, third = done
    with pytest.raises(ValueError, match="-1 is negative"):
        second.result()
    assert third.value == (16, os.getpid())


def test_several_workers_are_processes_that_do_each_piece_once():
    with LocalEngine(2) as engine:
        done = list(engine.map(work.squares, [1, 2, -3, 4, 5]))
    assert sorted(one.item for one in done) == [-3, 1, 2, 4, 5]
    assert sorted(one.value[0] for one in done if one.error is None) == [1, 4, 16, 25]
    assert os.getpid() not in {one.value[1] for one in done if one.error is None}
    [error] = [one.error for one in done if one.error is not None]
    assert (type(error), str(error)) == (ValueError, "-3 is negative")
    assert multiprocessing.active_children() == []


def test_all_workers_and_the_caller_call_one_object():
    with LocalEngine(2) as engine:
        handle = engine.share(work.Count())
        assert handle.call("add", "caller") == 1
        done = list(engine.map(partial(work.counts, handle), ["a", "b", "c"]))
        assert sorted(one.result() for one in done) == [2, 3, 4]
        assert sorted(asyncio.run(handle.acall("all"))) == ["a", "b", "c", "caller"]
        [refused] = engine.map(partial(work.asks_what_raises, handle), ["x"])
    assert isinstance(refused.error, ValueError)


def test_a_worker_that_is_killed_is_replaced_and_its_piece_begun_again(tmp_path):
    deaths = []
    with LocalEngine(2) as engine:
        done = list(
            engine.map(
                partial(work.dies_once, str(tmp_path)), ["a", "b", "c"], on_death=lambda *given: deaths.append(given)
            )
        )
    assert sorted((one.value, one.deaths) for one in done) == [("a", 1), ("b", 1), ("c", 1)]
    assert sorted(deaths) == [(name, f"signal {int(signal.SIGKILL)} killed it") for name in "abc"]


def test_a_piece_that_kills_every_worker_has_an_error_and_the_others_are_done(monkeypatch):
    monkeypatch.setattr(module, "MAX_DEATHS", 1)
    with LocalEngine(2) as engine:
        [done] = engine.map(work.dies, ["a"])
    assert (done.deaths, type(done.error)) == (2, WorkerError)
    assert "start fewer workers" in str(done.error)


def test_workers_that_cannot_begin_end_it(monkeypatch):
    monkeypatch.setattr(module, "MAX_DEATHS", 0)
    with LocalEngine(2) as engine:
        with pytest.raises(ValueError, match="nothing to begin with"):
            list(engine.map(work.cannot_begin, ["a"]))
        with pytest.raises(WorkerError, match=r"before they could begin.*code 7"):
            list(engine.map(work.dies_at_birth, ["a"]))


def test_who_has_enough_ends_the_workers():
    with LocalEngine(2) as engine:
        done = engine.map(work.squares, range(10**9))
        next(done)
        done.close()
    assert multiprocessing.active_children() == []


def test_an_error_that_cannot_travel_says_the_same():
    with LocalEngine(2) as engine:
        [done] = engine.map(work.raises_odd, ["x"])
    assert (type(done.error), str(done.error)) == (RLFocalError, "OddError: odd: x")


def test_what_cannot_travel_is_an_error_with_a_way_out():
    with LocalEngine(2) as engine:
        [done] = engine.map(work.returns_locks, ["x"])
    assert (type(done.error), done.deaths) == (WorkerError, 0)
    assert "must be picklable" in str(done.error)


@pytest.mark.parametrize("make", [LocalEngine, partial(RayEngine, None)])
def test_there_must_be_a_worker(make):
    with pytest.raises(InputError, match="`workers` must be at least 1, got 0"):
        make(workers=0)


def test_without_ray_the_command_that_installs_it_is_named(monkeypatch):
    """And the environment is left as it was."""
    before = dict(os.environ)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'langchain-rlfocal\[ray\]'"):
        RayEngine()
    assert dict(os.environ) == before
