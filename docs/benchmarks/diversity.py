"""How long it takes to measure every team of a pool: 12 members, 4,095 teams, 10,000 random queries, one thread.

Run it with `python docs/benchmarks/diversity.py`. Random queries are the hardest case: hardly two of them look alike.
"""

import time

import numpy as np
from threadpoolctl import threadpool_limits

from langchain_rlfocal.diversity import all_teams, team_diversities

QUERIES, MEMBERS, ACCURACY, OPTIONS, REPEATS = 10_000, 12, 0.5, 10, 5


def main() -> None:
    """Print the median of some runs, without and with plurality accuracy."""
    rng = np.random.default_rng(0)
    correct = rng.random((QUERIES, MEMBERS)) < ACCURACY
    answer_ids = np.where(correct, 0, rng.integers(1, OPTIONS, correct.shape))
    teams = all_teams(MEMBERS)
    with threadpool_limits(limits=1):
        for name, given in (("measures of correctness", None), ("and plurality accuracy", answer_ids)):
            taken_s = []
            for _ in range(REPEATS):
                start = time.perf_counter()
                team_diversities(correct, teams=teams, answer_ids=given)
                taken_s.append(time.perf_counter() - start)
            print(f"{name:24}  {len(teams):,} teams, {QUERIES:,} queries: {sorted(taken_s)[REPEATS // 2]:.2f} s")


if __name__ == "__main__":
    main()
