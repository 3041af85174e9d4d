"""The README's Python runs as it stands, on the embedded models."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.usefixtures("embedded")
def test_the_readme_s_snippets_run(capsys):
    snippets = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    runnable = [s for s in snippets if "embedded_pool" in s]
    assert runnable
    for snippet in runnable:
        exec(snippet, {})
    assert "answered by" in capsys.readouterr().out
