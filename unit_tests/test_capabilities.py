from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
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


def test_what_goes_in_holds_if_it_does_for_any_and_what_comes_out_if_it_does_for_all():
    merged = merged_profile(
        [
            model(image_inputs=True, tool_calling=False, structured_output=True, image_outputs=False),
            model(image_inputs=False, tool_calling=True, structured_output=False, pdf_inputs=False),
        ]
    )
    assert merged == {
        "image_inputs": True,
        "pdf_inputs": False,
        "image_outputs": False,
        "tool_calling": True,
        "structured_output": False,
    }


def test_who_says_nothing_neither_takes_nor_promises():
    """One has no profile at all."""
    merged = merged_profile([model(audio_inputs=False, structured_output=True, pdf_tool_message=True), Plain()])
    assert merged == {"audio_inputs": False, "structured_output": False, "pdf_tool_message": True}


def test_the_longest_input_and_the_shortest_output_count():
    """Published profiles write 0 where the number is not known."""
    models = [
        model(max_input_tokens=8192, max_output_tokens=4096),
        model(max_input_tokens=128_000, max_output_tokens=1024),
        model(max_input_tokens=0, max_output_tokens=0),
        Plain(),
    ]
    assert merged_profile(models) == {"max_input_tokens": 128_000, "max_output_tokens": 1024}
    assert merged_profile([model(max_input_tokens=0, temperature=True)]) == {"temperature": True}


def test_anything_else_is_said_only_where_all_say_the_same():
    models = [model(name="a", temperature=True, status="active"), model(name="b", temperature=True)]
    assert merged_profile(models) == {"temperature": True}
    assert merged_profile(models[:1]) == models[0].profile


@pytest.mark.parametrize("models", [[], [Plain()], [Plain(), Handy(profile={})]])
def test_without_any_profile_there_is_none(models):
    assert merged_profile(models) is None


def test_keys_that_langchain_does_not_know_are_left_out():
    """It warns of them whenever a model is made, and the member has had its warning."""
    with pytest.warns(UserWarning, match="Unrecognized keys"):
        odd = model(odd=1, image_inputs=True)
    merged = merged_profile([odd])
    assert merged == {"image_inputs": True}
    assert Plain(profile=merged).profile == merged


@given(
    profiles=st.lists(
        st.dictionaries(
            st.sampled_from(["image_inputs", "tool_calling", "structured_output", "temperature"]), st.booleans()
        )
        | st.dictionaries(st.sampled_from(["max_input_tokens", "max_output_tokens"]), st.integers(0, 9)),
        max_size=4,
    )
)
def test_the_order_of_the_pool_does_not_matter_and_saying_it_twice_says_no_more(profiles):
    models = [model(**profile) for profile in profiles]
    merged = merged_profile(models)
    assert merged_profile(models[::-1]) == merged
    assert merged_profile(models * 2) == merged


# ---- what a conversation needs


def test_a_plain_conversation_needs_its_length_alone():
    messages = [SystemMessage("Be kind."), HumanMessage("Hi"), AIMessage("Hello", tool_calls=[])]
    assert needs_of(messages) == needing(tokens=count_tokens_approximately(messages))


IMAGE_URL = {"image_inputs", "image_url_inputs"}


@pytest.mark.parametrize(
    ("block", "inputs"),
    [
        # LangChain's own
        (IMAGE, {"image_inputs"}),
        ({"type": "image", "url": PNG}, {"image_inputs"}),
        ({"type": "image", "url": "https://x/y.png"}, IMAGE_URL),
        ({"type": "image", "file_id": "f"}, {"image_inputs"}),
        ({"type": "audio", "base64": DATA, "mime_type": "audio/wav"}, {"audio_inputs"}),
        ({"type": "video", "base64": DATA, "mime_type": "video/mp4"}, {"video_inputs"}),
        ({"type": "file", "base64": DATA, "mime_type": "application/pdf"}, {"pdf_inputs"}),
        ({"type": "file", "base64": DATA, "mime_type": "text/plain; charset=utf-8"}, set()),
        ({"type": "file", "base64": DATA, "mime_type": "application/json"}, set()),
        ({"type": "file", "base64": DATA, "mime_type": "IMAGE/PNG"}, {"image_inputs"}),
        ({"type": "file", "base64": DATA, "mime_type": "audio/mpeg"}, {"audio_inputs"}),
        ({"type": "file", "base64": DATA, "mime_type": "application/msword"}, {"attachment"}),
        ({"type": "file", "url": "https://x/y.CSV?v=1"}, set()),
        ({"type": "file", "file_id": "f"}, {"pdf_inputs"}),
        ({"type": "text-plain", "text": "hi", "mime_type": "text/plain"}, set()),
        ({"type": "non_standard", "value": {"type": "input_image", "image_url": PNG}}, {"image_inputs"}),
        # LangChain's before 1.0
        ({"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"}, {"image_inputs"}),
        ({"type": "image", "source_type": "url", "url": "http://x/y"}, IMAGE_URL),
        ({"type": "file", "source_type": "base64", "data": DATA, "mime_type": "application/pdf"}, {"pdf_inputs"}),
        ({"type": "file", "source_type": "text", "text": "hi", "mime_type": "text/plain"}, set()),
        # OpenAI's
        ({"type": "image_url", "image_url": {"url": PNG}}, {"image_inputs"}),
        ({"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}}, IMAGE_URL),
        ({"type": "image_url", "image_url": "https://x/y"}, IMAGE_URL),
        ({"type": "input_image", "image_url": PNG}, {"image_inputs"}),
        ({"type": "input_audio", "input_audio": {"data": DATA, "format": "wav"}}, {"audio_inputs"}),
        ({"type": "file", "file": {"filename": "x", "file_data": PDF}}, {"pdf_inputs"}),
        ({"type": "file", "file": {"file_id": "f"}}, {"pdf_inputs"}),
        ({"type": "input_file", "filename": "x.docx", "file_data": DATA}, {"attachment"}),
        # Anthropic's
        ({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}}, {"image_inputs"}),
        ({"type": "image", "source": {"type": "url", "url": "https://x/y"}}, IMAGE_URL),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": DATA}}, {"pdf_inputs"}),
        ({"type": "document", "source": {"type": "url", "url": "https://x/y"}}, {"pdf_inputs"}),
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}, set()),
        ({"type": "document", "source": {"type": "content", "content": []}, "title": "x.pdf"}, set()),
        # Google's and Bedrock's
        ({"type": "media", "mime_type": "video/mp4", "data": DATA}, {"video_inputs"}),
        ({"type": "file_data", "file_uri": "gs://x/y.mp3"}, {"audio_inputs"}),
        ({"image": {"format": "png", "source": {"bytes": b"hi"}}}, {"image_inputs"}),
        ({"document": {"format": "pdf", "name": "x", "source": {"bytes": b"hi"}}}, {"pdf_inputs"}),
        ({"video": {"format": "mp4", "source": {}}}, {"video_inputs"}),
        # none
        ("hi", set()),
        ({"type": "text", "text": "hi"}, set()),
        ({"type": "text", "text": None}, set()),
        ({"text": "hi"}, set()),
        ({"type": ["odd"]}, set()),
        ({}, set()),
    ],
)  # fmt: skip
def test_each_kind_of_block_is_known(block, inputs):
    messages = [HumanMessage(["Look: ", block])]
    needs = needs_of(messages)
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


