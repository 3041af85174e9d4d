"""What the unit tests share: helpers, each named by what it gives, and a policy that is trained once.

Those without a state of their own are made once a session, so that a Hypothesis test may use them too.
"""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from langchain_rlfocal.cli import app
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.policies import RLFocalPolicy
from langchain_rlfocal.policies.checkpoint import Parts, _shapes
from langchain_rlfocal.states import Answers, MemberFeatures, State
from langchain_rlfocal.testing import make_outcomes
from support_time import WAYS, no_jitter

# No deadline, since the first use of a library can take seconds, and no chance in CI.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


# ---- ensembles in virtual time


@pytest.fixture(params=WAYS)
def way(request):
    """Each way to ask that `support_time.play` knows."""
    return request.param


@pytest.fixture
def steady_retries():
    """Retries after exactly 0.5 s, 1 s and so on."""
    with no_jitter():
        yield


# ---- the command line


class CommandLine:
    """`rlfocal`, run in this process."""

    def run(self, *args, env=None):
        return CliRunner().invoke(app, [str(arg) for arg in args], env=env)

    def said(self, *args, code=0):
        """What a command that ends well, or with another code than 0, prints as JSON."""
        result = self.run(*args, "--json")
        assert result.exit_code == code, result.output
        return json.loads(result.stdout, parse_constant=pytest.fail)

    def shown(self, *args):
        """What a command that ends well prints for people, its lines joined."""
        result = self.run(*args)
        assert result.exit_code == 0, result.output
        return " ".join(result.stdout.split())

    def assert_refused(self, result, *words):
        """Exit code 2, one line on stderr that says why, nothing on stdout, no traceback."""
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        assert len(result.stderr.splitlines()) == 1
        assert "Traceback" not in result.stderr
        assert all(word in result.stderr for word in words), result.stderr


@pytest.fixture(scope="session")
def cli():
    return CommandLine()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder of its own, and modules `my_…` that are found in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("my_")]:
        del sys.modules[name]


@pytest.fixture
def my_embedder(folder):
    """An embedder in a module of the user's."""
    Path("my_embedders.py").write_text(
        """
class Lengths:
    def embed_documents(self, texts):
        return [[float(len(text)), 1.0] for text in texts]

def lengths():
    return Lengths()
""",
        encoding="utf-8",
    )
    return "my_embedders:lengths"


@pytest.fixture
def quick_training(monkeypatch):
    """The command's own path with two small iterations and two folds: what training learns is not under test here."""
    from langchain_rlfocal import training  # noqa: PLC0415  # torch takes seconds, and most tests need none

    true_config = training.TrainingConfig

    def config(**given):
        return replace(true_config(**given), num_iterations=2, batch_size=32, num_folds=2)

    monkeypatch.setattr(training, "TrainingConfig", config)


@pytest.fixture(scope="session")
def quiz():
    """300 queries of two tasks: Ann knows one, Bob the other."""
    return make_outcomes({"quiz/a": {"ann": 0.9, "bob": 0.3}, "quiz/b": {"ann": 0.3, "bob": 0.9}}, num_queries=150)


@pytest.fixture(scope="session")
def quiz_policy(quiz):
    """A policy that asks at most two of them, with its baselines."""
    from langchain_rlfocal.training import TrainingConfig, train  # noqa: PLC0415  # as above

    learned, chosen, _ = quiz.grid(quiz.members).split()
    return train(learned, chosen, TrainingConfig(num_iterations=2, batch_size=32, num_folds=2, max_team=2))


@pytest.fixture(scope="session")
def mlflow_store(tmp_path_factory):
    """MLflow's local store: making one takes seconds, so that tests share it, each with a run of another name."""
    pytest.importorskip("mlflow", reason="pip install 'langchain-rlfocal[mlflow]'")
    from langchain_rlfocal.training import TrainingConfig  # noqa: PLC0415  # as above
    from langchain_rlfocal.training.metrics import MLflow  # noqa: PLC0415

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with MLflow(str(path), TrainingConfig(), name="first"):
        return path


@pytest.fixture(scope="session")
def bare_policy(quiz_policy):
    """The same without baselines, as an old checkpoint may be."""
    return RLFocalPolicy(replace(quiz_policy.parts, baselines={}, baseline_facts={}))


@pytest.fixture
def outcomes(folder, quiz):
    quiz.write("outcomes.parquet")
    return "outcomes.parquet"


@pytest.fixture
def gaps(folder, quiz):
    """The same outcomes, but Bob did not answer queries 0 to 9 of the first task."""
    rows = [o for o in quiz if (o.model, o.task) != ("bob", "quiz/a") or int(o.query_id) >= 10]
    OutcomeTable.from_outcomes(rows).write("gaps.parquet")
    return "gaps.parquet"


@pytest.fixture
def half(folder, quiz):
    """The same outcomes, but Bob has no row on the first task."""
    rows = [o for o in quiz if (o.model, o.task) != ("bob", "quiz/a")]
    OutcomeTable.from_outcomes(rows).write("half.parquet")
    return "half.parquet"


