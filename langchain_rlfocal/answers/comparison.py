"""Comparison: which of several answers are the same.

Every text is read by itself, as the kind that is given, or ("auto") as what the query asks for, or else as what the text
itself is; then it is compared with the others. The result is the same in any order of the texts. A kind of a user's own may
raise, or return nonsense: such answers differ, and a note says why.
"""

import ast
import hashlib
import logging
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.choices import bare_letter, read_choice, read_option, read_yes_no
from langchain_rlfocal.answers.code import Code, CodeBlock, find_code, parse_python
from langchain_rlfocal.answers.kinds import Kind, KindLike, KindName, MadeKind, to_kind
from langchain_rlfocal.answers.lists import List, find_list
from langchain_rlfocal.answers.mathematics import Math, looks_like_math, same_math
from langchain_rlfocal.answers.quantities import number_of
from langchain_rlfocal.answers.reading import (
    Ask,
    concluding,
    final_part,
    first_sentence,
    marked,
    plain,
    read_query,
    readable,
)
from langchain_rlfocal.answers.statements import (
    Amount,
    Statement,
    answering_part,
    as_duration,
    bare_number,
    may_be_same,
    named_value,
    read_amounts,
    read_long,
    read_short,
    read_statement,
    same_statement,
)
from langchain_rlfocal.answers.values import PATTERNS, WORDS

logger = logging.getLogger(__name__)

MAX_SHORT = 30
"""Words of a short text."""

MAX_CODE_LINES = 8
"""Lines of code, fences included, that two models may well write alike."""

_MAX_ITEM = 40
_FENCES = 8  # characters of the two fences of a block, with their line ends
_MAX_KEPT = 4_000
_MAX_MARKED, _MAX_MARKED_WORDS = 200, 8
_MAX_CALLS = 64
_MAX_PYTHON_CALL = 5_000
_MAX_WORDS = 300
_MAX_LABEL = 200
_MAX_LITERAL = 20_000
_MAX_NOTE = 200
_LONG_CHARS = 4_000
_NO_CODE = frozenset(
    ["text", "txt", "plain", "plaintext", "markdown", "md", "json", "output", "console", "latex", "math"]
)
_MAY_BE_NAMED = frozenset(":=(")


# ---- who agrees with whom


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
    found = {text: _read(used, text, query, notes) for text in dict.fromkeys(texts) if text is not None}
    reads = {text: read for text, read in found.items() if read is not None}
    groups: list[list[str]] = []
    is_final = True
    equal: dict[str, tuple[str, list[str]]] = {}  # by label: the first text with it, and its group
    for label, text in sorted((read[1], text) for text, read in reads.items()):
        value = reads[text][0]
        if label in equal and _equal(value, reads[equal[label][0]][0]):
            equal[label][1].append(text)
            continue
        fitting = [group for group in groups if all(_same(used, reads[text], reads[one], notes) for one in group)]
        if len(fitting) == 1:
            is_final = is_final and _equal(value, reads[fitting[0][0]][0])
            fitting[0].append(text)
        else:
            groups.append([text])
        equal.setdefault(label, (text, fitting[0] if len(fitting) == 1 else groups[-1]))
    num_unread = sum(text is not None and bool(text.strip()) and text not in reads for text in texts)
    if num_unread and len(texts) > 1:
        notes[f"nothing comparable could be read as {used.name} in {num_unread} of {len(texts)} answers"] = None
    labels = _labels_of(groups, reads)
    kinds = {text: read[0].kind.name if isinstance(read[0], Found) else used.name for text, read in reads.items()}
    first = {labels[text]: at for at, text in reversed(list(enumerate(texts))) if text is not None and text in labels}
    heads = [group[0] for group in groups]
    left_open = [pair for pair in combinations(heads, 2) if _may_be_same(used, *(reads[text][0] for text in pair))]
    places = [[first[labels[text]] for text in pair] for pair in left_open]
    return Comparison(
        labels=tuple(None if text is None else labels.get(text) for text in texts),
        kinds=tuple(None if text is None else kinds.get(text) for text in texts),
        notes=tuple(notes),
        open_pairs=tuple(sorted((min(pair), max(pair)) for pair in places)),
        is_final=is_final,
    )


_scripts: set[int] = set()  # of the texts compared so far; names of months and units are loaded script by script


