"""Draw the packages by layers, as the import contract in pyproject.toml has them: `python docs/images/draw_layers.py`.

A test compares the picture with the contract. It is readable on a light and on a dark page, and fetches nothing.
"""

import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
PICTURE = Path(__file__).with_name("layers.svg")

WIDTH, BOX, GAP, MARGIN = 960, 66, 10, 8

COLOURS = {"serving": "#bfd7ff", "learning": "#ffe0b0", "shared": "#d8e8d0", "tools": "#e4dcf2"}
"""What a box belongs to, and its colour, on which dark text can be read."""

ROOMS = {
    "cli": ("tools", "the program's commands"),
    "server": ("serving", "the ensemble behind OpenAI's HTTP interface"),
    "tracing": ("tools", "spans and metrics by OpenTelemetry"),
    "demo": ("tools", "embedded models, their policy"),
    "testing": ("tools", "doubles for users' tests"),
    "reporting": ("learning", "the page that people read"),
    "bulk": ("serving", "rows of questions to rows of answers"),
    "chat_models": ("serving", "the chat model and the answer loop"),
    "training": ("learning", "supervised start, MAPPO; PyTorch"),
    "evaluation": ("learning", "baselines, intervals, rivals"),
    "collection": ("serving", "asks a pool, records outcomes"),
    "importing": ("learning", "other programs' records"),
    "pool_files": ("serving", "pools in YAML and TOML"),
    "execution": ("serving", "one round of calls: retries, limits, budgets"),
    "environment": ("learning", "episodes on outcomes"),
    "gymnasium_env": ("learning", "the same, for other algorithms"),
    "online": ("learning", "learning while it serves"),
    "scoring": ("serving", "what a reply is worth"),
    "engines": ("shared", "work in processes or on Ray"),
    "log": ("shared", "every attempt and answer, on disk"),
    "policies": ("shared", "Decider and Fusion in NumPy; checkpoints"),
    "features": ("shared", "from a query to numbers"),
    "observations": ("shared", "what each agent sees"),
    "states": ("shared", "what a policy knows"),
    "pool": ("serving", "members and their prices"),
    "outcomes": ("learning", "tables and grids of answers"),
    "answers": ("shared", "which answers are the same"),
    "records": ("shared", "the values that travel"),
    "diversity": ("learning", "how members fail together"),
    "errors": ("shared", "what is raised"),
    "redaction": ("shared", "secrets stay hidden"),
}


def layers() -> list[list[str]]:
    """Read the layers from the contract, the highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    return [[name.strip(" ()") for name in layer.replace("|", ":").split(":")] for layer in contract["layers"]]


def picture() -> str:
    """Draw the layers as SVG."""
    rows = layers()
    height = MARGIN + len(rows) * (BOX + GAP) + 24
    attributes = 'role="img" font-family="system-ui, sans-serif" text-anchor="middle" fill="#1c1c24"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {attributes}>',
        "<title>The packages by layers: each may import what stands in lower ones</title>",
    ]
    for index, row in enumerate(rows):
        width = (WIDTH - 2 * MARGIN - GAP * (len(row) - 1)) / len(row)
        top = MARGIN + index * (BOX + GAP)
        for place, name in enumerate(row):
            kind, subject = ROOMS[name]
            left = MARGIN + place * (width + GAP)
            middle = left + width / 2
            parts.append(
                f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{BOX}" rx="6" fill="{COLOURS[kind]}"/>'
            )
            parts.append(f'<text x="{middle:.1f}" y="{top + 21}" font-size="15" font-weight="600">{name}</text>')
            for line, text in enumerate(textwrap.wrap(subject, int(width / 7.2))):
                parts.append(f'<text x="{middle:.1f}" y="{top + 39 + 15 * line}" font-size="12">{escape(text)}</text>')
    left = float(MARGIN)
    for kind, colour in COLOURS.items():
        top = height - 22
        parts.append(f'<rect x="{left}" y="{top}" width="110" height="18" rx="4" fill="{colour}"/>')
        parts.append(f'<text x="{left + 55}" y="{top + 13}" font-size="12">{kind}</text>')
        left += 120
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
