"""Training learns what there is to learn, reproducibly, and never from the wrong rows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from langchain_rlfocal.environment import Replays, environment_of, replay
from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.evaluation import fit_rivals
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, spending_in, split_of
from langchain_rlfocal.policies import PriorPolicy, RLFocalPolicy
from langchain_rlfocal.training import TrainingConfig, TrainingInterrupted, mappo, train, with_curve_of
from langchain_rlfocal.training.mappo import CURVE_WEIGHTS, Learner, draw_cost_weights
from langchain_rlfocal.training.metrics import FORMULAS
from langchain_rlfocal.training.supervised import data_hash

QUICK = TrainingConfig(num_iterations=30, batch_size=256, max_team=2, max_rounds=2, validate_every=5)
BRIEF = replace(QUICK, num_iterations=2, batch_size=64, validate_every=1, num_folds=2)


ASKS_B = PriorPolicy("abc", {"b": 0.9})


def make_grid(num, *, seed=0, accuracies=None, cost_usd=None):
    """Two kinds of question, three members: one knows sums, one knows capitals, one knows nothing."""
    rng = np.random.default_rng(seed)
    accuracies = accuracies or {"sums": (0.95, 0.2, 0.3), "capitals": (0.2, 0.95, 0.3)}
    rows = []
    for q in range(num):
        task = list(accuracies)[q % len(accuracies)]
        text = f"What is {q} + {q}?" if task == "sums" else f"Name the capital of country number {q} please."
        for m, name in enumerate("abc"):
            right = rng.random() < accuracies[task][m]
            rows.append(
                Outcome(
                    task=task,
                    query_id=str(q),
                    query=text,
                    model=name,
                    answer="right" if right else f"wrong {rng.integers(20)}",
                    reward=float(right),
                    cost_usd=None if cost_usd is None else cost_usd[m],
                )
            )
    return OutcomeTable.from_outcomes(rows).grid(["a", "b", "c"])


@pytest.fixture(scope="module")
def grids():
    return make_grid(240, seed=0), make_grid(80, seed=1), make_grid(200, seed=2)


@pytest.fixture(scope="module")
def few(grids):
    """Training and validation rows where what is learned from them is not under test."""
    return grids[0].take(np.arange(40)), grids[1].take(np.arange(40))


@pytest.fixture(scope="module")
def policy(grids):
    return train(grids[0], grids[1], QUICK)


def test_the_policy_learns_to_ask_the_member_that_knows(policy, grids):
    """Each specialist is right 95 times in 100 on its own kind and no member alone reaches 60: the learned team does."""
    played = replay(policy, grids[2], cost_weight=0.1, max_team=2, max_rounds=2)
    single_best = grids[2].scores.mean(axis=0).max()
    assert single_best < 0.65
    assert played.scores.mean() > 0.85
    is_sum = np.array([task == "sums" for task in grids[2].tasks])
    assert played.asked[is_sum, 0].mean() > 0.9
    assert played.asked[~is_sum, 1].mean() > 0.9


def test_a_higher_cost_weight_asks_fewer_members(policy, grids):
    calls = [replay(policy, grids[2], cost_weight=w, max_team=2, max_rounds=2).calls.mean() for w in (0.0, 0.1, 1.0)]
    assert calls[0] >= calls[1] >= calls[2]
    assert calls[2] < 1.1


@pytest.mark.parametrize("decider_hidden", [64, 16])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(few, tmp_path, decider_hidden):
    """From the networks that come with the package, and from random ones, where the widths are others."""
    one_step = replace(BRIEF, num_iterations=1, num_epochs=1, num_minibatches=1, decider_hidden=decider_hidden)
    policies = {run: train(*few, replace(one_step, seed=run == "other")) for run in ("one", "two", "other")}
    for run, policy in policies.items():
        policy.save(tmp_path / run)
    for name in ("checkpoint.json", "weights.safetensors"):
        one, two, other = ((tmp_path / run / name).read_bytes() for run in policies)
        assert one == two != other


@pytest.mark.parametrize(("most", "played"), [(1000, 80), (45, 45), (10, 40)])
def test_where_validation_rows_are_few_training_rows_help_to_choose_and_to_measure(few, monkeypatch, most, played):
    """40 of each: all validation rows, and as many training rows as there is room for."""
    monkeypatch.setattr(mappo, "TRIAL_ROWS", most)
    assert train(*few, replace(BRIEF, num_iterations=1)).card["validation"]["queries"] == played


def test_rows_on_trial_are_averaged_over_both_kinds(few):
    """Three training rows, one validation row and a policy that asks b, the most competent: the mean over the four."""
    envs = [
        environment_of(ASKS_B, grid.take(np.arange(num)), max_team=1, max_rounds=1)
        for grid, num in zip(few, (3, 1), strict=True)
    ]
    trials = mappo._Trials(envs[0], 3, envs[1], 1)
    played = trials.play(ASKS_B, (0.0, 0.5))
    expected = np.mean([*few[0].scores[:3, 1], *few[1].scores[:1, 1]])
    assert trials.num_rows == 4
    np.testing.assert_allclose(played["score"], [expected, expected])
    np.testing.assert_allclose(played["mean_calls"], [1, 1])
    np.testing.assert_allclose(trials.figure(ASKS_B, (0.0, 0.5)), expected - 0.25 / 3)


def test_training_tells_its_progress_stops_where_it_stops_improving_and_leaves_the_caller_s_state_alone(few):
    torch.manual_seed(7)
    before, threads, seen = torch.get_rng_state(), torch.get_num_threads(), []
    train(*few, replace(BRIEF, num_iterations=500, patience=3, validate_every=2), on_progress=seen.append)
    assert all(p.total_steps == 500 for p in seen)
    assert list(dict.fromkeys(p.stage for p in seen)) == [
        *("labels", "competence and evidence", "reinforcement", "curve", "last fit", "baselines")
    ]
    iterations = [p for p in seen if p.metrics]
    assert len(iterations) < 500
    assert [p.step for p in iterations] == [*range(1, len(iterations) + 1)]
    assert all(FORMULAS.keys() - {"validation"} <= p.metrics.keys() for p in iterations)
    validated = [p for p in iterations if "validation" in p.metrics]
    assert [p.step for p in validated] == [*range(2, len(iterations) + 1, 2)]
    assert max(p.metrics["validation"] for p in validated) <= iterations[-1].metrics["best_validation"]
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def interrupted_at(stage, step):
    """An `on_progress` that is interrupted once there."""

    def stop(progress):
        if (progress.stage, progress.step) == (stage, step):
            raise KeyboardInterrupt

    return stop


def test_an_interrupted_training_makes_a_whole_policy_of_the_best_so_far(few, monkeypatch):
    """The networks are those that a training of so many iterations keeps; curve and baselines are there, and the card says so."""
    figures = iter([0.1, 0.1, 0.5, 0.9])
    monkeypatch.setattr(mappo._Trials, "figure", lambda *args: next(figures))
    with pytest.raises(TrainingInterrupted) as stopped:
        train(*few, replace(BRIEF, num_iterations=5), on_progress=interrupted_at("reinforcement", 1))
    assert (stopped.value.step, stopped.value.best_step) == (1, 1)
    assert isinstance(stopped.value, KeyboardInterrupt)
    threads = torch.get_num_threads()
    policy = stopped.value.finish()
    assert torch.get_num_threads() == threads
    figures = iter([0.1, 0.1, 0.5])
    short = train(*few, replace(BRIEF, num_iterations=1, learning_rate=BRIEF.learning_rate))
    for name, array in networks_of(short).items():
        np.testing.assert_array_equal(networks_of(policy)[name], array)
    assert policy.card["training"]["interrupted_after"] == 1
    assert "interrupted_after" not in short.card["training"]
    assert policy.parts.baselines.keys() == short.parts.baselines.keys()
    assert len(policy.card["curve"]) == len(short.card["curve"])


def test_an_interruption_in_the_last_stages_keeps_what_was_learned_and_one_before_learning_keeps_nothing(few):
    with pytest.raises(TrainingInterrupted) as late:
        train(*few, BRIEF, on_progress=interrupted_at("baselines", 2))
    assert late.value.step == 2
    with pytest.raises(KeyboardInterrupt) as early:
        train(*few, BRIEF, on_progress=interrupted_at("competence and evidence", 0))
    assert not isinstance(early.value, TrainingInterrupted)


@pytest.mark.parametrize(
    ("cost_usd", "unit", "words"),
    [
        ((0.1, 0.2, None), "usd", r"'usd', but `cost_usd` is unknown of c \(none of 40 training rows\)"),
        ((None,) * 3, "usd", "no member has `cost_usd` on any of 40 training rows"),
        ((0.0,) * 3, "usd", "all that is on record of `cost_usd` is 0"),
        ((0.1,) * 3, "tokens", "no member has `prompt_tokens` and `completion_tokens`"),
    ],
)
def test_a_cost_unit_that_the_rows_do_not_hold_is_refused(cost_usd, unit, words):
    """And not calls instead, which `auto` takes and gives the reason for."""
    grids = (make_grid(40, cost_usd=cost_usd), make_grid(20, seed=1, cost_usd=cost_usd))
    with pytest.raises(InputError, match=words):
        train(*grids, replace(BRIEF, cost_unit=unit))
    taken = spending_in(grids[0], "auto")
    assert (taken.unit, taken.reason) == (
        ("usd", "a cost of every member is on record") if unit == "tokens" else ("calls", taken.reason)
    )
    assert spending_in(grids[0], "calls").unit == "calls"
    with pytest.raises(InputError, match=unit):
        fit_rivals(*grids, max_team=2, cost_unit=unit)


def test_the_card_tells_how_the_policy_was_made(policy, grids):
    card = policy.card
    assert card["config"]["seed"] == 0
    assert card["data_sha256"] == data_hash(*(grid.canonical() for grid in grids[:2]))
    assert card["training"]["queries"] == 240
    assert card["validation"]["single_best"] in policy.members
    assert set(card["versions"]) == {"langchain-rlfocal", "numpy", "python", "torch"}


def test_the_curve_in_the_card_shows_what_each_cost_weight_leads_to(policy):
    curve = policy.card["curve"]
    plain = [point for point in curve if not {"max_team", "member"} & set(point)]
    assert [point["cost_weight"] for point in plain] == list(CURVE_WEIGHTS)
    alone = {point["member"]: point for point in curve if "member" in point}
    assert set(alone) == set("abc")
    assert all(point["mean_calls"] == 1 for point in curve if point not in plain)
    for point in plain:
        assert 1 <= point["mean_calls"] <= QUICK.max_team
        assert 0 <= point["score"] <= 1
        assert 0 < point["mean_spent"] <= 1
    assert plain[0]["mean_calls"] >= plain[-1]["mean_calls"]
    # One of the three is asked for each query; costs and seconds are not on record.
    assert max(point["score"] for point in curve if "max_team" in point) > max(
        point["score"] for point in alone.values()
    )
    assert all(point["mean_usd"] is None for point in curve)


def test_targets_are_placed_on_answers_without_scores(policy):
    """Questions of a kind that none was trained on, on which the members never agree: another curve, and the target is kept."""
    new = make_grid(200, seed=3, accuracies={"law": (0.5, 0.5, 0.5)})
    unscored = replace(new, scores=np.full(new.scores.shape, np.nan), golds=[None] * len(new))
    placed = with_curve_of(policy, unscored)
    taken, _ = placed.curve.hull("calls")
    target = 0.5 * (taken[0] + taken[-1])
    mixture = placed.curve.mixture("calls", target)
    env = environment_of(placed, new, max_team=QUICK.max_team, max_rounds=QUICK.max_rounds)
    assert Replays(placed, env).mixed(mixture).calls.mean() == pytest.approx(target, rel=0.05)
    assert placed.policy_id == policy.policy_id
    assert placed.card["curve"] != policy.card["curve"]


def test_targets_need_a_query_that_every_member_was_asked(policy, grids):
    holes = replace(grids[2], recorded=np.arange(3) != 0 * np.ones((200, 1)))
    with pytest.raises(OutcomeError, match="every member was asked"):
        with_curve_of(policy, holes)


def networks_of(policy):
    return {n: a for n, a in policy.parts.weights.items() if n.startswith(("decider.", "fusion."))}


def test_the_best_weights_are_a_copy_of_what_was_then(few, monkeypatch):
    """From the second iteration on every weight is lost: what comes back was kept before."""

    def spoiling(actors, *args, **kwargs):
        kl = update(actors, *args, **kwargs)
        steps.append(kl)
        if len(steps) > 1:
            with torch.no_grad():
                for weight in actors.parameters():
                    weight.fill_(0.0)
        return kl

    steps, update = [], mappo.update
    monkeypatch.setattr(mappo, "update", spoiling)
    policy = train(*few, replace(BRIEF, num_iterations=3))
    assert len(steps) == 3
    assert policy.card["training"]["best_step"] <= 1
    assert np.abs(networks_of(policy)["decider.hidden1.weight"]).max() > 0


def test_the_last_fit_on_validation_rows_leaves_the_networks_as_they_were_chosen(few, monkeypatch):
    """Without the last fit the networks are the same, and what is fitted is not."""
    fits, refits, prepare = [], [], mappo.prepare

    def first(grid, *args, **kwargs):
        fits.append(prepare(grid, *args, **kwargs))
        return fits[0]

    def first_again(grid, *_, **__):
        refits.append(len(grid))
        return fits[0].weights, fits[0].labels

    refitted = train(*few, BRIEF)
    monkeypatch.setattr(mappo, "prepare", first)
    monkeypatch.setattr(mappo, "refit", first_again)
    kept = train(*few, BRIEF)
    assert ([len(fit.grid) for fit in fits], refits) == ([2 * 40], [80])
    for name, array in networks_of(refitted).items():
        np.testing.assert_array_equal(array, networks_of(kept)[name])
    for name in ("competence.bias", "evidence.shared"):
        assert (refitted.parts.weights[name] != kept.parts.weights[name]).any()
    assert refitted.card == kept.card


def test_corrupted_test_labels_change_nothing():
    """Rewards and right answers of the test rows are turned round, with options whose names all rows teach."""

    def table(turned):
        rng, rows = np.random.default_rng(0), []
        for q in range(90):
            text, gold = f"Which of A, B and C is number {q}?", "ABC"[q % 3]
            for member in "ab":
                probs = rng.dirichlet(np.ones(3))
                answer = "ABC"[int(probs.argmax())]
                is_turned = turned and split_of(text) == "test"
                rows.append(
                    Outcome(
                        task="t",
                        query_id=str(q),
                        query=text,
                        model=member,
                        answer=answer,
                        gold="B" if is_turned else gold,
                        reward=float((answer == gold) != is_turned),
                        option_probs=tuple(probs),
                    )
                )
        return OutcomeTable.from_outcomes(rows).grid(["a", "b"])

    policies = []
    for turned in (False, True):
        rows, validation, test = table(turned).split()
        assert len(test) > 5
        policies.append(train(rows, validation, BRIEF))
    assert policies[0].policy_id == policies[1].policy_id
    assert policies[0].card == policies[1].card


def test_what_only_an_embedding_tells_is_learned_with_it(tmp_path):
    """Which of two members knows an answer is told by nothing but the embedding, which reads a list."""
    rng = np.random.default_rng(0)
    kinds = {f"{rng.integers(10**9):x}": bool(rng.random() < 0.5) for _ in range(160)}
    rows = [
        Outcome(
            task="t",
            query_id=text,
            query=text,
            model=member,
            answer="right" if is_known else f"wrong {member}",
            reward=float(is_known),
        )
        for text, kind in kinds.items()
        for member, is_known in (("a", kind), ("b", not kind))
    ]
    grid = OutcomeTable.from_outcomes(rows).grid(["a", "b"])
    parts = grid.take(np.arange(100)), grid.take(np.arange(100, 130)), grid.take(np.arange(130, 160))

    class Listed:
        def embed_documents(self, texts):
            return [[1.0 if kinds[text] else -1.0] for text in texts]

    policy = train(parts[0], parts[1], replace(QUICK, max_team=1, max_rounds=1, num_iterations=10), embedder=Listed())
    policy.save(tmp_path / "policy")
    loaded = RLFocalPolicy.load(tmp_path / "policy", embedder=Listed())
    assert loaded.policy_id == policy.policy_id
    assert replay(loaded, parts[2], cost_weight=0.1, max_team=1, max_rounds=1).scores.mean() > 0.9


# ---- unusual pools and rows


def small(*, members="abc", num=30, seed=0, answer=None, reward=None, query="Question {}?", task=None, **fields):
    """Rows of a pool; `answer` and `reward` are functions of the query's and the member's number."""
    rng = np.random.default_rng(seed)
    rows = [
        Outcome(
            task=task(q) if task else "t",
            query_id=str(q),
            query=query.format(q),
            model=member,
            answer=answer(q, m) if answer else str(rng.choice(["yes", "no"])),
            reward=reward(q, m) if reward else float(rng.random() < 0.5),
            **fields,
        )
        for q in range(num)
        for m, member in enumerate(members)
    ]
    return OutcomeTable.from_outcomes(rows).grid(tuple(members))


UNUSUAL = {
    "always wrong": ({"reward": lambda q, m: 0.0}, {}),
    "always right": ({"reward": lambda q, m: 1.0}, {}),
    "all agree": ({"reward": lambda q, m: 1.0, "answer": lambda q, m: "yes"}, {}),
    "fractions": ({"reward": lambda q, m: 0.25 * (q % 5)}, {}),
    "all silent": ({"answer": lambda q, m: None, "reward": lambda q, m: 0.0}, {}),
    "one member, larger team": ({"members": "a"}, {"max_team": 3, "max_rounds": 3}),
    "one question": ({"query": "The same question?"}, {"num_folds": 5}),
    "free": ({"cost_usd": 0.0}, {}),
    "a fold for each": ({"num": 10}, {"num_folds": 10}),
    "fewer rows than folds": ({"num": 11}, {"num_folds": 50}),
    "every row a task of its own": ({"task": lambda q: f"tasks/{q}"}, {}),
    "nothing but scores": ({}, {"cost_weight": 0.0, "diversity_weight": 0.0, "entropy_coef": 0.0}),
    "one episode": ({}, {"batch_size": 1, "max_rounds": 1, "max_team": 1}),
    "options": ({"option_probs": (0.5, 0.25, 0.25)}, {}),
    "alike": ({"logprob": -1.0, "response": "yes"}, {}),
}


@pytest.mark.parametrize(("rows", "config"), UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_rows_give_a_policy_that_can_decide_and_no_nan(rows, config):
    grid = small(**rows)
    policy = train(grid, small(**{**rows, "seed": 1}), replace(BRIEF, **config))
    assert all(np.isfinite(array).all() for array in policy.parts.weights.values())
    played = replay(policy, grid, cost_weight=0.1, max_team=2, max_rounds=2)
    assert (played.calls >= 1).all()
    assert np.isfinite(played.scores).all()


@pytest.mark.parametrize("reward", [-0.5, 1.5, float("inf")])
def test_an_impossible_reward_is_refused_where_it_is_read(reward):
    with pytest.raises(OutcomeError, match="column `reward`"):
        small(reward=lambda q, m: reward if q == 3 else 1.0)


def test_a_member_without_rows_is_refused_where_the_pool_is_laid_out():
    rows = [Outcome(task="t", query_id="1", query="?", model="a", answer="yes", reward=1.0)]
    with pytest.raises(PoolError, match="'b'"):
        OutcomeTable.from_outcomes(rows).grid(["a", "b"])


@pytest.mark.parametrize("num", [1, 9])
def test_too_few_queries_are_refused_by_number(num):
    with pytest.raises(OutcomeError, match=f"at least 10 queries .* got {num} and 30"):
        train(small(num=num), small(seed=1), BRIEF)


def test_one_member_without_a_score_is_refused_since_it_can_agree_with_nobody():
    unscored = (
        Outcome(task="t", query_id=str(q), query=f"{q}?", model="a", answer="x", reward=None) for q in range(40)
    )
    grid = OutcomeTable.from_outcomes(unscored).grid(["a"])
    with pytest.raises(OutcomeError, match="at least one answer must be scored, got none"):
        train(grid.take(np.arange(30)), grid.take(np.arange(30, 40)), BRIEF)


def test_grids_of_different_pools_are_refused(grids):
    other = replace(grids[1], members=("a", "b", "x"))
    with pytest.raises(OutcomeError, match="same members"):
        train(grids[0], other, QUICK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_team": 0},
        {"cost_weight": -1.0},
        {"cost_weight": float("nan")},
        {"num_folds": 1},
        {"learning_rate": -1.0},
        {"clip_epsilon": float("nan")},
        {"target_kl": float("inf")},
        {"gamma": 1.5},
        {"batch_size": 2.5},
        {"num_epochs": True},
        {"max_rounds": "2"},
        {"gae_lambda": -0.5},
        {"cost_unit": "euro"},
    ],
)
def test_an_impossible_hyperparameter_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TrainingConfig(**wrong)


def test_cost_weights_span_the_knob_s_range_and_include_zero():
    weights = draw_cost_weights(10_000, np.random.default_rng(0))
    assert 0.18 < (weights == 0).mean() < 0.22  # one in five
    positive = weights[weights > 0]
    assert positive.min() >= 0.01
    assert positive.max() <= 1.0


@pytest.mark.parametrize("shipped_is_better", [True, False])
def test_training_starts_from_the_better_of_what_ships_and_the_rule(few, monkeypatch, shipped_is_better):
    """Steps too small to see: what comes out is what it began with. The worse start asks everybody but who gains most."""
    config = replace(BRIEF, learning_rate=1e-9, fusion_learning_rate=1e-9)
    sensible, first_logit = Learner(config).arrays(), mappo.FIRST_LOGIT
    monkeypatch.setattr(mappo, "FIRST_LOGIT", -first_logit)
    opposite = Learner(config).arrays()
    monkeypatch.setattr(mappo, "FIRST_LOGIT", -first_logit if shipped_is_better else first_logit)
    monkeypatch.setattr(mappo, "pretrained_networks", lambda: sensible if shipped_is_better else opposite)
    bias = train(*few, config).parts.weights["decider.out.bias"]
    np.testing.assert_allclose(bias, -first_logit, atol=1e-3)
