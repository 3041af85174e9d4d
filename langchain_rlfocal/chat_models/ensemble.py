"""The chat model: a learned team of chat models behind one.

`RLFocalChatModel` says what callers can set, and gives every way to call it to `answering`, which asks the members and fuses
what they say. It never merges members' tool calls, never passes on what is meant for one provider alone, and learns
from feedback only, never from an answer itself.
"""

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial
from operator import is_, itemgetter
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from uuid import UUID

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, PlainValidator, PrivateAttr, model_validator

from langchain_rlfocal._langchain import BOUND_TOOLS_KEY, NestedRunsMixin
from langchain_rlfocal._version import __version__
from langchain_rlfocal.chat_models.answering import AnswerState, CallContext, aanswer, answer, astream_answer, query_of
from langchain_rlfocal.chat_models.arguments import (
    OPTION_NAMES,
    Amount,
    AnswerKind,
    BudgetLike,
    CallOptions,
    Count,
    Flag,
    Members,
    Natural,
    RetryRule,
    Seconds,
    Share,
    Weight,
    check_embeddings,
    check_known,
    check_priced,
    cycle_in,
    identifying_params_of,
    kind_id,
    only_member,
    own_errors,
    to_budget,
    to_embedder,
    to_equivalence,
    to_outcome_log,
    to_policy,
    to_pool,
    to_shared_state,
    warn_of_unknown,
)
from langchain_rlfocal.chat_models.capabilities import Eligible, eligible_of, merged_profile
from langchain_rlfocal.chat_models.consensus import OnDisagreement
from langchain_rlfocal.chat_models.equivalence import Judge, Judgements, Judging
from langchain_rlfocal.chat_models.messages import repairs_of
from langchain_rlfocal.chat_models.metadata import answer_id_of, explain, to_chunk
from langchain_rlfocal.chat_models.promises import Pledge, certificate_of, other_pool, pledge_of
from langchain_rlfocal.chat_models.requests import (
    BoundTools,
    Request,
    name_of,
    response_format_of,
    standard_choice,
    to_tool,
)
from langchain_rlfocal.chat_models.sessions import Sticky, Turn, session_of
from langchain_rlfocal.errors import FeedbackError, InputError, PoolError
from langchain_rlfocal.execution import (
    Account,
    AnswerLimits,
    BreakerConfig,
    BreakerState,
    Budget,
    ExecutionConfig,
    RetryPolicy,
    Session,
    SharedState,
    Usage,
    enclosing_ensembles,
    num_tokens,
    num_tokens_of_messages,
)
from langchain_rlfocal.execution.sessions import SESSION_TTL_S
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.log import Feedback, OutcomeLog
from langchain_rlfocal.online import Change, LearningService, Mode, Serving
from langchain_rlfocal.policies import Policy, PriorPolicy
from langchain_rlfocal.policies.targets import TARGETS, Aim, curve_of
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.pool_files import read_pool
from langchain_rlfocal.records import Query

MAX_NESTED = 8
"""How deep ensembles can be nested."""

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool
Method = Literal["function_calling", "json_schema", "json_mode"]
_RunManager = CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None


