"""Collecting from a real server: killed, shared by two processes, turned away, slow, interrupted."""

import json
import runpy
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from langchain_rlfocal.collection import acollect
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import OutcomeTable, Question
from langchain_rlfocal.pool import ModelPool, PoolMember
from support_fault_server import Fault, FaultServer

SCRIPT = Path(__file__).parents[1] / "docs" / "benchmarks" / "killed.py"
NO_SIGKILL = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")


@pytest.fixture(scope="module")
def killed():
    sys.modules["killed"] = module = type(sys)("killed")
    vars(module).update(runpy.run_path(str(SCRIPT), run_name="killed"))
    yield module
    del sys.modules["killed"]


def asked(server):
    return Counter((request.question, request.model) for request in server.received)


@NO_SIGKILL
def test_a_collection_that_is_killed_loses_nothing_on_record_and_asks_none_of_it_again(killed):
    """Killed at its first request, and at a random moment; the last run asks for exactly what is not on record, and comes to its end."""
    done = killed.experiment(kills=2, questions=90, seed=1)
    assert (done.lost, done.asked_again, done.complete) == (0, 0, True)
    assert [run.killed_after is None for run in done.runs] == [False, False, True]
    assert done.runs[-1].out == 0
    assert 0 < done.runs[-1].requests == 2 * 90 - done.runs[-2].recorded < 2 * 90


@NO_SIGKILL
def test_two_processes_share_a_collection_and_nothing_is_asked_twice(killed, tmp_path):
    """Both begin at once, end well, and leave a table with everything."""
    killed.write_questions(tmp_path, 40)
    with FaultServer(killed.answer, script=lambda *_: Fault(delay_s=0.1)) as server:
        pair = [killed.start(tmp_path, server.base_url, "--json") for _ in range(2)]
        facts = [json.loads(process.communicate()[0]) for process in pair]
        counts = asked(server)
    assert [process.returncode for process in pair] == [0, 0]
    assert (len(counts), set(counts.values())) == (80, {1})
    assert [(one["rows"], one["missing"]) for one in facts] == [(80, 0)] * 2
    assert sum(member["answered"] for one in facts for member in one["members"]) == 80
    assert len(OutcomeTable.read(tmp_path / "o.jsonl")) == 80


@NO_SIGKILL
def test_ctrl_c_lets_come_back_what_is_out_and_writes_the_table(killed, tmp_path):
    """Interrupted at its tenth request: the table and the log have each answer that the server gave, and nothing stays claimed."""
    killed.write_questions(tmp_path, 60)
    processes = []

    def interrupt(_model, _question, _attempt):
        numbers.append(1)
        if len(numbers) == 10:
            processes[0].send_signal(signal.SIGINT)
        return Fault(delay_s=0.02)

    numbers: list[int] = []
    with FaultServer(killed.answer, script=interrupt) as server:
        processes.append(killed.start(tmp_path, server.base_url))
        _, said = processes[0].communicate()
        answered = {(r.question, r.model) for r in server.received if r.ended == "answered"}
        counts = asked(server)
    table = {(o.query, o.model) for o in OutcomeTable.read(tmp_path / "o.jsonl")}
    assert processes[0].returncode == 130
    assert "Stopping" in said
    assert said.endswith("Run the same command again to go on.\n")
    assert table == answered
    assert 10 <= len(table) < 120
    assert set(counts.values()) == {1}
    log = OutcomeLog(tmp_path / "o.db")
    assert (len(log.answered()), log.runs()) == (len(table), [])
    log.close()


async def test_a_member_that_is_turned_away_waits_and_one_that_is_slow_holds_nobody_up(tmp_path):
    """Ann's first two requests meet 429 with a wait of 0.3 s; Bob takes 0.2 s an answer; Cat is done before both."""

    def script(model, question, attempt):
        if model == "ann" and question.startswith(("What is 0 ", "What is 1 ")) and attempt == 1:
            return Fault("status", status=429, retry_after_s=0.3)
        return Fault(delay_s=0.2 if model == "bob" else 0.0)

    questions = [Question(task="t", query_id=str(n), query=f"What is {n} + 1?", gold=str(n + 1)) for n in range(8)]
    ends = []

    def watch(tally):
        ends.extend(name for name, one in tally.members.items() if one.answered == 8 and name not in ends)

    with FaultServer(lambda _, question: str(int(question.split()[2]) + 1), script=script) as server:
        pool = ModelPool(
            [PoolMember(name, server.model(name), max_concurrent_calls=2) for name in ("ann", "bob", "cat")]
        )
        tally = await acollect(pool, questions, log=OutcomeLog(tmp_path / "o.db"), watch=watch)
        numbers = Counter(request.model for request in server.received)
    assert (tally.sum("answered"), tally.sum("failed")) == (24, 0)
    assert ends[0] == "cat"
    assert numbers == {"ann": 10, "bob": 8, "cat": 8}
