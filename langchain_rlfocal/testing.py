"""Testing: doubles for chat models, and outcomes whose truth is known.

They ship with the package, so that users can test what they build on it without a network, a key or a random number.
They are for tests: nothing in the answering or the learning river uses them.
"""

import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field
from typing_extensions import override

from langchain_rlfocal.chat_models.replies import text_pieces, to_chunk
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.records import Answer, Candidate, Failure, Query, Selection

Reply = str | AIMessage
Script = Mapping[str, Reply] | Sequence[Reply] | Callable[[Sequence[BaseMessage]], Reply]


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that a `ScriptedChatModel` received.

    Attributes:
        messages: The messages.
        stop: The stop sequences.
        kwargs: All other call arguments.
    """

    messages: tuple[BaseMessage, ...]
    stop: list[str] | None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class ScriptedChatModel(BaseChatModel):
    """A chat model that says what it is told to say, natively sync, async, and streaming word by word.

    Example:
        ```python
        model = ScriptedChatModel(script={"What is 2 + 2?": "4"})
        assert model.invoke("What is 2 + 2?").text == "4"
        ```
    """

    script: Script
    """What to answer: by the last human message's text; one after the other, from the start again at the end; or as a
    function of the messages, which may also raise."""

    model_name: str = "scripted"
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
    def _llm_type(self) -> str:
        return "rlfocal-scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

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
        if callable(self.script):
            reply = self.script(messages)
        elif isinstance(self.script, Mapping):
            reply = self.script[_question(messages)]
        else:
            reply = self.script[(len(self.asked) - 1) % len(self.script)]
        message = AIMessage(content=reply) if isinstance(reply, str) else reply.model_copy()
        words = message.text.split()
        message.response_metadata = {"model_name": self.model_name, **message.response_metadata}
        if self.logprob is not None:
            message.response_metadata["logprobs"] = {
                "content": [{"token": word, "logprob": self.logprob} for word in words]
            }
        if self.reports_usage and message.usage_metadata is None:
            prompt = sum(len(str(asked.text).split()) for asked in messages)
            message.usage_metadata = UsageMetadata(
                input_tokens=prompt, output_tokens=len(words), total_tokens=prompt + len(words)
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
        for piece in text_pieces(self.after):
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


@dataclass(frozen=True, slots=True)
class ScriptedPolicy:
    """A policy that asks the teams it is told to ask, and lets the majority decide; a tie goes to who was asked first.

    Attributes:
        teams: The members to ask in each round; after the last, and in rounds with an empty team, it stops.
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
        candidates: Sequence[Candidate],  # noqa: ARG002  # as above
        failures: Sequence[Failure],  # noqa: ARG002  # as above
        *,
        available: Sequence[str],
        round_number: int,
        max_rounds: int,  # noqa: ARG002  # as above
        max_team: int,  # noqa: ARG002  # as above
        cost_weight: float,  # noqa: ARG002  # as above
    ) -> Selection:
        """Return this round's team; see `Policy.select`."""
        team = tuple(self.teams[round_number - 1]) if round_number <= len(self.teams) else ()
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
        label = max(supporters, key=lambda label: len(supporters[label]))
        winner = next(c for c in candidates if c.member == supporters[label][0])
        return Answer(
            member=winner.member,
            answer=winner.answer,
            weights={label: len(names) / len(candidates) for label, names in supporters.items()},
            supporters={label: tuple(names) for label, names in supporters.items()},
        )

    def competence(self, query: Query) -> Mapping[str, float]:  # noqa: ARG002  # `Policy`'s signature
        """Hold all members for equally good; see `Policy.competence`."""
        return dict.fromkeys(self.members, 0.5)


def make_outcomes(
    accuracies: Mapping[str, Mapping[str, float]],
    *,
    num_queries: int = 100,
    num_options: int = 4,
    costs_usd: Mapping[str, float] | None = None,
    seed: int = 0,
) -> OutcomeTable:
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


def _question(messages: Sequence[BaseMessage]) -> str:
    human = [message for message in messages if isinstance(message, HumanMessage)]
    return str((human or messages)[-1].text)


def _to_chunks(message: AIMessage) -> Iterator[ChatGenerationChunk]:
    """Cut a message into one chunk a word, and a last one with all that is not text."""
    for piece in text_pieces(str(message.text)):
        yield to_chunk(piece)
    yield to_chunk(message)
