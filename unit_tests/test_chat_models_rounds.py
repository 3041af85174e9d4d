"""The chat model's rounds: members are asked within the caps, fail alone, and the majority answers."""

import asyncio
import json
import threading

import pytest
from langchain_core.exceptions import ContextOverflowError, ModelError, ModelRateLimitError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage, UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_rlfocal import PoolMember, RLFocalChatModel
from langchain_rlfocal.errors import EnsembleError
from langchain_rlfocal.testing import FailingChatModel, ScriptedChatModel, ScriptedPolicy
from support_calls import consume
from support_ensembles import how, model_of, saying

QUESTION = "What is 2 + 3?"


CALLS = {
    "invoke": lambda model: asyncio.to_thread(model.invoke, QUESTION),
    "ainvoke": lambda model: model.ainvoke(QUESTION),
    "stream": lambda model: asyncio.to_thread(list, model.stream(QUESTION)),
    "astream": lambda model: consume(model.astream(QUESTION)),
}


# ---- the answer


def test_the_majority_is_answered_and_says_how_it_came_about():
    """Three members, 4, 5 and 5: two of three agree, so Fusion's confidence is 2/3. The clock does not move."""
    members = {
        "a": saying("4"),
        "b": PoolMember("b", saying("The answer is 5.", logprob=-0.5), input_usd_per_mtok=1.0, output_usd_per_mtok=2.0),
        "c": saying("5"),
    }
    message = model_of(members, clock=lambda: 0.0).invoke(QUESTION)
    assert message.content == "The answer is 5."
    assert message.response_metadata["model_name"] == "rlfocal"
    assert "model_provider" not in message.response_metadata
    assert how(message) == {
        "policy": "scripted",
        "trained": False,
        "cost_weight": 0.1,
        "target_calls": None,
        "rounds": [{"round": 1, "asked": ["a", "b", "c"], "probabilities": {"a": 1.0, "b": 1.0, "c": 1.0}}],
        "candidates": [
            {
                "member": member,
                "round": 1,
                "answer": answer,
                "answer_kind": "number",
                "text": text,
                "latency_s": 0.0,
                "prompt_tokens": 5,
                "completion_tokens": len(text.split()),
                "cost_usd": cost,
                "logprob": logprob,
                "option_probs": None,
                "retries": [],
            }
            for member, answer, text, cost, logprob in (
                ("a", "4", "4", None, None),
                ("b", "5", "The answer is 5.", pytest.approx(5e-6 + 8e-6), -0.5),
                ("c", "5", "5", None, None),
            )
        ],
        "failures": [],
        "excluded": {},
        "repairs": [],
        "fusion": {
            "member": "b",
            "answer": "5",
            "weights": {"4": pytest.approx(1 / 3), "5": pytest.approx(2 / 3)},
            "confidence": pytest.approx(2 / 3),
            "synthesized": False,
            "action": "text",
            "agreement": pytest.approx(2 / 3),
            "fields": None,
            "merged": False,
            "notes": [],
        },
        "open_text": False,
        "equivalence": None,
        "synthesizer": None,
        "resting": [],
        "spent": {"calls": 3, "tokens": 21, "usd": pytest.approx(13e-6)},
        "usage": {
            "a": {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6},
            "b": {"input_tokens": 5, "output_tokens": 4, "total_tokens": 9},
            "c": {"input_tokens": 5, "output_tokens": 1, "total_tokens": 6},
        },
    }
    assert message.usage_metadata == {"input_tokens": 15, "output_tokens": 6, "total_tokens": 21}
    assert json.loads(json.dumps(message.response_metadata)) == message.response_metadata


async def test_every_way_to_call_gives_the_same_answer():
    model = model_of({"a": saying("5"), "b": saying("5"), "c": saying("4")})
    chain = ChatPromptTemplate.from_template("What is {sum}?") | model | StrOutputParser()
    assert model.invoke(QUESTION).text == "5"
    assert (await model.ainvoke(QUESTION)).text == "5"
    assert [message.text for message in model.batch([QUESTION, QUESTION])] == ["5", "5"]
    assert [message.text for message in await model.abatch([QUESTION, QUESTION])] == ["5", "5"]
    assert "".join(chunk.text for chunk in model.stream(QUESTION)) == "5"
    assert "".join([chunk.text async for chunk in model.astream(QUESTION)]) == "5"
    assert chain.invoke({"sum": "2 + 3"}) == "5"
    assert await chain.ainvoke({"sum": "2 + 3"}) == "5"
    assert "".join(chain.stream({"sum": "2 + 3"})) == "5"


