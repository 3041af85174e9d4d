"""Answers: what counts as the same answer. See `compare_answers`, and `kinds` for kinds of your own."""

from langchain_rlfocal.answers.comparison import (
    Comparison,
    can_coincide,
    canonical,
    compare_answers,
    label_answers,
    loads_first,
    score_answer,
    takes_long,
)
from langchain_rlfocal.answers.kinds import Kind, KindLike, KindName, kind_names, register_kind, to_kind
from langchain_rlfocal.answers.values import MAX_CHARS, canonical_tool_calls

__all__ = [
    "MAX_CHARS",
    "Comparison",
    "Kind",
    "KindLike",
    "KindName",
    "can_coincide",
    "canonical",
    "canonical_tool_calls",
    "compare_answers",
    "kind_names",
    "label_answers",
    "loads_first",
    "register_kind",
    "score_answer",
    "takes_long",
    "to_kind",
]
