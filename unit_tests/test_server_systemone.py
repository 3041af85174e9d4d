"""`POST /v1/systemone`: the Decider's choice among members, in the published form, and what it will not answer."""

import pytest

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.online import Serving
from langchain_rlfocal.records import Query
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_http import client_of

QUESTION = "What is the capital of Peru?"
ROUTE = {"type": "choice", "instructions": "Who should answer?", "criteria": {"a": None, "b": "Hard ones.", "c": None}}


class Noting(ScriptedPolicy):
    """A scripted policy that keeps what it was asked."""

    def select(self, query, candidates, failures, **told):
        object.__setattr__(self, "told", told | {"query": query})
        return super().select(query, candidates, failures, **told)


async def decide(ensemble, /, **body):
    """The status and the body of an answer."""
    asked = {"model": "rlfocal", "state": QUESTION, "questions": {"route": ROUTE}, **body}
    async with client_of(ensemble) as client:
        response = await client.post("/v1/systemone", json={n: v for n, v in asked.items() if v is not None})
    return response.status_code, response.json()


def model_with(policy=None, **members):
    given = members or {name: ScriptedChatModel(script=["Lima"]) for name in "abc"}
    return RLFocalChatModel(members=given, policy=policy)


def noting(*team):
    return Noting([team], ("a", "b", "c"))


@pytest.mark.parametrize("seed", range(3))
async def test_an_answer_is_the_policys_selection_of_one_member_in_one_round(random_policy, seed):
    policy = random_policy("abc", seed)
    once = {"round_number": 1, "max_rounds": 1, "max_team": 1}
    selection = policy.select(Query(QUESTION), [], [], available="abc", cost_weight=0.3, **once)

    status, body = await decide(model_with(policy), rlfocal={"cost_weight": 0.3})

    (choice,) = selection.members
    answer = body["answers"]["route"]
    assert (status, body["model"], answer["type"], answer["choice"]) == (200, policy.policy_id, "choice", choice)
    assert answer["probabilities"] == pytest.approx(dict(selection.probabilities))
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["confidence"] == answer["probabilities"][choice]
    assert body["usage"] == {"input_tokens": 0, "output_tokens": 0}


async def test_the_answer_is_one_that_langchains_types_know():
    decisions = pytest.importorskip(
        "langchain_core.decisions", reason="langchain-core before 1.8 has no decision models"
    )
    _, body = await decide(model_with())
    assert decisions.ClassifierResponse.model_validate(body).choices["route"].choice == "a"


async def test_no_member_is_asked():
    members = {name: FailingChatModel(error=AssertionError("asked")) for name in "abc"}
    assert (await decide(model_with(**members)))[0] == 200


async def test_each_question_is_answered_among_its_own_options():
    competence = {"a": 0.6, "b": 0.9, "c": 0.7}
    members = {n: PoolMember(n, ScriptedChatModel(script=["Lima"]), competence=c) for n, c in competence.items()}
    model = RLFocalChatModel(members=[*members.values()])
    two = {"all": ROUTE, "some": {"type": "choice", "criteria": {"c": None, "a": None}}}
    _, body = await decide(model, questions=two)
    assert {name: answer["choice"] for name, answer in body["answers"].items()} == {"all": "b", "some": "c"}
    assert body["answers"]["some"]["probabilities"] == {"c": 1.0, "a": 0.0}


