"""Thousands of answers at once over real connections, of which a fifth of the requests meets a fault.

    PYTHONPATH=unit_tests/support python docs/benchmarks/soak.py [--answers 2000] [--seed 0]

Three members of a fault server answer each question, two of them rightly, the third with what is right of the next
question, so that the vote must put it right and an answer that went to another question would be seen. Which request
meets which fault is a hash of member, question, attempt and seed, with three rules: third attempts meet none; one of those
who are right is spared, for each question, what another attempt does not mend; and one of them is out of order for a
twentieth of the questions. Faults are the same for a seed, results are not: what ends first depends on the machine.

Answers share one ensemble with retries, time-outs, breakers, budgets, early commit and a limit on calls; every tenth has
little time. How long is little, or too long, goes by what a fortieth of the answers take at once without faults, which is
measured first. Waves: all answers as tasks of one event loop, and a twentieth as many each once more, by `batch` in threads,
and on a budget that is too small for them.

What must hold is checked, and what does not is listed below the table, with exit status 1: every answer is right, or an
error of the package, or that of the third member where nobody else had one; every call is accounted for by the server's
log; budgets hold to the call; sockets, tasks, threads and memory return to where they were. Wrong answers of the third kind
are no promise kept but a limit shown: where breakers open, all calls that wait for their members end at once, and who is
left answers alone; `min_candidates` does not count there. Memory is counted in blocks of Python's allocator, after each
wave, with its ensemble still there.
"""

import argparse
import asyncio
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from soak_questions import COMPETENCES, answer, question_of, right, script, share
from soak_watching import Traces, Watch

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import RLFocalError
from langchain_rlfocal.execution import Budget
from langchain_rlfocal.pool import PoolMember
from support_fault_server import FaultServer, Received

DEADLINE_S = 120.0
MAX_CONCURRENT_CALLS, MAX_THREADS = 300, 40
MAX_CALLS_OF_ANSWER = 6
BREAKER_FAILURES = 8
MIN_CANDIDATES = 2

STOPPED = {"cancelled", "deadline", "timeout"}
"""Attempts that the ensemble ended itself: the server may not have heard of them."""

NUM_SPARE_BLOCKS = 2_000
"""What memory may differ by between two waves, fewer answers in the second: caches fill at their own pace."""

SHARES = {"tasks": 1, "tasks again": 20, "threads": 20, "budget": 20}
"""Each wave, and which part of the answers it gives."""


@dataclass(slots=True)
class Wave:
    """What came of one wave."""

    name: str
    num_right: int = 0
    num_alone: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    early_commits: int = 0
    cut_answers: int = 0
    retries: int = 0
    calls: int = 0
    requests: int = 0
    faulty: int = 0
    seconds: list[float] = field(default_factory=list)
    took_s: float = 0.0
    before: Traces | None = None
    after: Traces | None = None
    broken: list[str] = field(default_factory=list)

    def check(self, rule: str, *, holds: bool, seen: object = "") -> None:
        """Note a rule that does not hold."""
        if not holds:
            self.broken.append(f"{self.name}: {rule} {seen}".rstrip())


def pace_s_of(num_answers: int) -> float:
    """Return the seconds for each of so many answers at once, without faults, on this machine as it is now."""
    watches = [Watch() for _ in range(num_answers)]
    with FaultServer(answer) as server:
        began_s = time.perf_counter()
        asyncio.run(ask_in_tasks(ensemble(server), watches))
        return (time.perf_counter() - began_s) / num_answers


def ensemble(server: FaultServer, **settings: Any) -> RLFocalChatModel:
    """Make the ensemble under test."""
    members = [PoolMember(name, server.model(name), competence=value) for name, value in COMPETENCES.items()]
    return RLFocalChatModel(
        members=members,
        max_team=len(members),
        max_rounds=1,
        answer_kind="short_text",
        max_concurrent_calls=MAX_CONCURRENT_CALLS,
        min_candidates=MIN_CANDIDATES,
        deadline_s=DEADLINE_S,
        breaker_failures=BREAKER_FAILURES,
        breaker_recovery_s=0.5,
        **settings,
    )


