"""A Gymnasium environment: recorded outcomes, one query an episode, for other learners than this package's own.

An episode is one query, drawn from the grid; a step is one round of the Decider. The policy says what is known of the
members, reads their answers, and fuses them at the end; whom to ask is up to the caller. Rewards are those of
`environment.EnsembleEnv`, and no observation holds a score. It plays one query at a time: to train on thousands, the batched
`EnsembleEnv` is faster by far.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.environment import environment_of
from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.observations import CONTEXT_AXES, MEMBER_AXES, Axis, decider_observation
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.base import EnsemblePolicy, legal_sizes, winners
from langchain_rlfocal.states import Bools, State

try:
    import gymnasium
    from gymnasium import spaces
except ImportError as error:
    raise MissingDependencyError(
        "`SingleQueryEnv` needs gymnasium: `pip install 'langchain-rlfocal[gymnasium]'`. "
        "`environment.EnsembleEnv` works without it."
    ) from error

Observation = dict[str, Any]
Action = npt.NDArray[np.int8]


class SingleQueryEnv(gymnasium.Env[Observation, Action]):
    """Decide whom to ask about one query at a time.

    The observation is what the Decider sees: `members`, shape [M, A], by `observations.MEMBER_AXES`, and `context`, shape
    [C], by `CONTEXT_AXES`. The action names the members to add in this round; none of them means stop. An action that is
    not a legal team is taken as the nearest one that is:

    - members asked before are left out of it;
    - of too many for the team's room, the most competent stay;
    - if nobody has answered yet, so that there is nothing to return, and it names nobody, the most competent member that
      was not asked is added.

    Of equally competent members the earlier one counts as more so.

    The reward of a step is minus what its calls cost. The step that ends the episode, by stopping, filling the team, or
    being the last round, adds the recorded score of the answer that the policy's Fusion returns, and the diversity bonus.
    Episodes terminate and are never truncated.

    `info` holds `row`, the query's row in the grid; `asked`, the names of the members asked so far; `spent`, their charges
    as a share of asking the whole pool; and `score`, that of the answer returned, None until the end.

    Args:
        grid: Recorded outcomes.
        policy: Knows the members and fuses their answers; its own choices of teams are not used.
        cost_weight: What asking the whole pool once is worth, in units of score.
        max_team: How many members may be asked over all rounds; no more than the grid has.
        max_rounds: How many rounds there may be.
        diversity_weight: What focal diversity of the team is worth, in units of score.

    Raises:
        InputError: The grid holds no query, lacks an answer or a score, or a number is outside its range.
        PoolError: The grid has a member that the policy does not know.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # as gymnasium declares it

    def __init__(
        self,
        grid: OutcomeGrid,
        policy: EnsemblePolicy,
        *,
        cost_weight: float,
        max_team: int,
        max_rounds: int,
        diversity_weight: float = 0.0,
    ) -> None:
        if not len(grid):
            raise InputError("`grid` must hold at least one query, got none. An episode is one query.")
        if not grid.is_complete:
            raise InputError(
                "`grid` must hold a scored answer of every member to every query: a reward that is not known trains nobody. "
                'Make it with `missing="drop"`, and leave unscored queries out.'
            )
        for name, count in (("max_team", max_team), ("max_rounds", max_rounds)):
            if count < 1:
                raise InputError(f"`{name}` must be at least 1, got {count}.")
        for name, weight in (("cost_weight", cost_weight), ("diversity_weight", diversity_weight)):
            if not 0.0 <= weight < float("inf"):
                raise InputError(f"`{name}` must be finite and not negative, got {weight}.")
        self._members, self._policy, self._num_queries = grid.members, policy, len(grid)
        self._env = environment_of(
            policy, grid, max_team=max_team, max_rounds=max_rounds, diversity_weight=diversity_weight
        )
        self._cost_weight = np.array([cost_weight])
        self._row: int | None = None
        self._score: float | None = None
        boxes = {"members": _box_of(MEMBER_AXES, len(grid.members)), "context": _box_of(CONTEXT_AXES)}
        self.observation_space = spaces.Dict(boxes)
        self.action_space = spaces.MultiBinary(len(grid.members))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin an episode.

        Args:
            seed: Seeds the draws of queries, from here on.
            options: `{"row": 3}` plays that row of the grid instead of drawing one.

        Raises:
            InputError: There is no such row.
        """
        super().reset(seed=seed)
        row = (options or {}).get("row")
        if row is None:
            row = self.np_random.integers(self._num_queries)
        elif not 0 <= row < self._num_queries:
            raise InputError(f"`row` must be in 0 .. {self._num_queries - 1}, the grid's rows, got {row}.")
        self._row, self._score = int(row), None
        self._env.reset(np.array([self._row]), self._cost_weight)
        return self._observation(self._env.state()), self._info()

    def step(self, action: Action) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Play one round: ask these members; at the end, fuse.

        Raises:
            InputError: No episode is running, or the action is not a vector of M zeros and ones.
        """
        if self._row is None or self._score is not None:
            raise InputError("`step` needs a running episode, got none. Call `reset` first, and after each end.")
        wanted = np.asarray(action)
        if wanted.shape != (len(self._members),) or not np.isin(wanted, (0, 1)).all():
            raise InputError(
                f"`action` must hold a 0 or 1 for each of {len(self._members)} members, got {wanted.tolist()}. "
                "`action_space.sample()` makes one."
            )
        reward = self._env.ask(nearest_team(self._env.state(), wanted.astype(bool)[None]))[0]
        state, terminated = self._env.state(), not self._env.running[0]
        if terminated:
            chosen = winners(state, self._policy.weigh(state))
            reward += self._env.fuse(state, chosen)[0]
            self._score = float(self._env.scores_of(state, chosen)[0])
        return self._observation(state), float(reward), terminated, False, self._info()

    def _observation(self, state: State) -> Observation:
        members, context = decider_observation(state)
        return {"members": members[0].astype(np.float32), "context": context[0].astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        asked = self._env.asked[0]
        return {
            "row": self._row,
            "asked": tuple(name for name, is_asked in zip(self._members, asked, strict=True) if is_asked),
            "spent": float((asked * self._env.charges[0]).sum()),
            "score": self._score,
        }


def _box_of(axes: Sequence[Axis], *shape: int) -> spaces.Space[Any]:
    low = np.broadcast_to(np.array([axis.low for axis in axes], dtype=np.float32), (*shape, len(axes)))
    high = np.broadcast_to(np.array([axis.high for axis in axes], dtype=np.float32), (*shape, len(axes)))
    return spaces.Box(low, high, dtype=np.float32)


def nearest_team(state: State, wanted: Bools) -> Bools:
    """Turn wishes into legal teams; see `SingleQueryEnv`.

    Args:
        state: Where the queries stand.
        wanted: Members wished for, shape [Q, M].

    Returns:
        Teams, shape [Q, M]: each has as few members more or fewer than its wish as there can be.
    """
    selectable, smallest, largest = legal_sizes(state)
    wanted = wanted & selectable
    size = np.clip(wanted.sum(axis=1), smallest, largest)
    standing = np.where(wanted, state.competence + 2.0, np.where(selectable, state.competence, -1.0))
    ranked = np.argsort(-standing, axis=1, kind="stable")
    rank = np.argsort(ranked, axis=1, kind="stable")
    return np.asarray(rank < size[:, None])
