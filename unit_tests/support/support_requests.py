"""Tools and schemas to ask for, calls of them, and an ensemble to ask."""

from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedPolicy


@tool
def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


def search(query: str) -> str:
    """Search the web.

    Args:
        query: What to look for.
    """
    return query


class Person(BaseModel):
    """A person."""

    name: str


def ensemble(models, **fields):
    return RLFocalChatModel(members=models, policy=ScriptedPolicy([list(models)], tuple(models)), **fields)


def call(tool_name, **args):
    return {"name": tool_name, "args": args, "id": "1"}
