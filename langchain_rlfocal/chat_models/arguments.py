"""Arguments: what the constructors and the calls of chat models take, and what they make of it."""

import dataclasses
import difflib
import hashlib
import re
import types
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from os import PathLike
from typing import Annotated, Any

from langchain_core.language_models import BaseChatModel
from pydantic import ConfigDict, Field, PlainValidator, SecretStr, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass as checked_dataclass

from langchain_rlfocal.answers import KindLike, to_kind
from langchain_rlfocal.chat_models.consensus import OnDisagreement
from langchain_rlfocal.chat_models.sessions import Sticky
from langchain_rlfocal.errors import CheckpointError, InputError, PoolError, RLFocalError
from langchain_rlfocal.execution import Account, Budget, ExecutionConfig, SharedState
from langchain_rlfocal.features import Embedder, load_embedder
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.policies import Policy, RLFocalPolicy
from langchain_rlfocal.policies.targets import TARGETS, Target, target_of
from langchain_rlfocal.pool import MemberLike, ModelPool, PoolMember
from langchain_rlfocal.redaction import printable, shown_values

_MAX_NAMES_CHARS = 2000
_MAX_DEPTH = 8

Members = Mapping[str, MemberLike] | Sequence[PoolMember] | ModelPool


@contextmanager
def own_errors() -> Generator[None]:
    """Raise the package's own errors where pydantic would wrap them, or would raise its own."""
    try:
        yield
    except ValidationError as error:
        details = error.errors()
        causes = [detail.get("ctx", {}).get("error") for detail in details]
        own = next((cause for cause in causes if isinstance(cause, RLFocalError)), None)
        if own is not None:
            raise own from own.__cause__
        name = str(next(iter(details[0]["loc"]), error.title))
        if details[0]["type"] == "missing":
            raise InputError(f"`{name}` must be given.") from error
        rules = [detail["msg"].removeprefix("Input ").removeprefix("Value error, ") for detail in details]
        rule = " or ".join(dict.fromkeys(rule.removeprefix("should ") for rule in rules))
        raise InputError(f"`{name}` must {rule}, got {details[0]['input']!r}.") from error


# ---- members, embedder, policy, judge


