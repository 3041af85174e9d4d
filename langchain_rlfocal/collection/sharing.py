"""A collection that several workers of an engine share, on one log.

Each of them is a run of its own (see `asking`), and what the log knows makes that nothing is asked twice: claims, answers, and
failures since the collection began. A worker that is killed is replaced; what it had claimed is free again at once where its
process is known to be gone, else when its lease ends. What it may have spent on calls that were out stays spent. Counts are those
of all workers; of a run that was killed, those of the log.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace

from langchain_rlfocal.collection.asking import acollect
from langchain_rlfocal.collection.config import CollectConfig, check_questions, scorers_of
from langchain_rlfocal.collection.purses import Held, OwnPurse, Refusal
from langchain_rlfocal.collection.runs import new_run
from langchain_rlfocal.collection.shares import Share
from langchain_rlfocal.collection.tallies import MemberTally, Tally, Watch
from langchain_rlfocal.engines import Engine, Handle
from langchain_rlfocal.errors import InputError, RLFocalError
from langchain_rlfocal.execution import Usage
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.pool import ModelPool

TELL_S = 0.2
"""How often a worker tells what has come of its work."""

Opening = Callable[[], AbstractContextManager[tuple[ModelPool, CollectConfig]]]
"""Opens a pool, and says how to collect, where a worker is. Workers of other processes get it by pickle, which most models do not
bear: name a function of a module, or a `functools.partial` of one."""


class Desk:
    """What all workers of a collection know: what may still be spent, what each has done, and whether to stop.

    Args:
        max_usd: Dollars that all of them may spend together; None for any amount.
    """

    def __init__(self, max_usd: float | None) -> None:
        self._purse = OwnPurse(max_usd)
        self._held: dict[str, dict[int, Held]] = {}
        self._number = 0
        self._tallies: dict[str, tuple[int, Tally]] = {}
        self._lost: set[str] = set()
        self._is_stopping = False

    def hold(self, run: str, usd: Sequence[float]) -> list[int] | Refusal:
        """Hold amounts for a run, each under a number; nothing for one that is lost, whose last words may come late."""
        if run in self._lost:
            return "never"
        held = self._purse.hold_now(usd)
        if isinstance(held, str):
            return held
        numbers = [*range(self._number, self._number + len(held))]
        self._number += len(held)
        self._held.setdefault(run, {}).update(zip(numbers, held, strict=True))
        return numbers

    def tell(self, worker: int, run: str, tally: Tally, settled: Sequence[tuple[int, float]]) -> bool:
        """Take in what has come of a run, and what its calls took; tell whether it is to stop."""
        self._tallies[run] = (worker, tally)
        held = self._held.get(run, {})
        for number, usd in settled:
            if number in held:  # told for the first time
                held.pop(number).settle(Usage(usd=usd))
        return self._is_stopping

    def lose(self, worker: int) -> None:
        """A worker is no more: what its calls held may have been spent."""
        for run, (of, tally) in self._tallies.items():
            if of == worker:
                self._lost.add(run)
                for held in self._held.pop(run, {}).values():
                    held.settle(held.bound)
                tally.ended = "stopped"
                for member in tally.members.values():
                    member.in_flight = 0

    def stop(self) -> None:
        """Have all workers stop."""
        self._is_stopping = True

    def tallies(self) -> dict[str, tuple[int, Tally]]:
        """Return each run's worker, and what has come of it."""
        return self._tallies


@dataclass(frozen=True, slots=True)
class _Amount:
    """What one call holds at the desk."""

    bound: Usage
    number: int
    settled: list[tuple[int, float]]

    def settle(self, actual: Usage) -> None:
        if all(number != self.number for number, _ in self.settled):
            self.settled.append((self.number, actual.usd))


@dataclass(slots=True)
class _DeskPurse:
    """What a worker may spend: what the desk lets it."""

    desk: Handle
    run: str
    settled: list[tuple[int, float]] = field(default_factory=list)
    poll_s: float | None = TELL_S

    async def hold(self, usd: Sequence[float]) -> Sequence[Held] | Refusal:
        numbers: list[int] | Refusal = await self.desk.acall("hold", self.run, [*usd])
        if isinstance(numbers, str):
            return numbers
        amounts = zip(usd, numbers, strict=True)
        return [_Amount(Usage(usd=amount), number, self.settled) for amount, number in amounts]


