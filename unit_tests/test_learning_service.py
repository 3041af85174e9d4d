"""Learning while serving: every process folds the same feedback in the same order, and no answer is ever held up or failed by it."""

import asyncio
import gc
import logging
import sqlite3
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import numpy as np
import pytest
from blockbuster import blockbuster_ctx

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import InputError, OutcomeLogError
from langchain_rlfocal.log import Feedback, OutcomeLog, database
from langchain_rlfocal.online import Guard, LearningService
from langchain_rlfocal.online import service as service_module
from langchain_rlfocal.policies import PriorPolicy
from support_ensembles import asked, how, model_of, saying
from support_served import served_answer

QUESTION = "What is 6 times 7?"
POOL = ("ann", "bob", "cleo")


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(service_module, "CHECK_S", 0.0)
    return tmp_path / "outcomes.db"


def model_with(log, **fields):
    """Ann is wrong, Bob and Cleo are right; nobody trained a policy."""
    members = {"ann": saying("17"), "bob": saying("42"), "cleo": saying("It is 42.")}
    return RLFocalChatModel(members=members, outcome_log=log, **{"learning": "on", **fields})


def processes(path, number=2, **fields):
    """Models that share nothing but the file, as those of several processes do."""
    return [model_with(OutcomeLog(path), **fields) for _ in range(number)]


def learn(model, number=1, question=QUESTION):
    """Ask, and say of everybody what the answer was worth."""
    for _ in range(number):
        message = model.invoke(question)
        scores = {one["member"]: float("42" in one["text"]) for one in how(message)["candidates"]}
        model.feedback(message, float("42" in message.text), scores)


def service_of(model):
    return model._setup.service


def same_state(first, second):
    """Both guards hold the same bits."""
    mine, theirs = (service_of(model)._guard.arrays() for model in (first, second))
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[k], theirs[k], equal_nan=True) for k in mine)


# ---- modes


def test_what_users_say_decides_the_next_answer(path):
    [model] = processes(path, 1, max_team=2)
    before = how(model.invoke(QUESTION))["policy"]
    learn(model, 8)
    after = model.invoke(QUESTION)
    assert (how(after)["policy"] != before, how(after)["trained"]) == (True, True)
    assert "42" in after.text
    assert model._identifying_params["policy"] == how(after)["policy"]  # a cached answer is another policy's
    assert [change.kind for change in model.changes()] == ["took_over"]


def test_in_shadow_all_is_learned_and_nothing_changes(path):
    [model] = processes(path, 1, learning="shadow")
    learn(model, 3)
    assert how(model.invoke(QUESTION))["policy"] == model._setup.policy.policy_id
    assert service_of(model)._guard.learner.count == 3


@pytest.mark.parametrize(("first", "then"), [("on", "shadow"), ("shadow", "on")])
def test_each_mode_learns_from_the_log_for_itself(path, monkeypatch, first, then):
    """After a snapshot of the one mode the other is as if it had been in use from the start, and undoes nothing of the first's."""
    monkeypatch.setattr(service_module, "SNAPSHOT_EVERY", 2)
    [one] = processes(path, 1, learning=first)
    learn(one, 3)
    [other] = processes(path, 1, learning=then)
    other.invoke(QUESTION)
    assert service_of(other)._guard.learner.count == 3
    on, shadow = (one, other) if first == "on" else (other, one)
    assert how(on.invoke(QUESTION))["policy"].startswith("online-")
    assert how(shadow.invoke(QUESTION))["policy"] == shadow._setup.policy.policy_id
    on.undo("1-took_over")
    assert [change.kind for change in on.changes()] == ["took_over", "went_back"]
    assert all(change.kind not in {"took_over", "went_back"} for change in shadow.changes())


def test_off_learns_nothing_and_has_no_changes(path):
    [model] = processes(path, 1, learning="off")
    learn(model, 2)
    assert not service_of(model).takes_turn()
    assert service_of(model)._guard is None
    for call in (model.changes, lambda: model.undo("1")):
        with pytest.raises(InputError, match=r'where `learning` is "shadow" or "on", got "off"'):
            call()


