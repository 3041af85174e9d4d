"""Binding: tools and structured output, as LangChain asks a chat model for them.

Both only bind call arguments; what each member is asked, and what its answer must hold, is `requests`'. The tools as the
caller gave them travel beside their dictionaries, since some providers read what dictionaries lose.
"""

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Literal

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.pydantic import is_basemodel_subclass

from langchain_rlfocal._langchain import ORIGINALS_KEY, NestingChatModel
from langchain_rlfocal.chat_models.forms import Originals, name_of, response_format_of, standard_choice, to_tool
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.errors import InputError

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool
Method = Literal["function_calling", "json_schema", "json_mode"]


class ToolCallingChatModel(NestingChatModel):
    """A chat model whose members are given tools and schemas, each in its own provider's form."""

    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: dict[str, Any] | str | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        response_format: Any = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Give tools to every member that is asked, in its own provider's form.

        Members vote for their tool calls as a whole, or for answering in text. The winner's calls are returned as that
        member made them, with ids of their own; calls of several members are never put together.

        Args:
            tools: LangChain tools, functions, pydantic classes, or tools in OpenAI's form.
            tool_choice: `"auto"`, `"none"`, `"any"`, or a tool's name; other providers' forms of these are understood. A
                member that ignores a forced choice has failed.
            strict: Whether members shall hold to the schemas strictly, where their providers can.
            parallel_tool_calls: False allows one call at most; a member that makes more has failed.
            response_format: What a text must be where no tool is called: a class, a JSON schema, or OpenAI's form.
            **kwargs: Bound to the call as they are.

        Raises:
            InputError: The tool choice names no tool, or the response format is none.
        """
        formatted = [to_tool(tool, strict=strict) for tool in tools]
        names = tuple(name_of(tool) for tool in formatted)
        choice = standard_choice(tool_choice, names)
        form = response_format_of(response_format, strict=strict)
        originals = Originals(tuple(tools), tuple(formatted), response_format, form)
        for schema in Request(tools=tuple(formatted), originals=originals).schemas.values():
            schema.narrowed({})  # what a schema's first use costs is paid here, not while members are waited for
        given = {
            "tool_choice": None if choice == "auto" else choice,
            "strict": strict,
            "parallel_tool_calls": parallel_tool_calls,
            "response_format": form,
        }
        return self.bind(
            tools=formatted,
            **{name: value for name, value in given.items() if value is not None},
            **{ORIGINALS_KEY: originals},
            **kwargs,
        )

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        include_raw: bool = False,
        method: Method = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Have the answer as an object.

        An object that more than half of Fusion's weight agrees on is returned as it is; else members agree field by field:
        they vote on choices, whole numbers and short strings, and the median is taken of other numbers. Free text, and
        what no two say alike, is never put beside what its author did not say: then the whole object is that of the member
        who agrees with most of the other fields. The outcome must fit the schema; else the most trusted member's object is
        returned. A class reads the values, with its own validators, before they are compared: "19.99" and 19.99 are one
        Decimal. How many agree on each field stands in the message's `response_metadata["rlfocal"]["fusion"]["fields"]`.

        Args:
            schema: A pydantic class (of version 1 or 2), a TypedDict, or a JSON schema. `"json_mode"` can do without.
            include_raw: True returns `{"raw": message, "parsed": object, "parsing_error": error or None}`.
            method: How members are asked for it: by a tool they must call, by a JSON schema, or for any JSON, which the
                prompt must then describe. For the latter two each member is asked as its own `with_structured_output` does.
            strict: Whether members shall hold to the schema strictly, where their providers can.
            **kwargs: Bound to the call as they are.

        Returns:
            A runnable that returns an instance of a pydantic class, else a dictionary.

        Raises:
            InputError: There is no schema where one is needed, or the method is unknown.
        """
        if schema is None and method != "json_mode":
            raise InputError(f'`schema` must be given for method="{method}". Only "json_mode" can do without.')
        is_class = isinstance(schema, type) and is_basemodel_subclass(schema)
        traced = {"kwargs": {"method": method, "strict": strict}, "schema": schema}
        parser: Runnable[Any, Any]
        if method == "function_calling":
            assert schema is not None, "checked above"
            name = name_of(to_tool(schema))
            llm = self.bind_tools(
                [schema],
                tool_choice=name,
                strict=strict,
                ls_structured_output_format=traced,
                **{"consensus": "fields", **kwargs, "parallel_tool_calls": False},  # it is one object
            )
            parser = (
                PydanticToolsParser(tools=[schema], first_tool_only=True)
                if is_class and isinstance(schema, type)
                else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            )
        elif method in {"json_schema", "json_mode"}:
            form = {"type": "json_object"} if method == "json_mode" else response_format_of(schema, strict=strict)
            llm = self.bind(
                response_format=form,
                ls_structured_output_format=traced,
                **{ORIGINALS_KEY: Originals(schema=schema, form=form, method=method, strict=strict)},
                **kwargs,
            )
            parser = PydanticOutputParser(pydantic_object=schema) if is_class else JsonOutputParser()  # type: ignore[arg-type]  # a pydantic class, as checked
        else:
            raise InputError(
                f'`method` must be "function_calling", "json_schema" or "json_mode", got {method!r}. The first works with '
                "every member that knows tools."
            )
        if not include_raw:
            return llm | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        unparsed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=llm) | parsed.with_fallbacks([unparsed], exception_key="parsing_error")
