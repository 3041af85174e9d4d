"""Upkeep of a log: what was changed or vanished is found, what was taken out or deleted is not mistaken for it."""

import sqlite3

import pytest

from langchain_rlfocal.errors import InputError, OutcomeLogError
from langchain_rlfocal.log import SCRUBBED, Feedback, OutcomeLog, ScoreRecord, database
from langchain_rlfocal.log.schema import COUNTERS, KINDS, METADATA
from langchain_rlfocal.log.tables import table_of
from langchain_rlfocal.log.upkeep import Problem, Scrubbing, prune, scrub, stats, verify
from support_logs import Clock, attempt, change, question, rows
from support_served import served_answer

DAY_S = 86_400.0


@pytest.fixture
def clock():
    return Clock(10 * DAY_S)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def log(path, clock):
    """On day 10 two questions and three attempts with a score; on day 20 one more; each day a served answer with feedback."""
    opened = OutcomeLog(path, clock=clock)
    opened.add_questions([question("1"), question("2")])
    opened.add_attempts([attempt("1", "ann", cost_usd=0.5), attempt("1", "bob", "7"), attempt("2", "ann")], run="a")
    opened.add_scores([ScoreRecord(cell=("quiz", "1", "bob", 0), reward=0.5, scorer="judge", reason="Half.")], run="b")
    serve(opened, "old")
    clock.now = 20 * DAY_S
    opened.add_attempts([attempt("2", "bob", failure="timeout: secret host")], run="c")
    serve(opened, "young")
    yield opened
    opened.close()


def serve(log, name):
    log.record(served_answer(id=name, task="support", failures={"dora": "timeout"}))
    log.add_feedback(Feedback(answer_id=name, score=1))


# ---- verify


def test_a_log_that_nobody_changed_has_no_problems(log):
    found = verify(log)
    assert found.problems == ()
    assert found.records == dict.fromkeys(KINDS, 0) | {
        "questions": 2,
        "attempts": 4,
        "scores": 1,
        "answers": 2,
        "events": 2,
    }


@pytest.mark.parametrize(
    ("statement", "kind", "number"),
    [
        ("UPDATE attempts SET reward = 1 WHERE number = 2", "attempts", 2),
        ("UPDATE attempts SET reward = NULL WHERE number = 4", "attempts", 4),
        ("UPDATE attempts SET reward = 'much' WHERE number = 3", "attempts", 3),
        ("UPDATE attempts SET reward = x'30' WHERE number = 4", "attempts", 4),
        ("UPDATE attempts SET member = member || char(0) WHERE number = 2", "attempts", 2),
        ("UPDATE attempts SET response = 'x' WHERE number = 1", "attempts", 1),
        ("UPDATE attempts SET response = answer, answer = response WHERE number = 1", "attempts", 1),
        ("UPDATE attempts SET at = at + 1 WHERE number = 3", "attempts", 3),
        ("UPDATE attempts SET hash = 'x' WHERE number = 2", "attempts", 2),
        ("UPDATE questions SET gold = '3' WHERE number = 2", "questions", 2),
        ("UPDATE scores SET reward = 1", "scores", 1),
        ("UPDATE answers SET id = 'else' WHERE number = 1", "answers", 1),
        ("UPDATE answers SET answer = replace(answer, '42', '43') WHERE number = 1", "answers", 1),
        ("UPDATE events SET event = replace(event, '1.0', '0.0') WHERE seq = 2", "events", 2),
    ],
)
def test_a_changed_record_is_found_and_no_other_is_blamed(log, path, statement, kind, number):
    change(path, "PRAGMA foreign_keys = OFF", statement)
    assert verify(log).problems == (Problem(kind, number, number, "was changed"),)


@pytest.mark.parametrize(("gone", "first", "last"), [("2", 2, 2), ("1, 2", 1, 2), ("3, 4", 3, 4), ("4", 4, 4)])
def test_records_that_vanished_are_found_the_last_too(log, path, gone, first, last):
    change(path, "PRAGMA foreign_keys = OFF", f"DELETE FROM attempts WHERE number IN ({gone})")
    assert verify(log).problems == (Problem("attempts", first, last, "vanished"),)


