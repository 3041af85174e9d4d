"""Teams: ask several members at once, and wait for all of them."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import ExitStack
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ContextThreadPoolExecutor

from langchain_rlfocal._compat import OpenRuns
from langchain_rlfocal.execution.asking import PASSING, Adapt, Call, Clock, Role
from langchain_rlfocal.execution.limits import CallLimits
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure

NO_LIMITS = CallLimits()


def ask_members(
    members: Sequence[PoolMember],
    messages: Sequence[BaseMessage],
    *,
    round_number: int,
    config: RunnableConfig | None = None,
    role: Role = "member",
    adapt: Adapt | None = None,
    limits: CallLimits = NO_LIMITS,
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> list[Candidate | Failure]:
    """Ask members at once, each in a thread of its own.

    Args:
        members: Whom to ask.
        messages: What to ask; each member gets its own list of the same messages.
        round_number: Round to note in the records, counted from 1.
        config: Callbacks, tags and metadata for the members' runs; what is missing comes from the run around.
        role: What traces say that the asked are.
        adapt: Puts the call in each member's own terms, arguments included; what it raises is that member's failure. None
            asks everybody just what is given.
        limits: How many calls may run at once.
        stop: Stop sequences for the members.
        clock: Gives seconds; latencies are its differences.
        **kwargs: Passed on to each member's `invoke`.

    Returns:
        What became of each member, in the members' order.
    """
    if not members:
        return []
    calls = [Call(member, messages, kwargs, adapt, round_number, config or {}, role, clock) for member in members]

    def ask(call: Call) -> Candidate | Failure:
        try:
            with limits.held(call.member.name), call.context() as context:
                brief = call.begin()
                return call.candidate(
                    context.run(brief.model.invoke, brief.messages, call.config, stop=stop, **brief.kwargs)
                )
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            return call.failure(error)

    # Contexts are copied to the threads, so that members see what the caller's context variables hold.
    executor = ContextThreadPoolExecutor(max_workers=len(calls), thread_name_prefix="rlfocal")
    futures: list[Future[Candidate | Failure]] = []
    try:
        futures.extend(executor.submit(ask, each) for each in calls)
        done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # raises what passes through, without waiting for the others
        return [future.result() for future in futures]
    finally:
        executor.shutdown(wait=all(future.done() for future in futures), cancel_futures=True)


async def aask_members(
    members: Sequence[PoolMember],
    messages: Sequence[BaseMessage],
    *,
    round_number: int,
    config: RunnableConfig | None = None,
    role: Role = "member",
    adapt: Adapt | None = None,
    limits: CallLimits = NO_LIMITS,
    stop: list[str] | None = None,
    clock: Clock = time.perf_counter,
    **kwargs: Any,
) -> list[Candidate | Failure]:
    """Ask members at once, each in a task of its own; see `ask_members`.

    When it is cancelled it cancels every member's task, waits until all have ended, and closes their runs. A model that
    knows no async calls runs in a thread, which nothing can end early.
    """
    if not members:
        return []
    leaving = asyncio.Event()
    calls = [Call(member, messages, kwargs, adapt, round_number, config or {}, role, clock) for member in members]

    async def ask(call: Call) -> Candidate | Failure:
        runs = OpenRuns.under(call.config, call.member.model)
        try:
            async with limits.aheld(call.member.name):
                brief = call.begin()
                return call.candidate(await brief.model.ainvoke(brief.messages, call.config, stop=stop, **brief.kwargs))
        except asyncio.CancelledError as error:
            await runs.close(error)
            if leaving.is_set():
                raise
            return call.failure(error)
        except PASSING:
            raise
        except BaseException as error:  # noqa: BLE001  # whatever a member raises is its failure
            return call.failure(error)

    with ExitStack() as stack:
        # Each context stays open until its task has ended: closing resets the run that the member's own calls nest under.
        contexts = [stack.enter_context(each.context()) for each in calls]
        tasks = [
            asyncio.create_task(ask(each), name=f"rlfocal:{each.member.name}", context=context)
            for each, context in zip(calls, contexts, strict=True)
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()  # raises what passes through, without waiting for the others
            return [task.result() for task in tasks]
        finally:
            leaving.set()
            await end(tasks)


async def end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel what still runs and wait until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
