"""Arguments: what a chat model's constructor makes of `members`, `embeddings` and `policy`, and what it refuses.

Each check names the rule, the value and the way out. While answering only what a call says of its costs is read.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import re
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr, ValidationError, ValidationInfo

from langchain_rlfocal.answers import KindLike, to_kind
from langchain_rlfocal.chat_models.equivalence import Judge, Judgements, LikenessChatModel
from langchain_rlfocal.embedders import load_embedder
from langchain_rlfocal.errors import CheckpointError, InputError, PoolError, RLFocalError
from langchain_rlfocal.features import Embedder
from langchain_rlfocal.policies import Policy, RLFocalPolicy
from langchain_rlfocal.pool import MemberLike, ModelPool, PoolMember
from langchain_rlfocal.redaction import printable, shown_values

_MAX_DEPTH = 8

_EMBEDDER_NAMES = ("name", "model", "model_name", "model_id", "deployment", "dimensions", "size")
"""Under these names embedders say which they are."""

_MAX_NAME_CHARS = 80
_MAX_NAMES_CHARS = 2000

Members = Mapping[str, MemberLike] | Sequence[PoolMember] | ModelPool


def to_pool(value: Any) -> ModelPool:
    """Make a pool of what a caller gives as `members`.

    Raises:
        PoolError: It is no mapping or sequence of members, or they are no pool.
        MissingDependencyError: A member given as a string needs a package that is not installed.
    """
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
    """Load an embedder by its name; leave an embedder, or None, as it is.

    Raises:
        InputError: It is neither, or the name names none.
        MissingDependencyError: The named embedder needs a package that is not installed.
    """
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
    """Load a policy from a path, with the model's `embeddings`; leave a policy, or None, as it is.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        InputError: It is neither, or was trained with an embedder and there is none, or the other way round.
    """
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
    if value is None or (hasattr(value, "select") and hasattr(value, "fuse")):
        policy: Policy | None = value
        return policy
    raise InputError(
        f"`policy` must be the path of a checkpoint, a policy, or None, got {type(value).__name__}. "
        "None answers without training, by a vote."
    )


def to_answer_kind(value: Any) -> KindLike:
    """Check a kind of answer; it stays as it is given.

    Raises:
        InputError: It is no name of a kind, no `Kind` and no function.
    """
    to_kind(value)
    kind: KindLike = value
    return kind


def kind_facts(kind: KindLike) -> str:
    """Name a kind of answer for caches and traces: by its name, or by where its function or class stands.

    Of a function its code counts too, and the plain values that it holds, so that two lambdas of a module are two kinds; of an
    object its `name` and, where it is a dataclass, its plain fields.
    """
    if isinstance(kind, str):
        return kind
    home: Any = kind if hasattr(kind, "__qualname__") else type(kind)
    digest = hashlib.blake2b(repr(_plain_facts(kind)).encode("utf-8", "replace"), digest_size=6).hexdigest()
    return f"{getattr(home, '__module__', None)}.{home.__qualname__}-{digest}"


def _plain_facts(value: Any, depth: int = 0) -> Any:
    """Say what a value is, the same in every process: by no address, no order of hashes, and nothing that counts or grows."""
    if value is None or isinstance(value, str | int | float | bytes):
        return value
    if depth > _MAX_DEPTH:
        return None

    def inner(parts: Iterable[Any]) -> list[Any]:
        return [_plain_facts(part, depth + 1) for part in parts]

    if isinstance(value, tuple):
        return inner(value)
    if isinstance(value, frozenset):
        return sorted(map(repr, inner(value)))
    if isinstance(value, re.Pattern):
        return [value.pattern, value.flags]
    if isinstance(value, types.CodeType):
        return [value.co_code, *inner(value.co_consts), *value.co_names]
    if isinstance(value, types.FunctionType):
        held = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
        return inner([value.__code__, *held, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()])
    if isinstance(value, types.MethodType):
        return inner([value.__func__, value.__self__])
    if isinstance(value, partial):
        return inner([value.func, *value.args, *sorted(value.keywords.items())])
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    home = f"{type(value).__module__}.{type(value).__qualname__}"
    return [home, *inner(getattr(value, name, None) for name in ("name", *(field.name for field in fields)))]


def to_equivalence(value: Any) -> BaseChatModel | PoolMember | Embedder | None:
    """Make a judge of what a caller gives as `equivalence`: a name becomes a chat model.

    Raises:
        InputError: It is no chat model, no member, no embedder and no name.
        PoolError: The name names no model that can be made.
        MissingDependencyError: A name needs a package that is not installed.
    """
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


def judge_of(given: BaseChatModel | PoolMember | Embedder, *, threshold: float, known: Judgements) -> Judge:
    """Make the judge that is asked.

    Args:
        given: A chat model, with prices or without, or an embedder.
        threshold: Cosine from which two texts are the same to an embedder.
        known: What judges said before.
    """
    facts = json.dumps(equivalence_facts(given, threshold=threshold), sort_keys=True, default=str)
    member = judging_member(given, threshold=threshold)
    return Judge(member, facts, by_likeness=not isinstance(given, BaseChatModel | PoolMember), known=known)


def judging_member(given: BaseChatModel | PoolMember | Embedder, *, threshold: float) -> PoolMember:
    """Return the judge as a member, with the prices that it is given with; see `judge_of`."""
    if isinstance(given, PoolMember):
        return given
    if isinstance(given, BaseChatModel):
        return PoolMember("equivalence", given)
    model = LikenessChatModel(embedder=given, threshold=threshold, cache=False)
    # What an embedding costs nobody says; it counts as a call, and in seconds.
    return PoolMember("equivalence", model, input_usd_per_mtok=0.0, output_usd_per_mtok=0.0)


def equivalence_facts(
    given: BaseChatModel | PoolMember | Embedder | None, *, threshold: float
) -> dict[str, Any] | None:
    """Return what identifies a judge to traces and caches, without what it says is secret."""
    if given is None:
        return None
    if isinstance(given, BaseChatModel | PoolMember):
        return identifying_params_of(given.model if isinstance(given, PoolMember) else given)
    said = {name: getattr(given, name, None) for name in _EMBEDDER_NAMES}
    named = {name: value for name, value in said.items() if isinstance(value, str | int)}
    kind = f"{type(given).__module__}.{type(given).__qualname__}"
    return {**shown_values(named), "_type": kind, "threshold": threshold}


def check_embeddings(policy: Policy, embeddings: Embedder | None) -> None:
    """Check that a given embedder is the one that the policy uses.

    Raises:
        InputError: It is not: the policy has another, or uses none.
    """
    if embeddings is None or embeddings is getattr(policy, "embedder", None):
        return
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
    # Their names are a checkpoint's, which may be a stranger's.
    known = printable(", ".join(name[:_MAX_NAME_CHARS] for name in policy.members))
    known = known if len(known) <= _MAX_NAMES_CHARS else f"{known[:_MAX_NAMES_CHARS]}…"
    if len(unknown) == len(pool):
        raise CheckpointError(
            f"The policy `{policy.policy_id}` belongs to another pool: it knows none of {', '.join(unknown)}; it knows "
            f"{known}. Name the members as they were named in training, or train a policy on outcomes of this pool."
        )
    raise PoolError(
        f"The policy `{policy.policy_id}` must know every member of the pool; unknown: {', '.join(unknown)}; known: "
        f"{known}. Leave the unknown out, name them as in training, or train a policy on outcomes that include them."
    )


def target_of(given: dict[str, Any], *, default: float | None) -> float | None:
    """Take the target of mean calls out of a call's arguments; one that gives a cost weight itself has none.

    Raises:
        InputError: The call gives both.
    """
    if "target_calls" not in given:
        return None if "cost_weight" in given else default
    target: float | None = given.pop("target_calls")
    if target is not None and "cost_weight" in given:
        raise InputError(
            f"A call must give `target_calls` or `cost_weight`, got both ({target!r} and {given['cost_weight']!r}): the "
            "first chooses the second. Leave one out."
        )
    return target


def cost_weight_for(target: float, policy: Policy) -> float:
    """Choose the cost weight at which a policy asks so many members on average; see `RLFocalPolicy.cost_weight_for`.

    Raises:
        InputError: The target is no finite number of at least 1, or the policy has no curve to choose from.
    """
    if isinstance(target, bool) or not isinstance(target, int | float) or not 1 <= target < math.inf:
        raise InputError(f"`target_calls` must be a finite number of at least 1, got {target!r}. One member is a team.")
    choose: Callable[[float], float] | None = getattr(policy, "cost_weight_for", None)
    if choose is None:
        raise InputError(
            f"`target_calls` needs a trained policy, which knows what each cost weight leads to; `{policy.policy_id}` is "
            "none. Train a policy, or bound the calls by `max_team`."
        )
    return choose(target)


class RaisesOwnErrors:
    """A pydantic class whose constructor raises the package's own errors, as documented, and not what pydantic makes of them."""

    if not TYPE_CHECKING:  # type checkers read the constructor's arguments off the fields

        def __init__(self, **kwargs: Any) -> None:
            try:
                super().__init__(**kwargs)
            except ValidationError as error:
                causes = [detail.get("ctx", {}).get("error") for detail in error.errors()]
                own = next((cause for cause in causes if isinstance(cause, RLFocalError)), None)
                if own is None:
                    raise
                raise own from own.__cause__


