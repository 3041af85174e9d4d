"""Collection: from questions to outcomes on record, stopped, killed, shared, within limits and budgets."""

import asyncio
import os
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage

from langchain_rlfocal.collection import (
    CollectConfig,
    acollect,
    collect,
    is_failure,
    price_collection,
    take_in,
    write_table,
)
from langchain_rlfocal.collection import collect_into as collect_whole
from langchain_rlfocal.collection import config as config_module
from langchain_rlfocal.collection.exporting import recorded_in, unfinished_path
from langchain_rlfocal.collection.runs import is_dead, new_run
from langchain_rlfocal.errors import InputError, OutcomeError, OutcomeLogError
from langchain_rlfocal.execution import RetryPolicy
from langchain_rlfocal.log import Attempt, OutcomeLog, ScoreRecord
from langchain_rlfocal.log.tables import table_of
from langchain_rlfocal.log.upkeep import Scrubbing, scrub
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, Question, sample_id, split_sample_id
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.scoring import Score, base_id
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_time import in_virtual_time, timed

QUESTIONS = [
    Question(task="quiz/yes_no", query_id="1", query="Can a fish swim? Answer yes or no.", gold="yes"),
    Question(task="quiz/sums", query_id="1", query="What is 2 + 2? Answer with a number.", gold="4", kind="number"),
    Question(task="quiz/sums", query_id="2", query="What is 3 + 4? Answer with a number.", gold="7", kind="number"),
]
RIGHT = dict(zip([q.query for q in QUESTIONS], ["Yes, it can.", "The answer is 4.", "7"], strict=True))
WRONG = dict(zip([q.query for q in QUESTIONS], ["No.", "4", "8"], strict=True))
NO_RETRY = CollectConfig(retry=RetryPolicy(max_retries=0))


@pytest.fixture
def log(tmp_path):
    return OutcomeLog(tmp_path / "log.db")


def make_pool(**models) -> ModelPool:
    return ModelPool.from_models(models)


def collect_into(*args, **options):
    """Collect into a table, and return it."""
    return collect_whole(*args, **options).table


def many(num, **changes):
    """Questions that "yes" answers."""
    return [replace(QUESTIONS[0], query_id=str(n), **changes) for n in range(num)]


def cells(log):
    """What is on record, as (query_id, member, sample, response, reward)."""
    return sorted(
        (a.outcome.query_id, a.outcome.model, a.sample, a.outcome.response, a.outcome.reward) for a in log.attempts()
    )


def timeless(outcomes):
    """Outcomes without what a clock measured."""
    return [replace(outcome, latency_s=None) for outcome in outcomes]


# ---- what is recorded


def test_every_member_is_asked_every_question_and_scored_by_the_right_answer(tmp_path):
    """Ann knows all three; Bob has the first and the last wrong. Rows run by question, then by member."""
    pool = make_pool(ann=ScriptedChatModel(script=RIGHT), bob=ScriptedChatModel(script=WRONG))
    table = collect_into(tmp_path / "o.jsonl", pool, QUESTIONS)
    assert [(o.task, o.query_id, o.model, o.answer, o.reward) for o in table] == [
        ("quiz/yes_no", "1", "ann", "yes", 1.0),
        ("quiz/yes_no", "1", "bob", "no", 0.0),
        ("quiz/sums", "1", "ann", "4", 1.0),
        ("quiz/sums", "1", "bob", "4", 1.0),
        ("quiz/sums", "2", "ann", "7", 1.0),
        ("quiz/sums", "2", "bob", "8", 0.0),
    ]
    assert [o.gold for o in table] == ["yes", "yes", "4", "4", "7", "7"]
    assert [o.response for o in table][2] == "The answer is 4."
    assert list(OutcomeTable.read(tmp_path / "o.jsonl")) == list(table)


def test_tokens_price_and_log_probability_are_recorded_and_what_is_unknown_stays_so(log):
    """A token a word: 9 of the prompt at 2 dollars per million and 4 of the answer at 1 are (18 + 4) / 1e6 dollars."""
    told = PoolMember(
        "ann", ScriptedChatModel(script=RIGHT, logprob=-0.5), input_usd_per_mtok=2.0, output_usd_per_mtok=1.0
    )
    silent = PoolMember("bob", ScriptedChatModel(script=RIGHT, reports_usage=False))
    tally = collect(ModelPool([told, silent]), QUESTIONS[1:2], log=log)
    known, unknown = sorted((a.outcome for a in log.attempts()), key=lambda o: o.model)
    assert (known.prompt_tokens, known.completion_tokens) == (9, 4)
    assert known.cost_usd == tally.usd == pytest.approx(22e-6)
    assert known.logprob == pytest.approx(-0.5)
    assert (unknown.prompt_tokens, unknown.completion_tokens) == (None, None)
    assert (unknown.cost_usd, unknown.logprob) == (None, None)
    assert [tally.members[name].unpriced for name in ("ann", "bob")] == [0, 1]


def test_a_member_that_fails_is_a_non_answer_worth_nothing_and_its_reason_is_on_record(log, tmp_path):
    pool = make_pool(ann=ScriptedChatModel(script=RIGHT), bob=FailingChatModel(error=ValueError("no such model")))
    tally = collect(pool, QUESTIONS, log=log)
    failed = [a for a in log.attempts() if a.outcome.model == "bob"]
    assert [(a.outcome.response, a.failure) for a in failed] == [(None, "ValueError: no such model")] * 3
    assert all(a.outcome.latency_s is not None for a in failed)
    assert (tally.silent, tally.members["bob"].first_failure) == (["bob"], "ValueError: no such model")
    rows = [o for o in write_table(log, tmp_path / "o.csv") if o.model == "bob"]
    assert [(o.answer, o.response, o.reward) for o in rows] == [(None, None, 0.0)] * 3


