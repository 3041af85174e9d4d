r"""Mathematical text: find the formula that a text answers with, and write it as LaTeX that a parser reads in full.

All by looking at characters: nothing is imported, nothing computed, every step is linear in the text (what is matched
against patterns that are not is cut to `MAX_FORMULA` first). `size` bounds what evaluating a formula would take before
anything evaluates it: a power of powers, a factorial, a high root.
"""

import math
import re
import unicodedata
from typing import NamedTuple

MAX_FORMULA = 1500
"""Characters of a formula, and of the prose around it, that are parsed."""

_MAX_TAIL = 2_000
_MAX_DEPTH = 40
_HUGE = 1e12


class Piece(NamedTuple):
    r"""The part of a text that answers.

    Attributes:
        text: LaTeX in `$...$` where all of it is a formula, else the prose that holds formulas or numbers.
        plain: What stood there, as a label for where nothing can be parsed.
        whole: True if all of `text` is one formula.
        marked: True if `\boxed`, "####" or "answer" pointed at it.
    """

    text: str
    plain: str
    whole: bool
    marked: bool


_FUNCTIONS = frozenset(
    re.findall(
        r"\w+",
        "sin cos tan cot sec csc sinh cosh tanh arcsin arccos arctan asin acos atan log ln lg exp sqrt abs min max "
        "gcd lcm det mod floor ceil lim pi infinity inf",
    )
)
_GREEK = frozenset(
    re.findall(
        r"\w+",
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau phi chi psi omega",
    )
)
_COMMANDS = (
    _FUNCTIONS
    | _GREEK
    | frozenset(
        re.findall(
            r"\w+",
            "frac dfrac tfrac cfrac sqrt boxed fbox cdot times div pm mp le leq ge geq ne neq lt gt in notin cup cap "
            "setminus subset emptyset varnothing infty binom sum prod int lim left right begin end text mathrm mathbf "
            "mathbb mathcal operatorname overline bar vec hat circ degree approx equiv sim to rightarrow Rightarrow "
            "implies land lor forall exists partial nabla angle triangle prime displaystyle lfloor rfloor lceil rceil "
            "Gamma Delta Theta Lambda Sigma Phi Psi Omega varphi varepsilon vartheta ldots cdots dots quad pmod bmod",
        )
    )
)

# --- writing what is not LaTeX as LaTeX

_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ", "0123456789+-nix")
_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋", "0123456789+-")
_SUPER_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ]+")
_SUB_RUN = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋]+")
_ROOT = re.compile(r"([√∛])\s?(?:\(([^()]{0,200})\)|\{([^{}]{0,200})\}|([0-9]+(?:\.[0-9]+)?|[A-Za-zπ]))")
_VULGAR = {
    code: re.sub("(.+)/(.+)", r"\\frac{\1}{\2}", unicodedata.normalize("NFKC", chr(code)).replace("⁄", "/"))
    for code in (0xBC, 0xBD, 0xBE, *range(0x2150, 0x215F))
}
_SIGNS: dict[int, str] = {
    **_VULGAR,
    **{ord(char): "-" for char in "−‐‑﹣－"},
    **{ord(char): "" for char in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062"},
    **{
        ord(char): f"\\{name} "
        for char, name in {
            "π": "pi", "∞": "infty", "≤": "le", "⩽": "le", "≥": "ge", "⩾": "ge", "≠": "ne", "×": "times", "·": "cdot",
            "⋅": "cdot", "∙": "cdot", "÷": "div", "±": "pm", "∈": "in", "∉": "notin", "∪": "cup", "∩": "cap",
            "∖": "setminus", "∅": "emptyset", "≈": "approx", "∑": "sum", "∏": "prod", "∫": "int", "∘": "circ",
        }.items()
    },
    ord("°"): "^{\\circ}",
    ord("ℝ"): "\\mathbb{R}",
    ord("ℤ"): "\\mathbb{Z}",
    ord("ℚ"): "\\mathbb{Q}",
    ord("ℕ"): "\\mathbb{N}",
    ord("ℂ"): "\\mathbb{C}",
}  # fmt: skip
_SYNONYMS = {
    "\\lbrace": "\\{",
    "\\rbrace": "\\}",
    "\\langle": "(",
    "\\rangle": ")",
    "\\not=": "\\ne ",
    "\\not =": "\\ne ",
}
_SYNONYM = re.compile(r"\\(?:[lr]brace|[lr]angle)(?![A-Za-z])|\\not ?=")
_LONG_DASH = re.compile(r"(^|[(=,$\[{]\s?)[–—](?=\s?[\d.a-zA-Z\\])")
_BARE_EXPONENT = re.compile(r"\^\s?([-+]\s?(?:[0-9]+(?:\.[0-9]+)?|[A-Za-z](?![A-Za-z])))")
_LONG_EXPONENT = re.compile(r"\^\s?([0-9]{2,}(?:\.[0-9]+)?|[0-9]\.[0-9]+)")
_SCIENTIFIC = re.compile(r"(?<![\w.])([0-9]+(?:\.[0-9]+)?)[eE]([-+]?[0-9]{1,3})(?![\w.])")
_THOUSANDS = re.compile(r"(?<![\d.,])([0-9]{1,3})((?:(?:\\[,;:! ]|\{,\}|~)\s?[0-9]{3})+)(?![0-9])")
_REPEATING = re.compile(
    r"(?<![\d.,])([0-9]{0,20})\.([0-9]{0,20})\\(?:overline|bar|dot)\s?(?:\{([0-9]{1,20})\}|([0-9]))"
)
_NAMED = re.compile(
    rf"(?<![\\A-Za-z])({'|'.join(sorted(_FUNCTIONS | _GREEK - {'inf'}, key=len, reverse=True))})(?![A-Za-z])"
)
_RENAMED = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "infinity": "infty", "inf": "infty", "lg": "log"}
_RUNS = (re.compile(r"[ \t\f\v\r]+"), re.compile(r"\n\s*\n\s*"))

