"""Observations: what each agent sees of an ensemble in the middle of a query.

Each axis is one row of a table: its name, meaning, range and function of a `State`. Training and serving read the same
tables, so the Decider is never asked about a world that it did not train in. Nothing here reads a score or a gold answer,
and Fusion sees asked members only.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from langchain_rlfocal.states import Bools, Floats, State, share


class Axis(NamedTuple):
    """One axis of an observation.

    Attributes:
        name: Its name, which checkpoints list.
        meaning: What it says.
        of: Computes it, in a shape that broadcasts to the observation's.
        low: Its least value; a lower one counts as this.
        high: Its highest value; a higher one counts as this.
    """

    name: str
    meaning: str
    of: Callable[[State], Any]
    low: float = 0
    high: float = 1


def _rank(state: State) -> np.ndarray:
    q, m = state.asked.shape
    order = np.where(state.asked, np.inf, -state.competence).argsort(axis=1, kind="stable")
    rank = np.empty((q, m), dtype=state.competence.dtype)
    rank[np.arange(q)[:, None], order] = np.arange(m) / m
    return rank * ~state.asked


def _diversity(state: State) -> Floats:
    """Mean over the asked members, the member itself left out; over the pool where none was asked."""
    diversity = state.members.diversity
    among = (state.asked | (state.num_asked == 0)[:, None]).astype(diversity.dtype)
    others = np.add.reduce(among, axis=1, keepdims=True) - among
    return share(among @ diversity - among * diversity.diagonal(), others)


def _best_other(state: State) -> Floats:
    """Evidence of the best of the other candidates, 0 where there is none, shape [Q, K]."""
    top, runner_up = state.top_two[:, :, None]
    return np.asarray(np.where(state.evidence >= top, runner_up, top))


def _competence_share(state: State) -> Floats:
    behind = state.competence_behind
    return share(behind, np.add.reduce(behind, axis=1, keepdims=True))


def _has_best(state: State) -> np.ndarray:
    best = state.best_behind
    return state.supported & (best >= np.maximum.reduce(best, axis=1, keepdims=True))


def _mean(values: Floats) -> Floats:
    return np.asarray(np.add.reduce(values, axis=1) / values.shape[1])


MEMBER_AXES = (
    Axis("competence", "the member's estimated score near this query", lambda s: s.competence),
    Axis(
        "competence_gap",
        "its competence minus the best of the pool",
        lambda s: s.competence - np.maximum.reduce(s.competence, axis=1, keepdims=True),
        low=-1,
        high=0,
    ),
    Axis("rank", "share of the pool's members not asked yet that are more competent", _rank),
    Axis("trust", "log-odds that its answer adds to a candidate, over 4", lambda s: s.trust / 4, low=-2, high=2),
    Axis(
        "price",
        "its price over the pool's most expensive",
        lambda s: s.members.price / max(s.members.price.max(), 1e-12),
    ),
    Axis(
        "charge",
        "what calling it costs in units of score: cost_weight x its share of the pool's price, at most 1",
        lambda s: s.charge,
    ),
    Axis("asked", "1 if it was asked before", lambda s: s.asked),
    Axis("silent", "1 if it was asked and gave no answer", lambda s: s.asked & ~s.answered),
    Axis(
        "leads",
        "1 if it supports the leading candidate, or one of several that lead alike",
        lambda s: s.answered & (s.of_candidate(s.belief) >= s.leading_belief[:, None]),
    ),
    Axis(
        "agreement",
        "share of the answered members that say the same",
        lambda s: share(s.of_candidate(s.count), s.num_answered[:, None]),
    ),
    Axis("diversity", "mean pairwise focal diversity with the asked members (with the pool if none)", _diversity),
    Axis(
        "gain",
        "how much likelier the returned answer gets to be right by asking it: its square root",
        lambda s: np.sqrt(s.gain),
    ),
    Axis(
        "net_gain",
        "that gain minus its charge, over the sum of both",
        lambda s: s.net_gain / (s.gain + s.charge + 1e-3),
        low=-1,
    ),
    Axis(
        "next",
        "1 if its gain exceeds its charge, and by no less than any other's",
        lambda s: (s.net_gain > 0) & (s.net_gain >= np.maximum.reduce(s.net_gain, axis=1, keepdims=True)),
    ),
)
"""What the Decider sees of each member, shape [Q, M]."""

CONTEXT_AXES = (
    Axis("round", "rounds done over rounds allowed", lambda s: (s.round_number - 1) / s.max_rounds),
    Axis("team", "members asked over members allowed", lambda s: s.num_asked / s.max_team),
    Axis("last_round", "1 if this is the last round", lambda s: s.round_number >= s.max_rounds),
    Axis("asked", "members asked over members of the pool", lambda s: s.num_asked / s.asked.shape[1]),
    Axis(
        "belief",
        "probability that the evidence gives to the leading candidate, 0 if there is none",
        lambda s: s.leading_belief,
    ),
    Axis("margin", "its probability minus the runner-up's", lambda s: s.leading_belief - s.runner_up_belief),
    Axis("lead", "its log-odds minus the runner-up's (minus 0 if there is none), over 4", lambda s: s.lead / 4, high=2),
    Axis("dissent", "distinct answers over answered members", lambda s: s.disagreement),
    Axis("silence", "asked members without an answer over asked members", lambda s: s.silence),
    Axis("cost_weight", "w / (w + 0.1)", lambda s: s.cost_weight / (s.cost_weight + 0.1)),
    Axis("mean_charge", "mean charge of the pool's members", lambda s: _mean(s.charge)),
    Axis("best_competence", "highest competence in the pool", lambda s: np.maximum.reduce(s.competence, axis=1)),
    Axis("mean_competence", "mean competence in the pool", lambda s: _mean(s.competence)),
    Axis(
        "novelty",
        "how far the query is from those that were trained on: 1 if nothing is known",
        lambda s: s.members.novelty,
    ),
    Axis("coincidence", "chance that two right answers are the same answer", lambda s: s.members.coincidence),
)
"""What the Decider sees of the query and the round, shape [Q].

