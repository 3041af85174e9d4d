"""Agreement: what unscored answers are worth, and what members that were never asked would have answered.

Training needs the score of every member's answer to every query. `complete` makes that of a log with holes: it estimates how
often each member is right from who agrees with whom, corrects this by the scores there are, draws the answers that were never
asked for, and scores every answer by its probability of being right. Outcomes that are complete and scored pass unchanged.

One likelihood holds scored and unscored rows alike. A query has a difficulty z ~ N(0, 1), a right answer k, and a popular wrong
one d. A member m that speaks for itself says k with probability p, and else d with probability δ, or any other of n answers:

    p = 1/n + (1 − 1/n) σ(aₘ + bₜₘ + cₜ − s z + x·r)        δ = σ(d₀ + e₀ z)

but with probability ρₘⱼ it says what the member j says, one better than itself: members of a family err alike, and two voices
that are one must not count twice. t is the query's task, n how many answers the task has in effect, x how long the response is
and how probable its tokens. Maximum a posteriori, by L-BFGS; k, d and z are summed out. The priors of what agreement cannot
tell (s, d₀, e₀ and how much is copied) are what fully scored pools of several benchmarks show, much alike.

Source: Dawid and Skene, 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm", is the model
without z, d, ρ and x. Weighing the scored rows by their conditional likelihood: McCallum et al., 2006, "Multi-conditional
learning". The correction for who was asked: Robins, Rotnitzky and Zhao, 1994 (augmented inverse propensity weighting).

The truth is never read here: what no score shows and no agreement tells stays a guess, and `Completion.warnings` says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langchain_rlfocal.environment import answers_of
from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.policies.evidence import moments_of, response_features
from langchain_rlfocal.states import Bools, Floats, Ints

MAX_FITTED = 4000
"""The likelihood is maximised on so many rows at most, scored ones first: more change little."""

MAX_PAIRS = 2**21
"""So many pairs of members, over all rows, are held in memory at once."""

SCORED_WEIGHT = 10.0
"""At most so much does a scored row's conditional likelihood count, where unscored rows are many times more."""

FAR_AHEAD = 0.15
ENOUGH_SCORED = 300
"""A member whose accuracy is so much above the median should be seen in so many scored queries."""

_OPEN = 1000.0
"""How many answers there are where none can be compared: nobody guesses right."""

_MAX_STEPS, _SHIFTS = 50, 5
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
_NEVER = -1e4

_DIFFICULTY, _DISTRACTOR, _COPIED = 2.0, -1.0, 0.05
"""Prior means of s, of d₀, and of each better member's share of what is copied, over the share that is not. The first two hold
the less, the more queries were scored."""

_MODEL_ERROR = 0.05
"""By how much the model's mean score of a member that was not always asked may be wrong, as a standard deviation."""

_GUESS_COUNT = 100.0
"""How many scored answers the guess of a member's accuracy counts for."""

_STRETCH = 1.6
"""How much farther apart log-odds are at a given difficulty than over all, σ(z) being averaged: √(1 + π s²/8)."""

_PRECISION = {
    "task": 1.0,
    "member_task": 6.0,
    "slope": 300.0,
    "distractor": (1000.0, 100.0),
    "reply": 300.0,
}
_COPY_COUNT = 60.0
"""How many queries the prior of copying counts for."""

_ABILITY_PRECISION, _SCORED_HALF = 100.0, 20.0
"""How closely members' abilities keep the distances that pairwise agreement gives them; half as closely where so many queries
were scored, since scores tell abilities better."""


@dataclass(frozen=True, slots=True)
class Completion:
    """Complete outcomes, and what they rest on.

    Attributes:
        grid: The outcomes: every cell recorded, every score known, in [0, 1].
        facts: `queries`, `cells`: of the log; `scored`, `unscored`, `unrecorded`: cells of each kind; `scored_queries`: with a
            score at all; `accuracy`: estimated share of right answers by member, None where nothing had to be estimated.
        warnings: Why the estimates may be wrong, in sentences.
    """

    grid: OutcomeGrid
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Log:
    """What the likelihood reads of Q queries and M members.

    Attributes:
        answers: Index of the first member that gave the same answer; -1 where there is none to compare, shape [Q, M].
        missing: No answer that says anything: not asked, or open text that nobody scored, shape [Q, M].
        alone: Score of an answer that cannot be compared, 0 for silence, NaN for the others, shape [Q, M].
        worth: Mean score of each candidate's supporters, NaN where none was scored, shape [Q, M].
        tasks: Each query's task, 0 .. T − 1, shape [Q].
        options: How many answers each task has in effect, shape [T].
        is_open: Tasks whose answers cannot be compared, shape [T].
        replies: How each response compares with the member's others, 0 where unknown, shape [Q, M, R].
        is_scored: Queries of which some answer was scored, shape [Q].
    """

    answers: Ints
    missing: Bools
    alone: Floats
    worth: Floats
    tasks: Ints
    options: Floats
    is_open: Bools
    replies: Floats
    is_scored: Bools

    def take(self, rows: Ints) -> "Log":
        """Return these queries."""
        names = ("answers", "missing", "alone", "worth", "tasks", "replies", "is_scored")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


