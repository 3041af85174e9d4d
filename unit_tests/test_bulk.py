"""Bulk answering: rows in, answers and their costs out, errors as values; `rlfocal answer` goes on where it was stopped."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.bulk import ANSWER_COLUMNS, RLFocalBatch, answer_dataset
from langchain_rlfocal.engines import Done, LocalEngine
from langchain_rlfocal.errors import InputError, WorkerError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.testing import ScriptedChatModel

MODELS = """
import os
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel

def say(messages):
    with open("asked.txt", "a") as file:
        file.write(messages[-1].text + "\\n")
    if "odd" in messages[-1].text and os.path.exists("down"):
        raise ValueError("down")
    return "Yes.\\u2028It is."

class Ann(ScriptedChatModel):
    script: object = say
"""
POOL = 'members:\n  ann: {class: "my_models:Ann", usd_per_million: {input: 1000000, output: 2000000}}\n'


def make_model():
    return RLFocalChatModel(
        members=[
            PoolMember(
                "ann",
                ScriptedChatModel(script={"a b": "yes", "c": "no"}),
                input_usd_per_mtok=1e6,
                output_usd_per_mtok=2e6,
            )
        ]
    )


def test_a_batch_gets_answers_costs_and_errors_in_columns_and_keeps_its_own():
    """A dollar a word of the question and two a word of the answer; what ann has no answer to is an error of its row."""
    batch = RLFocalBatch(make_model)({"query": np.array(["a b", "what", "c"]), "id": np.array([7, 8, 9])})
    assert list(batch) == ["query", "id", *ANSWER_COLUMNS]
    assert batch["id"] == [7, 8, 9]
    assert batch["answer"] == ["yes", None, "no"]
    assert [error is None for error in batch["error"]] == [True, False, True]
    assert batch["error"][1].startswith("Ensemble")
    assert batch["usd"] == [4.0, None, 3.0]
    assert (batch["members"], batch["calls"]) == (["ann", None, "ann"], [1, None, 1])
    assert (batch["prompt_tokens"], batch["completion_tokens"]) == ([2, None, 1], [1, None, 1])
    assert json.loads(batch["decision"][0])["candidates"][0]["member"] == "ann"
    with pytest.raises(InputError, match=r"`query`, got id\."):
        RLFocalBatch(make_model)({"id": [1]})


def test_questions_come_back_with_their_answers_and_those_of_dead_workers_with_an_error():
    questions = [Question(task="t", query_id=str(n), query="c") for n in range(5)]
    done = list(answer_dataset(make_model, questions, batch_size=2))
    assert [(question.query_id, row["answer"]) for question, row in done] == [(str(n), "no") for n in range(5)]

    class Deadly(LocalEngine):
        def map(self, begin, items):
            for item in items:
                yield Done(item, error=WorkerError("signal 9 killed it"), deaths=4)

    done = list(answer_dataset(make_model, questions, engine=Deadly(), batch_size=3))
    assert [row["error"] for _, row in done] == ["WorkerError: signal 9 killed it"] * 5


@pytest.fixture
def files(folder):
    Path("my_models.py").write_text(MODELS)
    Path("pool.yaml").write_text(POOL)
    rows = [{"query_id": str(n), "query": f"Is {n} {'even' if n % 2 == 0 else 'odd'}?"} for n in range(6)]
    Path("q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_what_failed_is_asked_again_and_what_was_answered_is_not(cli, files, suffix):
    Path("down").touch()
    facts = cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", f"a.{suffix}")
    assert (facts["answered"], facts["failed"]) == (3, 3)
    Path("down").unlink()
    Path("asked.txt").unlink()
    facts = cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", f"a.{suffix}")
    assert (facts["answered"], facts["failed"], facts["answers_without_price"]) == (6, 0, 0)
    assert sorted(set(Path("asked.txt").read_text().splitlines())) == ["Is 1 odd?", "Is 3 odd?", "Is 5 odd?"]
    Path("asked.txt").unlink()
    assert cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", f"a.{suffix}") == facts
    assert not Path("asked.txt").exists()
    assert sorted(path.name for path in Path().glob("a.*")) == [f"a.{suffix}"]


def test_killed_it_goes_on_from_the_lines_beside_the_table(cli, files):
    """The last line broke off; the table is in the order of the questions."""
    cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "a.parquet")
    rows = pyarrow.parquet.read_table("a.parquet").to_pylist()
    assert [row["query_id"] for row in rows] == list("012345")
    assert rows[0]["answer"] == "Yes.\u2028It is."
    Path("a.parquet").unlink()
    lines = [json.dumps(row) for row in rows[2:4]]
    Path("a.parquet.unfinished.jsonl").write_text("\n".join([*lines, lines[0][:20]]))
    Path("asked.txt").unlink()
    facts = cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "a.parquet", "--limit", "4")
    assert facts["answered"] == 4
    assert sorted(Path("asked.txt").read_text().splitlines()) == ["Is 0 even?", "Is 1 odd?"]
    assert [row["query_id"] for row in pyarrow.parquet.read_table("a.parquet").to_pylist()] == list("0123")


def test_an_interruption_keeps_what_is_answered(cli, files, monkeypatch):
    def interrupted(*args, **kwargs):
        yield from list(answer_dataset(*args, **kwargs))[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("langchain_rlfocal.bulk.answer_dataset", interrupted)
        result = cli.run("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "a.csv")
    assert result.exit_code == 130
    assert "Answered: 2 of 6. Run the same command again to go on." in result.stderr
    assert cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "a.csv")["answered"] == 6


def test_where_nothing_could_be_answered_the_command_fails(cli, files):
    Path("down").touch()
    Path("q.jsonl").write_text('{"query": "Is 1 odd?"}\n')
    result = cli.run("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "a.jsonl")
    assert result.exit_code == 1
    assert "Failed: 1 of 1, first since Ensemble" in result.stderr


def test_another_file_and_an_address_without_ray_are_refused(cli, files):
    Path("a.jsonl").write_text('{"task": "t"}\n')
    cli.assert_refused(cli.run("answer", "q.jsonl", "--out", "a.jsonl"), "table of answers", "Name another file")
    refused = cli.run("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "b.jsonl", "--address", "auto")
    cli.assert_refused(refused, "`--address`", "--engine ray")
