"""Unit tests as a scorer: run the code of a reply with the tests of its reference, in a process of its own with limits.

It bounds what code does by mistake: time, processor time, memory, the size of files, what is printed, and the network where the
system lets a process give it up. It is no prison: the code runs as this user and can read what this user can read. Code that
might attack belongs into a container or a virtual machine. Nor does it see through every deceit: code that leaves early, names its
own functions as the tests are named, or redefines what they call, does not pass; an object that says it equals everything does,
and so does code that looks through the frames of the process that it shares with its tests for what tells that they passed.
"""

import ast
import asyncio
import contextlib
import functools
import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from weakref import WeakKeyDictionary

from langchain_rlfocal.errors import InputError
from langchain_rlfocal.outcomes import Question
from langchain_rlfocal.scoring.base import NO_REFERENCE, Reply, Score, unscored

_FENCE = re.compile(r"^[ \t]*(?P<marks>`{3,}|~{3,})[ \t]*(?P<tag>[^\s`]{0,40})[^\n`]{0,80}\n", re.MULTILINE)
_PYTHON = re.compile(r"((i?python|py)[\d.]*)?", re.IGNORECASE)
_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef
_MAX_SHOWN_BYTES = 4_000

_RUNNER = """
import builtins, importlib, json, os, resource, signal, sys, traceback, types

def main():
    given = json.load(sys.stdin)
    for name, (soft, hard) in given["limits"].items():
        kind = getattr(resource, name)
        most = resource.getrlimit(kind)[1]
        if most != resource.RLIM_INFINITY:
            soft, hard = min(soft, most), min(hard, most)
        try:
            resource.setrlimit(kind, (soft, hard))
        except (ValueError, OSError):
            pass
    verdict, token, proof = os.dup(1), given.pop("token"), os.urandom(16)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    inbox, outbox = os.pipe()
    child = os.fork()
    if not child:
        os.close(verdict)
        os.close(inbox)
        del token
        return run(given, proof, outbox)
    os.close(outbox)
    found = b""
    while len(found) < len(proof) and (part := os.read(inbox, len(proof))):
        found += part
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    if status == 0 and found == proof:
        os.write(verdict, token.encode())
    os._exit(os.WEXITSTATUS(status))

def run(given, proof, outbox, callable=callable, compile=compile, dict=dict, exec=exec, hasattr=hasattr, isinstance=isinstance,
        issubclass=issubclass, len=len, setattr=setattr, type=type, vars=vars):
    write = os.write

    def end_late(*_, leave=os._exit):
        write(2, given["late"].encode())
        leave(1)

    signal.signal(signal.SIGXCPU, end_late)
    usual = dict(vars(builtins))
    owners, imported = [], {}
    for name in given["modules"]:
        try:
            module = imported[name] = importlib.import_module(name)
        except Exception:
            continue
        owners += [module, *(value for value in vars(module).values() if type(value) is type)]
    kept = [(owner, dict(vars(owner))) for owner in owners]

    reply = sys.modules["reply"] = types.ModuleType("reply")  # so that its classes can be pickled
    space = vars(reply)
    blocks, fault = [], None
    for block in given["blocks"]:
        try:
            blocks.append(compile(block, "reply.py", "exec"))
        except (SyntaxError, ValueError) as error:
            fault = error
    if not blocks:
        raise fault
    for block in blocks:
        try:
            exec(block, space)
        except Exception:  # an example of use, after what the tests want
            if len(blocks) == 1:
                raise
            traceback.print_exc()

    for owner, values in kept:
        for name, value in values.items():
            if vars(owner).get(name, kept) is not value:
                setattr(owner, name, value)
    before = dict(space)
    space["__builtins__"] = usual
    exec(compile(given["tests"], "tests.py", "exec"), space)
    own = [(name, value) for name, value in space.items() if before.get(name) is not value and callable(value)]
    calls = [value for name, value in own if name[:5] == "test_"]
    for name, value in own:
        if not isinstance(value, type):
            continue
        if "unittest" in imported and issubclass(value, imported["unittest"].TestCase):
            result = imported["unittest"].TestResult()
            imported["unittest"].TestLoader().loadTestsFromTestCase(value).run(result)
            for _, said in result.errors + result.failures:
                sys.exit(said)
            if result.unexpectedSuccesses:
                sys.exit("an expected failure passed")
        elif name[:4] == "Test":
            calls += [getattr(value(), test) for test in vars(value) if test[:5] == "test_"]
    for test in calls:
        said = test()
        if hasattr(said, "__await__"):
            imported["asyncio"].run(said)
    write(outbox, proof)

main()
"""
# The code has the process that runs its tests to itself for a while. So the verdict is another process's to give, what the runner
# needs it holds in variables of its own, and the tests get the built-ins and the modules as they were.


