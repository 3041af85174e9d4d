"""The schema model does what its call arguments tell it, and its values are such as their schemas allow."""

import json
import typing
from typing import Annotated, Literal, TypedDict

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.testing import SchemaChatModel


@tool
def get_weather(city: str, days: int = 1) -> str:
    """Get the weather."""
    return f"{city}: sunny for {days} days"


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOLS = [get_weather, add]
HELLO = "Hello to you."


class Weather(BaseModel):
    """What the weather is."""

    city: str
    degrees: float
    sky: Literal["clear", "cloudy"]
    wind: str | None = None


async def every_way(model, question):
    streamed = list(model.stream(question))
    astreamed = [chunk async for chunk in model.astream(question)]
    return [
        model.invoke(question),
        await model.ainvoke(question),
        sum(streamed[1:], streamed[0]),
        sum(astreamed[1:], astreamed[0]),
    ]


def called(message):
    return [(call["name"], call["args"]) for call in message.tool_calls]


# ---- which tools it calls


@pytest.mark.parametrize(
    ("choice", "question", "names"),
    [
        (None, "Hello!", []),
        ("auto", "Hello!", []),
        (None, "Is it good weather in Rome?", ["get_weather"]),
        (None, "Use add on 3 and 4.", ["add"]),
        (None, "I got an additional letter.", []),
        (None, "First add 3 and 4, then get_weather.", ["add", "get_weather"]),
        ("none", "Use add on 3 and 4.", []),
        ("any", "Hello!", ["get_weather"]),
        ("any", "Use add on 3 and 4.", ["add"]),
        ("required", "Hello!", ["get_weather"]),
        (True, "Hello!", ["get_weather"]),
        (False, "Hello!", []),
        ("add", "Is it good weather in Rome?", ["add"]),
        ({"type": "function", "function": {"name": "add"}}, "Hello!", ["add"]),
    ],
)
async def test_it_obeys_the_tool_choice_and_else_calls_what_is_mentioned(choice, question, names):
    model = SchemaChatModel().bind_tools(TOOLS, tool_choice=choice)
    for message in await every_way(model, question):
        assert [call["name"] for call in message.tool_calls] == names
        assert message.text == ("" if names else HELLO)


def test_the_tool_with_most_words_of_its_name_in_the_message_is_called():
    """Two words of the second name, one of the first; `get` is too short to say anything."""
    tools = [
        {"title": name, "description": "", "type": "object"} for name in ("get_weather", "get_weatherForecast_city")
    ]
    model = SchemaChatModel().bind_tools(tools)
    [call] = model.invoke("get me the forecast for the city").tool_calls
    assert call["name"] == "get_weatherForecast_city"
    assert not model.invoke("get me something").tool_calls


def test_parallel_tool_calls_can_be_forbidden():
    question = "First add 3 and 4, then get_weather in Rome."
    message = SchemaChatModel().bind_tools(TOOLS, parallel_tool_calls=False).invoke(question)
    assert called(message) == [("add", {"a": 3, "b": 4})]


