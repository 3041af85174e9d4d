"""Execution: put one query to the selected members at once.

The only package that waits on the network. A member that answers becomes a `Candidate`; one that does not becomes a
`Failure`. Both are values: nothing a member does can raise out of `ask_members`, so Fusion always sees the whole team.
Two things pass through, since they are no non-answers: the wish to stop the program, and LangGraph's control flow.

`teams` asks several and waits for all; `streams` passes one member's text on while it comes; `asking` is what both make
of one member; `limits` counts calls. It does not compare answers (`Candidate.answer` is None here), and asks each member
once: no retries, no deadlines.
"""

from langchain_rlfocal.execution.asking import (
    MAX_REASON_CHARS,
    MAX_TEXT_CHARS,
    Brief,
    Clock,
    Role,
    UnusableAnswerError,
    usage_of,
)
from langchain_rlfocal.execution.limits import CallLimits
from langchain_rlfocal.execution.streams import astream_member, stream_member
from langchain_rlfocal.execution.teams import aask_members, ask_members

__all__ = [
    "MAX_REASON_CHARS",
    "MAX_TEXT_CHARS",
    "Brief",
    "CallLimits",
    "Clock",
    "Role",
    "UnusableAnswerError",
    "aask_members",
    "ask_members",
    "astream_member",
    "stream_member",
    "usage_of",
]