def takes_long(texts: Collection[str]) -> bool:
    """Tell whether comparing texts may take long: long texts, mathematics, code."""
    return any(len(text) > _LONG_CHARS or _is_hard(text) for text in texts)


@lru_cache(maxsize=1024)  # short answers recur, and each is looked at several times
def _is_hard(text: str) -> bool:
    return "```" in text or looks_like_math(text)


def loads_first(texts: Collection[str]) -> bool:
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
    return not said or not all(len(text) > _LONG_CHARS or _is_open(_read(used, text, query, {})) for text in said)


def _is_open(read: tuple[Any, str] | None) -> bool:
    found = read[0] if read else None
    if not isinstance(found, Found):
        return False
    return found.kind.name == "long_text" or (found.kind.name == "code" and found.part.count("\n") > MAX_CODE_LINES)


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


def _labels_of(groups: list[list[str]], reads: Mapping[str, tuple[Any, str]]) -> dict[str, str]:
    """Name each group by its first value's label; groups whose labels coincide are numbered."""
    labels: dict[str, str] = {}
    taken: dict[str, int] = {}
    for group in groups:
        label = reads[group[0]][1]
        taken[label] = taken.get(label, 0) + 1
        labels |= dict.fromkeys(group, label if taken[label] == 1 else f"{label} ({taken[label]})")
    return labels


def _may_be_same(kind: Kind, a: Any, b: Any) -> bool:
    """Whether the rules leave it open that two values mean the same: texts, or code, without a fact that differs."""
    if not (isinstance(a, Found) and isinstance(b, Found)):
        a, b = Found(kind, a, ""), Found(kind, b, "")
    if a.kind.name == b.kind.name == "code":
        # What no other spelling of a program may change: its numbers, texts, comparisons and denials.
        return sorted(PATTERNS.code_facts.findall(a.part)) == sorted(PATTERNS.code_facts.findall(b.part))
    is_text = {a.kind.name, b.kind.name} <= {"short_text", "long_text"}
    return (
        is_text and isinstance(a.value, Statement) and isinstance(b.value, Statement) and may_be_same(a.value, b.value)
    )


# ---- how a text is read where no kind is named


@dataclass(frozen=True)
class Found:
    """What a text was read as.

    Attributes:
        kind: The kind.
        value: Its value.
        part: The part of the text that answers, cleaned.
    """

    kind: Kind
    value: Any
    part: str = field(compare=False)


class Auto:
    """The kind that the query asks for, or else what the text is."""

    name = "auto"

    def read(self, text: str, query: str) -> Found | None:
        """Return what a text was read as."""
        return _kept(text, query) if len(text) + len(query) <= _MAX_KEPT else find(text, read_query(query), query)

    def same(self, a: Found, b: Found) -> bool:
        """Compare two values of a kind; mathematics also with what another kind read."""
        if a.kind.name == b.kind.name:
            return a.kind.same(a.value, b.value)
        names = {a.kind.name, b.kind.name}
        if "math" in names and names & {"number", "short_text", "exact", "list"}:
            formulas = [_MATH.read(found.part, "") for found in (a, b)]
            return None not in formulas and _MATH.same(*formulas)
        if names == {"number", "short_text"}:
            return same_statement(a.value, b.value)
        if "list" in names:
            listed, other = (a, b) if a.kind.name == "list" else (b, a)
            line = _LIST.value_of(other.part, listed.value)
            return line is not None and _LIST.same(listed.value, line)
        return False

    def write(self, value: Found) -> str:
        """Write the value as its kind does."""
        return value.kind.write(value.value)