def test_messages_and_tools_are_sent_and_tool_calls_recorded(log, tmp_path):
    """The question is put as its file has it; equal calls get one label, whatever order their arguments have."""
    tools = ({"type": "function", "function": {"name": "refund", "parameters": {"type": "object", "properties": {}}}},)
    messages = ({"role": "system", "content": "Be kind."}, {"role": "user", "content": "Refund 17."})
    question = Question(task="t", query_id="1", query="Refund 17.", messages=messages, tools=tools)

    def calls(**args):
        return AIMessage("", tool_calls=[{"name": "refund", "args": args, "id": "c1"}])

    ann = BindingChatModel(script=[calls(order=17, full=True)])
    bob = BindingChatModel(script=[calls(full=True, order=17)])
    collect(make_pool(ann=ann, bob=bob), [question], log=log)
    assert [(m.type, m.text) for m in ann.asked[0].messages] == [("system", "Be kind."), ("human", "Refund 17.")]
    assert ann.asked[0].kwargs["tools"] == list(tools)
    attempts = [*log.attempts()]
    assert [dict(a.tool_calls[0]) for a in attempts] == [
        {"name": "refund", "args": {"order": 17, "full": True}, "id": "c1"}
    ] * 2
    one, other = write_table(log, tmp_path / "o.jsonl", questions=[question])
    assert one.response == other.response == '[{"args": {"full": true, "order": 17}, "name": "refund"}]'
    assert one.answer == other.answer is not None
    assert (one.reward, is_failure(one)) == (None, False)


class BindingChatModel(ScriptedChatModel):
    """Takes tools as they are."""

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=tools, **kwargs)


def test_samples_are_asked_one_by_one_and_named_in_the_table(log, tmp_path):
    """Three answers of one member to one question; the second run asks the two that are missing."""
    numbers = count(1)
    ann = ScriptedChatModel(script=lambda _: f"Answer {next(numbers)}")
    question = replace(QUESTIONS[0], gold=None)
    collect(make_pool(ann=ann), [question], log=log)
    collect(make_pool(ann=ann), [question], log=log, config=CollectConfig(samples=3))
    table = write_table(log, tmp_path / "o.jsonl", questions=[question])
    assert [(o.query_id, o.response) for o in table] == [("1", "Answer 1"), ("1#2", "Answer 2"), ("1#3", "Answer 3")]
    again = OutcomeLog(tmp_path / "other.db")
    take_in(again, tmp_path / "o.jsonl", run=new_run())
    assert sorted(again.answered()) == sorted(log.answered())


def test_an_id_of_a_sample_is_read_as_it_is_written_and_as_nothing_else():
    """The first answer has the question's own id; so nobody writes #0, #1 or #02, and a question may be called so."""
    assert [sample_id("1", k) for k in range(3)] == ["1", "1#2", "1#3"]
    assert [split_sample_id(sample_id("a#b", k)) for k in (0, 1, 9)] == [("a#b", 0), ("a#b", 1), ("a#b", 9)]
    odd = ["1#1", "1#0", "1#02", "1#", "#2", "1#²", "1#2 ", "1#" + "9" * 5000]
    assert [split_sample_id(name) for name in odd] == [(name, 0) for name in odd]
    known = {("t", "17"): QUESTIONS[0]}
    assert [base_id(name, known, "t") for name in ("17#2", "17#1", "18#2")] == ["17", "17#1", "18#2"]


def test_answers_to_questions_without_a_right_answer_are_recorded_unscored(log):
    tally = collect(make_pool(ann=ScriptedChatModel(script=RIGHT)), [replace(QUESTIONS[0], gold=None)], log=log)
    assert cells(log) == [("1", "ann", 0, "Yes, it can.", None)]
    assert (tally.unscored, tally.ended) == (1, "complete")


# ---- what is on record is not asked again


def test_what_is_recorded_is_not_asked_again_but_a_failure_is_and_its_answer_replaces_it(tmp_path):
    """Bob fails at first; at the second run he alone is asked, and the third asks nobody."""
    out, ann, bob = tmp_path / "o.parquet", ScriptedChatModel(script=RIGHT), ScriptedChatModel(script=WRONG)
    collect_into(out, make_pool(ann=ann, bob=FailingChatModel(error=ValueError("no key"))), QUESTIONS)
    ann.asked.clear()
    held = collect_into(out, make_pool(ann=ann, bob=bob), QUESTIONS, config=CollectConfig(retry_failed=False))
    assert (ann.asked, bob.asked) == ([], [])
    assert [o.reward for o in held if o.model == "bob"] == [0.0, 0.0, 0.0]
    for _ in range(2):
        table = collect_into(out, make_pool(ann=ann, bob=bob), QUESTIONS)
    assert (ann.asked, len(bob.asked)) == ([], 3)
    assert [o.reward for o in table if o.model == "bob"] == [0.0, 1.0, 0.0]
    assert len(table) == len(OutcomeTable.read(out)) == 6


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one collection gives at once."""
    pool = make_pool(ann=ScriptedChatModel(script=RIGHT), bob=ScriptedChatModel(script=WRONG))
    return timeless(collect_into(tmp_path_factory.mktemp("whole") / "o.jsonl", pool, QUESTIONS))


@pytest.mark.parametrize("done", [{0}, {1, 2, 4}, {0, 1, 2, 3, 4, 5}])
def test_a_collection_in_two_parts_gives_what_one_gives_at_once(done, whole, tmp_path):
    """Whatever part of the table was recorded before, it and the rest are the whole, and only the rest is asked for."""
    out, models = tmp_path / "o.jsonl", {"ann": ScriptedChatModel(script=RIGHT), "bob": ScriptedChatModel(script=WRONG)}
    OutcomeTable.from_outcomes([whole[row] for row in sorted(done)]).write(out)
    assert timeless(collect_into(out, make_pool(**models), QUESTIONS)) == whole
    assert sum(len(model.asked) for model in models.values()) == len(whole) - len(done)


async def test_two_collectors_share_the_work_and_both_end_with_all_of_it(tmp_path):
    """Each holds its own half until both have begun; nothing is asked twice."""
    barrier = asyncio.Barrier(2)
    models = [ScriptedChatModel(script=["yes"], on_acall=barrier.wait) for _ in range(2)]
    pools = [ModelPool([PoolMember("ann", model, max_concurrent_calls=1)]) for model in models]
    logs = [OutcomeLog(tmp_path / "log.db") for _ in range(2)]
    tallies = await asyncio.gather(*(acollect(pool, many(8), log=log) for pool, log in zip(pools, logs, strict=True)))
    assert [len(model.asked) for model in models] == [4, 4]
    assert [tally.sum("answered") + tally.sum("elsewhere") for tally in tallies] == [8, 8]
    assert [tally.missing for one in tallies for tally in one.members.values()] == [0, 0]
    assert len(logs[0].answered()) == 8


async def test_who_waits_for_another_collector_reads_only_what_it_waits_for(tmp_path):
    """A thousand answers to other questions are on record; each look asks for the cells that the other has claimed."""
    log = OutcomeLog(tmp_path / "log.db")
    question = many(1)[0]
    log.add_questions([question])
    cell = (question.task, "0", "ann", 0)
    assert log.claim([cell], run="another machine's") == [cell]

    asked_for = []

    class Watched:
        def __getattr__(self, name):
            return getattr(log, name)

        def answered(self, cells=None):
            asked_for.append(cells)
            outcome = Outcome(
                task=cell[0], query_id="0", query=question.query, model="ann", response="yes", answer=None, reward=1.0
            )
            log.add_attempts([Attempt(outcome=outcome)], run="another machine's")
            return log.answered(cells)

    ann = ScriptedChatModel(script=["yes"])
    tally = await acollect(make_pool(ann=ann), [question], log=Watched())
    assert (tally.sum("elsewhere"), ann.asked, asked_for) == (1, [], [[cell]])


def test_what_a_dead_process_had_claimed_is_asked_at_once(log):
    """A process of this machine that has ended; that of one which lives is waited for (below)."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        machine, _, started, mark = new_run().split(":")
    dead = f"{machine}:{ended.pid}:{started}:{mark}"
    cell = ("quiz/yes_no", "1", "ann", 0)
    log.add_questions(QUESTIONS)
    assert log.claim([cell], run=dead) == [cell]
    assert log.claim([cell], run=new_run()) == []
    tally = collect(make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:1], log=log)
    assert tally.sum("answered") == 1


