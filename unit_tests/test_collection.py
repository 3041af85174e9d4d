"""Collection: from questions to outcomes, interrupted or not."""

import asyncio
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.collection import acollect, collect, collect_into, is_failure, recorded_in, unfinished_path
from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.outcomes import OutcomeTable, Question
from langchain_rlfocal.pool import ModelPool, PoolMember
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel

QUESTIONS = [
    Question(task="quiz/yes_no", query_id="1", query="Can a fish swim? Answer yes or no.", gold="yes"),
    Question(task="quiz/sums", query_id="1", query="What is 2 + 2? Answer with a number.", gold="4", kind="number"),
    Question(task="quiz/sums", query_id="2", query="What is 3 + 4? Answer with a number.", gold="7", kind="number"),
]
RIGHT = dict(zip([q.query for q in QUESTIONS], ["Yes, it can.", "The answer is 4.", "7"], strict=True))
WRONG = dict(zip([q.query for q in QUESTIONS], ["No.", "4", "8"], strict=True))
TEXT = {(q.task, q.query_id): q.query for q in QUESTIONS}


def make_pool(**models) -> ModelPool:
    return ModelPool.from_models(models)


def timeless(outcomes):
    """Outcomes without what a clock measured."""
    return [replace(outcome, latency_s=None) for outcome in outcomes]


def test_every_member_is_asked_every_question_and_scored_by_the_gold_answer():
    """Ann knows all three; Bob has the first and the last wrong. Rows run by question, then by member."""
    outcomes = collect(make_pool(ann=ScriptedChatModel(script=RIGHT), bob=ScriptedChatModel(script=WRONG)), QUESTIONS)
    assert [(o.task, o.query_id, o.model, o.answer, o.reward) for o in outcomes] == [
        ("quiz/yes_no", "1", "ann", "yes", 1.0),
        ("quiz/yes_no", "1", "bob", "no", 0.0),
        ("quiz/sums", "1", "ann", "4", 1.0),
        ("quiz/sums", "1", "bob", "4", 1.0),
        ("quiz/sums", "2", "ann", "7", 1.0),
        ("quiz/sums", "2", "bob", "8", 0.0),
    ]
    assert [o.gold for o in outcomes] == ["yes", "yes", "4", "4", "7", "7"]
    assert outcomes[2].response == "The answer is 4."
    assert all(o.query == TEXT[o.task, o.query_id] for o in outcomes)


def test_tokens_price_and_log_probability_are_recorded_and_what_is_unknown_stays_so():
    """A token a word: 9 of the prompt at 2 dollars per million and 4 of the answer at 1 are (18 + 4) / 1e6 dollars."""
    told = PoolMember(
        "ann",
        ScriptedChatModel(script=RIGHT, logprob=-0.5),
        input_usd_per_mtok=2.0,
        output_usd_per_mtok=1.0,
    )
    silent = PoolMember("bob", ScriptedChatModel(script=RIGHT, reports_usage=False))
    known, unknown = collect(ModelPool([told, silent]), QUESTIONS[1:2])
    assert (known.prompt_tokens, known.completion_tokens) == (9, 4)
    assert known.cost_usd == pytest.approx(22e-6)
    assert known.logprob == pytest.approx(-0.5)
    assert (unknown.prompt_tokens, unknown.completion_tokens) == (None, None)
    assert (unknown.cost_usd, unknown.logprob) == (None, None)


def test_a_member_that_fails_is_a_non_answer_worth_nothing_and_its_reason_is_told():
    seen = []
    pool = make_pool(ann=ScriptedChatModel(script=RIGHT), bob=FailingChatModel(error=ValueError("no such model")))
    outcomes = collect(pool, QUESTIONS, on_collected=seen.append)
    failed = [o for o in outcomes if o.model == "bob"]
    assert [(o.answer, o.response, o.reward) for o in failed] == [(None, None, 0.0)] * 3
    assert all(o.latency_s is not None for o in failed)
    assert [o.reward for o in outcomes if o.model == "ann"] == [1.0] * 3
    assert [[(f.member, f.kind, f.reason) for f in each.failures] for each in seen] == [
        [("bob", "ValueError", "no such model")]
    ] * 3


