"""Observations: what each agent sees of an ensemble in the middle of a query.

A `State` holds Q queries at one round. `decider_observation` and `fusion_observation` turn it into named axes; training
and serving call the very same functions, so the Decider is never asked about a world that it did not train in. Nothing
here reads a score or a gold answer, and Fusion sees asked members only.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.features import SURFACE_NAMES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MEMBER_AXES = (
    ("competence", "the member's estimated score near this query, [0, 1]"),
    ("competence_gap", "its competence minus the best of the pool, [-1, 0]"),
    ("price", "its price over the pool's dearest, [0, 1]"),
    ("charge", "what calling it costs in units of score: cost_weight x its share of the pool's price, at most 1"),
    ("asked", "1 if it was asked before"),
    ("silent", "1 if it was asked and gave no answer"),
    ("leads", "1 if it supports the leading answer"),
    ("agreement", "share of the answered members that say the same, [0, 1]"),
    ("diversity", "mean pairwise focal diversity with the asked members (with the pool if none), [0, 1]"),
)
"""What the Decider sees of one member: name, meaning and range."""

CONTEXT_AXES = (
    ("round", "rounds done over rounds allowed, [0, 1)"),
    ("team", "members asked over members allowed, [0, 1]"),
    ("last_round", "1 if this is the last round"),
    ("lead", "weight of the leading answer among all answers, [0, 1]"),
    ("margin", "its weight minus the runner-up's, [0, 1]"),
    ("dissent", "distinct answers over answered members, [0, 1]"),
    ("silence", "asked members without an answer over asked members, [0, 1]"),
    ("lead_probability", "highest mean token probability behind the leading answer, 0 if unknown, [0, 1]"),
    ("cost_weight", "w / (w + 0.1), [0, 1)"),
    ("best_competence", "highest competence in the pool, [0, 1]"),
    ("mean_competence", "mean competence in the pool, [0, 1]"),
    *((f"surface_{name}", "surface feature of the query, [0, 1]") for name in SURFACE_NAMES),
)
"""What the Decider sees of the query and the round: name, meaning and range."""

FUSION_AXES = (
    ("log_odds", "sum of the supporters' log-odds of competence, over 4"),
    ("support", "number of supporters, over 4"),
    ("support_share", "supporters over answered members, [0, 1]"),
    ("competence_share", "supporters' competence over all answered members' competence, [0, 1]"),
    ("max_competence", "highest competence of a supporter, [0, 1]"),
    ("mean_competence", "mean competence of the supporters, [0, 1]"),
    ("has_best", "1 if the most competent answered member supports it"),
    ("lead", "its competence share minus the best of the other answers, [-1, 1]"),
    ("probability", "highest mean token probability of a supporter, 0 if unknown, [0, 1]"),
    ("probability_known", "1 if a supporter's token probability is known"),
    ("team", "members asked over members allowed, [0, 1]"),
    ("dissent", "distinct answers over answered members, [0, 1]"),
    ("silence", "asked members without an answer over asked members, [0, 1]"),
)
"""What Fusion sees of one distinct answer: name, meaning and range."""

_MIN_COMPETENCE = 0.02


@dataclass(frozen=True, slots=True)
class State:
    """Q queries before one decision.

    Attributes:
        competence: Estimated score of each member near each query, shape [Q, M].
        price: Each member's share of what asking the whole pool costs, shape [M].
        diversity: Pairwise focal diversity of the members, shape [M, M].
        surface: Surface features of the queries, shape [Q, S].
        asked: Members asked so far, shape [Q, M].
        answer_ids: Answers so far, shape [Q, M]: equal ids in a row are the same answer; -1 where not asked or silent.
        logprobs: Mean token log-probability of each answer so far, NaN where unknown, shape [Q, M].
        cost_weight: What asking the whole pool once is worth in units of score, shape [Q].
        round_number: The coming round, counted from 1.
        max_rounds: How many rounds there may be.
        max_team: How many members may be asked over all rounds.
    """

    competence: Floats
    price: Floats
    diversity: Floats
    surface: Floats
    asked: Bools
    answer_ids: Ints
    logprobs: Floats
    cost_weight: Floats
    round_number: int
    max_rounds: int
    max_team: int

    @property
    def answered(self) -> Bools:
        """Members with an answer, shape [Q, M]."""
        return self.answer_ids >= 0


@dataclass(frozen=True, slots=True)
class Support:
    """Who stands behind which answer; an answer is named by its representative, its most competent supporter.

    Attributes:
        same: `same[q, k, m]`: members k and m both answered and say the same, shape [Q, M, M].
        representative: Member k represents its answer, shape [Q, M]. Where nobody answered, the most competent asked
            member stands in, so that there is always something to return.
        competence: Summed competence behind member k's answer, shape [Q, M].
    """

    same: Bools
    representative: Bools
    competence: Floats


def support_of(state: State) -> Support:
    """Group the answers so far; ties of competence go to the earlier member."""
    answered = state.answered
    same = (state.answer_ids[:, :, None] == state.answer_ids[:, None, :]) & answered[:, :, None] & answered[:, None, :]
    index = np.arange(state.competence.shape[1])
    better = state.competence[:, None, :] > state.competence[:, :, None]
    earlier = (state.competence[:, None, :] == state.competence[:, :, None]) & (index[None, :] < index[:, None])
    outranked = better | earlier
    representative = answered & ~(same & outranked).any(axis=2)
    nobody = state.asked & ~(outranked & state.asked[:, None, :]).any(axis=2)
    representative |= nobody & ~answered.any(axis=1, keepdims=True)
    competence = np.where(same, state.competence[:, None, :], 0.0).sum(axis=2)
    return Support(same=same, representative=representative, competence=competence)


def _share(part: Floats, whole: Floats) -> Floats:
    """Divide, with 0 for 0 / 0."""
    return part / np.where(whole > 0, whole, 1.0)


def _probability(state: State) -> tuple[Floats, Bools]:
    known = state.answered & ~np.isnan(state.logprobs)
    return np.where(known, np.exp(np.minimum(np.where(known, state.logprobs, 0.0), 0.0)), 0.0), known


def decider_observation(state: State) -> tuple[Floats, Floats]:
    """Show the Decider where each query stands.

    Returns:
        What it sees of each member, shape [Q, M, len(MEMBER_AXES)], and of the query and round, shape
        [Q, len(CONTEXT_AXES)].
    """
    support = support_of(state)
    asked, answered = state.asked, state.answered
    num_asked = asked.sum(axis=1).astype(np.float64)
    num_answered = answered.sum(axis=1).astype(np.float64)
    total = np.where(answered, state.competence, 0.0).sum(axis=1)
    weights = np.where(support.representative & answered, _share(support.competence, total[:, None]), 0.0)
    lead = weights.max(axis=1)
    leader = weights.argmax(axis=1)
    rows = np.arange(len(lead))
    runner_up = weights.copy()
    runner_up[rows, leader] = 0.0
    leads = support.same[rows, leader]
    probability, _ = _probability(state)

    team = np.where(num_asked[:, None] > 0, asked, True).astype(np.float64)
    others = team.sum(axis=1, keepdims=True) - team  # a member is no company to itself
    own = np.diagonal(state.diversity)
    diversity = _share(team @ state.diversity - team * own, others)
    charge = np.minimum(state.cost_weight[:, None] * state.price, 1.0)
    best = state.competence.max(axis=1)
    ones = np.ones_like(state.competence)
    members = np.stack(
        [
            state.competence,
            state.competence - best[:, None],
            ones * (state.price / max(float(state.price.max()), 1e-12)),
            charge,
            asked.astype(np.float64),
            (asked & ~answered).astype(np.float64),
            leads.astype(np.float64),
            _share(support.same.sum(axis=2).astype(np.float64), num_answered[:, None]),
            diversity,
        ],
        axis=2,
    )
    last = float(state.round_number >= state.max_rounds)
    flat = np.ones(len(lead))
    context = np.column_stack(
        [
            flat * ((state.round_number - 1) / state.max_rounds),
            num_asked / state.max_team,
            flat * last,
            lead,
            lead - runner_up.max(axis=1),
            _share((support.representative & answered).sum(axis=1).astype(np.float64), num_answered),
            _share(num_asked - num_answered, num_asked),
            np.where(leads, probability, 0.0).max(axis=1),
            state.cost_weight / (state.cost_weight + 0.1),
            best,
            state.competence.mean(axis=1),
            state.surface,
        ]
    )
    return members, context


def fusion_observation(state: State) -> tuple[Floats, Bools]:
    """Show Fusion the answers of the members asked.

    Returns:
        What it sees of each answer, at the place of its representative, shape [Q, M, len(FUSION_AXES)] (0 elsewhere),
        and where the representatives are, shape [Q, M]: at least one wherever anyone was asked.
    """
    support = support_of(state)
    answered, same = state.answered, support.same
    num_asked = state.asked.sum(axis=1, keepdims=True).astype(np.float64)
    num_answered = answered.sum(axis=1, keepdims=True).astype(np.float64)
    competence = np.clip(state.competence, _MIN_COMPETENCE, 1 - _MIN_COMPETENCE)
    log_odds = np.log(competence) - np.log1p(-competence)
    count = same.sum(axis=2).astype(np.float64)
    heard = np.where(answered, state.competence, 0.0)
    share = _share(support.competence, heard.sum(axis=1, keepdims=True))
    standing = np.where(support.representative, share, -1.0)
    top_two = np.sort(np.concatenate([standing, np.zeros((len(standing), 2))], axis=1), axis=1)[:, -2:]
    rival = np.where(standing >= top_two[:, 1:], top_two[:, :1], top_two[:, 1:])
    best = heard.max(axis=1, keepdims=True)
    probability, known = _probability(state)
    ones = np.ones_like(competence)
    observation = np.stack(
        [
            np.where(same, log_odds[:, None, :], 0.0).sum(axis=2) / 4.0,
            count / 4.0,
            _share(count, num_answered),
            share,
            np.where(same, state.competence[:, None, :], 0.0).max(axis=2),
            _share(support.competence, count),
            (same & (heard == best)[:, None, :]).any(axis=2).astype(np.float64),
            share - np.maximum(rival, 0.0),
            np.where(same, probability[:, None, :], 0.0).max(axis=2),
            (same & known[:, None, :]).any(axis=2).astype(np.float64),
            ones * num_asked / state.max_team,
            ones * _share((support.representative & answered).sum(axis=1, keepdims=True).astype(float), num_answered),
            ones * _share(num_asked - num_answered, num_asked),
        ],
        axis=2,
    )
    return np.where(support.representative[:, :, None], observation, 0.0), support.representative
