"""Run the tutorial from an empty folder: write its files, run its commands and its Python, and print what each takes.

    python docs/tutorial/run.py            what each step takes
    python docs/tutorial/run.py --record   also writes what was printed, and the time of it all, into the page

Every fenced block that has a `title` is a file; a `console` block holds commands; `python` is run as it stands. A `text` block
shows what the block above it printed on both streams, whole, or the lines that the comment above it names (-7 is the seventh from the
end).
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).with_name("your-pool.md")

_BLOCK = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<file>[^"]+)")?\n(?P<body>.*?)^```$'
    r"(?P<between>\n\n(?:<!-- lines (?P<first>-?\d+) to (?P<last>\d+|the last) -->\n\n)?(?=```text\n))?",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    """One block that was run.

    Attributes:
        code: What was run.
        printed: What it printed, as far as the page is to show it.
        shown: What the page shows of that, None where it shows nothing.
        seconds: What it took.
    """

    code: str
    printed: str
    shown: str | None
    seconds: float


def steps(page: str, folder: Path) -> Iterator[Step]:
    """Run a page's blocks one after the other in a folder.

    Raises:
        RuntimeError: A command failed.
    """
    blocks = list(_BLOCK.finditer(page))
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        body = block["body"]
        if block["file"]:
            (folder / block["file"]).write_text(body, encoding="utf-8")
        if block["language"] not in ("console", "python"):
            continue
        started = time.perf_counter()
        commands = _commands(body) if block["language"] == "console" else [[sys.executable, "-c", body]]
        printed = "".join(_run(command, folder) for command in commands)
        seconds = time.perf_counter() - started
        shown = following["body"] if following and block["between"] else None
        yield Step(body, _cut(printed, block["first"], block["last"]), shown, seconds)


def _commands(body: str) -> list[list[str]]:
    """Read the commands of a console block, each with the program in place of its name."""
    lines = re.findall(r"^\$ (.+?)(?<!\\)$", body, re.MULTILINE | re.DOTALL)
    words = [shlex.split(line.replace("\\\n", " ")) for line in lines]
    return [[sys.executable, "-m", "langchain_rlfocal.cli", *rest] for program, *rest in words if program == "rlfocal"]


def _run(command: list[str], folder: Path) -> str:
    ran = subprocess.run(  # noqa: S603  # commands of our own page
        command,
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},  # both streams in one order
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise RuntimeError(f"{' '.join(command[3:] or command)} ended with {ran.returncode}:\n{ran.stdout}")
    return ran.stdout


def _cut(printed: str, first: str | None, last: str | None) -> str:
    lines = [f"{line.rstrip()}\n" for line in printed.strip("\n").splitlines()]
    start = int(first or 1)
    end = int(last) if last and last.isdigit() else len(lines)
    return "".join(lines[start - 1 if start > 0 else start : end]).strip("\n") + "\n"


def recorded(page: str, done: list[Step]) -> str:
    """Write what the steps printed, and what they took together, into the page."""
    printed = iter(step.printed for step in done if step.shown is not None)

    def written(block: re.Match[str]) -> str:
        return f"```text\n{next(printed)}```" if block["language"] == "text" else block[0]

    text = _BLOCK.sub(written, page)
    took = f"took {sum(step.seconds for step in done):.0f} s on {os.cpu_count()} cores at a load of {os.getloadavg()[2]:.0f}"
    return re.sub(r"took \d+ s on \d+ cores at a load of \d+", took, text)


def main() -> None:
    """Run the page, and show what it takes."""
    page = PAGE.read_text(encoding="utf-8")
    done = []
    with tempfile.TemporaryDirectory() as folder:
        for step in steps(page, Path(folder)):
            done.append(step)
            print(f"{step.seconds:6.1f} s  {step.code.splitlines()[-1]:.100}", flush=True)
    print(f"{sum(step.seconds for step in done):6.1f} s  from an empty folder to the end")
    if "--record" in sys.argv[1:]:
        PAGE.write_text(recorded(page, done), encoding="utf-8")


if __name__ == "__main__":
    main()
