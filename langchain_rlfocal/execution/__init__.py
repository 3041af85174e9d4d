"""Execution: put one query to the selected members at once, and get the best out of members that are slow, flaky or dear.

The only package that waits on the network. A member that answers becomes a `Candidate`; one that does not becomes a
`Failure`. Both are values: nothing a member does can raise out of `ask_members`, so Fusion always sees the whole team. Two
things pass through, since they are no non-answers: the wish to stop the program, and LangGraph's control flow.

    drivers   threads and tasks, which do what a round says
    rounds    when to ask, ask again, ask somebody else and stop: a state machine without I/O
    calls     one attempt: what is asked, and what comes of it
    endings   how a response ended: whole, cut off, withheld or refused
    clients   the member's model without retries of its own
    config    what an answer may take
    sharing   what answers share
    store     what they share in several processes
    retries   which errors are worth another attempt, and when
    sessions  what members' providers hold of a conversation in their caches
    budgets   what calls may cost, and their tokens
    limits    calls at once and over time, circuit breakers, usual latencies, overload

It does not compare answers (`Candidate.answer` is None here).
"""

from langchain_rlfocal.execution.budgets import TOKEN_LIMITS, Account, Budget, Usage, num_tokens, num_tokens_of_messages
from langchain_rlfocal.execution.calls import (
    MAX_REASON_CHARS,
    MAX_TEXT_CHARS,
    MemberRequest,
    Result,
    Role,
    RoundRequest,
    UnusableAnswerError,
    cached_tokens_of,
    enclosing_ensembles,
    failure_of,
    message_of,
    read_from_cache,
    usage_of,
    written_to_cache,
)
from langchain_rlfocal.execution.config import AnswerLimits, ExecutionConfig
from langchain_rlfocal.execution.drivers import aask_members, ask_members, astream_round, stream_round
from langchain_rlfocal.execution.endings import blocks_of, ending_of, is_refusal, plain
from langchain_rlfocal.execution.limits import BreakerConfig, BreakerState, Shared
from langchain_rlfocal.execution.retries import RetryPolicy
from langchain_rlfocal.execution.rounds import IsDecided
from langchain_rlfocal.execution.sessions import Expected, Prompt, Session, Sessions
from langchain_rlfocal.execution.sharing import Clock, Fingerprints, SharedState, StoreStatus

__all__ = [
    "MAX_REASON_CHARS",
    "MAX_TEXT_CHARS",
    "TOKEN_LIMITS",
    "Account",
    "AnswerLimits",
    "BreakerConfig",
    "BreakerState",
    "Budget",
    "Clock",
    "ExecutionConfig",
    "Expected",
    "Fingerprints",
    "IsDecided",
    "MemberRequest",
    "Prompt",
    "Result",
    "RetryPolicy",
    "Role",
    "RoundRequest",
    "Session",
    "Sessions",
    "Shared",
    "SharedState",
    "StoreStatus",
    "UnusableAnswerError",
    "Usage",
    "aask_members",
    "ask_members",
    "astream_round",
    "blocks_of",
    "cached_tokens_of",
    "enclosing_ensembles",
    "ending_of",
    "failure_of",
    "is_refusal",
    "message_of",
    "num_tokens",
    "num_tokens_of_messages",
    "plain",
    "read_from_cache",
    "stream_round",
    "usage_of",
    "written_to_cache",
]
