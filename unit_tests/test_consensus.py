"""What the candidates together do: votes for whole calls or for text, and objects field by field."""

import json

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from pydantic import BaseModel, model_validator

from langchain_rlfocal import DisagreementError, EnsembleError, RLFocalChatModel
from langchain_rlfocal.chat_models.consensus import agree
from langchain_rlfocal.chat_models.requests import Request
from langchain_rlfocal.records import Answer, Candidate
from langchain_rlfocal.testing import ScriptedPolicy
from support_schema_model import SchemaChatModel


@tool
def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


@tool
def search(query: str) -> str:
    """Search."""
    return query


def calls(*made):
    """A message that makes these calls, with ids that only its provider knows."""
    return AIMessage(
        content="",
        tool_calls=[{"name": name, "args": args, "id": f"own|{place}"} for place, (name, args) in enumerate(made)],
    )


def members(*answers):
    """Members `a`, `b`, ... that answer so, whatever they are asked."""
    return {
        name: SchemaChatModel(answers=lambda _messages, _tools, answer=answer: answer)
        for name, answer in zip("abcdefg", answers, strict=False)
    }


def ensemble(*answers, **fields):
    """All members in one round."""
    pool = members(*answers)
    policy = ScriptedPolicy([list(pool)], tuple(pool))
    return RLFocalChatModel(members=pool, policy=policy, max_team=len(pool), **fields)


def fusion(message):
    return message.response_metadata["rlfocal"]["fusion"]


def made(message):
    return [(call["name"], call["args"]) for call in message.tool_calls]


# ---- tool calls


def test_the_calls_that_most_members_make_are_returned_as_one_of_them_made_them():
    """Two of three add 3 and 2: one says so in another order and with 2.0, one leaves the default out."""
    model = ensemble(
        calls(("add", {"b": 2.0, "a": 3})), calls(("search", {"query": "3 + 2"})), calls(("add", {"a": 3}))
    ).bind_tools([add, search])
    message = model.invoke("?")
    assert made(message) == [("add", {"b": 2.0, "a": 3})]
    assert fusion(message)["member"] == "a"
    assert fusion(message)["action"] == "tool_calls"
    assert fusion(message)["agreement"] == pytest.approx(2 / 3)
    assert fusion(message)["confidence"] == pytest.approx(2 / 3)


def test_ids_are_fresh_and_safe_for_every_provider():
    model = ensemble(calls(("add", {"a": 1}), ("add", {"a": 2}))).bind_tools([add])
    ids = [call["id"] for _ in range(2) for call in model.invoke("?").tool_calls]
    assert len(set(ids)) == 4
    assert all(id_.startswith("call_") and len(id_) == 29 and id_[5:].isalnum() for id_ in ids)


def test_members_vote_for_their_whole_set_of_calls_and_never_for_a_union():
    """a and b make two calls, in another order; c makes the one that all three share."""
    first, second = ("add", {"a": 1}), ("add", {"a": 2})
    message = ensemble(calls(first, second), calls(second, first), calls(first)).bind_tools([add]).invoke("?")
    assert made(message) == [first, second]
    assert fusion(message)["agreement"] == pytest.approx(2 / 3)


def test_the_same_call_twice_is_another_action_than_once():
    once = ("add", {"a": 1})
    message = ensemble(calls(once, once), calls(once), calls(once)).bind_tools([add]).invoke("?")
    assert made(message) == [once]


def test_members_who_answer_in_text_vote_together_against_a_call_whatever_they_say():
    """Two different texts have two votes of three for answering in text; the heavier text is returned."""
    message = ensemble("Oslo", calls(("search", {"query": "Norway"})), "Bergen").bind_tools([search]).invoke("?")
    assert (message.text, made(message)) == ("Oslo", [])
    assert fusion(message)["action"] == "text"
    assert fusion(message)["agreement"] == pytest.approx(2 / 3)
    assert fusion(message)["confidence"] == pytest.approx(1 / 3)


def test_the_text_beside_the_winning_calls_goes_with_them():
    spoken = calls(("add", {"a": 1}))
    spoken.content = "Let me see."
    message = ensemble(spoken, "no", calls(("add", {"a": 1, "b": 2}))).bind_tools([add]).invoke("?")
    assert (message.text, made(message)) == ("Let me see.", [("add", {"a": 1})])


def test_a_text_that_reads_like_a_call_does_not_vote_for_it():
    text = '[["add",{"a":1,"b":2}]]'
    message = ensemble(calls(("add", {"a": 1})), text, text).bind_tools([add]).invoke("?")
    assert (message.text, made(message)) == (text, [])
    assert fusion(message)["weights"] == {
        '[["add",{"a":1,"b":2}]]': pytest.approx(1 / 3),
        f"text: {text}": pytest.approx(2 / 3),
    }


