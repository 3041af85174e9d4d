"""`rlfocal score`: what is on record gets new scores, nobody is asked for an answer again, and what changed is said."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from langchain_rlfocal.collection.exporting import TakenIn, take_in
from langchain_rlfocal.log import Attempt, OutcomeLog
from langchain_rlfocal.log.tables import table_of
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, Question

SUMS = {"1": ("What is 2 plus 2?", "4"), "2": ("What is 3 plus 3?", "7")}  # the second reference is wrong
SAID = {("1", "a"): "4", ("1", "b"): "5", ("2", "a"): "It is 6.", ("2", "b"): "7"}
CORRECTED = [
    {"query_id": name, "input": text, "reference": "4" if name == "1" else "6"} for name, (text, _) in SUMS.items()
]
POOLS = """
import json
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.testing import ScriptedChatModel

def answer(messages):
    token = str(messages[0].text).rpartition('{"id": "')[2][:8]
    lines = [json.loads(line) for line in str(messages[-1].text).split("\\n")[1:-1]]
    shown = {name: value for line in lines for name, value in line.items()}
    return json.dumps({"id": token, "score": 1 if "6" in shown["reply"] or "4" in shown["reply"] else 0})

def evaluated(inputs, outputs):
    return 1

def pool():
    return ModelPool([PoolMember("judge", ScriptedChatModel(script=answer), input_usd_per_mtok=1e4, output_usd_per_mtok=1e4)])