def test_a_run_is_dead_only_where_that_is_sure():
    own = new_run()
    machine, pid, started, mark = own.split(":")
    assert not is_dead(own)
    assert is_dead(f"{machine}:{2**22 + 1}:{started}:{mark}")  # no process has such a number
    assert not is_dead(f"elsewhere:{2**22 + 1}:{started}:{mark}")
    assert not is_dead("a run of another form")
    if started:
        assert is_dead(f"{machine}:{pid}:{int(started) + 1}:{mark}")  # its number was given again
    assert int(pid) == os.getpid()


# ---- members do not wait for each other


def test_a_slow_member_holds_nobody_else_up(log):
    """Bob takes 100 s an answer, one at a time; Ann has answered all four in 4 s."""
    ends = {}

    def watch(tally):
        for name, member in tally.members.items():
            if member.answered == 4:
                ends.setdefault(name, asyncio.get_running_loop().time())

    members = [PoolMember(name, timed((s, "yes")), max_concurrent_calls=1) for name, s in (("bob", 100), ("ann", 1))]
    in_virtual_time(acollect(ModelPool(members), many(4), log=log, watch=watch))
    assert ends["ann"] == pytest.approx(4, abs=0.5)
    assert ends["bob"] == pytest.approx(400, abs=0.5)


def test_calls_of_a_member_run_at_once_up_to_its_own_limit(log):
    """Six questions at 10 s: three at once take 20 s, and six at once, where the pool does not say, 10 s."""
    ann = PoolMember("ann", timed((10, "yes")), max_concurrent_calls=3)
    bob = PoolMember("bob", timed((10, "yes")))
    in_virtual_time(acollect(ModelPool([ann, bob]), many(6), log=log, config=CollectConfig(max_concurrent_calls=6)))
    assert [round(s) for s in ann.model.begun_s] == [0, 0, 0, 10, 10, 10]
    assert [round(s) for s in bob.model.begun_s] == [0] * 6


class TurnedAwayError(Exception):
    """As providers turn callers away."""

    status_code = 429

    def __init__(self, retry_after):
        super().__init__("slow down")
        self.retry_after = retry_after


def test_who_is_turned_away_waits_as_long_as_its_provider_asks_with_all_its_calls(log, steady_retries):
    """Ann's first call, at 1 s, is told to wait 20 s: nobody sends another before, and Bob goes on."""
    ann = timed((1, TurnedAwayError(20)), (1, "yes"))
    bob = timed((2, "yes"))
    members = [PoolMember("ann", ann, max_concurrent_calls=1), PoolMember("bob", bob, max_concurrent_calls=1)]
    seen = set()
    in_virtual_time(
        acollect(
            ModelPool(members),
            many(5),
            log=log,
            config=CollectConfig(retry=RetryPolicy(max_retries=0, jitter_s=0)),
            watch=lambda tally: seen.add(tally.members["ann"].waits_for),
        )
    )
    assert ann.begun_s[0] == pytest.approx(0, abs=0.1)
    assert ann.begun_s[1] >= 21
    assert max(bob.begun_s) < 10
    assert "its rate limit" in seen


def test_a_member_whose_breaker_is_open_is_probed_and_then_given_up(log):
    """One call at a time fails at once: five open the breaker, three probes at 30 s each fail, and the rest is not asked."""
    ann = timed((0, ConnectionError("down")))
    pool = ModelPool([PoolMember("ann", ann, max_concurrent_calls=1)])
    tally = in_virtual_time(acollect(pool, many(50), log=log, config=NO_RETRY))
    assert [round(s) for s in ann.begun_s] == [0, 0, 0, 0, 0, 30, 60, 90]
    assert "did not recover" in tally.members["ann"].given_up
    assert (tally.sum("failed"), tally.sum("missing"), tally.ended) == (8, 50, "complete")


