"""An ensemble of real models: a question goes in, members are asked over HTTP, and a fused answer comes out."""

import asyncio

import pytest
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_rlfocal import RLFocalChatModel, RLFocalPolicy
from langchain_rlfocal.collection import collect_into
from langchain_rlfocal.demo import POLICY_PATH, QUESTIONS_PATH
from langchain_rlfocal.outcomes import read_questions
from langchain_rlfocal.pool import ModelPool

QUESTION = "Which is heavier, an apple or a bus? Answer with one word."


@pytest.fixture(scope="module")
def model(embedded):
    # The member sampled at a temperature may answer differently when asked again; the others repeat themselves.
    members = {name: member for name, member in embedded.members.items() if not member.temperature}
    return RLFocalChatModel(members=members, policy=POLICY_PATH)


def test_an_answer_tells_how_it_came_about(model):
    message = model.invoke(QUESTION)
    facts = message.response_metadata["rlfocal"]
    assert facts["trained"] is True
    assert facts["policy"] == RLFocalPolicy.load(POLICY_PATH).policy_id
    asked = [name for row in facts["rounds"] for name in row["asked"]]
    assert 1 <= len(asked) <= model.max_team
    assert sorted(c["member"] for c in facts["candidates"]) == sorted(asked)
    for candidate in facts["candidates"]:
        assert candidate["latency_s"] > 0
        assert candidate["completion_tokens"] > 0
        assert candidate["logprob"] <= 0
    assert sum(facts["fusion"]["weights"].values()) == pytest.approx(1.0)
    assert message.text == next(c["text"] for c in facts["candidates"] if c["member"] == facts["fusion"]["member"])
    used = [usage for usage in facts["usage"].values() if usage]
    assert message.usage_metadata["total_tokens"] == sum(usage["total_tokens"] for usage in used)
    assert facts["fusion"]["member"] in model.explain(message)


async def test_every_way_to_call_gives_the_same_answer(model):
    expected = await asyncio.to_thread(model.invoke, QUESTION)
    assert model.invoke(QUESTION).text == expected.text  # in a thread whose event loop is running
    assert (await model.ainvoke(QUESTION)).text == expected.text
    assert [m.text for m in await model.abatch([QUESTION, QUESTION])] == [expected.text] * 2
    assert "".join([chunk.text async for chunk in model.astream(QUESTION)]) == expected.text
    assert await asyncio.to_thread(lambda: "".join(chunk.text for chunk in model.stream(QUESTION))) == expected.text


def test_a_chain_answers_a_batch(model):
    prompt = ChatPromptTemplate.from_template("What is the capital of {country}? Answer with the name of the city.")
    answers = (prompt | model | StrOutputParser()).batch([{"country": "France"}, {"country": "Portugal"}])
    assert all(isinstance(answer, str) and answer for answer in answers)


def test_without_a_policy_it_answers_and_says_that_it_is_untrained(embedded):
    message = RLFocalChatModel(members=embedded.members).invoke(QUESTION)
    assert message.text
    assert message.response_metadata["rlfocal"]["trained"] is False


def test_a_dearer_question_asks_no_more_members(model):
    cheap, dear = model.invoke(QUESTION, cost_weight=0.0), model.invoke(QUESTION, cost_weight=1.0)
    calls = [len(m.response_metadata["rlfocal"]["candidates"]) for m in (cheap, dear)]
    assert calls[0] >= calls[1]
    assert calls[1] == 1


def test_collecting_from_real_models_gives_outcomes_to_learn_from(embedded, tmp_path):
    questions = read_questions(QUESTIONS_PATH)[:1]
    table = collect_into(tmp_path / "outcomes.parquet", ModelPool.from_models(embedded.members), questions).table
    grid = table.grid(list(embedded.members))
    assert len(grid) == 1
    assert (grid.prompt_tokens > 0).all()
    assert (grid.latency_s > 0).all()
    assert set(grid.scores.ravel()) <= {0.0, 1.0}
