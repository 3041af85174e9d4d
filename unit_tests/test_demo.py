"""The demo: what it shows of an answer, and that it shows nothing that the answer's metadata does not say."""

import copy
import io
import json

import pytest
from rich.console import Console

from langchain_rlfocal.chat_models import RLFocalChatModel
from langchain_rlfocal.demo import QUESTIONS_PATH, command
from langchain_rlfocal.demo.command import QUESTIONS, Shown, answer_view, decision_view, play, run_demo, summary_view
from langchain_rlfocal.outcomes import Question, read_questions, split_of
from langchain_rlfocal.pool import ModelPool
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy

PENGUIN = Question(task="yes or no", query_id="1", query="Can a penguin fly? Answer yes or no.", gold="no")
OPEN = Question(task="open", query_id="2", query="Describe the sea.")


def candidate(member, round_number, text, answer):
    return {
        "member": member,
        "round": round_number,
        "answer": answer,
        "text": text,
        "latency_s": 0.25,
        "prompt_tokens": 312,
        "completion_tokens": 7,
        "cost_usd": None,
        "logprob": None,
    }


# Two rounds: two members disagree, a third is asked and fails, the first one's answer wins.
FACTS = {
    "policy": "rlfocal-0123456789ab",
    "trained": True,
    "rounds": [
        {
            "round": 1,
            "asked": ["gemma3-few-shot", "smollm2-few-shot"],
            "probabilities": {"gemma3-few-shot": 0.93, "smollm2-few-shot": 0.71, "gemma3-plain": 0.31, "other": 0.05},
        },
        {"round": 2, "asked": ["gemma3-plain"], "probabilities": {"gemma3-plain": 0.62, "other": 0.04}},
    ],
    "candidates": [
        candidate("gemma3-few-shot", 1, "No", "no"),
        candidate("smollm2-few-shot", 1, "Yes, penguins fly.", "yes"),
    ],
    "failures": [{"member": "gemma3-plain", "round": 2, "kind": "Timeout", "reason": "too late", "latency_s": 3.0}],
    "fusion": {
        "member": "gemma3-few-shot",
        "answer": "no",
        "weights": {"no": 0.83, "yes": 0.17},
        "confidence": 0.83,
        "synthesized": False,
    },
}
ALONE = {**candidate("smollm2-plain", 1, "Yes", None), "latency_s": 0.5}


def shown(**changes) -> Shown:
    facts = {"question": PENGUIN, "text": "No", "facts": FACTS, "seconds": 1.25, "alone": ALONE}
    return Shown(**{**facts, **changes})


def lines_of(view, *, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True)
    console.print(view)
    return console.export_text().splitlines()


def test_the_built_in_questions_are_of_eight_kinds_one_is_open_and_none_is_among_the_training_rows():
    """The split is a function of the text, and each of these texts is in no file, or on another side."""
    assert len(QUESTIONS) == len({question.task for question in QUESTIONS}) == 8
    assert [question.task for question in QUESTIONS if question.gold is None] == ["open"]
    asked = {question.query for question in read_questions(QUESTIONS_PATH)}
    assert [q.query for q in QUESTIONS if q.query in asked and split_of(q.query) == "train"] == []


def test_an_answer_shows_picks_candidates_fusion_and_the_single_best():
    lines = lines_of(answer_view(shown(), title="1 of 8: yes or no"), width=80)
    words = {line.split()[0]: line.split() for line in lines if line.split()}
    text = " ".join(" ".join(lines).split())

    assert max(map(len, lines)) <= 80
    assert PENGUIN.query in text
    assert words["1"] == ["1", "gemma3-few-shot", "0.93", "No", "no", "312+7", "0.25"]
    assert words["smollm2-few-shot"][:2] == ["smollm2-few-shot", "0.71"]
    assert words["smollm2-few-shot"][-3:] == ["yes", "312+7", "0.25"]
    assert "Yes, penguins" in text
    assert words["2"][:4] == ["2", "gemma3-plain", "0.62", "failed:"]
    assert "Timeout" in text
    assert "not picked in round 1: gemma3-plain 0.31, other 0.05" in text
    assert "not picked in round 2: other 0.04" in text
    assert words["Ensemble"] == ["Ensemble", "No", "right"]
    assert "gemma3-few-shot; weights no 0.83, yes 0.17; 3 calls, 1.25 s" in text
    assert words["Single"] == ["Single", "best", "Yes", "wrong"]
    assert "smollm2-plain, 0.50 s; asked separately, not in the ensemble's cost" in text