def test_a_record_with_a_new_hash_does_not_fit_the_next(log, path):
    """Who changes a record and hashes it anew is found by the record after it, or by the count."""
    with log.looking() as records:
        before = records.db.execute(COUNTERS.select().where(COUNTERS.c.kind == "attempts")).one()
    other = OutcomeLog(path.with_name("other.db"), clock=Clock(10 * DAY_S))
    other.add_questions([question("1"), question("2")])
    other.add_attempts([attempt("1", "ann", cost_usd=0.5), attempt("1", "bob", "1"), attempt("2", "ann")], run="a")
    other.close()
    [(forged,)] = rows(other.path, "SELECT hash FROM attempts WHERE number = 2")
    change(path, f"UPDATE attempts SET response = 'The answer is 1.', reward = 1, hash = '{forged}' WHERE number = 2")
    assert verify(log).problems == (Problem("attempts", 3, 3, "was changed"),)
    change(path, "PRAGMA foreign_keys = OFF", "DELETE FROM attempts WHERE number > 2")
    change(path, f"UPDATE counters SET last = 2, head = '{before.head}' WHERE kind = 'attempts'")
    assert [one.number for one in verify(log).problems] == [2]


def test_what_failed_leaves_no_gap(log, path):
    """A transaction that is rolled back gives its numbers back."""
    for _ in range(3):
        with pytest.raises(OutcomeLogError, match="of none"):
            log.add_scores([ScoreRecord(cell=("quiz", "9", "ann", 0), reward=1, scorer="x")], run="b")
    log.record(served_answer(id="old"))
    log.flush()
    assert verify(log).problems == ()
    assert verify(log).records["answers"] == 2


# ---- scrub


def texts_in(path):
    """Everything that can be read in the files of a log."""
    return b"".join(file.read_bytes() for file in path.parent.glob("log.db*"))


def test_texts_are_gone_from_disk_and_labels_rewards_and_costs_stay(log, path):
    before = {(one.query_id, one.model): one for one in table_of(log)}
    assert b"The answer is" in texts_in(path)
    counts = {"questions": 2, "attempts": 4, "scores": 1, "answers": 2}
    what = Scrubbing(tasks=["quiz", "supp*"])
    assert scrub(log, what, dry_run=True) == counts
    assert b"The answer is" in texts_in(path)
    assert scrub(log, what) == counts
    for text in (b"The answer is", b"+ 0?", b"Half.", b"secret host", b"6 times 7", b"It is down."):
        assert text not in texts_in(path), text
    after = {(one.query_id, one.model): one for one in table_of(log)}
    assert before.keys() == after.keys()
    for key, one in after.items():
        assert (one.reward, one.cost_usd, one.propensity) == (
            before[key].reward,
            before[key].cost_usd,
            before[key].propensity,
        )
        assert one.response == (None if before[key].response is None else SCRUBBED)
        for other, said in after.items():
            if other[0] == key[0]:
                assert (said.answer == one.answer) == (before[other].answer == before[key].answer)
    assert after["1", "ann"].answer == after["1", "ann"].gold != after["1", "bob"].answer
    assert len({one.query for one in after.values()}) == 4, "questions are still told apart"
    assert verify(log).problems == ()
    assert scrub(log, what) == {}
    assert log.events_since(0)[0][1][0].answer.member == "ann"


def test_only_what_fits_is_scrubbed(log):
    assert scrub(log, Scrubbing(query_ids=["1"]), dry_run=True) == {"questions": 1, "attempts": 2, "scores": 1}
    assert scrub(log, Scrubbing(before=20 * DAY_S), dry_run=True) == {
        "questions": 1,  # of the other, something was recorded on day 20
        "attempts": 2,
        "scores": 1,
        "answers": 1,
    }
    assert scrub(log, Scrubbing(tasks=["support"], before=20 * DAY_S)) == {"answers": 1}
    assert [one.query for one in table_of(log) if one.task == "quiz"] == ["What is 1 + 0?"] * 2 + ["What is 2 + 0?"] * 2
    with pytest.raises(InputError, match="must be named: a task"):
        Scrubbing()


