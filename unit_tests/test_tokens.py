"""Tokens: what counts where a vocabulary is on this machine, what is estimated where none is, and that nothing downloads."""

import base64
import hashlib
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import pytest
import tiktoken
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel
from tiktoken import load

from langchain_rlfocal.execution import tokens
from langchain_rlfocal.execution.tokens import (
    num_tokens,
    num_tokens_of_messages,
    prompt_tokens,
    response_tokens,
)
from langchain_rlfocal.testing import ScriptedChatModel

ADDRESS = "https://openaipublic.blob.core.windows.net/encodings/{}.tiktoken"
WORDS = [b"he", b"ll", b"hell", b"hello"]
"""Merges of a tiny vocabulary: `hello` is one token, and any other byte is one for itself."""


class Model(ScriptedChatModel):
    script: Any = ()
    model_name: str | None = None


@pytest.fixture(autouse=True)
def forgotten():
    """What a process remembers: vocabularies, and what was said."""
    tokens._loaded.cache_clear()
    tokens._say_once.cache_clear()
    yield
    tokens._loaded.cache_clear()
    tokens._say_once.cache_clear()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of tiktoken's."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def model():
    return Model()


def put(folder, name="o200k_base", words=WORDS):
    """Put a tiny vocabulary where tiktoken keeps the one of that name, and return it as it is stored."""
    ranks = [bytes([byte]) for byte in range(256)] + words
    data = b"".join(base64.b64encode(token) + b" %d\n" % rank for rank, token in enumerate(ranks))
    folder.mkdir(exist_ok=True)
    (folder / hashlib.sha1(ADDRESS.format(name).encode()).hexdigest()).write_bytes(data)
    return data


@pytest.fixture
def trusted(monkeypatch):
    """Any vocabulary has the right hash."""
    monkeypatch.setattr(load, "check_hash", lambda *_: True)


@pytest.fixture
def vocabulary(cache, trusted):
    put(cache)


# ---- vocabularies


def test_a_vocabulary_on_this_machine_counts(vocabulary, model, caplog):
    """`hello` is one token; space and x are bytes. Nothing is estimated, so nothing is said."""
    assert response_tokens(AIMessage("hello"), model) == 1
    assert (
        response_tokens(AIMessage("hello hello x"), model) == 1 + 2 + 1 + 1
    )  # a space before a word is a piece with it
    assert response_tokens(AIMessage(""), model) == 0
    assert prompt_tokens([HumanMessage("hello")], {}, model) == 1 + 4
    assert response_tokens(AIMessage("<|endoftext|>"), model) == len("<|endoftext|>")
    assert response_tokens(AIMessage("\ud800"), model) == 3  # no character, so that the one for such is counted
    assert caplog.records == []


def test_a_vocabulary_is_read_from_where_tiktoken_reads_it(cache):
    """The same file, under the same name, of the same content as tiktoken's own reader takes without a network."""
    data = put(cache)
    digest = hashlib.sha256(data).hexdigest()
    address = ADDRESS.format("o200k_base")
    assert load.read_file_cached(address, digest) == data
    ranks = tokens._cached_ranks(address, digest)
    assert ranks == load.load_tiktoken_bpe(address, digest)
    assert ranks[b"hello"] == 259


@pytest.mark.parametrize("variable", ["TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR", None])
def test_the_cache_is_the_folder_that_tiktoken_takes(tmp_path, monkeypatch, model, trusted, variable):
    monkeypatch.delenv("TIKTOKEN_CACHE_DIR")
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    if variable is None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        put(tmp_path / "data-gym-cache")
    else:
        monkeypatch.setenv(variable, str(tmp_path / "own"))
        put(tmp_path / "own")
    assert response_tokens(AIMessage("hello"), model) == 1


def test_an_empty_name_turns_the_cache_off(monkeypatch, model, tmp_path, trusted):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    monkeypatch.chdir(tmp_path)
    put(tmp_path)
    assert response_tokens(AIMessage("hello"), model) == 2