def only_member(name: Any, pool: ModelPool, *, own_name: str) -> str | None:
    """Read a call's `model`: the one member that shall answer; None for the ensemble's own name, or where none is given.

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
                f"`{name}` is no argument of {owner} and has no effect. Did you mean `{nearest}`?",
                UserWarning,
                stacklevel=6,  # past pydantic and LangChain, to the line that constructs the model
            )


def identifying_params_of(model: BaseChatModel) -> dict[str, Any]:
    """Return what identifies a chat model to traces and caches, without what it says is secret."""
    secret = set(model.lc_secrets)
    params = model._identifying_params  # noqa: SLF001  # LangChain's protected interface between chat models
    shown = {k: v for k, v in params.items() if k not in secret and not isinstance(v, SecretStr)}
    return {**shown_values(shown), "_type": model._llm_type}  # noqa: SLF001  # as above


def cycle_in(model: BaseChatModel) -> list[str] | None:
    """Find an ensemble that is among what it asks itself.

    Returns:
        Names on the way from the ensemble back to it; None where there is no such way.
    """
    harmless: set[int] = set()  # what was walked through: an ensemble may be asked by many

    def walk(at: BaseChatModel, names: list[str], above: set[int]) -> list[str] | None:
        pool = getattr(at, "members", None)
        if id(at) in above:
            return names
        if not isinstance(pool, ModelPool) or id(at) in harmless:
            return None
        below = {member.name: member.model for member in pool}
        for role in ("synthesizer", "equivalence"):
            other = getattr(at, role, None)
            other = other.model if isinstance(other, PoolMember) else other
            if isinstance(other, BaseChatModel):
                below[role] = other
        found = (walk(each, [*names, name], above | {id(at)}) for name, each in below.items())
        path = next((path for path in found if path is not None), None)
        if path is None:
            harmless.add(id(at))
        return path

    return walk(model, [str(getattr(model, "model_name", "ensemble"))], set())
