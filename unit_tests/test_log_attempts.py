"""Questions, claims, attempts and scores: nothing is asked twice, an answer counts before a failure, and the latest score before all."""

import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from langchain_rlfocal.answers import label_answers
from langchain_rlfocal.errors import InputError, OutcomeLogError
from langchain_rlfocal.log import OutcomeLog, ScoreRecord, tables
from langchain_rlfocal.log.tables import outcomes_of, table_of
from langchain_rlfocal.log.upkeep import verify
from support_logs import Clock, attempt, cells, question
from support_served import served_answer


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def log(path, clock):
    opened = OutcomeLog(path, clock=clock)
    yield opened
    opened.close()


# ---- questions


def test_questions_come_back_whole_in_their_order(log):
    asked = [
        question("b", gold=None, kind="number", scorer="contains"),
        question("a", messages=({"role": "user", "content": "What is a + 0?"},), tools=({"type": "function"},)),
        question("c", extras={"source": "a book", "page": 7, "tags": ["x"]}),
    ]
    log.add_questions(asked)
    assert [*log.questions().values()] == asked


def test_a_question_that_differs_is_a_new_version_and_one_that_does_not_is_none(log, path):
    log.add_questions([question("1"), question("2")])
    log.add_questions([question("1"), question("2", gold="two")])
    assert [(one.query_id, one.gold) for one in log.questions().values()] == [("1", "1"), ("2", "two")]
    assert verify(log).records["questions"] == 3


def test_a_kind_that_is_a_function_is_kept_by_its_name(log):
    log.add_questions([question(kind=str.__eq__)])
    assert log.questions()["quiz", "1"].kind.endswith("__eq__")


# ---- claims


def test_what_is_claimed_is_nobody_elses_until_it_is_answered_given_up_or_forgotten(log, path, clock):
    other = OutcomeLog(path, clock=clock)
    assert log.claim(cells("1", "2"), run="first", lease_s=60) == cells("1", "2")
    assert other.claim(cells("1", "2", "3"), run="second", lease_s=60) == cells("3")
    log.add_attempts([attempt("1", "ann"), attempt("1", "bob", failure="timeout: It took too long.")], run="first")
    assert other.claim(cells("1", "2"), run="second") == [("quiz", "1", "bob", 0)], "what failed may be asked again"
    log.release("first", cells("2")[:1])
    assert other.claim(cells("2"), run="second") == cells("2")[:1]
    clock.now += 59
    log.renew("first", lease_s=60)
    clock.now += 59
    assert other.claim(cells("2"), run="second") == cells("2")[:1], (
        "the first has renewed its lease, the second had its own"
    )
    clock.now += 2
    assert other.claim(cells("2"), run="second") == cells("2"), "the first is forgotten"
    assert log.claim(cells("2"), run="first") == []
    assert other.runs() == ["first", "second"]
    other.release("second")
    assert log.claim(cells("1", "2"), run="third") == cells("1", "2")[1:]
    other.close()


def test_runs_that_claim_at_once_share_the_cells_without_a_rest(path, clock):
    """Eight threads, each with a log of its own, claim all of 40 cells at the same time."""
    logs = [OutcomeLog(path, clock=clock) for _ in range(8)]
    start, wanted, claimed = threading.Barrier(8), cells(*map(str, range(20))), {}

    def claim(number):
        start.wait()
        claimed[number] = [logs[number].claim(wanted[i : i + 10], run=f"run {number}") for i in range(0, 40, 10)]

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    assert sorted(cell for parts in claimed.values() for part in parts for cell in part) == sorted(wanted)


# ---- attempts


def test_an_answer_counts_before_a_failure_and_the_latest_before_earlier_ones(log):
    log.add_attempts([attempt("1", "ann", "7"), attempt("1", "bob", failure="timeout: slow")], run="a")
    log.add_attempts([attempt("1", "ann", failure="down: gone"), attempt("1", "bob", failure="down: gone")], run="b")
    log.add_attempts([attempt("1", "ann", "1", sample=1)], run="b")
    known = [(one.outcome.model, one.sample, one.outcome.response, one.failure) for one in log.attempts()]
    assert known == [
        ("ann", 0, "The answer is 7.", None),
        ("ann", 1, "The answer is 1.", None),
        ("bob", 0, None, "down: gone"),
    ]
    assert log.answered() == {("quiz", "1", "ann", 0), ("quiz", "1", "ann", 1)}
    log.add_attempts([attempt("1", "ann", "1")], run="c")
    assert next(log.attempts()).outcome.reward == 1.0


