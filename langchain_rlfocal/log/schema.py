"""The tables of a log as this release has them, and how their records are hashed.

A kind of record is a table that is only added to. Its numbers have no gaps and its records a chain of hashes, each over the one
before it; both go on from the kind's row in `counters`, which a transaction holds until it ends. `leases`, `claims` and
`snapshots` are no records: they may be forgotten.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from struct import pack
from typing import Any

import sqlalchemy as sa

VERSION = 2
"""Number of the latest migration in `migrations/versions`."""

METADATA = sa.MetaData()

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def _number(name: str = "number") -> sa.Column[int]:
    return sa.Column(name, _NUMBER, primary_key=True, autoincrement=False)


def _required(name: str, type_: Any = sa.Text) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=False)


def _optional(*names: str, type_: Any = sa.Text) -> list[sa.Column[Any]]:
    return [sa.Column(name, type_) for name in names]


QUESTIONS = sa.Table(
    "questions",
    METADATA,
    _number(),
    _required("at", sa.Double),
    _required("first", _NUMBER),  # number of the first version of this question, which is the question's own
    _required("task"),
    _required("query_id"),
    _required("query"),
    *_optional("gold", "kind", "scorer", "details", "scrubbed", "hash"),
    sa.Index("questions_by_id", "task", "query_id", "number"),
    sa.Index("questions_by_first", "first", "number"),
)
ATTEMPTS = sa.Table(
    "attempts",
    METADATA,
    _number(),
    _required("at", sa.Double),
    _required("run"),
    _required("question", _NUMBER),  # the version that was asked
    _required("first", _NUMBER),  # the question
    _required("member"),
    _required("sample", sa.Integer),
    _required("failed", sa.Integer),
    *_optional("reward", type_=sa.Double),
    *_optional("scorer"),
    *_optional("scoring_usd", type_=sa.Double),
    *_optional("prompt_tokens", "completion_tokens", type_=_NUMBER),
    *_optional("cost_usd", "latency_s", "logprob", "propensity", type_=sa.Double),
    *_optional("response", "answer", "gold", "failure", "details", "scrubbed", "hash"),
    sa.Index("attempts_by_cell", "first", "member", "sample", "failed", "number"),
)
SCORES = sa.Table(
    "scores",
    METADATA,
    _number(),
    _required("at", sa.Double),
    _required("run"),
    _required("attempt", _NUMBER),
    *_optional("reward", type_=sa.Double),
    _required("scorer"),
    *_optional("usd", type_=sa.Double),
    *_optional("gold", "reason", "scrubbed", "hash"),
    sa.Index("scores_by_attempt", "attempt", "number"),
)
ANSWERS = sa.Table(
    "answers",
    METADATA,
    _number(),
    sa.Column("id", sa.Text, nullable=False, unique=True),
    _required("at", sa.Double),
    _required("answer"),
    *_optional("scrubbed", "hash"),
)
EVENTS = sa.Table(
    "events",
    METADATA,
    _number("seq"),
    sa.Column("answer_id", sa.Text, unique=True),
    _required("at", sa.Double),
    _required("event"),
    *_optional("hash"),
)
CHANGES = sa.Table(
    "changes",
    METADATA,
    _number(),
    _required("learner"),
    _required("id"),
    _required("at", sa.Double),
    _required("change"),
    *_optional("hash"),
    sa.UniqueConstraint("learner", "id"),
)
UPKEEP = sa.Table(
    "upkeep",
    METADATA,
    _number(),
    _required("at", sa.Double),
    _required("action"),  # "prune", "scrub", "gap": numbers that an earlier release left out
    _required("kind"),
    _required("first", _NUMBER),
    _required("last", _NUMBER),
    _required("records", _NUMBER),
    *_optional("last_hash", "hash"),
)
SNAPSHOTS = sa.Table(
    "snapshots",
    METADATA,
    sa.Column("learner", sa.Text, primary_key=True),
    _required("seq", _NUMBER),
    _required("arrays", sa.LargeBinary),
)
LEASES = sa.Table("leases", METADATA, sa.Column("run", sa.Text, primary_key=True), _required("until", sa.Double))
CLAIMS = sa.Table(
    "claims",
    METADATA,
    sa.Column("task", sa.Text, primary_key=True),
    sa.Column("query_id", sa.Text, primary_key=True),
    sa.Column("member", sa.Text, primary_key=True),
    sa.Column("sample", sa.Integer, primary_key=True),
    _required("run"),
    sa.Index("claims_by_run", "run"),
)
COUNTERS = sa.Table(
    "counters",
    METADATA,
    sa.Column("kind", sa.Text, primary_key=True),
    _required("last", _NUMBER),
    _required("head"),
)


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record.

    Attributes:
        table: Where its records are.
        numbers: Columns of numbers.
        names: Columns of texts that stay as they are.
        texts: Columns of texts that `scrub` may take out; then `scrubbed` holds their digest.
    """

    table: sa.Table
    numbers: tuple[str, ...]
    names: tuple[str, ...]
    texts: tuple[str, ...] = ()

    @property
    def number(self) -> sa.Column[int]:
        """The column that numbers the records from 1, without gaps."""
        [column] = self.table.primary_key.columns
        return column

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a new record, in the order in which they are inserted."""
        return (self.number.name, *self.numbers, *self.names, *self.texts, "hash")


KINDS: Mapping[
    str, Kind
] = {  # in the order in which a transaction takes their counters, so that none waits for another in a ring
    "questions": Kind(QUESTIONS, ("at", "first"), ("task", "query_id"), ("query", "gold", "kind", "scorer", "details")),
    "attempts": Kind(
        ATTEMPTS,
        (
            *("at", "question", "first", "sample", "failed", "reward", "scoring_usd"),
            *("prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "logprob", "propensity"),
        ),
        ("run", "member", "scorer"),
        ("response", "answer", "gold", "failure", "details"),
    ),
    "scores": Kind(SCORES, ("at", "attempt", "reward", "usd"), ("run", "scorer"), ("gold", "reason")),
    "answers": Kind(ANSWERS, ("at",), ("id",), ("answer",)),
    "events": Kind(EVENTS, ("at",), ("answer_id", "event")),
    "changes": Kind(CHANGES, ("at",), ("learner", "id", "change")),
    "upkeep": Kind(UPKEEP, ("at", "first", "last", "records"), ("action", "kind", "last_hash")),
}

CLAIMING, DROPPED = "claims", "dropped"
"""Two more counters: who claims holds the first; the second counts served answers that were not recorded."""


_NAN = float("nan")


def packed_numbers(numbers: Sequence[float | None]) -> bytes:
    """Lay out numbers for a hash, as doubles: None as "not a number", which no record holds.

    Raises:
        struct.error: One of them is no number.
    """
    return pack(f"<{len(numbers)}d", *[_NAN if number is None else number for number in numbers])


def packed_texts(texts: Sequence[str | None]) -> bytes:
    """Lay out texts for a hash: each after a sign, with U+0000 between them, which none holds, so that no two rows are alike.

    Raises:
        UnicodeEncodeError: One has half a surrogate pair.
    """
    return "\0".join(["-" if text is None else f"={text}" for text in texts]).encode()


def digest_of(texts: Sequence[str | None]) -> str:
    """Hash the texts of a record that `scrub` may take out."""
    return sha256(packed_texts(texts)).hexdigest()


def linked(previous: str, numbers: bytes, names: bytes, digest: str) -> str:
    """Hash a record and the one before it.

    Args:
        previous: Hash of the one before it.
        numbers: `packed_numbers` of its number and its other numbers.
        names: `packed_texts` of its texts that stay.
        digest: `digest_of` its other texts.

    Returns:
        SHA-256 of all of it, in hexadecimal.
    """
    return sha256(f"{previous}{digest}".encode() + numbers + names).hexdigest()


def first_hash(kind: str) -> str:
    """Return what stands in for the hash before the first record of a kind."""
    return sha256(kind.encode()).hexdigest()
