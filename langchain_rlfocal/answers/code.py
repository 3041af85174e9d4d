r"""Code: two answers that hold programs are the same if the programs are, whatever their names, layout and comments.

| language | read by | what does not count |
|---|---|---|
| Python | `ast` | layout, comments, quotes, docstrings, annotations, order of imports at the top, names of parameters and locals |
| C, C++, C#, CSS, Dart, Go, Java, JavaScript, Kotlin, Lua, PHP, R, Rust, SQL, TypeScript | Pygments | layout, comments |
| Bash and other shells, Elixir, Julia, PowerShell, Ruby, Swift | Pygments | comments, indentation, how wide a gap is |
| JSON | `values` | layout, order of keys, 1 or 1.0 |
| all others, and all without Pygments | the text | white space at the ends of lines, empty lines around |

- Code stands in fences; all blocks count, in order, and consecutive blocks of Python are one program. What is written
  around them does not count, nor do blocks of `text` and `output` beside others. Without fences the whole text is code
  if it is Python with a statement in it, or if the query asks for code and the text is one command or statement.
- A language that no fence names is told by prompts, by parsing, by the query, by the first word.
- Names in Python follow scopes: a parameter or a local may be called otherwise, if it is so everywhere. Names that
  somebody else may use stay: globals, attributes, classes, methods, keyword-only parameters, parameters that a call in
  the code names, those that the query lists at another place, all of a function with a foreign decorator, and all
  where the code looks at its own names (`locals`, `eval`). At the top, the one function (beside no class) and the
  targets of loops, `with` and `except` may be called otherwise, unless a string or the query holds the name.
- Annotations count in class bodies, without a value, where they call something, and under foreign decorators, which
  read them; so do docstrings under foreign decorators and where the code reads docstrings.
- Quotes, operators, literals, default values, the order of parameters and of statements count.
- SQL: the case of keywords and a last semicolon do not count. Shells: the kind of quotes does not, where nothing in them
  is special. Prompts (`$ `, `>>> `) are dropped.

Refuses to run, to rewrite or to prove anything: `2 * x` and `x + x` differ. Python of more than `_MAX_PYTHON`
characters, with brackets deeper than `_MAX_BRACKETS` or a tree deeper than `_MAX_TREE`, counts by its tokens; other
languages beyond `_MAX_TOKENS` characters by their text; a text beyond `MAX_CHARS` by every character.
"""

import ast
import builtins
import hashlib
import importlib
import json
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any

from langchain_rlfocal.answers import values
from langchain_rlfocal.answers.values import MAX_CHARS

_MAX_BLOCKS = 64
_MAX_PYTHON = 50_000
_MAX_BRACKETS = 60
_MAX_TREE = 120  # levels of a syntax tree: each takes two frames of Python's stack, of which a caller may use half
_MAX_TOKENS = 4_000  # some patterns of Pygments take time that grows with the square of the text
_MAX_QUERY = 4_000
_MAX_INLINE = 400

_LEXERS = {
    **dict.fromkeys(("c", "cpp", "csharp", "dart", "java", "javascript", "typescript", "php", "rust", "lua"), "free"),
    **dict.fromkeys(("sql", "css"), "free"),
    **dict.fromkeys(("go", "kotlin", "r"), "lines"),
    **dict.fromkeys(("bash", "elixir", "julia", "powershell", "ruby", "swift"), "words"),
    "python": "indented",
}
"""Languages that are compared by tokens, by what white space means there: nothing; ends of lines do; gaps too; all does."""

_ALIASES = {
    **dict.fromkeys(("py", "python3", "py3", "python2", "pycon", "ipython", "ipython3", "pyi"), "python"),
    **dict.fromkeys(("sh", "shell", "zsh", "ksh", "console", "terminal", "shell-session", "shellsession"), "bash"),
    **dict.fromkeys(("bash-session", "shellscript", "cmd-line", "commandline", "fish"), "bash"),
    **dict.fromkeys(("js", "mjs", "cjs", "node", "nodejs", "jsx", "ecmascript"), "javascript"),
    **dict.fromkeys(("ts", "tsx"), "typescript"),
    **dict.fromkeys(("c++", "cc", "cxx", "hpp"), "cpp"),
    **dict.fromkeys(("c#", "cs"), "csharp"),
    **dict.fromkeys(("mysql", "postgresql", "postgres", "psql", "sqlite", "sqlite3", "tsql", "plsql"), "sql"),
    **dict.fromkeys(("ps1", "pwsh", "posh"), "powershell"),
    **dict.fromkeys(("regexp", "re"), "regex"),
    "h": "c",
    "golang": "go",
    "rb": "ruby",
    "rs": "rust",
    "kt": "kotlin",
    "pl": "perl",
    "ex": "elixir",
    "jl": "julia",
    "yml": "yaml",
    "make": "makefile",
    "docker": "dockerfile",
    "htm": "html",
    "jsonc": "json5",
}
_PLAIN = frozenset(["text", "txt", "plain", "plaintext", "output", "stdout", "result", "none"])
_COMMENTS = {"sql": ("--", "/*"), "lua": ("--",), "css": ("/*",), "php": ("//", "/*", "#")}
_DASHED = ("//", "/*")
_HASHED = frozenset(["bash", "elixir", "julia", "powershell", "python", "r", "ruby"])
_MEANING = ("//go:", "// +build", "/*+", "/*!", "///", "// @ts-", "#!", "#[")
"""Comments that are more than comments: directives, hints, attributes."""

