"""Calls: one attempt to ask one member, and what its response or error becomes.

A response becomes a `Candidate`, anything else a `Failure`.
"""

import json
import math
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, UsageMetadata, message_chunk_to_message
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.config import ensure_config, set_config_context, var_child_runnable_config

from langchain_rlfocal._langchain import NestedRunsMixin, is_control_flow, untangled
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.execution.budgets import Reservation, Usage, message_tokens, output_bound, prompt_tokens
from langchain_rlfocal.execution.clients import (
    cannot_think,
    disabling_argument,
    thinking_switched_off,
    without_retries,
    without_thinking,
)
from langchain_rlfocal.execution.endings import ending_in_words, flaw_of, refusal_in_words
from langchain_rlfocal.execution.limits import Permit, Slot
from langchain_rlfocal.execution.retries import RetryPolicy, may_have_cost, refused_arguments
from langchain_rlfocal.execution.sharing import Clock
from langchain_rlfocal.execution.store import Ticket
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.redaction import RedactedError, printable, secrets_of, shown_text, without_secrets

MAX_TEXT_CHARS = 1_000_000
"""A longer answer is a failure: comparing, storing and showing it costs more than it can be worth."""

MAX_CONTENT_CHARS = 20_000_000
"""The same for all that its content holds: media, reasoning, whatever a provider puts there."""

MAX_REASON_CHARS = 500

MAX_NAMES, MAX_NAME_CHARS = 3, 80
"""How many arguments are named in a reason, and with how much of their names."""

_ONE_CALL = Usage(calls=1)
_COUNTS = ("input_tokens", "output_tokens", "total_tokens")
_MAX_COUNT = 10**12
"""Who reports more tokens, or fewer than none, has miscounted; sums and prices of such counts break."""

Role = Literal["member", "synthesizer", "equivalence"]
Result = Candidate | Failure

_asking: ContextVar[tuple[int, ...]] = ContextVar("rlfocal_asking", default=())
_call: ContextVar["MemberCall | None"] = ContextVar("rlfocal_call", default=None)


def enclosing_ensembles() -> tuple[int, ...]:
    """Return the ids of the ensembles within whose calls the present code runs, outermost first."""
    return _asking.get()


def current_call() -> "MemberCall | None":
    """Return the call within whose context the present code runs, the innermost; None outside any that a handler is told of."""
    return _call.get()


# ---- what is asked


class UnusableAnswerError(Exception):
    """A member responded, but with nothing that can be an answer.

    Attributes:
        kind: Short class of the cause: `"empty"`, `"too_long"`, a candidate's flaw, or what a `MemberRequest`'s check says.
        message: What it responded, so that its tokens are counted; None for a stream that was cut off.
    """

    def __init__(self, kind: str, reason: str, message: AIMessage | None = None) -> None:
        self.kind, self.message = kind, message
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class MemberRequest:
    """What one member is asked, as its model takes it.

    Attributes:
        model: The member's model, with tools bound where there are any.
        messages: The conversation as this member can read it.
        kwargs: Other call arguments.
        check: Raises `UnusableAnswerError` on a response that breaks what was asked for.
    """

    model: Runnable[LanguageModelInput, AIMessage]
    messages: list[BaseMessage]
    kwargs: Mapping[str, Any]
    check: Callable[[AIMessage], None] | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """All call arguments, those bound to the model among them."""
        bound = self.model.kwargs if isinstance(self.model, RunnableBinding) else {}
        return {**bound, **self.kwargs}


Prepare = Callable[[PoolMember, list[BaseMessage]], MemberRequest]
"""Makes a member's request of the messages, a list of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRequest:
    """What is put to every member of a round.

    Attributes:
        messages: What to ask; each member gets its own list of the same messages.
        round_number: Round to note in the records, counted from 1.
        config: Callbacks, tags and metadata for the members' runs; what is missing comes from the enclosing run.
        role: What traces say that the members are.
        prepare: Makes each member's request, arguments included; what it raises is that member's failure. None asks everybody
            the same.
        stop: Stop sequences for the members.
        kwargs: Other call arguments, passed on where there is no `prepare`.
        ensemble_id: Id of the ensemble that asks, None if none does; see `enclosing_ensembles`.
        has_listeners: False if no handler is told of the run around, so that none but a member's own can be told of its run.
    """

    messages: Sequence[BaseMessage]
    round_number: int
    config: RunnableConfig = field(default_factory=RunnableConfig)
    role: Role = "member"
    prepare: Prepare | None = None
    stop: list[str] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    ensemble_id: int | None = None
    has_listeners: bool = True

    def run_config(self) -> RunnableConfig:
        """Make what the configs of all members' runs have in common; see `MemberCall.start`."""
        config = ensure_config(None)  # what LangGraph keeps for the enclosing node must reach members
        config.pop("run_id", None)
        config["callbacks"] = self.config.get("callbacks", config.get("callbacks"))
        config["tags"] = [*(self.config.get("tags") or ())]
        config["metadata"] = {
            **(self.config.get("metadata") or {}),
            "rlfocal_role": self.role,
            "rlfocal_round": self.round_number,
        }
        return config


