"""Observations: what each agent sees of an ensemble in the middle of a query.

A `State` holds Q queries at one round. `decider_observation` and `fusion_observation` turn it into named axes; training
and serving call the very same functions, so the Decider is never asked about a world that it did not train in. Nothing
here reads a score or a gold answer, and Fusion sees asked members only.
"""

import numpy as np

from langchain_rlfocal.features import SURFACE_NAMES
from langchain_rlfocal.states import Bools, Floats, State, share

MEMBER_AXES = (
    ("competence", "the member's estimated score near this query, [0, 1]"),
    ("competence_gap", "its competence minus the best of the pool, [-1, 0]"),
    ("rank", "share of the pool's members not asked yet that are more competent, [0, 1)"),
    ("trust", "log-odds that its answer adds to a candidate, over 4, clipped to [-2, 2]"),
    ("price", "its price over the pool's dearest, [0, 1]"),
    ("charge", "what calling it costs in units of score: cost_weight x its share of the pool's price, at most 1"),
    ("asked", "1 if it was asked before"),
    ("silent", "1 if it was asked and gave no answer"),
    ("leads", "1 if it supports the leading candidate, or one of several that lead alike"),
    ("agreement", "share of the answered members that say the same, [0, 1]"),
    ("diversity", "mean pairwise focal diversity with the asked members (with the pool if none), [0, 1]"),
    ("overturns", "1 if its trust exceeds the lead in log-odds, so that it alone could change the answer"),
)
"""What the Decider sees of one member: name, meaning and range."""

CONTEXT_AXES = (
    ("round", "rounds done over rounds allowed, [0, 1)"),
    ("team", "members asked over members allowed, [0, 1]"),
    ("last_round", "1 if this is the last round"),
    ("asked", "members asked over members of the pool, [0, 1]"),
    ("belief", "probability that the evidence gives to the leading candidate, 0 if there is none, [0, 1]"),
    ("margin", "its probability minus the runner-up's, [0, 1]"),
    ("lead", "its log-odds minus the runner-up's (minus 0 if there is none), over 4, clipped to [0, 2]"),
    ("dissent", "distinct answers over answered members, [0, 1]"),
    ("silence", "asked members without an answer over asked members, [0, 1]"),
    ("cost_weight", "w / (w + 0.1), [0, 1)"),
    ("mean_charge", "mean charge of the pool's members, at most 1"),
    ("best_competence", "highest competence in the pool, [0, 1]"),
    ("mean_competence", "mean competence in the pool, [0, 1]"),
    *((f"surface_{name}", "surface feature of the query, [0, 1]") for name in SURFACE_NAMES),
)
"""What the Decider sees of the query and the round: name, meaning and range."""

FUSION_AXES = (
    ("evidence", "log-odds that supporters, option scores and label add up to, over 4, clipped to [-4, 4]"),
    ("belief", "probability that the evidence gives to it among the candidates, [0, 1]"),
    ("lead", "its evidence minus the best of the others' (minus 0 if there is none), over 4, clipped to [-2, 2]"),
    ("support", "number of supporters, over 4"),
    ("support_share", "supporters over answered members, [0, 1]"),
    ("competence_share", "supporters' competence over all answered members' competence, [0, 1]"),
    ("max_competence", "highest competence of a supporter, [0, 1]"),
    ("mean_competence", "mean competence of the supporters, [0, 1]"),
    ("has_best", "1 if the most competent answered member supports it"),
    ("strongest", "highest evidence that one supporter adds, over 4, clipped to [-2, 2]"),
    (
        "unbacked",
        "the part of the evidence that is not a supporter's: option scores and label, over 4, clipped to [-2, 2]",
    ),
    (
        "similarity",
        "likeness of its text to the answers of those who say otherwise, summed, over all answered members, [0, 1]",
    ),
    ("team", "members asked over members allowed, [0, 1]"),
    ("dissent", "distinct answers over answered members, [0, 1]"),
    ("silence", "asked members without an answer over asked members, [0, 1]"),
)
"""What Fusion sees of one candidate: name, meaning and range."""


def _top_two(values: Floats, exists: Bools) -> tuple[Floats, Floats]:
    """Find the highest and the second highest value of the candidates, 0 where there is none; shape [Q] each."""
    padded = np.where(exists, values, -np.inf)
    if padded.shape[1] > 1:
        padded = np.partition(padded, -2, axis=1)
        second = padded[:, -2]
    else:
        second = np.full(len(padded), -np.inf)
    top = padded[:, -1]
    return np.where(top > -np.inf, top, 0), np.where(second > -np.inf, second, 0)