def test_texts_that_are_missing_without_a_record_of_it_are_found(log, path):
    [(kept,)] = rows(path, "SELECT hash FROM attempts WHERE number = 1")
    change(path, f"UPDATE attempts SET response = '', scrubbed = '{kept}' WHERE number = 1")
    assert {one.what for one in verify(log).problems} == {
        "was changed",
        "has lost its texts, and no scrubbing is on record",
    }


def test_scrubbings_that_overlap_explain_what_each_took_and_nothing_beside(log, path):
    """The second question first, then what is left of the task: no range of numbers holds the other."""
    scrub(log, Scrubbing(query_ids=["2"]))
    scrub(log, Scrubbing(tasks=["quiz"]))
    assert verify(log).problems == ()
    [(taken,)] = rows(path, "SELECT count(*) FROM attempts WHERE scrubbed IS NOT NULL")
    assert taken == 4
    change(path, "DELETE FROM upkeep WHERE kind = 'attempts'")
    assert [one.number for one in verify(log).problems if one.kind == "attempts"] == [1, 2, 3, 4]


def test_a_scrubbed_question_is_not_asked_again_and_what_is_asked_is_a_new_version(log):
    scrub(log, Scrubbing(tasks=["quiz"]))
    log.add_questions([question("1")])
    assert ("quiz", "1", "ann", 0) in log.answered()
    log.add_attempts([attempt("1", "cleo")], run="d")
    assert [one.outcome.query for one in log.attempts()][:3] == [
        "[scrubbed question 1]",
        "[scrubbed question 1]",
        "What is 1 + 0?",
    ]
    assert verify(log).problems == ()


# ---- prune


def test_what_is_older_is_deleted_and_the_rest_verifies(log):
    """Of the second question an attempt is young, so that the question stays."""
    counts = {"scores": 1, "attempts": 3, "questions": 1, "events": 1, "answers": 1}
    assert prune(log, 15 * DAY_S, unlearned=True, dry_run=True) == counts == prune(log, 15 * DAY_S, unlearned=True)
    assert [one.cell for one in log.attempts()] == [("quiz", "2", "bob", 0)]
    assert [seq for seq, _ in log.events_since(0)] == [2]
    assert verify(log).problems == ()
    log.add_attempts([attempt("1", "ann"), attempt("2", "cleo")], run="d")
    serve(log, "new")
    assert (log.last_seq, log.last_number) == (3, 7)
    assert verify(log).problems == ()
    assert prune(log, 15 * DAY_S, unlearned=True) == {}
    prune(log, 30 * DAY_S, unlearned=True)
    assert verify(log).records["attempts"] == 0
    assert verify(log).problems == ()


def test_a_pruned_log_still_misses_what_vanished(log, path):
    prune(log, 15 * DAY_S)
    change(path, "PRAGMA foreign_keys = OFF", "DELETE FROM attempts WHERE number = 4")
    assert verify(log).problems == (Problem("attempts", 4, 4, "vanished"),)


def test_who_remembers_a_question_that_another_process_deleted_adds_it_again(log, path, clock):
    other = OutcomeLog(path, clock=clock)
    prune(other, 15 * DAY_S)
    other.close()
    log.add_attempts([attempt("1", "ann")], run="d")
    assert ("quiz", "1", "ann", 0) in log.answered()
    assert verify(log).problems == ()


def test_feedback_that_no_snapshot_holds_yet_stays(log):
    unlearned = {"scores": 1, "attempts": 3, "questions": 1}
    assert prune(log, 15 * DAY_S, dry_run=True) == unlearned
    log.save_snapshot("a learner", 0, {})
    assert prune(log, 15 * DAY_S, dry_run=True) == unlearned
    assert prune(log, 15 * DAY_S, unlearned=True, dry_run=True) == {**unlearned, "events": 1, "answers": 1}
    log.save_snapshot("a learner", 1, {})
    assert prune(log, 15 * DAY_S, dry_run=True)["events"] == 1


def test_feedback_without_its_answer_is_left_out_and_the_rest_is_read(log, path):
    assert [seq for seq, _ in log.events_since(0)] == [1, 2]
    change(path, "PRAGMA foreign_keys = OFF", "DELETE FROM answers WHERE number = 1")
    assert [seq for seq, _ in log.events_since(0)] == [2]


