"""Replies: the message that a turn ends in, whole or in chunks.

A reply is neutral: text, tool calls with ids of its own, and nothing that only one provider understands (reasoning,
signatures, ids), so that another member can read it in the next turn. What the winner's provider says of the answer (why it
ended, its sources, that it is a refusal) stands where LangChain's users look for it: in standard content blocks, and in the
metadata under the provider's own keys. Metadata and usage stand on one chunk, the last: LangChain adds up what it finds on
several.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_rlfocal.chat_models.consensus import Verdict
from langchain_rlfocal.chat_models.explanations import describe, total_usage
from langchain_rlfocal.chat_models.history import KEY, NATIVE_KEY, native_of
from langchain_rlfocal.chat_models.turns import Turn
from langchain_rlfocal.execution import blocks_of, ending_of, plain
from langchain_rlfocal.records import Answer, Candidate, Failure

_SOURCES = (
    "citations",
    "annotations",
    "search_results",
    "search_info",
    "web_search",
    "documents",
    "references",
    "sources",
)
_GROUNDING = (
    "grounding_metadata",
    "groundingMetadata",
    "citation_metadata",
    "citationMetadata",
    "url_context_metadata",
)
_KWARGS = ("refusal", *_SOURCES, *_GROUNDING)
"""Keys of `additional_kwargs` that are kept: what providers say of an answer beside its content."""

_METADATA = (*_SOURCES, *_GROUNDING)
"""The same of `response_metadata`, beside how the response ended."""

_MAX_KEPT_CHARS = 100_000
"""What is longer as JSON is not kept: conversations are stored and traced whole, turn after turn."""

_REFUSAL_KEYS = ("type", "refusal", "extras")


def reply_of(turn: Turn, verdict: Verdict, *, synthesis: Candidate | Failure | None, model_name: str) -> AIMessage:
    """Make the message of a turn.

    Args:
        turn: The turn.
        verdict: What the candidates together do.
        synthesis: What came of asking the synthesizer, None if it was not asked. If it failed, the verdict stands.
        model_name: The ensemble's name, under which LangChain counts the tokens.
    """
    results: list[Candidate | Failure] = [*turn.candidates, *turn.failures]
    results += turn.hearing.results if turn.hearing is not None else ()
    facts = describe(turn, verdict, synthesis)
    winner = next((c for c in turn.candidates if c.member == verdict.answer.member), None)
    if winner is not None and verdict.action == "tool_calls" and (native := native_of(winner.message)) is not None:
        facts[NATIVE_KEY] = {"member": winner.member, "message": native}
    author = synthesis if isinstance(synthesis, Candidate) else winner
    text = synthesis.text if isinstance(synthesis, Candidate) else verdict.text
    said = author.message if author is not None else AIMessage("")
    return AIMessage(
        content=_content_of(text, said),
        additional_kwargs=_kept(said.additional_kwargs, _KWARGS),
        tool_calls=[tool_call(name=c["name"], args=c["args"], id=f"call_{uuid4().hex[:24]}") for c in verdict.calls],
        usage_metadata=total_usage(results if synthesis is None else [*results, synthesis]),
        response_metadata={
            **_kept(said.response_metadata, _METADATA),
            **ending_of(said),
            "model_name": model_name,
            KEY: facts,
        },
    )


def refused(candidates: Sequence[Candidate], answer: Answer) -> Verdict:
    """Return the verdict where all that members gave are refusals: one of them, as it is, whatever was asked for."""
    by_member = {candidate.member: candidate for candidate in candidates}
    member = answer.member if answer.member in by_member else candidates[0].member
    chosen = by_member[member]
    return Verdict(replace(answer, member=member), chosen.text, (), "text", answer.confidence)


def _content_of(text: str, said: AIMessage) -> str | list[str | dict[Any, Any]]:
    """Make the content of a reply: its text, in standard blocks where it has sources, or is a refusal."""
    blocks = blocks_of(said)
    texts = [_text_block(block) for block in blocks if block.get("type") == "text"]
    if not any("annotations" in block for block in texts) or "".join(block["text"] for block in texts) != text:
        texts = [{"type": "text", "text": text}] if text else []
    refusals = [
        kept
        for block in blocks
        if block.get("type") == "refusal" and (kept := _kept(block, _REFUSAL_KEYS)).keys() >= {"type", "refusal"}
    ]
    is_plain = not refusals and not any("annotations" in block for block in texts)
    return text if is_plain else [*texts, *refusals]


def _text_block(block: Mapping[str, Any]) -> dict[str, Any]:
    given = block.get("annotations")
    annotations = [
        kept
        for one in (given if isinstance(given, list) else ())
        if isinstance(one, Mapping) and (kept := plain(one, most=_MAX_KEPT_CHARS)) is not None
    ]
    return {
        "type": "text",
        "text": str(block.get("text") or ""),
        **({"annotations": annotations} if annotations else {}),
    }


def _kept(values: Any, keys: Sequence[str]) -> dict[str, Any]:
    """Copy what a mapping holds under these keys, as far as it is JSON and not too long."""
    if not isinstance(values, Mapping):
        return {}
    found = {key: plain(values[key], most=_MAX_KEPT_CHARS) for key in keys if key in values}
    return {key: value for key, value in found.items() if value is not None}


def text_pieces(text: str) -> Iterator[str]:
    """Cut a text into words with the space around them; joined, the pieces are the text."""
    return (match.group() for match in re.finditer(r"\s*\S+\s?|\s+", text))


def to_chunk(item: str | AIMessage) -> ChatGenerationChunk:
    """Make a chunk of a piece of text, or the last chunk, of the reply whose text has gone before."""
    if isinstance(item, str):
        return ChatGenerationChunk(message=AIMessageChunk(content=item))
    calls = [
        tool_call_chunk(name=c["name"], args=json.dumps(c["args"], ensure_ascii=False), id=c["id"], index=index)
        for index, c in enumerate(item.tool_calls)
    ]
    return ChatGenerationChunk(
        message=AIMessageChunk(
            content=_rest_of(item.content),
            additional_kwargs=item.additional_kwargs,
            tool_call_chunks=calls,
            usage_metadata=item.usage_metadata,
            response_metadata=item.response_metadata,
            chunk_position="last",
        )
    )


def _rest_of(content: str | list[str | dict[Any, Any]]) -> str | list[str | dict[Any, Any]]:
    """Return what is left of a content once its text has gone before: its sources, on a text without words, and a refusal.

    Where sources say which characters they stand behind, they count from the beginning of the whole text.
    """
    annotations: list[Any] = []
    refusals: list[str | dict[Any, Any]] = []
    start = 0
    for block in content if isinstance(content, list) else ():
        assert isinstance(block, dict), "content is made of blocks"
        annotations += [_moved(one, start) for one in block.get("annotations", ())]
        start += len(block.get("text", ""))
        refusals += [block] if block["type"] == "refusal" else []
    sources = [{"type": "text", "text": "", "annotations": annotations}] if annotations else []
    return [*sources, *refusals] or ""


def _moved(annotation: Any, by: int) -> Any:
    if not isinstance(annotation, dict) or not by:
        return annotation
    places = {key: annotation[key] + by for key in ("start_index", "end_index") if type(annotation.get(key)) is int}
    return {**annotation, **places}
