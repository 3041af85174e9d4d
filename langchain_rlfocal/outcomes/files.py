"""Files of tables: Parquet, JSONL and CSV, plain or compressed with gzip, from a disk or a pipe; read, checked, written.

A table is read as columns of one type each: those that the caller names, checked against their rules, then every other column
that the file has. What breaks a rule is an `OutcomeError` that names the file, the column, and where it is known the row. The
same table gives the same values in every format: a text column takes numbers as the texts that CSV holds of them (1 is "1", 1.0
is "1.0", whole numbers of any length are exact), a reward takes truth values. NaN in a column that may be null means null,
because many programs write a missing number so.
"""

import codecs
import csv
import gzip
import io
import json
import logging
import math
import mmap
import os
import re
import secrets
import shlex
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, NoReturn, TextIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from langchain_rlfocal.errors import OutcomeError

TEXT, NUMBER, COUNT, NUMBERS = pa.large_string(), pa.float64(), pa.int64(), pa.list_(pa.float64())
_NOUNS = {TEXT: "text", NUMBER: "a number", COUNT: "a whole number", NUMBERS: "a list of numbers"}

STANDARD_INPUT = "-"
"""The path that stands for standard input."""

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".csv")
"""What the name of a table's file ends in; JSONL and CSV may have `.gz` after it."""

AS_JSON = {b"rlfocal": b"json"}
"""Marks a column of texts whose values are JSON, since the values are of several types."""

_BATCH_ROWS = 512  # so few that Python's collector of garbage does not look at them again and again
_BLOCK_BYTES = 2**24
_HEAD_BYTES = 2**16
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_CELLS = re.compile(r"Row #(\d{1,15}): Expected (\d{1,9}) columns, got (\d{1,9})")
_ENCODINGS = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp932", "gb18030", "big5", "euc_kr"]
"""What files that are not in UTF-8 are in, mostly: what Windows has called ANSI, from Europe to Japan."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Column:
    """What a column of a file must hold.

    Attributes:
        name: Its name.
        type: Text, number, whole number (`int64`), or list of numbers.
        is_required: True if a table without the column is refused.
        is_nullable: True if a row may leave it open.
        takes_json: True of a text column that takes any JSON, and keeps what is no text as JSON text.
        takes_truth: True of a number that may be given as true or false.
        minimum: Least value, or None.
        maximum: Greatest value, or None.
        above: What every value is greater than, or None.
        way_out: What to do about a value that breaks the rule, where there is more to say than to correct it.
    """

    name: str
    type: pa.DataType
    is_required: bool = False
    is_nullable: bool = True
    takes_json: bool = False
    takes_truth: bool = False
    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None
    way_out: str | None = None


Parts = list[pa.Array]
"""A column in parts, in order."""


# ---- reading


def read_table(path: str | os.PathLike[str], columns: Sequence[Column], *, unfinished: bool = False) -> pa.Table:
    """Read and check one table.

    Args:
        path: A file, a pipe, or `STANDARD_INPUT`. A pipe's format is told by how it begins.
        columns: What it must hold; one that the file lacks is all null, if it is not required.
        unfinished: True for a JSONL file that is still written to, or whose writer was killed: a last line that breaks off is
            left out, and no row at all is as good as some.

    Returns:
        The columns named, in their order, then those that nobody named; see `values_of`.

    Raises:
        OutcomeError: It cannot be read, holds no row, or breaks a rule.
    """
    shown = shown_path(path)
    with ExitStack() as stack:
        try:
            source = _open(path, stack)
            arrays = _READERS[source.format](source, columns, unfinished)
        except FileNotFoundError:
            raise OutcomeError("the file must exist. Check the path.", file=shown) from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            rule = (
                f"must be a whole gzip file, got one that is damaged or breaks off: {error}. Write or fetch it again."
            )
            raise OutcomeError(rule, file=shown) from error
        except (OSError, pa.ArrowException) as error:
            said = " ".join(str(error).split())
            rule = (
                f"must be a readable file of a table, got: {said}. It may have been cut off: write or fetch it again."
            )
            raise OutcomeError(rule, file=shown) from error
    table = assemble(arrays, columns, file=shown)
    if not len(table) and not unfinished:
        raise OutcomeError("the table must have at least one row, got none. Check what wrote it.", file=shown)
    return table


def shown_path(path: str | os.PathLike[str]) -> str:
    """Name a table's file for a person."""
    return "standard input" if os.fspath(path) == STANDARD_INPUT else str(path)


@dataclass(slots=True)
class _Source:
    """An open table.

    Attributes:
        shown: Its name in messages.
        format: What it is read as.
        stream: Its bytes, uncompressed; in UTF-8 without a mark, where it is text.
    """

    shown: str
    format: str
    stream: IO[bytes]

    def all_bytes(self) -> Any:
        """Return all bytes, without reading what lies on a disk into memory."""
        if isinstance(self.stream, io.BufferedReader) and isinstance(self.stream.raw, io.FileIO):
            try:
                start = self.stream.tell()
                return memoryview(mmap.mmap(self.stream.fileno(), 0, access=mmap.ACCESS_READ))[start:]
            except (OSError, ValueError):  # a pipe, or an empty file
                pass
        return memoryview(self.stream.read())


