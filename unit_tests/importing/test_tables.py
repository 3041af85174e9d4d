"""Tables: wide and long ones, under the names that others use."""

import gzip
import json

import pytest

from langchain_rlfocal.errors import InputError, OutcomeError


def brief(outcomes, *names):
    return [tuple(getattr(outcome, name) for name in names) for outcome in outcomes]


def test_a_wide_table_of_answers_and_an_empty_cell(imported, write):
    """A cell that is empty is a member that was not asked: it has no row."""
    text = "id,question,reference,topic,ann,bob\n1,2 + 3?,5,sums,It is 5.,6\n2,4 + 4?,8,sums,8,\n"
    report, outcomes = imported("wide", write("wide.csv", text), members=["ann", "bob"])
    assert brief(outcomes, "query_id", "query", "model", "response", "answer", "gold", "reward") == [
        ("1", "2 + 3?", "ann", "It is 5.", "5", "5", None),
        ("1", "2 + 3?", "bob", "6", "6", "5", None),
        ("2", "4 + 4?", "ann", "8", "8", "8", None),
    ]
    assert outcomes[0].extras == {"topic": "sums"}
    assert report.skipped["an empty cell: the member was not asked"] == (1, f"{write('wide.csv', text)}:3")


def test_a_wide_table_of_rewards_with_costs_and_responses_as_routerbench_has_them(imported, write):
    """Columns `ann`, `ann|total_cost`, `ann|model_response`; texts are lists of one, as Python writes them."""
    text = (
        "sample_id,prompt,eval_name,ann,ann|model_response,ann|total_cost,bob,bob|model_response,bob|total_cost,oracle_model_to_route_to\n"
        "s.1,\"['2 + 3?']\",sums,1.0,\"['5']\",0.001,0.0,\"['6']\",0.0001,ann\n"
    )
    _, outcomes = imported("auto", write("router.csv", text))
    assert brief(outcomes, "task", "query_id", "query", "model", "response", "reward", "cost_usd") == [
        ("sums", "s.1", "2 + 3?", "ann", "5", 1.0, 0.001),
        ("sums", "s.1", "2 + 3?", "bob", "6", 0.0, 0.0001),
    ]
    assert outcomes[0].extras == {"oracle_model_to_route_to": "ann"}


@pytest.mark.parametrize(
    ("text", "rewards"),
    [
        ("question,ann,bob\n1 - 1?,0,1\n", [0.0, 1.0]),
        ("question;gold;ann;bob\nIs water wet?;yes;no;yes\n", [0.0, 1.0]),
        ("question;gold;ann;bob\nWhat is half of 1?;0.5;0.5;1\n", [0.5, 1.0]),
    ],
)
def test_columns_that_may_be_answers_or_rewards_are_asked_for(imported, write, text, rewards):
    """0 and 1, yes and no are both, and beside a right answer every number may be one."""
    path = write("wide.csv", text)
    with pytest.raises(OutcomeError, match=r"wide\.csv: `--values` must say what the members' columns hold"):
        imported("wide", path, members=["ann", "bob"])
    _, outcomes = imported("wide", path, members=["ann", "bob"], values="rewards")
    assert brief(outcomes, "response", "reward") == [(None, reward) for reward in rewards]
    _, outcomes = imported("wide", path, members=["ann", "bob"], values="answers")
    said = text.splitlines()[1].replace(";", ",").split(",")[-2:]
    assert brief(outcomes, "response", "reward") == [(answer, None) for answer in said]