def test_all_members_of_the_questions_in_flight_are_out_at_once_and_no_more():
    """Two questions of two members meet at a barrier for four: one call fewer at a time, and nobody would pass it."""
    barrier, out, most = asyncio.Barrier(4), [], []

    async def measure():
        out.append(1)
        await barrier.wait()
        for _ in range(20):  # lets every other task run, were there one
            await asyncio.sleep(0)
        most.append(len(out))
        await barrier.wait()
        out.pop()

    models = {name: ScriptedChatModel(script=RIGHT, on_acall=measure) for name in ("ann", "bob")}
    many = [replace(QUESTIONS[0], query_id=str(n)) for n in range(6)]
    assert len(collect(make_pool(**models), many, max_in_flight=2)) == len(most) == 12
    assert set(most) == {4}


def test_outcomes_stand_in_the_order_of_the_questions_whichever_is_answered_first():
    """The first question waits until the second has been answered."""
    calls, answered, told = count(), asyncio.Event(), []

    async def first_waits():
        if next(calls) == 0:
            await answered.wait()

    def tell(collected):
        told.append(collected.question)
        answered.set()

    pool = make_pool(ann=ScriptedChatModel(script=RIGHT, on_acall=first_waits))
    outcomes = collect(pool, QUESTIONS[:2], on_collected=tell, max_in_flight=2)
    assert told == [QUESTIONS[1], QUESTIONS[0]]
    assert [o.query for o in outcomes] == [q.query for q in QUESTIONS[:2]]


def test_what_is_recorded_is_not_asked_again_but_a_failure_is_and_its_answer_replaces_it(tmp_path: Path):
    """Bob fails at first; at the second run he alone is asked, and the third asks nobody."""
    out, ann, bob = tmp_path / "outcomes.parquet", ScriptedChatModel(script=RIGHT), ScriptedChatModel(script=WRONG)
    collect_into(out, make_pool(ann=ann, bob=FailingChatModel(error=ValueError("no key"))), QUESTIONS)
    ann.asked.clear()
    for _ in range(2):
        table = collect_into(out, make_pool(ann=ann, bob=bob), QUESTIONS)
    assert (ann.asked, len(bob.asked)) == ([], 3)
    assert [o.reward for o in table if o.model == "bob"] == [0.0, 1.0, 0.0]
    assert len(table) == len(OutcomeTable.read(out)) == 6


def test_a_failure_of_an_interrupted_run_is_asked_again(tmp_path: Path):
    """The unfinished part holds it already; what the next run, interrupted too, records takes its place."""
    out = tmp_path / "outcomes.parquet"

    def interrupt(_):
        raise KeyboardInterrupt

    failing, ann = FailingChatModel(error=ValueError("no key")), ScriptedChatModel(script=RIGHT)
    for model, response in ((failing, None), (failing, None), (ann, "Yes, it can.")):
        with pytest.raises(KeyboardInterrupt):
            collect_into(out, make_pool(ann=model), QUESTIONS, on_collected=interrupt, max_in_flight=1)
        assert [o.response for o in OutcomeTable.read(unfinished_path(out))] == [response]

    assert len(collect_into(out, make_pool(ann=ann), QUESTIONS)) == len(ann.asked) == 3


