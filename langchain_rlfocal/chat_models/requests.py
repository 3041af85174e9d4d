"""Requests: what a call asks of every member besides the conversation.

Tools, a tool choice and a response format are brought into OpenAI's form, as dictionaries, for traces, cache keys and schemas;
`BoundTools` keeps what the caller gave. Each member is asked by its own `bind_tools` or `with_structured_output`, and its
response is checked against the same request: arguments must be valid, a forced call made, an object fit its schema.
"""

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Literal, Self, TypeVar, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolCall
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence
from langchain_core.tools import BaseTool, Tool
from langchain_core.tools.base import create_schema_from_function
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import get_fields

from langchain_rlfocal._langchain import BOUND_TOOLS_KEY
from langchain_rlfocal.answers.schemas import ClassReader, Reading, Schema, canonical_calls, reader_of
from langchain_rlfocal.answers.values import json_in
from langchain_rlfocal.chat_models.messages import authors_of, history_for, needs_reading
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.execution import MemberRequest, UnusableAnswerError, is_refusal
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.redaction import printable

Consensus = Literal["whole", "fields"]
"""How tool calls are agreed on: one member's calls win whole, or, for structured output, field by field."""

Binding = tuple[Runnable[Any, Any], dict[str, Any]]
"""A model and the arguments bound to it: closing the stream of LangChain's own bindings does not close the model's."""

_T = TypeVar("_T")

_MAX_TRIED = 16
"""How many objects of one text are tried against the schema, from the last."""


# ---- what the caller bound


@dataclass(frozen=True, eq=False)
class BoundTools:
    """Tools, and the schema of a response format, as the caller gave them, and what is made of them once.

    As dictionaries they lose what only some providers read, and a class's own validators.

    Attributes:
        tools: The tools.
        formatted: The same in OpenAI's form; where a call brings others, these do not count.
        schema: The schema of structured output; None where none was given.
        form: The response format in OpenAI's form; None where none was given.
        method: The `method` of `with_structured_output`; None where the schema came otherwise.
        strict: Whether members must keep to it strictly; None leaves it to them.
    """

    tools: tuple[Any, ...] = ()
    formatted: tuple[dict[str, Any], ...] = ()
    schema: Any = None
    form: Mapping[str, Any] | None = None
    method: str | None = None
    strict: bool | None = None
    _bindings: dict[Any, tuple[BaseChatModel, Binding | None]] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[type["BoundTools"], tuple[Any, ...]]:
        return type(self), (self.tools, self.formatted, self.schema, self.form, self.method, self.strict)

    @property
    def cache_key(self) -> list[str]:
        """Tells classes apart whose schemas are equal, but not their validators."""
        return [_class_name(one) for one in (*self.tools, self.schema)]

    @cached_property
    def schemas(self) -> dict[str, Schema]:
        """Schema of each tool's arguments, by the tool's name."""
        return _schemas_of(self.formatted, [reader_of(_class_of(tool)) for tool in self.tools])

    @cached_property
    def schema_reader(self) -> ClassReader | None:
        """Reads the schema's objects; None where it is of no class."""
        return reader_of(_class_of(self.schema))

    def bind_tools(self, model: BaseChatModel, more: Sequence[Mapping[str, Any]], kwargs: Mapping[str, Any]) -> Binding:
        """Bind these tools, and more, by the model's own `bind_tools`; once for equal arguments."""
        key = (id(model), repr(sorted(kwargs.items())), repr(more))
        if key not in self._bindings:  # with the model, so that its id stays its own
            self._bindings[key] = model, bind(model, [*self.tools, *more], kwargs)
        found = self._bindings[key][1]
        assert found is not None, "`bind` returns one"
        return found

    def bind_schema(self, model: BaseChatModel, schema: Any, *, method: str, strict: bool | None) -> Binding | None:
        """Bind a schema by the model's own `with_structured_output`; once. See the function `bind_schema`."""
        key = (id(model), method, strict, id(schema) if schema is self.schema else repr(schema))
        if key not in self._bindings:
            self._bindings[key] = model, bind_schema(model, schema, method=method, strict=strict)
        return self._bindings[key][1]