class _Setup:
    """What is the same for every call of a model: made at first use, and again once a field was changed.

    Attributes:
        pool: The members.
        names: Their names.
        policy: Makes both decisions: the given one, or the prior.
        service: Records answers and learns from feedback; None without a log.
        synthesizer: The synthesizer as a member; None for nobody.
        judge: The equivalence judge; None where there is none.
        options: The options of a call that sets none.
        config: The same for `execution`.
    """

    def __init__(self, model: "RLFocalChatModel") -> None:
        self._made_of = [*vars(model).values()]
        assert isinstance(model.members, ModelPool), "members become a pool on validation"
        assert not isinstance(model.policy, str | PathLike), "paths are loaded on validation"
        assert not isinstance(model.equivalence, str), "names become models on validation"
        if (path := cycle_in(model)) is not None:
            raise PoolError(
                f"An ensemble must not be its own member, got {' > '.join(path)}. Take it out of one of them."
            )
        self.pool: ModelPool = model.members
        self.models = {member.name: member.model for member in self.pool}
        self.policy: Policy = model.policy or PriorPolicy(self.pool.names, {m.name: m.competence for m in self.pool})
        given = model.synthesizer
        self.synthesizer = PoolMember("synthesizer", given) if isinstance(given, BaseChatModel) else given
        self.judge: Judge | None = None
        if model.equivalence is not None:
            threshold, known = model.equivalence_threshold, model.judgements
            self.judge = Judge.of(model.equivalence, threshold=threshold, known=known)
        with own_errors():
            fields = type(model).model_fields
            self.options = CallOptions(**{name: getattr(model, name) for name in OPTION_NAMES if name in fields})
        self.names = frozenset(self.pool.names)
        self.service: LearningService | None = None
        if isinstance(model.outcome_log, OutcomeLog):
            self.service = LearningService.of(model.outcome_log, self.policy, mode=model.learning)
        elif model.learning != "off":
            raise InputError(
                f'`learning` must be "off" where there is no `outcome_log` to learn from, got {model.learning!r}. Give '
                '`outcome_log="outcomes.db"` too.'
            )
        self._unlearned = Serving(self.policy)
        self.config = self.config_of(model, self.options)
        check_known(self.pool, self.policy)
        if self.options.target is not None:  # it can be kept
            curve_of(self.policy).amount(self.options.target, self.names)
        if self.options.promise is not None:  # as above
            certificate_of(self.policy, self.options.promise)

    @property
    def serving(self) -> Serving:
        """What serves now."""
        return self._unlearned if self.service is None else self.service.serving

    def fits(self, model: "RLFocalChatModel") -> bool:
        """Tell whether no field of the model was changed since."""
        values = vars(model).values()
        return len(values) == len(self._made_of) and all(map(is_, values, self._made_of))

    def config_of(self, model: "RLFocalChatModel", options: CallOptions) -> ExecutionConfig:
        """Make the limits of a call's answer.

        Raises:
            InputError: A budget or a target limits dollars, and a member has no price.
        """
        failures = model.breaker_failures
        config = ExecutionConfig(
            retry=RetryPolicy(max_retries=options.max_retries, retry_on=options.retry_on),
            breaker=None if failures is None else BreakerConfig(failures, model.breaker_recovery_s),
            timeout_s=options.timeout,
            member_timeout_s=options.member_timeout_s,
            deadline_s=options.deadline_s,
            max_concurrent_calls=model.max_concurrent_calls,
            budget=to_budget(model.budget),
            budget_per_answer=to_budget(options.budget_per_answer),
            account=options.account,
            early_commit=options.early_commit,
            hedge=options.hedge,
        )
        everybody = [*self.pool, self.synthesizer, None if self.judge is None else self.judge.member]
        check_priced([member for member in everybody if member is not None], config, options.target)
        return config

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copy of the model makes its own


