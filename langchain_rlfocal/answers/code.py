r"""Code: two answers that hold programs are the same if the programs are, whatever their names, layout and comments.

| language | read by | what does not count |
|---|---|---|
| Python | `ast` | layout, comments, quotes, docstrings, annotations, order of imports at the top, names of parameters and locals |
| those under `layouts` in `words/code.toml` | Pygments | layout as far as it means nothing, comments |
| JSON | `values` | layout, order of keys, 1 or 1.0 |
| all others | the text | white space at the ends of lines, empty lines around |

- Code is in fences; all blocks count, in order, and consecutive blocks of Python are one program. What is written around
  them does not count, nor do blocks of `text` and `output` beside others. Without fences the whole text is code if it is
  Python with a statement in it, or if the query asks for code and the text is one command or statement.
- A language that no fence names is told by prompts, by parsing, by the query, by the first word.
- Names in Python follow scopes: a parameter or a local may be called otherwise, if it is so everywhere. Names that
  somebody else may use stay: globals, attributes, classes, methods, keyword-only parameters, parameters that a call in
  the code names, those that the query lists at another place, all of a function with a foreign decorator, and all
  where the code looks at its own names (`locals`, `eval`). At the top, the one function (beside no class) and the
  targets of loops, `with` and `except` may be called otherwise, unless a string or the query holds the name.
- Annotations count in class bodies, without a value, where they call something, and under foreign decorators, which
  read them; so do docstrings under foreign decorators and where the code reads docstrings.

Nothing is run, rewritten or proved: `2 * x` and `x + x` differ. Python that is too large or deep to parse counts by its
tokens; other languages beyond `_MAX_TOKENS` characters by their text; a text beyond `MAX_CHARS` by every character.
"""

import ast
import builtins
import hashlib
import json
import re
import textwrap
import threading
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import groupby
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.values import MAX_CHARS, PATTERNS, Words

_MAX_BLOCKS = 64
_MAX_PYTHON = 50_000
_MAX_TREE = 120  # levels of a syntax tree: each takes two frames of Python's stack, of which a caller may use half
_MAX_TOKENS = 4_000  # some patterns of Pygments take time that grows with the square of the text
_MAX_QUERY = 4_000
_MAX_INLINE = 400

_WORDS = Words("code")
_LAYOUTS = _WORDS.inverted("layouts")
_ALIASES = _WORDS.inverted("aliases")
_COMMENTS = {"sql": ("--", "/*"), "lua": ("--",), "css": ("/*",), "php": ("//", "/*", "#")}
_DASHED = ("//", "/*")
_HASHED = frozenset(["bash", "elixir", "julia", "powershell", "python", "r", "ruby"])
_MEANING = ("//go:", "// +build", "/*+", "/*!", "///", "// @ts-", "#!", "#[")
"""Comments that are more than comments: directives, hints, attributes."""


_TYPES = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.BinOp, ast.BitOr, ast.Tuple, ast.List)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.For, ast.AsyncFor, ast.While, ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match)
_STRONG = (*_FUNCTIONS, *_BLOCKS, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assert, ast.Raise)


_SOURCE = "<answer>"
_QUIET = ("ignore", None, Warning, re.compile(_SOURCE), 0)