def _schemas_of(tools: Sequence[Mapping[str, Any]], readers: Sequence[ClassReader | None]) -> dict[str, Schema]:
    return {
        name_of(tool): Schema(tool["function"].get("parameters") or {}, reader)
        for tool, reader in zip(tools, readers, strict=True)
        if isinstance(tool.get("function"), Mapping)
    }


def _class_name(one: Any) -> str:
    kind = one if isinstance(one, type) else type(one)
    name = f"{kind.__module__}.{kind.__qualname__}"
    # Classes made on the fly can share a name and differ; no other process knows them anyway.
    is_found = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind
    return name if is_found or kind is not one else f"{name} {id(kind)}"


def _class_of(given: Any) -> Any:
    """Return the class that reads a tool's arguments, or what was given itself; None if there is none."""
    try:
        if isinstance(given, Tool) and not given.args_schema:
            return None  # its one argument goes by another name
        if isinstance(given, BaseTool):
            full, called = given.args_schema, given.tool_call_schema  # without the arguments that are injected
            if not (isinstance(full, type) and isinstance(called, type)):
                return called
            return full if [*get_fields(full)] == [*get_fields(called)] else called  # which has lost the validators
        if isinstance(given, type) or not callable(given):
            return given
        name = getattr(given, "__name__", type(given).__name__)
        # As LangChain makes the schema of a function.
        return create_schema_from_function(
            name, given, filter_args=(), parse_docstring=True, error_on_invalid_docstring=False, include_injected=False
        )
    except Exception:  # noqa: BLE001  # a provider's own tool, or a caller's class that pydantic cannot take
        return None


def bind(model: BaseChatModel, tools: Sequence[Any], kwargs: Mapping[str, Any]) -> Binding:
    """Bind tools to a model by its own `bind_tools`."""
    return _taken_apart(model.bind_tools([*tools], **kwargs))


def bind_schema(model: BaseChatModel, schema: Any, *, method: str, strict: bool | None) -> Binding | None:
    """Bind a schema to a model as its own `with_structured_output` does.

    Returns:
        None where it has none of its own, does not know the method, or does more than to bind arguments.
    """
    if type(model).with_structured_output is BaseChatModel.with_structured_output:
        return None
    more = {} if strict is None or method == "json_mode" else {"strict": strict}
    try:
        steps = model.with_structured_output(schema, method=method, **more)
    except Exception:  # noqa: BLE001  # it can be asked another way
        return None
    bound, arguments = _taken_apart(steps.first if isinstance(steps, RunnableSequence) else steps)
    if isinstance(arguments.get("response_format"), type):
        # Given a class, OpenAI's client parses the answer too, which is ours to do, and warns of what it made.
        arguments = {**arguments, "response_format": response_format_of(schema, strict=strict)}
    is_wrong = method == "json_mode" and calls_tools(arguments)  # any JSON has no name by which a call could be known
    return None if is_wrong or not arguments or not isinstance(bound, BaseChatModel) else (bound, arguments)


def calls_tools(arguments: Mapping[str, Any]) -> bool:
    """Tell whether bound arguments have a model answer by a call."""
    return not arguments.keys().isdisjoint({"tools", "functions", "tool_choice"})


def _taken_apart(bound: Runnable[Any, Any]) -> Binding:
    arguments: dict[str, Any] = {}
    while isinstance(bound, RunnableBinding) and not bound.config and not bound.config_factories:
        arguments = {**bound.kwargs, **arguments}
        bound = bound.bound
    return bound, arguments


# ---- in OpenAI's form


def name_of(tool: Mapping[str, Any]) -> str:
    """Return the name of a tool in OpenAI's form; a provider's own tool goes by its type."""
    function = tool.get("function")
    if isinstance(function, Mapping):
        return str(function.get("name", ""))
    return str(tool.get("name") or tool.get("type") or next(iter(tool), ""))