@dataclass(frozen=True, slots=True)
class _Begin:
    """What every worker begins with; picklable."""

    opening: Opening
    questions: Sequence[Question]
    log: OutcomeLog
    desk: Handle
    workers: int
    failed_since: int

    def __call__(self) -> "Callable[[int], tuple[str, Tally]]":
        return self.ask

    def ask(self, worker: int) -> tuple[str, Tally]:
        """Collect until nothing is left; the last worker, which comes after the others, does what these left undone."""
        count = self.workers if worker < self.workers else 1
        share = Share(
            number=worker % self.workers if count > 1 else 0,
            count=count,
            failed_since=self.failed_since,
            scores_recorded=worker in (0, self.workers),
        )
        with self.opening() as (pool, config):
            return asyncio.run(self._ask(worker, share, pool, config))

    async def _ask(self, worker: int, share: Share, pool: ModelPool, config: CollectConfig) -> tuple[str, Tally]:
        run, stop = new_run(), asyncio.Event()
        purse = _DeskPurse(self.desk, run)
        tally = Tally(members={name: MemberTally(name=name) for name in pool.names})

        async def tell() -> None:
            settled = [*purse.settled]
            if await self.desk.acall("tell", worker, run, tally, settled):
                stop.set()
            del purse.settled[: len(settled)]  # only now: where this is cut off, all is told again

        async def tell_on() -> None:
            try:
                while True:
                    await asyncio.sleep(TELL_S)
                    await tell()
            except Exception:
                stop.set()  # whoever led the collection is gone
                raise

        def watch(now: Tally) -> None:
            nonlocal tally
            tally = now

        await tell()
        telling = asyncio.create_task(tell_on())
        try:
            tally = await acollect(
                pool,
                self.questions,
                log=self.log,
                config=config,
                watch=watch,
                stop=stop,
                run=run,
                share=share,
                purse=purse,
            )
        finally:
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
            await tell()
        return run, tally


def collect_shared(
    members: Sequence[str],
    questions: Sequence[Question],
    *,
    log: OutcomeLog,
    config: CollectConfig,
    opening: Opening,
    engine: Engine,
    watch: Watch | None = None,
    stop: asyncio.Event | None = None,
    on_death: Callable[[str], None] | None = None,
) -> Tally:
    """Ask every member every question that it has not answered yet, by all workers of an engine; see `acollect`.

    Limits of calls at once and of dollars hold for all workers together; what a provider asks to wait for, and circuit breakers, are
    each worker's own.

    Args:
        members: The pool's members, in its order.
        questions: What to ask.
        log: Where answers are recorded; workers on several machines need one on a server.
        config: How to collect; workers have theirs from `opening`.
        opening: Opens the pool where a worker is.
        engine: Where the workers are.
        watch: Called several times a second.
        stop: Once it is set nothing more is sent.
        on_death: Told why a worker died; another takes its place.

    Raises:
        InputError: The log is a file, and the engine has several machines; or as of `acollect`.
        OutcomeLogError: The log cannot be read or written.
        WorkerError: No worker can begin, or several died in a row over one part.
    """
    check_place(log, engine)
    check_questions(questions, log.questions(), samples=config.samples)
    scorers_of(questions, config)
    stop, since = stop or asyncio.Event(), log.num_attempts
    desk = engine.share(Desk(config.max_usd))
    tally = Tally(
        members={name: MemberTally(name=name, total=len(questions) * config.samples) for name in members},
    )
    before = _on_record(log, questions, members, config)
    for cell in before.answered:
        tally.members[cell[2]].on_record += 1
    tally.unscored, tally.outdated = before.unscored, before.outdated
    finished: dict[str, Tally] = {}
    errors: list[Exception] = []
    num_deaths = 0

    def look() -> None:
        if stop.is_set():
            desk.call("stop")
        told: dict[str, tuple[int, Tally]] = desk.call("tallies")
        _add_up(tally, [finished.get(run, one) for run, (_, one) in told.items()], unscored=before.unscored)
        if watch is not None:
            watch(tally)

    def lose(worker: int, reason: str) -> None:
        nonlocal num_deaths
        num_deaths += 1
        desk.call("lose", worker)
        if on_death is not None:
            on_death(reason)

    def work(workers: Sequence[int]) -> None:
        begin = _Begin(opening, questions, log, desk, engine.workers, since)
        for done in engine.map(begin, workers, on_wait=look, on_death=lose):
            if done.value is not None:
                finished[done.value[0]] = done.value[1]
            else:
                errors.append(done.error or RLFocalError("A worker ended without a word."))
                desk.call("stop")

    look()
    work(range(engine.workers))
    if num_deaths and not errors and not stop.is_set():  # what the dead left unscored, or claimed on another machine
        work([engine.workers])
    if errors:
        raise errors[0]
    told: dict[str, tuple[int, Tally]] = desk.call("tallies")
    parts = [finished[run] if run in finished else _from_log(log, run, one) for run, (_, one) in told.items()]
    _add_up(tally, parts, unscored=before.unscored)
    after = _on_record(log, questions, members, config)
    tally.unscored, tally.outdated = after.unscored, after.outdated
    for member in tally.members.values():
        answered = sum(cell[2] == member.name for cell in after.answered)
        member.elsewhere = max(answered - member.on_record - member.answered, 0)
        member.given_up = (
            next((part.members[member.name].given_up for part in parts if part.members[member.name].given_up), None)
            if member.missing
            else None
        )
    ends = {part.ended for part in finished.values()}
    tally.ended = "stopped" if stop.is_set() else "budget" if "budget" in ends else "complete"
    if watch is not None:
        watch(tally)
    return tally


