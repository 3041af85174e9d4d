"""Requests: what a call asks of every member beside the conversation.

Tools, a tool choice and a response format are given once, in LangChain's terms, and put to each member by its own
`bind_tools`, since providers name them differently. What comes back is held against the same request, whoever answers:
arguments must be valid, a forced call must be made, an object must fit its schema. It does not compare candidates.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal, Self, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ValidationError

from langchain_rlfocal._compat import ORIGINALS_KEY
from langchain_rlfocal.answers.schemas import Schema, canonical_calls
from langchain_rlfocal.chat_models.history import history_for
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import Brief, UnusableAnswerError
from langchain_rlfocal.foreign_text import printable
from langchain_rlfocal.pool import PoolMember

Consensus = Literal["whole", "fields"]
"""How tool calls are agreed on: one member's calls win whole, or, for structured output, field by field."""

_FENCE = "```"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call asks of every member.

    Attributes:
        tools: Tools in OpenAI's form.
        originals: The tools, or the schema of the response format, as the caller gave them.
        choice: `"auto"`, `"none"`, `"any"`, or the name of the tool that must be called.
        strict: Whether members shall hold to the schemas strictly; None leaves it to them.
        parallel: Whether several calls at once are allowed; None leaves it to the members.
        response_format: What the text must be, in OpenAI's form; None for any text.
        consensus: How tool calls are agreed on.
        arguments: All other call arguments; they go to the members as they are.
    """

    tools: tuple[dict[str, Any], ...] = ()
    originals: tuple[Any, ...] = ()
    choice: str = "auto"
    strict: bool | None = None
    parallel: bool | None = None
    response_format: Mapping[str, Any] | None = None
    consensus: Consensus = "whole"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Self:
        """Read a call's arguments.

        Raises:
            InputError: The tool choice names no tool, or an argument is none of its kind.
        """
        rest = dict(kwargs)
        originals = tuple(rest.pop(ORIGINALS_KEY, None) or ())
        tools = tuple(convert_to_openai_tool(tool) for tool in rest.pop("tools", None) or ())
        consensus = rest.pop("consensus", "whole")
        if consensus not in get_args(Consensus):
            raise InputError(f'`consensus` must be "whole" or "fields", got {consensus!r}.')
        return cls(
            tools=tools,
            originals=originals,
            choice=standard_choice(rest.pop("tool_choice", None), [name_of(tool) for tool in tools]),
            strict=rest.pop("strict", None),
            parallel=rest.pop("parallel_tool_calls", None),
            response_format=response_format_of(rest.pop("response_format", None)),
            consensus=consensus,
            arguments=rest,
        )

    @property
    def is_forced(self) -> bool:
        """True if a tool must be called, so that text is no answer."""
        return self.choice not in {"auto", "none"}

    @property
    def may_relay(self) -> bool:
        """True if the text of a lone member is the answer as it comes, rather than a call or nothing."""
        return not self.is_forced

    @property
    def wants_object(self) -> bool:
        """True if the answer is one object, on whose fields members can agree one by one."""
        return self.response_format is not None or (self.consensus == "fields" and self.is_forced)

    @cached_property
    def object_schema(self) -> Schema:
        """Schema of that object; one that accepts everything where none is given."""
        if self.response_format is not None:
            return Schema(self.response_format.get("json_schema", {}).get("schema", {}))
        return next(iter(self.schemas.values()), Schema({}))

    @cached_property
    def schemas(self) -> dict[str, Schema]:
        """Schema of each tool's arguments, by the tool's name."""
        return {
            name_of(tool): Schema(tool["function"].get("parameters") or {})
            for tool in self.tools
            if isinstance(tool.get("function"), Mapping)
        }

    def brief(self, member: PoolMember, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> Brief:
        """Put the request to one member in its own terms; see `execution.Adapt`.

        Raises:
            Exception: Whatever the member's `bind_tools` raises.
        """
        del kwargs  # they are in `arguments`
        model = member.model
        is_anthropic = model._llm_type.startswith("anthropic")  # noqa: SLF001  # LangChain's way to tell providers apart
        conversation = history_for(messages, member.name, is_anthropic=is_anthropic)
        arguments = dict(self.arguments)
        if self.tools and self.choice != "none":
            return self._with_tools(model, conversation, arguments)
        if self.response_format is not None:
            if "response_format" in _tool_arguments(type(model)):
                arguments["response_format"] = self.response_format
            elif "json_schema" in self.response_format:
                return self._bound(model, conversation, arguments, [self._schema_as_tool], {"tool_choice": "any"})
        return Brief(model, conversation, arguments, self.check)

    def _with_tools(self, model: BaseChatModel, messages: list[BaseMessage], arguments: dict[str, Any]) -> Brief:
        offered = {"strict": self.strict, "parallel_tool_calls": self.parallel, "response_format": self.response_format}
        known = _tool_arguments(type(model))
        given: dict[str, Any] = {name: value for name, value in offered.items() if value is not None and name in known}
        if self.is_forced:
            given["tool_choice"] = self.choice
        return self._bound(model, messages, arguments, [*(self.originals or self.tools)], given)

    @property
    def _schema_as_tool(self) -> Any:
        """The response format as a tool, for members that know tools and no response formats."""
        assert self.response_format is not None, "asked for only where there is one"
        form = self.response_format["json_schema"]
        described = {"name": form.get("name", "answer"), "description": form.get("description", "Give the answer.")}
        return {"type": "function", "function": {**described, "parameters": form.get("schema", {})}}

    def _bound(
        self, model: BaseChatModel, messages: list[BaseMessage], arguments: dict[str, Any], tools: list[Any], given: Any
    ) -> Brief:
        bound: Runnable[Any, Any] = model.bind_tools(tools, **given)
        if type(bound) is RunnableBinding and not bound.config and not bound.config_factories:
            # The binding itself is left out: it does not close the stream of what it binds when it is closed.
            arguments = {**bound.kwargs, **arguments}
            bound = bound.bound
        return Brief(bound, messages, arguments, self.check)

    def check(self, message: AIMessage) -> None:
        """Hold a response against the request.

        Raises:
            UnusableAnswerError: A call is no JSON, of an unknown tool, with arguments that do not fit or one too many; a
                forced call was not made; the text is not the object that was asked for.
        """
        if self.tools:
            self._check_calls(message)
        if self.response_format is not None and not self.acts(message):
            value = self._object_in(message)
            if (fault := self.object_schema.fault(value)) or (fault := self._own_fault(value)):
                raise UnusableAnswerError("invalid_object", f"The object breaks its schema: {fault}", message)

    def _check_calls(self, message: AIMessage) -> None:
        if message.invalid_tool_calls:
            name = _named(message.invalid_tool_calls[0]["name"])
            raise UnusableAnswerError("invalid_json", f"The arguments of a call of {name} are no JSON object.", message)
        schemas, names = self.schemas, {name_of(tool) for tool in self.tools}
        calls = message.tool_calls
        if self.choice == "none" and calls:
            raise UnusableAnswerError("unwanted_call", "No tool was to be called.", message)
        for call in calls:
            if call["name"] not in names:
                raise UnusableAnswerError("unknown_tool", f"There is no tool {_named(call['name'])}.", message)
            if call["name"] in schemas:
                fault = schemas[call["name"]].fault(call["args"])
                if fault is None and self.wants_object:
                    fault = self._own_fault(call["args"])
                if fault:
                    reason = f"The arguments of {_named(call['name'])} break its schema: {fault}"
                    raise UnusableAnswerError("invalid_arguments", reason, message)
        if self.is_forced and not calls:
            raise UnusableAnswerError("no_tool_call", "A tool had to be called, and none was.", message)
        if self.is_forced and self.choice != "any" and any(call["name"] != self.choice for call in calls):
            raise UnusableAnswerError("wrong_tool", f"Only {_named(self.choice)} was to be called.", message)
        if self.parallel is False and len(calls) > 1:
            raise UnusableAnswerError("parallel_calls", f"One call was allowed, and {len(calls)} were made.", message)

    def _own_fault(self, value: Any) -> str | None:
        """Have a pydantic class validate an object: its validators may know more than its schema."""
        model = self.originals[0] if len(self.originals) == 1 else None
        if not (isinstance(model, type) and is_basemodel_subclass(model)):
            return None
        try:
            validate = getattr(model, "model_validate", None) or model.parse_obj  # type: ignore[attr-defined]  # pydantic 1
            validate(self.object_schema.normalized(value))
        except Exception as error:  # noqa: BLE001  # validators are the caller's code, whatever they raise
            place, said = "", str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                place, said = ".".join(map(str, first["loc"])), first["msg"]
            line = printable(" ".join(said.split()))
            return f"`{place}`: {line}"[:200] if place else line[:200]
        return None

    def is_valid(self, value: Any) -> bool:
        """Tell whether an object is what was asked for."""
        return self.object_schema.fault(value) is None and self._own_fault(value) is None

    def value_of(self, message: AIMessage) -> Any:
        """Return the object that a checked response holds, its types read leniently and defaults filled in."""
        return self.object_schema.normalized(self._object_in(message))

    def label_of(self, message: AIMessage) -> str | None:
        """Say in one canonical text what a checked response does; None where its text is the answer."""
        if self.wants_object and not (self.response_format is not None and self.acts(message)):
            return self.object_schema.canonical(self.value_of(message))
        return canonical_calls(message.tool_calls, self.schemas) if message.tool_calls else None

    def acts(self, message: AIMessage) -> bool:
        """Tell whether a response calls tools; an object that came as the call of its schema is none."""
        return bool(message.tool_calls) and (bool(self.tools) or self.response_format is None)

    def _object_in(self, message: AIMessage) -> Any:
        if message.tool_calls:
            return message.tool_calls[0]["args"]
        if message.additional_kwargs.get("refusal"):
            raise UnusableAnswerError("refusal", "The member refused to answer.", message)
        found = _read_json(str(message.text))
        if found is None:
            raise UnusableAnswerError("invalid_json", "The text is no JSON.", message)
        return found[0]


def name_of(tool: Mapping[str, Any]) -> str:
    """Return the name of a tool in OpenAI's form; a provider's own tool goes by its type."""
    function = tool.get("function")
    return str(function.get("name") if isinstance(function, Mapping) else tool.get("name") or tool.get("type") or "")


def standard_choice(choice: Any, names: Sequence[str]) -> str:
    """Reduce a tool choice of any provider's form to `"auto"`, `"none"`, `"any"` or a tool's name.

    Raises:
        InputError: It is of no known form, or names no tool.
    """
    if isinstance(choice, Mapping):
        function = choice.get("function")
        of_another = choice.get("name") or choice.get("type") or "{}"
        choice = function.get("name") if isinstance(function, Mapping) else of_another
    if choice in (None, False, "auto"):
        return "auto"
    if choice in names:
        return str(choice)
    if choice == "none":
        return "none"
    if choice is True and len(names) == 1:
        return names[0]
    if choice in (True, "any", "required") and names:
        return "any"
    raise InputError(
        f'`tool_choice` must be "auto", "none", "any" or the name of a bound tool, got {choice!r}; bound: '
        f"{', '.join(names) or 'none'}."
    )


def response_format_of(given: Any, *, strict: bool | None = None) -> dict[str, Any] | None:
    """Bring a response format into OpenAI's form: of a class or schema, or such a form already.

    Raises:
        InputError: It is none of these.
    """
    if given is None:
        return None
    if isinstance(given, Mapping) and given.get("type") in {"json_object", "json_schema", "text"}:
        return None if given["type"] == "text" else dict(given)
    try:
        schema = convert_to_json_schema(given, strict=strict)
    except Exception as error:
        raise InputError(
            f"A response format must be a class, a JSON schema or of OpenAI's form, got {type(given).__name__}: {error}"
        ) from error
    described = {"name": schema.get("title", "answer"), "schema": schema}
    return {"type": "json_schema", "json_schema": described if strict is None else {**described, "strict": strict}}


@cache
def _tool_arguments(model_class: type[BaseChatModel]) -> frozenset[str]:
    """Name the arguments of a class's `bind_tools`: what it does not name it would pass on to a provider unread."""
    return frozenset(inspect.signature(model_class.bind_tools).parameters)


def _read_json(text: str) -> tuple[Any] | None:
    """Read the JSON that a text is, holds in a code fence, or begins with its first brace; None where there is none."""
    stripped = text.strip()
    fenced = [block.partition("\n")[2] for block in stripped.split(_FENCE)[1::2]][-1:]
    start = stripped.find("{")
    decoder = json.JSONDecoder(strict=False)
    for part in [stripped, *fenced, *([stripped[start:]] if start > 0 else [])]:
        try:
            value, end = decoder.raw_decode(part.strip())
        except (ValueError, RecursionError):
            continue
        if part is not stripped or end == len(stripped) or isinstance(value, dict):
            return (value,)
    return None


def _named(name: Any) -> str:
    return f"`{printable(str(name))[:80]}`"
