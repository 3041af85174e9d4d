"""The soak, small: a hundred answers at once, of which a fifth of the requests meets a fault."""

import runpy
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)

SCRIPTS = Path(__file__).parents[2] / "docs" / "benchmarks"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        yield runpy.run_path(str(SCRIPTS / "soak.py"))


def test_every_answer_is_accounted_for_and_nothing_is_left(script, monkeypatch):
    """What must hold is checked by the script; that it had something to check is checked here."""
    # So few run all at once, and share the machine, however busy it is, until the last has ended.
    names = script["soak"].__globals__
    monkeypatch.setitem(names, "timeout_s_for", lambda num_answers, pace_s: max(1.0, 1.5 * num_answers * pace_s))
    waves = {wave.name: wave for wave in script["soak"](100, seed=0)}
    assert [line for wave in waves.values() for line in wave.broken] == []
    for wave in waves.values():
        assert len(wave.seconds) == wave.num_right + wave.num_alone + wave.errors.total() > 0
        assert wave.num_right > 0
        assert wave.faulty > 0
    tasks, threads, budget = (waves[name] for name in ("tasks", "threads", "budget"))
    assert 0.15 < tasks.faulty / tasks.requests < 0.3
    assert tasks.retries > 0
    assert tasks.early_commits > 0
    assert threads.num_right == 5
    assert budget.calls == 11
    assert budget.errors["BudgetError"] > 0
    assert {len(row) for row in script["rows_of"](list(waves.values()))} == {5}


def test_a_wrong_answer_passes_only_where_nobody_else_answered(script):
    """The third member says "page b" to the first question; beside one who knows, it must not win."""
    from langchain_core.messages import AIMessage  # noqa: PLC0415

    failed = {"member": "one", "retries": [], "latency_s": 1.0, "kind": "breaker_open"}
    for other, broken, alone in ((failed, 0, 1), ({**failed, "kind": "ValueError"}, 0, 1), ({"member": "one"}, 1, 0)):
        wave, watch = script["Wave"]("budget"), script["Watch"]()
        for result in (other, {"member": "wrong"}):
            watch.on_custom_event("rlfocal_candidate", {"retries": [], "latency_s": 1.0, **result})
        script["take_in"](wave, [AIMessage("page b")], [watch], [])
        assert sum("an answer is wrong" in line for line in wave.broken) == broken
        assert (wave.num_right, wave.num_alone) == (0, alone)


@pytest.mark.parametrize(
    ("outcome", "requests", "rule"),
    [
        ("page b", 1, "an answer is wrong"),
        (KeyError("x"), 1, "an error is not the package's"),
        ("page a", 2, "requests and attempts differ"),
        ("page a", 0, "requests and attempts differ"),
    ],
)
def test_the_soak_sees_what_is_broken(script, outcome, requests, rule):
    """One answer, of one member that was asked once."""
    from langchain_core.messages import AIMessage  # noqa: PLC0415

    from support_fault_server import Fault, Received  # noqa: PLC0415

    wave, watch, question = script["Wave"]("tasks"), script["Watch"](), script["question_of"](0)
    watch.on_custom_event("rlfocal_candidate", {"member": "one", "retries": [], "latency_s": 1.0})
    received = [Received(n, "one", question, n, False, Fault()) for n in range(1, requests + 1)]
    message = AIMessage(outcome) if isinstance(outcome, str) else outcome
    script["take_in"](wave, [message], [watch], received)
    [line] = wave.broken
    assert rule in line


def test_the_fault_table_is_written_between_its_marks(tmp_path, monkeypatch, capsys):
    """The first case and one that fails; seconds are left out, since a busy machine takes its own."""
    script = runpy.run_path(str(SCRIPTS / "faults.py"))
    names = script["main"].__globals__
    cases = [case for case in script["CASES"] if case.name in {"none", "HTTP 401"}]
    monkeypatch.setitem(names, "CASES", cases)
    monkeypatch.setitem(names, "REPEATS", 1)
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{script['BEGIN']}\nold\n{script['END']}\n\nAfter.\n")
    monkeypatch.setattr("sys.argv", ["faults.py", "--write", str(page)])
    script["main"]()
    before, table, after = page.read_text().replace(script["END"], script["BEGIN"]).split(script["BEGIN"])
    assert (before, after) == ("Before.\n\n", "\n\nAfter.\n")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.strip().splitlines()]
    assert {len(row) for row in rows} == {8}
    assert [row[:3] + row[4:6] + row[7:] for row in rows[2:]] == [
        ["none", "the right answer", "2 / 0", "the right answer", "1 / 0", ""],
        ["HTTP 401", "the right answer", "3 / 0", "the right answer", "2 / 0", "closed, 1 failed"],
    ]
    assert capsys.readouterr().out == ""
    page.write_text("No marks.")
    with pytest.raises(SystemExit, match="must say where the table goes"):
        script["main"]()
