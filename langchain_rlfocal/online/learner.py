"""The learner: a policy that every judged answer corrects.

What a policy knows of its members is updated in closed form, one judged answer after the other and without a random number: the
same feedback in the same order gives the same bits. What serves is an immutable snapshot. Nothing here waits, writes, or asks a
member.

Competence is a Bayesian linear regression. With c₀ the base policy's estimate, φ(q) what the pool's part sees of a query (a
constant, surface, task and words) and ψ(q) what each member's part does (the same without words),

    score of m = c₀ₘ(q) + φ(q)·w + ψ(q)·wₘ + u_q + ε      w ~ N(0, A), wₘ ~ N(0, B), u_q ~ N(0, τ²), ε ~ N(0, σ²)

so that through w the answers of one member say something of all others on that task, and through u the answers to one query do
not count as independent. The posterior of all weights together is exact: a Kalman filter, which without forgetting is
recursive least squares, and does not depend on the order of the queries. Forgetting is a drift back to the prior: of a member
that is not asked less and less is known.

Evidence is a conditional logit over the candidates and "none of them", whose log-odds are 0:

    z(k) = Σ_{m supports k} tₘ − ζ h − ψ·Z + ν [k has no label] + κ₂ b(k) + v(k)·w
    tₘ   = κ₁ bₘ + α (logit cₘ − logit c₀ₘ) + η h + ψ·H + δₘ

with bₘ and b(k) the base policy's trust and its evidence of label and option scores, v the looks of options, and h the logarithm
of the number of wrong options, or of 5 where the query lists none: were errors independent, and spread evenly, α = η = ζ = 1. The
networks of a trained base know evidence on its own scale: there η = ζ = ν = H = Z = 0, and none of them is no candidate.
Its coefficients take one step of an extended Kalman filter for each judged query, on the event that the right answer is where
it was found. With π the event's probability, x̄ the mean of the candidates' features and x̄₊ that of those in the event,

    J = π (x̄₊ − x̄)      gain = ΣJ / (JᵀΣJ + π(1 − π))      θ ← θ + (1 − π) gain      Σ ← Σ − gain (ΣJ)ᵀ

Sources: West and Harrison, 1997, "Bayesian forecasting and dynamic models", chapters 4 and 14; Dawid and Skene, 1979, for the
votes; Li et al., 2010, https://arxiv.org/abs/1003.0146, for choosing by posterior mean plus deviations.
"""

import hashlib
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.features import HASHED_TASKS, HASHED_WORDS, SURFACE_NAMES, features_of
from langchain_rlfocal.log import Feedback, ServedAnswer
from langchain_rlfocal.online.arrays import checked_array
from langchain_rlfocal.policies.base import EnsemblePolicy, answers_to, legal_sizes
from langchain_rlfocal.policies.looks import LOOK_NAMES, looks_of_options
from langchain_rlfocal.records import Query
from langchain_rlfocal.states import Answers, Bools, Evidence, Floats, MemberFeatures, State, softmax

TASK_DIM, WORD_DIM = 32, 64
"""How many of a query's hashed task and word features are left, each the sum of several."""

OWN_DIM = 1 + len(SURFACE_NAMES) + TASK_DIM
"""Length of ψ(q)."""

POOL_DIM = OWN_DIM + WORD_DIM
"""Length of φ(q), which begins with ψ(q)."""

POOL_DEVIATION, POOL_SLOPES, WORD_SLOPES = 0.15, 0.2, 0.15
"""Prior standard deviations of w: of the constant, of surface and task, of words."""

OWN_DEVIATION, OWN_SLOPES = 0.1, 0.08
"""The same of each wₘ."""

QUERY_VARIANCE, NOISE_VARIANCE = 0.07, 0.14
"""τ² and σ². A score of 0 or 1 has a variance of at most 0.25."""

IMPUTED = 2.0
"""How many times more variance an answer's score has where it follows for certain from what was said of another answer."""

