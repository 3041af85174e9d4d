"""Sentences: what a report's figures say, in words. Each is true of the figures that it is made of, and claims nothing beyond.

A difference is one only where its 95 % interval leaves 0 out; else the two are "not told apart".
"""

from collections.abc import Sequence

from langchain_rlfocal.evaluation.metrics import Estimate
from langchain_rlfocal.evaluation.rivals import SpendingUnit
from langchain_rlfocal.reporting.facts import (
    Asking,
    Calibration,
    Curves,
    Facts,
    Spent,
    Teams,
    Training,
    Way,
)

NAMES = {
    "policy": "RL-Focal",
    "single_best": "single best",
    "random_team": "random team",
    "top_k": "top members",
    "plurality": "plurality vote of all",
    "weighted_vote": "weighted vote of all",
    "per_task_router": "router by task",
    "nearest_neighbours": "router by neighbours",
    "best_fixed_team": "best fixed team",
    "supervised_fusion": "supervised fusion of all",
    "oracle": "Oracle",
    "priced_task_table": "rival: priced task table",
    "agreement_cascade": "rival: agreement cascade",
    "priced_linear_router": "rival: priced linear router",
}
"""What ways of answering are called."""

AXES: dict[str, str] = {
    "usd": "dollars for 1,000 questions",
    "tokens": "tokens a question, of prompts and responses",
    "calls": "members asked a question",
}
"""What an axis of spending is called."""

UNITS = {"usd": "Dollars", "tokens": "Tokens", "calls": "Calls"}

METRICS = {
    "reward": "Reward: score of an episode, less what its calls cost",
    "best_validation": "Best validation: the policy that is kept",
    "validation": "Validation: score less spending, on rows that no fit has seen",
    "calls": "Calls: members asked in an episode",
    "approx_kl": "Approximate KL: how far an update moved the policy",
    "clip_fraction": "Clip fraction: share of decisions whose update was clipped",
    "entropy": "Entropy: of the Decider's choice of a team",
    "fusion_entropy": "Entropy of Fusion: of its choice of an answer",
    "explained_variance": "Explained variance: share of the returns' that the critic explains",
    "value_loss": "Value loss: of the critic",
    "policy_loss": "Policy loss: of Decider and Fusion",
}
"""What the metrics of training are, in the order in which they are drawn; others follow by their own name."""


def name_of(way: str) -> str:
    """Return what a way of answering is called."""
    return NAMES.get(way, way.replace("_", " "))


def percent(share: float) -> str:
    """Write a share of 1 as a percentage."""
    return f"{100 * share:.1f}%"


def points(difference: float) -> str:
    """Write a difference of scores in points of 100, with its sign."""
    value = round(100 * difference, 1)
    return f"{'−' if value < 0 else '+' if value > 0 else ''}{abs(value):.1f}"


def amount(value: float, unit: SpendingUnit) -> str:
    """Write what a question takes; dollars are those of 1,000 questions."""
    if unit == "usd":
        value *= 1000
        return f"${value:,.2f}" if value >= 0.095 or not value else f"${value:.2g}"
    if unit == "tokens":
        return f"{value:,.0f}"
    return f"{value:.2f}" if value >= 0.095 or not value else f"{value:.2g}"


def sign_of(estimate: Estimate) -> int:
    """Say on which side of 0 the whole interval lies; 0 where it holds 0."""
    return (estimate.low > 0) - (estimate.high < 0)


def headline(facts: Facts) -> str:
    """Say in one sentence how much better and how much cheaper the policy is than the best single member."""
    compared = facts.comparison
    if compared is None:
        (policy,) = (way for way in facts.ways if way.role == "policy")
        return (
            f"On {policy.n:,} {_rows(facts)}, the policy scores {percent(policy.score.mean)} (95% interval "
            f"{percent(policy.score.low)} to {percent(policy.score.high)}); there is no best single member to compare it with."
        )
    n, score = compared.score.n, compared.score
    interval = f"(95% interval {points(score.low)} to {points(score.high)})"
    side = sign_of(score)
    told = (
        f"scores {abs(100 * score.mean):.1f} points {'more' if side > 0 else 'less'} than the best single member, "
        f"{compared.best} {interval}"
        if side
        else f"is not told apart in score from the best single member, {compared.best}: {points(score.mean)} points {interval}"
    )
    spent = compared.spent.get(facts.unit)
    if spent is None:
        return f"On {n:,} {_rows(facts)}, the policy {told}; what it costs is unknown."
    return f"On {n:,} {_rows(facts)}, the policy {told}, {'and' if side else 'and it'} {_costs(spent, facts.unit)}."


def _rows(facts: Facts) -> str:
    if not facts.knows_rows:
        return "questions that training had not seen"
    split = facts.manifest.get("split")
    return f"{split} questions" if split in ("train", "validation") else "questions that training may have seen"


