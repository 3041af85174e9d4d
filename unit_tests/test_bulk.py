"""Bulk answering: rows in, answers and their costs out, errors as values; `rlfocal answer` goes on where it was stopped."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

import support_engines as work
from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.bulk import ANSWER_COLUMNS, RLFocalBatch, answer_dataset
from langchain_rlfocal.cli.answers import AnswerTable, _rows_in
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
    if "4" in messages[-1].text and os.path.exists("interrupts"):
        raise KeyboardInterrupt
    if "half" in messages[-1].text:
        return "x\\ud800y"
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
        def map(self, begin, items, **_):
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


def test_an_interruption_keeps_what_is_answered(cli, files):
    """Ctrl-C at the fifth question, in the midst of the only batch; one question at a time."""
    Path("interrupts").touch()
    result = cli.run("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "a.csv", "--concurrency", "1")
    assert result.exit_code == 130
    assert result.stderr == "Interrupted. Answered: 4 of 6. Run the same command again to go on.\n"
    Path("interrupts").unlink()
    Path("asked.txt").unlink()
    assert cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", "a.csv")["answered"] == 6
    assert sorted(Path("asked.txt").read_text().splitlines()) == ["Is 4 even?", "Is 5 odd?"]


def test_answers_reach_the_caller_before_their_batch_is_done(files):
    """A worker of its own tells them one by one; the batch of four is given back when all is answered."""
    questions = [Question(task="t", query_id=str(n), query=f"c{n}") for n in range(4)]
    seen = []
    with LocalEngine(2) as engine:
        done = answer_dataset(
            work.make_model, questions, engine=engine, batch_size=4, on_answer=lambda *given: seen.append(given)
        )
        rows = list(done)
    assert sorted((question.query_id, row["answer"]) for question, row in seen) == [(str(n), f"c{n}") for n in range(4)]
    assert sorted(seen, key=lambda given: given[0].query_id) == rows


def test_answers_of_a_batch_that_is_cut_off_are_kept(files):
    """Of three answers two came before the worker was killed, again and again."""
    questions = [Question(task="t", query_id=name, query=name) for name in ("a", "b", "die")]
    seen = []
    with LocalEngine(2) as engine:
        done = answer_dataset(
            work.make_dying_model,
            questions,
            engine=engine,
            max_concurrency=1,
            on_answer=lambda question, row: seen.append((question.query_id, row["error"] is None)),
        )
        assert [row["error"] is None for _, row in done] == [False] * 3
    assert {("a", True), ("b", True), ("die", False)} <= set(seen)


def test_a_table_keeps_rows_of_other_questions_and_an_answer_that_a_later_failure_follows(cli, files):
    """The first two questions alone are answered; then another file's; the first answers stay."""
    args = ("answer", "--pool", "pool.yaml", "--out", "a.parquet")
    cli.said(*args, "q.jsonl", "--limit", "2")
    Path("other.jsonl").write_text('{"query_id": "x", "query": "What?"}\n')
    assert cli.said(*args, "other.jsonl")["answered"] == 1
    assert cli.said(*args, "q.jsonl", "--limit", "1")["answered"] == 1
    rows = pyarrow.parquet.read_table("a.parquet").to_pylist()
    assert [row["query_id"] for row in rows] == ["0", "x", "1"]
    assert Path("asked.txt").read_text().splitlines().count("Is 0 even?") == 1
    question = Question(task="t", query_id="0", query="c")
    with AnswerTable(Path("b.jsonl"), [question]) as table:
        table.add(question, dict.fromkeys(ANSWER_COLUMNS) | {"answer": "no"})
        table.add(question, dict.fromkeys(ANSWER_COLUMNS) | {"error": "down"})
    assert (table.failed, table.left) == (0, [])


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_a_table_holds_half_a_surrogate_pair_and_names_that_are_numbers(cli, files, suffix):
    Path("pool.yaml").write_text(POOL.replace("ann:", '"1":'))
    Path("q.jsonl").write_text('{"query": "Say half."}\n')
    for _ in range(2):
        facts = cli.said("answer", "q.jsonl", "--pool", "pool.yaml", "--out", f"a.{suffix}")
        assert (facts["answered"], facts["failed"]) == (1, 0)
    [row] = _rows_in(Path(f"a.{suffix}"))
    assert (row["answer"], row["members"]) == ("x?y", "1")


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
