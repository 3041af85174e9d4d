"""The chat model: a learned team of chat models behind one, the answering river in order.

Messages become a `Query`; the Decider selects members, which are asked at once and become candidates; labelled answers
go back to the Decider for another round, or to Fusion, which decides whose answer is returned. Policies decide
(`policies`), `turns` keeps the state, `execution` waits; here they meet LangChain.

It never merges members' tool calls, never passes on what is meant for one provider alone, and never learns while it
answers.
"""

import json
from collections.abc import AsyncIterator, Generator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from os import PathLike
from typing import Annotated, Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, PlainValidator, model_validator
from typing_extensions import override

from langchain_rlfocal._version import __version__
from langchain_rlfocal.answers import KindLike
from langchain_rlfocal.chat_models.arguments import (
    Members,
    RaisesOwnErrors,
    check_embeddings,
    check_known,
    cost_weight_for,
    cycle_in,
    equivalence_facts,
    identifying_params_of,
    judge_of,
    judging_member,
    kind_facts,
    only_member,
    target_of,
    to_answer_kind,
    to_embedder,
    to_equivalence,
    to_policy,
    to_pool,
    warn_of_unknown,
)
from langchain_rlfocal.chat_models.consensus import OnDisagreement
from langchain_rlfocal.chat_models.equivalence import Hearing, Judge, Judgements
from langchain_rlfocal.chat_models.explanations import explain
from langchain_rlfocal.chat_models.history import repairs_of
from langchain_rlfocal.chat_models.profiles import merged_profile
from langchain_rlfocal.chat_models.reliability import ReliableChatModel, check_bounded
from langchain_rlfocal.chat_models.replies import to_chunk
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.chat_models.river import Results, Settings, Step, Surroundings, answer, arun, run
from langchain_rlfocal.chat_models.turns import Knobs, Turn, eligible_of, query_of
from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.execution import Budget, enclosing_ensembles, num_tokens, num_tokens_of_messages
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.policies import Policy, PriorPolicy
from langchain_rlfocal.pool import ModelPool, PoolMember

MAX_NESTED = 8
"""How deep ensembles may stand in one another."""