class RLFocalChatModel(NestedRunsMixin):
    """A learned team of chat models behind one.

    For each query a Decider selects a small team of the pool's members, round by round; they are asked at once, and
    Fusion decides which answer is returned. It is called like any chat model: `invoke`, `batch`, `stream`, their async
    twins, and in chains. How an answer came about is in `message.response_metadata["rlfocal"]`; for people there is
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

    One call may set the options that `CallOptions` lists (`max_team`, `cost_weight`, `task`, `deadline_s`, `retry_on` and so
    on), also by `.bind()`. A call's `model` is the name of one member, who then answers alone. Other call arguments go to the
    members.

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

    max_team: Count = 3
    """How many members may be asked for one query, over all rounds. Failures count."""

    max_rounds: Count = 2
    """How many rounds there may be: after each, the Decider may ask more members, seeing the answers so far. Rounds that nobody
    has answered do not count: until someone has, others are asked in their place, as far as `max_team` allows."""

    cost_weight: Weight = 0.1
    """What asking the whole pool once is worth, in units of score: 0.1 pays it for ten points of accuracy."""

    target_calls: Amount | None = None
    """How many members may be asked on average, instead of `cost_weight`. At most one target can be given; a call that gives one,
    or `cost_weight`, goes before the model.

    A trained policy mixes two neighbouring operating points of its curve so as to take just this much, and corrects the mixture by
    what this model and its copies really took. A target beyond what the policy takes where calls are free takes that.
    """

    target_usd: Amount | None = None
    """How many dollars a query may take on average; every member needs prices."""

    target_usd_share: Amount | None = None
    """The same as a share of what the member that scored best in training takes alone."""

    target_tokens: Amount | None = None
    """How many tokens a query may take on average, of prompts and responses of all calls."""

    target_seconds: Amount | None = None
    """How many seconds a query may take on average."""

    promise: str | None = None
    """A promise that the policy was certified for, such as `"best-0.02@0.9"`, instead of `cost_weight`: queries are answered as it was
    certified, by the cheapest way to keep it. Where it does not hold, since pool, tasks, policy or a member are others now, the
    member answers that was best when it was certified, and `response_metadata["rlfocal"]["promise"]` says why.
    """

    task: str | None = None
    """Task label of the queries, such as `"mmlu_pro/law"`, where it is known."""

    answer_kind: AnswerKind = "auto"
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

    equivalence_threshold: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.9
    """Cosine of two embedded texts, above 0 and at most 1, from which they are the same, where `equivalence` is `Embeddings`."""

    judgements: Judgements = Field(default_factory=Judgements, exclude=True, repr=False)
    """The judge's verdicts, which this model and its copies share: no pair is put to it twice."""

    synthesizer: BaseChatModel | PoolMember | None = Field(default=None, repr=False)
    """A chat model that writes the answer from the candidates where Fusion is unsure; None always returns a candidate. As a
    `PoolMember` it has prices."""

    synthesize_below: Share = 0.5
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

    timeout: Seconds | None = None
    """Seconds that one attempt of a member may take; None leaves it to the member's own client."""

    member_timeout_s: Seconds | None = None
    """Seconds that a member may take for all its attempts and the waiting between them; None for any time."""

    deadline_s: Seconds | None = None
    """Seconds after which Fusion answers with what has arrived; None waits for all. Members still running are cancelled. Fewer
    than `min_candidates` raise `DeadlineError`."""

    min_candidates: Count = 1
    """How many members must have answered where the deadline or a budget cuts an answer short."""

    max_retries: Natural = 2
    """How often a member is asked again after an error that may pass: a lost connection, a time-out, HTTP 408, 409, 425, 429
    and 5xx, or whatever LangChain calls retryable. Waits of 0.5 s, 1 s and so on with jitter, or what the provider asks for in
    `Retry-After`. The retries of members' own clients are switched off, so that they do not multiply."""

    retry_on: RetryRule = None
    """Which errors are worth another attempt, where the built-in rule errs: an exception class, several of them, or a function
    that takes an exception and returns True, False, or None to leave it to the rule."""

    early_commit: Flag = True
    """Whether members that can no longer change the answer are cancelled. Only where that is exact: see
    docs/explanation/reliability.md."""

    hedge: Flag = False
    """Whether the Decider's next choice is asked too, as far as `max_team` allows, where a member takes longer than for 95 % of its
    answers so far; the first good answer wins."""

    breaker_failures: Count | None = 5
    """After how many failed attempts in a row a member's circuit breaker opens for `breaker_recovery_s`; None for never. Of attempts
    that ran at the same time one counts. While it is open the member is not available to the Decider; then one call probes it."""

    breaker_recovery_s: Seconds = 30.0
    """Seconds that a circuit breaker stays open, until one call probes the member."""

    budget: BudgetLike = None
    """What all answers of this model and its copies may spend together, such as `Budget(max_usd=5)` or
    `{"max_calls": 100}`; None for any amount. A call is made only if the most that it can cost is still there."""

    budget_per_answer: BudgetLike = None
    """What one answer may spend, retries, the synthesizer and the equivalence judge included."""

    account: Account | None = None
    """Who pays for answers: each call is booked to it too, and where its budget has no room, fails as with `budget`. All models that
    share their state know an account by its name."""

    max_concurrent_calls: Count | None = None
    """How many calls of members may run at once, over all queries that this model and its copies answer, in all threads and
    event loops; None for any number. `PoolMember.max_concurrent_calls` caps one member."""

    outcome_log: Annotated[OutcomeLog | str | PathLike[str] | None, PlainValidator(to_outcome_log)] = Field(
        default=None, exclude=True, repr=False
    )
    """Where to record what is served and what users say of it (`feedback`): an `OutcomeLog`, or its path, which is made where it
    is missing. It holds questions and answers in clear text. None records nothing."""

    learning: Mode = "off"
    """What to do with feedback: `"on"` learns from it and serves what was learned once that is shown to be better, and leaves out
    members that fell; `"shadow"` learns and serves as before; `"off"` only records. All but `"off"` need an `outcome_log`."""

    explore: Share = 0.0
    """Share of the answers, ε in [0, 1], that ask `max_team` members at random instead of the Decider's choice, so that something
    is learned of everyone. How probable it was that a member was asked is recorded with it. Answers under a promise never explore."""

    sticky: Sticky = "off"
    """Who goes on with a conversation: `"off"` whom the Decider chooses, who sees that members which hold the conversation in their
    provider's cache are cheaper; `"tools"` in a tool loop the member whose calls were run, alone; `"session"` always the member that
    answered last, alone. Others are asked only where it fails or cannot be asked. A promise goes before it.
    """

    shared_state: Annotated[SharedState, PlainValidator(to_shared_state)] = Field(
        default_factory=SharedState, exclude=True, repr=False
    )
    """What this model and its copies share in this process: running calls, breakers, latencies, spending. Give one model's to
    another to have them share it too; give the URL of a Redis or Valkey server to share it with all processes that name it, such as
    `"redis://127.0.0.1:6379/0"`."""

    clock: Callable[[], float] = Field(default=time.perf_counter, exclude=True, repr=False)
    """Gives seconds; latencies are its differences."""

    _setup_made: _Setup | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:  # type checkers read the constructor's arguments off the fields

        def __init__(self, **kwargs: Any) -> None:
            with own_errors():
                super().__init__(**kwargs)

    @classmethod
    def from_pool(
        cls, path: str | PathLike[str], *, policy: Policy | str | PathLike[str] | None = None, **fields: Any
    ) -> Self:
        """Make a model of a pool file.

        Where the file names embedded models, these run until `model.pool.close()`, or the end of the process.

        Args:
            path: The pool file, in YAML, TOML or JSON; see docs/how-to/describe-a-pool.md.
            policy: A policy trained for members of these names, or the path of its checkpoint; None answers without training.
            **fields: Other fields of the model, such as `max_team`.

        Raises:
            PoolError: The file breaks a rule, a member of it cannot be made, or the policy does not know one.
            CheckpointError: The policy's checkpoint cannot be read, or belongs to another pool.
            MissingDependencyError: A member's package is not installed.
            InputError: An argument is outside its range, or the policy needs something that is not there.
        """
        pool = read_pool(path)
        try:
            return cls(members=pool, policy=policy, **fields)
        except BaseException:
            pool.close()
            raise

    @model_validator(mode="before")
    @classmethod
    def _warn_of_unknown_arguments(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            aliases = [field.alias for field in cls.model_fields.values() if field.alias]
            warn_of_unknown(map(str, values), known=[*cls.model_fields, *aliases], owner=cls.__name__)
        return values

    @model_validator(mode="after")
    def _set_up_rlfocal(self) -> Self:
        assert not isinstance(self.embeddings, str), "names are loaded on validation"
        check_embeddings(self._setup.policy, self.embeddings)
        self._add_version("langchain-rlfocal", __version__)
        return self

    @property
    def _setup(self) -> _Setup:
        private = self.__pydantic_private__
        setup: _Setup | None = None if private is None else private["_setup_made"]  # pydantic's own way takes longer
        if setup is None or not setup.fits(self):
            setup = self._setup_made = _Setup(self)
        return setup

    # ---- state

    @property
    def pool(self) -> ModelPool:
        """The members as a pool."""
        return self._setup.pool

    @property
    def serving(self) -> Serving:
        """What serves now: the given policy, the prior, or what was learned of feedback, and who is left out."""
        return self._setup.serving

    @property
    def spent(self) -> Usage:
        """What all answers of this model and its copies have spent so far."""
        return self.shared_state.ledger.spent

    def reset_spending(self) -> None:
        """Set what is spent to zero."""
        self.shared_state.ledger.reset()

    @property
    def breakers(self) -> dict[str, BreakerState]:
        """State of each breaker that is open, is being probed, or counts failures; a member not named is healthy.

        That of the synthesizer is called "(synthesizer)", that of the equivalence judge "(equivalence)".
        """
        return self.shared_state.breakers.states(self.clock())

    def reset_breakers(self, member: str | None = None) -> None:
        """Close the circuit breaker of a member, or of all, so that it is asked again at once.

        Args:
            member: Its name, "(synthesizer)" or "(equivalence)"; None for all.

        Raises:
            InputError: There is no such member, and no breaker of that name in `breakers`.
        """
        known = dict.fromkeys([*self.pool.names, *self.breakers])
        if member is not None and member not in known:
            raise InputError(f"`member` must be one of {', '.join(known)}, or None for all, got {member!r}.")
        self.shared_state.reset_breakers(member)

    @staticmethod
    def explain(message: AIMessage | Mapping[str, Any]) -> str:
        """Show how an answer came about, as a small table of plain text.

        Args:
            message: What the model answered, or its `response_metadata`.

        Raises:
            InputError: The message was not made by an RLFocalChatModel.
        """
        return explain(message)

    def feedback(
        self,
        answer: AIMessage | Mapping[str, Any] | str | UUID,
        score: float,
        per_member: Mapping[str, float] | None = None,
    ) -> None:
        """Record what a user says of an answer; it is on disk when this returns.

        Args:
            answer: The message, its `response_metadata`, or the answer's id: `response_metadata["rlfocal"]["answer_id"]`, which
                is the id of the model's run in LangChain's callbacks and in LangSmith.
            score: What the answer is worth, in [0, 1].
            per_member: What members' own answers are worth, as far as it is known.

        Raises:
            FeedbackError: There is no `outcome_log`; the answer is not in it, is one of another pool, or has feedback already;
                a score is outside [0, 1], or a member was not asked.
            OutcomeLogError: The log cannot be written.
        """
        said, service = self._said(answer, score, per_member)
        strangers = service.log.served(said.answer_id).members.difference(self.pool.names)
        if strangers:
            raise FeedbackError(
                f"Feedback must be about an answer of this pool ({', '.join(self.pool.names)}), and {said.answer_id} asked, "
                f"or could have asked, {', '.join(sorted(strangers))}. Give it to the model that answered."
            )
        service.add_feedback(said)

    async def afeedback(
        self,
        answer: AIMessage | Mapping[str, Any] | str | UUID,
        score: float,
        per_member: Mapping[str, float] | None = None,
    ) -> None:
        """Record what a user says of an answer; see `feedback`."""
        said, service = self._said(answer, score, per_member)
        await service.log.aserved(said.answer_id)  # which may take time, and a thread would be held up by that
        await service.log.in_thread(partial(self.feedback, said.answer_id, said.score, said.per_member))

    def _said(
        self, answer: AIMessage | Mapping[str, Any] | str | UUID, score: float, per_member: Mapping[str, float] | None
    ) -> tuple[Feedback, LearningService]:
        """Read what a user says, and return who records it."""
        answer_id, service = answer_id_of(answer), self._setup.service
        if service is None:
            raise FeedbackError('Feedback needs an outcome log, got none. Give the model `outcome_log="outcomes.db"`.')
        per_member = {} if per_member is None else per_member
        return Feedback(answer_id=answer_id, score=score, per_member=per_member), service

    def changes(self) -> list[Change]:
        """List what was changed of what serves, the first first, each with its reason and figures; see `learning`.

        Raises:
            InputError: `learning` is off.
            OutcomeLogError: The log cannot be read.
        """
        return self._learning_service().changes()

    def undo(self, change_id: str) -> None:
        """Undo a change, in all processes that use the log.

        Args:
            change_id: Its id, as `changes` lists it.

        Raises:
            InputError: There is no such change, or `learning` is off.
            OutcomeLogError: The log cannot be read or written.
        """
        self._learning_service().undo(change_id)

    def _learning_service(self) -> LearningService:
        if self._setup.service is None:
            raise InputError(
                'Changes are made where `learning` is "shadow" or "on", got "off". Give the model one of them.'
            )
        return self._setup.service

    def get_num_tokens(self, text: str) -> int:
        """Count a text's tokens: by `custom_get_token_ids` where that is given, else estimated, without a network."""
        return num_tokens(text, self.custom_get_token_ids)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Count the tokens of a conversation and of tools; see `get_num_tokens`."""
        return num_tokens_of_messages(messages, tools, self.custom_get_token_ids)

    @property
    def _llm_type(self) -> str:
        return "rlfocal"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        setup = self._setup
        return {
            "model_name": self.model_name,
            "members": {member.name: identifying_params_of(member.model) for member in setup.pool},
            "policy": setup.serving.policy.policy_id,
            "max_team": self.max_team,
            "max_rounds": self.max_rounds,
            "cost_weight": self.cost_weight,
            **{name: getattr(self, name) for name in (*TARGETS, "promise")},
            "task": self.task,
            "answer_kind": kind_id(self.answer_kind),
            "equivalence": None if setup.judge is None else dict(setup.judge.facts),
            "synthesizer": setup.synthesizer and identifying_params_of(setup.synthesizer.model),
            "synthesize_below": self.synthesize_below,
            "on_disagreement": self.on_disagreement,
            "explore": self.explore,
            "sticky": self.sticky,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "default_stop": self.stop,  # LangChain puts a call's own under "stop"
        }

    def _get_invocation_params(self, stop: list[str] | None = None, **kwargs: Any) -> dict[str, Any]:
        return super()._get_invocation_params(stop=stop, **_identifying(kwargs))

    @property
    def _cache_facts(self) -> dict[str, Any]:
        """What decides an answer besides `_identifying_params`: what members can take, and what may cut an answer short."""
        profiles = {member.name: member.model.profile for member in self.pool if member.model.profile}
        budget = to_budget(self.budget_per_answer)  # a default is not validated
        cuts = (self.deadline_s, self.member_timeout_s, self.timeout, self.min_candidates, budget)
        facts = {"profiles": json.dumps(profiles, sort_keys=True, default=str)} if profiles else {}
        if timeouts := {member.name: member.timeout_s for member in self.pool if member.timeout_s is not None}:
            facts["timeouts"] = json.dumps(timeouts, sort_keys=True)
        return facts if cuts == (None, None, None, 1, Budget()) else {**facts, "cuts": repr(cuts)}

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        return super()._get_llm_string(stop=stop, **_identifying(kwargs))

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "rlfocal"
        return params

    def _resolve_model_profile(self) -> ModelProfile | None:
        return merged_profile(self._setup.models.values())

    # ---- tools and structured output

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
            strict: Whether members must keep to the schemas strictly, where their providers can.
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
        bound = BoundTools(tuple(tools), tuple(formatted), response_format, form)
        for schema in bound.schemas.values():
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
            **{BOUND_TOOLS_KEY: bound},
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
        Decimal. How many agree on each field is in the message's `response_metadata["rlfocal"]["fusion"]["fields"]`.

        Args:
            schema: A pydantic class (of version 1 or 2), a TypedDict, or a JSON schema. `"json_mode"` can do without.
            include_raw: True returns `{"raw": message, "parsed": object, "parsing_error": error or None}`.
            method: How members are asked for it: by a tool they must call, by a JSON schema, or for any JSON, which the
                prompt must then describe. For the latter two each member is asked as its own `with_structured_output` does.
            strict: Whether members must keep to the schema strictly, where their providers can.
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
                strict=strict,
                ls_structured_output_format=traced,
                **{
                    "consensus": "fields",
                    **kwargs,
                    "tool_choice": name,
                    "parallel_tool_calls": False,
                },  # it is one object
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
                **{BOUND_TOOLS_KEY: BoundTools(schema=schema, form=form, method=method, strict=strict)},
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

    # ---- answering

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        self._catch_up(run_manager, kwargs)
        with closing(self._state_of(messages, stop, run_manager, kwargs, relay=False)) as state:
            *_, message = answer(messages, state)
        assert isinstance(message, AIMessage), "the message comes last"
        self._tell_others(state)
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        await self._acatch_up(run_manager, kwargs)
        with closing(self._state_of(messages, stop, run_manager, kwargs, relay=False)) as state:
            message = await aanswer(messages, state)
        await self._atell_others(state)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        self._catch_up(run_manager, kwargs)
        with (
            closing(self._state_of(messages, stop, run_manager, kwargs, relay=True)) as state,
            closing(answer(messages, state)) as items,
        ):
            for item in items:
                if isinstance(item, AIMessage):
                    self._tell_others(state)
                yield to_chunk(item)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        await self._acatch_up(run_manager, kwargs)
        with closing(self._state_of(messages, stop, run_manager, kwargs, relay=True)) as state:
            async with aclosing(astream_answer(messages, state)) as items:
                state.context.parent.streams.append(items)
                async for item in items:
                    if isinstance(item, AIMessage):
                        await self._atell_others(state)
                    yield to_chunk(item)

    def _catch_up(self, run_manager: _RunManager, kwargs: Mapping[str, Any]) -> None:
        """Learn what other processes were told meanwhile, and what they know of the call's session."""
        service, shared = self._setup.service, self.shared_state
        if service is not None and service.takes_turn():
            service.refresh()
        if shared.store is not None and (session := _session(run_manager, kwargs.get("session"))) is not None:
            self._learn_of(session, shared.get(session.store_key))

    async def _acatch_up(self, run_manager: _RunManager, kwargs: Mapping[str, Any]) -> None:
        service, shared = self._setup.service, self.shared_state
        if service is not None and service.takes_turn():
            await service.arefresh()
        if shared.store is not None and (session := _session(run_manager, kwargs.get("session"))) is not None:
            self._learn_of(session, await shared.aget(session.store_key))

    def _learn_of(self, session: Session, data: bytes | None) -> None:
        if data is not None:
            self.shared_state.sessions.load(session, data, now_s=self.clock())

    def _tell_others(self, state: AnswerState) -> None:
        """Tell other processes what came of a session."""
        shared, session = self.shared_state, None if state.turn is None else state.turn.session
        if shared.store is not None and session is not None:
            data = shared.sessions.dump(session, now_s=self.clock())
            shared.put(session.store_key, data, SESSION_TTL_S)

    async def _atell_others(self, state: AnswerState) -> None:
        shared, session = self.shared_state, None if state.turn is None else state.turn.session
        if shared.store is not None and session is not None:
            data = shared.sessions.dump(session, now_s=self.clock())
            await shared.aput(session.store_key, data, SESSION_TTL_S)

    def _state_of(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
        *,
        relay: bool,
    ) -> AnswerState:
        """Begin an answer: check the call, and take its options out of its arguments; the rest goes to the members."""
        setup = self._setup
        serving = setup.serving
        self._check_nesting()
        parent = self._take_parent(run_manager, kwargs)
        kwargs.pop("stream", None)  # LangChain means it for this model alone
        only = only_member(kwargs.pop("model", None), setup.pool, own_name=self.model_name)
        options = setup.options.with_call(kwargs)
        config = setup.config if options is setup.options else setup.config_of(self, options)
        own = {name: value for name in ("temperature", "max_tokens") if (value := getattr(self, name)) is not None}
        request = Request.of({**own, **kwargs})
        query = query_of(messages, task=options.task)
        limits = AnswerLimits(config, shared=self.shared_state, clock=self.clock)
        turn = Turn.of(
            messages,
            request,
            session=_session(run_manager, options.session),
            sticky=options.sticky,
            pool=setup.pool,
            sessions=self.shared_state.sessions,
            now_s=self.clock(),
        )
        asks_more = not request.is_plain
        needing_tools = [name for name, model in setup.models.items() if asks_more and request.needs_tools(model)]
        eligible = eligible_of(setup.models, messages, tools=needing_tools, only=only).without(serving.left_out)
        pledge = self._pledge(options, query, eligible, limits)
        if pledge is not None and pledge.void is None:
            certified = pledge.certificate
            options = replace(options, max_team=certified.max_team, max_rounds=certified.max_rounds)
        return AnswerState(
            query,
            pool=setup.pool,
            policy=serving.policy,
            options=options,
            context=CallContext(
                parent=parent,
                ensemble_id=id(self),
                model_name=only or self.model_name,
                synthesizer=setup.synthesizer,
                stop=stop or self.stop,
                relay=relay,
                service=setup.service,
            ),
            request=request,
            eligible=eligible,
            repairs=repairs_of(messages),
            limits=limits,
            aim=self._aim(options, only, query),
            pledge=pledge,
            turn=turn,
            judging=None if setup.judge is None else Judging(setup.judge, query.text),
        )

    def _aim(self, options: CallOptions, only: str | None, query: Query) -> Aim | None:
        """Choose how a query within a target is answered; None where there is none, or one member is named."""
        if options.target is None or only is not None:
            return None
        controllers, setup = self.shared_state.controllers, self._setup
        return controllers.aim(setup.policy, options.target, setup.names, query=query.text, task=query.task)

    def _pledge(self, options: CallOptions, query: Query, eligible: Eligible, limits: AnswerLimits) -> Pledge | None:
        """Tell whether a promise holds for a query; None where there is none, or one member is named."""
        if options.promise is None or eligible.only is not None:
            return None
        setup = self._setup
        certificate = certificate_of(setup.policy, options.promise)
        asked_for = {name for name in ("max_team", "max_rounds") if name in self.model_fields_set}
        asked_for |= {name for name in ("max_team", "max_rounds") if getattr(options, name) != getattr(self, name)}
        too_few = any(getattr(options, name) < getattr(certificate, name) for name in asked_for)
        resting = [name for name in eligible.members if limits.is_breaker_open(name)]
        unfit = sorted(eligible.excluded)
        fallen = sorted(setup.serving.fallen)
        reasons = {
            other_pool(certificate, setup.pool.names): True,
            f"the score of {', '.join(fallen)} has fallen": bool(fallen),
            f"{', '.join(unfit)} cannot be asked this": bool(unfit),
            f"{', '.join(resting)} kept failing, and is left alone for a while": bool(resting),
            f"it was certified for {certificate.max_team} members in {certificate.max_rounds} rounds, and fewer may be asked": (
                too_few or options.min_candidates > certificate.max_team
            ),
            "a synthesizer may write the answer": setup.synthesizer is not None,
            "a judge may tell which answers are the same": setup.judge is not None,
        }
        return pledge_of(
            certificate,
            query,
            policy=setup.serving.policy,
            fingerprints=self.shared_state.fingerprints,
            void=next((reason for reason, holds in reasons.items() if reason and holds), None),
        )

    def _check_nesting(self) -> None:
        """Check that this call is not made, however indirectly, by this model itself, nor too deep within others.

        Raises:
            PoolError: It is.
        """
        enclosing = enclosing_ensembles()
        if id(self) in enclosing:
            raise PoolError(
                f"An ensemble must not be its own member, got {self.model_name} > ... > {self.model_name}. Take it out of one "
                "of them."
            )
        if (
            len(enclosing) >= MAX_NESTED
        ):  # copies of one ensemble that ask each other are as endless, and each is another
            raise PoolError(
                f"Ensembles must not be nested deeper than {MAX_NESTED}, and `{self.model_name}` is asked below "
                f"{len(enclosing)}. Look for one that a member leads back to."
            )


def _session(run_manager: _RunManager, named: Any) -> Session | None:
    """Find the session of a call; None where there is none, or its name is none, which is said later."""
    return session_of(named, None if run_manager is None else run_manager.metadata)


def _identifying(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return what of a call's arguments identifies its answer to caches and traces, which take no functions."""
    if not kwargs:
        return kwargs
    kept = {name: value for name, value in kwargs.items() if name not in {"retry_on", "session", "account"}}
    return kept if kept.get("answer_kind") is None else {**kept, "answer_kind": kind_id(kept["answer_kind"])}
