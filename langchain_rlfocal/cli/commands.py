"""Command line: `rlfocal` collects outcomes, trains and evaluates policies, and shows them at work.

Each command imports what it needs when it runs, so that `rlfocal --help` is quick and never loads torch. What a program
reads goes to stdout, progress and errors to stderr. An error of the package is one line and exit code 2, never a
traceback; a file appears whole or not at all.
"""

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from langchain_rlfocal._version import __version__
from langchain_rlfocal.cli.terminal import messages, output, progress_bar
from langchain_rlfocal.errors import InputError, PoolError, RLFocalError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from langchain_rlfocal.pool import ModelPool

_FAILED, _BAD_INPUT, _INTERRUPTED = 1, 2, 130
"""Exit codes: a member never answered; what was given breaks a rule; Ctrl-C, as shells say it."""


class _Commands(TyperGroup):
    """Commands whose expected errors are one red line."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (RLFocalError, OSError) as error:
            _end(str(error), code=_BAD_INPUT)
        except KeyboardInterrupt:
            writes = ctx.invoked_subcommand in {"train", "questions"}
            _end("Interrupted: nothing was written." if writes else "Interrupted.", code=_INTERRUPTED)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="RL-Focal: a learned team of chat models per query, and a learned fusion of their answers.",
)


class Split(StrEnum):
    """The outcomes that `evaluate` scores."""

    train = "train"
    validation = "validation"
    test = "test"
    all = "all"


class Missing(StrEnum):
    """What to do with a query that a member of the pool did not answer."""

    drop = "drop"
    fail = "fail"


class CostUnit(StrEnum):
    """What spending is counted in."""

    auto = "auto"
    usd = "usd"
    tokens = "tokens"
    calls = "calls"


# Options that several commands share.
_Outcomes = Annotated[list[Path], typer.Argument(help="Tables of outcomes: .parquet, .jsonl or .csv.")]
_Member = Annotated[list[str] | None, typer.Option(help="A member of the pool, once for each; default: all.")]
_Task = Annotated[
    list[str] | None, typer.Option(help='A task to take, once for each; default: all. Wildcards as in "mmlu_pro/*".')
]
_Missing = Annotated[
    Missing, typer.Option(help="A query that a member did not answer: left out, or counted as that member's failure.")
]
_Embedder = Annotated[
    str | None, typer.Option(help="Describe queries by embeddings too: wordllama, or package.module:function.")
]
_Kind = Annotated[
    str | None, typer.Option(help="What counts as the same answer: a kind's name, or package.module:attribute.")
]
_MaxTeam = Annotated[int | None, typer.Option(min=1, help="Members that may be asked for one query.")]
_MaxRounds = Annotated[int | None, typer.Option(min=1, help="Rounds in which they may be asked.")]
_CostWeight = Annotated[float | None, typer.Option(min=0, help="What asking the whole pool is worth, in score.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def _version(*, value: bool) -> None:
    if value:
        typer.echo(f"rlfocal {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    del version


@app.command()
def collect(
    questions: Annotated[Path, typer.Argument(help="Questions with gold answers: .jsonl, .csv or .parquet.")],
    *,
    out: Annotated[Path, typer.Option(help="Table of outcomes to make or complete: .parquet, .jsonl or .csv.")],
    pool: Annotated[
        str | None,
        typer.Option(help="`local` (the default), the embedded pool; or package.module:function that returns one."),
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="A member as NAME=provider:model, once for each, instead of a pool.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Questions that are out at the same time.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask the first N questions only.")] = None,
    kind: _Kind = None,
) -> None:
    """Ask every member every question, and record what the answers are worth.

    Run again to go on where it stopped, and to ask again what failed: an answer on record is not asked for again.
    """
    from langchain_rlfocal.cli.rows import open_kind
    from langchain_rlfocal.collection import Collected, collect_into, is_failure, recorded_in, unfinished_path
    from langchain_rlfocal.outcomes import read_questions

    asked = read_questions(questions)[:limit]
    if kind is not None:
        opened_kind = open_kind(kind)
        asked = [replace(question, kind=opened_kind) for question in asked]
    failed: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    in_flight = {} if concurrency is None else {"max_in_flight": concurrency}
    with _open_pool(pool, member or []) as opened, progress_bar() as progress:
        held = {(o.task, o.query_id, o.model) for o in recorded_in(out) if not is_failure(o)}
        done = sum(all((q.task, q.query_id, name) in held for name in opened.names) for q in asked)
        bar = progress.add_task(f"Asking {len(opened)} members", total=len(asked), completed=done)

        def show(collected: Collected) -> None:
            tried.update(outcome.model for outcome in collected.outcomes)
            for failure in collected.failures:
                failed[failure.member] += 1
                reasons.setdefault(failure.member, f"{failure.kind}: {failure.reason}")
            progress.advance(bar)

        try:
            table = collect_into(out, opened, asked, on_collected=show, **in_flight)
        except KeyboardInterrupt:
            progress.stop()
            kept = unfinished_path(out)
            where = f"What was answered is in {kept}. " if kept.exists() else ""
            _end(f"Interrupted. {where}Run the same command again to go on.", code=_INTERRUPTED)
    for name, count in failed.items():
        line = f"{name} failed {count} times, recorded as worth 0. First: {reasons[name]}"
        messages().print(printable(line), markup=False, soft_wrap=True)
    typer.echo(f"{len(table):,} outcomes of {len(table.members)} members in {out}")
    silent = [name for name, count in failed.items() if count == tried[name]]
    if silent:
        _end(
            f"Failed every question asked in this run: {', '.join(silent)}. The table is written; run the same command "
            "again to ask again what failed.",
            code=_FAILED,
        )
    if failed:
        messages().print("Run the same command again to ask again what failed.")


@app.command()
def train(
    outcomes: _Outcomes,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint to write.")],
    member: _Member = None,
    task: _Task = None,
    missing: _Missing = Missing.drop,
    test_ids: Annotated[
        str | None, typer.Option(help='Keep the rows whose query_id matches ("test*") as test rows; default: by text.')
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same outcomes: the same checkpoint.")] = None,
    max_team: _MaxTeam = None,
    max_rounds: _MaxRounds = None,
    cost_weight: _CostWeight = None,
    cost_unit: Annotated[
        CostUnit | None, typer.Option(help="What spending is counted in; auto: dollars where known, else calls.")
    ] = None,
    diversity_weight: Annotated[
        float | None, typer.Option(min=0, help="What focal diversity of the team is worth in the reward.")
    ] = None,
    embedder: _Embedder = None,
    kind: _Kind = None,
    as_json: _Json = False,
) -> None:
    """Train Decider and Fusion on recorded outcomes, and fit the baselines; the test rows stay unseen."""
    from langchain_rlfocal.cli.rows import Rows
    from langchain_rlfocal.cli.training import run_train

    config = {
        "seed": seed,
        "max_team": max_team,
        "max_rounds": max_rounds,
        "cost_weight": cost_weight,
        "cost_unit": None if cost_unit is None else cost_unit.value,
        "diversity_weight": diversity_weight,
    }
    rows = Rows(task=task, missing=missing.value, test_ids=test_ids, kind=kind)
    run_train(outcomes, member, out=out, rows=rows, config=config, embedder=embedder, as_json=as_json)


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Directory that `rlfocal train` wrote.")],
    outcomes: _Outcomes,
    *,
    task: _Task = None,
    split: Annotated[Split, typer.Option(help="Score these rows. Of training rows the policy knows the answers.")] = (
        Split.test
    ),
    missing: _Missing = Missing.drop,
    test_ids: Annotated[
        str | None, typer.Option(help="The rows whose query_id matches are test rows; default: as in training.")
    ] = None,
    cost_weight: _CostWeight = None,
    target_calls: Annotated[
        float | None, typer.Option(help="Take the cost weight that asks so many members a query on validation rows.")
    ] = None,
    max_team: _MaxTeam = None,
    max_rounds: _MaxRounds = None,
    embedder: _Embedder = None,
    kind: _Kind = None,
    no_task: Annotated[
        bool, typer.Option("--no-task", help="Hide the task labels from who decides, as most callers do.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Score a checkpoint on held-out outcomes, beside single best, votes, routers, fixed teams and Oracle.

    Limits and cost weight are those that it was trained for, unless given.
    """
    from langchain_rlfocal.cli.evaluation import Limits, run_evaluate
    from langchain_rlfocal.cli.rows import Rows

    run_evaluate(
        checkpoint,
        outcomes,
        split=split.value,
        rows=Rows(task=task, missing=missing.value, test_ids=test_ids, kind=kind),
        limits=Limits(cost_weight=cost_weight, target_calls=target_calls, max_team=max_team, max_rounds=max_rounds),
        embedder=embedder,
        hide_tasks=no_task,
        as_json=as_json,
    )