def test_columns_that_can_be_but_one_thing_are_not_asked_for(imported, write):
    """Parts of 1 without a right answer are rewards, and so is everything on a scale; a column with one text in it holds answers."""
    _, outcomes = imported("wide", write("wide.csv", "question,ann,bob\nQ?,0.5,1\n"), members=["ann", "bob"])
    assert brief(outcomes, "response", "reward") == [(None, 0.5), (None, 1.0)]
    stars = write("wide.csv", "question,ann,bob\nQ?,1,4\n")
    _, outcomes = imported("wide", stars, members=["ann", "bob"], scale=(1, 5))
    assert brief(outcomes, "response", "reward") == [(None, 0.0), (None, 0.75)]
    _, outcomes = imported("wide", write("wide.csv", "question,ann,bob\nQ?,1,one\n"), members=["ann", "bob"])
    assert brief(outcomes, "response", "reward") == [("1", None), ("one", None)]


def test_a_column_with_its_reward_beside_it_holds_answers(imported, write):
    """And one with its response beside it holds rewards: 1 and 0 are asked for in neither."""
    _, outcomes = imported("wide", write("wide.csv", "question,gold,ann,ann|score,bob,bob|score\n1 - 1?,0,0,1,1,0\n"))
    assert brief(outcomes, "response", "reward") == [("0", 1.0), ("1", 0.0)]
    _, outcomes = imported("wide", write("wide.csv", "question,gold,ann,ann|response\n1 - 1?,0,1,It is 0.\n"))
    assert brief(outcomes, "response", "reward") == [("It is 0.", 1.0)]


def test_a_column_of_numbers_beside_the_members_is_no_member(imported, write):
    path = write("wide.csv", "question,ann,bob,difficulty\nQ?,0.5,1,0.3\n")
    with pytest.raises(OutcomeError, match=r"`--member` must say which .* has: ann, bob, difficulty\."):
        imported("wide", path)
    _, outcomes = imported("wide", path, members=["ann", "bob"])
    assert brief(outcomes, "model", "reward") == [("ann", 0.5), ("bob", 1.0)]
    assert outcomes[0].extras == {"difficulty": "0.3"}


def test_scores_and_costs_are_read_as_people_write_them(imported, write, tmp_path):
    """A decimal comma, a percentage, a word; what is none of them is counted, with the first of it and its place.

    What says that there is nothing is no fault.
    """
    text = (
        "question;model;output;score;cost\nQ?;ann;5;0,5;0,02\nQ?;bob;5;75,5 %;$0,125\nQ?;cid;5;PASS;2 €\n"
        "Q?;dee;5;wrong;n/a\nQ?;eve;5;good;\nQ?;fay;5;4 of 5;0\nQ?;gus;5;NaN;-\n"
    )
    report, outcomes = imported("long", write("long.csv", text))
    assert brief(outcomes, "model", "reward", "cost_usd") == [
        ("ann", 0.5, 0.02),
        ("bob", 0.755, 0.125),
        ("cid", 1.0, None),
        ("dee", 0.0, None),
        ("eve", None, None),
        ("fay", None, 0.0),
        ("gus", None, None),
    ]
    assert report.notes == {
        f"score not a number, left open: 'good' (first: {tmp_path / 'long.csv'}:6)": 2,
        f"cost_usd not a number, left open: '2 €' (first: {tmp_path / 'long.csv'}:4)": 1,
    }


def test_on_a_scale_words_are_its_ends_and_a_percentage_a_number_on_it(imported, write):
    text = "question,model,output,score\nQ?,ann,5,pass\nQ?,bob,5,fail\nQ?,cid,5,25%\n"
    _, outcomes = imported("long", write("long.csv", text), scale=(0, 100))
    assert brief(outcomes, "reward") == [(1.0,), (0.0,), (0.25,)]
    columns = {"reward": "stars"}
    text = "question,model,output,stars\nQ?,ann,5,good\n"
    report, (outcome,) = imported("long", write("long.csv", text), columns=columns)
    assert outcome.reward is None
    assert sum("score not a number, left open: 'good'" in note for note in report.notes) == 1


