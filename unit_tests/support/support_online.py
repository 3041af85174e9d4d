"""Served answers, made by hand or by a policy that plays on what every member would say."""

from langchain_rlfocal.log import Feedback, ServedAnswer
from langchain_rlfocal.records import Answer, Candidate, Failure, Query


def saying(member, answer, round_number=1):
    return Candidate(member, round_number, answer or "", answer, 0.0)


def served_of(said, *, returned=None, query="Which one?", task=None, failed=(), available=None, **facts):
    """A served answer: what each asked member said, and whose was returned (the first's by default)."""
    member = returned or next(iter(said))
    return ServedAnswer(
        **{
            "id": "1",
            "query": Query(query, task),
            "available": tuple(available or [*said, *failed]),
            "policy_id": "by-hand",
            "cost_weight": 0.0,
            "max_team": len(said) + len(failed),
            "max_rounds": 1,
            "candidates": tuple(saying(name, answer) for name, answer in said.items()),
            "failures": tuple(Failure(name, 1, "TimeoutError", "late", 0.0) for name in failed),
            "answer": Answer(member=member, answer=said[member], weights={}, supporters={}),
            **facts,
        }
    )


def judged(served, scores):
    """Feedback that scores every answer that `scores` names, the returned one among them."""
    return Feedback(answer_id=served.id, score=scores[served.answer.member], per_member=scores)


def serve(policy, query, said, *, number=0, max_team=2, max_rounds=1, cost_weight=0.0, team=None, **facts):
    """Let a policy answer a query whose answers are all known; `team` is asked instead of the policy's choice."""
    got = []
    for round_number in range(1, max_rounds + 1):
        limits = {"round_number": round_number, "max_rounds": max_rounds, "max_team": max_team}
        chosen = policy.select(query, got, (), available=tuple(said), cost_weight=cost_weight, **limits).members
        chosen = chosen if team is None else team
        got += [saying(name, said[name], round_number) for name in chosen]
        if not chosen or len(got) >= max_team or team is not None:
            break
    return ServedAnswer(
        id=str(number),
        query=query,
        available=tuple(said),
        policy_id=policy.policy_id,
        cost_weight=cost_weight,
        max_team=max_team,
        max_rounds=max_rounds,
        candidates=tuple(got),
        failures=(),
        answer=policy.fuse(query, got, (), max_team=max_team),
        **facts,
    )