@pytest.mark.parametrize(
    ("name", "vocabulary"),
    [
        ("gpt-oss-20b", "o200k_base"),  # its encoding has another name, and the same vocabulary
        ("gpt-4", "cl100k_base"),
        ("claude-opus", "o200k_base"),
        (None, "o200k_base"),
    ],
)
def test_a_models_name_says_which_vocabulary_counts(cache, trusted, name, vocabulary):
    put(cache, vocabulary)
    assert response_tokens(AIMessage("hello"), Model(model_name=name)) == 1


def test_another_vocabulary_than_the_models_own_does_not_count(vocabulary):
    """Where the model's own is absent, two tokens are the estimate for five letters; a name may stand under `model`."""

    class Other(Model):
        model: str = "gpt-4"

    for other in (Model(model_name="gpt-4"), Model(model_name="gpt2"), Other()):
        assert response_tokens(AIMessage("hello"), other) == 2


@pytest.mark.parametrize("damage", ["absent", "of another hash", "a folder", "garbage"])
def test_without_a_usable_vocabulary_counts_are_estimates_and_the_cache_stays(
    cache, model, caplog, monkeypatch, damage
):
    """tiktoken would delete a file of another hash and download it: here it stays as it is, and no download begins."""
    monkeypatch.setattr(load, "read_file", pytest.fail)  # what downloads
    data = put(cache)
    (file,) = cache.iterdir()
    if damage == "absent":
        file.unlink()
    elif damage == "a folder":
        file.unlink()
        file.mkdir()
    elif damage == "garbage":
        monkeypatch.setattr(load, "check_hash", lambda *_: True)
        file.write_bytes(data := b"<html>Sign in</html>")
    with caplog.at_level(logging.INFO):
        assert response_tokens(AIMessage("hello"), model) == 2
        assert response_tokens(AIMessage("hello hello"), model) == 3
        assert prompt_tokens([HumanMessage("hello")], {}, model) == 2 + 4
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "estimates" in caplog.text
    if damage in {"of another hash", "garbage"}:
        assert file.read_bytes() == data


def test_tiktoken_itself_is_left_as_it_is(vocabulary, model):
    """Another thread may be asking it for an encoding: its own loader stays in place."""
    from tiktoken_ext import openai_public  # noqa: PLC0415  # what is looked at

    assert response_tokens(AIMessage("hello"), model) == 1
    assert openai_public.load_tiktoken_bpe is load.load_tiktoken_bpe
    assert sys.modules["tiktoken_ext.openai_public"] is openai_public


@pytest.mark.parametrize("loads", ["load_tiktoken_bpe", "data_gym_to_mergeable_bpe_ranks"])
def test_a_tiktoken_that_loads_by_other_names_is_not_asked(vocabulary, model, monkeypatch, loads):
    """Its constructors would download, so an estimate serves."""
    names = {"ENCODING_CONSTRUCTORS": {"o200k_base": pytest.fail}, loads: pytest.fail}
    loader = find_spec("tiktoken_ext.openai_public").loader
    monkeypatch.setattr(loader, "exec_module", lambda own: vars(own).update(names))
    assert response_tokens(AIMessage("hello"), model) == 2


def test_threads_that_begin_at_once_load_a_vocabulary_once(vocabulary, model, monkeypatch):
    made = []
    barrier = threading.Barrier(4, timeout=30)

    class Encoding(tiktoken.Encoding):
        def __init__(self, *args, **kwargs):
            made.append(threading.get_ident())
            super().__init__(*args, **kwargs)

    def count(_):
        barrier.wait()
        return response_tokens(AIMessage("hello"), model)

    monkeypatch.setattr(tiktoken, "Encoding", Encoding)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(count, range(4))) == [1, 1, 1, 1]
    assert len(made) == 1