# ---- disagreement

DIVIDED = (calls(("add", {"a": 1})), calls(("search", {"query": "x"})), "I do not know")


def test_without_a_majority_the_heaviest_proposal_is_followed():
    message = ensemble(*DIVIDED).bind_tools([add, search]).invoke("?")
    assert made(message) == [("add", {"a": 1})]
    assert fusion(message)["agreement"] == pytest.approx(1 / 3)


def test_half_the_weight_is_no_majority():
    model = ensemble(DIVIDED[0], DIVIDED[1], on_disagreement="raise").bind_tools([add, search])
    with pytest.raises(DisagreementError):
        model.invoke("?")


def test_a_caller_can_have_a_text_instead_of_disputed_calls():
    message = ensemble(*DIVIDED, on_disagreement="text").bind_tools([add, search]).invoke("?")
    assert (message.text, made(message)) == ("I do not know", [])
    assert fusion(message)["member"] == "c"


def test_where_nobody_answers_in_text_the_text_says_what_was_proposed():
    message = ensemble(*DIVIDED[:2], on_disagreement="text").bind_tools([add, search]).invoke("?")
    assert made(message) == []
    assert '- a (50%): add({"a": 1})' in message.text
    assert '- b (50%): search({"query": "x"})' in message.text
    assert fusion(message)["agreement"] == 0


@pytest.mark.parametrize("way_out", ["text", "raise"])
def test_where_a_call_is_forced_text_is_no_way_out_of_a_disagreement(way_out):
    model = ensemble(*DIVIDED[:2], on_disagreement=way_out).bind_tools([add, search], tool_choice="any")
    with pytest.raises(DisagreementError, match="the heaviest has 50%") as caught:
        model.invoke("?")
    assert caught.value.proposals == {"a": 'add({"a": 1})', "b": 'search({"query": "x"})'}
    assert caught.value.is_retryable is False


@pytest.mark.parametrize("way", ["leader", "text", "raise"])
def test_texts_that_differ_are_no_disagreement_on_what_to_do(way):
    assert ensemble("Oslo", "Bergen", on_disagreement=way).bind_tools([add]).invoke("?").text == "Oslo"


def test_a_majority_is_never_disputed():
    one = calls(("add", {"a": 1}))
    for way in ("leader", "text", "raise"):
        assert made(ensemble(one, one, "no", on_disagreement=way).bind_tools([add]).invoke("?")) == [("add", {"a": 1})]


def test_fusions_weights_decide_and_not_the_number_of_members():
    """One call of weight 0.6 against two texts of 0.2 each."""
    one = calls(("add", {"a": 1}))
    request = Request.of({"tools": [add]})
    label = request.label_of(one)
    candidates = [
        Candidate("a", 1, "", label, 0.0, message=one),
        Candidate("b", 1, "Oslo", "oslo", 0.0, message=AIMessage("Oslo")),
        Candidate("c", 1, "Bergen", "bergen", 0.0, message=AIMessage("Bergen")),
    ]
    answer = Answer(
        "a", label, {label: 0.6, "oslo": 0.2, "bergen": 0.2}, {label: ("a",), "oslo": ("b",), "bergen": ("c",)}
    )
    assert agree(candidates, answer, request, on_disagreement="raise").calls == one.tool_calls
    lighter = Answer("a", label, {label: 0.4, "oslo": 0.25, "bergen": 0.35}, answer.supporters)
    verdict = agree(candidates, lighter, request, on_disagreement="raise")
    assert (verdict.action, verdict.text, verdict.agreement) == ("text", "Bergen", pytest.approx(0.6))
    assert verdict.answer.member == "c"


# ---- objects


class Person(BaseModel):
    """A person."""

    name: str
    age: int
    height_m: float
    is_member: bool = False


ANN = {"name": "Ann", "age": 30, "height_m": 1.7}


def person(**changes):
    return calls(("Person", {**ANN, **changes}))


def structured(*answers, **fields):
    return ensemble(*answers).with_structured_output(Person, include_raw=True, **fields)


def test_an_object_that_a_majority_returns_is_returned_as_it_is():
    answered = structured(person(), person(age=31), person(height_m=1.70)).invoke("?")
    assert answered["parsed"] == Person(**ANN)
    assert fusion(answered["raw"])["action"] == "object"
    assert fusion(answered["raw"])["merged"] is False
    assert fusion(answered["raw"])["agreement"] == pytest.approx(2 / 3)
    assert fusion(answered["raw"])["fields"] == {
        "name": pytest.approx(1.0),
        "age": pytest.approx(2 / 3),
        "height_m": pytest.approx(1.0),
        "is_member": pytest.approx(1.0),
    }