"""


def outcomes():
    for (name, model), text in SAID.items():
        query, gold = SUMS[name]
        yield Outcome(
            task="questions",
            query_id=name,
            query=query,
            model=model,
            response=text,
            answer=text[-2:].strip("."),
            gold=gold,
            reward=float(gold in text),
            extras={"reviewed_by": "R. Viewer"},
        )
    yield Outcome(task="questions", query_id="1", query=SUMS["1"][0], model="c", answer=None, gold="4", reward=0.0)


@pytest.fixture
def folder(folder):
    OutcomeTable.from_outcomes(outcomes()).write("o.jsonl")
    Path("corrected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in CORRECTED), encoding="utf-8")
    Path("my_judges.py").write_text(POOLS, encoding="utf-8")
    return folder


@pytest.fixture
def log(folder):
    """The same in a log; `c` failed."""
    log = OutcomeLog(folder / "o.db")
    log.add_questions(
        [Question(task="questions", query_id=name, query=q, gold=gold) for name, (q, gold) in SUMS.items()]
    )
    attempts = [Attempt(outcome=one, failure=None if one.response else "TimeoutError: too slow") for one in outcomes()]
    log.add_attempts(attempts, run="r")
    yield log
    log.close()


def rewards(table):
    return {(one.query_id, one.model): one.reward for one in table}


NEW = {("1", "a"): 1.0, ("1", "b"): 0.0, ("2", "a"): 1.0, ("2", "b"): 0.0, ("1", "c"): 0.0}


def test_corrected_references_score_a_table_again(folder, cli):
    """Of five answers one failed; of the others one rises, one falls, and two stay."""
    said = cli.said("score", "o.jsonl", "--questions", "corrected.jsonl", "--out", "new.parquet")
    assert (said["scored"], said["rewards"]) == (4, {"up": 1, "down": 1, "new": 0})
    assert said["nothing_on_record"] == 1
    table = OutcomeTable.read("new.parquet")
    assert rewards(table) == NEW
    assert {one.gold for one in table if one.query_id == "2"} == {"6"}
    assert [one.extras.get("reviewed_by") for one in table] == ["R. Viewer"] * 4 + [None]
    assert rewards(OutcomeTable.read("o.jsonl")) != NEW, "what was there stays"
    shown = cli.shown("score", "o.jsonl", "--questions", "corrected.jsonl", "--out", "new.parquet")
    assert "4 of 5 answers scored: 1 rewards up, 1 down, 0 new." in shown


def test_corrected_references_score_a_log_again_and_its_table_follows(folder, log, cli):
    before = log.last_number
    said = cli.said("score", "o.db", "--questions", "corrected.jsonl")
    assert (said["scored"], said["rewards"]) == (4, {"up": 1, "down": 1, "new": 0})
    assert log.last_number > before
    assert rewards(table_of(log)) == NEW
    assert log.questions()["questions", "2"].gold == "6"
    again = cli.said("score", "o.db")
    assert again["rewards"] == {"up": 0, "down": 0, "new": 0}, "the corrected reference is the one on record"


def test_answers_that_the_file_of_questions_leaves_out_stay(folder, cli):
    Path("corrected.jsonl").write_text(json.dumps(CORRECTED[1]))
    said = cli.said("score", "o.jsonl", "--questions", "corrected.jsonl", "--out", "new.jsonl")
    assert (said["scored"], said["not_in_questions"]) == (2, 2)


def test_questions_that_nothing_on_record_answers_are_named(folder, cli):
    """The id 2.0, as pandas writes 2, is found; the id 9, and 2 of another task, are not."""
    rows = [{**CORRECTED[1], "query_id": 2.0}, {**CORRECTED[0], "query_id": 9}, {**CORRECTED[1], "task": "other"}]
    Path("corrected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    args = ["score", "o.jsonl", "--questions", "corrected.jsonl", "--out", "new.jsonl"]
    said = cli.said(*args)
    assert (said["scored"], said["questions_without_answers"]) == (2, ["questions/9", "other/2"])
    assert "2 of the questions given have no answer on record" in (shown := cli.shown(*args))
    assert "questions/9, other/2" in shown
    Path("corrected.jsonl").write_text(json.dumps(rows[0]))
    assert cli.said(*args)["questions_without_answers"] == []
    assert "no answer on record" not in cli.shown(*args)


CONTAINS = Question(task="t", query_id="1", query="Name a sum.", gold="6", scorer="contains", kind="number")


def test_a_table_says_how_each_question_is_scored(folder, cli):
    """`It is not 5 but 6` contains the reference, and is another number; the first question's kind decides nothing then."""
    log = OutcomeLog(folder / "own.db")
    questions = [
        CONTAINS,
        replace(CONTAINS, query_id="2", scorer=None, kind="exact"),
        replace(CONTAINS, query_id="3", scorer=None, kind="auto"),
    ]
    log.add_questions(questions)
    said = [
        Outcome(task="t", query_id=one.query_id, query=one.query, model="a", response=text, answer=None, reward=None)
        for one, text in zip(questions, ("I take 5 and 6 and 7", "six", "six"), strict=True)
    ]
    log.add_attempts([Attempt(outcome=one) for one in said], run="r")
    table_of(log).write("own.csv")
    assert take_in(log, "own.csv", run="again") == TakenIn(), "the log knows all that"
    log.close()
    other = OutcomeLog(folder / "other.db")
    take_in(other, "own.csv", run="r")
    assert [(one.scorer, one.kind) for one in other.questions().values()] == [
        (one.scorer, one.kind) for one in questions
    ]
    other.close()
    cli.said("score", "own.csv", "--out", "new.jsonl")
    table = list(OutcomeTable.read("new.jsonl"))
    assert [one.reward for one in table] == [1.0, 0.0, 1.0]
    assert [one.extras for one in table] == [{"scorer": "contains", "kind": "number"}, {"kind": "exact"}, {}]


def test_columns_of_the_users_own_that_are_called_so_do_not_score_unseen(folder, cli):
    """A kind of theirs is left alone; what is called a scorer and is none is refused, unless one is named."""
    OutcomeTable.from_outcomes([replace(one, extras={"kind": "easy"}) for one in outcomes()]).write("o.jsonl")
    assert cli.said("score", "o.jsonl", "--out", "new.jsonl")["scored"] == 4
    assert {one.extras["kind"] for one in OutcomeTable.read("new.jsonl")} == {"easy"}
    OutcomeTable.from_outcomes([replace(one, extras={"scorer": "R. Viewer"}) for one in outcomes()]).write("o.jsonl")
    cli.assert_refused(cli.run("score", "o.jsonl", "--out", "x.jsonl"), "'R. Viewer'", "questions/1", "--scorer NAME")
    assert cli.said("score", "o.jsonl", "--scorer", "auto", "--out", "new.jsonl")["scored"] == 4


