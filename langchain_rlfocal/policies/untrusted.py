"""Untrusted files: JSON and arrays that a stranger may have written, read without believing what they say of themselves.

A file is measured once it is open, and no more of it is read. What it says of the number of its values or arrays is counted
before any of them is made. Nothing is executed, no name in it is looked up, and every refusal is a `CheckpointError`.
"""

import json
import math
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from langchain_rlfocal.errors import CheckpointError

MAX_VALUES = 500_000
"""JSON of more values is refused before any is made: each takes many times its text in memory."""

MAX_DEPTH = 32
"""JSON that is nested deeper is refused: whoever shows or copies it need not mind its depth."""

MAX_HEADER_BYTES = 2**16
"""A file of arrays with a longer list of them is refused before the list is read."""

_MAX_DIGITS = 40  # seeds may have 128 bits
_MAX_SHOWN = 200


def read_file(path: Path, *, most: int) -> bytes:
    """Read a regular file, and of one that grows meanwhile no more than it was found to hold.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: It cannot be read.
        CheckpointError: It is none, or too large.
    """
    with open(path, "rb", opener=_open_at_once) as file:  # a path's own `open` takes no opener
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            msg = f"`{path}` must be a regular file, not a device or a pipe. Copy the checkpoint's own file there."
            raise CheckpointError(msg)
        check_length(path, found.st_size, most=most)
        return file.read(found.st_size)


def check_length(path: Path, length: int, *, most: int) -> None:
    """Check that a file is short enough to be read.

    Raises:
        CheckpointError: It is not.
    """
    if length > most:
        msg = (
            f"`{path}` must be at most {most} bytes, has {length}. Give a checkpoint of this package; a policy that has grown "
            "so large must be trained for fewer members, labels or tasks."
        )
        raise CheckpointError(msg)


def parse_json(data: bytes, path: Path) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        CheckpointError: It is none; or it holds too many values, nested too deep, two under one name, or such as no
            checkpoint holds: infinity, NaN, whole numbers of more than 40 digits, halves of characters.
    """
    try:
        return _parsed(data)
    except (ValueError, RecursionError) as error:
        msg = f"`{path}` must be the JSON object of a checkpoint: {shortened(str(error))}. Train the policy again."
        raise CheckpointError(msg) from error


def parse_arrays(data: bytes, path: Path) -> dict[str, np.ndarray]:
    """Parse arrays of numbers or booleans in the safetensors format.

    Raises:
        CheckpointError: They are no whole file of that format, the list of them is too long, or one holds something else.
    """
    length = int.from_bytes(data[:8], "little")
    if length > MAX_HEADER_BYTES:
        msg = (
            f"`{path}` must be a safetensors file whose header has at most {MAX_HEADER_BYTES} bytes, got {length}. "
            "Copy it again or train the policy again."
        )
        raise CheckpointError(msg)
    try:
        arrays = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        msg = f"`{path}` must be a whole safetensors file: {shortened(str(error))}. Copy it again or train the policy again."
        raise CheckpointError(msg) from error
    for name, array in arrays.items():
        kind = array.dtype.kind
        # NumPy trusts a boolean to be 0 or 1, and counts beyond the end of an array where it is not.
        if not ((array.view(np.uint8) <= 1).all() if kind == "b" else kind in "fiu"):
            msg = (
                f"Array `{shortened(name)}` in `{path}` must hold numbers or booleans, got {array.dtype}. Train the policy "
                "again."
            )
            raise CheckpointError(msg)
    return arrays


def shortened(text: str) -> str:
    """Cut a stranger's text to what a message can hold."""
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # or a pipe would be waited for


def _parsed(data: bytes) -> dict[str, Any]:
    count = sum(map(data.count, (b"[", b"{", b",")))  # each value but the first stands behind one of these
    if count > MAX_VALUES:
        raise ValueError(f"at most {MAX_VALUES} values, got about {count}")
    facts = json.loads(
        data.decode(),
        object_pairs_hook=_object_of,
        parse_int=_whole_of,
        parse_float=_number_of,
        parse_constant=_number_of,
    )
    if not isinstance(facts, dict):
        raise ValueError(f"an object, got a {type(facts).__name__}")  # noqa: TRY004  # it is the file that is wrong
    level: Iterable[Any] = [facts]
    for _ in range(MAX_DEPTH):
        level = [inner for value in level for inner in _inside(value)]
    if level:
        raise ValueError(f"at most {MAX_DEPTH} levels deep, got more")
    return facts


def _object_of(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("each name once in an object, got one twice")
    return made


def _whole_of(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"whole numbers of at most {_MAX_DIGITS} digits, got {len(digits)}")
    return int(digits)


def _number_of(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"finite numbers, got {text[:80]}")
    return value


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return [*value, *value.values()]
    if isinstance(value, str):
        value.encode()  # half a character can be neither shown nor written
    return value if isinstance(value, list) else ()