def test_which_of_some_cells_are_answered_is_told_without_the_others(log):
    """Bob's failure is no answer, Ann's other sample is another cell, and nobody asked the third question."""
    log.add_attempts([attempt("1", "ann"), attempt("1", "bob", failure="down: gone"), attempt("2", "ann")], run="a")
    asked = [*cells("1", "3"), ("quiz", "1", "ann", 1)]
    assert log.answered(asked) == {("quiz", "1", "ann", 0)}
    assert log.answered([]) == set()
    assert len(log.answered()) == 2


def test_an_attempt_tells_when_it_or_its_latest_score_was_recorded(log, clock):
    log.add_attempts([attempt("1", "ann"), attempt("1", "bob")], run="a")
    first = clock.now
    clock.now += 60
    log.add_scores([ScoreRecord(cell=("quiz", "1", "bob", 0), reward=0.5, scorer="judge")], run="b")
    assert [(one.outcome.model, one.at) for one in log.attempts()] == [("ann", first), ("bob", first + 60)]
    assert attempt("1", "ann") == replace(attempt("1", "ann"), at=first), "when is no part of what"


def test_everything_of_an_attempt_comes_back(log):
    whole = attempt(
        prompt_tokens=5,
        completion_tokens=7,
        cost_usd=0.001,
        latency_s=0.25,
        logprob=-0.5,
        propensity=0.5,
        option_probs=(0.25, 0.75),
        extras={"rank": 3, "why": ["é", None]},
    )
    whole = replace(whole, tool_calls=({"name": "refund", "args": {"usd": 20}},), scorer="judge", scoring_usd=0.002)
    assert log.add_attempts([whole], run="a") == log.last_number == 1
    assert [*log.attempts()] == [whole]


def test_what_no_database_holds_becomes_what_each_does_and_verifies(log):
    """Half a surrogate pair, U+0000, NumPy's numbers, infinities, minus zero."""
    odd = attempt(
        "a\0",
        "b\ud800",
        response="x\0y\udfff",
        reward=np.float32(0.5),
        cost_usd=float("inf"),
        logprob=float("nan"),
        latency_s=-0.0,
        prompt_tokens=np.int64(3),
        extras={"nan": float("nan"), "most": {"inf": float("inf")}, "day": np.datetime64("2026-01-01")},
    )
    log.add_attempts([odd, attempt("1", "nano", cost_usd=0)], run="a")
    first, second = (one.outcome for one in log.attempts())
    assert (first.query_id, first.model, first.response) == ("a\ufffd", "b\ufffd", "x\ufffdy\ufffd")
    assert (first.reward, first.cost_usd, first.logprob, first.prompt_tokens) == (0.5, None, None, 3)
    assert repr((first.latency_s, second.cost_usd)) == "(0.0, 0.0)"
    assert first.extras["nan"] is None
    assert first.extras["most"] == {"inf": "inf"}, "as a table's file holds it"
    assert log.answered() == {("quiz", "a\ufffd", "b\ufffd", 0), ("quiz", "1", "nano", 0)}
    log.add_attempts([odd], run="b")
    assert verify(log).problems == ()
    assert verify(log).records["questions"] == 2, "it is the same question again"


def test_an_attempt_belongs_to_the_text_that_was_asked(log, path):
    other = OutcomeLog(path)
    log.add_questions([question("1", scorer="contains")])
    log.add_attempts([attempt("1", "ann"), attempt("1", "bob", query="What is one?")], run="a")
    other.add_questions([question("1", query="What is uno?")])
    log.add_attempts([attempt("1", "cleo")], run="a")
    assert {one.outcome.model: one.outcome.query for one in log.attempts()} == {
        "ann": "What is 1 + 0?",
        "bob": "What is one?",
        "cleo": "What is 1 + 0?",
    }
    assert len(log.questions()) == 1
    other.close()


