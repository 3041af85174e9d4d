"""Scorers that follow rules: the kinds of answers, parts of JSON, tool calls, texts that must be there, regular expressions."""

import asyncio
import json
import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from langchain_rlfocal.answers import KindLike, loads_first, score_answer, takes_long, to_kind
from langchain_rlfocal.answers.values import json_in, read_tool_calls
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.scoring.base import NO_REFERENCE, Reply, Score, unscored

REGEX_S = 1.0
"""How long a regular expression may search one reply; then the reply is unscored."""

CLOSE = 1e-9
"""How far apart numbers of which one has a fraction may be, relative to the larger, and still be the same."""

_RIGHT, _WRONG = Score(value=1.0), Score(value=0.0)
_THOUGHT = regex.compile(r"\A.*</think(?:ing)?>", regex.DOTALL | regex.IGNORECASE)
_AROUND_CALLS = regex.compile(r"^[ \t]*(?:`{3,}|~{3,})[^\n`]{0,40}$|</?tool_calls?>", regex.MULTILINE)
_BETWEEN = regex.compile(r"[\s,]*")
_LETTER = r"[[\p{L}\p{N}]--[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]]"
"""What words are made of, where writing sets words apart and adds nothing to them."""

_MARK = r"[\p{M}--[\ufe00-\ufe0f\u20e3]]"
"""A vowel's sign or an accent, but not what makes a character an emoji."""


class AnswerScorer:
    """Whether a reply gives the same answer as the reference, by the question's kind or by one for all; see `score_answer`."""

    def __init__(self, kind: KindLike | None = None) -> None:
        self.name = "answer" if kind is None else to_kind(kind).name
        self._kind = kind

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        if question.gold is None:
            return unscored(NO_REFERENCE)
        text = reply.text
        if reply.tool_calls and not (text or "").strip():
            text = json.dumps([dict(call) for call in reply.tool_calls], default=str)
        kind = question.kind if self._kind is None else self._kind
        texts = [question.query, question.gold, text or ""]
        if takes_long(texts) or loads_first(texts):  # which would hold up the event loop
            value = await asyncio.to_thread(score_answer, text, question.gold, kind, query=question.query)
        else:
            value = score_answer(text, question.gold, kind, query=question.query)
        return _RIGHT if value else _WRONG


class JsonSubsetScorer:
    """Whether the reply's JSON holds every field of the reference with an equal value; it may hold more.

    Objects are compared by the reference's fields, lists item by item and in their length. 1 equals 1.0, and a sum such as
    0.1 + 0.2 equals 0.3 (see `CLOSE`); whole numbers are exact. Texts are equal as they are, however their accents are encoded.
    """

    name = "json_subset"

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        if question.gold is None:
            return unscored(NO_REFERENCE)
        try:
            wanted = json.loads(question.gold)
        except (ValueError, RecursionError):
            return unscored(f"the reference must be JSON, got {question.gold!r:.80}")
        found = json_in(reply.text or "")
        if not found and len(reply.tool_calls) == 1:  # structured output, as some providers give it
            found = [_arguments_of(reply.tool_calls[0])]
        if not found:
            return Score(value=0.0, reason="the reply holds no JSON")
        fault = _fault(wanted, found[0], "$")
        return _RIGHT if fault is None else Score(value=0.0, reason=fault[:200])


