"""Sessions: who holds a conversation in its provider's cache is cheaper, or goes on alone; and who does not, is not.

Time is a number that the test moves; what members hold is worked out by hand.
"""

import copy
import pickle
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage

from langchain_rlfocal import PoolMember, RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.chat_models.sessions import Turn, session_of, takes_price_factors
from langchain_rlfocal.errors import EnsembleError, InputError, PoolError
from langchain_rlfocal.execution import Prompt, Session, Sessions
from langchain_rlfocal.execution.sessions import MAX_CALLS, MAX_PREFIXES
from langchain_rlfocal.log import Feedback, OutcomeLog, ServedAnswer
from langchain_rlfocal.online.off_policy import done_by, expected_score, follow
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.records import Answer, Candidate, Query, Selection
from langchain_rlfocal.testing import CachingChatModel, FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_ensembles import asked, how
from support_schema_model import SchemaChatModel
from support_tools import weather

QUESTION = "What is the weather in Oslo?"
PRICES = {"input_usd_per_mtok": 2.0, "cached_input_usd_per_mtok": 0.2, "output_usd_per_mtok": 8.0}
ONE = Session.of("one")


def member(name="ann", **fields):
    return PoolMember(name, ScriptedChatModel(script=["ok"]), **{**PRICES, "cache_min_tokens": 0, **fields})


def prompt(*tokens, branch="a"):
    """A prompt whose messages end at these numbers of tokens; another branch has other words from its second message on."""
    names = [f"{place}{'' if place == 0 else branch}".encode() for place in range(len(tokens))]
    return Prompt(tuple(names), tokens)


# ---- what a member holds, by hand


def test_a_conversation_of_three_steps_costs_what_its_cache_leaves_of_it():
    """Input at $2, cached at $0.2, output at $8 a million; each response has 100 tokens.

    Step 1 reads 1000 tokens: 2000 + 800 = 2800 millionths. Step 2 reads 1500, of which 1000 are held: 1000 + 200 + 800 = 2000 of
    3800. Step 3 reads 2000, of which 1500 are held: 1000 + 300 + 800 = 2100 of 4800. Somebody else would read all at its price.
    """
    sessions, ann, bob = Sessions(), member(), member("bob", input_usd_per_mtok=1.0, output_usd_per_mtok=4.0)
    steps = [prompt(1000), prompt(1000, 1200, 1500), prompt(1000, 1200, 1500, 1600, 2000)]
    costs = []
    for at_s, sent in enumerate(steps):
        expected = sessions.expected(ONE, ann, sent, at_s)
        costs.append((expected.held_tokens, expected.usd, expected.full_usd))
        facts = {"prompt_tokens": sent.num_tokens, "cached_tokens": expected.held_tokens, "response_tokens": 100}
        sessions.note(ONE, ann, sent, at_s=at_s, expected_tokens=expected.held_tokens, **facts)
    millionths = [(held, pytest.approx(usd * 1e6), pytest.approx(full * 1e6)) for held, usd, full in costs]
    assert millionths == [(0, 2000 + 256 * 8, 2000 + 256 * 8), (1000, 2000, 3800), (1500, 2100, 4800)]
    other = sessions.expected(ONE, bob, steps[-1], 3)
    assert (other.held_tokens, other.usd) == (0, pytest.approx((2000 + 4 * 256) / 1e6))
    assert (other.factor(1), expected.factor(1)) == (1.0, pytest.approx(2100 / 4800))


def test_who_is_new_to_a_conversation_reads_it_once_and_holds_it_for_the_steps_that_follow():
    """2000 tokens that Ann holds: 400 + 256 · 8 = 2448 of 6048 at each step. Bob has them at 6048 once, and then at 2448.

    Over four steps his price is (6048 + 3 · 2448) / 4 = 3348 each. Where a question has one answer only the first counts.
    """
    sessions, ann, bob = Sessions(), member(), member("bob")
    sent = prompt(2000)
    sessions.note(ONE, ann, sent, at_s=0)
    held, new = (sessions.expected(ONE, one, sent, 1) for one in (ann, bob))
    assert (held.factor(1), held.factor(4)) == (pytest.approx(2448 / 6048), pytest.approx(2448 / 6048))
    assert (new.factor(1), new.factor(4)) == (1.0, pytest.approx(3348 / 6048))


def test_who_asks_for_writing_to_its_cache_is_dearer_at_first_and_repays_it():
    """Writing costs $2.5. 2000 new tokens are 5000 + 2048 = 7048 of 6048; 500 more are 2000 · 0.2 + 500 · 2.5 + 2048 = 3698 of 7048.

    Bob caches nothing that anybody marked: what is never read is never written either, and the more is known of it the less.
    """
    sessions, ann, bob = Sessions(), *(member(name, cache_write_usd_per_mtok=2.5) for name in ("ann", "bob"))
    new = sessions.expected(ONE, ann, prompt(2000), 0)
    assert (new.usd, new.full_usd, new.later_usd) == tuple(pytest.approx(usd / 1e6) for usd in (7048, 6048, 2448))
    assert (new.factor(1), new.factor(3)) == (pytest.approx(7048 / 6048), pytest.approx((7048 + 2 * 2448) / 18144))
    for one in (ann, bob):
        sessions.note(ONE, one, prompt(2000), at_s=0)
    grown = sessions.expected(ONE, ann, prompt(2000, 2500), 1)
    assert (grown.usd, grown.full_usd) == (pytest.approx(3698e-6), pytest.approx(7048e-6))
    for _ in range(400):
        held = sessions.expected(ONE, bob, prompt(2000), 1).held_tokens
        sessions.note(ONE, bob, prompt(2000), at_s=1, expected_tokens=held, cached_tokens=0)
    assert sessions.expected(ONE, bob, prompt(2000, 2500), 1).factor(4) == pytest.approx(1.0, abs=0.04)
    short = member(cache_write_usd_per_mtok=2.5, cache_min_tokens=2001)
    assert sessions.expected(Session.of("two"), short, prompt(2000), 1).factor(4) == 1.0


