"""The Decider as LangChain's decision model: which one member should answer this.

`RLFocalDecider` answers `Choice` questions whose options are members, so that it can steer LangChain's
`ModelRouterMiddleware`. It asks no member and fuses nothing: a team, rounds and Fusion are `RLFocalChatModel`'s. It reads
the query, not the options' descriptions, and answers no other kind of question.

Decision models came with langchain-core 1.8. With an older one this module can be imported, but nothing made from it.
"""

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from os import PathLike
from typing import TYPE_CHECKING, Annotated, Any, Self

from langchain_core.messages import BaseMessage, HumanMessage
from pydantic import ConfigDict, Field, PlainValidator, model_validator

from langchain_rlfocal.chat_models.answering import query_of
from langchain_rlfocal.chat_models.arguments import (
    Members,
    Weight,
    check_embeddings,
    check_known,
    own_errors,
    to_embedder,
    to_policy,
    to_pool,
    warn_of_unknown,
)
from langchain_rlfocal.errors import InputError, MissingDependencyError, PoolError
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.policies import Policy, PriorPolicy
from langchain_rlfocal.pool import ModelPool
from langchain_rlfocal.records import Query, Selection

if TYPE_CHECKING or find_spec("langchain_core.decisions") is not None:
    from langchain_core.decisions import (  # type: ignore[import-not-found, unused-ignore]  # core before 1.8
        BaseDecisionModel,
        Choice,
        ChoiceAnswer,
        ClassifierResponse,
        Question,
        State,
    )
else:

    class BaseDecisionModel:
        """Stands where langchain-core has no decision models, and says what to do about it."""

        def __init__(self, **_: Any) -> None:
            raise MissingDependencyError(
                "`RLFocalDecider` needs LangChain's decision models, which this langchain-core does not have: "
                '`pip install -U "langchain-core>=1.8"`. `RLFocalChatModel` with `max_team=1` routes without them.'
            )


def _to_members(value: Any) -> ModelPool | tuple[str, ...]:
    """Make a pool of what a caller gives as `members`; leave names as they are."""
    are_names = isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(n, str) for n in value)
    if not are_names or not value:
        return to_pool(value)
    twice = next((name for name in value if value.count(name) > 1), None)
    if twice is not None:
        raise PoolError(f"`members` must name each member once, got `{twice}` twice. Leave one out.")
    return tuple(value)


