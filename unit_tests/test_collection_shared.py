"""Workers of an engine share one collection: its cells, its members' limits, its dollars, its counts."""

import asyncio
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.collection import CollectConfig, Share, collect, collect_shared
from langchain_rlfocal.collection.sharing import Desk
from langchain_rlfocal.collection.tallies import MemberTally, Tally
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import RetryPolicy
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_engines import Threads

NO_RETRY = RetryPolicy(max_retries=0)
DOLLAR = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e6}
"""A dollar a token of the answer."""


@pytest.fixture
def log(tmp_path):
    return OutcomeLog(tmp_path / "log.db")


def many(num, **changes):
    """Questions that "yes" answers, each of its own text."""
    one = Question(task="quiz", query_id="0", query="", gold="yes")
    return [replace(one, query_id=str(n), query=f"Is {n} a number?", **changes) for n in range(num)]


class Slow(ScriptedChatModel):
    """Says yes, counts who was asked what, and how many are asked at once; the loop turns in between."""

    @classmethod
    def made(cls):
        model = cls(script=lambda _: "yes")
        object.__setattr__(model, "seen", Counter())
        object.__setattr__(model, "now", [0, 0])
        object.__setattr__(model, "lock", threading.Lock())
        return model

    async def _agenerate(self, messages, *args, **kwargs):
        with self.lock:
            self.seen[messages[-1].text] += 1
            self.now[0] += 1
            self.now[1] = max(self.now)
        await asyncio.sleep(0.002)
        with self.lock:
            self.now[0] -= 1
        return await super()._agenerate(messages, *args, **kwargs)


def shared(pool, questions, log, config=None, *, workers=2, **options):
    config = config or CollectConfig(retry=NO_RETRY)

    @contextmanager
    def opening():
        yield pool, config

    return collect_shared(
        pool.names, questions, log=log, config=config, opening=opening, engine=Threads(workers), **options
    )


def test_workers_ask_each_cell_once_and_their_counts_are_added_up(log):
    ann, bob = Slow.made(), Slow.made()
    pool = ModelPool.from_models({"ann": ann, "bob": bob})
    collect(pool, many(10), log=log)
    seen = []
    tally = shared(pool, many(60), log, workers=3, watch=lambda now: seen.append(now.sum("done")))
    for model in (ann, bob):
        assert (len(model.seen), set(model.seen.values())) == (60, {1})
    for member in tally.members.values():
        assert (member.total, member.on_record, member.answered, member.elsewhere) == (60, 10, 50, 0)
        assert (member.missing, member.in_flight, member.waits_for, member.given_up) == (0, 0, None, None)
        assert member.completion_tokens == 50
    assert (tally.ended, tally.unscored) == ("complete", 0)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (20, 120)
    assert (log.num_attempts, log.runs()) == (120, [])


def test_what_fails_is_asked_once_in_a_collection_and_again_by_the_next(log):
    """Each of four workers may ask everything; a failure of this collection is nobody's to ask again in it."""
    failing = FailingChatModel(error=ValueError("no"))
    pool = ModelPool.from_models({"ann": failing})
    config = CollectConfig(retry=NO_RETRY)
    assert collect(pool, many(3), log=log, config=config).sum("failed") == 3
    tally = shared(pool, many(3), log, config, workers=4)
    assert (tally.sum("failed"), tally.sum("missing"), log.num_attempts) == (3, 3, 6)
    assert tally.members["ann"].first_failure == "ValueError: no"


def test_a_member_is_asked_no_more_at_once_by_all_than_it_takes(log):
    """Of five calls at once of ann three are one worker's and two the other's; of bob one worker's alone."""
    ann, bob = Slow.made(), Slow.made()
    pool = ModelPool([PoolMember("ann", ann, max_concurrent_calls=5), PoolMember("bob", bob, max_concurrent_calls=1)])
    tally = shared(pool, many(40), log)
    assert tally.sum("missing") == 0
    assert ann.now[1] <= 5
    assert bob.now[1] == 1


def test_dollars_are_of_all_workers_together(log):
    """A dollar an answer, told one: seven of forty, whoever asks them."""
    ann = PoolMember("ann", Slow.made(), max_concurrent_calls=4, **DOLLAR)
    config = CollectConfig(max_usd=7.0, output_tokens=1, retry=NO_RETRY)
    tally = shared(ModelPool([ann]), many(40), log, config)
    assert (tally.sum("answered"), tally.usd, tally.ended, tally.sum("missing")) == (7, 7.0, "budget", 33)


def test_what_was_left_unscored_is_scored_by_one_of_them(log):
    pool = ModelPool.from_models({"ann": ScriptedChatModel(script=lambda _: "yes")})
    unscored = [replace(question, gold=None) for question in many(6)]
    assert collect(pool, unscored, log=log).unscored == 6
    tally = shared(pool, many(6), log, workers=3)
    assert (tally.scored, tally.unscored, tally.sum("on_record")) == (6, 0, 6)
    assert shared(pool, unscored, OutcomeLog(log.path.with_name("b.db"))).unscored == 6


def test_once_it_is_stopped_nothing_more_is_sent(log):
    stop, ann = asyncio.Event(), Slow.made()
    pool = ModelPool([PoolMember("ann", ann, max_concurrent_calls=2)])

    def watch(tally):
        if tally.sum("answered"):
            stop.set()

    tally = shared(pool, many(5000), log, watch=watch, stop=stop)
    assert tally.ended == "stopped"
    assert 0 < tally.sum("answered") == log.num_attempts < 5000
    assert log.runs() == []