def _open(path: str | os.PathLike[str], stack: ExitStack) -> _Source:
    shown, name = shown_path(path), os.fspath(path)
    stream: Any
    is_named = False
    if name == STANDARD_INPUT:
        stream = sys.stdin.buffer
    else:
        if Path(name).is_dir():
            raise OutcomeError("must be a readable file, got a directory. Name a file in it.", file=shown)
        # What the system names, such as /dev/stdin, has no suffix even where it is a file in the end.
        is_named = not name.startswith(("/dev/", "/proc/")) and (Path(name).is_file() or not Path(name).exists())
        if is_named:
            check_suffix(path)
        stream = stack.enter_context(Path(name).open("rb"))  # noqa: SIM115  # the stack is the context
    stream = _unpacked(stream)
    head = _peek(stream)
    if is_named:
        suffix = _suffix_of(name)
        if Path(name).suffix.lower() == ".gz" and not isinstance(getattr(stream, "raw", None), gzip.GzipFile) and head:
            raise gzip.BadGzipFile("it does not begin as one")
        format_ = {".ndjson": "jsonl"}.get(suffix, suffix[1:])
    elif head[:4] == b"PAR1":
        format_ = "parquet"
    else:
        text = head.decode(_encoding_of(head), "replace").lstrip("\ufeff \t\r\n")
        format_ = "jsonl" if text[:1] in {"{", "["} else "csv"
    if format_ != "parquet":
        encoding = _encoding_of(head)
        if encoding == "utf-8-sig":
            stream.read(3)
        elif encoding != "utf-8":
            stream = io.BytesIO(_transcoded(stream.read(), encoding, shown))
    return _Source(shown, format_, stream)


def _peek(stream: Any) -> bytes:
    if hasattr(stream, "peek"):
        return bytes(stream.peek(_HEAD_BYTES)[:_HEAD_BYTES])
    start = stream.tell()  # standard input of a test
    head = stream.read(_HEAD_BYTES)
    stream.seek(start)
    return bytes(head)


def _suffix_of(name: str) -> str:
    path = Path(name)
    return Path(path.stem).suffix.lower() if path.suffix.lower() == ".gz" else path.suffix.lower()


def _encoding_of(head: bytes) -> str:
    """Tell the encodings that can be told with certainty by their first bytes; UTF-8 otherwise."""
    marks = [
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ]
    for mark, encoding in marks:
        if head.startswith(mark):
            return encoding
    # A table begins with two characters of ASCII.
    return "utf-16-le" if head[1:4:2] == b"\0\0" else "utf-16-be" if head[:3:2] == b"\0\0" else "utf-8"


def _transcoded(data: bytes, encoding: str, shown: str) -> bytes:
    try:
        return data.decode(encoding).encode()
    except UnicodeError as error:
        raise _not_in(encoding, error, shown) from None


@contextmanager
def opened_text(path: Path) -> Iterator[TextIO]:
    """Open a text, compressed or not, in an encoding that its beginning tells, UTF-8 otherwise; line ends stay as they are.

    Raises:
        OutcomeError: It does not exist, cannot be read to its end, or is in another encoding.
    """
    shown, encoding = str(path), "utf-8"
    try:
        with path.open("rb") as raw:
            stream = _unpacked(raw)
            encoding = _encoding_of(_peek(stream))
            with io.TextIOWrapper(stream, encoding=encoding, newline="") as text:
                yield text
    except FileNotFoundError:
        raise OutcomeError("the file must exist. Check the path.", file=shown) from None
    except (OSError, EOFError, zlib.error) as error:
        raise OutcomeError(f"the file must be readable to its end, got: {error}. Copy it again.", file=shown) from error
    except UnicodeError as error:
        if encoding in {"utf-8", "utf-8-sig"}:
            with path.open("rb") as raw:
                _refuse_encoding(_unpacked(raw), shown)
        raise _not_in(encoding, error, shown) from None


def _unpacked(stream: Any) -> Any:
    """Read through gzip where a stream begins so."""
    is_packed = _peek(stream)[:2] == b"\x1f\x8b"
    return io.BufferedReader(cast("Any", gzip.GzipFile(fileobj=stream))) if is_packed else stream


def _not_in(encoding: str, error: UnicodeError, shown: str) -> OutcomeError:
    rule = f"begins as a text in {encoding.upper()}, and is not one: {error}. It may have been cut off: write it again."
    return OutcomeError(rule, file=shown)


