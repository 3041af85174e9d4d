"""Answering: one request put to the ensemble, whole or piece by piece, under the server's limits."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

from langchain_rlfocal.server.callers import Caller
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.names import Choice
from langchain_rlfocal.server.state import ServerState


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for.

    Attributes:
        choice: Who is asked.
        messages: The conversation.
        options: Call options, from the body's `rlfocal` object; they go before those of the model's name.
        parameters: What goes to the members, such as `temperature`.
        tools: Tools in OpenAI's form.
        binding: How tools are bound: `tool_choice`, `parallel_tool_calls`, `response_format`, as far as they are given.
    """

    choice: Choice
    messages: Sequence[BaseMessage]
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Any] = ()
    binding: Mapping[str, Any] = field(default_factory=dict)


def runnable_of(asked: Asked, serving: ServerState, caller: Caller) -> Runnable[LanguageModelInput, AIMessage]:
    """Make what is asked: the ensemble with tools and options bound."""
    arguments = {**asked.choice.options, **asked.options, **asked.parameters}
    if asked.choice.member is not None:
        arguments["model"] = asked.choice.member
    if caller.account is not None:
        arguments["account"] = caller.account
    if asked.tools or asked.binding:
        return serving.model.bind_tools(asked.tools, **asked.binding, **arguments)
    return serving.model.bind(**arguments)


def config_of(serving: ServerState) -> RunnableConfig:
    """Make the configuration of a run."""
    return RunnableConfig(callbacks=[*serving.callbacks])


async def answer(asked: Asked, serving: ServerState, caller: Caller) -> AIMessage:
    """Ask, and wait for the whole answer.

    Raises:
        ApiError: It took too long.
    """
    runnable = runnable_of(asked, serving, caller)
    try:
        async with asyncio.timeout(serving.config.timeout_s):
            return await runnable.ainvoke([*asked.messages], config=config_of(serving))
    except TimeoutError:
        raise _too_long(serving) from None


async def pieces(asked: Asked, serving: ServerState, caller: Caller) -> AsyncIterator[AIMessageChunk]:
    """Ask, and yield the answer as it comes; closing the iterator cancels the members' calls.

    Raises:
        ApiError: It took too long.
    """
    runnable = runnable_of(asked, serving, caller)
    stream: Any = runnable.astream([*asked.messages], config=config_of(serving))
    loop = asyncio.get_running_loop()
    limit = serving.config.timeout_s
    ends = None if limit is None else loop.time() + limit
    async with aclosing(stream) as chunks:
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise _too_long(serving) from None
            if chunk is None:
                return
            yield chunk


def _too_long(serving: ServerState) -> ApiError:
    return ApiError(
        504,
        f"The answer took longer than the {serving.config.timeout_s:g} s that this server allows. Ask for less, or give "
        "`rlfocal.deadline_s`, which answers with what has arrived.",
        type="server_error",
        code="timeout",
    )
