"""Settling: when answers that are still to come can no longer change the labels of those that are here."""

from collections.abc import Sequence

from langchain_rlfocal.answers.comparison import compare_answers
from langchain_rlfocal.answers.kinds import KindLike


def labels_are_final(texts: Sequence[str | None], kind: KindLike = "auto", *, query: str = "", running: int) -> bool:
    """Tell whether which of these texts are the same stays as it is, whatever texts join them; see `Comparison.is_final`.

    Args:
        texts: What each member wrote that has answered.
        kind: What counts as the same.
        query: What was asked.
        running: How many texts may still come, not negative.

    Raises:
        InputError: `kind` is no kind.
    """
    return running == 0 or compare_answers(texts, kind, query=query).is_final
