"""A chat model that obeys its call arguments, as a good one would: tools, response formats, stop sequences.

It understands nothing: values come out of JSON schemas and the last human message. LangChain's standard tests ask for just
that ("call magic_function with 3"), which generators of random values from a schema cannot give.
"""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Literal

from jsonschema import Draft202012Validator
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, Field

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.testing.doubles import DoubleChatModel, Reply, question_in

Function = Mapping[str, Any]
Answers = Callable[[Sequence[BaseMessage], Sequence[Function]], Reply | None]


class SchemaChatModel(DoubleChatModel):
    """A chat model that obeys tools, `tool_choice`, `response_format`, `strict`, `parallel_tool_calls` and `stop`.

    Left to itself (`tool_choice` None or `"auto"`) it calls the tools that the last human message names; if it names none,
    the tool with most words of its name in the message; right after a tool's result it repeats the result in words.
    Forced to call, it prefers tools that it has not called since the last human message.
    """

    says: str = "Hello to you."
    """What it says where it neither calls a tool nor has a result to repeat."""

    answers: Answers | None = Field(default=None, exclude=True, repr=False)
    """Gives the answer instead, from the messages and the tools; None from it means the usual answer."""

    ignores_tool_choice: bool = False
    """Whether it treats every `tool_choice` as `"auto"`, as some models do."""

    model_name: str = "schema"

    @property
    def _llm_type(self) -> str:
        return "rlfocal-schema"

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: dict[str, Any] | type | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        arguments = {
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        return self.bind(tools=[convert_to_openai_tool(tool, strict=strict) for tool in tools], **given, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """As langchain-openai does it; in JSON mode, objects get the keys that the last human message quotes."""
        json_schema = convert_to_json_schema(schema)
        noted = {"kwargs": {"method": method, "strict": strict}, "schema": json_schema}
        pydantic_class = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
        if method == "function_calling":
            name = convert_to_openai_tool(schema)["function"]["name"]
            model = self.bind_tools(
                [schema], tool_choice=name, strict=strict, ls_structured_output_format=noted, **kwargs
            )
            parser = (
                PydanticToolsParser(tools=[pydantic_class], first_tool_only=True)
                if pydantic_class
                else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            )
        else:
            named = {"name": json_schema["title"], "schema": json_schema, "strict": strict}
            form = {"type": "json_object"} if method == "json_mode" else {"type": "json_schema", "json_schema": named}
            model = self.bind(response_format=form, ls_structured_output_format=noted, **kwargs)
            parser = PydanticOutputParser(pydantic_object=pydantic_class) if pydantic_class else JsonOutputParser()
        if not include_raw:
            return model | parser
        read = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unread = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | read.with_fallbacks([unread], exception_key="parsing_error")

    def _answer(self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Reply:
        tools = [tool.get("function", tool) for tool in kwargs.get("tools") or ()]
        reply = self.answers(messages, tools) if self.answers is not None else None
        if isinstance(reply, AIMessage):
            return reply
        if reply is None:
            chosen = self._chosen(messages, [tool for tool in tools if "name" in tool], kwargs)
            if chosen:
                calls = [self._call(tool, index, messages, kwargs) for index, tool in enumerate(chosen)]
                return AIMessage(content="", tool_calls=calls)
            reply = self._text(messages, kwargs)
        return re.split("|".join(map(re.escape, stop)), reply, maxsplit=1)[0] if stop else reply

    def _chosen(
        self, messages: Sequence[BaseMessage], tools: Sequence[Function], kwargs: Mapping[str, Any]
    ) -> Sequence[Function]:
        choice = "auto" if self.ignores_tool_choice else _choice_of(kwargs.get("tool_choice"))
        if not tools or choice == "none" or (choice == "auto" and isinstance(messages[-1], ToolMessage)):
            return ()
        if choice not in ("auto", "any"):
            named = [tool for tool in tools if tool["name"] == choice]
            if not named:
                raise InputError(f"`tool_choice` must name one of the tools, got {choice!r}. Bind that tool too.")
            return named
        if choice == "any":
            called = _called_since_question(messages)
            tools = [tool for tool in tools if tool["name"] not in called] or tools
        mentioned = _mentioned(tools, question_in(messages)) or (tools[:1] if choice == "any" else ())
        return mentioned[:1] if kwargs.get("parallel_tool_calls") is False else mentioned

    def _call(self, tool: Function, index: int, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> ToolCall:
        strict = bool(tool.get("strict") or kwargs.get("strict"))
        schema = {"type": "object", **tool.get("parameters", {})}
        args = make_value(schema, question_in(messages), every_property=strict)
        # Ids differ between models, turns and calls, without chance or a counter.
        made_of = json.dumps([self.model_name, len(messages), index, tool["name"], args], default=str)
        call_id = f"call_{hashlib.sha256(made_of.encode()).hexdigest()[:24]}"
        return tool_call(name=tool["name"], args=args, id=call_id)

    def _text(self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> str:
        question = question_in(messages)
        form = kwargs.get("response_format")
        if form is not None and form != {"type": "text"}:
            schema, strict = _schema_of(form, question)
            value = make_value(schema, question, every_property=bool(strict or kwargs.get("strict")))
            return json.dumps(value, ensure_ascii=False)
        start = len(messages)
        while start and isinstance(messages[start - 1], ToolMessage):
            start -= 1
        results = [f"{result.name or 'The tool'} says: {result.text}" for result in messages[start:]]
        return "\n".join(results) or self.says


def _choice_of(given: Any) -> str:
    """Reduce what `tool_choice` can be to `"auto"`, `"none"`, `"any"` or a tool's name."""
    if isinstance(given, Mapping):
        given = given.get("function", given).get("name")
    if given is None or isinstance(given, bool):
        return "any" if given else "auto"
    return "any" if given == "required" else str(given)


def _schema_of(form: Any, question: str) -> tuple[Mapping[str, Any], bool | None]:
    """Return the schema that a `response_format` asks for, and whether strictly."""
    kind = form.get("type") if isinstance(form, Mapping) else None
    if kind == "json_schema":
        return form["json_schema"]["schema"], form["json_schema"].get("strict")
    if kind == "json_object":
        quoted = re.findall(r"(?<!\w)['\"`](\w+)['\"`]", question)
        return {"type": "object", "required": quoted or ["answer"]}, None
    return convert_to_json_schema(form), None


def _called_since_question(messages: Sequence[BaseMessage]) -> set[str]:
    called: set[str] = set()
    for message in messages:
        if isinstance(message, HumanMessage):
            called = set()
        elif isinstance(message, AIMessage):
            called |= {call["name"] for call in message.tool_calls}
    return called


def _mentioned(tools: Sequence[Function], text: str) -> Sequence[Function]:
    """Find the tools that a text names, in its order; else the one with most words of its name in it."""
    found = [(re.search(rf"(?<!\w){re.escape(tool['name'])}(?!\w)", text), tool) for tool in tools]
    named = sorted((match.start(), index) for index, (match, _) in enumerate(found) if match)
    if named:
        return [tools[index] for _, index in named]
    words = set(re.findall(r"\w+", text.lower()))
    shared = [len(words & _long_words(tool["name"])) for tool in tools]
    return [tools[shared.index(max(shared))]] if any(shared) else ()


def _long_words(name: str) -> set[str]:
    """Return the words of a tool's name that say something: those of more than three letters."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name) if len(word) > 3}


# ---- values

_FORMATS = {
    "date": "2000-01-01",
    "date-time": "2000-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1H",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?!\w)")
_QUOTED = re.compile(r"\"([^\"]+)\"|“([^”]+)”|`([^`]+)`|(?<!\w)'(.+?)'(?!\w)")
_NAME = re.compile(r"(?<!^)(?<![.!?:]\s)\b[A-Z]\w+(?:,? [A-Z]\w+)*")  # words with a capital, but not a sentence's first


def make_value(schema: Mapping[str, Any] | bool, text: str = "", *, every_property: bool = False) -> Any:
    """Make a value that a JSON schema allows, from what a text offers; the same schema and text make the same value.

    A `default`, `const`, `enum` (the option that the text mentions, else the first) or `examples` comes first. Then
    numbers are the text's allowed numbers in their order, and strings its quoted strings, its last name, its last word.

    Raises:
        InputError: It finds no allowed value: it knows no conditions, and writes no string for a `pattern`.
    """
    return _Maker(schema, text, every_property=every_property).value(schema)


class _Maker:
    """One value in the making: a number or a quoted string of the text is used once."""

    def __init__(self, root: Mapping[str, Any] | bool, text: str, *, every_property: bool) -> None:
        self.root, self.text, self.every_property = root, text, every_property
        self.numbers = [float(n) if "." in n else int(n) for n in _NUMBER.findall(text)]
        self.quoted = ["".join(groups) for groups in _QUOTED.findall(text)]
        self.words = [*_NAME.findall(text)[-1:], *re.findall(r"\w+", text)[:-2:-1], "text"]

    def value(self, schema: Any, path: tuple[str, ...] = ()) -> Any:
        """Make a value; `path` holds the references around it."""
        if not isinstance(schema, Mapping):
            schema = {"type": "string"}
        if "$ref" in schema:
            return self.value(*self.resolved(schema, path))
        if "default" in schema or "const" in schema:
            return copy.deepcopy(schema["default"] if "default" in schema else schema["const"])
        if "enum" in schema:
            mentioned = [option for option in schema["enum"] if isinstance(option, str) and self.mentions(option)]
            return [*mentioned, *schema["enum"]][0]
        if schema.get("examples"):
            return copy.deepcopy(schema["examples"][0])
        for key in ("allOf", "anyOf", "oneOf"):
            if schema.get(key):
                rest = {name: value for name, value in schema.items() if name != key}
                return self.all_of(schema[key], rest, path) if key == "allOf" else self.any_of(schema[key], rest, path)
        match _type_of(schema):
            case "object":
                return self.object(schema, path)
            case "array":
                return self.array(schema, path)
            case "integer" | "number":
                return self.first_allowed(schema, chain(self.numbers, _near_bounds(schema)), self.numbers)
            case "boolean":
                return False
            case "null":
                return None
        return self.string(schema)

    def resolved(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Follow a reference within the schema; one that leads back to itself has no finite value."""
        pointer = schema["$ref"]
        found: Any = self.root if pointer.startswith("#") and pointer not in path else None
        for step in pointer.split("/")[1:]:
            found = found.get(step) if isinstance(found, Mapping) else None
        if found is None:
            raise InputError(f"`{pointer}` must lead to another place in its own schema. Put the definition there.")
        return {**found, **{key: value for key, value in schema.items() if key != "$ref"}}, (*path, pointer)

    def mentions(self, word: str) -> bool:
        return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", self.text, re.IGNORECASE) is not None

    def all_of(self, parts: list[Any], merged: dict[str, Any], path: tuple[str, ...]) -> Any:
        for part in parts:
            plain, path = self.resolved(part, path) if "$ref" in part else (part, path)
            properties = {**merged.get("properties", {}), **plain.get("properties", {})}
            required = [*merged.get("required", []), *plain.get("required", [])]
            merged = {**merged, **plain, "properties": properties, "required": required}
        return self.value(merged, path)

    def any_of(self, branches: list[Any], rest: dict[str, Any], path: tuple[str, ...]) -> Any:
        """Take the first branch that has a value; null comes last."""
        errors = []
        for branch in sorted(branches, key=lambda branch: _type_of(branch) == "null"):
            try:
                return self.value({**rest, **branch} if isinstance(branch, Mapping) else branch, path)
            except InputError as error:
                errors.append(error)
        raise errors[0]

    def object(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        names = [name for name in properties if self.every_property or name in required]
        names += [name for name in required if name not in properties]
        return {name: self.value(properties.get(name, schema.get("additionalProperties")), path) for name in names}

    def array(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> list[Any]:
        """Make one item, or as few as are allowed; none where none can be made."""
        first, least = schema.get("prefixItems", []), schema.get("minItems", 0)
        length = min(max(least, len(first), 1), schema.get("maxItems", 100))
        items = [*first, *[schema.get("items")] * (length - len(first))][:length]
        try:
            return [self.value(item, path) for item in items]
        except InputError:
            if least:
                raise
            return []

    def string(self, schema: Mapping[str, Any]) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        fitted = self.words[0].ljust(schema.get("minLength", 0), ".")[: schema.get("maxLength")]
        return self.first_allowed(schema, [*self.quoted, *self.words, *self.text.split(), fitted], self.quoted)

    def first_allowed(self, schema: Mapping[str, Any], candidates: Any, used_once: list[Any]) -> Any:
        is_allowed = Draft202012Validator(schema).is_valid
        for candidate in candidates:
            if is_allowed(candidate):
                if candidate in used_once:
                    used_once.remove(candidate)
                return int(candidate) if schema.get("type") == "integer" else candidate
        raise InputError(f"A schema must allow a value that can be made, got {schema}. Give `examples`.")


def _near_bounds(schema: Mapping[str, Any]) -> Iterator[float]:
    """List zero, the bounds, what is a step inside of them, and their middle."""
    yield 0
    step = schema.get("multipleOf", 1)
    lows = [schema[key] for key in ("minimum", "exclusiveMinimum") if key in schema]
    highs = [schema[key] for key in ("maximum", "exclusiveMaximum") if key in schema]
    for bound in lows:
        yield from (bound, (bound // step + 1) * step)
    for bound in highs:
        yield from (bound, bound // step * step, (bound // step - 1) * step)
    if lows and highs:
        yield (max(lows) + min(highs)) / 2


def _type_of(schema: Any) -> str | None:
    """Return the type that a schema names, the first that is not null, or what its other words imply."""
    if not isinstance(schema, Mapping):
        return None
    named: str | list[str] | None = schema.get("type")
    if isinstance(named, list):
        return next((name for name in named if name != "null"), "null")
    if named is None and ("properties" in schema or "required" in schema):
        return "object"
    if named is None and ("items" in schema or "prefixItems" in schema):
        return "array"
    return named
