"""Early commit and hedging: members that are no longer needed are cancelled, and slow ones get company."""

import pytest
from langchain_core.messages import AIMessage
from langchain_core.messages.tool import tool_call
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_rlfocal import PoolMember
from langchain_rlfocal.policies import Commitment
from langchain_rlfocal.testing import ScriptedPolicy
from support_time import TimedChatModel, ensemble, no_jitter, play, timed

LONG = "It depends on what is meant, and on much else that would have to be said at length before one could say. " * 9


class Tooled(TimedChatModel):
    def bind_tools(self, tools, **kwargs):
        return self.bind()


def calling(seconds, **args):
    message = AIMessage("", tool_calls=[tool_call(name="look", args=args, id="1")])
    return Tooled(script=[(seconds, message)])


def trio(first="yes", second="yes", third="no"):
    """Members that answer after 1, 2 and 9 s."""
    return {"a": timed((1, first)), "b": timed((2, second)), "c": timed((9, third))}


# ---- early commit


def test_two_of_three_that_agree_do_not_wait_for_the_third(way):
    """2 of 3 equal votes: at 2 s the third is cancelled, which is no fault of its own, and its run is closed."""
    collector, members = RunCollectorCallbackHandler(), trio()
    answer = play(way, ensemble(members), config={"callbacks": [collector]})
    assert (answer.message.text, answer.took_s) == ("yes", 2)
    assert answer.kinds == {"c": "cancelled"}
    assert answer.model.breakers == {}
    assert answer.model.spent.calls == 3
    if way == "ainvoke":
        assert members["c"].hows == ["cancelled"]
        [run] = collector.traced_runs
        assert [child.end_time is None for child in run.child_runs] == [False] * 3


@pytest.mark.parametrize(
    ("members", "fields"),
    [
        (trio(), {"early_commit": False}),
        (trio(second="no"), {}),
        ({"a": timed((1, "yes")), "c": timed((9, "no"))}, {}),
        (trio(), {"synthesizer": timed((0, "no")), "synthesize_below": 0.7}),
        (trio(), {"policy": ScriptedPolicy([["a", "b", "c"]], ("a", "b", "c"))}),
        (trio(), {"min_candidates": 3}),
    ],
    ids=["switched off", "tie", "tie of two", "synthesizer", "policy without a promise", "too few yet"],
)
def test_what_is_not_certain_is_waited_for(way, members, fields):
    answer = play(way, ensemble(members, **fields))
    assert answer.took_s == 9
    assert "cancelled" not in answer.kinds.values()


def test_long_texts_are_waited_for_unless_they_are_one_and_the_same(way):
    """No third text can part two that are equal."""
    assert play(way, ensemble(trio(LONG, LONG, LONG)), "Tell me all about it.").took_s == 2
    assert play(way, ensemble(trio(LONG, f"{LONG} Rarely.", LONG)), "Tell me all about it.").took_s == 9


def test_where_another_round_can_follow_nobody_is_cancelled(way):
    """The prior policy asks two first; four members could still be asked, so both are waited for, though one decides."""
    first = PoolMember("a", timed((1, "yes")), competence=0.9)
    others = [PoolMember(name, timed((9, "yes")), competence=0.1) for name in "bcd"]
    two = play(way, ensemble([first, others[0]], max_rounds=2))
    four = play(way, ensemble([first, *others], max_rounds=2))
    assert (two.took_s, four.took_s) == (1, 9)


def test_a_synthesizer_is_left_out_only_if_the_promised_confidence_is_enough(way):
    """The least that two of three can end with is 2/3."""
    sure = play(way, ensemble(trio(), synthesizer=timed((0, "no")), synthesize_below=0.66))
    assert (sure.message.text, sure.took_s) == ("yes", 2)


def test_tool_calls_that_agree_do_not_wait(way):
    look = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
    members = {"a": calling(1, at="x"), "b": calling(2, at="x"), "c": calling(9, at="y")}
    answer = play(way, ensemble(members), tools=[look])
    assert answer.error is None
    assert answer.message.tool_calls[0]["args"] == {"at": "x"}
    assert answer.took_s == 2


def test_a_text_beside_tool_calls_is_waited_for(way):
    members = {"a": calling(1, at="x"), "b": calling(2, at="x"), "c": Tooled(script=[(9, "no")])}
    members |= {"d": Tooled(script=[(1, "no")]), "e": calling(1, at="x")}
    assert play(way, ensemble(members)).took_s == 9


def test_options_that_agree_do_not_wait(way):
    question = "Which is it?\nA) red\nB) blue\nC) green\nAnswer with one letter."
    answer = play(way, ensemble(trio("A", "A", "B")), question)
    assert (answer.message.text, answer.took_s) == ("A", 2)


@pytest.mark.parametrize(("confidence", "took_s"), [(0.5, 9), (0.51, 2)])
def test_a_promise_settles_only_with_more_than_half_of_the_weight(way, confidence, took_s):
    """With half of it, what the answer is called a majority of could still change."""

    class Promising(ScriptedPolicy):
        def commitment(self, query, candidates, failures, *, running):
            return Commitment(confidence if len(candidates) == 2 else 0.0, author_is_final=True)

    members = trio()
    answer = play(way, ensemble(members, policy=Promising([list(members)], tuple(members))))
    assert (answer.message.text, answer.took_s) == ("yes", took_s)


