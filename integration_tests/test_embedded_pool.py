"""The embedded pool on its real models: what each member must give, and that nothing of it is left behind."""

import asyncio
import json
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from langchain_rlfocal.demo import embedded_pool
from langchain_rlfocal.demo.pool import MEMBERS, read_styles
from langchain_rlfocal.errors import InputError

STYLES = read_styles()
QUESTION = "What is the opposite of up? Answer with one word."


def post(base_url, path, **body):
    """Send JSON to a server beside its OpenAI-compatible part."""
    request = urllib.request.Request(
        base_url.removesuffix("/v1") + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def slots(base_url):
    """Tell which slots of a server are at work."""
    with urllib.request.urlopen(base_url.removesuffix("/v1") + "/slots") as response:
        return [slot["is_processing"] for slot in json.load(response)]


def endless(member):
    """Bind what makes a member write until it is stopped."""
    return member.bind(max_tokens=900, stop=["\0"], extra_body={**member.extra_body, "ignore_eos": True})


def refuses(base_url):
    """Tell whether nobody listens at the address any more."""
    host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) != 0


def tasks():
    """Name the threads of this process, those of native code included."""
    return {task.name for task in Path("/proc/self/task").iterdir()}


def test_there_are_six_members_of_two_models_each_prompted_in_its_own_way(embedded):
    assert list(embedded.members) == list(MEMBERS)
    assert len(MEMBERS) == len(set(MEMBERS.values())) == 6
    assert {prompting.model for prompting in MEMBERS.values()} == set(embedded.base_urls)
    assert {prompting.style for prompting in MEMBERS.values()} == set(STYLES)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_answers_with_text_usage_and_logprobs_and_streams_piece_by_piece(embedded, name):
    """As many pieces as the usage counts tokens, or nearly so: the last ones are an end and a stop sequence.

    At temperature 0 the stream repeats the answer.
    """
    reply = embedded.members[name].invoke(QUESTION)
    assert reply.text.strip()
    assert reply.usage_metadata["input_tokens"] > 0
    tokens = reply.response_metadata["logprobs"]["content"]
    assert 0 < len(tokens) <= reply.usage_metadata["output_tokens"] <= MEMBERS[name].max_tokens
    assert all(token["logprob"] <= 0 for token in tokens)
    chunks = list(embedded.members[name].stream(QUESTION))
    (usage,) = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    pieces = [chunk.text for chunk in chunks if chunk.text]
    assert max(1, usage["output_tokens"] - 2) <= len(pieces) <= usage["output_tokens"]
    assert MEMBERS[name].temperature or "".join(pieces) == reply.text


def test_the_styles_of_one_model_answer_differently(embedded):
    """The same words to the same model, and three different texts: the server's template does the prompting."""
    texts = {name: embedded.members[name].invoke(QUESTION).text for name in MEMBERS if name.startswith("smollm2")}
    assert len(set(texts.values())) > 1
    assert "Answer:" in texts["smollm2-steps"]


@pytest.mark.parametrize("other", ["smollm2-few-shot", "gemma3-few-shot"], ids=["same model", "another model"])
def test_a_member_answers_while_another_is_still_writing(embedded, other):
    """Meeting, not timing: when the second has answered, the first one's slot is still at work."""
    member = embedded.members["smollm2-plain"]
    writing = endless(member).stream("Write a long story about a king.")
    next(writing)
    assert embedded.members[other].invoke(QUESTION).text
    assert slots(embedded.base_urls["smollm2-135m"])[member.extra_body["id_slot"]]
    writing.close()


def test_all_members_answer_at_once_from_threads_and_from_an_event_loop(embedded):
    members = list(embedded.members.values())

    async def ask():
        return await asyncio.gather(*(member.ainvoke(QUESTION) for member in members))

    with ThreadPoolExecutor(len(members)) as threads:
        replies = list(threads.map(lambda member: member.invoke(QUESTION), members))
    # Two loops: a client that kept connections of the first would fail in the second.
    replies += [*asyncio.run(ask()), *asyncio.run(ask())]
    assert all(reply.usage_metadata for reply in replies)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("model", sorted({prompting.model for prompting in MEMBERS.values()}))
