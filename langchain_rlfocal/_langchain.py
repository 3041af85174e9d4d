"""LangChain: every private name of langchain-core that the package uses, each pinned by a test.

Why it is needed: LangChain hands a chat model no child callback manager, and none at all when it streams, so the runs of
an ensemble's members would show up beside the ensemble's run instead of under it. `NestedRunsMixin` carries the manager
to them in a private call argument that reaches neither traces nor cache keys. It also closes the ensemble's run when it
is cancelled. It does not ask anyone; that is `execution`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Self, cast
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.exceptions import ContextOverflowError, ModelError, ModelTimeoutError
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.chat_models import _ChatModelBinding
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatResult, LLMResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler, _V2StreamingCallbackHandler
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.langchain import LangChainTracer
from langchain_core.utils.uuid import uuid7
from pydantic import Field
from typing_extensions import override

from langchain_rlfocal.errors import BudgetError, DeadlineError, DisagreementError, EnsembleError, OverloadError
from langchain_rlfocal.redaction import shown_values

MemberCallbacks = Literal["tracers", "all", "none"]

PARENT_KEY = "_rlfocal_parent"
"""Call argument under which the callback managers of an ensemble's run travel to `_generate` and `_stream`."""

BOUND_TOOLS_KEY = "_rlfocal_bound_tools"
"""Call argument under which tools, or a schema, travel as the caller gave them: as dictionaries they lose what only some
providers read, and a pydantic class's own validators."""

_OWN_METADATA = frozenset(
    {"ls_provider", "ls_model_name", "ls_model_type", "ls_temperature", "ls_max_tokens", "ls_stop", "ls_integration"}
)
"""Metadata of the ensemble's own run, which must not reach its members'."""


class EnsembleModelError(EnsembleError, ModelError):
    """`EnsembleError` that LangChain also knows for a chat model's error, so that its retries read `is_retryable`."""


class EnsembleOverflowError(EnsembleModelError, ContextOverflowError):
    """Every asked member failed because the conversation is too long; LangChain's summarization catches it."""


class EnsembleDeadlineError(DeadlineError, EnsembleModelError, ModelTimeoutError):
    """`DeadlineError` that LangChain also knows for a model's time-out."""


class EnsembleBudgetError(BudgetError, EnsembleModelError):
    """`BudgetError` that LangChain also knows for a chat model's error."""


class EnsembleOverloadError(OverloadError, EnsembleModelError):
    """`OverloadError` that LangChain also knows for a chat model's error, which trying again later may mend."""


class EnsembleDisagreementError(DisagreementError, ModelError):
    """`DisagreementError` that LangChain also knows for a chat model's error, which trying again does not mend."""

    is_retryable = False


def is_control_flow(error: BaseException) -> bool:
    """Tell whether an exception is LangGraph's way to leave a node (interrupts, commands), which is no failure.

    LangGraph is recognised by name, since it need not be installed.
    """
    return any(base.__name__ == "GraphBubbleUp" for base in type(error).__mro__)


def untangled(error: BaseException) -> BaseException:
    """Return what a model raised, where LangChain tripped over it.

    What is no `Exception`, such as a model's own `CancelledError`, is taken for a result, on which LangChain then misses an
    attribute.
    """
    cause = error.obj if isinstance(error, AttributeError) else None
    return cause if isinstance(cause, BaseException) and not isinstance(cause, Exception) else error


def child_manager(
    manager: BaseCallbackManager | CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun,
    *,
    parent_run_id: UUID,
    mode: MemberCallbacks,
    own_params: Callable[[], Mapping[str, Any]],
) -> CallbackManager | AsyncCallbackManager:
    """Make the callback manager for runs under an ensemble's run.

    Args:
        manager: Manager of the ensemble's run, or the one it is about to be started with.
        parent_run_id: The ensemble's run.
        mode: Which handlers members' runs report to: `"tracers"` for tracers that do not stream, `"all"`, `"none"`.
        own_params: Gives what LangChain tells LangSmith's tracer of the ensemble, which must not be said of its members.
    """
    is_async = isinstance(manager, AsyncCallbackManager | AsyncCallbackManagerForLLMRun)
    child = (AsyncCallbackManager if is_async else CallbackManager)(handlers=[], parent_run_id=parent_run_id)
    handlers = list(manager.inheritable_handlers)
    if mode == "tracers":
        streaming = (_StreamingCallbackHandler, _V2StreamingCallbackHandler)
        handlers = [h for h in handlers if isinstance(h, BaseTracer) and not isinstance(h, streaming)]
    elif mode == "none":
        handlers = []
    if handlers:
        child.set_handlers([_without(h, own_params()) if isinstance(h, LangChainTracer) else h for h in handlers])
    if manager.inheritable_tags:
        child.add_tags(manager.inheritable_tags)
    if metadata := {k: v for k, v in manager.inheritable_metadata.items() if k not in _OWN_METADATA}:
        child.add_metadata(metadata)
    return child