# --- finding the part that answers

_THOUGHT = "</think>"
_BOX = re.compile(r"\\f?box(?:ed)?(?![A-Za-z])\s?")
_MARK = re.compile(
    r"\#{4}|\banswers?\b(?:[^.\n:=$\\]{0,60}?\b(?:is|are)\b|\s?[:=])(?!\s+not\b)|\bfinal answer\b[\s*_:#]{0,12}\n",
    re.IGNORECASE,
)
_JOINED = re.compile(r"\b(?:and|or)\b|[,;]")
_ENVIRONMENT = re.compile(
    r"(?<![\\\d])\$(?:\\[$]|[^\n$]){1,1500}\$|\$\$[^$]{1,1500}\$\$|\\\(.|\\\[.|\\begin\{", re.DOTALL
)
_FORMULA = re.compile(
    r"(?:\$\$([^$]{1,1500})\$\$|(?<![\\\w$])\$((?:\\\$|[^\n$]){1,1500})(?<!\\)\$(?![0-9])|\\\(((?:(?!\\\)).){1,1500})\\\)"
    r"|\\\[((?:(?!\\\]).){1,1500})\\\])(?P<percent>\s?(?:\\?%|percent\b|pct\b))?",
    re.DOTALL,
)
_EDGES = ' \t\n*_`"'
_ONE_NUMBER = re.compile(
    r"[$€£¥]?\s?-?(?:[0-9]{1,3}(?:[ ,][0-9]{3})+|[0-9]+)?(?:[.,][0-9]+)?\s?(?:\\?%|percent)?", re.IGNORECASE
)
_NUMBER = re.compile(r"(?<![\w.])-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_SIGN_WORD = re.compile(r"(?<![0-9] )\b(?:negative|minus)\s+(?=\$?[0-9.\\(])", re.IGNORECASE)
_TOKEN = re.compile(
    r"\\(?P<command>[A-Za-z]+)|\\.|(?P<word>[A-Za-z]+)|(?P<number>[0-9]+(?:[.,][0-9]+)*)|(?P<open>[(\[{])|(?P<close>[)\]}])"
    r"|\s+|[α-ωΑ-Ω]|(?P<sign>[-+*/^=<>!|%])|[_&.,;:'~]"
)
_WORD_GROUP = re.compile(
    r"\\(?:text|textbf|textit|mathrm|mathbf|mathit|mbox|operatorname|begin|end|mathbb|mathcal)\s?\{[^{}]{0,200}\}"
)
_NO_FACTORS = frozenset(
    re.findall(
        r"\w+",
        "is of an to in it at on or as be by he if me my no so up us we am do go oh ok hi vs id eg ie mr dr st km "
        "cm mm kg mg ml ft lb oz pm hz ms ns kb mb gb tb the and for are but not you all can had her was one our "
        "out day get has him his how man new now old see two way who boy did its let put say she too use yes any "
        "may off red big dog cat usd eur gbp mph rpm",
    )
)

_UNITS = re.findall(
    r"\w+",
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen",
)
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SAID = {word: value for value, word in enumerate(_UNITS)} | {word: 20 + 10 * at for at, word in enumerate(_TENS)}
_SPOKEN = {
    "negative": "-", "minus": "-", "plus": "+", "times": "\\cdot ", "over": "/", "squared": "^{2}", "cubed": "^{3}",
    "equals": "=", "infinity": "\\infty ", "pi": "\\pi ", "percent": "\\%",
}  # fmt: skip
_PHRASES = (
    (re.compile(r"\b(?:the )?square root of (\w+)"), r"\\sqrt{ \1 }"),
    (re.compile(r"\b(?:the )?cube root of (\w+)"), r"\\sqrt[3]{ \1 }"),
    (re.compile(r"\b(?:divided by|over)\b"), "over"),
    (re.compile(r"\b(?:raised )?to the (?:power of )?(\w+?)(?:th)?(?: power)?(?=\s|$)"), r"^{ \1 }"),
    (re.compile(r"\b(?:is )?equal(?:s)?(?: to)?\b"), "equals"),
    (re.compile(r"\bmultiplied by\b"), "times"),
)


_COMMAND = re.compile(r"[a-z][a-z0-9_.-]{1,30} -{1,2}[A-Za-z][\w-]{0,30}(?: |$)")
"""A command and its option, as in "ls -l"."""


def looks_like_math(text: str) -> bool:
    r"""Tell whether a text holds mathematics that is more than a number: LaTeX, powers, roots, variables, sets, relations.

    Args:
        text: The part of an answer that answers.
    """
    if "```" in text or _COMMAND.match(text.strip("`$ ")):
        return False
    text = text.strip(_EDGES)
    if not text or len(text) > _MAX_TAIL:
        return len(text) > _MAX_TAIL and bool(_SURE.search(text[-_MAX_TAIL:]))
    if _PATH.search(text):
        return False
    if _SURE.search(text) or any(_is_telling(found) for found in _inner_formulas(text)):
        return True
    if _VARIABLE.fullmatch(text):
        return True
    if _CODE.search(text) or _ADDRESS.search(text):
        return False
    if _STRONG.search(_without_units(text)):
        return True
    bare = text.rstrip(".,;")
    if len(bare) > 200 or _ONE_NUMBER.fullmatch(bare):
        return False
    if _spoken(bare) is not None and not _SAID_NUMBER.fullmatch(bare.lower()):
        return True
    return _is_telling(bare)


def find_piece(text: str) -> Piece | None:
    r"""Find the part of a text that answers: after the last mark, else all that is not thinking.

    Returns:
        None for a text of nothing but white space and decoration.
    """
    if _THOUGHT in text:
        text = text[text.rfind(_THOUGHT) + len(_THOUGHT) :]
    text = text.encode("utf-8", "replace").decode()
    tail = text[-_MAX_TAIL:]
    boxes = list(_BOX.finditer(tail))
    marks = [mark for mark in _MARK.finditer(tail) if tail[mark.end() :].strip(_EDGES + ":=>")]
    if boxes and (not marks or marks[-1].start() < boxes[-1].start()):
        content = _boxed(tail, boxes)
        if content.strip(_EDGES):
            return _as_piece(content.replace("$", " "), marked=True, formula=True)
    if marks:
        part = tail[marks[-1].end() :].lstrip(_EDGES + ":=>")
        return _as_piece(
            _RUNS[1].split(part)[0][:MAX_FORMULA] if "$" in part or "\\" in part else part.partition("\n")[0],
            marked=True,
        )
    return _as_piece(text, marked=False)


def numbers(prose: str) -> list[str]:
    """List the distinct numbers that prose states, in order; after the last sign of equality, if any stand there."""
    if _ONE_NUMBER.fullmatch(prose):
        return [prose]
    tail = prose.rpartition("=")[2]
    found = _NUMBER.findall(tail) or _NUMBER.findall(prose)
    return list(dict.fromkeys(number.replace(",", "") for number in found))


def without_space(text: str) -> str:
    """Reduce text that could not be parsed to what tells it apart: no white space, no case, no decoration of LaTeX."""
    text = unicodedata.normalize("NFKC", text)
    text = re.sub(r"\\(?:left|right|displaystyle|,|;|!|:|quad|qquad)(?![A-Za-z])|\$|[\\~]\s", "", text)
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]{0,200})\}", r"\1", text)
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = "".join(text.split()).strip('*_`"').rstrip(".,;")
    return _unquoted(text).casefold()


