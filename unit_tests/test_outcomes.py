"""Outcomes: a table has one row per task, query and member; a grid is square, and split by the text of its queries.

What each option is called is learned from the whole task, and choosing one is worth what its answer is worth.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from langchain_rlfocal.errors import InputError, OutcomeError, PoolError
from langchain_rlfocal.outcomes import COLUMNS, Outcome, OutcomeTable, Question, read_questions, split_of

nan = np.nan
NUMBERS = ("cost_usd", "latency_s", "prompt_tokens", "completion_tokens", "logprobs", "response_chars")
KNOWN = {
    "response": "x",
    "cost_usd": 0.5,
    "latency_s": 1.0,
    "logprob": -1.0,
    "prompt_tokens": 3,
    "completion_tokens": 1,
}
BBH = Path(os.environ.get("RLFOCAL_DATA", "no-such-folder")) / "bbh.parquet"


def outcome(query_id="q1", model="a", answer="x", *, task="t", query=None, reward=1.0, **more):
    query = f"{task} {query_id}?" if query is None else query
    return Outcome(task=task, query_id=query_id, query=query, model=model, answer=answer, reward=reward, **more)


def grid_of(*rows, members=("a", "b"), **options):
    return OutcomeTable.from_outcomes(rows).grid(members, **options)


# ---- tables


def test_a_table_names_members_and_tasks_in_the_order_of_their_first_row():
    assert tuple(Outcome.__dataclass_fields__) == (*(column.name for column in COLUMNS), "extras")
    table = OutcomeTable.from_outcomes([outcome(model="b"), outcome(model="a"), outcome("q2", "b", task="s")])
    assert (table.members, table.tasks, len(table)) == (("b", "a"), ("t", "s"), 3)
    assert repr(table) == "OutcomeTable(3 rows, 2 members, 2 tasks)"
    empty = OutcomeTable.from_outcomes([])
    assert (len(empty), empty.members, empty.tasks, list(empty)) == (0, (), (), [])
    with pytest.raises(PoolError):
        empty.grid(["a"])


@pytest.mark.parametrize(
    ("rows", "row", "column", "named"),
    [
        ([outcome(), outcome("q2"), outcome("q1", "b"), outcome(answer="y")], 4, "model", "row 1"),
        ([outcome(), outcome("q2"), outcome("q2", "b", query="another")], 3, "query", "row 2"),
    ],
)
def test_a_row_that_repeats_another_or_gives_its_query_another_text_is_refused(rows, row, column, named):
    with pytest.raises(OutcomeError, match=named) as caught:
        OutcomeTable.from_outcomes(rows)
    assert (caught.value.row, caught.value.column) == (row, column)


def test_several_files_are_read_as_one_table_and_a_row_of_two_is_refused_with_both(tmp_path):
    """The repeated row is the third file's second and the first file's first."""
    first, *others = rows = [outcome("q1"), outcome("q1", "b"), outcome("q2", "b")]
    paths = [tmp_path / "a.parquet", tmp_path / "b.csv", tmp_path / "c.jsonl"]
    for row, path in zip(rows, paths, strict=True):
        OutcomeTable.from_outcomes([row]).write(path)
    assert list(OutcomeTable.read(*paths)) == rows
    with pytest.raises(InputError, match="at least one path"):
        OutcomeTable.read()
    OutcomeTable.from_outcomes([others[1], first]).write(paths[2])
    with pytest.raises(OutcomeError, match=r"row 1 of .*a\.parquet") as caught:
        OutcomeTable.read(*paths)
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(paths[2]), 2, "model")


def test_relabelled_answers_share_what_the_kind_calls_the_same_and_rewards_stay():
    """Two spellings become one answer; a row without a response keeps its own, and a response may say the same."""
    said = {"a": "The colour is GREY.", "b": "gray", "c": None}
    rows = [outcome("1", m, "gray" if text is None else m, response=text, reward=0.5) for m, text in said.items()]
    table = OutcomeTable.from_outcomes(rows).relabelled(lambda a, b: ("grey" in a.lower()) == ("grey" in b.lower()))
    labels = [row.answer for row in table]
    assert labels[1] == labels[2] != labels[0]
    assert [row.reward for row in table] == [0.5] * 3


# ---- grids


def test_a_grid_lays_out_what_each_member_answered():
    """Members are named against the table's order; what nobody recorded is NaN; é is one character of two bytes."""
    rows = [
        outcome("q1", "a", "yes", gold="yes", cost_usd=0.5, prompt_tokens=7, logprob=-0.25, response="née"),
        outcome("q1", "b", "no", reward=0.0, completion_tokens=2),
        outcome("q2", "b", None, reward=0.5, latency_s=3.0, response=""),
        outcome("q2", "a", "", reward=0.25),
    ]
    grid = grid_of(*rows, members=["b", "a"])
    assert (grid.members, len(grid), grid.tasks, grid.dropped) == (("b", "a"), 2, ["t", "t"], 0)
    assert (grid.query_ids, grid.queries, grid.golds) == (["q1", "q2"], ["t q1?", "t q2?"], ["yes", None])
    assert grid.answers.tolist() == [["no", "yes"], [None, ""]]
    assert grid.answer_ids.tolist() == [[0, 1], [-1, 1]]
    assert grid.answer_ids.dtype == np.int32
    for name, expected in {
        "scores": [[0.0, 1.0], [0.5, 0.25]],
        "cost_usd": [[nan, 0.5], [nan, nan]],
        "latency_s": [[nan, nan], [3.0, nan]],
        "prompt_tokens": [[nan, 7.0], [nan, nan]],
        "completion_tokens": [[2.0, nan], [nan, nan]],
        "logprobs": [[nan, -0.25], [nan, nan]],
        "response_chars": [[nan, 3.0], [0.0, nan]],
    }.items():
        np.testing.assert_array_equal(getattr(grid, name), expected, err_msg=name)
        assert getattr(grid, name).dtype == np.float64
    assert grid_of(outcome(), outcome(model="b", gold="x")).golds == ["x"], "of whichever member has it"


