"""The outcome log: what goes in comes out, in one order for everybody; what cannot be kept is said, and no answer waits for it."""

import copy
import logging
import pickle
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import FeedbackError, OutcomeLogError
from langchain_rlfocal.log import Feedback, OutcomeLog, Undo, database
from langchain_rlfocal.log import outcome_log as log_module
from langchain_rlfocal.outcomes import OutcomeTable
from langchain_rlfocal.records import Answer, Candidate, Failure, Query
from support_logs import change
from support_served import served_answer


@pytest.fixture
def path(tmp_path):
    return tmp_path / "outcomes.db"


@pytest.fixture
def log(path):
    opened = OutcomeLog(path)
    yield opened
    opened.close()


def recorded(log, **fields):
    """Record an answer and return it."""
    served = served_answer(**fields)
    log.record(served)
    return served


# ---- what goes in comes out


def test_everything_that_is_served_comes_back_but_for_messages_and_errors(log):
    failed = Failure("dora", 2, "timeout", "It took too long.", 3.0, is_retryable=True, error=TimeoutError())
    whole = Candidate(
        member="ann",
        round=1,
        text="It is B: 42 \u00b0 \U0001f600",
        answer="B",
        latency_s=0.25,
        prompt_tokens=5,
        completion_tokens=7,
        cost_usd=0.001,
        logprob=-0.5,
        option_probs={"A": 0.25, "B": 0.75},
        retries=(failed,),
        flaw="truncated",
        answer_kind="option",
        message=object(),
    )
    served = served_answer(
        task="quiz/a",
        candidates=(whole, Candidate("bob", 2, "?", None, 1.0)),
        answer=Answer("ann", "B", {"B": 0.9, "": 0.0}, {"B": ("ann",), "": ("bob",)}),
        explore=0.1,
        explored=True,
        propensity={"ann": 0.95, "bob": 0.05},
        pinned=True,
    )
    served = replace(served, failures=(replace(failed, retries=(failed,)),))
    log.record(served)
    assert log.served(served.id) == served
    assert log.dropped == 0


texts = st.text(st.characters(exclude_categories=()))  # half surrogate pairs too


@settings(max_examples=50)
@given(said=st.tuples(texts, texts, texts | st.none()), score=st.floats(0, 1), confidence=st.floats(0, 1))
def test_whatever_is_said_can_be_written_and_read(tmp_path_factory, said, score, confidence):
    """Half a surrogate pair has no form in UTF-8: it becomes a replacement character, and the rest stays."""
    log = OutcomeLog.at(tmp_path_factory.getbasetemp() / "whatever.db")
    query, text, answer = said
    served = served_answer(
        query=query,
        candidates=(Candidate("ann", 1, text, answer, 0.1),),
        answer=Answer("ann", answer, {answer or "": np.float32(confidence)}, {answer or "": ("ann",)}),
    )
    log.record(served)
    seq = log.add_feedback(Feedback(answer_id=served.id, score=score))
    [(at, (known, feedback))] = log.events_since(seq - 1)
    assert (at, feedback.score) == (seq, score)
    assert known.query.text == query.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert log.dropped == 0


def test_an_answer_that_json_cannot_hold_is_dropped_and_the_others_stay(log, caplog):
    good = [recorded(log), recorded(log)]
    bad = served_answer(answer=Answer("ann", "42", {"42": float("nan")}, {"42": ("ann",)}))
    log.record(bad)
    good.append(recorded(log, candidates=(Candidate("ann", 1, "42", "42", 0.1, logprob=float("-inf")),)))
    with caplog.at_level(logging.WARNING):
        log.flush()
    assert log.dropped == 1
    assert "not recorded" in caplog.text
    assert [log.served(one.id).id for one in good] == [one.id for one in good]


# ---- feedback


def test_feedback_of_two_users_of_a_file_has_one_order(path, log):
    other = OutcomeLog(path)
    served = [recorded(log), recorded(other), recorded(log)]
    other.flush()
    seqs = [
        log.add_feedback(Feedback(answer_id=served[2].id, score=1)),
        other.add_feedback(Feedback(answer_id=served[0].id, score=0.5, per_member={"cleo": 0})),
        log.add_feedback(Feedback(answer_id=served[1].id, score=0)),
    ]
    assert seqs == [1, 2, 3] == [one for one, _ in log.events_since(0)]
    assert log.events_since(0) == other.events_since(0)
    assert [(one.id, said.score) for _, (one, said) in other.events_since(1, limit=1)] == [(served[0].id, 0.5)]
    assert log.last_seq == other.last_seq == 3
    assert log.events_since(3) == []
    other.close()