def test_learning_needs_a_log_and_a_policy_that_can_be_corrected(path):
    with pytest.raises(InputError, match=r"no `outcome_log` to learn from, got 'on'. Give `outcome_log="):
        model_of({"ann": saying("42")}, learning="on")
    with pytest.raises(InputError, match=r"`learning` must be"):
        model_of({"ann": saying("42")}, learning="maybe", outcome_log=path)
    with pytest.raises(InputError, match=r"got 'on' and ScriptedPolicy, which feedback cannot correct. Train a policy"):
        model_of({"ann": saying("42")}, learning="on", outcome_log=path)
    with pytest.raises(InputError, match=r'"shadow" or "on", got "off"'):
        model_of({"ann": saying("42")}).changes()


# ---- processes and copies


def test_processes_come_to_the_same_state_whoever_was_told(path):
    one, other, silent = processes(path, 3)
    learn(one, 3)
    learn(other, 2)
    learn(one, 1)
    policies = {how(model.invoke(QUESTION))["policy"] for model in (one, other, silent)}
    assert len(policies) == 1
    assert same_state(one, other)
    assert same_state(one, silent)
    assert one.changes() == other.changes() == silent.changes()
    assert len(one.changes()) == 1


async def test_an_answer_on_an_event_loop_learns_from_others_and_is_not_held_up(path):
    one, other = processes(path, 2)
    await other.ainvoke(QUESTION)
    learn(one, 3)
    with blockbuster_ctx():
        message = await other.ainvoke(QUESTION)
        *_, last = [chunk async for chunk in other.astream(QUESTION)]
    assert how(message)["policy"] == how(last)["policy"] == service_of(one).serving.policy.policy_id


def test_copies_of_a_model_share_what_is_learned(path):
    [model] = processes(path, 1)
    copy = model.model_copy()
    learn(copy, 1)
    assert service_of(copy) is service_of(model)
    again = model_with(model.outcome_log)
    assert service_of(again) is service_of(model)
    assert service_of(model_with(model.outcome_log, learning="shadow")) is not service_of(model)


def test_a_service_lives_as_long_as_a_model_that_uses_it(path):
    log = OutcomeLog(path)
    model, other = model_with(log), model_with(log)
    service = weakref.ref(service_of(model))
    del model
    gc.collect()
    assert service_of(other) is service()
    other.max_team = 2  # the model is set up anew
    assert service_of(other) is service()
    del other
    gc.collect()
    assert service() is None
    assert not log.shared


def test_a_users_own_policy_serves_its_own_model_alone(path):
    """Both policies call themselves the same, and decide differently."""
    log, members = OutcomeLog(path), {"ann": saying("17"), "bob": saying("42")}
    one, other = (model_of(members, (name,), outcome_log=log) for name in members)
    assert one.policy.policy_id == other.policy.policy_id
    assert (asked(one.invoke(QUESTION)), asked(other.invoke(QUESTION))) == ([["ann"]], [["bob"]])
    assert service_of(one.model_copy()) is service_of(one) is not service_of(other)


def test_answers_of_another_pool_are_not_learned_from(path):
    [model] = processes(path, 1)
    other = RLFocalChatModel(members={"ann": saying("42"), "dora": saying("42")}, outcome_log=OutcomeLog(path))
    for options in ({}, {"max_team": 1}):  # Ann alone may be asked, whom both have
        other.feedback(other.invoke(QUESTION, **options), 1)
    learn(model, 1)
    assert service_of(model)._guard.learner.count == 1


def test_a_long_backlog_is_folded_piece_by_piece(path, monkeypatch):
    one, late = processes(path, 2)
    learn(one, 4)
    monkeypatch.setattr(service_module, "FOLD_S", 0.0)
    counts = []
    for _ in range(4):
        late.invoke(QUESTION)
        counts.append(service_of(late)._guard.learner.count)
    assert counts == [1, 2, 3, 4]
    assert same_state(one, late)


def test_the_log_is_looked_at_no_more_often_than_needed(path, monkeypatch):
    monkeypatch.setattr(service_module, "CHECK_S", 1000.0)
    one, other = processes(path, 2)
    for model in (one, other):
        model.invoke(QUESTION)
    learn(one, 1)
    assert service_of(one)._guard.learner.count == 1  # what this process was told is folded at once
    assert not service_of(other).takes_turn()
    other.invoke(QUESTION)
    assert service_of(other)._guard.learner.count == 0