def check_place(log: OutcomeLog, engine: Engine) -> None:
    """Check that all workers reach a log.

    Raises:
        InputError: It is a file, and there are several machines.
    """
    if log.path is not None and engine.machines > 1:
        raise InputError(
            f"Workers on {engine.machines} machines must share a log on a server, got the file {log.name}. Give `--log postgresql://...`, "
            "or an engine of one machine."
        )


# ---- adding up


@dataclass(slots=True)
class _Known:
    answered: set[tuple[str, str, str, int]] = field(default_factory=set)
    unscored: int = 0
    outdated: int = 0


def _on_record(log: OutcomeLog, questions: Sequence[Question], members: Sequence[str], config: CollectConfig) -> _Known:
    """See what is on record of what is wanted."""
    asked = {(question.task, question.query_id): question for question in questions}
    known, names = _Known(), frozenset(members)
    for attempt in log.attempts():
        question = asked.get(attempt.cell[:2])
        if question is None or attempt.failure is not None:
            continue
        outcome, is_wanted = attempt.outcome, attempt.outcome.model in names and attempt.sample < config.samples
        if is_wanted:
            known.answered.add(attempt.cell)
        if attempt.scrubbed:
            continue
        if outcome.reward is not None:
            known.outdated += None not in (question.gold, outcome.gold) and question.gold != outcome.gold
        elif is_wanted and attempt.scorer is None:
            known.unscored += 1
    return known


_SUMS = ("answered", "failed", "prompt_tokens", "completion_tokens", "usd", "unpriced", "truncated", "in_flight")


def _add_up(into: Tally, parts: Sequence[Tally], *, unscored: int) -> None:
    """Make a tally that of all workers."""
    running = [part for part in parts if part.ended == "running"]
    for member in into.members.values():
        ones = [part.members[member.name] for part in parts if member.name in part.members]
        for name in _SUMS:
            setattr(member, name, sum(getattr(one, name) for one in ones))
        member.first_failure = next((one.first_failure for one in ones if one.first_failure), None)
        waits = {part.members[member.name].waits_for for part in running if member.name in part.members}
        member.waits_for = waits.pop() if len(waits) == 1 else None
    into.scored = sum(part.scored for part in parts)
    into.unscored = max(unscored - into.scored, 0) + sum(part.unscored for part in parts)
    into.scoring_usd = sum(part.scoring_usd for part in parts)
    into.first_scoring_error = next((part.first_scoring_error for part in parts if part.first_scoring_error), None)
    into.trouble = next((part.trouble for part in running if part.trouble), None)


def _from_log(log: OutcomeLog, run: str, told: Tally) -> Tally:
    """Count what a run that was killed recorded; what it told last may be a little older."""
    made = log.made_by(run)
    members = {}
    for name, one in told.members.items():
        counts = made.get(name)
        known = {} if counts is None else {field: getattr(counts, field) for field in _SUMS[:6]}
        members[name] = replace(one, **(dict.fromkeys(_SUMS, 0) | {"truncated": one.truncated} | known))
    return replace(told, members=members, scoring_usd=max(told.scoring_usd, sum(m.scoring_usd for m in made.values())))
