"""What `rlfocal diversity` prints: figures worked by hand, for people and as JSON."""

from dataclasses import replace

import pytest

from langchain_rlfocal.evaluation import teams
from langchain_rlfocal.outcomes import Outcome, OutcomeTable
from langchain_rlfocal.testing import make_outcomes

ANSWERS = {
    "cleo": ("a", "a", "d", "d"),
    "ann": ("b", "b", "a", "a"),
    "bob": ("b", "a", "d", "a"),
}
"""Four queries whose right answer is a. Cleo and Ann fail two each, never together; Bob fails one with each."""


def outcome(query, model, answer, **changes):
    facts = {"task": "quiz", "query_id": str(query), "query": f"Query {query}?", "model": model, "answer": answer}
    return Outcome(**{**facts, "gold": "a", "reward": float(answer == "a"), **changes})


HAND = [outcome(q, model, answers[q]) for model, answers in ANSWERS.items() for q in range(4)]


@pytest.fixture
def said(cli, tmp_path):
    """Write outcomes, run the command on them, and return its JSON."""

    def run(rows, *options):
        OutcomeTable.from_outcomes(rows).write(tmp_path / "outcomes.jsonl")
        return cli.said("diversity", tmp_path / "outcomes.jsonl", *options)

    return run


@pytest.fixture
def shown(cli, tmp_path, monkeypatch):
    """The same for people, in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def run(rows, *options):
        OutcomeTable.from_outcomes(rows).write(tmp_path / "outcomes.jsonl")
        result = cli.run("diversity", tmp_path / "outcomes.jsonl", *options)
        assert result.exit_code == 0, result.output
        assert max(map(len, result.stdout.splitlines())) <= 80
        return result.stdout

    return run


def test_json_holds_members_best_first_and_what_the_pool_measures_by_hand(said):
    """Of equal members the first of the pool is first. Failures per query 2, 1, 2, 1: Σi = 6, Σi(i−1) = 4.

    GD = 1 − 4/(2·6) = ⅔. Cleo fails queries 3 and 4 (2 and 1 failures): 1 − 2/(2·3) = ⅔, so do Ann and, with 2 and 2,
    Bob: 1 − 4/(2·4) = ½; focal (⅔ + ⅔ + ½)/3 = 11/18. Rates ½ each: independent 1 − (1 + ¼)/(1 + 1) = ⅜.
    Votes: b, a, d, a win, two of them right. Disagreement: 4, 2 and 2 of 4, mean ⅔. Double fault: 0, 1 and 1 of 4, mean ⅙.
    Entropy: right and wrong split 1 to 2 on every query, as evenly as three can.
    Answers: one of three pairs agrees, P̄ = ⅓; a 6, b 3, d 3 of 12: P_e = ¼ + 1/16 + 1/16 = ⅜; (⅓ − ⅜)/(5/8) = −1/15
    """
    facts = said(HAND)
    pool = facts["pool"]
    assert (facts["queries"], facts["dropped"], facts["max_team_size"]) == (4, 0, 3)
    assert facts["members"] == [{"name": name, "accuracy": 0.5} for name in ("cleo", "ann", "bob")]
    expected = {
        "accuracy": 1 / 2,
        "plurality_accuracy": 1 / 2,
        "focal": 11 / 18,
        "adjusted": 11 / 18 - 3 / 8,
        "generalized": 2 / 3,
        "disagreement": 2 / 3,
        "double_fault": 1 / 6,
        "entropy": 1,
        "fleiss_kappa_of_answers": -1 / 15,
    }
    assert {name: pool[name]["value"] for name in expected} == pytest.approx(expected)
    third = pytest.approx(1 / 3)
    assert facts["pairs"] == [[0, 1, third], [1, 0, third], [third, third, 0]]
    grows = {kind: {name for name in pool if pool[name]["grows_with"] == kind} for kind in ("diversity", None)}
    assert grows["diversity"] == {"focal", "adjusted", "generalized", "disagreement", "entropy"}
    assert grows[None] == {"accuracy", "plurality_accuracy"}
    assert {pool[name]["grows_with"] for name in ("kappa", "yule_q", "phi", "double_fault", "fleiss_kappa")} == {
        "agreement"
    }


def test_json_holds_every_team_and_the_best_of_each_size(said):
    """Of one all are as good, so the first; of two, Cleo and Ann never fail together, and their first decides the votes."""
    facts = said(HAND)
    assert [" ".join(team["members"]) for team in facts["teams"]] == [
        *("cleo", "ann", "bob", "cleo ann", "cleo bob", "ann bob", "cleo ann bob")
    ]
    every = ["focal", "adjusted", "plurality_accuracy"]
    assert [(team["members"], team["best_by"]) for team in facts["best_teams"]] == [
        (["cleo"], ["plurality_accuracy"]),
        (["cleo", "ann"], every),
        (["cleo", "ann", "bob"], every),
    ]
    pair = next(team for team in facts["teams"] if team["members"] == ["cleo", "ann"])
    assert (pair["focal"], pair["yule_q"], pair["kappa"], pair["disagreement"]) == (1, -1, -1, 1)
    assert pair.items() <= facts["best_teams"][1].items()


def test_members_are_ranked_so_that_the_best_decides_a_tie(said):
    """Bob, last of the pool, is right on both queries; whoever disagrees with him alone loses the vote."""
    facts = said([outcome(q, model, answer) for model, answer in (("ann", "b"), ("bob", "a")) for q in range(2)])
    assert facts["members"] == [{"name": "bob", "accuracy": 1}, {"name": "ann", "accuracy": 0}]
    assert facts["pool"]["plurality_accuracy"]["value"] == 1


def test_of_equally_diverse_teams_the_first_by_rank_is_best(said):
    """Nobody ever fails with another, so all pairs have full focal diversity; Cleo and Dan fail least."""
    wrong = {"ann": (0, 1), "bob": (2, 3), "cleo": (4,), "dan": (5,)}
    rows = [outcome(q, name, f"not {name}" if q in mine else "a") for name, mine in wrong.items() for q in range(9)]
    by_focal = [team["members"] for team in said(rows)["best_teams"] if "focal" in team["best_by"]]
    assert by_focal[0] == ["cleo", "dan"]


def test_people_read_members_measures_pairs_and_best_teams(shown):
    text = shown(HAND)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    for line in (
        "Members on 4 queries",
        "2 ann 0.500",
        "focal diversity 0.611 diversity",
        "focal diversity, accuracy-adjusted 0.236 diversity",
        "double fault, mean of pairs 0.167 agreement",
        "plurality accuracy 0.500",
        "3 0.33 0.33 -",
        "1 0.500 0.500 0.000 0.000 plurality",
        "1 2 3 0.500 0.500 0.611 0.236 focal, adjusted, plurality",
    ):
        assert line in lines, line
    assert "left out" not in text
    assert "not measured" not in text


def test_names_cannot_steer_the_terminal(shown):
    text = shown([outcome(1, name, "a") for name in ("[red]ann", "bob\x1b[2J")])
    assert "[red]ann" in text
    assert "bob [2J" in text
    assert "\x1b" not in text


def test_queries_that_a_member_left_open_are_counted(said, shown):
    rows = [*HAND, outcome(9, "ann", "a")]
    assert said(rows)["dropped"] == 1
    assert "1 queries are left out, because a member did not answer them." in shown(rows)


def test_members_and_tasks_are_those_that_are_named(said):
    rows = [*HAND, *(replace(row, task="exam", answer="a", reward=1.0) for row in HAND)]
    assert said(rows)["queries"] == said(rows, "--task", "quiz", "--task", "exam")["queries"] == 8
    facts = said(rows, "--member", "bob", "--member", "ann", "--task", "ex*")
    assert facts["queries"] == 4
    assert [member["name"] for member in facts["members"]] == ["bob", "ann"]


def test_where_teams_are_too_many_their_size_is_limited_and_said(said, shown, monkeypatch):
    """Three members have 3 teams of one and 3 of two; the whole pool is measured all the same."""
    monkeypatch.setattr(teams, "MAX_TEAMS", 6)
    facts = said(HAND)
    assert (facts["max_team_size"], len(facts["teams"])) == (2, 6)
    assert facts["pool"]["focal"]["value"] == pytest.approx(11 / 18)
    assert "Teams of more than 2 of the 3 members are not measured: too many." in shown(HAND)


def test_a_table_of_pairs_is_cut_where_it_would_not_fit(shown, monkeypatch):
    monkeypatch.setattr(teams, "MAX_TEAMS", 200)
    accuracies = {f"member-with-a-long-name-{number}": 0.5 for number in range(14)}
    text = shown(make_outcomes({"quiz": accuracies}, num_queries=20))
    assert text.count("Focal diversity of pairs") == 2
    assert all(name in text for name in accuracies)


def test_a_pool_of_one_has_no_pairs_to_show(said, shown):
    assert "pairs" not in shown(HAND, "--member", "ann").replace("mean of pairs", "")
    facts = said(HAND, "--member", "ann")
    assert facts["pairs"] == [[0]]
    assert [team["best_by"] for team in facts["best_teams"]] == [["plurality_accuracy"]]


@pytest.mark.parametrize(("answer", "focal"), [("a", 1), ("b", 0), (None, 0)])
def test_members_that_always_say_the_same_are_measured_without_nan(said, answer, focal):
    """`said` refuses NaN. Where nobody fails nothing fails together; where nobody answers, nobody is right, and nothing is voted."""
    rows = [outcome(q, name, answer, response=answer or "") for name in ("ann", "bob") for q in range(3)]
    pool = said(rows)["pool"]
    expected = {"focal": focal, "adjusted": 0, "kappa": 1, "fleiss_kappa": 1}
    expected["fleiss_kappa_of_answers"] = 1 if answer else None
    expected["plurality_accuracy"] = float(answer == "a") if answer else None
    assert {name: pool[name]["value"] for name in expected} == expected


def test_texts_without_a_label_are_categories_of_their_own(said):
    """Two members, four queries, of which the last has labels: seven categories, one of them of two answers.

    P̄ = ¼, P_e = (6·1 + 2²)/64 = 10/64, κ = (16/64 − 10/64)/(54/64) = 1/9.
    """
    rows = [outcome(q, name, None, response="A poem.", reward=1.0) for name in ("ann", "bob") for q in range(3)]
    pool = said([*rows, outcome(3, "ann", "a"), outcome(3, "bob", "a")])["pool"]
    assert pool["fleiss_kappa_of_answers"]["value"] == pytest.approx(1 / 9)
    assert pool["plurality_accuracy"]["value"] == 1


@pytest.mark.parametrize("response", [None, "A poem.", " "])
def test_without_a_label_no_vote_and_no_agreement_is_made_up(said, shown, response):
    """Ann is right on all of four queries and Bob on two: what their rewards tell is measured, and teams are still ranked."""
    rows = [
        outcome(q, name, None, response=response, reward=float(name == "ann" or q < 2))
        for name in ("bob", "ann")
        for q in range(4)
    ]
    facts = said(rows)
    assert facts["labelled"] == 0
    assert facts["pool"]["plurality_accuracy"]["value"] is None
    assert facts["pool"]["fleiss_kappa_of_answers"]["value"] is None
    assert facts["pool"]["disagreement"]["value"] == 1 / 2
    assert [(team["members"], team["best_by"]) for team in facts["best_teams"]] == [
        (["ann"], ["accuracy"]),
        (["ann", "bob"], ["accuracy", "focal", "adjusted"]),
    ]
    assert {team["plurality_accuracy"] for team in facts["teams"]} == {None}
    text = " ".join(shown(rows).split())
    assert "no answer with a label" in text
    assert "plurality accuracy -" in text
    assert "no answer" not in shown([*rows, outcome(9, "ann", "a"), outcome(9, "bob", "b")])


def test_queries_that_were_not_scored_for_all_are_left_out_and_counted(cli, said, shown, tmp_path):
    """As if the fourth query were not there; where no query is left, it says who is scored how often."""
    rows = [replace(o, answer="z", reward=None) if (o.query_id, o.model) == ("3", "bob") else o for o in HAND]
    facts, without = said(rows), said([o for o in HAND if o.query_id != "3"])
    assert (facts["queries"], facts["dropped"], facts["unscored"]) == (3, 0, 1)
    assert {**facts, "unscored": 0} == without
    assert "1 queries are left out, because a member's answer to them was not scored." in shown(rows)
    path = tmp_path / "none.jsonl"
    never = [replace(o, answer="z", reward=None) if o.model == "bob" else o for o in HAND]
    OutcomeTable.from_outcomes(never).write(path)
    cli.assert_refused(cli.run("diversity", path), "bob 0")


def test_an_answer_is_right_from_half_of_the_score(said):
    facts = said([outcome(q, "ann", "a", reward=reward) for q, reward in enumerate((0.49, 0.5, 0.9, 0.1))])
    assert (facts["right_from"], facts["members"][0]["accuracy"]) == (0.5, 0.5)


def test_what_cannot_be_measured_is_refused(cli, tmp_path):
    path = tmp_path / "outcomes.jsonl"
    OutcomeTable.from_outcomes(HAND).write(path)
    cli.assert_refused(cli.run("diversity", path, "--member", "eve"), "eve")
    cli.assert_refused(cli.run("diversity", path, "--task", "other/*"), "other/*")
    cli.assert_refused(cli.run("diversity", path.with_name("absent.csv")), "must exist")
