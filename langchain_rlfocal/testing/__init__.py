"""Doubles for tests of what is built on the package: no network, no key, no clock, no chance."""

from langchain_rlfocal.testing.doubles import (
    Asked,
    CachingChatModel,
    FailingChatModel,
    JudgingChatModel,
    ScriptedChatModel,
    ScriptedPolicy,
    make_outcomes,
)

__all__ = [
    "Asked",
    "CachingChatModel",
    "FailingChatModel",
    "JudgingChatModel",
    "ScriptedChatModel",
    "ScriptedPolicy",
    "make_outcomes",
]