def test_feedback_waits_for_an_answer_that_another_process_is_still_writing(path, log, monkeypatch):
    """The other's answer is written while the first waits."""
    other = OutcomeLog(path)
    served = served_answer()
    other._queue.append(served)
    monkeypatch.setattr(log_module, "sleep", lambda _: other.flush())
    assert log.add_feedback(Feedback(answer_id=served.id, score=1)) == 1
    other.close()


@pytest.fixture
def no_waiting(monkeypatch):
    monkeypatch.setattr(log_module, "WAIT_S", 0.0)


@pytest.mark.usefixtures("no_waiting")
def test_feedback_that_breaks_a_rule_is_refused_with_the_way_out(log):
    served = recorded(log)
    with pytest.raises(FeedbackError, match=r"unknown id 'none'.*answer_id"):
        log.add_feedback(Feedback(answer_id="none", score=1))
    with pytest.raises(FeedbackError, match=r"asked \(ann, bob, cleo\), got 'dora'. Leave out"):
        log.add_feedback(Feedback(answer_id=served.id, score=1, per_member={"dora": 1}))
    log.add_feedback(Feedback(answer_id=served.id, score=1))
    with pytest.raises(FeedbackError, match=r"once, .* Ask again"):
        log.add_feedback(Feedback(answer_id=served.id, score=1))
    assert log.last_seq == 1


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf"), "1", None, 1j])
def test_a_score_is_a_number_between_0_and_1(score):
    with pytest.raises(FeedbackError, match=r"`score` must be a number in \[0, 1\], got .* Give 1"):
        Feedback(answer_id="x", score=score)
    with pytest.raises(FeedbackError, match=r"`per_member\['ann'\]`"):
        Feedback(answer_id="x", score=1, per_member={"ann": score})


def test_thumbs_and_numpys_numbers_are_scores():
    for score in (True, np.float32(1), np.int64(1), 1):
        assert repr(Feedback(answer_id="x", score=score).score) == "1.0"


def test_who_gave_the_returned_answer_has_its_score_and_who_was_called_off_none():
    served = served_answer(failures={"dora": "timeout", "eve": "cancelled"})
    assert Feedback(answer_id="x", score=0.8).scores_of(served) == {"ann": 0.8, "bob": 0.8, "dora": 0.0}
    said = Feedback(answer_id="x", score=0.8, per_member={"bob": 1, "cleo": 0.1})
    assert said.scores_of(served) == {"ann": 0.8, "bob": 1.0, "cleo": 0.1, "dora": 0.0}


# ---- what was learned


def test_a_snapshot_is_that_of_the_latest_place(log):
    assert log.load_snapshot("a") is None
    log.save_snapshot("a", 5, {"x": np.arange(6.0).reshape(2, 3).T, "n": np.array(3)})
    log.save_snapshot("a", 4, {"x": np.zeros(1)})
    log.save_snapshot("b", 1, {})
    seq, arrays = log.load_snapshot("a")
    assert (seq, arrays["n"], sorted(arrays)) == (5, 3, ["n", "x"])
    np.testing.assert_array_equal(arrays["x"], np.arange(6.0).reshape(2, 3).T)
    assert log.load_snapshot("b") == (1, {})
    change(log.path, "UPDATE snapshots SET arrays = x'00'")
    assert log.load_snapshot("a") is None


def test_a_change_is_added_once(path, log):
    other = OutcomeLog(path)
    for opened in (log, other):
        opened.add_change("a", "7", {"kind": "adopted", "why": [1, 0.5, None]})
    other.add_change("a", "9", {})
    other.add_change("b", "7", {})
    assert log.changes("a") == {"7": {"kind": "adopted", "why": [1, 0.5, None]}, "9": {}}
    other.close()


def test_what_is_undone_has_its_place_in_the_order_of_feedback(log):
    served = [recorded(log), recorded(log)]
    log.add_feedback(Feedback(answer_id=served[0].id, score=1))
    undo = Undo(learner="a", change_id="7")
    assert log.add_undo(undo) == log.last_seq == 2
    log.add_feedback(Feedback(answer_id=served[1].id, score=0))
    first, second, third = log.events_since(0)
    assert first[1] == (served[0], Feedback(answer_id=served[0].id, score=1))
    assert second == (2, undo)
    assert third[1][0] == served[1]
    assert (first[0], third[0]) == (1, 3)


# ---- for training