# ---- one attempt


@dataclass(slots=True, eq=False)
class MemberCall:
    """One attempt to ask one member: it waits for its slot, runs, and is over, which is when what comes of it does not count.

    Attributes:
        member: Whom to ask.
        request: What to ask.
        clock: Gives seconds.
        number: Which attempt it is, counted from 1.
        thinks: False to ask the member without its thinking, whatever the conversation.
        retry: Which errors are worth another attempt.
        status: Where it is.
        started_s: When it was sent, moved on by the time that the reader of its stream took.
        cut_at_s: When it is cut off.
        is_postponed: True once that was put off, since the event loop was late.
        is_shared: True if it asks the store that processes share; else this process lets it through.
        ticket: What it has asked that store with.
        has_leave: True once the store lets it be made.
        slot: Its place among the calls that run; whoever runs the call releases it when the call has ended.
        has_begun: True once something may have been sent.
        has_spoken: True once text of it was passed on, after which nobody can be asked instead.
        prepared: What the member is asked.
        config: Config of the member's run.
    """

    member: PoolMember
    request: RoundRequest
    clock: Clock
    number: int = 1
    thinks: bool = True
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    status: Literal["waiting", "running", "over"] = "waiting"
    started_s: float = 0.0
    cut_at_s: float = math.inf
    is_postponed: bool = False
    slot: Slot | None = None
    permit: Permit | None = None
    reservation: Reservation | None = None
    is_shared: bool = False
    ticket: Ticket | None = None
    has_leave: bool = False
    has_begun: bool = False
    has_spoken: bool = False
    prepared: MemberRequest | None = None
    config: RunnableConfig = field(default_factory=RunnableConfig)
    _secrets_found: frozenset[str] | None = None

    def prepare(self, common: RunnableConfig, *, timeout_s: float | None = None) -> None:
        """Make what the member is asked, and the config of its run.

        Args:
            common: See `RoundRequest.run_config`.
            timeout_s: Seconds after which the member's own client shall give up, None to leave it alone.
        """
        self.started_s = self.clock()
        request, role = self.request, self.request.role
        name = f"member:{self.member.name}" if role == "member" else role
        callbacks = common.get("callbacks")
        # LangGraph shows no tokens of runs tagged "nostream": members speak to the ensemble, not to the user.
        tags = [*common["tags"], f"rlfocal:{name}", f"rlfocal:round:{request.round_number}", "nostream"]
        self.config = {
            **common,
            "callbacks": callbacks,
            "run_name": name,
            "tags": tags,
            "metadata": {**common["metadata"], "rlfocal_member": self.member.name, "rlfocal_attempt": self.number},
        }
        if isinstance(callbacks, BaseCallbackManager) and self.is_traced:
            self.config["callbacks"] = callbacks.copy()  # what watches the call's runs is added to it
        model = without_retries(self.member.model, timeout_s=timeout_s)
        self.prepared = prepared = self._request_of(
            self.member if model is self.member.model else replace(self.member, model=model)
        )
        if self.thinks and not cannot_think(model, prepared.arguments, prepared.messages):
            return
        everything = not self.thinks
        other = without_thinking(model, everything=everything)
        if other is not model:
            prepared = self._request_of(replace(self.member, model=other))
        changes = thinking_switched_off(prepared.arguments, everything=everything)
        if everything and not changes:
            changes = disabling_argument(model)
        self.prepared = replace(prepared, kwargs={**prepared.kwargs, **changes})

    def _request_of(self, member: PoolMember) -> MemberRequest:
        messages, prepare = list(self.request.messages), self.request.prepare
        return (
            MemberRequest(member.model, messages, self.request.kwargs) if prepare is None else prepare(member, messages)
        )

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that the member is called with."""
        return dict(self.request.kwargs) if self.prepared is None else self.prepared.arguments

    def release_slot(self) -> None:
        """Give the call's slot back, or leave the line."""
        if self.slot is not None:
            self.slot.release(self.clock())
        if self.ticket is not None:
            self.ticket.release()

    # ---- asking

    def invoke(self, context: Context) -> AIMessage:
        """Ask for the whole response."""
        asked = self._asked
        return context.run(asked.model.invoke, asked.messages, self.config, stop=self.request.stop, **asked.kwargs)

    async def ainvoke(self) -> AIMessage:
        """Ask for the whole response."""
        asked = self._asked
        return await asked.model.ainvoke(asked.messages, self._told, stop=self.request.stop, **asked.kwargs)

    def stream(self, context: Context) -> Iterator[AIMessage]:
        """Ask for the response in chunks."""
        asked = self._asked
        return context.run(asked.model.stream, asked.messages, self.config, stop=self.request.stop, **asked.kwargs)

    def astream(self) -> AsyncIterator[AIMessage]:
        """Ask for the response in chunks."""
        asked = self._asked
        return asked.model.astream(asked.messages, self.config, stop=self.request.stop, **asked.kwargs)

    @property
    def _told(self) -> RunnableConfig:
        """The config to call a task's member with: without what only handlers would be told, where there are none.

        What the member asks on its own finds the whole config in its context.
        """
        model, has_listeners = self._asked.model, self.request.has_listeners or self.is_traced
        if has_listeners or not isinstance(model, BaseChatModel) or isinstance(model, NestedRunsMixin):
            return self.config
        return {"run_name": self.config["run_name"], "tags": [], "metadata": {}}

    @property
    def _asked(self) -> MemberRequest:
        assert self.prepared is not None, "a call is prepared before it is made"
        return self.prepared

    @property
    def is_traced(self) -> bool:
        """True if any handler is told of the member's run."""
        return _has_handlers(self.config) or self.member.model.callbacks is not None

    @contextmanager
    def context(self) -> Generator[Context]:
        """Open the context in which the member runs: what it asks on its own belongs under the same run."""
        with set_config_context(self._enclosing) as context:
            context.run(_call.set, self)
            if self.request.ensemble_id is not None:
                context.run(_asking.set, (*enclosing_ensembles(), self.request.ensemble_id))
            yield context

    def plain_context(self) -> Context:
        """Make the same context where no tracer has to be told of it, so that there is nothing to close."""
        context = copy_context()
        context.run(var_child_runnable_config.set, self._enclosing)
        if self.request.ensemble_id is not None:
            context.run(_asking.set, (*enclosing_ensembles(), self.request.ensemble_id))
        return context

    @property
    def _enclosing(self) -> RunnableConfig:
        enclosing = self.config.copy()
        enclosing.pop("run_name", None)
        return enclosing

    # ---- what comes of it

    def candidate(self, message: AIMessage) -> Candidate:
        """Record a response.

        A refusal need not be what was asked for. What is left of an answer after a filter is a refusal where it is none.

        Raises:
            UnusableAnswerError: It is empty, too long, or not what was asked for.
        """
        latency_s = self.clock() - self.started_s
        check_kind(message)
        content = message.content
        text = content if type(content) is str else str(message.text)
        num_chars = len(text)
        if message.tool_calls or message.invalid_tool_calls:
            calls = [*message.tool_calls, *message.invalid_tool_calls]
            num_chars += sum(len(str(call["name"])) + len(str(call["args"])) for call in calls)
        if num_chars > MAX_TEXT_CHARS or content is not text:
            check_size(num_chars, num_chars_in(content), message)
        flaw = flaw_of(message)
        if flaw != "refusal":
            try:
                self._check(message, text)
            except UnusableAnswerError as error:
                if flaw != "filtered":
                    raise _with_ending(error, message, is_cut=flaw == "truncated") from None
                flaw = "refusal"
        usage = usage_of(message)
        prompt_tokens = usage["input_tokens"] if usage else None
        completion_tokens = usage["output_tokens"] if usage else None
        return Candidate(
            member=self.member.name,
            round=self.request.round_number,
            text=text,
            answer=None,
            latency_s=latency_s,
            prompt_tokens=prompt_tokens,
            completion_tokens=completion_tokens,
            cost_usd=None if usage is None else price_of(self.member, usage),
            logprob=_mean_logprob(message) if message.response_metadata else None,
            flaw=flaw,
            message=message,
        )

    def _check(self, message: AIMessage, text: str) -> None:
        """Check that a response can be an answer.

        Raises:
            UnusableAnswerError: It cannot.
        """
        if self._asked.check is not None:
            self._asked.check(message)
        if not message.tool_calls:
            if not text or text.isspace():
                raise UnusableAnswerError("empty", "The response has neither text nor tool calls.", message)
        elif not all(map(_is_call, message.tool_calls)):
            raise UnusableAnswerError("malformed", "A call must have a name, and arguments that are JSON.", message)

    def failure(self, error: BaseException) -> Failure:
        """Record a non-answer.

        Raises:
            Exception: The error itself, if it is LangGraph's control flow.
        """
        if is_control_flow(error):
            raise error
        error = untangled(error)
        name = type(error).__name__
        # An ensemble that failed has asked again already, but its caller still may.
        retryable = error.is_retryable if isinstance(error, EnsembleError) else self.retry.is_retryable(error)
        lines = shown_text(_words_of(error).strip(), self._secrets()).splitlines()
        reason = lines[0] if lines else f"{name} without a message"
        # What checks its arguments may name them further below, or not at all.
        refused = refused_arguments(error, self.arguments) or ()
        unnamed = [name for name in refused if not any(f"{mark}{name}{mark}" in reason for mark in "'\"`")]
        also = f" (argument {', '.join(f'`{one[:MAX_NAME_CHARS]}`' for one in unnamed[:MAX_NAMES])})" if unnamed else ""
        reason = (reason.rstrip(".:") if also else reason)[: MAX_REASON_CHARS - len(also)] + also
        return Failure(
            member=self.member.name,
            round=self.request.round_number,
            kind=error.kind if isinstance(error, UnusableAnswerError) else name,
            reason=reason,
            latency_s=self.clock() - self.started_s,
            is_retryable=retryable,
            error=error,
        )

    def outcome_of(self, error: BaseException) -> Failure | BaseException:
        """Record a non-answer; return the error itself, if it is LangGraph's control flow."""
        return error if is_control_flow(error) else self.failure(error)

    def shown(self, failure: Failure) -> Failure:
        """Return a failure whose error tells no secret.

        What a provider repeats of its caller's keys must reach neither logs nor tracebacks. It comes last, since what is
        decided on an error is decided on the error itself.
        """
        error = failure.error
        if error is None or isinstance(error, UnusableAnswerError):  # its words are our own
            return failure
        try:
            return replace(failure, error=without_secrets(error, self._secrets()))
        except Exception:  # noqa: BLE001  # a member's exception is the member's code
            return replace(failure, error=RedactedError(failure.reason))

    def _secrets(self) -> frozenset[str]:
        """Find what must not be told of this call; once, since it takes milliseconds."""
        if self._secrets_found is None:
            asked = self.prepared
            self._secrets_found = secrets_of(
                (self.member.model, None if asked is None else (asked.model, asked.kwargs))
            )
        return self._secrets_found

    # ---- what it costs

    def bound(self, *, counts_tokens: bool) -> Usage:
        """Return the most that this call can cost; its tokens only where a budget limits them."""
        if not counts_tokens:
            return _ONE_CALL
        prompt, completion = self._prompt_tokens(), output_bound(self.member.model, self._asked.kwargs)
        usd = self.member.max_cost_usd(prompt_tokens=prompt, completion_tokens=completion)
        return Usage(calls=1, tokens=prompt + completion, usd=usd or 0.0)

    def usage(self, result: Result) -> Usage:
        """Return what this call has cost.

        What a provider reports is believed; what it does not report is estimated; what nobody can know (a call cut off on its
        way) is the most that it can be. Only a provider's own refusal, or a connection that was never made, is free.
        """
        if isinstance(result, Candidate):
            message = result.message
        elif isinstance(result.error, UnusableAnswerError) and result.error.message is not None:
            message = result.error.message
        elif result.error is not None and not may_have_cost(result.error, self.arguments):
            return Usage(calls=1)
        else:
            return Usage(calls=1) if self.reservation is None else self.reservation.bound
        usage = usage_of(message)
        if usage is None:
            estimated = self._prompt_tokens(), message_tokens(message)
            usage = UsageMetadata(input_tokens=estimated[0], output_tokens=estimated[1], total_tokens=sum(estimated))
        # A member without prices costs nothing here, and is refused where a budget limits dollars.
        tokens = usage["input_tokens"] + usage["output_tokens"]
        return Usage(calls=1, tokens=tokens, usd=price_of(self.member, usage) or 0.0)

    def _prompt_tokens(self) -> int:
        asked = self._asked
        return prompt_tokens(asked.messages, asked.arguments)


