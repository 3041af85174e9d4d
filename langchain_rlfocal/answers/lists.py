r"""Lists: answers of several items are the same if they name the same items, in the same order where there is one.

| answer | items | order |
|---|---|---|
| numbered lines: `1.` `1)` `(1)` `a.` `i.` | what follows the number | counts |
| bullets: `-` `*` `•` `–` | what follows the bullet, with what is nested in it | as the query asks |
| Markdown table | rows, each cell with its heading; the cells, if there is one row or one column | as the query asks; counts where a column numbers the rows |
| `Name: Bob` on every line | the lines | as the query asks |
| `["a", "b"]` | the scalars | counts |
| "red, green and blue", short lines without bullets | the parts; only if the query asks for a list | as the query asks |

- The query asks for an order with words such as "first", "largest", "rank", "steps", "sort". Where it asks for none, the
  order counts between two numbered lists only: else lists are multisets.
- Items are the same if they fold to the same words: case, accents, punctuation at the ends, commas after words, a
  leading article, bold and the kind of dash after a name do not count; everything else does. What holds `code` that is
  more than a word in small letters is compared by every letter.
  `List(same_item)` takes another comparison of items.
- An explanation ("Apple – a fruit") counts: it may be the answer ("Norway: Oslo"). Only if the query says that it wants
  names alone, or no explanation, every item of the list has one, and none of them states a number or denies something,
  it is dropped.
- Numbers of items count only where they are neither 1, 2, 3 ... nor all the same.
- Headings and sentences around a list count by the numbers and denials in them (the number of items and what the query
  says aside); if the query asks for no list, the words before it count too: they may be the answer.
- A list of one item is none, but for a table with one cell; so is a text longer than `MAX_CHARS`, a list of more than
  `_MAX_ITEMS` items, and a text whose lines do not agree on being a list.

Two lists are compared in time linear in their length, but for `same_item`, which is asked about at most `_MAX_PAIRED`
items on each side that do not fold to the same. Between numbered lists and bullets `same` is not transitive.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.kinds import Same
from langchain_rlfocal.answers.values import MAX_CHARS, PATTERNS, Words

_MAX_ITEMS = 2_000
_MAX_PAIRED = 50
_MAX_LINE = 400
_MAX_LABEL = 300
_MAX_QUERY = 4_000

_WORDS = Words("lists")

_NO_KEYS = frozenset(key.replace("_", " ") for key in _WORDS["no_keys"])
"""What before a colon announces something else than the value of a name."""


@dataclass(frozen=True, slots=True)
class ListAnswer:
    """A list in a text.

    Attributes:
        items: The items' texts, without bullets, numbers and bold.
        numbered: True if the list itself has an order.
        lead: What stands before the list.
        tail: What stands after it.
    """

    items: tuple[str, ...]
    numbered: bool
    lead: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class ListValue:
    """What a list answers.

    Attributes:
        items: The items.
        keys: What each item shares with the items that are the same.
        ordered: True if they are in an order.
        asked: True if their order counts even beside a list without one.
        beside: What the text around the list states; empty if nothing that counts.
    """

    items: tuple[str, ...]
    keys: tuple[str, ...]
    ordered: bool
    beside: str = ""
    asked: bool = False


class List:
    """The kind of answers that are lists.

    Args:
        same_item: Compares the texts of two items that do not fold to the same.
    """

    name = "list"

    def __init__(self, same_item: Same | None = None) -> None:
        self._same_item = same_item or (lambda _a, _b: False)

    def read(self, text: str, query: str) -> ListValue | None:
        """Read the list that a text answers; None where it holds none."""
        asks = asks_for_list(query)
        found = find_list(text, commas=asks)
        if found is None:
            return None
        items = _named(found.items) if _WORDS.asks_names.search(_short(query)) else found.items
        known = set(_words(_short(query)))
        beside = [_stated(found.lead, known | {str(len(items))}), _stated(found.tail, known)]
        if not asks or "\n" not in text.strip():
            around = _words(f"{found.lead} {found.tail}")
            beside.append(" ".join(word for word in around if word not in known | _WORDS["lead_words"]))
        asked = asks_for_order(query) or (found.numbered and not asks)
        said = " / ".join(filter(None, beside))
        return ListValue(items, tuple(map(_key, items)), found.numbered or asked, said, asked)

    def value_of(self, line: str, beside: ListValue) -> ListValue | None:
        """Read one line as a list to set beside one that was read; None where it is none, or says anything else too."""
        found = find_list(line, commas=True)
        if found is None or found.lead or found.tail:
            return None
        return ListValue(found.items, tuple(map(_key, found.items)), beside.asked, "", beside.asked)

    def same(self, a: ListValue, b: ListValue) -> bool:
        """Tell whether two lists have the same items: in the same order, if the query asks for one, or both have one."""
        if len(a.items) != len(b.items) or a.beside != b.beside:
            return False
        if a.asked or b.asked or (a.ordered and b.ordered):
            pairs = zip(a.keys, b.keys, a.items, b.items, strict=True)
            return all(key == other_key or self._same_item(item, other) for key, other_key, item, other in pairs)
        left, right = _left_over(a, b), _left_over(b, a)
        return not left or (len(left) <= _MAX_PAIRED and _matches(left, right, self._same_item))

    def write(self, value: ListValue) -> str:
        """Write the items in one line, sorted if they have no order; a long list ends in a digest of the whole."""
        keys = value.keys if value.ordered else sorted(value.keys)
        marks = [f"{at}. " if value.ordered else "- " for at in range(1, len(keys) + 1)]
        label = " | ".join(mark + key for mark, key in zip(marks, keys, strict=True))
        label += f" // {value.beside}" if value.beside else ""
        clear = label.isprintable() and not any("|" in key or "//" in key for key in keys)
        if clear and len(label) <= _MAX_LABEL:
            return label
        exact = repr((value.ordered, list(keys), value.beside)).encode("utf-8", "surrogatepass")
        shown = "".join(char if char.isprintable() else " " for char in label[:_MAX_LABEL])
        return f"{shown.rstrip()} … #{hashlib.sha256(exact).hexdigest()[:24]}"


def asks_for_list(query: str) -> bool:
    """Tell whether a query asks for several things."""
    return bool(_WORDS.asks_list.search(_short(query)))


def asks_for_order(query: str) -> bool:
    """Tell whether a query asks for things in an order."""
    return bool(_WORDS.asks_order.search(_short(query)))


def find_list(text: str, *, commas: bool = False) -> ListAnswer | None:
    """Find the list that a text is, whatever stands before and after it.

    Args:
        text: What a model wrote.
        commas: Whether one line with commas, and short lines without bullets, are lists.

    Returns:
        The list; None where the text is none, or is longer than `MAX_CHARS`.
    """
    if len(text) > MAX_CHARS:
        return None
    text = _unfenced(_after_thought(text.replace("\r\n", "\n").replace("\r", "\n")))
    if not text.strip():
        return None
    readers: list[Callable[[str], ListAnswer | None]] = [_scalars, _table, _lines, _pairs]
    if commas:
        readers += [_short_lines, _inline]
    found = next(filter(None, (reader(text) for reader in readers)), None)
    return found if found and len(found.items) <= _MAX_ITEMS else None


# ---- forms of lists


def _after_thought(text: str) -> str:
    ends = [match.end() for match in PATTERNS.thought.finditer(text)]
    return text[ends[-1] :] if ends and text[ends[-1] :].strip() else text


def _unfenced(text: str) -> str:
    lines = text.strip().split("\n")
    if len(lines) > 2 and _WORDS.fence.fullmatch(lines[0].strip()) and lines[-1].strip() == "```":
        lines = lines[1:-1]
        return text if any(line.lstrip().startswith("```") for line in lines) else "\n".join(lines)
    return text


def _scalars(text: str) -> ListAnswer | None:
    text = text.strip()
    if not text.startswith("["):
        return None
    value = values.parse_json(text)
    if isinstance(value, list):
        plain = all(isinstance(item, (str, bool)) or item is None for item in value)
        items = [item if isinstance(item, str) else str(item).lower() for item in value]
        return ListAnswer(tuple(items), numbered=True) if plain and len(items) > 1 else None
    if not _WORDS.scalar_list.fullmatch(text):
        return None
    found = tuple((match[match.lastindex or 0]).strip() for match in _WORDS.scalar.finditer(text[1:-1]))
    return ListAnswer(found, numbered=True) if len(found) > 1 else None


def _table(text: str) -> ListAnswer | None:
    lines = text.split("\n")
    piped = [line.strip().startswith("|") or bool(_is_alignment(line)) for line in lines]
    at = next((at for at, line in enumerate(lines) if _is_alignment(line)), None)
    if at is not None and at > 0 and "|" in lines[at - 1]:
        start = at - 1
    elif piped.count(True) > 1:
        start, at = piped.index(True), None
    else:
        return None
    end = start
    while end < len(lines) and "|" in lines[end]:
        end += 1
    if any(piped[end:]):
        return None
    rows = [_cells(line) for number, line in enumerate(lines[start:end], start) if number != at]
    header = rows.pop(0) if at is not None else []
    if not rows or len({len(row) for row in rows} | ({len(header)} if header else set())) > 1:
        return None
    places = [str(place) for place in range(1, len(rows) + 1)]
    counted = len(rows[0]) > 1 and len(rows) > 1 and [row[0].rstrip(".") for row in rows] == places
    if counted:
        rows, header = [row[1:] for row in rows], header[1:]
    titles = header if header and len(header) > 1 else [""] * len(rows[0])
    titled = [[f"{title}: {cell}" if title else cell for title, cell in zip(titles, row, strict=True)] for row in rows]
    items = titled[0] if len(titled) == 1 else [" | ".join(row) for row in titled]
    return ListAnswer(tuple(items), counted, _joined(lines[:start]), _joined(lines[end:]))


def _is_alignment(line: str) -> bool:
    return "-" in line and "|" in line and len(line) <= 2_000 and bool(_WORDS.alignment.fullmatch(line))


def _cells(line: str) -> list[str]:
    cells = _WORDS.cell_border.split(line.strip())
    cells = cells[1:] if not cells[0].strip() else cells
    cells = cells[:-1] if cells and not cells[-1].strip() else cells
    return [_plain(cell.replace("\\|", "|")) for cell in cells]


def _lines(text: str) -> ListAnswer | None:
    """Read numbered and bulleted lines; what stands between items belongs to the item before it, or heads those after it."""
    found: list[list[str]] = []  # of each item: itself, and what belongs to it
    numbers: list[str] = []
    depths: list[int] = []
    lead: list[str] = []
    loose: list[str] = []
    section = ""
    for line in text.split("\n"):
        if not line.strip() or _WORDS.rule.fullmatch(line):
            loose.append("")
            continue
        number, item = _item(line)
        indent = len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
        if item:
            section = _settle(loose, found, section)
            loose = []
            if depths and indent >= depths[0] + 2:
                found[-1].append("\n" + _plain(item))
            else:
                depths = [indent]
                found.append([f"{section}: " if section else "", _plain(item)])
                numbers.append(number)
        elif not found:
            lead.append(line)
        elif indent > depths[0] and not any(loose):
            found[-1].append(" " + _plain(line))
        else:
            loose.append(line)
    items = ["".join(parts) for parts in found]
    if len(items) == 1 and items[0].count("\n") > 1:
        first, *items = items[0].split("\n")
        lead, numbers = [*lead, first], [""] * len(items)
    if len(items) < 2:
        return None
    counted = _counted(numbers)
    if counted is None:
        return None
    if not counted and any(numbers):
        items = [f"{number}. {item}" if number else item for number, item in zip(numbers, items, strict=True)]
    return ListAnswer(tuple(items), any(numbers), _joined(lead), _joined(loose))


def _settle(loose: list[str], found: list[list[str]], section: str) -> str:
    """Place what stands between two items: a heading heads what follows, all else belongs to the item before it."""
    for line in filter(None, loose):
        heading = _WORDS.heading.fullmatch(line) if len(line) <= _MAX_LINE else None
        if found and not heading and not line.rstrip().endswith(":"):
            found[-1].append(" " + _plain(line))
        else:
            section = _plain((heading["hashed"] or heading["bold"] or "") if heading else line).strip(" :*#")
    return section


def _item(line: str) -> tuple[str, str]:
    match = _WORDS.numbered.fullmatch(line)
    if match:
        circled = match["circled"]
        number = str(ord(circled) - ord("①") + 1) if circled else match["number"].lower()
        return str(int(number)) if number.isdecimal() else number, match["item"]
    match = _WORDS.bullet.fullmatch(line)
    return "", (match["item"] or match["close"] or "") if match else ""


def _counted(numbers: Sequence[str]) -> bool | None:
    """Tell whether numbers only count the items; None where letters do not: they are initials then."""
    told = [number for number in numbers if number]
    if not told or all(number == told[0] for number in told):
        return None if told and not told[0].isdigit() else True
    if all(number.isdigit() for number in told):
        plain = [int(number) for number in told]
        return len(told) == len(numbers) and plain == list(range(1, len(plain) + 1))
    letters = [chr(ord("a") + at) for at in range(26)]
    romans = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii", "xiii", "xiv", "xv"]
    return True if told in (letters[: len(told)], romans[: len(told)]) and len(told) == len(numbers) else None


def _pairs(text: str) -> ListAnswer | None:
    lines = [line for line in text.split("\n") if line.strip()]
    lead = ""
    if lines and (_WORDS.heading.fullmatch(lines[0][:_MAX_LINE]) or lines[0].rstrip().endswith(":")):
        lead, lines = lines[0], lines[1:]
    found = [_WORDS.pair.fullmatch(line) if len(line) <= _MAX_LINE else None for line in lines]
    pairs = [(match["key"].strip(" :*_"), _plain(match["value"])) for match in found if match]
    keys = [values.fold(key) for key, _ in pairs]
    told = set(keys)
    if len(pairs) < 2 or len(pairs) < len(lines) or len(told) < len(keys) or told & _NO_KEYS or "step 1" in told:
        return None
    return ListAnswer(tuple(f"{key}: {value}" for key, value in pairs), numbered=False, lead=lead)


def _short_lines(text: str) -> ListAnswer | None:
    """Read short lines, each an item, after at most one that announces them."""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    lead = lines[0] if lines and (lines[0].endswith(":") or _WORDS.heading.fullmatch(lines[0][:_MAX_LINE])) else ""
    lines = lines[1:] if lead else lines
    if len(lines) < 2 or any(len(line) > 80 or line[-1] in ".:!?," for line in lines):
        return None
    return ListAnswer(tuple(map(_plain, lines)), numbered=False, lead=lead)


def _inline(text: str) -> ListAnswer | None:
    """Read one line whose parts stand between commas or semicolons, or with "and" between two."""
    lead, _, rest = text.strip().rpartition(":\n")
    line = (rest if lead and "\n" not in lead.strip() else text).strip()
    courtesy = _WORDS.courtesy.match(line)
    line = line[courtesy.end() :] if courtesy else line
    if "\n" in line or len(line) > _MAX_LINE or re.search(r"[a-z]{3}[.!?] +\S", line):
        return None
    copula = _WORDS.copula.match(line)
    if copula and copula.end() < len(line):
        lead, line = f"{lead} {copula[0]}", line[copula.end() :]
    line = line.rstrip(" .!")
    if ";" in line:
        parts = line.split(";")
    elif _WORDS.packed.fullmatch(line) and not _WORDS.grouped.fullmatch(line):
        parts = line.split(",")
    else:
        parts = _WORDS.comma.split(line)
        if len(parts) == 1:
            parts = _WORDS.only_and.split(line) if line.count(" ") <= 8 else parts
    last = _WORDS.last_and.match(parts[-1])
    if last:
        parts[-1] = parts[-1][last.end() :]
    elif len(parts) > 1 and ";" not in line and (inner := list(_WORDS.only_and.finditer(parts[-1]))):
        cut = inner[-1]
        parts[-1:] = [parts[-1][: cut.start()], parts[-1][cut.end() :]]
    items = [_plain(part) for part in parts]
    if len(items) < 2 or not all(items) or any(len(item.split()) > 12 for item in items):
        return None
    return ListAnswer(tuple(items), numbered=False, lead=lead.strip())


# ---- texts of items


def _plain(text: str) -> str:
    """Drop Markdown's bold, italics and links, but for what holds code."""
    if "`" in text:
        return text.strip()
    return _WORDS.italic.sub(r"\1", _WORDS.bold.sub(r"\1", _WORDS.link.sub(r"\1", text))).strip()


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines).strip()