# ---- count


def test_stats_count_by_member_run_and_failure(log):
    found = stats(log)
    assert found["records"]["attempts"] == 4
    assert found["members"] == {
        "ann": {"answers": 4, "failures": 0, "usd": 0.5},
        "bob": {"answers": 3, "failures": 1, "usd": None},
        "cleo": {"answers": 2, "failures": 0, "usd": None},
        "dora": {"answers": 0, "failures": 2, "usd": None},
    }
    assert found["failures"] == {"timeout": 3}
    assert {run: of["attempts"] for run, of in found["runs"].items()} == {"a": 3, "c": 1}
    assert (found["first_at"], found["last_at"]) == (10 * DAY_S, 20 * DAY_S)
    assert (found["asking_usd"], found["scoring_usd"], found["dropped"], found["scrubbed"]) == (0.5, None, 0, 0)
    assert found["size_bytes"] > 10_000


def test_what_was_dropped_is_counted_in_the_log(log, monkeypatch):
    monkeypatch.setattr("langchain_rlfocal.log.outcome_log.MAX_QUEUED", 0)
    log.record(served_answer())
    monkeypatch.undo()
    serve(log, "later")
    assert stats(log)["dropped"] == 1


# ---- commands


@pytest.fixture
def closed(log, path):
    log.close()
    return path


def test_verify_ends_with_1_where_something_is_wrong(cli, closed):
    assert cli.shown("log", "verify", closed) == "11 records are as they were added, and none has vanished."
    change(closed, "UPDATE attempts SET reward = 0 WHERE number = 1")
    result = cli.run("log", "verify", closed, "--json")
    assert result.exit_code == 1
    assert '"what": "was changed"' in result.stdout
    assert "1 findings in 11 records" in result.stderr
    assert "attempts 1: was changed" in cli.run("log", "verify", closed).stdout


def test_what_cannot_be_taken_back_needs_a_yes(cli, closed):
    refused = cli.run("log", "prune", closed, "--before", "2030-01-01")
    cli.assert_refused(refused, "4 attempts", "2 questions", "would be deleted, for good", "Add --yes")
    refused = cli.run("log", "scrub", closed, "--task", "quiz")
    cli.assert_refused(refused, "2 questions, 4 attempts, 1 score", "lose their texts", "Add --yes")
    cli.assert_refused(cli.run("log", "scrub", closed, "--yes"), "must be named")
    done = cli.said("log", "scrub", closed, "--query-id", "1", "--before", "1970-01-15", "--yes")
    assert done["records"] == {"questions": 1, "attempts": 2, "scores": 1}
    assert cli.said("log", "prune", closed, "--before", "1970-01-15", "--yes")["records"]["attempts"] == 3
    assert "Nothing in" in cli.shown("log", "prune", closed, "--before", "1970-01-15")
    assert cli.said("log", "verify", closed)["ok"]


def test_export_and_stats_of_a_log(cli, closed, folder):
    assert (
        cli.shown("log", "export", closed, "--out", "o.csv") == "12 outcomes of 4 members in o.csv, 10 of them scored"
    )
    assert cli.said("log", "stats", closed)["members"]["ann"]["answers"] == 4
    shown = cli.shown("log", "stats", closed)
    assert "4 attempts" in shown
    assert "dollars: $0.5000 for asking, unknown for scoring" in shown


# ---- versions

FIRST = """
CREATE TABLE answers (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, at REAL NOT NULL, answer TEXT NOT NULL
);
CREATE TABLE events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, answer_id TEXT UNIQUE REFERENCES answers (id), at REAL NOT NULL,
    event TEXT NOT NULL
);
CREATE TABLE changes (
    number INTEGER PRIMARY KEY AUTOINCREMENT, learner TEXT NOT NULL, id TEXT NOT NULL, at REAL NOT NULL,
    change TEXT NOT NULL, UNIQUE (learner, id)
);
CREATE TABLE snapshots (learner TEXT PRIMARY KEY, seq INTEGER NOT NULL, arrays BLOB NOT NULL);
PRAGMA application_id = 1380730447;
PRAGMA user_version = 1;
"""


