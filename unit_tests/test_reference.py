"""The reference pages say what the code does: metadata as real answers have it, errors as the module has them."""

import re
import runpy
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

import langchain_rlfocal
from langchain_rlfocal import PoolMember, RLFocalChatModel, errors
from langchain_rlfocal.online import Guard
from langchain_rlfocal.online import service as service_module
from langchain_rlfocal.testing import CachingChatModel, FailingChatModel, JudgingChatModel, ScriptedChatModel
from support_ensembles import how, model_of, saying
from support_schema_model import SchemaChatModel

REFERENCE = Path(__file__).parents[1] / "docs/reference"
PAGES = runpy.run_path(str(REFERENCE / "generate.py"))["PAGES"]

QUESTION = "What is 2 + 3?"
OPTIONS = "Which is a day?\nA) Winter\nB) April\nC) Tuesday\nAnswer with the letter A, B or C."


@pytest.mark.parametrize("page", ["errors", "pool-file"])
def test_a_page_of_the_reference_is_what_the_code_makes(page):
    """`python docs/reference/generate.py` renews it."""
    assert (REFERENCE / f"{page}.md").read_text(encoding="utf-8") == PAGES[page]()


def test_every_error_stands_in_the_tree_says_a_way_out_and_is_a_public_name():
    public = {name for name in langchain_rlfocal.__all__ if name.endswith("Error")}
    assert public == {error.__name__ for error in RAISED} | {"RLFocalError"}
    for error in RAISED:
        (bases,) = re.findall(rf"─ {error.__name__}\b(?: \((\w+)\))?", errors.__doc__)
        assert "Way out: " in error.__doc__, error
        assert not bases or bases in {base.__name__ for base in error.__mro__}, error


def test_the_picture_of_the_layers_is_what_the_contract_says():
    """`python docs/images/draw_layers.py` renews it."""
    drawing = runpy.run_path(str(REFERENCE.parent / "images/draw_layers.py"))
    assert drawing["PICTURE"].read_text(encoding="utf-8") == drawing["picture"]()
    assert {name for layer in drawing["layers"]() for name in layer} == set(drawing["ROOMS"])


RAISED = [
    value for value in vars(errors).values() if isinstance(value, type) and errors.RLFocalError in value.__mro__[1:]
]


# ---- metadata


