"""Ensembles of members that say one thing, and how their answers came about; nobody is asked again unless a test says so."""

from langchain_rlfocal import RLFocalChatModel
from langchain_rlfocal.testing import ScriptedChatModel, ScriptedPolicy


def saying(answer, **fields):
    return ScriptedChatModel(script=[answer], **fields)


def model_of(members, *rounds, **fields):
    """A model whose policy asks these teams, round by round; without rounds, everyone at once."""
    teams = rounds or (tuple(members),)
    fields = {"max_team": len(members), "max_rounds": max(len(teams), 2), "max_retries": 0, **fields}
    return RLFocalChatModel(members=members, policy=ScriptedPolicy(teams, tuple(members)), **fields)


def how(message):
    return message.response_metadata["rlfocal"]


def asked(message):
    """Who was asked, round by round."""
    return [round_["asked"] for round_ in how(message)["rounds"]]