LONG_NAME = "anthropic-claude-opus-with-extended-thinking"


def busy_facts():
    """Long names, long answers, a long label, many members: what a user's pool may bring."""
    facts = json.loads(json.dumps(FACTS).replace("gemma3-few-shot", LONG_NAME))
    facts["candidates"][0].update(text="Penguins are birds " * 20, answer="penguins are birds", prompt_tokens=123456)
    facts["fusion"]["weights"] = {"penguins are birds": 0.83, "yes": 0.17}
    facts["rounds"][0]["probabilities"] |= {f"{LONG_NAME}-{n}": 0.01 for n in range(5)}
    return facts


@pytest.mark.parametrize("width", [80, 100])
def test_no_line_is_broken_and_no_word_is_cut_at_80_columns(width):
    """Each word of what is shown is one that was given, or ends in an ellipsis after a whole one; only a name that is
    longer than its column goes over two lines.
    """
    for facts in (FACTS, busy_facts()):
        lines = lines_of(answer_view(shown(facts=facts, text=facts["candidates"][0]["text"]), title="1"), width=width)
        assert max(map(len, lines)) <= width
        for word in " ".join(lines).split():
            if "…" in word:
                assert word.rstrip("…") in {"penguins", "Penguins", "birds", "are"}, word
    named = [line for line in lines if LONG_NAME[:24] in line and "0.93" in line]
    assert len(named) == 1


def test_the_demo_and_ask_show_the_same_decision():
    """What `rlfocal ask` shows is the demo's view without the single best member, and with the price."""
    demo = lines_of(answer_view(shown(), title="1"), width=80)
    asked = lines_of(decision_view({**FACTS, "excluded": {}, "left_out": {}}, seconds=1.25, usd=0.5), width=80)
    table = asked[: next(number for number, line in enumerate(asked) if "weights" in line)]
    start = demo.index(table[0])
    assert demo[start : start + len(table)] == table
    assert "gemma3-few-shot; weights no 0.83, yes 0.17; 3 calls, 1.25 s, 0.500000 usd" in " ".join(
        " ".join(asked).split()
    )


def test_who_was_left_out_of_a_decision_is_told_with_the_reason():
    facts = {**FACTS, "excluded": {"tiny": "takes no images"}, "left_out": {"old": "its score has fallen"}}
    text = text_of(decision_view(facts, seconds=1, usd=None))
    assert "left out: tiny: takes no images" in text
    assert "left out: old: its score has fallen" in text
    assert "price unknown" in text


def text_of(view, *, width: int = 100) -> str:
    return " ".join(" ".join(lines_of(view, width=width)).split())


def test_where_there_is_no_right_answer_nothing_is_called_right_or_wrong():
    text = text_of(answer_view(shown(question=OPEN), title="open"))
    assert "right" not in text
    assert "wrong" not in text
    assert "ensemble unknown 3 1.2" in text_of(summary_view([shown(question=OPEN)]))


def test_what_is_missing_is_said():
    """A single best member that failed, a candidate without an answer or token counts, an answer that nobody gave."""
    failure = {"member": "smollm2-plain", "reason": "too late", "latency_s": 9.0}
    facts = copy.deepcopy(FACTS)
    facts["candidates"][1].update(answer=None, prompt_tokens=None)
    facts["fusion"] |= {"weights": {"no": 0.9, "": 0.1}, "synthesized": True}
    text = text_of(answer_view(shown(facts=facts, alone=failure), title="1"))
    assert "Single best failed: too late wrong" in text
    assert "Yes, penguins fly. nothing ?+7" in text
    assert "the synthesizer; weights no 0.90, nothing 0.10" in text


