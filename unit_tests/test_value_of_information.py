"""Value of information, by a slow count of all that a member could say; and the chance that right answers coincide."""

import numpy as np
import pytest

from langchain_rlfocal.features import features_of
from langchain_rlfocal.policies.evidence import coincidence_of, fit_coincidence


def expected_gain(evidence, competence, trust):
    """What one more answer brings where right answers coincide: the best of each outcome, less the best of now.

    The world is one candidate being right, or none. The member says what is right with its competence, each wrong candidate with
    that times e^-trust, and else something new.
    """
    odds = np.exp([*evidence, 0.0])
    worlds = odds / odds.sum()
    wrong = competence * np.exp(-trust)
    total = 0.0
    for said in range(len(evidence)):
        total += max(worlds[k] * (competence if k == said else wrong) for k in range(len(evidence)))
    rest = max(1 - competence - (len(evidence) - 1) * wrong, 0.0)
    total += max([worlds[-1] * competence, *(worlds[k] * rest for k in range(len(evidence)))])
    best = max(worlds[:-1], default=0.0)
    stays = best * (competence + (len(evidence) - 1) * wrong + rest) if evidence else 0.0
    return total - stays


@pytest.mark.parametrize(
    ("places", "trust", "competence"),
    [
        pytest.param([None, None], [0.0, 0.7], 0.6, id="nobody was asked"),
        pytest.param([0, None], [0.4, 1.5], 0.7, id="one answer"),
        pytest.param([0, None], [3.0, 0.5], 0.4, id="a sure answer"),
        pytest.param([0, 1, None], [1.0, 0.8, 1.2], 0.6, id="two answers"),
        pytest.param([0, 0, None], [1.0, 1.0, 1.2], 0.6, id="two that agree"),
    ],
)
def test_gain_is_the_expected_rise_of_the_best_answers_probability(make_state, places, trust, competence):
    state = make_state([competence] * len(places), places, trust=np.array([trust]))
    supported = sorted({place for place in places if place is not None})
    evidence = [sum(t for t, place in zip(trust, places, strict=True) if place == k) for k in supported]
    assert state.gain[0, -1] == pytest.approx(expected_gain(evidence, competence, trust[-1]))
    assert not state.gain[0, :-1][state.asked[0, :-1]].any()


def test_where_right_answers_never_coincide_only_a_likelier_member_gains(make_state):
    """The answer at hand is right with e/(1 + e) = .73: the .6 cannot raise that, the .9 raises it to its own."""
    state = make_state([0.5, 0.6, 0.9], [0, None, None], coincidence=np.zeros(1))
    np.testing.assert_allclose(state.gain, [[0, 0, 0.9 - np.e / (1 + np.e)]])
    between_two = [0.5, 0.5, 0.3], [0, 1, None]
    assert make_state(*between_two, coincidence=np.zeros(1)).gain[0, 2] == 0
    assert make_state(*between_two).gain[0, 2] > 0.05


def test_right_answers_coincide_on_one_task_and_not_on_the_other():
    rng = np.random.default_rng(0)
    tasks = ["numbers", "essays"] * 200
    features = features_of([f"question {n}" for n in range(400)], tasks)
    scores = (rng.random((400, 3)) < 0.7).astype(float)
    scores[::7, 0] = np.nan
    ids = np.where((np.arange(400) % 2 == 0)[:, None] & (scores >= 0.5), 0, np.arange(3))
    chance = coincidence_of(features, fit_coincidence(features, ids, scores))
    assert chance[::2].min() > 0.9
    assert chance[1::2].max() < 0.1
    nothing = fit_coincidence(features, ids, np.full_like(scores, np.nan))
    np.testing.assert_array_equal(coincidence_of(features, nothing), 1.0)
