"""The supervised part of training finds what theory gives, and never sees the query it describes."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.environment import answers_of
from langchain_rlfocal.features import FEATURES_DIM, query_features
from langchain_rlfocal.outcomes import Outcome, OutcomeGrid, OutcomeTable
from langchain_rlfocal.policies.checkpoint import _shapes
from langchain_rlfocal.policies.evidence import CONTEXT_DIM, response_features, scaled_options
from langchain_rlfocal.policies.looks import LOOK_NAMES
from langchain_rlfocal.states import Answers
from langchain_rlfocal.training import TrainingConfig, supervised
from langchain_rlfocal.training.supervised import (
    Examples,
    cross_fitted_evidence,
    data_hash,
    draw_teams,
    fit_evidence,
    folds_of,
    frequent_labels,
    prepare,
)

# ---- The fit of the evidence model, against what theory says of members whose errors are known


nan = np.nan
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def examples_of(make_answers):
    def make(labels, scores, *, competence=0.5, tasks=None, teams=None, features=None, **known):
        """What each member said and what that was worth; nothing is known of the queries unless told."""
        answers = make_answers(labels, **known)
        q, m = answers.candidate_index.shape
        return Examples(
            features=np.zeros((q, FEATURES_DIM)) if features is None else features,
            competence=np.full((q, m), competence),
            tasks=np.array([None] * q if tasks is None else tasks, dtype=object),
            answers=answers,
            scores=np.array(scores, dtype=float),
            teams=np.ones((q, m), dtype=bool) if teams is None else teams,
        )

    return make


def independent(accuracies, *, num_queries, num_options=4, seed=0):
    """Members that are right as often as told, each by itself, and else give a wrong option at random; "0" is right."""
    rng = np.random.default_rng(seed)
    right = rng.random((num_queries, len(accuracies))) < accuracies
    said = np.where(right, 0, rng.integers(1, num_options, right.shape))
    return said.astype(str).astype(object), right.astype(float)


def test_the_fit_finds_the_log_odds_that_theory_gives(examples_of):
    """A member right with p, else wrong in one of three ways at random, adds ln(3p / (1 - p)): ln 27 and ln 2.

    The competence given is ½ for all, so it is the members' own coefficients that must find it; 6,000 queries.
    """
    labels, scores = independent([0.9, 0.4, 0.4, 0.4, 0.4], num_queries=6000)
    examples = examples_of(labels, scores)
    model = fit_evidence(examples, [], penalty=3e-4)
    trust = model.describe(examples.features[:1], examples.competence[:1])[0][0]
    assert trust.argmax() == 0
    np.testing.assert_allclose(trust[0], np.log(27), atol=0.35)
    np.testing.assert_allclose(trust[1:], np.log(2), atol=0.15)


def test_competence_that_is_known_carries_over_to_a_member_that_was_never_fitted(examples_of):
    """α is about 1: a member of competence .9, without coefficients of its own, is trusted by about ln 9 + β."""
    accuracies = np.array([0.85, 0.7, 0.55, 0.4])
    labels, scores = independent(accuracies, num_queries=4000)
    examples = replace(examples_of(labels, scores), competence=np.tile(accuracies, (4000, 1)))
    model = fit_evidence(examples, [], penalty=0.3)
    scale, base, _ = model.shared
    np.testing.assert_allclose([scale, base], [1, np.log(3)], atol=0.3)
    newcomer = replace(model, weights=np.zeros((CONTEXT_DIM, 1)))
    np.testing.assert_allclose(
        newcomer.describe(np.zeros((1, FEATURES_DIM)), np.array([[0.9]]))[0], [[scale * np.log(9) + base]]
    )


def test_labels_come_in_the_same_order_in_every_process(examples_of):
    """Twenty letters, equally frequent, in no order of their own: by name. A set of them has another order each time."""
    letters = "QWERTYUIOPASDFGHJKLZ"
    examples = examples_of([[*letters]] * 10, [[1] + [0] * 19] * 10, tasks=["t"] * 10)
    assert frequent_labels(["t"] * 10, examples.answers) == [("t", letter) for letter in sorted(letters)]


def test_a_label_that_is_always_right_gets_a_coefficient_of_its_own(examples_of):
    """In task t "A" is right whoever says it; in task u nothing is. Labels of fewer than ten queries have none."""
    labels = [["A", "B"], ["B", "A"]] * 20 + [["A", "B"], ["B", "A"]] * 20 + [["A", "C"]]
    scores = [[1, 0], [0, 1]] * 20 + [[1, 0], [1, 0]] * 20 + [[1, 0]]
    tasks = ["t"] * 40 + ["u"] * 40 + [None]
    examples = examples_of(labels, scores, tasks=tasks)
    pairs = frequent_labels(tasks, examples.answers)
    # By name where equally frequent: sets of texts come in another order in every process.
    assert pairs == [("t", "A"), ("t", "B"), ("u", "A"), ("u", "B")]
    model = fit_evidence(examples, pairs, penalty=3e-4)
    assert model.labels["t", "A"] - model.labels["t", "B"] > 3
    assert abs(model.labels["u", "A"] - model.labels["u", "B"]) < 0.5


def test_slopes_of_informative_option_scores_are_those_of_theory(examples_of):
    """The right option scores δ more, with unit noise: its log-odds rise by δ a point, δσ a standard deviation σ.

    Nobody answers, so that the scores alone decide. δ is 1 for member 0 and 0 for member 1.
    """
    rng = np.random.default_rng(0)
    q, delta = 4000, np.array([1.0, 0.0])
    scores = np.zeros((q, 4))
    scores[np.arange(q), rng.integers(0, 4, q)] = 1
    option_scores = rng.normal(size=(q, 2, 4)) + delta[:, None] * scores[:, None]
    answers = Answers(
        candidate_index=np.full((q, 2), -1),
        labels=np.full((q, 4), None, dtype=object),
        chars=np.full((q, 2), nan),
        logprobs=np.full((q, 2), nan),
        option_scores=option_scores,
    )
    examples = replace(examples_of([[None, None]] * q, scores[:, :2]), answers=answers, scores=scores)
    model = fit_evidence(examples, [], penalty=3e-4)
    slopes = model.describe(examples.features[:1], examples.competence[:1])[1][0]
    np.testing.assert_allclose(slopes, delta * model.moments[4], atol=0.1)


def test_how_a_response_looks_is_learned_where_it_tells_right_from_wrong(examples_of):
    """Member 0 is right exactly where it is sure of itself; member 1 contradicts it always. No weight falls on lengths."""
    rng = np.random.default_rng(0)
    logprobs = np.column_stack([rng.normal(size=400), np.full(400, nan)])
    right = logprobs[:, 0] > 0
    examples = examples_of([["x", "y"]] * 400, np.column_stack([right, ~right]), logprobs=logprobs)
    response = fit_evidence(examples, [], penalty=3e-3).response
    assert response[1, 0] > 1
    np.testing.assert_array_equal(response[[0, 2]], 0)
    np.testing.assert_array_equal(response[:, 1], 0)


def test_partial_scores_count_in_part(examples_of):
    """Two members always differ; one earns .8 and the other .2, or the other way round, 3 to 1: the first is trusted."""
    scores = [[0.8, 0.2]] * 30 + [[0.2, 0.8]] * 10
    model = fit_evidence(examples_of([["x", "y"]] * 40, scores), [], penalty=3e-3)
    first, second = model.describe(np.zeros((1, FEATURES_DIM)), np.full((1, 2), 0.5))[0][0]
    assert first > second + 0.5


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        pytest.param([["x", "y"]] * 12, [[0, 0]] * 12, id="nobody is ever right"),
        pytest.param([["x", "x"]] * 12, [[1, 1]] * 12, id="all are always right"),
        pytest.param([["x", "y"]] * 12, [[1, 1]] * 12, id="all differ and are right"),
        pytest.param([["x", "y"]] * 12, [[1, 0]] * 12, id="one is always right"),
        pytest.param([["x"]] * 12, [[1]] * 6 + [[0]] * 6, id="one member"),
        pytest.param([["x", "y"]], [[1, 0]], id="one query"),
        pytest.param([[None, None]] * 12, [[0, 0]] * 12, id="nobody answers"),
        pytest.param(np.zeros((0, 2)), np.zeros((0, 2)), id="no query"),
    ],
)
def test_data_that_tell_little_give_finite_coefficients(examples_of, labels, scores):
    examples = examples_of(labels, scores)
    labels = frequent_labels(examples.tasks, examples.answers)
    model = fit_evidence(examples, labels, penalty=3e-4)
    for field in fields(model):
        value = getattr(model, field.name)
        assert np.isfinite(list(value.values()) if field.name == "labels" else value).all(), field.name
    assert np.abs(model.weights).max() < 100


def test_where_nothing_can_be_learned_the_vote_is_by_log_odds(examples_of):
    """α = β = 1 and no option scores: the start is the end."""
    model = fit_evidence(examples_of([["x", "x"]], [[1, 1]]), [], penalty=0.1)
    np.testing.assert_array_equal(model.shared, [1, 1, 0])
    assert not model.weights.any()


def test_a_member_that_was_not_asked_teaches_nothing(examples_of):
    """Neither its answers nor its scores: the fit is the same whatever they are."""
    labels, scores = independent([0.8, 0.6, 0.5], num_queries=200)
    teams = np.tile([True, True, False], (200, 1))
    examples = examples_of(labels, scores, teams=teams)
    other_labels, other_scores = labels.copy(), scores.copy()
    other_labels[:, 2], other_scores[:, 2] = "never said by anyone else", 1 - scores[:, 2]
    other = examples_of(other_labels, other_scores, teams=teams)
    one, two = (fit_evidence(e, [], penalty=3e-3) for e in (examples, other))
    np.testing.assert_array_equal(one.weights, two.weights)
    assert not one.weights[:, 2].any()


def objective(model, examples, labels, penalty):
    """What the fit minimises, computed query by query in plain NumPy."""
    losses = []
    trust, slopes = model.describe(examples.features, examples.competence)
    trust = trust + np.einsum("qmr,rm->qm", response_features(examples.answers, model.moments), model.response)
    scaled = None
    if examples.answers.option_scores is not None:
        scaled = scaled_options(examples.answers.option_scores, model.moments)
    for q, team in enumerate(examples.teams):
        odds = {}
        for m in np.flatnonzero(team):
            if (place := examples.answers.candidate_index[q, m]) >= 0:
                odds[place] = odds.get(place, 0.0) + trust[q, m]
        for k in range(examples.scores.shape[1]) if scaled is not None else ():
            if not np.isnan(scaled[q, team, k]).any():
                odds[k] = odds.get(k, 0.0) + (slopes[q, team] * scaled[q, team, k]).sum()
        odds = {
            k: z
            + model.labels.get((examples.tasks[q] or "", examples.answers.labels[q, k] or ""), 0.0)
            + (0.0 if examples.answers.looks is None else examples.answers.looks[q, k] @ model.looks)
            for k, z in odds.items()
        }
        worth = [examples.scores[q, k] for k in odds]
        if worth and max(worth) > min(worth):
            shares = np.exp(list(odds.values()))
            losses.append(-np.log(shares @ worth / shares.sum()))
    own = sum((part**2).sum() for part in (model.weights, model.option_weights, model.response))
    own += sum(b**2 for b in model.labels.values()) + 0.01 * (model.looks**2).sum()
    return np.mean(losses) + penalty * own + 1e-3 * ((model.shared[:2] - 1) ** 2).sum()


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.booleans())
def test_no_small_step_from_the_fit_lowers_the_loss(make_answers, examples_of, seed, has_options):
    """Finite differences of the loss by every kind of coefficient are about 0, the loss being reckoned anew in NumPy."""
    rng = np.random.default_rng(seed)
    q, m, penalty = 30, 3, 0.03
    labels = rng.choice(np.array(["x", "y", "z", None], dtype=object), size=(q, m))
    answers = make_answers(labels)
    scores = np.take_along_axis(rng.random((q, m)), np.maximum(answers.candidate_index, 0), axis=1) * (
        answers.candidate_index >= 0
    )
    features = np.zeros((q, FEATURES_DIM))
    features[:, :2] = rng.random((q, 2))
    examples = examples_of(
        labels,
        scores,
        features=features,
        competence=0.7,
        tasks=rng.choice(["t", None], size=q).tolist(),
        teams=draw_teams(np.ones((q, m), dtype=bool), 2, rng),
        logprobs=rng.normal(size=(q, m)),
        option_scores=rng.normal(size=(q, m, m)) if has_options else None,
        looks=rng.normal(size=(q, m, len(LOOK_NAMES))),
    )
    pairs = [("t", "x"), ("", "y")]
    model = fit_evidence(examples, pairs, penalty=penalty)

    def moved(name, place, step):
        if name == "labels":
            return replace(model, labels={**model.labels, place: model.labels[place] + step})
        array = getattr(model, name).copy()
        array[place] += step
        return replace(model, **{name: array})

    places = [("shared", 0), ("shared", 1), ("weights", (0, 0)), ("weights", (1, 2)), ("response", (1, 1))]
    places += [("labels", pair) for pair in pairs] + [("looks", 2)]
    places += [("shared", 2), ("option_weights", (2, 0))] if has_options else []
    for name, place in places:
        up, down = (objective(moved(name, place, step), examples, pairs, penalty) for step in (1e-3, -1e-3))
        assert abs(up - down) / 2e-3 < 5e-3, (name, place)


def test_half_of_the_drawn_teams_are_all_members_and_none_is_larger_than_allowed():
    teams = draw_teams(np.ones((4000, 6), dtype=bool), 3, np.random.default_rng(0))
    sizes = teams.sum(axis=1)
    assert set(sizes) == {1, 2, 3, 6}
    assert abs((sizes == 6).mean() - 0.5) < 0.04
    np.testing.assert_allclose(teams[sizes < 6].mean(axis=0), 2 / 6, atol=0.04)  # sizes 1 to 3 alike: 2 on average
    assert draw_teams(np.ones((5, 2), dtype=bool), 9, np.random.default_rng(0)).any(axis=1).all()


@pytest.mark.parametrize("changed", ["scores", "answers"])
def test_what_is_in_a_fold_never_reaches_its_own_model(examples_of, changed):
    """Other scores, or responses of other lengths, in fold 1 change every model but that of fold 1."""
    labels, scores = independent([0.8, 0.6, 0.4], num_queries=90)
    folds, chars = np.arange(90) % 3, np.random.default_rng(0).integers(1, 99, (90, 3)).astype(float)
    inside = (folds == 1)[:, None]
    other = {
        "scores": lambda: examples_of(labels, np.where(inside, 1 - scores, scores), chars=chars),
        "answers": lambda: examples_of(labels, scores, chars=np.where(inside, 1000.0, chars)),
    }[changed]()
    one, two = (
        cross_fitted_evidence(examples, folds, labels=[], penalties=[0.01])[0]
        for examples in (examples_of(labels, scores, chars=chars), other)
    )
    for fold, (before, after) in enumerate(zip(one, two, strict=True)):
        names = ("shared", "weights", "response", "moments")
        assert all(np.array_equal(getattr(before, n), getattr(after, n)) for n in names) == (fold == 1)


def test_noise_chooses_a_strong_penalty_and_signal_a_weak_one(examples_of):
    """Members that are all alike need no coefficients; one that is right in task t only does."""
    rng = np.random.default_rng(0)
    folds, tasks = np.arange(200) % 4, ["t", "u"] * 100
    features = np.stack([query_features("", task) for task in tasks])
    noise = rng.random(200) < 0.5
    signal = np.arange(200) % 2 == 0
    chosen = [
        cross_fitted_evidence(
            examples_of([["x", "y"]] * 200, np.column_stack([right, ~right]), tasks=tasks, features=features),
            folds,
            labels=[],
        )[1]
        for right in (noise, signal)
    ]
    assert chosen[0] > chosen[1]


def test_one_fold_is_fitted_on_itself(examples_of):
    labels, scores = independent([0.8, 0.6], num_queries=20)
    models, penalty = cross_fitted_evidence(
        examples_of(labels, scores), np.zeros(20, dtype=int), labels=[], penalties=[0.1]
    )
    assert (len(models), penalty) == (1, 0.1)


def test_the_same_examples_give_the_same_coefficients(examples_of):
    labels, scores = independent([0.8, 0.6, 0.4], num_queries=100)
    one, two = (fit_evidence(examples_of(labels, scores), [], penalty=0.01) for _ in range(2))
    assert one.weights.tobytes() == two.weights.tobytes()
    assert one.shared.tobytes() == two.shared.tobytes()


# ---- Scores that are missing, or posteriors


def test_teams_are_drawn_among_recorded_members():
    recorded = np.random.default_rng(1).random((500, 5)) < 0.4
    teams = draw_teams(recorded, 3, np.random.default_rng(0))
    assert not (teams & ~recorded).any()
    assert (teams.any(axis=1) == recorded.any(axis=1)).all()


def test_a_candidate_that_was_not_scored_is_out_of_the_choice(examples_of):
    """As if its member had not been asked; and where the only scored one is right, or none is scored, nothing is learned."""
    labels, scores = independent([0.8, 0.6, 0.5], num_queries=200)
    hidden = scores.copy()
    hidden[labels == labels[:, 2:]] = nan  # the candidate of the third member
    teams = np.tile(np.array([[True, True, True]]), (200, 1)) & ~np.isnan(hidden)
    one = fit_evidence(examples_of(labels, hidden), [], penalty=3e-3)
    other = fit_evidence(examples_of(labels, np.nan_to_num(hidden), teams=teams), [], penalty=3e-3)
    np.testing.assert_allclose(one.weights, other.weights, atol=1e-4)
    nothing = fit_evidence(examples_of([["x", "y"]] * 9, [[1.0, nan]] * 9), [], penalty=3e-3)
    np.testing.assert_array_equal(nothing.shared, [1, 1, 0])


def test_half_the_scores_tell_members_accuracies_as_all_do(examples_of):
    """Hidden at random, query by query: log-odds of .9 and .6 against errors on three wrong answers, in the limit."""
    labels, scores = independent([0.9, 0.6, 0.6], num_queries=4000)
    whole = fit_evidence(examples_of(labels, scores), [], penalty=1e-4)
    scores[np.random.default_rng(2).random(4000) < 0.5] = nan
    half = fit_evidence(examples_of(labels, scores), [], penalty=1e-4)
    trusts = [model.describe(np.zeros((1, FEATURES_DIM)), np.full((1, 3), 0.5))[0] for model in (whole, half)]
    np.testing.assert_allclose(trusts[1], trusts[0], atol=0.35)


def test_a_posterior_is_learned_as_it_is_and_no_surer(examples_of):
    """Two members always differ, and the first is right with probability ¾: the log-odds between them are ln 3.

    Taken for recorded scores, the same numbers would give all to the first.
    """
    labels, probable = [["x", "y"]] * 50, np.array([[0.75, 0.25]] * 50)
    soft = replace(examples_of(labels, probable), posterior=np.ones(50, dtype=bool))
    differences = []
    for examples in (soft, examples_of(labels, probable)):
        trust, _ = fit_evidence(examples, [], penalty=1e-5).describe(examples.features, examples.competence)
        differences.append(trust[0, 0] - trust[0, 1])
    np.testing.assert_allclose(differences[0], np.log(3), atol=0.02)
    assert differences[1] > 2


def test_a_posterior_of_certainties_teaches_what_scores_do(examples_of):
    labels, scores = independent([0.8, 0.6, 0.5], num_queries=200)
    examples = examples_of(labels, scores)
    soft = replace(examples, posterior=np.ones(200, dtype=bool))
    one, two = (fit_evidence(given, [], penalty=3e-3) for given in (examples, soft))
    np.testing.assert_allclose(two.weights, one.weights, atol=1e-3)


def test_what_options_look_like_is_learned_where_it_tells_and_not_from_noise(examples_of):
    """The right one of two is the longest in 9 of 10 queries: about ln 9. Where length tells nothing: about 0."""
    rng = np.random.default_rng(3)
    labels = np.array([["A", "B"]] * 2000)
    longest = rng.random(2000) < 0.5
    looks = np.zeros((2000, 2, len(LOOK_NAMES)))
    looks[:, 0, 1], looks[:, 1, 1] = longest, ~longest
    found = []
    for share in (0.9, 0.5):
        first = np.where(rng.random(2000) < share, longest, ~longest)
        scores = np.stack([first, ~first], axis=1).astype(float)
        found.append(fit_evidence(examples_of(labels, scores, looks=looks), [], penalty=1e-3).looks[1])
    # Of 0/1 in both candidates one coefficient is the difference.
    np.testing.assert_allclose(found, [np.log(9), 0], atol=0.2)


# ---- Preparation: honest estimates of every training query, prices by hand, and a hash of all that is read


FIXED = {"pool_penalty": [3.0], "competence_penalty": [3.0], "evidence_penalty": [0.03]}
CONFIG = TrainingConfig(num_folds=3, max_team=2)


def make_grid(num=24, *, seed=0, costs=None, has_options=False, texts=None):
    """Three members, right half the time, on questions of two tasks."""
    rng = np.random.default_rng(seed)
    rows = []
    for q in range(num):
        for m, member in enumerate("abc"):
            probs = rng.dirichlet(np.ones(3))
            answer = "ABC"[int(probs.argmax())] if has_options else str(rng.choice(["A", "B", "a long answer"]))
            rows.append(
                Outcome(
                    task=f"task/{q % 2}",
                    query_id=str(q),
                    query=texts[q] if texts else f"Question number {q}?",
                    model=member,
                    response="x" * int(rng.integers(1, 500)),
                    answer=answer if rng.random() < 0.9 else None,
                    gold="A",
                    reward=float(answer == "A"),
                    cost_usd=None if costs is None else costs[q % len(costs)][m],
                    prompt_tokens=10 * (m + 1),
                    completion_tokens=q,
                    option_probs=tuple(probs) if has_options else None,
                    logprob=-rng.random(),
                )
            )
    return OutcomeTable.from_outcomes(rows).grid(["a", "b", "c"])


def prepared(grid, config=CONFIG, *, penalties=FIXED, embedder=None):
    return prepare(grid, config, embedder=embedder, rng=np.random.default_rng(0), penalties=penalties)


def shown(result):
    """What an episode may show of each row, without what belongs to no row."""
    known, evidence = result.features, result.evidence
    arrays = [known.competence, known.trust, known.option_weights, evidence.trust, evidence.label]
    arrays += [array for array in (evidence.option_evidence, evidence.similarity) if array is not None]
    return [np.nan_to_num(array.reshape(len(array), -1)) for array in arrays]


def turned_round(grid, rows):
    """The same outcomes, but in these rows what was right is wrong."""
    changes = {"scores": np.where(rows[:, None], 1 - grid.scores, grid.scores)}
    if grid.option_scores is not None:
        changes["option_scores"] = np.where(rows[:, None], 1 - grid.option_scores, grid.option_scores)
    return replace(grid, **changes)


def test_a_querys_own_score_never_reaches_its_competence():
    """Turned round in one fold, scores change the estimates of the other folds alone."""
    grid = make_grid()
    inside = folds_of(grid.queries, 3) == 1
    before, after = (prepared(g).features.competence for g in (grid, turned_round(grid, inside)))
    twice = np.tile(inside, 2)
    np.testing.assert_array_equal(before[twice], after[twice])
    assert (before[~twice] != after[~twice]).any()


@pytest.mark.parametrize("has_options", [False, True])
def test_a_querys_own_score_never_reaches_what_is_read_in_its_answers(has_options, monkeypatch):
    """With the competences held as they are: those of the other folds are allowed to know it."""
    grid = make_grid(has_options=has_options)
    held = np.random.default_rng(1).uniform(0.3, 0.7, (2 * len(grid), 3))
    monkeypatch.setattr(supervised, "cross_fitted", lambda *_, **__: (held, (3.0, 3.0)))
    inside = folds_of(grid.queries, 3) == 1
    twice, is_other = np.tile(inside, 2), False
    for before, after in zip(shown(prepared(grid)), shown(prepared(turned_round(grid, inside))), strict=True):
        np.testing.assert_array_equal(before[twice], after[twice])
        is_other |= bool((before[~twice] != after[~twice]).any())
    assert is_other


def test_every_query_is_learned_with_its_task_and_without():
    grid = make_grid()
    result = prepared(grid)
    assert len(result.grid) == len(result.features.competence) == 2 * len(grid)
    assert result.grid.queries == grid.queries * 2
    np.testing.assert_array_equal(result.grid.scores[: len(grid)], result.grid.scores[len(grid) :])
    assert (result.features.competence[: len(grid)] != result.features.competence[len(grid) :]).any()


@pytest.mark.parametrize("has_options", [False, True])
def test_it_makes_the_arrays_that_a_policy_holds_beside_its_networks(has_options):
    result = prepared(make_grid(60, has_options=has_options))
    sizes = {"features": len(result.weights["competence.mean"]), "decider": 1, "fusion": 1}
    shapes = _shapes(3, len(result.labels), sizes)
    own = {name: shape for name, shape in shapes.items() if not name.startswith(("decider.", "fusion."))}
    assert {name: np.shape(array) for name, array in result.weights.items()} == own
    assert all(np.isfinite(array).all() for array in result.weights.values())
    assert result.labels, "frequent answers have a coefficient of their own"
    assert (result.evidence.option_evidence is not None) == has_options


def test_the_penalties_are_chosen_among_those_offered_and_told():
    result = prepared(
        make_grid(), penalties={**FIXED, "competence_penalty": [1.0, 30.0], "evidence_penalty": [0.1, 0.2]}
    )
    assert result.facts["competence_penalty"] in {1.0, 30.0}
    assert result.facts["evidence_penalty"] in {0.1, 0.2}
    assert prepared(make_grid()).facts == {"pool_penalty": 3.0, "competence_penalty": 3.0, "evidence_penalty": 0.03}


def test_calls_are_charged_what_they_cost_by_hand():
    """Mean costs 4, 3 and 1 dollars: 8 to ask everyone. A call of 6 is charged 6/8; an unknown one its member's mean."""
    grid = make_grid(costs=[(2.0, 3.0, None), (6.0, 3.0, 1.0)])
    result = prepared(grid)
    np.testing.assert_allclose(result.weights["pool.price"], [0.5, 0.375, 0.125])
    np.testing.assert_allclose(result.charges[0], [0.25, 0.375, 0.125])
    np.testing.assert_allclose(result.charges[1], [0.75, 0.375, 0.125])


