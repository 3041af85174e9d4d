"""Forms: tools, tool choices and response formats as callers give them, in one form each, and as they were given.

LangChain's callers use the forms of every provider. Here they become OpenAI's, as dictionaries, for traces, cache keys and
schemas; beside them travels what dictionaries lose. Nothing here asks a model.
"""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence
from langchain_core.tools import BaseTool, Tool
from langchain_core.tools.base import create_schema_from_function
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import get_fields

from langchain_rlfocal.answers.class_reading import ClassReader, reader_of
from langchain_rlfocal.errors import InputError

_MAX_BINDINGS = 64

Binding = tuple[Runnable[Any, Any], dict[str, Any]]
"""What is to be called, and with which arguments. LangChain's own bindings are taken apart: they do not close the stream of
what they bind when they are closed."""


@dataclass(frozen=True, eq=False)
class Originals:
    """Tools, and the schema of a response format, as the caller gave them.

    As dictionaries they lose what only some providers read, and how a class reads what it is given.

    Attributes:
        tools: The tools.
        formatted: The same in OpenAI's form; where a call brings others, the originals do not count.
        schema: The schema of structured output; None where none was given.
        form: The response format in OpenAI's form; None where none was given.
        method: How `with_structured_output` was to ask for it; None where it came otherwise.
        strict: Whether members shall hold to it strictly; None leaves it to them.
    """

    tools: tuple[Any, ...] = ()
    formatted: tuple[dict[str, Any], ...] = ()
    schema: Any = None
    form: Mapping[str, Any] | None = None
    method: str | None = None
    strict: bool | None = None
    _bindings: dict[Any, tuple[BaseChatModel, Binding | None]] = field(default_factory=dict, repr=False)

    def __reduce__(self) -> tuple[type["Originals"], tuple[Any, ...]]:
        return type(self), (self.tools, self.formatted, self.schema, self.form, self.method, self.strict)

    @property
    def cache_key(self) -> list[str]:
        """What tells classes apart whose schemas are equal, but not their validators."""
        return [_name_of_kind(one) for one in (*self.tools, self.schema)]

    @cached_property
    def tool_readers(self) -> tuple[ClassReader | None, ...]:
        """Readers of the tools' arguments; None for a tool that no class stands behind."""
        return tuple(reader_of(_class_of(tool)) for tool in self.tools)

    @cached_property
    def schema_reader(self) -> ClassReader | None:
        """Reader of the schema's objects; None where no class stands behind it."""
        return reader_of(_class_of(self.schema))

    def bound_to(self, model: BaseChatModel, more: Sequence[Mapping[str, Any]], given: Mapping[str, Any]) -> Binding:
        """Bind these tools, and more, to a model by its own `bind_tools`; once for equal arguments. See `bind`."""
        key = (id(model), repr(sorted(given.items())), repr(more))
        found = self._once(model, key, lambda: bind(model, [*self.tools, *more], given))
        assert found is not None, "`bind` returns one"
        return found

    def structured(self, model: BaseChatModel, schema: Any, *, method: str, strict: bool | None) -> Binding | None:
        """Bind a schema to a model as its own `with_structured_output` does; once. See `bind_schema`."""
        key = (id(model), method, strict, id(schema) if schema is self.schema else repr(schema))
        return self._once(model, key, lambda: bind_schema(model, schema, method=method, strict=strict))

    def _once(self, model: BaseChatModel, key: Any, make: Callable[[], Binding | None]) -> Binding | None:
        found = self._bindings.get(key)
        if found is None:
            if len(self._bindings) >= _MAX_BINDINGS:
                self._bindings.clear()
            found = self._bindings[key] = model, make()  # with the model, so that its id stays its own
        return found[1]


def _name_of_kind(one: Any) -> str:
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
            is_all = (
                isinstance(full, type) and isinstance(called, type) and [*get_fields(full)] == [*get_fields(called)]
            )
            return full if is_all else called  # which has lost the validators
        if isinstance(given, type) or not callable(given):
            return given
        name = getattr(given, "__name__", type(given).__name__)
        # As LangChain makes the schema of a function.
        return create_schema_from_function(
            name, given, filter_args=(), parse_docstring=True, error_on_invalid_docstring=False, include_injected=False
        )
    except Exception:  # noqa: BLE001  # a provider's own tool, or a caller's class that pydantic cannot take
        return None


def bind(model: BaseChatModel, tools: Sequence[Any], given: Mapping[str, Any]) -> Binding:
    """Bind tools to a model by its own `bind_tools`."""
    return _taken_apart(model.bind_tools([*tools], **given))


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
    except Exception:  # noqa: BLE001  # it can be asked another way, whatever it is
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
    if isinstance(tool, Mapping) and tool.get("type", "function") not in {"function", "object"}:
        return dict(tool)
    try:
        return convert_to_openai_tool(tool, strict=strict)
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


def schema_of(given: Any) -> Mapping[str, Any] | None:
    """Return the JSON schema of what a caller gave for structured output; None where that says nothing of one."""
    if isinstance(given, Mapping):
        if given.get("type") in {"json_object", "json_schema", "text"}:
            found = given.get("json_schema", {}).get("schema")
            return found if isinstance(found, Mapping) else None
        if "parameters" not in given and "function" not in given and "input_schema" not in given:
            return given
    return convert_to_json_schema(given)


@cache
def tool_arguments(model_class: type[BaseChatModel]) -> frozenset[str]:
    """Name the arguments of a class's `bind_tools`: what it does not name it would pass on to a provider unread."""
    return frozenset(inspect.signature(model_class.bind_tools).parameters)
