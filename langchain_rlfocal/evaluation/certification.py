"""Certification: what a policy can be promised to score, beside its best member, with a stated confidence.

A promise says that a policy, run at an operating point, scores on average no more than a margin below the best of its
members, or at least a margin above it, whichever member that may be. It is tested on rows that training did not see:
against every member, and from the dearest operating point down to cheaper ones, until one fails. With the probability
1 - α at least, nothing that passes is false:

- One point, one member: the differences in score, query by query, lie in [-1, 1], and a bet against "their mean is at
  most the margin" that multiplies its stake by 1/α happens with probability α at most (`log_capital`). No law of the
  scores is assumed, and any number of rows will do.
- One point, every member: that all nulls are false is claimed only where each is rejected, so at α each
  (intersection-union test; Berger, 1982). "The best member" is then whoever is best in truth, not on these rows.
- All points: in an order fixed beforehand, each at α, until the first that is not rejected (fixed-sequence testing;
  Angelopoulos et al., 2021, "Learn then Test", https://arxiv.org/abs/2110.01052).

The rows must be a fair sample of the queries that the promise is for; nothing here can tell whether they are.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from langchain_rlfocal.environment import Replays, environment_of
from langchain_rlfocal.errors import CertificationError, InputError
from langchain_rlfocal.evaluation.rivals import spending_of, unit_of
from langchain_rlfocal.outcomes import CostUnit, OutcomeGrid
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.certificates import Certificate, MixturePoint, Promise
from langchain_rlfocal.policies.targets import curve_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

BETS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 7 / 8)
"""Stakes, as shares of what could be lost on one row: a sixth of the capital is bet at each."""

NUM_POINTS = 21
"""Operating points in the sequence."""

MAX_ROWS = 10**9
"""Where more rows than this were needed, no number helps."""


# ---- one mean


def log_capital(differences: Floats, *, margin: float) -> Floats:
    """Bet against "the mean is at most the margin", and return the logarithm of the capital after each row.

    The differences d are mapped to x = (d + 1) / 2 in [0, 1] and the margin to m = (margin + 1) / 2. From a capital of
    1, in equal parts on the stakes b of `BETS`:

        K_t = mean over b of Π over rows i ≤ t of (1 + b (x_i - m) / m)

    Each factor is at least 1 - b > 0. If the mean of x given the rows before is at most m, K is a supermartingale, so
    that with probability 1 - α at least it never reaches 1/α (Ville's inequality).

    Source: Waudby-Smith and Ramdas, 2024, "Estimating means of bounded random variables by betting", section 4,
    with a mixture of constant bets. https://arxiv.org/abs/2010.09686

    Args:
        differences: One for each row, in [-1, 1], in an order that does not depend on them, shape [N].
        margin: In (-1, 1).

    Raises:
        InputError: A difference or the margin is out of its range.
    """
    return _mixed(np.cumsum(_log_factors(differences, margin=margin), axis=1))


def p_value(differences: Floats, *, margin: float) -> float:
    """Test "the mean is at most the margin": 1 over the largest capital, at most 1; see `log_capital`."""
    return float(np.exp(-max(log_capital(differences, margin=margin).max(initial=0.0), 0.0)))


def rows_needed(differences: Floats, *, margin: float, alpha: float) -> int | None:
    """Say with how many rows such as these "the mean is at most the margin" would be rejected.

    That n at which the capital is 1/α where every row multiplies each part of it as the measured ones do on average (in
    logarithms).

    Returns:
        The number; None where no number helps: the measured mean is not above the margin, or so little that no stake
        gains.
    """
    growth = _log_factors(differences, margin=margin).mean(axis=1) if len(differences) else np.zeros(1)

    def is_enough(n: int) -> bool:
        return float(_mixed(n * growth[:, None])[0]) >= math.log(1 / alpha)

    low, high = 0, 1
    while not is_enough(high):
        low, high = high, 2 * high
        if high > MAX_ROWS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _log_factors(differences: Floats, *, margin: float) -> Floats:
    """Logarithm of what each row multiplies each part of the capital by, shape [B, N]."""
    if not -1 < margin < 1:
        raise InputError(f"A margin of scores must be in (-1, 1), got {margin}. For example 0.02.")
    if not (np.abs(differences) <= 1).all():
        raise InputError("Differences in score must be in [-1, 1], but some are not. Scores must be in [0, 1].")
    mean = (margin + 1) / 2
    gains = (differences + 1) / (2 * mean) - 1
    return np.asarray(np.log1p(np.multiply.outer(BETS, gains)))


def _mixed(log_parts: Floats) -> Floats:
    """Logarithm of the mean of the parts, shape [B, N] to [N]."""
    largest = log_parts.max(axis=0)
    return np.asarray(largest + np.log(np.exp(log_parts - largest).mean(axis=0)))


# ---- operating points


def p_values_in_turn(scores: Floats, members: Floats, *, margin: float, alpha: float) -> list[float]:
    """Test operating points in turn against every member, until one is not rejected.

    Args:
        scores: Score of each operating point on each row, in [0, 1], the point to test first first, shape [P, N].
        members: Score of each member on the same rows, shape [N, M].
        margin: That a point's mean score is at most this above a member's is the null; negative for "not more than so
            much below".
        alpha: How probable it may be that anything false is certified.

    Returns:
        The largest p-value over the members of each point that was tested: all but perhaps the last are at most
        `alpha`.
    """
    found: list[float] = []
    for point in scores:
        # The hardest to beat first: what one member does not admit needs no other test.
        worst = 0.0
        for member in np.argsort(-members.mean(axis=0), kind="stable") if len(members) else range(members.shape[1]):
            worst = max(worst, p_value(point - members[:, member], margin=margin))
            if worst > alpha:
                break
        found.append(worst)
        if worst > alpha:
            break
    return found


def hash_order(grid: OutcomeGrid) -> Ints:
    """Put rows in an order that knows nothing of their scores, nor of the file's order, shape [Q]."""
    said = zip(grid.tasks, grid.query_ids, grid.queries, strict=True)
    digests = [
        hashlib.blake2b("\0".join(row).encode("utf-8", "surrogatepass"), person=b"rlfocal-bet-1").digest()
        for row in said
    ]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.intp)


