"""What is learned while answers are served: from no policy, one judged query after the other.

    python docs/benchmarks/online.py FOLDER [--orders 10] [--keep FOLDER] [--part NAME]

`mmlu_pro/open12`, in random orders of 5,700 queries. Every query is answered first and learned from then (prequential), from the
scores of the members that were asked and of no others. The mean number of calls is kept at 3 by a controller of the cost weight,
which sees calls and no score.

It is compared, on the same queries, with a policy that was trained offline on four fifths of all rows with every member's score, and
evaluated on the last fifth (a cross-test, at its own target of 3 calls). And with rivals that rank the members, ask from the first
down until three agree, or two where the mean of calls is above 3, and let votes count alike: a cascade that knows the order of
the members by all scores; UCB without context; LinUCB and linear Thompson sampling, which see surface and task or words as
well. Bandits get the learner's feedback. Their width and what they see are chosen in their favour: the best by the mean over all
orders.

The learner's constants were chosen on orders of other seeds (1000 to 1002) of the same rows. So `--part pools` repeats the comparison
on pools that had no part in the choice.

Intervals are bootstrap intervals of the mean paired difference, which draw queries and orders anew, both at once (Owen, 2007, "The
pigeonhole bootstrap").
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from pools import POOLS, Pool

from langchain_rlfocal.environment import replay
from langchain_rlfocal.features import features_of
from langchain_rlfocal.log import Feedback, ServedAnswer
from langchain_rlfocal.online import Change, Guard, OnlineLearner
from langchain_rlfocal.online.learner import OWN_DIM, compact
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.base import EnsemblePolicy
from langchain_rlfocal.policies.targets import Target
from langchain_rlfocal.records import Candidate, Query

POOL = POOLS["mmlu_pro/open12"]
TARGET, QUERIES, KNOWN = 3.0, 5700, 2000
"""Mean calls; queries of an order; queries after which the offline policy should be reached within one point."""

BREAKS, RECOVERS = 3000, 4500
FEW = 5
"""Orders of what is not compared with other methods."""

CROSS_TEST = (0.7, 0.1, 0.2)
WIDTHS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)
DRAWS = 1000
"""Of the bootstrap."""

OTHERS = ("bbh/all5", "zeroeval/cheap8", "bfcl/cheap5")
"""Pools on which nothing was chosen."""

FIRST_COST_WEIGHT, RATE = 0.3, 0.02
"""Where the controller starts, and by how much a call too many raises the logarithm of the cost weight."""


@dataclass
class Run:
    """One order: score and calls of each query, whom was asked, and what the guard changed."""

    scores: np.ndarray
    calls: np.ndarray
    asked: np.ndarray
    changes: list[tuple[int, Change]] = field(default_factory=list)


def kept(file: Path | None, make: Callable[[], Run]) -> Run:
    """Read a run from a file, or make it and write it there."""
    if file is not None and file.exists():
        found = json.loads(file.read_text())
        changes = [(at, Change(**change)) for at, change in found["changes"]]
        return Run(*(np.array(found[name]) for name in ("scores", "calls", "asked")), changes)
    run = make()
    if file is not None:
        arrays = {name: getattr(run, name).tolist() for name in ("scores", "calls", "asked")}
        file.write_text(json.dumps({**arrays, "changes": [(at, asdict(change)) for at, change in run.changes]}))
    return run


def candidates_of(grid: OutcomeGrid, row: int) -> list[Candidate]:
    """Make every member's answer to a recorded query; of the text its length is known."""
    answers = []
    for member, name in enumerate(grid.members):
        chars = grid.response_chars[row, member]
        text = "" if grid.answer_ids[row, member] < 0 else "x" * int(np.nan_to_num(chars, nan=1.0))
        answers.append(Candidate(name, 1, text, grid.answers[row, member], 0.0))
    return answers