@given(st.lists(st.lists(st.sampled_from([None, "", "a", "b", "é"]), min_size=4, max_size=4), min_size=1, max_size=6))
def test_members_share_an_id_exactly_where_they_share_an_answer(answers):
    """The id is the place of the first member with that answer; an answer without a label is shared by nobody."""
    rows = [outcome(str(q), str(m), text) for q, row in enumerate(answers) for m, text in enumerate(row)]
    grid = grid_of(*rows, members=["0", "1", "2", "3"])
    expected = [[m if text is None else row.index(text) for m, text in enumerate(row)] for row in answers]
    assert grid.answer_ids.tolist() == expected
    assert grid.answers.tolist() == answers


@pytest.mark.parametrize(
    ("task", "tasks"),
    [
        ("maths/*", ["maths/sums", "maths/logs"]),
        ("law", ["law"]),
        (None, ["maths/sums", "law", "maths/logs"]),
        (["maths/logs", "law"], ["law", "maths/logs"]),
        (("maths/*", "maths/sums"), ["maths/sums", "maths/logs"]),
    ],
)
def test_tasks_are_named_with_wildcards_or_together_and_keep_the_tables_order(task, tasks):
    rows = [outcome("q", "a", task=name) for name in ("maths/sums", "law", "maths/logs")]
    grid = grid_of(*rows, members=["a"], **({"task": task} if task else {}))
    assert grid.tasks == tasks


def test_the_same_query_id_in_two_tasks_is_two_queries():
    """In the order of their first row, whatever their task, and counted apart where left out."""
    rows = [outcome("q1", task="t"), outcome("q1", task="s"), outcome("q2", task="t"), outcome("q3", "b", task="s")]
    grid = grid_of(*rows, members=["a"])
    assert list(zip(grid.tasks, grid.query_ids, strict=True)) == [("t", "q1"), ("s", "q1"), ("t", "q2")]
    assert grid.dropped == 1
    assert grid_of(*rows, members=["a"], task="s").dropped == 1


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"members": []}, PoolError, "at least one member"),
        ({"members": "a"}, PoolError, "Pass a list"),
        ({"members": ["a", "a"]}, PoolError, "'a' twice"),
        ({"members": ["a", "z"]}, PoolError, r"\['z'\].* a, b"),
        ({"members": ["a", "c"]}, OutcomeError, "none of 3.* a 2, c 1"),
        ({"members": ["a", "b"], "task": "maths"}, OutcomeError, "'maths'.* t, s"),
        ({"members": ["a", "b"], "task": ["t", "art/*"]}, OutcomeError, r"'art/\*'.* t, s"),
        ({"members": ["a", "b"], "task": []}, OutcomeError, "at least one task"),
        ({"members": ["a", "b"], "task": "s", "missing": "fail"}, OutcomeError, "none of b: .*Leave them out"),
        ({"members": ["a", "b"], "task": "s", "missing": "mask"}, OutcomeError, "none of b: .*Leave them out"),
        ({"members": ["a", "b"], "missing": "Fail"}, InputError, "mask, drop, fail, got 'Fail'"),
        ({"members": ["a", "b"], "test_ids": "Test*"}, OutcomeError, r"'Test\*'.* q1"),
    ],
)
def test_a_grid_that_cannot_be_made_is_refused(options, error, named):
    """`b` answered nothing in the task s, `c` nothing that `a` did."""
    rows = [outcome("q1", "a"), outcome("q1", "b"), outcome("q2", "a", task="s"), outcome("q3", "c", task="s")]
    with pytest.raises(error, match=named):
        OutcomeTable.from_outcomes(rows).grid(**options)