async def test_an_answer_does_not_wait_for_threads_that_are_all_busy(path, monkeypatch):
    """The only thread of the loop is taken for as long as the answer is made."""
    monkeypatch.setattr(service_module, "FOLD_S", 0.01)
    one, other = processes(path, 2)
    learn(one, 1)
    is_answered, loop = threading.Event(), asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(max_workers=1))
    blocked = loop.run_in_executor(None, is_answered.wait)
    assert (await other.ainvoke(QUESTION)).text
    is_answered.set()
    await blocked
    assert (await other.ainvoke(QUESTION)).text
    assert same_state(one, other)


# ---- snapshots


def test_a_new_process_starts_from_the_latest_snapshot(path, monkeypatch):
    monkeypatch.setattr(service_module, "SNAPSHOT_EVERY", 2)
    [one] = processes(path, 1)
    learn(one, 5)
    [late] = processes(path, 1)
    assert service_of(late)._seq == 4
    late.invoke(QUESTION)
    assert same_state(one, late)
    seq, arrays = one.outcome_log.load_snapshot(service_of(one)._learner)
    assert seq == 4
    arrays.pop("guard.facts")
    one.outcome_log.save_snapshot(service_of(one)._learner, 5, arrays)  # of another release
    [later] = processes(path, 1)
    assert service_of(later)._seq == 0
    later.invoke(QUESTION)
    assert same_state(one, later)


def test_what_was_learned_from_a_log_that_was_deleted_is_forgotten(path):
    [model] = processes(path, 1)
    learn(model, 3)
    for file in path.parent.glob("outcomes.db*"):
        file.unlink()
    learn(model, 1)
    assert service_of(model)._guard.learner.count == 1


# ---- members left out


class Leaving(Guard):
    """Leaves Ann out, and probes her on every second query."""

    out = ("ann",)

    @property
    def left_out(self):
        return self.out

    def probes(self, key):
        return ("ann",) if UUID(key).int % 2 else ()


@pytest.fixture
def leaving(monkeypatch):
    monkeypatch.setattr(service_module, "Guard", Leaving)
    return Leaving


@pytest.mark.usefixtures("leaving")
def test_a_member_left_out_is_not_asked_and_that_is_said(path):
    [model] = processes(path, 1, max_team=2)
    for number in (2, 4):
        message = model.invoke(QUESTION, {"run_id": UUID(int=number)})
        assert "ann" not in {name for round_ in asked(message) for name in round_}
        assert how(message)["left_out"] == {"ann": service_module.LEFT_OUT}
        assert f"ann was left out: {service_module.LEFT_OUT}" in model.explain(message)
        assert model.outcome_log.served(str(UUID(int=number))).available == ("bob", "cleo")


@pytest.mark.usefixtures("leaving")
def test_a_member_left_out_is_asked_now_and_then_beside_the_team(path):
    [model] = processes(path, 1, max_team=1)
    message = model.invoke(QUESTION, {"run_id": UUID(int=3)})
    [team] = asked(message)
    assert team[-1] == "ann"
    assert len(team) == 2
    assert how(message)["left_out"] == {}
    served = model.outcome_log.served(str(UUID(int=3)))
    share = service_of(model).serving.probe_share
    assert served.propensity == {team[0]: 1.0, "ann": share}
    assert 0 < share < 1
    assert served.available == ("bob", "cleo")


def test_where_nobody_would_be_left_all_are_asked(path, leaving, monkeypatch):
    monkeypatch.setattr(leaving, "out", POOL)
    [model] = processes(path, 1)
    message = model.invoke(QUESTION)
    assert message.text
    assert how(message)["left_out"] == {}
    assert how(model.invoke(QUESTION, model="ann"))["fusion"]["member"] == "ann"


# ---- undoing


def test_what_a_person_undoes_is_undone_in_all_processes(path):
    one, other = processes(path, 2)
    learn(one, 2)
    [change] = other.changes()
    other.undo(change.id)
    untrained = one._setup.policy.policy_id
    assert [how(model.invoke(QUESTION))["policy"] for model in (one, other)] == [untrained, untrained]
    assert one.changes() == other.changes()
    assert [entry.kind for entry in one.changes()] == ["took_over", "went_back"]
    learn(one, 2)
    assert how(other.invoke(QUESTION))["policy"] == untrained
    assert same_state(one, other)