@pytest.mark.parametrize("costs", [None, [(0.0, 0.0, 0.0)], [(1.0, 1.0, None)]], ids=["unknown", "zero", "one unknown"])
def test_where_dollars_tell_nothing_every_call_costs_the_same(costs):
    result = prepared(make_grid(costs=costs))
    np.testing.assert_allclose(result.weights["pool.price"], 1 / 3)
    np.testing.assert_allclose(result.charges, 1 / 3)


def test_tokens_can_be_what_is_charged():
    """Prompts of 10, 20 and 30 tokens, completions of q for query q: of 0 to 23, 11.5 on average."""
    result = prepared(make_grid(), replace(CONFIG, cost_unit="tokens"))
    np.testing.assert_allclose(result.weights["pool.price"], np.array([21.5, 31.5, 41.5]) / 94.5)
    np.testing.assert_allclose(result.charges[4], np.array([14, 24, 34]) / 94.5)


def test_folds_keep_repeated_questions_together_and_have_no_gaps():
    queries = ["one", "two", "one", "three", "two", "one"]
    folds = folds_of(queries, 5)
    assert folds[0] == folds[2] == folds[5]
    assert folds[1] == folds[4]
    assert set(folds) == set(range(folds.max() + 1))
    assert folds_of(["half \ud800"], 5).tolist() == [0]