def test_further_samples_are_scored_by_their_questions_reference(folder, cli):
    first = next(outcomes())
    rows = [
        first,
        Outcome(**{**{name: getattr(first, name) for name in first.__slots__}, "query_id": "1#2", "reward": None}),
    ]
    OutcomeTable.from_outcomes(rows).write("o.jsonl")
    said = cli.said("score", "o.jsonl", "--questions", "corrected.jsonl", "--out", "new.jsonl")
    assert (said["scored"], said["rewards"]["new"], said["not_in_questions"]) == (2, 1, 0)


def test_what_cannot_be_scored_is_unscored_with_the_reason_and_never_stops_the_rest(folder, cli):
    Path("my_scorers.py").write_text("def f(reply):\n    return int(reply)\n")
    args = ("score", "o.jsonl", "--scorer", "my_scorers:f", "--out", "new.jsonl")
    said = cli.said(*args, code=1)
    assert said["scored"] == 0
    assert sum(said["unscored"].values()) == 4
    assert any("ValueError" in reason for reason in said["unscored"])
    shown = cli.run(*args)
    assert "Unscored, " in shown.stdout
    assert "Nothing could be scored" in shown.stderr


DOWN = """
from langchain_rlfocal.scoring import Score

def scorer(reply, reference):
    if reply.endswith("7"):
        return 0.5
    raise ConnectionError("the judge is down")

def paid(reply):
    return Score(value=None, reason="no verdict", cost_usd=0.25)
"""


def test_a_scorer_that_fails_takes_no_reward_from_a_table(folder, cli):
    """It scores b's 7 alone. The others keep their rewards, with the references by which those were given."""
    Path("my_scorers.py").write_text(DOWN)
    OutcomeTable.from_outcomes([replace(one, reward=None) if one.response == "5" else one for one in outcomes()]).write(
        "o.jsonl"
    )
    args = ("score", "o.jsonl", "--scorer", "my_scorers:scorer", "--questions", "corrected.jsonl", "--out", "new.jsonl")
    said = cli.said(*args)
    assert (said["scored"], sum(said["unscored"].values()), said["kept"]) == (1, 3, 2)
    table = OutcomeTable.read("new.jsonl")
    assert rewards(table) == {("1", "a"): 1, ("1", "b"): None, ("2", "a"): 0, ("2", "b"): 0.5, ("1", "c"): 0}
    assert {one.model: one.gold for one in table if one.query_id == "2"} == {"a": "7", "b": "6"}
    assert "2 answers that could not be scored keep the reward that they had." in cli.shown(*args)


def test_a_scorer_that_fails_takes_no_reward_from_a_log(folder, log, cli):
    Path("my_scorers.py").write_text(DOWN)
    before = {one.cell: (one.outcome.reward, one.scorer) for one in log.attempts()}
    number = log.last_number
    said = cli.said("score", "o.db", "--scorer", "my_scorers:scorer")
    assert (said["scored"], sum(said["unscored"].values()), said["kept"]) == (1, 3, 3)
    assert log.last_number == number + 1, "that of the one that it scored"
    changed = {one.cell: one.outcome.reward for one in log.attempts() if one.outcome.reward != before[one.cell][0]}
    assert changed == {("questions", "2", "b", 0): 0.5}


def test_what_a_scorer_took_that_came_to_no_score_is_kept_beside_the_score_that_stands(folder, log, cli):
    Path("my_scorers.py").write_text(DOWN)
    before = {one.cell: (one.outcome.reward, one.outcome.gold) for one in log.attempts()}
    said = cli.said("score", "o.db", "--scorer", "my_scorers:paid", code=1)
    assert (said["scored"], said["kept"], said["usd"]) == (0, 4, 1.0)
    after = [*log.attempts()]
    assert {one.cell: (one.outcome.reward, one.outcome.gold) for one in after} == before
    assert [one.scoring_usd for one in after if one.failure is None] == [0.25] * 4
    assert "my_scorers:paid" not in {one.scorer for one in after}


