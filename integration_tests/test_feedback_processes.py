"""Feedback from real processes: killed, at once, forked, in threads and on event loops. What had returned is there, in one order."""

import random
import signal
import subprocess
import sys
import warnings

import pytest

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.outcomes import OutcomeTable
from langchain_rlfocal.testing import ScriptedChatModel
from langchain_rlfocal.training import TrainingConfig, train

pytestmark = pytest.mark.timeout(120)

MODEL = """
import asyncio, itertools, os, sys, threading
from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedChatModel

def new_model():
    members = {name: ScriptedChatModel(script=lambda _, said=said: said) for name, said in (("ann", "17"), ("bob", "42"))}
    return RLFocalChatModel(members=members, outcome_log=sys.argv[1], learning="on", explore=0.2)

def id_of(message):
    return message.response_metadata["rlfocal"]["answer_id"]

model = new_model()
"""

UNTIL_KILLED = (
    MODEL
    + """
for number in itertools.count():
    message = model.invoke(f"What is {number} times 7?")
    model.feedback(message, float(message.text == "42"))
    print(id_of(message), flush=True)
"""
)

AT_ONCE = (
    MODEL
    + """
def in_thread(name):
    for number in range(5):
        message = model.invoke(f"What is {number} times 7, {name}?")
        model.feedback(message, 1)

async def on_loop():
    async def one(number):
        message = await model.ainvoke(f"What is {number} times 7?")
        await model.afeedback(message, 0)
    await asyncio.gather(*map(one, range(20)))

threads = [threading.Thread(target=in_thread, args=(f"thread {number}",)) for number in range(4)]
for thread in threads:
    thread.start()
asyncio.run(on_loop())
for thread in threads:
    thread.join()
print("done", flush=True)
sys.stdin.readline()  # until all have done
model.changes()
print(model._setup.service.serving.policy.policy_id)
"""
)

FORKING = (
    MODEL
    + """
from dataclasses import replace
from langchain_rlfocal.log import Feedback
shared = model.invoke("Who is asked before the fork?")
known = model.outcome_log.served(id_of(shared))

def go_on():
    for number in range(40):
        model.outcome_log.record(replace(known, id=str(number)))
        model._setup.service.add_feedback(Feedback(answer_id=str(number), score=1))

writing = threading.Thread(target=go_on)  # so that a fork comes while the log is being written
writing.start()
children = []
for number in range(6):
    child = os.fork()
    if child == 0:
        message = model.invoke(f"What is {number} times 7?")
        model.feedback(message, 1)
        if number == 0:
            model.feedback(shared, 0)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 6
writing.join()
model.changes()
print(model._setup.service._seq, model.outcome_log.dropped)
"""
)


def start(code, path):
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def scored(path):
    """Ids of all answers with feedback, in the order of feedback, which has no gaps."""
    log = OutcomeLog(path)
    rows = log.events_since(0, limit=100_000)
    assert [seq for seq, _ in rows] == [*range(1, len(rows) + 1)]
    log.close()
    return [served.id for _, (served, _) in rows]


def test_no_feedback_that_returned_is_lost_when_its_process_is_killed(tmp_path):
    """Four pairs of processes write one log and are killed after a few answers, while they go on writing."""
    path, rng, returned = tmp_path / "outcomes.db", random.Random(0), []
    for _ in range(4):
        pair = [start(UNTIL_KILLED, path) for _ in range(2)]
        for process in pair:
            returned += [process.stdout.readline().strip() for _ in range(rng.randrange(1, 12))]
        for process in pair:
            process.send_signal(signal.SIGKILL)
            rest, _ = process.communicate()
            returned += [line for line in rest.splitlines() if len(line) == len(returned[0])]
    kept = scored(path)
    assert set(returned) <= set(kept)
    assert len(kept) == len(set(kept))
    # Who comes after them learns from all of it, and goes on.
    members = {name: ScriptedChatModel(script=["42"]) for name in ("ann", "bob")}
    model = RLFocalChatModel(members=members, outcome_log=path, learning="on")
    model.feedback(model.invoke("What is 6 times 7?"), 1)
    assert len(scored(path)) == len(kept) + 1


def test_processes_threads_and_event_loops_share_one_order(tmp_path):
    path = tmp_path / "outcomes.db"
    pair = [start(AT_ONCE, path) for _ in range(2)]
    assert [process.stdout.readline() for process in pair] == ["done\n"] * 2
    policies = [process.communicate("\n")[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0]
    assert len(set(scored(path))) == 2 * 40
    assert policies[0] == policies[1]
    assert policies[0].startswith("online-")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_fork_goes_on_with_the_log_and_loses_nothing(tmp_path):
    """The parent scores 40 answers, each of six children its own, and one of them one of the parent's: 47."""
    process = start(FORKING, tmp_path / "outcomes.db")
    try:
        printed, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert printed.split() == ["47", "0"]
    assert len(scored(tmp_path / "outcomes.db")) == 47


def test_a_policy_is_trained_on_what_was_served(tmp_path):
    """Bob is right and Ann is not; half of the answers are scored."""
    path = tmp_path / "outcomes.db"
    members = {name: ScriptedChatModel(script=lambda _, s=said: s) for name, said in (("ann", "17"), ("bob", "42"))}
    model = RLFocalChatModel(members=members, outcome_log=path, explore=0.5)
    for number in range(60):
        message = model.invoke(f"Question {number}: what is 6 times 7?")
        if number % 2:
            model.feedback(message, 1.0, {"ann": 0.0, "bob": 1.0})
    model.outcome_log.close()
    table = tmp_path / "served.parquet"
    command = [sys.executable, "-m", "langchain_rlfocal.cli", "log", "export", path, "--out", table]
    subprocess.run(command, check=True)
    learned, chosen, _ = OutcomeTable.read(table).grid(("ann", "bob"), missing="mask").split()
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of two members agreement says little
        policy = train(learned, chosen, TrainingConfig(num_iterations=2, batch_size=64))
    trained = RLFocalChatModel(members=members, policy=policy, max_team=1)
    assert trained.invoke("Question 61: what is 6 times 7?").text == "42"