def test_taking_rows_of_a_grid_takes_them_from_every_part():
    rows = [outcome(str(q), "a", str(q), reward=q / 4, gold=str(q), cost_usd=float(q)) for q in range(4)]
    grid = grid_of(*rows, outcome("9", "b"), members=["a"])
    assert grid.dropped == 1
    for index in ([3, 1], np.array([3, 1], dtype=np.int32)):
        part = grid.take(index)
        assert part.query_ids == part.golds == ["3", "1"]
        assert (part.scores.tolist(), part.cost_usd.tolist()) == ([[0.75], [0.25]], [[3.0], [1.0]])
        assert part.answers.tolist() == [["3"], ["1"]]
        assert (part.members, part.dropped) == (("a",), 0)
    assert grid.take(np.array([False, True, False, True])).query_ids == ["1", "3"]
    assert grid.take([]).scores.shape == (0, 1)


# ---- gaps


def test_a_missing_answer_is_the_members_failure_where_the_caller_says_so():
    """`a` alone answered q1, `b` alone q2, both q3, neither q4: three queries are kept, two with a gap."""
    answers = [("q1", "a", "x", "x"), ("q2", "b", "y", "y"), ("q3", "b", "x", None), ("q3", "a", "x", None)]
    rows = [*(outcome(q, m, text, gold=gold, **KNOWN) for q, m, text, gold in answers), outcome("q4", "c", **KNOWN)]
    grid = grid_of(*rows, missing="fail")
    assert (grid.query_ids, grid.queries, grid.golds) == (
        ["q1", "q2", "q3"],
        ["t q1?", "t q2?", "t q3?"],
        ["x", "y", None],
    )
    assert (grid.dropped, grid.missing) == (0, 2)
    assert grid.answers.tolist() == [["x", None], [None, "y"], ["x", "x"]]
    assert grid.answer_ids.tolist() == [[0, -1], [-1, 1], [0, 0]]
    assert grid.scores.tolist() == [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    for name in NUMBERS:
        assert np.isnan(getattr(grid, name)).tolist() == [[False, True], [True, False], [False, False]]
    assert (grid.take([0, 1]).missing, len(grid.take([0, 1]))) == (0, 2)
    for dropped in (grid_of(*rows), grid_of(*rows, missing="drop")):
        assert (dropped.query_ids, dropped.dropped, dropped.missing) == (["q3"], 3, 0)


def test_what_was_never_asked_is_a_hole_and_neither_wrong_nor_silent():
    """The same four queries: every number of a hole is NaN, its score among them."""
    answers = [("q1", "a", "x"), ("q2", "b", "y"), ("q3", "b", "x"), ("q3", "a", "x")]
    rows = [*(outcome(q, m, text, propensity=0.25, **KNOWN) for q, m, text in answers), outcome("q4", "c", **KNOWN)]
    grid = grid_of(*rows, missing="mask")
    assert (grid.query_ids, grid.dropped, grid.missing, grid.is_complete) == (["q1", "q2", "q3"], 0, 2, False)
    holes = [[False, True], [True, False], [False, False]]
    assert (~grid.recorded).tolist() == holes
    assert grid.answer_ids.tolist() == [[0, -1], [-1, 1], [0, 0]]
    assert grid.answers.tolist() == [["x", None], [None, "y"], ["x", "x"]]
    for name in ("scores", "propensity", *NUMBERS):
        assert np.isnan(getattr(grid, name)).tolist() == holes
    part = grid.take([2]).join(grid.take([0]))
    assert (part.recorded.tolist(), part.is_complete) == ([[True, True], [True, False]], False)
    np.testing.assert_array_equal(part.propensity, [[0.25, 0.25], [0.25, nan]])
    assert grid_of(*rows, missing="drop").is_complete
    assert grid_of(*rows, missing="fail").recorded.all()


def test_an_answer_without_a_label_is_one_of_its_own_and_only_a_blank_response_is_silence():
    """Open text, a table of scores alone, a label without a response, a blank, and a blank that a parser read as an answer."""
    said = {
        "a": (None, "A poem."),
        "b": (None, "A poem."),
        "c": (None, None),
        "d": ("x", None),
        "e": (None, " \n"),
        "f": ("x", ""),
    }
    rows = [outcome("q1", name, answer, response=text) for name, (answer, text) in said.items()]
    grid = grid_of(*rows, members=tuple("abcdef"))
    assert grid.answer_ids.tolist() == [[0, 1, 2, 3, -1, 3]]
    assert grid.answers.tolist() == [[None, None, None, "x", None, "x"]]
    assert grid.recorded.all()


def test_a_failure_that_was_collected_is_silence_and_a_table_of_scores_alone_holds_answers():
    """Without response and label, worth 0; where it is worth something, or nobody's response is recorded, it answered."""
    failed, right, unscored = (outcome("q1", m, None, reward=r) for m, r in (("a", 0.0), ("b", 1.0), ("c", None)))
    said = outcome("q1", "d", "x", response="It is x.")
    members = ("a", "b", "c", "d")
    assert grid_of(failed, right, unscored, said, members=members).answer_ids.tolist() == [[-1, 1, 2, 3]]
    scores_alone = (failed, right, unscored, outcome("q1", "d", None, reward=0.0))
    assert grid_of(*scores_alone, members=members).answer_ids.tolist() == [[0, 1, 2, 3]]


def test_of_a_member_of_which_rewards_alone_are_recorded_a_reward_of_0_is_no_failure():
    """`b` has rewards and no texts, `a` texts: what `b` got wrong it said, and what `a` did not say it failed to say."""
    rows = [
        outcome(f"q{n}", "a", "said" if n else None, response="said" if n else None, reward=float(n)) for n in (0, 1)
    ]
    rows += [outcome(f"q{n}", "b", None, reward=float(n)) for n in (0, 1)]
    assert grid_of(*rows, members=["a", "b"]).answer_ids.tolist() == [[-1, 1], [0, 1]]


def test_an_unscored_answer_takes_the_score_of_equal_ones_and_stays_unscored_without():
    """Equal answers are worth the same: the mean of ¼ and ¾. Texts without a label are equal to nothing."""
    judged = [("x", None), ("x", 0.25), ("x", 0.75), ("y", None), (None, None), (None, 1.0)]
    rows = [outcome("q1", name, answer, reward=score) for name, (answer, score) in zip("abcdef", judged, strict=True)]
    grid = grid_of(*rows, members=tuple("abcdef"))
    np.testing.assert_array_equal(grid.scores, [[0.5, 0.25, 0.75, nan, nan, 1.0]])
    assert grid.recorded.all()
    assert not grid.is_complete


def test_queries_whose_label_contradicts_itself_are_counted():
    """One answer that is right for one member and wrong for another; not two answers, two shades of right, or unlabelled ones."""
    judged = [("x", 1, "x", 0), ("x", 1, "y", 0), ("x", 1, "x", 0.5), (None, 1, None, 0), ("x", 0, "x", None)]
    rows = [
        outcome(str(q), member, answer, reward=reward)
        for q, (one, score, two, other) in enumerate(judged)
        for member, answer, reward in (("a", one, score), ("b", two, other))
    ]
    assert grid_of(*rows).contradictions == 1


@given(st.lists(st.sets(st.sampled_from("abc")), min_size=1, max_size=8))
def test_the_two_ways_with_gaps_agree_wherever_nothing_is_missing(answered):
    """Queries without a gap are laid out alike, and kept, dropped and missing add up."""
    rows = [outcome(str(q), m, m * (q % 3), **KNOWN) for q, names in enumerate(answered) for m in sorted(names)]
    assume(all(any(name in names for names in answered) for name in "ab"))
    failed = grid_of(*rows, missing="fail")
    is_whole = ~np.isnan(failed.cost_usd).any(axis=1)
    assert (len(failed), failed.missing) == (sum(bool(names & {"a", "b"}) for names in answered), (~is_whole).sum())
    assume(is_whole.any())
    dropped, whole = grid_of(*rows), failed.take(is_whole)
    assert len(dropped) + dropped.dropped == sum(map(bool, answered))
    assert dropped.query_ids == whole.query_ids
    for name in ("answers", "answer_ids", "scores", *NUMBERS):
        assert getattr(dropped, name).tolist() == getattr(whole, name).tolist()


# ---- splits


def text_grid(texts, **options):
    """One row of `a` for each query's text by its id."""
    return grid_of(*(outcome(name, query=text) for name, text in texts.items()), members=["a"], **options)


def test_a_split_parts_the_queries_and_keeps_equal_texts_together():
    """400 texts, each under two ids: nothing is lost, and both ids of a text are on one side."""
    grid = text_grid({f"{q}-{copy}": f"text {q}" for q in range(400) for copy in (1, 2)})
    assert grid.is_test is None
    assert grid.repeated == 0
    parts = grid.split()
    assert sorted(i for part in parts for i in part.query_ids) == sorted(grid.query_ids)
    for part, side in zip(parts, ("train", "validation", "test"), strict=True):
        assert {split_of(text) for text in part.queries} == {side}
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
        assert split_of(text, fractions=((1 + share) / 2, (1 - share) / 2, 0.0)) == "train"


@pytest.mark.parametrize("fractions", [(0.5, 0.5), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (nan, 0.5, 0.5)])
def test_shares_that_are_none_are_refused(fractions):
    apart = text_grid({"train": "a", "test": "b"}, test_ids="test")
    for split in (lambda: split_of("text", fractions=fractions), lambda: apart.split(fractions=fractions)):
        with pytest.raises(InputError, match="three shares that sum to 1"):
            split()
    with pytest.raises(InputError, match="leave a share to train or validation"):
        apart.split(fractions=(0.0, 0.0, 1.0))


def test_the_test_rows_of_a_file_are_the_test_part():
    """200 texts, every fifth a test row; the text parts the others at 70 : 15, which is 14/17 to train."""
    texts = {f"{'test' if q % 5 == 0 else 'train'}-{q}": f"text {q}" for q in range(200)}
    grid = text_grid(texts, test_ids="test*")
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
    grid = text_grid(texts, test_ids="test*")
    assert (len(grid), grid.repeated) == (5, 2)
    train, validation, test = grid.split()
    assert test.query_ids == ["test-1"]
    assert sorted([train.query_ids, validation.query_ids]) == [[], ["train-3", "train-4"]]


@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=4), st.text("xy", min_size=1, max_size=3), min_size=1),
    st.floats(0.01, 0.99),
    st.floats(0, 1),
)
def test_no_text_is_on_two_sides_and_every_query_is_on_one_or_counted(texts, share, scale):
    """The test part is the file's, and the shares of the others keep their proportion."""
    assume(share * scale > 0)
    grid = text_grid({"a": "x", **texts}, test_ids="a*")
    parts = grid.split(fractions=(share * scale, (1 - share) * scale, 1 - scale))
    assert sum(map(len, parts)) + grid.repeated == len(grid)
    assert parts[2].query_ids == [name for name in grid.query_ids if name.startswith("a")]
    sides = [set(part.queries) for part in parts]
    assert not sides[0] & sides[1]
    assert not (sides[0] | sides[1]) & sides[2]


