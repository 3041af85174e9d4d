"""Charges: what an attempt can cost at most, and what it has cost.

What a provider reports is believed; what it does not report is counted or estimated; what nobody can know (a call cut off on
its way) is charged as the most that it can be. Only a provider's own refusal, or a connection that was never made, is free.
"""

from collections.abc import Sequence

from langchain_rlfocal.execution.asking import Call, UnusableAnswerError, usage_of
from langchain_rlfocal.execution.budgets import Budget, Usage
from langchain_rlfocal.execution.causes import may_have_cost
from langchain_rlfocal.execution.tokens import output_bound, prompt_tokens, response_tokens
from langchain_rlfocal.records import Candidate, Failure


def bound_of(call: Call, *, limit_s: float, budgets: Sequence[Budget]) -> Usage:
    """Say what an attempt can cost at most; its tokens are counted only where a budget limits them."""
    if not _limit_tokens(budgets):
        return Usage(calls=1, seconds=limit_s)
    return _priced(call, _tokens_asked(call), output_bound(call.member.model, call.brief.kwargs), seconds=limit_s)


def _limit_tokens(budgets: Sequence[Budget]) -> bool:
    return any(budget.max_tokens is not None or budget.max_usd is not None for budget in budgets)


def cost_of(
    call: Call, result: Candidate | Failure, *, bound: Usage, seconds: float, budgets: Sequence[Budget] = ()
) -> Usage:
    """Say what an attempt has cost.

    Args:
        call: The attempt, which has begun.
        result: What came of it.
        bound: What it can have cost at most.
        seconds: How long it took.
        budgets: What limits it; where none limits tokens, nobody is told that they are estimates.
    """
    if isinstance(result, Candidate):
        message = result.message
    elif isinstance(result.error, UnusableAnswerError) and result.error.message is not None:
        message = result.error.message
    elif result.error is not None and not may_have_cost(result.error, call.arguments):
        return Usage(calls=1, seconds=seconds)
    else:
        return Usage(calls=1, tokens=bound.tokens, usd=bound.usd, seconds=seconds)
    usage = usage_of(message)
    if usage is not None:
        return _priced(call, usage["input_tokens"], usage["output_tokens"], seconds=seconds)
    warns = _limit_tokens(budgets)
    answered = response_tokens(message, call.member.model, warns=warns)
    return _priced(call, _tokens_asked(call, warns=warns), answered, seconds=seconds)


def _priced(call: Call, asked: int, answered: int, *, seconds: float) -> Usage:
    """Price tokens; a member without prices costs nothing here, and is refused where a budget limits dollars."""
    usd = call.member.cost_usd(prompt_tokens=asked, completion_tokens=answered)
    return Usage(calls=1, tokens=asked + answered, usd=usd or 0.0, seconds=seconds)


def _tokens_asked(call: Call, *, warns: bool = True) -> int:
    return prompt_tokens(call.brief.messages, call.arguments, call.member.model, warns=warns)
