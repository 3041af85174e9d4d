"""The learner: closed-form updates by hand, what they share, and what serves meanwhile."""

import gc
import math
import weakref

import numpy as np
import pytest

from langchain_rlfocal import demo
from langchain_rlfocal.errors import InputError, PoolError
from langchain_rlfocal.features import features_of
from langchain_rlfocal.log import Feedback
from langchain_rlfocal.online import OnlineLearner
from langchain_rlfocal.online import learner as module
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.records import Query
from support_online import judged, saying, serve, served_of

OPTIONS = "Which one?\nA) one\nB) two\nC) three\nD) four"


def new(*members, memory=math.inf, **settings):
    return OnlineLearner(PriorPolicy(members or ("a", "b", "c")), memory=memory, **settings)


def squares(query, task, deviation, slopes, words):
    """Prior variance of a part of competence at a query: squared deviations times squared features."""
    surface_and_task = features_of([query], [task])
    vector = module.compact(surface_and_task)[0]
    spread = np.array([deviation, *[slopes] * (module.OWN_DIM - 1), *[words] * module.WORD_DIM])
    return float(((spread * vector) ** 2).sum())


def test_one_judged_answer_moves_competence_by_the_rule_of_the_normal_distribution():
    """One right answer where ½ was expected: the estimate rises by ½ a / (a + τ² + σ²), with a its prior variance."""
    learner = new("a", "b")
    query, task = "How many moons has Mars?", "astronomy/moons"
    shared = squares(query, task, module.POOL_DEVIATION, module.POOL_SLOPES, module.WORD_SLOPES)
    own = squares(query, task, module.OWN_DEVIATION, module.OWN_SLOPES, 0.0)
    served = served_of({"a": "2"}, query=query, task=task)
    learner.update(served, judged(served, {"a": 1.0}))
    features = learner.policy.describe([query], [task])
    noise = module.QUERY_VARIANCE + module.NOISE_VARIANCE
    assert features.competence[0, 0] == pytest.approx(0.5 + 0.5 * (shared + own) / (shared + own + noise))
    # The other member was not asked: it shares what the query is worth to the pool.
    assert features.competence[0, 1] == pytest.approx(0.5 + 0.5 * shared / (shared + own + noise))
    left = (shared + own) * noise / (shared + own + noise)
    assert features.deviation[0, 0] == pytest.approx(math.sqrt(left))


def test_one_judged_disagreement_moves_evidence_by_an_extended_kalman_step():
    """Two equal members differ, four options: h = log 3, both candidates have z = 0.7 h − 0.7 h = 0, so π = 1/3 each.

    Only δ_a, δ_b and what both candidates share change. With right a: x̄₊ − x̄ = x_a − (x_a + x_b)/3, whose parts are 2/3 and
    −1/3 for δ, and for η and ζ h/3 and −h/3. J is a third of it, so JᵀΣJ = (0.04 (4/9 + 1/9) + 0.09 · 2 h²/9) / 9, with
    a like term for H and Z, and what all
    options are the longest of, each by a quarter.
    """
    learner = new("a", "b")
    query = "Which one?\nA) same\nB) same\nC) same\nD) same"
    served = served_of({"a": "A", "b": "B"}, query=query)
    learner.update(served, judged(served, {"a": 1.0, "b": 0.0}))
    h = math.log(3)
    moved = learner.arrays()["evidence.mean"]
    looks = 0.25 / 9 * ((1 / 4 - 2 / 3 / 4) ** 2)  # each is a quarter of the longest
    context = module.compact(features_of([query], [None]))[0, 1 : module.OWN_DIM]
    terms = 0.04 * 5 / 9 + 0.09 * 2 * h * h / 9 + module.CONTEXT_DEVIATION**2 * 2 * float(context @ context) / 9
    denominator = terms / 9 + looks + 2 / 9
    assert moved[-2:] == pytest.approx([0.04 * 2 / 9 * (2 / 3) / denominator, -0.04 / 9 * (2 / 3) / denominator])
    assert moved[3] - 0.7 == pytest.approx(0.09 * h / 9 * (2 / 3) / denominator)
    assert moved[4] - 0.7 == pytest.approx(-0.09 * h / 9 * (2 / 3) / denominator)


