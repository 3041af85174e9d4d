"""Answering: one request put to the ensemble, whole or piece by piece, under the server's limits.

An answer whose client has gone is cancelled, and with it the members' calls.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.utils.uuid import uuid7
from starlette.requests import Request

from langchain_rlfocal.server.callers import Caller
from langchain_rlfocal.server.errors import ApiError
from langchain_rlfocal.server.names import Choice
from langchain_rlfocal.server.options import DECIDING
from langchain_rlfocal.server.state import ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a client asks for.

    Attributes:
        caller: Who asks.
        choice: Who is asked.
        messages: The conversation.
        options: Options of the call; they go before those of the model's name.
        parameters: What goes to the members, such as `temperature`.
        tools: Tools in OpenAI's form.
        binding: How tools and the response format are bound, as arguments of `bind_tools`.
        answer_id: The answer's id.
    """

    caller: Caller
    choice: Choice
    messages: Sequence[BaseMessage]
    options: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[dict[str, Any]] = ()
    binding: Mapping[str, Any] = field(default_factory=dict)
    answer_id: UUID = field(default_factory=uuid7)


def runnable_of(asked: Asked, serving: ServerState) -> Runnable[LanguageModelInput, AIMessage]:
    """Make what is asked: the ensemble with tools and options bound."""
    named = {} if DECIDING & asked.options.keys() else asked.choice.options  # each decides what an answer takes
    arguments = {**named, **asked.options, **asked.parameters}
    if "session" in arguments:  # two callers may name theirs alike
        arguments["session"] = f"{asked.caller.key_id or ''}/{arguments['session']}"
    if asked.choice.member is not None:
        arguments["model"] = asked.choice.member
    if asked.caller.account is not None:
        arguments["account"] = asked.caller.account
    if asked.tools or asked.binding:
        return serving.model.bind_tools([*asked.tools], **asked.binding, **arguments)
    return serving.model.bind(**arguments)


def config_of(asked: Asked, serving: ServerState) -> RunnableConfig:
    """Make the configuration of an answer's run."""
    return RunnableConfig(
        callbacks=[*serving.callbacks],
        run_id=asked.answer_id,
        metadata={} if asked.caller.key_id is None else {"key_id": asked.caller.key_id},
    )


async def answer(asked: Asked, serving: ServerState, request: Request) -> AIMessage:
    """Ask, and wait for the whole answer; it is cancelled where the client leaves.

    Raises:
        ApiError: There is no place for it, it took too long, or the client has left.
    """
    asking = asyncio.ensure_future(_whole(asked, serving))
    leaving = asyncio.ensure_future(disconnected(request))
    try:
        await asyncio.wait([asking, leaving], return_when=asyncio.FIRST_COMPLETED)
        if asking.done():
            return asking.result()
    finally:
        for task in (asking, leaving):
            task.cancel()
        await asyncio.gather(asking, leaving, return_exceptions=True)
    raise ApiError(499, "The client left before the answer was whole.", code="client_disconnected")


async def _whole(asked: Asked, serving: ServerState) -> AIMessage:
    async with serving.admission.answer(timeout_s=serving.config.timeout_s):
        return await runnable_of(asked, serving).ainvoke([*asked.messages], config_of(asked, serving))


async def pieces(asked: Asked, serving: ServerState) -> AsyncGenerator[AIMessageChunk]:
    """Ask, and yield the answer as it comes; closing the iterator cancels the members' calls. One task must do both.

    Raises:
        ApiError: There is no place for it, or it took too long.
    """
    async with serving.admission.answer(timeout_s=serving.config.timeout_s):
        stream = runnable_of(asked, serving).astream([*asked.messages], config_of(asked, serving))
        async with aclosing(cast("AsyncGenerator[AIMessageChunk]", stream)) as chunks:
            async for chunk in chunks:
                yield chunk


async def disconnected(request: Request) -> None:
    """Wait until the client has left; its request must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
