"""Parts of a conversation with tools, as providers and the ensemble write them."""

from langchain_core.messages import AIMessage

from langchain_rlfocal.chat_models.messages import native_of

USAGE = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
THINKING = {"type": "thinking", "thinking": "hm", "signature": "sig"}


def call(call_id="c1", name="add", **args):
    return {"name": name, "args": args, "id": call_id, "type": "tool_call"}


def ours(winner, member="ann", ids=("call_1",)):
    """The ensemble's neutral reply, with the winner's own message in its metadata."""
    calls = [{**c, "id": new} for c, new in zip(winner.tool_calls, ids, strict=True)]
    return AIMessage(
        str(winner.text),
        tool_calls=calls,
        usage_metadata=USAGE,
        response_metadata={
            "model_name": "rlfocal",
            "rlfocal": {"policy": "p", "native": {"member": member, "message": native_of(winner)}},
        },
        id="lc_run--1",
    )