_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A block of code in a text.

    Attributes:
        language: The first word after the fence, in lower case; None where there is none.
        source: What is between the fences, without their indentation.
    """

    language: str | None
    source: str


@dataclass(frozen=True, slots=True)
class Program:
    """The code of an answer, in its normal form.

    Attributes:
        parts: Language and normal form of each part, in order; the language is empty where it is not known.
        head: What a label shows of it: told by the parts alone.
    """

    parts: tuple[tuple[str, str], ...]
    head: str = field(default="", compare=False)


class Code:
    """The kind of answers that are programs, commands or queries."""

    name = "code"

    def read(self, text: str, query: str) -> Program | None:
        """Read the code of an answer; None where the text holds none."""
        thought = [match.end() for match in _WORDS.thought.finditer(text)]
        text = text[thought[-1] :] if thought and text[thought[-1] :].strip() else text
        if len(text) > MAX_CHARS:
            return _whole(text) if "```" in text or "~~~" in text else None
        blocks = [block for block in _blocks(text) if block.source.strip()]
        if len(blocks) > _MAX_BLOCKS:
            return _whole(text)
        if blocks:
            told = [block for block in blocks if block.language not in _WORDS["plain"]]
            asked = None if all(block.language for block in told) and told else _asked_language(query)
            return _program([(block.language, block.source) for block in told or blocks], query, asked)
        source = _unfenced(text, query)
        return None if source is None else _program([(None, source)], query, _asked_language(query))

    def same(self, a: Program, b: Program) -> bool:
        """Tell whether two programs have the same normal form."""
        return a == b

    def write(self, value: Program) -> str:
        """Write the language, the beginning where it is short to say, and a digest of the normal form."""
        digest = hashlib.sha256(json.dumps(value.parts).encode()).hexdigest()[:24]
        languages = ",".join(dict.fromkeys(language or "code" for language, _ in value.parts))
        languages = languages if len(languages) <= 20 else f"{languages[:19]}…"
        return f"{languages}:{digest} {value.head}".rstrip()


def find_code(text: str) -> list[CodeBlock]:
    """Find the fenced blocks of a text, in order: the first and the last of very many, each cut at `MAX_CHARS`."""
    blocks = _blocks(text)
    half = _MAX_BLOCKS // 2
    kept = blocks if len(blocks) <= _MAX_BLOCKS else blocks[:half] + blocks[-half:]
    return [CodeBlock(block.language, block.source[:MAX_CHARS]) for block in kept]


def asks_for_code(query: str) -> bool:
    """Tell whether a query asks to write code: a function, a script, a command, SQL, a regular expression."""
    return _asks(_asking_part(query))


# ---- where the code is


@lru_cache(maxsize=64)
def _asks(part: str) -> bool:
    return bool(PATTERNS.asks_code.search(part))


def _blocks(text: str) -> list[CodeBlock]:
    if "```" not in text and "~~~" not in text:
        return []
    blocks: list[CodeBlock] = []
    fence, indent, language, lines = "", 0, None, list[str]()
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if fence:
            bare = line.strip()
            ends = bare.strip(">").lstrip()
            closed = len(ends) >= len(fence) and not ends.strip(fence[0])
            glued = not closed and fence[0] == "`" and bare.endswith(fence) and bare.count("`") == len(fence)
            if glued:
                lines.append(line.rstrip()[: -len(fence)])
            if closed or glued:
                blocks.append(CodeBlock(language, "\n".join(lines)))
                fence = ""
            else:
                lines.append(_outdented(line, indent))
        elif "```" in line or "~~~" in line:
            single = _WORDS.one_line.fullmatch(line.strip())
            opening = None if single else _opening(line)
            if single:
                blocks.append(_single(single[1].strip()))
            elif opening:
                fence, indent, language = opening
                lines = []
    if fence:
        blocks.append(CodeBlock(language, "\n".join(lines)))
    return blocks


def _opening(line: str) -> tuple[str, int, str | None] | None:
    """Read a line that opens a block: its fence, how far it is indented, its language."""
    match = _WORDS.fence.fullmatch(line[:2000])
    if not match:
        return None
    before, info = match["before"], match["info"].strip()
    tag = _WORDS.tag.match(info)
    if not _WORDS.before.fullmatch(before):  # "Use: ```bash" is no Markdown, but is written
        if match["fence"][0] == "~" or not before.rstrip().endswith(":") or len(info.split()) > 1:
            return None
        before = ""
    return match["fence"], len(before.expandtabs(4)), tag[1].lower() if tag else None


def _single(content: str) -> CodeBlock:
    """Read a block written on one line; a first word that is a language's is its language."""
    word, _, rest = content.partition(" ")
    is_known = _language(word.lower()) in {*_LAYOUTS, "json", "regex"} and word not in _WORDS["commands"]
    return CodeBlock(word.lower(), rest.strip()) if is_known and rest.strip() else CodeBlock(None, content)


def _outdented(line: str, indent: int) -> str:
    """Drop up to so many columns of white space or quoting before a line."""
    at = 0
    while at < indent and at < len(line) and line[at] in " \t>":
        at += 1
    return line[at:]


def _asking_part(query: str) -> str:
    """Take what a query asks: not the code it quotes, and of a long one both ends."""
    if len(query) > _MAX_QUERY:
        query = f"{query[: _MAX_QUERY // 2]}\n{query[-_MAX_QUERY // 2 :]}"
    parts = re.split(r"(?m)^[ \t]*(?:`{3,}|~{3,})", query)
    return re.sub(r"[ \t]+", " ", "\n".join(parts[::2]))


