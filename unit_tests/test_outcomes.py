"""Outcomes: a table has one row per task, query and member; a grid has every member on every query."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.outcomes import (
    COLUMNS,
    Outcome,
    OutcomeTable,
    Question,
    read_questions,
    split_of,
)


def outcome(query_id="q1", model="a", answer="x", *, task="t", query=None, reward=1.0, **more):
    query = f"{task} {query_id}?" if query is None else query
    return Outcome(task=task, query_id=query_id, query=query, model=model, answer=answer, reward=reward, **more)


def grid_of(*rows, members, **options):
    return OutcomeTable.from_outcomes(rows).grid(members, **options)


def test_the_columns_are_the_fields_of_an_outcome_in_order():
    assert tuple(Outcome.__dataclass_fields__) == tuple(column.name for column in COLUMNS)


def test_a_table_names_members_and_tasks_in_the_order_of_their_first_row():
    table = OutcomeTable.from_outcomes([outcome(model="b"), outcome(model="a"), outcome("q2", "b", task="s")])
    assert table.members == ("b", "a")
    assert table.tasks == ("t", "s")
    assert len(table) == 3
    assert repr(table) == "OutcomeTable(3 rows, 2 members, 2 tasks)"


def test_a_grid_lays_out_what_each_member_answered():
    """Two queries, members named against the table's order; what nobody recorded is NaN."""
    rows = [
        outcome("q1", "a", "yes", reward=1.0, gold="yes", cost_usd=0.5, prompt_tokens=7, logprob=-0.25),
        outcome("q1", "b", "no", reward=0.0, completion_tokens=2),
        outcome("q2", "b", None, reward=0.5, latency_s=3.0),
        outcome("q2", "a", "", reward=0.25),
    ]
    grid = grid_of(*rows, members=["b", "a"])
    assert grid.members == ("b", "a")
    assert len(grid) == 2
    assert grid.tasks == ["t", "t"]
    assert grid.query_ids == ["q1", "q2"]
    assert grid.queries == ["t q1?", "t q2?"]
    assert grid.golds == ["yes", None]
    assert grid.answers.tolist() == [["no", "yes"], [None, ""]]
    assert grid.answer_ids.tolist() == [[0, 1], [-1, 1]]
    assert grid.answer_ids.dtype == np.int32
    nan = np.nan
    for name, expected in {
        "scores": [[0.0, 1.0], [0.5, 0.25]],
        "cost_usd": [[nan, 0.5], [nan, nan]],
        "latency_s": [[nan, nan], [3.0, nan]],
        "prompt_tokens": [[nan, 7.0], [nan, nan]],
        "completion_tokens": [[2.0, nan], [nan, nan]],
        "logprobs": [[nan, -0.25], [nan, nan]],
    }.items():
        np.testing.assert_array_equal(getattr(grid, name), expected, err_msg=name)
        assert getattr(grid, name).dtype == np.float64
    assert grid.dropped == 0


def test_the_right_answer_is_taken_from_whichever_member_has_it():
    assert grid_of(outcome(), outcome(model="b", gold="x"), members=["a", "b"]).golds == ["x"]


@given(st.lists(st.lists(st.sampled_from([None, "", "a", "b", "é"]), min_size=4, max_size=4), min_size=1, max_size=6))
def test_members_share_an_id_exactly_where_they_share_an_answer(answers):
    """The id is the place of the first member with that answer, and -1 stands for no answer alone."""
    rows = [outcome(str(q), str(m), text) for q, row in enumerate(answers) for m, text in enumerate(row)]
    grid = grid_of(*rows, members=["0", "1", "2", "3"])
    expected = [[-1 if text is None else row.index(text) for text in row] for row in answers]
    assert grid.answer_ids.tolist() == expected
    assert grid.answers.tolist() == answers


def test_queries_that_a_member_did_not_answer_are_left_out_and_counted():
    """Of three queries, `a` and `b` both answered the second alone; `c` is not asked about."""
    rows = [outcome("q1", "a"), outcome("q2", "a"), outcome("q2", "b"), outcome("q3", "c")]
    grid = grid_of(*rows, members=["a", "b"])
    assert grid.query_ids == ["q2"]
    assert grid.dropped == 2


def test_a_task_may_be_named_with_wildcards():
    rows = [outcome("q", "a", task=task) for task in ("maths/sums", "maths/logs", "law")]
    assert grid_of(*rows, members=["a"], task="maths/*").tasks == ["maths/sums", "maths/logs"]
    assert grid_of(*rows, members=["a"], task="law").tasks == ["law"]
    assert grid_of(*rows, members=["a"]).tasks == ["maths/sums", "maths/logs", "law"]
    with pytest.raises(OutcomeError, match=r"got 'maths'. Its tasks begin: maths/sums, maths/logs, law"):
        grid_of(*rows, members=["a"], task="maths")