def test_a_judge_scores_with_its_costs_and_its_agreement_with_people(folder, cli):
    """People say that b's 7 is right, the judge does not: 3 of 4 agree."""
    labels = "query_id,model,label\n1,a,true\n1,b,false\n2,a,1\n2,b,1\n"
    Path("labels.csv").write_text(labels)
    options = ["--scorer", "judge", "--pool", "my_judges:pool", "--judge", "judge", "--out", "new.jsonl"]
    said = cli.said("score", "o.jsonl", *options, "--labels", "labels.csv")
    agreement = said["agreement"]
    assert (agreement["n"], agreement["accuracy"], agreement["too_harsh"]) == (4, 0.75, 1)
    assert said["usd"] > 0
    assert said["unpriced"] == 0
    shown = cli.shown("score", "o.jsonl", *options, "--labels", "labels.csv")
    assert "Agreement with 4 labels: accuracy 0.750" in shown
    assert "Cohen's kappa 0.500" in shown
    assert "Scoring took $" in shown


JUDGE = ["--scorer", "judge", "--pool", "my_judges:pool", "--judge", "judge", "--out", "new.jsonl"]


@pytest.mark.parametrize(
    ("most", "concurrency", "scored"), [("0", "1", 0), ("0", "8", 0), ("40.95", "8", 0), ("100", "8", 4)]
)
def test_no_question_is_begun_whose_scoring_could_pass_the_limit(folder, cli, most, concurrency, scored):
    """A verdict may have 4,096 tokens, at a cent each: a question's two take 81.92 dollars at most, and what they read."""
    said = cli.said("score", "o.jsonl", *JUDGE, "--max-usd", most, "--concurrency", concurrency)
    assert (said["scored"], said["left_for_want_of_money"]) == (scored, 4 - scored)
    assert said["usd"] <= float(most)
    if not scored:
        assert rewards(OutcomeTable.read("new.jsonl")) == rewards(outcomes()), "they keep the rewards that they had"


def test_what_costs_nothing_is_scored_under_a_limit_of_nothing(folder, cli):
    assert cli.said("score", "o.jsonl", "--max-usd", "0", "--out", "new.jsonl")["scored"] == 4


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["o.jsonl"], ["--out"]),
        (["o.jsonl", "--out", "x.xlsx"], [".xlsx", ".jsonl"]),
        (["o.jsonl", "--out", "no/x.jsonl"], ["folder must exist"]),
        (["o.jsonl", "--out", "x.jsonl", "--scorer", "jsn"], ["'jsn'", "json_subset"]),
        (["o.jsonl", "--out", "x.jsonl", "--scorer", "judge"], ["--judge provider:model"]),
        (["o.jsonl", "--out", "x.jsonl", "--judge", "gpt"], ["provider:model", "--pool"]),
        (["o.jsonl", "--out", "x.jsonl", "--pool", "my_judges:pool"], ["--judge"]),
        (["o.jsonl", "--out", "x.jsonl", "--pool", "my_judges:pool", "--judge", "ann"], ["no member `ann`"]),
        (
            ["o.jsonl", "--out", "x.jsonl", "--scorer", "my_judges:evaluated", "--max-usd", "9"],
            ["can cost", "most_usd"],
        ),
        (["missing.db"], ["must exist"]),
        (["missing.jsonl", "--out", "x.jsonl"], ["must exist"]),
        (["o.jsonl", "--out", "x.jsonl", "--questions", "other.jsonl"], ["query", "another id"]),
        (["o.jsonl", "--out", "x.jsonl", "--labels", "labels.csv"], ["none of an answer"]),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_nothing_is_written(folder, cli, args, words):
    Path("other.jsonl").write_text(json.dumps({**CORRECTED[0], "input": "What is 2 times 2?"}))
    Path("labels.csv").write_text("query_id,model,label\n1,zoe,1\n")
    cli.assert_refused(cli.run("score", *args), *words)
    assert not Path("x.jsonl").exists()