EVIDENCE_PRIOR = {
    "base": (1.0, 0.3),
    "other": (1.0, 0.3),
    "competence": (1.0, 0.3),
    "supporter": (0.7, 0.3),
    "candidate": (0.7, 0.3),
    "unlabelled": (-1.0, 0.5),
    **dict.fromkeys(LOOK_NAMES, (0.0, 0.5)),
}
"""Prior mean and standard deviation of κ₁, κ₂, α, η, ζ, ν and w. η and ζ are below 1, since members err together. Of a
trained base η, ζ and ν are fixed at 0, as H and Z are."""

TRAINED_SHARE, TRAINED_SLOPES = 0.3, 0.15
"""How much smaller prior standard deviations are where the base is trained, of slopes on the query and of all else."""

CONTEXT_DEVIATION = 0.15
"""Prior standard deviation of the weights of surface and task in evidence, H and Z."""

MEMBER_DEVIATION = 0.2
"""Prior standard deviation of each δₘ."""

COINCIDENCE_DEVIATION, COINCIDENCE_VARIANCE = 0.5, 0.1
"""Prior standard deviation of the weights of coincidence, and the variance of what one query shows of it."""

LEAST_SHARE = 0.1
"""An imputed score that is nearer to what was expected than this share of the way to certainty is left out."""

SLAB = 256
"""Rows of the covariance that are corrected at once, so that the correction needs no second covariance."""

_BASE, _OTHER, _COMPETENCE, _SUPPORTER, _CANDIDATE, _UNLABELLED = range(6)
_LOOKS = slice(6, 6 + len(LOOK_NAMES))
_MEMBERS = len(EVIDENCE_PRIOR) + 2 * (OWN_DIM - 1)
_ON_SUPPORTER = slice(len(EVIDENCE_PRIOR), len(EVIDENCE_PRIOR) + OWN_DIM - 1)
_ON_CANDIDATE = slice(_ON_SUPPORTER.stop, _MEMBERS)
_USUAL_RIVALS = 5
_LOW, _HIGH = 0.02, 0.98
_NONE = np.array(None, dtype=object)


def compact(features: Floats) -> Floats:
    """Fold query features, shape [Q, F], into φ(q), shape [Q, POOL_DIM], whose first OWN_DIM are ψ(q)."""
    surface, tasks = len(SURFACE_NAMES), len(SURFACE_NAMES) + HASHED_WORDS
    words = features[:, surface:tasks].reshape(len(features), -1, WORD_DIM).sum(axis=1)
    folded = features[:, tasks : tasks + HASHED_TASKS].reshape(len(features), -1, TASK_DIM).sum(axis=1)
    return np.concatenate([np.ones((len(features), 1)), features[:, :surface], folded, words], axis=1)


def log_rivals(queries: Sequence[str]) -> Floats:
    """Take h, the logarithm of the number of wrong options of each query, of 5 where it lists none; shape [Q]."""
    counts = (len(looks_of_options(query)) for query in queries)
    return np.array([math.log(count - 1 if count > 1 else _USUAL_RIVALS) for count in counts], dtype=np.float64)


@dataclass(frozen=True)
class LearnedFeatures(MemberFeatures):
    """What an `OnlinePolicy` knows of M members near Q queries.

    Attributes:
        deviation: Posterior standard deviation of each competence, shape [Q, M].
        rivals: h, shape [Q].
        inputs: φ(q), shape [Q, F].
        base: What the base policy says.
    """

    deviation: Annotated[Floats, "QM"]
    rivals: Annotated[Floats, "Q"]
    inputs: Annotated[Floats, "QF"]
    base: MemberFeatures