async def test_members_of_a_round_meet():
    barrier, abarrier = threading.Barrier(2), asyncio.Barrier(2)
    members = {n: saying("5", on_call=lambda: barrier.wait(30), on_acall=abarrier.wait) for n in "ab"}
    model = model_of(members)
    assert model.invoke(QUESTION).text == "5"  # in threads, although this thread runs an event loop
    assert (await model.ainvoke(QUESTION)).text == "5"


async def test_ainvoke_uses_no_threads_for_async_members():
    def refuse(*_args):
        raise AssertionError("a thread was asked for")

    asyncio.get_running_loop().run_in_executor = refuse
    assert (await model_of({"a": saying("5"), "b": saying("5")}).ainvoke(QUESTION)).text == "5"


def test_a_second_round_is_asked_after_the_first_and_all_answers_are_fused():
    asked = []

    def member(name, answer):
        return ScriptedChatModel(script=lambda _: asked.append(name) or answer)

    model = model_of({"a": member("a", "4"), "b": member("b", "5"), "c": member("c", "5")}, ["a"], ["b", "c"])
    message = model.invoke(QUESTION)
    assert message.text == "5"
    assert asked[0] == "a"
    assert [row["asked"] for row in how(message)["rounds"]] == [["a"], ["b", "c"]]
    assert [(row["member"], row["round"]) for row in how(message)["candidates"]] == [("a", 1), ("b", 2), ("c", 2)]


def test_answers_are_labelled_anew_each_round_for_the_decider_to_see():
    """The Decider's second look finds two candidates with one canonical answer, the third is the team's last."""
    seen = []

    class Watching(ScriptedPolicy):
        def select(self, query, candidates, failures, **kwargs):
            seen.append([candidate.answer for candidate in candidates])
            return super().select(query, candidates, failures, **kwargs)

    members = {"a": saying("It is 5."), "b": saying("5"), "c": saying("4")}
    policy = Watching([["a", "b"], ["c"]], ("a", "b", "c"))
    RLFocalChatModel(members=members, policy=policy, max_rounds=3).invoke(QUESTION)
    assert seen == [[], ["5", "5"]]