def test_what_was_served_comes_out_as_outcomes(log):
    """Bob says what Ann says; nothing is known of Cleo; Dora failed; Eve was called off; an image alone says nothing."""
    scored = recorded(log, task="quiz", failures={"dora": "timeout", "eve": "cancelled"}, propensity={"ann": 0.9})
    unscored = recorded(log, answers={"ann": "1"})
    recorded(log, query="")
    log.add_feedback(Feedback(answer_id=scored.id, score=0.75))
    rows = [(o.task, o.query_id, o.model, o.answer, o.reward, o.propensity) for o in log.outcomes()]
    assert rows == [
        ("quiz", scored.id, "ann", "42", 0.75, 0.9),
        ("quiz", scored.id, "bob", "42", 0.75, None),
        ("quiz", scored.id, "cleo", "17", None, None),
        ("quiz", scored.id, "dora", None, 0.0, None),
        ("served", unscored.id, "ann", "1", None, 1.0),
    ]


def fill(path, num_queries):
    """Serve so many queries, of which Ann knows 90 % and Bob 40 %; every second is scored."""
    with_scores = OutcomeLog(path)
    rng = np.random.default_rng(0)
    for number in range(num_queries):
        right = rng.random(2) < (0.9, 0.4)
        answers = {name: "yes" if one else "no" for name, one in zip(("ann", "bob"), right, strict=True)}
        served = recorded(
            with_scores, answers=answers, query=f"Question {number}?", propensity={"ann": 1.0, "bob": 0.5}
        )
        if number % 2:
            said = {name: float(one) for name, one in zip(answers, right, strict=True)}
            with_scores.add_feedback(Feedback(answer_id=served.id, score=said["ann"], per_member=said))
    with_scores.close()


@pytest.mark.usefixtures("folder")
def test_what_was_served_becomes_a_table_to_train_on(cli):
    fill("log.db", 30)
    shown = cli.shown("log", "export", "log.db", "--out", "served.parquet")
    assert shown == "60 outcomes of 2 members in served.parquet, 30 of them scored"
    grid = OutcomeTable.read("served.parquet").grid(["ann", "bob"])
    np.testing.assert_array_equal(grid.propensity, [[1.0, 0.5]] * 30)
    assert np.isnan(grid.scores).all(axis=1).tolist() == [True, False] * 15


def test_export_says_what_it_cannot_read(cli, folder):
    cli.assert_refused(cli.run("log", "export", "no.db", "--out", "served.csv"), "no.db", "must exist")
    assert not (folder / "no.db").exists()
    OutcomeLog("empty.db").close()
    cli.assert_refused(cli.run("log", "export", "empty.db", "--out", "served.csv"), "empty.db", "no answers yet")
    cli.assert_refused(cli.run("log", "export", "empty.db", "--out", "served.txt"), "suffix")


# ---- files that cannot be used


