"""Served answers, made by hand, for tests of what is recorded and learned of them."""

from uuid import uuid4

from langchain_rlfocal.log import ServedAnswer
from langchain_rlfocal.records import Answer, Candidate, Failure, Query


def candidate(member, answer, **fields):
    return Candidate(member, 1, f"The answer is {answer}.", answer, 0.5, **fields)


def served_answer(answers=None, *, id=None, query="What is 6 times 7?", task=None, failures=(), **fields):  # noqa: A002
    """An answer of the given members, by default Ann's and Bob's 42 and Cleo's 17; the first is returned."""
    answers = {"ann": "42", "bob": "42", "cleo": "17"} if answers is None else answers
    candidates = tuple(candidate(member, answer) for member, answer in answers.items())
    labels = list(dict.fromkeys(answers.values()))
    supporters = {label: tuple(m for m, answer in answers.items() if answer == label) for label in labels}
    weights = {label: len(names) / len(answers) for label, names in supporters.items()}
    failed = tuple(Failure(member, 1, kind, "It is down.", 0.1) for member, kind in dict(failures).items())
    asked = (*answers, *dict(failures))
    defaults = {
        "available": asked,
        "policy_id": "scripted",
        "cost_weight": 0.1,
        "max_team": len(asked),
        "max_rounds": 2,
        "propensity": dict.fromkeys(asked, 1.0),
        "candidates": candidates,
        "answer": Answer(next(iter(answers), None), labels[0] if labels else None, weights, supporters),
    }
    return ServedAnswer(id=id or str(uuid4()), query=Query(query, task), failures=failed, **{**defaults, **fields})