class RLFocalDecider(BaseDecisionModel):  # type: ignore[misc, unused-ignore]  # as above
    """Chooses the one member that should answer a query.

    A `ChoiceAnswer`'s `choice` is the member that the policy's Decider selects when it may ask one member, once.
    `probabilities` are the Decider's, over the options of the question, and sum to 1; `confidence` is that of the choice.
    They say how sure the Decider is of its choice, not how sure it is that the answer will be right. Without training it
    always chooses the member of the highest declared competence, with a probability of 1.

    Example:
        ```python
        from langchain.agents import create_agent
        from langchain_rlfocal import RLFocalDecider

        decider = RLFocalDecider(members={"small": small, "large": large}, policy="path/to/checkpoint")
        agent = create_agent(small, tools=[...], middleware=[decider.as_middleware()])
        ```

    Raises:
        MissingDependencyError: langchain-core is older than 1.8, or a member or an embedder given as a string needs a
            package that is not installed.
        PoolError: There is no member, a name is there twice, or the policy does not know one.
        CheckpointError: The policy's checkpoint cannot be read, or belongs to another pool.
        InputError: An argument is outside its range, or the policy needs something that is not there.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    members: Annotated[Members | Sequence[str], PlainValidator(_to_members)]
    """The members that can be chosen, as `RLFocalChatModel` takes them; or their names alone, where the models are kept
    elsewhere. A question may offer some of them."""

    embeddings: Annotated[Embedder | str | None, PlainValidator(to_embedder)] = Field(default=None, repr=False)
    """The embedder that a policy given as a path was trained with; see `RLFocalChatModel.embeddings`."""

    policy: Annotated[Policy | str | PathLike[str] | None, PlainValidator(to_policy)] = None
    """A trained policy, or the path of its checkpoint; None takes members' declared competences at their word."""

    cost_weight: Weight = 0.1
    """What asking the whole pool once is worth, in units of score; a trained Decider weighs members' prices by it."""

    task: str | None = None
    """Task label of the queries, such as `"mmlu_pro/law"`, where it is known."""

    model: str = "rlfocal"
    """The Decider's name in traces. A response bears the policy's id."""

    if not TYPE_CHECKING:  # type checkers read the constructor's arguments off the fields

        def __init__(self, **kwargs: Any) -> None:
            with own_errors():
                super().__init__(**kwargs)

    @model_validator(mode="before")
    @classmethod
    def _warn_of_unknown_arguments(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            warn_of_unknown(map(str, values), known=[*cls.model_fields], owner=cls.__name__)
        return values

    @model_validator(mode="after")
    def _check_rlfocal(self) -> Self:
        policy = self._decider
        if isinstance(self.members, ModelPool):
            check_known(self.members, policy)
        else:
            _check_names(self._names, policy.members, what="`members`")
        assert not isinstance(self.embeddings, str), "names are loaded on validation"
        check_embeddings(policy, self.embeddings)
        return self

    @property
    def _names(self) -> tuple[str, ...]:
        if isinstance(self.members, ModelPool):
            return self.members.names
        assert isinstance(self.members, tuple), "members become a pool or names on validation"
        return self.members

    @property
    def _decider(self) -> Policy:
        """The policy that decides: the given one, or the prior."""
        if self.policy is None:
            pool = self.members if isinstance(self.members, ModelPool) else ()
            return PriorPolicy(self._names, {member.name: member.competence for member in pool})
        assert not isinstance(self.policy, str | PathLike), "paths are loaded on validation"
        return self.policy

    @property
    def _provider(self) -> str:
        return "rlfocal"

    def as_middleware(self) -> Any:
        """Make the middleware that has an agent's runs answered by the member that the Decider chooses.

        It chooses once a run, by the latest human message; the answer is in the agent's state as `model_route`.

        Returns:
            A `ModelRouterMiddleware` among the members, which LangChain declares to be in beta.

        Raises:
            MissingDependencyError: langchain is not installed, or older than 1.5.
            InputError: The members are names alone.
        """
        if not isinstance(self.members, ModelPool):
            raise InputError(
                f"`as_middleware` needs members with their models, got names: {', '.join(self._names)}. Give chat models as "
                "`members`, or make the ModelRouterMiddleware yourself and give this as its `classifier`."
            )
        try:
            routing: Any = importlib.import_module("langchain.agents.middleware.model_router")
        except ImportError as error:
            raise MissingDependencyError(
                '`as_middleware` needs LangChain\'s ModelRouterMiddleware: `pip install -U "langchain>=1.5"`.'
            ) from error
        return routing.ModelRouterMiddleware(
            choices={member.name: routing.ModelChoice(model=member.model, criteria=None) for member in self.members},
            instructions="Choose the member that should answer.",
            classifier=self,
        )

    def _classify(self, state: "State", questions: "dict[str, Question]") -> "ClassifierResponse":
        if not questions:
            raise InputError(
                "At least one question must be asked, got none. Give for example "
                '{"route": Choice(instructions="Who should answer?", criteria={"small": None, "large": None})}.'
            )
        query = query_of_state(state, task=self.task)
        answers: dict[str, Any] = {n: self._choose(query, question, name=n) for n, question in questions.items()}
        return ClassifierResponse(model=self._decider.policy_id, answers=answers)

    def _choose(self, query: Query, question: "Question", *, name: str) -> "ChoiceAnswer":
        if not isinstance(question, Choice):
            raise InputError(
                f"A question to the Decider must be a Choice among members, got {type(question).__name__} as `{name}`. "
                "Ask another decision model."
            )
        offered = [*question.criteria]
        _check_names(offered, self._names, what=f"The options of `{name}`")
        available = [member for member in self._names if member in question.criteria]
        choice, shares = choose_member(
            self._decider, query, offered, available=available, cost_weight=self.cost_weight, name=name
        )
        return ChoiceAnswer(type="choice", choice=choice, probabilities=shares, confidence=shares[choice])


def choose_member(
    policy: Policy, query: Query, offered: Sequence[str], *, available: Sequence[str], cost_weight: float, name: str
) -> tuple[str, dict[str, float]]:
    """Let a policy's Decider choose the one member that should answer.

    Args:
        policy: Its Decider chooses.
        query: What should be answered.
        offered: The options, all of them members that the policy knows.
        available: Those that can be asked, in the pool's order.
        cost_weight: What asking the whole pool once is worth, in units of score.
        name: The question's name, for errors.

    Returns:
        The choice, and the probability of each option.

    Raises:
        InputError: The policy selects none of the options.
    """
    selection = policy.select(
        query, [], [], available=available, round_number=1, max_rounds=1, max_team=1, cost_weight=cost_weight
    )
    choice = next((member for member in selection.members if member in offered), None)
    if choice is None:
        raise InputError(
            f"A policy must select one of the options of `{name}` ({', '.join(offered)}), `{policy.policy_id}` "
            f"selected {', '.join(selection.members) or 'nobody'}. Mend its `select`, or take another policy."
        )
    return choice, _shares(selection, offered)


def query_of_state(state: Any, *, task: str | None) -> Query:
    """Make the query of a state: see `answering.query_of` where messages are anywhere in it, else its text, or its JSON."""
    messages = [*_messages_in(state)]
    if not messages:
        text = state if isinstance(state, str) else json.dumps(state, ensure_ascii=False, default=str)
        messages = [HumanMessage(text)]
    return query_of(messages, task=task)


def _messages_in(state: Any) -> Iterator[BaseMessage]:
    """Find the messages in a state, at any depth, in their order."""
    if isinstance(state, BaseMessage):
        yield state
    elif isinstance(state, Mapping | Sequence) and not isinstance(state, str):
        for value in state.values() if isinstance(state, Mapping) else state:
            yield from _messages_in(value)


def _shares(selection: Selection, options: Sequence[str]) -> dict[str, float]:
    """Return the options' probabilities, which then sum to 1 also where rounding or a policy of one's own has them not.

    All are 0 where the policy gives none.
    """
    given = {name: selection.probabilities.get(name, 0.0) for name in options}
    total = sum(given.values()) or 1.0
    return {name: probability / total for name, probability in given.items()}


def _check_names(names: Sequence[str], known: Sequence[str], *, what: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        raise PoolError(
            f"{what} must be members that the Decider knows; unknown: {', '.join(unknown)}; known: {', '.join(known)}. "
            "Name them as the members were named in training, or leave them out."
        )
