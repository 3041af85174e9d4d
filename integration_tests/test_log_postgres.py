"""A log on a PostgreSQL server, which the tests start themselves: the same as in a file, for several processes at once."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from langchain_rlfocal.errors import FeedbackError, OutcomeLogError
from langchain_rlfocal.log import Attempt, Feedback, OutcomeLog, ScoreRecord
from langchain_rlfocal.log.records import ServedAnswer
from langchain_rlfocal.log.tables import table_of
from langchain_rlfocal.log.upkeep import Problem, Scrubbing, prune, scrub, stats, verify
from langchain_rlfocal.outcomes import Outcome, Question
from langchain_rlfocal.records import Answer, Candidate, Query

pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
pytestmark = pytest.mark.timeout(120)


def program(name):
    """The path of one of PostgreSQL's programs; Debian keeps them out of PATH."""
    beside = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return shutil.which(name, path=os.pathsep.join([*beside, os.environ.get("PATH", "")]))


class Server:
    """A server in a folder, which only listens to a socket in it."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data"
        self._as_user = []
        if os.geteuid() == 0:  # initdb refuses to run as root
            users = {user.pw_name: user for user in pwd.getpwall()}
            user = users.get("postgres") or users["nobody"]
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self.run("initdb", "-D", self.data, "-U", "tester", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.hba = (self.data / "pg_hba.conf").read_text()

    def run(self, name, *args):
        command = [*self._as_user, program(name), *map(str, args)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder)

    def start(self):
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c max_connections=40"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "-o", options, "start")

    def stop(self):
        self.run("pg_ctl", "-D", self.data, "-w", "-m", "fast", "stop")

    def sql(self, statement, database="postgres"):
        import psycopg  # noqa: PLC0415

        with psycopg.connect(self.url(database), autocommit=True) as db:
            db.execute(statement)

    def url(self, database, user="tester"):
        return f"postgresql://{user}@/{database}?host={self.folder}"


@pytest.fixture(scope="module")
def server():
    if program("initdb") is None or program("pg_ctl") is None:
        pytest.skip("PostgreSQL's programs are not installed")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("initdb refuses to run as root, and there is no setpriv")
    with tempfile.TemporaryDirectory(prefix="rlfocal-") as folder:  # short: the path of a socket may not be long
        Path(folder).chmod(0o755)
        made = Server(Path(folder))
        made.start()
        yield made
        made.stop()


@pytest.fixture
def url(server, request):
    name = f"log_{abs(hash(request.node.name))}"
    server.sql(f"CREATE DATABASE {name}")
    return server.url(name)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


def attempt(query_id, member, said, **fields):
    outcome = Outcome(
        task="quiz",
        query_id=query_id,
        query=f"What is {query_id} + 0?",
        model=member,
        response=None if "failure" in fields else f"The answer is {said}.\0 \U0001f600",
        answer=None,
        gold=query_id,
        reward=float(said == query_id),
        cost_usd=0.1 + 0.2,
        prompt_tokens=2**40,
        extras={"page": 3},
    )
    return Attempt(outcome=outcome, scorer="auto", **fields)


def served(name):
    return ServedAnswer(
        id=name,
        query=Query("What is 6 times 7?"),
        available=("ann", "bob"),
        policy_id="prior",
        cost_weight=0.1,
        max_team=2,
        max_rounds=1,
        candidates=(Candidate("ann", 1, "It is 42.", "42", 0.5), Candidate("bob", 1, "It is 17.", "17", 0.5)),
        failures=(),
        answer=Answer("ann", "42", {"42": 0.6, "17": 0.4}, {"42": ("ann",), "17": ("bob",)}),
    )


def fill(log):
    log.add_questions([Question(task="quiz", query_id="1", query="What is 1 + 0?", gold="1", extras={"source": "x"})])
    cells = [("quiz", query_id, member, 0) for query_id in "12" for member in ("ann", "bob")]
    assert log.claim(cells, run="a") == cells
    assert log.claim(cells, run="b") == []
    log.add_attempts([attempt("1", "ann", "1"), attempt("1", "bob", "1.0"), attempt("2", "ann", "7")], run="a")
    log.add_attempts([attempt("2", "bob", "", failure="timeout: slow"), attempt("1", "ann", "1", sample=1)], run="a")
    log.add_scores([ScoreRecord(cell=("quiz", "2", "ann", 0), reward=0.25, scorer="judge", gold="7")], run="b")
    for name in ("first", "second"):
        log.record(served(name))
        log.record(served(name))
    assert log.add_feedback(Feedback(answer_id="second", score=0.5)) == 1
    with pytest.raises(FeedbackError, match="once"):
        log.add_feedback(Feedback(answer_id="second", score=0.5))
    log.add_change("a learner", "1", {"why": [1, None]})
    log.save_snapshot("a learner", 1, {})


def test_a_server_holds_what_a_file_holds(url, tmp_path):
    """Tables, counts and hashes are the same: records are hashed as they are, wherever they are kept."""
    logs = [OutcomeLog(place, clock=Clock()) for place in (tmp_path / "log.db", url)]
    for log in logs:
        fill(log)
    file, server = logs
    assert [*table_of(file)] == [*table_of(server)]
    assert len([*table_of(server)]) == 9
    assert [*file.attempts()] == [*server.attempts()]
    assert file.questions() == server.questions()
    assert file.answered() == server.answered()
    assert file.events_since(0) == server.events_since(0)
    assert file.changes("a learner") == server.changes("a learner") == {"1": {"why": [1, None]}}
    assert file.last_number == server.last_number == 6
    assert verify(file) == verify(server)
    assert verify(server).problems == ()
    counts = [{**stats(log), "log": "", "size_bytes": 0} for log in logs]
    assert counts[0] == counts[1]
    for act in (lambda log: scrub(log, Scrubbing(query_ids=["1", "first"])), lambda log: prune(log, 2e6)):
        assert act(file) == act(server)
        assert [*table_of(file)] == [*table_of(server)]
        assert verify(file) == verify(server)
        assert verify(server).problems == ()
    for log in logs:
        log.close()


def test_what_was_changed_or_vanished_is_found(url, server):
    log = OutcomeLog(url)
    fill(log)
    name = url.partition("@/")[2].partition("?")[0]
    server.sql("UPDATE rlfocal.attempts SET reward = 1 WHERE number = 3", name)
    server.sql("DELETE FROM rlfocal.attempts WHERE number = 5", name)
    assert verify(log).problems == (
        Problem("attempts", 3, 3, "was changed"),
        Problem("attempts", 5, 5, "vanished"),
    )
    log.close()


def test_a_later_version_is_refused_and_other_tables_are_left_alone(url, server):
    name = url.partition("@/")[2].partition("?")[0]
    server.sql("CREATE TABLE answers (mine TEXT)", name)
    OutcomeLog(url).close()
    OutcomeLog(url).close()
    server.sql("INSERT INTO answers VALUES ('still here')", name)
    server.sql("UPDATE rlfocal.rlfocal_version SET version_num = '0003'", name)
    with pytest.raises(OutcomeLogError, match=r"has version 3, and this release reads up to 2. Install a later"):
        OutcomeLog(url)


COLLECTING = """
import sys
from langchain_rlfocal.log import Attempt, OutcomeLog
from langchain_rlfocal.outcomes import Outcome

