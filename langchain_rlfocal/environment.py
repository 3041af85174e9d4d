"""Environment: recorded outcomes, replayed as if the pool were asked now.

One episode is one query; a step is one round. The Decider adds members to the team or stops; then Fusion chooses a
candidate. The team shares one reward:

    score of the chosen candidate + diversity_weight x focal diversity of the team - cost_weight x charge of every call

Every call is charged, right or wrong: in training its recorded cost as a share of what asking the whole pool costs on
average, else, and where the cost of the call is unknown, the member's price. Whole batches of queries step at once in NumPy.
Scores leave this module as reward only: a `State`, which is all that a policy sees, holds none.
"""

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.diversity import focal_diversities
from langchain_rlfocal.outcomes import OutcomeGrid, costs_of
from langchain_rlfocal.policies.base import EnsemblePolicy, winners
from langchain_rlfocal.policies.looks import looks_of
from langchain_rlfocal.policies.targets import (
    Aim,
    Mixture,
    OperatingPoint,
    Target,
    TargetController,
    Unit,
    curve_of,
    position_of,
)
from langchain_rlfocal.states import Answers, Bools, Evidence, Floats, Ints, MemberFeatures, State, cached, state_of

MOST_EPISODES = 2**17
"""More episodes than so many are not played at once, but in parts: what a policy sees of each takes kilobytes."""


def answers_of(grid: OutcomeGrid) -> Answers:
    """Lay out what a grid's members answered: one candidate for each member, and one for each option.

    An option has the same index no matter which member gives it, so that no index tells what members answered that were not asked.
    """
    if grid.option_probs is None:
        looks = looks_of(grid.queries, grid.answers)
        return Answers(grid.answer_ids, grid.answers, grid.response_chars, grid.logprobs, None, looks)
    assert grid.option_ids is not None
    assert grid.option_answers is not None
    q, m, o = grid.option_probs.shape
    offered, nothing = grid.option_ids >= 0, np.array(None, dtype=object)
    candidate_index = grid.answer_ids.copy()
    for j in range(o):
        candidate_index[offered[:, j, None] & (grid.answer_ids == grid.option_ids[:, j, None])] = m + j
    option_scores = np.full((q, m, m + o), np.nan)
    option_scores[:, :, m:] = np.where(offered[:, None], grid.option_probs, np.nan)
    labels = np.concatenate([grid.answers, np.where(offered, grid.option_answers, nothing)], axis=1)
    looks = looks_of(grid.queries, labels)
    return Answers(candidate_index, labels, grid.response_chars, grid.logprobs, option_scores, looks)


def candidate_scores(grid: OutcomeGrid) -> Floats:
    """Recorded score of each candidate of `answers_of`, 0 for an option that cannot be chosen, shape [Q, K].

    NaN where none of a candidate's supporters was scored; the mean where they were scored differently.
    """
    scores = grid.scores.copy()
    for member in range(scores.shape[1]):
        given = np.where(grid.answer_ids == member, grid.scores, np.nan)
        low, high = np.fmin.reduce(given, axis=1), np.fmax.reduce(given, axis=1)
        scores[:, member] = np.where(np.isnan(low), scores[:, member], low)
        rows = np.flatnonzero(low < high)
        scores[rows, member] = np.nanmean(given[rows], axis=1)
    if grid.option_ids is None or grid.option_scores is None:
        return scores
    return np.concatenate([scores, np.where(grid.option_ids >= 0, grid.option_scores, 0.0)], axis=1)