class UnitTestScorer:
    """Whether the code of a reply passes the tests of its reference: Python that asserts, functions named `test_…`, or test cases.

    Tests that test nothing, import what is not installed, or need pytest's parameters leave every reply unscored. Of a reply's
    fences those that are no Python do not count, and one that fails does not where there are several.

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
        if fault := _fault(tree):
            return unscored(f"the reference's tests {fault}")
        token = secrets.token_hex(16)
        given = {
            "blocks": blocks_of(reply.text or ""),
            "tests": tests,
            "modules": _imported(tree),
            "limits": self._limits,
            "late": self._late,
            "token": token,
        }
        sent = json.dumps(given).encode()
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
    if any(isinstance(node, ast.AsyncFunctionDef) for node in ast.walk(tree)):
        names.add("asyncio")
    if any(name.startswith("unittest.") for name in names):
        names.add("unittest")
    return sorted(names)


def _fault(tree: ast.Module) -> str | None:
    """Say why tests cannot tell right from wrong, whatever the reply is; None where they can."""
    tops = {name.split(".")[0] for name in _imported(tree)}
    missing = next((name for name in sorted(tops) if importlib.util.find_spec(name) is None), None)
    if missing is not None:
        return f"import `{missing}`, which is not installed: the reply's names are there without an import"
    functions = [node for node in tree.body if isinstance(node, _FUNCTIONS) and node.name.startswith("test_")]
    for node in functions:
        if len(node.args.posonlyargs + node.args.args) > len(node.args.defaults) or None in node.args.kw_defaults:
            return f"have `{node.name}` with parameters, which only pytest could fill"
    methods = [
        method
        for node in tree.body
        if isinstance(node, ast.ClassDef)
        and (node.name.startswith("Test") or any("TestCase" in ast.unparse(base) for base in node.bases))
        for method in node.body
        if isinstance(method, _FUNCTIONS) and method.name.startswith("test")
    ]
    if functions or methods or any(map(_tests_something, tree.body)):
        return None
    return "test nothing: let them assert, call what asserts, or be functions named `test_...`"


def _tests_something(node: ast.AST) -> bool:
    """Tell whether a statement asserts something, or calls something for what it does, when the module is run."""
    if isinstance(node, _FUNCTIONS | ast.ClassDef | ast.Lambda):
        return False
    if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test):
        return False  # which the module is not
    if isinstance(node, ast.Assert | ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        return True
    return any(map(_tests_something, ast.iter_child_nodes(node)))


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


def blocks_of(text: str) -> list[str]:
    """Return the Python of a reply: what each of its code fences holds, or the whole reply where it has none."""
    blocks: list[str] = []
    place = 0
    while fence := _FENCE.search(text, place):
        start, marks = fence.end(), fence["marks"]
        closing = re.compile(rf"^[ \t]*{marks[0]}{{{len(marks)},}}[ \t]*\r?$", re.MULTILINE).search(text, start)
        end = closing.start() if closing else text.find(marks, start)
        end = len(text) if end < 0 else end
        if _PYTHON.fullmatch(fence["tag"]):
            blocks.append(textwrap.dedent(text[start:end]))
        place = closing.end() if closing else min(end + len(marks), len(text))
    return blocks or [text]
