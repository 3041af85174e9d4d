"""Files: which ones the user means, and their rows one after the other, each with its place.

A file is never read whole if its form allows another way: JSON lines, CSV, Parquet and a JSON list are read row by row. What is
torn in the middle of a row is that row's fault and counted; what cannot be read at all is an `OutcomeError`.
"""

import glob
import json
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from langchain_rlfocal.errors import InputError, OutcomeError
from langchain_rlfocal.importing.records import Place, Tally
from langchain_rlfocal.outcomes.files import csv_lines, opened_text

WRAPPERS = ("data", "traces", "runs", "observations", "logs", "items")
"""Fields under which a program's answer wraps its list of rows."""

_CHUNK_CHARS = 2**20
_SPACE = " \t\r\n"


def find_files(names: Sequence[str | PathLike[str]]) -> list[tuple[Path, bool]]:
    """List the files that names, patterns and folders stand for, each once, and whether it was named itself.

    Raises:
        InputError: No file was named.
        OutcomeError: A file does not exist, a pattern matches none, or a folder holds none.
    """
    if not names:
        raise InputError("An import needs at least one file, got none. Name files, folders or patterns.")
    found: dict[Path, bool] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = sorted(
                p for p in path.rglob("*") if p.is_file() and not any(q.startswith(".") for q in p.parts[1:])
            )
            if not inside:
                raise OutcomeError("the folder must hold files, got none. Check the path.", file=str(path))
            for file in inside:
                found.setdefault(file, False)
        elif path.exists():
            found[path] = True
        else:
            matches = sorted(Path(match) for match in glob.glob(str(name), recursive=True))  # noqa: PTH207  # may be absolute
            matches = [match for match in matches if match.is_file()]
            if not matches:
                raise OutcomeError("the file must exist. Check the path.", file=str(path))
            for file in matches:
                found.setdefault(file, False)
    return list(found.items())


def form_of(path: Path) -> str:
    """Name a file's form by its suffix, without that of compression: `json`, `jsonl`, `csv`, `parquet`, or the suffix itself."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = next((s for s in reversed(suffixes) if s != ".gz"), "")
    return {".ndjson": "jsonl", ".tsv": "csv", ".log": "jsonl"}.get(suffix, suffix.removeprefix("."))


def rows_of(path: Path, tally: Tally | None = None) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the rows of a JSON, JSONL, CSV or Parquet file with their places; a row that is no object is counted and left out.

    A JSON file is a list of rows, an object that wraps one, or one row. Lines are those of the file (the header is the first of a CSV
    file), entries are those of a list.

    Raises:
        OutcomeError: The file cannot be read, or has another suffix.
    """
    reader = _READERS.get(form_of(path))
    if reader is None:
        rule = f"the suffix must be one of {', '.join(f'.{form}' for form in _READERS)}, also with .gz, got {path.name!r}. Rename it."
        raise OutcomeError(rule, file=str(path))
    yield from reader(path, tally or Tally())


def read_json(path: Path) -> Any:
    """Read a whole JSON file.

    Raises:
        OutcomeError: It is no JSON, such as one that is torn.
    """
    with opened_text(path) as text:
        try:
            return json.load(text)
        except (ValueError, RecursionError) as error:
            raise _torn(path, error) from None


