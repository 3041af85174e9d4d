"""Learning while it runs: what was served, what users say of it, and what follows from that.

learner     a policy that every judged answer corrects
drift       which members fell below what is expected of them, and which came back
off_policy  what another policy would have been worth on the queries that one served
guard       which policy serves, and which members are left out
service     all of it for a model and its copies, while they answer
"""

from langchain_rlfocal.online.drift import DriftMonitor
from langchain_rlfocal.online.guard import Change, Guard, Mode
from langchain_rlfocal.online.learner import OnlineLearner, OnlinePolicy
from langchain_rlfocal.online.off_policy import Comparison, Difference, compare
from langchain_rlfocal.online.service import LearningService, Serving

__all__ = [
    "Change",
    "Comparison",
    "Difference",
    "DriftMonitor",
    "Guard",
    "LearningService",
    "Mode",
    "OnlineLearner",
    "OnlinePolicy",
    "Serving",
    "compare",
]
