"""Replies: the message that a turn ends in, whole or in chunks.

A reply is neutral: text, tool calls with ids of its own, and nothing that only one provider understands (reasoning,
signatures, ids), so that another member can read it in the next turn. Metadata and usage stand on one chunk, the last:
LangChain adds up what it finds on several.
"""

import json
import re
from collections.abc import Iterator
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, ToolCall
from langchain_core.messages.tool import tool_call, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_rlfocal.chat_models.explanations import KEY, describe, total_usage
from langchain_rlfocal.chat_models.turns import Turn
from langchain_rlfocal.records import Answer, Candidate, Failure


def reply_of(turn: Turn, answer: Answer, *, synthesis: Candidate | Failure | None, model_name: str) -> AIMessage:
    """Make the message of a turn.

    Args:
        turn: The turn.
        answer: What Fusion decided.
        synthesis: What came of asking the synthesizer, None if it was not asked. If it failed, the selected candidate
            stands in.
        model_name: The ensemble's name, under which LangChain counts the tokens.
    """
    calls: list[ToolCall] = []
    if isinstance(synthesis, Candidate):
        text = synthesis.text
    elif answer.member is None:  # an option that no member ranked first: nobody has said it in words
        text = answer.answer or ""
    else:
        selected = turn.candidate_of(answer.member)
        text, calls = selected.text, selected.message.tool_calls
    results: list[Candidate | Failure] = [*turn.candidates, *turn.failures]
    return AIMessage(
        content=text,
        tool_calls=[tool_call(name=c["name"], args=c["args"], id=f"call_{uuid4().hex[:24]}") for c in calls],
        usage_metadata=total_usage(results if synthesis is None else [*results, synthesis]),
        response_metadata={
            "model_name": model_name,
            KEY: describe(
                policy=turn.policy,
                knobs=turn.knobs,
                selections=turn.selections,
                candidates=turn.candidates,
                failures=turn.failures,
                answer=answer,
                synthesis=synthesis,
            ),
        },
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
