"""Unit tests as a scorer: run the code of a reply with the tests of its reference, in a process of its own with limits.

It bounds what code does by mistake: time, processor time, memory, the size of files, what is printed, and the network where the
system lets a process give it up. It is no prison: the code runs as this user and can read what this user can read. Code that
might attack belongs into a container or a virtual machine.
"""

import asyncio
import contextlib
import functools
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.scoring.base import NO_REFERENCE, Reply, Score, unscored

_FENCE = re.compile(r"^```([^\n`]{0,40})\n", re.MULTILINE)
_PYTHON = {"", "py", "python", "python3"}
_MAX_SHOWN_BYTES = 4_000

_RUNNER = """
import json, os, resource, sys
given = json.load(sys.stdin)
for name, most in given["limits"].items():
    kind = getattr(resource, name)
    hard = resource.getrlimit(kind)[1]
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    try:
        resource.setrlimit(kind, (most, most))
    except (ValueError, OSError):
        pass
verdict, token = os.dup(1), given.pop("token")
os.dup2(2, 1)
space = {"__name__": "reply"}
exec(compile(given["code"], "reply.py", "exec"), space)
before = set(space)
exec(compile(given["tests"], "tests.py", "exec"), space)
for name in [name for name in space if name.startswith("test_") and name not in before and callable(space[name])]:
    space[name]()
os.write(verdict, token.encode())
"""


class UnitTestScorer:
    """Whether the code of a reply passes the tests of its reference: Python that asserts, or functions named `test_…`.

    Attributes:
        name: `"unit_tests"`.

    Args:
        timeout_s: Seconds until the process and all that it started are killed.
        cpu_s: Seconds of processor time that it may take.
        memory_bytes: Address space of each of its processes.
        file_bytes: Size of each file that it writes, and of what it prints.
    """

    name = "unit_tests"

    def __init__(
        self, *, timeout_s: float = 10.0, cpu_s: int = 10, memory_bytes: int = 2**30, file_bytes: int = 2**24
    ) -> None:
        if sys.platform == "win32":
            raise InputError("The scorer `unit_tests` needs Linux or macOS, whose processes have limits. Run it there.")
        self._timeout_s = timeout_s
        self._limits = {
            "RLIMIT_CPU": cpu_s,
            "RLIMIT_AS": memory_bytes,
            "RLIMIT_FSIZE": file_bytes,
            "RLIMIT_CORE": 0,
            "RLIMIT_NOFILE": 64,
        }

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        tests = question.gold
        if not tests or not tests.strip():
            return unscored(NO_REFERENCE)
        try:
            compile(tests, "tests.py", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return unscored(f"the reference's tests are no Python: {error}")
        token = secrets.token_hex(16)
        given = {"code": code_of(reply.text or ""), "tests": tests, "limits": self._limits, "token": token}
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="rlfocal-tests-")
        try:
            passed, said = await self._run(json.dumps(given).encode(), token, Path(folder))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        return Score(value=1.0) if passed else Score(value=0.0, reason=said)

    async def _run(self, given: bytes, token: str, folder: Path) -> tuple[bool, str]:
        """Run the code and its tests, and say whether they came to their end, and if not, what was last said."""
        confined = await asyncio.to_thread(_confinement)
        printed = folder / ".printed"
        with await asyncio.to_thread(printed.open, "wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *confined,
                sys.executable,
                "-I",
                "-c",
                _RUNNER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=sink,
                cwd=folder,
                env={"PATH": os.defpath, "HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(self._timeout_s):
                assert process.stdin is not None
                assert process.stdout is not None
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    process.stdin.write(given)
                    await process.stdin.drain()
                process.stdin.close()
                said = await process.stdout.read(len(token) + 1)
                code = await process.wait()
        except TimeoutError:
            return False, f"took more than {self._timeout_s:g} s"
        finally:
            # All of its group: also what it started and left behind, and where this task is cancelled.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(process.wait())
        if said == token.encode() and code == 0:
            return True, ""
        return False, await asyncio.to_thread(_last_line, printed, code)


def _last_line(printed: Path, code: int) -> str:
    with printed.open("rb") as source:
        source.seek(max(0, printed.stat().st_size - _MAX_SHOWN_BYTES))
        lines = source.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    ended = f"ended by {signal.Signals(-code).name}" if code < 0 else "left before its tests were done"
    return last[:200] or ended


@functools.cache
def _confinement() -> tuple[str, ...]:
    """Return the command that starts a process without a network, and that kills all that it started; nothing where none does."""
    unshare = shutil.which("unshare")
    for options in (("-r", "-n", "--pid", "--fork", "--kill-child"), ("-r", "-n")):
        if unshare and subprocess.run([unshare, *options, "true"], capture_output=True, check=False).returncode == 0:  # noqa: S603  # no text of a user's
            return unshare, *options
    return ()


def code_of(text: str) -> str:
    """Return the Python of a reply: that in its code fences, or the whole reply where it has none."""
    blocks: list[str] = []
    place = 0
    while fence := _FENCE.search(text, place):
        end = text.find("```", fence.end())
        end = len(text) if end < 0 else end
        if fence[1].strip().lower() in _PYTHON:
            blocks.append(text[fence.end() : end])
        place = end + 3
    return "\n\n".join(blocks) if blocks else text
