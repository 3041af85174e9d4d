"""Arguments: what a chat model's constructor makes of `members` and `policy`, and what it refuses.

Each check names the rule, the value and the way out. Nothing here is called while answering.
"""

import difflib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from langchain_core.language_models import BaseChatModel
from pydantic import SecretStr

from langchain_rlfocal.errors import CheckpointError, InputError, PoolError
from langchain_rlfocal.policies import Policy, RLFocalPolicy
from langchain_rlfocal.pool import MemberLike, ModelPool, PoolMember

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


def to_policy(value: Any) -> Policy | None:
    """Load a policy from a path; leave a policy, or None, as it is.

    Raises:
        CheckpointError: The checkpoint cannot be read.
        InputError: It is neither.
    """
    if isinstance(value, str | PathLike):
        return RLFocalPolicy.load(value)
    if value is None or (hasattr(value, "select") and hasattr(value, "fuse")):
        policy: Policy | None = value
        return policy
    raise InputError(
        f"`policy` must be the path of a checkpoint, a policy, or None, got {type(value).__name__}. "
        "None answers without training, by a vote."
    )


def check_known(pool: ModelPool, policy: Policy) -> None:
    """Check that a policy knows every member that it will decide about; it may know more.

    Raises:
        CheckpointError: It knows none of them.
        PoolError: It does not know one of them.
    """
    unknown = [name for name in pool.names if name not in policy.members]
    if not unknown:
        return
    known = ", ".join(policy.members)
    if len(unknown) == len(pool):
        raise CheckpointError(
            f"The policy `{policy.policy_id}` belongs to another pool: it knows none of {', '.join(unknown)}; it knows "
            f"{known}. Name the members as they were named in training, or train a policy on outcomes of this pool."
        )
    raise PoolError(
        f"The policy `{policy.policy_id}` must know every member of the pool; unknown: {', '.join(unknown)}; known: "
        f"{known}. Leave the unknown out, name them as in training, or train a policy on outcomes that include them."
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
    return {**shown, "_type": model._llm_type}  # noqa: SLF001  # as above