_FENCE = re.compile(r"(?P<before>[^`~\n]*+)(?P<fence>`{3,}+|~{3,}+)(?P<info>[^`\n]*)")
_BEFORE = re.compile(r"[ \t>]*(?:(?:[-*+•]|[0-9]{1,3}[.)])[ \t]+)?")
_TAG = re.compile(r"[{\s.]{0,4}([A-Za-z][\w+#.-]{0,30})", re.ASCII)
_SPAN = re.compile(r"(?<!`)(`{1,2})(?!`)([^`\n]{1,400}?)(?<!`)\1(?!`)")
_ONE_LINE = re.compile(r"`{3,}+([^`\n]{1,400})`{3,}")
_THOUGHT = re.compile(r"(?<![\"'`])</think>(?![\"'`])")
_DENIAL = re.compile(
    r"\b(?:not?|never|none|nor|cannot|without|except|instead|avoid|wrong|rather|unless|neither)\b|n't\b", re.IGNORECASE
)

_MAKES = r"(?:write|implement|create|code|program|define|complete|fix|refactor|rewrite|convert|translate|port|generate)"
_SHOWS = r"(?:give|show|provide|build|produce|need|want|return|output|make|tell|suggest|find|finish|correct|debug|optimi[sz]e)"
_CLEAR = (
    r"(?:(?:sql|bash|shell|python|powershell|linux|unix|git|docker|kubectl|terminal|awk|sed|grep|jq|javascript|js|java|"
    r"typescript|go|rust|ruby|php|perl|r|c|c\+\+|c#|css|html|graphql|cypher|mongodb)\s+(?:\w+\s+){0,2}?"
    r"(?:code|functions?|scripts?|programs?|class(?:es)?|methods?|commands?|query|queries|statements?|snippets?|"
    r"expressions?|one-?liners?|modules?|decorators?|generators?|rules?|implementation)"
    r"|(?:list|dict|dictionary|set|generator)\s+comprehensions?|regex(?:es|p)?|regular expressions?|code snippets?|"
    r"source code|pseudocode|one-?liners?|sql|unit tests?|lambda)"
)
_LOOSE = r"(?:functions?(?! of (?:the|an?|its|your)\b)|scripts?(?= (?:that|to|which|for))|code(?! of\b)|methods?(?= (?:that|which))|sub-?routines?)"
_NAMED = (
    r"(?:python|javascript|js|node(?:\.js)?|typescript|java|c\+\+|c#|c(?! (?:major|minor|sharp|flat))|sql|bash|shell|"
    r"powershell|ruby|php|rust|golang|go|kotlin|swift|perl|haskell|scala|lua|julia|dart|r|pandas|numpy|html|css)"
)
_ASKS_CODE = re.compile(
    rf"\b{_MAKES}\b[^.?!\n]{{0,80}}?\b(?:{_CLEAR}|{_LOOSE}|programs?(?= (?:that|to|which))|class(?= (?:that|called|named|with|for)))(?!\w)"
    rf"|\b{_SHOWS}\b[^.?!\n]{{0,60}}?\b(?:{_CLEAR}|code(?= (?:that|to|for|which))|commands?(?= (?:that|to|for|which)))(?!\w)"
    rf"|\b(?:{_MAKES}|how (?:do|can|would|should|to)(?: i| you| we| one)?)\b[^.?!\n]{{0,80}}? (?:in|using|with) {_NAMED}(?![\w+#])"
    r"|\b(?:which|what)(?:'s| is| are)? (?:the |a |an )?(?:[\w.+#-]+ ){0,3}?"
    r"(?:(?<!in )(?<!of )commands?(?! of| over| economy)|regex|regular expression|one-?liner|sql(?: query| statement)?)(?!\w)"
    r"|^\W{0,4}(?:an? |the )?(?:python|bash|shell|sql|javascript|powershell|regex|regular expression|one-?liner|code)"
    r"(?: \w+){0,2} (?:that|to|which|for)\b"
    r"|\b(?:implement|write|code)\b[^.?!\n]{0,30}?\b(?:\w{1,20}sort|algorithm|fizz-?buzz|binary search|hello,? world)\b"
    r"|^\W{0,4}(?:reverse|sort|sum|count|find|compute|calculate|check|read|print|parse|merge|split|remove|flatten|filter|join)"
    rf"\b[^.?!\n]{{0,80}}? (?:in|using|with) {_NAMED}(?![\w+#])"
    r"|\bdef \w{1,40}\(",
    re.IGNORECASE,
)
_ASKED = (
    ("python", r"python\d?|pandas|numpy"),
    ("sql", r"sql|mysql|postgres(?:ql)?|sqlite"),
    ("javascript", r"javascript|js|node(?:\.js)?"),
    ("typescript", r"typescript"),
    ("powershell", r"powershell"),
    ("regex", r"reg(?:ular )?ex(?:p|pression)?s?"),
    ("java", r"java"),
    ("cpp", r"c\+\+"),
    ("csharp", r"c#"),
    ("c", r"(?:in|ansi) c|c (?:code|function|program)"),
    ("go", r"golang|in go|go (?:code|function|program)"),
    *(
        (name, name)
        for name in ("ruby", "rust", "php", "perl", "kotlin", "swift", "scala", "lua", "julia", "dart", "css")
    ),
    *((name, name) for name in ("html", "haskell", "yaml", "json")),
)
_ASKED_LANGUAGES = tuple(
    (name, re.compile(rf"(?<![\w.+#-])(?:{words})(?![\w+#])", re.IGNORECASE)) for name, words in _ASKED
)
_ASKED_SHELL = re.compile(r"\b(?:bash|shell|terminal|command[- ]line|commands?|zsh|linux|unix)\b", re.IGNORECASE)