def _has_handlers(config: RunnableConfig) -> bool:
    callbacks = config.get("callbacks")
    return bool(callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks)


def failure_of(candidate: Candidate) -> Failure:
    """Say why an answer with a flaw is none, where others have answered without."""
    assert candidate.flaw is not None, "a whole answer is no failure"
    ending = ending_in_words(candidate.message)
    words = " ".join(refusal_in_words(candidate.message).split()) if candidate.flaw == "refusal" else ""
    because = f" ({ending})" if ending else ""
    reason = {
        "refusal": f"It refused to answer{because}{': ' if words else ''}{words or '.'}",
        "truncated": f"Its answer breaks off{because}.",
        "filtered": f"Part of its answer was filtered{because}.",
    }[candidate.flaw]
    return Failure(
        member=candidate.member,
        round=candidate.round,
        kind=candidate.flaw,
        reason=printable(reason)[:MAX_REASON_CHARS],
        latency_s=candidate.latency_s,
        retries=candidate.retries,
        error=UnusableAnswerError(candidate.flaw, reason, candidate.message),
    )


def _with_ending(error: UnusableAnswerError, message: AIMessage, *, is_cut: bool) -> UnusableAnswerError:
    """Say of a response that is no answer also how it ended, where that may be why."""
    ending = ending_in_words(message, of_flaws=is_cut)
    if not ending or not (is_cut or error.kind == "empty"):
        return error
    how = "broke off" if is_cut else "ended"
    return UnusableAnswerError(error.kind, f"{str(error).rstrip('.')}; it {how} ({ending}).", error.message)