class OnlinePolicy(EnsemblePolicy):
    """A base policy, corrected by what was learned. Immutable, and without randomness.

    The teams of a trained base are its networks', which see the corrected members. Without one, who gains most beyond its charge
    is asked (`State.net_gain`), and in the same round whoever would be asked even if that one agrees. Where teams are chosen,
    members count as better than they are by `optimism` standard deviations; where answers are fused they do not.

    Args:
        base: The base policy.
        arrays: What was learned, see `OnlineLearner.arrays`.
        optimism: Posterior standard deviations that are added to a competence where teams are chosen.
    """

    def __init__(self, base: EnsemblePolicy, arrays: Mapping[str, Floats], *, optimism: float) -> None:
        self.base, self.optimism, self._arrays = base, optimism, arrays
        self._is_trained = is_trained(base)

    def __repr__(self) -> str:
        """Name the policy and its base."""
        return f"OnlinePolicy({self.policy_id}, base={self.base!r})"

    @property
    def members(self) -> tuple[str, ...]:
        """Names of the members that the policy can choose among."""
        return self.base.members

    @property
    def trained(self) -> bool:
        """True if it learned something, or its base did."""
        return self._is_trained or bool(self._arrays["count"][0])

    @cached_property
    def policy_id(self) -> str:
        """`online-` and a hash of the base policy and of all that was learned."""
        digest = hashlib.sha256(f"{getattr(self.base, 'policy_id', '')}\0{self.optimism}".encode())
        for name in sorted(self._arrays):
            array = self._arrays[name]
            # Of a covariance the variances are enough to tell two states apart; the whole would take a millisecond.
            digest.update((array.diagonal() if array.ndim > 1 else array).tobytes())
        return f"online-{digest.hexdigest()[:12]}"

    @cached_property
    def _recent(self) -> Callable[[str, str | None], Any]:
        """Remember the last queries, see `EnsemblePolicy`, by a weak reference to itself.

        There is a snapshot for each judged answer, with a covariance of megabytes: in a cycle of references they would pile up
        until the garbage collector looks for cycles.
        """
        of_a_query: Callable[[str, str | None], Any] = vars(EnsemblePolicy)["_recent"].func(weakref.proxy(self))
        return of_a_query

    @cached_property
    def _own_means(self) -> Floats:
        """Means of all wₘ, shape [OWN_DIM, M]."""
        return self._arrays["competence.mean"][POOL_DIM:].reshape(-1, OWN_DIM).T

    @cached_property
    def _pool_spread(self) -> Floats:
        """Covariance of w, shape [POOL_DIM, POOL_DIM]."""
        return np.ascontiguousarray(self._arrays["competence.covariance"][:POOL_DIM, :POOL_DIM])

    @cached_property
    def _across(self) -> Floats:
        """Twice the covariance of w with all wₘ, shape [POOL_DIM, M · OWN_DIM]."""
        return 2.0 * self._arrays["competence.covariance"][:POOL_DIM, POOL_DIM:]

    @cached_property
    def _own_spreads(self) -> Floats:
        """Covariance of each wₘ, shape [M, OWN_DIM, OWN_DIM]."""
        num = len(self.members)
        blocks = self._arrays["competence.covariance"][POOL_DIM:, POOL_DIM:].reshape(num, OWN_DIM, num, OWN_DIM)
        return np.ascontiguousarray(blocks[np.arange(num), :, np.arange(num)])

    def describe(
        self, queries: Sequence[str], tasks: Sequence[str | None], members: Sequence[str] | None = None
    ) -> LearnedFeatures:
        """Describe members near these queries; see `EnsemblePolicy.describe`."""
        base = self.base.describe(queries, tasks)
        if not self._is_trained:
            base = replace(base, trust=_logit(base.competence))
        shared = compact(features_of(queries, tasks)) if len(queries) else np.zeros((0, POOL_DIM))
        own, mean = shared[:, :OWN_DIM], self._arrays["competence.mean"]
        raw = base.competence + (shared @ mean[:POOL_DIM])[:, None] + own @ self._own_means
        competence = _bounded(raw)
        # One member's own part varies with the pool's twice, and by itself; what all share is the same for all of them.
        across = (shared @ self._across).reshape(-1, len(self.members), OWN_DIM) + (own @ self._own_spreads).transpose(
            1, 0, 2
        )
        pool = np.add.reduce(shared @ self._pool_spread * shared, axis=1)
        variance = pool[:, None] + np.add.reduce(across * own[:, None], axis=2)
        weights, rivals = self._arrays["evidence.mean"], log_rivals(queries)
        above = _logit(competence) - (_logit(base.competence) if self._is_trained else base.trust)
        trust = weights[_BASE] * base.trust + weights[_COMPETENCE] * above
        trust = trust + (weights[_SUPPORTER] * rivals + own[:, 1:] @ weights[_ON_SUPPORTER])[:, None]
        coincidence = base.coincidence + own @ self._arrays["coincidence.mean"]
        kind = base.competence.dtype
        described = LearnedFeatures(
            competence=competence.astype(kind),
            trust=(trust + weights[_MEMBERS:]).astype(kind),
            option_weights=base.option_weights,
            price=base.price,
            diversity=base.diversity,
            novelty=base.novelty,
            coincidence=np.minimum(np.maximum(coincidence, 0.0), 1.0).astype(kind),
            deviation=np.sqrt(np.maximum(variance, 0.0)).astype(kind),
            rivals=rivals.astype(kind),
            inputs=shared,
            base=base,
        )
        return described if members is None else described.of_members(self.columns(members))

    def read(
        self,
        features: MemberFeatures,
        tasks: Sequence[str | None],
        answers: Answers,
        members: Sequence[str] | None = None,
    ) -> Evidence:
        """Say what answers are evidence of; see `EnsemblePolicy.read`. The features must be those of `describe`."""
        assert isinstance(features, LearnedFeatures)
        evidence, weights = self._read_base(features, tasks, answers, members), self._arrays["evidence.mean"]
        rivals, context = features.rivals, features.inputs[:, 1:OWN_DIM]
        trust = (
            weights[_BASE] * evidence.trust
            + weights[_COMPETENCE] * (_logit(features.competence) - _logit(features.base.competence))
            + (weights[_SUPPORTER] * rivals + context @ weights[_ON_SUPPORTER])[:, None]
            + weights[_MEMBERS:][self.columns(members)]
        )
        beyond = weights[_CANDIDATE] * rivals + context @ weights[_ON_CANDIDATE]
        label = weights[_OTHER] * evidence.label - beyond[:, None]
        label = label + weights[_UNLABELLED] * np.equal(answers.labels, _NONE)
        if answers.looks is not None:
            label = label + answers.looks @ weights[_LOOKS]
        option_evidence, kind = evidence.option_evidence, features.competence.dtype
        return replace(
            evidence,
            trust=trust.astype(kind),
            label=label.astype(kind),
            option_evidence=None if option_evidence is None else (weights[_OTHER] * option_evidence).astype(kind),
        )

    def _read_base(
        self,
        features: LearnedFeatures,
        tasks: Sequence[str | None],
        answers: Answers,
        members: Sequence[str] | None,
    ) -> Evidence:
        """Read as the base does; a base without training knows nothing of labels."""
        evidence = self.base.read(features.base, tasks, answers, members)
        return evidence if self._is_trained else replace(evidence, label=np.zeros_like(evidence.label))

    def team(self, state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
        """Choose whom to add, with optimism; see `EnsemblePolicy.team`."""
        members = state.members
        if self.optimism and isinstance(members, LearnedFeatures):
            high = _bounded(members.competence + self.optimism * members.deviation)
            scale, kind = self._arrays["evidence.mean"][_COMPETENCE], members.competence.dtype
            rise = (scale * (_logit(high) - _logit(members.competence))).astype(kind)
            members = replace(members, competence=high.astype(kind), trust=members.trust + rise)
            state = replace(state, members=members, trust=np.where(state.answered, state.trust, state.trust + rise))
        return self.base.team(state) if self._is_trained else ask_by_gain(state)

    def weigh(self, state: State) -> Floats:
        """Weigh the candidates; see `EnsemblePolicy.weigh`."""
        return self.base.weigh(state) if self._is_trained else state.belief

    def features_near(self, query: Query) -> LearnedFeatures:
        """Describe all members near one query; the last queries are remembered."""
        features = self._recent(query.text, query.task).features
        assert isinstance(features, LearnedFeatures)
        return features

    def candidates_of(self, served: ServedAnswer) -> "CandidateVectors | None":
        """Lay out the candidates of a served answer as the conditional logit sees them; None where nobody answered."""
        position = {name: row for row, name in enumerate(self.members)}
        candidates = [one for one in served.candidates if one.member in position]
        if not candidates:
            return None
        features = self.features_near(served.query)
        answers = answers_to(served.query.text, candidates, position)
        evidence = self._read_base(features, [served.query.task], answers, self.members)
        num, index = answers.labels.shape[1], answers.candidate_index[0]
        answered = np.flatnonzero(index >= 0)
        vectors = np.zeros((num + 1, _MEMBERS + len(position)))
        exists = np.zeros(num + 1, dtype=bool)
        exists[index[answered]], exists[num] = True, True
        context = features.inputs[0, 1:OWN_DIM]
        vectors[:num, _OTHER], vectors[:num, _CANDIDATE] = evidence.label[0], -features.rivals[0]
        vectors[:num, _ON_CANDIDATE] = -context
        if evidence.option_evidence is not None:
            asked = evidence.option_evidence[0, [position[one.member] for one in candidates]]
            exists[:num] |= ~np.isnan(asked).any(axis=0)
            vectors[:num, _OTHER] += np.nan_to_num(asked).sum(axis=0)
        vectors[:num, _UNLABELLED] = np.equal(answers.labels[0], _NONE)
        if answers.looks is not None:
            vectors[:num, _LOOKS] = answers.looks[0]
        above = _logit(features.competence[0]) - _logit(features.base.competence[0])
        for m in answered.tolist():
            row = vectors[index[m]]
            row[_BASE] += evidence.trust[0, m]
            row[_COMPETENCE] += above[m]
            row[_SUPPORTER] += features.rivals[0]
            row[_ON_SUPPORTER] += context
            row[_MEMBERS + m] += 1.0
        return CandidateVectors(vectors=vectors, exists=exists, supports=index, labels=answers.labels[0])


@dataclass(frozen=True, slots=True)
class CandidateVectors:
    """Candidates of one query; the last is "none of them".

    Attributes:
        vectors: Features of each, shape [K + 1, E].
        exists: Which there are, shape [K + 1].
        supports: The candidate of each member, -1 without one, shape [M].
        labels: What each stands for, shape [K].
    """

    vectors: Floats
    exists: Bools
    supports: np.ndarray
    labels: np.ndarray


def is_trained(policy: EnsemblePolicy) -> bool:
    """Tell whether a policy was learned from outcomes."""
    return bool(getattr(policy, "trained", False))


def ask_by_gain(state: State) -> tuple[Bools, Floats, Callable[[], Floats]]:
    """Ask by value of information; see `EnsemblePolicy.team`.

    The member of greatest `State.net_gain` is asked if that is positive. If another's would be so even after this one agrees
    with the leading candidate, it will be asked whatever is said, so it is asked in the same round; and so on.
    """
    selectable, smallest, largest = legal_sizes(state)
    teams: Bools = np.zeros(state.asked.shape, dtype=bool)
    rows = np.arange(len(teams))
    first = net = np.where(selectable, state.net_gain, -np.inf)
    going, then = np.ones(len(teams), dtype=bool), state
    for size in range(min(state.max_team, teams.shape[1])):
        best = net.argmax(axis=1)
        gain = net[rows, best]
        going = going & (size < largest) & ((gain > 0) | ((size < smallest) & (gain > -np.inf)))
        if not going.any():
            break
        teams[rows[going], best[going]] = True
        supports = then.candidate_index.copy()
        supports[rows[going], best[going]] = then.belief.argmax(axis=1)[going]
        then = replace(then, asked=state.asked | teams, candidate_index=supports)
        net = np.where(then.asked, -np.inf, then.net_gain)
    return teams, first, lambda: teams.astype(np.float64)


class OnlineLearner:
    """Corrects a policy by feedback.

    Args:
        policy: The base. A trained one is corrected; of any other its declared competence is the start.
        memory: Queries after which what was learned counts e⁻¹ of what it did; infinite for no forgetting.
        optimism: See `OnlinePolicy`. 0 never tries a member that looks worse than it may be; it is the default of a trained
            base, and 1 that of any other.

    Raises:
        InputError: `memory` is not positive, or `optimism` is negative.
    """

    def __init__(self, policy: EnsemblePolicy, *, memory: float = 100_000.0, optimism: float | None = None) -> None:
        known = is_trained(policy)
        if optimism is None:
            optimism = 0.0 if known else 1.0
        if not memory > 0 or not 0 <= optimism < math.inf:
            raise InputError(
                f"`memory` must be positive and `optimism` not negative, got {memory} and {optimism}. "
                "Leave them out for the defaults."
            )
        self.base, self.memory, self.optimism = policy, memory, optimism
        num, slopes = len(policy.members), len(SURFACE_NAMES) + TASK_DIM
        middle, spread = np.array([*EVIDENCE_PRIOR.values()]).T
        if known:
            middle[[_SUPPORTER, _CANDIDATE, _UNLABELLED]] = spread[[_SUPPORTER, _CANDIDATE, _UNLABELLED]] = 0.0
        context = np.zeros(2 * (OWN_DIM - 1))
        evidence = np.concatenate([middle, context, np.zeros(num)])
        spread = np.concatenate([spread, context + CONTEXT_DEVIATION * (not known), np.full(num, MEMBER_DEVIATION)])
        scale, steep = (TRAINED_SHARE, TRAINED_SLOPES) if known else (1.0, 1.0)
        pool = [scale * POOL_DEVIATION, *[steep * POOL_SLOPES] * slopes, *[steep * WORD_SLOPES] * WORD_DIM]
        own = [scale * OWN_DEVIATION, *[steep * OWN_SLOPES] * slopes]
        # What each part returns to where nothing is learned: mean and variances.
        self._prior = {
            "competence": (np.zeros(POOL_DIM + num * OWN_DIM), np.array(pool + own * num) ** 2),
            "evidence": (evidence, (scale * spread) ** 2),
            "coincidence": (np.zeros(OWN_DIM), np.full(OWN_DIM, COINCIDENCE_DEVIATION**2)),
        }
        arrays: dict[str, Floats] = {"count": np.zeros(1)}
        for part, (mean, variance) in self._prior.items():
            arrays |= {f"{part}.mean": mean, f"{part}.covariance": np.diag(variance)}
        self._set(arrays)

    @property
    def policy(self) -> OnlinePolicy:
        """What was learned so far, as a policy: a snapshot, which later feedback does not change."""
        return self._policy

    @property
    def count(self) -> int:
        """How many judged queries it learned from."""
        return int(self._arrays["count"][0])

    def arrays(self) -> dict[str, Floats]:
        """Return all that was learned, as arrays by name. They are the learner's own: read only."""
        return dict(self._arrays)

    def restore(self, arrays: Mapping[str, Floats]) -> Self:
        """Continue from what `arrays` returned, of a learner with the same members.

        Raises:
            InputError: An array is missing, or not of the shape that this pool needs.
        """
        self._set({name: checked_array(arrays, name, mine.shape) for name, mine in self._arrays.items()})
        return self

    def update(self, served: ServedAnswer, feedback: Feedback) -> None:
        """Learn from one judged answer; feedback that says nothing of a known member changes nothing."""
        known = {m: s for m, s in feedback.scores_of(served).items() if m in self.base.members and m in served.asked}
        if not known:
            return
        policy, arrays = self.policy, dict(self._arrays)
        features, seen = policy.features_near(served.query), policy.candidates_of(served)
        imputed: dict[int, float] = {}
        if seen is not None:
            imputed = self._learn_evidence(arrays, seen, features, known)
            self._learn_coincidence(arrays, seen, features, known)
        self._learn_competence(arrays, features, known, imputed)
        arrays["count"] = arrays["count"] + 1.0
        self._set(arrays)

    def forget(self, member: str, *, near: Query | None = None, competence: float | None = None) -> None:
        """Know a member as little as at the start, for one that changed: it is as good as the base and the pool say.

        Args:
            member: Its name.
            near: A query, near which something is known of it all the same:
            competence: its competence there.

        Raises:
            PoolError: There is no such member.
        """
        column, arrays = self.policy.columns([member])[0], dict(self._arrays)
        start = POOL_DIM + column * OWN_DIM
        blocks = {
            "competence": slice(start, start + OWN_DIM),
            "evidence": slice(_MEMBERS + column, _MEMBERS + column + 1),
        }
        for part, block in blocks.items():
            (middle, variance), mean = self._prior[part], arrays[f"{part}.mean"].copy()
            spread = arrays[f"{part}.covariance"].copy()
            mean[block], spread[block], spread[:, block] = middle[block], 0.0, 0.0
            spread[block, block] = np.diag(variance[block])
            arrays |= {f"{part}.mean": mean, f"{part}.covariance": spread}
        self._set(arrays)
        if near is not None and competence is not None:
            mean = self._arrays["competence.mean"].copy()
            mean[start] += competence - self.policy.competence(near)[member]
            self._set({**self._arrays, "competence.mean": mean})

    def _set(self, arrays: dict[str, Floats]) -> None:
        for array in arrays.values():
            array.flags.writeable = False
        self._arrays, self._policy = arrays, OnlinePolicy(self.base, arrays, optimism=self.optimism)

    def _drifted(self, arrays: Mapping[str, Floats], part: str) -> tuple[Floats, Floats]:
        """Forget a little: mean and covariance, both new, move to the prior's, as parameters that are its stationary process do."""
        mean, spread = arrays[f"{part}.mean"], arrays[f"{part}.covariance"]
        if math.isinf(self.memory):
            return mean, spread.copy()
        kept, (middle, variance) = math.exp(-1.0 / self.memory), self._prior[part]
        spread = kept * spread
        spread[np.diag_indices(len(spread))] += (1.0 - kept) * variance
        return middle + math.sqrt(kept) * (mean - middle), spread

    def _learn_competence(
        self,
        arrays: dict[str, Floats],
        features: LearnedFeatures,
        known: Mapping[str, float],
        imputed: Mapping[int, float],
    ) -> None:
        """Condition on the scores of one query's answers at once, by the rules of the normal distribution."""
        mean, spread = self._drifted(arrays, "competence")
        column_of = {name: column for column, name in enumerate(self.base.members)}
        scores = {**imputed, **{column_of[name]: score for name, score in known.items()}}
        columns, inputs = sorted(scores), features.inputs[0]
        own = inputs[:OWN_DIM]
        blocks = [slice(POOL_DIM + m * OWN_DIM, POOL_DIM + (m + 1) * OWN_DIM) for m in columns]
        pool = spread[:, :POOL_DIM] @ inputs
        across = np.stack([pool + spread[:, block] @ own for block in blocks], axis=1)
        expected = features.base.competence[0, columns] + inputs @ mean[:POOL_DIM]
        expected = expected + np.array([mean[block] @ own for block in blocks])
        noise, seen = np.full(len(columns), NOISE_VARIANCE), np.array([scores[m] for m in columns])
        for at, m in enumerate(columns):
            if m in imputed:
                # It is further away by as much as its noise is greater: the mean moves as by the score itself, with less certainty.
                before = float(features.competence[0, m])
                share = certainty(imputed[m], before)
                noise[at] *= IMPUTED / share**2
                seen[at] = before + (imputed[m] - before) / share**2
        within = np.stack([inputs @ across[:POOL_DIM] + own @ across[block] for block in blocks])
        within = (within + within.T) / 2 + QUERY_VARIANCE + np.diag(noise)
        gain = np.linalg.solve(within, across.T)
        arrays["competence.mean"] = mean + (seen - expected) @ gain
        for start in range(0, len(spread), SLAB):
            spread[start : start + SLAB] -= across[start : start + SLAB] @ gain
        arrays["competence.covariance"] = spread

    def _learn_evidence(
        self, arrays: dict[str, Floats], seen: CandidateVectors, features: LearnedFeatures, known: Mapping[str, float]
    ) -> dict[int, float]:
        """Take the step of the conditional logit.

        Returns:
            By member's column, how probably each answer that nobody judged is right, where that was not known before.
        """
        names, worth = self.base.members, np.full(len(seen.exists), np.nan)
        answered = [m for m in range(len(names)) if seen.supports[m] >= 0]
        for m in answered:
            if names[m] in known:
                worth[seen.supports[m]] = np.fmax(worth[seen.supports[m]], known[names[m]])
        judged, coincidence = ~np.isnan(worth), float(features.coincidence[0])
        right = judged & (np.nan_to_num(worth) >= 0.5)
        among = seen.exists.copy()
        among[-1] = not is_trained(self.base)
        if right.any() and coincidence < 0.5:  # then nothing follows for answers that nobody judged
            among[:-1] &= judged[:-1]
        event = right if right.any() else among & ~judged
        mean, spread = self._drifted(arrays, "evidence")
        share = softmax(np.where(among, seen.vectors @ mean, -np.inf))
        part = np.where(event, share, 0.0)
        if event.any() and (event != among).any():
            probability = min(max(float(part.sum()), 1e-6), 1 - 1e-6)
            towards = part @ seen.vectors / max(float(part.sum()), 1e-300) - share @ seen.vectors
            slope = probability * towards
            moved = spread @ slope
            gain = moved / (slope @ moved + probability * (1.0 - probability))
            arrays["evidence.mean"] = mean + (1.0 - probability) * gain
            arrays["evidence.covariance"] = spread - np.outer(gain, moved)
        posterior = np.zeros(len(share)) if right.any() else part / max(float(part.sum()), 1e-300)
        if not among[
            -1
        ]:  # then it is not known how probably none is right: as if those that nobody judged were independent
            wrong = [1.0 - float(features.competence[0, m]) for m in answered if np.isnan(worth[seen.supports[m]])]
            posterior = posterior * (1.0 - math.prod(wrong))
        imputed = {
            m: coincidence * float(posterior[seen.supports[m]]) + (1.0 - coincidence) * float(features.competence[0, m])
            for m in answered
            if np.isnan(worth[seen.supports[m]])
        }
        return {m: p for m, p in imputed.items() if certainty(p, float(features.competence[0, m])) >= LEAST_SHARE}

    def _learn_coincidence(
        self,
        arrays: dict[str, Floats],
        seen: CandidateVectors,
        features: LearnedFeatures,
        known: Mapping[str, float],
    ) -> None:
        """Compare the right answers of one query with each other: the share of pairs that are the same answer."""
        names = self.base.members
        right = [m for m in range(len(names)) if seen.supports[m] >= 0 and known.get(names[m], 0.0) >= 0.5]
        pairs = len(right) * (len(right) - 1) / 2
        if not pairs:
            return
        counts, inputs = np.bincount(seen.supports[right]), features.inputs[0, :OWN_DIM]
        mean, spread = self._drifted(arrays, "coincidence")
        across = spread @ inputs
        gain = across / (inputs @ across + COINCIDENCE_VARIANCE)
        expected = float(features.base.coincidence[0] + inputs @ mean)
        arrays["coincidence.mean"] = mean + (float((counts * (counts - 1) / 2).sum()) / pairs - expected) * gain
        arrays["coincidence.covariance"] = spread - np.outer(gain, across)


def certainty(imputed: float, expected: float) -> float:
    """Say which share of the way from the expected score to 0 or 1 an imputed one goes.

    Where the score is revealed with probability s, and as expected otherwise, all that it can be is this share s away. Its square is
    then the part of the variance that is gone: by the law of total variance, the mean square shift over p (1 − p). So an imputed 0
    or 1 counts as seen, and the learner's own estimate, given back to it, as nothing.
    """
    return (imputed - expected) / (1.0 - expected) if imputed > expected else (expected - imputed) / expected


def _bounded(probability: Floats) -> Floats:
    return np.asarray(np.minimum(np.maximum(probability, _LOW), _HIGH))


def _logit(probability: Floats) -> Floats:
    bounded = _bounded(probability)
    return np.asarray(np.log(bounded) - np.log1p(-bounded))
