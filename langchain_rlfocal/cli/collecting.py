"""Commands that ask a pool: `collect`, and `questions`, which makes some to ask."""

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_rlfocal.cli.collecting_view import CollectView, price_views
from langchain_rlfocal.cli.options import (
    FAILED,
    INTERRUPTED,
    EngineName,
    Json,
    KindName,
    RayAddress,
    Workers,
    end_with,
    open_engine,
    open_kind,
    open_pool,
    see_working_folder,
    show_result,
)
from langchain_rlfocal.cli.views import counted, json_text, messages, usd
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.collection import CollectConfig, Collected, JobPrice, Tally
    from langchain_rlfocal.collection.exporting import TakenIn
    from langchain_rlfocal.engines import Engine
    from langchain_rlfocal.log import OutcomeLog
    from langchain_rlfocal.outcomes import OutcomeTable, Question
    from langchain_rlfocal.pool import ModelPool, PoolMember

STOPPING = "Stopping: nothing more is sent, and what is out may still come back. Again: leave at once."
AGAIN = "Run the same command again to go on."


def collect(
    questions: Annotated[Path, typer.Argument(help="Questions: .jsonl, .csv or .parquet, or - for standard input.")],
    *,
    out: Annotated[Path, typer.Option(help="Table of outcomes to make or complete: .parquet, .jsonl or .csv.")],
    pool: Annotated[
        str | None,
        typer.Option(
            help="A pool file; `local` (the default), the embedded pool; or package.module:function that returns one."
        ),
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="A member as NAME=provider:model, once for each, instead of a pool.")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            help="Where every answer is recorded at once: a file, or postgresql://... Default: beside the table, .db."
        ),
    ] = None,
    scorer: Annotated[
        str | None, typer.Option(help="What scores answers to questions that name no scorer. Default: equal to `gold`.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(help="Who judges, for scorers that need a model: a member, or provider:model.")
    ] = None,
    kind: KindName = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers of each member to each question.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first N questions only.")] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Calls of a member at once, where its pool does not say. Default: 8.")
    ] = None,
    no_retry_failed: Annotated[
        bool, typer.Option("--no-retry-failed", help="Do not ask again what failed in an earlier run.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it will take, and ask nobody.")] = False,
    max_usd: Annotated[
        float | None, typer.Option(min=0, help="Dollars that this run may take, by estimate; a judge's count too.")
    ] = None,
    unpriced_as: Annotated[
        float | None, typer.Option(min=0, help="Dollars that a call counts as whose price is unknown.")
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens of an answer to expect where nothing is known. Default: 500.")
    ] = None,
    engine: EngineName = "local",
    workers: Workers = None,
    address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Ask every member every question, and record what the answers are worth.

    Each answer is on record at once. Stopped or killed, the same command goes
    on where it was, and asks again what failed: an answer on record is not
    asked for again. Several runs, or workers of an engine, may share the work.

    For example:

      rlfocal collect questions.jsonl --pool pool.yaml --out outcomes.parquet

      rlfocal collect q.csv --member small=openai:gpt-5-nano --out o.csv --dry-run
    """
    from langchain_rlfocal.collection import CollectConfig, check_questions, log_beside
    from langchain_rlfocal.outcomes import read_questions
    from langchain_rlfocal.outcomes.files import check_writable

    check_writable(out)
    asked = read_questions(questions)[:limit]
    if kind is not None:
        opened_kind = open_kind(kind)
        asked = [replace(question, kind=opened_kind) for question in asked]
    check_questions(asked, {}, samples=samples)
    given: dict[str, Any] = {"max_concurrent_calls": concurrency, "output_tokens": output_tokens}
    see_working_folder()  # for scorers of the user's own
    with open_pool(pool, member or []) as opened:
        config = CollectConfig(
            samples=samples,
            scorer=scorer,
            judge=_judge_of(judge, opened),
            retry_failed=not no_retry_failed,
            max_usd=max_usd,
            unpriced_usd=unpriced_as,
            **{name: value for name, value in given.items() if value is not None},
        )
        if dry_run:
            _show_price(_price_of(opened, asked, config, log or log_beside(out), out), config, as_json=as_json)
            return
        _check_scorers(asked, config)
        collecting = partial(_collect, opened, asked, config, log, out)
        with open_engine(engine, workers, address) as opened_engine:
            if engine == "local" and opened_engine.workers == 1:
                done = collecting()
            else:
                opening = _Opening(pool, tuple(member or ()), judge, config=replace(config, judge=None))
                done = collecting(shared=_Shared(opened_engine, opening, config))
        _show(done, config, out, as_json=as_json)


def _judge_of(name: str | None, pool: "ModelPool") -> "PoolMember | None":
    from langchain_rlfocal.pool import ModelPool

    if name is None or name in pool:
        return None if name is None else pool[name]
    return ModelPool.from_models({name: name})[name]


def _check_scorers(questions: Sequence["Question"], config: "CollectConfig") -> None:
    """Open every scorer, and say which answers will have no score."""
    from langchain_rlfocal.collection import is_scorable, scorers_of

    scorers_of(questions, config)
    left = sum(not is_scorable(question, config) for question in questions)
    if left:
        which = f"{left:,} of {len(questions):,} questions have" if left < len(questions) else "The questions have"
        _say(
            f"{which} no `gold` and no scorer: answers to them are recorded unscored. Score them later, without asking "
            "again, with `rlfocal score`."
        )


@dataclass(frozen=True)
class _Opening:
    """Opens the pool that the command names, where a worker is; picklable."""

    pool: str | None
    members: Sequence[str]
    judge: str | None
    config: "CollectConfig"
    folder: str = field(default_factory=os.getcwd)

    @contextmanager
    def __call__(self) -> Iterator[tuple["ModelPool", "CollectConfig"]]:
        """Open it; names of files are as they were for the command, where its folder is there too."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        see_working_folder()
        with open_pool(self.pool, [*self.members]) as opened:
            yield opened, replace(self.config, judge=_judge_of(self.judge, opened))


