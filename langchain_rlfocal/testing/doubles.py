"""Chat models, a judge and a policy that do as a script says, and made outcomes whose truth is known.

The models are native in sync, async and streaming.
"""

import json
import math
import random
import re
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, PrivateAttr
from typing_extensions import override

from langchain_rlfocal.chat_models.equivalence import OPPOSITES, pair_of, shown_pairs
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection

if TYPE_CHECKING:
    from langchain_rlfocal.outcomes import OutcomeTable

Reply = str | AIMessage
Script = Mapping[str, Reply] | Sequence[Reply] | Callable[[Sequence[BaseMessage]], Reply]


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that a double received.

    Attributes:
        messages: The messages.
        stop: The stop sequences.
        kwargs: All other call arguments.
    """

    messages: tuple[BaseMessage, ...]
    stop: list[str] | None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class DoubleChatModel(BaseChatModel):
    """A chat model whose every way to be called ends in `_answer`."""

    model_name: str = "double"
    """Name in traces and in `response_metadata`."""

    reports_usage: bool = True
    """Whether answers carry `usage_metadata`: one token a word."""

    logprob: float | None = None
    """Log-probability that every token is reported to have, None to report none."""

    on_call: Callable[[], Any] | None = Field(default=None, exclude=True, repr=False)
    """Called before each sync answer; a `threading.Barrier(n).wait` holds it until n have met."""

    on_acall: Callable[[], Awaitable[Any]] | None = Field(default=None, exclude=True, repr=False)
    """Awaited before each async answer; an `asyncio.Barrier(n).wait` holds it until n have met."""

    asked: list[Asked] = Field(default_factory=list, exclude=True, repr=False)
    """The calls received, in their order."""

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    @abstractmethod
    def _answer(self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Reply:
        """Return the answer to the last of the calls in `asked`."""

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.on_call is not None:
            self.on_call()
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, stop, kwargs))])

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.on_acall is not None:
            await self.on_acall()
        return ChatResult(generations=[ChatGeneration(message=self._reply(messages, stop, kwargs))])

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        if self.on_call is not None:
            self.on_call()
        yield from _to_chunks(self._reply(messages, stop, kwargs))

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if self.on_acall is not None:
            await self.on_acall()
        for chunk in _to_chunks(self._reply(messages, stop, kwargs)):
            yield chunk

    def _reply(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> AIMessage:
        self.asked.append(Asked(tuple(messages), stop, kwargs))
        reply = self._answer(messages, stop, kwargs)
        message = AIMessage(content=reply) if isinstance(reply, str) else reply.model_copy()
        words = message.text.split()
        message.response_metadata = {"model_name": self.model_name, **message.response_metadata}
        if self.logprob is not None:
            message.response_metadata["logprobs"] = {
                "content": [{"token": word, "logprob": self.logprob} for word in words]
            }
        if self.reports_usage and message.usage_metadata is None:
            prompt = sum(len(str(asked.text).split()) for asked in messages)
            written = len(words) + sum(len(f"{name} {args}".split()) for name, args, _ in _calls(message))
            message.usage_metadata = UsageMetadata(
                input_tokens=prompt, output_tokens=written, total_tokens=prompt + written
            )
        return message


class ScriptedChatModel(DoubleChatModel):
    """A chat model that says what its script says, streaming word by word.

    Example:
        ```python
        model = ScriptedChatModel(script={"What is 2 + 2?": "4"})
        assert model.invoke("What is 2 + 2?").text == "4"
        ```
    """

    script: Script
    """What to answer: by the last human message's text; one after the other, over and over; or a function of the
    messages, which may also raise."""

    model_name: str = "scripted"
    """Name in traces and in `response_metadata`."""

    @property
    def _llm_type(self) -> str:
        return "rlfocal-scripted"

    @override
    def _answer(self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Reply:
        if callable(self.script):
            return self.script(messages)
        if isinstance(self.script, Mapping):
            return self.script[question_in(messages)]
        return self.script[(len(self.asked) - 1) % len(self.script)]


class CachingChatModel(ScriptedChatModel):
    """A scripted chat model that bills as a provider with a prompt cache does: it reports what of a prompt it has read lately.

    Prompts count a token for every four characters, tools included. The cache is shared by all conversations, and holds every
    beginning of a prompt, in whole messages, until it was not read for `cache_ttl_s`.

    Example:
        ```python
        model = CachingChatModel(script=["Yes."], cache_min_tokens=4)
        messages = [("system", "You answer in one word."), ("human", "Is it so?")]
        assert model.invoke(messages).usage_metadata["input_token_details"] == {"cache_read": 0}
        assert model.invoke(messages).usage_metadata["input_token_details"] == {"cache_read": 18}
        ```
    """

    model_name: str = "caching"
    """Name in traces and in `response_metadata`."""

    cache_ttl_s: float = 300.0
    """Seconds for which a beginning is kept after it was read."""

    cache_min_tokens: int = 1024
    """Tokens below which a beginning is not cached."""

    clock: Callable[[], float] = Field(default=time.monotonic, exclude=True, repr=False)
    """Gives seconds."""

    _read_at_s: dict[str, float] = PrivateAttr(default_factory=dict)

    @override
    def bind_tools(self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any) -> Runnable[Any, AIMessage]:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    @override
    def _reply(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]) -> AIMessage:
        message = super()._reply(messages, stop, kwargs)
        now_s, cached, said, num_chars = self.clock(), 0, sha256(), 0
        parts = [json.dumps(kwargs.get("tools") or "")]
        for one in messages:
            parts.append(repr((one.type, one.content, getattr(one, "tool_calls", 0), getattr(one, "tool_call_id", 0))))
            num_chars += sum(map(len, parts))
            said.update("".join(parts).encode())
            parts, tokens, beginning = [], num_chars // 4, said.hexdigest()
            if now_s - self._read_at_s.get(beginning, -math.inf) <= self.cache_ttl_s:
                cached = tokens
            if tokens >= self.cache_min_tokens:
                self._read_at_s[beginning] = now_s
        written = -(-(len(message.text) + sum(len(f"{name}{args}") for name, args, _ in _calls(message))) // 4)
        message.usage_metadata = UsageMetadata(
            input_tokens=num_chars // 4,
            output_tokens=written,
            total_tokens=num_chars // 4 + written,
            input_token_details={"cache_read": cached},
        )
        return message


class FailingChatModel(BaseChatModel):
    """A chat model that always raises.

    Example:
        ```python
        model = FailingChatModel(error=TimeoutError("too slow"), after="Half an")
        ```
    """

    error: BaseException
    """What it raises."""

    after: str = ""
    """Text that it streams before it raises."""

    @property
    def _llm_type(self) -> str:
        return "rlfocal-failing"

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise self.error

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise self.error

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in _words(self.after):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
        raise self.error

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages, stop, **kwargs):
            yield chunk


class JudgingChatModel(DoubleChatModel):
    """A chat model for `equivalence=` that calls two texts the same where a function does.

    Example:
        ```python
        judge = JudgingChatModel(same=lambda a, b: a.lower() == b.lower())
        model = RLFocalChatModel(members=members, equivalence=judge)
        ```
    """

    same: Callable[[str, str], bool]
    """Tells whether two texts are the same, in the order in which they are shown; may also raise."""

    model_name: str = "judge"
    """Name in traces and in `response_metadata`."""

    @property
    def _llm_type(self) -> str:
        return "rlfocal-judging"

    @override
    def _answer(self, messages: Sequence[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Reply:
        verdicts = {
            name: "same" if pair_of(a, b) != OPPOSITES and self.same(a, b) else "different"
            for name, (a, b) in shown_pairs(messages).items()
        }
        return json.dumps(verdicts)


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """A policy that asks the teams of its script, and lets the majority decide; a tie goes to who was asked first.

    Attributes:
        teams: The members to ask in each round, also in those after one that nobody answered; after the last, and in rounds
            with an empty team, it stops.
        members: Names of the members that it knows.
        trained: What it says of itself.
        policy_id: Its name.
    """

    teams: Sequence[Sequence[str]]
    members: tuple[str, ...]
    trained: bool = False
    policy_id: str = "scripted"

    def select(
        self,
        query: Query,  # noqa: ARG002  # `Policy`'s signature
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],
        *,
        available: Sequence[str],
        round_number: int,
        **limits: Any,  # noqa: ARG002  # as above
    ) -> Selection:
        """Return this round's team; see `Policy.select`."""
        # Rounds that nobody answered do not count in `round_number`, but have left their failures.
        past = max([round_number - 1, *(c.round for c in candidates), *(f.round for f in failures)])
        team = tuple(self.teams[past]) if past < len(self.teams) else ()
        return Selection(round_number, team, {name: float(name in team) for name in available})

    def fuse(
        self,
        query: Query,  # noqa: ARG002  # `Policy`'s signature
        candidates: Sequence[Candidate],
        failures: Sequence[Failure],  # noqa: ARG002  # as above
        *,
        max_team: int,  # noqa: ARG002  # as above
    ) -> Answer:
        """Return the answer that most candidates give; see `Policy.fuse`."""
        supporters: dict[str, list[str]] = {}
        for candidate in candidates:
            supporters.setdefault(candidate.answer or "", []).append(candidate.member)
        votes = {label: len(names) if label else 0 for label, names in supporters.items()}
        label = max(votes, key=lambda label: votes[label])
        winner = next(c for c in candidates if c.member == supporters[label][0])
        return Answer(
            member=winner.member,
            answer=winner.answer,
            weights={label: num / max(sum(votes.values()), 1) for label, num in votes.items()},
            supporters={label: tuple(names) for label, names in supporters.items()},
        )

    def competence(self, query: Query) -> Mapping[str, float]:  # noqa: ARG002  # `Policy`'s signature
        """Give all members the same competence; see `Policy.competence`."""
        return dict.fromkeys(self.members, 0.5)