def to_tool(tool: Any, *, strict: bool | None = None) -> dict[str, Any]:
    """Bring a tool into OpenAI's form; a provider's own tool, which is no function, stays as it is.

    Raises:
        InputError: It is no tool of any kind.
    """
    is_own = isinstance(tool, Mapping) and tool.get("type", "function") not in {"function", "object"}
    try:
        return dict(tool) if is_own else convert_to_openai_tool(tool, strict=strict)
    except Exception as error:
        if isinstance(tool, Mapping) and tool:
            return dict(tool)
        raise InputError(
            f"A tool must be a LangChain tool, a function, a class or a dictionary, got {type(tool).__name__}: {error}"
        ) from error


def standard_choice(choice: Any, names: Sequence[str]) -> str:
    """Reduce a tool choice of any provider's form to `"auto"`, `"none"`, `"any"` or a tool's name.

    Raises:
        InputError: It is of no known form, or names no tool.
    """
    if isinstance(choice, Mapping):
        choice = name_of(choice)
    if choice in (None, False, "auto"):
        return "auto"
    if choice in names or choice == "none":
        return str(choice)
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
    if given is None or (_is_form(given) and given["type"] == "text"):
        return None
    if _is_form(given):
        return dict(given)
    try:
        schema = convert_to_json_schema(given, strict=strict)
    except Exception as error:
        raise InputError(
            f"A response format must be a class, a JSON schema or of OpenAI's form, got {type(given).__name__}: {error}"
        ) from error
    described = {"name": schema.get("title", "answer"), "schema": schema}
    return {"type": "json_schema", "json_schema": described if strict is None else {**described, "strict": strict}}


def _is_form(given: Any) -> bool:
    return isinstance(given, Mapping) and given.get("type") in {"json_object", "json_schema", "text"}


def _schema_of(given: Any) -> Mapping[str, Any]:
    """Return the JSON schema of what a caller gave for structured output; an empty one where that says nothing of one."""
    if _is_form(given):
        return given.get("json_schema", {}).get("schema") or {}
    if isinstance(given, Mapping) and given.keys().isdisjoint({"parameters", "function", "input_schema"}):
        return given  # also without the title that LangChain wants
    return convert_to_json_schema(given)


@cache
def tool_arguments(model_class: type[BaseChatModel]) -> frozenset[str]:
    """Name the arguments of a class's `bind_tools`: what it does not name it would pass on to a provider unread."""
    return frozenset(inspect.signature(model_class.bind_tools).parameters)


# ---- a request

