"""Promises while serving: answered as certified where the certificate holds, by its best member where it does not, and said so."""

import logging

import pytest
from langchain_core.messages import AIMessage

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import CheckpointError, InputError
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_ensembles import asked, how

PROMISE = "best-0.02@0.9"
QUESTION = "What is 2 + 3?"


@pytest.fixture
def certified(random_policy):
    """A policy of Ann and Bob, certified for the task `quiz` to ask Bob alone; Ann was the best member."""

    def make(**changes):
        plain = random_policy(("ann", "bob"))
        bob = {"cost_weight": 0.5, "member": "bob"}
        facts = {
            "promise": PROMISE,
            "policy_id": plain.policy_id,
            "date": "2026-11-30",
            "rows": 400,
            "members": ["ann", "bob"],
            "tasks": ["quiz"],
            "task_labels": True,
            "max_team": 2,
            "max_rounds": 1,
            "bound": "betting",
            "p_value": 0.05,
            "operating_point": {"low": bob, "high": bob, "share": 0.0},
            "unit": "calls",
            "spending": 1.0,
            "score": 0.7,
            "best_member": "ann",
            "best_member_score": 0.7,
        }
        return random_policy(("ann", "bob"), card={"certificates": {PROMISE: {**facts, **changes}}})

    return make


def ensemble(policy, *, members=None, **fields):
    members = members or {name: ScriptedChatModel(script=["5"]) for name in ("ann", "bob")}
    return RLFocalChatModel(members=members, policy=policy, **{"promise": PROMISE, "task": "quiz", **fields})


async def test_where_it_holds_queries_are_answered_as_certified(certified):
    model = ensemble(certified())
    for message in (model.invoke(QUESTION), await model.ainvoke(QUESTION)):
        assert asked(message) == [["bob"]]
        assert how(message)["promise"] == {"name": PROMISE, "holds": True, "reason": None}
        assert "promise best-0.02@0.9)" in model.explain(message)


@pytest.mark.parametrize(
    ("changes", "fields", "reason"),
    [
        ({"members": ["ann", "bob", "cid"]}, {}, "certified for another pool; this one is without cid"),
        ({"members": ["ann"]}, {}, "certified for another pool; this one is with bob"),
        ({}, {"task": "essay"}, "certified for other tasks"),
        ({}, {"task": None}, "certified for queries with a task label"),
        ({"task_labels": False}, {}, "certified without task labels"),
        ({}, {"synthesizer": ScriptedChatModel(script=["6"])}, "a synthesizer may write the answer"),
        ({}, {"equivalence": ScriptedChatModel(script=["6"])}, "a judge may tell which answers are the same"),
        ({}, {"max_team": 1}, "certified for 2 members in 1 rounds, and fewer may be asked"),
        ({}, {"min_candidates": 3}, "certified for 2 members in 1 rounds, and fewer may be asked"),
        ({"fingerprints": {"bob": "gpt-2024"}}, {"seen": "gpt-2026"}, "bob calls itself gpt-2026 now, not gpt-2024"),
    ],
)
def test_where_it_does_not_hold_the_best_member_answers_alone_and_the_reply_says_why(
    certified, changes, fields, reason, caplog
):
    fields = dict(fields)
    seen = fields.pop("seen", None)
    model = ensemble(certified(**changes), **fields)
    model.shared_state.fingerprints.see("bob", seen)
    with caplog.at_level(logging.WARNING):
        messages = [model.invoke(QUESTION), model.invoke(QUESTION)]
    for message in messages:
        assert asked(message) == [["ann"]]
        assert how(message)["promise"]["holds"] is False
        assert reason in how(message)["promise"]["reason"]
        assert f"the promise {PROMISE} does not hold: " in model.explain(message)
    assert len([line for line in caplog.messages if reason in line]) == 1


def test_without_labels_nothing_is_known_of_tasks(certified):
    assert how(ensemble(certified(task_labels=False), task=None).invoke(QUESTION))["promise"]["holds"] is True


