"""On a Ray cluster of two CPUs on this machine: workers that are killed are replaced, and nothing is lost or asked twice."""

import os
import runpy
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

import support_engines as work
from langchain_rlfocal.bulk import answer_dataset
from langchain_rlfocal.collection.runs import is_dead
from langchain_rlfocal.engines import LocalEngine, RayEngine
from langchain_rlfocal.errors import WorkerError
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.testing import make_outcomes
from langchain_rlfocal.training import TrainingConfig
from langchain_rlfocal.training.sweep import runs_of, sweep
from support_fault_server import Fault, FaultServer
from support_store import Server

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]
SUPPORT = str(Path(__file__).parents[1] / "unit_tests" / "support")


@pytest.fixture(scope="module")
def engine():
    """One cluster for all tests; its workers find what tests share."""
    sys.path.insert(0, SUPPORT)
    with RayEngine(workers=2) as made:
        yield made
    sys.path.remove(SUPPORT)


def test_an_engine_on_ray_does_each_piece_once_elsewhere_and_errors_are_values(engine):
    done = list(engine.map(work.squares, [1, 2, -3, 4, 5]))
    assert (engine.workers, engine.machines) == (2, 1)
    assert sorted(one.value[0] for one in done if one.error is None) == [1, 4, 16, 25]
    assert os.getpid() not in {one.value[1] for one in done if one.error is None}
    assert [str(one.error) for one in done if one.error] == ["-3 is negative"]


def test_actors_and_the_caller_call_one_object(engine):
    handle = engine.share(work.Count())
    assert handle.call("add", "caller") == 1
    assert sorted(one.result() for one in engine.map(partial(work.counts, handle), "abc")) == [2, 3, 4]
    with pytest.raises(ValueError, match="no"):
        handle.call("refuse")


def test_an_actor_that_is_killed_is_replaced(engine, tmp_path):
    deaths = []
    done = list(engine.map(partial(work.dies_once, str(tmp_path)), "abc", on_death=lambda *it: deaths.append(it)))
    assert sorted((one.value, one.deaths) for one in done) == [("a", 1), ("b", 1), ("c", 1)]
    assert sorted(name for name, _ in deaths) == ["a", "b", "c"]


def test_what_workers_cannot_begin_is_raised(engine):
    with pytest.raises(ValueError, match="nothing to begin with"):
        list(engine.map(work.cannot_begin, "a"))


def test_a_cluster_that_is_not_there_is_refused_with_a_way_out(engine):
    with pytest.raises(WorkerError, match="before they could begin"):
        list(engine.map(work.dies_at_birth, "a"))


def test_what_cannot_travel_is_an_error_with_a_way_out(engine):
    [done] = engine.map(work.returns_locks, "x")
    assert (type(done.error), done.deaths) == (WorkerError, 0)
    assert "must be picklable" in str(done.error)


def test_a_sweep_on_ray_makes_the_same_checkpoints_byte_for_byte_though_a_trial_is_killed(engine, tmp_path):
    """Two runs of two iterations each; the first that begins is killed, and begun again."""
    table = make_outcomes({"quiz": {"ann": 0.8, "bob": 0.6}}, num_queries=60)
    learned, chosen, _ = table.grid(table.members).split()
    runs = runs_of(TrainingConfig(num_iterations=2, batch_size=64), {"max_team": [1, 2]}, [0])
    killing = work.Killing(engine, tmp_path)
    done = sweep(learned, chosen, runs, tmp_path / "ray", engine=killing)
    sweep(learned, chosen, runs, tmp_path / "plain")
    assert killing.deaths == 1
    assert all(run.is_done for run in done.runs)
    files = sorted(path.relative_to(tmp_path / "plain") for path in (tmp_path / "plain").rglob("*.*") if path.is_file())
    assert len(files) == 7
    for file in files:
        assert (tmp_path / "plain" / file).read_bytes() == (tmp_path / "ray" / file).read_bytes(), file


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Ray Data warns of settings of its own
def test_ray_data_answers_batches_by_a_pool_of_actors(engine):
    """Two actors, each with a model of its own; the rows come back with answers, costs and errors."""
    import ray.data  # noqa: PLC0415

    ray.data.DataContext.get_current().enable_progress_bars = False
    rows = [{"query": f"say {number}" if number % 5 else "fail"} for number in range(20)]
    answers = ray.data.from_items(rows).map_batches(
        work.answering(), batch_size=4, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.5
    )
    done = answers.take_all()
    assert sorted(row["answer"] for row in done if row["error"] is None) == sorted(
        row["query"] for row in rows if row["query"] != "fail"
    )
    assert sum(row["error"] is not None for row in done) == 4
    assert {row["usd"] for row in done if row["error"] is None} == {4.0}


# ---- commands, each with a cluster of its own


@pytest.fixture(scope="module")
def killed():
    """What kills a collection in the benchmark: the members, their questions, and the command."""
    name = "killed"
    sys.modules[name] = module = type(sys)(name)
    path = Path(__file__).parents[1] / "docs" / "benchmarks" / "killed.py"
    vars(module).update(runpy.run_path(str(path), run_name=name))
    yield module
    del sys.modules[name]


@pytest.mark.parametrize("engine", ["local", "ray"])
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_asked_twice(killed, tmp_path, engine):
    """One of two workers, each with eight calls out at most, four of each member."""
    facts, said, asked = work.collect_and_kill(killed, tmp_path, 80, "--engine", engine, "--workers", "2")
    assert "A worker died, and another takes its place" in said
    work.assert_whole(tmp_path, 80, facts, asked, out=8)


# ---- a budget of all workers


@pytest.fixture
def store(tmp_path):
    server = Server(tmp_path)
    yield server
    server.kill()


@pytest.mark.parametrize("where", ["local", "ray"])
def test_a_budget_by_the_url_of_a_shared_state_is_of_all_workers_together(engine, store, where):
    """Two workers, forty questions, a call each, eleven calls: eleven answers, whoever gave them."""
    questions = [Question(task="t", query_id=str(n), query=f"c{n}") for n in range(40)]
    begin = partial(work.make_budgeted_model, store.url(), 11)
    workers = engine if where == "ray" else LocalEngine(2)
    rows = [row for _, row in answer_dataset(begin, questions, engine=workers, batch_size=5)]
    assert sum(row["error"] is None for row in rows) == 11
    assert all(row["error"].startswith("EnsembleBudgetError") for row in rows if row["error"] is not None)
    assert sum(row["calls"] for row in rows if row["calls"]) == 11


# ---- a command that is killed


def test_workers_of_a_command_that_is_killed_ask_nothing_more_and_end(killed, tmp_path):
    """Two of them, eight calls of each member out; 400 answers are left when nobody waits for them any more."""
    killed.write_questions(tmp_path, 200)
    with FaultServer(killed.answer, script=lambda *_: Fault(delay_s=0.2)) as server:
        process = killed.start(tmp_path, server.base_url, "--workers", "2")
        while len(server.received) < 30:
            assert process.poll() is None
            time.sleep(0.05)
        log = OutcomeLog(tmp_path / "o.db")
        runs = log.runs()
        log.close()
        process.kill()
        process.communicate()
        asked, until_s = len(server.received), time.monotonic() + 60
        while not all(map(is_dead, runs)) and time.monotonic() < until_s:
            time.sleep(0.1)
        assert runs
        assert all(map(is_dead, runs))
        assert len(server.received) - asked < 100