@app.command()
def diversity(outcomes: _Outcomes, *, member: _Member = None, task: _Task = None, as_json: _Json = False) -> None:
    """Measure how differently members fail, and which teams that speaks for."""
    from langchain_rlfocal.cli.diversity import run_diversity

    run_diversity(outcomes, member, task=task, as_json=as_json)


@app.command()
def questions(
    *,
    out: Annotated[Path, typer.Option(help="JSONL file to write.")],
    seed: Annotated[int, typer.Option(help="Same seed: the same file.")] = 0,
) -> None:
    """Write the question set on which the shipped policy was trained."""
    from langchain_rlfocal.demo.questions import write_questions

    typer.echo(f"{write_questions(out, seed=seed)} questions in {out}")


@app.command()
def demo(
    question: Annotated[list[str] | None, typer.Argument(help="Questions to ask instead of the built-in ones.")] = None,
) -> None:
    """Answer questions with the embedded models and the policy that ships."""
    from langchain_rlfocal.demo.command import run_demo

    run_demo(output(), question or None)


@contextmanager
def _open_pool(pool: str | None, members: list[str]) -> Iterator["ModelPool"]:
    from langchain_rlfocal.pool import ModelPool

    if pool and members:
        raise InputError("`--pool` and `--member` exclude each other, got both. Give one of them.")
    if members:
        named: dict[str, str] = {}
        for text in members:
            name, equals, model = text.partition("=")
            if not (name and equals and model):
                raise InputError(
                    f"`--member` must be NAME=provider:model, got {text!r}. Example: small=openai:gpt-5-nano"
                )
            if name in named:
                raise PoolError(f"A member's name must be unique in its pool, got `{name}` twice. Rename one.")
            named[name] = model
        yield ModelPool.from_models(named)
    elif pool in (None, "local"):
        from langchain_rlfocal.demo import embedded_pool

        with embedded_pool() as embedded:
            yield ModelPool.from_models(embedded.members)
    else:
        yield _load_pool(str(pool))


def _load_pool(spec: str) -> "ModelPool":
    from langchain_rlfocal.cli.rows import see_working_folder
    from langchain_rlfocal.pool import ModelPool

    module, colon, function = spec.partition(":")
    if not (module and colon and function):
        raise InputError(f"`--pool` must be `local` or package.module:function, got {spec!r}.")
    see_working_folder()
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise InputError(f"`--pool {spec}` must name a function that can be imported: {error}.") from error
    made = make()
    if isinstance(made, ModelPool):
        return made
    if isinstance(made, Mapping):
        return ModelPool.from_models(made)
    raise InputError(
        f"`--pool {spec}` must return a ModelPool or a mapping of names to chat models, got {type(made).__name__}."
    )


def _end(message: str, *, code: int) -> NoReturn:
    messages().print(printable(message), style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