def test_messages_that_langchain_cannot_count_do_not_count():
    class Note(BaseMessage):
        type: str = "note"

    odd = [Note("x" * 100), RemoveMessage(id="1")]
    assert needs_of(odd).tokens == 0
    function = FunctionMessage("3", name="add")
    assert needs_of([*odd, function]).tokens == count_tokens_approximately([function])


# ---- who fits


@pytest.mark.parametrize(
    ("profile", "needs", "reason"),
    [
        ({"tool_calling": False}, needing(tools=True), "knows no tools"),
        ({"tool_calling": False}, needing(), None),
        ({}, needing(tools=True), None),
        ({"image_inputs": False}, needing("image_inputs"), "takes no images"),
        ({"image_inputs": True}, needing("image_inputs"), None),
        ({}, needing("image_inputs"), None),
        ({"image_url_inputs": False}, needing("image_url_inputs"), "takes no images by address"),
        ({"pdf_inputs": False, "audio_inputs": False}, needing("audio_inputs", "pdf_inputs"), "takes no PDFs"),
        ({"video_inputs": False}, needing("video_inputs"), "takes no videos"),
        ({"image_tool_message": False}, needing("image_tool_message"), "takes no images in tool results"),
        (
            {"max_input_tokens": 8192},
            needing(tokens=12_000),
            "takes 8,192 tokens and the conversation has about 12,000",
        ),
        ({"max_input_tokens": 8192}, needing(tokens=8192), None),
        ({"max_input_tokens": 0}, needing(tokens=8192), None),
    ],
)
def test_a_model_is_taken_at_its_word(profile, needs, reason):
    assert unfit(model(**profile), needs) == reason


def test_a_model_without_bind_tools_knows_none_whatever_its_profile_says():
    assert unfit(Plain(profile={"tool_calling": True}), needing(tools=True)) == "knows no tools"
    assert unfit(Plain(), needing()) is None


def test_those_that_fit_come_in_the_pools_order_with_reasons_for_the_others():
    pool = {"c": model(), "a": Plain(), "b": model(max_input_tokens=5), "d": model(tool_calling=True)}
    names, reasons = fit_members(pool, needing(tools=True, tokens=10))
    assert names == ("c", "d")
    assert reasons == {"a": "knows no tools", "b": "takes 5 tokens and the conversation has about 10"}
    assert list(reasons) == ["a", "b"]


def test_where_one_says_that_it_takes_images_those_that_say_nothing_are_not_asked():
    pool = {"says": model(image_inputs=True), "silent": Plain(), "never": model(image_inputs=False)}
    names, reasons = fit_members(pool, needing("image_inputs"))
    assert names == ("says",)
    assert reasons == {"silent": "does not say that it takes images", "never": "takes no images"}


def test_where_nobody_that_fits_says_it_the_silent_are_asked():
    """One declares images, but the conversation is too long for it."""
    pool = {"short": model(image_inputs=True, max_input_tokens=5), "silent": Plain(), "quiet": model(pdf_inputs=True)}
    names, _ = fit_members(pool, needing("image_inputs", tokens=10))
    assert names == ("silent", "quiet")


def test_two_kinds_of_input_that_no_model_declares_together_leave_somebody_to_ask():
    """One says images, one says PDFs, neither denies the other: images are looked at first."""
    pool = {"pdf": model(pdf_inputs=True), "image": model(image_inputs=True)}
    names, reasons = fit_members(pool, needing("image_inputs", "pdf_inputs"))
    assert names == ("image",)
    assert reasons == {"pdf": "does not say that it takes images"}


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
