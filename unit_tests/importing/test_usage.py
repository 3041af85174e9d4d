"""Logs of usage: equal conversations are one question, nothing is scored, and of an account nothing is taken."""

import json
import sqlite3
from contextlib import closing
from hashlib import sha256

import pytest

from langchain_rlfocal.errors import OutcomeError


def brief(outcomes, *names):
    return [tuple(getattr(outcome, name) for name in names) for outcome in outcomes]


# ---- litellm (columns of LiteLLM_SpendLogs, 1.110)


def spend(model, question, said, **changes):
    return {
        "request_id": f"chatcmpl-{model}-{question}",
        "call_type": "acompletion",
        "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
        "spend": 0.0003,
        "total_tokens": 10,
        "prompt_tokens": 9,
        "completion_tokens": 1,
        "startTime": "2026-11-30T10:00:00.000000+00:00",
        "endTime": "2026-11-30T10:00:02.000000+00:00",
        "model": f"openai/{model}",
        "model_group": model,
        "user": "someone@example.org",
        "metadata": {"user_api_key": "sk-planted-secret", "user_api_key_alias": "mine"},
        "cache_hit": "False",
        "requester_ip_address": "10.0.0.1",
        "messages": [{"role": "user", "content": question}],
        "response": {"choices": [{"index": 0, "message": {"role": "assistant", "content": said}}]},
        "status": "success",
    } | changes


def test_spend_logs(imported, write, tmp_path):
    """A cached answer costs and takes nothing, which is not what the model costs; an embedding is no answer."""
    rows = [
        spend("ann", "2 + 3?", "5"),
        spend("bob", "2 + 3?", "6", spend=0.0, cache_hit="True"),
        spend(
            "ann", "4 + 4?", "", status="failure", response={}, metadata={"error_information": {"error_message": "429"}}
        ),
        spend("bob", "4 + 4?", ""),
        spend("emb", "x", "", call_type="aembedding"),
    ]
    report, outcomes = imported("auto", write("logs.json", rows))
    assert brief(outcomes, "query", "model", "response", "reward", "cost_usd", "latency_s") == [
        ("2 + 3?", "ann", "5", None, 0.0003, 2.0),
        ("2 + 3?", "bob", "6", None, None, None),
        ("4 + 4?", "ann", None, 0.0, 0.0003, 2.0),
        ("4 + 4?", "bob", "", None, 0.0003, 2.0),
    ]
    assert outcomes[2].answer is None
    assert report.queries == {2: 2}
    table = json.dumps([outcome.extras for outcome in outcomes])
    assert not any(word in table for word in ("planted", "88dc28", "someone", "10.0.0.1"))


def test_spend_logs_without_prompts_say_which_setting_keeps_them(imported, write, tmp_path):
    rows = [spend("ann", "2 + 3?", "5", messages={}, response={}) for _ in range(3)]
    with pytest.raises(
        OutcomeError,
        match=r"got none in 3 rows \(3: no question \(first: .*logs\.jsonl:1\)\).*store_prompts_in_spend_logs: true",
    ):
        imported("litellm", write("logs.jsonl", rows))
    assert not (tmp_path / "out.parquet").exists()


def test_tool_calls_are_an_answer_of_their_own(imported, write):
    """Two members that make the same call in other words of JSON give the same answer; a reply of calls has no text."""
    calls = [
        [{"id": "1", "type": "function", "function": {"name": "refund", "arguments": arguments}}]
        for arguments in ('{"order": 17, "usd": 20}', '{"usd": 20,  "order": 17}')
    ]
    rows = [
        spend(
            model,
            "Refund it.",
            None,
            response={"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": call}}]},
        )
        for model, call in zip(("ann", "bob"), calls, strict=True)
    ]
    _, (ann, bob) = imported("litellm", write("logs.jsonl", rows))
    assert ann.response is None
    assert ann.answer == bob.answer == '[{"args": {"order": 17, "usd": 20}, "name": "refund"}]'


# ---- OpenRouter (columns of its activity)


