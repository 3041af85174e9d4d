"""Pool files: a pool written down in YAML, TOML or JSON, with what each member is, costs and may take.

A file is checked as a whole before anything is made of it, and what breaks a rule is named with its line, its member and the
way out. Secrets stand in environment variables, which a file names; one that holds what looks like a key is refused. Whoever
reads a file imports the classes that it names, which is running code: read files that you trust.
"""

import codecs
import difflib
import os
import re
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from os import PathLike
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any

import yaml
from langchain_core.language_models import BaseChatModel
from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, ValidationError, model_validator

from langchain_rlfocal.errors import MissingDependencyError, PoolError
from langchain_rlfocal.pool import ModelPool, PoolMember, named_model
from langchain_rlfocal.redaction import MIN_SECRET_CHARS, masked, printable, secrets_of

SUFFIXES = (".yaml", ".yml", ".toml", ".json")
"""How the names of pool files end; JSON is read as the YAML that it is."""

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

MAX_FILE_BYTES = 200_000
"""A longer file is refused: a member takes some hundred bytes."""

MAX_VALUES, MAX_DEPTH = 20_000, 20
"""How much a file may hold once its aliases are resolved, and how deep: a few lines of YAML can stand for gigabytes."""

_EMBEDDED = "embedded"
_NO_KEY = SecretStr("none")
_MAX_SHOWN_CHARS = 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_REFERENCE = re.compile(r"\$?\$\{([^{}]*)\}")  # with two dollars it stands for itself with one

Where = tuple[str | int, ...]
"""The keys that lead to a value of a file."""


# ---- what a file may hold

Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Prices(_Entry):
    """Dollars per million tokens. 0 where they are free; leave all of it out where a price is unknown."""

    input: Price = Field(description="Of a prompt's tokens.")
    output: Price = Field(description="Of a response's tokens.")
    cached_input: Price | None = Field(
        None, description="Of a prompt's tokens that the provider reads from its cache; default: as input."
    )
    cache_write: Price | None = Field(
        None, description="Of a prompt's tokens that the provider writes to its cache; default: as input."
    )
    reasoning: Price | None = Field(None, description="Of a response's tokens of reasoning; default: as output.")


