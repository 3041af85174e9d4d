"""Environment: recorded outcomes, replayed as if the pool were asked now.

One episode is one query; a step is one round. The Decider adds members to the team or stops; then Fusion chooses an
answer. The team shares one reward:

    score of the chosen answer + diversity_weight x focal diversity of the team - cost_weight x price of every call

Every call is charged, right or wrong. Whole batches of queries step at once in NumPy. Scores leave this module as reward
only: a `State`, which is all that a policy sees, holds none.
"""

from dataclasses import dataclass, replace

import numpy as np

from langchain_rlfocal.diversity import focal_diversity
from langchain_rlfocal.observations import Bools, Floats, Ints, State
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.base import Descriptors, EnsemblePolicy, winners


class EnsembleEnv:
    """Many queries, one episode each; `reset` begins.

    Args:
        grid: Recorded outcomes of Q queries and M members.
        descriptors: What the policy knows of these members near these queries.
        max_team: How many members may be asked over all rounds.
        max_rounds: How many rounds there may be.
        diversity_weight: What focal diversity of the team is worth, in units of score.

    Attributes:
        state: What the policy may see, of the queries of the last `reset`.
        running: Queries whose Decider may still act, shape [Q].
    """

    def __init__(
        self,
        grid: OutcomeGrid,
        descriptors: Descriptors,
        *,
        max_team: int,
        max_rounds: int,
        diversity_weight: float = 0.0,
    ) -> None:
        self._grid, self._descriptors = grid, descriptors
        self._max_team, self._max_rounds = min(max_team, len(grid.members)), max_rounds
        self._diversity_weight = diversity_weight
        self._correct = grid.scores >= 0.5
        self._team_diversity: dict[bytes, float] = {}

    def reset(self, index: Ints, cost_weight: Floats) -> State:
        """Start an episode for each named query.

        Args:
            index: Rows of the grid, shape [B]; a row may occur more than once.
            cost_weight: What asking the whole pool once is worth in units of score, shape [B].
        """
        self._index = index
        self.running: Bools = np.ones(len(index), dtype=bool)
        shape = (len(index), len(self._grid.members))
        self.state = State(
            competence=self._descriptors.competence[index],
            price=self._descriptors.price,
            diversity=self._descriptors.diversity,
            surface=self._descriptors.surface[index],
            asked=np.zeros(shape, dtype=bool),
            answer_ids=np.full(shape, -1, dtype=np.int64),
            logprobs=np.full(shape, np.nan),
            cost_weight=cost_weight,
            round_number=1,
            max_rounds=self._max_rounds,
            max_team=self._max_team,
        )
        return self.state

    @property
    def scores(self) -> Floats:
        """Recorded scores of the running episodes' queries, shape [B, M]: for the critic and the report, never an actor."""
        return self._grid.scores[self._index]

    def ask(self, teams: Bools) -> Floats:
        """Ask these members, shape [B, M]; an empty row stops its episode, a row of a stopped one is ignored.

        Returns:
            Reward of the step, shape [B]: minus what the calls cost.
        """
        teams = teams & self.running[:, None] & ~self.state.asked
        asked = self.state.asked | teams
        self.running = self.running & teams.any(axis=1) & (self.state.round_number < self._max_rounds)
        self.state = replace(
            self.state,
            asked=asked,
            answer_ids=np.where(asked, self._grid.answer_ids[self._index], -1),
            logprobs=np.where(asked, self._grid.logprobs[self._index], np.nan),
            round_number=min(self.state.round_number + 1, self._max_rounds),
        )
        spent: Floats = (teams * self.state.price).sum(axis=1)
        return -self.state.cost_weight * spent

    def fuse(self, chosen: Ints) -> Floats:
        """End all episodes by returning the answer of one asked member each, shape [B].

        Returns:
            Reward of the step, shape [B]: the answer's score and the team's diversity bonus.
        """
        rows = np.arange(len(self._index))
        reward: Floats = self.scores[rows, chosen]
        if self._diversity_weight:
            reward = reward + self._diversity_weight * self._diversity_of_teams()
        return reward

    def _diversity_of_teams(self) -> Floats:
        """Focal diversity of each episode's team over all recorded queries, 0 for a team of one, shape [B]."""
        packed = np.packbits(self.state.asked, axis=1)
        diversity = np.empty(len(packed))
        for row, key in enumerate(map(bytes, packed)):
            known = self._team_diversity.get(key)
            if known is None:
                team = self.state.asked[row]
                known = float(focal_diversity(self._correct[:, team])) if team.sum() > 1 else 0.0
                self._team_diversity[key] = known
            diversity[row] = known
        return diversity


@dataclass(frozen=True, slots=True)
class Replay:
    """What a policy did on recorded outcomes.

    Attributes:
        asked: Members asked, shape [Q, M].
        chosen: The member whose answer was returned, shape [Q].
        scores: Its recorded score, shape [Q].
        calls: How many members were asked, shape [Q].
        rounds: In how many rounds, shape [Q].
        spent: Their share of what asking the whole pool costs, shape [Q].
    """

    asked: Bools
    chosen: Ints
    scores: Floats
    calls: Ints
    rounds: Ints
    spent: Floats


def replay(
    policy: EnsemblePolicy,
    grid: OutcomeGrid,
    *,
    cost_weight: float,
    max_team: int,
    max_rounds: int,
    hide_tasks: bool = False,
) -> Replay:
    """Let a policy answer recorded queries: frozen, deterministic, blind to every score.

    Args:
        policy: The policy.
        grid: The recorded outcomes.
        cost_weight: What asking the whole pool once is worth, in units of score.
        max_team: How many members may be asked over all rounds.
        max_rounds: How many rounds there may be.
        hide_tasks: Whether the policy sees no task label, as where a caller gives none.

    Raises:
        PoolError: The grid has a member that the policy does not know.
    """
    tasks = [None] * len(grid) if hide_tasks else grid.tasks
    described = policy.describe(grid.queries, tasks, grid.members)
    env = EnsembleEnv(grid, described, max_team=max_team, max_rounds=max_rounds)
    env.reset(np.arange(len(grid)), np.full(len(grid), cost_weight))
    rounds = np.zeros(len(grid), dtype=np.int64)
    while env.running.any():
        running = env.running
        teams, _ = policy.team(env.state)
        rounds += running & teams.any(axis=1)
        env.ask(teams)
    spent = (env.state.asked * described.price).sum(axis=1)
    chosen = winners(env.state, policy.weigh(env.state))
    return Replay(
        asked=env.state.asked,
        chosen=chosen,
        scores=env.fuse(chosen),
        calls=env.state.asked.sum(axis=1),
        rounds=rounds,
        spent=spent,
    )
