"""Columns: what a column of a table must hold, and the checks that make it hold it.

Takes Python values, Arrow arrays of a file's own types, or a CSV file's text, and returns arrays of a column's type. It
refuses to guess: what breaks a rule is an `OutcomeError` that names the file, the row and the column. NaN in a column that
may be null means null, because many programs write a missing number so.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from langchain_rlfocal.errors import OutcomeError

TEXT = pa.large_string()
NUMBER = pa.float64()
COUNT = pa.int64()
NUMBERS = pa.list_(pa.float64())

Codes = tuple[npt.NDArray[np.int64], list[str]]
"""A column of texts, numbered: each row's number (-1 is null), and the text that each number stands for."""

_NOUNS = {TEXT: "text", NUMBER: "a number", COUNT: "a whole number", NUMBERS: "a list of numbers"}
_LARGEST_EXACT_COUNT = 2.0**53


def _is_text(kind: type) -> bool:
    return issubclass(kind, str)


def _is_number(kind: type) -> bool:
    return issubclass(kind, int | float) and not issubclass(kind, bool)


def _is_list(kind: type) -> bool:
    return issubclass(kind, list | tuple)


_FITS: dict[pa.DataType, Callable[[type], bool]] = {
    TEXT: _is_text,
    NUMBER: _is_number,
    COUNT: _is_number,
    NUMBERS: _is_list,
}


@dataclass(frozen=True, slots=True)
class Column:
    """What a column must hold.

    Attributes:
        name: Its name in the file.
        type: `TEXT`, `NUMBER`, `COUNT` or `NUMBERS`.
        is_required: True if a table without the column is refused.
        is_nullable: True if a row may leave it open.
        minimum: Least value, or None.
        maximum: Greatest value, or None.
    """

    name: str
    type: pa.DataType
    is_required: bool = False
    is_nullable: bool = True
    minimum: float | None = None
    maximum: float | None = None


