"""Asking: what is put to one member in one attempt, and the record of whatever comes of it."""

import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, UsageMetadata
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config, set_config_context

from langchain_rlfocal._langchain import is_control_flow, untangled
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.execution.causes import is_retryable, refused_arguments
from langchain_rlfocal.execution.clients import quiet
from langchain_rlfocal.execution.endings import ending_in_words, flaw_of, refusal_in_words
from langchain_rlfocal.execution.thinking import calm_model, calm_settings, cannot_think, disabling
from langchain_rlfocal.pool import PoolMember
from langchain_rlfocal.records import Candidate, Failure
from langchain_rlfocal.redaction import StandInError, printable, secrets_of, shown_text, without_secrets

MAX_TEXT_CHARS = 1_000_000
"""A longer answer is a failure: comparing, storing and showing it costs more than it can be worth."""

MAX_CONTENT_CHARS = 20_000_000
"""The same for all that its content holds: media, reasoning, whatever a provider puts there."""

MAX_REASON_CHARS = 500

MAX_NAMES, MAX_NAME_CHARS = 3, 80
"""How many arguments are named in a reason, and with how much of their names."""

_COUNTS = ("input_tokens", "output_tokens", "total_tokens")
_MAX_COUNT = 10**12
"""Who reports more tokens, or fewer than none, has miscounted; sums and prices of such counts break."""

Role = Literal["member", "synthesizer", "equivalence"]
Clock = Callable[[], float]

PASSING = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What is no member's failure: the wish to stop the program, and the reader's leaving."""

_asking: ContextVar[tuple[int, ...]] = ContextVar("rlfocal_asking", default=())


def enclosing_ensembles() -> tuple[int, ...]:
    """Return the ids of the ensembles that are asking around the present code, outermost first."""
    return _asking.get()


class UnusableAnswerError(Exception):
    """A member responded, but with nothing that can be an answer.

    Attributes:
        kind: Short class of the cause: `"empty"`, `"too_long"`, a candidate's flaw, or what a `MemberRequest`'s check says.
        message: What it responded, so that its tokens are still counted; None for a stream cut off.
    """

    def __init__(self, kind: str, reason: str, message: AIMessage | None = None) -> None:
        self.kind, self.message = kind, message
        super().__init__(reason)


@dataclass(frozen=True, slots=True)
class MemberRequest:
    """What one member is asked, in its own terms.

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


Prepare = Callable[[PoolMember, list[BaseMessage]], MemberRequest]
"""Makes a member's brief of the messages, a list of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRequest:
    """What is put to every member of a round.

    Attributes:
        messages: What to ask; each member gets its own list of the same messages.
        round_number: Round to note in the records, counted from 1.
        config: Callbacks, tags and metadata for the members' runs; what is missing comes from the run around.
        role: What traces say that the asked are.
        prepare: Puts the call in each member's own terms, arguments included; what it raises is that member's failure. None
            asks everybody just what is given.
        stop: Stop sequences for the members.
        kwargs: Other call arguments, passed on where there is no `prepare`.
        ensemble_id: Id of the ensemble that asks, None if none does; see `enclosing_ensembles`.
    """

    messages: Sequence[BaseMessage]
    round_number: int
    config: RunnableConfig = field(default_factory=RunnableConfig)
    role: Role = "member"
    prepare: Prepare | None = None
    stop: list[str] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    ensemble_id: int | None = None


def _config_of(member: PoolMember, request: RoundRequest, number: int) -> RunnableConfig:
    """Make the config of one member's run."""
    given, role = request.config, request.role
    merged = ensure_config(None)  # what LangGraph keeps for the node around must reach members
    merged.pop("run_id", None)
    callbacks = given.get("callbacks", merged.get("callbacks"))
    name = f"member:{member.name}" if role == "member" else role
    merged["callbacks"] = callbacks.copy() if isinstance(callbacks, BaseCallbackManager) else callbacks
    merged["run_name"] = name
    # LangGraph shows no tokens of runs tagged "nostream": members speak to the ensemble, not to the user.
    own_tags = [f"rlfocal:{name}", f"rlfocal:round:{request.round_number}", "nostream"]
    merged["tags"] = [*(given.get("tags") or ()), *own_tags]
    merged["metadata"] = {
        **(given.get("metadata") or {}),
        "rlfocal_role": role,
        "rlfocal_member": member.name,
        "rlfocal_round": request.round_number,
        "rlfocal_attempt": number,
    }
    return merged