def test_one_question_asked_again_and_again_leaves_one_fold_and_finite_weights():
    result = prepared(make_grid(texts=["The same question?"] * 24))
    assert all(np.isfinite(array).all() for array in [*result.weights.values(), *shown(result)])


def test_the_hash_changes_with_whatever_is_read_and_with_nothing_else():
    grid = make_grid(costs=[(1.0, 2.0, 3.0)], has_options=True)
    grid = replace(grid, propensity=np.full(grid.scores.shape, 0.25))
    unread = {"members", "query_ids", "golds", "latency_s", "is_test", "dropped", "missing", "rows"}
    hashes = {data_hash(grid)}
    for field in fields(OutcomeGrid):
        value = getattr(grid, field.name)
        if field.name in unread or value is None:
            continue
        if isinstance(value, list):
            changed = [*value[:-1], "other"]
        else:
            changed = value.copy()
            changed[-1] = "other" if value.dtype == object else 1 - value[-1]
        hashes.add(data_hash(replace(grid, **{field.name: changed})))
    assert len(hashes) == 1 + len(fields(OutcomeGrid)) - len(unread)
    assert (
        data_hash(replace(make_grid(costs=[(1.0, 2.0, 3.0)], has_options=True), propensity=grid.propensity)) in hashes
    )
    assert data_hash(replace(grid, members=("a", "b", "x"))) not in hashes
    for name in ("latency_s", "golds", "query_ids"):
        assert data_hash(replace(grid, **{name: getattr(make_grid(seed=1), name)})) == data_hash(grid)
    assert data_hash(grid, grid) != data_hash(grid)


def test_an_embedder_adds_its_dimensions_to_what_competence_reads():
    class Parity:
        def embed_documents(self, texts):
            return [[float(len(text) % 2), 1.0] for text in texts]

    grid = make_grid()
    plain, embedded = prepared(grid), prepared(grid, embedder=Parity())
    assert len(embedded.weights["competence.mean"]) == len(plain.weights["competence.mean"]) + 2
    assert answers_of(embedded.grid).candidate_index.shape == (48, 3)
