"""Feedback: every answer has an id, users score it, and how probable each member's being asked was is exact."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from math import comb
from uuid import UUID, uuid4

import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.chat_models.answering import _draw, _random_team
from langchain_rlfocal.errors import FeedbackError, InputError
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.log import outcome_log as log_module
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_ensembles import asked, how, model_of, saying

QUESTION = "What is 6 times 7?"


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "WAIT_S", 0.0)
    opened = OutcomeLog(tmp_path / "outcomes.db")
    yield opened
    opened.close()


def said_42(log, *rounds, **fields):
    """Ann and Bob say 42, Cleo 17."""
    members = {"ann": saying("42"), "bob": saying("It is 42."), "cleo": saying("17")}
    return model_of(members, *rounds, outcome_log=log, **fields)


# ---- ids


async def test_an_answers_id_is_that_of_its_run_whole_and_streamed(log):
    model = said_42(log)
    ids = [uuid4() for _ in range(4)]
    whole = model.invoke(QUESTION, {"run_id": ids[0]})
    awhole = await model.ainvoke(QUESTION, {"run_id": ids[1]})
    *_, streamed = model.stream(QUESTION, {"run_id": ids[2]})
    *_, astreamed = [chunk async for chunk in model.astream(QUESTION, {"run_id": ids[3]})]
    answers = [whole, awhole, streamed, astreamed]
    assert [how(message)["answer_id"] for message in answers] == [str(one) for one in ids]
    assert [log.served(str(one)).answer.answer for one in ids] == ["42"] * 4


def test_answers_of_a_batch_have_ids_of_their_own_also_without_a_log():
    model = model_of({"ann": saying("42")}, streaming=True)
    ids = {how(message)["answer_id"] for message in model.batch([QUESTION] * 5)}
    assert len({UUID(one) for one in ids}) == 5


async def test_a_message_its_metadata_its_id_and_its_run_can_be_scored(log):
    model, collector = said_42(log), RunCollectorCallbackHandler()
    messages = [model.invoke(QUESTION, {"callbacks": [collector]}) for _ in range(5)]
    model.feedback(messages[0], 1)
    model.feedback(messages[1].response_metadata, 0.5, {"cleo": 0})
    model.feedback(how(messages[2])["answer_id"], False)
    model.feedback(collector.traced_runs[3].id, 0.25)
    await model.afeedback(messages[4], 0)
    said = [(served.id, feedback.score) for _, (served, feedback) in log.events_since(0)]
    ids = [how(message)["answer_id"] for message in messages]
    assert said == [*zip(ids, (1, 0.5, 0, 0.25, 0), strict=True)]


# ---- what is recorded


def test_what_is_recorded_is_what_was_served(log):
    members = {"ann": saying("42"), "bob": FailingChatModel(error=ValueError("no")), "cleo": saying("17")}
    model = model_of(members, ("ann", "bob"), ("cleo",), outcome_log=log, task="quiz", cost_weight=0.2)
    message = model.invoke(QUESTION)
    served = log.served(how(message)["answer_id"])
    assert (served.query.text, served.query.task, served.policy_id) == (QUESTION, "quiz", "scripted")
    assert (served.available, served.max_team, served.max_rounds) == (("ann", "bob", "cleo"), 3, 2)
    assert (served.cost_weight, served.explore, served.explored) == (0.2, 0.0, False)
    assert [(c.member, c.round, c.text, c.answer) for c in served.candidates] == [
        ("ann", 1, "42", "42"),
        ("cleo", 2, "17", "17"),
    ]
    assert [(failure.member, failure.kind) for failure in served.failures] == [
        ("bob", how(message)["failures"][0]["kind"])
    ]
    assert served.answer.member == how(message)["fusion"]["member"]
    assert served.propensity == {"ann": 1.0, "bob": 1.0, "cleo": 1.0}


def test_nobody_is_credited_with_what_the_synthesizer_wrote(log):
    model = said_42(log, synthesizer=saying("It is 42, or 17."), synthesize_below=1.0)
    message = model.invoke(QUESTION)
    assert message.text == "It is 42, or 17."
    served = log.served(how(message)["answer_id"])
    assert (served.answer.member, served.answer.answer) == (None, None)
    assert served.answer.weights == pytest.approx({"42": 2 / 3, "17": 1 / 3})


# ---- exploring


def test_a_random_team_is_asked_at_once_and_fused(log):
    model = said_42(log, ("ann",), max_team=2, explore=1.0)
    teams = set()
    for number in range(30):
        message = model.invoke(QUESTION, {"run_id": UUID(int=number)})
        assert how(message)["explored"]
        [team] = asked(message)
        assert how(message)["rounds"][0]["probabilities"] == dict.fromkeys(("ann", "bob", "cleo"), 2 / 3)
        teams.add(frozenset(team))
    assert teams == {frozenset(pair) for pair in combinations(("ann", "bob", "cleo"), 2)}
    assert "a random team was asked" in model.explain(message)


def test_the_answers_id_fixes_whether_and_whom_to_explore(log):
    model = said_42(log, ("ann",), max_team=2, explore=0.5)
    config = {"run_id": UUID(int=7)}
    assert asked(model.invoke(QUESTION, config)) == asked(model.invoke(QUESTION, config))
    assert how(model.invoke(QUESTION, explore=0.0))["explored"] is False
    assert how(model.invoke(QUESTION, explore=1.0))["explored"] is True


def test_every_team_is_drawn_as_often_as_any_other():
    """10,000 ids: a share of ε within four standard errors, and of each of C(5, 2) teams the tenth part likewise."""
    ids, members = [str(UUID(int=number)) for number in range(10_000)], tuple("abcde")
    share = sum(_draw(one) < 0.1 for one in ids) / 1e4
    assert abs(share - 0.1) < 4 * (0.1 * 0.9 / 1e4) ** 0.5
    teams = [frozenset(_random_team(one, members, 2).members) for one in ids]
    for team in combinations(members, 2):
        assert abs(teams.count(frozenset(team)) / 1e4 - 1 / comb(5, 2)) < 4 * (0.1 * 0.9 / 1e4) ** 0.5


def test_propensities_are_those_of_the_draw(log):
    """Four members, teams of two, ε = 0.2: by chance 0.2 · 2/4 = 0.1; Ann and Bob, whom the policy asks, 0.8 more."""
    members = {name: saying(name) for name in ("ann", "bob", "cleo", "dora")}
    model = model_of(members, ("ann", "bob"), outcome_log=log, max_team=2, max_rounds=1, explore=0.2)
    expected = {"ann": 0.9, "bob": 0.9, "cleo": 0.1, "dora": 0.1}
    weights = dict.fromkeys(members, 0.0)
    for number in range(400):
        answer_id = UUID(int=number)
        [team] = asked(model.invoke(QUESTION, {"run_id": answer_id}))
        propensity = log.served(str(answer_id)).propensity if number < 40 else {name: expected[name] for name in team}
        assert propensity == pytest.approx({name: expected[name] for name in team})
        for name in team:
            weights[name] += 1 / propensity[name] / 400
    # The mean of 1/p over who was asked is 1: within four standard errors, √((1 - p)/p / 400).
    for name, weight in weights.items():
        assert abs(weight - 1) < 4 * ((1 - expected[name]) / expected[name] / 400) ** 0.5, name


def test_whom_the_policy_would_ask_later_is_known_from_the_random_teams_answers(log):
    """It asks Ann, then Bob; a random team of Ann and Bob shows both, and one of Ann and Cleo that Cleo is not asked.

    One of Bob and Cleo does not show what Ann would say, so that nobody knows who would be asked next: theirs are unknown.
    k/n = 2/3, ε = 0.3: by chance 0.2, by the policy 0.7 more.
    """
    model = said_42(log, ("ann",), ("bob",), max_team=2, explore=0.3)
    expected = {
        frozenset({"ann", "bob"}): {"ann": 0.9, "bob": 0.9},
        frozenset({"ann", "cleo"}): {"ann": 0.9, "cleo": 0.2},
        frozenset({"bob", "cleo"}): {},
    }
    for number in range(40):
        message = model.invoke(QUESTION, {"run_id": UUID(int=number)})
        team = frozenset(name for round_ in asked(message) for name in round_)
        propensity = log.served(str(UUID(int=number))).propensity
        assert propensity == pytest.approx(expected[team] if how(message)["explored"] else {"ann": 0.9, "bob": 0.9})
    assert {one.propensity and round(one.propensity, 9) for one in log.outcomes()} == {0.9, 0.2, None}


def test_one_member_that_a_call_names_is_asked_with_certainty(log):
    message = said_42(log, explore=1.0).invoke(QUESTION, model="cleo")
    served = log.served(how(message)["answer_id"])
    assert (served.available, served.explored, served.propensity) == (("cleo",), False, {"cleo": 1.0})
    assert served.pinned


def test_who_an_operating_point_names_is_recorded_as_pinned(log, random_policy):
    """One call on average is Ann alone; that is so as well where a random team is asked instead, for it was not the policy's turn."""
    curve = [
        {"cost_weight": 0.0, "mean_calls": 2.0, "score": 0.9},
        {"cost_weight": 2.0, "mean_calls": 1.0, "score": 0.5, "member": "ann"},
    ]
    members = {"ann": saying("42"), "bob": saying("42")}
    model = RLFocalChatModel(members=members, policy=random_policy((*members,), card={"curve": curve}), outcome_log=log)
    for options, pinned in (({"target_calls": 1.0}, True), ({"target_calls": 1.0, "explore": 1.0}, True), ({}, False)):
        message = model.invoke(QUESTION, **options)
        assert log.served(how(message)["answer_id"]).pinned is pinned


