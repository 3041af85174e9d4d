r"""Answers: what counts as the same answer among the candidates of an ensemble.

Two texts say the same if they reduce to the same canonical answer. How a text is reduced depends on the kind of answer,
which the caller names per task or leaves to `detect_kind` ("auto"):

| kind | canonical answer | where it is found | the same |
|---|---|---|---|
| `option` | capital letter | after the last mark, at the start, `(B)`, the option's own text | equal letters |
| `number` | plain decimal | after the last mark, a first line that is a number, the last number | whole numbers exactly, others within 1e-6 |
| `json` | keys sorted, no white space, 1 for 1.0 | the whole text, a code fence, from the first bracket | equal values |
| `tool_calls` | sorted `[name,{arguments}]` | as JSON | equal multisets of calls |
| `short_text` | words, yes or no, one of the choices | after the last mark, else the first sentence | equal words |
| `long_text` | the whole text, folded | everything | similarity of at least `SIMILAR` |

- Marks are "answer is", "answer:", "correct option is", `\boxed{...}`, "####" and a JSON key `"answer"`; the last one
  that holds something wins.
- What comes before `</think>` and after an invented next question ("Question: ...") is cut first, in every kind but JSON.
- Everywhere but in JSON: case, accents, width, kinds of quotes and dashes, and white space do not matter.
- Numbers: thousands separators, currencies, percent signs and units are dropped (50% = 50 = 50 km); 1/2, 3 1/2,
  `\frac{1}{2}`, ½, 1e3, 3 × 10^2, 3 million, two hundred and five, 3,14 and 1.234,56 are read. Where the query offers
  numbers to choose among ("12 or 7?"), the first of them that is said wins.
- Short text: punctuation, articles, explanations ("..., because ...") and what repeats the query are dropped; number
  words equal their digits. To a yes/no question a text answers yes or no; true and false stay themselves. Where the
  query offers choices ("positive or negative?"), the first of them that is said wins.
- Automatic: options in the query → `option`; a yes/no question → `short_text`; every text is a JSON object or array →
  `json`; the query asks for a number and two texts in three hold one → `number`; half the texts are short, as
  measured by what the query asks → `short_text`; else `long_text`. Tool calls come in messages: the caller names them.

Refuses to judge: whether an answer is right is `score_answer`'s comparison with a given gold answer, nothing more. And
refuses to raise: whatever the text, the answer is a string or None. Of a text longer than `MAX_CHARS` the first and the
last half of so many characters are read (JSON of that length is not read at all); every step is linear in the text.
"""

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal, get_args

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.reading import (
    Ask,
    final_part,
    first_sentence,
    marked,
    read_number,
    read_option,
    read_query,
    read_short,
    whole_number,
)
from langchain_rlfocal.answers.values import MAX_CHARS, canonical_tool_calls
from langchain_rlfocal.errors import InputError

__all__ = [
    "MAX_CHARS",
    "SIMILAR",
    "AnswerKind",
    "canonical",
    "canonical_tool_calls",
    "detect_kind",
    "label_answers",
    "score_answer",
    "similarity",
]

AnswerKind = Literal["auto", "option", "number", "json", "tool_calls", "short_text", "long_text"]

SIMILAR = 0.6
"""Similarity from which two long texts say the same."""

_MOST = 2 / 3


def detect_kind(query: str, texts: Sequence[str | None]) -> AnswerKind:
    """Choose the kind of answer, by the query first and the texts second.

    Args:
        query: The query; may be empty.
        texts: The candidates' texts; empty ones and None do not count.

    Returns:
        Any kind but `"auto"` and `"tool_calls"`.
    """
    return _detect(read_query(query), texts)


def canonical(text: str | None, kind: AnswerKind = "auto", *, query: str = "") -> str | None:
    """Reduce a text to its canonical answer; reducing that again changes nothing.

    Args:
        text: What a model wrote.
        kind: The kind of answer.
        query: What was asked; options and yes/no questions are read from it.

    Returns:
        The answer, or None if none can be extracted.

    Raises:
        InputError: `kind` is none of `AnswerKind`.
    """
    ask = read_query(query)
    return _canonical(text, _known(kind, ask, [text]), ask)


def label_answers(texts: Sequence[str | None], kind: AnswerKind = "auto", *, query: str = "") -> list[str | None]:
    """Give texts that say the same the same label.

    Close numbers and similar long texts are grouped around leaders, which are chosen by their content alone: another
    order of the texts gives the same labels in that order. The label is the leader's canonical answer.

    Args:
        texts: What each member wrote.
        kind: The kind of answer.
        query: What was asked.

    Returns:
        One label per text; None where no answer can be extracted.

    Raises:
        InputError: `kind` is none of `AnswerKind`.
    """
    ask = read_query(query)
    kind = _known(kind, ask, texts)
    answers = [_canonical(text, kind, ask) for text in texts]
    leaders = _leaders({answer for answer in answers if answer is not None}, kind)
    return [None if answer is None else leaders[answer] for answer in answers]


