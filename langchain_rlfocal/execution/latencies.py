"""Latencies: how long a member's answers take, as far as its last ones tell.

It keeps successes only: how fast a member fails says nothing of when its answer is late. It reads no clock, and says
nothing of a member that it has hardly seen.
"""

import math
import threading
from collections import deque

from langchain_rlfocal.execution.limits import Shared

WINDOW = 100
"""How many of a member's answers count, the latest ones."""

MIN_SAMPLES = 20
"""With fewer, the 95th percentile would be the slowest one, which tells nothing."""


class Latencies(Shared):
    """The latencies of each member's last answers.

    Copies are the same latencies; a pickle begins without any.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: dict[str, deque[float]] = {}

    def add(self, member: str, latency_s: float) -> None:
        """Add the latency of an answer, in seconds."""
        with self._lock:
            self._recent.setdefault(member, deque(maxlen=WINDOW)).append(latency_s)

    def p95_s(self, member: str) -> float | None:
        """Return the 95th percentile in seconds: the ⌈0.95 n⌉-th smallest of n; None for n below `MIN_SAMPLES`."""
        with self._lock:
            recent = list(self._recent.get(member, ()))
        if len(recent) < MIN_SAMPLES:
            return None
        return sorted(recent)[math.ceil(0.95 * len(recent)) - 1]

    def reset(self, member: str | None = None) -> None:
        """Forget the latencies of a member, or of all."""
        with self._lock:
            if member is None:
                self._recent.clear()
            else:
                self._recent.pop(member, None)
