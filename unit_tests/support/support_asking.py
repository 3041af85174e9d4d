"""Ways to ask members without an ensemble around them; retries only where a test wants them."""

import time

from langchain_rlfocal.execution import (
    AnswerLimits,
    ExecutionConfig,
    RetryPolicy,
    RoundRequest,
    aask_members,
    ask_members,
    astream_round,
    stream_round,
)

CLOCK = time.perf_counter


def config_of(**fields):
    """ExecutionConfig without retries, unless they are given."""
    return ExecutionConfig(**{"retry": RetryPolicy(max_retries=0), **fields})


def limits_of(*, clock=CLOCK, shared=None, **fields):
    return AnswerLimits(config_of(**fields), shared=shared, clock=clock)


def _parts(messages, round_number, limits, clock, rest):
    own = {name: rest.pop(name) for name in ("config", "role", "prepare", "stop") if name in rest}
    request = RoundRequest(messages=messages, round_number=round_number, kwargs=rest, **own)
    return request, limits or limits_of(clock=clock)


def ask(members, messages, *, round_number=1, limits=None, clock=CLOCK, **rest):
    return ask_members(members, *_parts(messages, round_number, limits, clock, rest))


async def aask(members, messages, *, round_number=1, limits=None, clock=CLOCK, **rest):
    return await aask_members(members, *_parts(messages, round_number, limits, clock, rest))


def relay(member, messages, *, round_number=1, limits=None, clock=CLOCK, **rest):
    """Yield the member's text in pieces, and what came of it."""
    for item in stream_round([member], *_parts(messages, round_number, limits, clock, rest), relay=True):
        yield item if isinstance(item, str) else item[0]


async def arelay(member, messages, *, round_number=1, limits=None, clock=CLOCK, **rest):
    """Yield the member's text in pieces, and what came of it."""
    items = astream_round([member], *_parts(messages, round_number, limits, clock, rest))
    try:
        async for item in items:
            yield item if isinstance(item, str) else item[0]
    finally:
        await items.aclose()