def _fault(wanted: Any, found: Any, path: str) -> str | None:
    """Name the first place where something wanted is not found."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return f"{path} must be an object"
        found = {_composed(name): value for name, value in found.items()}
        missing = next((name for name in wanted if _composed(name) not in found), None)
        if missing is not None:
            return f"{path}.{missing} is missing"
        faults = (_fault(value, found[_composed(name)], f"{path}.{name}") for name, value in wanted.items())
        return next((fault for fault in faults if fault), None)
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"{path} must be a list of {len(wanted)}"
        faults = (
            _fault(one, other, f"{path}[{at}]") for at, (one, other) in enumerate(zip(wanted, found, strict=True))
        )
        return next((fault for fault in faults if fault), None)
    return None if _is_same(wanted, found) else f"{path} must be {json.dumps(wanted, ensure_ascii=False):.60}"


def _is_same(wanted: Any, found: Any) -> bool:
    """Compare two values of JSON that hold no others."""
    if isinstance(wanted, bool) or isinstance(found, bool):
        return wanted is found
    if isinstance(wanted, str) and isinstance(found, str):
        return _composed(wanted) == _composed(found)
    if float in (type(wanted), type(found)) and isinstance(wanted, int | float) and isinstance(found, int | float):
        try:
            return math.isclose(wanted, found, rel_tol=CLOSE)
        except OverflowError:  # a whole number that no float reaches
            return False
    return bool(wanted == found)


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


class ToolCallScorer:
    """Whether a reply makes the calls of the reference, all of them and no other: names and arguments.

    Calls that a reply writes as JSON count where it says nothing else: in a fence, and after thinking, but not within prose.

    Args:
        in_order: Whether their order counts, too.
    """

    def __init__(self, *, in_order: bool = False) -> None:
        self.name = "tool_calls_in_order" if in_order else "tool_calls"
        self._in_order = in_order

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        if question.gold is None:
            return unscored(NO_REFERENCE)
        wanted = _canonical_calls(json_in(question.gold)[:1])
        if wanted is None:
            return unscored(f"the reference must be a JSON list of tool calls, got {question.gold!r:.80}")
        made = [[dict(call) for call in reply.tool_calls]] if reply.tool_calls else _written_calls(reply.text or "")
        found = _canonical_calls(made) or []  # prose makes no call
        if not self._in_order:
            wanted, found = sorted(wanted), sorted(found)
        if wanted == found:
            return _RIGHT
        return Score(
            value=0.0, reason=f"called {', '.join(found) or 'nothing'}; wanted {', '.join(wanted) or 'nothing'}"[:200]
        )


def _canonical_calls(values: Sequence[Any]) -> list[str] | None:
    """Write tool calls, or lists of them, so that equal calls are equal texts; None where there are none to read."""
    calls: list[Any] = []
    for value in values:
        calls += value if isinstance(value, list) and not (value and isinstance(value[0], str)) else [value]
    read = [read_tool_calls(json.dumps(call, default=str)) for call in calls]
    return [call for call in read if call] if values and all(read) else None


def _written_calls(text: str) -> list[Any]:
    """Read a text that is JSON and nothing else, but for fences, marks of calls, and what was thought before it."""
    text = _AROUND_CALLS.sub(" ", _THOUGHT.sub("", text)).strip()
    decoder, values, at = json.JSONDecoder(strict=False), [], 0
    try:
        while at < len(text):
            value, at = decoder.raw_decode(text, at)
            values.append(value)
            at = _BETWEEN.match(text, at).end()
    except (ValueError, RecursionError):
        return []
    return values


def _arguments_of(call: Mapping[str, Any]) -> Any:
    args = call.get("args", call.get("arguments"))
    return json.loads(args) if isinstance(args, str) else args


class ContainsScorer:
    """Whether the reference stands in the reply, as whole words; every text of it, where it is a JSON list.

    Case, spacing, and how accents are encoded do not count. `1` stands neither in `21` nor in `1.5`, `no` not in `know`; in
    writing that sets no spaces between words, or adds endings to them without (Chinese, Japanese, Korean, Thai, Lao, Khmer,
    Burmese), a text may stand anywhere.
    """

    name = "contains"

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        if not (question.gold or "").strip():
            return unscored(NO_REFERENCE)
        wanted = _texts_of(str(question.gold))
        if not wanted:
            return unscored(f"the reference must be a text, or a list of texts and numbers, got {question.gold!r:.80}")
        said = _folded(reply.text or "")
        missing = next((text for text in wanted if not _stands_in(_folded(text), said)), None)
        return _RIGHT if missing is None else Score(value=0.0, reason=f"lacks {missing!r:.80}")


def _texts_of(gold: str) -> Sequence[str]:
    """Read a reference that is a text, or a JSON list of texts and numbers; nothing where it is a list of something else."""
    try:
        value = json.loads(gold, parse_int=str, parse_float=str)  # numbers as they are written
    except (ValueError, RecursionError):
        return [gold]
    if not isinstance(value, list):
        return [gold]
    return value if all(isinstance(item, str) and item.strip() for item in value) else []


def _stands_in(text: str, said: str) -> bool:
    before = (
        rf"(?<!{_LETTER}\p{{M}}{{0,9}})(?<!\p{{N}}[.,])"
        if regex.match(r"\p{N}", text)
        else rf"(?<!{_LETTER}\p{{M}}{{0,9}})"
    )
    after = rf"(?!{_LETTER}|{_MARK}|[.,]\p{{N}})" if regex.search(r"\p{N}\Z", text) else rf"(?!{_LETTER}|{_MARK})"
    first = before if regex.match(_LETTER, text, regex.V1) else ""
    last = after if regex.search(rf"{_LETTER}\p{{M}}{{0,9}}\Z", text, regex.V1) else ""
    return regex.search(first + regex.escape(text) + last, said, regex.V1) is not None


def _folded(text: str) -> str:
    return _composed(" ".join(_composed(text).split()).casefold())


class RegexScorer:
    """Whether the reference, a regular expression, is found in the reply, within `REGEX_S` seconds.

    The syntax is Python's; flags stand in the expression, such as `(?i)`.
    """

    name = "regex"

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        if not question.gold:
            return unscored(NO_REFERENCE)
        try:
            is_found = await asyncio.to_thread(_is_found, question.gold, reply.text or "")
        except regex.error as error:
            return unscored(f"the reference is no regular expression: {error}")
        except TimeoutError:
            return unscored(f"the regular expression took more than {REGEX_S:g} s on this reply")
        return _RIGHT if is_found else _WRONG


def _is_found(pattern: str, text: str) -> bool:
    # `re` has no time limit, and one catastrophic expression would hold up everything.
    return regex.search(pattern, text, timeout=REGEX_S, concurrent=True) is not None
