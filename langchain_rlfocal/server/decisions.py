"""Decisions: how an answer came about, as the response's `rlfocal` field and as headers.

Headers are short, of printable ASCII, and hold nothing of a prompt or an answer.
"""

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage

from langchain_rlfocal.pool import ModelPool

KEY = "rlfocal"

_MAX_HEADER_CHARS = 400
_LEFT_OUT = frozenset({"native"})
"""What only this process could read back: the winner's own message, as its provider wrote it."""


def decision_field(message: AIMessage) -> dict[str, Any]:
    """Return how an answer came about, in JSON values: `response_metadata["rlfocal"]`."""
    facts: Mapping[str, Any] = message.response_metadata.get(KEY) or {}
    return {name: value for name, value in facts.items() if name not in _LEFT_OUT}


def decision_headers(message: AIMessage, pool: ModelPool) -> dict[str, str]:
    """Return how an answer came about, in short; what is not known is left out."""
    facts: Mapping[str, Any] = message.response_metadata.get(KEY) or {}
    if not facts:
        return {}
    usd, confidence = usd_of(facts, pool), facts["fusion"]["confidence"]
    return headers_of(
        {
            "answer-id": facts["answer_id"],
            "policy": facts["policy"],
            "members": ",".join(_asked(facts)),
            "confidence": None if confidence is None else f"{confidence:.3f}",
            "calls": str(facts["spent"]["calls"]),
            "usd": None if usd is None else f"{usd:.8f}".rstrip("0").rstrip("."),
        }
    )


def headers_of(values: Mapping[str, str | None]) -> dict[str, str]:
    """Write values as headers `x-rlfocal-…`: whatever they hold, it is one short line of printable ASCII."""
    return {
        f"x-rlfocal-{name}": re.sub(r"[^\x20-\x7e]", "?", value)[:_MAX_HEADER_CHARS]
        for name, value in values.items()
        if value
    }


def usd_of(facts: Mapping[str, Any], pool: ModelPool) -> float | None:
    """Return what an answer cost in dollars, failed attempts included; None where somebody who was asked has no price."""
    priced = {m.name for m in pool if m.max_cost_usd(prompt_tokens=0, completion_tokens=0) is not None}
    usd: float | None = facts["spent"]["usd"]
    return usd if priced.issuperset(_asked(facts)) else None


def _asked(facts: Mapping[str, Any]) -> list[str]:
    rows = sorted([*facts["candidates"], *facts["failures"]], key=lambda row: row["round"])
    return [row["member"] for row in rows]