def test_the_policy_sees_the_last_human_text_the_task_and_the_knobs():
    seen = {}

    class Watching(ScriptedPolicy):
        def select(self, query, candidates, failures, **kwargs):
            seen.update(kwargs, query=query)
            return super().select(query, candidates, failures, **kwargs)

    blocks = [{"type": "text", "text": "What is "}, {"type": "text", "text": "it?"}]
    pool = {name: saying("x") for name in "abcd"}
    model = RLFocalChatModel(members=pool, policy=Watching([["a", "b", "c"]], tuple(pool)), task="t", cost_weight=0.3)
    model.invoke([SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Hello"), HumanMessage(blocks)])
    assert (seen["query"].text, seen["query"].task) == ("What is it?", "t")
    assert seen["available"] == ("a", "b", "c", "d")
    assert (seen["round_number"], seen["max_rounds"], seen["max_team"], seen["cost_weight"]) == (1, 2, 3, 0.3)
    model.invoke([AIMessage("An answer to continue")])
    assert seen["query"].text == "An answer to continue"
    model.invoke([HumanMessage("Add"), AIMessage("I will"), ToolMessage("3", tool_call_id="1")])
    assert seen["query"].text == "Add"


# ---- caps


@pytest.mark.parametrize(("max_team", "asked"), [(1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"])])
def test_the_cap_on_the_team_binds_whatever_the_policy_wants(max_team, asked):
    members = {name: saying("5") for name in "abc"}
    message = model_of(members, ["a"], ["b", "c"], max_team=max_team).invoke(QUESTION)
    assert [member for row in how(message)["rounds"] for member in row["asked"]] == asked


def test_the_cap_on_rounds_binds_whatever_the_policy_wants():
    members = {name: saying("5") for name in "abc"}
    message = model_of(members, ["a"], ["b"], ["c"], max_rounds=2).invoke(QUESTION)
    assert [row["asked"] for row in how(message)["rounds"]] == [["a"], ["b"]]


def test_failures_count_as_calls():
    """A cap of one is one call: the member failed, and no other may stand in."""
    members = {"a": FailingChatModel(error=ValueError("no")), "b": saying("5")}
    with pytest.raises(EnsembleError):
        model_of(members, ["a"], ["b"], max_team=1).invoke(QUESTION)


def test_nobody_is_asked_twice():
    member = saying("5")
    model_of({"a": member, "b": saying("4")}, ["a"], ["a", "b"]).invoke(QUESTION)
    assert len(member.asked) == 1


def test_the_policy_sees_no_larger_a_team_than_the_pool_can_fill():
    seen = []

    class Watching(ScriptedPolicy):
        def select(self, query, candidates, failures, **kwargs):
            seen.append(kwargs["max_team"])
            return super().select(query, candidates, failures, **kwargs)

        def fuse(self, query, candidates, failures, *, max_team):
            seen.append(max_team)
            return super().fuse(query, candidates, failures, max_team=max_team)

    RLFocalChatModel(members={"a": saying("x")}, policy=Watching([["a"]], ("a",)), max_team=3).invoke(QUESTION)
    assert set(seen) == {1}


# ---- without training


def test_without_a_policy_the_members_vote_and_the_answer_says_so():
    message = RLFocalChatModel(members={"a": saying("4"), "b": saying("5"), "c": saying("5")}).invoke(QUESTION)
    assert message.text == "5"
    assert how(message)["trained"] is False
    assert how(message)["policy"].startswith("prior-")


def test_without_a_policy_declared_competences_break_the_tie():
    members = [PoolMember("a", saying("4"), competence=0.3), PoolMember("b", saying("5"), competence=0.9)]
    assert RLFocalChatModel(members=members).invoke(QUESTION).text == "5"


def test_without_a_policy_members_who_agree_are_not_asked_for_a_third_opinion():
    third = saying("5")
    RLFocalChatModel(members={"a": saying("5"), "b": saying("5"), "c": third}).invoke(QUESTION)
    assert third.asked == []


# ---- failures


def test_one_failure_is_recorded_and_the_others_answer():
    members = {"bad": FailingChatModel(error=TimeoutError("too late")), "good": saying("5")}
    message = model_of(members, clock=lambda: 0.0).invoke(QUESTION)
    assert message.text == "5"
    assert how(message)["failures"] == [
        {"member": "bad", "round": 1, "kind": "TimeoutError", "reason": "too late", "latency_s": 0.0, "retries": []}
    ]
    assert how(message)["usage"]["bad"] is None


@pytest.mark.parametrize("call", CALLS)
async def test_when_all_fail_one_error_names_every_member_and_its_cause(call):
    members = {"a": FailingChatModel(error=ModelRateLimitError("slow down")), "b": saying(" "), "c": saying("5")}
    model = model_of(members, ["a", "b"])
    with pytest.raises(EnsembleError, match=r"a: ModelRateLimitError: slow down; b: empty: .*Not asked: c") as caught:
        await CALLS[call](model)
    assert isinstance(caught.value, ModelError)
    assert list(caught.value.failures) == ["a", "b"]
    assert caught.value.is_retryable
    assert isinstance(caught.value.__cause__, ModelRateLimitError)


def test_when_all_fail_on_the_length_langchain_can_tell():
    members = {name: FailingChatModel(error=ContextOverflowError("too long")) for name in "ab"}
    with pytest.raises(ContextOverflowError, match="Every member that can be asked was"):
        model_of(members).invoke(QUESTION)


def test_where_only_some_fail_on_the_length_it_is_not_the_length():
    members = {"a": FailingChatModel(error=ContextOverflowError("long")), "b": FailingChatModel(error=ValueError("no"))}
    with pytest.raises(EnsembleError) as caught:
        model_of(members).invoke(QUESTION)
    assert not isinstance(caught.value, ContextOverflowError)


def test_tokens_of_an_unusable_answer_are_counted():
    """The empty answer took 5 + 7 tokens, the good one 5 + 1."""
    usage = UsageMetadata(input_tokens=5, output_tokens=7, total_tokens=12)
    message = model_of({"a": saying(AIMessage("", usage_metadata=usage)), "b": saying("5")}).invoke(QUESTION)
    assert message.usage_metadata == {"input_tokens": 10, "output_tokens": 8, "total_tokens": 18}
    assert how(message)["usage"]["a"] == usage


def test_unknown_usage_is_unknown_and_not_zero():
    message = model_of({"a": saying("5", reports_usage=False)}).invoke(QUESTION)
    assert message.usage_metadata is None


async def test_cancelling_cancels_every_member_and_leaves_no_task():
    begun, never = asyncio.Barrier(3), asyncio.Event()
    cancelled = []

    async def hold():
        await begun.wait()
        try:
            await never.wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    model = model_of({"a": saying("5", on_acall=hold), "b": saying("5", on_acall=hold)})
    asking = asyncio.create_task(model.ainvoke(QUESTION))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert cancelled == [True, True]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_timeout_around_the_call_is_a_timeout():
    never = asyncio.Event()
    model = model_of({"a": saying("5", on_acall=never.wait)})
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(model.ainvoke(QUESTION), timeout=0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_langgraphs_control_flow_passes_through():
    GraphBubbleUp = type("GraphBubbleUp", (Exception,), {})
    with pytest.raises(GraphBubbleUp):
        model_of({"a": FailingChatModel(error=GraphBubbleUp()), "b": saying("5")}).invoke(QUESTION)