def check_kind(message: Any) -> None:
    """Check that a response is a model's message.

    Raises:
        UnusableAnswerError: It is not.
    """
    if not isinstance(message, AIMessage):
        raise UnusableAnswerError("malformed", f"The response is a {type(message).__name__}, not an AIMessage.")


def _is_call(call: Mapping[str, Any]) -> bool:
    """Tell whether a tool call can be handed on."""
    name, args = call["name"], call["args"]
    try:
        json.dumps(args)
    except (TypeError, ValueError, RecursionError):
        return False
    return (
        isinstance(name, str)
        and bool(name.strip())
        and isinstance(args, dict)
        and all(isinstance(key, str) for key in args)
    )


def _words_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001  # a member's exception is the member's code
        return ""


def usage_of(message: AIMessage) -> UsageMetadata | None:
    """Return the tokens that a message reports, as far as they can be added up; None where it reports none that can."""
    reported = message.usage_metadata
    if reported is None:
        return None
    if not isinstance(reported, Mapping) or not all(_is_count(reported.get(name)) for name in _COUNTS):
        return None
    if all(map(_is_count, reported.values())):
        return reported
    usable: dict[str, Any] = {}
    for name, value in reported.items():
        if isinstance(value, Mapping):
            usable[name] = {detail: count for detail, count in value.items() if _is_count(count)}
        elif _is_count(value):
            usable[name] = value
    return cast("UsageMetadata", usable)


