"""Certification: bets worked by hand, no more errors than allowed, and certificates that are read strictly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.environment import Replays, environment_of
from langchain_rlfocal.errors import CertificationError, CheckpointError, InputError
from langchain_rlfocal.evaluation.certification import (
    BETS,
    certify,
    hash_order,
    log_capital,
    p_value,
    p_values_in_turn,
    rows_needed,
)
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.certificates import Certificate, Promise, certificates_of, with_certificate
from langchain_rlfocal.policies.learned import add_member
from langchain_rlfocal.policies.targets import OperatingPoint
from langchain_rlfocal.testing import make_outcomes

ALPHA = 0.1


# ---- one mean


def test_the_capital_is_worked_by_hand():
    """Against a mean of at most 0, m = ½: a win multiplies each part by 1 + b, a loss by 1 - b, a draw by 1.

    The stakes sum to 59/32, so with a sixth on each it is 1 + 59/192 after a win, as after the draw. A win and a loss
    multiply a part by 1 - b².
    """
    capital = np.exp(log_capital(np.array([1.0, 0.0, -1.0]), margin=0.0))
    squares = sum(bet**2 for bet in BETS)
    np.testing.assert_allclose(capital, [251 / 192, 251 / 192, 1 - squares / 6])
    assert p_value(np.array([1.0, 0.0, -1.0]), margin=0.0) == pytest.approx(192 / 251), "of the largest capital"
    assert p_value(np.array([-1.0, 0.0]), margin=0.0) == 1.0
    assert p_value(np.array([]), margin=0.0) == 1.0


def test_a_draw_wins_where_less_is_promised():
    """Against a mean of at most -½, m = ¼: a draw is x = ½, m beyond m, and multiplies by 1 + b; a loss by 1 - b."""
    draws = np.exp(log_capital(np.array([0.0, -1.0]), margin=-0.5))
    wins = np.exp(log_capital(np.array([1.0, -1.0]), margin=0.0))
    np.testing.assert_allclose(draws, wins)


def test_rows_needed_are_worked_by_hand_and_are_enough():
    """Draws against -½ multiply by 1 + b: after five the parts are 23.2, 7.6, 3.1, 1.8, 1.4, 1.2.

    That is a mean of 6.4; after six it is 10.6.
    """
    assert rows_needed(np.zeros(3), margin=-0.5, alpha=ALPHA) == 6
    assert p_value(np.zeros(5), margin=-0.5) > ALPHA
    assert p_value(np.zeros(6), margin=-0.5) < ALPHA
    assert rows_needed(np.tile([1.0, 0.0, 0.0, -1.0, 1.0], 4), margin=-0.1, alpha=0.05) > rows_needed(
        np.tile([1.0, 0.0, 0.0, -1.0, 1.0], 4), margin=-0.1, alpha=0.1
    )


@pytest.mark.parametrize("differences", [[], [0.0, -1.0], [1.0, -1.0], [1.0, -1.0, 1.0, -1.0, 0.0]])
def test_on_the_wrong_side_no_number_of_rows_helps(differences):
    assert rows_needed(np.array(differences), margin=0.0, alpha=ALPHA) is None


def test_a_difference_that_no_stake_can_gain_from_needs_more_rows_than_there_are():
    """Barely above the margin the smallest stake still loses to the spread."""
    close = np.concatenate([np.ones(501), -np.ones(499)])
    assert rows_needed(close, margin=0.0, alpha=ALPHA) is None


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=1, max_size=40), st.floats(-0.5, 0.5))
def test_a_p_value_is_one_at_most_and_falls_with_what_is_promised(differences, margin):
    values = np.array(differences)
    p = p_value(values, margin=margin)
    assert 0 <= p <= 1
    assert p_value(values, margin=margin - 0.1) <= p + 1e-12
    assert p_value(np.append(values, 1.0), margin=margin) <= p, "a longer sequence has no smaller maximum"


@pytest.mark.parametrize(
    ("differences", "margin"), [([0.0], 1.0), ([0.0], -1.0), ([0.0], float("nan")), ([1.5], 0.0), ([float("nan")], 0.0)]
)
def test_what_is_out_of_range_is_refused(differences, margin):
    with pytest.raises(InputError, match="must be in"):
        p_value(np.array(differences), margin=margin)


def drawn(rng, num_rows, *, wins, losses):
    place = rng.random(num_rows)
    return np.where(place < wins, 1.0, np.where(place < wins + losses, -1.0, 0.0))


def z_test(differences, *, margin):
    """Look at a normal p-value after every row from the thirtieth on: what the bound is not."""
    count = np.arange(1, len(differences) + 1)
    mean, square = np.cumsum(differences) / count, np.cumsum(differences**2) / count
    z = (mean - margin) * np.sqrt(count / np.maximum(square - mean**2, 1e-9))
    return z[29:].max() > 1.2816


@pytest.mark.parametrize(("wins", "losses"), [(0.10, 0.12), (0.0, 0.02), (0.47, 0.49), (0.3, 0.32)])
def test_at_the_margin_no_more_is_rejected_than_allowed(wins, losses):
    """800 times 300 rows whose true mean is the margin. A peeking z-test rejects far more."""
    rng = np.random.default_rng(0)
    samples = [drawn(rng, 300, wins=wins, losses=losses) for _ in range(800)]
    rejected = np.mean([p_value(sample, margin=wins - losses) <= ALPHA for sample in samples])
    assert rejected <= ALPHA
    assert np.mean([z_test(sample, margin=wins - losses) for sample in samples]) > 2 * ALPHA


def test_well_above_the_margin_it_rejects():
    """Mean 0.06 against -0.02, spread 0.42: 600 rows nearly always do."""
    rng = np.random.default_rng(0)
    found = [p_value(drawn(rng, 600, wins=0.12, losses=0.06), margin=-0.02) <= ALPHA for _ in range(200)]
    assert np.mean(found) > 0.95


# ---- members and points


def test_a_point_is_certified_only_against_every_member():
    """The policy is right on all rows, and so is b; a never. Against +0.1 a is beaten, b is not."""
    policy, members = np.ones((1, 100)), np.column_stack([np.zeros(100), np.ones(100)])
    assert p_values_in_turn(policy, members[:, :1], margin=0.1, alpha=ALPHA)[0] < 1e-9
    assert p_values_in_turn(policy, members, margin=0.1, alpha=ALPHA) == [1.0]
    below = p_values_in_turn(policy, members, margin=-0.1, alpha=ALPHA)[0]
    assert below == p_value(policy[0] - members[:, 1], margin=-0.1) <= ALPHA, "of the hardest to beat"
    assert below > p_value(policy[0] - members[:, 0], margin=-0.1)


def test_points_are_tested_in_turn_until_the_first_that_fails():
    """Right on all rows, on none, on all: the third is not looked at, though it would pass."""
    points = np.array([[1.0] * 100, [0.0] * 100, [1.0] * 100])
    found = p_values_in_turn(points, np.full((100, 1), 0.5), margin=0.0, alpha=ALPHA)
    assert [p <= ALPHA for p in found] == [True, False]


def test_a_sequence_of_false_points_certifies_one_no_more_often_than_allowed():
    """400 times, eight points of independent rows, all at the margin. Taking any that passes errs more often."""
    rng = np.random.default_rng(1)
    any_passed, first_passed = 0, 0
    for _ in range(400):
        points = np.array([(drawn(rng, 200, wins=0.2, losses=0.2) + 1) / 2 for _ in range(8)])
        member = np.full((200, 1), 0.5)
        first_passed += p_values_in_turn(points, member, margin=0.0, alpha=ALPHA)[0] <= ALPHA
        any_passed += any(p_value(point - 0.5, margin=0.0) <= ALPHA for point in points)
    assert first_passed / 400 <= ALPHA
    assert any_passed / 400 > 1.5 * ALPHA


def test_the_best_member_is_whoever_is_best_in_truth():
    """Two members as good as the policy: choosing the better on the rows and testing against it alone would know it too
    late.

    400 times: against both, no more errors than allowed; against the one that looks worse on these very rows, many.
    """
    rng = np.random.default_rng(2)
    both = against_worse = 0
    for _ in range(400):
        policy, one, two = (rng.random((3, 200)) < 0.5).astype(float)
        members = np.column_stack([one, two])
        both += p_values_in_turn(policy[None], members, margin=0.0, alpha=ALPHA)[0] <= ALPHA
        worse = members[:, members.mean(axis=0).argmin()]
        against_worse += p_value(policy - worse, margin=0.0) <= ALPHA
    assert both / 400 <= ALPHA
    assert against_worse > both


# ---- promises and certificates


@pytest.mark.parametrize(
    ("margin", "confidence", "name"),
    [
        (-0.02, 0.9, "best-0.02@0.9"),
        (0.03, 0.95, "best+0.03@0.95"),
        (0.0, 0.8, "best-0@0.8"),
        (-0.5, 0.999, "best-0.5@0.999"),
    ],
)
def test_a_promise_has_one_name_that_can_be_read_again(margin, confidence, name):
    assert Promise(margin, confidence).name == str(Promise(margin, confidence)) == name
    assert Promise.parse(name) == Promise(margin, confidence)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "best",
        "best-0.02",
        "best-0.02@1",
        "best-0.02@90",
        "best-1@0.9",
        "worst-0.02@0.9",
        "best-0.02@0.9 ",
        "best-nan@0.9",
        "best-0.02@0.0",
    ],
)
def test_a_name_that_promises_nothing_is_refused(name):
    with pytest.raises(InputError, match="promise"):
        Promise.parse(name)


@pytest.mark.parametrize(
    ("margin", "confidence"), [(0.02, 0.9999999), (1e-7, 0.9), (0.02, 1.0), (-1.0, 0.9), (float("nan"), 0.9)]
)
def test_numbers_that_no_name_can_hold_are_refused(margin, confidence):
    with pytest.raises(InputError, match="promise must"):
        Promise(margin, confidence)


GOOD = {
    "promise": "best-0.02@0.9",
    "policy_id": "rlfocal-1",
    "date": "2026-11-30",
    "rows": 400,
    "members": ["ann", "bob"],
    "tasks": ["quiz/a"],
    "task_labels": True,
    "max_team": 2,
    "max_rounds": 2,
    "bound": "betting",
    "p_value": 0.05,
    "operating_point": {"low": {"cost_weight": 0.5}, "high": {"cost_weight": 0.1, "max_team": 1}, "share": 0.25},
    "unit": "calls",
    "spending": 1.5,
    "score": 0.8,
    "best_member": "ann",
    "best_member_score": 0.6,
}


def test_a_certificate_comes_out_of_a_card_as_it_went_in():
    one = Certificate.model_validate(GOOD)
    two = Certificate.model_validate({**GOOD, "promise": "best+0.1@0.8"})
    card = json.loads(json.dumps(with_certificate(with_certificate({"seed": 1}, one), two)))
    assert card["seed"] == 1
    assert certificates_of(card, "rlfocal-1") == {"best-0.02@0.9": one, "best+0.1@0.8": two}
    assert certificates_of({}, "rlfocal-1") == {}
    assert (one.mixture.low, one.mixture.high) == (OperatingPoint(0.5), OperatingPoint(0.1, max_team=1))
    assert (one.mixture.share, one.mixture.expected) == (0.25, 1.5)
    assert one.mixture.point_for(0.2) == one.mixture.high


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"p_value": 0.2}, "does not show it"),
        ({"policy_id": "rlfocal-2"}, "another policy"),
        ({"promise": "best-0.01@0.9"}, "promises something else"),
        ({"promise": "certainly"}, "must be named"),
        ({"rows": 0}, "rows"),
        ({"rows": "400"}, "rows"),
        ({"score": float("nan")}, "score"),
        ({"spending": float("inf")}, "spending"),
        ({"bound": "hope"}, "bound"),
        ({"date": "yesterday"}, "date"),
        ({"members": []}, "members"),
        ({"extra": 1}, "extra"),
        (
            {"operating_point": {"low": {"cost_weight": -1.0}, "high": {"cost_weight": 0.0}, "share": 0.0}},
            "cost_weight",
        ),
        ({"operating_point": {"low": {"cost_weight": 1.0}, "high": {"cost_weight": 0.0}, "share": 1.5}}, "share"),
    ],
)
def test_what_a_stranger_wrote_into_a_certificate_is_refused(changes, words):
    with pytest.raises(CheckpointError, match=words):
        certificates_of({"certificates": {"best-0.02@0.9": {**GOOD, **changes}}}, "rlfocal-1")


@pytest.mark.parametrize("stored", [7, [GOOD], {"best-0.02@0.9": 7}])
def test_what_is_no_certificate_is_refused(stored):
    with pytest.raises(CheckpointError, match="certif"):
        certificates_of({"certificates": stored}, "rlfocal-1")


# ---- a policy


@pytest.fixture(scope="session")
def many():
    """2,000 other queries of the same two tasks, of which some 300 are test rows."""
    accuracies = {"quiz/a": {"ann": 0.9, "bob": 0.3}, "quiz/b": {"ann": 0.3, "bob": 0.9}}
    return make_outcomes(accuracies, num_queries=1000, seed=5)


@pytest.fixture
def many_outcomes(folder, many):
    many.write("many.parquet")
    return "many.parquet"


LIMITS = {"max_team": 2, "max_rounds": 2, "date": "2026-11-30"}


def test_a_policy_is_certified_on_test_rows_alone_whatever_their_order(quiz_policy, many):
    """It knows who knows which task: about 0.9 where each member has 0.6."""
    grid = many.grid(["ann", "bob"])
    certificate, found = certify(quiz_policy, grid, Promise(0.1, 0.9), **LIMITS)
    test = grid.split()[2]
    assert certificate.rows == len(test) < len(grid) / 4
    assert certificate.promise == "best+0.1@0.9"
    assert certificate.policy_id == quiz_policy.policy_id
    assert certificate.p_value <= 0.1
    assert certificate.score > certificate.best_member_score + 0.1
    assert certificate.best_member_score == pytest.approx(test.scores.mean(axis=0).max())
    spendings = [one.spending for one in found]
    assert certificate.spending == min(one.spending for one in found if one.p_value <= 0.1)
    assert max(spendings) == spendings[0], "from the dearest down"
    turned = many.grid(["bob", "ann"]).take(np.random.default_rng(0).permutation(len(grid)))
    assert certify(quiz_policy, turned, Promise(0.1, 0.9), **LIMITS) == (certificate, found)


@pytest.fixture
def alone(random_policy):
    """A policy that asks Ann alone at 2, Bob alone at 1, or a mixture of them."""
    curve = [
        {"cost_weight": 0.0, "mean_calls": 2.0, "score": 0.9, "member": "ann"},
        {"cost_weight": 0.0, "mean_calls": 1.5, "score": 0.1},
        {"cost_weight": 0.0, "mean_calls": 1.0, "score": 0.5, "member": "bob"},
    ]
    return random_policy(["ann", "bob"], card={"curve": curve})


def test_the_cheapest_point_that_passed_is_certified_and_rows_are_in_the_order_of_the_hash(alone):
    """Ann is right on 0.9, Bob on 0.5: at most 0.1 below Ann is who asks her for ¾. Points ask her for 0.05 less each."""
    grid = make_outcomes({"quiz": {"ann": 0.9, "bob": 0.5}}, num_queries=4000).grid(["ann", "bob"])
    certificate, found = certify(alone, grid, Promise(-0.1, 0.9), **LIMITS)
    assert len(found) > 2
    assert [one.p_value <= ALPHA for one in found] == [True] * (len(found) - 1) + [False]
    point = certificate.operating_point
    assert (point.high.member, point.low.member) == ("ann", "bob")
    assert 0.75 < point.share == pytest.approx(1 - 0.05 * (len(found) - 2))
    assert (certificate.p_value, certificate.score) == (found[-2].p_value, found[-2].score)
    rows = grid.canonical().split()[2]
    p_values = []
    for order in (hash_order(rows), np.arange(len(rows))):
        turned = rows.take(order)
        env = environment_of(alone, turned, max_team=2, max_rounds=2)
        scores = Replays(alone, env).mixed(certificate.mixture).scores
        p_values += p_values_in_turn(scores[None], turned.scores, margin=-0.1, alpha=ALPHA)
        assert scores.mean() == pytest.approx(certificate.score)
    assert p_values[0] == certificate.p_value != p_values[1]


@pytest.mark.parametrize("first", [[1.0, 0.0], [0.0, 1.0]])
def test_rows_that_are_needed_are_those_against_the_member_that_needs_most(alone, many, first):
    """Ann is never below herself, which few rows show; Bob is as good, but right on other rows, which takes more.

    Whoever of the two is a little better on these rows.
    """
    test = many.grid(["ann", "bob"]).split()[2].canonical().take(range(60))
    test = replace(test, scores=np.array([first, *[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]] * 20])[:60])
    ann, bob = test.take(hash_order(test)).scores.T
    needed = [rows_needed(ann - other, margin=-0.1, alpha=1 - 0.9) for other in (ann, bob)]
    assert needed[0] < len(test) < needed[1]
    with pytest.raises(CertificationError) as caught:
        certify(alone, test, Promise(-0.1, 0.9), **LIMITS)
    assert caught.value.rows_needed == needed[1]


def test_rows_that_training_saw_or_that_lack_a_score_prove_nothing(quiz_policy, many):
    grid = many.grid(["ann", "bob"])
    learned, chosen, test = grid.split()
    with pytest.raises(CertificationError, match="none of") as caught:
        certify(quiz_policy, learned.join(chosen), Promise(-0.02, 0.9), **LIMITS)
    assert caught.value.rows_needed is None
    holes = replace(test, scores=np.where(np.arange(len(test))[:, None] % 2 == [0, 1], test.scores, np.nan))
    with pytest.raises(CertificationError, match="every member was scored"):
        certify(quiz_policy, holes, Promise(-0.02, 0.9), **LIMITS)
    some = replace(test, scores=np.where(np.arange(len(test))[:, None] < 20, np.nan, test.scores))
    certificate, _ = certify(quiz_policy, some, Promise(0.05, 0.8), **LIMITS)
    assert certificate.rows == len(test) - 20


def test_too_few_rows_are_refused_with_the_number_that_is_needed_and_a_false_promise_without(quiz_policy, many):
    """Of ten rows; and with as many as are said to be needed it can be shown. Nobody scores 0.9 above the best."""
    test = many.grid(["ann", "bob"]).split()[2].canonical()
    few = test.take(hash_order(test)[:10])
    with pytest.raises(CertificationError, match="needs about") as caught:
        certify(quiz_policy, few, Promise(0.1, 0.9), **LIMITS)
    needed = caught.value.rows_needed
    assert 10 < needed < len(test)
    assert f"needs about {needed} rows" in str(caught.value)
    with pytest.raises(CertificationError, match="more such rows would not show it") as caught:
        certify(quiz_policy, test, Promise(0.9, 0.9), **LIMITS)
    assert caught.value.rows_needed is None


def test_a_policy_that_learns_a_new_member_holds_no_certificate_of_the_old(quiz_policy, many):
    card = with_certificate(quiz_policy.card, Certificate.model_validate({**GOOD, "policy_id": quiz_policy.policy_id}))
    policy = RLFocalPolicy(replace(quiz_policy.parts, card=card))
    probe = make_outcomes({"quiz/a": {"ann": 0.9, "bob": 0.3, "eve": 0.5}}, num_queries=50).grid(["ann", "bob", "eve"])
    assert "certificates" not in add_member(policy, "eve", probe).card


# ---- the command


def test_certify_writes_certificates_beside_each_other_and_leaves_the_policy_as_it_was(cli, checkpoint, many_outcomes):
    weights = Path(checkpoint, "weights.safetensors").read_bytes()
    before = RLFocalPolicy.load(checkpoint)
    first = cli.said("certify", checkpoint, many_outcomes, "--within", 0.02)
    second = cli.said("certify", checkpoint, many_outcomes, "--gain", 0.1, "--confidence", 0.95)
    after = RLFocalPolicy.load(checkpoint)
    found = certificates_of(after.card, after.policy_id)
    assert list(found) == ["best+0.1@0.95", "best-0.02@0.9"], "sorted, as all facts of a checkpoint are"
    assert found["best-0.02@0.9"].model_dump() == first["certificate"]
    assert found["best+0.1@0.95"].model_dump() == second["certificate"]
    assert after.policy_id == before.policy_id
    assert Path(checkpoint, "weights.safetensors").read_bytes() == weights
    assert {name: value for name, value in after.card.items() if name != "certificates"} == before.card
    assert first["certificate"]["spending"] <= second["certificate"]["spending"], "less is promised"
    again = cli.said("certify", checkpoint, many_outcomes, "--within", 0.02)
    assert again["certificate"] == first["certificate"]
    assert len(certificates_of(RLFocalPolicy.load(checkpoint).card, after.policy_id)) == 2


def test_certify_says_what_it_tested_and_what_it_shows(cli, checkpoint, many_outcomes, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    said = cli.said("certify", checkpoint, many_outcomes, "--within", 0.02)
    shown = cli.shown("certify", checkpoint, many_outcomes, "--within", 0.02)
    assert f"on {said['certificate']['rows']} rows that training did not see" in shown
    assert "best-0.02@0.9 in policy" in shown
    assert "at most 0.02 below the best of 2 members" in shown
    assert shown.count("passed") == sum(one["p_value"] <= 0.1 for one in said["tested"])


def test_certify_refuses_in_one_line_and_writes_nothing(cli, checkpoint, many_outcomes, outcomes):
    before = Path(checkpoint, "checkpoint.json").read_bytes()
    for options, words in (
        ((), ["`--within` or `--gain`"]),
        (("--within", 0.02, "--gain", 0.02), ["one promise"]),
        (("--within", 0.02, "--confidence", 1), ["confidence", "(0, 1)"]),
        (("--gain", 2), ["margin", "(-1, 1)"]),
        (("--gain", 0.9), ["more such rows would not show it"]),
        (("--within", 0.02, "--task", "other/*"), ["other/*"]),
    ):
        cli.assert_refused(cli.run("certify", checkpoint, many_outcomes, *options), *words)
    cli.assert_refused(cli.run("certify", checkpoint, outcomes, "--gain", 0.2, "--confidence", 0.999), "needs about")
    assert Path(checkpoint, "checkpoint.json").read_bytes() == before


def test_certify_takes_the_test_rows_that_the_training_set_apart(cli, quiz_policy, many, many_outcomes):
    """200 of 2,000 names end in 7; where none matches, nothing is certified."""
    card = {**quiz_policy.card, "rows": {"test_ids": "*7"}}
    RLFocalPolicy(replace(quiz_policy.parts, card=card)).save("apart")
    assert cli.said("certify", "apart", many_outcomes, "--within", 0.02)["certificate"]["rows"] == 200
    RLFocalPolicy(replace(quiz_policy.parts, card={**card, "rows": {"test_ids": "test*"}})).save("apart")
    cli.assert_refused(cli.run("certify", "apart", many_outcomes, "--within", 0.02), "test*")


def test_certify_refuses_a_checkpoint_with_certificates_that_a_stranger_made_up(cli, quiz_policy, many_outcomes):
    card = {**quiz_policy.card, "certificates": {"best-0.02@0.9": GOOD}}
    RLFocalPolicy(replace(quiz_policy.parts, card=card)).save("made_up")
    cli.assert_refused(cli.run("certify", "made_up", many_outcomes, "--within", 0.02), "another policy")


def test_the_order_of_rows_is_by_hash(many):
    grid = many.grid(["ann", "bob"]).take(range(100))
    order = [grid.queries[row] for row in hash_order(grid)]
    turned = grid.take(np.arange(len(grid))[::-1])
    assert [turned.queries[row] for row in hash_order(turned)] == order
    assert order != grid.queries
    assert sorted(order) == sorted(grid.queries)


def test_of_outcomes_that_training_never_saw_all_rows_count(cli, checkpoint, many_outcomes):
    """And what members called themselves is written down, as MEMBER=MODEL."""
    said = cli.said("certify", checkpoint, many_outcomes, "--within", 0.02)["certificate"]
    new = cli.said("certify", checkpoint, many_outcomes, "--within", 0.02, "--new", "--fingerprint", "ann=gpt-1=b")[
        "certificate"
    ]
    assert new["rows"] > 5 * said["rows"]
    assert (said["fingerprints"], new["fingerprints"]) == ({}, {"ann": "gpt-1=b"})
    for option, words in (("ann", "MEMBER=MODEL"), ("zed=gpt-1", "must be of members")):
        cli.assert_refused(
            cli.run("certify", checkpoint, many_outcomes, "--within", 0.02, "--fingerprint", option), words
        )
