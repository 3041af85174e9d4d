"""Ways to ask members without an ensemble around them; retries only where a test wants them."""

import time

from langchain_rlfocal.execution import (
    Errand,
    Inquiry,
    RetryRule,
    Terms,
    aask_members,
    ask_members,
    astream_round,
    stream_round,
)

CLOCK = time.perf_counter


def terms_of(**fields):
    """Terms without retries, unless they are given."""
    return Terms(**{"retry": RetryRule(max_retries=0), **fields})


def errand_of(*, clock=CLOCK, runtime=None, **fields):
    return Errand(terms_of(**fields), runtime=runtime, clock=clock)


def _parts(messages, round_number, errand, clock, rest):
    own = {name: rest.pop(name) for name in ("config", "role", "adapt", "stop") if name in rest}
    inquiry = Inquiry(messages=messages, round_number=round_number, kwargs=rest, **own)
    return inquiry, errand or errand_of(clock=clock)


def ask(members, messages, *, round_number=1, errand=None, clock=CLOCK, **rest):
    return ask_members(members, *_parts(messages, round_number, errand, clock, rest))


async def aask(members, messages, *, round_number=1, errand=None, clock=CLOCK, **rest):
    return await aask_members(members, *_parts(messages, round_number, errand, clock, rest))


def relay(member, messages, *, round_number=1, errand=None, clock=CLOCK, **rest):
    """Yield the member's text in pieces, and what came of it."""
    for item in stream_round([member], *_parts(messages, round_number, errand, clock, rest), relay=True):
        yield item if isinstance(item, str) else item[0]


async def arelay(member, messages, *, round_number=1, errand=None, clock=CLOCK, **rest):
    """Yield the member's text in pieces, and what came of it."""
    items = astream_round([member], *_parts(messages, round_number, errand, clock, rest), relay=True)
    try:
        async for item in items:
            yield item if isinstance(item, str) else item[0]
    finally:
        await items.aclose()