def similarity(a: str, b: str) -> float:
    """Compare two texts by their words and parts of words; word order and negation do not count.

    The cosine of both texts' weights: every word but the most frequent ones weighs 1 + ln(count), every three-letter
    piece of a word half of that.

    Returns:
        Likeness in [0, 1], symmetric; 1 for texts that fold to the same.
    """
    return values.cosine(values.likeness_vector(a), values.likeness_vector(b))


def score_answer(answer: str | None, gold: str, kind: AnswerKind = "auto", *, query: str = "") -> float:
    """Score an answer by its equality with the gold answer.

    Automatically, a gold answer that is nothing but a number makes it a comparison of numbers, unless the query lists options.

    Args:
        answer: A text or a canonical answer.
        gold: The right answer.
        kind: The kind of answer.
        query: What was asked.

    Returns:
        1.0 if both reduce to the same answer; 0.0 if not, or if either holds no answer.

    Raises:
        InputError: `kind` is none of `AnswerKind`.
    """
    ask = read_query(query)
    found = _known(kind, ask, [gold])
    if kind == "auto" and found == "short_text" and whole_number(values.fold(gold)) is not None:
        found = "number"
    given, wanted = _canonical(answer, found, ask), _canonical(gold, found, ask)
    if given is None or wanted is None:
        return 0.0
    return float(_same(given, wanted, found))


def _known(kind: AnswerKind, ask: Ask, texts: Sequence[str | None]) -> AnswerKind:
    if kind not in get_args(AnswerKind):
        raise InputError(
            f"`kind` must be one of {', '.join(get_args(AnswerKind))}, got {kind!r}. Name one, or leave it out."
        )
    return _detect(ask, texts) if kind == "auto" else kind


def _detect(ask: Ask, texts: Sequence[str | None]) -> AnswerKind:
    if ask.options:
        return "option"
    if ask.yes_no:
        return "short_text"
    said = [text for text in texts if text and text.strip()]
    if said and all(_is_json_answer(text) for text in said):
        return "json"
    folded = [values.fold(text) for text in said]
    if ask.number or ask.digits:
        holders = sum(_holds_number(text, ask) for text in folded)
        if holders >= _MOST * len(said) and (said or ask.number):
            return "number"
    limit = 12 if ask.prose else 60 if ask.fact else 30
    return "short_text" if median(map(_length, folded or [""])) <= limit else "long_text"


def _is_json_answer(text: str) -> bool:
    """Whether a text is a JSON object or array; an object with the key "answer" is only the wrapping of one."""
    value = values.parse_json(text)
    return isinstance(value, list) or (isinstance(value, dict) and "answer" not in value)


def _holds_number(folded: str, ask: Ask) -> bool:
    """Whether a text answers with a number: any, if the wording asks for one, else one with at most two words beside."""
    if ask.number:
        return read_number(folded, ask) is not None
    short = read_short(folded, ask) or ""
    found = values.numbers(short)
    return len(found) == 1 and len(short.replace(found[0][0], "", 1).split()) <= 2


def _length(folded: str) -> int:
    """Count the words that answer: after the last mark, or all."""
    final = final_part(folded)
    parts = marked(final)
    return len((first_sentence(parts[0]) if parts else final).split())


def _canonical(text: str | None, kind: AnswerKind, ask: Ask) -> str | None:
    if not text or not text.strip():
        return None
    if kind == "option":
        return read_option(values.clean(text), ask)
    if kind == "json":
        value = values.find_json(text)
        written = None if value is None else values.dump_json(value)
        return written if written and len(written) <= MAX_CHARS else None
    if kind == "tool_calls":
        return values.read_tool_calls(text)
    folded = values.fold(text)
    if kind == "number":
        number = read_number(folded, ask)
        return None if number is None else values.number_text(number)
    if kind == "short_text":
        return read_short(folded, ask)
    return " ".join(final_part(folded).split())[:MAX_CHARS].rstrip() or None


def _leaders(answers: set[str], kind: AnswerKind) -> dict[str, str]:
    """Name each answer's leader: the first it equals, numbers from the roundest, texts from the most typical."""
    order = sorted(answers)
    if kind == "number":
        order.sort(key=values.roundness)
    elif kind == "long_text":
        vectors = {answer: values.likeness_vector(answer) for answer in answers}
        typical = {a: math.fsum(values.cosine(vectors[a], vectors[b]) for b in answers) for a in answers}
        order.sort(key=lambda answer: -typical[answer])
    leaders: dict[str, str] = {}
    for answer in order:
        leaders[answer] = next((led for led in dict.fromkeys(leaders.values()) if _same(led, answer, kind)), answer)
    return leaders


def _same(a: str, b: str, kind: AnswerKind) -> bool:
    if kind == "number":
        return values.same_number(a, b)
    return similarity(a, b) >= SIMILAR if kind == "long_text" else a == b