def test_an_end_before_anything_new_was_answered_leaves_a_collection_that_goes_on(tmp_path: Path):
    """The one failure was taken out of the unfinished part, and nothing had come in its place."""
    out, ann = tmp_path / "outcomes.parquet", ScriptedChatModel(script=RIGHT)
    (failed,) = collect(make_pool(ann=FailingChatModel(error=ValueError("no key"))), QUESTIONS[:1])
    OutcomeTable.from_outcomes([failed]).write(unfinished_path(out))
    with pytest.raises(KeyboardInterrupt):
        collect_into(out, make_pool(ann=FailingChatModel(error=KeyboardInterrupt())), QUESTIONS[:1])

    assert len(collect_into(out, make_pool(ann=ann), QUESTIONS)) == 3


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ({"response": "Yes"}, {"response": None}, "old"),
        ({"response": None}, {"response": "Yes"}, "new"),
        ({"response": None}, {"response": None}, "new"),
    ],
)
def test_of_two_records_an_answer_wins_over_a_failure_and_the_newer_over_the_older(tmp_path: Path, old, new, kept):
    """The table is older than the unfinished part. Latency tells them apart."""
    out = tmp_path / "outcomes.jsonl"
    (answered,) = collect(make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:1])
    for path, seconds, change in ((out, 1.0, old), (unfinished_path(out), 2.0, new)):
        gone = {"answer": None, "reward": 0.0} if change["response"] is None else {}
        OutcomeTable.from_outcomes([replace(answered, latency_s=seconds, **change, **gone)]).write(path)

    assert [o.latency_s for o in recorded_in(out)] == [{"old": 1.0, "new": 2.0}[kept]]


@pytest.mark.parametrize("told", [{"answer": "no"}, {"reward": 1.0}, {"response": ""}])
def test_an_outcome_that_says_anything_of_an_answer_is_no_failure(told):
    """Tables of others may have no column for responses; their members are not asked again for that."""
    (failed,) = collect(make_pool(ann=FailingChatModel(error=ValueError("no key"))), QUESTIONS[:1])
    assert is_failure(failed)
    assert not is_failure(replace(failed, **told))


def test_who_joins_later_gets_the_label_of_who_said_the_same_before():
    """Texts have the label of their group; the group that is recorded must not be renamed by a newcomer."""
    story = "The sea is a vast body of salt water that covers most of our planet and is home to many kinds of fish"
    question = Question(task="open", query_id="1", query="Describe the sea.", gold=story, kind="long_text")
    (first,) = collect(make_pool(ann=ScriptedChatModel(script=[story])), [question])
    for other in (f"**{story}**!", f"A {story}"):
        (later,) = collect(make_pool(bob=ScriptedChatModel(script=[other])), [question], recorded=[first])

        assert later.answer == first.answer


@settings(max_examples=20)
@given(done=st.sets(st.tuples(st.integers(0, 2), st.sampled_from(["ann", "bob"]))))
def test_a_collection_in_two_parts_gives_what_one_gives_at_once(done):
    """Whatever part of the table was recorded before, it and the rest are the whole."""
    pool = make_pool(ann=ScriptedChatModel(script=RIGHT), bob=ScriptedChatModel(script=WRONG))
    whole = timeless(collect(pool, QUESTIONS))
    keys = {(QUESTIONS[index].task, QUESTIONS[index].query_id, name) for index, name in done}
    recorded = [o for o in whole if (o.task, o.query_id, o.model) in keys]
    rest = timeless(collect(pool, QUESTIONS, recorded=recorded))
    assert len(rest) + len(recorded) == len(whole)
    assert {(o.task, o.query_id, o.model): o for o in [*recorded, *rest]} == {
        (o.task, o.query_id, o.model): o for o in whole
    }


@pytest.mark.parametrize(
    ("questions", "named", "row", "column"),
    [
        ([QUESTIONS[0], replace(QUESTIONS[1], query_id="9", gold=None)], "quiz/sums/9", 2, "gold"),
        ([QUESTIONS[1], QUESTIONS[1]], "unique within the task", 2, "query_id"),
        ([replace(QUESTIONS[0], query="Can a fish fly?")], "another `query_id`", 1, "query"),
    ],
)
def test_questions_that_break_a_rule_are_refused_before_anybody_is_asked(questions, named, row, column):
    """A question without a gold answer, one that occurs twice, one whose text changed since it was recorded."""
    ann = ScriptedChatModel(script=RIGHT)
    recorded = collect(make_pool(bob=ann), QUESTIONS[:1])
    ann.asked.clear()
    with pytest.raises(OutcomeError, match=named) as caught:
        collect(make_pool(ann=ann), questions, recorded=recorded)
    assert (caught.value.row, caught.value.column) == (row, column)
    with pytest.raises(InputError, match="at least 1, got 0"):
        collect(make_pool(ann=ann), QUESTIONS, max_in_flight=0)
    assert ann.asked == []