async def test_members_that_are_left_alone_are_not_chosen_unless_nobody_else_is_offered(monkeypatch):
    """Of three, one keeps failing, so that its breaker is open, and another's score has fallen."""
    members = {name: ScriptedChatModel(script=["Lima"]) for name in "bc"}
    members = {"a": FailingChatModel(error=TimeoutError("slow")), **members}
    model = RLFocalChatModel(members=members, policy=noting("a", "c"), breaker_failures=1, max_retries=0)
    await model.ainvoke("Hi")
    assert model.breakers["a"].state == "open"
    fallen = Serving(model.policy, {"b": "its score has fallen"})
    monkeypatch.setattr(type(model), "serving", property(lambda _: fallen))

    await decide(model)
    assert model.policy.told["available"] == ["c"]
    await decide(model, questions={"route": {"type": "choice", "criteria": {"b": None, "a": None}}})
    assert model.policy.told["available"] == ["a", "b"]


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    {"role": "assistant", "content": "Wait."},
]


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (QUESTION, QUESTION),
        (CONVERSATION, QUESTION),
        ({"messages": CONVERSATION, "user": 7}, QUESTION),
        ({"country": "Perú"}, '{"country": "Perú"}'),
        (["Peru", {"role": "none"}], '["Peru", {"role": "none"}]'),
    ],
)
async def test_the_query_is_the_last_word_of_the_user_else_what_the_state_says(state, text):
    model = model_with(noting("a"))
    await decide(model, state=state, rlfocal={"task": "facts"})
    assert model.policy.told["query"] == Query(text, task="facts")


async def test_the_model_may_be_left_out_and_its_own_settings_count():
    model = RLFocalChatModel(
        members={name: ScriptedChatModel(script=["Lima"]) for name in "abc"},
        policy=noting("a"),
        cost_weight=0.7,
        task="facts",
    )
    status, _ = await decide(model, model=None)
    assert status == 200
    assert (model.policy.told["cost_weight"], model.policy.told["query"].task) == (0.7, "facts")


def question(**changes):
    return {"questions": {"route": {**ROUTE, **changes}}}


REFUSED = {
    "a yes or no": (question(type="noul"), "questions.route.type"),
    "a score": (question(type="score", criteria=["low", "high"]), "questions.route.type"),
    "a box": (question(type="box"), "questions.route.type"),
    "a question that is none": ({"questions": {"route": "who?"}}, "questions.route.type"),
    "an option that is no member": (question(criteria={"a": None, "billing": "x"}), "questions.route.criteria"),
    "a target as an option": (question(criteria={"rlfocal:calls=2": None}), "questions.route.criteria"),
    "no options": (question(criteria={}), "questions.route.criteria"),
    "a list of options": (question(criteria=["a", "b"]), "questions.route.criteria"),
    "no questions": ({"questions": {}}, "questions"),
    "too many questions": ({"questions": {str(n): ROUTE for n in range(65)}}, "questions"),
    "no state": ({"state": " "}, "state"),
    "a number as a state": ({"state": 7}, "state"),
    "an image": ({"images": ["AA=="]}, "images"),
    "a member as the model": ({"model": "a"}, "model"),
    "an option of answers": ({"rlfocal": {"max_team": 2}}, "rlfocal.max_team"),
    "a broken conversation": ({"state": [{"role": "user", "content": 7}]}, "state[0].content"),
    "a broken conversation within": (
        {"state": {"messages": [{"role": "robot", "content": "a"}]}},
        "state.messages[0].role",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_the_decider_cannot_know_is_refused_by_the_name_of_its_field(name):
    body, param = REFUSED[name]
    status, said = await decide(model_with(), **body)
    assert (status, said["error"]["param"]) == (400, param)
    assert param in said["error"]["message"]


async def test_another_model_is_not_known():
    status, said = await decide(model_with(), model="jev-latest")
    assert (status, said["error"]["code"]) == (404, "model_not_found")


ODD = (
    0,
    -1.5,
    True,
    "a",
    "",
    [],
    [0],
    [[]],
    [None],
    {},
    {"type": None},
    {"a": {}},
    [{"role": []}],
    {"messages": [{"role": {}}]},
)
PLACES = {
    "question": lambda odd: {"questions": {"route": odd}},
    "type": lambda odd: question(type=odd),
    "instructions": lambda odd: question(instructions=odd),
    "criteria": lambda odd: question(criteria=odd),
    "description": lambda odd: question(criteria={"a": odd}),
    **{name: lambda odd, name=name: {name: odd} for name in ("model", "state", "questions", "rlfocal", "assets")},
}


@pytest.mark.parametrize("place", PLACES)
async def test_an_odd_value_is_taken_or_refused_and_never_an_error_of_the_server(place):
    for odd in ODD:
        status, _ = await decide(model_with(), **PLACES[place](odd))
        assert status in {200, 400, 404}, odd
