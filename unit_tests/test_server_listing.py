"""Names of models at the server: what is listed, that each can be asked, and what the ensemble is asked for by it."""

import pytest
from openai.types import Model

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import InputError
from langchain_rlfocal.server.names import choice_of
from support_http import CHAT, chat, client_of, error_of
from support_odd_members import Saying


@pytest.fixture
def model(quiz_policy):
    """An ensemble whose policy asks up to two members, trained on outcomes without prices."""
    return RLFocalChatModel(members={name: Saying(script=["Yes."]) for name in ("ann", "bob")}, policy=quiz_policy)


async def listed(model, **config):
    async with client_of(model, **config) as client:
        response = (await client.get("/v1/models")).json()
    assert response["object"] == "list"
    for one in response["data"]:
        Model.model_validate(one, strict=True)
    return {one["id"]: one["rlfocal"] for one in response["data"]}


async def test_the_ensemble_its_aliases_and_its_members_are_listed(model):
    """The policy's curve begins at one call and ends at two at most; what nobody was paid, no alias promises."""
    found = await listed(model)
    most = model.policy.curve.hull("calls")[0][-1]
    calls = [f"rlfocal:calls={number}" for number in range(1, int(most) + 1)]
    assert calls == [name for name in found if name.startswith("rlfocal:calls=")]
    assert not any(name.startswith("rlfocal:usd=") for name in found)
    assert found["rlfocal"] == {"kind": "ensemble"}
    assert found[calls[0]] == {"kind": "target", "target_calls": 1.0}
    assert found["ann"] == found["bob"] == {"kind": "member"}


async def test_every_model_that_is_listed_answers(model):
    async with client_of(model) as client:
        for name in await listed(model):
            response = await client.post(CHAT, json=chat(model=name, rlfocal={"task": "quiz/a"}))
            assert response.status_code == 200, response.text
            assert response.json()["model"] == name


async def test_an_alias_is_a_target_and_the_body_goes_before_it(model):
    async with client_of(model) as client:
        got = (await client.post(CHAT, json=chat(model="rlfocal:calls=1.5"))).json()["rlfocal"]
        assert got["target"] == {"target_calls": 1.5}
        got = (await client.post(CHAT, json=chat(model="rlfocal:calls=1.5", rlfocal={"target_calls": 1}))).json()
        assert got["rlfocal"]["target"] == {"target_calls": 1.0}
        got = (await client.post(CHAT, json=chat(model="rlfocal:calls=1.5", rlfocal={"cost_weight": 0.5}))).json()
        assert (got["rlfocal"]["target"], got["rlfocal"]["cost_weight"]) == (None, 0.5)


async def test_each_model_can_be_looked_up_and_no_other(model):
    async with client_of(model) as client:
        for name in ("rlfocal", "rlfocal:calls=1.25", "ann"):
            response = await client.get(f"/v1/models/{name}")
            assert (response.status_code, response.json()["id"]) == (200, name)
        for name in ("eve", "rlfocal:calls", "ann/x", "rlfocal:promise=best-0.02@0.9"):
            assert error_of(await client.get(f"/v1/models/{name}"), 404)["code"] == "model_not_found"


@pytest.mark.parametrize(
    "name", ["rlfocal:calls=0", "rlfocal:calls=nan", "rlfocal:usd=-1", "rlfocal:usd=inf", "rlfocal:calls=two"]
)
async def test_an_amount_that_cannot_be_kept_is_told(model, name):
    async with client_of(model) as client:
        assert error_of(await client.post(CHAT, json=chat(model=name)), 400)["param"] == "model"


def test_a_promise_of_the_policy_is_a_name(model, monkeypatch):
    monkeypatch.setattr(model.policy, "certificates", {"best-0.02@0.9": object()})
    choice = choice_of("rlfocal:promise=best-0.02@0.9", model)
    assert (choice.kind, choice.options) == ("promise", {"promise": "best-0.02@0.9"})


async def test_an_untrained_ensemble_has_no_aliases():
    model = RLFocalChatModel(members={"ann": Saying(script=["Yes."])})
    assert [*await listed(model)] == ["rlfocal", "ann"]
    async with client_of(model) as client:
        error = error_of(await client.post(CHAT, json=chat(model="rlfocal:calls=2")), 400)
    assert "trained policy" in error["message"]


def test_the_ensembles_own_name_is_its_models(model):
    named = model.model_copy(update={"model_name": "house"})
    assert choice_of("house:calls=2", named).options == {"target_calls": 2.0}
    with pytest.raises(Exception, match="does not exist") as raised:
        choice_of("rlfocal", named)
    assert not isinstance(raised.value, InputError)
