"""Agreement: what unscored and missing answers are taken for, on simulated pools whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes import OutcomeGrid
from langchain_rlfocal.training import TrainingConfig, agreement, train
from langchain_rlfocal.training.agreement import complete, log_of, pairwise_factors

pytestmark = pytest.mark.usefixtures("one_thread")


def grid_of(answers, scores, *, recorded=None, propensity=None):
    """Lay out answers, a whole number each and -1 for silence; what is not recorded is forgotten."""
    answers, scores = np.asarray(answers), np.asarray(scores, dtype=float)
    q, m = answers.shape
    recorded = np.ones((q, m), dtype=bool) if recorded is None else recorded
    kept = np.where(recorded, answers, -1)
    ids = np.where(kept >= 0, (kept[:, :, None] == kept[:, None, :]).argmax(axis=2), -1).astype(np.int32)
    labels = np.where(kept >= 0, kept.astype(str).astype(object), np.array(None, dtype=object))
    unknown = np.full((q, m), np.nan)
    return OutcomeGrid(
        members=tuple(f"member-{i}" for i in range(m)),
        tasks=["task"] * q,
        query_ids=[str(i) for i in range(q)],
        queries=[f"question {i}" for i in range(q)],
        golds=[None] * q,
        answer_ids=ids,
        answers=labels,
        scores=np.where(recorded, scores, np.nan),
        recorded=recorded,
        propensity=unknown if propensity is None else np.where(recorded, propensity, np.nan),
        **dict.fromkeys(
            ("cost_usd", "latency_s", "prompt_tokens", "completion_tokens", "logprobs", "response_chars"), unknown
        ),
    )


def pool(accuracies, *, num_queries=600, num_options=6, spread=0.0, seed=0):
    """Answers, "0" being right, of members that know it with these probabilities, each by itself, and else guess.

    `spread` is how much harder some queries are than others, in log-odds.
    """
    rng = np.random.default_rng(seed)
    hard = spread * rng.normal(size=(num_queries, 1))
    odds = np.log(np.array(accuracies) / (1 - np.array(accuracies))) - hard
    knows = rng.random(odds.shape) < 1 / (1 + np.exp(-odds))
    answers = np.where(knows, 0, rng.integers(0, num_options, odds.shape))
    return answers, (answers == 0).astype(float)


def unscored(scores, *, but=0):
    """Forget the scores of all queries but the first few."""
    return np.where(np.arange(len(scores))[:, None] < but, scores, np.nan)


def best_of(grid, scores):
    """Mean true score of the candidates that are likeliest to be right."""
    return scores[np.arange(len(scores)), grid.scores.argmax(axis=1)].mean()


def done(grid, seed=0):
    return complete(grid, rng=np.random.default_rng(seed))


def test_what_is_complete_and_scored_passes_unchanged():
    answers, scores = pool([0.8, 0.6], num_queries=20)
    grid = grid_of(answers, scores)
    completion = done(grid)
    assert completion.grid is grid
    assert completion.warnings == ()
    assert completion.facts["scored"] == 40
    assert completion.facts["unscored"] == completion.facts["unrecorded"] == 0


def test_accuracies_are_recovered_without_a_label():
    """Five members of known accuracy, errors independent given how hard a query is: within 6 points, in the right order."""
    answers, scores = pool([0.85, 0.75, 0.65, 0.55, 0.45], spread=1.0)
    completion = done(grid_of(answers, unscored(scores)))
    found = np.array([*completion.facts["accuracy"].values()])
    np.testing.assert_allclose(found, scores.mean(axis=0), atol=0.06)
    assert (np.diff(found) < 0).all()
    assert best_of(completion.grid, scores) > scores.mean(axis=0).max()


def test_noise_says_nothing():
    """Answers at random, of six: nobody is far from chance, no answer is nearly certain, and a warning says why."""
    answers = np.random.default_rng(0).integers(0, 6, (400, 5))
    completion = done(grid_of(answers, np.full((400, 5), np.nan)))
    found = np.array([*completion.facts["accuracy"].values()])
    assert np.ptp(found) < 0.05
    assert completion.grid.scores.mean() < 0.35
    assert any("chance" in warning for warning in completion.warnings)


def test_agreement_beyond_chance_is_not_called_noise():
    answers, scores = pool([0.6, 0.6, 0.6, 0.6, 0.6], num_queries=400)
    assert not any("chance" in warning for warning in done(grid_of(answers, unscored(scores))).warnings)


def test_a_copied_voice_counts_once():
    """Three of seven members are one and its copies: right on half, and together they win most votes."""
    answers, scores = pool([0.5, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6], seed=1)
    rng = np.random.default_rng(2)
    for copy in (1, 2):
        copied = rng.random(len(answers)) < 0.9
        answers[:, copy] = np.where(copied, answers[:, 0], answers[:, copy])
        scores[:, copy] = answers[:, copy] == 0
    _, excess = pairwise_factors(log_of(grid_of(answers, unscored(scores))))
    assert excess[:3, :3][np.triu_indices(3, 1)].min() > 1
    assert excess[3:, 3:].max() < 0.1
    completion = done(grid_of(answers, unscored(scores)))
    counts = np.array([[np.sum(row == answer) for answer in row] for row in answers])
    vote = scores[np.arange(len(scores)), counts.argmax(axis=1)].mean()
    assert best_of(completion.grid, scores) > vote + 0.05
    found = np.array([*completion.facts["accuracy"].values()])
    assert found[:3].max() < found[3:].min()


def test_scored_rows_show_who_is_far_ahead():
    """One member knows what the others, which share a common error, do not: agreement alone follows the many."""
    rng = np.random.default_rng(0)
    answers, scores = pool([0.85, 0.4, 0.4, 0.4, 0.4], num_queries=800, seed=3)
    fooled = (rng.random((800, 1)) < 0.5) & (scores[:, 1:] == 0)
    answers[:, 1:] = np.where(fooled, 1, answers[:, 1:])
    alone, helped = (done(grid_of(answers, unscored(scores, but=but))) for but in (0, 150))
    unseen = np.arange(800) >= 150
    gain = best_of(helped.grid.take(unseen), scores[unseen]) - best_of(alone.grid.take(unseen), scores[unseen])
    assert gain >= 0.0
    error = [abs(one.facts["accuracy"]["member-0"] - scores[:, 0].mean()) for one in (alone, helped)]
    assert error[1] < error[0]
    assert error[1] < 0.05
    assert any("far ahead" in warning for warning in alone.warnings)


def test_scores_on_record_stay_and_answers_share_them():
    answers, scores = pool([0.8, 0.7, 0.6], num_queries=200)
    given = np.full(scores.shape, np.nan)
    given[:, 0] = scores[:, 0]
    completed = done(grid_of(answers, given)).grid
    np.testing.assert_array_equal(completed.scores[:, 0], scores[:, 0])
    same = answers == answers[:, :1]
    np.testing.assert_allclose(completed.scores[same], np.repeat(scores[:, :1], 3, axis=1)[same], atol=0.01)
    # Another answer than the right one is wrong.
    other = ~same & (scores[:, :1] == 1)
    assert completed.scores[other].max() < 0.01


def asked_of(scores, rng, *, chances):
    """Ask each member with a probability that depends on whether the query is easy; some member is always asked."""
    easy = (scores.mean(axis=1) > np.median(scores.mean(axis=1)))[:, None]
    chance = np.where(easy, chances[0], chances[1])
    asked = rng.random(scores.shape) < chance
    return asked | (~asked.any(axis=1, keepdims=True) & (np.arange(scores.shape[1]) == 0)), chance


@pytest.fixture
def quickly(monkeypatch):
    monkeypatch.setattr(agreement, "MAX_FITTED", 600)


@pytest.mark.usefixtures("quickly")
def test_what_was_never_asked_is_drawn_right_as_often_as_it_would_have_been():
    """Members are asked easy queries more often, which flatters what is on record; propensities undo it.

    The standard error of the weighted means is about 0.02.
    """
    answers, scores = pool([0.75, 0.65, 0.55, 0.45], num_queries=3000, spread=1.5)
    asked, chance = asked_of(scores, np.random.default_rng(1), chances=([0.5, 0.5, 0.5, 0.5], [0.5, 0.2, 0.2, 0.2]))
    truth = scores.mean(axis=0)
    seen = np.array([scores[asked[:, i], i].mean() for i in range(4)])
    assert (seen - truth)[1:].min() > 0.05
    known = done(grid_of(answers, scores, recorded=asked, propensity=chance))
    blind = done(grid_of(answers, scores, recorded=asked))
    error = [np.abs(np.array([*one.facts["accuracy"].values()]) - truth)[1:] for one in (known, blind)]
    assert error[0].max() < 0.05
    assert error[1].mean() > 2 * error[0].mean()
    assert known.warnings == ()
    assert any("`propensity`" in warning for warning in blind.warnings)


@pytest.mark.usefixtures("quickly")
def test_drawn_answers_err_together_as_recorded_ones_do():
    """Members are right on the same queries: what is drawn from a third of the cells is as correlated as the truth."""
    answers, scores = pool([0.7, 0.6, 0.6, 0.5, 0.5, 0.4], num_queries=2000, spread=2.0)
    asked = np.random.default_rng(0).random(scores.shape) < 0.35
    asked[~asked.any(axis=1), 0] = True
    grid = done(grid_of(answers, scores, recorded=asked)).grid
    upper = np.triu_indices(6, 1)
    assert np.corrcoef(grid.scores.T)[upper].mean() == pytest.approx(np.corrcoef(scores.T)[upper].mean(), abs=0.06)
    assert grid.recorded.all()
    assert (grid.answer_ids >= 0).all()
    # Equal ids are equal answers: the first who gave it.
    np.testing.assert_array_equal(np.take_along_axis(grid.answer_ids, grid.answer_ids, axis=1), grid.answer_ids)


def test_the_same_draw_for_the_same_seed_and_another_for_another():
    answers, scores = pool([0.7, 0.6, 0.5], num_queries=100)
    asked = np.random.default_rng(0).random(scores.shape) < 0.6
    asked[~asked.any(axis=1), 0] = True
    one, two, three = (done(grid_of(answers, scores, recorded=asked), seed=seed).grid for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.answer_ids, two.answer_ids)
    np.testing.assert_array_equal(one.scores, two.scores)
    assert (one.answer_ids != three.answer_ids).any()


def test_nothing_to_learn_from_is_an_error_that_names_the_way_out():
    answers, scores = pool([0.7, 0.6], num_queries=30)
    never_together = np.arange(30)[:, None] % 2 == np.arange(2)
    with pytest.raises(OutcomeError, match="Score some answers, or ask more members"):
        done(grid_of(answers, unscored(scores), recorded=never_together))


def test_two_members_are_warned_of():
    answers, scores = pool([0.8, 0.6], num_queries=100)
    assert any("third member" in warning for warning in done(grid_of(answers, unscored(scores))).warnings)


def test_members_too_alike_are_warned_of():
    answers, _ = pool([0.7], num_queries=100)
    alike = np.repeat(answers, 3, axis=1)
    assert any("too alike" in warning for warning in done(grid_of(alike, np.full(alike.shape, np.nan))).warnings)


@pytest.mark.parametrize("case", ["silent", "contradiction", "absent member", "rare propensity", "tasks of one row"])
def test_odd_logs_give_numbers(case):
    answers, scores = pool([0.7, 0.6, 0.5], num_queries=60)
    given, recorded = unscored(scores, but=10), np.ones(scores.shape, dtype=bool)
    if case == "silent":
        answers[5:20] = -1
    if case == "contradiction":
        answers[0], given[0] = 0, [1.0, 0.0, np.nan]
    if case == "absent member":
        recorded[:, 2] = False
    if case == "rare propensity":
        recorded[10:, 2] = False
    grid = grid_of(answers, given, recorded=recorded, propensity=np.full(scores.shape, 1e-12))
    if case == "tasks of one row":
        grid = replace(grid, tasks=[f"task {i}" for i in range(60)])
    completed = done(grid).grid
    assert ((completed.scores >= 0) & (completed.scores <= 1)).all()
    if case == "contradiction":
        assert completed.scores[0, 2] == pytest.approx(0.5, abs=0.2)
    if case == "silent":
        assert (completed.scores[10:20] == 0).all()


def test_open_text_is_worth_what_its_member_usually_is():
    """Texts without labels cannot be compared: an unscored one is worth about the member's scored ones."""
    _, scores = pool([0.8, 0.2], num_queries=400)
    grid = grid_of(np.zeros((400, 2)), unscored(scores, but=200))
    grid = replace(
        grid, answers=np.full((400, 2), None, dtype=object), answer_ids=np.tile(np.arange(2, dtype=np.int32), (400, 1))
    )
    completed = done(grid).grid
    np.testing.assert_allclose(completed.scores[200:].mean(axis=0), scores[:200].mean(axis=0), atol=0.12)
    np.testing.assert_array_equal(completed.answer_ids, grid.answer_ids)


