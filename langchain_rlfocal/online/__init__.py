"""Learning while it runs: what was served, what users say of it, and what follows from that.

records     served answers and feedback
log         both on disk, in one order for all processes
"""

from langchain_rlfocal.online.log import OutcomeLog
from langchain_rlfocal.online.records import Feedback, ServedAnswer

__all__ = ["Feedback", "OutcomeLog", "ServedAnswer"]
