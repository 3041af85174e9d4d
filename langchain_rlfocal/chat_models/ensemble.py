"""The chat model: a learned team of chat models behind one, the answering river in order.

Messages become a `Query`; the Decider selects members, which are asked at once and become candidates; labelled answers
go back to the Decider for another round, or to Fusion, which decides whose answer is returned. Policies decide
(`policies`), `turns` keeps the state, `execution` waits; here they meet LangChain.

It never merges members' tool calls, never passes on what is meant for one provider alone, and never learns while it
answers.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, PlainValidator, ValidationError, model_validator

from langchain_rlfocal._compat import NestingChatModel
from langchain_rlfocal._version import __version__
from langchain_rlfocal.answers import AnswerKind
from langchain_rlfocal.chat_models.arguments import (
    Members,
    check_embeddings,
    check_known,
    cost_weight_for,
    identifying_params_of,
    target_of,
    to_embedder,
    to_policy,
    to_pool,
    warn_of_unknown,
)
from langchain_rlfocal.chat_models.explanations import explain
from langchain_rlfocal.chat_models.replies import reply_of, text_pieces, to_chunk
from langchain_rlfocal.chat_models.synthesis import synthesis_messages
from langchain_rlfocal.chat_models.turns import Knobs, Turn, query_of
from langchain_rlfocal.errors import InputError, RLFocalError
from langchain_rlfocal.execution import aask_members, ask_members, astream_member, stream_member
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.policies import Policy, PriorPolicy
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.records import Answer, Candidate, Failure

_NEVER_FORWARDED = ("model", "stream")
"""Call arguments that LangChain means for this model alone."""


class RLFocalChatModel(NestingChatModel):
    """A learned team of chat models behind one.

    For each query a Decider selects a small team of the pool's members, round by round; they are asked at once, and
    Fusion decides which answer is returned. It is called like any chat model: `invoke`, `batch`, `stream`, their async
    twins, and in chains. How an answer came about stands in `message.response_metadata["rlfocal"]`; for people there is
    `model.explain(message)`.

    Example:
        ```python
        from langchain_openai import ChatOpenAI
        from langchain_rlfocal import RLFocalChatModel

        model = RLFocalChatModel(
            members={
                "small": ChatOpenAI(model="gpt-4.1-nano"),
                "large": ChatOpenAI(model="gpt-4.1"),
                "other": "anthropic:claude-haiku-4-5",
            },
            policy="path/to/checkpoint",
        )
        message = model.invoke("What is the capital of Australia?")
        print(model.explain(message))
        ```

    `max_team`, `max_rounds`, `cost_weight`, `target_calls` and `task` can also be given to one call, or bound with
    `.bind()`. Other call arguments go to the members.

    Raises:
        PoolError: The pool is empty, names a member twice, or has a member that the policy does not know.
        CheckpointError: The policy's checkpoint cannot be read, or belongs to another pool.
        MissingDependencyError: A member or an embedder given as a string needs a package that is not installed.
        InputError: An argument is outside its range, or the policy needs something that is not there.
    """

    model_config = ConfigDict(populate_by_name=True)

    members: Annotated[Members, PlainValidator(to_pool)]
    """The pool: chat models by name, or `PoolMember`s with prices and competences.

    A string is the name of a model for LangChain's `init_chat_model`, where langchain is installed.
    """

    embeddings: Annotated[Embedder | str | None, PlainValidator(to_embedder)] = None
    """The embedder that a policy given as a path was trained with: any LangChain `Embeddings`, or a name for
    `embedders.load_embedder`. None where the policy was trained without one, or is given as an object, which holds its own.

    A query is embedded once, by `embed_documents`, before its first round; recent queries are remembered. It is a
    synchronous call also within `ainvoke`: an embedder that waits on a network holds up the event loop for that long.
    """

    policy: Annotated[Policy | str | PathLike[str] | None, PlainValidator(to_policy)] = None
    """A trained policy, or the path of its checkpoint.

    None answers without training: members' declared competences are taken at their word, two members are asked, more
    where they differ, and a vote decides. `response_metadata` then says `"trained": False`.
    """

    max_team: int = 3
    """How many members may be asked for one query, over all rounds. Failures count."""

    max_rounds: int = 2
    """How many rounds there may be: after each, the Decider may ask more members, seeing the answers so far."""

    cost_weight: float = 0.1
    """What asking the whole pool once is worth, in units of score: 0.1 pays it for ten points of accuracy."""

    target_calls: float | None = None
    """How many members may be asked on average, instead of `cost_weight`: the least cost weight at which the policy asked no
    more on its validation rows, under the limits of its training. None leaves it to `cost_weight`, which a call can also do
    by giving that.
    """

    task: str | None = None
    """Task label of the queries, such as `"mmlu_pro/law"`, where it is known."""

    answer_kind: AnswerKind = "auto"
    """What counts as the same answer; `"auto"` tells it from the query and the answers."""

    synthesizer: BaseChatModel | None = None
    """A chat model that writes the answer from the candidates where Fusion is unsure; None always returns a candidate."""

    synthesize_below: float = 0.5
    """Confidence of Fusion, in [0, 1], below which the synthesizer writes the answer."""

    model_name: str = Field(default="rlfocal", alias="model")
    """The ensemble's name in traces and in `response_metadata`."""

    temperature: float | None = None
    """Passed to every member; None leaves each its own."""

    max_tokens: int | None = None
    """Passed to every member; None leaves each its own."""

    stop: list[str] | None = None
    """Stop sequences for every call that gives none itself."""

    streaming: bool | None = None
    """True answers `invoke` by way of the stream; False answers even `stream` whole; None leaves it to LangChain."""

    clock: Callable[[], float] = Field(default=time.perf_counter, exclude=True, repr=False)
    """Gives seconds; latencies are its differences."""

    if not TYPE_CHECKING:  # type checkers read the constructor's arguments off the fields

        def __init__(self, **kwargs: Any) -> None:
            try:
                super().__init__(**kwargs)
            except ValidationError as error:
                # Pydantic wraps what validators raise; callers should get the package's own error, as documented.
                causes = [detail.get("ctx", {}).get("error") for detail in error.errors()]
                own = [cause for cause in causes if isinstance(cause, RLFocalError)]
                if not own:
                    raise
                raise own[0] from own[0].__cause__

    @model_validator(mode="before")
    @classmethod
    def _warn_of_unknown_arguments(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            aliases = [field.alias for field in cls.model_fields.values() if field.alias]
            warn_of_unknown(map(str, values), known=[*cls.model_fields, *aliases], owner=cls.__name__)
        return values

    @model_validator(mode="after")
    def _set_up_rlfocal(self) -> Self:
        self._knobs({})
        if not 0 <= self.synthesize_below <= 1:
            raise InputError(f"`synthesize_below` must be in [0, 1], got {self.synthesize_below}.")
        check_known(self.pool, self._decider_and_fusion)
        assert not isinstance(self.embeddings, str), "names are loaded on validation"
        check_embeddings(self._decider_and_fusion, self.embeddings)
        self._add_version("langchain-rlfocal", __version__)
        return self

    @property
    def pool(self) -> ModelPool:
        """The members as a pool."""
        assert isinstance(self.members, ModelPool), "members become a pool on validation"
        return self.members

    @property
    def _decider_and_fusion(self) -> Policy:
        """The policy that decides: the given one, or the prior. Made anew, so that a copy with another pool has its own."""
        if self.policy is None:
            return PriorPolicy(self.pool.names, {member.name: member.competence for member in self.pool})
        assert not isinstance(self.policy, str | PathLike), "paths are loaded on validation"
        return self.policy

    @property
    def _llm_type(self) -> str:
        return "rlfocal"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "members": {member.name: identifying_params_of(member.model) for member in self.pool},
            "policy": self._decider_and_fusion.policy_id,
            "max_team": self.max_team,
            "max_rounds": self.max_rounds,
            "cost_weight": self.cost_weight,
            "target_calls": self.target_calls,
            "task": self.task,
            "answer_kind": self.answer_kind,
            "synthesizer": None if self.synthesizer is None else identifying_params_of(self.synthesizer),
            "synthesize_below": self.synthesize_below,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "default_stop": self.stop,  # LangChain puts a call's own under "stop"
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "rlfocal"
        return params

    @staticmethod
    def explain(message: AIMessage | Mapping[str, Any]) -> str:
        """Show how an answer came about, as a small table of plain text.

        Args:
            message: What the model answered, or its `response_metadata`.

        Raises:
            InputError: The message was not made by an RLFocalChatModel.
        """
        return explain(message)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        turn, asking = self._open(messages, stop, run_manager, kwargs)
        *_, message = self._river(messages, turn, asking, relay=False)
        assert isinstance(message, AIMessage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        turn, asking = self._open(messages, stop, run_manager, kwargs)
        async with aclosing(self._ariver(messages, turn, asking, relay=False)) as items:
            *_, message = [item async for item in items]
        assert isinstance(message, AIMessage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        turn, asking = self._open(messages, stop, run_manager, kwargs)
        with closing(self._river(messages, turn, asking, relay=True)) as items:
            for item in items:
                yield to_chunk(item)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        turn, asking = self._open(messages, stop, run_manager, kwargs)
        async with aclosing(self._ariver(messages, turn, asking, relay=True)) as items:
            async for item in items:
                yield to_chunk(item)

    def _river(
        self, messages: list[BaseMessage], turn: Turn, asking: dict[str, Any], *, relay: bool
    ) -> Generator[str | AIMessage]:
        """Answer: with `relay` the text first, piece by piece, as early as it is certain; last, always, the message."""
        relayed = False
        while members := turn.next_members():
            if relay and turn.is_decided:
                relayed = True
                with closing(stream_member(members[0], messages, round_number=turn.round_number, **asking)) as pieces:
                    for piece in pieces:
                        if isinstance(piece, str):
                            yield piece
                        else:
                            turn.record([piece])
            else:
                turn.record(ask_members(members, messages, round_number=turn.round_number, **asking))
        answer = turn.fuse()
        synthesis = None
        if author := self._author(turn, answer):
            prompt = synthesis_messages(messages, turn.candidates, answer)
            [synthesis] = ask_members([author], prompt, round_number=turn.round_number, **_for_author(asking))
        message = self._reply(turn, answer, synthesis)
        if relay and not relayed:
            yield from text_pieces(str(message.text))
        yield message

    async def _ariver(
        self, messages: list[BaseMessage], turn: Turn, asking: dict[str, Any], *, relay: bool
    ) -> AsyncGenerator[str | AIMessage]:
        """Answer; see `_river`."""
        relayed = False
        while members := turn.next_members():
            if relay and turn.is_decided:
                relayed = True
                async with aclosing(
                    astream_member(members[0], messages, round_number=turn.round_number, **asking)
                ) as pieces:
                    async for piece in pieces:
                        if isinstance(piece, str):
                            yield piece
                        else:
                            turn.record([piece])
            else:
                turn.record(await aask_members(members, messages, round_number=turn.round_number, **asking))
        answer = turn.fuse()
        synthesis = None
        if author := self._author(turn, answer):
            prompt = synthesis_messages(messages, turn.candidates, answer)
            [synthesis] = await aask_members([author], prompt, round_number=turn.round_number, **_for_author(asking))
        message = self._reply(turn, answer, synthesis)
        if relay and not relayed:
            for piece in text_pieces(str(message.text)):
                yield piece
        yield message

    def _knobs(self, kwargs: dict[str, Any]) -> Knobs:
        """Take the knobs out of a call's arguments; what a call does not set is the model's."""
        target = target_of(kwargs, default=self.target_calls)
        if target is not None:
            kwargs["cost_weight"] = cost_weight_for(target, self._decider_and_fusion)
        names = ("max_team", "max_rounds", "cost_weight", "task")
        return Knobs(**{name: kwargs.pop(name, getattr(self, name)) for name in names}, target_calls=target)

    def _open(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
    ) -> tuple[Turn, dict[str, Any]]:
        """Begin a turn; return it with the arguments under which members are asked."""
        config = self._members_config(run_manager, kwargs)
        knobs = self._knobs(kwargs)
        for name in _NEVER_FORWARDED:
            kwargs.pop(name, None)
        own = {name: getattr(self, name) for name in ("temperature", "max_tokens") if getattr(self, name) is not None}
        turn = Turn(
            query_of(messages, task=knobs.task),
            pool=self.pool,
            policy=self._decider_and_fusion,
            knobs=knobs,
            answer_kind=self.answer_kind,
        )
        return turn, {**own, **kwargs, "config": config, "stop": stop or self.stop, "clock": self.clock}

    def _author(self, turn: Turn, answer: Answer) -> PoolMember | None:
        """Return the synthesizer where it should write the answer: unsure, between texts. Tool calls are never mixed."""
        if self.synthesizer is None or answer.confidence >= self.synthesize_below or len(turn.candidates) == 1:
            return None
        if any(candidate.message.tool_calls for candidate in turn.candidates):
            return None
        return PoolMember("synthesizer", self.synthesizer)

    def _reply(self, turn: Turn, answer: Answer, synthesis: Candidate | Failure | None) -> AIMessage:
        return reply_of(turn, answer, synthesis=synthesis, model_name=self.model_name)


def _for_author(asking: Mapping[str, Any]) -> dict[str, Any]:
    """Reduce the arguments for members to those for the synthesizer: what a call asks of members (tools, say) is theirs."""
    return {"role": "synthesizer", **{name: asking[name] for name in ("config", "stop", "clock")}}
