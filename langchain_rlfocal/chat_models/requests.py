"""Requests: what a call asks of every member beside the conversation.

Tools, a tool choice and a response format are given once, in LangChain's terms, and put to each member by its own
`bind_tools`, since providers name them differently. What comes back is held against the same request, whoever answers:
arguments must be valid, a forced call must be made, an object must fit its schema. It does not compare candidates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import Any, Literal, Self, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall

from langchain_rlfocal._langchain import ORIGINALS_KEY
from langchain_rlfocal.answers.json_texts import json_in
from langchain_rlfocal.answers.schemas import Reading, Schema, canonical_calls
from langchain_rlfocal.chat_models.forms import (
    Binding,
    Originals,
    bind,
    calls_tools,
    name_of,
    response_format_of,
    schema_of,
    standard_choice,
    to_tool,
    tool_arguments,
)
from langchain_rlfocal.chat_models.history import authors_of, history_for
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import MemberRequest, UnusableAnswerError
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.redaction import printable

Consensus = Literal["whole", "fields"]
"""How tool calls are agreed on: one member's calls win whole, or, for structured output, field by field."""

_MAX_TRIED = 16  # objects of one text that are held against the schema, from the last


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call asks of every member.

    Attributes:
        tools: Tools in OpenAI's form.
        originals: The tools, and the schema of the response format, as the caller gave them.
        choice: `"auto"`, `"none"`, `"any"`, or the name of the tool that must be called.
        strict: Whether members shall hold to the schemas strictly; None leaves it to them.
        parallel: Whether several calls at once are allowed; None leaves it to the members.
        response_format: What the text must be, in OpenAI's form; None for any text.
        consensus: How tool calls are agreed on.
        arguments: All other call arguments; they go to the members as they are.
    """

    tools: tuple[dict[str, Any], ...] = ()
    originals: Originals = field(default_factory=Originals)
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
        tools = tuple(to_tool(tool) for tool in rest.pop("tools", None) or ())
        consensus = rest.pop("consensus", "whole")
        if consensus not in get_args(Consensus):
            raise InputError(f'`consensus` must be "whole" or "fields", got {consensus!r}.')
        return cls(
            tools=tools,
            originals=rest.pop(ORIGINALS_KEY, None) or Originals(),
            choice=standard_choice(rest.pop("tool_choice", None), [name_of(tool) for tool in tools]),
            strict=rest.pop("strict", None),
            parallel=rest.pop("parallel_tool_calls", None),
            response_format=response_format_of(rest.pop("response_format", None)),
            consensus=consensus,
            arguments=rest,
        )

    @property
    def is_plain(self) -> bool:
        """True if nothing but a text is asked for."""
        return self.response_format is None and (not self.tools or self.choice == "none")

    @property
    def is_forced(self) -> bool:
        """True if a tool must be called, so that text is no answer."""
        return self.choice not in {"auto", "none"}

    def may_relay(self, model: BaseChatModel) -> bool:
        """Tell whether the text of a lone member is the answer as it comes, rather than beside a call or nothing."""
        return not self.is_forced and not self._gives_schema_as_tool(model)

    @property
    def wants_object(self) -> bool:
        """True if the answer is one object, on whose fields members can agree one by one."""
        return self.response_format is not None or (self.consensus == "fields" and self.is_forced)

    @cached_property
    def object_schema(self) -> Schema:
        """Schema of that object; one that accepts everything where none is given."""
        if self.response_format is None:
            return next(iter(self.schemas.values()), Schema({}))
        given = self.response_format.get("json_schema", {}).get("schema")
        if given is None and self._has_original_schema:  # any JSON is asked for, and the caller knows which
            given = schema_of(self.originals.schema)
        return Schema(given or {}, self.originals.schema_reader if self._has_original_schema else None)

    @property
    def _has_original_schema(self) -> bool:
        """True if the response format is the one of the originals, and not one that the call brings itself."""
        return self.originals.schema is not None and self.response_format == self.originals.form

    @cached_property
    def schemas(self) -> dict[str, Schema]:
        """Schema of each tool's arguments, by the tool's name."""
        readers = self.originals.tool_readers if self.tools == self.originals.formatted else repeat(None)
        return {
            name_of(tool): Schema(tool["function"].get("parameters") or {}, reader)
            for tool, reader in zip(self.tools, readers, strict=False)
            if isinstance(tool.get("function"), Mapping)
        }

    def needs_tools(self, model: BaseChatModel) -> bool:
        """Tell whether a model must know tools to be asked this: for tools, or for a schema that it takes only as one."""
        return (bool(self.tools) and self.choice != "none") or self._gives_schema_as_tool(model)

    def brief(self, member: PoolMember, messages: list[BaseMessage]) -> MemberRequest:
        """Put the request to one member in its own terms; see `execution.Prepare`.

        Raises:
            Exception: Whatever the member's `bind_tools` raises.
        """
        model = member.model
        kind = model._llm_type  # noqa: SLF001  # LangChain's way to tell providers apart
        # Of an ensemble's members too some may read cache marks, and it tells them apart itself.
        keeps_marks = kind.startswith("anthropic") or kind == "rlfocal"
        conversation = self._conversation(messages, member.name, keeps_marks=keeps_marks)
        if (own := self._own_way(model)) is not None:
            return MemberRequest(own[0], conversation, {**own[1], **self.arguments}, self.check)
        known = tool_arguments(type(model))
        given: dict[str, Any] = {}
        if "response_format" in known and self.response_format is not None:
            given["response_format"] = self.response_format
        if not self.needs_tools(model):
            return MemberRequest(model, conversation, {**given, **self.arguments}, self.check)
        if self.strict is not None and "strict" in known:
            given["strict"] = self.strict
        if self.parallel is not None and "parallel_tool_calls" in known:
            given["parallel_tool_calls"] = self.parallel
        tools = self.tools if self.choice != "none" else ()
        more = [self._schema_as_tool] if self._gives_schema_as_tool(model) else []
        if self.is_forced:
            given["tool_choice"] = self.choice
        elif more:
            given["tool_choice"] = "any"  # its answer is a call too
        if kind == "rlfocal" and self.consensus != "whole":
            given["consensus"] = self.consensus
        if tuple(tools) == self.originals.formatted:
            bound, arguments = self.originals.bound_to(model, more, given)
        else:  # the call brings tools of its own
            bound, arguments = bind(model, [*tools, *more], given)
        return MemberRequest(bound, conversation, {**arguments, **self.arguments}, self.check)

    def _conversation(self, messages: list[BaseMessage], name: str, *, keeps_marks: bool) -> list[BaseMessage]:
        """Return the conversation as a member can read it; what several read alike is made once."""
        key = (tuple(map(id, messages)), name if name in authors_of(messages) else None, keeps_marks)
        if key not in self._conversations:  # with the messages, so that their ids stay their own
            self._conversations[key] = messages, history_for(messages, name, is_anthropic=keeps_marks)
        return list(self._conversations[key][1])

    @cached_property
    def _conversations(self) -> dict[Any, tuple[list[BaseMessage], list[BaseMessage]]]:
        return {}

    def _gives_schema_as_tool(self, model: BaseChatModel) -> bool:
        """Tell whether a model, which may know tools and no response formats, is given the schema as a tool."""
        if not self._object_name or self.is_forced:
            return False
        own = self._own_way(model)
        return "response_format" not in tool_arguments(type(model)) if own is None else calls_tools(own[1])

    def _own_way(self, model: BaseChatModel) -> Binding | None:
        """Ask for an object as a model's own `with_structured_output` does; None where tools or `bind_tools` tell it."""
        if self.response_format is None or (self.tools and self.choice != "none"):
            return None
        originals = self.originals
        if originals.method is not None and self.response_format == originals.form:
            return originals.structured(model, originals.schema, method=originals.method, strict=originals.strict)
        if "response_format" in tool_arguments(type(model)):
            return None
        described = self.response_format.get("json_schema", {})
        schema = {"title": self._object_name, **described.get("schema", {})} if described else None
        method = "json_schema" if described else "json_mode"
        return originals.structured(model, schema, method=method, strict=described.get("strict"))

    @property
    def _object_name(self) -> str:
        """Name of the response format's schema; empty where there is none."""
        described = (self.response_format or {}).get("json_schema", {})
        return str(described.get("name", "answer")) if described else ""

    @cached_property
    def _schema_as_tool(self) -> dict[str, Any]:
        described = (self.response_format or {})["json_schema"]
        told = {"name": self._object_name, "description": described.get("description", "Give the answer.")}
        return {"type": "function", "function": {**told, "parameters": described.get("schema", {})}}

    def check(self, message: AIMessage) -> None:
        """Hold a response against the request.

        Raises:
            UnusableAnswerError: A call is no JSON, of an unknown tool, with arguments that do not fit or one too many; a
                forced call was not made; the text is not the object that was asked for.
        """
        calls = self._calls_in(message)
        if self.tools or self.response_format is not None:
            self._check_calls(message, calls)
        if self.response_format is not None and not calls:
            fault = self._read(message)[1].fault
            if fault:
                raise UnusableAnswerError("invalid_object", f"The object breaks its schema: {fault}", message)

    def _check_calls(self, message: AIMessage, calls: list[ToolCall]) -> None:
        if message.invalid_tool_calls:
            name = _named(message.invalid_tool_calls[0]["name"])
            raise UnusableAnswerError("invalid_json", f"The arguments of a call of {name} are no JSON object.", message)
        schemas, names = self.schemas, {name_of(tool) for tool in self.tools}
        if self.choice == "none" and calls:
            raise UnusableAnswerError("unwanted_call", "No tool was to be called.", message)
        for call in calls:
            if call["name"] not in names:
                raise UnusableAnswerError("unknown_tool", f"There is no tool {_named(call['name'])}.", message)
            if call["name"] in schemas:
                fault = schemas[call["name"]].read(call["args"]).fault
                if fault:
                    reason = f"The arguments of {_named(call['name'])} break its schema: {fault}"
                    raise UnusableAnswerError("invalid_arguments", reason, message)
        if self.is_forced and not calls:
            raise UnusableAnswerError("no_tool_call", "A tool had to be called, and none was.", message)
        if self.is_forced and self.choice != "any" and any(call["name"] != self.choice for call in calls):
            raise UnusableAnswerError("wrong_tool", f"Only {_named(self.choice)} was to be called.", message)
        if self.parallel is False and len(calls) > 1:
            raise UnusableAnswerError("parallel_calls", f"One call was allowed, and {len(calls)} were made.", message)

    def value_of(self, message: AIMessage) -> Any:
        """Return the object that a checked response holds, as its schema or class reads it."""
        return self._read(message)[1].value

    def written_of(self, message: AIMessage) -> Any:
        """Return the same as JSON: types read and defaults filled in, if it then means the same, else as it was written."""
        raw, reading = self._read(message)
        written = self.object_schema.write(reading.value)
        return raw if written is None else written

    def _read(self, message: AIMessage) -> tuple[Any, Reading]:
        """Return the object that a response holds: of several the last that is valid, else the last."""
        if id(message) not in self._readings:  # with the message, so that its id stays its own
            read = [(raw, self.object_schema.read(raw)) for raw in self._objects_in(message)[:1]]
            if read[0][1].fault is not None:
                read += [(raw, self.object_schema.read(raw)) for raw in self._objects_in(message)[1:_MAX_TRIED]]
            best = next((one for one in read if one[1].fault is None), read[0])
            self._readings[id(message)] = message, best
        return self._readings[id(message)][1]

    @cached_property
    def _readings(self) -> dict[int, tuple[AIMessage, tuple[Any, Reading]]]:
        return {}

    def label_of(self, message: AIMessage) -> str | None:
        """Say in one canonical text what a checked response does; None where its text is the answer."""
        if id(message) not in self._labels:  # labels are asked for with every answer that arrives
            self._labels[id(message)] = message, self._label(message)
        return self._labels[id(message)][1]

    @cached_property
    def _labels(self) -> dict[int, tuple[AIMessage, str | None]]:
        return {}

    def _label(self, message: AIMessage) -> str | None:
        calls = self._calls_in(message)
        if self.wants_object and not (self.response_format is not None and calls):
            return self.object_schema.label(self.value_of(message))
        return canonical_calls(calls, self.schemas) if calls else None

    def acts(self, message: AIMessage) -> bool:
        """Tell whether a response calls tools; an object that came as the one call of its schema is none."""
        return bool(self._calls_in(message))

    def _calls_in(self, message: AIMessage) -> list[ToolCall]:
        """Return a response's tool calls, but for the object that came as one."""
        calls = message.tool_calls
        names = {name_of(tool) for tool in self.tools}
        is_named = bool(self._object_name) and self._object_name not in names
        is_object = is_named and len(calls) == 1 and calls[0]["name"] == self._object_name
        return [] if is_object else calls

    def _objects_in(self, message: AIMessage) -> list[Any]:
        """Return what may be the object that a response holds, the best first, at least one."""
        if message.tool_calls:
            return [message.tool_calls[0]["args"]]
        blocks = message.content if isinstance(message.content, list) else []
        refused = any(isinstance(block, dict) and block.get("type") == "refusal" for block in blocks)
        if refused or message.additional_kwargs.get("refusal"):
            raise UnusableAnswerError("refusal", "The member refused to answer.", message)
        found = json_in(str(message.text))
        if not found:
            raise UnusableAnswerError("invalid_json", "The text is no JSON.", message)
        return found


def _named(name: Any) -> str:
    return f"`{printable(str(name))[:80]}`"