def _costs(spent: Spent, unit: SpendingUnit) -> str:
    difference = spent.difference
    side = sign_of(difference)
    if difference.low == difference.high == 0:
        return f"takes exactly as {'many calls' if unit == 'calls' else 'much'}"

    def written(value: float) -> str:
        shown = amount(abs(value), unit)
        return shown if value >= 0 else f"−{shown}"

    # "Less" and "more" say the sign of what lies on one side of 0.
    low, high = sorted(map(abs, (difference.low, difference.high))) if side else (difference.low, difference.high)
    interval = f"95% interval {written(low)} to {written(high)}"
    # A share says more than a figure where both are above nothing.
    share = (
        f", {abs(difference.mean) / spent.best:.0%} {'more' if difference.mean > 0 else 'less'}" if spent.best else ""
    )
    what = {"usd": " for 1,000 questions", "tokens": " tokens a question", "calls": " calls a question"}[unit]
    if not side:
        return f"is not told apart in cost: {written(difference.mean)}{what} ({interval})"
    verb = "costs" if unit == "usd" else "takes"
    return f"{verb} {amount(abs(difference.mean), unit)} {'more' if side > 0 else 'less'}{what}{share} ({interval})"


# ---- what each chart shows, for who cannot see it and for who wants it said


def of_spending(ways: Sequence[Way], curves: Curves | None, unit: SpendingUnit) -> str:
    """Say who scores best, at what spending, and how the policy's frontier compares."""
    placed = [way for way in ways if way.spending[unit] is not None]
    policy = next(way for way in ways if way.role == "policy")
    others = [way for way in placed if way.role == "baseline"]
    said = f"RL-Focal scores {percent(policy.score.mean)} at {_at(policy, unit)}."
    if others:
        best = max(others, key=lambda way: way.score.mean)
        said += f" The best baseline, {name_of(best.name)}, scores {percent(best.score.mean)} at {_at(best, unit)}"
        if best.difference is not None and not sign_of(best.difference):
            said += ", and is not told apart from it"
        said += "."
    oracle = next((way for way in placed if way.role == "bound"), None)
    if oracle is not None:
        said += f" The Oracle, which picks the best answer of any member in hindsight, would score {percent(oracle.score.mean)}."
    if curves is not None and curves.rivals:
        ahead = [name for name, each in curves.differences.items() if sign_of(each) < 0]
        behind = [name for name, each in curves.differences.items() if sign_of(each) > 0]
        parts = []
        if behind:
            parts.append(f"above {_listed(behind)}")
        if ahead:
            parts.append(f"below {_listed(ahead)}")
        level = [name for name in curves.rivals if name not in ahead and name not in behind]
        if level:
            parts.append(f"not told apart from {_listed(level)}")
        said += f" Averaged over spending from {_low(curves, unit)}, its curve is {', '.join(parts)}."
    return said


def _at(way: Way, unit: SpendingUnit) -> str:
    value = way.spending[unit]
    if value is None:
        return "unknown spending"
    return f"{amount(value, unit)} {'for 1,000 questions' if unit == 'usd' else f'{unit} a question'}"


def _low(curves: Curves, unit: SpendingUnit) -> str:
    what = "for 1,000 questions" if unit == "usd" else f"{unit} a question"
    return f"{amount(curves.low, unit)} to {amount(curves.high, unit)} {what}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(name_of(name).removeprefix("rival: ").join(("the ", "")) for name in names)


def of_asking(asking: Asking) -> str:
    """Say who is asked most, and how many."""
    total = sum(count for _, count in asking.tasks)
    ever = [
        sum(row[m] * count for row, (_, count) in zip(asking.ever, asking.tasks, strict=True)) / total
        for m in range(len(asking.members))
    ]
    most = ", ".join(f"{name} on {share:.0%}" for name, share in list(zip(asking.members, ever, strict=True))[:3])
    one = asking.team_sizes[0]
    said = f"Most asked: {most} of the questions. One member is enough for {one:.0%}"
    if len(asking.rounds) > 1:
        said += f"; {1 - asking.rounds[0]:.0%} take another round"
    said += "."
    if asking.never:
        said += f" Never asked: {', '.join(asking.never)}."
    return said


def of_calibration(calibration: Calibration) -> str:
    """Say how far confidence is off, and on which side."""
    gap = sum(each.share * (each.confidence - each.score.mean) for each in calibration.bins)
    side = "more" if gap > 0 else "less"
    said = f"On average confidence promises {abs(100 * gap):.1f} points {side} than the answers are worth"
    if calibration.error - abs(gap) < 0.0005:
        return f"{said}, on the same side at every level (expected calibration error {calibration.error:.3f})."
    return f"{said}; level by level it is {100 * calibration.error:.1f} points off (expected calibration error)."


def of_teams(teams: Teams, *, size: int) -> str:
    """Say how diversity and accuracy go together in teams of one size, and which team is best."""
    together = [team for team in teams.shown if len(team.members) > 1]
    alone = max((team for team in teams.shown if len(team.members) == 1), key=lambda team: team.accuracy)
    said = f"The most accurate member alone is {alone.members[0]}, with {percent(alone.accuracy)}."
    if not together:
        return said
    best = max(together, key=lambda team: team.accuracy)
    said = (
        f"Of {teams.total:,} teams the most accurate by plurality vote of several is {', '.join(best.members)}, with "
        f"{percent(best.accuracy)} and a focal diversity of {best.focal:.2f}. {said}"
    )
    size = min(max(size, 2), max(teams.correlation, default=2))
    correlation = teams.correlation.get(size)
    if correlation is not None:
        said += f" Among teams of {size}, diversity and accuracy correlate with {correlation:.2f}."
    return said


def of_training(training: Training, name: str) -> str:
    """Say where one metric began and ended."""
    values = [value for value in training.metrics[name] if value is not None]
    return f"{METRICS.get(name, name).partition(': ')[0]}, from {values[0]:.3g} to {values[-1]:.3g} over {training.total:,} steps."