def test_a_member_that_keeps_nothing_is_never_cheaper_now_or_later():
    """Its cache lives for no time: also what was sent in this very moment is not there."""
    sessions, ann = Sessions(), member(cache_ttl_s=0)
    sessions.note(ONE, ann, prompt(2000), at_s=0)
    expected = sessions.expected(ONE, ann, prompt(2000, 2500), 0)
    assert (expected.held_tokens, expected.factor(1), expected.factor(10)) == (0, 1.0, 1.0)


def test_how_many_answers_a_question_has_is_seen_in_how_many_are_not_the_first():
    """One each is expected; of many questions with four answers each, four."""
    sessions = Sessions()
    assert sessions.usual_steps == 1.0
    for place in range(400):
        sessions.note_answer(ONE, "ann", is_first=place % 4 == 0)
    assert sessions.usual_steps == pytest.approx(4, rel=0.1)


def test_what_a_provider_reports_of_a_beginning_replaces_the_estimate():
    """It took 1100 where 1000 were estimated, so that 1500 are 1600, of which it holds 1100."""
    sessions, ann = Sessions(), member()
    sessions.note(ONE, ann, prompt(1000), at_s=0, prompt_tokens=1100)
    expected = sessions.expected(ONE, ann, prompt(1000, 1500), 1)
    assert (expected.prompt_tokens, expected.held_tokens) == (1600, 1100)


def test_a_provider_that_reports_no_hits_is_expected_to_have_fewer():
    """Two hits that came true, as nobody has seen: after two that did not, 2 of 4 (but for what fades)."""
    sessions, ann = Sessions(), member()
    sessions.note(ONE, ann, prompt(1000), at_s=0)
    shares = []
    for _ in range(2):
        held = sessions.expected(ONE, ann, prompt(1000, 1500), 1).held_tokens
        sessions.note(ONE, ann, prompt(1000), at_s=0, expected_tokens=held, cached_tokens=0)
        shares.append(sessions.hit_share("ann"))
    assert shares == [pytest.approx(2 / 3), pytest.approx(2 / 3.98)]
    assert sessions.expected(ONE, ann, prompt(1000, 1500), 1).held_tokens == int(1000 * 2 / 3.98)
    assert sessions.hit_share("bob") == 1.0


@pytest.mark.parametrize(
    ("session", "sent", "at_s"),
    [
        (Session.of("two"), prompt(1000, 1500), 1),
        (ONE, prompt(900, 1000, 1500, branch="b"), 1),
        (ONE, Prompt((b"other system", b"1 below it"), (1000, 1500)), 1),
        (ONE, prompt(1000, 1500), 300.1),
        (ONE, Prompt((), ()), 1),
    ],
    ids=["another thread", "an edited history", "another system prompt", "too late", "nothing"],
)
def test_what_is_not_held_is_not_cheaper(session, sent, at_s):
    sessions, ann = Sessions(), member()
    sessions.note(ONE, ann, prompt(900, 1000), at_s=0)
    expected = sessions.expected(session, ann, sent, at_s)
    assert (expected.held_tokens, expected.factor(1)) == (0, 1.0)


def test_a_cache_lives_from_its_last_use_and_begins_at_its_least_size():
    sessions, ann = Sessions(), member(cache_min_tokens=1001)
    for at_s in (0, 200, 400):
        sessions.note(ONE, ann, prompt(1000, 1001), at_s=at_s)
    sent = prompt(1000, 1001, 1500)
    assert [sessions.expected(ONE, ann, sent, at_s).held_tokens for at_s in (400, 700, 701)] == [1001, 1001, 0]
    sessions.note(ONE, ann, prompt(1000), at_s=1000)
    assert sessions.expected(ONE, ann, prompt(1000, 1500, branch="b"), 1000).held_tokens == 0


def test_a_branch_of_a_conversation_is_held_as_far_as_it_is_the_same():
    sessions, ann = Sessions(), member()
    sessions.note(ONE, ann, prompt(1000), at_s=0)
    sessions.note(ONE, ann, prompt(1000, 1500), at_s=1)
    assert sessions.expected(ONE, ann, prompt(1000, 1600, 1800, branch="b"), 2).held_tokens == 1000


def test_tokens_are_only_cheaper_where_prices_say_so():
    sessions, free, unknown = Sessions(), member(cached_input_usd_per_mtok=None), PoolMember("u", SchemaChatModel())
    for one in (free, unknown):
        sessions.note(ONE, one, prompt(2000), at_s=0)
    assert sessions.expected(ONE, free, prompt(2000), 1).factor(1) == 1.0
    expected = sessions.expected(ONE, unknown, prompt(2000), 1)
    assert (expected.usd, expected.held_tokens, expected.factor(1)) == (None, 2000, 1.0)


@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=6),
    held=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    reads=st.floats(0, 10),
    cached=st.floats(0, 1),
    least=st.integers(0, 2000),
)
def test_a_longer_held_beginning_is_never_dearer(lengths, held, reads, cached, least):
    """Whatever the prices, as long as cached tokens cost no more than others."""
    ends = [sum(lengths[: place + 1]) for place in range(len(lengths))]
    one = member(input_usd_per_mtok=reads, cached_input_usd_per_mtok=reads * cached, cache_min_tokens=least)
    costs = []
    for num in sorted(held):
        sessions = Sessions()
        if num:
            sessions.note(ONE, one, prompt(*ends[:num]), at_s=0)
        costs.append(sessions.expected(ONE, one, prompt(*ends), 0))
    assert costs[0].usd >= costs[1].usd
    assert all(cost.usd <= cost.full_usd for cost in costs)
    assert all(cost.held_tokens <= cost.prompt_tokens for cost in costs)


