"""Options: what a member thinks of all of them is read off its reply, and may win without a supporter."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage

from langchain_rlfocal import RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.chat_models.metadata import option_probs_of, options_of
from langchain_rlfocal.features import FEATURES_DIM
from langchain_rlfocal.policies.checkpoint import Parts, _shapes
from langchain_rlfocal.records import Answer
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy

QUESTION = "Which is a fruit?\nA) stone\nB) apple\nC) pear\nAnswer with the letter."


def token(text, **alternatives):
    """One entry of OpenAI's `logprobs.content`; underscores stand for spaces, values are probabilities."""
    probs = {name.replace("_", " "): p for name, p in alternatives.items()}

    def entry(name, p):
        return {"token": name, "bytes": list(name.encode()), "logprob": math.log(p) if p else -9999.0}

    return entry(text, probs.get(text, 1.0)) | {"top_logprobs": [entry(name, p) for name, p in probs.items()]}


def reply(*tokens):
    """A message as ChatOpenAI makes it of a response with `logprobs=True, top_logprobs=5`."""
    return AIMessage(
        "".join(each["token"] for each in tokens),
        response_metadata={
            "token_usage": {"completion_tokens": len(tokens), "prompt_tokens": 30, "total_tokens": 30 + len(tokens)},
            "model_provider": "openai",
            "model_name": "gpt-4.1-nano-2025-04-14",
            "system_fingerprint": "fp_38343a2f8f",
            "id": "chatcmpl-C1",
            "service_tier": "default",
            "finish_reason": "stop",
            "logprobs": {"content": list(tokens), "refusal": None},
        },
    )