def _bounded(values: Floats, low: float, high: float) -> Floats:
    """Clip; np.clip costs as much as a layer of a network where there is one query."""
    return np.minimum(np.maximum(values, low), high)


def decider_observation(state: State) -> tuple[Floats, Floats]:
    """Show the Decider where each query stands.

    Returns:
        What it sees of each member, shape [Q, M, len(MEMBER_AXES)], and of the query and round, shape
        [Q, len(CONTEXT_AXES)].
    """
    asked, kind = state.asked, state.competence.dtype
    q, m = asked.shape
    rows = np.arange(q)[:, None]
    top, runner_up = _top_two(state.evidence, state.candidates)
    lead = top - runner_up
    belief, second = _top_two(state.belief, state.candidates)

    company = np.where(state.num_asked[:, None] > 0, asked, True).astype(kind)
    others = company.sum(axis=1, keepdims=True) - company  # a member is no company to itself
    diversity = share(company @ state.diversity - company * np.diagonal(state.diversity), others)
    charge = np.minimum(state.cost_weight[:, None] * state.price, 1)
    best = state.competence.max(axis=1)
    order = np.argsort(np.where(asked, np.inf, -state.competence), axis=1, kind="stable")
    rank = np.empty((q, m), dtype=kind)
    rank[rows, order] = np.arange(m, dtype=kind) / m

    members = np.empty((q, m, len(MEMBER_AXES)), dtype=kind)
    for axis, values in enumerate(
        (
            state.competence,
            state.competence - best[:, None],
            np.where(asked, 0, rank),
            _bounded(state.trust / 4, -2, 2),
            state.price / max(float(state.price.max()), 1e-12),
            charge,
            asked,
            asked & ~state.answered,
            state.answered & (state.of_candidate(state.belief) >= belief[:, None]),
            share(state.of_candidate(state.count), state.num_answered[:, None]),
            diversity,
            ~asked & (state.trust > lead[:, None]),
        )
    ):
        members[:, :, axis] = values

    context = np.empty((q, len(CONTEXT_AXES)), dtype=kind)
    num_plain = len(CONTEXT_AXES) - len(SURFACE_NAMES)
    for axis, value in enumerate(
        (
            (state.round_number - 1) / state.max_rounds,
            state.num_asked / state.max_team,
            float(state.round_number >= state.max_rounds),
            state.num_asked / m,
            belief,
            belief - second,
            _bounded(lead / 4, 0, 2),
            share((state.count > 0).sum(axis=1), state.num_answered),
            share(state.num_asked - state.num_answered, state.num_asked),
            state.cost_weight / (state.cost_weight + 0.1),
            charge.mean(axis=1),
            best,
            state.competence.mean(axis=1),
        )
    ):
        context[:, axis] = value
    context[:, num_plain:] = state.surface
    return members, context


def fusion_observation(state: State) -> tuple[Floats, Bools]:
    """Show Fusion the candidates.

    Returns:
        What it sees of each candidate, shape [Q, K, len(FUSION_AXES)] (0 elsewhere), and where the candidates are,
        shape [Q, K]: at least one wherever anyone was asked.
    """
    kind, exists = state.competence.dtype, state.candidates
    heard = np.where(state.answered, state.competence, 0)
    backed = state.sum_of_supporters(heard)
    top, runner_up = _top_two(state.evidence, exists)
    rival = np.where(state.evidence >= top[:, None], runner_up[:, None], top[:, None])
    best = (heard >= heard.max(axis=1, keepdims=True)) & state.answered
    observation = np.empty((*exists.shape, len(FUSION_AXES)), dtype=kind)
    for axis, values in enumerate(
        (
            _bounded(state.evidence / 4, -4, 4),
            state.belief,
            np.where(exists, _bounded((state.evidence - rival) / 4, -2, 2), 0),
            state.count / 4,
            share(state.count, state.num_answered[:, None]),
            share(backed, heard.sum(axis=1, keepdims=True)),
            state.max_of_supporters(heard),
            share(backed, state.count),
            state.sum_of_supporters(best.astype(kind)) > 0,
            _bounded(state.max_of_supporters(state.trust) / 4, -2, 2),
            _bounded(state.scored / 4, -2, 2),
            state.similarity,
            (state.num_asked / state.max_team)[:, None],
            share((state.count > 0).sum(axis=1), state.num_answered)[:, None],
            share(state.num_asked - state.num_answered, state.num_asked)[:, None],
        )
    ):
        observation[:, :, axis] = values
    return np.where(exists[:, :, None], observation, 0), exists