def test_a_call_can_wait_for_all(way):
    assert play(way, ensemble(trio()), early_commit=False).took_s == 9


def test_early_commit_never_leaves_fewer_than_a_short_budget_needs(way):
    """Three calls for four members: the third answer is needed, though two settle it."""
    members = {"a": timed((1, "yes")), "b": timed((1, "yes")), "c": timed((2, "yes")), "d": timed((1, "yes"))}
    answer = play(way, ensemble(members, budget_per_answer={"max_calls": 3}, min_candidates=3))
    assert answer.error is None
    assert (answer.kinds, answer.took_s) == ({"d": "budget"}, 2)


# ---- hedging


def hedging(members, team, seen=20, *, hedge=True, **fields):
    """A maker of ensembles whose policy asks a team, and which have seen member a answer in 1 s so often."""

    def make(clock):
        policy = ScriptedPolicy([team], tuple(members))
        fields_ = {"policy": policy, "max_team": len(team) + 1, "hedge": hedge, **fields}
        model = ensemble(members, **fields_)(clock)
        for _ in range(seen):
            model.shared_state.latencies.add("a", 1.0)
        return model

    return make


def test_a_slow_member_gets_company_after_its_usual_time(way):
    """It mostly takes 1 s: at 1 s the other is asked, answers at 1½ s, and the slow one is cancelled."""
    slow, spare = timed((9, "no")), timed((0.5, "yes"))
    answer = play(way, hedging({"a": slow, "b": spare}, ["a"]))
    assert (answer.message.text, answer.took_s) == ("yes", 1.5)
    assert spare.begun_s == [1]
    assert answer.kinds == {"a": "cancelled"}
    assert answer.model.breakers == {}


def test_the_decider_s_next_choice_is_the_one_that_is_asked(way):
    members = {"a": timed((9, "no")), "b": timed((0, "b")), "c": timed((0, "c"))}
    likely = {"a": 1.0, "b": 0.1, "c": 0.4}

    class Sure(ScriptedPolicy):
        def select(self, *args, **kwargs):
            selection = super().select(*args, **kwargs)
            return type(selection)(selection.round, selection.members, likely)

    make = hedging(members, ["a"], policy=Sure([["a"]], tuple(members)), max_team=2)
    assert play(way, make).answered == ["c"]


@pytest.mark.parametrize(
    ("seen", "fields"), [(19, {}), (20, {"hedge": False}), (20, {"max_team": 1})], ids=["seen", "off", "full"]
)
def test_otherwise_nobody_gets_company(way, seen, fields):
    spare = timed((0, "yes"))
    answer = play(way, hedging({"a": timed((9, "no")), "b": spare}, ["a"], seen, **fields))
    assert (answer.message.text, answer.took_s, spare.log) == ("no", 9, [])


def test_hedging_is_off_unless_it_is_asked_for(way):
    model = play(way, ensemble({"a": timed((0, "yes"))})).model
    assert not model.hedge


def test_a_member_that_is_quick_enough_is_asked_alone(way):
    spare = timed((0, "yes"))
    answer = play(way, hedging({"a": timed((0.75, "no")), "b": spare}, ["a"]))
    assert (answer.took_s, spare.log) == (0.75, [])


def test_where_the_company_fails_the_slow_one_still_counts(way):
    answer = play(way, hedging({"a": timed((3, "no")), "b": timed((1, ValueError("bug")))}, ["a"]))
    assert (answer.message.text, answer.took_s) == ("no", 3)
    assert answer.kinds == {"b": "ValueError"}


def test_where_the_slow_one_fails_its_company_counts(way):
    answer = play(way, hedging({"a": timed((2, ValueError("bug"))), "b": timed((2, "yes"))}, ["a"]))
    assert (answer.message.text, answer.took_s) == ("yes", 3)
    assert answer.kinds == {"a": "ValueError"}


def test_the_slow_one_s_answer_cancels_its_company(way):
    spare = timed((9, "yes"))
    answer = play(way, hedging({"a": timed((2, "no")), "b": spare}, ["a"]))
    assert (answer.message.text, answer.took_s, answer.kinds) == ("no", 2, {"b": "cancelled"})


def test_company_gets_no_company_of_its_own(way):
    """b is known to take 1 s too, and takes 9 s beside a: c is not asked."""
    members = {"a": timed((9, "no")), "b": timed((9, "yes")), "c": timed((0, "yes"))}
    made = hedging(members, ["a"], max_team=3)

    def make(clock):
        model = made(clock)
        for _ in range(20):
            model.shared_state.latencies.add("b", 1.0)
        return model

    answer = play(way, make)
    assert (answer.message.text, answer.took_s, members["c"].log) == ("no", 9, [])


def test_who_waits_to_be_asked_again_gets_company_too(way):
    """Fails at ¾ s, is due again at 1¼ s; at 1 s the other is asked, and answers at once."""
    a = timed((0.75, ConnectionError("busy")), (9, "no"))
    with no_jitter():
        answer = play(way, hedging({"a": a, "b": timed((0, "yes"))}, ["a"]))
    assert (answer.took_s, a.begun_s) == (1, [0])
    [failure] = answer.how["failures"]
    assert [failure["kind"], [retry["kind"] for retry in failure["retries"]]] == ["cancelled", ["ConnectionError"]]