class Member(_Entry):
    """One member: a model with its settings. The same model with other settings is another member."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["model"]}, {"required": ["class"]}]})

    model: str | None = Field(
        None,
        pattern=r"^[^:\s]+:\S.*$",
        description="`provider:model`, as LangChain's init_chat_model takes it; `embedded:NAME` is one of the models that come as packages.",
    )
    class_: str | None = Field(
        None,
        alias="class",
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$",
        description="`package.module:ClassName` of a LangChain chat model, instead of `model`.",
    )
    parameters: dict[str, JsonValue] = Field(
        default_factory=dict, description="Arguments of the chat model: temperature, reasoning_effort and so on."
    )
    base_url: str | None = Field(None, description="Where its server listens; `${NAME}` is an environment variable.")
    headers: dict[str, str] = Field(
        default_factory=dict, description="HTTP headers of each request; `${NAME}` is an environment variable."
    )
    api_key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Environment variable that holds its key."
    )
    usd_per_million: Prices | None = None
    timeout_s: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds that one attempt may take; default: any time."
    )
    concurrency: int | None = Field(None, ge=1, description="Calls of it that may run at once; default: any number.")
    calls_per_minute: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Calls of it that may begin in a minute, one after the other; default: any number.",
    )
    cache_ttl_s: float = Field(
        300.0,
        ge=0,
        allow_inf_nan=False,
        description="Seconds for which its provider keeps a prompt in its cache after reading it; 0 where it keeps none.",
    )
    cache_min_tokens: int = Field(1024, ge=0, description="Tokens below which its provider caches no prompt.")
    competence: float = Field(
        0.5, ge=0, le=1, description="Score that a policy without training expects of it, in [0, 1]."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> "Member":
        if (self.model is None) == (self.class_ is None):
            raise ValueError("must have either `model` or `class`, and not both")
        return self


class PoolFile(_Entry):
    """A pool of chat models for RL-Focal; `rlfocal pool check` asks each member something."""

    schema_: str | None = Field(None, alias="$schema", description="The address of this schema, for editors.")
    members: dict[str, Member] = Field(min_length=1, description="The members by name, in the pool's order.")


def pool_schema() -> dict[str, Any]:
    """Return the JSON Schema of pool files, for editors."""
    return {"$schema": SCHEMA_DIALECT, **PoolFile.model_json_schema()}


# ---- reading


def read_pool(path: str | PathLike[str]) -> ModelPool:
    """Read a pool from a file.

    Args:
        path: The file, which must end in .yaml, .yml, .toml or .json. In YAML `true`, `false`, `null` and numbers are read as in
            YAML 1.2; all else that is not quoted is a text, `yes`, `on` and dates too.

    Returns:
        The members in the file's order. Where the file names embedded models they run until the pool's `close`, or the end of
        the process.

    Raises:
        PoolError: The file cannot be read or breaks a rule, or a member cannot be made; it says where, and the way out.
        MissingDependencyError: A member's package is not installed.
    """
    source = _Source.of(Path(path))
    entries = _checked(source)
    environment = {name: _Environment(source, name) for name in entries}
    settings = {name: _settings_of(entry, environment[name]) for name, entry in entries.items()}
    with ExitStack() as opened:
        embedded = _Embedded(opened)
        members = []
        for name, entry in entries.items():
            model = _model_of(name, entry, settings[name], source, embedded)
            with _placed(source, ("members", name)):
                members.append(
                    PoolMember(
                        name,
                        model,
                        competence=entry.competence,
                        **_prices_of(entry),
                        timeout_s=entry.timeout_s,
                        cache_ttl_s=entry.cache_ttl_s,
                        cache_min_tokens=entry.cache_min_tokens,
                        max_concurrent_calls=entry.concurrency,
                        max_calls_per_minute=entry.calls_per_minute,
                    )
                )
        return ModelPool(members, on_close=opened.pop_all().close)


@dataclass(frozen=True, slots=True)
class _Source:
    """A file that was read.

    Attributes:
        name: Its path, for messages.
        data: What it holds.
        lines: The line of each key or item, counted from 1.
    """

    name: str
    data: Any = None
    lines: Mapping[Where, int] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> "_Source":
        source = cls(str(path))
        suffix = path.suffix.lower()
        if path.is_dir():
            raise source.error("It is a folder. Name the pool file in it.")
        if suffix not in SUFFIXES:
            raise source.error(f"A pool file must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}. Rename it.")
        text = _text_of(path, source)
        if not text.strip():
            raise source.error("It is empty. It must hold `members`; see docs/how-to/describe-a-pool.md.")
        data, lines = _from_toml(text, source) if suffix == ".toml" else _from_yaml(text, source)
        return cls(source.name, data, lines)

    def error(self, rule: str, *, where: Where = (), line: int | None = None) -> PoolError:
        """Say what breaks a rule, with the line and the member."""
        if line is None:
            known = (where[:end] for end in range(len(where), -1, -1))
            line = next((self.lines[part] for part in known if part in self.lines), None)
        member = f", member `{where[1]}`" if len(where) > 1 and where[0] == "members" else ""
        at = "" if line is None else f", line {line}"
        return PoolError(printable(f"file {self.name}{at}{member}: {rule}"))


def _text_of(path: Path, source: _Source) -> str:
    """Read a file's text, which must be UTF-8, or say by a mark that it is UTF-16."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise source.error(f"It cannot be read: {error.strerror or error}. Give the path of a pool file.") from error
    if len(raw) > MAX_FILE_BYTES:
        raise source.error(f"It must have at most {MAX_FILE_BYTES:,} bytes. Is it a pool file?")
    is_utf_16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if is_utf_16 else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise source.error(
            f"It must be in {encoding.removesuffix('-sig').upper()}, and is not. Save it so.", line=line
        ) from error


# ---- YAML


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types of its own
    """YAML with the scalars of version 1.2: in 1.1 `no` is False, 010 is 8, 12:30 is 750 and 1e-3 a text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  # PyYAML's own form
    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Make one node of a value and of all within it."""
        if self._depth > MAX_DEPTH:  # found here, since PyYAML takes seconds until it runs out of stack
            raise yaml.composer.ComposerError(None, None, _TOO_DEEP, self.peek_event().start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_TOO_DEEP = f"nested deeper than {MAX_DEPTH}"
_TAG = "tag:yaml.org,2002:"
for _kind, _form, _firsts in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(f"^(?:{_form})$"), _firsts)


