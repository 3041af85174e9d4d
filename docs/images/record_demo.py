"""Record `rlfocal demo` as a picture: `python docs/images/record_demo.py` runs it and writes demo.svg beside this file.

It is printed as for a terminal of 80 columns. The picture keeps the start, some of the questions, and the total; what is left out
is marked. It fetches no font.
"""

import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from langchain_rlfocal.demo.command import run_demo

PICTURE = Path(__file__).with_name("demo.svg")
WIDTH = 80
SHOWN = (6,)
"""The questions that the picture keeps: one on which the best member alone is wrong."""


def transcript() -> str:
    """Run the demo and return what it prints, with its colours."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), highlight=False)
    run_demo(console)
    return console.export_text(styles=True)


def shortened(printed: str) -> str:
    """Keep the start, the questions of `SHOWN`, and the total."""
    parts = re.split(r"(?m)^(?=(?:\x1b\[[\d;]*m)*(?:\d of \d|Total))", printed)
    start, *questions, total = parts
    kept, left_out = [start], 0
    for number, question in enumerate(questions, start=1):
        if number in SHOWN:
            kept += [f"\x1b[2m[{left_out} more]\x1b[0m\n\n"] if left_out else []
            kept.append(question)
            left_out = 0
        else:
            left_out += 1
    return "".join([*kept, *([f"\x1b[2m[{left_out} more]\x1b[0m\n\n"] if left_out else []), total])


def picture(printed: str) -> str:
    """Draw a transcript as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(printed.rstrip()))
    form = re.sub(r"(?s)@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT)
    form = form.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")
    return console.export_svg(title="rlfocal demo", code_format=form, unique_id="demo")


if __name__ == "__main__":
    PICTURE.write_text(picture(shortened(transcript())), encoding="utf-8")