_PROMPT = re.compile(r"^(?:\([\w.-]{1,30}\) ?)?(?:[\w.-]{1,40}@[\w.-]{1,60}[: ][^$\n]{0,80})?\$ ", re.MULTILINE)
_QUOTED = re.compile(r"\"[^\"$`\\!']*\"")
"""A string of a shell in which nothing is special: both kinds of quotes say the same."""
_DOCTEST = re.compile(r"\s*(?:>>>|In \[[0-9]{1,4}\]:)(?: |$)", re.MULTILINE)
_DOCTEST_LINE = re.compile(r"[ \t]*(?:>>>|\.\.\.|In \[[0-9]{1,4}\]:|\.\.\.:)(?: |$)(.*)")
_SQL_START = re.compile(
    r"\s*(?:select\s+\S|insert\s+into\s|update\s+\S+\s+set\s|delete\s+from\s|create\s+(?:or\s|table|view|index|unique)|"
    r"alter\s+table\s|drop\s+(?:table|view|index|database)\s|with\s+(?:recursive\s+)?\w+\s*(?:\([^)]{0,200}\)\s*)?as\s*\()",
    re.IGNORECASE,
)
_COMMANDS = frozenset(
    re.findall(
        r"\S+",
        "apt apt-get awk aws az base64 bash brew cargo cat cd chgrp chmod chown conda cp crontab curl cut date dd df diff dig "
        "docker docker-compose du echo env export find firewall-cmd flutter free gcloud git go gradle grep gunzip gzip head "
        "helm hostname htop id ifconfig ip jobs journalctl jq kill killall kubectl less ln ls lsblk lscpu lsof make md5sum mkdir "
        "mount mv mvn mysql mysqldump nc netstat nmap node npm npx openssl passwd pgrep ping pip pip3 pkill pnpm podman printf "
        "ps psql pwd python python3 rails redis-cli rm rmdir rsync scp sed seq service sha256sum sort source ss ssh ssh-keygen "
        "stat su sudo systemctl tail tar tee terraform top touch tr traceroute tree uname uniq unzip uptime useradd usermod "
        "watch wc wget which who whoami xargs yarn yum zip",
    )
)

