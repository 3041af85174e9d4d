"""Questions, attempts, scores, claims; every record is hashed, and numbered without gaps.

Rows of the first release are hashed as they are. Numbers that it left out, where a transaction failed, are noted as gaps.
"""

import time
from collections.abc import Sequence
from hashlib import sha256
from struct import pack
from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_OLD = {  # number, texts that stay, texts that may be taken out; the other column is the time
    "answers": ("number", ("id",), ("answer",)),
    "events": ("seq", ("answer_id", "event"), ()),
    "changes": ("number", ("learner", "id", "change"), ()),
}
_NEW = ("questions", "attempts", "scores", "upkeep")


def _column(name: str, type_: Any = sa.Text, *, required: bool = False) -> sa.Column[Any]:
    return sa.Column(name, type_, nullable=not required)


def upgrade() -> None:
    """Make the new tables, and hash what is there."""
    op.create_table(
        "questions",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
        _column("at", sa.Double, required=True),
        _column("first", _NUMBER, required=True),
        _column("task", required=True),
        _column("query_id", required=True),
        _column("query", required=True),
        *[_column(name) for name in ("gold", "kind", "scorer", "details", "scrubbed", "hash")],
    )
    op.create_index("questions_by_id", "questions", ["task", "query_id", "number"])
    op.create_index("questions_by_first", "questions", ["first", "number"])
    op.create_table(
        "attempts",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
        _column("at", sa.Double, required=True),
        _column("run", required=True),
        sa.Column("question", _NUMBER, sa.ForeignKey("questions.number"), nullable=False),
        _column("first", _NUMBER, required=True),
        _column("member", required=True),
        _column("sample", sa.Integer, required=True),
        _column("failed", sa.Integer, required=True),
        _column("reward", sa.Double),
        _column("scorer"),
        _column("scoring_usd", sa.Double),
        _column("prompt_tokens", _NUMBER),
        _column("completion_tokens", _NUMBER),
        *[_column(name, sa.Double) for name in ("cost_usd", "latency_s", "logprob", "propensity")],
        *[_column(name) for name in ("response", "answer", "gold", "failure", "details", "scrubbed", "hash")],
    )
    op.create_index("attempts_by_cell", "attempts", ["first", "member", "sample", "failed", "number"])
    op.create_table(
        "scores",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
        _column("at", sa.Double, required=True),
        _column("run", required=True),
        sa.Column("attempt", _NUMBER, sa.ForeignKey("attempts.number"), nullable=False),
        _column("reward", sa.Double),
        _column("scorer", required=True),
        _column("usd", sa.Double),
        *[_column(name) for name in ("gold", "reason", "scrubbed", "hash")],
    )
    op.create_index("scores_by_attempt", "scores", ["attempt", "number"])
    op.create_table(
        "upkeep",
        sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
        _column("at", sa.Double, required=True),
        _column("action", required=True),
        _column("kind", required=True),
        *[_column(name, _NUMBER, required=True) for name in ("first", "last", "records")],
        _column("last_hash"),
        _column("hash"),
    )
    op.create_table("leases", sa.Column("run", sa.Text, primary_key=True), _column("until", sa.Double, required=True))
    op.create_table(
        "claims",
        *[sa.Column(name, sa.Text, primary_key=True) for name in ("task", "query_id", "member")],
        sa.Column("sample", sa.Integer, primary_key=True, autoincrement=False),
        _column("run", required=True),
    )
    op.create_index("claims_by_run", "claims", ["run"])
    op.create_table(
        "counters",
        sa.Column("kind", sa.Text, primary_key=True),
        _column("last", _NUMBER, required=True),
        _column("head", required=True),
    )
    op.add_column("answers", _column("scrubbed"))
    for kind in _OLD:
        op.add_column(kind, _column("hash"))
    _hash_old()


def _hash_old() -> None:
    db = op.get_bind()
    heads = {kind: (0, _sha(kind)) for kind in (*_NEW, "claims", "dropped")}
    gaps = []
    for kind, (key, names, texts) in _OLD.items():
        table = sa.table(kind, *map(sa.column, (key, "at", *names, *texts, "hash")))
        number = table.c[key]
        last, head = 0, _sha(kind)
        put = sa.update(table).where(number == sa.bindparam("at_number")).values(hash=sa.bindparam("of_record"))
        while rows := db.execute(sa.select(table).where(number > last).order_by(number).limit(1000)).all():
            hashes = []
            for row in rows:
                if row[0] > last + 1:
                    gaps.append((kind, last + 1, row[0] - 1, head))
                last = row[0]
                head = _linked(head, row[:2], row[2 : 2 + len(names)], row[2 + len(names) : -1])
                hashes.append({"at_number": last, "of_record": head})
            db.execute(put, hashes)
        heads[kind] = (last, head)
    columns = ("number", "at", "first", "last", "records", "action", "kind", "last_hash", "hash")
    upkeep = sa.table("upkeep", *map(sa.column, columns))
    told_by, noted = _sha("upkeep"), time.time()
    for place, (of, begin, end, before) in enumerate(gaps, start=1):
        numbers, names = (place, noted, begin, end, 0), ("gap", of, before)
        told_by = _linked(told_by, numbers, names, ())
        db.execute(sa.insert(upkeep).values(dict(zip(columns, (*numbers, *names, told_by), strict=True))))
    heads["upkeep"] = (len(gaps), told_by)
    counters = sa.table("counters", *map(sa.column, ("kind", "last", "head")))
    db.execute(
        sa.insert(counters), [{"kind": kind, "last": last, "head": head} for kind, (last, head) in heads.items()]
    )


def _linked(previous: str, numbers: Sequence[float], names: Sequence[str | None], texts: Sequence[str | None]) -> str:
    digest = sha256(_packed(texts)).hexdigest()
    data = f"{previous}{digest}".encode() + pack(f"<{len(numbers)}d", *numbers) + _packed(names)
    return sha256(data).hexdigest()


def _packed(texts: Sequence[str | None]) -> bytes:
    return "\0".join(["-" if text is None else f"={text}" for text in texts]).encode()


def _sha(text: str) -> str:
    return sha256(text.encode()).hexdigest()
