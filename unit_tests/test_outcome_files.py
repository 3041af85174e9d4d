"""Files: what is written is read back, what breaks a rule is named, and nothing half-written stays."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_rlfocal.errors import OutcomeError
from langchain_rlfocal.outcomes import Outcome, OutcomeTable, tables
from langchain_rlfocal.outcomes.tables import append_jsonl

SUFFIXES = ("parquet", "jsonl", "ndjson", "csv")
ROW = {"task": "sums", "query_id": "q1", "query": "1 + 1?", "model": "a", "answer": "2", "reward": 1.0}

texts = st.text(max_size=8) | st.sampled_from(
    ["", " ", '"', ",", "\r\n", "\n", "\r", "\u2028", "\x00", "NA", "null", "é"]
)
names = texts.filter(bool)
amounts = st.floats(min_value=0, allow_infinity=False, allow_nan=False)
counts = st.integers(min_value=0, max_value=2**53 - 1)
finite = st.floats(allow_infinity=False, allow_nan=False)
outcomes = st.builds(
    Outcome,
    task=names,
    query_id=names,
    query=st.just("What?"),
    model=names,
    response=st.none() | texts,
    answer=st.none() | texts,
    gold=st.none() | texts,
    reward=st.floats(min_value=0, max_value=1),
    option_probs=st.none() | st.lists(finite, max_size=3).map(tuple),
    prompt_tokens=st.none() | counts,
    completion_tokens=st.none() | counts,
    cost_usd=st.none() | amounts,
    latency_s=st.none() | amounts,
    logprob=st.none() | finite,
)


def key(outcome):
    return outcome.task, outcome.query_id, outcome.model


def write_rows(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def read_error(path: Path) -> OutcomeError:
    with pytest.raises(OutcomeError) as caught:
        OutcomeTable.read(path)
    assert str(path) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=50)
@given(rows=st.lists(outcomes, max_size=5, unique_by=key))
def test_every_format_gives_back_what_was_written(rows, suffix, tmp_path_factory):
    """Null stays null and the empty text stays empty, numbers keep every bit, odd line ends stay in their text."""
    path = tmp_path_factory.getbasetemp() / f"round-trip.{suffix}"
    OutcomeTable.from_outcomes(rows).write(path)
    assert list(OutcomeTable.read(path)) == rows


def test_the_suffix_is_read_in_any_case_and_an_unknown_one_is_refused(tmp_path):
    table = OutcomeTable.from_outcomes([Outcome(**ROW)])
    table.write(tmp_path / "table.CSV")
    assert list(OutcomeTable.read(tmp_path / "table.CSV")) == list(table)
    for use in (table.write, OutcomeTable.read):
        with pytest.raises(OutcomeError, match=r"\.parquet, \.jsonl, \.ndjson, \.csv, got '\.xlsx'"):
            use(tmp_path / "table.xlsx")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("missing", list(ROW))
def test_a_missing_column_is_named(missing, suffix, tmp_path):
    path = tmp_path / f"table.{suffix}"
    row = {name: value for name, value in ROW.items() if name != missing}
    if suffix == "csv":
        write_csv(path, ",".join(row), ",".join(map(str, row.values())))
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        write_rows(path, row)
    error = read_error(path)
    assert error.column == missing
    assert "must have" in error.rule


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_only_the_required_columns_are_needed_and_unknown_ones_are_ignored(suffix, tmp_path):
    path = tmp_path / f"table.{suffix}"
    row = {"mood": "fine", **ROW}
    if suffix == "csv":
        write_csv(path, ",".join(row), ",".join(map(str, row.values())))
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        write_rows(path, row)
    assert list(OutcomeTable.read(path)) == [Outcome(**ROW)]


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("task", 3, "must be text, got 3"),
        ("task", None, "must be text in every row, got None"),
        ("query", "", "must not be empty, got ''"),
        ("model", ["a"], "must be text"),
        ("answer", 2, "must be text, got 2. Leave it open"),
        ("reward", "1", "must be a number, got '1'"),
        ("reward", None, "must be a number in every row"),
        ("reward", math.nan, r"must be a number, in \[0, 1\], got nan"),
        ("reward", -0.1, r"must be a number, in \[0, 1\], got -0.1"),
        ("reward", 1.001, r"must be a number, in \[0, 1\], got 1.001"),
        ("reward", 10**400, "must be a number, got 1000"),
        ("option_probs", 0.5, "must be a list of numbers, got 0.5"),
        ("option_probs", [0.5, "b"], r"must be a list of numbers, got \[0.5, 'b'\]"),
        ("option_probs", [0.5, math.nan], "must be a list of finite numbers"),
        ("prompt_tokens", 1.5, "must be a whole number, finite and at least 0, got 1.5"),
        ("completion_tokens", -1, "must be a whole number, finite and at least 0, got -1"),
        ("completion_tokens", 2**53, "must be a whole number"),
        ("cost_usd", math.inf, "must be a number, finite and at least 0, got inf"),
        ("latency_s", -1e-9, "must be a number, finite and at least 0, got -1e-09"),
        ("logprob", -math.inf, "must be a number, finite, got -inf"),
    ],
)
def test_a_value_that_breaks_a_rule_is_named_with_its_row(column, value, rule, tmp_path):
    """The second row breaks the rule, in a file and in memory alike."""
    bad = {**ROW, "query_id": "q2", column: value}
    error = read_error(write_rows(tmp_path / "table.jsonl", ROW, bad))
    assert (error.row, error.column) == (2, column)
    with pytest.raises(OutcomeError, match=rule) as caught:
        OutcomeTable.from_outcomes([Outcome(**ROW), Outcome(**bad)])
    assert (caught.value.file, caught.value.row, caught.value.column) == (None, 2, column)
    assert caught.value.rule == error.rule


def test_a_row_far_down_a_long_file_is_counted_from_its_start(tmp_path):
    """JSONL is read in batches; row 10,001 is in the second."""
    rows = [{**ROW, "query_id": str(index)} for index in range(10_002)]
    rows[10_000]["reward"] = "high"
    error = read_error(write_rows(tmp_path / "table.jsonl", *rows))
    assert (error.row, error.column) == (10_001, "reward")
    rows[10_000]["reward"] = 2
    assert read_error(write_rows(tmp_path / "table.jsonl", *rows)).row == 10_001


@pytest.mark.parametrize(
    ("column", "text", "row", "rule"),
    [
        ("reward", "good", None, "#5: Row #3: CSV conversion error to double: invalid value 'good'"),
        ("prompt_tokens", "many", None, "#6: Row #3: CSV conversion error to double: invalid value 'many'"),
        ("reward", "", 2, "must be a number in every row"),
        ("prompt_tokens", "1.5", 2, "must be a whole number, finite and at least 0, got 1.5"),
        ("option_probs", "[1,", 2, "must be a JSON list of numbers"),
        ("option_probs", "7", 2, "must be a list of numbers, got 7"),
    ],
)
def test_a_csv_cell_that_is_no_number_is_named(column, text, row, rule, tmp_path):
    """What pyarrow cannot read it names itself, by column from 0 and line from 1."""
    first, second = {**ROW, column: "[1]" if column == "option_probs" else "1"}, {**ROW, "query_id": "q2", column: text}
    lines = [",".join(first), *(",".join(f'"{v}"' if v != "" else "" for v in row.values()) for row in (first, second))]
    error = read_error(write_csv(tmp_path / "table.csv", *lines))
    assert (error.row, error.column) == (row, row and column)
    assert rule in error.rule


def test_csv_numbers_may_have_spaces_and_whole_numbers_a_point(tmp_path):
    """Spreadsheets and data frames write a column with gaps so."""
    path = write_csv(tmp_path / "t.csv", ",".join([*ROW, "prompt_tokens"]), "sums,q1,1 + 1?,a,2, 1 ,12.0")
    assert list(OutcomeTable.read(path)) == [Outcome(**ROW, prompt_tokens=12)]


def test_csv_tells_an_unquoted_nothing_from_an_empty_text(tmp_path):
    path = write_csv(tmp_path / "t.csv", ",".join([*ROW, "gold"]), 'sums,q1,1 + 1?,a,"",0,', "sums,q1,1 + 1?,b,,0,NA")
    assert [(row.answer, row.gold) for row in OutcomeTable.read(path)] == [("", None), (None, "NA")]


def test_a_csv_row_longer_than_a_block_is_read(tmp_path):
    long = Outcome(**{**ROW, "answer": "x\n" * 2**20})
    OutcomeTable.from_outcomes([long]).write(tmp_path / "t.csv")
    assert list(OutcomeTable.read(tmp_path / "t.csv")) == [long]


def test_parquet_types_of_other_writers_are_taken(tmp_path):
    """Dictionaries, single precision, integers as doubles with gaps, numbers as texts, and columns without a value."""
    arrays = {
        "task": pa.array(["sums", "sums"]).dictionary_encode(),
        "query_id": pa.array(["q1", "q2"], pa.large_string()),
        "query": pa.array(["1 + 1?", "2 + 2?"], pa.string_view()),
        "model": pa.array(["a", "a"]),
        "answer": pa.nulls(2),
        "gold": pa.array([2, 4]),
        "reward": pa.array([1, 0], pa.int8()),
        "option_probs": pa.array([[0.5], []], pa.large_list(pa.float32())),
        "prompt_tokens": pa.array([12.0, math.nan]),
        "latency_s": pa.nulls(2),
    }
    pq.write_table(pa.table(arrays), tmp_path / "t.parquet")
    common = {"task": "sums", "model": "a", "answer": None}
    assert list(OutcomeTable.read(tmp_path / "t.parquet")) == [
        Outcome(**common, query_id="q1", query="1 + 1?", gold="2", reward=1.0, option_probs=(0.5,), prompt_tokens=12),
        Outcome(**common, query_id="q2", query="2 + 2?", gold="4", reward=0.0, option_probs=()),
    ]


@pytest.mark.parametrize(("column", "value"), [("query_id", [1]), ("reward", "good"), ("option_probs", "[1]")])
def test_a_parquet_column_of_another_type_is_named(column, value, tmp_path):
    pq.write_table(pa.Table.from_pylist([{**ROW, column: value}]), tmp_path / "t.parquet")
    error = read_error(tmp_path / "t.parquet")
    assert error.column == column
    assert "got a column of type" in error.rule


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_column_that_stands_twice_is_named(suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    if suffix == "csv":
        write_csv(path, ",".join([*ROW, "task"]), "sums,q1,1 + 1?,a,2,1,sums")
    else:
        columns = [pa.array([value]) for value in ROW.values()]
        pq.write_table(pa.Table.from_arrays([*columns, columns[0]], names=[*ROW, "task"]), path)
    assert "task" in read_error(path).rule


@pytest.mark.parametrize("line", ["{", "[1]", "7", "null", "[" * 100_000])
def test_a_line_that_is_no_json_object_is_named(line, tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(f"{json.dumps(ROW)}\n\n{line}\n")
    error = read_error(path)
    assert error.row == 2, "empty lines are no rows"
    assert "one JSON object" in error.rule


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_not_what_its_suffix_says_is_refused(suffix, tmp_path):
    path = tmp_path / f"t.{suffix}"
    assert "must exist" in read_error(path).rule
    path.write_bytes(b"task,query_id,query,model,answer,reward\n\xff\xfe,b,c,d,e,1\n")
    assert read_error(path).rule
    path.unlink()
    path.mkdir()
    assert "readable" in read_error(path).rule


def test_half_a_surrogate_pair_is_replaced_and_a_whole_one_is_joined(tmp_path):
    """JSON can carry \\ud83d alone, UTF-8 cannot: one odd answer must not lose a collection."""
    bad = Outcome(**{**ROW, "answer": "a\ud83d", "response": "\ud83d\ude00"})
    (row,) = OutcomeTable.from_outcomes([bad])
    assert (row.answer, row.response) == ("a\ufffd", "😀")
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({**ROW, "answer": "a\ud83d"}))
    assert [row.answer for row in OutcomeTable.read(path)] == ["a\ufffd"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(suffix, tmp_path, monkeypatch):
    """The disk fills after some bytes: the file is as before, and no temporary file stays."""
    path = tmp_path / f"t.{suffix}"
    path.write_bytes(b"old")

    def fill(table, sink):
        sink.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setitem(tables._WRITERS, path.suffix, fill)
    with pytest.raises(OSError, match="No space"):
        OutcomeTable.from_outcomes([Outcome(**ROW)]).write(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(OutcomeError, match="folder must exist"):
        OutcomeTable.from_outcomes([]).write(tmp_path / "no" / "t.csv")


@settings(max_examples=50)
@given(batches=st.lists(st.lists(outcomes, max_size=3), max_size=4))
def test_appended_batches_read_as_one_table(batches, tmp_path_factory):
    rows, path = [], tmp_path_factory.getbasetemp() / "appended.jsonl"
    path.unlink(missing_ok=True)
    path.touch()
    seen = set()
    for batch in batches:
        new = [row for index, row in enumerate(batch) if key(row) not in seen | {key(other) for other in batch[:index]}]
        seen |= {key(row) for row in new}
        append_jsonl(path, new)
        rows += new
    assert list(OutcomeTable.read(path)) == rows


def test_appending_ends_a_line_that_was_left_open(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(ROW))
    append_jsonl(path, [Outcome(**{**ROW, "model": "b"})])
    assert [row.model for row in OutcomeTable.read(path)] == ["a", "b"]


def test_an_append_that_breaks_a_rule_or_does_not_fit_adds_nothing(tmp_path, monkeypatch):
    """The rule is broken by the second outcome; then the disk takes only part of the bytes."""
    path = tmp_path / "t.jsonl"
    append_jsonl(path, [Outcome(**ROW)])
    before = path.read_bytes()
    other = {**ROW, "model": "b"}
    with pytest.raises(OutcomeError, match="reward"):
        append_jsonl(path, [Outcome(**other), Outcome(**{**other, "query_id": "q2", "reward": 2})])
    assert path.read_bytes() == before

    class Full:
        def __init__(self, sink):
            self.sink = sink

        def __getattr__(self, name):
            return getattr(self.sink, name)

        def __enter__(self):
            return self

        def __exit__(self, *cause):
            self.sink.close()

        def write(self, data):
            return self.sink.write(data[:10])

    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *mode, **options: Full(real(self, *mode, **options)))
    with pytest.raises(OSError, match="No space"):
        append_jsonl(path, [Outcome(**other)])
    monkeypatch.undo()
    assert path.read_bytes() == before
