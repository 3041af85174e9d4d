"""Scorers that follow rules: the kinds of answers, parts of JSON, tool calls, texts that must be there, regular expressions."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import regex

from langchain_rlfocal.answers import KindLike, loads_first, score_answer, takes_long, to_kind
from langchain_rlfocal.answers.values import json_in, read_tool_calls
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.scoring.base import NO_REFERENCE, Reply, Score, unscored

REGEX_S = 1.0
"""How long a regular expression may search one reply; then the reply is unscored."""

_RIGHT, _WRONG = Score(value=1.0), Score(value=0.0)


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

    Objects are compared by the reference's fields, lists item by item and in their length. 1 equals 1.0; texts are equal as
    they are.
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
        missing = next((name for name in wanted if name not in found), None)
        if missing is not None:
            return f"{path}.{missing} is missing"
        faults = (_fault(value, found[name], f"{path}.{name}") for name, value in wanted.items())
        return next((fault for fault in faults if fault), None)
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"{path} must be a list of {len(wanted)}"
        faults = (
            _fault(one, other, f"{path}[{at}]") for at, (one, other) in enumerate(zip(wanted, found, strict=True))
        )
        return next((fault for fault in faults if fault), None)
    is_same = wanted == found and isinstance(wanted, bool) == isinstance(found, bool)
    return None if is_same else f"{path} must be {json.dumps(wanted, ensure_ascii=False):.60}"


class ToolCallScorer:
    """Whether a reply makes the calls of the reference, all of them and no other: names and arguments.

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
        wanted = _canonical_calls(question.gold)
        if wanted is None:
            return unscored(f"the reference must be a JSON list of tool calls, got {question.gold!r:.80}")
        made = (
            json.dumps([dict(call) for call in reply.tool_calls], default=str) if reply.tool_calls else reply.text or ""
        )
        found = _canonical_calls(made)
        if found is None:
            found = []  # prose makes no call
        if not self._in_order:
            wanted, found = sorted(wanted), sorted(found)
        if wanted == found:
            return _RIGHT
        return Score(
            value=0.0, reason=f"called {', '.join(found) or 'nothing'}; wanted {', '.join(wanted) or 'nothing'}"[:200]
        )


def _canonical_calls(text: str) -> list[str] | None:
    """Read tool calls, each as a text that is equal for equal calls; None where there are none to read."""
    found = json_in(text)
    if not found:
        return None
    calls = found[0] if isinstance(found[0], list) and not (found[0] and isinstance(found[0][0], str)) else [found[0]]
    read = [read_tool_calls(json.dumps(call, default=str)) for call in calls]
    return [call for call in read if call] if all(read) else None


def _arguments_of(call: Mapping[str, Any]) -> Any:
    args = call.get("args", call.get("arguments"))
    return json.loads(args) if isinstance(args, str) else args


class ContainsScorer:
    """Whether the reference stands in the reply; every text of it, where it is a JSON list. Case and spacing do not count."""

    name = "contains"

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        wanted = _texts_of(question.gold)
        if not wanted:
            return unscored(NO_REFERENCE)
        said = _folded(reply.text or "")
        missing = next((text for text in wanted if _folded(text) not in said), None)
        return _RIGHT if missing is None else Score(value=0.0, reason=f"lacks {missing!r:.80}")


def _texts_of(gold: str | None) -> Sequence[str]:
    """Read a reference that is a text, or a JSON list of texts."""
    if not (gold or "").strip():
        return []
    try:
        value = json.loads(str(gold))
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, list) and all(isinstance(item, str) and item.strip() for item in value):
        return value
    return [str(gold)]


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


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
