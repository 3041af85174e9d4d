"""Capabilities: who can be asked, by what models declare and what a conversation holds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.outputs import ChatGeneration, ChatResult

from langchain_rlfocal.chat_models.capabilities import Needs, fit_members, merged_profile, needs_of, unfit

DATA = "aGk="
PNG, PDF = f"data:image/png;base64,{DATA}", f"data:application/pdf;base64,{DATA}"
IMAGE = {"type": "image", "base64": DATA, "mime_type": "image/png"}


class Plain(BaseChatModel):
    @property
    def _llm_type(self):
        return "plain"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage("x"))])


class Handy(Plain):
    def bind_tools(self, tools, *, tool_choice=None, **kwargs: Any):
        return self.bind(tools=tools)


def model(**profile):
    return Handy(profile=profile)


def needing(*inputs, tools=False, tokens=1):
    return Needs(tools=tools, inputs=frozenset(inputs), tokens=tokens)


# ---- the pool's profile


@pytest.mark.parametrize(
    ("models", "merged"),
    [
        ([], None),
        ([Plain(), Handy(profile={})], None),
        # What goes in holds if it does for any, what comes out if it does for all; who says nothing does neither.
        ([model(image_inputs=True, tool_calling=False), model(image_inputs=False, tool_calling=True)], {"image_inputs": True, "tool_calling": True}),
        ([model(structured_output=True), model(structured_output=False)], {"structured_output": False}),
        ([model(structured_output=True, pdf_inputs=False), Plain()], {"structured_output": False, "pdf_inputs": False}),
        # Published profiles write 0 where the number is not known.
        ([model(max_input_tokens=9, max_output_tokens=4), model(max_input_tokens=12, max_output_tokens=1), model(max_input_tokens=0, max_output_tokens=0)],
         {"max_input_tokens": 12, "max_output_tokens": 1}),
        # Anything else is said only where all say the same.
        ([model(name="a", temperature=True, status="active"), model(name="b", temperature=True)], {"temperature": True}),
    ],
)  # fmt: skip
def test_the_pools_profile_says_what_it_takes_and_what_it_promises(models, merged):
    assert merged_profile(models) == merged
    assert merged_profile(models[::-1]) == merged


# ---- what a conversation needs


def test_a_plain_conversation_needs_its_length_alone():
    messages = [SystemMessage("Be kind."), HumanMessage("Hi"), AIMessage("Hello", tool_calls=[])]
    assert needs_of(messages) == needing(tokens=count_tokens_approximately(messages))


IMAGE_URL = {"image_inputs", "image_url_inputs"}


@pytest.mark.parametrize(
    ("block", "inputs"),
    [
        # LangChain's own, and those before 1.0
        (IMAGE, {"image_inputs"}),
        ({"type": "image", "url": "https://x/y.png"}, IMAGE_URL),
        ({"type": "audio", "base64": DATA, "mime_type": "audio/wav"}, {"audio_inputs"}),
        ({"type": "video", "base64": DATA, "mime_type": "video/mp4"}, {"video_inputs"}),
        ({"type": "file", "base64": DATA, "mime_type": "application/pdf"}, {"pdf_inputs"}),
        ({"type": "file", "base64": DATA, "mime_type": "text/plain; charset=utf-8"}, set()),
        ({"type": "file", "base64": DATA, "mime_type": "application/json"}, set()),
        ({"type": "file", "base64": DATA, "mime_type": "application/msword"}, {"attachment"}),
        ({"type": "file", "url": "https://x/y.CSV?v=1"}, set()),
        ({"type": "file", "file_id": "f"}, {"pdf_inputs"}),
        ({"type": "image", "source_type": "url", "url": "http://x/y"}, IMAGE_URL),
        ({"type": "file", "source_type": "text", "text": "hi", "mime_type": "text/plain"}, set()),
        # OpenAI's
        ({"type": "image_url", "image_url": {"url": PNG}}, {"image_inputs"}),
        ({"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}}, IMAGE_URL),
        ({"type": "input_image", "image_url": PNG}, {"image_inputs"}),
        ({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}, {"audio_inputs"}),
        ({"type": "file", "file": {"filename": "x", "file_data": PDF}}, {"pdf_inputs"}),
        ({"type": "input_file", "filename": "x.docx", "file_data": DATA}, {"attachment"}),
        # Anthropic's
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}, {"image_inputs"}),
        ({"type": "document", "source": {"type": "url", "url": "https://x/y"}}, {"pdf_inputs"}),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}, set()),
        # Google's and Bedrock's
        ({"type": "media", "mime_type": "video/mp4", "data": DATA}, {"video_inputs"}),
        ({"type": "file_data", "file_uri": "gs://x/y.mp3"}, {"audio_inputs"}),
        ({"image": {"format": "png", "source": {"bytes": b"hi"}}}, {"image_inputs"}),
        ({"document": {"format": "pdf", "name": "x", "source": {"bytes": b"hi"}}}, {"pdf_inputs"}),
        # none
        ("hi", set()),
        ({"type": "text", "text": "hi"}, set()),
        ({"type": ["odd"]}, set()),
        ({}, set()),
    ],
)
def test_each_kind_of_block_is_known(block, inputs):
    needs = needs_of([HumanMessage(["Look: ", block])])
    assert needs.inputs == inputs
    assert 0 < needs.tokens < 110


def test_a_tools_result_with_an_image_needs_a_model_that_takes_it_there():
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DATA}}
    message = ToolMessage([IMAGE, pdf, {"type": "audio", "base64": DATA}], tool_call_id="1")
    expected = {"image_inputs", "image_tool_message", "pdf_inputs", "pdf_tool_message", "audio_inputs"}
    assert needs_of([message]).inputs == expected
    nested = HumanMessage([{"type": "tool_result", "tool_use_id": "1", "content": ["x", IMAGE]}, pdf])
    assert needs_of([nested]).inputs == {"image_inputs", "image_tool_message", "pdf_inputs"}


def test_media_of_an_assistant_are_not_sent_again():
    message = AIMessage([{"type": "text", "text": "Here"}, IMAGE], tool_calls=[])
    assert needs_of([message]) == needing(tokens=count_tokens_approximately([AIMessage("Here")]))


def test_a_file_counts_like_an_image_however_large_it_is():
    """As text, a megabyte of base64 would be a quarter of a million tokens."""
    large = {"type": "file", "base64": "aGk=" * 250_000, "mime_type": "application/pdf"}
    expected = count_tokens_approximately([HumanMessage(["Read:", {"type": "image"}])])
    messages = [HumanMessage(["Read:", large])]
    assert needs_of(messages).tokens == expected
    assert messages[0].content[1] == large


# ---- who fits


@pytest.mark.parametrize(
    ("fields", "needs", "reason"),
    [
        ({"tool_calling": False}, needing(tools=True), "does not support tools"),
        ({"tool_calling": False}, needing(), None),
        ({}, needing("image_inputs", tools=True), None),
        ({"image_inputs": False}, needing("image_inputs"), "does not accept images"),
        ({"image_inputs": True}, needing("image_inputs"), None),
        ({"image_url_inputs": False}, needing("image_url_inputs"), "does not accept images by address"),
        ({"pdf_inputs": False, "audio_inputs": False}, needing("audio_inputs", "pdf_inputs"), "does not accept PDFs"),
        ({"max_input_tokens": 8192}, needing(tokens=9000), "takes 8,192 tokens and the conversation has about 9,000"),
        ({"max_input_tokens": 8192}, needing(tokens=8192), None),
        ({"max_input_tokens": 0}, needing(tokens=8192), None),
    ],
)
def test_a_model_is_taken_at_its_word(fields, needs, reason):
    assert unfit(model(**fields), needs) == reason
    assert (
        unfit(Plain(profile={"tool_calling": True}), needing(tools=True)) == "does not support tools"
    )  # without bind_tools


SAYS = "does not declare that it accepts images"


@pytest.mark.parametrize(
    ("pool", "needs", "reasons"),
    [
        (
            {"c": model(), "a": Plain(), "d": model(tool_calling=True)},
            needing(tools=True),
            {"a": "does not support tools"},
        ),
        (
            {"says": model(image_inputs=True), "silent": Plain(), "never": model(image_inputs=False)},
            needing("image_inputs"),
            {"silent": SAYS, "never": "does not accept images"},
        ),
        # One declares images, but the conversation is too long for it: the silent are asked.
        (
            {"short": model(image_inputs=True, max_input_tokens=5), "silent": Plain(), "quiet": model(pdf_inputs=True)},
            needing("image_inputs", tokens=10),
            {"short": "takes 5 tokens and the conversation has about 10"},
        ),
        # One says images, one says PDFs, neither denies the other: images are looked at first.
        (
            {"pdf": model(pdf_inputs=True), "image": model(image_inputs=True)},
            needing("image_inputs", "pdf_inputs"),
            {"pdf": SAYS},
        ),
    ],
)
def test_those_that_fit_come_in_the_pools_order_with_reasons_for_the_others(pool, needs, reasons):
    assert fit_members(pool, needs) == (tuple(name for name in pool if name not in reasons), reasons)


@given(
    profiles=st.lists(
        st.dictionaries(st.sampled_from(["image_inputs", "pdf_inputs", "audio_inputs", "tool_calling"]), st.booleans()),
        max_size=5,
    ),
    inputs=st.sets(st.sampled_from(["image_inputs", "pdf_inputs", "audio_inputs"])),
    tools=st.booleans(),
)
def test_everybody_fits_or_has_a_reason_and_silence_alone_leaves_nobody_out(profiles, inputs, tools):
    pool = {str(place): model(**profile) for place, profile in enumerate(profiles)}
    needs = needing(*inputs, tools=tools)
    names, reasons = fit_members(pool, needs)
    assert sorted([*names, *reasons]) == sorted(pool)
    assert all(unfit(pool[name], needs) is None for name in names)
    assert bool(names) == any(unfit(member, needs) is None for member in pool.values())