_PIECE = re.compile(
    r"""\#[^\n]*
    |(?P<prefix>\b[A-Za-z]{1,2})?(?:
        \"\"\"(?P<long>(?:[^\\]|\\.)*?)\"\"\" | '''(?P<other_long>(?:[^\\]|\\.)*?)'''
      | "(?P<short>(?:[^"\\\n]|\\.)*+)" | '(?P<other_short>(?:[^'\\\n]|\\.)*+)'
    )
    |[()\[\]{}]|\\.?|["']""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\([4-7][0-7]{2}|.)", re.DOTALL)
_ESCAPES = frozenset("\n\\'\"abfnrtv01234567x")
_GLUED = re.compile(r"(?<![\w.])[0-9][\w.]*?(?:and|else|for|if|in|is|or|not)\b")
_LEAVES_FINALLY = re.compile(r"\bfinally\s*:")

_SELF_AWARE = frozenset(
    re.findall(
        r"\S+",
        "locals vars eval exec dir globals inspect _getframe f_locals __code__ currentframe",
    )
)
"""Names of what looks at a program's own names."""
_READS_NAMES = frozenset(["query", "evaluate"])
"""Methods that look at them within strings, such as those of pandas."""
_READS_DOCS = frozenset(["__doc__", "doctest", "getdoc"])
_NEUTRAL = frozenset(
    re.findall(
        r"\S+",
        "staticmethod classmethod property cache lru_cache cached_property wraps abstractmethod contextmanager "
        "asynccontextmanager override final total_ordering functools abc contextlib typing",
    )
)
"""Decorators, and modules of such, that look at nothing but what a function does."""
_TYPES = (ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.BinOp, ast.BitOr, ast.Tuple, ast.List)
_STRONG = (
    *(
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
        ast.Import,
        ast.ImportFrom,
        ast.For,
        ast.AsyncFor,
        ast.While,
    ),
    *(ast.If, ast.With, ast.AsyncWith, ast.Try, ast.Match, ast.Assert, ast.Raise),
)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_STARTS = re.compile(r"^(?:def |async def |class |import |from \w|@\w)", re.MULTILINE)

_IDENTIFIER = re.compile(r"[A-Za-z_]\w{0,60}")
_SIGNATURE = re.compile(r"\b([A-Za-z_]\w{0,60})\(([^()\n]{0,300})\)")
_QUERY_NAMES = re.compile(
    r"`([^`\n]{1,120})`|\"([A-Za-z_]\w{0,60})\"|'([A-Za-z_]\w{0,60})'"
    r"|\b(?:called|named|name|function|def|method|class)(?: is| it| be)?:? (?=([A-Za-z_]\w{0,60}))"
    r"|\b([A-Za-z]\w{0,40}(?:_\w{1,40}|[a-z0-9][A-Z]\w{0,40}))\b|\b([A-Za-z_]\w{0,60})\("
)

_JOINS = frozenset(
    re.findall(
        r"\S+",
        "++ -- += -= *= /= %= ^= |= &= << >> && || == != <= >= -> => ** // /* :: := ?? ?. .. =~ <- <> ~= !~ |> <| @> ## "
        "*. +. -. /. !! %% $$ @@ ?: &. ^^",
    )
)
"""Pairs of characters that say another thing when no white space stands between them."""

_LOCK = threading.Lock()


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """A block of code in a text.

    Attributes:
        language: The first word after the fence, in lower case; None where there is none.
        source: What stands between the fences, without their indentation.
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
        thought = [match.end() for match in _THOUGHT.finditer(text)]
        text = text[thought[-1] :] if thought and text[thought[-1] :].strip() else text
        if len(text) > MAX_CHARS:
            return _whole(text) if "```" in text or "~~~" in text else None
        blocks = [block for block in _blocks(text) if block.source.strip()]
        if len(blocks) > _MAX_BLOCKS:
            return _whole(text)
        if blocks:
            told = [block for block in blocks if block.language not in _PLAIN]
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


# ---- where the code stands


@lru_cache(maxsize=64)
def _asks(part: str) -> bool:
    return bool(_ASKS_CODE.search(part))


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
            single = _ONE_LINE.fullmatch(line.strip())
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
    match = _FENCE.fullmatch(line[:2000])
    if not match:
        return None
    before, info = match["before"], match["info"].strip()
    tag = _TAG.match(info)
    if not _BEFORE.fullmatch(before):  # "Use: ```bash" is no Markdown, but is written
        if match["fence"][0] == "~" or not before.rstrip().endswith(":") or len(info.split()) > 1:
            return None
        before = ""
    return match["fence"], len(before.expandtabs(4)), tag[1].lower() if tag else None


def _single(content: str) -> CodeBlock:
    """Read a block written on one line; a first word that is a language's is its language."""
    word, _, rest = content.partition(" ")
    known = _language(word.lower()) in {*_LEXERS, "json", "regex"} and word not in _COMMANDS and bool(rest.strip())
    return CodeBlock(word.lower(), rest.strip()) if known else CodeBlock(None, content)


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


def _asked_language(query: str) -> str | None:
    """Name the one language that a query asks for."""
    text = _asking_part(query)
    named = [name for name, words in _ASKED_LANGUAGES if words.search(text)]
    if named:
        return named[0] if len(named) == 1 else None
    return "bash" if _ASKED_SHELL.search(text) else None


def _unfenced(text: str, query: str) -> str | None:
    """Find the code of a text without fences."""
    body = text.strip()
    if not body:
        return None
    asked = asks_for_code(query)
    spans = list({match[2] for match in _SPAN.finditer(text)}) if asked and len(text) <= _MAX_INLINE else []
    if len(spans) == 1:
        before, after = text[: text.index(spans[0])], text[text.rindex(spans[0]) + len(spans[0]) :]
        aside = len(before.split()) <= 14 and not after.strip("` \t\n.!:;") and not _DENIAL.search(before)
        return spans[0] if aside and not any(map(str.isdigit, before)) else None
    if "`" in text and asked and len(text) <= _MAX_INLINE and len(spans) > 1:
        return None
    for candidate in _candidates(text, asked):
        tree = parse_python(_plain_python(candidate))
        if tree and (
            _is_strong(tree) or (asked and _says_something(tree) and _asked_language(query) in {None, "python"})
        ):
            return candidate
    return body if asked and _looks_like_code(body, _asked_language(query)) else None


def _candidates(text: str, asked: bool) -> Iterator[str]:
    """List what may be the code of a text: all, or, if code is asked for, from its first definition on."""
    yield _dedented(text)
    start = _STARTS.search(text) if asked else None
    if start:
        rest = text[start.start() :]
        for _ in range(4):
            yield rest
            rest = rest.rstrip().rpartition("\n\n")[0]
            if not rest:
                return


def _looks_like_code(body: str, language: str | None) -> bool:
    """Tell whether a text without fences is a command, a statement of SQL or a regular expression, and no prose."""
    if language == "sql" or (language is None and _SQL_START.match(body)):
        return bool(_SQL_START.match(body)) and len(body.split("\n\n")) == 1
    if "\n" in body or len(body) > _MAX_INLINE:
        return False
    if language == "regex":
        return " " not in body and bool(re.search(r"[\\^$\[\](){}*+?|]", body))
    if language in {None, "bash"}:
        word = _PROMPT.sub("", body).split(" ", 1)[0]
        return word in _COMMANDS and not re.search(r"[a-z]{2}[.!?]$| (?:is|are|the|to|will|lists|shows|prints) ", body)
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
    """Cut a head to what fits in a label."""
    head = "".join(char if char.isprintable() else " " for char in " ".join(head.split()))
    return head if len(head) <= 32 else f"{head[:31]}…"


def _language(tag: str) -> str:
    return _ALIASES.get(tag, tag)


def _tell(tag: str | None, source: str, asked: str | None) -> tuple[str, str]:
    """Tell the language of a source, and drop the prompts of that language."""
    if tag and tag not in _PLAIN:
        language = "python" if _language(tag) == "bash" and _DOCTEST.match(source) else _language(tag)
    else:
        language = _guess(source, asked)
    if language == "python":
        return language, _plain_python(source)
    return language, _PROMPT.sub("", source) if language == "bash" else source


def _guess(source: str, asked: str | None) -> str:
    if _DOCTEST.match(source):
        return "python"
    if _PROMPT.match(source.lstrip()):
        return "bash"
    if source.lstrip()[:1] in {"{", "["} and asked != "python" and isinstance(values.parse_json(source), (dict, list)):
        return "json"
    tree = parse_python(_dedented(source)) if asked in {None, "python"} else None
    if tree and (_is_strong(tree) or (asked and _says_something(tree))):
        return "python"
    first = source.split(None, 1)[0] if source.strip() else ""
    if asked and not (asked == "python" and first in _COMMANDS):
        return asked
    if _SQL_START.match(source):
        return "sql"
    return "bash" if first in _COMMANDS else ""


def _plain_python(source: str) -> str:
    """Drop the prompts of an interactive session and what it printed."""
    if _DOCTEST.match(source):
        lines = map(_DOCTEST_LINE.fullmatch, source.splitlines())
        session = "\n".join(match[1] for match in lines if match)
        if parse_python(session):  # else what has no prompt may be no output
            return session
    return _dedented(source)


def _dedented(source: str) -> str:
    """Drop the white space that all lines begin with, ends of lines and empty lines around."""
    lines = [line.rstrip() for line in source.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    start = next((at for at, line in enumerate(lines) if line), len(lines))
    lines = lines[start:]
    if not lines or not lines[0][0].isspace():
        return "\n".join(lines)
    common = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    for line in lines:
        while line and not line.startswith(common):
            common = common[:-1]
    return "\n".join(line[len(common) :] for line in lines)


def _form(language: str, source: str) -> tuple[str, str]:
    """Write a source that is no Python in its normal form, and what a label shows of it."""
    source = _dedented(source)
    value = values.parse_json(source) if language == "json" else None
    if value is not None:
        return values.dump_json(value), ""
    tokens = _tokens(language, source) if language in _LEXERS else None
    if tokens is None:
        return "=" + source, source.split("\n", 1)[0][:60]
    return "\x1f".join(tokens), "".join(tokens).split("\n", 1)[0][:60] if _LEXERS[language] == "words" else ""


# ---- tokens of other languages


def _lex(language: str, source: str) -> list[tuple[str, str]] | None:
    """Cut a source into tokens, as names of types and texts; None without Pygments."""
    try:
        with _LOCK:  # a lexer builds its tables at its first use
            lexer: Any = importlib.import_module("pygments.lexers").get_lexer_by_name(
                language, stripnl=False, startinline="<?" not in source
            )
    except (ImportError, ValueError):
        return None
    return [(str(kind).removeprefix("Token."), text) for kind, text in lexer.get_tokens(source)]


def _tokens(language: str, source: str) -> list[str] | None:
    """Write a source as tokens and the white space that means something between them; None where it is not to be cut."""
    if len(source) > _MAX_TOKENS or "\x1f" in source:
        return None
    found = _lex(language, source)
    if found is None or any(kind == "Error" for kind, _ in found):
        return None
    layout = _LEXERS[language]
    out: list[str] = []
    gap = "\n"  # what white space stands before the next token
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
    return " " if words or left + right in _JOINS or (left == right and left in "'\"`") else ""


def _spelled(language: str, kind: str, text: str) -> str:
    if language == "sql" and kind.startswith(("Keyword", "Name.Builtin", "Operator.Word")):
        return " ".join(text.casefold().split())
    if language == "bash" and _QUOTED.fullmatch(text):
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
            except RecursionError:  # a caller that stands deep in the stack already
                forms += [_python_tokens(source) for source, _ in members]
        else:
            forms += [_python_tokens(source) for source, _ in members]
    return forms


def _python_tokens(source: str) -> tuple[str, str]:
    tokens = _tokens("python", source)
    return ("=" + source if tokens is None else "~" + "\x1f".join(tokens)), ""


def parse_python(source: str) -> ast.Module | None:
    """Parse Python without a warning, whatever it holds; None where it is not Python, or too large or deep."""
    quiet = _quiet(source)
    if quiet is None:
        return None
    try:
        tree = ast.parse(quiet)
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):
        return None
    level: list[ast.AST] = [tree]
    for _ in range(_MAX_TREE):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return tree if tree.body else None
    return None


def _quiet(source: str) -> str | None:
    r"""Rewrite what the parser would warn about: `"\d"` as `"\\d"`, which is the same string.

    Filters of warnings belong to the whole process; no thread may change them for itself. None where a rewriting could
    change the meaning, or where the source is too large or deep to parse.
    """
    if len(source) > _MAX_PYTHON or "\0" in source or _GLUED.search(source):
        return None
    if sys.version_info >= (3, 14) and _LEAVES_FINALLY.search(source):
        return None
    out: list[str] = []
    end = depth = 0
    changed = raw_format = False
    for match in _PIECE.finditer(source):
        piece, prefix = match[0], (match["prefix"] or "").lower()
        group = match.lastgroup if match.lastgroup not in {None, "prefix"} else None
        if group:
            body = match[group]
            if "f" in prefix or "t" in prefix:
                raw_format |= "r" in prefix
            if "\\" in body and "r" not in prefix:
                escapes = _ESCAPES if "b" in prefix else _ESCAPES | set("NuU")
                if any(len(escape[1]) == 3 for escape in _ESCAPE.finditer(body)):
                    return None
                quiet = _ESCAPE.sub(lambda it, known=escapes: it[0] if it[1] in known else "\\" + it[0], body)
                if quiet != body:
                    if ("f" in prefix or "t" in prefix) and re.search("[\"']", body):
                        return None
                    changed = True
                    out += [source[end : match.start(group)], quiet]
                    end = match.end(group)
        elif piece in {'"', "'"} or (piece[0] == "\\" and piece != "\\\n"):
            return None
        elif piece in "([{":
            depth += 1
            if depth > _MAX_BRACKETS:
                return None
        elif piece in ")]}":
            depth -= 1
    if changed and raw_format:
        return None
    return "".join([*out, source[end:]]) if changed else source


def _is_strong(tree: ast.Module) -> bool:
    """Tell whether a tree holds a statement that no other text looks like."""
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
    """Drop a docstring."""
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


class _Normal:
    """The normal form of a module's statements.

    Every name that may be another is written as the number of its first appearance, so that two programs with equal
    forms differ by a renaming at most: numbers belong to pairs of scope and name, never to names alone.
    """

    def __init__(self, body: list[ast.stmt], query: str) -> None:
        self.body = body
        self.out: list[str] = []
        self.numbers: dict[tuple[int, str], int] = {}
        self.scopes: list[_Scope] = []  # keeps them alive: numbers go by identity
        nodes = [node for statement in body for node in ast.walk(statement)]
        used = {node.id for node in nodes if isinstance(node, ast.Name)}
        attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        modules = [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        used |= attributes | {part for module in modules for part in module.split(".")}
        used |= {part for node in nodes if isinstance(node, ast.alias) for part in node.name.split(".")}
        strings = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
        self.renames = (
            not (used & _SELF_AWARE)
            and not (attributes & _READS_NAMES)
            and not any(getattr(node, "type_params", None) for node in nodes)
        )
        self.documented = bool(used & _READS_DOCS)
        keywords = [node for node in nodes if isinstance(node, ast.keyword)]
        self.keywords = {keyword.arg for keyword in keywords if keyword.arg}
        if any(keyword.arg is None for keyword in keywords):
            self.keywords |= set(strings)
        self.named, self.signatures, self.listed = _named_by(_asking_part(query))
        self.module = self._scope("module", None, body)
        self.free = self._free_names(nodes, strings)
        self.typing = self._typing_imports()

    def written(self) -> tuple[str, str]:
        """Write the form and what a label shows of it."""
        self._statements(self.body, self.module)
        first = next((node for node in self.body if isinstance(node, (*_FUNCTIONS, ast.ClassDef))), None)
        head = "" if first is None else "class" if isinstance(first, ast.ClassDef) else "def"
        name = "" if first is None or first.name in self.free else first.name
        return "".join(self.out), f"{head} {name}".strip()

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

    def _typing_imports(self) -> set[str]:
        """Name what is imported for annotations only: names of `typing` that nothing uses once annotations are gone."""
        probe = _Mentions()
        for statement in self.body:
            probe.look(statement, in_class=False)
        return probe.names

    # -- scopes

    def _scope(self, kind: str, parent: _Scope | None, body: Iterable[ast.AST]) -> _Scope:
        scope = _Scope(kind, parent)
        self.scopes.append(scope)
        todo: list[tuple[ast.AST, bool]] = [(node, False) for node in body]
        while todo:
            node, in_comprehension = todo.pop()
            inner: Iterable[ast.AST | None] = ast.iter_child_nodes(node)
            if isinstance(node, ast.Name):
                if not isinstance(node.ctx, ast.Load) and not in_comprehension:
                    scope.bound[node.id] += 1
            elif isinstance(node, ast.NamedExpr):
                scope.bound[node.target.id] += 1
                inner = [node.value]
            elif isinstance(node, _FUNCTIONS):
                scope.bound[node.name] += 1
                if _is_foreign(node):
                    scope.kept.add(node.name)
                arguments = _arguments(node.args)
                inner = [
                    *node.decorator_list,
                    *_defaults(node.args),
                    node.returns,
                    *(arg.annotation for arg in arguments),
                ]
            elif isinstance(node, ast.Lambda):
                inner = _defaults(node.args)
            elif isinstance(node, ast.ClassDef):
                scope.bound[node.name] += 1
                scope.kept.add(node.name)
                inner = [*node.decorator_list, *node.bases, *node.keywords]
            elif isinstance(node, _COMPREHENSIONS):
                in_comprehension = True
            elif isinstance(node, ast.alias):
                scope.bound[node.asname or node.name.partition(".")[0]] += 1
            elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                scope.bound.update([node.name] if node.name else [])
                scope.brief.update([node.name] if node.name and isinstance(node, ast.ExceptHandler) else [])
            elif isinstance(node, (ast.For, ast.AsyncFor)):
                scope.brief.update(_stored(node.target))
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                scope.brief.update(_stored(node.optional_vars))
            elif isinstance(node, ast.MatchMapping):
                scope.bound.update([node.rest] if node.rest else [])
            elif isinstance(node, ast.Global):
                scope.outer.update(node.names)
            elif isinstance(node, ast.Nonlocal):
                scope.nonlocals.update(node.names)
            todo += [(child, in_comprehension) for child in inner if child is not None]
        return scope

    def _name(self, name: str, scope: _Scope) -> str:
        """Write a name: its number if it may be another, else itself."""
        where: _Scope | None = scope
        while where is not None and where.kind != "module":
            if name in where.outer:
                where = None
                break
            visible = where is scope or where.kind != "class"
            if visible and where.binds(name):
                break
            where = where.parent
        if not self.renames or (name.startswith("__") and not name.endswith("__")):
            return repr(name)
        local = where is not None and where.kind in {"function", "comprehension"} and name not in where.kept
        if local or (name in self.free and (where is None or where.kind == "module")):
            owner = where if local and where is not None else self.module
            return f"${self.numbers.setdefault((id(owner), name), len(self.numbers))}"
        return repr(name)

    # -- writing

    def _put(self, *texts: str) -> None:
        self.out += texts

    def _statements(self, body: list[ast.stmt], scope: _Scope) -> None:
        self._put("{")
        top = scope is self.module
        written = 0
        for imports, group in groupby(body, key=lambda node: top and isinstance(node, (ast.Import, ast.ImportFrom))):
            if imports:
                written += self._imports(list(group), scope)
                continue
            for statement in group:
                self._node(statement, scope)
                written += 1
        if not written:
            self._put("(Pass )")
        self._put("}")

    def _imports(self, group: list[ast.stmt], scope: _Scope) -> int:
        """Write imports that follow each other, one name each, sorted unless one hides another."""
        lines: list[str] = []
        bound: list[str] = []
        for node in group:
            assert isinstance(node, (ast.Import, ast.ImportFrom))
            module = node.module if isinstance(node, ast.ImportFrom) else None
            level = node.level if isinstance(node, ast.ImportFrom) else 0
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                idle = module in {"typing", "typing_extensions", "collections.abc"} and name not in self.typing
                if (idle and alias.name != "*") or (module == "__future__" and alias.name == "annotations"):
                    continue
                bound.append(name)
                lines.append(f"(Import {module!r} {level} {self._alias(alias, scope)})")
        ordered = len(set(bound)) == len(bound) and "*" not in bound
        self._put(*(sorted(lines) if ordered else lines))
        return len(lines)

    def _alias(self, alias: ast.alias, scope: _Scope) -> str:
        if alias.name == "*":
            return "*"
        top = alias.name.partition(".")[0]
        form = "top" if alias.asname is None and top != alias.name else "as"
        return f"{alias.name!r} {form} {self._name(alias.asname or top, scope)}"

    def _field(self, value: Any, scope: _Scope) -> None:
        if isinstance(value, list):
            self._put("[")
            for item in value:
                self._field(item, scope)
            self._put("]")
        elif isinstance(value, ast.AST):
            self._node(value, scope)
        else:
            self._put(f" {value!r}")

    def _node(self, node: ast.AST, scope: _Scope) -> None:
        self._put("(", type(node).__name__, " ")
        match node:
            case ast.Name():
                self._put(self._name(node.id, scope))
            case ast.Constant():
                self._put(_literal(node.value))
            case ast.JoinedStr() if all(isinstance(part, ast.Constant) for part in node.values):
                self.out[-2:] = [
                    "Constant",
                    " ",
                    _literal("".join(str(getattr(part, "value", "")) for part in node.values)),
                ]
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self._function(node, scope)
            case ast.Lambda():
                inner = self._parameters(node.args, scope, [node.body], keep=False, foreign=False, function=None)
                self._node(node.body, inner)
            case ast.ClassDef():
                self._field([*node.decorator_list, None, *node.bases, *node.keywords], scope)
                self._put(repr(node.name))
                self._field(getattr(node, "type_params", []), scope)
                body = node.body if self.documented or node.decorator_list else _bodied(node.body)
                self._statements(body, self._scope("class", scope, body))
            case ast.ListComp() | ast.SetComp() | ast.GeneratorExp() | ast.DictComp():
                self._comprehension(node, scope)
            case ast.Import() | ast.ImportFrom():
                self._put(f"{getattr(node, 'module', None)!r} {getattr(node, 'level', 0)}")
                self._put(*(f" {self._alias(alias, scope)}" for alias in node.names))
            case ast.Global():
                self._put(repr(sorted(node.names)))
            case ast.Nonlocal():
                self._put(*(f" {self._name(name, scope)}" for name in node.names))
            case ast.ExceptHandler():
                self._field(node.type, scope)
                self._bound(node.name, scope)
                self._statements(node.body, scope)
            case ast.MatchAs():
                self._field(node.pattern, scope)
                self._bound(node.name, scope)
            case ast.MatchStar():
                self._bound(node.name, scope)
            case ast.MatchMapping():
                self._field([*node.keys, None, *node.patterns], scope)
                self._bound(node.rest, scope)
            case ast.AnnAssign() if _is_idle_annotation(node, scope.kind == "class"):
                self.out[-2:] = ["Assign", " "]
                self._field([[node.target], node.value], scope)
            case ast.Assign():
                self._field([node.targets, node.value], scope)
            case _:
                for name, value in ast.iter_fields(node):
                    if name in {"ctx", "kind", "type_comment"}:
                        continue
                    if name in {"body", "orelse", "finalbody"} and isinstance(value, list):
                        self._statements(value, scope) if value else self._put("{}")
                    else:
                        self._field(value, scope)
        self._put(")")

    def _bound(self, name: str | None, scope: _Scope) -> None:
        self._put(" None" if name is None else f" {self._name(name, scope)}")

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope) -> None:
        foreign = _is_foreign(node)
        self._field(node.decorator_list, scope)
        self._put(self._name(node.name, scope))
        self._field(getattr(node, "type_params", []), scope)
        kept = foreign or (scope.kind == "module" and node.name.startswith("test"))
        body = node.body if self.documented or foreign else _bodied(node.body)
        inner = self._parameters(node.args, scope, body, keep=kept, foreign=foreign, function=node.name)
        if node.returns is not None and (foreign or not _is_type(node.returns)):
            self._field(node.returns, scope)
        self._statements(body, inner)

    def _parameters(
        self,
        args: ast.arguments,
        scope: _Scope,
        body: Iterable[ast.AST],
        *,
        keep: bool,
        foreign: bool,
        function: str | None,
    ) -> _Scope:
        """Write parameters and return the scope of the function."""
        inner = self._scope("function", scope, body)
        named = [arg.arg for arg in _arguments(args)]
        inner.bound.update(named)
        places = [arg.arg for arg in (*args.posonlyargs, *args.args)]
        places = places[1:] if places[:1] in (["self"], ["cls"]) else places
        order = self.signatures.get(function or "") or (
            next(iter(self.signatures.values())) if len(self.signatures) == 1 else self.listed
        )
        order = [name for name in order if name != function]
        moved = {name for at, name in enumerate(places) if name in order and order.index(name) != at}
        inner.kept |= {arg.arg for arg in args.kwonlyargs} | (self.keywords & set(named)) | moved
        inner.kept |= set(named) if keep else set()
        self._field([*args.defaults, None, *args.kw_defaults], scope)
        groups = (args.posonlyargs, args.args, [args.vararg], args.kwonlyargs, [args.kwarg])
        for group in groups:
            self._put("<")
            for arg in group:
                if arg is None:
                    continue
                self._bound(arg.arg, inner)
                if arg.annotation is not None and (foreign or not _is_type(arg.annotation)):
                    self._field(arg.annotation, scope)
            self._put(">")
        return inner

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, scope: _Scope) -> None:
        inner = _Scope("comprehension", scope)
        self.scopes.append(inner)
        for generator in node.generators:
            inner.bound.update(_stored(generator.target))
        for at, generator in enumerate(node.generators):
            self._put(f"<{generator.is_async}")
            self._node(generator.iter, inner if at else scope)
            self._node(generator.target, inner)
            self._field(generator.ifs, inner)
            self._put(">")
        for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
            self._node(part, inner)


