"""Places whose time is over: they are given back once, at the time that is said for them, and who is next is told of it."""

from functools import partial

import pytest

from support_limits import Desk


@pytest.fixture
def desk():
    return Desk()


def test_a_place_is_given_back_at_the_time_that_is_said_for_it(desk):
    for name in ("a", "b", "c", "d"):
        desk.ask(name, total=2)
    desk.places["a"].leave_by(5.0)
    desk.places["b"].leave_by(7.0)
    assert desk.limits.expires_s == 5
    desk.limits.expire(4.9)
    assert desk.granted == ["a", "b"]
    desk.limits.expire(5.0)
    assert desk.granted == ["a", "b", "c"]
    desk.leave("a")  # it has really ended: nothing is given back twice
    assert (desk.granted, desk.limits.running, desk.limits.expires_s) == (["a", "b", "c"], {"b": 1, "c": 1}, 7)
    desk.leave("b")
    assert (desk.granted, desk.limits.expires_s) == (["a", "b", "c", "d"], float("inf"))
    desk.limits.expire(8.0)
    assert desk.limits.running == {"c": 1, "d": 1}


def test_who_is_next_in_line_is_told_of_a_places_time(desk):
    """One of each member's line; those behind them are not, nor is one that has left."""
    told = []
    for name in ("a1", "a2", "a3", "b1"):
        news = partial(told.append, name)
        desk.places[name] = desk.limits.request(name[0], on_granted=lambda: None, on_news=news, total=1)
    assert [desk.places[name].is_held for name in ("a1", "a2")] == [True, False]
    desk.places["a1"].leave_by(5.0)
    assert told == ["a2", "b1"]
    desk.leave("a2")
    desk.places["a1"].leave_by(4.0)
    assert told == ["a2", "b1", "a3", "b1"]


def test_a_closed_loop_that_is_told_holds_nobody_up(desk):
    def closed():
        raise RuntimeError("Event loop is closed")

    told = []
    desk.ask("a", total=1)
    desk.limits.request("b", on_granted=lambda: None, on_news=closed, total=1)
    desk.limits.request("c", on_granted=lambda: None, on_news=lambda: told.append("c"), total=1)
    desk.places["a"].leave_by(1.0)
    assert told == ["c"]


def test_only_a_place_that_is_held_has_a_time(desk):
    desk.ask("a", total=1)
    desk.ask("b", total=1)
    desk.places["b"].leave_by(1.0)
    desk.leave("a")
    desk.places["a"].leave_by(1.0)
    assert desk.limits.expires_s == float("inf")