def message_of(result: Result) -> AIMessage | None:
    """Return what a member responded, also where that is no answer; None where it did not respond."""
    if isinstance(result, Failure):
        return result.error.message if isinstance(result.error, UnusableAnswerError) else None
    message: AIMessage = result.message
    return message


def cached_tokens_of(message: AIMessage | None) -> int | None:
    """Return how many of a prompt's tokens came from the provider's cache; None where it does not say."""
    usage = None if message is None else usage_of(message)
    return None if usage is None else read_from_cache(usage)


def price_of(member: PoolMember, usage: UsageMetadata) -> float | None:
    """Price what a member reports in dollars, cached and reasoning tokens at their own prices; None without prices."""
    return member.cost_usd(
        prompt_tokens=usage["input_tokens"],
        completion_tokens=usage["output_tokens"],
        cached_tokens=read_from_cache(usage),
        reasoning_tokens=_detail(usage.get("output_token_details"), "reasoning"),
        cache_write_tokens=written_to_cache(usage),
    )


def read_from_cache(usage: UsageMetadata) -> int | None:
    """Count the tokens of a prompt that came from the provider's cache; None where it does not say."""
    return _detail(usage.get("input_token_details"), "cache_read")


def written_to_cache(usage: UsageMetadata) -> int | None:
    """Count those that it wrote to its cache: as a sum, or by how long they are kept, as of Anthropic; None as above."""
    details = usage.get("input_token_details")
    counts = [_detail(details, f"ephemeral_{time}_input_tokens") for time in ("5m", "1h")]
    by_time = [count for count in counts if count is not None]
    together = _detail(details, "cache_creation")
    return max(together or 0, sum(by_time)) if by_time or together is not None else None