class _Mentions:
    """Names that a program mentions outside of the annotations that do not count."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def look(self, node: ast.AST, *, in_class: bool) -> None:
        todo = [(node, in_class)]
        while todo:
            node, in_class = todo.pop()
            inner: Iterable[ast.AST | None] = ast.iter_child_nodes(node)
            if isinstance(node, ast.Name):
                self.names.add(node.id)
            elif isinstance(node, _FUNCTIONS) and not _is_foreign(node):
                kept = [arg.annotation for arg in _arguments(node.args)] + [node.returns]
                kept = [annotation for annotation in kept if annotation is not None and not _is_type(annotation)]
                inner = [*node.decorator_list, *_defaults(node.args), *kept, *node.body]
            elif isinstance(node, ast.AnnAssign) and _is_idle_annotation(node, in_class):
                inner = [node.target, node.value]
            below = isinstance(node, ast.ClassDef) or (in_class and not isinstance(node, (*_FUNCTIONS, ast.Lambda)))
            todo += [(child, below) for child in inner if child is not None]


def _stored(target: ast.AST) -> list[str]:
    """List the names that a target binds."""
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _arguments(args: ast.arguments) -> list[ast.arg]:
    starred = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *starred]


def _defaults(args: ast.arguments) -> list[ast.AST]:
    return [default for default in (*args.defaults, *args.kw_defaults) if default is not None]


def _is_type(node: ast.AST) -> bool:
    """Tell whether an annotation names types and does nothing."""
    return all(isinstance(part, (*_TYPES, ast.Load)) for part in ast.walk(node))


def _is_idle_annotation(node: ast.AnnAssign, in_class: bool) -> bool:
    """Tell whether an annotated assignment does what the plain one does."""
    return (
        not in_class
        and node.value is not None
        and isinstance(node.target, ast.Name)
        and bool(node.simple and _is_type(node.annotation))
    )


def _is_foreign(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tell whether a decorator may look at the function's names, annotations or docstring."""
    for decorator in node.decorator_list:
        function = decorator.func if isinstance(decorator, ast.Call) else decorator
        names = [part.id for part in ast.walk(function) if isinstance(part, ast.Name)]
        names += [part.attr for part in ast.walk(function) if isinstance(part, ast.Attribute)]
        if not names or not set(names) <= _NEUTRAL:
            return True
    return False


def _literal(value: Any) -> str:
    kind = type(value).__name__
    return f"{kind} {value:x}" if kind == "int" else f"{kind} {value!r}"


@lru_cache(maxsize=64)
def _named_by(text: str) -> tuple[frozenset[str], dict[str, list[str]], list[str]]:
    """Read the names that a query's asking part gives: all, the parameters of each function it writes out, those it sets apart in order."""
    signatures: dict[str, list[str]] = {}
    for match in _SIGNATURE.finditer(text):
        named = (_IDENTIFIER.match(part.strip()) for part in match[2].split(","))
        signatures[match[1]] = [name[0] for name in named if name]
    names: set[str] = set()
    listed: list[str] = []
    for match in _QUERY_NAMES.finditer(text):
        found = _IDENTIFIER.findall(next(filter(None, match.groups()), ""))
        names.update(found)
        if match[1] and _IDENTIFIER.fullmatch(match[1]):
            listed.append(match[1])
    return frozenset(names), {name: order for name, order in signatures.items() if order}, list(dict.fromkeys(listed))
