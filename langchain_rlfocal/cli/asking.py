"""Commands that answer: `ask` and `answer` with a pool of the user's, and `demo`."""

import atexit
import os
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_rlfocal.cli.options import (
    FAILED,
    INTERRUPTED,
    CostWeight,
    EmbedderName,
    EngineName,
    Json,
    MaxRounds,
    MaxTeam,
    PolicyFolder,
    PoolMembers,
    RayAddress,
    TargetCalls,
    TargetSeconds,
    TargetTokens,
    TargetUsd,
    TargetUsdShare,
    WhichPool,
    Workers,
    end_with,
    limits_of,
    load_policy,
    one_target,
    open_engine,
    open_pool,
    see_working_folder,
    show_result,
)
from langchain_rlfocal.cli.views import messages, output
from langchain_rlfocal.errors import EnsembleError, InputError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from langchain_rlfocal.chat_models import RLFocalChatModel
    from langchain_rlfocal.pool import ModelPool

EVERY_S = 10.0
"""How often `answer` says how far it is."""

_UNTRAINED = (
    "Answered without a trained policy: members' declared competences are taken at their word, and a vote decides. "
    "`--policy` names one that `rlfocal train` made."
)


@dataclass(frozen=True)
class _Ensemble:
    """The ensemble that a command's options describe; picklable, and a worker's `make_model`."""

    pool: str | None
    members: "Sequence[str]"
    policy: Path | None
    embedder: str | None
    targets: "Mapping[str, float | None]"
    limits: "Mapping[str, float | None]"
    task: str | None = None
    deadline: float | None = None
    folder: str = field(default_factory=os.getcwd)

    @contextmanager
    def open(self) -> "Iterator[RLFocalChatModel]":
        """Open its pool, and make it."""
        from langchain_rlfocal.chat_models import RLFocalChatModel

        target = one_target(self.limits["cost_weight"], **self.targets)
        given: dict[str, Any] = {name: value for name, value in self.targets.items() if value is not None}
        limits, policy = self.limits, self.policy
        if policy is None and self.pool is None and not self.members:
            from langchain_rlfocal.demo import POLICY_PATH

            policy = POLICY_PATH
        if policy is not None:
            loaded = load_policy(policy, self.embedder)
            limits = limits_of(loaded, limits, target=target)
            given["policy"] = loaded
        given |= {name: value for name, value in limits.items() if value is not None}
        with open_pool(self.pool, [*self.members]) as opened:
            yield RLFocalChatModel(members=opened, task=self.task, deadline_s=self.deadline, **given)

    def __call__(self) -> "RLFocalChatModel":
        """Make it where a worker is, for as long as that lives."""
        if Path(self.folder).is_dir():
            os.chdir(self.folder)
        see_working_folder()
        stack = ExitStack()
        atexit.register(stack.close)
        return stack.enter_context(self.open())