def test_activity_of_openrouter_holds_neither_prompts_nor_answers(imported, write, tmp_path):
    text = "generation_id,created_at,cost_total,tokens_prompt,tokens_completion,model_permaslug\ngen-1,2026-11-30,0.1,9,1,openai/gpt-5\n"
    with pytest.raises(OutcomeError, match="holds costs and tokens only"):
        imported("openrouter", write("activity.csv", text))
    assert not (tmp_path / "out.parquet").exists()
    text = text.replace("model_permaslug\n", "model_permaslug,prompt,completion\n").replace(
        "gpt-5\n", "gpt-5,2 + 3?,5\n"
    )
    _, (outcome,) = imported(
        "openrouter", write("log.csv", text), columns={"query": "prompt", "response": "completion"}
    )
    assert (outcome.query, outcome.model, outcome.response) == ("2 + 3?", "openai/gpt-5", "5")


# ---- simonw/llm (databases of 0.27, with `responses`, and of 0.36, with `turns`)


@pytest.mark.parametrize("dump", ["llm_responses.sql", "llm_turns.sql"])
def test_the_database_of_llm(imported, database, dump):
    """Two members answer two questions under a system prompt; one is asked the first again without it, then talks in two turns."""
    path = database(dump)
    before = path.read_bytes()
    report, outcomes = imported("auto", path)
    assert path.read_bytes() == before
    assert brief(outcomes, "query", "model", "response", "prompt_tokens", "completion_tokens") == [
        ("What is 2 + 3?", "ann", "5", 7, 2),
        ("What is 2 + 3?", "bob", "6", 7, 2),
        ("What is 4 + 4?", "ann", "8", 7, 2),
        ("What is 4 + 4?", "bob", "6", 7, 2),
        ("What is 2 + 3?", "ann", "five", 7, 2),
        ("Hello", "ann", "five", 7, 2),
        ("And again?", "ann", "five", 7, 2),
    ]
    assert report.queries == {2: 2, 1: 3}
    assert outcomes[6].extras["messages"] == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "five"},
        {"role": "user", "content": "And again?"},
    ]