def log_of(grid: OutcomeGrid) -> Log:
    """Lay out a grid for the likelihood."""
    answers = grid.label_ids.astype(np.intp)
    names = sorted(set(grid.tasks))
    code = {name: index for index, name in enumerate(names)}
    tasks = np.array([code[task] for task in grid.tasks], dtype=np.intp)
    labelled, unlabelled = answers >= 0, grid.recorded & (answers < 0) & (grid.answer_ids >= 0)
    options, is_open = np.full(len(names), _OPEN), np.zeros(len(names), dtype=bool)
    for task in range(len(names)):
        rows = tasks == task
        is_open[task] = labelled[rows].sum() <= unlabelled[rows].sum()
        _, counts = np.unique(grid.answers[rows][labelled[rows]].astype(str), return_counts=True)
        if counts.size:
            shares = counts / counts.sum()
            options[task] = max(np.exp(-(shares * np.log(shares)).sum()), 2.0)
    silent = grid.recorded & (grid.answer_ids < 0)
    # Where answers have labels, a text without one is an answer that could not be read: usually wrong.
    unread = unlabelled & ~is_open[tasks][:, None]
    alone = np.where(unlabelled, grid.scores, np.nan)
    alone = np.where(silent | (unread & np.isnan(alone)), 0.0, alone)
    worth = np.full(answers.shape, np.nan)
    for member in range(answers.shape[1]):
        scored = (answers == member) & ~np.isnan(grid.scores)
        count = scored.sum(axis=1)
        total = np.where(scored, grid.scores, 0.0).sum(axis=1)
        worth[:, member] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    laid_out = answers_of(grid)
    return Log(
        answers=answers,
        missing=~grid.recorded | (unlabelled & np.isnan(alone)),
        alone=alone,
        worth=worth,
        tasks=tasks,
        options=options,
        is_open=is_open,
        replies=response_features(laid_out, moments_of(laid_out)),
        is_scored=np.asarray((~np.isnan(grid.scores)).any(axis=1)),
    )


# ---- the likelihood


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