def test_the_same_query_id_in_two_tasks_is_two_queries():
    """They stand in the order of their first row, whatever their task, and are counted apart where left out."""
    rows = [outcome("q1", task="t"), outcome("q1", task="s"), outcome("q2", task="t"), outcome("q3", "b", task="s")]
    grid = grid_of(*rows, members=["a"])
    assert list(zip(grid.tasks, grid.query_ids, strict=True)) == [("t", "q1"), ("s", "q1"), ("t", "q2")]
    assert grid.dropped == 1
    assert grid_of(*rows, members=["a"], task="s").dropped == 1


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ([], "at least one member"),
        ("a", "Pass a list"),
        (["a", "a"], "each member once, got 'a' twice"),
        (["a", "z"], r"must be in the table, got \['z'\]. It holds: a, b"),
    ],
)
def test_a_pool_that_is_none_is_refused(members, rule):
    with pytest.raises(PoolError, match=rule):
        grid_of(outcome(model="a"), outcome(model="b"), members=members)


def test_a_pool_without_a_common_query_is_refused_with_what_each_answered():
    rows = [outcome("q1", "a"), outcome("q2", "a"), outcome("q3", "b")]
    with pytest.raises(OutcomeError, match=r"none of 3. Leave out a member; they answered: a 2, b 1"):
        grid_of(*rows, members=["a", "b"])


def test_an_empty_table_is_a_table():
    table = OutcomeTable.from_outcomes([])
    assert (len(table), table.members, table.tasks, list(table)) == (0, (), (), [])
    with pytest.raises(PoolError):
        table.grid(["a"])


def test_the_same_task_query_and_member_twice_is_refused():
    rows = [outcome("q1"), outcome("q2"), outcome("q1", "b"), outcome("q1", answer="y")]
    with pytest.raises(OutcomeError, match=r"got those of row 1. Delete one") as caught:
        OutcomeTable.from_outcomes(rows)
    assert (caught.value.row, caught.value.column) == (4, "model")


def test_one_query_id_with_two_texts_in_a_task_is_refused():
    rows = [outcome("q1"), outcome("q2"), outcome("q2", "b", query="another")]
    with pytest.raises(OutcomeError, match=r"got another than in row 2. Give one another") as caught:
        OutcomeTable.from_outcomes(rows)
    assert (caught.value.row, caught.value.column) == (3, "query")


def test_a_row_that_stands_in_two_files_is_refused_with_both(tmp_path):
    """The second file's second row repeats the first file's third."""
    first, second = tmp_path / "first.jsonl", tmp_path / "second.csv"
    OutcomeTable.from_outcomes([outcome("q1"), outcome("q2"), outcome("q3")]).write(first)
    OutcomeTable.from_outcomes([outcome("q4"), outcome("q3")]).write(second)
    with pytest.raises(OutcomeError, match=r"first.jsonl") as caught:
        OutcomeTable.read(first, second)
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(second), 2, "model")
    assert "row 3 of" in caught.value.rule


def test_several_files_are_read_as_one_table(tmp_path):
    rows = [outcome("q1"), outcome("q1", "b"), outcome("q2", "b")]
    paths = [tmp_path / "a.parquet", tmp_path / "b.csv", tmp_path / "c.jsonl"]
    for row, path in zip(rows, paths, strict=True):
        OutcomeTable.from_outcomes([row]).write(path)
    assert list(OutcomeTable.read(*paths)) == rows
    with pytest.raises(InputError, match="at least one path"):
        OutcomeTable.read()


def test_taking_rows_of_a_grid_takes_them_from_every_part():
    rows = [outcome(str(q), "a", str(q), reward=q / 4, gold=str(q), cost_usd=float(q)) for q in range(4)]
    grid = grid_of(*rows, outcome("9", "b"), members=["a"])
    assert grid.dropped == 1
    for index in ([3, 1], np.array([3, 1]), np.array([3, 1], dtype=np.int32)):
        part = grid.take(index)
        assert part.query_ids == part.golds == ["3", "1"]
        assert part.scores.tolist() == [[0.75], [0.25]]
        assert part.cost_usd.tolist() == [[3.0], [1.0]]
        assert part.answers.tolist() == [["3"], ["1"]]
        assert (part.members, part.dropped) == (("a",), 0)
    assert grid.take(np.array([False, True, False, True])).query_ids == ["1", "3"]
    assert len(grid.take([])) == 0
    assert grid.take([]).scores.shape == (0, 1)


