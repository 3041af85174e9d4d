"""Feedback over HTTP: recorded once, on disk before it is answered, refused in OpenAI's form."""

from uuid import uuid4

import pytest

from langchain_rlfocal.errors import OutcomeLogError
from langchain_rlfocal.log import OutcomeLog
from langchain_rlfocal.log import outcome_log as log_module
from support_ensembles import model_of, saying
from support_http import CHAT, chat, client_of, error_of

FEEDBACK = "/v1/feedback"


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module, "WAIT_S", 0.0)
    opened = OutcomeLog(tmp_path / "outcomes.db")
    yield opened
    opened.close()


def model(log, **members):
    said = members or {"ann": saying("42"), "bob": saying("17"), "cleo": saying("9")}
    return model_of(said, ("ann", "bob") if not members else tuple(members), outcome_log=log)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("form", ["completion", "bare", "response"])
async def test_an_answer_is_scored_by_its_id_in_each_form(log, form, stream, tmp_path):
    async with client_of(model(log)) as client:
        response = await client.post(CHAT, json=chat(stream=stream))
        answer_id = response.headers["x-rlfocal-answer-id"]
        given = {"completion": f"chatcmpl-{answer_id}", "bare": answer_id, "response": f"resp_{answer_id}"}[form]
        told = await client.post(FEEDBACK, json={"answer_id": given, "score": 0.5, "per_member": {"bob": 0}})
        assert told.status_code == 200, told.text
        assert told.json() == {"object": "feedback", "answer_id": answer_id, "recorded": True}
        assert f"chatcmpl-{answer_id}" in response.text
        other = OutcomeLog(tmp_path / "outcomes.db")  # as another process sees it, without waiting
        [(_, (served, said))] = other.events_since(0)
        other.close()
    assert (served.id, said.score, said.per_member) == (answer_id, 0.5, {"bob": 0.0})


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({}, 400, "answer_id", "missing_required_parameter"),
        ({"score": 1}, 400, "answer_id", "missing_required_parameter"),
        ({"answer_id": "ID"}, 400, "score", "missing_required_parameter"),
        ({"answer_id": "ID", "score": None}, 400, "score", "missing_required_parameter"),
        ({"answer_id": "ID", "score": 1, "comment": "good"}, 400, "comment", "unknown_parameter"),
        ({"answer_id": "chatcmpl-", "score": 1}, 400, "answer_id", "invalid_value"),
        ({"answer_id": 7, "score": 1}, 400, "answer_id", "invalid_value"),
        ({"answer_id": ["ID"], "score": 1}, 400, "answer_id", "invalid_value"),
        ({"answer_id": "../../etc/passwd", "score": 1}, 400, "answer_id", "invalid_value"),
        ({"answer_id": "' OR 1=1 --", "score": 1}, 400, "answer_id", "invalid_value"),
        ({"answer_id": str(uuid4()), "score": 1}, 404, "answer_id", "answer_not_found"),
        ({"answer_id": "ID", "score": 1.5}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": -1}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": "1"}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": [1]}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": 10**18}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": 1, "per_member": {"cleo": 1}}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": 1, "per_member": {"stranger": 1}}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": 1, "per_member": {"ann": 2}}, 422, None, "invalid_feedback"),
        ({"answer_id": "ID", "score": 1, "per_member": ["ann"]}, 422, None, "invalid_feedback"),
    ],
)
async def test_what_breaks_a_rule_is_refused_and_the_answer_still_takes_feedback(log, body, status, param, code):
    async with client_of(model(log)) as client:
        answer_id = (await client.post(CHAT, json=chat())).json()["id"]
        sent = {name: answer_id if value == "ID" else value for name, value in body.items()}
        error = error_of(await client.post(FEEDBACK, json=sent), status)
        assert (error["param"], error["code"]) == (param, code)
        assert str(log.name) not in error["message"]  # where the log is, is the server's own
        assert (await client.post(FEEDBACK, json={"answer_id": answer_id, "score": True})).status_code == 200


async def test_an_answer_takes_feedback_once(log):
    async with client_of(model(log)) as client:
        answer_id = (await client.post(CHAT, json=chat())).json()["id"]
        assert (await client.post(FEEDBACK, json={"answer_id": answer_id, "score": 1})).status_code == 200
        again = await client.post(FEEDBACK, json={"answer_id": answer_id, "score": 0})
        assert error_of(again, 409)["code"] == "feedback_given"
    assert [said.score for _, (_, said) in log.events_since(0)] == [1.0]


async def test_feedback_on_another_pool_s_answer_is_refused(log):
    async with client_of(model(log, dora=saying("42"))) as client:
        answer_id = (await client.post(CHAT, json=chat())).json()["id"]
    async with client_of(model(log)) as client:
        error = error_of(await client.post(FEEDBACK, json={"answer_id": answer_id, "score": 1}), 422)
    assert "dora" in error["message"]


async def test_a_server_without_a_log_says_so():
    async with client_of(model_of({"ann": saying("42")})) as client:
        answer_id = (await client.post(CHAT, json=chat())).json()["id"]
        error = error_of(await client.post(FEEDBACK, json={"answer_id": answer_id, "score": 1}), 404)
    assert error["code"] == "feedback_not_kept"
    assert "--log" in error["message"]


async def test_a_log_that_cannot_be_written_answers_503_and_records_nothing(log, monkeypatch):
    def fail(*_args):
        raise OutcomeLogError(f"The outcome log {log.name} is locked.")

    async with client_of(model(log)) as client:
        answer_id = (await client.post(CHAT, json=chat())).json()["id"]
        with monkeypatch.context() as broken:
            broken.setattr(OutcomeLog, "add_feedback", fail)
            error = error_of(await client.post(FEEDBACK, json={"answer_id": answer_id, "score": 1}), 503)
        assert error["code"] == "log_unavailable"
        assert str(log.name) not in error["message"]
        assert (await client.post(FEEDBACK, json={"answer_id": answer_id, "score": 1})).status_code == 200