def test_a_member_that_recovers_is_not_given_up(log):
    """The probe at 30 s is answered, and so is everything after it."""
    down = [(0, ConnectionError("down"))] * 5
    ann = timed(*down, (0, "yes"))
    pool = ModelPool([PoolMember("ann", ann, max_concurrent_calls=1)])
    tally = in_virtual_time(acollect(pool, many(20), log=log, config=NO_RETRY))
    assert (tally.sum("failed"), tally.sum("answered"), tally.members["ann"].given_up) == (5, 15, None)


def test_a_wrong_key_stops_its_member_after_five_calls_and_no_other(log):
    """What differs from call to call, as ids of requests, is the same failure; a failure of the question is not."""
    number = count(1)

    def refuse(_):
        raise PermissionError(f"Incorrect API key provided: sk-planted123456. Request {next(number)}.")

    pool = ModelPool(
        [
            PoolMember("ann", ScriptedChatModel(script=refuse), max_concurrent_calls=1),
            PoolMember("bob", ScriptedChatModel(script=["yes"]), max_concurrent_calls=1),
            PoolMember("cat", ScriptedChatModel(script=[""] * 20), max_concurrent_calls=1),
        ]
    )
    tally = collect(pool, many(20), log=log, config=NO_RETRY)
    assert {name: (m.failed, m.given_up is None) for name, m in tally.members.items()} == {
        "ann": (5, False),
        "bob": (0, True),
        "cat": (20, True),
    }
    assert "planted" not in repr(tally) + repr([*log.attempts()])


# ---- stopping


def test_a_collection_that_is_stopped_sends_nothing_more_and_takes_what_comes_back_in_time(log):
    """Stopped at 1 s: what takes 3 s is recorded, what takes 60 s is left 5 s later, and nobody is asked after 1 s."""
    quick, slow = timed((3, "yes")), timed((60, "yes"))
    pool = ModelPool(
        [PoolMember("ann", quick, max_concurrent_calls=2), PoolMember("bob", slow, max_concurrent_calls=2)]
    )

    async def run():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(1, stop.set)
        tally = await acollect(pool, many(9), log=log, stop=stop)
        return tally, asyncio.get_running_loop().time()

    tally, ended_s = in_virtual_time(run())
    assert (tally.ended, tally.sum("answered"), tally.sum("missing")) == ("stopped", 2, 16)
    assert (len(quick.log), slow.hows) == (2, ["cancelled"] * 2)
    assert ended_s == pytest.approx(6, abs=0.2)
    assert log.claim([("quiz/yes_no", "8", "bob", 0)], run="next")  # nothing stays claimed


async def test_a_cancelled_collection_leaves_no_call_behind_and_keeps_what_was_answered(log):
    started, never, calls = asyncio.Event(), asyncio.Event(), count()

    async def hang():
        if next(calls):
            started.set()
            await never.wait()

    before = asyncio.all_tasks()
    pool = ModelPool([PoolMember("ann", ScriptedChatModel(script=RIGHT, on_acall=hang), max_concurrent_calls=1)])
    task = asyncio.create_task(acollect(pool, QUESTIONS, log=log))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == before
    assert len(log.answered()) == 1


# ---- the log cannot be written


class Stubborn:
    """A log whose `add_attempts` fails some times."""

    def __init__(self, log, times):
        self._log, self._times = log, times

    def __getattr__(self, name):
        return getattr(self._log, name)

    def add_attempts(self, attempts, *, run):
        self._times -= 1
        if self._times >= 0:
            raise OutcomeLogError("The outcome log x.db is locked by another program.")
        return self._log.add_attempts(attempts, run=run)


def test_answers_wait_for_a_log_that_is_locked_for_a_while_and_nobody_is_asked_meanwhile(log):
    """It is tried again after 1 s and 2 s; what came back before is recorded, and the rest is asked after that."""
    ann, troubles = timed((0, "yes")), []
    pool = ModelPool([PoolMember("ann", ann, max_concurrent_calls=1)])

    def watch(tally):
        troubles.append(tally.trouble)

    stubborn = Stubborn(log, 2)
    tally = in_virtual_time(acollect(pool, many(200), log=stubborn, watch=watch))
    assert (tally.sum("answered"), len(log.answered()), tally.trouble) == (200, 200, None)
    assert any(trouble and "locked" in trouble for trouble in troubles)


def test_a_log_that_stays_locked_ends_the_collection_and_says_what_was_not_recorded(log):
    pool = make_pool(ann=timed((0, "yes")))
    with pytest.raises(OutcomeLogError, match=r"locked .* 3 answers could not be recorded"):
        in_virtual_time(acollect(pool, many(3), log=Stubborn(log, 99)))
    assert log.answered() == set()


class Slow:
    """A log that takes its time to write, and counts what it is told."""

    def __init__(self, log):
        self._log, self.told, self.began = log, [], threading.Event()
        self.go_on = threading.Event()

    def __getattr__(self, name):
        return getattr(self._log, name)

    def add_attempts(self, attempts, *, run):
        self.told += [attempt.cell for attempt in attempts]
        self.began.set()
        assert self.go_on.wait(20)
        return self._log.add_attempts(attempts, run=run)


async def test_what_is_being_written_when_a_collection_is_cancelled_is_written_once(log):
    """The first writing stands still while the collection is cancelled; what came meanwhile is written after it."""
    slow = Slow(log)
    task = asyncio.create_task(acollect(make_pool(ann=ScriptedChatModel(script=["yes"] * 99)), many(40), log=slow))
    await asyncio.to_thread(slow.began.wait, 20)
    task.cancel()
    slow.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(slow.told) == len(set(slow.told))
    assert set(slow.told) == log.answered()


# ---- scores


class Scoring:
    """A judge that takes its time, costs, or raises."""

    name, asks_judge = "judge", True

    def __init__(self, seconds=0.0, usd=None, error=None):
        self.seconds, self.usd, self.error, self.num = seconds, usd, error, 0

    async def score(self, question, reply):
        self.num += 1
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        return Score(value=1.0, cost_usd=self.usd)