def test_a_label_is_no_right_answer_unless_the_user_says_so(imported, write):
    """It may be what a person said of the answer: 1, it is right."""
    path = write("long.csv", "question,model,output,label\nQ?,ann,Paris,1\n")
    _, (outcome,) = imported("long", path)
    assert (outcome.gold, outcome.extras) == (None, {"label": "1"})
    _, (outcome,) = imported("long", path, columns={"gold": "label"})
    assert outcome.gold == "1"
    _, (outcome,) = imported("long", write("long.csv", "question,model,output,reference\nQ?,ann,Paris,Paris\n"))
    assert outcome.gold == "Paris"


def test_columns_of_answers_are_members_only_by_name(imported, write):
    """Any column of texts may be an answer: the user says which are."""
    with pytest.raises(OutcomeError, match=r"`--member` must say which columns are members.* has: topic, ann\."):
        imported("wide", write("wide.csv", "question,topic,ann\n2 + 3?,sums,5\n"))


def test_a_column_that_is_no_member_is_refused_by_name(imported, write):
    with pytest.raises(OutcomeError, match=r"wide\.csv: `--member` must name columns of the table, got cid"):
        imported("wide", write("wide.csv", "question,ann\n2 + 3?,5\n"), members=["cid"])


def test_a_long_table_under_other_names(imported, write):
    """Names that others use are known; a user's own column is kept, one that holds secrets is not."""
    rows = [
        {
            "prompt": "2 + 3?",
            "llm": "ann",
            "output": "5",
            "is_correct": True,
            "reviewer": "eve",
            "api_key": "planted-secret",
        },
        {
            "prompt": "2 + 3?",
            "llm": "bob",
            "output": "6",
            "is_correct": False,
            "reviewer": "key=sk-abcdefgh12345",
            "api_key": "x",
        },
    ]
    report, outcomes = imported("long", write("long.jsonl", rows))
    assert brief(outcomes, "query", "model", "response", "answer", "reward") == [
        ("2 + 3?", "ann", "5", "5", 1.0),
        ("2 + 3?", "bob", "6", "6", 0.0),
    ]
    assert outcomes[0].extras == {"reviewer": "eve"}
    assert "abcdefgh12345" not in outcomes[1].extras["reviewer"]
    assert report.notes == {"value of `api_key` left out: it may be a secret": 2}


def test_fields_are_mapped_by_their_paths(imported, write):
    rows = [{"q": {"text": "2 + 3?"}, "who": "ann", "said": ["5"], "stars": "4", "meta": '{"topic": "sums"}'}]
    columns = {"query": "q.text", "model": "who", "response": "said.0", "reward": "stars", "task": "meta.topic"}
    _, (outcome,) = imported("long", write("mine.jsonl", rows), columns=columns, scale=(1, 5))
    assert (outcome.task, outcome.query, outcome.model, outcome.response, outcome.reward) == (
        "sums",
        "2 + 3?",
        "ann",
        "5",
        0.75,
    )


def test_a_field_that_no_row_has_is_refused_with_those_there_are(imported, write):
    path = write("mine.jsonl", [{"prompt": "2 + 3?", "model": "ann", "output": "5"}])
    with pytest.raises(InputError, match=r"`--map gold=right` must name a field of the rows.* They have: .*prompt"):
        imported("long", path, columns={"gold": "right"})
    with pytest.raises(InputError, match=r"`--map` must name a column of the table \(task, .*got 'question'"):
        imported("long", path, columns={"question": "prompt"})


def test_semicolons_a_mark_and_texts_over_several_lines(imported, write, tmp_path):
    """A quoted comma in the header is no separator, and a line of the file is where a row ends."""
    text = '\ufeffquestion;model;"response, in full";score\n"2\n+ 3?";ann;5;1\n;bob;6;0\n'
    report, (outcome,) = imported("long", write("long.csv", text), columns={"response": "response, in full"})
    assert (outcome.query, outcome.response, outcome.reward) == ("2\n+ 3?", "5", 1.0)
    assert report.skipped == {"no question": (1, f"{tmp_path / 'long.csv'}:4")}


