"""What the soak asks, what its members answer, and which request meets which fault; see `soak.py`."""

import hashlib
from collections.abc import Callable

from support_fault_server import Fault

COMPETENCES = {"one": 0.9, "two": 0.9, "wrong": 0.5}
PASSING = (
    Fault("drop_before"),
    Fault("drop_at"),
    Fault("drop_after"),
    Fault("status", status=429, retry_after_s=0.05),
    Fault("status", status=500),
    Fault("status", status=503),
    Fault("never_ends", token_pause_s=0.5),
    Fault(delay_s=60.0),
)
LASTING = (
    Fault("truncated"),
    Fault("status", status=400),
    Fault("status", status=401),
    Fault("random_bytes"),
    Fault("wrong_shape"),
    Fault("web_page"),
)
FAULTY = 0.2
OUT_OF_ORDER = ("two", 0.5, 0.55)
"""Who is, and for which part of the questions."""


def share(*of: object) -> float:
    """Return a number in [0, 1) that depends on the values alone."""
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:8]) / 2**64


def question_of(number: int) -> str:
    """Return a question that no other number has."""
    return f"Which word stands on page {number}?"


def number_of(question: str) -> int:
    """Return a question's number."""
    return int(question.rstrip("?").split()[-1])


def right(number: int) -> str:
    """Return the answer to a question, a word in letters that no other question has."""
    return "page " + "".join(chr(ord("a") + int(digit)) for digit in str(number))


def answer(member: str, question: str) -> str:
    """Say what a member answers where nothing goes wrong."""
    return right(number_of(question) + (member == "wrong"))


def script(num_answers: int, seed: int) -> Callable[[str, str, int], Fault]:
    """Say which request meets which fault."""
    name, begin, end = OUT_OF_ORDER

    def fault(member: str, question: str, attempt: int) -> Fault:
        is_out = begin <= number_of(question) / num_answers < end
        if member == name and is_out:
            return Fault("status", status=503)
        drawn = share(seed, member, question, attempt)
        if drawn >= FAULTY or attempt > 2:
            return Fault(delay_s=0.01 * (drawn > 0.9))
        spared = "one" if is_out or share(seed, question) < 0.5 else "two"
        faults = PASSING if member == spared else PASSING + LASTING
        return faults[int(drawn / FAULTY * len(faults))]

    return fault
