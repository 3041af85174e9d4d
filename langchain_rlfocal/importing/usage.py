"""Readers of what programs log while they work: litellm, OpenRouter, simonw/llm, OpenAI's batches.

They name calls and not questions, so that equal conversations are one question, and they score nothing. Of an account's data
(keys, users, addresses, teams) nothing is taken.
"""

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.importing.conversations import received_of, sent_of, text_of, usage_of
from langchain_rlfocal.importing.files import field_at, parsed, rows_of
from langchain_rlfocal.importing.records import ReadTally, Record, Spot, Wanted, as_object, as_text, number, seconds

# ---- litellm

_NO_TEXT: tuple[Any, ...] = (None, "", {}, [])


def read_litellm(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read rows of `LiteLLM_SpendLogs`: JSON of `/spend/logs`, JSON lines, CSV of the database."""
    for path in files:
        for spot, row in rows_of(path, tally):
            tally.read += 1
            kind = str(row.get("call_type") or "")
            if kind and not any(word in kind for word in ("completion", "responses", "messages", "generate_content")):
                tally.skip("no call of a chat model", spot)
                continue
            sent_as = next(
                (
                    found
                    for name in ("messages", "proxy_server_request")
                    if (found := parsed(row.get(name))) not in _NO_TEXT
                ),
                None,
            )
            sent, said = sent_of(sent_as), parsed(row.get("response"))
            started, ended = seconds(row.get("startTime")), seconds(row.get("endTime"))
            latency = number(row.get("request_duration_ms"))
            is_cached = str(row.get("cache_hit")).lower() == "true"
            record = Record(
                spot=spot,
                model=wanted.model or as_text(row.get("model_group") or row.get("model") or None),
                query=sent.query if sent else None,
                messages=sent.messages if sent else (),
                prompt_tokens=number(row.get("prompt_tokens")),
                completion_tokens=number(row.get("completion_tokens")),
                # It writes 0 where it knows no price, and where its cache answered: neither is what the model costs.
                cost_usd=number(row.get("spend")) or None,
                latency_s=None
                if is_cached
                else latency / 1000
                if latency is not None
                else ended - started
                if started is not None and ended is not None
                else None,
                at=started,
                raw=row,
            )
            if row.get("status") == "failure":
                record.failure = as_text(field_at(row, "metadata.error_information.error_message")) or "failure"
            elif said not in _NO_TEXT and (reply := received_of(said)) is not None:
                record.response, record.answer = reply.text, reply.calls
            yield record


# ---- OpenRouter


def read_openrouter(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read the rows of an activity export: they say what calls cost, and hold neither what was asked nor what was answered."""
    for path in files:
        for spot, row in rows_of(path, tally):
            tally.read += 1
            yield Record(spot=spot, model=wanted.model or row.get("model_permaslug") or row.get("model"), raw=row)


# ---- simonw/llm


def read_llm(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read the database of logs of `llm` (`llm logs path`): its table `responses`, and from version 0.32 on its `turns`.

    It is opened for reading only, so that a running `llm` is not disturbed. The sixth answer of a conversation is one to all that was said before.
    """
    for path in files:
        try:
            with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
                database.row_factory = sqlite3.Row
                tables = {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
                if not tables & {"responses", "turns"}:
                    raise OutcomeError(
                        "must be the database that `llm logs path` names. Check the path.", file=str(path)
                    )
                taken: set[str] = set()
                if {"turns", "messages", "parts"} <= tables:
                    for record in _llm_turns(database, path, wanted, tables):
                        taken.add(str(record.query_id))
                        record.query_id = None
                        tally.read += 1
                        yield record
                if "responses" in tables:
                    for record in _llm_responses(database, path, wanted, tables):
                        if str(record.query_id) not in taken:
                            record.query_id = None
                            tally.read += 1
                            yield record
        except sqlite3.Error as error:
            rule = f"must be a readable SQLite database, got: {error}. Close the program that holds it, or copy it with `sqlite3 {path} .dump`."
            raise OutcomeError(rule, file=str(path)) from error


def _llm_turns(database: sqlite3.Connection, path: Path, wanted: Wanted, tables: set[str]) -> Iterator[Record]:
    """Read turns: a message points to the one before it, a turn to the last that was sent and the last that came back."""
    messages = {row["hash"]: row for row in database.execute("SELECT hash, parent_hash, role FROM messages")}
    fragments = dict(database.execute("SELECT id, content FROM fragments")) if "fragments" in tables else {}
    texts: dict[str, list[tuple[str, str, str]]] = {}
    files = _llm_attachments(
        database,
        tables,
        "SELECT p.message_hash, a.attachment_id FROM part_attachments a JOIN parts p ON p.id = a.part_id "
        'ORDER BY p.position, a."order"',
    )
    for row in database.execute(
        "SELECT message_hash, type, tool_name, text, payload FROM parts ORDER BY message_hash, position"
    ):
        payload = row["payload"] or ""
        pieces = None if row["text"] else as_object(parsed(payload)).get("text_ref")  # a text that quotes fragments
        text = (
            "".join(fragments.get(p.get("fragment"), p.get("literal", "")) for p in pieces) if pieces else row["text"]
        )
        texts.setdefault(row["message_hash"], []).append((row["type"] or "", text or "", payload))

    def walk(tip: str | None, end: str | None) -> list[dict[str, Any]]:
        chain: list[dict[str, Any]] = []
        while tip is not None and tip != end and tip in messages:
            content = "\n".join(text for kind, text, _ in texts.get(tip, ()) if kind in {"text", ""} and text)
            chain.append({"role": messages[tip]["role"], "content": _llm_content(content, files[tip]), "hash": tip})
            tip = messages[tip]["parent_hash"]
        return chain[::-1]

    for number_, row in enumerate(database.execute("SELECT * FROM turns ORDER BY rowid"), start=1):
        sent = sent_of([{k: m[k] for k in ("role", "content")} for m in walk(row["parent_message_hash"], None)])
        said = [m for m in walk(row["tip_message_hash"], row["parent_message_hash"]) if m["role"] == "assistant"]
        response = text_of(said[-1]["content"]) if said else None
        record = _llm_record(row, Spot(f"{path}#turns", number_), sent, response, wanted)
        calls = [
            payload for m in said for kind, _, payload in texts.get(m["hash"], ()) if kind == "tool_call" and payload
        ]
        if not record.response and calls:
            record.response, record.answer = None, json.dumps([parsed(call) for call in calls], sort_keys=True)
        yield record


def _llm_responses(database: sqlite3.Connection, path: Path, wanted: Wanted, tables: set[str]) -> Iterator[Record]:
    """Read responses; what was said before in a conversation is sent again, fragments go before the prompt."""
    before: dict[str, list[dict[str, Any]]] = {}
    files = _llm_attachments(
        database, tables, 'SELECT response_id, attachment_id FROM prompt_attachments ORDER BY response_id, "order"'
    )
    for number_, row in enumerate(database.execute("SELECT * FROM responses ORDER BY rowid"), start=1):
        columns = row.keys()
        prompt = row["prompt"] or ""
        if {"prompt_fragments", "fragments"} <= tables:
            query = (
                "SELECT f.content FROM prompt_fragments p JOIN fragments f ON f.id = p.fragment_id "
                'WHERE p.response_id = ? ORDER BY p."order"'
            )
            prompt = "\n".join([*(part[0] for part in database.execute(query, (row["id"],))), prompt]).strip("\n")
        history = before.setdefault(row["conversation_id"], []) if row["conversation_id"] else []
        system = [{"role": "system", "content": row["system"]}] if "system" in columns and row["system"] else []
        asked = {"role": "user", "content": _llm_content(prompt, files[row["id"]])}
        sent = sent_of([*system, *history, asked])
        yield _llm_record(row, Spot(f"{path}#responses", number_), sent, row["response"], wanted)
        history += [asked, {"role": "assistant", "content": row["response"] or ""}]


def _llm_attachments(
    database: sqlite3.Connection, tables: set[str], query: str
) -> defaultdict[str, list[dict[str, str]]]:
    """Return what was attached, by the message or response that the query names first. Ids are digests of the bytes or the address."""
    found: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
    if {"attachments", "part_attachments" if "part_attachments" in query else "prompt_attachments"} <= tables:
        about = {row[0]: row for row in database.execute("SELECT id, type, url FROM attachments")}
        for owner, attachment in database.execute(query):
            _, kind, url = about.get(attachment, (attachment, None, None))
            found[owner].append({"type": kind or "file", **({"url": url} if url else {"sha256": attachment})})
    return found


def _llm_content(text: str, files: Sequence[dict[str, str]]) -> Any:
    return [{"type": "text", "text": text}, *files] if files else text


def _llm_record(row: sqlite3.Row, spot: Spot, sent: Any, response: str | None, wanted: Wanted) -> Record:
    columns = row.keys()
    duration = number(row["duration_ms"]) if "duration_ms" in columns else None
    return Record(
        spot=spot,
        model=wanted.model or row["model"],
        query_id=row["id"],
        query=sent.query if sent else None,
        messages=sent.messages if sent else (),
        response=response,
        prompt_tokens=number(row["input_tokens"]) if "input_tokens" in columns else None,
        completion_tokens=number(row["output_tokens"]) if "output_tokens" in columns else None,
        latency_s=None if not duration else duration / 1000,
        at=seconds(row["datetime_utc"]),
        raw={name: row[name] for name in columns},
    )


# ---- OpenAI's batches


def read_openai_batch(files: Sequence[Path], wanted: Wanted, tally: ReadTally) -> Iterator[Record]:
    """Read batches: what an input file asked and an output or errors file answered, joined by `custom_id`.

    Where files of several batches use the same ids, an output belongs to the input file before it in the order of the files.
    """
    asked: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    answered: list[tuple[int, Spot, Mapping[str, Any]]] = []
    for order, path in enumerate(files):
        for spot, row in rows_of(path, tally):
            tally.read += 1
            name = row.get("custom_id")
            if not isinstance(name, str):
                tally.skip("no `custom_id`", spot)
            elif isinstance(row.get("body"), Mapping):
                asked.setdefault(name, []).append((order, row["body"]))
            elif "response" in row or "error" in row:
                answered.append((order, spot, row))
            else:
                tally.skip("neither a request nor its answer", spot)
    matched: set[tuple[str, int]] = set()
    for order, spot, answer in answered:
        name = answer["custom_id"]
        body = field_at(answer, "response.body")
        candidates = asked.get(name, [])
        model = body.get("model") if isinstance(body, Mapping) else None
        named = [found for found in candidates if _same_model(found[1].get("model"), model)] if model else []
        earlier = [found for found in named or candidates if found[0] <= order]
        if not candidates:
            tally.skip("answered, but not in an input file: name that file too", spot)
            continue
        match = (earlier or named or candidates)[-1]  # the nearest before it
        matched.add((name, match[0]))
        request = match[1]
        sent = sent_of(request)
        usage = field_at(body, "usage") if isinstance(body, Mapping) else None
        record = Record(
            spot=spot,
            model=wanted.model or as_text(request.get("model") or model),
            query=sent.query if sent else None,
            messages=sent.messages if sent else (),
            at=seconds(_created(body)),
            extras={"custom_id": name},
            raw={**request, **answer},
        )
        record.prompt_tokens, record.completion_tokens = usage_of(usage)
        status = number(field_at(answer, "response.status_code"))
        if answer.get("error") or (status is not None and status >= 400) or not isinstance(body, Mapping):
            record.failure = (
                as_text(field_at(answer, "error.message") or field_at(answer, "response.body.error.message"))
                or "no answer"
            )
        elif (reply := received_of(body)) is not None:
            record.response, record.answer = reply.text, reply.calls
        yield record
    missing = sum((name, order) not in matched for name, found in asked.items() for order, _ in found)
    if missing:
        tally.note("request without an answer in these files", missing)


def _same_model(asked: Any, answered: Any) -> bool:
    """Tell whether an answer's model is the one that was asked for: answers name its dated version."""
    return (
        isinstance(asked, str)
        and isinstance(answered, str)
        and (answered == asked or answered.startswith(f"{asked}-2"))
    )


def _created(body: Any) -> Any:
    return (body.get("created") or body.get("created_at")) if isinstance(body, Mapping) else None
