"""Tools and schemas to ask for, calls of them, and an ensemble to ask."""

from langchain_core.tools import tool
from pydantic import BaseModel, field_validator

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


class Even(BaseModel):
    """An even number."""

    n: int

    @field_validator("n")
    @classmethod
    def _is_even(cls, n):
        if n % 2:
            raise ValueError("n must be even")
        return n
