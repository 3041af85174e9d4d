"""`rlfocal serve` as a process of its own, on a free port of this machine."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]
STARTING_S = 60
ENDING_S = 20


class Serving:
    """A process that serves.

    Attributes:
        facts: What it says at its start.
        url: Where it is, without `/v1`.
    """

    def __init__(self, process, facts, errors):
        self.process, self.facts, self._errors = process, facts, errors
        self.url = facts["url"].removesuffix("/v1")

    @property
    def said(self):
        """What it has said on stderr."""
        return self._errors.read_text()

    def get(self, path):
        return httpx.get(f"{self.url}{path}", trust_env=False, timeout=ENDING_S)

    def tell(self, number):
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self):
        """Wait until it has ended; its exit code."""
        return self.process.wait(ENDING_S)

    def workers(self):
        """The processes below it that answer, by their ids."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)],
            capture_output=True,
            text=True,
            check=False,
        )
        lines = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
        return [int(pid) for pid, command in lines if "spawn_main" in command]


@contextmanager
def serving(folder, pool, *options, port=0, env=None):
    """Serve the pool of a text in YAML until the block ends, then have it stop; it is ready when this is entered."""
    file, errors = folder / "pool.yaml", folder / "serve.err"
    file.write_text(pool)
    paths = [ROOT, ROOT / "unit_tests/support", os.environ.get("PYTHONPATH", "")]
    command = [
        sys.executable,
        "-m",
        "langchain_rlfocal.cli",
        "serve",
        "--pool",
        file,
        "--port",
        port,
        *options,
        "--json",
    ]
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), **(env or {})},
        )
    try:
        said = ""
        while not said.endswith("\n}\n"):
            line = process.stdout.readline()
            assert line, errors.read_text()
            said += line
        served = Serving(process, json.loads(said), errors)
        until = time.monotonic() + STARTING_S
        while not _is_ready(served):
            assert process.poll() is None, errors.read_text()
            assert time.monotonic() < until, errors.read_text()
            time.sleep(0.05)
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(ENDING_S)
        finally:
            process.kill()
            process.stdout.close()


def _is_ready(served):
    try:
        return served.get("/ready").status_code == 200
    except httpx.TransportError:
        return False