@dataclass(frozen=True)
class _Shared:
    """An engine whose workers share the asking."""

    engine: "Engine"
    opening: _Opening
    config: "CollectConfig"

    def ask(
        self,
        pool: "ModelPool",
        questions: Sequence["Question"],
        view: CollectView,
        stop: asyncio.Event,
        log: "OutcomeLog",
    ) -> "Tally":
        """Have them ask."""
        from langchain_rlfocal.collection import collect_shared

        def interrupt(*_: object) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            stop.set()
            view.say(STOPPING)

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            return collect_shared(
                pool.names,
                questions,
                log=log,
                config=self.config,
                opening=self.opening,
                engine=self.engine,
                watch=view,
                stop=stop,
                on_death=lambda reason: view.say(f"A worker died, and another takes its place: {reason}."),
            )
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _collect(
    pool: "ModelPool",
    questions: Sequence["Question"],
    config: "CollectConfig",
    log: str | None,
    out: Path,
    *,
    shared: _Shared | None = None,
) -> "tuple[Collected, CollectView]":
    from langchain_rlfocal.collection import check_place, collect_into, log_beside
    from langchain_rlfocal.log import OutcomeLog

    stop = asyncio.Event()
    if shared is not None:
        check_place(OutcomeLog(log or log_beside(out)), shared.engine)
    with CollectView(messages()) as view:
        done = collect_into(
            out,
            pool,
            questions,
            log=None if log is None else OutcomeLog(log),
            config=config,
            watch=view,
            stop=stop,
            on_taken_in=lambda taken: _say_taken_in(taken, out),
            runner=lambda asking: asyncio.run(_run(asking, stop, view)),
            shared=None if shared is None else partial(shared.ask, pool, questions, view, stop),
        )
    return done, view


def _show(collected: "tuple[Collected, CollectView]", config: "CollectConfig", out: Path, *, as_json: bool) -> None:
    done, view = collected
    if done.table is not None and not as_json:
        typer.echo(f"{counted(len(done.table), 'outcome')} of {counted(len(done.table.members), 'member')} in {out}")
    if done.tally is not None:
        _say(view.summary(done.tally))
        _say_what_failed(done.tally)
        if as_json:
            typer.echo(json_text(_facts(done.tally, done.table, done.log, out)))
    _end(done.tally, config, out, is_written=done.table is not None)