def size(latex: str) -> float:
    """Bound the bits of the largest whole number that evaluating a formula can meet, far above what it mostly takes.

    Every factor and term counts as a factor; an exponent multiplies the bits of its base by its own greatest value. A
    variable counts as 2, or where sums, products, limits or integrals put numbers in its place as the largest number
    that stands in the formula.

    Returns:
        Bits; infinite for a formula nested deeper than anything that is read.
    """
    parts = _SIZE_PART.findall(latex)
    largest = max((len(part) for part in parts if part[0].isdigit()), default=0)
    bound = re.search(r"\\(?:sum|prod|int|lim|right\||big)", latex)
    letter = max(1.0, min(largest, 400) * math.log2(10)) if bound else 1.0
    depth = deepest = 0
    for part in parts:
        depth += (part in "({[") - (part in ")}]")
        deepest = max(deepest, depth)
    if deepest > _MAX_DEPTH or len(latex) > 4 * MAX_FORMULA or re.search(r"[0-9][eE][-+]?[0-9]{4}", latex):
        return math.inf
    if bound:
        letter = max([1.0, *(math.log2(int(part) + 1) for part in parts if part.isdigit() and len(part) < 400)])
    return _Sizer(parts, letter).sequence()


_SIZE_PART = re.compile(r"[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\\[A-Za-z]+|\*\*|[A-Za-z]|[^\s\\]", re.ASCII)