class AgreementModel:
    """The likelihood of what members said, as a function of the parameters.

    Args:
        log: What they said, of at least one query.
        accuracy: A guess of each member's accuracy, from which the fit starts, shape [M].
        excess: How often two members agree beyond their accuracies, as odds of one copying the other, shape [M, M].

    Attributes:
        order: Members from the best to the worst by that guess: each may copy those before it, shape [M].
    """

    def __init__(self, log: Log, accuracy: Floats, excess: Floats) -> None:
        m = log.answers.shape[1]
        self._log, self.order = log, np.argsort(-accuracy, kind="stable")
        self._accuracy, self._excess = accuracy, excess
        self._start = _tensor(_STRETCH * (np.log(accuracy) - np.log1p(-accuracy)))
        compared = log.answers >= 0
        support = log.answers[:, :, None] == np.arange(m)
        exists = support.any(axis=1)
        num = exists.sum(axis=1)
        options = log.options[log.tasks]
        self._tasks, self._chance = torch.from_numpy(log.tasks), _tensor(-np.log(options))
        # Both k and d may be an answer that nobody gave: how many of those there are, in units of one answer's probability.
        self._unheard = _tensor(np.log(np.maximum(options - num, 0.3)))
        self._support, self._exists = _tensor(support), torch.from_numpy(exists)
        self._compared = torch.from_numpy(compared)
        alone = np.where(log.missing | np.isnan(log.alone), 0.0, log.alone)
        apart = ~compared & ~log.missing & ~np.isnan(log.alone)
        self._right_alone, self._wrong_alone = _tensor(apart * alone), _tensor(apart * (1.0 - alone))
        rank = np.empty(m, dtype=np.intp)
        rank[self.order] = np.arange(m)
        before = rank[:, None] > rank
        self._before = _tensor(before)
        same = (log.answers[:, :, None] == log.answers[:, None, :]) & compared[:, :, None]
        self._same = _tensor(same & before)
        self._heard = _tensor(compared[:, None, :] & before)
        self._replies = _tensor(log.replies)
        self._nodes, self._node_weights = _tensor(_NODES), _tensor(np.log(_WEIGHTS / _WEIGHTS.sum()))
        share = np.where(np.isnan(log.worth), 1.0 - np.nan_to_num(log.worth).max(axis=1, keepdims=True), log.worth)
        # An answer that nobody scored, or nobody gave, is right where none that was scored is.
        rest = 1.0 - np.nan_to_num(log.worth).max(axis=1)
        self._scores_say = _tensor(np.log(np.maximum(np.column_stack([share, rest]), 1e-9)))
        self._is_scored = torch.from_numpy(log.is_scored)
        prior = before * (_COPIED + excess)
        self._copy_odds = _tensor(np.log(np.where(before, prior, 1.0)))
        own = 1.0 / (1.0 + prior.sum(axis=1))
        self._prior_own, self._prior_copies = _tensor(own), _tensor(prior * own[:, None])

    def of(self, log: Log) -> "AgreementModel":
        """Make the likelihood of another log, with the same priors."""
        return AgreementModel(log, self._accuracy, self._excess)

    def start(self) -> dict[str, Tensor]:
        """Make the parameters that the fit begins with."""
        m, t = len(self._start), len(self._log.options)
        return {
            "ability": self._start.clone(),
            "task": torch.zeros(t),
            "member_task": torch.zeros(t, m),
            "slope": torch.tensor(_DIFFICULTY),
            "distractor": torch.tensor([_DISTRACTOR, 0.0]),
            "copies": self._copy_odds.clone(),
            "reply": torch.zeros(self._replies.shape[2]),
        }

    def copies(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """Compute ρ, shape [M, M]: how often each member says what another, better one says."""
        odds = parameters["copies"].clamp(max=6.0).exp() * self._before
        return odds / (1.0 + odds.sum(dim=1, keepdim=True))

    def _own(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities that a member by itself is right, or wrong, shape [Q, Z, M], and log-odds of δ, shape [Z, 1]."""
        ability = parameters["ability"] + parameters["member_task"][self._tasks] + parameters["task"][self._tasks, None]
        ability = ability + self._replies @ parameters["reply"]
        logit = ability[:, None] - parameters["slope"] * self._nodes[:, None]
        floor = self._chance[:, None, None].exp()
        right = torch.log(floor + (1.0 - floor) * torch.sigmoid(logit))
        wrong = torch.log1p(-floor) + torch.nn.functional.logsigmoid(-logit)
        constant, slope = parameters["distractor"]
        return right, wrong, (constant + slope * self._nodes)[:, None]

    def _joint(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Log-probability of what was said, with each difficulty and right answer, shape [Q, Z, K], without what scores say.

        K are the candidates and, last, any answer that nobody gave. The second is that of each popular wrong answer, up to
        what it has in common with the first.
        """
        right, wrong, distractor = self._own(parameters)
        log_sigmoid, chance = torch.nn.functional.logsigmoid, self._chance[:, None, None]
        copies = self.copies(parameters)
        # A better member that was not asked has said nothing to copy.
        own = torch.log1p(-torch.einsum("qmj,mj->qm", self._heard, copies))[:, None]
        copied = torch.einsum("qmj,mj->qm", self._same, copies).clamp(min=1e-30).log()[:, None]
        says_right = torch.logaddexp(copied, own + right)
        says_popular = torch.logaddexp(copied, own + wrong + log_sigmoid(distractor))
        says_other = torch.logaddexp(copied, own + wrong + log_sigmoid(-distractor) + chance)
        base = (says_other * self._compared[:, None]).sum(dim=2)
        base = base + (right * self._right_alone[:, None] + wrong * self._wrong_alone[:, None]).sum(dim=2)
        unheard = self._unheard[:, None, None].expand(-1, len(self._nodes), 1)

        def of_answers(gain: Tensor) -> Tensor:
            heard = torch.bmm(gain * self._compared[:, None], self._support)
            heard = heard.masked_fill(~self._exists[:, None], _NEVER)
            return torch.cat([heard, unheard], dim=2) + chance

        popular = of_answers(says_popular - says_other)
        joint = of_answers(says_right - says_other) + _log_sum_of_others(popular)
        return joint + base[:, :, None] + self._node_weights[:, None], popular

    def loss(self, parameters: Mapping[str, Tensor], scored_weight: float) -> Tensor:
        """Mean negative log-posterior, with the conditional likelihood of the scored rows counted so much more."""
        joint, _ = self._joint(parameters)
        said = torch.logsumexp(joint, dim=(1, 2))
        scored = torch.logsumexp(joint + self._scores_say[:, None], dim=(1, 2))
        likelihood = torch.where(self._is_scored, scored + scored_weight * (scored - said), said).sum()
        copies = self.copies(parameters)
        kept = self._prior_own * torch.log1p(-copies.sum(dim=1))
        copied = (self._prior_copies * torch.where(self._before > 0, copies, 1.0).clamp(min=1e-9).log()).sum(dim=1)
        centre = {"slope": torch.tensor(_DIFFICULTY), "distractor": torch.tensor([_DISTRACTOR, 0.0])}
        # What agreement cannot tell, scores can.
        unscored = max(1.0 - float(self._is_scored.float().mean()), 0.02)
        penalty = sum(
            (
                torch.tensor(precision)
                * (unscored if name in centre else 1.0)
                * (parameters[name] - centre.get(name, torch.zeros(()))) ** 2
            ).sum()
            for name, precision in _PRECISION.items()
        )
        apart = parameters["ability"] - self._start
        scored_share = _SCORED_HALF / (_SCORED_HALF + float(self._is_scored.sum()))
        penalty = penalty + _ABILITY_PRECISION * scored_share * (apart - apart.mean()).square().sum()
        return (penalty - likelihood - _COPY_COUNT * (kept + copied).sum()) / len(joint)

    def fit(self) -> dict[str, Tensor]:
        """Find the parameters of least loss."""
        parameters = self.start()
        for part in parameters.values():
            part.requires_grad_()
        scored = int(self._is_scored.sum())
        weight = min(SCORED_WEIGHT, (len(self._is_scored) - scored) / max(scored, 1))
        optimizer = torch.optim.LBFGS(
            list(parameters.values()),
            max_iter=_MAX_STEPS,
            history_size=20,
            line_search_fn="strong_wolfe",
            tolerance_change=1e-7,
        )

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = self.loss(parameters, weight)
            loss.backward()  # type: ignore[no-untyped-call]  # torch declares it without types
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
        return {name: part.detach() for name, part in parameters.items()}

    def posterior(self, parameters: Mapping[str, Tensor]) -> Floats:
        """Compute the probability of each candidate, and of any other answer, to be right, shape [Q, M + 1]."""
        with torch.no_grad():
            joint, _ = self._joint(parameters)
            joint = joint + self._scores_say[:, None]
            shares = torch.softmax(joint.flatten(1), dim=1).view_as(joint).sum(dim=1)
        return np.asarray(shares.numpy().astype(np.float64))

    def draw(self, parameters: Mapping[str, Tensor], shift: Floats, rng: np.random.Generator) -> tuple[Ints, Bools]:
        """Draw what the members would have said that said nothing on record.

        Args:
            parameters: The parameters.
            shift: Added to each member's log-odds, shape [M].
            rng: Source of all randomness.

        Returns:
            Every member's answer as an index: below M that of the first who gave it, else a new one, shape [Q, M]; and which
            of them are right by the draw.
        """
        q, m = self._log.answers.shape
        with torch.no_grad():
            joint, popular = self._joint(parameters)
            joint = joint + self._scores_say[:, None]
            node, right = divmod(_draw(torch.softmax(joint.flatten(1), dim=1).numpy(), rng), m + 1)
            rows = np.arange(q)
            popular = popular[rows, node]
            popular[(right < m).nonzero()[0], right[right < m]] = _NEVER
            wrong = _draw(torch.softmax(popular, dim=1).numpy(), rng)
            accuracy, _, distractor = self._own(parameters)
            chance = accuracy[rows, node].exp().numpy().astype(np.float64)
            fooled = torch.sigmoid(distractor)[:, 0].numpy()[node]
            copies = self.copies(parameters).numpy().astype(np.float64)
        floor = 1.0 / self._log.options[self._log.tasks][:, None]
        own = np.clip((chance - floor) / (1.0 - floor), 1e-6, 1 - 1e-6)
        chance = floor + (1.0 - floor) / (1.0 + np.exp(-np.log(own / (1 - own)) - shift))
        wrong = np.where(wrong == m, m + 1, wrong)
        # Any other answer: those that somebody gave come first among as many as the task has.
        is_other = self._exists.numpy().copy()
        for taken in (right, wrong):
            is_other[rows[taken < m], taken[taken < m]] = False
        named, num_named = np.argsort(~is_other, axis=1, kind="stable"), is_other.sum(axis=1)
        num_others = np.maximum(np.round(self._log.options[self._log.tasks]) - 2, np.maximum(num_named, 1))
        said = self._log.answers.copy()
        for member in self.order:
            uniform = rng.random((4, q))
            parents = np.flatnonzero(copies[member] > 0)
            picked = (copies[member, parents].cumsum()[:, None] <= uniform[0]).sum(axis=0)
            copied = np.full(q, -1, dtype=np.intp)
            for place, parent in enumerate(parents):
                copied = np.where(picked == place, said[:, parent], copied)
            is_right = uniform[1] < chance[:, member]
            place = (uniform[3] * num_others).astype(np.intp)
            other = np.where(place < num_named, named[rows, np.minimum(place, m - 1)], m + 2 + place)
            new = np.where(is_right, right, np.where(uniform[2] < fooled, wrong, other))
            new = np.where(copied >= 0, copied, new)
            said[:, member] = np.where(self._log.missing[:, member], new, said[:, member])
        return said, said == right[:, None]

    def expected(self, parameters: Mapping[str, Tensor]) -> Floats:
        """Compute the probability that each member is right before anything is heard, shape [Q, M]."""
        with torch.no_grad():
            right, _, _ = self._own(parameters)
            return np.asarray(
                torch.einsum("z,qzm->qm", self._node_weights.exp(), right.exp()).numpy().astype(np.float64)
            )

    def accuracy(self, parameters: Mapping[str, Tensor]) -> Floats:
        """Compute the probability that each member is right by its own lights, near each query as it turned out, shape [Q, M]."""
        with torch.no_grad():
            joint, _ = self._joint(parameters)
            joint = joint + self._scores_say[:, None]
            nodes = torch.softmax(joint.flatten(1), dim=1).view_as(joint).sum(dim=2)
            right, _, _ = self._own(parameters)
            return np.asarray(torch.einsum("qz,qzm->qm", nodes, right.exp()).numpy().astype(np.float64))


def _log_sum_of_others(values: Tensor) -> Tensor:
    """Log of the sum of the exponentials of all but one, for each one along the last axis; of all for the last.

    The last stands for many answers: that none of those heard is right does not keep another of them from being popular.
    """
    top, place = values.max(dim=2, keepdim=True)
    is_top = torch.zeros_like(values, dtype=torch.bool).scatter(2, place, value=True)
    total = (values - top).exp().sum(dim=2, keepdim=True)
    # Of the largest alone the difference of the sums would be lost in rounding.
    without_top = torch.logsumexp(values.masked_fill(is_top, -1e9), dim=2, keepdim=True)
    rest = torch.where(is_top, 1.0, total - (values - top).exp())
    others = torch.where(is_top, without_top, top + rest.clamp(min=1e-6).log())
    return torch.cat([others[:, :, :-1], top + total.log()], dim=2)


def _draw(shares: np.ndarray, rng: np.random.Generator) -> Ints:
    """Draw one index for each row in proportion to its shares, shape [Q]."""
    below = shares.cumsum(axis=1, dtype=np.float64)
    uniform = rng.random((len(shares), 1)) * below[:, -1:]
    return np.asarray(np.minimum((below <= uniform).sum(axis=1), shares.shape[1] - 1))


# ---- from a log to complete outcomes


def vote_accuracy(log: Log) -> Floats:
    """Guess how often each member is right, within [0.1, 0.9], by three rounds of weighted votes and the scores; shape [M]."""
    support = log.answers[:, :, None] == np.arange(log.answers.shape[1])
    counts = support.sum(axis=1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for _ in range(3):
        best = np.where(np.isnan(log.worth), share, log.worth)
        agreed = (support * best[:, None]).sum(axis=2)
        apart = (log.answers < 0) & ~log.missing
        value = np.where(apart, np.nan_to_num(log.alone), agreed)
        known = ~log.missing
        accuracy = (np.where(known, value, 0.0).sum(axis=0) + 1.0) / (known.sum(axis=0) + 2.0)
        accuracy = np.clip(accuracy, 0.1, 0.9)
        odds = np.log(accuracy / (1 - accuracy)) + np.log(log.options[log.tasks][:, None])
        votes = np.where(counts > 0, (support * np.maximum(odds, 0.0)[:, :, None]).sum(axis=1), -np.inf)
        top = np.maximum(votes.max(axis=1, keepdims=True), 0.0)
        weight = np.exp(votes - top)
        share = weight / (weight.sum(axis=1, keepdims=True) + np.exp(-top))
    return np.asarray(accuracy)


def pairwise_factors(log: Log) -> tuple[Floats, Floats]:
    """Explain how often members agree by one factor each, but for pairs that agree more than that.

    With independent errors the share of queries on which members i and j agree is nearly xᵢ xⱼ, whoever is right. The x of least
    absolute deviation, by reweighted least squares, leave the few pairs that err alike as they are.

    Source: Parisi, Strino, Nadler and Kluger, 2014, "Ranking and combining multiple predictors without labeled data".

    Returns:
        The factors, shape [M], and of each pair the odds of one copying the other that its excess is worth, 0 where there is
        none beyond noise, shape [M, M].
    """
    answers, m = log.answers, log.answers.shape[1]
    asked = (~log.missing).astype(np.float64)
    together = asked.T @ asked
    same = np.array([(answers == answers[:, [j]])[answers[:, j] >= 0].sum(axis=0) for j in range(m)])
    agree = (same + 1.0) / (together + 2.0)
    weight = np.sqrt(together)
    np.fill_diagonal(weight, 0.0)
    # It starts below most pairs, where those that err alike stand out.
    others = np.where(weight > 0, agree, np.inf)
    place = np.maximum((0.3 * (weight > 0).sum(axis=1)).astype(np.intp) - 1, 0)
    low = np.sort(others, axis=1)[np.arange(m), place]
    factors: Floats = np.sqrt(np.where(np.isfinite(low), low, 0.4))
    excess = agree - np.outer(factors, factors)
    for _ in range(50):
        near = weight / np.maximum(np.abs(excess), 0.01)
        for i in range(m):
            factors[i] = (
                (near[i] * agree[i] @ factors) / max(near[i] @ factors**2, 1e-9) if near[i].any() else factors.mean()
            )
        factors = np.asarray(np.clip(factors, 0.05, 1.0))
        excess = agree - np.outer(factors, factors)
    noise = 2.0 * np.sqrt(agree * (1.0 - agree) / (together + 2.0))
    beyond = np.where(weight > 0, np.maximum(excess - np.maximum(noise, 0.02), 0.0), 0.0)
    share = np.minimum(1.5 * beyond / (1.0 - np.minimum(agree, 0.99)), 0.8)
    return factors, share / (1.0 - share)


def complete(grid: OutcomeGrid, *, rng: np.random.Generator) -> Completion:
    """Complete outcomes of which some were not scored, or not recorded.

    Args:
        grid: The outcomes, training and validation rows together: the more, the better the estimates.
        rng: Draws the answers that were never asked for.

    Returns:
        The outcomes completed; `grid` itself where nothing is missing. Scores on record stay as they are.

    Raises:
        OutcomeError: Nothing was scored, and no query has two answers that can be compared.
    """
    scored = ~np.isnan(grid.scores)
    facts: dict[str, Any] = {
        "queries": len(grid),
        "scored_queries": int(scored.any(axis=1).sum()),
        "cells": int(scored.size),
        "scored": int(scored.sum()),
        "unscored": int((grid.recorded & ~scored).sum()),
        "unrecorded": int((~grid.recorded).sum()),
        "accuracy": None,
    }
    if grid.is_complete:
        return Completion(grid, facts, ())
    log = log_of(grid)
    if not scored.any() and ((log.answers >= 0).sum(axis=1) < 2).all():
        raise OutcomeError(
            "Some answers must be scored, or some queries answered by two members whose answers can be compared, got neither: "
            "there is nothing to learn who is right from. Score some answers, or ask more members.",
            column="reward",
        )
    model, parameters = _fitted(log)
    blocks = np.array_split(np.arange(len(grid)), -(-len(grid) * len(grid.members) ** 2 // MAX_PAIRS))
    parts = [log.take(rows) for rows in blocks]
    right = np.concatenate([_right(part, model.of(part), parameters) for part in parts])
    completed = grid
    is_drawn = ~grid.recorded & ~log.is_open[log.tasks][:, None]
    if is_drawn.any():
        seed = int(rng.integers(2**63))

        def draw(shift: Floats) -> tuple[Ints, Bools]:
            seeded = np.random.default_rng(seed)
            said, is_right = zip(*(model.of(part).draw(parameters, shift, seeded) for part in parts), strict=True)
            return np.concatenate(said), np.concatenate(is_right)

        expected = np.concatenate([model.of(part).expected(parameters) for part in parts])
        said, is_right = draw(_shift(grid, right, expected, is_drawn, lambda shift: draw(shift)[1]))
        # With the answers the right one was drawn: in these rows it is right, and every other answer wrong.
        by_draw = is_drawn.any(axis=1, keepdims=True) & (log.answers >= 0)
        right = np.where(is_drawn | by_draw, is_right, right)
        completed = _rename(grid, np.where(is_drawn, said, log.answers))
    elif not grid.recorded.all():
        completed = _rename(grid, log.answers)
    known = np.take_along_axis(log.worth, np.maximum(log.answers, 0), axis=1)
    right = np.where((log.answers >= 0) & ~np.isnan(known), known, right)
    scores = np.where(scored, grid.scores, np.clip(right, 0.0, 1.0))
    completed = replace(completed, scores=scores)
    if completed.option_ids is not None and completed.option_scores is not None:
        given = (completed.option_ids >= 0) & (completed.option_ids < len(grid.members))
        worth = np.take_along_axis(scores, np.where(given, completed.option_ids, 0), axis=1)
        completed = replace(completed, option_scores=np.where(given, worth, completed.option_scores))
    accuracy = scores.mean(axis=0)
    facts["accuracy"] = dict(zip(grid.members, accuracy.tolist(), strict=True))
    return Completion(completed, facts, tuple(_doubts(grid, log, accuracy)))


def _fitted(log: Log) -> tuple[AgreementModel, dict[str, Tensor]]:
    """Fit on as many rows as are worth the time, scored ones first."""
    m = log.answers.shape[1]
    most = min(MAX_FITTED, max(MAX_PAIRS // m**2, 1))
    scored = _spread(np.flatnonzero(log.is_scored), most)
    part = log.take(np.sort(np.concatenate([scored, _spread(np.flatnonzero(~log.is_scored), most - len(scored))])))
    factors, excess = pairwise_factors(log)
    accuracy = np.clip(factors * vote_accuracy(part).mean() / factors.mean(), 0.05, 0.95)
    count, total = _scored_of_members(log)
    accuracy = (total + _GUESS_COUNT * accuracy) / (count + _GUESS_COUNT)
    model = AgreementModel(part, accuracy, excess)
    return model, model.fit()


def _spread(rows: Ints, num: int) -> Ints:
    """Take so many of these rows, or all, evenly spread: their order is that of tasks."""
    return rows if len(rows) <= num else rows[np.arange(num) * len(rows) // max(num, 1)]


def _scored_of_members(log: Log) -> tuple[Floats, Floats]:
    """Number and sum of each member's known scores, shape [M] each."""
    worth = np.take_along_axis(log.worth, np.maximum(log.answers, 0), axis=1)
    score = np.where(log.answers >= 0, worth, np.where(log.is_scored[:, None] & ~log.missing, log.alone, np.nan))
    known = ~np.isnan(score)
    return known.sum(axis=0).astype(np.float64), np.where(known, score, 0.0).sum(axis=0)


def _right(log: Log, model: AgreementModel, parameters: Mapping[str, Tensor]) -> Floats:
    """Estimate the probability that each member is right, from its own answer where it gave one, shape [Q, M]."""
    posterior = model.posterior(parameters)
    right = np.take_along_axis(posterior, np.maximum(log.answers, 0), axis=1)
    right = np.where(log.answers >= 0, right, np.nan_to_num(log.alone))
    return np.where(log.missing, model.accuracy(parameters), right)


def _shift(
    grid: OutcomeGrid, right: Floats, expected: Floats, is_drawn: Bools, draw: Callable[[Floats], Bools]
) -> Floats:
    """Find what to add to members' log-odds so that the drawn answers are right as often as doubly robust means say, shape [M].

    With f the probability by the model before anything is heard, y what was recorded, and e the propensity:

        μ = mean of f + λ Σ (y − f) / e over what was recorded / Σ 1 / e

    λ draws what few records say toward the model, by their standard error beside that of the model: 1 where records are many.
    Where no propensity of a member is known, it is not corrected.
    """
    known = grid.recorded & ~np.isnan(grid.propensity)
    weight = np.where(known, 1.0 / np.maximum(np.where(known, grid.propensity, 1.0), 1e-3), 0.0)
    total = np.maximum(weight.sum(axis=0), 1e-9)
    residual = (weight * (right - expected)).sum(axis=0) / total
    error = ((weight * (right - expected - residual)) ** 2).sum(axis=0) / total**2
    mean = expected.mean(axis=0) + residual * _MODEL_ERROR**2 / (_MODEL_ERROR**2 + error)
    count = is_drawn.sum(axis=0)
    others = np.where(is_drawn, 0.0, right).sum(axis=0)
    target = np.clip((mean * len(grid) - others) / np.maximum(count, 1), 0.02, 0.98)
    shift = np.zeros(len(target))
    is_corrected = known.any(axis=0) & (count > 0)
    for _ in range(_SHIFTS if is_corrected.any() else 0):
        got = np.clip((draw(shift) & is_drawn).sum(axis=0) / np.maximum(count, 1), 0.02, 0.98)
        step = np.log(target) - np.log1p(-target) - np.log(got) + np.log1p(-got)
        # Half as much again: what is copied does not move with a member's own odds.
        shift = np.clip(shift + 1.5 * np.where(is_corrected, step, 0.0), -4.0, 4.0)
    return shift


def _rename(grid: OutcomeGrid, said: Ints) -> OutcomeGrid:
    """Write drawn answers into the empty cells: `said` as `AgreementModel.draw` gives it, -1 where there is none."""
    q, m = said.shape
    drawn = ~grid.recorded & (said >= 0)
    own = np.where(~grid.recorded, np.arange(m), grid.answer_ids)
    codes = np.where(said >= 0, said, own)
    ids = np.where(codes >= 0, (codes[:, :, None] == codes[:, None, :]).argmax(axis=2), -1).astype(np.int32)
    answers = grid.answers.copy()
    for row, member in zip(*np.nonzero(drawn), strict=True):
        code = said[row, member]
        # A name that no other query has, so that nothing is learned of it.
        answers[row, member] = grid.answers[row, code] if code < m else f"?{row}_{code}"
    parts: dict[str, Any] = {}
    if grid.option_ids is not None:
        given = (grid.option_ids >= 0) & (grid.option_ids < m)
        renamed = np.take_along_axis(ids, np.where(given, grid.option_ids, 0), axis=1)
        parts["option_ids"] = np.where(given, renamed, grid.option_ids)
    return replace(grid, answer_ids=ids, answers=answers, recorded=np.ones((q, m), dtype=bool), **parts)


def _doubts(grid: OutcomeGrid, log: Log, accuracy: Floats) -> list[str]:
    """Say why what was estimated may be wrong."""
    doubts = []
    scored = ~np.isnan(grid.scores)
    num_scored = int(scored.any(axis=1).sum())
    if (grid.recorded & ~scored).any():
        observed, expected, pairs = _agreement(log)
        answered = (log.answers >= 0).sum(axis=1)
        if answered.max() <= 2:
            doubts.append(
                "No query has answers of more than two members to compare: where two differ, agreement does not tell which "
                "is right. Ask a third member, or score more answers."
            )
        if pairs and observed - expected < 3 * np.sqrt(max(expected * (1 - expected), 1e-4) / pairs):
            doubts.append(
                f"Members agree on {observed:.0%} of their answers, where chance alone gives {expected:.0%}: agreement says "
                "nothing of who is right. Score some answers."
            )
        elif pairs and observed > 0.97:
            doubts.append(
                f"Members agree on {observed:.0%} of their answers: they are too alike to tell from each other. Score some "
                "answers, or take members that differ."
            )
        best = int(accuracy.argmax())
        lead = accuracy[best] - np.median(accuracy)
        if len(accuracy) > 2 and lead > FAR_AHEAD and num_scored < ENOUGH_SCORED:
            doubts.append(
                f"{grid.members[best]} looks far ahead of most members (right on {accuracy[best]:.0%}, the median on "
                f"{np.median(accuracy):.0%}), by {num_scored} scored queries and agreement, which understates who alone is "
                f"right. Score at least {ENOUGH_SCORED} queries."
            )
    if not grid.recorded.all() and np.isnan(grid.propensity[grid.recorded]).any():
        doubts.append(
            "Members were not asked every query, and `propensity` does not say how probable it was that they were: what they "
            "would have answered is drawn as if their being asked told nothing beyond task and recorded answers. If the harder "
            "queries went to some of them, these are better than they look. Record `propensity`, or ask everybody of some queries."
        )
    return doubts


def _agreement(log: Log) -> tuple[float, float, int]:
    """Share of pairs of answers that agree, what chance would give by the answers' frequencies, and the number of pairs."""
    answers, m = log.answers, log.answers.shape[1]
    given = (answers[:, :, None] == np.arange(m)).sum(axis=1)
    num = given.sum(axis=1)
    pairs = num * (num - 1) / 2
    same = (given * (given - 1)).sum(axis=1) / 2
    total = pairs.sum()
    chance = (pairs / log.options[log.tasks]).sum()
    return float(same.sum() / max(total, 1)), float(chance / max(total, 1)), int(total)