@cache
def _asked_patterns() -> dict[str, re.Pattern[str]]:
    named = _WORDS.entries["asked"] | {name: name for name in _WORDS.entries["asked"]["themselves"].split()}
    del named["themselves"]
    return {name: re.compile(rf"(?<![\w.+#-])(?:{words})(?![\w+#])", re.IGNORECASE) for name, words in named.items()}


def _asked_language(query: str) -> str | None:
    text = _asking_part(query)
    named = [name for name, words in _asked_patterns().items() if words.search(text)]
    if len(named) > 1 and "shell" in named:
        named.remove("shell")
    return None if len(named) != 1 else "bash" if named[0] == "shell" else named[0]


def _unfenced(text: str, query: str) -> str | None:
    body = text.strip()
    if not body:
        return None
    asked = asks_for_code(query)
    spans = list({match[2] for match in _WORDS.span.finditer(text)}) if asked and len(text) <= _MAX_INLINE else []
    if len(spans) == 1:
        before, after = text[: text.index(spans[0])], text[text.rindex(spans[0]) + len(spans[0]) :]
        aside = len(before.split()) <= 14 and not after.strip("` \t\n.!:;") and not _WORDS.denial.search(before)
        return spans[0] if aside and not any(map(str.isdigit, before)) else None
    if "`" in text and asked and len(text) <= _MAX_INLINE and len(spans) > 1:
        return None
    language = _asked_language(query) if asked else None
    for candidate in _candidates(text, asked):
        tree = parse_python(_plain_python(candidate))
        if tree and (_is_strong(tree) or (asked and _says_something(tree) and language in {None, "python"})):
            return candidate
    return body if asked and _looks_like_code(body, language) else None


def _candidates(text: str, asked: bool) -> Iterator[str]:
    """List what may be the code of a text: all, or, if code is asked for, from its first definition on."""
    yield _dedented(text)
    start = _WORDS.starts.search(text) if asked else None
    if start:
        rest = text[start.start() :]
        for _ in range(4):
            yield rest
            rest = rest.rstrip().rpartition("\n\n")[0]
            if not rest:
                return


def _looks_like_code(body: str, language: str | None) -> bool:
    """Tell whether a text without fences is a command, a statement of SQL or a regular expression, and no prose."""
    if language == "sql" or (language is None and _WORDS.sql_start.match(body)):
        return bool(_WORDS.sql_start.match(body)) and len(body.split("\n\n")) == 1
    if "\n" in body or len(body) > _MAX_INLINE:
        return False
    if language == "regex":
        return " " not in body and bool(re.search(r"[\\^$\[\](){}*+?|]", body))
    if language in {None, "bash"}:
        word = _WORDS.prompt.sub("", body).split(" ", 1)[0]
        is_prose = re.search(r"[a-z]{2}[.!?]$| (?:is|are|the|to|will|lists|shows|prints) ", body)
        return word in _WORDS["commands"] and not is_prose
    return body.endswith((";", "}", ")")) and bool(re.search(r"[=({]", body))


# ---- from sources to normal forms


def _program(blocks: Sequence[tuple[str | None, str]], query: str, asked: str | None) -> Program:
    told = [_tell(tag, source, asked) for tag, source in blocks]
    parts: list[tuple[str, str]] = []
    heads: list[str] = []
    for language, group in groupby(told, key=lambda part: part[0]):
        sources = [source for _, source in group]
        forms = _python_forms(sources, query) if language == "python" else [_form(language, each) for each in sources]
        parts += [(language, form) for form, _ in forms]
        heads += [head for _, head in forms]
    return Program(tuple(parts), _shown(" | ".join(filter(None, heads))))


def _whole(text: str) -> Program:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Program((("", f"{len(text)}:{digest}"),), "")


def _shown(head: str) -> str:
    head = "".join(char if char.isprintable() else " " for char in " ".join(head.split()))
    return head if len(head) <= 32 else f"{head[:31]}…"


def _language(tag: str) -> str:
    return str(_ALIASES.get(tag, tag))


def _tell(tag: str | None, source: str, asked: str | None) -> tuple[str, str]:
    if tag and tag not in _WORDS["plain"]:
        language = "python" if _language(tag) == "bash" and _WORDS.doctest.match(source) else _language(tag)
    else:
        language = _guess(source, asked)
    if language == "python":
        return language, _plain_python(source)
    return language, _WORDS.prompt.sub("", source) if language == "bash" else source