@dataclass(frozen=True, slots=True)
class Tested:
    """An operating point that was tested.

    Attributes:
        spending: Mean spending per query on the rows, in the certificate's unit.
        score: Mean score on the rows.
        p_value: The largest over the members; of the last point, over those that were tested.
    """

    spending: float
    score: float
    p_value: float


def certify(
    policy: RLFocalPolicy,
    grid: OutcomeGrid,
    promise: Promise,
    *,
    max_team: int,
    max_rounds: int,
    date: str,
    cost_unit: CostUnit = "auto",
    hide_tasks: bool = False,
    fingerprints: Mapping[str, str] | None = None,
    are_new: bool = False,
) -> tuple[Certificate, list[Tested]]:
    """Find the cheapest operating point that keeps a promise.

    `NUM_POINTS` mixtures of the points on the policy's curve, evenly spaced in spending, are tested from the dearest
    down, on the test rows of `grid` (`OutcomeGrid.split`) on which every member is on record and scored.

    Args:
        policy: The policy; it is not changed.
        grid: Outcomes; those that training saw are left out as the split says.
        promise: What is to be shown.
        max_team: How many members the policy may ask.
        max_rounds: How many rounds it may take.
        date: Today, as YYYY-MM-DD.
        cost_unit: What spending is counted in; see `rivals.unit_of`.
        hide_tasks: Whether the policy sees no task label.
        fingerprints: What members called themselves in the replies that were scored (`model_name` of their metadata): where they call
            themselves otherwise later, the promise does not hold.
        are_new: True if training saw none of the rows of `grid`: then all of them are tested on, not the test rows alone.

    Returns:
        The certificate of the cheapest point that passed, and all that were tested.

    Raises:
        CertificationError: The first test failed; it says how many rows are needed, or that no number helps.
        InputError: The policy has no curve, or not in this unit; or a fingerprint is of nobody.
        PoolError: `grid` has a member that the policy does not know.
    """
    rows = grid.canonical() if are_new else grid.canonical().split()[2]
    rows = rows.take(np.flatnonzero(rows.recorded.all(axis=1) & ~np.isnan(rows.scores).any(axis=1)))
    rows = rows.take(hash_order(rows))
    alpha = 1 - promise.confidence
    strangers = [name for name in fingerprints or {} if name not in grid.members]
    if strangers:
        raise InputError(f"Fingerprints must be of members ({', '.join(grid.members)}), got {', '.join(strangers)}.")
    if not len(rows):
        raise CertificationError(
            f"`{promise}` needs test rows on which every member was scored, got none of {len(grid)}. Collect more "
            "outcomes.",
            rows_needed=None,
        )
    unit = unit_of(rows, cost_unit)
    curve, spending = curve_of(policy), spending_of(rows, unit)
    env = environment_of(policy, rows, max_team=max_team, max_rounds=max_rounds, hide_tasks=hide_tasks)
    replays = Replays(policy, env, hide_tasks=hide_tasks)
    members = frozenset(rows.members)
    taken, _ = curve.hull(unit, members)
    amounts = np.linspace(taken[-1], taken[0], NUM_POINTS).tolist()
    mixtures = list(dict.fromkeys(curve.mixture(unit, amount, members) for amount in amounts))
    played = [replays.mixed(mixture) for mixture in mixtures]
    scores = np.stack([each.scores for each in played]).astype(np.float64)
    p_values = p_values_in_turn(scores, rows.scores, margin=promise.margin, alpha=alpha)
    found = [
        Tested(float((each.asked * spending).sum(axis=1).mean()), float(each.scores.mean()), p)
        for each, p in zip(played, p_values, strict=False)
    ]
    passed = [index for index, p in enumerate(p_values) if p <= alpha]
    if not passed:
        raise _refusal(promise, scores[0], rows)
    last = passed[-1]
    certificate = Certificate(
        promise=promise.name,
        policy_id=policy.policy_id,
        date=date,
        rows=len(rows),
        members=sorted(rows.members),
        tasks=sorted(set(rows.tasks)),
        task_labels=not hide_tasks,
        max_team=max_team,
        max_rounds=max_rounds,
        bound="betting",
        p_value=found[last].p_value,
        fingerprints=dict(fingerprints or {}),
        operating_point=MixturePoint.of(mixtures[last]),
        unit=unit,
        spending=found[last].spending,
        score=found[last].score,
        best_member=rows.members[int(rows.scores.mean(axis=0).argmax())],
        best_member_score=float(rows.scores.mean(axis=0).max()),
    )
    return certificate, found


def _refusal(promise: Promise, scores: Floats, rows: OutcomeGrid) -> CertificationError:
    """Say why the dearest point is not certified."""
    alpha, needed = 1 - promise.confidence, 0
    for column in np.argsort(-rows.scores.mean(axis=0), kind="stable").tolist():
        name, theirs = rows.members[column], rows.scores[:, column]
        number = rows_needed(scores - theirs, margin=promise.margin, alpha=alpha)
        if number is None:
            return CertificationError(
                f"`{promise}` is not shown on {len(rows)} rows, and more such rows would not show it: the policy at its "
                f"dearest scores {scores.mean():.3f}, `{name}` {theirs.mean():.3f}. Promise less, or train a "
                "better policy.",
                rows_needed=None,
            )
        needed = max(needed, number)
    return CertificationError(
        f"`{promise}` needs about {needed:,} rows that training did not see, if they are like these; there are "
        f"{len(rows):,}. Collect more outcomes (test rows are 15 % of them, unless training set others apart), or "
        "promise less.",
        rows_needed=needed,
    )
