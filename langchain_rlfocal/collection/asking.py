"""Asking: every member works through its own questions, within its own limits, and each answer is on record at once.

Members do not wait for each other: one that is slow, that its provider turns away, or whose circuit breaker is open holds up
its own line only. What is to be asked is claimed in the log, so that several processes share the work, and what is there
already is asked of nobody. Nothing here prints; whoever shows progress is given the `Tally` at each change.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import BaseMessage

from langchain_rlfocal.answers import label_answers, score_answer
from langchain_rlfocal.collection.config import (
    CollectConfig,
    check_questions,
    is_rule,
    is_scorable,
    needs_judge,
    scorers_of,
)
from langchain_rlfocal.collection.pricing import Estimator, messages_of
from langchain_rlfocal.collection.purses import Held, OwnPurse, Purse
from langchain_rlfocal.collection.runs import is_dead, new_run
from langchain_rlfocal.collection.shares import Share
from langchain_rlfocal.collection.tallies import MemberTally, Tally, Watch
from langchain_rlfocal.errors import InputError, OutcomeLogError, OverloadError
from langchain_rlfocal.execution import (
    AnswerLimits,
    ExecutionConfig,
    MemberRequest,
    Result,
    RetryPolicy,
    RoundRequest,
    SharedState,
    UnusableAnswerError,
    Usage,
    aask_members,
)
from langchain_rlfocal.execution.budgets import reserve
from langchain_rlfocal.execution.retries import may_have_cost, retry_after_s
from langchain_rlfocal.log import Attempt, Cell, OutcomeLog, ScoreRecord
from langchain_rlfocal.outcomes import Outcome, Question
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.scoring import Reply, Score, Scorer
from langchain_rlfocal.scoring.base import unscored

LEASE_S = 60.0
"""How long a claim holds that nobody renews: so long others wait for a machine that is lost."""

LINGER_S = 0.02
"""How long an answer waits for others to be written with it."""

GRACE_S = 5.0
"""How long a collection that is stopped waits for the calls that are out."""

POLL_S = 1.0
"""How often it looks for what other collectors have finished."""

SAME_FAILURES = 5
"""A member that never answered and fails so often in a row for the same reason, which no waiting mends, is given up."""

FAILED_PROBES = 3
"""So is one whose circuit breaker has opened so often in a row."""

SCORE_AT_ONCE_S = 0.05
"""An answer that takes longer than this to score is on record before it is scored."""

MAX_SCORING = 64
"""Answers that may wait for their score; with more, nobody is asked."""

MAX_WARM = 4
"""Kinds of answers that are tried out before anybody is asked."""

WRITE_AGAIN_S = (1.0, 2.0, 4.0, 8.0)
"""When writing is tried again where the log cannot be written; meanwhile nobody is asked."""


_T = TypeVar("_T")


# ---- collecting


def collect(
    pool: ModelPool,
    questions: Sequence[Question],
    *,
    log: OutcomeLog,
    config: CollectConfig | None = None,
    watch: Watch | None = None,
) -> Tally:
    """Ask every member every question that it has not answered yet, in an event loop of its own; see `acollect`."""
    return asyncio.run(acollect(pool, questions, log=log, config=config, watch=watch))


async def acollect(
    pool: ModelPool,
    questions: Sequence[Question],
    *,
    log: OutcomeLog,
    config: CollectConfig | None = None,
    watch: Watch | None = None,
    stop: asyncio.Event | None = None,
    run: str | None = None,
    share: Share | None = None,
    purse: Purse | None = None,
) -> Tally:
    """Ask every member every question that it has not answered yet, and record each answer at once.

    Several collections may work on one log at once, in this process or others: nothing is asked twice. Whoever cancels this
    cancels every call that is out; what had been answered is on record.

    Args:
        pool: Whom to ask.
        questions: What to ask. Answers to one without a right answer, and without a scorer that needs none, stay unscored.
        log: Where answers are recorded.
        config: How to collect.
        watch: Called at each change.
        stop: Once it is set nothing more is sent, and what is out has `GRACE_S` to come back.
        run: Name of this run, as `new_run` makes it.
        share: Which part of the work to begin with, where others do the rest at the same time; None for a work of one's own.
        purse: What may be spent, where others spend it too; None for the configuration's `max_usd`.

    Returns:
        What has come of it.

    Raises:
        OutcomeError: A question occurs twice, or is on record with another text.
        InputError: A scorer is unknown, or prices are unknown where `max_usd` needs them.
        OutcomeLogError: The log cannot be read or written; answers that are not on record are asked for again next time.
    """
    collection = _Collection(
        pool,
        questions,
        log=log,
        config=config or CollectConfig(),
        watch=watch,
        stop=stop or asyncio.Event(),
        run=run,
        share=share or Share(),
        purse=purse,
    )
    return await collection.run()


def failure_text(failure: Failure) -> str:
    """Write why a member failed, for the log and for people."""
    tries = f" (asked {len(failure.retries) + 1} times)" if failure.retries else ""
    return f"{failure.kind}: {failure.reason}{tries}"


class _Stopped(Exception):  # noqa: N818  # no error: the caller has had enough, or the budget has
    """Nothing more is asked."""


@dataclass(slots=True, eq=False)
class _Line:
    """One member's work."""

    member: PoolMember
    tally: MemberTally
    config: ExecutionConfig
    todo: deque[Cell]
    others: list[Cell] = field(default_factory=list)
    shared: SharedState = field(default_factory=SharedState)
    claimed: deque[Cell] = field(default_factory=deque)
    elsewhere: list[Cell] = field(default_factory=list)
    claiming: asyncio.Lock = field(default_factory=asyncio.Lock)
    not_before_s: float = 0.0
    last_cause: tuple[str, str] | None = None
    num_same: int = 0
    num_probes: int = 0
    is_probing: bool = False

    @property
    def num_workers(self) -> int:
        return self.config.max_concurrent_calls or 1

    def heard(self, result: Result) -> None:
        """Learn from what came back whether asking on can help."""
        if isinstance(result, Candidate):
            self.last_cause, self.num_same, self.num_probes = None, 0, 0
            return
        error = result.error
        if result.is_retryable or isinstance(error, UnusableAnswerError | ContextOverflowError):
            return  # it may pass, or is of this question
        cause = (result.kind, "".join("#" if char.isdigit() else char for char in result.reason))
        self.num_same = self.num_same + 1 if cause == self.last_cause else 1
        self.last_cause = cause
        if self.num_same >= SAME_FAILURES and not self.tally.answered and self.tally.given_up is None:
            self.tally.given_up = f"it failed {self.num_same} times in a row with {failure_text(result)}"