async def test_a_cancelled_collection_leaves_no_call_behind():
    started, never = asyncio.Event(), asyncio.Event()

    async def hang():
        started.set()
        await never.wait()

    before = asyncio.all_tasks()
    task = asyncio.create_task(acollect(make_pool(ann=ScriptedChatModel(script=RIGHT, on_acall=hang)), QUESTIONS))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asyncio.all_tasks() == before


async def test_an_error_of_the_callback_ends_the_collection_and_leaves_no_call_behind():
    """The first question is answered and cannot be stored; the others, out at the same time, would never be."""
    calls = count()

    async def answer_only_the_first():
        if next(calls):
            await asyncio.Event().wait()

    def refuse(collected):
        raise OSError("disk full")

    pool = make_pool(ann=ScriptedChatModel(script=RIGHT, on_acall=answer_only_the_first))
    before = asyncio.all_tasks()
    with pytest.raises(OSError, match="disk full"):
        await acollect(pool, QUESTIONS, on_collected=refuse)

    assert asyncio.all_tasks() == before


def test_a_file_collected_in_two_runs_equals_one_collected_at_once(tmp_path: Path):
    """The first run is stopped after two questions: no table yet, but what was answered is kept and not asked again."""
    models = {"ann": ScriptedChatModel(script=RIGHT), "bob": ScriptedChatModel(script=WRONG)}
    pool, out, whole = make_pool(**models), tmp_path / "outcomes.parquet", tmp_path / "whole.parquet"
    collect_into(whole, pool, QUESTIONS)
    for model in models.values():
        model.asked.clear()
    seen = []

    def stop_after_two(collected):
        seen.append(collected)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect_into(out, pool, QUESTIONS, on_collected=stop_after_two, max_in_flight=1)
    assert not out.exists()
    assert len(OutcomeTable.read(unfinished_path(out))) == 4
    table = collect_into(out, pool, QUESTIONS)
    assert [len(model.asked) for model in models.values()] == [3, 3]
    assert timeless(OutcomeTable.read(out)) == timeless(table) == timeless(OutcomeTable.read(whole))
    assert sorted(tmp_path.iterdir()) == [out, whole]


def test_what_a_table_held_of_others_stays_in_it(tmp_path: Path):
    out = tmp_path / "outcomes.jsonl"
    collect_into(out, make_pool(old=ScriptedChatModel(script=WRONG)), QUESTIONS[2:])
    collect_into(out, make_pool(ann=ScriptedChatModel(script=RIGHT)), QUESTIONS[:2])
    assert [(o.task, o.query_id, o.model) for o in OutcomeTable.read(out)] == [
        ("quiz/yes_no", "1", "ann"),
        ("quiz/sums", "1", "ann"),
        ("quiz/sums", "2", "old"),
    ]


def test_an_end_between_the_last_two_steps_does_no_harm(tmp_path: Path):
    """The table was written and the unfinished part not yet removed: both hold the same outcomes."""
    out = tmp_path / "outcomes.csv"
    ann = ScriptedChatModel(script=RIGHT)
    table = collect_into(out, make_pool(ann=ann), QUESTIONS)
    table.write(unfinished_path(out))
    ann.asked.clear()
    again = collect_into(out, make_pool(ann=ann), QUESTIONS)
    assert ann.asked == []
    assert list(again) == list(OutcomeTable.read(out)) == list(table)
    assert not unfinished_path(out).exists()


@pytest.mark.parametrize("name", ["outcomes.txt", "no/such/folder/outcomes.jsonl"])
def test_a_table_that_cannot_be_written_is_refused_before_anybody_is_asked(tmp_path: Path, name: str):
    ann = ScriptedChatModel(script=RIGHT)
    with pytest.raises(OutcomeError, match=name):
        collect_into(tmp_path / name, make_pool(ann=ann), QUESTIONS)

    assert ann.asked == []
    assert list(tmp_path.iterdir()) == []
