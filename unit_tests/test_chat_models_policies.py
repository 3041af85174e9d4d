"""What a trained policy needs and can do: the embedder that it was trained with, and a cost weight for a target of calls."""

import copy
import pickle

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_rlfocal import RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.errors import InputError, MissingDependencyError
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.policies import PriorPolicy
from langchain_rlfocal.policies.checkpoint import Parts, _shapes
from langchain_rlfocal.testing import ScriptedChatModel
from support_ensembles import how

QUESTION = "What is 2 + 3?"
CURVE = [
    {"cost_weight": 0.0, "mean_calls": 3.0, "score": 0.9, "mean_spent": 1.0},
    {"cost_weight": 0.2, "mean_calls": 2.0, "score": 0.8, "mean_spent": 0.6},
    {"cost_weight": 1.0, "mean_calls": 1.0, "score": 0.7, "mean_spent": 0.3},
]


class Counting(DeterministicFakeEmbedding):
    """LangChain's own double, which gives one text one vector; it notes what it was asked to embed."""

    size: int = 3
    asked: list[str] = []  # noqa: RUF012  # pydantic copies it

    def embed_documents(self, texts):
        self.asked += texts
        return super().embed_documents(texts)


def make_policy(*, embedder=None, dimensions=0, card=None):
    """A policy of random weights for members a, b and c."""
    rng = np.random.default_rng(5)
    sizes = {"features": FEATURES_DIM + dimensions, "decider": 6, "fusion": 5}
    weights = {name: rng.normal(scale=0.3, size=shape) for name, shape in _shapes(3, 0, sizes).items()}
    weights["evidence.moments"][[1, 3, 4]] = 1.0
    weights["pool.price"] = np.full(3, 1 / 3)
    return RLFocalPolicy(Parts(members=("a", "b", "c"), weights=weights, card=card or {}), embedder=embedder)


@pytest.fixture
def members():
    return {name: ScriptedChatModel(script=["5"]) for name in "abc"}


@pytest.fixture
def embedded(tmp_path):
    """Path of a policy that was trained with an embedder of three dimensions."""
    make_policy(embedder=Counting(), dimensions=3).save(tmp_path / "embedded")
    return tmp_path / "embedded"


@pytest.fixture
def plain(tmp_path):
    """Path of a policy that was trained without one, and has a curve."""
    make_policy(card={"curve": CURVE}).save(tmp_path / "plain")
    return tmp_path / "plain"


# ---- embeddings


async def test_a_policy_that_was_trained_with_an_embedder_answers_with_it(members, embedded):
    """The query is embedded once, whatever the rounds, and not again when it is asked again."""
    embeddings = Counting(asked=[])
    model = RLFocalChatModel(members=members, policy=str(embedded), embeddings=embeddings, cost_weight=0.0)
    assert model.invoke(QUESTION).text == "5"
    assert (await model.ainvoke(QUESTION)).text == "5"
    assert "".join(chunk.text for chunk in model.stream(QUESTION)) == "5"
    assert embeddings.asked == [QUESTION]
    model.invoke("What is 2 + 4?")
    assert embeddings.asked == [QUESTION, "What is 2 + 4?"]


def test_an_embedder_may_be_given_by_its_name(members, tmp_path):
    pytest.importorskip("wordllama", reason="the extra `wordllama` is not installed")
    from langchain_rlfocal.embedders import load_embedder  # noqa: PLC0415

    make_policy(embedder=load_embedder("wordllama"), dimensions=256).save(tmp_path / "policy")
    model = RLFocalChatModel(members=members, policy=tmp_path / "policy", embeddings="wordllama")
    assert model.invoke(QUESTION).text == "5"
    assert pickle.loads(pickle.dumps(model)).invoke(QUESTION).text == "5"


def test_an_embedder_that_is_missing_is_asked_for(members, embedded):
    with pytest.raises(InputError, match=r"embedded` must have the embedder .* got none. Give the same one as `embedd"):
        RLFocalChatModel(members=members, policy=embedded)


def test_an_embedder_that_is_not_needed_is_refused(members, plain):
    with pytest.raises(InputError, match=r"plain` was trained without an embedder.*Leave `embeddings` out"):
        RLFocalChatModel(members=members, policy=plain, embeddings=Counting())
    for policy in (None, PriorPolicy("abc"), make_policy(), make_policy(embedder=Counting(), dimensions=3)):
        with pytest.raises(InputError, match=r"Leave `embeddings` out"):
            RLFocalChatModel(members=members, policy=policy, embeddings=Counting())


def test_an_embedder_of_another_length_is_told_so(members, embedded):
    for size in (1, 4):
        model = RLFocalChatModel(members=members, policy=embedded, embeddings=Counting(size=size))
        with pytest.raises(InputError, match=f"must give vectors of length 3, as in training, got {size}"):
            model.invoke(QUESTION)


@pytest.mark.parametrize(
    ("embeddings", "error", "text"),
    [
        (3, InputError, "`embeddings` must be a LangChain `Embeddings`.*got int"),
        ("nowhere", InputError, "package.module:function, got 'nowhere'"),
    ],
)
def test_what_is_no_embedder_is_refused(members, embedded, embeddings, error, text):
    with pytest.raises(error, match=text):
        RLFocalChatModel(members=members, policy=embedded, embeddings=embeddings)