@dataclass(slots=True)
class Call:
    """One attempt to ask one member: turns whatever comes of it into a record.

    Attributes:
        member: Whom to ask.
        request: What to ask.
        clock: Gives seconds.
        number: Which attempt it is, counted from 1.
        thinks: False to ask the member without its thinking, whatever the conversation.
        config: Config of the member's run.
        started_s: When it was asked, moved on by what it had to wait for the consumer of its stream.
        brief: What it is asked, once that is made.
    """

    member: PoolMember
    request: RoundRequest
    clock: Clock
    number: int = 1
    thinks: bool = True
    config: RunnableConfig = field(init=False)
    started_s: float = field(init=False)
    brief: MemberRequest = field(init=False)
    _secrets_found: frozenset[str] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.config = _config_of(self.member, self.request, self.number)
        self.started_s = self.clock()

    def begin(self, *, timeout_s: float | None = None) -> None:
        """Make the brief and start the clock anew: waiting for a place is not the member's latency.

        Args:
            timeout_s: Seconds after which the member's own client shall give up, None to leave it alone.
        """
        self.started_s = self.clock()
        # A client that retried by itself would multiply with the ensemble's retries.
        model = quiet(self.member.model, timeout_s=timeout_s)
        self.brief = self._brief_for(model)
        if not self.thinks or cannot_think(model, self.arguments, self.brief.messages):
            self._calm(model)

    def _calm(self, model: BaseChatModel) -> None:
        """Have the member asked without its thinking."""
        everything = not self.thinks
        calm = calm_model(model, everything=everything)
        if calm is not model:
            self.brief = self._brief_for(calm)
        changes = calm_settings(self.arguments, everything=everything)
        if everything and not changes:
            changes = disabling(model)
        self.brief = replace(self.brief, kwargs={**self.brief.kwargs, **changes})

    def _brief_for(self, model: BaseChatModel) -> MemberRequest:
        """Make the brief of the member with this model of its."""
        messages, prepare = list(self.request.messages), self.request.prepare
        if prepare is None:
            return MemberRequest(model, messages, self.request.kwargs)
        return prepare(replace(self.member, model=model), messages)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that the member is called with, those bound to its model among them."""
        brief: MemberRequest | None = getattr(self, "brief", None)
        if brief is None:
            return dict(self.request.kwargs)
        return {**getattr(brief.model, "kwargs", {}), **brief.kwargs}

    @contextmanager
    def context(self) -> Generator[Context]:
        """Open the context in which the member runs: what it asks on its own belongs under the same run, not its name."""
        around = self.config.copy()
        around.pop("run_name", None)
        with set_config_context(around) as context:
            if self.request.ensemble_id is not None:
                context.run(_asking.set, (*enclosing_ensembles(), self.request.ensemble_id))
            yield context

    def candidate(self, message: AIMessage) -> Candidate:
        """Record a response.

        A refusal need not be what was asked for. What is left of an answer after a filter is a refusal where it is none.

        Raises:
            UnusableAnswerError: It is empty, too long, or not what was asked for.
        """
        latency_s = self.clock() - self.started_s
        check_kind(message)
        text = str(message.text)
        calls = [*message.tool_calls, *message.invalid_tool_calls]
        num_chars = len(text) + sum(len(str(call["name"])) + len(str(call["args"])) for call in calls)
        check_size(num_chars, num_chars_in(message.content), message)
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
            cost_usd=self.member.cost_usd(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens),
            logprob=_mean_logprob(message),
            flaw=flaw,
            message=message,
        )

    def _check(self, message: AIMessage, text: str) -> None:
        """Check that a response can be an answer.

        Raises:
            UnusableAnswerError: It cannot.
        """
        if self.brief.check is not None:
            self.brief.check(message)
        if not text.strip() and not message.tool_calls:
            raise UnusableAnswerError("empty", "The response has neither text nor tool calls.", message)
        if not all(map(_is_call, message.tool_calls)):
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
        retryable = error.is_retryable if isinstance(error, EnsembleError) else is_retryable(error)
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
            return replace(failure, error=StandInError(failure.reason))

    def _secrets(self) -> frozenset[str]:
        """Find what must not be told of this call; once, since it takes milliseconds."""
        if self._secrets_found is None:
            brief: MemberRequest | None = getattr(self, "brief", None)
            held = (self.member.model, None if brief is None else (brief.model, brief.kwargs))
            self._secrets_found = secrets_of(held)
        return self._secrets_found


def failure_of(candidate: Candidate) -> Failure:
    """Say why an answer with a flaw is none, where others have answered without."""
    assert candidate.flaw is not None, "a whole answer is no failure"
    ending = ending_in_words(candidate.message)
    words = " ".join(refusal_in_words(candidate.message).split()) if candidate.flaw == "refusal" else ""
    because = f" ({ending})" if ending else ""
    reason = {
        "refusal": f"It would not answer{because}{': ' if words else ''}{words or '.'}",
        "truncated": f"Its answer breaks off{because}.",
        "filtered": f"A part of its answer was withheld{because}.",
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
    if not isinstance(reported, Mapping) or not all(_is_count(reported.get(name)) for name in _COUNTS):
        return None
    usable: dict[str, Any] = {}
    for name, value in reported.items():
        if isinstance(value, Mapping):
            usable[name] = {detail: count for detail, count in value.items() if _is_count(count)}
        elif _is_count(value):
            usable[name] = value
    return cast("UsageMetadata", usable)


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