def _guess(source: str, asked: str | None) -> str:
    if _WORDS.doctest.match(source):
        return "python"
    if _WORDS.prompt.match(source.lstrip()):
        return "bash"
    if source.lstrip()[:1] in {"{", "["} and asked != "python" and isinstance(values.parse_json(source), (dict, list)):
        return "json"
    tree = parse_python(_dedented(source)) if asked in {None, "python"} else None
    if tree and (_is_strong(tree) or (asked and _says_something(tree))):
        return "python"
    first = source.split(None, 1)[0] if source.strip() else ""
    if asked and not (asked == "python" and first in _WORDS["commands"]):
        return asked
    if _WORDS.sql_start.match(source):
        return "sql"
    return "bash" if first in _WORDS["commands"] else ""


def _plain_python(source: str) -> str:
    """Drop the prompts of an interactive session and what it printed."""
    if _WORDS.doctest.match(source):
        lines = map(_WORDS.doctest_line.fullmatch, source.splitlines())
        session = "\n".join(match[1] for match in lines if match)
        if parse_python(session):  # else what has no prompt may be no output
            return session
    return _dedented(source)


def _dedented(source: str) -> str:
    """Drop the white space that all lines begin with, ends of lines and empty lines around."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return textwrap.dedent("\n".join(map(str.rstrip, lines)).strip("\n"))


def _form(language: str, source: str) -> tuple[str, str]:
    """Write a source that is no Python in its normal form, and what a label shows of it."""
    source = _dedented(source)
    value = values.parse_json(source) if language == "json" else None
    if value is not None:
        return values.dump_json(value), ""
    tokens = _tokens(language, source) if language in _LAYOUTS else None
    if tokens is None:
        return "=" + source, source.split("\n", 1)[0][:60]
    return "\x1f".join(tokens), "".join(tokens).split("\n", 1)[0][:60] if _LAYOUTS[language] == "words" else ""


# ---- tokens of other languages


def _lex(language: str, source: str) -> list[tuple[str, str]]:
    """Cut a source into tokens, as names of types and texts."""
    from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped]  # noqa: PLC0415  # slow to import

    with _LOCK:  # a lexer builds its tables at its first use
        lexer = get_lexer_by_name(language, stripnl=False, startinline="<?" not in source)
    return [(str(kind).removeprefix("Token."), text) for kind, text in lexer.get_tokens(source)]


def _tokens(language: str, source: str) -> list[str] | None:
    """Write a source as tokens and the white space that means something between them; None where it is not to be cut."""
    if len(source) > _MAX_TOKENS or "\x1f" in source:
        return None
    found = _lex(language, source)
    if any(kind == "Error" for kind, _ in found):
        return None
    layout = _LAYOUTS[language]
    out: list[str] = []
    gap = "\n"  # the white space before the next token
    commented = False
    for kind, text in found:
        previous = out[-1] if out else ""
        commented = _is_comment(language, kind, text, gap, commented)
        if commented or text.isspace() or (text == "\\\n" and language == "bash"):
            space = (
                "".join(char for char in text if char.isspace()) if not commented else "\n" * text.count("\n") or " "
            )
            space = "" if text == "\\\n" else space
            if layout == "free" and kind.startswith("Comment.Preproc"):
                out.append("\n")
            gap += space
            continue
        mark = _gap_mark(language, layout, gap, previous, text)
        if mark:
            out.append(mark)
        out.append(_spelled(language, kind, text))
        gap = ""
    if language == "sql":
        _fold_calls(out)
    while out and (not out[-1].strip() or (out[-1] == ";" and language in {"sql", "javascript", "typescript"})):
        out.pop()
    return out


def _is_comment(language: str, kind: str, text: str, gap: str, commented: bool) -> bool:
    """Tell whether a token is a comment and nothing more; `commented` if the one before it was."""
    doc = kind == "Literal.String.Doc" and language == "rust"
    if not (kind.startswith("Comment") or doc) or "Preproc" in kind or "Hashbang" in kind:
        return False
    if commented and not gap.endswith("\n") and not text.startswith(_MEANING):
        return True  # some lexers cut a comment into pieces
    if text.startswith(_MEANING) and not (text.startswith("///") and language not in {"javascript", "typescript"}):
        return False
    if language in _HASHED:
        return bool(gap) or not text.startswith("#")
    return text.startswith(_COMMENTS.get(language, _DASHED))


def _gap_mark(language: str, layout: str, gap: str, previous: str, text: str) -> str:
    """Write the white space before a token as far as it means something."""
    if layout == "indented" and "\n" in gap:
        return "\n" + gap.rpartition("\n")[2] if previous else ""
    if not gap or not previous or not previous.strip():
        return ""
    if layout != "free" and "\n" in gap:
        within = layout == "lines" and (previous[-1] in "{([," or text[0] in "})]")
        return "" if within else "\n"
    if layout == "words":
        return " "
    left, right = previous[-1], text[0]
    if language == "css":
        return "" if left in "{};:,>(" or right in "{};,>)" else " "
    restricted = {"++", "--", "return", "throw", "break", "continue", "yield", "async"}
    if "\n" in gap and language in {"javascript", "typescript"} and (previous in restricted or text in {"++", "--"}):
        return "\n"
    words = (left.isalnum() or left in "_$") and (right.isalnum() or right in "_$@")
    return " " if words or left + right in _WORDS["joins"] or (left == right and left in "'\"`") else ""


def _spelled(language: str, kind: str, text: str) -> str:
    if language == "sql" and kind.startswith(("Keyword", "Name.Builtin", "Operator.Word")):
        return " ".join(text.casefold().split())
    if language == "bash" and _WORDS.quoted.fullmatch(text):
        return f"'{text[1:-1]}'"
    return " ".join(text.split()) if kind.startswith("Comment.Preproc") else text


def _fold_calls(out: list[str]) -> None:
    """Write the names of SQL's functions in one case: names before a bracket that stand where a value does."""
    for at in range(1, len(out) - 1):
        values_stand = out[at - 1] in {"select", "distinct", ",", "(", "=", "+", "-", "*", "/", "<", ">"} or (
            out[at - 1] == " "
            and at > 1
            and out[at - 2] in {"select", "distinct", "by", "and", "or", "having", "where"}
        )
        if out[at + 1] == "(" and values_stand and out[at].isidentifier():
            out[at] = out[at].casefold()


