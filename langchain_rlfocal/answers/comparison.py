"""Comparison: which of several answers are the same.

Every text is read by itself, then compared with the others. The result is the same in any order of the texts. A kind of
a user's own may raise, or return nonsense: such answers differ, and a note says why.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.automatic import Found, is_open_text, may_mean_the_same
from langchain_rlfocal.answers.kinds import Kind, KindLike, to_kind
from langchain_rlfocal.answers.mathematics import looks_like_math, same_math
from langchain_rlfocal.answers.reading import read_query
from langchain_rlfocal.answers.texts import answering_part

logger = logging.getLogger(__name__)

_MAX_NOTE = 200


@dataclass(frozen=True)
class Comparison:
    """Which of several answers are the same.

    Attributes:
        labels: One for each text; equal labels mean the same answer. None where nothing could be read: such an answer
            agrees with no other.
        kinds: Name of the kind that read each text, None where nothing could be read.
        notes: Why something could not be compared, a line each.
        open_pairs: Indices (i < j) of texts with different labels of which the rules cannot tell whether they mean the
            same; one pair for each two labels.
        is_final: True if no other text can change which of these are the same.
    """

    labels: tuple[str | None, ...]
    kinds: tuple[str | None, ...] = ()
    notes: tuple[str, ...] = ()
    open_pairs: tuple[tuple[int, int], ...] = ()
    is_final: bool = field(default=True, compare=False)

    def merged(self, same: Collection[tuple[int, int]]) -> "Comparison":
        """Return the comparison with open pairs taken for the same.

        Labels become one where every two of them are: of "a is b" and "b is c" alone, only the first two by their
        labels' order become one.

        Args:
            same: Pairs of `open_pairs` that mean the same.
        """
        said = {frozenset((self.labels[i], self.labels[j])) for i, j in same}
        if not said:
            return self
        groups: list[list[str]] = []
        for label in sorted({label for label in self.labels if label is not None}):
            fitting = [group for group in groups if all(frozenset((label, other)) in said for other in group)]
            if fitting:
                fitting[0].append(label)
            else:
                groups.append([label])
        leader = {label: group[0] for group in groups for label in group}
        left = tuple((i, j) for i, j in self.open_pairs if leader[self.labels[i] or ""] != leader[self.labels[j] or ""])
        labels = tuple(None if label is None else leader[label] for label in self.labels)
        return replace(self, labels=labels, open_pairs=left, is_final=False)


def compare_answers(texts: Sequence[str | None], kind: KindLike = "auto", *, query: str = "") -> Comparison:
    """Compare answers.

    Args:
        texts: What each member wrote.
        kind: What counts as the same.
        query: What was asked.

    Raises:
        InputError: `kind` is no kind.
    """
    used = to_kind(kind)
    notes: dict[str, None] = {}
    reads: dict[str, tuple[Any, str] | None] = {}
    for text in texts:
        if text is not None and text not in reads:
            reads[text] = _read(used, text, query, notes)
    order = sorted((read[1], text) for text, read in reads.items() if read is not None)
    groups: list[list[str]] = []
    is_final = True
    equal: dict[str, tuple[str, list[str]]] = {}  # by label: the first text with it, and its group
    for label, text in order:
        read = reads[text]
        assert read is not None, "only what was read is ordered"
        if label in equal and _equal(read[0], reads[equal[label][0]][0]):  # type: ignore[index]
            equal[label][1].append(text)
            continue
        fitting = [
            group
            for group in groups
            if all(_same(used, read, reads[other], notes) for other in group)  # type: ignore[arg-type]
        ]
        if len(fitting) == 1:
            is_final = is_final and _equal(read[0], reads[fitting[0][0]][0])  # type: ignore[index]
            fitting[0].append(text)
        else:
            groups.append([text])
        equal.setdefault(label, (text, fitting[0] if len(fitting) == 1 else groups[-1]))
    labels = _labels_of(groups, reads)
    unread = [text for text in texts if text is not None and text.strip() and reads[text] is None]
    if unread and len(texts) > 1:
        notes[f"nothing comparable could be read as {used.name} in {len(unread)} of {len(texts)} answers"] = None
    first = {
        labels[text]: index for index, text in reversed(list(enumerate(texts))) if text is not None and text in labels
    }
    return Comparison(
        labels=tuple(None if text is None else labels.get(text) for text in texts),
        kinds=tuple(None if text is None or text not in labels else _kind_name(used, reads[text]) for text in texts),
        notes=tuple(notes),
        open_pairs=_open_pairs(used, groups, reads, labels, first),
        is_final=is_final,
    )


_LONG_CHARS = 4_000
_scripts: set[int] = set()  # of the texts compared so far; names of months and units are loaded script by script


def takes_long(texts: Sequence[str]) -> bool:
    """Tell whether comparing texts may take long: long texts, mathematics, code."""
    return any(len(text) > _LONG_CHARS or "```" in text or looks_like_math(text) for text in texts)


def loads_first(texts: Sequence[str]) -> bool:
    """Tell whether comparing texts may load a library first, since none of their scripts was compared yet."""
    scripts = {ord(char) >> 7 for text in texts for char in text[:_LONG_CHARS]}
    is_first = not scripts <= _scripts
    _scripts.update(scripts)
    return is_first


def can_coincide(query: str, texts: Sequence[str] = (), kind: KindLike = "auto") -> bool:
    """Tell whether answers to a query can come out the same by rules.

    Args:
        query: What is asked.
        texts: Answers so far.
        kind: What counts as the same.

    Returns:
        False where they cannot: the query asks for prose, or all answers so far are long texts or long code.
    """
    used = to_kind(kind)
    if used.name == "long_text":
        return False
    if used.name != "auto":
        return True
    ask = read_query(query)
    if not texts:
        closed = ask.options or ask.yes_no or ask.choices or ask.number
        return bool(closed) or not ask.prose
    said = [text for text in texts if text.strip()]
    reads = [_read(used, text, query, {}) if len(text) <= _LONG_CHARS else None for text in said]
    open_texts = [
        len(text) > _LONG_CHARS or (read is not None and is_open_text(read[0]))
        for text, read in zip(said, reads, strict=True)
    ]
    return not said or not all(open_texts)


def label_answers(texts: Sequence[str | None], kind: KindLike = "auto", *, query: str = "") -> list[str | None]:
    """Give texts that say the same the same label; see `compare_answers`.

    Returns:
        One label per text; None where no answer can be read.

    Raises:
        InputError: `kind` is no kind.
    """
    return list(compare_answers(texts, kind, query=query).labels)


def canonical(text: str | None, kind: KindLike = "auto", *, query: str = "") -> str | None:
    """Write the label of one text; None where no answer can be read.

    Raises:
        InputError: `kind` is no kind.
    """
    return compare_answers([text], kind, query=query).labels[0]


def score_answer(answer: str | None, gold: str, kind: KindLike = "auto", *, query: str = "") -> float:
    """Score an answer by its equality with the gold answer.

    Args:
        answer: A text, or a label.
        gold: The right answer.
        kind: What counts as the same.
        query: What was asked.

    Returns:
        1.0 if both are the same answer; 0.0 if not, or if either holds no answer.

    Raises:
        InputError: `kind` is no kind.
    """
    used = to_kind(kind)
    if not answer or not gold:
        return 0.0
    if used.name == "math" or (used.name == "auto" and _is_mathematics(answer, gold, query)):
        return float(same_math(gold, answer))
    notes: dict[str, None] = {}
    reads = [_read(used, text, query, notes) for text in (answer, gold)]
    return float(reads[0] is not None and reads[1] is not None and _same(used, reads[0], reads[1], notes))


def _is_mathematics(answer: str, gold: str, query: str) -> bool:
    ask = read_query(query)
    if ask.options or ask.yes_no or ask.choices or ask.literal or ask.code:
        return False
    parts = [answering_part(values.clean(text), ask, whole=True)[0] for text in (answer, gold)]
    return any(looks_like_math(part) for part in parts)


def _read(kind: Kind, text: str, query: str, notes: dict[str, None]) -> tuple[Any, str] | None:
    """Read a text and write its label; None where nothing can be read, or the kind raises or returns nonsense."""
    if not text.strip():
        return None
    try:
        value = kind.read(text, query)
        if value is None:
            return None
        label = kind.write(value)
    except Exception as error:  # noqa: BLE001  # a user's kind may raise anything; a text must never raise
        _note(notes, kind, error)
        return None
    if not isinstance(label, str) or not label:
        notes[f"kind {kind.name!r} wrote no label, but {type(label).__name__}"] = None
        return None
    return value, label.encode("utf-8", "replace").decode()


def _same(kind: Kind, a: tuple[Any, str], b: tuple[Any, str], notes: dict[str, None]) -> bool:
    if _equal(a[0], b[0]):
        return True
    try:
        verdict: Any = kind.same(a[0], b[0])
    except Exception as error:  # noqa: BLE001  # as above
        _note(notes, kind, error)
        return False
    if not isinstance(verdict, bool):
        notes[f"kind {kind.name!r} compared two answers to {type(verdict).__name__}, not to True or False"] = None
        return False
    return verdict


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # noqa: BLE001  # a value of a user's own
        return a is b


def _note(notes: dict[str, None], kind: Kind, error: Exception) -> None:
    logger.debug("kind %s raised", kind.name, exc_info=error)
    notes[f"kind {kind.name!r} raised {type(error).__name__}"[:_MAX_NOTE]] = None


def _labels_of(groups: list[list[str]], reads: dict[str, tuple[Any, str] | None]) -> dict[str, str]:
    """Name each group by its first value's label; groups whose labels coincide are numbered."""
    labels: dict[str, str] = {}
    taken: dict[str, int] = {}
    for group in groups:
        label = reads[group[0]][1]  # type: ignore[index]
        taken[label] = taken.get(label, 0) + 1
        labels |= dict.fromkeys(group, label if taken[label] == 1 else f"{label} ({taken[label]})")
    return labels


def _kind_name(kind: Kind, read: tuple[Any, str] | None) -> str:
    value = read[0] if read else None
    return value.kind.name if isinstance(value, Found) else kind.name


def _open_pairs(
    kind: Kind,
    groups: list[list[str]],
    reads: dict[str, tuple[Any, str] | None],
    labels: dict[str, str],
    first: dict[str, int],
) -> tuple[tuple[int, int], ...]:
    pairs = []
    for at, group in enumerate(groups):
        for other in groups[at + 1 :]:
            one, two = reads[group[0]], reads[other[0]]
            assert one is not None
            assert two is not None
            if _may_be_same(kind, one[0], two[0]):
                i, j = sorted((first[labels[group[0]]], first[labels[other[0]]]))
                pairs.append((i, j))
    return tuple(sorted(pairs))


def _may_be_same(kind: Kind, a: Any, b: Any) -> bool:
    if kind.name in {"short_text", "long_text", "code"} and not isinstance(a, Found):
        return may_mean_the_same(Found(kind, a, ""), Found(kind, b, ""))
    return may_mean_the_same(a, b)
