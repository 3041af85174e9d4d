"""What an iteration's metrics are, and that each logger writes down what it is told: read back from where it wrote."""

import json
import logging
import os
import sqlite3
import sys
from contextlib import closing

import numpy as np
import pytest

from langchain_rlfocal.cli.training_view import TrainingView, trend_of
from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.training import Progress, TrainingConfig
from langchain_rlfocal.training.metrics import JsonLines, Loggers, MLflow, TensorBoard, explained_variance

TOLD = [
    Progress("labels", 0, 3, {}),
    Progress("reinforcement", 1, 3, {"reward": 0.25, "calls": 1.5}),
    Progress("reinforcement", 2, 3, {"reward": 0.5, "calls": 2.0, "validation": 0.75, "best_validation": 0.75}),
    Progress("curve", 2, 3, {}),
]


def test_explained_variance_is_one_of_the_returns_and_zero_of_their_mean():
    """Returns 0 and 2 vary by 1; values 0 and 1 leave 0 and 1, which vary by ¼: ¾ is explained."""
    returns = np.array([0.0, 2.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(np.ones(2), returns) == 0
    assert explained_variance(np.array([0.0, 1.0]), returns) == 0.75
    assert explained_variance(np.array([0.0, 1.0]), np.ones(2)) is None


def test_lines_are_one_an_iteration_and_begin_anew_with_the_first(tmp_path):
    path = tmp_path / "new" / "metrics.jsonl"
    for _ in range(2):
        log = JsonLines(path)
        log(TOLD[0])
        for progress in TOLD[1:]:
            log(progress)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert lines == [{"step": 1, **TOLD[1].metrics}, {"step": 2, **TOLD[2].metrics}]


def test_what_is_refused_before_the_first_iteration_leaves_an_old_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("old\n", encoding="utf-8")
    JsonLines(path)(TOLD[0])
    assert path.read_text(encoding="utf-8") == "old\n"


@pytest.mark.parametrize(("error", "status"), [(None, "FINISHED"), (KeyboardInterrupt, "KILLED"), (OSError, "FAILED")])
def test_an_mlflow_store_holds_parameters_metrics_and_how_it_ended(mlflow_store, error, status):
    """Read with SQLite itself, by the documented tables."""
    try:
        with Loggers(MLflow(str(mlflow_store), TrainingConfig(seed=7), name=status)) as log:
            for progress in TOLD:
                log(progress)
            if error is not None:
                raise error
    except (KeyboardInterrupt, OSError):
        pass
    with closing(sqlite3.connect(mlflow_store)) as opened:
        ((run, ended),) = opened.execute("select run_uuid, status from runs where name = ?", [status]).fetchall()
        metrics = set(opened.execute("select key, value, step from metrics where run_uuid = ?", [run]))
        parameters = dict(opened.execute("select key, value from params where run_uuid = ?", [run]))
    assert metrics == {(name, value, p.step) for p in TOLD for name, value in p.metrics.items()}
    assert (parameters["seed"], parameters["cost_unit"]) == ("7", "auto")
    assert ended == status


def test_a_store_that_cannot_be_opened_is_refused_with_the_reason(tmp_path):
    pytest.importorskip("mlflow", reason="pip install 'langchain-rlfocal[mlflow]'")
    (tmp_path / "file").write_text("no database", encoding="utf-8")
    with pytest.raises(InputError, match="must be one that can be written") as refused:
        Loggers(MLflow(str(tmp_path / "file"), TrainingConfig(), name="policy"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("password", ["hunter2secret", "pw%21"])
def test_a_refused_store_tells_no_password(password):
    """No database of the name is known, and SQLAlchemy's own words hold the whole URI; its error is not raised from."""
    pytest.importorskip("mlflow", reason="pip install 'langchain-rlfocal[mlflow]'")
    uri = f"mysql+foo://bob:{password}@127.0.0.1:1/x"
    with pytest.raises(InputError, match=r"127\.0\.0\.1:1/x") as refused:
        Loggers(MLflow(uri, TrainingConfig(), name="policy"))
    assert password not in str(refused.value)
    assert (refused.value.__cause__, refused.value.__suppress_context__) == (None, True)


def test_a_server_that_is_not_there_is_told_after_one_retry_and_without_a_log(monkeypatch, caplog):
    """What MLflow reads of its environment while it opens; the user's own word stays, and nothing of ours stays behind."""
    tracking = pytest.importorskip("mlflow.tracking", reason="pip install 'langchain-rlfocal[mlflow]'")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    seen = []

    class Client:
        def __init__(self, **given):
            logging.getLogger("urllib3.connectionpool").warning("Retrying")
            seen.append([os.environ[f"MLFLOW_HTTP_REQUEST_{name}"] for name in ("MAX_RETRIES", "TIMEOUT")])
            raise OSError("Connection refused")

    monkeypatch.setattr(tracking, "MlflowClient", Client)
    with pytest.raises(InputError, match=r"http://localhost:9.*Connection refused"):
        Loggers(MLflow("http://localhost:9", TrainingConfig(), name="policy"))
    assert seen == [["1", "3"]]
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ
    assert caplog.records == []


def test_a_tensorboard_event_file_holds_the_scalars(tmp_path):
    """Read record by record: TFRecord is length (8 bytes), its checksum (4), an event, and its checksum (4)."""
    pytest.importorskip("tensorboardX", reason="pip install 'langchain-rlfocal[tensorboard]'")
    from tensorboardX.proto.event_pb2 import Event  # noqa: PLC0415  # an extra

    with Loggers(TensorBoard(tmp_path)) as log:
        for progress in TOLD:
            log(progress)
    (path,) = tmp_path.iterdir()
    data, found = path.read_bytes(), set()
    while data:
        length = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
        found |= {(value.tag, value.simple_value, event.step) for value in event.summary.value}
    assert found == {(name, value, p.step) for p in TOLD for name, value in p.metrics.items()}


@pytest.mark.parametrize(
    ("module", "make", "words"),
    [
        ("mlflow.tracking", lambda: MLflow("m.db", TrainingConfig(), name="x"), r"langchain-rlfocal\[mlflow\]"),
        ("tensorboardX", lambda: TensorBoard("x"), r"langchain-rlfocal\[tensorboard\]"),
    ],
)
def test_without_its_extra_a_logger_names_the_command_that_installs_it(monkeypatch, module, make, words):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=words):
        make()


# ---- what people see


def test_a_trend_goes_from_the_least_to_the_largest_in_as_many_blocks_as_fit():
    assert trend_of([0.0, 7.0]) == "▁█"
    assert trend_of([float(n) for n in range(8)]) == "▁▂▃▄▅▆▇█"
    assert trend_of([1.0, 1.0]) == "▁▁"
    assert trend_of([float(n) for n in range(16)], width=8) == "▁▂▃▄▅▆▇█"


def test_piped_a_line_tells_of_each_stage_and_of_each_validation(capsys):
    with TrainingView() as view:
        for progress in TOLD:
            view(progress)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        *("labels", "reinforcement"),
        "iteration 2 of 3: reward 0.500, validation 0.750 (best 0.750), calls 2.00",
        "curve",
    ]


def test_on_a_terminal_a_table_of_metrics_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    many = {"approx_kl": 0.01, "clip_fraction": 0.1, "entropy": 1.2, "explained_variance": 0.5}
    with TrainingView("a-run") as view:
        for progress in TOLD:
            view(Progress(progress.stage, progress.step, 3, {**progress.metrics, **(many if progress.metrics else {})}))
        text = "\n".join(str(line) for line in view._console.render_lines(view._render(), pad=False))
        assert "reinforcement" not in text, "the stage is the curve now"
    shown = capsys.readouterr().err
    for words in ("validation", "0.750", "best 0.750", "explained variance", "▁█"):
        assert words in shown