def described():
    """The page's fields with their types."""
    rows = re.findall(r"^\| `([^`]+)` \| ([a-z ]+) \|", (REFERENCE / "metadata.md").read_text(), re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a field is described twice"
    return dict(rows)


def is_a(kind, value):
    """Whether a value is what a type of the page says."""
    if kind.endswith(" or null"):
        return value is None or is_a(kind.removesuffix(" or null"), value)
    return {
        "text": isinstance(value, str),
        "true or false": isinstance(value, bool),
        "whole number": type(value) is int,
        "number": type(value) in (int, float),
        "object": isinstance(value, dict),
        "anything": True,
    }[kind]


def fields_of(value, fields, path=""):
    """Every field that a value has, by the page's names, with its value; what a provider says stays whole."""
    if fields.get(path) == "anything":
        yield path, value
    elif isinstance(value, list):
        for item in value:
            yield from fields_of(item, fields, f"{path}[]")
    else:
        if path:
            yield path, value
        for key, item in value.items() if isinstance(value, dict) else ():
            named = f"{path}.{key}".lstrip(".")
            yield from fields_of(item, fields, named if f"{path}.*" not in fields else f"{path}.*")


class Certain(ScriptedChatModel):
    """Reports a probability for each option, as OpenAI-compatible servers do."""

    def _reply(self, messages, stop, kwargs):
        message = super()._reply(messages, stop, kwargs)
        alternatives = [{"token": letter, "logprob": -1.0 - (letter != message.text)} for letter in "ABC"]
        token = {"token": message.text, "logprob": -1.0, "top_logprobs": alternatives}
        return message.model_copy(
            update={"response_metadata": {"logprobs": {"content": [token]}, "finish_reason": "stop"}}
        )


def flaky(*answers):
    """Fails before each answer, once, with what may pass."""
    said = iter([part for answer in answers for part in (ConnectionError("reset"), answer)])

    def script(messages):
        del messages
        answer = next(said)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return ScriptedChatModel(script=script)


def promising(random_policy, members):
    """A policy with a certificate that was given for another task."""
    point = {"cost_weight": 0.5, "member": "bob"}
    certificate = {
        "promise": "best-0.02@0.9", "policy_id": random_policy(("ann", "bob")).policy_id, "date": "2026-11-30", "rows": 400,
        "members": ["ann", "bob"], "tasks": ["quiz"], "task_labels": True, "max_team": 2, "max_rounds": 1,
        "bound": "betting", "p_value": 0.05, "operating_point": {"low": point, "high": point, "share": 0.0},
        "unit": "calls", "spending": 1.0, "score": 0.7, "best_member": "ann", "best_member_score": 0.7,
    }  # fmt: skip
    policy = random_policy(("ann", "bob"), card={"certificates": {"best-0.02@0.9": certificate}})
    return RLFocalChatModel(members=members, policy=policy, promise="best-0.02@0.9", task="essay")


class Leaving(Guard):
    """Leaves Ann out."""

    left_out = ("ann",)


def answers(random_policy, tmp_path):
    """Answers that came about in every way there is."""
    members = {"ann": saying("5"), "bob": FailingChatModel(error=ConnectionError("down")), "cid": flaky("6", "7")}
    failing = model_of(members, max_retries=1, breaker_failures=2)
    yield failing.invoke(QUESTION)
    yield failing.invoke(QUESTION)  # now bob rests

    cut = AIMessage("I will not.", response_metadata={"finish_reason": "content_filter"})
    yield model_of({"ann": saying(cut)}).invoke(QUESTION)
    ended = AIMessage("", response_metadata={"finish_reason": "length"})
    yield model_of({"ann": saying(ended), "bob": saying("5")}).invoke(QUESTION)
    yield model_of({"ann": Certain(script=["C"]), "bob": Certain(script=["B"])}).invoke(OPTIONS)

    tooled = model_of({"ann": SchemaChatModel(), "bob": SchemaChatModel()}).bind_tools([weather])
    yield tooled.invoke("What is the weather in Oslo?")
    object_ = model_of({"ann": SchemaChatModel(), "bob": SchemaChatModel()}).with_structured_output(
        {"title": "Bill", "type": "object", "properties": {"total": {"type": "number"}}, "required": ["total"]},
        include_raw=True,
    )
    yield object_.invoke("Acme wants 120 euros.")["raw"]

    judge = JudgingChatModel(same=lambda a, b: True)
    texts = {"ann": saying("They make energy."), "bob": saying("Power comes from them."), "cid": saying("No idea.")}
    judged = model_of(texts, equivalence=judge)
    yield judged.invoke("What do mitochondria do?")
    yield judged.invoke("What do mitochondria do?")  # remembered
    yield model_of(texts, equivalence=FailingChatModel(error=ConnectionError("reset")), max_retries=1).invoke(QUESTION)
    for synthesizer in (saying("Five."), FailingChatModel(error=OSError("down"))):
        yield model_of(texts, synthesizer=synthesizer, synthesize_below=1).invoke("What do mitochondria do?")

    deaf = ScriptedChatModel(script=["5"], profile={"image_inputs": False})
    seeing = ScriptedChatModel(script=["5"], profile={"image_inputs": True})
    image = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    yield model_of({"ann": deaf, "bob": seeing}).invoke([HumanMessage([{"type": "text", "text": QUESTION}, image])])
    orphan = [
        HumanMessage(QUESTION),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        HumanMessage("?"),
    ]
    yield model_of({"ann": saying("5")}).invoke(orphan)

    card = {"curve": [{"cost_weight": 0.0, "mean_calls": 2.0}, {"cost_weight": 1.0, "mean_calls": 1.0}]}
    pair = {"ann": saying("5"), "bob": saying("6")}
    trained = RLFocalChatModel(members=pair, policy=random_policy(("ann", "bob"), card=card), max_team=2)
    yield trained.invoke(QUESTION)
    yield trained.invoke(QUESTION, target_calls=1.5)
    yield promising(random_policy, pair).invoke(QUESTION)
    down = {"ann": FailingChatModel(error=ConnectionError("reset")), "bob": saying("5")}
    yield model_of(down, max_retries=1).invoke(QUESTION)
    thinking = AIMessage(
        [{"type": "thinking", "thinking": "hm", "signature": "s"}],
        tool_calls=[{"name": "weather", "args": {"city": "Oslo"}, "id": "call_1"}],
        response_metadata={"model_provider": "anthropic"},
    )
    yield model_of({"ann": SchemaChatModel(answers=lambda *_: thinking)}).bind_tools([weather]).invoke("Oslo?")
    prices = {"input_usd_per_mtok": 1.0, "cached_input_usd_per_mtok": 0.1, "output_usd_per_mtok": 2.0}
    caching = {"ann": PoolMember("ann", CachingChatModel(script=["5"]), **prices), "bob": saying("6")}
    yield model_of(caching, ("ann",)).invoke(QUESTION, session="s", sticky="session")
    yield model_of(caching).invoke([HumanMessage(QUESTION), made_by("ann"), HumanMessage(QUESTION)], sticky="session")
    learning = {"outcome_log": tmp_path / "outcomes.db", "learning": "shadow"}
    yield RLFocalChatModel(members=pair, policy=random_policy(("ann", "bob"), card=card), **learning).invoke(QUESTION)


def made_by(name):
    """An answer of an ensemble, as its message says."""
    return AIMessage("5", response_metadata={"rlfocal": {"fusion": {"member": name}}})


def weather(city: str) -> str:
    """Say the weather.

    Args:
        city: A city.
    """
    return f"sunny in {city}"


def test_the_page_of_metadata_describes_every_field_that_answers_have_and_no_other(
    random_policy, tmp_path, monkeypatch
):
    monkeypatch.setattr(service_module, "Guard", Leaving)
    fields = described()
    seen = set()
    for message in answers(random_policy, tmp_path):
        for name, value in fields_of(how(message), fields):
            kind = fields.get(name) or ("object" if f"{name}.*" in fields else None)
            assert kind is not None, f"{name} is not described: {value!r:.80}"
            assert is_a(kind, value), f"{name} is no {kind}: {value!r:.80}"
            seen.add(name)
    assert sorted(set(fields).difference(seen)) == []
