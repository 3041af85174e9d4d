"""From a scorer's name to the scorer."""

from collections.abc import Callable

from langchain_core.language_models import BaseChatModel

from langchain_rlfocal.answers import kind_names
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.scoring.base import GroupScorer, Guarded, GuardedGroup, Scorer
from langchain_rlfocal.scoring.functions import open_function
from langchain_rlfocal.scoring.judges import JudgeScorer, PairwiseScorer, judge_of
from langchain_rlfocal.scoring.rules import (
    AnswerScorer,
    ContainsScorer,
    JsonSubsetScorer,
    RegexScorer,
    ToolCallScorer,
)
from langchain_rlfocal.scoring.unit_tests import UnitTestScorer

_MADE: dict[str, Callable[[], Scorer]] = {
    "json_subset": JsonSubsetScorer,
    "tool_calls": ToolCallScorer,
    "tool_calls_in_order": lambda: ToolCallScorer(in_order=True),
    "contains": ContainsScorer,
    "regex": RegexScorer,
    "unit_tests": UnitTestScorer,
}
_JUDGES: dict[str, Callable[..., Scorer]] = {"judge": JudgeScorer, "pairwise": PairwiseScorer}


def scorer_names() -> tuple[str, ...]:
    """List the names that `open_scorer` knows."""
    own = ("auto", *_MADE, *_JUDGES)
    return (*own, *(name for name in kind_names() if name not in own))


def open_scorer(
    spec: str | None, *, judge: PoolMember | BaseChatModel | None = None, rubric: str | None = None
) -> Scorer:
    """Return the scorer of that name; it never raises, but for cancellation.

    Args:
        spec: A name of `scorer_names`, or `package.module:attribute`: a function, a `Scorer`, or an evaluator of LangSmith or
            openevals. None or `"auto"`: whether the answer equals the reference, by the question's kind.
        judge: The chat model that judges, for those that need one; a `PoolMember` has prices.
        rubric: By what it judges; default: `judges.RUBRIC`.

    Raises:
        InputError: There is no such scorer, or it needs a judge.
    """
    if spec is None or spec == "auto":
        return Guarded(AnswerScorer(), is_free=True)
    if spec in _MADE:
        return Guarded(_MADE[spec](), is_free=True)
    if spec in _JUDGES:
        made: Scorer = _JUDGES[spec](judge_of(judge, spec), rubric=rubric)
    elif spec in kind_names():
        return Guarded(AnswerScorer(spec), is_free=True)
    elif ":" in spec:
        made = open_function(spec)
    else:
        raise InputError(
            f"A scorer must be one of {', '.join(scorer_names())}, or package.module:function, got {spec!r:.80}. Correct the name."
        )
    return GuardedGroup(made) if isinstance(made, GroupScorer) else Guarded(made)