class _Sizer:
    """Walk over a formula's parts and add up their sizes."""

    def __init__(self, parts: list[str], letter: float) -> None:
        self._parts = parts
        self._letter = letter
        self._at = 0

    def sequence(self) -> float:
        total, grows, root = 0.0, 0, 0.0
        while self._at < len(self._parts):
            part = self._parts[self._at]
            if part in ")}]":
                self._at += 1
                break
            if part in ("\\binom", "\\dbinom", "\\tbinom", "\\choose", "\\Gamma", "\\operatorname"):
                self._at += 1
                grows = 2
                continue
            opens_root = part == "[" and self._at > 0 and self._parts[self._at - 1] == "\\sqrt"
            bits = self._powered()
            if opens_root:
                root = bits
                continue
            if grows and part in "({[":
                bits, grows = _product(_value(bits), bits), grows - 1
            if root and part in "({[":
                bits, root = _product(bits + 1, _value(root)), 0.0
            total = min(_HUGE, total + bits)
        return total

    def _powered(self) -> float:
        """Size of one atom with its exponents and factorials."""
        bits = self._atom()
        while self._at < len(self._parts) and self._parts[self._at] in ("^", "**", "!"):
            self._at += 1
            if self._parts[self._at - 1] == "!":
                bits = _product(_value(bits), bits + 1)
                continue
            while self._at < len(self._parts) and self._parts[self._at] in "+-":
                self._at += 1
            bits = _product(max(bits, 1.0), _value(self._powered()))
        return bits

    def _atom(self) -> float:
        if self._at >= len(self._parts):
            return 0.0
        part = self._parts[self._at]
        self._at += 1
        if part in "({[":
            return self.sequence()
        if part[0].isdigit() or part[0] == ".":
            whole, _, decimals = part.partition(".")
            bits = math.log2(int(whole or "0") + 1) + 3.33 * len(decimals) if len(part) <= 400 else _HUGE
            return min(_HUGE, bits)
        return self._letter if part[-1].isalpha() else 0.0


def _value(bits: float) -> float:
    return math.exp2(min(bits, 60.0))


def _product(a: float, b: float) -> float:
    return min(_HUGE, a * b)


def _boxed(text: str, boxes: list[re.Match[str]]) -> str:
    """Join the contents of the last boxes: those that stand beside one another, or are listed with a word between."""
    contents: list[str] = []
    start_of_next = len(text)
    for box in reversed(boxes[-30:]):
        content, end = _braced(text, box.end(), start_of_next)
        if contents:
            between = text[end:start_of_next]
            near = len(between) < 10
            if end > start_of_next or not (
                near or (len(between) < 70 and content != contents[-1] and _JOINED.search(between))
            ):
                break
        if not contents or content != contents[-1]:
            contents.append(content)
        start_of_next = box.start()
    return ",".join(reversed(contents))