def test_the_fit_reads_a_share_of_many_rows(monkeypatch):
    """With 100 rows instead of 600 the estimates are close, and scored rows are among them."""
    answers, scores = pool([0.85, 0.7, 0.55])
    grid = grid_of(answers, unscored(scores, but=20))
    whole = done(grid).facts["accuracy"]
    monkeypatch.setattr(agreement, "MAX_FITTED", 150)
    monkeypatch.setattr(agreement, "MAX_PAIRS", 200 * 9)  # all is read in blocks of 200 rows
    part = done(grid).facts["accuracy"]
    np.testing.assert_allclose([*part.values()], [*whole.values()], atol=0.08)


def test_training_without_a_label_says_what_it_rests_on_and_warns():
    answers, scores = pool([0.95, 0.75], num_queries=60)
    brief = TrainingConfig(
        num_iterations=1, batch_size=32, max_team=2, max_rounds=2, num_folds=2, decider_hidden=8, fusion_hidden=8
    )
    grid = grid_of(answers, unscored(scores))
    with pytest.warns(UserWarning, match="third member"):
        policy = train(grid.take(np.arange(50)), grid.take(np.arange(50, 60)), brief)
    labels = policy.card["labels"]
    assert (labels["scored"], labels["unscored"], labels["unrecorded"]) == (0, 120, 0)
    assert set(labels["accuracy"]) == set(grid.members)
    assert all(np.isfinite(array).all() for array in policy.parts.weights.values())
