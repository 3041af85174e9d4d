"""How fast the learning core is: decisions a second in rollouts, and microseconds for one decision when serving.

Run it with `python docs/benchmarks/speed.py`, on one thread: 12 members, teams of up to 8 in up to 4 rounds. Rollouts count a
decision for each team that the Decider draws and for each candidate that Fusion draws. Serving counts one `select` and one
`fuse` over three candidates, for a query of 100 words: seen for the first time, and remembered.
"""

import time
from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from langchain_rlfocal.environment import EnsembleEnv
from langchain_rlfocal.records import Candidate, Query
from langchain_rlfocal.testing import make_outcomes
from langchain_rlfocal.training import TrainingConfig, train
from langchain_rlfocal.training.preparation import prepare
from langchain_rlfocal.training.rollout import roll_out

MEMBERS = {f"member-{number}": 0.4 + 0.02 * number for number in range(12)}
MAX_TEAM, MAX_ROUNDS, BATCH, REPEATS = 8, 4, 4096, 21


def median_s(run: Callable[[], object]) -> float:
    """Median seconds of some runs, after one that does not count."""
    run()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[REPEATS // 2]


def main() -> None:
    """Print the table."""
    table = make_outcomes({"one": MEMBERS, "two": MEMBERS}, num_queries=1000, num_options=10)
    grid = table.grid(table.members)
    training, validation, _ = grid.split()
    config = TrainingConfig(max_team=MAX_TEAM, max_rounds=MAX_ROUNDS, num_iterations=5)
    policy = train(training, validation, config)
    with threadpool_limits(limits=1):
        prepared = prepare(training, config, embedder=None, rng=np.random.default_rng(0))
        env = EnsembleEnv(
            prepared.grid, prepared.known, prepared.evidence, max_team=MAX_TEAM, max_rounds=MAX_ROUNDS,
            charges=prepared.charges,
        )  # fmt: skip
        rng = np.random.default_rng(0)
        index = rng.integers(len(prepared.grid), size=BATCH)
        weights = dict(policy.parts.weights)
        made = roll_out(env, weights, index, np.full(BATCH, 0.1), rng=rng)
        decisions = len(made.step) + len(made.chosen)
        seconds = median_s(lambda: roll_out(env, weights, index, np.full(BATCH, 0.1), rng=np.random.default_rng(0)))
        print(f"rollouts         {decisions / seconds:10,.0f} decisions a second ({decisions:,} in {seconds:.3f} s)")

        text = " ".join(f"word{number}" for number in range(100))
        answers = ("A", "B", "A")
        candidates = [
            Candidate(member=name, round=1, text="The answer is " + answer, answer=answer, latency_s=0.0)
            for name, answer in zip(list(MEMBERS)[-3:], answers, strict=True)
        ]
        limits = {"max_rounds": MAX_ROUNDS, "max_team": MAX_TEAM, "cost_weight": 0.1}
        number = 0

        def decide(query: Query) -> None:
            policy.select(query, candidates, (), available=policy.members, round_number=2, **limits)
            policy.fuse(query, candidates, (), max_team=MAX_TEAM)

        def decide_anew() -> None:
            nonlocal number
            number += 1
            decide(Query(f"{text} {number}", "one"))

        known = Query(text, "one")
        print(f"serving, new     {median_s(decide_anew) * 1e6:10,.0f} microseconds for select and fuse")
        print(f"serving, known   {median_s(lambda: decide(known)) * 1e6:10,.0f} microseconds for select and fuse")


if __name__ == "__main__":
    main()