# ---- questions


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
    assert read_questions(path) == [Question(**{**row, "kind": row["kind"] or "auto"}) for row in rows]


@pytest.mark.parametrize(
    ("changes", "column", "named"),
    [
        ({"query": None}, "query", "must"),
        ({"query": ""}, "query", "empty"),
        ({"kind": "essay"}, "kind", "auto, exact, .*'essay'"),
        ({"query_id": "1"}, "query_id", "'1' in row 1"),
    ],
)
def test_a_question_that_breaks_a_rule_is_named(changes, column, named, tmp_path):
    path = tmp_path / "questions.jsonl"
    rows = {"task": "t", "query_id": "1", "query": "a"}, {"task": "t", "query_id": "2", "query": "b", **changes}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(OutcomeError, match=named) as caught:
        read_questions(path)
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), 2, column)


MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": "Hi?"}]}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]


def read_rows(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_questions(path)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"input": "2 + 2?", "reference": 4}, {"query": "2 + 2?", "gold": "4"}),
        ({"query": "2 + 2?", "gold": "4"}, {"query": "2 + 2?", "gold": "4"}),
        ({"input": "a", "reference": {"b": [1, None]}}, {"query": "a", "gold": '{"b": [1, null]}'}),
        ({"input": "a", "reference": True}, {"query": "a", "gold": "true"}),
        ({"input": MESSAGES}, {"query": "Hi?", "messages": tuple(MESSAGES)}),
        ({"input": json.dumps(MESSAGES)}, {"query": "Hi?", "messages": tuple(MESSAGES)}),
        ({"messages": MESSAGES, "tools": TOOLS}, {"query": "Hi?", "messages": tuple(MESSAGES), "tools": tuple(TOOLS)}),
        ({"input": {"messages": MESSAGES, "tools": TOOLS}}, {"messages": tuple(MESSAGES), "tools": tuple(TOOLS)}),
        (
            {"input": "[1, 2] added?", "scorer": "contains"},
            {"query": "[1, 2] added?", "messages": (), "scorer": "contains"},
        ),
        ({"input": "a", "level": 3, "tags": ["x"], "none": None}, {"extras": {"level": 3, "tags": ["x"]}}),
        ({"input": "a", "query_id": 1, "id": 9}, {"query_id": "1", "extras": {"id": "9"}}),
        ({"input": "a", "id": 7}, {"query_id": "7", "task": "questions", "kind": "auto"}),
    ],
)
def test_an_input_alone_is_a_question_and_other_columns_are_kept(row, expected, tmp_path):
    (question,) = read_rows(tmp_path / "q.jsonl", row)
    assert {name: getattr(question, name) for name in expected} == expected


