"""Replies: the message that a turn ends in, whole or in chunks.

A reply is neutral: text, tool calls with ids of its own, and nothing that only one provider understands (reasoning,
signatures, ids), so that another member can read it in the next turn. Metadata and usage stand on one chunk, the last:
LangChain adds up what it finds on several.
"""

import json
import re
from collections.abc import Iterator
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_rlfocal.chat_models.consensus import Verdict
from langchain_rlfocal.chat_models.explanations import describe, total_usage
from langchain_rlfocal.chat_models.history import KEY, NATIVE_KEY, native_of
from langchain_rlfocal.chat_models.turns import Turn
from langchain_rlfocal.records import Candidate, Failure


def reply_of(turn: Turn, verdict: Verdict, *, synthesis: Candidate | Failure | None, model_name: str) -> AIMessage:
    """Make the message of a turn.

    Args:
        turn: The turn.
        verdict: What the candidates together do.
        synthesis: What came of asking the synthesizer, None if it was not asked. If it failed, the verdict stands.
        model_name: The ensemble's name, under which LangChain counts the tokens.
    """
    text = synthesis.text if isinstance(synthesis, Candidate) else verdict.text
    results: list[Candidate | Failure] = [*turn.candidates, *turn.failures]
    facts = describe(turn, verdict, synthesis)
    winner = next((c for c in turn.candidates if c.member == verdict.answer.member), None)
    if winner is not None and verdict.action == "tool_calls" and (native := native_of(winner.message)) is not None:
        facts[NATIVE_KEY] = {"member": winner.member, "message": native}
    return AIMessage(
        content=text,
        tool_calls=[tool_call(name=c["name"], args=c["args"], id=f"call_{uuid4().hex[:24]}") for c in verdict.calls],
        usage_metadata=total_usage(results if synthesis is None else [*results, synthesis]),
        response_metadata={"model_name": model_name, KEY: facts},
    )


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
            content="",
            tool_call_chunks=calls,
            usage_metadata=item.usage_metadata,
            response_metadata=item.response_metadata,
            chunk_position="last",
        )
    )
