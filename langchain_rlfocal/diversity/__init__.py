"""Diversity: how differently the members of a team fail.

Pure functions of `correct`, a bool array of shape [Q, M]: whether each member answered each query right. For the figures of
one team, pass its columns; `team_diversities` measures all teams of a pool at once. `measures` holds the measures of a
team, `pairs` those of two members, `teams` those of many teams.

`generalized_diversity`, `focal_diversity`, `accuracy_adjusted_diversity`, `pairwise_focal_diversity`, `disagreement` and
`entropy` grow with diversity; `kappa`, `yule_q`, `phi`, `double_fault` and `fleiss_kappa` grow with *agreement*. Never add
the two kinds up with one sign, and never compare the raw figures of teams of different sizes: even for independent errors
the first kind grows with accuracy and team size (`accuracy_adjusted_diversity` takes that part off). `plurality_accuracy`
is neither: it is what the answers are worth together.

Edge cases, the same everywhere:
- Nobody ever fails: nothing can fail together, so the generalised and focal diversities are 1 (their p(2)/p(1) is 0/0).
- One member: it shares every failure with itself, as identical members do, so its diversities are 0 and its agreements 1.
- A member that is always right, or always wrong: no association can be measured, so `kappa`, `yule_q` and `phi` are 0 with
  it; they are 1 for two members that are right and wrong on the very same queries, even then. `fleiss_kappa` is 1 where
  everyone says the same on all queries.
"""

from langchain_rlfocal.diversity.measures import (
    accuracy_adjusted_diversity,
    entropy,
    fleiss_kappa,
    focal_diversity,
    generalized_diversity,
    independent_focal_diversity,
    plurality_accuracy,
)
from langchain_rlfocal.diversity.pairs import (
    disagreement,
    double_fault,
    kappa,
    mean_over_pairs,
    pairwise_focal_diversity,
    phi,
    yule_q,
)
from langchain_rlfocal.diversity.teams import TeamDiversities, all_teams, largest_team_size, team_diversities

__all__ = [
    "TeamDiversities",
    "accuracy_adjusted_diversity",
    "all_teams",
    "disagreement",
    "double_fault",
    "entropy",
    "fleiss_kappa",
    "focal_diversity",
    "generalized_diversity",
    "independent_focal_diversity",
    "kappa",
    "largest_team_size",
    "mean_over_pairs",
    "pairwise_focal_diversity",
    "phi",
    "plurality_accuracy",
    "team_diversities",
    "yule_q",
]
