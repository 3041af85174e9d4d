"""Open text: answers that cannot come out the same are not collected by a vote that cannot use them."""

import pytest

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.testing import FailingChatModel, JudgingChatModel, ScriptedChatModel
from support_calls import consume
from support_ensembles import asked, how, model_of, saying
from support_schema_model import SchemaChatModel
from support_time import ensemble, play, timed
from support_tools import weather

ESSAY = "Write an essay about fog, in three paragraphs."
UNCLEAR = "Fog?"
TEXTS = {
    "a": "Fog comes down from the hills in the evening and lies over the fields until the sun is high, so that whoever walks "
    "there hears the river long before it can be seen, and the dogs of the farm, and somebody who calls them home, while "
    "every fence post, gate and tree stands up slowly out of nothing and sinks back into it as soon as it is passed.",
    "b": "On some mornings a town forgets its own towers, trams ring as if under water, a lamp burns for nobody, and people "
    "who have met every day for years pass each other with their collars up like strangers, until towards noon a pale coin "
    "of light appears above the station and one after the other the roofs, the wires and the pigeons come back.",
    "c": "Sailors fear storms less than grey calm weather, in which a horn answers another horn, the lookout stares at "
    "nothing, and each small noise may be a bow that cuts through the swell towards them, or only a gull asleep on a plank, "
    "so that nobody on board speaks louder than he must, and the cook carries his pots as if they were made of glass.",
}


def trio(texts=None):
    return {name: saying(text) for name, text in (texts or TEXTS).items()}


def who(message):
    return [name for names in asked(message) for name in names]


def vote(members=None, **fields):
    return RLFocalChatModel(members=members or trio(), max_retries=0, **fields)


def test_where_the_question_asks_for_open_text_one_member_is_asked_and_the_answer_says_why():
    message = vote().invoke(ESSAY)
    assert (asked(message), message.text) == ([["a"]], TEXTS["a"])
    assert how(message)["open_text"] is True
    assert "nobody more was asked: open text cannot agree" in RLFocalChatModel.explain(message)


def test_it_is_the_most_competent_member():
    members = [PoolMember(n, m, competence=c) for (n, m), c in zip(trio().items(), (0.2, 0.5, 0.8), strict=True)]
    assert who(vote(members).invoke(ESSAY)) == ["c"]


@pytest.mark.parametrize("max_rounds", [1, 2, 3])
def test_if_it_fails_others_stand_in(max_rounds):
    members = {"x": FailingChatModel(error=ValueError("no")), "y": FailingChatModel(error=ValueError("no")), **trio()}
    message = vote(members, max_team=4, max_rounds=max_rounds).invoke(ESSAY)
    assert asked(message) == [["x"], ["y"], ["a"]]
    assert message.text == TEXTS["a"]


@pytest.mark.parametrize(
    "fields",
    [
        {"equivalence": JudgingChatModel(same=lambda *_: False)},
        {"synthesizer": saying("Fog."), "synthesize_below": 0.1},
    ],
    ids=["a judge", "a synthesizer"],
)
@pytest.mark.parametrize("question", [ESSAY, UNCLEAR])
def test_whoever_can_use_more_answers_gets_them(fields, question):
    message = vote(**fields).invoke(question)
    assert asked(message) == [["a", "b"], ["c"]]
    assert how(message)["open_text"] is False


def test_where_the_question_does_not_tell_two_are_asked_and_no_third_if_both_are_open_text():
    message = vote().invoke(UNCLEAR)
    assert asked(message) == [["a", "b"]]
    assert how(message)["open_text"] is True
    assert how(message)["fusion"]["confidence"] == 0.5


def test_where_one_of_the_two_fails_the_other_is_enough():
    message = vote({"x": FailingChatModel(error=ValueError("no")), **trio()}).invoke(UNCLEAR)
    assert (asked(message), message.text) == ([["x", "a"]], TEXTS["a"])


@pytest.mark.parametrize(
    ("question", "texts"),
    [
        ("What is 2 + 3?", {"a": "4", "b": "5", "c": "5"}),
        ("Is it so? Answer yes or no.", {"a": "yes", "b": "no", "c": "no"}),
        ("What is the capital of Australia?", {"a": "Sydney", "b": "Canberra", "c": "Canberra"}),
    ],
)
def test_answers_that_can_agree_are_voted_on(question, texts):
    message = vote(trio(texts)).invoke(question)
    assert asked(message) == [["a", "b"], ["c"]]
    assert message.text == texts["c"]
    assert how(message)["open_text"] is False


def test_one_short_answer_beside_a_long_one_can_still_find_another():
    message = vote(trio({**TEXTS, "b": "Yes.", "c": "Yes."})).invoke(UNCLEAR)
    assert asked(message) == [["a", "b"], ["c"]]


def test_a_named_kind_that_can_agree_is_voted_on():
    message = vote(answer_kind="short_text").invoke(ESSAY)
    assert asked(message) == [["a", "b"], ["c"]]


def test_a_policy_of_ones_own_decides_itself():
    message = model_of(trio()).invoke(ESSAY)
    assert who(message) == ["a", "b", "c"]
    assert how(message)["open_text"] is False


def test_the_vote_is_the_same_if_it_is_given_as_a_policy():
    assert who(vote(policy=PriorPolicy("abc")).invoke(ESSAY)) == ["a"]


def test_objects_and_tools_are_no_open_text():
    members = {name: SchemaChatModel(model_name=name) for name in "abc"}
    with_tools = vote(members).bind_tools([weather]).invoke(ESSAY)
    assert len(who(with_tools)) > 1
    schema = {"title": "essay", "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    raw = vote(members).with_structured_output(schema, include_raw=True).invoke(ESSAY)["raw"]
    assert len(who(raw)) > 1


def test_a_call_that_names_a_member_asks_that_one():
    message = vote().invoke(ESSAY, model="c")
    assert who(message) == ["c"]
    assert how(message)["open_text"] is False


def test_as_many_as_must_have_answered_are_asked():
    assert who(vote(min_candidates=2).invoke(ESSAY)) == ["a", "b"]


def test_a_pool_of_one_is_not_said_to_have_been_cut():
    assert how(vote({"a": saying(TEXTS["a"])}).invoke(ESSAY))["open_text"] is False


async def test_its_tokens_are_passed_on_as_they_come():
    """The second member never speaks, and the stream does not wait for it."""
    for chunks in (list(vote().stream(ESSAY)), await consume(vote().astream(ESSAY))):
        assert "".join(chunk.text for chunk in chunks) == TEXTS["a"]
        assert sum(bool(chunk.text) for chunk in chunks) == len(TEXTS["a"].split())


async def test_one_that_fails_before_its_first_token_is_replaced_in_a_stream_too():
    members = {"x": FailingChatModel(error=ValueError("no")), **trio()}
    for chunks in (list(vote(members).stream(ESSAY)), await consume(vote(members).astream(ESSAY))):
        assert "".join(chunk.text for chunk in chunks) == TEXTS["a"]


def test_the_first_answer_is_there_when_it_has_come(way):
    members = {"a": timed((1, TEXTS["a"])), "b": timed((9, TEXTS["b"])), "c": timed((9, TEXTS["c"]))}
    answer = play(way, ensemble(members), ESSAY)
    assert (answer.took_s, answer.answered) == (1, ["a"])


def test_a_member_that_calls_a_tool_unasked_is_no_open_text():
    calling = ScriptedChatModel(script=lambda _: SchemaChatModel().bind_tools([weather]).invoke("weather in Oslo?"))
    message = vote({"x": calling, **trio()}, max_team=4).invoke(UNCLEAR)
    assert len(who(message)) == 4