def timeout_s_for(num_answers: int, pace_s: float) -> float:
    """Return the time of an attempt: the first have their turn when all answers have been begun, on one core."""
    return 3 + num_answers * pace_s / 10


def patience_of(number: int, num_answers: int, pace_s: float) -> dict[str, Any]:
    """Return the arguments of a call: every tenth has little time, up to twice what the wave takes without faults."""
    return {"deadline_s": 0.5 + 2 * pace_s * num_answers * share(number)} if number % 10 == 5 else {}


def num_booked(result: Mapping[str, Any]) -> int:
    """Count the attempts of a member that had begun, and are booked therefore."""
    return sum(
        row.get("kind") not in {"budget", "breaker_open"} and (row.get("kind") not in STOPPED or row["latency_s"] > 0)
        for row in [*result["retries"], result]
    )


def num_stopped(result: Mapping[str, Any]) -> int:
    """Count those of a member's attempts that the ensemble ended itself."""
    return sum(row.get("kind") in STOPPED for row in [result, *result["retries"]])


def take_in(
    wave: Wave, outcomes: Sequence[AIMessage | BaseException], watches: Sequence[Watch], received: Sequence[Received]
) -> None:
    """Check every answer by itself, and every call by the server's log."""
    requests = Counter((request.model, request.question) for request in received)
    for number, (outcome, watch) in enumerate(zip(outcomes, watches, strict=True)):
        question = question_of(number)
        wave.seconds.append(watch.ended_s - watch.began_s)
        if isinstance(outcome, AIMessage):
            is_right = outcome.text == right(number)
            answered = [result["member"] for result in watch.results if "kind" not in result]
            is_alone = answered == ["wrong"] and outcome.text == answer("wrong", question)
            wave.num_right += is_right
            wave.num_alone += is_alone
            wave.check("an answer is wrong:", holds=is_right or is_alone, seen=(question, outcome.text, answered))
        else:
            wave.errors[_public_name(outcome)] += 1
            wave.check("an error is not the package's:", holds=isinstance(outcome, RLFocalError), seen=repr(outcome))
        for result in watch.results:
            pair = (result["member"], question)
            booked, seen = num_booked(result), requests.pop(pair, 0)
            holds = booked - num_stopped(result) <= seen <= booked
            wave.check("requests and attempts differ:", holds=holds, seen=(pair, seen, result))
            wave.calls += booked
            wave.retries += len(result["retries"])
            wave.kinds.update(row["kind"] for row in [result, *result["retries"]] if "kind" in row)
        members = [result["member"] for result in watch.results]
        booked = sum(map(num_booked, watch.results))
        holds = booked <= MAX_CALLS_OF_ANSWER or wave.name == "budget"
        wave.check("an answer's budget is overrun:", holds=holds, seen=(question, booked))
        wave.check("a member has two results:", holds=len(set(members)) == len(members), seen=members)
        kinds = {result.get("kind") for result in watch.results}
        wave.early_commits += "cancelled" in kinds
        wave.cut_answers += "deadline" in kinds and isinstance(outcome, AIMessage)
    wave.check("requests belong to no answer:", holds=not requests, seen=requests)
    wave.requests = len(received)
    wave.faulty = sum(request.fault.kind != "ok" or request.fault.delay_s > 1 for request in received)


def _public_name(error: BaseException) -> str:
    """Return the name of an error's class as the package publishes it."""
    module = RLFocalError.__module__
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == module), type(error).__name__)


async def ask_in_tasks(
    model: RLFocalChatModel, watches: Sequence[Watch], pace_s: float | None = None
) -> list[AIMessage | BaseException]:
    """Ask all questions at once in tasks of one event loop; without a pace, all have time."""

    async def ask(number: int, watch: Watch) -> AIMessage:
        patience = patience_of(number, len(watches), pace_s) if pace_s else {}
        return await model.ainvoke(question_of(number), {"callbacks": [watch]}, **patience)

    return await asyncio.gather(*map(ask, range(len(watches)), watches), return_exceptions=True)


