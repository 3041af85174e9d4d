"""A Redis or Valkey server of a test's own, and workers: processes that share state by it and do as they are told."""

import asyncio
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from langchain_rlfocal import BudgetError, EnsembleError, PoolMember, RLFocalChatModel
from langchain_rlfocal.execution import SharedState
from langchain_rlfocal.execution.store import StorePlace
from langchain_rlfocal.testing import ScriptedChatModel

GUARD_S = 20
"""Nobody waits so long unless the test fails."""

QUESTION = "Is it so? Answer yes or no."


def until(is_so, what="what the test waits for"):
    """Wait until something is so."""
    end_s = time.monotonic() + GUARD_S
    while not (found := is_so()):
        assert time.monotonic() < end_s, f"{what} has not come."
        time.sleep(0.005)
    return found


class Server:
    """A server that keeps everything in memory, on a socket in a directory of the test's."""

    def __init__(self, home):
        self.program = shutil.which("redis-server") or shutil.which("valkey-server")
        if self.program is None:
            pytest.skip("There is no redis-server or valkey-server.")
        pytest.importorskip("redis")
        self.socket, self.home, self.process = Path(home) / "redis.sock", home, None
        self.start()

    def start(self):
        words = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.home)]
        self.process = subprocess.Popen([self.program, *words], stdout=subprocess.DEVNULL)
        until(self.answers, "The server")

    def answers(self):
        import redis  # noqa: PLC0415  # an extra

        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            try:
                return client.ping()
            except redis.exceptions.ConnectionError:
                return False

    def client(self):
        import redis  # noqa: PLC0415  # as above

        return redis.Redis(unix_socket_path=str(self.socket), decode_responses=True)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)

    def url(self, **options):
        asked = "&".join(f"{name}={value}" for name, value in options.items())
        return f"unix://{self.socket}?{asked}"

    def shared(self, **options):
        """A state as another process would have it."""
        return SharedState(place=StorePlace.of(self.url(**options)))


@contextmanager
def opened(*states):
    """Close what processes share at the end."""
    try:
        yield states
    finally:
        for state in states:
            state.close()


class Worker:
    """A process that answers with a model of its own."""

    _context = None

    def __init__(self, url, notes, **fields):
        if Worker._context is None:
            Worker._context = multiprocessing.get_context("forkserver")
            Worker._context.set_forkserver_preload(["support_store"])
        self._pipe, theirs = Worker._context.Pipe()
        self.process = Worker._context.Process(target=work, args=(theirs, url, str(notes), fields), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, name, *args):
        """Have it do something, and do not wait."""
        self._pipe.send((name, args))

    def hear(self):
        """Wait for what came of it."""
        assert self._pipe.poll(GUARD_S), "A worker does not answer."
        came = self._pipe.recv()
        if isinstance(came, BaseException):
            raise came
        return came

    def do(self, name, *args):
        self.tell(name, *args)
        return self.hear()

    def kill(self):
        self.process.kill()
        self.process.join(GUARD_S)


def work(pipe, url, notes, fields):
    """Do as one is told; each call of the member is a line of the notes: when it began and when it ended."""
    doing = Doing(url, notes, fields)
    while True:
        try:
            name, args = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(getattr(doing, name)(*args))
        except Exception as error:  # noqa: BLE001  # the test looks at it
            pipe.send(error)


class Doing:
    """What a worker can be told."""

    def __init__(self, url, notes, fields):
        self.notes, self.takes_s, self.error = notes, fields.pop("takes_s", 0), None
        limits = fields.pop("member", {})
        self.model = RLFocalChatModel(
            members=[PoolMember("a", ScriptedChatModel(script=self.say, on_acall=self.pass_time), **limits)],
            shared_state=url,
            max_retries=0,
            **fields,
        )

    def note(self, words):
        with Path(self.notes).open("a") as file:
            file.write(f"{words} {time.monotonic()}\n")

    async def pass_time(self):
        self.note("begun")
        await asyncio.sleep(self.takes_s)

    def say(self, _):
        self.note("ended")
        if self.error is not None:
            raise self.error
        return "yes"

    def ask(self, most, side_by_side=1, **options):
        """Ask until refused, so many times at most; return how often it was answered, and the last error."""
        return asyncio.run(self._ask(most, side_by_side, options))

    async def _ask(self, most, side_by_side, options):
        left, answered, errors = [most], [0], []

        async def go_on():
            while left[0] > 0 and not errors:
                left[0] -= 1
                try:
                    await self.model.ainvoke(QUESTION, **options)
                    answered[0] += 1
                except EnsembleError as error:
                    errors.append(f"{type(error).__mro__[1].__name__}: {error}")

        await asyncio.gather(*(go_on() for _ in range(side_by_side)))
        return answered[0], errors[-1] if errors else None

    def ask_in_threads(self, most):
        """The same in this thread, whose calls have threads of their own."""
        answered = 0
        for _ in range(most):
            try:
                self.model.invoke(QUESTION)
            except BudgetError:
                break
            answered += 1
        return answered

    def fail(self, words):
        self.error = None if words is None else ConnectionError(words)

    def spent(self):
        return self.model.spent.calls

    def status(self):
        return self.model.shared_state.status

    def breakers(self):
        return {name: state.state for name, state in self.model.breakers.items()}

    def take(self, seconds, per_minute):
        """Take turns for so long; return when each was taken."""
        end_s, taken = time.monotonic() + seconds, []
        while (now_s := time.monotonic()) < end_s:
            if not (wait_s := self.model.shared_state.take("x", per_minute=per_minute)):
                taken.append((now_s, time.monotonic()))
            else:
                time.sleep(min(wait_s, 0.01))
        return taken

    def ask_in_fork(self):
        """Ask in a fork of this process, and say how often it was answered."""
        ours, theirs = os.pipe()
        if (pid := os.fork()) == 0:
            made = self.ask_in_threads(2)
            os.write(theirs, str(made).encode())
            self.model.shared_state.close()
            os._exit(0)
        os.close(theirs)
        os.waitpid(pid, 0)
        with os.fdopen(ours) as file:
            return int(file.read())


def spells_of(notes):
    """When calls began, and when they ended, both in order."""
    lines = [line.split() for line in Path(notes).read_text().splitlines()] if Path(notes).exists() else []
    return (sorted(float(at) for word, at in lines if word == kind) for kind in ("begun", "ended"))
