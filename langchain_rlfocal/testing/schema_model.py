"""Schema model: a chat model that does what its call arguments tell it, as a good one would.

It calls tools, answers in JSON where a `response_format` asks for it, and otherwise says one sentence. Values come out of
the JSON schemas and the last human message (`schema_values`); it understands nothing.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langchain_core.messages.tool import tool_call
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.base import OutputParserLike
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, Field
from typing_extensions import override

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.testing.doubles import DoubleChatModel, Reply, question_in
from langchain_rlfocal.testing.schema_values import make_value

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool
Function = Mapping[str, Any]
Answers = Callable[[Sequence[BaseMessage], Sequence[Function]], Reply | None]


class SchemaChatModel(DoubleChatModel):
    """A chat model that obeys tools, `tool_choice`, `response_format`, `strict`, `parallel_tool_calls` and `stop`.

    Left to itself (`tool_choice` None or `"auto"`) it calls the tools that the last human message mentions by name; where
    there are none, the tool with most words of its name in the message; never right after a tool's result, which it
    repeats in words instead. Forced to call, it prefers tools that it has not called since the last human message.
    Arguments, and JSON for a `response_format`, are made by `make_value` from their schema and the last human message.

    Example:
        ```python
        def weather(city: str) -> str:
            "Tell the weather."
            return "sunny"


        model = SchemaChatModel().bind_tools([weather])
        [call] = model.invoke("What is the weather in Oslo?").tool_calls
        assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
        ```

    Raises:
        InputError: `tool_choice` names no tool, or a schema allows no value that can be made.
    """

    says: str = "Hello to you."
    """What it says where it neither calls a tool nor has a result to repeat."""

    answers: Answers | None = Field(default=None, exclude=True, repr=False)
    """Makes the answer instead: a function of the messages and the tools (names, descriptions and parameters in OpenAI's
    form), which may also raise. A message goes out as it is; where it returns None the answer is as usual."""

    ignores_tool_choice: bool = False
    """Whether it is left to itself whatever `tool_choice` says, as some models are."""

    model_name: str = "schema"
    """Name in traces and in `response_metadata`."""

    @property
    def _llm_type(self) -> str:
        return "rlfocal-schema"

    @override
    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: dict[str, Any] | type | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools.

        Args:
            tools: The tools, in any form that LangChain knows.
            tool_choice: None or `"auto"` leaves the choice to the model, `"none"` forbids calls, `"any"`, `"required"` or
                True demands one, a tool's name (or OpenAI's dict with it) demands that tool.
            strict: Whether calls have all of a tool's arguments.
            parallel_tool_calls: False allows one call at most.
            response_format: Form of an answer in words; see `with_structured_output`.
            **kwargs: Bound as they are.
        """
        arguments = {
            "tool_choice": tool_choice,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": response_format,
        }
        given = {name: value for name, value in arguments.items() if value is not None}
        return self.bind(tools=[convert_to_openai_tool(tool, strict=strict) for tool in tools], **given, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Literal["function_calling", "json_schema", "json_mode"] = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answer with objects of a schema.

        Args:
            schema: A pydantic class (1 or 2), a TypedDict, or a JSON schema.
            include_raw: Whether to return the message (`"raw"`) beside the object (`"parsed"`) and what kept it from being
                read (`"parsing_error"`).
            method: By a tool call, by a schema for the answer, or by asking for JSON of any schema: then the object gets
                the keys that the last human message has in quotes.
            strict: Whether objects have all properties.
            **kwargs: Bound as they are.
        """
        json_schema = convert_to_json_schema(schema)
        noted = {"kwargs": {"method": method, "strict": strict}, "schema": json_schema}
        pydantic_class = schema if isinstance(schema, type) and is_basemodel_subclass(schema) else None
        parser: OutputParserLike[Any]
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

    @override
    def _answer(self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Reply:
        tools = [tool.get("function", tool) for tool in kwargs.get("tools") or ()]
        reply = self.answers(messages, tools) if self.answers is not None else None
        if isinstance(reply, AIMessage):
            return reply
        if reply is None:
            chosen = self._chosen(messages, [tool for tool in tools if "name" in tool], kwargs)
            calls = [self._call(tool, at, messages, kwargs) for at, tool in enumerate(chosen)]
            if calls:
                return AIMessage(content="", tool_calls=calls)
            reply = self._text(messages, kwargs)
        return re.split("|".join(map(re.escape, stop)), reply, maxsplit=1)[0] if stop else reply

    def _chosen(
        self, messages: Sequence[BaseMessage], tools: Sequence[Function], kwargs: Mapping[str, Any]
    ) -> Sequence[Function]:
        """Choose the tools to call."""
        choice = "auto" if self.ignores_tool_choice else _choice_of(kwargs.get("tool_choice"))
        if not tools or choice == "none" or (choice == "auto" and isinstance(messages[-1], ToolMessage)):
            return ()
        if choice not in ("auto", "any"):
            named = [tool for tool in tools if tool["name"] == choice]
            if not named:
                known = ", ".join(tool["name"] for tool in tools)
                raise InputError(
                    f"`tool_choice` must name one of the tools ({known}), got {choice!r}. Bind that tool too."
                )
            return named
        if choice == "any":
            called = _called_since_question(messages)
            tools = [tool for tool in tools if tool["name"] not in called] or tools
        mentioned = _mentioned(tools, question_in(messages)) or (tools[:1] if choice == "any" else ())
        return mentioned[:1] if kwargs.get("parallel_tool_calls") is False else mentioned

    def _call(self, tool: Function, at: int, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> ToolCall:
        strict = bool(tool.get("strict") or kwargs.get("strict"))
        args = make_value(
            {"type": "object", **tool.get("parameters", {})}, question_in(messages), every_property=strict
        )
        # Ids differ between models, turns and calls, without chance or a counter.
        made_of = json.dumps([self.model_name, len(messages), at, tool["name"], args], default=str)
        call_id = f"call_{hashlib.sha256(made_of.encode()).hexdigest()[:24]}"
        return tool_call(name=tool["name"], args=args, id=call_id)

    def _text(self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]) -> str:
        """Answer in words, or in JSON where that is asked for."""
        question = question_in(messages)
        form = kwargs.get("response_format")
        if form is not None and form != {"type": "text"}:
            schema, strict = _schema_of(form, question)
            value = make_value(schema, question, every_property=bool(strict or kwargs.get("strict")))
            return json.dumps(value, ensure_ascii=False)
        at = len(messages)
        while at and isinstance(messages[at - 1], ToolMessage):
            at -= 1
        results = [f"{result.name or 'The tool'} says: {result.text}" for result in messages[at:]]
        return "\n".join(results) or self.says


def _choice_of(given: Any) -> str:
    """Reduce what `tool_choice` can be to `"auto"`, `"none"`, `"any"` or a tool's name."""
    if isinstance(given, Mapping):
        given = given.get("function", given).get("name")
    if given is None or isinstance(given, bool):
        return "any" if given else "auto"
    if not isinstance(given, str):
        raise InputError(
            f'`tool_choice` must be "auto", "none", "any" or a tool\'s name, got {given!r}. Name the tool.'
        )
    return "any" if given == "required" else given


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
    """Find the tools that a text names, in its order; where there are none, the one with most words of its name in it."""
    places = [(re.search(rf"(?<!\w){re.escape(tool['name'])}(?!\w)", text), tool) for tool in tools]
    named = sorted(((place.start(), at) for at, (place, _) in enumerate(places) if place))
    if named:
        return [tools[at] for _, at in named]
    words = set(re.findall(r"\w+", text.lower()))
    shared = [len(words & _words_of(tool["name"])) for tool in tools]
    return [tools[shared.index(max(shared))]] if any(shared) else ()


def _words_of(name: str) -> set[str]:
    """Return the words of a tool's name that say something: those of more than three letters."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name) if len(word) > 3}