class EnsembleEnv:
    """Many queries, one episode each; `reset` begins.

    Args:
        grid: Recorded outcomes of Q queries and M members.
        features: What the policy knows of these members near these queries.
        evidence: What the policy reads in their answers, shown of asked members only.
        max_team: How many members may be asked over all rounds.
        max_rounds: How many rounds there may be.
        diversity_weight: What focal diversity of the team is worth, in units of score.
        charges: What each call costs as a share of asking the whole pool, shape [Q, M]; None charges prices.

    Attributes:
        grid: The outcomes.
        asked: Members asked so far in each of B episodes, shape [B, M].
        running: Episodes whose Decider may still act, shape [B].
        round_number: The coming round, counted from 1.
    """

    def __init__(
        self,
        grid: OutcomeGrid,
        features: MemberFeatures,
        evidence: Evidence,
        *,
        max_team: int,
        max_rounds: int,
        diversity_weight: float = 0.0,
        charges: Floats | None = None,
    ) -> None:
        self.max_team, self.max_rounds = min(max_team, len(grid.members)), max_rounds
        self._features, self._evidence = features, evidence
        self.grid = grid
        self._scores = candidate_scores(grid)
        self._member_scores = grid.scores
        self._charges = np.broadcast_to(features.price, grid.scores.shape) if charges is None else charges
        self._diversity_weight = diversity_weight
        self._recorded = grid.recorded
        self._correct = grid.scores[~np.isnan(grid.scores).any(axis=1)] >= 0.5
        self._team_diversity: dict[bytes, float] = {}

    def reset(self, index: Ints, cost_weight: Floats, *, max_team: int | None = None) -> None:
        """Start an episode for each named query.

        Args:
            index: Rows of the grid, shape [B]; a row may occur more than once.
            cost_weight: What asking the whole pool once is worth in units of score, shape [B].
            max_team: How many members may be asked in these episodes, where that is fewer than in all.
        """
        self._max_team = min(max_team or self.max_team, self.max_team)
        self._index, self._cost_weight = index, cost_weight.astype(self._features.competence.dtype)
        self.running: Bools = np.ones(len(index), dtype=bool)
        self.asked: Bools = np.zeros((len(index), self._features.competence.shape[1]), dtype=bool)
        self.round_number = 1

    def state(self, episodes: Bools | None = None) -> State:
        """Return what the policy may see of these episodes, of all by default; `episodes` is a mask of shape [B]."""
        rows = np.arange(len(self._index)) if episodes is None else np.flatnonzero(episodes)
        return state_of(
            self._features.take(self._index[rows]),
            self._evidence.take(self._index[rows]),
            self.asked[rows],
            cost_weight=self._cost_weight[rows],
            round_number=self.round_number,
            max_rounds=self.max_rounds,
            max_team=self._max_team,
        )

    def scores(self, episodes: Bools | None = None) -> tuple[Floats, Floats]:
        """Return recorded scores of the members, shape [B, M], and of the candidates, shape [B, K].

        For the critic and the report, never an actor.
        """
        index = self._index if episodes is None else self._index[episodes]
        return self._member_scores[index], self._scores[index]

    @property
    def charges(self) -> Floats:
        """What each call of these episodes costs, shape [B, M]."""
        return self._charges[self._index]

    @property
    def is_whole(self) -> Bools:
        """Whether the outcome of every member asked so far is on record, shape [B]."""
        return np.asarray((self._recorded[self._index] | ~self.asked).all(axis=1))

    def ask(self, teams: Bools) -> Floats:
        """Ask these members, shape [B, M]; an empty row stops its episode, a row of a stopped one is ignored.

        Returns:
            Reward of the step, shape [B]: minus what the calls cost.
        """
        teams = teams & self.running[:, None] & ~self.asked
        self.asked = self.asked | teams
        self.running = self.running & teams.any(axis=1) & (self.round_number < self.max_rounds)
        self.running &= self.asked.sum(axis=1) < self._max_team
        self.round_number = min(self.round_number + 1, self.max_rounds)
        return np.asarray(-self._cost_weight * (teams * self.charges).sum(axis=1))

    def fuse(self, state: State, chosen: Ints) -> Floats:
        """End all episodes by returning one candidate each.

        Args:
            state: What `state()` showed of them.
            chosen: Indices of candidates, shape [B].

        Returns:
            Reward of the step, shape [B]: the candidate's score and the team's diversity bonus. Where members that gave
            one answer were scored differently, the most competent one's score counts, whose answer would be returned.
        """
        reward = self.scores_of(state, chosen)
        if self._diversity_weight:
            reward = reward + self._diversity_weight * self._diversity_of_teams()
        return reward

    def scores_of(self, state: State, chosen: Ints) -> Floats:
        """Return the recorded score of what `fuse` would return, shape [B]."""
        member = state.representative[np.arange(len(self._index)), chosen]
        supported = self._member_scores[self._index, np.maximum(member, 0)]
        return np.where(member >= 0, supported, self._scores[self._index, chosen])

    def _diversity_of_teams(self) -> Floats:
        """Focal diversity of each episode's team over all scored queries, 0 for a team of one, shape [B]."""
        packed, which = np.unique(np.packbits(self.asked, axis=1), axis=0, return_inverse=True)
        keys = [row.tobytes() for row in packed]
        new = [row for row, key in enumerate(keys) if key not in self._team_diversity]
        if new:
            teams = np.unpackbits(packed[new], axis=1, count=self.asked.shape[1]).astype(bool)
            found = focal_diversities(self._correct, teams)
            self._team_diversity.update(zip([keys[row] for row in new], found.tolist(), strict=True))
        diversity = np.array([self._team_diversity[key] for key in keys])
        return diversity[which.ravel()]


