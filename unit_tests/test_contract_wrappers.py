"""What LangChain wraps around a chat model: configuration, retries, fallbacks."""

import typing

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel
from support_contract import DOORS, City, answer_of, model_of, three
from support_ensembles import saying
from support_schema_model import SchemaChatModel
from support_tools import QUESTION, lookup

# ---- config, retries, fallbacks


class Runs(BaseCallbackHandler):
    def __init__(self):
        self.starts = []

    def on_chat_model_start(self, serialized, messages, **kwargs):
        self.starts.append((kwargs["name"], set(kwargs["tags"] or ()), kwargs["metadata"]))


@pytest.mark.parametrize("door", DOORS)
async def test_a_bound_config_names_and_tags_the_run(door):
    runs = Runs()
    model = three().with_config(run_name="my run", tags=["mine"], metadata={"who": "me"}, callbacks=[runs])
    await answer_of(model, door)
    [(name, tags, metadata)] = runs.starts
    assert (name, metadata["who"]) == ("my run", "me")
    assert "mine" in tags


@pytest.mark.parametrize("door", ["invoke", "ainvoke", "batch", "abatch"])
async def test_an_ensemble_error_can_be_retried(door):
    """The only member fails at first and answers when it is asked again."""
    calls = []

    def fail_once(_messages):
        calls.append(1)
        if len(calls) == 1:
            raise TimeoutError("late")
        return "yes"

    model = model_of({"a": ScriptedChatModel(script=fail_once)})
    retrying = model.with_retry(
        retry_if_exception_type=(EnsembleError,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    assert (await answer_of(retrying, door)).text == "yes"
    assert len(calls) == 2


def test_retries_end_with_the_error_itself():
    model = model_of({"a": FailingChatModel(error=TimeoutError("late"))})
    with pytest.raises(EnsembleError, match="TimeoutError: late"):
        model.with_retry(wait_exponential_jitter=False, stop_after_attempt=2).invoke(QUESTION)


@pytest.mark.parametrize("door", DOORS)
async def test_another_model_can_be_the_fallback_of_an_ensemble_and_the_other_way_round(door):
    failing = model_of({"a": FailingChatModel(error=TimeoutError("late"))})
    assert (await answer_of(failing.with_fallbacks([saying("spare")]), door)).text == "spare"
    alone = FailingChatModel(error=TimeoutError("late"))
    assert (await answer_of(alone.with_fallbacks([three()]), door)).text == "yes"


def tooled(*, fails=False):
    def fail(_messages, _tools):
        raise TimeoutError("late")

    members = {name: SchemaChatModel(answers=fail if fails else None) for name in "ab"}
    return model_of(members)


@pytest.mark.parametrize("door", DOORS)
async def test_tools_are_bound_to_a_model_and_its_fallbacks_at_once(door):
    model = tooled(fails=True).with_fallbacks([tooled()]).bind_tools([lookup], tool_choice="lookup")
    message = await answer_of(model, door)
    assert [(call["name"], call["args"]) for call in message.tool_calls] == [("lookup", {"city": "Oslo"})]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
async def test_structured_output_goes_to_a_model_and_its_fallbacks_at_once(method):
    model = tooled(fails=True).with_fallbacks([tooled()]).with_structured_output(City, method=method)
    assert model.invoke("The city is 'Oslo'.") == City(name="Oslo")
    assert await model.ainvoke("The city is 'Oslo'.") == City(name="Oslo")


def test_type_hints_that_langchain_reads_resolve():
    for name in ("bind_tools", "with_structured_output", "stream", "astream", "get_num_tokens", "explain"):
        assert typing.get_type_hints(getattr(RLFocalChatModel, name))
    hints = typing.get_type_hints(RLFocalChatModel.bind_tools)
    assert issubclass(typing.get_origin(hints["return"]), Runnable)


@pytest.mark.parametrize("door", DOORS)
async def test_the_run_tells_langsmith_who_answers(door):
    runs = Runs()
    model = three(temperature=0.5, max_tokens=7, stop=["."])
    await answer_of(model, door, QUESTION, {"callbacks": [runs]})
    [(_, _, metadata)] = runs.starts
    facts = {key: metadata[key] for key in metadata if key.startswith("ls_")}
    assert facts | {"ls_integration": None} == {
        "ls_provider": "rlfocal",
        "ls_model_name": "rlfocal",
        "ls_model_type": "chat",
        "ls_temperature": 0.5,
        "ls_max_tokens": 7,
        "ls_stop": ["."],
        "ls_integration": None,
    }