def test_a_named_embedder_that_is_not_installed_names_its_extra(members, embedded, monkeypatch):
    def absent():
        raise MissingDependencyError("pip install 'langchain-rlfocal[wordllama]'")

    monkeypatch.setattr("langchain_rlfocal.embedders._wordllama", absent)
    with pytest.raises(MissingDependencyError, match="wordllama"):
        RLFocalChatModel(members=members, policy=embedded, embeddings="wordllama")


def test_a_policy_object_brings_its_own_embedder(members):
    policy = make_policy(embedder=Counting(), dimensions=3)
    assert RLFocalChatModel(members=members, policy=policy).invoke(QUESTION).text == "5"


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_model_with_an_embedder_can_be_copied_pickled_and_rebuilt_from_its_fields(members, embedded, copied):
    model = copied(RLFocalChatModel(members=members, policy=embedded, embeddings=Counting()))
    rebuilt = RLFocalChatModel(**{name: getattr(model, name) for name in RLFocalChatModel.model_fields})
    for one in (model, rebuilt):
        assert one.invoke(QUESTION).text == "5"


# ---- a target of calls


def test_a_target_chooses_the_cost_weight_and_the_answer_says_so(members, plain):
    """Halfway from 3 calls at weight 0 to 2 at .2: 2.5 calls at .1."""
    model = RLFocalChatModel(members=members, policy=plain, target_calls=2.5, cost_weight=0.7)
    message = model.invoke(QUESTION)
    assert how(message)["cost_weight"] == pytest.approx(0.1)
    assert how(message)["target_calls"] == 2.5
    assert "(trained; cost weight 0.1, for 2.5 calls a query on average)" in model.explain(message)
    assert model._identifying_params["target_calls"] == 2.5


def test_the_policy_is_asked_with_the_weight_that_was_chosen(members, monkeypatch):
    policy, seen = make_policy(card={"curve": CURVE}), []
    select = RLFocalPolicy.select
    monkeypatch.setattr(
        RLFocalPolicy,
        "select",
        lambda self, *args, **kwargs: seen.append(kwargs["cost_weight"]) or select(self, *args, **kwargs),
    )
    RLFocalChatModel(members=members, policy=policy, target_calls=1.5, max_rounds=1).invoke(QUESTION)
    assert seen == pytest.approx([0.6])


@pytest.mark.parametrize(
    ("own", "call", "expected"),
    [
        ({}, {}, (0.1, None)),
        ({}, {"target_calls": 2}, (0.2, 2)),
        ({"target_calls": 2}, {}, (0.2, 2)),
        ({"target_calls": 2}, {"target_calls": 1}, (1.0, 1)),
        ({"target_calls": 2}, {"cost_weight": 0.5}, (0.5, None)),
        ({"target_calls": 2, "cost_weight": 0.3}, {"target_calls": None}, (0.3, None)),
        ({}, {"target_calls": None, "cost_weight": 0.5}, (0.5, None)),
        ({}, {"target_calls": 50}, (0.0, 50)),
    ],
)
def test_what_a_call_says_of_its_costs_goes_before_what_the_model_says(members, plain, own, call, expected):
    model = RLFocalChatModel(members=members, policy=plain, **own)
    for message in (model.invoke(QUESTION, **call), model.bind(**call).invoke(QUESTION)):
        assert (how(message)["cost_weight"], how(message)["target_calls"]) == (pytest.approx(expected[0]), expected[1])
    assert all(asked.kwargs == {} for member in members.values() for asked in member.asked)


def test_a_call_cannot_give_both(members, plain):
    model = RLFocalChatModel(members=members, policy=plain)
    with pytest.raises(InputError, match=r"`target_calls` or `cost_weight`, got both \(2 and 0.5\).*Leave one out"):
        model.invoke(QUESTION, target_calls=2, cost_weight=0.5)


@pytest.mark.parametrize("target", [0, 0.99, -1, True, "2", float("nan"), float("inf")])
def test_an_impossible_target_is_refused(members, plain, target):
    with pytest.raises(InputError, match="`target_calls` must be "):
        RLFocalChatModel(members=members, policy=plain).invoke(QUESTION, target_calls=target)
    if isinstance(target, float):
        with pytest.raises(InputError, match="`target_calls` must be"):
            RLFocalChatModel(members=members, policy=plain, target_calls=target)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (None, r"`prior-.*Train a policy, or bound the calls by `max_team`"),
        (make_policy(), "must hold a curve.*Train it"),
    ],
    ids=["untrained", "without a curve"],
)
def test_a_policy_without_a_curve_cannot_have_a_target(members, policy, text):
    with pytest.raises(InputError, match=text):
        RLFocalChatModel(members=members, policy=policy, target_calls=2)
    with pytest.raises(InputError, match=text):
        RLFocalChatModel(members=members, policy=policy).invoke(QUESTION, target_calls=2)


def test_the_explanation_of_a_trained_policy_tells_its_cost_weight(members, plain):
    model = RLFocalChatModel(members=members, policy=plain)
    message = model.invoke(QUESTION, cost_weight=0.25)
    assert "(trained; cost weight 0.25)" in model.explain(message)
    del how(message)["cost_weight"], how(message)["target_calls"]  # as earlier versions wrote it
    assert "(trained)" in model.explain(message)
