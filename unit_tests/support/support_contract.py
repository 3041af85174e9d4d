"""Ensembles that ask one member and then the others, and the six doors through which they are asked."""

from pydantic import BaseModel

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedPolicy
from support_ensembles import saying
from support_tools import QUESTION

DOORS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"]


class City(BaseModel):
    """A city."""

    name: str


def model_of(members, **fields):
    """A model that asks its first member, and then all others, each once."""
    names = tuple(members)
    policy = ScriptedPolicy([names[:1], names[1:]], names)
    return RLFocalChatModel(members=members, **{"policy": policy, "max_team": len(names), "max_retries": 0, **fields})


def three(**fields):
    return model_of({"a": saying("yes"), "b": saying("yes"), "c": saying("yes")}, **fields)


async def answer_of(model, door, question=QUESTION, config=None, /, **kwargs):
    """Ask through one of the doors; chunks are put together."""
    if door in ("invoke", "ainvoke"):
        answer = getattr(model, door)(question, config, **kwargs)
        return await answer if door == "ainvoke" else answer
    if door in ("batch", "abatch"):
        answers = getattr(model, door)([question], config, **kwargs)
        [answer] = await answers if door == "abatch" else answers
        return answer
    if door == "stream":
        chunks = list(model.stream(question, config, **kwargs))
    else:
        chunks = [chunk async for chunk in model.astream(question, config, **kwargs)]
    return sum(chunks[1:], chunks[0])