def use_scorer(monkeypatch, scorer):
    monkeypatch.setattr(config_module, "open_scorer", lambda _, **__: scorer)


def test_an_answer_is_on_record_before_a_slow_scorer_has_scored_it_and_members_go_on(log, monkeypatch):
    """A judge of 100 s: at 5 s all answers are on record, unscored; the scores come later."""
    use_scorer(monkeypatch, Scoring(seconds=100))

    async def run():
        task = asyncio.create_task(acollect(make_pool(ann=timed((1, "yes"))), many(4), log=log))
        await asyncio.sleep(5)
        early = [reward for *_, reward in cells(log)]
        await task
        return early

    assert in_virtual_time(run()) == [None] * 4
    assert [reward for *_, reward in cells(log)] == [1.0] * 4


def test_answers_whose_scoring_was_cut_off_are_scored_by_the_next_run_without_asking(log, monkeypatch):
    ann = timed((1, "yes"))

    async def stopped():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(3, stop.set)
        return await acollect(make_pool(ann=ann), many(4), log=log, stop=stop)

    use_scorer(monkeypatch, Scoring(seconds=100))
    assert in_virtual_time(stopped()).ended == "stopped"
    assert [reward for *_, reward in cells(log)] == [None] * 4
    use_scorer(monkeypatch, Scoring())
    tally = in_virtual_time(acollect(make_pool(ann=ann), many(4), log=log))
    assert (tally.scored, tally.sum("answered"), len(ann.log)) == (4, 0, 4)
    assert [reward for *_, reward in cells(log)] == [1.0] * 4


def test_an_answer_that_cannot_be_scored_is_kept_unscored(log, monkeypatch):
    use_scorer(monkeypatch, Scoring(error=RuntimeError("no judge")))
    tally = collect(make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS, log=log)
    assert [reward for *_, reward in cells(log)] == [None] * 3
    assert (tally.unscored, tally.first_scoring_error) == (3, "RuntimeError: no judge")


def test_why_an_answer_could_not_be_scored_is_one_line_without_secrets(log, monkeypatch):
    use_scorer(monkeypatch, Scoring(error=RuntimeError("no judge:\n\x1b[2Jkey sk-planted123456 is wrong")))
    tally = collect(make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:1], log=log)
    assert tally.first_scoring_error.startswith("RuntimeError: no judge: ")
    assert tally.first_scoring_error.isprintable()
    assert "planted" not in tally.first_scoring_error


def test_a_corrected_right_answer_scores_again_by_rule_what_is_on_record_without_asking(log, tmp_path):
    """The first question's answer was right by "yes" and is wrong by "no"; Bob, who is not in the pool any more, gains by it."""
    ann, bob = ScriptedChatModel(script=RIGHT), ScriptedChatModel(script=WRONG)
    collect(make_pool(ann=ann, bob=bob), QUESTIONS, log=log)
    corrected = [replace(QUESTIONS[0], gold="no"), *QUESTIONS[1:]]
    tally = collect(make_pool(ann=ann), corrected, log=log)
    assert (tally.outdated, tally.scored, tally.sum("on_record"), len(ann.asked)) == (0, 2, 3, 3)
    table = write_table(log, tmp_path / "o.jsonl", questions=corrected)
    assert [(o.model, o.gold, o.reward) for o in table][:3] == [
        ("ann", "no", 0.0),
        ("bob", "no", 1.0),
        ("ann", "4", 1.0),
    ]
    assert collect(make_pool(ann=ann), corrected, log=log).scored == 0


def test_a_verdict_of_a_judge_or_person_stays_beside_the_right_answer_that_it_was_made_by(log, tmp_path, monkeypatch):
    """Nobody pays a judge again unasked; the table shows what it judged by, and who joins is held against the new answer."""
    ann, bob = ScriptedChatModel(script=RIGHT), ScriptedChatModel(script=WRONG)
    use_scorer(monkeypatch, scorer := Scoring())
    collect(make_pool(ann=ann), QUESTIONS[:1], log=log)
    corrected = [replace(QUESTIONS[0], gold="no")]
    tally = collect(make_pool(ann=ann, bob=bob), corrected, log=log)
    assert (tally.outdated, tally.scored, scorer.num) == (1, 0, 2)
    table = write_table(log, tmp_path / "o.jsonl", questions=corrected)
    assert [(o.model, o.gold, o.reward) for o in table] == [("ann", "yes", 1.0), ("bob", "no", 1.0)]


# ---- budgets and prices

DOLLAR = {"input_usd_per_mtok": 0.0, "output_usd_per_mtok": 1e6}
"""A dollar a token of the answer."""


def test_a_budget_ends_the_collection_before_a_call_that_could_pass_it(log):
    """A dollar a word of two: nothing on record counts 3 tokens as told, then 2 as seen: 2 + 2 + 2 fit into 7, another does not."""
    ann = PoolMember("ann", ScriptedChatModel(script=["yes indeed"] * 9), max_concurrent_calls=1, **DOLLAR)
    tally = collect(ModelPool([ann]), many(9), log=log, config=CollectConfig(max_usd=7.0, output_tokens=3))
    assert (tally.sum("answered"), tally.usd, tally.ended, tally.sum("missing")) == (3, 6.0, "budget", 6)
    rest = collect(ModelPool([ann]), many(9), log=log, config=CollectConfig(max_usd=12.0))
    assert (rest.sum("answered"), rest.ended) == (6, "complete")


def test_what_is_out_counts_against_a_budget_and_gives_back_what_it_did_not_take(log):
    """Told 4 dollars a call, two are out at once under 8; they took 1 each, and so the others fit in, 8 in all."""
    ann = timed((10, "yes"))
    member = PoolMember("ann", ann, max_concurrent_calls=8, **DOLLAR)
    tally = in_virtual_time(
        acollect(ModelPool([member]), many(9), log=log, config=CollectConfig(max_usd=8.0, output_tokens=4))
    )
    assert [round(s) for s in ann.begun_s][:2] == [0, 0]
    assert round(ann.begun_s[2]) == 10
    assert (tally.sum("answered"), tally.usd, tally.ended) == (8, 8.0, "budget")