def to_pool(value: Any) -> ModelPool:
    """Make a pool of what a caller gives as `members`."""
    if isinstance(value, ModelPool):
        return value
    if isinstance(value, Mapping):
        return ModelPool.from_models(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ModelPool(value)
    raise PoolError(
        f"`members` must be a mapping of names to chat models, got {type(value).__name__}. "
        'Give for example {"small": ChatOpenAI(...), "local": ChatOllama(...)}.'
    )


def to_embedder(value: Any) -> Embedder | None:
    """Load an embedder by its name; leave an embedder, or None, as it is."""
    if isinstance(value, str):
        return load_embedder(value)
    if value is None or callable(getattr(value, "embed_documents", None)):
        embedder: Embedder | None = value
        return embedder
    raise InputError(
        f"`embeddings` must be a LangChain `Embeddings`, the name of an embedder, or None, got {type(value).__name__}. "
        'Give for example OpenAIEmbeddings(...), or "wordllama".'
    )


def to_policy(value: Any, info: ValidationInfo) -> Policy | None:
    """Load a policy from a path, with the model's `embeddings`; leave a policy, or None, as it is."""
    if isinstance(value, str | PathLike):
        embeddings = info.data.get("embeddings")
        try:
            return RLFocalPolicy.load(value, embedder=embeddings)
        except InputError as error:
            if embeddings is None:
                raise InputError(
                    f"The policy `{value}` must have the embedder that it was trained with, got none. Give the same one as "
                    '`embeddings=...`: a LangChain `Embeddings`, or a name such as "wordllama".'
                ) from error
            raise _superfluous(f"The policy `{value}` was trained without an embedder") from error
    if value is None or all(hasattr(value, name) for name in ("members", "select", "fuse")):
        policy: Policy | None = value
        return policy
    raise InputError(
        f"`policy` must be the path of a checkpoint, a policy, or None, got {type(value).__name__}. "
        "None answers without training, by a vote."
    )


def to_equivalence(value: Any) -> BaseChatModel | PoolMember | Embedder | None:
    """Make a chat model of the name of a judge; leave a chat model, a member, an embedder, or None, as it is."""
    if isinstance(value, str):
        return ModelPool.from_models({"equivalence": value})["equivalence"].model
    if value is None or isinstance(value, BaseChatModel | PoolMember):
        return value
    if callable(getattr(value, "embed_documents", None)):
        embedder: Embedder = value
        return embedder
    raise InputError(
        "`equivalence` must be a chat model, its name, a `PoolMember`, a LangChain `Embeddings`, or None, got "
        f"{type(value).__name__}. None leaves it to the rules: where they cannot tell, answers differ."
    )


def to_outcome_log(value: Any) -> OutcomeLog | None:
    """Open a log of outcomes by its path or URL; leave a log, or None, as it is."""
    if isinstance(value, str | PathLike):
        return OutcomeLog.at(value)
    if value is None or isinstance(value, OutcomeLog):
        return value
    raise InputError(
        f"`outcome_log` must be an `OutcomeLog`, the path or URL of one, or None, got {type(value).__name__}. None records nothing."
    )


def to_shared_state(value: Any) -> SharedState:
    """Connect to a server that keeps what models share, by its URL; leave a shared state as it is."""
    if isinstance(value, SharedState):
        return value
    if isinstance(value, str):
        return SharedState.at(value)
    raise InputError(
        f"`shared_state` must be a `SharedState`, or the URL of a Redis or Valkey server, got {type(value).__name__}. Give for "
        'example "redis://127.0.0.1:6379/0", or leave it out to share nothing with other processes.'
    )


def check_embeddings(policy: Policy, embeddings: Embedder | None) -> None:
    """Raise an `InputError` where a given embedder is not the one that the policy uses."""
    if embeddings is not None and embeddings is not getattr(policy, "embedder", None):
        raise _superfluous(f"The policy `{policy.policy_id}` has an embedder of its own, or needs none")


def _superfluous(reason: str) -> InputError:
    return InputError(f"{reason}, so `embeddings` must be None. Leave `embeddings` out.")


def check_known(pool: ModelPool, policy: Policy) -> None:
    """Check that a policy knows every member that it will decide about; it may know more.

    Raises:
        CheckpointError: It knows none of them.
        PoolError: It does not know one of them.
    """
    unknown = [name for name in pool.names if name not in policy.members]
    if not unknown:
        return
    known = printable(", ".join(policy.members)[:_MAX_NAMES_CHARS])  # a checkpoint may be a stranger's
    if len(unknown) == len(pool):
        raise CheckpointError(
            f"The policy `{policy.policy_id}` belongs to another pool: it knows none of {', '.join(unknown)}; it knows "
            f"{known}. Name the members as they were named in training, or train a policy on outcomes of this pool."
        )
    raise PoolError(
        f"The policy `{policy.policy_id}` must know every member of the pool; unknown: {', '.join(unknown)}; known: "
        f"{known}. Leave the unknown out, name them as in training, or train a policy on outcomes that include them."
    )


def check_priced(members: Iterable[PoolMember], config: ExecutionConfig, target: Target | None) -> None:
    """Raise an `InputError` where dollars are limited and a member has no price, since unknown is not zero."""
    limit = "`max_usd` limits a budget"
    if target is not None and target.unit == "usd":
        limit = f"`{target.name}` is given"
    elif all(budget.max_usd is None for budget in config.budgets):
        return
    unpriced = [m.name for m in members if m.input_usd_per_mtok is None or m.output_usd_per_mtok is None]
    if unpriced:
        raise InputError(
            f"Where {limit} every member must have prices, without: {', '.join(unpriced)}. Give "
            "PoolMember(name, model, input_usd_per_mtok=..., output_usd_per_mtok=...); 0 where it is free."
        )


# ---- the options of a call

RetryOn = Callable[[Exception], bool | None] | type[Exception] | tuple[type[Exception], ...]


def to_answer_kind(value: Any) -> KindLike:
    """Check a kind of answer; it stays as it is given."""
    to_kind(value)
    kind: KindLike = value
    return kind


def to_budget(value: Any) -> Budget:
    """Read a budget: one, its limits by name, or None for none."""
    if isinstance(value, Budget):
        return value
    limits = {} if value is None else value
    known = Budget.__dataclass_fields__
    if not isinstance(limits, Mapping) or not set(limits) <= set(known):
        raise InputError(f"A budget must be a `Budget`, or its limits by name ({', '.join(known)}), got {value!r}.")
    return Budget(**limits)


def to_account(value: Any) -> Account | None:
    """Check who pays; None for nobody else."""
    if value is None or isinstance(value, Account):
        return value
    raise InputError(f'`account` must be an `Account`, or None, got {value!r}. Give Account("name", Budget(...)).')


def to_retry_on(value: Any) -> RetryOn | None:
    """Check a retry rule of the user's."""
    classes = value if isinstance(value, tuple) else (value,)
    are_errors = all(isinstance(one, type) and issubclass(one, Exception) for one in classes)
    if value is None or are_errors or (callable(value) and not isinstance(value, type)):
        rule: RetryOn | None = value
        return rule
    raise InputError(
        "`retry_on` must be an exception class, a tuple of them, or a function that takes an exception and returns True, "
        f"False, or None to leave it to the built-in rule, got {value!r}."
    )


AnswerKind = Annotated[KindLike, PlainValidator(to_answer_kind)]
BudgetLike = Annotated[Budget | Mapping[str, float] | None, PlainValidator(to_budget)]
RetryRule = Annotated[RetryOn | None, PlainValidator(to_retry_on)]
Count = Annotated[int, Field(ge=1, strict=True)]
Natural = Annotated[int, Field(ge=0, strict=True)]
Flag = Annotated[bool, Field(strict=True)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Amount = Annotated[float, Field(strict=True)]  # `Target` checks it


@checked_dataclass(frozen=True, kw_only=True, config=ConfigDict(arbitrary_types_allowed=True))
class CallOptions:
    """What one call may set; the fields of the same names of `RLFocalChatModel` hold where it does not.

    Only `session` is no field, since it names one conversation: its caller's id of it; LangGraph's `thread_id` where it is not given.

    Raises:
        InputError: A value is outside its range.
    """

    max_team: Count
    max_rounds: Count
    cost_weight: Weight
    target_calls: Amount | None
    target_usd: Amount | None
    target_usd_share: Amount | None
    target_tokens: Amount | None
    target_seconds: Amount | None
    promise: str | None
    task: str | None
    answer_kind: AnswerKind
    min_candidates: Count
    synthesize_below: Share
    on_disagreement: OnDisagreement
    timeout: Seconds | None
    member_timeout_s: Seconds | None
    deadline_s: Seconds | None
    max_retries: Natural
    retry_on: RetryRule
    early_commit: Flag
    hedge: Flag
    budget_per_answer: BudgetLike
    account: Annotated[Account | None, PlainValidator(to_account)]
    explore: Share
    sticky: Sticky
    session: Annotated[str, Field(min_length=1, strict=True)] | None = None

    def __post_init__(self) -> None:
        if self.min_candidates > self.max_team:
            raise InputError(
                f"`min_candidates` must be at most `max_team` ({self.max_team}), got {self.min_candidates}: no more are asked."
            )

        target = target_of(self.__dict__)
        if target is not None and self.promise is not None:
            raise InputError(
                f"`promise` and `{target.name}` exclude each other: either decides what a query takes. Leave one out."
            )

    @cached_property
    def target(self) -> Target | None:
        """What a query may take on average; None leaves it to the cost weight."""
        return target_of(self.__dict__)

    def with_call(self, kwargs: dict[str, Any]) -> "CallOptions":
        """Take the options out of a call's arguments.

        Raises:
            InputError: A value is outside its range, or the call gives several of targets, promise and cost weight.
        """
        given = {name: kwargs.pop(name) for name in OPTION_NAMES if name in kwargs}
        if not given:
            return self
        if given.get("max_retries", 0) is None:  # so says a config that leaves it open
            del given["max_retries"]
        named = [name for name in (*TARGETS, "promise", "cost_weight") if given.get(name) is not None]
        if len(named) > 1:
            listed = " or ".join(f"`{name}`" for name in named)
            values = " and ".join(repr(given[name]) for name in named)
            raise InputError(
                f"A call, with what is bound to it, must give {listed}, got {'both' if len(named) == 2 else 'all'} ({values}): each "
                "decides what a query takes. Leave all but one out."
            )
        if named:
            given = {**dict.fromkeys((*TARGETS, "promise")), **given}
        with own_errors():
            return replace(self, **given)


OPTION_NAMES = tuple(field.name for field in dataclasses.fields(CallOptions))


def only_member(name: Any, pool: ModelPool, *, own_name: str) -> str | None:
    """Read a call's `model`: the one member that answers; None for the ensemble's own name, or where none is given.

    Raises:
        InputError: It is no member's name.
    """
    if name is None or name == own_name:
        return None
    if isinstance(name, str) and name in pool:
        return name
    raise InputError(
        f"A call's `model` must be the name of a member, who then answers alone, or `{own_name}`, got {name!r}; members: "
        f"{', '.join(pool.names)}."
    )


def warn_of_unknown(given: Iterable[str], *, known: Sequence[str], owner: str) -> None:
    """Warn of each argument that has no effect, which LangChain's models otherwise swallow silently."""
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            warnings.warn(
                f"`{name}` is not an argument of {owner} and has no effect. Did you mean `{nearest}`?",
                UserWarning,
                stacklevel=6,  # past pydantic and LangChain, to the line that constructs the model
            )


# ---- what identifies it to caches and traces


def identifying_params_of(model: BaseChatModel) -> dict[str, Any]:
    """Return what identifies a chat model to traces and caches, without what it says is secret."""
    secret = set(model.lc_secrets)
    params = model._identifying_params  # noqa: SLF001  # LangChain's protected interface between chat models
    shown = {k: v for k, v in params.items() if k not in secret and not isinstance(v, SecretStr)}
    return {**shown_values(shown), "_type": model._llm_type}  # noqa: SLF001  # as above


def kind_id(kind: KindLike) -> str:
    """Identify a kind of answer, the same in every process: by its name, or by that of its function or class and what it holds.

    A function holds its code, its defaults and what it closes over; an object its `name`, and a dataclass its fields.
    """
    if isinstance(kind, str):
        return kind
    home: Any = kind if hasattr(kind, "__qualname__") else type(kind)
    digest = hashlib.blake2b(_contents(kind, 0).encode("utf-8", "replace"), digest_size=6).hexdigest()
    return f"{getattr(home, '__module__', None)}.{home.__qualname__}-{digest}"


def _contents(value: Any, depth: int) -> str:
    """Describe what a kind holds, without addresses and without the order of hashes."""
    if depth > _MAX_DEPTH:  # a function may close over itself
        return ""
    parts: list[Any] = []
    if isinstance(value, types.FunctionType):
        code, cells = value.__code__, value.__closure__ or ()
        held = [cell.cell_contents for cell in cells if cell != types.CellType()]
        parts = [code, *held, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    elif isinstance(value, types.CodeType):
        parts = [value.co_code, *value.co_consts, *value.co_names]
    elif isinstance(value, types.MethodType):
        parts = [value.__func__, value.__self__]
    elif isinstance(value, partial):
        parts = [value.func, *value.args, *sorted(value.keywords.items())]
    elif isinstance(value, tuple | frozenset):
        parts = sorted(value, key=repr) if isinstance(value, frozenset) else [*value]
    elif value is None or isinstance(value, str | bytes | int | float | re.Pattern):
        return repr(value)
    else:
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        parts = [type(value).__qualname__, getattr(value, "name", None), *(getattr(value, f.name) for f in fields)]
    return f"[{', '.join(_contents(part, depth + 1) for part in parts)}]"


def cycle_in(model: BaseChatModel) -> list[str] | None:
    """Find an ensemble that is among what it asks itself: the names on the way back to it; None where there is none."""
    harmless: set[int] = set()  # an ensemble may be asked by many

    def walk(at: Any, names: list[str], above: set[int]) -> list[str] | None:
        at = at.model if isinstance(at, PoolMember) else at
        pool = getattr(at, "members", None)
        if id(at) in above:
            return names
        if not isinstance(pool, ModelPool) or id(at) in harmless:
            return None
        roles = {role: getattr(at, role, None) for role in ("synthesizer", "equivalence")}
        below: dict[str, Any] = {**{member.name: member for member in pool}, **roles}
        paths = (walk(each, [*names, name], above | {id(at)}) for name, each in below.items())
        found = next((path for path in paths if path is not None), None)
        harmless.update([id(at)] if found is None else [])
        return found

    return walk(model, [str(getattr(model, "model_name", "ensemble"))], set())