def test_the_template_keeps_the_system_message_and_every_turn_in_order(embedded, model, style):
    """First what the system says, then the solved questions, then the conversation, then the place for the answer."""
    prompt = post(
        embedded.base_urls[model],
        "/apply-template",
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "How do you do?"},
            {"role": "assistant", "content": "I do well."},
            {"role": "user", "content": "What comes after one?"},
        ],
        chat_template_kwargs={"style": style},
    )["prompt"]
    solved = [text for example in STYLES[style] for text in example]
    at = 0
    for text in ("Be brief.", *solved, "How do you do?", "I do well.", "What comes after one?"):
        at = prompt.index(text, at) + len(text)
    assert prompt.endswith({"smollm2-135m": "<|im_start|>assistant\n", "gemma3-270m": "\nAnswer:"}[model])


def test_without_a_style_nothing_is_added(embedded):
    for base_url in embedded.base_urls.values():
        messages = [{"role": "user", "content": "Hello?"}]
        plain = post(base_url, "/apply-template", messages=messages, chat_template_kwargs={"style": "plain"})
        assert post(base_url, "/apply-template", messages=messages) == plain


def test_an_unknown_style_is_refused_with_the_known_ones(embedded):
    member = embedded.members["gemma3-steps"]
    with pytest.raises(openai.BadRequestError, match=r"`style` must be one of plain, .* got odd"):
        member.invoke(QUESTION, extra_body={"chat_template_kwargs": {"style": "odd"}})


def test_members_take_a_system_message_and_several_turns(embedded):
    turns = [SystemMessage("Be brief."), HumanMessage("Hi."), AIMessage("Hello."), HumanMessage("Name a color.")]
    for name in ("smollm2-plain", "gemma3-few-shot"):
        assert embedded.members[name].invoke(turns).usage_metadata["output_tokens"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="native threads are counted in /proc")
def test_closing_waits_for_an_answer_cuts_a_stream_and_leaves_nothing(embedded):
    """No port, no thread, no harm to another pool.

    A server that stops while it owes an answer would never end; see `Traffic`. The context holds 1,024 tokens: had the
    stream been written to its end, it would have hundreds of pieces. The first server of a process starts llama.cpp's own
    log writer, which stays: `embedded` has seen to that.
    """
    before = tasks()
    with embedded_pool() as pool, ThreadPoolExecutor(1) as thread:
        assert tasks() - before
        assert not any(map(refuses, pool.base_urls.values()))
        writing = endless(pool.members["gemma3-few-shot"]).stream("Write a long story about a king.")
        next(writing)
        member = endless(pool.members["smollm2-plain"]).bind(max_tokens=60)
        answer = thread.submit(member.invoke, "Write a long story about a king.")
        while not any(slots(pool.base_urls["smollm2-135m"])):
            pass
        pool.close()
        assert answer.done()
    assert answer.result().usage_metadata["output_tokens"] == 60
    pieces = []
    with pytest.raises(openai.APIConnectionError):
        pieces.extend(writing)
    assert len(pieces) < 600
    assert all(map(refuses, pool.base_urls.values()))
    assert len(tasks()) <= len(before)  # of other pools, native threads come and go
    with pytest.raises(InputError, match="pool is closed"):
        member.invoke(QUESTION)
    assert embedded.members["smollm2-plain"].invoke(QUESTION).text


@pytest.mark.usefixtures("embedded")
def test_a_process_that_forgets_to_close_ends_cleanly():
    """Members outlive the pool's name; the servers stop with the process, at its end or before any answer, without a word."""
    start = "from langchain_rlfocal.demo import embedded_pool; members = embedded_pool().members; "
    answers, exits = f"print(members['smollm2-plain'].invoke({QUESTION!r}).type)", "raise SystemExit(3)"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", start + last], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for last in (answers, exits)
    ]
    ended = [(*process.communicate(), process.returncode) for process in running]
    assert ended == [("ai\n", "", 0), ("", "", 3)]
