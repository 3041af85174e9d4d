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


ONE, TWO, ASK = ("add", {"a": 1}), ("add", {"a": 2}), ("search", {"query": "x"})
SPOKEN = calls(ONE).model_copy(update={"content": "Let me see."})
LIKE_A_CALL = '[["add",{"a":1,"b":2}]]'
DIVIDED = (calls(ONE), calls(ASK), "I do not know")


@pytest.mark.parametrize(
    ("answers", "way", "text", "actions", "agreement"),
    [
        # Arguments in another order, 2.0 for 2, and defaults left out are the same call, returned as its author made it.
        ((calls(("add", {"b": 2.0, "a": 3})), calls(ASK), calls(("add", {"a": 3}))), "leader", "", [("add", {"b": 2.0, "a": 3})], 2 / 3),
        # Members vote for their whole set of calls, in any order, and never for a union; the same call twice is another action.
        ((calls(ONE, TWO), calls(TWO, ONE), calls(ONE)), "leader", "", [ONE, TWO], 2 / 3),
        ((calls(ONE, ONE), calls(ONE), calls(ONE)), "leader", "", [ONE], 2 / 3),
        # Texts vote together against a call, whatever they say; the heavier is returned.
        (("Oslo", calls(ASK), "Bergen"), "leader", "Oslo", [], 2 / 3),
        ((SPOKEN, "no", calls(("add", {"a": 1, "b": 2}))), "leader", "Let me see.", [ONE], 2 / 3),
        ((calls(ONE), LIKE_A_CALL, LIKE_A_CALL), "leader", LIKE_A_CALL, [], 2 / 3),
        # Without a majority the heaviest proposal, or a text where that is wanted; a majority is never disputed.
        (DIVIDED, "leader", "", [ONE], 1 / 3),
        (DIVIDED, "text", "I do not know", [], 1 / 3),
        ((calls(ONE), calls(ONE), "no"), "text", "", [ONE], 2 / 3),
        ((calls(ONE), calls(ONE), "no"), "raise", "", [ONE], 2 / 3),
        # Texts that differ are no disagreement on what to do.
        (("Oslo", "Bergen", "Rome"), "leader", "Oslo", [], 1 / 3),
        (("Oslo", "Bergen", "Rome"), "raise", "Oslo", [], 1 / 3),
    ],
)  # fmt: skip
def test_what_has_most_weight_is_done_as_one_member_would(answers, way, text, actions, agreement):
    message = ensemble(*answers, on_disagreement=way).bind_tools([add, search]).invoke("?")
    assert (message.text, made(message)) == (text, actions)
    assert fusion(message)["action"] == ("tool_calls" if actions else "text")
    assert fusion(message)["agreement"] == pytest.approx(agreement)


def test_a_text_that_reads_like_a_call_has_a_label_of_its_own():
    message = ensemble(calls(ONE), LIKE_A_CALL, LIKE_A_CALL).bind_tools([add]).invoke("?")
    assert set(fusion(message)["weights"]) == {LIKE_A_CALL, f"text: {LIKE_A_CALL}"}


def test_ids_are_fresh_and_safe_for_every_provider():
    model = ensemble(calls(("add", {"a": 1}), ("add", {"a": 2}))).bind_tools([add])
    ids = [call["id"] for _ in range(2) for call in model.invoke("?").tool_calls]
    assert len(set(ids)) == 4
    assert all(id_.startswith("call_") and len(id_) == 29 and id_[5:].isalnum() for id_ in ids)


# ---- disagreement


def test_where_nobody_answers_in_text_the_text_says_what_was_proposed():
    message = ensemble(*DIVIDED[:2], on_disagreement="text").bind_tools([add, search]).invoke("?")
    assert made(message) == []
    assert '- a (50%): add({"a": 1})' in message.text
    assert '- b (50%): search({"query": "x"})' in message.text
    assert fusion(message)["agreement"] == 0


def test_half_the_weight_is_no_majority():
    with pytest.raises(DisagreementError):
        ensemble(*DIVIDED[:2], on_disagreement="raise").bind_tools([add, search]).invoke("?")


@pytest.mark.parametrize("way_out", ["text", "raise"])
def test_where_a_call_is_forced_text_is_no_way_out_of_a_disagreement(way_out):
    model = ensemble(*DIVIDED[:2], on_disagreement=way_out).bind_tools([add, search], tool_choice="any")
    with pytest.raises(DisagreementError, match="the heaviest has 50%") as caught:
        model.invoke("?")
    assert caught.value.proposals == {"a": 'add({"a": 1})', "b": 'search({"query": "x"})'}
    assert caught.value.is_retryable is False


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


# ---- texts that nobody can read


def test_a_text_without_a_label_that_fusion_chose_is_returned_though_it_has_no_weight():
    """b's text stands under `""`, beside a's answer of weight 0.1; what nobody chose is not returned for its weight."""
    candidates = [
        Candidate(name, 1, text, label, 0.0, message=AIMessage(text))
        for name, text, label in (("a", "The answer is 7.", "7"), ("b", "A poem.", None))
    ]
    answer = Answer("b", None, {"7": 0.1, "": 0.0}, {"7": ("a",), "": ("b",)})
    verdict = agree(candidates, answer, Request(), on_disagreement="leader")
    assert (verdict.text, verdict.answer.member, verdict.agreement) == ("A poem.", "b", 0.0)
    read = Answer("a", "7", {"7": 0.1, "": 0.0}, {"7": ("a",), "": ("b",)})
    assert agree(candidates, read, Request(), on_disagreement="leader").text == "The answer is 7."