def test_the_options_of_a_query_are_its_letters():
    assert options_of(QUESTION) == {"A", "B", "C"}
    assert options_of("What is 2 + 3?") == frozenset()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([token("B", B=0.6, C=0.3, A=0.1)], {"B": 0.6, "C": 0.3, "A": 0.1}),
        ([token("B", B=0.6, C=0.3, The=0.1)], {"B": 0.6, "C": 0.3}),
        ([token("The"), token(" answer"), token(" is"), token(" B", _B=0.5, _C=0.3), token(".")], {"B": 0.5, "C": 0.3}),
        ([token("B", B=0.4, _B=0.1, C=0.3, _C=0.1, c=0.1)], {"B": 0.5, "C": 0.4}),
        ([token("A"), token(" is"), token(" no"), token("\n"), token("B", B=0.9, A=0.0)], {"B": 0.9, "A": 0.0}),
        ([token("**"), token("B", B=0.9, C=0.1), token("**")], {"B": 0.9, "C": 0.1}),
        ([token("(B", **{"(B": 0.9, "(C": 0.1}), token(")")], {"B": 0.9, "C": 0.1}),
    ],
    ids=["letter", "words beside", "sentence", "spaces count together", "last letter", "bold", "bracket"],
)
def test_the_alternatives_to_the_answers_token_are_read(tokens, expected):
    assert option_probs_of(reply(*tokens), "B", options=frozenset("ABC")) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        (AIMessage("B"), "B"),
        (reply(token("B")), "B"),
        (reply(token("B", B=0.9, The=0.1)), "B"),
        (reply(token("B", B=0.3, C=0.6)), "B"),
        (reply(token("B", B=0.6, C=0.4), token(" not"), token(" A", _A=0.9, _B=0.1)), "B"),
        (reply(token("B", B=0.6, A=0.4), token(" or"), token(" A", _A=0.4, _B=0.6)), "B"),
        (reply(token("B", B=0.6, C=0.4)), "C"),
        (reply(token("B", B=0.6, C=0.4)), None),
        (reply(token("D", D=0.6, B=0.4)), "D"),
        (reply(token("apple", apple=0.6, pear=0.4)), "B"),
    ],
    ids=[
        "no logprobs",
        "no alternatives",
        "one option only",
        "not the most probable",
        "another letter follows",
        "another letter follows though less probable",
        "another answer",
        "no answer",
        "no option",
        "no letter",
    ],
)
def test_what_is_not_clear_is_not_read(message, answer):
    assert option_probs_of(message, answer, options=frozenset("ABC")) is None


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.sampled_from(["B", "C", " B", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "token", "logprob", "top_logprobs"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_nothing_that_a_member_reports_raises(reported):
    for logprobs in (reported, {"content": reported}, {"content": [{"token": "B", "top_logprobs": reported}]}):
        probs = option_probs_of(AIMessage("B", response_metadata={"logprobs": logprobs}), "B", options=frozenset("BC"))
        assert probs is None or (set(probs) == {"B", "C"} and all(0 <= p <= 1 for p in probs.values()))


# ---- in the river


def saying(*tokens):
    return ScriptedChatModel(script=[reply(*tokens)])


def divided():
    """Two members who differ, and both hold C for nearly as good."""
    return {"a": saying(token("A", A=0.5, C=0.45, B=0.05)), "b": saying(token("B", B=0.5, C=0.45, A=0.05))}


def scoring_policy(members):
    """A policy that asks everyone and adds up option scores, and nothing else."""
    sizes = {"features": FEATURES_DIM, "decider": 1, "fusion": 1}
    weights = {name: np.zeros(shape) for name, shape in _shapes(len(members), 0, sizes).items()}
    weights["competence.bias"][:] = 0.5
    weights["evidence.shared"][:] = 0.0, 0.0, 10.0
    weights["evidence.moments"][[1, 3, 4]] = 1.0
    weights["pool.price"][:] = 1 / len(members)
    weights["decider.out.bias"][:] = 5.0
    weights["fusion.vote.weight"][0, 0] = 4.0  # the first axis is the evidence, over 4
    return RLFocalPolicy(Parts(members=tuple(members), weights=weights))


def test_a_candidate_carries_the_scores_of_the_options_and_the_explanation_tells_them():
    members = {"a": saying(token("B", B=0.6, C=0.3, A=0.1)), "b": ScriptedChatModel(script=["B"])}
    message = RLFocalChatModel(members=members, policy=scoring_policy(members)).invoke(QUESTION)
    told = {row["member"]: row["option_probs"] for row in message.response_metadata["rlfocal"]["candidates"]}
    assert told == {"a": pytest.approx({"A": 0.1, "B": 0.6, "C": 0.3}), "b": None}


async def test_an_option_that_no_member_ranked_first_can_be_the_answer():
    """Centred on 1/3 each: A is worth 10 (1/6 - 17/60), B as much, C 10 x 7/30: e^2.33 against twice e^-1.17."""
    model = RLFocalChatModel(members=divided(), policy=scoring_policy("ab"), clock=lambda: 0.0)
    share = math.exp(7 / 3) / (math.exp(7 / 3) + 2 * math.exp(-7 / 6))
    whole = model.invoke(QUESTION)
    chunks = list(model.stream(QUESTION))
    achunks = [chunk async for chunk in model.astream(QUESTION)]
    for message in (whole, await model.ainvoke(QUESTION), sum(chunks[1:], chunks[0]), sum(achunks[1:], achunks[0])):
        facts = message.response_metadata["rlfocal"]
        assert message.content == "C"
        assert (facts["fusion"]["member"], facts["fusion"]["answer"]) == (None, "C")
        assert facts["fusion"]["confidence"] == pytest.approx(share, rel=1e-5)
        assert facts["fusion"]["weights"].keys() == {"A", "B", "C"}
        assert [row["asked"] for row in facts["rounds"]] == [["a", "b"]]
        assert message.usage_metadata == {"input_tokens": 28, "output_tokens": 2, "total_tokens": 30}
    text = model.explain(whole)
    assert "answered by the scores of the options: C, which no member ranked first, confidence 0.94" in text
    assert "* " not in text


async def test_a_single_member_s_reply_is_not_relayed_where_its_scores_may_speak_for_another_option():
    """The label C is worth so much that it wins against the member's own letter: no piece may say B before."""
    parts = scoring_policy("a").parts
    weights = dict(parts.weights) | {"evidence.labels": np.array([9.0])}
    policy = RLFocalPolicy(Parts(members=("a",), weights=weights, labels=[("", "C")]))
    model = RLFocalChatModel(members={"a": saying(token("B", B=0.6, C=0.4))}, policy=policy)
    assert model.invoke(QUESTION).content == "C"
    assert "".join(chunk.text for chunk in model.stream(QUESTION)) == "C"
    assert "".join([chunk.text async for chunk in model.astream(QUESTION)]) == "C"


def test_an_answer_without_member_and_label_is_empty_and_never_an_error():
    class Undecided(ScriptedPolicy):
        def fuse(self, query, candidates, failures, *, max_team):
            return Answer(member=None, answer=None, weights={"": 1.0}, supporters={"": ()})

    message = RLFocalChatModel(members=divided(), policy=Undecided([["a"]], ("a", "b"))).invoke(QUESTION)
    assert message.content == ""
    assert "which no member ranked first" in RLFocalChatModel.explain(message)


def test_tool_calls_score_no_option():
    call = {"name": "f", "args": {}, "id": "1", "type": "tool_call"}
    spoken = reply(token("B", B=0.6, C=0.4)).model_copy(update={"tool_calls": [call]})
    members = {"a": ScriptedChatModel(script=[spoken])}
    message = RLFocalChatModel(members=members, policy=scoring_policy("a")).invoke(QUESTION)
    assert message.response_metadata["rlfocal"]["candidates"][0]["option_probs"] is None
    assert message.tool_calls[0]["name"] == "f"