def test_a_log_of_the_first_release_is_migrated_with_all_that_it_holds(path, log, tmp_path):
    """Its answer 2 was never written, since its transaction failed; answer 4 was deleted after the migration."""
    bodies = rows(path, "SELECT answer FROM answers")
    old = tmp_path / "old.db"
    db = sqlite3.connect(old)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(FIRST)
    for number, name, body in ((1, "old", bodies[0][0]), (3, "young", bodies[1][0]), (4, "third", bodies[1][0])):
        db.execute("INSERT INTO answers VALUES (?, ?, ?, ?)", (number, name, 5.5, body))
    db.execute("""INSERT INTO events VALUES (1, 'young', 6.5, '{"score": 1.0, "per_member": {}}')""")
    db.execute("""INSERT INTO changes VALUES (1, 'a', '7', 6.5, '{"why": 1}')""")
    db.execute("INSERT INTO snapshots VALUES ('a', 1, x'00')")
    db.commit()
    db.close()
    opened = OutcomeLog(old)
    assert [served.id for _, (served, _) in opened.events_since(0)] == ["young"]
    assert opened.changes("a") == {"7": {"why": 1}}
    assert opened.served("old").id == "old"
    assert verify(opened).problems == ()
    assert verify(opened).records["answers"] == 3
    serve(opened, "new")
    opened.add_attempts([attempt()], run="a")
    assert (opened.last_seq, verify(opened).problems) == (2, ())
    opened.close()
    assert rows(old, "PRAGMA user_version") == [(2,)]
    change(old, "DELETE FROM answers WHERE number = 4")
    again = OutcomeLog(old)
    assert verify(again).problems == (Problem("answers", 4, 4, "vanished"),)
    again.close()


def test_the_migrations_make_the_tables_that_this_release_knows(log, path):
    for table in METADATA.tables.values():
        made = {name for _, name, *_ in rows(path, f"PRAGMA table_info({table.name})")}
        assert made == {column.name for column in table.columns}, table.name
        indexes = {name for _, name, *_ in rows(path, f"PRAGMA index_list({table.name})")}
        assert {index.name for index in table.indexes} <= indexes


def test_a_log_of_this_version_opens_without_alembic(closed):
    import subprocess  # noqa: PLC0415
    import sys  # noqa: PLC0415

    code = (
        "import sys; from langchain_rlfocal.log import OutcomeLog; assert 'sqlalchemy' not in sys.modules; "
        "OutcomeLog(sys.argv[1]).answered(); print('alembic' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, closed], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


# ---- what cannot be opened


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("mysql://root:pass@host/db", r"begins with postgresql://, got mysql://\.\.\."),
        ("postgresql://ann:s3cret@127.0.0.1:1/db", r"postgresql://ann:\*\*\*@127.0.0.1:1/db cannot be reached"),
        ("postgresql://ann:s3cret@127.0.0.1:one/db", r"must be a URL: Port could not be cast"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_without_its_password(place, words, socket_enabled):
    with pytest.raises(OutcomeLogError, match=words) as caught:
        OutcomeLog(place)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_said_to_be(closed):
    data = bytearray(closed.read_bytes())
    data[4096 * 2 : 4096 * 20] = b"\xff" * 4096 * 18
    closed.write_bytes(data)
    with pytest.raises(OutcomeLogError, match=r"log.db is damaged .* Save what `sqlite3 FILE .recover` finds"):
        verify(OutcomeLog(closed))


def test_a_log_that_is_locked_says_so_and_adds_nothing(log, path, monkeypatch):
    monkeypatch.setattr(database, "BUSY_S", 0.01)
    program = sqlite3.connect(path, isolation_level=None)
    program.execute("BEGIN IMMEDIATE")
    for act in (
        lambda: log.add_attempts([attempt("9")], run="a"),
        lambda: log.claim([("quiz", "9", "ann", 0)], run="a"),
        lambda: prune(log, 15 * DAY_S),
    ):
        with pytest.raises(OutcomeLogError, match=r"is locked by another program .* or try again"):
            act()
    assert len(log.answered()) == 3, "who reads waits for nobody"
    program.execute("ROLLBACK")
    program.close()
    assert verify(log).records["attempts"] == 4