def test_a_question_without_an_id_gets_the_same_whenever_it_is_read(tmp_path):
    """Not from its row, nor from its reference; but from the conversation, where there is one."""
    first, second = read_rows(tmp_path / "q.jsonl", {"input": "a"}, {"input": "b"})
    again = read_rows(tmp_path / "q.jsonl", {"input": "b", "reference": "x"}, {"input": "a", "task": "t"})
    assert [question.query_id for question in again] == [second.query_id, first.query_id]
    (other,) = read_rows(tmp_path / "q.jsonl", {"input": [MESSAGES[0], {"role": "user", "content": "a"}]})
    assert other.query == "a"
    assert other.query_id != first.query_id
    with pytest.raises(OutcomeError, match="asks what row 1 asks"):
        read_rows(tmp_path / "q.jsonl", {"input": "a"}, {"input": "a"})


@pytest.mark.parametrize(
    ("row", "column", "named"),
    [
        ({"reference": 1}, "query", "`input`"),
        ({"input": ""}, "query", "empty"),
        ({"input": "a", "query": "b"}, "input", "another name of `query`"),
        ({"input": "a", "gold": "1", "reference": "2"}, "reference", "another name of `gold`"),
        ({"input": [{"role": "boss", "content": "a"}]}, "messages", "'boss'"),
        ({"input": [{"role": "assistant", "content": "a"}]}, "messages", "message of the user"),
        ({"input": [{"role": "user", "content": 7}]}, "messages", "`content`"),
        ({"messages": "Hi"}, "messages", "JSON list of objects"),
        ({"input": "a", "tools": ["f"]}, "tools", "JSON list of objects"),
        ({"input": "a", "task": ""}, "task", "empty"),
        ({"input": "a", "kind": "essay"}, "kind", "'essay'"),
    ],
)
def test_a_question_that_cannot_be_asked_is_named(row, column, named, tmp_path):
    with pytest.raises(OutcomeError, match=named) as caught:
        read_rows(tmp_path / "q.jsonl", {"input": "fine"}, row)
    assert (caught.value.row, caught.value.column) == (2, column)


