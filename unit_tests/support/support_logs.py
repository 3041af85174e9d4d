"""Logs with attempts in them, made by hand, and other programs that change them."""

import sqlite3

from langchain_rlfocal.log import Attempt
from langchain_rlfocal.outcomes import Outcome, Question


class Clock:
    """Seconds since 1970 that the test moves."""

    def __init__(self, now=1_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


def question(query_id="1", task="quiz", **fields):
    return Question(task=task, query_id=query_id, **{"query": f"What is {query_id} + 0?", "gold": query_id, **fields})


def attempt(query_id="1", member="ann", said="1", *, task="quiz", sample=0, failure=None, **fields):
    """What a member answered: that the answer is what it said; or its failure."""
    given = {
        "query": f"What is {query_id} + 0?",
        "gold": query_id,
        "reward": 0.0 if failure else float(said == query_id),
        "answer": None,
        "response": None if failure else f"The answer is {said}.",
    }
    outcome = Outcome(task=task, query_id=query_id, model=member, **{**given, **fields})
    return Attempt(outcome=outcome, sample=sample, failure=failure, scorer="auto")


def cells(*ids, members=("ann", "bob"), task="quiz"):
    return [(task, query_id, member, 0) for query_id in ids for member in members]


def change(path, *statements):
    """Change a log as another program does."""
    db = sqlite3.connect(path, isolation_level=None)
    for statement in statements:
        db.execute(statement)
    db.close()


def rows(path, query):
    db = sqlite3.connect(path)
    found = db.execute(query).fetchall()
    db.close()
    return found