@dataclass(frozen=True, slots=True)
class Replay:
    """What a policy did on recorded outcomes.

    Attributes:
        asked_in: Round in which each member was asked, 0 if it was not, shape [Q, M].
        chosen: The member whose answer was returned, -1 for an option that no member ranked first, shape [Q].
        scores: The answer's recorded score, shape [Q]; NaN where it was not scored, or where a member that the policy asked was
            not asked when the outcomes were recorded, so that nobody knows what it would have returned.
        spent: Share of what asking the whole pool costs, shape [Q].
        confidence: Fusion's weight of the answer, shape [Q].
    """

    asked_in: Ints
    chosen: Ints
    scores: Floats
    spent: Floats
    confidence: npt.NDArray[np.float64]

    @property
    def asked(self) -> Bools:
        """Members asked, shape [Q, M]."""
        return self.asked_in > 0

    @property
    def calls(self) -> Ints:
        """How many members were asked, shape [Q]."""
        return np.asarray(self.asked.sum(axis=1))

    @property
    def rounds(self) -> Ints:
        """In how many rounds, shape [Q]."""
        return np.asarray(self.asked_in.max(axis=1))


def replay(
    policy: EnsemblePolicy,
    grid: OutcomeGrid,
    *,
    cost_weight: float,
    max_team: int,
    max_rounds: int,
    hide_tasks: bool = False,
    target: Target | None = None,
) -> Replay:
    """Let a policy answer recorded queries: frozen, deterministic, blind to every score.

    Args:
        policy: The policy.
        grid: The recorded outcomes.
        cost_weight: What asking the whole pool once is worth, in units of score, where there is no target.
        max_team: How many members may be asked over all rounds.
        max_rounds: How many rounds there may be.
        hide_tasks: Whether the policy sees no task label, as where a caller gives none.
        target: What a query may take on average; see `Replays.within`.

    Raises:
        PoolError: The grid has a member that the policy does not know.
        InputError: The policy has no curve, or the target is out of its reach.
    """
    env = environment_of(policy, grid, max_team=max_team, max_rounds=max_rounds, hide_tasks=hide_tasks)
    if target is None:
        return play(policy, env, np.arange(len(grid)), np.full(len(grid), cost_weight))
    return Replays(policy, env, hide_tasks=hide_tasks).within(target)


def environment_of(
    policy: EnsemblePolicy,
    grid: OutcomeGrid,
    *,
    max_team: int,
    max_rounds: int,
    hide_tasks: bool = False,
    diversity_weight: float = 0.0,
) -> EnsembleEnv:
    """Show recorded outcomes as this policy sees them; see `replay` and `EnsembleEnv`."""
    tasks: list[str | None] = [None] * len(grid) if hide_tasks else [*grid.tasks]
    features = policy.describe(grid.queries, tasks, grid.members)
    evidence = policy.read(features, tasks, answers_of(grid), grid.members)
    return EnsembleEnv(
        grid, features, evidence, max_team=max_team, max_rounds=max_rounds, diversity_weight=diversity_weight
    )


def play(
    policy: EnsemblePolicy, env: EnsembleEnv, index: Ints, cost_weight: Floats, *, max_team: int | None = None
) -> Replay:
    """Let a policy answer queries of its environment, without randomness; see `EnsembleEnv.reset` for the arguments."""
    if len(index) > MOST_EPISODES:
        num = -(-len(index) // MOST_EPISODES)
        cuts = zip(np.array_split(index, num), np.array_split(cost_weight, num), strict=True)
        parts = [play(policy, env, *cut, max_team=max_team) for cut in cuts]
        return Replay(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Replay)})
    env.reset(index, cost_weight, max_team=max_team)
    asked_in = np.zeros(env.asked.shape, dtype=np.int64)
    while env.running.any():
        running, round_number = env.running, env.round_number
        teams = np.zeros_like(env.asked)
        teams[running] = policy.team(env.state(running))[0]
        env.ask(teams)
        asked_in[env.asked & (asked_in == 0)] = round_number
    state = env.state()
    weights = policy.weigh(state)
    chosen = winners(state, weights)
    return Replay(
        asked_in=asked_in,
        chosen=state.representative[np.arange(len(chosen)), chosen],
        scores=np.where(env.is_whole, env.scores_of(state, chosen), np.nan),
        spent=(env.asked * env.charges).sum(axis=1),
        confidence=weights[np.arange(len(chosen)), chosen].astype(np.float64),
    )