def test_a_file_without_questions_is_refused(tmp_path):
    with pytest.raises(OutcomeError, match="at least one row"):
        read_rows(tmp_path / "q.jsonl")


# ---- options

OPTIONS = ("option_probs", "option_answers", "option_ids", "option_scores")


def said(query_id, model, answer, *probs, task="t", gold="A", **more):
    more = {"reward": float(answer == gold), "gold": gold, **more}
    return outcome(query_id, model, answer, task=task, option_probs=probs or None, **more)


TWO_QUERIES = [
    said("q1", "a", "A", 0.5, 0.3, 0.2, gold="C"),
    said("q1", "b", "B", 0.1, 0.8, 0.1, gold="C"),
    said("q2", "a", "A", 0.6, 0.2, 0.2),
    said("q2", "b", "C", 0.2, 0.3, 0.5),
]


def test_an_option_that_no_member_ranked_first_has_a_name_an_id_and_a_score():
    """In q1 nobody says the right C, in q2 nobody says B; both are named by the other query's rows.

    With M = 2 their ids are 2 + 2 and 2 + 1; what a member said has the id of the first who did.
    """
    grid = grid_of(*TWO_QUERIES)
    assert grid.option_probs.tolist() == [[[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]], [[0.6, 0.2, 0.2], [0.2, 0.3, 0.5]]]
    assert grid.option_answers.tolist() == [["A", "B", "C"], ["A", "B", "C"]]
    assert grid.option_ids.tolist() == [[0, 1, 4], [0, 3, 1]]
    assert grid.option_scores.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    assert grid.option_ids.dtype == np.int32
    assert grid.option_scores.dtype == grid.option_probs.dtype == np.float64
    apart = grid_of(*TWO_QUERIES, test_ids="q2")
    for part, row in ((grid.take([1]), 1), (apart.split()[2], 1), (apart.split(fractions=(1.0, 0.0, 0.0))[0], 0)):
        for name in OPTIONS:
            assert getattr(part, name).tolist() == getattr(grid, name)[[row]].tolist()


