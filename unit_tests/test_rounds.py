"""Rounds: who is asked again, when, and how often; every number is worked by hand, in virtual time."""

import asyncio

import httpx2
import pytest
from langchain_core.exceptions import ModelInvalidRequestError, ModelRateLimitError
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from langchain_openai import ChatOpenAI

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.execution import AnswerLimits, BreakerConfig, ExecutionConfig, RoundRequest, Usage
from langchain_rlfocal.execution.rounds import Event, Round
from support_calls import collect
from support_time import QUESTION, ensemble, in_virtual_time, is_clear, play, timed

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
    assert answer.model.spent.seconds == 5
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