def test_a_member_can_neither_style_nor_steer_the_terminal():
    """Markup is shown as it is written; escape sequences and line breaks become spaces."""
    facts = copy.deepcopy(FACTS)
    facts["candidates"][1].update(text="[red]Yes[/red]\x1b[2J\nreally\x07", answer="[bold]")
    console = Console(file=io.StringIO(), width=100, force_terminal=False, color_system=None)
    console.print(answer_view(shown(facts=facts, text="\x1b[31m[blink]no"), title="1"))
    text = console.file.getvalue()
    assert "[red]Yes[/red] [2J really" in text
    assert "[bold]" in text
    assert "[blink]no" in text
    assert not {"\x1b", "\x07"} & set(text)


def test_a_long_answer_is_shortened_to_its_line():
    lines = lines_of(answer_view(shown(text="very " * 50), title="1"), width=80)
    assert any(line.startswith("Ensemble") and "…" in line and len(line) <= 80 for line in lines)


def test_the_sum_counts_right_answers_calls_and_seconds():
    """Of two judged questions the ensemble has both right and the member none; 3 calls and 1.25 s each, and 1 and 0.5 s."""
    text = text_of(summary_view([shown(), shown(), shown(question=OPEN)]), width=80)
    assert "ensemble 2 of 2 9 3.8" in text
    assert "single best (smollm2-plain) 0 of 2 3 1.5" in text


def test_the_single_best_member_is_asked_apart_and_its_call_is_not_the_ensembles():
    """The team is Ann and Bob; Cleo is asked once per question beside them and counts nowhere in the ensemble's calls."""
    models = {
        "ann": ScriptedChatModel(script=["No."]),
        "bob": FailingChatModel(error=ValueError("no such model")),
        "cleo": ScriptedChatModel(script=["Yes."]),
    }
    pool = ModelPool.from_models(models)
    policy = ScriptedPolicy(teams=[["ann", "bob"]], members=pool.names)
    model = RLFocalChatModel(members=pool, policy=policy)
    console = Console(file=io.StringIO(), width=100, record=True)
    results = play(console, model, single_best="cleo", questions=[PENGUIN, OPEN])
    assert [(each.calls, each.is_right, each.alone_is_right) for each in results] == [(2, True, False), (2, None, None)]
    assert [len(models[name].asked) for name in ("ann", "cleo")] == [2, 2]
    assert [each.alone["member"] for each in results] == ["cleo", "cleo"]
    text = console.export_text()
    assert "1 of 2: yes or no" in text
    assert "2 of 2: open" in text
    assert "Total" in text


@pytest.fixture
def fake_pool(monkeypatch):
    """Members of the shipped policy, without their servers; tells whether the pool was closed."""

    class Pool:
        def __init__(self, policy):
            self.members = {name: ScriptedChatModel(script=["no"]) for name in policy.members}
            self.is_open = True

        def __enter__(self):
            return self

        def __exit__(self, *exception):
            self.is_open = False

    pool = Pool(command.RLFocalPolicy.load(command.POLICY_PATH))
    monkeypatch.setattr(command, "embedded_pool", lambda: pool)
    return pool


def test_the_demo_asks_the_built_in_questions_with_the_shipped_policy_and_closes_the_pool(fake_pool):
    console = Console(file=io.StringIO(), width=200, record=True)
    run_demo(console)
    text = console.export_text()
    assert text.startswith("Starting two small language models")
    assert f"{len(fake_pool.members)} members ready" in text
    assert all(question.query.splitlines()[0] in text for question in QUESTIONS)
    assert not fake_pool.is_open


def test_the_demo_asks_the_users_own_questions_instead(fake_pool):
    console = Console(file=io.StringIO(), width=100, record=True)
    run_demo(console, ["Is it raining?"])
    text = console.export_text()
    assert "1 of 1: question" in text
    assert "Is it raining?" in text
    assert QUESTIONS[0].query not in text


def test_the_demo_as_json_says_what_it_shows(cli, fake_pool):
    [said] = cli.said("demo", "Is it raining?")["questions"]
    assert (said["question"], said["answer"], said["is_right"]) == ("Is it raining?", "no", None)
    assert {row["text"] for row in said["decision"]["candidates"]} == {said["single_best"]["text"]} == {"no"}
    assert not fake_pool.is_open