place, run, kills = sys.argv[1:4]
log = OutcomeLog(place)
cells = [("quiz", str(number), member, 0) for number in range(100) for member in ("ann", "bob")]
has_begun = False
for start in range(0, len(cells), 8):
    claimed = log.claim(cells[start : start + 8], run=run, lease_s=5 if kills == "yes" else 60)
    if claimed and not has_begun:
        print("ready", flush=True)
        has_begun = bool(sys.stdin.readline())
    for task, query_id, member, _ in claimed:
        said = Outcome(task=task, query_id=query_id, query=query_id, model=member, response="x", answer=None, reward=1.0)
        log.add_attempts([Attempt(outcome=said)], run=run)
        print(query_id, member, flush=True)
"""


def collecting(place, run, *, kills="no"):
    command = [sys.executable, "-P", "-c", COLLECTING, str(place), run, kills]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(*processes):
    """Have them go on once each of them has something to do."""
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * len(processes)
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()


@pytest.mark.parametrize("where", ["file", "server"])
def test_two_processes_share_the_work_and_one_that_is_killed_loses_nothing(where, tmp_path, request):
    """A third is killed at work; once its lease is over, a fourth does what it had claimed, and nothing twice."""
    place = request.getfixturevalue("url") if where == "server" else tmp_path / "log.db"
    OutcomeLog(place).close()
    killed = collecting(place, "killed", kills="yes")
    go(killed)
    done = [killed.stdout.readline() for _ in range(11)]
    killed.send_signal(signal.SIGKILL)
    done += [line for line in killed.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
    pair = [collecting(place, f"run {number}") for number in range(2)]
    go(*pair)
    said = [process.communicate()[0].splitlines() for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    clock = Clock()
    clock.now = 4e9
    log = OutcomeLog(place, clock=clock)
    assert {tuple(line.split()) for line in done} <= {(cell[1], cell[2]) for cell in log.answered()}
    assert all(said), "both have worked"
    cells = [("quiz", str(number), member, 0) for number in range(100) for member in ("ann", "bob")]
    left = log.claim(cells, run="last")
    assert len(left) <= 8, "what the one that was killed had claimed, at most"
    assert len(left) + len(log.answered()) == 200
    assert log.last_number == len(log.answered()), "nothing was asked twice"
    assert verify(log).problems == ()
    log.close()


def test_a_server_that_was_restarted_is_found_again_and_one_that_is_gone_named(url, server):
    log = OutcomeLog(url)
    fill(log)
    log._database._writer.forget()
    log._database._reader.forget()
    server.stop()
    try:
        with pytest.raises(OutcomeLogError, match=r"postgresql://tester@/log_.* cannot be reached .* Start its server"):
            log.answered()
        with pytest.raises(OutcomeLogError, match="cannot be reached"):
            OutcomeLog(url)
    finally:
        server.start()
    assert len(log.answered()) == 4
    log.add_attempts([attempt("3", "ann", "3")], run="a")
    assert (len(log.answered()), verify(log).problems) == (5, ())
    log.close()


def test_a_wrong_password_is_said_and_not_shown(url, server):
    server.sql("CREATE ROLE guest LOGIN PASSWORD 'right'")
    (server.data / "pg_hba.conf").write_text(f"local all guest scram-sha-256\n{server.hba}")
    server.sql("SELECT pg_reload_conf()")
    place = url.replace("tester@", "guest:wr0ng-one@")
    with pytest.raises(
        OutcomeLogError, match=r"guest:\*\*\*@/.* does not let this user in .* Correct the user"
    ) as caught:
        OutcomeLog(place)
    assert "wr0ng-one" not in str(caught.value)
    with pytest.raises(OutcomeLogError, match=r"may not|does not grant this user what it needs"):
        OutcomeLog(place.replace("wr0ng-one", "right"))
    with pytest.raises(OutcomeLogError, match="is no database of its server"):
        OutcomeLog(server.url("nowhere"))