def test_a_budget_needs_prices_or_to_be_told_what_counts_instead(log):
    ann = ScriptedChatModel(script=["yes"] * 9)
    with pytest.raises(InputError, match="those of ann are unknown"):
        collect(make_pool(ann=ann), many(9), log=log, config=CollectConfig(max_usd=1.0))
    assert ann.asked == []
    tally = collect(
        ModelPool([PoolMember("ann", ann, max_concurrent_calls=1)]),
        many(9),
        log=log,
        config=CollectConfig(max_usd=1.0, unpriced_usd=0.25),
    )
    assert (tally.sum("answered"), tally.ended) == (4, "budget")


def test_what_a_judge_costs_counts_too(log, monkeypatch):
    """A dollar an answer, and two a verdict, told 1 before the first: 3 + 3 dollars of 7, and a third 3 would pass them."""
    use_scorer(monkeypatch, Scoring(usd=2.0))
    ann = PoolMember("ann", ScriptedChatModel(script=["yes"] * 9), max_concurrent_calls=1, **DOLLAR)
    judge = PoolMember("judge", LimitedChatModel(script=["1"], max_tokens=1), **DOLLAR)
    config = CollectConfig(max_usd=7.0, output_tokens=1, judge=judge)
    tally = in_virtual_time(acollect(ModelPool([ann]), many(9), log=log, config=config))
    assert (tally.sum("answered"), tally.usd, tally.ended) == (2, 6.0, "budget")


def test_a_job_is_priced_by_what_is_on_record_else_by_max_tokens_else_by_an_assumption(log):
    """Ann's answers on record have 2 tokens, Bob may write 50, of Cat 500 are assumed; each at a dollar a token."""
    collect(ModelPool([PoolMember("ann", ScriptedChatModel(script=["yes indeed"]), **DOLLAR)]), many(1), log=log)
    pool = ModelPool(
        [
            PoolMember("ann", ScriptedChatModel(script=["yes"]), **DOLLAR),
            PoolMember("bob", LimitedChatModel(script=["yes"], max_tokens=50), **DOLLAR),
            PoolMember("cat", ScriptedChatModel(script=["yes"])),
        ]
    )
    price = price_collection(pool, many(3), CollectConfig(samples=2), log=log)
    assert [(one.calls, one.on_record, one.output_tokens, one.basis, one.usd) for one in price.members] == [
        (5, 1, 2, "on record", 10.0),
        (6, 0, 50, "max_tokens", 300.0),
        (6, 0, 500, "assumed", None),
    ]
    assert (price.calls, price.usd, price.unpriced, price.judge) == (17, 310.0, ("cat",), None)
    told = price_collection(pool, many(3), CollectConfig(unpriced_usd=0.5), log=log)
    assert told.members[2].usd == 1.5


class LimitedChatModel(ScriptedChatModel):
    max_tokens: int = 50


# ---- tables


def test_what_a_table_held_of_others_stays_in_it_with_columns_of_the_users_own(tmp_path):
    """The old member's row comes first into the log; a column that somebody adds to the export comes too."""
    out = tmp_path / "o.jsonl"
    own = Outcome(
        task="quiz/sums", query_id="2", query=QUESTIONS[2].query, model="old", response="8", answer="8", gold="7", reward=0.0,
        extras={"reviewed_by": "R. Viewer"},
    )  # fmt: skip
    OutcomeTable.from_outcomes([own]).write(out)
    collect_into(out, make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:2])
    table = list(OutcomeTable.read(out))
    assert [(o.task, o.query_id, o.model, o.extras.get("reviewed_by")) for o in table] == [
        ("quiz/yes_no", "1", "ann", None),
        ("quiz/sums", "1", "ann", None),
        ("quiz/sums", "2", "old", "R. Viewer"),
    ]
    noted = [replace(table[0], extras={"note": "odd"}), *table[1:]]
    OutcomeTable.from_outcomes(noted).write(out)
    ann = ScriptedChatModel(script=RIGHT)
    collect_into(out, make_pool(ann=ann), QUESTIONS[:2])
    assert [o.extras.get("note") for o in OutcomeTable.read(out)] == ["odd", None, None]
    assert ann.asked == []


def test_rewards_that_somebody_gave_in_the_table_count_from_then_on(tmp_path):
    """Two answers without a right one: one is graded by hand. It keeps its grade, and no later run asks or scores it."""
    out, ann = tmp_path / "o.jsonl", ScriptedChatModel(script=RIGHT)
    questions = [replace(question, gold=None) for question in QUESTIONS[:2]]
    first, second = collect_into(out, make_pool(ann=ann), questions)
    OutcomeTable.from_outcomes([replace(first, reward=0.5), second]).write(out)
    told = []
    for _ in range(2):
        table = collect_into(out, make_pool(ann=ann), questions, on_taken_in=told.append)
        assert [o.reward for o in table] == [0.5, None]
    assert [taken.rewards for taken in told] == [1, 0]
    assert len(ann.asked) == 2


def test_a_table_from_before_a_score_does_not_undo_it_and_one_without_a_reward_takes_none(tmp_path):
    """The log is scored again after the export; the table, which is older, takes over its reward. Then a reward is cleared."""
    out, pool = tmp_path / "o.jsonl", make_pool(ann=ScriptedChatModel(script=RIGHT))
    (row,) = collect_into(out, pool, QUESTIONS[:1])
    log = OutcomeLog(out.with_suffix(".db"), clock=lambda: out.stat().st_mtime + 60)
    log.add_scores([ScoreRecord(cell=(row.task, row.query_id, "ann", 0), reward=0.25, scorer="judge")], run="score")
    log.close()
    assert [o.reward for o in collect_into(out, pool, QUESTIONS[:1])] == [0.25]
    for change in ({"reward": None}, {"reward": 0.75, "response": "Another answer."}):
        OutcomeTable.from_outcomes([replace(row, **change)]).write(out)
        late = out.stat().st_mtime + 120
        os.utime(out, (late, late))
        assert [o.reward for o in collect_into(out, pool, QUESTIONS[:1])] == [0.25]