def test_a_tool_choice_can_be_ignored():
    model = SchemaChatModel(ignores_tool_choice=True)
    for choice in ("any", "add", "none"):
        assert called(model.bind_tools(TOOLS, tool_choice=choice).invoke("Hello!")) == []
    assert called(model.bind_tools(TOOLS, tool_choice="none").invoke("add 1 and 2")) == [("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize(("choice", "said"), [("subtract", r"\(get_weather, add\), got 'subtract'"), (3, "got 3")])
def test_a_tool_choice_that_is_none_is_refused(choice, said):
    with pytest.raises(InputError, match=said):
        SchemaChatModel().invoke("?", tools=SchemaChatModel().bind_tools(TOOLS).kwargs["tools"], tool_choice=choice)


def test_without_tools_a_tool_choice_means_nothing():
    assert SchemaChatModel().invoke("?", tool_choice="any").text == HELLO


def test_tools_without_a_function_are_left_to_the_server():
    """Such as a provider's own web search: it has no name to call."""
    assert SchemaChatModel().bind_tools([{"type": "web_search"}], tool_choice="any").invoke("?").text == HELLO


def test_arguments_are_the_required_ones_or_with_strict_all():
    """`days` has a default, 1, which an argument's schema states."""
    question = "What is the weather in Rome for 3 days?"
    for strict, args in ((None, {"city": "Rome"}), (False, {"city": "Rome"}), (True, {"city": "Rome", "days": 1})):
        assert called(SchemaChatModel().bind_tools(TOOLS, strict=strict).invoke(question)) == [("get_weather", args)]


def test_each_call_takes_its_values_from_the_whole_message():
    tools = [
        {"title": f"f{n}", "type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
        for n in (1, 2)
    ]
    assert called(SchemaChatModel().bind_tools(tools).invoke("Do f1 and f2 on 7.")) == [
        ("f1", {"x": 7}),
        ("f2", {"x": 7}),
    ]


# ---- in a conversation


def test_a_tool_is_called_run_and_its_result_repeated():
    model = SchemaChatModel().bind_tools(TOOLS)
    messages = [HumanMessage("What is the weather in Rome?")]
    messages.append(model.invoke(messages))
    [call] = messages[-1].tool_calls
    messages.append(get_weather.invoke(call))
    assert model.invoke(messages).text == "get_weather says: Rome: sunny for 1 days"
    again = model.invoke([*messages, HumanMessage("And the weather in Oslo?")])
    assert called(again) == [("get_weather", {"city": "Oslo"})]


def test_all_results_since_the_calls_are_repeated_named_or_not():
    results = [ToolMessage("1", tool_call_id="1", name="f"), ToolMessage("2", tool_call_id="2")]
    history = [HumanMessage("?"), AIMessage("", tool_calls=[{"name": n, "args": {}, "id": n} for n in "12"]), *results]
    assert SchemaChatModel().invoke(history).text == "f says: 1\nThe tool says: 2"


def test_forced_after_a_result_it_calls_what_it_has_not_called():
    """As with an agent that ends in a call of the schema of its answer; when all are called, it starts again."""
    model = SchemaChatModel().bind_tools([get_weather, Weather], tool_choice="any")
    messages, names = [HumanMessage("How is the weather?")], []
    for _ in range(3):
        messages.append(model.invoke(messages))
        names += [call["name"] for call in messages[-1].tool_calls]
        messages += [ToolMessage("done", tool_call_id=call["id"]) for call in messages[-1].tool_calls]
    assert names == ["get_weather", "Weather", "get_weather"]
    assert called(model.invoke([*messages, HumanMessage("How is the weather?")]))[0][0] == "get_weather"


def test_ids_of_calls_differ_between_calls_turns_and_models_and_are_always_the_same():
    question = "get_weather and add"

    def ids(name, messages):
        return [call["id"] for call in SchemaChatModel(model_name=name).bind_tools(TOOLS).invoke(messages).tool_calls]

    later = [HumanMessage(question), AIMessage("no"), HumanMessage(question)]
    all_ids = [*ids("a", question), *ids("b", question), *ids("a", later)]
    assert len(set(all_ids)) == len(all_ids) == 6
    assert ids("a", question) == all_ids[:2]


def test_without_a_human_message_the_last_one_is_the_question():
    assert called(SchemaChatModel().bind_tools(TOOLS).invoke([SystemMessage("add 1 and 2")])) == [
        ("add", {"a": 1, "b": 2})
    ]


# ---- answers in words


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_schema", "json_schema": {"name": "Weather", "schema": Weather.model_json_schema()}},
        Weather,
        Weather.model_json_schema(),
    ],
    ids=["OpenAI's form", "pydantic", "JSON schema"],
)
async def test_a_response_format_makes_json(form):
    for message in await every_way(
        SchemaChatModel().bind(response_format=form), "In Rome it is cloudy and 21.5 degrees"
    ):
        assert json.loads(message.text) == {"city": "Rome", "degrees": 21.5, "sky": "cloudy"}


def test_a_strict_response_format_has_every_property():
    form = {"type": "json_schema", "json_schema": {"schema": Weather.model_json_schema(), "strict": True}}
    assert "wind" in json.loads(SchemaChatModel().invoke("?", response_format=form).text)


def test_json_of_no_schema_has_the_keys_in_quotes():
    form = {"type": "json_object"}
    assert json.loads(SchemaChatModel().invoke("Say 'one' and `two` as JSON", response_format=form).text).keys() == {
        "one",
        "two",
    }
    assert json.loads(SchemaChatModel().invoke("Say nothing", response_format=form).text) == {"answer": "nothing"}
    assert SchemaChatModel().invoke("Say nothing", response_format={"type": "text"}).text == HELLO


def test_with_tools_and_a_response_format_calls_come_first():
    """As in an agent whose model knows both: it calls, and then answers in the form asked for."""
    model = SchemaChatModel().bind_tools([get_weather], response_format=Weather)
    message = model.invoke("What is the weather in Rome?")
    assert called(message) == [("get_weather", {"city": "Rome"})]
    history = [HumanMessage("What is the weather in Rome?"), message]
    reply = model.invoke([*history, ToolMessage("sunny", tool_call_id=message.tool_calls[0]["id"])])
    assert json.loads(reply.text)["city"] == "Rome"


async def test_stop_sequences_cut_the_text():
    model = SchemaChatModel(says="one. two? three")
    for message in await every_way(model.bind(stop=["?", ". "]), "Go"):
        assert message.text == "one"
    assert model.invoke("Go", stop=["four"]).text == "one. two? three"


async def test_a_function_can_answer_instead():
    """A text, a message, or None for what it would say anyway; it sees the messages and the tools."""
    seen = []

    def answers(messages, tools):
        seen.append([function["name"] for function in tools])
        call = {"name": "unknown", "args": {}, "id": "1"}
        return {"text": "Yes. No.", "call": AIMessage("", tool_calls=[call])}.get(messages[-1].text)

    model = SchemaChatModel(answers=answers).bind_tools(TOOLS, tool_choice="any")
    assert {message.text for message in await every_way(model.bind(stop=["."]), "text")} == {"Yes"}
    assert [called(message) for message in await every_way(model, "call")] == [[("unknown", {})]] * 4
    assert called(model.invoke("add 1 and 2")) == [("add", {"a": 1, "b": 2})]
    assert seen == [["get_weather", "add"]] * 9


def test_a_function_that_raises_makes_the_model_raise():
    def answers(messages, tools):
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        SchemaChatModel(answers=answers).invoke("?")


# ---- structured output


class WeatherDict(TypedDict):
    """What the weather is."""

    city: Annotated[str, ..., "The city"]


def test_hints_resolve_at_run_time():
    for name in ("bind_tools", "with_structured_output"):
        assert typing.get_type_hints(getattr(SchemaChatModel, name))["return"]
    assert SchemaChatModel().with_fallbacks([SchemaChatModel()]).bind_tools(TOOLS).invoke("add 1 and 2").tool_calls


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
@pytest.mark.parametrize("strict", [None, True])
async def test_structured_output_gives_objects_of_the_schema(method, strict):
    question = "In Rome it is cloudy and 21.5 degrees"
    told = {"city": "Rome", "degrees": 21.5, "sky": "cloudy"}
    options = {"method": method, "strict": strict}
    chain = SchemaChatModel().with_structured_output(Weather, **options)
    expected = Weather(**told)
    assert await chain.ainvoke(question) == chain.invoke(question) == expected
    assert list(chain.stream(question))[-1] == expected
    chain = SchemaChatModel().with_structured_output(Weather.model_json_schema(), **options)
    assert chain.invoke(question) == told | ({"wind": None} if strict else {})
    assert SchemaChatModel().with_structured_output(WeatherDict, **options).invoke(question) == {"city": "Rome"}


def test_structured_output_in_json_mode_reads_the_keys_from_the_message():
    chain = SchemaChatModel().with_structured_output(WeatherDict, method="json_mode")
    assert chain.invoke("JSON with the key 'city' for Rome") == {"city": "city"}


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_can_include_the_message_and_the_error(method):
    read = SchemaChatModel().with_structured_output(WeatherDict, include_raw=True, method=method).invoke("Say Rome")
    assert isinstance(read["raw"], AIMessage)
    assert (read["parsed"], read["parsing_error"]) == ({"city": "Rome"}, None)
    call = {"name": "Weather", "args": {"city": 1}, "id": "1"}
    model = SchemaChatModel(answers=lambda messages, tools: AIMessage("{", tool_calls=[call]))
    unread = model.with_structured_output(Weather, include_raw=True, method=method).invoke("Say Rome")
    assert unread["parsed"] is None
    assert isinstance(unread["parsing_error"], ValueError)


# ---- as any chat model


async def test_streams_come_in_pieces_with_one_usage_on_the_last_chunk():
    """A tool call's name and id come once, its arguments in pieces under its index."""
    model = SchemaChatModel().bind_tools(TOOLS)
    chunks = list(model.stream("First get_weather in 'São Paulo' and then add 3 and 4"))
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert [chunk for chunk in chunks if chunk.usage_metadata or chunk.response_metadata] == chunks[-1:]
    pieces = [piece for chunk in chunks for piece in chunk.tool_call_chunks]
    assert [piece["index"] for piece in pieces] == sorted(piece["index"] for piece in pieces)
    for index, (name, args) in enumerate([("get_weather", '{"city": "São Paulo"}'), ("add", '{"a": 3, "b": 4}')]):
        mine = [piece for piece in pieces if piece["index"] == index]
        assert len(mine) > 2
        assert [piece["name"] for piece in mine] == [name] + [None] * (len(mine) - 1)
        assert all(piece["id"] is None for piece in mine[1:])
        assert "".join(piece["args"] for piece in mine) == args
    assert [chunk.text for chunk in SchemaChatModel().stream("?")] == ["Hello ", "to ", "you.", ""]


async def test_every_way_to_call_gives_the_same():
    """The question has 6 words; the call 5: `add`, and `{"a": 3, "b": 4}` in four."""
    messages = await every_way(SchemaChatModel().bind_tools(TOOLS), "Please add 3 to 4, thanks")
    assert {str((m.text, m.tool_calls, m.usage_metadata, m.response_metadata["model_name"])) for m in messages} == {
        str(
            (
                "",
                messages[0].tool_calls,
                {"input_tokens": 6, "output_tokens": 5, "total_tokens": 11},
                "schema",
            )
        )
    }


def test_calls_that_are_no_json_stream_as_they_are():
    broken = {"name": "f", "args": '{"a": ', "id": "1", "error": None, "type": "invalid_tool_call"}
    model = SchemaChatModel(answers=lambda messages, tools: AIMessage("", invalid_tool_calls=[broken]))
    assert "".join(p["args"] for chunk in model.stream("?") for p in chunk.tool_call_chunks) == '{"a": '


def test_it_remembers_what_it_was_asked():
    model = SchemaChatModel()
    model.bind_tools(TOOLS, tool_choice="any", parallel_tool_calls=False, ours=1).invoke("q", stop=["."])
    [asked] = model.asked
    assert (asked.messages[0].text, asked.stop) == ("q", ["."])
    assert asked.kwargs.pop("tools")[1]["function"]["name"] == "add"
    assert asked.kwargs == {"tool_choice": "any", "parallel_tool_calls": False, "ours": 1}


def test_it_takes_a_profile_and_works_in_chains():
    model = SchemaChatModel(profile={"tool_calling": True, "max_input_tokens": 100}, says="Yes.")
    assert model.profile["max_input_tokens"] == 100
    assert (model | StrOutputParser()).batch(["a", "b"]) == ["Yes.", "Yes."]