def test_without_a_majority_members_agree_field_by_field():
    """Names 2:1, ages 2:1, heights 1.6, 1.7, 1.9 (median 1.7), membership 2:1: an object that nobody returned."""
    answered = structured(
        person(name="Ann", age=30, height_m=1.6, is_member=True),
        person(name="ann ", age=31, height_m=1.9, is_member=False),
        person(name="Bob", age=31, height_m=1.7, is_member=True),
    ).invoke("?")
    assert answered["parsed"] == Person(name="Ann", age=31, height_m=1.7, is_member=True)
    facts = fusion(answered["raw"])
    assert facts["merged"] is True
    assert facts["fields"] == {
        "name": pytest.approx(2 / 3),
        "age": pytest.approx(2 / 3),
        "height_m": pytest.approx(1 / 3),
        "is_member": pytest.approx(2 / 3),
    }
    assert facts["agreement"] == 0


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_objects_written_as_text_are_agreed_on_the_same_way(method):
    texts = [json.dumps({**ANN, "age": age, "name": name}) for age, name in ((30, "Ann"), (31, "Ann"), (31, "Bob"))]
    model = ensemble(texts[0], f"Here it is:\n```json\n{texts[1]}\n```", texts[2])
    answered = model.with_structured_output(Person, method=method, include_raw=True).invoke("?")
    assert answered["parsed"] == Person(**{**ANN, "age": 31})
    assert json.loads(answered["raw"].text) == {**ANN, "age": 31, "is_member": False}


class Span(BaseModel):
    """From a start to an end."""

    start: int
    end: int

    @model_validator(mode="after")
    def _runs_forward(self):
        if self.end < self.start:
            raise ValueError("a span must not end before it starts")
        return self


def span(start, end):
    return calls(("Span", {"start": start, "end": end}))


def test_fields_that_do_not_fit_together_are_not_put_together():
    """Most say that it starts at 9, the leader and another that it ends at 8: nobody said 9 to 8."""
    model = ensemble(span(1, 8), span(9, 12), span(9, 10), span(2, 8), span(3, 8))
    answered = model.with_structured_output(Span, include_raw=True).invoke("?")
    assert answered["parsed"] == Span(start=1, end=8)
    assert fusion(answered["raw"])["merged"] is False


def test_an_object_that_its_class_refuses_is_a_failure():
    answered = ensemble(span(9, 8), span(1, 2)).with_structured_output(Span, include_raw=True).invoke("?")
    assert answered["parsed"] == Span(start=1, end=2)
    [failure] = answered["raw"].response_metadata["rlfocal"]["failures"]
    assert (failure["member"], failure["kind"]) == ("a", "invalid_arguments")
    assert "a span must not end before it starts" in failure["reason"]


def test_a_lone_object_is_read_as_leniently_as_several():
    answered = structured(person(age="30")).invoke("?")
    assert answered["raw"].tool_calls[0]["args"] == {**ANN, "is_member": False}
    told = ensemble('Sure: {"name": "Ann", "age": "30", "height_m": 1.7}, as you asked.')
    parsed = told.with_structured_output(Person.model_json_schema(), method="json_schema").invoke("?")
    assert parsed == {**ANN, "is_member": False}


def test_texts_that_differ_agree_no_more_than_fusion_says():
    assert fusion(ensemble("Paris", "Rome", "Oslo").invoke("?"))["agreement"] == pytest.approx(1 / 3)


def test_nobody_who_stands_in_where_nobody_answers_acts_where_nobody_agrees():
    assert not issubclass(DisagreementError, EnsembleError)
    model = ensemble(*DIVIDED, on_disagreement="raise")
    other = ensemble(calls(("add", {"a": 9})))
    chain = model.with_fallbacks([other], exceptions_to_handle=(EnsembleError,)).bind_tools([add, search])
    with pytest.raises(DisagreementError):
        chain.invoke("?")


@pytest.mark.parametrize("weights", [{}, {"oslo": 1.0}])
def test_a_policy_that_leaves_out_what_has_no_weight_is_understood(weights):
    class Sparse(ScriptedPolicy):
        def fuse(self, query, candidates, failures, *, max_team):
            return Answer(candidates[0].member, candidates[0].answer, weights, {})

    pool = members("Oslo", calls(("add", {"a": 1})))
    model = RLFocalChatModel(members=pool, policy=Sparse([list(pool)], tuple(pool)))
    assert model.bind_tools([add]).invoke("?").text == "Oslo"