def serve(
    policy: EnsemblePolicy,
    grid: OutcomeGrid,
    *,
    row: int,
    cost_weight: float,
    available: Sequence[str],
    number: int,
    pool: Pool,
) -> ServedAnswer:
    """Let a policy answer a recorded query."""
    said = dict(zip(grid.members, candidates_of(grid, row), strict=True))
    query, got = Query(grid.queries[row], grid.tasks[row]), list[Candidate]()
    for round_number in range(1, pool.max_rounds + 1):
        selection = policy.select(
            query,
            got,
            (),
            available=available,
            round_number=round_number,
            max_rounds=pool.max_rounds,
            max_team=pool.max_team,
            cost_weight=cost_weight,
        )
        if not selection.members:
            break
        got += [replace(said[name], round=round_number) for name in selection.members]
        if len(got) >= pool.max_team:
            break
    return ServedAnswer(
        id=str(number),
        query=query,
        available=tuple(available),
        policy_id=policy.policy_id,
        cost_weight=cost_weight,
        max_team=pool.max_team,
        max_rounds=pool.max_rounds,
        candidates=tuple(got),
        failures=(),
        answer=policy.fuse(query, got, (), max_team=pool.max_team),
    )


def learn(
    grid: OutcomeGrid,
    rows: np.ndarray,
    *,
    pool: Pool = POOL,
    judged: str = "asked",
    wrong: float = 0.0,
    seed: int = 0,
    guarded: bool = False,
    broken: Callable[[int, OutcomeGrid, np.ndarray], OutcomeGrid] | None = None,
) -> Run:
    """Serve an order and learn from it.

    Args:
        grid: Recorded outcomes.
        rows: The order.
        pool: Whose limits hold.
        judged: Whose answers are judged: `asked` members', or the `returned` answer alone.
        wrong: Share of the scores that are the opposite.
        seed: Which scores are.
        guarded: Whether members are watched, left out and probed.
        broken: Changes what members answer from a query on, by its number and whom was asked before.
    """
    learner = OnlineLearner(PriorPolicy(grid.members))
    guard = Guard(learner.base, learner, mode="on") if guarded else None
    rng, column = np.random.default_rng(seed), {name: m for m, name in enumerate(grid.members)}
    run = Run(np.zeros(len(rows)), np.zeros(len(rows)), np.zeros((len(rows), len(column)), dtype=bool))
    log_weight, seen = math.log(FIRST_COST_WEIGHT), grid
    for number, row in enumerate(rows.tolist()):
        if broken is not None:
            seen = broken(number, seen, run.asked)
        out = () if guard is None else guard.left_out
        available = tuple(name for name in grid.members if name not in out)
        weight = math.exp(log_weight)
        served = serve(learner.policy, seen, row=row, cost_weight=weight, available=available, number=number, pool=pool)
        probes = () if guard is None else guard.probes(str(number))
        if probes:  # asked beside the team; their answers are judged, and were not waited for
            answers = {one.member: one for one in candidates_of(seen, row)}
            served = replace(served, candidates=(*served.candidates, *(answers[name] for name in probes)))
        scores = {name: float(seen.scores[row, column[name]]) for name in sorted(served.asked)}
        run.scores[number] = scores[str(served.answer.member)]
        run.calls[number] = len(scores)
        run.asked[number, [column[name] for name in scores]] = True
        if wrong:
            scores = {name: 1 - score if rng.random() < wrong else score for name, score in scores.items()}
        feedback = Feedback(
            answer_id=served.id,
            score=scores[str(served.answer.member)],
            per_member=scores if judged == "asked" else {},
        )
        if guard is None:
            learner.update(served, feedback)
        else:
            run.changes += [(number, change) for change in guard.update(served, feedback)]
        log_weight += RATE * (len(scores) - TARGET)
    return run


