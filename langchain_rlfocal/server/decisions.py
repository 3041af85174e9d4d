"""Decisions: how an answer came about, as the response's `rlfocal` field and as headers.

Headers are short, of printable ASCII, and hold nothing of a prompt or an answer.
"""

import re
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage

KEY = "rlfocal"


def decision_field(message: AIMessage) -> dict[str, Any]:
    """Return how an answer came about, in JSON values: `response_metadata["rlfocal"]`."""
    facts: dict[str, Any] = message.response_metadata.get(KEY, {})
    return {name: value for name, value in facts.items() if name != "native"}


def decision_headers(message: AIMessage) -> dict[str, str]:
    """Return how an answer came about, in short."""
    facts: Mapping[str, Any] = message.response_metadata.get(KEY, {})
    if not facts:
        return {}
    asked = [row["member"] for row in (*facts["candidates"], *facts["failures"])]
    values = {
        "answer-id": facts["answer_id"],
        "policy": facts["policy"],
        "members": ",".join(asked),
        "confidence": f"{facts['fusion']['confidence']:.3f}",
        "calls": str(facts["spent"]["calls"]),
        "usd": "" if facts["spent"]["usd"] is None else f"{facts['spent']['usd']:.8f}",
    }
    return {f"x-rlfocal-{name}": _plain(value) for name, value in values.items() if value}


def _plain(text: str) -> str:
    return re.sub(r"[^\x20-\x7e]", "?", text)[:400]
