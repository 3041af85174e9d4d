"""Commands that answer: `ask` with a pool of the user's, and `demo`."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from langchain_rlfocal.cli.options import (
    FAILED,
    CostWeight,
    EmbedderName,
    Json,
    MaxRounds,
    MaxTeam,
    TargetCalls,
    TargetSeconds,
    TargetTokens,
    TargetUsd,
    TargetUsdShare,
    end_with,
    limits_of,
    load_policy,
    one_target,
    open_pool,
    show_result,
)
from langchain_rlfocal.cli.views import messages, output
from langchain_rlfocal.errors import EnsembleError, InputError
from langchain_rlfocal.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from langchain_rlfocal.pool import ModelPool

_UNTRAINED = (
    "Answered without a trained policy: members' declared competences are taken at their word, and a vote decides. "
    "`--policy` names one that `rlfocal train` made."
)


def ask(
    question: Annotated[str, typer.Argument(help="The question, or - to read it from standard input.")],
    *,
    pool: Annotated[
        str | None,
        typer.Option(
            help="A pool file (.yaml, .toml); `local`, the embedded pool; or package.module:function. Default: local, with "
            "the policy that ships."
        ),
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option(help="A member as NAME=provider:model, once for each, instead of a pool.")
    ] = None,
    policy: Annotated[Path | None, typer.Option(help="Folder of a trained policy; without one a vote decides.")] = None,
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

    from langchain_rlfocal.chat_models import RLFocalChatModel

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
    target = one_target(cost_weight, **targets)
    given: dict[str, Any] = {name: value for name, value in targets.items() if value is not None}
    limits = {"max_team": max_team, "max_rounds": max_rounds, "cost_weight": cost_weight}
    if policy is None and pool is None and not member:
        from langchain_rlfocal.demo import POLICY_PATH

        policy = POLICY_PATH
    if policy is not None:
        loaded = load_policy(policy, embedder)
        limits = limits_of(loaded, limits, target=target)
        given["policy"] = loaded
    given |= {name: value for name, value in limits.items() if value is not None}
    conversation = [*([SystemMessage(system)] if system else []), HumanMessage(text)]
    with open_pool(pool, member or []) as opened:
        model = RLFocalChatModel(members=opened, task=task, deadline_s=deadline, **given)
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