# ---- Python


def _python_forms(sources: Sequence[str], query: str) -> list[tuple[str, str]]:
    """Write consecutive sources of Python in normal form: those that parse as one program, the others by their tokens."""
    forms: list[tuple[str, str]] = []
    parsed = [(source, parse_python(source)) for source in sources]
    for is_python, group in groupby(parsed, key=lambda pair: pair[1] is not None):
        members = list(group)
        if is_python:
            body = [statement for _, tree in members for statement in _bodied(tree.body if tree else [])]
            try:
                forms.append(_Normal(body, query).written())
            except RecursionError:  # a caller that is deep in the stack already
                forms += [_python_tokens(source) for source, _ in members]
        else:
            forms += [_python_tokens(source) for source, _ in members]
    return forms


def _python_tokens(source: str) -> tuple[str, str]:
    tokens = _tokens("python", source)
    return ("=" + source if tokens is None else "~" + "\x1f".join(tokens)), ""


def parse_python(source: str) -> ast.Module | None:
    """Parse Python without a warning, whatever it holds; None where it is not Python, or too large or deep."""
    if len(source) > _MAX_PYTHON:
        return None
    if warnings.filters[:1] != [_QUIET]:  # a filter for sources of this name alone, which changes nothing for others
        warnings.filterwarnings("ignore", module=_SOURCE)
    try:
        tree = ast.parse(source, _SOURCE)
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):
        return None
    level: list[ast.AST] = [tree]
    for _ in range(_MAX_TREE):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree if tree.body else None
    return None


def _is_strong(tree: ast.Module) -> bool:
    return any(isinstance(node, _STRONG) for node in tree.body) or any(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "print"
        for node in tree.body
    )


def _says_something(tree: ast.Module) -> bool:
    """Tell whether a tree is more than a name, a literal, an annotation, or names with signs between them."""
    plain = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Tuple, ast.Load, ast.operator, ast.unaryop)
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.value is None:
            continue
        if not isinstance(node, (ast.Expr, ast.Pass)):
            return True
        if not all(isinstance(inner, plain) for inner in ast.walk(node.value if isinstance(node, ast.Expr) else node)):
            return not isinstance(node, ast.Pass)
    return False


def _bodied(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0].value if body and isinstance(body[0], ast.Expr) else None
    documented = isinstance(first, ast.Constant) and isinstance(first.value, str)
    return body[1:] if documented else body