def stream(count, *, members=("a", "b", "c"), seed=0):
    """Queries of two tasks: `a` knows the one, `b` the other, `c` nothing; wrong answers differ."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        task = ("sums", "poems")[int(rng.integers(2))]
        knows = {"a": 0.9 if task == "sums" else 0.2, "b": 0.2 if task == "sums" else 0.9, "c": 0.25}
        said = {name: "A" if rng.random() < knows[name] else "BCD"[int(rng.integers(3))] for name in members}
        yield Query(f"{OPTIONS}\n({number})", task), said


def learned(learner, count, **limits):
    """Let it serve and learn; return how many were asked and the scores."""
    asked, scores = [], []
    for number, (query, said) in enumerate(stream(count)):
        served = serve(learner.policy, query, said, number=number, **limits)
        right = {name: float(said[name] == "A") for name in served.asked}
        learner.update(
            served, Feedback(answer_id=served.id, score=float(served.answer.answer == "A"), per_member=right)
        )
        asked.append(served.asked)
        scores.append(float(served.answer.answer == "A"))
    return asked, np.array(scores)


def test_it_finds_whom_to_ask_of_each_task_from_no_policy():
    learner = new(memory=20_000.0)
    asked, scores = learned(learner, 150, max_team=1)
    late = asked[75:]
    assert sum("c" in team for team in late) <= 8
    assert scores[75:].mean() > 0.8
    estimates = learner.policy.describe(["x", "x"], ["sums", "poems"]).competence
    assert estimates[0, 0] > estimates[0, 1] + 0.1
    assert estimates[1, 1] > estimates[1, 0] + 0.1


def test_without_optimism_it_may_never_try_others():
    """The hard negative: who is asked first and is right now and then stays alone."""
    asked, _ = learned(new(optimism=0.0), 40, max_team=1)
    assert len(frozenset().union(*asked[5:])) < 3


def test_the_order_of_queries_does_not_matter_without_forgetting():
    """Competence is an exact posterior: the same answers in another order give the same, but for rounding."""
    seen = [served_of(said, query=query.text, task=query.task) for query, said in stream(30)]
    feedback = [judged(one, {c.member: float(c.answer == "A") for c in one.candidates}) for one in seen]
    order = np.random.default_rng(1).permutation(30)
    first, other, forgetful = new(), new(), new(memory=50.0)
    for number in range(30):
        first.update(seen[number], feedback[number])
        other.update(seen[order[number]], feedback[order[number]])
        forgetful.update(seen[order[number]], feedback[order[number]])
    for name in ("competence.mean", "competence.covariance"):
        np.testing.assert_allclose(first.arrays()[name], other.arrays()[name], atol=1e-10)
    assert np.abs(first.arrays()["competence.mean"] - forgetful.arrays()["competence.mean"]).max() > 1e-3


def test_arrays_restore_the_same_learner_and_equal_feedback_gives_equal_bits():
    one, other = new(memory=100.0), new(memory=100.0)
    learned(one, 20)
    learned(other, 20)
    assert one.policy.policy_id == other.policy.policy_id
    third = new(memory=100.0).restore({name: array.copy() for name, array in one.arrays().items()})
    query, said = next(stream(1, seed=5))
    served = serve(one.policy, query, said)
    for learner in (one, third):
        learner.update(served, judged(served, dict.fromkeys(served.asked, 1.0)))
    assert {name: array.tobytes() for name, array in one.arrays().items()} == {
        name: array.tobytes() for name, array in third.arrays().items()
    }
    assert one.policy.policy_id == third.policy.policy_id != other.policy.policy_id


def test_arrays_of_another_pool_are_refused():
    with pytest.raises(InputError, match=r"`competence.mean` of shape \(\d+,\)"):
        new("a", "b").restore(new("a", "b", "c").arrays())
    with pytest.raises(InputError, match="got none"):
        new("a", "b").restore({})


def test_a_snapshot_never_changes():
    learner = new()
    before = learner.policy
    estimate = before.describe(["x"], [None]).competence.tolist()
    learned(learner, 5)
    assert before.describe(["x"], [None]).competence.tolist() == estimate
    assert learner.policy is learner.policy
    assert learner.policy.policy_id != before.policy_id
    assert (before.trained, learner.policy.trained) == (False, True)
    with pytest.raises(ValueError, match="read-only"):
        learner.arrays()["competence.mean"][0] = 1.0


def test_a_snapshot_that_nobody_holds_is_gone_at_once():
    """Its covariance is large, so it must not wait for the garbage collector."""
    learner = new()
    learned(learner, 2)
    snapshot = weakref.ref(learner.policy)
    gc.disable()
    try:
        learned(learner, 1)
        assert snapshot() is None
    finally:
        gc.enable()


def test_a_few_answers_of_one_member_say_something_of_the_others_on_that_task():
    learner = new()
    for number in range(6):
        served = served_of({"a": "x"}, query=f"question {number}", task="law")
        learner.update(served, judged(served, {"a": 0.0}))
    law, other = learner.policy.describe(["question", "question"], ["law", "history"]).competence
    assert law[0] < law[1] < other[1] < 0.5


def test_who_is_not_asked_becomes_unknown_again_but_no_more_than_at_the_start():
    learner = new("a", "b", memory=50.0)

    def doubts():
        return learner.policy.describe(["question"], [None]).deviation[0]

    start = doubts()
    for number in range(300):
        served = served_of({"b" if number < 100 else "a": "x"}, query=f"question {number}")
        learner.update(served, judged(served, {served.answer.member: 1.0}))
        if number == 99:
            asked = doubts()[1]
    assert asked < doubts()[1] <= start[1] + 1e-9
    assert doubts()[0] < doubts()[1]


def test_forget_takes_a_member_back_to_what_is_known_of_nobody():
    learner = new("a", "b")
    learned_of = served_of({"a": "x", "b": "y"})
    for _ in range(20):
        learner.update(learned_of, judged(learned_of, {"a": 1.0, "b": 0.0}))
    before = learner.policy.describe(["Which one?"], [None])
    learner.forget("a")
    after = learner.policy.describe(["Which one?"], [None])
    assert after.deviation[0, 0] > before.deviation[0, 0]
    assert after.deviation[0, 1] == pytest.approx(before.deviation[0, 1])
    assert before.competence[0, 1] < after.competence[0, 0] < before.competence[0, 0]
    assert after.competence[0, 1] == before.competence[0, 1]
    with pytest.raises(PoolError):
        learner.forget("nobody")


def test_optimism_chooses_teams_and_never_the_answer():
    bold, sober = new(optimism=1.0), new(optimism=0.0)
    for learner in (bold, sober):
        for number in range(30):
            served = served_of({"a": "x"}, query=f"question {number}")
            learner.update(served, judged(served, {"a": 0.6}))
    query, limits = Query("question"), {"round_number": 1, "max_rounds": 1, "max_team": 1, "cost_weight": 0.0}
    available = ("a", "b", "c")
    assert bold.policy.select(query, (), (), available=available, **limits).members == ("b",)
    assert sober.policy.select(query, (), (), available=available, **limits).members == ("a",)
    candidates = [saying("a", "x"), saying("b", "y")]
    fused = [one.policy.fuse(query, candidates, (), max_team=3) for one in (bold, sober)]
    assert fused[0] == fused[1]
    assert fused[0].answer == "x"


def test_in_one_round_it_asks_those_whom_it_would_ask_whatever_is_said():
    learner = new("a", "b", "c", "d", optimism=0.0)
    query = Query(OPTIONS)
    limits = {"available": ("a", "b", "c", "d"), "max_team": 4, "cost_weight": 0.0}
    first = learner.policy.select(query, (), (), round_number=1, max_rounds=4, **limits)
    agreed = [saying(name, "A") for name in first.members]
    assert learner.policy.select(query, agreed, (), round_number=2, max_rounds=4, **limits).members == ()


def test_feedback_on_the_returned_answer_alone_teaches_of_the_others_what_follows():
    """The returned answer is right, so with four options the one that differs is wrong; its member loses, though unjudged."""
    learner = new("a", "b")
    served = served_of({"a": "A", "b": "B"}, query=OPTIONS)
    learner.update(served, Feedback(answer_id="1", score=1.0))
    alone = new("a", "b")
    alone.update(served_of({"a": "A"}, query=OPTIONS), Feedback(answer_id="1", score=1.0))
    competence, unasked = (one.policy.describe([OPTIONS], [None]).competence[0] for one in (learner, alone))
    assert competence[0] > 0.5
    assert competence[1] < unasked[1]


def test_of_a_member_that_nobody_judges_no_more_is_known_however_often_it_is_asked():
    """Right answers never coincide here, so nothing follows for `b`: its own part stays as uncertain as a priori.

    Were the learner's own estimates observations, a hundred of them would leave a deviation of about √(0.28 / 100) = 0.05.
    """
    learner, query = new("a", "b"), "Write a poem."
    for number in range(60):
        text = served_of({"a": f"one {number}", "b": f"two {number}"}, query=query)
        learner.update(text, judged(text, {"a": 1.0, "b": 1.0}))
    assert learner.policy.describe([query], [None]).coincidence[0] < 0.05
    learner.forget("b")
    own = slice(module.POOL_DIM + module.OWN_DIM, None)
    before = learner.arrays()["competence.covariance"][own, own].copy()
    for number in range(100):
        text = served_of({"a": f"one {number}", "b": f"two {number}"}, query=query)
        learner.update(text, Feedback(answer_id="1", score=float(number % 2)))
    after = learner.arrays()["competence.covariance"][own, own]
    np.testing.assert_allclose(after, before, atol=1e-12)


def test_an_imputed_score_is_certain_by_the_share_of_the_way_that_it_goes():
    """What was expected, 0.8, says nothing; 0 and 1 are as good as seen; 0.9 and 0.4 lie half way to them.

    A score that is revealed with probability ½, and expected otherwise, is 0.9 with probability 0.8 or else 0.4. Its variance
    is a quarter, ½², of 0.8 · 0.2: 0.8 · 0.1² + 0.2 · 0.4² = 0.04.
    """
    assert module.certainty(0.8, 0.8) == 0
    assert [module.certainty(one, 0.8) for one in (0.0, 0.4, 0.9, 1.0)] == pytest.approx([1.0, 0.5, 0.5, 1.0])
    shares = np.array([module.certainty(one, 0.8) for one in (0.9, 0.4)])
    assert 0.8 * shares[0] ** 2 + 0.2 * shares[1] ** 2 == pytest.approx(0.04 / (0.8 * 0.2))


def test_right_answers_that_differ_teach_that_answers_do_not_coincide():
    learner = new("a", "b")
    for number in range(30):
        text = served_of({"a": f"one {number}", "b": f"two {number}"}, query="Write a poem.", task="poems")
        learner.update(text, judged(text, {"a": 1.0, "b": 1.0}))
        option = served_of({"a": "A", "b": "A"}, query=OPTIONS, task="options")
        learner.update(option, judged(option, {"a": 1.0, "b": 1.0}))
    poems, options = learner.policy.describe(["Write a poem.", OPTIONS], ["poems", "options"]).coincidence
    assert poems < 0.2
    assert options > 0.9


def test_a_failure_is_a_score_of_0_and_what_says_nothing_changes_nothing():
    learner = new("a", "b")
    served = served_of({"a": "x"}, failed=("b",))
    learner.update(served, Feedback(answer_id="1", score=1.0))
    competence = learner.policy.describe(["Which one?"], [None]).competence[0]
    assert competence[0] > competence[1]
    count = learner.count
    stranger = served_of({"stranger": "x"})
    learner.update(stranger, judged(stranger, {"stranger": 1.0}))
    assert learner.count == count == 1


def test_a_trained_base_decides_as_before_until_something_is_learned():
    base = RLFocalPolicy.load(demo.POLICY_PATH)
    learner = OnlineLearner(base)
    assert learner.policy.trained
    query = Query("How many metres are 3 kilometres?")
    limits = {"available": base.members, "round_number": 1, "max_rounds": 2, "max_team": 2, "cost_weight": 0.1}
    selections = [policy.select(query, (), (), **limits) for policy in (base, learner.policy)]
    assert selections[0].members == selections[1].members
    # Single-precision sums may differ in their last digits, by the processor and where the numbers lie in memory.
    assert selections[0].probabilities == pytest.approx(selections[1].probabilities, rel=1e-5)
    candidates = [saying(name, str(number)) for number, name in enumerate(base.members)]
    before = base.fuse(query, candidates, (), max_team=len(candidates))
    assert learner.policy.fuse(query, candidates, (), max_team=len(candidates)) == before
    for number in range(12):
        served = served_of({base.members[0]: "1", base.members[1]: "2"}, query=query.text + " " * number)
        learner.update(served, judged(served, {base.members[0]: 0.0, base.members[1]: 1.0}))
    assert learner.policy.competence(query)[base.members[0]] < base.competence(query)[base.members[0]]


def test_members_of_a_pool_may_be_missing():
    learner = new()
    learned(learner, 10)
    query = Query("question")
    chosen = learner.policy.select(
        query, (), (), available=("b", "c"), round_number=1, max_rounds=1, max_team=1, cost_weight=0.0
    )
    assert set(chosen.members) <= {"b", "c"}
    assert learner.policy.describe(["question"], [None], ["c", "a"]).competence.shape == (1, 2)


@pytest.mark.parametrize("wrong", [{"memory": 0.0}, {"optimism": -1.0}, {"memory": math.nan}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="`memory` must be positive"):
        OnlineLearner(PriorPolicy(["a"]), **wrong)


def test_of_a_trained_base_what_nobody_judged_is_imputed_as_far_as_members_are_known():
    """The returned answer is wrong; the other may be right, but no likelier than its member usually is."""
    base = RLFocalPolicy.load(demo.POLICY_PATH)
    learner, query = OnlineLearner(base), Query("What is 2 + 2?")
    before = base.competence(query)
    other, best = sorted(before, key=before.__getitem__)[-2:]
    for number in range(30):
        served = served_of({best: "5", other: "4"}, query=query.text, id=str(number))
        learner.update(served, Feedback(answer_id=str(number), score=0.0))
    after = learner.policy.competence(query)
    assert after[best] < before[best]
    assert after[other] <= before[other] + 0.02