# ---- what is kept


def test_a_prompts_hash_tells_apart_what_a_provider_reads():
    """Words, roles, calls, their ids and the tools; neither a message's own id nor what is known of how it came about."""
    call = {"name": "f", "args": {"a": 1}, "id": "1", "type": "tool_call"}
    told = [HumanMessage("a"), AIMessage("b", tool_calls=[call]), ToolMessage("c", tool_call_id="1")]
    same = [
        told,
        [HumanMessage("a", id="x"), AIMessage("b", tool_calls=[call], response_metadata={"x": 1}), told[2]],
    ]
    others = [
        [SystemMessage("a"), *told[1:]],
        [HumanMessage("a "), *told[1:]],
        [told[0], AIMessage("b", tool_calls=[{**call, "args": {"a": 2}}]), told[2]],
        [told[0], AIMessage("b", tool_calls=[{**call, "id": "2"}]), told[2]],
        [*told[:2], ToolMessage("c", tool_call_id="2")],
    ]
    first, second = (Prompt.of(messages) for messages in same)
    assert first == second
    assert first.tokens == tuple(sorted(first.tokens))
    assert all(Prompt.of(other).hashes[-1] != first.hashes[-1] for other in others)
    assert Prompt.of(told, schemas="[f]").hashes[0] != first.hashes[0]
    assert (
        Prompt.of([HumanMessage("ab"), HumanMessage("c")]).hashes
        != Prompt.of([HumanMessage("a"), HumanMessage("bc")]).hashes
    )


def test_a_provider_that_holds_a_part_of_each_prompt_is_expected_to_hold_that_part():
    """Three quarters of 1000 tokens, again and again, whatever was expected."""
    sessions, ann = Sessions(), member()
    for _ in range(400):
        held = sessions.expected(ONE, ann, prompt(1000), 1).held_tokens
        sessions.note(ONE, ann, prompt(1000), at_s=1, expected_tokens=held, cached_tokens=750)
    assert sessions.hit_share("ann") == pytest.approx(0.75, abs=0.02)


def test_a_beginning_lives_on_with_what_follows_it():
    """Sent at 0 and, with more behind it, at 200: at 400 another branch of it is held as far."""
    sessions, ann = Sessions(), member()
    sessions.note(ONE, ann, prompt(1000), at_s=0)
    sessions.note(ONE, ann, prompt(1000, 1500), at_s=200)
    assert sessions.expected(ONE, ann, prompt(1000, 1600, branch="b"), 400).held_tokens == 1000


def test_how_many_answers_a_question_has_is_forgotten_as_agents_change():
    sessions = Sessions()
    for place in range(800):
        sessions.note_answer(ONE, "ann", is_first=place >= 400 or place % 4 == 0)
    assert sessions.usual_steps == pytest.approx(1.0, abs=0.1)


def test_what_was_used_last_stays(monkeypatch):
    """A session and a message's count that nobody used for longest are forgotten."""
    monkeypatch.setattr("langchain_rlfocal.execution.sessions.MAX_SESSIONS", 2)
    monkeypatch.setattr("langchain_rlfocal.execution.sessions.MAX_COUNTED", 2)
    sessions = Sessions()
    for name in ("a", "b", "a", "c"):
        sessions.note_answer(Session.of(name), "ann", is_first=True)
    assert [Session.of(name) in sessions for name in "abc"] == [True, False, True]
    sent = Prompt.of([HumanMessage(text) for text in "abc"], known=sessions.token_counts)
    assert len(sessions.token_counts) == 2
    assert sent == Prompt.of([HumanMessage(text) for text in "abc"])


def test_of_two_processes_the_later_use_counts_and_calls_are_known_in_both():
    here, there, ann = Sessions(), Sessions(), member()
    here.note(ONE, ann, prompt(1000), at_s=0)
    here.note_calls(["call_0"], "ann", ONE)
    there.note_calls(["call_0"], "bob")
    there.note(ONE, ann, prompt(1000), at_s=200)
    there.load(ONE, here.dump(ONE, now_s=0), now_s=0)
    here.load(ONE, there.dump(ONE, now_s=0), now_s=0)
    assert [one.expected(ONE, ann, prompt(1000), 499).held_tokens for one in (here, there)] == [1000, 1000]
    assert there.caller(["call_0"], ONE) == "ann"


class Listening(PriorPolicy):
    """Keeps the prices that it is told."""

    told: tuple = ()

    def select(self, *args, price_factors=None, **rest):
        self.told = (*self.told, price_factors)
        return super().select(*args, price_factors=price_factors, **rest)


def test_a_policy_that_is_played_on_the_log_is_told_the_prices_of_then():
    factors = {"ann": 0.5, "bob": 1.0}
    said = Candidate("ann", 1, "It is.", "yes", 1.0)
    served = ServedAnswer(
        id="1", query=Query("q"), available=("ann", "bob"), policy_id="p", cost_weight=0.1, max_team=1, max_rounds=1,
        candidates=(said,), failures=(), answer=Answer("ann", "yes", {"yes": 1.0}, {"yes": ("ann",)}), price_factors=factors,
    )  # fmt: skip
    policy = Listening(("ann", "bob"))
    follow(policy, served, Feedback(answer_id="1", score=1.0))
    expected_score(policy, served, policy)
    assert policy.told == (factors, factors)


MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("said", "again"),
    [
        (HumanMessage([{"type": "text", "text": "a", **MARK}]), HumanMessage("a")),
        (HumanMessage([{"type": "text", "text": "a"}, {"cachePoint": {"type": "default"}}]), HumanMessage(["a"])),
        (
            HumanMessage(["a", {"type": "image_url", "image_url": {"url": "u"}, **MARK}]),
            HumanMessage([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]),
        ),
        (
            HumanMessage(
                [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "a", **MARK}]}]
            ),
            HumanMessage([{"type": "tool_result", "tool_use_id": "1", "content": "a"}]),
        ),
        (AIMessageChunk("a"), AIMessage("a")),
    ],
    ids=["a mark", "a point", "a mark on an image", "a mark in a result", "in pieces"],
)
def test_marks_of_where_a_cache_ends_change_nothing_that_is_read(said, again):
    """They wander to the newest message at each step, and what stands before them is read from the cache all the same."""
    assert Prompt.of([said]).hashes == Prompt.of([again]).hashes
    other = again.model_copy(update={"content": ["b"]})
    assert Prompt.of([said]).hashes != Prompt.of([other]).hashes


def test_messages_of_several_prompts_are_hashed_once():
    digests, messages = {}, [HumanMessage("a"), AIMessage("b")]
    plain = Prompt.of(messages)
    assert Prompt.of(messages, digests=digests) == plain
    assert len(digests) == 2
    assert Prompt.of(messages[::-1], digests=digests) == Prompt.of(messages[::-1])
    digests[id(messages[0])] = b"another"
    assert Prompt.of(messages, digests=digests).hashes != plain.hashes


def test_calls_without_an_id_are_nobodys_and_those_of_this_session_go_first():
    """Some providers give calls no ids, and some count them: `call_0` is in every conversation."""
    sessions = Sessions()
    sessions.note_calls(["", "call_0"], "ann", ONE)
    sessions.note_calls(["call_0"], "bob", Session.of("two"))
    assert sessions.caller([""]) is None
    assert sessions.caller(["call_0"], ONE) == "ann"
    assert sessions.caller(["call_0"], Session.of("two")) == sessions.caller(["call_0"]) == "bob"


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff", b"[]", b"1", b"{}", b'{"authors": [], "calls": {}, "prefixes": {}}',
     b'{"authors": {}, "calls": {}, "prefixes": {"ann": [[1, "zz", 1, 1]]}}',
     b'{"authors": {}, "calls": {}, "prefixes": {"ann": [[1, "00"]]}}'],
)  # fmt: skip
def test_what_another_release_wrote_of_a_session_is_as_if_nothing_were_known(data):
    sessions = Sessions()
    sessions.note_answer(ONE, "ann", is_first=True)
    sessions.load(ONE, data, now_s=0)
    assert sessions.author(ONE) == "ann"


def test_sessions_hold_no_word_and_are_bounded(monkeypatch):
    monkeypatch.setattr("langchain_rlfocal.execution.sessions.MAX_SESSIONS", 3)
    sessions, ann = Sessions(), member()
    secret = Prompt.of([HumanMessage("my secret"), AIMessage("your secret")])
    session = Session.of("thread of Ann")
    sessions.note(session, ann, secret, at_s=0)
    data = sessions.dump(session, now_s=0)
    assert b"secret" not in data
    assert "Ann" not in session.key
    assert b"thread" not in data
    for place in range(MAX_PREFIXES + 4):
        sessions.note(session, ann, prompt(10, 20, branch=str(place)), at_s=place)
    assert sessions.expected(session, ann, prompt(10, 20, branch="3"), 12).held_tokens == 0
    assert sessions.expected(session, ann, prompt(10, 20, branch="4"), 12).held_tokens == 20
    for name in ("a", "b", "c"):
        sessions.note(Session.of(name), ann, prompt(10), at_s=0)
    assert len(sessions) == 3
    assert sessions.expected(session, ann, prompt(10, 20, branch="9"), 12).held_tokens == 0
    sessions.note_calls([*map(str, range(MAX_CALLS + 1))], "ann")
    assert [sessions.caller([str(call)]) for call in (0, 1, MAX_CALLS)] == [None, "ann", "ann"]


def test_a_copy_holds_the_same_and_a_pickle_nothing():
    sessions = Sessions()
    sessions.note_answer(ONE, "ann", is_first=True)
    assert copy.deepcopy(sessions) is sessions
    assert len(pickle.loads(pickle.dumps(sessions))) == 0


def test_another_process_knows_what_was_sent_though_its_clock_begins_elsewhere():
    """At 100 s of the one clock it is 5000 s of the other: what was sent 250 s ago lives for another 50 s."""
    here, there, ann = Sessions(), Sessions(), member()
    here.note(ONE, ann, prompt(1000), at_s=-150)
    here.note_answer(ONE, "ann", is_first=True)
    there.note(ONE, ann, prompt(1000, 1100), at_s=4000)
    there.load(ONE, here.dump(ONE, now_s=100), now_s=5000)
    sent = prompt(1000, 1100, 1500)
    assert [there.expected(ONE, ann, sent, at_s).held_tokens for at_s in (5049, 5051)] == [1000, 0]
    assert there.author(ONE) == "ann"
    there.load(ONE, there.dump(ONE, now_s=5000), now_s=5000)
    assert there.expected(ONE, ann, sent, 4100).held_tokens == 1100


@pytest.mark.parametrize("name", ["cache_ttl_s", "cache_min_tokens"])
def test_a_caches_limits_are_numbers(name):
    with pytest.raises(PoolError, match=f"`{name}` of member `ann` must be finite and not negative"):
        member(**{name: -1})


# ---- the state sees it, and so does the policy


def seen_by(policy, **prices):
    limits = {"round_number": 1, "max_rounds": 1, "max_team": 1, "cost_weight": 0.5}
    policy.select(Query("q"), (), (), available=policy.members, **limits, **prices)
    return policy._recent("q", None).last[1][1]