def _braced(text: str, start: int, limit: int) -> tuple[str, int]:
    """Take what stands in braces from a place on, and where it ends; to the end of its line if they never close."""
    if text[start : start + 1] != "{":
        line = text[start:limit].partition("\n")[0].partition("$")[0]
        return line, start + len(line)
    depth = 0
    for at in range(start, min(limit, start + 2 * MAX_FORMULA)):
        depth += (text[at] == "{") - (text[at] == "}")
        if not depth:
            return text[start + 1 : at], at + 1
    return text[start + 1 : limit], limit


def _as_piece(text: str, *, marked: bool, formula: bool = False) -> Piece | None:
    text = text.strip(_EDGES)
    if not text:
        return None
    plain = text
    if not formula and not marked and len(text) > MAX_FORMULA:
        text = _last_part(text)
    if len(text) > MAX_FORMULA:
        return Piece("", plain, whole=True, marked=marked)
    text = to_latex(_squeezed(text))
    bare = _undecorated(text)
    inner = _only_environment(bare)
    if inner is not None:
        return Piece(f"${_one_line(inner)}$", plain, whole=True, marked=marked)
    if formula:
        inner = bare if "\\" in bare else _plain_formula(bare)
        return Piece(f"${_one_line(inner)}$", plain, whole=True, marked=marked)
    lone = _lone_environment(bare)
    if lone is not None:
        return Piece(f"${_one_line(lone)}$", plain, whole=True, marked=marked)
    anchor = "answer: " if marked else ""  # what stands first after a mark answers
    if _ENVIRONMENT.search(bare):
        return Piece(anchor + _SIGN_WORD.sub("-", bare), plain, whole=False, marked=marked)
    if _ONE_NUMBER.fullmatch(bare.replace("\\$", "$")):
        return Piece(bare.replace("\\$", "$"), plain, whole=False, marked=marked)
    said = _spoken(bare)
    if said is not None or _is_formula(bare):
        return Piece(f"${_one_line(_plain_formula(bare if said is None else said))}$", plain, whole=True, marked=marked)
    prose = _SIGN_WORD.sub("-", re.sub(r"(?<=[0-9])!(?=\s|$)", ".", bare))
    return Piece(anchor + prose, plain, whole=False, marked=marked)


def to_latex(text: str) -> str:
    """Write signs that LaTeX has commands for as such, and numbers that a parser would cut short in a form it reads."""
    if not text.isascii():
        text = _SUPER_RUN.sub(lambda run: f"^{{{run[0].translate(_SUPER)}}}", text)
        text = _SUB_RUN.sub(lambda run: f"_{{{run[0].translate(_SUB)}}}", text)
        text = _ROOT.sub(_root, text)
        text = unicodedata.normalize("NFKC", text.translate(_SIGNS)).translate(_SIGNS)
        text = _LONG_DASH.sub(r"\1-", text)
    if "\\" in text:
        text = _SYNONYM.sub(lambda found: _SYNONYMS[found[0]], text)
    if "^" in text:
        text = _BARE_EXPONENT.sub(r"^{\1}", text)
    if "\\" in text or "{,}" in text:
        text = _THOUSANDS.sub(lambda found: found[1] + re.sub("[^0-9]", "", found[2]), text)
        text = _REPEATING.sub(_repeating, text)
    return text


def _root(found: re.Match[str]) -> str:
    index = "[3]" if found[1] == "∛" else ""
    return f"\\sqrt{index}{{{found[2] or found[3] or found[4]}}}"


def _repeating(found: re.Match[str]) -> str:
    whole, fixed, period = found[1] or "0", found[2], found[3] or found[4]
    above = int(whole + fixed + period) - int(whole + fixed)
    return f"\\frac{{{above}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"


def _squeezed(text: str) -> str:
    return _RUNS[1].sub("\n\n", _RUNS[0].sub(" ", text))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").strip()


def _unquoted(text: str) -> str:
    """Drop single quotes around a text; one at its end alone is a prime."""
    return text[1:-1] if len(text) > 2 and text[0] == text[-1] == "'" else text