def _short(query: str) -> str:
    if len(query) > _MAX_QUERY:
        query = f"{query[: _MAX_QUERY // 2]}\n{query[-_MAX_QUERY // 2 :]}"
    return re.sub(r"[ \t]+", " ", query)


def _key(item: str) -> str:
    """Reduce an item to what items that are the same have in common."""
    item = _WORDS.code_word.sub(r"\1", item)
    if "`" in item:
        return " ".join(item.split())
    lines = [_WORDS.loose_comma.sub("", _trimmed(line)) for line in values.fold(item).split("\n")]
    parts = [" ".join(_WORDS.separator.sub(" : ", line).split()) for line in lines]
    return "\n".join(values.in_digits(part) for part in parts) if any(parts) else " ".join(item.split())


def _trimmed(text: str) -> str:
    text = _WORDS.trailing.sub("", text.strip()) or text.strip()
    quoted = _WORDS.quoted.fullmatch(text)
    text = _WORDS.trailing.sub("", quoted[2]) if quoted and quoted[2].strip() else text
    return _WORDS.article.sub("", text, count=1) if _WORDS.article.match(text) else text


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:[.,][0-9]+)*", values.in_digits(values.fold(text)))


def _stated(text: str, known: set[str]) -> str:
    """List the numbers and denials that a text beside a list states, but for what is known from elsewhere."""
    if not text:
        return ""
    folded = values.in_digits(values.fold(text))
    numbers = [word for word in _words(text) if any(map(str.isdigit, word)) and word not in known]
    denials = [word for word in (match[0].strip() for match in _WORDS.denies.finditer(folded)) if word not in known]
    if not numbers and not denials:
        return ""
    return " ".join(folded.split()) if denials else " ".join(numbers)