def test_what_cannot_be_undone_is_said_with_what_can(path):
    [model] = processes(path, 1)
    with pytest.raises(InputError, match=r"id of a change \(none so far\), got '7'. `changes\(\)` lists them."):
        model.undo("7")
    learn(model, 1)
    with pytest.raises(InputError, match=r"id of a change \(1-took_over\), got '7'"):
        model.undo("7")


# ---- what goes wrong


class Failing(Guard):
    """Cannot learn."""

    def update(self, served, feedback):
        raise ZeroDivisionError


def test_answers_go_on_where_learning_fails(path, monkeypatch, caplog):
    monkeypatch.setattr(service_module, "Guard", Failing)
    [model] = processes(path, 1)
    with caplog.at_level(logging.ERROR):
        learn(model, 2)
    assert model.outcome_log.last_seq == 2
    assert "was not learned; answers are served as before" in caplog.text
    assert model.invoke(QUESTION).text


def test_answers_go_on_where_the_log_is_damaged(path, caplog):
    one, other = processes(path, 2)
    learn(one, 1)
    program = sqlite3.connect(path, isolation_level=None)
    program.execute("UPDATE events SET event = '{'")
    with caplog.at_level(logging.ERROR):
        assert other.invoke(QUESTION).text
    assert "breaks a rule in feedback 1" in caplog.text
    program.execute("""UPDATE events SET event = '{"score": 1, "per_member": {}}'""")
    one.outcome_log.add_change(service_of(one)._learner, "odd", {"what": "is this"})
    with pytest.raises(OutcomeLogError, match=r"A change in .* breaks a rule"):
        one.changes()
    program.close()


def test_answers_do_not_wait_for_a_log_that_is_locked_and_go_on_learning(path, monkeypatch):
    """Another program, and this model's own writer thread, hold the log for ever; what changes meanwhile is saved later."""
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    one, other = processes(path, 2)
    other.invoke(QUESTION)
    other.outcome_log.flush()
    learn(one, 1)
    program = sqlite3.connect(path, isolation_level=None)
    program.execute("BEGIN IMMEDIATE")
    with ThreadPoolExecutor(1) as threads, other.outcome_log._database.lock:
        try:
            message = threads.submit(other.invoke, QUESTION).result(timeout=5)
        finally:
            program.execute("ROLLBACK")
    assert how(message)["policy"] == service_of(one).serving.policy.policy_id
    assert [change.id for change in service_of(other)._unsaved] == ["1-took_over"]
    other.invoke(QUESTION)
    assert service_of(other)._unsaved == []
    assert other.changes() == one.changes()
    program.close()


def test_who_reads_a_log_waits_for_nobody_who_writes(path, monkeypatch):
    """Also one that opens it only now."""
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    log = OutcomeLog(path)
    served = served_answer()
    log.record(served)
    log.add_feedback(Feedback(answer_id=served.id, score=1))
    program = sqlite3.connect(path, isolation_level=None)
    program.execute("BEGIN EXCLUSIVE")
    assert (log.last_seq, len(log.events_since(0)), len([*log.outcomes()]), log.changes("a")) == (1, 1, 3, {})
    with pytest.raises(OutcomeLogError, match=r"is locked by another program"):
        log.add_change("a", "7", {}, waits=False)
    program.execute("ROLLBACK")
    with (
        log._database.lock,
        ThreadPoolExecutor(1) as threads,
        pytest.raises(OutcomeLogError, match=r"being written to. Try"),
    ):
        threads.submit(log.save_snapshot, "a", 1, {}, waits=False).result(timeout=5)
    program.close()


def test_two_services_fold_what_was_recorded_by_hand(path):
    """A service needs no chat model: it folds what any process recorded."""
    log = OutcomeLog(path)
    policy = PriorPolicy(POOL)
    service = LearningService(log, policy, mode="on")
    for number in range(5):
        served = served_answer(query=f"Question {number}?")
        service.record(served)
        service.add_feedback(Feedback(answer_id=served.id, score=1))
    other = LearningService(OutcomeLog(path), policy, mode="on")
    other.refresh()
    assert other.serving.policy.policy_id == service.serving.policy.policy_id != policy.policy_id