def test_the_state_has_the_price_of_now_as_a_share_of_asking_everybody(random_policy):
    """Prices of ¼ and ¾ at a cost weight of ½ are charges of ⅛ and ⅜. With a factor of ⅓ both cost ¼, which is half each."""
    policy = random_policy(("ann", "bob"))
    weights = {**policy.parts.weights, "pool.price": np.array([0.25, 0.75], dtype=np.float32)}
    policy = RLFocalPolicy(replace(policy.parts, weights=weights))
    assert seen_by(policy).charge.tolist() == [[0.125, 0.375]]
    state = seen_by(policy, price_factors={"bob": 1 / 3})
    assert state.charge.tolist() == [[pytest.approx(0.25), pytest.approx(0.25)]]
    assert state.members.price.dtype == seen_by(policy).members.price.dtype


@given(factors=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1), st.floats(0.01, 1)), more=st.floats(0.1, 1))
def test_who_holds_more_is_charged_less_and_all_together_as_much(factors, more):
    """Whatever else is held; where everybody holds as much, nothing changes."""
    policy = PriorPolicy(("ann", "bob", "cid"))
    before, after = (
        seen_by(policy, price_factors=dict(zip(policy.members, given, strict=True))).charge[0]
        for given in (factors, (factors[0] * more, *factors[1:]))
    )
    plain = seen_by(policy).charge[0]
    assert after[0] <= before[0] + 1e-12
    assert before.sum() == pytest.approx(plain.sum())
    even = seen_by(policy, price_factors=dict.fromkeys(policy.members, factors[0])).charge[0]
    assert even.tolist() == pytest.approx(plain.tolist())


def test_a_policy_chooses_bit_by_bit_alike_without_a_session(random_policy):
    policy = random_policy(("ann", "bob", "cid"))
    plain = seen_by(policy)
    assert seen_by(policy, price_factors=None).members.price is plain.members.price
    for factors in ({}, {"ann": 1.0}):
        assert (policy.team_logits(seen_by(policy, price_factors=factors)) == policy.team_logits(plain)).all()


def test_a_pool_without_prices_knows_no_cheaper_member():
    clock = Clock()
    members = [*pool_of("ann", clock=clock), PoolMember("bob", ScriptedChatModel(script=["It is."]))]
    model, policy, _ = talking(["ann"], members=members)
    history = saying(model, "Is it so?", "Still?", session="s")
    assert policy.seen == [None, None]
    assert of_session(history[-1])["members"]["ann"]["held_tokens"] > 1000


def test_a_policy_that_was_written_before_is_not_given_what_it_does_not_know():
    def before(query, candidates, failures, *, available): ...

    assert takes_price_factors(PriorPolicy.select)
    assert takes_price_factors(ScriptedPolicy.select)
    assert not takes_price_factors(before)


# ---- in a model


@dataclass(frozen=True)
class Watching(ScriptedPolicy):
    """Asks its teams answer by answer, one of them in each, and keeps the prices that it was told."""

    seen: list = field(default_factory=list)

    def select(self, query, candidates, failures, *, available, round_number, price_factors=None, **_rest):
        if not candidates and not failures:
            self.seen.append(price_factors)
        turn = [name for name in self.teams[(len(self.seen) - 1) % len(self.teams)] if name in available]
        taken = {one.member for one in (*candidates, *failures)}
        team = tuple(turn) if not candidates and not taken.intersection(turn) else ()
        if not team and not candidates:
            team = tuple(name for name in available if name not in taken)[:1]
        return Selection(round_number, team, dict.fromkeys(available, 0.5))


class Clock:
    now_s = 1000.0

    def __call__(self):
        return self.now_s


SYSTEM = SystemMessage("You are careful. " * 400)  # 6,800 characters: 1,700 tokens and a little


def pool_of(*names, clock, **fields):
    """Members that cache, at $2, $0.2 and $8 a million."""
    model = {"script": ["It is."], **fields}
    return [PoolMember(name, CachingChatModel(model_name=name, clock=clock, **model), **PRICES) for name in names]


def talking(*teams, names=("ann", "bob"), members=None, **fields):
    """A model whose policy asks one member an answer, and its clock."""
    clock = Clock()
    members = members or pool_of(*names, clock=clock)
    policy = Watching(teams, tuple(one.name for one in members))
    fields = {"max_team": 2, "max_retries": 0, "breaker_failures": None, **fields}
    return RLFocalChatModel(members=members, policy=policy, clock=clock, **fields), policy, clock


def saying(ensemble, /, *said, history=(), **options):
    """Say one thing after the other, and return the messages."""
    history = [*(history or [SYSTEM])]
    for text in said:
        history.append(HumanMessage(text))
        history.append(ensemble.invoke(history, **options))
    return history


def of_session(message):
    return how(message)["session"]


