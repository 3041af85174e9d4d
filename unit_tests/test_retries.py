"""Retries: how often, after how long, and when not."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ModelAPIError, ModelAuthenticationError

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution.retries import MAX_RETRY_AFTER_S, Retries, RetryPolicy


def asked(seconds):
    """A passing error of a provider that asks for a wait."""
    error = ModelAPIError("down")
    error.retry_after = seconds
    return error


def waits(retries, errors):
    return [retries.wait_s(error) for error in errors]


def test_without_jitter_waits_double_up_to_the_limit_and_end():
    """½, 1, 2, 4, 8, then 8 again; the seventh failure is the last."""
    retries = Retries(RetryPolicy(max_retries=6, jitter_s=0))
    assert waits(retries, [ModelAPIError()] * 7) == [0.5, 1, 2, 4, 8, 8, None]
    assert retries.num_attempts == 7


def test_by_default_a_member_is_asked_at_most_three_times():
    retries = Retries(RetryPolicy())
    granted = waits(retries, [TimeoutError()] * 3)
    assert [wait is None for wait in granted] == [False, False, True]
    assert retries.num_attempts == 3


def test_without_retries_every_error_is_the_last():
    retries = Retries(RetryPolicy(max_retries=0))
    assert retries.num_attempts == 1
    assert retries.wait_s(TimeoutError()) is None
    assert retries.num_attempts == 1


def test_what_asking_again_does_not_mend_is_given_up_at_once():
    retries = Retries(RetryPolicy(jitter_s=0))
    assert waits(retries, [ModelAPIError(), ModelAuthenticationError()]) == [0.5, None]
    assert retries.num_attempts == 2


def test_a_provider_that_asks_for_a_longer_wait_gets_it_and_a_shorter_one_changes_nothing():
    retries = Retries(RetryPolicy(max_retries=3, jitter_s=0))
    assert waits(retries, [asked(20), asked(0.1), asked(8.5)]) == [20, 1, 8.5]


def test_a_wait_beyond_the_limit_is_no_wait():
    """Sixty seconds are waited for, more are not."""
    assert MAX_RETRY_AFTER_S == 60
    assert Retries(RetryPolicy(jitter_s=0)).wait_s(asked(60)) == 60
    retries = Retries(RetryPolicy())
    assert retries.wait_s(asked(60.001)) is None
    assert retries.num_attempts == 1


def test_a_date_is_read_by_the_wall_clock():
    """00:00:30 on the first day of 1970, seen at 00:00:10: twenty seconds."""
    error = ModelAPIError()
    error.headers = {"Retry-After": "Thu, 01 Jan 1970 00:00:30 GMT"}
    assert Retries(RetryPolicy(jitter_s=0), wall=lambda: 10.0).wait_s(error) == 20


@given(
    st.floats(0, 5),
    st.floats(5, 50),
    st.floats(0, 3),
    st.lists(st.none() | st.floats(0, MAX_RETRY_AFTER_S), min_size=1, max_size=12),
)
def test_every_wait_is_within_the_formula(initial_s, max_s, jitter_s, asked_s):
    rule = RetryPolicy(max_retries=len(asked_s), initial_s=initial_s, max_s=max_s, jitter_s=jitter_s)
    granted = waits(Retries(rule), map(asked, asked_s))
    for n, (wait_s, least_s) in enumerate(zip(granted, asked_s, strict=True)):
        low = max(min(max_s, initial_s * 2**n), least_s or 0)
        assert low <= wait_s <= low + jitter_s


def test_the_random_part_spreads_those_who_were_turned_away_together():
    """Twenty waits are all 30 s and some, and no two alike."""
    granted = [Retries(RetryPolicy(jitter_s=1)).wait_s(asked(30)) for _ in range(20)]
    assert all(30 <= wait_s <= 31 for wait_s in granted)
    assert len(set(granted)) > 1


def test_many_attempts_overflow_nothing():
    retries = Retries(RetryPolicy(max_retries=3000, jitter_s=0))
    assert waits(retries, [ModelAPIError()] * 3000)[-1] == 8
    unlimited = Retries(RetryPolicy(max_retries=3000, initial_s=1e-300, max_s=1.7e308, jitter_s=0))
    assert waits(unlimited, [ModelAPIError()] * 3000)[-1] == 1.7e308


@pytest.mark.parametrize("error", [TimeoutError("late"), ValueError("bug"), StopIteration(), KeyboardInterrupt()])
def test_deciding_raises_nothing_and_leaves_the_error_as_it_is(error):
    """tenacity would raise what it gives up on: the error would remember that as its origin."""
    retries = Retries(RetryPolicy(max_retries=0))
    try:
        {}["another error, which is being handled"]
    except KeyError:
        assert retries.wait_s(error) is None
    assert error.__traceback__ is None
    assert error.__context__ is None


def test_another_thread_may_decide_on_the_next_attempt():
    retries, granted = Retries(RetryPolicy(jitter_s=0)), []
    granted.append(retries.wait_s(TimeoutError()))
    thread = threading.Thread(target=lambda: granted.append(retries.wait_s(TimeoutError())))
    thread.start()
    thread.join()
    assert granted == [0.5, 1]


def test_members_of_one_rule_are_counted_apart():
    rule = RetryPolicy(max_retries=1, jitter_s=0)
    one, other = Retries(rule), Retries(rule)
    assert waits(one, [TimeoutError()] * 2) == [0.5, None]
    assert waits(other, [TimeoutError()] * 2) == [0.5, None]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("max_retries", value) for value in (-1, 1.0, True, "2", None)),
        *((name, value) for name in ("initial_s", "max_s", "jitter_s") for value in (-0.1, float("inf"), float("nan"))),
        *((name, value) for name in ("initial_s", "max_s", "jitter_s") for value in (True, "1", None, 10**400)),
    ],
)
def test_a_rule_outside_its_range_names_the_field_and_the_value(field, value):
    with pytest.raises(InputError, match=rf"`{field}` must be .* got {value!r}\."):
        RetryPolicy(**{field: value})


def test_the_first_wait_may_not_be_longer_than_the_longest():
    with pytest.raises(InputError, match=r"`initial_s` must be at most `max_s` \(8\.0\), got 9"):
        RetryPolicy(initial_s=9)
    assert RetryPolicy(initial_s=9, max_s=9).max_s == 9