def test_attempts_of_many_questions_come_in_the_order_of_the_questions(log):
    """More than are read at once; a corrected question keeps its place."""
    names = [str(number) for number in range(450, 0, -1)]
    log.add_questions([question(name) for name in names])
    log.add_questions([question("450", gold="x")])
    log.add_attempts([attempt(name, member) for name in sorted(names) for member in ("bob", "ann")], run="a")
    assert [one.cell for one in log.attempts()] == cells(*names)


def test_what_cannot_be_written_is_not_half_written(log):
    log.add_attempts([attempt("1")], run="a")
    with log._database.writing(durable=True) as records:
        pages = records.db.exec_driver_sql("PRAGMA page_count").scalar_one()
        records.db.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    many = [attempt(str(number), response="x" * 10_000) for number in range(20)]
    with pytest.raises(OutcomeLogError, match=r"log.db cannot grow, since its disk is full .* Free some space"):
        log.add_attempts(many, run="a")
    assert log.answered() == {("quiz", "1", "ann", 0)}
    with log._database.writing(durable=True) as records:
        records.db.exec_driver_sql("PRAGMA max_page_count = 100000")
    log.add_attempts(many, run="a")
    assert (len(log.answered()), verify(log).problems) == (20, ())


FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from langchain_rlfocal.errors import OutcomeLogError
from langchain_rlfocal.log import OutcomeLog
from support_logs import attempt
log = OutcomeLog(sys.argv[1])
log.add_attempts([attempt("1")], run="a")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
many = [attempt(str(number), response="x" * 10_000) for number in range(200)]
try:
    log.add_attempts(many, run="a")
except OutcomeLogError as error:
    print(error)