@pytest.fixture
def unseen(folder):
    """Other queries, on which Ann is always right and Bob never."""
    make_outcomes({"fresh": {"ann": 1.0, "bob": 0.0}}, num_queries=40, seed=9).write("unseen.parquet")
    return "unseen.parquet"


@pytest.fixture
def checkpoint(folder, quiz_policy):
    quiz_policy.save("policy")
    return "policy"


# ---- grids


@pytest.fixture(scope="session")
def make_grid():
    def make(answers, golds=None, **columns):
        """One row of `answers` per query, one letter per member; None is silence; "yes" is right unless told otherwise.

        Other columns likewise, row by row.
        """
        members = tuple("abcd"[: len(answers[0])])
        return OutcomeTable.from_outcomes(
            Outcome(
                task="facts",
                query_id=str(q),
                query=f"Question {q}?",
                model=member,
                answer=answer,
                gold=gold,
                reward=float(answer == gold),
                **{
                    "response": "" if answer is None else None,
                    **{name: values[q][m] for name, values in columns.items()},
                },
            )
            for q, (row, gold) in enumerate(zip(answers, golds or ["yes"] * len(answers), strict=True))
            for m, (member, answer) in enumerate(zip(members, row, strict=True))
        ).grid(members)

    return make


@pytest.fixture(scope="session")
def option_grid(make_grid):
    """Two members score A, B and C. In the first query the right C is nobody's answer, in the second B is b's."""
    probs = [[(0.5, 0.3, 0.2), (0.1, 0.8, 0.1)], [(0.6, 0.2, 0.2), (0.2, 0.3, 0.5)], [(0.6, 0.2, 0.2), (0.1, 0.8, 0.1)]]
    return make_grid(["AB", "AC", "AB"], golds=["C", "A", "B"], response=[["x", "x"]] * 3, option_probs=probs)


# ---- what is known of queries and answers


@pytest.fixture(scope="session")
def make_state():
    def make(competence, places, **changes):
        """One query: the candidate of each member; None where a member was not asked, -1 where it was silent."""
        m = len(competence)
        members = {
            "competence": np.array([competence], dtype=float),
            "trust": np.ones((1, m)),
            "option_weights": np.zeros((1, m)),
            "price": np.full(m, 1 / m),
            "diversity": 0.5 * (1 - np.eye(m)),
            "novelty": np.zeros(1),
            "coincidence": np.ones(1),
        }
        given = ("price", "diversity", "novelty", "coincidence")
        members |= {name: changes.pop(name) for name in given if name in changes}
        values = {
            "members": MemberFeatures(**members),
            "asked": np.array([[p is not None for p in places]]),
            "candidate_index": np.array([[-1 if p is None else p for p in places]]),
            "trust": np.ones((1, m)),
            "other_evidence": np.zeros((1, m)),
            "options": np.zeros((1, m), dtype=bool),
            "similarity": np.zeros((1, m)),
            "cost_weight": np.array([0.1]),
            "round_number": 2,
            "max_rounds": 2,
            "max_team": 4,
        }
        return State(**(values | changes))

    return make


@pytest.fixture(scope="session")
def make_answers():
    def make(labels, **known):
        """One text per member and query; equal ones share the first one's place."""
        labels = np.array(labels, dtype=object)
        same = labels[:, :, None] == labels[:, None, :]
        places = np.where(labels == None, -1, same.argmax(axis=1))  # noqa: E711  # element by element
        unknown = np.full(labels.shape, np.nan)
        return Answers(places, labels, **({"chars": unknown, "logprobs": unknown, "option_scores": None} | known))

    return make


# ---- policies


@pytest.fixture(scope="module")
def one_thread():
    """As training does: small matrices are faster on one."""
    import torch  # noqa: PLC0415  # as above

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(limits=1, user_api="blas"):
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def random_policy():
    def make(members, seed=0, *, labels=(), card=None):
        """A policy with random weights: whatever it has learned, the laws must hold."""
        rng = np.random.default_rng(seed)
        shapes = _shapes(len(members), len(labels), {"features": FEATURES_DIM, "decider": 6, "fusion": 5})
        weights = {name: rng.normal(scale=0.5, size=shape) for name, shape in shapes.items()}
        weights["competence.bias"] = rng.uniform(0.2, 0.8, len(members))
        weights["competence.weights"] *= 0.1
        weights["competence.mean"][:] = 0.0  # estimates at their bounds would be equal
        for layer in ("decider.hidden1", "decider.hidden2", "fusion.hidden"):
            weights[f"{layer}.bias"] += 1.0  # a layer that is silent throughout would leave rounding to decide
        weights["evidence.moments"] = rng.uniform(0.5, 2, (5, len(members)))
        weights["pool.price"] = rng.dirichlet(np.ones(len(members)))
        weights["pool.diversity"] = rng.uniform(0, 1, (len(members), len(members))) * (1 - np.eye(len(members)))
        return RLFocalPolicy(Parts(members=tuple(members), weights=weights, labels=labels, card=card or {"seed": seed}))

    return make