@dataclass(eq=False, slots=True)
class _Scope:
    """Names of one scope of Python: those bound there, those declared to lie outside, those that keep their names."""

    kind: str
    parent: "_Scope | None"
    bound: Counter[str] = field(default_factory=Counter)
    brief: Counter[str] = field(default_factory=Counter)  # of those bound: targets of loops, `with` and `except`
    outer: set[str] = field(default_factory=set)
    nonlocals: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)

    def binds(self, name: str) -> bool:
        return name in self.bound and name not in self.outer and name not in self.nonlocals


class _Normal(ast.NodeTransformer):
    """Makes the normal form of a module's statements.

    Every name that may be another becomes the number of its first appearance, so that two programs with equal forms
    differ by a renaming at most: numbers belong to pairs of scope and name, never to names alone.
    """

    def __init__(self, body: list[ast.stmt], query: str) -> None:
        self.body = body
        self.numbers: dict[tuple[int, str], int] = {}
        nodes = [node for statement in body for node in ast.walk(statement)]
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        used = attributes | {node.id for node in nodes if isinstance(node, ast.Name)}
        modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        modules += [node.name for node in nodes if isinstance(node, ast.alias)]
        used |= {part for module in modules for part in module.split(".")}
        strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        self.renames = not (
            used & _WORDS["self_aware"]
            or attributes & _WORDS["reads_names"]
            or any(getattr(node, "type_params", None) for node in nodes)
        )
        self.documented = bool(used & _WORDS["reads_docs"])
        keywords = [node for node in nodes if isinstance(node, ast.keyword)]
        self.keywords = {keyword.arg for keyword in keywords if keyword.arg}
        if any(keyword.arg is None for keyword in keywords):
            self.keywords |= set(strings)
        self.named, self.signatures, self.listed = _named_by(_asking_part(query))
        self.scope = self.module = _scope_of("module", None, body)
        self.scopes = [self.module]  # keeps them alive: numbers go by identity
        self.free = self._free_names(nodes, strings)

    def written(self) -> tuple[str, str]:
        """Write the form and what a label shows of it."""
        first = next((node for node in self.body if isinstance(node, (*_FUNCTIONS, ast.ClassDef))), None)
        head = "" if first is None else "class" if isinstance(first, ast.ClassDef) else "def"
        name = "" if first is None or first.name in self.free else first.name
        body = self._within(self.module, self.body)
        used = {node.id for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name)}
        forms: list[str] = []
        for imports, group in groupby(body, key=lambda node: isinstance(node, (ast.Import, ast.ImportFrom))):
            statements = list(group)
            forms += _imports(statements, used) if imports else map(ast.dump, statements)
        return "\n".join(forms or ["Pass()"]), f"{head} {name}".strip()

    def _free_names(self, nodes: list[ast.AST], strings: list[str]) -> set[str]:
        """Name what nobody else uses of the names at the top: targets of loops and the like, and the one function."""
        if not self.renames or any(isinstance(node, ast.alias) and node.name == "*" for node in nodes):
            return set()
        bound, brief = self.module.bound, self.module.brief
        free = {name for name, count in brief.items() if count == bound[name]}
        functions = [node for node in self.body if isinstance(node, _FUNCTIONS)]
        if len(functions) == 1 and not any(isinstance(node, ast.ClassDef) for node in self.body):
            name = functions[0].name
            alone = bound[name] == 1 and name not in self.keywords and not name.startswith(("_", "test"))
            free |= {name} if alone and not _is_foreign(functions[0]) else set()
        declared = {name for node in nodes if isinstance(node, (ast.Global, ast.Nonlocal)) for name in node.names}
        free -= declared | self.named | set(dir(builtins))  # a name may mean the built-in until it is bound
        return {name for name in free if not any(name in text for text in strings)}

    def _name(self, name: Any) -> Any:
        """Write a name: its number if it may be another, else itself."""
        where: _Scope | None = self.scope
        while where is not None and where.kind != "module":
            if name in where.outer:
                where = None
                break
            if (where is self.scope or where.kind != "class") and where.binds(name):
                break
            where = where.parent
        if not isinstance(name, str) or not self.renames or (name.startswith("__") and not name.endswith("__")):
            return name
        local = where is not None and where.kind in {"function", "comprehension"} and name not in where.kept
        if local or (name in self.free and (where is None or where.kind == "module")):
            owner = where if local and where is not None else self.module
            return f"${self.numbers.setdefault((id(owner), name), len(self.numbers))}"
        return name

    def _all(self, nodes: Iterable[ast.AST | None]) -> list[Any]:
        return [None if node is None else self.visit(node) for node in nodes]

    def _within(self, scope: _Scope, nodes: Sequence[ast.AST | None]) -> list[Any]:
        self.scopes.append(scope)
        outer, self.scope = self.scope, scope
        made = self._all(nodes)
        self.scope = outer
        return made

    def visit(self, node: Any) -> Any:
        """Make the form of a part of the tree, which it changes."""
        match node:
            case ast.Name():
                node.id = self._name(node.id)
            case ast.Constant():
                # hexadecimal, since Python refuses to write long numbers as decimals
                value = node.value
                return ast.Constant(hex(value), kind="int") if type(value) is int else ast.Constant(value)
            case ast.JoinedStr() if all(isinstance(part, ast.Constant) for part in node.values):
                return ast.Constant("".join(str(getattr(part, "value", "")) for part in node.values))
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node)
            case ast.Lambda():
                inner = self._parameters(node.args, [node.body], keep=False, is_foreign=False, function="")
                (node.body,) = self._within(inner, [node.body])
            case ast.arg():
                node.arg = self._name(node.arg)
            case ast.ClassDef():
                body = node.body if self.documented or node.decorator_list else _bodied(node.body)
                node.decorator_list, node.bases = self._all(node.decorator_list), self._all(node.bases)
                node.keywords = self._all(node.keywords)
                node.body = self._within(_scope_of("class", self.scope, body), body) or [ast.Pass()]
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node)
            case ast.ExceptHandler() | ast.MatchAs() | ast.MatchStar():
                self.generic_visit(node)
                node.name = self._name(node.name)
            case ast.MatchMapping():
                self.generic_visit(node)
                node.rest = self._name(node.rest)
            case ast.Global():
                node.names.sort()
            case ast.Nonlocal():
                node.names = [self._name(name) for name in node.names]
            case ast.alias() if node.name != "*":
                top = node.name.partition(".")[0]
                is_top = node.asname is None and top != node.name  # "import a.b" names a
                node.asname = f"{'top ' if is_top else ''}{self._name(node.asname or top)}"
            case ast.AnnAssign(target=ast.Name(), value=ast.expr() as value) if (
                node.simple and self.scope.kind != "class" and _is_type(node.annotation)
            ):
                return self.visit(ast.Assign([node.target], value))
            case _:
                self.generic_visit(node)
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        is_foreign = _is_foreign(node)
        keep = is_foreign or (self.scope.kind == "module" and node.name.startswith("test"))
        body = node.body if self.documented or is_foreign else _bodied(node.body)
        node.decorator_list = self._all(node.decorator_list)
        inner = self._parameters(node.args, body, keep=keep, is_foreign=is_foreign, function=node.name)
        counts = node.returns is not None and (is_foreign or not _is_type(node.returns))
        node.returns = self.visit(node.returns) if counts else None
        node.name = self._name(node.name)
        node.body = self._within(inner, body) or [ast.Pass()]

    def _parameters(
        self, args: ast.arguments, body: Iterable[ast.AST], *, keep: bool, is_foreign: bool, function: str
    ) -> _Scope:
        """Make the form of parameters and return the scope of the function."""
        inner = _scope_of("function", self.scope, body)
        named = [arg.arg for arg in _arguments(args)]
        inner.bound.update(named)
        places = [arg.arg for arg in (*args.posonlyargs, *args.args)]
        places = places[1:] if places[:1] in (["self"], ["cls"]) else places
        only = next(iter(self.signatures.values())) if len(self.signatures) == 1 else self.listed
        order = [name for name in self.signatures.get(function, only) if name != function]
        moved = {name for at, name in enumerate(places) if name in order and order.index(name) != at}
        inner.kept |= {arg.arg for arg in args.kwonlyargs} | (self.keywords & set(named)) | moved
        inner.kept |= set(named) if keep else set()
        args.defaults, args.kw_defaults = self._all(args.defaults), self._all(args.kw_defaults)
        for arg in _arguments(args):
            counts = arg.annotation is not None and (is_foreign or not _is_type(arg.annotation))
            arg.annotation = self.visit(arg.annotation) if counts else None
        self._within(inner, _arguments(args))
        return inner

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        inner = _Scope("comprehension", self.scope)
        for generator in node.generators:
            inner.bound.update(_stored(generator.target))
        node.generators[0].iter = self.visit(node.generators[0].iter)
        for at, generator in enumerate(node.generators):
            if at:
                (generator.iter,) = self._within(inner, [generator.iter])
            (generator.target,) = self._within(inner, [generator.target])
            generator.ifs = self._within(inner, generator.ifs)
        for part in ("key", "value") if isinstance(node, ast.DictComp) else ("elt",):
            setattr(node, part, *self._within(inner, [getattr(node, part)]))