def test_another_database_is_refused(imported, tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE cats (name TEXT)")
    with pytest.raises(OutcomeError, match=r"other\.db: must be a file of simonw/llm"):
        imported("llm", path)


# ---- OpenAI's batches (shapes of its documentation)


def request(name, model, question):
    body = {"model": model, "messages": [{"role": "user", "content": question}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body}


def answer(name, model, said):
    body = {
        "model": f"{model}-2026-01-01",
        "created": 1796055777,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }
    return {
        "id": f"batch_req_{name}",
        "custom_id": name,
        "response": {"status_code": 200, "request_id": "r", "body": body},
        "error": None,
    }


def test_batches_join_by_custom_id_also_where_two_batches_use_the_same_ids(imported, write):
    """Two models, the same ids; a request that failed, one that expired in the errors file, one that nobody answered."""
    asked = {"q1": "2 + 3?", "q2": "4 + 4?", "q3": "1 + 1?"}
    ann = write("ann.jsonl", [request(name, "ann", text) for name, text in asked.items()])
    bob = write("bob.jsonl", [request(name, "bob", text) for name, text in asked.items()])
    failed = answer("q2", "ann", None) | {"response": {"status_code": 429, "body": {"error": {"message": "Too many"}}}}
    ann_out = write("ann_output.jsonl", [answer("q1", "ann", "5"), failed])
    expired = {"id": "x", "custom_id": "q2", "response": None, "error": {"code": "batch_expired", "message": "expired"}}
    bob_out, bob_errors = write("bob_output.jsonl", [answer("q1", "bob", "6")]), write("bob_errors.jsonl", [expired])
    report, outcomes = imported("auto", ann, ann_out, bob, bob_out, bob_errors)
    assert brief(outcomes, "query", "model", "response", "reward", "prompt_tokens") == [
        ("2 + 3?", "ann", "5", None, 9),
        ("2 + 3?", "bob", "6", None, 9),
        ("4 + 4?", "ann", None, 0.0, None),
        ("4 + 4?", "bob", None, 0.0, None),
    ]
    assert [outcome.extras["failure"] for outcome in outcomes[2:]] == ["Too many", "expired"]
    assert report.notes == {"request without an answer in these files": 2}


def test_an_output_without_its_input_says_what_is_missing(imported, write):
    with pytest.raises(OutcomeError, match="name that file too"):
        imported("openai-batch", write("output.jsonl", [answer("q1", "ann", "5")]))


# ---- what is no text


def seen(kind, address):
    """Return a question about an image as OpenAI's chat, its responses, Anthropic and LangChain send it."""
    text, data = {"type": "text", "text": "What animal is it?"}, address.partition(";base64,")[2]
    sent = {"type": "base64", "media_type": "image/png", "data": data} if data else {"type": "url", "url": address}
    part = {
        "chat": {"type": "image_url", "image_url": {"url": address, "detail": "low"}},
        "responses": {"type": "input_image", "image_url": address},
        "anthropic": {"type": "image", "source": sent, "cache_control": {"type": "ephemeral"}},
        "langchain": {"type": "image", "mime_type": "image/png", **({"base64": data} if data else {"url": address})},
    }[kind]
    return [{"role": "user", "content": [text, part]}]


CAT, DOG = "https://example.org/cat.png", "https://example.org/dog.png"
INLINE = "data:image/png;base64,"


@pytest.mark.parametrize(("cat", "dog"), [(CAT, DOG), (f"{INLINE}aaaa", f"{INLINE}bbbb")])
def test_questions_that_differ_in_an_image_are_two_and_one_image_in_four_forms_is_one(imported, write, cat, dog):
    """Four members are asked about the cat, each in the form of its provider, and one about the dog: two questions."""
    forms = ("chat", "responses", "anthropic", "langchain")
    rows = [spend(form, "", "cat", messages=seen(form, cat)) for form in forms]
    rows += [spend("chat", "", "dog", messages=seen("chat", dog)), spend("chat", "What animal is it?", "which one?")]
    report, outcomes = imported("litellm", write("logs.jsonl", rows))
    assert report.queries == {4: 1, 1: 2}
    assert {outcome.query for outcome in outcomes} == {"What animal is it?"}
    assert [outcome.response for outcome in outcomes] == ["cat"] * 4 + ["dog", "which one?"]
    (message,) = outcomes[0].extras["messages"]
    assert message["content"][0] == {"type": "text", "text": "What animal is it?"}
    shown = {"url": CAT} if cat == CAT else {"sha256": sha256(b"aaaa").hexdigest()[:32]}
    assert message["content"][1] == {"type": "image"} | shown
    assert "messages" not in outcomes[-1].extras


def test_batches_about_two_images_are_two_questions_and_a_file_is_no_image(imported, write):
    def asked(name, model, part):
        row = request(name, model, "")
        row["body"]["messages"][0]["content"] = [{"type": "text", "text": "What is it?"}, part]
        return row

    image = {"type": "image_url", "image_url": {"url": CAT}}
    parts = {"cat": image, "dog": {"type": "image_url", "image_url": {"url": DOG}}}
    parts |= {name: {"type": "image", "source_type": "id", "id": name} for name in ("file-3", "file-4")}
    parts |= {
        "file": {"type": "file", "file": {"file_id": "file-1"}},
        "other": {"type": "file", "file": {"file_id": "file-2"}},
    }
    rows = [asked(f"{model}-{name}", model, part) for model in ("ann", "bob") for name, part in parts.items()]
    answers = [answer(row["custom_id"], row["body"]["model"], row["custom_id"]) for row in rows]
    report, outcomes = imported("openai-batch", write("in.jsonl", rows), write("out.jsonl", answers))
    assert report.queries == {2: 6}
    for cat, also in zip(outcomes[::2], outcomes[1::2], strict=True):
        assert cat.response.partition("-")[2] == also.response.partition("-")[2]


def test_results_of_tools_are_part_of_what_was_asked(imported, write):
    """Anthropic sends them as parts of the user's message; the ids of calls are other ones each time."""

    def asked(call, result):
        return [
            {"role": "user", "content": "What is in the file?"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": call, "name": "read", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call, "content": result}]},
        ]

    rows = [
        spend(name, "", "said", messages=asked(call, result))
        for name, call, result in (("ann", "1", "apples"), ("bob", "2", "apples"), ("cid", "3", "pears"))
    ]
    report, outcomes = imported("litellm", write("logs.jsonl", rows))
    assert report.queries == {2: 1, 1: 1}
    assert {outcome.query for outcome in outcomes} == {"What is in the file?"}


def attached_llm(path):
    """Add to a database of 0.27 what was asked about two images, by two members, and once about none."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "DELETE FROM responses; DROP TABLE IF EXISTS attachments; DROP TABLE IF EXISTS prompt_attachments;"
            "CREATE TABLE attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);"
            'CREATE TABLE prompt_attachments (response_id TEXT, attachment_id TEXT, "order" INTEGER);'
            "INSERT INTO attachments VALUES ('aa', 'image/png', '/x/cat.png', NULL, NULL);"
            f"INSERT INTO attachments VALUES ('bb', 'image/png', NULL, '{DOG}', NULL);"
        )
        for member in ("ann", "bob"):
            for number, image in enumerate(("aa", "bb", None)):
                name = f"{member}{number}"
                connection.execute(
                    "INSERT INTO responses (id, model, prompt, response) VALUES (?, ?, 'What animal is it?', ?)",
                    (name, member, image or "which?"),
                )
                if image:
                    connection.execute("INSERT INTO prompt_attachments VALUES (?, ?, 0)", (name, image))
        connection.commit()


def test_what_llm_attached_to_a_prompt_is_part_of_the_question(imported, database):
    path = database("llm_responses.sql")
    attached_llm(path)
    report, outcomes = imported("llm", path)
    assert report.queries == {2: 3}
    assert brief(outcomes, "model", "response") == [
        (m, said) for said in ("aa", "bb", "which?") for m in ("ann", "bob")
    ]
    assert [outcome.extras["messages"][0]["content"][1] for outcome in outcomes[:4:2]] == [
        {"type": "image", "sha256": "aa"},
        {"type": "image", "url": DOG},
    ]


def test_what_llm_attached_to_a_turn_or_quotes_from_a_fragment_is_part_of_the_question(imported, database):
    """The two members' first question gets an image for the one, and the second a fragment in the middle of its text."""
    path = database("llm_turns.sql")
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TABLE IF NOT EXISTS attachments (id TEXT PRIMARY KEY, type TEXT, path TEXT, url TEXT, content BLOB);"
            'CREATE TABLE IF NOT EXISTS part_attachments (part_id INTEGER, attachment_id TEXT, "order" INTEGER);'
            f"INSERT INTO attachments VALUES ('bb', 'image/png', NULL, '{DOG}', NULL);"
            "INSERT INTO parts VALUES (99, 'b2:b95d8bcc07759ee3b2b0b0ccd8fc6947', 1, 'attachment', NULL, NULL, '{}');"
            "INSERT INTO part_attachments VALUES (99, 'bb', 0);"
            "INSERT INTO fragments (id, hash, content) VALUES (7, 'h', '4 + 4');"
            """UPDATE parts SET text = NULL, payload = '{"text_ref": [{"literal": "What is "}, {"fragment": 7}, {"literal": "?"}]}'"""
            " WHERE text = 'What is 4 + 4?';"
        )
    _, outcomes = imported("llm", path)
    assert [outcome.query for outcome in outcomes if "4 + 4" in outcome.query] == ["What is 4 + 4?"] * 2
    (pictured,) = (outcome for outcome in outcomes if "url" in str(outcome.extras.get("messages")))
    assert pictured.extras["messages"][0]["content"][1] == {"type": "image", "url": DOG}


def test_an_image_beside_a_question_and_what_it_is_asked_about_are_part_of_it(imported, write):
    """Inputs of a trace are often a question and other fields."""
    rows = [
        {
            "name": "run",
            "run_type": "llm",
            "inputs": {"question": "What is it?", "context_length": number + 1, **beside},
            "outputs": {"output": said},
            "extra": {"metadata": {"ls_model_name": name}},
        }
        for number, (name, said, beside) in enumerate(
            (
                ("ann", "cat", {"image_url": CAT}),
                ("bob", "cat", {"image_url": CAT}),
                ("cid", "dog", {"image_url": DOG}),
                ("dee", "law", {"context": "Of laws."}),
                ("eve", "tax", {"context": "Of taxes."}),
            )
        )
    ]
    report, _ = imported("langsmith", write("runs.jsonl", rows))
    assert report.queries == {2: 1, 1: 3}