Of the text it sees what is known of the members near it, and no more: how a question is put shall not move spending.
"""

FUSION_AXES = (
    Axis(
        "evidence",
        "log-odds that supporters, option scores and label add up to, over 4",
        lambda s: s.evidence / 4,
        low=-4,
        high=4,
    ),
    Axis("belief", "probability that the evidence gives to it among the candidates", lambda s: s.belief),
    Axis(
        "lead",
        "its evidence minus the best of the others' (minus 0 if there is none), over 4",
        lambda s: (s.evidence - _best_other(s)) / 4,
        low=-2,
        high=2,
    ),
    Axis("support", "number of supporters, over 4", lambda s: s.count / 4, high=math.inf),
    Axis("support_share", "supporters over answered members", lambda s: share(s.count, s.num_answered[:, None])),
    Axis("competence_share", "supporters' competence over all answered members' competence", _competence_share),
    Axis("max_competence", "highest competence of a supporter", lambda s: s.best_behind),
    Axis("mean_competence", "mean competence of the supporters", lambda s: share(s.competence_behind, s.count)),
    Axis("has_best", "1 if the most competent answered member supports it", _has_best),
    Axis(
        "strongest",
        "highest evidence that one supporter adds, over 4",
        lambda s: s.max_of_supporters(s.trust) / 4,
        low=-2,
        high=2,
    ),
    Axis(
        "unbacked",
        "the part of the evidence that is not a supporter's: option scores and label, over 4",
        lambda s: s.other_evidence / 4,
        low=-2,
        high=2,
    ),
    Axis(
        "similarity",
        "likeness of its text to the answers of those who say otherwise, summed, over all answered members",
        lambda s: s.similarity,
    ),
    Axis("team", "members asked over members allowed", lambda s: (s.num_asked / s.max_team)[:, None]),
    Axis("dissent", "distinct answers over answered members", lambda s: s.disagreement[:, None]),
    Axis("silence", "asked members without an answer over asked members", lambda s: s.silence[:, None]),
    Axis("novelty", "how far the query is from those that were trained on", lambda s: s.members.novelty[:, None]),
)
"""What Fusion sees of each candidate, shape [Q, K]."""


class _Observer:
    """Fills an observation axis by axis, each within its range."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        self._functions = [axis.of for axis in axes]
        self._low, self._high = np.array([(axis.low, axis.high) for axis in axes], dtype=np.float32).T

    def __call__(self, state: State, *shape: int) -> Floats:
        by_axis = np.empty((len(self._functions), *shape), dtype=state.competence.dtype)
        for index, function in enumerate(self._functions):
            by_axis[index] = function(state)
        observation = np.maximum(by_axis.transpose(*range(1, by_axis.ndim), 0), self._low, order="C")
        return np.asarray(np.minimum(observation, self._high, out=observation))


_see_members, _see_context, _see_candidates = map(_Observer, (MEMBER_AXES, CONTEXT_AXES, FUSION_AXES))


def decider_observation(state: State) -> tuple[Floats, Floats]:
    """Show the Decider where each query stands.

    Returns:
        What it sees of each member, shape [Q, M, len(MEMBER_AXES)], and of the query and round, shape
        [Q, len(CONTEXT_AXES)].
    """
    return _see_members(state, *state.asked.shape), _see_context(state, len(state.asked))


def fusion_observation(state: State) -> tuple[Floats, Bools]:
    """Show Fusion the candidates.

    Returns:
        What it sees of each candidate, shape [Q, K, len(FUSION_AXES)] (0 elsewhere), and where the candidates are,
        shape [Q, K]: at least one wherever anyone was asked.
    """
    exists = state.candidates
    return np.where(exists[:, :, None], _see_candidates(state, *exists.shape), 0), exists


DECIDER_SHARED = 2 * len(MEMBER_AXES) + len(CONTEXT_AXES)
"""What all members of a query share: mean and maximum of their axes, and the context."""

FUSION_SHARED = 2 * len(FUSION_AXES)
"""What all candidates of a query share: mean and maximum of their axes."""


def decider_shared(members: Floats, context: Floats) -> Floats:
    """Pool what all members share: shapes [Q, M, A] and [Q, C] to [Q, DECIDER_SHARED]."""
    mean = np.add.reduce(members, axis=1) / members.shape[1]
    return np.concatenate([mean, np.maximum.reduce(members, axis=1), context], axis=1)


def fusion_shared(candidates: Floats, mask: Bools) -> Floats:
    """Pool what all candidates share: shape [Q, K, A] to [Q, FUSION_SHARED], over the candidates that exist."""
    count = np.maximum(np.add.reduce(mask, axis=1, keepdims=True, dtype=candidates.dtype), 1)
    top = np.maximum.reduce(np.where(mask[:, :, None], candidates, -np.inf), axis=1)
    return np.concatenate([np.add.reduce(candidates, axis=1) / count, np.where(top > -np.inf, top, 0)], axis=1)