class _Collection:
    """One run."""

    def __init__(
        self,
        pool: ModelPool,
        questions: Sequence[Question],
        *,
        log: OutcomeLog,
        config: CollectConfig,
        watch: Watch | None,
        stop: asyncio.Event,
        run: str | None,
        share: Share,
        purse: Purse | None,
    ) -> None:
        self._log, self._config, self._stop, self._share = log, config, stop, share
        self._questions = {(question.task, question.query_id): question for question in questions}
        self._asked_for = questions
        self._run = run or new_run()
        self._watch = watch or _watch_nothing
        self._scorers = scorers_of(questions, config)
        self.tally = Tally(members={member.name: MemberTally(name=member.name) for member in pool})
        self._lines = [self._line_of(column, member) for column, member in enumerate(pool)]
        self._purse = purse or OwnPurse(config.max_usd)
        self._estimator = Estimator(output_tokens=config.output_tokens)
        self._settled = asyncio.Event()
        self._unwritten: list[Attempt | ScoreRecord] = []
        self._has_unwritten = asyncio.Event()
        self._is_closing = self._has_lost_writer = False
        self._to_score: list[Attempt] = []
        self._scoring: set[asyncio.Task[None]] = set()
        self._can_write = asyncio.Event()
        self._can_write.set()
        # One thread, since what a log is told comes in an order; the loop must not wait for disks.
        self._thread = ThreadPoolExecutor(1, "rlfocal-log")

    def _line_of(self, column: int, member: PoolMember) -> _Line:
        tally = self.tally.members[member.name]
        cap = member.max_concurrent_calls or self._config.max_concurrent_calls

        def notice(error: Exception) -> None:
            """See what a provider asks for: others of the member must wait too, not only who was turned away."""
            asked_s = retry_after_s(error, wall_s=time.time())
            if asked_s:
                line.not_before_s = max(line.not_before_s, self._now_s() + asked_s)

        retry = replace(self._config.retry, retry_on=_noticing(notice, self._config.retry))
        cells = [
            (question.task, question.query_id, member.name, sample)
            for question in self._asked_for
            for sample in range(self._config.samples)
        ]
        own, others = self._share.cells(column, cap, cells)
        calls = max(self._share.calls(column, cap), 1)
        line = _Line(
            member, tally, ExecutionConfig(retry=retry, max_concurrent_calls=calls), deque(own), others=[*others]
        )
        tally.total = len(cells)
        return line

    # ---- from begin to end

    async def run(self) -> Tally:
        """Collect."""
        try:
            await self._prepare()
            self._changed()
            writer = asyncio.create_task(self._write_on())
            renewer = asyncio.create_task(self._renew_on())
            try:
                await self._work(writer)
            finally:
                await _cancelled([renewer])
                await self._finish(writer)
        finally:
            self._thread.shutdown()
            if self._has_lost_writer:  # a member raised what ends the program, and with it every task
                self._add()
        if self.tally.ended == "running":
            self.tally.ended = "stopped" if self._stop.is_set() else "complete"
        self._changed()
        return self.tally

    async def _work(self, writer: "asyncio.Task[None]") -> None:
        """Have every member asked; the writer ends before that only where the log cannot be written."""
        workers = [asyncio.create_task(self._work_on(line)) for line in self._lines for _ in range(line.num_workers)]
        everything = asyncio.create_task(_all_of([*workers, asyncio.create_task(self._score_recorded())]))
        stopping = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([everything, stopping, writer], return_when=asyncio.FIRST_COMPLETED)
            if self._stop.is_set():
                await asyncio.wait([everything, writer], timeout=GRACE_S, return_when=asyncio.FIRST_COMPLETED)
            if everything.done() and not writer.done():
                everything.result()
                await self._scored()
        finally:
            await _cancelled([stopping, everything, *workers, *self._scoring])

    async def _finish(self, writer: "asyncio.Task[None]") -> None:
        """Record what has come back, and give up what is claimed."""
        self._is_closing = True
        self._has_unwritten.set()
        try:
            await asyncio.shield(writer)
        finally:
            self._has_lost_writer = writer.cancelled()
            with suppress(OutcomeLogError):  # then the claims end by themselves
                await asyncio.shield(self._told(partial(self._log.release, self._run)))

    async def _prepare(self) -> None:
        """See what is on record, and take over what dead runs had claimed."""
        config = self._config
        known = await self._told(self._log.questions)
        check_questions(self._asked_for, known, samples=config.samples)
        self._check_prices()
        await self._told(lambda: self._log.add_questions(self._asked_for))
        await self._told(lambda: forget_dead_runs(self._log))
        wanted = {cell for line in self._lines for cell in (*line.todo, *line.others)}
        answered, failed, self._to_score, self._estimator = await self._told(lambda: self._recorded(wanted))
        await self._told(partial(_warm_up, self._asked_for))
        for line in self._lines:
            line.tally.on_record = sum(cell in answered for cell in (*line.todo, *line.others))
            skipped = answered if config.retry_failed else answered | failed
            line.todo = deque(cell for cell in line.todo if cell not in skipped)
            line.others = [cell for cell in line.others if cell not in skipped]
        if not self._share.scores_recorded:
            self._to_score.clear()

    def _recorded(self, wanted: set[Cell]) -> tuple[set[Cell], set[Cell], list[Attempt], Estimator]:
        answered, failed, to_score = set[Cell](), set[Cell](), list[Attempt]()
        estimator = Estimator(output_tokens=self._config.output_tokens)
        for attempt in self._log.attempts():
            estimator.learn(attempt)
            cell = attempt.cell
            if cell[:2] not in self._questions:
                continue
            if attempt.failure is not None:
                failed.add(cell)
                continue
            answered.add(cell)
            if self._is_outdated(attempt):
                if self._is_by_rule(attempt):
                    to_score.append(attempt)
                else:
                    self.tally.outdated += 1
            elif cell in wanted and attempt.outcome.reward is None and attempt.scorer is None and not attempt.scrubbed:
                if self._scorer_of(cell) is None:
                    self.tally.unscored += 1
                else:
                    to_score.append(attempt)
        return answered, failed, to_score, estimator

    def _is_outdated(self, attempt: Attempt) -> bool:
        """Tell whether an answer has a reward by another right answer than its question has now."""
        gold, reward = self._questions[attempt.cell[:2]].gold, attempt.outcome.reward
        return (
            reward is not None
            and not attempt.scrubbed
            and None not in (gold, attempt.outcome.gold)
            and gold != attempt.outcome.gold
        )

    def _is_by_rule(self, attempt: Attempt) -> bool:
        """Tell whether a reward was made by the rule that scores the question, so that nobody's verdict is lost with it."""
        scorer = self._scorer_of(attempt.cell)
        spec = self._questions[attempt.cell[:2]].scorer or self._config.scorer
        return scorer is not None and attempt.scorer == scorer.name and is_rule(spec, scorer)

    def _check_prices(self) -> None:
        config = self._config
        if config.max_usd is None or config.unpriced_usd is not None:
            return
        members = [line.member for line in self._lines]
        judge = config.judge
        if judge is not None and any(needs_judge(scorer) for scorer in self._scorers.values() if scorer is not None):
            members.append(judge)
        unknown = [m.name for m in members if m.cost_usd(prompt_tokens=1, completion_tokens=1) is None]
        if unknown:
            raise InputError(
                f"`max_usd` needs prices, and those of {', '.join(unknown)} are unknown. Give them in the pool, or say what "
                "a call of theirs counts as (`--unpriced-as`; 0 for models of your own)."
            )

    # ---- one member's line

    async def _work_on(self, line: _Line) -> None:
        try:
            while (cell := await self._next(line)) is not None:
                await self._ask(line, cell)
        except _Stopped:
            pass
        finally:
            if line.tally.in_flight == 0:
                line.tally.waits_for = None
        if line.tally.given_up is not None and line.claimed:  # others may have more luck
            left = [*line.claimed]
            line.claimed.clear()
            await self._patiently(partial(self._log.release, self._run, left))

    async def _next(self, line: _Line) -> Cell | None:
        """Return a claimed cell; None where nothing is left to ask of the member."""
        while not self._is_over(line):
            if line.claimed:
                return line.claimed.popleft()
            async with line.claiming:
                if line.claimed or self._is_over(line):
                    continue
                if line.todo:
                    await self._claim(line, [*islice(line.todo, 2 * line.num_workers)])
                    for _ in range(min(len(line.todo), 2 * line.num_workers)):
                        line.todo.popleft()
                elif line.others:
                    settled = await self._patiently(partial(self._settled_among, line.others))
                    line.todo.extend(cell for cell in line.others if cell not in settled)
                    line.others = []
                elif line.elsewhere:
                    await self._look_elsewhere(line)
                else:
                    return None
        return None

    def _is_over(self, line: _Line) -> bool:
        return self._stop.is_set() or line.tally.given_up is not None

    async def _claim(self, line: _Line, cells: list[Cell]) -> None:
        since = self._share.failed_since
        got = await self._patiently(lambda: self._log.claim(cells, run=self._run, lease_s=LEASE_S, failed_since=since))
        line.claimed.extend(got)
        taken = set(got)
        line.elsewhere += [cell for cell in cells if cell not in taken]

    async def _look_elsewhere(self, line: _Line) -> None:
        """Wait for what other collectors have claimed; what they leave undone is asked here."""
        line.tally.waits_for = "another collector"
        self._changed()
        answered = await self._patiently(partial(self._settled_among, line.elsewhere))
        left = [cell for cell in line.elsewhere if cell not in answered]
        line.tally.elsewhere += len(line.elsewhere) - len(left)
        line.elsewhere = []
        if left:
            await self._patiently(lambda: forget_dead_runs(self._log))
            await self._claim(line, left)
            if not line.claimed:
                await self._pause(POLL_S)
        line.tally.waits_for = None
        self._changed()

    def _settled_among(self, cells: Sequence[Cell]) -> set[Cell]:
        """Return which of these nobody is to ask any more."""
        if self._share.failed_since is None:
            return self._log.answered(cells)
        return self._log.answered(cells, failed_since=self._share.failed_since)

    async def _ask(self, line: _Line, cell: Cell) -> None:
        question, tally = self._questions[cell[:2]], line.tally
        is_probe, verdict = await self._ready(line), None
        try:
            call, verdict = await self._afford(line, question)
            result = await self._answer_of(line, question, call)
            if isinstance(result, Candidate):
                self._score_soon(question, self._answered(question, cell, result, tally), verdict)
                verdict = None
        finally:
            line.is_probing = line.is_probing and not is_probe
            if verdict is not None:
                self._settle(verdict, 0.0)
        if result is None or (isinstance(result, Failure) and result.kind in {"breaker_open", "cancelled"}):
            line.claimed.appendleft(cell)  # it was not asked
            return
        line.heard(result)
        if isinstance(result, Failure):
            tally.failed += 1
            tally.first_failure = tally.first_failure or failure_text(result)
            self._record(self._failed(question, cell, result))
        self._changed()

    async def _answer_of(self, line: _Line, question: Question, held: Held) -> Result | None:
        """Ask one member one question; None where nothing was sent."""
        spent_usd = held.bound.usd  # of a call that is cut off, and may be on the bill
        line.tally.in_flight += 1
        self._changed()
        prepare = _with_tools(question) if question.tools else None
        request = RoundRequest(messages=messages_of(question), round_number=1, prepare=prepare, has_listeners=False)
        limits = AnswerLimits(line.config, shared=line.shared, clock=self._now_s)
        try:
            (result,) = await aask_members([line.member], request, limits)
            spent_usd = self._spent_usd(line.member, question, result)
        except OverloadError as error:
            spent_usd = 0.0
            await self._pause(error.retry_after_s)
            return None
        else:
            return result
        finally:
            line.tally.in_flight -= 1
            self._settle(held, spent_usd)

    async def _ready(self, line: _Line) -> bool:
        """Wait until the member may be asked, and tell whether the call probes an open circuit breaker.

        Raises:
            _Stopped: Nothing more is asked of it.
        """
        while True:
            if self._is_over(line):
                raise _Stopped
            now_s = self._now_s()
            breaker = line.shared.breakers.state(line.member.name, now_s)
            if not self._can_write.is_set():
                line.tally.waits_for = "the log"
                await self._first_of(self._can_write.wait())
            elif len(self._scoring) >= MAX_SCORING:
                line.tally.waits_for = "scores"
                await self._first_of(asyncio.wait([*self._scoring], return_when=asyncio.FIRST_COMPLETED))
            elif line.not_before_s > now_s:
                line.tally.waits_for = "its rate limit"
                self._changed()
                await self._pause(line.not_before_s - now_s)
            elif breaker.state == "closed":
                line.tally.waits_for = None
                return False
            elif line.num_probes >= FAILED_PROBES and not line.is_probing:
                line.tally.given_up = f"it did not recover; its first failure: {line.tally.first_failure}"
            elif breaker.state == "open" or line.is_probing:
                line.tally.waits_for = "its provider"
                self._changed()
                await self._pause(breaker.retry_in_s or POLL_S)
            else:
                line.is_probing = True
                line.num_probes += 1
                line.tally.waits_for = None
                return True

    # ---- what it costs

    async def _afford(self, line: _Line, question: Question) -> tuple[Held, Held]:
        """Reserve what one call, and judging its answer, is estimated to take at most.

        Raises:
            _Stopped: The budget does not suffice.
        """

        def call_usd() -> float:
            usd = self._estimator.call_usd(line.member, question, at_most=True)
            return (self._config.unpriced_usd or 0.0) if usd is None else usd

        line.tally.waits_for = "the budget"
        held = await self._held(call_usd, lambda: self._judge_usd(line.member, question))
        line.tally.waits_for = None
        if held is not None and not self._is_over(line):
            return held[0], held[1]
        for one in held or ():
            self._settle(one, 0.0)
        if held is None and not self._is_over(line):
            line.tally.given_up, self.tally.ended = "the budget is spent", "budget"
        raise _Stopped

    async def _held(self, *usd: Callable[[], float]) -> Sequence[Held] | None:
        """Hold all of these amounts, once calls that are out hold no more than leaves room for them; None where that never is."""
        if self._config.max_usd is None:
            return [reserve(Usage(), ()) for _ in usd]
        while not self._stop.is_set():
            held = await self._purse.hold([amount() for amount in usd])
            if held == "never":
                return None
            if held != "later":
                return held
            if self._purse.poll_s is not None:
                await self._pause(self._purse.poll_s)
                continue
            self._settled.clear()
            await self._first_of(self._settled.wait())
        return None

    def _settle(self, held: Held, usd: float) -> None:
        held.settle(Usage(usd=usd))
        self._settled.set()

    def _judge_usd(self, member: PoolMember | None, question: Question) -> float:
        """Estimate what judging an answer takes at most; of a member that is not in the pool only rules score again."""
        judge, scorer = self._config.judge, self._scorers[question.scorer or self._config.scorer]
        if member is None or judge is None or not needs_judge(scorer) or not is_scorable(question, self._config):
            return 0.0
        usd = self._estimator.judge_usd(judge, scorer.name, question, member, at_most=True)
        return (self._config.unpriced_usd or 0.0) if usd is None else usd

    def _spent_usd(self, member: PoolMember, question: Question, result: Result) -> float:
        """Tell what a call has cost, estimated where it does not say; scoring is booked when it is done."""
        if self._config.max_usd is None:
            return 0.0
        usd = self._estimator.call_usd(member, question)
        each = (self._config.unpriced_usd or 0.0) if usd is None else usd
        tries = [*result.retries, *([result] if isinstance(result, Failure) else [])]
        billed = sum(try_.error is None or may_have_cost(try_.error) for try_ in tries)
        if isinstance(result, Failure):
            return each * billed
        return each * billed + (each if result.cost_usd is None else result.cost_usd)

    # ---- what it is worth

    def _scorer_of(self, cell: Cell) -> Scorer | None:
        """What scores the answers to a question; None where nothing can."""
        question = self._questions[cell[:2]]
        if not is_scorable(question, self._config):
            return None
        return self._scorers[question.scorer or self._config.scorer]

    def _score_soon(self, question: Question, attempt: Attempt, held: Held, *, is_recorded: bool = False) -> None:
        """Have an answer scored while others are asked for."""
        task = asyncio.create_task(self._score(question, attempt, held, is_recorded=is_recorded))
        self._scoring.add(task)
        task.add_done_callback(self._has_scored)

    async def _score(self, question: Question, attempt: Attempt, held: Held, *, is_recorded: bool) -> None:
        """Have an answer scored, and record both; the answer alone at once where scoring takes its time."""
        scorer = self._scorer_of(attempt.cell)
        if scorer is None:
            self.tally.unscored += 1
            self._record(attempt)
            self._settle(held, 0.0)
            return
        reply = Reply(text=attempt.outcome.response, tool_calls=attempt.tool_calls)
        scoring = asyncio.ensure_future(scorer.score(question, reply))
        score: Score | None = None
        spent_usd = held.bound.usd  # of a verdict that is cut off
        try:
            if not is_recorded:
                done, _ = await asyncio.wait([scoring], timeout=SCORE_AT_ONCE_S)
                if not done:
                    is_recorded = True
                    self._record(attempt)
            score = await scoring
            spent_usd = self._spent_on(scorer, score)
        except Exception as error:  # noqa: BLE001  # a scorer is the user's code, or another model
            score = unscored(error, cost_usd=None)
        finally:
            scoring.cancel()
            self._settle(held, spent_usd)
            if score is None and not is_recorded:  # cancelled
                self._record(attempt)
        self._take_score(question, attempt, scorer, score, is_recorded=is_recorded)

    def _spent_on(self, scorer: Scorer, score: Score) -> float:
        if not needs_judge(scorer):
            return score.cost_usd or 0.0
        usd = self._config.unpriced_usd if score.cost_usd is None else score.cost_usd
        self._estimator.learn_judged(scorer.name, usd)
        return usd or 0.0

    def _take_score(
        self, question: Question, attempt: Attempt, scorer: Scorer, score: Score, *, is_recorded: bool
    ) -> None:
        self.tally.scoring_usd += score.cost_usd or 0.0
        if score.value is None:
            if attempt.outcome.reward is None:
                self.tally.unscored += 1
            else:
                self.tally.outdated += 1
            self.tally.first_scoring_error = self.tally.first_scoring_error or score.reason
            if not is_recorded:  # without a scorer's name: the next run tries again
                self._record(replace(attempt, scoring_usd=score.cost_usd))
        elif is_recorded:
            self._record(
                ScoreRecord(
                    cell=attempt.cell,
                    reward=score.value,
                    scorer=scorer.name,
                    gold=question.gold,
                    reason=score.reason,
                    usd=score.cost_usd,
                )
            )
        else:
            outcome = replace(attempt.outcome, reward=score.value)
            self._record(replace(attempt, outcome=outcome, scorer=scorer.name, scoring_usd=score.cost_usd))

    async def _score_recorded(self) -> None:
        """Score what earlier runs left unscored, and by rules again what was held against another right answer.

        They ended while it was being scored, or had no scorer.
        """
        members = {line.member.name: line.member for line in self._lines}
        for attempt in self._to_score:
            while len(self._scoring) >= MAX_SCORING and not self._stop.is_set():
                await self._first_of(asyncio.wait([*self._scoring], return_when=asyncio.FIRST_COMPLETED))
            question = self._questions[attempt.cell[:2]]
            held = await self._held(partial(self._judge_usd, members.get(attempt.outcome.model), question))
            if held is None:
                return
            self._score_soon(question, attempt, held[0], is_recorded=True)
            self.tally.scored += 1

    def _has_scored(self, task: "asyncio.Task[None]") -> None:
        self._scoring.discard(task)
        self._changed()

    async def _scored(self) -> None:
        """Wait for what is being scored; for a while only, once the collection is stopped."""
        while self._scoring and not self._stop.is_set():
            await self._first_of(asyncio.wait([*self._scoring]))
        if self._scoring:
            await asyncio.wait([*self._scoring], timeout=GRACE_S)

    # ---- the log

    def _failed(self, question: Question, cell: Cell, failure: Failure) -> Attempt:
        outcome = self._outcome(question, cell, response=None, reward=0.0, latency_s=failure.latency_s)
        return Attempt(outcome=outcome, sample=cell[3], failure=failure_text(failure))

    def _answered(self, question: Question, cell: Cell, candidate: Candidate, tally: MemberTally) -> Attempt:
        tally.answered += 1
        tally.truncated += candidate.flaw == "truncated"
        tally.prompt_tokens += candidate.prompt_tokens or 0
        tally.completion_tokens += candidate.completion_tokens or 0
        tally.unpriced += candidate.cost_usd is None
        tally.usd += candidate.cost_usd or 0.0
        outcome = self._outcome(
            question,
            cell,
            response=candidate.text,
            reward=None,
            latency_s=candidate.latency_s,
            prompt_tokens=candidate.prompt_tokens,
            completion_tokens=candidate.completion_tokens,
            cost_usd=candidate.cost_usd,
            logprob=candidate.logprob,
        )
        calls = tuple({name: call[name] for name in ("name", "args", "id")} for call in candidate.message.tool_calls)
        attempt = Attempt(outcome=outcome, sample=cell[3], tool_calls=calls)
        self._estimator.learn(attempt)
        return attempt

    @staticmethod
    def _outcome(question: Question, cell: Cell, **known: object) -> Outcome:
        facts = {"task": question.task, "query_id": question.query_id, "query": question.query, "gold": question.gold}
        return Outcome(**facts, model=cell[2], answer=None, **known)  # type: ignore[arg-type]  # fields by name

    def _record(self, what: Attempt | ScoreRecord) -> None:
        self._unwritten.append(what)
        self._has_unwritten.set()

    async def _write_on(self) -> None:
        """Write what has come back, until nothing more can."""
        while not self._is_closing or self._unwritten:
            await self._has_unwritten.wait()
            if not self._is_closing:
                await asyncio.sleep(LINGER_S)
            try:
                await self._patiently(self._add)
            except OutcomeLogError as error:
                lost = sum(isinstance(one, Attempt) for one in self._unwritten)
                raise OutcomeLogError(
                    f"{error} {lost:,} answers could not be recorded, and are asked for again by the next run."
                ) from error
            if not self._unwritten:
                self._has_unwritten.clear()

    async def _patiently(self, what: Callable[[], _T]) -> _T:
        """Do something with the log, again and again for a while where it cannot be used; meanwhile nobody is asked."""
        for wait_s in WRITE_AGAIN_S:
            try:
                done = await self._told(what)
            except OutcomeLogError as error:
                self.tally.trouble = str(error)
                self._can_write.clear()
                self._changed()
                await asyncio.sleep(wait_s)
            else:
                self.tally.trouble = None
                self._can_write.set()
                return done
        return await self._told(what)

    def _add(self) -> None:
        """Write what has come back so far, in the log's thread."""
        batch = [*self._unwritten]
        attempts = [one for one in batch if isinstance(one, Attempt)]
        scores = [one for one in batch if isinstance(one, ScoreRecord)]
        # Taken off the list here, so that what is written is known to be, even if nobody waits for it any more.
        if attempts:
            self._log.add_attempts(attempts, run=self._run)
            self._unwritten[: len(batch)] = scores
        if scores:
            self._log.add_scores(scores, run=self._run)
            del self._unwritten[: len(scores)]

    async def _renew_on(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            with suppress(OutcomeLogError):  # the writer has more patience, and says so
                await self._told(lambda: self._log.renew(self._run, lease_s=LEASE_S))

    # ---- waiting

    async def _told(self, what: Callable[[], _T]) -> _T:
        """Do something with the log, in its thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, what)

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until the collection is stopped."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _first_of(self, what: Awaitable[object]) -> None:
        """Wait for something, but no longer than until the collection is stopped."""
        tasks = [asyncio.ensure_future(what), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _cancelled(tasks)

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()

    def _changed(self) -> None:
        self._watch(self.tally)


# ---- helpers


def _warm_up(questions: Sequence[Question]) -> None:
    """Load what comparing answers needs before the first has come: until it is scored, or known to take long, it is not on record."""
    of_kinds = {question.kind: question for question in questions if question.gold is not None}
    for question in islice(of_kinds.values(), MAX_WARM):
        label_answers([question.gold], question.kind, query=question.query)
        score_answer(question.gold, question.gold or "", question.kind, query=question.query)


def forget_dead_runs(log: OutcomeLog) -> None:
    """Give up what runs of this machine had claimed whose process is gone."""
    for run in log.runs():
        if is_dead(run):
            log.release(run)


def _with_tools(question: Question) -> Callable[[PoolMember, list[BaseMessage]], MemberRequest]:
    def prepare(member: PoolMember, messages: list[BaseMessage]) -> MemberRequest:
        return MemberRequest(member.model.bind_tools([dict(tool) for tool in question.tools]), messages, {})

    return prepare


def _noticing(notice: Callable[[Exception], None], policy: RetryPolicy) -> Callable[[Exception], bool]:
    """Decide as a policy does, and have each error noticed."""

    def decide(error: Exception) -> bool:
        notice(error)
        return policy.is_retryable(error)

    return decide


def _watch_nothing(_: Tally) -> None:
    """Show nothing."""


async def _all_of(tasks: Sequence["asyncio.Task[None]"]) -> None:
    try:
        await asyncio.gather(*tasks)
    finally:
        await _cancelled(tasks)


async def _cancelled(tasks: "Iterable[asyncio.Future[Any]]") -> None:
    """Cancel what still runs, and wait until it has ended."""
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
