"""Laws of reliability: whatever members do and whatever is allowed, answers follow from what arrives in time.

A reference with one loop for each member, without events, tasks or threads, says who answers and when.
"""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ModelInvalidRequestError

from langchain_rlfocal import PoolMember
from langchain_rlfocal.errors import DeadlineError, EnsembleError
from support_time import WAYS, ensemble, no_jitter, play, timed

MAX_ATTEMPTS = 3
SAYINGS = ("yes", "no")


@dataclass(frozen=True)
class Schedule:
    """What members do, and what they may take."""

    scripts: tuple[tuple[tuple[float, str], ...], ...]
    timeout: float | None
    member_timeout_s: float | None
    deadline_s: float | None
    min_candidates: int
    max_retries: int
    max_concurrent_calls: int | None = None

    @property
    def names(self):
        return [f"m{number}" for number, _ in enumerate(self.scripts)]


def seconds(most):
    """Quarters of a second: sums of them are exact."""
    return st.integers(1, 4 * most).map(lambda quarters: quarters / 4)


@st.composite
def schedules(draw, *, ties=False):
    """Without ties every attempt's length has a binary digit of its own, so that no two members end at once."""
    num_members = draw(st.integers(1, 5))
    does = st.sampled_from((*SAYINGS, *SAYINGS, "busy", "wrong"))
    scripts = tuple(
        tuple(
            (draw(seconds(3)) + (0 if ties else 2.0 ** -(4 + member * MAX_ATTEMPTS + attempt)), draw(does))
            for attempt in range(MAX_ATTEMPTS)
        )
        for member in range(num_members)
    )
    return Schedule(
        scripts,
        timeout=draw(st.none() | seconds(3)),
        member_timeout_s=draw(st.none() | seconds(6)),
        deadline_s=draw(st.none() | seconds(6)),
        min_candidates=draw(st.integers(1, num_members)),
        max_retries=draw(st.integers(0, MAX_ATTEMPTS - 1)),
        max_concurrent_calls=draw(st.none() | st.integers(1, 3)) if ties else None,
    )


# ---- the reference


def alone(script, schedule):
    """Say when one member ends, what it says (None for nothing), how often it is asked, and whether time ended it."""
    deadline_s = math.inf if schedule.deadline_s is None else schedule.deadline_s
    end_s = min(deadline_s, schedule.member_timeout_s or math.inf)
    now_s, wait_s = 0.0, 0.5
    for number in range(schedule.max_retries + 1):
        length_s, does = script[number]
        cut_s = now_s + (schedule.timeout or math.inf)
        if now_s + length_s >= end_s and cut_s >= end_s:
            return end_s, None, number + 1, end_s == deadline_s
        if now_s + length_s < cut_s:
            now_s += length_s
            if does in SAYINGS:
                return now_s, does, number + 1, False
            if does == "wrong":
                return now_s, None, number + 1, False
        else:
            now_s = cut_s
        if number == schedule.max_retries or now_s + wait_s >= end_s:
            return now_s, None, number + 1, False
        now_s, wait_s = now_s + wait_s, 2 * wait_s
    raise AssertionError


def expected(schedule):
    """Return what the ensemble says or raises, when, who answered, and the number of calls."""
    ends = [alone(script, schedule) for script in schedule.scripts]
    took_s = max(end_s for end_s, *_ in ends)
    said = [what for _, what, _, _ in ends if what is not None]
    is_cut = any(by_deadline for *_, by_deadline in ends)
    arrived = [name for name, (_, what, _, _) in zip(schedule.names, ends, strict=True) if what is not None]
    if not said or (is_cut and len(said) < schedule.min_candidates):
        answer = DeadlineError if is_cut else EnsembleError
    else:
        answer = max(SAYINGS, key=lambda word: (said.count(word), -said.index(word) if word in said else -math.inf))
    return answer, took_s, arrived, sum(number for _, _, number, _ in ends)


# ---- the ensemble


def played(way, schedule, *, competences=None, **fields):
    errors = {"busy": ConnectionError("busy"), "wrong": ModelInvalidRequestError("wrong")}
    members = {
        name: timed(*[(length_s, errors.get(does, does)) for length_s, does in script])
        for name, script in zip(schedule.names, schedule.scripts, strict=True)
    }
    if competences is not None:
        trusted = zip(members.items(), competences, strict=False)
        asked = [PoolMember(name, model, competence=competence) for (name, model), competence in trusted]
    else:
        asked = members
    names = ("timeout", "member_timeout_s", "deadline_s", "min_candidates", "max_retries", "max_concurrent_calls")
    limits = {name: getattr(schedule, name) for name in names}
    with no_jitter():
        answer = play(way, ensemble(asked, breaker_failures=None, **limits, **fields))
    return answer, members


def label_of(answer):
    """What was answered, or the kind of error."""
    if answer.error is not None:
        return DeadlineError if isinstance(answer.error, DeadlineError) else type(answer.error).__mro__[1]
    return answer.how["fusion"]["answer"]


def accounted(answer):
    """Who answered or failed, with repetitions."""
    if answer.error is not None:
        return sorted(answer.error.failures)
    return sorted([*answer.answered, *[failure["member"] for failure in answer.how["failures"]]])


@pytest.mark.parametrize("way", WAYS)
@given(schedule=schedules())
def test_an_answer_is_what_the_members_say_one_by_one(way, schedule):
    answer, members = played(way, schedule, early_commit=False)
    label, took_s, arrived, num_calls = expected(schedule)
    assert answer.took_s == took_s
    assert answer.model.spent.calls == num_calls == sum(len(member.log) for member in members.values())
    if answer.error is None:
        assert answer.how["fusion"]["answer"] == label
        assert answer.answered == arrived
        assert accounted(answer) == schedule.names
    else:
        assert isinstance(answer.error, label)
        assert isinstance(answer.error, DeadlineError) == (label is DeadlineError)
        assert accounted(answer) == [name for name in schedule.names if name not in arrived]


@pytest.mark.parametrize("way", WAYS)
@given(
    schedule=schedules(),
    competences=st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.9]), min_size=5, max_size=5),
    max_rounds=st.integers(1, 2),
)
def test_early_commit_answers_the_same_and_never_later(way, schedule, competences, max_rounds):
    early, full = (
        played(way, schedule, competences=competences, max_rounds=max_rounds, early_commit=early_commit)[0]
        for early_commit in (True, False)
    )
    assert label_of(early) == label_of(full)
    assert early.took_s <= full.took_s
    if early.error is None:
        assert set(accounted(early)) <= set(schedule.names)
        assert len(set(accounted(early))) == len(accounted(early))


@pytest.mark.parametrize("way", WAYS)
@given(schedule=schedules(ties=True))
def test_nothing_is_lost_where_everything_happens_at_once(way, schedule):
    """Members end, wait, and are cut off in the same moments, and wait for places.

    `play` sees that no task, place or reservation is left. A call that is cut off before its first line may be booked.
    """
    answer, members = played(way, schedule)
    assert answer.took_s <= (schedule.deadline_s or math.inf)
    assert sum(len(member.log) for member in members.values()) <= answer.model.spent.calls
    if answer.error is None:
        assert accounted(answer) == schedule.names
        assert len(answer.answered) >= 1
