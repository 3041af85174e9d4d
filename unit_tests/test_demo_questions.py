"""The demo's questions: many, right, unique, balanced, and the same file from the same seed."""

import itertools
import re
from collections import Counter

import pytest

from langchain_rlfocal.answers import score_answer
from langchain_rlfocal.demo import QUESTIONS_PATH
from langchain_rlfocal.demo.pool import read_styles
from langchain_rlfocal.demo.questions import make_questions, some_of, write_questions
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import read_questions

QUESTIONS = make_questions()


def of_task(name):
    return [question for question in QUESTIONS if question.task == f"local/{name}"]


def test_the_shipped_file_is_what_the_seed_makes_byte_for_byte(tmp_path):
    written = tmp_path / "questions.jsonl"
    assert write_questions(written) == len(QUESTIONS) >= 800
    assert written.read_bytes() == QUESTIONS_PATH.read_bytes()
    assert read_questions(QUESTIONS_PATH) == QUESTIONS


def test_some_are_taken_evenly_over_the_tasks_that_are_named():
    """Of 28 questions of colors and 88 of capitals 62 are 28 and 34: the short task ends, the other goes on."""
    for count, expected in ((7, {"capitals": 4, "colors": 3}), (62, {"capitals": 34, "colors": 28})):
        some = some_of(QUESTIONS, tasks=["capitals", "local/colors"], count=count)
        assert Counter(question.task.removeprefix("local/") for question in some) == expected
        assert some == [question for question in QUESTIONS if question in some]
    assert some_of(QUESTIONS, tasks=None, count=None) == QUESTIONS


@pytest.mark.parametrize(
    ("tasks", "count", "text"),
    [
        (["capital"], None, "must be one of yes_no, capitals, .*, got capital"),
        (["colors"], 29, "at most 28, .* got 29"),
    ],
)
def test_a_task_or_a_number_that_there_is_not_is_refused(tasks, count, text):
    with pytest.raises(InputError, match=text):
        some_of(QUESTIONS, tasks=tasks, count=count)


def test_another_seed_asks_other_questions_but_as_many_and_none_twice():
    """Splitting goes by the text: a repeated one would weigh double."""
    other = make_questions(seed=1)
    assert other != QUESTIONS
    assert len(other) == len(QUESTIONS)
    for field in ("query", "query_id"):
        assert max(Counter(getattr(question, field) for question in QUESTIONS).values()) == 1


def test_every_right_answer_scores_one_by_the_rules_of_answers():
    """An answer such as "a", read as an article, would score nothing."""
    scores = {q.query_id: score_answer(q.gold, q.gold, q.kind, query=q.query) for q in QUESTIONS}
    assert [name for name, score in scores.items() if score != 1] == []


@pytest.mark.parametrize("task", ["sentiment", "continents", "choice"])
def test_no_other_option_scores(task):
    """Every option that a question lists, but the right one, is wrong by the rules of answers."""
    listed = r"\n[ABC]\) (.*)" if task == "choice" else r"(\w+)(?=, | or |\?)"
    for question in of_task(task):
        options = re.findall(listed, question.query.split('"')[0])
        scores = [score_answer(option, question.gold, question.kind, query=question.query) for option in options]
        assert sorted(scores) == [0] * (len(options) - 1) + [1], question


def test_sums_differences_and_sequences_are_right():
    """Recomputed from the text: `What is a ± b?`, and numbers of one step."""
    for question in of_task("arithmetic"):
        left, sign, right = re.search(r"(\d) ([+-]) (\d)\?", question.query).groups()
        assert int(question.gold) == int(left) + (int(right) if sign == "+" else -int(right))
    for question in of_task("sequence"):
        if question.kind == "number":
            numbers = [*map(int, re.findall(r"-?\d+", question.query)), int(question.gold)]
            assert len({after - before for before, after in itertools.pairwise(numbers)}) == 1


@pytest.mark.parametrize(
    ("task", "answers"),
    [("yes_no", ("yes", "no")), ("sentiment", ("positive", "negative")), ("choice", ("A", "B", "C"))],
)
def test_no_answer_is_a_better_guess_than_another(task, answers):
    """Always saying the same helps nobody, nor does the place in the file: half of each half says yes."""
    golds = [question.gold for question in of_task(task)]
    counts = Counter(golds)
    assert set(counts) == set(answers)
    assert max(counts.values()) == min(counts.values())
    first_half = Counter(golds[: len(golds) // 2])
    assert all(0.6 < first_half[answer] * 2 / counts[answer] < 1.4 for answer in answers)


def test_what_is_compared_comes_first_and_last_about_as_often():
    compared = of_task("comparison")
    first = sum(f", {question.gold} or" in question.query for question in compared)
    assert 0.4 < first / len(compared) < 0.6


def test_no_solved_question_of_a_style_is_among_the_questions():
    """Else a member would be asked what its own prompt answers."""
    asked = {question.query for question in QUESTIONS}
    assert not asked & {question for solved in read_styles().values() for question, _ in solved}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    written = tmp_path / "questions.jsonl"
    written.write_text("old")

    def fail(*_args):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_questions(written)
    assert written.read_text() == "old"
    assert list(tmp_path.iterdir()) == [written]