def test_options_that_a_query_does_not_have_are_padding():
    """Task s has yes and no only; its third column is no option, though the grid's O is 3."""
    rows = [said(q, m, "no", 0.1, 0.2, task="s", gold="yes") for q in ("q1", "q2") for m in "ab"]
    rows += [said("q3", m, "yes", 2.0, -1.0, task="s", gold="yes") for m in "ab"]
    grid = grid_of(*TWO_QUERIES, *rows)
    np.testing.assert_array_equal(grid.option_probs[2:, 0], [[0.1, 0.2, nan], [0.1, 0.2, nan], [2.0, -1.0, nan]])
    assert grid.option_answers[2].tolist() == ["yes", "no", None]
    assert grid.option_ids[2].tolist() == [2, 0, -1]
    np.testing.assert_array_equal(grid.option_scores[2], [1.0, 0.0, nan])
    assert grid_of(*TWO_QUERIES, *rows, task="s").option_probs.shape == (3, 2, 2)


def test_a_pool_without_option_scores_has_no_option_arrays():
    """Whether the column is empty, holds empty lists, or belongs to a member outside the pool."""
    rows = [said("q1", "a", "A"), outcome("q1", "b", "A", gold="A", option_probs=())]
    for grid in (grid_of(rows[0], members=["a"]), grid_of(*rows), grid_of(*rows, said("q1", "c", "A", 0.9, 0.1))):
        for part in (grid, grid.take([0]), grid.split()[0]):
            assert [getattr(part, name) for name in OPTIONS] == [None] * 4


def test_members_and_cells_without_option_scores_are_nan_beside_those_with_them():
    """The answer of a member without shares the option's id by being the same text; a missing cell has none."""
    rows = [*TWO_QUERIES, said("q1", "w", "C", gold="C"), said("q2", "w", "B")]
    grid = grid_of(*rows, members=("w", "a"))
    np.testing.assert_array_equal(grid.option_probs[:, 0], np.full((2, 3), nan))
    assert grid.option_ids.tolist() == [[1, 3, 0], [1, 0, 4]]
    gap = grid_of(*TWO_QUERIES[:3], missing="fail")
    np.testing.assert_array_equal(gap.option_probs[1, 1], [nan, nan, nan])


@pytest.mark.parametrize(
    "more",
    [
        pytest.param([said("q3", "a", "B", 0.9, 0.1, 0.0)], id="one option with two answers"),
        pytest.param([said("q3", "a", "A", 0.0, 0.1, 0.2, 0.9)], id="one answer for two options"),
        pytest.param([said("q3", "c", "X", 0.9, 0.1, 0.0)], id="by a member outside the pool"),
    ],
)
def test_a_task_whose_rows_disagree_has_no_names(more):
    """What cannot be named cannot be chosen; the scores of the options are still there."""
    grid = grid_of(*TWO_QUERIES, *more)
    assert grid.option_probs.shape == (2, 2, 3)
    assert grid.option_answers.tolist() == [[None] * 3] * 2
    assert grid.option_ids.tolist() == [[-1] * 3] * 2
    assert np.isnan(grid.option_scores).all()


PARIS = [said("q1", m, "Paris", 0.9, 0.1, gold="Paris") for m in "ab"]
ROME = [said("q2", m, "Rome", 0.1, 0.9, gold="Rome") for m in "ab"]


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        pytest.param([*TWO_QUERIES, said("q3", "a", "B", 0.5, 0.5, 0.0)], ["A", "B", "C"], id="two options are best"),
        pytest.param([*TWO_QUERIES, said("q3", "a", None, 0.9, 0.1, 0.0)], ["A", "B", "C"], id="no answer"),
        pytest.param([*TWO_QUERIES, said("q3", "a", "B", 0.9, 0.1, 0.0, task="s")], ["A", "B", "C"], id="another task"),
        pytest.param([*PARIS, *ROME], [None, None], id="one query proves nothing"),
        pytest.param([*PARIS, *ROME, said("q3", "a", "Paris", 0.7, 0.3, gold="Rome")], ["Paris", "Rome"], id="two do"),
        pytest.param([said(q, m, "A", 0.5, 0.5) for q in ("q1", "q2") for m in "ab"], [None, None], id="all are equal"),
    ],
)
def test_a_name_needs_two_queries_and_a_row_that_ranks_no_option_first_speaks_for_none(rows, names):
    assert grid_of(*rows).option_answers.tolist() == [names] * 2