print(len(log.answered()))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.add_attempts(many, run="a")
print(len(log.answered()))
"""


def test_a_file_that_may_not_grow_keeps_what_it_has_and_takes_the_rest_once_it_may(path):
    """The operating system refuses to write on, as on a full disk, in a process of its own."""
    pytest.importorskip("resource")
    support = __file__.replace("test_log_attempts.py", "support")
    done = subprocess.run([sys.executable, "-P", "-c", FULL, path, support], capture_output=True, text=True, check=True)
    said, before, after = done.stdout.splitlines()
    assert "log.db cannot" in said
    assert (before, after) == ("1", "200")
    with OutcomeLog(path).looking() as records:
        assert records.last("attempts") == 201


def test_a_file_that_may_not_be_written_to_is_named_and_stays_as_it_is(log, path):
    """SQLite itself refuses: rights of files stop no administrator."""
    log.add_attempts([attempt("1")], run="a")
    with log._database.writing(durable=True) as records:
        db = records.db
    db.exec_driver_sql("PRAGMA query_only = ON")
    with pytest.raises(OutcomeLogError, match=r"log.db may not be written to .* Give this process the right to"):
        log.add_attempts([attempt("2")], run="a")
    assert [one.cell for one in log.attempts()] == cells("1")[:1]
    db.exec_driver_sql("PRAGMA query_only = OFF")
    log.add_attempts([attempt("2")], run="a")
    assert verify(log).problems == ()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="an administrator may write to any file")
def test_a_file_without_the_right_to_write_is_named(log, path):
    log.add_attempts([attempt("1")], run="a")
    log.close()
    path.chmod(0o400)
    opened = OutcomeLog(path)
    with pytest.raises(OutcomeLogError, match=r"log.db may not be written to .* Give this process the right to"):
        opened.add_attempts([attempt("2")], run="a")
    opened.close()


# ---- scores


def test_the_latest_score_counts_with_its_gold_and_only_for_the_answer_that_it_is_of(log):
    log.add_attempts([attempt("1", "ann", "7"), attempt("1", "bob", "7")], run="a")
    cell = ("quiz", "1", "ann", 0)
    log.add_scores([ScoreRecord(cell=cell, reward=1, scorer="auto", gold="7")], run="b")
    scores = [ScoreRecord(cell=cell, reward=None, scorer="judge", reason="It is down.", usd=0.01)]
    log.add_scores(scores, run="c")
    ann, bob = log.attempts()
    assert (ann.outcome.reward, ann.scorer, ann.scoring_usd, ann.outcome.gold) == (None, "judge", 0.01, "1")
    assert (bob.outcome.reward, bob.scorer, bob.outcome.gold) == (0.0, "auto", "1")
    assert log.last_number == 4
    log.add_attempts([attempt("1", "ann", "1")], run="d")
    assert next(log.attempts()).outcome.reward == 1.0, "what is asked anew has its own score"


def test_a_score_of_no_answer_is_refused_and_none_is_written(log):
    log.add_attempts([attempt("1", "ann"), attempt("1", "bob", failure="timeout: slow")], run="a")
    scores = [ScoreRecord(cell=cell, reward=1.0, scorer="auto") for cell in cells("1")]
    with pytest.raises(OutcomeLogError, match=r"1 of none, first of bob to quiz/1, sample 0. Record the attempt first"):
        log.add_scores(scores, run="b")
    assert log.last_number == 2


# ---- as a table


def test_labels_are_those_of_all_answers_to_a_question_together(log):
    """42 and 42.0 are the same number, 41 is not; sample 2 is a query of its own; what was served comes too."""
    said = {"ann": "42", "bob": "42.0", "cleo": "41"}
    log.add_questions([question("42", extras={"source": "a book"})])
    log.add_attempts([attempt("42", member, text) for member, text in said.items()], run="a")
    log.add_attempts([attempt("42", "ann", "42.00", sample=1), attempt("42", "dora", failure="down: gone")], run="a")
    log.record(served_answer(id="s1", answers={"ann": "17"}))
    table = {(one.query_id, one.model): one for one in table_of(log)}
    labels = {key: one.answer for key, one in table.items()}
    assert labels["42", "ann"] == labels["42", "bob"] == labels["42#2", "ann"] != labels["42", "cleo"]
    assert (table["42", "dora"].response, labels["42", "dora"], table["42", "dora"].reward) == (None, None, 0.0)
    assert table["42", "ann"].extras == {"source": "a book"}
    assert labels["s1", "ann"] == "17"
    assert len(table) == 6


def test_a_label_that_came_along_is_kept_and_shared(log):
    log.add_attempts([attempt("1", "ann", answer="one"), attempt("1", "bob"), attempt("1", "cleo", "2")], run="a")
    assert [one.answer for one in table_of(log)] == ["one", "one", "2"]


@pytest.mark.parametrize("labels", [("x", "x", "y"), ("x", None, "y"), ("", "x", None), (None, None, None)])
def test_labels_are_the_same_whether_or_not_the_answers_had_to_be_read(labels, monkeypatch):
    """Where each answer came with a label, none is read; each case is held against reading them all."""
    failed = attempt("1", "dora", failure="down: gone")
    said = zip(("ann", "bob", "cleo"), ("1", "1.0", "2"), labels, strict=True)
    attempts = [*(attempt("1", member, text, answer=label) for member, text, label in said), failed]
    asked = {("quiz", "1"): question("1", kind="number")}
    reads = []
    monkeypatch.setattr(tables, "label_answers", lambda *of, **named: reads.append(of) or label_answers(*of, **named))
    found = [one.answer for one in outcomes_of(attempts, asked)]
    assert len(reads) == (0 if all(labels) else 1)
    made = label_answers([one.outcome.response for one in attempts], "number", query=attempts[0].outcome.query)
    given = {by: label for by, label in zip(made, labels, strict=False) if label is not None}
    assert found == [*(label or given.get(by, by) for by, label in zip(made, labels, strict=False)), None]


def test_the_callers_questions_decide_what_is_the_same_and_what_is_right_where_nothing_was_scored_yet(log):
    """A reward stays beside the gold answer that it was made by; Cleo has none, and Dora's was made by none that is known."""
    log.add_attempts(
        [
            attempt("1", "ann", "1"),
            attempt("1", "bob", failure="timeout: slow"),
            attempt("1", "cleo", "2", reward=None),
            attempt("1", "dora", "3", gold=None),
        ],
        run="a",
    )
    same = question(kind=lambda a, b: True, gold="I")
    assert {one.answer for one in outcomes_of(log.attempts(), {("quiz", "1"): same})} == {"The answer is 1.", None}
    assert [one.gold for one in table_of(log, questions={("quiz", "1"): same})] == ["1", "I", "I", "I"]
    assert len({one.answer for one in table_of(log)}) == 4


def test_a_kind_that_this_process_does_not_know_is_named(log):
    log.add_questions([question(kind=lambda a, b: True)])
    log.add_attempts([attempt()], run="a")
    with pytest.raises(InputError, match=r"`kind` must be one of .* got '.*lambda>'. .* register it"):
        table_of(log)
