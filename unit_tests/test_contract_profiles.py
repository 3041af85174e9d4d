"""What members can take decides who is asked."""

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.messages.tool import tool_call

from langchain_rlfocal.errors import EnsembleError
from support_contract import DOORS, answer_of, model_of
from support_ensembles import asked, how, saying
from support_schema_model import SchemaChatModel
from support_tools import lookup

# ---- what members can take


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGES = {
    "OpenAI's": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    "LangChain's": {"type": "image", "base64": PIXEL, "mime_type": "image/png"},
    "LangChain's first": {"type": "image", "source_type": "base64", "data": PIXEL, "mime_type": "image/png"},
    "Anthropic's": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
    "Google's": {"type": "media", "mime_type": "image/png", "data": PIXEL},
}


def able(**profile):
    return saying("yes", profile=profile)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("form", IMAGES)
async def test_an_image_goes_to_those_alone_that_take_images(form, door):
    blind, seeing = able(image_inputs=False), able(image_inputs=True)
    message = await answer_of(
        model_of({"blind": blind, "seeing": seeing}, policy=None),
        door,
        [HumanMessage([{"type": "text", "text": "What is it?"}, IMAGES[form]])],
    )
    assert (asked(message), blind.asked) == ([["seeing"]], [])
    assert how(message)["excluded"] == {"blind": "takes no images"}
    assert len(seeing.asked[0].messages[0].content) == 2


@pytest.mark.parametrize("door", DOORS)
async def test_tools_go_to_those_alone_that_know_tools(door):
    plain, tooled_member = saying("It is Oslo."), SchemaChatModel()
    model = model_of({"plain": plain, "tooled": tooled_member}, policy=None).bind_tools([lookup])
    message = await answer_of(model, door)
    assert (asked(message), plain.asked) == ([["tooled"]], [])
    assert how(message)["excluded"] == {"plain": "knows no tools"}
    assert message.tool_calls[0]["name"] == "lookup"


@pytest.mark.parametrize("door", DOORS)
async def test_a_long_conversation_goes_to_those_alone_that_can_hold_it(door):
    """4,000 characters are about 1,000 tokens."""
    short, long = able(max_input_tokens=100), able(max_input_tokens=10_000)
    message = await answer_of(model_of({"short": short, "long": long}, policy=None), door, "word " * 800)
    assert (asked(message), short.asked) == ([["long"]], [])
    assert how(message)["excluded"]["short"].startswith("takes 100 tokens and the conversation has about 1,")


@pytest.mark.parametrize("door", DOORS)
async def test_where_nobody_can_hold_the_conversation_it_is_langchains_overflow(door):
    model = model_of({"a": able(max_input_tokens=10), "b": able(max_input_tokens=20)}, policy=None)
    with pytest.raises(ContextOverflowError) as caught:
        await answer_of(model, door, "word " * 800)
    assert isinstance(caught.value, EnsembleError)
    assert set(caught.value.failures) == {"a", "b"}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "members",
    [
        {"a": able(image_inputs=False)},
        {"a": able(image_inputs=False), "b": able(image_inputs=True, max_input_tokens=1)},
    ],
    ids=["only images matter", "images and length matter"],
)
async def test_where_nobody_can_be_asked_for_another_reason_it_is_no_overflow(members, door):
    with pytest.raises(EnsembleError, match="not asked: it takes") as caught:
        await answer_of(model_of(members, policy=None), door, [HumanMessage([IMAGES["OpenAI's"]])])
    assert not isinstance(caught.value, ContextOverflowError)
    assert all(member.asked == [] for member in members.values())


def test_the_profile_of_an_ensemble_says_what_it_can_do():
    model = model_of(
        {
            "a": able(image_inputs=False, tool_calling=True, max_input_tokens=100, max_output_tokens=10),
            "b": able(image_inputs=True, tool_calling=False, max_input_tokens=200, max_output_tokens=20),
        }
    )
    assert model.profile["image_inputs"] is True
    assert model.profile["tool_calling"] is True
    assert model.profile["max_input_tokens"] == 200
    assert model.profile["max_output_tokens"] == 10
    assert model_of({"a": saying("x")}).profile is None
    assert model_of({"a": able(image_inputs=True)}, profile={"image_inputs": False}).profile == {"image_inputs": False}


def test_images_in_a_tools_result_are_looked_at_too():
    call = tool_call(name="lookup", args={"city": "Oslo"}, id="1")
    conversation = [
        HumanMessage("What is it?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage([IMAGES["LangChain's"]], tool_call_id="1"),
    ]
    blind = able(image_inputs=True, image_tool_message=False)
    model = model_of({"blind": blind, "seeing": able(image_inputs=True, image_tool_message=True)}, policy=None)
    assert asked(model.invoke(conversation)) == [["seeing"]]


def test_a_conversation_too_long_for_the_member_that_a_call_names_is_an_overflow():
    members = {"a": able(max_input_tokens=10), "b": able(max_input_tokens=100_000)}
    with pytest.raises(ContextOverflowError, match="none of 1 did"):
        model_of(members).invoke("word " * 500, model="a")