def _from_yaml(text: str, source: _Source) -> tuple[Any, dict[Where, int]]:
    try:
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context)
        hint = " Indent with spaces." if "'\\t'" in problem else ""
        raise source.error(f"It is no YAML: {problem}.{hint}", line=mark.line + 1 if mark else None) from error
    except yaml.YAMLError as error:
        raise source.error(f"It is no YAML: {' '.join(str(error).split())}.") from error
    if node is None:
        raise source.error("It holds nothing but comments. It must hold `members`.")
    nodes = _Nodes(source)
    return nodes.value(node, (), 0), nodes.lines


class _Nodes:
    """Values of YAML's nodes, each with its line; aliases are resolved as far as a file may hold."""

    def __init__(self, source: _Source) -> None:
        self.lines: dict[Where, int] = {}
        self._source, self._left = source, MAX_VALUES

    def value(self, node: yaml.Node, where: Where, depth: int) -> Any:
        line = self.lines.setdefault(where, node.start_mark.line + 1)
        self._count(line, depth)
        if isinstance(node, yaml.MappingNode):
            values = self._entries(node, depth)
            for key, (key_line, _) in values.items():
                self.lines.setdefault((*where, key), key_line)
            return {key: self.value(held, (*where, key), depth + 1) for key, (_, held) in values.items()}
        if isinstance(node, yaml.SequenceNode):
            return [self.value(held, (*where, place), depth + 1) for place, held in enumerate(node.value)]
        try:
            return _READERS[node.tag.removeprefix(_TAG)](node.value)
        except (KeyError, ValueError) as error:
            shown = f"{node.tag.replace(_TAG, '!!')} {node.value:.{_MAX_SHOWN_CHARS}}"
            raise self._source.error(
                f"`{masked(shown)}` is not taken. Write it as a text or a number.", line=line
            ) from error

    def _entries(self, node: yaml.MappingNode, depth: int) -> dict[str, tuple[int, yaml.Node]]:
        """Return what a mapping holds by key, with the key's line; what it merges in comes after its own."""
        self._count(node.start_mark.line + 1, depth)
        own: dict[str, tuple[int, yaml.Node]] = {}
        merged: dict[str, tuple[int, yaml.Node]] = {}
        for key, held in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise self._source.error("A key must be a text.", line=line)
            if key.value == "<<" and key.style is None:
                for part in held.value if isinstance(held, yaml.SequenceNode) else [held]:
                    if not isinstance(part, yaml.MappingNode):
                        raise self._source.error("`<<` must merge a mapping, such as `<<: *name`.", line=line)
                    merged = {**self._entries(part, depth + 1), **merged}
            elif key.value in own:
                first = own[key.value][0]
                raise self._source.error(
                    f"`{masked(key.value)}` stands here a second time, after line {first}. Rename or remove one.",
                    line=line,
                )
            else:
                own[key.value] = line, held
        return {**own, **{key: held for key, held in merged.items() if key not in own}}

    def _count(self, line: int, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._source.error(f"It stands for more than {MAX_VALUES:,} values. Use fewer aliases.", line=line)
        if depth > MAX_DEPTH:
            raise self._source.error(f"It is {_TOO_DEEP}, or holds itself.", line=line)


def _to_bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _to_int(text: str) -> int:
    return int(text, 0) if text[:2] in {"0o", "0x"} else int(text)


def _to_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_READERS: Mapping[str, Callable[[str], Any]] = {
    "str": str,
    "null": lambda _: None,
    "bool": _to_bool,
    "int": _to_int,
    "float": _to_float,
}


# ---- TOML

_TOML_KEY = r"""(?:"[^"]*"|'[^']*'|[\w-]+)"""
_TOML_KEYS = rf"{_TOML_KEY}(?:\s*\.\s*{_TOML_KEY})*"
_TOML_TABLE = re.compile(rf"\s*\[\s*({_TOML_KEYS})\s*\]")
_TOML_ENTRY = re.compile(rf"\s*({_TOML_KEYS})\s*=")


def _from_toml(text: str, source: _Source) -> tuple[Any, dict[Where, int]]:
    try:
        return tomllib.loads(text), _toml_lines(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        said = re.sub(r" \(at .*\)$", "", str(error))
        line = int(found[1]) if found else text.count("\n") + 1  # it says "at end of document" instead of the last line
        raise source.error(f"It is no TOML: {said}.", line=line) from error
    except RecursionError as error:
        raise source.error(f"It is {_TOO_DEEP}.") from error


def _toml_lines(text: str) -> dict[Where, int]:
    """Find the lines of tables and keys; what stands in an inline table has the line of that."""
    lines: dict[Where, int] = {}
    table: Where = ()
    for number, line in enumerate(text.splitlines(), start=1):
        entry = _TOML_ENTRY.match(line)
        if entry is None and (header := _TOML_TABLE.match(line)):
            where = table = _toml_keys(header[1])
        elif entry is not None:
            where = (*table, *_toml_keys(entry[1]))
        else:
            continue
        for end in range(1, len(where) + 1):
            lines.setdefault(where[:end], number)
    return lines


def _toml_keys(text: str) -> Where:
    return tuple(key.strip("\"'") for key in re.findall(_TOML_KEY, text))


# ---- rules


def _checked(source: _Source) -> dict[str, Member]:
    """Check a file against its schema.

    Raises:
        PoolError: It breaks a rule, or holds what looks like a secret.
    """
    for where, text in _texts(source.data, ()):
        if _holds_secret(str(where[-1]) if where else "", text):
            raise source.error(
                f"`{where[-1]}` holds what looks like a secret. Put it into an environment variable and name that here: "
                "`api_key_env: NAME`, or `${NAME}` in `base_url`, `headers` and `parameters`.",
                where=where,
            )
    try:
        read = PoolFile.model_validate(source.data)
    except ValidationError as error:
        found = min(error.errors(include_url=False), key=lambda one: one["type"] == "missing")  # a typing error is why
        raise source.error(_rule_of(found), where=tuple(found["loc"])) from error
    return read.members


def _texts(value: Any, where: Where) -> Iterator[tuple[Where, str]]:
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, dict | list):
        for key, held in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(held, (*where, key))


def _holds_secret(name: str, text: str) -> bool:
    """Tell whether a text looks like a key, or has a key's name and is more than references to the environment."""
    bare = _REFERENCE.sub(" ", text)
    if masked(bare) != bare:
        return True
    if bare == text:
        return bool(secrets_of({name: text}))
    if "://" in text:
        credentials = re.search(r"://[^/@]*:([^/@]*)@", _REFERENCE.sub("", text))
        return credentials is not None and len(credentials[1]) >= MIN_SECRET_CHARS
    return any(secrets_of({name: word}) for word in bare.split() if not word.isalpha())


_SETTINGS = [field.alias or name for name, field in Member.model_fields.items()]


def _rule_of(found: Mapping[str, Any]) -> str:
    """Say a finding of pydantic's in this package's words."""
    *above, last = found["loc"] or ("file",)
    match found["type"]:
        case "extra_forbidden":
            return _unknown_key(str(last), above)
        case "missing":
            return f"`{last}` is missing. Add it."
        case "model_type" | "dict_type":
            what = {0: "The file", 1: "`members`"}.get(len(found["loc"]), f"`{last}`")
            example = "`NAME: {model: provider:model}`" if len(found["loc"]) <= 2 else "`key: value`"
            return f"{what} must hold entries such as {example}, got {_shown(found['input'])}."
        case "too_short":
            return "`members` must have at least one member, got none. Add one: `NAME: {model: provider:model}`."
        case "value_error":
            return f"It {found['ctx']['error']}."
        case "string_pattern_mismatch":
            form = {
                "model": "be `provider:model`, such as openai:gpt-5-nano",
                "class": "be `package.module:ClassName`, such as langchain_openai:ChatOpenAI",
                "api_key_env": "be the name of an environment variable, such as OPENAI_API_KEY",
            }[str(last)]
            return f"`{last}` must {form}, got {_shown(found['input'])}."
    rule = str(found["msg"]).replace("Input should be ", "must be ", 1).replace("a valid ", "a ")
    rule = rule.replace("a integer", "a whole number").replace("string", "text")
    return f"`{last}` {rule}, got {_shown(found['input'])}."


def _unknown_key(key: str, above: Sequence[Any]) -> str:
    """Refuse a key, with the nearest that there is."""
    if not above:
        known, what, else_ = ["members"], "a pool file", ""
    elif above[-1] == "usd_per_million":
        known, what, else_ = list(Prices.model_fields), "prices", ""
    else:
        known, what, else_ = _SETTINGS, "a member", " What the model itself takes stands under `parameters`."
    near = difflib.get_close_matches(key, known, n=1)
    way_out = f" Did you mean `{near[0]}`?" if near else f"{else_} Known: {', '.join(known)}."
    return f"`{masked(key)}` is no key of {what}.{way_out}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "entries" if isinstance(value, dict) else "a list"
    if value is None:
        return "nothing"
    shown = masked(f"{value!r}")
    return shown if len(shown) <= _MAX_SHOWN_CHARS else f"{shown[:_MAX_SHOWN_CHARS]}…"


# ---- from an entry to a model


@dataclass(frozen=True, slots=True)
class _Environment:
    """What a member's entry takes from the environment."""

    source: _Source
    member: str

    def get(self, name: str, *where: str | int) -> str:
        """Return an environment variable.

        Raises:
            PoolError: It is not set, or empty.
        """
        place = ("members", self.member, *where)
        if not _NAME.fullmatch(name):
            raise self.source.error(
                f"`${{{name}}}` must name an environment variable, such as `${{GATEWAY_KEY}}`. Where the text itself is "
                "meant, write two dollars.",
                where=place,
            )
        if not (value := os.environ.get(name, "")):
            raise self.source.error(
                f"`{where[-1]}` needs the environment variable {name}, which is {'empty' if name in os.environ else 'not set'}. "
                f"Set it: export {name}=...",
                where=place,
            )
        return value

    def filled(self, value: Any, *where: str | int) -> Any:
        """Put environment variables into each text within a value."""
        if isinstance(value, str):
            return _REFERENCE.sub(
                lambda found: found[0][1:] if found[0][1] == "$" else self.get(found[1], *where), value
            )
        if isinstance(value, list):
            return [self.filled(part, *where, place) for place, part in enumerate(value)]
        if isinstance(value, dict):
            return {key: self.filled(part, *where, key) for key, part in value.items()}
        return value


def _prices_of(entry: Member) -> dict[str, float | None]:
    prices = entry.usd_per_million
    return {} if prices is None else {f"{of}_usd_per_mtok": price for of, price in prices}


def _settings_of(entry: Member, environment: _Environment) -> dict[str, Any]:
    """Return the arguments of a member's chat model.

    Raises:
        PoolError: An environment variable is not set.
    """
    settings: dict[str, Any] = environment.filled(entry.parameters, "parameters")
    if entry.base_url is not None:
        settings["base_url"] = environment.filled(entry.base_url, "base_url")
    if entry.headers:
        settings["default_headers"] = environment.filled(entry.headers, "headers")
    if entry.api_key_env is not None:
        settings["api_key"] = SecretStr(environment.get(entry.api_key_env, "api_key_env"))
    elif entry.base_url is not None and (entry.model or "").startswith("openai:"):
        settings.setdefault("api_key", _NO_KEY)  # the one in OPENAI_API_KEY is not for another server
    return settings


class _Embedded:
    """The models that come as packages, started when the first is named."""

    def __init__(self, opened: ExitStack) -> None:
        self._opened, self._models = opened, dict[str, BaseChatModel]()

    def model(self, name: str) -> BaseChatModel:
        """Return one of them.

        Raises:
            PoolError: There is none of that name.
        """
        if not self._models:
            # By name, as other classes: the demo is built on this module, among others.
            demo = import_module("langchain_rlfocal.demo.pool")
            if name not in demo.MEMBERS:
                raise PoolError(f"`embedded:{name}` is none of the embedded models: {', '.join(demo.MEMBERS)}.")
            self._models = self._opened.enter_context(demo.embedded_pool()).members
        if name not in self._models:
            raise PoolError(f"`embedded:{name}` is none of the embedded models: {', '.join(self._models)}.")
        return self._models[name]


def _model_of(
    name: str, entry: Member, settings: Mapping[str, Any], source: _Source, embedded: _Embedded
) -> BaseChatModel:
    """Make a member's chat model.

    Raises:
        PoolError: It cannot be made.
        MissingDependencyError: Its package is not installed.
    """
    where = ("members", name, "model" if entry.class_ is None else "class")
    with _placed(source, where), warnings.catch_warnings():
        # Of arguments that a class does not know, which are refused below.
        warnings.simplefilter("ignore", UserWarning)
        if entry.class_ is not None:
            model = _made_by_class(entry.class_, settings)
        elif entry.model is not None and entry.model.startswith(f"{_EMBEDDED}:"):
            model = _changed(embedded.model(entry.model.partition(":")[2]), settings)
        else:
            model = named_model(name, str(entry.model), settings)
    _check_parameters(name, model, settings, entry, source)
    return model


def _made_by_class(spec: str, settings: Mapping[str, Any]) -> BaseChatModel:
    try:
        make = resolve_name(spec)
    except ImportError as error:
        raise MissingDependencyError(
            f"`class: {spec}` cannot be imported: {error}. Install its package, or correct the name."
        ) from error
    except AttributeError as error:
        raise PoolError(f"`class: {spec}` names nothing: {error}. Correct the name.") from error
    except Exception as error:  # a module of the user's may raise anything
        raise PoolError(f"`class: {spec}` cannot be imported: {type(error).__name__}: {masked(str(error))}.") from error
    try:
        made: BaseChatModel = make(**settings)
    except Exception as error:  # as above
        raise PoolError(f"`class: {spec}` cannot be made: {_in_words(error)}. Correct its settings.") from error
    return made


def _changed(model: BaseChatModel, settings: Mapping[str, Any]) -> BaseChatModel:
    """Make an embedded model with other settings."""
    if not settings:
        return model
    if fixed := settings.keys() & {"base_url", "api_key", "default_headers"}:
        raise PoolError(f"An embedded model needs no {' and no '.join(sorted(fixed))}. Leave that out.")
    held = {name: getattr(model, name) for name in model.model_fields_set}
    aliases = {info.alias: name for name, info in type(model).model_fields.items() if info.alias}
    try:
        return type(model)(**{**held, **{aliases.get(name, name): value for name, value in settings.items()}})
    except Exception as error:  # whatever its constructor raises
        raise PoolError(f"An embedded model does not take that: {_in_words(error)}. Correct `parameters`.") from error


def _check_parameters(
    member: str, model: BaseChatModel, settings: Mapping[str, Any], entry: Member, source: _Source
) -> None:
    """Refuse settings that a model's class does not have, which LangChain's models swallow or send on unread."""
    if not isinstance(model, BaseChatModel) or type(model).model_config.get("extra") == "allow":
        return
    fields = type(model).model_fields
    known = [*fields, *(info.alias for info in fields.values() if info.alias)]
    for name in settings:
        if name in known:
            continue
        kind = type(model).__name__
        if name in entry.parameters:
            near = difflib.get_close_matches(name, known, n=1)
            way_out = f" Did you mean `{near[0]}`?" if near else ""
            if "model_kwargs" in known and not near:
                way_out = " What its provider takes beside that goes under `model_kwargs`."
            raise source.error(
                f"`{name}` is no parameter of {kind}.{way_out}", where=("members", member, "parameters", name)
            )
        key = {"default_headers": "headers", "api_key": "api_key_env"}.get(name, name)
        raise source.error(
            f"{kind} takes no `{name}`, so `{key}` must be left out. Give what it takes instead under `parameters`.",
            where=("members", member, key),
        )


def _in_words(error: Exception) -> str:
    """Say a constructor's error in one line, without secrets."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False)[0]
        return masked(f"`{'.'.join(map(str, found['loc']))}`: {found['msg']}").rstrip(".")
    return masked(" ".join(str(error).split())).rstrip(".") or type(error).__name__


@contextmanager
def _placed(source: _Source, where: Where) -> Iterator[None]:
    """Add to errors of the pool where in the file they come from."""
    try:
        yield
    except (PoolError, MissingDependencyError) as error:
        placed = source.error(str(error).removeprefix(f"Member `{where[1]}`: "), where=where)
        raise (placed if isinstance(error, PoolError) else MissingDependencyError(str(placed))) from error
