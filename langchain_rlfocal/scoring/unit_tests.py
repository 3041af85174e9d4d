"""Unit tests as a scorer: run the code of a reply with the tests of its reference, in a process of its own with limits.

It bounds what code does by mistake: time, processor time, memory, the size of files, what is printed, and the network where the
system lets a process give it up. It is no prison: the code runs as this user and can read what this user can read. Code that
might attack belongs into a container or a virtual machine. Nor does it see through every deceit: code that leaves early, names its
own functions as the tests are named, or redefines what they call, does not pass; an object that says it equals everything does.
"""

import ast
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
from weakref import WeakKeyDictionary

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.scoring.base import NO_REFERENCE, Reply, Score, unscored

_FENCE = re.compile(r"^```([^\n`]{0,40})\n", re.MULTILINE)
_PYTHON = {"", "py", "python", "python3"}
_MAX_SHOWN_BYTES = 4_000

_RUNNER = """
import builtins, importlib, json, os, resource, signal, sys

def run(callable=callable, compile=compile, dict=dict, exec=exec, int=int, len=len, setattr=setattr, type=type, vars=vars):
    read, write, inbox, verdict = os.read, os.write, os.dup(0), os.dup(1)

    def take():
        size, found = int(read(inbox, 16), 16), b""
        while len(found) < size and (part := read(inbox, size - len(found))):
            found += part
        return found

    given = json.loads(take())
    for name, (soft, hard) in given["limits"].items():
        kind = getattr(resource, name)
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            pass

    def end_late(*_, leave=os._exit):
        write(2, given["late"].encode())
        leave(1)

    signal.signal(signal.SIGXCPU, end_late)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    usual = dict(vars(builtins))
    owners = []
    for name in given["modules"]:
        try:
            module = importlib.import_module(name)
        except Exception:
            continue
        owners += [module, *(value for value in vars(module).values() if type(value) is type)]
    kept = [(owner, dict(vars(owner))) for owner in owners]

    space = {"__name__": "reply"}
    exec(compile(given["code"], "reply.py", "exec"), space)

    for owner, values in kept:
        for name, value in values.items():
            if vars(owner).get(name, kept) is not value:
                setattr(owner, name, value)
    before = dict(space)
    space["__builtins__"] = usual
    exec(compile(take(), "tests.py", "exec"), space)
    tests = [value for name, value in space.items() if name[:5] == "test_" and before.get(name) is not value]
    for test in tests:
        if callable(test):
            test()
    write(verdict, take())

run()
"""
# The code has the process that judges it to itself for a while. So what the runner needs it holds in variables of its own, the tests
# get the built-ins and the modules as they were, and what says that they passed comes in only when they have.


class UnitTestScorer:
    """Whether the code of a reply passes the tests of its reference: Python that asserts, or functions named `test_…`.

    Attributes:
        name: `"unit_tests"`.

    Args:
        timeout_s: Seconds until the process and all that it started are killed. It is far above `cpu_s`, so that how busy the
            machine is decides nothing.
        cpu_s: Seconds of processor time that it may take.
        memory_bytes: Address space of each of its processes.
        file_bytes: Size of each file that it writes, and of what it prints.
    """

    name = "unit_tests"

    def __init__(
        self, *, timeout_s: float = 30.0, cpu_s: int = 10, memory_bytes: int = 2**30, file_bytes: int = 2**24
    ) -> None:
        if sys.platform == "win32":
            raise InputError("The scorer `unit_tests` needs Linux or macOS, whose processes have limits. Run it there.")
        self._timeout_s = timeout_s
        self._late = f"\ntook more than {cpu_s:g} s of processor time\n"
        self._limits = {
            "RLIMIT_CPU": (cpu_s, cpu_s + 1),  # at the first it says so and leaves, at the second it is killed
            "RLIMIT_AS": (memory_bytes, memory_bytes),
            "RLIMIT_FSIZE": (file_bytes, file_bytes),
            "RLIMIT_CORE": (0, 0),
            "RLIMIT_NOFILE": (64, 64),
        }
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    async def score(self, question: Question, reply: Reply) -> Score:
        """Score one reply to a question."""
        tests = question.gold
        if not tests or not tests.strip():
            return unscored(NO_REFERENCE)
        try:
            tree = ast.parse(tests)
            compile(tree, "tests.py", "exec")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            return unscored(f"the reference's tests are no Python: {error}")
        token = secrets.token_hex(16)
        code = code_of(reply.text or "")
        given = {"code": code, "modules": _imported(tree), "limits": self._limits, "late": self._late}
        parts = [json.dumps(given).encode(), tests.encode(), token.encode()]
        sent = b"".join(b"%016x" % len(part) + part for part in parts)
        # No more at once than there are processors, and the clock of each begins with its turn.
        slots = self._slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(os.cpu_count() or 1))
        async with slots:
            folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="rlfocal-tests-")
            try:
                passed, said = await self._run(sent, token, Path(folder))
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


def _imported(tree: ast.Module) -> list[str]:
    """List the modules that tests import."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {
        node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module and not node.level
    }
    return sorted(names)


def _last_line(printed: Path, code: int) -> str:
    with printed.open("rb") as source:
        source.seek(max(0, printed.stat().st_size - _MAX_SHOWN_BYTES))
        lines = source.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip() and not line.startswith("unshare: ")), "")
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