class RLFocalChatModel(RaisesOwnErrors, ReliableChatModel):
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

    `max_team`, `max_rounds`, `cost_weight`, `target_calls`, `task`, and of the reliability `deadline_s`, `min_candidates`,
    `timeout`, `member_timeout_s`, `max_retries`, `early_commit`, `hedge` and `budget_per_answer`, and `answer_kind`, can also be
    given to one call, or bound with `.bind()`. A call's `model` is the name of one member, who then answers alone. Other call arguments go to the members.

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

    embeddings: Annotated[Embedder | str | None, PlainValidator(to_embedder)] = Field(default=None, repr=False)
    """The embedder that a policy given as a path was trained with: any LangChain `Embeddings`, or a name for
    `embedders.load_embedder`. None where the policy was trained without one, or is given as an object, which holds its own.

    A query is embedded once, by `embed_documents`, before its first round; recent queries are remembered. It is a
    synchronous call also within `ainvoke`: an embedder that waits on a network holds up the event loop for that long.
    """

    policy: Annotated[Policy | str | PathLike[str] | None, PlainValidator(to_policy)] = None
    """A trained policy, or the path of its checkpoint.

    None answers without training: members' declared competences are taken at their word, two members are asked, more
    where they differ, and a vote decides. Where answers cannot come out the same (open text) and neither `equivalence` nor
    `synthesizer` could use more of them, one is asked. `response_metadata` then says `"trained": False`.
    """

    max_team: int = 3
    """How many members may be asked for one query, over all rounds. Failures count."""

    max_rounds: int = 2
    """How many rounds there may be: after each, the Decider may ask more members, seeing the answers so far. Rounds that nobody
    has answered do not count: until someone has, others stand in, as far as `max_team` allows."""

    cost_weight: float = 0.1
    """What asking the whole pool once is worth, in units of score: 0.1 pays it for ten points of accuracy."""

    target_calls: float | None = None
    """How many members may be asked on average, instead of `cost_weight`: the least cost weight at which the policy asked no
    more on its validation rows, under the limits of its training. None leaves it to `cost_weight`, which a call can also do
    by giving that.
    """

    task: str | None = None
    """Task label of the queries, such as `"mmlu_pro/law"`, where it is known."""

    answer_kind: Annotated[KindLike, PlainValidator(to_answer_kind)] = "auto"
    """What counts as the same answer: the name of a kind, a `Kind` of your own, or a function that tells of two texts whether
    they are. `"auto"` reads each answer in the light of the query.
    """

    equivalence: Annotated[BaseChatModel | PoolMember | Embedder | str | None, PlainValidator(to_equivalence)] = Field(
        default=None, repr=False
    )
    """A judge of texts that rules can neither tell apart nor find to be the same; None leaves them apart.

    A chat model, or the name of one, is asked about all such pairs of a round at once, and about those that it calls the same
    once more in the other order. As a `PoolMember` it has prices. `Embeddings` call two texts the same from
    `equivalence_threshold` on. A pair without a verdict, for whatever reason, differs.
    """

    equivalence_threshold: float = 0.9
    """Cosine of two embedded texts, above 0 and at most 1, from which they are the same, where `equivalence` is `Embeddings`."""

    judgements: Judgements = Field(default_factory=Judgements, exclude=True, repr=False)
    """What the judge has said of pairs of texts, which this model and its copies share: no pair is put to it twice."""

    synthesizer: BaseChatModel | PoolMember | None = Field(default=None, repr=False)
    """A chat model that writes the answer from the candidates where Fusion is unsure; None always returns a candidate. As a
    `PoolMember` it has prices."""

    synthesize_below: float = 0.5
    """Confidence of Fusion, in [0, 1], below which the synthesizer writes the answer."""

    on_disagreement: OnDisagreement = "leader"
    """What to do where members propose tool calls and no action has more than half of Fusion's weight: `"leader"` follows the
    heaviest proposal, `"text"` answers in text and calls nothing, `"raise"` raises `DisagreementError`.
    """

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
        if not 0 < self.equivalence_threshold <= 1:
            raise InputError(
                f"`equivalence_threshold` must be above 0 and at most 1, got {self.equivalence_threshold}. At 1 only texts "
                "whose vectors point the same way are the same."
            )
        check_bounded(self._everybody, self._terms({}))
        check_known(self.pool, self._decider_and_fusion)
        assert not isinstance(self.embeddings, str), "names are loaded on validation"
        check_embeddings(self._decider_and_fusion, self.embeddings)
        self._add_version("langchain-rlfocal", __version__)
        return self

    @property
    @override
    def pool(self) -> ModelPool:
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
    def _everybody(self) -> list[PoolMember]:
        """The members, and the synthesizer and the equivalence judge where there is one."""
        given, synthesizer = self._equivalence, self._synthesizing_member
        judges = [] if given is None else [judging_member(given, threshold=self.equivalence_threshold)]
        return [*self.pool, *([] if synthesizer is None else [synthesizer]), *judges]

    @property
    def _judge(self) -> Judge | None:
        """Who says whether texts are the same that rules leave open."""
        given = self._equivalence
        if given is None:
            return None
        return judge_of(given, threshold=self.equivalence_threshold, known=self.judgements)

    @property
    def _equivalence(self) -> BaseChatModel | PoolMember | Embedder | None:
        assert not isinstance(self.equivalence, str), "names become models on validation"
        return self.equivalence

    @property
    def _synthesizing_member(self) -> PoolMember | None:
        """The synthesizer as a member, with the prices that it is given with."""
        given = self.synthesizer
        return PoolMember("synthesizer", given) if isinstance(given, BaseChatModel) else given

    @property
    def _cache_facts(self) -> dict[str, Any]:
        """What members say that they can take decides who is asked, and what cuts an answer short decides who is heard."""
        profiles = {member.name: member.model.profile for member in self.pool if member.model.profile}
        cuts = (self.deadline_s, self.member_timeout_s, self.timeout, self.min_candidates, self.budget_per_answer)
        facts = {"profiles": json.dumps(profiles, sort_keys=True, default=str)} if profiles else {}
        return facts if cuts == (None, None, None, 1, Budget()) else {**facts, "cuts": repr(cuts)}

    @property
    def _llm_type(self) -> str:
        return "rlfocal"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        self._check_no_cycle()  # these lines would follow it for ever
        synthesizer = self._synthesizing_member
        return {
            "model_name": self.model_name,
            "members": {member.name: identifying_params_of(member.model) for member in self.pool},
            "policy": self._decider_and_fusion.policy_id,
            "max_team": self.max_team,
            "max_rounds": self.max_rounds,
            "cost_weight": self.cost_weight,
            "target_calls": self.target_calls,
            "task": self.task,
            "answer_kind": kind_facts(self.answer_kind),
            "equivalence": equivalence_facts(self._equivalence, threshold=self.equivalence_threshold),
            "synthesizer": None if synthesizer is None else identifying_params_of(synthesizer.model),
            "synthesize_below": self.synthesize_below,
            "on_disagreement": self.on_disagreement,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "default_stop": self.stop,  # LangChain puts a call's own under "stop"
        }

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=stop, **_with_named_kind(kwargs))

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return super()._get_llm_string(stop=stop, **_with_named_kind(kwargs))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "rlfocal"
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        return merged_profile([member.model for member in self.pool])

    def get_num_tokens(self, text: str) -> int:
        """Count a text's tokens: by `custom_get_token_ids` where that is given, else estimated, without a network."""
        return num_tokens(text, self.custom_get_token_ids)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Count the tokens of a conversation and of tools; see `get_num_tokens`."""
        return num_tokens_of_messages(messages, tools, self.custom_get_token_ids)

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
        *_, message = run(*self._open(messages, stop, run_manager, kwargs, relay=False))
        assert isinstance(message, AIMessage)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        async with aclosing(arun(*self._open(messages, stop, run_manager, kwargs, relay=False))) as items:
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
        with closing(run(*self._open(messages, stop, run_manager, kwargs, relay=True))) as items:
            for item in items:
                yield to_chunk(item)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        steps, around = self._open(messages, stop, run_manager, kwargs, relay=True)
        async with aclosing(arun(steps, around)) as items:
            around.parent.rivers.append(items)
            async for item in items:
                yield to_chunk(item)

    def _open(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
        *,
        relay: bool,
    ) -> tuple[Generator[Step, Results, None], Surroundings]:
        """Make the river of one call, and say where it runs."""
        self._check_no_cycle()
        parent = self._take_parent(run_manager, kwargs)
        kwargs.pop("stream", None)  # LangChain means it for this model alone
        only = only_member(kwargs.pop("model", None), self.pool, own_name=self.model_name)
        knobs, limits = self._knobs(kwargs), self._limits(kwargs)
        answer_kind = to_answer_kind(kwargs.pop("answer_kind", self.answer_kind))
        check_bounded(self._everybody, limits.config)
        own = {name: getattr(self, name) for name in ("temperature", "max_tokens") if getattr(self, name) is not None}
        request = Request.of({**own, **kwargs})
        query, judge = query_of(messages, task=knobs.task), self._judge
        turn = Turn(
            query,
            pool=self.pool,
            policy=self._decider_and_fusion,
            knobs=knobs,
            answer_kind=answer_kind,
            request=request,
            eligible=eligible_of(self.pool, messages, request=request, only=only),
            repairs=repairs_of(messages),
            limits=limits,
            hearing=None if judge is None else Hearing(judge, query.text),
            is_written_over=self.synthesizer is not None,
        )
        settings = Settings(
            model_name=only or self.model_name,
            synthesizer=self._synthesizing_member,
            synthesize_below=self.synthesize_below,
            on_disagreement=self.on_disagreement,
            relay=relay,
        )
        return answer(messages, turn, settings), Surroundings(parent, limits, stop or self.stop, id(self))

    def _check_no_cycle(self) -> None:
        """Check that no member leads back to this model, also within what a member asks.

        Raises:
            PoolError: One does.
        """
        path, around = cycle_in(self), enclosing_ensembles()
        if path is None and id(self) in around:
            path = [self.model_name, "...", self.model_name]
        if path is not None:
            raise PoolError(
                f"An ensemble must not be its own member, got {' > '.join(path)}. Take it out of one of them."
            )
        if len(around) >= MAX_NESTED:  # copies of one ensemble that ask each other are as endless, and each is another
            raise PoolError(
                f"Ensembles must not be nested deeper than {MAX_NESTED}, and `{self.model_name}` is asked below {len(around)}. "
                "Look for one that a member leads back to."
            )

    def _knobs(self, kwargs: dict[str, Any]) -> Knobs:
        """Take the knobs out of a call's arguments; what a call does not set is the model's."""
        target = target_of(kwargs, default=self.target_calls)
        if target is not None:
            kwargs["cost_weight"] = cost_weight_for(target, self._decider_and_fusion)
        names = ("max_team", "max_rounds", "cost_weight", "task", "min_candidates")
        knobs = Knobs(**{name: kwargs.pop(name, getattr(self, name)) for name in names}, target_calls=target)
        if knobs.min_candidates > knobs.max_team:
            raise InputError(
                f"`min_candidates` must be at most `max_team` ({knobs.max_team}), got {knobs.min_candidates}: no more are asked."
            )
        return knobs


def _with_named_kind(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Name the kind of answer among a call's arguments, for caches and traces, which take no objects."""
    given = kwargs.get("answer_kind")
    return kwargs if given is None else {**kwargs, "answer_kind": kind_facts(given)}
