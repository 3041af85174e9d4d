"""From a scorer's name to the scorer."""

from collections.abc import Callable

from langchain_core.language_models import BaseChatModel

from langchain_rlfocal.answers import kind_names
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.scoring.base import Guarded, Scorer
from langchain_rlfocal.scoring.rules import (
    AnswerScorer,
    ContainsScorer,
    JsonSubsetScorer,
    RegexScorer,
    ToolCallScorer,
)

_MADE: dict[str, Callable[[], Scorer]] = {
    "json_subset": JsonSubsetScorer,
    "tool_calls": ToolCallScorer,
    "tool_calls_in_order": lambda: ToolCallScorer(in_order=True),
    "contains": ContainsScorer,
    "regex": RegexScorer,
}


def scorer_names() -> tuple[str, ...]:
    """List the names that `open_scorer` knows."""
    return ("auto", *_MADE, *(name for name in kind_names() if name not in {"auto", *_MADE}))


def open_scorer(spec: str | None, *, judge: PoolMember | BaseChatModel | None = None) -> Scorer:
    """Return the scorer of that name; it never raises, but for cancellation.

    Args:
        spec: A name of `scorer_names`. None or `"auto"`: whether the answer equals the reference, by the question's kind.
        judge: The chat model that judges.

    Raises:
        InputError: There is no such scorer.
    """
    if spec is None or spec == "auto":
        return Guarded(AnswerScorer())
    if spec in _MADE:
        return Guarded(_MADE[spec]())
    if spec in kind_names():
        return Guarded(AnswerScorer(spec))
    raise InputError(
        f"A scorer must be one of {', '.join(scorer_names())}, or package.module:function, got {spec!r:.80}."
    )
