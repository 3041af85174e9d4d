"""Testing: doubles for chat models and policies, and outcomes whose truth is known.

They ship with the package, so that users can test what they build on it without a network, a key or a random number.
They are for tests: nothing in the answering or the learning river uses them.
"""

from langchain_rlfocal.testing.doubles import Asked, FailingChatModel, ScriptedChatModel
from langchain_rlfocal.testing.fault_server import FaultServer
from langchain_rlfocal.testing.faults import Fault, Received
from langchain_rlfocal.testing.judges import JudgingChatModel
from langchain_rlfocal.testing.outcomes import make_outcomes
from langchain_rlfocal.testing.policies import ScriptedPolicy
from langchain_rlfocal.testing.schema_model import SchemaChatModel
from langchain_rlfocal.testing.schema_values import make_value

__all__ = [
    "Asked",
    "FailingChatModel",
    "Fault",
    "FaultServer",
    "JudgingChatModel",
    "Received",
    "SchemaChatModel",
    "ScriptedChatModel",
    "ScriptedPolicy",
    "make_outcomes",
    "make_value",
]