def find(text: str, ask: Ask, query: str) -> Found | None:
    """Read a text, in the order of what is most certain."""
    if ask.options and (letter := bare_letter(text, ask)):
        return Found(BUILT_IN["option"], letter, text)
    cleaned = values.clean(text)
    final = final_part(cleaned)
    if not final:
        return None
    part, is_marked = answering_part(cleaned, ask, whole=True)

    def found(kind: KindName, value: Any) -> Found | None:
        return None if value is None else Found(BUILT_IN[kind], value, part)

    if ask.literal and not ask.options:
        return found("exact", literal_text(text if is_marked else _printed(final) or text))
    if ask.options and (letter := read_option(cleaned, ask)):
        return found("option", letter)
    if not (ask.choices or ask.identifier or ask.code) and (only := bare_number(part, ask)):
        return found("number", only)
    if not ask.several:
        if (ask.yes_no or not ask.fact) and (verdict := read_yes_no(cleaned, ask)):
            return found("yes_no", verdict)
        if ask.choices and not ask.prose and (choice := read_choice(cleaned, ask)):
            return found("choice", choice)
    if (calls := read_calls(text)) is not None:
        return found("tool_calls", calls)
    if (
        not is_marked
        and ("{" in text or "[" in text)
        and ("json" in ask.text.casefold() or not PATTERNS.scalars.fullmatch(part))
        and (json := read_whole_json(text)) is not None
    ):
        return found("json", json)
    if PATTERNS.scalars.fullmatch(part):
        part = part.strip()[1:-1]
    blocks = [block for block in find_code(final) if block.language not in _NO_CODE]
    if (
        ask.code
        or _is_mostly_code(final, blocks)
        or (blocks and not (ask.number or ask.when or ask.yes_no or ask.choices))
    ):
        code = _read_code(part if is_marked else final, ask, query, blocks)
        if code is not None:
            return code
    is_math = looks_like_math(part)
    if (is_math or not _MAY_BE_NAMED.isdisjoint(part)) and (value := named_value(part, ask)):
        part, is_math = value, looks_like_math(value)
    part = as_duration(part) if ask.duration else part
    number = number_of(readable(part, ask), query=ask.text) if len(part) < 400 else None
    if number is not None and (amounts := read_statement(readable(part, ask), ask, facts_only=True)) is not None:
        return found("number", amounts)
    if (symbol := _symbol(part, ask)) is not None:
        return found("short_text", Statement((symbol,), (), (symbol,)))
    if ask.prose and not is_marked:
        return found("long_text", read_long(cleaned))
    concludes = ask.identifier or (ask.number and not is_marked and part == final and concluding(final))
    if is_math:
        part = PATTERNS.or_in_words.sub(" or ", part)
    if is_math and not concludes and (math := _MATH.read(final if is_marked else part, query)) is not None:
        return found("math", math)
    if (ask.number or ask.when or ask.version) and not (ask.several and ask.names):
        amounts = read_amounts(cleaned, ask)
        if amounts is not None:
            return found("number", amounts)
    if ask.listing and "\n" not in final and (amounts := read_amounts(cleaned, ask)) is not None and amounts.owners:
        return found("number", amounts)
    listed = find_list(part, commas=ask.listing) if ask.listing or "\n" in part or "[" in part else None
    if listed is not None and sum(len(item) for item in listed.items) > _MAX_ITEM * len(listed.items):
        listed = None  # prose in points
    if listed is not None and len(listed.items) > 1:
        return found("list", _LIST.read(part, query))
    if listed is not None and len(listed.items) == 1:
        return found("short_text", read_short(listed.items[0], ask))
    if is_marked and len(part) > _MAX_MARKED and len(first_sentence(part).split()) > _MAX_MARKED_WORDS:
        return found("long_text", read_long(cleaned))
    short = read_short(cleaned, ask)
    if short is not None and len(short.full) <= MAX_SHORT and (is_marked or len(final) <= 40 * MAX_SHORT):
        return found("short_text", short)
    return found("long_text", read_long(cleaned))


def _printed(final: str) -> str | None:
    spans = set(PATTERNS.span.findall(final))
    if len(spans) == 1 and "\n" not in final and len(final) <= _MAX_MARKED:
        return str(spans.pop())
    match = PATTERNS.prints.fullmatch(final)
    return match[1] if match else None


def _symbol(part: str, ask: Ask) -> str | None:
    """Read a word with signs that count, such as "-i" and ":q!", where a text gives one and says little else."""
    if "`" not in part:
        token = part.strip("*_ ")
        return token if PATTERNS.symbol.fullmatch(token) else None
    spans = set(PATTERNS.span.findall(part))
    rest = plain(values.fold(PATTERNS.span.sub(" ", part))).split()
    if (
        len(spans) != 1
        or " " in (span := spans.pop())
        or not all(word in WORDS["tells_to_type"] or ask.repeats(word) for word in rest)
    ):
        return None
    return span if PATTERNS.symbol.fullmatch(span) else None


@lru_cache(maxsize=1024)
def _kept(text: str, query: str) -> Found | None:
    """Read a short text once: an ensemble labels its answers again with each that arrives."""
    return find(text, read_query(query), query)


