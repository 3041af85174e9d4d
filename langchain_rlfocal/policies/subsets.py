"""Subsets: the distribution from which the Decider draws a team.

Every member has an on/off head with logit ℓₘ, as in the paper, but only teams of a legal size exist:

    P(S) ∝ exp(Σ_{m ∈ S} ℓₘ)   for S ⊆ selectable, smallest ≤ |S| ≤ largest

so the empty team has no probability where it is illegal, and no draw has to be repaired after the fact (which would
falsify its log-probability). Normaliser, draws and marginals are exact, by elementary symmetric polynomials of the odds

    e_k(w) = Σ_{|S| = k} Π_{m ∈ S} wₘ,   wₘ = exp(ℓₘ)

Source of the recursion: Chen and Liu, 1997, "Statistical applications of the Poisson-binomial and conditional Bernoulli
distributions", section 2.

Logits are bounded (`LOGIT_BOUND`), so no team is ever impossible, and in double precision the sums of products stay finite
for teams of up to 80 members.
"""

import numpy as np

from langchain_rlfocal.states import Bools, Floats, Ints

LOGIT_BOUND = 8.0
"""Logits lie in (-LOGIT_BOUND, LOGIT_BOUND)."""


def odds_of(logits: Floats, selectable: Bools) -> Floats:
    """Turn logits into odds, 0 where a member cannot be selected; shapes [Q, M]."""
    return np.where(selectable, np.exp(logits), 0.0)


def size_mask(smallest: Ints, largest: Ints, num_sizes: int) -> Bools:
    """Mark the legal team sizes 0 .. num_sizes - 1 of each query, shape [Q, num_sizes]."""
    sizes = np.arange(num_sizes)
    return (sizes >= smallest[:, None]) & (sizes <= largest[:, None])


def symmetric_polynomials(odds: Floats, num_sizes: int) -> Floats:
    """Compute e_0 .. e_{num_sizes - 1} of the odds.

    Adds one member at a time: e_k ← e_k + wₘ e_{k-1}.

    Args:
        odds: Odds, shape [..., M].
        num_sizes: How many polynomials, K.

    Returns:
        Polynomials, shape [..., K].
    """
    polynomials = np.zeros((*odds.shape[:-1], num_sizes))
    polynomials[..., 0] = 1.0
    for m in range(odds.shape[-1]):
        polynomials[..., 1:] += odds[..., m, None] * polynomials[..., :-1]
    return polynomials


def subset_log_prob(logits: Floats, selectable: Bools, team: Bools, *, smallest: Ints, largest: Ints) -> Floats:
    """Compute log P(S) of each query's team, shape [Q]; -inf for an illegal one."""
    num_sizes = int(largest.max(initial=0)) + 1
    legal_sizes = size_mask(smallest, largest, num_sizes)
    total = np.where(legal_sizes, symmetric_polynomials(odds_of(logits, selectable), num_sizes), 0.0).sum(axis=1)
    size = team.sum(axis=1)
    legal = (size >= smallest) & (size <= largest) & ~(team & ~selectable).any(axis=1)
    with np.errstate(divide="ignore"):
        return np.where(legal, np.where(team, logits, 0.0).sum(axis=1) - np.log(total), -np.inf)


def subset_marginals(logits: Floats, selectable: Bools, *, smallest: Ints, largest: Ints) -> Floats:
    """Compute the probability that each member is in the team, shape [Q, M]; 0 where no team is legal.

    With e_i the polynomials of the members before m, and a_k the weight of all legal ways to go on from m in a team of k:

        P(m ∈ S) ∝ wₘ Σ_k e_{k-1} a_k

    Both grow by one member a step, in the same way: e_k ← e_k + wₘ e_{k-1} forwards, a_k ← a_k + wₘ a_{k+1} backwards.
    """
    num_sizes = int(largest.max(initial=0)) + 1
    odds = odds_of(logits, selectable)
    q, m = odds.shape
    steps = np.array([odds.T, odds.T[::-1]]).transpose(1, 0, 2)[..., None]
    weights = np.zeros((m + 1, 2, q, num_sizes))  # a from the largest team to the smallest
    weights[0, 0, :, 0] = 1.0
    weights[0, 1] = size_mask(smallest, largest, num_sizes)[:, ::-1]
    for step, old, new in zip(steps, weights[:-1], weights[1:], strict=True):
        np.multiply(step, old[..., :-1], out=new[..., 1:])
        np.add(new, old, out=new)
    before, after = weights[:-1, 0, :, :-1], weights[-2::-1, 1, :, -2::-1]
    total = np.add.reduce(weights[-1, 0] * weights[0, 1, :, ::-1], axis=1)
    with_member = odds.T * np.add.reduce(before * after, axis=2)
    return np.asarray((with_member / np.where(total > 0, total, 1.0)).T)


def most_probable_subset(logits: Floats, selectable: Bools, *, smallest: Ints, largest: Ints) -> Bools:
    """Find each query's most probable team, shape [Q, M].

    It holds the members of positive logit, filled up or cut down to a legal size by rank; equal logits rank in the
    pool's order.
    """
    team: Bools = selectable & (logits > 0)
    wanted = np.add.reduce(team, axis=1)
    size = np.minimum(np.maximum(wanted, smallest), largest)
    if (size == wanted).all():
        return team
    ranked = np.where(selectable, -logits, np.inf).argsort(axis=1, kind="stable")
    q, m = logits.shape
    team[np.arange(q)[:, None], ranked] = np.arange(m) < size[:, None]
    return team & selectable


def sample_subset(
    logits: Floats, selectable: Bools, *, smallest: Ints, largest: Ints, rng: np.random.Generator
) -> Bools:
    """Draw each query's team exactly, one member after the other.

    With Z_i(a, b) the total weight of the subsets of members i, i + 1, … whose size is in [a, b]:

        P(i ∈ S | earlier draws) = w_i Z_{i+1}(a - 1, b - 1) / Z_i(a, b)

    Returns:
        Teams, shape [Q, M].
    """
    odds = odds_of(logits, selectable)
    num_queries, num_members = odds.shape
    num_sizes = int(largest.max(initial=0)) + 1
    suffix = np.zeros((num_members + 1, num_queries, num_sizes + 1))  # cumulative over sizes, with a leading zero
    polynomials = np.zeros((num_queries, num_sizes))
    polynomials[:, 0] = 1.0
    suffix[num_members, :, 1:] = polynomials.cumsum(axis=1)
    for m in range(num_members - 1, -1, -1):
        polynomials[:, 1:] += odds[:, m, None] * polynomials[:, :-1]
        suffix[m, :, 1:] = polynomials.cumsum(axis=1)

    rows = np.arange(num_queries)
    low, high = smallest.astype(np.int64).copy(), largest.astype(np.int64).copy()

    def weight(m: int, a: Ints, b: Ints) -> Floats:
        difference: Floats = suffix[m, rows, np.maximum(b + 1, 0)] - suffix[m, rows, np.maximum(a, 0)]
        return difference

    team = np.zeros(odds.shape, dtype=bool)
    uniform = rng.random(odds.shape)
    for m in range(num_members):
        inside = odds[:, m] * np.maximum(weight(m + 1, low - 1, high - 1), 0.0)
        outside = np.maximum(weight(m + 1, low, high), 0.0)
        take = uniform[:, m] * (inside + outside) < inside
        team[:, m] = take
        low, high = low - take, high - take
    return team
