"""Scoring: what a reply is worth, by rules, tests, a judge, or a function of the user's.

    base      what a scorer is given and what it says
    opening   from a name to a scorer
    rules     kinds of answers, JSON, tool calls, texts, regular expressions

Unscored is not wrong: where a scorer cannot say, the value is None, with the reason.
"""

from langchain_rlfocal.scoring.base import GroupScorer, Reply, Score, Scorer
from langchain_rlfocal.scoring.opening import open_scorer, scorer_names

__all__ = ["GroupScorer", "Reply", "Score", "Scorer", "open_scorer", "scorer_names"]