def test_a_split_parts_the_queries_and_keeps_equal_texts_together():
    """400 texts, each under two ids: nothing is lost, and both ids of a text are on one side."""
    rows = [outcome(f"{q}-{copy}", "a", query=f"text {q}") for q in range(400) for copy in (1, 2)]
    grid = grid_of(*rows, members=["a"])
    parts = grid.split()
    assert sorted(i for part in parts for i in part.query_ids) == sorted(grid.query_ids)
    sides = [set(part.queries) for part in parts]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert [split_of(part.queries[0]) for part in parts] == ["train", "validation", "test"]
    assert [len(part) for part in grid.split(fractions=(0.0, 0.0, 1.0))] == [0, 0, 800]


def test_the_side_of_a_text_is_its_hash_over_2_to_the_64():
    """Worked from the definition, with the documented salt as BLAKE2b's personalisation."""
    for text in ("", "What is 2 + 2?", "naïve", "\ud83d"):
        raw = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=b"rlfocal-split-1").digest()
        place = int.from_bytes(raw, "big") / 2**64
        assert split_of(text) == ("train" if place < 0.7 else "validation" if place < 0.85 else "test")


def test_the_shares_of_a_split_are_those_asked_for():
    """20,000 texts: each share is within four standard errors, 4 √(0.25/20000) ≈ 0.014."""
    sides = [split_of(f"question {index}", fractions=(0.5, 0.3, 0.2)) for index in range(20_000)]
    for side, share in (("train", 0.5), ("validation", 0.3), ("test", 0.2)):
        assert abs(sides.count(side) / len(sides) - share) < 0.015


@given(st.text(max_size=20), st.floats(0, 1))
def test_a_larger_training_share_never_takes_a_text_out_of_training(text, share):
    if split_of(text, fractions=(share, 1 - share, 0.0)) == "train":
        assert split_of(text, fractions=(1.0, 0.0, 0.0)) == "train"
        assert split_of(text, fractions=((1 + share) / 2, (1 - share) / 2, 0.0)) == "train"


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)])
def test_shares_that_are_none_are_refused(fractions):
    with pytest.raises(InputError, match="three shares that sum to 1"):
        split_of("text", fractions=fractions)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_questions_are_read_with_their_kind(suffix, tmp_path):
    path = tmp_path / f"questions.{suffix}"
    rows = [
        {"task": "t", "query_id": "1", "query": "Why?", "gold": None, "kind": "long_text"},
        {"task": "t", "query_id": "2", "query": "2 + 2?", "gold": "4", "kind": None},
        {"task": "s", "query_id": "1", "query": "Yes?", "gold": "", "kind": "option"},
    ]
    if suffix == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text('task,query_id,query,gold,kind\nt,1,Why?,,long_text\nt,2,2 + 2?,4,\ns,1,Yes?,"",option\n')
    assert read_questions(path) == [
        Question(task="t", query_id="1", query="Why?", kind="long_text"),
        Question(task="t", query_id="2", query="2 + 2?", gold="4", kind="auto"),
        Question(task="s", query_id="1", query="Yes?", gold="", kind="option"),
    ]


@pytest.mark.parametrize(
    ("row", "column", "rule"),
    [
        ({"task": "t", "query_id": "2"}, "query", "must have this column"),
        ({"task": "t", "query_id": "2", "query": ""}, "query", "must not be empty"),
        (
            {"task": "t", "query_id": "2", "query": "b", "kind": "essay"},
            "kind",
            "must be one of auto, exact, .*'essay'",
        ),
        ({"task": "t", "query_id": "1", "query": "b"}, "query_id", "unique within the task 't', got '1' in row 1 too"),
    ],
)
def test_a_question_that_breaks_a_rule_is_named(row, column, rule, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in ({"task": "t", "query_id": "1", "query": "a"}, row)))
    with pytest.raises(OutcomeError, match=rule) as caught:
        read_questions(path)
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), 2, column)


def test_outcomes_load_neither_torch_nor_langchain():
    code = "import sys, langchain_rlfocal.outcomes as _; print({'torch', 'langchain_core'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_relabelled_answers_share_what_the_kind_calls_the_same_and_rewards_stay():
    """Two spellings become one answer; a row without a response keeps its own, and a response may say the same."""
    said = {"a": "The colour is GREY.", "b": "gray", "c": None}
    rows = [
        Outcome(
            task="t",
            query_id="1",
            query="Colour?",
            model=model,
            response=text,
            answer="gray" if text is None else model,
            reward=0.5,
        )
        for model, text in said.items()
    ]
    table = OutcomeTable.from_outcomes(rows).relabelled(lambda a, b: ("grey" in a.lower()) == ("grey" in b.lower()))
    labels = [outcome.answer for outcome in table]
    assert labels[1] == labels[2] != labels[0]
    assert [outcome.reward for outcome in table] == [0.5] * 3
