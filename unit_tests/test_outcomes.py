"""Outcomes: a table has one row per task, query and member; a grid has every member on every query."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given
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


# ---- gaps

NUMBERS = ("cost_usd", "latency_s", "prompt_tokens", "completion_tokens", "logprobs", "response_chars")


def pair_grid(*rows, **options):
    return grid_of(*rows, members=["a", "b"], **options)


def full(query_id, model, answer="x", *, task="t", **more):
    """An outcome of which everything is recorded."""
    known = {"reward": 1.0, "response": "x", "cost_usd": 0.5, "latency_s": 1.0, "logprob": -1.0}
    known |= {"prompt_tokens": 3, "completion_tokens": 1}
    return outcome(query_id, model, answer, task=task, **known | more)


def test_a_missing_answer_is_the_members_failure_where_the_caller_says_so():
    """`a` alone answered q1, `b` alone q2, both q3, neither q4: three queries are kept, two with a gap."""
    rows = [
        full("q1", "a", gold="x"),
        full("q2", "b", "y", gold="y"),
        full("q3", "b"),
        full("q3", "a"),
        full("q4", "c"),
    ]
    grid = pair_grid(*rows, missing="fail")
    assert grid.query_ids == ["q1", "q2", "q3"]
    assert grid.queries == ["t q1?", "t q2?", "t q3?"]
    assert grid.golds == ["x", "y", None]
    assert (grid.dropped, grid.missing) == (0, 2)
    assert grid.answers.tolist() == [["x", None], [None, "y"], ["x", "x"]]
    assert grid.answer_ids.tolist() == [[0, -1], [-1, 1], [0, 0]]
    assert grid.scores.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    for name in NUMBERS:
        assert np.isnan(getattr(grid, name)).tolist() == [[False, True], [True, False], [False, False]]
    assert (grid.take([0, 1]).missing, len(grid.take([0, 1]))) == (0, 2)


def test_gaps_are_left_out_by_default():
    rows = [full("q1", "a"), full("q2", "b"), full("q3", "a"), full("q3", "b"), full("q4", "c")]
    for grid in (pair_grid(*rows), pair_grid(*rows, missing="drop")):
        assert grid.query_ids == ["q3"]
        assert (grid.dropped, grid.missing) == (3, 0)


def test_a_pool_without_a_common_query_has_a_grid_of_failures():
    assert pair_grid(full("q1", "a"), full("q2", "b"), missing="fail").scores.tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_a_member_that_answered_nothing_is_refused_rather_than_failed():
    """`b` is in the table, but not in the task that is asked for."""
    rows = [full("q1", "a"), full("q1", "b", task="s")]
    with pytest.raises(OutcomeError, match=r"got none by \['b'\]. Leave them out of the pool"):
        pair_grid(*rows, task="t", missing="fail")


def test_a_way_with_gaps_that_is_none_is_refused():
    with pytest.raises(InputError, match="must be one of drop, fail, got 'Fail'"):
        pair_grid(full("q1", "a"), full("q1", "b"), missing="Fail")


@given(st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=8))
def test_the_two_ways_agree_wherever_nothing_is_missing(answered):
    """Queries without a gap are laid out alike, and kept, dropped and missing add up."""
    rows = [full(str(q), m, m * (q % 3)) for q, names in enumerate(answered) for m in sorted(names)]
    assume(all(any(name in names for names in answered) for name in "ab"))
    failed = pair_grid(*rows, missing="fail")
    is_whole = ~np.isnan(failed.cost_usd).any(axis=1)
    assert (len(failed), failed.missing) == (sum(bool(names & {"a", "b"}) for names in answered), (~is_whole).sum())
    assume(is_whole.any())
    dropped, whole = pair_grid(*rows), failed.take(is_whole)
    assert len(dropped) + dropped.dropped == sum(map(bool, answered))
    assert dropped.query_ids == whole.query_ids
    for name in ("answers", "answer_ids", "scores", *NUMBERS):
        assert getattr(dropped, name).tolist() == getattr(whole, name).tolist()


def test_the_length_of_a_response_is_counted_in_characters():
    """é is one character of two bytes; what was not recorded has no length, what is empty has length 0."""
    grid = OutcomeTable.from_outcomes(
        [full(str(q), "a", response=text) for q, text in enumerate(("née", "", None, "😀 ok"))]
    ).grid(["a"])
    np.testing.assert_array_equal(grid.response_chars[:, 0], [3.0, 0.0, np.nan, 4.0])
    assert grid.response_chars.dtype == np.float64


def test_several_tasks_may_be_named_together():
    """They stand in the table's order, however they are named, and one that two names match stands once."""
    table = OutcomeTable.from_outcomes([full("q", "a", task=task) for task in ("maths/sums", "law", "maths/logs")])
    assert table.grid(["a"], task=["maths/logs", "law"]).tasks == ["law", "maths/logs"]
    assert table.grid(["a"], task=("maths/*", "maths/sums")).tasks == ["maths/sums", "maths/logs"]
    with pytest.raises(
        OutcomeError, match=r"must match a task of the table, got 'art/\*'. Its tasks begin: maths/sums"
    ):
        table.grid(["a"], task=["law", "art/*"])
    with pytest.raises(OutcomeError, match=r"at least one task, got \[\]. Pass None for all"):
        table.grid(["a"], task=[])


