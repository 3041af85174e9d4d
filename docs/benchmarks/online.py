"""What is learned while answers are served: from no policy, one judged query after the other.

    python docs/benchmarks/online.py FOLDER [--orders 10] [--keep FOLDER] [--part NAME]

`mmlu_pro/open12`, in random orders of 5,700 queries. Every query is answered first and learned from then (prequential), from the
scores of the members that were asked and of no others. The mean number of calls is kept at 3 by a controller of the cost weight,
which sees calls and no score.

It is compared, on the same queries, with a policy that was trained offline on four fifths of all rows with every member's score, and
evaluated on the last fifth (a cross-test, at its own target of 3 calls); with LinUCB and linear
Thompson sampling, which see the same features and feedback, and ask a team of three whose votes count alike, their width chosen in
their favour (the best of three by the mean over all orders); and with a cascade that asks members from the best down, by scores
of all rows, until two agree, or three on as many
queries as make 3 calls on average. Intervals are bootstrap intervals over the queries, of the mean over
the orders.

The learner's constants were chosen on orders of other seeds (1000 to 1002) of the same rows.
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

import numpy as np
from pools import POOLS

from langchain_rlfocal.environment import replay
from langchain_rlfocal.evaluation.metrics import paired_difference
from langchain_rlfocal.features import features_of
from langchain_rlfocal.online import Change, Feedback, Guard, OnlineLearner, ServedAnswer
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
WIDTHS = (0.1, 0.3, 1.0)
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
    policy: EnsemblePolicy, grid: OutcomeGrid, *, row: int, cost_weight: float, available: Sequence[str], number: int
) -> ServedAnswer:
    """Let a policy answer a recorded query."""
    said = dict(zip(grid.members, candidates_of(grid, row), strict=True))
    query, got = Query(grid.queries[row], grid.tasks[row]), list[Candidate]()
    for round_number in range(1, POOL.max_rounds + 1):
        selection = policy.select(
            query,
            got,
            (),
            available=available,
            round_number=round_number,
            max_rounds=POOL.max_rounds,
            max_team=POOL.max_team,
            cost_weight=cost_weight,
        )
        if not selection.members:
            break
        got += [replace(said[name], round=round_number) for name in selection.members]
        if len(got) >= POOL.max_team:
            break
    return ServedAnswer(
        id=str(number),
        query=query,
        available=tuple(available),
        policy_id=policy.policy_id,
        cost_weight=cost_weight,
        max_team=POOL.max_team,
        max_rounds=POOL.max_rounds,
        candidates=tuple(got),
        failures=(),
        answer=policy.fuse(query, got, (), max_team=POOL.max_team),
    )


def learn(
    grid: OutcomeGrid,
    rows: np.ndarray,
    *,
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
        available = grid.members if guard is None else guard.available(grid.members)
        served = serve(
            learner.policy, seen, row=row, cost_weight=math.exp(log_weight), available=available, number=number
        )
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


def linear_bandit(grid: OutcomeGrid, inputs: np.ndarray, rows: np.ndarray, *, width: float, sampled: bool) -> Run:
    """Ask the three members of highest index, LinUCB's or Thompson's; their votes count alike, a tie goes to the best estimate.

    Sources: Li et al., 2010, https://arxiv.org/abs/1003.0146 (disjoint models); Agrawal and Goyal, 2013,
    https://arxiv.org/abs/1209.3352.
    """
    rng, num, dim = np.random.default_rng(0), len(grid.members), inputs.shape[1]
    inverse, moment = np.tile(np.eye(dim), (num, 1, 1)), np.zeros((num, dim))
    run, team_size = Run(np.zeros(len(rows)), np.zeros(len(rows)), np.zeros((len(rows), num), dtype=bool)), int(TARGET)
    for number, row in enumerate(rows.tolist()):
        x = inputs[row]
        across = inverse @ x
        estimate, deviation = (across * moment).sum(axis=1), np.sqrt(across @ x)
        bonus = rng.standard_normal(num) if sampled else 1.0
        team = np.argsort(-(estimate + width * bonus * deviation), kind="stable")[:team_size]
        ids = grid.answer_ids[row, team]
        votes = np.array([(ids == one).sum() if one >= 0 else 0 for one in ids])
        best = max(range(team_size), key=lambda k: (votes[k], estimate[team[k]]))
        run.scores[number], run.calls[number] = grid.scores[row, team[best]], team_size
        run.asked[number, team] = True
        for m in team.tolist():
            inverse[m] -= np.outer(across[m], across[m]) / (1 + across[m] @ x)
            moment[m] += grid.scores[row, m] * x
    return run


def cascade(grid: OutcomeGrid, rows: np.ndarray) -> Run:
    """Ask from the best down, at most 8, until three agree; two are enough where the mean of calls is above 3."""
    order = np.argsort(-grid.scores.mean(axis=0), kind="stable").tolist()
    run = Run(np.zeros(len(rows)), np.zeros(len(rows)), np.zeros((len(rows), len(order)), dtype=bool))
    for number, row in enumerate(rows.tolist()):
        needed = 3 if run.calls[:number].sum() <= TARGET * number else 2
        given: list[int] = []
        for m in order[: POOL.max_team]:
            answer = int(grid.answer_ids[row, m])
            given.append(answer)
            if answer >= 0 and given.count(answer) == needed:
                break
        winner = max(given, key=lambda one: (one >= 0) * given.count(one))
        run.scores[number], run.calls[number] = grid.scores[row, order[given.index(winner)]], len(given)
        run.asked[number, order[: len(given)]] = True
    return run


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
    total, count = np.zeros((2, 1 + max(int(order.max()) for order in orders))), 0
    for order, *both in zip(orders, runs, base, strict=True):
        rows = order[window]
        for sums, run in zip(total, both, strict=True):
            np.add.at(sums, rows, 100 * run.scores[window])
        count = count + np.bincount(rows, minlength=total.shape[1])
    there = count > 0
    mine, theirs = total[:, there] / count[there]
    one = paired_difference(mine, theirs, rng=np.random.default_rng(0), weights=count[there].astype(float))
    return f"{start} {one.mean:+.2f} ({one.low:+.2f} to {one.high:+.2f}) |"


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
    parser.add_argument("--part", action="append", choices=("main", "returned", "wrong", "broken"))
    given = parser.parse_args()
    grid = POOL.read(given.folder).canonical()
    orders = [np.random.default_rng(given.first + one).permutation(len(grid))[:QUERIES] for one in range(given.orders)]

    def timed(what: str, run: Callable[[np.ndarray], Run], *, most: int | None = None) -> list[Run]:
        runs = []
        for number, order in enumerate(orders[:most], start=given.first):
            start = time.perf_counter()
            runs.append(kept(given.keep and given.keep / f"{what}-{number}.json", partial(run, order)))
            score, spent = 100 * runs[-1].scores.mean(), time.perf_counter() - start
            print(f"{what}, order {number}: {score:.2f}, {spent:.0f} s", file=sys.stderr, flush=True)
        return runs

    def show(title: str, ways: Mapping[str, list[Run]], window: slice) -> None:
        print(f"\n{title}:\n\n{HEAD}")
        for name, runs in ways.items():
            print(line(name, orders, runs, ways["learner"], window), flush=True)

    parts, whole, learned = given.part, slice(None), timed("learner", lambda order: learn(grid, order))
    if not parts or "main" in parts:
        offline = kept(given.keep and given.keep / "offline.json", partial(offline_of, grid))
        trained = [Run(offline.scores[order], offline.calls[order], np.zeros(0)) for order in orders]
        ways = {"learner": learned, "offline policy": trained}
        show(f"Queries {KNOWN:,} to {QUERIES:,}", ways, slice(KNOWN, None))
        ways["cascade"] = timed("cascade", lambda order: cascade(grid, order))
        inputs = compact(features_of(grid.queries, grid.tasks))[:, :OWN_DIM]
        for name, sampled in (("LinUCB", False), ("Thompson sampling", True)):
            tried = {
                width: timed(f"{name} {width}", partial(linear_bandit, grid, inputs, width=width, sampled=sampled))
                for width in WIDTHS
            }
            best = max(WIDTHS, key=lambda width: np.mean([run.scores.mean() for run in tried[width]]))
            ways[f"{name}, width {best:g}"] = tried[best]
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