def test_a_member_that_calls_itself_otherwise_makes_it_void_for_all_copies(certified):
    bob = ScriptedChatModel(script=["5"], model_name="v1")
    model = ensemble(certified(), members={"ann": ScriptedChatModel(script=["5"]), "bob": bob})
    copy = model.model_copy()
    assert all(how(model.invoke(QUESTION))["promise"]["holds"] for _ in range(2))
    bob.model_name = "v2"
    message = model.invoke(QUESTION)  # before it answers nobody can know
    assert (asked(message), how(message)["promise"]["reason"]) == ([["bob"]], "bob calls itself v2 now, not v1")
    message = copy.invoke(QUESTION)
    assert (asked(message), how(message)["promise"]["reason"]) == ([["ann"]], "bob calls itself v2 now, not v1")


def test_while_a_member_rests_it_is_another_pool_and_others_stand_in_for_the_best(certified):
    failing = FailingChatModel(error=ValueError("down"))
    members = {"ann": failing, "bob": ScriptedChatModel(script=["5"])}
    model = ensemble(certified(), members=members, breaker_failures=1)
    void = model.invoke(QUESTION, task="essay")
    assert asked(void) == [["ann"], ["bob"]]
    message = model.invoke(QUESTION)
    assert "ann kept failing, and is left alone for a while" in how(message)["promise"]["reason"]
    assert message.text == "5"


def test_a_call_may_take_another_way_and_a_named_member_answers_without_a_promise(certified):
    model = ensemble(certified())
    assert how(model.invoke(QUESTION, cost_weight=0.1))["promise"] is None
    assert how(model.invoke(QUESTION, promise=None))["promise"] is None
    assert how(model.invoke(QUESTION, model="bob"))["promise"] is None
    plain = ensemble(certified(), promise=None)
    assert how(plain.invoke(QUESTION, promise=PROMISE))["promise"]["holds"] is True
    with pytest.raises(InputError, match=r"`promise` or `cost_weight`, got both"):
        plain.invoke(QUESTION, promise=PROMISE, cost_weight=0.1)


@pytest.mark.parametrize(
    ("promise", "fields", "words"),
    [
        ("best-0.01@0.9", {}, r"certified for \(best-0.02@0.9\), got 'best-0.01@0.9'.*`rlfocal certify"),
        ("always right", {}, r"must be named as in `best-0.02@0.9`"),
        (PROMISE, {"target_calls": 2.0}, r"`promise` and `target_calls` exclude each other.*Leave one out"),
    ],
)
def test_promises_that_nobody_made_are_refused(certified, promise, fields, words):
    with pytest.raises(InputError, match=words):
        ensemble(certified(), promise=promise, **fields)
    if not fields:
        with pytest.raises(InputError, match=words):
            ensemble(certified(), promise=None).invoke(QUESTION, promise=promise)


def test_an_untrained_model_and_a_forged_certificate_promise_nothing(certified):
    with pytest.raises(InputError, match=r"certified for \(none\)"):
        ensemble(None)
    with pytest.raises(CheckpointError, match="about another policy"):
        ensemble(certified(policy_id="rlfocal-other"))


def test_the_reply_of_a_model_without_promises_says_none():
    message = RLFocalChatModel(members={"ann": ScriptedChatModel(script=["5"])}).invoke(QUESTION)
    assert isinstance(message, AIMessage)
    assert how(message)["promise"] is None


def test_answers_under_a_promise_never_explore(certified):
    model = ensemble(certified(), explore=1.0)
    assert asked(model.invoke(QUESTION)) == [["bob"]]
    assert sorted(asked(model.invoke(QUESTION, promise=None))[0]) == ["ann", "bob"]


@pytest.mark.parametrize("learning", ["shadow", "on"])
def test_a_member_whose_scores_fell_makes_it_void_also_in_shadow(certified, learning, tmp_path):
    model = ensemble(certified(), outcome_log=tmp_path / "log.db", learning=learning)
    reason, asked_when = None, 0
    while reason is None and asked_when < 200:
        message = model.invoke(f"What is {asked_when} + 3?")
        reason = how(message)["promise"]["reason"]
        if reason is None:
            model.feedback(message, float(asked_when < 60))
            asked_when += 1
    assert (reason, asked(message)[0][0]) == ("the score of bob has fallen", "ann")
    assert 60 < asked_when < 160
