"""Tables: columns read from files, and written to them.

Knows Parquet, JSONL and CSV by a file's suffix; what the columns must hold is said in `columns`. Columns that nobody asked
for are ignored. It never leaves a file half-written, and keeps null and the empty text apart in every format.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes.columns import NUMBERS, TEXT, Column, assemble, columns_of, parse, retype, shorten

_Handler = TypeVar("_Handler")

_BATCH_ROWS = 8192
_CSV_BLOCK_BYTES = 2**30
"""Largest row of a CSV file; the reader takes a file in blocks, and a row must lie within one."""


def read_table(path: str | os.PathLike[str], columns: Sequence[Column]) -> pa.Table:
    """Read and check one file.

    Args:
        path: A file that ends in .parquet, .jsonl, .ndjson or .csv.
        columns: The columns to read; every other column is ignored.

    Returns:
        A table of exactly `columns`, in their order; an optional column that the file lacks is all null.

    Raises:
        OutcomeError: The file cannot be read, or breaks a rule.
    """
    file = Path(path)
    reader = _by_suffix(file, _READERS)
    try:
        raw = reader(file, columns)
    except FileNotFoundError:
        raise OutcomeError("the file must exist. Check the path.", file=str(file)) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        rule = f"must be a readable {file.suffix} file in UTF-8, got: {error}. Write the file again."
        raise OutcomeError(rule, file=str(file)) from error
    return assemble(raw, columns, file=str(file))


def write_table(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a table in the format of the file's suffix: the whole file appears at once, or nothing does.

    Raises:
        OutcomeError: The suffix is unknown, or the file's folder does not exist.
    """
    file = Path(path).resolve()
    writer = _by_suffix(file, _WRITERS)
    if not file.parent.is_dir():
        raise OutcomeError("the file's folder must exist. Create it first.", file=str(path))
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("xb") as sink:
            writer(table, sink)
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def append_lines(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Append a table to a JSONL file in one write: all of its lines are added, or none is.

    A last line that somebody left without a line end is ended first.
    """
    lines = b"".join(_json_lines(table))
    with Path(path).open("ab+", buffering=0) as sink:
        size = sink.seek(0, os.SEEK_END)
        if size:
            sink.seek(size - 1)
            lines = lines if sink.read(1) == b"\n" else b"\n" + lines
        with _undo_on_error(sink, size):
            written = sink.write(lines)
            if written != len(lines):
                rule = f"all {len(lines)} bytes must fit, only {written} did. Free some space and append again."
                raise OutcomeError(rule, file=str(path))


@contextmanager
def _undo_on_error(sink: IO[bytes], size: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        sink.truncate(size)
        raise


def _by_suffix(file: Path, handlers: Mapping[str, _Handler]) -> _Handler:
    handler = handlers.get(file.suffix.lower())
    if handler is None:
        rule = f"the suffix must be one of {', '.join(handlers)}, got {file.suffix!r}. Rename or convert the file."
        raise OutcomeError(rule, file=str(file))
    return handler


# Readers: each returns the raw columns that the file has, as Arrow arrays of the file's own types.


def _read_parquet(file: Path, columns: Sequence[Column]) -> dict[str, pa.Array]:
    with pq.ParquetFile(file) as source:
        present = _present(columns, source.schema_arrow.names, file=str(file))
        table = source.read(columns=[column.name for column in present])
    return {column.name: retype(_flat(table[column.name]), column, file=str(file)) for column in present}


def _read_csv(file: Path, columns: Sequence[Column]) -> dict[str, pa.Array]:
    if not file.stat().st_size:
        return {}
    table = pa_csv.read_csv(
        file,
        read_options=pa_csv.ReadOptions(block_size=min(max(file.stat().st_size, 2**20), _CSV_BLOCK_BYTES)),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        # Only an unquoted nothing is null; a quoted one is the empty text.
        convert_options=pa_csv.ConvertOptions(
            column_types={column.name: TEXT for column in columns},
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        ),
    )
    present = _present(columns, table.column_names, file=str(file))
    return {column.name: parse(_flat(table[column.name]), column, file=str(file)) for column in present}


def _read_jsonl(file: Path, columns: Sequence[Column]) -> dict[str, pa.Array]:
    # A file without a line is a table without a row, of all columns.
    parts = [columns_of([], columns, file=str(file), first=0)]
    with file.open(encoding="utf-8-sig") as source:
        lines = (line for line in source if line.strip())
        first = 0
        while batch := list(islice(lines, _BATCH_ROWS)):
            rows = [_json_object(line, file=str(file), row=first + index) for index, line in enumerate(batch)]
            parts.append(columns_of(rows, columns, file=str(file), first=first))
            first += len(batch)
    return {column.name: pa.concat_arrays([part[column.name] for part in parts]) for column in columns}


def _json_object(line: str, *, file: str, row: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        rule = f"each line must be one JSON object, got {shorten(line)}: {error}. Mend or delete the line."
        raise OutcomeError(rule, file=file, row=row + 1) from error
    if not isinstance(value, dict):
        rule = f"each line must be one JSON object, got {shorten(line)}. Mend or delete the line."
        raise OutcomeError(rule, file=file, row=row + 1)
    return value


def _present(columns: Sequence[Column], names: Sequence[str], *, file: str) -> list[Column]:
    twice = next((column.name for column in columns if names.count(column.name) > 1), None)
    if twice is not None:
        raise OutcomeError("a column must stand once, got it twice. Rename or delete one.", file=file, column=twice)
    return [column for column in columns if column.name in names]


def _flat(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


# Writers.


def _json_lines(table: pa.Table) -> Iterator[bytes]:
    for batch in table.to_batches(max_chunksize=_BATCH_ROWS):
        for row in batch.to_pylist():
            yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _write_parquet(table: pa.Table, sink: IO[bytes]) -> None:
    pq.write_table(table, sink, compression="zstd")


def _write_jsonl(table: pa.Table, sink: IO[bytes]) -> None:
    sink.writelines(_json_lines(table))


def _write_csv(table: pa.Table, sink: IO[bytes]) -> None:
    for index, field in enumerate(table.schema):
        if field.type == NUMBERS:
            texts = [None if value is None else json.dumps(value) for value in table[index].to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, TEXT))
    pa_csv.write_csv(table, sink)


_READERS = {".parquet": _read_parquet, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl, ".csv": _read_csv}
_WRITERS = {".parquet": _write_parquet, ".jsonl": _write_jsonl, ".ndjson": _write_jsonl, ".csv": _write_csv}