def parsed(value: Any) -> Any:
    """Read a text that writes a JSON object or list, as exports put one into another; everything else stays as it is."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def field_at(row: Mapping[str, Any], path: str) -> Any:
    """Return the field that a path such as `metadata.topic` or `choices.0.text` leads to; None where there is none."""
    if path in row:
        return row[path]
    value: Any = row
    for part in path.split("."):
        value = parsed(value)
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.lstrip("-").isdigit() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _read_jsonl(path: Path, tally: Tally) -> Iterator[tuple[Place, dict[str, Any]]]:
    file = str(path)
    with opened_text(path) as text:
        for line, words in enumerate(text, start=1):
            if not words.strip():
                continue
            try:
                found = json.loads(words)
            except (ValueError, RecursionError):
                found = None
            if isinstance(found, dict):
                yield Place(file, line), found
            else:
                tally.read += 1
                whole = words.endswith("\n")
                tally.skip("no JSON object" if whole else "no JSON object: the last line is torn", Place(file, line))


def _read_json(path: Path, tally: Tally) -> Iterator[tuple[Place, dict[str, Any]]]:
    file = str(path)
    with opened_text(path) as text:
        start = text.read(_CHUNK_CHARS).lstrip(_SPACE)
        entries: Iterator[Any]
        if start.startswith("["):
            entries = _entries(text, start[1:], path)
        else:
            try:
                whole = json.loads(start + text.read())
            except (ValueError, RecursionError) as error:
                raise _torn(path, error) from None
            wrapped = (
                next((whole[n] for n in WRAPPERS if isinstance(whole.get(n), list)), None)
                if isinstance(whole, dict)
                else None
            )
            if wrapped is None:
                if not isinstance(whole, dict):
                    raise OutcomeError("the file must hold JSON objects. Check the path.", file=file)
                yield Place(file), whole
                return
            entries = iter(wrapped)
        for number, found in enumerate(entries, start=1):
            if isinstance(found, dict):
                yield Place(file, number), found
            else:
                tally.read += 1
                tally.skip("no JSON object", Place(file, number))


def _entries(text: TextIO, buffer: str, path: Path) -> Iterator[Any]:
    """Yield the entries of a JSON list of which `buffer` is what follows the bracket."""
    decoder, position = json.JSONDecoder(), 0
    while True:
        while position < len(buffer) and buffer[position] in " \t\r\n,":
            position += 1
        if buffer[position : position + 1] == "]":
            return
        try:
            value, end = decoder.raw_decode(buffer, position)
        except (ValueError, RecursionError) as error:
            more = text.read(max(_CHUNK_CHARS, len(buffer)))
            if not more:
                raise _torn(path, error) from None
            buffer, position = buffer[position:] + more, 0
            continue
        if end == len(buffer) and (more := text.read(_CHUNK_CHARS)):
            buffer, position = buffer[position:] + more, 0  # a number at the buffer's end may go on behind it
            continue
        yield value
        position = end


def _read_csv(path: Path, tally: Tally) -> Iterator[tuple[Place, dict[str, Any]]]:
    file, lines = str(path), csv_lines(path)
    _, header = next(lines, (0, []))
    names = [name.strip() for name in header]
    for line, values in lines:
        if len(values) != len(names) or values == header:
            tally.read += 1
            told = "repeats the header" if values == header else "more or fewer cells than the header has"
            tally.skip(told, Place(file, line))
            continue
        # CSV has one way to write nothing: a cell without text is none, not an empty answer.
        yield Place(file, line), {name: value or None for name, value in zip(names, values, strict=True) if name}


def _read_parquet(path: Path, tally: Tally) -> Iterator[tuple[Place, dict[str, Any]]]:
    del tally  # each row is one
    try:
        with pq.ParquetFile(path) as source:
            row = 0
            for batch in source.iter_batches(batch_size=4096):
                for found in batch.to_pylist():
                    row += 1
                    yield Place(str(path), row), found
    except (OSError, pa.ArrowException) as error:
        raise OutcomeError(f"must be a readable Parquet file, got: {error}. Write it again.", file=str(path)) from error


def _torn(path: Path, error: Exception) -> Exception:
    if isinstance(error, UnicodeError):
        return error  # `opened_text` says what it is
    empty = not path.stat().st_size
    what = "nothing" if empty else f"{error}"
    return OutcomeError(f"the file must be whole JSON, got {what}. Export it again, or leave it out.", file=str(path))


_READERS = {"jsonl": _read_jsonl, "json": _read_json, "csv": _read_csv, "parquet": _read_parquet}
