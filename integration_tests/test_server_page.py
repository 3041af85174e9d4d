"""What docs/how-to/serve.md shows comes of the commands that it shows."""

import importlib.util
import json
import shutil
import socket
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs/how-to/record_serve.py"


def recorder():
    spec = importlib.util.spec_from_file_location("record_serve", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def form_of(text):
    """What of an output is the same on every machine: names of JSON's fields, the beginnings of lines."""
    try:
        return fields_of(json.loads(text))
    except ValueError:
        lines = [line for line in text.splitlines() if line]
        return sorted({line.partition(":")[0] for line in lines})


def fields_of(value):
    if isinstance(value, dict):
        # Who answers is a question of how small models fare, and what a failure holds too.
        return {name: fields_of(held) for name, held in value.items() if name not in {"rlfocal", "usage", "message"}}
    return [fields_of(value[0])] if isinstance(value, list) and value else type(value).__name__


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_page_shows_what_the_server_says():
    pytest.importorskip("xllamacpp", reason="pip install 'langchain-rlfocal[local]'")
    record = recorder()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with record.server(port) as said:
        for command, shown in record.blocks():
            got = said if "rlfocal serve" in command else record.run(command.replace(":8000", f":{port}"))
            assert shown, command
            if "/v1/models" in command or "serve" in command or "max_teem" in command:
                assert record.steady(got).replace(f":{port}", ":N") == record.steady(shown), command
            assert form_of(got) == form_of(shown), command