def _detail(details: Any, name: str) -> int | None:
    """Add up a detail under its name and those of service tiers, such as "flex_cache_read"; None where there is none."""
    if not isinstance(details, Mapping):
        return None
    counts = [count for key, count in details.items() if key == name or key.endswith(f"_{name}")]
    return sum(counts) if counts else None


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_COUNT


def check_size(num_chars: int, num_content_chars: int, message: AIMessage | None) -> None:
    """Check the length of a response, or of what has come of it: of text and calls, and of its whole content.

    Raises:
        UnusableAnswerError: It is too long.
    """
    for most, num in ((MAX_TEXT_CHARS, num_chars), (MAX_CONTENT_CHARS, num_content_chars)):
        if num > most:
            reason = f"An answer must have at most {most:,} characters, got {num:,}. Ask with `max_tokens`."
            raise UnusableAnswerError("too_long", reason, message)


def num_chars_in(content: Any) -> int:
    """Count the characters of a message's content: its text, and whatever else its blocks hold."""
    if isinstance(content, str):
        return len(content)
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return sum(map(num_chars_in, parts))


def _mean_logprob(message: AIMessage) -> float | None:
    """Average the tokens' log-probabilities where the member reports them in OpenAI's form; never raises."""
    reported = message.response_metadata.get("logprobs")
    tokens = reported.get("content") if isinstance(reported, Mapping) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    reports = [token.get("logprob") if isinstance(token, Mapping) else None for token in tokens]
    values = [value for value in reports if isinstance(value, int | float) and math.isfinite(value)]
    return math.fsum(values) / len(values) if len(values) == len(tokens) else None


# ---- streamed responses


class StreamedResponse:
    """Chunks of a streamed response, put together at the end."""

    def __init__(self) -> None:
        self._chunks: list[AIMessage] = []
        self._num_chars = self._num_content_chars = 0
        self._held = ""
        self._begun = False

    def add(self, chunk: AIMessage) -> str:
        """Add a chunk and return the text that can be passed on: none before the first that is not blank.

        Raises:
            UnusableAnswerError: The chunk is no message of a model, or the response has become too long.
        """
        check_kind(chunk)
        usage = usage_of(chunk)
        self._chunks.append(
            chunk if usage == chunk.usage_metadata else chunk.model_copy(update={"usage_metadata": usage})
        )
        text = str(chunk.text)
        calls = chunk.tool_call_chunks if isinstance(chunk, AIMessageChunk) else ()
        self._num_chars += len(text) + sum(len(call["name"] or "") + len(call["args"] or "") for call in calls)
        self._num_content_chars += num_chars_in(chunk.content)
        check_size(self._num_chars, self._num_content_chars, None)
        self._begun = self._begun or bool(text.strip())
        if not self._begun:  # nothing but white space is no answer, and for that another member can stand in
            self._held += text
            return ""
        text, self._held = self._held + text, ""
        return text

    @property
    def message(self) -> AIMessage:
        """The whole response, empty if there were no chunks."""
        chunks = [chunk for chunk in self._chunks if isinstance(chunk, AIMessageChunk)]
        if not chunks:  # a model that cannot stream yields its message as it is
            return self._chunks[-1] if self._chunks else AIMessage(content="")
        whole = chunks[0] + chunks[1:]
        message = cast("AIMessage", message_chunk_to_message(whole))
        # LangChain completes arguments that break off; nobody may call with those.
        broken = [chunk for chunk in whole.tool_call_chunks if not _is_object(chunk["args"])]
        if broken:
            known = [(call["id"], call["args"]) for call in message.invalid_tool_calls]
            new = [c for c in broken if (c["id"], c["args"]) not in known]
            faulty = [invalid_tool_call(name=c["name"], args=c["args"], id=c["id"], error=None) for c in new]
            message.invalid_tool_calls = [*message.invalid_tool_calls, *faulty]
            message.tool_calls = [call for call in message.tool_calls if call["id"] not in {c["id"] for c in broken}]
        return message


def _is_object(args: str | None) -> bool:
    """Tell whether a call's arguments are written to their end."""
    try:
        return isinstance(json.loads(args or "{}", strict=False), dict)
    except (ValueError, RecursionError):
        return False