def _imports(group: Iterable[Any], used: set[str]) -> list[str]:
    """Write imports that follow each other, one name each, sorted unless one hides another; without those for annotations."""
    lines: list[str] = []
    bound: list[str] = []
    for node in group:
        module = getattr(node, "module", None)
        for alias in node.names:
            name = (alias.asname or alias.name).removeprefix("top ")
            is_idle = module in {"typing", "typing_extensions", "collections.abc"} and name not in used and name != "*"
            if not is_idle and not (module == "__future__" and alias.name == "annotations"):
                bound.append(name)
                lines.append(f"import {module!r} {getattr(node, 'level', 0)} {ast.dump(alias)}")
    return sorted(lines) if len(set(bound)) == len(bound) and "*" not in bound else lines


def _scope_of(kind: str, parent: _Scope | None, body: Iterable[ast.AST]) -> _Scope:
    scope = _Scope(kind, parent)
    todo: list[tuple[ast.AST, bool]] = [(node, False) for node in body]
    while todo:
        node, in_comprehension = todo.pop()
        inner: Iterable[ast.AST | None] = ast.iter_child_nodes(node)
        match node:
            case ast.Name(ctx=ast.Store() | ast.Del()) if not in_comprehension:
                scope.bound[node.id] += 1
            case ast.NamedExpr():
                scope.bound[node.target.id] += 1
                inner = [node.value]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                scope.bound[node.name] += 1
                scope.kept.update([node.name] if _is_foreign(node) else [])
                annotations = [arg.annotation for arg in _arguments(node.args)]
                inner = [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults, node.returns, *annotations]
            case ast.Lambda():
                inner = [*node.args.defaults, *node.args.kw_defaults]
            case ast.ClassDef():
                scope.bound[node.name] += 1
                scope.kept.add(node.name)
                inner = [*node.decorator_list, *node.bases, *node.keywords]
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                in_comprehension = True
            case ast.alias():
                scope.bound[node.asname or node.name.partition(".")[0]] += 1
            case ast.ExceptHandler(name=str(name)):
                scope.bound[name] += 1
                scope.brief[name] += 1
            case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
                scope.bound[name] += 1
            case ast.For(target=target) | ast.AsyncFor(target=target):
                scope.brief.update(_stored(target))
            case ast.withitem(optional_vars=ast.AST() as target):
                scope.brief.update(_stored(target))
            case ast.Global():
                scope.outer.update(node.names)
            case ast.Nonlocal():
                scope.nonlocals.update(node.names)
        todo += [(child, in_comprehension) for child in inner if child is not None]
    return scope


