"""Forms: tools, tool choices and response formats as callers give them, in one form each, and as they were given.

LangChain's callers use the forms of every provider. Here they become OpenAI's, as dictionaries, for traces, cache keys and
schemas; beside them travels what dictionaries lose. Nothing here asks a model.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from langchain_rlfocal.errors import InputError

_MAX_BINDINGS = 64


@dataclass(frozen=True, eq=False)
class Originals:
    """Tools, and the schema of a response format, as the caller gave them.

    As dictionaries they lose what only some providers read, and a pydantic class's own validators.

    Attributes:
        tools: The tools.
        formatted: The same in OpenAI's form; where a call brings others, the originals do not count.
        schema: The schema of structured output; None where none was given.
        form: The response format in OpenAI's form; None where none was given.
    """

    tools: tuple[Any, ...] = ()
    formatted: tuple[dict[str, Any], ...] = ()
    schema: Any = None
    form: Mapping[str, Any] | None = None
    _bindings: dict[Any, tuple[BaseChatModel, Runnable[Any, Any], dict[str, Any]]] = field(
        default_factory=dict, repr=False
    )

    def __reduce__(self) -> tuple[type["Originals"], tuple[Any, ...]]:
        return type(self), (self.tools, self.formatted, self.schema, self.form)

    @property
    def cache_key(self) -> list[str]:
        """What tells classes apart whose schemas are equal, but not their validators."""
        return [_name_of_kind(one) for one in (*self.tools, self.schema)]

    def bound_to(
        self, model: BaseChatModel, more: Sequence[Mapping[str, Any]], given: Mapping[str, Any]
    ) -> tuple[Runnable[Any, Any], dict[str, Any]]:
        """Bind these tools, and more, to a model by its own `bind_tools`; once for equal arguments. See `bind`."""
        key = (id(model), repr(sorted(given.items())), repr(more))
        found = self._bindings.get(key)
        if found is None:
            if len(self._bindings) >= _MAX_BINDINGS:
                self._bindings.clear()
            # With the model, so that its id stays its own.
            found = self._bindings[key] = (model, *bind(model, [*self.tools, *more], given))
        return found[1:]


def _name_of_kind(one: Any) -> str:
    kind = one if isinstance(one, type) else type(one)
    name = f"{kind.__module__}.{kind.__qualname__}"
    # Classes made on the fly can share a name and differ; no other process knows them anyway.
    is_found = getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind
    return name if is_found or kind is not one else f"{name} {id(kind)}"


def bind(
    model: BaseChatModel, tools: Sequence[Any], given: Mapping[str, Any]
) -> tuple[Runnable[Any, Any], dict[str, Any]]:
    """Bind tools to a model by its own `bind_tools`.

    Returns:
        What is to be called, and with which arguments. The binding itself is left out: it does not close the stream of what
        it binds when it is closed.
    """
    bound: Runnable[Any, Any] = model.bind_tools([*tools], **given)
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