def _without(tracer: LangChainTracer, own_params: Mapping[str, Any]) -> LangChainTracer:
    """Copy a tracer that would tag every run under the ensemble's with the ensemble's parameters; the runs stay shared."""
    copied = tracer.copy_with_metadata_defaults()
    if copied.tracing_metadata is not None:
        told = copied.tracing_metadata.items()
        copied.tracing_metadata = {k: v for k, v in told if k not in own_params or v != own_params[k]}
    return copied


@dataclass(frozen=True, slots=True)
class Parent:
    """The ensemble's run, as what happens under it needs to know it.

    Attributes:
        members: Callback manager for members' runs; None outside any run.
        own: Callback manager for events of the ensemble's own run, which all of its handlers are told; None without any.
        streams: Answers that are streamed under this run, to be closed with it.
        run_id: Its id; None outside any run.
    """

    members: CallbackManager | AsyncCallbackManager | None = None
    own: CallbackManager | AsyncCallbackManager | None = None
    streams: list[AsyncGenerator[Any]] = field(default_factory=list)
    run_id: UUID | None = None

    @classmethod
    def of(
        cls,
        manager: BaseCallbackManager | CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun,
        *,
        run_id: UUID,
        mode: MemberCallbacks,
        own_handlers: Sequence[BaseCallbackHandler] = (),
        own_params: Callable[[], Mapping[str, Any]] = dict,
    ) -> Self:
        """Make the managers under a run; see `child_manager`. `own_handlers` are those of the ensemble alone."""
        members = child_manager(manager, parent_run_id=run_id, mode=mode, own_params=own_params)
        handlers = [*manager.handlers, *(h for h in own_handlers if h not in manager.handlers)]
        if not handlers:
            return cls(members, run_id=run_id)
        own = child_manager(manager, parent_run_id=run_id, mode="all", own_params=own_params)
        own.set_handlers(handlers)
        return cls(members, own, run_id=run_id)

    def tell(self, name: str, describe: Callable[..., Mapping[str, Any]], *args: Any) -> None:
        """Dispatch a custom event to the handlers of the ensemble's run; its data is made only if there are any."""
        if self.own is not None:
            dispatch_custom_event(name, describe(*args), config={"callbacks": self.own})

    async def atell(self, name: str, describe: Callable[..., Mapping[str, Any]], *args: Any) -> None:
        """Dispatch a custom event to the handlers of the ensemble's run; its data is made only if there are any."""
        if self.own is not None:
            await adispatch_custom_event(name, describe(*args), config={"callbacks": self.own})


class OpenRuns(AsyncCallbackHandler):
    """Sees which runs of chat models begin and end under a call, and closes those that a cancellation leaves open.

    LangChain reports errors of an `ainvoke` but not its cancellation, and a trace would show it running forever.
    """

    def __init__(self, handlers: Sequence[BaseCallbackHandler]) -> None:
        self._handlers = list(handlers)
        self._open: dict[UUID, UUID | None] = {}

    @classmethod
    def under(cls, config: RunnableConfig, model: BaseChatModel) -> Self:
        """Watch the runs of a call.

        Args:
            config: The call's config, whose callback manager, if there is one, is given one handler more.
            model: The model that is called, which may have callbacks of its own.
        """
        manager = config.get("callbacks")
        if not isinstance(manager, BaseCallbackManager):
            return cls([])
        watch = cls([*manager.handlers, *_handlers_of(model)])
        manager.add_handler(watch)
        return watch

    async def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Note that a run has begun."""
        del serialized, messages, kwargs
        self._open[run_id] = parent_run_id

    async def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Note that a run has ended."""
        del response, kwargs
        self._open.pop(run_id, None)

    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Note that a run has failed."""
        del error, kwargs
        self._open.pop(run_id, None)

    async def close(self, error: BaseException) -> None:
        """Tell the call's handlers that the runs still open have ended by this error."""
        for run_id, parent_run_id in [*self._open.items()]:
            manager = AsyncCallbackManagerForLLMRun(
                run_id=run_id, handlers=self._handlers, inheritable_handlers=[], parent_run_id=parent_run_id
            )
            await manager.on_llm_error(error, response=LLMResult(generations=[]))
        self._open.clear()


class ClosingBinding(_ChatModelBinding):
    """What `bind` returns: closed, it closes the stream of what it binds, which LangChain leaves to the garbage collector."""

    @override
    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessage]:
        chunks = self.bound.astream(input, self._merge_configs(config), **{**self.kwargs, **kwargs})
        async with aclosing(cast("AsyncGenerator[AIMessage]", chunks)) as stream:
            async for chunk in stream:
                yield chunk


