"""A sweep trains what is not there, chooses by validation alone, and loses nothing that is finished."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from langchain_rlfocal.engines import Done, LocalEngine
from langchain_rlfocal.errors import InputError, WorkerError
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training import sweep as module
from langchain_rlfocal.training.supervised import data_hash
from langchain_rlfocal.training.sweep import Run, Sweep, runs_of, sweep

SCORES = {(1, 0): 0.7, (1, 1): 0.5, (2, 0): 0.6, (2, 1): 0.66}
"""Validation score by max_team and seed: one member has the best seed, two the better mean, 0.63 of 0.6."""


@pytest.fixture
def trained(monkeypatch, quiz_policy):
    """In training's place, a policy whose validation score is in `SCORES`; lists what was trained."""
    configs = []

    def train(learned, chosen, config, *, embedder, on_progress):
        configs.append((config.max_team, config.seed))
        card = {
            **quiz_policy.card,
            "config": asdict(config),
            "data_sha256": data_hash(learned, chosen),
            "validation": {**quiz_policy.card["validation"], "score": SCORES[config.max_team, config.seed]},
        }
        return RLFocalPolicy(replace(quiz_policy.parts, card=card))

    monkeypatch.setattr(module, "train", train)
    return configs


ARGS = ("sweep", "outcomes.parquet", "--out", "made", "--seeds", "0,1", "--max-team", "1,2")


def test_the_setting_with_the_best_mean_is_chosen_and_its_best_seed_kept_as_best(cli, outcomes, trained):
    """0.7 is the highest score of all, but of a setting whose mean, 0.6, is below 0.63."""
    said = cli.said(*ARGS)
    assert trained == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert said["best"] == "team2-rounds2-cost0.1-diversity0.02-seed1"
    assert [(one["max_team"], one["score"], one["is_best"]) for one in said["settings"]] == [
        (1, pytest.approx(0.6), False),
        (2, pytest.approx(0.63), True),
    ]
    assert said["settings"][1]["spread"] == pytest.approx(0.06 / 2**0.5)
    for file in ("weights.safetensors", "checkpoint.json"):
        assert Path("made/best", file).read_bytes() == Path("made", said["best"], file).read_bytes()
    written = json.loads(Path("made/sweep.json").read_text(encoding="utf-8"))
    assert written.items() <= said.items()
    assert len(written["runs"]) == 4


def test_what_is_finished_is_not_trained_again_and_what_was_killed_is(cli, outcomes, trained):
    cli.said(*ARGS)
    for path in Path("made/team1-rounds2-cost0.1-diversity0.02-seed1").iterdir():
        path.unlink()
    path.parent.rmdir()
    trained.clear()
    result = cli.run(*ARGS)
    assert result.exit_code == 0, result.output
    assert trained == [(1, 1)]
    assert result.stderr.count("found finished") == 3