# ---- test rows that a file sets apart


def split_grid(texts, **options):
    rows = [
        Outcome(task="t", query_id=query_id, query=text, model="a", answer="x", reward=1.0)
        for query_id, text in texts.items()
    ]
    return OutcomeTable.from_outcomes(rows).grid(["a"], **options)


def test_the_test_rows_of_a_file_are_the_test_part():
    """200 texts, every fifth a test row; the text parts the others at 70 : 15, which is 14/17 to train."""
    texts = {f"{'test' if q % 5 == 0 else 'train'}-{q}": f"text {q}" for q in range(200)}
    grid = split_grid(texts, test_ids="test*")
    assert grid.is_test.tolist() == [q % 5 == 0 for q in range(200)]
    train, validation, test = grid.split()
    assert test.query_ids == [name for name in texts if name.startswith("test")]
    share = 0.7 / 0.85
    for part, side in ((train, "train"), (validation, "validation")):
        expected = [q for q in range(200) if q % 5 and split_of(f"text {q}", fractions=(share, 1 - share, 0)) == side]
        assert part.query_ids == [f"train-{q}" for q in expected]
        assert expected
    assert (grid.repeated, test.is_test.all(), train.is_test.any()) == (0, True, False)


def test_a_training_row_with_the_text_of_a_test_row_is_left_out_and_counted():
    """Of four training rows two have a test row's text; a text that two training rows share stays, on one side."""
    texts = {"train-1": "seen", "test-1": "seen", "train-2": "seen", "train-3": "own", "train-4": "own"}
    grid = split_grid(texts, test_ids="test*")
    assert len(grid) == 5
    assert grid.repeated == 2
    train, validation, test = grid.split()
    assert test.query_ids == ["test-1"]
    assert sorted([train.query_ids, validation.query_ids]) == [[], ["train-3", "train-4"]]


def test_without_test_rows_the_text_alone_decides():
    texts = {f"test-{q}": f"text {q % 50}" for q in range(100)}
    grid = split_grid(texts)
    assert grid.is_test is None
    assert grid.repeated == 0
    assert grid.take([0]).is_test is None
    assert sum(map(len, grid.split())) == 100
    assert all(split_of(text) == "test" for text in grid.split()[2].queries)


@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=4), st.text("xy", min_size=1, max_size=3), min_size=1),
    st.floats(0.01, 0.99),
    st.floats(0, 1),
)
def test_no_text_is_on_two_sides_and_every_query_is_on_one_or_counted(texts, share, scale):
    """Whatever is asked for: the test part is the file's, and the shares of the others keep their proportion."""
    assume(share * scale > 0)
    grid = split_grid({"a": "x", **texts}, test_ids="a*")
    fractions = (share * scale, (1 - share) * scale, 1 - scale)
    parts = grid.split(fractions=fractions)
    assert sum(map(len, parts)) + grid.repeated == len(grid)
    assert parts[2].query_ids == [name for name in grid.query_ids if name.startswith("a")]
    sides = [set(part.queries) for part in parts]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]


@pytest.mark.parametrize(
    ("fractions", "rule"),
    [
        ((0.0, 0.0, 1.0), r"must leave a share to train or validation where the test rows are given, got \(0.0"),
        ((0.5, 0.5), "three shares that sum to 1"),
        ((0.7, 0.2, 0.2), "three shares that sum to 1"),
    ],
)
def test_shares_that_are_none_are_refused_with_test_rows_too(fractions, rule):
    with pytest.raises(InputError, match=rule):
        split_grid({"train": "a", "test": "b"}, test_ids="test").split(fractions=fractions)


def test_a_name_that_marks_no_test_row_is_refused():
    with pytest.raises(
        OutcomeError, match=r"must match a query of the grid, got 'Test\*'. Its query ids begin: test-1"
    ):
        split_grid({"test-1": "a"}, test_ids="Test*")