class Ranking(Protocol):
    """Ranks members."""

    def index(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what members are ranked by, and what they are thought to be worth."""

    def learn(self, row: int, member: int, score: float) -> None:
        """Learn from a score."""


class Known:
    """Members by their mean scores on all rows."""

    def __init__(self, grid: OutcomeGrid) -> None:
        self.means = grid.scores.mean(axis=0)

    def index(self, row: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002  # of no use without context
        """See `Ranking`."""
        return self.means, self.means

    def learn(self, row: int, member: int, score: float) -> None:
        """See `Ranking`."""


class Plain:
    """UCB without context: the mean score, with half a score beforehand, and a width that falls as 1/√n."""

    def __init__(self, num: int, *, width: float) -> None:
        self.width, self.total, self.count = width, np.full(num, 0.5), np.ones(num)

    def index(self, row: int) -> tuple[np.ndarray, np.ndarray]:  # noqa: ARG002  # of no use without context
        """See `Ranking`."""
        estimate = self.total / self.count
        return estimate + self.width / np.sqrt(self.count), estimate

    def learn(self, row: int, member: int, score: float) -> None:  # noqa: ARG002  # of no use without context
        """See `Ranking`."""
        self.total[member] += score
        self.count[member] += 1


class Linear:
    """LinUCB or, `sampled`, linear Thompson sampling, with a model of each member.

    Sources: Li et al., 2010, https://arxiv.org/abs/1003.0146 (disjoint models); Agrawal and Goyal, 2013,
    https://arxiv.org/abs/1209.3352.
    """

    def __init__(self, inputs: np.ndarray, num: int, *, width: float, sampled: bool) -> None:
        self.inputs, self.width, self.sampled = inputs, width, sampled
        dim, self.rng = inputs.shape[1], np.random.default_rng(0)
        self.inverse, self.moment = np.tile(np.eye(dim), (num, 1, 1)), np.zeros((num, dim))

    def index(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranking`."""
        across = self.inverse @ self.inputs[row]
        estimate, deviation = (across * self.moment).sum(axis=1), np.sqrt(across @ self.inputs[row])
        bonus = self.rng.standard_normal(len(estimate)) if self.sampled else 1.0
        return estimate + self.width * bonus * deviation, estimate

    def learn(self, row: int, member: int, score: float) -> None:
        """See `Ranking`."""
        x = self.inputs[row]
        across = self.inverse[member] @ x
        self.inverse[member] -= np.outer(across, across / (1 + across @ x))
        self.moment[member] += score * x


def vote(grid: OutcomeGrid, rows: np.ndarray, *, make: Callable[[], Ranking], pool: Pool = POOL) -> Run:
    """Ask from the first down until three agree; two are enough where the mean of calls is above 3.

    Most votes win, and of as many the member that is thought best.
    """
    ranking, num = make(), len(grid.members)
    run, spent = Run(np.zeros(len(rows)), np.zeros(len(rows)), np.zeros((len(rows), num), dtype=bool)), 0
    for number, row in enumerate(rows.tolist()):
        needed = 3 if spent <= TARGET * number else 2
        index, estimate = ranking.index(row)
        team, given = list[int](), list[int]()
        for m in np.argsort(-index, kind="stable")[: pool.max_team].tolist():
            team.append(m)
            given.append(int(grid.answer_ids[row, m]))
            if given[-1] >= 0 and given.count(given[-1]) == needed:
                break
        best = max(
            zip(team, given, strict=True), key=lambda one: ((one[1] >= 0) * given.count(one[1]), estimate[one[0]])
        )[0]
        run.scores[number], run.calls[number] = grid.scores[row, best], len(team)
        run.asked[number, team] = True
        spent += len(team)
        for m in team:
            ranking.learn(row, m, float(grid.scores[row, m]))
    return run


def bandits_of(grid: OutcomeGrid) -> dict[str, dict[str, Callable[[], Ranking]]]:
    """List the bandits, by name and by what is chosen in their favour."""
    num, inputs = len(grid.members), compact(features_of(grid.queries, grid.tasks))
    seen = {"": inputs[:, :OWN_DIM], ", words": inputs}
    return {
        "UCB without context": {f"width {width:g}": partial(Plain, num, width=width) for width in WIDTHS},
        **{
            name: {
                f"width {width:g}{what}": partial(Linear, taken, num, width=width, sampled=name != "LinUCB")
                for width in WIDTHS
                for what, taken in seen.items()
            }
            for name in ("LinUCB", "Thompson sampling")
        },
    }


def offline_of(grid: OutcomeGrid) -> Run:
    """Score and calls of each row by a policy that was trained on others, with every member's score."""
    from langchain_rlfocal.training import TrainingConfig, train

    row_of = {key: row for row, key in enumerate(zip(grid.tasks, grid.query_ids, grid.queries, strict=True))}
    found = np.full((2, len(grid)), np.nan)
    for seed in range(5):
        parts = grid.split(fractions=CROSS_TEST, rotation=seed / 5)
        config = TrainingConfig(seed=seed, max_team=POOL.max_team, max_rounds=POOL.max_rounds)
        policy = train(parts[0], parts[1], config)
        played = replay(
            policy,
            parts[2],
            cost_weight=0.0,
            target=Target("target_calls", TARGET),
            max_team=POOL.max_team,
            max_rounds=POOL.max_rounds,
        )
        keys = zip(parts[2].tasks, parts[2].query_ids, parts[2].queries, strict=True)
        rows = [row_of[key] for key in keys]
        found[:, rows] = played.scores, played.calls
        print(f"offline, rotation {seed}: {100 * played.scores.mean():.1f}", file=sys.stderr, flush=True)
    return Run(*found, np.zeros(0))


def break_most_asked(grid: OutcomeGrid) -> Callable[[int, OutcomeGrid, np.ndarray], OutcomeGrid]:
    """Let the member that was asked most often answer at random from one query on, and recover at another."""
    rng = np.random.default_rng(0)
    # The options that somebody chose; ten letters.
    letters = sorted({str(label) for label in grid.answers.ravel() if label is not None})
    letters = [label for label in letters if len(label) == 1]
    drawn = np.array([letters[k] for k in rng.integers(len(letters), size=len(grid))], dtype=object)

    def change(number: int, seen: OutcomeGrid, asked: np.ndarray) -> OutcomeGrid:
        if number == RECOVERS:
            return grid
        if number != BREAKS:
            return seen
        member = int(asked[BREAKS - 500 : BREAKS].sum(axis=0).argmax())
        answers, ids, scores = grid.answers.copy(), grid.answer_ids.copy(), grid.scores.copy()
        answers[:, member] = drawn
        scores[:, member] = [float(one == gold) for one, gold in zip(drawn, grid.golds, strict=True)]
        ids[:, member] = member  # of no use beside labels, and never -1
        return replace(grid, answers=answers, answer_ids=ids, scores=scores)

    return change


def line(name: str, orders: Sequence[np.ndarray], runs: Sequence[Run], base: Sequence[Run], window: slice) -> str:
    """Write one row of a table: means over the orders, and the paired difference to the base on the same queries."""
    scores = [100 * run.scores[window].mean() for run in runs]
    orders = orders[: len(runs)]
    calls = float(np.mean([run.calls[window].mean() for run in runs]))
    start = f"| {name} | {np.mean(scores):.2f} | {min(scores):.1f} to {max(scores):.1f} | {calls:.2f} |"
    if runs is base:
        return f"{start} |"
    differences = np.full((len(orders), 1 + max(int(order.max()) for order in orders)), np.nan)
    for mine, order, *both in zip(differences, orders, runs, base, strict=True):
        mine[order[window]] = 100 * (both[0].scores[window] - both[1].scores[window])
    mean, low, high = two_way(differences)
    return f"{start} {mean:+.2f} ({low:+.2f} to {high:+.2f}) |"


def two_way(differences: np.ndarray) -> tuple[float, float, float]:
    """Take the mean of differences, shape [orders, rows], NaN where a row is not there, and its interval over both."""
    there, rng = ~np.isnan(differences), np.random.default_rng(0)
    filled, drawn = np.where(there, differences, 0.0), list[float]()
    for _ in range(DRAWS):
        by_order, by_row = (rng.multinomial(n, np.full(n, 1 / n)) for n in differences.shape)
        drawn.append(float((by_order @ filled @ by_row) / (by_order @ there @ by_row)))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(np.nanmean(differences)), float(low), float(high)


HEAD = "| way | score % | range of the orders | calls | minus learner (95 %) |\n|---|---|---|---|---|"


def broken_lines(members: Sequence[str], runs: Sequence[Run]) -> Iterator[str]:
    """Say what became of the broken member in each order; times in queries."""
    yield (
        "| order | asked before | left out after | asked 100 to 1,500 after | found again after | asked in the last 500 | "
        "others left out |"
    )
    yield f"|{'---|' * 7}"
    for number, run in enumerate(runs):
        member = int(run.asked[BREAKS - 500 : BREAKS].sum(axis=0).argmax())
        changes = [(at, one.kind, one.figures.get("member")) for at, one in run.changes]
        mine = [(at, kind) for at, kind, name in changes if name == members[member]]
        out = next((at - BREAKS for at, kind in mine if kind == "left_out" and at >= BREAKS), None)
        back = next((at - RECOVERS for at, kind in mine if kind == "returned" and at >= RECOVERS), None)
        others = sum(kind == "left_out" and name != members[member] for _, kind, name in changes)
        asked = 100 * run.asked[:, member]
        yield (
            f"| {number} | {asked[BREAKS - 500 : BREAKS].mean():.0f} % | {out} | {asked[BREAKS + 100 : RECOVERS].mean():.1f} % | "
            f"{back} | {asked[-500:].mean():.0f} % | {others} |"
        )


def main() -> None:
    """Replay, compare, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed of the first order")
    parser.add_argument("--keep", type=Path, help="where each run is kept, so that it need not be done again")
    parser.add_argument("--part", action="append", choices=("main", "pools", "returned", "wrong", "broken"))
    given = parser.parse_args()
    grid = POOL.read(given.folder).canonical()
    orders = [np.random.default_rng(given.first + one).permutation(len(grid))[:QUERIES] for one in range(given.orders)]
    whole = slice(None)

    def timed(
        what: str,
        run: Callable[[np.ndarray], Run],
        *,
        most: int | None = None,
        among: Sequence[np.ndarray] = orders,
    ) -> list[Run]:
        runs = []
        for number, order in enumerate(among[:most], start=given.first):
            start, file = time.perf_counter(), given.keep / f"{what}-{number}.json" if given.keep else None
            runs.append(kept(file, partial(run, order)))
            score, spent = 100 * runs[-1].scores.mean(), time.perf_counter() - start
            print(f"{what}, order {number}: {score:.2f}, {spent:.0f} s", file=sys.stderr, flush=True)
        return runs

    def show(title: str, ways: Mapping[str, list[Run]], window: slice, among: Sequence[np.ndarray] = orders) -> None:
        print(f"\n{title}:\n\n{HEAD}")
        for name, runs in ways.items():
            print(line(name, among, runs, ways["learner"], window), flush=True)

    def rivals(seen: OutcomeGrid, pool: Pool, among: Sequence[np.ndarray]) -> dict[str, list[Run]]:
        """Play the cascade, and of each bandit the setting that is best over all orders."""
        found, name = {}, pool.file
        found["cascade"] = timed(
            f"{name} cascade", partial(vote, seen, make=partial(Known, seen), pool=pool), among=among
        )
        for bandit, settings in bandits_of(seen).items():
            tried = {
                setting: timed(f"{name} {bandit}, {setting}", partial(vote, seen, make=make, pool=pool), among=among)
                for setting, make in settings.items()
            }
            best = max(tried, key=lambda one: np.mean([run.scores.mean() for run in tried[one]]))
            found[f"{bandit}, {best}"] = tried[best]
        return found

    parts = given.part
    if not parts or "pools" in parts:
        for name in OTHERS:
            pool = POOLS[name]
            other = pool.read(given.folder).canonical()
            among = [np.random.default_rng(given.first + one).permutation(len(other)) for one in range(given.orders)][
                :FEW
            ]
            ways = {"learner": timed(f"{pool.file} learner", partial(learn, other, pool=pool), among=among)}
            ways |= rivals(other, pool, among)
            show(f"{name}, {len(other):,} queries, {len(among)} orders", ways, whole, among)
    if parts == ["pools"]:
        return
    learned = timed("learner", partial(learn, grid))
    if not parts or "main" in parts:
        offline = kept(given.keep and given.keep / "offline.json", partial(offline_of, grid))
        trained = [Run(offline.scores[order], offline.calls[order], np.zeros(0)) for order in orders]
        ways = {"learner": learned, "offline policy": trained}
        show(f"Queries {KNOWN:,} to {QUERIES:,}", ways, slice(KNOWN, None))
        ways |= rivals(grid, POOL, orders)
        show("The whole stream", ways, whole)
    ways = {"learner": learned[:FEW]}
    if not parts or "wrong" in parts:
        runs = timed("wrong", lambda order: learn(grid, order, wrong=0.05), most=FEW)
        ways["5 % of the scores are wrong"] = runs
    if not parts or "broken" in parts:
        runs = timed("broken", lambda order: learn(grid, order, guarded=True, broken=break_most_asked(grid)), most=FEW)
        ways["a member breaks and recovers, guarded"] = runs
        print(f"\nThe member asked most breaks at query {BREAKS:,} and recovers at {RECOVERS:,}:\n")
        print("\n".join(broken_lines(grid.members, runs)), flush=True)
    if not parts or "returned" in parts:
        runs = timed("returned", lambda order: learn(grid, order, judged="returned"), most=FEW)
        ways["only the returned answer is judged"] = runs
    if len(ways) > 1:
        show(f"The whole stream, otherwise, {len(learned[:FEW])} orders", ways, whole)


if __name__ == "__main__":
    main()