def test_who_was_asked_in_a_session_is_cheaper_in_its_next_step_and_says_what_was_saved():
    """Ann is asked twice. Her prompt's beginning is read again at a tenth of its price; Bob would read it anew."""
    model, policy, _ = talking(["ann"])
    *_, first, _, second = saying(model, "Is it so?", "Still?", session="s")
    assert policy.seen[0] is None
    before, after = of_session(first), of_session(second)
    assert (
        before["members"]["ann"]["held_tokens"] == before["members"]["ann"]["cached_tokens"] == before["saved_usd"] == 0
    )
    ann, bob = after["members"]["ann"], after["members"]["bob"]
    assert ann["held_tokens"] == first.usage_metadata["input_tokens"] == ann["cached_tokens"]
    assert (bob["held_tokens"], bob["cached_tokens"]) == (0, None)
    assert after["saved_usd"] == pytest.approx(ann["cached_tokens"] * 1.8e-6)
    usual = first.usage_metadata["output_tokens"]
    by_hand = (ann["prompt_tokens"] - ann["held_tokens"]) * 2 + ann["held_tokens"] * 0.2 + usual * 8
    assert ann["expected_usd"] == pytest.approx(by_hand / 1e6)
    assert ann["uncached_usd"] == pytest.approx((ann["prompt_tokens"] * 2 + usual * 8) / 1e6)
    assert policy.seen[1] == {"ann": pytest.approx(ann["expected_usd"] / ann["uncached_usd"]), "bob": 1.0}
    # What was billed is what is counted, and what was expected.
    assert (
        how(second)["spent"]["usd"]
        == how(second)["candidates"][0]["cost_usd"]
        == pytest.approx(ann["expected_usd"], rel=0.02)
    )
    lines = model.explain(second).splitlines()
    assert any(line.startswith("expected in caches, of the prompt's tokens: ann 1,7") for line in lines)
    assert any(line.startswith("cached prompts saved $0.003") for line in lines)


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda history, clock: history, {"session": "other"}),
        (lambda history, clock: history, {}),
        (lambda history, clock: [SystemMessage("You are fast. " * 400), *history[1:]], {"session": "s"}),
        (lambda history, clock: [*history[:1], HumanMessage("Was it so?"), *history[2:]], {"session": "s"}),
        (lambda history, clock: [SystemMessage("Summary. " * 1000), *history[3:]], {"session": "s"}),
        (lambda history, clock: setattr(clock, "now_s", clock.now_s + 301) or history, {"session": "s"}),
    ],
    ids=["another session", "no session", "another system prompt", "an edited history", "a summary", "too late"],
)
def test_where_nothing_is_held_nobody_is_cheaper(change, options):
    model, policy, clock = talking(["ann"])
    history = change(saying(model, "Is it so?", session="s"), clock)
    message = saying(model, "Still?", history=history, **options)[-1]
    assert policy.seen == [None, None]
    facts = of_session(message)
    assert facts is None if not options else not any(one["held_tokens"] for one in facts["members"].values())


def test_an_edited_history_is_held_as_far_as_it_was_sent_before():
    model, policy, _ = talking(["ann"])
    history = saying(model, "Is it so?", "Still?", session="s")
    edited = [*history[:3], HumanMessage("And then?")]
    facts = of_session(model.invoke(edited, session="s"))
    assert facts["members"]["ann"]["held_tokens"] == history[2].usage_metadata["input_tokens"]
    assert policy.seen[2]


def test_the_tools_that_go_with_a_conversation_are_a_part_of_what_is_held():
    model, policy, _ = talking(["ann"])
    history = saying(model, "Is it so?", session="s")
    saying(model.bind_tools([weather]), "Still?", history=history, session="s")
    assert policy.seen == [None, None]
    saying(model.bind_tools([weather]), "Still?", history=history, session="s")
    assert policy.seen[2]


async def test_a_session_is_the_same_in_every_way_to_be_called():
    model, policy, _ = talking(["ann"])
    history = saying(model, "Is it so?", session="s")
    for text in ("And?", "So?"):
        history.append(HumanMessage(text))
        history.append(await model.ainvoke(history, session="s"))
    history.append(HumanMessage("Stream."))
    chunks = list(model.stream(history, session="s"))
    whole = sum(chunks[1:], chunks[0])
    assert of_session(whole)["members"]["ann"]["held_tokens"] > of_session(history[-2])["members"]["ann"]["held_tokens"]
    assert [bool(seen) for seen in policy.seen] == [False, True, True, True]


def test_a_session_is_told_to_no_member_and_must_be_a_name():
    model, _, _ = talking(["ann"])
    saying(model, "Is it so?", session="s")
    assert "session" not in model.pool["ann"].model.asked[0].kwargs
    with pytest.raises(InputError, match="`session` must"):
        model.invoke("?", session="")
    with pytest.raises(InputError, match="`sticky` must"):
        model.invoke("?", sticky="always")


# ---- who goes on