def test_an_option_that_no_row_ranks_first_cannot_be_chosen_and_a_graded_answer_keeps_its_grade():
    grid = grid_of(*TWO_QUERIES[:3], members=["a"])
    assert grid.option_answers.tolist() == [["A", "B", None]] * 2
    assert grid.option_ids.tolist() == [[0, 2, -1]] * 2
    np.testing.assert_array_equal(grid.option_scores, [[0.0, 0.0, nan], [1.0, 0.0, nan]])
    graded = grid_of(*TWO_QUERIES[:3], said("q2", "b", "C", 0.2, 0.3, 0.5, reward=0.25))
    assert graded.option_scores[1].tolist() == [1.0, 0.0, 0.25]


def test_no_option_can_be_chosen_where_the_right_answer_is_unknown():
    """Not even one that a member gave, whose score is known: that would tell what members answered."""
    rows = [said("q3", m, "A", 0.9, 0.1, 0.0, gold=None, reward=1.0) for m in "ab"]
    grid = grid_of(*TWO_QUERIES, *rows)
    assert grid.option_answers[2].tolist() == ["A", "B", "C"]
    assert grid.option_ids[2].tolist() == [-1, -1, -1]
    assert np.isnan(grid.option_scores[2]).all()


scores = st.lists(st.integers(0, 5), min_size=3, max_size=3)


@given(st.lists(st.tuples(scores, scores, scores, st.sampled_from("ABC")), min_size=1, max_size=8))
def test_choosing_an_option_is_choosing_the_answer_of_whoever_ranked_it_first(queries):
    """Three members on three lettered options: ids and scores are the members', and no pool changes a name."""
    rows = [
        said(str(q), m, "ABC"[p.index(max(p))], *map(float, p), gold=gold)
        for q, (*probs, gold) in enumerate(queries)
        for m, p in zip("abc", probs, strict=True)
    ]
    table = OutcomeTable.from_outcomes(rows)
    grid = table.grid(["a", "b", "c"])
    assert grid.option_answers.tolist() == table.grid(["b"]).option_answers.tolist()
    for names in grid.option_answers:
        assert all(name in (None, letter) for name, letter in zip(names, "ABC", strict=True))
    np.testing.assert_array_equal(grid.option_ids >= 0, ~np.isnan(grid.option_scores))
    queries_of, members_of, options = np.nonzero(grid.answers[:, :, None] == grid.option_answers[:, None, :])
    np.testing.assert_array_equal(grid.option_ids[queries_of, options], grid.answer_ids[queries_of, members_of])
    np.testing.assert_array_equal(grid.option_scores[queries_of, options], grid.scores[queries_of, members_of])


@pytest.mark.skipif(not BBH.is_file(), reason="RLFOCAL_DATA names no folder that holds bbh.parquet")
def test_the_options_of_a_real_file_are_worth_what_its_members_were_scored():
    """Letters, numbers and words; only the option F of two tasks, which no member ever ranked first, has no name."""
    table = OutcomeTable.read(BBH)
    grid = table.grid(table.members)
    exists = ~np.isnan(grid.option_probs).all(axis=1)
    unnamed = exists & (grid.option_answers == np.array(None, dtype=object))
    assert {(grid.tasks[query], int(option)) for query, option in zip(*np.nonzero(unnamed), strict=True)} == {
        ("bbh/movie_recommendation", 5),
        ("bbh/ruin_names", 5),
    }
    ranked = np.nanargmax(grid.option_probs, axis=2)
    np.testing.assert_array_equal(np.take_along_axis(grid.option_scores, ranked, axis=1), grid.scores)
    is_right = grid.option_answers == np.array(grid.golds, dtype=object)[:, None]
    np.testing.assert_array_equal(np.take_along_axis(is_right, ranked, axis=1), grid.scores)
    assert is_right.sum(axis=1).tolist() == [1] * len(grid)