def _refuse_encoding(stream: IO[bytes], shown: str) -> None:
    """Say where a text leaves UTF-8, and what it probably is; return if it does not leave it."""
    import charset_normalizer  # noqa: PLC0415  # only a text that cannot be read needs it

    before = b""
    for number, line in enumerate(stream, start=1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            sample = before + (line + stream.read(2**16))[: 2**16]
            found = {one.encoding: one.chaos for one in charset_normalizer.from_bytes(sample, cp_isolation=_ENCODINGS)}
            # Of those that are about as good, the most usual.
            likely = [
                name for name in _ENCODINGS if found.get(name, math.inf) <= min(found.values(), default=0.0) + 0.01
            ]
            encoding = likely[0] if likely else "cp1252"
            around = line[max(0, error.start - 12) : error.start + 12].decode(encoding, "replace")
            rule = (
                f"must be in UTF-8, got the byte 0x{line[error.start]:02x} in line {number}. It may be in {encoding}, in which "
                f"this reads {around!r}: then `iconv -f {encoding.upper()} -t UTF-8` converts it, or save it as UTF-8."
            )
            raise OutcomeError(rule, file=shown) from None
        before = (before + line)[-(2**14) :]


# ---- reading: each reader returns all columns that the file has, then `assemble` checks them


def _read_parquet(source: _Source, columns: Sequence[Column], unfinished: bool) -> dict[str, Any]:  # noqa: ARG001
    with pq.ParquetFile(pa.BufferReader(pa.py_buffer(source.all_bytes()))) as opened:
        _check_names(opened.schema_arrow.names, source.shown)
        table = opened.read()
    known = {column.name: column for column in columns}
    arrays: dict[str, Any] = {}
    left_out = []
    for name in table.column_names:
        found = table[name]
        if pa.types.is_dictionary(found.type):
            found = found.cast(found.type.value_type)
        if name not in known:
            kept = _plain(found)
            if kept is None:
                left_out.append(f"`{name}` ({found.type})")
            else:
                mark = (table.schema.field(name).metadata or {}).get(b"rlfocal")
                arrays[name] = (kept, mark == b"json" and kept.type == TEXT)
            continue
        column = known[name]
        try:
            arrays[name] = joined(_of_type(found, column).chunks, column.type)
        except (pa.ArrowException, TypeError, ValueError):
            rule = f"must be {_NOUNS[column.type]}, got a column of type {found.type}. Convert the column."
            raise OutcomeError(rule, file=source.shown, column=name) from None
    if left_out:
        _log.warning("%s: left out %s, whose type no other format can hold.", source.shown, ", ".join(left_out))
    return arrays


def _of_type(found: pa.ChunkedArray, column: Column) -> pa.ChunkedArray:
    """Cast a Parquet column to what a column must hold; whole numbers become floats until they are checked."""
    if column.type != TEXT:
        return found.cast(NUMBER if column.type == COUNT else column.type)
    if pa.types.is_floating(
        found.type
    ):  # 1.0 is "1.0", as in CSV; through text, since a float of 32 bits is short there
        texts = [None if text in {None, "nan"} else repr(float(text)) for text in found.cast(TEXT).to_pylist()]
        return pa.chunked_array([pa.array(texts, TEXT)])
    if pa.types.is_boolean(found.type) or pa.types.is_nested(found.type):
        if not column.takes_json:
            raise TypeError(column.name)
        texts = [None if value is None else _json_text(value) for value in found.to_pylist()]
        return pa.chunked_array([pa.array(texts, TEXT)])
    return found.cast(TEXT)


def _plain(found: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return a column that nobody named with a type whose values JSON has; None where it has none."""
    types = pa.types
    if _is_json(found.type):
        if types.is_string(found.type) or types.is_string_view(found.type) or types.is_null(found.type):
            return found.cast(TEXT)
        if types.is_floating(found.type):
            found = found.cast(NUMBER)
            return pc.if_else(pc.is_nan(found), pa.scalar(None, NUMBER), found)
        return found
    is_text = types.is_temporal(found.type) and not types.is_duration(found.type) and not types.is_interval(found.type)
    return found.cast(TEXT) if is_text or types.is_decimal(found.type) else None


def _is_json(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _is_json(kind.value_type)
    tests = (
        types.is_null,
        types.is_boolean,
        types.is_integer,
        types.is_floating,
        types.is_string,
        types.is_large_string,
    )
    return any(test(kind) for test in tests) or bool(types.is_string_view(kind))


def _read_csv(source: _Source, columns: Sequence[Column], unfinished: bool) -> dict[str, Any]:  # noqa: ARG001
    data = source.all_bytes()
    head = bytes(data[:_HEAD_BYTES])
    start = len(head) - len(head.lstrip())
    first, _, rest = head[start:].partition(b"\n")
    if separator := _told_separator(first.decode("utf-8", "replace")):
        start = len(head) - len(rest)
    head = head[start:]
    if not head.strip():
        return {}
    known = {column.name: column for column in columns}
    text = head.decode("utf-8", "replace")
    separator = separator or _separator_of(text, known.keys())
    header = [name.strip() for name in _header(text, separator)]
    _check_names([name for name in header if name], source.shown)
    table = _parsed(data, start, separator, len(header), source.shown)
    _check_last_cell(table, data, source.shown)
    _check_repeated(table, header, source.shown)
    arrays: dict[str, Any] = {}
    for place, name in enumerate(header):
        if not name:
            continue  # the index that pandas writes unasked, or a separator at the end of each line
        found = table.column(place)
        if name not in known:
            arrays[name] = (found, False)
        elif known[name].type == TEXT:
            arrays[name] = joined(found.chunks, TEXT)
        else:
            arrays[name] = _csv_values(joined(found.chunks, TEXT), known[name], separator != ",", source.shown)
    if separator != ",":
        _log.warning(
            "%s is read with %s between its columns.", source.shown, _SEPARATORS.get(separator, repr(separator))
        )
    return arrays


class LocalText(str):
    """A cell of a file that has no commas between its columns: a number in it may have a decimal comma."""

    __slots__ = ()


def csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a CSV file whose columns nobody knows, the header first, each with the line of the file on which it ends.

    Cells are `LocalText` where no commas separate them; only a part of the file is held at a time.

    Raises:
        OutcomeError: It cannot be read, or is no CSV.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with opened_text(path) as text:
        start, above = text.read(_HEAD_BYTES), 0
        first, _, rest = start.partition("\n")
        separator = _told_separator(first)
        if separator:
            start, above = rest, 1
        else:
            # Before the first line ends, quotes may hold what looks like another separator: count outside of them.
            bare = "".join(start.lstrip().split('"')[::2]).partition("\n")[0]
            *usual, rare = _SEPARATORS  # names of columns have bars in them, too
            separator = max(usual, key=bare.count)
            separator = separator if separator in bare else rare
        reader = csv.reader(_lines(start, text), delimiter=separator)
        is_local = separator != ","
        try:
            for values in reader:
                if values:
                    yield above + reader.line_num, [*map(LocalText, values)] if is_local else values
        except csv.Error as error:
            rule = f"must be CSV, got: {error}. Export it again."
            raise OutcomeError(rule, file=str(path), row=above + reader.line_num) from None


def _lines(start: str, rest: TextIO) -> Iterator[str]:
    """Yield the lines of a text of which the start was read."""
    lines = list(io.StringIO(start, newline=""))
    last = lines.pop() if lines and not lines[-1].endswith("\n") else ""
    yield from lines
    if last:
        yield last + rest.readline()
    yield from rest


def _told_separator(first: str) -> str:
    """Return the separator that a first line such as `sep=;` tells, as Excel writes it; nothing where it is none."""
    return first.strip("\r\n ")[4:] if first[:4].lower() == "sep=" and len(first.strip("\r\n ")) == 5 else ""


def _separator_of(head: str, known: Iterable[str]) -> str:
    """Return the separator with which the header has most of the names."""

    def count(separator: str) -> int:
        return len({name.strip() for name in _header(head, separator)} & set(known))

    return max(_SEPARATORS, key=count)  # the first of equals


def _header(head: str, separator: str) -> list[str]:
    lines = (line for line in io.StringIO(head, newline="") if line.strip())
    return next(csv.reader(lines, delimiter=separator), [])


def _parsed(data: Any, start: int, separator: str, num_columns: int, shown: str) -> pa.Table:
    """Parse CSV into texts; the header begins at `start`."""
    names = [str(place) for place in range(num_columns)]

    def parse(block_bytes: int) -> pa.Table:
        return pa_csv.read_csv(
            pa.BufferReader(pa.py_buffer(data[start:])),
            # On one thread, errors name the row.
            read_options=pa_csv.ReadOptions(
                block_size=block_bytes, use_threads=False, column_names=names, skip_rows_after_names=1
            ),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True, delimiter=separator),
            # Only an unquoted nothing is null; a quoted one is the empty text.
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, TEXT),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )

    try:
        try:
            return parse(_BLOCK_BYTES)
        except pa.ArrowInvalid as error:
            if len(data) <= _BLOCK_BYTES or "straddling" not in str(error):
                raise
            return parse(min(len(data), 2**30))  # a row must lie within one block
    except pa.ArrowInvalid as error:
        _refuse_encoding(io.BytesIO(data), shown)
        place = _CELLS.search(str(error))
        if place is None:
            raise
        rule = (
            f"must have {place[2]} cells, as the header has, got {place[3]}. Complete or delete it: the file may break off there, "
            "or a text with a separator or a line end in it lacks its quotes."
        )
        raise OutcomeError(rule, file=shown, row=int(place[1]) - 1) from None


def _check_last_cell(table: pa.Table, data: Any, shown: str) -> None:
    """Refuse a file that ends inside quotes, which its parser takes for a text."""
    last = [table.column(place)[-1].as_py() for place in range(table.num_columns)] if len(table) else []
    text = next((cell for cell in reversed(last) if cell is not None), None)
    if text is None:
        return
    tail = text.replace('"', '""').encode()
    if bytes(data[-len(tail) - 1 :]) == b'"' + tail and data[-1:] != b'"':
        rule = f"ends within quotes: {_shown(text)}. The file breaks off there, or a quote is not closed: mend or delete the row."
        raise OutcomeError(rule, file=shown, row=len(table))


def _check_repeated(table: pa.Table, header: Sequence[str], shown: str) -> None:
    """Refuse a row that is the header again."""
    is_header = pc.equal(table.column(0), header[0])
    for place, name in enumerate(header[1:], start=1):
        is_header = pc.and_kleene(is_header, pc.equal(table.column(place), name))
    row = pc.index(is_header, pa.scalar(value=True)).as_py()
    if row >= 0:
        rule = "repeats the header: files were joined, it seems. Delete that line, or name the files one by one."
        raise OutcomeError(rule, file=shown, row=row + 1)


def _csv_values(texts: pa.Array, column: Column, may_have_decimal_commas: bool, shown: str) -> pa.Array:
    """Read the cells of a column that is no text."""
    if column.type == NUMBERS:
        lists = [_json_value(text, column, shown, row) for row, text in enumerate(texts.to_pylist())]
        return make_array(lists, column, file=shown)
    trimmed = pc.utf8_trim_whitespace(texts)
    trimmed = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, TEXT), trimmed)
    if column.takes_truth:
        lower = pc.utf8_lower(trimmed)
        trimmed = pc.if_else(pc.equal(lower, "true"), "1", pc.if_else(pc.equal(lower, "false"), "0", trimmed))
    if may_have_decimal_commas and column.type == NUMBER:
        trimmed = pc.replace_substring(trimmed, ",", ".")
    try:
        return trimmed.cast(NUMBER)
    except pa.ArrowException:
        for row, text in enumerate(trimmed.to_pylist()):
            try:
                pa.scalar(text, TEXT).cast(NUMBER)
            except pa.ArrowException:
                refuse(f"must be {_NOUNS[column.type]}", texts[row].as_py(), column, file=shown, row=row)
        raise


def _read_jsonl(source: _Source, columns: Sequence[Column], unfinished: bool) -> dict[str, Any]:
    batches, decode = Batches(columns, file=source.shown), json.JSONDecoder().decode
    required = {column.name for column in columns if column.is_required}
    number = 0
    for raw in source.stream:
        for line in raw.splitlines() if b"\r" in raw else (raw,):  # old files end lines with "\r" alone
            number += 1
            try:
                found = decode(line.decode())
            except (ValueError, RecursionError):
                if not line.strip():
                    continue
                is_last = not raw.endswith((b"\n", b"\r")) and not source.stream.read(1)
                if is_last and unfinished:
                    break
                _refuse_line(line, number, batches.num_rows + 1, source.shown, is_last=is_last)
            if not isinstance(found, dict):
                _refuse_line(line, number, batches.num_rows + 1, source.shown)
            if not required <= found.keys():
                absent = next(column.name for column in columns if column.name in required and column.name not in found)
                row = batches.num_rows + 1
                raise OutcomeError(
                    "every row must have this column. Add it.", file=source.shown, row=row, column=absent
                )
            batches.add(found)
    return batches.finished()


def _refuse_line(line: bytes, number: int, row: int, shown: str, *, is_last: bool = False) -> NoReturn:
    text = line.decode("utf-8", "replace").strip()
    if is_last and not text.endswith("}"):
        rule = f"the last line ({number}) breaks off: {_shown(text)}. Delete it to go on with the rest: `sed -i '$d' {shlex.quote(shown)}`."
        raise OutcomeError(rule, file=shown, row=row)
    try:
        line.decode()
    except UnicodeDecodeError:
        _refuse_encoding(io.BytesIO(b"\n" * (number - 1) + line), shown)
    if row == 1 and text[:1] == "[":
        rule = f"must hold one JSON object a line, got one JSON list. `jq -c '.[]' {shlex.quote(shown)}` writes its objects so."
        raise OutcomeError(rule, file=shown, row=row)
    rule = f"each line must be one JSON object, got {_shown(text)} in line {number}. Mend or delete that line to go on."
    raise OutcomeError(rule, file=shown, row=row)


_READERS: dict[str, Callable[[_Source, Sequence[Column], bool], dict[str, Any]]] = {
    "parquet": _read_parquet,
    "jsonl": _read_jsonl,
    "csv": _read_csv,
}


def _check_names(names: Sequence[str], shown: str) -> None:
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        rule = f"each column must have a name of its own, got `{twice}` twice. Rename or delete one."
        raise OutcomeError(rule, file=shown, column=twice)


# ---- from rows to columns


class Batches:
    """Rows that become columns as they come, so that no more than a batch of them is held as Python objects."""

    def __init__(self, columns: Sequence[Column], *, file: str | None) -> None:
        self._columns = {column.name: column for column in columns}
        self._values_of = itemgetter(*self._columns)
        self._file = file
        self._parts: dict[str, Parts] = {name: [] for name in self._columns}
        self._others: dict[str, list[tuple[pa.Array, bool]]] = {}
        self._first_rows: dict[str, int] = {}  # of the columns that nobody named
        self._rows: list[Mapping[str, Any]] = []
        self._num_done = 0

    @property
    def num_rows(self) -> int:
        """Rows so far."""
        return self._num_done + len(self._rows)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row; a column that it has not is null there."""
        self._rows.append(row)
        if len(self._rows) >= _BATCH_ROWS:
            self._close()

    def finished(self) -> dict[str, Any]:
        """Return the columns."""
        self._close()
        arrays: dict[str, Any] = {}
        for name, column in self._columns.items():
            arrays[name] = joined(self._parts.pop(name), NUMBER if column.type == COUNT else column.type)
        for name, parts in self._others.items():
            arrays[name] = _unified([(pa.nulls(self._first_rows[name], TEXT), False), *parts])
        return arrays

    def _close(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        try:  # written so, this takes a third of the time
            found: Iterable[Sequence[Any]] = zip(*map(self._values_of, rows), strict=True)
            has_others = max(map(len, rows)) > len(self._columns)
        except KeyError:
            found = [[row.get(name) for row in rows] for name in self._columns]
            has_others = True
        for (name, column), values in zip(self._columns.items(), found, strict=True):
            self._parts[name].append(make_array(values, column, file=self._file, start=self._num_done))
        for name in dict.fromkeys(chain.from_iterable(rows)) if has_others else ():
            if name not in self._columns:
                self._others.setdefault(name, [])
                self._first_rows.setdefault(name, self._num_done)
        for name, parts in self._others.items():
            parts.append(_other_array([row.get(name) for row in rows], name, file=self._file))
        self._num_done += len(rows)


def make_array(values: Sequence[Any], column: Column, *, file: str | None, start: int = 0) -> pa.Array:
    """Make an array of Python values; whole numbers stay floats until they are checked.

    Args:
        values: The values.
        column: What they must be.
        file: Where they come from.
        start: How many rows are before them there.

    Raises:
        OutcomeError: A value is of another type.
    """
    kind = NUMBER if column.type == COUNT else column.type
    try:
        return pa.array(values, kind)
    except UnicodeEncodeError:
        return pa.array([_sendable(value) for value in values], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        made = []
        for row, value in enumerate(values, start=start):
            try:
                made.append(_sendable(_text_of(value, column)) if kind == TEXT else pa.scalar(value, kind).as_py())
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                refuse(f"must be {_NOUNS[column.type]}", value, column, file=file, row=row)
        return pa.array(made, kind)


def _text_of(value: Any, column: Column) -> str | None:
    """Return the text that CSV holds of a value.

    Raises:
        TypeError: The column does not take it.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and not math.isinf(value):
        return None if math.isnan(value) else repr(value)
    if column.takes_json and isinstance(value, bool | list | dict):
        return _json_text(value)
    raise TypeError(column.name)


def _sendable(value: Any) -> Any:
    """Replace half a surrogate pair, which JSON can carry and UTF-8 cannot: the rest of the text is kept."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


def _other_array(values: list[Any], name: str, *, file: str | None) -> tuple[pa.Array, bool]:
    """Make an array of a column that nobody named, and say whether it holds JSON texts, since its values are of several types."""
    types = {type(value) for value in values if value is not None}
    if types <= {float}:
        values = [None if value is None or math.isnan(value) else value for value in values]
    for kind, made in ((str, TEXT), (bool, pa.bool_()), (int, pa.int64()), (float, NUMBER)):
        if types <= {kind}:
            try:
                return pa.array(values, made), False
            except UnicodeEncodeError:
                return pa.array([_sendable(value) for value in values], made), False
            except (pa.ArrowException, OverflowError):  # a whole number of more than 64 bits
                break
    try:
        texts = [None if value is None else _sendable(_json_text(value)) for value in values]
    except (TypeError, ValueError, RecursionError) as error:
        raise OutcomeError(
            f"must be what JSON can hold: {error}. Leave the column out.", file=file, column=name
        ) from None
    return pa.array(texts, TEXT), True


def _json_text(value: Any) -> str:
    return json.dumps(without_nan(value), ensure_ascii=False, allow_nan=False)


def without_nan(value: Any) -> Any:
    """Return a JSON value with null for NaN, and texts for the infinite, neither of which JSON has."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    return [without_nan(item) for item in value] if isinstance(value, list | tuple) else value


def _unified(parts: Sequence[tuple[Any, bool]]) -> tuple[pa.ChunkedArray, bool]:
    """Join parts of a column that nobody named: of the type they share, else as JSON texts."""
    full = [(array, is_json) for array, is_json in parts if array.null_count < len(array)]
    kinds = {(array.type, is_json) for array, is_json in full}
    if len(kinds) > 1:
        arrays = [array if is_json else _as_json(array) for array, is_json in parts]
        kinds = {(TEXT, True)}
    else:
        arrays = [array for array, _ in parts]
    kind, is_json = next(iter(kinds), (TEXT, False))
    chunks = [
        chunk if chunk.type == kind else pa.nulls(len(chunk), kind)
        for array in arrays
        for chunk in (array.chunks if isinstance(array, pa.ChunkedArray) else [array])
    ]
    return pa.chunked_array(chunks, kind), is_json


def _as_json(array: Any) -> pa.Array:
    return pa.array([None if value is None else _json_text(value) for value in array.to_pylist()], TEXT)


# ---- checking


def assemble(arrays: dict[str, Any], columns: Sequence[Column], *, file: str | None) -> pa.Table:
    """Check columns and make a table of them.

    Args:
        arrays: Columns by name; one that nobody named is an array, and whether it holds JSON texts. They are taken out of it.
        columns: What must be there, and comes first.
        file: Where they come from.

    Raises:
        OutcomeError: A column is missing, or a value breaks a rule.
    """
    missing = [column.name for column in columns if column.is_required and column.name not in arrays]
    if not arrays:
        raise OutcomeError(
            "the table must have at least one row, got none: it is empty. Check what wrote it.", file=file
        )
    if missing:
        names = ", ".join(column.name for column in columns if column.is_required)
        has = ", ".join(f"`{name}`" for name in arrays if name not in {column.name for column in columns})
        rule = (
            f"the table must have the columns {names}. Add `{missing[0]}`{f'; it has {has[:200]}, too' if has else ''}."
        )
        raise OutcomeError(rule, file=file, column=missing[0])
    rows = max(len(array[0] if isinstance(array, tuple) else array) for array in arrays.values())
    made, fields = [], []
    for column in columns:
        array = arrays.pop(column.name, None)
        made.append(pa.nulls(rows, column.type) if array is None else _checked(array, column, file=file))
        fields.append(pa.field(column.name, column.type))
    for name, (array, is_json) in arrays.items():
        made.append(array)
        fields.append(pa.field(name, array.type, metadata=AS_JSON if is_json else None))
    return pa.table(made, schema=pa.schema(fields))


def _checked(array: pa.Array, column: Column, *, file: str | None) -> pa.Array:
    """Check a column's values against its rule, and give them its type."""

    def refuse_where(breaks: pa.Array, rule: str) -> None:
        row = pc.index(breaks, pa.scalar(value=True)).as_py()
        if row >= 0:
            refuse(rule, array[row].as_py(), column, file=file, row=row)

    noun, low, high = _NOUNS[column.type], column.minimum, column.maximum
    if column.type == NUMBERS:
        parts = array.flatten()
        if parts.null_count or not pc.all(pc.is_finite(parts), min_count=0).as_py():
            for row, values in enumerate(array.to_pylist()):
                if not all(part is not None and math.isfinite(part) for part in values or ()):
                    refuse("must be a list of finite numbers", values, column, file=file, row=row)
    if column.type in (NUMBER, COUNT):
        if column.is_nullable:
            array = pc.if_else(pc.is_nan(array), pa.scalar(None, NUMBER), array)
        breaks = pc.invert(pc.is_finite(array))
        if low is not None:
            breaks = pc.or_(breaks, pc.less(array, low))
        if column.above is not None:
            breaks = pc.or_(breaks, pc.less_equal(array, column.above))
        if high is not None:
            breaks = pc.or_(breaks, pc.greater(array, high))
        if column.type == COUNT:  # beyond 2^53 floats are no longer exact
            breaks = pc.or_(breaks, pc.or_(pc.not_equal(pc.floor(array), array), pc.greater_equal(array, 2.0**53)))
        limits = (
            f"above {column.above:g} and at most {high:g}"
            if column.above is not None
            else "finite"
            if low is None
            else f"finite and at least {low:g}"
            if high is None
            else f"in [{low:g}, {high:g}]"
        )
        refuse_where(breaks, f"must be {noun}, {limits}")
        array = array.cast(column.type)
    if not column.is_nullable:
        refuse_where(pc.is_null(array), f"must be {noun} in every row")
        if column.type == TEXT:
            refuse_where(pc.equal(array, ""), "must not be empty")
    return array


def _json_value(text: str | None, column: Column, file: str, row: int) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError):
        refuse("must be a JSON list of numbers", text, column, file=file, row=row)


def refuse(rule: str, value: object, column: Column, *, file: str | None, row: int) -> NoReturn:
    """Raise an `OutcomeError` about a value; `row` counts from 0."""
    common = "Leave it open where it is unknown." if column.is_nullable else "Correct or delete the row."
    way_out = column.way_out or common
    raise OutcomeError(f"{rule}, got {_shown(value)}. {way_out}", file=file, row=row + 1, column=column.name)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def joined(chunks: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    """Join the parts of a column into one array."""
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], kind)


def concatenated(tables: Sequence[pa.Table], num_columns: int) -> pa.Table:
    """Put tables below each other: the first columns are the same in all, the others are those of any of them."""
    if len(tables) == 1:
        return tables[0]
    names = dict.fromkeys(name for table in tables for name in table.column_names[num_columns:])
    first = pa.concat_tables([table.select(range(num_columns)) for table in tables])
    for name in names:
        parts = [
            (table[name], is_json(table.schema.field(name)))
            if name in table.column_names
            else (pa.nulls(len(table), TEXT), False)
            for table in tables
        ]
        array, holds_json = _unified(parts)
        first = first.append_column(pa.field(name, array.type, metadata=AS_JSON if holds_json else None), array)
    return first


def is_json(field: pa.Field) -> bool:
    """Tell whether a column holds JSON texts for values of several types."""
    return (field.metadata or {}).get(b"rlfocal") == b"json"


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Yield the rows; what a column holds as JSON text comes back as the value."""
    parsed = [field.name for field in table.schema if is_json(field)]
    for batch in table.to_batches(max_chunksize=8192):
        for row in batch.to_pylist():
            for name in parsed:
                if row[name] is not None:
                    row[name] = json.loads(row[name])
            yield row


# ---- writing


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Check that a file's name tells its format.

    Raises:
        OutcomeError: It does not.
    """
    name = os.fspath(path)
    suffix, is_packed = _suffix_of(name), Path(name).suffix.lower() == ".gz"
    if suffix not in SUFFIXES or (is_packed and suffix == ".parquet"):
        rule = (
            f"the suffix must be one of {', '.join(SUFFIXES)}, got {Path(name).suffix!r}. Rename or convert the file; JSONL and "
            "CSV may be packed (.jsonl.gz)."
        )
        raise OutcomeError(rule, file=str(path))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Check that a table can be written to `path`.

    Raises:
        OutcomeError: The suffix is unknown, the file's folder does not exist or may not be written to, or it is a folder.
    """
    file = Path(path).resolve()
    check_suffix(path)
    if file.is_dir():
        raise OutcomeError("must be a file to write, got a directory. Name a file in it.", file=str(path))
    if not file.parent.is_dir():
        raise OutcomeError("the file's folder must exist. Create it first.", file=str(path))
    if not os.access(file.parent, os.W_OK):
        raise OutcomeError("the file's folder must be one that you may write to. Choose another.", file=str(path))


def write_table(table: pa.Table, path: str | os.PathLike[str]) -> None:
    """Write a Parquet, JSONL or CSV file, the latter two packed where the name ends in `.gz`: whole, or not at all.

    Raises:
        OutcomeError: The file cannot be written there; see `check_writable`.
        OSError: Writing fails; what was there before still is.
    """
    check_writable(path)
    name = Path(path).resolve().name
    with written_whole(path) as sink:
        if Path(name).suffix.lower() == ".gz":
            with gzip.GzipFile(filename="", fileobj=sink, mode="wb", mtime=0) as packed:
                _WRITERS[_suffix_of(name)](table, cast("IO[bytes]", packed))
        else:
            _WRITERS[_suffix_of(name)](table, sink)


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Give what is written a file's name when it is whole and on the disk; where the block raises, what was there still is.

    Raises:
        OSError: Writing fails.
    """
    file = Path(path).resolve()  # a link stays one
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}.part")
    try:
        with partial.open("xb") as sink:
            yield sink
            sink.flush()
            os.fsync(sink.fileno())
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def json_lines(table: pa.Table) -> Iterator[bytes]:
    """Yield each row as a line of JSON."""
    may_have_nan = any(
        pa.types.is_floating(field.type) or pa.types.is_nested(field.type)
        for field in table.schema
        if field.type != NUMBERS
    )
    for row in rows_of(table):
        try:
            yield json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        except ValueError:
            if not may_have_nan:
                raise
            yield json.dumps(without_nan(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _write_parquet(table: pa.Table, sink: IO[bytes]) -> None:
    pq.write_table(table, sink, compression="zstd")


def _write_jsonl(table: pa.Table, sink: IO[bytes]) -> None:
    sink.writelines(json_lines(table))


def _write_csv(table: pa.Table, sink: IO[bytes]) -> None:
    for place, field in enumerate(table.schema):
        if pa.types.is_nested(field.type):
            table = table.set_column(place, field.name, _as_json(table.column(place)))
    pa_csv.write_csv(table, sink)


_WRITERS: dict[str, Callable[[pa.Table, IO[bytes]], None]] = {
    ".parquet": _write_parquet,
    ".jsonl": _write_jsonl,
    ".ndjson": _write_jsonl,
    ".csv": _write_csv,
}
