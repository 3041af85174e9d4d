"""Teams: what `rlfocal diversity` and the report say of members, their pairs and all their teams, as plain values."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from langchain_rlfocal.diversity import (
    TeamDiversities,
    all_teams,
    fleiss_kappa,
    largest_team_size,
    pairwise_focal_diversity,
    team_diversities,
)
from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes import OutcomeGrid

RIGHT = 0.5
"""Least score of a right answer."""

MAX_TEAMS = 2**14
"""Teams that are measured at most: all of a pool of 14 members."""

MEASURES = {
    "accuracy": ("mean accuracy of the members", ""),
    "plurality_accuracy": ("plurality accuracy", ""),
    "focal": ("focal diversity", "diversity"),
    "adjusted": ("focal diversity, accuracy-adjusted", "diversity"),
    "generalized": ("generalised diversity", "diversity"),
    "disagreement": ("disagreement, mean of pairs", "diversity"),
    "entropy": ("entropy E", "diversity"),
    "kappa": ("kappa, mean of pairs", "agreement"),
    "fleiss_kappa": ("Fleiss' kappa of right and wrong", "agreement"),
    "fleiss_kappa_of_answers": ("Fleiss' kappa of answers", "agreement"),
    "yule_q": ("Yule's Q, mean of pairs", "agreement"),
    "phi": ("phi, mean of pairs", "agreement"),
    "double_fault": ("double fault, mean of pairs", "agreement"),
}
"""What each measure is called, and what it grows with."""

CHOSEN_BY = {"focal": "focal", "adjusted": "adjusted", "plurality_accuracy": "plurality"}
"""What the best teams are chosen by, and what it is called."""


def diversity_facts(grid: OutcomeGrid) -> dict[str, Any]:
    """Measure the members of a grid, their pairs and their teams, on the very outcomes that teams are chosen from.

    Members are ranked by accuracy, so that a tie in a vote goes to the best of the tied, as in the baseline `plurality`.

    Every figure stands on the same queries, those on which all members were scored. Where no answer has a label that others could
    share, as in rewards without answers, there is no vote and no agreement to measure: those two are None.

    Returns:
        Plain values for JSON: `queries`, `dropped`, `unscored` (queries left out for want of a score), `right_from`, `labelled` (answers
        with a label), `members` (best first, each with its accuracy), `pool` (each measure with its value, None where it is not
        defined, and what it grows with, None where that is neither), `pairs` (the focal diversity of
        two members, rows and columns as `members`), `max_team_size`, `teams` (all up to that size), and `best_teams` (of
        each size, with `best_by`, the measures by which they are).

    Raises:
        OutcomeError: There is no such query.
    """
    is_scored = ~np.isnan(grid.scores).any(axis=1)
    if not is_scored.any():
        counts = zip(grid.members, (~np.isnan(grid.scores)).sum(axis=0).tolist(), strict=True)
        rule = (
            f"at least one query must be scored for all {len(grid.members)} members, got none of {len(grid)}. "
            f"Leave out a member; scored are: {', '.join(f'{name} {count}' for name, count in counts)}."
        )
        raise OutcomeError(rule, column="reward")
    dropped, grid = grid.dropped, grid.take(is_scored)
    accuracies = (grid.scores >= RIGHT).mean(axis=0)
    ranked = np.argsort(-accuracies, kind="stable")
    names = [grid.members[member] for member in ranked]
    correct, label_ids = grid.scores[:, ranked] >= RIGHT, grid.label_ids[:, ranked]
    labelled = int((label_ids >= 0).sum())
    answer_ids = label_ids if labelled else None
    max_size = largest_team_size(len(names), max_teams=MAX_TEAMS)
    measured = team_diversities(correct, teams=all_teams(len(names), max_size=max_size), answer_ids=answer_ids)
    whole = team_diversities(correct, teams=np.ones((1, len(names)), dtype=bool), answer_ids=answer_ids)
    # Answers are numbered by their text, alike in all queries: options A to J are categories that queries share, silence is one,
    # and a text without a label is one of its own.
    codes: dict[str | int | None, int] = {}
    own = np.where(
        (grid.answer_ids >= 0) & (grid.label_ids < 0), np.arange(grid.scores.size).reshape(grid.scores.shape), -1
    )
    named = np.where(own >= 0, own.astype(object), grid.answers)
    shared = np.array([[codes.setdefault(answer, len(codes)) for answer in row] for row in named], dtype=np.intp)
    pool = _team(whole, 0, names) | {"fleiss_kappa_of_answers": fleiss_kappa(shared) if labelled else None}
    return {
        "queries": len(grid),
        "dropped": dropped,
        "unscored": int((~is_scored).sum()),
        "right_from": RIGHT,
        "labelled": labelled,
        "members": [{"name": name, "accuracy": float(accuracies[m])} for name, m in zip(names, ranked, strict=True)],
        "pool": {
            name: {"value": pool[name], "grows_with": grows_with or None} for name, (_, grows_with) in MEASURES.items()
        },
        "pairs": pairwise_focal_diversity(correct).tolist(),
        "max_team_size": max_size,
        "best_teams": [{"best_by": by, **_team(measured, index, names)} for index, by in _best(measured).items()],
        "teams": [_team(measured, index, names) for index in range(len(measured.teams))],
    }


def _team(measured: TeamDiversities, index: int, names: Sequence[str]) -> dict[str, Any]:
    members = [name for name, is_member in zip(names, measured.teams[index], strict=True) if is_member]
    arrays = {name: getattr(measured, name) for name in MEASURES if hasattr(measured, name)}
    return {"members": members} | {n: None if of is None else float(of[index]) for n, of in arrays.items()}


def _best(measured: TeamDiversities) -> dict[int, list[str]]:
    """Find the best teams of each size, with the measures by which they are; of equals, the first in the members' order.

    All teams of one have the same diversity, and only their accuracy tells them apart, which is that of their vote.
    """
    best: dict[int, list[str]] = {}
    votes = measured.plurality_accuracy
    for size in sorted(set(measured.sizes.tolist())):
        (index,) = (measured.sizes == size).nonzero()
        for name in CHOSEN_BY if votes is not None else ("accuracy", "focal", "adjusted"):
            if size > 1 or name in ("accuracy", "plurality_accuracy"):
                first = index[getattr(measured, name)[index].argmax()]
                best.setdefault(int(first), []).append(name)
    return best