def test_no_text_is_too_odd_to_count(vocabulary, model):
    """tiktoken panics at a million spaces in one piece; in pieces of 100,000 it does not."""
    assert response_tokens(AIMessage(" " * 1_000_000), model) == 1_000_000
    assert response_tokens(AIMessage("hello" * 40_000), model) == 40_000


# ---- estimates


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("漢字", 2), ("abcde漢字", 4), ("é", 1), ("\ud800", 1)],
)
def test_an_estimate_is_a_token_for_four_ascii_characters_and_one_for_each_other(model, text, expected):
    assert response_tokens(AIMessage(text), model) == expected


@given(st.text(), st.text())
def test_a_longer_text_is_no_fewer_tokens(one, other):
    """Estimates are for bounds: two parts are at least their whole, and the whole at least each part."""
    model = Model()
    whole = response_tokens(AIMessage(one + other), model)
    assert max(response_tokens(AIMessage(one), model), response_tokens(AIMessage(other), model)) <= whole
    assert whole <= response_tokens(AIMessage(one), model) + response_tokens(AIMessage(other), model) <= whole + 1


# ---- prompts


def test_a_message_takes_four_tokens_besides_its_text(model):
    """8 letters are 2 tokens, 4 are 1: 2 + 4 and 1 + 4."""
    assert prompt_tokens([], {}, model) == 0
    assert prompt_tokens([HumanMessage("x" * 8)], {}, model) == 6
    assert prompt_tokens([SystemMessage("x" * 8), HumanMessage("four")], {}, model) == 11
    assert prompt_tokens([HumanMessage([{"type": "text", "text": "x" * 8}])], {}, model) == 6
    assert prompt_tokens([HumanMessage(["x" * 8])], {}, model) == 6


def test_a_name_and_the_id_of_a_call_are_text(model):
    """`four` and `name` with what is between are 9 characters: 3 tokens."""
    assert prompt_tokens([HumanMessage("four", name="name")], {}, model) == 3 + 4
    assert prompt_tokens([ToolMessage("four", tool_call_id="call")], {}, model) == 3 + 4


BASE64 = base64.b64encode(bytes(30_000)).decode()


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": BASE64, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{BASE64}"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}},
        {"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}},
        {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{BASE64}"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": BASE64}},
        {"type": "media", "mime_type": "image/png", "data": BASE64},
        {"type": "image_generation_call", "result": BASE64},
    ],
    ids=lambda block: block["type"],
)
def test_a_medium_takes_a_thousand_tokens_and_never_its_base64(model, block):
    assert prompt_tokens([HumanMessage(["four", block])], {}, model) == 1 + 4 + 1000
    assert prompt_tokens([HumanMessage([block, block])], {}, model) == 4 + 2000


def test_media_inside_other_blocks_and_without_a_type_are_media(model):
    """In a tool's result 1,000 tokens and its fields' names; Bedrock's bytes likewise."""
    image = {"type": "image", "source": {"type": "base64", "data": BASE64}}
    inside = {"type": "tool_result", "content": [image]}
    untyped = {"image": {"format": "png", "source": {"bytes": bytes(30_000)}}}
    for block in (inside, untyped):
        assert 1004 < prompt_tokens([HumanMessage([block])], {}, model) < 1020


def test_long_data_of_unknown_blocks_are_media_and_short_ones_text(model):
    for name in ("data", "base64", "encrypted_content"):
        assert 1004 < prompt_tokens([HumanMessage([{"type": "x", "of": {name: "x" * 40_000}}])], {}, model) < 1020
        assert 14 < prompt_tokens([HumanMessage([{"type": "x", "of": {name: "x" * 40}}])], {}, model) < 30


def test_content_too_deep_to_look_through_is_a_medium(model):
    content = []
    for _ in range(3_000):
        content = [content]
    message = HumanMessage("").model_copy(update={"content": content})
    assert prompt_tokens([message], {"tools": content}, model) == 1004


