"""Execution: put one query to the selected members at once, and get the best out of members that are slow, flaky or dear.

The only package that waits on the network. A member that answers becomes a `Candidate`; one that does not becomes a
`Failure`. Both are values: nothing a member does can raise out of `ask_members`, so Fusion always sees the whole team.
Two things pass through, since they are no non-answers: the wish to stop the program, and LangGraph's control flow.

`rounds` decides when to ask, to ask again, to ask somebody else and to stop, and waits for nothing; `threads` and `tasks` do
what it says; `asking` is one call, `attempts` are a round's parts, `responses` puts a stream together. What `rounds` stands on: `errands` (what an answer
may take), `causes` and `retries` (which errors are worth another attempt, and when), `endings` (what a provider says of an
answer), `clients` (members that do not retry by themselves), `thinking` (nor think where they cannot), `limits`, `breakers`, `latencies`, `budgets`, `charges` and `tokens`. It does not compare answers
(`Candidate.answer` is None here).
"""

from langchain_rlfocal.execution.asking import (
    MAX_REASON_CHARS,
    MAX_TEXT_CHARS,
    Clock,
    MemberRequest,
    Role,
    RoundRequest,
    UnusableAnswerError,
    enclosing_ensembles,
    failure_of,
    usage_of,
)
from langchain_rlfocal.execution.attempts import Result
from langchain_rlfocal.execution.breakers import BreakerConfig, BreakerState
from langchain_rlfocal.execution.budgets import Budget, Usage
from langchain_rlfocal.execution.endings import blocks_of, ending_of, is_refusal, plain
from langchain_rlfocal.execution.errands import AnswerLimits, ExecutionConfig, SharedState
from langchain_rlfocal.execution.retries import RetryPolicy
from langchain_rlfocal.execution.rounds import IsDecided
from langchain_rlfocal.execution.tasks import aask_members, astream_round
from langchain_rlfocal.execution.threads import ask_members, stream_round
from langchain_rlfocal.execution.tokens import TOKEN_LIMITS, num_tokens, num_tokens_of_messages

__all__ = [
    "MAX_REASON_CHARS",
    "MAX_TEXT_CHARS",
    "TOKEN_LIMITS",
    "AnswerLimits",
    "BreakerConfig",
    "BreakerState",
    "Budget",
    "Clock",
    "ExecutionConfig",
    "IsDecided",
    "MemberRequest",
    "Result",
    "RetryPolicy",
    "Role",
    "RoundRequest",
    "SharedState",
    "UnusableAnswerError",
    "Usage",
    "aask_members",
    "ask_members",
    "astream_round",
    "blocks_of",
    "enclosing_ensembles",
    "ending_of",
    "failure_of",
    "is_refusal",
    "num_tokens",
    "num_tokens_of_messages",
    "plain",
    "stream_round",
    "usage_of",
]
