"""A member joins a trained policy from a few recorded outcomes, and nothing that was there changes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.features import FEATURES_DIM, features_of
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts, _shapes
from langchain_rlfocal.policies.learned import add_member
from langchain_rlfocal.records import Candidate, Query

TEXT = "Is the sun a star?"
QUERY = Query(TEXT, "one")


def policy_of(competence, *, seed=0):
    """A policy with random networks and evidence, whose members have these competences near every query."""
    members, rng = tuple(competence), np.random.default_rng(seed)
    shapes = _shapes(len(members), 0, {"features": FEATURES_DIM, "decider": 6, "fusion": 5})
    weights = {name: rng.normal(scale=0.5, size=shape) for name, shape in shapes.items()}
    weights["competence.weights"][:] = weights["competence.mean"][:] = 0.0
    weights["competence.bias"] = np.array(list(competence.values()))
    weights["evidence.moments"] = rng.uniform(0.5, 2, (5, len(members)))
    weights["pool.price"] = rng.dirichlet(np.ones(len(members)))
    weights["pool.diversity"] = rng.uniform(0, 1, (len(members), len(members)))
    return RLFocalPolicy(Parts(members=members, weights=weights, card={"seed": seed}))


def specialists():
    """Two members near two tasks: a's competence is .9 and .1, b's .1 and .9."""
    policy = policy_of({"a": 0.5, "b": 0.5})
    one, two = features_of([TEXT, TEXT], ["one", "two"])
    step = (one - two) / 2
    weights = dict(policy.parts.weights)
    weights["competence.mean"] = (one + two) / 2
    weights["competence.weights"] = np.outer(0.4 * step / (step @ step), [1.0, -1.0])
    return RLFocalPolicy(replace(policy.parts, weights=weights))


def with_arrays(policy, **arrays):
    named = {name.replace("_", "."): np.array(array) for name, array in arrays.items()}
    return RLFocalPolicy(replace(policy.parts, weights={**policy.parts.weights, **named}))


def probe_of(scores, *, tasks=("one",), costs=None, order=None):
    """Outcomes by member, one score for each query; the tasks take turns."""
    members = order or tuple(scores)
    rows = [
        Outcome(
            task=tasks[q % len(tasks)],
            query_id=str(q),
            query=TEXT,
            model=member,
            response="word " * (q + 1) if member == "new" else "Some other words.",
            answer="yes" if scores[member][q] >= 0.5 else "no",
            gold="yes",
            reward=float(scores[member][q]),
            cost_usd=None if costs is None else costs[member][q],
        )
        for member in members
        for q in range(len(scores[member]))
    ]
    return OutcomeTable.from_outcomes(rows).grid(members)


def random_probe(rng, members, num=12):
    return probe_of({member: rng.integers(0, 2, num) for member in members})


# ---- competence


@pytest.mark.parametrize(
    ("competence", "score", "num", "expected"),
    [
        # Members at .4 and .8 expect .6; it scores .6, so nothing is left to explain: θ = 0.
        ((0.4, 0.8), 0.6, 1, 0.6),
        ((0.4, 0.8), 0.6, 50, 0.6),
        # All expect ½, so only θ₀ explains its residual of ½: θ₀ = n / (n + 10) / 2.
        ((0.5, 0.5), 1.0, 10, 0.75),
        ((0.5, 0.5), 1.0, 30, 0.875),
        ((0.5, 0.5), 1.0, 90, 0.95),
        # x = (1, −.2, .2), x·x = 1.08, residual .4: θ = 10 · .4 x / (10 · 1.08 + 10).
        ((0.4, 0.8), 1.0, 10, 0.6 + 0.4 * 1.08 / 2.08),
    ],
)
def test_a_newcomer_is_taken_for_the_average_member_and_what_it_showed(competence, score, num, expected):
    policy = policy_of(dict(zip("ab", competence, strict=True)))
    probe = probe_of({"a": [0.0] * num, "b": [1.0] * num, "new": [score] * num})
    assert add_member(policy, "new", probe).competence(QUERY)["new"] == pytest.approx(expected)


@pytest.mark.parametrize(("num", "share"), [(50, 16 / 26), (500, 160 / 170)])
def test_a_newcomer_that_equals_a_member_is_taken_for_it_the_more_it_shows(num, share):
    """It scores .9 near task one and .1 near two, as a is expected to; the mean is ½, so the residual ± .4.

    x = ± (.4, −.4) and x·x = .32, so the share of the residual explained is .32 n / (.32 n + 10).
    """
    scores = [0.9, 0.1] * (num // 2)
    probe = probe_of({"a": scores, "b": [1 - score for score in scores], "new": scores}, tasks=("one", "two"))
    added = add_member(specialists(), "new", probe)
    assert added.competence(Query(TEXT, "one"))["new"] == pytest.approx(0.5 + 0.4 * share, abs=1e-5)
    assert added.competence(Query(TEXT, "two"))["new"] == pytest.approx(0.5 - 0.4 * share, abs=1e-5)


@given(st.lists(st.floats(0.2, 0.7), min_size=1, max_size=5))
def test_fifty_queries_of_a_far_better_newcomer_make_it_the_most_competent(competence):
    policy = policy_of({f"m{index}": value for index, value in enumerate(competence)})
    probe = probe_of({**{name: [0.0] * 50 for name in policy.members}, "new": [1.0] * 50})
    known = add_member(policy, "new", probe).describe(["Anything else?", TEXT], [None, "one"])
    assert (known.competence.argmax(axis=1) == len(competence)).all()


def test_its_answers_are_trusted_as_those_of_any_member_of_its_competence():
    """t = α logit(c) + β: with c = ¾, α = 2 and β = .3 that is 2 ln 3 + .3; no deviation of its own."""
    policy = with_arrays(policy_of({"a": 0.5, "b": 0.5}), evidence_shared=[2.0, 0.3, 0.0])
    probe = probe_of({"a": [1.0] * 10, "b": [0.0] * 10, "new": [1.0] * 10})
    trust = add_member(policy, "new", probe).describe([TEXT], ["one"]).trust
    assert trust[0, 2] == pytest.approx(2 * np.log(3) + 0.3, abs=1e-5)


def test_its_usual_response_is_that_of_its_outcomes():
    """Responses of 5 and 10 characters: the mean of ln 6 and ln 11, and half their difference as deviation."""
    probe = probe_of({"a": [1.0, 0.0], "b": [1.0, 1.0], "new": [0.0, 1.0]})
    moments = add_member(policy_of({"a": 0.5, "b": 0.5}), "new", probe).parts.weights["evidence.moments"]
    assert moments[:2, 2] == pytest.approx([np.log(66) / 2, np.log(11 / 6) / 2], abs=1e-5)


def test_a_newcomer_s_option_scores_are_scaled_by_their_own_spread():
    """It scores .9 and .1: ±.4 from their mean, so its standard deviation is .4. The others score nothing."""
    rows = [
        Outcome(
            task="one", query_id=str(q), query=f"{TEXT} {q}", model=member, answer=answer, gold="A",
            reward=float(answer == "A"), option_probs=probs if member == "new" else None,
        )
        for q, (answer, probs) in enumerate([("A", (0.9, 0.1)), ("B", (0.1, 0.9))] * 4)
        for member in ("a", "new")
    ]  # fmt: skip
    probe = OutcomeTable.from_outcomes(rows).grid(("a", "new"))
    moments = add_member(policy_of({"a": 0.5}), "new", probe).parts.weights["evidence.moments"]
    assert moments[4, 1] == pytest.approx(0.4)


# ---- price and diversity


def priced(costs, price=(0.25, 0.75)):
    policy = with_arrays(policy_of({"a": 0.5, "b": 0.5}), pool_price=price)
    probe = probe_of({name: [1.0, 0.0] for name in ("a", "b", "new")}, costs=costs)
    return add_member(policy, "new", probe).parts.weights["pool.price"]


@pytest.mark.parametrize(
    ("newcomer", "expected"),
    [([1.0, 1.0], [0.2, 0.6, 0.2]), ([0.5, None], [2 / 9, 2 / 3, 1 / 9]), ([0.0, 0.0], [0.25, 0.75, 0.0])],
)
def test_a_known_price_is_the_newcomer_s_share_of_what_the_pool_costs(newcomer, expected):
    """a costs 2 and 0, b 3: the pool 4. A newcomer of 1 adds ¼ to (¼, ¾), then all sum to 1; unknown calls do not count."""
    assert priced({"a": [2.0, 0.0], "b": [3.0, None], "new": newcomer}) == pytest.approx(expected)


@pytest.mark.parametrize(
    "costs",
    [
        None,
        {"a": [1.0, 1.0], "b": [3.0, 3.0], "new": [None, None]},
        {"a": [None, None], "b": [3.0, 3.0], "new": [1.0, 1.0]},
        {"a": [0.0, 0.0], "b": [0.0, 0.0], "new": [1.0, 1.0]},
    ],
)
def test_an_unknown_price_is_the_mean_of_the_others(costs):
    """(¼, ¾) and their mean ½, divided by 1½; so too where the pool is free, of which nothing is a share."""
    assert priced(costs) == pytest.approx([1 / 6, 1 / 2, 1 / 3])


def test_diversity_with_the_newcomer_by_hand():
    """It fails on queries 1 and 2, a on 0 and 1, b as it does: q = ½ with a, so (1 − ½) / (1 + ½) = ⅓; 0 with b."""
    policy = policy_of({"a": 0.5, "b": 0.5})
    probe = probe_of({"a": [0.0, 0.0, 1.0, 1.0], "b": [1.0, 0.0, 0.0, 1.0], "new": [1.0, 0.0, 0.0, 1.0]})
    diversity = add_member(policy, "new", probe).parts.weights["pool.diversity"]
    assert diversity[2] == pytest.approx([1 / 3, 0.0, 0.0])


@given(st.integers(0, 10_000))
def test_price_and_diversity_keep_their_laws(seed):
    """Prices sum to 1 and keep their proportions; diversity is symmetric with the newcomer, and of the others as it was."""
    rng = np.random.default_rng(seed)
    policy = policy_of({"a": 0.3, "b": 0.6, "c": 0.5}, seed=seed)
    weights = add_member(policy, "new", random_probe(rng, ("a", "b", "c", "new"))).parts.weights
    assert weights["pool.price"].sum() == pytest.approx(1.0)
    old = policy.parts.weights["pool.price"]
    assert weights["pool.price"][:3] / weights["pool.price"][:3].sum() == pytest.approx(old, abs=1e-6)
    diversity = weights["pool.diversity"]
    np.testing.assert_array_equal(diversity[3], diversity[:, 3])
    np.testing.assert_array_equal(diversity[:3, :3], policy.parts.weights["pool.diversity"])
    assert ((diversity[3] >= 0) & (diversity[3] <= 1)).all()


# ---- what stays


@given(st.integers(0, 10_000))
def test_what_was_known_of_the_old_members_stays(seed):
    rng = np.random.default_rng(seed)
    policy = specialists()
    before = policy.policy_id
    added = add_member(policy, "new", random_probe(rng, ("a", "b", "new")))
    assert added.members == ("a", "b", "new")
    queries, tasks = [TEXT, "Why?", "1 + 1"], ["one", "two", None]
    old, new = policy.describe(queries, tasks), added.describe(queries, tasks)
    for name in ("competence", "trust", "option_weights"):
        np.testing.assert_allclose(getattr(new, name)[:, :2], getattr(old, name), atol=1e-6)
    assert policy.policy_id == before != added.policy_id
    assert policy.members == ("a", "b")


@given(st.integers(0, 10_000), st.permutations(["a", "b", "new", "other"]))
def test_the_order_of_the_probe_s_members_is_nothing_and_others_are_left_out(seed, order):
    rng = np.random.default_rng(seed)
    scores = {name: rng.integers(0, 2, 12) for name in ("a", "b", "new", "other")}
    costs = {name: list(rng.random(12)) for name in scores}
    policy = policy_of({"a": 0.4, "b": 0.7}, seed=seed)
    plain = {name: scores[name] for name in ("a", "b", "new")}
    one = add_member(policy, "new", probe_of(plain, costs=costs)).parts.weights
    two = add_member(policy, "new", probe_of(scores, costs=costs, order=tuple(order))).parts.weights
    for name, array in one.items():
        np.testing.assert_allclose(two[name], array, atol=1e-6, err_msg=name)


def test_what_was_measured_without_the_newcomer_is_dropped():
    old = policy_of({"a": 0.5}).parts
    card = {**old.card, "curve": [{"cost_weight": 0.0, "mean_calls": 1.0}], "validation": {"score": 0.5}}
    parts = replace(old, baselines={"x": np.ones(1)}, baseline_facts={"x": 1}, card=card)
    added = add_member(RLFocalPolicy(parts), "new", probe_of({"a": [1.0], "new": [0.0]}))
    assert (dict(added.parts.baselines), dict(added.parts.baseline_facts)) == ({}, {})
    assert added.card == {"seed": 0, "added": ["new"]}
    with pytest.raises(InputError, match="must hold a curve"):
        _ = added.curve


def test_the_price_is_in_the_unit_that_the_policy_was_trained_in():
    """Trained on calls, a newcomer ten times dearer in dollars costs what the others do: a third of the pool."""
    trained = policy_of({"a": 0.5, "b": 0.5})
    policy = RLFocalPolicy(replace(trained.parts, card={"config": {"cost_unit": "calls"}}))
    costs = {"a": [1.0], "b": [1.0], "new": [10.0]}
    price = add_member(policy, "new", probe_of({"a": [1.0], "b": [1.0], "new": [1.0]}, costs=costs)).parts.weights
    before = trained.parts.weights["pool.price"]
    assert price["pool.price"][2] == pytest.approx(0.5 / (before.sum() + 0.5))


def test_the_result_saves_and_loads(tmp_path):
    added = add_member(specialists(), "new", probe_of({"a": [1.0, 0.0], "b": [0.0, 1.0], "new": [1.0, 1.0]}))
    added.save(tmp_path / "policy")
    loaded = RLFocalPolicy.load(tmp_path / "policy")
    assert (loaded.policy_id, loaded.members) == (added.policy_id, ("a", "b", "new"))
    assert loaded.competence(QUERY) == added.competence(QUERY)


def test_a_policy_grown_twice_knows_both():
    first = add_member(policy_of({"a": 0.5}), "b", probe_of({"a": [0.0] * 10, "b": [1.0] * 10}))
    assert first.competence(QUERY)["b"] == pytest.approx(0.75)
    probe = probe_of({"a": [0.0] * 10, "b": [1.0] * 10, "c": [0.625] * 10})
    assert add_member(first, "c", probe).competence(QUERY) == pytest.approx({"a": 0.5, "b": 0.75, "c": 0.625}, abs=1e-5)


# ---- it takes part


LIMITS = {"round_number": 1, "max_rounds": 2, "max_team": 2, "cost_weight": 0.1}


def test_the_newcomer_can_be_selected_and_its_answer_returned():
    added = add_member(policy_of({"a": 0.5, "b": 0.5}), "new", probe_of({n: [1.0, 0.0] for n in ("a", "b", "new")}))
    assert added.select(QUERY, (), (), available=["new"], **LIMITS).members == ("new",)
    candidate = Candidate(member="new", round=1, text="Yes.", answer="yes", latency_s=0.1)
    assert added.fuse(QUERY, [candidate], (), max_team=2).member == "new"


def test_a_decider_that_asks_the_most_competent_asks_a_better_newcomer():
    """Its logit rises with competence alone, through one unit of each layer: the newcomer is chosen of three."""
    policy = policy_of({"a": 0.3, "b": 0.6})
    zeros = {name: np.zeros_like(array) for name, array in policy.parts.weights.items() if name.startswith("decider.")}
    zeros["decider.hidden1.weight"][0, 0] = zeros["decider.hidden2.weight"][0, 0] = 1.0  # the first axis is competence
    zeros["decider.out.weight"][0, 0], zeros["decider.out.bias"][0] = 4.0, -6.0
    policy = RLFocalPolicy(replace(policy.parts, weights={**policy.parts.weights, **zeros}))
    assert policy.select(QUERY, (), (), available=policy.members, **LIMITS).members == ("b",)
    added = add_member(policy, "new", probe_of({"a": [0.0] * 50, "b": [0.0] * 50, "new": [1.0] * 50}))
    assert added.select(QUERY, (), (), available=added.members, **LIMITS).members == ("new",)


def test_unscored_queries_of_the_probe_say_nothing_of_the_newcomer():
    """As if they were not there, but for prices."""
    policy, probe = policy_of({"a": 0.4, "b": 0.6}), random_probe(np.random.default_rng(0), ["a", "b", "new"])
    scores = probe.scores.copy()
    scores[:4, -1] = np.nan
    grown = add_member(policy, "new", replace(probe, scores=scores))
    fewer = add_member(policy, "new", probe.take(np.arange(4, len(probe))))
    np.testing.assert_allclose(grown.parts.weights["competence.bias"], fewer.parts.weights["competence.bias"])
    assert all(np.isfinite(array).all() for array in grown.parts.weights.values())
    with pytest.raises(OutcomeError, match="a scored answer of `new`"):
        add_member(policy, "new", replace(probe, scores=np.full_like(scores, np.nan)))


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "held", "error", "message"),
    [
        ("b", ("a", "b"), PoolError, r"must be new to the policy, got `b` again\. Choose another name"),
        ("new", ("a", "b"), PoolError, "outcomes of the whole pool and of `new`; missing: new\\.$"),
        ("new", ("b", "new"), PoolError, "missing: a\\.$"),
        ("new", ("other",), PoolError, "missing: a, b, new\\.$"),
        ("new", ("a", "b", "New"), PoolError, "missing: new\\.$"),
        ("new", None, OutcomeError, r"at least one query, got none\. About 50 are enough to start"),
    ],
)
def test_a_probe_that_does_not_fit_is_refused(name, held, error, message):
    probe = probe_of({member: [1.0] for member in held or ("a", "b", "new")})
    with pytest.raises(error, match=message):
        add_member(policy_of({"a": 0.5, "b": 0.5}), name, probe if held else probe.take([]))