def test_an_answer_in_a_table_counts_where_the_log_has_a_failure(tmp_path):
    out = tmp_path / "o.jsonl"
    (failed,) = collect_into(out, make_pool(ann=FailingChatModel(error=ValueError("no key"))), QUESTIONS[:1])
    OutcomeTable.from_outcomes([replace(failed, response="Yes", answer="yes", reward=1.0)]).write(out)
    ann = ScriptedChatModel(script=RIGHT)
    assert [o.response for o in collect_into(out, make_pool(ann=ann), QUESTIONS[:1])] == ["Yes"]
    assert ann.asked == []


def test_a_shared_log_gives_a_table_its_own_questions_and_those_that_it_held(log, tmp_path):
    """One of the log's three questions is asked for, another is in the table as a second sample alone; the third stays out."""
    ann = make_pool(ann=ScriptedChatModel(script=RIGHT))
    collect(ann, QUESTIONS, log=log)
    collect(ann, QUESTIONS[1:2], log=log, config=CollectConfig(samples=2))
    out, kept = tmp_path / "o.jsonl", write_table(log, tmp_path / "all.jsonl")
    OutcomeTable.from_outcomes([o for o in kept if o.query_id == "1#2"]).write(out)
    table = collect_into(out, ann, QUESTIONS[:1], log=log)
    assert [(o.task, o.query_id) for o in table] == [
        ("quiz/yes_no", "1"),
        ("quiz/sums", "1"),
        ("quiz/sums", "1#2"),
    ]


# ---- texts that were taken out


def test_questions_whose_texts_were_taken_out_of_the_log_can_be_asked_again(tmp_path):
    """Ann's answers stay on record, as classes; Bob is asked, and the table has the one text that the user gives."""
    out, ann, bob = tmp_path / "o.jsonl", ScriptedChatModel(script=RIGHT), ScriptedChatModel(script=RIGHT)
    collect_into(out, make_pool(ann=ann), QUESTIONS[1:2])
    log = OutcomeLog(out.with_suffix(".db"))
    scrub(log, Scrubbing(tasks=("quiz/sums",)))
    for pool in (make_pool(ann=ann), make_pool(ann=ann, bob=bob)):
        table = collect_into(out, pool, QUESTIONS[1:2])
    assert [(o.query, o.model, o.response, o.reward) for o in table] == [
        (QUESTIONS[1].query, "ann", "[scrubbed]", 1.0),
        (QUESTIONS[1].query, "bob", "The answer is 4.", 1.0),
    ]
    assert (len(ann.asked), len(bob.asked)) == (1, 1)


def test_a_table_without_texts_goes_into_a_log_that_has_them(tmp_path):
    """The table comes from a log that was scrubbed; the question is the same, and its text stays."""
    source, log = OutcomeLog(tmp_path / "source.db"), OutcomeLog(tmp_path / "log.db")
    collect(make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[1:2], log=source)
    scrub(source, Scrubbing(tasks=("quiz/sums",)))
    write_table(source, tmp_path / "o.jsonl")
    log.add_questions(QUESTIONS[1:2])
    assert take_in(log, tmp_path / "o.jsonl", run=new_run()).rows == 1
    assert [(o.query, o.model, o.reward) for o in table_of(log)] == [(QUESTIONS[1].query, "ann", 1.0)]
    assert log.questions()["quiz/sums", "1"] == QUESTIONS[1]


def test_columns_of_questions_are_columns_of_the_table(tmp_path):
    question = replace(QUESTIONS[0], extras={"difficulty": "easy"})
    table = collect_into(tmp_path / "o.jsonl", make_pool(ann=ScriptedChatModel(script=RIGHT)), [question])
    assert [o.extras for o in table] == [{"difficulty": "easy"}]


def test_what_an_earlier_release_left_unfinished_is_taken_in_but_for_a_torn_last_line(tmp_path, log):
    out, half = tmp_path / "o.jsonl", '{"task": "quiz/sums", "query_id": "1", "que'
    source = tmp_path / "source.jsonl"
    table = collect_into(source, make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS)
    lines = source.read_text().splitlines(keepends=True)
    for torn, rows in ((half, 2), ("", 2)):
        unfinished_path(out).write_text("".join(lines[:2]) + torn)
        taken = take_in(OutcomeLog(tmp_path / f"log{len(torn)}.db"), out, run=new_run())
        assert (taken.rows, taken.torn) == (rows, unfinished_path(out) if torn else None)
        assert not unfinished_path(out).exists()
    unfinished_path(out).write_text(half)
    assert take_in(log, out, run=new_run()).rows == 0
    unfinished_path(out).write_text("".join([lines[0], half + "\n", lines[1]]))
    with pytest.raises(OutcomeError, match=r"o\.jsonl\.unfinished\.jsonl.*row 2"):
        take_in(log, out, run=new_run())
    assert unfinished_path(out).exists()  # nothing of it is lost
    assert len(table) == 3


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ({"response": "Yes"}, {"response": None}, "old"),
        ({"response": None}, {"response": "Yes"}, "new"),
        ({"response": None}, {"response": None}, "new"),
    ],
)
def test_of_two_records_an_answer_wins_over_a_failure_and_the_newer_over_the_older(tmp_path, old, new, kept):
    """The table is older than the unfinished part. Latency tells them apart."""
    out = tmp_path / "o.jsonl"
    (answered,) = collect_into(tmp_path / "x.jsonl", make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:1])
    for path, seconds, change in ((out, 1.0, old), (unfinished_path(out), 2.0, new)):
        gone = {"answer": None, "reward": 0.0} if change["response"] is None else {}
        OutcomeTable.from_outcomes([replace(answered, latency_s=seconds, **change, **gone)]).write(path)

    assert [o.latency_s for o in recorded_in(out)] == [{"old": 1.0, "new": 2.0}[kept]]


