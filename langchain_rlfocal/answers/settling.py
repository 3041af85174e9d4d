"""Settling: when answers that are still to come can no longer change the labels of those that are here.

Labels depend on all texts at once: the kind of answer is detected from them together, close numbers and similar long
texts are grouped around leaders. A member's call may be cancelled only if no text that it could have brought changes
any of that, so this refuses to guess: what cannot be proved for every text is not final.
"""

from collections.abc import Sequence

from langchain_rlfocal.answers import AnswerKind, _canonical, _detect, _known
from langchain_rlfocal.answers.reading import read_query
from langchain_rlfocal.answers.values import is_round

_EXTREMES = ("7", "word " * 1000)
"""The plainest text that holds a number, and one that holds none and is longer than any limit can balance.

A kind that withstands as many of each as may come withstands every mixture: no other texts give numbers a larger or a
smaller share, or the median a greater length, and beside texts that are all JSON neither is.
"""


def labels_are_final(texts: Sequence[str | None], kind: AnswerKind = "auto", *, query: str = "", running: int) -> bool:
    """Tell whether the labels of these texts stay as they are, whatever texts join them.

    Options, short texts, JSON and tool calls are reduced one by one, so that they are final once the kind is; the query
    may name it, or so many texts be of it that those to come cannot outvote them. So are whole numbers and those of at
    most five digits, which lead whatever is close to them. Others may find a rounder leader, and a long text a more
    typical one: they are never final.

    Args:
        texts: What each member wrote that has answered.
        kind: The kind of answer.
        query: What was asked.
        running: How many texts may still come, not negative.

    Returns:
        True only if `label_answers` gives these texts the same labels with any `running` or fewer texts added, None and
        blank ones included.

    Raises:
        InputError: `kind` is none of `AnswerKind`.
    """
    ask = read_query(query)
    found = _known(kind, ask, texts)
    if running == 0 or not any(text and text.strip() for text in texts):  # a blank text has no label in any kind
        return True
    if kind == "auto" and any(_detect(ask, [*texts, *[extreme] * running]) != found for extreme in _EXTREMES):
        return False
    if found == "number":
        return all(answer is None or is_round(answer) for answer in (_canonical(text, found, ask) for text in texts))
    return found != "long_text"