def test_a_hedges_propensity_is_unknown(log):
    """Bob is asked only because Ann is slow."""
    slow = ScriptedChatModel(script=["42"], on_acall=lambda: asyncio.Event().wait())
    model = model_of(
        {"ann": slow, "bob": saying("42")}, ("ann",), outcome_log=log, max_rounds=1, hedge=True, deadline_s=5.0
    )
    for _ in range(30):
        model.shared_state.latencies.add("ann", 0.001)
    message = asyncio.run(model.ainvoke(QUESTION))
    served = log.served(how(message)["answer_id"])
    assert served.asked == {"ann", "bob"}
    assert served.propensity == {"ann": 1.0}


def test_nobody_of_a_random_team_is_called_off(log):
    """Two of three agree, and what Cleo says cannot change that: but it is to be known."""
    model = said_42(log, explore=1.0)
    message = asyncio.run(model.ainvoke(QUESTION))
    assert log.served(how(message)["answer_id"]).failures == ()


async def test_recording_never_holds_up_the_event_loop(log):
    model = said_42(log, explore=0.5)
    await model.ainvoke(QUESTION)
    with blockbuster_ctx():
        messages = await model.abatch([QUESTION] * 20)
        await model.afeedback(messages[0], 1)
    assert log.last_seq == 1