async def _run(asking: Coroutine[Any, Any, "Tally"], stop: asyncio.Event, view: CollectView) -> "Tally":
    """Ask until it is done, or somebody presses Ctrl-C: once to let come back what is out, twice to leave at once."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "a coroutine that runs has a task"

    def interrupt() -> None:
        if stop.is_set():
            task.cancel()
            return
        stop.set()
        view.say(STOPPING)

    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, ValueError, RuntimeError):  # Windows, or another thread than the main one
            loop.add_signal_handler(number, interrupt)
    return await asking


def _say(line: str, style: str | None = None) -> None:
    messages().print(printable(line), style=style, markup=False, soft_wrap=True)


def _say_taken_in(taken: "TakenIn", out: Path) -> None:
    if taken.torn is not None:
        _say(f"The last line of {taken.torn} breaks off, and was left out: what it held is asked for again.")
    if taken.rows:
        _say(f"{counted(taken.rows, 'row')} of {out} that the log did not hold: taken in.")
    if taken.rewards:
        _say(
            f"{counted(taken.rewards, 'reward')} of {out} that the log had otherwise: taken in, and they count from now on."
        )


def _say_what_failed(tally: "Tally") -> None:
    for member in tally.members.values():
        if member.failed:
            _say(
                f"{member.name} failed {counted(member.failed, 'time')}, recorded as worth 0. First: {member.first_failure}"
            )
        if member.given_up and tally.ended != "budget":
            _say(f"{member.name} was given up for this run: {member.given_up}")
        if member.truncated:
            _say(f"Of {member.name}, {counted(member.truncated, 'answer')} broke off. Give it more `max_tokens`.")
    if tally.scored:
        _say(f"Scored without asking again: {counted(tally.scored, 'answer')} on record.")
    if tally.first_scoring_error:
        _say(f"Not every answer could be scored. First: {tally.first_scoring_error}")
    if tally.outdated:
        _say(
            f"Scored against another `gold` than the questions have now: {counted(tally.outdated, 'answer')}. `rlfocal score` "
            "scores again, without asking."
        )
    if tally.unscored:
        _say(f"Unscored, which is not wrong: {counted(tally.unscored, 'answer')}.")


def _end(tally: "Tally | None", config: "CollectConfig", out: Path, *, is_written: bool) -> None:
    written = f"The table is written: {out}. " if is_written else ""
    if tally is None:
        end_with(f"Interrupted. What was answered is on record. {written}{AGAIN}", code=INTERRUPTED)
    missing = tally.sum("missing")
    if tally.ended == "stopped":
        end_with(f"Interrupted. {written}Missing: {counted(missing, 'answer')}. {AGAIN}", code=INTERRUPTED)
    if tally.ended == "budget":
        _say(
            f"Stopped, since another call could pass ${config.max_usd:g}: {usd(tally.usd)} spent, {counted(missing, 'answer')} missing. "
            "Run the command again, with what you want to spend on the rest as `--max-usd`.",
        )
    if tally.silent:
        end_with(
            f"Failed every question asked in this run: {', '.join(tally.silent)}. The table is written; run the same "
            "command again to ask again what failed.",
            code=FAILED,
        )
    if any(member.given_up for member in tally.members.values()) and tally.ended != "budget":
        end_with(f"Missing: {counted(missing, 'answer')}. {AGAIN}", code=FAILED)
    if tally.sum("failed"):
        _say("Run the same command again to ask again what failed.")


def _facts(tally: "Tally", table: "OutcomeTable | None", log: "OutcomeLog", out: Path) -> Mapping[str, Any]:
    """What came of it, for programs."""
    return {
        "table": str(out),
        "log": log.name,
        "rows": 0 if table is None else len(table),
        "ended": tally.ended,
        "missing": tally.sum("missing"),
        "unscored": tally.unscored,
        "usd": tally.usd,
        "scoring_usd": tally.scoring_usd,
        "members": [
            {
                "name": one.name,
                "wanted": one.total,
                "on_record": one.on_record,
                "answered": one.answered,
                "failed": one.failed,
                "by_others": one.elsewhere,
                "missing": one.missing,
                "prompt_tokens": one.prompt_tokens,
                "completion_tokens": one.completion_tokens,
                "usd": one.usd,
                "answers_without_price": one.unpriced,
                "truncated": one.truncated,
                "first_failure": one.first_failure,
                "given_up": one.given_up,
            }
            for one in tally.members.values()
        ],
    }


# ---- what it will take


def _price_of(
    pool: "ModelPool", questions: Sequence["Question"], config: "CollectConfig", place: str | Path, out: Path
) -> "JobPrice":
    """Price the job by what is on record, in the log and in the table; neither is made or changed."""
    from langchain_rlfocal.collection import check_questions, price_collection
    from langchain_rlfocal.collection.exporting import recorded_in
    from langchain_rlfocal.log import OutcomeLog

    _check_scorers(questions, config)
    log = OutcomeLog(place) if "://" in str(place) or Path(place).exists() else None
    if log is not None:
        check_questions(questions, log.questions(), samples=config.samples)
    return price_collection(pool, questions, config, log=log, rows=recorded_in(out))


def _show_price(price: "JobPrice", config: "CollectConfig", *, as_json: bool) -> None:
    facts = {
        "calls": price.calls,
        "usd": price.usd,
        "unpriced": price.unpriced,
        "members": [
            {
                "name": one.name,
                "calls": one.calls,
                "on_record": one.on_record,
                "prompt_tokens": one.prompt_tokens,
                "output_tokens": one.output_tokens,
                "output_tokens_by": one.basis,
                "usd": one.usd,
            }
            for one in price.members
        ],
        "judge": None
        if price.judge is None
        else {"name": price.judge.name, "calls": price.judge.calls, "usd": price.judge.usd},
    }
    show_result(facts, iter(price_views(price, output_tokens=config.output_tokens)), as_json=as_json)


def questions(
    *,
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    task: Annotated[
        list[str] | None, typer.Option(help="A task to take, once for each, such as capitals; default: all.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Take so many, evenly over the tasks.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed: the same file.")] = 0,
    as_json: Json = False,
) -> None:
    """Write the question set on which the shipped policy was trained, or some of it.

    Example: rlfocal questions --task capitals --task arithmetic --count 60 --out questions.jsonl
    """
    from langchain_rlfocal.demo.questions import write_questions

    written = write_questions(out, seed=seed, tasks=task, count=count)
    show_result({"questions": written, "path": str(out)}, iter([f"{written} questions in {out}"]), as_json=as_json)