@pytest.mark.parametrize("told", [{"answer": "no"}, {"reward": 1.0}, {"response": ""}])
def test_an_outcome_that_says_anything_of_an_answer_is_no_failure(told):
    """Tables of others may have no column for responses; their members are not asked again for that."""
    failed = Outcome(task="t", query_id="1", query="?", model="a", answer=None, reward=0.0)
    assert is_failure(failed)
    assert not is_failure(replace(failed, **told))


def test_who_joins_later_gets_the_label_of_who_said_the_same_before(tmp_path):
    """Texts have the label of their group; the group that a table holds must not be renamed by a newcomer."""
    story = "The sea is a vast body of salt water that covers most of our planet and is home to many kinds of fish"
    question = Question(task="open", query_id="1", query="Describe the sea.", gold=story, kind="long_text")
    own = Outcome(
        task="open", query_id="1", query=question.query, model="ann", response=story, answer="sea", reward=1.0
    )
    for number, other in enumerate((f"**{story}**!", f"A {story}")):
        out = tmp_path / f"{number}.jsonl"
        OutcomeTable.from_outcomes([own]).write(out)
        table = collect_into(out, make_pool(bob=ScriptedChatModel(script=[other])), [question])

        assert {o.model: o.answer for o in table} == {"ann": "sea", "bob": "sea"}


def test_a_table_is_written_again_where_others_recorded_something_meanwhile(log, tmp_path, monkeypatch):
    """Another run records its answer while this one writes: the table that stays has both."""
    ann, bob = (make_pool(**{name: ScriptedChatModel(script=RIGHT)}) for name in ("ann", "bob"))
    collect(ann, QUESTIONS[:1], log=log)
    write, times = OutcomeTable.write, []

    def slow_write(table, path):
        write(table, path)
        times.append(len(table))
        if len(times) == 1:
            collect(bob, QUESTIONS[:1], log=log)

    monkeypatch.setattr(OutcomeTable, "write", slow_write)
    write_table(log, tmp_path / "o.jsonl")
    assert times == [1, 2]
    assert {o.model for o in OutcomeTable.read(tmp_path / "o.jsonl")} == {"ann", "bob"}


# ---- bad input


@pytest.mark.parametrize(
    ("questions", "config", "named", "column"),
    [
        ([], {}, "at least one question", None),
        ([QUESTIONS[1], QUESTIONS[1]], {}, "unique within the task", "query_id"),
        ([replace(QUESTIONS[0], query="Can a fish fly?")], {}, "another `query_id`", "query"),
        ([QUESTIONS[0], replace(QUESTIONS[0], query_id="1#2")], {"samples": 2}, "'1#2' names answer 2", "query_id"),
        ([replace(QUESTIONS[1], messages=({"role": "nobody", "content": "x"},))], {}, "role", "messages"),
    ],
)
def test_questions_that_break_a_rule_are_refused_before_anybody_is_asked(log, questions, config, named, column):
    ann = ScriptedChatModel(script=RIGHT)
    collect(make_pool(bob=ScriptedChatModel(script=RIGHT)), QUESTIONS[:1], log=log)
    with pytest.raises(OutcomeError, match=named) as caught:
        collect(make_pool(ann=ann), questions, log=log, config=CollectConfig(**config))
    assert caught.value.column == column
    assert ann.asked == []


def test_an_unknown_scorer_is_refused_before_anybody_is_asked(log):
    ann = ScriptedChatModel(script=RIGHT)
    with pytest.raises(InputError, match="scorer"):
        collect(make_pool(ann=ann), [replace(QUESTIONS[0], scorer="no_such")], log=log)
    assert ann.asked == []


def test_a_scorer_that_compares_answers_is_refused_before_anybody_is_asked_and_the_way_is_named(log):
    ann = ScriptedChatModel(script=RIGHT)
    config = CollectConfig(scorer="pairwise", judge=PoolMember("judge", ScriptedChatModel(script=["1"])))
    with pytest.raises(InputError, match=r"'pairwise' compares .* `rlfocal score` with `--scorer pairwise`"):
        collect(make_pool(ann=ann), QUESTIONS, log=log, config=config)
    assert ann.asked == []


def test_a_scorer_needs_the_judge_where_it_says_so_and_not_for_its_name(log, monkeypatch):
    """A function that somebody calls "judge" costs nothing, and needs no price of a judge; the hard negative does."""
    judge = PoolMember("judge", ScriptedChatModel(script=["1"]))
    ann = PoolMember("ann", ScriptedChatModel(script=["yes"] * 9), **DOLLAR)
    config = CollectConfig(max_usd=9.0, output_tokens=1, judge=judge)
    scorer = Scoring()
    use_scorer(monkeypatch, scorer)
    with pytest.raises(InputError, match="those of judge are unknown"):
        collect(ModelPool([ann]), many(2), log=log, config=config)
    scorer.asks_judge = False
    assert collect(ModelPool([ann]), many(2), log=log, config=config).sum("answered") == 2


@pytest.mark.parametrize(
    "wrong", [{"samples": 0}, {"max_concurrent_calls": 0}, {"max_usd": -1.0}, {"unpriced_usd": float("nan")}]
)
def test_settings_outside_their_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        CollectConfig(**wrong)


def test_a_table_with_another_text_for_a_question_is_not_mixed_in(tmp_path):
    out = tmp_path / "o.jsonl"
    collect_into(out, make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:1])
    rows = [replace(o, query="Can a fish fly?", model="bob") for o in OutcomeTable.read(out)]
    OutcomeTable.from_outcomes(rows).write(out)
    with pytest.raises(OutcomeError, match=r"o\.jsonl.*must have the text"):
        collect_into(out, make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:1])


@pytest.mark.parametrize("name", ["outcomes.txt", "no/such/folder/outcomes.jsonl"])
def test_a_table_that_cannot_be_written_is_refused_before_anybody_is_asked(tmp_path: Path, name: str):
    ann = ScriptedChatModel(script=RIGHT)
    with pytest.raises(OutcomeError, match=name):
        collect_into(tmp_path / name, make_pool(ann=ann), QUESTIONS)

    assert ann.asked == []
    assert list(tmp_path.iterdir()) == []