_NO_TOOLS = BoundTools()


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a call asks of every member.

    Attributes:
        tools: Tools in OpenAI's form.
        bound: The tools, and the schema of the response format, as the caller gave them.
        choice: `"auto"`, `"none"`, `"any"`, or the name of the tool that must be called.
        strict: Whether members must keep to the schemas strictly; None leaves it to them.
        parallel: Whether several calls at once are allowed; None leaves it to the members.
        response_format: What the text must be, in OpenAI's form; None for any text.
        consensus: How tool calls are agreed on.
        arguments: All other call arguments, passed to the members as they are.
        openai_arguments: Call arguments for those members alone that speak OpenAI's interface; others would refuse them.
    """

    tools: tuple[dict[str, Any], ...] = ()
    bound: BoundTools = field(default_factory=BoundTools)
    choice: str = "auto"
    strict: bool | None = None
    parallel: bool | None = None
    response_format: Mapping[str, Any] | None = None
    consensus: Consensus = "whole"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    openai_arguments: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Self:
        """Read a call's arguments.

        Raises:
            InputError: The tool choice names no tool, or an argument is none of its kind.
        """
        if not kwargs:
            return cls(bound=_NO_TOOLS)
        rest = dict(kwargs)
        tools = tuple(to_tool(tool) for tool in rest.pop("tools", None) or ())
        consensus = rest.pop("consensus", "whole")
        if consensus not in get_args(Consensus):
            raise InputError(f'`consensus` must be "whole" or "fields", got {consensus!r}.')
        return cls(
            tools=tools,
            bound=rest.pop(BOUND_TOOLS_KEY, None) or BoundTools(),
            choice=standard_choice(rest.pop("tool_choice", None), [name_of(tool) for tool in tools]),
            strict=rest.pop("strict", None),
            parallel=rest.pop("parallel_tool_calls", None),
            response_format=response_format_of(rest.pop("response_format", None)),
            consensus=consensus,
            openai_arguments=rest.pop("openai_arguments", {}),
            arguments=rest,
        )

    @property
    def is_plain(self) -> bool:
        """True if nothing but a text is asked for."""
        return self.response_format is None and (not self.tools or self.choice == "none")

    @property
    def wants_logprobs(self) -> bool:
        """True if the tokens' log-probabilities are asked for."""
        return self.arguments.get("logprobs") is True or self.openai_arguments.get("logprobs") is True

    @property
    def is_forced(self) -> bool:
        """True if a tool must be called, so that text is no answer."""
        return self.choice not in {"auto", "none"}

    def may_relay(self, model: BaseChatModel) -> bool:
        """Tell whether the text of a lone member can be passed on while it comes: no call or object is wanted instead."""
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
        if self.bound.schema is None or self.response_format != self.bound.form:  # the call brings its own
            return Schema(given or {})
        # Where any JSON is asked for, the caller knows which.
        return Schema(_schema_of(self.bound.schema) if given is None else given, self.bound.schema_reader)

    @cached_property
    def schemas(self) -> dict[str, Schema]:
        """Schema of each tool's arguments, by the tool's name."""
        is_bound = self.tools == self.bound.formatted
        return self.bound.schemas if is_bound else _schemas_of(self.tools, [None] * len(self.tools))

    def needs_tools(self, model: BaseChatModel) -> bool:
        """Tell whether a model must know tools to be asked this: for tools, or for a schema that it takes only as one."""
        return (bool(self.tools) and self.choice != "none") or self._gives_schema_as_tool(model)

    def prepare(self, member: PoolMember, messages: list[BaseMessage]) -> MemberRequest:
        """Make the request of one member, in its own terms; see `execution.Prepare`.

        Raises:
            Exception: What the member's `bind_tools` raises.
        """
        model = member.model
        kind = model._llm_type  # noqa: SLF001  # LangChain's way to tell providers apart
        conversation = self.conversation_for(member, messages)
        arguments = self._arguments_for(model)
        if self.is_plain and not self.tools:
            return MemberRequest(model, conversation, arguments)
        if (own := self._own_way(model)) is not None:
            return MemberRequest(own[0], conversation, {**own[1], **arguments}, self.check)
        known = tool_arguments(type(model))
        given: dict[str, Any] = {}
        if "response_format" in known and self.response_format is not None:
            given["response_format"] = self.response_format
        if not self.needs_tools(model):
            return MemberRequest(model, conversation, {**given, **arguments}, self.check)
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
        if tuple(tools) == self.bound.formatted:
            bound, bound_arguments = self.bound.bind_tools(model, more, given)
        else:  # the call brings tools of its own
            bound, bound_arguments = bind(model, [*tools, *more], given)
        return MemberRequest(bound, conversation, {**bound_arguments, **arguments}, self.check)

    def _arguments_for(self, model: BaseChatModel) -> Mapping[str, Any]:
        """Return what else a model is given: an ensemble passes on what is for some of its members."""
        if not self.openai_arguments:
            return self.arguments
        if any(base.__name__ == "BaseChatOpenAI" for base in type(model).__mro__):  # its package takes long to import
            return {**self.arguments, **self.openai_arguments}
        is_ensemble = model._llm_type == "rlfocal"  # noqa: SLF001  # as above
        return {**self.arguments, "openai_arguments": self.openai_arguments} if is_ensemble else self.arguments

    def conversation_for(self, member: PoolMember, messages: list[BaseMessage]) -> list[BaseMessage]:
        """Return the conversation as a member can read it: the same for all whose own messages are not in it."""
        if not needs_reading(messages):
            return messages
        kind, name = member.model._llm_type, member.name  # noqa: SLF001  # as above
        # Of an ensemble's members too some may read cache marks, and it tells them apart itself.
        keeps_marks = kind.startswith("anthropic") or kind == "rlfocal"
        key = (tuple(map(id, messages)), name if name in authors_of(messages) else None, keeps_marks)
        return [*self._once(key, messages, lambda: history_for(messages, name, is_anthropic=keeps_marks))]

    @property
    def schemas_sent(self) -> str:
        """Tools and response format, in one form for all members: what providers read before the conversation."""
        if not self.tools and self.response_format is None:
            return ""
        return json.dumps([self.tools, self.response_format], default=str, sort_keys=True)

    def _once(self, key: Any, of: Any, make: Callable[[], _T]) -> _T:
        """Make something once; what its key's ids are `of` is kept, so that they stay its own."""
        if key not in self._made:
            self._made[key] = of, make()
        found: _T = self._made[key][1]
        return found

    @cached_property
    def _made(self) -> dict[Any, tuple[Any, Any]]:
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
        bound = self.bound
        if bound.method is not None and self.response_format == bound.form:
            return bound.bind_schema(model, bound.schema, method=bound.method, strict=bound.strict)
        if "response_format" in tool_arguments(type(model)):
            return None
        described = self.response_format.get("json_schema", {})
        schema = {"title": self._object_name, **described.get("schema", {})} if described else None
        method = "json_schema" if described else "json_mode"
        return bound.bind_schema(model, schema, method=method, strict=described.get("strict"))

    @property
    def _object_name(self) -> str:
        """Name of the response format's schema; empty where there is none."""
        described = (self.response_format or {}).get("json_schema", {})
        return str(described.get("name", "answer")) if described else ""

    @property
    def _schema_as_tool(self) -> dict[str, Any]:
        described = (self.response_format or {})["json_schema"]
        told = {"name": self._object_name, "description": described.get("description", "Give the answer.")}
        return {"type": "function", "function": {**told, "parameters": described.get("schema", {})}}

    def check(self, message: AIMessage) -> None:
        """Check a response against the request.

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
            raise UnusableAnswerError(
                "invalid_json", f"The arguments of a call of {name} are not a JSON object.", message
            )
        schemas, names = self.schemas, {name_of(tool) for tool in self.tools}
        if self.choice == "none" and calls:
            raise UnusableAnswerError("unwanted_call", "No tool call was allowed.", message)
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
            raise UnusableAnswerError("wrong_tool", f"Only {_named(self.choice)} may be called.", message)
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

        def read() -> tuple[Any, Reading]:
            objects = self._objects_in(message)[:_MAX_TRIED]
            last = objects[0], self.object_schema.read(objects[0])
            others = ((raw, self.object_schema.read(raw)) for raw in objects[1:])
            return last if last[1].fault is None else next((one for one in others if one[1].fault is None), last)

        return self._once(("object", id(message)), message, read)

    def label_of(self, message: AIMessage) -> str | None:
        """Say in one canonical text what a checked response does; None where its text is the answer."""
        if not message.tool_calls and not self.wants_object:
            return None
        return self._once(("label", id(message)), message, lambda: self._label(message))

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
        if not calls:
            return calls
        names = {name_of(tool) for tool in self.tools}
        is_named = bool(self._object_name) and self._object_name not in names
        is_object = is_named and len(calls) == 1 and calls[0]["name"] == self._object_name
        return [] if is_object else calls

    def _objects_in(self, message: AIMessage) -> list[Any]:
        """Return what may be the object that a response holds, the best first, at least one."""
        if message.tool_calls:
            return [message.tool_calls[0]["args"]]
        if is_refusal(message) or message.additional_kwargs.get("refusal"):
            raise UnusableAnswerError("refusal", "The member refused to answer.", message)
        found = json_in(str(message.text))
        if not found:
            raise UnusableAnswerError("invalid_json", "The text is not JSON.", message)
        return found


def _named(name: Any) -> str:
    return f"`{printable(str(name))[:80]}`"
