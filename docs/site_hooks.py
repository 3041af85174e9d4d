"""What MkDocs cannot do by itself: the page of changes, made from the fragments as a release would be, and a check."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add `changes.md`: what towncrier would write of the fragments, above the releases of CHANGELOG.md."""
    draft = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "Not released yet", "--date", ""]
    made = subprocess.run(draft, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603  # fixed words
    unreleased = made.stdout[made.stdout.index("## ") :].replace("Not released yet ()", "Not released yet")
    head, _, releases = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").partition("<!-- releases -->")
    title = head.partition("\n")[0]
    files.append(File.generated(config, "changes.md", content=f"{title}\n\n{unreleased}\n{releases}"))
    return files


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Refuse a page that a reader's browser would fetch something for from elsewhere."""
    if fetched := re.search(r'<(?:script|img|link|iframe)\b[^>]*(?:src|href)="?(?:https?:)?//[^>]*>', output):
        raise PluginError(f"{page.file.src_uri} must fetch nothing, got {fetched[0]}. Put the file into docs/assets.")
    return output
