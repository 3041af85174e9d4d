"""What a user gets where a member fails: each fault, met by real clients over real connections.

    PYTHONPATH=unit_tests/support python docs/benchmarks/faults.py [--write docs/explanation/reliability.md]

Three members of a fault server. `best`, the most competent, is the one that the Decider asks first and that meets the fault;
`good` says the same, and `wrong` does not. `ainvoke` goes through the untrained policy, which asks two and then the third if
these differ; `stream` through one that asks a lone member and passes its text on while it comes, with the others to
stand in. Everything else is the package's default but for the time of an attempt. Each row is run several times, and says
what came of all of them; seconds are the median, beyond that of the first row. The table is printed, or written between
the two comments of a page that say where it begins and ends.
"""

import argparse
import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import RLFocalError
from langchain_rlfocal.execution import BreakerState
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.testing import ScriptedPolicy
from support_fault_server import Fault, FaultServer

BEGIN, END = "<!-- fault table: begin -->", "<!-- fault table: end -->"

COMPETENCES = {"best": 0.9, "good": 0.8, "wrong": 0.7}
ANSWERS = {"best": "It is Lisbon.", "good": "It is Lisbon.", "wrong": "It is Porto."}
QUESTION = "What is the capital of Portugal? Answer in one short sentence."
TIMEOUT_S = 1.0
ATTEMPTS = 3
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Case:
    """A row: which faults members meet, and how the ensemble is set.

    Attributes:
        name: What goes wrong, in words.
        faults: The faults of each member's requests, in their order; what comes after is answered.
        settings: Settings of the ensemble besides the time of an attempt.
    """

    name: str
    faults: dict[str, Sequence[Fault]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def of_best(name: str, fault: Fault, *, times: int = ATTEMPTS, **settings: Any) -> Case:
    """Make the case of a fault that `best` meets."""
    return Case(name, {"best": [fault] * times}, settings)


STUCK = Fault("never_ends", token_pause_s=0.2)

CASES = (
    of_best("none", Fault()),
    of_best("longer than `timeout`", Fault(delay_s=60)),
    of_best("connection lost before the first byte", Fault("drop_before")),
    of_best("lost at the first token", Fault("drop_at")),
    of_best("lost after the first token", Fault("drop_after")),
    of_best("lost once before the first byte", Fault("drop_before"), times=1),
    of_best("JSON cut off", Fault("truncated")),
    of_best("HTTP 429 once, `Retry-After: 1`", Fault("status", status=429, retry_after_s=1), times=1),
    of_best("HTTP 500 every time", Fault("status", status=500)),
    of_best("HTTP 500 once", Fault("status", status=500), times=1),
    of_best("HTTP 400", Fault("status", status=400)),
    of_best("HTTP 400, conversation too long", Fault("status", status=400, code="context_length_exceeded")),
    of_best("HTTP 401", Fault("status", status=401)),
    of_best("random bytes", Fault("random_bytes")),
    of_best("JSON of a wrong shape", Fault("wrong_shape")),
    of_best("a web page", Fault("web_page")),
    of_best("a response that never ends", STUCK),
    of_best("0.1 s between tokens", Fault(token_pause_s=0.1)),
    Case("all members: HTTP 500", dict.fromkeys(COMPETENCES, [Fault("status", status=500)] * ATTEMPTS)),
    Case("all members: HTTP 401", dict.fromkeys(COMPETENCES, [Fault("status", status=401)] * ATTEMPTS)),
    of_best("one never ends, `deadline_s=0.5`", STUCK, deadline_s=0.5),
    of_best("HTTP 500 once, `budget` of 1 call", Fault("status"), times=1, budget={"max_calls": 1}),
)


class Watch(BaseCallbackHandler):
    """Sees what came of each member."""

    run_inline = True

    def __init__(self) -> None:
        self.retries = 0

    def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
        """Count a member's retries."""
        del kwargs
        if name == "rlfocal_candidate":
            self.retries += len(data["retries"])


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one run."""

    got: str
    calls: int
    retries: int
    seconds: float
    breaker: BreakerState | None


def ensemble(server: FaultServer, case: Case, *, lone: bool) -> RLFocalChatModel:
    """Make the ensemble of a case; `lone` asks one member after the other, until one answers."""
    members = [PoolMember(name, server.model(name), competence=value) for name, value in COMPETENCES.items()]
    policy = ScriptedPolicy(teams=[[name] for name in COMPETENCES], members=tuple(COMPETENCES)) if lone else None
    settings: dict[str, Any] = {"timeout": TIMEOUT_S, **({"max_rounds": 1} if lone else {}), **case.settings}
    return RLFocalChatModel(members=members, policy=policy, **settings)


async def run(case: Case, *, lone: bool) -> Run:
    """Run a case once, on a server of its own."""
    with FaultServer(lambda name, _question: ANSWERS[name], script=case.faults) as server:
        model, watch, said = ensemble(server, case, lone=lone), Watch(), ""
        began_s = time.perf_counter()
        try:
            if lone:
                async for chunk in model.astream(QUESTION, {"callbacks": [watch]}):
                    said += chunk.text
            else:
                said = (await model.ainvoke(QUESTION, {"callbacks": [watch]})).text
            got = "the right answer" if said == ANSWERS["best"] else f"another answer: {said}"
        except Exception as error:  # noqa: BLE001  # whichever it is stands in the table
            got = f"`{public_name(error)}`" + (" after its first words" if said else "")
        seconds = time.perf_counter() - began_s
        return Run(got, len(server.received), watch.retries, seconds, model.breakers.get("best"))


def public_name(error: BaseException) -> str:
    """Return the name of an error's class as the package publishes it; another's by its own name."""
    module = RLFocalError.__module__
    return next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == module), type(error).__name__)


def cell(values: Sequence[object]) -> str:
    """Show what is the same in all runs, or all that there was."""
    counts = Counter(map(str, values))
    return next(iter(counts)) if len(counts) == 1 else ", ".join(f"{n} × {value}" for value, n in counts.items())


def breaker_cell(runs: Sequence[Run]) -> str:
    """Say what the breaker makes of `best`: whether it is open, and how many failures in a row it counts."""
    states = [None if one.breaker is None else (one.breaker.state, one.breaker.failures) for one in runs]
    return cell(["" if state is None else f"{state[0]}, {state[1]} failed" for state in states])


async def rows() -> list[list[str]]:
    """Run all cases and make their rows."""
    table = []
    usual_s: tuple[float, float] | None = None
    await asyncio.gather(*(run(CASES[0], lone=lone) for lone in (False, True)))  # imports what is imported late
    for case in CASES:
        runs = await asyncio.gather(*(run(case, lone=lone) for lone in (False, True) for _ in range(REPEATS)))
        teams, lones = runs[:REPEATS], runs[REPEATS:]
        took_s = (statistics.median(one.seconds for one in teams), statistics.median(one.seconds for one in lones))
        usual_s = usual_s or took_s
        cells = [case.name]
        for same, median_s, least_s in zip((teams, lones), took_s, usual_s, strict=True):
            cells += [cell([one.got for one in same]), cell([f"{one.calls} / {one.retries}" for one in same])]
            cells += [f"{max(median_s - least_s, 0.0):.1f}"]
        table.append([*cells, breaker_cell(teams)])
    return table


def table_of(cells: Sequence[Sequence[str]]) -> str:
    """Write the table in Markdown."""
    heads = ["fault", "`ainvoke` gives", "calls / retries", "+ s"]
    heads += ["`astream` of a lone member gives", "calls / retries", "+ s", "breaker after `ainvoke`"]
    lines = [heads, ["---"] * len(heads), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(page: Path, table: str) -> None:
    """Put the table between the comments of a page.

    Raises:
        SystemExit: The page has not both, in this order.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} must say where the table goes: a line {BEGIN}, and below it a line {END}.")
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Make the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    page = parser.parse_args().write
    table = table_of(asyncio.run(rows()))
    if page is None:
        print(table)
    else:
        write(page, table)


if __name__ == "__main__":
    main()