def test_people_read_one_line_a_run_and_a_table_within_80_columns(cli, outcomes, trained, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = cli.run(*ARGS)
    assert result.stderr.splitlines()[0] == (
        "1 of 4: team1-rounds2-cost0.1-diversity0.02-seed0, validation score 0.700, "
        f"{json.loads(Path('made/sweep.json').read_text())['runs'][0]['calls']:.2f} calls"
    )
    assert max(map(len, result.stdout.splitlines())) <= 80
    text = " ".join(result.stdout.split())
    assert "best 2 2 0.630 0.042" in text
    assert "test queries were not read" in text


def test_an_interruption_keeps_what_is_finished(cli, outcomes, trained, monkeypatch):
    inner = module.train

    def train(*args, **kwargs):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return inner(*args, **kwargs)

    monkeypatch.setattr(module, "train", train)
    result = cli.run(*ARGS)
    assert result.exit_code == 130
    assert "Interrupted: 2 of 4 runs are in made. The same command goes on" in result.stderr
    monkeypatch.setattr(module, "train", inner)
    trained.clear()
    assert cli.said(*ARGS)["best"].startswith("team2")
    assert trained == [(2, 0), (2, 1)]


def test_a_folder_of_another_sweep_is_refused(cli, folder, quiz, outcomes, trained):
    cli.said(*ARGS)
    cli.assert_refused(cli.run(*ARGS, "--task", "quiz/a"), "team1", "other outcomes")
    cli.assert_refused(cli.run(*ARGS, "--cost-unit", "calls"), "another configuration")
    Path("made/team1-rounds2-cost0.1-diversity0.02-seed0/checkpoint.json").write_text("{", encoding="utf-8")
    cli.assert_refused(cli.run(*ARGS), "team1-rounds2-cost0.1-diversity0.02-seed0", "Choose another folder")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--seeds", "a"), ("`--seeds`", "whole numbers")),
        (("--seeds", ""), ("`--seeds`",)),
        (("--max-team", "1,1"), ("`max_team`", "none twice", "1,1")),
        (("--max-team", "0"), ("`max_team`", "at least 1")),
        (("--cost-weight", "0.1;0.2"), ("`--cost-weight`",)),
        (("--cost-unit", "usd"), ("'usd'", "`cost_usd`", "no member")),
    ],
)
def test_what_cannot_be_swept_is_refused(cli, outcomes, option, words):
    cli.assert_refused(cli.run("sweep", outcomes, "--out", "made", *option), *words)


def test_of_equal_settings_the_one_of_fewer_calls_is_best():
    """And of unfinished runs nothing is said."""
    config = TrainingConfig()
    dear = Run("dear", replace(config, max_team=3), policy_id="x", score=0.5, calls=2.0)
    cheap = Run("cheap", replace(config, max_team=2), policy_id="y", score=0.5, calls=1.0)
    assert Sweep((dear, cheap)).best == cheap
    assert Sweep((dear, replace(cheap, calls=2.0))).best == dear
    assert Sweep((Run("new", config),)).best is None


def test_names_are_distinct_and_of_all_that_varies():
    runs = runs_of(TrainingConfig(), {"max_rounds": [1, 2], "cost_weight": [0.05, 0.1]}, [0, 7])
    assert len({run.name for run in runs}) == 8
    assert runs[1].name == "team3-rounds1-cost0.05-diversity0.02-seed7"
    assert (runs[1].config.max_rounds, runs[1].config.cost_weight, runs[1].config.seed) == (1, 0.05, 7)


def test_an_engine_does_the_same(tmp_path, quiz, trained, monkeypatch):
    """Without any process: an engine that works in this one, and says for how many workers it was made."""
    made = []

    class Here(LocalEngine):
        def __init__(self, workers):
            made.append(workers)
            super().__init__(1)

    monkeypatch.setattr(module, "LocalEngine", Here)
    learned, chosen, _ = quiz.grid(quiz.members).split()
    runs = runs_of(TrainingConfig(), {"max_team": [1]}, [0, 1])
    alone = sweep(learned, chosen, runs, tmp_path / "one")
    others = [sweep(learned, chosen, runs, tmp_path / "two", jobs=3)]
    others.append(sweep(learned, chosen, runs, tmp_path / "three", engine=LocalEngine()))
    assert made == [2]
    for done in others:
        assert [run.policy_id for run in done.runs] == [run.policy_id for run in alone.runs]
        assert all(run.is_done for run in done.runs)
    assert trained == [(1, 0), (1, 1)] * 3
    with pytest.raises(InputError, match="`jobs`"):
        sweep(learned, chosen, (), tmp_path, jobs=0)


def test_a_run_whose_worker_is_killed_again_and_again_ends_the_sweep_with_a_way_out(tmp_path, quiz):
    class Deadly(LocalEngine):
        workers = 2

        def map(self, begin, items):
            yield Done(items[0], error=WorkerError("signal 9 killed it"), deaths=4)

    learned, chosen, _ = quiz.grid(quiz.members).split()
    runs = runs_of(TrainingConfig(), {"max_team": [1]}, [0, 1])
    with pytest.raises(WorkerError, match=r"seed0 was killed 4 times.*same command goes on.*fewer workers than 2"):
        sweep(learned, chosen, runs, tmp_path, engine=Deadly(2))
