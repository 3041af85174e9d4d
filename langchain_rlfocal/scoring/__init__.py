"""Scoring: what a reply is worth, by rules, tests, a judge, or a function of the user's.

    base        what a scorer is given and what it says
    opening     from a name to a scorer
    rules       kinds of answers, JSON, tool calls, texts, regular expressions
    unit_tests  code that is run with tests, in a process with limits
    judges      chat models that score by a rubric, or compare
    functions   functions and evaluators of the user's
    rescoring   scores of what is on record
    agreement   how well scores go with people's verdicts

Unscored is not wrong: where a scorer cannot say, the value is None, with the reason.
"""

from langchain_rlfocal.scoring.agreement import Agreement
from langchain_rlfocal.scoring.base import GroupScorer, PricedScorer, Reply, Score, Scorer
from langchain_rlfocal.scoring.judges import RUBRIC
from langchain_rlfocal.scoring.opening import open_scorer, scorer_names
from langchain_rlfocal.scoring.rescoring import Asked, Changes, arescore, base_id

__all__ = [
    "RUBRIC",
    "Agreement",
    "Asked",
    "Changes",
    "GroupScorer",
    "PricedScorer",
    "Reply",
    "Score",
    "Scorer",
    "arescore",
    "base_id",
    "open_scorer",
    "scorer_names",
]