def _stored(target: ast.AST) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _arguments(args: ast.arguments) -> list[ast.arg]:
    starred = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *starred]


def _is_type(node: ast.AST) -> bool:
    """Tell whether an annotation names types and does nothing."""
    return all(isinstance(part, (*_TYPES, ast.Load)) for part in ast.walk(node))


def _is_foreign(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a decorator may look at the function's names, annotations or docstring."""
    for decorator in node.decorator_list:
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        names = [part.id for part in ast.walk(function) if isinstance(part, ast.Name)]
        names += [part.attr for part in ast.walk(function) if isinstance(part, ast.Attribute)]
        if not names or not set(names) <= _WORDS["neutral"]:
            return True
    return False


@lru_cache(maxsize=64)
def _named_by(text: str) -> tuple[frozenset[str], dict[str, list[str]], list[str]]:
    """Read the names that a query's asking part gives: all, the parameters of each function it writes out, those it sets apart in order."""
    signatures: dict[str, list[str]] = {}
    for match in _WORDS.signature.finditer(text):
        named = (_WORDS.identifier.match(part.strip()) for part in match[2].split(","))
        signatures[match[1]] = [name[0] for name in named if name]
    names: set[str] = set()
    listed: list[str] = []
    for match in _WORDS.query_names.finditer(text):
        found = _WORDS.identifier.findall(next(filter(None, match.groups()), ""))
        names.update(found)
        if match[1] and _WORDS.identifier.fullmatch(match[1]):
            listed.append(match[1])
    return frozenset(names), {name: order for name, order in signatures.items() if order}, list(dict.fromkeys(listed))