def _undecorated(text: str) -> str:
    text = _unquoted(text.strip(_EDGES))
    return text if text.endswith(("\\.", "\\,")) else text.rstrip(".,;").rstrip(_EDGES)


def _only_environment(text: str) -> str | None:
    """Take the inside of a text that is one formula between LaTeX's marks, None for any other."""
    for start, end in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if text.startswith(start) and text.endswith(end) and len(text) > len(start) + len(end):
            inner = text[len(start) : -len(end)]
            if "$" not in inner.replace("\\$", "") and "\\(" not in inner and "\\[" not in inner and inner.strip():
                return inner.strip().rstrip(".,;") if not inner.rstrip().endswith(("\\,", "\\;")) else inner.strip()
    return None


def _lone_environment(text: str) -> str | None:
    """Take the inside of the only formula between LaTeX's marks in a text with no number after it."""
    found = list(_FORMULA.finditer(text))
    if len(found) != 1 or re.search(r"[0-9]|\\frac|\\begin", text[found[0].end() :]) or text.startswith("\\begin"):
        return None
    inner = next(group for group in found[0].groups()[:4] if group is not None).strip()
    return inner + ("\\%" if found[0]["percent"] else "")


def _last_part(text: str) -> str:
    """Take the last lines of a long text, from a place where no formula is open; all of it where there is none."""
    tail = text[-MAX_FORMULA:]
    for cut in re.finditer(r"\n\s*|(?<=[a-z)][.]) ", tail):
        rest = tail[cut.end() :]
        if (
            rest.count("$") % 2 == 0
            and rest.count("\\[") == rest.count("\\]")
            and rest.count("{") == rest.count("}")
            and rest
        ):
            return rest
    return text


def _plain_formula(text: str) -> str:
    """Write a formula that somebody typed without LaTeX as LaTeX."""
    text = (
        text.replace("**", "^").replace("<=", "\\le ").replace(">=", "\\ge ").replace("!=", "\\ne ").replace("==", "=")
    )
    text = re.sub(r"^\{([^{}]*)\}$", r"\\{\1\\}", text)
    text = _SCIENTIFIC.sub(r"\1\\cdot 10^{\2}", text)
    text = _BARE_EXPONENT.sub(r"^{\1}", text)
    text = _LONG_EXPONENT.sub(r"^{\1}", text)
    text = re.sub(r"(?<!\\)\babs\(([^()|]{1,200})\)", r"|\1|", text)
    text = _NAMED.sub(lambda name: f"\\{_RENAMED.get(name[1], name[1])} ", text)
    text = re.sub(r"\\sqrt \(([^()]{1,200})\)", r"\\sqrt{\1}", text)
    return re.sub(r"(?<![\\A-Za-z])e\^\(([^()]{1,200})\)", r"e^{\1}", text)


def _is_formula(text: str) -> bool:
    """Tell whether all of a text is a formula: no words but names of functions, and something that is no number."""
    text = _WORD_GROUP.sub(r" \\pi ", text)
    end, signs, letters, numbers_seen, words = 0, 0, 0, 0, 0
    for token in _TOKEN.finditer(text):
        if token.start() != end:
            return False
        end = token.end()
        word = token["word"]
        if word and len(word) > 1 and word not in _FUNCTIONS | _GREEK | {"and", "or"}:
            if len(word) > 3 or word.lower() in _NO_FACTORS or (word.istitle() and len(word) > 2):
                return False
            words += 1
        signs += bool(token["sign"] or token["open"] or token["command"])
        letters += bool(word or token["command"])
        numbers_seen += bool(token["number"])
    if end != len(text):
        return False
    if words and not signs and not re.search(r"[0-9][a-z]", text):
        return False
    return bool(signs or (letters and (numbers_seen or len(text) == 1)))