def table_from_rows(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> pa.Table:
    """Check rows in memory and make a table of exactly `columns`.

    Args:
        rows: One mapping per row; a missing key is refused where the column is required, and null otherwise.
        columns: The columns to take.

    Raises:
        OutcomeError: A row breaks a rule.
    """
    return assemble(columns_of(rows, columns, file=None, first=0), columns, file=None)


def columns_of(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, file: str | None, first: int
) -> dict[str, pa.Array]:
    """Turn rows into columns; `first` is the place of the first row in the whole, for errors.

    Raises:
        OutcomeError: A row lacks a required column, or holds a value of another type than the column's.
    """
    raw = {}
    for column in columns:
        values = [row.get(column.name) for row in rows]
        if column.is_required and None in values:
            missing = next((index for index, row in enumerate(rows) if column.name not in row), None)
            if missing is not None:
                raise OutcomeError(
                    "every row must have this column. Add it.", file=file, row=first + missing + 1, column=column.name
                )
        raw[column.name] = array_of(values, column, file=file, first=first)
    return raw


def array_of(values: list[Any], column: Column, *, file: str | None, first: int = 0) -> pa.Array:
    """Make an array of Python values; `first` is the place of the first of them in the whole, for errors.

    Raises:
        OutcomeError: A value is of another type than the column's.
    """
    fits = _FITS[column.type]
    if not all(fits(kind) for kind in {type(value) for value in values} - {type(None)}):
        culprit = next(row for row, value in enumerate(values) if value is not None and not fits(type(value)))
        _refuse(f"must be {_NOUNS[column.type]}", values[culprit], column, file=file, row=first + culprit)
    if column.type == NUMBERS:
        for row, value in enumerate(values):
            if value is not None and not all(_is_number(type(part)) for part in value):
                _refuse(f"must be {_NOUNS[column.type]}", value, column, file=file, row=first + row)
        values = [value if value is None else [_bounded(part) for part in value] for value in values]
    if column.type in (NUMBER, COUNT):
        values = [value if value is None else _bounded(value) for value in values]
    if column.type == TEXT:
        try:
            return pa.array(values, TEXT)
        except UnicodeEncodeError:
            # Half a surrogate pair, which JSON can carry, has no place in UTF-8: keep the rest of the text.
            values = [_mend(value) for value in values]
    return pa.array(values, NUMBER if column.type == COUNT else column.type)


def _bounded(value: float) -> float:
    """Turn what Arrow cannot take, a whole number past 64 bits, into the infinity that the range checks refuse."""
    return math.inf if isinstance(value, int) and abs(value) >= 2**63 else value


def retype(array: pa.Array, column: Column, *, file: str) -> pa.Array:
    """Cast an array of a file's own type to the column's type.

    Raises:
        OutcomeError: The array holds another kind of thing than the column.
    """
    kind = array.type.value_type if pa.types.is_dictionary(array.type) else array.type
    if column.type == TEXT:
        fits = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    elif column.type == NUMBERS:
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        fits = is_list and (_is_numeric(kind.value_type) or pa.types.is_null(kind.value_type))
    else:
        fits = _is_numeric(kind)
    if not fits and not pa.types.is_null(kind):
        rule = f"must be {_NOUNS[column.type]}, got a column of type {array.type}. Convert the column."
        raise OutcomeError(rule, file=file, column=column.name)
    return array.cast(NUMBER if column.type == COUNT else column.type, safe=False)


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def parse(array: pa.Array, column: Column, *, file: str) -> pa.Array:
    """Read text as the column's type: numbers as they stand, lists as JSON.

    Raises:
        OutcomeError: A text is no number, or no list of numbers.
    """
    if column.type == TEXT:
        return array
    if column.type == NUMBERS:
        values = []
        for row, text in enumerate(array.to_pylist()):
            try:
                values.append(None if text is None else json.loads(text))
            except (ValueError, RecursionError):
                _refuse("must be a JSON list of numbers", text, column, file=file, row=row)
        return array_of(values, column, file=file)
    trimmed = pc.utf8_trim_whitespace(array)
    try:
        return trimmed.cast(NUMBER)
    except pa.ArrowInvalid:
        for row, scalar in enumerate(trimmed):
            try:
                scalar.cast(NUMBER)
            except pa.ArrowInvalid:
                _refuse(f"must be {_NOUNS[column.type]}", scalar.as_py(), column, file=file, row=row)
        raise


def assemble(raw: Mapping[str, pa.Array], columns: Sequence[Column], *, file: str | None) -> pa.Table:
    """Check arrays, and make a table of exactly `columns`: one that is optional and missing is all null.

    Raises:
        OutcomeError: A required column is missing, or a value breaks its column's rule.
    """
    missing = [column.name for column in columns if column.is_required and column.name not in raw]
    if missing:
        rule = f"the table must have the columns {', '.join(c.name for c in columns if c.is_required)}. Add `{missing[0]}`."
        raise OutcomeError(rule, file=file, column=missing[0])
    rows = max((len(array) for array in raw.values()), default=0)
    arrays = [
        _checked(raw[column.name], column, file=file) if column.name in raw else pa.nulls(rows, column.type)
        for column in columns
    ]
    return pa.table(dict(zip((column.name for column in columns), arrays, strict=True)))


def codes_of(column: pa.ChunkedArray) -> Codes:
    """Number a column's distinct texts by first appearance."""
    encoded = pa.chunked_array([column.combine_chunks()], TEXT).dictionary_encode().combine_chunks()
    return pc.fill_null(encoded.indices, -1).to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _checked(array: pa.Array, column: Column, *, file: str | None) -> pa.Array:
    def refuse_where(breaks: pa.Array, rule: str) -> None:
        row = pc.index(breaks, pa.scalar(value=True)).as_py()
        if row >= 0:
            _refuse(rule, array[row].as_py(), column, file=file, row=row)

    if column.type == NUMBERS:
        parts = array.flatten()
        if parts.null_count or not pc.all(pc.is_finite(parts), min_count=0).as_py():
            for row, values in enumerate(array.to_pylist()):
                if not all(part is not None and math.isfinite(part) for part in values or ()):
                    _refuse("must be a list of finite numbers", values, column, file=file, row=row)
    if column.type in (NUMBER, COUNT):
        if column.is_nullable:
            array = pc.if_else(pc.is_nan(array), pa.scalar(None, NUMBER), array)
        refuse_where(pc.invert(pc.is_finite(array)), _range_rule(column))
        if column.minimum is not None:
            refuse_where(pc.less(array, column.minimum), _range_rule(column))
        if column.maximum is not None:
            refuse_where(pc.greater(array, column.maximum), _range_rule(column))
    if column.type == COUNT:
        is_whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(array, _LARGEST_EXACT_COUNT))
        refuse_where(pc.invert(is_whole), _range_rule(column))
        array = array.cast(COUNT)
    if not column.is_nullable:
        refuse_where(pc.is_null(array), f"must be {_NOUNS[column.type]} in every row")
        if column.type == TEXT:
            refuse_where(pc.equal(array, ""), "must not be empty")
    return array


def _range_rule(column: Column) -> str:
    low, high = column.minimum, column.maximum
    if low is not None and high is not None:
        return f"must be {_NOUNS[column.type]} in [{low:g}, {high:g}]"
    if low is not None:
        return f"must be {_NOUNS[column.type]}, finite and at least {low:g}"
    return f"must be {_NOUNS[column.type]} and finite"


def _refuse(rule: str, value: object, column: Column, *, file: str | None, row: int) -> NoReturn:
    way_out = "Leave it open where it is unknown." if column.is_nullable else "Correct or delete the row."
    raise OutcomeError(f"{rule}, got {shorten(value)}. {way_out}", file=file, row=row + 1, column=column.name)


def shorten(value: object) -> str:
    """Show a value in an error, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _mend(text: str | None) -> str | None:
    return None if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