def _named(items: tuple[str, ...]) -> tuple[str, ...]:
    """Drop explanations, if all items have one and none of them states a number or denies something."""
    found = [_WORDS.note.fullmatch(item) for item in items]
    notes = [match["note"] for match in found if match]
    counts = any(
        _WORDS.denies.search(note) or re.search(r"\d", note) or _WORDS.number_words.search(values.fold(note))
        for note in notes
    )
    return items if counts or len(notes) < len(items) else tuple(_trimmed(match["name"]) for match in found if match)


def _left_over(value: ListValue, other: ListValue) -> list[str]:
    more = Counter(value.keys) - Counter(other.keys)
    left = []
    for item, key in zip(value.items, value.keys, strict=True):
        if more[key] > 0:
            more[key] -= 1
            left.append(item)
    return left


def _matches(left: Sequence[str], right: Sequence[str], same: Same) -> bool:
    """Tell whether each item on one side can be given its own on the other (augmenting paths)."""
    pairs = [[at for at, other in enumerate(right) if same(item, other)] for item in left]
    taken: dict[int, int] = {}

    def place(item: int, seen: set[int]) -> bool:
        for other in pairs[item]:
            if other not in seen:
                seen.add(other)
                if other not in taken or place(taken[other], seen):
                    taken[other] = item
                    return True
        return False

    return all(place(item, set()) for item in range(len(left)))