def question_in(messages: Sequence[BaseMessage]) -> str:
    """Return the text of the last human message, else of the last message."""
    human = [message for message in messages if isinstance(message, HumanMessage)]
    return str((human or messages)[-1].text)


def _words(text: str) -> list[str]:
    """Cut a text into words with the space around them; joined, the pieces are the text."""
    return re.findall(r"\s*\S+\s?|\s+", text)


def _calls(message: AIMessage) -> list[tuple[str | None, str, str | None]]:
    """List a message's tool calls by name, arguments as JSON, and id; invalid calls last."""
    calls = [
        (call["name"], json.dumps(call["args"], ensure_ascii=False, default=str), call["id"])
        for call in message.tool_calls
    ]
    return calls + [(call["name"], call["args"] or "", call["id"]) for call in message.invalid_tool_calls]


def _to_chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Cut a message into chunks: one a word, then each tool call in pieces, then one with usage and metadata."""
    for piece in _words(str(message.text)):
        yield ChatGenerationChunk(message=AIMessageChunk(content=piece))
    for index, (name, args, call_id) in enumerate(_calls(message)):
        yield _call_chunk(name, "", call_id, index)
        for piece in _words(args):
            yield _call_chunk(None, piece, None, index)
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            usage_metadata=message.usage_metadata,
            response_metadata=message.response_metadata,
            chunk_position="last",
        )
    )


def _call_chunk(name: str | None, args: str, call_id: str | None, index: int) -> ChatGenerationChunk:
    chunk = tool_call_chunk(name=name, args=args, id=call_id, index=index)
    return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[chunk]))


def make_outcomes(
    accuracies: Mapping[str, Mapping[str, float]],
    *,
    num_queries: int = 100,
    num_options: int = 4,
    costs_usd: Mapping[str, float] | None = None,
    seed: int = 0,
) -> "OutcomeTable":
    """Make outcomes of multiple-choice questions whose members are right exactly as often as told.

    Which questions a member gets right is drawn for each member by itself, so members' errors are independent; a wrong
    member picks one of the wrong options at random.

    Args:
        accuracies: By task, each member's share of right answers, in [0, 1]; of n queries it gets round(n share) right.
        num_queries: Queries of each task.
        num_options: Options of each query, at least 2.
        costs_usd: Dollars that a call of a member costs; unknown for members not named.
        seed: Seed of the draws. Same arguments, same table.

    Raises:
        InputError: A number is outside its range.
    """
    from langchain_rlfocal.outcomes import Outcome, OutcomeTable  # noqa: PLC0415  # they load pyarrow, test doubles do not

    if num_queries < 1 or not 2 <= num_options <= 26:
        raise InputError(
            f"`num_queries` must be at least 1 and `num_options` in [2, 26], got {num_queries} and {num_options}."
        )
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:num_options]
    generator = random.Random(seed)  # noqa: S311  # test data, no secrets
    outcomes = []
    for task, shares in accuracies.items():
        golds = generator.choices(letters, k=num_queries)
        for member, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"The accuracy of `{member}` in `{task}` must be in [0, 1], got {share}.")
            right = set(generator.sample(range(num_queries), round(num_queries * share)))
            for index, gold in enumerate(golds):
                answer = gold if index in right else generator.choice(letters.replace(gold, ""))
                query = f"Question {index} about {task}: which of {', '.join(letters)} is right?"
                outcomes.append(
                    Outcome(
                        task=task,
                        query_id=str(index),
                        query=query,
                        model=member,
                        response=f"The answer is {answer}.",
                        answer=answer,
                        gold=gold,
                        reward=float(answer == gold),
                        prompt_tokens=len(query.split()),
                        completion_tokens=4,
                        cost_usd=(costs_usd or {}).get(member),
                        latency_s=1.0,
                    )
                )
    return OutcomeTable.from_outcomes(outcomes)
