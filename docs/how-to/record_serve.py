"""Run what docs/how-to/serve.md shows, and write down what comes: `python docs/how-to/record_serve.py`.

Each ``sh`` block is run against `rlfocal serve` with the embedded models; the block of what is recorded behind it gets the output.
A test does the same and compares what does not change from run to run.
"""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WIDTH = 120

PAGE = Path(__file__).with_name("serve.md")
_RECORDED = re.compile(
    r"(?P<code>^```(?:sh|console)\n(?P<command>(?:(?!^```).)*)^```\n\n)(?P<head>```\w+ recorded\n)(?P<said>(?:(?!^```).)*)^```\n",
    re.MULTILINE | re.DOTALL,
)
_VOLATILE = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"-?\d+(?:\.\d+)?(?:e-?\d+)?"), "N"),
    (re.compile(r"date: .*"), "date: D"),
]


def blocks() -> Iterator[tuple[str, str]]:
    """Return the page's commands and what was recorded of each."""
    return ((found["command"].strip(), found["said"]) for found in _RECORDED.finditer(PAGE.read_text(encoding="utf-8")))


def steady(text: str) -> str:
    """Write output without what is another in each run, or on each machine: ids, numbers, dates, and what small models say."""
    for pattern, sign in _VOLATILE:
        text = pattern.sub(sign, text)
    return text


def laid_out(value: Any, indent: str = "") -> str:
    """Write JSON, on one line what fits on one."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + len(indent) <= _WIDTH or not isinstance(value, dict | list):
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {laid_out(held, inner)}" for key, held in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + laid_out(held, inner) for held in value) + f"\n{indent}]"


def shown(text: str) -> str:
    """Lay JSON out; leave everything else, without the blanks at the ends of lines."""
    try:
        return laid_out(json.loads(text)) + "\n"
    except ValueError:
        return "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n"


def run(command: str) -> str:
    """Run a command of the page."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)  # noqa: S603, S607  # the page's own
    return shown(done.stdout)


@contextmanager
def server(port: int = 8000) -> Iterator[str]:
    """Serve, at the page's port or another; gives what it says at its start."""
    command = [sys.executable, "-m", "langchain_rlfocal.cli", "serve", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)  # noqa: S603  # ours
    assert process.stderr is not None
    lines: list[str] = []
    try:
        while not any("curl" in line for line in lines):
            line = process.stderr.readline()
            if not line:
                raise SystemExit("".join(lines))
            lines.append(line)
        run(f"curl -sf --retry 20 --retry-connrefused --retry-all-errors http://127.0.0.1:{port}/ready")
        yield "".join(lines)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stderr.close()


def main() -> None:
    """Record everything anew."""
    with server() as said:

        def recorded(found: re.Match[str]) -> str:
            output = said if "rlfocal serve" in found["command"] else run(found["command"])
            return f"{found['code']}{found['head']}{output}```\n"

        PAGE.write_text(_RECORDED.sub(recorded, PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
