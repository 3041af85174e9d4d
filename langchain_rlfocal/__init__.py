"""RL-Focal for LangChain: a learned team of chat models per query, and a learned fusion of their answers.

Names load on first use (PEP 562), so that importing the package is quick and never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from langchain_rlfocal._version import __version__

if TYPE_CHECKING:
    from langchain_rlfocal.chat_models import RLFocalChatModel, RLFocalDecider
    from langchain_rlfocal.errors import (
        BudgetError,
        CertificationError,
        CheckpointError,
        DeadlineError,
        DisagreementError,
        EnsembleError,
        FeedbackError,
        InputError,
        MissingDependencyError,
        OutcomeError,
        OutcomeLogError,
        OverloadError,
        PoolError,
        RLFocalError,
        WorkerError,
    )
    from langchain_rlfocal.execution import Account, Budget, SharedState
    from langchain_rlfocal.log import OutcomeLog
    from langchain_rlfocal.policies import RLFocalPolicy
    from langchain_rlfocal.pool import ModelPool, PoolMember

__all__ = [
    "Account",
    "Budget",
    "BudgetError",
    "CertificationError",
    "CheckpointError",
    "DeadlineError",
    "DisagreementError",
    "EnsembleError",
    "FeedbackError",
    "InputError",
    "MissingDependencyError",
    "ModelPool",
    "OutcomeError",
    "OutcomeLog",
    "OutcomeLogError",
    "OverloadError",
    "PoolError",
    "PoolMember",
    "RLFocalChatModel",
    "RLFocalDecider",
    "RLFocalError",
    "RLFocalPolicy",
    "SharedState",
    "WorkerError",
    "__version__",
]

_HOMES = {
    "Account": "execution",
    "Budget": "execution",
    "ModelPool": "pool",
    "OutcomeLog": "log",
    "PoolMember": "pool",
    "RLFocalChatModel": "chat_models",
    "RLFocalDecider": "chat_models",
    "RLFocalPolicy": "policies",
    "SharedState": "execution",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module on first use."""
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