def ask_in_threads(model: RLFocalChatModel, watches: Sequence[Watch]) -> list[AIMessage | BaseException]:
    """Ask all questions by `batch`."""
    configs: list[RunnableConfig] = [{"callbacks": [watch], "max_concurrency": MAX_THREADS} for watch in watches]
    questions: list[LanguageModelInput] = [question_of(number) for number in range(len(watches))]
    outcomes: list[Any] = model.batch(questions, configs, return_exceptions=True)
    return outcomes


def wave_of_tasks(name: str, num_answers: int, seed: int, pace_s: float) -> Wave:
    """Run one wave on an event loop of its own."""
    wave = Wave(name)
    wave.before = Traces.now()
    model = asyncio.run(_tasks(wave, num_answers, seed, pace_s))
    wave.after = Traces.now()
    _check_traces(wave)
    del model  # its own memory counts
    return wave


async def _tasks(wave: Wave, num_answers: int, seed: int, pace_s: float, **settings: Any) -> RLFocalChatModel:
    limits = {"max_calls": 4 * num_answers * len(COMPETENCES)}
    settings = {"budget": limits, "budget_per_answer": {"max_calls": MAX_CALLS_OF_ANSWER}, **settings}
    watches = [Watch() for _ in range(num_answers)]
    with FaultServer(answer, script=script(num_answers, seed)) as server:
        model = ensemble(server, timeout=timeout_s_for(num_answers, pace_s), **settings)
        began_s = time.perf_counter()
        outcomes = await ask_in_tasks(model, watches, pace_s)
        wave.took_s = time.perf_counter() - began_s
        num_tasks = len(asyncio.all_tasks())
        wave.check("tasks are left:", holds=num_tasks == 1, seen=num_tasks)
        await asyncio.to_thread(server.wait_until, lambda: server.open_connections == 0)
        take_in(wave, outcomes, watches, server.received)
    _check_account(wave, model)
    return model


def wave_of_threads(name: str, num_answers: int, seed: int, pace_s: float) -> Wave:
    """Run one wave by `batch`; threads that nobody waits for end when the server closes."""
    wave = Wave(name)
    wave.before = Traces.now()
    model = _threads(wave, num_answers, seed, pace_s)
    wave.after = Traces.now()
    _check_traces(wave)
    del model  # as above
    return wave


def _threads(wave: Wave, num_answers: int, seed: int, pace_s: float) -> RLFocalChatModel:
    watches = [Watch() for _ in range(num_answers)]
    settings = {"timeout": timeout_s_for(num_answers, pace_s), "budget_per_answer": {"max_calls": MAX_CALLS_OF_ANSWER}}
    with FaultServer(answer, script=script(num_answers, seed)) as server:
        model = ensemble(server, **settings)
        began_s = time.perf_counter()
        outcomes = ask_in_threads(model, watches)
        wave.took_s = time.perf_counter() - began_s
        take_in(wave, outcomes, watches, server.received)
    for thread in threading.enumerate():
        if thread.name.startswith("rlfocal:"):
            thread.join(5)
    _check_account(wave, model)
    return model


def wave_on_a_budget(name: str, num_answers: int, seed: int, pace_s: float) -> Wave:
    """Run one wave whose model may make half of the calls that it needs; each that it makes is sent."""
    wave, max_calls = Wave(name), 2 * num_answers + 1
    wave.before = Traces.now()
    settings = {"budget": Budget(max_calls=max_calls), "budget_per_answer": None, "early_commit": False}
    model = asyncio.run(_tasks(wave, num_answers, seed, pace_s, **settings))
    wave.check("the budget is not what was spent:", holds=model.spent.calls == max_calls, seen=model.spent)
    wave.check("the server saw more:", holds=wave.requests <= max_calls, seen=wave.requests)
    wave.after = Traces.now()
    _check_traces(wave)
    return wave