def _spoken(text: str) -> str | None:
    """Write a formula said in words, such as "negative two x squared", as LaTeX; None if it is none."""
    if len(text) > 200 or not re.search("[A-Za-z]{3}", text):
        return None
    text = text.lower()
    for pattern, phrase in _PHRASES:
        text = pattern.sub(phrase, text)
    out: list[str] = []
    kept = False
    for word in re.findall(r"\\sqrt(?:\[3\])?\{|\^\{|[}]|[a-z]+|[0-9]+(?:\.[0-9]+)?|[-+*/=^()]|\S", text):
        if word in _SAID:
            value = _SAID[word]
            if out and out[-1].isdigit() and int(out[-1]) in range(20, 100, 10) and 0 < value < 10:
                out[-1] = str(int(out[-1]) + value)
            elif out and out[-1][-1:].isdigit():
                return None
            else:
                out.append(str(value))
            kept = True
        elif word in _SPOKEN:
            out.append(_SPOKEN[word])
            kept = True
        elif word == "-" and out and out[-1].isdigit():  # the hyphen of twenty-one
            if int(out[-1]) not in range(20, 100, 10):
                return None
        elif word.startswith(("\\sqrt", "^{")):
            out.append(word)
            kept = True
        elif (len(word) == 1 and (word.isalpha() or word in "+*/=^(){}")) or word[0].isdigit():
            if out and word[0].isdigit() and out[-1][-1:].isdigit():
                return None
            out.append(word)
        else:
            return None
    return "".join(out) if kept and out else None


# --- telling mathematics from other text

_SURE = re.compile(
    rf"\\(?:{'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?![A-Za-z])|\\[dtc]?frac\s?[0-9{{]|\\\{{|[√∛∞∪∩∅∫∑∏∈∉ℝℤℚℕℂ]"
)
_PATH = re.compile(r"(?<![A-Za-z])[A-Za-z]:\\[\w.]|\\\\[A-Za-z][\w.-]*\\|(?<![\w)])[~.]{0,2}/[A-Za-z]\w+/")
_ADDRESS = re.compile(r"://|\bwww\.|[\w.+-]+@[\w-]+\.\w|[?&]\w+=\w+&")
_CODE = re.compile(
    r"```|;\s*(?:\n|$)|[-+*/%|&]=|===|=>|->|&&|\|\||::|//|/\*|#include|\b(?:def|class|return|import|from \w+ import|print|function|var"
    r"|let|const|lambda|elif|while|int|float|void|public|static|SELECT|select)\b\s*[\w(\"'{*]|\b[A-Za-z]\w*_\w+\s*[=(.\[]|\b\w+\.\w+\("
    r"|</?[a-z]+[^<>]*>|\b(?:if|for)\b.*[:({]|[\"'] ?[:\]]|\{\s*[\"']|\b[A-Za-z_]{4,} ?== ?|\b[A-Za-z]{4,} = "
)
_STRONG = re.compile(
    r"(?<![\w.])-?[0-9]*(?:[A-Za-z]|\))\s?\^\s?[-({0-9A-Za-z]|(?<![\w.])[0-9]+(?:\.[0-9]+)?\s?\^\s?[-({0-9A-Za-z]"
    r"|(?<![\w.])[0-9]*[A-Za-z][⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]|\)[⁰¹²³⁴⁵⁶⁷⁸⁹⁻ⁿ]|[≤≥≠±≈]\s?[-0-9A-Za-z]"
    r"|(?<![\w.])(?:sqrt|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|abs)\s?\(|(?<![\w.])(?:sin|cos|tan|ln|log) [a-z](?![a-z])"
    r"|(?<![\w.&?/-])-?[0-9]*[a-zA-Z](?:\([a-z]\))?'?\s?=\s?[-+]?[0-9.(]|(?<![\w.])[fgh]\([a-z]\)\s?=|(?<![\w&?/.-])[a-z]\s?=\s?-?[0-9]*[a-z](?![\w])"
    r"|(?<![\w.<-])(?:-?[0-9]+(?:\.[0-9]+)?|[a-z])\s?[<>]=?\s?-?(?:[0-9]+(?:\.[0-9]+)?|[a-z])(?![\w>])"
    r"|(?<![\w.])[0-9]+\s?[-+]\s?[0-9]*i(?!\w)|(?<![\w.])[0-9]*\s?π(?![α-ωά-ώ])|(?<![\w.])[0-9]+(?:\s?\*\s?|\s)?pi(?!\w)|(?<!\w)pi\s?/\s?[0-9]"
    r"|(?<![\w.,/$-])(?:[0-9]+[a-z]\s?[-+]\s?[0-9]+|[b-hj-z]\s[-+]\s[0-9]+)(?![\w.,/-])|(?<![\w.,/$-])[0-9]+[a-z]\s?[-+]\s?[0-9]*[a-z](?!\w)"
)
_POWER_UNIT = re.compile(
    r"(?<![A-Za-z])(?:[kcdmµ]?m|km|ft|in|yd|s|h|kg|m/s)\s?(?:\^\s?\{?-?[0-9]\}?|[²³⁻][¹²³]?)(?![\w^])|(?:x|×|\*)\s?10\s?\^\s?\{?[-+]?[0-9]+\}?"
)
_SAID_NUMBER = re.compile(rf"(?:(?:negative|minus|percent|{'|'.join([*_UNITS, *_TENS])})[\s-]*)+")
_TRIVIAL = re.compile(
    r"[-+]?[0-9.,\s/:-]*[A-Za-z]?|[A-Za-z]|[-+]?[0-9.,/\s%$€£-]+|\(?[A-Za-z0-9]\)|\[[0-9]+\]|\[?[A-Z]\]?|[A-Z][a-z]?[-+]?|[IVXLC]+"
)
_VARIABLE = re.compile(
    r"-[xyzabn]|[nkmx]!|[0-9]+/[xyzabnk]|[xyzabnk]/[0-9]+|log_[0-9]{1,3}\([0-9a-z]+\)|[xyznk]-[0-9]+|[-+]?[0-9]+(?:[.,/][0-9]+)?(?:[xyzn]|[a-z]{2}(?<![aeiou][a-z])(?<!(?:km|cm|mm|kg|mg|ml|ft|lb|oz|pm|hz|ms|ns|kb|mb|gb|tb|nd|rd|th|st|hr|px|dl|cl))|[xyz])"
)
_PAIR = re.compile(r"[(\[{]\s?-?[\w.\\/]+(?:\s?[,;]\s?-?[\w.\\/^]+)+\s?[)\]}]")
_SUM = re.compile(r"[-+0-9.,\s()*/]*(?:[0-9)]\s?[+*]\s?[0-9(-]|[0-9]\()[-+0-9.,\s()*/]*")