def test_a_file_of_something_else_is_refused_and_stays_as_it_is(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("Dear diary, " * 100)
    with pytest.raises(OutcomeLogError, match=r"notes.txt is no SQLite file .* Name another file"):
        OutcomeLog(text)
    assert text.read_text() == "Dear diary, " * 100
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE birds (name)")
    db.close()
    with pytest.raises(OutcomeLogError, match=r"another program. Name another file"):
        OutcomeLog(tmp_path / "other.db")


def test_a_log_of_a_later_release_is_refused(path, log):
    change(log.path, "PRAGMA user_version = 3")
    with pytest.raises(OutcomeLogError, match=r"has version 3, and this release reads up to 2. Install a later"):
        OutcomeLog(path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(OutcomeLogError, match=r"nowhere/o.db cannot be opened .* a folder that exists"):
        OutcomeLog(tmp_path / "nowhere" / "o.db")


def test_answers_wait_while_the_file_is_locked_and_feedback_says_so(path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    log = OutcomeLog(path)
    served = recorded(log)
    log.flush()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    late = recorded(log)
    with pytest.raises(OutcomeLogError, match="is locked by another program"):
        log.add_feedback(Feedback(answer_id=served.id, score=1))
    other.execute("ROLLBACK")
    other.close()
    assert log.add_feedback(Feedback(answer_id=late.id, score=1)) == 1
    assert log.dropped == 0
    log.close()


def test_a_full_disk_is_said_to_be_full(log):
    served = recorded(log)
    log.flush()
    with log._database.writing(durable=False) as records:
        pages = records.db.exec_driver_sql("PRAGMA page_count").scalar_one()
        records.db.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    log.record(served_answer(query="x" * 100_000))
    with pytest.raises(OutcomeLogError, match=r"disk is full.*Free some space"):
        log.flush()
    with log._database.writing(durable=False) as records:
        records.db.exec_driver_sql("PRAGMA max_page_count = 10000")
    assert log.add_feedback(Feedback(answer_id=served.id, score=1)) == 1


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("UPDATE answers SET answer = '{'", "Invalid JSON"),
        ("UPDATE answers SET answer = replace(answer, '0.5', '\"0.5\"')", "latency_s: Input should be a valid number"),
        ("UPDATE answers SET answer = replace(answer, '0.5', 'NaN')", "latency_s"),
        ("UPDATE answers SET answer = replace(answer, '\"member\"', '\"who\"')", "member"),
        ('UPDATE events SET event = \'{"score": 2, "per_member": {}}\'', "`score` must be"),
        ("UPDATE events SET event = '{\"stars\": 1}'", "stars"),
        ("UPDATE events SET event = '[]'", "an object"),
    ],
)
def test_a_row_that_breaks_a_rule_is_named(path, log, statement, rule):
    served = recorded(log)
    log.add_feedback(Feedback(answer_id=served.id, score=1))
    change(path, statement)
    with pytest.raises(
        OutcomeLogError, match=rf"outcomes.db breaks a rule in (answer|feedback) .*{rule}.*Correct or delete"
    ):
        log.events_since(0)


def test_more_than_can_wait_is_dropped_and_counted(log, monkeypatch, caplog):
    monkeypatch.setattr(log_module, "MAX_QUEUED", 2)
    with log._database.lock, caplog.at_level(logging.WARNING):  # nobody can write meanwhile
        kept = [recorded(log), recorded(log)]
        dropped = [recorded(log), recorded(log)]
    assert log.dropped == len(dropped)
    assert "Not recorded so far: 2" in caplog.text
    assert {log.served(one.id).id for one in kept} == {one.id for one in kept}


# ---- copies, threads, ends


def test_a_copy_is_the_same_log_and_a_pickle_opens_the_file_again(log):
    assert copy.copy(log) is copy.deepcopy(log) is log
    served = recorded(log)
    log.flush()
    opened = pickle.loads(pickle.dumps(log))
    assert opened.served(served.id) == served
    assert OutcomeLog.at(log.path) is opened is OutcomeLog.at(str(log.path))
    opened.close()
    assert OutcomeLog.at(log.path) is not opened


def test_a_closed_log_takes_nothing_more(log):
    served = recorded(log)
    log.close()
    log.close()
    log.record(served)
    assert log.dropped == 1
    with pytest.raises(OutcomeLogError, match=r"is closed. Open it again"):
        log.add_feedback(Feedback(answer_id=served.id, score=1))
    again = OutcomeLog(log.path)
    assert again.served(served.id) == served
    again.close()


def test_a_file_that_was_deleted_is_made_anew(path, log, caplog):
    served = recorded(log)
    log.add_feedback(Feedback(answer_id=served.id, score=1))
    for file in path.parent.glob("outcomes.db*"):
        file.unlink()
    with caplog.at_level(logging.WARNING):
        again = recorded(log)
        assert log.add_feedback(Feedback(answer_id=again.id, score=1)) == 1
    assert "was deleted or replaced; it is opened anew" in caplog.text
    other = OutcomeLog(path)
    assert [answer.id for _, (answer, _) in other.events_since(0)] == [again.id]
    other.close()


def test_threads_that_score_at_once_lose_nothing(log):
    start = threading.Barrier(8)
    ids = [[str(uuid4()) for _ in range(5)] for _ in range(8)]

    def work(own):
        start.wait()
        for answer_id in own:
            recorded(log, id=answer_id)
            log.add_feedback(Feedback(answer_id=answer_id, score=1))

    threads = [threading.Thread(target=work, args=(own,)) for own in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    said = [(seq, feedback.answer_id) for seq, (_, feedback) in log.events_since(0)]
    assert [seq for seq, _ in said] == [*range(1, 41)]
    assert {answer_id for _, answer_id in said} == {one for own in ids for one in own}


ENDING = """
import sys
sys.path.insert(0, sys.argv[2])
from langchain_rlfocal.log import OutcomeLog
from support_served import served_answer
log = OutcomeLog(sys.argv[1])
log.record(served_answer(id="first"))
OutcomeLog(sys.argv[1]).record(served_answer(id="of a log that is gone"))
"""


def test_a_program_that_ends_writes_what_is_queued(path):
    support = __file__.replace("test_outcome_log.py", "support")
    subprocess.run([sys.executable, "-P", "-c", ENDING, path, support], check=True)
    log = OutcomeLog(path)
    assert [log.served(name).query for name in ("first", "of a log that is gone")] == [Query("What is 6 times 7?")] * 2
    log.close()
