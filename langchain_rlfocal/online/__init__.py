"""Learning while it runs: what was served, what users say of it, and what follows from that.

records     served answers and feedback
"""

from langchain_rlfocal.online.records import Feedback, ServedAnswer

__all__ = ["Feedback", "ServedAnswer"]