def taken_by(grid: OutcomeGrid, asked_in: Ints, unit: Unit) -> npt.NDArray[np.float64]:
    """Count what each query takes, shape [Q]; NaN where it is unknown of a member that was asked.

    Args:
        grid: The recorded outcomes of Q queries.
        asked_in: Round in which each member was asked, 0 if it was not, shape [Q, M].
        unit: What to count; seconds are those that the query waits, see `critical_path`.
    """
    if unit == "seconds":
        return critical_path(grid.latency_s, asked_in)
    return np.asarray(np.where(asked_in > 0, costs_of(grid, unit), 0.0).sum(axis=1))


def critical_path(
    latency_s: npt.NDArray[np.float64], asked_in_round: npt.NDArray[np.integer]
) -> npt.NDArray[np.float64]:
    """Add up the seconds that a query waits: members of one round answer at once, rounds follow each other.

        wait = Σ over rounds r of the largest latency of the members asked in r

    Args:
        latency_s: Each member's seconds, NaN where unknown, shape [Q, M].
        asked_in_round: The round in which each member was asked, from 1, and 0 for one that was not, shape [Q, M].

    Returns:
        Seconds, shape [Q]: 0 where nobody was asked, NaN where the latency of a member that was asked is unknown.
    """  # fmt: skip
    wait = np.zeros(len(latency_s))
    for number in range(1, int(asked_in_round.max(initial=0)) + 1):
        wait += np.where(asked_in_round == number, latency_s, 0.0).max(axis=1, initial=0.0)
    return wait


class Replays:
    """What a policy does on the same recorded queries at each of its operating points, each played once.

    Args:
        policy: The policy.
        env: The queries, as the policy sees them.
        hide_tasks: Whether it sees no task label.
    """

    def __init__(self, policy: EnsemblePolicy, env: EnsembleEnv, *, hide_tasks: bool = False) -> None:
        self._policy, self._env, self.grid = policy, env, env.grid
        self._tasks = [None] * len(env.grid) if hide_tasks else env.grid.tasks
        self._played: dict[OperatingPoint, Replay] = {}

    def at(self, point: OperatingPoint) -> Replay:
        """Play every query at one operating point."""
        if point not in self._played:
            rows = np.arange(len(self.grid))
            if point.member is not None:
                played = self._alone(point.member)
            else:
                cost_weight = np.full(len(rows), point.cost_weight)
                played = play(self._policy, self._env, rows, cost_weight, max_team=point.max_team)
            self._played[point] = played
        return self._played[point]

    def _alone(self, member: str) -> Replay:
        column, num_queries = self.grid.members.index(member), len(self.grid)
        asked_in = np.zeros(self.grid.scores.shape, dtype=np.int64)
        asked_in[:, column] = 1
        self._env.reset(np.arange(num_queries), np.zeros(num_queries))
        return Replay(
            asked_in=asked_in,
            chosen=np.full(num_queries, column),
            scores=np.where(self.grid.recorded[:, column], self.grid.scores[:, column], np.nan),
            spent=self._env.charges[:, column],
            confidence=np.ones(num_queries),
        )

    @cached
    def positions(self) -> Floats:
        """Where a hash places each query, shape [Q]; see `policies.targets.position_of`."""
        return np.array([position_of(q, t) for q, t in zip(self.grid.queries, self._tasks, strict=True)])

    def mixed(self, mixture: Mixture) -> Replay:
        """Play every query at the one of two operating points that its hash chooses."""
        return self._chosen([mixture.point_for(position) for position in self.positions.tolist()])

    def within(self, target: Target) -> Replay:
        """Play the queries one after the other as a model that serves them within a target, with its controller.

        They come in an order that their texts alone decide.

        Raises:
            InputError: The policy has no curve, or the target is out of its reach.
        """
        curve, members, unit = curve_of(self._policy), frozenset(self.grid.members), target.unit
        controller = TargetController(curve.amount(target, members))
        points: list[OperatingPoint] = [curve.hull(unit, members)[1][0]] * len(self.grid)
        taken = {}
        # Positions choose between two points, and neighbours in their order would all take the same one.
        order = np.argsort((self.positions * 2.0**20) % 1.0, kind="stable")
        for row in order.tolist():
            aim = Aim(target, controller, curve.mixture(unit, controller.aim, members), float(self.positions[row]))
            point = points[row] = aim.point
            if point not in taken:
                taken[point] = taken_by(self.grid, self.at(point).asked_in, unit)
            aim.took(float(taken[point][row]))
        return self._chosen(points)

    def _chosen(self, points: list[OperatingPoint]) -> Replay:
        """Put together what each query's own operating point led to."""
        names = list(dict.fromkeys(points))
        which = np.array([names.index(point) for point in points])
        parts, rows = [self.at(point) for point in names], np.arange(len(points))
        arrays = {
            field.name: np.stack([getattr(part, field.name) for part in parts])[which, rows] for field in fields(Replay)
        }
        return Replay(**arrays)