def test_a_document_that_is_text_counts_as_its_text(model):
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x" * 40_000}}
    blocks = {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x" * 40_000}]}}
    for block in (text, blocks):
        assert 10_004 < prompt_tokens([HumanMessage([block])], {}, model) < 10_030


def test_calls_count_as_their_names_and_arguments_once(model):
    """`f {"x": "漢"}` on a line of its own: 12 ASCII characters and another are 4 tokens.

    Anthropic's content, and that of OpenAI's responses, holds the call once more.
    """
    call = {"name": "f", "args": {"x": "漢"}, "id": "1"}
    assert prompt_tokens([AIMessage("", tool_calls=[call])], {}, model) == 4 + 4
    anthropic = {"type": "tool_use", "id": "1", "name": "f", "input": {"x": "漢" * 100}}
    openai = {"type": "function_call", "id": "fc", "call_id": "1", "name": "f", "arguments": "漢" * 100}
    for block in (anthropic, openai):
        assert prompt_tokens([AIMessage([block], tool_calls=[call])], {}, model) == 4 + 4
    broken = {"name": "f", "args": '{"x": "漢"', "id": "2", "error": None, "type": "invalid_tool_call"}
    assert prompt_tokens([AIMessage("", invalid_tool_calls=[broken])], {}, model) > 4 + 3
    unnamed = {"name": "f", "args": {}, "id": None}
    assert prompt_tokens([AIMessage([{"type": "text", "text": "x" * 400}], tool_calls=[unnamed])], {}, model) > 104


@tool
def lookup(word: str) -> str:
    """Look a word up."""
    return word


class Person(BaseModel):
    """Somebody."""

    name: str


def test_schemas_count_as_json(model):
    """`[{"a": "漢"}]` has 11 ASCII characters and another: 4 tokens; in two places 8."""
    tools = [{"a": "漢"}]
    assert prompt_tokens([], {"tools": tools}, model) == 4
    assert prompt_tokens([], {"tools": tools, "functions": tools, "stop": ["x" * 400]}, model) == 8
    assert prompt_tokens([], {"tools": None, "response_format": None}, model) == 0
    assert prompt_tokens([], {"response_format": {"type": "json_object"}}, model) == 6


@pytest.mark.parametrize(("value", "says"), [(lookup, "Look a word up."), (Person, "Somebody.")])
def test_tools_and_classes_that_are_no_json_yet_count_as_their_schemas(vocabulary, value, says):
    assert says in tokens._as_json([value])
    assert prompt_tokens([], {"tools": [value]}, Model()) > len(says)


def test_nothing_that_a_call_may_hold_is_too_odd_to_count(model):
    """Keys that JSON has not, circles, objects, and a `type` that is a list, as in schemas."""
    circle = []
    circle.append(circle)
    for odd in ([{("a", 1): 2}], circle, [object()], [{"type": ["string", "null"]}], {1, 2}):
        assert prompt_tokens([], {"tools": odd}, model) > 0
    schema = {"type": ["string", "null"], "x": None, "n": 1}
    assert prompt_tokens([HumanMessage([schema])], {}, model) == 6 + 4  # 17 characters on 6 lines: 22


# ---- for a caller who asks


def test_a_caller_is_told_an_estimate_of_four_characters_a_token_and_that_once(caplog):
    assert [num_tokens(text, None) for text in ("", "1234", "123456789", "漢字")] == [0, 1, 3, 1]
    one = num_tokens_of_messages([HumanMessage("x" * 400)], None, None)
    assert 100 <= one < num_tokens_of_messages([HumanMessage("x" * 400)], [lookup], None)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "custom_get_token_ids" in caplog.text


def test_a_callers_own_tokenizer_counts(caplog):
    """One token a word: three, and LangChain's "Human:" before."""
    assert num_tokens("three words here", str.split) == 3
    assert num_tokens_of_messages([HumanMessage("three words here")], None, str.split) == 4
    assert num_tokens_of_messages([HumanMessage("three words here")], [lookup, Person], str.split) > 4
    assert caplog.records == []