def calling(name, clock, *, error=None):
    """A member that calls a tool, and then says who it is; or fails on the tool's result."""

    def script(messages):
        if not isinstance(messages[-1], ToolMessage):
            return AIMessage("", tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": f"{name}|1"}])
        if error is not None:
            raise error
        return f"{name} says: sunny"

    return PoolMember(name, CachingChatModel(script=script, model_name=name, clock=clock), **PRICES)


def looping(*teams, error=None, **fields):
    clock = Clock()
    model, policy, _ = talking(*teams, members=[calling("ann", clock, error=error), calling("bob", clock)], **fields)
    return model.bind_tools([weather]), policy


def run_tool(model, history, **options):
    """One tool call and its result, and what is said of it."""
    made = model.invoke(history, **options)
    [call] = made.tool_calls
    history = [*history, made, ToolMessage("sunny", tool_call_id=call["id"])]
    return [*history, model.invoke(history, **options)]


def test_in_a_tool_loop_the_member_that_called_goes_on():
    model, policy = looping(["ann"], ["bob"])
    *_, last = run_tool(model, [HumanMessage(QUESTION)], sticky="tools")
    assert (last.text, asked(last)) == ("ann says: sunny", [["ann"]])
    assert len(policy.seen) == 1
    assert of_session(last) == {"id": None, "sticky": "tools", "member": "ann", "members": {}, "saved_usd": 0.0}
    assert "ann goes on alone (sticky: tools)" in model.bound.explain(last)
    # The next question is the Decider's again.
    after = model.invoke([HumanMessage(QUESTION), last, HumanMessage(QUESTION)], sticky="tools")
    assert asked(after) == [["bob"]]


def test_without_stickiness_the_decider_chooses_in_a_tool_loop_too():
    model, _ = looping(["ann"], ["bob"])
    *_, last = run_tool(model, [HumanMessage(QUESTION)])
    assert asked(last) == [["bob"]]
    assert of_session(last) is None


def test_who_called_is_known_by_the_calls_ids_where_a_client_keeps_nothing_else():
    """As of a server's protocol, whose messages have text, calls and ids; a call of somebody else's is nobody's."""
    model, _ = looping(["ann"], ["bob"])
    made = model.invoke([HumanMessage(QUESTION)], sticky="tools")
    [call] = made.tool_calls
    bare = [HumanMessage(QUESTION), AIMessage("", tool_calls=[call]), ToolMessage("sunny", tool_call_id=call["id"])]
    assert asked(model.invoke(bare, sticky="tools")) == [["ann"]]
    foreign = [{**call, "id": "call_x"}]
    bare = [HumanMessage(QUESTION), AIMessage("", tool_calls=foreign), ToolMessage("sunny", tool_call_id="call_x")]
    assert of_session(model.invoke(bare, sticky="tools")) is None


def test_another_stands_in_for_a_member_that_fails_within_its_tool_loop():
    model, _ = looping(["ann"], ["bob"], error=ConnectionError("down"))
    *_, last = run_tool(model, [HumanMessage(QUESTION)], sticky="tools")
    assert (last.text, asked(last)) == ("bob says: sunny", [["ann"], ["bob"]])


def test_the_member_that_answered_first_goes_on_for_the_whole_session():
    model, policy, _ = talking(["ann"], ["bob"])
    history = saying(model, "Is it so?", "Still?", "Now?", session="s", sticky="session")
    assert [asked(message) for message in history if message.type == "ai"] == [[["ann"]]] * 3
    assert len(policy.seen) == 1
    assert of_session(history[-1])["member"] == "ann"
    # A summary has lost whose words they were; the session has not. Another session begins anew.
    assert asked(model.invoke("Summary: it is.", session="s", sticky="session")) == [["ann"]]
    assert asked(model.invoke("Summary: it is.", session="t", sticky="session")) == [["bob"]]


def test_a_branch_of_a_session_goes_on_with_who_answered_in_it():
    """Two workers of one thread, or an earlier state of it taken up again: the session's last answer is the other's."""
    model, _, _ = talking(["ann"], ["bob"])
    one, other = (saying(model, text, session="s") for text in ("Is it so?", "Is it not?"))
    assert [
        asked(saying(model, "Still?", history=history, session="s", sticky="session")[-1]) for history in (one, other)
    ] == [
        [["ann"]],
        [["bob"]],
    ]


def test_a_session_goes_on_with_who_stood_in_and_a_member_that_rests_is_not_waited_for():
    """Ann answers once and then fails: her breaker opens, Bob stands in, and goes on."""
    said = iter(["It is.", ConnectionError("down"), "It is again."])

    def script(messages):
        what = next(said)
        if isinstance(what, Exception):
            raise what
        return what

    clock = Clock()
    ann = PoolMember("ann", CachingChatModel(script=script, clock=clock), **PRICES)
    members = [ann, *pool_of("bob", clock=clock)]
    model, _, _ = talking(["ann"], members=members, breaker_failures=1)
    history = saying(model, "Is it so?", "Still?", "Now?", session="s", sticky="session")
    assert [asked(m) for m in history if m.type == "ai"] == [[["ann"]], [["ann"], ["bob"]], [["bob"]]]


def test_a_call_that_names_a_member_asks_it_whoever_holds_the_conversation():
    model, _, _ = talking(["ann"])
    history = saying(model, "Is it so?", session="s", sticky="session")
    message = saying(model, "Still?", history=history, session="s", sticky="session", model="bob")[-1]
    assert asked(message) == [["bob"]]
    assert of_session(message)["member"] is None


def test_a_member_that_is_none_of_the_pool_does_not_go_on():
    model, _, _ = talking(["ann"])
    said = AIMessage("It is.", response_metadata={"rlfocal": {"fusion": {"member": "eve"}}})
    message = model.invoke([HumanMessage("?"), said, HumanMessage("?")], sticky="session")
    assert asked(message) == [["ann"]]
    odd = AIMessage("It is.", response_metadata={"rlfocal": {"fusion": [1]}})
    assert model.invoke([HumanMessage("?"), odd, HumanMessage("?")], sticky="session").text == "It is."


def test_an_answer_of_a_member_that_goes_on_is_no_chance_to_explore():
    model, _, _ = talking(["ann"], explore=1.0)
    history = saying(model, "Is it so?", session="s")
    message = saying(model, "Still?", history=history, session="s", sticky="session")[-1]
    assert not how(message)["explored"]
    assert len(asked(message)[0]) == 1


def test_a_promise_goes_before_who_holds_the_conversation(random_policy, tmp_path):
    """It was certified for what the Decider chooses without a session."""
    point = {"cost_weight": 0.5, "member": "bob"}
    certificate = {
        "promise": "best-0.02@0.9", "policy_id": random_policy(("ann", "bob")).policy_id, "date": "2026-11-30", "rows": 400,
        "members": ["ann", "bob"], "tasks": [], "task_labels": False, "max_team": 1, "max_rounds": 1, "bound": "betting",
        "p_value": 0.05, "operating_point": {"low": point, "high": point, "share": 0.0}, "unit": "calls", "spending": 1.0,
        "score": 0.7, "best_member": "ann", "best_member_score": 0.7,
    }  # fmt: skip
    policy = random_policy(("ann", "bob"), card={"certificates": {"best-0.02@0.9": certificate}})
    clock = Clock()
    log = OutcomeLog.at(tmp_path / "outcomes.db")
    members = pool_of("ann", "bob", clock=clock)
    model = RLFocalChatModel(members=members, policy=policy, clock=clock, sticky="session", outcome_log=log)
    history = saying(model, "Is it so?", session="s", model="ann")
    message = saying(model, "Still?", history=history, session="s", promise="best-0.02@0.9")[-1]
    assert how(message)["promise"]["holds"]
    assert asked(message) == [["bob"]]
    assert of_session(message)["member"] is None
    assert of_session(message)["members"]["ann"]["held_tokens"] > 1000
    assert log.served(how(message)["answer_id"]).price_factors == {}
    summary = [SystemMessage("Summary: it is.")]
    assert asked(saying(model, "Still?", history=summary, session="s")[-1]) == [["bob"]]  # who answered last


def test_the_log_says_what_the_policy_was_told_so_that_it_is_played_again_alike(random_policy, tmp_path):
    """Both members are told of where Ann is held; of a session's first answer there is nothing to tell."""
    clock = Clock()
    policy = random_policy(("ann", "bob"))
    log = OutcomeLog.at(tmp_path / "outcomes.db")
    model = RLFocalChatModel(
        members=pool_of("ann", "bob", clock=clock), policy=policy, clock=clock, outcome_log=log, max_team=1
    )
    messages = [message for message in saying(model, "Is it so?", "Still?", session="s") if message.type == "ai"]
    first, second = (log.served(how(message)["answer_id"]) for message in messages)
    assert first.price_factors == {}
    assert set(second.price_factors) == {"ann", "bob"}
    assert min(second.price_factors.values()) < max(second.price_factors.values()) == 1.0
    played = follow(policy, second, Feedback(answer_id=second.id, score=1.0))
    assert played.rounds == done_by(policy, second, Feedback(answer_id=second.id, score=1.0)).rounds


def test_who_did_not_respond_holds_nothing():
    clock = Clock()
    members = [
        PoolMember("ann", FailingChatModel(error=ConnectionError("down")), **PRICES),
        *pool_of("bob", clock=clock),
    ]
    model, policy, _ = talking(["ann"], members=members)
    history = saying(model, "Is it so?", session="s")
    saying(model, "Still?", history=history, session="s")
    assert policy.seen[-1]["bob"] < policy.seen[-1]["ann"] == 1.0
    alone, _, _ = talking(["ann"], members=members[:1])
    with pytest.raises(EnsembleError):
        alone.invoke("?", session="s")


@pytest.mark.parametrize("details", [None, {}, {"cache_read": 0}])
def test_a_member_whose_provider_reports_no_cache_stops_being_cheaper(details):
    """It is billed as nothing cached, whether its provider says so or says nothing of it: 2 of 2, 2 of 3, 2 of 3.98 and so on."""
    model, policy, _ = talking(["ann"], members=[NoCache.named("ann"), NoCache.named("bob")])
    for one in model.pool:
        one.model.details = details
    saying(model, *["Still?"] * 30, session="s")
    seen = [factors["ann"] for factors in policy.seen[1:]]
    assert seen == sorted(seen)
    assert (seen[0] < 0.3, seen[-1] > 0.8) == (True, True)


class NoCache(ScriptedChatModel):
    """Reports tokens, and of its cache what it is told to."""

    details: dict | None = None

    @classmethod
    def named(cls, name):
        return PoolMember(name, cls(script=lambda _: "It is.", model_name=name), **PRICES)

    def _reply(self, messages, stop, kwargs):
        message = super()._reply(messages, stop, kwargs)
        message.usage_metadata = {"input_tokens": 2000, "output_tokens": 2, "total_tokens": 2002}
        if self.details is not None:
            message.usage_metadata["input_token_details"] = self.details
        return message


@pytest.mark.parametrize(
    "details",
    [
        {"cache_creation": 1000},
        {"cache_creation": 0, "ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
    ],
)
def test_what_a_provider_wrote_to_its_cache_is_billed_at_its_price(details):
    """1000 of 2000 tokens at $2, 1000 at $2.5, 2 at $8: as langchain-anthropic reports, with and without how long they are kept."""
    one = replace(NoCache.named("ann"), cache_write_usd_per_mtok=2.5)
    one.model.details = details
    message = RLFocalChatModel(members=[one]).invoke("Is it so?")
    assert how(message)["spent"]["usd"] == pytest.approx((2000 + 2500 + 16) / 1e6)


def test_what_the_policy_was_told_stays_while_its_answer_is_noted():
    """How many steps a question has is learned from this answer too; which members were how cheap then is not changed by it."""
    model, _, clock = talking(["ann"])
    history = saying(model, "Is it so?", session="s")
    history.append(ToolMessage("It is.", tool_call_id="1"))
    sessions = model.shared_state.sessions
    turn = Turn.of(
        history, Request(), session=Session.of("s"), sticky="off", pool=model.pool, sessions=sessions, now_s=clock()
    )
    told = dict(turn.price_factors)
    turn.note_answer("ann", [])
    assert sessions.usual_steps > 1
    assert turn.price_factors == told


def test_results_within_a_human_message_are_a_step_and_no_new_question():
    result = {"type": "tool_result", "tool_use_id": "1", "content": "sunny"}
    model, _, _ = talking(["ann"])
    call = {"name": "weather", "args": {}, "id": "1", "type": "tool_call"}
    said = [SYSTEM, HumanMessage("?"), AIMessage("", tool_calls=[call]), HumanMessage([result])]
    for _ in range(4):
        model.invoke(said, session="s")
    assert model.shared_state.sessions.usual_steps > 1


def test_a_session_is_its_callers_name_or_the_thread_around():
    assert session_of("a", {"thread_id": "b"}) == Session.of("a")
    assert session_of(None, {"thread_id": "b"}) == Session.of("b", "")
    assert session_of(None, {}) is None
    assert session_of(None, None) is None