def test_an_error_of_one_worker_stops_the_others_and_is_raised(log):
    made = []

    @contextmanager
    def opening():
        made.append(1)
        if len(made) == 1:
            raise InputError("no pool")
        yield ModelPool.from_models({"ann": Slow.made()}), CollectConfig()

    with pytest.raises(InputError, match="no pool"):
        collect_shared(["ann"], many(5000), log=log, config=CollectConfig(), opening=opening, engine=Threads(2))
    assert log.num_attempts < 5000


def test_a_file_is_no_log_for_several_machines(log):
    with pytest.raises(InputError, match=r"Workers on 2 machines.*log\.db\. Give `--log postgresql"):
        collect_shared(["ann"], many(1), log=log, config=CollectConfig(), opening=None, engine=Threads(2, machines=2))


# ---- the desk


def test_what_a_lost_workers_calls_held_stays_spent():
    """Of ten dollars it holds six, and has settled one of its calls at one dollar instead of two."""
    desk, tally = Desk(10.0), Tally(members={"ann": MemberTally(name="ann", in_flight=3)})
    assert desk.hold("a", [2.0, 2.0, 2.0]) == [0, 1, 2]
    assert desk.hold("b", [5.0]) == "later"
    assert desk.tell(0, "a", tally, [(1, 1.0)]) is False
    assert desk.hold("b", [5.0]) == [3]
    desk.lose(0)
    assert desk.hold("b", [0.5]) == "later"
    assert desk.hold("a", [0.0]) == "never", "nobody would settle it"
    assert tally.members["ann"].in_flight == 0
    desk.tell(1, "b", Tally(members={}), [(3, 4.5)])
    assert desk.hold("b", [0.5]) == [4]
    desk.tell(1, "b", Tally(members={}), [(4, 0.5)])
    assert desk.hold("b", [0.5]) == "never"
    desk.stop()
    assert desk.tell(1, "b", Tally(members={}), []) is True


def test_what_is_told_twice_is_settled_once():
    """Two dollars of three are held and settled at one: told again, there is still room for two, and not for three."""
    desk = Desk(3.0)
    assert desk.hold("a", [2.0]) == [0]
    for _ in range(2):
        desk.tell(0, "a", Tally(members={}), [(0, 1.0)])
    assert desk.hold("a", [2.5]) == "never"
    assert desk.hold("a", [2.0]) == [1]


# ---- shares


@given(st.integers(1, 9), st.integers(0, 5), st.integers(1, 12), st.integers(0, 40))
def test_shares_are_all_of_it_once_and_each_may_do_all(count, column, cap, num):
    """Calls at once add up to the member's; own cells are each one worker's; who has calls may do everything."""
    cells = [("t", str(number), "ann", 0) for number in range(num)]
    shares = [Share(number=number, count=count) for number in range(count)]
    calls = [share.calls(column, cap) for share in shares]
    assert sum(calls) == cap
    parts = [share.cells(column, cap, cells) for share in shares]
    assert sorted(cell for own, _ in parts for cell in own) == sorted(cells)
    for (own, others), num_calls in zip(parts, calls, strict=True):
        assert sorted((*own, *others)) == (sorted(cells) if num_calls else [])


def test_claims_leave_what_failed_since(log):
    """Of two cells one has failed before and one since: the one from before is free."""
    pool = ModelPool.from_models({"ann": FailingChatModel(error=ValueError("no"))})
    first, second = many(2)
    config = CollectConfig(retry=NO_RETRY)
    collect(pool, [first], log=log, config=config)
    since = log.num_attempts
    collect(pool, [second], log=log, config=config)
    cells = [("quiz", "0", "ann", 0), ("quiz", "1", "ann", 0)]
    assert log.claim(cells, run="a", failed_since=since) == cells[:1]
    assert log.answered(cells, failed_since=since) == {cells[1]}
    assert log.answered(cells) == set()
    assert log.claim(cells, run="a") == cells


def test_what_a_run_made_is_added_up_from_the_log(log):
    pool = ModelPool(
        [PoolMember("ann", Slow.made(), **DOLLAR), PoolMember("bob", FailingChatModel(error=ValueError("no")))]
    )
    collect(pool, many(3), log=log, config=CollectConfig(retry=NO_RETRY))
    collect(pool, many(4), log=log, config=CollectConfig(retry=NO_RETRY, retry_failed=False))
    runs = sorted(set(_runs(log)), key=lambda run: -log.made_by(run)["ann"].answered)
    ann, bob = (log.made_by(runs[0])[name] for name in ("ann", "bob"))
    assert (ann.answered, ann.failed, ann.completion_tokens, ann.usd, ann.unpriced) == (3, 0, 3, 3.0, 0)
    assert (bob.answered, bob.failed, bob.usd, bob.unpriced) == (0, 3, 0.0, 0)
    assert log.made_by("nobody") == {}


def _runs(log):
    import sqlalchemy as sa  # noqa: PLC0415

    with sa.create_engine(f"sqlite:///{log.path}").connect() as db:
        return db.execute(sa.text("SELECT DISTINCT run FROM attempts")).scalars().all()