def _check_account(wave: Wave, model: RLFocalChatModel) -> None:
    spent, reserved = model.spent.calls, model.shared_state.ledger.reserved
    wave.check("calls and bookings differ:", holds=wave.requests <= spent <= wave.calls, seen=(spent, wave.calls))
    wave.check("something stays reserved:", holds=reserved.calls == 0, seen=reserved)
    running, waiting = model.shared_state.limiter.running, model.shared_state.limiter.waiting
    wave.check("places are not given back:", holds=not running and not waiting, seen=(running, waiting))


def _check_traces(wave: Wave) -> None:
    before, after = wave.before, wave.after
    assert before is not None
    assert after is not None
    for name in ("sockets", "tasks", "threads"):
        was, is_now = getattr(before, name), getattr(after, name)
        wave.check(f"{name} are left:", holds=is_now == was, seen=(was, is_now))


def soak(num_answers: int, seed: int) -> list[Wave]:
    """Run all waves, after two that do not count: they import what is imported late."""
    wave_of_tasks("first", 12, seed + 1, pace_s=0.1)
    wave_of_threads("first", 12, seed + 1, pace_s=0.1)
    pace_s = pace_s_of(max(20, num_answers // 40))
    runs = {"threads": wave_of_threads, "budget": wave_on_a_budget}
    waves = [runs.get(name, wave_of_tasks)(name, num_answers // part, seed, pace_s) for name, part in SHARES.items()]
    first, second, *_ = waves
    assert first.after is not None
    assert second.after is not None
    grown = second.after.blocks - first.after.blocks
    second.check("memory grows, in blocks:", holds=abs(grown) <= NUM_SPARE_BLOCKS, seen=grown)
    return waves


def rows_of(waves: Sequence[Wave]) -> list[list[object]]:
    """Make the rows of the table, one a measure."""

    def before_after(name: str, form: str = "{}") -> list[object]:
        return [f"{form.format(getattr(w.before, name))} → {form.format(getattr(w.after, name))}" for w in waves]

    def at(percent: int) -> list[object]:
        return [f"{sorted(w.seconds)[-(-percent * len(w.seconds) // 100) - 1]:.1f}" for w in waves]

    errors = sorted({name for wave in waves for name in wave.errors})
    return [
        ["answers", *(len(w.seconds) for w in waves)],
        ["right", *(w.num_right for w in waves)],
        ["wrong, as the third member alone had answered", *(w.num_alone for w in waves)],
        *([name, *(w.errors[name] for w in waves)] for name in errors),
        ["right, though cut at the deadline", *(w.cut_answers for w in waves)],
        ["settled early", *(w.early_commits for w in waves)],
        ["calls", *(w.calls for w in waves)],
        ["requests that the server received", *(w.requests for w in waves)],
        ["of them faulty", *(w.faulty for w in waves)],
        ["retries", *(w.retries for w in waves)],
        ["attempts that ran out of time", *(w.kinds["timeout"] for w in waves)],
        ["members left alone by a breaker", *(w.kinds["breaker_open"] for w in waves)],
        ["members not asked for the budget's sake", *(w.kinds["budget"] for w in waves)],
        ["seconds of an answer: median", *at(50)],
        ["95th percentile", *at(95)],
        ["longest", *at(100)],
        ["seconds in all", *(f"{w.took_s:.1f}" for w in waves)],
        ["sockets", *before_after("sockets")],
        ["tasks", *before_after("tasks")],
        ["threads", *before_after("threads")],
        ["thousands of blocks of memory", *(f"{w.after.blocks / 1000:.1f}" for w in waves if w.after)],
        ["resident memory, MB", *(f"{w.after.rss_mb:.0f}" for w in waves if w.after)],
    ]


def main() -> int:
    """Print the table and what is broken; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given, began_s = parser.parse_args(), time.perf_counter()
    waves = soak(given.answers, given.seed)
    print("| | " + " | ".join(wave.name for wave in waves) + " |")
    print("|---|" + "---|" * len(waves))
    for row in rows_of(waves):
        print("| " + " | ".join(map(str, row)) + " |")
    broken = [line for wave in waves for line in wave.broken]
    verdict = f"{len(broken)} rules broken" if broken else "All rules hold"
    print("\n".join(["", *broken[:20], f"{verdict}, after {time.perf_counter() - began_s:.0f} s."]))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
