"""What the tests of faults share: servers that are closed at the end, also where a test fails."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from support_fault_server import FaultServer

ANSWER = "one two three four"


@pytest.fixture
def serve() -> Iterator[Any]:
    """Start a server that says "one two three four", or what else it is told to."""
    with ExitStack() as stack:

        def start(script: Any = None, answer: Any = lambda _model, _question: ANSWER) -> FaultServer:
            return stack.enter_context(FaultServer(answer, script=script))

        yield start