def _inner_formulas(text: str) -> list[str]:
    r"""List what stands between LaTeX's marks; prices ("$5 and $6") are not between marks."""
    found = re.findall(
        r"\$\$([^$]{1,400})\$\$|(?<![\\\w$])\$(?! )([^$\n]{1,400})(?<! )\$(?![0-9])|\\\((.{1,400}?)\\\)|\\\[(.{1,400}?)\\\]",
        text,
    )
    return [inner for groups in found for inner in groups if inner]


def _without_units(text: str) -> str:
    return _POWER_UNIT.sub(" ", text)


def _is_telling(text: str) -> bool:
    """Tell whether all of a text is a formula that says more than a number, a letter, a date, or a number with a unit."""
    text = text.strip()
    if "\n" in text or text.endswith(("+", "*", "=", "^", "(")):
        return False
    if _VARIABLE.fullmatch(text) or _SUM.fullmatch(text) or text in _CONSTANTS:
        return True
    if _TRIVIAL.fullmatch(text):
        return False
    if _PAIR.fullmatch(text):
        return all(_MEMBER.fullmatch(part) for part in re.split("[,;]", text[1:-1]))
    words = set(re.findall(r"(?<!\\)[A-Za-z]{3,}", _WORD_GROUP.sub("", text)))
    if words - _FUNCTIONS - _GREEK - {"and", "or"} or not _is_formula(_without_units(text)):
        return False
    return bool(_OPERATION.search(text) and _OPERAND.search(text)) and not _HYPHENATED.fullmatch(text)


_CONSTANTS = frozenset(["pi", "infinity", "-infinity", "inf", "-inf", "π", "-π"])
_MEMBER = re.compile(r"\s?-?(?:[0-9.]+(?:/[0-9]+)?|\\?[a-z]+[0-9]?|[0-9]*[a-z]|-?inf(?:inity|ty)?)\s?")
_OPERATION = re.compile(r"[-+*/^=<>|(\\]")
_OPERAND = re.compile(r"(?<![A-Za-z])[A-Za-z](?![A-Za-z])|\\[a-z]|[a-z]\(")
_HYPHENATED = re.compile(
    r"[A-Za-z]{2,}(?:[-/][A-Za-z0-9]+)+|[A-Z]{1,4}-?[0-9]+[A-Z]?|[A-Za-z][-/][A-Za-z]{1,20}|[A-Z][-/][0-9A-Z]+|[0-9]+[-/][A-Za-z]{2,20}"
)