def _is_mostly_code(final: str, blocks: Sequence[CodeBlock]) -> bool:
    within = sum(len(block.source) for block in blocks)
    fences = sum(len(block.language or "") + _FENCES for block in blocks)
    return within > len(final) - within - fences


def _read_code(final: str, ask: Ask, query: str, blocks: Sequence[CodeBlock]) -> Found | None:
    """Read code where the query asks for it, or where a text is little else; a fence around plain words is no code."""
    tagged = any(block.language and block.language not in _NO_CODE for block in blocks)
    if not ask.code and not _is_mostly_code(final, blocks) and (ask.prose or not tagged):
        return None
    value = _CODE.read(final, query)
    spans = set(PATTERNS.span.findall(final)) if value is None and ask.code else set()
    command = PATTERNS.command.fullmatch(spans.pop() if len(spans) == 1 else final.strip())
    if value is None and ask.code and command:
        value = _CODE.read(f"```\n{command[1]}\n```", query)
        value = value if value and value.parts[0][0] else None
    return None if value is None else Found(_CODE, value, final)


# ---- exact texts, JSON and calls of tools


def exact_text(text: str) -> str | None:
    """Return what a text marks as its answer, or all of it; a Python literal as Python writes it."""
    text = final_part(text[: values.MAX_CHARS].encode("utf-8", "replace").decode())
    parts = marked(text)
    text = unicodedata.normalize("NFC", parts[0] if parts else text).strip()
    fence = re.fullmatch(r"```[^\n`]{0,20}\n(.{0,100000}?)\n?```", text, re.DOTALL)
    text = fence[1].strip() if fence else text
    if not text:
        return None
    return text


def literal_text(text: str) -> str | None:
    """Return the Python literal that a text answers with, as Python writes it; else the text, without quotes around it."""
    found = exact_text(text)
    if found is None:
        return None
    found = found.strip("`").strip()
    if "==" in found and found.startswith("assert"):
        found = found.rpartition("==")[2].strip()
    tree = parse_python(found) if len(found) <= _MAX_LITERAL else None
    if tree is not None and len(tree.body) == 1 and isinstance(tree.body[0], ast.Expr):
        try:
            value = ast.literal_eval(tree.body[0].value)
        except (ValueError, TypeError, MemoryError, RecursionError):
            pass
        else:
            return value if isinstance(value, str) and value else repr(value)
    return found.strip("'\"") or found


def read_whole_json(text: str) -> str | None:
    """Return the last JSON object or array of a text that is little else, or holds it in a fence.

    An object with the key "answer" only wraps an answer of another kind, and an array of texts or numbers is a list.
    """
    final = final_part(text)
    value = values.parse_json(final)
    if value is None:
        value = _within_words(final)
    if not isinstance(value, (list, dict)) or (isinstance(value, dict) and "answer" in value):
        return None
    written = values.dump_json(value)
    return written if len(written) <= values.MAX_CHARS else None


def read_calls(text: str) -> str | None:
    """Return the calls of tools that a text makes: in tags, as JSON with names and arguments, or as calls of Python."""
    final = final_part(text)
    if "<tool_call>" in final or "<function_call>" in final:
        found = [values.parse_json(match[1]) for match in list(PATTERNS.tagged.finditer(final))[:_MAX_CALLS]]
        calls = [call for value in found for call in (value if isinstance(value, list) else [value])]
        return values.read_tool_calls(values.dump_json(calls)) if calls and all(map(_is_call, calls)) else None
    stripped = final.strip()
    if stripped[:1] in "[{" or "```" in stripped[:400]:
        value = values.parse_json(stripped)
        calls = value if isinstance(value, list) else [value]
        if calls and all(map(_is_call, calls)):
            return values.read_tool_calls(values.dump_json(calls))
    return _python_calls(stripped)