def ask(
    question: Annotated[str, typer.Argument(help="The question, or - to read it from standard input.")],
    *,
    pool: WhichPool = None,
    member: PoolMembers = None,
    policy: PolicyFolder = None,
    embedder: EmbedderName = None,
    system: Annotated[str | None, typer.Option(help="Instructions for every member, put before the question.")] = None,
    task: Annotated[str | None, typer.Option(help="Task label of the question, where the policy knows it.")] = None,
    max_team: MaxTeam = None,
    max_rounds: MaxRounds = None,
    cost_weight: CostWeight = None,
    target_calls: TargetCalls = None,
    target_usd: TargetUsd = None,
    target_usd_share: TargetUsdShare = None,
    target_tokens: TargetTokens = None,
    target_seconds: TargetSeconds = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which it answers with what has arrived.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Ask one question, and show whom the policy picked, what they said, and what was made of it.

    The answer goes to stdout, how it came about to stderr.
    With --json both are one object on stdout.

    Examples:
    rlfocal ask "What is 6 + 3?"
    rlfocal ask "What is 6 + 3?" --pool pool.yaml --policy policy
    rlfocal ask - --pool pool.yaml --policy policy --target-usd 0.002 < q.txt
    """
    from langchain_core.messages import HumanMessage, SystemMessage

    text = sys.stdin.read() if question == "-" else question
    if not text.strip():
        raise InputError("The question is empty. Give it in quotes, or - to read it from standard input.")
    targets = {
        "target_calls": target_calls,
        "target_usd": target_usd,
        "target_usd_share": target_usd_share,
        "target_tokens": target_tokens,
        "target_seconds": target_seconds,
    }
    limits = {"max_team": max_team, "max_rounds": max_rounds, "cost_weight": cost_weight}
    ensemble = _Ensemble(pool, tuple(member or ()), policy, embedder, targets, limits, task=task, deadline=deadline)
    conversation = [*([SystemMessage(system)] if system else []), HumanMessage(text)]
    with ensemble.open() as model:
        opened = model.pool
        started = time.perf_counter()
        try:
            with messages().status("Asking …"):
                message = model.invoke(conversation)
        except EnsembleError as error:
            end_with(str(error), code=FAILED)
        seconds = time.perf_counter() - started
        decision = message.response_metadata["rlfocal"]
        facts = {
            "answer": message.text,
            "trained": decision["trained"],
            "usage": message.usage_metadata,
            "usd": _usd_of(decision, opened),
            "seconds": seconds,
            "decision": decision,
        }
    if as_json:
        show_result(facts, iter(()), as_json=True)
        return
    _show(facts)


def answer(
    questions: Annotated[Path, typer.Argument(help="Questions: .jsonl, .csv or .parquet, or - for standard input.")],
    *,
    out: Annotated[Path, typer.Option(help="Table of answers to make or complete: .parquet, .jsonl or .csv.")],
    pool: WhichPool = None,
    member: PoolMembers = None,
    policy: PolicyFolder = None,
    embedder: EmbedderName = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Answer the first N questions only.")] = None,
    max_team: MaxTeam = None,
    max_rounds: MaxRounds = None,
    cost_weight: CostWeight = None,
    target_calls: TargetCalls = None,
    target_usd: TargetUsd = None,
    target_usd_share: TargetUsdShare = None,
    target_tokens: TargetTokens = None,
    target_seconds: TargetSeconds = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds after which a question is answered with what has arrived.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions that a worker answers at the same time.")] = 8,
    engine: EngineName = "local",
    workers: Workers = None,
    address: RayAddress = None,
    as_json: Json = False,
) -> None:
    """Answer many questions, and write a table of answers, decisions and costs.

    A question that cannot be answered has its error in a column. Stopped or
    killed, the same command goes on where it was: what was answered is not
    asked again, what failed is.

    For example:

      rlfocal answer questions.jsonl --pool pool.yaml --policy policy --out answers.parquet

      rlfocal answer q.csv --pool pool.yaml --out a.jsonl --engine ray --workers 8
    """
    from langchain_rlfocal.bulk import BATCH_SIZE, answer_dataset
    from langchain_rlfocal.cli.answers import AnswerTable
    from langchain_rlfocal.outcomes import read_questions

    asked = read_questions(questions)[:limit]
    table = AnswerTable(out, asked)
    left = table.left
    targets = {
        "target_calls": target_calls,
        "target_usd": target_usd,
        "target_usd_share": target_usd_share,
        "target_tokens": target_tokens,
        "target_seconds": target_seconds,
    }
    limits = {"max_team": max_team, "max_rounds": max_rounds, "cost_weight": cost_weight}
    ensemble = _Ensemble(pool, tuple(member or ()), policy, embedder, targets, limits, deadline=deadline)
    console, said_at = messages(), time.monotonic()
    if len(left) < len(asked):
        console.print(f"Of {len(asked):,} questions {len(asked) - len(left):,} are answered already.")
    try:
        if left:
            with open_engine(engine, workers, address) as opened, table:
                size = min(BATCH_SIZE, -(-len(left) // opened.workers))
                answers = answer_dataset(
                    ensemble, left, engine=opened, batch_size=size, max_concurrency=concurrency, on_answer=table.add
                )
                for num, _ in enumerate(answers, start=1):
                    if time.monotonic() - said_at >= EVERY_S or num == len(left):
                        said_at = time.monotonic()
                        console.print(f"{num:,} of {len(left):,}, {table.failed:,} failed")
    except KeyboardInterrupt:
        end_with(
            f"Interrupted. Answered: {len(asked) - len(table.left):,} of {len(asked):,}. Run the same command again to go on.",
            code=INTERRUPTED,
        )
    facts = table.write()
    show_result(facts, iter([f"{facts['answered']:,} answers in {out}"]), as_json=as_json)
    if facts["failed"]:
        first = next(row["error"] for row in table.rows.values() if row["error"] is not None)
        said = f"Failed: {facts['failed']:,} of {len(asked):,}, first since {first:.300} Run the same command again to ask these again."
        if not facts["answered"]:
            end_with(said, code=FAILED)
        console.print(printable(said), markup=False, soft_wrap=True)


def _show(facts: "Mapping[str, Any]") -> None:
    from langchain_rlfocal.demo.command import decision_view

    console = messages()
    console.print(decision_view(facts["decision"], seconds=facts["seconds"], usd=facts["usd"]))
    if not facts["trained"]:
        console.print(_UNTRAINED, style="yellow", markup=False)
    console.print()
    lines = facts["answer"].splitlines()
    output().print("\n".join(map(printable, lines)), style="bold", markup=False, soft_wrap=True)


def _usd_of(decision: "Mapping[str, Any]", pool: "ModelPool") -> float | None:
    """Return what an answer cost in dollars, failed attempts included; None where somebody who was asked has no price."""
    asked = {row["member"] for row in (*decision["candidates"], *decision["failures"])}
    if any(pool[name].max_cost_usd(prompt_tokens=0, completion_tokens=0) is None for name in asked):
        return None
    usd: float | None = decision["spent"]["usd"]
    return usd


def demo(
    question: Annotated[list[str] | None, typer.Argument(help="Questions to ask instead of the built-in ones.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Answer questions with the embedded models and the policy that ships.

    With --json one object goes to stdout, what is shown otherwise to stderr.

    Examples:
    rlfocal demo
    rlfocal demo "Is it raining?" "What is 6 + 3?"
    """
    from langchain_rlfocal.demo.command import run_demo

    results = run_demo(messages() if as_json else output(), question or None)
    if as_json:
        show_result({"questions": [one.as_dict() for one in results]}, iter(()), as_json=True)