def test_one_id_of_several_texts_becomes_several_ids_and_one_of_one_text_stays(imported, write):
    rows = [
        {"id": "1", "question": "2 + 3?", "model": "ann", "answer": "5"},
        {"id": "1", "question": "4 + 4?", "model": "ann", "answer": "8"},
        {"id": "2", "question": "1 + 1?", "model": "ann", "answer": "2"},
    ]
    report, outcomes = imported("long", write("long.jsonl", rows))
    first, second, third = (outcome.query_id for outcome in outcomes)
    assert first.startswith("1~")
    assert second.startswith("1~")
    assert first != second
    assert third == "2"
    assert any("an id stands for several texts" in note for note in report.notes)
    _, again = imported("long", write("long.jsonl", rows[::-1]))
    assert {outcome.query_id for outcome in again} == {first, second, third}


LONG = "question;model;response;reward;cost\n1 + 1?;ann;2;0,5;0,25\n1 + 1?;bob;1,5;0.75;\n"


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        "sep=;\r\n" + LONG.replace("\n", "\r\n"),
        LONG.replace(";", "|"),
        "sep=|\n" + LONG.replace(";", "|"),
        LONG.replace(";", "\t"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_where_no_commas_part_the_columns_numbers_may_have_decimal_commas(imported, tmp_path, text, encoding):
    """Texts keep theirs."""
    path = tmp_path / "long.csv"
    path.write_bytes(text.encode(encoding))
    for source in ("long", "auto"):
        _, outcomes = imported(source, path)
        assert brief(outcomes, "model", "response", "reward", "cost_usd") == [
            ("ann", "2", 0.5, 0.25),
            ("bob", "1,5", 0.75, None),
        ]


def test_where_commas_part_the_columns_a_comma_makes_no_number_and_that_is_said(imported, write):
    path = write("long.csv", 'question,model,response,reward,cost\n1 + 1?,ann,2,"0,5","1,234"\n')
    report, outcomes = imported("long", path)
    assert brief(outcomes, "reward", "cost_usd") == [(None, None)]
    assert report.notes == {
        f"score not a number, left open: '0,5' (first: {path}:2)": 1,
        f"cost_usd not a number, left open: '1,234' (first: {path}:2)": 1,
    }


def test_a_wide_table_of_rewards_with_decimal_commas(imported, write):
    _, outcomes = imported("wide", write("wide.csv", "question;ann;bob\n1 + 1?;0,5;1\n"), members=["ann", "bob"])
    assert brief(outcomes, "model", "reward") == [("ann", 0.5), ("bob", 1.0)]


def test_rows_of_another_length_and_repeated_headers_are_left_out_and_counted(imported, write):
    """A shift of cells would put an answer into another column."""
    text = "question,model,response,reward\n1 + 1?,ann,2,1\n1 + 1?,bob,two, or so,0\nquestion,model,response,reward\n1 + 1?,cid\n"
    path = write("long.csv", text)
    report, outcomes = imported("long", path)
    assert brief(outcomes, "model") == [("ann",)]
    assert report.read == 4
    assert report.skipped == {
        "more or fewer cells than the header has": (2, f"{path}:3"),
        "repeats the header": (1, f"{path}:4"),
    }


@pytest.mark.parametrize(("suffix", "line"), [("csv", 2), ("jsonl", 1), ("json", 1), ("csv.gz", 2)])
def test_a_text_in_another_encoding_is_refused_with_the_line_and_its_likely_name(imported, tmp_path, suffix, line):
    rows = [{"question": "Wer wäscht die Straße für die Gäste über den Fluß?", "model": "ann", "response": "Müller"}]
    text = "question,model,response\n" + ",".join(rows[0].values()) + "\n"
    data = (text if "csv" in suffix else json.dumps(rows if suffix == "json" else rows[0], ensure_ascii=False)).encode(
        "cp1252"
    )
    path = tmp_path / f"long.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    with pytest.raises(OutcomeError, match=f"0xe4 in line {line}.*cp125[02].*wäscht"):
        imported("long", path)