def _is_call(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    if isinstance(value.get("function"), dict):
        value = value["function"]
    return (
        isinstance(value.get("name"), str)
        and not isinstance(value.get("name"), Mapping)
        and bool(value.keys() & {"arguments", "args", "parameters"})
    )


def _python_calls(text: str) -> str | None:
    """Read one call, or a list of calls, whose arguments are keywords and literals."""
    match = PATTERNS.python_call.match(text)
    if match is None or len(text) > _MAX_PYTHON_CALL or text.count("(") > _MAX_CALLS:
        return None
    tree = parse_python(text)
    if tree is None or len(tree.body) != 1 or not isinstance(tree.body[0], ast.Expr):
        return None
    body = tree.body[0].value
    try:
        calls = body.elts if isinstance(body, (ast.List, ast.Tuple)) else [body]
        found = [
            {"name": ast.unparse(call.func), "args": _arguments(call)} for call in calls if isinstance(call, ast.Call)
        ]
    except (ValueError, TypeError, MemoryError, RecursionError):
        return None
    return values.canonical_tool_calls(found) if found and len(found) == len(calls) else None


def _arguments(call: ast.Call) -> dict[str, Any]:
    if call.args or not call.keywords:
        raise ValueError("positional")
    return {keyword.arg or "": ast.literal_eval(keyword.value) for keyword in call.keywords}


def _within_words(text: str) -> Any:
    """Parse the JSON object that stands between a few words before and after it; None where there is more, or none."""
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start or start > _MAX_WORDS or len(text) - end > _MAX_WORDS:
        return None
    return values.parse_json(text[start : end + 1])


# ---- the kinds of this package


def _read_short(text: str, query: str) -> Statement | None:
    """Read yes or no, or one of the choices, where the query asks for these; else a statement."""
    cleaned, ask = values.clean(text), read_query(query)
    chosen = (read_yes_no(cleaned, ask) if ask.yes_no else None) or read_choice(cleaned, ask)
    if chosen is None or ask.several:
        return read_short(cleaned, ask)
    words = tuple(chosen.split())
    return Statement(words, (), words)


def _read_number(text: str, query: str) -> Statement | None:
    return read_amounts(values.clean(text), read_query(query))


def _read_date(text: str, query: str) -> Statement | None:
    """Read dates and times, in any usual spelling, and years."""
    statement = read_amounts(values.clean(text), read_query(query))
    if statement is None:
        return None
    said = tuple(part for part in statement.said if not isinstance(part, Amount) or part.is_date)
    return (
        Statement(said, statement.repeated, said, statement.names)
        if any(isinstance(part, Amount) for part in said)
        else None
    )


def _same_quantity(a: Statement, b: Statement) -> bool:
    units = [[(part.kind, part.value) if isinstance(part, Amount) else part for part in one.said] for one in (a, b)]
    return same_statement(a, b) and units[0] == units[1]


def _read_json(text: str, query: str) -> str | None:
    """Write the JSON that a text is, holds in a fence, or begins with at its first bracket."""
    del query
    value = values.find_json(text)
    written = None if value is None else values.dump_json(value)
    return written if written and len(written) <= values.MAX_CHARS else None


def _shortened(value: Any) -> str:
    label = str(value)
    if len(label) <= _MAX_LABEL:
        return label
    return f"{label[: _MAX_LABEL - 14]}…{hashlib.sha256(label.encode('utf-8', 'replace')).hexdigest()[:12]}"


def _same_item(a: str, b: str) -> bool:
    one, other = (read_statement(values.clean(item), read_query("")) for item in (a, b))
    return one is not None and other is not None and same_statement(one, other)


_CODE, _MATH, _LIST = Code(), Math(), List(_same_item)
BUILT_IN: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Auto(),
        # The text itself: the same but for white space around it, and for how Unicode composes it; or equal Python literals.
        MadeKind("exact", lambda text, _: exact_text(text), writes=_shortened),
        # The letter of a listed option.
        MadeKind("option", lambda text, query: read_option(values.clean(text), read_query(query))),
        # A number without a unit equals that number of any one unit.
        MadeKind("number", _read_number, same_statement, _shortened),
        # In any unit of the same dimension: 90 minutes and 1.5 hours.
        MadeKind("quantity", _read_number, _same_quantity, _shortened),
        MadeKind("date", _read_date, same_statement, _shortened),
        _MATH,
        MadeKind("yes_no", lambda text, query: read_yes_no(values.clean(text), read_query(query), asked=True)),
        MadeKind("choice", lambda text, query: read_choice(values.clean(text), read_query(query))),
        _LIST,
        _CODE,
        MadeKind("json", _read_json),
        # As a multiset.
        MadeKind("tool_calls", lambda text, _: read_calls(text) or values.read_tool_calls(final_part(text))),
        MadeKind("short_text", _read_short, same_statement, _shortened),
        # The same only where all words are, but for typography, markdown and contractions.
        MadeKind("long_text", lambda text, _: read_long(values.clean(text)), lambda a, b: a.full == b.full, _shortened),
    )
}