async def test_feedback_on_answers_that_nobody_knows_holds_up_no_thread(log, monkeypatch):
    """While 20 unknown answers are waited for, a known one takes its feedback."""
    monkeypatch.setattr(log_module, "WAIT_S", 20.0)
    model = said_42(log)
    message = await model.ainvoke(QUESTION)
    unknown = [asyncio.create_task(model.afeedback(uuid4(), 1)) for _ in range(20)]
    await asyncio.sleep(0)  # they begin
    async with asyncio.timeout(5):
        await model.afeedback(message, 1)
    assert log.last_seq == 1
    assert not any(task.done() for task in unknown)
    for task in unknown:
        task.cancel()
    await asyncio.gather(*unknown, return_exceptions=True)


async def test_feedback_that_waits_for_the_file_holds_up_no_thread_of_the_loop(log, monkeypatch):
    """The loop has one thread, which is free while feedback is being written."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    model, begun, may_end, add = said_42(log), threading.Event(), threading.Event(), log.add_feedback

    def add_slowly(feedback):
        begun.set()
        may_end.wait(20)
        return add(feedback)

    monkeypatch.setattr(log, "add_feedback", add_slowly)
    message = await model.ainvoke(QUESTION)
    waiting = asyncio.create_task(model.afeedback(message, 1))
    with ThreadPoolExecutor(1) as other:
        await asyncio.get_running_loop().run_in_executor(other, begun.wait)
    async with asyncio.timeout(5):
        assert await asyncio.to_thread(lambda: "free") == "free"
    may_end.set()
    await waiting
    assert log.last_seq == 1


async def test_afeedback_refuses_what_feedback_does(log):
    model = said_42(log, ("ann",))
    message = await model.ainvoke(QUESTION)
    for args in ((uuid4(), 1), (message, 2), (message, 1, {"bob": 1})):
        with pytest.raises(FeedbackError):
            await model.afeedback(*args)


@pytest.mark.parametrize("explore", [-0.1, 1.1, "0.5"])
def test_explore_is_a_share(explore):
    with pytest.raises(InputError, match="`explore` must be"):
        model_of({"ann": saying("42")}, explore=explore)


# ---- what is refused


def test_feedback_that_breaks_a_rule_says_so_and_how_to_mend_it(log):
    model = said_42(log, ("ann",))
    message = model.invoke(QUESTION)
    for args, rule in (
        ((uuid4(), 1), "unknown id .* `outcome_log`"),
        (("no id", 1), "its message, its `response_metadata`, or its id, got 'no id'. Pass what"),
        ((saying("42").invoke(QUESTION), 1), "about an answer of RLFocalChatModel"),
        ((None, 1), "about an answer of RLFocalChatModel"),
        ((message, 1.5), r"`score` must be a number in \[0, 1\], got 1.5"),
        ((message, "good"), "`score` must be a number"),
        ((message, 10**400), r"`score` must be a number in \[0, 1\], got a number of 1329 bits"),
        ((message, 10**5000), r"`score` must be a number"),
        ((message, float("nan")), "`score` must be a number"),
        ((message, 1, ["ann"]), "`per_member` must map members to scores, got list. Give"),
        ((message, 1, []), "`per_member` must map members to scores, got list. Give"),
        ((message, 1, {"ann": -(10**400)}), r"`per_member\['ann'\]` must be"),
        ((message, 1, {"bob": 1}), r"members that were asked \(ann\), got 'bob'"),
        ((message, 1, {"ann": 2}), r"`per_member\['ann'\]` must be"),
    ):
        with pytest.raises(FeedbackError, match=rule):
            model.feedback(*args)
    model.feedback(message, np.bool_(True))
    with pytest.raises(FeedbackError, match=r"takes feedback once"):
        model.feedback(message, 1)
    assert log.last_seq == 1


def test_an_answer_of_another_pool_is_not_this_models(log):
    message = said_42(log, ("cleo",)).invoke(QUESTION)
    other = model_of({"ann": saying("42"), "bob": saying("42")}, outcome_log=log)
    with pytest.raises(FeedbackError, match=r"this pool \(ann, bob\), and .* could have asked, cleo. Give"):
        other.feedback(message, 1)


async def test_a_pools_answer_is_its_own_also_where_who_was_asked_is_in_another(log):
    """Only Ann was asked, whom both have; a pool of all that could be asked, and of more, takes it."""
    message = said_42(log, ("ann",)).invoke(QUESTION)
    small = model_of({"ann": saying("42"), "bob": saying("42")}, outcome_log=log)
    with pytest.raises(FeedbackError, match=r"this pool \(ann, bob\), and .* could have asked, cleo. Give"):
        await small.afeedback(message, 1)
    large = model_of({name: saying("42") for name in ("ann", "bob", "cleo", "dora")}, outcome_log=log)
    await large.afeedback(message, 1)


def test_feedback_without_a_log_names_the_field():
    model = model_of({"ann": saying("42")})
    with pytest.raises(FeedbackError, match=r'`outcome_log="outcomes.db"`'):
        model.feedback(model.invoke(QUESTION), 1)


def test_a_log_is_a_path_or_a_log(tmp_path):
    members = {"ann": saying("42")}
    model = RLFocalChatModel(members=members, outcome_log=tmp_path / "outcomes.db")
    again = RLFocalChatModel(members=members, outcome_log=str(tmp_path / "outcomes.db"))
    assert again.outcome_log is model.outcome_log is model.model_copy().outcome_log
    with pytest.raises(
        InputError, match="`outcome_log` must be an `OutcomeLog`, the path or URL of one, or None, got int"
    ):
        RLFocalChatModel(members=members, outcome_log=7)
    model.outcome_log.close()