class NestedRunsMixin(BaseChatModel):
    """What a chat model overrides of LangChain so that the runs of its members belong under its own."""

    member_callbacks: MemberCallbacks = Field(default="tracers", exclude=True)
    """Which of the caller's callback handlers see the members' own runs.

    `"tracers"` (LangSmith and the like, that draw a tree), `"all"` (also token streams: members' tokens then mix with
    the ensemble's wherever a consumer does not tell runs apart), or `"none"`.
    """

    def _take_parent(
        self,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
    ) -> Parent:
        """Take the private argument out of `kwargs`: under which run members are asked."""
        parent: Parent | None = kwargs.pop(PARENT_KEY, None)
        if parent is None and run_manager is not None:
            parent = Parent.of(run_manager, run_id=run_manager.run_id, mode=self.member_callbacks)
        return parent or Parent()

    def _under_new_run(
        self,
        manager_class: type[CallbackManager] | type[AsyncCallbackManager],
        config: RunnableConfig | None,
    ) -> tuple[RunnableConfig, Parent]:
        """Fix the id of the run that a stream is about to start, and make the managers under it.

        Callbacks are configured here, once: if the stream configured them again it would make a second tracer, to which
        the children's parent is unknown.
        """
        config = ensure_config(config)
        run_id = config["run_id"] = config.get("run_id") or uuid7()
        manager = manager_class.configure(
            inheritable_callbacks=config.get("callbacks"),
            inheritable_tags=config.get("tags"),
            inheritable_metadata=config.get("metadata"),
        )
        config["callbacks"] = manager
        own = _handlers_of(self)
        return config, Parent.of(manager, run_id=run_id, mode=self.member_callbacks, own_handlers=own)

    @override
    def bind(self, **kwargs: Any) -> ClosingBinding:
        return ClosingBinding(bound=self, kwargs=kwargs, config={})

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002  # LangChain's name for it
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream the answer; see `BaseChatModel.stream`."""
        config, parent = self._under_new_run(CallbackManager, config)
        yield from super().stream(input, config, stop=stop, **{**kwargs, PARENT_KEY: parent})

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002  # LangChain's name for it
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream the answer; see `BaseChatModel.astream`."""
        config, parent = self._under_new_run(AsyncCallbackManager, config)
        chunks = super().astream(input, config, stop=stop, **{**kwargs, PARENT_KEY: parent})
        async with aclosing(cast("AsyncGenerator[AIMessageChunk]", chunks)):
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                # LangChain leaves what streams to the garbage collector: members would end after their ensemble's run.
                for stream in parent.streams:
                    await stream.aclose()

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if run_manager is not None and PARENT_KEY not in kwargs:
            params = partial(self._get_invocation_params, stop=stop, **kwargs)
            kwargs[PARENT_KEY] = Parent.of(
                run_manager, run_id=run_manager.run_id, mode=self.member_callbacks, own_params=params
            )
        return super()._generate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if run_manager is not None and PARENT_KEY not in kwargs:
            params = partial(self._get_invocation_params, stop=stop, **kwargs)
            kwargs[PARENT_KEY] = Parent.of(
                run_manager, run_id=run_manager.run_id, mode=self.member_callbacks, own_params=params
            )
        try:
            return await super()._agenerate_with_cache(messages, stop=stop, run_manager=run_manager, **kwargs)
        except asyncio.CancelledError as error:
            # LangChain reports errors of a call but not its cancellation, and a trace would show it running forever.
            if run_manager is not None:
                await run_manager.on_llm_error(error, response=LLMResult(generations=[]))
            raise

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=stop, **_shown(kwargs))

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        bound = kwargs.get(BOUND_TOOLS_KEY)
        facts = [self._cache_facts, None if bound is None else bound.cache_key]
        return super()._get_llm_string(stop=stop, **_shown(kwargs), ensemble_facts=facts)

    @property
    def _cache_facts(self) -> dict[str, Any]:
        """What decides an answer besides what traces show."""
        return {}


def _handlers_of(model: BaseChatModel) -> list[BaseCallbackHandler]:
    """Return the callback handlers that a model was made with."""
    own = model.callbacks
    return list(own.handlers if isinstance(own, BaseCallbackManager) else own or [])


def _shown(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return the caller's arguments of a call without secrets; schemas, which hold none and are large, as they are."""
    if not (public := _public(kwargs)):
        return public
    names = ("tools", "functions", "response_format")
    schemas: dict[str, Any] = {name: public[name] for name in names if name in public}
    return {**shown_values({name: value for name, value in public.items() if name not in schemas}), **schemas}


def _public(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name not in {PARENT_KEY, BOUND_TOOLS_KEY}}
